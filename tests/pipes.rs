//! Pipes of WebSockets from outside: protocols.md section 5, its second part, and of section 0 what holds for them, with
//! 1 and 4 shards, on io_uring and on epoll. This file: paths, and who meets whom. What passes: `frames` and `bulk`;
//! how it ends: `ends` and `heartbeats`.

mod support;

#[path = "pipes/bulk.rs"]
mod bulk;
#[path = "pipes/ends.rs"]
mod ends;
#[path = "pipes/frames.rs"]
mod frames;
#[path = "pipes/heartbeats.rs"]
mod heartbeats;

use std::thread;
use std::time::{Duration, Instant};

use support::pipes::{Pattern, RawEnd, Socket, Watcher, answer_to};
use support::{
    CLOSE, CONTINUATION, FIN, PING, PONG, Raw, Server, Setup, TEXT, frame, get, on_each_setup, upgrade_head,
};
use tungstenite::Message;

/// The ends of the pipe that most tests use.
const A: &str = "/connection/a/b/doc";
const B: &str = "/connection/b/a/doc";

on_each_setup!(
    each_path_leads_where_it_should,
    what_the_first_one_sends_is_held_in_order,
    a_second_socket_replaces_the_held_one,
    both_ends_may_have_one_id,
    a_newcomer_beside_a_pipe_is_held_anew,
    other_ids_and_documents_are_other_pipes,
    a_held_one_that_ends_is_forgotten,
    who_comes_while_the_held_one_goes_meets_it_or_waits,
    nobody_is_held_for_longer_than_allowed,
    no_more_are_held_than_allowed,
);

/// A pipe that has not been used yet.
fn pair(server: &Server) -> (Socket, Socket) {
    (Socket::hold(server, A), Socket::open(server, B))
}

/// Nothing else is on the way from `one` to `other`.
fn expect_piped_to(one: &mut Watcher, other: &mut Socket) {
    one.send(&frame(TEXT, b"marker"));
    other.expect("marker");
}

/// [`pair`], of which all frames can be seen.
fn watched_pair(server: &Server) -> (Watcher, Watcher) {
    (Watcher::hold(server, A), Watcher::open(server, B))
}

/// Nothing else is on the way between these two, in either direction.
fn expect_piped(one: &mut Socket, other: &mut Socket, marker: &str) {
    one.send(marker);
    other.expect(marker);
    other.send(Message::binary(marker.to_owned()));
    one.expect(Message::binary(marker.to_owned()));
}

fn each_path_leads_where_it_should(setup: Setup) {
    let server = Server::start(setup, &[]);
    for (one, other) in [
        ("/connection/a/b/doc", "/connection/b/a/doc"),
        ("/connect/a/b/doc", "/connection/b/a/doc"),
        ("/connect/a/b/doc/", "/connect/b/a/doc"),
        ("/CONNECTION/a/b/doc/", "/Connect/b/a/doc/"),
        ("/%63onnection/a/b/doc", "/connection/b/a/doc"),
        ("/connection/a/b/doc?", "/connection/b/a/doc?source=wallet&target=extension"),
        ("/connection/a/b/doc/?x=/y/", "/connection/b/a/doc?local=x&document=y"),
        ("/connection/%61/b/%64oc", "/connection/b/a/doc"),
        ("/connection/connection/b/connect", "/connection/b/connection/connect"),
        // The short form with its parameters is the long form.
        ("/connection/b?local=a&document=doc", "/connection/b/a/doc"),
        ("/connection/b/?document=doc&x=y&local=a", "/connection/a/?local=b&document=doc"),
        ("/connect/b%2Fb?local=%61%25&document=d%20%2f", "/Connection/b%2Fb/a%25/d%20%2F"),
    ] {
        let (mut first, mut second) = (Socket::hold(&server, one), Socket::open(&server, other));
        expect_piped(&mut first, &mut second, one);
        second.close(Some(1000));
        first.expect_close(None);
    }
    for (path, status) in [
        ("/connection", 404),
        ("/connection/", 404),
        ("/connection//", 404),
        ("/connection//?local=a&document=b", 404),
        ("/connection/a/b", 404),
        ("/connection/a/b/", 404),
        ("/connection/a/b?local=a&document=b", 404),
        ("/connection/a/b/c/d", 404),
        ("/connection/a/b/c//", 404),
        ("/connection//b/c", 404),
        ("/connection/a//c", 404),
        ("/connection/a/b//", 404),
        ("/connect", 404),
        ("/connect/a/b", 404),
        ("/connect//b/c", 404),
        ("/connects/a/b/c", 404),
        ("//connection/a/b/c", 404),
        ("/connection%2Fa/b/c", 404),
        ("/connection/%/b/c", 400),
        ("/connection/a/%b/c", 400),
        ("/connection/a/b/%zz", 400),
        ("/connection/a/b/%ff", 400),
        ("/connect/a/%c3%28/c", 400),
        ("/connect/%ed%a0%80", 400),
    ] {
        let answer = answer_to(&server, &upgrade_head(path, ""));
        assert_eq!(answer.status, status, "{path}");
        let names_them = answer.body.contains("/introduction/") && answer.body.contains("/connection/");
        assert!(status != 404 || names_them, "{path}: it names the paths: {}", answer.body);
    }
    assert_eq!(get(server.address, A).status, 404, "a plain request is no pipe");
}

/// Messages of all kinds, half a megabyte.
fn samples() -> Vec<Message> {
    let lens = [0, 1, 2, 124, 125, 126, 127, 1_000, 65_535, 65_536, 65_537];
    let of_len = |len: usize| {
        let text = String::from_utf8(Pattern::ascii(1).take(len)).expect("ASCII is text");
        [Message::text(text), Message::binary(Pattern::new(2).take(len))]
    };
    let mut samples: Vec<Message> = lens.into_iter().flat_map(of_len).collect();
    samples.push(Message::text("grüße 😀 \u{0}\u{ffff}\u{10ffff}"));
    samples.push(Message::text(r#"{"type":"Join","join":["doc"]}"#));
    samples.push(Message::text("é".repeat(40_000)));
    samples
}

fn what_the_first_one_sends_is_held_in_order(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut messages = samples();
    // A little less than the default bound.
    let rest = 1_000_000 - messages.iter().map(Message::len).sum::<usize>();
    messages.insert(7, Message::binary(Pattern::new(3).take(rest)));
    for (first, second) in [(A, B), (B, A)] {
        let mut one = Socket::open(&server, first);
        for message in &messages {
            one.send(message.clone());
        }
        one.expect_nothing();
        let mut other = Socket::open(&server, second);
        for message in &messages {
            other.expect(message.clone());
        }
        expect_piped(&mut one, &mut other, "live");
        one.close(None);
        other.expect_close(None);
    }
    // A message whose end comes when the other is there.
    let mut one = Watcher::open(&server, A);
    one.send(&frame(TEXT & !FIN, b"begun, "));
    one.expect_pong(b"between");
    let message = frame(CONTINUATION | FIN, b"then ended");
    one.send(&message[..9]);
    let mut other = Socket::open(&server, B);
    one.send(&message[9..]);
    other.expect("begun, then ended");
}

fn a_second_socket_replaces_the_held_one(setup: Setup) {
    let server = Server::start(setup, &[]);
    for (first, second) in [(A, B), (B, A)] {
        let mut held = Socket::hold(&server, first);
        for index in 0..3 {
            held.send(format!("of {index}"));
            held.expect_nothing();
            let new = Socket::hold(&server, first);
            held.expect_close(None);
            held = new;
        }
        held.send("of the last one");
        let mut other = Socket::open(&server, second);
        other.expect("of the last one");
        expect_piped(&mut held, &mut other, "marker");
        held.close(None);
        other.expect_close(None);
    }
}

fn both_ends_may_have_one_id(setup: Setup) {
    let server = Server::start(setup, &[]);
    let path = "/connection/a/a/doc";
    let mut pairs = Vec::new();
    for index in 0..3 {
        let mut one = Socket::hold(&server, path);
        one.send(format!("held {index}"));
        let mut other = Socket::open(&server, path);
        other.expect(format!("held {index}"));
        pairs.push((one, other));
    }
    for (one, other) in &mut pairs {
        expect_piped(one, other, "marker");
    }
    for (one, other) in pairs {
        one.close(Some(1000));
        other.expect_close(None);
    }
}

fn a_newcomer_beside_a_pipe_is_held_anew(setup: Setup) {
    let server = Server::start(setup, &[]);
    let (mut one, mut other) = pair(&server);
    expect_piped(&mut one, &mut other, "first");
    for (same, opposite) in [(A, B), (B, A)] {
        let replaced = Socket::hold(&server, same);
        let mut newcomer = Socket::hold(&server, same);
        replaced.expect_close(None);
        newcomer.send("of the newcomer");
        newcomer.expect_nothing();
        expect_piped(&mut one, &mut other, "first, while another is held");
        let mut partner = Socket::open(&server, opposite);
        partner.expect("of the newcomer");
        expect_piped(&mut newcomer, &mut partner, "second");
        expect_piped(&mut one, &mut other, "first, beside the second");
        newcomer.close(None);
        partner.expect_close(None);
        expect_piped(&mut one, &mut other, "first, after the second");
    }
}

fn other_ids_and_documents_are_other_pipes(setup: Setup) {
    let server = Server::start(setup, &[]);
    let pipes = [
        ("a/b/d", "b/a/d"),
        ("a/b/e", "b/a/e"),
        ("a/c/d", "c/a/d"),
        ("A/b/d", "b/A/d"),
        ("a/b/D", "b/a/D"),
        ("a/d/b", "d/a/b"),
        ("ab/c/d", "c/ab/d"),
        ("a/bc/d", "bc/a/d"),
        ("a/b/cd", "b/a/cd"),
        // A slash of its own parts nothing.
        ("a%2Fb/c/d", "c/a%2Fb/d"),
        ("a/b%2Fc/d", "b%2fc/a/d"),
        ("a/b/c%2Fd", "b/a/c%2Fd"),
        // Decoded once.
        ("%2561/b/d", "b/%2561/d"),
        ("a/b/%2564", "b/a/%2564"),
        ("a%00/b/d", "b/a%00/d"),
        ("a/b/d%20", "b/a/d%20"),
        ("%C3%A9/b/d", "b/%c3%a9/d"),
        ("e%CC%81/b/d", "b/e%CC%81/d"),
    ];
    let mut held: Vec<Socket> =
        pipes.iter().map(|(path, _)| Socket::hold(&server, &format!("/connection/{path}"))).collect();
    for (socket, (path, _)) in held.iter_mut().zip(pipes) {
        socket.send(format!("of {path}"));
    }
    for socket in &mut held {
        socket.expect_nothing();
    }
    let mut others: Vec<Socket> =
        pipes.iter().rev().map(|(_, path)| Socket::open(&server, &format!("/connect/{path}"))).collect();
    others.reverse();
    for ((one, other), (path, _)) in held.iter_mut().zip(&mut others).zip(pipes) {
        other.expect(format!("of {path}"));
        expect_piped(one, other, path);
    }
}

fn a_held_one_that_ends_is_forgotten(setup: Setup) {
    let server = Server::start(setup, &[]);
    let ends: [fn(Socket); 4] = [
        |socket| socket.close(Some(1000)),
        |socket| socket.close(None),
        Socket::reset,
        Socket::end_without_close,
    ];
    for end in ends {
        let mut gone = Socket::hold(&server, A);
        gone.send("of one who is gone");
        gone.expect_nothing();
        end(gone);
        server.wait_for_metric("parlor_clients", 0);
        let mut next = Socket::hold(&server, B);
        next.send("of one who waits");
        next.expect_nothing();
        let mut other = Socket::open(&server, A);
        other.expect("of one who waits");
        expect_piped(&mut next, &mut other, "marker");
        next.close(None);
        other.expect_close(None);
        server.wait_for_metric("parlor_clients", 0);
    }
}

fn who_comes_while_the_held_one_goes_meets_it_or_waits(setup: Setup) {
    let server = Server::start(setup, &[]);
    for round in 0..60 {
        let (first, second) = if round % 2 == 0 { (A, B) } else { (B, A) };
        let gone = Socket::hold(&server, first);
        let closing = thread::spawn(move || gone.close(Some(1000)));
        let mut other = Watcher::open(&server, second);
        closing.join().expect("who closes gets its answer, and nothing else");
        // By now it is settled.
        other.send(&frame(PING, b"held"));
        other.wait_for("a pong, or a close", |other| !other.controls.is_empty());
        if other.controls[0].first == CLOSE {
            other.expect_close(None);
            other.finish(None);
        } else {
            let mut partner = Socket::open(&server, first);
            expect_piped_to(&mut other, &mut partner);
            partner.close(None);
            other.next_control(CLOSE, "the end");
            other.finish(None);
        }
    }
}

fn nobody_is_held_for_longer_than_allowed(setup: Setup) {
    const LONGEST: Duration = Duration::from_millis(1_500);
    let server = Server::start(setup, &[("PIPE_HOLD_MS", "1500")]);
    let (mut one, mut other) = pair(&server);
    expect_piped(&mut one, &mut other, "before");
    let start = Instant::now();
    let mut held = Socket::open(&server, A);
    held.send("not for nothing");
    let mut raw = RawEnd::open(&server, A);
    raw.send(b"not for nothing");
    held.expect_close(Some((1013, "peer did not connect")));
    let took = start.elapsed();
    assert!(took >= LONGEST && took < LONGEST + Duration::from_secs(3), "closed after {took:?}");
    let _ = raw.end();
    let took = start.elapsed();
    assert!(took >= LONGEST && took < LONGEST + Duration::from_secs(3), "ended after {took:?}");
    // Whoever has found a partner stays, and who was sent away is forgotten.
    expect_piped(&mut one, &mut other, "after");
    let (mut third, mut fourth) = pair(&server);
    expect_piped(&mut third, &mut fourth, "new");
    // No limit.
    let server = Server::start(setup, &[("PIPE_HOLD_MS", "0")]);
    let (mut one, mut other) = pair(&server);
    expect_piped(&mut one, &mut other, "without a limit");
}

fn no_more_are_held_than_allowed(setup: Setup) {
    const MOST: usize = 3;
    let server = Server::start(setup, &[("MAX_HELD_PIPES", "3")]);
    let mut held: Vec<(usize, Raw)> =
        (0..16).filter_map(|index| Some((index, try_hold(&server, index)?))).collect();
    assert!((1..=MOST).contains(&held.len()), "{} are held", held.len());
    assert!(setup.shards > 1 || held.len() == MOST, "{} are held", held.len());
    // A partner still comes in, and takes one away: then there is room for one.
    let (index, mut one) = held.pop().expect("one is held");
    let mut other = Socket::open(&server, &format!("/connection/b/a/{index}"));
    one.send(&frame(TEXT, b"marker"));
    other.expect("marker");
    let mut again = try_hold(&server, index).expect("there is room for one more");
    for raw in held.iter_mut().map(|(_, raw)| raw).chain([&mut again]) {
        raw.send(&frame(PING, b"still here"));
        assert_eq!(raw.frame().first, PONG, "who was held stays");
    }
}

/// One that is held, unless the server does not want it.
fn try_hold(server: &Server, index: usize) -> Option<Raw> {
    let mut raw = Raw::connect(server.address);
    let head = upgrade_head(&format!("/connection/a/b/{index}"), "");
    raw.send(&[head.as_bytes(), &frame(PING, b"held")].concat());
    let status = raw.response().status;
    if status != 101 {
        assert_eq!(status, 503, "too many, for now");
        return None;
    }
    let answer = raw.frame();
    if answer.first == PONG {
        return Some(raw);
    }
    assert_eq!(answer.close_code(), Some(1013), "too many, for now");
    None
}
