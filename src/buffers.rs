//! A shard's buffers: one budget that all of them draw on, and a small pool so that the steady state allocates
//! nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::limits::{BUFFER_BYTES_MIN, POOLED_BUFFER_BYTES_MAX, POOLED_BUFFERS_MAX};

/// The budget would be passed; who asked is closed 1013 `server busy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted;

/// Budget and pool of one shard.
#[derive(Debug)]
pub struct Buffers {
    /// Bytes handed out: the capacities of all buffers in use, and what was charged beside them.
    used_bytes: usize,
    max_bytes: usize,
    /// Empty buffers of [`BUFFER_BYTES_MIN`] to [`POOLED_BUFFER_BYTES_MAX`] bytes; not part of `used_bytes`.
    pool: Vec<Vec<u8>>,
    /// The fewest buffers that were in the pool since the last [`Buffers::trim`]: nobody needed those.
    idle: usize,
    /// Bytes of [`Transit`]s that were let go of since the last [`Buffers::settle`], by whatever shard.
    returned: Arc<AtomicUsize>,
}

/// Shared bytes, charged to the budget that they were made on until they are let go of, on whatever shard.
#[derive(Debug)]
pub struct Transit {
    bytes: Bytes,
    returned: Arc<AtomicUsize>,
}

impl Transit {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Drop for Transit {
    fn drop(&mut self) {
        self.returned.fetch_add(self.bytes.len(), Ordering::Relaxed);
    }
}

impl Buffers {
    /// A budget of `max_bytes`, all of it free.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self { used_bytes: 0, max_bytes, pool: Vec::new(), idle: 0, returned: Arc::default() }
    }

    /// Bytes in use.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// Makes room in `buffer` for `additional` more bytes, from the pool if it has no memory yet. The capacity is
    /// charged; give it back with [`Buffers::release`].
    ///
    /// # Errors
    /// [`Exhausted`] when the budget does not allow it; `buffer` is then as it was.
    pub fn reserve(&mut self, buffer: &mut Vec<u8>, additional: usize) -> Result<(), Exhausted> {
        if buffer.capacity() - buffer.len() >= additional {
            return Ok(());
        }
        if buffer.capacity() == 0 && self.take_pooled(buffer, additional) {
            return Ok(());
        }
        let needed = buffer.len().checked_add(additional).ok_or(Exhausted)?;
        let capacity = needed.max(buffer.capacity().saturating_mul(2)).max(BUFFER_BYTES_MIN);
        self.grow(buffer, capacity).or_else(|Exhausted| self.grow(buffer, needed))
    }

    /// Takes a buffer back: its memory is used again or freed.
    pub fn release(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity == 0 {
            return;
        }
        self.refund(capacity);
        let fits = (BUFFER_BYTES_MIN..=POOLED_BUFFER_BYTES_MAX).contains(&capacity);
        if fits && self.pool.len() < POOLED_BUFFERS_MAX {
            buffer.clear();
            self.pool.push(buffer);
        }
    }

    /// Charges bytes that live elsewhere (shared bytes in an outbox, mail that waits).
    ///
    /// # Errors
    /// [`Exhausted`] when the budget does not allow it; nothing is charged then.
    pub fn charge(&mut self, bytes: usize) -> Result<(), Exhausted> {
        if bytes > self.max_bytes.saturating_sub(self.used_bytes) {
            self.settle();
            if bytes > self.max_bytes.saturating_sub(self.used_bytes) {
                return Err(Exhausted);
            }
        }
        self.used_bytes += bytes;
        Ok(())
    }

    /// Charges bytes that cannot be refused (mail that must not be lost); the budget may be passed by them, and
    /// everybody else is then refused until they are gone.
    pub fn charge_always(&mut self, bytes: usize) {
        self.used_bytes += bytes;
    }

    /// Gives back what was charged.
    pub fn refund(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.used_bytes, "more given back than taken");
        self.used_bytes = self.used_bytes.saturating_sub(bytes);
    }

    /// Charges bytes that leave for another shard, until they are let go of there.
    ///
    /// # Errors
    /// [`Exhausted`] when the budget does not allow it.
    pub fn transit(&mut self, bytes: Bytes) -> Result<Transit, Exhausted> {
        self.charge(bytes.len())?;
        Ok(Transit { bytes, returned: Arc::clone(&self.returned) })
    }

    /// As [`Buffers::transit`], for bytes that cannot be refused.
    pub fn transit_always(&mut self, bytes: Bytes) -> Transit {
        self.charge_always(bytes.len());
        Transit { bytes, returned: Arc::clone(&self.returned) }
    }

    /// Takes note of what other shards have let go of.
    pub fn settle(&mut self) {
        let returned = self.returned.swap(0, Ordering::Relaxed);
        self.refund(returned);
    }

    /// Frees half of the pooled buffers that nobody needed since the last call. Called now and then, so that a
    /// burst does not keep its memory.
    pub fn trim(&mut self) {
        let surplus = self.idle.div_ceil(2);
        self.pool.truncate(self.pool.len() - surplus);
        if self.pool.is_empty() {
            self.pool = Vec::new();
        }
        self.idle = self.pool.len();
    }

    fn take_pooled(&mut self, buffer: &mut Vec<u8>, additional: usize) -> bool {
        let Some(pooled) = self.pool.pop_if(|pooled| pooled.capacity() >= additional) else { return false };
        self.idle = self.idle.min(self.pool.len());
        if self.charge(pooled.capacity()).is_err() {
            return false;
        }
        *buffer = pooled;
        true
    }

    fn grow(&mut self, buffer: &mut Vec<u8>, capacity: usize) -> Result<(), Exhausted> {
        let before = buffer.capacity();
        self.charge(capacity - before)?;
        buffer.reserve_exact(capacity - buffer.len());
        // The allocator may give more than was asked for; what is charged is what is there.
        self.charge_always(buffer.capacity() - capacity);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_out_is_charged_and_comes_back() {
        let mut buffers = Buffers::new(10_000);
        let mut buffer = Vec::new();
        buffers.reserve(&mut buffer, 100).expect("fits");
        assert!(buffer.capacity() >= 100);
        assert_eq!(buffers.used_bytes(), buffer.capacity());
        buffer.resize(100, 1);
        buffers.reserve(&mut buffer, 5_000).expect("fits");
        assert_eq!(buffers.used_bytes(), buffer.capacity());
        buffers.release(buffer);
        assert_eq!(buffers.used_bytes(), 0);
    }

    #[test]
    fn over_the_budget_nothing_changes() {
        let mut buffers = Buffers::new(1_000);
        let mut buffer = Vec::new();
        buffers.reserve(&mut buffer, 600).expect("fits");
        buffer.resize(600, 1);
        let capacity = buffer.capacity();
        assert_eq!(buffers.reserve(&mut buffer, 600), Err(Exhausted));
        assert_eq!((buffer.len(), buffer.capacity(), buffers.used_bytes()), (600, capacity, capacity));
        assert_eq!(buffers.reserve(&mut buffer, 400), Ok(()), "doubling does not fit, the exact size does");
    }

    #[test]
    fn a_released_buffer_is_used_again() {
        let mut buffers = Buffers::new(10_000);
        let mut first = Vec::new();
        buffers.reserve(&mut first, 600).expect("fits");
        first.push(1);
        let address = first.as_ptr();
        buffers.release(first);
        let mut second = Vec::new();
        buffers.reserve(&mut second, 10).expect("fits");
        assert_eq!((second.as_ptr(), second.len()), (address, 0));
    }

    #[test]
    fn trimming_frees_what_nobody_needs() {
        let mut buffers = Buffers::new(1 << 20);
        let mut taken: Vec<Vec<u8>> = vec![Vec::new(); 64];
        taken.iter_mut().for_each(|buffer| buffers.reserve(buffer, 10).expect("fits"));
        taken.into_iter().for_each(|buffer| buffers.release(buffer));
        buffers.trim();
        for _ in 0..8 {
            buffers.trim();
        }
        assert_eq!(buffers.pool.capacity(), 0);
    }
}
