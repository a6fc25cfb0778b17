//! A timer wheel: one entry per deadline, 8 bytes each, nothing per client beside it.
//!
//! Entries are not removed. A client remembers the tick of the entry that counts; any other that comes up for it is
//! stale and is dropped by the shard, as one of a client that is gone.

use crate::id::Slot;
use crate::limits::{TICK_MS, WHEEL_TICKS};

/// A point in time in steps of [`TICK_MS`] since the server's start; 32 bits last for six years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Tick(u32);

impl Tick {
    /// The tick that `now_ms` lies in.
    #[must_use]
    pub fn at(now_ms: u64) -> Self {
        Self((now_ms / TICK_MS) as u32)
    }

    /// The first tick that is at least `ms` later than any moment of this one, and never this one.
    #[must_use]
    pub fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.div_ceil(TICK_MS) as u32 + 1))
    }

    fn bucket(self) -> usize {
        self.0 as usize % WHEEL_TICKS
    }
}

/// Deadlines of one shard's clients.
#[derive(Debug)]
pub struct Wheel {
    buckets: Vec<Vec<(Slot, Tick)>>,
    /// All before this one were drained.
    next: Tick,
}

impl Wheel {
    /// An empty wheel that stands at `now`.
    #[must_use]
    pub fn new(now: Tick) -> Self {
        Self { buckets: vec![Vec::new(); WHEEL_TICKS], next: now }
    }

    /// Sets a deadline. One that is past comes up with the next [`Wheel::advance`].
    pub fn schedule(&mut self, slot: Slot, due: Tick) {
        let due = due.max(self.next);
        self.buckets[due.bucket()].push((slot, due));
    }

    /// Takes out what is due at `now` and appends it to `due`.
    pub fn advance(&mut self, now: Tick, due: &mut Vec<(Slot, Tick)>) {
        let steps = (now.0 + 1).saturating_sub(self.next.0).min(WHEEL_TICKS as u32);
        for step in 0..steps {
            let tick = Tick(now.0 - step);
            let bucket = std::mem::take(&mut self.buckets[tick.bucket()]);
            for entry in bucket {
                if entry.1 <= now {
                    due.push(entry);
                } else {
                    self.buckets[tick.bucket()].push(entry);
                }
            }
        }
        self.next = self.next.max(Tick(now.0 + 1));
    }

    /// Whether no deadline is set, stale ones included.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.iter().all(Vec::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due_at(wheel: &mut Wheel, now_ms: u64) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.advance(Tick::at(now_ms), &mut due);
        let mut slots: Vec<u32> = due.iter().map(|(slot, _)| slot.0).collect();
        slots.sort_unstable();
        slots
    }

    #[test]
    fn deadlines_come_up_when_they_are_due_and_once() {
        let mut wheel = Wheel::new(Tick::at(0));
        let round_ms = WHEEL_TICKS as u64 * TICK_MS;
        for (slot, ms) in [(1, 10), (2, 1_000), (3, 2 * round_ms + 500), (4, 1_000)] {
            wheel.schedule(Slot(slot), Tick::at(0).after(ms));
        }
        assert_eq!(due_at(&mut wheel, TICK_MS), [0; 0]);
        assert_eq!(due_at(&mut wheel, 2 * TICK_MS), [1]);
        assert_eq!(due_at(&mut wheel, 1_000), [0; 0]);
        assert_eq!(due_at(&mut wheel, 1_000 + TICK_MS), [2, 4]);
        assert_eq!(due_at(&mut wheel, 2 * round_ms), [0; 0]);
        assert_eq!(due_at(&mut wheel, 5 * round_ms), [3]);
        assert!(wheel.is_empty());
    }

    #[test]
    fn a_deadline_in_the_past_comes_up_next() {
        let mut wheel = Wheel::new(Tick::at(0));
        due_at(&mut wheel, 5_000);
        wheel.schedule(Slot(1), Tick::at(0).after(100));
        assert_eq!(due_at(&mut wheel, 5_000 + TICK_MS), [1]);
    }

    #[test]
    fn no_deadline_is_early() {
        for now_ms in 0..3 * TICK_MS {
            for ms in 0..3 * TICK_MS {
                let due_ms = u64::from(Tick::at(now_ms).after(ms).0) * TICK_MS;
                assert!((now_ms + ms..=now_ms + ms + 2 * TICK_MS).contains(&due_ms) && due_ms > now_ms);
            }
        }
    }
}
