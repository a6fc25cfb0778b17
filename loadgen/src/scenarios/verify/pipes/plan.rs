//! What each end sends: all of it follows from which stream it is, so that the other end knows it.

use std::fmt;

use crate::prng::Prng;
use crate::scenarios::content;

/// Bytes of a block of a raw stream.
pub(super) const BLOCK_BYTES: usize = 4_096;

/// Which stream: of which pipe, and which of its ends sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamId {
    /// Number of the pair.
    pub(super) pair: u32,
    /// Pipes of the pair before this one.
    pub(super) cycle: u32,
    /// The end that sends: the first, the second, or one that is not a part of the pipe.
    pub(super) end: u8,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<pipe {:08x} {:08x} {}>", self.pair, self.cycle, self.end)
    }
}

impl StreamId {
    /// Length of its name in bytes.
    const NAME_LEN: usize = 26;

    fn seed(self) -> u64 {
        let place = u64::from(self.pair) << 32 | u64::from(self.cycle);
        content::mixed(content::mixed(place) ^ u64::from(self.end))
    }

    fn chance(self, what: u64) -> Prng {
        Prng::from_seed(content::mixed(self.seed() ^ content::mixed(what)))
    }

    /// The stream whose name stands in these bytes, if it is another one.
    pub(super) fn foreign_in(self, bytes: &[u8]) -> Option<String> {
        let names = memchr::memmem::find_iter(bytes, b"<pipe ");
        let own = self.to_string();
        let name = |at: usize| {
            String::from_utf8_lossy(&bytes[at..bytes.len().min(at + Self::NAME_LEN)]).into_owned()
        };
        names.map(name).find(|name| name.ends_with('>') && *name != own)
    }
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedMessage {
    pub(super) is_text: bool,
    pub(super) payload: Vec<u8>,
    /// Where its frames end; the last of them with the message.
    pub(super) frame_ends: Vec<usize>,
}

/// The messages of a WebSocket end.
#[derive(Debug, Clone, Copy)]
pub(super) struct FramePlan {
    pub(super) stream: StreamId,
    /// How many there are.
    pub(super) messages: u32,
}

impl FramePlan {
    pub(super) fn new(stream: StreamId) -> Self {
        Self { stream, messages: 2 + stream.chance(u64::MAX).below(100) }
    }

    /// A message: text or binary, of no byte or of a MiB and more, in one frame or in several.
    pub(super) fn message(&self, number: u32) -> PlannedMessage {
        let chance = self.stream.chance(u64::from(number));
        let is_text = chance.below(2) == 0;
        let len_max = match chance.below(100) {
            0..10 => 1,
            10..60 => 200,
            60..90 => 20_000,
            90..99 => 200_000,
            _ => 1_500_000,
        };
        let len = chance.below(len_max) as usize;
        let mut payload = Vec::with_capacity(len);
        if len >= StreamId::NAME_LEN {
            payload.extend_from_slice(self.stream.to_string().as_bytes());
        }
        let (seed, rest) = (chance.next_u64(), len - payload.len());
        if is_text {
            content::text(seed, rest, &mut payload);
        } else {
            content::binary(seed, rest, &mut payload);
        }
        let cuts = if chance.below(10) < 6 { 0 } else { 1 + chance.below(5) };
        let mut frame_ends: Vec<_> = (0..cuts).map(|_| chance.below(len as u32 + 1) as usize).collect();
        frame_ends.push(len);
        frame_ends.sort_unstable();
        PlannedMessage { is_text, payload, frame_ends }
    }
}

/// The bytes of a raw end.
#[derive(Debug, Clone, Copy)]
pub(super) struct BytePlan {
    pub(super) stream: StreamId,
    /// How many there are.
    pub(super) bytes: u64,
}

impl BytePlan {
    pub(super) fn new(stream: StreamId) -> Self {
        let chance = stream.chance(u64::MAX);
        let bytes_max = [1, 200, 20_000, 200_000, 4_000_000][chance.below(5) as usize];
        Self { stream, bytes: u64::from(chance.below(bytes_max + 1)) }
    }

    /// A block; the last one is shorter.
    pub(super) fn block(&self, number: u64) -> Vec<u8> {
        let left = self.bytes.saturating_sub(number * BLOCK_BYTES as u64);
        let len = left.min(BLOCK_BYTES as u64) as usize;
        let mut block = Vec::with_capacity(len);
        if len >= StreamId::NAME_LEN {
            block.extend_from_slice(self.stream.to_string().as_bytes());
        }
        let rest = len - block.len();
        content::binary(self.stream.seed().wrapping_add(number), rest, &mut block);
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamId = StreamId { pair: 3, cycle: 7, end: 1 };

    #[test]
    fn plans_follow_from_the_stream() {
        let plan = FramePlan::new(STREAM);
        let other = FramePlan::new(StreamId { end: 0, ..STREAM });
        assert!((0..50).all(|number| plan.message(number) == FramePlan::new(STREAM).message(number)));
        assert!((0..50).any(|number| plan.message(number) != other.message(number)));
        let bytes = BytePlan { stream: STREAM, bytes: 10_000 };
        let lens: Vec<_> = (0..4).map(|number| bytes.block(number).len()).collect();
        assert_eq!(lens, [BLOCK_BYTES, BLOCK_BYTES, 10_000 - 2 * BLOCK_BYTES, 0]);
    }

    #[test]
    fn messages_are_of_all_kinds() {
        let messages: Vec<_> = (0..2_000).map(|number| FramePlan::new(STREAM).message(number)).collect();
        let some = |is: fn(&PlannedMessage) -> bool| messages.iter().any(is);
        assert!(some(|message| message.is_text) && some(|message| !message.is_text));
        assert!(
            some(|message| message.payload.is_empty()) && some(|message| message.payload.len() > 1_000_000)
        );
        assert!(
            some(|message| message.frame_ends.len() == 1) && some(|message| message.frame_ends.len() > 4)
        );
        for message in &messages {
            assert_eq!(message.frame_ends.last(), Some(&message.payload.len()));
            assert!(!message.is_text || std::str::from_utf8(&message.payload).is_ok());
        }
    }

    #[test]
    fn another_stream_s_name_is_found() {
        assert_eq!(STREAM.to_string().len(), StreamId::NAME_LEN);
        let other = StreamId { cycle: 8, ..STREAM }.to_string();
        let bytes = format!("xx{STREAM}yy{other}zz");
        assert_eq!(STREAM.foreign_in(bytes.as_bytes()), Some(other));
        assert_eq!(STREAM.foreign_in(STREAM.to_string().as_bytes()), None);
        assert_eq!(STREAM.foreign_in(b"<pipe "), None);
    }
}
