//! One long stream one way: is every byte there, and what does a reader that stalls cost the server in memory?

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::end::{End, EndEnding};
use crate::dialects::{Dialect, Seat};
use crate::failure::Failure;
use crate::net::spread::{Spread, Targets};
use crate::options::{CommonArgs, PipeArgs, PipeMode};
use crate::process;
use crate::report::{self, Figures, Row};
use crate::scenarios::content::{self, Digest};
use crate::scenarios::fleet;
use crate::scenarios::run::ratio;
use crate::scenarios::stage::{Phase, Stage};
use crate::servers::{HostsFigures, Servers, Spent};

/// How often the server's memory is read.
const LOOK: Duration = Duration::from_millis(5);
/// A stream that stands still for so long, the stall not counted, has failed.
const STANDSTILL: Duration = Duration::from_secs(15);

/// What is streamed.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Load {
    pub(super) bytes: u64,
    #[serde(rename = "stall_ms", serialize_with = "as_ms")]
    pub(super) stall: Duration,
    pub(super) frame_bytes: usize,
    pub(super) mode: PipeMode,
}

fn as_ms<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_millis() as u64)
}

#[derive(Serialize)]
struct Options<'a> {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    spread: Option<Spread>,
    #[serde(flatten)]
    load: Load,
    #[serde(flatten)]
    common: &'a CommonArgs,
}

/// The figures of a long stream.
#[derive(Debug, Serialize)]
struct LongFigures {
    bytes_sent: u64,
    bytes_arrived: u64,
    digests_equal: bool,
    ended_in_order: bool,
    seconds: f64,
    throughput_mib_per_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_rss_before_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_rss_worst_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_rss_growth_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_us_per_mib: Option<f64>,
    #[serde(skip)]
    ending: Option<EndEnding>,
    #[serde(flatten)]
    hosts: HostsFigures,
}

/// What the thread with the two ends found.
#[derive(Debug, Default)]
struct Streamed {
    sent: Digest,
    arrived: Digest,
    ending: Option<EndEnding>,
    seconds: f64,
}

/// What the directing thread read.
#[derive(Debug, Default)]
struct Watched {
    /// Of each server: at first, and at its worst.
    rss: Option<(Vec<u64>, Vec<u64>)>,
    spent: Spent,
}

/// Runs the load and reports it.
pub(super) fn run(options: &PipeArgs, servers: &Servers, load: Load) -> Result<u8, Failure> {
    let stage = Arc::new(Stage::new());
    let work = async |thread, stage: Arc<Stage>| match thread {
        0 => stream(&servers.targets, load, &stage).await,
        _ => Streamed::default(),
    };
    let direct = |stage: &Stage| watch(servers, load, stage);
    let (watched, streamed) = fleet::run(1, options.common.io_driver, &stage, work, direct)?;
    let streamed = streamed.into_iter().next().unwrap_or_default();
    let figures = LongFigures::new(servers, &streamed, &watched);
    let (url, spread) = (servers.urls(), servers.targets.placing().spread());
    let read = Options { url, spread, load, common: &options.common };
    report::publish("pipe", &read, &figures, options.common.json.as_deref())
}

/// The directing thread: reads the servers' memory until the stream has ended.
fn watch(servers: &Servers, load: Load, stage: &Stage) -> Result<Watched, Failure> {
    let rss = || servers.memory(process::rss_bytes);
    let (before, spent_before) = (rss()?, servers.read()?);
    let mut worst = before.clone();
    stage.advance(Phase::Traffic);
    let mut moved = (Instant::now(), 0);
    while !stage.reached(Phase::Draining) {
        thread::sleep(LOOK);
        stage.check()?;
        for (worst, now) in worst.iter_mut().flatten().zip(rss()?.into_iter().flatten()) {
            *worst = now.max(*worst);
        }
        let now = stage.moves.load(std::sync::atomic::Ordering::Relaxed);
        if now != moved.1 {
            moved = (Instant::now(), now);
        } else if moved.0.elapsed() > STANDSTILL + load.stall {
            let across = if servers.targets.placing().is_across() { ", over two hosts" } else { "" };
            return Err(Failure::Server(format!("the stream stands still after {now} bytes{across}")));
        }
    }
    let spent = spent_before.until(&servers.read_at_end()?);
    Ok(Watched { rss: before.zip(worst), spent })
}

/// Opens both ends, sends and reads.
async fn stream(targets: &Targets, load: Load, stage: &Arc<Stage>) -> Streamed {
    while !stage.reached(Phase::Traffic) {
        monoio::time::sleep(fleet::STEP).await;
    }
    let open = async |index| {
        let path = Dialect::Pipes.path(&Seat::of(index, 2), "");
        End::open(load.mode, targets.of(index, 2), &path, index).await
    };
    let (writer, reader) = match (open(0).await, open(1).await) {
        (Ok(writer), Ok(reader)) => (writer, reader),
        (Err(failure), _) | (_, Err(failure)) => {
            stage.fail(failure);
            return Streamed::default();
        }
    };
    let start = Instant::now();
    let sent = Rc::new(RefCell::new(Digest::default()));
    let stopped = Rc::new(Cell::new(false));
    let writing = monoio::spawn(write(writer.clone(), load, Rc::clone(&sent), Rc::clone(&stopped)));
    // What comes to the writer is the answer to its close.
    let answered = monoio::spawn(async move { writer.serve(|_, _| None).await });
    let (arrived, ending) = read(&reader, load, stage).await;
    stopped.set(true);
    writing.await;
    let _ = monoio::time::timeout(Duration::from_secs(2), answered).await;
    let seconds = start.elapsed().as_secs_f64();
    stage.advance(Phase::Draining);
    let sent = *sent.borrow();
    Streamed { sent, arrived, ending: Some(ending), seconds }
}

async fn write(end: End, load: Load, sent: Rc<RefCell<Digest>>, stopped: Rc<Cell<bool>>) {
    let (mut left, mut frame) = (load.bytes, Vec::new());
    while left > 0 && !stopped.get() {
        let len = (load.frame_bytes as u64).min(left);
        frame.clear();
        content::binary(left, len as usize, &mut frame);
        sent.borrow_mut().push(&frame);
        end.send(&frame, |_| ());
        let _ = monoio::time::timeout(STANDSTILL + load.stall, end.flushed()).await;
        left -= len;
    }
    end.leave();
}

async fn read(end: &End, load: Load, stage: &Stage) -> (Digest, EndEnding) {
    let (mut arrived, mut stall) = (Digest::default(), Some(load.stall).filter(|stall| !stall.is_zero()));
    let ending = end
        .serve(|bytes, _| {
            arrived.push(bytes);
            stage.moves.store(arrived.len, std::sync::atomic::Ordering::Relaxed);
            if arrived.len * 2 >= load.bytes { stall.take() } else { None }
        })
        .await;
    end.leave();
    (arrived, ending)
}

impl LongFigures {
    fn new(servers: &Servers, streamed: &Streamed, watched: &Watched) -> Self {
        let sum = |bytes: &[u64]| bytes.iter().sum::<u64>();
        let (before, worst) = watched.rss.as_ref().map(|(before, worst)| (sum(before), sum(worst))).unzip();
        let mut hosts = HostsFigures::new(servers, &watched.spent, 0);
        if let Some((before, worst)) = &watched.rss {
            hosts = hosts.with_rss_growth(before, worst);
        }
        let mib = streamed.arrived.len as f64 / 1_048_576.0;
        Self {
            bytes_sent: streamed.sent.len,
            bytes_arrived: streamed.arrived.len,
            digests_equal: streamed.sent.finish() == streamed.arrived.finish(),
            ended_in_order: matches!(streamed.ending, Some(EndEnding::InOrder(_))),
            seconds: streamed.seconds,
            throughput_mib_per_s: ratio(mib, streamed.seconds),
            server_rss_before_bytes: before,
            server_rss_worst_bytes: worst,
            server_rss_growth_bytes: before.zip(worst).map(|(before, worst)| worst.saturating_sub(before)),
            hosts,
            server_cpu_us_per_mib: watched.spent.cpu_ns().map(|ns| ratio(ns as f64 / 1e3, mib)),
            ending: streamed.ending.clone(),
        }
    }
}

impl Figures for LongFigures {
    fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            Row::count("bytes sent", self.bytes_sent, ""),
            Row::count("bytes arrived", self.bytes_arrived, ""),
            Row::text("digests", if self.digests_equal { "equal" } else { "DIFFERENT" }),
            Row::quantity("seconds", self.seconds, "s"),
            Row::quantity("throughput", self.throughput_mib_per_s, "MiB/s"),
        ];
        let memory = [
            ("server RSS before", self.server_rss_before_bytes),
            ("server RSS at its worst", self.server_rss_worst_bytes),
            ("server RSS growth", self.server_rss_growth_bytes),
        ];
        let row = |(what, bytes): (&str, Option<u64>)| Some(Row::count(what, bytes? / 1024, "KiB"));
        rows.extend(memory.into_iter().filter_map(row));
        rows.extend(self.server_cpu_us_per_mib.map(|us| Row::quantity("server CPU per MiB", us, "µs")));
        rows.extend(self.hosts.rows());
        rows
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.digests_equal {
            warnings.push("what arrived is not what was sent".to_owned());
        }
        if !self.ended_in_order {
            warnings.push(format!("the reader's stream did not end in order: {:?}", self.ending));
        }
        warnings
    }

    fn exit_code(&self) -> u8 {
        u8::from(!self.digests_equal || !self.ended_in_order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::HostSpent;

    fn streamed(sent: &[u8], arrived: &[u8], ending: EndEnding) -> Streamed {
        let digest = |bytes: &[u8]| {
            let mut digest = Digest::default();
            digest.push(bytes);
            digest
        };
        Streamed { sent: digest(sent), arrived: digest(arrived), ending: Some(ending), seconds: 2.0 }
    }

    #[test]
    fn one_wrong_byte_or_a_cut_is_a_failure() {
        let exit_code = |sent: &[u8], arrived: &[u8], ending| {
            LongFigures::new(&Servers::example(1), &streamed(sent, arrived, ending), &Watched::default())
                .exit_code()
        };
        let in_order = || EndEnding::InOrder("Finished".to_owned());
        assert_eq!(exit_code(b"abc", b"abc", in_order()), 0);
        assert_eq!(exit_code(b"abc", b"abd", in_order()), 1);
        assert_eq!(exit_code(b"abc", b"ab", in_order()), 1);
        assert_eq!(exit_code(b"abc", b"abc", EndEnding::Cut("ConnectionReset".to_owned())), 1);
    }

    #[test]
    fn growth_is_the_worst_over_what_was_before() {
        let spent = Spent { hosts: vec![HostSpent { cpu_ns: Some(2_000_000), counts: None }] };
        let watched = Watched { rss: Some((vec![1_000], vec![5_000])), spent };
        let bytes = vec![0; 1 << 20];
        let figures = LongFigures::new(
            &Servers::example(1),
            &streamed(&bytes, &bytes, EndEnding::InOrder(String::new())),
            &watched,
        );
        assert_eq!(figures.server_rss_growth_bytes, Some(4_000));
        assert_eq!((figures.server_cpu_us_per_mib, figures.throughput_mib_per_s), (Some(2_000.0), 0.5));
    }
}
