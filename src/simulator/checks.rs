//! What must hold in the whole world: docs/ARCHITECTURE.md, "What must hold, always".

use super::books;
use super::connection::{Connection, Progress, Voice};
use super::pairing::{Standing, check_received_all, standing};
use super::socket::ClientEnd;
use super::world::World;
use crate::id::Slot;
use crate::limits::{
    CLOSE_DEADLINE_MS, MAIL_WAITING_MAX, PIPE_OUTBOX_BYTES_HIGH, PIPE_OUTBOX_BYTES_LOW, READ_SCRATCH_BYTES,
    TICK_MS,
};
use crate::shard::Shard;
use crate::shard::clients::{Client, Stage};
use crate::shard::mail::Mail;

/// Most bytes that a message is longer than the longest that a client sent, once quoted, and the longest close frame.
const ENVELOPE_BYTES_MAX: usize = 4_096;
const QUOTED_FACTOR: usize = 6;
const CLOSE_FRAME_BYTES_MAX: usize = 127;

/// Ends the run: something does not hold.
pub(super) fn fail(message: impl Into<String>) -> ! {
    // Not a panic of its own: the message is for the runner, not for the panic hook.
    std::panic::resume_unwind(Box::new(message.into()))
}

/// The books cannot tell any more what must hold.
pub(super) struct Undecided(pub(super) &'static str);

/// Ends the run early, and not because something does not hold.
pub(super) fn give_up(why: &'static str) -> ! {
    std::panic::resume_unwind(Box::new(Undecided(why)))
}

/// The client in a slot.
pub(super) fn client_at(shard: &Shard, slot: Slot) -> Option<&Client> {
    shard.clients().iter().find(|client| client.id.slot() == slot)
}

impl World {
    /// What holds after every turn of a shard.
    pub(super) fn check_shard(&mut self, index: usize) {
        let limits = &self.setup.settings.limits;
        let budget = limits.shard_buffer_bytes;
        let is_pairing = self.setup.is_pairing();
        let message_max = limits.message_bytes_max * if is_pairing { 1 } else { QUOTED_FACTOR };
        let envelope = if is_pairing { CLOSE_FRAME_BYTES_MAX } else { ENVELOPE_BYTES_MAX };
        let outbox_max = limits.outbox_bytes_max.max(message_max + envelope) + CLOSE_FRAME_BYTES_MAX;
        // One read may come on top, each of its bytes a frame of its own at the worst, and pongs while little waits.
        let kept_max = limits.pipe_hold_bytes.max(PIPE_OUTBOX_BYTES_HIGH);
        let pipe_max = kept_max + READ_SCRATCH_BYTES + PIPE_OUTBOX_BYTES_LOW;
        let shard = &mut self.shards[index];
        let waiting = shard.counters().mail_waiting.value() as usize;
        let is_paused = shard.is_reading_paused();
        if waiting > MAIL_WAITING_MAX && !is_paused || waiting <= MAIL_WAITING_MAX / 2 && is_paused {
            fail(format!("{waiting} pieces of mail wait, and reading is paused: {is_paused}"));
        }
        let used = shard.buffer_bytes();
        let introductions = self.books.introductions.bytes_max();
        if used > budget + waiting * size_of::<Mail>() + introductions {
            fail(format!("shard {index} uses {used} bytes of {budget}, with {waiting} pieces of mail"));
        }
        for (index, connection) in self.on_shard(index) {
            let max = if connection.is_pipe() { pipe_max } else { outbox_max };
            if connection.seen.outbox > max {
                fail(format!("client {index} has an outbox of {} bytes, over {max}", connection.seen.outbox));
            }
        }
        self.check_partners(index);
    }

    /// Remembers since when connections are in the stage before their end.
    pub(super) fn note_endings(&mut self, shard: usize) {
        for index in self.by_slot[shard].iter().flatten() {
            let connection = &mut self.connections[*index];
            let client = client_at(&self.shards[shard], connection.slot);
            let is_closing = match client.map(|client| &client.stage) {
                Some(Stage::Closing) => true,
                Some(Stage::Finishing | Stage::Finished) => false,
                _ => continue,
            };
            // What a partner has sent still goes out, while it does.
            let is_draining = client.is_some_and(|client| client.must_drain && !client.outbox.is_empty());
            let was_closing = connection.ending.map(|(was_closing, _)| was_closing);
            connection.draining_since_ms =
                is_draining.then(|| connection.draining_since_ms.unwrap_or(self.now_ms));
            if is_draining || was_closing != Some(is_closing) {
                connection.ending = Some((is_closing, self.now_ms));
            }
        }
    }

    /// What holds after a tick: who is silent for too long is cut, and who is closed does not stay.
    pub(super) fn check_deadlines(&mut self, shard: usize) {
        let patience_ms = 2 * self.setup.settings.limits.heartbeat_ms;
        let ending_ms_max = CLOSE_DEADLINE_MS + 3 * TICK_MS;
        for index in self.by_slot[shard].iter().copied().flatten() {
            let connection = &mut self.connections[index];
            if connection.seen.is_paused {
                connection.heard_ms = self.now_ms;
            }
            let silence_ms = self.now_ms - connection.heard_ms.max(connection.opened_ms);
            let is_open = connection.seen.progress == Progress::Open && !connection.socket.is_raw;
            // A flood keeps the server from reading.
            if is_open && silence_ms > patience_ms + 3 * TICK_MS && !self.setup.is_flood {
                fail(format!("client {index} is silent for {silence_ms} ms and not cut"));
            }
            let ending_ms = connection.ending.map_or(0, |(_, since_ms)| self.now_ms - since_ms);
            if ending_ms > ending_ms_max && !connection.socket.is_cut {
                fail(format!("client {index} is closed for {ending_ms} ms and not cut"));
            }
            let alive_ms = connection.last_written_ms.max(connection.last_read_ms);
            let since_ms = connection.draining_since_ms.unwrap_or(self.now_ms).max(alive_ms);
            let stuck_ms = self.now_ms - since_ms;
            if stuck_ms > patience_ms + 2 * CLOSE_DEADLINE_MS && !connection.socket.is_cut {
                fail(format!("client {index} takes nothing for {stuck_ms} ms and is not cut"));
            }
        }
    }

    /// What holds when the faults have ended and all has come to rest.
    pub(super) fn check_rest(&mut self) {
        for (index, connection) in self.connections.iter().enumerate() {
            if !connection.is_attentive() {
                continue;
            }
            let Some(client) = client_at(&self.shards[connection.shard], connection.slot) else {
                fail(format!("client {index} is not gone and not there"))
            };
            if !client.outbox.is_empty() {
                fail(format!("{} bytes for client {index} are never sent", client.outbox.len()));
            }
            if connection.is_parked && !client.paused.is_paused() {
                fail(format!("client {index} is never read from again"));
            }
            match standing(client) {
                Standing::Head if connection.answers() < connection.requests => {
                    fail(format!("client {index} has not got an answer to each request"))
                }
                Standing::Closed if connection.has_closed() => {
                    fail(format!("client {index} and the server have closed, but not TCP"))
                }
                Standing::Closed => self.check_closed(index),
                Standing::Head => {}
                standing => self.check_open(index, standing),
            }
        }
        self.check_idle_memory();
        if self.setup.is_lobby() {
            self.books.lobby.directory.check_server(&self.shards);
            self.check_rooms();
        }
    }

    fn check_open(&self, index: usize, standing: Standing) {
        let connection = &self.connections[index];
        if let Voice::Pairing(account) = &connection.voice {
            account.check_at_rest(standing);
            return check_received_all(&self.connections, index);
        }
        if !connection.ledger.is_in || !connection.is_open {
            fail(format!("client {index} is open, but was not told or is not in the books"));
        }
        let is_read = !connection.seen.is_paused && connection.kernel_pipe.is_none();
        if is_read && connection.socket.unread_by_server() > 0 {
            fail(format!("client {index} is open, but what it says is not read"));
        }
        books::check_at_rest(&self.books, &self.connections, index);
    }

    /// Who is closed was told why, if the books knew.
    fn check_closed(&self, index: usize) {
        let connection = &self.connections[index];
        if let (false, Some(expected)) = (connection.socket.is_cut, connection.ledger.next_expected()) {
            fail(format!("client {index} is closed and never heard {expected:?}"));
        }
    }

    /// The server's own number of rooms is that of the books.
    fn check_rooms(&self) {
        let rooms: u64 = self.shards.iter().map(|shard| shard.counters().rooms.value()).sum();
        let (least, most) = self.books.lobby.rooms.live();
        if !(least..=most).contains(&rooms) {
            fail(format!("{rooms} rooms live, but it should be {least} to {most}"));
        }
    }

    /// An idle client owns no buffer. What introductions keep, and ends of pipes that wait, is not idle.
    fn check_idle_memory(&mut self) {
        for shard in 0..self.shards.len() {
            let is_idle = |connection: &Connection| {
                let is_open = connection.seen.progress == Progress::Open;
                let keeps = match &connection.voice {
                    Voice::Introductions(_) => true,
                    Voice::Pipe(end) => end.partner.is_none(),
                    Voice::Pairing(_) | Voice::Rendezvous(_) | Voice::Lobby(_) => false,
                };
                is_open && connection.is_attentive() && !connection.is_mute && !keeps
            };
            let are_idle = self.on_shard(shard).all(|(_, connection)| is_idle(connection));
            let used = self.shards[shard].buffer_bytes();
            if are_idle && used > 0 {
                let clients: Vec<usize> = self.on_shard(shard).map(|(index, _)| index).collect();
                fail(format!("clients {clients:?} of shard {shard} are idle, and {used} bytes are in use"));
            }
        }
    }

    /// What holds when everybody has left and all rooms have come to their end.
    pub(super) fn check_end(&mut self) {
        for (index, connection) in self.connections.iter().enumerate() {
            let is_told = connection.ledger.is_closed
                || connection.socket.is_raw && connection.socket.client != ClientEnd::Open;
            if connection.expects_close && !is_told {
                fail(format!("client {index} was not told of the shutdown"));
            }
        }
        self.check_rooms();
        if !self.departed.is_empty() || self.is_mail_under_way() {
            fail("something is still under way");
        }
        for (index, shard) in self.shards.iter_mut().enumerate() {
            let counters = shard.counters();
            let left = (shard.connections(), counters.connections.value(), counters.clients.value());
            if left != (0, 0, 0) {
                fail(format!("shard {index} still has {left:?} connections and clients"));
            }
            let gauges = [&counters.rendezvous_clients, &counters.directory_clients, &counters.pipes_held];
            if gauges.iter().any(|gauge| gauge.value() > 0) || counters.rooms.value() > 0 {
                fail(format!("shard {index} still counts somebody: {counters:?}"));
            }
            if shard.waiting_in_queue().is_some() {
                fail("somebody who left is still in the queue");
            }
            if !shard.has_no_keys() {
                fail(format!("a key without members is left on shard {index}"));
            }
            let used = shard.buffer_bytes();
            if used != 0 {
                fail(format!("{used} bytes of buffers of shard {index} did not come back"));
            }
        }
    }
}
