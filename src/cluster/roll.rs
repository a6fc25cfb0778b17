//! Which hosts there were: a client id says which host made it, and this says whether that host is one of ours. So an id
//! that is left over in Redis is told from one that another kind of server made.
//!
//! `parlor:hosts` is a sorted set of host ids, scored by when each was last seen, by Redis' own clock. It is read with
//! each connection, every [`HOST_ROLL_MS`], when an id is met of a host that is not known, and when a host is gone; that
//! also says that we are still there. Redis that restarts empty loses it, and with it the ids that it would be asked
//! about.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::{Command, Script};
use crate::id::HostId;
use crate::limits::{HOST_HEARTBEAT_MS, HOST_ROLL_AGE_S, HOST_ROLL_MS, STRANGERS_MAX};

/// The sorted set of host ids.
pub(super) const ROLL_KEY: &[u8] = b"parlor:hosts";

/// KEYS: the roll. ARGV: a host's id; how many seconds a host is remembered. Returns the ids of all.
static SCRIPT: Script = Script { source: include_str!("scripts/roll.lua") };

/// The hosts that there were of late.
#[derive(Debug, Default)]
pub(super) struct Roll {
    hosts: BTreeSet<HostId>,
    /// Not on the roll when it was last asked about them: no hosts of ours.
    strangers: BTreeSet<HostId>,
    /// Met in an id, and perhaps on a roll that we have not read yet.
    wondered: RefCell<BTreeSet<HostId>>,
    /// Those that the roll is being read for.
    asked: BTreeSet<HostId>,
    is_asking: bool,
    /// Perhaps the Redis that we speak to is not the one that the others speak to.
    is_doubted: bool,
    /// It was read over the connection that there is now.
    is_read: bool,
    asked_ms: u64,
}

/// What the roll says of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// There is or was such a host.
    Ours,
    /// There is none.
    Stranger,
    /// It is not known yet, and will be asked.
    Unknown,
}

impl Roll {
    /// The connection for commands is new.
    pub(super) fn handle_connected(&mut self) {
        (self.is_read, self.is_asking) = (false, false);
    }

    /// What to ask Redis, which puts this host on the roll.
    pub(super) fn command(&mut self, me: HostId, now_ms: u64) -> Command {
        (self.asked_ms, self.is_asking, self.is_doubted) = (now_ms, true, false);
        self.asked = std::mem::take(self.wondered.get_mut());
        Command::Run {
            script: &SCRIPT,
            keys: vec![ROLL_KEY.to_vec()],
            arguments: vec![me.to_string().into_bytes(), HOST_ROLL_AGE_S.to_string().into_bytes()],
        }
    }

    /// Whether it is time to ask again.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        let since_ms = now_ms.saturating_sub(self.asked_ms);
        let is_wondering = self.is_read && !self.wondered.borrow().is_empty();
        let pause_ms = if self.is_read { HOST_ROLL_MS } else { HOST_HEARTBEAT_MS };
        !self.is_asking && (is_wondering || self.is_doubted || since_ms >= pause_ms)
    }

    /// A host is gone, or has given us up. It may be that it speaks to another Redis by now, and ours is a replica, which
    /// takes what we publish and nothing that we write: the roll is written.
    pub(super) fn doubt(&mut self) {
        self.is_doubted = true;
    }

    /// Redis has answered. What is no host id is left out. True: hosts are known now that were wondered about.
    pub(super) fn handle_reply(&mut self, hosts: &[Vec<u8>]) -> bool {
        self.hosts = hosts.iter().filter_map(|text| HostId::parse(text)).collect();
        (self.is_read, self.is_asking) = (true, false);
        let asked = std::mem::take(&mut self.asked);
        // Ids may be anything: what was found out is forgotten, and found out again.
        if self.strangers.len() >= STRANGERS_MAX {
            self.strangers.clear();
        }
        let is_news = !asked.is_empty();
        self.strangers.extend(asked.into_iter().filter(|host| !self.hosts.contains(host)));
        is_news
    }

    /// Redis has not answered.
    pub(super) fn handle_failed(&mut self) {
        (self.is_read, self.is_asking) = (false, false);
        self.wondered.get_mut().append(&mut self.asked);
    }

    /// The roll does not have this host, as Redis has just said.
    pub(super) fn note_stranger(&mut self, host: HostId) {
        if !self.hosts.contains(&host) && self.strangers.len() < STRANGERS_MAX {
            self.strangers.insert(host);
        }
    }

    /// A host was heard.
    pub(super) fn add(&mut self, host: HostId) {
        self.hosts.insert(host);
        self.strangers.remove(&host);
    }

    /// What is known of a host.
    pub(super) fn entry(&self, host: HostId) -> Entry {
        if self.hosts.contains(&host) {
            return Entry::Ours;
        }
        if self.strangers.contains(&host) {
            return Entry::Stranger;
        }
        let mut wondered = self.wondered.borrow_mut();
        if wondered.len() < STRANGERS_MAX {
            wondered.insert(host);
        }
        Entry::Unknown
    }

    /// Whether it was read over the connection that there is now.
    pub(super) fn is_read(&self) -> bool {
        self.is_read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: HostId = HostId(1);

    #[test]
    fn the_roll_is_read_again_when_that_failed_and_when_it_is_doubted() {
        let mut roll = Roll::default();
        roll.handle_connected();
        roll.command(ME, 0);
        assert!(!roll.is_due(HOST_ROLL_MS), "it is being read");
        roll.handle_failed();
        assert!(!roll.is_due(HOST_HEARTBEAT_MS - 1) && roll.is_due(HOST_HEARTBEAT_MS));
        roll.command(ME, HOST_HEARTBEAT_MS);
        roll.handle_reply(&[]);
        let later_ms = 2 * HOST_HEARTBEAT_MS;
        assert!(!roll.is_due(later_ms) && roll.is_due(HOST_HEARTBEAT_MS + HOST_ROLL_MS));
        roll.doubt();
        assert!(roll.is_due(later_ms));
        roll.command(ME, later_ms);
        roll.handle_reply(&[]);
        assert!(!roll.is_due(later_ms), "once");
    }
}
