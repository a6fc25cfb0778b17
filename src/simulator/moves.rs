//! Events: what a shard asks of whoever holds the sockets, and sockets on their way between shards.

use super::checks::{client_at, fail};
use super::connection::Progress;
use super::pipes;
use super::world::{Departed, Waiting, World, trace};
use crate::id::{ShardIndex, Slot};
use crate::shard::Event;
use crate::shard::arrival::Arrival;
use crate::wire::http::wants_keep_alive;

impl World {
    pub(super) fn drain_events(&mut self, shard: usize, is_tick: bool) {
        while let Some(event) = self.shards[shard].poll_event() {
            self.activity += 1;
            let slot = slot_of(&event);
            let index = self.by_slot[shard].get(slot.0 as usize).copied().flatten();
            let Some(index) = index else { fail(format!("{} of nobody", name_of(&event))) };
            trace!(self, "client {index}: {}", name_of(&event));
            match event {
                Event::Request { head, .. } => {
                    self.connections[index].request = Some(wants_keep_alive(&head));
                }
                Event::Move { to, arrival, .. } => self.handle_move(shard, index, to, arrival),
                Event::Resume(_) => {
                    self.connections[index].is_parked = false;
                    self.summary.resumes += 1;
                    self.follow_resume(index, is_tick);
                }
                Event::OpenedRaw(_) if self.connections[index].is_raw() => {
                    self.connections[index].socket.is_raw = true;
                }
                Event::OpenedRaw(_) => fail("raw, but not asked for"),
                Event::FinishWriting(_) => self.finish_writing(index),
                Event::Cut(_) => self.cut(index, is_tick),
                Event::Reset(_) => self.reset(index),
            }
        }
    }

    fn finish_writing(&mut self, index: usize) {
        let connection = &self.connections[index];
        let socket = &connection.socket;
        if socket.is_finished && !socket.is_raw || socket.is_cut || socket.is_reset {
            fail("writing was finished twice");
        }
        if connection.is_raw() && connection.seen.progress == Progress::Open {
            pipes::check_finish(&self.connections, index);
            self.summary.ends_passed_on += 1;
        }
        self.connections[index].socket.is_finished = true;
    }

    fn cut(&mut self, index: usize, is_tick: bool) {
        let connection = &mut self.connections[index];
        if connection.socket.is_cut || connection.socket.is_reset {
            fail("a socket was cut twice");
        }
        connection.socket.is_cut = true;
        connection.is_parked = false;
        let silence_ms = self.now_ms - connection.heard_ms;
        let patience_ms = 2 * self.setup.settings.limits.heartbeat_ms;
        if is_tick && silence_ms >= patience_ms {
            return self.follow_leave(index);
        }
        if is_tick && connection.ledger.is_in && self.setup.is_roomy() {
            fail(format!("client {index} was cut after {silence_ms} ms of silence"));
        }
    }

    fn reset(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if connection.socket.is_cut || connection.socket.is_reset || !connection.socket.is_raw {
            fail("a socket was reset that is not to be");
        }
        connection.socket.reset(&mut self.chance);
        connection.is_parked = false;
        self.summary.resets_passed_on += 1;
        self.resets.push(index);
    }

    /// A socket leaves for another shard. Now and then there is no file for it.
    fn handle_move(&mut self, shard: usize, index: usize, to: ShardIndex, arrival: Box<Arrival>) {
        let slot = self.connections[index].slot;
        self.by_slot[shard][slot.0 as usize] = None;
        let delay = if self.is_calm { 0 } else { self.chance.pick(&[0, 0, 1, 5]) };
        self.departed.push(Departed { shard, slot, due: self.round + delay });
        self.summary.moves += 1;
        let connection = &mut self.connections[index];
        if !self.is_calm && self.chance.one_in(60) {
            trace!(self, "client {index} is dropped");
            self.summary.moves_dropped += 1;
            connection.is_gone = true;
            return connection.socket.drop_in_transit();
        }
        connection.is_moving = true;
        self.waiting[shard].push_back(Waiting { to: to.position(), index, arrival });
    }

    /// The shards that sockets have left are told so.
    pub(super) fn finish_departures(&mut self, shard: usize) {
        let round = self.round;
        let due: Vec<Departed> =
            self.departed.iter().copied().filter(|one| one.shard == shard && one.due <= round).collect();
        self.departed.retain(|one| one.shard != shard || one.due > round);
        for Departed { slot, .. } in due {
            self.step(shard, None, |shard, now_ms| shard.handle_gone(slot, now_ms));
        }
    }

    /// A socket has come from another shard.
    pub(super) fn handle_arrival(&mut self, shard: usize, index: usize, arrival: Arrival) {
        self.activity += 1;
        self.begin_step(shard);
        let Some(slot) = self.shards[shard].handle_arrival(arrival, self.now_ms) else {
            fail("no slot is free")
        };
        let id = client_at(&self.shards[shard], slot).map(|client| client.id.text());
        let Some(id) = id else { fail("arrived, but not there") };
        self.connections[index].arrive(shard, slot, id, self.now_ms);
        self.take_slot(shard, slot, index);
        trace!(self, "client {index} arrives on shard {shard}, slot {}", slot.0);
        self.observe(shard);
        self.follow(index);
        self.end_step(shard, false);
    }
}

fn slot_of(event: &Event) -> Slot {
    let (Event::Request { slot, .. }
    | Event::Move { slot, .. }
    | Event::Resume(slot)
    | Event::OpenedRaw(slot)
    | Event::FinishWriting(slot)
    | Event::Cut(slot)
    | Event::Reset(slot)) = event;
    *slot
}

fn name_of(event: &Event) -> &'static str {
    match event {
        Event::Request { .. } => "a plain request",
        Event::Move { .. } => "its socket leaves for another shard",
        Event::Resume(_) => "it is read from again",
        Event::OpenedRaw(_) => "its socket carries raw bytes",
        Event::FinishWriting(_) => "its socket's writing side is shut",
        Event::Cut(_) => "its socket is cut",
        Event::Reset(_) => "its socket is reset",
    }
}
