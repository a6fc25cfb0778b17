//! What all parts of a host's cluster work with: how they ask Redis, write to other hosts and tell the shards.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::codec::Draft;
use super::hosts::{Hosts, Relation};
use super::roll::{Entry, Roll};
use super::{Command, FromCluster, Letter, Output, Remark, Settings, Token, channel_of};
use super::{directory, introductions, pairing, pipes, rendezvous, rooms};
use crate::id::{ClientId, Entropy, HostId, ShardIndex};
use crate::limits::HOST_MAIL_BYTES;
use crate::metrics::ClusterMetrics;

/// What a reply is awaited for.
#[derive(Debug)]
pub(super) enum Awaited {
    /// Mail with letters to a host.
    Mail(HostId, Relation),
    /// The roll of hosts.
    Roll,
    /// Of the queue.
    Pairing(pairing::Awaited),
    /// Of rendezvous.
    Rendezvous(rendezvous::Awaited),
    /// Of the directory.
    Directory(directory::Awaited),
    /// Of rooms.
    Rooms(rooms::Awaited),
    /// Of introductions.
    Introductions(introductions::Awaited),
    /// Of pipes.
    Pipes(pipes::Awaited),
}

/// Who made an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// This start of this host.
    Here,
    /// A host that can be written to.
    Neighbour(HostId),
    /// A host of ours that cannot be written to at the moment: it may come (back), or turn out to be gone.
    Unreached(HostId),
    /// A host of ours, or an earlier start of one, that is gone for good.
    Gone(HostId),
    /// No host of ours.
    Foreign,
}

/// What the parts share.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) me: HostId,
    pub(super) shards: usize,
    /// Whether the layouts that originals share are used (protocols.md section 6).
    pub(super) has_public_layouts: bool,
    pub(super) hosts: Hosts,
    pub(super) roll: Roll,
    pub(super) entropy: Entropy,
    pub(super) metrics: Arc<ClusterMetrics>,
    pub(super) now_ms: u64,
    /// Both connections are there, our channels subscribed and the roll read.
    pub(super) is_up: bool,
    /// Letters of this turn.
    drafts: BTreeMap<HostId, Draft>,
    next_token: u64,
    awaited: BTreeMap<Token, Awaited>,
    outputs: VecDeque<Output>,
}

impl Desk {
    pub(super) fn new(settings: &Settings, hosts: Hosts, metrics: Arc<ClusterMetrics>, now_ms: u64) -> Self {
        Self {
            me: settings.host,
            shards: settings.shards,
            has_public_layouts: settings.has_public_layouts,
            hosts,
            roll: Roll::default(),
            entropy: Entropy::from_seed(settings.seed),
            metrics,
            now_ms,
            is_up: false,
            drafts: BTreeMap::new(),
            next_token: 0,
            awaited: BTreeMap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Has Redis do something, behind all that was asked for before. The reply comes with `awaited`, and is
    /// [`super::Reply::Failed`] while Redis is away.
    pub(super) fn ask(&mut self, awaited: Awaited, command: Command) {
        let token = self.command(command);
        self.awaited.insert(token, awaited);
    }

    /// Has Redis do something whose outcome does not matter.
    pub(super) fn command(&mut self, command: Command) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.outputs.push_back(Output::Command { token, command });
        token
    }

    /// Publishes something; who hears it does not matter.
    pub(super) fn publish(&mut self, channel: Vec<u8>, payload: Bytes) {
        self.command(Command::Publish { channel, payload });
    }

    pub(super) fn subscribe(&mut self, channel: Vec<u8>) {
        self.outputs.push_back(Output::Subscribe(channel));
    }

    pub(super) fn unsubscribe(&mut self, channel: Vec<u8>) {
        self.outputs.push_back(Output::Unsubscribe(channel));
    }

    pub(super) fn resubscribe(&mut self) {
        self.outputs.push_back(Output::Resubscribe);
    }

    /// What a reply was awaited for; nothing if it does not matter.
    pub(super) fn take_awaited(&mut self, token: Token) -> Option<Awaited> {
        self.awaited.remove(&token)
    }

    /// Whether all replies that matter have come.
    #[cfg(test)]
    pub(super) fn awaits_nothing(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Puts a letter into the mail of this turn, to a shard of another host or to its [`super::CLUSTER`]. False: there is
    /// no relation to that host, and nothing is sent. If it is lost later, the relation ends.
    pub(super) fn write(&mut self, to: HostId, shard: ShardIndex, letter: &Letter) -> bool {
        if self.hosts.relation(to).is_none() {
            return false;
        }
        let draft = self.drafts.entry(to).or_default();
        draft.push(shard, letter);
        if draft.is_full(HOST_MAIL_BYTES) {
            self.send_draft(to);
        }
        true
    }

    /// The letters of this turn to a host that is gone go nowhere.
    pub(super) fn drop_draft(&mut self, host: HostId) {
        self.drafts.remove(&host);
    }

    /// Sends the letters of this turn.
    pub(super) fn send_drafts(&mut self) {
        while let Some(host) = self.drafts.first_key_value().map(|(host, _)| *host) {
            self.send_draft(host);
        }
    }

    fn send_draft(&mut self, host: HostId) {
        let Some(draft) = self.drafts.remove(&host) else { return };
        // Without a relation there is no draft either.
        let Some(header) = self.hosts.stamp(host) else { return };
        self.metrics.counters.letters_sent.add(draft.letters() as u64);
        let command = Command::Publish { channel: channel_of(host), payload: draft.finish(&header) };
        self.ask(Awaited::Mail(host, Relation(header.mine)), command);
    }

    /// Who made an id. Of one that was never met it is found out soon: it is unreached until `handle_roll`.
    pub(super) fn maker(&self, id: ClientId) -> Maker {
        self.maker_on(id.host())
    }

    /// Who made the ids of this host.
    pub(super) fn maker_on(&self, host: HostId) -> Maker {
        if host == self.me {
            Maker::Here
        } else if self.hosts.relation(host).is_some() {
            Maker::Neighbour(host)
        } else if self.hosts.is_known(host) {
            Maker::Unreached(host)
        } else {
            match self.roll.entry(host) {
                Entry::Ours if self.hosts.hears_all() => Maker::Gone(host),
                Entry::Stranger if self.has_public_layouts => Maker::Foreign,
                // It says so before it registers anybody.
                Entry::Stranger => Maker::Gone(host),
                Entry::Ours | Entry::Unknown => Maker::Unreached(host),
            }
        }
    }

    /// As [`Desk::maker`], where there is no time to find out: a host that was never met counts as a foreign one. For what
    /// is said in public channels, where hosts of ours say nothing to each other.
    pub(super) fn maker_at_once(&self, id: ClientId) -> Maker {
        match self.maker(id) {
            Maker::Unreached(host) if self.has_public_layouts && !self.is_ours(host) => Maker::Foreign,
            maker => maker,
        }
    }

    /// Whether a host is known to be one of ours.
    fn is_ours(&self, host: HostId) -> bool {
        self.hosts.is_known(host) || self.roll.entry(host) == Entry::Ours
    }

    /// Mail to a shard. One to a shard that does not exist was never ours, and is dropped.
    pub(super) fn mail(&mut self, to: ShardIndex, mail: FromCluster) {
        if to.position() < self.shards {
            self.outputs.push_back(Output::Mail { to, mail });
        }
    }

    pub(super) fn mail_all(&mut self, mail: &FromCluster) {
        for shard in 0..self.shards {
            self.mail(ShardIndex(shard as u8), mail.clone());
        }
    }

    pub(super) fn warn(&mut self, text: String) {
        self.remark(Remark::Warning(text));
    }

    pub(super) fn remark(&mut self, remark: Remark) {
        self.outputs.push_back(Output::Remark(remark));
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}

#[cfg(test)]
pub(super) mod tests;
