//! Parlor.
pub mod buffers;
pub mod id;
pub mod limits;
pub mod mailbox;
pub mod metrics;
pub mod plant;
pub mod protocol;
pub mod shard;
pub mod websocket;
pub mod wire;
