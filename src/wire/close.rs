//! Status codes of close frames (RFC 6455 section 7.4.1, IANA's registry).

/// A code that we close with of our own accord.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    /// All is done.
    Normal = 1000,
    /// The server shuts down.
    GoingAway = 1001,
    /// The peer broke RFC 6455.
    ProtocolError = 1002,
    /// The URL asks for something that cannot be given.
    Unsupported = 1003,
    /// Text that is not UTF-8.
    InvalidData = 1007,
    /// The peer may not be here.
    PolicyViolation = 1008,
    /// A message over the limits.
    TooBig = 1009,
    /// Too slow, too fast, or no room: try again later.
    TryAgainLater = 1013,
    /// The directory's own: the name is somebody else's (protocols.md section 3).
    NameTaken = 4000,
    /// The directory's own: the name is none (protocols.md section 3).
    InvalidName = 4001,
}

impl CloseCode {
    /// The code's number.
    #[must_use]
    pub fn number(self) -> u16 {
        self as u16
    }
}
