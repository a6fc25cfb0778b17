//! Events of a connection, in one piece and in any others.

use proptest::prelude::*;

use super::*;
use crate::wire::frame::HEADER_LEN_MAX;
use crate::wire::mask::Mask;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A masked frame; `first` is its first byte (FIN, reserved bits, opcode).
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        fin: first & 0x80 != 0,
        reserved: first & 0x70,
        opcode_bits: first & 0x0f,
        mask: Some(KEY),
        payload_len: payload.len() as u64,
    };
    let mut bytes = [0; HEADER_LEN_MAX];
    let len = header.emit(&mut bytes);
    let mut masked = payload.to_vec();
    Mask::new(KEY).apply(&mut masked);
    [&bytes[..len], &masked].concat()
}

/// An event with its payload copied out.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Message(Kind, Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
    Failed(Failure),
}

fn small_limits() -> Limits {
    Limits { message_bytes_max: 1_000, fragments_max: 4, ..Limits::default() }
}

/// Everything that a connection says of `wire`, read in pieces; also, that all memory came back.
fn events(wire: &[u8], piece_len: usize) -> Vec<Seen> {
    let (limits, mut buffers) = (small_limits(), Buffers::new(1 << 20));
    let (mut connection, mut seen) = (Connection::default(), Vec::new());
    'pieces: for piece in wire.to_vec().chunks_mut(piece_len) {
        let mut cursor = 0;
        loop {
            match connection.poll(piece, &mut cursor, &limits, &mut buffers) {
                Ok(None) => break,
                Ok(Some(event)) => seen.push(copied(event, piece, &mut buffers)),
                Err(failure) => {
                    seen.push(Seen::Failed(failure));
                    break 'pieces;
                }
            }
        }
    }
    connection.release(&mut buffers);
    assert_eq!(buffers.used_bytes(), 0);
    seen
}

fn copied(event: Event, input: &[u8], buffers: &mut Buffers) -> Seen {
    match event {
        Event::Message(kind, Payload::Input(span)) => Seen::Message(kind, input[span].to_vec()),
        Event::Message(kind, Payload::Joined(bytes)) => {
            let seen = Seen::Message(kind, bytes.clone());
            buffers.release(bytes);
            seen
        }
        Event::Ping(payload) => Seen::Ping(payload.to_vec()),
        Event::Pong => Seen::Pong,
        Event::Close(code) => Seen::Close(code),
    }
}

fn all(wire: &[u8]) -> Vec<Seen> {
    let whole = events(wire, usize::MAX);
    assert_eq!(events(wire, 1), whole, "byte by byte the same");
    whole
}

fn text(text: &str) -> Seen {
    Seen::Message(Kind::Text, text.as_bytes().to_vec())
}

#[test]
fn messages_and_control_frames_come_out_in_order() {
    let wire = [
        frame(0x81, b"one"),
        frame(0x82, b"\xff\x00"),
        frame(0x01, "t\u{e9}".as_bytes()),
        frame(0x89, b"between"),
        frame(0x00, b""),
        frame(0x8a, b""),
        frame(0x80, b" end"),
        frame(0x88, &[0x03, 0xe8]),
    ];
    let expected = [
        text("one"),
        Seen::Message(Kind::Binary, vec![0xff, 0]),
        Seen::Ping(b"between".to_vec()),
        Seen::Pong,
        text("t\u{e9} end"),
        Seen::Close(Some(1000)),
    ];
    assert_eq!(all(&wire.concat()), expected);
}

#[test]
fn a_character_may_be_split_between_frames() {
    let wire = [frame(0x01, b"\xf0\x9f"), frame(0x80, b"\x98\x80")].concat();
    assert_eq!(all(&wire), [text("\u{1f600}")]);
}

#[test]
fn each_broken_rule_fails_with_its_code() {
    let long = vec![b'a'; 126];
    let mut unmasked = frame(0x81, b"");
    unmasked[1] &= 0x7f;
    unmasked.truncate(2);
    let big = vec![b'a'; 1_001];
    for (wire, code) in [
        (unmasked, 1002),
        (frame(0xc1, b"rsv1"), 1002),
        (frame(0x91, b"rsv3"), 1002),
        (frame(0x83, b"opcode 3"), 1002),
        (frame(0x8b, b"opcode 11"), 1002),
        (frame(0x09, b"fragmented ping"), 1002),
        (frame(0x89, &long), 1002),
        (frame(0x80, b"nothing to continue"), 1002),
        ([frame(0x01, b"a"), frame(0x81, b"b")].concat(), 1002),
        (frame(0x88, b"\x03"), 1002),
        (frame(0x88, &999u16.to_be_bytes()), 1002),
        (frame(0x88, &1005u16.to_be_bytes()), 1002),
        (frame(0x88, &5000u16.to_be_bytes()), 1002),
        (frame(0x88, b"\x03\xe8\xff"), 1007),
        (frame(0x81, b"\xff"), 1007),
        (frame(0x81, b"cut \xe2\x82"), 1007),
        ([frame(0x01, b"ok"), frame(0x00, b"\xc0")].concat(), 1007),
        (frame(0x81, &big), 1009),
        ([frame(0x01, &big[..600]), frame(0x80, &big[..600])].concat(), 1009),
        ([frame(0x01, b""), frame(0, b"").repeat(3), frame(0x80, b"")].concat(), 1009),
    ] {
        let seen = all(&wire);
        let Some(Seen::Failed(failure)) = seen.last() else { panic!("{}: {seen:?}", wire.escape_ascii()) };
        assert_eq!(failure.close().0.number(), code, "{}", wire.escape_ascii());
    }
}

#[test]
fn a_length_over_63_bits_fails_before_it_is_believed() {
    let mut wire = vec![0x82, 0xff];
    wire.extend_from_slice(&u64::MAX.to_be_bytes());
    wire.extend_from_slice(&KEY);
    assert_eq!(all(&wire), [Seen::Failed(Failure::Protocol("length over 63 bits"))]);
}

#[test]
fn limits_are_kept_to_the_byte() {
    let wire = [frame(0x81, &[b'a'; 1_000]), frame(0x01, b""), frame(0, b"").repeat(2), frame(0x80, b"")];
    assert_eq!(all(&wire.concat()).len(), 2);
}

#[test]
fn bad_text_fails_before_its_message_is_complete() {
    let mut wire = frame(0x81, &[b"\xff".as_slice(), &[b'a'; 500]].concat());
    wire.truncate(20);
    assert_eq!(events(&wire, 10), [Seen::Failed(Failure::InvalidUtf8)]);
}

#[test]
fn no_room_for_a_partial_message_is_busy() {
    let (limits, mut buffers) = (Limits::default(), Buffers::new(600));
    let mut wire = frame(0x82, &[0; 5_000]);
    wire.truncate(4_000);
    let failed = Connection::default().poll(&mut wire, &mut 0, &limits, &mut buffers);
    assert_eq!(failed, Err(Failure::Busy));
}

#[test]
fn the_answer_to_a_close_is_found_among_anything() {
    let wire = [frame(0xf3, b"what"), frame(0x81, b"\xff"), frame(0x88, b"")].concat();
    for piece_len in [1, 3, 100] {
        let mut connection = Connection::default();
        let found: Vec<bool> =
            wire.clone().chunks_mut(piece_len).map(|piece| connection.discard(piece)).collect();
        assert_eq!(found.iter().filter(|&&found| found).count(), 1);
        assert_eq!(found.last(), Some(&true));
    }
}

proptest! {
    #[test]
    fn any_pieces_say_the_same(
        frames in proptest::collection::vec(
            (prop_oneof![Just(0x81u8), Just(0x82), Just(1), Just(2), Just(0), Just(0x80), Just(0x89), Just(0x88), any::<u8>()],
             proptest::collection::vec(prop_oneof![9 => Just(b'a'), 1 => any::<u8>()], 0..150)),
            0..8),
        piece_len in 1usize..64,
    ) {
        let wire: Vec<u8> = frames.iter().flat_map(|(first, payload)| frame(*first, payload)).collect();
        prop_assert_eq!(events(&wire, piece_len), events(&wire, usize::MAX));
    }
}
