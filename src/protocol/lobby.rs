//! `/` before its dialect is known (protocols.md section 0, row `/`).
//!
//! Directory and rooms share a path, so what a client says first decides. Until then it belongs to neither, and this
//! keeps no state of it.

use crate::id::ShardIndex;
use crate::wire::envelope::{Envelope, NotJson};

/// The shard that directory and rooms live on, of this many: not that of the pairing queue, if there is another.
#[must_use]
pub fn home(shards: usize) -> ShardIndex {
    ShardIndex((1 % shards) as u8)
}

/// Which of the two dialects of `/` are on (`PROTOCOLS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offered {
    /// Named peers.
    pub directory: bool,
    /// Four digits.
    pub rooms: bool,
}

/// What a message says of the dialect that its client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The directory until the close, also when it then refuses the message, which is its to handle.
    Directory,
    /// Rooms until the close, also when they then refuse the message, which is theirs to handle.
    Rooms,
    /// Nothing yet; the answer is [`super::directory::NOT_LOGGED_IN`].
    NotLoggedIn,
    /// Nothing yet, and there is no answer.
    Silence,
}

/// Reads the choice out of a message of a client that has not chosen yet. The words of a dialect that is off are types
/// that nobody knows.
#[must_use]
pub fn choose(offered: Offered, parsed: Result<&Envelope<'_>, NotJson>) -> Choice {
    let word = parsed.ok().and_then(|envelope| envelope.text_of("type")).unwrap_or_default();
    match &*word {
        b"" => Choice::Silence,
        b"login" if offered.directory => Choice::Directory,
        b"create" | b"join" | b"signal" if offered.rooms => Choice::Rooms,
        _ if offered.directory => Choice::NotLoggedIn,
        _ => Choice::Silence,
    }
}

#[cfg(test)]
mod tests;
