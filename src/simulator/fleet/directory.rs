//! Named peers: one list for everybody.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::client::{Client, Voice, text};
use crate::simulator::chance::Chance;
use crate::simulator::checks::fail;

/// One client.
#[derive(Debug, Default)]
pub(super) struct Named {
    has_asked: bool,
    pub(super) name: Option<String>,
    peers: BTreeSet<String>,
    sent: u64,
    /// The last number heard of each peer.
    heard: Vec<(String, u64)>,
    greetings: BTreeSet<String>,
    is_greeted: bool,
    pub(super) from_peers: u64,
}

const NAMES: usize = 7;

impl Named {
    pub(super) fn act(&mut self, chance: &mut Chance) -> Option<String> {
        if !self.has_asked {
            self.has_asked = true;
            return Some(json!({ "type": "login", "name": format!("n{}", chance.below(NAMES)) }).to_string());
        }
        self.name.as_ref()?;
        self.sent += 1;
        match chance.below(3) {
            0 => Some(r#"{"type":"page_opened"}"#.into()),
            _ if self.peers.is_empty() => None,
            _ => {
                let target = self.peers.iter().nth(chance.below(self.peers.len()))?;
                Some(json!({ "type": "say", "target": target, "number": self.sent }).to_string())
            }
        }
    }

    pub(super) fn greet_all(&mut self) -> Vec<String> {
        self.is_greeted = true;
        if self.name.is_some() { vec![r#"{"type":"stream_started"}"#.into()] } else { Vec::new() }
    }

    pub(super) fn hear(&mut self, message: &Value) {
        if let Some(error) = message.get("error") {
            let is_known =
                ["name_taken", "target_not_found", "rate_limit_exceeded"].iter().any(|name| error == name);
            if !is_known {
                fail(format!("{message}"));
            }
            return;
        }
        match text(message, "type") {
            "login_success" => self.hear_list(message),
            "peer_connected" => {
                let peer = text(message, "peer");
                if self.name.as_deref() == Some(peer) || !self.peers.insert(peer.to_owned()) {
                    fail(format!("{:?} knows {:?} and hears {message}", self.name, self.peers));
                }
            }
            "peer_disconnected" => {
                if !self.peers.remove(text(message, "peer")) {
                    fail(format!("{:?} knows {:?} and hears {message}", self.name, self.peers));
                }
            }
            kind => {
                let from = text(message, "from");
                if !self.peers.contains(from) {
                    fail(format!("{:?} knows {:?} and hears {message}", self.name, self.peers));
                }
                self.from_peers += 1;
                if kind == "stream_started" {
                    self.greetings.insert(from.to_owned());
                }
                if let Some(number) = message.get("number").and_then(Value::as_u64) {
                    self.hear_number(from.to_owned(), number);
                }
            }
        }
    }

    fn hear_list(&mut self, message: &Value) {
        let id = text(message, "id").to_owned();
        let Some(list) = message["clients"].as_array() else { fail(format!("{message}")) };
        let names: Vec<String> = list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let mut peers: BTreeSet<String> = names.iter().cloned().collect();
        if peers.len() != names.len() || !peers.remove(&id) || self.name.is_some() {
            fail(format!("{:?} hears {message}", self.name));
        }
        (self.name, self.peers) = (Some(id), peers);
    }

    /// What one peer says comes in order; a name may be another client's later on.
    fn hear_number(&mut self, from: String, number: u64) {
        self.heard.push((from, number));
    }
}

fn named(clients: &[Client]) -> impl Iterator<Item = (&str, &Named)> {
    clients.iter().filter(|client| client.is_there()).filter_map(|client| match &client.voice {
        Voice::Directory(named) => named.name.as_deref().map(|name| (name, named)),
        _ => None,
    })
}

/// All know all, and have heard from all.
pub(super) fn check_at_rest(clients: &[Client]) {
    let names: Vec<&str> = named(clients).map(|(name, _)| name).collect();
    let all: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    if all.len() != names.len() {
        fail(format!("names that several have: {names:?}"));
    }
    for (name, me) in named(clients) {
        let mut others = all.clone();
        others.remove(name);
        if others != me.peers {
            fail(format!("{name} knows {:?}, and there are {others:?}", me.peers));
        }
        if me.is_greeted && !me.greetings.is_superset(&others) {
            fail(format!("{name} has heard {:?} of {others:?}", me.greetings));
        }
    }
    for client in clients.iter().filter(|client| client.is_there() && client.is_open) {
        if let Voice::Directory(Named { has_asked: true, name: None, .. }) = &client.voice {
            fail("a login that is never answered");
        }
    }
}
