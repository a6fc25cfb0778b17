//! What hosts say to each other, and how it is written.

use bytes::{BufMut, Bytes};

use crate::cluster::codec::{Error, Reader};
use crate::id::ClientId;
use crate::protocol::rendezvous::Role;

/// What hosts say to each other: to a shard, or to the cluster of the other host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Letter {
    /// To the cluster: is this heard? Its answer is [`Letter::Heard`].
    Call,
    /// To the cluster: from now on all that our clients do is told by letter.
    Heard,
    /// To the cluster: a client of the sender's has come to a client of the receiver's.
    JustConnected {
        /// The one that is told.
        to: ClientId,
        /// The newcomer.
        who: ClientId,
    },
    /// To the cluster: a client of the sender's that a client of the receiver's may know is not there any more.
    Disconnected {
        /// The one that is told.
        to: ClientId,
        /// The one that is gone.
        gone: ClientId,
    },
    /// To the target's shard, which says with [`Letter::Answer`] what became of it.
    Message(Message),
    /// To the sender's shard: what became of its client's message.
    Answer {
        /// The sender of the message.
        to: ClientId,
        /// The number of the message.
        number: u64,
        /// Whether it is in the target's outbox.
        is_sent: bool,
    },
}

/// A message of one client to another. It counts if the target is on that connection id, in the other role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The target.
    pub to: ClientId,
    /// The sender.
    pub from: ClientId,
    /// For the answer.
    pub number: u64,
    /// The sender's connection id.
    pub connection: [u8; 64],
    /// The sender's role.
    pub role: Role,
    /// Header and payload, as they go onto the wire.
    pub frame: Bytes,
}

impl Letter {
    /// Bytes that it refers to.
    #[must_use]
    pub(in crate::cluster) fn len(&self) -> usize {
        match self {
            Self::Message(message) => message.frame.len(),
            Self::Call
            | Self::Heard
            | Self::JustConnected { .. }
            | Self::Disconnected { .. }
            | Self::Answer { .. } => 0,
        }
    }
}

/// The kinds of letters.
mod kind {
    pub(super) const CALL: u8 = 1;
    pub(super) const HEARD: u8 = 2;
    pub(super) const JUST_CONNECTED: u8 = 3;
    pub(super) const DISCONNECTED: u8 = 4;
    pub(super) const MESSAGE: u8 = 5;
    pub(super) const ANSWER: u8 = 6;
}

const WALLET: u8 = 0;
const EXTENSION: u8 = 1;

/// Writes a letter: its kind, and its fields in their order; a frame's length stands in 4 bytes before it.
pub(super) fn put(bytes: &mut Vec<u8>, letter: &Letter) {
    match letter {
        Letter::Call => bytes.put_u8(kind::CALL),
        Letter::Heard => bytes.put_u8(kind::HEARD),
        Letter::JustConnected { to, who } => put_two(bytes, kind::JUST_CONNECTED, *to, *who),
        Letter::Disconnected { to, gone } => put_two(bytes, kind::DISCONNECTED, *to, *gone),
        Letter::Message(Message { to, from, number, connection, role, frame }) => {
            put_two(bytes, kind::MESSAGE, *to, *from);
            bytes.put_u64(*number);
            bytes.put_slice(connection);
            bytes.put_u8(match role {
                Role::Wallet => WALLET,
                Role::Extension => EXTENSION,
            });
            bytes.put_u32(frame.len() as u32);
            bytes.put_slice(frame);
        }
        Letter::Answer { to, number, is_sent } => {
            bytes.put_u8(kind::ANSWER);
            bytes.put_u128(to.to_bits());
            bytes.put_u64(*number);
            bytes.put_u8(u8::from(*is_sent));
        }
    }
}

fn put_two(bytes: &mut Vec<u8>, kind: u8, to: ClientId, about: ClientId) {
    bytes.put_u8(kind);
    bytes.put_u128(to.to_bits());
    bytes.put_u128(about.to_bits());
}

/// Reads a letter.
pub(super) fn take(reader: &mut Reader) -> Result<Letter, Error> {
    Ok(match reader.u8()? {
        kind::CALL => Letter::Call,
        kind::HEARD => Letter::Heard,
        kind::JUST_CONNECTED => Letter::JustConnected { to: reader.client()?, who: reader.client()? },
        kind::DISCONNECTED => Letter::Disconnected { to: reader.client()?, gone: reader.client()? },
        kind::MESSAGE => Letter::Message(Message {
            to: reader.client()?,
            from: reader.client()?,
            number: reader.u64()?,
            connection: reader.take()?,
            role: match reader.u8()? {
                WALLET => Role::Wallet,
                EXTENSION => Role::Extension,
                other => return Err(Error::UnknownKind(other)),
            },
            frame: reader.frame()?,
        }),
        kind::ANSWER => Letter::Answer {
            to: reader.client()?,
            number: reader.u64()?,
            is_sent: match reader.u8()? {
                0 => false,
                1 => true,
                other => return Err(Error::UnknownFlags(other)),
            },
        },
        other => return Err(Error::UnknownKind(other)),
    })
}
