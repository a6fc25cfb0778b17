//! What a client of the rooms dialect hears and says (protocols.md section 4).

use std::borrow::Cow;
use std::rc::Rc;

use serde::Deserialize;

use super::{Group, Heard, Seat, Words};
use crate::payload::{Body, Role};

/// Asks for a new room.
pub(crate) const CREATE: &[u8] = br#"{"type":"create"}"#;
/// Idle clients in a room: there are only 9,000 rooms.
pub(super) const IDLE_MEMBERS: usize = 8;

/// Asks to be let into a room.
pub(crate) fn join(room_id: &str) -> Vec<u8> {
    format!(r#"{{"type":"join","roomId":"{room_id}"}}"#).into_bytes()
}

/// A client's message around a body.
pub(super) fn wrap(body: &Body) -> String {
    let Body { kind, field, opaque } = body;
    format!(r#"{{"type":"signal","payload":{{"type":"{kind}","{field}":{opaque}}}}}"#)
}

/// What the server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// One is in a new room.
    Created {
        /// The room.
        room_id: Cow<'a, str>,
        /// One's own id.
        my_id: Cow<'a, str>,
    },
    /// One is in another's room.
    Joined {
        /// The room.
        room_id: Cow<'a, str>,
        /// One's own id.
        my_id: Cow<'a, str>,
    },
    /// Another one's message.
    Signal,
    /// An error.
    Error {
        /// `Room not found`, `No rooms available`.
        message: Cow<'a, str>,
    },
    /// Nothing that the protocol knows.
    Unknown,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    room_id: Cow<'a, str>,
    #[serde(borrow, default)]
    my_id: Cow<'a, str>,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
}

impl<'a> Event<'a> {
    /// Reads a message of the server. Relayed ones are known by their first bytes.
    pub(crate) fn parse(message: &'a [u8]) -> Self {
        if message.starts_with(br#"{"type":"signal","#) {
            return Self::Signal;
        }
        serde_json::from_slice(message).map_or(Self::Unknown, Self::of)
    }

    fn of(envelope: Envelope<'a>) -> Self {
        let Envelope { kind, room_id, my_id, message } = envelope;
        match kind.as_ref() {
            "room_created" => Self::Created { room_id, my_id },
            "room_joined" => Self::Joined { room_id, my_id },
            "signal" => Self::Signal,
            "error" => Self::Error { message },
            _ => Self::Unknown,
        }
    }
}

/// A client that meets the others of its group in a room that the first of them creates.
#[derive(Debug)]
pub(crate) struct Speaker {
    seat: Seat,
    group: Rc<Group>,
    asked: bool,
}

impl Speaker {
    pub(super) fn new(seat: Seat, group: Rc<Group>) -> Self {
        Self { seat, group, asked: false }
    }

    fn ask(&mut self, words: &mut Words) {
        let room = self.group.room.borrow();
        let question = match (room.as_deref(), self.seat.member) {
            (Some(room_id), _) => join(room_id),
            (None, 0) => CREATE.to_vec(),
            (None, _) => return,
        };
        if !std::mem::replace(&mut self.asked, true) {
            words.push(question);
        }
    }

    fn enter(&self, room_id: &str) -> Heard {
        self.group.room.replace(Some(room_id.to_owned()));
        self.group.seated.set(self.group.seated.get() + 1);
        Heard::TellGroup
    }
}

impl super::Speaker for Speaker {
    fn greet(&mut self, words: &mut Words) -> Heard {
        self.ask(words);
        Heard::Nothing
    }

    fn hear(&mut self, message: &[u8], words: &mut Words) -> Heard {
        match Event::parse(message) {
            Event::Signal => Heard::Relay,
            Event::Created { room_id, .. } | Event::Joined { room_id, .. } => self.enter(&room_id),
            // A room from an earlier cycle has expired: the first member asks for another.
            Event::Error { message } if message == "Room not found" && self.seat.cycle > 0 => {
                self.asked = false;
                self.group.room.replace(None);
                self.ask(words);
                Heard::Nothing
            }
            Event::Error { .. } => Heard::Refused { limited: false },
            Event::Unknown => Heard::Unknown,
        }
    }

    fn look_at_group(&mut self, words: &mut Words) -> Heard {
        self.ask(words);
        if self.group.seated.get() < self.seat.members {
            return if self.group.room.borrow().is_some() { Heard::Ready } else { Heard::Nothing };
        }
        Heard::Partnered(if self.seat.member == 0 { Role::Caller } else { Role::Callee })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Speaker as _;
    use super::*;

    #[test]
    fn messages_are_told_apart() {
        let created = Event::parse(br#"{"type":"room_created","roomId":"1234","myId":"m"}"#);
        assert_eq!(created, Event::Created { room_id: "1234".into(), my_id: "m".into() });
        let joined = Event::parse(br#"{"type":"room_joined","roomId":"1234","myId":"m"}"#);
        assert_eq!(joined, Event::Joined { room_id: "1234".into(), my_id: "m".into() });
        assert_eq!(Event::parse(br#"{"type":"signal","senderId":"m","payload":1}"#), Event::Signal);
        let error = Event::parse(br#"{"type":"error","message":"Room not found"}"#);
        assert_eq!(error, Event::Error { message: "Room not found".into() });
        assert_eq!(Event::parse(br#"{"type":"else"}"#), Event::Unknown);
    }

    #[test]
    fn the_first_creates_and_the_others_join() {
        let group = Rc::new(Group::default());
        let mut words = Words::new();
        let mut first = Speaker::new(Seat::of(0, 2), Rc::clone(&group));
        let mut second = Speaker::new(Seat::of(1, 2), Rc::clone(&group));
        second.greet(&mut words);
        assert!(words.is_empty());
        first.greet(&mut words);
        assert_eq!(std::mem::take(&mut words), [CREATE]);
        let created = br#"{"type":"room_created","roomId":"1234","myId":"m"}"#;
        assert_eq!(first.hear(created, &mut words), Heard::TellGroup);
        assert_eq!(first.look_at_group(&mut words), Heard::Ready);
        second.look_at_group(&mut words);
        assert_eq!(std::mem::take(&mut words), [join("1234")]);
        let joined = br#"{"type":"room_joined","roomId":"1234","myId":"n"}"#;
        assert_eq!(second.hear(joined, &mut words), Heard::TellGroup);
        assert_eq!(first.look_at_group(&mut words), Heard::Partnered(Role::Caller));
        assert_eq!(second.look_at_group(&mut words), Heard::Partnered(Role::Callee));
        assert!(words.is_empty());
    }
}
