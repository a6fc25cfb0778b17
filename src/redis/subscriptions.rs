//! The connection for what is published: who is listened to, also after it was made anew.

use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_core::Stream;
use redis::aio::{PubSubSink, PubSubStream};
use redis::{Msg, RedisResult};
use tokio::time::timeout;

use super::Happening;
use super::endpoint::Endpoint;
use super::link::Link;
use crate::id::Entropy;
use crate::limits::{REDIS_REPLY_MS_MAX, REDIS_SUBSCRIBE_CHANNELS_MAX};
use crate::metrics::{Call, ClusterMetrics};

/// The two halves of the connection.
struct Halves {
    asking: PubSubSink,
    listening: PubSubStream,
}

/// Something to ask for.
enum Wish {
    Subscribe(Vec<u8>),
    Unsubscribe(Vec<u8>),
}

/// What was asked for and is not answered yet.
struct Asked {
    /// Empty if it was to be listened to no longer.
    subscribed: Vec<Vec<u8>>,
    since: Instant,
    answer: Pin<Box<dyn Future<Output = Result<(), String>>>>,
}

/// The connection for what is published.
pub(super) struct Subscriptions {
    link: Link<Halves>,
    /// What is listened to, or will be.
    channels: BTreeSet<Vec<u8>>,
    wishes: VecDeque<Wish>,
    asked: Option<Asked>,
    happenings: VecDeque<Happening>,
    metrics: Arc<ClusterMetrics>,
}

impl Subscriptions {
    pub(super) fn new(endpoint: Endpoint, entropy: Entropy, metrics: Arc<ClusterMetrics>) -> Self {
        let place = endpoint.clone();
        let connect = move || connect(place.clone());
        Self {
            link: Link::new("subscriptions", endpoint, connect, entropy, Arc::clone(&metrics)),
            channels: BTreeSet::new(),
            wishes: VecDeque::new(),
            asked: None,
            happenings: VecDeque::new(),
            metrics,
        }
    }

    /// Whether the connection is there.
    pub(super) fn is_up(&self) -> bool {
        self.link.is_up()
    }

    /// Listens to a channel.
    pub(super) fn subscribe(&mut self, channel: Vec<u8>) {
        if self.link.is_up() {
            self.wishes.push_back(Wish::Subscribe(channel.clone()));
        }
        self.channels.insert(channel);
    }

    /// Listens to a channel no longer.
    pub(super) fn unsubscribe(&mut self, channel: Vec<u8>) {
        self.channels.remove(&channel);
        if self.link.is_up() {
            self.wishes.push_back(Wish::Unsubscribe(channel));
        }
    }

    /// Gives the connection up, and makes it anew.
    pub(super) fn lose(&mut self, reason: &str) {
        if self.link.is_up() {
            self.link.lose(reason);
            self.asked = None;
            self.wishes.clear();
            self.happenings.push_back(Happening::Disconnected);
        }
    }

    /// Makes the connection anew, be it there or just being made: the address leads elsewhere now.
    pub(super) fn move_on(&mut self, reason: &str) {
        self.lose(reason);
        self.link.begin_again();
    }

    /// What comes next.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Option<Happening> {
        loop {
            if let Some(happening) = self.happenings.pop_front() {
                return Some(happening);
            }
            if self.link.poll_up(context) {
                self.wishes = self.channels.iter().cloned().map(Wish::Subscribe).collect();
                return Some(Happening::Connected);
            }
            let is_answered = self.poll_asked(context);
            let Some(halves) = self.link.connection() else {
                if is_answered {
                    continue;
                }
                return None;
            };
            match Pin::new(&mut halves.listening).poll_next(context) {
                Poll::Ready(Some(message)) => return self.push_of(&message),
                Poll::Ready(None) => self.lose("the connection ended"),
                Poll::Pending if is_answered => {}
                Poll::Pending => return None,
            }
        }
    }

    /// Asks for what is next, and takes the answer. True: something has happened.
    fn poll_asked(&mut self, context: &mut Context<'_>) -> bool {
        if self.asked.is_none() {
            self.asked = self.ask();
        }
        let Some(asked) = &mut self.asked else { return false };
        let Poll::Ready(answer) = asked.answer.as_mut().poll(context) else { return false };
        let Some(asked) = self.asked.take() else { return false };
        if let Err(error) = answer {
            self.lose(&error);
            return true;
        }
        let us = u64::try_from(asked.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.metrics.last_calls_us[Call::Subscribe as usize].set(us);
        self.metrics.counters.redis_subscriptions.set(self.channels.len() as u64);
        self.happenings.extend(asked.subscribed.into_iter().map(Happening::Subscribed));
        true
    }

    /// Asks for all that are to be listened to, or no longer, up to the first of the other kind.
    fn ask(&mut self) -> Option<Asked> {
        let halves = self.link.connection()?;
        let is_more = matches!(self.wishes.front()?, Wish::Subscribe(_));
        let mut channels = Vec::new();
        let is_alike = |wish: &Wish| matches!(wish, Wish::Subscribe(_)) == is_more;
        while channels.len() < REDIS_SUBSCRIBE_CHANNELS_MAX && self.wishes.front().is_some_and(is_alike) {
            if let Some(Wish::Subscribe(channel) | Wish::Unsubscribe(channel)) = self.wishes.pop_front() {
                channels.push(channel);
            }
        }
        let mut asking = halves.asking.clone();
        let subscribed = if is_more { channels.clone() } else { Vec::new() };
        let answer = async move {
            let asking = async {
                if is_more { asking.subscribe(channels).await } else { asking.unsubscribe(channels).await }
            };
            match timeout(Duration::from_millis(REDIS_REPLY_MS_MAX), asking).await {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(_) => Err(format!("no answer within {REDIS_REPLY_MS_MAX} ms")),
            }
        };
        Some(Asked { subscribed, since: Instant::now(), answer: Box::pin(answer) })
    }

    fn push_of(&self, message: &Msg) -> Option<Happening> {
        // A name that is none of ours is nobody's.
        let channel: Vec<u8> = message.get_channel().unwrap_or_default();
        let payload = Bytes::copy_from_slice(message.get_payload_bytes());
        self.metrics.counters.redis_pushes.add(1);
        self.metrics.counters.redis_bytes_received.add(payload.len() as u64);
        Some(Happening::Push { channel, payload })
    }
}

async fn connect(endpoint: Endpoint) -> RedisResult<Halves> {
    let (asking, listening) = endpoint.client()?.get_async_pubsub().await?.split();
    Ok(Halves { asking, listening })
}
