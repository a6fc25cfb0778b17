//! `pipe`: pairs of ends stream to each other; how much, how late, and what it costs the server.
//!
//! Frames go to and fro in a closed loop: each that arrives complete makes its receiver send one. `long` is the other
//! load: one stream one way, and a reader that stalls.

mod end;
mod figures;
mod long;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;

use self::end::End;
pub(crate) use self::figures::PipeFigures;
use self::figures::Tally;
use super::fleet::{self, Live};
use super::stage::{Phase, Stage};
use super::window::Window;
use crate::dialects::{Dialect, Seat};
use crate::failure::Failure;
use crate::net::runtime::DriverChoice;
use crate::net::spread::Spread;
use crate::options::{CommonArgs, PipeArgs, PipeLoad, PipeTraffic};
use crate::payload::Stamp;
use crate::report;
use crate::servers::Servers;

/// Everything one run needs to know.
#[derive(Debug, Clone)]
pub(crate) struct PipePlan {
    /// Where to.
    pub(crate) servers: Servers,
    /// What is streamed.
    pub(crate) traffic: PipeTraffic,
    /// Threads of the generator.
    pub(crate) threads: usize,
    /// Their driver.
    pub(crate) driver: DriverChoice,
}

#[derive(Serialize)]
struct Options<'a> {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    spread: Option<Spread>,
    #[serde(flatten)]
    traffic: &'a PipeTraffic,
    #[serde(flatten)]
    common: &'a CommonArgs,
}

/// Runs the scenario once and reports it.
pub(crate) fn run(options: &PipeArgs) -> Result<u8, Failure> {
    let servers = options.servers()?;
    let load = options.load()?;
    servers.await_relations()?;
    match load {
        PipeLoad::Frames { traffic } => run_frames(options, servers, traffic),
        PipeLoad::Long { bytes, stall, frame_bytes, mode } => {
            let load = long::Load { bytes, stall, frame_bytes, mode };
            long::run(options, &servers, load)
        }
    }
}

fn run_frames(options: &PipeArgs, servers: Servers, traffic: PipeTraffic) -> Result<u8, Failure> {
    let (threads, driver) = (options.common.threads, options.common.io_driver);
    let plan = PipePlan { servers, traffic, threads, driver };
    let figures = measure(&plan)?;
    let (url, common) = (plan.servers.urls(), &options.common);
    let spread = plan.servers.targets.placing().spread();
    let read = Options { url, spread, traffic: &plan.traffic, common };
    report::publish("pipe", &read, &figures, options.common.json.as_deref())
}

/// Runs the scenario once.
pub(crate) fn measure(plan: &PipePlan) -> Result<PipeFigures, Failure> {
    Seat::begin_round();
    let stage = Arc::new(Stage::new());
    let work = async |thread, stage| work(plan, thread, stage).await;
    let direct = |stage: &Stage| {
        stage.gather("connected", &stage.ready, plan.traffic.pairs * 2)?;
        stage.advance(Phase::Traffic);
        Window::measure(stage, &plan.servers, plan.traffic.warmup, plan.traffic.duration)
    };
    let (window, tallies) = fleet::run(plan.threads, plan.driver, &stage, work, direct)?;
    let mut total = Tally::new();
    tallies.iter().for_each(|tally| total.add(tally));
    Ok(PipeFigures::new(plan, &total, &window))
}

/// A thread with pairs.
async fn work(plan: &PipePlan, thread: usize, stage: Arc<Stage>) -> Tally {
    let shared = Rc::new(Shared {
        stage: Arc::clone(&stage),
        traffic: plan.traffic.clone(),
        frame: vec![b'.'; plan.traffic.frame_bytes],
        tally: RefCell::new(Tally::new()),
    });
    let live = Rc::new(Live::default());
    let mut ends = Vec::new();
    for index in fleet::share_groups(plan.traffic.pairs, 2, thread, plan.threads) {
        let path = Dialect::Pipes.path(&Seat::of(index, 2), "");
        let target = plan.servers.targets.of(index, 2);
        let end = match End::open(plan.traffic.mode, target, &path, index).await {
            Ok(end) => end,
            Err(failure) => {
                stage.fail(failure);
                break;
            }
        };
        stage.ready.fetch_add(1, Ordering::Relaxed);
        live.enter();
        let (shared, live, served) = (Rc::clone(&shared), Rc::clone(&live), end.clone());
        monoio::spawn(async move {
            shared.serve(&served, index).await;
            live.leave();
        });
        ends.push((index, end));
    }
    while !stage.reached(Phase::Traffic) {
        monoio::time::sleep(fleet::STEP).await;
    }
    ends.iter().for_each(|(index, end)| shared.start(end, *index));
    while !stage.reached(Phase::Stopped) {
        monoio::time::sleep(fleet::STEP).await;
    }
    ends.iter().for_each(|(_, end)| end.leave());
    // Nobody reads what is still under way to the end: the ends stop at once.
    ends.iter().for_each(|(_, end)| end.stop_reading());
    live.drained(std::iter::empty()).await;
    shared.tally.take()
}

/// What the ends of a thread share.
#[derive(Debug)]
struct Shared {
    stage: Arc<Stage>,
    traffic: PipeTraffic,
    /// A frame without its stamp.
    frame: Vec<u8>,
    tally: RefCell<Tally>,
}

impl Shared {
    /// This end's half of the frames under way.
    fn start(&self, end: &End, index: usize) {
        let in_flight = self.traffic.in_flight;
        let count = if index.is_multiple_of(2) { in_flight.div_ceil(2) } else { in_flight / 2 };
        (0..count).for_each(|_| self.send(end, index));
        end.flush();
    }

    async fn serve(&self, end: &End, index: usize) {
        let mut frames = Frames::new(self.traffic.frame_bytes);
        let ending = end
            .serve(|bytes, message_ends| {
                frames.take(bytes, |stamp| self.arrived(end, index, stamp));
                if message_ends && !frames.is_between() {
                    self.tally.borrow_mut().broken += 1;
                }
                None
            })
            .await;
        if !self.stage.reached(Phase::Stopped) {
            self.tally.borrow_mut().lost(&ending);
        }
    }

    fn arrived(&self, end: &End, index: usize, stamp: Option<Stamp>) {
        let now_ns = self.stage.now_ns();
        self.tally.borrow_mut().arrived(&self.stage, now_ns, stamp);
        if !self.stage.reached(Phase::Stopped) {
            self.send(end, index);
        }
    }

    fn send(&self, end: &End, index: usize) {
        let stamp = Stamp { sender: index as u32, sequence: 0, time_ns: self.stage.now_ns() };
        end.send(&self.frame, |frame| stamp.write(frame));
    }
}

/// Frames of one length in a stream of pieces.
#[derive(Debug)]
struct Frames {
    frame_bytes: usize,
    head: [u8; Stamp::LEN],
    /// Bytes of the frame that is coming.
    len: usize,
}

impl Frames {
    fn new(frame_bytes: usize) -> Self {
        Self { frame_bytes, head: [0; Stamp::LEN], len: 0 }
    }

    /// Whether no frame has begun.
    fn is_between(&self) -> bool {
        self.len == 0
    }

    /// Takes the next piece and hands over the stamp of each frame that is complete.
    fn take(&mut self, mut piece: &[u8], mut on_frame: impl FnMut(Option<Stamp>)) {
        while !piece.is_empty() {
            let (part, rest) = piece.split_at(piece.len().min(self.frame_bytes - self.len));
            let head_len = self.len.min(Stamp::LEN);
            let head_part = &part[..part.len().min(Stamp::LEN - head_len)];
            self.head[head_len..head_len + head_part.len()].copy_from_slice(head_part);
            self.len += part.len();
            piece = rest;
            if self.len == self.frame_bytes {
                self.len = 0;
                on_frame(Stamp::read(&self.head));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::end::EndEnding;
    use super::*;

    #[test]
    fn frames_are_found_in_pieces_of_any_size() {
        let stamps: Vec<_> = (0..3).map(|sequence| Stamp { sender: 1, sequence, time_ns: 7 }).collect();
        let mut stream = Vec::new();
        for stamp in &stamps {
            let mut frame = vec![b'.'; 100];
            stamp.write(&mut frame);
            stream.extend_from_slice(&frame);
        }
        for step in [1, 31, 32, 33, 99, 100, 101, 300] {
            let (mut frames, mut found) = (Frames::new(100), Vec::new());
            stream.chunks(step).for_each(|piece| frames.take(piece, |stamp| found.extend(stamp)));
            assert_eq!(found, stamps, "{step}");
            assert!(frames.is_between());
        }
    }

    #[test]
    fn a_frame_that_is_not_whole_is_noticed() {
        let (mut frames, mut found) = (Frames::new(100), 0);
        frames.take(&[b'.'; 150], |stamp| {
            assert_eq!(stamp, None);
            found += 1;
        });
        assert!(found == 1 && !frames.is_between());
    }

    #[test]
    fn endings_count_as_lost() {
        let mut tally = Tally::new();
        tally.lost(&EndEnding::Cut("reset".to_owned()));
        assert_eq!(tally.lost, 1);
    }
}
