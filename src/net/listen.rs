//! The listeners of a host: one for each shard, on the same port; the kernel spreads connections over them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;

/// Listens `count` times on `address`; port 0 becomes one that the system chooses. Returns the address and the
/// listeners.
///
/// # Errors
/// What the system says, such as that the port is in use.
pub(crate) fn listen(address: SocketAddr, count: usize) -> io::Result<(SocketAddr, Vec<OwnedFd>)> {
    refuse_if_taken(address)?;
    let first = listener(address)?;
    let bound = first.local_addr()?.as_socket().unwrap_or(address);
    let mut listeners = vec![OwnedFd::from(first)];
    for _ in 1..count {
        listeners.push(listener(bound)?.into());
    }
    Ok((bound, listeners))
}

/// Two servers of one user could share a port, since the shards of one do: the second would take half of the
/// first one's clients without a word. So the port is tried alone first.
fn refuse_if_taken(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    let alone = socket(address)?;
    alone.bind(&address.into())?;
    alone.listen(1)
}

fn listener(address: SocketAddr) -> io::Result<Socket> {
    let listener = socket(address)?;
    listener.set_reuse_port(true)?;
    listener.bind(&address.into())?;
    listener.listen(BACKLOG)?;
    Ok(listener)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}
