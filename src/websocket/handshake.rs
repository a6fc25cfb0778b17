//! The opening handshake, RFC 6455 section 4.2.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{Method, StatusCode, Version};
use sha1::{Digest, Sha1};

use crate::wire::http::{RequestHead, has_body, has_token};

/// What RFC 6455 section 1.3 appends to the key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY_BYTES: usize = 16;

/// Why an upgrade is refused: a status, a line for people, and whether the versions we speak are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    /// A 4xx status.
    pub status: StatusCode,
    /// What is wrong, in one line.
    pub reason: &'static str,
}

impl Rejection {
    const fn bad_request(reason: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, reason }
    }
}

/// What a request asks to be upgraded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// A WebSocket, RFC 6455.
    WebSocket,
    /// Raw bytes (protocols.md section 5).
    Tcp,
}

/// What a request asks to be upgraded to, if anything that we know.
#[must_use]
pub fn upgrade(head: &RequestHead) -> Option<Upgrade> {
    if has_token(head, UPGRADE, "websocket") {
        Some(Upgrade::WebSocket)
    } else if has_token(head, UPGRADE, "tcp") {
        Some(Upgrade::Tcp)
    } else {
        None
    }
}

/// Checks the request of a client that asks for an upgrade and returns the head of the 101 that accepts it. No
/// extension is accepted; the first subprotocol offered is echoed, since browsers insist (protocols.md section 0).
///
/// # Errors
/// [`Rejection`], the first thing that is wrong.
pub fn accept(head: &RequestHead, upgrade: Upgrade) -> Result<Vec<u8>, Rejection> {
    if head.method != Method::GET {
        return Err(Rejection {
            status: StatusCode::METHOD_NOT_ALLOWED,
            reason: "an upgrade needs the method GET",
        });
    }
    if head.version != Version::HTTP_11 {
        return Err(Rejection::bad_request("an upgrade needs HTTP/1.1"));
    }
    if has_body(head) {
        return Err(Rejection::bad_request("an upgrade has no body"));
    }
    if !has_token(head, CONNECTION, "upgrade") {
        return Err(Rejection::bad_request("the Connection header must say Upgrade"));
    }
    match upgrade {
        Upgrade::WebSocket => accept_websocket(head),
        Upgrade::Tcp => {
            Ok(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".to_vec())
        }
    }
}

fn accept_websocket(head: &RequestHead) -> Result<Vec<u8>, Rejection> {
    if head.headers.get(SEC_WEBSOCKET_VERSION).map(|version| version.as_bytes().trim_ascii()) != Some(b"13") {
        return Err(Rejection {
            status: StatusCode::UPGRADE_REQUIRED,
            reason: "Sec-WebSocket-Version must be 13",
        });
    }
    let key = key_of(head).ok_or(Rejection::bad_request("Sec-WebSocket-Key must be 16 bytes in base64"))?;
    Ok(response(key, subprotocol(head)))
}

/// The one key of the request, if it is one.
fn key_of(head: &RequestHead) -> Option<&[u8]> {
    let mut keys = head.headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else { return None };
    let key = key.as_bytes().trim_ascii();
    let decoded = STANDARD.decode(key).ok()?;
    (decoded.len() == KEY_BYTES).then_some(key)
}

fn subprotocol(head: &RequestHead) -> Option<&[u8]> {
    let offered = head.headers.get(SEC_WEBSOCKET_PROTOCOL)?.as_bytes();
    let first = offered.split(|&byte| byte == b',').next()?.trim_ascii();
    (!first.is_empty()).then_some(first)
}

fn response(key: &[u8], subprotocol: Option<&[u8]>) -> Vec<u8> {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut response = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: "
        .to_vec();
    response.extend_from_slice(STANDARD.encode(digest).as_bytes());
    if let Some(subprotocol) = subprotocol {
        response.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        response.extend_from_slice(subprotocol);
    }
    response.extend_from_slice(b"\r\n\r\n");
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::parse_head;

    const GOOD: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    fn answer(request: &str) -> Result<String, (u16, &'static str)> {
        let (head, _) = parse_head(request.as_bytes()).expect("well-formed").expect("complete");
        let text = accept(&head, Upgrade::WebSocket).map(|bytes| String::from_utf8(bytes).expect("ASCII"));
        text.map_err(|rejection| (rejection.status.as_u16(), rejection.reason))
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        assert_eq!(
            answer(GOOD).expect("accepted"),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn the_first_subprotocol_is_echoed() {
        let request = GOOD.replace("Host: x", "Sec-WebSocket-Protocol: chat, superchat");
        assert!(answer(&request).expect("accepted").contains("\r\nSec-WebSocket-Protocol: chat\r\n"));
    }

    #[test]
    fn each_wrong_request_gets_its_status() {
        for (from, to, status) in [
            ("GET /ws", "POST /ws", 405),
            ("HTTP/1.1", "HTTP/1.0", 400),
            ("Host: x", "Content-Length: 5", 400),
            ("keep-alive, Upgrade", "keep-alive", 400),
            ("Version: 13", "Version: 8", 426),
            ("Sec-WebSocket-Version: 13\r\n", "", 426),
            ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "not base64 at all!!!", 400),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        ] {
            let request = GOOD.replace(from, to);
            assert_ne!(request, GOOD);
            assert_eq!(answer(&request).expect_err("refused").0, status, "{to}");
        }
    }
}
