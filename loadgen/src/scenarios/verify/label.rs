//! Messages that say who sent them where, and whose every byte follows from that.

use std::cmp::Ordering;
use std::fmt;

use memchr::memmem;

use super::violation::Violation;
use crate::payload::{self, Body, Candidate, Role};

const MARKER: &str = "x-label ";
/// Every so many messages one is long.
const LONG_EVERY: u32 = 61;
const LONG_BYTES: usize = 20_000;

/// Who sent a message, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    /// Number of the connection that sent it, unique in the run.
    pub(crate) sender: u32,
    /// Messages of that connection before it.
    pub(crate) sequence: u32,
    /// Messages of that connection before it under this key.
    pub(crate) key_sequence: u32,
    /// What the sender meant it for: the room it knew itself to be in, or the one who is to get it.
    pub(crate) key: String,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sender, sequence, key_sequence, key } = self;
        write!(f, "{MARKER}{sender:08x} {sequence:08x} {key_sequence:08x} {key}")
    }
}

impl Label {
    /// The label inside a message.
    pub(crate) fn find(message: &[u8]) -> Option<Self> {
        let start = memmem::find(message, MARKER.as_bytes())? + MARKER.len();
        let rest = &message[start..];
        let end = rest
            .iter()
            .position(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b' '));
        let text = std::str::from_utf8(&rest[..end.unwrap_or(rest.len())]).ok()?;
        let mut words = text.split(' ');
        let mut number = || u32::from_str_radix(words.next()?, 16).ok();
        let (sender, sequence, key_sequence) = (number()?, number()?, number()?);
        Some(Self { sender, sequence, key_sequence, key: words.next()?.to_owned() })
    }

    /// Whether this label is the next under its key.
    pub(crate) fn is_due(&self, due: u32) -> Result<(), Violation> {
        self.is_number(self.key_sequence, due)
    }

    /// Whether one of its numbers is the one that is due.
    pub(crate) fn is_number(&self, number: u32, due: u32) -> Result<(), Violation> {
        match number.cmp(&due) {
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(Violation::Lost { label: self.to_string(), due }),
            Ordering::Less => Err(Violation::Repeated { label: self.to_string(), due }),
        }
    }
}

/// The bodies of labelled messages.
#[derive(Debug)]
pub(crate) struct Bodies {
    candidates: Vec<Candidate>,
}

impl Bodies {
    pub(crate) fn new() -> Self {
        Self { candidates: payload::candidates() }
    }

    /// The body that belongs to a label.
    pub(crate) fn of(&self, label: &Label) -> Body {
        let choice = label.sequence.wrapping_add(label.sender) as usize;
        match choice % 8 {
            0 => Body::sdp("offer", payload::sdp_json(Role::Caller, choice / 8, &label.to_string())),
            1 => Body::sdp("answer", payload::sdp_json(Role::Callee, choice / 8, &label.to_string())),
            2 => Body::ice(awkward(label)),
            3 => Body::sdp("offer", format!(r#"{{"type":"offer","sdp":"v=0\r\na={label}\r\n"}}"#)),
            _ => Body::ice(self.candidates[choice % self.candidates.len()].to_json_with(&label.to_string())),
        }
    }
}

/// Valid JSON that does not survive being parsed and written again.
pub(crate) fn awkward(label: &Label) -> String {
    let pad = if label.sequence.is_multiple_of(LONG_EVERY) { LONG_BYTES } else { 0 };
    format!(
        r#"{{"candidate":"{label}","number":1.50,"large":12345678901234567890123,"exponent":1E2,"lone":"\ud83d","emoji":"\uD83D\uDE00","slash":"\/","from":"somebody else","blanks": [ 1 ,2 ],"twice":1,"twice":2,"quote":"}}\",\"type\":\"x\"","pad":"{}"}}"#,
        "é".repeat(pad / 2)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(sequence: u32) -> Label {
        Label { sender: 3, sequence, key_sequence: 1, key: "7d3a91c0-58be-4e27-8f57-7e5d9b1a2c33".to_owned() }
    }

    #[test]
    fn labels_are_found_in_every_message_and_the_json_is_valid() {
        let bodies = Bodies::new();
        for sequence in 0..200 {
            let body = bodies.of(&label(sequence)).opaque;
            assert_eq!(Label::find(body.as_bytes()), Some(label(sequence)), "{body}");
            let _: &serde_json::value::RawValue = serde_json::from_str(&body).expect("JSON");
        }
    }

    #[test]
    fn no_label_is_found_where_none_is() {
        assert_eq!(Label::find(b"x-label 1 2"), None);
        assert_eq!(Label::find(b"x-label z 2 3 r"), None);
        assert_eq!(Label::find(b"{}"), None);
    }
}
