//! Rendezvous over several hosts, as a shard sees it: it says who comes and goes, delivers what it is told, and sends a
//! message whose target is not here to where it may be (protocols.md section 6).
//!
//! The sender of such a message is not read from until it is known what became of it, so all its answers keep the order
//! of its messages. A target of another host of ours is written to at once, and that shard answers; any other is the
//! cluster's business.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::buffers::Transit;
use crate::cluster::rendezvous::{Letter, Message, News, Request};
use crate::cluster::{self, ToCluster};
use crate::id::{ClientId, HostId, Slot};
use crate::limits::{HOST_FRAME_BYTES_MAX, RENDEZVOUS_ANSWER_MS};
use crate::protocol::rendezvous::{Place, outcome};
use crate::protocol::{self, Part};
use crate::shard::Shard;
use crate::shard::clients::Stage;
use crate::shard::dialects::Dialect;
use crate::shard::mail::Parcel;
use crate::websocket::CloseCode;
use crate::wire::Span;
use crate::wire::frame::{Opcode, ServerHeader};

/// The clients of this shard that wait for what became of a message.
#[derive(Debug, Default)]
pub(super) struct Asked {
    questions: BTreeMap<ClientId, Question>,
    /// The number of the next message; none is used twice.
    next_number: u64,
}

#[derive(Debug)]
struct Question {
    /// Of the message.
    number: u64,
    since_ms: u64,
    /// The host that was written to; none if the cluster was asked.
    host: Option<HostId>,
    /// The value of the message's `requestId`, on the shard's budget.
    request_id: Vec<u8>,
}

impl Shard {
    /// The cluster has something to say.
    pub(super) fn receive_rendezvous_news(&mut self, news: News) {
        match news {
            News::Deliver { to, payload } => self.deliver_notice(to, &payload),
            News::DeliverAll(notices) => {
                for (to, payload) in &notices {
                    self.deliver_notice(*to, payload);
                }
            }
            News::DeliverPublished { to, payload } => self.deliver_published(to, &payload),
            News::Answer { to, number, is_sent } => self.conclude(to, None, number, is_sent),
        }
    }

    /// Another host's shard has something to say.
    pub(super) fn receive_rendezvous_letter(&mut self, from: HostId, letter: Letter) {
        match letter {
            Letter::Message(message) if message.from.host() == from => self.receive_far_message(&message),
            Letter::Answer { to, number, is_sent } => self.conclude(to, Some(from), number, is_sent),
            // They are for the cluster, or speak for a client of another host.
            Letter::Message(_)
            | Letter::Call
            | Letter::Heard
            | Letter::JustConnected { .. }
            | Letter::Disconnected { .. } => self.counters.letters_ignored.add(1),
        }
    }

    /// Another host is gone, with all its clients: what was sent to them did not arrive.
    pub(super) fn lose_rendezvous_host(&mut self, host: HostId) {
        self.give_up(|question| question.host == Some(host));
    }

    /// Time has passed: who has waited for too long is told that nobody is there.
    pub(in crate::shard) fn handle_rendezvous_time(&mut self) {
        let now_ms = self.now_ms;
        self.give_up(|question| now_ms.saturating_sub(question.since_ms) >= RENDEZVOUS_ANSWER_MS);
    }

    fn give_up(&mut self, is_lost: impl Fn(&Question) -> bool) {
        let questions = &self.neighbours.rendezvous.questions;
        let lost: Vec<_> = questions
            .iter()
            .filter(|(_, question)| is_lost(question))
            .map(|(client, question)| (*client, question.host, question.number))
            .collect();
        for (client, host, number) in lost {
            self.conclude(client, host, number, false);
        }
    }

    /// Tells the cluster that a client has come.
    pub(in crate::shard) fn say_rendezvous_arrived(&mut self, client: ClientId, place: &Place) {
        let Place { connection, source, .. } = *place;
        self.ask_rendezvous(Request::Arrived { client, connection, role: source });
    }

    /// Tells the cluster that a client has left. What it has asked is not answered any more.
    pub(in crate::shard) fn say_rendezvous_left(&mut self, client: ClientId) {
        if let Some(question) = self.neighbours.rendezvous.questions.remove(&client) {
            self.buffers.release(question.request_id);
        }
        self.ask_rendezvous(Request::Left { client });
    }

    /// Sends a message to a client of another host, and stops reading from its sender until it is known what became of it.
    pub(in crate::shard) fn send_far(
        &mut self,
        slot: Slot,
        target: &[u8],
        parts: &[Part],
        message: &[u8],
        about: Span,
    ) {
        let header = ServerHeader::new(Opcode::Text, protocol::len_of(parts));
        if header.as_bytes().len() + protocol::len_of(parts) > HOST_FRAME_BYTES_MAX {
            return self.doom(slot, Some(CloseCode::TooBig), "message too big");
        }
        let mut request_id = Vec::new();
        if self.buffers.reserve(&mut request_id, about.len()).is_err() {
            return self.doom_busy(slot);
        }
        request_id.extend_from_slice(&message[about]);
        let mut bytes = header.as_bytes().to_vec();
        bytes.reserve_exact(protocol::len_of(parts));
        protocol::write(parts, message, |piece| bytes.extend_from_slice(piece));
        let Ok(charge) = self.buffers.transit(bytes.into()) else {
            self.buffers.release(request_id);
            return self.doom_busy(slot);
        };
        match self.post_far(slot, target, charge, header.as_bytes().len()) {
            Some((from, host)) => {
                let asked = &mut self.neighbours.rendezvous;
                let number = asked.next_number;
                asked.next_number += 1;
                let question = Question { number, since_ms: self.now_ms, host, request_id };
                asked.questions.insert(from, question);
                self.await_answer(slot);
            }
            None => self.buffers.release(request_id),
        }
    }

    /// Posts a finished frame, whose payload begins at `payload_start`, to the target's shard, or its payload to the
    /// cluster. Returns the sender, and the host if there is one; nothing if the sender is not there.
    fn post_far(
        &mut self,
        slot: Slot,
        target: &[u8],
        charge: Transit,
        payload_start: usize,
    ) -> Option<(ClientId, Option<HostId>)> {
        let client = self.clients.at(slot)?;
        let from = client.id;
        let Stage::Open(Dialect::Rendezvous(state)) = &client.stage else { return None };
        let connection = state.connection();
        let role = self.tables.rendezvous.role_of(from)?;
        let (frame, number) = (charge.bytes().clone(), self.neighbours.rendezvous.next_number);
        let to = ClientId::parse(target).filter(|to| self.neighbours.relations.contains_key(&to.host()));
        if let Some(to) = to {
            let message = Message { to, from, number, connection, role, frame };
            let letter = cluster::Letter::Rendezvous(Letter::Message(message));
            self.post_letter(to.host(), to.shard(), letter, Some(charge));
        } else {
            let payload = frame.slice(payload_start..);
            let target = target.into();
            let mail = ToCluster::Rendezvous(Request::Message { from, number, target, payload });
            self.router.post_to_cluster(Parcel { mail, charge: Some(charge) }, &mut self.buffers);
        }
        Some((from, to.map(ClientId::host)))
    }

    fn ask_rendezvous(&mut self, request: Request) {
        if self.settings.has_cluster {
            let mail = ToCluster::Rendezvous(request);
            self.router.post_to_cluster(Parcel { mail, charge: None }, &mut self.buffers);
        }
    }

    /// The slot of a client that is at a connection id.
    fn at_rendezvous(&mut self, client: ClientId) -> Option<Slot> {
        let (slot, client) = self.clients.find(client)?;
        matches!(client.stage, Stage::Open(Dialect::Rendezvous(_))).then_some(slot)
    }

    fn deliver_notice(&mut self, to: ClientId, payload: &Bytes) {
        let Some(slot) = self.at_rendezvous(to) else { return };
        self.counters.messages_sent.add(1);
        self.counters.rendezvous_sent.add(1);
        self.send_frame(slot, Opcode::Text, payload);
    }

    /// What anybody has published for a client, unless it could only close it.
    fn deliver_published(&mut self, to: ClientId, payload: &Bytes) {
        if payload.len() > self.settings.limits.outbox_bytes_max {
            self.counters.ignored.add(1);
        } else {
            self.deliver_notice(to, payload);
        }
    }

    /// A client of another host has sent a message to one that is here, or is not.
    fn receive_far_message(&mut self, message: &Message) {
        let Message { to, from, number, connection, role, frame } = message;
        let is_there = self.tables.rendezvous.is_at(*to, connection, role.other());
        let slot = self.at_rendezvous(*to).filter(|_| is_there);
        if let Some(slot) = slot {
            self.counters.rendezvous_sent.add(1);
            self.send_distant(slot, frame);
        }
        let is_sent = slot.and_then(|slot| self.clients.at(slot)).is_some_and(|client| !client.is_doomed);
        let answer = cluster::Letter::Rendezvous(Letter::Answer { to: *from, number: *number, is_sent });
        // Without the relation the sender is told by its end.
        self.post_letter(from.host(), from.shard(), answer, None);
    }

    /// It is known what became of a client's message, from the host that was written to or else from the cluster.
    fn conclude(&mut self, client: ClientId, from: Option<HostId>, number: u64, is_sent: bool) {
        let asked = &mut self.neighbours.rendezvous.questions;
        let is_this = |question: &Question| question.host == from && question.number == number;
        if !asked.get(&client).is_some_and(is_this) {
            // The client has left, it is too late, or it is not theirs to say.
            return self.counters.letters_ignored.add(u64::from(from.is_some()));
        }
        let Some(question) = asked.remove(&client) else { return };
        if let Some(slot) = self.at_rendezvous(client) {
            let request_id = &question.request_id;
            self.send_text(slot, &outcome(is_sent, 0..request_id.len()), request_id);
            self.counters.rendezvous_sent.add(1);
            self.resume_answered(slot);
        }
        self.buffers.release(question.request_id);
    }
}
