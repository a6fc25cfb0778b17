//! Pipes over several hosts (protocols.md sections 5 and 6): two or three servers and one Redis. This file: who meets
//! whom. What passes: `bulk`; how it ends: `ends`.

mod support;

#[path = "cluster_pipes/bulk.rs"]
mod bulk;
#[path = "cluster_pipes/ends.rs"]
mod ends;

use std::thread;

use support::pipes::{RawEnd, Socket, Watcher};
use support::redis::{Redis, Value};
use support::{BINARY, Server, Setup, TEXT, frame, on_each_driver, wait_until};
use tungstenite::Message;

/// The ends of the pipe that most tests use, and where Redis says that they wait.
const A: &str = "/connection/a/b/doc";
const B: &str = "/connection/b/a/doc";
const A_WAITS: &str = "parlor:pipe:ws:1:a/1:b/3:doc";
const B_WAITS: &str = "parlor:pipe:ws:1:b/1:a/3:doc";

on_each_driver!(
    two_hosts_join_whoever_comes_first,
    what_the_first_one_sends_is_held_in_order,
    a_second_socket_replaces_the_held_one_elsewhere,
    both_ends_may_have_one_id,
    a_newcomer_beside_a_pipe_is_held_anew,
    kinds_ids_and_documents_are_kept_apart,
    two_that_come_at_once_meet,
    a_held_one_that_ends_is_forgotten,
    nobody_is_held_for_longer_than_allowed,
);

fn server_with(setup: Setup, redis: &Redis, more: &[(&str, &str)]) -> Server {
    let url = redis.url();
    let mut environment = vec![("REDIS_URL", url.as_str())];
    environment.extend_from_slice(more);
    Server::start(setup, &environment)
}

/// So many servers that know each other; all but the first on the other setup.
fn servers<const N: usize>(setup: Setup, redis: &Redis) -> [Server; N] {
    let servers =
        std::array::from_fn(|index| server_with(if index == 0 { setup } else { Setup::EPOLL_4 }, redis, &[]));
    for server in &servers {
        server.wait_for_metric("parlor_hosts", N as u64 - 1);
    }
    servers
}

fn waits(redis: &Redis, key: &str) -> bool {
    redis.ask(&["EXISTS", key]) == Value::Integer(1)
}

fn wait_for_key(redis: &Redis, key: &str) {
    wait_until(key, || waits(redis, key));
}

fn wait_for_no_keys(redis: &Redis) {
    let none = Value::List(Vec::new());
    wait_until("nobody waits", || redis.ask(&["KEYS", "parlor:pipe:*"]) == none);
}

/// A pipe whose ends are on two hosts, and that has not been used yet.
fn pair(redis: &Redis, here: &Server, there: &Server) -> (Socket, Socket) {
    let one = Socket::open(here, A);
    wait_for_key(redis, A_WAITS);
    (one, Socket::open(there, B))
}

/// [`pair`], of which all frames can be seen.
fn watched_pair(redis: &Redis, here: &Server, there: &Server) -> (Watcher, Watcher) {
    let one = Watcher::open(here, A);
    wait_for_key(redis, A_WAITS);
    (one, Watcher::open(there, B))
}

fn raw_pair(redis: &Redis, here: &Server, there: &Server) -> (RawEnd, RawEnd) {
    let one = RawEnd::open(here, A);
    wait_for_key(redis, &A_WAITS.replace("ws", "raw"));
    (one, RawEnd::open(there, B))
}

/// Nothing else is on the way between these two, in either direction.
fn expect_piped(one: &mut Socket, other: &mut Socket, marker: &str) {
    one.send(marker);
    other.expect(marker);
    other.send(Message::binary(marker.to_owned()));
    one.expect(Message::binary(marker.to_owned()));
}

fn two_hosts_join_whoever_comes_first(setup: Setup) {
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    for (first, second) in [(&here, &there), (&there, &here)] {
        let (mut one, mut other) = pair(&redis, first, second);
        expect_piped(&mut one, &mut other, "text and binary");
        let large = "x".repeat(1_000_000);
        expect_piped(&mut one, &mut other, &large);
        expect_piped(&mut one, &mut other, "");
        // Pings are each host's own business.
        for end in [&mut one, &mut other] {
            end.expect_nothing();
        }
        one.close(Some(1000));
        other.expect_close(None);
        wait_for_no_keys(&redis);
    }
    assert_eq!(here.metric("parlor_pipe_ends_joined_over_hosts_total"), 2);
    assert_eq!(there.metric("parlor_pipe_ends_joined_over_hosts_total"), 2);
    for server in [&here, &there] {
        assert!(server.metric("parlor_pipe_chunks_sent_total") > 0);
        assert!(server.metric("parlor_pipe_chunk_bytes_total") > 1_000_000);
    }
    // Within a host as ever, and known to nobody else.
    let mut one = Socket::open(&here, A);
    wait_for_key(&redis, A_WAITS);
    let mut other = Socket::open(&here, B);
    expect_piped(&mut one, &mut other, "within a host");
    wait_for_no_keys(&redis);
    assert_eq!(here.metric("parlor_pipe_ends_joined_over_hosts_total"), 2);
}

fn what_the_first_one_sends_is_held_in_order(setup: Setup) {
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    let mut one = Watcher::hold(&here, A);
    let large = "y".repeat(300_000);
    one.send(&[frame(TEXT, b"first"), frame(TEXT, large.as_bytes()), frame(BINARY, b"third")].concat());
    one.expect_pong(b"all of it came");
    let mut other = Socket::open(&there, B);
    other.send("at once");
    other.expect("first");
    other.expect(large);
    other.expect(Message::binary("third"));
    one.expect_message(TEXT, b"at once");
    one.send(&frame(TEXT, b"and more"));
    other.expect("and more");
}

fn a_second_socket_replaces_the_held_one_elsewhere(setup: Setup) {
    let redis = Redis::start();
    let [here, there, third] = servers(setup, &redis);
    let mut first = Socket::open(&here, A);
    first.send("of the first");
    wait_for_key(&redis, A_WAITS);
    let mut second = Socket::open(&there, A);
    first.expect_close(None);
    second.send("of the second");
    let mut other = Socket::open(&third, B);
    other.expect("of the second");
    expect_piped(&mut second, &mut other, "piped");
    wait_for_no_keys(&redis);
}

fn both_ends_may_have_one_id(setup: Setup) {
    const SAME: &str = "/connection/a/a/doc";
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    let mut one = Socket::open(&here, SAME);
    wait_for_key(&redis, "parlor:pipe:ws:1:a/1:a/3:doc");
    let mut other = Socket::open(&there, SAME);
    expect_piped(&mut one, &mut other, "one id");
    wait_for_no_keys(&redis);
}

fn a_newcomer_beside_a_pipe_is_held_anew(setup: Setup) {
    let redis = Redis::start();
    let [here, there, third] = servers(setup, &redis);
    let (mut one, mut other) = pair(&redis, &here, &there);
    expect_piped(&mut one, &mut other, "first");
    let mut newcomer = Socket::open(&third, B);
    wait_for_key(&redis, B_WAITS);
    newcomer.send("for a newcomer");
    expect_piped(&mut one, &mut other, "still");
    let mut second = Socket::open(&here, A);
    second.expect("for a newcomer");
    expect_piped(&mut one, &mut other, "and still");
    expect_piped(&mut second, &mut newcomer, "beside");
}

fn kinds_ids_and_documents_are_kept_apart(setup: Setup) {
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    let mut one = Socket::open(&here, "/connection/a%2F1:b/c%00/d%0a");
    wait_for_key(&redis, "parlor:pipe:ws:5:a/1:b/2:c\0/2:d\n");
    let others = [
        "/connection/c%00/a%2F1:b/d",
        "/connection/c%00/a/1:b",
        "/connection/C%00/a%2F1:b/d%0a",
        "/connection/a%2F1:b/x/d%0a",
    ];
    let others: Vec<Socket> = others.iter().map(|path| Socket::open(&there, path)).collect();
    let raw = RawEnd::open(&there, "/connection/c%00/a%2F1:b/d%0a");
    there.wait_for_metric("parlor_pipes_held", others.len() as u64 + 1);
    wait_until("all are known", || match redis.ask(&["KEYS", "parlor:pipe:*"]) {
        Value::List(keys) => keys.len() == others.len() + 2,
        other => panic!("{other:?}"),
    });
    let mut other = Socket::open(&there, "/connection/c%00/a%2F1:b/d%0a");
    expect_piped(&mut one, &mut other, "its own");
    drop((others, raw));
}

fn two_that_come_at_once_meet(setup: Setup) {
    const ROUNDS: usize = 60;
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    for round in 0..ROUNDS {
        let document = format!("d{round}");
        let (one, other) = thread::scope(|scope| {
            let open = |server: &Server, path: String| {
                let mut socket = Socket::open(server, &path);
                socket.send(path);
                socket
            };
            let (here, there, document) = (&here, &there, &document);
            let one = scope.spawn(move || open(here, format!("/connection/a/b/{document}")));
            let other = scope.spawn(move || open(there, format!("/connection/b/a/{document}")));
            (one.join().expect("opened"), other.join().expect("opened"))
        });
        let (mut one, mut other) = (one, other);
        one.expect(format!("/connection/b/a/{document}"));
        other.expect(format!("/connection/a/b/{document}"));
        if round % 2 == 0 {
            one.close(None);
            other.expect_close(None);
        } else {
            other.close(Some(1000));
            one.expect_close(None);
        }
    }
    wait_for_no_keys(&redis);
    let joined = |server: &Server| server.metric("parlor_pipe_ends_joined_over_hosts_total");
    assert_eq!((joined(&here), joined(&there)), (ROUNDS as u64, ROUNDS as u64));
}

fn a_held_one_that_ends_is_forgotten(setup: Setup) {
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    for how in 0..3 {
        let held = Socket::open(&here, A);
        wait_for_key(&redis, A_WAITS);
        match how {
            0 => held.close(Some(1001)),
            1 => held.reset(),
            _ => held.end_without_close(),
        }
        wait_for_no_keys(&redis);
    }
    let mut other = Socket::open(&there, B);
    wait_for_key(&redis, B_WAITS);
    other.expect_nothing();
    // Somebody who has left a key behind is noticed, and is nobody's partner.
    let Value::Bytes(left) = redis.ask(&["GET", B_WAITS]) else { panic!("it waits") };
    let left = String::from_utf8(left).expect("an id");
    other.close(None);
    wait_for_no_keys(&redis);
    redis.ask(&["SET", B_WAITS, &left]);
    let mut one = Socket::open(&here, A);
    wait_for_key(&redis, A_WAITS);
    let mut other = Socket::open(&there, B);
    expect_piped(&mut one, &mut other, "one that is there");
    redis.ask(&["SET", A_WAITS, "nonsense"]);
    let mut other = Socket::open(&there, B);
    wait_for_key(&redis, B_WAITS);
    let mut one = Socket::open(&here, A);
    expect_piped(&mut one, &mut other, "behind nonsense");
}

fn nobody_is_held_for_longer_than_allowed(setup: Setup) {
    let redis = Redis::start();
    let here = server_with(setup, &redis, &[("PIPE_HOLD_MS", "700"), ("MAX_HELD_PIPES", "1")]);
    let there = server_with(Setup::EPOLL_1, &redis, &[]);
    for server in [&here, &there] {
        server.wait_for_metric("parlor_hosts", 1);
    }
    let held = Socket::open(&here, A);
    wait_for_key(&redis, A_WAITS);
    Socket::open(&here, "/connection/c/d/e").expect_close(Some((1013, "server busy")));
    held.expect_close(Some((1013, "peer did not connect")));
    wait_for_no_keys(&redis);
    // Who has met its partner is not closed, and takes no place.
    let (mut one, mut other) = pair(&redis, &here, &there);
    expect_piped(&mut one, &mut other, "joined");
    Socket::open(&here, "/connection/c/d/e").expect_close(Some((1013, "peer did not connect")));
    expect_piped(&mut one, &mut other, "and still there");
}
