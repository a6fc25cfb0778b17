//! Connections that are not read from for an open-ended time: a reset would not be noticed, so the kernel is asked to
//! tell of it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::core::Core;
use super::socket::Socket;
use crate::id::Slot;

/// Most events taken in one go.
const BATCH: usize = 64;

/// The watched connections of one core.
#[derive(Debug)]
pub(super) struct Watch {
    epoll: OwnedFd,
}

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    /// Watches a connection until what is returned is dropped.
    pub(super) fn watch<'a>(&'a self, socket: &'a Socket, slot: Slot) -> Watched<'a> {
        let flags = EventFlags::ERR | EventFlags::ET;
        // Without it the reset is noticed when something is written.
        let _ = epoll::add(&self.epoll, socket, EventData::new_u64(slot.0.into()), flags);
        Watched { watch: self, socket }
    }
}

/// A connection is watched while this lives.
#[derive(Debug)]
pub(super) struct Watched<'a> {
    watch: &'a Watch,
    socket: &'a Socket,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let _ = epoll::delete(&self.watch.epoll, self.socket);
    }
}

/// Cuts watched connections that were reset.
pub(super) async fn cut_reset(core: Rc<Core>) {
    let socket = core.watch.epoll.as_fd().try_clone_to_owned().and_then(Socket::new);
    let socket = match socket {
        Ok(socket) => socket,
        Err(error) => return tracing::error!("resets cannot be waited for: {error}"),
    };
    let mut events = [MaybeUninit::<Event>::uninit(); BATCH];
    loop {
        if let Err(error) = socket.readable().await {
            return tracing::error!("waiting for resets failed: {error}");
        }
        let Ok((found, _)) = epoll::wait(&core.watch.epoll, &mut events, Some(&Timespec::default())) else {
            continue;
        };
        // A stream that has ended in order both ways is reported as well; that is no loss.
        for event in found.iter().filter(|event| { event.flags }.contains(EventFlags::ERR)) {
            core.handle_write_failed(Slot(event.data.u64() as u32));
        }
    }
}
