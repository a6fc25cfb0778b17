//! What one client said and the server has not handled, and what the client must hear, in order.
//!
//! On its home shard every dialect but pairing is one state machine, so what each client hears, and in which order,
//! follows from what the shard has handled. The books of the dialects write it down here, from protocols.md alone; what
//! comes is compared to the byte.

use std::collections::VecDeque;

use super::checks::fail;
use super::{introductions, lobby, pairing, rendezvous};

/// What a client has said, as the server will understand it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// A request head that opens a dialect.
    Upgrade,
    /// A message.
    Word(Word),
    /// A ping frame.
    Ping(Vec<u8>),
    /// A close frame with this code.
    Close(Option<u16>),
    /// Something that is answered with this close code; where it begins.
    Violation(u16),
}

/// A message of a dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    Pairing(pairing::Word),
    Rendezvous(rendezvous::Word),
    Lobby(lobby::Word),
    Introductions(introductions::Word),
}

/// What a client must hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Text(String),
    /// `room_created`, with an id that is the server's to choose, for the room of this number in the books.
    RoomCreated(usize),
    /// `Room not found`, unless the server has just drawn the id that was asked for.
    NoSuchRoom,
    Pong(Vec<u8>),
    /// A close with this code and this reason; no reason: any.
    Close(Option<u16>, Option<&'static str>),
}

/// What a client learns from what it hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    Nothing,
    Rendezvous(rendezvous::News),
    Lobby(lobby::News),
}

/// What has come.
#[derive(Debug, Clone, Copy)]
pub(super) enum Heard<'a> {
    Text(&'a [u8]),
    Pong(&'a [u8]),
    Close(Option<u16>, &'a [u8]),
}

/// One entry of what a client must hear.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    pub(super) what: What,
    pub(super) meaning: Meaning,
    /// It must come. Otherwise it may, because nobody knows whether the server could handle its cause.
    pub(super) is_certain: bool,
    /// Neighbours of the same group come in any order; 0 for none.
    pub(super) group: u64,
}

/// A fixed window that starts with the first message after the last one (protocols.md section 0, rate).
#[derive(Debug, Default)]
pub(super) struct Window {
    start_ms: u64,
    count: u32,
}

impl Window {
    /// Counts a message; says whether it is within the limit.
    pub(super) fn allows(&mut self, now_ms: u64, window_ms: u32, max: u32) -> bool {
        if self.count == 0 || now_ms >= self.start_ms + u64::from(window_ms) {
            *self = Self { start_ms: now_ms, count: 0 };
        }
        self.count += 1;
        self.count <= max
    }

    /// When it began.
    pub(super) fn start_ms(&self) -> u64 {
        self.start_ms
    }
}

/// The books about what one client says and hears.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// With the position of the client's bytes at which the server has all of it.
    unread: VecDeque<(u64, Said)>,
    expected: VecDeque<Expected>,
    pub(super) window: Window,
    /// The server handles nothing of it until the window ends.
    pub(super) is_paused_for_rate: bool,
    /// It has broken the protocol. Once the server has seen it, it closes with this code.
    pub(super) violation: Option<u16>,
    /// The server has it in a dialect whose books are kept here.
    pub(super) is_in: bool,
    /// Nothing counts any more of what it says, and nothing more is expected.
    pub(super) has_stopped: bool,
    /// It has received a close.
    pub(super) is_closed: bool,
}

impl Ledger {
    /// The client has said something, which ends at this position of its bytes.
    pub(super) fn say(&mut self, said: Said, end: u64) {
        self.unread.push_back((end, said));
    }

    /// What the server handles next, if it has read it by this position.
    pub(super) fn next(&self, upto: u64) -> Option<&Said> {
        self.unread.front().filter(|(end, _)| *end <= upto).map(|(_, said)| said)
    }

    /// The server has handled what came next.
    pub(super) fn take_next(&mut self) -> Option<Said> {
        self.unread.pop_front().map(|(_, said)| said)
    }

    /// Whether nothing that it had said by this position changes what it is or where.
    pub(super) fn is_harmless(&self, upto: u64) -> bool {
        let said = self.unread.iter().take_while(|(end, _)| *end <= upto).map(|(_, said)| said);
        let is_harmless = |said: &Said| match said {
            Said::Ping(_) | Said::Word(Word::Introductions(_)) => true,
            Said::Word(Word::Lobby(word)) => !matches!(word, lobby::Word::Create | lobby::Word::Join(_)),
            Said::Word(Word::Pairing(_) | Word::Rendezvous(_)) => false,
            Said::Upgrade | Said::Close(_) | Said::Violation(_) => false,
        };
        said.into_iter().all(is_harmless)
    }

    /// Where the next thing ends that the server has not handled.
    pub(super) fn next_end(&self) -> Option<u64> {
        self.unread.front().map(|(end, _)| *end)
    }

    /// Something must come, or may.
    pub(super) fn expect(&mut self, expected: Expected) {
        if !self.has_stopped {
            self.expected.push_back(expected);
        }
    }

    /// Something has come; returns the entry that it answers to.
    pub(super) fn receive(&mut self, heard: Heard<'_>) -> Expected {
        match self.find(heard) {
            Some(position) => self.take(position),
            None => fail(format!("received {heard}, expected {:?}", self.next_expected())),
        }
    }

    /// A close has come; says whether the books know why.
    pub(super) fn receive_close(&mut self, code: Option<u16>, reason: &[u8]) -> bool {
        self.is_closed = true;
        let position = self.find(Heard::Close(code, reason));
        if let Some(position) = position {
            self.take(position);
        }
        position.is_some()
    }

    /// What comes next for certain.
    pub(super) fn next_expected(&self) -> Option<&What> {
        self.expected.iter().find(|expected| expected.is_certain).map(|expected| &expected.what)
    }

    /// Nothing has to come any more.
    pub(super) fn forget_expected(&mut self) {
        self.expected.clear();
    }

    /// The entry that this answers to: the first, but for those that need not come, and those of its own group.
    fn find(&self, heard: Heard<'_>) -> Option<usize> {
        let mut passed = None;
        for (position, expected) in self.expected.iter().enumerate() {
            let may_be_next = passed.is_none_or(|group| group == expected.group);
            if may_be_next && expected.what.is(heard) {
                return Some(position);
            }
            if expected.is_certain {
                if expected.group == 0 || !may_be_next {
                    return None;
                }
                passed = Some(expected.group);
            }
        }
        None
    }

    /// Takes an entry out, and with it those before it that did not come.
    fn take(&mut self, position: usize) -> Expected {
        let Some(taken) = self.expected.remove(position) else { fail("an entry vanished") };
        let mut at = 0;
        self.expected.retain(|expected| {
            at += 1;
            at > position || expected.group == taken.group && taken.group != 0
        });
        taken
    }
}

impl What {
    fn is(&self, heard: Heard<'_>) -> bool {
        match (self, heard) {
            (Self::Text(expected), Heard::Text(text)) => expected.as_bytes() == text,
            (Self::RoomCreated(_), Heard::Text(text)) => text.starts_with(lobby::ROOM_CREATED.as_bytes()),
            (Self::NoSuchRoom, Heard::Text(text)) => {
                text == lobby::ROOM_NOT_FOUND.as_bytes() || text.starts_with(lobby::ROOM_JOINED.as_bytes())
            }
            (Self::Pong(expected), Heard::Pong(payload)) => expected == payload,
            (Self::Close(expected, reason), Heard::Close(code, text)) => {
                *expected == code && reason.is_none_or(|reason| reason.as_bytes() == text)
            }
            _ => false,
        }
    }
}

impl std::fmt::Display for Heard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{}", String::from_utf8_lossy(&text[..text.len().min(400)])),
            Self::Pong(payload) => write!(f, "a pong {}", payload.escape_ascii()),
            Self::Close(code, reason) => write!(f, "a close {code:?} {}", reason.escape_ascii()),
        }
    }
}
