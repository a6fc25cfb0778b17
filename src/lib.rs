//! Parlor.
pub mod buffers;
pub mod config;
pub mod http;
pub mod id;
pub mod limits;
pub mod mailbox;
pub mod metrics;
pub mod net;
pub mod plant;
pub mod protocol;
pub mod server;
pub mod shard;
#[cfg(any(test, feature = "simulator"))]
pub mod simulator;
pub mod websocket;
pub mod wire;
