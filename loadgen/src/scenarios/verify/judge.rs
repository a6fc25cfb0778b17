//! What a dialect's judge is asked. A judge knows what every client of the run has said and heard; it does no I/O.

use std::time::{Duration, Instant};

use super::violation::Violation;
use crate::client::Ending;

/// The ways in which a client drops out, or changes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DropKind {
    /// TCP reset.
    Reset,
    /// The end of the TCP stream without a close frame.
    TcpClose,
    /// A WebSocket close.
    WebSocketClose,
    /// A second connection under the same id takes over from the first, which is closed a little later.
    Takeover,
    /// The host died. It is never chosen.
    HostDied,
    /// Pairing: `next`, then `available`.
    Next,
    /// Pairing: `leave`, then `available`.
    Leave,
    /// Rooms: `create` in a room.
    Create,
    /// Rooms: `join` of another room.
    Join,
    /// Rooms: `join` of one's own room.
    Rejoin,
    /// Rooms: `join` of a room that is not there.
    JoinNone,
}

impl DropKind {
    /// The kinds that end a connection in any dialect.
    pub(crate) const ENDS: [Self; 3] = [Self::Reset, Self::TcpClose, Self::WebSocketClose];

    /// Its name in the JSON file, and for people.
    pub(crate) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Reset => ("drops_reset", "drops by TCP reset"),
            Self::TcpClose => ("drops_tcp_close", "drops by TCP close"),
            Self::WebSocketClose => ("drops_websocket_close", "drops by WebSocket close"),
            Self::Takeover => ("drops_takeover", "connections taken over"),
            Self::HostDied => ("drops_host_died", "drops by a host that died"),
            Self::Next => ("drops_next", "drops by `next`"),
            Self::Leave => ("drops_leave", "drops by `leave`"),
            Self::Create => ("moves_create", "moves by `create`"),
            Self::Join => ("moves_join", "moves by `join`"),
            Self::Rejoin => ("moves_rejoin", "`join` of one's own room"),
            Self::JoinNone => ("moves_join_none", "`join` of no room"),
        }
    }
}

/// One call about one connection.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    /// Number of the connection, unique in the run.
    pub(crate) number: u32,
    /// When this is.
    pub(crate) now: Instant,
    /// Nothing new is to be begun.
    pub(crate) winding_up: bool,
    /// Within which time clients are told that a host died; none where none may.
    pub(crate) told_within: Option<Duration>,
    /// The client is where its dialect has a place for it.
    pub(crate) arrived: bool,
    words: &'a mut Vec<Vec<u8>>,
}

impl<'a> Turn<'a> {
    /// A call about connection `number`.
    pub(crate) fn new(number: u32, now: Instant, winding_up: bool, words: &'a mut Vec<Vec<u8>>) -> Self {
        Self { number, now, winding_up, told_within: None, arrived: false, words }
    }

    /// The client says this.
    pub(crate) fn say(&mut self, message: impl Into<Vec<u8>>) {
        self.words.push(message.into());
    }
}

/// A figure of a verification: its name in the JSON file, for people, and how much.
pub(crate) type Count = (&'static str, &'static str, u64);

/// The judge of a dialect. What happens to different connections is told in an order that could be: a message is told
/// as said before it is told as heard.
pub(crate) trait Judge: Send {
    /// The ways in which clients of this dialect drop out.
    fn drops(&self) -> &'static [DropKind];

    /// Client `index` is about to open connection `number`, on this path. `takes_over` is the connection that goes on
    /// beside it for a while.
    fn opening(&mut self, index: usize, number: u32, takes_over: Option<u32>) -> String;

    /// The connection is there.
    fn opened(&mut self, turn: &mut Turn<'_>);

    /// A message came.
    fn hear(&mut self, message: &[u8], turn: &mut Turn<'_>) -> Result<(), Violation>;

    /// Whether [`Self::tick`] is wanted.
    fn ticks(&self) -> bool {
        false
    }

    /// A little time has passed.
    fn tick(&mut self, _turn: &mut Turn<'_>) {}

    /// The client is to drop out now; whether it may.
    fn drop_out(&mut self, kind: DropKind, turn: &mut Turn<'_>) -> bool;

    /// The server closed a connection that nobody had dropped; an error where that is not right.
    fn closed_unasked(&mut self, _number: u32, ending: &Ending) -> Result<(), Violation> {
        Err(Violation::Ended { how: format!("{ending:?}") })
    }

    /// A connection has ended, in whatever way.
    fn ended(&mut self, number: u32, now: Instant);

    /// A connection is dead with its host, or ended a moment before that. The others may take [`Turn::told_within`] to be
    /// told so.
    fn died(&mut self, number: u32, now: Instant) {
        self.ended(number, now);
    }

    /// What must be true by now, where a host may die: nobody believes that somebody is there who died before this, and
    /// what clients were told of a death before it was seen was no lie.
    fn check_deaths(&mut self, _died_before: Option<Instant>, _now: Instant) -> Result<(), Violation> {
        Ok(())
    }

    /// The page of each server that says what is true at the end.
    fn page(&self) -> Option<&'static str> {
        None
    }

    /// All is over, and all that was under way has arrived. There is a page of each host that is there.
    fn finish(&mut self, pages: &[Option<&str>]) -> Result<(), Violation>;

    /// What was seen.
    fn counts(&self) -> Vec<Count>;
}
