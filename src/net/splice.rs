//! Raw pipes: bytes go from socket to socket inside the kernel, with splice(2) through a kernel pipe.
//!
//! Two WebSocket ends cannot be joined like this: RFC 6455 masks one direction, so every byte has to be touched.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use clap::ValueEnum;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::connection::{Read, read};
use super::core::Core;
use super::socket::Socket;
use crate::id::Slot;

/// Bytes that a kernel pipe takes. Where the system allows less it stays at its default.
const KERNEL_PIPE_BYTES: usize = 1024 * 1024;
/// Kernel pipes that a core keeps for the next who needs one.
const KERNEL_PIPES_MAX: usize = 16;

/// Below so many bytes at a time recv(2) and send(2) take less CPU than splice(2), above it more
/// (docs/BENCHMARKS.md, pipes).
const SPLICE_BYTES_MIN: usize = 8 * 1024;

/// What moves raw bytes (`PIPE_SPLICE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Choice {
    /// splice(2) for streams that bring much at a time, recv(2) and send(2) for others.
    Auto,
    /// splice(2).
    Always,
    /// recv(2) and send(2).
    Never,
}

impl Choice {
    /// Whether a raw end's bytes are to be moved by splice(2) before anything is known of its stream.
    pub(super) fn splices_at_first(self) -> bool {
        self == Self::Always
    }

    /// Whether the next bytes of a raw end that has just brought `count` are to be moved by splice(2).
    pub(super) fn splices(self, count: usize) -> bool {
        match self {
            Self::Auto => count >= SPLICE_BYTES_MIN,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// Kernel pipes that are empty.
#[derive(Debug, Default)]
pub(super) struct KernelPipes(RefCell<Vec<KernelPipe>>);

impl KernelPipes {
    fn take(&self) -> io::Result<KernelPipe> {
        match self.0.borrow_mut().pop() {
            Some(pipe) => Ok(pipe),
            None => KernelPipe::new(),
        }
    }

    fn give_back(&self, pipe: KernelPipe) {
        let mut pipes = self.0.borrow_mut();
        if pipe.len == 0 && pipes.len() < KERNEL_PIPES_MAX {
            pipes.push(pipe);
        }
    }
}

#[derive(Debug)]
struct KernelPipe {
    read: OwnedFd,
    write: OwnedFd,
    /// Bytes in it.
    len: usize,
}

impl KernelPipe {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Refused to users who have many pipes already: a small one does as well, only slower.
        let _ = fcntl_setpipe_size(&write, KERNEL_PIPE_BYTES);
        Ok(Self { read, write, len: 0 })
    }

    /// Takes what a socket has; 0 at its end.
    fn fill(&mut self, from: &Socket) -> io::Result<usize> {
        let count = splice(from, None, &self.write, None, KERNEL_PIPE_BYTES, flags())?;
        self.len += count;
        Ok(count)
    }

    /// Gives a socket what it takes.
    fn drain(&mut self, to: &Socket) -> io::Result<()> {
        let count = splice(&self.read, None, to, None, self.len, flags())?;
        self.len -= count;
        Ok(())
    }
}

fn flags() -> SpliceFlags {
    SpliceFlags::MOVE | SpliceFlags::NONBLOCK
}

/// Moves what a raw end has to its partner, once; waits for room there. `count` is how much that was.
pub(super) async fn move_bytes(core: &Rc<Core>, from: &Socket, slot: Slot, partner: Slot) -> (Read, usize) {
    let Some(to) = core.socket(partner) else { return (Read::More, 0) };
    // Without a kernel pipe the bytes are copied.
    let Ok(mut pipe) = core.kernel_pipes.take() else { return read(core, from, slot) };
    let count = match pipe.fill(from) {
        Ok(0) => {
            core.kernel_pipes.give_back(pipe);
            return (core.handle_end(slot), 0);
        }
        Ok(count) => count,
        Err(error) => {
            core.kernel_pipes.give_back(pipe);
            return (if is_transient(&error) { Read::More } else { Read::End }, 0);
        }
    };
    while pipe.len > 0 {
        match pipe.drain(&to) {
            Ok(()) => {}
            Err(error) if is_transient(&error) => {
                wait_for_room(core, slot, &to).await;
                if core.splice_target(slot) != Some(partner) {
                    return (Read::More, count);
                }
            }
            Err(_) => {
                core.handle_write_failed(partner);
                return (Read::More, count);
            }
        }
    }
    core.kernel_pipes.give_back(pipe);
    core.shard.borrow_mut().handle_spliced(count);
    (Read::More, count)
}

/// Waits until a socket takes bytes again, or something has happened to the client that they come from.
async fn wait_for_room(core: &Rc<Core>, slot: Slot, to: &Socket) {
    let mut writable = pin!(to.writable());
    let mut is_first = true;
    poll_fn(|context| {
        core.wake_on_change(slot, context.waker());
        let is_woken = !std::mem::take(&mut is_first);
        if writable.as_mut().poll(context).is_ready() || is_woken { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
