//! `churn`: pairs connect, exchange one set of messages, and leave, again and again.
//!
//! A cycle of a client: connect, and say what it takes in its dialect to have a partner; an offer or an answer and ten
//! candidates each way (introductions: eleven `Join`); `leave` where the dialect has it, and a WebSocket close that the
//! server answers. In pairing partners are whoever the server finds, and a client whose partner goes before the set is
//! complete (it was put back in the queue and matched with one on its way out) begins the exchange anew with the next
//! one. Elsewhere partners are fixed, and meet under new names in each cycle, or in the same room.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::fleet::{self, Live};
use super::member::Member;
use super::run::{per_second, rate_limit_warning, ratio};
use super::stage::{Phase, Stage};
use crate::client::{Connection, Ending};
use crate::dialects::{Dialect, Group, Heard, Seat, Told};
use crate::failure::Failure;
use crate::latency::{Latency, Quantiles};
use crate::net::spread::{Spread, Targets};
use crate::options::{CommonArgs, ScenarioArgs};
use crate::payload::{ICE_PER_SET, PayloadKind, Role, Script, Stamp};
use crate::report::{self, Figures, Row};
use crate::servers::{HostsFigures, Servers, Spent};

const PAIRS_DEFAULT: usize = 50;
const MEMBERS: usize = 2;
/// Messages of a set: a session description and its candidates.
const SET: usize = 1 + ICE_PER_SET;

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

/// The figures of a churn.
#[derive(Debug, Serialize)]
struct ChurnFigures {
    cycles: f64,
    cycles_per_s: f64,
    connects_per_s: f64,
    #[serde(flatten)]
    cycle: Quantiles,
    exchanges_broken_off: u64,
    rate_limited: u64,
    errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_us_per_cycle: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_messages_per_cpu_s: Option<f64>,
    #[serde(flatten)]
    hosts: HostsFigures,
    /// Partners were to meet over several hosts.
    #[serde(skip)]
    is_across: bool,
}

/// What the clients of a thread count.
#[derive(Debug)]
struct Tally {
    /// Cycles of single clients: two make one of a pair.
    client_cycles: u64,
    messages: u64,
    broken_off: u64,
    rate_limited: u64,
    errors: u64,
    cycle: Latency,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            client_cycles: 0,
            messages: 0,
            broken_off: 0,
            rate_limited: 0,
            errors: 0,
            cycle: Latency::new(),
        }
    }
}

/// Runs the scenario and reports it.
pub(crate) fn run(options: &ScenarioArgs) -> Result<u8, Failure> {
    let servers = options.servers()?;
    servers.await_relations()?;
    let read = Options {
        url: servers.urls(),
        spread: servers.targets.placing().spread(),
        dialect: options.dialect,
        clients: options.clients.unwrap_or(PAIRS_DEFAULT),
        duration_s: options.traffic.duration().as_secs_f64(),
        common: options.common.clone(),
    };
    let stage = Arc::new(Stage::new());
    let work = async |thread, stage| work(&read, &servers.targets, thread, stage).await;
    let direct = |stage: &Stage| direct(&read, &servers, stage);
    let (spent, tallies) = fleet::run(read.common.threads, options.common.io_driver, &stage, work, direct)?;
    let figures = ChurnFigures::new(&read, &servers, &tallies, &spent);
    report::publish("churn", &read, &figures, options.common.json.as_deref())
}

/// The directing thread; returns what the servers spent.
fn direct(options: &Options, servers: &Servers, stage: &Stage) -> Result<Spent, Failure> {
    let before = servers.read()?;
    let (start_ns, duration_ns) = (stage.now_ns(), (options.duration_s * 1e9) as u64);
    stage.measure(start_ns, start_ns + duration_ns);
    stage.wait("churning", start_ns + duration_ns)?;
    Ok(before.until(&servers.read_at_end()?))
}

/// A thread with clients.
async fn work(options: &Options, targets: &Targets, thread: usize, stage: Arc<Stage>) -> Tally {
    let kind = match options.dialect {
        Dialect::Introductions => PayloadKind::Ice,
        Dialect::Pairing | Dialect::Rendezvous | Dialect::Directory | Dialect::Rooms | Dialect::Pipes => {
            PayloadKind::Mixed
        }
    };
    let Ok(script) = Script::new(kind, options.dialect) else { return Tally::default() };
    let shared = Rc::new(Shared {
        stage: Arc::clone(&stage),
        dialect: options.dialect,
        targets: targets.clone(),
        script,
        tally: RefCell::default(),
        connections: RefCell::new(Vec::new()),
        meetings: RefCell::default(),
        live: Live::default(),
    });
    let indices = fleet::share_groups(options.clients, MEMBERS, thread, options.common.threads);
    for (place, index) in indices.enumerate() {
        shared.connections.borrow_mut().push(None);
        shared.live.enter();
        let shared = Rc::clone(&shared);
        monoio::spawn(async move {
            if let Err(failure) = shared.cycles(place, index).await {
                shared.stage.fail(failure);
            }
            shared.live.leave();
        });
    }
    while !stage.reached(Phase::Stopped) {
        monoio::time::sleep(fleet::STEP).await;
    }
    let connections: Vec<_> = shared.connections.borrow().iter().flatten().cloned().collect();
    for connection in &connections {
        connection.close(1000);
        connection.flush();
    }
    shared.live.drained(connections.iter()).await;
    shared.tally.take()
}

/// What a pair keeps over its cycles.
#[derive(Debug, Default)]
struct Meeting {
    room: Rc<RefCell<Option<String>>>,
    /// By cycle: a client may begin the next one while its partner still ends the last.
    groups: HashMap<u64, Rc<Group>>,
}

impl Meeting {
    fn group(&mut self, cycle: u64) -> Rc<Group> {
        self.groups.retain(|known, _| known + 1 >= cycle);
        let room = Rc::clone(&self.room);
        Rc::clone(self.groups.entry(cycle).or_insert_with(|| Rc::new(Group::in_room(room))))
    }
}

/// What the clients of a thread share.
#[derive(Debug)]
struct Shared {
    stage: Arc<Stage>,
    dialect: Dialect,
    targets: Targets,
    script: Script,
    tally: RefCell<Tally>,
    connections: RefCell<Vec<Option<Rc<Connection>>>>,
    meetings: RefCell<HashMap<usize, Meeting>>,
    live: Live,
}

impl Shared {
    /// One cycle after the other.
    async fn cycles(self: &Rc<Self>, place: usize, index: usize) -> Result<(), Failure> {
        let mut seat = Seat::of(index, MEMBERS);
        while !self.stage.reached(Phase::Stopped) {
            let start = Instant::now();
            let target = self.targets.of(index, MEMBERS);
            let path = self.dialect.path(&seat, &target.url.path);
            let connection = Connection::open(target, &path, index).await?;
            if self.stage.reached(Phase::Stopped) {
                break;
            }
            self.connections.borrow_mut()[place] = Some(Rc::clone(&connection));
            let group = self.meetings.borrow_mut().entry(seat.group).or_default().group(seat.cycle);
            let ending = Cycle::start(connection, self, seat, group).await;
            self.connections.borrow_mut()[place] = None;
            if self.stage.reached(Phase::Stopped) {
                break;
            }
            if let Some(ending) = ending {
                return Err(Failure::Server(format!(
                    "a connection ended in the middle of its cycle: {ending:?}"
                )));
            }
            self.completed(start);
            seat.cycle += 1;
        }
        Ok(())
    }

    fn completed(&self, start: Instant) {
        if self.stage.measures(self.stage.now_ns()) {
            let mut tally = self.tally.borrow_mut();
            tally.client_cycles += 1;
            tally.cycle.record(start.elapsed().as_nanos() as u64);
        }
    }
}

/// One connection of a client.
#[derive(Debug)]
struct Cycle {
    member: Member,
    group: Rc<Group>,
    shared: Rc<Shared>,
    role: Cell<Option<Role>>,
    sent: Cell<bool>,
    arrived: Cell<usize>,
}

impl Cycle {
    /// Serves the connection to its end; how it ended, if that was not as it should.
    async fn start(
        connection: Rc<Connection>,
        shared: &Rc<Shared>,
        seat: Seat,
        group: Rc<Group>,
    ) -> Option<Ending> {
        let member = Member::new(connection, shared.dialect.speaker(seat, &group));
        let cycle = Rc::new(Self {
            member,
            group,
            shared: Rc::clone(shared),
            role: Cell::new(None),
            sent: Cell::new(false),
            arrived: Cell::new(0),
        });
        let told: Rc<dyn Told> = Rc::<Self>::clone(&cycle);
        cycle.group.enter(Rc::downgrade(&told));
        cycle.act(cycle.member.greet());
        let ending = cycle.member.connection.serve(|message| cycle.on_message(message.payload)).await;
        let fine = cycle.is_complete() && matches!(ending, Ending::Closed(1000, _));
        (!fine).then_some(ending)
    }

    fn is_complete(&self) -> bool {
        self.sent.get() && self.arrived.get() == SET
    }

    fn on_message(&self, message: &[u8]) {
        if !self.is_complete() {
            self.act(self.member.hear(message));
        }
    }

    fn act(&self, heard: Heard) {
        match heard {
            Heard::Partnered(role) => self.on_partnered(role),
            Heard::Relay => self.on_relay(),
            Heard::PartnerLeft => self.on_partner_left(),
            Heard::TellGroup => self.group.tell(),
            Heard::Refused { limited: true } => self.on_limited(),
            Heard::Refused { limited: false } | Heard::Unknown => self.shared.tally.borrow_mut().errors += 1,
            Heard::Nothing | Heard::Ready | Heard::Echo | Heard::Misplaced | Heard::Stranger => {}
        }
    }

    /// The caller begins; the callee answers the offer.
    fn on_partnered(&self, role: Role) {
        if self.role.replace(Some(role)).is_none() && role == Role::Caller {
            self.send_set(role);
        }
    }

    fn on_relay(&self) {
        self.arrived.set(self.arrived.get() + 1);
        if self.shared.stage.measures(self.shared.stage.now_ns()) {
            self.shared.tally.borrow_mut().messages += 1;
        }
        if let (Some(Role::Callee), false) = (self.role.get(), self.sent.get()) {
            self.send_set(Role::Callee);
        }
        if self.is_complete() {
            self.member.leave();
        }
    }

    fn on_partner_left(&self) {
        self.role.set(None);
        self.sent.set(false);
        self.arrived.set(0);
        self.shared.tally.borrow_mut().broken_off += 1;
    }

    fn on_limited(&self) {
        let mut tally = self.shared.tally.borrow_mut();
        tally.rate_limited += 1;
        self.shared.stage.fail(Failure::RateLimited(rate_limit_warning(tally.rate_limited)));
    }

    fn send_set(&self, role: Role) {
        self.sent.set(true);
        let time_ns = self.shared.stage.now_ns();
        for step in 0..SET {
            let stamp = Stamp { sender: 0, sequence: step as u32, time_ns };
            self.member.send(&self.shared.script, role, step, stamp);
        }
    }
}

impl Told for Cycle {
    fn told(&self) {
        if !self.is_complete() {
            self.act(self.member.look_at_group());
            self.member.connection.flush();
        }
    }
}

impl ChurnFigures {
    fn new(options: &Options, servers: &Servers, tallies: &[Tally], spent: &Spent) -> Self {
        let cpu_ns = spent.cpu_ns();
        let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
        let client_cycles = sum(|tally| tally.client_cycles) as f64;
        let duration = Duration::from_secs_f64(options.duration_s);
        let mut cycle = Latency::new();
        tallies.iter().for_each(|tally| cycle.add(&tally.cycle));
        let messages = sum(|tally| tally.messages) as f64;
        Self {
            cycles: client_cycles / 2.0,
            cycles_per_s: per_second(client_cycles / 2.0, duration),
            connects_per_s: per_second(client_cycles, duration),
            cycle: cycle.quantiles(),
            exchanges_broken_off: sum(|tally| tally.broken_off),
            rate_limited: sum(|tally| tally.rate_limited),
            errors: sum(|tally| tally.errors),
            server_cpu_us_per_cycle: cpu_ns.map(|ns| ratio(ns as f64 / 1e3, client_cycles / 2.0)),
            server_messages_per_cpu_s: cpu_ns.map(|ns| ratio(messages, ns as f64 / 1e9)),
            hosts: HostsFigures::new(servers, spent, messages as u64),
            is_across: servers.targets.placing().is_across(),
        }
    }
}

impl Figures for ChurnFigures {
    fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            Row::count("cycles of a pair", self.cycles as u64, ""),
            Row::quantity("cycles per second", self.cycles_per_s, "/s"),
            Row::quantity("connects per second", self.connects_per_s, "/s"),
        ];
        rows.extend(self.cycle.rows("cycle"));
        rows.push(Row::count("exchanges broken off", self.exchanges_broken_off, ""));
        rows.push(Row::count("errors", self.errors, ""));
        rows.extend(self.server_cpu_us_per_cycle.map(|us| Row::quantity("server CPU per cycle", us, "µs")));
        rows.extend(
            self.server_messages_per_cpu_s.map(|n| Row::quantity("messages per CPU second", n, "/s")),
        );
        rows.extend(self.hosts.rows());
        rows
    }

    fn warnings(&self) -> Vec<String> {
        let across = if self.is_across { ": partners on different hosts do not find each other" } else { "" };
        let nothing = (self.cycles == 0.0).then(|| format!("not one cycle was completed{across}"));
        nothing.into_iter().collect()
    }

    fn exit_code(&self) -> u8 {
        u8::from(self.cycles == 0.0 || self.errors > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::HostSpent;

    #[test]
    fn two_clients_make_a_cycle() {
        let options = Options {
            url: String::new(),
            spread: None,
            dialect: Dialect::Pairing,
            clients: 1,
            duration_s: 2.0,
            common: CommonArgs::default(),
        };
        let tally = Tally { client_cycles: 20, messages: 220, ..Tally::default() };
        let servers = Servers::example(1);
        let spent = Spent { hosts: vec![HostSpent { cpu_ns: Some(1_000_000_000), counts: None }] };
        let figures = ChurnFigures::new(&options, &servers, &[tally], &spent);
        assert_eq!((figures.cycles, figures.cycles_per_s, figures.connects_per_s), (10.0, 5.0, 10.0));
        assert_eq!(figures.server_cpu_us_per_cycle, Some(100_000.0));
        assert_eq!(figures.server_messages_per_cpu_s, Some(220.0));
    }
}
