//! Sockets, one core at a time: the only place that names monoio.
//!
//! A core runs one [`crate::shard::Shard`]: it feeds it what sockets bring, and carries out what it asks for. Nothing
//! is written while completions are handled; the root future of the runtime, which is polled when all tasks have run
//! and before the thread sleeps, sends what has gathered, hands on mail and arms the doorbell (`core`).

mod accept;
mod catch;
mod connection;
pub(crate) mod core;
pub mod driver;
mod gate;
mod listen;
mod socket;
mod sockets;
pub mod splice;
mod watch;

pub(crate) use listen::listen;
