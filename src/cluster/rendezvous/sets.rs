//! The steps of a client through the sets, and what follows from what is in them.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::published::{ALREADY_CONNECTED, DISCONNECTED, JUST_CONNECTED, is_name, notice};
use super::record::{Name, Phase};
use super::{Awaited, Letter, Rendezvous};
use crate::cluster::desk::{self, Desk, Maker};
use crate::cluster::{CLUSTER, Command, Reply};
use crate::id::{ClientId, HostId};
use crate::limits::{RENDEZVOUS_ASKED_MAX, RENDEZVOUS_EXPIRY_S, RENDEZVOUS_KNOWN_MAX};

impl Rendezvous {
    /// Has a client go through the steps once more when it is its turn.
    pub(super) fn enqueue(&mut self, client: ClientId) {
        let Some(record) = self.records.get_mut(&client) else { return };
        if !std::mem::replace(&mut record.is_queued, true) {
            self.queue.push_back(client);
        }
    }

    pub(super) fn enqueue_all(&mut self) {
        let clients: Vec<ClientId> = self.records.keys().copied().collect();
        clients.into_iter().for_each(|client| self.enqueue(client));
    }

    /// Begins with those whose turn it is, as many as may ask at the same time.
    pub(super) fn take_turns(&mut self, desk: &mut Desk) {
        while desk.is_up && self.asking < RENDEZVOUS_ASKED_MAX {
            let Some(client) = self.queue.pop_front() else { return };
            let Some(record) = self.records.get_mut(&client) else { continue };
            record.is_queued = false;
            record.is_stale |= record.phase.is_asking();
            self.advance(client, desk);
        }
    }

    /// Begins with the steps of a client for which nothing is under way: those of its arrival, or of its leaving.
    pub(super) fn advance(&mut self, client: ClientId, desk: &mut Desk) {
        let Some(record) = self.records.get(&client).filter(|record| record.phase == Phase::Idle) else {
            return;
        };
        let next = if record.is_leaving { Phase::Removing } else { Phase::Adding };
        self.ask(client, next, desk);
    }

    /// Asks Redis for what is to be done in a phase. While it is away, that waits until it is back.
    fn ask(&mut self, client: ClientId, phase: Phase, desk: &mut Desk) {
        let Some(record) = self.records.get_mut(&client) else { return };
        let before = record.phase;
        record.phase = if desk.is_up { phase } else { Phase::Idle };
        self.asking -= usize::from(before.is_asking());
        self.asking += usize::from(record.phase.is_asking());
        let (is_public, member) = (desk.has_public_layouts, client.text().to_vec());
        let command = match record.phase {
            Phase::Adding => {
                record.was_added = true;
                let key = record.own_set(is_public);
                Command::SetAdd { key, member, expire_s: Some(RENDEZVOUS_EXPIRY_S) }
            }
            Phase::Looking => {
                record.looks += 1;
                Command::SetMembers { key: record.other_set(is_public) }
            }
            Phase::Removing => Command::SetRemove { key: record.own_set(is_public), member },
            Phase::Parting => Command::SetMembers { key: record.other_set(is_public) },
            Phase::Subscribing | Phase::Idle => return,
        };
        desk.ask(desk::Awaited::Rendezvous(Awaited::Step(client)), command);
    }

    /// Redis has answered what a client's phase has asked for.
    pub(super) fn handle_step(&mut self, client: ClientId, reply: &Reply, desk: &mut Desk) {
        let Some(record) = self.records.get(&client) else { return };
        let (phase, is_leaving) = (record.phase, record.is_leaving);
        match (phase, reply) {
            (Phase::Adding, Reply::Integer(_)) if is_leaving => self.ask(client, Phase::Removing, desk),
            (Phase::Adding, Reply::Integer(_)) => self.ask(client, Phase::Looking, desk),
            (Phase::Removing, Reply::Integer(_)) => self.ask(client, Phase::Parting, desk),
            (Phase::Looking, Reply::List(members)) => {
                self.see(client, members, desk);
                self.rest(client);
                self.go_on(client, desk);
            }
            (Phase::Parting, Reply::List(members)) => {
                self.say_goodbye(client, members, desk);
                self.forget(client, desk);
            }
            // Redis is away, and it is gone through when it is back; or it refuses.
            _ => {
                self.rest(client);
                if desk.is_up {
                    self.refused.insert(client);
                }
            }
        }
    }

    /// Nothing is under way for a client any more.
    fn rest(&mut self, client: ClientId) {
        let Some(record) = self.records.get_mut(&client) else { return };
        record.lost.clear();
        self.remembered -= std::mem::take(&mut record.gone).len();
        self.asking -= usize::from(record.phase.is_asking());
        record.phase = Phase::Idle;
    }

    /// What has come up while a client was looking is next.
    fn go_on(&mut self, client: ClientId, desk: &mut Desk) {
        let Some(record) = self.records.get_mut(&client) else { return };
        let is_stale = std::mem::take(&mut record.is_stale);
        if record.is_leaving {
            self.advance(client, desk);
        } else if is_stale {
            self.enqueue(client);
        }
    }

    /// A client has seen who is in the other set: it is told of all that it does not know, and they of it.
    fn see(&mut self, client: ClientId, members: &[Vec<u8>], desk: &mut Desk) {
        let Some(record) = self.records.get(&client).filter(|record| !record.is_leaving) else { return };
        let seen: BTreeSet<&[u8]> = members.iter().map(Vec::as_slice).collect();
        let is_missed = |(name, since): &(&Name, &u64)| {
            **since < record.looks && !seen.contains(&***name) && is_foreign(name, desk)
        };
        let missed: Vec<Name> = record.known.iter().filter(is_missed).map(|(name, _)| name.clone()).collect();
        for name in missed {
            self.part_from(client, &name, None, desk);
        }
        for member in members {
            self.find(client, member, desk);
        }
    }

    /// A client has seen this one in the other set.
    fn find(&mut self, client: ClientId, member: &[u8], desk: &mut Desk) {
        if !is_name(member) {
            return desk.metrics.counters.rendezvous_ignored.add(1);
        }
        let Some(record) = self.records.get(&client) else { return };
        if record.gone.contains(member) || record.known.contains_key(member) {
            return;
        }
        match maker_of(member, desk) {
            (Maker::Neighbour(host), Some(_)) if record.lost.contains(&host) => {
                self.await_host(client, host, desk);
            }
            (Maker::Neighbour(host), Some(other)) => {
                if self.greet(client, member, desk) {
                    self.write(host, Letter::JustConnected { to: other, who: client }, desk);
                }
            }
            (Maker::Unreached(host), _) => self.await_host(client, host, desk),
            (Maker::Gone(_), _) => self.clear_away(client, member, desk),
            (Maker::Here, Some(other)) if !self.records.contains_key(&other) => {
                self.clear_away(client, member, desk);
            }
            (Maker::Foreign, _) if desk.has_public_layouts => {
                if self.greet(client, member, desk) {
                    let payload = notice(JUST_CONNECTED, &client.text());
                    desk.publish(member.to_vec(), payload);
                }
            }
            // Ours know each other already; with layouts of our own nobody is foreign, and a host that we have not
            // heard of yet will find us.
            (Maker::Here | Maker::Neighbour(_) | Maker::Foreign, _) => {}
        }
    }

    /// Tells a client that this one was there before it. False: it knows that, or it cannot be remembered.
    fn greet(&mut self, client: ClientId, other: &[u8], desk: &mut Desk) -> bool {
        let is_new = self.remember(client, other);
        if is_new {
            Self::deliver(client, notice(ALREADY_CONNECTED, other), desk);
        }
        is_new
    }

    /// Takes note that a client is told of another. False: it was told before, or there is no room for more.
    pub(super) fn remember(&mut self, client: ClientId, other: &[u8]) -> bool {
        let Some(record) = self.records.get_mut(&client) else { return false };
        if record.known.contains_key(other) || self.remembered >= RENDEZVOUS_KNOWN_MAX {
            return false;
        }
        self.remembered += 1;
        record.known.insert(other.into(), record.looks);
        true
    }

    /// A client is told that another has left, if it knew it: `published` if that is what said it.
    pub(super) fn part_from(
        &mut self,
        client: ClientId,
        other: &[u8],
        published: Option<Bytes>,
        desk: &mut Desk,
    ) {
        let Some(record) = self.records.get_mut(&client).filter(|record| !record.is_leaving) else { return };
        if record.known.remove(other).is_some() {
            self.remembered -= 1;
            match published {
                Some(payload) => Self::deliver_published(client, payload, desk),
                None => Self::deliver(client, notice(DISCONNECTED, other), desk),
            }
        }
        let is_room = self.remembered < RENDEZVOUS_KNOWN_MAX;
        if record.phase == Phase::Looking && is_room && record.gone.insert(other.into()) {
            self.remembered += 1;
        }
    }

    /// Takes an id of ours out of the set that a client looks at: nobody has it any more.
    fn clear_away(&mut self, client: ClientId, member: &[u8], desk: &mut Desk) {
        let Some(record) = self.records.get(&client).filter(|_| !self.is_shutting_down) else { return };
        let key = record.other_set(desk.has_public_layouts);
        desk.command(Command::SetRemove { key, member: member.to_vec() });
    }

    /// A client is out of its set: all who may know it are told.
    fn say_goodbye(&mut self, client: ClientId, members: &[Vec<u8>], desk: &mut Desk) {
        let Some(record) = self.records.get(&client) else { return };
        // Those that Redis has forgotten know it as well.
        let known = record.known.keys().filter(|name| !is_foreign(name, desk));
        let others: BTreeSet<Name> =
            members.iter().map(|name| name.as_slice().into()).chain(known.cloned()).collect();
        for other in others.iter().filter(|other| is_name(other)) {
            match maker_of(other, desk) {
                (Maker::Unreached(_), _) if is_foreign(other, desk) => {
                    desk.publish(other.to_vec(), notice(DISCONNECTED, &client.text()));
                }
                (Maker::Neighbour(host), Some(to)) => {
                    self.write(host, Letter::Disconnected { to, gone: client }, desk);
                }
                (Maker::Foreign, _) if desk.has_public_layouts => {
                    desk.publish(other.to_vec(), notice(DISCONNECTED, &client.text()));
                }
                (Maker::Gone(_), _) => self.clear_away(client, other, desk),
                // Who cannot be reached was told that this whole host is gone.
                (Maker::Here | Maker::Unreached(_) | Maker::Neighbour(_) | Maker::Foreign, _) => {}
            }
        }
    }

    /// Writes to another host's cluster, if there is a relation.
    pub(super) fn write(&mut self, host: HostId, letter: Letter, desk: &mut Desk) {
        desk.write(host, CLUSTER, &crate::cluster::Letter::Rendezvous(letter));
    }
}

/// Who made an id, and the id if it has the shape of ours.
pub(super) fn maker_of(name: &[u8], desk: &Desk) -> (Maker, Option<ClientId>) {
    match ClientId::parse(name) {
        Some(id) => (desk.maker(id), Some(id)),
        None => (Maker::Foreign, None),
    }
}

/// Whether somebody counts as foreign where there is no time to find out.
pub(super) fn is_foreign(name: &[u8], desk: &Desk) -> bool {
    ClientId::parse(name).is_none_or(|id| desk.maker_at_once(id) == Maker::Foreign)
}
