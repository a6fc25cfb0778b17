//! The directory over several hosts, over a real Redis: protocols.md sections 3 and 6 from outside, whatever becomes of a
//! host or of Redis.

mod support;

use std::sync::Barrier;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::dialects::Peer;
use support::redis::{Redis, Value};
use support::{Server, Setup, get, on_each_driver, wait_until};

on_each_driver!(
    one_list_for_all_hosts,
    what_peers_say_crosses_hosts_in_order,
    of_two_logins_at_once_on_two_hosts_one_wins,
    each_name_is_listed_or_announced_exactly_once_across_hosts,
    invalid_input_costs_redis_nothing,
    the_names_of_a_host_that_dies_are_free,
    the_names_of_a_host_that_leaves_are_free_at_once,
    names_are_restored_in_a_redis_that_restarts_empty,
    a_login_waits_for_redis,
    a_host_that_stood_still_has_its_names_again,
);

const NAME_TAKEN: &str = r#"{"type":"error","error":"name_taken"}"#;

/// What a busy machine may take on top of what is promised.
const SLACK: Duration = Duration::from_secs(3);
/// A host that is gone is noticed so soon.
const DEAD: Duration = Duration::from_secs(6);

// What the tests say and hear.

fn server(setup: Setup, redis: &Redis) -> Server {
    let server = Server::start(setup, &[("REDIS_URL", &redis.url())]);
    server.wait_for_metric("parlor_redis_connected", 1);
    server
}

/// The driver that a test is not run on, with more shards.
fn other(setup: Setup) -> Setup {
    if setup.driver == support::Driver::Epoll { Setup::IO_URING_2 } else { Setup::EPOLL_4 }
}

fn two(setup: Setup, redis: &Redis) -> (Server, Server) {
    let (here, there) = (server(setup, redis), server(other(setup), redis));
    here.wait_for_metric("parlor_hosts", 1);
    there.wait_for_metric("parlor_hosts", 1);
    (here, there)
}

fn login(name: &str) -> String {
    format!(r#"{{"type":"login","name":"{name}"}}"#)
}

fn login_success(name: &str, clients: &[&str]) -> String {
    format!(r#"{{"type":"login_success","id":"{name}","clients":["{}"]}}"#, clients.join("\",\""))
}

fn connected(name: &str) -> String {
    format!(r#"{{"type":"peer_connected","peer":"{name}"}}"#)
}

fn disconnected(name: &str) -> String {
    format!(r#"{{"type":"peer_disconnected","peer":"{name}"}}"#)
}

fn open(server: &Server, name: &str) -> Peer {
    let mut peer = Peer::open(server, "/");
    peer.name = name.to_owned();
    peer
}

/// Logs in; the list must be this one.
fn join(server: &Server, name: &str, clients: &[&str]) -> Peer {
    let mut peer = open(server, name);
    peer.ask(&login(name), &login_success(name, clients));
    peer
}

/// Logs in. Returns the list.
fn join_any(server: &Server, name: &str) -> (Peer, Vec<String>) {
    let mut peer = open(server, name);
    peer.send(&login(name));
    let answer = peer.next("login_success");
    let start = format!(r#"{{"type":"login_success","id":"{name}","clients":[""#);
    let list = answer.strip_prefix(&start).and_then(|rest| rest.strip_suffix("\"]}"));
    let list = list.unwrap_or_else(|| panic!("{name} got {answer}"));
    (peer, list.split("\",\"").map(str::to_owned).collect())
}

/// Reads until this comes; returns it with what came before.
fn read_until(peer: &mut Peer, text: &str) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.last().is_none_or(|last| last != text) {
        texts.push(peer.next(text));
    }
    texts
}

fn say(sender: &mut Peer, number: usize, target: &str) {
    sender.send(&format!(r#"{{"type":"say","n":{number},"target":"{target}"}}"#));
}

fn said(sender: &str, number: usize, target: &str) -> String {
    format!(r#"{{"type":"say","n":{number},"target":"{target}","from":"{sender}"}}"#)
}

/// One speaks to the other, and the other answers.
fn check_relay(one: &mut Peer, other: &mut Peer) {
    let (one_name, other_name) = (one.name.clone(), other.name.clone());
    say(one, 1, &other_name);
    other.expect(&said(&one_name, 1, &other_name));
    say(other, 2, &one_name);
    one.expect(&said(&other_name, 2, &one_name));
}

fn names_in(redis: &Redis) -> usize {
    match redis.ask(&["HLEN", "parlor:directory"]) {
        Value::Integer(count) => usize::try_from(count).expect("a length"),
        other => panic!("{other:?}"),
    }
}

// The list.

fn one_list_for_all_hosts(setup: Setup) {
    let redis = Redis::start();
    let (here, there) = two(setup, &redis);
    let third = server(setup, &redis);
    for host in [&here, &there, &third] {
        host.wait_for_metric("parlor_hosts", 2);
    }
    let mut m = join(&here, "m", &["m"]);
    let mut b = join(&there, "b", &["m", "b"]);
    m.expect(&connected("b"));
    let mut z = join(&third, "Z", &["m", "b", "Z"]);
    let mut a = join(&here, "a", &["m", "b", "Z", "a"]);
    b.expect(&connected("Z"));
    m.expect(&connected("Z"));
    for peer in [&mut m, &mut b, &mut z] {
        peer.expect(&connected("a"));
    }
    // A name that another host has is taken, and the holder notices nothing.
    for server in [&here, &there, &third] {
        let mut peer = open(server, "again");
        peer.ask(&login("b"), NAME_TAKEN);
        peer.expect_close(4000, "Client name already taken");
    }
    assert_eq!(b.close(), [""; 0]);
    for peer in [&mut m, &mut z, &mut a] {
        peer.expect(&disconnected("b"));
    }
    // It is free at once, on any host, and its new holder is the newest.
    let mut b = join(&here, "b", &["m", "Z", "a", "b"]);
    for peer in [&mut m, &mut z, &mut a] {
        peer.expect(&connected("b"));
    }
    for peer in [&mut m, &mut b, &mut z, &mut a] {
        peer.expect_nothing();
    }
    // All counts are of this host.
    let names = |server: &Server| get(server.address, "/clients").body;
    assert_eq!(names(&here), r#"{"clients":["m","a","b"]}"#);
    assert_eq!(names(&third), r#"{"clients":["Z"]}"#);
    assert!(get(there.address, "/health").body.contains(r#""clientCount":0,"#));
    assert!(get(here.address, "/health").body.contains(r#""clientCount":3,"#));
    // Who comes later finds the same list.
    let late = server(other(setup), &redis);
    late.wait_for_metric("parlor_hosts", 3);
    join(&late, "late", &["m", "Z", "a", "b", "late"]);
    for host in [&here, &there, &third] {
        assert_eq!(host.metric("parlor_letters_ignored_total"), 0, "{}", host.log());
    }
}

fn what_peers_say_crosses_hosts_in_order(setup: Setup) {
    let redis = Redis::start();
    let (here, there) = two(setup, &redis);
    let mut a = join(&here, "a", &["a"]);
    let mut b = join(&there, "b", &["a", "b"]);
    a.expect(&connected("b"));
    let mut c = join(&there, "c", &["a", "b", "c"]);
    a.expect(&connected("c"));
    b.expect(&connected("c"));
    // Targets: as sent, with its true sender last.
    a.send(r#"{"from":"b","type":"offer","sdp":1.50,"target":"b","x":"\u00e9","from":"c"}"#);
    b.expect(r#"{"type":"offer","sdp":1.50,"target":"b","x":"\u00e9","from":"a"}"#);
    let long = "x".repeat(60_000);
    a.send(&format!(r#"{{"type":"offer","target":"b","sdp":"{long}"}}"#));
    b.expect(&format!(r#"{{"type":"offer","target":"b","sdp":"{long}","from":"a"}}"#));
    a.ask(
        r#"{"type":"offer","target":"nobody"}"#,
        r#"{"type":"error","error":"target_not_found","target":"nobody"}"#,
    );
    // To all, with nothing but the sender and a reason.
    for (sent, heard) in [
        (r#"{"type":"stream_started","x":1,"target":"b"}"#, r#"{"type":"stream_started","from":"a"}"#),
        (r#"{"type":"stream_restored"}"#, r#"{"type":"stream_restored","from":"a"}"#),
        (r#"{"type":"page_opened"}"#, r#"{"type":"page_opened","from":"a"}"#),
        (r#"{"type":"stream_stopped"}"#, r#"{"type":"stream_stopped","from":"a","reason":"manual"}"#),
        (
            r#"{"type":"stream_stopped","reason":""}"#,
            r#"{"type":"stream_stopped","from":"a","reason":"manual"}"#,
        ),
        (
            r#"{"type":"stream_stopped","reason":{"a":1.50}}"#,
            r#"{"type":"stream_stopped","from":"a","reason":{"a":1.50}}"#,
        ),
    ] {
        a.send(sent);
        b.expect(heard);
        c.expect(heard);
    }
    // Many at once, and the sender leaves right behind them: all of it comes before it is gone.
    let texts: Vec<String> = (0..30).map(|n| format!(r#"{{"type":"say","n":{n},"target":"b"}}"#)).collect();
    a.send_at_once(texts.iter().map(String::as_str));
    a.send(r#"{"type":"stream_stopped","reason":"bye"}"#);
    assert_eq!(a.close(), [""; 0]);
    for n in 0..30 {
        b.expect(&said("a", n, "b"));
    }
    for peer in [&mut b, &mut c] {
        peer.expect(r#"{"type":"stream_stopped","from":"a","reason":"bye"}"#);
        peer.expect(&disconnected("a"));
        peer.expect_nothing();
    }
    for host in [&here, &there] {
        assert_eq!(host.metric("parlor_letters_ignored_total"), 0);
        assert_eq!(host.metric("parlor_letters_dropped_total"), 0);
    }
}

fn of_two_logins_at_once_on_two_hosts_one_wins(setup: Setup) {
    const ROUNDS: usize = 20;
    let redis = Redis::start();
    let (here, there) = two(setup, &redis);
    let mut witness = join(&here, "witness", &["witness"]);
    for round in 0..ROUNDS {
        let name = format!("name-{round}");
        let barrier = Barrier::new(2);
        let attempt = |server: &Server| {
            let mut peer = open(server, &name);
            barrier.wait();
            peer.send(&login(&name));
            let answer = peer.next("an answer");
            if answer == NAME_TAKEN {
                peer.expect_close(4000, "Client name already taken");
                return None;
            }
            assert_eq!(answer, login_success(&name, &["witness", &name]));
            Some(peer)
        };
        let (one, other) = std::thread::scope(|scope| {
            let one = scope.spawn(|| attempt(&here));
            let other = scope.spawn(|| attempt(&there));
            (one.join().expect("it ended well"), other.join().expect("it ended well"))
        });
        assert!(one.is_some() != other.is_some(), "exactly one wins");
        witness.expect(&connected(&name));
        for peer in [one, other].into_iter().flatten() {
            assert_eq!(peer.close(), [""; 0]);
        }
        witness.expect(&disconnected(&name));
    }
    witness.expect_nothing();
}

fn each_name_is_listed_or_announced_exactly_once_across_hosts(setup: Setup) {
    const PER_HOST: usize = 25;
    let redis = Redis::start();
    let (here, there) = two(setup, &redis);
    let hosts = [&here, &there];
    let peers: Vec<(Peer, Vec<String>)> = std::thread::scope(|scope| {
        let joins: Vec<_> = (0..2 * PER_HOST)
            .map(|n| scope.spawn(move || join_any(hosts[n % 2], &format!("p{n}"))))
            .collect();
        joins.into_iter().map(|join| join.join().expect("it ended well")).collect()
    });
    let mut orders: Vec<Vec<String>> = Vec::new();
    for (mut peer, mut order) in peers {
        while order.len() < 2 * PER_HOST {
            let text = peer.next("peer_connected");
            let name =
                text.strip_prefix(r#"{"type":"peer_connected","peer":""#).and_then(|s| s.strip_suffix("\"}"));
            order.push(name.unwrap_or_else(|| panic!("{text}")).to_owned());
        }
        peer.expect_nothing();
        orders.push(order);
        // It stays until all have looked.
        std::mem::forget(peer);
    }
    assert!(orders.iter().all(|order| *order == orders[0]), "Redis' order is everybody's: {orders:?}");
    let mut names = orders[0].clone();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 2 * PER_HOST);
}

fn invalid_input_costs_redis_nothing(setup: Setup) {
    let redis = Redis::start();
    let here = server(setup, &redis);
    let keys = || redis.ask(&["EXISTS", "parlor:directory", "parlor:directory:sequence"]);
    for message in [r#"{"type":"login","name":""}"#, r#"{"type":"login","name":7}"#, r#"{"type":"login"}"#] {
        let mut peer = open(&here, "bad");
        peer.ask(message, r#"{"type":"error","error":"invalid_name"}"#);
        peer.expect_close(4001, "Invalid client name");
    }
    let mut peer = open(&here, "early");
    peer.ask(r#"{"type":"ping"}"#, r#"{"type":"error","error":"not_logged_in"}"#);
    peer.tell("no JSON");
    // Not even a subscription: those are the heartbeats, its own channel and the signals of pairing.
    assert_eq!(here.metric("parlor_redis_subscriptions"), 3);
    assert_eq!(keys(), Value::Integer(0));
    // A name that a client of this host has is refused without a question.
    let mut holder = join(&here, "a", &["a"]);
    let sent = || redis.ask(&["GET", "parlor:directory:sequence"]);
    let before = sent();
    let mut again = open(&here, "again");
    again.ask(&login("a"), NAME_TAKEN);
    again.expect_close(4000, "Client name already taken");
    holder.ask(&login("b"), r#"{"type":"error","error":"invalid_name"}"#);
    assert_eq!(sent(), before);
    holder.expect_nothing();
}

// Hosts that end.

fn the_names_of_a_host_that_dies_are_free(setup: Setup) {
    let redis = Redis::start();
    let (here, there) = two(setup, &redis);
    let mut a = join(&here, "a", &["a"]);
    let _b = join(&there, "b", &["a", "b"]);
    let _c = join(&there, "c", &["a", "b", "c"]);
    a.expect(&connected("b"));
    a.expect(&connected("c"));
    there.signal(Signal::KILL);
    let start = Instant::now();
    a.expect(&disconnected("b"));
    a.expect(&disconnected("c"));
    assert!(start.elapsed() < DEAD + SLACK, "{:?}", start.elapsed());
    let mut b = join(&here, "b", &["a", "b"]);
    a.expect(&connected("b"));
    check_relay(&mut a, &mut b);
    wait_until("the others' names to be removed", || names_in(&redis) == 2);
    // All hosts die. What they have left is in nobody's way, also where nobody has seen them.
    here.signal(Signal::KILL);
    let alone = server(setup, &redis);
    let mut b = join(&alone, "b", &["b"]);
    wait_until("all other names to be removed", || names_in(&redis) == 1);
    b.expect_nothing();
}

fn the_names_of_a_host_that_leaves_are_free_at_once(setup: Setup) {
    let redis = Redis::start();
    let (here, mut there) = two(setup, &redis);
    let mut a = join(&here, "a", &["a"]);
    let mut b = join(&there, "b", &["a", "b"]);
    a.expect(&connected("b"));
    there.signal(Signal::TERM);
    a.expect(&disconnected("b"));
    assert!(b.next_until_close(1001, "Server shutting down").is_empty());
    assert!(there.wait_for_exit().success());
    let mut b = join(&here, "b", &["a", "b"]);
    a.expect(&connected("b"));
    check_relay(&mut a, &mut b);
    let log = here.log();
    assert!(!log.contains("it is silent"), "it did not wait for that:\n{log}");
    // The last one takes its own names away.
    drop(there);
    let mut here = here;
    here.signal(Signal::TERM);
    assert!(here.wait_for_exit().success());
    assert_eq!(names_in(&redis), 0);
}

// Redis that is away.

fn names_are_restored_in_a_redis_that_restarts_empty(setup: Setup) {
    let mut redis = Redis::start();
    let (here, there) = two(setup, &redis);
    let mut a = join(&here, "a", &["a"]);
    let mut b = join(&there, "b", &["a", "b"]);
    a.expect(&connected("b"));
    for _ in 0..3 {
        redis.stop();
        a.expect(&disconnected("b"));
        b.expect(&disconnected("a"));
        redis.run();
        a.expect(&connected("b"));
        b.expect(&connected("a"));
        check_relay(&mut a, &mut b);
        a.expect_nothing();
        b.expect_nothing();
        assert_eq!(names_in(&redis), 2);
    }
    let mut taken = open(&there, "taken");
    taken.ask(&login("a"), NAME_TAKEN);
    // It forgets everything without having been away: who logs in next shows that.
    redis.ask(&["FLUSHALL"]);
    let (c, _) = join_any(&here, "c");
    assert_eq!(read_until(&mut b, &connected("c")).len(), 1, "nobody is announced anew");
    wait_until("all names to be there again", || names_in(&redis) == 3);
    assert_eq!(c.close(), [""; 0]);
    a.expect(&connected("c"));
    for peer in [&mut a, &mut b] {
        peer.expect(&disconnected("c"));
    }
    check_relay(&mut a, &mut b);
}

fn a_login_waits_for_redis(setup: Setup) {
    let mut redis = Redis::start();
    let here = server(setup, &redis);
    let mut a = join(&here, "a", &["a"]);
    let mut b = join(&here, "b", &["a", "b"]);
    a.expect(&connected("b"));
    redis.stop();
    wait_until("Redis to be missed", || get(here.address, "/readyz").status == 503);
    // Names that are there stay, and messages go on within the host.
    check_relay(&mut a, &mut b);
    assert_eq!(b.close(), [""; 0]);
    a.expect(&disconnected("b"));
    // A login waits, and what is said behind it waits, too.
    let mut c = open(&here, "c");
    c.send(&login("c"));
    say(&mut c, 3, "a");
    a.expect_nothing();
    redis.run();
    c.expect(&login_success("c", &["a", "c"]));
    a.expect(&connected("c"));
    a.expect(&said("c", 3, "a"));
    // Not for ever.
    redis.stop();
    wait_until("Redis to be missed", || get(here.address, "/readyz").status == 503);
    let mut d = open(&here, "d");
    let start = Instant::now();
    d.send(&login("d"));
    d.expect_close(1013, "server busy");
    let took = start.elapsed();
    assert!(took > Duration::from_secs(9) && took < Duration::from_secs(10) + SLACK, "{took:?}");
    // Who goes before there is an answer leaves nothing behind.
    let mut e = open(&here, "e");
    e.send(&login("e"));
    e.reset();
    redis.run();
    wait_until("the names that are there to be restored", || {
        get(here.address, "/healthz").body.contains(r#""clients":2,"#) && names_in(&redis) == 2
    });
    for peer in [&mut a, &mut c] {
        let heard = peer.drain();
        assert!(heard.is_empty() || heard == [connected("e"), disconnected("e")], "{heard:?}");
    }
    let mut e = join(&here, "e", &["a", "c", "e"]);
    for peer in [&mut a, &mut c] {
        peer.expect(&connected("e"));
    }
    check_relay(&mut a, &mut e);
}

fn a_host_that_stood_still_has_its_names_again(setup: Setup) {
    let redis = Redis::start();
    let (here, there) = two(setup, &redis);
    let mut a = join(&here, "a", &["a"]);
    let mut b = join(&there, "b", &["a", "b"]);
    let mut c = join(&there, "c", &["a", "b", "c"]);
    a.expect(&connected("b"));
    a.expect(&connected("c"));
    b.expect(&connected("c"));
    there.signal(Signal::STOP);
    a.expect(&disconnected("b"));
    a.expect(&disconnected("c"));
    // Meanwhile one of its names is given away.
    let mut new_b = join(&here, "b", &["a", "b"]);
    a.expect(&connected("b"));
    there.signal(Signal::CONT);
    a.expect(&connected("c"));
    new_b.expect(&connected("c"));
    let before = b.next_until_close(4000, "Client name already taken");
    assert_eq!(before.last().map(String::as_str), Some(NAME_TAKEN), "{before:?}");
    let heard = read_until(&mut c, &connected("b"));
    let count = |text: &str| heard.iter().filter(|heard| *heard == text).count();
    assert_eq!((count(&disconnected("a")), count(&disconnected("b"))), (1, 1), "{heard:?}");
    check_relay(&mut a, &mut c);
    check_relay(&mut new_b, &mut c);
    a.expect_nothing();
}
