//! Heartbeats of pipes: protocols.md section 0, the line heartbeat.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tungstenite::Message;

use super::bulk::Plan;
use super::{A, B, expect_piped_to, watched_pair};
use crate::support::pipes::{Pattern, Socket, Watcher, connect_with_small_buffers, send_until_blocked};
use crate::support::{CLOSE, PING, PONG, Server, Setup, TEXT, close_frame, frame, on_each_setup};

on_each_setup!(
    who_is_silent_is_cut,
    who_answers_pings_stays,
    pings_find_their_way_between_slow_bytes,
    while_reading_stops_the_heartbeat_rests,
);

const HEARTBEAT: Duration = Duration::from_millis(400);
const HEARTBEAT_MS: (&str, &str) = ("HEARTBEAT_MS", "400");

/// Opens a pipe of its own and waits until it is cut for its silence: two heartbeats at least.
fn wait_two_heartbeats(server: &Server) {
    let start = Instant::now();
    let mut silent = Watcher::open(server, "/connection/silent/nobody/doc");
    silent.end();
    assert!(silent.controls.iter().all(|control| control.first == PING), "pings, but no close");
    assert!(!silent.controls.is_empty(), "it was asked before it was cut");
    let took = start.elapsed();
    assert!(took >= 2 * HEARTBEAT && took < 3 * HEARTBEAT + Duration::from_secs(2), "cut after {took:?}");
}

fn who_is_silent_is_cut(setup: Setup) {
    let server = Server::start(setup, &[HEARTBEAT_MS]);
    wait_two_heartbeats(&server);
    assert_eq!(server.metric("parlor_heartbeats_missed_total"), 1);
    for (silent, other) in [(A, B), (B, A)] {
        let other = Socket::hold(&server, other);
        let mut silent = Watcher::open(&server, silent);
        // It reads, and so it answers.
        let closed = thread::spawn(move || other.expect_close(None));
        silent.end();
        assert!(silent.controls.iter().all(|control| control.first == PING), "pings, but no close");
        closed.join().expect("the partner is closed");
    }
    assert_eq!(server.metric("parlor_heartbeats_missed_total"), 3);
}

fn who_answers_pings_stays(setup: Setup) {
    let server = Server::start(setup, &[HEARTBEAT_MS]);
    let (one, other) = watched_pair(&server);
    let held = Watcher::hold(&server, "/connection/held/nobody/doc");
    let mut watchers = [one, other, held];
    for _ in 0..5 {
        for watcher in &mut watchers {
            let ping = watcher.next_control(PING, "the next ping");
            watcher.send(&frame(PONG, &ping.payload));
        }
    }
    let [one, other, held] = &mut watchers;
    one.send(&frame(TEXT, b"still piped"));
    other.expect_message(TEXT, b"still piped");
    held.expect_pong(b"still held");
    assert_eq!(server.metric("parlor_heartbeats_missed_total"), 0);
}

fn pings_find_their_way_between_slow_bytes(setup: Setup) {
    let server = Server::start(setup, &[HEARTBEAT_MS]);
    let (mut one, mut other) = (Watcher::hold(&server, A), Socket::open(&server, B));
    let payload = Pattern::ascii(6).take(50);
    let expected = Message::text(String::from_utf8(payload.clone()).expect("ASCII is text"));
    // It reads all the time, and so it answers whatever ping can come.
    let reading = thread::spawn(move || {
        other.expect(expected);
        other
    });
    // Five heartbeats for one frame.
    let bytes = frame(TEXT, &payload);
    for byte in bytes {
        one.send(&[byte]);
        thread::sleep(HEARTBEAT / 10);
    }
    let mut other = reading.join().expect("the message comes whole, and who answers all pings stays");
    expect_piped_to(&mut one, &mut other);
    assert_eq!(server.metric("parlor_heartbeats_missed_total"), 0);
}

/// Sends pongs that nobody asked for while it lives, as a sign of life of who does not read.
struct SignsOfLife {
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl SignsOfLife {
    fn of(watcher: &Watcher) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut stream = watcher.stream.try_clone().expect("a socket");
        let has_ended = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            while !has_ended.load(Ordering::Relaxed) {
                // Who was cut is found out elsewhere.
                let _ = stream.write_all(&frame(PONG, b"here"));
                thread::sleep(HEARTBEAT / 8);
            }
        });
        Self { is_over, thread: Some(thread) }
    }
}

impl Drop for SignsOfLife {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.take().expect("it runs").join().expect("it does not fail");
    }
}

fn while_reading_stops_the_heartbeat_rests(setup: Setup) {
    let server = Server::start(setup, &[HEARTBEAT_MS, ("PIPE_HOLD_BYTES", "20000")]);
    let plan = Plan::new(31, 40 << 20);
    let bytes = plan.bytes();
    // While the other is not there, and while it does not read.
    for is_there in [false, true] {
        let mut one = Watcher::open_over(connect_with_small_buffers(&server), A, b"");
        let other = || {
            let other = Watcher::open_over(connect_with_small_buffers(&server), B, b"");
            let signs = SignsOfLife::of(&other);
            (other, signs)
        };
        let early = is_there.then(other);
        let sent = send_until_blocked(&one.stream, &bytes);
        assert!(sent < bytes.len(), "the writer is never blocked");
        wait_two_heartbeats(&server);
        wait_two_heartbeats(&server);
        let (mut other, signs) = early.unwrap_or_else(other);
        thread::scope(|scope| {
            scope.spawn(|| {
                one.send(&bytes[sent..]);
                let _signs = SignsOfLife::of(&one);
                one.wait_for("a close", |one| one.controls.iter().any(|control| control.first == CLOSE));
                one.expect_close(None);
            });
            plan.receive(&mut other, || ());
            drop(signs);
            other.send(&close_frame(1_000, b""));
            other.expect_close(Some(1_000));
        });
    }
    assert_eq!(server.metric("parlor_heartbeats_missed_total"), 4, "the silent ones alone");
}
