//! The directory over several hosts, as its home shard sees it: what it asks the cluster, and what it is told of the list
//! that all hosts share.
//!
//! Letters to peers of another host go to that host's cluster, which knows whether the sender has come there yet.

use bytes::Bytes;

use crate::cluster::directory::{Entry, Letter, News, Request};
use crate::cluster::{CLUSTER, Letter as AnyLetter, ToCluster};
use crate::id::{ClientId, HostId, Slot};
use crate::protocol::directory::{Ask, Distant, State};
use crate::protocol::{self, Actions, Part};
use crate::shard::Shard;
use crate::shard::clients::Stage;
use crate::shard::dialects::{Dialect, NOBODY};
use crate::shard::mail::Parcel;
use crate::wire::frame::{Opcode, ServerHeader};

impl Shard {
    /// Asks the cluster about a name. Who wants one is not read from until there is an answer.
    pub(in crate::shard) fn ask_directory(&mut self, slot: Slot, ask: Ask) {
        let request = match ask {
            Ask::Login { client, name } => {
                self.await_answer(slot);
                Request::Login { client, name }
            }
            Ask::Logout(client) => Request::Logout(client),
        };
        let parcel = Parcel { mail: ToCluster::Directory(request), charge: None };
        self.router.post_to_cluster(parcel, &mut self.buffers);
    }

    /// Sends a message to peers of other hosts.
    pub(in crate::shard) fn send_to_peers(
        &mut self,
        slot: Slot,
        to: Distant,
        parts: &[Part],
        message: &[u8],
    ) {
        let Some(from) = self.clients.at(slot).map(|client| client.id) else { return };
        let header = ServerHeader::new(Opcode::Text, protocol::len_of(parts));
        let mut bytes = Vec::with_capacity(header.as_bytes().len() + protocol::len_of(parts));
        bytes.extend_from_slice(header.as_bytes());
        protocol::write(parts, message, |piece| bytes.extend_from_slice(piece));
        let frame = Bytes::from(bytes);
        match to {
            Distant::Client(to) => {
                self.post_peer_letter(slot, to.host(), Letter { from, to: Some(to), frame });
            }
            Distant::Hosts(hosts) => {
                for host in hosts {
                    let letter = Letter { from, to: None, frame: frame.clone() };
                    self.post_peer_letter(slot, host, letter);
                }
            }
        }
    }

    fn post_peer_letter(&mut self, slot: Slot, host: HostId, letter: Letter) {
        match self.buffers.transit(letter.frame.clone()) {
            // The peers of a host that is gone have left.
            Ok(charge) => {
                self.post_letter(host, CLUSTER, AnyLetter::Directory(letter), Some(charge));
            }
            Err(_) => self.doom_busy(slot),
        }
    }

    /// The cluster has something to say.
    pub(super) fn receive_directory_news(&mut self, news: News) {
        match news {
            News::Came(entries) => {
                for entry in entries {
                    self.receive_peer(entry);
                }
            }
            News::Went(client) => self.with_directory(|shard, out| {
                shard.tables.directory.handle_went(client, out);
            }),
            News::Refused(client) => self.refuse_name(client),
            News::Busy(client) => {
                if let Some((slot, _)) = self.clients.find(client) {
                    self.doom_busy(slot);
                }
            }
            News::Frame { from, to: Some(to), frame } => self.receive_peer_frame(from, to, &frame),
            News::Frame { from, to: None, frame } => self.receive_peer_broadcast(from, &frame),
        }
        self.count_directory();
    }

    /// Another host's shard has something to say. Letters for the directory go by the cluster.
    pub(super) fn receive_directory_letter(&mut self, _from: HostId, _letter: Letter) {
        self.counters.letters_ignored.add(1);
    }

    /// Another host is gone, with all its clients.
    pub(super) fn lose_directory_host(&mut self, host: HostId) {
        self.with_directory(|shard, out| shard.tables.directory.handle_host_gone(host, out));
    }

    fn receive_peer(&mut self, entry: Entry) {
        if entry.client.host() == self.settings.host {
            return self.admit(&entry);
        }
        self.with_directory(|shard, out| {
            let Entry { sequence, client, name } = entry;
            if !shard.tables.directory.handle_came(client, sequence, &name, out) {
                shard.counters.letters_ignored.add(1);
            }
        });
    }

    /// A client of ours has its name. It goes on.
    fn admit(&mut self, entry: &Entry) {
        let mut actions = Actions::new();
        let Some((slot, client)) = self.clients.find(entry.client) else { return };
        let Stage::Open(Dialect::Directory(state)) = &mut client.stage else { return };
        let name = entry.name.clone();
        self.tables.directory.handle_admitted(state, entry.client, entry.sequence, name, &mut actions);
        self.apply(slot, &mut actions, &[]);
        self.count_directory();
        self.resume_answered(slot);
    }

    fn refuse_name(&mut self, client: ClientId) {
        let mut actions = Actions::new();
        let Some((slot, found)) = self.clients.find(client) else { return };
        let Stage::Open(Dialect::Directory(state)) = &found.stage else { return };
        self.tables.directory.handle_refused(state, client, &mut actions);
        self.apply(slot, &mut actions, &[]);
    }

    fn with_directory(&mut self, handle: impl FnOnce(&mut Self, &mut Actions)) {
        let mut actions = Actions::new();
        handle(self, &mut actions);
        self.apply(NOBODY, &mut actions, &[]);
    }

    fn count_directory(&mut self) {
        self.counters.directory_clients.set(self.tables.directory.len() as u64);
    }

    fn receive_peer_frame(&mut self, from: ClientId, to: ClientId, frame: &Bytes) {
        let found = self.clients.find(to);
        let knows = |state: &State| self.tables.directory.knows(from, state);
        match found {
            Some((slot, client)) if matches!(&client.stage, Stage::Open(Dialect::Directory(state)) if knows(state)) =>
            {
                self.send_distant(slot, frame);
            }
            _ => self.counters.letters_ignored.add(1),
        }
    }

    fn receive_peer_broadcast(&mut self, from: ClientId, frame: &Bytes) {
        let Some(hearers) = self.tables.directory.hearers_of(from) else {
            return self.counters.letters_ignored.add(1);
        };
        self.send_distant_to(&hearers, frame);
    }

    /// Sends a frame that came from another host to many clients.
    pub(super) fn send_distant_to(&mut self, to: &[ClientId], frame: &Bytes) {
        if to.is_empty() {
            return;
        }
        let transit = self.buffers.transit_always(Bytes::copy_from_slice(frame));
        for id in to {
            let Some((slot, _)) = self.clients.find(*id) else { continue };
            self.counters.messages_sent.add(1);
            self.send(slot, frame.len(), |outbox, buffers| outbox.append_shared(&transit, buffers));
        }
    }
}
