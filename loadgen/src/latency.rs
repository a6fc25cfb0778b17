//! Latencies in a histogram of three significant digits.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::report::Row;

/// Longest latency that is told apart: a minute.
const NS_MAX: u64 = 60_000_000_000;

/// A histogram of nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Latency {
    histogram: Histogram<u64>,
}

impl Latency {
    /// An empty histogram.
    pub(crate) fn new() -> Self {
        Self { histogram: Histogram::new_with_bounds(1, NS_MAX, 3).expect("the bounds are in order") }
    }

    /// Adds one; longer than a minute counts as a minute.
    pub(crate) fn record(&mut self, ns: u64) {
        self.histogram.saturating_record(ns);
    }

    /// Adds those of another.
    pub(crate) fn add(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("the bounds are the same");
    }

    /// How many were added.
    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The latency that this share of all does not pass, in microseconds.
    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        self.histogram.value_at_quantile(quantile) as f64 / 1e3
    }

    /// The usual quantiles.
    pub(crate) fn quantiles(&self) -> Quantiles {
        Quantiles {
            latency_p50_us: self.quantile_us(0.5),
            latency_p90_us: self.quantile_us(0.9),
            latency_p99_us: self.quantile_us(0.99),
            latency_p999_us: self.quantile_us(0.999),
            latency_max_us: self.histogram.max() as f64 / 1e3,
        }
    }
}

/// The quantiles that are reported.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) latency_p50_us: f64,
    pub(crate) latency_p90_us: f64,
    pub(crate) latency_p99_us: f64,
    pub(crate) latency_p999_us: f64,
    pub(crate) latency_max_us: f64,
}

impl Quantiles {
    /// The lines of the table; `of` says what took so long.
    pub(crate) fn rows(&self, of: &str) -> Vec<Row> {
        [
            ("p50", self.latency_p50_us),
            ("p90", self.latency_p90_us),
            ("p99", self.latency_p99_us),
            ("p99.9", self.latency_p999_us),
            ("max", self.latency_max_us),
        ]
        .map(|(name, us)| Row::quantity(&format!("{of} {name}"), us, "µs"))
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_thousandth() {
        let mut latency = Latency::new();
        (1..=1_000u64).for_each(|us| latency.record(us * 1_000));
        let quantiles = latency.quantiles();
        for (is, should) in [
            (quantiles.latency_p50_us, 500.0),
            (quantiles.latency_p90_us, 900.0),
            (quantiles.latency_p99_us, 990.0),
            (quantiles.latency_p999_us, 999.0),
            (quantiles.latency_max_us, 1_000.0),
        ] {
            assert!((is - should).abs() <= should / 1_000.0 + 0.001, "{is} {should}");
        }
    }

    #[test]
    fn histograms_add_up_and_saturate() {
        let (mut one, mut other) = (Latency::new(), Latency::new());
        one.record(1_000);
        other.record(u64::MAX);
        one.add(&other);
        assert!(one.quantile_us(1.0) >= 59_000_000.0);
    }
}
