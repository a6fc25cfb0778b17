//! `verify`: every message says who sent it to whom, and all that the protocol promises is checked (protocols.md).
//!
//! A dialect has a judge, which knows what every client has said and heard and does no I/O; actors are its clients.
//! Pipes, which have no messages of their own, have a driver of their own.

mod actor;
mod claims;
#[cfg(test)]
mod court;
mod directory;
mod hosts;
mod introductions;
mod judge;
mod label;
mod pairing;
mod pipes;
mod rendezvous;
mod rooms;
mod trace;
mod violation;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use self::actor::{Actor, Bench, Shared};
use self::hosts::{Hosts, TOLD_WITHIN};
use self::judge::{Count, DropKind, Judge};
use super::fleet;
use super::run::{per_second, ratio};
use super::stage::{Phase, Stage};
use crate::dialects::Dialect;
use crate::failure::Failure;
use crate::net::get::get;
use crate::net::spread::{Spread, Targets};
use crate::net::target::Target;
use crate::options::{CommonArgs, PipeMode, ScenarioArgs};
use crate::prng::Prng;
use crate::report::{self, Figures, Row};
use crate::servers::{HostsFigures, Reading, Servers, Spent};

const PAIRS_DEFAULT: usize = 50;
const IN_FLIGHT_DEFAULT: usize = 8;
/// Drops per client and second of a directory whose clients log in and out all the time.
const IN_AND_OUT_RATE: f64 = 0.5;
/// How often clients are drawn that drop.
const DROP_STEP: Duration = Duration::from_millis(10);
/// All has arrived when nothing came for so long.
const QUIET: Duration = Duration::from_millis(500);
/// So long something may still come.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long a violation waits for what may explain it.
const PATIENCE: Duration = Duration::from_millis(100);
/// Clients that meet in rooms, at connection ids and over documents.
const MEMBERS: usize = 4;
/// Clients of a thread that open their first connection at the same time: a server's backlog is not endless.
const OPENING_MAX: usize = 64;

/// What a verification was told to do.
#[derive(Debug, Serialize)]
struct Options {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    spread: Option<Spread>,
    dialect: Dialect,
    pairs: usize,
    clients: usize,
    in_flight: usize,
    drop_rate_per_s: f64,
    duration_s: f64,
    /// Where a host may die.
    #[serde(skip_serializing_if = "Option::is_none")]
    told_within_s: Option<f64>,
    redis_restarts: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<PipeMode>,
    #[serde(flatten)]
    common: CommonArgs,
}

impl Options {
    fn told_within(&self) -> Duration {
        self.told_within_s.map_or(TOLD_WITHIN, Duration::from_secs_f64)
    }
}

/// The figures of a verification that found nothing.
#[derive(Debug, Serialize)]
struct VerifyFigures {
    messages: u64,
    messages_per_s: f64,
    #[serde(flatten)]
    counts: BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_messages_per_cpu_s: Option<f64>,
    #[serde(flatten)]
    hosts: HostsFigures,
    /// The first says whether anything was verified at all.
    #[serde(skip)]
    lines: Vec<Count>,
}

/// Runs the scenario and reports it.
pub(crate) fn run(options: &ScenarioArgs) -> Result<u8, Failure> {
    let servers = options.servers()?;
    let may_die = options.may_die(&servers)?;
    servers.await_relations()?;
    let in_and_out = options.clients.map_or(0.0, |_| IN_AND_OUT_RATE);
    let clients = options.clients.unwrap_or(options.traffic.pairs.unwrap_or(PAIRS_DEFAULT) * 2);
    let read = Options {
        url: servers.urls(),
        spread: servers.targets.placing().spread(),
        dialect: options.dialect,
        pairs: clients / 2,
        clients,
        in_flight: options.traffic.in_flight.unwrap_or(IN_FLIGHT_DEFAULT),
        drop_rate_per_s: options.drop_rate.unwrap_or(in_and_out),
        duration_s: options.traffic.duration().as_secs_f64(),
        told_within_s: options.told_within.map(|told_within| told_within.as_secs_f64()),
        redis_restarts: options.redis_restarts,
        mode: options.mode,
        common: options.common.clone(),
    };
    let figures = match read.dialect {
        Dialect::Pipes => pipes::verify(&read, &servers, &may_die)?,
        Dialect::Pairing
        | Dialect::Rendezvous
        | Dialect::Directory
        | Dialect::Rooms
        | Dialect::Introductions => verify(&read, &servers, &may_die)?,
    };
    report::publish("verify", &read, &figures, options.common.json.as_deref())
}

fn judge_of(options: &Options, targets: &Targets) -> Box<dyn Judge> {
    let (in_flight, placing) = (options.in_flight, targets.placing());
    match options.dialect {
        Dialect::Pairing | Dialect::Pipes => {
            let paths = targets.all().iter().map(|target| target.url.path.clone()).collect();
            Box::new(pairing::Judge::new(paths, placing, in_flight))
        }
        Dialect::Rendezvous => Box::new(rendezvous::Judge::new(placing, in_flight)),
        Dialect::Directory => {
            Box::new(directory::Judge::new(placing, options.clients, !options.redis_restarts))
        }
        Dialect::Rooms => Box::new(rooms::Judge::new(placing, in_flight, !options.redis_restarts)),
        Dialect::Introductions => Box::new(introductions::Judge::new(placing, in_flight)),
    }
}

fn verify(options: &Options, servers: &Servers, may_die: &[bool]) -> Result<VerifyFigures, Failure> {
    let stage = Arc::new(Stage::new());
    let bench =
        Arc::new(Bench::new(judge_of(options, &servers.targets), Hosts::new(may_die, options.told_within())));
    let work = async |thread, stage| {
        let shared = Rc::new(Shared::new(stage, Arc::clone(&bench), &servers.targets));
        work(options, thread, &shared).await
    };
    let direct = |stage: &Stage| direct(options, servers, &bench, stage);
    let (spent, drops) = fleet::run(options.common.threads, options.common.io_driver, &stage, work, direct)?;
    let judge = bench.judge();
    let drops = judge.drops().iter().map(|kind| {
        let (key, what) = kind.names();
        (key, what, drops.iter().filter_map(|counted| counted.get(kind)).sum())
    });
    let counts = judge.counts().into_iter().chain(drops).chain(deaths(&bench.hosts));
    Ok(VerifyFigures::new(options, servers, counts.collect(), &spent))
}

fn deaths(hosts: &Hosts) -> Option<Count> {
    hosts.may_any_die().then(|| ("hosts_died", "hosts that died", hosts.all_deaths()))
}

/// The directing thread; returns what the servers spent.
fn direct(options: &Options, servers: &Servers, bench: &Bench, stage: &Stage) -> Result<Spent, Failure> {
    stage.gather("connected", &stage.ready, options.clients)?;
    stage.advance(Phase::Traffic);
    let before = servers.read()?;
    let look = || watch_deaths(servers, bench);
    let end_ns = stage.now_ns() + (options.duration_s * 1e9) as u64;
    stage.wait_and_look("verifying", end_ns, look)?;
    let spent = spent(servers, &bench.hosts, &before)?;
    stage.advance(Phase::Draining);
    if let Some(died_at) = bench.hosts.last_death() {
        let left = bench.hosts.heard_within().saturating_sub(died_at.elapsed());
        stage.wait_and_look("waiting", stage.now_ns() + left.as_nanos() as u64, look)?;
    }
    stage.settle(QUIET, DRAIN_MAX)?;
    let pages = pages(servers, bench)?;
    let pages: Vec<_> = pages.iter().map(Option::as_deref).collect();
    let judged = bench.judge().finish(&pages);
    judged.map_err(|violation| Failure::Violation(format!("at the end: {violation}")))?;
    Ok(spent)
}

/// What the servers spent, where those that may die need not be there any more.
fn spent(servers: &Servers, hosts: &Hosts, before: &Reading) -> Result<Spent, Failure> {
    let now = if hosts.may_any_die() { servers.read_those_left() } else { servers.read_at_end()? };
    Ok(before.until(&now))
}

/// Looks whether all were told of those that died, and whether a dead host has come back and knows the others.
fn watch_deaths(servers: &Servers, bench: &Bench) -> Result<(), Failure> {
    if !bench.hosts.may_any_die() {
        return Ok(());
    }
    let now = Instant::now();
    let died_before = bench.hosts.last_death().and_then(|_| now.checked_sub(bench.hosts.heard_within()));
    let judged = bench.judge().check_deaths(died_before, now);
    judged.map_err(|violation| Failure::Violation(violation.to_string()))?;
    await_dead_hosts(servers, &bench.hosts);
    Ok(())
}

/// Looks whether a dead host has come back and knows the others. Until all were told that it died it counts as dead.
fn await_dead_hosts(servers: &Servers, hosts: &Hosts) {
    let down: Vec<_> = (0..servers.targets.all().len()).filter(|host| hosts.is_down(*host)).collect();
    let others = (servers.targets.all().len() - down.len()) as u64;
    for host in down {
        let is_told = hosts.died_at(host).is_none_or(|died_at| died_at.elapsed() > hosts.heard_within());
        if is_told && servers.is_back(host, others) {
            hosts.came_back(host);
        }
    }
}

/// What each server that is there says at the end.
fn pages(servers: &Servers, bench: &Bench) -> Result<Vec<Option<String>>, Failure> {
    let path = bench.judge().page();
    let page = |(host, target): (usize, &Target)| {
        let path = path.filter(|_| !bench.hosts.is_down(host));
        path.map(|path| get(target, path)).transpose()
    };
    servers.targets.all().iter().enumerate().map(page).collect()
}

/// A thread with clients; how they dropped out.
async fn work(options: &Options, thread: usize, shared: &Rc<Shared>) -> BTreeMap<DropKind, u64> {
    for index in fleet::share(options.clients, thread, options.common.threads) {
        Actor::start(index, shared);
        // The others wait until some of these are connected.
        while shared.actors.borrow().iter().filter(|actor| actor.connection().is_none()).count()
            >= OPENING_MAX
            && !shared.stage.reached(Phase::Stopped)
        {
            monoio::time::sleep(fleet::STEP / 5).await;
        }
    }
    let actors = shared.actors.borrow().clone();
    let kinds = shared.bench.judge().drops();
    let (chance, ticks) = (Prng::from_entropy(), shared.bench.judge().ticks());
    let mut last = Instant::now();
    while !shared.stage.reached(Phase::Stopped) {
        monoio::time::sleep(DROP_STEP).await;
        shared.tell_violation(PATIENCE);
        let probability = last.elapsed().as_secs_f64() * options.drop_rate_per_s;
        last = Instant::now();
        let drops = shared.stage.reached(Phase::Traffic) && !shared.stage.reached(Phase::Draining);
        for actor in &actors {
            if drops && chance.chance(probability) {
                actor.drop_out(kinds[chance.below(kinds.len() as u32) as usize]);
            }
            if ticks {
                actor.tick();
            }
        }
    }
    shared.tell_violation(Duration::ZERO);
    actors.iter().for_each(|actor| actor.finish());
    let connections: Vec<_> = actors.iter().filter_map(|actor| actor.connection()).collect();
    shared.live.drained(connections.iter()).await;
    shared.drops.take()
}

impl VerifyFigures {
    fn new(options: &Options, servers: &Servers, lines: Vec<Count>, spent: &Spent) -> Self {
        let messages = lines.iter().find(|(key, _, _)| *key == "messages").map_or(0, |(_, _, count)| *count);
        Self {
            messages,
            messages_per_s: per_second(messages as f64, Duration::from_secs_f64(options.duration_s)),
            counts: lines
                .iter()
                .filter(|(key, _, _)| *key != "messages")
                .map(|(key, _, count)| (*key, *count))
                .collect(),
            server_messages_per_cpu_s: spent.cpu_ns().map(|ns| ratio(messages as f64, ns as f64 / 1e9)),
            hosts: HostsFigures::new(servers, spent, messages),
            lines,
        }
    }
}

impl VerifyFigures {
    /// What there was none of, where there should be.
    fn nothing(&self) -> Option<&'static str> {
        self.lines.first().filter(|(_, _, count)| *count == 0).map(|(_, what, _)| *what)
    }
}

impl Figures for VerifyFigures {
    fn rows(&self) -> Vec<Row> {
        let mut rows = vec![Row::text("verified", "no violation")];
        rows.extend(self.lines.iter().map(|(_, what, count)| Row::count(what, *count, "")));
        rows.push(Row::quantity("messages per second", self.messages_per_s, "/s"));
        let cpu = self.server_messages_per_cpu_s;
        rows.extend(cpu.map(|rate| Row::quantity("messages per CPU second", rate, "/s")));
        rows.extend(self.hosts.rows());
        rows
    }

    fn warnings(&self) -> Vec<String> {
        self.nothing().map(|what| format!("no {what}: nothing was verified")).into_iter().collect()
    }

    fn exit_code(&self) -> u8 {
        u8::from(self.nothing().is_some())
    }
}
