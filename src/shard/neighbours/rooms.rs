//! Rooms over several hosts, as their home shard sees them: what it asks the cluster, and what the homes of other hosts
//! write to it. Letters go to the other host's cluster, which knows where its home is.

use bytes::Bytes;

use crate::cluster::rooms::{Letter, News, Request};
use crate::cluster::{CLUSTER, Letter as AnyLetter, ToCluster};
use crate::id::{ClientId, HostId, Slot};
use crate::limits::HOST_FRAME_BYTES_MAX;
use crate::protocol::rooms::{Ask, Key, Note, RoomIndex};
use crate::protocol::{self, Actions, Part};
use crate::shard::Shard;
use crate::shard::clients::Stage;
use crate::shard::dialects::{Dialect, NOBODY};
use crate::shard::mail::Parcel;
use crate::websocket::CloseCode;
use crate::wire::frame::{Opcode, ServerHeader};

impl Shard {
    /// Asks the cluster about a room. Who wants one is not read from until there is an answer.
    pub(in crate::shard) fn ask_rooms(&mut self, slot: Slot, ask: Ask) {
        let timeout_ms = self.settings.limits.room_timeout_ms;
        let request = match ask {
            Ask::Create(client) => {
                self.await_answer(slot);
                Request::Create { client, timeout_ms }
            }
            Ask::Join(client, room) => {
                self.await_answer(slot);
                Request::Join { client, room, timeout_ms }
            }
            Ask::Leave(key) => Request::Leave(key),
            Ask::Expire(key) => Request::Expire(key),
            Ask::Restore { key, left_ms } => Request::Restore { key, left_ms },
        };
        let parcel = Parcel { mail: ToCluster::Rooms(request), charge: None };
        self.router.post_to_cluster(parcel, &mut self.buffers);
    }

    /// Tells another host who is where. If it is gone, nobody is there.
    pub(in crate::shard) fn post_room_note(&mut self, host: HostId, note: Note) {
        self.post_letter(host, CLUSTER, AnyLetter::Rooms(Letter::Note(note)), None);
    }

    /// Sends a signal to the members of a room on other hosts.
    pub(in crate::shard) fn send_room_signal(
        &mut self,
        slot: Slot,
        key: Key,
        hosts: &[HostId],
        parts: &[Part],
        message: &[u8],
    ) {
        let Some(from) = self.clients.at(slot).map(|client| client.id) else { return };
        let header = ServerHeader::new(Opcode::Text, protocol::len_of(parts));
        let len = header.as_bytes().len() + protocol::len_of(parts);
        if len > HOST_FRAME_BYTES_MAX {
            return self.doom(slot, Some(CloseCode::TooBig), "message too big");
        }
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(header.as_bytes());
        protocol::write(parts, message, |piece| bytes.extend_from_slice(piece));
        let frame = Bytes::from(bytes);
        for host in hosts {
            let Ok(charge) = self.buffers.transit(frame.clone()) else { return self.doom_busy(slot) };
            let letter = AnyLetter::Rooms(Letter::Signal { key, from, frame: frame.clone() });
            self.post_letter(*host, CLUSTER, letter, Some(charge));
        }
    }

    /// The cluster has something to say.
    pub(super) fn receive_rooms_news(&mut self, news: News) {
        let now_ms = self.now_ms;
        match news {
            News::Joined { client, key, is_new, hosts } => self.with_rooms(|shard, out| {
                shard.tables.rooms.handle_joined(client, key, is_new, &hosts, now_ms, out);
            }),
            News::Refused { client, room } => self.refuse_room(client, room),
            News::Remaining { key, left_ms } => {
                self.tables.rooms.handle_remaining(key, left_ms, now_ms);
            }
            News::Restored { key, hosts } => self.with_rooms(|shard, out| {
                shard.tables.rooms.handle_restored(key, &hosts, out);
            }),
            News::Ended(key) => self.with_rooms(|shard, out| shard.tables.rooms.handle_ended(key, out)),
            News::Lost => {
                self.with_rooms(|shard, out| shard.tables.rooms.handle_lost(now_ms, out));
                let mail = ToCluster::Rooms(Request::Restored);
                self.router.post_to_cluster(Parcel { mail, charge: None }, &mut self.buffers);
            }
        }
    }

    /// Another host's home of rooms has something to say.
    pub(super) fn receive_rooms_letter(&mut self, from: HostId, letter: Letter) {
        match letter {
            Letter::Note(note) => self.with_rooms(|shard, out| {
                if !shard.tables.rooms.handle_note(from, note, out) {
                    shard.counters.letters_ignored.add(1);
                }
            }),
            Letter::Signal { key, from: sender, frame } if sender.host() == from => {
                let mut to = None;
                self.with_rooms(|shard, out| to = shard.tables.rooms.handle_signal_from(from, key, out));
                match to {
                    Some(to) => self.send_distant_to(&to, &frame),
                    None => self.counters.letters_ignored.add(1),
                }
            }
            Letter::Signal { .. } => self.counters.letters_ignored.add(1),
        }
    }

    /// Another host can be written to.
    pub(super) fn find_rooms_host(&mut self, host: HostId) {
        self.with_rooms(|shard, out| shard.tables.rooms.handle_host_found(host, out));
    }

    /// Another host is gone, with all its clients.
    pub(super) fn lose_rooms_host(&mut self, host: HostId) {
        self.with_rooms(|shard, _| shard.tables.rooms.handle_host_gone(host));
    }

    fn refuse_room(&mut self, client: ClientId, room: Option<RoomIndex>) {
        let mut actions = Actions::new();
        let is_there = self.tables.rooms.handle_refused(client, room, &mut actions);
        let slot = self.clients.find(client).map(|(slot, _)| slot);
        self.apply(slot.unwrap_or(NOBODY), &mut actions, &[]);
        if let Some(slot) = slot.filter(|_| is_there) {
            self.resume_answered(slot);
        }
        self.seat_ready();
    }

    fn with_rooms(&mut self, handle: impl FnOnce(&mut Self, &mut Actions)) {
        let mut actions = Actions::new();
        handle(self, &mut actions);
        self.apply(NOBODY, &mut actions, &[]);
        self.seat_ready();
    }

    /// Those who may sit down do, are told so, and go on.
    fn seat_ready(&mut self) {
        while let Some(id) = self.tables.rooms.poll_ready() {
            let mut actions = Actions::new();
            let Some((slot, client)) = self.clients.find(id) else { continue };
            let Stage::Open(Dialect::Rooms(state)) = &mut client.stage else { continue };
            self.tables.rooms.handle_ready(state, id, self.now_ms, &mut actions);
            self.apply(slot, &mut actions, &[]);
            self.resume_answered(slot);
        }
        self.counters.rooms.set(self.tables.rooms.len() as u64);
    }
}
