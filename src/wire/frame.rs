//! Frames of RFC 6455 section 5.2: the header as a view, and a reader that finds frames in bytes that come in any
//! pieces and unmasks payloads where they lie.
//!
//! Whether a frame is allowed (reserved bits, opcodes, masks, sizes) is not decided here but in
//! [`crate::websocket::connection`]: a connection that is closing must still find the answer to its close among
//! frames that it no longer accepts.

use super::Span;
use super::mask::Mask;

/// Longest header: 2 bytes, 8 of length, 4 of mask.
pub const HEADER_LEN_MAX: usize = 14;
/// Longest header that a server writes: it does not mask.
pub const SERVER_HEADER_LEN_MAX: usize = 10;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LEN: u8 = 0x7f;
/// A 7-bit length of this value: the length is in the next 2 bytes.
const LEN_IN_2_BYTES: u8 = 126;
/// A 7-bit length of this value: the length is in the next 8 bytes.
const LEN_IN_8_BYTES: u8 = 127;

/// What a frame is for. The other ten values are reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are those of RFC 6455 section 5.2")]
pub enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

impl Opcode {
    /// The opcode of a number on the wire; none for those that are reserved.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0x0 => Some(Self::Continuation),
            0x1 => Some(Self::Text),
            0x2 => Some(Self::Binary),
            0x8 => Some(Self::Close),
            0x9 => Some(Self::Ping),
            0xa => Some(Self::Pong),
            _ => None,
        }
    }
}

/// A frame's header as it stood on the wire, allowed or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Last frame of its message.
    pub fin: bool,
    /// The three reserved bits, at the places where they stand in the first byte.
    pub reserved: u8,
    /// The opcode's number, reserved ones included.
    pub opcode_bits: u8,
    /// The masking key, if there is one.
    pub mask: Option<[u8; 4]>,
    /// Length of the payload in bytes.
    pub payload_len: u64,
}

impl Header {
    /// Reads a header from the start of `bytes`; returns it and its own length in bytes, or nothing while it is
    /// incomplete. A length need not be in its shortest form: clients that write it longer exist, and no harm is
    /// done.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
        let (payload_len, rest) = match second & LEN {
            LEN_IN_2_BYTES => {
                let (len, rest) = rest.split_first_chunk()?;
                (u64::from(u16::from_be_bytes(*len)), rest)
            }
            LEN_IN_8_BYTES => {
                let (len, rest) = rest.split_first_chunk()?;
                (u64::from_be_bytes(*len), rest)
            }
            len => (u64::from(len), rest),
        };
        let (mask, rest) = if second & MASKED == 0 {
            (None, rest)
        } else {
            let (key, rest) = rest.split_first_chunk()?;
            (Some(*key), rest)
        };
        let header = Self {
            fin: first & FIN != 0,
            reserved: first & RESERVED,
            opcode_bits: first & OPCODE,
            mask,
            payload_len,
        };
        Some((header, bytes.len() - rest.len()))
    }

    /// Writes the header into `out`, its length in the shortest form, and returns how many bytes that took.
    pub fn emit(&self, out: &mut [u8; HEADER_LEN_MAX]) -> usize {
        let masked = if self.mask.is_some() { MASKED } else { 0 };
        out[0] = (if self.fin { FIN } else { 0 }) | self.reserved | self.opcode_bits;
        let mut len = match self.payload_len {
            short @ 0..=125 => {
                out[1] = masked | short as u8;
                2
            }
            medium @ 126..=0xffff => {
                out[1] = masked | LEN_IN_2_BYTES;
                out[2..4].copy_from_slice(&(medium as u16).to_be_bytes());
                4
            }
            long => {
                out[1] = masked | LEN_IN_8_BYTES;
                out[2..10].copy_from_slice(&long.to_be_bytes());
                10
            }
        };
        if let Some(key) = self.mask {
            out[len..len + 4].copy_from_slice(&key);
            len += 4;
        }
        len
    }
}

/// The header of an unmasked frame, as a server sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerHeader {
    bytes: [u8; HEADER_LEN_MAX],
    len: u8,
}

impl ServerHeader {
    /// The header for a payload of `payload_len` bytes.
    #[must_use]
    pub fn new(opcode: Opcode, payload_len: usize) -> Self {
        Self::of_fragment(opcode, true, payload_len)
    }

    /// The header for a payload of `payload_len` bytes in a message of several frames; `fin` on its last.
    #[must_use]
    pub fn of_fragment(opcode: Opcode, fin: bool, payload_len: usize) -> Self {
        let mut bytes = [0; HEADER_LEN_MAX];
        let header = Header {
            fin,
            reserved: 0,
            opcode_bits: opcode as u8,
            mask: None,
            payload_len: payload_len as u64,
        };
        let len = header.emit(&mut bytes) as u8;
        Self { bytes, len }
    }

    /// The header's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// What [`FrameReader::poll`] found next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A frame begins. A [`Step::Payload`] with `last` follows, also when the payload is empty.
    Header(Header),
    /// A piece of the payload, unmasked by now, at this range of the input.
    Payload {
        /// Where it lies in the input.
        span: Span,
        /// Whether the frame ends with it.
        last: bool,
    },
}

/// Finds frames in bytes that come in any pieces. It keeps at most one incomplete header; payloads stay where they
/// are and are unmasked there.
#[derive(Debug, Default)]
pub struct FrameReader {
    /// The start of a header whose rest is still to come.
    header: [u8; HEADER_LEN_MAX],
    header_len: u8,
    /// Inside a payload: what is left of it, and its mask.
    payload: Option<(u64, Option<Mask>)>,
}

impl FrameReader {
    /// Finds the next step in `input` from `*cursor` on and moves the cursor behind it. Nothing: all of the input
    /// was taken, more is needed.
    pub fn poll(&mut self, input: &mut [u8], cursor: &mut usize) -> Option<Step> {
        match self.payload.take() {
            Some((left, mask)) => self.poll_payload(input, cursor, left, mask),
            None => self.poll_header(input, cursor),
        }
    }

    /// Whether the input so far ended between two frames.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.header_len == 0 && self.payload.is_none()
    }

    fn poll_header(&mut self, input: &[u8], cursor: &mut usize) -> Option<Step> {
        let rest = &input[*cursor..];
        let (header, taken) = if self.header_len == 0 {
            match Header::parse(rest) {
                Some(found) => found,
                None => return self.keep(rest, cursor),
            }
        } else {
            let kept = usize::from(self.header_len);
            let more = rest.len().min(HEADER_LEN_MAX - kept);
            self.header[kept..kept + more].copy_from_slice(&rest[..more]);
            match Header::parse(&self.header[..kept + more]) {
                Some((header, len)) => (header, len - kept),
                None => {
                    self.header_len += more as u8;
                    *cursor += more;
                    return None;
                }
            }
        };
        self.header_len = 0;
        *cursor += taken;
        self.payload = Some((header.payload_len, header.mask.map(Mask::new)));
        Some(Step::Header(header))
    }

    fn keep(&mut self, rest: &[u8], cursor: &mut usize) -> Option<Step> {
        self.header[..rest.len()].copy_from_slice(rest);
        self.header_len = rest.len() as u8;
        *cursor += rest.len();
        None
    }

    fn poll_payload(
        &mut self,
        input: &mut [u8],
        cursor: &mut usize,
        left: u64,
        mut mask: Option<Mask>,
    ) -> Option<Step> {
        let here = (input.len() - *cursor) as u64;
        if here == 0 && left > 0 {
            self.payload = Some((left, mask));
            return None;
        }
        let piece = left.min(here);
        let span = *cursor..*cursor + piece as usize;
        if let Some(mask) = &mut mask {
            mask.apply(&mut input[span.clone()]);
        }
        *cursor = span.end;
        let last = piece == left;
        if !last {
            self.payload = Some((left - piece, mask));
        }
        Some(Step::Payload { span, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> impl Strategy<Value = Header> {
        (
            any::<bool>(),
            0u8..8,
            0u8..16,
            any::<Option<[u8; 4]>>(),
            prop_oneof![0u64..300, 65_000u64..66_000, any::<u64>()],
        )
            .prop_map(|(fin, reserved, opcode_bits, mask, payload_len)| Header {
                fin,
                reserved: reserved << 4,
                opcode_bits,
                mask,
                payload_len,
            })
    }

    /// Frames as they come out of the reader: header and joined payload.
    fn read(reader: &mut FrameReader, input: &mut [u8], frames: &mut Vec<(Header, Vec<u8>, bool)>) {
        let mut cursor = 0;
        while let Some(step) = reader.poll(input, &mut cursor) {
            match step {
                Step::Header(header) => frames.push((header, Vec::new(), false)),
                Step::Payload { span, last } => {
                    let frame = frames.last_mut().expect("a header came before");
                    frame.1.extend_from_slice(&input[span]);
                    frame.2 = last;
                }
            }
        }
        assert_eq!(cursor, input.len());
    }

    proptest! {
        #[test]
        fn what_is_emitted_is_parsed_back(header in header()) {
            let mut bytes = [0; HEADER_LEN_MAX];
            let len = header.emit(&mut bytes);
            prop_assert_eq!(Header::parse(&bytes[..len]), Some((header, len)));
            for short in 0..len {
                prop_assert_eq!(Header::parse(&bytes[..short]), None);
            }
        }

        #[test]
        fn frames_come_out_the_same_in_any_pieces(
            frames in proptest::collection::vec(
                (header(), proptest::collection::vec(any::<u8>(), 0..200)), 0..6),
            piece_len in 1usize..50,
        ) {
            let mut wire = Vec::new();
            let mut expected = Vec::new();
            for (mut header, payload) in frames {
                header.payload_len = payload.len() as u64;
                let mut bytes = [0; HEADER_LEN_MAX];
                let len = header.emit(&mut bytes);
                wire.extend_from_slice(&bytes[..len]);
                let mut masked = payload.clone();
                if let Some(key) = header.mask {
                    Mask::new(key).apply(&mut masked);
                }
                wire.extend_from_slice(&masked);
                expected.push((header, payload, true));
            }
            let (mut reader, mut found) = (FrameReader::default(), Vec::new());
            for piece in wire.chunks_mut(piece_len) {
                read(&mut reader, piece, &mut found);
            }
            prop_assert_eq!(found, expected);
            prop_assert!(reader.is_between_frames());
        }
    }

    #[test]
    fn a_server_header_is_as_short_as_can_be() {
        assert_eq!(ServerHeader::new(Opcode::Text, 125).as_bytes(), [0x81, 125]);
        assert_eq!(ServerHeader::new(Opcode::Binary, 126).as_bytes(), [0x82, 126, 0, 126]);
        assert_eq!(ServerHeader::new(Opcode::Text, 65_536).as_bytes(), [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }
}
