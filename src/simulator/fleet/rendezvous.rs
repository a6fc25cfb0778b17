//! Two roles that share a connection id: who is there, and which messages were confirmed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};

use super::client::{Client, Voice, text};
use crate::simulator::chance::Chance;
use crate::simulator::checks::fail;

/// One client.
#[derive(Debug)]
pub(super) struct Role {
    connection: usize,
    is_wallet: bool,
    /// As the server names it: known once another has heard of it.
    known: BTreeSet<String>,
    /// Sent and not answered: the number and the target.
    unanswered: VecDeque<(u64, String)>,
    /// What each target was confirmed to have.
    confirmed: Vec<(u64, String)>,
    sent: u64,
    /// The last number heard of each sender, and all.
    last: BTreeMap<String, u64>,
    heard: BTreeSet<(String, u64)>,
    pub(super) missing: u64,
    greeted: BTreeSet<String>,
}

const CONNECTIONS: usize = 2;

impl Role {
    pub(super) fn new(chance: &mut Chance) -> (Self, String) {
        let (connection, is_wallet) = (chance.below(CONNECTIONS), chance.one_in(2));
        let roles =
            if is_wallet { "source=wallet&target=extension" } else { "source=extension&target=wallet" };
        let role = Self {
            connection,
            is_wallet,
            known: BTreeSet::new(),
            unanswered: VecDeque::new(),
            confirmed: Vec::new(),
            sent: 0,
            last: BTreeMap::new(),
            heard: BTreeSet::new(),
            missing: 0,
            greeted: BTreeSet::new(),
        };
        (role, format!("/{connection:064x}?{roles}"))
    }

    pub(super) fn act(&mut self, chance: &mut Chance) -> Option<String> {
        if chance.one_in(10) {
            return Some(self.message("11111111-1111-4111-8111-111111111111"));
        }
        if self.known.is_empty() {
            return None;
        }
        let at = chance.below(self.known.len());
        let target = self.known.iter().nth(at).cloned()?;
        Some(self.message(&target))
    }

    pub(super) fn greet_all(&mut self) -> Vec<String> {
        self.greeted = self.known.clone();
        let known: Vec<String> = self.known.iter().cloned().collect();
        known.iter().map(|target| self.message(target)).collect()
    }

    fn message(&mut self, target: &str) -> String {
        self.sent += 1;
        self.unanswered.push_back((self.sent, target.to_owned()));
        json!({
            "requestId": self.sent.to_string(),
            "method": "offer",
            "encryptedPayload": "x",
            "targetClientId": target,
        })
        .to_string()
    }

    pub(super) fn hear(&mut self, message: &Value) {
        match text(message, "info") {
            "remoteClientIsAlreadyConnected" | "remoteClientJustConnected" => {
                if !self.known.insert(text(message, "remoteClientId").to_owned()) {
                    fail(format!("told twice: {message}"));
                }
            }
            "remoteClientDisconnected" => {
                if !self.known.remove(text(message, "remoteClientId")) {
                    fail(format!("never told of, and gone: {message}"));
                }
            }
            "remoteData" => self.hear_data(message),
            "confirmation" => {
                let answered = self.answer(message);
                self.confirmed.push(answered);
            }
            "missingRemoteClientError" => {
                self.answer(message);
                self.missing += 1;
            }
            _ => fail(format!("unexpected: {message}")),
        }
    }

    fn hear_data(&mut self, message: &Value) {
        let sender = text(message, "remoteClientId");
        let Ok(number) = text(message, "requestId").parse::<u64>() else { fail(format!("{message}")) };
        let last = self.last.insert(sender.to_owned(), number);
        if last.is_some_and(|last| last >= number) {
            fail(format!("after {last:?} comes {message}"));
        }
        self.heard.insert((sender.to_owned(), number));
    }

    fn answer(&mut self, message: &Value) -> (u64, String) {
        match self.unanswered.pop_front() {
            Some((number, target)) if text(message, "requestId") == number.to_string() => (number, target),
            other => fail(format!("{other:?} is answered {message}")),
        }
    }

    pub(super) fn confirmations(&self) -> u64 {
        self.confirmed.len() as u64
    }
}

fn roles(clients: &[Client]) -> impl Iterator<Item = &Role> {
    clients.iter().filter(|client| client.is_there() && client.is_open).filter_map(|client| {
        match &client.voice {
            Voice::Rendezvous(role) => Some(role),
            _ => None,
        }
    })
}

/// Each knows as many as there are of the other role, all hear what they are sent, and all was answered.
pub(super) fn check_at_rest(clients: &[Client]) {
    for me in roles(clients) {
        let is_counterpart =
            |other: &&Role| other.connection == me.connection && other.is_wallet != me.is_wallet;
        let counterparts: Vec<&Role> = roles(clients).filter(is_counterpart).collect();
        if me.known.len() != counterparts.len() {
            fail(format!("{} counterparts are there, and known are {:?}", counterparts.len(), me.known));
        }
        if let Some((number, target)) = me.unanswered.front() {
            fail(format!("message {number} to {target} was never answered"));
        }
        for (number, target) in me.confirmed.iter().filter(|(_, target)| me.greeted.contains(target)) {
            // Numbers differ from sender to sender, but not all of them: that one has it must be enough.
            let has_it = |other: &&Role| other.heard.iter().any(|(_, heard)| heard == number);
            if !counterparts.iter().any(has_it) {
                fail(format!("message {number} to {target} was confirmed, and nobody has it"));
            }
        }
        let is_confirmed = |target: &String| me.confirmed.iter().rev().any(|(_, other)| other == target);
        if let Some(target) = me.greeted.iter().find(|target| !is_confirmed(target)) {
            fail(format!("nothing to {target} was ever confirmed"));
        }
    }
}
