//! The mask of RFC 6455 section 5.3: client payloads are XORed with a 4-byte key.

/// A masking key and how far it has been used, so that a payload can come in pieces of any size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mask {
    /// The key, turned so that its first byte belongs to the next byte of payload.
    key: [u8; 4],
}

impl Mask {
    /// A mask at the start of its payload.
    #[must_use]
    pub fn new(key: [u8; 4]) -> Self {
        Self { key }
    }

    /// Masks or unmasks the next piece of the payload in place (both are the same), eight bytes at a time.
    pub fn apply(&mut self, piece: &mut [u8]) {
        let half = u32::from_ne_bytes(self.key);
        let wide = (u64::from(half) << 32) | u64::from(half);
        let (words, rest) = piece.as_chunks_mut::<8>();
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
        }
        for (byte, key) in rest.iter_mut().zip(self.key.iter().cycle()) {
            *byte ^= key;
        }
        self.key.rotate_left(piece.len() % 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn by_the_byte(key: [u8; 4], payload: &[u8]) -> Vec<u8> {
        payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect()
    }

    proptest! {
        #[test]
        fn equals_the_loop_over_bytes_in_any_pieces(
            key: [u8; 4],
            payload in proptest::collection::vec(any::<u8>(), 0..300),
            cuts in proptest::collection::vec(0usize..40, 0..20),
        ) {
            let mut masked = payload.clone();
            let mut mask = Mask::new(key);
            let mut rest = masked.as_mut_slice();
            for cut in cuts {
                let (piece, after) = rest.split_at_mut(cut.min(rest.len()));
                mask.apply(piece);
                rest = after;
            }
            mask.apply(rest);
            prop_assert_eq!(masked, by_the_byte(key, &payload));
        }
    }
}
