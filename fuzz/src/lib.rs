//! What the fuzz targets share: bytes cut into pieces, frames of clients, and a host of shards without sockets.

pub mod framer;
pub mod json;
pub mod models;
pub mod pairing;
pub mod play;
pub mod referee;
pub mod wire;
pub mod world;

use parlor::wire::frame::{HEADER_LEN_MAX, Header};
use parlor::wire::mask::Mask;

/// Where bytes are cut into pieces, as a fuzzer's input says it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cuts<'a> {
    /// Lengths of the pieces, used again from the first when all are used up.
    sizes: &'a [u8],
}

impl<'a> Cuts<'a> {
    /// Takes the cuts from the front of an input: one byte with the number of sizes (at most 15), then the sizes.
    #[must_use]
    pub fn take(input: &'a [u8]) -> (Self, &'a [u8]) {
        let (&count, rest) = input.split_first().unwrap_or((&0, &[]));
        let (sizes, rest) = rest.split_at(rest.len().min(usize::from(count % 16)));
        (Self { sizes }, rest)
    }

    /// Whether nothing is cut.
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.sizes.iter().all(|&size| size == 0)
    }

    /// Cuts `bytes`. One piece, if there are no sizes but 0; empty pieces between others may be among them.
    #[must_use]
    pub fn pieces<'b>(&self, mut bytes: &'b mut [u8]) -> Vec<&'b mut [u8]> {
        let mut pieces = Vec::new();
        if self.are_none() {
            return vec![bytes];
        }
        for &size in self.sizes.iter().cycle() {
            let (piece, rest) = bytes.split_at_mut(bytes.len().min(usize::from(size)));
            pieces.push(piece);
            bytes = rest;
            if bytes.is_empty() {
                break;
            }
        }
        pieces
    }
}

/// A masked frame of a client; `first` is its first byte (FIN, reserved bits, opcode).
#[must_use]
pub fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x12, 0x34, 0x56, 0x78];
    let header = Header {
        fin: first & 0x80 != 0,
        reserved: first & 0x70,
        opcode_bits: first & 0x0f,
        mask: Some(key),
        payload_len: payload.len() as u64,
    };
    let mut bytes = [0; HEADER_LEN_MAX];
    let len = header.emit(&mut bytes);
    let mut masked = payload.to_vec();
    Mask::new(key).apply(&mut masked);
    [&bytes[..len], &masked].concat()
}
