//! What happens when time passes: heads that do not come, closes that are not answered, heartbeats.

use http::StatusCode;

use super::Shard;
use super::clients::Stage;
use super::timers::Tick;
use crate::id::Slot;
use crate::limits::{CLOSE_DEADLINE_MS, RATE_WINDOW_MS};
use crate::wire::frame::Opcode;

/// How often memory that nobody needs is given back.
const TRIM_MS: u64 = 1_000;

impl Shard {
    /// Time has passed. Called every [`crate::limits::TICK_MS`]; late is late, but nothing is skipped.
    pub fn handle_tick(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        let now = Tick::at(now_ms);
        self.wheel.advance(now, &mut self.due);
        while let Some((slot, tick)) = self.due.pop() {
            self.handle_deadline(slot, tick, now);
        }
        if self.trim_due <= now {
            self.trim_due = now.after(TRIM_MS);
            self.buffers.settle();
            self.buffers.trim();
            self.parser.trim();
            self.counters.buffer_bytes.set(self.buffers.used_bytes() as u64);
        }
        self.handle_dialect_time();
        self.retry_registrations();
        self.retry_pipes();
        self.deliver_local();
    }

    /// A raw end has no heartbeat (protocols.md section 0, heartbeat), nor any other deadline.
    pub(super) fn stop_heartbeat(&mut self, slot: Slot) {
        if let Some(client) = self.clients.at(slot) {
            client.deadline = Tick::default();
        }
    }

    /// Sets the client's one deadline, in place of the one before.
    pub(super) fn set_deadline(&mut self, slot: Slot, after_ms: u64) {
        let due = Tick::at(self.now_ms).after(after_ms);
        self.set_deadline_at(slot, due);
    }

    pub(super) fn set_deadline_at(&mut self, slot: Slot, due: Tick) {
        // One entry a tick is enough: entries are not removed before their time.
        if let Some(client) = self.clients.at(slot).filter(|client| client.deadline != due) {
            client.deadline = due;
            self.wheel.schedule(slot, due);
        }
    }

    /// Starts the heartbeat of a client that has just become a WebSocket.
    pub(super) fn start_heartbeat(&mut self, slot: Slot) {
        let due = Tick::at(self.now_ms).after(self.settings.limits.heartbeat_ms);
        if let Some(client) = self.clients.at(slot) {
            client.ping_due = due;
        }
        self.set_deadline_at(slot, due);
    }

    fn handle_deadline(&mut self, slot: Slot, tick: Tick, now: Tick) {
        let Some(client) = self.clients.at(slot).filter(|client| client.deadline == tick) else { return };
        let patience_ms = 2 * self.settings.limits.heartbeat_ms;
        match &client.stage {
            Stage::Head(kept) => {
                let has_begun = !kept.is_empty();
                self.counters.heads_timed_out.add(1);
                if has_begun {
                    self.refuse(slot, StatusCode::REQUEST_TIMEOUT, "the request head did not come in time");
                } else {
                    self.cut(slot);
                }
            }
            Stage::Open(_) => {
                self.resume_rate(slot, RATE_WINDOW_MS);
                self.handle_heartbeat(slot, now);
            }
            // What its partner sent before still arrives, while it takes any.
            Stage::Closing | Stage::Finishing
                if client.must_drain
                    && !client.outbox.is_empty()
                    && client.received.after(patience_ms) > now =>
            {
                self.set_deadline(slot, CLOSE_DEADLINE_MS);
            }
            Stage::Answering(_) | Stage::Closing | Stage::Finishing | Stage::Finished => self.cut(slot),
            Stage::Moving | Stage::Cut => {}
        }
    }

    /// Pings when a ping is due, and cuts who was silent for two heartbeats (protocols.md section 0, heartbeat).
    fn handle_heartbeat(&mut self, slot: Slot, now: Tick) {
        let heartbeat_ms = self.settings.limits.heartbeat_ms;
        let is_paused = self.router.update_reading_paused();
        let Some(client) = self.clients.at(slot) else { return };
        if !matches!(client.stage, Stage::Open(_)) {
            return;
        }
        if is_paused || client.paused.is_paused() {
            // It is we who do not read: its silence says nothing.
            client.received = now;
        }
        let silent_due = client.received.after(2 * heartbeat_ms);
        if silent_due <= now {
            self.counters.heartbeats_missed.add(1);
            return self.cut(slot);
        }
        let is_ping_due = client.ping_due <= now;
        if is_ping_due {
            client.ping_due = now.after(heartbeat_ms);
        }
        let next = client.ping_due.min(silent_due);
        let next = self.rate_due(slot, RATE_WINDOW_MS).map_or(next, |due| due.min(next));
        self.set_deadline_at(slot, next);
        if is_ping_due {
            self.send_frame(slot, Opcode::Ping, &[]);
        }
    }
}
