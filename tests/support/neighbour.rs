//! A host that the test plays: the real logic, on connections of the test's own, with nobody behind it. What it is told
//! can be looked at, and it says whatever it is made to say.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parlor::cluster::{
    Cluster, Command, Connection as Way, FromCluster, Letter, Output, Reply, Settings, ToCluster, Token,
};
use parlor::id::{HostId, ShardIndex};
use parlor::metrics::ClusterMetrics;
use parlor::plant::Planted;

use super::WAIT;
use super::redis::{Connection, Redis, Value};

/// A host with one shard.
pub(crate) struct Neighbour {
    cluster: Cluster,
    commands: Connection,
    subscriptions: Connection,
    started: Instant,
    /// What its shard was told and nobody has looked at.
    pub(crate) told: Vec<FromCluster>,
}

impl Neighbour {
    /// Connects.
    pub(crate) fn start(redis: &Redis, host: u32) -> Self {
        let settings = Settings {
            host: HostId(host),
            start: 1,
            shards: 1,
            has_public_layouts: true,
            seed: [7; 32],
            planted: Planted::default(),
        };
        let connect = || redis.connect().expect("Redis is there");
        let mut neighbour = Self {
            cluster: Cluster::new(&settings, Arc::new(ClusterMetrics::default()), 0),
            commands: connect(),
            subscriptions: connect(),
            started: Instant::now(),
            told: Vec::new(),
        };
        neighbour.cluster.handle_connected(Way::Commands, 0);
        neighbour.drain();
        neighbour
    }

    /// Lives until it is told this.
    pub(crate) fn wait_for(&mut self, awaited: &str, is_it: impl Fn(&FromCluster) -> bool) -> FromCluster {
        let start = Instant::now();
        loop {
            if let Some(at) = self.told.iter().position(&is_it) {
                return self.told.remove(at);
            }
            assert!(start.elapsed() < WAIT, "waited {WAIT:?} for {awaited}, told were {:?}", self.told);
            self.live(Duration::from_millis(50));
        }
    }

    /// Lives until it has found this host.
    pub(crate) fn wait_for_host(&mut self, host: HostId) {
        self.wait_for("a host", |told| matches!(told, FromCluster::HostFound(found, _) if *found == host));
    }

    /// Sends a letter, as one of its shards would.
    pub(crate) fn post(&mut self, to: HostId, shard: ShardIndex, letter: Letter) {
        let relation = self.cluster.hosts().relation(to).expect("it was found");
        let mail = ToCluster::Letter { to, relation, shard, letter };
        self.cluster.handle_mail(ShardIndex(0), mail, self.now_ms());
        self.cluster.handle_turn_end();
        self.drain();
    }

    /// Publishes anything.
    pub(crate) fn publish(&mut self, channel: &[u8], payload: &[u8]) {
        self.commands.ask(&[b"PUBLISH", channel, payload]).expect("Redis is there");
    }

    /// Says that it leaves.
    pub(crate) fn leave(&mut self) {
        self.cluster.handle_shutdown(self.now_ms());
        self.drain();
    }

    /// Listens for so long.
    pub(crate) fn live(&mut self, time: Duration) {
        self.cluster.handle_tick(self.now_ms());
        self.drain();
        if self.subscriptions.has_news(time) {
            let news = self.subscriptions.next().expect("Redis is there");
            self.listen(news);
        }
    }

    fn listen(&mut self, news: Value) {
        let Value::List(items) = news else { panic!("{news:?}") };
        match &items[..] {
            [Value::Bytes(kind), Value::Bytes(channel), Value::Integer(_)] if kind == b"subscribe" => {
                self.cluster.handle_subscribed(channel, self.now_ms());
            }
            [Value::Bytes(kind), Value::Bytes(channel), Value::Bytes(payload)] if kind == b"message" => {
                self.cluster.handle_push(channel, &Bytes::copy_from_slice(payload), self.now_ms());
            }
            other => panic!("{other:?}"),
        }
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.cluster.poll_output() {
            match output {
                Output::Command { token, command: Command::Publish { channel, payload } } => {
                    self.publish(&channel, &payload);
                    self.answer(token);
                }
                Output::Command { token, command: Command::Run { script, keys, arguments } } => {
                    let count = keys.len().to_string();
                    let mut words = vec![b"EVAL".as_slice(), script.source.as_bytes(), count.as_bytes()];
                    words.extend(keys.iter().chain(&arguments).map(Vec::as_slice));
                    let reply = Reply::from(self.commands.ask(&words).expect("Redis is there"));
                    self.cluster.handle_reply(token, &reply, self.now_ms());
                }
                Output::Subscribe(channel) => {
                    self.subscriptions.say(&[b"SUBSCRIBE", &channel]).expect("Redis is there");
                }
                Output::Mail { mail, .. } => self.told.push(mail),
                Output::Remark(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn answer(&mut self, token: Token) {
        self.cluster.handle_reply(token, &Reply::Done, self.now_ms());
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}
