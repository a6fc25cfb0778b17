//! `verify`: every message says who sent it where, and all that the protocol promises is checked (protocols.md
//! sections 0 and 1).

mod checker;
mod client;
mod label;
mod registry;
#[cfg(test)]
mod tests;
mod violation;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use serde::Serialize;

use self::client::{Client, DropKind, Shared, Tally};
use self::registry::Registry;
use super::fleet;
use super::run::per_second;
use super::stage::{Phase, Stage};
use crate::failure::Failure;
use crate::net::target::Target;
use crate::options::{CommonArgs, ScenarioArgs};
use crate::prng::Prng;
use crate::process::CpuReading;
use crate::report::{self, Figures, Row};

const PAIRS_DEFAULT: usize = 50;
const IN_FLIGHT_DEFAULT: usize = 8;
/// How often clients are drawn that drop.
const DROP_STEP: Duration = Duration::from_millis(10);
/// All has arrived when nothing came for so long.
const QUIET: Duration = Duration::from_millis(500);
/// So long something may still come.
const DRAIN_MAX: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct Options {
    url: String,
    pairs: usize,
    in_flight: usize,
    drop_rate_per_s: f64,
    duration_s: f64,
    #[serde(flatten)]
    common: CommonArgs,
}

/// The figures of a verification that found nothing.
#[derive(Debug, Serialize)]
struct VerifyFigures {
    messages: u64,
    messages_per_s: f64,
    rooms: usize,
    messages_carried: usize,
    drops_reset: u64,
    drops_tcp_close: u64,
    drops_websocket_close: u64,
    drops_next: u64,
    drops_leave: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_messages_per_cpu_s: Option<f64>,
}

/// Runs the scenario and reports it.
pub(crate) fn run(options: &ScenarioArgs) -> Result<u8, Failure> {
    let target = options.target()?;
    let read = Options {
        url: target.url.to_string(),
        pairs: options.traffic.pairs.unwrap_or(PAIRS_DEFAULT),
        in_flight: options.traffic.in_flight.unwrap_or(IN_FLIGHT_DEFAULT),
        drop_rate_per_s: options.drop_rate.unwrap_or(0.0),
        duration_s: options.traffic.duration().as_secs_f64(),
        common: options.common.clone(),
    };
    let (stage, registry) = (Arc::new(Stage::new()), Arc::new(Registry::default()));
    let numbers = Arc::new(AtomicU32::new(0));
    let work = async |thread, stage| {
        let shared = Shared::new(stage, Arc::clone(&registry), Arc::clone(&numbers), read.in_flight, &target);
        work(&read, thread, &target, Rc::new(shared)).await
    };
    let direct = |stage: &Stage| direct(&read, options.pid, stage);
    let (cpu_ns, tallies) = fleet::run(read.common.threads, options.common.io_driver, &stage, work, direct)?;
    registry.check_all().map_err(|violation| Failure::Violation(violation.to_string()))?;
    let figures = VerifyFigures::new(&read, &tallies, &registry, cpu_ns);
    report::publish("verify", &read, &figures, options.common.json.as_deref())
}

/// The directing thread; returns the CPU time of the server.
fn direct(options: &Options, pid: Option<u32>, stage: &Stage) -> Result<Option<u64>, Failure> {
    stage.gather("connected", &stage.ready, options.pairs * 2)?;
    stage.advance(Phase::Traffic);
    let before = pid.map(CpuReading::of).transpose()?;
    stage.wait("verifying", stage.now_ns() + (options.duration_s * 1e9) as u64)?;
    let after = pid.map(CpuReading::of).transpose()?;
    stage.advance(Phase::Draining);
    stage.settle(QUIET, DRAIN_MAX)?;
    Ok(before.zip(after).map(|(before, after)| after.ns_since(&before)))
}

/// A thread with clients.
async fn work(options: &Options, thread: usize, target: &Target, shared: Rc<Shared>) -> Tally {
    let indices = fleet::share(options.pairs * 2, thread, options.common.threads);
    let on_open = {
        let shared = Rc::clone(&shared);
        move |index, connection| Client::start(index, connection, &shared)
    };
    fleet::open_all(&shared.stage, &Rc::new(target.clone()), indices, on_open).await;
    let clients = shared.clients.borrow().clone();
    drop_at_random(options.drop_rate_per_s, &clients, &shared.stage).await;
    while !shared.stage.reached(Phase::Stopped) {
        monoio::time::sleep(fleet::STEP).await;
    }
    clients.iter().for_each(|client| client.finish());
    let connections: Vec<_> = clients.iter().filter_map(|client| client.connection()).collect();
    shared.live.drained(connections.iter()).await;
    shared.tally.take()
}

/// Lets clients drop, each with the same probability per second, while there is traffic.
async fn drop_at_random(rate_per_s: f64, clients: &[Rc<Client>], stage: &Stage) {
    let chance = Prng::from_entropy();
    let mut last = Instant::now();
    while rate_per_s > 0.0 && !stage.reached(Phase::Draining) {
        monoio::time::sleep(DROP_STEP).await;
        let probability = last.elapsed().as_secs_f64() * rate_per_s;
        last = Instant::now();
        if !stage.reached(Phase::Traffic) {
            continue;
        }
        for client in clients {
            if chance.chance(probability) {
                client.drop_out(DropKind::ALL[chance.below(DropKind::ALL.len() as u32) as usize]);
            }
        }
    }
}

impl VerifyFigures {
    fn new(options: &Options, tallies: &[Tally], registry: &Registry, cpu_ns: Option<u64>) -> Self {
        let messages: u64 = tallies.iter().map(|tally| tally.messages).sum();
        let drops = |kind: DropKind| tallies.iter().map(|tally| tally.drops[kind as usize]).sum();
        let (rooms, messages_carried) = registry.counts();
        Self {
            messages,
            messages_per_s: per_second(messages as f64, Duration::from_secs_f64(options.duration_s)),
            rooms,
            messages_carried,
            drops_reset: drops(DropKind::Reset),
            drops_tcp_close: drops(DropKind::TcpClose),
            drops_websocket_close: drops(DropKind::WebSocketClose),
            drops_next: drops(DropKind::Next),
            drops_leave: drops(DropKind::Leave),
            server_messages_per_cpu_s: cpu_ns.map(|ns| super::run::ratio(messages as f64, ns as f64 / 1e9)),
        }
    }
}

impl Figures for VerifyFigures {
    fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            Row::text("verified", "no violation"),
            Row::count("messages", self.messages, ""),
            Row::quantity("messages per second", self.messages_per_s, "/s"),
            Row::count("rooms", self.rooms as u64, ""),
            Row::count("messages read in the next room", self.messages_carried as u64, ""),
            Row::count("drops by TCP reset", self.drops_reset, ""),
            Row::count("drops by TCP close", self.drops_tcp_close, ""),
            Row::count("drops by WebSocket close", self.drops_websocket_close, ""),
            Row::count("drops by `next`", self.drops_next, ""),
            Row::count("drops by `leave`", self.drops_leave, ""),
        ];
        let cpu = self.server_messages_per_cpu_s;
        rows.extend(cpu.map(|rate| Row::quantity("messages per CPU second", rate, "/s")));
        rows
    }

    fn warnings(&self) -> Vec<String> {
        let nothing =
            (self.messages == 0).then(|| "not one message arrived: nothing was verified".to_owned());
        nothing.into_iter().collect()
    }

    fn exit_code(&self) -> u8 {
        u8::from(self.messages == 0)
    }
}
