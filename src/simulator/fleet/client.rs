//! A client of the fleet: it behaves, says whole messages, and reads what it is sent at once.

use std::collections::VecDeque;

use serde_json::Value;

use super::directory::Named;
use super::introductions::Peer;
use super::pairing::Chat;
use super::pipes::End;
use super::rendezvous::Role;
use super::rooms::Guest;
use super::setup::{Setup, Spoken};
use crate::id::Slot;
use crate::simulator::chance::Chance;
use crate::simulator::checks::fail;
use crate::simulator::client::{Incoming, Reader, frame, upgrade};
use crate::wire::frame::Opcode;

/// What a client says and what it may hear.
pub(super) enum Voice {
    Pairing(Chat),
    Rendezvous(Role),
    Directory(Named),
    Rooms(Guest),
    Introductions(Peer),
    Pipes(End),
}

/// One connection.
pub(super) struct Client {
    pub(super) host: usize,
    /// Its shard and slot, unless it is on its way between two.
    pub(super) place: Option<(usize, Slot)>,
    pub(super) voice: Voice,
    pub(super) is_open: bool,
    /// When it connected.
    pub(super) came_ms: u64,
    /// It is closed, by whomever, since then.
    pub(super) over_ms: Option<u64>,
    reader: Reader,
    /// Of a message that is not complete.
    text: Vec<u8>,
    /// Not read by the server yet.
    pub(super) unread: VecDeque<Vec<u8>>,
}

impl Client {
    pub(super) fn new(host: usize, setup: &Setup, chance: &mut Chance, now_ms: u64) -> Self {
        let (voice, path) = match setup.spoken {
            Spoken::Pairing => (Voice::Pairing(Chat::new(setup.requeue)), "/ws".to_owned()),
            Spoken::Rendezvous => {
                let (role, path) = Role::new(chance);
                (Voice::Rendezvous(role), path)
            }
            Spoken::Directory => (Voice::Directory(Named::default()), "/".to_owned()),
            Spoken::Rooms => (Voice::Rooms(Guest::default()), "/".to_owned()),
            Spoken::Introductions => {
                let (peer, path) = Peer::new(chance);
                (Voice::Introductions(peer), path)
            }
            Spoken::Pipes => {
                let (end, path) = End::new(chance);
                (Voice::Pipes(end), path)
            }
        };
        Self {
            host,
            place: None,
            voice,
            is_open: false,
            came_ms: now_ms,
            over_ms: None,
            reader: Reader::default(),
            text: Vec::new(),
            unread: VecDeque::from([upgrade(&path, "13")]),
        }
    }

    pub(super) fn is_there(&self) -> bool {
        self.over_ms.is_none()
    }

    /// Says something.
    pub(super) fn say(&mut self, text: &str, chance: &mut Chance) {
        self.unread.push_back(frame(true, Opcode::Text, text.as_bytes(), chance.mask()));
    }

    /// Leaves in order.
    pub(super) fn close(&mut self, chance: &mut Chance) {
        if let Voice::Pipes(end) = &mut self.voice {
            end.leave();
        }
        self.unread.push_back(frame(true, Opcode::Close, &1000u16.to_be_bytes(), chance.mask()));
    }

    /// Does something, or nothing.
    pub(super) fn act(&mut self, others: &[u16], chance: &mut Chance) {
        if !self.is_open {
            return;
        }
        let text = match &mut self.voice {
            Voice::Pairing(chat) => chat.act(chance),
            Voice::Rendezvous(role) => role.act(chance),
            Voice::Directory(named) => named.act(chance),
            Voice::Rooms(guest) => guest.act(others, chance),
            Voice::Introductions(peer) => peer.act(chance),
            Voice::Pipes(end) => end.act(chance),
        };
        let Some(text) = text else { return };
        self.say(&text, chance);
        if let Voice::Pairing(chat) = &self.voice
            && chat.wants_pong()
        {
            self.say(r#"{"type":"ping"}"#, chance);
        }
    }

    /// Says to all that it knows of what must arrive. Called once, when all has come to rest.
    pub(super) fn greet_all(&mut self, chance: &mut Chance) {
        let texts = match &mut self.voice {
            Voice::Pairing(chat) => chat.greet_all(),
            Voice::Rendezvous(role) => role.greet_all(),
            Voice::Directory(named) => named.greet_all(),
            Voice::Rooms(guest) => guest.greet_all(),
            Voice::Introductions(peer) => peer.greet_all(),
            Voice::Pipes(end) => end.greet_all(),
        };
        texts.iter().for_each(|text| self.say(text, chance));
    }

    /// The server has sent bytes. Says whether it has closed the connection.
    pub(super) fn hear(&mut self, bytes: &[u8], chance: &mut Chance) -> bool {
        self.reader.push(bytes);
        while let Some(incoming) = self.reader.poll() {
            match incoming {
                Incoming::Upgraded => self.is_open = true,
                Incoming::Frame { frame: message, .. } => match message.opcode {
                    Opcode::Text | Opcode::Continuation => {
                        self.text.extend(message.payload);
                        if message.fin {
                            let text = std::mem::take(&mut self.text);
                            self.hear_text(&text);
                        }
                    }
                    Opcode::Ping => {
                        self.unread.push_back(frame(true, Opcode::Pong, &message.payload, chance.mask()));
                    }
                    Opcode::Close => {
                        self.hear_close(&message.payload);
                        return true;
                    }
                    other @ (Opcode::Binary | Opcode::Pong) => {
                        fail(format!("an unexpected frame: {other:?}"))
                    }
                },
                Incoming::Http(bytes) => fail(format!("plain HTTP: {}", bytes.escape_ascii())),
                Incoming::Raw(_) => fail("raw bytes"),
            }
        }
        false
    }

    fn hear_text(&mut self, text: &[u8]) {
        let Ok(message) = serde_json::from_slice::<Value>(text) else {
            fail(format!("no JSON: {}", text.escape_ascii()));
        };
        match &mut self.voice {
            Voice::Pairing(chat) => chat.hear(&message),
            Voice::Rendezvous(role) => role.hear(&message),
            Voice::Directory(named) => named.hear(&message),
            Voice::Rooms(guest) => guest.hear(&message),
            Voice::Introductions(peer) => peer.hear(&message),
            Voice::Pipes(end) => end.hear(&message),
        }
    }

    fn hear_close(&mut self, payload: &[u8]) {
        let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
        if let Voice::Pipes(end) = &mut self.voice {
            return end.hear_close(code, &reason);
        }
        match (code, reason.as_str()) {
            // Our own, and a host that stops.
            (Some(1000 | 1001), _) => {}
            // What waits for Redis waits for so long.
            (Some(1013), "server busy") => {}
            (Some(4000), _) if matches!(self.voice, Voice::Directory(_)) => {}
            (code, reason) => fail(format!("closed {code:?} {reason}")),
        }
    }
}

/// A field that must be a string.
pub(super) fn text<'a>(message: &'a Value, field: &str) -> &'a str {
    match message.get(field).and_then(Value::as_str) {
        Some(text) => text,
        None => fail(format!("no {field} in {message}")),
    }
}

/// A field that must be a number.
pub(super) fn number(message: &Value, field: &str) -> u64 {
    match message.get(field).and_then(Value::as_u64) {
        Some(number) => number,
        None => fail(format!("no {field} in {message}")),
    }
}
