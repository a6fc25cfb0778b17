//! The server's program: configuration, log, signals.

use std::io::IsTerminal;
use std::process::ExitCode;

use mimalloc::MiMalloc;
use parlor::config::Config;
use parlor::healthcheck;
use parlor::server::{Server, Stopper};
use rustix::process::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let (config, warnings) = Config::from_process();
    tracing_subscriber::fmt()
        .with_max_level(config.log_level)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    if config.healthcheck {
        return exit_code(healthcheck::check(&config).map(|()| true), "not healthy");
    }
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    exit_code(run(&config), "cannot serve")
}

fn exit_code(outcome: std::io::Result<bool>, failure: &str) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!("{failure}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until a signal comes. Says whether the end was in order.
fn run(config: &Config) -> std::io::Result<bool> {
    // Huge pages would be counted whole for a few used bytes in each.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    raise_open_files();
    // Before the server's threads, so that no signal finds nobody.
    let signals = Signals::new([SIGTERM, SIGINT])?;
    let server = Server::start(config)?;
    let decision = server.decision();
    tracing::info!(
        address = %server.address(),
        shards = server.shards(),
        driver = decision.driver.name(),
        ring_flags = decision.driver.flags(),
        reason = %decision.reason,
        "listening"
    );
    if let Some(address) = server.private_address() {
        tracing::info!(%address, "health and metrics");
    }
    let stopper = server.stopper();
    std::thread::Builder::new().name("signals".into()).spawn(move || stop_on(signals, &stopper))?;
    let in_order = server.wait();
    tracing::info!("stopped");
    Ok(in_order)
}

/// Raises the soft limit of open files to the hard one: each client takes a file.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("the limit of open files cannot be raised: {error}");
    }
}

/// The first signal begins the shutdown, the second ends the process at once.
fn stop_on(mut signals: Signals, stopper: &Stopper) {
    for (count, signal) in signals.forever().enumerate() {
        if count > 0 {
            tracing::warn!("second signal ({signal}), leaving at once");
            std::process::exit(1);
        }
        tracing::info!("signal {signal}, shutting down");
        stopper.stop();
    }
}
