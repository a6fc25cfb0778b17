//! How the books follow the shards: after each step the world looks at what the shard has done with whom, and has the
//! books do the same on paper.

use super::books::{Books, PAUSE_WINDOW_MS};
use super::checks::{fail, give_up};
use super::connection::{Connection, Progress, Seen, Voice};
use super::ledger::Said;
use super::pipes;
use super::scene::Scene;
use super::world::{World, trace};
use crate::limits::TICK_MS;
use crate::shard::clients::{Client, Stage};

/// What the world sees of a client.
fn look_at(client: &Client) -> Seen {
    let progress = match &client.stage {
        Stage::Head(_) | Stage::Answering(_) | Stage::Moving => Progress::Head,
        Stage::Open(_) => Progress::Open,
        Stage::Closing | Stage::Finishing | Stage::Finished => Progress::Closing,
        Stage::Cut => Progress::Cut,
    };
    Seen {
        progress,
        outbox: client.outbox.len(),
        is_paused: client.paused.is_paused(),
        is_moving: matches!(client.stage, Stage::Moving),
    }
}

impl World {
    /// A step of a shard begins.
    pub(super) fn begin_step(&mut self, shard: usize) {
        self.numbers += 1;
        self.step = self.numbers;
        let counters = self.shards[shard].counters();
        self.busy_before = counters.server_busy.value();
        self.upgrades_before = counters.upgrades.value();
        if self.setup.is_stepwise {
            self.observe(shard);
            for index in self.by_slot[shard].iter().flatten() {
                let connection = &mut self.connections[*index];
                connection.outbox_before = connection.seen.outbox;
            }
        }
    }

    /// Looks at all clients of a shard.
    pub(super) fn observe(&mut self, shard: usize) {
        for client in self.shards[shard].clients().iter() {
            let slot = client.id.slot().0 as usize;
            if let Some(index) = self.by_slot[shard].get(slot).copied().flatten() {
                self.connections[index].seen = look_at(client);
            }
        }
    }

    /// Whether the shard was short of memory in this step.
    pub(super) fn was_busy(&self, shard: usize) -> bool {
        self.shards[shard].counters().server_busy.value() > self.busy_before
    }

    /// Has the books do something in this step.
    pub(super) fn with_books<T>(
        &mut self,
        is_certain: bool,
        act: impl FnOnce(&mut Books, &mut Scene<'_>) -> T,
    ) -> T {
        let mut scene = Scene {
            connections: &mut self.connections,
            settings: &self.setup.settings,
            summary: &mut self.summary,
            now_ms: self.now_ms,
            unix_ms: self.setup.unix_ms_at_start + self.now_ms,
            step: self.step,
            numbers: &mut self.numbers,
            is_certain,
        };
        act(&mut self.books, &mut scene)
    }

    /// The server has handled what it had read of this client, as far as it could.
    pub(super) fn follow(&mut self, index: usize) {
        let client = &self.connections[index];
        if client.is_pairing() {
            return self.follow_pairing(index);
        }
        let (shard, seen) = (client.shard, client.seen);
        if seen.progress == Progress::Head {
            return self.follow_completion(index);
        }
        let is_certain = seen.progress == Progress::Open || !self.was_busy(shard);
        self.handle(index, is_certain);
    }

    /// Has the books handle what the server had read of a client.
    fn handle(&mut self, index: usize, is_certain: bool) {
        let upto = self.connections[index].socket.read_by_server();
        while let Some(said) = self.connections[index].ledger.next(upto).cloned() {
            let ledger = &mut self.connections[index].ledger;
            if ledger.has_stopped || ledger.violation.is_some() {
                ledger.take_next();
                continue;
            }
            if !self.with_books(is_certain, |_, scene| Books::may_handle(scene, index, &said)) {
                trace!(self, "client {index} is over its rate");
                self.summary.rate_pauses += 1;
                self.connections[index].ledger.is_paused_for_rate = true;
                break;
            }
            self.connections[index].ledger.take_next();
            trace!(self, "client {index} has said {said:?}");
            self.follow_close(index, &said);
            if said == Said::Upgrade && !self.follow_upgrade(index) {
                continue;
            }
            self.with_books(is_certain, |books, scene| books.read(scene, index, said));
        }
        self.follow_stream(index, upto, is_certain);
    }

    /// A URL was read; says whether the server came to it before it cut the client.
    fn follow_upgrade(&mut self, index: usize) -> bool {
        let client = &mut self.connections[index];
        client.opened_ms = self.now_ms;
        let has_opened = self.shards[client.shard].counters().upgrades.value() > self.upgrades_before;
        client.ledger.has_stopped = !has_opened;
        has_opened
    }

    /// An end of a pipe that has closed gets nothing more but the answer.
    fn follow_close(&mut self, index: usize, said: &Said) {
        let client = &mut self.connections[index];
        if let (Voice::Pipe(end), Said::Close(code)) = (&mut client.voice, said)
            && client.seen.progress == Progress::Closing
        {
            let answer_len = if code.is_some() { 4 } else { 2 };
            let written = client.socket.written_by_server() + client.seen.outbox as u64;
            end.close(written.saturating_sub(answer_len));
        }
    }

    /// What an end of a pipe has sent is passed on, or kept.
    fn follow_stream(&mut self, index: usize, upto: u64, is_certain: bool) {
        let hold_max = self.setup.settings.limits.pipe_hold_bytes + self.connections[index].last_read;
        let is_moved = self.connections[index].kernel_pipe.is_some();
        let Voice::Pipe(end) = &mut self.connections[index].voice else { return };
        if is_certain && !is_moved {
            end.pass(upto);
        }
        let is_held = end.partner.is_none() && self.connections[index].ledger.is_in;
        let Voice::Pipe(end) = &self.connections[index].voice else { return };
        if is_held && end.bytes_taken(upto) > hold_max {
            fail(format!("client {index} is held and {} bytes are kept", end.bytes_taken(upto)));
        }
    }

    /// A URL that names but one id is completed before the socket goes to the pipe's home.
    fn follow_completion(&mut self, index: usize) {
        let client = &self.connections[index];
        let is_home = self.books.introductions_home(&self.connections) == Some(client.shard);
        if client.seen.is_moving && is_home && client.ledger.next(client.socket.read_by_server()).is_some() {
            self.with_books(true, |books, scene| books.complete(scene, index));
        }
    }

    /// A client is read from again whose window has ended, and what was held of it is handled. `is_tick`: nothing else
    /// can have let it go on.
    pub(super) fn follow_resume(&mut self, index: usize, is_tick: bool) {
        let client = &mut self.connections[index];
        client.heard_ms = self.now_ms;
        if !std::mem::take(&mut client.ledger.is_paused_for_rate) {
            return;
        }
        let window_end_ms = client.ledger.window.start_ms() + u64::from(PAUSE_WINDOW_MS);
        if client.seen.progress == Progress::Open && self.now_ms < window_end_ms {
            fail(format!("client {index} goes on before its window has ended"));
        }
        if client.seen.progress == Progress::Open {
            self.summary.rate_resumes += 1;
            self.handle(index, true);
        } else if is_tick && self.now_ms >= window_end_ms {
            // It was closed in the same step. If nobody is closed for others' messages, it was time that did it, and
            // it went on before; otherwise what was held of it may have been handled, or not.
            let is_certain = !self.setup.is_stepwise && self.now_ms >= window_end_ms + 2 * TICK_MS;
            if !is_certain && !client.ledger.is_harmless(client.socket.read_by_server()) {
                give_up("a client went on and was closed in one step");
            }
            self.handle(index, is_certain);
        }
    }

    /// Time has passed, and the clients that it lets go on have done so.
    pub(super) fn follow_time(&mut self, shard: usize) {
        self.with_books(true, |books, scene| books.pass_time(scene, shard));
    }

    /// Who was in a dialect and is open no longer has left it.
    pub(super) fn follow_leaves(&mut self, shard: usize) {
        let has_left = |client: &Connection| client.ledger.is_in && client.seen.progress != Progress::Open;
        let leavers = self.on_shard(shard).filter(|(_, client)| has_left(client)).map(|(index, _)| index);
        self.follow_leaving(&leavers.collect::<Vec<_>>());
        for index in std::mem::take(&mut self.resets) {
            pipes::check_reset(&self.connections, index, self.was_busy(shard));
        }
    }

    /// A client has left its dialect, if it was in one.
    pub(super) fn follow_leave(&mut self, index: usize) {
        if self.connections[index].ledger.is_in {
            self.follow_leaving(&[index]);
        }
    }

    /// These clients have left in one step, in whatever order. What they heard of each other is uncertain.
    fn follow_leaving(&mut self, leavers: &[usize]) {
        for index in leavers {
            trace!(self, "client {index} has left");
            if let Some(code) = self.connections[*index].ledger.violation.take() {
                self.with_books(true, |_, scene| scene.stop(*index, Some(code), None));
            }
        }
        for index in leavers {
            self.with_books(true, |books, scene| books.tell_of_leave(scene, *index, leavers));
        }
        for index in leavers {
            self.with_books(true, |books, scene| books.leave(scene, *index));
            let ledger = &mut self.connections[*index].ledger;
            ledger.is_in = false;
            ledger.has_stopped = true;
        }
        for index in leavers {
            if let Voice::Pipe(end) = &self.connections[*index].voice
                && let Some(partner) = end.partner.filter(|_| end.is_raw())
                && self.connections[partner].ledger.is_in
            {
                pipes::check_lost(&self.connections, partner);
            }
        }
    }

    /// What the books and the shard must agree upon after each step.
    pub(super) fn check_pauses(&self, shard: usize) {
        for (index, client) in self.on_shard(shard) {
            let is_counted = matches!(client.voice, Voice::Lobby(_) | Voice::Introductions(_));
            let is_paused = client.ledger.is_paused_for_rate;
            if client.ledger.is_in && is_counted && client.seen.is_paused != is_paused {
                fail(format!(
                    "client {index} is paused: {}, in the books: {is_paused}",
                    client.seen.is_paused
                ));
            }
            let window_end_ms = client.ledger.window.start_ms() + u64::from(PAUSE_WINDOW_MS);
            if client.ledger.is_in && is_paused && self.last_tick_ms[shard] > window_end_ms + 3 * TICK_MS {
                fail(format!("client {index} is paused although its window has ended at {window_end_ms}"));
            }
        }
    }
}
