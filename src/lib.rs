//! Parlor.
pub mod buffers;
pub mod id;
pub mod limits;
pub mod mailbox;
pub mod wire;
pub mod websocket;
