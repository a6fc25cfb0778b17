//! Documents: introductions and pipes (protocols.md section 5).

use std::collections::BTreeMap;

use super::introductions::Introductions;
use super::pipes::Pipes;
use crate::framer::Found;
use crate::json;
use crate::referee::door::Behind;
use crate::referee::{Entry, Model, Overrun, Parting, Rate, Stage, Table};
use crate::wire::Reading;
use crate::world::Host;

/// The path of a pipe that says too little.
const SHORT: &str = "use ?local= and ?document=";

/// Peers and pipes.
#[derive(Debug, Default)]
pub struct Documents {
    introductions: Introductions,
    pipes: Pipes,
    /// The pipes that short forms of URLs were found to mean, by peer.
    completed: BTreeMap<usize, [String; 3]>,
}

impl Documents {
    fn enter_short_pipe(&mut self, who: usize, remote: &str, table: &mut Table) -> Entry {
        if !self.completed.contains_key(&who) {
            let Some((local, document)) = self.introductions.partner_of(remote) else {
                return Entry::Wrong(SHORT);
            };
            self.completed.insert(who, [local, remote.to_owned(), document]);
        }
        if table.clients[who].stage != Stage::Moving {
            self.pipes.enter(who, self.completed[&who].clone(), false, table);
        }
        Entry::Open
    }
}

impl Model for Documents {
    fn enter(&mut self, who: usize, behind: Behind, table: &mut Table) -> Entry {
        match behind {
            Behind::Introduction(id) => self.introductions.enter(who, id),
            Behind::Pipe(names) => self.pipes.enter(who, names.map(String::from), false, table),
            Behind::RawPipe(names) => self.pipes.enter(who, names.map(String::from), true, table),
            Behind::ShortPipe(remote) => return self.enter_short_pipe(who, remote, table),
            Behind::Refused(_) | Behind::Wrong(_) | Behind::Rendezvous { .. } | Behind::Lobby => {
                panic!("{behind:?}")
            }
        }
        Entry::Open
    }

    fn rate(&self, _who: usize, table: &Table) -> Option<Rate> {
        let max = table.limits.messages_per_second_max * 5;
        Some(Rate { max, window_ms: 1_000, overrun: Overrun::Pause })
    }

    fn message_bytes_max(&self, _who: usize, table: &Table) -> usize {
        table.limits.message_bytes_max
    }

    fn handle_message(&mut self, who: usize, message: &[u8], table: &mut Table) {
        if let Some(raw) = json::parse(message) {
            self.introductions.handle_message(who, raw, table);
        }
    }

    fn leave(&mut self, who: usize, parting: Parting, table: &mut Table) {
        if self.is_stream(who) {
            self.pipes.leave(who, parting, table);
        } else {
            self.introductions.leave(who);
        }
    }

    fn handle_time(&mut self, shard: usize, table: &mut Table) {
        self.pipes.handle_time(shard, table);
    }

    fn is_stream(&self, who: usize) -> bool {
        self.pipes.has(who)
    }

    fn handle_stream(&mut self, who: usize, piece: &[u8], _table: &mut Table) -> Option<Found> {
        self.pipes.handle_stream(who, piece)
    }

    fn handle_end(&mut self, who: usize) {
        self.pipes.handle_end(who);
    }

    fn check(&self, host: &Host, table: &Table) {
        self.pipes.check(host, table);
    }

    fn finish(&self, host: &Host, table: &Table, readings: &[Reading<'_>]) {
        self.pipes.finish(host, table, readings);
    }
}
