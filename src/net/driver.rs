//! Which driver the runtimes run on: one decision for the whole process, proven by a round trip before it is taken.

use std::io;

use clap::ValueEnum;
use io_uring::{IoUring, opcode};
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use super::core::{self, Parts};

/// What an operator may ask for (`IO_DRIVER`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Choice {
    /// io_uring if it works, else epoll.
    Auto,
    /// io_uring, or the server does not start.
    IoUring,
    /// epoll.
    Epoll,
}

/// How a ring is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingFlags {
    /// `SINGLE_ISSUER | DEFER_TASKRUN`, kernel 6.1: the kernel's work is done when we ask for completions.
    DeferTaskrun,
    /// `COOP_TASKRUN`, kernel 5.19: it does not interrupt us.
    CoopTaskrun,
    /// None.
    Plain,
}

impl RingFlags {
    /// The best first.
    const LADDER: [Self; 3] = [Self::DeferTaskrun, Self::CoopTaskrun, Self::Plain];

    fn builder(self) -> io_uring::Builder {
        let mut builder = IoUring::builder();
        match self {
            Self::DeferTaskrun => {
                builder.setup_single_issuer().setup_defer_taskrun();
            }
            Self::CoopTaskrun => {
                builder.setup_coop_taskrun();
            }
            Self::Plain => {}
        }
        builder
    }

    fn name(self) -> &'static str {
        match self {
            Self::DeferTaskrun => "single_issuer|defer_taskrun",
            Self::CoopTaskrun => "coop_taskrun",
            Self::Plain => "none",
        }
    }
}

/// What all cores run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// io_uring, set up with these flags.
    IoUring(RingFlags),
    /// epoll.
    Epoll,
}

impl Driver {
    /// The driver's name, as it is logged.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::IoUring(_) => "io_uring",
            Self::Epoll => "epoll",
        }
    }

    /// The ring's flags; `none` for epoll.
    #[must_use]
    pub fn flags(self) -> &'static str {
        match self {
            Self::IoUring(flags) => flags.name(),
            Self::Epoll => "none",
        }
    }
}

/// A driver, and why it is not a better one.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The driver.
    pub driver: Driver,
    /// Why not io_uring, or why not all flags; empty if nothing was refused.
    pub reason: String,
}

/// Finds the best driver that works.
///
/// # Errors
/// io_uring was asked for and does not work.
pub fn decide(choice: Choice, entries: u32) -> io::Result<Decision> {
    if choice == Choice::Epoll {
        return Ok(Decision { driver: Driver::Epoll, reason: "IO_DRIVER=epoll".into() });
    }
    let mut refusals: Vec<String> = Vec::new();
    for flags in RingFlags::LADDER {
        match round_trip(flags, entries) {
            Ok(()) => return Ok(Decision { driver: Driver::IoUring(flags), reason: refusals.join("; ") }),
            Err(error) => refusals.push(format!("{}: {error}", flags.name())),
        }
    }
    let reason = format!("io_uring refused: {}", refusals.join("; "));
    match choice {
        Choice::IoUring => Err(io::Error::new(io::ErrorKind::Unsupported, reason)),
        Choice::Auto | Choice::Epoll => Ok(Decision { driver: Driver::Epoll, reason }),
    }
}

/// Sends an operation through a ring and waits for it. Where `io_uring_enter` is blocked, only this shows it: the
/// runtime would wait for ever without a word.
fn round_trip(flags: RingFlags, entries: u32) -> io::Result<()> {
    const MARK: u64 = 0x7061_726c_6f72;
    let mut ring: IoUring = flags.builder().build(entries)?;
    submit_nop(&mut ring, MARK)?;
    ring.submit_and_wait(1)?;
    match ring.completion().next() {
        Some(completion) if completion.user_data() == MARK && completion.result() == 0 => Ok(()),
        _ => Err(io::Error::other("an operation did not come back")),
    }
}

#[expect(unsafe_code, reason = "the one operation of the round trip")]
fn submit_nop(ring: &mut IoUring, mark: u64) -> io::Result<()> {
    let nop = opcode::Nop::new().build().user_data(mark);
    // SAFETY: a nop refers to no memory.
    unsafe { ring.submission().push(&nop) }.map_err(io::Error::other)
}

/// A runtime, ready to run a core. It is built on the thread that runs it, since a ring may belong to one thread.
pub(crate) enum Runtime {
    IoUring(Box<monoio::Runtime<monoio::time::TimeDriver<IoUringDriver>>>),
    Epoll(Box<monoio::Runtime<monoio::time::TimeDriver<LegacyDriver>>>),
}

impl Runtime {
    /// Builds it.
    ///
    /// # Errors
    /// What the system says, such as that no memory may be locked for another ring.
    pub(crate) fn build(driver: Driver, entries: u32) -> io::Result<Self> {
        match driver {
            Driver::IoUring(flags) => RuntimeBuilder::<IoUringDriver>::new()
                .uring_builder(flags.builder())
                .with_entries(entries)
                .enable_timer()
                .build()
                .map(|runtime| Self::IoUring(Box::new(runtime))),
            Driver::Epoll => RuntimeBuilder::<LegacyDriver>::new()
                .enable_timer()
                .build()
                .map(|runtime| Self::Epoll(Box::new(runtime))),
        }
    }

    /// Runs a core until the server has stopped.
    pub(crate) fn run(self, parts: Parts) {
        match self {
            Self::IoUring(mut runtime) => runtime.block_on(core::run(parts)),
            Self::Epoll(mut runtime) => runtime.block_on(core::run(parts)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoll_is_taken_when_it_is_asked_for() {
        let decision = decide(Choice::Epoll, 256).expect("epoll always works");
        assert_eq!((decision.driver, decision.reason.as_str()), (Driver::Epoll, "IO_DRIVER=epoll"));
    }

    #[test]
    fn a_ring_that_cannot_be_built_leads_to_epoll_with_the_reason() {
        let too_many = 1 << 30;
        let decision = decide(Choice::Auto, too_many).expect("a fallback");
        assert_eq!(decision.driver, Driver::Epoll);
        assert!(
            decision.reason.starts_with("io_uring refused: single_issuer|defer_taskrun: "),
            "{}",
            decision.reason
        );
        assert!(decide(Choice::IoUring, too_many).is_err());
    }
}
