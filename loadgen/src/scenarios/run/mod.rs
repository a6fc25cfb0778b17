//! `relay`: the clients of a group relay messages; how many, how late, and what they cost the server.

mod budget;
mod client;
mod figures;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use self::client::{Client, Shared};
pub(crate) use self::figures::{RunFigures, is_rate_limit, per_second, rate_limit_warning, ratio};
use self::figures::{ServerCost, Tally};
use super::fleet::{self, Live};
use super::stage::{Phase, Stage};
use super::window::Window;
use crate::dialects::{Dialect, Group, Seat};
use crate::failure::Failure;
use crate::net::runtime::DriverChoice;
use crate::net::target::Target;
use crate::net::ticker::Ticker;
use crate::options::{CommonArgs, ScenarioArgs, Traffic};
use crate::payload::Script;
use crate::process;
use crate::report;

/// How often the open loop looks which messages are due.
const PACE: Duration = Duration::from_micros(50);
/// How long messages of the measured interval may still arrive in the open loop.
const LATE_ARRIVALS: Duration = Duration::from_secs(1);

/// Everything one run needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// What the clients speak.
    pub(crate) dialect: Dialect,
    /// Where to.
    pub(crate) target: Target,
    /// Process of the server.
    pub(crate) pid: Option<u32>,
    /// What is sent.
    pub(crate) traffic: Traffic,
    /// Threads of the generator.
    pub(crate) threads: usize,
    /// Their driver.
    pub(crate) driver: DriverChoice,
}

#[derive(Serialize)]
struct Options<'a> {
    url: String,
    dialect: Dialect,
    #[serde(flatten)]
    traffic: &'a Traffic,
    #[serde(flatten)]
    common: &'a CommonArgs,
}

/// Runs the scenario once and reports it.
pub(crate) fn run(options: &ScenarioArgs) -> Result<u8, Failure> {
    let plan = Plan {
        dialect: options.dialect,
        target: options.target()?,
        pid: options.pid,
        traffic: options.traffic.resolve(),
        threads: options.common.threads,
        driver: options.common.io_driver,
    };
    let figures = measure(&plan)?;
    let options_read = Options {
        url: plan.target.url.to_string(),
        dialect: plan.dialect,
        traffic: &plan.traffic,
        common: &options.common,
    };
    report::publish(plan.dialect.name(), &options_read, &figures, options.common.json.as_deref())
}

/// Runs the scenario once.
pub(crate) fn measure(plan: &Plan) -> Result<RunFigures, Failure> {
    Script::new(plan.traffic.payload, plan.dialect).map_err(Failure::Options)?;
    plan.refuse_what_the_dialect_forbids()?;
    Seat::begin_round();
    let stage = Arc::new(Stage::new());
    let work = async |thread, stage| work(plan, thread, stage).await;
    let ((cost, busy_ns), tallies) =
        fleet::run(plan.threads, plan.driver, &stage, work, |stage| direct(plan, stage))?;
    let mut total = Tally::new();
    tallies.iter().for_each(|tally| total.add(tally));
    Ok(RunFigures::new(plan, &total, &cost, busy_ns))
}

impl Plan {
    fn clients(&self) -> usize {
        self.traffic.pairs * self.traffic.members
    }

    fn refuse_what_the_dialect_forbids(&self) -> Result<(), Failure> {
        let (rate, limit) = (self.traffic.rate_per_s, self.dialect.fixed_limit_per_s());
        let problem = match (rate.map(|rate| rate / self.clients() as f64), limit) {
            (Some(rate), Some(limit)) if rate * 2.0 > f64::from(limit) => {
                format!(
                    "{rate:.0} messages a second and client: the limit is {limit}, at half of it all is well"
                )
            }
            _ if self.traffic.members != 2 && self.dialect != Dialect::Rooms => {
                "only rooms have more than two members".to_owned()
            }
            _ if self.dialect == Dialect::Pipes => "pipes are loaded by the scenario `pipe`".to_owned(),
            _ => return Ok(()),
        };
        Err(Failure::Options(problem))
    }
}

/// The directing thread: gathers clients, lets them send, and reads the server's costs over the measured interval.
fn direct(plan: &Plan, stage: &Stage) -> Result<(ServerCost, u64), Failure> {
    let clients = plan.clients();
    let memory = || plan.pid.map(process::memory_bytes).transpose();
    let memory_before = memory()?;
    stage.gather("connected", &stage.ready, clients)?;
    stage.gather("paired", &stage.paired, clients)?;
    let memory_after = memory()?;
    stage.advance(Phase::Traffic);
    let window = Window::measure(stage, plan.pid, plan.traffic.warmup, plan.traffic.duration)?;
    if plan.traffic.rate_per_s.is_some() {
        stage.advance(Phase::Draining);
        stage.settle(LATE_ARRIVALS / 4, LATE_ARRIVALS)?;
    }
    let cost = ServerCost {
        cpu_ns: window.server_cpu_ns,
        bytes_per_client: memory_before
            .zip(memory_after)
            .map(|(before, after)| process::bytes_per(clients, before, after)),
    };
    Ok((cost, window.own_cpu_ns_per_s))
}

/// A thread with clients.
async fn work(plan: &Plan, thread: usize, stage: Arc<Stage>) -> Tally {
    let members = plan.traffic.members;
    let indices = fleet::share_groups(plan.traffic.pairs, members, thread, plan.threads);
    let share = indices.len() as f64 / plan.clients() as f64;
    let Ok(script) = Script::new(plan.traffic.payload, plan.dialect) else { return Tally::new() };
    let shared = Rc::new(Shared::new(Arc::clone(&stage), plan.dialect, script, plan.traffic.in_flight));
    let live = Rc::new(Live::default());
    let target = Rc::new(plan.target.clone());
    let groups: HashMap<usize, Rc<Group>> =
        indices.clone().map(|index| (index / members, Rc::default())).collect();
    let on_open = {
        let (shared, live) = (Rc::clone(&shared), Rc::clone(&live));
        move |index: usize, connection| {
            let seat = Seat::of(index, members);
            let client =
                Client::new(index as u32, seat, connection, &groups[&seat.group], Rc::clone(&shared));
            shared.clients.borrow_mut().push(Rc::clone(&client));
            live.enter();
            let live = Rc::clone(&live);
            monoio::spawn(async move {
                client.serve().await;
                live.leave();
            });
        }
    };
    let path = {
        let (dialect, given) = (plan.dialect, plan.target.url.path.clone());
        move |index| dialect.path(&Seat::of(index, members), &given)
    };
    fleet::open_all(&stage, &target, indices, path, on_open).await;
    while !stage.reached(Phase::Traffic) {
        monoio::time::sleep(fleet::STEP).await;
    }
    let clients = shared.clients.borrow().clone();
    match plan.traffic.rate_per_s {
        Some(rate) => pace(&shared, &clients, rate * share).await,
        None => clients.iter().for_each(|client| client.start()),
    }
    while !stage.reached(Phase::Stopped) {
        monoio::time::sleep(fleet::STEP).await;
        if plan.dialect.fixed_limit_per_s().is_some() {
            clients.iter().for_each(|client| client.pay());
        }
    }
    clients.iter().for_each(|client| client.leave());
    live.drained(clients.iter().map(|client| client.connection())).await;
    shared.tally.take()
}

/// The open loop: message number n is due at n / rate, and goes to the next client that has a partner.
async fn pace(shared: &Rc<Shared>, clients: &[Rc<Client>], rate: f64) {
    let Ok(ticker) = Ticker::every(PACE) else {
        shared.stage.fail(Failure::System("no timer".to_owned()));
        return;
    };
    let (start_ns, step_ns) = (shared.stage.now_ns(), 1e9 / rate);
    let (mut count, mut turn) = (0u64, 0);
    while !shared.stage.reached(Phase::Draining) && !clients.is_empty() {
        let now_ns = shared.stage.now_ns();
        let mut touched = Vec::new();
        loop {
            let due_ns = start_ns + (count as f64 * step_ns) as u64;
            if due_ns > now_ns {
                break;
            }
            count += 1;
            let client = &clients[turn % clients.len()];
            turn += 1;
            shared.send_due(client, due_ns, now_ns);
            touched.push(client);
        }
        touched.iter().for_each(|client| client.connection().flush());
        if ticker.tick().await.is_err() {
            break;
        }
    }
}
