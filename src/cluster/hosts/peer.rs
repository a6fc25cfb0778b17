//! Another host, as this one sees it.

use crate::limits::{HOST_HEARTBEAT_MS, HOST_MARK_MS};

/// What we know of another host.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) start: u64,
    pub(super) heard_ms: u64,
    /// Our number of the relation.
    pub(super) mine: u64,
    /// Its number; 0 while it is not known.
    pub(super) theirs: u64,
    /// Both know both numbers.
    pub(super) is_found: bool,
    /// Mail with letters in this relation.
    pub(super) sent: u64,
    pub(super) received: u64,
    /// What it was last told, and when.
    pub(super) told: Option<(u64, u64, u64)>,
    pub(super) told_ms: u64,
}

impl Peer {
    pub(super) fn is_told(&self) -> bool {
        self.told == Some((self.mine, self.theirs, self.sent))
    }

    /// How long after it was told something it is told where we stand.
    pub(super) fn mark_after_ms(&self) -> u64 {
        if self.is_found && self.is_told() { HOST_MARK_MS } else { HOST_HEARTBEAT_MS }
    }
}
