//! Pairing over several hosts, as a shard sees it (protocols.md section 6): the queue's home lends who is left over to the
//! cluster, and partners of other servers are written to through the cluster.
//!
//! An id that is not of this host and of none that the shard has a relation to is the cluster's business: it knows
//! whether that is a foreign client, and answers for the clients of a host that is gone.

use bytes::Bytes;

use crate::cluster::ToCluster;
use crate::cluster::pairing::{Letter, News, Request};
use crate::id::{ClientId, Entropy, HostId, RoomId};
use crate::limits::PAIRING_REMINDER_MS;
use crate::protocol::Actions;
use crate::protocol::pairing::{Errand, Note, Pairing, Waiter};
use crate::shard::Shard;
use crate::shard::clients::Stage;
use crate::shard::dialects::{Dialect, NOBODY};
use crate::shard::mail::{Mail, Parcel};
use crate::shard::route::PAIRING_HOME;
use crate::wire::frame::Opcode;

impl Shard {
    /// After how many milliseconds [`Shard::handle_reminder`] is to be called. Ask once a turn.
    #[must_use]
    pub fn poll_reminder(&mut self) -> Option<u64> {
        self.tables.pairing.poll_reminder().then_some(PAIRING_REMINDER_MS)
    }

    /// So much time has passed.
    pub fn handle_reminder(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.with_queue(Pairing::handle_reminder);
        self.deliver_local();
    }

    /// The queue asks the cluster for something.
    pub(in crate::shard) fn ask_for_queue(&mut self, errand: Errand) {
        self.ask_for_pairing(Request::Queue(errand));
    }

    /// A note to a client of no host that can be written to.
    pub(super) fn post_foreign_note(&mut self, note: Note) {
        if self.settings.has_cluster {
            self.ask_for_pairing(Request::Note(note));
        } else {
            let here = self.router.here();
            self.post(here, Mail::Note(note));
        }
    }

    /// The cluster has something to say.
    pub(super) fn receive_pairing_news(&mut self, news: News) {
        match news {
            News::Recalled(loan) => {
                self.with_queue(|pairing, entropy, out| pairing.handle_recalled(loan, entropy, out));
            }
            News::Taken(loan) => {
                self.with_queue(|pairing, entropy, out| pairing.handle_taken(loan, entropy, out));
            }
            News::Note(note) if self.is_for_here(&note) => self.receive_note(note),
            News::Note(_) => self.counters.letters_ignored.add(1),
            News::Claimed { ours, room, foreign } => self.receive_claim(ours, room, foreign),
            News::Said { to, from, payload } => self.receive_said(to, from, &payload),
        }
    }

    /// Another host's shard has something to say.
    pub(super) fn receive_pairing_letter(&mut self, _from: HostId, _letter: Letter) {
        // They are for clusters.
        self.counters.letters_ignored.add(1);
    }

    /// Another host is gone, with all its clients.
    pub(super) fn lose_pairing_host(&mut self, host: HostId) {
        for slot in self.clients.slots() {
            let Some(client) = self.clients.at(slot) else { continue };
            let Stage::Open(Dialect::Pairing(state)) = &client.stage else { continue };
            if let Some((room, _)) = state.partner().filter(|(_, partner)| partner.host() == host) {
                let to = client.id;
                self.receive_note(Note::PartnerLeft { room, to });
            }
        }
    }

    fn ask_for_pairing(&mut self, request: Request) {
        let parcel = Parcel { mail: ToCluster::Pairing(request), charge: None };
        self.router.post_to_cluster(parcel, &mut self.buffers);
    }

    fn with_queue(&mut self, handle: impl FnOnce(&mut Pairing, &mut Entropy, &mut Actions)) {
        let mut actions = std::mem::take(&mut self.actions);
        handle(&mut self.tables.pairing, &mut self.entropy, &mut actions);
        self.apply(NOBODY, &mut actions, &[]);
        self.actions = actions;
    }

    /// A foreign server says that it has matched this client. Whatever the client waits on, it is the older one: it was
    /// on the list.
    fn receive_claim(&mut self, ours: ClientId, room: RoomId, foreign: Waiter) {
        let ticket = self.clients.find(ours).and_then(|(_, client)| match &client.stage {
            Stage::Open(Dialect::Pairing(state)) => state.ticket(),
            _ => None,
        });
        let Some(ticket) = ticket else { return self.post_foreign_note(Note::Declined(foreign)) };
        let older = Waiter { client: ours, ticket };
        self.post(PAIRING_HOME, Mail::Note(Note::Unwait(older)));
        self.receive_note(Note::Accepted { room, older, newer: foreign });
    }

    /// A foreign server has a message for this client, which is not for one that has another partner.
    fn receive_said(&mut self, to: ClientId, from: Option<ClientId>, payload: &Bytes) {
        let slot = self.clients.find(to).and_then(|(slot, client)| match &client.stage {
            Stage::Open(Dialect::Pairing(state)) => {
                let is_heard = state.partner().is_none_or(|(_, partner)| Some(partner) == from);
                is_heard.then_some(slot)
            }
            _ => None,
        });
        let Some(slot) = slot else { return self.counters.letters_ignored.add(1) };
        self.counters.messages_sent.add(1);
        self.send_frame(slot, Opcode::Text, payload);
    }
}
