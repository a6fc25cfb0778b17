//! How pipes over several hosts end: closes, cuts, halves of raw streams, hosts that die and a Redis that goes.

use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use parlor::cluster::pipes::{How, Letter, What};
use parlor::id::{ClientId, Entropy, HostId, ShardIndex, Slot};
use rustix::process::Signal;
use tungstenite::Message;

use super::{
    A, A_WAITS, B, B_WAITS, expect_piped, pair, raw_pair, server_with, servers, wait_for_key,
    wait_for_no_keys, watched_pair,
};
use crate::support::neighbour::Neighbour;
use crate::support::pipes::{Pattern, RawEnd, Socket};
use crate::support::redis::{Redis, Value};
use crate::support::{BINARY, End, FIN, Setup, TEXT, close_frame, frame, frame_header, on_each_driver};

on_each_driver!(
    a_close_comes_behind_what_was_sent,
    a_cut_end_ends_the_other,
    halves_of_raw_streams_end_one_by_one,
    an_end_may_finish_as_soon_as_its_partner_has_its_101,
    a_reset_is_passed_on,
    partners_of_a_host_that_dies_are_closed,
    partners_of_a_host_that_leaves_are_closed,
    a_redis_that_restarts_ends_what_went_through_it,
    held_ends_are_known_again_when_redis_is_back,
    nobody_on_redis_confuses_pipes,
);

const LOST: Option<(u16, &str)> = Some((1013, "the way to the other host is lost"));

fn a_close_comes_behind_what_was_sent(setup: Setup) {
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    let large = Pattern::new(4).take(2_000_000);
    for code in [None, Some(1000), Some(4999)] {
        for swaps in [false, true] {
            // The end that closes is the first or the second one.
            let (closing, left) = if swaps { (&there, &here) } else { (&here, &there) };
            let (mut one, mut other) = watched_pair(&redis, closing, left);
            let close =
                code.map_or_else(|| frame(crate::support::CLOSE, b""), |code| close_frame(code, b"bye"));
            thread::scope(|scope| {
                scope.spawn(|| {
                    let bytes = [frame(TEXT, b"first"), frame(BINARY, &large), frame(TEXT, b"last"), close];
                    one.send(&bytes.concat());
                    one.expect_close(code);
                    assert!(one.messages.is_empty(), "nothing came but the answer");
                    one.finish(code);
                });
                other.expect_message(TEXT, b"first");
                other.expect_message(BINARY, &large);
                other.expect_message(TEXT, b"last");
                other.expect_close(None);
                other.finish(None);
            });
        }
    }
    // Who comes, speaks and leaves at once is heard, as within a host.
    for _ in 0..20 {
        let mut one = Socket::open(&here, A);
        wait_for_key(&redis, A_WAITS);
        let mut other = Socket::open(&there, B);
        other.send("in passing");
        drop(other);
        one.expect("in passing");
        one.expect_close(None);
    }
    // Both at once: each gets an answer.
    for _ in 0..20 {
        let (mut one, mut other) = watched_pair(&redis, &here, &there);
        one.send(&close_frame(3_001, b""));
        other.send(&close_frame(3_002, b""));
        for (mut watcher, code) in [(one, 3_001), (other, 3_002)] {
            let close = watcher.next_control(crate::support::CLOSE, "a close");
            // The close of the other may have come first.
            assert!([Some(code), None].contains(&close.close_code()), "{close:?}");
            assert_eq!(watcher.end(), End::Fin);
        }
        wait_for_no_keys(&redis);
    }
    for server in [&here, &there] {
        server.wait_for_metric("parlor_clients", 0);
        server.wait_for_metric("parlor_buffer_bytes", 0);
    }
}

fn a_cut_end_ends_the_other(setup: Setup) {
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    for how in 0..3 {
        let (mut one, mut other) = watched_pair(&redis, &here, &there);
        one.send(&frame(TEXT, b"whole"));
        other.expect_message(TEXT, b"whole");
        // In the middle of a frame, of which something has arrived.
        one.send(&[frame_header(BINARY, 100_000), vec![7; 50_000]].concat());
        other.wait_for("a part", |watcher| watcher.payload.len() == 50_000);
        match how {
            0 => one.stream.shutdown(Shutdown::Both).expect("a socket"),
            1 => one.stream.shutdown(Shutdown::Write).expect("a socket"),
            _ => one.send(&frame(TEXT, b"not yet")),
        }
        if how == 2 {
            // What follows is payload of that frame; then the frame breaks the rules.
            one.send(&vec![0x37; 50_000]);
        }
        other.expect_close_or_cut();
    }
}

fn halves_of_raw_streams_end_one_by_one(setup: Setup) {
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    for _ in 0..3 {
        let (mut one, mut other) = raw_pair(&redis, &here, &there);
        let bytes = Pattern::new(9).take(700_000);
        thread::scope(|scope| {
            scope.spawn(|| {
                one.send(&bytes);
                one.finish();
            });
            other.expect(&bytes);
            other.expect_end(End::Fin);
        });
        // The other direction goes on.
        thread::scope(|scope| {
            scope.spawn(|| {
                other.send(&bytes);
                other.finish();
            });
            one.expect(&bytes);
            one.expect_end(End::Fin);
        });
        for server in [&here, &there] {
            server.wait_for_metric("parlor_connections", 1);
        }
    }
    wait_for_no_keys(&redis);
}

/// Whoever has a 101 is found: the first one by the second, and the second one is no longer waited for.
fn an_end_may_finish_as_soon_as_its_partner_has_its_101(setup: Setup) {
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    for round in 0..40 {
        let (mut one, mut other) = (RawEnd::open(&here, A), RawEnd::open(&there, B));
        let (first, second) = if round % 2 == 0 { (&mut one, &mut other) } else { (&mut other, &mut one) };
        first.send(b"all that it says");
        first.finish();
        second.expect(b"all that it says");
        second.expect_end(End::Fin);
        second.finish();
        first.expect_end(End::Fin);
        let (mut one, mut other) = (Socket::open(&here, A), Socket::open(&there, B));
        one.send("one word");
        one.close(None);
        other.expect("one word");
        other.expect_close(None);
    }
    wait_for_no_keys(&redis);
}

fn a_reset_is_passed_on(setup: Setup) {
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    for swaps in [false, true] {
        let (mut one, mut other) = raw_pair(&redis, &here, &there);
        one.send(b"there");
        other.expect(b"there");
        let (reset, mut left) = if swaps { (other, one) } else { (one, other) };
        reset.reset();
        left.expect_end(End::Reset);
    }
    // Also of one half when the other has ended.
    let (mut one, mut other) = raw_pair(&redis, &here, &there);
    other.send(b"there");
    one.expect(b"there");
    one.finish();
    other.expect_end(End::Fin);
    one.reset();
    let start = Instant::now();
    while other.stream.write_all(&[0; 1_000]).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(10), "waited for the reset");
        thread::sleep(Duration::from_millis(5));
    }
    // A WebSocket that is lost is a close for the other.
    let (mut one, mut other) = pair(&redis, &here, &there);
    expect_piped(&mut one, &mut other, "piped");
    one.reset();
    other.expect_close(None);
}

fn partners_of_a_host_that_dies_are_closed(setup: Setup) {
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    let (mut one, mut other) = pair(&redis, &here, &there);
    expect_piped(&mut one, &mut other, "piped");
    let (mut raw, mut far) = raw_pair(&redis, &here, &there);
    raw.send(b"there");
    far.expect(b"there");
    let _held = Socket::open(&there, "/connection/c/d/doc");
    wait_for_key(&redis, "parlor:pipe:ws:1:c/1:d/3:doc");
    there.signal(Signal::KILL);
    let start = Instant::now();
    one.expect_close(LOST);
    raw.expect_end(End::Reset);
    assert!(start.elapsed() < Duration::from_secs(6), "it took {:?}", start.elapsed());
    // Who was held there waits for nobody any more.
    let mut other = Socket::open(&here, "/connection/d/c/doc");
    wait_for_key(&redis, "parlor:pipe:ws:1:d/1:c/3:doc");
    let mut one = Socket::open(&here, "/connection/c/d/doc");
    expect_piped(&mut one, &mut other, "within a host");
    here.wait_for_metric("parlor_clients", 2);
}

fn partners_of_a_host_that_leaves_are_closed(setup: Setup) {
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    let (mut one, mut other) = pair(&redis, &here, &there);
    expect_piped(&mut one, &mut other, "piped");
    there.signal(Signal::TERM);
    other.expect_close(Some((1001, "Server shutting down")));
    one.expect_close(LOST);
}

fn a_redis_that_restarts_ends_what_went_through_it(setup: Setup) {
    let mut redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    let (mut one, mut other) = pair(&redis, &here, &there);
    expect_piped(&mut one, &mut other, "piped");
    let mut local = Socket::open(&here, "/connection/x/y/doc");
    let mut neighbour = Socket::open(&here, "/connection/y/x/doc");
    expect_piped(&mut local, &mut neighbour, "within a host");
    redis.stop();
    one.expect_close(LOST);
    other.expect_close(LOST);
    expect_piped(&mut local, &mut neighbour, "without Redis");
    redis.run();
    for server in [&here, &there] {
        server.wait_for_metric("parlor_hosts", 1);
    }
    let (mut one, mut other) = pair(&redis, &here, &there);
    expect_piped(&mut one, &mut other, "a new one");
    expect_piped(&mut local, &mut neighbour, "and still");
}

fn held_ends_are_known_again_when_redis_is_back(setup: Setup) {
    let mut redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    let mut before = Socket::open(&here, A);
    before.send("before");
    wait_for_key(&redis, A_WAITS);
    redis.stop();
    for server in [&here, &there] {
        server.wait_for_metric("parlor_redis_connected", 0);
    }
    // Two that come while it is away, on two hosts: each waits, and they meet when it is back.
    let mut one = Socket::open(&here, "/connection/c/d/doc");
    one.send("of one");
    let mut other = Socket::open(&there, "/connection/d/c/doc");
    other.send("of the other");
    one.expect_nothing();
    // Within a host they meet at once.
    let mut local = Socket::hold(&here, "/connection/x/y/doc");
    let mut neighbour = Socket::open(&here, "/connection/y/x/doc");
    expect_piped(&mut local, &mut neighbour, "without Redis");
    redis.run();
    one.expect("of the other");
    other.expect("of one");
    wait_for_key(&redis, A_WAITS);
    let mut after = Socket::open(&there, B);
    after.expect("before");
    expect_piped(&mut before, &mut after, "piped");
    wait_for_no_keys(&redis);
}

fn nobody_on_redis_confuses_pipes(setup: Setup) {
    const NEIGHBOUR: u32 = 0x00c0_ffee;
    let redis = Redis::start();
    let here = server_with(setup, &redis, &[]);
    let client_of = |key: &str| match redis.ask(&["GET", key]) {
        Value::Bytes(text) => ClientId::parse(&text).expect("an id of ours"),
        other => panic!("{other:?}"),
    };
    let mut held = Socket::open(&here, A);
    held.send("held");
    wait_for_key(&redis, A_WAITS);
    let client = client_of(A_WAITS);
    let mut neighbour = Neighbour::start(&redis, NEIGHBOUR);
    neighbour.wait_for_host(client.host());
    let mut entropy = Entropy::from_seed([4; 32]);
    let mut their = || ClientId::new(HostId(NEIGHBOUR), ShardIndex(0), Slot(0), &mut entropy);
    let (theirs, stranger) = (their(), their());
    let chunk = |number, bytes: &[u8]| What::Chunk { number, bytes: bytes.to_vec().into() };
    let post = |neighbour: &mut Neighbour, to: ClientId, from: ClientId, what: What| {
        let letter = parlor::cluster::Letter::Pipes(Letter { to, from, what });
        neighbour.post(client.host(), to.shard(), letter);
    };
    // To who only waits, in the name of others, and to nobody.
    for what in [
        What::Joined,
        What::Refused,
        What::Busy,
        chunk(1, b"x"),
        What::Credit(u32::MAX),
        What::End(How::Closed),
    ] {
        post(&mut neighbour, client, theirs, what.clone());
        post(&mut neighbour, client, client, what.clone());
        post(&mut neighbour, theirs, theirs, what);
    }
    post(&mut neighbour, client, client, What::Ask);
    held.expect_nothing();
    // One that is joined hears its partner alone.
    post(&mut neighbour, client, theirs, What::Ask);
    let is = |told: &parlor::cluster::FromCluster, what: &What| {
        matches!(told, parlor::cluster::FromCluster::Letter(_, parlor::cluster::Letter::Pipes(letter))
            if letter.to == theirs && letter.what == *what)
    };
    neighbour.wait_for("the partner", |told| is(told, &What::Joined));
    neighbour.wait_for("what was held", |told| is(told, &chunk(1, b"\x81\x04held")));
    post(&mut neighbour, client, stranger, chunk(1, b"\x81\x01x"));
    post(&mut neighbour, client, theirs, chunk(1, b"\x81\x02hi"));
    held.expect("hi");
    // A gap ends both.
    post(&mut neighbour, client, theirs, chunk(3, b"\x81\x02hi"));
    neighbour.wait_for("the end", |told| is(told, &What::End(How::Lost)));
    held.expect_close(LOST);
    // So does what is no frame.
    for bytes in [&b"\x89\x00"[..], b"\x81\x05hi"] {
        let second = Socket::open(&here, B);
        wait_for_key(&redis, B_WAITS);
        let client = client_of(B_WAITS);
        post(&mut neighbour, client, theirs, What::Ask);
        neighbour.wait_for("the partner", |told| is(told, &What::Joined));
        post(&mut neighbour, client, theirs, chunk(1, bytes));
        neighbour.wait_for("the end", |told| is(told, &What::End(How::Lost)));
        drop(second);
    }
    assert_eq!(here.metric("parlor_cluster_panics_total") + here.metric("parlor_panics_total"), 0);
    let mut one = Socket::open(&here, A);
    let mut other = Socket::open(&here, B);
    expect_piped(&mut one, &mut other, "as ever");
    one.send(Message::binary(vec![FIN; 10]));
    other.expect(Message::binary(vec![FIN; 10]));
}
