//! What is remembered of one client of this host.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::id::{ClientId, HostId};
use crate::protocol::rendezvous::Role;

/// A client's id as it stands in Redis: ours as text, foreign ones as they are.
pub(super) type Name = Box<[u8]>;

/// What is under way for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its channel is not subscribed yet.
    Subscribing,
    /// Nothing.
    Idle,
    /// It is added to its set.
    Adding,
    /// It looks who is in the other set.
    Looking,
    /// It is removed from its set.
    Removing,
    /// It looks whom to tell that it is gone.
    Parting,
}

impl Phase {
    /// Whether a reply is awaited.
    pub(super) fn is_asking(self) -> bool {
        match self {
            Self::Subscribing | Self::Idle => false,
            Self::Adding | Self::Looking | Self::Removing | Self::Parting => true,
        }
    }
}

/// One client of this host.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) connection: [u8; 64],
    pub(super) role: Role,
    pub(super) phase: Phase,
    /// It may be in its set.
    pub(super) was_added: bool,
    /// It has left its shard.
    pub(super) is_leaving: bool,
    /// It waits for its turn to go through the steps once more.
    pub(super) is_queued: bool,
    /// It must go through the steps once more when it is through with them.
    pub(super) is_stale: bool,
    /// How often it has looked, or has begun to.
    pub(super) looks: u64,
    /// Whom it was told of, and how often it had looked by then.
    pub(super) known: BTreeMap<Name, u64>,
    /// Who has left while it was looking: they may be in what it sees.
    pub(super) gone: BTreeSet<Name>,
    /// Hosts that were lost while it was looking.
    pub(super) lost: BTreeSet<HostId>,
    /// Hosts of which it is to be settled what has become of them.
    pub(super) awaits: BTreeSet<HostId>,
}

impl Record {
    pub(super) fn new(connection: [u8; 64], role: Role) -> Self {
        Self {
            connection,
            role,
            phase: Phase::Subscribing,
            was_added: false,
            is_leaving: false,
            is_queued: false,
            is_stale: false,
            looks: 0,
            known: BTreeMap::new(),
            gone: BTreeSet::new(),
            lost: BTreeSet::new(),
            awaits: BTreeSet::new(),
        }
    }

    /// The set of the clients on its connection id in `role`.
    pub(super) fn set_of(&self, role: Role, has_public_layouts: bool) -> Vec<u8> {
        let prefix: &[u8] = if has_public_layouts { b"" } else { b"parlor:rendezvous:" };
        [prefix, &self.connection, b":", role.name().as_bytes()].concat()
    }

    /// Its own set.
    pub(super) fn own_set(&self, has_public_layouts: bool) -> Vec<u8> {
        self.set_of(self.role, has_public_layouts)
    }

    /// The set of those that it can reach.
    pub(super) fn other_set(&self, has_public_layouts: bool) -> Vec<u8> {
        self.set_of(self.role.other(), has_public_layouts)
    }

    /// It knows nobody of this host any more. Returns whom it knew.
    pub(super) fn forget_host(&mut self, host: HostId) -> Vec<Name> {
        // An id of ours begins with its host.
        let prefix = host.to_string().into_bytes();
        let from_prefix = (Bound::Included(prefix.as_slice()), Bound::Unbounded);
        let names = self.known.range::<[u8], _>(from_prefix).map(|(name, _)| name);
        let is_of_host = |name: &&Name| ClientId::parse(name).is_some_and(|id| id.host() == host);
        let forgotten: Vec<Name> =
            names.take_while(|name| name.starts_with(&prefix)).filter(is_of_host).cloned().collect();
        for name in &forgotten {
            self.known.remove(name);
        }
        forgotten
    }
}
