//! The queue of one host, at its home: first in, first out (protocols.md sections 1 and 6).
//!
//! Two on this host are matched here, and nobody else hears of it. With a cluster, one who is left over is lent to it: from
//! then on it is the cluster's to match. Who comes to the queue meanwhile waits until the one who is lent is back, or is
//! taken:
//!
//! ```text
//!  queue                          cluster
//!    │ ── List (loan 7, A) ────────► │   A is the oldest and alone
//!    │ ── Recall (loan 7) ─────────► │   B has come
//!    │ ◄──────── recalled (loan 7) ─ │   A and B are matched here
//!    │     or: ── taken (loan 7) ─── │   somebody else has A; B is lent in its turn
//! ```
//!
//! A loan has a number, since what shards say about its client may overtake what the cluster says about the loan.

use std::collections::VecDeque;

use super::{Note, Waiter, notify};
use crate::id::{ClientId, Entropy, RoomId};
use crate::limits::{PAIRING_RECALL_MS, PAIRING_REMINDER_MS};
use crate::plant::{Plant, Planted};
use crate::protocol::{Action, Actions, Address};

/// Which time a waiter was lent to the cluster. None is used twice by one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loan(pub u64);

/// What the queue asks of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// Match this client with one of any host. One is lent at a time.
    List {
        /// For what is said about it later.
        loan: Loan,
        /// Who.
        waiter: Waiter,
    },
    /// Somebody came here whom it can be matched with: give it back. It is answered.
    Recall(Loan),
    /// It waits no longer. It is not answered.
    Forget(Loan),
}

/// The waiter that the cluster has.
#[derive(Debug, Clone, Copy)]
struct Lent {
    loan: Loan,
    waiter: Waiter,
    /// How many reminders have come since it was asked back.
    recalled: Option<u64>,
}

impl Lent {
    /// Whether the others must wait for it. Not if Redis leaves the cluster without an answer.
    fn holds_up(&self) -> bool {
        self.recalled.is_none_or(|reminders| reminders * PAIRING_REMINDER_MS < PAIRING_RECALL_MS)
    }
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    /// The oldest first. More than one only while one is lent.
    waiting: VecDeque<Waiter>,
    lent: Option<Lent>,
    next_loan: u64,
    has_cluster: bool,
    /// Who waited alone at the last reminder.
    left_over: Option<Waiter>,
    is_reminder_set: bool,
    planted: Planted,
}

impl Queue {
    /// `has_cluster`: who is left over is lent to it.
    pub(super) fn new(has_cluster: bool, planted: Planted) -> Self {
        Self {
            waiting: VecDeque::new(),
            lent: None,
            next_loan: 0,
            has_cluster,
            left_over: None,
            is_reminder_set: false,
            planted,
        }
    }

    /// Who has waited longest.
    pub(super) fn oldest(&self) -> Option<ClientId> {
        let lent = self.lent.as_ref().map(|lent| &lent.waiter);
        lent.or(self.waiting.front()).map(|waiter| waiter.client)
    }

    /// Whether [`Queue::handle_reminder`] is to be called in [`PAIRING_REMINDER_MS`]. Says so once.
    pub(super) fn poll_reminder(&mut self) -> bool {
        let is_due = match self.lent {
            Some(lent) => lent.recalled.is_some() && lent.holds_up(),
            None => self.has_cluster && !self.waiting.is_empty(),
        };
        is_due && !std::mem::replace(&mut self.is_reminder_set, true)
    }

    /// A client waits. One whose match was refused stands behind those who wait by now.
    pub(super) fn handle_wait(&mut self, waiter: Waiter, entropy: &mut Entropy, out: &mut Actions) {
        self.forget(|known| known.client == waiter.client, out);
        self.waiting.push_back(waiter);
        self.settle(entropy, out);
    }

    /// A client waits no longer.
    pub(super) fn handle_unwait(&mut self, waiter: Waiter, entropy: &mut Entropy, out: &mut Actions) {
        self.forget(|known| *known == waiter, out);
        self.settle(entropy, out);
    }

    /// The cluster gives back who was lent.
    pub(super) fn handle_recalled(&mut self, loan: Loan, entropy: &mut Entropy, out: &mut Actions) {
        if let Some(lent) = self.lent.take_if(|lent| lent.loan == loan) {
            self.waiting.push_front(lent.waiter);
            self.settle(entropy, out);
        }
    }

    /// Who was lent is somebody else's now.
    pub(super) fn handle_taken(&mut self, loan: Loan, entropy: &mut Entropy, out: &mut Actions) {
        if self.lent.take_if(|lent| lent.loan == loan).is_some() {
            self.settle(entropy, out);
        }
    }

    /// Time has passed: who was alone already the last time is lent.
    pub(super) fn handle_reminder(&mut self, entropy: &mut Entropy, out: &mut Actions) {
        self.is_reminder_set = false;
        if let Some(reminders) = self.lent.as_mut().and_then(|lent| lent.recalled.as_mut()) {
            *reminders += 1;
            return self.settle(entropy, out);
        }
        let oldest = self.waiting.front().copied().filter(|_| self.lent.is_none());
        let before = std::mem::replace(&mut self.left_over, oldest);
        if oldest.is_some() && oldest == before {
            self.lend(out);
        }
    }

    fn lend(&mut self, out: &mut Actions) {
        let Some(waiter) = self.waiting.pop_front() else { return };
        let loan = Loan(self.next_loan);
        self.next_loan += 1;
        self.lent = Some(Lent { loan, waiter, recalled: None });
        out.push(Action::Ask(Errand::List { loan, waiter }));
    }

    fn forget(&mut self, is_it: impl Fn(&Waiter) -> bool, out: &mut Actions) {
        if let Some(lent) = self.lent.take_if(|lent| is_it(&lent.waiter)) {
            out.push(Action::Ask(Errand::Forget(lent.loan)));
        }
        self.waiting.retain(|waiter| !is_it(waiter));
    }

    /// Matches who can be matched, and asks for who is lent if somebody waits for that.
    fn settle(&mut self, entropy: &mut Entropy, out: &mut Actions) {
        if let Some(lent) = &mut self.lent
            && lent.recalled.is_none()
            && !self.waiting.is_empty()
        {
            lent.recalled = Some(0);
            out.push(Action::Ask(Errand::Recall(lent.loan)));
        }
        if self.lent.as_ref().is_some_and(Lent::holds_up) {
            return;
        }
        while self.waiting.len() >= 2 {
            let (Some(older), Some(newer)) = (self.waiting.pop_front(), self.waiting.pop_front()) else {
                return;
            };
            self.offer(older, newer, entropy, out);
        }
    }

    fn offer(&self, older: Waiter, newer: Waiter, entropy: &mut Entropy, out: &mut Actions) {
        let room = RoomId::new(entropy);
        out.push(notify(Address::Client(newer.client), Note::Offer { room, older, newer }));
        if self.planted.is(Plant::QueueTellsBoth) {
            let matched = Note::Matched { room, partner: older.client, newer };
            out.push(notify(Address::Client(newer.client), matched));
        }
    }
}

#[cfg(test)]
mod tests;
