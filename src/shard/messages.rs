//! What clients say once they are WebSockets, and what follows from it.

use arrayvec::ArrayVec;
use bytes::Bytes;

use super::clients::Stage;
use super::mail::{FrameBytes, Mail, RoomFrame};
use super::{PAIRING_HOME, Shard};
use crate::buffers::Exhausted;
use crate::id::{ClientId, RoomId, ShardIndex, Slot};
use crate::limits::MAIL_INLINE_BYTES;
use crate::plant::Plant;
use crate::protocol::pairing::Note;
use crate::protocol::{self, Action, Actions, Address, Dialect, Part};
use crate::websocket::connection::{Event, Failure, Kind, Payload};
use crate::wire::frame::{Opcode, ServerHeader};

/// The window of pairing's rate limit.
const RATE_WINDOW_MS: u32 = 1_000;

impl Shard {
    /// Bytes came from an open WebSocket.
    pub(super) fn handle_frames(&mut self, slot: Slot, input: &mut [u8]) {
        let mut cursor = 0;
        loop {
            let Some(client) = self.clients.at(slot) else { return };
            if !matches!(client.stage, Stage::Open(_)) {
                return self.discard_rest(slot, &mut input[cursor..]);
            }
            let polled = client.connection.poll(input, &mut cursor, &self.settings.limits, &mut self.buffers);
            match polled {
                Ok(None) => return,
                Ok(Some(Event::Message(kind, Payload::Input(span)))) => {
                    self.handle_message(slot, kind, &input[span]);
                }
                Ok(Some(Event::Message(kind, Payload::Joined(bytes)))) => {
                    self.in_hand_bytes += bytes.capacity();
                    self.handle_message(slot, kind, &bytes);
                    self.in_hand_bytes -= bytes.capacity();
                    self.buffers.release(bytes);
                }
                Ok(Some(Event::Ping(payload))) => self.send_frame(slot, Opcode::Pong, &payload),
                Ok(Some(Event::Pong)) => {}
                Ok(Some(Event::Close(code))) => return self.answer_close(slot, code),
                Err(Failure::Busy) => self.close_busy(slot),
                Err(failure) => {
                    self.counters.protocol_errors.add(1);
                    let (code, reason) = failure.close();
                    self.start_close(slot, code, reason);
                }
            }
        }
    }

    /// What follows after a close of our own: the answer may be among it.
    fn discard_rest(&mut self, slot: Slot, rest: &mut [u8]) {
        let Some(client) = self.clients.at(slot) else { return };
        if matches!(client.stage, Stage::Closing) && client.connection.discard(rest) {
            self.finish(slot);
        }
    }

    fn handle_message(&mut self, slot: Slot, kind: Kind, message: &[u8]) {
        self.counters.messages_received.add(1);
        let Some(client) = self.clients.at(slot) else { return };
        let Stage::Open(dialect) = &mut client.stage else { return };
        let mut actions = std::mem::take(&mut self.actions);
        match dialect {
            Dialect::Echo => {
                let opcode = if kind == Kind::Text { Opcode::Text } else { Opcode::Binary };
                self.send_frame(slot, opcode, message);
            }
            Dialect::Pairing(state) => {
                if self.settings.planted.is(Plant::PanicOnDemand) && message == b"panic" {
                    panic!("planted");
                }
                let max = self.settings.limits.messages_per_second_max;
                if client.window.allows(self.now_ms, RATE_WINDOW_MS, max) {
                    let parsed = self.parser.parse(message);
                    let envelope = parsed.as_ref().map_err(|not_json| *not_json);
                    self.pairing.handle_message(state, client.id, envelope, &mut actions);
                } else {
                    self.counters.rate_limited.add(1);
                    self.pairing.handle_rate_limit(&mut actions);
                }
            }
        }
        self.apply(slot, &mut actions, message);
        self.actions = actions;
    }

    /// Carries out what a dialect asked for. `message` is what the actions' spans refer to.
    pub(super) fn apply(&mut self, slot: Slot, actions: &mut Actions, message: &[u8]) {
        for action in actions.drain(..) {
            match action {
                Action::Reply(parts) => self.send_text(slot, &parts, message),
                Action::Forward { to, room, parts } => self.forward(slot, to, room, &parts, message),
                Action::Notify { to: Address::Queue, note } => self.post(PAIRING_HOME, Mail::Note(note)),
                Action::Notify { to: Address::Client(id), note } => {
                    if id.host() == self.settings.host {
                        self.post(id.shard(), Mail::Note(note));
                    }
                }
            }
        }
    }

    fn post(&mut self, to: ShardIndex, mail: Mail) {
        self.router.post(to, mail, &mut self.buffers);
    }

    /// Mail has arrived.
    pub(super) fn receive(&mut self, mail: Mail) {
        match mail {
            Mail::Note(note) => self.receive_note(note),
            Mail::Frame(frame) => self.receive_frame(&frame),
        }
    }

    fn receive_note(&mut self, note: Note) {
        let addressee = note.addressee().and_then(|id| self.clients.find(id));
        let (slot, state) = match addressee {
            Some((slot, client)) => match &mut client.stage {
                Stage::Open(Dialect::Pairing(state)) => (Some(slot), Some(state)),
                _ => (None, None),
            },
            None => (None, None),
        };
        let before = state.as_ref().and_then(|state| state.room());
        let mut actions = std::mem::take(&mut self.actions);
        self.pairing.handle_note(note, state, &mut self.entropy, &mut actions);
        if matches!(note, Note::Accepted { .. } | Note::Matched { .. }) && before.is_none() && slot.is_some()
        {
            self.counters.matches.add(u64::from(matches!(actions.last(), Some(Action::Reply(_)))));
        }
        // A reply is only made for a client that was found.
        self.apply(slot.unwrap_or(Slot(u32::MAX)), &mut actions, &[]);
        self.actions = actions;
    }

    /// The receiver's slot, if it is in this room.
    fn in_room(&mut self, to: ClientId, room: RoomId) -> Option<Slot> {
        let planted = self.settings.planted;
        let (slot, client) = self.clients.find(to)?;
        match &client.stage {
            Stage::Open(Dialect::Pairing(state)) if state.room() == Some(room) => Some(slot),
            Stage::Open(Dialect::Pairing(_)) if planted.is(Plant::FrameAfterRoomChange) => Some(slot),
            _ => None,
        }
    }

    fn receive_frame(&mut self, frame: &RoomFrame) {
        let Some(slot) = self.in_room(frame.to, frame.room) else { return };
        self.counters.messages_sent.add(1);
        match &frame.frame {
            FrameBytes::Inline(bytes) => self.send_pieces(slot, bytes.len(), |write| write(bytes)),
            FrameBytes::Shared(transit) => {
                self.send(slot, transit.bytes().len(), |outbox, buffers| {
                    outbox.append_shared(transit, buffers)
                });
            }
        }
    }

    fn forward(&mut self, from: Slot, to: ClientId, room: RoomId, parts: &[Part], message: &[u8]) {
        if to.host() != self.settings.host {
            return;
        }
        if to.shard() == self.router.here() {
            if let Some(slot) = self.in_room(to, room) {
                self.send_text(slot, parts, message);
            }
            return;
        }
        match self.render(parts, message) {
            Ok(frame) => self.post(to.shard(), Mail::Frame(RoomFrame { to, room, frame })),
            Err(Exhausted) => self.close_busy(from),
        }
    }

    /// A finished frame for another shard.
    fn render(&mut self, parts: &[Part], message: &[u8]) -> Result<FrameBytes, Exhausted> {
        let payload_len = protocol::len_of(parts);
        let header = ServerHeader::new(Opcode::Text, payload_len);
        let len = header.as_bytes().len() + payload_len;
        if len <= MAIL_INLINE_BYTES {
            let mut bytes = ArrayVec::new();
            bytes.extend(header.as_bytes().iter().copied());
            protocol::write(parts, message, |piece| bytes.extend(piece.iter().copied()));
            return Ok(FrameBytes::Inline(bytes));
        }
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(header.as_bytes());
        protocol::write(parts, message, |piece| bytes.extend_from_slice(piece));
        self.buffers.transit(Bytes::from(bytes)).map(FrameBytes::Shared)
    }

    fn send_text(&mut self, slot: Slot, parts: &[Part], message: &[u8]) {
        let payload_len = protocol::len_of(parts);
        let header = ServerHeader::new(Opcode::Text, payload_len);
        self.counters.messages_sent.add(1);
        self.send_pieces(slot, header.as_bytes().len() + payload_len, |write| {
            write(header.as_bytes());
            protocol::write(parts, message, write);
        });
    }

    pub(super) fn send_frame(&mut self, slot: Slot, opcode: Opcode, payload: &[u8]) {
        let header = ServerHeader::new(opcode, payload.len());
        self.send_pieces(slot, header.as_bytes().len() + payload.len(), |write| {
            write(header.as_bytes());
            write(payload);
        });
    }
}
