//! Dialects as protocols.md has them, written in the simple way.

pub mod directory;
pub mod documents;
pub mod introductions;
pub mod lobby;
pub mod pipes;
pub mod rendezvous;
pub mod rooms;
