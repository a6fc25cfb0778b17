//! JSON without re-serialising: the top-level members of a message as spans, so that a dialect reads its routing
//! fields and forwards the rest as the bytes that came in.
//!
//! simd-json rewrites its input (it unescapes strings in place), so it parses a scratch copy. That validates the
//! whole message and gives its strings, which start at the same offsets in the copy as in the message; the spans of
//! the values follow from the positions of the keys. What simd-json refuses and `JSON.parse` takes (lone surrogates,
//! 1e400, integers above 64 bits) goes once through serde_json before it is called no JSON.
//!
//! This file alone names the JSON crates. What JSON is: protocols.md section 0, JSON.

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

/// One member of a top-level object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The member in the message, from its key's opening quote to the end of its value.
    pub member: Span,
    /// The value in the message, without the blanks around it.
    pub value: Span,
    /// What the value is.
    pub kind: Kind,
    /// The unescaped key, in the arena.
    key: Span,
    /// The unescaped value, in the arena, if it is a string.
    text: Span,
}

/// A parsed message: what it is, and its members if it is an object.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// What the whole message is.
    pub kind: Kind,
    fields: &'a [Field],
    arena: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// All members in the order in which they stand, equal keys included.
    #[must_use]
    pub fn fields(&self) -> &'a [Field] {
        self.fields
    }

    /// The last member called `key`: of equal keys the last counts.
    #[must_use]
    pub fn field(&self, key: &str) -> Option<&'a Field> {
        self.fields.iter().rev().find(|field| &self.arena[field.key.clone()] == key.as_bytes())
    }

    /// The unescaped text of a string; nothing if the value is none. UTF-8, but for lone surrogates, which stand as
    /// three bytes each.
    #[must_use]
    pub fn text(&self, field: &Field) -> Option<&'a [u8]> {
        (field.kind == Kind::String).then(|| &self.arena[field.text.clone()])
    }

    /// The text of the last member called `key`, if that is a string.
    #[must_use]
    pub fn text_of(&self, key: &str) -> Option<&'a [u8]> {
        self.field(key).and_then(|field| self.text(field))
    }
}

/// A parser and the memory that it uses again for every message.
pub struct Parser {
    /// The scratch copy, which after parsing holds the unescaped strings; or those alone, after the slow path.
    arena: Vec<u8>,
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
            arena: Vec::new(),
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
    pub fn parse(&mut self, message: &[u8]) -> Result<Envelope<'_>, NotJson> {
        self.fields.clear();
        let kind = match self.parse_fast(message) {
            Some(kind) => kind,
            None => self.parse_slowly(message)?,
        };
        Ok(Envelope { kind, fields: &self.fields, arena: &self.arena })
    }

    /// Frees the memory of a burst of large messages. Called now and then.
    pub fn trim(&mut self) {
        if self.arena.capacity() > Self::KEPT_BYTES {
            *self = Self::default();
        }
    }

    /// Parses with simd-json; nothing where it refuses the message.
    fn parse_fast(&mut self, message: &[u8]) -> Option<Kind> {
        self.arena.clear();
        self.arena.extend_from_slice(message);
        self.arena.resize(message.len() + INPUT_PADDING, 0);
        let arena_start = self.arena.as_ptr() as usize;
        let mut tape = mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let parsed =
            simd_json::fill_tape_padded(&mut self.arena, message.len(), &mut self.buffers, &mut tape);
        let kind = parsed.ok().and_then(|()| tape.0.first().map(kind_of));
        if kind == Some(Kind::Object) {
            fields_from_tape(&tape.0, message, arena_start, &mut self.fields);
        }
        self.tape = tape.reset();
        kind
    }

    /// Parses with serde_json, raw values unread.
    fn parse_slowly(&mut self, message: &[u8]) -> Result<Kind, NotJson> {
        self.arena.clear();
        if std::str::from_utf8(message).is_err() || !is_shallow(message) {
            return Err(NotJson);
        }
        serde_json::from_slice::<&RawValue>(message).map_err(|_| NotJson)?;
        let kind = kind_at(message, skip_blanks(message, 0));
        if kind == Kind::Object {
            // The keys are read as bytes, which serde_json checks less strictly: the message is known to be JSON.
            let visitor = Members { message, arena: &mut self.arena, fields: &mut self.fields };
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

/// Finds the members of the object that the tape begins with. `arena_start` is the address where the strings of the
/// tape have the same offsets as in `message`.
fn fields_from_tape(tape: &[Node<'_>], message: &[u8], arena_start: usize, fields: &mut Vec<Field>) {
    let mut at = 1;
    while let [Node::String(key), value, ..] = &tape[at..] {
        let key_start = key.as_ptr() as usize - arena_start;
        if let Some(before) = fields.last_mut() {
            before.close(end_before(message, key_start - 1));
        }
        let value_start = value_after_key(message, key_start);
        fields.push(Field {
            member: key_start - 1..value_start,
            value: value_start..value_start,
            kind: kind_of(value),
            key: key_start..key_start + key.len(),
            text: match value {
                Node::String(text) => value_start + 1..value_start + 1 + text.len(),
                _ => 0..0,
            },
        });
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
    fn close(&mut self, end: usize) {
        self.member.end = end;
        self.value.end = end;
    }
}

/// Where the value begins whose key begins at `key_start` (behind its opening quote): after the closing quote, the
/// colon and blanks. The message is valid JSON.
fn value_after_key(message: &[u8], key_start: usize) -> usize {
    let mut at = key_start;
    while message[at] != b'"' {
        at += if message[at] == b'\\' { 2 } else { 1 };
    }
    let colon = skip_blanks(message, at + 1);
    skip_blanks(message, colon + 1)
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
            b'"' => at = skip_string(message, at),
            _ => {}
        }
        if depth > JSON_DEPTH_MAX {
            return false;
        }
        at += 1;
    }
    true
}

/// The closing quote of the string that opens at `quote`, or the end of the message.
fn skip_string(message: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while at < message.len() && message[at] != b'"' {
        at += if message[at] == b'\\' { 2 } else { 1 };
    }
    at
}

/// Collects the members of an object on the slow path.
struct Members<'a> {
    message: &'a [u8],
    arena: &'a mut Vec<u8>,
    fields: &'a mut Vec<Field>,
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { message, arena, fields } = self;
        let mut end_before = skip_blanks(message, 0);
        while let Some(key) = members.next_key_seed(Text(arena))? {
            let raw: &RawValue = members.next_value()?;
            let value_start = raw.get().as_ptr() as usize - message.as_ptr() as usize;
            let value = value_start..value_start + raw.get().len();
            let member = skip_blanks(message, end_before + 1)..value.end;
            end_before = skip_blanks(message, value.end);
            let kind = kind_at(message, value_start);
            let text = match kind {
                Kind::String => {
                    let mut string = serde_json::Deserializer::from_str(raw.get());
                    Text(arena).deserialize(&mut string).map_err(serde::de::Error::custom)?
                }
                Kind::Null | Kind::Boolean | Kind::Number | Kind::Array | Kind::Object => 0..0,
            };
            fields.push(Field { member, value, kind, key, text });
        }
        Ok(())
    }
}

/// Appends an unescaped string to the arena and gives its place there.
struct Text<'a>(&'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = Span;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Span, D::Error> {
        // As bytes: as text, lone surrogates would be refused.
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Text<'_> {
    type Value = Span;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, text: &[u8]) -> Result<Span, E> {
        let start = self.0.len();
        self.0.extend_from_slice(text);
        Ok(start..self.0.len())
    }
}

#[cfg(test)]
mod tests;
