//! `/` before its dialect is known (protocols.md section 0, row `/`), and the two dialects that it may become.

use parlor::limits::{DIRECTORY_MESSAGE_BYTES_MAX, DIRECTORY_MESSAGES_MAX};

use super::directory::Directory;
use super::rooms::Rooms;
use crate::json::{self, Object};
use crate::referee::door::Behind;
use crate::referee::{Entry, Model, Overrun, Parting, Rate, Table};
use crate::wire::Reading;
use crate::world::Host;

/// Who has chosen what.
#[derive(Debug, Default)]
pub struct Lobby {
    directory: Directory,
    rooms: Rooms,
    /// By peer.
    choices: Vec<Choice>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Choice {
    #[default]
    None,
    Directory,
    Rooms,
}

impl Lobby {
    fn choice(&self, who: usize) -> Choice {
        self.choices.get(who).copied().unwrap_or_default()
    }

    fn choose(&mut self, who: usize, kind: &[u8]) {
        self.choices.resize(self.choices.len().max(who + 1), Choice::None);
        self.choices[who] = match kind {
            b"login" => Choice::Directory,
            b"create" | b"join" | b"signal" => Choice::Rooms,
            _ => Choice::None,
        };
    }
}

impl Model for Lobby {
    fn enter(&mut self, _who: usize, behind: Behind, _table: &mut Table) -> Entry {
        assert_eq!(behind, Behind::Lobby);
        Entry::Open
    }

    fn rate(&self, who: usize, table: &Table) -> Option<Rate> {
        let limit = r#"{"type":"error","error":"rate_limit_exceeded"}"#;
        let (max, overrun) = match self.choice(who) {
            Choice::None | Choice::Directory => (DIRECTORY_MESSAGES_MAX, Overrun::Answer(limit)),
            Choice::Rooms => (table.limits.messages_per_second_max * 5, Overrun::Pause),
        };
        Some(Rate { max, window_ms: 1_000, overrun })
    }

    fn message_bytes_max(&self, who: usize, table: &Table) -> usize {
        match self.choice(who) {
            Choice::None | Choice::Directory => DIRECTORY_MESSAGE_BYTES_MAX,
            Choice::Rooms => table.limits.message_bytes_max,
        }
    }

    fn handle_message(&mut self, who: usize, message: &[u8], table: &mut Table) {
        let Some(raw) = json::parse(message) else { return };
        let said = Object::new(raw);
        let kind = said.text_of("type").unwrap_or_default();
        if kind.is_empty() {
            return;
        }
        if self.choice(who) == Choice::None {
            self.choose(who, &kind);
        }
        match self.choice(who) {
            Choice::None => table.say(who, r#"{"type":"error","error":"not_logged_in"}"#),
            Choice::Directory => self.directory.handle_message(who, &kind, message, raw, &said, table),
            Choice::Rooms => self.rooms.handle_message(who, &kind, &said, table),
        }
    }

    fn leave(&mut self, who: usize, _parting: Parting, table: &mut Table) {
        match self.choice(who) {
            Choice::None => {}
            Choice::Directory => self.directory.leave(who, table),
            Choice::Rooms => self.rooms.leave(who),
        }
    }

    fn handle_time(&mut self, shard: usize, table: &mut Table) {
        if shard == 1 % table.shards {
            self.rooms.handle_time(table);
        }
    }

    fn may_expire(&self, who: usize, table: &Table) -> bool {
        self.rooms.may_expire(who, table.now_ms)
    }

    fn peeks(&self) -> bool {
        true
    }

    fn word(&self, which: usize) -> String {
        self.rooms.id(which)
    }

    fn check(&self, host: &Host, table: &Table) {
        if !table.is_loose {
            self.directory.check(host);
            self.rooms.check(host);
        }
    }

    fn finish(&self, host: &Host, table: &Table, readings: &[Reading<'_>]) {
        self.directory.finish(host, readings);
        self.rooms.finish(table, readings);
    }
}
