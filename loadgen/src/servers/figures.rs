//! The figures of each host, where there are several or a Redis.

use serde::Serialize;

use super::counts::{COMMANDS, COUNTERS, Counts, MATCHED, RECEIVED};
use super::{Servers, Spent};
use crate::report::Row;
use crate::scenarios::run::ratio;

/// What the hosts spent. With one host and no Redis there is nothing to tell that is not told already.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct HostsFigures {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<HostFigures>,
    /// All hosts together.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<RedisFigures>,
}

#[derive(Debug, Clone, Serialize)]
struct HostFigures {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_ms: Option<f64>,
    /// Messages that clients sent to this host, per second of its CPU time.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_messages_per_cpu_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_bytes_per_client: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_rss_growth_bytes: Option<u64>,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Debug, Clone, Serialize)]
struct RedisFigures {
    #[serde(flatten)]
    counts: Counts,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_commands_per_message: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_commands_per_match: Option<f64>,
}

impl HostsFigures {
    /// The figures of an interval in which clients got so many messages from each other.
    pub(crate) fn new(servers: &Servers, spent: &Spent, messages: u64) -> Self {
        let has_redis = |counts: &Counts| counts.has_redis();
        let is_told = spent.hosts.len() > 1
            || spent.hosts.iter().filter_map(|host| host.counts.as_ref()).any(has_redis);
        if !is_told {
            return Self::default();
        }
        let urls = servers.targets.all().iter().map(|target| target.url.to_string());
        let hosts = urls.zip(&spent.hosts).map(|(url, host)| {
            let counts = host.counts.clone().unwrap_or_default();
            let received = counts.of_name(RECEIVED).map(|count| count as f64);
            HostFigures {
                url,
                server_cpu_ms: host.cpu_ns.map(|ns| ns as f64 / 1e6),
                server_messages_per_cpu_s: received
                    .zip(host.cpu_ns)
                    .map(|(messages, ns)| ratio(messages, ns as f64 / 1e9)),
                server_bytes_per_client: None,
                server_rss_growth_bytes: None,
                counts,
            }
        });
        let redis = sum(spent).filter(has_redis).map(|counts| RedisFigures {
            redis_commands_per_message: per(&counts, messages as f64),
            redis_commands_per_match: matches(&counts).and_then(|matches| per(&counts, matches)),
            counts,
        });
        Self { hosts: hosts.collect(), redis }
    }

    /// Matches are those of this interval.
    pub(crate) fn with_matches_of(mut self, spent: &Spent) -> Self {
        if let (Some(redis), Some(counts)) = (&mut self.redis, sum(spent)) {
            redis.redis_commands_per_match = matches(&counts).and_then(|matches| per(&counts, matches));
        }
        self
    }

    /// What each client costs on each host.
    pub(crate) fn with_memory(mut self, bytes_per_client: &[f64]) -> Self {
        for (host, bytes) in self.hosts.iter_mut().zip(bytes_per_client) {
            host.server_bytes_per_client = Some(*bytes);
        }
        self
    }

    /// All memory of each host that is in RAM: at first, and at its worst.
    pub(crate) fn with_rss_growth(mut self, before: &[u64], worst: &[u64]) -> Self {
        for (host, (before, worst)) in self.hosts.iter_mut().zip(before.iter().zip(worst)) {
            host.server_rss_growth_bytes = Some(worst.saturating_sub(*before));
        }
        self
    }

    /// The lines of the table.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<_> = self.hosts.iter().flat_map(HostFigures::rows).collect();
        let Some(redis) = &self.redis else { return rows };
        if self.hosts.len() > 1 {
            rows.push(Row::text("all hosts", ""));
            rows.extend(count_rows(&redis.counts));
        }
        let derived = [
            ("  Redis commands per message", redis.redis_commands_per_message),
            ("  Redis commands per match", redis.redis_commands_per_match),
        ];
        rows.extend(derived.into_iter().filter_map(|(what, value)| Some(Row::quantity(what, value?, ""))));
        rows
    }
}

impl HostFigures {
    fn rows(&self) -> Vec<Row> {
        let optional = [
            ("  server CPU", self.server_cpu_ms, "ms"),
            ("  messages received per CPU second", self.server_messages_per_cpu_s.filter(|n| *n > 0.0), "/s"),
            ("  server memory per client", self.server_bytes_per_client, "B"),
        ];
        let mut rows = vec![Row::text(&format!("host {}", self.url), "")];
        let row = |(what, value, unit): (&str, Option<f64>, _)| Some(Row::quantity(what, value?, unit));
        rows.extend(optional.into_iter().filter_map(row));
        let growth = self.server_rss_growth_bytes;
        rows.extend(growth.map(|bytes| Row::count("  server RSS growth", bytes / 1024, "KiB")));
        rows.extend(count_rows(&self.counts));
        rows
    }
}

/// What never happened is left out, but for Redis: that it was not asked is what one wants to see.
fn count_rows(counts: &Counts) -> impl Iterator<Item = Row> {
    COUNTERS.iter().filter_map(move |(name, what)| {
        let count = counts.of_name(name)?;
        let is_shown = count > 0 || *name == COMMANDS;
        is_shown.then(|| Row::count(&format!("  {what}"), count, ""))
    })
}

fn sum(spent: &Spent) -> Option<Counts> {
    let mut told = spent.hosts.iter().filter_map(|host| host.counts.as_ref());
    let mut sum = told.next()?.clone();
    told.for_each(|counts| sum.add(counts));
    Some(sum)
}

/// Each match tells two clients.
fn matches(counts: &Counts) -> Option<f64> {
    counts.of_name(MATCHED).filter(|told| *told > 0).map(|told| told as f64 / 2.0)
}

fn per(counts: &Counts, count: f64) -> Option<f64> {
    let commands = counts.of_name(COMMANDS)? as f64;
    (count > 0.0).then(|| commands / count)
}

#[cfg(test)]
mod tests {
    use super::super::HostSpent;
    use super::*;

    fn host(cpu_ns: u64, page: &str) -> HostSpent {
        let counts = Counts::default();
        let counts = Counts::parse(page).since(&counts);
        HostSpent { cpu_ns: Some(cpu_ns), counts: Some(counts) }
    }

    #[test]
    fn each_host_is_told_and_all_are_summed() {
        let page =
            "parlor_messages_received_total 100\nparlor_matches_total 4\nparlor_redis_commands_total 10\n";
        let spent = Spent { hosts: vec![host(500_000_000, page), host(250_000_000, page)] };
        let figures = HostsFigures::new(&Servers::example(2), &spent, 40).with_memory(&[7.0, 8.0]);
        let of_host = |place: usize| figures.hosts[place].server_messages_per_cpu_s;
        assert_eq!((of_host(0), of_host(1)), (Some(200.0), Some(400.0)));
        let redis = figures.redis.as_ref().expect("there is one");
        assert_eq!(redis.redis_commands_per_message, Some(0.5));
        assert_eq!(redis.redis_commands_per_match, Some(5.0), "8 clients were told of 4 matches");
        let rows = figures.rows();
        assert!(rows.contains(&Row::text("host ws://127.0.0.1:2/ws", "")));
        assert!(rows.contains(&Row::count("  Redis commands", 20, "")));
        assert!(rows.contains(&Row::quantity("  server memory per client", 8.0, "B")));
        let json = serde_json::to_value(&figures).expect("JSON");
        assert_eq!(json["hosts"][1]["redis_commands"], 10);
        assert_eq!(json["redis"]["redis_commands"], 20);
    }

    #[test]
    fn one_host_without_redis_has_nothing_to_add() {
        let spent = Spent { hosts: vec![host(1, "parlor_messages_received_total 100\n")] };
        let figures = HostsFigures::new(&Servers::example(1), &spent, 40);
        assert!(figures.rows().is_empty());
        assert_eq!(serde_json::to_string(&figures).expect("JSON"), "{}");
        let spent = Spent { hosts: vec![host(1, "parlor_redis_commands_total 100\n")] };
        let figures = HostsFigures::new(&Servers::example(1), &spent, 40);
        assert!(figures.rows().contains(&Row::quantity("  Redis commands per message", 2.5, "")));
    }
}
