//! What the directing thread and the threads with clients share: the clock, the phase, counts and the first failure.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::Failure;

/// How long nothing may move while clients gather before that is a failure.
const STANDSTILL: Duration = Duration::from_secs(15);
/// How often the directing thread looks.
const LOOK: Duration = Duration::from_millis(10);

/// Where a scenario stands. Each phase follows the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Clients connect and find partners.
    Gathering,
    /// Clients do what the scenario is about.
    Traffic,
    /// Nothing new begins; what is under way arrives.
    Draining,
    /// Clients leave.
    Stopped,
}

/// The state that all threads of a scenario share.
#[derive(Debug)]
pub(crate) struct Stage {
    epoch: Instant,
    phase: AtomicU8,
    window_start_ns: AtomicU64,
    window_end_ns: AtomicU64,
    /// Clients that are connected and know their id.
    pub(crate) ready: AtomicUsize,
    /// Clients that have a partner.
    pub(crate) paired: AtomicUsize,
    /// Whatever the scenario counts to see that something moves.
    pub(crate) moves: AtomicU64,
    failed: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

impl Stage {
    /// A stage whose clock starts now.
    pub(crate) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            phase: AtomicU8::new(Phase::Gathering as u8),
            window_start_ns: AtomicU64::new(u64::MAX),
            window_end_ns: AtomicU64::new(u64::MAX),
            ready: AtomicUsize::new(0),
            paired: AtomicUsize::new(0),
            moves: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    /// Nanoseconds since the clock started.
    pub(crate) fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Whether `phase` has come.
    pub(crate) fn reached(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Relaxed) >= phase as u8
    }

    /// Goes on to `phase`.
    pub(crate) fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::Relaxed);
    }

    /// Sets the measured interval.
    pub(crate) fn measure(&self, start_ns: u64, end_ns: u64) {
        self.window_end_ns.store(end_ns, Ordering::Relaxed);
        self.window_start_ns.store(start_ns, Ordering::Relaxed);
    }

    /// Whether an instant lies in the measured interval.
    pub(crate) fn measures(&self, at_ns: u64) -> bool {
        at_ns >= self.window_start_ns.load(Ordering::Relaxed)
            && at_ns < self.window_end_ns.load(Ordering::Relaxed)
    }

    /// Keeps the first failure; the directing thread sees it.
    pub(crate) fn fail(&self, failure: Failure) {
        self.failure.lock().expect("no thread panics with the lock").get_or_insert(failure);
        self.failed.store(true, Ordering::Release);
    }

    /// The first failure, if there is one.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let failure = self.failure.lock().expect("no thread panics with the lock").take();
        Err(failure.unwrap_or_else(|| Failure::Server("failed before".to_owned())))
    }

    /// Waits until `count` clients are `what`.
    pub(crate) fn gather(&self, what: &str, counted: &AtomicUsize, count: usize) -> Result<(), Failure> {
        let bar = bar(count as u64, what, "{msg:10} {wide_bar} {pos}/{len}");
        let mut moved = (Instant::now(), 0);
        loop {
            let now = counted.load(Ordering::Relaxed);
            bar.set_position(now as u64);
            self.check()?;
            if now >= count {
                bar.finish_and_clear();
                return Ok(());
            }
            if now != moved.1 {
                moved = (Instant::now(), now);
            } else if moved.0.elapsed() > STANDSTILL {
                let seconds = STANDSTILL.as_secs();
                return Err(Failure::Server(format!(
                    "{now} of {count} clients are {what}, none more in {seconds} s"
                )));
            }
            thread::sleep(LOOK);
        }
    }

    /// Waits until the clock shows `until_ns`.
    pub(crate) fn wait(&self, what: &str, until_ns: u64) -> Result<(), Failure> {
        self.wait_and_look(what, until_ns, || Ok(()))
    }

    /// The same, and looks at something now and then.
    pub(crate) fn wait_and_look(
        &self,
        what: &str,
        until_ns: u64,
        mut look: impl FnMut() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let start_ns = self.now_ns();
        let bar = bar(until_ns.saturating_sub(start_ns) / 1_000_000, what, "{msg:10} {wide_bar} {elapsed}");
        loop {
            self.check()?;
            look()?;
            let now_ns = self.now_ns();
            if now_ns >= until_ns {
                bar.finish_and_clear();
                return Ok(());
            }
            bar.set_position((now_ns - start_ns) / 1_000_000);
            thread::sleep(Duration::from_nanos(until_ns - now_ns).min(10 * LOOK));
        }
    }

    /// Waits until [`Self::moves`] has stood still for `quiet`, but not longer than `longest`.
    pub(crate) fn settle(&self, quiet: Duration, longest: Duration) -> Result<(), Failure> {
        let start = Instant::now();
        let mut moved = (start, self.moves.load(Ordering::Relaxed));
        while moved.0.elapsed() < quiet && start.elapsed() < longest {
            thread::sleep(LOOK);
            self.check()?;
            let now = self.moves.load(Ordering::Relaxed);
            if now != moved.1 {
                moved = (Instant::now(), now);
            }
        }
        Ok(())
    }
}

/// A progress bar; indicatif draws it on stderr, and only where that is a terminal.
fn bar(len: u64, what: &str, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(len).with_style(style).with_message(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_only_go_forward() {
        let stage = Stage::new();
        stage.advance(Phase::Draining);
        stage.advance(Phase::Traffic);
        assert!(
            stage.reached(Phase::Traffic) && stage.reached(Phase::Draining) && !stage.reached(Phase::Stopped)
        );
    }

    #[test]
    fn the_window_is_half_open_and_empty_at_first() {
        let stage = Stage::new();
        assert!(!stage.measures(0));
        stage.measure(10, 20);
        assert!(!stage.measures(9) && stage.measures(10) && stage.measures(19) && !stage.measures(20));
    }

    #[test]
    fn the_first_failure_is_kept() {
        let stage = Stage::new();
        assert!(stage.check().is_ok());
        stage.fail(Failure::Server("first".to_owned()));
        stage.fail(Failure::Server("second".to_owned()));
        assert_eq!(stage.check().expect_err("failed").to_string(), "first");
    }
}
