//! RFC 6455 without I/O: the opening handshake, and a connection as bytes in, events out.
#![forbid(unsafe_code)]

pub mod connection;
pub mod handshake;

/// Status codes of a close frame that we send (RFC 6455 section 7.4.1, IANA's registry).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    /// The server shuts down.
    GoingAway = 1001,
    /// The peer broke RFC 6455.
    ProtocolError = 1002,
    /// Text that is not UTF-8.
    InvalidData = 1007,
    /// The peer may not be here.
    PolicyViolation = 1008,
    /// A message over the limits.
    TooBig = 1009,
    /// Too slow, or no room: try again later.
    TryAgainLater = 1013,
}

impl CloseCode {
    /// The code's number.
    #[must_use]
    pub fn number(self) -> u16 {
        self as u16
    }
}
