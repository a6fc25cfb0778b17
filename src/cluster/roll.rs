//! Which hosts there were: a client id says which host made it, and this says whether that host is one of ours. So an id
//! that is left over in Redis is told from one that another kind of server made.
//!
//! `parlor:hosts` is a sorted set of host ids, scored by when each was last seen, by Redis' own clock. It is read with
//! each connection and every [`HOST_ROLL_MS`], which also says that we are still there. Redis that restarts empty loses
//! it, and with it the ids that it would be asked about.

use std::collections::BTreeSet;

use super::{Command, Script};
use crate::id::HostId;
use crate::limits::{HOST_ROLL_AGE_S, HOST_ROLL_MS};

/// The sorted set of host ids.
pub(super) const ROLL_KEY: &[u8] = b"parlor:hosts";

/// KEYS: the roll. ARGV: a host's id; how many seconds a host is remembered. Returns the ids of all.
static SCRIPT: Script = Script { source: include_str!("scripts/roll.lua") };

/// The hosts that there were of late.
#[derive(Debug, Default)]
pub(super) struct Roll {
    hosts: BTreeSet<HostId>,
    /// It was read over the connection that there is now.
    is_read: bool,
    asked_ms: u64,
}

impl Roll {
    /// The connection for commands is new.
    pub(super) fn handle_connected(&mut self) {
        self.is_read = false;
    }

    /// What to ask Redis, which puts this host on the roll.
    pub(super) fn command(&mut self, me: HostId, now_ms: u64) -> Command {
        self.asked_ms = now_ms;
        Command::Run {
            script: &SCRIPT,
            keys: vec![ROLL_KEY.to_vec()],
            arguments: vec![me.to_string().into_bytes(), HOST_ROLL_AGE_S.to_string().into_bytes()],
        }
    }

    /// Whether it is time to ask again.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        self.is_read && now_ms.saturating_sub(self.asked_ms) >= HOST_ROLL_MS
    }

    /// Redis has answered. What is no host id is left out.
    pub(super) fn handle_reply(&mut self, hosts: &[Vec<u8>]) {
        self.hosts = hosts.iter().filter_map(|text| HostId::parse(text)).collect();
        self.is_read = true;
    }

    /// A host was heard.
    pub(super) fn add(&mut self, host: HostId) {
        self.hosts.insert(host);
    }

    /// Whether it was read over the connection that there is now.
    pub(super) fn is_read(&self) -> bool {
        self.is_read
    }

    /// Whether there was such a host.
    pub(super) fn has(&self, host: HostId) -> bool {
        self.hosts.contains(&host)
    }
}
