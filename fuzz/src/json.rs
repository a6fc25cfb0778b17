//! JSON as serde_json reads it, what strings say by way of UTF-16, and how `JSON.stringify` writes them: what our own
//! parser and dialects are compared with.

use std::borrow::Cow;
use std::fmt;

use parlor::limits::JSON_DEPTH_MAX;
use parlor::wire::envelope::Kind;
use serde::Deserializer;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

/// A message, if it is JSON as the contract has it (protocols.md section 0, JSON); without the blanks around it.
#[must_use]
pub fn parse(message: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(message).ok().filter(|_| depth(message) <= JSON_DEPTH_MAX)
}

/// What a value is.
#[must_use]
pub fn kind(raw: &RawValue) -> Kind {
    match raw.get().as_bytes()[0] {
        b'{' => Kind::Object,
        b'[' => Kind::Array,
        b'"' => Kind::String,
        b't' | b'f' => Kind::Boolean,
        b'n' => Kind::Null,
        _ => Kind::Number,
    }
}

/// The members of an object in their order, keys and values as they are written; none of anything else.
#[must_use]
pub fn members(raw: &RawValue) -> Vec<(&RawValue, &RawValue)> {
    if kind(raw) != Kind::Object {
        return Vec::new();
    }
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    deserializer.deserialize_map(Members).expect("it is JSON")
}

/// The values of an array; none of anything else.
#[must_use]
pub fn elements(raw: &RawValue) -> Vec<&RawValue> {
    serde_json::from_str(raw.get()).unwrap_or_default()
}

/// The members of an object by what their keys say.
#[derive(Debug)]
pub struct Object<'a>(Vec<(Cow<'a, [u8]>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// Of anything else: no members.
    #[must_use]
    pub fn new(raw: &'a RawValue) -> Self {
        Self(members(raw).into_iter().map(|(key, value)| (unescaped(key.get()), value)).collect())
    }

    /// The last member of this name.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(key, _)| **key == *name.as_bytes()).map(|(_, value)| *value)
    }

    /// What the last member of this name says, if it is a string.
    #[must_use]
    pub fn text_of(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        self.member(name).and_then(text)
    }
}

/// What a value says, if it is a string.
#[must_use]
pub fn text(raw: &RawValue) -> Option<Cow<'_, [u8]>> {
    (kind(raw) == Kind::String).then(|| unescaped(raw.get()))
}

/// What a string literal says: by way of UTF-16, as `JSON.parse` does it, lone surrogates in three bytes each.
#[must_use]
pub fn unescaped(literal: &str) -> Cow<'_, [u8]> {
    let between_quotes = &literal[1..literal.len() - 1];
    if !between_quotes.contains('\\') {
        return Cow::Borrowed(between_quotes.as_bytes());
    }
    let mut units = Vec::new();
    let mut rest = between_quotes.chars();
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
    let text = encoded(&units);
    if let Ok(expected) = serde_json::from_str::<String>(literal) {
        assert_eq!(text, expected.as_bytes());
    }
    Cow::Owned(text)
}

/// A text as a JSON string, as `JSON.stringify` writes it. Lone surrogates come in three bytes each.
#[must_use]
pub fn stringified(mut text: &[u8]) -> String {
    let mut written = String::from("\"");
    while !text.is_empty() {
        let end = text.windows(2).position(is_surrogate).unwrap_or(text.len());
        let quoted = serde_json::to_string(&String::from_utf8_lossy(&text[..end])).expect("a string");
        written.push_str(&quoted[1..quoted.len() - 1]);
        text = &text[end..];
        if let Some((&[_, second, third], rest)) = text.split_first_chunk() {
            written.push_str(&format!("\\ud{:03x}", (u16::from(second) & 63) << 6 | u16::from(third) & 63));
            text = rest;
        }
    }
    written + "\""
}

/// Whether two bytes of text begin a surrogate: nothing else has this second byte behind this first.
fn is_surrogate(bytes: &[u8]) -> bool {
    matches!(bytes, [0xed, 0xa0..=0xff])
}

/// UTF-16 as UTF-8, lone surrogates in three bytes each.
fn encoded(units: &[u16]) -> Vec<u8> {
    let mut text = Vec::new();
    for decoded in char::decode_utf16(units.iter().copied()) {
        match decoded.map_err(|lone| lone.unpaired_surrogate()) {
            Ok(character) => text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(lone) => text.extend([
                0xe0 | (lone >> 12) as u8,
                0x80 | (lone >> 6 & 63) as u8,
                0x80 | (lone & 63) as u8,
            ]),
        }
    }
    text
}

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
