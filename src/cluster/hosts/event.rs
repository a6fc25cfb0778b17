//! What follows from what is heard of other hosts, and why.

use crate::cluster::codec::{Header, Heartbeat};
use crate::id::HostId;

/// A relation to another host, by our own number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Relation(pub u64);

/// Why a relation has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The other was not heard while our own heartbeats came back.
    Silent,
    /// The other said that it leaves.
    Left,
    /// Mail of the other's was lost.
    Gap,
    /// The other has ended it.
    Renewed,
    /// The other has started anew under its old id.
    Restarted,
    /// Our subscriptions were lost, and with them perhaps mail.
    Unsubscribed,
    /// Mail of ours was not published, or it is not known whether it was.
    Unpublished,
    /// This host stood still: the others have given it up, or might have.
    Paused,
}

impl Why {
    /// Whether this start of that host is gone for good: what it has left anywhere is nobody's.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Silent | Self::Left | Self::Restarted)
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Silent => "it is silent",
            Self::Left => "it has left",
            Self::Gap => "mail from it was lost",
            Self::Renewed => "it has ended the relation",
            Self::Restarted => "it has started anew",
            Self::Unsubscribed => "our subscriptions were lost",
            Self::Unpublished => "mail to it could not be published",
            Self::Paused => "this host stood still",
        })
    }
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Publish this to all.
    Beat(Heartbeat),
    /// Publish this mail without letters to another host.
    Tell(HostId, Header),
    /// A relation has begun.
    Found(HostId, Relation),
    /// It has ended: all clients of that host have left.
    Gone(HostId, Why),
    /// This host stood still before it had found that one, which may have found it, and given it up since.
    Missed(HostId),
    /// The subscriptions seem to be there and are not: make them anew.
    Resubscribe,
    /// A host speaks another version of the codec. Once for each.
    Refused(HostId, u16),
    /// There are more hosts than [`crate::limits::HOSTS_MAX`]. Once.
    Crowded,
    /// Another host has our id. Once.
    Twin,
}
