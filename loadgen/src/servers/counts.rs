//! What a server counts, as its `/metrics` says.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::net::get::get;
use crate::net::target::Target;

/// What is read, by its name between `parlor_` and `_total`, and what it is for people.
pub(super) const COUNTERS: [(&str, &str); 13] = [
    (RECEIVED, "messages received"),
    (MATCHED, "clients told of a match"),
    (COMMANDS, "Redis commands"),
    ("redis_replies_failed", "Redis commands that failed"),
    ("redis_publishes", "Redis publishes"),
    ("redis_pushes", "Redis messages that came in"),
    ("redis_bytes_sent", "bytes to Redis"),
    ("redis_bytes_received", "bytes from Redis"),
    ("redis_reconnects", "connections to Redis lost"),
    ("letters_sent", "letters sent"),
    ("letters_received", "letters received"),
    ("letters_dropped", "letters dropped"),
    ("relations_ended", "relations to hosts ended"),
];
/// Messages that clients sent to this host.
pub(super) const RECEIVED: &str = "messages_received";
/// Clients of this host that were told of a match: each match tells two.
pub(super) const MATCHED: &str = "matches";
/// Commands that this host sent to Redis.
pub(super) const COMMANDS: &str = "redis_commands";

/// Counters by their name. Those that the server does not have are missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    /// What this server says; none where it does not tell.
    pub(super) fn of(target: &Target) -> Option<Self> {
        get(target, "/metrics").ok().map(|page| Self::parse(&page))
    }

    pub(super) fn parse(page: &str) -> Self {
        let count =
            |(name, _): &(&'static str, &str)| Some((*name, value(page, &format!("parlor_{name}_total"))?));
        Self(COUNTERS.iter().filter_map(count).collect())
    }

    /// One counter.
    pub(super) fn of_name(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// Whether the server has a Redis.
    pub(super) fn has_redis(&self) -> bool {
        self.0.contains_key(COMMANDS)
    }

    /// How much each counter grew; one that began anew counts from there.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let grown = |(name, value): (&&'static str, &u64)| {
            let before = earlier.of_name(name).unwrap_or(0);
            (*name, value.checked_sub(before).unwrap_or(*value))
        };
        Self(self.0.iter().map(grown).collect())
    }

    /// Adds another host's counters.
    pub(super) fn add(&mut self, other: &Self) {
        for (name, value) in &other.0 {
            *self.0.entry(name).or_default() += value;
        }
    }
}

/// The value of a metric without labels in Prometheus' text.
pub(super) fn value(page: &str, name: &str) -> Option<u64> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    page.lines().find_map(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP parlor_redis_commands_total Commands sent to Redis.\n\
                        # TYPE parlor_redis_commands_total counter\n\
                        parlor_redis_commands_total 12\n\
                        parlor_messages_received_total 5\n\
                        parlor_hosts 2\n";

    #[test]
    fn counters_are_found_in_the_page() {
        let counts = Counts::parse(PAGE);
        assert_eq!((counts.of_name(COMMANDS), counts.of_name(RECEIVED)), (Some(12), Some(5)));
        assert!(counts.has_redis() && counts.of_name("letters_sent").is_none());
        assert_eq!((value(PAGE, "parlor_hosts"), value(PAGE, "parlor")), (Some(2), None));
        assert_eq!(Counts::parse("<html>404</html>"), Counts::default());
    }

    #[test]
    fn growth_is_summed_over_hosts_and_a_new_start_counts_from_zero() {
        let of = |count| Counts(BTreeMap::from([(COMMANDS, count)]));
        let mut sum = of(20).since(&of(12));
        assert_eq!(sum.of_name(COMMANDS), Some(8));
        sum.add(&of(3).since(&of(12)));
        assert_eq!(sum.of_name(COMMANDS), Some(11));
    }
}
