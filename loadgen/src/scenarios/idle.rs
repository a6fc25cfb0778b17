//! `idle`: clients connect, arrive where their dialect has a place for them, and stay silent; what each costs in
//! memory.
//!
//! Pairing: connected, not in the queue. Rendezvous: each alone on its connection id. Directory: not logged in (a list of
//! all names goes to everybody who is: that would be measured). Rooms: eight to a room. Introductions: each with a
//! document that nobody else has.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::fleet::{self, Live};
use super::member::Member;
use super::stage::{Phase, Stage};
use crate::client::{Connection, Message};
use crate::dialects::{Dialect, Group, Heard, Seat, Told};
use crate::failure::Failure;
use crate::net::spread::{Spread, Targets};
use crate::net::target::Target;
use crate::options::{CommonArgs, ScenarioArgs};
use crate::process;
use crate::report::{self, Figures, Row};
use crate::servers::{HostsFigures, Servers, Spent};

/// Memory counts as settled when it moved less than this share within [`SETTLE_STEP`].
const SETTLED_SHARE: f64 = 0.002;
const SETTLE_STEP: Duration = Duration::from_millis(500);
const SETTLE_STEPS_MAX: usize = 20;
const CLIENTS_DEFAULT: usize = 1_000;

#[derive(Serialize)]
struct Options {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    spread: Option<Spread>,
    dialect: Dialect,
    clients: usize,
    duration_s: f64,
    #[serde(flatten)]
    common: CommonArgs,
}

/// The figures of idle clients.
#[derive(Debug, Serialize)]
struct IdleFigures {
    clients: usize,
    connect_s: f64,
    connects_per_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_memory_before_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_memory_after_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_bytes_per_client: Option<f64>,
    pings_answered: u64,
    lost_connections: u64,
    #[serde(flatten)]
    hosts: HostsFigures,
}

/// What the directing thread measured.
struct Measured {
    connect_s: f64,
    /// Of each server, before and after.
    memory: Option<(Vec<u64>, Vec<u64>)>,
    /// While they were idle.
    spent: Spent,
}

/// Runs the scenario and reports it.
pub(crate) fn run(options: &ScenarioArgs) -> Result<u8, Failure> {
    let servers = options.servers()?;
    let read = Options {
        url: servers.urls(),
        spread: servers.targets.placing().spread(),
        dialect: options.dialect,
        clients: options.clients.unwrap_or(CLIENTS_DEFAULT),
        duration_s: options.traffic.duration().as_secs_f64(),
        common: options.common.clone(),
    };
    let stage = Arc::new(Stage::new());
    let work = async |thread, stage| work(&read, &servers.targets, thread, stage).await;
    let direct = |stage: &Stage| direct(&read, &servers, stage);
    let (measured, counts) = fleet::run(read.common.threads, options.common.io_driver, &stage, work, direct)?;
    let figures = IdleFigures::new(&read, &servers, &measured, &counts);
    report::publish("idle", &read, &figures, options.common.json.as_deref())
}

/// A thread with clients; pings answered and connections lost.
async fn work(options: &Options, targets: &Targets, thread: usize, stage: Arc<Stage>) -> (u64, u64) {
    let (dialect, members) = (options.dialect, options.dialect.idle_members());
    let groups = options.clients.div_ceil(members);
    let indices = fleet::share_groups(groups, members, thread, options.common.threads);
    let indices = indices.start..indices.end.min(options.clients);
    let thread = Rc::new(Thread::new(dialect, members, Arc::clone(&stage)));
    let on_open = {
        let thread = Rc::clone(&thread);
        move |index, connection| thread.spawn(index, connection)
    };
    let path = move |index, target: &Target| dialect.path(&Seat::of(index, members), &target.url.path);
    fleet::open_all(&stage, (&Rc::new(targets.clone()), members), indices, path, on_open).await;
    thread.wait_and_leave(&stage).await
}

/// The directing thread.
fn direct(options: &Options, servers: &Servers, stage: &Stage) -> Result<Measured, Failure> {
    let before = servers.memory(process::memory_bytes)?;
    let start = Instant::now();
    stage.advance(Phase::Gathering);
    stage.gather("connected", &stage.ready, options.clients)?;
    let connect_s = start.elapsed().as_secs_f64();
    let after = settled_memory(servers)?;
    let counts_before = servers.read()?;
    stage.wait("idle", stage.now_ns() + (options.duration_s * 1e9) as u64)?;
    let spent = counts_before.until(&servers.read_at_end()?);
    Ok(Measured { connect_s, memory: before.zip(after), spent })
}

/// Waits until the servers have given back what they only needed for the handshakes.
fn settled_memory(servers: &Servers) -> Result<Option<Vec<u64>>, Failure> {
    let Some(mut last) = servers.memory(process::memory_bytes)? else { return Ok(None) };
    for _ in 0..SETTLE_STEPS_MAX {
        thread::sleep(SETTLE_STEP);
        let Some(now) = servers.memory(process::memory_bytes)? else { break };
        let is_settled =
            |(now, last): (&u64, &u64)| (now.abs_diff(*last) as f64) < *last as f64 * SETTLED_SHARE;
        let all_settled = now.iter().zip(&last).all(is_settled);
        last = now;
        if all_settled {
            break;
        }
    }
    Ok(Some(last))
}

/// The clients of a thread.
#[derive(Debug)]
struct Thread {
    dialect: Dialect,
    members: usize,
    stage: Arc<Stage>,
    groups: RefCell<HashMap<usize, Rc<Group>>>,
    idlers: RefCell<Vec<Rc<Idler>>>,
    live: Live,
}

/// A client.
#[derive(Debug)]
struct Idler {
    member: Member,
    group: Rc<Group>,
    stage: Arc<Stage>,
    ready: Cell<bool>,
}

impl Idler {
    fn act(&self, heard: Heard) {
        let arrived = matches!(heard, Heard::Ready | Heard::Partnered(_));
        if heard == Heard::TellGroup {
            self.group.tell();
        } else if arrived && !self.ready.replace(true) {
            self.stage.ready.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Told for Idler {
    fn told(&self) {
        self.act(self.member.look_at_group());
        self.member.connection.flush();
    }
}

impl Thread {
    fn new(dialect: Dialect, members: usize, stage: Arc<Stage>) -> Self {
        let (groups, idlers) = (RefCell::default(), RefCell::default());
        Self { dialect, members, stage, groups, idlers, live: Live::default() }
    }

    fn spawn(self: &Rc<Self>, index: usize, connection: Rc<Connection>) {
        let seat = Seat::of(index, self.members);
        let group = Rc::clone(self.groups.borrow_mut().entry(seat.group).or_default());
        let member = Member::new(connection, self.dialect.idler(seat, &group));
        let (stage, ready) = (Arc::clone(&self.stage), Cell::new(false));
        let idler = Rc::new(Idler { member, group, stage, ready });
        let told: Rc<dyn Told> = Rc::<Idler>::clone(&idler);
        idler.group.enter(Rc::downgrade(&told));
        self.idlers.borrow_mut().push(Rc::clone(&idler));
        self.live.enter();
        let thread = Rc::clone(self);
        monoio::spawn(async move {
            idler.act(idler.member.greet());
            let heard = |message: Message<'_>| idler.act(idler.member.hear(message.payload));
            let _ = idler.member.connection.serve(heard).await;
            thread.live.leave();
        });
    }

    /// Pings answered and connections lost.
    async fn wait_and_leave(&self, stage: &Stage) -> (u64, u64) {
        while !stage.reached(Phase::Stopped) {
            monoio::time::sleep(fleet::STEP * 10).await;
        }
        let connection = |idler: &Rc<Idler>| Rc::clone(&idler.member.connection);
        let connections: Vec<_> = self.idlers.borrow().iter().map(connection).collect();
        let lost = connections.len() as u64 - self.live.count() as u64;
        let pings = connections.iter().map(|connection| connection.pings()).sum();
        for connection in &connections {
            connection.close(1000);
            connection.flush();
        }
        self.live.drained(connections.iter()).await;
        (pings, lost)
    }
}

impl IdleFigures {
    fn new(options: &Options, servers: &Servers, measured: &Measured, counts: &[(u64, u64)]) -> Self {
        let sum = |(before, after): &(Vec<u64>, Vec<u64>)| (before.iter().sum(), after.iter().sum());
        let memory: Option<(u64, u64)> = measured.memory.as_ref().map(sum);
        let mut hosts = HostsFigures::new(servers, &measured.spent, 0);
        if let Some((before, after)) = &measured.memory {
            let members = options.dialect.idle_members();
            hosts = hosts.with_memory(&servers.bytes_per_client(options.clients, members, before, after));
        }
        Self {
            clients: options.clients,
            connect_s: measured.connect_s,
            connects_per_s: options.clients as f64 / measured.connect_s.max(1e-9),
            server_memory_before_bytes: memory.map(|(before, _)| before),
            server_memory_after_bytes: memory.map(|(_, after)| after),
            server_bytes_per_client: memory
                .map(|(before, after)| process::bytes_per(options.clients, before, after)),
            pings_answered: counts.iter().map(|(pings, _)| pings).sum(),
            lost_connections: counts.iter().map(|(_, lost)| lost).sum(),
            hosts,
        }
    }
}

impl Figures for IdleFigures {
    fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            Row::count("clients", self.clients as u64, ""),
            Row::quantity("connected within", self.connect_s, "s"),
            Row::quantity("connects", self.connects_per_s, "/s"),
        ];
        if let (Some(before), Some(after)) = (self.server_memory_before_bytes, self.server_memory_after_bytes)
        {
            rows.push(Row::count("server memory before", before / 1024, "KiB"));
            rows.push(Row::count("server memory after", after / 1024, "KiB"));
        }
        rows.extend(
            self.server_bytes_per_client.map(|bytes| Row::quantity("server memory per client", bytes, "B")),
        );
        rows.push(Row::count("pings answered", self.pings_answered, ""));
        rows.push(Row::count("lost connections", self.lost_connections, ""));
        rows.extend(self.hosts.rows());
        rows
    }

    fn warnings(&self) -> Vec<String> {
        let lost =
            (self.lost_connections > 0).then(|| format!("{} connections were lost", self.lost_connections));
        lost.into_iter().collect()
    }

    fn exit_code(&self) -> u8 {
        u8::from(self.lost_connections > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_divided_by_clients_and_counts_are_summed() {
        let options = Options {
            url: String::new(),
            spread: None,
            dialect: Dialect::Pairing,
            clients: 10,
            duration_s: 1.0,
            common: CommonArgs::default(),
        };
        let measured = Measured {
            connect_s: 2.0,
            memory: Some((vec![600, 400], vec![5_600, 400])),
            spent: Spent::default(),
        };
        let figures = IdleFigures::new(&options, &Servers::example(2), &measured, &[(3, 0), (4, 1)]);
        assert_eq!(figures.server_bytes_per_client, Some(500.0));
        assert_eq!((figures.connects_per_s, figures.pings_answered, figures.exit_code()), (5.0, 7, 1));
    }
}
