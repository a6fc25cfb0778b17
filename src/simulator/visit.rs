//! What completions bring: reads, room to write, ends, and what is sent at the end of a turn.

use super::checks::{client_at, fail};
use super::connection::{KernelPipe, Voice};
use super::pairing;
use super::socket::{ClientEnd, Read, Write};
use super::world::{RESPONSE, World, trace};
use crate::shard::clients::Stage;

/// Milliseconds after which TCP itself finds out that a raw peer is gone (protocols.md section 0, heartbeat).
const KEEPALIVE_MS: u64 = 50_000;

impl World {
    pub(super) fn visit_connections(&mut self, shard: usize) {
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
        let silence_ms = self.now_ms - connection.last_read_ms.max(connection.last_written_ms);
        let is_away = matches!(connection.socket.client, ClientEnd::Silent | ClientEnd::Finished);
        if connection.socket.is_raw && is_away && silence_ms > KEEPALIVE_MS {
            connection.socket.client = ClientEnd::Reset;
        }
        if self.is_lost_unread(shard, index) {
            let slot = self.connections[index].slot;
            return self.step(shard, None, |shard, now_ms| shard.handle_write_failed(slot, now_ms));
        }
        let connection = &mut self.connections[index];
        // Now and then the server is told although it did not ask.
        let is_told = connection.is_blocked && connection.socket.is_writable();
        if is_told && (self.is_calm || self.chance.one_in(2)) || !self.is_calm && self.chance.one_in(300) {
            trace!(self, "client {index} is writable");
            connection.is_blocked = false;
            let slot = connection.slot;
            self.step(shard, None, |shard, _| shard.handle_writable(slot));
        }
        let reads = if self.is_calm { 1_000 } else { self.chance.below(3) };
        for _ in 0..reads {
            if self.connections[index].is_gone
                || self.connections[index].is_moving
                || self.connections[index].shard != shard
                || !self.read(shard, index)
            {
                return;
            }
        }
    }

    /// Whether a client was reset that is not read from for an open-ended time, and the world must look after that.
    fn is_lost_unread(&mut self, shard: usize, index: usize) -> bool {
        let connection = &self.connections[index];
        connection.is_parked
            && connection.socket.client == ClientEnd::Reset
            && self.shards[shard].is_paused_for_long(connection.slot)
    }

    /// Reads once; says whether there may be more.
    fn read(&mut self, shard: usize, index: usize) -> bool {
        if self.respond(shard, index) {
            return false;
        }
        let slot = self.connections[index].slot;
        if self.connections[index].kernel_pipe.is_some() {
            return self.drain_kernel_pipe(shard, index);
        }
        if self.shards[shard].is_reading_paused() {
            self.summary.reading_paused += 1;
            return false;
        }
        if self.connections[index].is_parked {
            return false;
        }
        if self.shards[shard].is_paused(slot) {
            trace!(self, "client {index} is paused");
            self.connections[index].is_parked = true;
            return false;
        }
        let max = self.draw_read_len(index);
        let connection = &mut self.connections[index];
        match connection.socket.read(max) {
            Read::Bytes(_) if !self.is_calm && self.chance.one_in(3_000) => {
                self.handle_panic(shard, index);
                false
            }
            Read::Bytes(bytes) => {
                match self.splice_target(shard, index) {
                    Some(to) => self.fill_kernel_pipe(shard, index, to, bytes),
                    None => self.handle_bytes(shard, index, bytes),
                }
                true
            }
            Read::Nothing => false,
            Read::End if self.is_calm || self.chance.one_in(3) => self.handle_end(shard, index),
            Read::Failed if self.is_calm || self.chance.one_in(3) => {
                self.handle_gone(shard, index);
                false
            }
            Read::End | Read::Failed => false,
        }
    }

    fn draw_read_len(&mut self, index: usize) -> usize {
        let max = match self.chance.below(6) {
            _ if self.is_calm || self.setup.is_flood => 64 * 1024,
            0 => self.chance.between(1..=12),
            1 => self.chance.between(1..=300),
            _ => self.chance.pick(&[500, 4_096, 64 * 1024]),
        };
        let connection = &self.connections[index];
        let left = |end: u64| end.saturating_sub(connection.socket.read_by_server()) as usize;
        match connection.ledger.next_end().map(left).filter(|left| *left > 0) {
            Some(left) if self.setup.is_stepwise && !connection.is_pairing() => max.min(left),
            _ => max,
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
            let slot = connection.slot;
            // The shard takes the time from its last input, which here may be long ago.
            self.tick(shard);
            self.step(shard, Some(index), |shard, _| shard.handle_response(slot, RESPONSE, keep_alive));
        }
        true
    }

    fn handle_bytes(&mut self, shard: usize, index: usize, mut bytes: Vec<u8>) {
        let len = bytes.len();
        let connection = &mut self.connections[index];
        connection.note_read(len, self.now_ms);
        let slot = connection.slot;
        trace!(self, "client {index}: {len} bytes are read");
        if connection.is_pairing() {
            self.read_pairing(shard, index);
        }
        self.step(shard, Some(index), |shard, now_ms| shard.handle_bytes(slot, &mut bytes, now_ms));
    }

    /// The books of pairing go ahead of the server: they need to know in which room it reads.
    fn read_pairing(&mut self, shard: usize, index: usize) {
        let connection = &mut self.connections[index];
        let Some(client) = client_at(&self.shards[shard], connection.slot) else { fail("a client vanished") };
        let before = pairing::standing(client);
        let rate_max = self.setup.settings.limits.messages_per_second_max;
        let upto = connection.socket.read_by_server();
        let mut said = Vec::new();
        while connection.ledger.next(upto).is_some() {
            said.extend(connection.ledger.take_next());
        }
        if let Voice::Pairing(account) = &mut connection.voice {
            account.handle_read(said, before, self.now_ms, rate_max);
        }
    }

    /// The server has read a client of pairing.
    pub(super) fn follow_pairing(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let Some(client) = client_at(&self.shards[connection.shard], connection.slot) else {
            fail("a client vanished")
        };
        let is_open = matches!(client.stage, Stage::Open(_));
        let position = connection.socket.written_by_server() + client.outbox.len() as u64;
        if let Voice::Pairing(account) = &mut connection.voice {
            account.handle_read_done(is_open, position);
        }
    }

    /// Where the kernel may move a raw end's bytes to, and does in this run.
    fn splice_target(&mut self, shard: usize, index: usize) -> Option<usize> {
        if !self.connections[index].socket.is_raw || !self.chance.percent(self.setup.splice_percent) {
            return None;
        }
        self.partner_in_kernel(shard, index)
    }

    fn partner_in_kernel(&mut self, shard: usize, index: usize) -> Option<usize> {
        let slot = self.shards[shard].splice_target(self.connections[index].slot)?;
        self.by_slot[shard][slot.0 as usize]
    }

    fn fill_kernel_pipe(&mut self, shard: usize, index: usize, to: usize, bytes: Vec<u8>) {
        trace!(self, "client {index}: {} bytes are taken for client {to}", bytes.len());
        self.activity += 1;
        let count = bytes.len();
        self.connections[index].note_read(count, self.now_ms);
        self.connections[index].kernel_pipe = Some(KernelPipe { to, bytes, count });
        self.write_kernel_pipe(shard, index);
    }

    /// Goes on moving what is in a kernel pipe; says whether there may be more to read.
    fn drain_kernel_pipe(&mut self, shard: usize, index: usize) -> bool {
        let to = self.connections[index].kernel_pipe.as_ref().map(|pipe| pipe.to);
        if self.partner_in_kernel(shard, index) != to {
            self.connections[index].kernel_pipe = None;
            return true;
        }
        self.write_kernel_pipe(shard, index);
        self.connections[index].kernel_pipe.is_none()
    }

    fn write_kernel_pipe(&mut self, shard: usize, index: usize) {
        let Some(mut pipe) = self.connections[index].kernel_pipe.take() else { return };
        let to = &mut self.connections[pipe.to];
        let slot = to.slot;
        match to.socket.write(&[std::io::IoSlice::new(&pipe.bytes)]) {
            Write::Took(took) => {
                self.activity += u64::from(took > 0);
                to.last_written_ms = self.now_ms;
                pipe.bytes.drain(..took);
                if !pipe.bytes.is_empty() {
                    self.connections[index].kernel_pipe = Some(pipe);
                    return;
                }
                self.summary.bytes_spliced += pipe.count as u64;
                self.step(shard, Some(index), |shard, _| shard.handle_spliced(pipe.count));
            }
            Write::Failed => {
                self.step(shard, None, |shard, now_ms| shard.handle_write_failed(slot, now_ms));
            }
        }
    }

    /// As if the server had panicked over what it read.
    fn handle_panic(&mut self, shard: usize, index: usize) {
        trace!(self, "a panic over client {index}");
        self.summary.panics += 1;
        let slot = self.connections[index].slot;
        self.step(shard, None, |shard, now_ms| shard.handle_panic(slot, now_ms));
    }

    /// A client's stream has ended; says whether there may be more to read.
    fn handle_end(&mut self, shard: usize, index: usize) -> bool {
        let slot = self.connections[index].slot;
        let mut lives_on = false;
        self.step(shard, None, |shard, now_ms| lives_on = shard.handle_end(slot, now_ms));
        trace!(self, "client {index} has ended its stream, and lives on: {lives_on}");
        if !lives_on {
            self.handle_gone(shard, index);
        } else if let Voice::Pipe(end) = &mut self.connections[index].voice {
            end.has_ended = true;
        }
        false
    }

    fn handle_gone(&mut self, shard: usize, index: usize) {
        trace!(self, "client {index} is gone");
        self.activity += 1;
        self.begin_step(shard);
        let connection = &mut self.connections[index];
        connection.is_gone = true;
        connection.request = None;
        connection.kernel_pipe = None;
        let slot = connection.slot;
        self.by_slot[shard][slot.0 as usize] = None;
        self.newly_gone.extend(client_at(&self.shards[shard], slot).map(|client| client.id));
        self.shards[shard].handle_gone(slot, self.now_ms);
        self.observe(shard);
        self.drain_events(shard, false);
        self.follow_leave(index);
        self.end_step(shard, false);
    }

    /// The end of the turn: everybody who has something to send is sent it.
    pub(super) fn flush(&mut self, shard: usize) {
        while let Some(slot) = self.shards[shard].poll_dirty() {
            let Some(index) = self.by_slot[shard][slot.0 as usize] else { fail("nobody is dirty") };
            self.begin_step(shard);
            self.write(shard, index);
            self.observe(shard);
            self.end_step(shard, false);
        }
        self.end_step(shard, false);
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
                connection.last_written_ms = self.now_ms;
                self.shards[shard].handle_sent(connection.slot, took);
            }
            if took < offered {
                trace!(self, "client {index} is blocked");
                connection.is_blocked = true;
                return self.shards[shard].handle_blocked(connection.slot);
            }
        }
    }
}
