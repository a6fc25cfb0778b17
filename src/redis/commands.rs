//! The connection for commands: all of a turn in one write, in order, and replies as they come.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, RedisResult, Value};

use super::Happening;
use super::endpoint::Endpoint;
use super::link::Link;
use super::scripts::Scripts;
use super::values::{add, call_of, is_unknown_script, is_write, refusal_of_place, reply_of};
use crate::cluster::{Command, Reply, Token};
use crate::id::Entropy;
use crate::limits::{
    REDIS_BATCH_COMMANDS_MAX, REDIS_BATCHES_MAX, REDIS_COMMAND_BYTES_MAX, REDIS_COMMANDS_MAX,
    REDIS_REPLY_MS_MAX,
};
use crate::metrics::{Call, ClusterMetrics};

type Replies = Pin<Box<dyn Future<Output = RedisResult<Vec<Value>>>>>;

/// The connection for commands, and what it has to do.
pub(super) struct Commands {
    link: Link<MultiplexedConnection>,
    /// Not sent yet.
    queue: VecDeque<Asked>,
    /// Sent, in this order.
    batches: VecDeque<Batch>,
    /// Of both.
    count: usize,
    bytes: usize,
    happenings: VecDeque<Happening>,
    scripts: Scripts,
    has_refused: bool,
    /// The Redis that it led to last was not the one to work with.
    was_misled: bool,
    has_moved: bool,
    metrics: Arc<ClusterMetrics>,
}

struct Asked {
    token: Token,
    command: Command,
}

/// Commands that were sent in one write.
struct Batch {
    /// With the number of its replies.
    asked: Vec<(Asked, usize)>,
    sent: Instant,
    replies: Replies,
    /// They came with the first look.
    early: Option<RedisResult<Vec<Value>>>,
}

impl Commands {
    pub(super) fn new(endpoint: Endpoint, entropy: Entropy, metrics: Arc<ClusterMetrics>) -> Self {
        let place = endpoint.clone();
        let connect = move || connect(place.clone());
        Self {
            link: Link::new("commands", endpoint, connect, entropy, Arc::clone(&metrics)),
            queue: VecDeque::new(),
            batches: VecDeque::new(),
            count: 0,
            bytes: 0,
            happenings: VecDeque::new(),
            scripts: Scripts::default(),
            has_refused: false,
            was_misled: false,
            has_moved: false,
            metrics,
        }
    }

    /// Whether, since the last call, the connection was found to lead to another Redis, because the one before was not the
    /// one to work with: what else leads there should be made anew.
    pub(super) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.has_moved)
    }

    /// Whether the connection is there.
    pub(super) fn is_up(&self) -> bool {
        self.link.is_up()
    }

    /// Whether all commands were answered.
    pub(super) fn is_idle(&self) -> bool {
        self.count == 0 && self.happenings.is_empty()
    }

    /// Sends a command behind those before it. It fails at once while there is no connection, or too much waits.
    pub(super) fn push(&mut self, token: Token, command: Command) {
        let len = command.len();
        let is_full = self.count >= REDIS_COMMANDS_MAX
            || (self.count > 0 && self.bytes + len > REDIS_COMMAND_BYTES_MAX);
        if is_full || !self.link.is_up() {
            return self.fail(token);
        }
        (self.count, self.bytes) = (self.count + 1, self.bytes + len);
        self.queue.push_back(Asked { token, command });
    }

    /// Sends what waits, and says what came of it next.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Option<Happening> {
        loop {
            if let Some(happening) = self.happenings.pop_front() {
                return Some(happening);
            }
            if self.link.poll_up(context) {
                self.scripts.handle_connected();
                return Some(Happening::Connected);
            }
            self.send(context);
            self.metrics.counters.redis_queue.set(self.count as u64);
            let batch = self.batches.front_mut()?;
            match batch.poll(context) {
                Poll::Pending => return None,
                Poll::Ready(replies) => self.handle_replies(replies),
            }
        }
    }

    /// Sends what has gathered, unless too much is under way already.
    fn send(&mut self, context: &mut Context<'_>) {
        while self.batches.len() < REDIS_BATCHES_MAX && !self.queue.is_empty() {
            let Some(connection) = self.link.connection() else { return };
            let count = self.queue.len().min(REDIS_BATCH_COMMANDS_MAX);
            let mut pipeline = Pipeline::with_capacity(count);
            let mut asked = Vec::with_capacity(count);
            for one in self.queue.drain(..count) {
                let replies = add(&mut pipeline, &one.command, &mut self.scripts);
                self.metrics.counters.redis_bytes_sent.add(one.command.len() as u64);
                if matches!(one.command, Command::Publish { .. }) {
                    self.metrics.counters.redis_publishes.add(1);
                }
                asked.push((one, replies));
            }
            self.metrics.counters.redis_commands.add(count as u64);
            let mut connection = connection.clone();
            let replies: Replies = Box::pin(async move {
                let count = pipeline.len();
                connection.send_packed_commands(&pipeline, 0, count).await
            });
            let mut batch = Batch { asked, sent: Instant::now(), replies, early: None };
            // The first look sends it, so that batches go out in order.
            if let Poll::Ready(replies) = batch.replies.as_mut().poll(context) {
                batch.early = Some(replies);
            }
            self.batches.push_back(batch);
        }
    }

    /// The first batch was answered, or the connection is broken.
    fn handle_replies(&mut self, replies: RedisResult<Vec<Value>>) {
        let Some(batch) = self.batches.pop_front() else { return };
        let awaited: usize = batch.asked.iter().map(|(_, replies)| replies).sum();
        let values = match replies {
            Ok(values) if values.len() == awaited => values,
            Ok(values) => {
                let reason = format!("{} replies to {awaited} commands", values.len());
                return self.lose(Some(batch), &reason);
            }
            Err(error) => return self.lose(Some(batch), &error.to_string()),
        };
        let refusal = values.iter().find_map(refusal_of_place);
        if refusal.is_none() && batch.asked.iter().any(|(asked, _)| is_write(&asked.command)) {
            self.has_moved |= std::mem::take(&mut self.was_misled);
        }
        let us = u64::try_from(batch.sent.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut values = values.into_iter();
        for (asked, replies) in batch.asked {
            self.metrics.replies.add(us);
            if let Some(call) = call_of(&asked.command) {
                self.metrics.last_calls_us[call as usize].set(us);
            }
            let first = values.next().unwrap_or_default();
            values.by_ref().take(replies - 1).for_each(drop);
            self.handle_reply(asked, first);
        }
        // A primary that was demoted drops nobody: who stays would never write again.
        if let Some(refusal) = refusal {
            self.was_misled = true;
            self.lose(None, &refusal);
        }
    }

    fn handle_reply(&mut self, asked: Asked, value: Value) {
        if let Command::Run { script, .. } = asked.command
            && is_unknown_script(&value)
        {
            self.scripts.handle_unknown(script);
            return self.queue.push_back(asked);
        }
        self.forget(&asked);
        match reply_of(value) {
            Ok(reply) => {
                self.metrics.counters.redis_bytes_received.add(reply.len() as u64);
                self.happenings.push_back(Happening::Reply { token: asked.token, reply });
            }
            Err(error) => {
                if !std::mem::replace(&mut self.has_refused, true) {
                    tracing::warn!("Redis refuses a command: {error}; later refusals are counted");
                }
                self.fail(asked.token);
            }
        }
    }

    /// The connection is broken: whatever waits has failed.
    fn lose(&mut self, batch: Option<Batch>, reason: &str) {
        self.link.lose(reason);
        self.happenings.push_back(Happening::Disconnected);
        let sent = std::mem::take(&mut self.batches);
        let sent = batch.into_iter().chain(sent).flat_map(|batch| batch.asked);
        let waiting: Vec<Asked> =
            sent.map(|(asked, _)| asked).chain(std::mem::take(&mut self.queue)).collect();
        for asked in waiting {
            self.forget(&asked);
            self.fail(asked.token);
        }
        self.metrics.counters.redis_queue.set(0);
    }

    fn forget(&mut self, asked: &Asked) {
        self.count -= 1;
        self.bytes -= asked.command.len();
    }

    fn fail(&mut self, token: Token) {
        self.metrics.counters.redis_failed.add(1);
        self.happenings.push_back(Happening::Reply { token, reply: Reply::Failed });
    }
}

impl Batch {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<RedisResult<Vec<Value>>> {
        match self.early.take() {
            Some(replies) => Poll::Ready(replies),
            None => self.replies.as_mut().poll(context),
        }
    }
}

async fn connect(endpoint: Endpoint) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        // The link has its own limit.
        .set_connection_timeout(None)
        .set_response_timeout(Some(Duration::from_millis(REDIS_REPLY_MS_MAX)))
        .set_pipeline_buffer_size(REDIS_BATCHES_MAX);
    endpoint.client()?.get_multiplexed_async_connection_with_config(&config).await
}

const _: () = assert!(Call::Subscribe as usize + 1 == Call::COUNT);
