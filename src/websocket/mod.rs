//! RFC 6455 without I/O: the opening handshake, and a connection as bytes in, events out.
#![forbid(unsafe_code)]

pub mod connection;
pub mod handshake;
pub mod stream;

pub use crate::wire::close::CloseCode;
