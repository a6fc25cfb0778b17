//! Failover behind one address (docs/SCALING.md): a primary and its replica, real ones, and an address that leads to the
//! one that is primary. Whatever becomes of the old primary, the hosts end up at the new one, and all is registered there.

mod support;

use std::time::{Duration, Instant};

use support::dialects::Peer;
use support::forwarder::Forwarder;
use support::redis::{Redis, Value};
use support::{Client, PARTNER_LEFT, Server, Setup, WAIT, get, matched, on_each_driver, pair_up, wait_until};

on_each_driver!(
    the_primary_dies,
    the_primary_is_demoted_in_place,
    the_primary_hands_over,
    the_primary_is_demoted_before_the_address_moves,
);

const AVAILABLE: &str = r#"{"type":"available"}"#;
/// A host is ready so soon after it can reach a primary again.
const BACK: Duration = Duration::from_secs(2);
/// What a busy machine may take on top of it.
const SLACK: Duration = Duration::from_secs(3);

/// A primary with a replica, two hosts that reach them by one address, and clients on both hosts.
struct Scene {
    old: Redis,
    new: Redis,
    way: Forwarder,
    hosts: [Server; 2],
    /// Partners in pairing.
    couple: [Client; 2],
    /// A wallet and an extension, and which id each knows the other by.
    roles: [Role; 2],
}

struct Role {
    peer: Peer,
    other: Option<String>,
}

fn key() -> String {
    "0123456789abcdef".repeat(4)
}

fn address_of(redis: &Redis) -> (String, String) {
    (redis.address.ip().to_string(), redis.address.port().to_string())
}

fn is_ready(host: &Server) -> bool {
    get(host.address, "/readyz").status == 200
}

/// One line of `INFO replication`.
fn replication(redis: &Redis, name: &str) -> String {
    let Value::Bytes(text) = redis.ask(&["INFO", "replication"]) else { panic!("a text") };
    let text = String::from_utf8(text).expect("UTF-8");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_default().to_owned()
}

fn replicate(replica: &Redis, primary: &Redis) {
    let (host, port) = address_of(primary);
    assert_eq!(replica.ask(&["REPLICAOF", &host, &port]), Value::Text("OK".into()));
}

fn promote(redis: &Redis) {
    assert_eq!(redis.ask(&["REPLICAOF", "NO", "ONE"]), Value::Text("OK".into()));
}

fn members_of(redis: &Redis, set: &str) -> Vec<Value> {
    let Value::List(items) = redis.ask(&["SMEMBERS", set]) else { panic!("{set} is no set") };
    items
}

/// Connections of a kind, without the one that asks.
fn connections(redis: &Redis, kind: &str) -> usize {
    let Value::Bytes(text) = redis.ask(&["CLIENT", "LIST", "TYPE", kind]) else { panic!("a text") };
    let all = String::from_utf8(text).expect("UTF-8");
    all.lines().filter(|line| !line.contains("cmd=client|list") && !line.contains("cmd=client ")).count()
}

impl Role {
    fn open(host: &Server, source: &str, target: &str) -> Self {
        Self { peer: Peer::open(host, &format!("/{}?source={source}&target={target}", key())), other: None }
    }

    /// Takes note of what it was told.
    fn listen(&mut self) {
        for text in self.peer.drain() {
            let id = |info: &str| {
                let start = format!(r#"{{"info":"{info}","remoteClientId":""#);
                text.strip_prefix(&*start).and_then(|rest| rest.strip_suffix("\"}")).map(str::to_owned)
            };
            let came = id("remoteClientIsAlreadyConnected").or_else(|| id("remoteClientJustConnected"));
            match (came, id("remoteClientDisconnected")) {
                (Some(id), None) if self.other.is_none() => self.other = Some(id),
                (None, Some(id)) if self.other.as_ref() == Some(&id) => self.other = None,
                _ => panic!("{} knows {:?} and is told {text}", self.peer.name, self.other),
            }
        }
    }
}

impl Scene {
    fn start(setup: Setup) -> Self {
        let (old, new) = (Redis::start(), Redis::start());
        replicate(&new, &old);
        wait_until("the replica to follow", || replication(&new, "master_link_status") == "up");
        let way = Forwarder::start(old.address);
        let hosts = [setup, Setup::EPOLL_4].map(|setup| Server::start(setup, &[("REDIS_URL", &way.url())]));
        for host in &hosts {
            host.wait_for_metric("parlor_hosts", 1);
        }
        let mut couple = [0, 1].map(|host: usize| Client::connect(&hosts[host]));
        let [one, other] = &mut couple;
        pair_up(one, other);
        let roles =
            [Role::open(&hosts[0], "wallet", "extension"), Role::open(&hosts[1], "extension", "wallet")];
        let mut scene = Self { old, new, way, hosts, couple, roles };
        scene.wait_until_roles_meet();
        scene.talk();
        scene
    }

    /// Each dialect carries something across, both ways.
    fn talk(&mut self) {
        for (from, to) in [(0, 1), (1, 0)] {
            self.couple[from].send(r#"{"type":"offer","sdp":1}"#);
            let offer = format!(r#"{{"type":"offer","from":"{}","sdp":1}}"#, self.couple[from].id);
            self.couple[to].expect(&offer);
            let id_of = |role: usize| self.roles[1 - role].other.clone().expect("it is there");
            let (sender, target) = (id_of(from), id_of(to));
            let message = format!(
                r#"{{"requestId":"1","method":"offer","encryptedPayload":"x","targetClientId":"{target}"}}"#
            );
            self.roles[from].peer.send(&message);
            self.roles[to].peer.expect(&format!(
                r#"{{"info":"remoteData","data":{message},"remoteClientId":"{sender}","requestId":"1"}}"#
            ));
            self.roles[from].peer.expect(r#"{"info":"confirmation","requestId":"1"}"#);
        }
    }

    fn wait_until_roles_meet(&mut self) {
        wait_until("the two roles to know each other", || {
            self.roles.iter_mut().for_each(Role::listen);
            self.roles.iter().all(|role| role.other.is_some())
        });
    }

    /// The partners, who were told that they have lost each other, are matched again.
    fn wait_until_couple_meets(&mut self, mut rooms: [Option<String>; 2]) {
        let start = Instant::now();
        while rooms[0].is_none() || rooms[0] != rooms[1] {
            assert!(start.elapsed() < WAIT, "waited {WAIT:?} for a match, rooms are {rooms:?}");
            for (client, room) in self.couple.iter_mut().zip(&mut rooms) {
                for text in client.drain() {
                    *room = match matched(&text) {
                        Some(matched) if room.is_none() => Some(matched.room),
                        None if text == PARTNER_LEFT && room.is_some() => None,
                        _ => panic!("{} in {room:?} is told {text}", client.id),
                    };
                }
            }
        }
    }

    /// All is at the new primary: connections, registrations, traffic.
    fn expect_new(&mut self) {
        wait_until("the hosts to leave the old primary", || {
            connections(&self.old, "normal") == 0 && connections(&self.old, "pubsub") == 0
        });
        self.expect_all_works();
    }

    fn expect_all_works(&mut self) {
        for host in &self.hosts {
            host.wait_for_metric("parlor_hosts", 1);
        }
        let before = ["before", "before, too"].map(|room| Some(room.to_owned()));
        self.wait_until_couple_meets(before);
        self.wait_until_roles_meet();
        self.talk();
        for role in ["wallet", "extension"] {
            assert_eq!(members_of(&self.new, &format!("{}:{role}", key())).len(), 1, "{role}");
        }
        assert_eq!(self.new.ask(&["ZCARD", "parlor:hosts"]), Value::Integer(2));
        assert_eq!(self.new.ask(&["LLEN", "webrtc:waiting"]), Value::Integer(0));
        // Whoever comes now finds the others.
        let [mut one, mut other] = [1, 0].map(|host: usize| Client::connect(&self.hosts[host]));
        pair_up(&mut one, &mut other);
    }

    /// From now on a primary can be reached.
    fn expect_ready_soon(&self) {
        let start = Instant::now();
        wait_until("all hosts to be ready", || self.hosts.iter().all(is_ready));
        assert!(start.elapsed() < BACK + SLACK, "{:?}:\n{}", start.elapsed(), self.hosts[0].log());
    }
}

fn the_primary_dies(setup: Setup) {
    let mut scene = Scene::start(setup);
    scene.old.stop();
    wait_until("no host to be ready", || !scene.hosts.iter().any(is_ready));
    promote(&scene.new);
    scene.way.turn(Some(scene.new.address));
    scene.expect_ready_soon();
    scene.expect_all_works();
}

/// It says -READONLY from then on, and cuts nobody.
fn the_primary_is_demoted_in_place(setup: Setup) {
    let mut scene = Scene::start(setup);
    promote(&scene.new);
    replicate(&scene.old, &scene.new);
    wait_until("the old primary to follow", || replication(&scene.old, "master_link_status") == "up");
    scene.way.turn(Some(scene.new.address));
    // As long as nobody writes, all goes on.
    scene.talk();
    write(&scene);
    scene.expect_new();
    scene.expect_ready_soon();
}

/// As `FAILOVER` of Redis 6.2 and later does it: nothing that was written is lost.
fn the_primary_hands_over(setup: Setup) {
    let mut scene = Scene::start(setup);
    let (host, port) = address_of(&scene.new);
    assert_eq!(scene.old.ask(&["FAILOVER", "TO", &host, &port]), Value::Text("OK".into()));
    wait_until("the replica to be the primary", || replication(&scene.new, "role") == "master");
    scene.way.turn(Some(scene.new.address));
    scene.talk();
    write(&scene);
    scene.expect_new();
    scene.expect_ready_soon();
}

/// As Sentinel and many scripts do it: all connections are cut. Until the address moves they lead to a replica again.
fn the_primary_is_demoted_before_the_address_moves(setup: Setup) {
    let mut scene = Scene::start(setup);
    let before = scene.hosts[0].metric("parlor_redis_reconnects_total");
    promote(&scene.new);
    replicate(&scene.old, &scene.new);
    for kind in ["normal", "pubsub"] {
        scene.old.ask(&["CLIENT", "KILL", "TYPE", kind]);
    }
    for host in &scene.hosts {
        host.wait_for_log("READONLY");
    }
    wait_until("some attempts", || scene.hosts[0].metric("parlor_redis_reconnects_total") > before + 6);
    scene.way.turn(Some(scene.new.address));
    scene.expect_ready_soon();
    scene.expect_new();
}

/// Has a host write: a client comes, waits alone, and goes.
fn write(scene: &Scene) {
    let mut client = Client::connect(&scene.hosts[0]);
    client.send(AVAILABLE);
    scene.hosts[0].wait_for_log("READONLY");
    client.close();
}
