//! Data frames that go on as they arrive, for pipes: nothing is joined or collected (protocols.md section 5).
//!
//! Each piece that comes becomes a frame of its own, a fragment if its frame is not complete. So between any two
//! pieces a control frame may be sent to the receiver, and an end that is lost never leaves a frame half sent.

use super::connection::Failure;
use crate::wire::Span;
use crate::wire::frame::{Opcode, ServerHeader};
use crate::wire::utf8::Utf8Stream;

/// A piece of a message: the header to be written in front, and where the unmasked bytes lie in the input.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    /// Says the opcode, whether the message ends with this piece, and its length.
    pub header: ServerHeader,
    /// The bytes.
    pub span: Span,
}

/// Where a stream of messages stands.
#[derive(Debug, Default)]
pub struct Stream {
    message: Option<Message>,
    utf8: Utf8Stream,
    /// The frame that is under way is the last of its message.
    is_last_frame: bool,
}

/// The message that is under way.
#[derive(Debug, Clone, Copy)]
struct Message {
    is_text: bool,
    /// A piece of it was passed on.
    has_begun: bool,
}

impl Stream {
    /// A data frame begins.
    ///
    /// # Errors
    /// [`Failure::Protocol`]: it may not stand here.
    pub(super) fn begin(&mut self, opcode: Opcode, fin: bool) -> Result<(), Failure> {
        match (opcode, self.message) {
            (Opcode::Continuation, Some(_)) => {}
            (Opcode::Continuation, None) => {
                return Err(Failure::Protocol("continuation without a message"));
            }
            (_, Some(_)) => return Err(Failure::Protocol("message begun inside another")),
            (_, None) => {
                self.message = Some(Message { is_text: opcode == Opcode::Text, has_begun: false });
                self.utf8 = Utf8Stream::default();
            }
        }
        self.is_last_frame = fin;
        Ok(())
    }

    /// The next bytes of the frame have come; `last`: it is complete with them. Nothing: there is nothing to pass on.
    ///
    /// # Errors
    /// [`Failure::InvalidUtf8`]: the piece must not be passed on.
    pub(super) fn piece(&mut self, input: &[u8], span: Span, last: bool) -> Result<Option<Piece>, Failure> {
        let Some(message) = &mut self.message else { return Ok(None) };
        let fin = last && self.is_last_frame;
        if message.is_text {
            self.utf8.push(&input[span.clone()])?;
            if fin {
                self.utf8.finish()?;
            }
        }
        if span.is_empty() && !last {
            return Ok(None);
        }
        let opcode = match (message.has_begun, message.is_text) {
            (true, _) => Opcode::Continuation,
            (false, true) => Opcode::Text,
            (false, false) => Opcode::Binary,
        };
        message.has_begun = true;
        if fin {
            self.message = None;
        }
        Ok(Some(Piece { header: ServerHeader::of_fragment(opcode, fin, span.len()), span }))
    }
}

#[cfg(test)]
mod tests;
