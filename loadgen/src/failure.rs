//! What ends a run without figures.

use std::fmt;
use std::io;

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The options do not fit together.
    Options(String),
    /// No TCP connection came about.
    Connect(String),
    /// TCP was there, a WebSocket was not.
    Handshake(String),
    /// The server did not do what its protocol says, or ended connections.
    Server(String),
    /// A check of `verify` failed.
    Violation(String),
    /// The server's rate limit stood in the way.
    RateLimited(String),
    /// This host said no.
    System(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation(text) => write!(f, "VIOLATION: {text}"),
            Self::Options(text)
            | Self::Connect(text)
            | Self::Handshake(text)
            | Self::Server(text)
            | Self::RateLimited(text)
            | Self::System(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Options(_) => 2,
            Self::RateLimited(_) => 3,
            Self::Connect(_)
            | Self::Handshake(_)
            | Self::Server(_)
            | Self::Violation(_)
            | Self::System(_) => 1,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::System(error.to_string())
    }
}
