//! The client's half of an HTTP upgrade: to WebSocket (RFC 6455 section 4.1), or to a raw stream.

use std::io;

use super::socket::{Socket, is_not_yet};
use super::target::Target;
use crate::failure::Failure;

/// The key of RFC 6455 section 1.3. A fixed key has a fixed answer, so that no hash is needed to check it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The answer to [`KEY`].
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Longest head of an answer that is read.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What a connection becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Frames.
    WebSocket,
    /// Bytes.
    Tcp,
}

impl Protocol {
    /// Its name in the `Upgrade` header.
    fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Tcp => "tcp",
        }
    }

    /// What people call it.
    fn what(self) -> &'static str {
        match self {
            Self::WebSocket => "WebSocket",
            Self::Tcp => "raw stream",
        }
    }
}

/// Asks for the upgrade of `path`, waits for the answer, and returns the bytes that came behind it.
pub(crate) async fn upgrade(
    socket: &Socket,
    target: &Target,
    path: &str,
    protocol: Protocol,
) -> Result<Vec<u8>, Failure> {
    let lost =
        |error: io::Error| Failure::Handshake(format!("{}: lost while upgrading: {error}", target.url));
    send_all(socket, request(target, path, protocol).as_bytes()).await.map_err(lost)?;
    let mut answer = Vec::new();
    let mut piece = [0; 2048];
    loop {
        socket.readable().await.map_err(lost)?;
        match socket.receive(&mut piece) {
            Ok(0) => return Err(ended(&answer, target)),
            Ok(len) => answer.extend_from_slice(&piece[..len]),
            Err(error) if is_not_yet(&error) => continue,
            Err(error) => return Err(lost(error)),
        }
        if let Some(end) = memchr::memmem::find(&answer, b"\r\n\r\n") {
            check(&String::from_utf8_lossy(&answer[..end]), target, path, protocol)?;
            return Ok(answer.split_off(end + 4));
        }
        if answer.len() > HEAD_BYTES_MAX {
            return Err(ended(&answer, target));
        }
    }
}

async fn send_all(socket: &Socket, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match socket.send(bytes) {
            Ok(len) => bytes = &bytes[len..],
            Err(error) if is_not_yet(&error) => socket.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn request(target: &Target, path: &str, protocol: Protocol) -> String {
    let origin = target.origin.as_ref().map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
    let websocket = match protocol {
        Protocol::WebSocket => format!("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"),
        Protocol::Tcp => String::new(),
    };
    format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: {}\r\n{websocket}{origin}\r\n",
        target.url.authority(),
        protocol.name(),
    )
}

fn check(head: &str, target: &Target, path: &str, protocol: Protocol) -> Result<(), Failure> {
    let status = head.lines().next().unwrap_or_default();
    let problem = |text: String| Err(Failure::Handshake(format!("{}: {text}", target.url)));
    let code = status.split(' ').nth(1).unwrap_or_default();
    if code == "404" {
        return problem(format!("no such path ({path}), the server says `{status}`"));
    }
    if code != "101" || !status.starts_with("HTTP/1.1 ") {
        return problem(format!("not a {}, the server says `{status}`", protocol.what()));
    }
    let has = |name: &str, value: &str| {
        let fields = head.lines().filter_map(|line| line.split_once(':'));
        fields.into_iter().any(|(is, text)| is.eq_ignore_ascii_case(name) && text.trim() == value)
    };
    match protocol {
        Protocol::WebSocket if !has("sec-websocket-accept", ACCEPT) => {
            problem("101 with a wrong Sec-WebSocket-Accept".to_owned())
        }
        Protocol::Tcp if !has("upgrade", "tcp") => problem("101 without `Upgrade: tcp`".to_owned()),
        Protocol::WebSocket | Protocol::Tcp => Ok(()),
    }
}

fn ended(answer: &[u8], target: &Target) -> Failure {
    let start = String::from_utf8_lossy(&answer[..answer.len().min(80)]);
    let start = start.lines().next().unwrap_or_default();
    Failure::Handshake(format!("{}: not a WebSocket, the answer ended with `{start}`", target.url))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        let url = "ws://127.0.0.1:1/ws".parse().expect("a URL");
        Target::resolve(&url, Some("https://example.org".to_owned()), false).expect("loopback")
    }

    #[test]
    fn the_request_names_host_path_and_origin() {
        let websocket = request(&target(), "/ws", Protocol::WebSocket);
        assert!(websocket.starts_with("GET /ws HTTP/1.1\r\nHost: 127.0.0.1:1\r\n"), "{websocket}");
        assert!(websocket.contains("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"), "{websocket}");
        assert!(websocket.ends_with("Origin: https://example.org\r\n\r\n"), "{websocket}");
        let raw = request(&target(), "/connection/a/b/c", Protocol::Tcp);
        assert!(raw.contains("Upgrade: tcp\r\nOrigin:"), "{raw}");
    }

    #[test]
    fn answers_are_told_apart() {
        let says = |head: &str, protocol| {
            check(head, &target(), "/ws", protocol).map_err(|failure| failure.to_string())
        };
        let websocket = |head: &str| says(head, Protocol::WebSocket);
        let good = format!("HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: {ACCEPT}");
        assert_eq!(websocket(&good), Ok(()));
        assert!(websocket("HTTP/1.1 404 Not Found").expect_err("404").contains("no such path (/ws)"));
        assert!(websocket("HTTP/1.1 200 OK").expect_err("200").contains("`HTTP/1.1 200 OK`"));
        assert!(websocket("SSH-2.0-x").expect_err("no HTTP").contains("not a WebSocket"));
        assert!(websocket("HTTP/1.1 101 x\r\nSec-WebSocket-Accept: no").expect_err("key").contains("wrong"));
        assert_eq!(says("HTTP/1.1 101 x\r\nUpgrade: tcp", Protocol::Tcp), Ok(()));
        assert!(says(&good, Protocol::Tcp).expect_err("no tcp").contains("Upgrade: tcp"));
    }
}
