//! A server: cores on threads, joined by mailboxes, from start to stop.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use rand::TryRng;
use rand::rngs::SysRng;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::cluster;
use crate::config::Config;
use crate::http::Overview;
use crate::id::{Entropy, HostId, RoomId, ShardIndex};
use crate::limits::mail_ring_entries;
use crate::mailbox::{Mailbox, Waker, mailboxes};
use crate::metrics::{ClusterMetrics, Counters};
use crate::net::core::{Letter, Parts};
use crate::net::driver::{Choice, Decision, Driver, Runtime, decide};
use crate::net::listen;
use crate::plant::Planted;
use crate::protocol::pipe::Places;
use crate::redis::{Ending, Endpoints};
use crate::shard::route;
use crate::shard::{Settings, Shard};

/// Stops a running server; any thread may.
#[derive(Clone)]
pub struct Stopper {
    stopping: Arc<AtomicBool>,
    wakers: Vec<Waker>,
}

impl std::fmt::Debug for Stopper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stopper").field("stopping", &self.stopping).finish_non_exhaustive()
    }
}

impl Stopper {
    /// Begins the shutdown: no more connections, every client is closed 1001. Doing it again changes nothing.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wakers.iter().for_each(Waker::wake);
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    private_address: Option<SocketAddr>,
    decision: Decision,
    stopper: Stopper,
    counters: Vec<Arc<Counters>>,
    threads: Vec<JoinHandle<()>>,
    /// The thread that speaks to Redis, if there is one.
    cluster: Option<Outpost>,
}

impl Server {
    /// Starts a server; when this returns, connections are accepted.
    ///
    /// # Errors
    /// The address is in use or names nothing, io_uring was asked for and does not work, or the system has no more
    /// threads or files.
    pub fn start(config: &Config) -> io::Result<Self> {
        Self::start_planted(config, Planted::default())
    }

    /// Starts a server with a bug in it, for tests.
    ///
    /// # Errors
    /// Those of [`Server::start`].
    pub fn start_planted(config: &Config, planted: Planted) -> io::Result<Self> {
        let shards = shard_count(config)?;
        let (crew, decision) = Crew::hire(config, shards)?;
        let (address, listeners) = bind(config.addresses()?, shards)?;
        let mut private = bind_private(config);
        let endpoints = config.redis();
        let participants = shards + usize::from(endpoints.is_some());
        let mut mailboxes = mailboxes::<Letter>(participants, mail_ring_entries(participants))?;
        let settings = Arc::new(settings(config, shards, planted)?);
        let stopper =
            Stopper { stopping: Arc::default(), wakers: mailboxes.iter().map(Mailbox::waker).collect() };
        let counters: Vec<Arc<Counters>> = (0..shards).map(|_| Arc::default()).collect();
        let started = Instant::now();
        let cluster = match (endpoints, mailboxes.split_off(shards).pop()) {
            (Some(endpoints), Some(mailbox)) => {
                let ending = ending(&stopper, config);
                Some(Outpost::start(endpoints, &settings, mailbox, ending, started, config)?)
            }
            _ => None,
        };
        let overview = Arc::new(Overview {
            counters: counters.clone(),
            cluster: cluster.as_ref().map(|cluster| Arc::clone(&cluster.metrics)),
            started,
            instance_id: instance_id(config)?,
            decision: decision.clone(),
            paths: route::paths(&settings),
            has_private_port: private.is_some(),
            draining: Arc::clone(&stopper.stopping),
        });
        let mut parts = Vec::new();
        for (index, (mailbox, listener)) in mailboxes.into_iter().zip(listeners).enumerate() {
            let (here, counters) = (ShardIndex(index as u8), Arc::clone(&counters[index]));
            parts.push(Parts {
                driver: decision.driver,
                shard: Shard::new(here, Arc::clone(&settings), counters, random_seed()?, 0),
                mailbox,
                shards,
                listener,
                private_listener: private.as_mut().and_then(|(_, listeners)| listeners.pop()),
                splice: config.pipe_splice,
                overview: Arc::clone(&overview),
                stopping: Arc::clone(&stopper.stopping),
                shutdown_grace: config.shutdown_grace(),
                started: overview.started,
            });
        }
        let private_address = private.map(|(address, _)| address);
        let threads = crew.start(parts);
        Ok(Self { address, private_address, decision, stopper, counters, threads, cluster })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where `HTTP_PORT` listens, if it is set.
    #[must_use]
    pub fn private_address(&self) -> Option<SocketAddr> {
        self.private_address
    }

    /// The driver, and why it is not a better one.
    #[must_use]
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    /// How many shards it has.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.threads.len()
    }

    /// The numbers of each shard.
    #[must_use]
    pub fn counters(&self) -> &[Arc<Counters>] {
        &self.counters
    }

    /// What stops it.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Waits until it has stopped. Says whether all cores came to an end in order.
    #[must_use]
    pub fn wait(self) -> bool {
        let results: Vec<_> = self.threads.into_iter().map(JoinHandle::join).collect();
        let cluster = self.cluster.map(|cluster| cluster.wait(&self.stopper));
        results.iter().chain(&cluster).all(Result::is_ok)
    }
}

/// The thread that speaks to Redis. It outlives the shards, whose last words it passes on.
#[derive(Debug)]
struct Outpost {
    thread: JoinHandle<()>,
    shards_ended: Arc<AtomicBool>,
    metrics: Arc<ClusterMetrics>,
}

impl Outpost {
    fn start(
        endpoints: Endpoints,
        settings: &Settings,
        mailbox: Mailbox<Letter>,
        ending: Ending,
        started: Instant,
        config: &Config,
    ) -> io::Result<Self> {
        let metrics: Arc<ClusterMetrics> = Arc::default();
        let shards_ended = Arc::clone(&ending.shards_ended);
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let parts = crate::redis::Parts {
            endpoints,
            settings: cluster::Settings {
                host: settings.host,
                start: unix.as_millis() as u64,
                shards: settings.shards,
                has_public_layouts: config.redis_public_layouts,
                seed: random_seed()?,
                planted: settings.planted,
            },
            mailbox,
            metrics: Arc::clone(&metrics),
            ending,
            started,
            seeds: [random_seed()?, random_seed()?],
        };
        let thread =
            std::thread::Builder::new().name("cluster".into()).spawn(move || crate::redis::run(parts))?;
        Ok(Self { thread, shards_ended, metrics })
    }

    /// Waits until all is said.
    fn wait(self, stopper: &Stopper) -> std::thread::Result<()> {
        self.shards_ended.store(true, Ordering::Release);
        stopper.wakers.iter().for_each(Waker::wake);
        self.thread.join()
    }
}

fn ending(stopper: &Stopper, config: &Config) -> Ending {
    Ending {
        stopping: Arc::clone(&stopper.stopping),
        shards_ended: Arc::default(),
        grace: config.shutdown_grace(),
    }
}

/// Threads that have a runtime and wait for the parts of their cores.
struct Crew(Vec<(Sender<Parts>, JoinHandle<()>)>);

impl Crew {
    /// Starts the threads with the best driver that works for all: one core that cannot have a ring means that none
    /// has.
    fn hire(config: &Config, shards: usize) -> io::Result<(Self, Decision)> {
        let decision = decide(config.io_driver, config.ring_entries)?;
        match Self::hire_with(decision.driver, config.ring_entries, shards) {
            Ok(crew) => Ok((crew, decision)),
            Err(error) if config.io_driver == Choice::Auto && decision.driver != Driver::Epoll => {
                let reason = format!("no ring for each of {shards} shards: {error}");
                let crew = Self::hire_with(Driver::Epoll, config.ring_entries, shards)?;
                Ok((crew, Decision { driver: Driver::Epoll, reason }))
            }
            Err(error) => Err(error),
        }
    }

    fn hire_with(driver: Driver, entries: u32, shards: usize) -> io::Result<Self> {
        let cpus = allowed_cpus();
        let (ready, readiness) = channel();
        let mut crew = Vec::new();
        for index in 0..shards {
            let (sender, parts) = channel();
            let ready = ready.clone();
            let cpu = cpus.get(index % cpus.len().max(1)).copied();
            let thread = std::thread::Builder::new()
                .name(format!("shard-{index}"))
                .spawn(move || work(driver, entries, cpu, ready, &parts))?;
            crew.push((sender, thread));
        }
        drop(ready);
        // A thread that died without a word counts as one that failed.
        let built: Vec<io::Result<()>> = readiness.iter().collect();
        let all = built.len() == shards;
        built.into_iter().collect::<io::Result<()>>()?;
        if all { Ok(Self(crew)) } else { Err(io::Error::other("a core did not start")) }
    }

    fn start(self, parts: Vec<Parts>) -> Vec<JoinHandle<()>> {
        let start = |((sender, thread), parts): ((Sender<Parts>, JoinHandle<()>), Parts)| {
            // A thread that is gone is found when it is waited for.
            let _ = sender.send(parts);
            thread
        };
        self.0.into_iter().zip(parts).map(start).collect()
    }
}

/// One core's thread.
fn work(
    driver: Driver,
    entries: u32,
    cpu: Option<usize>,
    ready: Sender<io::Result<()>>,
    parts: &Receiver<Parts>,
) {
    if let Some(cpu) = cpu {
        let mut set = CpuSet::new();
        set.set(cpu);
        if let Err(error) = sched_setaffinity(None, &set) {
            tracing::warn!("a shard cannot be pinned to core {cpu}: {error}");
        }
    }
    let built = Runtime::build(driver, entries);
    let (runtime, said) = match built {
        Ok(runtime) => (Some(runtime), Ok(())),
        Err(error) => (None, Err(error)),
    };
    // Nobody listens any more only where another core has failed; then no parts come either.
    let _ = ready.send(said);
    drop(ready);
    if let (Some(runtime), Ok(parts)) = (runtime, parts.recv()) {
        runtime.run(parts);
    }
}

/// The cores that this process may use; what a cgroup's quota allows is counted by the standard library.
fn shard_count(config: &Config) -> io::Result<usize> {
    match config.shards {
        Some(shards) => Ok(usize::from(shards)),
        None => Ok(std::thread::available_parallelism()?.get().min(crate::limits::SHARDS_MAX)),
    }
}

fn allowed_cpus() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
}

/// Binds a listener for each shard to the first address that the system has.
fn bind(addresses: Vec<SocketAddr>, shards: usize) -> io::Result<(SocketAddr, Vec<OwnedFd>)> {
    let mut last_error = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in addresses {
        match listen(address, shards) {
            Ok(bound) => return Ok(bound),
            Err(error) => {
                last_error = io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
            }
        }
    }
    Err(last_error)
}

/// Binds `HTTP_PORT`. If that does not work the server starts without it: what the operators of the originals have set
/// must never stop the start (protocols.md section 0, environment).
fn bind_private(config: &Config) -> Option<(SocketAddr, Vec<OwnedFd>)> {
    let bound = config.addresses_with(config.http_port?).and_then(|addresses| bind(addresses, 1));
    bound.inspect_err(|error| tracing::warn!("HTTP_PORT is left out: {error}")).ok()
}

fn settings(config: &Config, shards: usize, planted: Planted) -> io::Result<Settings> {
    let (mut entropy, mut key_entropy) =
        (Entropy::from_seed(random_seed()?), Entropy::from_seed(random_seed()?));
    Ok(Settings {
        host: HostId(entropy.draw_u128() as u32),
        shards,
        limits: config.limits(),
        offered: config.protocols,
        key_seed: std::array::from_fn(|_| key_entropy.draw_u128() as u64),
        has_cluster: config.redis().is_some(),
        requeue_on_partner_leave: config.requeue_on_partner_leave,
        allowed_origins: config.allowed_origins(),
        allow_no_origin: config.allow_no_origin,
        echo_path: config.echo_path.clone(),
        held_pipes: Arc::new(Places::new(config.max_held_pipes)),
        planted,
    })
}

/// `INSTANCE_ID`, or `inst-` and a random UUID.
fn instance_id(config: &Config) -> io::Result<String> {
    if let Some(instance_id) = &config.instance_id {
        return Ok(instance_id.clone());
    }
    let uuid = RoomId::new(&mut Entropy::from_seed(random_seed()?));
    Ok(format!("inst-{uuid:?}"))
}

fn random_seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    SysRng.try_fill_bytes(&mut seed).map_err(io::Error::other)?;
    Ok(seed)
}

#[cfg(test)]
mod tests;
