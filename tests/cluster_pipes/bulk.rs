//! Much through pipes over several hosts: nothing is lost or out of order, and nothing is collected.

use std::io::Write;
use std::thread;
use std::time::Duration;

use super::{expect_piped, pair, raw_pair, servers, wait_for_key, watched_pair};
use crate::support::pipes::{
    Chance, Pattern, RawEnd, Socket, Watcher, connect_with_small_buffers, send_until_blocked,
};
use crate::support::redis::Redis;
use crate::support::{BINARY, Server, Setup, TEXT, close_frame, frame, on_each_driver};

on_each_driver!(
    messages_of_all_sizes_arrive_as_they_were,
    sixty_four_mebibytes_arrive,
    raw_bytes_arrive_both_ways,
    a_slow_reader_slows_the_writer_on_the_other_host,
    many_pairs_at_once,
);

/// Messages of random sizes, about `total` bytes, as their sender says them.
fn messages(seed: u64, total: usize) -> Vec<(u8, Vec<u8>)> {
    let (mut chance, mut pattern) = (Chance::new(seed), Pattern::ascii(seed));
    let (mut messages, mut sum) = (Vec::new(), 0);
    while sum < total {
        let len = match chance.below(20) {
            0..2 => 0,
            2..10 => chance.below(200),
            10..16 => chance.below(20_000),
            16..19 => chance.below(200_000),
            _ => chance.below(1_500_000),
        };
        sum += len;
        messages.push((if chance.below(2) == 0 { TEXT } else { BINARY }, pattern.take(len)));
    }
    messages
}

fn send_all(mut stream: &std::net::TcpStream, messages: &[(u8, Vec<u8>)]) {
    for (first, payload) in messages {
        stream.write_all(&frame(*first, payload)).expect("the connection takes all bytes");
    }
}

fn expect_all(watcher: &mut Watcher, messages: &[(u8, Vec<u8>)]) {
    for (first, payload) in messages {
        watcher.expect_message(*first, payload);
    }
}

fn check_no_loss(servers: &[&Server]) {
    for server in servers {
        assert_eq!(server.metric("parlor_relations_ended_total"), 0, "{}", server.log());
        assert_eq!(server.metric("parlor_letters_dropped_total"), 0);
    }
}

fn messages_of_all_sizes_arrive_as_they_were(setup: Setup) {
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    let (mut one, mut other) = watched_pair(&redis, &here, &there);
    let (to_other, to_one) = (messages(1, 12 << 20), messages(2, 12 << 20));
    let streams = [&one, &other].map(|watcher| watcher.stream.try_clone().expect("a socket"));
    thread::scope(|scope| {
        scope.spawn(|| send_all(&streams[0], &to_other));
        scope.spawn(|| send_all(&streams[1], &to_one));
        scope.spawn(|| expect_all(&mut other, &to_other));
        expect_all(&mut one, &to_one);
    });
    check_no_loss(&[&here, &there]);
}

fn sixty_four_mebibytes_arrive(setup: Setup) {
    const ROOM_KIB: u64 = 16 * 1024;
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    let (one, mut other) = watched_pair(&redis, &here, &there);
    let before = [&here, &there].map(Server::memory_kib);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut pattern = Pattern::new(64);
            for _ in 0..64 {
                let mut stream = &one.stream;
                stream.write_all(&frame(BINARY, &pattern.take(1 << 20))).expect("all bytes are taken");
            }
        });
        let mut pattern = Pattern::new(64);
        for _ in 0..64 {
            other.expect_message(BINARY, &pattern.take(1 << 20));
        }
    });
    for (server, before) in [&here, &there].iter().zip(before) {
        let peak = server.memory_peak_kib();
        assert!(peak < before + ROOM_KIB, "{before} KiB before, at most {peak}");
    }
    check_no_loss(&[&here, &there]);
}

fn raw_bytes_arrive_both_ways(setup: Setup) {
    const TOTAL: usize = 16 << 20;
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    let (one, other) = raw_pair(&redis, &here, &there);
    let run = |seed: u64, from: &RawEnd, to: &RawEnd| {
        let (mut from, mut to) = (
            RawEnd { stream: from.stream.try_clone().expect("a socket") },
            RawEnd { stream: to.stream.try_clone().expect("a socket") },
        );
        let sending = thread::spawn(move || from.send(&Pattern::new(seed).take(TOTAL)));
        let receiving = thread::spawn(move || to.expect(&Pattern::new(seed).take(TOTAL)));
        [sending, receiving]
    };
    for thread in run(1, &one, &other).into_iter().chain(run(2, &other, &one)) {
        thread.join().expect("all bytes came");
    }
    check_no_loss(&[&here, &there]);
}

fn a_slow_reader_slows_the_writer_on_the_other_host(setup: Setup) {
    const ROOM_KIB: u64 = 8 * 1024;
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    let mut one = Watcher::open_over(connect_with_small_buffers(&here), super::A, b"");
    wait_for_key(&redis, super::A_WAITS);
    let mut other = Watcher::open_over(connect_with_small_buffers(&there), super::B, b"");
    one.send(&frame(TEXT, b"piped"));
    other.expect_message(TEXT, b"piped");
    let before = [&here, &there].map(Server::memory_kib);
    let messages = messages(11, 40 << 20);
    let bytes: Vec<u8> = messages.iter().flat_map(|(first, payload)| frame(*first, payload)).collect();
    let sent = send_until_blocked(&one.stream, &bytes);
    assert!(sent < bytes.len(), "the writer is never blocked");
    thread::sleep(Duration::from_millis(500));
    for (server, before) in [&here, &there].iter().zip(before) {
        let peak = server.memory_peak_kib();
        assert!(peak < before + ROOM_KIB, "memory is bounded: {before} KiB before, then {peak}");
    }
    // Others are not held up.
    let mut third = Socket::open(&here, "/connection/c/d/doc");
    wait_for_key(&redis, "parlor:pipe:ws:1:c/1:d/3:doc");
    let mut fourth = Socket::open(&there, "/connection/d/c/doc");
    expect_piped(&mut third, &mut fourth, "others");
    thread::scope(|scope| {
        scope.spawn(|| {
            one.send(&bytes[sent..]);
            one.send(&close_frame(4_001, b""));
            one.expect_close(Some(4_001));
            one.finish(Some(4_001));
        });
        expect_all(&mut other, &messages);
        other.expect_close(None);
        other.finish(None);
    });
    check_no_loss(&[&here, &there]);
}

fn many_pairs_at_once(setup: Setup) {
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    thread::scope(|scope| {
        for index in 0..12 {
            let (here, there) = (&here, &there);
            scope.spawn(move || {
                let (first, second) = if index % 2 == 0 { (here, there) } else { (there, here) };
                let one = Watcher::open(first, &format!("/connection/a/b/{index}"));
                let mut other = Watcher::open(second, &format!("/connection/b/a/{index}"));
                let messages = messages(100 + index, 1 << 20);
                thread::scope(|scope| {
                    scope.spawn(|| send_all(&one.stream, &messages));
                    expect_all(&mut other, &messages);
                });
            });
        }
    });
    let (mut one, mut other) = pair(&redis, &here, &there);
    expect_piped(&mut one, &mut other, "and one more");
    check_no_loss(&[&here, &there]);
}
