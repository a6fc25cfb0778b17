//! The command line.

mod pipe;
mod servers;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

pub(crate) use self::pipe::{PipeArgs, PipeLoad, PipeMode, PipeTraffic, StreamArgs};
pub(crate) use self::servers::ServersArgs;
use self::values::{as_seconds, as_text, at_least_one, positive, seconds};
use crate::dialects::Dialect;
use crate::failure::Failure;
use crate::net::runtime::DriverChoice;
use crate::net::target::{Target, Url};
use crate::payload::PayloadKind;
use crate::servers::Servers;

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
    /// Runs one scenario against one server, or against several hosts
    Run {
        /// Which one
        #[arg(long, value_enum, default_value = "relay")]
        scenario: Scenario,
        /// Its options.
        #[command(flatten)]
        options: ScenarioArgs,
    },
    /// The same as `run --scenario relay`: pairs relay messages; throughput and latency
    #[command(visible_alias = "pairing")]
    Relay(ScenarioArgs),
    /// The same as `run --scenario idle`: clients connect and stay silent; bytes per client with --pid
    ///
    /// Pairing: not in the queue. Rendezvous: each alone on its connection id. Directory: not logged in. Rooms: eight to a
    /// room. Introductions: each with a document of its own.
    Idle(ScenarioArgs),
    /// The same as `run --scenario churn`: pairs connect, exchange one set of messages, and leave, again and again
    Churn(ScenarioArgs),
    /// The same as `run --scenario verify`: nothing lost, doubled, reordered, changed or sent to a stranger
    ///
    /// Nobody else may be in the server's directory meanwhile. Raise the limits that are not to be met:
    /// MAX_MSG_PER_SECOND for pairing, RATE_LIMIT_MESSAGES for rendezvous.
    ///
    /// Over several servers the same holds, but for what depends on when one host hears of another: the order of the
    /// announcements of rendezvous, announcements of clients that left again, signals to a member of a room that came less
    /// than a second ago. Groups of introductions then send one message after the other. Of a server in --may-die it is
    /// judged what the others hear of its death.
    Verify(ScenarioArgs),
    /// Streams through pipes: frames and MiB per second and per CPU second, latency; or one long stream and a reader
    /// that stalls
    Pipe(PipeArgs),
    /// Runs the relay or the pipe scenario against two servers in turns: a, b, a, b, …
    Compare(CompareArgs),
}

/// The scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Pairs relay messages; throughput and latency.
    #[value(alias = "pairing")]
    Relay,
    /// Clients connect and stay silent.
    Idle,
    /// Pairs connect, exchange one set of messages, and leave, again and again.
    Churn,
    /// Nothing lost, doubled, reordered, changed or sent to a stranger.
    Verify,
}

/// The scenarios that can be run against two servers in turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compared {
    /// Pairs relay messages.
    #[value(alias = "pairing")]
    Relay,
    /// Pairs stream through pipes.
    Pipe,
}

/// Options of one scenario against one server.
#[derive(Debug, Clone, Args)]
pub(crate) struct ScenarioArgs {
    /// Which servers.
    #[command(flatten)]
    pub(crate) servers: ServersArgs,
    /// What the clients speak
    #[arg(long, value_enum, default_value = "pairing")]
    pub(crate) dialect: Dialect,
    /// Clients of `idle`, pairs of clients that `churn` keeps going at the same time, or clients of
    /// `verify --dialect directory` that log in and out all the time
    #[arg(long, value_parser = at_least_one)]
    pub(crate) clients: Option<usize>,
    /// `verify`: drops per client and second, at random: by reset, close, and as the dialect has it
    #[arg(long, value_parser = positive)]
    pub(crate) drop_rate: Option<f64>,
    /// `verify`: a server that may be killed (kill -9) meanwhile, and started again: one of those in --url
    ///
    /// Its clients are then lost, and the others must be told so in time. It may also be stopped (SIGTERM).
    #[arg(long, value_delimiter = ',', value_name = "URL")]
    pub(crate) may_die: Vec<Url>,
    /// `verify`: seconds within which the others must be told that a server of --may-die is gone [default: 6]
    #[arg(long, value_parser = seconds, requires = "may_die")]
    pub(crate) told_within: Option<Duration>,
    /// `verify`: Redis is to come back empty meanwhile: the order of the directory's list is not judged, nor whether a
    /// room without members lives on
    #[arg(long)]
    pub(crate) redis_restarts: bool,
    /// `verify --dialect pipes`: what the ends are [default: now one, now the other]
    #[arg(long, value_enum)]
    pub(crate) mode: Option<PipeMode>,
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
    /// What is run
    #[arg(long, value_enum, default_value = "relay")]
    pub(crate) scenario: Compared,
    /// What the clients of `relay` speak
    #[arg(long, value_enum, default_value = "pairing")]
    pub(crate) dialect: Dialect,
    /// The first server, or several hosts with commas between them
    #[arg(long, value_delimiter = ',', required = true)]
    pub(crate) a: Vec<Url>,
    /// The second server, or several hosts
    #[arg(long, value_delimiter = ',', required = true)]
    pub(crate) b: Vec<Url>,
    /// Process of the first server, or one of each host; start all anew if bytes per client matter
    #[arg(long, value_delimiter = ',')]
    pub(crate) a_pid: Vec<u32>,
    /// Process of the second server, or one of each host
    #[arg(long, value_delimiter = ',')]
    pub(crate) b_pid: Vec<u32>,
    /// Runs against each
    #[arg(long, default_value = "5", value_parser = at_least_one)]
    pub(crate) rounds: usize,
    /// What is streamed.
    #[command(flatten)]
    pub(crate) stream: StreamArgs,
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
    /// Rooms: clients to a room, in place of the two of a pair [default: 2]
    #[arg(long, value_parser = at_least_one)]
    pub(crate) members: Option<usize>,
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
    #[arg(long, visible_alias = "seconds", value_parser = seconds)]
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
    /// Clients to a pair: more than two in a room.
    pub(crate) members: usize,
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
            members: self.members.unwrap_or(2),
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
    /// The servers, resolved.
    pub(crate) fn servers(&self) -> Result<Servers, Failure> {
        self.servers.resolve(&self.common, "ws://127.0.0.1:8080/ws")
    }

    /// Of each server whether it may be killed; an error where one is named that is no server of the run.
    pub(crate) fn may_die(&self, servers: &Servers) -> Result<Vec<bool>, Failure> {
        let mut may_die = vec![false; servers.targets.all().len()];
        for url in &self.may_die {
            let is_it = |target: &Target| target.url.authority() == url.authority();
            let Some(place) = servers.targets.all().iter().position(is_it) else {
                return Err(Failure::Options(format!("--may-die {url}: that is no server in --url")));
            };
            may_die[place] = true;
        }
        Ok(may_die)
    }

    /// Refuses options that have no meaning in a scenario, so that nobody believes they had one.
    pub(crate) fn refuse_meaningless(&self, scenario: Scenario) -> Result<(), Failure> {
        use Scenario::{Churn, Idle, Relay, Verify};
        let traffic = &self.traffic;
        let options: [(&str, bool, &[Scenario]); 11] = [
            ("--clients", self.clients.is_some(), &[Idle, Churn, Verify]),
            ("--drop-rate", self.drop_rate.is_some(), &[Verify]),
            ("--may-die", !self.may_die.is_empty(), &[Verify]),
            ("--redis-restarts", self.redis_restarts, &[Verify]),
            ("--told-within", self.told_within.is_some(), &[Verify]),
            ("--pairs", traffic.pairs.is_some(), &[Relay, Verify]),
            ("--members", traffic.members.is_some(), &[Relay]),
            ("--in-flight", traffic.in_flight.is_some(), &[Relay, Verify]),
            ("--payload", traffic.payload.is_some(), &[Relay]),
            ("--rate", traffic.rate.is_some(), &[Relay]),
            ("--warmup", traffic.warmup.is_some(), &[Relay]),
        ];
        let name = scenario.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let refused =
            |what: &str| Err(Failure::Options(format!("{what} has no meaning in the scenario {name}")));
        if let Some((option, _, _)) =
            options.iter().find(|(_, given, known)| *given && !known.contains(&scenario))
        {
            return refused(option);
        }
        if self.dialect == Dialect::Pipes && scenario != Verify {
            return refused("--dialect pipes");
        }
        if self.mode.is_some() && self.dialect != Dialect::Pipes {
            return refused("--mode");
        }
        if scenario == Verify && self.clients.is_some() && self.dialect != Dialect::Directory {
            return refused(&format!("--clients with --dialect {}", self.dialect.name()));
        }
        Ok(())
    }
}

impl CompareArgs {
    /// The two, resolved.
    pub(crate) fn servers(&self) -> Result<[Servers; 2], Failure> {
        let servers = |urls, pids| servers::servers(urls, pids, None, &self.common);
        Ok([servers(&self.a, &self.a_pid)?, servers(&self.b, &self.b_pid)?])
    }
}

impl CommonArgs {
    /// A server, resolved and allowed.
    pub(crate) fn target(&self, url: &Url) -> Result<Target, Failure> {
        Target::resolve(url, self.origin.clone(), self.allow_remote).map_err(Failure::Options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::spread::{Placing, Spread};
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
        assert_eq!((scenario, options.common.threads), (Scenario::Relay, 2));
        assert_eq!(options.servers.pid, [7]);
        let traffic = options.traffic.resolve();
        assert_eq!((traffic.pairs, traffic.in_flight, traffic.payload), (5, Some(3), PayloadKind::Mixed));
        assert_eq!((traffic.duration, traffic.warmup), (Duration::from_millis(1_500), Duration::ZERO));
    }

    #[test]
    fn a_run_relays_in_any_dialect() {
        let (scenario, options) = scenario_args("x run --dialect rooms --members 5 --seconds 3");
        assert_eq!((scenario, options.dialect), (Scenario::Relay, Dialect::Rooms));
        let traffic = options.traffic.resolve();
        assert_eq!((traffic.members, traffic.duration), (5, Duration::from_secs(3)));
        assert!(options.refuse_meaningless(scenario).is_ok());
        assert!(parse("x pairing --pairs 3").is_ok() && parse("x relay --pairs 3").is_ok());
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
        for line in [
            "x run --scenario verify --dialect rooms --clients 5",
            "x idle --dialect pipes",
            "x run --scenario verify --mode raw",
            "x run --scenario churn --members 3",
        ] {
            let (scenario, options) = scenario_args(line);
            assert!(options.refuse_meaningless(scenario).is_err(), "{line}");
        }
        let (scenario, options) = scenario_args("x run --scenario verify --pairs 3 --drop-rate 0.5");
        assert!(options.refuse_meaningless(scenario).is_ok());
    }

    #[test]
    fn several_servers_are_named_with_commas_or_one_by_one() {
        let urls = |line: &str| {
            let servers = scenario_args(line).1.servers().expect("good servers");
            (servers.urls(), servers.pids.clone(), servers.targets.placing())
        };
        let (one, _, placing) = urls("x run");
        assert_eq!((one.as_str(), placing), ("ws://127.0.0.1:8080/ws", Placing::ONE));
        let both = "ws://127.0.0.1:1/ws,ws://127.0.0.1:2/ws".to_owned();
        let across = Placing::new(2, Spread::Across);
        let commas = "x run --url ws://127.0.0.1:1/ws,ws://127.0.0.1:2/ws --pid 3,4";
        assert_eq!(urls(commas), (both.clone(), vec![3, 4], across));
        let again = "x run --url ws://127.0.0.1:1/ws --url ws://127.0.0.1:2/ws --spread same";
        assert_eq!(urls(again), (both, vec![], Placing::new(2, Spread::Same)));
        for bad in [
            "x run --url ws://127.0.0.1:1/,ws://127.0.0.1:1/",
            "x run --spread same",
            "x run --url ws://127.0.0.1:1/,ws://127.0.0.1:2/ --pid 3",
        ] {
            assert!(scenario_args(bad).1.servers().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_servers_of_the_run_may_die() {
        let line = "x run --scenario verify --url ws://127.0.0.1:1/ws,ws://127.0.0.1:2/ws --may-die ";
        let may_die = |url: &str| {
            let (scenario, options) = scenario_args(&format!("{line}{url}"));
            assert!(options.refuse_meaningless(scenario).is_ok());
            options.may_die(&options.servers().expect("good servers"))
        };
        assert_eq!(may_die("ws://127.0.0.1:2").expect("the second"), [false, true]);
        let refused = may_die("ws://127.0.0.1:3").expect_err("no such server").to_string();
        assert!(refused.contains("no server in --url"), "{refused}");
        let (scenario, options) = scenario_args("x run --may-die ws://127.0.0.1:8080");
        assert!(options.refuse_meaningless(scenario).is_err());
    }

    #[test]
    fn wrong_values_are_refused() {
        for line in [
            "x run --dialect else",
            "x idle --clients 0",
            "x idle --url http://h/",
            "x churn --duration soon",
            "x verify --drop-rate -1",
            "x compare",
            "x run --spread wide",
            "x run --url ws://127.0.0.1:1/,,",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn compare_takes_two_servers() {
        let line = "x compare --a ws://127.0.0.1:1/ws --b ws://127.0.0.1:2/ws --rounds 3 --pairs 4 --a-pid 1";
        let Command::Compare(options) = parse(line).expect("good options").command else { panic!("compare") };
        assert_eq!((options.rounds, &options.a_pid[..], &options.b_pid[..]), (3, &[1][..], &[][..]));
        assert_eq!(options.traffic.resolve().pairs, 4);
    }

    #[test]
    fn a_pipe_takes_frames_or_one_long_stream() {
        let line = "x pipe --frame-bytes 4096 --in-flight 2 --pairs 3 --mode raw --seconds 4";
        let Command::Pipe(options) = parse(line).expect("good options").command else { panic!("pipe") };
        let PipeLoad::Frames { traffic } = options.load().expect("frames") else { panic!("frames") };
        assert_eq!((traffic.frame_bytes, traffic.in_flight, traffic.pairs), (4_096, 2, 3));
        assert_eq!((traffic.mode, traffic.duration), (PipeMode::Raw, Duration::from_secs(4)));
        let line = "x pipe --bytes 1GiB --stall-ms 2000";
        let Command::Pipe(options) = parse(line).expect("good options").command else { panic!("pipe") };
        let PipeLoad::Long { bytes, stall, .. } = options.load().expect("one stream") else { panic!("one") };
        assert_eq!((bytes, stall), (1 << 30, Duration::from_secs(2)));
        for bad in ["x pipe --bytes 1GiB --pairs 2", "x pipe --stall-ms 5", "x pipe --frame-bytes 8"] {
            let Command::Pipe(options) = parse(bad).expect("each is known").command else { panic!("pipe") };
            assert!(options.load().is_err(), "{bad}");
        }
        let line = "x compare --scenario pipe --a ws://127.0.0.1:1 --b ws://127.0.0.1:2 --frame-bytes 64";
        let Command::Compare(options) = parse(line).expect("good options").command else { panic!("compare") };
        assert_eq!(options.scenario, Compared::Pipe);
    }
}
