//! Clients that nothing is read from for a while: who sends too much waits, and nothing of it is lost.

use super::clients::Stage;
use super::timers::Tick;
use super::{Event, Shard};
use crate::id::Slot;
use crate::limits::TICK_MS;

/// Why nothing is read from a client; it is read from again when no reason is left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Paused(u8);

/// One reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// It has sent as many messages as its window allows.
    Rate = 1,
    /// Its partner in a pipe does not take what it sends as fast.
    Partner = 2,
    /// Its partner has not come, and enough is kept.
    Hold = 4,
    /// Its stream has ended; only its partner's goes on.
    Ended = 8,
    /// What it has said is being asked about elsewhere: what follows from it comes first.
    Answer = 16,
}

impl Paused {
    /// Whether there is any reason.
    #[must_use]
    pub fn is_paused(self) -> bool {
        self.0 != 0
    }

    /// Whether this is one of the reasons.
    #[must_use]
    pub fn has(self, reason: Reason) -> bool {
        self.0 & reason as u8 != 0
    }

    fn add(&mut self, reason: Reason) {
        self.0 |= reason as u8;
    }

    fn remove(&mut self, reason: Reason) {
        self.0 &= !(reason as u8);
    }
}

/// What was read from a client before it was paused: a message that is over its rate, and the bytes behind it.
#[derive(Debug)]
pub struct Held {
    pub(super) message: Vec<u8>,
    pub(super) bytes: Vec<u8>,
}

impl Shard {
    /// Whether nothing is to be read from this client. [`Event::Resume`] says when that is over.
    #[must_use]
    pub fn is_paused(&mut self, slot: Slot) -> bool {
        self.clients.at(slot).is_some_and(|client| client.paused.is_paused())
    }

    /// Whether both sides of a client's connection are shut: nothing of it counts any more.
    #[must_use]
    pub fn is_cut(&mut self, slot: Slot) -> bool {
        self.clients.at(slot).is_none_or(|client| matches!(client.stage, Stage::Cut))
    }

    /// Whether it may stay paused for any time, so that its end must be noticed otherwise than by reading.
    #[must_use]
    pub fn is_paused_for_long(&mut self, slot: Slot) -> bool {
        self.clients
            .at(slot)
            .is_some_and(|client| client.paused.has(Reason::Ended) || client.paused.has(Reason::Hold))
    }

    pub(super) fn pause(&mut self, slot: Slot, reason: Reason) {
        if let Some(client) = self.clients.at(slot) {
            client.paused.add(reason);
        }
    }

    /// Takes a reason away; the last one lets the client be read from again.
    pub(super) fn resume(&mut self, slot: Slot, reason: Reason) {
        let Some(client) = self.clients.at(slot) else { return };
        if client.paused.has(reason) {
            client.paused.remove(reason);
            if !client.paused.is_paused() {
                // Its silence was ours.
                client.received = Tick::at(self.now_ms);
                self.events.push_back(Event::Resume(slot));
            }
        }
    }

    /// A client that is closed is read from again, whatever it was paused for: its answer is waited for.
    pub(super) fn resume_if_paused(&mut self, slot: Slot) {
        self.release_held(slot);
        let Some(client) = self.clients.at(slot) else { return };
        if client.paused.is_paused() {
            client.paused = Paused::default();
            self.events.push_back(Event::Resume(slot));
        }
    }

    /// Stops reading from a client until its window ends. This message of it, which is over its rate, waits.
    pub(super) fn pause_for_rate(&mut self, slot: Slot, window_ms: u32, message: &[u8]) {
        let mut kept = Vec::new();
        if self.buffers.reserve(&mut kept, message.len()).is_err() {
            return self.doom_busy(slot);
        }
        kept.extend_from_slice(message);
        self.release_held(slot);
        self.pause(slot, Reason::Rate);
        let Some(client) = self.clients.at(slot) else { return };
        client.held = Some(Box::new(Held { message: kept, bytes: Vec::new() }));
        let left_ms = client.window.left_ms(self.now_ms, window_ms);
        let due = Tick::at(self.now_ms).after(left_ms.saturating_sub(TICK_MS)).min(client.deadline);
        self.set_deadline_at(slot, due);
    }

    /// These bytes came behind what made the client pause: they wait.
    pub(super) fn hold(&mut self, slot: Slot, input: &mut [u8]) {
        let Some(client) = self.clients.at(slot) else { return };
        let held =
            client.held.get_or_insert_with(|| Box::new(Held { message: Vec::new(), bytes: Vec::new() }));
        match self.buffers.reserve(&mut held.bytes, input.len()) {
            Ok(()) => held.bytes.extend_from_slice(input),
            Err(_) => {
                self.doom_busy(slot);
                self.settle();
                self.discard(slot, input);
            }
        }
    }

    /// Goes on with a client whose window has ended; says whether it was that what it waited for.
    pub(super) fn resume_rate(&mut self, slot: Slot, window_ms: u32) -> bool {
        let now_ms = self.now_ms;
        let Some(client) = self.clients.at(slot) else { return false };
        if !client.paused.has(Reason::Rate) || client.window.left_ms(now_ms, window_ms) > 0 {
            return false;
        }
        let held = client.held.take();
        self.resume(slot, Reason::Rate);
        if let Some(held) = held {
            let Held { message, mut bytes } = *held;
            self.in_hand_bytes += message.capacity() + bytes.capacity();
            self.handle_message(slot, &message);
            self.handle_frames(slot, &mut bytes);
            self.in_hand_bytes -= message.capacity() + bytes.capacity();
            self.buffers.release(message);
            self.buffers.release(bytes);
        }
        true
    }

    /// Stops reading from a client until [`Shard::resume_answered`]: what it has said is being asked about.
    pub(super) fn await_answer(&mut self, slot: Slot) {
        self.pause(slot, Reason::Answer);
    }

    /// Goes on with a client that has its answer. [`Shard::settle`] follows.
    pub(super) fn resume_answered(&mut self, slot: Slot) {
        let Some(client) = self.clients.at(slot).filter(|client| client.paused.has(Reason::Answer)) else {
            return;
        };
        // What is over its rate is not held behind what is asked about.
        let held = client.held.take();
        self.resume(slot, Reason::Answer);
        if let Some(held) = held {
            let Held { message, mut bytes } = *held;
            self.in_hand_bytes += bytes.capacity();
            self.handle_frames(slot, &mut bytes);
            self.in_hand_bytes -= bytes.capacity();
            self.buffers.release(message);
            self.buffers.release(bytes);
        }
    }

    /// Reads over what was held of a client that is to be closed, so that its answer is found behind it. Says whether
    /// it is among it.
    pub(super) fn discard_held(&mut self, slot: Slot) -> bool {
        let Some(client) = self.clients.at(slot) else { return false };
        let Some(held) = client.held.take() else { return false };
        let Held { message, mut bytes } = *held;
        let has_closed = client.connection.discard(&mut bytes);
        self.buffers.release(message);
        self.buffers.release(bytes);
        has_closed
    }

    /// Gives the memory of what was held back.
    pub(super) fn release_held(&mut self, slot: Slot) {
        let held = self.clients.at(slot).and_then(|client| client.held.take());
        if let Some(held) = held {
            self.buffers.release(held.message);
            self.buffers.release(held.bytes);
        }
    }

    /// When a paused client is to be looked at again, if time alone may let it go on.
    pub(super) fn rate_due(&mut self, slot: Slot, window_ms: u32) -> Option<Tick> {
        let now_ms = self.now_ms;
        let client = self.clients.at(slot).filter(|client| client.paused.has(Reason::Rate))?;
        matches!(client.stage, Stage::Open(_))
            .then(|| Tick::at(now_ms).after(client.window.left_ms(now_ms, window_ms)))
    }
}
