//! A client that sends any bytes and sees every byte that comes: frames, heads and plain HTTP.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{Server, WAIT};

pub(crate) const FIN: u8 = 0x80;
pub(crate) const CONTINUATION: u8 = 0x00;
pub(crate) const TEXT: u8 = FIN | 0x01;
pub(crate) const BINARY: u8 = FIN | 0x02;
pub(crate) const CLOSE: u8 = FIN | 0x08;
pub(crate) const PING: u8 = FIN | 0x09;
pub(crate) const PONG: u8 = FIN | 0x0a;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A masked frame. `first` is its first byte: FIN, reserved bits, opcode.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame_header(first, payload.len() as u64);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The header of a masked frame whose payload is this long.
pub(crate) fn frame_header(first: u8, len: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match len {
        0..=125 => bytes.push(0x80 | len as u8),
        126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(len.to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes
}

/// A close frame with this code and reason.
pub(crate) fn close_frame(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// The head of an upgrade request; `more` are further header lines.
pub(crate) fn upgrade_head(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: parlor.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// A frame of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// FIN, reserved bits, opcode.
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn text(text: &str) -> Self {
        Self { first: TEXT, payload: text.as_bytes().to_vec() }
    }

    /// The code of a close; nothing if it has none.
    pub(crate) fn close_code(&self) -> Option<u16> {
        assert_eq!(self.first, CLOSE, "a close is expected, not {self:?}");
        self.payload.first_chunk().map(|code| u16::from_be_bytes(*code))
    }
}

/// An answer to a plain request.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header_in(&self.head, name)
    }
}

/// The value of a header in a head.
fn header_in<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

/// How TCP ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Reset,
}

/// A TCP connection to the server.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    /// What came and was not taken yet.
    received: Vec<u8>,
}

impl Raw {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("the server listens"))
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(WAIT)).expect("a socket");
        stream.set_write_timeout(Some(WAIT)).expect("a socket");
        Self { stream, received: Vec::new() }
    }

    /// A WebSocket on `path`, right behind the 101.
    pub(crate) fn open(server: &Server, path: &str) -> Self {
        let mut raw = Self::connect(server.address);
        raw.send(upgrade_head(path, "").as_bytes());
        let head = raw.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "a WebSocket on {path} is expected:\n{head}");
        raw
    }

    /// A WebSocket of pairing, behind its `ready`. Also returns its id.
    pub(crate) fn open_pairing(server: &Server) -> (Self, String) {
        let mut raw = Self::open(server, "/ws");
        let ready = raw.frame();
        let text = String::from_utf8(ready.payload).expect("UTF-8");
        let id =
            text.strip_prefix(r#"{"type":"ready","clientId":""#).and_then(|rest| rest.strip_suffix("\"}"));
        (raw, id.unwrap_or_else(|| panic!("not a ready: {text}")).to_owned())
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the connection takes all bytes");
    }

    /// Sends bytes that the server may not want.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Takes the head of an answer, with its blank line.
    pub(crate) fn head(&mut self) -> String {
        loop {
            if let Some(end) = find(&self.received, b"\r\n\r\n") {
                let head = self.received.drain(..end + 4).collect();
                return String::from_utf8(head).expect("a head is text");
            }
            self.fill_for("a head");
        }
    }

    /// Takes a whole answer to a GET.
    pub(crate) fn response(&mut self) -> Response {
        let head = self.head();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let len = header_in(&head, "Content-Length").map_or(0, |len| len.parse().expect("a length"));
        while self.received.len() < len {
            self.fill_for("a body");
        }
        let body = self.received.drain(..len).collect();
        Response { status, head, body: String::from_utf8(body).expect("a body is text") }
    }

    /// Takes a whole answer to `request`, which has no body if that was a HEAD.
    pub(crate) fn response_to(&mut self, request: &str) -> Response {
        if !request.starts_with("HEAD ") {
            return self.response();
        }
        let head = self.head();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let body = String::from_utf8_lossy(&std::mem::take(&mut self.received)).into_owned();
        Response { status, head, body }
    }

    /// Takes a frame. It must not be masked.
    pub(crate) fn frame(&mut self) -> Frame {
        loop {
            if let Some((frame, len)) = parse_frame(&self.received) {
                self.received.drain(..len);
                return frame;
            }
            self.fill_for("a frame");
        }
    }

    /// The next frame must be this text, whole.
    pub(crate) fn expect(&mut self, text: &str) {
        let frame = self.frame();
        assert!(frame == Frame::text(text), "{text:.200} is expected, not {:.300}", format!("{frame:?}"));
    }

    /// The next frame must be a close with this code. Returns its reason.
    pub(crate) fn expect_close(&mut self, code: u16) -> String {
        let frame = self.frame();
        assert_eq!(frame.close_code(), Some(code), "{:?}", String::from_utf8_lossy(&frame.payload));
        String::from_utf8(frame.payload[2..].to_vec()).expect("a reason is text")
    }

    /// Answers a close and waits for the end of TCP, which must be in order.
    pub(crate) fn finish(mut self, code: u16) {
        self.send(&close_frame(code, b""));
        assert_eq!(self.end(), (Vec::new(), End::Fin), "nothing comes after a close");
    }

    /// Reads until the end of TCP. Returns what still came.
    pub(crate) fn end(&mut self) -> (Vec<u8>, End) {
        loop {
            match self.fill() {
                Ok(0) => return (std::mem::take(&mut self.received), End::Fin),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return (std::mem::take(&mut self.received), End::Reset);
                }
                Err(error) => {
                    panic!("waited for the end of the connection: {error}; got {:?}", self.received)
                }
            }
        }
    }

    /// Says whether nothing comes for a while.
    pub(crate) fn is_silent_for(&mut self, span: Duration) -> bool {
        self.stream.set_read_timeout(Some(span)).expect("a socket");
        let before = self.received.len();
        let filled = self.fill();
        self.stream.set_read_timeout(Some(WAIT)).expect("a socket");
        before == 0
            && filled.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    fn fill_for(&mut self, awaited: &str) {
        let failure = match self.fill() {
            Ok(0) => "the connection ended".to_owned(),
            Ok(_) => return,
            Err(error) => error.to_string(),
        };
        let received = String::from_utf8_lossy(&self.received);
        panic!("waited for {awaited}: {failure}; got {} bytes: {received:.500}", self.received.len());
    }

    fn fill(&mut self) -> std::io::Result<usize> {
        let mut scratch = [0; 64 * 1024];
        let count = self.stream.read(&mut scratch)?;
        self.received.extend_from_slice(&scratch[..count]);
        Ok(count)
    }
}

/// Asks for `path` on a connection of its own.
pub(crate) fn get(address: SocketAddr, path: &str) -> Response {
    let mut raw = Raw::connect(address);
    raw.send(format!("GET {path} HTTP/1.1\r\nHost: parlor.test\r\nConnection: close\r\n\r\n").as_bytes());
    raw.response()
}

/// The frame at the start of `bytes`, and its length there.
fn parse_frame(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    assert_eq!(second & 0x80, 0, "a server must not mask");
    let (len, header_len) = match second {
        126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*rest.first_chunk()?) as usize, 10),
        short => (usize::from(short), 2),
    };
    let payload = bytes.get(header_len..header_len + len)?.to_vec();
    Some((Frame { first, payload }, header_len + len))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
