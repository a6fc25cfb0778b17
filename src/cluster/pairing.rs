//! The queue of all hosts (protocols.md section 6): each host lends its oldest waiter that has no partner there.
//!
//! The waiter goes onto a list in Redis, which the originals share, or meets whom it finds there. Who takes an id off the
//! list makes the match. An id of another host of ours is asked for first; then the notes go on that partners of two
//! shards say to each other ([`crate::protocol::pairing`]), and each one's own shard looks:
//!
//! ```text
//!  A's home     A's cluster                     B's cluster      B's home
//!    │             │                    B on the list │ ◄── List ── │
//!    │ ── List ──► │ meets B                          │             │
//!    │             │ ── Take B for A ───────────────► │ ── Taken ─► │
//!    │ ◄─ Taken ── │ ◄──── Offer (B's ticket, room) ─ │             │
//!    │             │
//!    │             └─► A's shard ── Accepted ─► B's shard ── Matched ─► A's shard
//! ```
//!
//! For a foreign client, whose server knows no notes, this cluster says them (`foreign.rs`). Whoever was taken is watched:
//! if nothing came of it after [`crate::limits::PAIRING_MATCH_MS`], its shard lets it wait anew.

mod foreign;
mod lent;
mod list;
mod watch;

use std::collections::{BTreeSet, VecDeque};

use bytes::{BufMut, Bytes};

use super::codec::{Error, Reader, put_waiter};
use super::desk::{self, Desk};
use super::hosts::Why;
use super::{FromCluster, Reply};
use crate::id::{ClientId, HostId, RoomId, ShardIndex};
use crate::limits::{PAIRING_LEFTOVERS_MAX, PAIRING_STRAY_MS};
use crate::protocol::pairing::{Errand, Loan, Note, Waiter};
use foreign::{Foreigners, SIGNAL_CHANNEL};
use lent::Lent;
use list::Met;
use watch::Watch;

/// What a shard asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Of the queue's home.
    Queue(Errand),
    /// A note to a client of no host that the shard has a relation to: a foreign one, or one that is gone.
    Note(Note),
    /// A finished frame for such a client.
    Frame {
        /// The receiver.
        to: ClientId,
        /// The room.
        room: RoomId,
        /// Header and payload, as a client of ours would get them.
        frame: Bytes,
    },
}

/// What a shard is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// To the queue: here is who was lent.
    Recalled(Loan),
    /// To the queue: somebody else has who was lent.
    Taken(Loan),
    /// A note to a client of the shard: of a foreign client, or of one that is gone.
    Note(Note),
    /// A foreign server says that it has matched a client of the shard.
    Claimed {
        /// The client.
        ours: ClientId,
        /// The room that both are in.
        room: RoomId,
        /// The partner. What follows is told to it as to a client of ours.
        foreign: Waiter,
    },
    /// A foreign server has a message for a client of the shard.
    Said {
        /// The receiver.
        to: ClientId,
        /// The sender, if that is an id at all.
        from: Option<ClientId>,
        /// The message as the receiver gets it.
        payload: Bytes,
    },
}

/// What clusters of two hosts say to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letter {
    /// Your client was on the list: we want it for ours.
    Take {
        /// Your client.
        theirs: ClientId,
        /// Ours.
        ours: Waiter,
        /// The room that they will be in.
        room: RoomId,
    },
    /// You have it; the rest is said by the clients' shards.
    Offer {
        /// The room that they will be in.
        room: RoomId,
        /// Who was on the list.
        older: Waiter,
        /// For whom it was asked.
        newer: Waiter,
    },
    /// It does not wait.
    Refused {
        /// The room that they would have been in.
        room: RoomId,
    },
}

/// What a reply is awaited for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Awaited {
    /// Whom the waiter meets, by the number of the question.
    Meeting(u64),
    /// Whether the waiter was on the list, by the number of the question.
    Removal(u64),
    /// Whether a client that waits no longer was taken off the list.
    Clearance(ClientId),
    /// The same, the second time.
    LastClearance(ClientId),
    /// Whether something was published to a foreign partner in this room.
    Signal { foreign: ClientId, room: RoomId },
}

/// What this host's cluster knows of it.
#[derive(Debug)]
pub(super) struct Pairing {
    lent: Option<Lent>,
    /// Whom it has met and could not ask for.
    passed_over: BTreeSet<ClientId>,
    /// The number of the next question to Redis: an answer to an old one says nothing about the waiter.
    next_question: u64,
    watch: Watch,
    foreigners: Foreigners,
    /// Clients that wait no longer, whose ids may be on the list.
    leftovers: BTreeSet<ClientId>,
    /// Clients that wait no longer, whose ids somebody else had taken when they were to be taken off, and may put back:
    /// when it is looked for them once more.
    strays: VecDeque<(u64, ClientId)>,
    hears_signals: bool,
    is_shutting_down: bool,
}

impl Pairing {
    pub(super) fn new(desk: &mut Desk) -> Self {
        if desk.has_public_layouts {
            desk.subscribe(SIGNAL_CHANNEL.to_vec());
        }
        Self {
            lent: None,
            passed_over: BTreeSet::new(),
            next_question: 0,
            watch: Watch::default(),
            foreigners: Foreigners::default(),
            leftovers: BTreeSet::new(),
            strays: VecDeque::new(),
            hears_signals: false,
            is_shutting_down: false,
        }
    }

    /// A shard asks for something.
    pub(super) fn handle_request(&mut self, from: ShardIndex, request: Request, desk: &mut Desk) {
        match request {
            Request::Queue(Errand::List { loan, waiter }) => self.handle_list(from, loan, waiter, desk),
            Request::Queue(Errand::Recall(loan)) => self.handle_recall(loan, desk),
            Request::Queue(Errand::Forget(loan)) => self.handle_forget(loan, desk),
            Request::Note(note) => self.foreigners.handle_note(note, desk),
            Request::Frame { to, room, frame } => self.foreigners.handle_frame(to, room, &frame, desk),
        }
    }

    /// Redis has answered, or has not ([`Reply::Failed`]).
    pub(super) fn handle_reply(&mut self, awaited: Awaited, reply: &Reply, desk: &mut Desk) {
        match (awaited, reply) {
            (Awaited::Meeting(question), reply) => self.handle_met(question, Met::read(reply), desk),
            (Awaited::Removal(question), reply) => self.handle_removed(question, reply, desk),
            (Awaited::Clearance(client) | Awaited::LastClearance(client), Reply::Failed) => {
                self.leave_over(client);
            }
            (Awaited::Clearance(client), Reply::Integer(0)) => self.note_stray(client, desk),
            (Awaited::Signal { foreign, room }, Reply::Failed) => {
                self.foreigners.handle_unpublished(foreign, room, desk);
            }
            (Awaited::Clearance(_) | Awaited::LastClearance(_) | Awaited::Signal { .. }, _) => {}
        }
    }

    /// A channel is subscribed, for the first time or again.
    pub(super) fn handle_subscribed(&mut self, channel: &[u8], desk: &mut Desk) {
        if channel == SIGNAL_CHANNEL {
            self.hears_signals = true;
            self.begin(desk);
        }
    }

    /// Something was published in a channel. False: it is none of ours.
    pub(super) fn handle_push(&mut self, channel: &[u8], payload: &[u8], desk: &mut Desk) -> bool {
        if channel != SIGNAL_CHANNEL || !desk.has_public_layouts {
            return false;
        }
        self.foreigners.handle_signal(payload, desk);
        true
    }

    /// Another host's shard or cluster has written to this host's cluster.
    pub(super) fn handle_letter(&mut self, from: HostId, letter: Letter, desk: &mut Desk) {
        match letter {
            Letter::Take { theirs, ours, room } if ours.client.host() == from => {
                self.handle_take(from, theirs, ours, room, desk);
            }
            Letter::Offer { room, older, newer } if older.client.host() == from => {
                self.handle_offer(from, room, older, newer, desk);
            }
            Letter::Refused { room } => self.handle_refused(from, room, desk),
            // It speaks for clients that are not its own.
            Letter::Take { .. } | Letter::Offer { .. } => desk.metrics.counters.pairing_ignored.add(1),
        }
    }

    /// A relation to another host has begun: whom it has on the list can be asked for.
    pub(super) fn handle_host_found(&mut self, _host: HostId, desk: &mut Desk) {
        self.look_again(desk);
    }

    /// A relation to another host has ended. It may begin again; after [`Why::is_final`] it will not.
    pub(super) fn handle_host_gone(&mut self, gone: HostId, _why: Why, desk: &mut Desk) {
        self.lose_asked(gone, desk);
    }

    /// Redis can be worked with from now on ([`Desk::is_up`]). It may be another one than before, or empty.
    pub(super) fn handle_up(&mut self, desk: &mut Desk) {
        self.begin(desk);
    }

    /// The subscriptions are lost, and made anew with the next connection.
    pub(super) fn handle_unsubscribed(&mut self) {
        self.hears_signals = false;
    }

    /// Redis cannot be worked with. What it was asked has failed, or will.
    pub(super) fn handle_down(&mut self, desk: &mut Desk) {
        self.keep(desk);
        self.foreigners.handle_down(desk);
    }

    /// Time has passed.
    pub(super) fn handle_tick(&mut self, desk: &mut Desk) {
        while let Some((waiter, is_missing)) = self.watch.poll_expired(desk.now_ms) {
            if is_missing {
                // Whoever had it may have put it back.
                clear(waiter.client, desk);
            }
            tell(waiter.client, Note::Declined(waiter), desk);
        }
        self.clear_strays(desk);
        self.retry(desk);
    }

    /// The host shuts down. Its clients leave right after this.
    pub(super) fn handle_shutdown(&mut self, desk: &mut Desk) {
        self.is_shutting_down = true;
        self.take_off(desk);
    }

    /// Somebody else had taken this one off the list, and may put it back.
    fn note_stray(&mut self, client: ClientId, desk: &Desk) {
        if self.strays.len() < PAIRING_LEFTOVERS_MAX {
            self.strays.push_back((desk.now_ms + PAIRING_STRAY_MS, client));
        }
    }

    fn clear_strays(&mut self, desk: &mut Desk) {
        while let Some((_, client)) =
            self.strays.front().copied().filter(|(due_ms, _)| *due_ms <= desk.now_ms)
        {
            self.strays.pop_front();
            if self.lent.is_some_and(|lent| lent.waiter.client == client) {
                // It waits again, and belongs there for now.
                self.note_stray(client, desk);
            } else {
                let command = list::remove(client, desk);
                ask(Awaited::LastClearance(client), command, desk);
            }
        }
    }
}

fn ask(awaited: Awaited, command: super::Command, desk: &mut Desk) {
    desk.metrics.counters.pairing_commands.add(1);
    desk.ask(desk::Awaited::Pairing(awaited), command);
}

/// Takes a client off the list that waits no longer.
fn clear(client: ClientId, desk: &mut Desk) {
    let command = list::remove(client, desk);
    ask(Awaited::Clearance(client), command, desk);
}

/// Puts an id back onto the list.
fn put_back(id: &[u8], desk: &mut Desk) {
    desk.metrics.counters.pairing_commands.add(1);
    let command = list::put_back(id, desk);
    desk.command(command);
}

/// A note to a client of this host.
fn tell(to: ClientId, note: Note, desk: &mut Desk) {
    desk.mail(to.shard(), FromCluster::Pairing(News::Note(note)));
}

/// A letter to another host. Where it is lost, the relation ends, and whoever was taken is watched.
fn write(to: HostId, shard: ShardIndex, letter: Letter, desk: &mut Desk) {
    desk.write(to, shard, &super::Letter::Pairing(letter));
}

impl Letter {
    /// Bytes that it refers to.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        0
    }
}

impl News {
    /// Bytes that it refers to.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Said { payload, .. } => payload.len(),
            Self::Recalled(_) | Self::Taken(_) | Self::Note(_) | Self::Claimed { .. } => 0,
        }
    }
}

/// The kinds of letters.
mod kind {
    pub(super) const TAKE: u8 = 1;
    pub(super) const OFFER: u8 = 2;
    pub(super) const REFUSED: u8 = 3;
}

/// Writes a letter.
pub(super) fn put(bytes: &mut Vec<u8>, letter: &Letter) {
    match *letter {
        Letter::Take { theirs, ours, room } => {
            bytes.put_u8(kind::TAKE);
            bytes.put_u128(theirs.to_bits());
            put_waiter(bytes, ours);
            bytes.put_u128(room.to_bits());
        }
        Letter::Offer { room, older, newer } => {
            bytes.put_u8(kind::OFFER);
            bytes.put_u128(room.to_bits());
            put_waiter(bytes, older);
            put_waiter(bytes, newer);
        }
        Letter::Refused { room } => {
            bytes.put_u8(kind::REFUSED);
            bytes.put_u128(room.to_bits());
        }
    }
}

/// Reads a letter.
///
/// # Errors
/// It does not follow the layout.
pub(super) fn take(reader: &mut Reader) -> Result<Letter, Error> {
    match reader.u8()? {
        kind::TAKE => {
            Ok(Letter::Take { theirs: reader.client()?, ours: reader.waiter()?, room: reader.room()? })
        }
        kind::OFFER => {
            Ok(Letter::Offer { room: reader.room()?, older: reader.waiter()?, newer: reader.waiter()? })
        }
        kind::REFUSED => Ok(Letter::Refused { room: reader.room()? }),
        kind => Err(Error::UnknownKind(kind)),
    }
}

#[cfg(test)]
mod tests;
