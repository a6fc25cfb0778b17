//! Messages that stream, in any pieces.

use proptest::prelude::*;

use super::*;
use crate::websocket::connection::{Connection, Event, StreamEvent};
use crate::wire::frame::{HEADER_LEN_MAX, Header};
use crate::wire::mask::Mask;

const KEY: [u8; 4] = [1, 2, 3, 4];

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

/// What was passed on as frames, the control frames in between, and how it ended.
#[derive(Debug, Default, PartialEq)]
struct Passed {
    wire: Vec<u8>,
    control: Vec<Event>,
    failure: Option<Failure>,
}

fn pass(wire: &[u8], piece_len: usize) -> Passed {
    let (mut connection, mut stream, mut passed) =
        (Connection::default(), Stream::default(), Passed::default());
    for piece in wire.to_vec().chunks_mut(piece_len) {
        let mut cursor = 0;
        loop {
            match connection.poll_stream(&mut stream, piece, &mut cursor) {
                Ok(None) => break,
                Ok(Some(StreamEvent::Control(event))) => passed.control.push(event),
                Ok(Some(StreamEvent::Piece(Piece { header, span }))) => {
                    passed.wire.extend_from_slice(header.as_bytes());
                    passed.wire.extend_from_slice(&piece[span]);
                }
                Err(failure) => {
                    passed.failure = Some(failure);
                    return passed;
                }
            }
        }
    }
    passed
}

/// The messages in frames of a server: whether text, and the joined payload. The last may be incomplete.
fn messages(mut wire: &[u8]) -> Vec<(bool, Vec<u8>, bool)> {
    let mut messages: Vec<(bool, Vec<u8>, bool)> = Vec::new();
    while !wire.is_empty() {
        let (header, len) = Header::parse(wire).expect("a whole header");
        let end = len + header.payload_len as usize;
        match Opcode::from_bits(header.opcode_bits).expect("an opcode") {
            Opcode::Continuation => {
                let open = messages.last_mut().filter(|(.., is_complete)| !is_complete).expect("one is open");
                open.1.extend_from_slice(&wire[len..end]);
                open.2 = header.fin;
            }
            opcode => {
                assert!(messages.last().is_none_or(|(.., is_complete)| *is_complete));
                messages.push((opcode == Opcode::Text, wire[len..end].to_vec(), header.fin));
            }
        }
        wire = &wire[end..];
    }
    messages
}

proptest! {
    #[test]
    fn messages_come_out_as_they_went_in(
        sent in proptest::collection::vec(
            (any::<bool>(), "\\PC{0,40}", proptest::collection::vec(0usize..50, 0..4), any::<bool>()), 0..6),
        piece_len in 1usize..80,
    ) {
        let (mut wire, mut expected, mut pings) = (Vec::new(), Vec::new(), 0);
        for (is_text, text, cuts, has_ping) in &sent {
            let payload = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (payload.len() + 1)).collect();
            cuts.extend([0, payload.len()]);
            cuts.sort_unstable();
            let fragments: Vec<&[u8]> = cuts.windows(2).map(|cut| &payload[cut[0]..cut[1]]).collect();
            for (index, fragment) in fragments.iter().enumerate() {
                let opcode = if index > 0 { 0 } else if *is_text { 1 } else { 2 };
                let fin = if index + 1 == fragments.len() { 0x80 } else { 0 };
                wire.extend(frame(opcode | fin, fragment));
                if *has_ping && fin == 0 {
                    wire.extend(frame(0x89, b"ping"));
                    pings += 1;
                }
            }
            expected.push((*is_text, payload.to_vec(), true));
        }
        let passed = pass(&wire, piece_len);
        prop_assert_eq!(passed.failure, None);
        prop_assert_eq!(passed.control.len(), pings);
        prop_assert_eq!(messages(&passed.wire), expected);
    }
}

#[test]
fn a_frame_goes_on_before_it_is_complete() {
    let wire = frame(0x82, &[7; 1_000]);
    let passed = pass(&wire[..500], 100);
    let [(false, payload, false)] = &messages(&passed.wire)[..] else { panic!("{passed:?}") };
    assert_eq!(payload.len(), 500 - 8);
}

#[test]
fn a_frame_that_comes_whole_stays_one_frame() {
    let passed = pass(&frame(0x81, b"text"), 1_000);
    assert_eq!(passed.wire, b"\x81\x04text");
    assert_eq!(pass(&frame(0x82, b""), 1_000).wire, b"\x82\x00");
}

#[test]
fn what_may_not_stand_there_fails() {
    for (wire, failure) in [
        (frame(0x80, b"x"), Failure::Protocol("continuation without a message")),
        ([frame(0x01, b"x"), frame(0x81, b"y")].concat(), Failure::Protocol("message begun inside another")),
        (frame(0xc1, b"x"), Failure::Protocol("reserved bits set")),
        (frame(0x81, b"a\xff"), Failure::InvalidUtf8),
        (frame(0x81, b"\xe2\x82"), Failure::InvalidUtf8),
        ([frame(0x01, b"\xe2\x82"), frame(0x80, b"x")].concat(), Failure::InvalidUtf8),
    ] {
        let passed = pass(&wire, 1_000);
        assert_eq!(passed.failure, Some(failure), "{}", wire.escape_ascii());
    }
    assert_eq!(pass(&[frame(0x01, b"\xe2\x82"), frame(0x80, b"\xac")].concat(), 3).failure, None);
}
