//! Clients of other servers than ours, which share the list and `webrtc:signal` with us (protocols.md section 6).
//!
//! Their servers know no notes: this says them in their stead, so that to a shard a foreign client is a partner like any
//! other, and tells their servers what a client of ours would be told. In a note, a foreign client's ticket says which of
//! our words it answers.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Awaited, News, ask, put_back, tell};
use crate::cluster::desk::{Desk, Maker};
use crate::cluster::{Command, FromCluster};
use crate::id::{ClientId, RoomId};
use crate::limits::{HOST_FRAME_BYTES_MAX, PAIRING_CLAIMS_MAX};
use crate::protocol::pairing::{Note, Ticket, Waiter};
use crate::wire::envelope::{Envelope, Kind, Parser};
use crate::wire::frame;

/// Where messages for clients are published, in an envelope that says for whom.
pub(super) const SIGNAL_CHANNEL: &[u8] = b"webrtc:signal";

const PARTNER_LEFT: &[u8] = br#"{"type":"partner-left"}"#;

/// A match with a foreign client that our own client's shard has yet to look at.
#[derive(Debug)]
struct Pending {
    ours: ClientId,
    foreign: ClientId,
    /// Its server says that it is made; otherwise it was on the list, and knows of nothing.
    is_claimed: bool,
    /// Its server says that it is over already.
    has_left: bool,
}

/// The partner of a foreign client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Partner {
    ours: ClientId,
    room: RoomId,
}

/// A message of a foreign server for a client of ours.
#[derive(Debug)]
enum Signal {
    Matched { ours: ClientId, foreign: ClientId, room: Option<RoomId> },
    Said { to: ClientId, from: Option<ClientId>, payload: Bytes },
    PartnerLeft { ours: ClientId },
}

/// The foreign clients that have to do with ours.
#[derive(Debug, Default)]
pub(super) struct Foreigners {
    parser: Parser,
    next_ticket: u64,
    /// By the foreign client's ticket. Each is answered by a shard.
    pending: BTreeMap<u64, Pending>,
    /// By the foreign client. As many as clients of ours at most, for each has one partner.
    partners: BTreeMap<ClientId, Partner>,
    /// By our client.
    partners_of_ours: BTreeMap<ClientId, ClientId>,
}

impl Foreigners {
    /// Whether a foreign client is matched with one of ours, or about to be.
    pub(super) fn is_engaged(&self, foreign: ClientId) -> bool {
        self.partners.contains_key(&foreign)
            || self.pending.values().any(|pending| pending.foreign == foreign)
    }

    /// A foreign client was on the list, and is to be matched with ours.
    pub(super) fn offer(&mut self, foreign: ClientId, newer: Waiter, desk: &mut Desk) {
        let room = RoomId::new(&mut desk.entropy);
        let older = self.introduce(newer.client, foreign, false);
        tell(newer.client, Note::Offer { room, older, newer }, desk);
    }

    /// A shard writes to a client that is none of ours, or whose host is gone.
    pub(super) fn handle_note(&mut self, note: Note, desk: &mut Desk) {
        match note {
            Note::Accepted { room, older, newer } => match self.take_pending(older, false) {
                Some(foreign) if !self.partners.contains_key(&foreign) => {
                    self.pair(foreign, Partner { ours: newer.client, room }, desk);
                    publish(foreign, room, &matched(room, newer.client), desk);
                    tell(newer.client, Note::Matched { room, partner: foreign, newer }, desk);
                }
                _ => tell(newer.client, Note::Declined(newer), desk),
            },
            Note::Matched { room, partner: ours, newer } => match self.take_pending(newer, true) {
                Some(foreign) => self.pair(foreign, Partner { ours, room }, desk),
                None => tell(ours, Note::PartnerLeft { room, to: ours }, desk),
            },
            Note::Declined(waiter) => self.handle_declined(waiter, desk),
            Note::PartnerLeft { room, to } => {
                if self.part(to, room).is_some() {
                    publish(to, room, PARTNER_LEFT, desk);
                }
            }
            Note::Offer { .. } | Note::Wait(_) | Note::Unwait(_) => {}
        }
    }

    /// A client of ours says something to a foreign partner.
    pub(super) fn handle_frame(&mut self, to: ClientId, room: RoomId, frame: &Bytes, desk: &mut Desk) {
        let is_partner = self.partners.get(&to).is_some_and(|partner| partner.room == room);
        if let Some((_, header_len)) = frame::Header::parse(frame)
            && is_partner
        {
            publish(to, room, &frame[header_len..], desk);
        }
    }

    /// What was published to a foreign partner perhaps was not.
    pub(super) fn handle_unpublished(&mut self, foreign: ClientId, room: RoomId, desk: &mut Desk) {
        if let Some(ours) = self.part(foreign, room) {
            tell(ours, Note::PartnerLeft { room, to: ours }, desk);
        }
    }

    /// A message has come for whomever.
    pub(super) fn handle_signal(&mut self, message: &[u8], desk: &mut Desk) {
        let Some((to, payload)) = self.open(message) else {
            return desk.metrics.counters.pairing_ignored.add(1);
        };
        if desk.maker(to) != Maker::Here {
            return;
        }
        match self.read(to, payload, desk) {
            Some(Signal::Matched { ours, foreign, room }) => self.handle_claim(ours, foreign, room, desk),
            Some(Signal::Said { to, from, payload }) => {
                desk.mail(to.shard(), FromCluster::Pairing(News::Said { to, from, payload }));
            }
            Some(Signal::PartnerLeft { ours }) => self.handle_partner_left(ours, desk),
            None => desk.metrics.counters.pairing_ignored.add(1),
        }
    }

    /// What is said to and by foreign clients may be lost from now on: they have left, and so have ours for them.
    pub(super) fn handle_down(&mut self, desk: &mut Desk) {
        for (_, Pending { foreign, is_claimed, .. }) in std::mem::take(&mut self.pending) {
            self.refuse(foreign, is_claimed, desk);
        }
        self.partners_of_ours.clear();
        for (foreign, Partner { ours, room }) in std::mem::take(&mut self.partners) {
            tell(ours, Note::PartnerLeft { room, to: ours }, desk);
            publish(foreign, room, PARTNER_LEFT, desk);
        }
    }

    /// A foreign server says that it has matched a client of ours: its shard knows whether it waits.
    fn handle_claim(&mut self, ours: ClientId, foreign: ClientId, room: Option<RoomId>, desk: &mut Desk) {
        if self.partners_of_ours.get(&ours) == Some(&foreign) {
            return desk.metrics.counters.pairing_ignored.add(1);
        }
        if ours.shard().position() >= desk.shards || self.pending.len() >= PAIRING_CLAIMS_MAX {
            return self.refuse(foreign, true, desk);
        }
        let room = room.unwrap_or_else(|| RoomId::new(&mut desk.entropy));
        let foreign = self.introduce(ours, foreign, true);
        desk.mail(ours.shard(), FromCluster::Pairing(News::Claimed { ours, room, foreign }));
    }

    fn handle_partner_left(&mut self, ours: ClientId, desk: &mut Desk) {
        let foreign = self.partners_of_ours.get(&ours).copied();
        if let Some((foreign, partner)) = foreign.and_then(|id| Some((id, *self.partners.get(&id)?))) {
            return self.handle_unpublished(foreign, partner.room, desk);
        }
        // Its shard may be about to pair it.
        for pending in self.pending.values_mut().filter(|pending| pending.is_claimed && pending.ours == ours)
        {
            pending.has_left = true;
        }
    }

    fn handle_declined(&mut self, waiter: Waiter, desk: &mut Desk) {
        if let Some(pending) = self.pending.remove(&waiter.ticket.number()) {
            self.refuse(pending.foreign, pending.is_claimed, desk);
        }
    }

    /// Nothing comes of a match: a foreign client that knows of it is told, another one waits on.
    fn refuse(&self, foreign: ClientId, is_claimed: bool, desk: &mut Desk) {
        if !is_claimed {
            put_back(&foreign.text(), desk);
        } else if !self.partners.contains_key(&foreign) {
            desk.publish(SIGNAL_CHANNEL.to_vec(), envelope(foreign, PARTNER_LEFT));
        }
    }

    fn introduce(&mut self, ours: ClientId, foreign: ClientId, is_claimed: bool) -> Waiter {
        let number = self.next_ticket;
        self.next_ticket += 1;
        self.pending.insert(number, Pending { ours, foreign, is_claimed, has_left: false });
        Waiter { client: foreign, ticket: Ticket::new(number) }
    }

    fn take_pending(&mut self, waiter: Waiter, is_claimed: bool) -> Option<ClientId> {
        let number = waiter.ticket.number();
        self.pending
            .get(&number)
            .filter(|pending| pending.foreign == waiter.client && pending.is_claimed == is_claimed)?;
        self.pending.remove(&number).filter(|pending| !pending.has_left).map(|pending| pending.foreign)
    }

    /// Both are partners from now on. A foreign client that was another's has left that one.
    fn pair(&mut self, foreign: ClientId, partner: Partner, desk: &mut Desk) {
        desk.metrics.counters.pairing_matches.add(1);
        if let Some(before) = self.partners.get(&foreign).copied() {
            self.handle_unpublished(foreign, before.room, desk);
        }
        self.partners.insert(foreign, partner);
        self.partners_of_ours.insert(partner.ours, foreign);
    }

    /// They are partners no longer. Says whose partner it was, if it was anybody's in this room.
    fn part(&mut self, foreign: ClientId, room: RoomId) -> Option<ClientId> {
        let partner = *self.partners.get(&foreign).filter(|partner| partner.room == room)?;
        self.partners.remove(&foreign);
        self.partners_of_ours.remove(&partner.ours);
        Some(partner.ours)
    }

    /// An envelope's receiver and its payload; nothing if it is none.
    fn open<'a>(&mut self, message: &'a [u8]) -> Option<(ClientId, &'a [u8])> {
        let envelope = self.parser.parse(message).ok()?;
        let to = id_in(&envelope, "to")?;
        let payload = envelope.field("payload").filter(|field| field.kind == Kind::Object)?;
        (payload.value.len() <= HOST_FRAME_BYTES_MAX).then(|| (to, &message[payload.value.clone()]))
    }

    /// What a payload says; nothing if it is not for a client of ours to hear, or not from a foreign one.
    fn read(&mut self, to: ClientId, payload: &[u8], desk: &Desk) -> Option<Signal> {
        let envelope = self.parser.parse(payload).ok()?;
        let is_foreign = |id: &ClientId| desk.maker_at_once(*id) == Maker::Foreign;
        match &*envelope.text_of("type")? {
            b"matched" => {
                let foreign = id_in(&envelope, "partnerId").filter(is_foreign)?;
                let room = id_in(&envelope, "roomId").and_then(|id| RoomId::from_bits(id.to_bits()));
                Some(Signal::Matched { ours: to, foreign, room })
            }
            b"offer" | b"answer" | b"ice" => {
                let from = id_in(&envelope, "from");
                let payload = Bytes::copy_from_slice(payload);
                from.is_none_or(|id| is_foreign(&id)).then_some(Signal::Said { to, from, payload })
            }
            b"partner-left" => Some(Signal::PartnerLeft { ours: to }),
            _ => None,
        }
    }
}

fn id_in(envelope: &Envelope<'_>, name: &str) -> Option<ClientId> {
    ClientId::parse(&envelope.text_of(name)?)
}

fn matched(room: RoomId, partner: ClientId) -> Vec<u8> {
    [br#"{"type":"matched","roomId":""#, &room.text()[..], br#"","partnerId":""#, &partner.text(), b"\"}"]
        .concat()
}

fn envelope(to: ClientId, payload: &[u8]) -> Bytes {
    [br#"{"to":""#, &to.text()[..], br#"","payload":"#, payload, b"}"].concat().into()
}

/// Publishes a message for a foreign partner. Where it is lost, they are partners no longer.
fn publish(foreign: ClientId, room: RoomId, payload: &[u8], desk: &mut Desk) {
    let command = Command::Publish { channel: SIGNAL_CHANNEL.to_vec(), payload: envelope(foreign, payload) };
    ask(Awaited::Signal { foreign, room }, command, desk);
}
