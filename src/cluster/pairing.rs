//! SKELETON: pairing over several hosts.

use super::Reply;
use super::codec::{Error, Reader};
use super::desk::Desk;
use super::hosts::Why;
use crate::id::{HostId, ShardIndex};

/// What a shard asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {}

/// What a shard is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {}

/// What hosts say to each other: to a shard, or to the cluster of the other host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Letter {}

/// What a reply is awaited for.
#[derive(Debug)]
pub(super) enum Awaited {}

/// What this host's cluster knows of it.
#[derive(Debug, Default)]
pub(super) struct Pairing {}

impl Pairing {
    /// A shard asks for something.
    pub(super) fn handle_request(&mut self, _from: ShardIndex, request: Request, _desk: &mut Desk) {
        match request {}
    }

    /// Redis has answered, or has not ([`Reply::Failed`]).
    pub(super) fn handle_reply(&mut self, awaited: Awaited, _reply: &Reply, _desk: &mut Desk) {
        match awaited {}
    }

    /// A channel is subscribed, for the first time or again.
    pub(super) fn handle_subscribed(&mut self, _channel: &[u8], _desk: &mut Desk) {}

    /// Something was published in a channel. False: it is none of ours.
    pub(super) fn handle_push(&mut self, _channel: &[u8], _payload: &[u8], _desk: &mut Desk) -> bool {
        false
    }

    /// Another host's shard or cluster has written to this host's cluster.
    pub(super) fn handle_letter(&mut self, _from: HostId, letter: Letter, _desk: &mut Desk) {
        match letter {}
    }

    /// A relation to another host has begun.
    pub(super) fn handle_host_found(&mut self, _host: HostId, _desk: &mut Desk) {}

    /// A relation to another host has ended. It may begin again; after [`Why::is_final`] it will not.
    pub(super) fn handle_host_gone(&mut self, _host: HostId, _why: Why, _desk: &mut Desk) {}

    /// Redis can be worked with from now on ([`Desk::is_up`]). It may be another one than before, or empty.
    pub(super) fn handle_up(&mut self, _desk: &mut Desk) {}

    /// Redis cannot be worked with. What it was asked has failed, or will.
    pub(super) fn handle_down(&mut self, _desk: &mut Desk) {}

    /// Of some ids that were unreached it is known now who made them.
    pub(super) fn handle_roll(&mut self, _desk: &mut Desk) {}

    /// Time has passed.
    pub(super) fn handle_tick(&mut self, _desk: &mut Desk) {}

    /// The host shuts down. Its clients leave right after this.
    pub(super) fn handle_shutdown(&mut self, _desk: &mut Desk) {}
}

impl Letter {
    /// Bytes that it refers to.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        match *self {}
    }
}

impl News {
    /// Bytes that it refers to.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        match *self {}
    }
}

/// Writes a letter.
pub(super) fn put(_bytes: &mut Vec<u8>, letter: &Letter) {
    match *letter {}
}

/// Reads a letter.
///
/// # Errors
/// It does not follow the layout.
pub(super) fn take(reader: &mut Reader) -> Result<Letter, Error> {
    reader.u8().and_then(|kind| Err(Error::UnknownKind(kind)))
}
