//! Many raw bytes: bounds of what is held, readers that are slow, many pairs at once.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use super::{A, B, SPLICE, expect_piped, pair};
use crate::support::pipes::{Chance, Pattern, RawEnd, connect_with_small_buffers, send_until_blocked};
use crate::support::{End, Server, Setup, on_each_driver, on_each_setup};

on_each_setup!(
    what_is_held_has_a_bound,
    a_slow_reader_slows_the_writer_and_loses_nothing,
    both_may_write_before_they_read,
    eight_pairs_at_once,
);

on_each_driver!(sixty_four_mebibytes_with_a_stall);

/// The bytes of a seed come next. Calls `halfway` in the middle.
pub(super) fn receive(stream: &mut TcpStream, seed: u64, total: usize, halfway: impl FnOnce()) {
    let mut pattern = Pattern::new(seed);
    let mut chance = Chance::new(seed);
    let mut buffer = vec![0; 256 * 1024];
    let mut halfway = Some(halfway);
    while pattern.at() < total as u64 {
        let room = (total - pattern.at() as usize).min(1 + chance.below(buffer.len()));
        let got = stream.read(&mut buffer[..room]);
        let count =
            got.unwrap_or_else(|error| panic!("waited for byte {} of {total}: {error}", pattern.at()));
        assert!(count > 0, "waited for byte {} of {total} and got the end", pattern.at());
        pattern.check(&buffer[..count]);
        if pattern.at() > total as u64 / 2
            && let Some(halfway) = halfway.take()
        {
            halfway();
        }
    }
}

/// Sends the bytes of a seed in random pieces.
fn send(mut stream: &TcpStream, seed: u64, total: usize) {
    let mut pattern = Pattern::new(seed);
    let mut chance = Chance::new(seed + 1);
    while pattern.at() < total as u64 {
        let len = (1 + chance.below(200_000)).min(total - pattern.at() as usize);
        stream.write_all(&pattern.take(len)).expect("the connection takes all bytes");
    }
}

fn what_is_held_has_a_bound(setup: Setup) {
    let server = Server::start(setup, &[("PIPE_HOLD_BYTES", "20000")]);
    let one = RawEnd::open_over(connect_with_small_buffers(&server), A, b"").0;
    let before = server.memory_kib();
    let bytes = Pattern::new(4).take(24 << 20);
    let sent = send_until_blocked(&one.stream, &bytes);
    assert!(sent >= 20_000, "only {sent} bytes are taken");
    assert!(sent < bytes.len(), "all {sent} bytes are taken while nobody is there");
    assert!(server.memory_peak_kib() < before + 4 * 1024, "only so much is held: {before} KiB before");
    let mut other = RawEnd::open(&server, B);
    thread::scope(|scope| {
        scope.spawn(|| {
            (&one.stream).write_all(&bytes[sent..]).expect("the rest is taken");
            one.finish();
        });
        receive(&mut other.stream, 4, bytes.len(), || ());
    });
    other.expect_end(End::Fin);
}

fn a_slow_reader_slows_the_writer_and_loses_nothing(setup: Setup) {
    const LEN: usize = 40 << 20;
    let server = Server::start(setup, &[]);
    let mut one = RawEnd::open_over(connect_with_small_buffers(&server), A, b"").0;
    let mut other = RawEnd::open_over(connect_with_small_buffers(&server), B, b"").0;
    expect_piped(&mut one, &mut other, b"piped");
    let before = server.memory_kib();
    let bytes = Pattern::new(8).take(LEN);
    let sent = send_until_blocked(&one.stream, &bytes);
    assert!(sent < LEN, "the writer is never blocked");
    let peak = server.memory_peak_kib();
    assert!(peak < before + 8 * 1024, "memory is bounded: {before} KiB before, then {peak}");
    // The other direction, and others.
    other.send(b"still here");
    one.expect(b"still here");
    let (mut third, mut fourth) = pair(&server);
    expect_piped(&mut third, &mut fourth, b"others");
    thread::scope(|scope| {
        scope.spawn(|| one.send(&bytes[sent..]));
        receive(&mut other.stream, 8, LEN, || ());
    });
    expect_piped(&mut one, &mut other, b"the end");
}

fn both_may_write_before_they_read(setup: Setup) {
    const LEN: usize = 40 << 20;
    let server = Server::start(setup, &[]);
    let [mut one, mut other] =
        [A, B].map(|path| RawEnd::open_over(connect_with_small_buffers(&server), path, b"").0);
    let rests = [(&one, 21), (&other, 22)].map(|(end, seed)| {
        let bytes = Pattern::new(seed).take(LEN);
        let sent = send_until_blocked(&end.stream, &bytes);
        assert!(sent < LEN, "a writer is never blocked");
        (end.stream.try_clone().expect("a socket"), bytes[sent..].to_vec())
    });
    thread::scope(|scope| {
        for (mut stream, rest) in rests {
            scope.spawn(move || stream.write_all(&rest).expect("the rest is taken"));
        }
        scope.spawn(|| receive(&mut other.stream, 21, LEN, || ()));
        receive(&mut one.stream, 22, LEN, || ());
    });
    expect_piped(&mut one, &mut other, b"the end");
}

fn eight_pairs_at_once(setup: Setup) {
    for splice in SPLICE {
        let server = Server::start(setup, &[splice]);
        thread::scope(|scope| {
            for index in 0..8 {
                let paths = [format!("/connection/a/b/{index}"), format!("/connection/b/a/{index}")];
                let ends = paths.map(|path| RawEnd::open(&server, &path));
                let seeds = [100 + index, 200 + index];
                for (at, end) in ends.into_iter().enumerate() {
                    exchange(scope, end, seeds[at], seeds[1 - at]);
                }
            }
        });
        server.wait_for_metric("parlor_connections", 1);
    }
}

/// Sends the bytes of one seed and its end, while those of the other come, and theirs.
fn exchange<'scope>(scope: &'scope thread::Scope<'scope, '_>, mut end: RawEnd, outgoing: u64, incoming: u64) {
    const LEN: usize = 3 << 20;
    let stream = end.stream.try_clone().expect("a socket");
    scope.spawn(move || {
        send(&stream, outgoing, LEN);
        stream.shutdown(Shutdown::Write).expect("a socket");
    });
    scope.spawn(move || {
        receive(&mut end.stream, incoming, LEN, || ());
        end.expect_end(End::Fin);
    });
}

/// The slow test.
fn sixty_four_mebibytes_with_a_stall(setup: Setup) {
    const LEN: usize = 64 << 20;
    const ROOM_KIB: u64 = 8 * 1024;
    let server = Server::start(setup, &[]);
    let (one, mut other) = pair(&server);
    let before = server.memory_kib();
    thread::scope(|scope| {
        scope.spawn(|| {
            send(&one.stream, 64, LEN);
            one.finish();
        });
        receive(&mut other.stream, 64, LEN, || {
            thread::sleep(Duration::from_secs(1));
            let stalled = server.memory_kib();
            assert!(stalled < before + ROOM_KIB, "{stalled} KiB in the stall, {before} before");
        });
    });
    other.expect_end(End::Fin);
    let (peak, after) = (server.memory_peak_kib(), server.memory_kib());
    assert!(peak < before + ROOM_KIB, "{before} KiB before, at most {peak}, then {after}");
}
