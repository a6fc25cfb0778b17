//! One host: its shards, its cluster, and the mail between them, which is in order and late.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::links::{Happening, Links};
use super::setup::Setup;
use crate::cluster::{self, Cluster, Output};
use crate::id::{HostId, ShardIndex, Slot};
use crate::metrics::{ClusterMetrics, Counters};
use crate::shard::arrival::Arrival;
use crate::shard::mail::{Mail, Parcel};
use crate::shard::{Event, Settings, Shard};
use crate::simulator::chance::Chance;
use crate::simulator::checks::fail;
use crate::simulator::world::RESPONSE;
use crate::wire::http::wants_keep_alive;

/// Between a shard and the cluster a ring holds so much; the rest waits at the sender.
const RING_ENTRIES: usize = 4;
/// The cluster is told the time so often.
const TICK_MS: u64 = 100;

/// What becomes of a client's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It lives in this slot of this shard from now on.
    Moved(usize, Slot),
    /// Both sides are shut, or the server's.
    Over,
}

/// One host, until it is killed.
pub(super) struct Host {
    pub(super) id: HostId,
    pub(super) shards: Vec<Shard>,
    pub(super) cluster: Cluster,
    pub(super) links: Links,
    /// It stands still until then.
    pub(super) paused_until_ms: u64,
    /// From each shard to each.
    rings: Vec<VecDeque<Mail>>,
    to_cluster: Vec<VecDeque<Parcel>>,
    from_cluster: Vec<VecDeque<cluster::FromCluster>>,
    /// Sockets on their way: whose, and where to.
    flights: VecDeque<(usize, ShardIndex, Box<Arrival>)>,
    /// Which client is in which slot, by shard.
    slots: Vec<Vec<Option<usize>>>,
    ticked_ms: u64,
    /// When each shard is to be reminded, if it wants to be.
    reminders: Vec<Option<u64>>,
    pub(super) metrics: Arc<ClusterMetrics>,
    trace: Option<fn(std::fmt::Arguments<'_>)>,
}

impl Host {
    pub(super) fn new(id: HostId, listener: usize, setup: &Setup, chance: &mut Chance, now_ms: u64) -> Self {
        let shards = setup.shards;
        let settings: Arc<Settings> = Arc::new(setup.settings(id, chance));
        let shard = |index| {
            let (here, counters) = (ShardIndex(index as u8), Arc::new(Counters::default()));
            let mut shard = Shard::new(here, Arc::clone(&settings), counters, chance.bytes(), now_ms);
            shard.set_clock(setup.unix_ms_at_start);
            shard
        };
        let all: Vec<Shard> = (0..shards).map(shard).collect();
        let metrics: Arc<ClusterMetrics> = Arc::default();
        let cluster = cluster::Settings {
            host: id,
            start: setup.unix_ms_at_start + now_ms,
            shards,
            has_public_layouts: setup.has_public_layouts,
            seed: chance.bytes(),
            planted: setup.planted,
        };
        Self {
            id,
            shards: all,
            cluster: Cluster::new(&cluster, Arc::clone(&metrics), now_ms),
            links: Links::new(listener, setup.trace),
            paused_until_ms: 0,
            rings: (0..shards * shards).map(|_| VecDeque::new()).collect(),
            to_cluster: (0..shards).map(|_| VecDeque::new()).collect(),
            from_cluster: (0..shards).map(|_| VecDeque::new()).collect(),
            flights: VecDeque::new(),
            slots: vec![Vec::new(); shards],
            ticked_ms: now_ms,
            reminders: vec![None; shards],
            metrics,
            trace: setup.trace,
        }
    }

    pub(super) fn is_running(&self, now_ms: u64) -> bool {
        now_ms >= self.paused_until_ms
    }

    /// Somebody connects.
    pub(super) fn accept(&mut self, client: usize, shard: usize, now_ms: u64) -> Slot {
        let Some(slot) = self.shards[shard].handle_accept(now_ms) else { fail("no slot is free") };
        self.put(shard, slot, client);
        slot
    }

    /// A client's bytes are read, if they are to be read. False: not now.
    pub(super) fn read(&mut self, shard: usize, slot: Slot, bytes: &[u8], now_ms: u64) -> bool {
        if self.shards[shard].is_paused(slot) || self.shards[shard].is_reading_paused() {
            return false;
        }
        self.shards[shard].handle_bytes(slot, &mut bytes.to_vec(), now_ms);
        true
    }

    /// A client's socket is closed.
    pub(super) fn gone(&mut self, shard: usize, slot: Slot, now_ms: u64) {
        self.slots[shard][slot.0 as usize] = None;
        self.shards[shard].handle_gone(slot, now_ms);
    }

    /// What the shard asks for, of which client.
    pub(super) fn poll_events(&mut self, shard: usize, now_ms: u64) -> Vec<(usize, Fate)> {
        let mut fates = Vec::new();
        while let Some(event) = self.shards[shard].poll_event() {
            match event {
                Event::Request { slot, head, .. } => {
                    self.shards[shard].handle_response(slot, RESPONSE, wants_keep_alive(&head));
                }
                Event::Move { slot, to, arrival } => {
                    if let Some(client) = self.slots[shard][slot.0 as usize].take() {
                        self.flights.push_back((client, to, arrival));
                    }
                    self.shards[shard].handle_gone(slot, now_ms);
                }
                Event::FinishWriting(slot) | Event::Cut(slot) | Event::Reset(slot) => {
                    fates.extend(self.holder(shard, slot).map(|client| (client, Fate::Over)));
                }
                Event::Resume(_) | Event::OpenedRaw(_) => {}
            }
        }
        fates
    }

    /// Sockets arrive where they move to.
    pub(super) fn land(&mut self, now_ms: u64) -> Option<(usize, Fate)> {
        let (client, to, arrival) = self.flights.pop_front()?;
        let shard = to.position();
        let Some(slot) = self.shards[shard].handle_arrival(*arrival, now_ms) else { fail("no slot is free") };
        self.put(shard, slot, client);
        Some((client, Fate::Moved(shard, slot)))
    }

    /// Clients whose sockets are on their way.
    pub(super) fn moving(&self) -> impl Iterator<Item = usize> {
        self.flights.iter().map(|(client, ..)| *client)
    }

    /// What is sent, and to whom.
    pub(super) fn flush(&mut self, shard: usize) -> Vec<(usize, Vec<u8>)> {
        let mut sent = Vec::new();
        while let Some(slot) = self.shards[shard].poll_dirty() {
            let Some(client) = self.holder(shard, slot) else { fail("bytes for nobody") };
            let mut bytes = Vec::new();
            loop {
                let pieces: Vec<u8> =
                    self.shards[shard].gather(slot).iter().flat_map(|piece| piece.iter().copied()).collect();
                if pieces.is_empty() {
                    break;
                }
                self.shards[shard].handle_sent(slot, pieces.len());
                bytes.extend(pieces);
            }
            sent.push((client, bytes));
        }
        sent
    }

    /// A shard is told the time, and reminded of what it wanted to be reminded of.
    pub(super) fn tick(&mut self, shard: usize, now_ms: u64) {
        self.shards[shard].handle_tick(now_ms);
        if self.reminders[shard].is_some_and(|due_ms| due_ms <= now_ms) {
            self.reminders[shard] = None;
            self.shards[shard].handle_reminder(now_ms);
        }
        if let Some(after_ms) = self.shards[shard].poll_reminder() {
            self.reminders[shard].get_or_insert(now_ms + after_ms);
        }
    }

    /// A shard's mail goes into the rings.
    pub(super) fn deliver(&mut self, shard: usize) {
        let count = self.shards.len();
        let (rings, outgoing) = (&mut self.rings, &mut self.to_cluster[shard]);
        self.shards[shard].deliver_mail(|to, mail| {
            rings[shard * count + to.position()].push_back(mail);
            Ok(())
        });
        self.shards[shard].deliver_cluster_mail(|parcel| {
            if outgoing.len() >= RING_ENTRIES {
                return Err(parcel);
            }
            outgoing.push_back(parcel);
            Ok(())
        });
    }

    /// One piece of mail from another shard, or from the cluster, arrives at a shard. False: there is none.
    pub(super) fn take_mail(&mut self, shard: usize, from: usize, now_ms: u64) -> bool {
        let count = self.shards.len();
        if from == count {
            let Some(mail) = self.from_cluster[shard].pop_front() else { return false };
            self.shards[shard].handle_cluster_mail(mail, now_ms);
            return true;
        }
        let Some(mail) = self.rings[from * count + shard].pop_front() else { return false };
        self.shards[shard].handle_mail(mail, now_ms);
        true
    }

    /// The cluster takes its turn: mail of the shards, what Redis says, and the time. Says whether there was anything.
    pub(super) fn turn_cluster(
        &mut self,
        chance: &mut Chance,
        late_ms: u64,
        is_calm: bool,
        now_ms: u64,
    ) -> bool {
        let mut has_worked = false;
        if now_ms >= self.ticked_ms + TICK_MS {
            (self.ticked_ms, has_worked) = (now_ms, true);
            self.cluster.handle_tick(now_ms);
            self.drain(now_ms + late_ms);
        }
        for shard in 0..self.shards.len() {
            while is_calm || !chance.one_in(8) {
                let Some(parcel) = self.to_cluster[shard].pop_front() else { break };
                self.cluster.handle_mail(ShardIndex(shard as u8), parcel.mail, now_ms);
                self.drain(now_ms + late_ms);
                has_worked = true;
            }
        }
        self.cluster.handle_turn_end();
        self.drain(now_ms + late_ms);
        while is_calm || !chance.one_in(16) {
            let Some(happening) = self.links.poll(now_ms) else { break };
            self.handle(happening, now_ms);
            self.drain(now_ms + late_ms);
            has_worked = true;
        }
        has_worked
    }

    /// The server stops: clients are closed, and the others are told.
    pub(super) fn shut_down(&mut self, late_ms: u64, now_ms: u64) {
        self.cluster.handle_shutdown(now_ms);
        self.drain(now_ms + late_ms);
        for shard in &mut self.shards {
            shard.handle_shutdown(now_ms);
        }
    }

    /// What is still under way; empty when all has come to rest.
    pub(super) fn under_way(&self) -> String {
        let count = |len: usize, what: &str| if len == 0 { String::new() } else { format!("{len} {what} ") };
        let rings: usize = self.rings.iter().map(VecDeque::len).sum();
        let to_cluster: usize = self.to_cluster.iter().map(VecDeque::len).sum();
        let from_cluster: usize = self.from_cluster.iter().map(VecDeque::len).sum();
        [
            self.links.under_way(),
            count(self.flights.len(), "sockets"),
            count(rings, "mail"),
            count(to_cluster, "to the cluster"),
            count(from_cluster, "from the cluster"),
        ]
        .concat()
    }

    fn handle(&mut self, happening: Happening, now_ms: u64) {
        if let Some(print) = self.trace {
            print(format_args!("{now_ms} host {} is told {happening}", self.id));
        }
        match happening {
            Happening::Connected(connection) => self.cluster.handle_connected(connection, now_ms),
            Happening::Disconnected(connection) => self.cluster.handle_disconnected(connection, now_ms),
            Happening::Reply(token, reply) => self.cluster.handle_reply(token, &reply, now_ms),
            Happening::Subscribed(channel) => self.cluster.handle_subscribed(&channel, now_ms),
            Happening::Push(channel, payload) => {
                self.cluster.handle_push(&channel, &Bytes::from(payload), now_ms);
            }
        }
    }

    /// Carries out what the cluster asks for; what goes to Redis arrives there at `due_ms`.
    fn drain(&mut self, due_ms: u64) {
        while let Some(output) = self.cluster.poll_output() {
            match output {
                Output::Command { token, command } => self.links.command(token, command, due_ms),
                Output::Subscribe(channel) => self.links.subscribe(channel, due_ms),
                Output::Unsubscribe(channel) => self.links.unsubscribe(channel, due_ms),
                Output::Resubscribe => self.links.wants_resubscription = true,
                Output::Mail { to, mail } => self.from_cluster[to.position()].push_back(mail),
                Output::Remark(remark) => {
                    if let Some(print) = self.trace {
                        print(format_args!("{due_ms} host {} remarks {remark:?}", self.id));
                    }
                }
            }
        }
    }

    fn put(&mut self, shard: usize, slot: Slot, client: usize) {
        let slots = &mut self.slots[shard];
        slots.resize(slots.len().max(slot.0 as usize + 1), None);
        if slots[slot.0 as usize].replace(client).is_some() {
            fail("a slot was given twice");
        }
    }

    fn holder(&self, shard: usize, slot: Slot) -> Option<usize> {
        self.slots[shard].get(slot.0 as usize).copied().flatten()
    }
}
