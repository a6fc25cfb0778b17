//! Introductions over several hosts (protocols.md sections 5 and 6): each host introduces its own peers to each other,
//! and Redis says which peers of other hosts have documents in common with them.
//!
//! | key | what it is |
//! |---|---|
//! | `parlor:peers` | hash of the peers: the client that speaks for each |
//! | `parlor:peer:<id>` | sorted set of a peer's documents, in its order |
//! | `parlor:document:<name>` | set of the peers that have a document |
//! | `parlor:acquaintances` | hash of the peers: to whom each was introduced, for short URLs of pipes |
//!
//! A shard registers what its peers have and hears whom they meet; it tells its own client, and writes to the shard of
//! the other. Nothing is kept here but what Redis is still to forget: all else is registered again by the shards when
//! Redis comes back ([`News::Up`]).

mod replies;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes};

use super::codec::{Error, Reader};
use super::desk::{self, Desk, Maker};
use super::{Command, FromCluster, Reply, Script};
use crate::id::{ClientId, HostId, ShardIndex};
use crate::limits::{HOST_FRAME_BYTES_MAX, INTRODUCTION_KEYS_BYTES_MAX, PARTINGS_MAX, PEER_ID_BYTES_MAX};
use crate::protocol::introduction::distant::{Acquaintance, Names};
use replies::{Registered, encode_acquaintance, parse_partner, parse_registered};

/// KEYS: the peers, the acquaintances, the peer's documents. ARGV: id, client, scope, acquaintance, whether it takes the
/// id from whoever has it, whether the documents are all, most bytes of names to return, number of documents to add,
/// hosts whose peers can be introduced, documents to add, documents to take away.
static REGISTER: Script = Script { source: include_str!("scripts/introduction_register.lua") };
/// KEYS: as of [`REGISTER`]. ARGV: id, client.
static LEAVE: Script = Script { source: include_str!("scripts/introduction_leave.lua") };
/// KEYS: the peers, the acquaintances. ARGV: id.
static PARTNER: Script = Script { source: include_str!("scripts/introduction_partner.lua") };

/// Peers of which hosts are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Of none.
    Nobody,
    /// Of this one.
    One(HostId),
    /// Of all but our own, whose peers are introduced to each other already.
    Others,
    /// Of all; our own peers know of it already, Redis does not.
    All,
}

/// What a peer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Who speaks for it.
    pub client: ClientId,
    /// Its id.
    pub id: Arc<str>,
    /// The client has just come: whoever spoke for the peer before does not any more.
    pub takes: bool,
    /// These are all documents that it has.
    pub is_whole: bool,
    /// Documents that it has.
    pub join: Names,
    /// Then, documents that it has not.
    pub leave: Names,
    /// To whom it was introduced, if Redis may not know.
    pub acquaintance: Acquaintance,
    /// Whom it is to be introduced to.
    pub scope: Scope,
}

/// What a shard asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Register this; [`News::Registered`] follows.
    Register(Box<Registration>),
    /// A client and its peer have left.
    Leave {
        /// The client.
        client: ClientId,
        /// The peer.
        id: Arc<str>,
    },
    /// Who was introduced to this peer and nobody else? [`News::Partner`] follows.
    Partner {
        /// Who asks.
        client: ClientId,
        /// The peer.
        remote: Box<str>,
    },
}

/// What a shard is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Redis can be worked with; it may be empty: all that there is is to be registered.
    Up,
    /// It cannot.
    Down,
    /// What became of a [`Request::Register`]. One for each, in their order.
    Registered {
        /// Whose it was.
        client: ClientId,
        /// What became of it.
        outcome: Outcome,
    },
    /// The answer to a [`Request::Partner`].
    Partner {
        /// Who asked.
        client: ClientId,
        /// What it asked about.
        remote: Box<str>,
        /// The other peer and the document, if there are such.
        found: Found,
    },
}

/// Who was introduced to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// This one and nobody else, over this document.
    Partner(Box<str>, Box<str>),
    /// Nobody, or more.
    Nobody,
    /// Redis could not say.
    Unknown,
}

/// What became of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is registered.
    Done {
        /// Documents that a client of another host had, which spoke for the peer before.
        inherited: Names,
        /// To whom the peer was introduced while that did.
        acquaintance: Acquaintance,
        /// Peers of other hosts that have documents in common with it.
        meetings: Vec<Meeting>,
    },
    /// A client of another host speaks for the peer.
    TakenOver,
    /// Somebody who is gone was in the way: register all that it has again.
    Again,
    /// It has so much in common with others that nobody could be told.
    TooMuch,
    /// It is not known whether it is registered.
    Failed {
        /// It was of a client that had just come.
        takes: bool,
    },
}

/// A peer of another host that has documents in common with one of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meeting {
    /// Who speaks for it.
    pub client: ClientId,
    /// Its id.
    pub id: Box<str>,
    /// The documents, in the order of our peer.
    pub documents: Names,
}

/// What hosts say to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Letter {
    /// To a shard: introduce your client to this peer.
    Introduction {
        /// The client.
        to: ClientId,
        /// Who speaks for the other peer: a client of the host that writes.
        from: ClientId,
        /// The other peer's id.
        id: Box<str>,
        /// The documents that both have.
        documents: Names,
    },
    /// To a shard: your client does not speak for its peer any more.
    TakenOver {
        /// The client.
        client: ClientId,
        /// Who does: a client of the host that writes.
        by: ClientId,
    },
}

/// What a reply is awaited for.
#[derive(Debug)]
pub(super) enum Awaited {
    /// A registration.
    Register { shard: ShardIndex, client: ClientId, id: Arc<str>, takes: bool },
    /// A parting.
    Leave { client: ClientId, id: Arc<str> },
    /// A question.
    Partner { shard: ShardIndex, client: ClientId, remote: Box<str> },
}

/// What this host's cluster knows of it.
#[derive(Debug, Default)]
pub(super) struct Introductions {
    /// Who has left, of which Redis was not told. At most [`PARTINGS_MAX`]; of more, Redis keeps an entry that nobody
    /// answers for until this host is gone.
    partings: BTreeMap<ClientId, Arc<str>>,
}

impl Introductions {
    /// A shard asks for something.
    pub(super) fn handle_request(&mut self, from: ShardIndex, request: Request, desk: &mut Desk) {
        match request {
            Request::Register(registration) => {
                let Registration { client, id, takes, .. } = &*registration;
                let awaited =
                    Awaited::Register { shard: from, client: *client, id: Arc::clone(id), takes: *takes };
                desk.ask(desk::Awaited::Introductions(awaited), register(&registration, desk));
            }
            Request::Leave { client, id } => ask_to_leave(client, id, desk),
            Request::Partner { client, remote } => {
                let command = Command::Run {
                    script: &PARTNER,
                    keys: vec![peers(), acquaintances()],
                    arguments: vec![remote.as_bytes().to_vec()],
                };
                let awaited = Awaited::Partner { shard: from, client, remote };
                desk.ask(desk::Awaited::Introductions(awaited), command);
            }
        }
    }

    /// Redis has answered, or has not ([`Reply::Failed`]).
    pub(super) fn handle_reply(&mut self, awaited: Awaited, reply: &Reply, desk: &mut Desk) {
        match awaited {
            Awaited::Register { shard, client, id, takes } => {
                let outcome = match parse_registered(reply) {
                    Some(registered) => outcome_of(client, &id, registered, desk),
                    None => Outcome::Failed { takes },
                };
                tell(shard, News::Registered { client, outcome }, desk);
            }
            Awaited::Leave { client, id } => {
                if *reply == Reply::Failed && self.partings.len() < PARTINGS_MAX {
                    self.partings.insert(client, id);
                }
            }
            Awaited::Partner { shard, client, remote } => {
                let found = match reply {
                    Reply::List(items) if items.is_empty() => Found::Nobody,
                    reply => found_in(reply, desk),
                };
                tell(shard, News::Partner { client, remote, found }, desk);
            }
        }
    }

    /// Redis can be worked with from now on ([`Desk::is_up`]). It may be another one than before, or empty.
    pub(super) fn handle_up(&mut self, desk: &mut Desk) {
        for (client, id) in std::mem::take(&mut self.partings) {
            ask_to_leave(client, id, desk);
        }
        desk.mail_all(&FromCluster::Introductions(News::Up));
    }

    /// Redis cannot be worked with. What it was asked has failed, or will.
    pub(super) fn handle_down(&mut self, desk: &mut Desk) {
        desk.mail_all(&FromCluster::Introductions(News::Down));
    }
}

fn tell(shard: ShardIndex, news: News, desk: &mut Desk) {
    desk.mail(shard, FromCluster::Introductions(news));
}

/// What follows from a registration.
fn outcome_of(client: ClientId, id: &str, registered: Registered, desk: &mut Desk) -> Outcome {
    match registered {
        Registered::TooMuch => Outcome::TooMuch,
        Registered::Refused { before } => match desk.maker(before) {
            Maker::Gone(_) => {
                desk.command(leave(before, id.as_bytes()));
                Outcome::Again
            }
            Maker::Here | Maker::Neighbour(_) | Maker::Unreached(_) | Maker::Foreign => Outcome::TakenOver,
        },
        Registered::Done { before, inherited, acquaintance, meetings } => {
            match before.filter(|before| *before != client).map(|before| (before, desk.maker(before))) {
                // What it had has left with it. All that is ours takes the place of what there is.
                Some((_, Maker::Gone(_))) => return Outcome::Again,
                Some((before, Maker::Neighbour(host))) => {
                    let letter = Letter::TakenOver { client: before, by: client };
                    desk.write(host, before.shard(), &super::Letter::Introductions(letter));
                }
                // Who cannot be reached learns of it when it registers its peer again.
                Some((_, Maker::Here | Maker::Unreached(_) | Maker::Foreign)) | None => {}
            }
            let meetings = meet(meetings, desk);
            Outcome::Done { inherited, acquaintance, meetings }
        }
    }
}

/// Leaves out whom nobody can be introduced to.
fn meet(meetings: Vec<Meeting>, desk: &mut Desk) -> Vec<Meeting> {
    let mut met = Vec::new();
    for meeting in meetings {
        match desk.maker(meeting.client) {
            Maker::Neighbour(_) => met.push(meeting),
            Maker::Gone(_) => {
                desk.command(leave(meeting.client, meeting.id.as_bytes()));
            }
            // They are met when they are found, by both.
            Maker::Here | Maker::Unreached(_) | Maker::Foreign => {}
        }
    }
    met
}

fn found_in(reply: &Reply, desk: &Desk) -> Found {
    let Some((clients, partner, document)) = parse_partner(reply) else { return Found::Unknown };
    let is_there = |client| !matches!(desk.maker(client), Maker::Gone(_) | Maker::Foreign);
    if clients.into_iter().all(is_there) { Found::Partner(partner, document) } else { Found::Nobody }
}

fn ask_to_leave(client: ClientId, id: Arc<str>, desk: &mut Desk) {
    let command = leave(client, id.as_bytes());
    desk.ask(desk::Awaited::Introductions(Awaited::Leave { client, id }), command);
}

fn leave(client: ClientId, id: &[u8]) -> Command {
    Command::Run {
        script: &LEAVE,
        keys: vec![peers(), acquaintances(), documents_of(id)],
        arguments: vec![id.to_vec(), client.text().to_vec()],
    }
}

fn register(registration: &Registration, desk: &Desk) -> Command {
    let Registration { client, id, takes, is_whole, join, leave, acquaintance, scope } = registration;
    let flag = |is_set: &bool| if *is_set { b"1".to_vec() } else { b"0".to_vec() };
    let hosts: Vec<String> = desk.hosts.all_found().map(|host| host.to_string()).collect();
    let scope = match scope {
        Scope::Nobody => Vec::new(),
        Scope::One(host) => host.to_string().into_bytes(),
        Scope::Others => b"others".to_vec(),
        Scope::All => b"all".to_vec(),
    };
    let mut arguments = vec![
        id.as_bytes().to_vec(),
        client.text().to_vec(),
        scope,
        encode_acquaintance(acquaintance),
        flag(takes),
        flag(is_whole),
        INTRODUCTION_KEYS_BYTES_MAX.to_string().into_bytes(),
        join.iter().count().to_string().into_bytes(),
        hosts.join(",").into_bytes(),
    ];
    arguments.extend(join.iter().chain(leave.iter()).map(<[u8]>::to_vec));
    Command::Run {
        script: &REGISTER,
        keys: vec![peers(), acquaintances(), documents_of(id.as_bytes())],
        arguments,
    }
}

fn peers() -> Vec<u8> {
    b"parlor:peers".to_vec()
}

fn acquaintances() -> Vec<u8> {
    b"parlor:acquaintances".to_vec()
}

fn documents_of(id: &[u8]) -> Vec<u8> {
    [b"parlor:peer:", id].concat()
}

impl Letter {
    /// Bytes that it refers to.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Introduction { id, documents, .. } => id.len() + documents.bytes().len(),
            Self::TakenOver { .. } => 0,
        }
    }
}

impl News {
    /// Bytes that it refers to.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Up | Self::Down => 0,
            Self::Registered { outcome: Outcome::Done { inherited, meetings, .. }, .. } => {
                let of_meeting = |meeting: &Meeting| {
                    size_of::<Meeting>() + meeting.id.len() + meeting.documents.bytes().len()
                };
                inherited.bytes().len() + meetings.iter().map(of_meeting).sum::<usize>()
            }
            Self::Registered { .. } => 0,
            Self::Partner { remote, found, .. } => {
                remote.len()
                    + match found {
                        Found::Partner(partner, document) => partner.len() + document.len(),
                        Found::Nobody | Found::Unknown => 0,
                    }
            }
        }
    }
}

/// The kinds of letters.
const INTRODUCTION: u8 = 1;
const TAKEN_OVER: u8 = 2;

/// Writes a letter.
pub(super) fn put(bytes: &mut Vec<u8>, letter: &Letter) {
    match letter {
        Letter::Introduction { to, from, id, documents } => {
            bytes.put_u8(INTRODUCTION);
            bytes.put_u128(to.to_bits());
            bytes.put_u128(from.to_bits());
            bytes.put_u32(id.len() as u32);
            bytes.put_slice(id.as_bytes());
            bytes.put_u32(documents.bytes().len() as u32);
            bytes.put_slice(documents.bytes());
        }
        Letter::TakenOver { client, by } => {
            bytes.put_u8(TAKEN_OVER);
            bytes.put_u128(client.to_bits());
            bytes.put_u128(by.to_bits());
        }
    }
}

/// Reads a letter.
///
/// # Errors
/// It does not follow the layout.
pub(super) fn take(reader: &mut Reader) -> Result<Letter, Error> {
    match reader.u8()? {
        INTRODUCTION => {
            let (to, from) = (reader.client()?, reader.client()?);
            let id = String::from_utf8(reader.bytes(PEER_ID_BYTES_MAX)?.to_vec());
            let id = id.map_err(|_| Error::WrongText)?.into();
            let documents = reader.bytes(HOST_FRAME_BYTES_MAX)?;
            // A copy: else the letter would keep all of the mail that it came in.
            let documents = Names::parse(Bytes::copy_from_slice(&documents)).ok_or(Error::WrongText)?;
            Ok(Letter::Introduction { to, from, id, documents })
        }
        TAKEN_OVER => Ok(Letter::TakenOver { client: reader.client()?, by: reader.client()? }),
        kind => Err(Error::UnknownKind(kind)),
    }
}

#[cfg(test)]
mod tests;
