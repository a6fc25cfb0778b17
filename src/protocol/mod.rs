//! The dialects: state machines that answer with actions, never with I/O.
//!
//! A dialect sees neither sockets nor the shard nor another dialect. It is handed one client's state and one input,
//! and pushes [`Action`]s; whoever calls it carries them out in order. A message that goes out is a list of
//! [`Part`]s: literals, ids, and spans of the message that came in, so that nothing is serialised again.
#![forbid(unsafe_code)]

pub mod pairing;

use arrayvec::ArrayVec;

use crate::id::{ClientId, RoomId, TEXT_LEN};
use crate::wire::Span;

/// Which protocol a client speaks, and its state there.
#[derive(Debug)]
pub enum Dialect {
    /// Messages come back as they are (`ECHO_PATH`).
    Echo,
    /// Random chat, protocols.md section 1.
    Pairing(pairing::State),
}

/// One piece of an outgoing message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text that is always the same.
    Literal(&'static str),
    /// A client's id.
    Client(ClientId),
    /// A room's id.
    Room(RoomId),
    /// These bytes of the message that is being handled.
    Span(Span),
}

/// Most pieces of one message.
const PARTS_MAX: usize = 6;

/// An outgoing text message in pieces.
pub type Parts = ArrayVec<Part, PARTS_MAX>;

/// Makes [`Parts`].
pub(crate) fn parts<const N: usize>(pieces: [Part; N]) -> Parts {
    const { assert!(N <= PARTS_MAX) };
    pieces.into_iter().collect()
}

/// The length in bytes of what `parts` say.
#[must_use]
pub fn len_of(parts: &[Part]) -> usize {
    let len = |part: &Part| match part {
        Part::Literal(text) => text.len(),
        Part::Client(_) | Part::Room(_) => TEXT_LEN,
        Part::Span(span) => span.len(),
    };
    parts.iter().map(len).sum()
}

/// Hands what `parts` say to `write`, piece by piece. Spans are taken from `message`.
pub fn write(parts: &[Part], message: &[u8], mut write: impl FnMut(&[u8])) {
    for part in parts {
        match part {
            Part::Literal(text) => write(text.as_bytes()),
            Part::Client(id) => write(&id.text()),
            Part::Room(id) => write(&id.text()),
            Part::Span(span) => write(&message[span.clone()]),
        }
    }
}

/// Where a [`pairing::Note`] goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// The home shard of the pairing queue.
    Queue,
    /// The shard where this client lives.
    Client(ClientId),
}

/// What a dialect asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this to the client that the input is about.
    Reply(Parts),
    /// Send this to another client, if it is in this room when it gets there.
    Forward {
        /// The receiver.
        to: ClientId,
        /// The room that both are in.
        room: RoomId,
        /// The message.
        parts: Parts,
    },
    /// Tell the queue, or a partner's shard.
    Notify {
        /// Where the note goes.
        to: Address,
        /// What it says.
        note: pairing::Note,
    },
}

/// The actions of one input, in the order in which they are to be carried out.
pub type Actions = Vec<Action>;
