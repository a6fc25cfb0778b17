//! Some hundreds of seeds, the planted bug, and that the runs are worth anything.

use super::*;
use crate::plant::Plant;
use crate::simulator::run_fleets;

const SEEDS: u64 = 300;
const THREADS: usize = 2;

#[test]
fn hundreds_of_seeds_hold() {
    let sum =
        run_fleets(0..SEEDS, THREADS, &Options::default()).unwrap_or_else(|failure| panic!("{failure}"));
    for name in [
        "kills",
        "stops",
        "pauses",
        "redis_restarts",
        "redis_absences",
        "connections_cut",
        "losses",
        "relations_ended",
        "letters_received",
    ] {
        let count = sum.rows().iter().find(|(row, _)| *row == name).map_or(0, |(_, count)| *count);
        assert!(count > 0, "{name} never happened: {sum:?}");
    }
}

#[test]
fn an_ignored_gap_is_found() {
    let options = Options { plant: Some(Plant::IgnoredGap), ..Options::default() };
    let Err(failure) = run_fleets(0..20_000, THREADS, &options) else { panic!("it is not found") };
    let unplanted = run(failure.seed, &Options::default());
    assert!(unplanted.is_ok(), "{unplanted:?}");
    println!("seed {}: {}", failure.seed, failure.message);
}
