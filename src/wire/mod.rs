//! What stands on the wire, as views over somebody's bytes: request heads, frames, masks, JSON envelopes.
//!
//! Nothing here does I/O, keeps a connection's state or knows a protocol.
#![forbid(unsafe_code)]

pub mod close;
pub mod envelope;
pub mod frame;
pub mod http;
pub mod mask;
pub mod quote;
pub mod utf8;

/// A byte range in a buffer that the reader of the span knows.
pub type Span = std::ops::Range<usize>;
