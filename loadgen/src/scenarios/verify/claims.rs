//! What clients were told of a death that the generator had not seen yet: a host that stops tells the others at once, and
//! these may be heard before its own clients are.

use std::time::{Duration, Instant};

/// So soon it must be seen.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

/// What is not seen yet, and since when.
#[derive(Debug)]
pub(super) struct Claims<T>(Vec<(Instant, T)>);

impl<T> Default for Claims<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Claims<T> {
    /// A client was told so.
    pub(super) fn note(&mut self, now: Instant, claim: T) {
        self.0.push((now, claim));
    }

    /// Forgets what turned out to be true; returns what should have by now and did not.
    pub(super) fn settle(&mut self, now: Instant, is_true: impl Fn(&T) -> bool) -> Option<T> {
        self.0.retain(|(_, claim)| !is_true(claim));
        let is_late = |(since, _): &(Instant, T)| now.saturating_duration_since(*since) > SEEN_WITHIN;
        let late = self.0.iter().position(is_late)?;
        Some(self.0.swap_remove(late).1)
    }

    /// The same when all is over.
    pub(super) fn finish(&mut self, is_true: impl Fn(&T) -> bool) -> Option<T> {
        self.0.retain(|(_, claim)| !is_true(claim));
        self.0.pop().map(|(_, claim)| claim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_must_turn_out_to_be_true_in_time() {
        let mut claims = Claims::default();
        let start = Instant::now();
        claims.note(start, "true");
        claims.note(start, "a lie");
        let is_true = |claim: &&str| *claim == "true";
        assert_eq!(claims.settle(start + SEEN_WITHIN, is_true), None);
        assert_eq!(claims.settle(start + SEEN_WITHIN + Duration::from_millis(1), is_true), Some("a lie"));
        assert_eq!(claims.finish(is_true), None);
        claims.note(start, "another lie");
        assert_eq!(claims.finish(is_true), Some("another lie"));
    }
}
