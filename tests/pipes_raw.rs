//! Pipes of raw bytes from outside: protocols.md section 5, its last part (`Upgrade: tcp`), and of section 0 what holds
//! for them, with 1 and 4 shards, on io_uring and on epoll. This file: heads, and who meets whom. What passes: `bulk`;
//! how it ends: `ends`.

mod support;

#[path = "pipes_raw/bulk.rs"]
mod bulk;
#[path = "pipes_raw/ends.rs"]
mod ends;

use std::io::{Read, Write};

use support::pipes::{Pattern, RawEnd, Socket, answer_to, connect, tcp_head};
use support::{End, Server, Setup, on_each_setup};

/// The ends of the pipe that most tests use.
const A: &str = "/connection/a/b/doc";
const B: &str = "/connection/b/a/doc";

on_each_setup!(
    the_answer_is_a_101,
    each_path_leads_where_it_should,
    a_short_form_with_its_parameters_is_the_long_form,
    each_bad_upgrade_is_refused,
    origins_are_refused_with_a_403,
    bytes_pass_both_ways,
    bytes_behind_the_head_arrive,
    what_the_first_one_sends_is_held_in_order,
    a_second_one_replaces_the_held_one,
    a_newcomer_beside_a_pipe_is_held_anew,
    raw_and_websocket_are_not_partners,
    a_held_one_that_ends_is_forgotten,
);

/// Bytes are moved in the kernel, or not.
const SPLICE: [(&str, &str); 2] = [("PIPE_SPLICE", "always"), ("PIPE_SPLICE", "never")];

/// A pipe that has been used in both directions.
fn pair(server: &Server) -> (RawEnd, RawEnd) {
    let (mut one, mut other) = (RawEnd::open(server, A), RawEnd::open(server, B));
    expect_piped(&mut one, &mut other, b"a new pipe");
    (one, other)
}

/// Nothing else is on the way between these two, in either direction.
fn expect_piped(one: &mut RawEnd, other: &mut RawEnd, marker: &[u8]) {
    one.send(marker);
    other.expect(marker);
    other.send(marker);
    one.expect(marker);
}

// The head.

fn the_answer_is_a_101(setup: Setup) {
    let server = Server::start(setup, &[]);
    for head in [
        tcp_head(A, ""),
        tcp_head(B, "Origin: https://any.example\r\nCookie: a=b\r\n"),
        tcp_head(A, "Content-Length: 0\r\n"),
        tcp_head(B, "").replace("Upgrade: tcp", "UPGRADE: TCP"),
        tcp_head(A, "").replace("Connection: Upgrade", "connection: keep-alive, upgrade"),
    ] {
        let answer = answer_to(&server, &head);
        assert_eq!(answer.status, 101, "{head}");
        assert!(answer.head.starts_with("HTTP/1.1 101 "), "{}", answer.head);
        assert_eq!((answer.header("Connection"), answer.header("Upgrade")), (Some("Upgrade"), Some("tcp")));
        for name in ["Sec-WebSocket-Accept", "Content-Length", "Transfer-Encoding"] {
            assert_eq!(answer.header(name), None, "{name} has no place in it");
        }
    }
}

fn each_path_leads_where_it_should(setup: Setup) {
    let server = Server::start(setup, &[]);
    for (one, other) in [
        ("/connect/a/b/doc", "/connection/b/a/doc/"),
        ("/CONNECT/a/b/doc/", "/Connection/b/a/doc?x"),
        ("/connection/%61/b%2Fb/doc", "/connection/b%2fb/a/%64oc"),
        ("/connection/a/a/doc", "/connection/a/a/doc"),
    ] {
        expect_pipe(&server, one, other);
    }
    for (path, status) in [
        ("/connection", 404),
        ("/connection/a/b", 404),
        ("/connection/a//c", 404),
        ("/connection/a/b/c/d", 404),
        ("/connection/a/b/c//", 404),
        ("/elsewhere", 404),
        ("/connection/a/b/%zz", 400),
        ("/connection/a/%ff/c", 400),
    ] {
        assert_eq!(answer_to(&server, &tcp_head(path, "")).status, status, "{path}");
    }
    // Raw bytes are for pipes alone, and a short form that is not clear cannot say so with a close.
    for path in ["/ws", "/introduction/a", "/connection/b", "/connection/b?local=a", "/"] {
        let status = answer_to(&server, &tcp_head(path, "")).status;
        assert!((400..500).contains(&status), "{path}: {status}");
    }
}

/// These two paths are the ends of one pipe.
fn expect_pipe(server: &Server, one: &str, other: &str) {
    let (mut first, mut second) = (RawEnd::open(server, one), RawEnd::open(server, other));
    expect_piped(&mut first, &mut second, one.as_bytes());
    first.finish();
    second.expect_end(End::Fin);
    second.finish();
    first.expect_end(End::Fin);
}

fn a_short_form_with_its_parameters_is_the_long_form(setup: Setup) {
    let server = Server::start(setup, &[]);
    for (one, other) in [
        ("/connection/b?local=a&document=doc", "/connection/b/a/doc"),
        ("/connect/b/?document=doc&local=a", "/connect/a?local=b&document=doc"),
    ] {
        expect_pipe(&server, one, other);
    }
}

fn each_bad_upgrade_is_refused(setup: Setup) {
    let server = Server::start(setup, &[("ALLOWED_ORIGIN", "https://a.example")]);
    let origin = "Origin: https://a.example\r\n";
    let good = tcp_head(A, origin);
    assert_eq!(answer_to(&server, &good).status, 101);
    for (from, to) in [
        ("Connection: Upgrade\r\n", ""),
        ("Connection: Upgrade", "Connection: keep-alive"),
        ("Upgrade: tcp", "Upgrade: udp"),
        ("Upgrade: tcp", "Upgrade: tcp6"),
        ("Upgrade: tcp", "Upgrade: h2c"),
        ("GET ", "POST "),
        ("HTTP/1.1", "HTTP/1.0"),
        (origin, "Origin: https://a.example\r\nContent-Length: 5\r\n"),
        (origin, "Origin: https://a.example\r\nTransfer-Encoding: chunked\r\n"),
        // Headers come before the origin, as the path comes before the headers.
        ("Connection: Upgrade\r\nOrigin: https://a.example\r\n", ""),
    ] {
        let head = good.replace(from, to);
        assert_ne!(head, good, "{from}");
        let status = answer_to(&server, &head).status;
        assert!((400..500).contains(&status) && status != 403, "{status} to:\n{head}");
    }
    let nowhere = tcp_head("/connection/a/b", "").replace("Connection: Upgrade\r\n", "");
    assert_eq!(answer_to(&server, &nowhere).status, 404);
}

fn origins_are_refused_with_a_403(setup: Setup) {
    let listed = "https://a.example,https://b.example";
    let strict = Server::start(setup, &[("ALLOWED_ORIGIN", listed)]);
    let native = Server::start(setup, &[("ALLOWED_ORIGIN", listed), ("ALLOW_NO_ORIGIN", "true")]);
    for (origin, statuses) in [
        (Some("https://a.example"), [101, 101]),
        (Some("https://b.example"), [101, 101]),
        (Some("https://c.example"), [403, 403]),
        (Some("https://A.example"), [403, 403]),
        (Some("https://a.example/"), [403, 403]),
        (Some(""), [403, 403]),
        (None, [403, 101]),
    ] {
        let more = origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
        for (server, status) in [&strict, &native].into_iter().zip(statuses) {
            assert_eq!(answer_to(server, &tcp_head(A, &more)).status, status, "{origin:?}");
        }
    }
}

// Bytes.

fn bytes_pass_both_ways(setup: Setup) {
    let server = Server::start(setup, &[]);
    let (mut one, mut other) = pair(&server);
    let mut pattern = Pattern::new(1);
    for len in [1, 2, 3, 100, 4_095, 4_096, 4_097, 65_536, 100_000] {
        for _ in 0..2 {
            let bytes = pattern.take(len);
            one.send(&bytes);
            other.expect(&bytes);
            std::mem::swap(&mut one, &mut other);
        }
    }
    // Nothing in them has a meaning, not even frames and heads.
    for bytes in [&b"\x88\x00\x81\x05"[..], &[0; 64], &[0xff; 64], tcp_head(A, "").as_bytes()] {
        expect_piped(&mut one, &mut other, bytes);
    }
}

fn bytes_behind_the_head_arrive(setup: Setup) {
    let server = Server::start(setup, &[]);
    let large = Pattern::new(2).take(60_000);
    for behind in [&b"1"[..], b"behind the head", &large] {
        let (mut one, _) = RawEnd::open_over(connect(&server), A, behind);
        let (mut other, _) = RawEnd::open_over(connect(&server), B, behind);
        other.expect(behind);
        one.expect(behind);
        expect_piped(&mut one, &mut other, b"then");
    }
    // Even the end of one direction.
    let mut one = RawEnd::open(&server, A);
    let mut stream = connect(&server);
    stream.write_all(&[tcp_head(B, "").as_bytes(), b"all I have to say"].concat()).expect("a socket");
    let mut other = RawEnd { stream };
    other.finish();
    one.expect(b"all I have to say");
    one.expect_end(End::Fin);
    one.send(b"and this way?");
    one.finish();
    let mut answer = String::new();
    other.stream.read_to_string(&mut answer).expect("the other direction is open");
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.ends_with("\r\n\r\nand this way?"), "{answer}");
}

fn what_the_first_one_sends_is_held_in_order(setup: Setup) {
    let server = Server::start(setup, &[]);
    for (first, second) in [(A, B), (B, A)] {
        let mut one = RawEnd::open(&server, first);
        let mut pattern = Pattern::new(3);
        for _ in 0..10 {
            one.send(&pattern.take(100_000));
        }
        one.expect_silence();
        let mut other = RawEnd::open(&server, second);
        other.expect(&Pattern::new(3).take(1_000_000));
        expect_piped(&mut one, &mut other, b"live");
    }
}

// Who meets whom.

fn a_second_one_replaces_the_held_one(setup: Setup) {
    let server = Server::start(setup, &[]);
    for (first, second) in [(A, B), (B, A)] {
        let mut held = RawEnd::open(&server, first);
        for index in 0..3 {
            held.send(format!("of {index}").as_bytes());
            let new = RawEnd::open(&server, first);
            // There is no code in raw bytes; it ends.
            held.end();
            held = new;
        }
        held.send(b"of the last one");
        let mut other = RawEnd::open(&server, second);
        other.expect(b"of the last one");
        expect_piped(&mut held, &mut other, b"marker");
    }
}

fn a_newcomer_beside_a_pipe_is_held_anew(setup: Setup) {
    let server = Server::start(setup, &[]);
    let (mut one, mut other) = pair(&server);
    for (same, opposite) in [(A, B), (B, A)] {
        let mut newcomer = RawEnd::open(&server, same);
        newcomer.send(b"of the newcomer");
        expect_piped(&mut one, &mut other, b"first, while another is held");
        let mut partner = RawEnd::open(&server, opposite);
        partner.expect(b"of the newcomer");
        expect_piped(&mut newcomer, &mut partner, b"second");
        expect_piped(&mut one, &mut other, b"first, beside the second");
    }
}

fn raw_and_websocket_are_not_partners(setup: Setup) {
    let server = Server::start(setup, &[]);
    for (first, second) in [(A, B), (B, A), (A, A)] {
        let mut socket = Socket::hold(&server, first);
        socket.send("of the socket");
        socket.expect_nothing();
        // Neither its partner, nor one that replaces it.
        let mut raw = RawEnd::open(&server, second);
        raw.send(b"of the raw end");
        socket.expect_nothing();
        raw.expect_silence();
        let opposite = |path: &str| if path == A { B } else { A };
        let mut other_raw = RawEnd::open(&server, opposite(second));
        other_raw.expect(b"of the raw end");
        let mut other_socket = Socket::open(&server, opposite(first));
        other_socket.expect("of the socket");
        expect_piped(&mut raw, &mut other_raw, b"raw");
        other_socket.send("of the other socket");
        socket.expect("of the other socket");
        socket.close(None);
        other_socket.expect_close(None);
        expect_piped(&mut raw, &mut other_raw, b"still raw");
    }
}

fn a_held_one_that_ends_is_forgotten(setup: Setup) {
    let server = Server::start(setup, &[]);
    let ends: [fn(RawEnd); 2] = [
        |mut gone| {
            gone.finish();
            // Its end says that the server has heard of it.
            gone.end();
        },
        RawEnd::reset,
    ];
    for end in ends {
        let mut gone = RawEnd::open(&server, A);
        gone.send(b"of one who is gone");
        end(gone);
        // The question has a connection of its own.
        server.wait_for_metric("parlor_connections", 1);
        let mut next = RawEnd::open(&server, B);
        next.send(b"of one who waits");
        let mut other = RawEnd::open(&server, A);
        other.expect(b"of one who waits");
        expect_piped(&mut next, &mut other, b"marker");
        for end in [next, other] {
            end.reset();
        }
        server.wait_for_metric("parlor_connections", 1);
    }
}
