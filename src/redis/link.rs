//! A connection that is made anew without end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use redis::RedisError;
use tokio::time::{Sleep, sleep, timeout};

use super::endpoint::Endpoint;
use crate::id::Entropy;
use crate::limits::{REDIS_CONNECT_MS_MAX, REDIS_GOOD_MS, REDIS_PAUSE_MS_MAX, REDIS_PAUSE_MS_MIN};
use crate::metrics::ClusterMetrics;

/// A connection that is being made.
type Connecting<C> = Pin<Box<dyn Future<Output = Result<C, String>>>>;

enum State<C> {
    Pausing(Pin<Box<Sleep>>),
    Connecting(Connecting<C>),
    Up { connection: C, since: Instant },
}

/// One connection to Redis, there or not.
pub(super) struct Link<C> {
    /// What it is for, as the log says it.
    purpose: &'static str,
    endpoint: Endpoint,
    connect: Box<dyn Fn() -> Connecting<C>>,
    state: State<C>,
    /// The next pause.
    pause_ms: u64,
    entropy: Entropy,
    /// What was logged last and is still so.
    trouble: Option<String>,
    metrics: Arc<ClusterMetrics>,
}

impl<C: 'static> Link<C> {
    /// The first connection is made with the first poll.
    pub(super) fn new<F>(
        purpose: &'static str,
        endpoint: Endpoint,
        connect: impl Fn() -> F + 'static,
        entropy: Entropy,
        metrics: Arc<ClusterMetrics>,
    ) -> Self
    where
        F: Future<Output = Result<C, RedisError>> + 'static,
    {
        let connect = move || in_time(connect());
        let state = State::Connecting(connect());
        let connect = Box::new(connect);
        Self {
            purpose,
            endpoint,
            connect,
            state,
            pause_ms: REDIS_PAUSE_MS_MIN,
            entropy,
            trouble: None,
            metrics,
        }
    }

    /// Goes on making the connection. True when it has just been made.
    pub(super) fn poll_up(&mut self, context: &mut Context<'_>) -> bool {
        loop {
            match &mut self.state {
                State::Up { .. } => return false,
                State::Pausing(pause) => match pause.as_mut().poll(context) {
                    Poll::Pending => return false,
                    Poll::Ready(()) => self.state = State::Connecting((self.connect)()),
                },
                State::Connecting(connecting) => match connecting.as_mut().poll(context) {
                    Poll::Pending => return false,
                    Poll::Ready(Ok(connection)) => {
                        self.state = State::Up { connection, since: Instant::now() };
                        self.trouble = None;
                        tracing::info!("connected to Redis at {} for {}", self.endpoint, self.purpose);
                        return true;
                    }
                    Poll::Ready(Err(error)) => {
                        self.complain("cannot be reached", error);
                        self.pause();
                    }
                },
            }
        }
    }

    /// The connection, if it is there.
    pub(super) fn connection(&mut self) -> Option<&mut C> {
        match &mut self.state {
            State::Up { connection, .. } => Some(connection),
            State::Pausing(_) | State::Connecting(_) => None,
        }
    }

    /// Whether it is there.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// Gives a connection up.
    pub(super) fn lose(&mut self, reason: &str) {
        let State::Up { since, .. } = self.state else { return };
        if since.elapsed() >= Duration::from_millis(REDIS_GOOD_MS) {
            self.pause_ms = REDIS_PAUSE_MS_MIN;
        }
        self.metrics.counters.redis_reconnects.add(1);
        self.complain("is lost", reason.to_owned());
        self.pause();
    }

    /// A connection that is just being made is begun again.
    pub(super) fn begin_again(&mut self) {
        if matches!(self.state, State::Connecting(_)) {
            self.state = State::Connecting((self.connect)());
        }
    }

    /// Waits for a while, longer each time, and never as long as somebody else.
    fn pause(&mut self) {
        let half = self.pause_ms / 2;
        let pause_ms = half + self.entropy.below(half as usize + 1) as u64;
        self.pause_ms = (self.pause_ms * 2).min(REDIS_PAUSE_MS_MAX);
        self.state = State::Pausing(Box::pin(sleep(Duration::from_millis(pause_ms))));
    }

    /// Logs what is wrong, once while it is the same.
    fn complain(&mut self, what: &str, reason: String) {
        if self.trouble.as_ref() != Some(&reason) {
            tracing::warn!(
                "Redis at {} for {} {what}: {reason}; it is tried again and again",
                self.endpoint,
                self.purpose
            );
            self.trouble = Some(reason);
        }
    }
}

fn in_time<C: 'static>(connecting: impl Future<Output = Result<C, RedisError>> + 'static) -> Connecting<C> {
    let limit = Duration::from_millis(REDIS_CONNECT_MS_MAX);
    Box::pin(async move {
        match timeout(limit, connecting).await {
            Ok(connected) => connected.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {REDIS_CONNECT_MS_MAX} ms")),
        }
    })
}
