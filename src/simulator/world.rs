//! The world around the shards: connections, rings, clock, and who does what when. It plays the part of `net`.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::account::Standing;
use super::behaviour::Behaviour;
use super::chance::Chance;
use super::checks::{client_at, fail, standing};
use super::connection::Connection;
use super::rings::Rings;
use super::setup::Setup;
use super::socket::{ClientEnd, Read, Write};
use super::{Options, Summary};
use crate::id::{ClientId, ShardIndex};
use crate::metrics::Counters;
use crate::protocol::pairing::Note;
use crate::shard::clients::Stage;
use crate::shard::mail::{FrameBytes, Mail};
use crate::shard::{Event, Shard};
use crate::wire::http::wants_keep_alive;

/// The answer to every plain request.
pub(super) const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Prints a step of a traced run.
macro_rules! trace {
    ($world:expr, $($arg:tt)*) => {
        if let Some(print) = $world.trace {
            print(format_args!($($arg)*));
        }
    };
}
pub(super) use trace;

/// Somebody who connects again and again.
pub(super) struct Player {
    pub(super) behaviour: Behaviour,
    pub(super) connection: Option<usize>,
}

/// All that there is in a run.
pub(super) struct World {
    pub(super) setup: Setup,
    pub(super) chance: Chance,
    pub(super) shards: Vec<Shard>,
    pub(super) rings: Rings,
    pub(super) connections: Vec<Connection>,
    /// Of each shard, the connection in each slot.
    by_slot: Vec<Vec<Option<usize>>>,
    pub(super) players: Vec<Player>,
    pub(super) now_ms: u64,
    pub(super) round: u64,
    /// Who was gone when no mail was under way: nobody may be matched with them.
    pub(super) gone: BTreeSet<ClientId>,
    /// Who went since.
    newly_gone: Vec<ClientId>,
    /// The faults have ended.
    pub(super) is_calm: bool,
    pub(super) is_shutting_down: bool,
    /// Grows with everything that happens.
    pub(super) activity: u64,
    pub(super) summary: Summary,
    pub(super) trace: Option<fn(std::fmt::Arguments<'_>)>,
}

impl World {
    pub(super) fn new(seed: u64, options: &Options) -> Self {
        let mut chance = Chance::new(seed);
        let setup = Setup::draw(&mut chance, options.plant);
        // Some runs pass the 32 bits that rates are reckoned in.
        let now_ms = if chance.one_in(8) { (1 << 32) - chance.below(60_000) } else { chance.below(1 << 33) };
        let count = setup.settings.shards;
        let mut shard = |index| {
            let counters = Arc::new(Counters::default());
            Shard::new(
                ShardIndex(index as u8),
                Arc::clone(&setup.settings),
                counters,
                chance.bytes(),
                now_ms as u64,
            )
        };
        let shards = (0..count).map(&mut shard).collect();
        let players = (0..setup.players)
            .map(|_| Player { behaviour: Behaviour::draw(&mut chance, &setup), connection: None })
            .collect();
        let world = Self {
            rings: Rings::new(count, setup.ring_entries),
            setup,
            chance,
            shards,
            connections: Vec::new(),
            by_slot: vec![Vec::new(); count],
            players,
            now_ms: now_ms as u64,
            round: 0,
            gone: BTreeSet::new(),
            newly_gone: Vec::new(),
            is_calm: false,
            is_shutting_down: false,
            activity: 0,
            summary: Summary::default(),
            trace: options.trace,
        };
        trace!(world, "{} shards, {:?}", count, world.setup.settings);
        world
    }

    /// A connection is accepted on a shard.
    pub(super) fn accept(&mut self, shard: usize) -> usize {
        let Some(slot) = self.shards[shard].handle_accept(self.now_ms) else { fail("no slot is free") };
        let id = client_at(&self.shards[shard], slot).map(|client| client.id.text());
        let Some(id) = id else { fail("accepted, but not there") };
        let room =
            if self.setup.is_flood { 1 << 20 } else { self.chance.pick(&[1, 30, 700, 5_000, 1 << 16]) };
        let requeue = self.setup.settings.requeue_on_partner_leave;
        let account = super::account::Account::new(id, requeue);
        let index = self.connections.len();
        self.connections.push(Connection::new(shard, slot, account, room, self.now_ms));
        let by_slot = &mut self.by_slot[shard];
        by_slot.resize(by_slot.len().max(slot.0 as usize + 1), None);
        if by_slot[slot.0 as usize].replace(index).is_some() {
            fail("a slot was given twice");
        }
        trace!(self, "client {index} is accepted on shard {shard}, slot {}", slot.0);
        self.drain_events(shard);
        index
    }

    /// One turn of a shard's loop.
    pub(super) fn turn(&mut self, shard: usize) {
        self.take_mail(shard);
        self.visit_connections(shard);
        if self.is_calm || !self.chance.one_in(4) {
            self.shards[shard].handle_tick(self.now_ms);
            self.drain_events(shard);
            self.note_endings(shard);
            self.check_deadlines(shard);
        }
        self.flush(shard);
        self.deliver_mail(shard);
        self.check_shard(shard);
    }

    fn take_mail(&mut self, to: usize) {
        let count = self.shards.len();
        let first = self.chance.below(count);
        for from in (0..count).map(|offset| (first + offset) % count) {
            while self.is_calm || !self.chance.one_in(16) {
                let Some(mail) = self.rings.pop(from, to, self.round) else { break };
                self.handle_mail(to, mail);
            }
        }
    }

    fn handle_mail(&mut self, shard: usize, mail: Mail) {
        self.activity += 1;
        match &mail {
            Mail::Note(note) => {
                trace!(self, "shard {shard} hears {note:?}");
                self.summary.declined += u64::from(matches!(note, Note::Declined(_)));
            }
            Mail::Frame(frame) => {
                trace!(self, "shard {shard} gets a frame for {:?} in {:?}", frame.to, frame.room);
                self.summary.frames_across += 1;
                self.summary.large_frames_across += u64::from(matches!(frame.frame, FrameBytes::Shared(_)));
            }
        }
        self.shards[shard].handle_mail(mail, self.now_ms);
        self.drain_events(shard);
    }

    /// Lets all mail arrive, and what follows from it.
    pub(super) fn drain_mail(&mut self) {
        loop {
            for to in 0..self.shards.len() {
                for from in 0..self.shards.len() {
                    while let Some(mail) = self.rings.pop(from, to, u64::MAX) {
                        self.handle_mail(to, mail);
                    }
                }
            }
            (0..self.shards.len()).for_each(|shard| self.deliver_mail(shard));
            if !self.is_mail_under_way() {
                break;
            }
        }
        self.summary.quiet_points += 1;
        self.check_quiet();
        self.gone.extend(self.newly_gone.drain(..));
    }

    /// Remembers since when connections are in the stage before their end.
    fn note_endings(&mut self, shard: usize) {
        for index in self.by_slot[shard].iter().flatten() {
            let connection = &mut self.connections[*index];
            let stage = client_at(&self.shards[shard], connection.slot).map(|client| &client.stage);
            let is_closing = match stage {
                Some(Stage::Closing) => true,
                Some(Stage::Finishing | Stage::Finished) => false,
                _ => continue,
            };
            if connection.ending.is_none_or(|(was_closing, _)| was_closing != is_closing) {
                connection.ending = Some((is_closing, self.now_ms));
            }
        }
    }

    /// The connections of a shard that are not gone.
    pub(super) fn on_shard(&self, shard: usize) -> impl Iterator<Item = (usize, &Connection)> {
        self.by_slot[shard].iter().filter_map(|index| index.map(|index| (index, &self.connections[index])))
    }

    pub(super) fn is_mail_under_way(&self) -> bool {
        !self.rings.is_empty() || self.shards.iter().any(|shard| shard.counters().mail_waiting.value() > 0)
    }

    fn visit_connections(&mut self, shard: usize) {
        let count = self.by_slot[shard].len();
        let first = self.chance.below(count.max(1));
        for slot in (0..count).map(|offset| (first + offset) % count) {
            if let Some(index) = self.by_slot[shard][slot]
                && (self.is_calm || self.chance.percent(60))
            {
                self.visit(shard, index);
            }
        }
    }

    /// What completions there are for one connection.
    fn visit(&mut self, shard: usize, index: usize) {
        let connection = &mut self.connections[index];
        if !self.is_calm && self.chance.one_in(self.setup.socket_fault) {
            connection.socket.change_writes(&mut self.chance);
        }
        // Now and then the server is told although it did not ask.
        let is_told = connection.is_blocked && connection.socket.is_writable();
        if is_told && (self.is_calm || self.chance.one_in(2)) || !self.is_calm && self.chance.one_in(300) {
            trace!(self, "client {index} is writable");
            connection.is_blocked = false;
            self.activity += 1;
            self.shards[shard].handle_writable(connection.slot);
            self.drain_events(shard);
        }
        let reads = if self.is_calm { 1_000 } else { self.chance.below(3) };
        for _ in 0..reads {
            if !self.read(shard, index) {
                return;
            }
        }
    }

    /// Reads once; says whether there may be more.
    fn read(&mut self, shard: usize, index: usize) -> bool {
        if self.respond(shard, index) {
            return false;
        }
        if self.shards[shard].is_reading_paused() {
            self.summary.reading_paused += 1;
            return false;
        }
        let max = match self.chance.below(6) {
            _ if self.is_calm || self.setup.is_flood => 64 * 1024,
            0 => self.chance.between(1..=12),
            1 => self.chance.between(1..=300),
            _ => self.chance.pick(&[500, 4_096, 64 * 1024]),
        };
        match self.connections[index].socket.read(max) {
            Read::Bytes(_) if !self.is_calm && self.chance.one_in(3_000) => {
                self.handle_panic(shard, index);
                false
            }
            Read::Bytes(bytes) => {
                self.handle_bytes(shard, index, bytes);
                true
            }
            Read::Nothing => false,
            Read::End => {
                if self.is_calm || self.chance.one_in(3) {
                    self.handle_gone(shard, index);
                }
                false
            }
        }
    }

    /// Whether a plain request keeps the connection from being read.
    fn respond(&mut self, shard: usize, index: usize) -> bool {
        let connection = &mut self.connections[index];
        let Some(keep_alive) = connection.request else { return false };
        if connection.socket.client == ClientEnd::Reset && self.chance.one_in(3) {
            self.handle_gone(shard, index);
        } else if self.is_calm || self.chance.one_in(2) {
            trace!(self, "client {index} gets a response");
            connection.request = None;
            self.activity += 1;
            self.shards[shard].handle_response(connection.slot, RESPONSE, keep_alive);
            self.drain_events(shard);
        }
        true
    }

    fn handle_bytes(&mut self, shard: usize, index: usize, mut bytes: Vec<u8>) {
        self.activity += 1;
        let connection = &mut self.connections[index];
        connection.last_read_ms = self.now_ms;
        let slot = connection.slot;
        let Some(client) = client_at(&self.shards[shard], slot) else { fail("a client vanished") };
        let before = standing(client);
        let rate_max = self.setup.settings.limits.messages_per_second_max;
        let upto = connection.socket.read_by_server();
        connection.account.handle_read(upto, before, self.now_ms, rate_max);
        self.shards[shard].handle_bytes(slot, &mut bytes, self.now_ms);
        let Some(client) = client_at(&self.shards[shard], slot) else { fail("a client vanished") };
        let after = standing(client);
        let is_open = !matches!(after, Standing::Head | Standing::Closed);
        let position = connection.socket.written_by_server() + client.outbox.len() as u64;
        connection.account.handle_read_done(is_open, position);
        trace!(self, "client {index}: {} bytes are read, {before:?} becomes {after:?}", bytes.len());
        self.drain_events(shard);
    }

    /// As if the server had panicked over what it read.
    fn handle_panic(&mut self, shard: usize, index: usize) {
        trace!(self, "a panic over client {index}");
        self.activity += 1;
        self.summary.panics += 1;
        self.shards[shard].handle_panic(self.connections[index].slot, self.now_ms);
        self.drain_events(shard);
    }

    fn handle_gone(&mut self, shard: usize, index: usize) {
        trace!(self, "client {index} is gone");
        self.activity += 1;
        let connection = &mut self.connections[index];
        connection.is_gone = true;
        connection.request = None;
        let slot = connection.slot;
        self.by_slot[shard][slot.0 as usize] = None;
        self.newly_gone.extend(client_at(&self.shards[shard], slot).map(|client| client.id));
        self.shards[shard].handle_gone(slot, self.now_ms);
        self.drain_events(shard);
    }

    pub(super) fn drain_events(&mut self, shard: usize) {
        while let Some(event) = self.shards[shard].poll_event() {
            self.activity += 1;
            let (Event::Request { slot, .. }
            | Event::Move { slot, .. }
            | Event::Resume(slot)
            | Event::OpenedRaw(slot)
            | Event::FinishWriting(slot)
            | Event::Cut(slot)
            | Event::Reset(slot)) = event;
            let index = self.by_slot[shard].get(slot.0 as usize).copied().flatten();
            let Some(index) = index else { fail(format!("{event:?} of nobody")) };
            trace!(self, "client {index}: {}", name_of(&event));
            let connection = &mut self.connections[index];
            match event {
                Event::Request { head, .. } => connection.request = Some(wants_keep_alive(&head)),
                Event::FinishWriting(_) if connection.socket.is_finished || connection.socket.is_cut => {
                    fail("writing was finished twice")
                }
                Event::Cut(_) if connection.socket.is_cut => fail("a socket was cut twice"),
                Event::FinishWriting(_) => connection.socket.is_finished = true,
                Event::Cut(_) => connection.socket.is_cut = true,
                event => fail(format!("not in pairing: {event:?}")),
            }
        }
    }

    /// The end of the turn: everybody who has something to send is sent it.
    fn flush(&mut self, shard: usize) {
        while let Some(slot) = self.shards[shard].poll_dirty() {
            let Some(index) = self.by_slot[shard][slot.0 as usize] else { fail("nobody is dirty") };
            self.write(shard, index);
            self.drain_events(shard);
        }
        self.drain_events(shard);
    }

    fn write(&mut self, shard: usize, index: usize) {
        let connection = &mut self.connections[index];
        if connection.is_blocked {
            fail("a blocked client is dirty");
        }
        loop {
            let pieces = self.shards[shard].gather(connection.slot);
            let offered: usize = pieces.iter().map(|piece| piece.len()).sum();
            if offered == 0 {
                return;
            }
            self.activity += 1;
            if connection.socket.is_finished {
                fail("there is something to send after the end");
            }
            let written = connection.socket.write(&pieces);
            drop(pieces);
            let Write::Took(took) = written else {
                return self.shards[shard].handle_write_failed(connection.slot, self.now_ms);
            };
            if took > 0 {
                self.shards[shard].handle_sent(connection.slot, took);
            }
            if took < offered {
                trace!(self, "client {index} is blocked");
                connection.is_blocked = true;
                return self.shards[shard].handle_blocked(connection.slot);
            }
        }
    }

    pub(super) fn deliver_mail(&mut self, from: usize) {
        let (delay_max, is_calm) = (self.setup.mail_delay_max, self.is_calm);
        let (rings, chance, summary) = (&mut self.rings, &mut self.chance, &mut self.summary);
        let round = self.round;
        self.shards[from].deliver_mail(|to, mail| {
            let delay = if is_calm { 0 } else { chance.below(delay_max + 1) as u64 };
            let pushed = rings.push(from, to.position(), mail, round + delay);
            summary.rings_full += u64::from(pushed.is_err());
            pushed
        });
    }
}

fn name_of(event: &Event) -> &'static str {
    match event {
        Event::Request { .. } => "a plain request",
        Event::FinishWriting(_) => "its socket's writing side is shut",
        Event::Cut(_) => "its socket is cut",
        _ => "something else",
    }
}
