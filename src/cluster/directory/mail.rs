//! What shards, clusters and hosts say to each other for the directory.

use std::sync::Arc;

use bytes::{BufMut, Bytes};

use super::Entry;
use crate::cluster::codec::{Error, Reader};
use crate::id::ClientId;

/// What a shard asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// This client wants this name. [`News::Came`], [`News::Refused`] or [`News::Busy`] follows.
    Login {
        /// Who.
        client: ClientId,
        /// A good name.
        name: Arc<str>,
    },
    /// This client is gone.
    Logout(ClientId),
}

/// What the directory's home is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// These are in the list from now on, or at another place of it.
    Came(Vec<Entry>),
    /// This peer of another host is not in the list any more.
    Went(ClientId),
    /// The name that this client of ours wants, or had, is another's.
    Refused(ClientId),
    /// This client's login could not be asked about in time.
    Busy(ClientId),
    /// A finished frame from a peer of another host.
    Frame {
        /// The sender.
        from: ClientId,
        /// The receiver; none for all of this host.
        to: Option<ClientId>,
        /// Header and payload, as they go onto the wire.
        frame: Bytes,
    },
}

/// A finished frame from a peer to those of another host, for the cluster of that host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The sender.
    pub from: ClientId,
    /// The receiver; none for all of the host.
    pub to: Option<ClientId>,
    /// Header and payload, as they go onto the wire.
    pub frame: Bytes,
}

impl Letter {
    /// Bytes that it refers to.
    #[must_use]
    pub(in crate::cluster) fn len(&self) -> usize {
        self.frame.len()
    }
}

impl News {
    /// Bytes that it refers to.
    #[must_use]
    pub(in crate::cluster) fn len(&self) -> usize {
        match self {
            Self::Came(entries) => entries.iter().map(|entry| size_of::<Entry>() + entry.name.len()).sum(),
            Self::Frame { frame, .. } => frame.len(),
            Self::Went(_) | Self::Refused(_) | Self::Busy(_) => 0,
        }
    }
}

/// Writes a letter: the sender, whether there is one receiver and which, the frame behind its length.
pub(in crate::cluster) fn put(bytes: &mut Vec<u8>, letter: &Letter) {
    bytes.put_u128(letter.from.to_bits());
    bytes.put_u8(u8::from(letter.to.is_some()));
    if let Some(to) = letter.to {
        bytes.put_u128(to.to_bits());
    }
    bytes.put_u32(letter.frame.len() as u32);
    bytes.put_slice(&letter.frame);
}

/// Reads a letter.
///
/// # Errors
/// It does not follow the layout.
pub(in crate::cluster) fn take(reader: &mut Reader) -> Result<Letter, Error> {
    let from = reader.client()?;
    let to = match reader.u8()? {
        0 => None,
        1 => Some(reader.client()?),
        kind => return Err(Error::UnknownKind(kind)),
    };
    Ok(Letter { from, to, frame: reader.frame()? })
}
