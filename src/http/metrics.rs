//! `/metrics`: Prometheus' text format, version 0.0.4.

use std::fmt::Write;

use super::Overview;
use crate::metrics::{Counters, Kind};

/// All numbers, added up over the shards.
pub(super) fn render(overview: &Overview) -> String {
    let mut sums = [0u64; Counters::DESCRIPTIONS.len()];
    for counters in &overview.counters {
        for (sum, value) in sums.iter_mut().zip(counters.values()) {
            *sum = sum.wrapping_add(value);
        }
    }
    let mut text = String::new();
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
