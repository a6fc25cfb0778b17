//! The thread that speaks to Redis: mail from the shards, what Redis says, and what the cluster makes of both.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::bell::Bell;
use super::commands::Commands;
use super::subscriptions::Subscriptions;
use super::{Endpoints, Happening};
use crate::cluster::{self, Cluster, Connection, FromCluster, Output, Remark};
use crate::id::{Entropy, ShardIndex};
use crate::limits::{
    CLUSTER_FAREWELL_MS, CLUSTER_MAIL_BATCH, CLUSTER_MAIL_BYTES_MAX, CLUSTER_MAIL_WAITING_MAX,
};
use crate::mailbox::Mailbox;
use crate::metrics::ClusterMetrics;
use crate::net::core::Letter;

/// How often the cluster is told the time.
const TICK: Duration = Duration::from_millis(100);
/// Threads that look up names, which may take them long.
const NAME_THREADS_MAX: usize = 2;

/// How the thread learns that the server stops. Its bell is rung with either.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    /// The server stops.
    pub(crate) stopping: Arc<AtomicBool>,
    /// All shards have ended: no more mail comes.
    pub(crate) shards_ended: Arc<AtomicBool>,
    /// How long a stop may take.
    pub(crate) grace: Duration,
}

/// What the thread needs to start.
pub(crate) struct Parts {
    pub(crate) endpoints: Endpoints,
    pub(crate) settings: cluster::Settings,
    pub(crate) mailbox: Mailbox<Letter>,
    pub(crate) metrics: Arc<ClusterMetrics>,
    pub(crate) ending: Ending,
    /// What milliseconds count from.
    pub(crate) started: Instant,
    /// Two seeds for what is random about pauses.
    pub(crate) seeds: [[u8; 32]; 2],
}

/// Runs until the server has stopped. Redis may be there or not.
pub(crate) fn run(parts: Parts) {
    // TLS needs to be told once whose arithmetic to use; an error means that it was.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!("there is no way to Redis: {error}"),
    };
    // Each turn handles all that there is, which must not end because others on this thread want theirs.
    runtime.block_on(tokio::task::unconstrained(async {
        match Worker::new(parts) {
            Ok(mut worker) => poll_fn(|context| worker.guarded_turn(context)).await,
            Err(error) => tracing::error!("there is no way to Redis: {error}"),
        }
    }));
    // A name may still be looked up.
    runtime.shutdown_background();
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_io().enable_time().max_blocking_threads(NAME_THREADS_MAX).build()
}

struct Worker {
    cluster: Cluster,
    commands: Commands,
    subscriptions: Subscriptions,
    mailbox: Mailbox<Letter>,
    bell: Bell,
    tick: Interval,
    /// To each shard, what its ring has not taken yet, and how much that is.
    waiting: Vec<VecDeque<FromCluster>>,
    waiting_count: usize,
    waiting_bytes: usize,
    ending: Ending,
    /// When the server began to stop, and when all shards had ended.
    stopped: Option<Instant>,
    shards_ended: Option<Instant>,
    started: Instant,
    now_ms: u64,
    metrics: Arc<ClusterMetrics>,
}

impl Worker {
    fn new(parts: Parts) -> io::Result<Self> {
        let Parts { endpoints, settings, mailbox, metrics, ending, started, seeds } = parts;
        let [for_commands, for_subscriptions] = seeds.map(Entropy::from_seed);
        let now_ms = started.elapsed().as_millis() as u64;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut worker = Self {
            cluster: Cluster::new(&settings, Arc::clone(&metrics), now_ms),
            commands: Commands::new(endpoints.commands, for_commands, Arc::clone(&metrics)),
            subscriptions: Subscriptions::new(
                endpoints.subscriptions,
                for_subscriptions,
                Arc::clone(&metrics),
            ),
            bell: Bell::new(mailbox.bell().try_clone_to_owned()?)?,
            mailbox,
            tick,
            waiting: (0..settings.shards).map(|_| VecDeque::new()).collect(),
            waiting_count: 0,
            waiting_bytes: 0,
            ending,
            stopped: None,
            shards_ended: None,
            started,
            now_ms,
            metrics,
        };
        worker.drain();
        Ok(worker)
    }

    /// A turn. A panic is counted and logged, and the thread goes on: without it the shards' mail would pile up.
    fn guarded_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        catch_unwind(AssertUnwindSafe(|| self.turn(context))).unwrap_or_else(|_| {
            self.metrics.counters.panics.add(1);
            tracing::error!("panic over Redis or another host");
            Poll::Pending
        })
    }

    /// Handles all that there is, then sleeps until something comes. Ready when all is said and done.
    fn turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.now_ms = self.started.elapsed().as_millis() as u64;
        while self.tick.poll_tick(context).is_ready() {
            self.cluster.handle_tick(self.now_ms);
            self.drain();
        }
        self.answer_bell(context);
        self.check_stop();
        let mut room = CLUSTER_MAIL_BATCH;
        loop {
            let has_mail = self.take_mail(&mut room);
            self.cluster.handle_turn_end();
            self.drain();
            let has_news = self.take_news(context);
            self.deliver();
            if room == 0 {
                context.waker().wake_by_ref();
                break;
            }
            if !has_mail && !has_news && self.mailbox.arm() {
                break;
            }
        }
        if self.is_over() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn answer_bell(&mut self, context: &mut Context<'_>) {
        match self.bell.has_rung(context) {
            Ok(true) => self.mailbox.disarm(),
            Ok(false) => self.mailbox.stand_down(),
            Err(error) => tracing::error!("waiting for the doorbell failed: {error}"),
        }
    }

    fn take_mail(&mut self, room: &mut usize) -> bool {
        let before = *room;
        while *room > 0
            && let Some((from, letter)) = self.mailbox.pop()
        {
            *room -= 1;
            match letter {
                // What it took of the shard's memory is given back with the parcel.
                Letter::ToCluster(parcel) => {
                    self.cluster.handle_mail(ShardIndex(from as u8), parcel.mail, self.now_ms);
                    self.drain();
                }
                Letter::Mail(_) | Letter::Socket(..) | Letter::FromCluster(_) => {
                    debug_assert!(false, "only parcels are for the cluster");
                }
            }
        }
        *room < before
    }

    /// Takes what both connections bring.
    fn take_news(&mut self, context: &mut Context<'_>) -> bool {
        let mut any = false;
        while let Some(happening) = self.commands.poll(context) {
            self.handle(Connection::Commands, happening);
            any = true;
        }
        if self.commands.take_moved() {
            self.subscriptions.move_on("commands lead to another Redis now");
        }
        while let Some(happening) = self.subscriptions.poll(context) {
            self.handle(Connection::Subscriptions, happening);
            any = true;
        }
        any
    }

    fn handle(&mut self, connection: Connection, happening: Happening) {
        let now_ms = self.now_ms;
        match happening {
            Happening::Connected => self.cluster.handle_connected(connection, now_ms),
            Happening::Disconnected => self.cluster.handle_disconnected(connection, now_ms),
            Happening::Reply { token, reply } => self.cluster.handle_reply(token, &reply, now_ms),
            Happening::Subscribed(channel) => self.cluster.handle_subscribed(&channel, now_ms),
            Happening::Push { channel, payload } => self.cluster.handle_push(&channel, &payload, now_ms),
        }
        let is_connected = self.commands.is_up() && self.subscriptions.is_up();
        self.metrics.counters.redis_connected.set(u64::from(is_connected));
        self.drain();
    }

    /// Carries out what the cluster asks for.
    fn drain(&mut self) {
        while let Some(output) = self.cluster.poll_output() {
            match output {
                Output::Command { token, command } => self.commands.push(token, command),
                Output::Subscribe(channel) => self.subscriptions.subscribe(channel),
                Output::Unsubscribe(channel) => self.subscriptions.unsubscribe(channel),
                Output::Resubscribe => self.subscriptions.lose("our own heartbeat does not come back"),
                Output::Mail { to, mail } => self.post(to, mail),
                Output::Remark(Remark::Info(text)) => tracing::info!("{text}"),
                Output::Remark(Remark::Warning(text)) => tracing::warn!("{text}"),
            }
        }
    }

    fn post(&mut self, to: ShardIndex, mail: FromCluster) {
        self.waiting_count += 1;
        self.waiting_bytes += mail.len();
        self.waiting[to.position()].push_back(mail);
    }

    /// Hands mail to the shards, as far as there is room in their rings.
    fn deliver(&mut self) {
        for (shard, waiting) in self.waiting.iter_mut().enumerate() {
            while let Some(mail) = waiting.pop_front() {
                let len = mail.len();
                match self.mailbox.push(shard, Letter::FromCluster(mail)) {
                    Ok(()) => {
                        self.waiting_count -= 1;
                        self.waiting_bytes -= len;
                    }
                    Err(letter) => {
                        if let Letter::FromCluster(mail) = letter {
                            waiting.push_front(mail);
                        }
                        break;
                    }
                }
            }
        }
        self.mailbox.ring();
        self.metrics.counters.mail_waiting.set(self.waiting_count as u64);
        if self.waiting_count > CLUSTER_MAIL_WAITING_MAX || self.waiting_bytes > CLUSTER_MAIL_BYTES_MAX {
            self.subscriptions.lose("the shards do not keep up with what comes");
        }
    }

    /// Begins the end when the server stops.
    fn check_stop(&mut self) {
        if self.stopped.is_none() && self.ending.stopping.load(Ordering::Acquire) {
            self.stopped = Some(Instant::now());
            self.cluster.handle_shutdown(self.now_ms);
            self.drain();
        }
        if self.shards_ended.is_none() && self.ending.shards_ended.load(Ordering::Acquire) {
            self.shards_ended = Some(Instant::now());
        }
    }

    /// Whether all is said, or there is no more time for it.
    fn is_over(&self) -> bool {
        let Some(ended) = self.shards_ended else { return false };
        let is_late = |since: Instant, limit: Duration| since.elapsed() >= limit;
        self.commands.is_idle()
            || is_late(ended, Duration::from_millis(CLUSTER_FAREWELL_MS))
            || self.stopped.is_some_and(|stopped| is_late(stopped, self.ending.grace))
    }
}
