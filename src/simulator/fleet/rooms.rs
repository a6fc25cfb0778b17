//! Rooms: an id is one room on all hosts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::client::{Client, Voice, text};
use crate::simulator::chance::Chance;
use crate::simulator::checks::fail;

/// One client.
#[derive(Debug, Default)]
pub(super) struct Guest {
    id: String,
    pub(super) room: Option<u16>,
    /// It has asked for another room and has no answer yet.
    is_moving: bool,
    sent: u64,
    /// The last number heard of each sender.
    last: BTreeMap<String, u64>,
    greetings: BTreeSet<String>,
    is_greeted: bool,
    pub(super) signals: u64,
    pub(super) joined: u64,
}

impl Guest {
    /// `others`: rooms that somebody was told of.
    pub(super) fn act(&mut self, others: &[u16], chance: &mut Chance) -> Option<String> {
        if self.is_moving {
            return None;
        }
        if self.room.is_some() && !chance.one_in(8) {
            return self.signal("say");
        }
        self.is_moving = true;
        if others.is_empty() || chance.one_in(3) {
            return Some(r#"{"type":"create"}"#.into());
        }
        Some(json!({ "type": "join", "roomId": chance.pick(others).to_string() }).to_string())
    }

    pub(super) fn greet_all(&mut self) -> Vec<String> {
        self.is_greeted = true;
        self.signal("greeting").into_iter().collect()
    }

    fn signal(&mut self, kind: &str) -> Option<String> {
        let room = self.room?;
        self.sent += 1;
        let payload = json!({ "room": room, "number": self.sent, "kind": kind });
        Some(json!({ "type": "signal", "payload": payload }).to_string())
    }

    pub(super) fn hear(&mut self, message: &Value) {
        match text(message, "type") {
            "room_created" | "room_joined" => {
                let Ok(room) = text(message, "roomId").parse::<u16>() else { fail(format!("{message}")) };
                if !self.is_moving || !(1_000..=9_999).contains(&room) {
                    fail(format!("unasked: {message}"));
                }
                let id = text(message, "myId");
                if !self.id.is_empty() && id != self.id {
                    fail(format!("it was {} and hears {message}", self.id));
                }
                self.joined += u64::from(message["type"] == "room_joined");
                id.clone_into(&mut self.id);
                (self.room, self.is_moving) = (Some(room), false);
            }
            "error" if self.is_moving => self.is_moving = false,
            "signal" => self.hear_signal(message),
            _ => fail(format!("unexpected: {message}")),
        }
    }

    fn hear_signal(&mut self, message: &Value) {
        let (sender, payload) = (text(message, "senderId"), &message["payload"]);
        let (Some(number), room) = (payload["number"].as_u64(), payload["room"].as_u64()) else {
            fail(format!("{message}"));
        };
        let is_mine = self.room.map(u64::from) == room;
        let last = self.last.insert(sender.to_owned(), number);
        if !(is_mine || self.is_moving) || sender == self.id || last.is_some_and(|last| last >= number) {
            fail(format!("{} in {:?}, after {last:?}, hears {message}", self.id, self.room));
        }
        self.signals += 1;
        if payload["kind"] == "greeting" {
            self.greetings.insert(sender.to_owned());
        }
    }
}

fn guests(clients: &[Client]) -> impl Iterator<Item = &Guest> {
    clients.iter().filter(|client| client.is_there()).filter_map(|client| match &client.voice {
        Voice::Rooms(guest) => Some(guest),
        _ => None,
    })
}

/// Whoever is in one room has heard all others in it.
pub(super) fn check_at_rest(clients: &[Client]) {
    for me in guests(clients) {
        if me.is_moving {
            fail(format!("{} never got an answer", me.id));
        }
        for other in guests(clients).filter(|other| other.room.is_some() && other.room == me.room) {
            let is_missed = other.is_greeted && other.id != me.id && !me.greetings.contains(&other.id);
            if is_missed {
                fail(format!("{} and {} are both in {:?}, and it was not heard", me.id, other.id, me.room));
            }
        }
    }
}
