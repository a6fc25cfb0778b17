//! One monoio runtime per thread: io_uring with the flags that the kernel knows, or epoll.

use std::io;

use clap::ValueEnum;
use io_uring::IoUring;
use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};
use serde::Serialize;

/// Entries of a ring: it is charged to RLIMIT_MEMLOCK, which the server under test draws on as well.
const RING_ENTRIES: u32 = 512;

/// Which driver to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize)]
#[value(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub(crate) enum DriverChoice {
    /// io_uring where it works, else epoll.
    #[default]
    Auto,
    /// io_uring or an error.
    IoUring,
    /// epoll.
    Epoll,
}

/// A runtime on one of the two drivers.
pub(crate) enum Driver {
    /// On io_uring.
    IoUring(Box<Runtime<TimeDriver<IoUringDriver>>>),
    /// On epoll.
    Epoll(Box<Runtime<TimeDriver<LegacyDriver>>>),
}

impl Driver {
    /// Starts a runtime on this thread.
    pub(crate) fn start(choice: DriverChoice) -> io::Result<Self> {
        match choice {
            DriverChoice::Epoll => Self::epoll(),
            DriverChoice::IoUring => Self::io_uring(),
            DriverChoice::Auto => Self::io_uring().or_else(|_| Self::epoll()),
        }
    }

    /// Runs a future to its end.
    pub(crate) fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        match self {
            Self::IoUring(runtime) => runtime.block_on(future),
            Self::Epoll(runtime) => runtime.block_on(future),
        }
    }

    fn epoll() -> io::Result<Self> {
        let runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
        Ok(Self::Epoll(Box::new(runtime)))
    }

    /// Walks down the flags: older kernels refuse the better ones.
    fn io_uring() -> io::Result<Self> {
        let mut refused = io::Error::from(io::ErrorKind::Unsupported);
        for flags in [Flags::DeferTaskrun, Flags::CoopTaskrun, Flags::None] {
            match probe(flags).and_then(|()| build(flags)) {
                Ok(runtime) => return Ok(Self::IoUring(Box::new(runtime))),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }
}

#[derive(Debug, Clone, Copy)]
enum Flags {
    DeferTaskrun,
    CoopTaskrun,
    None,
}

impl Flags {
    fn builder(self) -> io_uring::Builder {
        let mut builder = IoUring::builder();
        match self {
            Self::DeferTaskrun => {
                builder.setup_single_issuer().setup_defer_taskrun();
            }
            Self::CoopTaskrun => {
                builder.setup_coop_taskrun();
            }
            Self::None => {}
        }
        builder
    }
}

/// Enters a small ring once: where `io_uring_enter` is forbidden a runtime would hang without a word.
fn probe(flags: Flags) -> io::Result<()> {
    flags.builder().build(2)?.submit().map(|_| ())
}

fn build(flags: Flags) -> io::Result<Runtime<TimeDriver<IoUringDriver>>> {
    RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(RING_ENTRIES)
        .uring_builder(flags.builder())
        .enable_timer()
        .build()
}
