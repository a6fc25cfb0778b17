//! What one end of a pipe has sent, and how far the other has come in it.

use crate::simulator::checks::fail;
use crate::simulator::client::ServerFrame;
use crate::wire::frame::Opcode;

/// All that an end has sent, in the order in which it did.
#[derive(Debug, Default)]
pub(in crate::simulator) struct Log {
    bytes: Vec<u8>,
    /// The data frames; of a raw end, one for each time that it sent something.
    frames: Vec<Frame>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    /// Position of the first byte of the payload among all bytes of the client.
    start: u64,
    /// Where its payload stands in the log.
    at: usize,
    len: usize,
    opcode: Opcode,
    fin: bool,
}

/// How far somebody has come in a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::simulator) struct Cursor {
    frame: usize,
    /// Bytes of that frame.
    offset: usize,
}

impl Log {
    /// A data frame is sent whose payload begins at this position of the client's bytes.
    pub(in crate::simulator) fn push(&mut self, start: u64, fin: bool, opcode: Opcode, payload: &[u8]) {
        let (at, len) = (self.bytes.len(), payload.len());
        self.frames.push(Frame { start, at, len, opcode, fin });
        self.bytes.extend_from_slice(payload);
    }

    /// Bytes sent so far.
    pub(in crate::simulator) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes before a cursor.
    pub(in crate::simulator) fn bytes_before(&self, cursor: Cursor) -> usize {
        self.frames.get(cursor.frame).map_or(self.bytes.len(), |frame| frame.at + cursor.offset)
    }

    /// A data frame has come: the next piece of what was sent, and of one frame alone.
    pub(in crate::simulator) fn check_frame(&self, cursor: &mut Cursor, received: &ServerFrame) {
        let ServerFrame { fin, opcode, payload } = received;
        let Some(sent) = self.frames.get(cursor.frame) else { fail("received more than was sent") };
        let rest = &self.bytes[sent.at + cursor.offset..sent.at + sent.len];
        let begun_opcode = if cursor.offset == 0 { sent.opcode } else { Opcode::Continuation };
        if *opcode != begun_opcode || !rest.starts_with(payload) || payload.is_empty() && !rest.is_empty() {
            fail(format!("received {} bytes of {opcode:?} at {cursor:?}, sent was {sent:?}", payload.len()));
        }
        let is_complete = payload.len() == rest.len();
        if *fin != (is_complete && sent.fin) {
            fail(format!("a message ends, or does not, at {cursor:?}, sent was {sent:?}"));
        }
        self.advance(cursor, payload.len());
    }

    /// Raw bytes have come.
    pub(in crate::simulator) fn check_raw(&self, cursor: &mut Cursor, received: &[u8]) {
        let from = self.bytes_before(*cursor);
        if !self.bytes[from..].starts_with(received) {
            let most = received.len().min(60);
            fail(format!("received {} at byte {from}, which was not sent", received[..most].escape_ascii()));
        }
        let mut left = received.len();
        while let Some(frame) = self.frames.get(cursor.frame).filter(|_| left > 0) {
            let count = left.min(frame.len - cursor.offset);
            self.advance(cursor, count);
            left -= count;
        }
    }

    /// Where who has got all stands that was sent before this position of the client's bytes.
    pub(in crate::simulator) fn position(&self, upto: u64) -> Cursor {
        let frame = self.frames.partition_point(|frame| frame.start + frame.len as u64 <= upto);
        let begun = self.frames.get(frame).map_or(0, |frame| upto.saturating_sub(frame.start));
        Cursor { frame, offset: begun as usize }
    }

    fn advance(&self, cursor: &mut Cursor, count: usize) {
        cursor.offset += count;
        if self.frames.get(cursor.frame).is_some_and(|frame| frame.len == cursor.offset) {
            *cursor = Cursor { frame: cursor.frame + 1, offset: 0 };
        }
    }
}
