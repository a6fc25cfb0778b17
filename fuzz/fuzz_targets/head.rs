//! [`parse_head`] and what is read out of a head: nothing panics (the decoder behind it unwraps), the length is that of
//! a search by hand, what stands behind a head changes nothing, what is cut off never says anything else, no line is
//! swallowed, and an accepted handshake is answered with the lines of a 101 and not one more.
#![no_main]

use libfuzzer_sys::fuzz_target;
use parlor::limits::HEAD_BYTES_MAX;
use parlor::websocket::handshake::{Upgrade, accept, upgrade};
use parlor::wire::http::{
    BadEscape, HeadError, RequestHead, decode_segment, has_body, parse_head, wants_keep_alive,
};

fuzz_target!(|input: &[u8]| {
    let found = parse_head(input);
    check_shape(input, &found);
    check_prefixes(input, &found);
    if let Ok(Some((head, len))) = &found {
        check_trailing(&input[..*len], head);
        check_lines(&input[..*len], head);
        check_head(head);
    }
    if let Ok(text) = std::str::from_utf8(input) {
        check_segment(text);
    }
});

const OPENED_RAW: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";

type Found = Result<Option<(RequestHead, usize)>, HeadError>;

/// Where the head ends is found again by hand.
fn check_shape(input: &[u8], found: &Found) {
    let blank_lines = input.chunks(2).take(2).take_while(|pair| *pair == b"\r\n").count();
    let start = 2 * blank_lines;
    let end = input[start..].windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
    match (end, found) {
        (Some(len), Ok(Some((_, found)))) if len <= HEAD_BYTES_MAX => assert_eq!(*found, start + len),
        (Some(len), Err(HeadError::Malformed)) if len <= HEAD_BYTES_MAX => {}
        (None, Ok(None)) if input.len() - start < HEAD_BYTES_MAX => {}
        (_, Err(HeadError::TooLarge)) if input.len() - start >= HEAD_BYTES_MAX => {
            assert!(end.is_none_or(|len| len > HEAD_BYTES_MAX));
        }
        _ => panic!("a head of {end:?} behind {start}: {found:?}"),
    }
}

/// A prefix is incomplete or says the same.
fn check_prefixes(input: &[u8], found: &Found) {
    let step = (input.len() / 64).max(1);
    let last = input.len().saturating_sub(1);
    for len in (0..input.len()).step_by(step).chain([last]).filter(|&len| len < input.len()) {
        match (parse_head(&input[..len]), found) {
            (Ok(None), _) => {}
            (Err(error), Err(expected)) => assert_eq!(error, *expected, "cut after {len}"),
            (Ok(Some((head, end))), Ok(Some((expected, expected_end)))) => {
                assert_eq!(end, *expected_end, "cut after {len}");
                assert_same(&head, expected);
            }
            (other, _) => panic!("cut after {len}: {other:?} and then {found:?}"),
        }
    }
}

/// What stands behind a head changes nothing.
fn check_trailing(bytes: &[u8], head: &RequestHead) {
    for trailing in [&b"\r\n\r\n"[..], b"\x81\x80\0\0\0\0", &[b'a'; HEAD_BYTES_MAX]] {
        let again = parse_head(&[bytes, trailing].concat()).expect("as without it").expect("as without it");
        assert_eq!(again.1, bytes.len());
        assert_same(&again.0, head);
    }
}

fn assert_same(one: &RequestHead, other: &RequestHead) {
    assert_eq!((&one.method, &one.uri, one.version), (&other.method, &other.uri, other.version));
    assert_eq!(one.headers, other.headers);
}

/// Request line, headers, blank line: a line that is none of them would be somebody else's request.
fn check_lines(bytes: &[u8], head: &RequestHead) {
    let blank_lines = bytes.iter().take_while(|byte| b"\r\n".contains(byte)).count();
    let lines = bytes[blank_lines..].iter().filter(|&&byte| byte == b'\n').count();
    assert_eq!(lines, head.headers.len() + 2, "a line was swallowed");
}

fn check_head(head: &RequestHead) {
    assert!(!(has_body(head) && wants_keep_alive(head)), "no body is ever read");
    assert!(std::str::from_utf8(head.uri.path().as_bytes()).is_ok(), "the decoder does not check it");
    for segment in head.uri.path().split('/') {
        check_segment(segment);
    }
    let Some(upgrade) = upgrade(head) else { return };
    match (accept(head, upgrade), upgrade) {
        (Ok(answer), Upgrade::WebSocket) => check_answer(&answer),
        (Ok(answer), Upgrade::Tcp) => assert_eq!(answer, OPENED_RAW),
        (Err(rejection), _) => assert!(rejection.status.is_client_error()),
    }
}

fn check_answer(answer: &[u8]) {
    let text = String::from_utf8_lossy(answer);
    let lines: Vec<&str> = text.split("\r\n").collect();
    let (ends, named) = lines.split_at(4);
    assert_eq!(ends[..3], ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]);
    assert_eq!(ends[3].strip_prefix("Sec-WebSocket-Accept: ").map(str::len), Some(28));
    match named {
        ["", ""] => {}
        [subprotocol, "", ""] => {
            let name = subprotocol.strip_prefix("Sec-WebSocket-Protocol: ").expect("the only other header");
            assert!(!name.is_empty() && !name.contains(',') && name == name.trim_ascii());
        }
        _ => panic!("{text}"),
    }
    assert!(!lines.iter().any(|line| line.contains(['\r', '\n', '\0'])), "{text:?}");
}

/// Escapes are undone as they are where a text is split at each `%`.
fn check_segment(segment: &str) {
    let mut parts = segment.split('%');
    let mut decoded = parts.next().unwrap_or_default().as_bytes().to_vec();
    let is_good = parts.all(|part| {
        let digits = part.as_bytes().get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.and_then(|_| u8::from_str_radix(&part[..2], 16).ok());
        decoded.extend(byte);
        decoded.extend_from_slice(part.as_bytes().get(2..).unwrap_or_default());
        byte.is_some()
    });
    let expected = String::from_utf8(decoded).ok().filter(|_| is_good).ok_or(BadEscape);
    assert_eq!(decode_segment(segment).map(String::from), expected);
}
