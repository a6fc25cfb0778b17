//! The client's half of the WebSocket upgrade, RFC 6455 section 4.1.

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

/// Asks for the upgrade, waits for the answer, and returns the bytes that came behind it.
pub(crate) async fn upgrade(socket: &Socket, target: &Target) -> Result<Vec<u8>, Failure> {
    let lost =
        |error: io::Error| Failure::Handshake(format!("{}: lost while upgrading: {error}", target.url));
    send_all(socket, request(target).as_bytes()).await.map_err(lost)?;
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
            check(&String::from_utf8_lossy(&answer[..end]), target)?;
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

fn request(target: &Target) -> String {
    let origin = target.origin.as_ref().map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
    format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{origin}\r\n",
        target.url.path,
        target.url.authority(),
    )
}

fn check(head: &str, target: &Target) -> Result<(), Failure> {
    let status = head.lines().next().unwrap_or_default();
    let code = status.split(' ').nth(1).unwrap_or_default();
    if code == "404" {
        let path = &target.url.path;
        return Err(Failure::Handshake(format!(
            "{}: no such path ({path}), the server says `{status}`",
            target.url
        )));
    }
    if code != "101" || !status.starts_with("HTTP/1.1 ") {
        return Err(Failure::Handshake(format!(
            "{}: not a WebSocket, the server says `{status}`",
            target.url
        )));
    }
    let accepted = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == ACCEPT);
    if !accepted {
        return Err(Failure::Handshake(format!("{}: 101 with a wrong Sec-WebSocket-Accept", target.url)));
    }
    Ok(())
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
        let request = request(&target());
        assert!(request.starts_with("GET /ws HTTP/1.1\r\nHost: 127.0.0.1:1\r\n"), "{request}");
        assert!(request.ends_with("Origin: https://example.org\r\n\r\n"), "{request}");
    }

    #[test]
    fn answers_are_told_apart() {
        let says = |head: &str| check(head, &target()).map_err(|failure| failure.to_string());
        let good = format!("HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: {ACCEPT}");
        assert_eq!(says(&good), Ok(()));
        assert!(says("HTTP/1.1 404 Not Found").expect_err("404").contains("no such path (/ws)"));
        assert!(says("HTTP/1.1 200 OK").expect_err("200").contains("`HTTP/1.1 200 OK`"));
        assert!(says("SSH-2.0-x").expect_err("no HTTP").contains("not a WebSocket"));
        assert!(says("HTTP/1.1 101 x\r\nSec-WebSocket-Accept: no").expect_err("key").contains("wrong"));
    }
}
