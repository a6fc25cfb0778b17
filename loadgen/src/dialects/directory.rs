//! What a client of the directory dialect hears and says (protocols.md section 3).

use std::borrow::Cow;

use serde::Deserialize;

use super::{Heard, Seat, Words};
use crate::payload::{self, Body, Role};

/// Messages that a client may send in a window of a second.
pub(crate) const MESSAGES_PER_S_MAX: u32 = 50;
/// Is answered with a pong.
pub(crate) const PING: &[u8] = br#"{"type":"ping"}"#;

/// Asks for a name.
pub(crate) fn login(name: &str) -> Vec<u8> {
    format!(r#"{{"type":"login","name":"{name}"}}"#).into_bytes()
}

/// A client's message around a body.
pub(super) fn wrap(body: &Body) -> String {
    let Body { kind, field, opaque } = body;
    let target = payload::blank(Seat::NAME_LEN);
    format!(r#"{{"type":"{kind}","target":"{target}","{field}":{opaque}}}"#)
}

/// What the server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// One is logged in; these are all that are, oneself included.
    LoginSuccess {
        /// One's own name.
        id: Cow<'a, str>,
        /// All names.
        clients: Vec<Cow<'a, str>>,
    },
    /// This one has logged in.
    PeerConnected(Cow<'a, str>),
    /// This one has gone.
    PeerDisconnected(Cow<'a, str>),
    /// Answer to a ping.
    Pong,
    /// An error.
    Error {
        /// `name_taken`, `target_not_found`, …
        error: Cow<'a, str>,
        /// Who was not found.
        target: Cow<'a, str>,
    },
    /// Another one's message.
    Relay,
    /// Nothing that the protocol knows.
    Unknown,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    clients: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    peer: Cow<'a, str>,
    #[serde(borrow, default)]
    error: Cow<'a, str>,
    #[serde(borrow, default)]
    target: Cow<'a, str>,
}

impl<'a> Event<'a> {
    /// Reads a message of the server. Those of other clients end with who sent them, and nothing else does.
    pub(crate) fn parse(message: &'a [u8]) -> Self {
        if message.starts_with(br#"{"type":"ice","#) {
            return Self::Relay;
        }
        match serde_json::from_slice::<Envelope<'a>>(message) {
            Ok(envelope) => Self::of(envelope),
            Err(_) if message.ends_with(br#""}"#) => Self::Relay,
            Err(_) => Self::Unknown,
        }
    }

    fn of(envelope: Envelope<'a>) -> Self {
        match envelope.kind.as_ref() {
            "login_success" => Self::LoginSuccess { id: envelope.id, clients: envelope.clients },
            "peer_connected" => Self::PeerConnected(envelope.peer),
            "peer_disconnected" => Self::PeerDisconnected(envelope.peer),
            "pong" => Self::Pong,
            "error" => Self::Error { error: envelope.error, target: envelope.target },
            "" => Self::Unknown,
            _ => Self::Relay,
        }
    }
}

/// A client that logs in and sends to the other member of its pair.
#[derive(Debug)]
pub(crate) struct Speaker {
    seat: Seat,
    partner: String,
}

impl Speaker {
    pub(super) fn new(seat: Seat) -> Self {
        Self { seat, partner: seat.name(1 - seat.member.min(1)) }
    }

    fn partnered(&self) -> Heard {
        Heard::Partnered(if self.seat.member == 0 { Role::Caller } else { Role::Callee })
    }
}

impl super::Speaker for Speaker {
    fn greet(&mut self, words: &mut Words) -> Heard {
        words.push(login(&self.seat.name(self.seat.member)));
        Heard::Nothing
    }

    fn hear(&mut self, message: &[u8], _words: &mut Words) -> Heard {
        match Event::parse(message) {
            Event::Relay => Heard::Relay,
            Event::LoginSuccess { clients, .. } if clients.contains(&Cow::from(&self.partner)) => {
                self.partnered()
            }
            Event::LoginSuccess { .. } => Heard::Ready,
            Event::PeerConnected(peer) if peer == self.partner => self.partnered(),
            Event::PeerDisconnected(peer) if peer == self.partner => Heard::PartnerLeft,
            Event::PeerConnected(_) | Event::PeerDisconnected(_) | Event::Pong => Heard::Nothing,
            Event::Error { error, .. } => Heard::Refused { limited: error == "rate_limit_exceeded" },
            Event::Unknown => Heard::Unknown,
        }
    }

    fn address(&self) -> &str {
        &self.partner
    }
}

#[cfg(test)]
mod tests {
    use super::super::Speaker as _;
    use super::*;

    #[test]
    fn messages_are_told_apart() {
        let success = Event::parse(br#"{"type":"login_success","id":"a","clients":["b","a"]}"#);
        let clients = vec!["b".into(), "a".into()];
        assert_eq!(success, Event::LoginSuccess { id: "a".into(), clients });
        let connected = Event::parse(br#"{"type":"peer_connected","peer":"c"}"#);
        assert_eq!(connected, Event::PeerConnected("c".into()));
        assert_eq!(Event::parse(br#"{"type":"pong","timestamp":12}"#), Event::Pong);
        let error = Event::parse(br#"{"type":"error","error":"target_not_found","target":"x"}"#);
        assert_eq!(error, Event::Error { error: "target_not_found".into(), target: "x".into() });
        assert_eq!(Event::parse(br#"{"type":"offer","target":"a","sdp":1.50,"from":"b"}"#), Event::Relay);
        assert_eq!(Event::parse(br#"{"type":"x","target":"a","id":7,"from":"b"}"#), Event::Relay);
        assert_eq!(Event::parse(b"no JSON"), Event::Unknown);
    }

    #[test]
    fn the_partner_is_in_the_list_or_comes_later() {
        let mut words = Words::new();
        let seat = Seat::of(0, 2);
        let mut speaker = Speaker::new(seat);
        assert_eq!(speaker.greet(&mut words), Heard::Nothing);
        assert_eq!(words, [login(&seat.name(0))]);
        let alone = format!(r#"{{"type":"login_success","id":"{0}","clients":["{0}"]}}"#, seat.name(0));
        assert_eq!(speaker.hear(alone.as_bytes(), &mut words), Heard::Ready);
        let came = format!(r#"{{"type":"peer_connected","peer":"{}"}}"#, seat.name(1));
        assert_eq!(speaker.hear(came.as_bytes(), &mut words), Heard::Partnered(Role::Caller));
        let limited = br#"{"type":"error","error":"rate_limit_exceeded"}"#;
        assert_eq!(speaker.hear(limited, &mut words), Heard::Refused { limited: true });
        let list = format!(r#"{{"type":"login_success","id":"x","clients":["{}","x"]}}"#, seat.name(0));
        let mut other = Speaker::new(Seat::of(1, 2));
        assert_eq!(other.hear(list.as_bytes(), &mut words), Heard::Partnered(Role::Callee));
    }
}
