//! Several hosts and a Redis in one thread: whole hosts with their shards and their cluster as they are, and faults from a
//! seed around them. Redis is slow, gone, restarted empty; what goes to it and comes from it is late; connections are
//! cut; hosts are killed, stand still and go on, and others take their place.
//!
//! What one host does with bytes, writes and full rings is the other simulation's business ([`super::run`]); here all
//! clients behave and say whole messages. Each keeps account of what it may hear (its dialect's file): nobody hears
//! what is not theirs, or anything twice, or out of order. When the faults have ended and some time has passed, all
//! must know of each other what is so, and what they say then must arrive.

mod client;
mod count;
mod directory;
mod faults;
mod host;
mod introductions;
mod links;
mod pairing;
mod pipes;
mod play;
mod redis;
mod rendezvous;
mod rooms;
mod setup;

use std::panic::{AssertUnwindSafe, catch_unwind};

use self::redis::Redis;
use super::chance::Chance;
use super::{Failure, Options, message_of};
use client::Client;
use host::Host;
use setup::Setup;
pub use setup::Spoken;

/// How often what happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// All numbers with their names.
    rows: std::collections::BTreeMap<&'static str, u64>,
}

impl Summary {
    /// Counts something.
    fn add_to(&mut self, name: &'static str, count: u64) {
        *self.rows.entry(name).or_default() += count;
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        other.rows.iter().for_each(|(name, count)| self.add_to(name, *count));
    }

    /// All numbers with their names.
    #[must_use]
    pub fn rows(&self) -> Vec<(&'static str, u64)> {
        self.rows.iter().map(|(name, count)| (*name, *count)).collect()
    }
}

/// All that there is in a run.
struct Fleet {
    setup: Setup,
    chance: Chance,
    redis: Redis,
    /// It is away until then.
    redis_back_ms: u64,
    /// Nothing; or a host that is there.
    hosts: Vec<Option<Host>>,
    listeners: usize,
    clients: Vec<Client>,
    /// Of each player, the client that it is at the moment.
    players: Vec<Option<usize>>,
    now_ms: u64,
    /// When a fault last ended.
    fault_ms: u64,
    is_calm: bool,
    summary: Summary,
    trace: Option<fn(std::fmt::Arguments<'_>)>,
}

/// Runs one seed.
///
/// # Errors
/// [`Failure`] if something did not hold, or the pure half panicked.
pub fn run(seed: u64, options: &Options) -> Result<Summary, Failure> {
    let mut fleet = Fleet::new(seed, options);
    match catch_unwind(AssertUnwindSafe(|| fleet.run())) {
        Ok(()) => Ok(fleet.summary),
        Err(payload) => Err(Failure {
            seed,
            message: message_of(&*payload),
            plant: options.plant,
            is_fleet: true,
            spoken: options.spoken,
        }),
    }
}

#[cfg(test)]
mod tests;
