//! The verification of pipes (protocols.md section 5): byte streams between two ends, WebSocket or raw.
//!
//! A pair opens one pipe after the other, each under names of its own. Both ends send what follows from who they are; a
//! WebSocket end that has sent all and got all closes, a raw one finishes its stream. On the way readers stall, ends drop
//! out, a held end is replaced by another, and a third one comes that must be held anew.

mod checker;
mod end;
mod plan;
mod session;
#[cfg(test)]
mod tests;
mod verdict;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use self::end::PipeEnd;
use self::verdict::Leaving;
use super::hosts::Hosts;
use super::judge::Count;
use super::{DROP_STEP, Options, VerifyFigures};
use crate::failure::Failure;
use crate::net::spread::Targets;
use crate::options::PipeMode;
use crate::prng::Prng;
use crate::scenarios::fleet::{self, Live};
use crate::scenarios::stage::{Phase, Stage};
use crate::servers::{Servers, Spent};

/// How long pipes that are open may take to come to their end.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// What the pairs of a thread count.
#[derive(Debug, Default)]
struct Tally {
    pipes: u64,
    raw_pipes: u64,
    messages: u64,
    bytes: u64,
    replaced: u64,
    held_anew: u64,
    /// Pipes of which an end died with its host.
    lost: u64,
    /// Pipes under the names of those, on hosts that live.
    again: u64,
    leavings: BTreeMap<Leaving, u64>,
}

/// What the pairs of a thread share.
struct Shared {
    stage: Arc<Stage>,
    targets: Targets,
    hosts: Arc<Hosts>,
    /// What the ends are; none: now this, now that.
    mode: Option<PipeMode>,
    chance: Rc<Prng>,
    tally: RefCell<Tally>,
    /// The ends that are open.
    ends: RefCell<Vec<Rc<PipeEnd>>>,
    live: Live,
}

/// Verifies pipes.
pub(super) fn verify(
    options: &Options,
    servers: &Servers,
    may_die: &[bool],
) -> Result<VerifyFigures, Failure> {
    let stage = Arc::new(Stage::new());
    let hosts = Arc::new(Hosts::new(may_die, options.told_within()));
    let work = async |thread, stage| work(options, (&servers.targets, &hosts), thread, stage).await;
    let direct = |stage: &Stage| direct(options, servers, &hosts, stage);
    let (spent, tallies) =
        fleet::run(options.common.threads, options.common.io_driver, &stage, work, direct)?;
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum();
    let after_deaths: [Count; 2] = [
        ("pipes_lost", "pipes lost with a host that died", sum(|tally| tally.lost)),
        ("pipes_again", "pipes of the same names after that", sum(|tally| tally.again)),
    ];
    let after_deaths = after_deaths.into_iter().filter(|_| hosts.may_any_die());
    let counts = counts(&tallies).into_iter().chain(after_deaths).chain(super::deaths(&hosts));
    Ok(VerifyFigures::new(options, servers, counts.collect(), &spent))
}

/// The directing thread; returns what the servers spent.
fn direct(options: &Options, servers: &Servers, hosts: &Hosts, stage: &Stage) -> Result<Spent, Failure> {
    let before = servers.read()?;
    stage.advance(Phase::Traffic);
    let look = || {
        super::await_dead_hosts(servers, hosts);
        Ok(())
    };
    stage.wait_and_look("verifying", stage.now_ns() + (options.duration_s * 1e9) as u64, look)?;
    let spent = super::spent(servers, hosts, &before)?;
    stage.advance(Phase::Draining);
    // The pipes that are open come to their end. Each thread says when its last one has.
    let until = Instant::now() + DRAIN_MAX;
    while stage.ready.load(Ordering::Relaxed) < options.common.threads && Instant::now() < until {
        stage.check()?;
        std::thread::sleep(fleet::STEP);
    }
    stage.check()?;
    Ok(spent)
}

/// A thread with pairs.
async fn work(
    options: &Options,
    (targets, hosts): (&Targets, &Arc<Hosts>),
    thread: usize,
    stage: Arc<Stage>,
) -> Tally {
    let shared = Rc::new(Shared {
        stage: Arc::clone(&stage),
        targets: targets.clone(),
        hosts: Arc::clone(hosts),
        mode: options.mode,
        chance: Rc::new(Prng::from_entropy()),
        tally: RefCell::default(),
        ends: RefCell::default(),
        live: Live::default(),
    });
    for pair in fleet::share(options.pairs, thread, options.common.threads) {
        shared.live.enter();
        let shared = Rc::clone(&shared);
        monoio::spawn(async move {
            if let Err(failure) = session::one_after_the_other(&shared, pair).await {
                shared.stage.fail(failure);
            }
            shared.live.leave();
        });
    }
    drop_at_random(options.drop_rate_per_s, &shared).await;
    while shared.live.count() > 0 && !stage.reached(Phase::Stopped) {
        monoio::time::sleep(fleet::STEP).await;
    }
    stage.ready.fetch_add(1, Ordering::Relaxed);
    while !stage.reached(Phase::Stopped) {
        monoio::time::sleep(fleet::STEP).await;
    }
    shared.ends.borrow().iter().for_each(|end| end.give_up());
    shared.live.drained(std::iter::empty()).await;
    shared.tally.take()
}

/// Lets ends leave, each with the same probability per second, while there is traffic.
async fn drop_at_random(rate_per_s: f64, shared: &Shared) {
    let mut last = Instant::now();
    while !shared.stage.reached(Phase::Draining) {
        monoio::time::sleep(DROP_STEP).await;
        let probability = last.elapsed().as_secs_f64() * rate_per_s;
        last = Instant::now();
        let chosen: Vec<_> =
            shared.ends.borrow().iter().filter(|_| shared.chance.chance(probability)).cloned().collect();
        for end in chosen {
            let leaving = Leaving::ALL[shared.chance.below(Leaving::ALL.len() as u32) as usize];
            if end.leave(leaving) {
                *shared.tally.borrow_mut().leavings.entry(leaving).or_default() += 1;
            }
        }
    }
}

fn counts(tallies: &[Tally]) -> Vec<Count> {
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    let mut counts = vec![
        ("bytes", "bytes", sum(|tally| tally.bytes)),
        ("messages", "messages", sum(|tally| tally.messages)),
        ("pipes", "pipes", sum(|tally| tally.pipes)),
        ("pipes_raw", "raw pipes among them", sum(|tally| tally.raw_pipes)),
        ("ends_replaced", "held ends replaced", sum(|tally| tally.replaced)),
        ("ends_held_anew", "ends held beside a pipe", sum(|tally| tally.held_anew)),
    ];
    counts.extend(Leaving::ALL.iter().map(|leaving| {
        let (key, what) = leaving.names();
        (key, what, tallies.iter().filter_map(|tally| tally.leavings.get(leaving)).sum())
    }));
    counts
}
