//! Pipes: who is whose partner, what each has sent, and what the other must get (protocols.md section 5).

mod act;
mod log;

use super::checks::fail;
use super::connection::{Connection, Progress, Voice};
use super::ledger::{Meaning, What};
use super::scene::Scene;
use super::socket::{ClientEnd, Socket};
use crate::limits::{PIPE_OUTBOX_BYTES_LOW, TICK_MS};
pub(super) use act::{act, connect, violate};
use log::{Cursor, Log};

/// What an end's URL says, as positions among the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    me: usize,
    other: usize,
    document: usize,
    is_raw: bool,
}

impl Place {
    fn is_partner(self, other: Self) -> bool {
        other == Self { me: self.other, other: self.me, ..self }
    }
}

/// Where an end comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Place(Place),
    /// The URL names but this id: the introductions say the rest.
    Short(usize),
}

/// Why a raw end's stream ends, or its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The server ends its stream for this.
    Orderly,
    /// The server resets it.
    Reset,
    /// Both streams had ended: all was said, so it does not matter.
    Any,
}

/// One end.
#[derive(Debug)]
pub(super) struct End {
    pub(super) origin: Origin,
    log: Log,
    /// With whom it was joined, and perhaps is.
    pub(super) partner: Option<usize>,
    /// How far it has come in what its partner has sent.
    cursor: Cursor,
    /// It must come as far before it hears of the end, once its partner has gone.
    owed: Option<Cursor>,
    /// The server has surely passed on what it sent before this position.
    passed: u64,
    /// Where the server's bytes to it stood when it had read its close.
    closed_at: Option<u64>,
    /// From this position on it broke the protocol.
    violated_at: u64,
    ending: Option<Ending>,
    /// The server knows that it writes no more.
    pub(super) has_ended: bool,
    /// It has read the end of the server's stream.
    pub(super) has_seen_end: bool,
    /// Bytes that came from the partner.
    pub(super) bytes_received: u64,
    /// A message of several frames is under way.
    is_message_open: bool,
}

/// The ends that wait.
#[derive(Debug, Default)]
pub(super) struct Book {
    held: Vec<Held>,
    /// Ends that were refused because too many waited.
    pub(super) refused: u64,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    index: usize,
    place: Place,
    since_ms: u64,
    shard: usize,
}

impl Book {
    /// A client's URL was read at its home.
    pub(super) fn enter(&mut self, scene: &mut Scene<'_>, me: usize) {
        let Some(Origin::Place(place)) = scene.pipe(me).map(|end| end.origin) else {
            fail("the place of a pipe's end is not known")
        };
        let shard = scene.connections[me].shard;
        let found = self.held.iter().position(|held| held.place.is_partner(place) || held.place == place);
        let held = found.map(|position| self.held.remove(position));
        match held {
            Some(held) if held.place.is_partner(place) => return join(scene, held.index, me),
            Some(held) => {
                scene.summary.pipes_replaced += 1;
                end_orderly(scene, held.index, None, "");
            }
            None => {
                if self.held.len() >= scene.settings.limits.held_pipes_max {
                    self.refused += 1;
                    return end_orderly(scene, me, Some(1013), "server busy");
                }
            }
        }
        self.held.push(Held { index: me, place, since_ms: scene.now_ms, shard });
    }

    /// A client is gone.
    pub(super) fn leave(&mut self, me: usize) {
        self.held.retain(|held| held.index != me);
    }

    /// A shard was told the time: ends there have waited for too long.
    pub(super) fn pass_time(&mut self, scene: &mut Scene<'_>, shard: usize) {
        let (hold_ms, now_ms) = (scene.settings.limits.pipe_hold_ms, scene.now_ms);
        let is_over = |held: &&Held| hold_ms > 0 && held.shard == shard && held.since_ms + hold_ms <= now_ms;
        for held in self.held.iter().filter(is_over) {
            match scene.connections[held.index].seen.progress {
                Progress::Closing => {
                    scene.summary.pipes_expired += 1;
                    end_orderly(scene, held.index, Some(1013), "peer did not connect");
                }
                Progress::Head | Progress::Open if held.since_ms + hold_ms + TICK_MS < now_ms => {
                    fail(format!("client {} waits for its partner since {}", held.index, held.since_ms));
                }
                Progress::Head | Progress::Open | Progress::Cut => {}
            }
        }
    }
}

/// The partner of an end that is gone is closed, without a code, or ended likewise. `leavers`: all who left in this
/// step, in whatever order.
pub(super) fn tell_of_leave(scene: &mut Scene<'_>, me: usize, leavers: &[usize]) {
    let client = &scene.connections[me];
    let is_lost = client.seen.progress == Progress::Cut || client.is_gone;
    let has_said_why = client.ledger.has_stopped;
    let end = end_of(scene.connections, me);
    let (Some(partner), upto) = (end.partner, end.passed.min(end.violated_at)) else { return };
    let (owed, has_ended) = (end.log.position(upto), end.has_ended);
    let other = end_of_mut(scene.connections, partner);
    other.owed.get_or_insert(owed);
    if other.is_raw() {
        other.ending.get_or_insert(match (is_lost, has_ended && other.has_ended) {
            (_, true) => Ending::Any,
            (true, false) => Ending::Reset,
            (false, false) => Ending::Orderly,
        });
    } else {
        // If both left at once, the one that did not say why was closed for the other.
        scene.is_certain = !leavers.contains(&partner) || has_said_why;
        scene.stop(partner, None, Some(""));
    }
}

fn join(scene: &mut Scene<'_>, one: usize, other: usize) {
    for (end, partner) in [(one, other), (other, one)] {
        if let Some(end) = scene.pipe(end) {
            end.partner = Some(partner);
        }
    }
    scene.summary.pipes_joined += 1;
}

/// The server ends this one of its own accord.
fn end_orderly(scene: &mut Scene<'_>, index: usize, code: Option<u16>, reason: &'static str) {
    let Some(end) = scene.pipe(index) else { return };
    match end.origin {
        Origin::Place(Place { is_raw: true, .. }) => {
            end.ending = Some(Ending::Orderly);
            scene.connections[index].ledger.has_stopped = true;
        }
        _ => scene.stop(index, code, Some(reason)),
    }
}

/// The answer to a ping that was read. Where much waits only the last one needs to be answered.
pub(super) fn expect_pong(scene: &mut Scene<'_>, me: usize, payload: Vec<u8>) {
    scene.is_certain &= scene.connections[me].seen.outbox <= PIPE_OUTBOX_BYTES_LOW;
    scene.expect_what(me, What::Pong(payload), Meaning::Nothing, 0);
}

impl End {
    fn new(origin: Origin) -> Self {
        Self {
            origin,
            log: Log::default(),
            partner: None,
            cursor: Cursor::default(),
            owed: None,
            passed: 0,
            closed_at: None,
            violated_at: u64::MAX,
            ending: None,
            has_ended: false,
            has_seen_end: false,
            bytes_received: 0,
            is_message_open: false,
        }
    }

    pub(super) fn is_raw(&self) -> bool {
        matches!(self.origin, Origin::Place(Place { is_raw: true, .. }))
    }

    /// The introductions have said what the URL leaves open.
    pub(super) fn complete(&mut self, me: usize, document: usize) {
        if let Origin::Short(other) = self.origin {
            self.origin = Origin::Place(Place { me, other, document, is_raw: false });
        }
    }

    pub(super) fn is_message_open(&self) -> bool {
        self.is_message_open
    }

    /// Keeps account of a data frame that is sent, or of raw bytes.
    pub(super) fn log(&mut self, start: u64, fin: bool, opcode: crate::wire::frame::Opcode, payload: &[u8]) {
        self.log.push(start, fin, opcode, payload);
    }

    /// The server has read its close; its bytes to it will stand at this position with all that waited before.
    pub(super) fn close(&mut self, at: u64) {
        self.closed_at = Some(at);
    }

    /// What comes from this position on breaks the protocol.
    pub(super) fn violate(&mut self, at: u64) {
        self.violated_at = self.violated_at.min(at);
    }

    /// The server has passed on all that it read before this position.
    pub(super) fn pass(&mut self, upto: u64) {
        self.passed = self.passed.max(upto);
    }

    /// Bytes of it that the server has taken while nobody else was there.
    pub(super) fn bytes_taken(&self, upto: u64) -> usize {
        self.log.bytes_before(self.log.position(upto))
    }
}

fn end_of(connections: &[Connection], index: usize) -> &End {
    match &connections[index].voice {
        Voice::Pipe(end) => end,
        _ => fail("not the end of a pipe"),
    }
}

fn end_of_mut(connections: &mut [Connection], index: usize) -> &mut End {
    match &mut connections[index].voice {
        Voice::Pipe(end) => end,
        _ => fail("not the end of a pipe"),
    }
}

/// Data has come, whose frame began at this position of the server's bytes: exactly what the partner sent next.
pub(super) fn receive(
    connections: &mut [Connection],
    me: usize,
    at: u64,
    len: usize,
    check: impl FnOnce(&Log, &mut Cursor),
) {
    let end = end_of(connections, me);
    let Some(partner) = end.partner else { fail("received data without a partner") };
    if end.closed_at.is_some_and(|closed_at| !end.is_raw() && closed_at <= at) {
        fail("received data although it had closed");
    }
    let mut cursor = end.cursor;
    check(&end_of(connections, partner).log, &mut cursor);
    let end = end_of_mut(connections, me);
    end.cursor = cursor;
    end.bytes_received += len as u64;
}

/// What was sent before a partner's close comes before the close.
pub(super) fn check_before_close(connections: &[Connection], me: usize) {
    let end = end_of(connections, me);
    if let Some(owed) = end.owed.filter(|owed| *owed > end.cursor) {
        fail(format!("closed at {:?} of what its partner sent, {owed:?} was passed on", end.cursor));
    }
}

/// A raw client has read the end of the server's stream.
pub(super) fn see_end(connections: &mut [Connection], me: usize) {
    let end = end_of(connections, me);
    let has_all = match end.partner {
        Some(partner) if end_of(connections, partner).has_ended => {
            let sent = &end_of(connections, partner).log;
            sent.bytes_before(end.cursor) == sent.len()
        }
        _ => end.owed.is_none_or(|owed| owed <= end.cursor),
    };
    if !has_all {
        fail(format!("its stream ended at {:?}, not at all that its partner sent", end.cursor));
    }
    end_of_mut(connections, me).has_seen_end = true;
}

/// The server finishes the stream to a raw client that is still there.
pub(super) fn check_finish(connections: &[Connection], me: usize) {
    let partner = end_of(connections, me).partner;
    if !partner.is_some_and(|partner| end_of(connections, partner).has_ended) {
        fail("its stream is ended although its partner's was not");
    }
}

/// The server has reset a raw client: its partner was lost, or there was no memory for what it sent.
pub(super) fn check_reset(connections: &[Connection], me: usize, was_busy: bool) {
    let end = end_of(connections, me);
    if !matches!(end.ending, Some(Ending::Reset | Ending::Any)) && !was_busy {
        fail(format!("reset, but should end {:?}", end.ending));
    }
}

/// A raw client whose partner was lost is reset, unless it ended before.
pub(super) fn check_lost(connections: &[Connection], me: usize) {
    let socket: &Socket = &connections[me].socket;
    let is_told = socket.is_reset || socket.is_cut || socket.is_finished;
    if end_of(connections, me).ending == Some(Ending::Reset) && !is_told && !connections[me].is_gone {
        fail("its partner was lost, but it was not reset");
    }
}

/// What holds of an end that is open and listens when all is at rest.
pub(super) fn check_at_rest(connections: &[Connection], me: usize) {
    let end = end_of(connections, me);
    let Some(partner) = end.partner else { return };
    let other = end_of(connections, partner);
    let passed = other.log.position(other.passed.min(other.violated_at));
    if passed > end.cursor {
        fail(format!("has got {:?} of what its partner sent, {passed:?} was passed on", end.cursor));
    }
    let is_open = connections[partner].socket.client == ClientEnd::Open;
    if !is_open && other.has_ended && !connections[me].socket.is_finished {
        fail("its partner's stream has ended, but its own goes on");
    }
}
