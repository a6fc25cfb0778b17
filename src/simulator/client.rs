//! A client to the byte: requests and frames out, and a strict reader of what the server sends.

use super::checks::fail;
use super::world::RESPONSE;
use crate::wire::frame::{HEADER_LEN_MAX, Header, Opcode};
use crate::wire::mask::Mask;

/// The request that opens a WebSocket at `path`.
pub(super) fn upgrade(path: &str, version: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: parlor.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: {version}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// The request that asks for raw bytes at `path`.
pub(super) fn upgrade_raw(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: parlor.example\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n")
        .into_bytes()
}

/// A frame as a client sends it.
pub(super) fn frame(fin: bool, opcode: Opcode, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let header = Header {
        fin,
        reserved: 0,
        opcode_bits: opcode as u8,
        mask: Some(mask),
        payload_len: payload.len() as u64,
    };
    raw_frame(header, payload)
}

/// A frame with this header, allowed or not; its payload is masked if the header has a mask.
pub(super) fn raw_frame(header: Header, payload: &[u8]) -> Vec<u8> {
    let mut head = [0; HEADER_LEN_MAX];
    let len = header.emit(&mut head);
    let mut bytes = Vec::with_capacity(len + payload.len());
    bytes.extend_from_slice(&head[..len]);
    bytes.extend_from_slice(payload);
    if let Some(key) = header.mask {
        Mask::new(key).apply(&mut bytes[len..]);
    }
    bytes
}

/// What a client has received.
#[derive(Debug)]
pub(super) enum Incoming {
    /// The head of a 101.
    Upgraded,
    /// Bytes of plain HTTP.
    Http(Vec<u8>),
    /// A complete frame that began at this position of the server's bytes.
    Frame { frame: ServerFrame, at: u64 },
    /// Bytes after a 101 that promised raw ones.
    Raw(Vec<u8>),
}

/// A frame that the server sent.
#[derive(Debug)]
pub(super) struct ServerFrame {
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
    pub(super) payload: Vec<u8>,
}

/// Reads what the server sends. Whatever is not exactly as it should be fails the run.
#[derive(Default)]
pub(super) struct Reader {
    bytes: Vec<u8>,
    start: usize,
    /// Position of `bytes[start]` in all that the server sent.
    position: u64,
    is_upgraded: bool,
    /// Plain HTTP that is no [`RESPONSE`] has come, and nothing else will.
    is_refused: bool,
    /// The client has asked for raw bytes.
    pub(super) is_raw: bool,
}

/// How the head of a 101 begins, and what it must say for the key that all clients send.
const ACCEPTED: &[u8] = b"HTTP/1.1 101 ";
const ACCEPT_KEY: &[u8] = b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
/// The whole head of a 101 for raw bytes.
const ACCEPTED_RAW: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";

impl Reader {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// What comes next, if it is complete.
    pub(super) fn poll(&mut self) -> Option<Incoming> {
        match (self.is_upgraded, self.is_raw) {
            (false, _) => self.poll_head(),
            (true, false) => self.poll_frame(),
            (true, true) => self.poll_rest().map(Incoming::Raw),
        }
    }

    fn poll_head(&mut self) -> Option<Incoming> {
        let bytes = &self.bytes[self.start..];
        if bytes.len() < ACCEPTED.len() && !self.is_refused {
            return None;
        }
        if bytes.starts_with(&RESPONSE[..ACCEPTED.len()]) {
            let response = bytes.get(..RESPONSE.len())?.to_vec();
            self.take(response.len());
            return Some(Incoming::Http(response));
        }
        if self.is_refused || !bytes.starts_with(ACCEPTED) {
            self.is_refused = true;
            return self.poll_rest().map(Incoming::Http);
        }
        let end = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
        let head = &bytes[..end];
        let is_right =
            if self.is_raw { head == ACCEPTED_RAW } else { memchr::memmem::find(head, ACCEPT_KEY).is_some() };
        if !is_right {
            fail(format!("a wrong 101: {}", head.escape_ascii()));
        }
        self.take(end);
        self.is_upgraded = true;
        Some(Incoming::Upgraded)
    }

    /// All that has come.
    fn poll_rest(&mut self) -> Option<Vec<u8>> {
        let bytes = self.bytes[self.start..].to_vec();
        self.take(bytes.len());
        (!bytes.is_empty()).then_some(bytes)
    }

    fn poll_frame(&mut self) -> Option<Incoming> {
        let bytes = &self.bytes[self.start..];
        let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
        let (len, header_len) = match second {
            126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
            127 => (u64::from_be_bytes(*rest.first_chunk()?) as usize, 10),
            len => (usize::from(len), 2),
        };
        let shortest = match len {
            0..=125 => 2,
            126..=0xffff => 4,
            _ => 10,
        };
        let opcode = Opcode::from_bits(first & 0x0f);
        let (Some(opcode), 0, true) = (opcode, first & 0x70, second < 128 && header_len == shortest) else {
            fail(format!("not an unmasked frame: {}", bytes[..header_len].escape_ascii()))
        };
        let fin = first & 0x80 != 0;
        let payload = bytes.get(header_len..header_len.checked_add(len)?)?.to_vec();
        let at = self.position;
        self.take(header_len + len);
        Some(Incoming::Frame { frame: ServerFrame { fin, opcode, payload }, at })
    }

    fn take(&mut self, count: usize) {
        self.start += count;
        self.position += count as u64;
    }
}
