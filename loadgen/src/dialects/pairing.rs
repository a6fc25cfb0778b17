//! What a client of the pairing dialect hears and says (protocols.md section 1).

use std::borrow::Cow;
use std::rc::Rc;

use serde::Deserialize;

use super::{Group, Heard, Seat, Words};
use crate::payload::{Body, Role};

/// Joins the queue.
pub(crate) const AVAILABLE: &[u8] = br#"{"type":"available"}"#;
/// Leaves the partner.
pub(crate) const NEXT: &[u8] = br#"{"type":"next"}"#;
/// Leaves the partner and the queue.
pub(crate) const LEAVE: &[u8] = br#"{"type":"leave"}"#;
/// Is answered with a pong.
pub(crate) const PING: &[u8] = br#"{"type":"ping"}"#;

/// What the server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// The first message: one's own id.
    Ready {
        /// Own client id.
        client_id: Cow<'a, str>,
    },
    /// There is a partner now.
    Matched {
        /// Room of the two.
        room_id: Cow<'a, str>,
        /// Client id of the other.
        partner_id: Cow<'a, str>,
    },
    /// An offer, answer or candidate of the partner.
    Relay,
    /// The partner is gone.
    PartnerLeft,
    /// Answer to a ping.
    Pong,
    /// An error with this code.
    Error {
        /// `RATE_LIMIT`, `NOT_PAIRED`, …
        code: Cow<'a, str>,
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
    client_id: Cow<'a, str>,
    #[serde(borrow, default)]
    room_id: Cow<'a, str>,
    #[serde(borrow, default)]
    partner_id: Cow<'a, str>,
    #[serde(borrow, default)]
    code: Cow<'a, str>,
}

impl<'a> Event<'a> {
    /// Reads a message of the server. Relayed ones, which are most, are known by their first bytes.
    pub(crate) fn parse(message: &'a [u8]) -> Self {
        if is_relay(message) {
            return Self::Relay;
        }
        serde_json::from_slice(message).map_or(Self::Unknown, Self::of)
    }

    fn of(envelope: Envelope<'a>) -> Self {
        match envelope.kind.as_ref() {
            "ready" => Self::Ready { client_id: envelope.client_id },
            "matched" => Self::Matched { room_id: envelope.room_id, partner_id: envelope.partner_id },
            "offer" | "answer" | "ice" => Self::Relay,
            "partner-left" => Self::PartnerLeft,
            "pong" => Self::Pong,
            "error" => Self::Error { code: envelope.code },
            _ => Self::Unknown,
        }
    }
}

/// A client's message around a body.
pub(crate) fn wrap(body: &Body) -> String {
    let Body { kind, field, opaque } = body;
    format!(r#"{{"type":"{kind}","{field}":{opaque}}}"#)
}

/// A client that asks for a partner whenever it has none.
#[derive(Debug, Default)]
pub(crate) struct Speaker {
    id: String,
    /// It waits for its group's turn, and is to be matched within its group.
    turn: Option<Turn>,
}

#[derive(Debug)]
struct Turn {
    seat: Seat,
    group: Rc<Group>,
    has_come: bool,
}

impl Speaker {
    /// A client that joins the queue when its group is told to, and with it.
    pub(super) fn in_turn(seat: Seat, group: Rc<Group>) -> Self {
        Self { id: String::new(), turn: Some(Turn { seat, group, has_come: false }) }
    }

    fn ready(&mut self, words: &mut Words) -> Heard {
        match &self.turn {
            Some(turn) => turn.group.enter_as(turn.seat.member, &self.id),
            None => words.push(AVAILABLE.to_vec()),
        }
        Heard::Ready
    }

    fn matched(&self, partner_id: &str) -> Heard {
        let is_stranger = |turn: &Turn| turn.group.id_of(1 - turn.seat.member).as_deref() != Some(partner_id);
        if self.turn.as_ref().is_some_and(is_stranger) {
            return Heard::Stranger;
        }
        Heard::Partnered(Role::of(&self.id, partner_id))
    }
}

impl super::Speaker for Speaker {
    fn hear(&mut self, message: &[u8], words: &mut Words) -> Heard {
        match Event::parse(message) {
            Event::Relay => Heard::Relay,
            Event::Ready { client_id } => {
                self.id = client_id.into_owned();
                self.ready(words)
            }
            Event::Matched { partner_id, .. } => self.matched(&partner_id),
            Event::PartnerLeft => {
                words.push(AVAILABLE.to_vec());
                Heard::PartnerLeft
            }
            Event::Error { code } if code == "NOT_PAIRED" || code == "ALREADY_PAIRED" => Heard::Misplaced,
            Event::Error { code } => Heard::Refused { limited: code == "RATE_LIMIT" },
            Event::Pong => Heard::Nothing,
            Event::Unknown => Heard::Unknown,
        }
    }

    fn look_at_group(&mut self, words: &mut Words) -> Heard {
        if let Some(turn) = self.turn.as_mut().filter(|turn| !turn.has_come) {
            turn.has_come = true;
            words.push(AVAILABLE.to_vec());
        }
        Heard::Nothing
    }

    fn farewell(&mut self, words: &mut Words) {
        words.push(LEAVE.to_vec());
    }
}

/// A client that waits for its id and then says nothing.
#[derive(Debug)]
pub(crate) struct Idler;

impl super::Speaker for Idler {
    fn hear(&mut self, message: &[u8], _words: &mut Words) -> Heard {
        if matches!(Event::parse(message), Event::Ready { .. }) { Heard::Ready } else { Heard::Nothing }
    }
}

fn is_relay(message: &[u8]) -> bool {
    let kinds: [&[u8]; 3] = [br#"{"type":"ice","#, br#"{"type":"offer","#, br#"{"type":"answer","#];
    kinds.iter().any(|kind| message.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use super::super::Speaker as _;
    use super::*;

    #[test]
    fn messages_are_told_apart_in_any_key_order() {
        let ready = Event::parse(br#"{"clientId":"c","type":"ready"}"#);
        assert_eq!(ready, Event::Ready { client_id: "c".into() });
        let matched = Event::parse(br#"{"type":"matched","roomId":"r","partnerId":"p"}"#);
        assert_eq!(matched, Event::Matched { room_id: "r".into(), partner_id: "p".into() });
        assert_eq!(Event::parse(br#"{"type":"ice","from":"p","candidate":null}"#), Event::Relay);
        assert_eq!(Event::parse(br#"{"from":"p","type":"answer","sdp":1.50}"#), Event::Relay);
        assert_eq!(Event::parse(br#"{"type":"partner-left"}"#), Event::PartnerLeft);
        assert_eq!(Event::parse(br#"{"type":"pong"}"#), Event::Pong);
        let error = Event::parse(br#"{"type":"error","code":"RATE_LIMIT","message":"Too many messages"}"#);
        assert_eq!(error, Event::Error { code: "RATE_LIMIT".into() });
        for other in [&b"no JSON"[..], b"[]", br#"{"type":"else"}"#, b"{}"] {
            assert_eq!(Event::parse(other), Event::Unknown);
        }
    }

    #[test]
    fn a_client_asks_for_a_partner_and_calls_when_its_id_is_lower() {
        let (mut speaker, mut words) = (Speaker::default(), Words::new());
        let mut hear = |message: &str| {
            let heard = super::super::Speaker::hear(&mut speaker, message.as_bytes(), &mut words);
            (heard, std::mem::take(&mut words))
        };
        let asks = vec![AVAILABLE.to_vec()];
        assert_eq!(hear(r#"{"type":"ready","clientId":"b"}"#), (Heard::Ready, asks.clone()));
        let matched = r#"{"type":"matched","roomId":"r","partnerId":"c"}"#;
        assert_eq!(hear(matched), (Heard::Partnered(Role::Caller), Vec::new()));
        assert_eq!(hear(r#"{"type":"partner-left"}"#), (Heard::PartnerLeft, asks));
        let limited = r#"{"type":"error","code":"RATE_LIMIT","message":"Too many messages"}"#;
        assert_eq!(hear(limited).0, Heard::Refused { limited: true });
        assert_eq!(hear("{}").0, Heard::Unknown);
    }

    #[test]
    fn who_waits_for_its_turn_is_matched_within_its_group() {
        let (group, mut words) = (Rc::new(Group::default()), Words::new());
        let [mut one, mut other] =
            [0, 1].map(|index| Speaker::in_turn(Seat::of(index, 2), Rc::clone(&group)));
        for (speaker, id) in [(&mut one, "a"), (&mut other, "b")] {
            let ready = format!(r#"{{"type":"ready","clientId":"{id}"}}"#);
            assert_eq!(speaker.hear(ready.as_bytes(), &mut words), Heard::Ready);
        }
        assert!(words.is_empty(), "not before its turn");
        assert_eq!(
            (one.look_at_group(&mut words), one.look_at_group(&mut words)),
            (Heard::Nothing, Heard::Nothing)
        );
        assert_eq!(words, [AVAILABLE], "once");
        let matched = |id: &str| format!(r#"{{"type":"matched","roomId":"r","partnerId":"{id}"}}"#);
        assert_eq!(one.hear(matched("c").as_bytes(), &mut words), Heard::Stranger);
        assert!(matches!(one.hear(matched("b").as_bytes(), &mut words), Heard::Partnered(_)));
        assert!(matches!(other.hear(matched("a").as_bytes(), &mut words), Heard::Partnered(_)));
    }
}
