//! The course of a run: clients come, act and go while faults happen; the faults end; all must come to know what is so.

use std::collections::BTreeSet;

use super::client::{Client, Voice};
use super::host::Fate;
use super::redis::{Published, Redis};
use super::setup::{Setup, Spoken};
use super::{Fleet, Summary};
use super::{directory, introductions, pairing, pipes, rendezvous, rooms};
use crate::simulator::Options;
use crate::simulator::chance::Chance;
use crate::simulator::checks::fail;
use crate::simulator::world::trace;

/// After the faults all has come to rest in so many milliseconds: longer than it takes to give a host up, and than
/// anything is waited for.
const REST_MS: u64 = 20_000;
/// What is said then arrives in so many.
const GREETING_MS: u64 = 6_000;
/// One step of either.
const STEP_MS: u64 = 50;
/// Turns within a step, after which nothing may be under way that does not wait for time.
const TURNS_MAX: usize = 2_000;
/// A fault is noticed, and what follows from it done, in so many milliseconds.
const FAULT_MS: u64 = 15_000;

impl Fleet {
    pub(super) fn new(seed: u64, options: &Options) -> Self {
        let mut chance = Chance::new(seed);
        let setup = Setup::draw(&mut chance, options);
        let now_ms = 1_000 + chance.below(1 << 20) as u64;
        let mut fleet = Self {
            hosts: (0..setup.hosts).map(|_| None).collect(),
            players: vec![None; setup.players],
            setup,
            chance,
            redis: Redis::new(),
            redis_back_ms: 0,
            listeners: 0,
            clients: Vec::new(),
            now_ms,
            fault_ms: now_ms,
            is_calm: false,
            summary: Summary::default(),
            trace: options.trace,
        };
        for host in 0..fleet.hosts.len() {
            fleet.start(host);
        }
        fleet
    }

    pub(super) fn run(&mut self) {
        for _ in 0..self.setup.rounds {
            self.play_round();
        }
        self.calm();
        self.pass(REST_MS);
        self.set_out();
        self.greet();
        self.pass(GREETING_MS);
        self.check_at_rest();
        self.end();
        self.count();
    }

    fn play_round(&mut self) {
        let ms = match self.chance.below(12) {
            0 => self.chance.between(50..=1_500),
            _ => self.chance.below(25),
        };
        self.advance(ms as u64);
        if self.chance.one_in(self.setup.fault) {
            self.fault();
        }
        for player in 0..self.players.len() {
            if self.chance.one_in(5) {
                self.play(player);
            }
        }
        self.turn();
    }

    fn advance(&mut self, ms: u64) {
        self.now_ms += ms;
        self.redis.set_time(self.setup.unix_ms_at_start + self.now_ms);
    }

    /// A player connects, acts, or goes.
    fn play(&mut self, player: usize) {
        let current = self.players[player].filter(|client| self.clients[*client].is_there());
        let Some(client) = current else {
            if self.chance.one_in(3) {
                self.players[player] = self.connect();
            }
            return;
        };
        match self.chance.below(60) {
            0 => self.clients[client].close(&mut self.chance),
            1 => self.drop_client(client),
            _ => self.act(client),
        }
    }

    fn connect(&mut self) -> Option<usize> {
        let at = self.chance.below(self.hosts.len());
        let host = self.hosts[at].as_mut().filter(|host| host.is_running(self.now_ms))?;
        let shard = self.chance.below(host.shards.len());
        let index = self.clients.len();
        let slot = host.accept(index, shard, self.now_ms);
        let mut client = Client::new(at, &self.setup, &mut self.chance, self.now_ms);
        client.place = Some((shard, slot));
        self.clients.push(client);
        trace!(self, "{} client {index} connects to host {at}, shard {shard}", self.now_ms);
        Some(index)
    }

    fn act(&mut self, client: usize) {
        let rooms: BTreeSet<u16> = match self.setup.spoken {
            Spoken::Rooms => self.clients.iter().filter_map(room_of).collect(),
            _ => BTreeSet::new(),
        };
        let rooms: Vec<u16> = rooms.into_iter().collect();
        self.clients[client].act(&rooms, &mut self.chance);
    }

    /// A client's connection is lost.
    fn drop_client(&mut self, index: usize) {
        // One that is on its way between two shards is lost later.
        let Some((shard, slot)) = self.clients[index].place else { return };
        self.clients[index].over_ms = Some(self.now_ms);
        trace!(self, "{} client {index} is gone", self.now_ms);
        let at = self.clients[index].host;
        if let Some(host) = &mut self.hosts[at] {
            host.gone(shard, slot, self.now_ms);
        }
        self.settle(at, shard);
    }

    pub(super) fn late_ms(&mut self) -> u64 {
        if self.is_calm {
            return 0;
        }
        let late_ms = self.chance.below(self.setup.late_ms_max + 1) as u64;
        if self.chance.one_in(200) { late_ms + 2_000 } else { late_ms }
    }

    /// Redis and all hosts take a turn. Says whether anything was done.
    fn turn(&mut self) -> bool {
        let mut has_worked = self.turn_redis();
        for at in self.hosts_in_some_order() {
            has_worked |= self.turn_host(at);
        }
        if self.setup.spoken == Spoken::Pairing {
            let is_well = self.now_ms > self.fault_ms + FAULT_MS && self.setup.late_ms_max < 300;
            pairing::check_matches(&mut self.clients, is_well, self.now_ms);
        }
        has_worked
    }

    fn hosts_in_some_order(&mut self) -> impl Iterator<Item = usize> + use<> {
        let count = self.hosts.len();
        let first = self.chance.below(count);
        (0..count).map(move |offset| (first + offset) % count)
    }

    fn turn_redis(&mut self) -> bool {
        if self.now_ms < self.redis_back_ms {
            return false;
        }
        let mut has_worked = false;
        for host in self.hosts.iter_mut().flatten() {
            host.links.connect(self.now_ms);
        }
        for at in self.hosts_in_some_order() {
            while self.is_calm || !self.chance.one_in(6) {
                let late_ms = self.late_ms();
                let Some(host) = &mut self.hosts[at] else { break };
                if !host.links.serve(&mut self.redis, self.now_ms, late_ms) {
                    break;
                }
                has_worked = true;
                self.spread();
            }
        }
        has_worked
    }

    /// What was published goes to those who listen.
    pub(super) fn spread(&mut self) {
        for Published { channel, payload } in self.redis.take_published() {
            let listeners = self.redis.listeners(&channel);
            for at in 0..self.hosts.len() {
                let late_ms = self.late_ms();
                if let Some(host) = &mut self.hosts[at]
                    && listeners.contains(&host.links.listener)
                {
                    host.links.publish(channel.clone(), payload.clone(), self.now_ms, late_ms);
                }
            }
        }
    }

    pub(super) fn turn_host(&mut self, at: usize) -> bool {
        let (now_ms, is_calm, late_ms) = (self.now_ms, self.is_calm, self.late_ms());
        let Some(host) = self.hosts[at].as_mut().filter(|host| host.is_running(now_ms)) else { return false };
        let mut has_worked = host.turn_cluster(&mut self.chance, late_ms, is_calm, now_ms);
        if std::mem::take(&mut host.links.wants_resubscription) {
            host.links.lose_subscriptions(&mut self.redis, now_ms + 50);
        }
        for shard in 0..self.setup.shards {
            has_worked |= self.turn_shard(at, shard);
        }
        if is_calm || self.chance.one_in(2) {
            let landed = self.hosts[at].as_mut().and_then(|host| host.land(now_ms));
            if let Some((client, Fate::Moved(shard, slot))) = landed {
                self.clients[client].place = Some((shard, slot));
                self.settle(at, shard);
                has_worked = true;
            }
        }
        has_worked
    }

    fn turn_shard(&mut self, at: usize, shard: usize) -> bool {
        let (now_ms, is_calm) = (self.now_ms, self.is_calm);
        let mut has_worked = false;
        for from in 0..=self.setup.shards {
            while is_calm || !self.chance.one_in(8) {
                let Some(host) = &mut self.hosts[at] else { return false };
                if !host.take_mail(shard, from, now_ms) {
                    break;
                }
                has_worked = true;
                self.settle(at, shard);
            }
        }
        has_worked |= self.read(at, shard);
        if let Some(host) = &mut self.hosts[at] {
            host.tick(shard, now_ms);
        }
        self.settle(at, shard);
        has_worked |= self.send(at, shard);
        if let Some(host) = &mut self.hosts[at] {
            host.deliver(shard);
        }
        has_worked
    }

    /// What clients have said is read.
    fn read(&mut self, at: usize, shard: usize) -> bool {
        let mut has_read = false;
        for index in 0..self.clients.len() {
            while self.is_calm || !self.chance.one_in(3) {
                let client = &mut self.clients[index];
                let Some((here, slot)) = client.place.filter(|_| client.is_there() && client.host == at)
                else {
                    break;
                };
                if here != shard {
                    break;
                }
                let (Some(host), Some(bytes)) = (&mut self.hosts[at], client.unread.pop_front()) else {
                    break;
                };
                if !host.read(shard, slot, &bytes, self.now_ms) {
                    client.unread.push_front(bytes);
                    break;
                }
                has_read = true;
                self.settle(at, shard);
                self.send(at, shard);
            }
        }
        has_read
    }

    /// Does what a shard asks for.
    pub(super) fn settle(&mut self, at: usize, shard: usize) {
        let Some(host) = &mut self.hosts[at] else { return };
        let fates = host.poll_events(shard, self.now_ms);
        for (index, fate) in fates {
            if fate == Fate::Over && self.clients[index].is_there() {
                self.drop_client(index);
            }
        }
        // Who is on its way has no place.
        let Some(host) = &self.hosts[at] else { return };
        for client in host.moving() {
            self.clients[client].place = None;
        }
    }

    /// What a shard has for its clients is sent. Says whether there was anything.
    pub(super) fn send(&mut self, at: usize, shard: usize) -> bool {
        let Some(host) = &mut self.hosts[at] else { return false };
        let sent = host.flush(shard);
        let has_sent = !sent.is_empty();
        for (index, bytes) in sent {
            let client = &mut self.clients[index];
            if client.is_there() {
                trace!(self, "{} client {index} hears {}", self.now_ms, bytes.escape_ascii());
                if client.hear(&bytes, &mut self.chance) {
                    self.drop_client(index);
                }
            }
        }
        self.settle(at, shard);
        has_sent
    }

    /// Ends the faults.
    fn calm(&mut self) {
        trace!(self, "{} the faults end", self.now_ms);
        self.is_calm = true;
        self.redis_back_ms = 0;
        if self.hosts.iter().all(Option::is_none) {
            self.start(0);
        }
        for host in self.hosts.iter_mut().flatten() {
            host.paused_until_ms = 0;
            host.links.heal();
        }
    }

    /// Lets time pass until all has come to rest.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / STEP_MS {
            self.advance(STEP_MS);
            let mut turns = 0;
            while self.turn() {
                turns += 1;
                if turns > TURNS_MAX {
                    fail("no rest after the faults have ended");
                }
            }
        }
    }

    /// Those who may have inherited something say what they have.
    fn set_out(&mut self) {
        if self.setup.spoken == Spoken::Introductions {
            introductions::check_told(&self.clients);
            for (client, texts) in introductions::set_out(&mut self.clients) {
                texts.iter().for_each(|text| self.clients[client].say(text, &mut self.chance));
            }
            self.pass(GREETING_MS);
        }
    }

    fn greet(&mut self) {
        trace!(self, "{} all greet all", self.now_ms);
        for client in self.clients.iter_mut().filter(|client| client.is_there() && client.is_open) {
            client.greet_all(&mut self.chance);
        }
    }

    fn check_at_rest(&self) {
        for host in self.hosts.iter().flatten() {
            let under_way = host.under_way();
            if !under_way.is_empty() {
                fail(format!("not at rest: {under_way}"));
            }
        }
        for host in self.hosts.iter().flatten() {
            trace!(self, "{:?}", host.cluster);
            for shard in &host.shards {
                trace!(self, "{:?}", shard);
            }
        }
        if let Some(at) =
            self.clients.iter().position(|client| client.is_there() && !client.unread.is_empty())
        {
            fail(format!("client {at} is not read from"));
        }
        match self.setup.spoken {
            Spoken::Pairing => pairing::check_at_rest(&self.clients),
            Spoken::Rendezvous => rendezvous::check_at_rest(&self.clients),
            Spoken::Directory => directory::check_at_rest(&self.clients),
            Spoken::Rooms => rooms::check_at_rest(&self.clients),
            Spoken::Introductions => introductions::check_at_rest(&self.clients),
            Spoken::Pipes => pipes::check_at_rest(&self.clients),
        }
    }

    /// Everybody leaves, and nothing is left of them, on the hosts nor in Redis.
    fn end(&mut self) {
        for client in 0..self.clients.len() {
            if self.clients[client].is_there() {
                self.drop_client(client);
            }
        }
        self.pass(GREETING_MS);
        for host in self.hosts.iter().flatten() {
            let left: usize = host.shards.iter().map(crate::shard::Shard::connections).sum();
            if left > 0 {
                fail(format!("{left} connections are left"));
            }
        }
        // What hosts have left that were killed is removed by whoever meets it.
        for host in self.hosts.iter().flatten() {
            let left = self.redis.naming(&host.id.to_string());
            if !left.is_empty() {
                fail(format!("left in Redis: {left:?}"));
            }
        }
    }
}

fn room_of(client: &Client) -> Option<u16> {
    match &client.voice {
        Voice::Rooms(guest) => guest.room,
        _ => None,
    }
}
