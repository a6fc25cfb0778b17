//! Hosts and a Redis without I/O: what is under way is carried out one thing at a time, in any order that two connections
//! per host allow.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::cluster::codec;
use crate::cluster::desk::Desk;
use crate::cluster::hosts::Hosts;
use crate::cluster::rendezvous::{Letter, News, Request};
use crate::cluster::{
    self, Cluster, Command, Connection, FromCluster, Output, Relation, Reply, Settings, ToCluster, Token,
};
use crate::id::{ClientId, Entropy, HostId, ShardIndex, Slot};
use crate::metrics::ClusterMetrics;
use crate::plant::Planted;
use crate::protocol::rendezvous::Role;

pub(super) const CONNECTION: [u8; 64] = [b'a'; 64];

enum Wish {
    Subscribe(Vec<u8>),
    Unsubscribe(Vec<u8>),
}

enum Push {
    Subscribed(Vec<u8>),
    Message(Vec<u8>, Bytes),
}

/// A host, and what is under way between it and Redis.
pub(super) struct Host {
    pub(super) id: HostId,
    pub(super) cluster: Cluster,
    pub(super) metrics: Arc<ClusterMetrics>,
    pub(super) commands: VecDeque<(Token, Command)>,
    replies: VecDeque<(Token, Reply)>,
    wishes: VecDeque<Wish>,
    /// What it wants to listen to, and what Redis knows of.
    pub(super) channels: BTreeSet<Vec<u8>>,
    subscribed: BTreeSet<Vec<u8>>,
    pushes: VecDeque<Push>,
    /// What its clients got and nobody has looked at.
    pub(super) told: BTreeMap<ClientId, Vec<String>>,
    pub(super) answers: Vec<(ClientId, bool)>,
    /// Pieces of mail with notices for many.
    pub(super) mail_of_notices: usize,
    /// Letters to its shards.
    pub(super) letters: Vec<(HostId, Letter)>,
    /// It stands still, or is dead.
    pub(super) is_still: bool,
    pub(super) is_dead: bool,
    is_connected: bool,
    entropy: Entropy,
    made: u32,
}

/// All hosts, and what is in Redis.
pub(super) struct World {
    pub(super) hosts: Vec<Host>,
    pub(super) sets: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
    pub(super) expiries: BTreeMap<Vec<u8>, u64>,
    /// What was published for clients that are none of ours.
    pub(super) foreign: BTreeMap<Vec<u8>, Vec<String>>,
    /// Whether it refuses all that is about sets.
    pub(super) refuses: bool,
    roll: BTreeSet<Vec<u8>>,
    pub(super) now_ms: u64,
    pub(super) chance: Entropy,
    /// Whom each client knows, for whoever keeps account of it.
    pub(super) views: BTreeMap<ClientId, BTreeSet<String>>,
}

impl World {
    /// Hosts that know each other.
    pub(super) fn new(hosts: u32, has_public_layouts: bool, seed: u64) -> Self {
        let mut world = Self {
            hosts: (0..hosts).map(|number| Host::new(0xa0 + number, has_public_layouts)).collect(),
            sets: BTreeMap::new(),
            expiries: BTreeMap::new(),
            foreign: BTreeMap::new(),
            refuses: false,
            roll: BTreeSet::new(),
            now_ms: 0,
            chance: Entropy::from_seed(seed_of(seed)),
            views: BTreeMap::new(),
        };
        for host in 0..world.hosts.len() {
            world.connect(host);
        }
        // Long enough to know who is gone.
        world.live(6);
        world
    }

    /// Both connections of a host are made.
    pub(super) fn connect(&mut self, host: usize) {
        let now_ms = self.now_ms;
        let host = &mut self.hosts[host];
        if host.is_still || std::mem::replace(&mut host.is_connected, true) {
            return;
        }
        host.wishes = host.channels.iter().cloned().map(Wish::Subscribe).collect();
        host.cluster.handle_connected(Connection::Commands, now_ms);
        host.cluster.handle_connected(Connection::Subscriptions, now_ms);
        host.drain(now_ms);
    }

    /// The connection for what is published is lost, and made anew.
    pub(super) fn lose_subscriptions(&mut self, host: usize) {
        let now_ms = self.now_ms;
        let host = &mut self.hosts[host];
        if host.is_connected && !host.is_still {
            host.pushes.clear();
            host.subscribed.clear();
            // In any order.
            let mut channels: Vec<Vec<u8>> = host.channels.iter().cloned().collect();
            let first = self.chance.below(channels.len());
            channels.rotate_left(first);
            host.wishes = channels.into_iter().map(Wish::Subscribe).collect();
            host.cluster.handle_disconnected(Connection::Subscriptions, now_ms);
            host.cluster.handle_connected(Connection::Subscriptions, now_ms);
            host.drain(now_ms);
        }
    }

    /// What a host's cluster works with, for one that is not there.
    pub(super) fn desk() -> Desk {
        let settings = settings(9, false);
        let me = codec::Sender { host: settings.host, start: settings.start };
        let hosts = Hosts::new(me, settings.planted, 0);
        Desk::new(&settings, hosts, Arc::default(), 0)
    }

    /// A host ends without a word.
    pub(super) fn kill(&mut self, host: usize) {
        let host = &mut self.hosts[host];
        (host.is_still, host.is_dead) = (true, true);
        host.commands.clear();
        host.wishes.clear();
        host.subscribed.clear();
    }

    /// Both connections of a host are lost. Of what it has asked, some was done.
    pub(super) fn disconnect(&mut self, host: usize) {
        for _ in 0..self.chance.below(4) {
            self.execute(host);
        }
        let now_ms = self.now_ms;
        let host = &mut self.hosts[host];
        if !std::mem::replace(&mut host.is_connected, false) {
            return;
        }
        host.pushes.clear();
        host.subscribed.clear();
        host.wishes.clear();
        host.cluster.handle_disconnected(Connection::Commands, now_ms);
        host.cluster.handle_disconnected(Connection::Subscriptions, now_ms);
        let replies = std::mem::take(&mut host.replies).into_iter().map(|(token, _)| token);
        let commands = std::mem::take(&mut host.commands).into_iter().map(|(token, _)| token);
        let failed: Vec<Token> = replies.chain(commands).collect();
        for token in failed {
            host.cluster.handle_reply(token, &Reply::Failed, now_ms);
        }
        host.drain(now_ms);
    }

    /// Redis loses all that it has.
    pub(super) fn restart_empty(&mut self) {
        for host in 0..self.hosts.len() {
            self.disconnect(host);
        }
        self.sets.clear();
        self.expiries.clear();
        self.roll.clear();
        for host in 0..self.hosts.len() {
            self.connect(host);
        }
    }

    /// So many seconds pass, and all that is under way is carried out.
    pub(super) fn live(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.run();
            self.tick(1_000);
        }
        self.run();
    }

    pub(super) fn tick(&mut self, ms: u64) {
        self.now_ms += ms;
        let now_ms = self.now_ms;
        for host in self.hosts.iter_mut().filter(|host| !host.is_still) {
            host.cluster.handle_tick(now_ms);
            host.drain(now_ms);
        }
    }

    /// Carries out all that is under way.
    pub(super) fn run(&mut self) {
        while self.step() {}
    }

    /// Carries out one thing, if there is any.
    pub(super) fn step(&mut self) -> bool {
        let mut ready = Vec::new();
        for (host, it) in self.hosts.iter().enumerate() {
            let has = [
                !it.commands.is_empty(),
                !it.replies.is_empty() && !it.is_still,
                !it.wishes.is_empty(),
                !it.pushes.is_empty() && !it.is_still,
            ];
            ready.extend((0..has.len()).filter(|kind| has[*kind]).map(|kind| (host, kind)));
        }
        if ready.is_empty() {
            return false;
        }
        let (host, kind) = ready[self.chance.below(ready.len())];
        match kind {
            0 => self.execute(host),
            1 => self.reply(host),
            2 => self.hosts[host].fulfil(),
            _ => self.push(host),
        }
        true
    }

    /// Redis carries out the next command of a host.
    pub(super) fn execute(&mut self, host: usize) {
        let Some((token, command)) = self.hosts[host].commands.pop_front() else { return };
        let is_of_sets = !matches!(command, Command::Publish { .. } | Command::Run { .. });
        let reply = if self.refuses && is_of_sets { Reply::Failed } else { self.reply_to(command) };
        self.hosts[host].replies.push_back((token, reply));
    }

    /// A host learns of the next reply.
    pub(super) fn reply(&mut self, host: usize) {
        let now_ms = self.now_ms;
        let host = &mut self.hosts[host];
        if let Some((token, reply)) = host.replies.pop_front() {
            host.cluster.handle_reply(token, &reply, now_ms);
            host.drain(now_ms);
        }
    }

    /// Keeps the last reply of Redis back.
    pub(super) fn take_reply(&mut self, host: usize) -> (Token, Reply) {
        self.hosts[host].replies.pop_back().expect("there is one")
    }

    /// Hands in a reply that was kept back.
    pub(super) fn give_reply(&mut self, host: usize, reply: (Token, Reply)) {
        self.hosts[host].replies.push_front(reply);
        self.reply(host);
    }

    fn push(&mut self, host: usize) {
        let now_ms = self.now_ms;
        let host = &mut self.hosts[host];
        match host.pushes.pop_front() {
            Some(Push::Subscribed(channel)) => host.cluster.handle_subscribed(&channel, now_ms),
            Some(Push::Message(channel, payload)) => host.cluster.handle_push(&channel, &payload, now_ms),
            None => {}
        }
        host.drain(now_ms);
    }

    fn reply_to(&mut self, command: Command) -> Reply {
        match command {
            Command::SetAdd { key, member, expire_s } => {
                self.expiries.insert(key.clone(), expire_s.expect("it expires"));
                Reply::Integer(self.sets.entry(key).or_default().insert(member).into())
            }
            Command::SetRemove { key, member } => {
                Reply::Integer(self.sets.entry(key).or_default().remove(&member).into())
            }
            Command::SetMembers { key } => {
                Reply::List(self.sets.get(&key).into_iter().flatten().cloned().collect())
            }
            Command::SetContains { key, member } => {
                Reply::Integer(self.sets.get(&key).is_some_and(|set| set.contains(&member)).into())
            }
            Command::Publish { channel, payload } => Reply::Integer(self.publish(&channel, &payload)),
            Command::Run { arguments, .. } => {
                self.roll.insert(arguments[0].clone());
                Reply::List(self.roll.iter().cloned().collect())
            }
            other => panic!("{other:?}"),
        }
    }

    /// Publishes something. Returns how many hosts listen.
    pub(super) fn publish(&mut self, channel: &[u8], payload: &Bytes) -> i64 {
        let mut listeners = 0;
        for host in self.hosts.iter_mut().filter(|host| host.subscribed.contains(channel) && !host.is_dead) {
            host.pushes.push_back(Push::Message(channel.to_vec(), payload.clone()));
            listeners += 1;
        }
        if let Some(told) = self.foreign.get_mut(channel) {
            told.push(String::from_utf8(payload.to_vec()).expect("UTF-8"));
        }
        listeners
    }

    // What clients do.

    pub(super) fn arrive(&mut self, host: usize, role: Role) -> ClientId {
        self.arrive_at(host, CONNECTION, role)
    }

    pub(super) fn arrive_at(&mut self, host: usize, connection: [u8; 64], role: Role) -> ClientId {
        let client = self.hosts[host].new_client();
        self.request(host, Request::Arrived { client, connection, role });
        client
    }

    pub(super) fn leave(&mut self, host: usize, client: ClientId) {
        self.request(host, Request::Left { client });
    }

    pub(super) fn request(&mut self, host: usize, request: Request) {
        let now_ms = self.now_ms;
        let host = &mut self.hosts[host];
        host.cluster.handle_mail(ShardIndex(0), ToCluster::Rendezvous(request), now_ms);
        host.drain(now_ms);
    }

    /// A host says something to another's cluster, as nobody of ours would.
    pub(super) fn forge(&mut self, from: usize, to: usize, letter: Letter) {
        let (now_ms, to) = (self.now_ms, self.hosts[to].id);
        let host = &mut self.hosts[from];
        let relation: Relation = host.cluster.hosts().relation(to).expect("they know each other");
        let letter = cluster::Letter::Rendezvous(letter);
        let mail = ToCluster::Letter { to, relation, shard: cluster::CLUSTER, letter };
        host.cluster.handle_mail(ShardIndex(0), mail, now_ms);
        host.drain(now_ms);
    }

    /// What a client got since it was last looked at.
    pub(super) fn told(&mut self, host: usize, client: ClientId) -> Vec<String> {
        self.hosts[host].told.remove(&client).unwrap_or_default()
    }

    pub(super) fn members(&self, set: &str) -> Vec<String> {
        let members = self.sets.get(set.as_bytes()).into_iter().flatten();
        members.map(|member| String::from_utf8(member.clone()).expect("UTF-8")).collect()
    }

    /// A foreign client is in a set, and listens.
    pub(super) fn add_foreign(&mut self, set: &str, id: &str) {
        self.sets.entry(set.into()).or_default().insert(id.into());
        self.foreign.insert(id.into(), Vec::new());
    }
}

impl Host {
    fn new(number: u32, has_public_layouts: bool) -> Self {
        let metrics = Arc::new(ClusterMetrics::default());
        let settings = settings(number, has_public_layouts);
        let mut host = Self {
            id: HostId(number),
            cluster: Cluster::new(&settings, Arc::clone(&metrics), 0),
            metrics,
            commands: VecDeque::new(),
            replies: VecDeque::new(),
            wishes: VecDeque::new(),
            channels: BTreeSet::new(),
            subscribed: BTreeSet::new(),
            pushes: VecDeque::new(),
            told: BTreeMap::new(),
            answers: Vec::new(),
            mail_of_notices: 0,
            letters: Vec::new(),
            is_still: false,
            is_dead: false,
            is_connected: false,
            entropy: Entropy::from_seed([number as u8; 32]),
            made: 0,
        };
        host.drain(0);
        host
    }

    pub(super) fn new_client(&mut self) -> ClientId {
        self.made += 1;
        ClientId::new(self.id, ShardIndex(0), Slot(self.made), &mut self.entropy)
    }

    /// Subscribes to the next channel, or no longer.
    fn fulfil(&mut self) {
        match self.wishes.pop_front() {
            Some(Wish::Subscribe(channel)) => {
                self.subscribed.insert(channel.clone());
                self.pushes.push_back(Push::Subscribed(channel));
            }
            Some(Wish::Unsubscribe(channel)) => {
                self.subscribed.remove(&channel);
            }
            None => {}
        }
    }

    /// Takes note of what the cluster asks for.
    pub(super) fn drain(&mut self, now_ms: u64) {
        self.cluster.handle_turn_end();
        while let Some(output) = self.cluster.poll_output() {
            match output {
                Output::Command { token, .. } if !self.is_connected => {
                    self.cluster.handle_reply(token, &Reply::Failed, now_ms);
                    self.cluster.handle_turn_end();
                }
                Output::Command { token, command } => self.commands.push_back((token, command)),
                // Another dialect's.
                Output::Subscribe(channel) if channel == b"webrtc:signal" => {}
                Output::Subscribe(channel) => {
                    self.channels.insert(channel.clone());
                    if self.is_connected {
                        self.wishes.push_back(Wish::Subscribe(channel));
                    }
                }
                Output::Unsubscribe(channel) => {
                    self.channels.remove(&channel);
                    if self.is_connected {
                        self.wishes.push_back(Wish::Unsubscribe(channel));
                    }
                }
                Output::Resubscribe => {
                    self.subscribed.clear();
                    self.pushes.clear();
                    self.wishes = self.channels.iter().cloned().map(Wish::Subscribe).collect();
                }
                Output::Mail { mail, .. } => self.note(mail),
                Output::Remark(_) => {}
            }
        }
    }

    fn note(&mut self, mail: FromCluster) {
        match mail {
            FromCluster::Rendezvous(
                News::Deliver { to, payload } | News::DeliverPublished { to, payload },
            ) => {
                let text = String::from_utf8(payload.to_vec()).expect("UTF-8");
                self.told.entry(to).or_default().push(text);
            }
            FromCluster::Rendezvous(News::DeliverAll(notices)) => {
                self.mail_of_notices += 1;
                for (to, payload) in notices {
                    self.note(FromCluster::Rendezvous(News::Deliver { to, payload }));
                }
            }
            FromCluster::Rendezvous(News::Answer { to, number: 7, is_sent }) => {
                self.answers.push((to, is_sent));
            }
            FromCluster::Letter(from, cluster::Letter::Rendezvous(letter)) => {
                self.letters.push((from, letter));
            }
            _ => {}
        }
    }
}

fn seed_of(number: u64) -> [u8; 32] {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    seed
}

fn settings(host: u32, has_public_layouts: bool) -> Settings {
    Settings {
        host: HostId(host),
        start: 1,
        shards: 1,
        has_public_layouts,
        seed: [host as u8; 32],
        planted: Planted::default(),
    }
}
