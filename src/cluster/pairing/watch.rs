//! Waiters that somebody has taken: who is not matched soon waits anew.

use std::collections::{BTreeMap, VecDeque};

use crate::id::ClientId;
use crate::limits::PAIRING_MATCH_MS;
use crate::protocol::pairing::Waiter;

/// A waiter that the queue has forgotten.
#[derive(Debug)]
struct Watched {
    waiter: Waiter,
    until_ms: u64,
    /// It is not known who has it.
    is_missing: bool,
}

/// All of them, by client, and in the order of their times.
#[derive(Debug, Default)]
pub(super) struct Watch {
    watched: BTreeMap<ClientId, Watched>,
    order: VecDeque<(u64, ClientId)>,
}

impl Watch {
    /// Somebody has this one; `is_missing`: not one of our hosts, as far as is known.
    pub(super) fn add(&mut self, waiter: Waiter, is_missing: bool, now_ms: u64) {
        let until_ms = now_ms + PAIRING_MATCH_MS;
        self.order.push_back((until_ms, waiter.client));
        self.watched.insert(waiter.client, Watched { waiter, until_ms, is_missing });
    }

    /// Takes one that was missing, since it has turned up.
    pub(super) fn take_missing(&mut self, client: ClientId) -> Option<Waiter> {
        if self.watched.get(&client)?.is_missing { self.take(client) } else { None }
    }

    /// The next one that was not matched in time, or was, and whose shard knows better; and whether it is missing.
    pub(super) fn poll_expired(&mut self, now_ms: u64) -> Option<(Waiter, bool)> {
        while let Some((until_ms, client)) =
            self.order.front().copied().filter(|(until_ms, _)| *until_ms <= now_ms)
        {
            self.order.pop_front();
            if self.watched.get(&client).is_some_and(|watched| watched.until_ms == until_ms) {
                let watched = self.watched.remove(&client);
                return watched.map(|watched| (watched.waiter, watched.is_missing));
            }
        }
        None
    }

    fn take(&mut self, client: ClientId) -> Option<Waiter> {
        self.watched.remove(&client).map(|watched| watched.waiter)
    }
}
