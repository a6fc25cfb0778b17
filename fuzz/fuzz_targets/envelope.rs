//! [`Parser::parse`] against serde_json: it takes what `&RawValue` takes and no more, but for nesting over the limit;
//! the members of an object are those of serde_json, each value to the byte; keys and strings say what an unescaper says
//! that is written here anew, and where serde_json has an opinion, what that says. The parser finds its spans on a fast
//! and on a slow path, and both are ours.
#![no_main]

use std::fmt;

use libfuzzer_sys::fuzz_target;
use parlor::limits::JSON_DEPTH_MAX;
use parlor::wire::envelope::{Envelope, Kind, Parser};
use serde::Deserializer;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

fuzz_target!(|message: &[u8]| {
    let expected =
        serde_json::from_slice::<&RawValue>(message).ok().filter(|_| depth(message) <= JSON_DEPTH_MAX);
    // What the parser keeps from the message before must not show.
    let mut parser = Parser::default();
    let _ = parser.parse(&message[..message.len() / 2]);
    match (parser.parse(message), expected) {
        (Err(_), None) => {}
        (Ok(envelope), Some(raw)) => check(&envelope, message, raw),
        (found, expected) => panic!("{found:?}, but {expected:?}: {}", message.escape_ascii()),
    }
});

/// Deepest nesting of valid JSON.
fn depth(message: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut at) = (0_usize, 0, false, 0);
    while at < message.len() {
        match (message[at], in_string) {
            (b'\\', true) => at += 1,
            (b'"', _) => in_string = !in_string,
            (b'[' | b'{', false) => depth += 1,
            (b']' | b'}', false) => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
        at += 1;
    }
    deepest
}

fn check(envelope: &Envelope<'_>, message: &[u8], raw: &RawValue) {
    assert_eq!(envelope.kind, kind(raw));
    if envelope.kind != Kind::Object {
        assert!(envelope.fields().is_empty());
        return;
    }
    let mut deserializer = serde_json::Deserializer::from_slice(message);
    let expected = deserializer.deserialize_map(Members).expect("it is JSON");
    assert_eq!(envelope.fields().len(), expected.len());
    for (field, (key, value)) in envelope.fields().iter().zip(&expected) {
        assert_eq!(&message[field.value.clone()], value.get().as_bytes());
        assert!(
            message[field.member.clone()].starts_with(key.get().as_bytes()),
            "a member begins with its key"
        );
        assert_eq!(field.member.end, field.value.end, "and ends with its value");
        assert_eq!(field.kind, kind(value));
        let text = (field.kind == Kind::String).then(|| unescaped(value.get()));
        assert_eq!(envelope.text(field).as_deref(), text.as_deref());
    }
    check_keys(envelope, &expected);
}

/// The last of equal keys is found, however it is written.
fn check_keys(envelope: &Envelope<'_>, expected: &[(&RawValue, &RawValue)]) {
    let keys: Vec<Vec<u8>> = expected.iter().map(|(key, _)| unescaped(key.get())).collect();
    // Each is compared with all others: the first ones do.
    for key in keys.iter().take(20).filter_map(|key| std::str::from_utf8(key).ok()) {
        let last = keys.iter().rposition(|other| other == key.as_bytes()).map(|at| &envelope.fields()[at]);
        assert_eq!(envelope.field(key), last);
        assert_eq!(envelope.text_of(key), last.and_then(|field| envelope.text(field)));
    }
}

fn kind(raw: &RawValue) -> Kind {
    match raw.get().as_bytes()[0] {
        b'{' => Kind::Object,
        b'[' => Kind::Array,
        b'"' => Kind::String,
        b't' | b'f' => Kind::Boolean,
        b'n' => Kind::Null,
        _ => Kind::Number,
    }
}

/// What a string literal says: by way of UTF-16, as `JSON.parse` does it, lone surrogates in three bytes each.
fn unescaped(literal: &str) -> Vec<u8> {
    let mut units = Vec::new();
    let mut rest = literal[1..literal.len() - 1].chars();
    while let Some(character) = rest.next() {
        let escape = if character == '\\' { rest.next() } else { None };
        match escape {
            None => units.extend_from_slice(character.encode_utf16(&mut [0; 2])),
            Some('u') => {
                let digits: String = rest.by_ref().take(4).collect();
                units.push(u16::from_str_radix(&digits, 16).expect("it is JSON"));
            }
            Some(short) => units.push(match short {
                'b' => 8,
                'f' => 12,
                'n' => 10,
                'r' => 13,
                't' => 9,
                other => other as u16,
            }),
        }
    }
    let mut text = Vec::new();
    for decoded in char::decode_utf16(units) {
        match decoded.map_err(|lone| lone.unpaired_surrogate()) {
            Ok(character) => text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(lone) => text.extend([
                0xe0 | (lone >> 12) as u8,
                0x80 | (lone >> 6 & 63) as u8,
                0x80 | (lone & 63) as u8,
            ]),
        }
    }
    if let Ok(expected) = serde_json::from_str::<String>(literal) {
        assert_eq!(text, expected.as_bytes());
    }
    text
}

/// The members of an object in their order, as they are written.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(&'de RawValue, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(member) = members.next_entry()? {
            found.push(member);
        }
        Ok(found)
    }
}
