//! The cluster's part of a host: what comes in, and which part of it that is for.

use std::sync::Arc;

use bytes::Bytes;

use super::codec::{self, Draft, Message, Sender};
use super::desk::{Awaited, Desk};
use super::directory::Directory;
use super::hosts::{Event, Hosts, Why};
use super::introductions::Introductions;
use super::pairing::Pairing;
use super::pipes::Pipes;
use super::rendezvous::Rendezvous;
use super::rooms::Rooms;
use super::{CLUSTER, Connection, FromCluster, Letter, Output, Remark, Reply, ToCluster, Token};
use crate::id::{HostId, ShardIndex};
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
    /// Whether the layouts that originals share are used (`REDIS_PUBLIC_LAYOUTS`).
    pub has_public_layouts: bool,
    /// For the ids that it makes.
    pub seed: [u8; 32],
    /// A bug for a test to find.
    pub planted: Planted,
}

/// The cluster's part of one host.
#[derive(Debug)]
pub struct Cluster {
    desk: Desk,
    pairing: Pairing,
    rendezvous: Rendezvous,
    directory: Directory,
    rooms: Rooms,
    introductions: Introductions,
    pipes: Pipes,
    own_channel: Vec<u8>,
    /// Whether the connection for commands is there, and the heartbeats and our own channel are subscribed.
    can_ask: bool,
    hears_all: bool,
    hears_own: bool,
    /// What the shards were last told.
    is_online: bool,
    has_refused: bool,
}

impl Cluster {
    /// A host that knows nobody yet.
    #[must_use]
    pub fn new(settings: &Settings, metrics: Arc<ClusterMetrics>, now_ms: u64) -> Self {
        let me = Sender { host: settings.host, start: settings.start };
        let own_channel = channel_of(settings.host);
        let mut desk = Desk::new(settings, Hosts::new(me, settings.planted, now_ms), metrics, now_ms);
        desk.subscribe(HEARTBEAT_CHANNEL.to_vec());
        desk.subscribe(own_channel.clone());
        let pairing = Pairing::new(&mut desk);
        Self {
            desk,
            pairing,
            rendezvous: Rendezvous::default(),
            directory: Directory::default(),
            rooms: Rooms::default(),
            introductions: Introductions::default(),
            pipes: Pipes::default(),
            own_channel,
            can_ask: false,
            hears_all: false,
            hears_own: false,
            is_online: false,
            has_refused: false,
        }
    }

    /// A connection has been made.
    pub fn handle_connected(&mut self, connection: Connection, now_ms: u64) {
        self.desk.now_ms = now_ms;
        match connection {
            Connection::Commands => {
                self.can_ask = true;
                self.desk.hosts.handle_publishing(true, now_ms);
                self.desk.roll.handle_connected();
                self.call_the_roll();
            }
            // It counts from when our channels are subscribed.
            Connection::Subscriptions => {}
        }
        self.settle();
    }

    /// A connection is lost. Of all commands without a reply [`Reply::Failed`] is handed in.
    pub fn handle_disconnected(&mut self, connection: Connection, now_ms: u64) {
        self.desk.now_ms = now_ms;
        match connection {
            Connection::Commands => {
                self.can_ask = false;
                self.desk.hosts.handle_publishing(false, now_ms);
            }
            Connection::Subscriptions => {
                (self.hears_all, self.hears_own) = (false, false);
                self.desk.hosts.handle_unsubscribed(now_ms);
                self.pairing.handle_unsubscribed();
            }
        }
        self.settle();
    }

    /// Redis has answered, or has not.
    pub fn handle_reply(&mut self, token: Token, reply: &Reply, now_ms: u64) {
        self.desk.now_ms = now_ms;
        match (self.desk.take_awaited(token), reply) {
            (Some(Awaited::Mail(host, relation)), Reply::Failed) => {
                self.desk.hosts.handle_unpublished(host, relation, now_ms);
            }
            (Some(Awaited::Roll), Reply::List(hosts)) => self.handle_roll(hosts),
            // It is read again with the next connection, or soon.
            (Some(Awaited::Roll), _) => self.desk.roll.handle_failed(),
            (Some(Awaited::Pairing(awaited)), reply) => {
                self.pairing.handle_reply(awaited, reply, &mut self.desk);
            }
            (Some(Awaited::Rendezvous(awaited)), reply) => {
                self.rendezvous.handle_reply(awaited, reply, &mut self.desk);
            }
            (Some(Awaited::Directory(awaited)), reply) => {
                self.directory.handle_reply(awaited, reply, &mut self.desk);
            }
            (Some(Awaited::Rooms(awaited)), reply) => self.rooms.handle_reply(awaited, reply, &mut self.desk),
            (Some(Awaited::Introductions(awaited)), reply) => {
                self.introductions.handle_reply(awaited, reply, &mut self.desk);
            }
            (Some(Awaited::Pipes(awaited)), reply) => self.pipes.handle_reply(awaited, reply, &mut self.desk),
            (Some(Awaited::Mail(..)) | None, _) => {}
        }
        self.settle();
    }

    /// This channel is subscribed, for the first time or again.
    pub fn handle_subscribed(&mut self, channel: &[u8], now_ms: u64) {
        self.desk.now_ms = now_ms;
        let before = self.hears_all && self.hears_own;
        self.hears_all |= channel == HEARTBEAT_CHANNEL;
        self.hears_own |= channel == self.own_channel;
        if !before && self.hears_all && self.hears_own {
            self.desk.hosts.handle_subscribed(now_ms);
        }
        self.settle();
        self.pairing.handle_subscribed(channel, &mut self.desk);
        self.rendezvous.handle_subscribed(channel, &mut self.desk);
        self.directory.handle_subscribed(channel, &mut self.desk);
        self.settle();
    }

    /// Something was published in a channel that is subscribed.
    pub fn handle_push(&mut self, channel: &[u8], payload: &Bytes, now_ms: u64) {
        self.desk.now_ms = now_ms;
        if channel == HEARTBEAT_CHANNEL || channel == self.own_channel {
            self.handle_message(payload, now_ms);
        } else {
            let desk = &mut self.desk;
            // Whoever knows the channel takes it.
            let _ = self.pairing.handle_push(channel, payload, desk)
                || self.rendezvous.handle_push(channel, payload, desk)
                || self.directory.handle_push(channel, payload, desk);
        }
        self.settle();
    }

    /// A shard asks for something.
    pub fn handle_mail(&mut self, from: ShardIndex, mail: ToCluster, now_ms: u64) {
        self.desk.now_ms = now_ms;
        self.desk.hosts.handle_time(now_ms);
        self.settle();
        match mail {
            ToCluster::Letter { to, relation, shard, letter } => {
                let is_current = self.desk.hosts.relation(to) == Some(relation);
                if !is_current || !self.desk.write(to, shard, &letter) {
                    self.desk.metrics.counters.letters_dropped.add(1);
                }
            }
            ToCluster::Pairing(request) => self.pairing.handle_request(from, request, &mut self.desk),
            ToCluster::Rendezvous(request) => self.rendezvous.handle_request(from, request, &mut self.desk),
            ToCluster::Directory(request) => self.directory.handle_request(from, request, &mut self.desk),
            ToCluster::Rooms(request) => self.rooms.handle_request(from, request, &mut self.desk),
            ToCluster::Introductions(request) => {
                self.introductions.handle_request(from, request, &mut self.desk);
            }
            ToCluster::Pipes(request) => self.pipes.handle_request(from, request, &mut self.desk),
        }
        self.settle();
    }

    /// Time has passed. Called several times a second.
    pub fn handle_tick(&mut self, now_ms: u64) {
        self.desk.now_ms = now_ms;
        self.desk.hosts.handle_tick(now_ms);
        self.settle();
        self.pairing.handle_tick(&mut self.desk);
        self.rendezvous.handle_tick(&mut self.desk);
        self.directory.handle_tick(&mut self.desk);
        self.rooms.handle_tick(&mut self.desk);
        self.settle();
    }

    /// All that came in one turn was handled: letters are sent.
    pub fn handle_turn_end(&mut self) {
        self.desk.send_drafts();
    }

    /// The server shuts down: the others are told that all our clients have left.
    pub fn handle_shutdown(&mut self, now_ms: u64) {
        self.desk.now_ms = now_ms;
        self.pairing.handle_shutdown(&mut self.desk);
        self.rendezvous.handle_shutdown(&mut self.desk);
        self.desk.hosts.handle_leaving(now_ms);
        self.settle();
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.desk.poll_output()
    }

    /// The others, as this host sees them, for checks.
    #[must_use]
    pub fn hosts(&self) -> &Hosts {
        &self.desk.hosts
    }

    /// Redis has said which hosts there are.
    fn handle_roll(&mut self, hosts: &[Vec<u8>]) {
        if self.desk.roll.handle_reply(hosts) {
            self.rendezvous.handle_roll(&mut self.desk);
        }
    }

    fn call_the_roll(&mut self) {
        let command = self.desk.roll.command(self.desk.me, self.desk.now_ms);
        self.desk.ask(Awaited::Roll, command);
    }

    /// A message has come in one of our own channels.
    fn handle_message(&mut self, payload: &Bytes, now_ms: u64) {
        match codec::decode(payload) {
            Ok(Message::Heartbeat(heartbeat)) => {
                self.desk.roll.add(heartbeat.sender.host);
                self.desk.hosts.handle_heartbeat(&heartbeat, now_ms);
            }
            Ok(Message::Mail(mail)) => {
                let (host, count) = (mail.header.sender.host, mail.letters.len());
                let is_accepted = self.desk.hosts.handle_mail(&mail.header, count > 0, now_ms);
                // A relation that begins is told before its first letter.
                self.settle();
                if is_accepted {
                    self.desk.metrics.counters.letters_received.add(count as u64);
                    for (shard, letter) in mail.letters {
                        self.handle_letter(host, shard, letter);
                    }
                }
            }
            Err(error) => {
                self.desk.metrics.counters.messages_refused.add(1);
                match error {
                    codec::Error::Older(sender, version) | codec::Error::Newer(sender, version) => {
                        self.desk.hosts.handle_refused(sender, version);
                    }
                    error if !std::mem::replace(&mut self.has_refused, true) => {
                        self.desk.warn(format!(
                            "a message in our channels is none: {error}; later ones are counted"
                        ));
                    }
                    _ => {}
                }
            }
        }
    }

    /// A letter has come: for a shard, or for us.
    fn handle_letter(&mut self, from: HostId, to: ShardIndex, letter: Letter) {
        // A message to a shard that is not there is answered all the same: its sender waits for it.
        let is_nowhere = to.position() >= self.desk.shards && matches!(letter, Letter::Rendezvous(_));
        if to != CLUSTER && !is_nowhere {
            return self.desk.mail(to, FromCluster::Letter(from, letter));
        }
        match letter {
            // They are for shards.
            Letter::Note(_) | Letter::Frame { .. } | Letter::Introductions(_) | Letter::Pipes(_) => {}
            Letter::Pairing(letter) => self.pairing.handle_letter(from, letter, &mut self.desk),
            Letter::Rendezvous(letter) => self.rendezvous.handle_letter(from, letter, &mut self.desk),
            Letter::Directory(letter) => self.directory.handle_letter(from, letter, &mut self.desk),
            Letter::Rooms(letter) => self.rooms.handle_letter(from, letter, &mut self.desk),
        }
    }

    /// Carries out what follows for the hosts.
    fn settle(&mut self) {
        while let Some(event) = self.desk.hosts.poll_event() {
            match event {
                Event::Beat(heartbeat) => {
                    self.desk.publish(HEARTBEAT_CHANNEL.to_vec(), codec::encode_heartbeat(&heartbeat));
                }
                Event::Tell(host, header) => {
                    self.desk.publish(channel_of(host), Draft::default().finish(&header));
                }
                Event::Found(host, relation) => {
                    self.desk.remark(Remark::Info(format!("host {host} is there")));
                    self.desk.mail_all(&FromCluster::HostFound(host, relation));
                    self.pairing.handle_host_found(host, &mut self.desk);
                    self.rendezvous.handle_host_found(host, &mut self.desk);
                    self.directory.handle_host_found(host, &mut self.desk);
                }
                Event::Gone(host, why) => self.handle_gone(host, why),
                Event::Missed(host) => self.rendezvous.handle_host_missed(host),
                Event::Resubscribe => {
                    (self.hears_all, self.hears_own) = (false, false);
                    self.desk.warn("our own heartbeat does not come back, subscribing anew".into());
                    self.desk.resubscribe();
                }
                Event::Refused(host, version) => self.desk.warn(format!(
                    "host {host} speaks version {version} and this one {}: they do not work together",
                    codec::VERSION
                )),
                Event::Crowded => self.desk.warn("there are too many hosts, new ones are ignored".into()),
                Event::Twin => {
                    self.desk.warn("another host has the id of this one: restart one of them".into());
                }
            }
        }
        self.say_how_it_stands();
        if self.can_ask && self.desk.roll.is_due(self.desk.now_ms) {
            self.call_the_roll();
        }
    }

    /// A relation has ended.
    fn handle_gone(&mut self, host: HostId, why: Why) {
        self.desk.drop_draft(host);
        self.desk.roll.doubt();
        self.desk.metrics.counters.relations_ended.add(1);
        self.desk.remark(Remark::Info(format!("host {host} is gone: {why}")));
        self.desk.mail_all(&FromCluster::HostGone(host));
        self.pairing.handle_host_gone(host, why, &mut self.desk);
        self.rendezvous.handle_host_gone(host, why, &mut self.desk);
        self.directory.handle_host_gone(host, why, &mut self.desk);
    }

    /// Brings the numbers up to date, and tells the parts whether Redis can be worked with, and the shards whether other
    /// hosts can be reached.
    fn say_how_it_stands(&mut self) {
        self.desk.metrics.set_returned(self.desk.hosts.returned_ms());
        self.desk.metrics.counters.hosts.set(self.desk.hosts.found() as u64);
        self.note_whether_up();
        let is_online = self.desk.hosts.is_proven();
        if self.is_online != is_online {
            self.is_online = is_online;
            self.desk.mail_all(&FromCluster::Online(is_online));
        }
    }

    /// Tells the parts when Redis can be worked with, and when not.
    fn note_whether_up(&mut self) {
        let is_up = self.can_ask && self.hears_all && self.hears_own && self.desk.roll.is_read();
        if std::mem::replace(&mut self.desk.is_up, is_up) == is_up {
            return;
        }
        if is_up {
            self.pairing.handle_up(&mut self.desk);
            self.rendezvous.handle_up(&mut self.desk);
            self.directory.handle_up(&mut self.desk);
            self.rooms.handle_up(&mut self.desk);
            self.introductions.handle_up(&mut self.desk);
            self.pipes.handle_up(&mut self.desk);
        } else {
            self.pairing.handle_down(&mut self.desk);
            self.directory.handle_down(&mut self.desk);
            self.rooms.handle_down();
            self.introductions.handle_down(&mut self.desk);
            self.pipes.handle_down(&mut self.desk);
        }
    }
}

#[cfg(test)]
mod tests;
