//! What a client has yet to be sent: one contiguous buffer that small frames are merged in, and large shared bytes
//! that stand between its parts by reference. An empty outbox owns nothing.

use std::collections::VecDeque;
use std::io::IoSlice;

use arrayvec::ArrayVec;
use bytes::Bytes;

use crate::buffers::{Buffers, Exhausted, Transit};
use crate::limits::{COPY_MAX, GATHER_MAX};

/// Bytes as the kernel takes them in one gather write.
pub type Gathered<'a> = ArrayVec<IoSlice<'a>, GATHER_MAX>;

/// Shared bytes between two parts of the contiguous buffer.
#[derive(Debug)]
struct Shared {
    /// They come before this position of the buffer.
    at: usize,
    bytes: Bytes,
}

/// One client's outbox.
#[derive(Debug, Default)]
pub struct Outbox {
    buffer: Vec<u8>,
    /// Bytes of the buffer that were sent.
    sent: usize,
    /// In the order of their positions, which are at least `sent`.
    #[expect(clippy::box_collection, reason = "most outboxes never hold any, and there is one per client")]
    shared: Option<Box<VecDeque<Shared>>>,
    /// Sum of the shared bytes' lengths.
    shared_len: usize,
}

impl Outbox {
    /// Bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len() - self.sent + self.shared_len
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for `additional` contiguous bytes, which [`Outbox::append`] then adds without growing.
    ///
    /// # Errors
    /// [`Exhausted`]: nothing has changed.
    pub fn reserve(&mut self, additional: usize, buffers: &mut Buffers) -> Result<(), Exhausted> {
        let free = self.buffer.capacity() - self.buffer.len();
        if self.sent > 0 && free < additional {
            self.drop_sent();
        }
        buffers.reserve(&mut self.buffer, additional)
    }

    /// Appends bytes that room was made for.
    pub fn append(&mut self, bytes: &[u8]) {
        debug_assert!(self.buffer.capacity() - self.buffer.len() >= bytes.len(), "room was made");
        self.buffer.extend_from_slice(bytes);
    }

    /// Appends shared bytes: copied if they are short, else kept by reference.
    ///
    /// # Errors
    /// [`Exhausted`]: nothing was appended.
    pub fn append_shared(&mut self, transit: &Transit, buffers: &mut Buffers) -> Result<(), Exhausted> {
        let bytes = transit.bytes();
        if bytes.len() <= COPY_MAX {
            self.reserve(bytes.len(), buffers)?;
            self.append(bytes);
            return Ok(());
        }
        buffers.charge(bytes.len())?;
        self.shared_len += bytes.len();
        let shared = Shared { at: self.buffer.len(), bytes: bytes.clone() };
        self.shared.get_or_insert_default().push_back(shared);
        Ok(())
    }

    /// The first bytes that wait, as many as one gather write takes.
    #[must_use]
    pub fn gather(&self) -> Gathered<'_> {
        let mut gathered = Gathered::new();
        let mut at = self.sent;
        for shared in self.shared.iter().flat_map(|shared| shared.iter()) {
            if gathered.remaining_capacity() < 2 {
                return gathered;
            }
            push_piece(&mut gathered, &self.buffer[at..shared.at]);
            push_piece(&mut gathered, &shared.bytes);
            at = shared.at;
        }
        if !gathered.is_full() {
            push_piece(&mut gathered, &self.buffer[at..]);
        }
        gathered
    }

    /// The first `count` bytes were sent.
    pub fn consume(&mut self, mut count: usize, buffers: &mut Buffers) {
        debug_assert!(count <= self.len(), "more sent than was there");
        while count > 0 {
            let next_shared = self.shared.as_mut().and_then(|shared| shared.front_mut());
            let contiguous_end = next_shared.as_ref().map_or(self.buffer.len(), |shared| shared.at);
            let contiguous = count.min(contiguous_end - self.sent);
            self.sent += contiguous;
            count -= contiguous;
            let (Some(front), true) = (next_shared, count > 0) else { continue };
            let taken = count.min(front.bytes.len());
            count -= taken;
            self.consume_shared(taken, buffers);
        }
        if self.is_empty() {
            self.release(buffers);
        }
    }

    /// Drops everything that waits.
    pub fn release(&mut self, buffers: &mut Buffers) {
        buffers.refund(self.shared_len);
        buffers.release(std::mem::take(&mut self.buffer));
        *self = Self::default();
    }

    fn consume_shared(&mut self, count: usize, buffers: &mut Buffers) {
        let Some(shared) = &mut self.shared else { return };
        let Some(front) = shared.front_mut() else { return };
        let _ = front.bytes.split_to(count);
        if front.bytes.is_empty() {
            shared.pop_front();
        }
        self.shared_len -= count;
        buffers.refund(count);
    }

    /// Moves what waits to the front of the buffer.
    fn drop_sent(&mut self) {
        self.buffer.drain(..self.sent);
        for shared in self.shared.iter_mut().flat_map(|shared| shared.iter_mut()) {
            shared.at -= self.sent;
        }
        self.sent = 0;
    }
}

fn push_piece<'a>(gathered: &mut Gathered<'a>, piece: &'a [u8]) {
    if !piece.is_empty() {
        gathered.push(IoSlice::new(piece));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_out_in_order_however_they_are_sent(
            steps in proptest::collection::vec(
                prop_oneof![
                    (1usize..2_000).prop_map(|len| (0, len)),
                    (1usize..3 * COPY_MAX).prop_map(|len| (1, len)),
                    (0usize..6_000).prop_map(|len| (2, len)),
                ],
                0..60),
        ) {
            let mut buffers = Buffers::new(1 << 24);
            let (mut outbox, mut expected, mut sent) = (Outbox::default(), Vec::new(), Vec::new());
            let mut next = 0u8;
            let mut send = |outbox: &mut Outbox, buffers: &mut Buffers, most: usize| {
                let bytes: Vec<u8> = outbox.gather().iter().flat_map(|piece| piece.to_vec()).take(most).collect();
                outbox.consume(bytes.len(), buffers);
                sent.extend_from_slice(&bytes);
                bytes.len()
            };
            for (what, len) in steps {
                let bytes: Vec<u8> = (0..len).map(|_| { next = next.wrapping_add(1); next }).collect();
                match what {
                    0 => {
                        outbox.reserve(len, &mut buffers).expect("fits");
                        outbox.append(&bytes);
                        expected.extend_from_slice(&bytes);
                    }
                    1 => {
                        expected.extend_from_slice(&bytes);
                        let transit = buffers.transit(bytes.into()).expect("fits");
                        outbox.append_shared(&transit, &mut buffers).expect("fits");
                    }
                    _ => { send(&mut outbox, &mut buffers, len); }
                }
                prop_assert!(outbox.gather().len() <= GATHER_MAX);
            }
            while send(&mut outbox, &mut buffers, usize::MAX) > 0 {}
            prop_assert_eq!(sent, expected);
            prop_assert!(outbox.is_empty());
            buffers.settle();
            prop_assert_eq!(buffers.used_bytes(), 0);
        }
    }
}
