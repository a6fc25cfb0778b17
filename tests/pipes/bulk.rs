//! Many bytes through pipes: bounds of what is held, readers that are slow, many pairs at once.

use std::collections::VecDeque;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::{A, B, expect_piped, pair, watched_pair};
use crate::support::pipes::{Chance, Pattern, Seen, Watcher, connect_with_small_buffers, send_until_blocked};
use crate::support::{
    BINARY, CONTINUATION, FIN, PING, PONG, Server, Setup, TEXT, close_frame, frame, on_each_driver,
    on_each_setup,
};

on_each_setup!(
    what_is_held_has_a_bound,
    a_slow_reader_slows_the_writer_and_loses_nothing,
    both_may_write_before_they_read,
    eight_pairs_at_once,
);

on_each_driver!(sixty_four_mebibytes_with_a_stall);

/// Messages of random kinds, lengths and fragments.
pub(super) struct Plan {
    seed: u64,
    /// The opcode of each message, and the lengths of its frames.
    messages: Vec<(u8, Vec<usize>)>,
}

impl Plan {
    /// At least this many bytes.
    pub(super) fn new(seed: u64, total: usize) -> Self {
        let mut chance = Chance::new(seed);
        let mut messages = Vec::new();
        let mut planned = 0;
        while planned < total {
            let opcode = [TEXT, BINARY][chance.below(2)] & 0x0f;
            let lens = (0..=chance.below(3)).map(|_| random_len(&mut chance)).collect::<Vec<_>>();
            planned += lens.iter().sum::<usize>();
            messages.push((opcode, lens));
        }
        Self { seed, messages }
    }

    /// The bytes of each message.
    fn messages(&self) -> impl Iterator<Item = Vec<u8>> {
        let mut pattern = Pattern::ascii(self.seed);
        self.messages.iter().map(move |(opcode, lens)| {
            let last = lens.len() - 1;
            let frames = lens.iter().enumerate().map(|(at, len)| {
                let first = if at == 0 { *opcode } else { CONTINUATION } | if at == last { FIN } else { 0 };
                frame(first, &pattern.take(*len))
            });
            frames.collect::<Vec<_>>().concat()
        })
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.messages().flatten().collect()
    }

    fn total(&self) -> usize {
        self.messages.iter().flat_map(|(_, lens)| lens).sum()
    }

    /// What the receiver is to see.
    fn seen(&self) -> VecDeque<Seen> {
        let seen = |(opcode, lens): &(u8, Vec<usize>)| Seen {
            opcode: *opcode,
            len: lens.iter().sum(),
            is_whole: true,
        };
        self.messages.iter().map(seen).collect()
    }

    /// Sends all of it in random pieces.
    fn send(&self, mut stream: &TcpStream) {
        let mut chance = Chance::new(self.seed + 1);
        for message in self.messages() {
            let mut rest = message.as_slice();
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(1 + chance.below(rest.len()));
                stream.write_all(piece).expect("the connection takes all bytes");
                rest = behind;
            }
        }
    }

    /// All of it must come next, byte for byte and message for message. Calls `halfway` in the middle.
    pub(super) fn receive(&self, watcher: &mut Watcher, halfway: impl FnOnce()) {
        let half = self.total() as u64 / 2;
        let mut pattern = Pattern::ascii(self.seed);
        let mut halfway = Some(halfway);
        pattern.check(&std::mem::take(&mut watcher.payload));
        while !self.is_done(watcher) {
            let end = watcher.read(&format!("what follows byte {} of {}", pattern.at(), self.total()));
            assert_eq!(end, None, "the pipe ends after {} bytes", pattern.at());
            pattern.check(&std::mem::take(&mut watcher.payload));
            if pattern.at() > half
                && let Some(halfway) = halfway.take()
            {
                halfway();
            }
        }
        assert!(watcher.messages == self.seen(), "the bytes are right, but not the messages");
        watcher.messages.clear();
    }

    fn is_done(&self, watcher: &Watcher) -> bool {
        let messages = &watcher.messages;
        messages.len() >= self.messages.len() && messages.back().is_some_and(|last| last.is_whole)
    }
}

fn random_len(chance: &mut Chance) -> usize {
    match chance.below(20) {
        0..2 => 0,
        2..10 => chance.below(200),
        10..16 => chance.below(20_000),
        16..19 => chance.below(200_000),
        _ => chance.below(2_000_000),
    }
}

fn what_is_held_has_a_bound(setup: Setup) {
    const HELD: usize = 18;
    let server = Server::start(setup, &[("PIPE_HOLD_BYTES", "20000")]);
    let mut one = Watcher::open_over(connect_with_small_buffers(&server), A, b"");
    let small = Pattern::new(9).take(1_000);
    one.send(&frame(BINARY, &small).repeat(HELD));
    one.expect_pong(b"so much is held");
    let before = server.memory_kib();
    let plan = Plan::new(7, 24 << 20);
    let bytes = plan.bytes();
    let sent = send_until_blocked(&one.stream, &bytes);
    assert!(sent < bytes.len(), "all {sent} bytes are taken while nobody is there");
    assert!(server.memory_peak_kib() < before + 4 * 1024, "only so much is held: {before} KiB before");
    let mut other = Watcher::open(&server, B);
    thread::scope(|scope| {
        scope.spawn(|| one.send(&bytes[sent..]));
        for _ in 0..HELD {
            other.expect_message(BINARY, &small);
        }
        plan.receive(&mut other, || ());
    });
    one.expect_pong(b"read on");
}

fn a_slow_reader_slows_the_writer_and_loses_nothing(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut one = Watcher::open_over(connect_with_small_buffers(&server), A, b"");
    one.expect_pong(b"held");
    let mut other = Watcher::open_over(connect_with_small_buffers(&server), B, b"");
    one.send(&frame(TEXT, b"piped"));
    other.expect_message(TEXT, b"piped");
    let before = server.memory_kib();
    let plan = Plan::new(11, 40 << 20);
    let bytes = plan.bytes();
    let sent = send_until_blocked(&one.stream, &bytes);
    assert!(sent < bytes.len(), "the writer is never blocked");
    let peak = server.memory_peak_kib();
    assert!(peak < before + 8 * 1024, "memory is bounded: {before} KiB before, then {peak}");
    // Others are not held up.
    let (mut third, mut fourth) = pair(&server);
    expect_piped(&mut third, &mut fourth, "others");
    thread::scope(|scope| {
        scope.spawn(|| {
            one.send(&bytes[sent..]);
            one.send(&[frame(PING, b"the end"), close_frame(4_001, b"")].concat());
            assert_eq!(one.next_control(PONG, "the pong").payload, b"the end");
            one.expect_close(Some(4_001));
            one.finish(Some(4_001));
        });
        plan.receive(&mut other, || ());
        other.expect_close(None);
        other.finish(None);
    });
}

fn both_may_write_before_they_read(setup: Setup) {
    let server = Server::start(setup, &[]);
    let [mut one, mut other] = [A, B].map(|path| {
        let mut watcher = Watcher::open_over(connect_with_small_buffers(&server), path, b"");
        watcher.expect_pong(b"here");
        watcher
    });
    let plans = [21, 22].map(|seed| Plan::new(seed, 40 << 20));
    let rests = [(&one, &plans[0]), (&other, &plans[1])].map(|(watcher, plan)| {
        let bytes = plan.bytes();
        let sent = send_until_blocked(&watcher.stream, &bytes);
        assert!(sent < bytes.len(), "a writer is never blocked");
        (watcher.stream.try_clone().expect("a socket"), bytes[sent..].to_vec())
    });
    thread::scope(|scope| {
        for (mut stream, rest) in rests {
            scope.spawn(move || stream.write_all(&rest).expect("the rest is taken"));
        }
        scope.spawn(|| plans[0].receive(&mut other, || ()));
        plans[1].receive(&mut one, || ());
    });
}

fn eight_pairs_at_once(setup: Setup) {
    // No pings in between: the ends are written by two threads.
    let server = Server::start(setup, &[("HEARTBEAT_MS", "600000")]);
    thread::scope(|scope| {
        for index in 0..8 {
            let paths = [format!("/connection/a/b/{index}"), format!("/connection/b/a/{index}")];
            let ends = paths.map(|path| Watcher::open(&server, &path));
            let plans = [0, 1].map(|end| Arc::new(Plan::new(1_000 + index * 2 + end, 3 << 20)));
            for (at, mut watcher) in ends.into_iter().enumerate() {
                let (outgoing, incoming) = (Arc::clone(&plans[at]), Arc::clone(&plans[1 - at]));
                let stream = watcher.stream.try_clone().expect("a socket");
                scope.spawn(move || outgoing.send(&stream));
                scope.spawn(move || incoming.receive(&mut watcher, || ()));
            }
        }
    });
}

/// The slow test.
fn sixty_four_mebibytes_with_a_stall(setup: Setup) {
    const ROOM_KIB: u64 = 8 * 1024;
    let server = Server::start(setup, &[]);
    let (one, mut other) = watched_pair(&server);
    let plan = Plan::new(64, 64 << 20);
    let before = server.memory_kib();
    thread::scope(|scope| {
        scope.spawn(|| plan.send(&one.stream));
        plan.receive(&mut other, || {
            thread::sleep(Duration::from_secs(1));
            let stalled = server.memory_kib();
            assert!(stalled < before + ROOM_KIB, "{stalled} KiB in the stall, {before} before");
        });
    });
    let (peak, after) = (server.memory_peak_kib(), server.memory_kib());
    assert!(peak < before + ROOM_KIB, "{before} KiB before, at most {peak}, then {after}");
}
