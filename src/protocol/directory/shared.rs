//! The directory of several hosts: what this one is told of the one list that all share (protocols.md section 6).
//!
//! A client's login is asked about first, and nothing of the client is read until there is an answer. What comes and goes
//! is told in the list's order, which is that of the numbers; a name is told to be gone before another has it.

use std::sync::Arc;

use super::{Actions, Directory, Login, PEER_CONNECTED, PEER_DISCONNECTED, Rank, State, about, refuse_taken};
use crate::id::{ClientId, HostId};

/// What is asked about a name. There is no answer to [`Ask::Logout`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// This client wants this name.
    Login {
        /// Who.
        client: ClientId,
        /// A good name.
        name: Arc<str>,
    },
    /// This client wants no name any more.
    Logout(ClientId),
}

/// Peers of other hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Distant {
    /// One of them.
    Client(ClientId),
    /// All of these hosts.
    Hosts(Vec<HostId>),
}

impl Directory {
    /// A client of this host has the name that it asked for, or its login counts anew. `number` is its place in the list.
    pub fn handle_admitted(
        &mut self,
        state: &mut State,
        me: ClientId,
        number: u64,
        name: Arc<str>,
        out: &mut Actions,
    ) {
        match &mut state.login {
            None if std::mem::take(&mut state.is_asking) => {
                self.enter(state, me, Login { number, name }, out);
            }
            // It has closed meanwhile, and says so.
            None => {}
            Some(login) => {
                self.peers.remove(&(login.number, me));
                self.peers.insert((number, me), login.name.clone());
                login.number = number;
            }
        }
    }

    /// The name that a client of this host has asked for, or has had, is another's.
    pub fn handle_refused(&mut self, state: &State, me: ClientId, out: &mut Actions) {
        if state.is_asking || state.login.is_some() {
            refuse_taken(me, out);
        }
    }

    /// A peer of another host has come; or its login counts anew, which is told to nobody. False: its name is taken,
    /// which is not so in a list.
    pub fn handle_came(&mut self, client: ClientId, number: u64, name: &Arc<str>, out: &mut Actions) -> bool {
        match (self.numbers.get(&client).copied(), self.clients.get(name)) {
            (Some(before), Some(holder)) if *holder == client => {
                self.distant.remove(&(before, client));
            }
            (None, None) => {
                self.clients.insert(name.clone(), client);
                *self.hosts.entry(client.host()).or_default() += 1;
                self.tell_here(client, about(PEER_CONNECTED, name), out);
            }
            _ => return false,
        }
        self.numbers.insert(client, number);
        self.distant.insert((number, client), name.clone());
        true
    }

    /// A peer of another host has left.
    pub fn handle_went(&mut self, client: ClientId, out: &mut Actions) {
        if let Some(number) = self.numbers.get(&client) {
            self.forget((*number, client), out);
        }
    }

    /// All peers of another host have left.
    pub fn handle_host_gone(&mut self, host: HostId, out: &mut Actions) {
        if self.hosts.contains_key(&host) {
            let gone = self.distant.keys().copied().filter(|(_, client)| client.host() == host);
            for rank in gone.collect::<Vec<_>>() {
                self.forget(rank, out);
            }
        }
    }

    /// Who hears what a peer of another host says to all.
    #[must_use]
    pub fn hearers_of(&self, from: ClientId) -> Option<Vec<ClientId>> {
        self.numbers.contains_key(&from).then(|| self.peers.keys().map(|(_, client)| *client).collect())
    }

    /// Whether a peer of another host may speak to this client: both are logged in.
    #[must_use]
    pub fn knows(&self, from: ClientId, state: &State) -> bool {
        self.numbers.contains_key(&from) && state.login.is_some()
    }

    fn forget(&mut self, rank: Rank, out: &mut Actions) {
        let (_, client) = rank;
        self.numbers.remove(&client);
        let Some(name) = self.distant.remove(&rank) else { return };
        self.clients.remove(&name);
        if let Some(count) = self.hosts.get_mut(&client.host()) {
            *count -= 1;
            if *count == 0 {
                self.hosts.remove(&client.host());
            }
        }
        self.tell_here(client, about(PEER_DISCONNECTED, &name), out);
    }
}

#[cfg(test)]
mod tests;
