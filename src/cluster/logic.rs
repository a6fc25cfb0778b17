//! The cluster's part of a host: it knows who is there, what is awaited of Redis, and what goes to whom.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::codec::{self, Draft, Message, Sender};
use super::hosts::{Event, Hosts, Relation};
use super::{Command, Connection, FromCluster, Output, Remark, Reply, ToCluster, Token};
use crate::id::{HostId, ShardIndex};
use crate::limits::HOST_MAIL_BYTES;
use crate::metrics::ClusterMetrics;
use crate::plant::Planted;

/// Where all hosts say that they are there.
pub const HEARTBEAT_CHANNEL: &[u8] = b"parlor:heartbeat";

/// Where a host is written to.
#[must_use]
pub fn channel_of(host: HostId) -> Vec<u8> {
    format!("parlor:host:{host}").into_bytes()
}

/// What the cluster must know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This start of this host.
    pub host: HostId,
    /// Of two starts under one id, the later one's is higher: milliseconds since 1970.
    pub start: u64,
    /// How many shards the host has.
    pub shards: usize,
    /// A bug for a test to find.
    pub planted: Planted,
}

/// What a reply is awaited for.
#[derive(Debug)]
enum Awaited {
    /// Mail with letters to a host.
    Mail(HostId, Relation),
}

/// The cluster's part of one host.
#[derive(Debug)]
pub struct Cluster {
    hosts: Hosts,
    shards: usize,
    own_channel: Vec<u8>,
    /// Whether the heartbeats and our own channel are subscribed.
    hears_all: bool,
    hears_own: bool,
    /// Letters of this turn.
    drafts: BTreeMap<HostId, Draft>,
    next_token: u64,
    awaited: BTreeMap<Token, Awaited>,
    /// What the shards were last told.
    is_online: bool,
    has_refused: bool,
    outputs: VecDeque<Output>,
    metrics: Arc<ClusterMetrics>,
}

impl Cluster {
    /// A host that knows nobody yet.
    #[must_use]
    pub fn new(settings: &Settings, metrics: Arc<ClusterMetrics>, now_ms: u64) -> Self {
        let me = Sender { host: settings.host, start: settings.start };
        let own_channel = channel_of(settings.host);
        let channels = [HEARTBEAT_CHANNEL.to_vec(), own_channel.clone()];
        Self {
            hosts: Hosts::new(me, settings.planted, now_ms),
            shards: settings.shards,
            own_channel,
            hears_all: false,
            hears_own: false,
            drafts: BTreeMap::new(),
            next_token: 0,
            awaited: BTreeMap::new(),
            is_online: false,
            has_refused: false,
            outputs: channels.into_iter().map(Output::Subscribe).collect(),
            metrics,
        }
    }

    /// A connection has been made.
    pub fn handle_connected(&mut self, connection: Connection, now_ms: u64) {
        match connection {
            Connection::Commands => self.hosts.handle_publishing(true, now_ms),
            // It counts from when our channels are subscribed.
            Connection::Subscriptions => {}
        }
        self.settle();
    }

    /// A connection is lost. Of all commands without a reply [`Reply::Failed`] is handed in.
    pub fn handle_disconnected(&mut self, connection: Connection, now_ms: u64) {
        match connection {
            Connection::Commands => self.hosts.handle_publishing(false, now_ms),
            Connection::Subscriptions => {
                (self.hears_all, self.hears_own) = (false, false);
                self.hosts.handle_unsubscribed(now_ms);
            }
        }
        self.settle();
    }

    /// Redis has answered, or has not.
    pub fn handle_reply(&mut self, token: Token, reply: &Reply, now_ms: u64) {
        match (self.awaited.remove(&token), reply) {
            (Some(Awaited::Mail(host, relation)), Reply::Failed) => {
                self.hosts.handle_unpublished(host, relation, now_ms);
            }
            (Some(Awaited::Mail(..)) | None, _) => {}
        }
        self.settle();
    }

    /// This channel is subscribed, for the first time or again.
    pub fn handle_subscribed(&mut self, channel: &[u8], now_ms: u64) {
        let before = self.hears_all && self.hears_own;
        self.hears_all |= channel == HEARTBEAT_CHANNEL;
        self.hears_own |= channel == self.own_channel;
        if !before && self.hears_all && self.hears_own {
            self.hosts.handle_subscribed(now_ms);
        }
        self.settle();
    }

    /// Something was published in a channel that is subscribed.
    pub fn handle_push(&mut self, channel: &[u8], payload: &Bytes, now_ms: u64) {
        if channel == HEARTBEAT_CHANNEL || channel == self.own_channel {
            self.handle_message(payload, now_ms);
        }
        self.settle();
    }

    /// A shard asks for something.
    pub fn handle_mail(&mut self, _from: ShardIndex, mail: ToCluster, now_ms: u64) {
        self.hosts.handle_time(now_ms);
        self.settle();
        match mail {
            ToCluster::Letter { to, relation, shard, letter } => {
                if self.hosts.relation(to) != Some(relation) {
                    return self.metrics.counters.letters_dropped.add(1);
                }
                let draft = self.drafts.entry(to).or_default();
                draft.push(shard, &letter);
                if draft.is_full(HOST_MAIL_BYTES) {
                    self.send_draft(to);
                }
            }
        }
    }

    /// Time has passed. Called several times a second.
    pub fn handle_tick(&mut self, now_ms: u64) {
        self.hosts.handle_tick(now_ms);
        self.settle();
    }

    /// All that came in one turn was handled: letters are sent.
    pub fn handle_turn_end(&mut self) {
        while let Some(host) = self.drafts.first_key_value().map(|(host, _)| *host) {
            self.send_draft(host);
        }
    }

    /// The server shuts down: the others are told that all our clients have left.
    pub fn handle_shutdown(&mut self, now_ms: u64) {
        self.hosts.handle_leaving(now_ms);
        self.settle();
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The others, as this host sees them, for checks.
    #[must_use]
    pub fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// A message has come in one of our own channels.
    fn handle_message(&mut self, payload: &Bytes, now_ms: u64) {
        match codec::decode(payload) {
            Ok(Message::Heartbeat(heartbeat)) => self.hosts.handle_heartbeat(&heartbeat, now_ms),
            Ok(Message::Mail(mail)) => {
                let count = mail.letters.len();
                let is_accepted = self.hosts.handle_mail(&mail.header, count > 0, now_ms);
                // A relation that begins is told before its first letter.
                self.settle();
                if is_accepted {
                    self.metrics.counters.letters_received.add(count as u64);
                    for (shard, letter) in mail.letters {
                        self.mail(shard, FromCluster::Letter(letter));
                    }
                }
            }
            Err(error) => {
                self.metrics.counters.messages_refused.add(1);
                match error {
                    codec::Error::Older(sender, version) | codec::Error::Newer(sender, version) => {
                        self.hosts.handle_refused(sender, version);
                    }
                    error if !std::mem::replace(&mut self.has_refused, true) => {
                        self.warn(format!(
                            "a message in our channels is none: {error}; later ones are counted"
                        ));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Carries out what follows for the hosts.
    fn settle(&mut self) {
        while let Some(event) = self.hosts.poll_event() {
            match event {
                Event::Beat(heartbeat) => {
                    self.publish(HEARTBEAT_CHANNEL.to_vec(), codec::encode_heartbeat(&heartbeat));
                }
                Event::Tell(host, header) => {
                    self.publish(channel_of(host), Draft::default().finish(&header));
                }
                Event::Found(host, relation) => {
                    self.remark(Remark::Info(format!("host {host} is there")));
                    self.mail_all(&FromCluster::HostFound(host, relation));
                }
                Event::Gone(host, why) => {
                    self.drafts.remove(&host);
                    self.metrics.counters.relations_ended.add(1);
                    self.remark(Remark::Info(format!("host {host} is gone: {why}")));
                    self.mail_all(&FromCluster::HostGone(host));
                }
                Event::Resubscribe => {
                    (self.hears_all, self.hears_own) = (false, false);
                    self.warn("our own heartbeat does not come back, subscribing anew".into());
                    self.outputs.push_back(Output::Resubscribe);
                }
                Event::Refused(host, version) => self.warn(format!(
                    "host {host} speaks version {version} and this one {}: they do not work together",
                    codec::VERSION
                )),
                Event::Crowded => self.warn("there are too many hosts, new ones are ignored".into()),
                Event::Twin => self.warn("another host has the id of this one: restart one of them".into()),
            }
        }
        self.say_how_it_stands();
    }

    /// Brings the numbers up to date, and tells the shards whether other hosts can be reached.
    fn say_how_it_stands(&mut self) {
        self.metrics.set_returned(self.hosts.returned_ms());
        self.metrics.counters.hosts.set(self.hosts.found() as u64);
        let is_online = self.hosts.is_proven();
        if self.is_online != is_online {
            self.is_online = is_online;
            self.mail_all(&FromCluster::Online(is_online));
        }
    }

    fn send_draft(&mut self, host: HostId) {
        let Some(draft) = self.drafts.remove(&host) else { return };
        // Without a relation there is no draft either.
        let Some(header) = self.hosts.stamp(host) else { return };
        self.metrics.counters.letters_sent.add(draft.letters() as u64);
        let token = self.publish(channel_of(host), draft.finish(&header));
        self.awaited.insert(token, Awaited::Mail(host, Relation(header.mine)));
    }

    fn publish(&mut self, channel: Vec<u8>, payload: Bytes) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        let command = Command::Publish { channel, payload };
        self.outputs.push_back(Output::Command { token, command });
        token
    }

    fn mail_all(&mut self, mail: &FromCluster) {
        for shard in 0..self.shards {
            self.mail(ShardIndex(shard as u8), mail.clone());
        }
    }

    /// Mail to a shard that does not exist was never ours, and is dropped.
    fn mail(&mut self, to: ShardIndex, mail: FromCluster) {
        if to.position() < self.shards {
            self.outputs.push_back(Output::Mail { to, mail });
        }
    }

    fn warn(&mut self, text: String) {
        self.remark(Remark::Warning(text));
    }

    fn remark(&mut self, remark: Remark) {
        self.outputs.push_back(Output::Remark(remark));
    }
}

#[cfg(test)]
mod tests;
