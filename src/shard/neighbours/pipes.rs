//! Pipes over several hosts, as a shard sees them. Each end stays where it is and holds what it has said until its partner
//! is found; from then on chunks go to the partner's shard, as many as there is credit for. What waits for credit makes
//! the end pause, so a slow reader slows down the writer on the other host.

mod distant;

use std::collections::BTreeMap;

use crate::cluster::ToCluster;
use crate::cluster::pipes::{How, Letter, News, Request, What};
use crate::id::{ClientId, HostId, Slot};
use crate::limits::PIPE_RETRY_MS;
use crate::protocol::pipe::{End, Names, Outcome};
use crate::shard::Shard;
use crate::shard::clients::Stage;
use crate::shard::dialects::Dialect;
use crate::shard::mail::Parcel;
use crate::shard::pausing::Reason;
use crate::shard::pipes::{Parting, Pipe, Standing};
pub(in crate::shard) use distant::Distant;

/// Both ends of a pipe whose bytes were lost are closed with this reason.
const LOST: &str = "the way to the other host is lost";

/// What is kept of pipes to other hosts beside their ends.
#[derive(Debug, Default)]
pub(super) struct Afar {
    /// Redis can be worked with.
    is_up: bool,
    /// When ends that could not be registered are tried again.
    retry_ms: Option<u64>,
    /// What ends have said that are gone, until there is credit for it. Each is no more than an end keeps and is on
    /// the shard's budget, and there is one for each partner that still takes it.
    remains: BTreeMap<ClientId, Distant>,
}

impl Shard {
    /// An end has come and waits here; its partner may wait on another host. It gets no 101 until that is known, and nothing
    /// is read from it: were it or its partner to end before they know of each other, what was said would be lost.
    pub(in crate::shard) fn enter_pipe_of_all(&mut self, slot: Slot) {
        if self.arrive_at_pipe(slot) {
            self.await_answer(slot);
        }
    }

    /// Asks for the partner of an end that waits here. False: nobody can be asked.
    fn arrive_at_pipe(&mut self, slot: Slot) -> bool {
        if !self.neighbours.pipes.is_up {
            return false;
        }
        let Some(client) = self.clients.at(slot).map(|client| client.id) else { return false };
        let Some(pipe) = self.pipe_at(slot) else { return false };
        let (names, is_new) = (pipe.end.names(), pipe.is_new);
        self.ask_pipes(Request::Arrive { client, names, is_new });
        true
    }

    /// It is known what becomes of an end: it gets its 101, and is read from.
    pub(in crate::shard) fn resume_pipe(&mut self, slot: Slot) {
        let Some(client) = self.clients.at(slot).filter(|client| client.paused.has(Reason::Answer)) else {
            return;
        };
        let held = client.held.take();
        self.resume(slot, Reason::Answer);
        self.mark_dirty(slot);
        if let Some(mut held) = held {
            self.in_hand_bytes += held.bytes.capacity();
            self.handle_pipe_bytes(slot, &mut held.bytes);
            self.in_hand_bytes -= held.bytes.capacity();
            self.buffers.release(held.bytes);
        }
    }

    /// An end does not wait here any more.
    pub(in crate::shard) fn forget_pipe(&mut self, client: ClientId, end: &End) {
        if self.settings.has_cluster {
            self.ask_pipes(Request::Forget { client, names: end.names() });
        }
    }

    /// Sends on what an end has said, as far as there is credit. While something is left, nothing more is read.
    pub(in crate::shard) fn send_chunks(&mut self, slot: Slot) {
        let Some(me) = self.clients.at(slot).map(|client| client.id) else { return };
        while let Some(what) = self.distant_at(slot).and_then(Distant::poll) {
            self.write_to_partner(slot, me, what);
        }
        let Some(distant) = self.distant_at(slot) else { return };
        match distant.drop_sent() {
            Some(buffer) => {
                self.buffers.release(buffer);
                self.resume(slot, Reason::Partner);
                self.end_if_both_finished(slot);
            }
            None => self.pause(slot, Reason::Partner),
        }
    }

    /// Little waits for an end: its partner may send more.
    pub(in crate::shard) fn return_credit(&mut self, slot: Slot) {
        let Some(me) = self.clients.at(slot).map(|client| client.id) else { return };
        if let Some(credit) = self.distant_at(slot).and_then(Distant::take_owed) {
            self.write_to_partner(slot, me, What::Credit(credit));
        }
    }

    /// A raw end's stream has ended: so does its partner's, behind what was sent before.
    pub(in crate::shard) fn finish_distant(&mut self, slot: Slot) {
        self.pause(slot, Reason::Ended);
        if let Some(distant) = self.distant_at(slot) {
            distant.finish(How::Finished);
        }
        self.send_chunks(slot);
    }

    /// An end has left. What it has said before still arrives, but for a raw end that was reset.
    pub(in crate::shard) fn leave_distant(&mut self, me: ClientId, mut distant: Distant, parting: Parting) {
        let partner = distant.partner;
        if distant.is_reset_by(parting) {
            self.buffers.release(std::mem::take(&mut distant.unsent));
            return self.write(me, partner, What::End(How::Reset));
        }
        distant.finish(How::Closed);
        self.send_remains(me, distant);
    }

    /// Time has passed.
    pub(in crate::shard) fn retry_pipes(&mut self) {
        if self.neighbours.pipes.retry_ms.is_some_and(|due_ms| due_ms <= self.now_ms) {
            self.neighbours.pipes.retry_ms = None;
            self.arrive_again();
        }
    }

    /// The cluster has something to say.
    pub(super) fn receive_pipes_news(&mut self, news: News) {
        match news {
            News::Up => {
                self.neighbours.pipes.is_up = true;
                self.arrive_again();
            }
            News::Down => self.neighbours.pipes.is_up = false,
            News::Waits { client } => {
                if let Some((_, pipe)) = self.find_pipe(client) {
                    pipe.is_new = false;
                }
                self.go_on_waiting(client);
            }
            News::Again { client } => {
                if let Some(slot) = self.waiting(client) {
                    self.arrive_or_resume(slot);
                }
            }
            News::Replaced { client } => self.replace(client),
            News::Failed { client } => {
                if let Some(slot) = self.waiting(client) {
                    self.arrive_later(slot);
                }
            }
            News::Met { client, partner } => self.meet_partner(client, partner),
        }
    }

    /// Another host's shard has something to say.
    pub(super) fn receive_pipes_letter(&mut self, host: HostId, letter: Letter) {
        let Letter { to, from, what } = letter;
        if from.host() != host || to.host() != self.settings.host {
            return self.counters.letters_ignored.add(1);
        }
        match what {
            What::Ask => self.answer_partner(to, from),
            What::Joined => match self.asking(to, from) {
                Some(slot) => self.join_distant(slot, from),
                // Both have asked.
                None if self.joined(to, from).is_some() => {}
                // It has left meanwhile.
                None => self.write(to, from, What::End(How::Closed)),
            },
            What::Refused => {
                if let Some(slot) = self.asking(to, from) {
                    self.take_out(slot, from);
                    self.hold_again(slot);
                    self.arrive_or_resume(slot);
                }
            }
            What::Busy => {
                if let Some(slot) = self.asking(to, from) {
                    self.hold_again(slot);
                    self.arrive_later(slot);
                }
            }
            What::Replaced => self.replace(to),
            What::Chunk { number, bytes } => self.receive_chunk(to, from, number, &bytes),
            What::Credit(bytes) => self.receive_credit(to, from, bytes),
            What::End(how) => self.receive_end(to, from, how),
        }
    }

    /// Another host can be written to. It may have taken us for gone, or one of us may have taken the other's end while
    /// it could not be asked.
    pub(super) fn find_pipes_host(&mut self, _host: HostId) {
        self.arrive_again();
    }

    /// Another host is gone, with all its clients: their partners are closed, since what was on its way is lost.
    pub(super) fn lose_pipes_host(&mut self, host: HostId) {
        for slot in self.clients.slots() {
            let Some(pipe) = self.pipe_at(slot) else { continue };
            let is_asking = pipe.asking.is_some_and(|asked| asked.host() == host);
            let is_joined = pipe.distant().is_some_and(|distant| distant.partner.host() == host);
            if is_asking {
                self.hold_again(slot);
            } else if is_joined {
                self.lose_partner(slot);
            }
        }
        let all = std::mem::take(&mut self.neighbours.pipes.remains);
        for (client, mut distant) in all {
            if distant.partner.host() == host {
                self.buffers.release(std::mem::take(&mut distant.unsent));
            } else {
                self.neighbours.pipes.remains.insert(client, distant);
            }
        }
        // An end of that host may have replaced one of ours, and was not able to say so.
        self.arrive_again();
    }

    /// An end has no partner yet.
    fn go_on_waiting(&mut self, client: ClientId) {
        if let Some(slot) = self.waiting(client) {
            self.resume_pipe(slot);
        }
    }

    /// Another host's end waits in the place of one that has waited here.
    fn replace(&mut self, client: ClientId) {
        if let Some(slot) = self.waiting(client) {
            self.doom(slot, None, "");
        }
    }

    /// An end that waits in the table arrives again at once, if it can.
    fn arrive_or_resume(&mut self, slot: Slot) {
        let Some(client) = self.clients.at(slot).map(|client| client.id) else { return };
        if self.waiting(client).is_some() && !self.arrive_at_pipe(slot) {
            self.resume_pipe(slot);
        }
    }

    /// An end that waits in the table arrives again after a while.
    fn arrive_later(&mut self, slot: Slot) {
        let retry_ms = self.now_ms + PIPE_RETRY_MS;
        self.neighbours.pipes.retry_ms.get_or_insert(retry_ms);
        self.resume_pipe(slot);
    }

    /// All ends that wait here are registered again.
    fn arrive_again(&mut self) {
        for slot in self.clients.slots() {
            self.arrive_or_resume(slot);
        }
    }

    /// An end that waits has a partner: of another host, which is asked, or here.
    fn meet_partner(&mut self, me: ClientId, partner: ClientId) {
        let Some(slot) = self.waiting(me) else { return };
        if partner.host() == self.settings.host {
            if self.waiting(partner).is_some() {
                return self.join_held(slot, partner);
            }
            self.take_out(slot, partner);
        } else if self.neighbours.relations.contains_key(&partner.host()) {
            self.take_from_table(slot);
            if let Some(pipe) = self.pipe_at(slot) {
                pipe.asking = Some(partner);
            }
            return self.write(me, partner, What::Ask);
        }
        self.arrive_or_resume(slot);
    }

    /// Whoever was met in Redis does not wait any more.
    fn take_out(&mut self, slot: Slot, partner: ClientId) {
        if let Some(pipe) = self.pipe_at(slot) {
            let Names { own, other } = pipe.end.names();
            self.ask_pipes(Request::Forget { client: partner, names: Names { own: other, other: own } });
        }
    }

    /// An end of another host wants to be the partner of one that waits here.
    fn answer_partner(&mut self, me: ClientId, partner: ClientId) {
        let Some(slot) = self.waiting(me).or_else(|| self.asking(me, partner)) else {
            let is_busy = self.find_pipe(me).is_some_and(|(_, pipe)| pipe.asking.is_some());
            return self.write(me, partner, if is_busy { What::Busy } else { What::Refused });
        };
        self.write(me, partner, What::Joined);
        self.take_from_table(slot);
        self.join_distant(slot, partner);
    }

    /// An end and its partner on another host know of each other: what it has said so far goes there.
    fn join_distant(&mut self, slot: Slot, partner: ClientId) {
        let Some(me) = self.clients.at(slot).map(|client| client.id) else { return };
        let Some(pipe) = self.pipe_at(slot) else { return };
        pipe.asking = None;
        let end = pipe.end.clone();
        let Standing::Held(kept) = &mut pipe.standing else { return };
        let distant = Distant::new(partner, pipe.end.is_raw(), std::mem::take(kept));
        pipe.standing = Standing::Distant(Box::new(distant));
        self.counters.pipes_distant.add(1);
        // It may have been registered anew meanwhile.
        self.forget_pipe(me, &end);
        self.send_chunks(slot);
        self.resume(slot, Reason::Hold);
        self.resume_pipe(slot);
    }

    /// An end whose partner turned out to be gone waits anew.
    fn hold_again(&mut self, slot: Slot) {
        let now_ms = self.now_ms;
        let Some(me) = self.clients.at(slot).map(|client| client.id) else { return };
        let Some(pipe) = self.pipe_at(slot) else { return };
        (pipe.asking, pipe.is_new) = (None, false);
        let end = pipe.end.clone();
        match self.tables.pipes.handle_return(&end, me, now_ms) {
            Outcome::Held { replaced: None } => {}
            Outcome::Held { replaced: Some(_) } => self.doom(slot, None, ""),
            Outcome::Joined { partner } => self.join_held(slot, partner),
            Outcome::Full => self.doom_busy(slot),
        }
        self.counters.pipes_held.set(self.tables.pipes.len() as u64);
    }

    /// The end in a slot waits for nobody any more.
    fn take_from_table(&mut self, slot: Slot) {
        let Some(client) = self.clients.at(slot) else { return };
        if let Stage::Open(Dialect::Pipe(pipe)) = &client.stage {
            self.tables.pipes.handle_leave(&pipe.end, client.id);
        }
        self.counters.pipes_held.set(self.tables.pipes.len() as u64);
    }

    fn receive_chunk(&mut self, to: ClientId, from: ClientId, number: u64, bytes: &[u8]) {
        // It has left, of which the other is told in its turn.
        let Some(slot) = self.joined(to, from) else { return };
        self.counters.pipe_chunks_received.add(1);
        let is_good = self.distant_at(slot).is_some_and(|distant| distant.receive(number, bytes));
        if !is_good {
            self.write(to, from, What::End(How::Lost));
            return self.lose_partner(slot);
        }
        if self.append_to_pipe(slot, bytes).is_err() {
            self.doom_busy(slot);
        }
    }

    fn receive_credit(&mut self, to: ClientId, from: ClientId, bytes: u32) {
        if let Some(slot) = self.joined(to, from) {
            if let Some(distant) = self.distant_at(slot) {
                distant.add_credit(bytes);
            }
            self.send_chunks(slot);
        } else if let Some(mut distant) = self.take_remains(to, from) {
            distant.add_credit(bytes);
            self.send_remains(to, distant);
        }
    }

    fn receive_end(&mut self, to: ClientId, from: ClientId, how: How) {
        if let Some(mut distant) = self.take_remains(to, from) {
            return self.buffers.release(std::mem::take(&mut distant.unsent));
        }
        let Some(slot) = self.joined(to, from) else { return };
        let is_raw = self.pipe_at(slot).is_some_and(|pipe| pipe.is_raw());
        match how {
            How::Finished if is_raw => {
                if let Some(pipe) = self.pipe_at(slot) {
                    pipe.must_finish = true;
                }
                self.mark_dirty(slot);
            }
            How::Reset if is_raw => {
                self.part(slot);
                self.reset(slot);
            }
            How::Closed | How::Finished | How::Reset => {
                self.part(slot);
                if let Some(client) = self.clients.at(slot) {
                    client.must_drain = true;
                }
                self.doom(slot, None, "");
            }
            How::Lost => self.lose_partner(slot),
        }
    }

    /// Something of a pipe is lost: nobody is left to be told but its end here.
    fn lose_partner(&mut self, slot: Slot) {
        self.part(slot);
        self.doom_again_later(slot, LOST);
    }

    /// An end has no partner any more.
    pub(in crate::shard) fn part(&mut self, slot: Slot) {
        let Some(pipe) = self.pipe_at(slot) else { return };
        let standing = std::mem::replace(&mut pipe.standing, Standing::Held(Vec::new()));
        if let Standing::Distant(mut distant) = standing {
            self.buffers.release(std::mem::take(&mut distant.unsent));
        }
    }

    /// What an end has said that is gone goes on, as far as there is credit.
    fn send_remains(&mut self, me: ClientId, mut distant: Distant) {
        while let Some(what) = distant.poll() {
            self.write(me, distant.partner, what);
        }
        match distant.drop_sent() {
            Some(buffer) => self.buffers.release(buffer),
            None => {
                self.neighbours.pipes.remains.insert(me, distant);
            }
        }
    }

    fn take_remains(&mut self, me: ClientId, partner: ClientId) -> Option<Distant> {
        let remains = &mut self.neighbours.pipes.remains;
        remains.get(&me).filter(|distant| distant.partner == partner)?;
        remains.remove(&me)
    }

    /// The slot of an end that waits for its partner.
    fn waiting(&mut self, client: ClientId) -> Option<Slot> {
        let (slot, pipe) = self.find_pipe(client)?;
        let end = pipe.end.clone();
        let is_doomed = self.clients.at(slot).is_some_and(|client| client.is_doomed);
        (!is_doomed && self.tables.pipes.is_held(&end, client)).then_some(slot)
    }

    /// The slot of an end that has asked this one to be its partner.
    fn asking(&mut self, client: ClientId, partner: ClientId) -> Option<Slot> {
        self.find_pipe(client).filter(|(_, pipe)| pipe.asking == Some(partner)).map(|(slot, _)| slot)
    }

    /// The slot of an end whose partner this one of another host is.
    fn joined(&mut self, client: ClientId, partner: ClientId) -> Option<Slot> {
        let (slot, pipe) = self.find_pipe(client)?;
        pipe.distant().filter(|distant| distant.partner == partner).map(|_| slot)
    }

    fn distant_at(&mut self, slot: Slot) -> Option<&mut Distant> {
        self.pipe_at(slot).and_then(Pipe::distant)
    }

    fn write_to_partner(&mut self, slot: Slot, me: ClientId, what: What) {
        if let Some(partner) = self.distant_at(slot).map(|distant| distant.partner) {
            self.write(me, partner, what);
        }
    }

    /// Writes to a client of another host. If that host is gone, we hear of it.
    fn write(&mut self, from: ClientId, to: ClientId, what: What) {
        let charge = match &what {
            What::Chunk { bytes, .. } => {
                self.counters.pipe_chunks_sent.add(1);
                self.counters.pipe_chunk_bytes.add(bytes.len() as u64);
                // It was on the budget before, and there is no more of it than credit.
                Some(self.buffers.transit_always(bytes.clone()))
            }
            _ => None,
        };
        let letter = crate::cluster::Letter::Pipes(Letter { to, from, what });
        self.post_letter(to.host(), to.shard(), letter, charge);
    }

    fn ask_pipes(&mut self, request: Request) {
        let parcel = Parcel { mail: ToCluster::Pipes(request), charge: None };
        self.router.post_to_cluster(parcel, &mut self.buffers);
    }
}
