//! Four digits (protocols.md section 4).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::value::RawValue;

use crate::json::Object;
use crate::referee::Table;
use crate::wire::Reading;
use crate::world::Host;

/// The rooms that live.
#[derive(Debug, Default)]
pub struct Rooms {
    rooms: BTreeMap<String, Room>,
}

#[derive(Debug, Default)]
struct Room {
    due_ms: u64,
    /// In the order in which they came.
    members: Vec<usize>,
}

impl Rooms {
    /// A client that has chosen rooms says something of this type.
    pub(super) fn handle_message(&mut self, who: usize, kind: &[u8], said: &Object<'_>, table: &mut Table) {
        match kind {
            b"create" => self.create(who, table),
            b"join" => {
                let id = said.text_of("roomId").and_then(|id| String::from_utf8(id.into_owned()).ok());
                match id.filter(|id| self.rooms.contains_key(id)) {
                    Some(id) => self.enter(who, id, "room_joined", table),
                    None => table.say(who, r#"{"type":"error","message":"Room not found"}"#),
                }
            }
            b"signal" => self.signal(who, said, table),
            _ => {}
        }
    }

    /// A client is gone.
    pub(super) fn leave(&mut self, who: usize) {
        self.rooms.values_mut().for_each(|room| room.members.retain(|member| *member != who));
    }

    /// Rooms that are due expire.
    pub(super) fn handle_time(&mut self, table: &mut Table) {
        let now_ms = table.now_ms;
        for room in self.rooms.values().filter(|room| room.due_ms <= now_ms) {
            room.members.iter().for_each(|member| table.doom(*member, Some(1000), "Room expired"));
        }
        self.rooms.retain(|_, room| room.due_ms > now_ms);
    }

    /// Whether a client's room may expire now.
    pub(super) fn may_expire(&self, who: usize, now_ms: u64) -> bool {
        self.rooms.values().any(|room| room.members.contains(&who) && room.due_ms <= now_ms)
    }

    /// The id of one of the rooms.
    pub(super) fn id(&self, which: usize) -> String {
        let which = which.checked_rem(self.rooms.len());
        which.and_then(|which| self.rooms.keys().nth(which).cloned()).unwrap_or_default()
    }

    /// The server counts as many rooms.
    pub(super) fn check(&self, host: &Host) {
        assert_eq!(host.count(|counters| &counters.rooms), self.rooms.len() as u64, "rooms");
    }

    /// Who says something is somebody else who is or was there.
    pub(super) fn finish(&self, table: &Table, readings: &[Reading<'_>]) {
        let ids: BTreeSet<&[u8]> = table.clients.iter().map(|client| client.id.as_slice()).collect();
        for (client, reading) in table.clients.iter().zip(readings) {
            for text in reading.texts() {
                let text = Object::new(text);
                let is_signal = text.member("from").is_none();
                let Some(id) = text.text_of("senderId").filter(|_| is_signal) else { continue };
                assert!(*id != client.id && ids.contains(&*id), "{text:?}");
            }
        }
    }

    /// The id is drawn by the server: it is looked up in its answer.
    fn create(&mut self, who: usize, table: &mut Table) {
        let Some(id) = table.peek(who, r#"{"type":"room_created","roomId":""#, 4) else {
            // It is not there where nothing is said any more, or not where it is looked for.
            table.is_loose |= !table.is_silent(who);
            return;
        };
        let is_id = id.bytes().all(|digit| digit.is_ascii_digit()) && !id.starts_with('0');
        assert!(is_id && !self.rooms.contains_key(&id), "a room {id:?}");
        self.enter(who, id, "room_created", table);
    }

    fn enter(&mut self, who: usize, id: String, answer: &str, table: &mut Table) {
        let due_ms = table.now_ms + table.limits.room_timeout_ms;
        if !self.rooms.get(&id).is_some_and(|room| room.members.contains(&who)) {
            self.leave(who);
            self.rooms.entry(id.clone()).or_default().members.push(who);
        }
        self.rooms.entry(id.clone()).or_default().due_ms = due_ms;
        let me = table.id(who);
        table.say(who, &format!(r#"{{"type":"{answer}","roomId":"{id}","myId":"{me}"}}"#));
    }

    fn signal(&self, who: usize, said: &Object<'_>, table: &mut Table) {
        let Some(room) = self.rooms.values().find(|room| room.members.contains(&who)) else { return };
        let payload = said.member("payload").map(RawValue::get);
        let payload = payload.map_or(String::new(), |payload| format!(r#","payload":{payload}"#));
        let signal = format!(r#"{{"type":"signal","senderId":"{}"{payload}}}"#, table.id(who));
        for &other in room.members.iter().filter(|member| **member != who) {
            table.say(other, &signal);
        }
    }
}
