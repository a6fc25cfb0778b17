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

/// A connection.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) group: usize,
    pub(super) id: Option<String>,
    pub(super) room: Option<String>,
    pub(super) asked: Option<Asked>,
    pub(super) sequence: u32,
    /// Number of the first signal of the current stint.
    pub(super) stint: u32,
    pub(super) sent: u32,
    /// Signals sent in stints that are over.
    pub(super) stints: BTreeMap<u32, u32>,
    /// The highest number of a signal that somebody has heard.
    pub(super) seen: u32,
    pub(super) heard: BTreeMap<u32, HeardFrom>,
    pub(super) gone: Option<DropKind>,
    pub(super) next_at: Option<Instant>,
}

/// What one member has heard of another since it came into the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeardFrom {
    pub(super) stint: u32,
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
    pub(super) fn new(group: usize) -> Self {
        Self {
            group,
            id: None,
            room: None,
            asked: None,
            sequence: 0,
            stint: 0,
            sent: 0,
            stints: BTreeMap::new(),
            seen: 0,
            heard: BTreeMap::new(),
            gone: None,
            next_at: None,
        }
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
