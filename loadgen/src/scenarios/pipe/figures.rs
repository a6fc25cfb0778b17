//! What a pipe run counts, and what follows from the counts.

use serde::Serialize;

use super::PipePlan;
use super::end::EndEnding;
use crate::latency::{Latency, Quantiles};
use crate::payload::Stamp;
use crate::report::{Figures, Row};
use crate::scenarios::compare::{Measure, Round};
use crate::scenarios::run::{per_second, ratio};
use crate::scenarios::stage::Stage;
use crate::scenarios::window::Window;
use crate::servers::HostsFigures;

const MIB: f64 = 1_048_576.0;

/// What the ends of a thread count.
#[derive(Debug)]
pub(super) struct Tally {
    frames: u64,
    latency: Latency,
    /// Frames without a stamp, or that ended where they should not.
    pub(super) broken: u64,
    pub(super) lost: u64,
    first_ending: Option<String>,
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

impl Tally {
    pub(super) fn new() -> Self {
        Self { frames: 0, latency: Latency::new(), broken: 0, lost: 0, first_ending: None }
    }

    /// A frame has come to its end.
    pub(super) fn arrived(&mut self, stage: &Stage, now_ns: u64, stamp: Option<Stamp>) {
        if stage.measures(now_ns) {
            self.frames += 1;
        }
        match stamp {
            Some(stamp) if stage.measures(stamp.time_ns) => {
                self.latency.record(now_ns.saturating_sub(stamp.time_ns));
            }
            Some(_) => {}
            None => self.broken += 1,
        }
    }

    /// An end was ended before its time.
    pub(super) fn lost(&mut self, ending: &EndEnding) {
        self.lost += 1;
        let (EndEnding::InOrder(how) | EndEnding::Cut(how)) = ending;
        self.first_ending.get_or_insert_with(|| how.clone());
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.frames += other.frames;
        self.latency.add(&other.latency);
        self.broken += other.broken;
        self.lost += other.lost;
        self.first_ending = self.first_ending.take().or_else(|| other.first_ending.clone());
    }
}

/// The figures of a pipe run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PipeFigures {
    frames: u64,
    throughput_frames_per_s: f64,
    throughput_mib_per_s: f64,
    /// From the start of a frame at its sender to its end at its receiver.
    #[serde(flatten)]
    latency: Quantiles,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_frames_per_cpu_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_mib_per_cpu_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_us_per_mib: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_percent: Option<f64>,
    generator_cpu_percent: f64,
    broken_frames: u64,
    lost_connections: u64,
    #[serde(skip)]
    first_ending: Option<String>,
    #[serde(flatten)]
    hosts: HostsFigures,
    /// The two ends of a pipe were on different hosts.
    #[serde(skip)]
    is_across: bool,
}

impl PipeFigures {
    pub(super) fn new(plan: &PipePlan, total: &Tally, window: &Window) -> Self {
        let duration = plan.traffic.duration;
        let frames = total.frames as f64;
        let mib = frames * plan.traffic.frame_bytes as f64 / MIB;
        let cpu_ns = window.spent.cpu_ns();
        Self {
            frames: total.frames,
            throughput_frames_per_s: per_second(frames, duration),
            throughput_mib_per_s: per_second(mib, duration),
            latency: total.latency.quantiles(),
            server_frames_per_cpu_s: cpu_ns.map(|ns| ratio(frames, ns as f64 / 1e9)),
            server_mib_per_cpu_s: cpu_ns.map(|ns| ratio(mib, ns as f64 / 1e9)),
            server_cpu_us_per_mib: cpu_ns.map(|ns| ratio(ns as f64 / 1e3, mib)),
            server_cpu_percent: cpu_ns.map(|ns| per_second(ns as f64 / 1e7, duration)),
            generator_cpu_percent: window.own_cpu_ns_per_s as f64 / 1e7 / plan.threads as f64,
            broken_frames: total.broken,
            lost_connections: total.lost,
            first_ending: total.first_ending.clone(),
            hosts: HostsFigures::new(&plan.servers, &window.spent, total.frames),
            is_across: plan.servers.targets.placing().is_across(),
        }
    }
}

impl Figures for PipeFigures {
    fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            Row::count("frames", self.frames, ""),
            Row::quantity("throughput", self.throughput_frames_per_s, "frames/s"),
            Row::quantity("throughput", self.throughput_mib_per_s, "MiB/s"),
        ];
        rows.extend(self.latency.rows("latency"));
        let optional = [
            ("frames per CPU second", self.server_frames_per_cpu_s, "/s"),
            ("MiB per CPU second", self.server_mib_per_cpu_s, "MiB/s"),
            ("server CPU per MiB", self.server_cpu_us_per_mib, "µs"),
            ("server CPU", self.server_cpu_percent, "%"),
            ("generator CPU per thread", Some(self.generator_cpu_percent), "%"),
        ];
        let row = |(what, value, unit): (&str, Option<f64>, _)| Some(Row::quantity(what, value?, unit));
        rows.extend(optional.into_iter().filter_map(row));
        let troubles = [("broken frames", self.broken_frames), ("lost connections", self.lost_connections)];
        let row = |(what, count)| (count > 0).then(|| Row::count(what, count, ""));
        rows.extend(troubles.into_iter().filter_map(row));
        rows.extend(self.hosts.rows());
        rows
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(ending) = &self.first_ending {
            warnings.push(format!("{} connections were lost, the first: {ending}", self.lost_connections));
        }
        if self.broken_frames > 0 {
            warnings.push(format!("{} frames were not what was sent", self.broken_frames));
        }
        if self.frames == 0 {
            let across = if self.is_across { ": ends on different hosts were not joined" } else { "" };
            warnings.push(format!("not one frame arrived in the measured interval{across}"));
        }
        warnings
    }

    fn exit_code(&self) -> u8 {
        u8::from(self.frames == 0 || self.broken_frames > 0 || self.lost_connections > 0)
    }
}

impl Round for PipeFigures {
    fn measures(&self) -> Vec<Measure> {
        let latency = &self.latency;
        vec![
            Measure::new("throughput_frames_per_s", "frames", Some(self.throughput_frames_per_s), "/s"),
            Measure::new("throughput_mib_per_s", "throughput", Some(self.throughput_mib_per_s), "MiB/s"),
            Measure::new("latency_p50_us", "latency p50", Some(latency.latency_p50_us), "µs"),
            Measure::new("latency_p99_us", "latency p99", Some(latency.latency_p99_us), "µs"),
            Measure::new("latency_p999_us", "latency p99.9", Some(latency.latency_p999_us), "µs"),
            Measure::new(
                "server_frames_per_cpu_s",
                "frames per CPU second",
                self.server_frames_per_cpu_s,
                "/s",
            ),
            Measure::new("server_mib_per_cpu_s", "MiB per CPU second", self.server_mib_per_cpu_s, "MiB/s"),
            Measure::new("server_cpu_us_per_mib", "server CPU per MiB", self.server_cpu_us_per_mib, "µs"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::net::runtime::DriverChoice;
    use crate::options::{PipeMode, PipeTraffic};
    use crate::servers::{HostSpent, Servers, Spent};

    fn figures(frames: u64, broken: u64) -> PipeFigures {
        let traffic = PipeTraffic {
            pairs: 1,
            in_flight: 1,
            frame_bytes: 1 << 19,
            mode: PipeMode::Raw,
            duration: Duration::from_secs(2),
            warmup: Duration::ZERO,
        };
        let servers = Servers::example(1);
        let plan = PipePlan { servers, traffic, threads: 1, driver: DriverChoice::Auto };
        let total = Tally { frames, broken, ..Tally::new() };
        let spent = Spent { hosts: vec![HostSpent { cpu_ns: Some(500_000_000), counts: None }] };
        PipeFigures::new(&plan, &total, &Window { spent, own_cpu_ns_per_s: 0 })
    }

    #[test]
    fn figures_follow_from_the_counts() {
        let figures = figures(200, 0);
        assert_eq!((figures.throughput_frames_per_s, figures.throughput_mib_per_s), (100.0, 50.0));
        assert_eq!(figures.server_mib_per_cpu_s, Some(200.0));
        assert_eq!(figures.server_frames_per_cpu_s, Some(400.0));
        assert_eq!(figures.server_cpu_us_per_mib, Some(5_000.0));
        assert_eq!((figures.server_cpu_percent, figures.exit_code()), (Some(25.0), 0));
    }

    #[test]
    fn silence_and_broken_frames_are_failures() {
        assert_eq!((figures(0, 0).exit_code(), figures(0, 0).warnings().len()), (1, 1));
        assert_eq!((figures(1, 1).exit_code(), figures(1, 1).warnings().len()), (1, 1));
    }
}
