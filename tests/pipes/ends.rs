//! How pipes end: closes, cuts and the server's own end.

use std::io::Write;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::SockRef;
use tungstenite::Message;

use super::{A, B, expect_piped, pair, watched_pair};
use crate::support::pipes::{Pattern, RawEnd, Socket, Watcher};
use crate::support::{
    BINARY, CLOSE, CONTINUATION, End, FIN, Server, Setup, TEXT, WAIT, close_frame, frame, on_each_setup,
};

on_each_setup!(
    a_close_comes_behind_what_was_sent,
    who_has_closed_gets_nothing_but_the_answer,
    a_cut_end_ends_the_other,
    a_signal_closes_all,
);

fn a_close_comes_behind_what_was_sent(setup: Setup) {
    let server = Server::start(setup, &[]);
    let large = Pattern::new(4).take(2_000_000);
    for (index, code) in [None, Some(1000), Some(1001), Some(3000), Some(4999)].into_iter().enumerate() {
        for (closing, left) in [(A, B), (B, A)] {
            let is_held = index % 2 == 0;
            let (mut one, mut other) = if is_held {
                let one = Watcher::hold(&server, closing);
                (one, Socket::open(&server, left))
            } else {
                let other = Socket::hold(&server, left);
                (Watcher::open(&server, closing), other)
            };
            let close = code.map_or_else(|| frame(CLOSE, b""), |code| close_frame(code, b"bye"));
            thread::scope(|scope| {
                scope.spawn(|| {
                    let bytes = [frame(TEXT, b"first"), frame(BINARY, &large), frame(TEXT, b"last"), close];
                    one.send(&bytes.concat());
                    one.expect_close(code);
                    assert!(one.messages.is_empty(), "nothing came but the answer");
                    one.finish(code);
                });
                other.expect("first");
                other.expect(Message::binary(large.clone()));
                other.expect("last");
                other.expect_close(None);
            });
        }
    }
    // Both at once: each gets an answer.
    for _ in 0..20 {
        let (mut one, mut other) = watched_pair(&server);
        one.send(&close_frame(3_001, b""));
        other.send(&close_frame(3_002, b""));
        for (mut watcher, code) in [(one, 3_001), (other, 3_002)] {
            let close = watcher.next_control(CLOSE, "a close");
            // The close of the other may have come first.
            assert!([Some(code), None].contains(&close.close_code()), "{close:?}");
            assert_eq!(watcher.end(), End::Fin);
        }
    }
    server.wait_for_metric("parlor_clients", 0);
}

fn who_has_closed_gets_nothing_but_the_answer(setup: Setup) {
    let server = Server::start(setup, &[]);
    let (mut one, mut other) = watched_pair(&server);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut stream = other.stream.try_clone().expect("a socket");
        let flooding = scope.spawn({
            let is_over = &is_over;
            move || {
                let piece = frame(BINARY, &[7; 1_000]).repeat(16);
                let start = Instant::now();
                while !is_over.load(Ordering::Relaxed) {
                    stream.write_all(&piece).expect("a closing one reads on");
                    assert!(start.elapsed() < WAIT, "waited {WAIT:?} for the end of the flood");
                }
            }
        });
        one.wait_for("the flood", |one| one.payload.len() > 1_000_000);
        one.send(&close_frame(4_321, b""));
        // What was on its way comes first; that nothing comes behind the answer is seen by who watches.
        one.expect_close(Some(4_321));
        assert_eq!(one.end(), End::Fin);
        other.expect_close(None);
        is_over.store(true, Ordering::Relaxed);
        flooding.join().expect("the flood ends");
    });
    assert!(other.messages.is_empty());
    other.finish(None);
}

fn a_cut_end_ends_the_other(setup: Setup) {
    let server = Server::start(setup, &[]);
    let ends: [fn(&Watcher); 2] = [
        |watcher| watcher.stream.shutdown(Shutdown::Write).expect("a socket"),
        |watcher| {
            let socket = SockRef::from(&watcher.stream);
            socket.set_linger(Some(Duration::ZERO)).expect("a socket");
        },
    ];
    let half = frame(BINARY, &[b'x'; 1_000]);
    let cases: [(&str, Vec<u8>, usize); 5] = [
        ("at once", Vec::new(), 0),
        ("between messages", frame(TEXT, b"whole"), 5),
        ("between fragments", frame(TEXT & !FIN, b"open"), 4),
        ("inside a frame", half[..half.len() - 600].to_vec(), 400),
        (
            "inside a frame of a message",
            [frame(TEXT & !FIN, b"open"), frame(CONTINUATION, b"abcd")[..8].to_vec()].concat(),
            6,
        ),
    ];
    for (what, bytes, len) in &cases {
        for end in ends {
            for is_first in [true, false] {
                let (mut one, mut other) = watched_pair(&server);
                if !is_first {
                    std::mem::swap(&mut one, &mut other);
                }
                one.send(bytes);
                other.wait_for(&format!("what comes before the end {what}"), |other| {
                    other.payload.len() >= *len
                });
                end(&one);
                // A reset comes with the drop.
                drop(one);
                other.expect_close_or_cut();
                assert_eq!(other.payload.len(), *len, "{what}");
                drop(other);
                server.wait_for_metric("parlor_clients", 0);
            }
        }
    }
    let (mut one, mut other) = pair(&server);
    expect_piped(&mut one, &mut other, "nothing is left of all that");
}

fn a_signal_closes_all(setup: Setup) {
    let mut server = Server::start(setup, &[]);
    let (one, other) = pair(&server);
    let sockets = [
        one,
        other,
        Socket::hold(&server, "/connection/held/nobody/doc"),
        Socket::hold(&server, "/introduction/alice"),
    ];
    let mut sending = Watcher::hold(&server, "/connection/a/b/under%20way");
    let mut receiving = Watcher::open(&server, "/connection/b/a/under%20way");
    let under_way = frame(BINARY, &[1; 1_000]);
    sending.send(&under_way[..500]);
    receiving.wait_for("the start of a frame", |receiving| receiving.payload.len() >= 400);
    let raw = ["a/b/raw", "b/a/raw", "held/nobody/raw"]
        .map(|path| RawEnd::open(&server, &format!("/connection/{path}")));
    let start = Instant::now();
    server.signal(Signal::TERM);
    let closing = sockets
        .map(|socket| thread::spawn(move || socket.expect_close(Some((1001, "Server shutting down")))));
    assert_eq!(sending.expect_close(Some(1001)), "Server shutting down");
    sending.send(&under_way[500..]);
    sending.finish(Some(1001));
    // In the middle of a frame there is no place for a close.
    while receiving.controls.is_empty() {
        if receiving.read("a close, or the end inside a frame").is_some() {
            assert!(receiving.is_in_frame(), "no frame is open, and there is no close");
            break;
        }
    }
    if !receiving.is_in_frame() {
        assert_eq!(receiving.expect_close(Some(1001)), "Server shutting down");
    }
    drop(receiving);
    for closed in closing {
        closed.join().expect("it is closed as it should be");
    }
    for mut end in raw {
        let _ = end.end();
    }
    assert_eq!(server.wait_for_exit().code(), Some(0), "{}", server.log());
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}
