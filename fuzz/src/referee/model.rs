//! What the referee asks a model of dialects.

use super::Table;
use super::door::Behind;
use crate::framer::Found;
use crate::wire::Reading;
use crate::world::Host;

/// What becomes of a message that is over its client's rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overrun {
    /// This is answered.
    Answer(&'static str),
    /// The client is closed 1013 with this reason.
    Close(&'static str),
    /// The message waits until the window ends.
    Pause,
}

/// How many messages a client may send.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// In a window.
    pub max: u32,
    /// Of this length.
    pub window_ms: u32,
    /// What becomes of those over it.
    pub overrun: Overrun,
}

/// How a client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// A close from either side.
    Orderly,
    /// Its connection is lost.
    Lost,
}

/// What came of it that somebody went in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It speaks its dialect.
    Open,
    /// As [`Behind::Wrong`].
    Wrong(&'static str),
}

/// Dialects as the contract has them.
pub trait Model {
    /// Somebody goes in.
    fn enter(&mut self, who: usize, behind: Behind, table: &mut Table) -> Entry;
    /// Its rate, if it has one.
    fn rate(&self, who: usize, table: &Table) -> Option<Rate>;
    /// The most bytes of its next message.
    fn message_bytes_max(&self, who: usize, table: &Table) -> usize;
    /// It has said something.
    fn handle_message(&mut self, who: usize, message: &[u8], table: &mut Table);
    /// It is gone.
    fn leave(&mut self, who: usize, parting: Parting, table: &mut Table);
    /// Time has passed for a shard.
    fn handle_time(&mut self, _shard: usize, _table: &mut Table) {}
    /// Whether time alone may close it now.
    fn may_expire(&self, _who: usize, _table: &Table) -> bool {
        false
    }
    /// Whether it speaks in a stream, which goes to [`Model::handle_stream`].
    fn is_stream(&self, _who: usize) -> bool {
        false
    }
    /// Bytes of a stream were read, or moved.
    fn handle_stream(&mut self, _who: usize, _piece: &[u8], _table: &mut Table) -> Option<Found> {
        None
    }
    /// Whether it looks at what was said to whom it handles ([`Table::peek`]).
    fn peeks(&self) -> bool {
        false
    }
    /// The half of a stream has ended.
    fn handle_end(&mut self, _who: usize) {}
    /// A word that only the server knows beforehand, for clients to use.
    fn word(&self, _which: usize) -> String {
        String::new()
    }
    /// What holds after each step.
    fn check(&self, _host: &Host, _table: &Table) {}
    /// What holds at the end, when all was sent; also where memory was used up.
    fn finish(&self, host: &Host, table: &Table, readings: &[Reading<'_>]);
}
