//! The world around the shards: connections, rings, clock, and who does what when. It plays the part of `net`.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::behaviour::{Behaviour, Play, draw_voice};
use super::books::Books;
use super::chance::Chance;
use super::checks::{client_at, fail};
use super::connection::Connection;
use super::rings::{Letter, Rings};
use super::setup::{Setup, Spoken};
use super::{Options, Summary};
use crate::id::{ClientId, ShardIndex, Slot};
use crate::metrics::Counters;
use crate::protocol::pairing::Note;
use crate::shard::Shard;
use crate::shard::arrival::Arrival;
use crate::shard::mail::{FrameBytes, Mail};

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
    pub(super) spoken: Spoken,
    pub(super) connection: Option<usize>,
}

/// A socket for which there was no room in a ring.
pub(super) struct Waiting {
    pub(super) to: usize,
    pub(super) index: usize,
    pub(super) arrival: Box<Arrival>,
}

/// A slot that its socket has left for another shard: the shard is told in this round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Departed {
    pub(super) shard: usize,
    pub(super) slot: Slot,
    pub(super) due: u64,
}

/// All that there is in a run.
pub(super) struct World {
    pub(super) setup: Setup,
    pub(super) chance: Chance,
    pub(super) shards: Vec<Shard>,
    pub(super) rings: Rings,
    /// By shard.
    pub(super) waiting: Vec<VecDeque<Waiting>>,
    pub(super) departed: Vec<Departed>,
    pub(super) connections: Vec<Connection>,
    /// Of each shard, the connection in each slot.
    pub(super) by_slot: Vec<Vec<Option<usize>>>,
    pub(super) players: Vec<Player>,
    pub(super) books: Books,
    pub(super) now_ms: u64,
    pub(super) round: u64,
    /// When each shard was last told the time.
    pub(super) last_tick_ms: Vec<u64>,
    /// The step of a shard that is under way, and the last number that was given to a step or a group.
    pub(super) step: u64,
    pub(super) numbers: u64,
    /// How often the shard had been short of memory before the step.
    pub(super) busy_before: u64,
    /// How many WebSockets and raw streams it had opened.
    pub(super) upgrades_before: u64,
    /// Clients that this step has reset.
    pub(super) resets: Vec<usize>,
    /// Who was gone when no mail was under way: nobody may be matched with them.
    pub(super) gone: BTreeSet<ClientId>,
    /// Who went since.
    pub(super) newly_gone: Vec<ClientId>,
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
            let (settings, counters) = (Arc::clone(&setup.settings), Arc::new(Counters::default()));
            let mut shard =
                Shard::new(ShardIndex(index as u8), settings, counters, chance.bytes(), now_ms as u64);
            shard.set_clock(setup.unix_ms_at_start);
            shard
        };
        let shards = (0..count).map(&mut shard).collect();
        let mut player = |_| Player {
            behaviour: Behaviour::draw(&mut chance, &setup),
            spoken: chance.pick(setup.spoken),
            connection: None,
        };
        let players = (0..setup.players).map(&mut player).collect();
        let world = Self {
            rings: Rings::new(count, setup.ring_entries),
            setup,
            chance,
            shards,
            waiting: (0..count).map(|_| VecDeque::new()).collect(),
            departed: Vec::new(),
            connections: Vec::new(),
            by_slot: vec![Vec::new(); count],
            players,
            books: Books::default(),
            now_ms: now_ms as u64,
            round: 0,
            last_tick_ms: vec![now_ms as u64; count],
            step: 0,
            numbers: 0,
            busy_before: 0,
            upgrades_before: 0,
            resets: Vec::new(),
            gone: BTreeSet::new(),
            newly_gone: Vec::new(),
            is_calm: false,
            is_shutting_down: false,
            activity: 0,
            summary: Summary::default(),
            trace: options.trace,
        };
        trace!(world, "{} shards, {:?}, {:?}", count, world.setup.spoken, world.setup.settings);
        world
    }

    /// What a client that acts can make use of, and the clients.
    pub(super) fn play(&mut self) -> (Play<'_>, &mut [Connection]) {
        let stranger = match self.connections.len() {
            0 => String::new(),
            count => {
                let id = &self.connections[self.chance.below(count)].id;
                String::from_utf8_lossy(id).into_owned()
            }
        };
        let room_ids = &self.books.lobby.rooms.known_ids;
        (Play { chance: &mut self.chance, setup: &self.setup, room_ids, stranger }, &mut self.connections)
    }

    /// A connection is accepted on a shard.
    pub(super) fn accept(&mut self, shard: usize, spoken: Spoken, behaviour: Behaviour) -> usize {
        let Some(slot) = self.shards[shard].handle_accept(self.now_ms) else { fail("no slot is free") };
        let id = client_at(&self.shards[shard], slot).map(|client| client.id.text());
        let Some(id) = id else { fail("accepted, but not there") };
        let room =
            if self.setup.is_flood { 1 << 20 } else { self.chance.pick(&[1, 30, 700, 5_000, 1 << 16]) };
        let (voice, path) = draw_voice(spoken, &mut self.play().0);
        let index = self.connections.len();
        self.connections.push(Connection::new(shard, slot, id, voice, room, self.now_ms));
        self.take_slot(shard, slot, index);
        trace!(self, "client {index} is accepted on shard {shard}, slot {}, for {path}", slot.0);
        self.end_step(shard, false);
        behaviour.connect(&mut self.connections[index], &path, &mut self.chance);
        index
    }

    /// A connection has got a slot.
    pub(super) fn take_slot(&mut self, shard: usize, slot: Slot, index: usize) {
        let by_slot = &mut self.by_slot[shard];
        by_slot.resize(by_slot.len().max(slot.0 as usize + 1), None);
        if by_slot[slot.0 as usize].replace(index).is_some() {
            fail("a slot was given twice");
        }
    }

    /// One call of a shard; `about`: the client whose input it is.
    pub(super) fn step(&mut self, shard: usize, about: Option<usize>, act: impl FnOnce(&mut Shard, u64)) {
        self.activity += 1;
        self.begin_step(shard);
        act(&mut self.shards[shard], self.now_ms);
        self.observe(shard);
        if let Some(index) = about {
            self.follow(index);
        }
        self.end_step(shard, false);
    }

    /// What follows from a call of a shard.
    pub(super) fn end_step(&mut self, shard: usize, is_tick: bool) {
        self.drain_events(shard, is_tick);
        if is_tick {
            self.follow_time(shard);
        }
        self.follow_leaves(shard);
        self.check_pauses(shard);
    }

    /// One turn of a shard's loop.
    pub(super) fn turn(&mut self, shard: usize) {
        self.take_letters(shard);
        self.finish_departures(shard);
        self.visit_connections(shard);
        if self.is_calm || !self.chance.one_in(4) {
            self.tick(shard);
        }
        self.flush(shard);
        self.deliver(shard);
        self.check_shard(shard);
    }

    pub(super) fn tick(&mut self, shard: usize) {
        self.begin_step(shard);
        self.shards[shard].handle_tick(self.now_ms);
        self.last_tick_ms[shard] = self.now_ms;
        self.observe(shard);
        self.end_step(shard, true);
        self.note_endings(shard);
        self.check_deadlines(shard);
    }

    fn take_letters(&mut self, to: usize) {
        let count = self.shards.len();
        let first = self.chance.below(count);
        for from in (0..count).map(|offset| (first + offset) % count) {
            while self.is_calm || !self.chance.one_in(16) {
                let Some(letter) = self.rings.pop(from, to, self.round) else { break };
                self.handle_letter(to, letter);
            }
        }
    }

    fn handle_letter(&mut self, shard: usize, letter: Letter) {
        match letter {
            Letter::Mail(mail) => self.handle_mail(shard, mail),
            Letter::Socket(index, arrival) => self.handle_arrival(shard, index, *arrival),
        }
    }

    fn handle_mail(&mut self, shard: usize, mail: Mail) {
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
        self.step(shard, None, |shard, now_ms| shard.handle_mail(mail, now_ms));
    }

    /// Lets all mail arrive, and what follows from it.
    pub(super) fn drain_mail(&mut self) {
        loop {
            for to in 0..self.shards.len() {
                for from in 0..self.shards.len() {
                    while let Some(letter) = self.rings.pop(from, to, u64::MAX) {
                        self.handle_letter(to, letter);
                    }
                }
            }
            (0..self.shards.len()).for_each(|shard| self.deliver(shard));
            if !self.is_mail_under_way() {
                break;
            }
        }
        self.summary.quiet_points += 1;
        self.check_quiet();
        self.gone.extend(self.newly_gone.drain(..));
    }

    /// The connections of a shard that are not gone.
    pub(super) fn on_shard(&self, shard: usize) -> impl Iterator<Item = (usize, &Connection)> {
        self.by_slot[shard].iter().filter_map(|index| index.map(|index| (index, &self.connections[index])))
    }

    pub(super) fn is_mail_under_way(&self) -> bool {
        !self.rings.is_empty()
            || self.waiting.iter().any(|waiting| !waiting.is_empty())
            || self.shards.iter().any(|shard| shard.counters().mail_waiting.value() > 0)
    }

    /// Hands mail and sockets on, as far as there is room in the rings.
    pub(super) fn deliver(&mut self, from: usize) {
        let (delay_max, is_calm) = (self.setup.mail_delay_max, self.is_calm);
        let (rings, chance, summary, round) =
            (&mut self.rings, &mut self.chance, &mut self.summary, self.round);
        let mut push = |to: usize, letter| {
            let delay = if is_calm { 0 } else { chance.below(delay_max + 1) as u64 };
            let pushed = rings.push(from, to, letter, round + delay);
            summary.rings_full += u64::from(pushed.is_err());
            pushed
        };
        self.shards[from].deliver_mail(|to, mail| {
            push(to.position(), Letter::Mail(mail)).map_err(|letter| match letter {
                Letter::Mail(mail) => mail,
                Letter::Socket(..) => fail("what was pushed does not come back"),
            })
        });
        for _ in 0..self.waiting[from].len() {
            let Some(Waiting { to, index, arrival }) = self.waiting[from].pop_front() else { return };
            if let Err(Letter::Socket(index, arrival)) = push(to, Letter::Socket(index, arrival)) {
                self.waiting[from].push_back(Waiting { to, index, arrival });
            }
        }
    }
}
