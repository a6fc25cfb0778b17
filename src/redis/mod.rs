//! The way to Redis or Valkey: the only place that names its client and the runtime that runs it.
//!
//! One thread carries out what a [`crate::cluster::Cluster`] asks for. It has a mailbox among those of the shards, and
//! never keeps one of them waiting: what Redis does not take in time fails. Commands go over one connection, all of a
//! turn in one write, and many writes may wait for their replies; what is published comes in over another. Either is
//! made anew without end when it is lost, and everything is subscribed again.
//!
//! The protocol is RESP2: it works with every Redis, Valkey and proxy, and RESP3 would add nothing that is used here,
//! since what is published has a connection of its own.

mod bell;
mod commands;
mod endpoint;
mod link;
mod scripts;
mod subscriptions;
mod values;
mod worker;

use bytes::Bytes;

use crate::cluster::{Reply, Token};
pub use endpoint::{Endpoint, Endpoints};
pub(crate) use worker::{Ending, Parts, run};

/// What a connection brings.
#[derive(Debug)]
enum Happening {
    /// It has been made.
    Connected,
    /// It is lost.
    Disconnected,
    /// A command was answered, or will not be.
    Reply { token: Token, reply: Reply },
    /// A channel is subscribed.
    Subscribed(Vec<u8>),
    /// Something was published.
    Push { channel: Vec<u8>, payload: Bytes },
}

#[cfg(test)]
mod tests;
