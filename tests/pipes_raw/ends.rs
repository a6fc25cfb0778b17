//! How raw pipes end: an end as an end, a reset as a reset, and nothing is left behind. Silence is no end.

use std::io::Write;
use std::path::PathBuf;
use std::thread;

use super::bulk::receive;
use super::{A, B, SPLICE, expect_piped, pair};
use crate::support::pipes::{Pattern, RawEnd, Watcher, connect_with_small_buffers, send_until_blocked};
use crate::support::{End, Server, Setup, on_each_setup, wait_until};

on_each_setup!(
    an_end_passes_as_an_end,
    an_end_comes_behind_all_that_was_sent,
    both_may_end_before_all_has_arrived,
    a_reset_passes_as_a_reset,
    a_reset_behind_an_end_passes_too,
    no_end_is_left_behind,
    who_is_silent_is_not_cut,
);

fn an_end_passes_as_an_end(setup: Setup) {
    SPLICE.into_iter().for_each(|splice| check_ends(&Server::start(setup, &[splice])));
}

fn check_ends(server: &Server) {
    for is_first in [true, false] {
        let (mut one, mut other) = pair(server);
        if !is_first {
            std::mem::swap(&mut one, &mut other);
        }
        one.send(b"the last of it");
        one.finish();
        other.expect(b"the last of it");
        other.expect_end(End::Fin);
        // The other direction is as open as ever.
        let mut pattern = Pattern::new(5);
        for len in [1, 1_000, 100_000] {
            let bytes = pattern.take(len);
            other.send(&bytes);
            one.expect(&bytes);
        }
        other.finish();
        one.expect_end(End::Fin);
        server.wait_for_metric("parlor_connections", 1);
    }
    // Both at once.
    let (mut one, mut other) = pair(server);
    one.finish();
    other.finish();
    one.expect_end(End::Fin);
    other.expect_end(End::Fin);
}

fn an_end_comes_behind_all_that_was_sent(setup: Setup) {
    const LEN: usize = 8 << 20;
    for (splice, is_held) in SPLICE.into_iter().flat_map(|splice| [(splice, true), (splice, false)]) {
        let server = Server::start(setup, &[splice]);
        let mut one = RawEnd::open_over(connect_with_small_buffers(&server), A, b"").0;
        let open_other = || RawEnd::open_over(connect_with_small_buffers(&server), B, b"").0;
        let early = (!is_held).then(open_other);
        let bytes = Pattern::new(6).take(LEN);
        let sent = send_until_blocked(&one.stream, &bytes);
        let mut other = early.unwrap_or_else(open_other);
        thread::scope(|scope| {
            scope.spawn(|| {
                one.send(&bytes[sent..]);
                one.finish();
            });
            receive(&mut other.stream, 6, LEN, || ());
        });
        other.expect_end(End::Fin);
        other.send(b"thanks");
        other.finish();
        one.expect(b"thanks");
        one.expect_end(End::Fin);
    }
}

/// Who is through with both directions may be so before its partner has read a byte.
fn both_may_end_before_all_has_arrived(setup: Setup) {
    const LEN: usize = 300_000;
    for splice in SPLICE {
        let server = Server::start(setup, &[splice]);
        // Many at once, so that their ends come in every order.
        let mut pairs: Vec<_> = (0..40)
            .map(|index| {
                let [one, other] = ["a/b", "b/a"].map(|ids| format!("/connection/{ids}/{index}"));
                (RawEnd::open(&server, &one), RawEnd::open(&server, &other))
            })
            .collect();
        let bytes = Pattern::new(8).take(LEN);
        for (one, other) in &mut pairs {
            one.send(&bytes);
            one.finish();
            other.finish();
        }
        for (mut one, mut other) in pairs {
            one.expect_end(End::Fin);
            receive(&mut other.stream, 8, LEN, || ());
            other.expect_end(End::Fin);
        }
        server.wait_for_metric("parlor_connections", 1);
    }
}

fn a_reset_passes_as_a_reset(setup: Setup) {
    for splice in SPLICE {
        let server = Server::start(setup, &[splice]);
        for is_first in [true, false] {
            for has_partner_ended in [false, true] {
                let (mut one, mut other) = pair(&server);
                if !is_first {
                    std::mem::swap(&mut one, &mut other);
                }
                if has_partner_ended {
                    other.finish();
                    one.expect_end(End::Fin);
                }
                one.reset();
                other.expect_end(End::Reset);
                drop(other);
                server.wait_for_metric("parlor_connections", 1);
            }
        }
        // While bytes are on their way, what has arrived is right.
        let (one, mut other) = pair(&server);
        let bytes = Pattern::new(7).take(3 << 20);
        let mut stream = one.stream.try_clone().expect("a socket");
        let sending = thread::spawn(move || while stream.write_all(&bytes).is_ok() {});
        other.expect(&Pattern::new(7).take(100_000));
        other.reset();
        sending.join().expect("the writer is told");
        drop(one);
        server.wait_for_metric("parlor_connections", 1);
    }
}

/// Also to one who says nothing, and so would not find out.
fn a_reset_behind_an_end_passes_too(setup: Setup) {
    let server = Server::start(setup, &[]);
    for is_first in [true, false] {
        let (mut one, mut other) = pair(&server);
        if !is_first {
            std::mem::swap(&mut one, &mut other);
        }
        one.finish();
        other.expect_end(End::Fin);
        one.reset();
        // Behind an end, reading finds nothing but that end.
        let is_reset = || other.stream.take_error().expect("a socket").is_some();
        wait_until("the reset behind the end", is_reset);
    }
}

/// Connections and what they hold of the system are back after each kind of end.
fn no_end_is_left_behind(setup: Setup) {
    let name = format!("{:?} of {}", setup, std::process::id());
    let server = Server::start(setup, &[("INSTANCE_ID", &name)]);
    let round = || {
        for index in 0..20 {
            let (one, mut other) = pair(&server);
            one.finish();
            other.expect_end(End::Fin);
            match index % 3 {
                0 => other.finish(),
                1 => other.reset(),
                _ => drop(other),
            }
            drop(one);
            RawEnd::open(&server, "/connection/held/nobody/doc").reset();
        }
        server.wait_for_metric("parlor_connections", 1);
    };
    // What is kept for the next time is there after the first.
    round();
    let instance = format!("INSTANCE_ID={name}");
    let before = open_files(&instance);
    round();
    round();
    wait_until(&format!("{before} open files again"), || open_files(&instance) <= before);
}

/// The open files of the process whose environment has this name.
fn open_files(instance: &str) -> usize {
    let processes =
        std::fs::read_dir("/proc").expect("a folder").map(|entry| entry.expect("an entry").path());
    let is_it = |process: &PathBuf| {
        let environment = std::fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == instance.as_bytes())
    };
    let found: Vec<PathBuf> = processes.filter(is_it).collect();
    assert_eq!(found.len(), 1, "one process has {instance}");
    std::fs::read_dir(found[0].join("fd")).expect("it runs").count()
}

fn who_is_silent_is_not_cut(setup: Setup) {
    let server = Server::start(setup, &[("HEARTBEAT_MS", "300")]);
    let (mut one, mut other) = pair(&server);
    let mut held = RawEnd::open(&server, "/connection/c/d/doc");
    // For a WebSocket, this is too long. Twice, so that the raw ends are older for sure.
    for _ in 0..2 {
        let mut silent = Watcher::open(&server, "/connection/e/f/doc");
        silent.end();
    }
    assert_eq!(server.metric("parlor_heartbeats_missed_total"), 2);
    // Nothing of a heartbeat came either.
    expect_piped(&mut one, &mut other, b"still piped");
    held.send(b"still held");
    let mut partner = RawEnd::open(&server, "/connection/d/c/doc");
    partner.expect(b"still held");
    expect_piped(&mut held, &mut partner, b"and piped");
}
