//! How much a client may send where the dialect has a limit that no setting raises.

use std::cell::RefCell;
use std::collections::VecDeque;

const SECOND_NS: u64 = 1_000_000_000;

/// So many messages in any second.
#[derive(Debug)]
pub(super) struct Budget {
    per_s: u32,
    sent_ns: RefCell<VecDeque<u64>>,
}

impl Budget {
    pub(super) fn new(per_s: u32) -> Self {
        Self { per_s, sent_ns: RefCell::default() }
    }

    /// Whether one more may be sent now; it counts as sent then.
    pub(super) fn take(&self, now_ns: u64) -> bool {
        let mut sent_ns = self.sent_ns.borrow_mut();
        while sent_ns.front().is_some_and(|sent| sent + SECOND_NS <= now_ns) {
            sent_ns.pop_front();
        }
        let free = sent_ns.len() < self.per_s as usize;
        if free {
            sent_ns.push_back(now_ns);
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_has_more_than_it_may() {
        let budget = Budget::new(2);
        let times = [0, 1, 2, SECOND_NS - 1, SECOND_NS, SECOND_NS + 1, SECOND_NS + 2];
        let taken: Vec<_> = times.into_iter().filter(|now_ns| budget.take(*now_ns)).collect();
        assert_eq!(taken, [0, 1, SECOND_NS, SECOND_NS + 1]);
    }
}
