//! Random chat: two clients that wait are matched and relay to each other (protocols.md section 1).
//!
//! Clients stay on the shard that accepted them; only the queue has a home. Mail is ordered per pair of shards alone, so
//! the queue must not tell both sides of a match: one partner's offer could overtake the other's `matched`. Nor can it
//! tell whether the two still wait: that they left may be on its way. So each one's own shard looks, and every frame
//! then travels behind the [`Note::Matched`] that makes it valid. An unknown room is therefore always stale, and what
//! comes for it is dropped.
//!
//! ```text
//!  older's shard            queue             newer's shard
//!       │ ── Wait ──────────► │ ◄────────── Wait ── │
//!       │                     │ ── Offer ─────────► │  still waits
//!       │ ◄─────────────────────────────── Accepted │
//!   matched                   │                     │
//!       │ ── Matched ───────────────────────────► matched
//!       │ ── frames ────────────────────────────►   │
//! ```
//!
//! If either waits no longer, its shard sends [`Note::Declined`] to the other's, whose client waits anew unless it has
//! gone as well: only a client's own shard knows, so no ghost gets into the queue or is matched.

mod queue;

use super::{Action, Actions, Address, Part, parts, reply};
use crate::id::{ClientId, Entropy, RoomId};
use crate::limits::USER_ID_BYTES_MAX;
use crate::plant::{Plant, Planted};
use crate::wire::envelope::{Envelope, Kind, NotJson};
use queue::Queue;
pub use queue::{Errand, Loan};

/// Which of a client's waits a note is about: a client that left the queue and came back waits on another ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

impl Ticket {
    /// The ticket of a number that [`Ticket::number`] gave.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// The ticket as a number.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

/// A client that waits, as the queue knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiter {
    /// Who waits.
    pub client: ClientId,
    /// Since which `available`.
    pub ticket: Ticket,
}

/// What the queue and the partners say to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// To the queue: match this client.
    Wait(Waiter),
    /// To the queue: not any more.
    Unwait(Waiter),
    /// From the queue to the newer one's shard: these two met. Its leaving may still be on the way to the queue.
    Offer {
        /// The room they will be in.
        room: RoomId,
        /// Who waited longer.
        older: Waiter,
        /// Who came later; the note goes there.
        newer: Waiter,
    },
    /// From the newer one's shard to the older one's: the newer one still waits; pair these two, if the older one does.
    Accepted {
        /// The room they will be in.
        room: RoomId,
        /// Who waited longer; the note goes there.
        older: Waiter,
        /// Who came later.
        newer: Waiter,
    },
    /// From the older one's shard to the newer one's: the older one is in the room.
    Matched {
        /// The room.
        room: RoomId,
        /// The older one, who was told already.
        partner: ClientId,
        /// The newer one; the note goes there.
        newer: Waiter,
    },
    /// From one's shard to the other's: the match did not come about.
    Declined(Waiter),
    /// To a partner's shard: the other one is gone from this room.
    PartnerLeft {
        /// The room.
        room: RoomId,
        /// Who is left; the note goes there.
        to: ClientId,
    },
}

impl Note {
    /// The client that the note is about at the shard where it arrives; none for the queue's own.
    #[must_use]
    pub fn addressee(&self) -> Option<ClientId> {
        match self {
            Self::Wait(_) | Self::Unwait(_) => None,
            Self::Offer { newer, .. } | Self::Matched { newer, .. } => Some(newer.client),
            Self::Accepted { older, .. } => Some(older.client),
            Self::Declined(waiter) => Some(waiter.client),
            Self::PartnerLeft { to, .. } => Some(*to),
        }
    }
}

/// Where a client stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Idle,
    /// In the queue, or on the way there or from there.
    Waiting(Ticket),
    Paired {
        room: RoomId,
        partner: ClientId,
    },
}

/// What pairing knows of one client.
#[derive(Debug)]
pub struct State {
    standing: Standing,
    /// From `auth`; for the log. The token is a secret and is not kept.
    user_id: Option<Box<str>>,
}

impl Default for State {
    fn default() -> Self {
        Self { standing: Standing::Idle, user_id: None }
    }
}

impl State {
    /// The room that the client is in.
    #[must_use]
    pub fn room(&self) -> Option<RoomId> {
        self.partner().map(|(room, _)| room)
    }

    /// The room that the client is in, and who else is.
    #[must_use]
    pub fn partner(&self) -> Option<(RoomId, ClientId)> {
        match self.standing {
            Standing::Paired { room, partner } => Some((room, partner)),
            Standing::Idle | Standing::Waiting(_) => None,
        }
    }

    /// Whether the client waits for a partner.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.ticket().is_some()
    }

    /// What the client waits on, if it waits.
    #[must_use]
    pub fn ticket(&self) -> Option<Ticket> {
        match self.standing {
            Standing::Waiting(ticket) => Some(ticket),
            Standing::Idle | Standing::Paired { .. } => None,
        }
    }

    /// The user id that the client gave.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        self.user_id.as_deref()
    }
}

/// One shard's part in pairing. All shards have a queue; only the home's is ever told of anybody.
#[derive(Debug)]
pub struct Pairing {
    /// `REQUEUE_ON_PARTNER_LEAVE`.
    requeue: bool,
    next_ticket: u64,
    queue: Queue,
    planted: Planted,
}

impl Pairing {
    /// `requeue`: who was left by a partner waits again at once. `has_cluster`: who finds no partner on this host is
    /// lent to the cluster.
    #[must_use]
    pub fn new(requeue: bool, has_cluster: bool, planted: Planted) -> Self {
        Self { requeue, next_ticket: 0, queue: Queue::new(has_cluster, planted), planted }
    }

    /// Who has waited longest in the queue, lent or not; for checks.
    #[must_use]
    pub fn waiting(&self) -> Option<ClientId> {
        self.queue.oldest()
    }

    /// Whether [`Pairing::handle_reminder`] is to be called in [`crate::limits::PAIRING_REMINDER_MS`] milliseconds. Says
    /// so once.
    #[must_use]
    pub fn poll_reminder(&mut self) -> bool {
        self.queue.poll_reminder()
    }

    /// At the queue's home: time has passed.
    pub fn handle_reminder(&mut self, entropy: &mut Entropy, out: &mut Actions) {
        self.queue.handle_reminder(entropy, out);
    }

    /// At the queue's home: the cluster gives back who was lent.
    pub fn handle_recalled(&mut self, loan: Loan, entropy: &mut Entropy, out: &mut Actions) {
        self.queue.handle_recalled(loan, entropy, out);
    }

    /// At the queue's home: who was lent is somebody else's now.
    pub fn handle_taken(&mut self, loan: Loan, entropy: &mut Entropy, out: &mut Actions) {
        self.queue.handle_taken(loan, entropy, out);
    }

    /// A client has connected.
    pub fn handle_connect(&self, me: ClientId, out: &mut Actions) {
        out.push(reply([
            Part::Literal(r#"{"type":"ready","clientId":""#),
            Part::Client(me),
            Part::Literal("\"}"),
        ]));
    }

    /// A client has sent a message.
    pub fn handle_message(
        &mut self,
        state: &mut State,
        me: ClientId,
        message: Result<&Envelope<'_>, NotJson>,
        out: &mut Actions,
    ) {
        let envelope = match message {
            Err(NotJson) => return out.push(error(INVALID_FORMAT)),
            Ok(envelope) if envelope.kind == Kind::Null => return out.push(error(INVALID_FORMAT)),
            Ok(envelope) => envelope,
        };
        match &*envelope.text_of("type").unwrap_or_default() {
            b"auth" => remember(state, envelope),
            b"available" => self.handle_available(state, me, out),
            b"offer" => relay(state, me, envelope, &OFFER, out),
            b"answer" => relay(state, me, envelope, &ANSWER, out),
            b"ice" => relay(state, me, envelope, &ICE, out),
            b"next" if state.room().is_none() => out.push(error(NOT_PAIRED)),
            b"next" | b"leave" => self.handle_leave(state, me, out),
            b"ping" => out.push(reply([Part::Literal(r#"{"type":"pong"}"#)])),
            _ => out.push(error(UNKNOWN_TYPE)),
        }
    }

    /// A client leaves: it said so, or it is gone.
    pub fn handle_leave(&mut self, state: &mut State, me: ClientId, out: &mut Actions) {
        match std::mem::replace(&mut state.standing, Standing::Idle) {
            Standing::Idle => {}
            Standing::Waiting(ticket) => {
                out.push(notify(Address::Queue, Note::Unwait(Waiter { client: me, ticket })));
            }
            Standing::Paired { room, partner } => {
                out.push(notify(Address::Client(partner), Note::PartnerLeft { room, to: partner }));
            }
        }
    }

    /// A note has arrived. `state` is that of [`Note::addressee`], nothing if that client is gone.
    pub fn handle_note(
        &mut self,
        note: Note,
        state: Option<&mut State>,
        entropy: &mut Entropy,
        out: &mut Actions,
    ) {
        match note {
            Note::Wait(waiter) => self.queue.handle_wait(waiter, entropy, out),
            Note::Unwait(waiter) => self.queue.handle_unwait(waiter, entropy, out),
            Note::Offer { room, older, newer } => handle_offer(state, room, older, newer, out),
            Note::Accepted { room, older, newer } => handle_accepted(state, room, older, newer, out),
            Note::Matched { room, partner, newer } => self.handle_matched(state, room, partner, newer, out),
            Note::Declined(waiter) => {
                // On a new ticket: whatever else is said about the old one comes too late.
                if let Some(state) = state.filter(|state| state.ticket() == Some(waiter.ticket)) {
                    self.wait(state, waiter.client, out);
                }
            }
            Note::PartnerLeft { room, to } => self.handle_partner_left(state, room, to, out),
        }
    }

    fn handle_available(&mut self, state: &mut State, me: ClientId, out: &mut Actions) {
        match state.standing {
            Standing::Idle => self.wait(state, me, out),
            Standing::Waiting(_) => {}
            Standing::Paired { .. } => out.push(error(ALREADY_PAIRED)),
        }
    }

    fn wait(&mut self, state: &mut State, me: ClientId, out: &mut Actions) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        state.standing = Standing::Waiting(ticket);
        out.push(notify(Address::Queue, Note::Wait(Waiter { client: me, ticket })));
    }

    /// At the newer one's shard.
    fn handle_matched(
        &self,
        state: Option<&mut State>,
        room: RoomId,
        partner: ClientId,
        newer: Waiter,
        out: &mut Actions,
    ) {
        match state {
            Some(state) if state.standing == Standing::Waiting(newer.ticket) => {
                pair(state, room, partner, out);
            }
            Some(state) if self.planted.is(Plant::QueueTellsBoth) && state.room() == Some(room) => {}
            _ => out.push(notify(Address::Client(partner), Note::PartnerLeft { room, to: partner })),
        }
    }

    fn handle_partner_left(
        &mut self,
        state: Option<&mut State>,
        room: RoomId,
        me: ClientId,
        out: &mut Actions,
    ) {
        let Some(state) = state.filter(|state| state.room() == Some(room)) else { return };
        state.standing = Standing::Idle;
        if self.requeue && !self.planted.is(Plant::ForgottenRequeue) {
            self.wait(state, me, out);
        }
        out.push(reply([Part::Literal(r#"{"type":"partner-left"}"#)]));
    }
}

/// At the newer one's shard.
fn handle_offer(state: Option<&mut State>, room: RoomId, older: Waiter, newer: Waiter, out: &mut Actions) {
    let note = match state {
        Some(state) if state.standing == Standing::Waiting(newer.ticket) => {
            Note::Accepted { room, older, newer }
        }
        _ => Note::Declined(older),
    };
    out.push(notify(Address::Client(older.client), note));
}

/// At the older one's shard.
fn handle_accepted(state: Option<&mut State>, room: RoomId, older: Waiter, newer: Waiter, out: &mut Actions) {
    match state {
        Some(state) if state.standing == Standing::Waiting(older.ticket) => {
            // The note comes first: the reply may close a client that is too slow, and what follows from its leaving
            // must come behind the note.
            let matched = Note::Matched { room, partner: older.client, newer };
            out.push(notify(Address::Client(newer.client), matched));
            pair(state, room, newer.client, out);
        }
        _ => out.push(notify(Address::Client(newer.client), Note::Declined(newer))),
    }
}

fn pair(state: &mut State, room: RoomId, partner: ClientId, out: &mut Actions) {
    state.standing = Standing::Paired { room, partner };
    out.push(reply([
        Part::Literal(r#"{"type":"matched","roomId":""#),
        Part::Room(room),
        Part::Literal(r#"","partnerId":""#),
        Part::Client(partner),
        Part::Literal("\"}"),
    ]));
}

fn remember(state: &mut State, envelope: &Envelope<'_>) {
    let user_id = envelope.text_of("userId").filter(|id| id.len() <= USER_ID_BYTES_MAX);
    state.user_id = user_id.and_then(|id| std::str::from_utf8(&id).ok().map(Box::from));
}

/// A relayed message: the one field that is forwarded, and what is written around sender and field.
struct Relayed {
    field: &'static str,
    before_sender: &'static str,
    before_field: &'static str,
}

const OFFER: Relayed =
    Relayed { field: "sdp", before_sender: r#"{"type":"offer","from":""#, before_field: r#"","sdp":"# };
const ANSWER: Relayed =
    Relayed { field: "sdp", before_sender: r#"{"type":"answer","from":""#, before_field: r#"","sdp":"# };
const ICE: Relayed = Relayed {
    field: "candidate",
    before_sender: r#"{"type":"ice","from":""#,
    before_field: r#"","candidate":"#,
};

fn relay(state: &State, me: ClientId, envelope: &Envelope<'_>, relayed: &Relayed, out: &mut Actions) {
    let Some((room, to)) = state.partner() else { return out.push(error(NOT_PAIRED)) };
    let mut message = parts([Part::Literal(relayed.before_sender), Part::Client(me)]);
    match envelope.field(relayed.field) {
        Some(field) => message.extend([
            Part::Literal(relayed.before_field),
            Part::Span(field.value.clone()),
            Part::Literal("}"),
        ]),
        None => message.push(Part::Literal("\"}")),
    }
    out.push(Action::Forward { to, room, parts: message });
}

fn notify(to: Address, note: Note) -> Action {
    Action::Notify { to, note }
}

/// An answer of protocols.md section 1 that is always the same.
fn error(message: &'static str) -> Action {
    reply([Part::Literal(message)])
}

const INVALID_FORMAT: &str = r#"{"type":"error","code":"INVALID_FORMAT","message":"Invalid message format"}"#;
const UNKNOWN_TYPE: &str = r#"{"type":"error","code":"UNKNOWN_TYPE","message":"Unknown message type"}"#;
const NOT_PAIRED: &str = r#"{"type":"error","code":"NOT_PAIRED","message":"Not paired with a partner"}"#;
const ALREADY_PAIRED: &str =
    r#"{"type":"error","code":"ALREADY_PAIRED","message":"Already paired with a partner"}"#;
/// What is answered to a message over the rate.
pub const RATE_LIMIT: &str = r#"{"type":"error","code":"RATE_LIMIT","message":"Too many messages"}"#;

#[cfg(test)]
mod tests;
