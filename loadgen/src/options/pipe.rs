//! The options of `pipe`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::values::{as_seconds, byte_count};
use super::{CommonArgs, ServersArgs, TrafficArgs};
use crate::failure::Failure;
use crate::payload::Stamp;
use crate::servers::Servers;

/// What the ends of a pipe are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PipeMode {
    /// WebSocket: a frame is a binary message.
    #[default]
    Websocket,
    /// `Upgrade: tcp`: a frame is a chunk of so many bytes.
    Raw,
}

/// What is streamed.
#[derive(Debug, Clone, Args)]
pub(crate) struct StreamArgs {
    /// `pipe`: bytes of a frame [default: 16384]
    #[arg(long, value_parser = byte_count)]
    pub(crate) frame_bytes: Option<u64>,
    /// `pipe`: what the ends are [default: websocket]
    #[arg(long, value_enum)]
    pub(crate) mode: Option<PipeMode>,
}

/// Options of `pipe`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PipeArgs {
    /// Which servers.
    #[command(flatten)]
    pub(crate) servers: ServersArgs,
    /// One pair sends so many bytes one way (`1GiB`, `64MiB`, `4096`), as fast as they are taken
    #[arg(long, value_parser = byte_count)]
    pub(crate) bytes: Option<u64>,
    /// Milliseconds for which the reader of `--bytes` stops reading when half has come [default: 0]
    #[arg(long)]
    pub(crate) stall_ms: Option<u64>,
    /// What is streamed.
    #[command(flatten)]
    pub(crate) stream: StreamArgs,
    /// How much of it; `--pairs`, `--in-flight`, `--duration` and `--warmup` have a meaning.
    #[command(flatten)]
    pub(crate) traffic: TrafficArgs,
    /// What all commands share.
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// The traffic of a pipe run, with the defaults filled in.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PipeTraffic {
    /// Pairs of ends.
    pub(crate) pairs: usize,
    /// Frames under way per pair, both directions together.
    pub(crate) in_flight: usize,
    /// Bytes of a frame.
    pub(crate) frame_bytes: usize,
    /// What the ends are.
    pub(crate) mode: PipeMode,
    /// Measured seconds.
    #[serde(rename = "duration_s", serialize_with = "as_seconds")]
    pub(crate) duration: Duration,
    /// Seconds before them.
    #[serde(rename = "warmup_s", serialize_with = "as_seconds")]
    pub(crate) warmup: Duration,
}

/// What a pipe run does.
#[derive(Debug, Clone)]
pub(crate) enum PipeLoad {
    /// Frames go to and fro.
    Frames {
        /// How many of what.
        traffic: PipeTraffic,
    },
    /// One long stream one way.
    Long {
        /// Its length.
        bytes: u64,
        /// For how long its reader stalls in the middle.
        stall: Duration,
        /// Bytes of a frame.
        frame_bytes: usize,
        /// What the ends are.
        mode: PipeMode,
    },
}

impl StreamArgs {
    /// Fills in the defaults.
    pub(crate) fn resolve(&self, traffic: &TrafficArgs) -> Result<PipeTraffic, Failure> {
        let options = [
            ("--members", traffic.members.is_some()),
            ("--payload", traffic.payload.is_some()),
            ("--rate", traffic.rate.is_some()),
        ];
        if let Some((option, _)) = options.iter().find(|(_, given)| *given) {
            return Err(Failure::Options(format!("{option} has no meaning for pipes")));
        }
        let frame_bytes = self.frame_bytes.unwrap_or(16 * 1024) as usize;
        if frame_bytes < Stamp::LEN {
            return Err(Failure::Options(format!("a frame has at least {} bytes: its stamp", Stamp::LEN)));
        }
        Ok(PipeTraffic {
            pairs: traffic.pairs.unwrap_or(10),
            in_flight: traffic.in_flight.unwrap_or(8),
            frame_bytes,
            mode: self.mode.unwrap_or_default(),
            duration: traffic.duration(),
            warmup: traffic.warmup.unwrap_or(Duration::from_secs(2)),
        })
    }

    /// Whether any was given.
    pub(crate) fn is_given(&self) -> bool {
        self.frame_bytes.is_some() || self.mode.is_some()
    }
}

impl PipeArgs {
    /// The servers, resolved.
    pub(crate) fn servers(&self) -> Result<Servers, Failure> {
        self.servers.resolve(&self.common, "ws://127.0.0.1:8080/")
    }

    /// What to do.
    pub(crate) fn load(&self) -> Result<PipeLoad, Failure> {
        let traffic = self.stream.resolve(&self.traffic)?;
        let Some(bytes) = self.bytes else {
            return match self.stall_ms {
                None => Ok(PipeLoad::Frames { traffic }),
                Some(_) => Err(Failure::Options("--stall-ms goes with --bytes".to_owned())),
            };
        };
        let given = &self.traffic;
        let more = given.pairs.is_some() || given.in_flight.is_some();
        if more || given.duration.is_some() || given.warmup.is_some() {
            return Err(Failure::Options(
                "--bytes is one stream of one pair, as long as it takes".to_owned(),
            ));
        }
        Ok(PipeLoad::Long {
            bytes,
            stall: Duration::from_millis(self.stall_ms.unwrap_or(0)),
            frame_bytes: traffic.frame_bytes,
            mode: traffic.mode,
        })
    }
}
