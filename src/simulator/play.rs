//! The course of a run: clients come, act and go; the faults end; everybody leaves.

use super::account::receive_text;
use super::checks::{client_at, fail};
use super::client::Incoming;
use super::socket::ClientEnd;
use super::world::{RESPONSE, World, trace};
use crate::shard::clients::Stage;
use crate::wire::frame::Opcode;

/// Rounds after which all must have come to rest once the faults have ended.
const CALM_ROUNDS_MAX: usize = 2_000;
/// Seconds after which everybody must be gone: longer than any deadline.
const END_S_MAX: usize = 150;

impl World {
    /// Plays the whole run.
    pub(super) fn play(&mut self) {
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
        self.count();
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
        let behaviour = self.players[player].behaviour;
        let connection = self.players[player].connection;
        let Some(index) = connection.filter(|index| self.connections[*index].is_alive()) else {
            if self.chance.one_in(8) {
                let shard = self.chance.below(self.shards.len());
                let index = self.accept(shard);
                self.players[player].connection = Some(index);
                behaviour.connect(&mut self.connections[index], &mut self.chance);
            }
            return;
        };
        let max = self.chance.pick(&[0, 1, 50, 1_000, 1 << 17, 1 << 17, 1 << 17]);
        self.receive(index, max);
        let client = &mut self.connections[index];
        if client.is_alive() {
            let before = client.socket.written_by_client();
            behaviour.act(client, &mut self.chance, &self.setup);
            self.summary.count_end(client.socket.client);
            let sent = client.socket.written_by_client() - before;
            trace!(self, "client {index} ({behaviour:?}) sends {sent} bytes");
        }
    }

    /// A client reads at most so many bytes, and does at once what a WebSocket library does.
    pub(super) fn receive(&mut self, index: usize, max: usize) {
        let client = &mut self.connections[index];
        if client.never_reads || client.socket.client != ClientEnd::Open {
            return;
        }
        let bytes = client.socket.receive(max);
        if !bytes.is_empty() {
            self.activity += 1;
            client.reader.push(&bytes);
        }
        while let Some(incoming) = self.connections[index].reader.poll() {
            self.receive_one(index, incoming);
        }
        let client = &mut self.connections[index];
        let is_stubborn = client.ignores_close && !self.is_calm && !client.socket.is_cut;
        if client.socket.has_ended_for_client() && !is_stubborn {
            self.activity += 1;
            client.end(ClientEnd::Finished);
        }
    }

    fn receive_one(&mut self, index: usize, incoming: Incoming) {
        let client = &mut self.connections[index];
        match incoming {
            Incoming::Upgraded if client.has_upgraded => {}
            Incoming::Upgraded => fail("a 101 that was not asked for"),
            Incoming::Http(bytes) => receive_http(&mut client.http, &bytes),
            Incoming::Frame { .. } if client.account.is_closed => fail("a frame after a close"),
            Incoming::Frame { opcode: Opcode::Text, payload, at } => {
                trace!(self, "client {index} receives {}", String::from_utf8_lossy(&payload));
                receive_text(&mut self.connections, index, &payload, at);
            }
            Incoming::Frame { opcode: Opcode::Ping, payload, .. } => {
                self.summary.heartbeats += 1;
                client.pong(&payload, &mut self.chance);
            }
            Incoming::Frame { opcode: Opcode::Pong, payload, .. } => client.account.receive_pong(&payload),
            Incoming::Frame { opcode: Opcode::Close, payload, .. } => self.receive_close(index, &payload),
            Incoming::Frame { opcode, .. } => fail(format!("a frame of {opcode:?}")),
        }
    }

    fn receive_close(&mut self, index: usize, payload: &[u8]) {
        trace!(self, "client {index} receives a close: {}", payload.escape_ascii());
        let client = &mut self.connections[index];
        let is_expected = client.account.receive_close(payload);
        if !is_expected {
            let counters = self.shards[client.shard].counters();
            let (code, reason) = payload.split_at_checked(2).unwrap_or_default();
            let is_own = match (code, reason) {
                ([0x03, 0xe9], b"Server shutting down") => self.is_shutting_down,
                ([0x03, 0xf5], b"too slow") => counters.too_slow.value() > 0,
                ([0x03, 0xf5], b"server busy") => counters.server_busy.value() > 0,
                _ => false,
            };
            if !is_own {
                fail(format!("client {index} was closed: {}", payload.escape_ascii()));
            }
        }
        if !client.ignores_close {
            let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
            client.close(code, &mut self.chance);
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

    /// Lets everything come to rest.
    fn settle(&mut self) {
        self.rest();
        self.drain_mail();
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
        for _ in 0..END_S_MAX {
            self.rest();
            if self.connections.iter().all(|connection| connection.is_gone) {
                return self.drain_mail();
            }
            self.now_ms += 1_000;
        }
        fail("not everybody is gone after the end");
    }

    fn shut_down(&mut self) {
        self.is_shutting_down = true;
        self.summary.shutdowns += 1;
        for shard in 0..self.shards.len() {
            self.expect_close(shard);
            self.shards[shard].handle_shutdown(self.now_ms);
            self.drain_events(shard);
            self.accept(shard);
        }
    }

    /// Who is open and listens hears of the shutdown, or has been closed before.
    fn expect_close(&mut self, shard: usize) {
        let is_roomy = self.setup.is_roomy();
        for connection in &mut self.connections {
            let client = client_at(&self.shards[shard], connection.slot);
            let is_open = client.is_some_and(|client| matches!(client.stage, Stage::Open(_)));
            connection.expects_close |=
                is_roomy && is_open && connection.shard == shard && connection.is_attentive();
        }
    }

    fn leave_all(&mut self, politely: bool) {
        for client in &mut self.connections {
            if politely && client.is_attentive() && client.has_upgraded && !client.is_mute {
                client.send_head(usize::MAX);
                client.close(Some(1000), &mut self.chance);
            } else if client.socket.client == ClientEnd::Silent || client.socket.client == ClientEnd::Open {
                client.socket.client = if politely { ClientEnd::Finished } else { ClientEnd::Reset };
            }
        }
    }

    fn count(&mut self) {
        if self.setup.is_roomy() && self.shards.iter().any(|shard| shard.counters().server_busy.value() > 0) {
            fail("busy, although there is room");
        }
        self.summary.runs = 1;
        for connection in &self.connections {
            self.summary.frames_relayed += connection.account.relays_received;
        }
        for shard in &self.shards {
            self.summary.count_shard(shard.counters());
        }
    }
}

/// Plain HTTP is answers to requests, and perhaps a refusal in the end.
fn receive_http(received: &mut Vec<u8>, bytes: &[u8]) {
    received.extend_from_slice(bytes);
    let mut rest = received.as_slice();
    while let Some(after) = rest.strip_prefix(RESPONSE) {
        rest = after;
    }
    let refusal = b"HTTP/1.1 4";
    let len = rest.len().min(refusal.len());
    if !RESPONSE.starts_with(rest) && rest[..len] != refusal[..len] {
        fail(format!("not HTTP: {}", rest.escape_ascii()));
    }
}
