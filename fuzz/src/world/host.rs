//! The shards of a host and all that a judge may look at: their sockets, what they ask for, and what holds after each
//! step whatever is spoken.

use std::collections::VecDeque;
use std::sync::Arc;

use parlor::id::{ClientId, HostId, ShardIndex, Slot};
use parlor::limits::{Limits, PIPE_OUTBOX_BYTES_HIGH, READ_SCRATCH_BYTES};
use parlor::plant::Planted;
use parlor::protocol::pipe::Places;
use parlor::shard::arrival::Arrival;
use parlor::shard::clients::{Client, Stage};
use parlor::shard::dialects::Dialect;
use parlor::shard::mail::Mail;
use parlor::shard::pausing::Reason;
use parlor::shard::{Event, Offered, Settings, Shard};
use parlor::wire::http::{Response, wants_keep_alive};

use super::peer::{Peer, gathered};

/// What the server adds to a message that it relays, its header included, and a close frame.
const ADDED_BYTES_MAX: usize = 600;

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
    /// Sockets arrive where they move to only when they are told to.
    pub has_late_moves: bool,
    /// Raw bytes are moved past the shard where they may.
    pub has_splices: bool,
    /// The clock at the start.
    pub start_ms: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            shards: 1,
            requeue: true,
            ring_entries: 8,
            limits: Limits::default(),
            has_late_moves: false,
            has_splices: false,
            start_ms: 0,
        }
    }
}

/// What a shard has asked for, of whose socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It moves to another shard.
    Move(usize),
    /// It is read from again.
    Resume(usize),
    /// Its writing side is shut.
    Finish(usize),
    /// Both sides are shut.
    Cut(usize),
}

/// A socket on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) peer: usize,
    pub(super) to: ShardIndex,
    pub(super) arrival: Box<Arrival>,
}

/// The shards, and the sockets of those who have connected.
#[derive(Debug)]
pub struct Host {
    /// What the shards know of the configuration.
    pub settings: Arc<Settings>,
    /// The shards.
    pub shards: Vec<Shard>,
    /// All sockets that ever were.
    pub peers: Vec<Peer>,
    /// The clock.
    pub now_ms: u64,
    /// The wall clock at the moment that the clock counts from.
    pub unix_ms_at_start: u64,
    pub(super) setup: Setup,
    /// From each shard to each.
    pub(super) rings: Vec<VecDeque<Mail>>,
    pub(super) flights: VecDeque<Flight>,
    /// Slots whose sockets have moved and that are not free yet.
    departed: Vec<(usize, Slot)>,
}

impl Host {
    pub(super) fn new(setup: Setup) -> Self {
        let settings = Arc::new(Settings {
            host: HostId(1),
            shards: setup.shards,
            limits: setup.limits.clone(),
            offered: Offered::ALL,
            key_seed: [1, 2, 3, 4],
            has_cluster: false,
            requeue_on_partner_leave: setup.requeue,
            allowed_origins: Vec::new(),
            allow_no_origin: false,
            echo_path: None,
            held_pipes: Arc::new(Places::new(setup.limits.held_pipes_max)),
            planted: Planted::default(),
        });
        let shard = |index: u8| {
            let (here, settings) = (ShardIndex(index), Arc::clone(&settings));
            Shard::new(here, settings, Arc::default(), [index; 32], setup.start_ms)
        };
        Self {
            shards: (0..setup.shards as u8).map(shard).collect(),
            peers: Vec::new(),
            now_ms: setup.start_ms,
            unix_ms_at_start: 0,
            rings: (0..setup.shards * setup.shards).map(|_| VecDeque::new()).collect(),
            flights: VecDeque::new(),
            departed: Vec::new(),
            settings,
            setup,
        }
    }

    /// What its shard knows of a peer.
    #[must_use]
    pub fn client(&self, peer: usize) -> Option<&Client> {
        let peer = &self.peers[peer];
        self.client_of(peer.shard, peer.id).filter(|_| peer.is_there())
    }

    /// The dialect that a peer speaks.
    #[must_use]
    pub fn dialect(&self, peer: usize) -> Option<&Dialect> {
        match &self.client(peer)?.stage {
            Stage::Open(dialect) => Some(dialect),
            _ => None,
        }
    }

    /// Bytes that wait for a peer.
    #[must_use]
    pub fn waiting(&self, peer: usize) -> usize {
        self.client(peer).map_or(0, |client| client.outbox.len())
    }

    /// All that a peer was sent, and what waits for it as far as one write takes it.
    pub fn said(&mut self, peer: usize) -> Vec<u8> {
        let Peer { shard, slot, .. } = self.peers[peer];
        let mut said = self.peers[peer].received.clone();
        if self.peers[peer].is_there() {
            said.extend(gathered(&mut self.shards[shard], slot));
        }
        said
    }

    /// The peer with this id at the moment.
    #[must_use]
    pub fn peer_of(&self, id: ClientId) -> Option<usize> {
        self.peers.iter().position(|peer| peer.is_there() && peer.id == id)
    }

    /// The sum of a number over all shards.
    #[must_use]
    pub fn count(&self, number: impl Fn(&parlor::metrics::Counters) -> &parlor::metrics::Number) -> u64 {
        self.shards.iter().map(|shard| number(shard.counters()).value()).sum()
    }

    /// Frees the slots of sockets that have moved.
    pub(super) fn free_departed(&mut self) {
        for (shard, slot) in self.departed.drain(..) {
            self.shards[shard].handle_gone(slot, self.now_ms);
        }
    }

    /// Does what a shard asks for.
    pub(super) fn poll_events(&mut self, shard: usize) -> Vec<Asked> {
        let mut asked = Vec::new();
        while let Some(event) = self.shards[shard].poll_event() {
            match event {
                Event::Request { slot, head, .. } => {
                    let keep_alive = wants_keep_alive(&head);
                    let answer = Response::text(http::StatusCode::OK, "ok".into()).emit(false, keep_alive);
                    self.shards[shard].handle_response(slot, &answer, keep_alive);
                }
                Event::Move { slot, to, arrival } => asked.extend(self.depart(shard, slot, to, arrival)),
                Event::Resume(slot) => asked.extend(self.holder(shard, slot).map(Asked::Resume)),
                Event::OpenedRaw(slot) => {
                    let peer = self.holder(shard, slot).expect("who is opened is there");
                    self.peers[peer].is_raw = true;
                }
                Event::FinishWriting(slot) => {
                    let Some(peer) = self.holder(shard, slot) else { continue };
                    assert_eq!(self.waiting(peer), 0, "bytes behind the end");
                    self.peers[peer].is_finished = true;
                    asked.push(Asked::Finish(peer));
                }
                Event::Cut(slot) | Event::Reset(slot) => {
                    let Some(peer) = self.holder(shard, slot) else { continue };
                    self.peers[peer].is_cut = true;
                    asked.push(Asked::Cut(peer));
                }
            }
        }
        asked
    }

    fn depart(&mut self, shard: usize, slot: Slot, to: ShardIndex, arrival: Box<Arrival>) -> Option<Asked> {
        let peer = self.holder(shard, slot)?;
        assert_ne!(to.position(), shard, "it is there already");
        self.peers[peer].is_moving = true;
        self.flights.push_back(Flight { peer, to, arrival });
        self.departed.push((shard, slot));
        Some(Asked::Move(peer))
    }

    /// Whose slot it is at the moment.
    pub(super) fn holder(&self, shard: usize, slot: Slot) -> Option<usize> {
        self.peers.iter().position(|peer| peer.shard == shard && peer.slot == slot && peer.is_there())
    }

    /// Time has passed, and these are cut for it.
    pub(super) fn note_timed_out(&mut self, asked: &[Asked]) {
        for asked in asked {
            if let Asked::Cut(peer) = *asked {
                self.peers[peer].timed_out_ms = Some(self.now_ms);
            }
        }
    }

    /// What holds after each step.
    pub(super) fn check(&mut self, shard: usize, asked: &[Asked]) {
        self.check_gauges(shard);
        for at in 0..self.peers.len() {
            if self.peers[at].shard == shard && self.peers[at].is_there() {
                self.check_pause(at, asked);
                self.check_outbox(at);
            }
        }
    }

    /// What holds when mail was handed on: only that which waits may be over the budget.
    pub(super) fn check_budget(&mut self, shard: usize) {
        let shard = &mut self.shards[shard];
        let waiting = shard.counters().mail_waiting.value() as usize;
        let budget = self.settings.limits.shard_buffer_bytes + waiting * size_of::<Mail>() + ADDED_BYTES_MAX;
        assert!(shard.buffer_bytes() <= budget, "over the budget");
    }

    fn check_gauges(&self, shard: usize) {
        let shard = &self.shards[shard];
        let count = |is_it: fn(&Dialect) -> bool| {
            let stages = shard.clients().iter().map(|client| &client.stage);
            stages.filter(|stage| matches!(stage, Stage::Open(dialect) if is_it(dialect))).count() as u64
        };
        let counters = shard.counters();
        assert_eq!(counters.connections.value(), shard.connections() as u64, "connections");
        assert_eq!(counters.clients.value(), count(|_| true), "clients");
        let rendezvous = count(|dialect| matches!(dialect, Dialect::Rendezvous(_)));
        assert_eq!(counters.rendezvous_clients.value(), rendezvous, "rendezvous clients");
        let names = shard.directory_names().count() as u64;
        assert_eq!(counters.directory_clients.value(), names, "names in the directory");
        let held = count(|dialect| matches!(dialect, Dialect::Pipe(pipe) if pipe.partner().is_none()));
        assert_eq!(counters.pipes_held.value(), held, "pipes that are held");
    }

    /// Who is read from again is told so.
    fn check_pause(&mut self, at: usize, asked: &[Asked]) {
        let Peer { shard, slot, .. } = self.peers[at];
        let is_paused = self.shards[shard].is_paused(slot);
        let was_paused = std::mem::replace(&mut self.peers[at].is_paused, is_paused);
        let is_told = asked.contains(&Asked::Resume(at)) || asked.contains(&Asked::Cut(at));
        assert!(!was_paused || is_paused || is_told, "read from again, but nobody is told");
    }

    fn check_outbox(&self, at: usize) {
        let client = self.client(at).expect("who is there is in the table");
        let (waiting, max) = (client.outbox.len(), outbox_bytes_max(client, &self.settings.limits));
        assert!(waiting <= max + ADDED_BYTES_MAX, "an outbox of {waiting} bytes");
        assert!(waiting == 0 || !self.peers[at].is_finished, "{waiting} bytes behind the end");
    }

    /// Whether a peer is not read from although all was sent to its partner.
    pub(super) fn waits_in_vain(&self, at: usize) -> bool {
        let is_joined = matches!(self.dialect(at), Some(Dialect::Pipe(pipe)) if pipe.partner().is_some());
        let is_paused = |reason| self.client(at).is_some_and(|client| client.paused.has(reason));
        is_paused(Reason::Partner) || is_paused(Reason::Hold) && is_joined
    }

    /// Whether a peer is not read from until its window ends.
    pub(super) fn waits_for_time(&self, at: usize) -> bool {
        self.client(at).is_some_and(|client| client.paused.has(Reason::Rate))
    }

    fn client_of(&self, shard: usize, id: ClientId) -> Option<&Client> {
        self.shards[shard].clients().iter().find(|client| client.id == id)
    }
}

/// One message into an empty outbox always passes. What is told of many documents may be longer than any message.
fn outbox_bytes_max(client: &Client, limits: &Limits) -> usize {
    match &client.stage {
        Stage::Open(Dialect::Pairing(_)) => limits.outbox_bytes_max.max(limits.message_bytes_max),
        Stage::Open(Dialect::Pipe(_)) => {
            PIPE_OUTBOX_BYTES_HIGH.max(limits.pipe_hold_bytes) + 2 * READ_SCRATCH_BYTES
        }
        _ => limits.outbox_bytes_max.max(1 << 20),
    }
}
