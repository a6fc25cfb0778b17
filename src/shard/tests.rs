//! One shard, or two joined by hand: bytes in, bytes and mail out.

mod introductions;
mod lending;
mod lobby_neighbours;
mod neighbours;
mod pipes;
mod rendezvous;

use super::*;
use crate::limits::CLOSE_DEADLINE_MS;
use crate::wire::frame::{HEADER_LEN_MAX, Header, Opcode};
use crate::wire::mask::Mask;

const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn settings() -> Settings {
    Settings {
        host: HostId(1),
        shards: 2,
        limits: Limits::default(),
        offered: Offered::ALL,
        key_seed: [1, 2, 3, 4],
        has_cluster: false,
        requeue_on_partner_leave: true,
        allowed_origins: Vec::new(),
        allow_no_origin: false,
        echo_path: Some("/echo".into()),
        held_pipes: Arc::new(Places::new(Limits::HELD_PIPES_MAX)),
        planted: Planted::default(),
    }
}

fn shard(index: u8, settings: &Settings) -> Shard {
    Shard::new(ShardIndex(index), Arc::new(settings.clone()), Arc::default(), [index; 32], 0)
}

/// A masked frame of a client.
fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let header = Header {
        fin: true,
        reserved: 0,
        opcode_bits: opcode as u8,
        mask: Some(mask),
        payload_len: payload.len() as u64,
    };
    let mut bytes = [0; HEADER_LEN_MAX];
    let len = header.emit(&mut bytes);
    let mut masked = payload.to_vec();
    Mask::new(mask).apply(&mut masked);
    [&bytes[..len], &masked].concat()
}

fn text(payload: &str) -> Vec<u8> {
    frame(Opcode::Text, payload.as_bytes())
}

/// Everything that the shard sends to this client, and that it does with its socket.
fn sent(shard: &mut Shard, slot: Slot) -> (Vec<u8>, Vec<&'static str>) {
    let mut bytes = Vec::new();
    while let Some(dirty) = shard.poll_dirty() {
        loop {
            let piece: Vec<u8> = shard.gather(dirty).iter().flat_map(|piece| piece.to_vec()).collect();
            if piece.is_empty() {
                break;
            }
            shard.handle_sent(dirty, piece.len());
            if dirty == slot {
                bytes.extend_from_slice(&piece);
            }
        }
    }
    let mut events = Vec::new();
    while let Some(event) = shard.poll_event() {
        events.push(match event {
            Event::Request { .. } => "request",
            Event::Move { .. } => "move",
            Event::Resume(_) => "resume",
            Event::OpenedRaw(_) => "raw",
            Event::FinishWriting(_) => "finish",
            Event::Cut(_) => "cut",
            Event::Reset(_) => "reset",
        });
    }
    (bytes, events)
}

/// A client that was greeted.
fn open(shard: &mut Shard) -> Slot {
    let slot = shard.handle_accept(0).expect("room");
    shard.handle_bytes(slot, &mut UPGRADE.to_vec(), 0);
    let (bytes, events) = sent(shard, slot);
    assert!(bytes.starts_with(b"HTTP/1.1 101 "));
    assert!(events.is_empty());
    slot
}

fn say(shard: &mut Shard, slot: Slot, message: &str) {
    shard.handle_bytes(slot, &mut text(message), 0);
}

/// Payloads of unmasked text frames and `close <code> <reason>`.
fn messages(mut bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while let Some((header, len)) = Header::parse(bytes) {
        let (payload, rest) = bytes[len..].split_at(header.payload_len as usize);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        found.push(match payload.split_first_chunk() {
            Some((code, reason)) if header.opcode_bits == 8 => {
                format!("close {} {}", u16::from_be_bytes(*code), text(reason))
            }
            _ => text(payload),
        });
        bytes = rest;
    }
    found
}

#[test]
fn ready_comes_with_the_101_and_bytes_behind_the_head_count() {
    let mut shard = shard(0, &settings());
    let slot = shard.handle_accept(0).expect("room");
    let mut bytes = [UPGRADE, &text(r#"{"type":"ping"}"#)].concat();
    shard.handle_bytes(slot, &mut bytes, 0);
    let (bytes, _) = sent(&mut shard, slot);
    let end = memchr::memmem::find(&bytes, b"\r\n\r\n").expect("a head") + 4;
    let messages = messages(&bytes[end..]);
    assert!(messages[0].starts_with(r#"{"type":"ready","clientId":""#));
    assert_eq!(messages[1], r#"{"type":"pong"}"#);
    assert_eq!(shard.counters().clients.value(), 1);
}

#[test]
fn two_on_one_shard_are_matched_and_relay() {
    let mut shard = shard(0, &settings());
    let (a, b) = (open(&mut shard), open(&mut shard));
    say(&mut shard, a, r#"{"type":"available"}"#);
    say(&mut shard, b, r#"{"type":"available"}"#);
    let matched = messages(&sent(&mut shard, b).0);
    assert!(matched[0].starts_with(r#"{"type":"matched","roomId":""#), "{matched:?}");
    say(&mut shard, a, r#"{"type":"offer","sdp":{"x":1.50}}"#);
    let relayed = messages(&sent(&mut shard, b).0);
    assert!(relayed[0].ends_with(r#","sdp":{"x":1.50}}"#), "{relayed:?}");
    shard.handle_gone(a, 0);
    assert_eq!(messages(&sent(&mut shard, b).0), [r#"{"type":"partner-left"}"#]);
    shard.handle_gone(b, 0);
    assert_eq!((shard.connections(), shard.buffer_bytes(), shard.waiting_in_queue()), (0, 0, None));
}

/// Carries mail both ways until there is none.
fn exchange(one: &mut Shard, other: &mut Shard) {
    loop {
        let mut mail = Vec::new();
        one.deliver_mail(|to, piece| {
            assert_eq!(to, ShardIndex(1));
            mail.push((1, piece));
            Ok(())
        });
        other.deliver_mail(|_, piece| {
            mail.push((0, piece));
            Ok(())
        });
        if mail.is_empty() {
            return;
        }
        for (to, piece) in mail {
            if to == 0 { one.handle_mail(piece, 0) } else { other.handle_mail(piece, 0) }
        }
    }
}

#[test]
fn two_on_two_shards_are_matched_and_relay_small_and_large() {
    let (mut one, mut other) = (shard(0, &settings()), shard(1, &settings()));
    let (a, b) = (open(&mut one), open(&mut other));
    say(&mut one, a, r#"{"type":"available"}"#);
    say(&mut other, b, r#"{"type":"available"}"#);
    exchange(&mut one, &mut other);
    assert!(messages(&sent(&mut one, a).0)[0].starts_with(r#"{"type":"matched""#));
    assert!(messages(&sent(&mut other, b).0)[0].starts_with(r#"{"type":"matched""#));
    let large = "x".repeat(100_000);
    for body in ["small", &large] {
        say(&mut other, b, &format!(r#"{{"type":"answer","sdp":"{body}"}}"#));
        exchange(&mut one, &mut other);
        let relayed = messages(&sent(&mut one, a).0);
        assert!(relayed[0].ends_with(&format!(r#","sdp":"{body}"}}"#)));
    }
    other.handle_gone(b, 0);
    exchange(&mut one, &mut other);
    assert_eq!(messages(&sent(&mut one, a).0), [r#"{"type":"partner-left"}"#]);
    one.handle_gone(a, 0);
    assert_eq!((one.buffer_bytes(), other.buffer_bytes()), (0, 0));
}

#[test]
fn a_close_is_answered_with_its_code_and_ours_waits_for_the_answer() {
    let mut shard = shard(0, &settings());
    let slot = open(&mut shard);
    shard.handle_bytes(slot, &mut frame(Opcode::Close, &3001u16.to_be_bytes()), 0);
    let (bytes, events) = sent(&mut shard, slot);
    assert_eq!((messages(&bytes), events), (vec!["close 3001 ".to_owned()], vec!["finish"]));

    let slot = open(&mut shard);
    shard.handle_bytes(slot, &mut frame(Opcode::Text, b"\xff"), 0);
    let (bytes, events) = sent(&mut shard, slot);
    assert_eq!((messages(&bytes), events), (vec!["close 1007 invalid UTF-8".to_owned()], vec![]));
    shard.handle_bytes(slot, &mut text("still talking"), 0);
    assert_eq!(sent(&mut shard, slot), (vec![], vec![]));
    shard.handle_bytes(slot, &mut frame(Opcode::Close, b""), 0);
    assert_eq!(sent(&mut shard, slot).1, ["finish"]);
    assert_eq!(shard.counters().clients.value(), 0);
}

#[test]
fn an_answer_that_does_not_come_ends_in_a_cut() {
    let mut shard = shard(0, &settings());
    let slot = open(&mut shard);
    shard.handle_bytes(slot, &mut frame(Opcode::Text, b"\xff"), 0);
    sent(&mut shard, slot);
    shard.handle_tick(CLOSE_DEADLINE_MS - 100);
    assert_eq!(sent(&mut shard, slot).1, [""; 0]);
    shard.handle_tick(CLOSE_DEADLINE_MS + 100);
    assert_eq!(sent(&mut shard, slot).1, ["cut"]);
}

#[test]
fn heartbeats_ping_and_cut_the_silent() {
    let mut shard = shard(0, &settings());
    let slot = open(&mut shard);
    let heartbeat_ms = Limits::HEARTBEAT_MS;
    shard.handle_tick(heartbeat_ms + 50);
    assert_eq!(sent(&mut shard, slot).0, [0x89, 0]);
    shard.handle_bytes(slot, &mut frame(Opcode::Pong, b""), heartbeat_ms + 1_000);
    shard.handle_tick(2 * heartbeat_ms + 100);
    assert_eq!(sent(&mut shard, slot), (vec![0x89, 0], vec![]));
    shard.handle_tick(3 * heartbeat_ms + 900);
    assert!(!sent(&mut shard, slot).1.contains(&"cut"));
    shard.handle_tick(3 * heartbeat_ms + 1_100);
    assert_eq!(sent(&mut shard, slot).1, ["cut"]);
    assert_eq!(shard.counters().heartbeats_missed.value(), 1);
}

#[test]
fn heads_have_a_deadline() {
    let mut shard = shard(0, &settings());
    let silent = shard.handle_accept(0).expect("room");
    let slow = shard.handle_accept(0).expect("room");
    shard.handle_bytes(slow, &mut b"GET /ws HT".to_vec(), 3_000);
    shard.handle_tick(4_900);
    assert_eq!(sent(&mut shard, silent).1, [""; 0]);
    shard.handle_tick(5_100);
    assert_eq!(sent(&mut shard, silent), (vec![], vec!["cut"]));
    shard.handle_tick(8_100);
    let (bytes, events) = sent(&mut shard, slow);
    assert!(bytes.starts_with(b"HTTP/1.1 408 "));
    assert_eq!(events, ["finish"]);
}

#[test]
fn an_outbox_over_its_bound_is_closed_as_too_slow() {
    let mut settings = settings();
    settings.limits.outbox_bytes_max = 1_000;
    settings.limits.messages_per_second_max = 1_000;
    let mut shard = shard(0, &settings);
    let (a, b) = (open(&mut shard), open(&mut shard));
    say(&mut shard, a, r#"{"type":"available"}"#);
    say(&mut shard, b, r#"{"type":"available"}"#);
    sent(&mut shard, a);
    shard.handle_blocked(b);
    let large = format!(r#"{{"type":"ice","candidate":"{}"}}"#, "x".repeat(5_000));
    say(&mut shard, a, &large);
    assert_eq!(shard.counters().too_slow.value(), 0, "one message into an empty outbox always passes");
    say(&mut shard, a, r#"{"type":"ice"}"#);
    assert_eq!(shard.counters().too_slow.value(), 1);
    assert_eq!(messages(&sent(&mut shard, a).0), [r#"{"type":"partner-left"}"#]);
    shard.handle_writable(b);
    let last = messages(&sent(&mut shard, b).0);
    assert_eq!(last.last().map(String::as_str), Some("close 1013 too slow"));
}

#[test]
fn who_is_too_slow_to_be_told_of_a_match_leaves_nobody_behind() {
    let mut settings = settings();
    settings.limits.outbox_bytes_max = 400;
    let mut shard = shard(0, &settings);
    let (a, b) = (open(&mut shard), open(&mut shard));
    say(&mut shard, a, r#"{"type":"available"}"#);
    shard.handle_blocked(a);
    for _ in 0..20 {
        say(&mut shard, a, r#"{"type":"ping"}"#);
    }
    say(&mut shard, b, r#"{"type":"available"}"#);
    assert_eq!(shard.counters().too_slow.value(), 1);
    let told = messages(&sent(&mut shard, b).0);
    assert!(told[0].starts_with(r#"{"type":"matched""#), "{told:?}");
    assert_eq!(told[1..], [r#"{"type":"partner-left"}"#]);
    assert_eq!(shard.waiting_in_queue().map(ClientId::slot), Some(b));
}

#[test]
fn what_is_no_websocket_yet_is_cut_without_a_close_frame() {
    let mut settings = settings();
    settings.limits.shard_buffer_bytes = 100;
    let mut shard = shard(0, &settings);
    for request in [UPGRADE, b"GET /ws/none HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"] {
        let slot = shard.handle_accept(0).expect("room");
        shard.handle_bytes(slot, &mut request.to_vec(), 0);
        assert_eq!(sent(&mut shard, slot), (vec![], vec!["cut"]));
        assert_eq!((shard.counters().clients.value(), shard.counters().upgrades.value()), (0, 0));
    }
    let slot = shard.handle_accept(0).expect("room");
    shard.handle_bytes(slot, &mut b"GET / HTTP/1.1\r\n\r\n".to_vec(), 0);
    assert!(matches!(shard.poll_event(), Some(Event::Request { .. })));
    shard.handle_response(slot, &[b'a'; 101], true);
    assert_eq!(sent(&mut shard, slot), (vec![], vec!["cut"]));
    shard.handle_response(slot, b"late", true);
    assert_eq!(sent(&mut shard, slot), (vec![], vec![]));
}

#[test]
fn without_memory_a_client_is_told_that_the_server_is_busy() {
    let mut settings = settings();
    settings.limits.shard_buffer_bytes = 20_000;
    let mut shard = shard(0, &settings);
    let slot = open(&mut shard);
    let mut large = frame(Opcode::Text, &[b'a'; 50_000]);
    for piece in large.chunks_mut(10_000) {
        shard.handle_bytes(slot, piece, 0);
    }
    assert_eq!(messages(&sent(&mut shard, slot).0), ["close 1013 server busy"]);
    assert_eq!(shard.buffer_bytes(), 0);
}

#[test]
fn messages_over_the_rate_are_refused_one_by_one() {
    let mut settings = settings();
    settings.limits.messages_per_second_max = 2;
    let mut shard = shard(0, &settings);
    let slot = open(&mut shard);
    for _ in 0..4 {
        say(&mut shard, slot, r#"{"type":"ping"}"#);
    }
    let said = messages(&sent(&mut shard, slot).0);
    assert_eq!(said[..2], [r#"{"type":"pong"}"#; 2]);
    assert_eq!(said[2..], [r#"{"type":"error","code":"RATE_LIMIT","message":"Too many messages"}"#; 2]);
}

#[test]
fn echo_returns_text_as_text_and_binary_as_binary() {
    let mut shard = shard(0, &settings());
    let slot = shard.handle_accept(0).expect("room");
    let upgrade = String::from_utf8(UPGRADE.to_vec()).expect("ASCII").replace("/ws", "/echo");
    shard.handle_bytes(slot, &mut upgrade.into_bytes(), 0);
    sent(&mut shard, slot);
    shard.handle_bytes(slot, &mut frame(Opcode::Binary, b"\xff"), 0);
    shard.handle_bytes(slot, &mut text("t"), 0);
    assert_eq!(sent(&mut shard, slot).0, [0x82, 1, 0xff, 0x81, 1, b't']);
}

#[test]
fn upgrades_are_refused_in_the_order_of_the_contract() {
    let settings = Settings { allowed_origins: vec!["https://a.example".into()], ..settings() };
    let mut shard = shard(0, &settings);
    let upgrade = String::from_utf8(UPGRADE.to_vec()).expect("ASCII");
    for (from, to, expected) in [
        ("/ws", "/nothing", "HTTP/1.1 404 "),
        ("/ws", "/ws/", "HTTP/1.1 101 "),
        ("/ws", "/WS", "HTTP/1.1 101 "),
        ("/ws", "/%77s", "HTTP/1.1 101 "),
        ("/ws", "/ws//", "HTTP/1.1 404 "),
        ("/ws", "/ws/x", "HTTP/1.1 404 "),
        ("/ws", "/ws%2F", "HTTP/1.1 404 "),
        ("/ws", "/%zz", "HTTP/1.1 400 "),
        ("Version: 13", "Version: 7", "HTTP/1.1 426 "),
    ] {
        let slot = shard.handle_accept(0).expect("room");
        shard.handle_bytes(slot, &mut upgrade.replace(from, to).into_bytes(), 0);
        let (bytes, _) = sent(&mut shard, slot);
        assert!(bytes.starts_with(expected.as_bytes()), "{to}: {}", bytes.escape_ascii());
    }
    for (origin, is_allowed) in [("https://a.example", true), ("https://A.example", false), ("", false)] {
        let slot = shard.handle_accept(0).expect("room");
        let header = if origin.is_empty() { String::new() } else { format!("Origin: {origin}\r\n") };
        shard.handle_bytes(slot, &mut upgrade.replace("Host: x\r\n", &header).into_bytes(), 0);
        let (bytes, _) = sent(&mut shard, slot);
        let end = memchr::memmem::find(&bytes, b"\r\n\r\n").expect("a head") + 4;
        let said = messages(&bytes[end..]);
        assert_eq!(said == ["close 1008 Origin not allowed"], !is_allowed, "{origin}: {said:?}");
    }
}

#[test]
fn plain_requests_are_handed_out_one_after_the_other() {
    let mut shard = shard(0, &settings());
    let slot = shard.handle_accept(0).expect("room");
    let mut two = b"GET /healthz HTTP/1.1\r\n\r\nGET /readyz HTTP/1.1\r\n\r\n".to_vec();
    shard.handle_bytes(slot, &mut two, 0);
    for path in ["/healthz", "/readyz"] {
        let Some(Event::Request { head, .. }) = shard.poll_event() else { panic!("no request") };
        assert_eq!(head.uri.path(), path);
        assert!(shard.poll_event().is_none());
        shard.handle_response(slot, b"answer", path == "/healthz");
    }
    assert_eq!(sent(&mut shard, slot), (b"answeranswer".to_vec(), vec!["finish"]));
}

#[test]
fn a_panic_costs_its_client_and_nothing_else() {
    let settings = Settings { planted: Planted::new(Some(Plant::PanicOnDemand)), ..settings() };
    let mut shard = shard(0, &settings);
    let (victim, other) = (open(&mut shard), open(&mut shard));
    let mut joined = frame(Opcode::Text, b"panic");
    let (first, second) = joined.split_at_mut(8);
    shard.handle_bytes(victim, first, 0);
    let handled =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| shard.handle_bytes(victim, second, 0)));
    assert!(handled.is_err());
    shard.handle_panic(victim, 0);
    assert_eq!(sent(&mut shard, victim).1, ["cut"]);
    shard.handle_gone(victim, 0);
    assert_eq!((shard.buffer_bytes(), shard.counters().panics.value()), (0, 1));
    say(&mut shard, other, r#"{"type":"ping"}"#);
    assert_eq!(messages(&sent(&mut shard, other).0), [r#"{"type":"pong"}"#]);
}

#[test]
fn a_shutdown_closes_everybody() {
    let mut shard = shard(0, &settings());
    let silent = shard.handle_accept(0).expect("room");
    let slot = open(&mut shard);
    shard.handle_shutdown(0);
    let (bytes, events) = sent(&mut shard, slot);
    assert_eq!((messages(&bytes), events), (vec!["close 1001 Server shutting down".to_owned()], vec!["cut"]));
    shard.handle_gone(silent, 0);
    shard.handle_bytes(slot, &mut frame(Opcode::Close, &1001u16.to_be_bytes()), 0);
    assert_eq!(sent(&mut shard, slot).1, ["finish"]);
}
