//! [`Connection::poll`] in arbitrary pieces against the same bytes in one piece: messages, control frames, the failure
//! at the end, and whether the answer to our close is found behind it. A message that lies in the input whole, one that
//! is joined, and a control frame that is kept take different ways, and must say the same. All memory comes back,
//! also from a budget that is used up on the way.
#![no_main]

use libfuzzer_sys::fuzz_target;
use parlor::buffers::Buffers;
use parlor::limits::Limits;
use parlor::websocket::connection::{Connection, Event, Failure, Kind, Payload};
use parlor_fuzz::Cuts;

/// What came out, payloads copied.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Message(Kind, Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
    Failed(Failure),
    /// After our close: the peer's is there.
    Answered,
}

const AMPLE_BYTES: usize = 1 << 20;
/// Room for one short partial message.
const SCARCE_BYTES: usize = 600;

fuzz_target!(|input: &[u8]| {
    let (cuts, wire) = Cuts::take(input);
    let whole = events(&mut [&mut wire.to_vec()], AMPLE_BYTES);
    assert_eq!(events(&mut cuts.pieces(&mut wire.to_vec()), AMPLE_BYTES), whole);
    for seen in &whole {
        check(seen);
    }
    events(&mut cuts.pieces(&mut wire.to_vec()), SCARCE_BYTES);
});

/// Small, so that they are reached.
fn limits() -> Limits {
    Limits { message_bytes_max: 700, fragments_max: 4, ..Limits::default() }
}

/// Everything that a connection says of these pieces.
fn events(pieces: &mut [&mut [u8]], budget_bytes: usize) -> Vec<Seen> {
    let (limits, mut buffers) = (limits(), Buffers::new(budget_bytes));
    let (mut connection, mut seen) = (Connection::default(), Vec::new());
    for piece in pieces {
        let mut cursor = 0;
        while !has_ended(&seen) {
            match connection.poll(piece, &mut cursor, &limits, &mut buffers) {
                Ok(None) => break,
                Ok(Some(event)) => seen.push(copied(event, piece, &mut buffers)),
                Err(failure) => {
                    connection.release(&mut buffers);
                    seen.push(Seen::Failed(failure));
                }
            }
        }
        if matches!(seen.last(), Some(Seen::Failed(_))) && connection.discard(&mut piece[cursor..]) {
            seen.push(Seen::Answered);
        }
        assert!(buffers.used_bytes() <= budget_bytes, "over the budget");
    }
    connection.release(&mut buffers);
    assert_eq!(buffers.used_bytes(), 0, "all memory came back");
    seen
}

fn has_ended(seen: &[Seen]) -> bool {
    matches!(seen.last(), Some(Seen::Close(_) | Seen::Failed(_) | Seen::Answered))
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

/// What holds for each event by itself.
fn check(seen: &Seen) {
    match seen {
        Seen::Message(kind, bytes) => {
            assert!(bytes.len() <= limits().message_bytes_max);
            assert!(*kind == Kind::Binary || std::str::from_utf8(bytes).is_ok(), "text is UTF-8");
        }
        Seen::Close(Some(code)) => assert!((1000..5000).contains(code) && !(1004..=1006).contains(code)),
        Seen::Failed(failure) => assert_ne!(*failure, Failure::Busy, "the budget was ample"),
        Seen::Ping(_) | Seen::Pong | Seen::Close(None) | Seen::Answered => {}
    }
}
