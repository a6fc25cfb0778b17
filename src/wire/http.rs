//! HTTP/1.1 request heads (RFC 9112), found in bytes and decoded by monoio-http's decoder, whose one limit is 96 headers;
//! the cap in bytes is set here, before it.

use std::borrow::Cow;

use bytes::BytesMut;
use monoio_codec::{Decoded, Decoder};
use monoio_http::h1::codec::decoder::RequestHeadDecoder;

use crate::limits::HEAD_BYTES_MAX;

/// A decoded head: method, target, version and headers.
pub type RequestHead = http::request::Parts;

/// The blank line that ends a head.
const END: &[u8] = b"\r\n\r\n";

/// Why bytes are not a request head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// Longer than [`HEAD_BYTES_MAX`]: 431.
    TooLarge,
    /// No HTTP/1 request: 400.
    Malformed,
}

/// Decodes the request head at the start of `bytes`. Returns it and its length in bytes, or nothing while its end
/// has not come.
///
/// # Errors
/// [`HeadError`]; the connection cannot be read any further.
pub fn parse_head(bytes: &[u8]) -> Result<Option<(RequestHead, usize)>, HeadError> {
    let start = blank_lines(bytes);
    let capped = &bytes[start..bytes.len().min(start + HEAD_BYTES_MAX)];
    let Some(end) = memchr::memmem::find(capped, END) else {
        let complete_or_more = bytes.len() - start >= HEAD_BYTES_MAX;
        return if complete_or_more { Err(HeadError::TooLarge) } else { Ok(None) };
    };
    let len = end + END.len();
    if has_bare_line_feed(&capped[..len]) {
        return Err(HeadError::Malformed);
    }
    match RequestHeadDecoder.decode(&mut BytesMut::from(&capped[..len])) {
        Ok(Decoded::Some(head)) => Ok(Some((head, start + len))),
        _ => Err(HeadError::Malformed),
    }
}

/// Whether a line ends without a carriage return. The decoder would take that for a line's end, and so might find the
/// head's end elsewhere than we do: RFC 9112 section 2.2 lets us refuse it.
fn has_bare_line_feed(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r')
}

/// Length of the empty lines in front of a request line, which RFC 9112 section 2.2 asks servers to skip. Two are
/// skipped, so that they cannot go on for ever.
fn blank_lines(bytes: &[u8]) -> usize {
    if bytes.starts_with(END) {
        4
    } else if bytes.starts_with(b"\r\n") {
        2
    } else {
        0
    }
}

/// Whether one of the comma-separated tokens of the headers called `name` is `token`, in any case.
#[must_use]
pub fn has_token(head: &RequestHead, name: http::header::HeaderName, token: &str) -> bool {
    head.headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Whether a body follows the head. None is ever read here, so the connection must be closed after the answer.
#[must_use]
pub fn has_body(head: &RequestHead) -> bool {
    use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
    let length = head.headers.get(CONTENT_LENGTH);
    head.headers.contains_key(TRANSFER_ENCODING)
        || length.is_some_and(|length| length.as_bytes().trim_ascii() != b"0")
}

/// Whether the connection may serve another request after this one (RFC 9112 section 9.3).
#[must_use]
pub fn wants_keep_alive(head: &RequestHead) -> bool {
    use http::header::CONNECTION;
    if has_body(head) || has_token(head, CONNECTION, "close") {
        return false;
    }
    head.version == http::Version::HTTP_11 || has_token(head, CONNECTION, "keep-alive")
}

/// An answer to a plain request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: http::StatusCode,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Response {
    /// An answer in plain text.
    #[must_use]
    pub fn text(status: http::StatusCode, body: String) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body }
    }

    /// An answer in JSON.
    #[must_use]
    pub fn json(status: http::StatusCode, body: String) -> Self {
        Self { status, content_type: "application/json", body }
    }

    /// The answer as it goes onto the wire, without its body for a HEAD request.
    #[must_use]
    pub fn emit(&self, is_head_request: bool, keep_alive: bool) -> Vec<u8> {
        use std::fmt::Write;
        let mut text = String::with_capacity(256 + self.body.len());
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n",
            self.status.as_u16(),
            self.status.canonical_reason().unwrap_or_default(),
            self.content_type,
            self.body.len(),
        );
        match self.status {
            http::StatusCode::UPGRADE_REQUIRED => {
                text.push_str("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
            }
            http::StatusCode::METHOD_NOT_ALLOWED => text.push_str("Allow: GET, HEAD\r\n"),
            _ => {}
        }
        text.push_str(match (self.status, keep_alive) {
            (http::StatusCode::UPGRADE_REQUIRED, _) => "Connection: close, Upgrade\r\n\r\n",
            (_, true) => "Connection: keep-alive\r\n\r\n",
            (_, false) => "Connection: close\r\n\r\n",
        });
        if !is_head_request {
            text.push_str(&self.body);
        }
        text.into_bytes()
    }
}

/// A bad escape, or bytes that are no UTF-8 once the escapes are undone: 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadEscape;

/// Undoes the percent escapes of one path segment.
///
/// # Errors
/// [`BadEscape`].
pub fn decode_segment(segment: &str) -> Result<Cow<'_, str>, BadEscape> {
    if !segment.contains('%') {
        return Ok(Cow::Borrowed(segment));
    }
    let mut decoded = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let (&[high, low], after) = rest.split_first_chunk().ok_or(BadEscape)?;
        decoded.push(hex(high)? << 4 | hex(low)?);
        rest = after;
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| BadEscape)
}

fn hex(digit: u8) -> Result<u8, BadEscape> {
    char::from(digit).to_digit(16).map(|value| value as u8).ok_or(BadEscape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_found_with_its_length() {
        let bytes = b"GET /ws?a=1 HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket, h2c\r\n\r\nrest";
        let (head, len) = parse_head(bytes).expect("well-formed").expect("complete");
        assert_eq!(&bytes[len..], b"rest");
        assert_eq!((head.uri.path(), head.uri.query()), ("/ws", Some("a=1")));
        assert!(has_token(&head, http::header::UPGRADE, "websocket"));
        assert!(wants_keep_alive(&head));
    }

    #[test]
    fn every_prefix_is_incomplete() {
        let bytes = b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n";
        for len in 0..bytes.len() {
            assert!(parse_head(&bytes[..len]).expect("a prefix").is_none(), "{len}");
        }
        assert!(parse_head(bytes).expect("well-formed").is_some());
    }

    #[test]
    fn the_cap_holds() {
        let mut bytes = b"GET / HTTP/1.1\r\nA: ".to_vec();
        bytes.resize(HEAD_BYTES_MAX - END.len(), b'a');
        let mut fits = bytes.clone();
        fits.extend_from_slice(END);
        assert!(parse_head(&fits).expect("fits").is_some());
        bytes.push(b'a');
        bytes.extend_from_slice(END);
        assert_eq!(parse_head(&bytes).err(), Some(HeadError::TooLarge));
    }

    #[test]
    fn what_is_no_request_is_malformed() {
        for bytes in [
            &b"HELLO\r\n\r\n"[..],
            b"GET /\r\n\r\n",
            b"GET / HTTP/2.0\r\n\r\n",
            b"\x16\x03\x01\x02\r\n\r\n",
            b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
            b"GET / HTTP/1.1\r\n: empty\r\n\r\n",
            b"\r\n\r\n\r\n\r\n",
            b"GET / HTTP/1.1\nHost: x\n\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\n\nGET /next HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(parse_head(bytes).err(), Some(HeadError::Malformed), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn segments_are_decoded_once() {
        assert_eq!(decode_segment("a%2Fb%25"), Ok("a/b%".into()));
        assert_eq!(decode_segment("%C3%A9"), Ok("é".into()));
        for bad in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(decode_segment(bad), Err(BadEscape), "{bad}");
        }
    }
}
