//! Sockets, runtimes and the HTTP upgrade: what is below a WebSocket.

pub(crate) mod fd;
pub(crate) mod get;
pub(crate) mod handshake;
pub(crate) mod runtime;
pub(crate) mod socket;
pub(crate) mod spread;
pub(crate) mod stream;
pub(crate) mod target;
pub(crate) mod ticker;
