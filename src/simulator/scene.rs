//! What the books of a dialect see of the world while they follow what a shard has done.

use super::Summary;
use super::connection::{Connection, Voice};
use super::ledger::{Expected, Meaning, What};
use super::{introductions, lobby, pipes, rendezvous};
use crate::shard::Settings;

/// The world at one step of a shard.
pub(super) struct Scene<'a> {
    pub(super) connections: &'a mut [Connection],
    pub(super) settings: &'a Settings,
    pub(super) summary: &'a mut Summary,
    pub(super) now_ms: u64,
    /// The same moment in milliseconds since 1970.
    pub(super) unix_ms: u64,
    /// The number of the step; a group of what comes in any order in it.
    pub(super) step: u64,
    /// The last number of a step or group.
    pub(super) numbers: &'a mut u64,
    /// The server has surely handled what the step is about: it was not short of memory.
    pub(super) is_certain: bool,
}

impl Scene<'_> {
    /// A client must hear this text next.
    pub(super) fn expect(&mut self, to: usize, text: String) {
        self.expect_what(to, What::Text(text), Meaning::Nothing, 0);
    }

    /// A group of its own, of what comes in any order.
    pub(super) fn new_group(&mut self) -> u64 {
        *self.numbers += 1;
        *self.numbers
    }

    /// A client must hear this text, and learns something; in any order with what else it hears in this step so.
    pub(super) fn expect_news(&mut self, to: usize, text: String, meaning: Meaning) {
        self.expect_what(to, What::Text(text), meaning, self.step);
    }

    /// A client must hear this; neighbours of one group come in any order.
    pub(super) fn expect_what(&mut self, to: usize, what: What, meaning: Meaning, group: u64) {
        let is_certain = self.is_certain;
        self.connections[to].ledger.expect(Expected { what, meaning, is_certain, group });
    }

    /// A client must hear a close, and nothing after it. What it says from now on does not count.
    pub(super) fn stop(&mut self, to: usize, code: Option<u16>, reason: Option<&'static str>) {
        self.expect_what(to, What::Close(code, reason), Meaning::Nothing, 0);
        self.connections[to].ledger.has_stopped = true;
    }

    /// A client's id as text.
    pub(super) fn id(&self, of: usize) -> String {
        String::from_utf8_lossy(&self.connections[of].id).into_owned()
    }

    pub(super) fn rendezvous(&mut self, of: usize) -> Option<&mut rendezvous::Client> {
        match &mut self.connections[of].voice {
            Voice::Rendezvous(client) => Some(client),
            _ => None,
        }
    }

    pub(super) fn introduction(&mut self, of: usize) -> Option<&mut introductions::Client> {
        match &mut self.connections[of].voice {
            Voice::Introductions(client) => Some(client),
            _ => None,
        }
    }

    pub(super) fn pipe(&mut self, of: usize) -> Option<&mut pipes::End> {
        match &mut self.connections[of].voice {
            Voice::Pipe(end) => Some(end),
            _ => None,
        }
    }

    pub(super) fn lobby(&mut self, of: usize) -> Option<&mut lobby::Client> {
        match &mut self.connections[of].voice {
            Voice::Lobby(client) => Some(client),
            _ => None,
        }
    }
}
