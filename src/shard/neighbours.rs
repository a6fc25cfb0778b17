//! Other hosts, as a shard knows them: who can be written to, and what they write.

mod directory;
mod introductions;
mod pairing;
pub(super) mod pipes;
mod rendezvous;
mod rooms;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Shard;
use super::mail::Parcel;
use crate::buffers::Transit;
use crate::cluster::pairing::Request;
use crate::cluster::{FromCluster, Letter, Relation, ToCluster};
use crate::id::{ClientId, HostId, RoomId, ShardIndex, Slot};
use crate::limits::{COPY_MAX, HOST_FRAME_BYTES_MAX};
use crate::protocol::pairing::Note;
use crate::protocol::{self, Part};
use crate::websocket::CloseCode;
use crate::wire::frame::{Opcode, ServerHeader};

/// The other hosts.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    /// Whether any can be reached.
    is_online: bool,
    /// Those that can be written to.
    relations: BTreeMap<HostId, Relation>,
    /// Who waits for what became of a message.
    rendezvous: rendezvous::Asked,
    /// What is to be registered of introductions.
    introductions: introductions::Registrar,
    /// What is kept of pipes.
    pipes: pipes::Afar,
}

impl Shard {
    /// The cluster has something to say.
    pub fn handle_cluster_mail(&mut self, mail: FromCluster, now_ms: u64) {
        self.now_ms = now_ms;
        match mail {
            FromCluster::Letter(from, letter) => self.receive_letter(from, letter),
            FromCluster::HostFound(host, relation) => {
                self.neighbours.relations.insert(host, relation);
                self.find_rooms_host(host);
                self.find_introductions_host(host);
                self.find_pipes_host(host);
            }
            FromCluster::HostGone(host) => self.handle_host_gone(host),
            FromCluster::Online(is_online) => self.neighbours.is_online = is_online,
            FromCluster::Pairing(news) => self.receive_pairing_news(news),
            FromCluster::Rendezvous(news) => self.receive_rendezvous_news(news),
            FromCluster::Directory(news) => self.receive_directory_news(news),
            FromCluster::Rooms(news) => self.receive_rooms_news(news),
            FromCluster::Introductions(news) => self.receive_introductions_news(news),
            FromCluster::Pipes(news) => self.receive_pipes_news(news),
        }
        self.deliver_local();
    }

    /// Hands mail for the cluster to `push`, which gives back what a full ring does not take. As
    /// [`Shard::deliver_mail`].
    pub fn deliver_cluster_mail(&mut self, push: impl FnMut(Parcel) -> Result<(), Parcel>) {
        self.router.deliver_to_cluster(push, &mut self.buffers);
        self.counters.mail_waiting.set(self.router.waiting() as u64);
    }

    /// Whether other hosts can be reached, as the cluster last said.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.neighbours.is_online
    }

    /// The other hosts that can be written to.
    pub fn neighbours(&self) -> impl Iterator<Item = HostId> {
        self.neighbours.relations.keys().copied()
    }

    /// Sends a note to the shard of another host's client. Where that host is gone, so is its client: what follows
    /// from that follows here.
    pub(super) fn post_note(&mut self, to: ClientId, note: Note) {
        if !self.post_letter(to.host(), to.shard(), Letter::Note(note), None) {
            self.post_foreign_note(note);
        }
    }

    /// Sends a finished frame to another host's client.
    pub(super) fn forward_to_host(
        &mut self,
        from: Slot,
        to: ClientId,
        room: RoomId,
        parts: &[Part],
        message: &[u8],
    ) {
        let payload_len = protocol::len_of(parts);
        let header = ServerHeader::new(Opcode::Text, payload_len);
        let len = header.as_bytes().len() + payload_len;
        if len > HOST_FRAME_BYTES_MAX {
            return self.doom(from, Some(CloseCode::TooBig), "message too big");
        }
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(header.as_bytes());
        protocol::write(parts, message, |piece| bytes.extend_from_slice(piece));
        let Ok(charge) = self.buffers.transit(bytes.into()) else { return self.doom_busy(from) };
        let (frame, shard) = (charge.bytes().clone(), to.shard());
        let mail = match self.neighbours.relations.get(&to.host()).copied() {
            Some(relation) => {
                let letter = Letter::Frame { to, room, frame };
                ToCluster::Letter { to: to.host(), relation, shard, letter }
            }
            // A foreign partner. Of one whose host is gone we have taken leave already.
            None => ToCluster::Pairing(Request::Frame { to, room, frame }),
        };
        self.router.post_to_cluster(Parcel { mail, charge: Some(charge) }, &mut self.buffers);
    }

    /// Sends a letter to a shard of another host. False: that host is gone, and nothing was sent.
    fn post_letter(
        &mut self,
        to: HostId,
        shard: ShardIndex,
        letter: Letter,
        charge: Option<Transit>,
    ) -> bool {
        let Some(relation) = self.neighbours.relations.get(&to).copied() else { return false };
        let mail = ToCluster::Letter { to, relation, shard, letter };
        self.router.post_to_cluster(Parcel { mail, charge }, &mut self.buffers);
        true
    }

    fn receive_letter(&mut self, from: HostId, letter: Letter) {
        match letter {
            Letter::Note(note) if self.is_for_here(&note) && speaks_for(from, &note) => {
                self.receive_note(note);
            }
            Letter::Note(_) => self.counters.letters_ignored.add(1),
            Letter::Frame { to, room, frame } => self.receive_distant_frame(to, room, &frame),
            Letter::Pairing(letter) => self.receive_pairing_letter(from, letter),
            Letter::Rendezvous(letter) => self.receive_rendezvous_letter(from, letter),
            Letter::Directory(letter) => self.receive_directory_letter(from, letter),
            Letter::Rooms(letter) => self.receive_rooms_letter(from, letter),
            Letter::Introductions(letter) => self.receive_introductions_letter(from, letter),
            Letter::Pipes(letter) => self.receive_pipes_letter(from, letter),
        }
    }

    /// Whether a note is for a client of this shard, there or gone. The queue hears from other hosts by other ways.
    fn is_for_here(&self, note: &Note) -> bool {
        let here = (self.settings.host, self.router.here());
        note.addressee().is_some_and(|id| (id.host(), id.shard()) == here)
    }

    fn receive_distant_frame(&mut self, to: ClientId, room: RoomId, frame: &Bytes) {
        let Some(slot) = self.in_room(to, room) else { return self.counters.letters_ignored.add(1) };
        self.send_distant(slot, frame);
    }

    /// Sends a client a finished frame that came in mail from another host.
    fn send_distant(&mut self, slot: Slot, frame: &Bytes) {
        self.counters.messages_sent.add(1);
        if frame.len() <= COPY_MAX {
            return self.send_pieces(slot, frame.len(), |write| write(frame));
        }
        // A copy, since the frame is a part of the mail that it came in, and would keep all of that in memory.
        let Ok(transit) = self.buffers.transit(Bytes::copy_from_slice(frame)) else {
            return self.doom_busy(slot);
        };
        self.send(slot, frame.len(), |outbox, buffers| outbox.append_shared(&transit, buffers));
    }

    /// All clients of another host have left.
    fn handle_host_gone(&mut self, host: HostId) {
        self.neighbours.relations.remove(&host);
        self.lose_pairing_host(host);
        self.lose_rendezvous_host(host);
        self.lose_directory_host(host);
        self.lose_rooms_host(host);
        self.lose_pipes_host(host);
    }
}

/// Whether a note is about a client of the host that it comes from.
fn speaks_for(from: HostId, note: &Note) -> bool {
    match note {
        Note::Offer { older, .. } => older.client.host() == from,
        Note::Accepted { newer, .. } => newer.client.host() == from,
        Note::Matched { partner, .. } => partner.host() == from,
        Note::Declined(_) | Note::PartnerLeft { .. } => true,
        Note::Wait(_) | Note::Unwait(_) => false,
    }
}
