//! Bytes and texts that follow from a seed, so that whoever knows it can tell what should have come.

use crate::prng::Prng;

/// Characters of one to four bytes.
const CHARACTERS: [char; 8] = ['a', '"', '\\', '\n', 'é', '€', '😀', '~'];

/// Appends `len` bytes.
pub(crate) fn binary(seed: u64, len: usize, out: &mut Vec<u8>) {
    let (prng, end) = (Prng::from_seed(mixed(seed)), out.len() + len);
    while out.len() < end {
        out.extend_from_slice(&prng.next_u64().to_le_bytes());
    }
    out.truncate(end);
}

/// Appends `len` bytes of UTF-8.
pub(crate) fn text(seed: u64, len: usize, out: &mut Vec<u8>) {
    let (prng, end) = (Prng::from_seed(mixed(seed)), out.len() + len);
    let mut encoded = [0; 4];
    while out.len() < end {
        let character = CHARACTERS[prng.below(CHARACTERS.len() as u32) as usize];
        let bytes = character.encode_utf8(&mut encoded).as_bytes();
        let fits = out.len() + bytes.len() <= end;
        out.extend_from_slice(if fits { bytes } else { b"x" });
    }
}

/// Neighbouring seeds would begin alike.
pub(crate) fn mixed(seed: u64) -> u64 {
    let seed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (seed ^ (seed >> 31)) | 1
}

/// A digest of bytes that come in pieces of any size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Digest {
    state: u64,
    word: [u8; 8],
    word_len: usize,
    /// Bytes so far.
    pub(crate) len: u64,
}

impl Digest {
    /// Takes the next piece.
    pub(crate) fn push(&mut self, mut piece: &[u8]) {
        self.len += piece.len() as u64;
        if self.word_len > 0 {
            let (filling, rest) = piece.split_at(piece.len().min(8 - self.word_len));
            self.word[self.word_len..self.word_len + filling.len()].copy_from_slice(filling);
            self.word_len += filling.len();
            piece = rest;
            if self.word_len == 8 {
                self.mix(u64::from_le_bytes(self.word));
                self.word_len = 0;
            }
        }
        let (words, rest) = piece.as_chunks::<8>();
        words.iter().for_each(|word| self.mix(u64::from_le_bytes(*word)));
        self.word[self.word_len..self.word_len + rest.len()].copy_from_slice(rest);
        self.word_len += rest.len();
    }

    /// The digest of all that came.
    pub(crate) fn finish(mut self) -> u64 {
        self.word[self.word_len..].fill(0);
        self.mix(u64::from_le_bytes(self.word));
        self.mix(self.len);
        self.state
    }

    fn mix(&mut self, word: u64) {
        self.state = (self.state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_follows_from_its_seed() {
        let made = |seed, len| {
            let (mut bytes, mut words) = (Vec::new(), Vec::new());
            binary(seed, len, &mut bytes);
            text(seed, len, &mut words);
            assert!(std::str::from_utf8(&words).is_ok());
            assert_eq!((bytes.len(), words.len()), (len, len));
            (bytes, words)
        };
        assert_eq!(made(5, 1_001), made(5, 1_001));
        assert_ne!(made(5, 100).0, made(6, 100).0);
        assert_ne!(made(5, 100).1, made(6, 100).1);
        made(5, 0);
    }

    #[test]
    fn a_digest_does_not_depend_on_the_pieces_but_on_every_byte() {
        let mut bytes = Vec::new();
        binary(9, 1_000, &mut bytes);
        let of = |bytes: &[u8], step: usize| {
            let mut digest = Digest::default();
            bytes.chunks(step).for_each(|piece| digest.push(piece));
            digest.finish()
        };
        let whole = of(&bytes, 1_000);
        assert!([1, 3, 7, 8, 13, 999].iter().all(|step| of(&bytes, *step) == whole));
        for at in [0, 500, 999] {
            bytes[at] ^= 1;
            assert_ne!(of(&bytes, 1_000), whole);
            bytes[at] ^= 1;
        }
        assert_ne!(of(&bytes[..999], 1_000), whole);
        bytes.push(0);
        assert_ne!(of(&bytes, 1_000), whole);
    }
}
