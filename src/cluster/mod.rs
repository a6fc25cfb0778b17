//! Several hosts form one service over Redis: what is decided, without I/O (protocols.md section 6).
//!
//! One thread beside the shards runs a [`Cluster`]. Shards ask it by mail ([`ToCluster`]) and hear from it by mail
//! ([`FromCluster`]); what is to be done in Redis comes out as [`Output`]s and is carried out by `redis.rs`, which
//! hands in the replies and what is published. Time comes in as milliseconds since the server's start. Each layout in
//! Redis, the two public ones and our own, has a file of its own.
//!
//! The contract is that of the shards: after every `handle_*`, drain [`Cluster::poll_output`]. Letters gather for one
//! turn of the loop, so that many of them cost one PUBLISH: [`Cluster::handle_turn_end`] sends them.
#![forbid(unsafe_code)]

pub mod codec;
mod desk;
pub mod directory;
pub mod hosts;
pub mod introductions;
mod logic;
pub mod pairing;
pub mod pipes;
pub mod rendezvous;
mod roll;
pub mod rooms;

use bytes::Bytes;

use crate::id::{ClientId, HostId, RoomId, ShardIndex};
use crate::limits::SHARDS_MAX;
use crate::protocol::pairing::Note;
pub use desk::Maker;
pub use hosts::Relation;
pub use logic::{Cluster, HEARTBEAT_CHANNEL, Settings, channel_of};

/// Where letters for another host's cluster itself go, and none of its shards.
pub const CLUSTER: ShardIndex = ShardIndex(u8::MAX);

const _: () = assert!(SHARDS_MAX <= CLUSTER.0 as usize);

/// One of the two connections to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// For commands (`REDIS_HOST_PUB`).
    Commands,
    /// For what is published (`REDIS_HOST_SUBS`).
    Subscriptions,
}

/// Which command a reply belongs to. None is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this command to Redis (`REDIS_HOST_PUB`), behind those before it, and hand the reply to
    /// [`Cluster::handle_reply`].
    Command {
        /// For the reply.
        token: Token,
        /// What.
        command: Command,
    },
    /// Subscribe to this channel (`REDIS_HOST_SUBS`), also on every later connection, and say so each time with
    /// [`Cluster::handle_subscribed`].
    Subscribe(Vec<u8>),
    /// Not to this channel any more.
    Unsubscribe(Vec<u8>),
    /// The connection for what is published seems to be there and is not: make it anew.
    Resubscribe,
    /// Mail for a shard of this host.
    Mail {
        /// The shard.
        to: ShardIndex,
        /// What.
        mail: FromCluster,
    },
    /// Something that belongs into the log.
    Remark(Remark),
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remark {
    /// As it should be.
    Info(String),
    /// Somebody should look.
    Warning(String),
}

/// A Lua script: one call that nothing comes between.
#[derive(Debug, PartialEq, Eq)]
pub struct Script {
    /// Its source.
    pub source: &'static str,
}

/// A command of Redis. Keys, members and payloads are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of Redis' commands")]
pub enum Command {
    /// SADD, and EXPIRE if a time is given.
    SetAdd { key: Vec<u8>, member: Vec<u8>, expire_s: Option<u64> },
    /// SREM.
    SetRemove { key: Vec<u8>, member: Vec<u8> },
    /// SMEMBERS.
    SetMembers { key: Vec<u8> },
    /// SISMEMBER.
    SetContains { key: Vec<u8>, member: Vec<u8> },
    /// LREM with count 0: all of them.
    ListRemove { key: Vec<u8>, member: Vec<u8> },
    /// EXPIRE.
    Expire { key: Vec<u8>, expire_s: u64 },
    /// PUBLISH.
    Publish { channel: Vec<u8>, payload: Bytes },
    /// EVALSHA, or EVAL where it is not known yet. One that Redis has forgotten runs behind what was sent by then.
    Run { script: &'static Script, keys: Vec<Vec<u8>>, arguments: Vec<Vec<u8>> },
}

impl Command {
    /// Bytes of its keys, members and payloads.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::SetAdd { key, member, .. }
            | Self::SetRemove { key, member }
            | Self::SetContains { key, member }
            | Self::ListRemove { key, member } => key.len() + member.len(),
            Self::SetMembers { key } | Self::Expire { key, .. } => key.len(),
            Self::Publish { channel, payload } => channel.len() + payload.len(),
            Self::Run { keys, arguments, .. } => keys.iter().chain(arguments).map(Vec::len).sum(),
        }
    }

    /// Whether it carries nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What Redis says to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `OK`, or nothing that matters.
    Done,
    /// A number.
    Integer(i64),
    /// A string.
    Bytes(Vec<u8>),
    /// A list or set of strings and numbers, the numbers as text.
    List(Vec<Vec<u8>>),
    /// Nothing is there.
    Nil,
    /// Redis was away or refused: whether it was done is not known.
    Failed,
}

impl Reply {
    /// Bytes of its strings.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::List(items) => items.iter().map(Vec::len).sum(),
            Self::Done | Self::Integer(_) | Self::Nil | Self::Failed => 0,
        }
    }

    /// Whether it carries nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What goes from host to host. It arrives in the order sent, or the relation between the two hosts ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Letter {
    /// What the partners of pairing say to each other.
    Note(Note),
    /// A finished frame for a client in a room of pairing.
    Frame {
        /// The receiver.
        to: ClientId,
        /// The room.
        room: RoomId,
        /// Header and payload, as they go onto the wire.
        frame: Bytes,
    },
    /// Of the queue.
    Pairing(pairing::Letter),
    /// Of rendezvous.
    Rendezvous(rendezvous::Letter),
    /// Of the directory.
    Directory(directory::Letter),
    /// Of rooms.
    Rooms(rooms::Letter),
    /// Of introductions.
    Introductions(introductions::Letter),
    /// Of pipes.
    Pipes(pipes::Letter),
}

impl Letter {
    /// Bytes that it refers to.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Note(_) => 0,
            Self::Frame { frame, .. } => frame.len(),
            Self::Pairing(letter) => letter.len(),
            Self::Rendezvous(letter) => letter.len(),
            Self::Directory(letter) => letter.len(),
            Self::Rooms(letter) => letter.len(),
            Self::Introductions(letter) => letter.len(),
            Self::Pipes(letter) => letter.len(),
        }
    }

    /// Whether it refers to nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a shard asks of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToCluster {
    /// Send this to another host. It is lost if the relation has ended by now, of which the shard hears.
    Letter {
        /// The host.
        to: HostId,
        /// The relation that it belongs to, as [`FromCluster::HostFound`] named it.
        relation: Relation,
        /// The shard there.
        shard: ShardIndex,
        /// What.
        letter: Letter,
    },
    /// Of the queue.
    Pairing(pairing::Request),
    /// Of rendezvous.
    Rendezvous(rendezvous::Request),
    /// Of the directory.
    Directory(directory::Request),
    /// Of rooms.
    Rooms(rooms::Request),
    /// Of introductions.
    Introductions(introductions::Request),
    /// Of pipes.
    Pipes(pipes::Request),
}

/// What the cluster says to a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromCluster {
    /// A letter from another host. It comes between that host's [`FromCluster::HostFound`] and
    /// [`FromCluster::HostGone`], behind those sent before it.
    Letter(HostId, Letter),
    /// This host can be written to from now on.
    HostFound(HostId, Relation),
    /// This host is gone, or the relation to it has ended: all its clients have left.
    HostGone(HostId),
    /// Whether other hosts can be reached at all. Not until it is said.
    Online(bool),
    /// Of the queue.
    Pairing(pairing::News),
    /// Of rendezvous.
    Rendezvous(rendezvous::News),
    /// Of the directory.
    Directory(directory::News),
    /// Of rooms.
    Rooms(rooms::News),
    /// Of introductions.
    Introductions(introductions::News),
    /// Of pipes.
    Pipes(pipes::News),
}

impl FromCluster {
    /// Bytes that it refers to.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Letter(_, letter) => letter.len(),
            Self::Pairing(news) => news.len(),
            Self::Rendezvous(news) => news.len(),
            Self::Directory(news) => news.len(),
            Self::Rooms(news) => news.len(),
            Self::Introductions(news) => news.len(),
            Self::Pipes(news) => news.len(),
            Self::HostFound(..) | Self::HostGone(_) | Self::Online(_) => 0,
        }
    }

    /// Whether it refers to nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
