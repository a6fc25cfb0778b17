//! RFC 6455 from outside: protocols.md section 0, the lines size, slow client, close and heartbeat; frames that break
//! the rules get the documented code and harm nobody.

mod support;

use std::io::Read;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};
use support::{
    BINARY, CLOSE, CONTINUATION, Client, End, FIN, Frame, INVALID_FORMAT, PARTNER_LEFT, PING, PONG,
    PONG_TEXT, Raw, Server, Setup, TEXT, WAIT, close_frame, frame, frame_header, on_each_driver, pair,
    upgrade_head,
};

const AVAILABLE: &[u8] = br#"{"type":"available"}"#;
const PING_TEXT: &[u8] = br#"{"type":"ping"}"#;
const NO_RATE: (&str, &str) = ("MAX_MSG_PER_SECOND", "10000000");

on_each_driver!(
    closes_are_answered_with_their_code,
    broken_frames_are_closed_with_their_code,
    text_must_be_utf8,
    messages_have_a_largest_size,
    messages_have_a_largest_number_of_frames,
    after_a_close_of_its_own_the_server_reads_until_the_answer,
    a_close_that_nobody_answers_ends_after_five_seconds,
    every_ping_is_answered,
    frames_come_in_any_pieces,
    who_is_silent_is_cut,
    who_is_silent_is_never_cut_early,
    who_answers_pings_or_says_anything_stays,
    who_reads_too_slowly_is_closed,
    one_message_into_an_empty_outbox_always_passes,
    the_largest_messages_are_echoed,
);

/// Others are not harmed.
fn still_chat(one: &mut Client, other: &mut Client) {
    one.send(r#"{"type":"ice"}"#);
    other.expect(&format!(r#"{{"type":"ice","from":"{}"}}"#, one.id));
}

fn closes_are_answered_with_their_code(setup: Setup) {
    let server = Server::start(setup, &[]);
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        for reason in [&b""[..], b"bye", "grüße".as_bytes(), &[b'x'; 123]] {
            let (mut raw, _) = Raw::open_pairing(&server);
            // What comes behind a close counts no more.
            raw.send(&[close_frame(code, reason), frame(TEXT, PING_TEXT)].concat());
            assert_eq!(raw.frame().close_code(), Some(code));
            assert_eq!(raw.end().0, b"", "nothing comes behind the answer");
        }
    }
    let (mut raw, _) = Raw::open_pairing(&server);
    raw.send(&frame(CLOSE, b""));
    assert_eq!(raw.frame(), Frame { first: CLOSE, payload: Vec::new() }, "none is answered with none");
    assert_eq!(raw.end(), (Vec::new(), End::Fin));
    // Codes that must not be sent.
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        let (mut raw, _) = Raw::open_pairing(&server);
        raw.send(&close_frame(code, b""));
        raw.expect_close(1002);
    }
    let (mut raw, _) = Raw::open_pairing(&server);
    raw.send(&frame(CLOSE, b"\x03"));
    raw.expect_close(1002);
    let (mut raw, _) = Raw::open_pairing(&server);
    raw.send(&close_frame(1000, b"\xff\xfe"));
    raw.expect_close(1007);
    server.wait_for_metric("parlor_clients", 0);
}

fn broken_frames_are_closed_with_their_code(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let (mut one, mut other) = pair(&server);
    let unmasked = |first: u8, payload: &[u8]| [&[first, payload.len() as u8], payload].concat();
    let open_text = frame(TEXT & !FIN, b"{");
    let mut cases = vec![
        ("an unmasked text", unmasked(TEXT, PING_TEXT)),
        ("an unmasked ping", unmasked(PING, b"")),
        ("an unmasked close", unmasked(CLOSE, b"\x03\xe8")),
        ("an unmasked long text", [&[TEXT, 126, 1, 0][..], &[b' '; 256]].concat()),
        ("a continuation of nothing", frame(CONTINUATION | FIN, PING_TEXT)),
        ("an open continuation of nothing", frame(CONTINUATION, PING_TEXT)),
        ("a text inside another", [open_text.clone(), frame(TEXT, b"}")].concat()),
        ("a binary inside a text", [open_text.clone(), frame(BINARY, b"}")].concat()),
        (
            "a continuation after the end",
            [frame(TEXT & !FIN, b""), frame(CONTINUATION | FIN, b"1"), frame(CONTINUATION | FIN, b"")]
                .concat(),
        ),
        ("a ping in fragments", frame(PING & !FIN, b"x")),
        ("a pong in fragments", frame(PONG & !FIN, b"x")),
        ("a close in fragments", frame(CLOSE & !FIN, b"\x03\xe8")),
        ("a ping of 126 bytes", frame(PING, &[0; 126])),
        ("a pong of 70,000 bytes", frame(PONG, &[0; 70_000])),
        ("a close of 126 bytes", frame(CLOSE, &[b'\x03'; 126])),
        ("a length of 64 bits", frame_header(TEXT, 1 << 63)),
    ];
    for reserved in [0x40, 0x20, 0x10, 0x70] {
        cases.push(("reserved bits", frame(TEXT | reserved, PING_TEXT)));
        cases.push(("reserved bits of a ping", frame(PING | reserved, b"")));
        cases.push((
            "reserved bits of a continuation",
            [open_text.clone(), frame(FIN | reserved, b"}")].concat(),
        ));
    }
    for opcode in (0x3..0x8).chain(0xb..0x10) {
        cases.push(("an unknown opcode", frame(FIN | opcode, b"")));
        cases.push(("an unknown opcode, open", frame(opcode, b"x")));
    }
    for (what, bytes) in &cases {
        let (mut raw, _) = Raw::open_pairing(&server);
        // Good frames before it are handled, none behind it are.
        raw.send(&[frame(TEXT, PING_TEXT), bytes.clone(), frame(TEXT, PING_TEXT)].concat());
        raw.expect(PONG_TEXT);
        // An empty text and so on may be answered before the end of the case comes.
        let mut answer = raw.frame();
        if *what == "a continuation after the end" {
            assert!(answer.payload.starts_with(b"{\"type\":\"error\""));
            answer = raw.frame();
        }
        assert_eq!(answer.close_code(), Some(1002), "{what}");
        still_chat(&mut one, &mut other);
    }
    assert_eq!(server.metric("parlor_protocol_errors_total"), cases.len() as u64);
    assert_eq!(server.metric("parlor_clients"), 2);
}

fn text_must_be_utf8(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let (mut one, mut other) = pair(&server);
    let bad: [&[u8]; 12] = [
        b"\xff",
        b"\"\x80\"",
        b"\"\xc0\xaf\"",
        b"\"\xe0\x80\xaf\"",
        b"\"\xed\xa0\x80\"",
        b"\"\xf4\x90\x80\x80\"",
        b"\"\xf8\x88\x80\x80\x80\"",
        b"\"\xc3\"",
        b"\"\xe2\x82\"",
        b"\"\xf0\x9f\x98\"",
        b"{\"type\":\"ping\",\"a\":\"\xfe\"}",
        b"\"cut \xf0\x9f\x98",
    ];
    for text in bad {
        let (mut raw, _) = Raw::open_pairing(&server);
        raw.send(&frame(TEXT, text));
        raw.expect_close(1007);
        raw.finish(1007);
        // Cut between all bytes.
        let (mut raw, _) = Raw::open_pairing(&server);
        let last = text.len() - 1;
        for (at, byte) in text.iter().enumerate() {
            let first = if at == 0 { 1 } else { 0 } | if at == last { FIN } else { 0 };
            raw.send(&frame(first, &[*byte]));
        }
        raw.expect_close(1007);
        still_chat(&mut one, &mut other);
    }
    // It is found in an open message as well, when the rest has yet to come.
    let (mut raw, _) = Raw::open_pairing(&server);
    raw.send(&frame(TEXT & !FIN, b"\"\xff"));
    raw.expect_close(1007);
    // In a binary frame it is no JSON, nothing worse.
    let (mut raw, _) = Raw::open_pairing(&server);
    for text in bad {
        raw.send(&frame(BINARY, text));
        raw.expect(INVALID_FORMAT);
    }
}

fn messages_have_a_largest_size(setup: Setup) {
    const MAX: usize = 10_000;
    let server = Server::start(setup, &[("MAX_MESSAGE_BYTES", "10000")]);
    let (mut one, mut other) = pair(&server);
    let spaces = |len: usize| [PING_TEXT, &vec![b' '; len - PING_TEXT.len()]].concat();
    let (fits, too_long) = (spaces(MAX), spaces(MAX + 1));
    let halves = |message: &[u8]| {
        [frame(TEXT & !FIN, &message[..5_000]), frame(CONTINUATION | FIN, &message[5_000..])].concat()
    };
    for bytes in [frame(TEXT, &fits), frame(BINARY, &fits), halves(&fits)] {
        let (mut raw, _) = Raw::open_pairing(&server);
        raw.send(&bytes);
        raw.expect(PONG_TEXT);
    }
    let (open, rest) = (frame(TEXT & !FIN, &fits), frame(CONTINUATION | FIN, b" "));
    for bytes in [
        frame(TEXT, &too_long),
        frame(BINARY, &too_long),
        halves(&too_long),
        [open, rest].concat(),
        // The header alone says enough.
        frame_header(TEXT, MAX as u64 + 1),
        frame_header(BINARY & !FIN, (1 << 63) - 1),
        [frame(TEXT & !FIN, b" "), frame_header(CONTINUATION, MAX as u64)].concat(),
    ] {
        let (mut raw, _) = Raw::open_pairing(&server);
        raw.send(&bytes);
        raw.expect_close(1009);
        still_chat(&mut one, &mut other);
    }
    // The default is 1 MiB.
    let server = Server::start(setup, &[]);
    let (mut raw, _) = Raw::open_pairing(&server);
    raw.send(&frame(TEXT, &spaces(1_048_576)));
    raw.expect(PONG_TEXT);
    raw.send(&frame(TEXT, &spaces(1_048_577)));
    raw.expect_close(1009);
    raw.finish(1009);
}

fn messages_have_a_largest_number_of_frames(setup: Setup) {
    let server = Server::start(setup, &[("MAX_FRAGMENTS", "4")]);
    // A message of this many frames, all but the last empty; controls between do not count.
    let message = |frames: usize| {
        let mut bytes = frame(TEXT & !FIN, b"");
        for _ in 2..frames {
            bytes.extend(frame(PONG, b""));
            bytes.extend(frame(CONTINUATION, b""));
        }
        [bytes, frame(CONTINUATION | FIN, PING_TEXT)].concat()
    };
    let (mut raw, _) = Raw::open_pairing(&server);
    for frames in [2, 3, 4, 4] {
        raw.send(&message(frames));
        raw.expect(PONG_TEXT);
    }
    raw.send(&message(5));
    raw.expect_close(1009);
    raw.finish(1009);
    // The default is 1,024.
    let server = Server::start(setup, &[]);
    let (mut raw, _) = Raw::open_pairing(&server);
    raw.send(&message(1_024));
    raw.expect(PONG_TEXT);
    raw.send(&message(1_025));
    raw.expect_close(1009);
    raw.finish(1009);
}

fn after_a_close_of_its_own_the_server_reads_until_the_answer(setup: Setup) {
    let server = Server::start(setup, &[]);
    let (mut raw, _) = Raw::open_pairing(&server);
    raw.send(&frame(TEXT | 0x40, b"x"));
    // Much more than the buffers of the kernel: it must be read, or this does not get through.
    let flood = frame(TEXT, &vec![b'x'; 60_000]);
    for _ in 0..300 {
        raw.send(&flood);
    }
    raw.send(&frame(PING, b"not answered any more"));
    raw.expect_close(1002);
    let start = Instant::now();
    raw.finish(1002);
    assert!(start.elapsed() < Duration::from_secs(2), "the answer ends it at once");
    // An answer with another code, or none, or from who ends TCP instead.
    for answer in [close_frame(1000, b"whatever"), frame(CLOSE, b"")] {
        let (mut raw, _) = Raw::open_pairing(&server);
        raw.send(&frame(FIN | 0x3, b""));
        raw.expect_close(1002);
        raw.send(&answer);
        assert_eq!(raw.end(), (Vec::new(), End::Fin));
    }
    let (mut raw, _) = Raw::open_pairing(&server);
    raw.send(&frame(FIN | 0x3, b""));
    raw.expect_close(1002);
    raw.stream.shutdown(std::net::Shutdown::Write).expect("a socket");
    assert_eq!(raw.end(), (Vec::new(), End::Fin));
    server.wait_for_metric("parlor_connections", 1);
}

fn a_close_that_nobody_answers_ends_after_five_seconds(setup: Setup) {
    let server = Server::start(setup, &[]);
    let (mut raw, _) = Raw::open_pairing(&server);
    let start = Instant::now();
    raw.send(&frame(FIN | 0x3, b""));
    raw.expect_close(1002);
    assert_eq!(server.metric("parlor_clients"), 0, "it is no client any more");
    assert_eq!(raw.end().0, b"");
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(5) && took < Duration::from_millis(6_500), "{took:?}");
}

fn every_ping_is_answered(setup: Setup) {
    let server = Server::start(setup, &[]);
    let (mut raw, _) = Raw::open_pairing(&server);
    let payloads: Vec<Vec<u8>> = [0, 1, 2, 64, 124, 125].map(|len| vec![0xf0; len]).into();
    let pings: Vec<u8> = payloads.iter().flat_map(|payload| frame(PING, payload)).collect();
    raw.send(&[frame(PONG, b"unasked"), pings, frame(PONG, &[1; 125])].concat());
    for payload in payloads {
        assert_eq!(raw.frame(), Frame { first: PONG, payload });
    }
    raw.send(&frame(TEXT, PING_TEXT));
    raw.expect(PONG_TEXT);
}

fn frames_come_in_any_pieces(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let long = [PING_TEXT, &[b' '; 70_000]].concat();
    let script = [
        frame(TEXT, PING_TEXT),
        frame(PING, b"p"),
        frame(TEXT, &[PING_TEXT, &[b' '; 200]].concat()),
        frame(TEXT & !FIN, b"{\"type\""),
        frame(PING, &[7; 125]),
        frame(CONTINUATION | FIN, b":\"ping\"}"),
        frame(TEXT, &long),
        close_frame(1000, b"bye"),
    ]
    .concat();
    let pong = |payload: &[u8]| Frame { first: PONG, payload: payload.to_vec() };
    let text = Frame::text(PONG_TEXT);
    let expected = [text.clone(), pong(b"p"), text.clone(), pong(&[7; 125]), text.clone(), text];
    for step in [1, 3, 1_000, usize::MAX] {
        let (mut raw, _) = Raw::open_pairing(&server);
        // Byte by byte only where frames begin and end: all of it would be 70,000 calls.
        let (start, rest) = script.split_at(600);
        let (middle, end) = rest.split_at(rest.len() - 100);
        for piece in start.chunks(step).chain(middle.chunks(step.max(4_001))).chain(end.chunks(step)) {
            raw.send(piece);
        }
        for expected in &expected {
            assert_eq!(raw.frame(), *expected, "in pieces of {step}");
        }
        assert_eq!(raw.frame().close_code(), Some(1000));
        assert_eq!(raw.end(), (Vec::new(), End::Fin));
    }
}

// Heartbeats.

const HEARTBEAT: Duration = Duration::from_millis(200);
const HEARTBEAT_MS: (&str, &str) = ("HEARTBEAT_MS", "200");
/// What a busy machine may add.
const SLACK: Duration = Duration::from_millis(400);

fn who_is_silent_is_cut(setup: Setup) {
    let server = Server::start(setup, &[HEARTBEAT_MS]);
    let mut partner = Client::connect(&server);
    partner.send(r#"{"type":"available"}"#);
    let (mut raw, _) = Raw::open_pairing(&server);
    let last_sent = Instant::now();
    raw.send(&frame(TEXT, AVAILABLE));
    partner.expect_matched();
    assert!(raw.frame().payload.starts_with(br#"{"type":"matched""#));
    let ping = raw.frame();
    assert_eq!(ping.first, PING, "{ping:?}");
    let until_ping = last_sent.elapsed();
    assert!(until_ping < 2 * HEARTBEAT + SLACK, "the first ping comes after {until_ping:?}");
    // Its partner, who reads and so answers pings, is told.
    partner.expect(PARTNER_LEFT);
    let (rest, _) = raw.end();
    let took = last_sent.elapsed();
    assert!(took >= 2 * HEARTBEAT, "cut after {took:?}");
    assert!(took < 3 * HEARTBEAT + SLACK, "cut after {took:?}");
    assert!(rest.iter().all(|&byte| byte == PING || byte == 0), "pings, but no close: {rest:?}");
    assert_eq!(server.metric("parlor_heartbeats_missed_total"), 1);
    assert_eq!(server.metric("parlor_clients"), 1);
}

/// Whatever the server's own clock ticks in, nobody is cut too early.
fn who_is_silent_is_never_cut_early(setup: Setup) {
    let server = Server::start(setup, &[HEARTBEAT_MS]);
    let lives: Vec<_> = (0..12)
        .map(|_| {
            // Spreads them over a tick, whatever its length.
            std::thread::sleep(Duration::from_millis(9));
            let (mut raw, _) = Raw::open_pairing(&server);
            let last_sent = Instant::now();
            raw.send(&frame(PONG, b""));
            std::thread::spawn(move || {
                let (rest, _) = raw.end();
                assert!(rest.iter().all(|&byte| byte == PING || byte == 0), "pings, but no close: {rest:?}");
                last_sent.elapsed()
            })
        })
        .collect();
    let mut lives: Vec<_> = lives.into_iter().map(|life| life.join().expect("it is cut")).collect();
    lives.sort();
    assert!(lives[0] >= 2 * HEARTBEAT, "cut too early: {lives:?}");
    assert!(lives[lives.len() - 1] < 3 * HEARTBEAT + SLACK, "cut too late: {lives:?}");
    server.wait_for_metric("parlor_heartbeats_missed_total", 12);
}

fn who_answers_pings_or_says_anything_stays(setup: Setup) {
    let server = Server::start(setup, &[HEARTBEAT_MS, NO_RATE]);
    let (mut answering, _) = Raw::open_pairing(&server);
    let (mut talking, _) = Raw::open_pairing(&server);
    let (mut dripping, _) = Raw::open_pairing(&server);
    // One byte now and then is a sign of life, too.
    let slow = frame(TEXT, PING_TEXT);
    let mut slow = slow.iter();
    let start = Instant::now();
    let mut pings = 0;
    while start.elapsed() < 8 * HEARTBEAT {
        let ping = answering.frame();
        assert_eq!(ping.first, PING, "{ping:?}");
        pings += 1;
        answering.send(&frame(PONG, &ping.payload));
        talking.send(&frame(TEXT, b"{}"));
        dripping.send(&[*slow.next().expect("a frame is longer than the test")]);
    }
    assert!((5..=9).contains(&pings), "{pings} pings in eight heartbeats");
    for raw in [&mut answering, &mut talking] {
        raw.send(&frame(TEXT, PING_TEXT));
    }
    dripping.send(slow.as_slice());
    for raw in [&mut answering, &mut talking, &mut dripping] {
        while raw.frame() != Frame::text(PONG_TEXT) {}
    }
    assert_eq!(server.metric("parlor_heartbeats_missed_total"), 0);
}

// Slow clients.

/// A WebSocket whose kernel keeps little of what is not read.
fn open_slow(server: &Server) -> (Raw, String) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a socket");
    socket.connect(&SockAddr::from(server.address)).expect("it listens");
    let mut raw = Raw::over(socket.into());
    raw.send(upgrade_head("/ws", "").as_bytes());
    assert_eq!(raw.response().status, 101);
    let ready = String::from_utf8(raw.frame().payload).expect("text");
    (raw, ready[ready.len() - 38..ready.len() - 2].to_owned())
}

fn who_reads_too_slowly_is_closed(setup: Setup) {
    const VALUE_BYTES: usize = 16_000;
    let server = Server::start(setup, &[("OUTBOX_MAX_BYTES", "100000"), NO_RATE]);
    let (mut one, mut other) = pair(&server);
    let (mut slow, slow_id) = open_slow(&server);
    let mut flooder = Client::connect(&server);
    flooder.send(r#"{"type":"available"}"#);
    slow.send(&frame(TEXT, AVAILABLE));
    assert_eq!(flooder.expect_matched().partner, slow_id);
    assert!(slow.frame().payload.starts_with(br#"{"type":"matched""#));
    let before = server.memory_kib();
    let value = "x".repeat(VALUE_BYTES);
    let start = Instant::now();
    let mut sent = 0;
    // The server ends it, at some point: it is left out of what is sent, since it would be read in between.
    let left = loop {
        flooder.send(&format!(r#"{{"type":"offer","n":{sent},"sdp":[{sent},"{value}"]}}"#));
        sent += 1;
        if sent % 16 == 0 {
            still_chat(&mut one, &mut other);
            let mut texts = flooder.drain();
            texts.retain(|text| !text.contains("NOT_PAIRED"));
            if !texts.is_empty() {
                break texts;
            }
        }
        assert!(start.elapsed() < WAIT, "{sent} messages and the slow one is not closed");
    };
    assert_eq!(left, [PARTNER_LEFT]);
    assert!(server.memory_peak_kib() < before + 8 * 1024, "memory is bounded: {before} KiB before");
    assert_eq!(server.metric("parlor_too_slow_total"), 1);
    // What was in its outbox comes, in order and whole, and then the close.
    for number in 0..=sent {
        let frame = slow.frame();
        if frame.first == CLOSE {
            assert_eq!((frame.close_code(), &frame.payload[2..]), (Some(1013), &b"too slow"[..]));
            assert!(number < sent && number > 0);
            return slow.finish(1013);
        }
        let expected = format!(r#"{{"type":"offer","from":"{}","sdp":[{number},"{value}"]}}"#, flooder.id);
        assert!(frame == Frame::text(&expected), "message {number} is not what was sent");
    }
    panic!("no close came");
}

fn one_message_into_an_empty_outbox_always_passes(setup: Setup) {
    let server = Server::start(setup, &[("OUTBOX_MAX_BYTES", "1000"), NO_RATE]);
    let (mut one, mut other) = pair(&server);
    for len in [2_000, 500_000, 1_000_000] {
        let value = "x".repeat(len);
        one.send(&format!(r#"{{"type":"offer","sdp":"{value}"}}"#));
        other.expect(&format!(r#"{{"type":"offer","from":"{}","sdp":"{value}"}}"#, one.id));
    }
}

fn the_largest_messages_are_echoed(setup: Setup) {
    const LARGEST: usize = 16 << 20;
    let environment =
        [("ECHO_PATH", "/echo"), ("MAX_MESSAGE_BYTES", "16777216"), ("MAX_FRAGMENTS", "65536"), NO_RATE];
    let server = Server::start(setup, &environment);
    let mut raw = Raw::open(&server, "/echo");
    let message: Vec<u8> = (0..LARGEST).map(|at| b' ' + (at % 90) as u8).collect();
    for first in [TEXT, BINARY] {
        send_and_read(&mut raw, &frame(first, &message), &Frame { first, payload: message.clone() });
    }
    // 65,536 fragments of 256 bytes.
    let mut bytes = Vec::new();
    for (index, piece) in message.chunks(LARGEST / 65_536).enumerate() {
        let first =
            if index == 0 { TEXT & !FIN } else { CONTINUATION } | if index == 65_535 { FIN } else { 0 };
        bytes.extend(frame(first, piece));
    }
    send_and_read(&mut raw, &bytes, &Frame { first: TEXT, payload: message });
    for (first, payload) in [(TEXT, &b""[..]), (BINARY, b""), (BINARY, b"\xff\0"), (TEXT, "grüße".as_bytes())]
    {
        send_and_read(&mut raw, &frame(first, payload), &Frame { first, payload: payload.to_vec() });
    }
    raw.send(&frame_header(TEXT, LARGEST as u64 + 1));
    raw.expect_close(1009);
    raw.finish(1009);
}

fn send_and_read(raw: &mut Raw, bytes: &[u8], expected: &Frame) {
    raw.send(bytes);
    let got = raw.frame();
    assert_eq!((got.first, got.payload.len()), (expected.first, expected.payload.len()));
    assert!(got.payload == expected.payload, "the echo differs");
}

#[test]
fn a_thousand_broken_clients_at_once_harm_nobody() {
    let server = Server::start(Setup::IO_URING_2, &[]);
    let (mut one, mut other) = pair(&server);
    let broken: [&[u8]; 4] =
        [&[TEXT, 1, b'x'], &[0xf1, 0x80, 0, 0, 0, 0], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 5_000]];
    let mut clients: Vec<Raw> = (0..1_000).map(|_| Raw::open_pairing(&server).0).collect();
    for (index, raw) in clients.iter_mut().enumerate() {
        raw.send(broken[index % broken.len()]);
        if index % 100 == 0 {
            still_chat(&mut one, &mut other);
        }
    }
    for raw in &mut clients {
        raw.expect_close(1002);
    }
    still_chat(&mut one, &mut other);
    assert_eq!(server.metric("parlor_clients"), 2);
    // Gone without an answer, with a reset for some, since they have not read all.
    drop(clients);
    server.wait_for_metric("parlor_connections", 3);
    still_chat(&mut one, &mut other);
}

#[test]
fn an_end_without_a_close_is_an_end() {
    let server = Server::start(Setup::IO_URING_1, &[]);
    let (mut raw, _) = Raw::open_pairing(&server);
    raw.stream.shutdown(std::net::Shutdown::Write).expect("a socket");
    assert_eq!(raw.stream.read(&mut [0; 16]).expect("an end in order"), 0);
    server.wait_for_metric("parlor_clients", 0);
}
