//! What a client was sent, read as the client would read it.

use parlor::wire::frame::{Header, Opcode};
use serde_json::value::RawValue;

/// How a client reads what comes behind the 101.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Each message is one frame of text.
    Messages,
    /// Messages come in any fragments.
    Stream,
    /// Bytes are bytes.
    Raw,
}

/// One frame.
#[derive(Debug)]
pub struct Frame<'a> {
    /// Where it begins in all that was sent.
    pub at: usize,
    /// Its first byte's low half.
    pub opcode: Opcode,
    /// The last of its message.
    pub fin: bool,
    /// Header and payload.
    pub bytes: &'a [u8],
    /// What is in it.
    pub payload: &'a [u8],
}

/// All that a client was sent.
#[derive(Debug, Default)]
pub struct Reading<'a> {
    /// The status of the last response; none, if none has come.
    pub status: Option<&'a str>,
    /// What came behind a 101.
    pub frames: Vec<Frame<'a>>,
    /// The same, unread.
    pub opened: &'a [u8],
    /// Where what is whole ends.
    pub end: usize,
}

impl<'a> Reading<'a> {
    /// Reads it, and checks what holds for every client: whole responses, well-formed frames, none behind a close.
    #[must_use]
    pub fn new(sent: &'a [u8], manner: Manner) -> Self {
        let (mut reading, mut at) = (Self::default(), 0);
        while reading.status != Some("101")
            && let Some((status, len)) = response(&sent[at..])
        {
            reading.status = Some(status);
            at += len;
        }
        if reading.status == Some("101") {
            reading.opened = &sent[at..];
            if manner != Manner::Raw {
                at = reading.read_frames(sent, at, manner);
            } else {
                at = sent.len();
            }
        }
        reading.end = at;
        reading
    }

    /// What text messages say. They are JSON.
    pub fn texts(&self) -> impl Iterator<Item = &'a RawValue> {
        let texts = self.frames.iter().filter(|frame| frame.opcode == Opcode::Text);
        texts.map(|frame| serde_json::from_slice(frame.payload).expect("JSON"))
    }

    /// The payload of the close, if it has come.
    #[must_use]
    pub fn close(&self) -> Option<&'a [u8]> {
        self.frames.last().filter(|frame| frame.opcode == Opcode::Close).map(|frame| frame.payload)
    }

    fn read_frames(&mut self, sent: &'a [u8], mut at: usize, manner: Manner) -> usize {
        while let Some(frame) = frame(sent, at) {
            assert!(self.close().is_none(), "a frame behind a close");
            let is_control = matches!(frame.opcode, Opcode::Close | Opcode::Ping | Opcode::Pong);
            assert!(!is_control || frame.fin && frame.payload.len() <= 125, "{frame:?}");
            assert!(frame.opcode != Opcode::Close || frame.payload.len() != 1, "{frame:?}");
            if manner == Manner::Messages && !is_control {
                assert!(frame.opcode == Opcode::Text && frame.fin, "{frame:?}");
                let json = serde_json::from_slice::<&RawValue>(frame.payload);
                assert!(json.is_ok(), "{}", frame.payload.escape_ascii());
            }
            at += frame.bytes.len();
            self.frames.push(frame);
        }
        at
    }
}

/// Status and length of the HTTP response in front, if it is whole.
fn response(bytes: &[u8]) -> Option<(&str, usize)> {
    let head_len = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_len]).expect("ASCII");
    assert!(head.starts_with("HTTP/1.1 "), "{head}");
    let body_len = head.split("Content-Length: ").nth(1).map_or(0, |rest| {
        rest.split("\r\n").next().and_then(|digits| digits.parse().ok()).expect("a length")
    });
    let len = head_len + body_len;
    (bytes.len() >= len).then_some((&head[9..12], len))
}

/// The frame at this place, if it is whole.
fn frame(sent: &[u8], at: usize) -> Option<Frame<'_>> {
    let (header, len) = Header::parse(&sent[at..])?;
    assert!(header.reserved == 0 && header.mask.is_none(), "{header:?}");
    let shortest = match header.payload_len {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    };
    assert_eq!(len, shortest, "a length in its shortest form");
    let end = at.checked_add(len)?.checked_add(usize::try_from(header.payload_len).ok()?)?;
    let bytes = sent.get(at..end)?;
    let opcode = Opcode::from_bits(header.opcode_bits).expect("an opcode");
    Some(Frame { at, opcode, fin: header.fin, bytes, payload: &bytes[len..] })
}

/// A whole frame of a server; `first` is its first byte.
#[must_use]
pub fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let len = payload.len();
    let mut bytes = match len {
        0..=125 => vec![first, len as u8],
        126..=0xffff => vec![first, 126, (len >> 8) as u8, len as u8],
        _ => [&[first, 127], &(len as u64).to_be_bytes()[..]].concat(),
    };
    bytes.extend_from_slice(payload);
    bytes
}

/// The payload of a close.
#[must_use]
pub fn close_payload(code: Option<u16>, reason: &str) -> Vec<u8> {
    code.map_or(Vec::new(), |code| [&code.to_be_bytes(), reason.as_bytes()].concat())
}
