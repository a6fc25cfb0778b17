//! The doorbell of the cluster's mailbox, waited for in the way of this thread's runtime.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A doorbell.
pub(super) struct Bell(AsyncFd<OwnedFd>);

impl Bell {
    /// Only inside the runtime.
    #[expect(unsafe_code, reason = "the runtime must trust in the file staying what it is")]
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` is one open file for as long as it lives, and it lives inside.
        let bell = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(Self(bell))
    }

    /// Whether it has rung since the last call. If not, or when it rings again, the context is woken.
    pub(super) fn has_rung(&self, context: &mut Context<'_>) -> io::Result<bool> {
        let mut has_rung = false;
        // Again until it is silent, so that the next ring wakes us.
        while let Poll::Ready(ready) = self.0.poll_read_ready(context) {
            ready?.clear_ready();
            has_rung = true;
        }
        Ok(has_rung)
    }
}
