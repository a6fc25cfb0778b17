//! Load generator and verifier for signaling servers.
//!
//! `client` is a WebSocket client that knows no dialect, `raw` an end of a raw pipe; `dialects` and `payload` are what
//! they say; `servers` is whom they say it to; `scenarios` are what is measured or checked. One task per connection on monoio, one runtime per thread; the first thread only
//! directs.

mod client;
mod dialects;
mod failure;
mod latency;
mod net;
mod options;
mod payload;
mod prng;
mod process;
mod raw;
mod report;
mod scenarios;
mod servers;

use std::process::ExitCode;

use clap::Parser;

use crate::failure::Failure;
use crate::options::{Cli, Command, Scenario, ScenarioArgs};
use crate::scenarios::{churn, compare, idle, pipe, run, verify};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => complain(&failure),
    }
}

fn dispatch(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Run { scenario, options } => start(scenario, &options),
        Command::Relay(options) => start(Scenario::Relay, &options),
        Command::Idle(options) => start(Scenario::Idle, &options),
        Command::Churn(options) => start(Scenario::Churn, &options),
        Command::Verify(options) => start(Scenario::Verify, &options),
        Command::Pipe(options) => pipe::run(&options),
        Command::Compare(options) => compare::run(&options),
    }
}

fn start(scenario: Scenario, options: &ScenarioArgs) -> Result<u8, Failure> {
    options.refuse_meaningless(scenario)?;
    match scenario {
        Scenario::Relay => run::run(options),
        Scenario::Idle => idle::run(options),
        Scenario::Churn => churn::run(options),
        Scenario::Verify => verify::run(options),
    }
}

#[expect(clippy::print_stderr, reason = "this is where errors are told")]
fn complain(failure: &Failure) -> ExitCode {
    eprintln!("parlor-loadgen: {failure}");
    ExitCode::from(failure.exit_code())
}
