//! What a run counts, and what follows from the counts.

use std::time::Duration;

use serde::Serialize;

use super::Plan;
use crate::client::Ending;
use crate::dialects::Dialect;
use crate::latency::{Latency, Quantiles};
use crate::payload::{Script, Stamp};
use crate::process;
use crate::report::{Figures, Row};
use crate::scenarios::compare::{Measure, Round};
use crate::scenarios::stage::Stage;
use crate::scenarios::window::Window;
use crate::servers::{HostsFigures, Spent};

/// From this share of its threads' time on, the generator may be what is measured.
const BUSY_PERCENT_MAX: f64 = 97.0;
/// From this latency on, a server that holds back who sends too much may have done so.
const HELD_BACK_US_MIN: f64 = 500_000.0;
/// From this lateness of the open loop on, the latencies are the generator's.
const LATE_US_MAX: f64 = 1_000.0;

/// What the clients of a thread count.
#[derive(Debug)]
pub(crate) struct Tally {
    messages: u64,
    unstamped: u64,
    latency: Latency,
    /// How late the open loop itself was.
    pub(super) late: Latency,
    rate_limited: u64,
    pub(super) errors: u64,
    pub(super) unsent: u64,
    lost: u64,
    first_ending: Option<Ending>,
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            messages: 0,
            unstamped: 0,
            latency: Latency::new(),
            late: Latency::new(),
            rate_limited: 0,
            errors: 0,
            unsent: 0,
            lost: 0,
            first_ending: None,
        }
    }

    /// A message came whose latency is not known.
    pub(super) fn counted(&mut self, stage: &Stage, now_ns: u64) {
        if stage.measures(now_ns) {
            self.messages += 1;
        }
    }

    /// A relayed message came.
    pub(super) fn arrived(&mut self, stage: &Stage, now_ns: u64, stamp: Option<Stamp>) {
        self.counted(stage, now_ns);
        match stamp {
            Some(stamp) if stage.measures(stamp.time_ns) => {
                self.latency.record(now_ns.saturating_sub(stamp.time_ns));
            }
            Some(_) => {}
            None => self.unstamped += 1,
        }
    }

    /// The server answered with an error.
    pub(super) fn refused(&mut self, limited: bool) {
        if limited {
            self.rate_limited += 1;
        } else {
            self.errors += 1;
        }
    }

    /// A connection ended before its time.
    pub(super) fn lost(&mut self, ending: Ending) {
        if is_rate_limit(&ending) {
            self.rate_limited += 1;
        }
        self.lost += 1;
        self.first_ending.get_or_insert(ending);
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.unstamped += other.unstamped;
        self.latency.add(&other.latency);
        self.late.add(&other.late);
        self.rate_limited += other.rate_limited;
        self.errors += other.errors;
        self.unsent += other.unsent;
        self.lost += other.lost;
        self.first_ending = self.first_ending.take().or_else(|| other.first_ending.clone());
    }
}

/// What the run cost the servers, and the generator.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServerCost {
    /// Over the measured interval.
    pub(super) window: Window,
    /// While the clients connected and found partners.
    pub(super) gathering: Spent,
    /// Memory of each server before the clients came, and when they were paired, before the first message.
    pub(super) memory: Option<(Vec<u64>, Vec<u64>)>,
}

/// The figures of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RunFigures {
    #[serde(skip)]
    dialect: Dialect,
    /// Messages that arrived in the measured interval.
    messages: u64,
    /// Messages per second.
    pub(crate) throughput_messages_per_s: f64,
    /// Latency of a message from its sender, or from when it was due, to its receiver.
    #[serde(flatten)]
    pub(crate) latency: Quantiles,
    /// Mean length of what clients sent.
    message_bytes_mean: f64,
    /// CPU time of the server per message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_cpu_us_per_message: Option<f64>,
    /// Messages per second of the server's CPU time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_messages_per_cpu_s: Option<f64>,
    /// Share of one core that the server used.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_percent: Option<f64>,
    /// The server's own memory per connected client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_bytes_per_client: Option<f64>,
    /// Share of its threads' time that the generator was on a CPU.
    generator_cpu_percent: f64,
    /// How late the open loop sent, at its 99th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    generator_late_p99_us: Option<f64>,
    /// Messages that the server refused with `RATE_LIMIT`.
    pub(crate) rate_limited: u64,
    /// Other errors, and messages that no one knows.
    errors: u64,
    /// Messages of the open loop whose client had no partner.
    unsent: u64,
    /// Messages of the open loop that were due in the measured interval and had not arrived a second after it.
    not_arrived: u64,
    /// Relayed messages without a stamp: somebody else's.
    unstamped: u64,
    /// Connections that the server ended.
    lost_connections: u64,
    #[serde(skip)]
    first_ending: Option<Ending>,
    #[serde(flatten)]
    hosts: HostsFigures,
}

impl RunFigures {
    pub(super) fn new(plan: &Plan, total: &Tally, cost: &ServerCost) -> Self {
        let (cpu_ns, own_ns_per_s) = (cost.window.spent.cpu_ns(), cost.window.own_cpu_ns_per_s);
        let bytes = |(before, after): &(Vec<u64>, Vec<u64>)| {
            process::bytes_per(plan.clients(), before.iter().sum(), after.iter().sum())
        };
        let duration = plan.traffic.duration;
        let messages = total.messages as f64;
        let open_loop = plan.traffic.rate_per_s.is_some();
        let script = Script::new(plan.traffic.payload, plan.dialect);
        Self {
            dialect: plan.dialect,
            messages: total.messages,
            throughput_messages_per_s: per_second(messages, duration),
            latency: total.latency.quantiles(),
            message_bytes_mean: script.map_or(0.0, |script| script.message_bytes_mean()),
            server_cpu_us_per_message: cpu_ns.map(|ns| ratio(ns as f64 / 1e3, messages)),
            server_messages_per_cpu_s: cpu_ns.map(|ns| ratio(messages, ns as f64 / 1e9)),
            server_cpu_percent: cpu_ns.map(|ns| per_second(ns as f64 / 1e7, duration)),
            server_bytes_per_client: cost.memory.as_ref().map(bytes),
            generator_cpu_percent: own_ns_per_s as f64 / 1e7 / plan.threads as f64,
            generator_late_p99_us: open_loop.then(|| total.late.quantile_us(0.99)),
            rate_limited: total.rate_limited,
            errors: total.errors,
            unsent: total.unsent,
            not_arrived: total.late.count().saturating_sub(total.latency.count()) * u64::from(open_loop),
            unstamped: total.unstamped,
            lost_connections: total.lost,
            first_ending: total.first_ending.clone(),
            hosts: hosts_figures(plan, total.messages, cost),
        }
    }

    fn cost_rows(&self) -> Vec<Row> {
        let optional = [
            ("server CPU per message", self.server_cpu_us_per_message, "µs"),
            ("messages per CPU second", self.server_messages_per_cpu_s, "/s"),
            ("server CPU", self.server_cpu_percent, "%"),
            ("server memory per client", self.server_bytes_per_client, "B"),
            ("generator CPU per thread", Some(self.generator_cpu_percent), "%"),
            ("generator late p99", self.generator_late_p99_us, "µs"),
        ];
        let row = |(what, value, unit): (&str, Option<f64>, _)| Some(Row::quantity(what, value?, unit));
        optional.into_iter().filter_map(row).collect()
    }

    fn trouble_rows(&self) -> Vec<Row> {
        let counts = [
            ("refused (rate limit)", self.rate_limited),
            ("other errors", self.errors),
            ("not sent (no partner)", self.unsent),
            ("sent but not arrived", self.not_arrived),
            ("without a stamp", self.unstamped),
            ("lost connections", self.lost_connections),
        ];
        let row = |(what, count)| (count > 0).then(|| Row::count(what, count, ""));
        counts.into_iter().filter_map(row).collect()
    }
}

fn hosts_figures(plan: &Plan, messages: u64, cost: &ServerCost) -> HostsFigures {
    let servers = &plan.servers;
    let figures = HostsFigures::new(servers, &cost.window.spent, messages).with_matches_of(&cost.gathering);
    match &cost.memory {
        Some((before, after)) => {
            let members = plan.traffic.members;
            figures.with_memory(&servers.bytes_per_client(plan.clients(), members, before, after))
        }
        None => figures,
    }
}

impl Figures for RunFigures {
    fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            Row::count("messages", self.messages, ""),
            Row::quantity("throughput", self.throughput_messages_per_s, "/s"),
        ];
        rows.extend(self.latency.rows("latency"));
        rows.push(Row::quantity("client message, mean", self.message_bytes_mean, "B"));
        rows.extend(self.cost_rows());
        rows.extend(self.trouble_rows());
        rows.extend(self.hosts.rows());
        rows
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.rate_limited > 0 {
            warnings.push(rate_limit_warning(self.rate_limited));
        }
        if let Some(ending) = &self.first_ending {
            warnings.push(format!("{} connections were lost, the first: {ending:?}", self.lost_connections));
        }
        if self.not_arrived > 0 {
            warnings.push(format!(
                "{} messages had not arrived a second after the end, and are in no latency: the server does not keep \
                 up with the rate",
                self.not_arrived
            ));
        }
        if let Some(late_us) = self.generator_late_p99_us.filter(|late_us| *late_us > LATE_US_MAX) {
            warnings.push(format!(
                "the generator itself was late (p99 {late_us:.0} µs): give it a core of its own"
            ));
        }
        if self.dialect.holds_back() && self.latency.latency_max_us > HELD_BACK_US_MIN {
            warnings.push(format!(
                "messages took up to {:.0} ms: who sends more than MAX_MSG_PER_SECOND x 5 is not read until the second \
                 is over. Unless the server was started with a limit out of reach, this is what was measured",
                self.latency.latency_max_us / 1e3
            ));
        }
        if self.messages == 0 {
            warnings.push("not one message arrived in the measured interval".to_owned());
        }
        if self.generator_cpu_percent > BUSY_PERCENT_MAX {
            let percent = self.generator_cpu_percent;
            warnings.push(format!(
                "the generator used {percent:.0} % of its threads: the throughput may be its own. What a message \
                 costs the server (--pid) is not affected"
            ));
        }
        warnings
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self { rate_limited: 1.., .. } => 3,
            Self { lost_connections: 1.., .. } | Self { messages: 0, .. } => 1,
            Self { .. } => 0,
        }
    }
}

impl Round for RunFigures {
    fn measures(&self) -> Vec<Measure> {
        let latency = &self.latency;
        let bytes = Measure::new(
            "server_bytes_per_client",
            "server memory per client",
            self.server_bytes_per_client,
            "B",
        );
        let throughput = Some(self.throughput_messages_per_s);
        vec![
            Measure::new("throughput_messages_per_s", "throughput", throughput, "/s"),
            Measure::new("latency_p50_us", "latency p50", Some(latency.latency_p50_us), "µs"),
            Measure::new("latency_p99_us", "latency p99", Some(latency.latency_p99_us), "µs"),
            Measure::new("latency_p999_us", "latency p99.9", Some(latency.latency_p999_us), "µs"),
            Measure::new(
                "server_cpu_us_per_message",
                "server CPU per message",
                self.server_cpu_us_per_message,
                "µs",
            ),
            Measure::new(
                "server_messages_per_cpu_s",
                "messages per CPU second",
                self.server_messages_per_cpu_s,
                "/s",
            ),
            Measure { of_first_round: true, ..bytes },
        ]
    }

    fn rate_limited(&self) -> u64 {
        self.rate_limited
    }
}

/// What to say when a rate limit was measured.
pub(crate) fn rate_limit_warning(count: u64) -> String {
    format!(
        "answers with RATE_LIMIT: {count}. THESE FIGURES SHOW THE SERVER'S RATE LIMIT, NOT THE SERVER. \
         Start it with a limit out of reach, for example MAX_MSG_PER_SECOND=1000000000 (rendezvous: \
         RATE_LIMIT_MESSAGES; the directory's limit of 50 a second and client is fixed)"
    )
}

/// Whether a connection was closed because of a rate limit.
pub(crate) fn is_rate_limit(ending: &Ending) -> bool {
    matches!(ending, Ending::Closed(1013, reason) if reason.starts_with("rate limit"))
}

/// `part` over `whole`; 0 where there is nothing to divide by.
pub(crate) fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// So many per second.
pub(crate) fn per_second(count: f64, duration: Duration) -> f64 {
    ratio(count, duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::runtime::DriverChoice;
    use crate::options::TrafficArgs;
    use crate::servers::{HostSpent, Servers};

    fn plan() -> Plan {
        let args = TrafficArgs {
            pairs: None,
            in_flight: None,
            payload: None,
            rate: None,
            duration: Some(Duration::from_secs(2)),
            warmup: None,
            members: None,
        };
        Plan {
            dialect: Dialect::Pairing,
            servers: Servers::example(1),
            traffic: args.resolve(),
            threads: 2,
            driver: DriverChoice::Auto,
        }
    }

    fn arrivals(count: u64) -> Tally {
        let (stage, mut tally) = (Stage::new(), Tally::new());
        stage.measure(0, 1_000_000);
        for time_ns in 0..count {
            tally.arrived(&stage, time_ns + 5_000, Some(Stamp { sender: 0, sequence: 0, time_ns }));
        }
        tally
    }

    #[test]
    fn figures_follow_from_the_counts() {
        let spent = Spent { hosts: vec![HostSpent { cpu_ns: Some(500_000_000), counts: None }] };
        let window = Window { spent, own_cpu_ns_per_s: 1_000_000_000 };
        let memory = Some((vec![1_000], vec![161_000]));
        let cost = ServerCost { window, memory, ..ServerCost::default() };
        let figures = RunFigures::new(&plan(), &arrivals(1_000), &cost);
        assert_eq!(figures.server_bytes_per_client, Some(400.0));
        assert_eq!(figures.throughput_messages_per_s, 500.0);
        assert_eq!(figures.server_cpu_us_per_message, Some(500.0));
        assert_eq!(figures.server_messages_per_cpu_s, Some(2_000.0));
        assert_eq!(figures.server_cpu_percent, Some(25.0));
        assert_eq!(figures.generator_cpu_percent, 50.0);
        assert!((figures.latency.latency_p50_us - 5.0).abs() < 0.01);
        assert_eq!(figures.exit_code(), 0);
        assert!(figures.warnings().is_empty());
    }

    #[test]
    fn a_rate_limit_is_never_quoted_as_a_figure() {
        let mut tally = arrivals(10);
        tally.refused(true);
        let figures = RunFigures::new(&plan(), &tally, &ServerCost::default());
        assert_eq!(figures.exit_code(), 3);
        assert!(figures.warnings()[0].contains("MAX_MSG_PER_SECOND"));
    }

    #[test]
    fn a_close_for_the_rate_is_a_rate_limit() {
        let mut tally = arrivals(10);
        tally.lost(Ending::Closed(1013, "rate limit hit, slow down".to_owned()));
        let figures = RunFigures::new(&plan(), &tally, &ServerCost::default());
        assert_eq!(figures.exit_code(), 3);
        assert!(!is_rate_limit(&Ending::Closed(1013, "too slow".to_owned())));
    }

    #[test]
    fn being_held_back_is_said() {
        let mut figures = RunFigures::new(&plan(), &arrivals(10), &ServerCost::default());
        figures.latency.latency_max_us = HELD_BACK_US_MIN + 1.0;
        assert!(figures.warnings().is_empty());
        figures.dialect = Dialect::Rooms;
        assert!(figures.warnings()[0].contains("MAX_MSG_PER_SECOND"));
    }

    #[test]
    fn lost_connections_and_silence_are_failures() {
        let mut tally = arrivals(10);
        tally.lost(Ending::Lost);
        let figures = RunFigures::new(&plan(), &tally, &ServerCost::default());
        assert_eq!((figures.exit_code(), figures.warnings().len()), (1, 1));
        let silence = RunFigures::new(&plan(), &Tally::new(), &ServerCost::default());
        assert_eq!(silence.exit_code(), 1);
    }

    #[test]
    fn nothing_is_divided_by_zero() {
        assert_eq!((ratio(1.0, 0.0), ratio(1.0, 4.0)), (0.0, 0.25));
        assert_eq!(per_second(10.0, Duration::ZERO), 0.0);
    }
}
