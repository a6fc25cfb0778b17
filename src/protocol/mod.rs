//! The dialects: state machines that answer with actions, never with I/O.
//!
//! A dialect sees neither sockets nor the shard nor another dialect. It is handed one client's state and one input,
//! and pushes [`Action`]s; whoever calls it carries them out in order. A message that goes out is a list of
//! [`Part`]s: literals, ids, and spans of the message that came in, so that nothing is serialised again.
#![forbid(unsafe_code)]

pub mod directory;
pub mod introduction;
pub mod lobby;
pub mod pairing;
pub mod pipe;
pub mod rendezvous;
pub mod rooms;

use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::id::{ClientId, HostId, RoomId, TEXT_LEN};
use crate::wire::Span;
use crate::wire::close::CloseCode;

/// One piece of an outgoing message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text that is always the same.
    Literal(&'static str),
    /// A client's id.
    Client(ClientId),
    /// A room's id.
    Room(RoomId),
    /// A number in decimal.
    Number(u64),
    /// Text that was made or kept for this, already fit to stand where it does.
    Text(Arc<str>),
    /// These bytes of the message that is being handled.
    Span(Span),
}

/// Most pieces of one message.
const PARTS_MAX: usize = 8;

/// An outgoing text message in pieces.
pub type Parts = ArrayVec<Part, PARTS_MAX>;

/// Makes [`Parts`].
pub(crate) fn parts<const N: usize>(pieces: [Part; N]) -> Parts {
    const { assert!(N <= PARTS_MAX) };
    pieces.into_iter().collect()
}

/// Makes a [`Action::Reply`].
pub(crate) fn reply<const N: usize>(pieces: [Part; N]) -> Action {
    Action::Reply(parts(pieces))
}

/// The length in bytes of what `parts` say.
#[must_use]
pub fn len_of(parts: &[Part]) -> usize {
    let len = |part: &Part| match part {
        Part::Literal(text) => text.len(),
        Part::Client(_) | Part::Room(_) => TEXT_LEN,
        Part::Number(number) => number.checked_ilog10().map_or(1, |log| log as usize + 1),
        Part::Text(text) => text.len(),
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
            Part::Number(number) => write(number.to_string().as_bytes()),
            Part::Text(text) => write(text.as_bytes()),
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
    /// Send this to another client of the same home, if it is still there.
    Send {
        /// The receiver.
        to: ClientId,
        /// The message.
        parts: Parts,
    },
    /// Tell the client that the input is about whether what the [`Action::Send`] before was to send is in the
    /// receiver's outbox: what stands in front of `about` then, and otherwise, and a closing brace behind it.
    Confirm {
        /// In front of `about` if it is.
        sent: &'static str,
        /// In front of `about` if it is not: the receiver is gone, or about to be closed.
        unsent: &'static str,
        /// Which message it was, in the sender's own words.
        about: Span,
    },
    /// Send this to a client that is not of this host, if it is there, and tell the client that the input is about what
    /// came of it ([`rendezvous::outcome`]) before anything else that it says is handled.
    SendFar {
        /// The receiver's id, as the sender names it.
        target: Box<[u8]>,
        /// The message.
        parts: Parts,
        /// Which message it was, in the sender's own words.
        about: Span,
    },
    /// Send this to all of these clients of the same home that are still there. It is rendered once.
    Broadcast {
        /// The receivers, in this order.
        to: Vec<ClientId>,
        /// The message.
        parts: Parts,
    },
    /// Close a client of the same home: a close frame behind what it was sent before, then the end. It leaves its
    /// dialect once all actions of this input are carried out, and is sent nothing more.
    Close {
        /// Who is closed; the client that the input is about, or another one.
        client: ClientId,
        /// The code; none for a close frame without one.
        code: Option<CloseCode>,
        /// The reason, as it goes onto the wire.
        reason: &'static str,
    },
    /// Nothing is answered to this message; count it.
    Ignore,
    /// Send this to another client, if it is in this room when it gets there.
    Forward {
        /// The receiver.
        to: ClientId,
        /// The room that both are in.
        room: RoomId,
        /// The message.
        parts: Parts,
    },
    /// Ask the cluster about a name. Nothing of the client is read until it has its answer.
    Directory(directory::Ask),
    /// Send this to peers of the directory on other hosts, from the client that the input is about.
    Distant {
        /// The receivers.
        to: directory::Distant,
        /// The message.
        parts: Parts,
    },
    /// Ask the cluster about a room. Of a client that wants one nothing is read until it has its answer.
    Rooms(rooms::Ask),
    /// Tell another host who has members in which room.
    RoomNote(HostId, rooms::Note),
    /// Send this to all members of a room on other hosts, from the client that the input is about.
    RoomSignal {
        /// The room.
        key: rooms::Key,
        /// The hosts.
        hosts: Vec<HostId>,
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
    /// Ask the cluster this, for the queue.
    Ask(pairing::Errand),
}

/// The actions of one input, in the order in which they are to be carried out.
pub type Actions = Vec<Action>;
