//! A TCP socket: monoio tells when it is ready, plain recv(2) and send(2) move the bytes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use monoio::net::UnixStream;
use rustix::net::{RecvFlags, SendFlags, Shutdown, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket as RawSocket, Type};

use super::fd;

/// A connected TCP socket. monoio's `UnixStream` wraps it, since that caches no addresses.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: UnixStream,
}

impl Socket {
    /// Connects to `target`, from the address `source` if there is one.
    pub(crate) async fn connect(target: SocketAddr, source: Option<Ipv4Addr>) -> io::Result<Self> {
        let raw = RawSocket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
        raw.set_nonblocking(true)?;
        raw.set_tcp_nodelay(true)?;
        if let Some(source) = source {
            raw.bind(&SockAddr::from(SocketAddr::new(IpAddr::V4(source), 0)))?;
        }
        match raw.connect(&SockAddr::from(target)) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            Ok(()) | Err(_) => {}
        }
        let socket = Self { stream: UnixStream::from_std(StdUnixStream::from(OwnedFd::from(raw)))? };
        socket.writable().await?;
        match sockopt::socket_error(fd::borrow(&socket.stream))? {
            Ok(()) => Ok(socket),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until there is something to receive, an end of the stream and errors included.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.stream.readable(false).await
    }

    /// Waits until the socket takes bytes.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.stream.writable(false).await
    }

    /// Receives what is there, without waiting; 0 is the end of the stream.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (len, _) = rustix::net::recv(fd::borrow(&self.stream), buffer, RecvFlags::DONTWAIT)?;
        Ok(len)
    }

    /// Sends what the socket takes, without waiting.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(rustix::net::send(fd::borrow(&self.stream), bytes, flags)?)
    }

    /// Ends reading on this side alone, nothing goes over the wire: who waits for bytes sees the end of the stream.
    pub(crate) fn stop_reading(&self) {
        // A socket that is not connected any more needs no end.
        let _ = rustix::net::shutdown(fd::borrow(&self.stream), Shutdown::Read);
    }

    /// Says that nothing more will be sent: the other side sees the end of the stream behind what was sent.
    pub(crate) fn stop_writing(&self) {
        // A socket that is not connected any more needs no end.
        let _ = rustix::net::shutdown(fd::borrow(&self.stream), Shutdown::Write);
    }

    /// Makes the close that follows a TCP reset.
    pub(crate) fn reset_on_close(&self) {
        // Where it fails the close is an ordinary one.
        let _ = sockopt::set_socket_linger(fd::borrow(&self.stream), Some(Duration::ZERO));
    }
}

/// Whether an error only says that there is nothing to do yet.
pub(crate) fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
