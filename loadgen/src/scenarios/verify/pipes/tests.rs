//! Every kind of violation is found when a stream has it.

use std::io::ErrorKind;

use parlor::wire::frame::Opcode;

use super::super::violation::Violation;
use super::checker::{ByteChecker, FrameChecker, Progress};
use super::plan::{BLOCK_BYTES, BytePlan, FramePlan, PlannedMessage, StreamId};
use super::verdict::{Arrival, Leaving, Report, check};
use crate::client::{Ending, Piece};
use crate::raw::RawEnding;

const STREAM: StreamId = StreamId { pair: 1, cycle: 2, end: 0 };

/// A frame as it comes: its opcode, its bytes, and whether its message ends.
type Frame = (Opcode, Vec<u8>, bool);

fn plan() -> FramePlan {
    FramePlan { stream: STREAM, messages: 60 }
}

fn frames_of(message: &PlannedMessage) -> Vec<Frame> {
    let mut start = 0;
    let count = message.frame_ends.len();
    let frame = |(place, end): (usize, &usize)| {
        let bytes = message.payload[start..*end].to_vec();
        start = *end;
        let opcode = match (place, message.is_text) {
            (0, true) => Opcode::Text,
            (0, false) => Opcode::Binary,
            _ => Opcode::Continuation,
        };
        (opcode, bytes, place + 1 == count)
    };
    message.frame_ends.iter().enumerate().map(frame).collect()
}

fn take(checker: &mut FrameChecker, frames: &[Frame], piece_bytes: usize) -> Result<(), Violation> {
    for (opcode, bytes, is_last) in frames {
        let mut rest = bytes.as_slice();
        loop {
            let (bytes, after) = rest.split_at(rest.len().min(piece_bytes));
            let frame_ends = after.is_empty();
            let message_ends = frame_ends && *is_last;
            checker.take(Piece { opcode: *opcode, bytes, frame_ends, message_ends })?;
            rest = after;
            if frame_ends {
                break;
            }
        }
    }
    Ok(())
}

/// The first message of the plan that is like this, and the checker when it is due.
fn due(is: impl Fn(&PlannedMessage) -> bool) -> (FrameChecker, PlannedMessage) {
    let mut checker = FrameChecker::new(plan());
    for number in 0..60 {
        let message = plan().message(number);
        if is(&message) {
            return (checker, message);
        }
        take(&mut checker, &frames_of(&message), 1_000).expect("good");
    }
    panic!("no message is like that")
}

#[test]
fn a_good_stream_passes_in_pieces_of_any_size_and_with_more_fragments() {
    for piece_bytes in [7, 1_000, usize::MAX] {
        let mut checker = FrameChecker::new(plan());
        for number in 0..60 {
            let message = plan().message(number);
            take(&mut checker, &frames_of(&message), piece_bytes).expect("good");
        }
        assert!(checker.is_complete());
        assert_eq!(checker.progress().messages, 60);
    }
    let (mut checker, message) = due(|message| message.payload.len() > 100);
    let mut split = message.clone();
    split.frame_ends.extend([50, 51]);
    split.frame_ends.sort_unstable();
    take(&mut checker, &frames_of(&split), 30).expect("split further");
}

#[test]
fn a_wrong_byte_is_found_wherever_it_is() {
    for at in [0, 40, 99] {
        let (mut checker, message) = due(|message| message.payload.len() >= 100);
        let mut frames =
            frames_of(&PlannedMessage { frame_ends: vec![message.payload.len()], ..message.clone() });
        if message.frame_ends.len() > 1 {
            frames = frames_of(&message);
        }
        let mut left = at;
        for (_, bytes, _) in &mut frames {
            if left < bytes.len() {
                bytes[left] ^= 1;
                break;
            }
            left -= bytes.len();
        }
        let found = take(&mut checker, &frames, 64);
        assert!(matches!(found, Err(Violation::WrongByte { .. })), "{found:?}");
    }
}

#[test]
fn bytes_of_another_stream_are_named() {
    let (mut checker, _) =
        due(|message| message.payload.len() >= 26 && message.frame_ends.len() == 1 && message.is_text);
    let other = StreamId { pair: 9, ..STREAM };
    let found = checker.take(Piece {
        opcode: Opcode::Text,
        bytes: other.to_string().as_bytes(),
        frame_ends: true,
        message_ends: false,
    });
    assert_eq!(found, Err(Violation::Foreign { came: other.to_string(), stream: STREAM.to_string() }));
}

#[test]
fn boundaries_and_kinds_are_kept() {
    let is_single = |message: &PlannedMessage| message.frame_ends.len() == 1 && message.payload.len() > 30;
    let wrong = |change: &dyn Fn(&mut Vec<Frame>)| {
        let (mut checker, message) = due(is_single);
        let mut frames = frames_of(&message);
        change(&mut frames);
        match take(&mut checker, &frames, usize::MAX) {
            Err(Violation::WrongFrame { how }) => how,
            other => panic!("{other:?}"),
        }
    };
    let flipped = |opcode| if opcode == Opcode::Text { Opcode::Binary } else { Opcode::Text };
    assert!(wrong(&|frames| frames[0].0 = flipped(frames[0].0)).contains("another kind"));
    assert!(wrong(&|frames| frames[0].1.push(b'x')).contains("longer"));
    assert!(wrong(&|frames| frames[0].1.truncate(20)).contains("too early"));
    let (mut checker, message) = due(|message| {
        let middle = message.frame_ends.first().is_some_and(|end| *end > 0 && *end < message.payload.len());
        middle && message.frame_ends.len() > 1
    });
    let joined = PlannedMessage { frame_ends: vec![message.payload.len()], ..message };
    let found = take(&mut checker, &frames_of(&joined), 50);
    assert!(matches!(&found, Err(Violation::WrongFrame { how }) if how.contains("joined")), "{found:?}");
    let mut checker = FrameChecker::new(FramePlan { stream: STREAM, messages: 1 });
    take(&mut checker, &frames_of(&plan().message(0)), usize::MAX).expect("good");
    let more = take(&mut checker, &frames_of(&plan().message(1)), usize::MAX);
    assert!(matches!(&more, Err(Violation::WrongFrame { how }) if how.contains("nothing more")), "{more:?}");
}

#[test]
fn raw_streams_are_compared_byte_by_byte() {
    let plan = BytePlan { stream: STREAM, bytes: 10_000 };
    let stream: Vec<u8> = (0..3).flat_map(|number| plan.block(number)).collect();
    for step in [1, 999, BLOCK_BYTES, 10_000] {
        let mut checker = ByteChecker::new(plan);
        stream.chunks(step).for_each(|piece| checker.take(piece).expect("good"));
        assert_eq!(checker.progress().bytes, 10_000);
        assert!(matches!(checker.take(b"x"), Err(Violation::WrongFrame { .. })));
    }
    for at in [0, BLOCK_BYTES, 9_999] {
        let mut changed = stream.clone();
        changed[at] ^= 0x80;
        let found = ByteChecker::new(plan).take(&changed);
        assert!(
            matches!(found, Err(Violation::WrongByte { offset, .. }) if offset == at as u64),
            "{found:?}"
        );
    }
    let other = BytePlan { stream: StreamId { end: 1, ..STREAM }, bytes: 10_000 };
    let found = ByteChecker::new(plan).take(&other.block(0));
    assert!(matches!(found, Err(Violation::Foreign { .. })), "{found:?}");
    let skipped = [&stream[..500], &stream[501..]].concat();
    assert!(matches!(ByteChecker::new(plan).take(&skipped), Err(Violation::WrongByte { .. })));
}

fn closed(code: u16) -> Arrival {
    Arrival::WebSocket { ending: Ending::Closed(code, String::new()), in_frame: false }
}

fn lost(in_frame: bool) -> Arrival {
    Arrival::WebSocket { ending: Ending::Lost, in_frame }
}

fn failed() -> Arrival {
    Arrival::Raw(RawEnding::Failed(ErrorKind::ConnectionReset))
}

fn report(left: Option<Leaving>, is_done: bool, received: u64, arrival: Arrival) -> Report {
    let progress = |bytes| Progress { bytes, messages: bytes as u32 };
    Report {
        name: "an end".to_owned(),
        left,
        is_done,
        sent: progress(9),
        received: progress(received),
        arrival,
    }
}

#[test]
fn endings_follow_from_what_the_other_end_did() {
    use Leaving::{Reset, ResetInFrame, TcpClose, WebSocketClose};
    let finished = || Arrival::Raw(RawEnding::Finished);
    // What an end saw, whether it had sent all; how the other left, whether it had sent all; is that right?
    let cases = [
        (9, closed(1005), true, None, true, true),
        (9, closed(1000), true, None, true, true),
        (8, closed(1005), true, None, true, false),
        (9, closed(1001), true, None, true, false),
        (9, lost(false), true, None, true, false),
        (10, closed(1005), true, None, true, false),
        (9, closed(1005), false, Some(WebSocketClose), false, true),
        (9, closed(1000), false, Some(WebSocketClose), false, false),
        (8, closed(1005), false, Some(WebSocketClose), false, false),
        (9, lost(true), false, Some(WebSocketClose), false, false),
        (5, closed(1005), false, Some(Reset), false, true),
        (5, lost(true), false, Some(ResetInFrame), false, true),
        (5, lost(false), false, Some(TcpClose), false, false),
        (9, finished(), false, None, true, true),
        (8, finished(), false, None, true, false),
        (5, finished(), false, Some(Reset), false, false),
        (9, finished(), false, Some(Reset), true, true),
        (5, failed(), false, Some(Reset), false, true),
        (5, failed(), false, None, false, false),
    ];
    for (received, arrival, is_done, other_left, other_is_done, is_right) in cases {
        let own = report(None, is_done, received, arrival);
        let other = report(other_left, other_is_done, 0, closed(1005));
        assert_eq!(check(&own, &other).is_ok(), is_right, "{own:?} {other:?}");
    }
}

#[test]
fn one_that_left_itself_may_see_anything_but_a_broken_protocol() {
    let other = report(None, false, 0, closed(1005));
    let left = |received, arrival| report(Some(Leaving::Reset), false, received, arrival);
    assert!(check(&left(3, lost(false)), &other).is_ok());
    assert!(check(&left(10, lost(false)), &other).is_err());
    let broken = Arrival::WebSocket { ending: Ending::Broken("a reserved bit"), in_frame: false };
    assert!(check(&left(3, broken), &other).is_err());
}
