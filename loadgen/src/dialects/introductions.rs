//! What a client of the introductions hears and says (protocols.md section 5).
//!
//! Introductions carry nothing that a client sends but the names of documents. The load is therefore `Join`: each leads
//! to an `Introduction` at both clients of a pair. The two name their documents in opposite order, so that the order in
//! an introduction tells whose `Join` it comes from.

use std::borrow::Cow;

use serde::Deserialize;

use super::{Heard, Seat, Words};
use crate::payload::{self, PayloadKind, Role, Template};

/// What stands between two documents of a list.
const BETWEEN: &str = r#"",""#;

/// The path of a client.
pub(crate) fn path(id: &str) -> String {
    format!("/introduction/{id}")
}

/// Adds documents.
pub(crate) fn join(documents: &[impl AsRef<str>]) -> String {
    let names: Vec<_> = documents.iter().map(AsRef::as_ref).collect();
    format!(r#"{{"type":"Join","join":["{}"]}}"#, names.join(BETWEEN))
}

/// The one message of the load; the last document's name is as long as it takes.
pub(super) fn templates(kind: PayloadKind) -> Result<Vec<Template>, String> {
    let address = payload::blank(3 * Seat::NAME_LEN + 2 * BETWEEN.len());
    let shortest = join(&[address.as_str()]).len();
    let pad = match kind {
        PayloadKind::Ice => 0,
        PayloadKind::Bytes(bytes) => bytes.checked_sub(shortest).ok_or_else(|| {
            format!("a message of {bytes} bytes has no room for three documents: {shortest} is the least")
        })?,
        PayloadKind::Sdp | PayloadKind::Mixed => {
            return Err("introductions carry no session descriptions: say a number of bytes".to_owned());
        }
    };
    Ok(vec![Template::new(join(&[address + &"x".repeat(pad)]))])
}

/// An introduction.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Introduction<'a> {
    /// `Introduction`.
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Cow<'a, str>,
    /// Id of the other.
    #[serde(borrow)]
    pub(crate) id: Cow<'a, str>,
    /// The documents that the two have in common.
    #[serde(borrow)]
    pub(crate) keys: Vec<Cow<'a, str>>,
}

/// A client with documents that its partner has as well.
#[derive(Debug)]
pub(crate) struct Speaker {
    seat: Seat,
    /// The documents, as they stand between the quotes of a list. The partner has the first two in the other order.
    documents: String,
    introduced: bool,
}

impl Speaker {
    pub(super) fn new(seat: Seat) -> Self {
        // Names of members that a pair has not.
        let mut names = [seat.name(2), seat.name(3), seat.name(4)];
        if seat.member == 1 {
            names.swap(0, 1);
        }
        Self { seat, documents: names.join(BETWEEN), introduced: false }
    }

    /// A client with one document that nobody else has.
    pub(super) fn alone(seat: Seat) -> Self {
        Self { seat, documents: seat.name(2), introduced: false }
    }

    /// An introduction that one's own `Join` led to has the documents in one's own order.
    fn is_own(&self, message: &[u8]) -> bool {
        let first_two = &self.documents.as_bytes()[..2 * Seat::NAME_LEN + BETWEEN.len()];
        memchr::memmem::find(message, first_two).is_some()
    }
}

impl super::Speaker for Speaker {
    fn greet(&mut self, words: &mut Words) -> Heard {
        words.push(join(&[self.documents.as_str()]).into_bytes());
        Heard::Ready
    }

    fn hear(&mut self, message: &[u8], _words: &mut Words) -> Heard {
        if !message.starts_with(br#"{"type":"Introduction","#) {
            return Heard::Unknown;
        }
        if !std::mem::replace(&mut self.introduced, true) {
            return Heard::Partnered(if self.seat.member == 0 { Role::Caller } else { Role::Callee });
        }
        if self.is_own(message) { Heard::Echo } else { Heard::Relay }
    }

    fn address(&self) -> &str {
        &self.documents
    }
}

#[cfg(test)]
mod tests {
    use super::super::Speaker as _;
    use super::*;
    use crate::payload::Stamp;

    #[test]
    fn introductions_are_told_apart_by_the_order_of_the_documents() {
        let mut words = Words::new();
        let (mut one, mut other) = (Speaker::new(Seat::of(0, 2)), Speaker::new(Seat::of(1, 2)));
        assert_eq!(one.greet(&mut words), Heard::Ready);
        assert_eq!(other.greet(&mut words), Heard::Ready);
        assert_ne!(words[0], words[1]);
        let introduction = |speaker: &Speaker| {
            format!(r#"{{"type":"Introduction","id":"x","keys":["{}"]}}"#, speaker.address())
        };
        let (of_one, of_other) = (introduction(&one), introduction(&other));
        assert_eq!(one.hear(of_other.as_bytes(), &mut words), Heard::Partnered(Role::Caller));
        assert_eq!(one.hear(of_other.as_bytes(), &mut words), Heard::Relay);
        assert_eq!(one.hear(of_one.as_bytes(), &mut words), Heard::Echo);
        assert_eq!(one.hear(b"{}", &mut words), Heard::Unknown);
    }

    #[test]
    fn the_message_has_the_length_asked_for() {
        let bytes = |kind| templates(kind).map(|templates| templates[0].message.len());
        let shortest = bytes(PayloadKind::Ice).expect("a message");
        for len in [shortest, shortest + 1, 500] {
            assert_eq!(bytes(PayloadKind::Bytes(len)), Ok(len));
        }
        assert!(bytes(PayloadKind::Bytes(shortest - 1)).is_err());
        assert!(bytes(PayloadKind::Sdp).is_err());
        let template = templates(PayloadKind::Bytes(500)).expect("a message").remove(0);
        let speaker = Speaker::new(Seat::of(0, 2));
        let mut message = template.message.clone();
        template.put(Stamp { sender: 0, sequence: 0, time_ns: 0 }, speaker.address(), &mut message);
        let json: serde_json::Value = serde_json::from_slice(&message).expect("JSON");
        assert_eq!(json["join"].as_array().map(Vec::len), Some(3));
    }
}
