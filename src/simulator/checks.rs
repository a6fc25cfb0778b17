//! What must hold in the whole world: docs/ARCHITECTURE.md, "What must hold, always", for pairing.

use super::account::{Standing, check_received_all};
use super::connection::Connection;
use super::world::World;
use crate::id::{ClientId, Slot, Text};
use crate::limits::{CLOSE_DEADLINE_MS, MAIL_WAITING_MAX, TICK_MS};
use crate::shard::Shard;
use crate::shard::clients::{Client, Stage};
use crate::shard::dialects::Dialect;
use crate::shard::mail::Mail;

/// Most bytes that a relayed message is longer than what the client sent, and the longest close frame.
const ENVELOPE_BYTES_MAX: usize = 128;
const CLOSE_FRAME_BYTES_MAX: usize = 127;

/// Ends the run: something does not hold.
pub(super) fn fail(message: impl Into<String>) -> ! {
    // Not a panic of its own: the message is for the runner, not for the panic hook.
    std::panic::resume_unwind(Box::new(message.into()))
}

/// The client in a slot.
pub(super) fn client_at(shard: &Shard, slot: Slot) -> Option<&Client> {
    shard.clients().iter().find(|client| client.id.slot() == slot)
}

/// Where the server has a client.
pub(super) fn standing(client: &Client) -> Standing {
    match &client.stage {
        Stage::Head(_) | Stage::Answering(_) => Standing::Head,
        Stage::Open(Dialect::Pairing(state)) => match state.room() {
            Some(room) => Standing::Paired(room.text()),
            None if state.is_waiting() => Standing::Waiting,
            None => Standing::Idle,
        },
        Stage::Open(_) => Standing::Idle,
        Stage::Moving | Stage::Closing | Stage::Finishing | Stage::Finished | Stage::Cut => Standing::Closed,
    }
}

fn partner(client: &Client) -> Option<(Text, ClientId)> {
    match &client.stage {
        Stage::Open(Dialect::Pairing(state)) => state.partner().map(|(room, partner)| (room.text(), partner)),
        _ => None,
    }
}

impl World {
    /// What holds after every turn of a shard.
    pub(super) fn check_shard(&mut self, index: usize) {
        let limits = &self.setup.settings.limits;
        let outbox_max = limits.outbox_bytes_max.max(limits.message_bytes_max + ENVELOPE_BYTES_MAX);
        let budget = limits.shard_buffer_bytes;
        let shard = &mut self.shards[index];
        let waiting = shard.counters().mail_waiting.value() as usize;
        let is_paused = shard.is_reading_paused();
        if waiting > MAIL_WAITING_MAX && !is_paused || waiting <= MAIL_WAITING_MAX / 2 && is_paused {
            fail(format!("{waiting} pieces of mail wait, and reading is paused: {is_paused}"));
        }
        let used = shard.buffer_bytes();
        if used > budget + waiting * size_of::<Mail>() {
            fail(format!("shard {index} uses {used} bytes of {budget}, with {waiting} pieces of mail"));
        }
        for client in shard.clients().iter() {
            if client.outbox.len() > outbox_max + CLOSE_FRAME_BYTES_MAX {
                fail(format!("an outbox of {} bytes, over {outbox_max}", client.outbox.len()));
            }
            if let Some((_, partner)) = partner(client)
                && self.gone.contains(&partner)
            {
                fail(format!("{:?} is matched with {partner:?}, who is gone", client.id));
            }
        }
    }

    /// What holds after a tick: who is silent for too long is cut, and who is closed does not stay.
    pub(super) fn check_deadlines(&self, shard: usize) {
        let silence_ms_max = 2 * self.setup.settings.limits.heartbeat_ms + 3 * TICK_MS;
        let ending_ms_max = CLOSE_DEADLINE_MS + 3 * TICK_MS;
        for (index, connection) in self.on_shard(shard) {
            let Some(client) = client_at(&self.shards[shard], connection.slot) else { continue };
            let silence_ms = self.now_ms - connection.last_read_ms;
            let is_open = matches!(client.stage, Stage::Open(_));
            // A flood keeps the server from reading.
            if is_open && silence_ms > silence_ms_max && !self.setup.is_flood {
                fail(format!("client {index} is silent for {silence_ms} ms and not cut"));
            }
            let ending_ms = connection.ending.map_or(0, |(_, since_ms)| self.now_ms - since_ms);
            if ending_ms > ending_ms_max && !connection.socket.is_cut {
                fail(format!("client {index} is closed for {ending_ms} ms and not cut"));
            }
        }
    }

    /// What holds when no mail is under way.
    pub(super) fn check_quiet(&self) {
        let clients: Vec<&Client> = self.shards.iter().flat_map(|shard| shard.clients().iter()).collect();
        for client in &clients {
            let Some((room, partner_id)) = partner(client) else { continue };
            let other = clients.iter().find(|other| other.id == partner_id);
            if other.and_then(|other| partner(other)) != Some((room, client.id)) {
                fail(format!("{:?} is paired with {partner_id:?}, but not the other way round", client.id));
            }
        }
        let waiting: Vec<ClientId> = clients
            .iter()
            .filter(|client| standing(client) == Standing::Waiting)
            .map(|client| client.id)
            .collect();
        let queue: Vec<ClientId> = self.shards.iter().filter_map(Shard::waiting_in_queue).collect();
        if waiting != queue || queue.len() > 1 || self.shards[0].waiting_in_queue() != queue.first().copied()
        {
            fail(format!("{waiting:?} wait, in the queue is {queue:?}"));
        }
        for connection in self.connections.iter().filter(|connection| !connection.is_gone) {
            if let Some(client) = client_at(&self.shards[connection.shard], connection.slot) {
                connection.account.check_idle(standing(client));
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
            match standing(client) {
                Standing::Head if connection.answers() < connection.requests => {
                    fail(format!("client {index} has not got an answer to each request"))
                }
                Standing::Closed if connection.has_closed() => {
                    fail(format!("client {index} and the server have closed, but not TCP"))
                }
                Standing::Head | Standing::Closed => continue,
                standing => connection.account.check_at_rest(standing),
            }
            check_received_all(&self.connections, index);
        }
        self.check_idle_memory();
    }

    /// An idle client owns no buffer.
    fn check_idle_memory(&mut self) {
        for shard in 0..self.shards.len() {
            let is_idle = |connection: &Connection| {
                let client = client_at(&self.shards[shard], connection.slot);
                let is_open = client.is_some_and(|client| matches!(client.stage, Stage::Open(_)));
                is_open && connection.is_attentive() && !connection.is_mute
            };
            let are_idle = self.on_shard(shard).all(|(_, connection)| is_idle(connection));
            let used = self.shards[shard].buffer_bytes();
            if are_idle && used > 0 {
                fail(format!("all clients of shard {shard} are idle, and {used} bytes are in use"));
            }
        }
    }

    /// What holds when everybody has left.
    pub(super) fn check_end(&mut self) {
        for (index, connection) in self.connections.iter().enumerate() {
            if connection.expects_close && !connection.account.is_closed {
                fail(format!("client {index} was not told of the shutdown"));
            }
        }
        for (index, shard) in self.shards.iter_mut().enumerate() {
            let counters = shard.counters();
            let left = (shard.connections(), counters.connections.value(), counters.clients.value());
            if left != (0, 0, 0) {
                fail(format!("shard {index} still has {left:?} connections and clients"));
            }
            if shard.waiting_in_queue().is_some() {
                fail("somebody who left is still in the queue");
            }
            let used = shard.buffer_bytes();
            if used != 0 {
                fail(format!("{used} bytes of buffers of shard {index} did not come back"));
            }
        }
    }
}
