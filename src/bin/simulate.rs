//! `parlor-simulate`: runs the simulator over any number of seeds, or one of them step by step.

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use parlor::plant::Plant;
use parlor::simulator::{Options, fleet, run, run_fleets, run_many};

/// Runs n shards in one thread with faults from a seed, and checks what must always hold.
#[derive(Debug, Parser)]
#[command(name = "parlor-simulate")]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// This seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Several hosts and a Redis, in place of one host whose sockets have faults.
    #[arg(long)]
    hosts: bool,
    /// With --hosts: clients of this dialect alone.
    #[arg(long, requires = "hosts")]
    dialect: Option<fleet::Spoken>,
    /// Print every step; with --seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// A bug to plant.
    #[arg(long, ignore_case = true)]
    plant: Option<Planting>,
    /// How many seeds run at a time; by default one per core.
    #[arg(long)]
    threads: Option<usize>,
}

/// The bugs that can be planted, by name.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum Planting {
    QueueTellsBoth,
    FrameAfterRoomChange,
    LostWakeup,
    ForgottenRequeue,
    IgnoredGap,
}

impl From<Planting> for Plant {
    fn from(planting: Planting) -> Self {
        match planting {
            Planting::QueueTellsBoth => Self::QueueTellsBoth,
            Planting::FrameAfterRoomChange => Self::FrameAfterRoomChange,
            Planting::LostWakeup => Self::LostWakeup,
            Planting::ForgottenRequeue => Self::ForgottenRequeue,
            Planting::IgnoredGap => Self::IgnoredGap,
        }
    }
}

#[expect(clippy::print_stdout, reason = "what a program like this is for")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let trace = arguments.trace.then_some(print_step as fn(std::fmt::Arguments<'_>));
    let options = Options { plant: arguments.plant.map(Plant::from), trace, spoken: arguments.dialect };
    let started = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (threads, seeds) = (arguments.threads.unwrap_or(cores), arguments.seeds);
    let range = arguments.start..arguments.start.saturating_add(seeds);
    let rows = match (arguments.seed, arguments.hosts) {
        (Some(seed), false) => run(seed, &options).map(|summary| summary.rows()),
        (Some(seed), true) => fleet::run(seed, &options).map(|summary| summary.rows()),
        (None, false) => run_many(range, threads, &options).map(|summary| summary.rows()),
        (None, true) => run_fleets(range, threads, &options).map(|summary| summary.rows()),
    };
    match rows {
        Ok(rows) => {
            let seeds = if arguments.seed.is_some() { 1 } else { seeds };
            print_rows(&rows);
            let seconds = started.elapsed().as_secs_f64();
            println!("{seeds} seeds in {seconds:.1} s, {:.0} a second: all hold", seeds as f64 / seconds);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the trace goes to standard output")]
fn print_step(step: std::fmt::Arguments<'_>) {
    println!("{step}");
}

#[expect(clippy::print_stdout, reason = "the summary goes to standard output")]
fn print_rows(rows: &[(&str, u64)]) {
    for (name, count) in rows {
        println!("{name:>20} {count}");
    }
}
