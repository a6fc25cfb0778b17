//! Checks what comes to an end against what the other end sends. No I/O.

use parlor::wire::frame::Opcode;

use super::super::violation::Violation;
use super::plan::{BLOCK_BYTES, BytePlan, FramePlan, PlannedMessage};
use crate::client::Piece;

/// Bytes that are shown around a wrong one.
const SHOWN: usize = 48;

/// How far a stream came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Bytes of payload.
    pub(super) bytes: u64,
    /// Complete messages; none in a raw stream.
    pub(super) messages: u32,
}

/// The check of a WebSocket end.
#[derive(Debug)]
pub(super) struct FrameChecker {
    plan: FramePlan,
    progress: Progress,
    /// The message that comes, or that is due; none behind the last.
    message: Option<PlannedMessage>,
    /// Its bytes so far.
    len: usize,
    /// Where its frame that comes began.
    frame_start: usize,
    has_begun: bool,
}

impl FrameChecker {
    /// The check of all that comes of a plan.
    pub(super) fn new(plan: FramePlan) -> Self {
        Self {
            plan,
            progress: Progress::default(),
            message: Some(plan.message(0)),
            len: 0,
            frame_start: 0,
            has_begun: false,
        }
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    /// All has come.
    pub(super) fn is_complete(&self) -> bool {
        self.message.is_none()
    }

    /// The next piece.
    pub(super) fn take(&mut self, piece: Piece<'_>) -> Result<(), Violation> {
        let place = format!("message {} of {}", self.progress.messages, self.plan.stream);
        let wrong = |how: &str| Violation::WrongFrame { how: format!("{place}: {how}") };
        let Some(message) = &self.message else { return Err(wrong("nothing more was sent")) };
        let opcode = if message.is_text { Opcode::Text } else { Opcode::Binary };
        if !self.has_begun && piece.opcode != opcode {
            return Err(wrong("it is of another kind"));
        }
        let due = &message.payload[self.len..];
        let compared = piece.bytes.len().min(due.len());
        if let Some(at) = first_difference(&piece.bytes[..compared], due) {
            return Err(self.wrong_byte(piece.bytes, due, at));
        }
        if compared < piece.bytes.len() {
            return Err(wrong("it is longer than what was sent, or another one was joined to it"));
        }
        let end = self.len + compared;
        let cuts = message.frame_ends.iter();
        if cuts.into_iter().any(|cut| self.frame_start < *cut && *cut < end) {
            return Err(wrong("two of its fragments were joined"));
        }
        if piece.message_ends && end < message.payload.len() {
            return Err(wrong("it ends too early"));
        }
        self.advance(piece, end);
        Ok(())
    }

    fn advance(&mut self, piece: Piece<'_>, end: usize) {
        self.progress.bytes += (end - self.len) as u64;
        self.len = end;
        self.has_begun = true;
        if piece.frame_ends {
            self.frame_start = end;
        }
        if piece.message_ends {
            self.progress.messages += 1;
            let number = self.progress.messages;
            self.message = (number < self.plan.messages).then(|| self.plan.message(number));
            (self.len, self.frame_start, self.has_begun) = (0, 0, false);
        }
    }

    fn wrong_byte(&self, came: &[u8], due: &[u8], at: usize) -> Violation {
        let stream = self.plan.stream;
        if let Some(foreign) = stream.foreign_in(came) {
            return Violation::Foreign { came: foreign, stream: stream.to_string() };
        }
        Violation::WrongByte {
            offset: self.progress.bytes + at as u64,
            came: shown(came, at),
            due: shown(due, at),
        }
    }
}

/// The check of a raw end.
#[derive(Debug)]
pub(super) struct ByteChecker {
    plan: BytePlan,
    progress: Progress,
    block: Vec<u8>,
}

impl ByteChecker {
    /// The check of all that comes of a plan.
    pub(super) fn new(plan: BytePlan) -> Self {
        Self { plan, progress: Progress::default(), block: plan.block(0) }
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    /// The next piece.
    pub(super) fn take(&mut self, mut piece: &[u8]) -> Result<(), Violation> {
        while !piece.is_empty() {
            let offset = self.progress.bytes;
            if offset == self.plan.bytes {
                let how = format!("{}: more than was sent", self.plan.stream);
                return Err(Violation::WrongFrame { how });
            }
            let due = &self.block[offset as usize % BLOCK_BYTES..];
            let (part, rest) = piece.split_at(piece.len().min(due.len()));
            if let Some(at) = first_difference(part, due) {
                let stream = self.plan.stream;
                return Err(match stream.foreign_in(piece) {
                    Some(came) => Violation::Foreign { came, stream: stream.to_string() },
                    None => Violation::WrongByte {
                        offset: offset + at as u64,
                        came: shown(part, at),
                        due: shown(due, at),
                    },
                });
            }
            self.progress.bytes += part.len() as u64;
            if self.progress.bytes.is_multiple_of(BLOCK_BYTES as u64) {
                self.block = self.plan.block(self.progress.bytes / BLOCK_BYTES as u64);
            }
            piece = rest;
        }
        Ok(())
    }
}

fn first_difference(came: &[u8], due: &[u8]) -> Option<usize> {
    if came == &due[..came.len()] {
        return None;
    }
    came.iter().zip(due).position(|(came, due)| came != due)
}

fn shown(bytes: &[u8], at: usize) -> String {
    bytes[at..bytes.len().min(at + SHOWN)].escape_ascii().to_string()
}
