//! The clients of this host that are to be in the list, and what was asked of Redis for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{AnyAwaited, Awaited, keys};
use crate::cluster::desk::Desk;
use crate::cluster::{Command, Script};
use crate::id::ClientId;
use crate::limits::{ANSWER_MS_MAX, DIRECTORY_PAUSE_MS};

/// ARGV: a client's id, its name, the id of one who may have it and is gone. Returns a number, or the id of the one who has
/// it.
static LOGIN: Script = Script { source: include_str!("../scripts/directory_login.lua") };

/// One client.
#[derive(Debug)]
struct Login {
    name: Arc<str>,
    /// When it asked.
    since_ms: u64,
    /// Its shard was told that it has its name.
    is_told: bool,
    /// How many questions have no answer yet, and when the last one was asked.
    asked: u32,
    asked_ms: u64,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Own {
    logins: BTreeMap<ClientId, Login>,
    /// Those that the list does not have, as far as is known.
    missing: BTreeSet<ClientId>,
}

impl Own {
    /// A client wants a name: Redis is asked, now or when it can be.
    pub(super) fn add(&mut self, client: ClientId, name: Arc<str>, desk: &mut Desk) {
        let login = Login { name, since_ms: desk.now_ms, is_told: false, asked: 0, asked_ms: 0 };
        self.logins.insert(client, login);
        self.missing.insert(client);
        if desk.is_up {
            self.ask(client, b"", desk);
        }
    }

    /// A client wants its name no longer. Returns it.
    pub(super) fn remove(&mut self, client: ClientId) -> Option<Arc<str>> {
        self.missing.remove(&client);
        self.logins.remove(&client).map(|login| login.name)
    }

    pub(super) fn has(&self, client: ClientId) -> bool {
        self.logins.contains_key(&client)
    }

    /// Whether a client wants this very name.
    pub(super) fn wants(&self, client: ClientId, name: &str) -> bool {
        self.logins.get(&client).is_some_and(|login| &*login.name == name)
    }

    /// The list has lost a client, or never had it.
    pub(super) fn mark_missing(&mut self, client: ClientId) {
        if let Some(login) = self.logins.get_mut(&client) {
            // What was asked before, was asked in vain.
            login.asked_ms = 0;
            login.asked = 0;
            self.missing.insert(client);
        }
    }

    /// The list has a client.
    pub(super) fn mark_present(&mut self, client: ClientId) {
        self.missing.remove(&client);
        if let Some(login) = self.logins.get_mut(&client) {
            login.is_told = true;
        }
    }

    /// There is an answer. False: the client is gone, and the answer is nobody's.
    pub(super) fn handle_answered(&mut self, client: ClientId) -> bool {
        let Some(login) = self.logins.get_mut(&client) else { return false };
        login.asked = login.asked.saturating_sub(1);
        true
    }

    /// Asks again for those that the list does not have, each once in a while.
    pub(super) fn ask_again(&mut self, desk: &mut Desk) {
        if !desk.is_up {
            return;
        }
        let is_due = |login: &Login| {
            let has_waited = desk.now_ms.saturating_sub(login.asked_ms) >= DIRECTORY_PAUSE_MS;
            login.asked_ms == 0 || (login.asked == 0 && has_waited)
        };
        let due = |client: &&ClientId| self.logins.get(client).is_some_and(is_due);
        for client in self.missing.iter().filter(due).copied().collect::<Vec<_>>() {
            self.ask(client, b"", desk);
        }
    }

    /// Asks for a name that one has who is gone.
    pub(super) fn ask_in_place_of(&mut self, client: ClientId, gone: &[u8], desk: &mut Desk) {
        self.ask(client, gone, desk);
    }

    /// Those that have waited for too long.
    pub(super) fn poll_late(&self, now_ms: u64) -> Vec<ClientId> {
        let is_late =
            |login: &Login| !login.is_told && now_ms.saturating_sub(login.since_ms) >= ANSWER_MS_MAX;
        let late = |client: &&ClientId| self.logins.get(client).is_some_and(is_late);
        self.missing.iter().filter(late).copied().collect()
    }

    fn ask(&mut self, client: ClientId, gone: &[u8], desk: &mut Desk) {
        let Some(login) = self.logins.get_mut(&client) else { return };
        login.asked += 1;
        login.asked_ms = desk.now_ms.max(1);
        let arguments = vec![client.text().to_vec(), login.name.as_bytes().to_vec(), gone.to_vec()];
        let command = Command::Run { script: &LOGIN, keys: keys(), arguments };
        desk.ask(AnyAwaited::Directory(Awaited::Login(client)), command);
    }
}
