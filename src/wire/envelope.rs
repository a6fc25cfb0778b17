//! JSON without re-serialising: the top-level members of a message as spans, so that a dialect reads its routing
//! fields and forwards the rest as the bytes that came in.
//!
//! simd-json rewrites its input (it unescapes strings in place), so it parses a scratch copy. That validates the
//! whole message and gives its strings, which start at the same offsets in the copy as in the message; the spans of
//! the values follow from the positions of the keys. What is in a string matters for the few that a dialect looks at
//! alone, so those are unescaped from the message when they are asked for, and in the copy short escapes are blotted
//! out beforehand: an SDP has a hundred of them, and unescaping them was most of its parsing.
//!
//! What simd-json refuses and `JSON.parse` takes (lone surrogates, 1e400, integers above 64 bits) goes once through
//! serde_json before it is called no JSON.
//!
//! This file alone names the JSON crates. What JSON is: protocols.md section 0, JSON.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::mem;

use serde::de::{DeserializeSeed, Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use simd_json::{Buffers, INPUT_PADDING, Node, StaticNode, Tape};

use super::Span;
use crate::limits::JSON_DEPTH_MAX;

/// The message is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotJson;

/// What a JSON value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of RFC 8259 section 3")]
pub enum Kind {
    Null,
    Boolean,
    Number,
    String,
    Array,
    Object,
}

/// One member of a top-level object, as spans of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The member, from its key's opening quote to the end of its value.
    pub member: Span,
    /// The value, without the blanks around it.
    pub value: Span,
    /// What the value is.
    pub kind: Kind,
    /// The key between its quotes, escapes as they stand.
    key: Span,
}

/// A parsed message: what it is, and its members if it is an object.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// What the whole message is.
    pub kind: Kind,
    message: &'a [u8],
    fields: &'a [Field],
}

impl<'a> Envelope<'a> {
    /// All members in the order in which they stand, equal keys included.
    #[must_use]
    pub fn fields(&self) -> &'a [Field] {
        self.fields
    }

    /// The last member called `name`: of equal keys the last counts.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'a Field> {
        self.fields.iter().rev().find(|field| self.is_called(field, name))
    }

    /// Whether a member is called `name`, however its key is spelled.
    #[must_use]
    pub fn is_called(&self, field: &Field, name: &str) -> bool {
        is_name(&self.message[field.key.clone()], name.as_bytes())
    }

    /// The unescaped text of a string; nothing if the value is none. UTF-8, but for lone surrogates, which stand as
    /// three bytes each.
    #[must_use]
    pub fn text(&self, field: &Field) -> Option<Cow<'a, [u8]>> {
        let between_quotes = field.value.start + 1..field.value.end.saturating_sub(1);
        (field.kind == Kind::String).then(|| unescaped(&self.message[between_quotes]))
    }

    /// The unescaped texts of an array that holds nothing but strings, as [`Envelope::text`] gives them; nothing if
    /// the value is anything else.
    #[must_use]
    pub fn texts(&self, field: &Field) -> Option<Vec<Cow<'a, [u8]>>> {
        if field.kind != Kind::Array {
            return None;
        }
        let mut texts = Vec::new();
        let mut at = skip_blanks(self.message, field.value.start + 1);
        while at + 1 < field.value.end {
            if self.message[at] != b'"' {
                return None;
            }
            let end = skip_string(self.message, at + 1);
            texts.push(unescaped(&self.message[at + 1..end]));
            let comma = skip_blanks(self.message, end + 1);
            at = skip_blanks(self.message, comma + 1);
        }
        Some(texts)
    }

    /// Where the brace stands that closes a message that is an object.
    #[must_use]
    pub fn closing_brace(&self) -> usize {
        end_of_text(self.message, self.message.len()) - 1
    }

    /// The text of the last member called `name`, if that is a string.
    #[must_use]
    pub fn text_of(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        self.field(name).and_then(|field| self.text(field))
    }
}

/// A parser and the memory that it uses again for every message.
pub struct Parser {
    /// What simd-json rewrites.
    scratch: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
    fields: Vec<Field>,
}

impl std::fmt::Debug for Parser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parser").finish_non_exhaustive()
    }
}

impl Default for Parser {
    fn default() -> Self {
        Self {
            scratch: Vec::new(),
            buffers: Buffers::with_max_depth(0, JSON_DEPTH_MAX),
            tape: Tape(Vec::new()),
            fields: Vec::new(),
        }
    }
}

impl Parser {
    /// Bytes of scratch that [`Parser::trim`] leaves alone.
    const KEPT_BYTES: usize = 64 * 1024;

    /// Parses one whole message.
    ///
    /// # Errors
    /// [`NotJson`] for what `JSON.parse` would refuse, bytes that are not UTF-8, and nesting over
    /// [`JSON_DEPTH_MAX`].
    pub fn parse<'a>(&'a mut self, message: &'a [u8]) -> Result<Envelope<'a>, NotJson> {
        self.fields.clear();
        let kind = match self.parse_fast(message) {
            Some(kind) => kind,
            None => self.parse_slowly(message)?,
        };
        Ok(Envelope { kind, message, fields: &self.fields })
    }

    /// Frees the memory of a burst of large messages. Called now and then.
    pub fn trim(&mut self) {
        if self.scratch.capacity() > Self::KEPT_BYTES {
            *self = Self::default();
        }
    }

    /// Parses with simd-json; nothing where it refuses the message.
    fn parse_fast(&mut self, message: &[u8]) -> Option<Kind> {
        self.scratch.clear();
        self.scratch.extend_from_slice(message);
        blot_short_escapes(&mut self.scratch);
        self.scratch.resize(message.len() + INPUT_PADDING, 0);
        let scratch_start = self.scratch.as_ptr() as usize;
        let mut tape = mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let parsed =
            simd_json::fill_tape_padded(&mut self.scratch, message.len(), &mut self.buffers, &mut tape);
        let kind = parsed.ok().and_then(|()| tape.0.first().map(kind_of));
        if kind == Some(Kind::Object) {
            fields_from_tape(&tape.0, message, scratch_start, &mut self.fields);
        }
        self.tape = tape.reset();
        kind
    }

    /// Parses with serde_json, raw values unread.
    fn parse_slowly(&mut self, message: &[u8]) -> Result<Kind, NotJson> {
        if std::str::from_utf8(message).is_err() || !is_shallow(message) {
            return Err(NotJson);
        }
        serde_json::from_slice::<&RawValue>(message).map_err(|_| NotJson)?;
        let kind = kind_at(message, skip_blanks(message, 0));
        if kind == Kind::Object {
            // The keys are read as bytes, which serde_json checks less strictly: the message is known to be JSON.
            let visitor = Members { message, fields: &mut self.fields };
            let mut deserializer = serde_json::Deserializer::from_slice(message);
            deserializer.deserialize_map(visitor).map_err(|_| NotJson)?;
        }
        Ok(kind)
    }
}

fn kind_of(node: &Node<'_>) -> Kind {
    match node {
        Node::String(_) => Kind::String,
        Node::Object { .. } => Kind::Object,
        Node::Array { .. } => Kind::Array,
        Node::Static(StaticNode::Null) => Kind::Null,
        Node::Static(StaticNode::Bool(_)) => Kind::Boolean,
        Node::Static(_) => Kind::Number,
    }
}

/// Finds the members of the object that the tape begins with. `scratch_start` is the address where the strings of the
/// tape have the same offsets as in `message`.
fn fields_from_tape(tape: &[Node<'_>], message: &[u8], scratch_start: usize, fields: &mut Vec<Field>) {
    let mut at = 1;
    while let [Node::String(key), value, ..] = &tape[at..] {
        let key_start = key.as_ptr() as usize - scratch_start;
        if let Some(before) = fields.last_mut() {
            before.close(end_before(message, key_start - 1));
        }
        fields.push(Field::open(message, key_start, kind_of(value)));
        at += match value {
            Node::Object { count, .. } | Node::Array { count, .. } => 2 + count,
            _ => 2,
        };
    }
    if let Some(last) = fields.last_mut() {
        let closing_brace = end_of_text(message, message.len()) - 1;
        last.close(end_of_text(message, closing_brace));
    }
}

impl Field {
    /// A member whose key begins at `key_start`, behind its opening quote, and whose end is not known yet. The message
    /// is valid JSON.
    fn open(message: &[u8], key_start: usize, kind: Kind) -> Self {
        let key_end = skip_string(message, key_start);
        let colon = skip_blanks(message, key_end + 1);
        let value_start = skip_blanks(message, colon + 1);
        Self {
            member: key_start - 1..value_start,
            value: value_start..value_start,
            kind,
            key: key_start..key_end,
        }
    }

    fn close(&mut self, end: usize) {
        self.member.end = end;
        self.value.end = end;
    }
}

/// Where the value ends that a comma divides from the key whose opening quote is at `quote`.
fn end_before(message: &[u8], quote: usize) -> usize {
    let comma = end_of_text(message, quote) - 1;
    end_of_text(message, comma)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn skip_blanks(message: &[u8], from: usize) -> usize {
    from + message[from..].iter().take_while(|&&byte| is_blank(byte)).count()
}

/// The end of what stands before `to`, without the blanks between.
fn end_of_text(message: &[u8], to: usize) -> usize {
    to - message[..to].iter().rev().take_while(|&&byte| is_blank(byte)).count()
}

/// What the value is that begins at `at`; the message is valid JSON.
fn kind_at(message: &[u8], at: usize) -> Kind {
    match message[at] {
        b'{' => Kind::Object,
        b'[' => Kind::Array,
        b'"' => Kind::String,
        b't' | b'f' => Kind::Boolean,
        b'n' => Kind::Null,
        _ => Kind::Number,
    }
}

/// Whether nothing is nested deeper than [`JSON_DEPTH_MAX`].
fn is_shallow(message: &[u8]) -> bool {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(&byte) = message.get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => at = skip_string(message, at + 1),
            _ => {}
        }
        if depth > JSON_DEPTH_MAX {
            return false;
        }
        at += 1;
    }
    true
}

/// The closing quote of the string whose text begins at `start`, or the end of the message.
fn skip_string(message: &[u8], start: usize) -> usize {
    let mut at = start;
    while at < message.len() && message[at] != b'"' {
        at += if message[at] == b'\\' { 2 } else { 1 };
    }
    at.min(message.len())
}

/// Puts two harmless bytes in the place of each escape of two bytes. Whether the message is JSON does not change: inside
/// a string such an escape is allowed, as are the two bytes; outside of one neither is.
fn blot_short_escapes(message: &mut [u8]) {
    // Most messages have none.
    let Some(mut at) = memchr::memchr(b'\\', message) else { return };
    while let Some(word) = message[at..].first_chunk() {
        match first_backslash(*word) {
            None => at += word.len(),
            Some(offset) => at = blot_escape(message, at + offset),
        }
    }
    while at < message.len() {
        at = if message[at] == b'\\' { blot_escape(message, at) } else { at + 1 };
    }
}

/// The first backslash among eight bytes. They are compared all at once, which for an SDP with an escape every few
/// bytes is faster than a search made for long stretches.
fn first_backslash(word: [u8; 8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    const BACKSLASH: u64 = 0x5c;
    const HIGH_BITS: u64 = u64::from_le_bytes([0x80; 8]);
    let differing = u64::from_le_bytes(word) ^ (ONES * BACKSLASH);
    let equal = differing.wrapping_sub(ONES) & !differing & HIGH_BITS;
    (equal != 0).then_some(equal.trailing_zeros() as usize / 8)
}

/// Blots out the escape that begins at `at`, if it is one of two bytes, and returns where it ends.
fn blot_escape(message: &mut [u8], at: usize) -> usize {
    let Some([backslash, escaped]) = message.get_mut(at..at + 2) else { return message.len() };
    if matches!(escaped, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') {
        *backslash = b'-';
        *escaped = b'-';
    }
    at + 2
}

/// Whether this is what stands between the quotes of a key called `name`, which holds no backslash. Escapes are longer
/// than what they stand for, so hardly any key has to be searched for them.
fn is_name(between_quotes: &[u8], name: &[u8]) -> bool {
    match between_quotes.len().cmp(&name.len()) {
        Ordering::Less => false,
        Ordering::Equal => between_quotes == name,
        Ordering::Greater => between_quotes.contains(&b'\\') && *unescaped(between_quotes) == *name,
    }
}

/// The text of a string, given what stands between its quotes.
fn unescaped(between_quotes: &[u8]) -> Cow<'_, [u8]> {
    if !between_quotes.contains(&b'\\') {
        return Cow::Borrowed(between_quotes);
    }
    let quoted = [b"\"", between_quotes, b"\""].concat();
    let text = serde_json::Deserializer::from_slice(&quoted).deserialize_bytes(Text);
    // What stands between the quotes was validated with its message.
    Cow::Owned(text.unwrap_or_default())
}

/// Takes a string as bytes: as text, lone surrogates would be refused.
struct Text;

impl Visitor<'_> for Text {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, text: &[u8]) -> Result<Vec<u8>, E> {
        Ok(text.to_vec())
    }
}

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Vec<u8>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

/// Collects the members of an object on the slow path.
struct Members<'a> {
    message: &'a [u8],
    fields: &'a mut Vec<Field>,
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { message, fields } = self;
        // The brace or comma before the next member.
        let mut before = skip_blanks(message, 0);
        while members.next_key_seed(Text)?.is_some() {
            let raw: &RawValue = members.next_value()?;
            let value_start = raw.get().as_ptr() as usize - message.as_ptr() as usize;
            let quote = skip_blanks(message, before + 1);
            let mut field = Field::open(message, quote + 1, kind_at(message, value_start));
            field.close(value_start + raw.get().len());
            before = skip_blanks(message, field.value.end);
            fields.push(field);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
