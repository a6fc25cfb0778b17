//! A file descriptor that monoio waits for and that we read and write ourselves.
//!
//! It is wrapped in monoio's `UnixStream` whatever it is: waiting works for all, and that type keeps no addresses.
#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use monoio::net::UnixStream;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, sockopt};

/// A raw peer that was silent for so long is asked whether it is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(25);
/// How long it has for each answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How often it is asked before it counts as gone.
const KEEPALIVE_PROBES: u32 = 5;

/// A socket, a listener or an eventfd.
#[derive(Debug)]
pub(super) struct Socket {
    stream: UnixStream,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the stream owns the descriptor and keeps it open for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.stream.as_raw_fd()) }
    }
}

impl Socket {
    /// Takes a descriptor; only inside a runtime.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        UnixStream::from_std(StdStream::from(fd)).map(|stream| Self { stream })
    }

    /// Waits until there is something to read, or the end, or an error.
    pub(super) async fn readable(&self) -> io::Result<()> {
        // In one expression: kept in a variable the future would be stored twice.
        self.stream.readable(false).await
    }

    /// Waits until there is room to write, or an error.
    pub(super) async fn writable(&self) -> io::Result<()> {
        self.stream.writable(false).await
    }

    /// Reads what is there; `WouldBlock` if that is nothing.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (count, _) = rustix::net::recv(self, buffer, RecvFlags::DONTWAIT)?;
        Ok(count)
    }

    /// Writes what the socket takes now; `WouldBlock` if that is nothing.
    pub(super) fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let count = match pieces {
            [piece] => rustix::net::send(self, piece, flags)?,
            _ => rustix::net::sendmsg(self, pieces, &mut SendAncillaryBuffer::default(), flags)?,
        };
        Ok(count)
    }

    /// Makes ready for raw bytes: they are moved without waiting for room, and TCP itself finds out when the peer is
    /// gone (protocols.md section 0, heartbeat).
    pub(super) fn prepare_raw(&self) {
        // An error only means that a peer that is gone is noticed later.
        let _ = rustix::io::ioctl_fionbio(self, true);
        let _ = sockopt::set_socket_keepalive(self, true);
        let _ = sockopt::set_tcp_keepidle(self, KEEPALIVE_IDLE);
        let _ = sockopt::set_tcp_keepintvl(self, KEEPALIVE_INTERVAL);
        let _ = sockopt::set_tcp_keepcnt(self, KEEPALIVE_PROBES);
    }

    /// Whether the peer is on this machine, as far as its address says so.
    pub(super) fn is_peer_local(&self) -> bool {
        let peer = rustix::net::getpeername(self).ok().flatten();
        let address = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        address.is_some_and(|address| address.ip().to_canonical().is_loopback())
    }

    /// Resets the connection at once, and wakes who waits for it.
    pub(super) fn reset(&self) {
        // To connect to nowhere is to disconnect. An error means that the connection is gone already, which reading
        // will find out.
        let _ = rustix::net::connect_unspec(self);
    }

    /// Ends our side: the peer reads all that was sent, and then the end.
    pub(super) fn finish_writing(&self) {
        // An error means that the connection is gone already, which reading will find out.
        let _ = rustix::net::shutdown(self, Shutdown::Write);
    }

    /// Ends both sides: whoever waits for this socket wakes up.
    pub(super) fn cut(&self) {
        // An error means that the connection is gone already, which reading will find out.
        let _ = rustix::net::shutdown(self, Shutdown::Both);
    }
}
