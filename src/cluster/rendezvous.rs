//! Rendezvous over several hosts (protocols.md section 6).
//!
//! There is one truth: for each connection id and role a set of client ids in Redis, which originals share. Two clients
//! of one host find each other on their shard, without it; here is only what concerns clients of other hosts. A client
//! that arrives goes through these steps, each after the answer to the one before:
//!
//! ```text
//! Subscribing ─► Adding ─► Looking ─► Idle, and there      SUBSCRIBE, SADD and EXPIRE, SMEMBERS of the other role
//! Idle ─► Removing ─► Parting ─► gone                      SREM, SMEMBERS of the other role; then UNSUBSCRIBE
//! ```
//!
//! Who adds first and looks then sees the other, or is seen by it: at least one of two that come at the same moment tells
//! both, and since each record says of whom its client was told (`known`), nobody is told twice. A counterpart of another
//! host of ours is told by letter, any other by what is published in the channel of its id.
//!
//! Whatever may have been missed is made up for by going through Adding and Looking once more, which a client that is there
//! does not notice: every hour, when Redis can be worked with again, and when it is settled what has become of a host
//! whose clients cannot be reached. For the last, a host that is found again is called ([`Letter::Call`]): its answer
//! says that whatever its clients do from then on is told by letter, so what is in the sets after it is all that was
//! missed.

mod letters;
mod messages;
mod others;
mod published;
mod record;
mod sets;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use self::record::{Phase, Record};
use super::codec::{Error, Reader};
use super::desk::Desk;
use super::hosts::Why;
use super::{FromCluster, Reply};
use crate::id::{ClientId, HostId, ShardIndex};
use crate::limits::{
    RENDEZVOUS_ASKED_MAX, RENDEZVOUS_LEAVING_MAX, RENDEZVOUS_NOTICES_MAX, RENDEZVOUS_RENEWAL_MS,
    RENDEZVOUS_RETRY_MS,
};
use crate::protocol::rendezvous::Role;
use crate::wire::envelope::Parser;
pub use letters::{Letter, Message};

/// What a shard asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A client has come.
    Arrived {
        /// Who.
        client: ClientId,
        /// Its connection id.
        connection: [u8; 64],
        /// Its own role.
        role: Role,
    },
    /// A client has left.
    Left {
        /// Who.
        client: ClientId,
    },
    /// A client has a message for somebody who is on no host that its shard can write to. [`News::Answer`] follows.
    Message {
        /// The sender.
        from: ClientId,
        /// For the answer.
        number: u64,
        /// The target's id, at most [`crate::limits::FOREIGN_ID_BYTES_MAX`] long.
        target: Box<[u8]>,
        /// What the target is to get, as JSON.
        payload: Bytes,
    },
}

/// What a shard is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A client is to get this message of ours.
    Deliver {
        /// Who.
        to: ClientId,
        /// JSON.
        payload: Bytes,
    },
    /// Many clients are to get messages of ours, at most [`RENDEZVOUS_NOTICES_MAX`].
    DeliverAll(Vec<(ClientId, Bytes)>),
    /// A client is to get this message, which somebody else has published for it.
    DeliverPublished {
        /// Who.
        to: ClientId,
        /// JSON, of any length up to [`crate::limits::PUBLISHED_BYTES_MAX`].
        payload: Bytes,
    },
    /// What became of a client's [`Request::Message`].
    Answer {
        /// The sender.
        to: ClientId,
        /// The number of the message.
        number: u64,
        /// Whether its target is there, and it was published.
        is_sent: bool,
    },
}

impl News {
    /// Bytes that it refers to.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Deliver { payload, .. } | Self::DeliverPublished { payload, .. } => payload.len(),
            Self::DeliverAll(notices) => notices.iter().map(|(_, payload)| payload.len()).sum(),
            Self::Answer { .. } => 0,
        }
    }
}

/// What a reply is awaited for.
#[derive(Debug)]
pub(super) enum Awaited {
    /// The next step of a client's record.
    Step(ClientId),
    /// Whether the target of a message is in its set.
    Target { from: ClientId, number: u64, target: Box<[u8]>, payload: Bytes },
    /// That this client's message with this number was published.
    Published(ClientId, u64),
}

/// What this host's cluster knows of it.
#[derive(Debug, Default)]
pub(super) struct Rendezvous {
    /// The clients of this host, until they are out of the sets.
    records: BTreeMap<ClientId, Record>,
    /// How many of them have left.
    leaving: usize,
    /// How many of them wait for a reply.
    asking: usize,
    /// Who goes through the steps once more when it is its turn.
    queue: VecDeque<ClientId>,
    /// Whom Redis has refused something: tried again a little later.
    refused: BTreeSet<ClientId>,
    retried_ms: u64,
    renewed_ms: u64,
    /// All that the records remember of others.
    remembered: usize,
    /// Who goes through the steps once more when it is settled what has become of a host.
    awaiting: BTreeMap<HostId, BTreeSet<ClientId>>,
    /// Hosts that may come back, and that may have taken our clients for gone.
    lost: BTreeSet<HostId>,
    /// Bytes of messages whose targets are looked for.
    held_bytes: usize,
    parser: Parser,
    /// Our clients leave, and we know nobody any more.
    is_shutting_down: bool,
}

impl Rendezvous {
    /// A shard asks for something.
    pub(super) fn handle_request(&mut self, _from: ShardIndex, request: Request, desk: &mut Desk) {
        match request {
            Request::Arrived { client, connection, role } => self.arrive(client, connection, role, desk),
            Request::Left { client } => self.leave(client, desk),
            Request::Message { from, number, target, payload } => {
                self.send(from, number, target, payload, desk);
            }
        }
    }

    /// Redis has answered, or has not ([`Reply::Failed`]).
    pub(super) fn handle_reply(&mut self, awaited: Awaited, reply: &Reply, desk: &mut Desk) {
        match awaited {
            Awaited::Step(client) => {
                self.handle_step(client, reply, desk);
                self.take_turns(desk);
            }
            Awaited::Target { from, number, target, payload } => {
                self.held_bytes -= payload.len();
                let is_there = *reply == Reply::Integer(1);
                self.handle_target((from, number), &target, payload, is_there, desk);
            }
            Awaited::Published(from, number) => self.answer(from, number, *reply != Reply::Failed, desk),
        }
    }

    /// A channel is subscribed, for the first time or again.
    pub(super) fn handle_subscribed(&mut self, channel: &[u8], desk: &mut Desk) {
        let Some(client) = ClientId::parse(channel) else { return };
        let Some(record) = self.records.get_mut(&client) else { return };
        if record.phase == Phase::Subscribing {
            record.phase = Phase::Idle;
            self.advance(client, desk);
        } else {
            // What was published in between is lost.
            self.enqueue(client);
            self.take_turns(desk);
        }
    }

    /// Something was published in a channel. False: it is none of ours.
    pub(super) fn handle_push(&mut self, channel: &[u8], payload: &Bytes, desk: &mut Desk) -> bool {
        let Some(client) = ClientId::parse(channel).filter(|client| client.host() == desk.me) else {
            return false;
        };
        self.hear(client, payload, desk);
        true
    }

    /// Another host's shard or cluster has written to this host's cluster.
    pub(super) fn handle_letter(&mut self, from: HostId, letter: Letter, desk: &mut Desk) {
        match letter {
            Letter::Call => {
                self.write(from, Letter::Heard, desk);
            }
            Letter::Heard => self.look_for(from, desk),
            Letter::JustConnected { to, who } if who.host() == from => self.meet_newcomer(to, who, desk),
            Letter::Disconnected { to, gone } if gone.host() == from => {
                self.part_from(to, &gone.text(), None, desk);
            }
            Letter::Message(message) if message.from.host() == from => {
                self.refuse_message(&message, desk);
            }
            // They are for shards, or speak for a client of another host.
            Letter::JustConnected { .. }
            | Letter::Disconnected { .. }
            | Letter::Message(_)
            | Letter::Answer { .. } => desk.metrics.counters.rendezvous_ignored.add(1),
        }
    }

    /// Redis can be worked with from now on ([`Desk::is_up`]). It may be another one than before, or empty.
    pub(super) fn handle_up(&mut self, desk: &mut Desk) {
        self.enqueue_all();
        self.take_turns(desk);
    }

    /// Of some ids that were unreached it is known now who made them.
    pub(super) fn handle_roll(&mut self, desk: &mut Desk) {
        self.settle_hosts(desk);
        self.take_turns(desk);
    }

    /// Time has passed.
    pub(super) fn handle_tick(&mut self, desk: &mut Desk) {
        if desk.now_ms.saturating_sub(self.retried_ms) >= RENDEZVOUS_RETRY_MS {
            self.retried_ms = desk.now_ms;
            while let Some(client) = self.refused.pop_first() {
                self.enqueue(client);
            }
            self.settle_hosts(desk);
            self.parser.trim();
        }
        if desk.now_ms.saturating_sub(self.renewed_ms) >= RENDEZVOUS_RENEWAL_MS {
            self.renewed_ms = desk.now_ms;
            self.enqueue_all();
        }
        self.take_turns(desk);
    }

    /// The host shuts down. Its clients leave right after this.
    pub(super) fn handle_shutdown(&mut self, _desk: &mut Desk) {
        self.is_shutting_down = true;
    }

    fn arrive(&mut self, client: ClientId, connection: [u8; 64], role: Role, desk: &mut Desk) {
        let mut record = Record::new(connection, role);
        if desk.has_public_layouts {
            desk.subscribe(client.text().to_vec());
        } else {
            record.phase = Phase::Idle;
        }
        self.records.insert(client, record);
        self.advance(client, desk);
    }

    fn leave(&mut self, client: ClientId, desk: &mut Desk) {
        let Some(record) = self.records.get_mut(&client) else { return };
        record.is_leaving = true;
        self.leaving += 1;
        let is_nowhere = !record.was_added || self.leaving > RENDEZVOUS_LEAVING_MAX;
        if is_nowhere {
            self.forget(client, desk);
        } else {
            self.advance(client, desk);
        }
    }

    /// A client is through with all.
    fn forget(&mut self, client: ClientId, desk: &mut Desk) {
        let Some(record) = self.records.remove(&client) else { return };
        self.leaving -= usize::from(record.is_leaving);
        self.asking -= usize::from(record.phase.is_asking());
        self.remembered -= record.known.len() + record.gone.len();
        self.refused.remove(&client);
        if self.queue.len() > 2 * self.records.len() + RENDEZVOUS_ASKED_MAX {
            // Most of those in it have left while it was nobody's turn.
            self.queue.retain(|queued| self.records.contains_key(queued));
        }
        for host in record.awaits {
            if let Some(clients) = self.awaiting.get_mut(&host) {
                clients.remove(&client);
                if clients.is_empty() {
                    self.awaiting.remove(&host);
                }
            }
        }
        if desk.has_public_layouts {
            desk.unsubscribe(client.text().to_vec());
        }
    }

    fn deliver(to: ClientId, payload: Bytes, desk: &mut Desk) {
        desk.mail(to.shard(), FromCluster::Rendezvous(News::Deliver { to, payload }));
    }

    /// Delivers many, in few pieces of mail: all clients of another host may have left at once.
    fn deliver_all(notices: impl IntoIterator<Item = (ClientId, Bytes)>, desk: &mut Desk) {
        let mut by_shard: BTreeMap<ShardIndex, Vec<(ClientId, Bytes)>> = BTreeMap::new();
        for (to, payload) in notices {
            let gathered = by_shard.entry(to.shard()).or_default();
            gathered.push((to, payload));
            if gathered.len() == RENDEZVOUS_NOTICES_MAX {
                let full = News::DeliverAll(std::mem::take(gathered));
                desk.mail(to.shard(), FromCluster::Rendezvous(full));
            }
        }
        for (shard, rest) in by_shard.into_iter().filter(|(_, rest)| !rest.is_empty()) {
            desk.mail(shard, FromCluster::Rendezvous(News::DeliverAll(rest)));
        }
    }
}

/// Writes a letter.
pub(super) fn put(bytes: &mut Vec<u8>, letter: &Letter) {
    letters::put(bytes, letter);
}

/// Reads a letter.
///
/// # Errors
/// It does not follow the layout.
pub(super) fn take(reader: &mut Reader) -> Result<Letter, Error> {
    letters::take(reader)
}

#[cfg(test)]
mod tests;
