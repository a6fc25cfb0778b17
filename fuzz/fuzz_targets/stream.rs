//! `Connection::poll_stream` in arbitrary pieces against a reference that joins frames: the same messages of the same
//! kinds, the same control frames, the same failure at the end. What is passed on piece by piece are well-formed
//! frames, one per piece, in which a message begins where one may and ends where it must.
#![no_main]

use libfuzzer_sys::fuzz_target;
use parlor::websocket::connection::{Connection, Event, Failure, StreamEvent};
use parlor::websocket::stream::{Piece, Stream};
use parlor_fuzz::Cuts;
use parlor_fuzz::framer::{Bounds, Found, Framer};
use parlor_fuzz::models::pipes::{joined, progress};
use parlor_fuzz::referee::door::OPENED;
use parlor_fuzz::wire::{Manner, Reading};

fuzz_target!(|input: &[u8]| {
    let (cuts, wire) = Cuts::take(input);
    for cuts in [cuts, Cuts::default()] {
        let (passed, found) = passed_on(&mut cuts.pieces(&mut wire.to_vec()));
        let (framer, expected) = expected(&cuts.pieces(&mut wire.to_vec()));
        assert_eq!(found, expected);
        let reading = Reading::new(&passed, Manner::Stream);
        assert_eq!(reading.end, passed.len(), "frames are passed on whole");
        let messages = joined(&reading.frames);
        assert_eq!(progress(&messages), framer.progress(), "all that came is passed on, and nothing else");
        for (message, expected) in messages.iter().zip(&framer.messages) {
            assert_eq!((message.is_text, message.is_complete), (expected.is_text, expected.is_complete));
            assert!(message.bytes == expected.bytes, "a message is changed");
        }
    }
});

/// What goes to the other end, and what is not passed on.
fn passed_on(pieces: &mut [&mut [u8]]) -> (Vec<u8>, Vec<Found>) {
    let (mut connection, mut stream) = (Connection::default(), Stream::default());
    let (mut passed, mut found) = (OPENED.to_vec(), Vec::new());
    for piece in pieces {
        let mut cursor = 0;
        while !has_ended(&found) {
            match connection.poll_stream(&mut stream, piece, &mut cursor) {
                Ok(None) => break,
                Ok(Some(StreamEvent::Piece(Piece { header, span }))) => {
                    passed.extend_from_slice(header.as_bytes());
                    passed.extend_from_slice(&piece[span]);
                }
                Ok(Some(StreamEvent::Control(event))) => found.push(control(event)),
                Err(failure) => found.push(failed(failure)),
            }
        }
    }
    (passed, found)
}

fn control(event: Event) -> Found {
    match event {
        Event::Ping(payload) => Found::Ping(payload.to_vec()),
        Event::Pong => Found::Pong,
        Event::Close(code) => Found::Close(code),
        Event::Message(..) => panic!("a message is passed on in pieces"),
    }
}

fn failed(failure: Failure) -> Found {
    let (code, reason) = failure.close();
    Found::Failed(code.number(), reason)
}

/// What the reference finds, messages apart.
fn expected(pieces: &[&mut [u8]]) -> (Framer, Vec<Found>) {
    let (mut framer, mut found) = (Framer::default(), Vec::new());
    for piece in pieces {
        framer.push(piece);
        while !has_ended(&found)
            && let Some(next) = framer.poll(Bounds::NONE)
        {
            found.extend(Some(next).filter(|next| !matches!(next, Found::Message(_))));
        }
    }
    (framer, found)
}

fn has_ended(found: &[Found]) -> bool {
    matches!(found.last(), Some(Found::Close(_) | Found::Failed(..)))
}
