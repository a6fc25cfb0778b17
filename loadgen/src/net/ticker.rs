//! A fine clock tick: monoio's timers step by a millisecond, too coarse for pacing.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use monoio::net::UnixStream;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::fd;

/// A timerfd that fires at a fixed interval.
#[derive(Debug)]
pub(crate) struct Ticker {
    stream: UnixStream,
}

impl Ticker {
    /// A ticker that fires every `interval`.
    pub(crate) fn every(interval: Duration) -> io::Result<Self> {
        let timer = rustix::time::timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let step =
            Timespec { tv_sec: interval.as_secs() as i64, tv_nsec: i64::from(interval.subsec_nanos()) };
        let times = Itimerspec { it_interval: step, it_value: step };
        rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
        Ok(Self { stream: UnixStream::from_std(StdUnixStream::from(timer))? })
    }

    /// Waits for the next tick; several that were missed are one.
    pub(crate) async fn tick(&self) -> io::Result<()> {
        self.stream.readable(false).await?;
        let mut count = [0; 8];
        // Nothing to read is no harm: the tick came all the same.
        let _ = rustix::io::read(fd::borrow(&self.stream), &mut count);
        Ok(())
    }
}
