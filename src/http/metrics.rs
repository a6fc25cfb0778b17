//! `/metrics`: Prometheus' text format, version 0.0.4.

use std::fmt::Write;

use super::Overview;
use crate::metrics::{Counters, Kind};

/// What dashboards of the rendezvous original read (protocols.md section 2), and the number of ours that it is; what is
/// not counted here stays 0.
const RENDEZVOUS_NAMES: [(&str, &str, Option<&str>); 10] = [
    ("signaling_server_connected_clients", "gauge", Some("parlor_rendezvous_clients")),
    ("signaling_server_incoming_messages", "counter", Some("parlor_rendezvous_messages_received_total")),
    ("signaling_server_outgoing_messages", "counter", Some("parlor_rendezvous_messages_sent_total")),
    ("signaling_server_publish_messages", "counter", None),
    ("signaling_server_subscribe_messages", "counter", None),
    ("signaling_server_redis_get_time", "gauge", None),
    ("signaling_server_redis_set_time", "gauge", None),
    ("signaling_server_redis_delete_time", "gauge", None),
    ("signaling_server_redis_publish_time", "gauge", None),
    ("signaling_server_redis_subscribe_time", "gauge", None),
];

/// All numbers, added up over the shards.
pub(super) fn render(overview: &Overview) -> String {
    let mut sums = [0u64; Counters::DESCRIPTIONS.len()];
    for counters in &overview.counters {
        for (sum, value) in sums.iter_mut().zip(counters.values()) {
            *sum = sum.wrapping_add(value);
        }
    }
    let mut text = String::new();
    let sum_of = |name: &str| {
        let position = Counters::DESCRIPTIONS.iter().position(|description| description.name == name);
        position.map_or(0, |position| sums[position])
    };
    for (name, kind, counted) in RENDEZVOUS_NAMES {
        metric(&mut text, name, kind, "As the rendezvous original names it.", &counted.map_or(0, sum_of));
    }
    for (description, sum) in Counters::DESCRIPTIONS.iter().zip(sums) {
        let kind = match description.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        metric(&mut text, description.name, kind, description.help, &sum);
    }
    metric(&mut text, "parlor_uptime_seconds", "gauge", "Seconds since the start.", &overview.uptime_s());
    metric(&mut text, "parlor_shards", "gauge", "Shards of this host.", &overview.counters.len());
    let driver = overview.decision.driver;
    let info = format!(
        "parlor_info{{version=\"{}\",driver=\"{}\",ring_flags=\"{}\"}}",
        env!("CARGO_PKG_VERSION"),
        driver.name(),
        driver.flags(),
    );
    let _ = write!(text, "# HELP parlor_info What runs here.\n# TYPE parlor_info gauge\n{info} 1\n");
    text
}

fn metric(text: &mut String, name: &str, kind: &str, help: &str, value: &dyn std::fmt::Display) {
    // Writing to a string does not fail.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
}
