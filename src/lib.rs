//! Parlor: a WebRTC signaling server on io_uring with a zero-copy relay core.
//!
//! # The map
//!
//! The modules stand in the order in which a byte travels; arrows point down only.
//!
//! ```text
//! main → server → net → shard → { protocol, websocket, cluster } → wire → buffers, limits, id
//!                  │       └ mail ┐
//!                  ├ mailbox ◄────┘   rings and doorbells between shards, and to the thread that
//!                  ├ redis ► cluster  speaks to Redis and through it to other hosts
//!                  └ http             health, metrics, a page
//! ```
//!
//! The **pure half** ([`wire`], [`websocket`], [`protocol`], [`shard`], [`cluster`]) does no I/O, reads no clock, draws no random
//! number from the system and spawns nothing: time and a seed come in as arguments. So it is fuzzed as it is, and the
//! simulator runs many shards in one thread with faults from a seed. The impure half ([`net`], [`server`], [`http`],
//! [`mailbox`], [`redis`]) carries out what it asks for; [`net`] alone names the runtime of the shards, [`redis`] alone
//! that of the thread beside them.
//!
//! # The contract
//!
//! After every `handle_*`, drain every `poll_*` before the next; no borrow crosses an `.await`. A protocol answers with
//! [`protocol::Action`]s, never with I/O. What peers do wrong becomes an error message or a close code, what the system
//! does wrong an [`std::io::Error`]; a panic is a bug of ours, and costs the one client it happened over.
//!
//! # Glossary
//!
//! *frame*: one RFC 6455 frame. *message*: a complete text or binary message. *envelope*: the routing fields of a message.
//! *payload*: opaque bytes that are never interpreted. *span*: a byte range in a buffer. *client*: one connection as the
//! server sees it. *partner*: the other client, as a protocol sees it. *dialect*: which of the protocols a client
//! speaks. *home*: the shard where a queue, a key or a dialect lives. *shard*: one core and all it owns. *host*: one
//! process. *mail*: what crosses shards or hosts. *letter*: one piece of what crosses hosts. *relation*: what two hosts
//! are in while nothing between them is lost. *mailbox*: where it lands. *note*: what the queue and the partners of pairing
//! say to each other. *action*: what a protocol asks for. *outbox*: what a client has yet to be sent.

pub mod buffers;
pub mod cluster;
pub mod config;
pub mod healthcheck;
pub mod http;
pub mod id;
pub mod limits;
pub mod mailbox;
pub mod metrics;
pub mod net;
pub mod plant;
pub mod protocol;
pub mod redis;
pub mod server;
pub mod shard;
#[cfg(any(test, feature = "simulator"))]
pub mod simulator;
pub mod websocket;
pub mod wire;

/// As the black-box tests name it, whose Redis the unit tests share.
#[cfg(test)]
extern crate self as parlor;

/// A Redis of a test's own, as the black-box tests have it.
#[cfg(test)]
#[path = "../tests/support/redis.rs"]
#[allow(dead_code, reason = "the black-box tests use the rest")]
mod test_redis;
