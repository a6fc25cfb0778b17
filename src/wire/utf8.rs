//! UTF-8 that comes in pieces, so that bad text is found as it streams and not when it is complete.

/// The text was not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotUtf8;

/// Checks one text in pieces of any size; a character may be split between two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Utf8Stream {
    /// The first bytes of a character whose rest is still to come.
    open: [u8; 3],
    open_len: u8,
}

impl Utf8Stream {
    /// Takes the next piece.
    ///
    /// # Errors
    /// [`NotUtf8`] as soon as no continuation could make the text valid.
    pub fn push(&mut self, mut piece: &[u8]) -> Result<(), NotUtf8> {
        while self.open_len > 0 {
            let Some((&byte, rest)) = piece.split_first() else { return Ok(()) };
            self.push_open(byte)?;
            piece = rest;
        }
        match simdutf8::compat::from_utf8(piece) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_some() => Err(NotUtf8),
            Err(error) => {
                let tail = &piece[error.valid_up_to()..];
                self.open[..tail.len()].copy_from_slice(tail);
                self.open_len = tail.len() as u8;
                Ok(())
            }
        }
    }

    /// Says whether the text may end here.
    ///
    /// # Errors
    /// [`NotUtf8`] when a character is still open.
    pub fn finish(&self) -> Result<(), NotUtf8> {
        if self.open_len == 0 { Ok(()) } else { Err(NotUtf8) }
    }

    /// Adds a byte to the open character, which it may complete.
    fn push_open(&mut self, byte: u8) -> Result<(), NotUtf8> {
        let len = usize::from(self.open_len);
        let mut character = [0; 4];
        character[..len].copy_from_slice(&self.open[..len]);
        character[len] = byte;
        match std::str::from_utf8(&character[..=len]) {
            Ok(_) => self.open_len = 0,
            Err(error) if error.error_len().is_some() => return Err(NotUtf8),
            Err(_) => {
                self.open[len] = byte;
                self.open_len += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn streamed(bytes: &[u8], piece_len: usize) -> Result<(), NotUtf8> {
        let mut stream = Utf8Stream::default();
        bytes.chunks(piece_len).try_for_each(|piece| stream.push(piece))?;
        stream.finish()
    }

    proptest! {
        #[test]
        fn any_pieces_say_the_same_as_the_whole(
            mut text in "\\PC{0,40}".prop_map(String::into_bytes),
            hit in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
            piece_len in 1usize..6,
        ) {
            if let (Some((index, byte)), false) = (hit, text.is_empty()) {
                let at = index.index(text.len());
                text[at] = byte;
            }
            prop_assert_eq!(streamed(&text, piece_len).is_ok(), std::str::from_utf8(&text).is_ok());
        }
    }

    #[test]
    fn bad_text_is_found_at_once() {
        let mut stream = Utf8Stream::default();
        assert_eq!(stream.push(b"a\xf0\x9f"), Ok(()));
        assert_eq!(stream.push(b"x"), Err(NotUtf8));
        assert_eq!(Utf8Stream::default().push(b"\xed\xa0"), Err(NotUtf8), "half a surrogate");
    }
}
