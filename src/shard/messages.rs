//! What clients say once they are WebSockets, and what follows from it.

use arrayvec::ArrayVec;
use bytes::Bytes;

use super::Shard;
use super::clients::Stage;
use super::dialects::{Dialect, NOBODY};
use super::mail::{FrameBytes, Mail, RoomFrame};
use crate::buffers::Exhausted;
use crate::id::{ClientId, RoomId, ShardIndex, Slot};
use crate::limits::MAIL_INLINE_BYTES;
use crate::plant::Plant;
use crate::protocol::pairing::Note;
use crate::protocol::{self, Action, Part};
use crate::websocket::connection::{Event, Failure, Kind, Payload};
use crate::wire::frame::{Opcode, ServerHeader};

impl Shard {
    /// Bytes came from an open client.
    pub(super) fn handle_open_bytes(&mut self, slot: Slot, input: &mut [u8]) {
        let Some(client) = self.clients.at(slot) else { return };
        match &client.stage {
            Stage::Open(dialect) if dialect.is_pipe() => self.handle_pipe_bytes(slot, input),
            Stage::Open(_) => self.handle_frames(slot, input),
            Stage::Closing => self.discard(slot, input),
            Stage::Head(_)
            | Stage::Answering(_)
            | Stage::Moving
            | Stage::Finishing
            | Stage::Finished
            | Stage::Cut => {}
        }
    }

    /// Bytes came from a WebSocket that speaks in messages.
    pub(super) fn handle_frames(&mut self, slot: Slot, input: &mut [u8]) {
        let mut cursor = 0;
        loop {
            if !self.doomed.is_empty() {
                self.settle();
            }
            let Some(client) = self.clients.at(slot) else { return };
            let Stage::Open(dialect) = &client.stage else {
                return self.discard(slot, &mut input[cursor..]);
            };
            if client.paused.is_paused() {
                return self.hold(slot, &mut input[cursor..]);
            }
            let is_echo = matches!(dialect, Dialect::Echo);
            let limits =
                if dialect.has_directory_limits() { &self.directory_limits } else { &self.settings.limits };
            match client.connection.poll(input, &mut cursor, limits, &mut self.buffers) {
                Ok(None) => return,
                Ok(Some(Event::Message(kind, payload))) if is_echo => {
                    self.echo(slot, kind, payload, input);
                }
                Ok(Some(Event::Message(_, Payload::Input(span)))) => {
                    self.counters.messages_received.add(1);
                    self.handle_message(slot, &input[span]);
                }
                Ok(Some(Event::Message(_, Payload::Joined(bytes)))) => {
                    self.counters.messages_received.add(1);
                    self.in_hand_bytes += bytes.capacity();
                    self.handle_message(slot, &bytes);
                    self.in_hand_bytes -= bytes.capacity();
                    self.buffers.release(bytes);
                }
                Ok(Some(Event::Ping(payload))) => self.send_frame(slot, Opcode::Pong, &payload),
                Ok(Some(Event::Pong)) => {}
                Ok(Some(Event::Close(code))) => {
                    self.answer_close(slot, code);
                    return self.settle();
                }
                Err(Failure::Busy) => self.doom_busy(slot),
                Err(failure) => self.fail(slot, failure),
            }
        }
    }

    /// A peer has broken RFC 6455 or a limit.
    pub(super) fn fail(&mut self, slot: Slot, failure: Failure) {
        self.counters.protocol_errors.add(1);
        let (code, reason) = failure.close();
        self.start_close(slot, Some(code), reason);
        self.settle();
    }

    fn echo(&mut self, slot: Slot, kind: Kind, payload: Payload, input: &[u8]) {
        self.counters.messages_received.add(1);
        let opcode = if kind == Kind::Text { Opcode::Text } else { Opcode::Binary };
        match payload {
            Payload::Input(span) => self.send_frame(slot, opcode, &input[span]),
            Payload::Joined(bytes) => {
                self.send_frame(slot, opcode, &bytes);
                self.buffers.release(bytes);
            }
        }
    }

    pub(super) fn post(&mut self, to: ShardIndex, mail: Mail) {
        self.router.post(to, mail, &mut self.buffers);
    }

    /// Mail has arrived.
    pub(super) fn receive(&mut self, mail: Mail) {
        match mail {
            Mail::Note(note) => self.receive_note(note),
            Mail::Frame(frame) => self.receive_frame(&frame),
        }
    }

    pub(super) fn receive_note(&mut self, note: Note) {
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
        self.tables.pairing.handle_note(note, state, &mut self.entropy, &mut actions);
        if matches!(note, Note::Accepted { .. } | Note::Matched { .. }) && before.is_none() && slot.is_some()
        {
            self.counters.matches.add(u64::from(matches!(actions.last(), Some(Action::Reply(_)))));
        }
        // A reply is only made for a client that was found.
        self.apply(slot.unwrap_or(NOBODY), &mut actions, &[]);
        self.actions = actions;
    }

    /// The receiver's slot, if it is in this room.
    pub(super) fn in_room(&mut self, to: ClientId, room: RoomId) -> Option<Slot> {
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

    pub(super) fn forward(&mut self, from: Slot, to: ClientId, room: RoomId, parts: &[Part], message: &[u8]) {
        if to.host() != self.settings.host {
            return self.forward_to_host(from, to, room, parts, message);
        }
        if to.shard() == self.router.here() {
            if let Some(slot) = self.in_room(to, room) {
                self.send_text(slot, parts, message);
            }
            return;
        }
        match self.render(parts, message) {
            Ok(frame) => self.post(to.shard(), Mail::Frame(RoomFrame { to, room, frame })),
            Err(Exhausted) => self.doom_busy(from),
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

    pub(super) fn send_text(&mut self, slot: Slot, parts: &[Part], message: &[u8]) {
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
