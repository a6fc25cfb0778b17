//! The course of a run: clients come, act and go; the faults end; everybody leaves.

use super::behaviour::Behaviour;
use super::checks::{client_at, fail};
use super::socket::ClientEnd;
use super::world::{World, trace};
use crate::shard::clients::Stage;

/// Rounds after which all must have come to rest once the faults have ended.
const CALM_ROUNDS_MAX: usize = 2_000;
/// Steps of time in which clients that say too much must have been read.
const RATE_STEPS_MAX: usize = 2_000;
/// One of them in milliseconds: less than any heartbeat.
const RATE_STEP_MS: u64 = 100;
/// Seconds after which everybody must be gone: longer than any deadline.
const END_S_MAX: usize = 200;
/// Seconds after which clients end TCP whose close is not answered.
const CLIENT_PATIENCE_S: usize = 30;

impl World {
    /// Plays the whole run.
    pub(super) fn run(&mut self) {
        for _ in 0..self.setup.rounds {
            self.play_round();
        }
        self.calm();
        // Some runs end in the middle of everything.
        if !self.chance.one_in(4) {
            self.settle();
            self.check_rest();
        }
        self.end();
        self.check_end();
        self.check_busy();
    }

    fn play_round(&mut self) {
        self.round += 1;
        self.pass_time();
        for player in 0..self.players.len() {
            if self.chance.percent(40) {
                self.play_player(player);
            }
        }
        self.freeze_rings();
        for _ in 0..self.shards.len() {
            let shard = self.chance.below(self.shards.len());
            self.turn(shard);
        }
        if self.chance.one_in(25) && !self.setup.is_flood {
            self.drain_mail();
        }
    }

    fn pass_time(&mut self) {
        let ms = match self.chance.below(20) {
            0 => self.chance.below(200),
            _ if self.chance.one_in(self.setup.long_round) => self.chance.between(500..=8_000),
            _ => self.chance.below(4),
        };
        self.now_ms += ms as u64;
        trace!(self, "round {}: {ms} ms have passed, it is {}", self.round, self.now_ms);
    }

    fn freeze_rings(&mut self) {
        let pace = if self.setup.is_flood { 12 } else { 30 };
        if self.chance.one_in(pace) {
            let (from, to) = (self.chance.below(self.shards.len()), self.chance.below(self.shards.len()));
            let rounds = self.chance.pick(&[2, 10, 40]);
            self.rings.freeze(from, to, self.round + rounds);
        }
    }

    fn play_player(&mut self, player: usize) {
        let (behaviour, spoken) = (self.players[player].behaviour, self.players[player].spoken);
        let connection = self.players[player].connection;
        let Some(index) = connection.filter(|index| self.connections[*index].is_alive()) else {
            if self.chance.one_in(8) {
                let shard = self.chance.below(self.shards.len());
                self.players[player].connection = Some(self.accept(shard, spoken, behaviour));
            }
            return;
        };
        let max = self.chance.pick(&[0, 1, 50, 1_000, 1 << 17, 1 << 17, 1 << 17]);
        self.receive(index, max);
        if self.connections[index].is_alive() {
            let before = self.connections[index].socket.written_by_client();
            let (mut play, connections) = self.play();
            behaviour.act(&mut connections[index], &mut play);
            let client = &self.connections[index];
            self.summary.count_end(client.socket.client);
            let sent = client.socket.written_by_client() - before;
            trace!(self, "client {index} ({behaviour:?}) sends {sent} bytes");
        }
    }

    /// Ends the faults.
    fn calm(&mut self) {
        trace!(self, "the faults end");
        self.is_calm = true;
        self.round = u64::MAX / 2;
        self.rings.widen(512);
        for connection in &mut self.connections {
            connection.socket.calm();
        }
    }

    /// Lets everything come to rest, those too that have to wait because they said too much.
    fn settle(&mut self) {
        for _ in 0..RATE_STEPS_MAX {
            self.rest();
            let mut clients = self.connections.iter().filter(|client| !client.is_gone);
            if !clients.any(|client| client.ledger.is_paused_for_rate) {
                return self.drain_mail();
            }
            self.now_ms += RATE_STEP_MS;
        }
        fail("clients that said too much are paused for ever");
    }

    /// Lets all take turns until nothing happens any more.
    fn rest(&mut self) {
        for _ in 0..CALM_ROUNDS_MAX {
            let before = self.activity;
            for index in 0..self.connections.len() {
                if self.connections[index].is_attentive() {
                    self.connections[index].send_head(usize::MAX);
                    self.receive(index, usize::MAX);
                }
            }
            (0..self.shards.len()).for_each(|shard| self.turn(shard));
            if self.activity == before && !self.is_mail_under_way() {
                return;
            }
        }
        fail("no rest after the faults have ended");
    }

    /// Everybody leaves, or the server shuts down.
    fn end(&mut self) {
        trace!(self, "the end begins");
        match self.chance.below(3) {
            0 => self.shut_down(),
            1 => self.leave_all(true),
            _ => self.leave_all(false),
        }
        for second in 0..END_S_MAX {
            self.rest();
            if self.connections.iter().all(|connection| connection.is_gone) {
                return self.expire();
            }
            self.now_ms += 1_000;
            if second == CLIENT_PATIENCE_S {
                self.lose_patience();
            }
        }
        let left = self.connections.iter().position(|connection| !connection.is_gone);
        let left = left.map(|index| (index, &self.connections[index]));
        let client = left.and_then(|(_, left)| client_at(&self.shards[left.shard], left.slot));
        let index = left.map(|(index, _)| index);
        fail(format!("not everybody is gone after the end: {index:?}, {client:?}"));
    }

    /// Lets rooms come to their end, which outlive their members.
    fn expire(&mut self) {
        self.drain_mail();
        self.now_ms += self.setup.settings.limits.room_timeout_ms;
        self.rest();
    }

    fn shut_down(&mut self) {
        self.is_shutting_down = true;
        self.summary.shutdowns += 1;
        for shard in 0..self.shards.len() {
            self.expect_close(shard);
            self.step(shard, None, crate::shard::Shard::handle_shutdown);
            let spoken = self.chance.pick(self.setup.spoken);
            self.accept(shard, spoken, Behaviour::Behaved);
        }
    }

    /// Who is open and listens hears of the shutdown, or has been closed before.
    fn expect_close(&mut self, shard: usize) {
        let is_roomy = self.setup.is_roomy();
        for connection in &mut self.connections {
            let client = client_at(&self.shards[shard], connection.slot);
            let is_open = client.is_some_and(|client| matches!(client.stage, Stage::Open(_)));
            let is_here = connection.shard == shard && !connection.is_moving;
            connection.expects_close |= is_roomy && is_open && is_here && connection.is_attentive();
        }
    }

    fn leave_all(&mut self, politely: bool) {
        for client in &mut self.connections {
            if politely && client.is_attentive() && client.has_upgraded && !client.is_mute {
                client.send_head(usize::MAX);
                client.close(Some(1000), &mut self.chance);
            } else {
                match client.socket.client {
                    ClientEnd::Silent | ClientEnd::Open | ClientEnd::HalfFinished => {
                        client.socket.client = if politely { ClientEnd::Finished } else { ClientEnd::Reset };
                    }
                    ClientEnd::Finished | ClientEnd::Reset => {}
                }
            }
        }
    }

    /// Who has waited in vain for the answer to its close, since the server does not read it, ends TCP.
    fn lose_patience(&mut self) {
        for client in &mut self.connections {
            if client.is_alive() {
                client.socket.client = ClientEnd::Finished;
            }
        }
    }

    fn check_busy(&self) {
        let busy: u64 = self.shards.iter().map(|shard| shard.counters().server_busy.value()).sum();
        let refused = self.books.pipes.refused;
        if self.setup.is_roomy() && busy != refused {
            fail(format!("busy {busy} times, although there is room, and {refused} ends were one too many"));
        }
    }

    /// Counts what happened in the run.
    pub(super) fn count(&mut self) {
        self.summary.runs = 1;
        self.summary.pipes_refused += self.books.pipes.refused;
        for connection in &self.connections {
            self.summary.count_connection(connection);
        }
        for shard in &self.shards {
            self.summary.count_shard(shard.counters());
        }
    }
}
