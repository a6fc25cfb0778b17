//! Where somebody wants to go in, and what becomes of it.

/// What is behind a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// Nothing: the handshake is refused with this status.
    Refused(&'static str),
    /// A close 1003 with this reason.
    Wrong(&'static str),
    /// A place at a connection id, 64 times this digit.
    Rendezvous {
        /// The digit.
        connection: char,
        /// `source=wallet`
        is_wallet: bool,
    },
    /// `/`
    Lobby,
    /// The introductions, under this id.
    Introduction(&'static str),
    /// One end of a pipe: oneself, the other, the document.
    Pipe([&'static str; 3]),
    /// The same, with raw bytes.
    RawPipe([&'static str; 3]),
    /// One end of a pipe towards this id, to be completed by the introductions.
    ShortPipe(&'static str),
}

/// A URL, `~` in it standing for a connection id, and what is behind it.
#[derive(Debug, Clone, Copy)]
pub struct Door {
    /// Path and query.
    pub url: &'static str,
    /// What is behind it.
    pub behind: Behind,
}

/// Makes a [`Door`].
#[must_use]
pub const fn door(url: &'static str, behind: Behind) -> Door {
    Door { url, behind }
}

/// What accepts a WebSocket whose key is [`KEY`].
pub const OPENED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// What accepts raw bytes.
pub(super) const OPENED_RAW: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
/// The example of RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

impl Door {
    /// The request of a client that wants to go in.
    #[must_use]
    pub fn request(&self) -> Vec<u8> {
        let url = match self.behind {
            Behind::Rendezvous { connection, .. } => {
                self.url.replace('~', &connection.to_string().repeat(64))
            }
            _ => self.url.replace('~', &"0".repeat(64)),
        };
        request(&url, matches!(self.behind, Behind::RawPipe(_)))
    }

    /// What the client gets when it has come in.
    #[must_use]
    pub(super) fn opened(&self) -> &'static [u8] {
        if matches!(self.behind, Behind::RawPipe(_)) { OPENED_RAW } else { OPENED }
    }
}

/// The request of an upgrade.
#[must_use]
pub fn request(url: &str, is_raw: bool) -> Vec<u8> {
    let upgrade = if is_raw { "tcp" } else { "websocket" };
    format!(
        "GET {url} HTTP/1.1\r\nHost: x\r\nUpgrade: {upgrade}\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
    .into_bytes()
}
