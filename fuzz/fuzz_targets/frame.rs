//! [`FrameReader`] in arbitrary pieces against a reader of whole inputs that is written here anew, so that a mistake in
//! [`Header::parse`] is not compared with itself; and each header that is found, written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use parlor::wire::frame::{FrameReader, HEADER_LEN_MAX, Header, Step};
use parlor_fuzz::Cuts;

/// A frame, or the start of one that the input ends in.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    header: Header,
    payload: Vec<u8>,
    is_complete: bool,
}

fuzz_target!(|input: &[u8]| {
    let (cuts, wire) = Cuts::take(input);
    let (expected, is_between_frames) = by_the_letter(wire);
    let mut wire = wire.to_vec();
    let (mut reader, mut found) = (FrameReader::default(), Vec::new());
    for piece in cuts.pieces(&mut wire) {
        read(&mut reader, piece, &mut found);
    }
    assert_eq!(found, expected);
    assert_eq!(reader.is_between_frames(), is_between_frames);
    for frame in &found {
        check_round_trip(&frame.header);
    }
});

fn read(reader: &mut FrameReader, input: &mut [u8], frames: &mut Vec<Frame>) {
    let mut cursor = 0;
    while let Some(step) = reader.poll(input, &mut cursor) {
        match step {
            Step::Header(header) => frames.push(Frame { header, payload: Vec::new(), is_complete: false }),
            Step::Payload { span, last } => {
                let frame = frames.last_mut().expect("a header came before");
                assert!(!frame.is_complete, "a payload went on behind its end");
                frame.payload.extend_from_slice(&input[span]);
                frame.is_complete = last;
            }
        }
    }
    assert_eq!(cursor, input.len(), "all of the input is taken");
}

/// All frames of `wire`, and whether it ends between two.
fn by_the_letter(mut wire: &[u8]) -> (Vec<Frame>, bool) {
    let mut frames = Vec::new();
    while let Some((header, len)) = header_by_the_letter(wire) {
        let rest = &wire[len..];
        let here = usize::try_from(header.payload_len).map_or(rest.len(), |len| len.min(rest.len()));
        let key = header.mask.unwrap_or_default();
        let payload = rest[..here].iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect();
        let is_complete = here as u64 == header.payload_len;
        frames.push(Frame { header, payload, is_complete });
        wire = &rest[here..];
        if !is_complete {
            return (frames, false);
        }
    }
    (frames, wire.is_empty())
}

/// RFC 6455 section 5.2.
fn header_by_the_letter(bytes: &[u8]) -> Option<(Header, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let len_bytes = match second % 128 {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let is_masked = second >= 128;
    let len = 2 + len_bytes + if is_masked { 4 } else { 0 };
    let bytes = bytes.get(..len)?;
    let extended = bytes[2..2 + len_bytes].iter().fold(0_u64, |sum, &byte| (sum << 8) | u64::from(byte));
    let header = Header {
        fin: first >= 128,
        reserved: first & 0b0111_0000,
        opcode_bits: first % 16,
        mask: is_masked.then(|| [bytes[len - 4], bytes[len - 3], bytes[len - 2], bytes[len - 1]]),
        payload_len: if len_bytes == 0 { u64::from(second % 128) } else { extended },
    };
    Some((header, len))
}

fn check_round_trip(header: &Header) {
    let mut bytes = [0; HEADER_LEN_MAX];
    let len = header.emit(&mut bytes);
    assert_eq!(Header::parse(&bytes), Some((*header, len)));
    assert_eq!(header_by_the_letter(&bytes[..len]), Some((*header, len)));
    for short in 0..len {
        assert_eq!(Header::parse(&bytes[..short]), None, "cut after {short} bytes");
    }
}
