//! The one place with unsafe code: a file descriptor that monoio owns, lent to safe system calls.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use monoio::net::UnixStream;

/// The descriptor of a stream, for as long as the stream is borrowed.
pub(crate) fn borrow(stream: &UnixStream) -> BorrowedFd<'_> {
    // SAFETY: the stream owns the descriptor and closes it only when it is dropped, and the lifetime of what is
    // returned is that of the borrow of the stream.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}
