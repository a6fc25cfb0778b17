//! What passes through a pipe, frame by frame: section 5, and of section 0 the lines size and rate (none) and close
//! (protocol errors, UTF-8).

use std::thread;

use tungstenite::Message;

use super::{A, B, expect_piped, expect_piped_to, pair, samples, watched_pair};
use crate::support::pipes::{Pattern, Socket, Watcher};
use crate::support::{
    BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, Server, Setup, TEXT, close_frame, frame, frame_header,
    on_each_setup,
};

on_each_setup!(
    messages_of_every_kind_and_size_pass,
    fragments_pass_with_pings_between,
    what_came_of_a_frame_goes_on_at_once,
    pings_are_answered_by_the_server,
    bad_utf8_closes_both,
    broken_frames_close_both,
);

/// Sends a message that may be larger than all buffers on its way.
fn pass(from: &mut Socket, to: &mut Socket, message: &Message) {
    thread::scope(|scope| {
        scope.spawn(|| from.send(message.clone()));
        to.expect(message.clone());
    });
}

fn messages_of_every_kind_and_size_pass(setup: Setup) {
    // None of the bounds of other dialects is one for pipes.
    let bounds = [("MAX_MESSAGE_BYTES", "1000"), ("MAX_FRAGMENTS", "2"), ("MAX_MSG_PER_SECOND", "1")];
    let server = Server::start(setup, &bounds);
    let (mut one, mut other) = pair(&server);
    let large = [
        Message::binary(Pattern::new(1).take(1_000_000)),
        Message::text("é".repeat(600_000)),
        Message::binary(Pattern::new(2).take(5_000_000)),
        Message::text("😀".repeat(1_000_000)),
    ];
    for message in samples().iter().chain(&large) {
        pass(&mut one, &mut other, message);
        pass(&mut other, &mut one, message);
    }
    // Many at once.
    let many: Vec<Message> = (0..2_000).map(|number| Message::text(format!("message {number}"))).collect();
    one.send_at_once(many.clone());
    for message in many {
        other.expect(message);
    }
    expect_piped(&mut one, &mut other, "the end");
}

fn fragments_pass_with_pings_between(setup: Setup) {
    let server = Server::start(setup, &[]);
    let (mut one, mut other) = (Watcher::hold(&server, A), Socket::open(&server, B));
    let message = [
        frame(TEXT & !FIN, b"gr\xc3"),
        frame(PING, b"1"),
        frame(CONTINUATION, b""),
        frame(PING, b"2"),
        frame(CONTINUATION, b"\xbc\xc3\x9fe \xf0\x9f"),
        frame(PONG, b"unasked"),
        frame(CONTINUATION, b"\x98"),
        frame(PING, &[b'3'; 125]),
        frame(CONTINUATION | FIN, b"\x80"),
    ]
    .concat();
    for step in [1, 7, message.len()] {
        for piece in message.chunks(step) {
            one.send(piece);
        }
        other.expect("grüße 😀");
        for payload in [&b"1"[..], b"2", &[b'3'; 125]] {
            assert_eq!(one.next_control(PONG, "a pong").payload, payload);
        }
    }
    // More frames than a message of another dialect may have, most of them empty.
    let mut many = frame(BINARY & !FIN, b"<");
    for number in 0..5_000 {
        many.extend(frame(CONTINUATION, if number % 10 == 0 { b"x" } else { b"" }));
    }
    many.extend(frame(CONTINUATION | FIN, b">"));
    one.send(&many);
    other.expect(Message::binary(format!("<{}>", "x".repeat(500))));
    for first in [TEXT, BINARY] {
        one.send(
            &[frame(first & !FIN, b""), frame(CONTINUATION, b""), frame(CONTINUATION | FIN, b"")].concat(),
        );
        other.expect(if first == TEXT { Message::text("") } else { Message::binary("") });
    }
    expect_piped_to(&mut one, &mut other);
}

fn what_came_of_a_frame_goes_on_at_once(setup: Setup) {
    let server = Server::start(setup, &[]);
    let (mut one, mut other) = watched_pair(&server);
    let payload = Pattern::ascii(5).take(300);
    for first in [TEXT, BINARY, TEXT & !FIN] {
        let bytes = frame(first, &payload);
        let (header, masked) = bytes.split_at(bytes.len() - payload.len());
        for byte in header {
            one.send(&[*byte]);
        }
        for (byte, expected) in masked.iter().zip(&payload) {
            one.send(&[*byte]);
            other.expect_payload(&[*expected]);
        }
        assert_eq!(other.messages[0].opcode, first & 0x0f);
        if first & FIN == 0 {
            // The message is open, and nothing waits for its end.
            one.send(&frame(CONTINUATION, b"more"));
            other.expect_payload(b"more");
            assert!(!other.messages[0].is_whole);
            one.send(&frame(CONTINUATION | FIN, b""));
        }
        other.wait_for("the end of the message", |other| other.messages[0].is_whole);
        other.messages.clear();
    }
    // While a frame is under way, the other direction is as free as ever, and pings are answered between frames.
    let bytes = frame(BINARY, &payload);
    one.send(&bytes[..100]);
    other.expect_payload(&payload[..92]);
    other.send(&frame(PING, b"inside a frame"));
    other.send(&frame(TEXT, b"the other way"));
    one.expect_message(TEXT, b"the other way");
    one.send(&bytes[100..]);
    other.expect_payload(&payload[92..]);
    assert_eq!(other.next_control(PONG, "the pong").payload, b"inside a frame");
    // A length is a promise that nobody waits for.
    one.send(&[frame_header(BINARY, 1 << 40), vec![0; 1_000]].concat());
    other.wait_for("the start of a very long frame", |other| other.payload.len() >= 1_000);
}

fn pings_are_answered_by_the_server(setup: Setup) {
    let server = Server::start(setup, &[]);
    let payloads = [0, 1, 2, 64, 124, 125].map(|len| vec![0xf0; len]);
    let pings: Vec<u8> = payloads
        .iter()
        .flat_map(|payload| [frame(PONG, b"unasked"), frame(PING, payload)].concat())
        .collect();
    let check = |watcher: &mut Watcher| {
        watcher.send(&pings);
        for payload in &payloads {
            assert_eq!(watcher.next_control(PONG, "a pong").payload, *payload);
        }
    };
    let mut one = Watcher::open(&server, A);
    check(&mut one);
    let mut other = Watcher::open(&server, B);
    for watcher in [&mut one, &mut other] {
        check(watcher);
        check(watcher);
    }
    // None of it reaches the other one.
    one.send(&frame(TEXT, b"marker"));
    other.send(&frame(TEXT, b"marker"));
    for watcher in [&mut one, &mut other] {
        watcher.expect_message(TEXT, b"marker");
        assert!(watcher.controls.is_empty(), "{:?}", watcher.controls);
        assert!(watcher.messages.is_empty(), "{:?}", watcher.messages);
    }
}

fn bad_utf8_closes_both(setup: Setup) {
    let server = Server::start(setup, &[]);
    let bad: [&[u8]; 10] = [
        b"\xff",
        b"good\x80 not",
        b"good\xc0\xaf",
        b"\xe0\x80\xaf",
        b"good \xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"good \xf8\x88\x80\x80\x80",
        b"good \xc3",
        b"\xe2\x82",
        b"cut \xf0\x9f\x98",
    ];
    for text in bad {
        let error = std::str::from_utf8(text).expect_err("it is bad");
        let last = text.len() - 1;
        let pieces = text.iter().enumerate().flat_map(|(at, byte)| {
            let first = if at == 0 { TEXT & !FIN } else { CONTINUATION } | if at == last { FIN } else { 0 };
            frame(first, &[*byte])
        });
        let mut cases = vec![(frame(TEXT, text), Vec::new()), (pieces.collect(), Vec::new())];
        if error.error_len().is_some() {
            // It is found while the rest has yet to come.
            let mut long = frame(TEXT, &[text, &[b' '; 1_000]].concat());
            let rest = long.split_off(long.len() - 1_000);
            cases.push((long, rest));
            cases.push((frame(TEXT & !FIN, text), Vec::new()));
        }
        for (bytes, rest) in cases {
            let (mut one, mut other) = watched_pair(&server);
            one.send(&bytes);
            one.expect_close(Some(1007));
            other.expect_close_or_cut();
            // Of a character whose rest is yet to come, nobody knows.
            let may_become_good = std::str::from_utf8(&other.payload)
                .map_or_else(|error| error.error_len().is_none(), |_| true);
            let is_so_far = text.starts_with(&other.payload) && may_become_good;
            assert!(is_so_far, "{text:?} comes as {:?}", other.payload);
            assert!(other.messages.iter().all(|message| !message.is_whole), "no bad text is whole");
            one.send(&rest);
            one.finish(Some(1007));
        }
        // Held.
        let mut one = Watcher::open(&server, A);
        one.send(&frame(TEXT, text));
        one.expect_close(Some(1007));
        one.finish(Some(1007));
    }
    // A binary message may be anything.
    let (mut one, mut other) = (Watcher::hold(&server, A), Socket::open(&server, B));
    for bytes in bad {
        one.send(&frame(BINARY, bytes));
        other.expect(Message::binary(bytes));
    }
}

fn broken_frames_close_both(setup: Setup) {
    let server = Server::start(setup, &[]);
    let open_text = frame(TEXT & !FIN, b"open");
    let mut cases = vec![
        ("an unmasked text", vec![TEXT, 1, b'x']),
        ("an unmasked ping", vec![PING, 0]),
        ("a continuation of nothing", frame(CONTINUATION | FIN, b"x")),
        ("a text inside another", [open_text.clone(), frame(TEXT, b"x")].concat()),
        ("a binary inside a text", [open_text.clone(), frame(BINARY, b"x")].concat()),
        ("a ping in fragments", frame(PING & !FIN, b"x")),
        ("a close in fragments", frame(CLOSE & !FIN, b"\x03\xe8")),
        ("a ping of 126 bytes", frame(PING, &[0; 126])),
        ("a length of 64 bits", frame_header(BINARY, 1 << 63)),
        ("a close of one byte", frame(CLOSE, b"\x03")),
        ("a code that must not be sent", close_frame(1005, b"")),
    ];
    for reserved in [0x40, 0x20, 0x10] {
        cases.push(("reserved bits", frame(TEXT | reserved, b"x")));
        cases.push(("reserved bits later", [open_text.clone(), frame(FIN | reserved, b"x")].concat()));
    }
    for opcode in [0x3, 0x7, 0xb, 0xf] {
        cases.push(("an unknown opcode", frame(FIN | opcode, b"x")));
    }
    for (what, bytes) in &cases {
        for is_first in [true, false] {
            let (mut one, mut other) = watched_pair(&server);
            if !is_first {
                std::mem::swap(&mut one, &mut other);
            }
            one.send(&[frame(TEXT, b"before"), bytes.clone(), frame(TEXT, b"behind")].concat());
            assert_eq!(one.next_control(CLOSE, what).close_code(), Some(1002), "{what}");
            other.expect_close_or_cut();
            let good: &[u8] = if bytes.starts_with(&open_text) { b"beforeopen" } else { b"before" };
            let is_good = other.payload.starts_with(b"before") && good.starts_with(&other.payload);
            assert!(is_good, "{what}: {:?}", String::from_utf8_lossy(&other.payload));
        }
    }
    let (mut one, mut other) = pair(&server);
    expect_piped(&mut one, &mut other, "nobody else was harmed");
}
