//! Which dialect is behind a URL, and on which shard it lives (protocols.md section 0, which dialect).

use std::borrow::Cow;
use std::hash::Hash;

use ahash::RandomState;
use http::Uri;

use super::Settings;
use crate::id::ShardIndex;
use crate::protocol::{lobby as lobby_protocol, pipe, rendezvous};
use crate::wire::http::decode_segment;

/// What a client asks to be opened.
#[derive(Debug)]
pub enum Opening {
    /// `ECHO_PATH`.
    Echo,
    /// `/ws`.
    Pairing,
    /// A connection id and two roles.
    Rendezvous(Box<rendezvous::Place>),
    /// A rendezvous URL that is wrong: the reason to close with.
    WrongUrl(&'static str),
    /// `/`: directory or rooms.
    Lobby,
    /// `/introduction/:id`, the id.
    Introduction(Box<str>),
    /// `/connection/:A/:B/:document`.
    Pipe(pipe::End),
    /// `/connection/:remote`, to be completed by the introductions.
    ShortPipe(Box<str>),
}

/// Why no dialect is behind a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoute {
    NotFound,
    BadEscape,
}

/// The shard that the pairing queue lives on.
pub const PAIRING_HOME: ShardIndex = ShardIndex(0);

/// The shard that directory and rooms live on: not that of the pairing queue, if there is another.
pub(super) fn lobby_home(shards: usize) -> ShardIndex {
    lobby_protocol::home(shards)
}

/// The shard that introductions live on.
pub(super) fn introduction_home(shards: usize) -> ShardIndex {
    ShardIndex((2 % shards) as u8)
}

impl Opening {
    /// Where it lives; nothing for what stays on the shard that accepted it.
    pub(super) fn home(&self, settings: &Settings) -> Option<ShardIndex> {
        match self {
            Self::Echo | Self::Pairing | Self::WrongUrl(_) => None,
            Self::Rendezvous(place) => Some(home_of(&place.connection, settings)),
            Self::Lobby => Some(lobby_home(settings.shards)),
            Self::Introduction(_) | Self::ShortPipe(_) => Some(introduction_home(settings.shards)),
            Self::Pipe(end) => Some(home_of(end.key(), settings)),
        }
    }
}

/// The same on all shards of a host.
fn home_of(key: &impl Hash, settings: &Settings) -> ShardIndex {
    let [a, b, c, d] = settings.key_seed;
    let hash = RandomState::with_seeds(a, b, c, d).hash_one(key);
    ShardIndex((hash % settings.shards as u64) as u8)
}

/// Finds the dialect behind a URL. `is_raw`: the request asks for `Upgrade: tcp`.
pub(super) fn route(uri: &Uri, is_raw: bool, settings: &Settings) -> Result<Opening, NoRoute> {
    let (path, query) = (uri.path(), uri.query());
    let opening = route_any(path, query, is_raw, settings)?;
    let is_long_form = matches!(&opening, Opening::Pipe(end) if end.is_raw());
    if is_raw && !is_long_form { Err(NoRoute::NotFound) } else { Ok(opening) }
}

fn route_any(path: &str, query: Option<&str>, is_raw: bool, settings: &Settings) -> Result<Opening, NoRoute> {
    if settings.echo_path.as_deref() == Some(path) {
        return Ok(Opening::Echo);
    }
    let offered = settings.offered;
    if rendezvous::is_connection_path(path) {
        return if offered.rendezvous { Ok(place(path, query)) } else { Err(NoRoute::NotFound) };
    }
    let segments = path.strip_prefix('/').ok_or(NoRoute::NotFound)?.split('/');
    let decoded: Result<Vec<_>, _> = segments.map(decode_segment).collect();
    let mut decoded = decoded.map_err(|_| NoRoute::BadEscape)?;
    let word = decoded[0].to_ascii_lowercase();
    match word.as_str() {
        "" if decoded.len() == 1 => lobby(settings),
        "ws" | "introduction" | "connection" | "connect" => {
            if decoded.len() > 1 && decoded.last().is_some_and(|last| last.is_empty()) {
                decoded.pop();
            }
            named(&word, &decoded[1..], query, is_raw, settings)
        }
        _ if offered.rendezvous && rendezvous::has_roles(query) => Ok(place(path, query)),
        _ => Err(NoRoute::NotFound),
    }
}

fn place(path: &str, query: Option<&str>) -> Opening {
    match rendezvous::place(path, query) {
        Ok(place) => Opening::Rendezvous(Box::new(place)),
        Err(reason) => Opening::WrongUrl(reason),
    }
}

fn lobby(settings: &Settings) -> Result<Opening, NoRoute> {
    let offered = settings.offered;
    if offered.directory || offered.rooms { Ok(Opening::Lobby) } else { Err(NoRoute::NotFound) }
}

/// A path that begins with one of our words; `rest`: the segments after it.
fn named(
    word: &str,
    rest: &[Cow<'_, str>],
    query: Option<&str>,
    is_raw: bool,
    settings: &Settings,
) -> Result<Opening, NoRoute> {
    let offered = settings.offered;
    let is_offered = if word == "ws" { offered.pairing } else { offered.documents };
    if !is_offered || rest.iter().any(|segment| segment.is_empty()) {
        return Err(NoRoute::NotFound);
    }
    match (word, rest) {
        ("ws", []) => Ok(Opening::Pairing),
        ("introduction", [id]) => Ok(Opening::Introduction((&**id).into())),
        ("connection" | "connect", [me, other, document]) => {
            let end = pipe::End::new(me.as_bytes(), other.as_bytes(), document.as_bytes(), is_raw);
            Ok(Opening::Pipe(end))
        }
        ("connection" | "connect", [remote]) => Ok(short_form(remote, query, is_raw)),
        _ => Err(NoRoute::NotFound),
    }
}

/// The short form of a pipe's URL, made the long one by its query if that says enough.
fn short_form(remote: &str, query: Option<&str>, is_raw: bool) -> Opening {
    let value = |name: &str| {
        let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        pairs.find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value)
    };
    match (value("local"), value("document")) {
        (Some(local), Some(document)) => {
            Opening::Pipe(pipe::End::new(local.as_bytes(), remote.as_bytes(), document.as_bytes(), is_raw))
        }
        _ => Opening::ShortPipe(remote.into()),
    }
}

/// The paths that exist, and what is spoken there.
#[must_use]
pub fn paths(settings: &Settings) -> Vec<(String, &'static str)> {
    let offered = settings.offered;
    let lobby = match (offered.directory, offered.rooms) {
        (true, true) => Some("directory, rooms"),
        (true, false) => Some("directory"),
        (false, true) => Some("rooms"),
        (false, false) => None,
    };
    let mut paths = Vec::new();
    let mut add = |path: &str, spoken| paths.push((path.to_owned(), spoken));
    if offered.pairing {
        add("/ws", "pairing");
    }
    if offered.rendezvous {
        add("/<64 hex digits>?source=…&target=…", "rendezvous");
    }
    if let Some(spoken) = lobby {
        add("/", spoken);
    }
    if offered.documents {
        add("/introduction/:id", "introductions");
        add("/connection/:A/:B/:document", "pipes");
    }
    if let Some(echo) = &settings.echo_path {
        add(echo, "echo");
    }
    paths
}

#[cfg(test)]
mod tests;
