//! What may go wrong.

use std::fmt;

/// A promise of the protocol that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Something came before `ready`, or `ready` came again.
    Ready,
    /// Matched with oneself.
    Self_,
    /// `matched` in a room, without `partner-left` before it.
    MatchedAgain {
        /// The room that was not left.
        room: String,
    },
    /// Two ends of a room do not name each other, or a third one is in it.
    Asymmetric {
        /// What does not fit.
        how: String,
    },
    /// Matched with a client that had gone long before.
    Gone {
        /// Its id.
        partner: String,
        /// For how long.
        ms: u64,
    },
    /// `partner-left` without a partner.
    LeftByNobody,
    /// A relayed message without a partner.
    Stranger {
        /// Who it says it is from.
        from: String,
    },
    /// A relayed message from another than the partner.
    WrongSender {
        /// Who it says it is from.
        from: String,
        /// Who the partner is.
        partner: String,
    },
    /// A message of another room than the one it came to.
    OldRoom {
        /// What its sender wrote into it.
        label: String,
        /// Where it arrived.
        room: String,
    },
    /// A message is missing before this one.
    Lost {
        /// What its sender wrote into it.
        label: String,
        /// Sequence number that was due.
        due: u32,
    },
    /// A message came twice or late.
    Repeated {
        /// What its sender wrote into it.
        label: String,
        /// Sequence number that was due.
        due: u32,
    },
    /// Not what was sent.
    Changed {
        /// What came.
        came: String,
    },
    /// An error that the server had no reason for.
    Error {
        /// Its code.
        code: String,
    },
    /// A message that the protocol does not know.
    Unknown {
        /// What came.
        came: String,
    },
    /// At the end one client believes to be in a room that the other does not know.
    OneSided {
        /// The room.
        room: String,
    },
    /// At the end not all that was sent had arrived.
    NotArrived {
        /// The room.
        room: String,
        /// What one end sent in it.
        sent: u32,
        /// What the other end got.
        arrived: u32,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("`ready` must be the first message, and come once"),
            Self::Self_ => f.write_str("matched with itself"),
            Self::MatchedAgain { room } => write!(f, "matched, but no `partner-left` ended the room {room}"),
            Self::Asymmetric { how } => write!(f, "the ends of a room do not fit together: {how}"),
            Self::Gone { partner, ms } => write!(f, "matched with {partner}, who had gone {ms} ms before"),
            Self::LeftByNobody => f.write_str("`partner-left` without a partner"),
            Self::Stranger { from } => write!(f, "a message from {from}, without a partner"),
            Self::WrongSender { from, partner } => {
                write!(f, "a message from {from}, but the partner is {partner}")
            }
            Self::OldRoom { label, room } => write!(f, "message `{label}` arrived in room {room}"),
            Self::Lost { label, due } => {
                write!(f, "message `{label}` arrived when number {due:08x} was due: a gap")
            }
            Self::Repeated { label, due } => {
                write!(f, "message `{label}` arrived when number {due:08x} was due: repeated or late")
            }
            Self::Changed { came } => write!(f, "not what was sent: {came}"),
            Self::Error { code } => write!(f, "error {code} without a reason"),
            Self::Unknown { came } => write!(f, "unknown message: {came}"),
            Self::OneSided { room } => write!(f, "only one end believes to be in room {room}"),
            Self::NotArrived { room, sent, arrived } => {
                write!(f, "of {sent} messages sent in room {room} only {arrived} arrived")
            }
        }
    }
}
