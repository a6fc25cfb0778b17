//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::failure::Failure;
use crate::net::runtime::DriverChoice;
use crate::net::target::{Target, Url};
use crate::payload::PayloadKind;

/// Load and checks for WebRTC signaling servers that speak Parlor's protocols.
///
/// Exit codes: 0 fine; 1 a check failed, connections were lost, or the server was not reachable; 2 wrong options;
/// 3 the server's rate limit was measured, not the server.
#[derive(Debug, Parser)]
#[command(name = "parlor-loadgen", version)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands; each scenario is a command of its own as well.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs one scenario against one server
    Run {
        /// Which one
        #[arg(long, value_enum)]
        scenario: Scenario,
        /// Its options.
        #[command(flatten)]
        options: ScenarioArgs,
    },
    /// The same as `run --scenario pairing`: pairs relay messages; throughput and latency
    Pairing(ScenarioArgs),
    /// The same as `run --scenario idle`: clients connect and stay silent; bytes per client with --pid
    Idle(ScenarioArgs),
    /// The same as `run --scenario churn`: pairs connect, exchange one set of messages, and leave, again and again
    Churn(ScenarioArgs),
    /// The same as `run --scenario verify`: nothing lost, doubled, reordered, changed or sent to a stranger
    Verify(ScenarioArgs),
    /// Runs the pairing scenario against two servers in turns: a, b, a, b, …
    Compare(CompareArgs),
}

/// The scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Pairs relay messages; throughput and latency.
    Pairing,
    /// Clients connect and stay silent.
    Idle,
    /// Pairs connect, exchange one set of messages, and leave, again and again.
    Churn,
    /// Nothing lost, doubled, reordered, changed or sent to a stranger.
    Verify,
}

/// Options of one scenario against one server.
#[derive(Debug, Clone, Args)]
pub(crate) struct ScenarioArgs {
    /// The server
    #[arg(long, default_value = "ws://127.0.0.1:8080/ws")]
    pub(crate) url: Url,
    /// Process of the server, on this host: CPU time per message and bytes per client are then read from /proc
    ///
    /// Bytes per client mean something only for a server that was just started: later it reuses what it has.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Clients of `idle`, or pairs of clients that `churn` keeps going at the same time
    #[arg(long, value_parser = at_least_one)]
    pub(crate) clients: Option<usize>,
    /// `verify`: drops per client and second, by reset, close, `next` and `leave`, at random
    #[arg(long, value_parser = positive)]
    pub(crate) drop_rate: Option<f64>,
    /// What is sent.
    #[command(flatten)]
    pub(crate) traffic: TrafficArgs,
    /// What all commands share.
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Options of `compare`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArgs {
    /// The first server
    #[arg(long)]
    pub(crate) a: Url,
    /// The second server
    #[arg(long)]
    pub(crate) b: Url,
    /// Process of the first server; start both anew if bytes per client matter
    #[arg(long)]
    pub(crate) a_pid: Option<u32>,
    /// Process of the second server
    #[arg(long)]
    pub(crate) b_pid: Option<u32>,
    /// Runs against each
    #[arg(long, default_value = "5", value_parser = at_least_one)]
    pub(crate) rounds: usize,
    /// What is sent.
    #[command(flatten)]
    pub(crate) traffic: TrafficArgs,
    /// What all commands share.
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// How much of what is sent. Not every scenario knows every option: one that has no meaning is refused.
#[derive(Debug, Clone, Args)]
pub(crate) struct TrafficArgs {
    /// Pairs of clients [default: 200]
    #[arg(long, value_parser = at_least_one)]
    pub(crate) pairs: Option<usize>,
    /// Messages under way per pair, both directions together [default: 8]
    ///
    /// When two clients are matched they send so many between them, and from then on each message that arrives makes
    /// the one who got it send one back. 200 pairs with 8 in flight have 1,600 messages under way at any moment.
    /// This closed loop shows throughput; its latency is that of a full server.
    #[arg(long, conflicts_with = "rate", value_parser = at_least_one)]
    pub(crate) in_flight: Option<usize>,
    /// `ice` (about 250 bytes), `sdp` (about 2 KB), `mixed` (one sdp, ten ice), or a client message's size in bytes
    /// [default: ice]
    #[arg(long)]
    pub(crate) payload: Option<PayloadKind>,
    /// Messages per second over all pairs, sent at fixed times whatever the server does
    ///
    /// This open loop shows latency: it is measured from the time at which a message should have been sent, so that a
    /// stall of the server counts for every message that it held up.
    #[arg(long, value_parser = positive)]
    pub(crate) rate: Option<f64>,
    /// Seconds to measure [default: 10]
    #[arg(long, value_parser = seconds)]
    pub(crate) duration: Option<Duration>,
    /// Seconds of traffic before measuring [default: 2]
    #[arg(long, value_parser = seconds)]
    pub(crate) warmup: Option<Duration>,
}

/// Options that all commands share.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub(crate) struct CommonArgs {
    /// Threads of the generator, each with its own runtime
    #[arg(long, default_value = "1", value_parser = at_least_one)]
    pub(crate) threads: usize,
    /// How the generator does its I/O
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) io_driver: DriverChoice,
    /// Allows servers that are not on this host
    #[arg(long)]
    pub(crate) allow_remote: bool,
    /// The `Origin` header to send
    #[arg(long)]
    pub(crate) origin: Option<String>,
    /// Writes options and figures to this file, as JSON
    #[arg(long)]
    #[serde(skip)]
    pub(crate) json: Option<PathBuf>,
}

/// The traffic of a run, with the defaults filled in.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Traffic {
    /// Pairs of clients.
    pub(crate) pairs: usize,
    /// Messages under way per pair; none in the open loop.
    pub(crate) in_flight: Option<usize>,
    /// What the messages are.
    #[serde(serialize_with = "as_text")]
    pub(crate) payload: PayloadKind,
    /// Messages per second of the open loop.
    pub(crate) rate_per_s: Option<f64>,
    /// Measured seconds.
    #[serde(rename = "duration_s", serialize_with = "as_seconds")]
    pub(crate) duration: Duration,
    /// Seconds before them.
    #[serde(rename = "warmup_s", serialize_with = "as_seconds")]
    pub(crate) warmup: Duration,
}

impl TrafficArgs {
    /// Fills in the defaults.
    pub(crate) fn resolve(&self) -> Traffic {
        Traffic {
            pairs: self.pairs.unwrap_or(200),
            in_flight: if self.rate.is_some() { None } else { Some(self.in_flight.unwrap_or(8)) },
            payload: self.payload.unwrap_or(PayloadKind::Ice),
            rate_per_s: self.rate,
            duration: self.duration(),
            warmup: self.warmup.unwrap_or(Duration::from_secs(2)),
        }
    }

    /// Seconds to measure.
    pub(crate) fn duration(&self) -> Duration {
        self.duration.unwrap_or(Duration::from_secs(10))
    }
}

impl ScenarioArgs {
    /// The server, resolved.
    pub(crate) fn target(&self) -> Result<Target, Failure> {
        self.common.target(&self.url)
    }

    /// Refuses options that have no meaning in a scenario, so that nobody believes they had one.
    pub(crate) fn refuse_meaningless(&self, scenario: Scenario) -> Result<(), Failure> {
        use Scenario::{Churn, Idle, Pairing, Verify};
        let traffic = &self.traffic;
        let options: [(&str, bool, &[Scenario]); 7] = [
            ("--clients", self.clients.is_some(), &[Idle, Churn]),
            ("--drop-rate", self.drop_rate.is_some(), &[Verify]),
            ("--pairs", traffic.pairs.is_some(), &[Pairing, Verify]),
            ("--in-flight", traffic.in_flight.is_some(), &[Pairing, Verify]),
            ("--payload", traffic.payload.is_some(), &[Pairing]),
            ("--rate", traffic.rate.is_some(), &[Pairing]),
            ("--warmup", traffic.warmup.is_some(), &[Pairing]),
        ];
        match options.iter().find(|(_, given, known)| *given && !known.contains(&scenario)) {
            None => Ok(()),
            Some((option, _, _)) => {
                let scenario = scenario.to_possible_value().map(|value| value.get_name().to_owned());
                let scenario = scenario.unwrap_or_default();
                Err(Failure::Options(format!("{option} has no meaning in the scenario {scenario}")))
            }
        }
    }
}

impl CommonArgs {
    /// A server, resolved and allowed.
    pub(crate) fn target(&self, url: &Url) -> Result<Target, Failure> {
        Target::resolve(url, self.origin.clone(), self.allow_remote).map_err(Failure::Options)
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("is not a number from 1 on".to_owned()),
        Ok(number) => Ok(number),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && number < 1e9 => Ok(number),
        _ => Err("is not a number above 0".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 =
        text.strip_suffix('s').unwrap_or(text).parse().map_err(|_| "is not a number of seconds")?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

fn as_seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn as_text<S: serde::Serializer>(payload: &PayloadKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    fn scenario_args(line: &str) -> (Scenario, ScenarioArgs) {
        match parse(line).expect("good options").command {
            Command::Run { scenario, options } => (scenario, options),
            Command::Idle(options) => (Scenario::Idle, options),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_run_takes_what_the_guide_says() {
        let line = "x run --scenario pairing --url ws://127.0.0.1:9/ws --pairs 5 --in-flight 3 --payload mixed \
                    --duration 1.5 --warmup 0 --threads 2 --pid 7 --io-driver epoll --json f.json";
        let (scenario, options) = scenario_args(line);
        assert_eq!((scenario, options.pid, options.common.threads), (Scenario::Pairing, Some(7), 2));
        let traffic = options.traffic.resolve();
        assert_eq!((traffic.pairs, traffic.in_flight, traffic.payload), (5, Some(3), PayloadKind::Mixed));
        assert_eq!((traffic.duration, traffic.warmup), (Duration::from_millis(1_500), Duration::ZERO));
    }

    #[test]
    fn a_rate_is_the_open_loop() {
        let (_, options) = scenario_args("x run --scenario pairing --rate 1000");
        let traffic = options.traffic.resolve();
        assert_eq!((traffic.rate_per_s, traffic.in_flight), (Some(1_000.0), None));
        assert!(parse("x run --scenario pairing --rate 10 --in-flight 2").is_err());
        assert!(parse("x run --scenario pairing --rate 0").is_err());
    }

    #[test]
    fn options_without_meaning_are_refused() {
        let (scenario, options) = scenario_args("x idle --clients 10 --drop-rate 0.5");
        let refused = options.refuse_meaningless(scenario).expect_err("no drops in idle");
        assert_eq!(refused.to_string(), "--drop-rate has no meaning in the scenario idle");
        let (scenario, options) = scenario_args("x run --scenario verify --pairs 3 --drop-rate 0.5");
        assert!(options.refuse_meaningless(scenario).is_ok());
    }

    #[test]
    fn wrong_values_are_refused() {
        for line in [
            "x run",
            "x idle --clients 0",
            "x idle --url http://h/",
            "x churn --duration soon",
            "x verify --drop-rate -1",
            "x compare",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn compare_takes_two_servers() {
        let line = "x compare --a ws://127.0.0.1:1/ws --b ws://127.0.0.1:2/ws --rounds 3 --pairs 4 --a-pid 1";
        let Command::Compare(options) = parse(line).expect("good options").command else { panic!("compare") };
        assert_eq!((options.rounds, options.a_pid, options.b_pid), (3, Some(1), None));
        assert_eq!(options.traffic.resolve().pairs, 4);
    }
}
