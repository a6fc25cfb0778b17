//! `relay`: the clients of a group relay messages; how many, how late, and what they cost the server.

mod budget;
mod client;
mod figures;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
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
use crate::net::spread::Spread;
use crate::net::target::Target;
use crate::net::ticker::Ticker;
use crate::options::{CommonArgs, ScenarioArgs, Traffic};
use crate::payload::Script;
use crate::process;
use crate::report;
use crate::servers::Servers;

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
    pub(crate) servers: Servers,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    spread: Option<Spread>,
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
        servers: options.servers()?,
        traffic: options.traffic.resolve(),
        threads: options.common.threads,
        driver: options.common.io_driver,
    };
    plan.servers.await_relations()?;
    let figures = measure(&plan)?;
    let options_read = Options {
        url: plan.servers.urls(),
        spread: plan.servers.targets.placing().spread(),
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
    let (cost, tallies) = fleet::run(plan.threads, plan.driver, &stage, work, |stage| direct(plan, stage))?;
    let mut total = Tally::new();
    tallies.iter().for_each(|tally| total.add(tally));
    Ok(RunFigures::new(plan, &total, &cost))
}

impl Plan {
    fn clients(&self) -> usize {
        self.traffic.pairs * self.traffic.members
    }

    /// Whether one pair after the other goes into the queue: the server would choose partners on one host.
    fn takes_turns(&self) -> bool {
        self.dialect == Dialect::Pairing && self.servers.targets.placing().hosts() > 1
    }

    /// Whether it is the turn of a group to look for partners.
    fn is_turn_of(&self, group: usize, stage: &Stage) -> bool {
        let (ready, paired) = (stage.ready.load(Ordering::Relaxed), stage.paired.load(Ordering::Relaxed));
        ready >= self.clients() && paired >= group * self.traffic.members
    }

    fn explain(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Server(text) if self.servers.targets.placing().is_across() => Failure::Server(format!(
                "{text}: partners on different hosts do not find each other (--spread same puts them on one)"
            )),
            other => other,
        }
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

/// The directing thread: gathers clients, lets them send, and reads the servers' costs over the measured interval.
fn direct(plan: &Plan, stage: &Stage) -> Result<ServerCost, Failure> {
    let clients = plan.clients();
    let servers = &plan.servers;
    let memory_before = servers.memory(process::memory_bytes)?;
    let counts_before = servers.read()?;
    stage.gather("connected", &stage.ready, clients)?;
    stage.gather("paired", &stage.paired, clients).map_err(|failure| plan.explain(failure))?;
    let gathering = counts_before.until(&servers.read()?);
    let memory_after = servers.memory(process::memory_bytes)?;
    stage.advance(Phase::Traffic);
    let window = Window::measure(stage, servers, plan.traffic.warmup, plan.traffic.duration)?;
    if plan.traffic.rate_per_s.is_some() {
        stage.advance(Phase::Draining);
        stage.settle(LATE_ARRIVALS / 4, LATE_ARRIVALS)?;
    }
    let memory = memory_before.zip(memory_after);
    Ok(ServerCost { window, gathering, memory })
}

/// A thread with clients.
async fn work(plan: &Plan, thread: usize, stage: Arc<Stage>) -> Tally {
    let members = plan.traffic.members;
    let indices = fleet::share_groups(plan.traffic.pairs, members, thread, plan.threads);
    let share = indices.len() as f64 / plan.clients() as f64;
    let Ok(script) = Script::new(plan.traffic.payload, plan.dialect) else { return Tally::new() };
    let shared = Rc::new(Shared::new(Arc::clone(&stage), plan, script));
    let live = Rc::new(Live::default());
    let targets = Rc::new(plan.servers.targets.clone());
    let groups: BTreeMap<usize, Rc<Group>> =
        indices.clone().map(|index| (index / members, Rc::default())).collect();
    let on_open = {
        let (shared, live, groups) = (Rc::clone(&shared), Rc::clone(&live), groups.clone());
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
    let dialect = plan.dialect;
    let path = move |index, target: &Target| dialect.path(&Seat::of(index, members), &target.url.path);
    fleet::open_all(&stage, (&targets, members), indices, path, on_open).await;
    let mut waiting = groups.iter().peekable();
    while !stage.reached(Phase::Traffic) {
        let is_next = |(group, _): &(&usize, _)| plan.takes_turns() && plan.is_turn_of(**group, &stage);
        if let Some((_, group)) = waiting.next_if(is_next) {
            group.tell();
        }
        monoio::time::sleep(fleet::STEP / 5).await;
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
