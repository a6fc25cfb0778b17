//! A host of shards without sockets: what stands around them does what the fuzzer says, and checks what comes out.
//!
//! Between shards mail travels in rings of few entries, in order per pair of shards. A socket takes as many bytes as
//! it has room for, and no more until it is emptied.

use std::collections::VecDeque;
use std::sync::Arc;

use parlor::id::{ClientId, HostId, ShardIndex, Slot};
use parlor::limits::Limits;
use parlor::plant::Planted;
use parlor::protocol::Dialect;
use parlor::protocol::pairing::State;
use parlor::shard::clients::{Client, Stage};
use parlor::shard::mail::Mail;
use parlor::shard::{Event, Settings, Shard};
use parlor::wire::http::{Response, wants_keep_alive};

use crate::Cuts;
use crate::received::{Partner, Received};

/// What the server adds to a message that it relays, its header included, and a close frame.
const ADDED_BYTES_MAX: usize = 300;
/// Sockets that were accepted in one run; more are refused.
const PEERS_MAX: usize = 12;
/// So much of one message is cut into pieces: thousands of them take long and say no more.
const CUT_BYTES_MAX: usize = 100;

/// What a run is like.
#[derive(Debug)]
pub struct Setup {
    /// 1 to 3.
    pub shards: usize,
    /// `REQUEUE_ON_PARTNER_LEAVE`.
    pub requeue: bool,
    /// Entries of each ring.
    pub ring_entries: usize,
    /// All bounds.
    pub limits: Limits,
}

/// One socket.
#[derive(Debug)]
struct Peer {
    shard: usize,
    slot: Slot,
    id: ClientId,
    received: Received,
    /// Bytes that the socket still takes.
    room: usize,
    is_blocked: bool,
    /// The server has shut its side.
    is_finished: bool,
    /// The server has shut both sides.
    is_cut: bool,
    is_gone: bool,
}

/// The shards and all around them.
#[derive(Debug)]
pub struct World {
    settings: Arc<Settings>,
    ring_entries: usize,
    shards: Vec<Shard>,
    /// From each shard to each.
    rings: Vec<VecDeque<Mail>>,
    peers: Vec<Peer>,
    now_ms: u64,
}

impl World {
    /// Shards that nobody is connected to.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let settings = Arc::new(Settings {
            host: HostId(1),
            shards: setup.shards,
            limits: setup.limits,
            pairing: true,
            requeue_on_partner_leave: setup.requeue,
            allowed_origins: Vec::new(),
            allow_no_origin: false,
            echo_path: None,
            planted: Planted::default(),
        });
        let shard =
            |index: u8| Shard::new(ShardIndex(index), Arc::clone(&settings), Arc::default(), [index; 32], 0);
        Self {
            ring_entries: setup.ring_entries,
            shards: (0..setup.shards as u8).map(shard).collect(),
            rings: (0..setup.shards * setup.shards).map(|_| VecDeque::new()).collect(),
            settings,
            peers: Vec::new(),
            now_ms: 0,
        }
    }

    /// Somebody connects.
    pub fn accept(&mut self, shard: usize) {
        if self.peers.len() >= PEERS_MAX {
            return;
        }
        let shard = shard % self.shards.len();
        let slot = self.shards[shard].handle_accept(self.now_ms).expect("there is room");
        let id =
            self.shards[shard].clients().iter().find(|client| client.id.slot() == slot).expect("accepted").id;
        self.peers.push(Peer {
            shard,
            slot,
            id,
            received: Received::default(),
            room: usize::MAX,
            is_blocked: false,
            is_finished: false,
            is_cut: false,
            is_gone: false,
        });
        self.settle(shard);
    }

    /// The last who came.
    #[must_use]
    pub fn newest(&self) -> usize {
        self.peers.len().saturating_sub(1)
    }

    /// Somebody sends bytes, which are read in pieces; the rest of many in one.
    pub fn bytes(&mut self, peer: usize, bytes: &[u8], cuts: Cuts<'_>) {
        let Some(at) = self.present(peer) else { return };
        let Peer { shard, slot, .. } = self.peers[at];
        let mut bytes = bytes.to_vec();
        let cut_len = bytes.len().min(CUT_BYTES_MAX);
        let (front, rest) = bytes.split_at_mut(cut_len);
        for piece in cuts.pieces(front).into_iter().chain([rest]) {
            self.shards[shard].handle_bytes(slot, piece, self.now_ms);
            self.settle(shard);
        }
    }

    /// Somebody's socket is closed.
    pub fn gone(&mut self, peer: usize) {
        let Some(at) = self.present(peer) else { return };
        let Peer { shard, slot, .. } = self.peers[at];
        self.peers[at].is_gone = true;
        self.shards[shard].handle_gone(slot, self.now_ms);
        self.settle(shard);
    }

    /// Writing to somebody fails.
    pub fn write_failed(&mut self, peer: usize) {
        let Some(at) = self.present(peer) else { return };
        let Peer { shard, slot, .. } = self.peers[at];
        self.shards[shard].handle_write_failed(slot, self.now_ms);
        self.settle(shard);
    }

    /// The server panics over somebody.
    pub fn panic(&mut self, peer: usize) {
        let Some(at) = self.present(peer) else { return };
        let Peer { shard, slot, .. } = self.peers[at];
        self.shards[shard].handle_panic(slot, self.now_ms);
        self.settle(shard);
    }

    /// Somebody's socket has room for so many bytes.
    pub fn set_room(&mut self, peer: usize, room: usize) {
        let Some(at) = self.present(peer) else { return };
        let Peer { shard, slot, .. } = self.peers[at];
        self.peers[at].room = room;
        if std::mem::take(&mut self.peers[at].is_blocked) {
            self.shards[shard].handle_writable(slot);
        }
    }

    /// Time passes.
    pub fn tick(&mut self, ms: u64) {
        self.now_ms += ms;
        for shard in 0..self.shards.len() {
            self.shards[shard].handle_tick(self.now_ms);
            self.settle(shard);
        }
    }

    /// A shard is told to shut down.
    pub fn shutdown(&mut self, shard: usize) {
        let shard = shard % self.shards.len();
        self.shards[shard].handle_shutdown(self.now_ms);
        self.settle(shard);
    }

    /// A shard sends what it has, as far as the sockets take it.
    pub fn flush(&mut self, shard: usize) {
        let shard = shard % self.shards.len();
        while let Some(slot) = self.shards[shard].poll_dirty() {
            let peer = holder(&mut self.peers, shard, slot).expect("who is sent something is there");
            write(&mut self.shards[shard], peer);
            self.settle(shard);
        }
        self.settle(shard);
    }

    /// A shard hands its mail to the rings, as far as they have room.
    pub fn deliver(&mut self, shard: usize) {
        let count = self.shards.len();
        let from = shard % count;
        let (rings, entries) = (&mut self.rings, self.ring_entries);
        self.shards[from].deliver_mail(|to, mail| {
            let ring = &mut rings[from * count + to.position()];
            if ring.len() >= entries {
                return Err(mail);
            }
            ring.push_back(mail);
            Ok(())
        });
        let waiting = self.shards[from].counters().mail_waiting.value() as usize;
        let budget = self.settings.limits.shard_buffer_bytes + waiting * size_of::<Mail>();
        assert!(self.shards[from].buffer_bytes() <= budget, "over the budget");
    }

    /// One piece of mail arrives.
    pub fn receive(&mut self, from: usize, to: usize) -> bool {
        let count = self.shards.len();
        let to = to % count;
        let Some(mail) = self.rings[from % count * count + to].pop_front() else { return false };
        self.shards[to].handle_mail(mail, self.now_ms);
        self.settle(to);
        true
    }

    /// All mail arrives, and what follows from it; then everybody's partner must have them as its partner, and who
    /// waits must be in the queue.
    pub fn drain_mail(&mut self) {
        let count = self.shards.len();
        let mut is_quiet = false;
        while !is_quiet {
            (0..count).for_each(|shard| self.deliver(shard));
            is_quiet = (0..count * count).all(|ring| !self.receive(ring / count, ring % count));
        }
        self.check_quiet();
    }

    /// Everybody reads, all mail arrives; then all leave, and nothing may be left of them.
    pub fn finish(mut self) {
        self.drain_mail();
        (0..self.peers.len()).for_each(|peer| self.set_room(peer, usize::MAX));
        (0..self.shards.len()).for_each(|shard| self.flush(shard));
        for peer in &self.peers {
            peer.received.check(peer.id, !peer.is_gone && !peer.is_cut);
        }
        (0..self.peers.len()).for_each(|peer| self.gone(peer));
        self.drain_mail();
        for shard in &mut self.shards {
            let counters = shard.counters();
            let counted = (counters.connections.value(), counters.clients.value());
            assert_eq!((shard.connections(), counted), (0, (0, 0)), "connections and clients");
            assert_eq!(shard.waiting_in_queue(), None, "who left is in the queue");
            assert_eq!(shard.buffer_bytes(), 0, "buffers that did not come back");
        }
    }

    /// The index of a peer that is there, counted from a number as it comes.
    fn present(&self, peer: usize) -> Option<usize> {
        let at = peer.checked_rem(self.peers.len())?;
        (!self.peers[at].is_gone).then_some(at)
    }

    /// After each input to a shard: does what it asks for, and notes whom it has with whom.
    fn settle(&mut self, shard: usize) {
        while let Some(event) = self.shards[shard].poll_event() {
            match event {
                Event::Request { slot, head } => {
                    let keep_alive = wants_keep_alive(&head);
                    let answer = Response::text(http::StatusCode::OK, "ok".into()).emit(false, keep_alive);
                    self.shards[shard].handle_response(slot, &answer, keep_alive);
                }
                Event::FinishWriting(slot) => self.at(shard, slot, |peer| peer.is_finished = true),
                Event::Cut(slot) => self.at(shard, slot, |peer| peer.is_cut = true),
            }
        }
        let outbox_max = self.settings.limits.outbox_bytes_max.max(self.settings.limits.message_bytes_max);
        for peer in self.peers.iter_mut().filter(|peer| peer.shard == shard && !peer.is_gone && !peer.is_cut)
        {
            let client = client(&self.shards[shard], peer.id).expect("who is there is in the table");
            let waiting = client.outbox.len();
            assert!(waiting <= outbox_max + ADDED_BYTES_MAX, "an outbox of {waiting} bytes");
            assert!(waiting == 0 || !peer.is_finished, "{waiting} bytes behind the end");
            peer.received.mark(waiting, partner(client));
        }
    }

    fn at(&mut self, shard: usize, slot: Slot, act: impl FnOnce(&mut Peer)) {
        if let Some(peer) = holder(&mut self.peers, shard, slot) {
            act(peer);
        }
    }

    fn check_quiet(&self) {
        let clients = || self.shards.iter().flat_map(|shard| shard.clients().iter());
        for one in clients() {
            let Some((room, other)) = partner(one) else { continue };
            let other = clients().find(|client| client.id == other).and_then(partner);
            assert_eq!(other, Some((room, one.id)), "paired, but not the other way round");
        }
        let waiting: Vec<ClientId> =
            clients().filter(|one| pairing(one).is_some_and(State::is_waiting)).map(|one| one.id).collect();
        let queue: Vec<ClientId> = self.shards.iter().filter_map(Shard::waiting_in_queue).collect();
        assert_eq!(waiting, queue, "those who wait, and the queue");
        assert!(queue.len() <= 1, "two wait who are not matched");
    }
}

/// Whose slot it is at the moment.
fn holder(peers: &mut [Peer], shard: usize, slot: Slot) -> Option<&mut Peer> {
    peers.iter_mut().find(|peer| peer.shard == shard && peer.slot == slot && !peer.is_gone)
}

/// Writes until the outbox is empty or the socket full.
fn write(shard: &mut Shard, peer: &mut Peer) {
    assert!(!peer.is_blocked && !peer.is_finished && !peer.is_cut, "nothing can be sent there");
    loop {
        let waiting: Vec<u8> =
            shard.gather(peer.slot).iter().flat_map(|piece| piece.iter().copied()).collect();
        if waiting.is_empty() {
            return;
        }
        let count = waiting.len().min(peer.room);
        peer.room -= count;
        peer.received.push(&waiting[..count]);
        if count > 0 {
            shard.handle_sent(peer.slot, count);
        }
        if count < waiting.len() {
            peer.is_blocked = true;
            return shard.handle_blocked(peer.slot);
        }
    }
}

fn client(shard: &Shard, id: ClientId) -> Option<&Client> {
    shard.clients().iter().find(|client| client.id == id)
}

fn pairing(client: &Client) -> Option<&State> {
    match &client.stage {
        Stage::Open(Dialect::Pairing(state)) => Some(state),
        _ => None,
    }
}

fn partner(client: &Client) -> Partner {
    pairing(client).and_then(State::partner)
}
