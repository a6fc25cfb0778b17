//! What one connection has said and heard, and how signals look.

use std::collections::BTreeMap;
use std::time::Instant;

use super::super::judge::DropKind;
use super::super::label::{Bodies, Label};

/// A room that there was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// When somebody last came into it.
    pub(super) entered: Instant,
    pub(super) is_expired: bool,
}

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    Create,
    Join(String),
}

/// A time that a client spent in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stint {
    /// None before the first room.
    pub(super) room: Option<String>,
    /// Number of its first signal among all of the client's.
    pub(super) first: u32,
    pub(super) sent: u32,
    /// When the client knew to be in the room.
    pub(super) began_at: u64,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) group: usize,
    pub(super) host: usize,
    pub(super) id: Option<String>,
    pub(super) asked: Option<Asked>,
    /// All stints; the last is the current one.
    pub(super) stints: Vec<Stint>,
    /// The signals below this number count as heard by somebody, or never will be.
    pub(super) seen: u32,
    /// By connection and its stint, since this one's own stint began.
    pub(super) heard: BTreeMap<(u32, usize), HeardFrom>,
    pub(super) gone: Option<DropKind>,
    pub(super) next_at: Option<Instant>,
}

/// What one member has heard of another's stint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeardFrom {
    /// From here on all must come.
    pub(super) since: u32,
    pub(super) due: Option<u32>,
}

impl HeardFrom {
    /// The first number that is missing, or the one behind the last that came.
    pub(super) fn reached(self) -> u32 {
        self.due.unwrap_or(self.since)
    }
}

impl Member {
    pub(super) fn new(group: usize, host: usize) -> Self {
        Self {
            group,
            host,
            id: None,
            asked: None,
            stints: vec![Stint { room: None, first: 0, sent: 0, began_at: 0 }],
            seen: 0,
            heard: BTreeMap::new(),
            gone: None,
            next_at: None,
        }
    }

    /// The current stint.
    pub(super) fn now(&self) -> &Stint {
        self.stints.last().expect("there is one at first")
    }

    /// Number of the current stint.
    pub(super) fn stint(&self) -> usize {
        self.stints.len() - 1
    }

    /// The room that it is in.
    pub(super) fn room(&self) -> Option<&str> {
        self.now().room.as_deref()
    }

    /// Number of the next signal.
    pub(super) fn sequence(&self) -> u32 {
        self.now().first + self.now().sent
    }

    /// The stint in which a signal was sent.
    pub(super) fn stint_of(&self, label: &Label) -> Option<usize> {
        let place = self.stints.partition_point(|stint| stint.first + stint.sent <= label.sequence);
        let stint = self.stints.get(place)?;
        (stint.first + label.key_sequence == label.sequence).then_some(place)
    }

    /// A new stint begins.
    pub(super) fn enter(&mut self, room: &str, began_at: u64, heard: BTreeMap<(u32, usize), HeardFrom>) {
        let first = self.sequence();
        self.stints.push(Stint { room: Some(room.to_owned()), first, sent: 0, began_at });
        self.heard = heard;
    }

    /// The label of the next signal.
    pub(super) fn next_label(&mut self, sender: u32, key: String) -> Label {
        let sequence = self.sequence();
        let stint = self.stints.last_mut().expect("there is one at first");
        let key_sequence = stint.sent;
        stint.sent += 1;
        Label { sender, sequence, key_sequence, key }
    }
}

/// The client message of a label, at times with fields that are dropped, and in another order.
pub(super) fn signal(bodies: &Bodies, label: &Label) -> String {
    let payload = bodies.of(label).opaque;
    match label.sequence % 7 {
        3 => {
            format!("\n{{ \"payload\" :\t{payload} ,\"senderId\":\"somebody else\", \"type\": \"signal\" }} ")
        }
        6 => format!(
            r#"{{"type":"signal","roomId":"1000","s\u0065nderId":"x","payload":{payload},"target":"y"}}"#
        ),
        _ => format!(r#"{{"type":"signal","payload":{payload}}}"#),
    }
}

pub(super) fn is_uuid(id: &str) -> bool {
    let fits = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        14 => byte == b'4',
        19 => matches!(byte, b'8' | b'9' | b'a' | b'b'),
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    id.len() == 36 && id.bytes().enumerate().all(fits)
}
