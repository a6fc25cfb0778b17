//! A host of shards without sockets: what stands around them does what the fuzzer says, and a judge sees each step.
//!
//! Between shards mail travels in rings of few entries, in order per pair of shards. A socket takes as many bytes as
//! it has room for, and no more until it is emptied; what its client sends waits in it while it is not read from or
//! on its way to another shard.

mod host;
mod peer;

use parlor::limits::READ_SCRATCH_BYTES;
use parlor::shard::mail::Mail;

use crate::Cuts;
pub use host::{Asked, Host, Setup};
pub use peer::Peer;

/// Sockets that were accepted in one run; more are refused.
const PEERS_MAX: usize = 12;
/// So much of what is sent at once is cut into pieces: thousands of them take long and say no more.
const CUT_BYTES_MAX: usize = 100;
/// Windows of a rate that anybody waits for at the end.
const WINDOWS_MAX: usize = 100;

/// What a shard was handed, about which peer.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// Somebody has connected.
    Accepted(usize),
    /// A socket has come from another shard.
    Arrived(usize),
    /// These bytes were read.
    Bytes(usize, &'a [u8]),
    /// The end was read; whether the connection lives on.
    Ended(usize, bool),
    /// The socket is closed.
    Gone(usize),
    /// Writing failed, or the server panicked.
    Lost(usize),
    /// Something was written.
    Sent(usize),
    /// These bytes were moved to the partner past the shard.
    Spliced(usize, &'a [u8]),
    /// Time has passed for a shard.
    Time,
    /// A shard shuts down.
    Shutdown(usize),
    /// Mail has come or gone.
    Mail,
}

/// Who says whether what the shards did is right.
pub trait Judge {
    /// A shard was handed this, and has asked for that in turn.
    fn observe(&mut self, step: Step<'_>, shard: usize, asked: &[Asked], host: &mut Host);
    /// All mail has arrived.
    fn check_quiet(&self, _host: &Host) {}
    /// All was sent to whoever takes it; nobody has left for it.
    fn finish(&mut self, host: &mut Host);
}

/// The shards and all around them.
#[derive(Debug)]
pub struct World<J> {
    /// The shards.
    pub host: Host,
    /// Who looks on.
    pub judge: J,
}

impl<J: Judge> World<J> {
    /// Shards that nobody is connected to.
    #[must_use]
    pub fn new(setup: Setup, judge: J) -> Self {
        Self { host: Host::new(setup), judge }
    }

    /// Somebody connects; nothing if there are too many.
    pub fn accept(&mut self, shard: usize) -> Option<usize> {
        if self.host.peers.len() >= PEERS_MAX {
            return None;
        }
        let shard = shard % self.host.shards.len();
        let slot = self.host.shards[shard].handle_accept(self.host.now_ms).expect("there is room");
        let accepted = self.host.shards[shard].clients().iter().find(|client| client.id.slot() == slot);
        let peer = Peer::new(shard, slot, accepted.expect("accepted").id);
        self.host.peers.push(peer);
        self.settle(shard, Step::Accepted(self.newest()));
        Some(self.newest())
    }

    /// The last who came.
    #[must_use]
    pub fn newest(&self) -> usize {
        self.host.peers.len().saturating_sub(1)
    }

    /// Somebody sends bytes, which are read in pieces; the rest of many in large ones.
    pub fn bytes(&mut self, peer: usize, bytes: &[u8], cuts: Cuts<'_>) {
        let Some(at) = self.present(peer) else { return };
        let mut bytes = bytes.to_vec();
        let cut_len = if cuts.are_none() { 0 } else { bytes.len().min(CUT_BYTES_MAX) };
        let (front, rest) = bytes.split_at_mut(cut_len);
        let front = if cut_len > 0 { cuts.pieces(front) } else { Vec::new() };
        let pieces = front.into_iter().map(|piece| piece.to_vec());
        let peer = &mut self.host.peers[at];
        if !peer.has_ended {
            peer.inbox.extend(pieces.chain(rest.chunks(READ_SCRATCH_BYTES).map(<[u8]>::to_vec)));
        }
        self.read(at);
    }

    /// Reads what somebody has sent, if it is to be read. True: something was.
    pub fn read(&mut self, peer: usize) -> bool {
        let Some(at) = self.present(peer) else { return false };
        let mut has_read = false;
        while self.may_read(at) && self.read_piece(at) {
            has_read = true;
        }
        has_read
    }

    fn may_read(&mut self, at: usize) -> bool {
        let peer = &self.host.peers[at];
        peer.is_there() && !peer.is_half_closed && !self.host.shards[peer.shard].is_paused(peer.slot)
    }

    fn read_piece(&mut self, at: usize) -> bool {
        if let Some(has_moved) = self.splice(at) {
            return has_moved;
        }
        let peer = &mut self.host.peers[at];
        let (shard, slot) = (peer.shard, peer.slot);
        if let Some(piece) = peer.inbox.pop_front() {
            peer.read_ms = if peer.is_cut { peer.read_ms } else { self.host.now_ms };
            self.host.shards[shard].handle_bytes(slot, &mut piece.clone(), self.host.now_ms);
            self.settle(shard, Step::Bytes(at, &piece));
            return true;
        }
        if !peer.has_ended {
            return false;
        }
        let lives_on = self.host.shards[shard].handle_end(slot, self.host.now_ms);
        self.host.peers[at].is_half_closed = lives_on;
        self.settle(shard, Step::Ended(at, lives_on));
        if !lives_on {
            self.gone(at);
        }
        true
    }

    /// Moves what a raw end has sent to its partner; nothing: that is not how it goes. False: there is no room.
    fn splice(&mut self, at: usize) -> Option<bool> {
        let peer = &mut self.host.peers[at];
        let (shard, slot) = (peer.shard, peer.slot);
        let target = self.host.shards[shard].splice_target(slot).filter(|_| self.host.setup.has_splices);
        let Some(to) = target.and_then(|to| self.host.holder(shard, to)) else {
            // The partner is gone, and what was on its way to it with it.
            self.host.peers[at].kernel_pipe.clear();
            return None;
        };
        if self.host.peers[at].kernel_pipe.is_empty() {
            self.host.peers[at].kernel_pipe = self.host.peers[at].inbox.pop_front()?;
        }
        let mut moved = std::mem::take(&mut self.host.peers[at].kernel_pipe);
        let count = self.host.peers[to].take(&moved);
        let has_all = count == moved.len();
        self.host.peers[at].kernel_pipe = moved.split_off(count);
        if has_all {
            self.host.shards[shard].handle_spliced(count);
        }
        self.settle(shard, Step::Spliced(at, &moved));
        Some(has_all)
    }

    /// Somebody sends nothing more.
    pub fn end(&mut self, peer: usize) {
        let Some(at) = self.present(peer) else { return };
        self.host.peers[at].has_ended = true;
        self.read(at);
    }

    /// Somebody's socket is closed.
    pub fn gone(&mut self, peer: usize) {
        let Some(at) = self.present(peer) else { return };
        let peer = &mut self.host.peers[at];
        let (shard, slot) = (peer.shard, peer.slot);
        if peer.is_moving {
            // It is found out where it arrives.
            peer.inbox.clear();
            peer.has_ended = true;
            return;
        }
        peer.is_gone = true;
        self.host.shards[shard].handle_gone(slot, self.host.now_ms);
        self.settle(shard, Step::Gone(at));
    }

    /// Writing to somebody fails.
    pub fn write_failed(&mut self, peer: usize) {
        let Some(at) = self.on_shard(peer) else { return };
        let Peer { shard, slot, .. } = self.host.peers[at];
        self.host.shards[shard].handle_write_failed(slot, self.host.now_ms);
        self.settle(shard, Step::Lost(at));
    }

    /// The server panics over somebody.
    pub fn panic(&mut self, peer: usize) {
        let Some(at) = self.on_shard(peer) else { return };
        let Peer { shard, slot, .. } = self.host.peers[at];
        self.host.shards[shard].handle_panic(slot, self.host.now_ms);
        self.settle(shard, Step::Lost(at));
    }

    /// Somebody's socket has room for so many bytes.
    pub fn set_room(&mut self, peer: usize, room: usize) {
        let Some(at) = self.present(peer) else { return };
        self.host.peers[at].room = room;
        let Peer { shard, slot, .. } = self.host.peers[at];
        if std::mem::take(&mut self.host.peers[at].is_blocked) && self.host.peers[at].is_there() {
            self.host.shards[shard].handle_writable(slot);
        }
    }

    /// Time passes.
    pub fn tick(&mut self, ms: u64) {
        self.host.now_ms += ms;
        for shard in 0..self.host.shards.len() {
            self.host.shards[shard].handle_tick(self.host.now_ms);
            self.settle(shard, Step::Time);
        }
    }

    /// The wall clock is set.
    pub fn set_clock(&mut self, unix_ms_at_start: u64) {
        self.host.unix_ms_at_start = unix_ms_at_start;
        self.host.shards.iter_mut().for_each(|shard| shard.set_clock(unix_ms_at_start));
    }

    /// A shard is told to shut down.
    pub fn shutdown(&mut self, shard: usize) {
        let shard = shard % self.host.shards.len();
        self.host.shards[shard].handle_shutdown(self.host.now_ms);
        self.settle(shard, Step::Shutdown(shard));
    }

    /// A shard sends what it has, as far as the sockets take it. True: something was sent.
    pub fn flush(&mut self, shard: usize) -> bool {
        let (shard, mut has_sent) = (shard % self.host.shards.len(), false);
        while let Some(slot) = self.host.shards[shard].poll_dirty() {
            let at = self.host.holder(shard, slot).expect("who is sent something is there");
            self.host.peers[at].write(&mut self.host.shards[shard], self.host.now_ms);
            self.settle(shard, Step::Sent(at));
            has_sent = true;
        }
        self.settle(shard, Step::Mail);
        has_sent
    }

    /// A shard hands its mail to the rings, as far as they have room.
    pub fn deliver(&mut self, shard: usize) {
        let count = self.host.shards.len();
        let from = shard % count;
        let (rings, entries) = (&mut self.host.rings, self.host.setup.ring_entries);
        self.host.shards[from].deliver_mail(|to, mail| {
            let ring = &mut rings[from * count + to.position()];
            if ring.len() >= entries {
                return Err(mail);
            }
            ring.push_back(mail);
            Ok(())
        });
        self.settle(from, Step::Mail);
        self.host.check_budget(from);
    }

    /// One piece of mail arrives.
    pub fn receive(&mut self, from: usize, to: usize) -> bool {
        let count = self.host.shards.len();
        let to = to % count;
        let mail: Option<Mail> = self.host.rings[from % count * count + to].pop_front();
        let Some(mail) = mail else { return false };
        self.host.shards[to].handle_mail(mail, self.host.now_ms);
        self.settle(to, Step::Mail);
        true
    }

    /// One of the sockets that move arrives where it moves to.
    pub fn arrive(&mut self, which: usize) -> bool {
        self.host.free_departed();
        let Some(flight) = which.checked_rem(self.host.flights.len()) else { return false };
        let flight = self.host.flights.remove(flight).expect("it is there");
        let (shard, now_ms) = (flight.to.position(), self.host.now_ms);
        let slot = self.host.shards[shard].handle_arrival(*flight.arrival, now_ms).expect("there is room");
        let arrived = self.host.shards[shard].clients().iter().find(|client| client.id.slot() == slot);
        let id = arrived.expect("it has arrived").id;
        let peer = &mut self.host.peers[flight.peer];
        (peer.shard, peer.slot, peer.id, peer.is_moving) = (shard, slot, id, false);
        // A move is told before anything is written there.
        peer.is_blocked = false;
        self.settle(shard, Step::Arrived(flight.peer));
        self.read(flight.peer);
        true
    }

    /// All mail and all sockets arrive, and what follows from it.
    pub fn drain_mail(&mut self) {
        let count = self.host.shards.len();
        let mut is_quiet = false;
        while !is_quiet {
            (0..count).for_each(|shard| self.deliver(shard));
            let has_moved = self.arrive(0);
            is_quiet = (0..count * count).all(|ring| !self.receive(ring / count, ring % count)) && !has_moved;
        }
        self.host.free_departed();
        self.judge.check_quiet(&self.host);
    }

    /// All is sent to those who take it, and all is read from those who are read from.
    pub fn drain(&mut self) {
        let mut is_quiet = false;
        while !is_quiet {
            self.drain_mail();
            let has_sent =
                (0..self.host.shards.len()).fold(false, |has_sent, shard| self.flush(shard) | has_sent);
            let has_read =
                (0..self.host.peers.len()).fold(false, |has_read, peer| self.read(peer) | has_read);
            is_quiet = !has_sent && !has_read;
        }
    }

    /// Everybody reads, all arrives; then all leave, and nothing may be left of them.
    pub fn finish(mut self) {
        (0..self.host.peers.len()).for_each(|peer| self.set_room(peer, usize::MAX));
        self.drain();
        self.wait_for_the_paused();
        self.judge.finish(&mut self.host);
        (0..self.host.peers.len()).for_each(|peer| self.gone(peer));
        self.drain_mail();
        for shard in &self.host.shards {
            assert!(shard.has_no_keys(), "keys that nobody holds");
            assert_eq!((shard.connections(), shard.waiting_in_queue()), (0, None), "who left is still there");
        }
        self.tick(self.host.settings.limits.room_timeout_ms + 1);
        assert_eq!(self.host.count(|counters| &counters.rooms), 0, "rooms that do not expire");
        for shard in &mut self.host.shards {
            assert_eq!(shard.buffer_bytes(), 0, "buffers that did not come back");
        }
    }

    /// Those who were not read from because others did not read are read from now, those who have sent too much in a
    /// while.
    fn wait_for_the_paused(&mut self) {
        for _ in 0..WINDOWS_MAX {
            let peers = 0..self.host.peers.len();
            let is_forgotten = peers.clone().any(|peer| self.host.waits_in_vain(peer));
            assert!(!is_forgotten, "somebody is not read from for nothing");
            if !peers.into_iter().any(|peer| self.host.waits_for_time(peer)) {
                return;
            }
            self.tick(1_100);
            self.drain();
        }
        panic!("somebody is never read from again");
    }

    /// The index of a peer whose socket is open, counted from a number as it comes.
    #[must_use]
    pub fn present(&self, peer: usize) -> Option<usize> {
        let at = peer.checked_rem(self.host.peers.len())?;
        (!self.host.peers[at].is_gone).then_some(at)
    }

    fn on_shard(&self, peer: usize) -> Option<usize> {
        self.present(peer).filter(|&at| self.host.peers[at].is_there())
    }

    /// After each input to a shard: does what it asks for, and has the judge look at it.
    fn settle(&mut self, shard: usize, step: Step<'_>) {
        let asked = self.host.poll_events(shard);
        if matches!(step, Step::Time) {
            self.host.note_timed_out(&asked);
        }
        self.host.check(shard, &asked);
        self.judge.observe(step, shard, &asked, &mut self.host);
        if !self.host.setup.has_late_moves {
            self.host.free_departed();
        }
    }
}
