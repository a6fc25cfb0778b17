//! `churn`: pairs connect, exchange one set of messages, and leave, again and again.
//!
//! A cycle of a client: connect, `ready`, `available`, `matched`; an offer or an answer and ten candidates each way;
//! `leave` and a WebSocket close that the server answers. A client whose partner goes before the set is complete (it
//! was put back in the queue and matched with one on its way out) begins the exchange anew with the next partner.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::fleet::{self, Live};
use super::run::{per_second, rate_limit_warning, ratio};
use super::stage::{Phase, Stage};
use crate::client::{Connection, Ending};
use crate::failure::Failure;
use crate::latency::{Latency, Quantiles};
use crate::net::target::Target;
use crate::options::{CommonArgs, ScenarioArgs};
use crate::pairing::{AVAILABLE, Event, LEAVE};
use crate::payload::{ICE_PER_SET, PayloadKind, Role, Script, Stamp};
use crate::process::CpuReading;
use crate::report::{self, Figures, Row};

const PAIRS_DEFAULT: usize = 50;
/// Messages of a set: a session description and its candidates.
const SET: usize = 1 + ICE_PER_SET;

#[derive(Serialize)]
struct Options {
    url: String,
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
    let target = options.target()?;
    let read = Options {
        url: target.url.to_string(),
        clients: options.clients.unwrap_or(PAIRS_DEFAULT),
        duration_s: options.traffic.duration().as_secs_f64(),
        common: options.common.clone(),
    };
    let stage = Arc::new(Stage::new());
    let work = async |thread, stage| work(&read, &target, thread, stage).await;
    let direct = |stage: &Stage| direct(&read, options.pid, stage);
    let (cpu_ns, tallies) = fleet::run(read.common.threads, options.common.io_driver, &stage, work, direct)?;
    let figures = ChurnFigures::new(&read, &tallies, cpu_ns);
    report::publish("churn", &read, &figures, options.common.json.as_deref())
}

/// The directing thread; returns the CPU time of the server.
fn direct(options: &Options, pid: Option<u32>, stage: &Stage) -> Result<Option<u64>, Failure> {
    let before = pid.map(CpuReading::of).transpose()?;
    let (start_ns, duration_ns) = (stage.now_ns(), (options.duration_s * 1e9) as u64);
    stage.measure(start_ns, start_ns + duration_ns);
    stage.wait("churning", start_ns + duration_ns)?;
    let after = pid.map(CpuReading::of).transpose()?;
    Ok(before.zip(after).map(|(before, after)| after.ns_since(&before)))
}

/// A thread with clients.
async fn work(options: &Options, target: &Target, thread: usize, stage: Arc<Stage>) -> Tally {
    let Ok(script) = Script::new(PayloadKind::Mixed) else { return Tally::default() };
    let shared = Rc::new(Shared {
        stage: Arc::clone(&stage),
        target: target.clone(),
        script,
        tally: RefCell::default(),
        connections: RefCell::new(Vec::new()),
        live: Live::default(),
    });
    for (place, index) in fleet::share(options.clients * 2, thread, options.common.threads).enumerate() {
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

/// What the clients of a thread share.
#[derive(Debug)]
struct Shared {
    stage: Arc<Stage>,
    target: Target,
    script: Script,
    tally: RefCell<Tally>,
    connections: RefCell<Vec<Option<Rc<Connection>>>>,
    live: Live,
}

impl Shared {
    /// One cycle after the other.
    async fn cycles(self: &Rc<Self>, place: usize, index: usize) -> Result<(), Failure> {
        while !self.stage.reached(Phase::Stopped) {
            let start = Instant::now();
            let connection = Connection::open(&self.target, index).await?;
            if self.stage.reached(Phase::Stopped) {
                break;
            }
            self.connections.borrow_mut()[place] = Some(Rc::clone(&connection));
            let cycle = Cycle::new(&connection, self);
            let ending = connection.serve(|message| cycle.on_message(message)).await;
            self.connections.borrow_mut()[place] = None;
            if self.stage.reached(Phase::Stopped) {
                break;
            }
            if !cycle.is_complete() || !matches!(ending, Ending::Closed(1000, _)) {
                return Err(Failure::Server(format!(
                    "a connection ended in the middle of its cycle: {ending:?}"
                )));
            }
            self.completed(start);
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
struct Cycle<'a> {
    connection: &'a Connection,
    shared: &'a Shared,
    id: RefCell<String>,
    role: Cell<Option<Role>>,
    sent: Cell<bool>,
    arrived: Cell<usize>,
}

impl<'a> Cycle<'a> {
    fn new(connection: &'a Connection, shared: &'a Shared) -> Self {
        Self {
            connection,
            shared,
            id: RefCell::default(),
            role: Cell::new(None),
            sent: Cell::new(false),
            arrived: Cell::new(0),
        }
    }

    fn is_complete(&self) -> bool {
        self.sent.get() && self.arrived.get() == SET
    }

    fn on_message(&self, message: &[u8]) {
        if self.is_complete() {
            return;
        }
        match Event::parse(message) {
            Event::Ready { client_id } => {
                self.id.replace(client_id.into_owned());
                self.connection.send(AVAILABLE);
            }
            Event::Matched { partner_id, .. } => self.on_matched(&partner_id),
            Event::Relay => self.on_relay(),
            Event::PartnerLeft => self.on_partner_left(),
            Event::Error { code } => self.on_error(&code),
            Event::Pong => {}
            Event::Unknown => self.shared.tally.borrow_mut().errors += 1,
        }
    }

    /// The caller begins; the callee answers the offer.
    fn on_matched(&self, partner_id: &str) {
        let role = Role::of(&self.id.borrow(), partner_id);
        self.role.set(Some(role));
        self.sent.set(false);
        self.arrived.set(0);
        if role == Role::Caller {
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
            self.connection.send(LEAVE);
            self.connection.close(1000);
        }
    }

    fn on_partner_left(&self) {
        self.role.set(None);
        self.sent.set(false);
        self.arrived.set(0);
        self.shared.tally.borrow_mut().broken_off += 1;
        self.connection.send(AVAILABLE);
    }

    fn on_error(&self, code: &str) {
        let mut tally = self.shared.tally.borrow_mut();
        match code {
            "RATE_LIMIT" => {
                tally.rate_limited += 1;
                self.shared.stage.fail(Failure::RateLimited(rate_limit_warning(tally.rate_limited)));
            }
            // Both are right when the partner leaves while something is on its way.
            "NOT_PAIRED" | "ALREADY_PAIRED" => {}
            _ => tally.errors += 1,
        }
    }

    fn send_set(&self, role: Role) {
        self.sent.set(true);
        let time_ns = self.shared.stage.now_ns();
        for step in 0..SET {
            let template = self.shared.script.at(role, step);
            let stamp = Stamp { sender: 0, sequence: step as u32, time_ns };
            self.connection.send_edited(&template.message, |copy| template.put(stamp, copy));
        }
    }
}

impl ChurnFigures {
    fn new(options: &Options, tallies: &[Tally], cpu_ns: Option<u64>) -> Self {
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
        rows
    }

    fn warnings(&self) -> Vec<String> {
        let nothing = (self.cycles == 0.0).then(|| "not one cycle was completed".to_owned());
        nothing.into_iter().collect()
    }

    fn exit_code(&self) -> u8 {
        u8::from(self.cycles == 0.0 || self.errors > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clients_make_a_cycle() {
        let options =
            Options { url: String::new(), clients: 1, duration_s: 2.0, common: CommonArgs::default() };
        let tally = Tally { client_cycles: 20, messages: 220, ..Tally::default() };
        let figures = ChurnFigures::new(&options, &[tally], Some(1_000_000_000));
        assert_eq!((figures.cycles, figures.cycles_per_s, figures.connects_per_s), (10.0, 5.0, 10.0));
        assert_eq!(figures.server_cpu_us_per_cycle, Some(100_000.0));
        assert_eq!(figures.server_messages_per_cpu_s, Some(220.0));
    }
}
