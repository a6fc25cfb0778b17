//! The stamp inside a message that tells who sent it and when.
//!
//! A stamp sits inside the opaque value, where the JSON stays valid and the body stays what it claims to be: as an
//! extension attribute of a candidate (RFC 8839 section 5.1, `… x-stamp <hex>`) or as the last attribute line of a
//! session description (`a=x-stamp:<hex>`).

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// Name of the attribute that carries a stamp; one separator and the digits follow.
pub(super) const MARKER: &str = "x-stamp";
pub(super) static MARKER_FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(MARKER));

/// Sequence number and time of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Which client sent it.
    pub(crate) sender: u32,
    /// Messages of that client before it.
    pub(crate) sequence: u32,
    /// When it was sent, or should have been, in nanoseconds of the run's clock.
    pub(crate) time_ns: u64,
}

impl Stamp {
    /// Hexadecimal digits of a stamp.
    pub(crate) const LEN: usize = 32;

    /// Writes the digits over `out`.
    pub(crate) fn write(self, out: &mut [u8]) {
        write_hex(u64::from(self.sender) << 32 | u64::from(self.sequence), &mut out[..16]);
        write_hex(self.time_ns, &mut out[16..Self::LEN]);
    }

    /// The stamp inside a message, if there is one.
    pub(crate) fn find(message: &[u8]) -> Option<Self> {
        let start = MARKER_FINDER.find(message)? + MARKER.len() + 1;
        Self::read(message.get(start..start + Self::LEN)?)
    }

    /// The stamp that these digits are.
    pub(crate) fn read(digits: &[u8]) -> Option<Self> {
        let who = read_hex(digits.get(..16)?)?;
        let time_ns = read_hex(digits.get(16..Self::LEN)?)?;
        Some(Self { sender: (who >> 32) as u32, sequence: who as u32, time_ns })
    }
}

fn write_hex(number: u64, out: &mut [u8]) {
    for (index, digit) in out.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * index)) as usize & 0xf];
    }
}

fn read_hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_stamp_is_found_where_none_is() {
        assert_eq!(Stamp::find(br#"{"type":"ready","clientId":"x"}"#), None);
        assert_eq!(Stamp::find(b"x-stamp 00"), None);
        assert_eq!(Stamp::find(b"x-stamp 0000000000000000000000000000000g"), None);
        assert_eq!(Stamp::read(b"00"), None);
    }

    #[test]
    fn what_is_written_is_read() {
        let stamp = Stamp { sender: 7, sequence: u32::MAX, time_ns: 0x0123_4567_89ab_cdef };
        let mut digits = [0; Stamp::LEN];
        stamp.write(&mut digits);
        assert_eq!(Stamp::read(&digits), Some(stamp));
    }
}
