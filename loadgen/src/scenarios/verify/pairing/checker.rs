//! What one connection may hear, given what it has said and heard before. No I/O.
//!
//! A client knows its room only as of what it has heard. What it sends counts for the room it is in when the server
//! reads it (protocols.md section 1), so a message labelled with an old room may rightly reach the next partner:
//! `carried` in [`Heard::Message`] marks it, and the registry decides, since pings that were answered in time prove which
//! messages the server had read in the old room.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::label::{Bodies, Label};
use super::super::violation::{Violation, shown};
use crate::dialects::pairing::Event;

/// How a client leaves its partner and stays connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Departure {
    /// `next`: has no effect without a partner, a waiting client goes on waiting.
    Next,
    /// `leave`: leaves the queue as well.
    Leave,
}

/// What a pong answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ping {
    /// The ping behind all messages below this sequence number.
    Behind(u32),
    /// The ping in front of a `next`.
    BeforeDeparture,
    /// The ping behind a `next` or `leave`.
    AfterDeparture(Departure),
}

/// A room as one end sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Room {
    /// Its id.
    pub(crate) id: String,
    /// The other end.
    pub(crate) partner_id: String,
    /// Messages sent in it.
    pub(crate) sent: u32,
    /// Messages of the partner that arrived and were labelled with this room.
    pub(crate) arrived: u32,
    /// The connection that the partner's messages come from, and the sequence number that is due.
    heard: Option<(u32, u32)>,
}

/// What an event means for the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The own id.
    Ready,
    /// A room to register.
    Matched,
    /// A good message.
    Message {
        /// Its label.
        label: Label,
        /// It is the first of its sender in this room: the registry knows who may use this number.
        first: bool,
        /// It is labelled with an older room than the one it came to.
        carried: bool,
    },
    /// The room has ended; the server had certainly read all messages below this number in it.
    PartnerLeft {
        /// The room that ended.
        room_id: String,
        /// See above.
        read_below: u32,
    },
    /// A departure is complete.
    Departed,
    /// The server's rate limit.
    RateLimited,
    /// Nothing to do.
    Nothing,
}

/// The checks of one connection.
#[derive(Debug)]
pub(crate) struct Checker {
    /// Number of the connection, unique in the run.
    number: u32,
    id: Option<String>,
    room: Option<Room>,
    sequence: u32,
    /// The server has answered a ping that was sent behind all messages below this number.
    read_below: u32,
    pings: VecDeque<Ping>,
    departing: bool,
    /// The `next` under way was refused: there was no partner.
    refused: bool,
}

#[derive(Deserialize)]
struct Relayed<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    from: &'a str,
    #[serde(borrow)]
    sdp: Option<&'a RawValue>,
    #[serde(borrow)]
    candidate: Option<&'a RawValue>,
}

impl Checker {
    /// The checker of a connection that has heard nothing yet.
    pub(crate) fn new(number: u32) -> Self {
        Self {
            number,
            id: None,
            room: None,
            sequence: 0,
            read_below: 0,
            pings: VecDeque::new(),
            departing: false,
            refused: false,
        }
    }

    /// Own client id, empty before `ready`.
    pub(crate) fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }

    /// The current room, as far as the client knows.
    pub(crate) fn room(&self) -> Option<&Room> {
        self.room.as_ref()
    }

    /// Whether a `next` or `leave` is under way: nothing else is said until it is complete.
    pub(crate) fn is_departing(&self) -> bool {
        self.departing
    }

    /// The label of the next message, which is sent now; none without a partner and while departing.
    pub(crate) fn next_label(&mut self) -> Option<Label> {
        let room = self.room.as_mut().filter(|_| !self.departing)?;
        let label = Label {
            sender: self.number,
            sequence: self.sequence,
            key_sequence: room.sent,
            key: room.id.clone(),
        };
        room.sent += 1;
        self.sequence += 1;
        Some(label)
    }

    /// A ping is sent behind the messages so far.
    pub(crate) fn pinged(&mut self) {
        self.pings.push_back(Ping::Behind(self.sequence));
    }

    /// A departure is sent: `next` between two pings, or `leave` and a ping.
    pub(crate) fn departs(&mut self, departure: Departure) {
        if departure == Departure::Next {
            self.pings.push_back(Ping::BeforeDeparture);
        }
        self.pings.push_back(Ping::AfterDeparture(departure));
        self.departing = true;
        self.refused = false;
    }

    /// Checks what came.
    pub(crate) fn hear(&mut self, message: &[u8], bodies: &Bodies) -> Result<Heard, Violation> {
        let event = Event::parse(message);
        if matches!(event, Event::Ready { .. }) == self.id.is_some() {
            return Err(Violation::Ready);
        }
        match event {
            Event::Ready { client_id } => {
                self.id = Some(client_id.into_owned());
                Ok(Heard::Ready)
            }
            Event::Matched { room_id, partner_id } => self.hear_matched(&room_id, &partner_id),
            Event::Relay => self.hear_relay(message, bodies),
            Event::PartnerLeft => self.hear_partner_left(),
            Event::Pong => self.hear_pong(message),
            Event::Error { code } => self.hear_error(&code),
            Event::Unknown => Err(Violation::Unknown { came: shown(message) }),
        }
    }

    fn hear_matched(&mut self, room_id: &str, partner_id: &str) -> Result<Heard, Violation> {
        if let Some(room) = &self.room {
            return Err(Violation::MatchedAgain { room: room.id.clone() });
        }
        if partner_id == self.id() {
            return Err(Violation::Self_);
        }
        self.room = Some(Room {
            id: room_id.to_owned(),
            partner_id: partner_id.to_owned(),
            sent: 0,
            arrived: 0,
            heard: None,
        });
        Ok(Heard::Matched)
    }

    fn hear_relay(&mut self, message: &[u8], bodies: &Bodies) -> Result<Heard, Violation> {
        let changed = || Violation::Changed { came: shown(message) };
        let relayed: Relayed<'_> = serde_json::from_slice(message).map_err(|_| changed())?;
        let Some(room) = &mut self.room else {
            return Err(Violation::Stranger { from: relayed.from.to_owned() });
        };
        if relayed.from != room.partner_id {
            let from = relayed.from.to_owned();
            return Err(Violation::WrongSender { from, partner: room.partner_id.clone() });
        }
        let label = Label::find(message).ok_or_else(changed)?;
        let body = bodies.of(&label);
        let (value, other) = match body.field {
            "sdp" => (relayed.sdp, relayed.candidate),
            _ => (relayed.candidate, relayed.sdp),
        };
        if relayed.kind != body.kind || value.map(RawValue::get) != Some(&body.opaque) || other.is_some() {
            return Err(changed());
        }
        let first = room.heard.is_none();
        let carried = room.accept(&label)?;
        Ok(Heard::Message { label, first, carried })
    }

    fn hear_partner_left(&mut self) -> Result<Heard, Violation> {
        let room = self.room.take().ok_or(Violation::LeftByNobody)?;
        Ok(Heard::PartnerLeft { room_id: room.id, read_below: self.read_below })
    }

    fn hear_pong(&mut self, message: &[u8]) -> Result<Heard, Violation> {
        match self.pings.pop_front() {
            None => Err(Violation::Unknown { came: shown(message) }),
            Some(Ping::Behind(sequence)) => {
                self.read_below = sequence;
                Ok(Heard::Nothing)
            }
            Some(Ping::BeforeDeparture) => {
                // Refusals so far answered other messages.
                self.refused = false;
                Ok(Heard::Nothing)
            }
            Some(Ping::AfterDeparture(departure)) => {
                self.departing = false;
                if departure == Departure::Leave || !self.refused {
                    self.room = None;
                }
                Ok(Heard::Departed)
            }
        }
    }

    /// The server answers in order, so an error fits the room that the client knows when it comes.
    fn hear_error(&mut self, code: &str) -> Result<Heard, Violation> {
        match (code, &self.room) {
            ("RATE_LIMIT", _) => Ok(Heard::RateLimited),
            ("ALREADY_PAIRED", Some(_)) => Ok(Heard::Nothing),
            ("NOT_PAIRED", None) => {
                self.refused = true;
                Ok(Heard::Nothing)
            }
            _ => Err(Violation::Error { code: code.to_owned() }),
        }
    }
}

impl Room {
    /// Checks the order of a message; whether it is labelled with an older room.
    fn accept(&mut self, label: &Label) -> Result<bool, Violation> {
        let carried = label.key != self.id;
        if let Some((sender, due)) = self.heard {
            if label.sender != sender {
                return Err(Violation::WrongKey { label: label.to_string(), key: self.id.clone() });
            }
            label.is_number(label.sequence, due)?;
        }
        if carried && self.arrived > 0 {
            return Err(Violation::WrongKey { label: label.to_string(), key: self.id.clone() });
        }
        if !carried {
            label.is_due(self.arrived)?;
            self.arrived += 1;
        }
        self.heard = Some((label.sender, label.sequence + 1));
        Ok(carried)
    }
}
