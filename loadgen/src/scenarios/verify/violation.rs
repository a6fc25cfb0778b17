//! What may go wrong.

use std::fmt;

/// Longest part of a message that is shown to people.
const SHOWN_MAX: usize = 300;

/// A promise of the protocol that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Something came before `ready`, or `ready` came again.
    Ready,
    /// Matched with oneself, or got one's own message back.
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
    /// Matched with, or introduced to, a client that had gone long before.
    Gone {
        /// Its id.
        partner: String,
        /// For how long.
        ms: u64,
    },
    /// `partner-left` without a partner.
    LeftByNobody,
    /// A message from one who has not been announced, or has gone.
    Stranger {
        /// Who it says it is from.
        from: String,
    },
    /// A message from another than the one it says.
    WrongSender {
        /// Who it says it is from.
        from: String,
        /// Who it should be.
        partner: String,
    },
    /// A message of another room, connection id, document or name than the one it came to.
    WrongKey {
        /// What its sender wrote into it.
        label: String,
        /// Where it arrived.
        key: String,
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
    /// Not what the protocol says, to the byte.
    Different {
        /// What came.
        came: String,
        /// What should have come.
        due: String,
    },
    /// A message that was not one unfragmented text frame.
    NotPlain,
    /// An error, or a refusal, that the server had no reason for.
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
        /// The room, or who sent it to whom.
        room: String,
        /// What one end sent in it.
        sent: u32,
        /// What the other end got.
        arrived: u32,
    },
    /// Somebody was announced who was announced before.
    AnnouncedTwice {
        /// Who.
        who: String,
    },
    /// Somebody was announced as there, or gone, in a way that does not fit.
    WrongPresence {
        /// Who and why not.
        how: String,
    },
    /// Somebody who is there was said to be gone, or not found.
    StillThere {
        /// Who.
        who: String,
    },
    /// At the end a client does not know the others that are there.
    WrongList {
        /// Whose list.
        whose: String,
        /// What it is.
        is: String,
        /// What it should be.
        due: String,
    },
    /// An answer to another message than the one that is to be answered next.
    WrongAnswer {
        /// What came.
        came: String,
        /// What is to be answered.
        due: String,
    },
    /// At the end something had no answer.
    Unanswered {
        /// What.
        due: String,
    },
    /// A message arrived, and its sender was told that it did not; or the other way round.
    FalseAnswer {
        /// What its sender wrote into it.
        label: String,
        /// What the sender was told.
        told: &'static str,
    },
    /// An id, a room or a name that somebody else has.
    NotUnique {
        /// What.
        what: String,
    },
    /// An introduction that no order of the two clients' messages leads to.
    WrongIntroduction {
        /// The two, the documents, and why not.
        how: String,
    },
    /// A connection ended that nobody ended.
    Ended {
        /// How.
        how: String,
    },
    /// A byte of a stream is not the one that was sent.
    WrongByte {
        /// Where in the stream.
        offset: u64,
        /// What came from there on.
        came: String,
        /// What should have come.
        due: String,
    },
    /// Bytes of another stream.
    Foreign {
        /// What came.
        came: String,
        /// Where.
        stream: String,
    },
    /// A message ended where the sender's did not, or is of another kind; or two fragments were joined.
    WrongFrame {
        /// What, where.
        how: String,
    },
    /// A stream ended in a way that does not fit how the other end ended.
    WrongEnding {
        /// What, why not.
        how: String,
    },
    /// Somebody whose host died is still believed to be there.
    NotTold {
        /// By whom.
        whose: String,
        /// Who is dead.
        dead: String,
    },
    /// Two clients wait, and are not brought together.
    NotMatched {
        /// Their ids.
        waiting: String,
        /// For how long the one who came last.
        ms: u64,
    },
    /// The server's rate limit stood in the way; that is no violation, but nothing can be verified.
    RateLimited,
}

impl Violation {
    /// Bytes that are not those which are due.
    pub(crate) fn different(came: &[u8], due: &str) -> Self {
        Self::Different { came: shown(came), due: shown(due.as_bytes()) }
    }
}

/// Whether exactly these bytes came.
pub(crate) fn is_exactly(came: &[u8], due: &str) -> Result<(), Violation> {
    if came == due.as_bytes() { Ok(()) } else { Err(Violation::different(came, due)) }
}

/// The start of a message, for people.
pub(crate) fn shown(message: &[u8]) -> String {
    String::from_utf8_lossy(&message[..message.len().min(SHOWN_MAX)]).into_owned()
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("`ready` must be the first message, and come once"),
            Self::Self_ => f.write_str("matched with itself, or its own message came back"),
            Self::MatchedAgain { room } => write!(f, "matched, but no `partner-left` ended the room {room}"),
            Self::Asymmetric { how } => write!(f, "the ends of a room do not fit together: {how}"),
            Self::Gone { partner, ms } => {
                write!(f, "brought together with {partner}, who had gone {ms} ms before")
            }
            Self::LeftByNobody => f.write_str("`partner-left` without a partner"),
            Self::Stranger { from } => write!(f, "a message from {from}, who is not there"),
            Self::WrongSender { from, partner } => {
                write!(f, "a message from {from}, but it should be {partner}")
            }
            Self::WrongKey { label, key } => write!(f, "message `{label}` arrived in {key}"),
            Self::Lost { label, due } => {
                write!(f, "message `{label}` arrived when number {due:08x} was due: a gap")
            }
            Self::Repeated { label, due } => {
                write!(f, "message `{label}` arrived when number {due:08x} was due: repeated or late")
            }
            Self::Changed { came } => write!(f, "not what was sent: {came}"),
            Self::Different { came, due } => write!(f, "came `{came}`, due was `{due}`"),
            Self::NotPlain => f.write_str("a message that is not one unfragmented text frame"),
            Self::Error { code } => write!(f, "error {code} without a reason"),
            Self::Unknown { came } => write!(f, "unknown message: {came}"),
            Self::OneSided { room } => write!(f, "only one end believes to be in room {room}"),
            Self::NotArrived { room, sent, arrived } => {
                write!(f, "of {sent} messages sent in {room} only {arrived} arrived")
            }
            Self::AnnouncedTwice { who } => write!(f, "{who} was announced twice"),
            Self::WrongPresence { how } => write!(f, "presence: {how}"),
            Self::StillThere { who } => write!(f, "{who} is still there"),
            Self::WrongList { whose, is, due } => write!(f, "{whose} ends with {is}, due was {due}"),
            Self::WrongAnswer { came, due } => {
                write!(f, "answered with `{came}`, due was an answer to {due}")
            }
            Self::Unanswered { due } => write!(f, "no answer to {due}"),
            Self::FalseAnswer { label, told } => write!(f, "message `{label}`: its sender was told `{told}`"),
            Self::NotUnique { what } => write!(f, "{what} is somebody else's"),
            Self::WrongIntroduction { how } => write!(f, "introduction: {how}"),
            Self::Ended { how } => write!(f, "its connection ended unasked: {how}"),
            Self::WrongByte { offset, came, due } => {
                write!(f, "byte {offset} of the stream: came {came}, due was {due}")
            }
            Self::Foreign { came, stream } => write!(f, "bytes of another stream in {stream}: {came}"),
            Self::WrongFrame { how } => write!(f, "frames: {how}"),
            Self::WrongEnding { how } => write!(f, "ending: {how}"),
            Self::NotTold { whose, dead } => {
                write!(f, "{whose} was not told in time that {dead} is gone, whose host died")
            }
            Self::NotMatched { waiting, ms } => {
                write!(f, "{waiting} wait for {ms} ms and more, and are not matched with each other")
            }
            Self::RateLimited => f.write_str("the server's rate limit"),
        }
    }
}
