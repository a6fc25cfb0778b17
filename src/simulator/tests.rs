//! A thousand seeds, the planted bugs, and that the runs are worth anything.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::*;

const SEEDS: u64 = 1_000;
const THREADS: usize = 2;

#[test]
fn a_thousand_seeds_hold() {
    if let Err(failure) = run_many(0..SEEDS, THREADS, &Options::default()) {
        panic!("{failure}");
    }
}

#[test]
fn every_planted_bug_is_found() {
    for plant in Plant::FOR_SIMULATOR {
        let options = Options { plant: Some(plant), ..Options::default() };
        let Err(failure) = run_many(0..SEEDS, THREADS, &options) else { panic!("{plant:?} is not found") };
        let unplanted = run(failure.seed, &Options::default());
        assert!(unplanted.is_ok(), "{plant:?}: {unplanted:?}");
        show(plant, &failure);
    }
}

fn show(plant: Plant, failure: &Failure) {
    println!("{plant:?}: seed {}: {}", failure.seed, failure.message);
}

#[test]
fn everything_happens_within_200_seeds() {
    let sum = run_many(0..200, THREADS, &Options::default()).unwrap_or_else(|failure| panic!("{failure}"));
    // A pipe whose both ends stay until its orderly end comes up in one of some 2,000 seeds.
    for (name, count) in sum.rows().into_iter().filter(|(name, _)| *name != "pipes_completed") {
        assert!(count > 0, "{name} never happened: {sum:?}");
    }
}

thread_local! {
    static STEPS: RefCell<DefaultHasher> = RefCell::default();
}

fn note(step: fmt::Arguments<'_>) {
    STEPS.with_borrow_mut(|steps| step.to_string().hash(steps));
}

#[test]
fn a_seed_does_the_same_step_by_step() {
    let steps = |seed| {
        STEPS.take();
        let summary = run(seed, &Options { trace: Some(note), ..Options::default() });
        (summary.unwrap_or_else(|failure| panic!("{failure}")), STEPS.with_borrow(DefaultHasher::finish))
    };
    for seed in 0..20 {
        assert_eq!(steps(seed), steps(seed), "seed {seed}");
        assert_ne!(steps(seed).1, steps(seed + 1).1, "seed {seed}");
    }
}

#[test]
fn a_failure_names_the_line_that_replays_it() {
    let failure = Failure {
        seed: 7,
        message: "lost".into(),
        plant: Some(Plant::LostWakeup),
        is_fleet: false,
        spoken: None,
    };
    assert_eq!(
        failure.to_string(),
        "seed 7 failed: lost\nreplay: cargo run --features simulator --bin parlor-simulate -- --seed 7 \
         --plant LostWakeup --trace"
    );
}
