//! A judge that knows what each client is to be sent, to the byte: a shard written anew in the simple way, around a
//! model of its dialects. It is told what the shards were handed, and works out what must have come of it.
//!
//! Where memory is used up it cannot know who is closed for it; then it is content with what holds in any case.

pub mod door;
mod model;
mod table;

use parlor::shard::timers::Tick;
use parlor::wire::frame::Opcode;

use crate::framer::{Bounds, Found};
use crate::wire::{Manner, Reading};
use crate::world::{Asked, Host, Judge, Setup, Step};
use door::{Behind, Door};
pub use model::{Entry, Model, Overrun, Parting, Rate};
pub use table::{Client, Stage, Table};

/// The judge.
#[derive(Debug)]
pub struct Referee<M> {
    model: M,
    table: Table,
    /// What the next who comes wants.
    next_door: Option<Door>,
    has_shut_down: Vec<bool>,
    /// Somebody speaks a dialect of whom nothing is known.
    has_stranger: bool,
    /// How many were too slow, by the server's count.
    slow_seen: u64,
    /// When each was to be pinged when last seen.
    ping_due: Vec<Option<Tick>>,
}

impl<M: Model> Referee<M> {
    /// A judge of runs like this. `is_scarce`: memory may be used up.
    #[must_use]
    pub fn new(model: M, setup: &Setup, is_scarce: bool) -> Self {
        let mut table = Table::new(setup.limits.clone(), setup.shards);
        table.is_loose = is_scarce;
        Self {
            model,
            table,
            next_door: None,
            has_shut_down: vec![false; setup.shards],
            has_stranger: false,
            slow_seen: 0,
            ping_due: Vec::new(),
        }
    }

    /// The next who connects will send the request of this door, and only that, before anything else; or whatever.
    pub fn expect(&mut self, door: Option<Door>) {
        self.next_door = door;
    }

    /// A word that the server has made up.
    #[must_use]
    pub fn word(&self, which: usize) -> String {
        self.model.word(which)
    }

    fn handle(&mut self, step: Step<'_>, shard: usize, asked: &[Asked], host: &mut Host) {
        match step {
            Step::Accepted(who) => {
                self.table.clients[who].door = self.next_door.take();
                if self.has_shut_down[shard] {
                    self.table.clients[who].stage = Stage::Over;
                }
            }
            Step::Bytes(who, piece) => {
                self.look(who, host);
                self.handle_bytes(who, piece, asked);
            }
            Step::Arrived(who) if !asked.contains(&Asked::Cut(who)) => {
                self.look(who, host);
                self.go_in(who, asked);
            }
            Step::Spliced(who, piece) => drop(self.model.handle_stream(who, piece, &mut self.table)),
            Step::Ended(who, true) => self.model.handle_end(who),
            Step::Gone(who) | Step::Lost(who) => self.leave(who, Parting::Lost),
            Step::Time => self.handle_time(shard, asked, host),
            Step::Shutdown(shard) => self.shut_down(shard, host),
            Step::Arrived(_) | Step::Ended(_, false) | Step::Sent(_) | Step::Mail => {}
        }
        self.settle();
        for who in cut_in(asked) {
            self.leave(who, Parting::Lost);
            self.table.clients[who].stage = Stage::Over;
        }
        self.settle();
    }

    fn handle_bytes(&mut self, who: usize, piece: &[u8], asked: &[Asked]) {
        let client = &mut self.table.clients[who];
        match client.stage {
            Stage::Head => {
                client.head.extend_from_slice(piece);
                let end = client.head.windows(4).position(|four| four == b"\r\n\r\n");
                if let (Some(end), Some(_)) = (end, client.door) {
                    client.head.drain(..end + 4);
                    self.upgrade(who, asked);
                }
            }
            Stage::Open => self.speak(who, piece),
            Stage::Moving | Stage::Over => {}
        }
    }

    /// The head has come; what is left of it came behind it.
    fn upgrade(&mut self, who: usize, asked: &[Asked]) {
        let client = &mut self.table.clients[who];
        let Some(door) = client.door else { return };
        if matches!(door.behind, Behind::Refused(_)) {
            client.stage = Stage::Over;
            client.is_stream = true;
            return;
        }
        client.expected.extend_from_slice(door.opened());
        self.go_in(who, asked);
    }

    /// Goes in, unless it is yet to move to where that is.
    fn go_in(&mut self, who: usize, asked: &[Asked]) {
        let client = &mut self.table.clients[who];
        let Some(door) = client.door else { return };
        let is_moving = asked.contains(&Asked::Move(who));
        client.stage = if is_moving { Stage::Moving } else { Stage::Open };
        let is_completed_here =
            matches!(door.behind, Behind::ShortPipe(_)) && client.shard == 2 % self.table.shards;
        if is_moving && !is_completed_here {
            return;
        }
        let entry = match door.behind {
            Behind::Wrong(reason) => Entry::Wrong(reason),
            behind => self.model.enter(who, behind, &mut self.table),
        };
        let client = &mut self.table.clients[who];
        client.is_stream = self.model.is_stream(who);
        if let Entry::Wrong(reason) = entry {
            client.stage = Stage::Over;
            self.table.say_close(who, Some(1003), reason);
        }
        if !is_moving {
            let rest = std::mem::take(&mut self.table.clients[who].head);
            self.settle();
            self.speak(who, &rest);
        }
    }

    /// An open client sends bytes.
    fn speak(&mut self, who: usize, piece: &[u8]) {
        if self.table.clients[who].stage != Stage::Open {
            return;
        }
        if !self.model.is_stream(who) {
            self.table.clients[who].framer.push(piece);
            return self.read_frames(who);
        }
        if let Some(end) = self.model.handle_stream(who, piece, &mut self.table) {
            self.end(who, end);
        }
    }

    fn read_frames(&mut self, who: usize) {
        loop {
            self.settle();
            let bounds = Bounds {
                message_bytes_max: self.model.message_bytes_max(who, &self.table),
                fragments_max: self.table.limits.fragments_max,
            };
            let client = &mut self.table.clients[who];
            if client.stage != Stage::Open || client.held.is_some() {
                return;
            }
            match client.framer.poll(bounds) {
                None => return,
                Some(Found::Message(message)) => self.handle_message(who, message),
                Some(Found::Ping(payload)) => self.table.say_frame(who, 0x8a, &payload),
                Some(Found::Pong) => {}
                Some(end) => self.end(who, end),
            }
        }
    }

    /// A client has ended what it has to say, or broken the rules.
    fn end(&mut self, who: usize, end: Found) {
        match end {
            Found::Close(code) => self.close(who, code, ""),
            Found::Failed(code, reason) => self.close(who, Some(code), reason),
            Found::Message(_) | Found::Ping(_) | Found::Pong => {}
        }
        self.settle();
    }

    fn handle_message(&mut self, who: usize, message: Vec<u8>) {
        if let Some(rate) = self.model.rate(who, &self.table)
            && !self.allows(who, rate)
        {
            return match rate.overrun {
                Overrun::Answer(answer) => self.table.say(who, answer),
                Overrun::Close(reason) => self.table.doom(who, Some(1013), reason),
                Overrun::Pause => self.table.clients[who].held = Some(message),
            };
        }
        self.model.handle_message(who, &message, &mut self.table);
    }

    fn allows(&mut self, who: usize, rate: Rate) -> bool {
        let (now_ms, (start_ms, count)) = (self.table.now_ms, self.table.clients[who].window);
        let is_new = count == 0 || now_ms - start_ms >= u64::from(rate.window_ms);
        let window = if is_new { (now_ms, 1) } else { (start_ms, count + 1) };
        self.table.clients[who].window = window;
        window.1 <= rate.max
    }

    /// A client leaves its dialect.
    fn leave(&mut self, who: usize, parting: Parting) {
        if self.table.clients[who].stage == Stage::Open {
            self.table.clients[who].stage = Stage::Over;
            self.model.leave(who, parting, &mut self.table);
        }
    }

    /// A client is closed, or its close is answered.
    fn close(&mut self, who: usize, code: Option<u16>, reason: &str) {
        if self.table.clients[who].stage == Stage::Open {
            self.leave(who, Parting::Orderly);
            self.table.say_close(who, code, reason);
        }
    }

    /// Closes those who are doomed.
    fn settle(&mut self) {
        while let Some((who, code, reason)) = self.table.doomed.pop_front() {
            self.close(who, code, reason);
        }
    }

    fn handle_time(&mut self, shard: usize, asked: &[Asked], host: &mut Host) {
        for asked in asked {
            match *asked {
                Asked::Resume(who) => self.resume(who, host),
                Asked::Cut(who) => {
                    self.leave(who, Parting::Lost);
                    self.table.clients[who].stage = Stage::Over;
                }
                Asked::Move(_) | Asked::Finish(_) => {}
            }
        }
        self.model.handle_time(shard, &mut self.table);
    }

    /// A client whose window has ended is read from again.
    fn resume(&mut self, who: usize, host: &mut Host) {
        let Some(rate) = self.model.rate(who, &self.table) else { return };
        let (start_ms, _) = self.table.clients[who].window;
        let has_ended = self.table.now_ms - start_ms >= u64::from(rate.window_ms);
        if !has_ended || self.table.clients[who].stage != Stage::Open {
            return;
        }
        // It may be that it was closed before it was its turn.
        self.table.is_loose |= self.model.may_expire(who, &self.table);
        if let Some(message) = self.table.clients[who].held.take() {
            self.look(who, host);
            self.handle_message(who, message);
            self.read_frames(who);
        }
    }

    fn look(&mut self, who: usize, host: &mut Host) {
        if self.model.peeks() {
            self.table.said = host.said(who);
        }
    }

    fn shut_down(&mut self, shard: usize, host: &Host) {
        self.has_shut_down[shard] = true;
        let mut here: Vec<usize> = (0..host.peers.len()).collect();
        here.retain(|&who| host.peers[who].shard == shard && host.peers[who].is_there());
        here.sort_by_key(|&who| host.peers[who].slot);
        for who in here {
            self.close(who, Some(1001), "Server shutting down");
        }
    }

    /// Counts the pings that were sent.
    fn count_pings(&mut self, step: Step<'_>, host: &Host) {
        self.ping_due.resize(host.peers.len(), None);
        for (who, before) in self.ping_due.iter_mut().enumerate() {
            let due = host.client(who).map(|client| client.ping_due);
            if matches!(step, Step::Time) && before.is_some() && due != *before {
                self.table.clients[who].pings += 1;
            }
            *before = due;
        }
    }

    /// What was said so far is as long as it must be.
    fn check(&mut self, step: Step<'_>, host: &Host) {
        let slow = host.count(|counters| &counters.too_slow);
        let was_slow = slow != self.slow_seen || self.table.slow > 0;
        if matches!(step, Step::Time) && was_slow {
            // Pings are not reckoned before the step.
            self.table.is_loose = true;
        }
        if !self.table.is_loose {
            assert_eq!(slow - self.slow_seen, self.table.slow, "how many were too slow");
            for who in 0..host.peers.len() {
                self.check_client(who, host);
            }
        }
        (self.slow_seen, self.table.slow) = (slow, 0);
    }

    fn check_client(&self, who: usize, host: &Host) {
        let (peer, client) = (&host.peers[who], &self.table.clients[who]);
        if !peer.is_there() || peer.is_cut || client.door.is_none() {
            return;
        }
        assert_eq!(
            host.dialect(who).is_some(),
            client.stage == Stage::Open,
            "peer {who} is {:?}",
            client.stage
        );
        if client.is_exact() {
            let said = peer.received.len() + host.waiting(who);
            assert_eq!(said, self.table.total(who), "bytes said to peer {who}");
        }
    }

    /// Where what is sent is not known, it is not known either who was closed for it.
    fn follow(&mut self, host: &Host) {
        self.has_stranger |= (0..host.peers.len())
            .any(|who| self.table.clients[who].door.is_none() && host.dialect(who).is_some());
        self.table.is_loose |= self.has_stranger;
        if !self.table.is_loose {
            return;
        }
        for who in 0..host.peers.len() {
            if host.dialect(who).is_none() && host.peers[who].is_there() {
                self.leave(who, Parting::Lost);
            }
        }
        self.table.doomed.clear();
        self.table.clients.iter_mut().for_each(|client| client.is_doomed = false);
    }
}

fn cut_in(asked: &[Asked]) -> impl Iterator<Item = usize> {
    asked.iter().filter_map(|asked| match *asked {
        Asked::Cut(who) => Some(who),
        Asked::Move(_) | Asked::Resume(_) | Asked::Finish(_) => None,
    })
}

impl<M: Model> Judge for Referee<M> {
    fn observe(&mut self, step: Step<'_>, shard: usize, asked: &[Asked], host: &mut Host) {
        self.table.begin(host);
        self.handle(step, shard, asked, host);
        self.count_pings(step, host);
        self.follow(host);
        self.check(step, host);
        if !self.has_stranger {
            self.model.check(host, &self.table);
        }
    }

    fn finish(&mut self, host: &mut Host) {
        let manner = |who: usize| match host.peers[who].is_raw {
            true => Manner::Raw,
            false if self.model.is_stream(who) || self.table.clients[who].door.is_none() => Manner::Stream,
            false => Manner::Messages,
        };
        let readings: Vec<Reading<'_>> = host
            .peers
            .iter()
            .enumerate()
            .map(|(who, peer)| Reading::new(&peer.received, manner(who)))
            .collect();
        for (who, reading) in readings.iter().enumerate() {
            let (peer, client) = (&host.peers[who], &self.table.clients[who]);
            let is_cut = peer.is_cut || !peer.is_there();
            assert!(
                is_cut || reading.end == peer.received.len(),
                "what peer {who} was sent ends in the middle"
            );
            if let Some(Door { behind: Behind::Refused(status), .. }) = client.door {
                assert!(reading.status.is_none_or(|found| found == status), "{:?}", reading.status);
            } else if client.is_exact() && !self.table.is_loose {
                check_sent(reading, client, is_cut);
            }
        }
        if !self.has_stranger {
            self.model.finish(host, &self.table, &readings);
        }
    }
}

/// What was sent is what was to be sent, or the start of it. Pings may stand between any two frames.
fn check_sent(reading: &Reading<'_>, client: &Client, is_cut: bool) {
    let mut expected = client.expected.as_slice();
    if reading.status == Some("101") {
        expected = expected.strip_prefix(door::OPENED).expect("who is opened is to be");
    }
    for frame in reading.frames.iter().filter(|frame| frame.opcode != Opcode::Ping) {
        let is_next = expected.starts_with(frame.bytes);
        let found = frame.bytes.escape_ascii();
        assert!(is_next, "found: {found}\nexpected: {}", expected.escape_ascii());
        expected = &expected[frame.bytes.len()..];
    }
    assert!(is_cut || expected.is_empty(), "missing: {}", expected.escape_ascii());
}
