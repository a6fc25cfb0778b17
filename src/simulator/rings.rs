//! Mail and sockets under way between shards: in order per pair, late, and never more than a ring holds.

use std::collections::VecDeque;

use crate::shard::arrival::Arrival;
use crate::shard::mail::Mail;

/// What crosses shards.
#[expect(clippy::large_enum_variant, reason = "mail is the common case")]
pub(super) enum Letter {
    /// What shards say to each other.
    Mail(Mail),
    /// The socket of this connection, which moves.
    Socket(usize, Box<Arrival>),
}

/// One ring.
#[derive(Default)]
struct Ring {
    /// With the round from which on each may be taken out.
    letters: VecDeque<(u64, Letter)>,
    /// Until this round nothing is taken out.
    frozen_until: u64,
}

/// A ring for each ordered pair of shards.
pub(super) struct Rings {
    shards: usize,
    entries: usize,
    rings: Vec<Ring>,
}

impl Rings {
    pub(super) fn new(shards: usize, entries: usize) -> Self {
        Self { shards, entries, rings: (0..shards * shards).map(|_| Ring::default()).collect() }
    }

    /// Puts a letter in that may be taken out from round `due` on; gives it back if the ring is full.
    pub(super) fn push(&mut self, from: usize, to: usize, letter: Letter, due: u64) -> Result<(), Letter> {
        let ring = &mut self.rings[from * self.shards + to];
        if ring.letters.len() >= self.entries {
            return Err(letter);
        }
        ring.letters.push_back((due, letter));
        Ok(())
    }

    /// Takes the next letter out if it is due.
    pub(super) fn pop(&mut self, from: usize, to: usize, round: u64) -> Option<Letter> {
        let ring = &mut self.rings[from * self.shards + to];
        if ring.frozen_until > round {
            return None;
        }
        let is_due = ring.letters.front().is_some_and(|(due, _)| *due <= round);
        if is_due { ring.letters.pop_front().map(|(_, letter)| letter) } else { None }
    }

    /// Lets a ring rest.
    pub(super) fn freeze(&mut self, from: usize, to: usize, until: u64) {
        self.rings[from * self.shards + to].frozen_until = until;
    }

    /// Gives all rings room for more.
    pub(super) fn widen(&mut self, entries: usize) {
        self.entries = self.entries.max(entries);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rings.iter().all(|ring| ring.letters.is_empty())
    }
}
