//! Named peers: who is logged in is known to all, and each is reached by name (protocols.md section 3).
//!
//! What goes from one peer to another is the message as it came in, but for who sent it: that is said by the server
//! alone, so every `from` of the sender's own is left out and the true one is written in front of the closing brace.
//!
//! A directory of several hosts is one list (section 6): who may have a name is asked elsewhere, and what comes of it is
//! in `shared.rs`.

mod shared;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ahash::RandomState;

use super::{Action, Actions, PARTS_MAX, Part, Parts, parts, reply};
use crate::id::{ClientId, HostId};
use crate::limits::DIRECTORY_NAME_BYTES_MAX;
use crate::wire::Span;
use crate::wire::close::CloseCode;
use crate::wire::envelope::{Envelope, Field, Kind, NotJson};
pub use shared::{Ask, Distant};

/// The answer to whoever says something before the login.
pub const NOT_LOGGED_IN: &str = r#"{"type":"error","error":"not_logged_in"}"#;
/// The answer to each message over the limit of a window.
pub const RATE_LIMIT: &str = r#"{"type":"error","error":"rate_limit_exceeded"}"#;

/// What the directory knows of one client. Not logged in at first.
#[derive(Debug, Default)]
pub struct State {
    login: Option<Login>,
    /// Its login is being asked about.
    is_asking: bool,
}

const _: () = assert!(size_of::<State>() <= 32);

#[derive(Debug)]
struct Login {
    /// Its place in the list, but for who it is.
    number: u64,
    name: Arc<str>,
}

/// The order of logins: their number, and who it is where two have the same.
type Rank = (u64, ClientId);

/// All who are logged in.
#[derive(Debug)]
pub struct Directory {
    /// Those of this host, in the order of their logins.
    peers: BTreeMap<Rank, Arc<str>>,
    /// Those of other hosts, likewise.
    distant: BTreeMap<Rank, Arc<str>>,
    /// The numbers of those of other hosts.
    numbers: BTreeMap<ClientId, u64>,
    /// How many of each other host there are; no entry has none.
    hosts: BTreeMap<HostId, usize>,
    /// All by their names, which peers choose: a keyed hash.
    clients: HashMap<Arc<str>, ClientId, RandomState>,
    next_number: u64,
    /// Whether there are other hosts, so that names are asked for.
    is_shared: bool,
}

impl Directory {
    /// `seed`: the key of the hash. `is_shared`: there may be other hosts, and who may have a name is asked
    /// ([`Ask`]) and not decided here.
    #[must_use]
    pub fn new(seed: [u64; 4], is_shared: bool) -> Self {
        let [a, b, c, d] = seed;
        Self {
            peers: BTreeMap::new(),
            distant: BTreeMap::new(),
            numbers: BTreeMap::new(),
            hosts: BTreeMap::new(),
            clients: HashMap::with_hasher(RandomState::with_seeds(a, b, c, d)),
            next_number: 0,
            is_shared,
        }
    }

    /// The names of all of this host who are logged in, in the order of their logins.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.peers.values().map(|name| &**name)
    }

    /// How many of this host are logged in.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether nobody of this host is logged in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// A client has sent a message. `parsed` is what `message` holds; `unix_ms` is milliseconds since 1970.
    pub fn handle_message(
        &mut self,
        state: &mut State,
        me: ClientId,
        message: &[u8],
        parsed: Result<&Envelope<'_>, NotJson>,
        unix_ms: u64,
        out: &mut Actions,
    ) {
        let Ok(envelope) = parsed else { return out.push(Action::Ignore) };
        let kind = envelope.text_of("type").unwrap_or_default();
        match (&*kind, &state.login) {
            (b"", _) => out.push(Action::Ignore),
            // Until there is an answer nothing of it is read.
            (_, None) if state.is_asking => out.push(Action::Ignore),
            (b"login", Some(_)) => out.push(error(INVALID_NAME)),
            (b"login", None) => self.handle_login(state, me, envelope, out),
            (_, None) => out.push(error(NOT_LOGGED_IN)),
            (b"ping", Some(_)) => out.push(pong(unix_ms)),
            (b"stream_started", Some(login)) => self.tell_all(me, about(STREAM_STARTED, &login.name), out),
            (b"stream_restored", Some(login)) => self.tell_all(me, about(STREAM_RESTORED, &login.name), out),
            (b"page_opened", Some(login)) => self.tell_all(me, about(PAGE_OPENED, &login.name), out),
            (b"stream_stopped", Some(login)) => {
                self.tell_all(me, stream_stopped(message, envelope, login), out);
            }
            (_, Some(login)) => self.forward(me, message, envelope, login, out),
        }
    }

    /// A client is gone.
    pub fn handle_leave(&mut self, state: &mut State, me: ClientId, out: &mut Actions) {
        if std::mem::take(&mut state.is_asking) {
            return out.push(Action::Directory(Ask::Logout(me)));
        }
        let Some(login) = state.login.take() else { return };
        let peer = self.peers.remove(&(login.number, me));
        debug_assert!(peer.is_some(), "who is logged in is a peer");
        self.clients.remove(&login.name);
        self.tell_here(me, about(PEER_DISCONNECTED, &login.name), out);
        if self.is_shared {
            out.push(Action::Directory(Ask::Logout(me)));
        }
    }

    fn handle_login(&mut self, state: &mut State, me: ClientId, envelope: &Envelope<'_>, out: &mut Actions) {
        let Some(name) = name_in(envelope) else {
            return refuse(me, INVALID_NAME, CloseCode::InvalidName, "Invalid client name", out);
        };
        // Of a name that another host has, that host knows first when it is free.
        if self.clients.get(&name).is_some_and(|holder| !self.numbers.contains_key(holder)) {
            return refuse_taken(me, out);
        }
        if self.is_shared {
            state.is_asking = true;
            return out.push(Action::Directory(Ask::Login { client: me, name }));
        }
        let login = Login { number: self.next_number, name };
        self.next_number += 1;
        self.enter(state, me, login, out);
    }

    /// A client has its name.
    fn enter(&mut self, state: &mut State, me: ClientId, login: Login, out: &mut Actions) {
        self.clients.insert(login.name.clone(), me);
        self.peers.insert((login.number, me), login.name.clone());
        out.push(self.login_success(&login));
        self.tell_here(me, about(PEER_CONNECTED, &login.name), out);
        state.login = Some(login);
    }

    fn login_success(&self, login: &Login) -> Action {
        let mut names: Vec<(&Rank, &Arc<str>)> = self.peers.iter().chain(&self.distant).collect();
        if !self.distant.is_empty() {
            names.sort_unstable();
        }
        let mut quoted = String::with_capacity(names.iter().map(|(_, name)| name.len() + 3).sum());
        for (_, name) in names {
            let comma = if quoted.is_empty() { "" } else { "," };
            quoted.extend([comma, "\"", name, "\""]);
        }
        reply([
            Part::Literal(r#"{"type":"login_success","id":""#),
            Part::Text(login.name.clone()),
            Part::Literal(r#"","clients":["#),
            Part::Text(quoted.into()),
            Part::Literal("]}"),
        ])
    }

    /// Tells all others, here and elsewhere.
    fn tell_all(&self, me: ClientId, parts: Parts, out: &mut Actions) {
        if !self.hosts.is_empty() {
            let to = Distant::Hosts(self.hosts.keys().copied().collect());
            out.push(Action::Distant { to, parts: parts.clone() });
        }
        self.tell_here(me, parts, out);
    }

    /// Tells all others of this host.
    fn tell_here(&self, me: ClientId, parts: Parts, out: &mut Actions) {
        let clients = self.peers.keys().map(|(_, client)| *client);
        let to: Vec<ClientId> = clients.filter(|client| *client != me).collect();
        if !to.is_empty() {
            out.push(Action::Broadcast { to, parts });
        }
    }

    /// Passes a message of any other type on to its target.
    fn forward(
        &self,
        me: ClientId,
        message: &[u8],
        envelope: &Envelope<'_>,
        login: &Login,
        out: &mut Actions,
    ) {
        let Some(target) = envelope.field("target") else { return out.push(Action::Ignore) };
        let name = envelope.text(target).unwrap_or_default();
        if name.is_empty() {
            return out.push(Action::Ignore);
        }
        let to = std::str::from_utf8(&name).ok().and_then(|name| self.clients.get(name));
        out.push(match to {
            Some(to) if *to == me => Action::Reply(signed(message, envelope, login)),
            Some(to) if self.numbers.contains_key(to) => {
                Action::Distant { to: Distant::Client(*to), parts: signed(message, envelope, login) }
            }
            Some(to) => Action::Send { to: *to, parts: signed(message, envelope, login) },
            None => {
                reply([Part::Literal(TARGET_NOT_FOUND), Part::Span(target.value.clone()), Part::Literal("}")])
            }
        });
    }
}

/// The name that a `login` asks for, if it is one.
fn name_in(envelope: &Envelope<'_>) -> Option<Arc<str>> {
    let name = envelope.field("name").filter(|name| name.kind != Kind::Null);
    let text = envelope.text(name.or_else(|| envelope.field("id"))?)?;
    let name = std::str::from_utf8(&text).ok()?.trim_matches(is_trimmed);
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let is_name = (1..=DIRECTORY_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_good);
    is_name.then(|| Arc::from(name))
}

/// Whether JavaScript's `trim` cuts it off: white space and line ends of ECMA-262. Unicode counts U+0085 as white
/// space and U+FEFF not; JavaScript has it the other way round.
fn is_trimmed(character: char) -> bool {
    match character {
        '\u{85}' => false,
        '\u{feff}' => true,
        _ => character.is_whitespace(),
    }
}

fn refuse_taken(me: ClientId, out: &mut Actions) {
    refuse(me, NAME_TAKEN, CloseCode::NameTaken, "Client name already taken", out);
}

fn refuse(me: ClientId, message: &'static str, code: CloseCode, reason: &'static str, out: &mut Actions) {
    out.push(error(message));
    out.push(Action::Close { client: me, code: Some(code), reason });
}

fn pong(unix_ms: u64) -> Action {
    reply([Part::Literal(r#"{"type":"pong","timestamp":"#), Part::Number(unix_ms), Part::Literal("}")])
}

/// What says nothing but the name of the one whom it is about.
fn about(before_name: &'static str, name: &Arc<str>) -> Parts {
    parts([Part::Literal(before_name), Part::Text(name.clone()), Part::Literal("\"}")])
}

fn stream_stopped(message: &[u8], envelope: &Envelope<'_>, login: &Login) -> Parts {
    let reason = envelope.field("reason").filter(|reason| !is_falsy(message, reason));
    parts([
        Part::Literal(r#"{"type":"stream_stopped","from":""#),
        Part::Text(login.name.clone()),
        Part::Literal(r#"","reason":"#),
        reason.map_or(Part::Literal(r#""manual""#), |reason| Part::Span(reason.value.clone())),
        Part::Literal("}"),
    ])
}

/// Whether a value counts as no value where JavaScript asks for a condition: null, false, 0 and the empty string.
fn is_falsy(message: &[u8], field: &Field) -> bool {
    let value = &message[field.value.clone()];
    match field.kind {
        Kind::Null => true,
        Kind::Boolean => value == b"false",
        Kind::Number => std::str::from_utf8(value).is_ok_and(|number| number.parse() == Ok(0.0)),
        Kind::String => value == b"\"\"",
        Kind::Array | Kind::Object => false,
    }
}

/// A message as it was sent, with its true sender as the last key and no other.
fn signed(message: &[u8], envelope: &Envelope<'_>, login: &Login) -> Parts {
    let closing_brace = envelope.closing_brace();
    let sender = [
        Part::Literal(r#","from":""#),
        Part::Text(login.name.clone()),
        Part::Literal("\""),
        Part::Span(closing_brace..message.len()),
    ];
    let kept = without_sender(message, envelope, closing_brace);
    let mut signed = Parts::new();
    if kept.clone().count() + sender.len() <= PARTS_MAX {
        signed.extend(kept.map(Part::Span));
    } else {
        let kept = kept.flat_map(|span| &message[span]).copied().collect();
        let text = String::from_utf8(kept).expect("what is JSON is UTF-8");
        signed.push(Part::Text(text.into()));
    }
    signed.extend(sender);
    signed
}

/// What stands before the closing brace and belongs to no member called `from`. A member goes with the comma before it,
/// those at the start with the comma behind them. Another one is there: the `target`.
fn without_sender<'a>(
    message: &'a [u8],
    envelope: &'a Envelope<'_>,
    closing_brace: usize,
) -> impl Iterator<Item = Span> + Clone + 'a {
    let fields = envelope.fields();
    let is_sender = |field: &Field| envelope.is_called(field, "from");
    let first_kept = fields.iter().position(|field| !is_sender(field)).unwrap_or_default();
    let senders = fields.iter().enumerate().filter(move |(_, field)| is_sender(field));
    let cuts = senders.map(move |(at, field)| match at.checked_sub(1) {
        Some(before) if at > first_kept => comma_behind(message, &fields[before])..field.member.end,
        _ => field.member.start..comma_behind(message, field) + 1,
    });
    let starts = std::iter::once(0).chain(cuts.clone().map(|cut| cut.end));
    let ends = cuts.map(|cut| cut.start).chain(std::iter::once(closing_brace));
    starts.zip(ends).map(|(start, end)| start..end).filter(|span| !span.is_empty())
}

/// Where the comma stands that follows a member, behind nothing but blanks.
fn comma_behind(message: &[u8], field: &Field) -> usize {
    let end = field.member.end;
    end + message[end..].iter().take_while(|byte| **byte != b',').count()
}

/// An answer of protocols.md section 3 that is always the same.
fn error(message: &'static str) -> Action {
    reply([Part::Literal(message)])
}

const NAME_TAKEN: &str = r#"{"type":"error","error":"name_taken"}"#;
const INVALID_NAME: &str = r#"{"type":"error","error":"invalid_name"}"#;
/// Before the target as it was sent.
const TARGET_NOT_FOUND: &str = r#"{"type":"error","error":"target_not_found","target":"#;
/// Before the name of the one whom it is about.
const PEER_CONNECTED: &str = r#"{"type":"peer_connected","peer":""#;
const PEER_DISCONNECTED: &str = r#"{"type":"peer_disconnected","peer":""#;
const STREAM_STARTED: &str = r#"{"type":"stream_started","from":""#;
const STREAM_RESTORED: &str = r#"{"type":"stream_restored","from":""#;
const PAGE_OPENED: &str = r#"{"type":"page_opened","from":""#;

#[cfg(test)]
mod tests;
