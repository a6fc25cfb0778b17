//! One connection's messages: bytes in, in any pieces; messages, control frames and failures out.
//!
//! A message that came in one frame and one piece stays where it was read; any other is joined once, in a buffer on
//! the shard's budget. Nothing is queued: the caller polls until the input is used up.

use super::CloseCode;
use super::stream::{Piece, Stream};
use crate::buffers::{Buffers, Exhausted};
use crate::limits::{CONTROL_PAYLOAD_MAX, Limits};
use crate::wire::Span;
use crate::wire::frame::{FrameReader, Header, Opcode, Step};
use crate::wire::utf8::{NotUtf8, Utf8Stream};

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8, checked.
    Text,
    /// Any bytes.
    Binary,
}

/// The unmasked payload of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Payload {
    /// It lies in the input, at this range.
    Input(Span),
    /// It was joined in this buffer, which is to be given back to the shard's [`Buffers`].
    Joined(Vec<u8>),
}

/// The payload of a control frame.
pub type ControlPayload = arrayvec::ArrayVec<u8, CONTROL_PAYLOAD_MAX>;

/// What [`Connection::poll`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A complete message.
    Message(Kind, Payload),
    /// A ping, to be answered with the same payload (RFC 6455 section 5.5.2).
    Ping(ControlPayload),
    /// A pong. It answers nothing that needs to be known: any byte proves that the peer lives.
    Pong,
    /// The peer closes; a legal code, or none. Nothing after it counts.
    Close(Option<u16>),
}

/// What [`Connection::poll_stream`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// A piece of a message, to be passed on.
    Piece(Piece),
    /// A control frame: anything but a message.
    Control(Event),
}

/// Why a connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// RFC 6455 was broken.
    Protocol(&'static str),
    /// A text message or a close reason is not UTF-8.
    InvalidUtf8,
    /// A message over [`Limits::message_bytes_max`] or [`Limits::fragments_max`].
    TooBig,
    /// The shard's budget has no room for a partial message.
    Busy,
}

impl Failure {
    /// The code and reason to close with.
    #[must_use]
    pub fn close(self) -> (CloseCode, &'static str) {
        match self {
            Self::Protocol(reason) => (CloseCode::ProtocolError, reason),
            Self::InvalidUtf8 => (CloseCode::InvalidData, "invalid UTF-8"),
            Self::TooBig => (CloseCode::TooBig, "message too big"),
            Self::Busy => (CloseCode::TryAgainLater, "server busy"),
        }
    }
}

impl From<NotUtf8> for Failure {
    fn from(NotUtf8: NotUtf8) -> Self {
        Self::InvalidUtf8
    }
}

impl From<Exhausted> for Failure {
    fn from(Exhausted: Exhausted) -> Self {
        Self::Busy
    }
}

/// The frame whose payload comes next.
#[derive(Debug, Clone, Copy, Default)]
enum Current {
    #[default]
    None,
    /// The first and only frame of a message.
    Whole(Kind),
    /// A frame of a message that is joined; `fin` on the last.
    Fragment {
        fin: bool,
    },
    Control(Opcode),
    /// A frame whose pieces go on as they arrive.
    Streamed,
}

/// A message that is being joined. It exists from its first frame (if more follow) or its first incomplete piece.
#[derive(Debug)]
struct Partial {
    kind: Kind,
    bytes: Vec<u8>,
    fragments: u32,
    utf8: Utf8Stream,
}

impl Partial {
    fn boxed(kind: Kind) -> Box<Self> {
        Box::new(Self { kind, bytes: Vec::new(), fragments: 1, utf8: Utf8Stream::default() })
    }
}

/// The receiving side of one WebSocket.
#[derive(Debug, Default)]
pub struct Connection {
    reader: FrameReader,
    current: Current,
    partial: Option<Box<Partial>>,
    /// A control frame that comes in pieces.
    control: Option<Box<ControlPayload>>,
}

impl Connection {
    /// Finds the next event in `input` from `*cursor` on, unmasks what it reads in place and moves the cursor
    /// behind it. Nothing: all of the input was taken.
    ///
    /// # Errors
    /// [`Failure`], after which only [`Connection::discard`] makes sense.
    pub fn poll(
        &mut self,
        input: &mut [u8],
        cursor: &mut usize,
        limits: &Limits,
        buffers: &mut Buffers,
    ) -> Result<Option<Event>, Failure> {
        while let Some(step) = self.reader.poll(input, cursor) {
            match step {
                Step::Header(header) => self.handle_header(header, limits)?,
                Step::Payload { span, last } => {
                    if let Some(event) = self.handle_payload(input, span, last, buffers)? {
                        return Ok(Some(event));
                    }
                }
            }
        }
        Ok(None)
    }

    /// As [`Connection::poll`], but messages go on piece by piece: none is joined, and none is too large.
    ///
    /// # Errors
    /// [`Failure`], after which only [`Connection::discard`] makes sense.
    pub fn poll_stream(
        &mut self,
        stream: &mut Stream,
        input: &mut [u8],
        cursor: &mut usize,
    ) -> Result<Option<StreamEvent>, Failure> {
        while let Some(step) = self.reader.poll(input, cursor) {
            match step {
                Step::Header(header) => match allowed_opcode(header)? {
                    opcode @ (Opcode::Close | Opcode::Ping | Opcode::Pong) => {
                        self.begin_control(opcode, header)?;
                    }
                    opcode @ (Opcode::Text | Opcode::Binary | Opcode::Continuation) => {
                        stream.begin(opcode, header.fin)?;
                        self.current = Current::Streamed;
                    }
                },
                Step::Payload { span, last } => {
                    let event = match self.current {
                        Current::Control(opcode) => {
                            self.handle_control(opcode, &input[span], last)?.map(StreamEvent::Control)
                        }
                        _ => stream.piece(input, span, last)?.map(StreamEvent::Piece),
                    };
                    if event.is_some() {
                        return Ok(event);
                    }
                }
            }
        }
        Ok(None)
    }

    /// Reads on after our own close, whatever the frames are: says whether the peer's close is complete among them.
    pub fn discard(&mut self, input: &mut [u8]) -> bool {
        let mut cursor = 0;
        while let Some(step) = self.reader.poll(input, &mut cursor) {
            match step {
                Step::Header(header) if header.opcode_bits == Opcode::Close as u8 => {
                    self.current = Current::Control(Opcode::Close);
                }
                Step::Header(_) => self.current = Current::None,
                Step::Payload { last: true, .. }
                    if matches!(self.current, Current::Control(Opcode::Close)) =>
                {
                    return true;
                }
                Step::Payload { .. } => {}
            }
        }
        false
    }

    /// Gives the memory of an unfinished message back.
    pub fn release(&mut self, buffers: &mut Buffers) {
        if let Some(partial) = self.partial.take() {
            buffers.release(partial.bytes);
        }
        self.control = None;
    }

    fn handle_header(&mut self, header: Header, limits: &Limits) -> Result<(), Failure> {
        match allowed_opcode(header)? {
            opcode @ (Opcode::Close | Opcode::Ping | Opcode::Pong) => self.begin_control(opcode, header),
            Opcode::Text => self.begin_message(Kind::Text, header, limits),
            Opcode::Binary => self.begin_message(Kind::Binary, header, limits),
            Opcode::Continuation => self.continue_message(header, limits),
        }
    }

    fn begin_control(&mut self, opcode: Opcode, header: Header) -> Result<(), Failure> {
        if !header.fin {
            return Err(Failure::Protocol("control frame fragmented"));
        }
        if header.payload_len > CONTROL_PAYLOAD_MAX as u64 {
            return Err(Failure::Protocol("control frame too long"));
        }
        self.current = Current::Control(opcode);
        Ok(())
    }

    fn begin_message(&mut self, kind: Kind, header: Header, limits: &Limits) -> Result<(), Failure> {
        if self.partial.is_some() {
            return Err(Failure::Protocol("message begun inside another"));
        }
        if header.payload_len > limits.message_bytes_max as u64 {
            return Err(Failure::TooBig);
        }
        self.current = if header.fin {
            Current::Whole(kind)
        } else {
            self.partial = Some(Partial::boxed(kind));
            Current::Fragment { fin: false }
        };
        Ok(())
    }

    fn continue_message(&mut self, header: Header, limits: &Limits) -> Result<(), Failure> {
        let Some(partial) = &mut self.partial else {
            return Err(Failure::Protocol("continuation without a message"));
        };
        partial.fragments += 1;
        let len = header.payload_len.saturating_add(partial.bytes.len() as u64);
        if partial.fragments > limits.fragments_max || len > limits.message_bytes_max as u64 {
            return Err(Failure::TooBig);
        }
        self.current = Current::Fragment { fin: header.fin };
        Ok(())
    }

    fn handle_payload(
        &mut self,
        input: &[u8],
        span: Span,
        last: bool,
        buffers: &mut Buffers,
    ) -> Result<Option<Event>, Failure> {
        match self.current {
            Current::Whole(kind) if last => whole_message(kind, input, span).map(Some),
            Current::Whole(kind) => {
                let partial = self.partial.insert(Partial::boxed(kind));
                append(partial, &input[span], buffers)?;
                self.current = Current::Fragment { fin: true };
                Ok(None)
            }
            Current::Fragment { fin } => {
                if let Some(partial) = &mut self.partial {
                    append(partial, &input[span], buffers)?;
                }
                if fin && last { self.joined_message() } else { Ok(None) }
            }
            Current::Control(opcode) => self.handle_control(opcode, &input[span], last),
            Current::None | Current::Streamed => Ok(None),
        }
    }

    fn joined_message(&mut self) -> Result<Option<Event>, Failure> {
        let Some(partial) = &self.partial else { return Ok(None) };
        partial.utf8.finish()?;
        let message = self.partial.take().map(|partial| (partial.kind, partial.bytes));
        Ok(message.map(|(kind, bytes)| Event::Message(kind, Payload::Joined(bytes))))
    }

    fn handle_control(&mut self, opcode: Opcode, piece: &[u8], last: bool) -> Result<Option<Event>, Failure> {
        if !last || self.control.is_some() {
            let kept = self.control.get_or_insert_default();
            kept.try_extend_from_slice(piece).map_err(|_| Failure::Protocol("control frame too long"))?;
        }
        if !last {
            return Ok(None);
        }
        let kept = self.control.take();
        let payload = kept.as_ref().map_or(piece, |kept| kept.as_slice());
        match opcode {
            Opcode::Ping => Ok(Some(Event::Ping(payload.iter().copied().collect()))),
            Opcode::Close => close_code(payload).map(|code| Some(Event::Close(code))),
            Opcode::Pong | Opcode::Continuation | Opcode::Text | Opcode::Binary => Ok(Some(Event::Pong)),
        }
    }
}

/// The opcode of a frame, if a client may send one like that at all.
fn allowed_opcode(header: Header) -> Result<Opcode, Failure> {
    if header.reserved != 0 {
        return Err(Failure::Protocol("reserved bits set"));
    }
    let Some(opcode) = Opcode::from_bits(header.opcode_bits) else {
        return Err(Failure::Protocol("unknown opcode"));
    };
    if header.mask.is_none() {
        return Err(Failure::Protocol("frame not masked"));
    }
    if header.payload_len > i64::MAX as u64 {
        return Err(Failure::Protocol("length over 63 bits"));
    }
    Ok(opcode)
}

fn whole_message(kind: Kind, input: &[u8], span: Span) -> Result<Event, Failure> {
    if kind == Kind::Text && simdutf8::basic::from_utf8(&input[span.clone()]).is_err() {
        return Err(Failure::InvalidUtf8);
    }
    Ok(Event::Message(kind, Payload::Input(span)))
}

fn append(partial: &mut Partial, piece: &[u8], buffers: &mut Buffers) -> Result<(), Failure> {
    if partial.kind == Kind::Text {
        partial.utf8.push(piece)?;
    }
    buffers.reserve(&mut partial.bytes, piece.len())?;
    partial.bytes.extend_from_slice(piece);
    Ok(())
}

/// The code of a close frame's payload, RFC 6455 section 5.5.1.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Failure> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(Failure::Protocol("close code cut short")) };
    };
    let code = u16::from_be_bytes(*code);
    if !may_be_sent(code) {
        return Err(Failure::Protocol("illegal close code"));
    }
    simdutf8::basic::from_utf8(reason).map_err(|_| Failure::InvalidUtf8)?;
    Ok(Some(code))
}

/// Codes that may stand in a close frame: those that are defined and not for local use only (RFC 6455 section 7.4.1
/// and IANA's registry), libraries' and applications' own.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests;
