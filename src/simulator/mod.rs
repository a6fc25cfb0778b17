//! Shards, sockets, rings and clients in one thread, with a virtual clock and everything random from a seed: the pure
//! half runs as it is, and what goes wrong around it goes wrong here on purpose.
//!
//! Reads are split anywhere, writes stall or take one byte, mail is late (in order per pair of shards), rings are
//! full, sockets are lost on their way to another shard, connections drop; clients behave, are clumsy or are hostile.
//! What must hold (docs/ARCHITECTURE.md) is checked at every step, whenever no mail is under way, when the faults have
//! ended, and when everybody has left. A run is its seed: the same seed does the same, bit for bit.
//!
//! Common to all dialects: `world` with `visit` (reads and writes) and `moves` (events), which plays the part of `net`;
//! `play` (the course of a run), `receive`, `behaviour`, `connection`, `client`, `socket`, `rings`, `setup`, `chance`, `checks`.
//!
//! The books: on their home shard all dialects but pairing are one state machine each, so `follow` looks after each step
//! what the shard has done with whom, and the books of the dialect (`rendezvous`, `lobby` with `directory` and `rooms`,
//! `introductions`, `pipes`) say from protocols.md alone what everybody must now hear, to the byte and in order
//! (`ledger`). Only what the server chooses is taken from it: ids, who is closed for what peers cannot know (its
//! memory, its patience), and how far it has read. Pairing, whose partners sit on different shards, keeps its own
//! `account`s.
//!
//! Not simulated: what a real panic leaves behind, origins, the echo. Several hosts have a simulation of their own,
//! [`fleet`].

mod behaviour;
mod books;
mod chance;
mod checks;
mod client;
mod connection;
mod directory;
mod documents;
pub mod fleet;
mod follow;
mod introductions;
mod ledger;
mod lobby;
mod moves;
mod pairing;
mod pipes;
mod play;
mod receive;
mod rendezvous;
mod rings;
mod rooms;
mod scene;
mod setup;
mod socket;
mod summary;
mod visit;
mod world;

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::plant::Plant;
use checks::Undecided;
pub use summary::Summary;
use world::{World, trace};

/// What is the same for all seeds of a call.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// A bug for the simulator to find.
    pub plant: Option<Plant>,
    /// Prints each step.
    pub trace: Option<fn(fmt::Arguments<'_>)>,
    /// In runs with several hosts: this alone is spoken.
    pub spoken: Option<fleet::Spoken>,
}

/// A seed in whose run something did not hold.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What did not hold.
    pub message: String,
    /// The bug that was planted.
    pub plant: Option<Plant>,
    /// It was a run of several hosts, and whether they spoke one dialect alone.
    pub is_fleet: bool,
    /// See there.
    pub spoken: Option<fleet::Spoken>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, message, plant, is_fleet, spoken } = self;
        let mut hosts = if *is_fleet { " --hosts".to_owned() } else { String::new() };
        if let Some(spoken) = spoken {
            hosts.push_str(&format!(" --dialect {}", format!("{spoken:?}").to_lowercase()));
        }
        let plant = plant.map(|plant| format!(" --plant {plant:?}")).unwrap_or_default();
        write!(
            f,
            "seed {seed} failed: {message}\nreplay: cargo run --features simulator --bin parlor-simulate -- \
             --seed {seed}{hosts}{plant} --trace"
        )
    }
}

/// Runs one seed.
///
/// # Errors
/// [`Failure`] if something did not hold, or the pure half panicked.
pub fn run(seed: u64, options: &Options) -> Result<Summary, Failure> {
    let mut world = World::new(seed, options);
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| world.run())) {
        let Some(Undecided(why)) = payload.downcast_ref::<Undecided>() else {
            return Err(Failure {
                seed,
                message: message_of(&*payload),
                plant: options.plant,
                is_fleet: false,
                spoken: None,
            });
        };
        trace!(world, "the run ends: {why}");
        world.summary.undecided += 1;
    }
    world.count();
    Ok(world.summary)
}

/// Runs many seeds on so many threads and adds up what happened.
///
/// # Errors
/// The [`Failure`] of the lowest seed that failed; seeds above it may not have been run.
pub fn run_many(seeds: Range<u64>, threads: usize, options: &Options) -> Result<Summary, Failure> {
    let run = |seed| run(seed, options);
    run_all(seeds, threads, &run, Summary::add)
}

/// As [`run_many`], for several hosts ([`fleet`]).
///
/// # Errors
/// As [`run_many`].
pub fn run_fleets(seeds: Range<u64>, threads: usize, options: &Options) -> Result<fleet::Summary, Failure> {
    let run = |seed| fleet::run(seed, options);
    run_all(seeds, threads, &run, fleet::Summary::add)
}

fn run_all<S: Default + Send>(
    seeds: Range<u64>,
    threads: usize,
    run: &(impl Fn(u64) -> Result<S, Failure> + Sync),
    add: impl Fn(&mut S, &S) + Sync,
) -> Result<S, Failure> {
    let next = AtomicU64::new(seeds.start);
    let end = AtomicU64::new(seeds.end);
    let result = Mutex::new((S::default(), None::<Failure>));
    let work = || {
        let mut sum = S::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end.load(Ordering::Relaxed) {
                break;
            }
            match run(seed) {
                Ok(summary) => add(&mut sum, &summary),
                Err(failure) => {
                    end.fetch_min(seed, Ordering::Relaxed);
                    let mut result = result.lock().unwrap_or_else(PoisonError::into_inner);
                    if result.1.as_ref().is_none_or(|known| known.seed > seed) {
                        result.1 = Some(failure);
                    }
                }
            }
        }
        add(&mut result.lock().unwrap_or_else(PoisonError::into_inner).0, &sum);
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    let (sum, failure) = result.into_inner().unwrap_or_else(PoisonError::into_inner);
    failure.map_or(Ok(sum), Err)
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(test)]
mod tests;
