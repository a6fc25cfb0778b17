//! Pairing's clients, the books about them, and what must hold of them (protocols.md section 1).

mod account;
mod behaviour;
mod checks;

pub(super) use account::{Account, Standing, Word, check_received_all, receive_text};
pub(super) use behaviour::{act, ask_pong, flood, path};
pub(super) use checks::standing;
