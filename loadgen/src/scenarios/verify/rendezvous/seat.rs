//! What one connection has said and was told.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::super::judge::DropKind;

/// A connection.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) group: usize,
    pub(super) role: usize,
    pub(super) id: Option<String>,
    pub(super) opening_at: u64,
    pub(super) opened_at: Option<u64>,
    pub(super) dropped: Option<(DropKind, u64)>,
    /// When its host died, if it did.
    pub(super) died_at: Option<Instant>,
    /// All that were announced, gone ones as well.
    pub(super) peers: BTreeMap<String, Peer>,
    pub(super) streams: BTreeMap<String, Stream>,
    pub(super) due: VecDeque<Due>,
    pub(super) sequence: u32,
}

/// Another client, as one was told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    /// It was there before.
    pub(super) already: bool,
    pub(super) here: bool,
}

/// What one client sent to an id.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) sent: u32,
    pub(super) confirmed: u32,
    /// The first that did not find its target.
    pub(super) missing_from: Option<u32>,
    pub(super) arrived: u32,
    /// Nobody may get it.
    pub(super) bogus: bool,
}

/// An answer that is to come.
#[derive(Debug)]
pub(super) enum Due {
    /// To a message: that it arrived, or that its target is missing.
    Message { request: String, target: String, number: u32 },
    /// To something wrong: exactly this.
    Exactly(String),
}

impl Seat {
    pub(super) fn is_live(&self) -> bool {
        self.opened_at.is_some() && self.dropped.is_none()
    }

    pub(super) fn has_died(&self) -> bool {
        self.dropped.is_some_and(|(kind, _)| kind == DropKind::HostDied)
    }
}
