//! Named peers (protocols.md section 3).

use std::collections::BTreeSet;

use parlor::shard::dialects::Dialect;
use parlor::wire::envelope::Kind;
use serde_json::value::RawValue;

use crate::json::{self, Object};
use crate::referee::Table;
use crate::wire::Reading;
use crate::world::Host;

/// Who is logged in, in the order of their logins.
#[derive(Debug, Default)]
pub struct Directory {
    peers: Vec<(usize, String)>,
}

impl Directory {
    /// A client that has chosen the directory says something of this type.
    pub(super) fn handle_message(
        &mut self,
        who: usize,
        kind: &[u8],
        message: &[u8],
        raw: &RawValue,
        said: &Object<'_>,
        table: &mut Table,
    ) {
        let Some(me) = self.name_of(who).map(String::from) else {
            return match kind {
                b"login" => self.login(who, said, table),
                _ => table.say(who, &error("not_logged_in")),
            };
        };
        match kind {
            b"login" => table.say(who, &error("invalid_name")),
            b"ping" => {
                table.say(who, &format!(r#"{{"type":"pong","timestamp":{}}}"#, table.unix_ms));
            }
            b"stream_started" | b"stream_restored" | b"page_opened" => {
                let kind = String::from_utf8_lossy(kind);
                self.tell_others(who, &format!(r#"{{"type":"{kind}","from":"{me}"}}"#), table);
            }
            b"stream_stopped" => {
                let reason = said.member("reason").filter(|reason| !is_falsy(reason));
                let reason = reason.map_or(r#""manual""#, RawValue::get);
                let stopped = format!(r#"{{"type":"stream_stopped","from":"{me}","reason":{reason}}}"#);
                self.tell_others(who, &stopped, table);
            }
            _ => {
                let Some(target) = said.member("target") else { return };
                self.forward(who, target, || signed(message, raw, &me), table);
            }
        }
    }

    /// A client is gone.
    pub(super) fn leave(&mut self, who: usize, table: &mut Table) {
        let Some(name) = self.name_of(who).map(String::from) else { return };
        self.tell_others(who, &format!(r#"{{"type":"peer_disconnected","peer":"{name}"}}"#), table);
        self.peers.retain(|(other, _)| *other != who);
    }

    /// The directory of the server is the same.
    pub(super) fn check(&self, host: &Host) {
        let names = host.shards.iter().flat_map(|shard| shard.directory_names());
        assert!(names.eq(self.peers.iter().map(|(_, name)| name)), "the directory");
    }

    /// Who is logged in knows by what it has read who else is.
    pub(super) fn finish(&self, host: &Host, readings: &[Reading<'_>]) {
        let mut names: Vec<&str> = host.shards.iter().flat_map(|shard| shard.directory_names()).collect();
        names.sort_unstable();
        for (who, reading) in readings.iter().enumerate() {
            let known = known(reading);
            let is_open = matches!(host.dialect(who), Some(Dialect::Directory(_)));
            if is_open && !known.is_empty() {
                assert_eq!(known, names, "whom peer {who} knows");
            }
        }
    }

    fn name_of(&self, who: usize) -> Option<&str> {
        self.peers.iter().find(|(other, _)| *other == who).map(|(_, name)| name.as_str())
    }

    fn login(&mut self, who: usize, said: &Object<'_>, table: &mut Table) {
        let Some(name) = wanted(said) else {
            table.say(who, &error("invalid_name"));
            return table.doom(who, Some(4001), "Invalid client name");
        };
        if self.peers.iter().any(|(_, other)| *other == name) {
            table.say(who, &error("name_taken"));
            return table.doom(who, Some(4000), "Client name already taken");
        }
        self.peers.push((who, name.clone()));
        let names: Vec<String> = self.peers.iter().map(|(_, name)| format!("\"{name}\"")).collect();
        let names = names.join(",");
        table.say(who, &format!(r#"{{"type":"login_success","id":"{name}","clients":[{names}]}}"#));
        self.tell_others(who, &format!(r#"{{"type":"peer_connected","peer":"{name}"}}"#), table);
    }

    fn tell_others(&self, who: usize, text: &str, table: &mut Table) {
        for (other, _) in self.peers.iter().filter(|(other, _)| *other != who) {
            table.say(*other, text);
        }
    }

    fn forward(&self, who: usize, target: &RawValue, signed: impl FnOnce() -> Vec<u8>, table: &mut Table) {
        let Some(name) = json::text(target).filter(|name| !name.is_empty()) else { return };
        match self.peers.iter().find(|(_, other)| *other.as_bytes() == *name) {
            Some((to, _)) => drop(table.say_bytes(*to, &signed())),
            None => {
                let target = target.get();
                table
                    .say(who, &format!(r#"{{"type":"error","error":"target_not_found","target":{target}}}"#));
            }
        }
    }
}

/// Whom a client knows by what it has read, in the order of their names: each comes once and goes once, and says
/// something in between alone.
fn known<'a>(reading: &Reading<'a>) -> Vec<String> {
    let mut known = BTreeSet::new();
    for text in reading.texts() {
        let said = Object::new(text);
        let name = |key| said.text_of(key).map(|name| String::from_utf8(name.into_owned()).expect("a name"));
        if let Some(from) = name("from") {
            assert!(known.contains(&from), "{text}, but known are {known:?}");
            continue;
        }
        match &*said.text_of("type").expect("it says what it is") {
            b"login_success" => {
                let names = said.member("clients").map(json::elements).expect("there are");
                known.extend(names.into_iter().map(|name| name.get().trim_matches('"').to_owned()));
            }
            b"peer_connected" => {
                let is_new = known.insert(name("peer").expect("a peer"));
                assert!(is_new && known.len() > 1, "{text}, but known are {known:?}");
            }
            b"peer_disconnected" => {
                let is_known = known.remove(&name("peer").expect("a peer"));
                assert!(is_known, "{text}, but known are {known:?}");
            }
            b"pong" | b"error" | b"room_created" | b"room_joined" | b"signal" => {}
            kind => panic!("from nobody: {}", kind.escape_ascii()),
        }
    }
    known.into_iter().collect()
}

fn error(what: &str) -> String {
    format!(r#"{{"type":"error","error":"{what}"}}"#)
}

/// The name that a login asks for, if it is one.
fn wanted(said: &Object<'_>) -> Option<String> {
    let name = said.member("name").filter(|name| json::kind(name) != Kind::Null);
    let text = json::text(name.or_else(|| said.member("id"))?)?;
    let text = std::str::from_utf8(&text).ok()?;
    // White space and line ends of ECMA-262.
    let blanks = "\t\n\u{b}\u{c}\r \u{a0}\u{1680}\u{2000}\u{2001}\u{2002}\u{2003}\u{2004}\u{2005}\u{2006}\u{2007}\
        \u{2008}\u{2009}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}\u{feff}";
    let name = text.trim_matches(|character| blanks.contains(character));
    let is_good = |character: char| character.is_ascii_alphanumeric() || "_-".contains(character);
    ((1..=64).contains(&name.len()) && name.chars().all(is_good)).then(|| name.to_owned())
}

/// What JavaScript takes for false.
fn is_falsy(value: &RawValue) -> bool {
    match json::kind(value) {
        Kind::Null => true,
        Kind::Boolean => value.get() == "false",
        Kind::Number => value.get().parse() == Ok(0.0),
        Kind::String => value.get() == r#""""#,
        Kind::Array | Kind::Object => false,
    }
}

/// A message without any `from` of its own, and with the true one behind all else.
fn signed(message: &[u8], raw: &RawValue, me: &str) -> Vec<u8> {
    let start = raw.get().as_ptr() as usize - message.as_ptr() as usize;
    let (mut signed, mut has_kept) = (message[..=start].to_vec(), false);
    for (blanks, member, rest) in split(&raw.get()[1..raw.get().len() - 1]) {
        let is_sender = *json::unescaped(key_of(member)) == *b"from";
        match (is_sender, has_kept) {
            (true, true) => signed.extend_from_slice(rest.as_bytes()),
            (true, false) => signed.extend_from_slice(blanks.as_bytes()),
            (false, _) => {
                signed.extend(has_kept.then_some(b','));
                signed.extend_from_slice([blanks, member, rest].concat().as_bytes());
                has_kept = true;
            }
        }
    }
    signed.extend_from_slice(format!(r#","from":"{me}""#).as_bytes());
    signed.extend_from_slice(&message[start + raw.get().len() - 1..]);
    signed
}

/// The members of an object, what stands between its braces: each with the blanks in front and behind.
fn split(mut between: &str) -> Vec<(&str, &str, &str)> {
    let mut members = Vec::new();
    while !between.is_empty() {
        let end = end_of_member(between);
        let (whole, rest) = (&between[..end], between.get(end + 1..).unwrap_or_default());
        let start = whole.trim_ascii_start();
        let member = start.trim_ascii_end();
        members.push((&whole[..whole.len() - start.len()], member, &start[member.len()..]));
        between = rest;
    }
    members
}

/// Where the first comma stands that is in no string and no value, or the end.
fn end_of_member(text: &str) -> usize {
    let (mut depth, mut is_string, mut is_escaped) = (0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => is_string = !is_string,
            _ if is_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b',' if depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

/// The key of a member, in its quotes.
fn key_of(member: &str) -> &str {
    let mut is_escaped = false;
    let end = member.bytes().skip(1).position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    });
    &member[..end.expect("a key ends") + 2]
}
