//! `/metrics`: Prometheus' text format, version 0.0.4.

use std::fmt::Write;

use super::Overview;
use crate::metrics::{Call, ClusterCounters, ClusterMetrics, Counters, Description, Histogram, Kind};

/// The number that one of the rendezvous original's is here.
enum Source {
    /// One of ours, by name.
    Ours(&'static str),
    /// How long Redis took at last, in milliseconds.
    Last(Call),
}

/// What dashboards of the rendezvous original read (protocols.md section 2). What is not counted stays 0.
const RENDEZVOUS_NAMES: [(&str, &str, Source); 10] = [
    ("signaling_server_connected_clients", "gauge", Source::Ours("parlor_rendezvous_clients")),
    (
        "signaling_server_incoming_messages",
        "counter",
        Source::Ours("parlor_rendezvous_messages_received_total"),
    ),
    ("signaling_server_outgoing_messages", "counter", Source::Ours("parlor_rendezvous_messages_sent_total")),
    ("signaling_server_publish_messages", "counter", Source::Ours("parlor_redis_publishes_total")),
    ("signaling_server_subscribe_messages", "counter", Source::Ours("parlor_redis_pushes_total")),
    ("signaling_server_redis_get_time", "gauge", Source::Last(Call::Get)),
    ("signaling_server_redis_set_time", "gauge", Source::Last(Call::Set)),
    ("signaling_server_redis_delete_time", "gauge", Source::Last(Call::Delete)),
    ("signaling_server_redis_publish_time", "gauge", Source::Last(Call::Publish)),
    ("signaling_server_redis_subscribe_time", "gauge", Source::Last(Call::Subscribe)),
];

/// All numbers, added up over the shards.
pub(super) fn render(overview: &Overview) -> String {
    let mut sums = [0u64; Counters::DESCRIPTIONS.len()];
    for counters in &overview.counters {
        for (sum, value) in sums.iter_mut().zip(counters.values()) {
            *sum = sum.wrapping_add(value);
        }
    }
    let of_cluster = overview.cluster.as_ref().map(|cluster| cluster.counters.values());
    let all: Vec<(&Description, u64)> = Counters::DESCRIPTIONS
        .iter()
        .zip(sums)
        .chain(of_cluster.iter().flat_map(|values| ClusterCounters::DESCRIPTIONS.iter().zip(*values)))
        .collect();
    let mut text = String::new();
    for (name, kind, source) in RENDEZVOUS_NAMES {
        let help = "As the rendezvous original names it.";
        match source {
            Source::Ours(ours) => {
                let found = all.iter().find(|(description, _)| description.name == ours);
                metric(&mut text, name, kind, help, &found.map_or(0, |(_, value)| *value));
            }
            Source::Last(call) => metric(&mut text, name, kind, help, &last_call_ms(overview, call)),
        }
    }
    for (description, value) in all {
        let kind = match description.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        metric(&mut text, description.name, kind, description.help, &value);
    }
    if let Some(cluster) = &overview.cluster {
        replies(&mut text, cluster);
    }
    metric(&mut text, "parlor_uptime_seconds", "gauge", "Seconds since the start.", &overview.uptime_s());
    metric(&mut text, "parlor_shards", "gauge", "Shards of this host.", &overview.counters.len());
    info(&mut text, overview);
    text
}

fn last_call_ms(overview: &Overview, call: Call) -> f64 {
    let us = overview.cluster.as_ref().map_or(0, |cluster| cluster.last_calls_us[call as usize].value());
    us as f64 / 1e3
}

fn metric(text: &mut String, name: &str, kind: &str, help: &str, value: &dyn std::fmt::Display) {
    // Writing to a string does not fail.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
}

/// How long replies of Redis took, as a histogram.
fn replies(text: &mut String, cluster: &ClusterMetrics) {
    const NAME: &str = "parlor_redis_reply_seconds";
    let _ = writeln!(text, "# HELP {NAME} Seconds from sending a command to its reply.");
    let _ = writeln!(text, "# TYPE {NAME} histogram");
    let counts = cluster.replies.cumulated();
    let bounds = Histogram::BOUNDS.iter().map(|(_, seconds)| *seconds).chain(["+Inf"]);
    for (bound, count) in bounds.zip(counts) {
        let _ = writeln!(text, "{NAME}_bucket{{le=\"{bound}\"}} {count}");
    }
    let sum_s = cluster.replies.sum_us() as f64 / 1e6;
    let _ = writeln!(text, "{NAME}_sum {sum_s}\n{NAME}_count {}", counts[counts.len() - 1]);
}

fn info(text: &mut String, overview: &Overview) {
    let driver = overview.decision.driver;
    let _ = writeln!(text, "# HELP parlor_info What runs here.\n# TYPE parlor_info gauge");
    let _ = writeln!(
        text,
        "parlor_info{{version=\"{}\",driver=\"{}\",ring_flags=\"{}\"}} 1",
        env!("CARGO_PKG_VERSION"),
        driver.name(),
        driver.flags(),
    );
}
