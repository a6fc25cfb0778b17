//! Pipes over several hosts (protocols.md sections 5 and 6): who waits for whom. What passes through them goes from shard
//! to shard.
//!
//! `parlor:pipe:<kind>:<own id>/<other id>/<document>` says which client waits there, each part with its length before
//! it. An end that arrives meets the one that waits for it, or waits; both is one call. Whoever is met is asked by the
//! shard of the other whether it still waits ([`What::Ask`]), and takes its entry out when it has a partner; who refuses
//! is taken out by the one that asked, which then arrives again.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};

use super::codec::{Error, Reader};
use super::desk::{self, Desk, Maker};
use super::{Command, FromCluster, Reply, Script};
use crate::id::{ClientId, ShardIndex};
use crate::limits::{PIPE_CHUNK_BYTES_MAX, PIPE_PARTINGS_MAX};
use crate::protocol::pipe::Names;

/// KEYS: where this end waits, where the other does. ARGV: the client, the hosts that can be asked.
static ARRIVE: Script = Script { source: include_str!("scripts/pipe_arrive.lua") };
/// KEYS: where this end waits. ARGV: the client.
static FORGET: Script = Script { source: include_str!("scripts/pipe_forget.lua") };

/// What a shard asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// An end waits here. [`News::Met`] follows if another host's waits for it, else [`News::Waits`].
    Arrive {
        /// Who.
        client: ClientId,
        /// Of which pipe.
        names: Names,
        /// It has just come: who waited in its place before is replaced.
        is_new: bool,
    },
    /// It does not wait any more.
    Forget {
        /// Who.
        client: ClientId,
        /// Of which pipe.
        names: Names,
    },
}

/// What a shard is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Redis can be worked with; it may be empty: all ends that wait are to arrive again.
    Up,
    /// It cannot.
    Down,
    /// An end's partner waits: it is to be asked.
    Met {
        /// The end that arrived.
        client: ClientId,
        /// Its partner, of this host or of one that can be written to.
        partner: ClientId,
    },
    /// An end that has arrived is known to all.
    Waits {
        /// Who.
        client: ClientId,
    },
    /// Whoever was in the way of an arrival is not any more: at once again.
    Again {
        /// Whose.
        client: ClientId,
    },
    /// Another end waits in the place of one that has arrived again.
    Replaced {
        /// Whose place it was.
        client: ClientId,
    },
    /// An arrival has failed, though Redis may be there: later again.
    Failed {
        /// Whose.
        client: ClientId,
    },
}

/// What hosts say to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// A client of the host that reads.
    pub to: ClientId,
    /// A client of the host that writes.
    pub from: ClientId,
    /// What.
    pub what: What,
}

/// What the ends of a pipe say to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Do you still wait? Then we are partners.
    Ask,
    /// We are partners.
    Joined,
    /// I do not wait any more.
    Refused,
    /// I have asked another: arrive again after a while.
    Busy,
    /// I wait in your place.
    Replaced,
    /// What comes next: whole frames, or raw bytes.
    Chunk {
        /// The first one's is 1.
        number: u64,
        /// Up to [`PIPE_CHUNK_BYTES_MAX`].
        bytes: Bytes,
    },
    /// So many bytes more may be sent.
    Credit(u32),
    /// That was all.
    End(How),
}

/// How an end of a pipe has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It was closed, or a WebSocket was cut.
    Closed,
    /// A raw stream has ended; the other direction goes on.
    Finished,
    /// A raw stream was reset.
    Reset,
    /// What was on its way is lost.
    Lost,
}

/// An end that arrives.
#[derive(Debug)]
pub(super) struct Arrival {
    shard: ShardIndex,
    client: ClientId,
    names: Names,
    is_new: bool,
}

/// What a reply is awaited for.
#[derive(Debug)]
pub(super) enum Awaited {
    /// An arrival.
    Arrive(Arrival),
    /// A parting.
    Forget { client: ClientId, names: Names },
}

/// What this host's cluster knows of it.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    /// Which ends do not wait any more, of which Redis was not told. At most [`PIPE_PARTINGS_MAX`].
    partings: BTreeMap<ClientId, Names>,
}

impl Pipes {
    /// A shard asks for something.
    pub(super) fn handle_request(&mut self, from: ShardIndex, request: Request, desk: &mut Desk) {
        match request {
            Request::Arrive { client, names, is_new } => {
                arrive(Arrival { shard: from, client, names, is_new }, desk);
            }
            Request::Forget { client, names } => forget(client, names, desk),
        }
    }

    /// Redis has answered, or has not ([`Reply::Failed`]).
    pub(super) fn handle_reply(&mut self, awaited: Awaited, reply: &Reply, desk: &mut Desk) {
        match awaited {
            Awaited::Arrive(arrival) => handle_arrived(&arrival, reply, desk),
            Awaited::Forget { client, names } => {
                if *reply == Reply::Failed && self.partings.len() < PIPE_PARTINGS_MAX {
                    self.partings.insert(client, names);
                }
            }
        }
    }

    /// Redis can be worked with from now on ([`Desk::is_up`]). It may be another one than before, or empty.
    pub(super) fn handle_up(&mut self, desk: &mut Desk) {
        for (client, names) in std::mem::take(&mut self.partings) {
            forget(client, names, desk);
        }
        desk.mail_all(&FromCluster::Pipes(News::Up));
    }

    /// Redis cannot be worked with. What it was asked has failed, or will.
    pub(super) fn handle_down(&mut self, desk: &mut Desk) {
        desk.mail_all(&FromCluster::Pipes(News::Down));
    }
}

/// Whom an end has met, or that it waits, or that another is in its place. Whoever is gone is taken out, and the end
/// arrives once more, if it still waits.
fn handle_arrived(arrival: &Arrival, reply: &Reply, desk: &mut Desk) {
    let Arrival { shard, client, ref names, .. } = *arrival;
    let Reply::List(items) = reply else { return tell(shard, News::Failed { client }, desk) };
    match items.iter().map(Vec::as_slice).collect::<Vec<_>>()[..] {
        [b"met", other] => match find(other, desk) {
            Some((partner, Maker::Here | Maker::Neighbour(_))) => {
                tell(shard, News::Met { client, partner }, desk);
            }
            // It was lost meanwhile.
            Some((_, Maker::Unreached(_) | Maker::Gone(_) | Maker::Foreign)) | None => {
                tell(shard, News::Again { client }, desk);
            }
        },
        [b"waits", other] => {
            tell(shard, News::Waits { client }, desk);
            let is_gone = matches!(find(other, desk), Some((_, Maker::Gone(_) | Maker::Foreign)) | None);
            if is_gone && !other.is_empty() {
                desk.command(forgotten(other, &names.other));
                tell(shard, News::Again { client }, desk);
            }
        }
        [b"taken", by] => handle_taken(arrival, by, desk),
        _ => tell(shard, News::Failed { client }, desk),
    }
}

/// Another end waits where one has arrived.
fn handle_taken(arrival: &Arrival, by: &[u8], desk: &mut Desk) {
    let Arrival { shard, client, ref names, is_new } = *arrival;
    match find(by, desk) {
        // It can be asked since.
        Some((_, Maker::Neighbour(_))) if names.own == names.other => {
            return tell(shard, News::Again { client }, desk);
        }
        Some((_, Maker::Neighbour(_))) if !is_new => {
            return tell(shard, News::Replaced { client }, desk);
        }
        // It is found later, or turns out to be gone.
        Some((_, Maker::Unreached(_))) => return tell(shard, News::Failed { client }, desk),
        Some((before, Maker::Neighbour(host))) => {
            let letter = Letter { to: before, from: client, what: What::Replaced };
            desk.write(host, before.shard(), &super::Letter::Pipes(letter));
        }
        // The home of both is the same: one of this host has left already.
        Some((_, Maker::Here | Maker::Gone(_) | Maker::Foreign)) | None => {}
    }
    desk.command(forgotten(by, &names.own));
    tell(shard, News::Again { client }, desk);
}

fn find(id: &[u8], desk: &Desk) -> Option<(ClientId, Maker)> {
    ClientId::parse(id).map(|id| (id, desk.maker(id)))
}

fn arrive(arrival: Arrival, desk: &mut Desk) {
    let hosts: Vec<String> =
        std::iter::once(desk.me).chain(desk.hosts.all_found()).map(|host| host.to_string()).collect();
    let arguments = vec![arrival.client.text().to_vec(), hosts.join(",").into_bytes()];
    let keys = vec![key(&arrival.names.own), key(&arrival.names.other)];
    let command = Command::Run { script: &ARRIVE, keys, arguments };
    desk.ask(desk::Awaited::Pipes(Awaited::Arrive(arrival)), command);
}

fn forget(client: ClientId, names: Names, desk: &mut Desk) {
    let command = forgotten(&client.text(), &names.own);
    desk.ask(desk::Awaited::Pipes(Awaited::Forget { client, names }), command);
}

fn forgotten(client: &[u8], name: &[u8]) -> Command {
    Command::Run { script: &FORGET, keys: vec![key(name)], arguments: vec![client.to_vec()] }
}

fn key(name: &[u8]) -> Vec<u8> {
    [b"parlor:pipe:", name].concat()
}

fn tell(shard: ShardIndex, news: News, desk: &mut Desk) {
    desk.mail(shard, FromCluster::Pipes(news));
}

impl Letter {
    /// Bytes that it refers to.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        match &self.what {
            What::Chunk { bytes, .. } => bytes.len(),
            What::Ask
            | What::Joined
            | What::Refused
            | What::Busy
            | What::Replaced
            | What::Credit(_)
            | What::End(_) => 0,
        }
    }
}

impl News {
    /// Bytes that it refers to.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Up
            | Self::Down
            | Self::Met { .. }
            | Self::Waits { .. }
            | Self::Again { .. }
            | Self::Replaced { .. }
            | Self::Failed { .. } => 0,
        }
    }
}

/// The kinds of letters.
mod kind {
    pub(super) const ASK: u8 = 1;
    pub(super) const JOINED: u8 = 2;
    pub(super) const REFUSED: u8 = 3;
    pub(super) const BUSY: u8 = 4;
    pub(super) const REPLACED: u8 = 5;
    pub(super) const CHUNK: u8 = 6;
    pub(super) const CREDIT: u8 = 7;
    pub(super) const CLOSED: u8 = 8;
    pub(super) const FINISHED: u8 = 9;
    pub(super) const RESET: u8 = 10;
    pub(super) const LOST: u8 = 11;
}

/// Writes a letter.
pub(super) fn put(bytes: &mut Vec<u8>, letter: &Letter) {
    bytes.put_u128(letter.to.to_bits());
    bytes.put_u128(letter.from.to_bits());
    bytes.put_u8(match &letter.what {
        What::Ask => kind::ASK,
        What::Joined => kind::JOINED,
        What::Refused => kind::REFUSED,
        What::Busy => kind::BUSY,
        What::Replaced => kind::REPLACED,
        What::Chunk { .. } => kind::CHUNK,
        What::Credit(_) => kind::CREDIT,
        What::End(How::Closed) => kind::CLOSED,
        What::End(How::Finished) => kind::FINISHED,
        What::End(How::Reset) => kind::RESET,
        What::End(How::Lost) => kind::LOST,
    });
    match &letter.what {
        What::Chunk { number, bytes: chunk } => {
            bytes.put_u64(*number);
            bytes.put_u32(chunk.len() as u32);
            bytes.put_slice(chunk);
        }
        What::Credit(credit) => bytes.put_u32(*credit),
        _ => {}
    }
}

/// Reads a letter.
///
/// # Errors
/// It does not follow the layout.
pub(super) fn take(reader: &mut Reader) -> Result<Letter, Error> {
    let (to, from) = (reader.client()?, reader.client()?);
    let what = match reader.u8()? {
        kind::ASK => What::Ask,
        kind::JOINED => What::Joined,
        kind::REFUSED => What::Refused,
        kind::BUSY => What::Busy,
        kind::REPLACED => What::Replaced,
        kind::CHUNK => What::Chunk { number: reader.u64()?, bytes: reader.bytes(PIPE_CHUNK_BYTES_MAX)? },
        kind::CREDIT => What::Credit(u32::from_be_bytes(reader.take()?)),
        kind::CLOSED => What::End(How::Closed),
        kind::FINISHED => What::End(How::Finished),
        kind::RESET => What::End(How::Reset),
        kind::LOST => What::End(How::Lost),
        kind => return Err(Error::UnknownKind(kind)),
    };
    Ok(Letter { to, from, what })
}

#[cfg(test)]
mod tests;
