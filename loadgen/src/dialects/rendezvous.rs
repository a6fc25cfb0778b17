//! What a client of the rendezvous dialect hears and says (protocols.md section 2).

use std::borrow::Cow;

use serde::Deserialize;

use super::{Heard, Seat, Words, as_json_string};
use crate::payload::{self, Body, Role};

/// The two roles; the members of a group have them in turns.
pub(crate) const ROLES: [&str; 2] = ["wallet", "extension"];

/// The path of a member of the group with this connection id.
pub(crate) fn path(connection_id: &str, member: usize) -> String {
    let (source, target) = (ROLES[member % 2], ROLES[(member + 1) % 2]);
    // Either order is right.
    if member.is_multiple_of(4) {
        format!("/{connection_id}?source={source}&target={target}")
    } else {
        format!("/{connection_id}?target={target}&source={source}")
    }
}

/// The `method` of a kind of body.
pub(crate) fn method(kind: &str) -> &str {
    if kind == "ice" { "iceCandidate" } else { kind }
}

/// A client's message around a body.
pub(super) fn wrap(body: &Body) -> String {
    format!(
        r#"{{"requestId":"4b0d6a5e-0d5c-4a6f-9a34-6c1d8e2f7b90","method":"{}","encryptedPayload":{},"targetClientId":"{}"}}"#,
        method(body.kind),
        as_json_string(&body.opaque),
        payload::blank(Seat::NAME_LEN),
    )
}

/// What the server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// This one was there before.
    AlreadyConnected(Cow<'a, str>),
    /// This one has come.
    JustConnected(Cow<'a, str>),
    /// This one has gone.
    Disconnected(Cow<'a, str>),
    /// Another one's message.
    RemoteData,
    /// One's own message, with this request id, has arrived.
    Confirmation(Cow<'a, str>),
    /// Its target is not there.
    Missing(Cow<'a, str>),
    /// It was wrong.
    Invalid,
    /// Nothing that the protocol knows.
    Unknown,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(borrow, default)]
    info: Cow<'a, str>,
    #[serde(borrow, default)]
    remote_client_id: Cow<'a, str>,
    #[serde(borrow, default)]
    request_id: Cow<'a, str>,
}

impl<'a> Event<'a> {
    /// Reads a message of the server. Relayed ones are known by their first bytes.
    pub(crate) fn parse(message: &'a [u8]) -> Self {
        if message.starts_with(br#"{"info":"remoteData","#) {
            return Self::RemoteData;
        }
        serde_json::from_slice(message).map_or(Self::Unknown, Self::of)
    }

    fn of(envelope: Envelope<'a>) -> Self {
        match envelope.info.as_ref() {
            "remoteClientIsAlreadyConnected" => Self::AlreadyConnected(envelope.remote_client_id),
            "remoteClientJustConnected" => Self::JustConnected(envelope.remote_client_id),
            "remoteClientDisconnected" => Self::Disconnected(envelope.remote_client_id),
            "remoteData" => Self::RemoteData,
            "confirmation" => Self::Confirmation(envelope.request_id),
            "missingRemoteClientError" => Self::Missing(envelope.request_id),
            "validationError" | "invalidMessageError" => Self::Invalid,
            _ => Self::Unknown,
        }
    }
}

/// A client that sends to the first of the other role that it hears of.
#[derive(Debug)]
pub(crate) struct Speaker {
    seat: Seat,
    partner: String,
}

impl Speaker {
    pub(super) fn new(seat: Seat) -> Self {
        Self { seat, partner: String::new() }
    }
}

impl super::Speaker for Speaker {
    fn greet(&mut self, _words: &mut Words) -> Heard {
        Heard::Ready
    }

    fn hear(&mut self, message: &[u8], _words: &mut Words) -> Heard {
        match Event::parse(message) {
            Event::RemoteData => Heard::Relay,
            Event::Confirmation(_) => Heard::Nothing,
            Event::AlreadyConnected(id) | Event::JustConnected(id) if self.partner.is_empty() => {
                self.partner = id.into_owned();
                Heard::Partnered(if self.seat.member == 0 { Role::Caller } else { Role::Callee })
            }
            Event::Disconnected(id) if id == self.partner => {
                self.partner.clear();
                Heard::PartnerLeft
            }
            Event::AlreadyConnected(_) | Event::JustConnected(_) | Event::Disconnected(_) => Heard::Nothing,
            Event::Missing(_) | Event::Invalid => Heard::Refused { limited: false },
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
        let id = r#""remoteClientId":"x"}"#;
        for (info, event) in [
            ("remoteClientIsAlreadyConnected", Event::AlreadyConnected("x".into())),
            ("remoteClientJustConnected", Event::JustConnected("x".into())),
            ("remoteClientDisconnected", Event::Disconnected("x".into())),
            ("validationError", Event::Invalid),
            ("else", Event::Unknown),
        ] {
            assert_eq!(Event::parse(format!(r#"{{"info":"{info}",{id}"#).as_bytes()), event);
        }
        let confirmation = br#"{"info":"confirmation","requestId":"r"}"#;
        assert_eq!(Event::parse(confirmation), Event::Confirmation("r".into()));
        let data = br#"{"info":"remoteData","data":{},"remoteClientId":"x","requestId":"r"}"#;
        assert_eq!(Event::parse(data), Event::RemoteData);
        assert_eq!(Event::parse(b"no JSON"), Event::Unknown);
    }

    #[test]
    fn both_roles_share_a_connection_id() {
        let id = "0".repeat(64);
        assert_eq!(path(&id, 0), format!("/{id}?source=wallet&target=extension"));
        assert_eq!(path(&id, 1), format!("/{id}?target=wallet&source=extension"));
    }

    #[test]
    fn the_partner_is_the_first_of_the_other_role() {
        let (mut speaker, mut words) = (Speaker::new(Seat::of(1, 2)), Words::new());
        assert_eq!(speaker.greet(&mut words), Heard::Ready);
        let mut hear = |info: &str, id: &str| {
            let message = format!(r#"{{"info":"{info}","remoteClientId":"{id}"}}"#);
            (speaker.hear(message.as_bytes(), &mut words), speaker.address().to_owned())
        };
        let partnered = Heard::Partnered(Role::Callee);
        assert_eq!(hear("remoteClientJustConnected", "a"), (partnered, "a".to_owned()));
        assert_eq!(hear("remoteClientJustConnected", "b"), (Heard::Nothing, "a".to_owned()));
        assert_eq!(hear("remoteClientDisconnected", "b"), (Heard::Nothing, "a".to_owned()));
        assert_eq!(hear("remoteClientDisconnected", "a"), (Heard::PartnerLeft, String::new()));
    }
}
