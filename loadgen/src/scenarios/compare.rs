//! `compare`: the pairing scenario against two servers in turns, so that whatever else happens on this host happens
//! to both.

use serde::Serialize;

use super::run::{self, Plan, RunFigures, rate_limit_warning, ratio};
use crate::failure::Failure;
use crate::options::{CommonArgs, CompareArgs, Traffic};
use crate::report::{self, Figures, Row};

#[derive(Serialize)]
struct Options {
    a: String,
    b: String,
    rounds: usize,
    #[serde(flatten)]
    traffic: Traffic,
    #[serde(flatten)]
    common: CommonArgs,
}

/// Medians over the rounds of one server.
#[derive(Debug, Clone, Serialize)]
struct Medians {
    throughput_messages_per_s: f64,
    latency_p50_us: f64,
    latency_p99_us: f64,
    latency_p999_us: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_us_per_message: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_messages_per_cpu_s: Option<f64>,
    /// Of the first round alone: later ones find the memory of earlier ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_bytes_per_client: Option<f64>,
}

/// The figures of a comparison.
#[derive(Debug, Serialize)]
struct CompareFigures {
    a: Medians,
    b: Medians,
    a_rounds: Vec<RunFigures>,
    b_rounds: Vec<RunFigures>,
}

/// Runs the comparison and reports it.
pub(crate) fn run(options: &CompareArgs) -> Result<u8, Failure> {
    let traffic = options.traffic.resolve();
    let plan = |url, pid| {
        Ok::<_, Failure>(Plan {
            target: options.common.target(url)?,
            pid,
            traffic: traffic.clone(),
            threads: options.common.threads,
            driver: options.common.io_driver,
        })
    };
    let (a, b) = (plan(&options.a, options.a_pid)?, plan(&options.b, options.b_pid)?);
    let (mut a_rounds, mut b_rounds) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        a_rounds.push(run::measure(&a)?);
        b_rounds.push(run::measure(&b)?);
    }
    let figures = CompareFigures { a: Medians::of(&a_rounds), b: Medians::of(&b_rounds), a_rounds, b_rounds };
    let read = Options {
        a: a.target.url.to_string(),
        b: b.target.url.to_string(),
        rounds: options.rounds,
        traffic,
        common: options.common.clone(),
    };
    report::publish("compare", &read, &figures, options.common.json.as_deref())
}

impl Medians {
    fn of(rounds: &[RunFigures]) -> Self {
        let over = |of: fn(&RunFigures) -> f64| median(rounds.iter().map(of).collect());
        let over_some = |of: fn(&RunFigures) -> Option<f64>| {
            let values: Option<Vec<f64>> = rounds.iter().map(of).collect();
            values.map(median)
        };
        Self {
            throughput_messages_per_s: over(|round| round.throughput_messages_per_s),
            latency_p50_us: over(|round| round.latency.latency_p50_us),
            latency_p99_us: over(|round| round.latency.latency_p99_us),
            latency_p999_us: over(|round| round.latency.latency_p999_us),
            server_cpu_us_per_message: over_some(|round| round.server_cpu_us_per_message),
            server_messages_per_cpu_s: over_some(|round| round.server_messages_per_cpu_s),
            server_bytes_per_client: rounds.first().and_then(|round| round.server_bytes_per_client),
        }
    }

    fn lines(&self) -> [(&'static str, Option<f64>, &'static str); 7] {
        [
            ("throughput", Some(self.throughput_messages_per_s), "/s"),
            ("latency p50", Some(self.latency_p50_us), "µs"),
            ("latency p99", Some(self.latency_p99_us), "µs"),
            ("latency p99.9", Some(self.latency_p999_us), "µs"),
            ("server CPU per message", self.server_cpu_us_per_message, "µs"),
            ("messages per CPU second", self.server_messages_per_cpu_s, "/s"),
            ("server memory per client", self.server_bytes_per_client, "B"),
        ]
    }
}

impl Figures for CompareFigures {
    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for ((what, a, unit), (_, b, _)) in self.a.lines().into_iter().zip(self.b.lines()) {
            rows.extend(a.map(|a| Row::quantity(&format!("{what}, a"), a, unit)));
            rows.extend(b.map(|b| Row::quantity(&format!("{what}, b"), b, unit)));
            let both = a.zip(b).map(|(a, b)| ratio(a, b));
            rows.extend(both.map(|ratio| Row::quantity(&format!("{what}, a / b"), ratio, "")));
        }
        rows
    }

    fn warnings(&self) -> Vec<String> {
        let all = self.a_rounds.iter().chain(&self.b_rounds);
        let limited: u64 = all.clone().map(|round| round.rate_limited).sum();
        let mut warnings: Vec<_> = (limited > 0).then(|| rate_limit_warning(limited)).into_iter().collect();
        let mut others: Vec<_> =
            all.filter(|round| round.rate_limited == 0).flat_map(Figures::warnings).collect();
        others.sort();
        others.dedup();
        warnings.extend(others);
        warnings
    }

    fn exit_code(&self) -> u8 {
        self.a_rounds.iter().chain(&self.b_rounds).map(Figures::exit_code).max().unwrap_or(0)
    }
}

/// The middle value; of an even number the mean of the two in the middle; 0 of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (half, odd) = (values.len() / 2, values.len() % 2 == 1);
    match values.get(half) {
        None => 0.0,
        Some(middle) if odd => *middle,
        Some(middle) => (middle + values[half - 1]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!((median(vec![5.0]), median(Vec::new())), (5.0, 0.0));
    }

    #[test]
    fn ratios_are_a_over_b() {
        let medians = |throughput: f64, bytes: Option<f64>| Medians {
            throughput_messages_per_s: throughput,
            latency_p50_us: 1.0,
            latency_p99_us: 1.0,
            latency_p999_us: 1.0,
            server_cpu_us_per_message: None,
            server_messages_per_cpu_s: None,
            server_bytes_per_client: bytes,
        };
        let figures = CompareFigures {
            a: medians(300.0, Some(1.0)),
            b: medians(200.0, None),
            a_rounds: Vec::new(),
            b_rounds: Vec::new(),
        };
        let rows = figures.rows();
        assert!(rows.contains(&Row::quantity("throughput, a / b", 1.5, "")));
        assert!(rows.contains(&Row::quantity("server memory per client, a", 1.0, "B")));
        assert!(!rows.contains(&Row::quantity("server memory per client, b", 0.0, "B")));
        assert_eq!(figures.exit_code(), 0);
    }
}
