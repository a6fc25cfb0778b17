//! A cheap generator for mask keys and chance: xorshift64*, not for secrets.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// A generator of one thread.
#[derive(Debug)]
pub(crate) struct Prng {
    state: Cell<u64>,
}

impl Prng {
    /// A generator that starts anywhere.
    pub(crate) fn from_entropy() -> Self {
        Self::from_seed(RandomState::new().hash_one(0u64))
    }

    /// A generator that starts at `seed`.
    pub(crate) fn from_seed(seed: u64) -> Self {
        Self { state: Cell::new(seed | 1) }
    }

    /// The next 64 bits.
    pub(crate) fn next_u64(&self) -> u64 {
        let mut state = self.state.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.state.set(state);
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// The next 32 bits.
    pub(crate) fn next_u32(&self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&self, bound: u32) -> u32 {
        ((u64::from(self.next_u32()) * u64::from(bound)) >> 32) as u32
    }

    /// Whether something of this probability happens.
    pub(crate) fn chance(&self, probability: f64) -> bool {
        f64::from(self.next_u32()) < probability * 4_294_967_296.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_below_their_bound_and_chances_are_about_right() {
        let prng = Prng::from_seed(7);
        assert!((0..1000).all(|_| prng.below(5) < 5));
        let hits = (0..10_000).filter(|_| prng.chance(0.25)).count();
        assert!((2_200..2_800).contains(&hits), "{hits}");
        assert!(!prng.chance(0.0) && prng.chance(1.0));
    }
}
