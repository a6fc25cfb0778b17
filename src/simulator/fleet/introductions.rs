//! Introductions: peers with documents in common hear of each other, wherever they are.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::client::{Client, Voice, text};
use crate::simulator::chance::Chance;
use crate::simulator::checks::fail;

/// One client.
#[derive(Debug)]
pub(super) struct Peer {
    id: usize,
    /// What it has said to have, in its order; more may be inherited.
    documents: Vec<usize>,
    /// All that it ever had.
    joined: BTreeSet<usize>,
    /// Peers and documents that it was ever told of.
    told: BTreeSet<(usize, usize)>,
    /// What it was told since all said anew what they have.
    heard: Vec<(usize, Vec<usize>)>,
    is_greeted: bool,
    pub(super) introductions: u64,
}

const IDS: usize = 9;
const DOCUMENTS: usize = 4;
/// A host that is gone, or that stood still, is known to all as what it is after so many milliseconds.
const KNOWN_MS: u64 = 40_000;

impl Peer {
    pub(super) fn new(chance: &mut Chance) -> (Self, String) {
        let id = chance.below(IDS);
        let peer = Self {
            id,
            documents: Vec::new(),
            joined: BTreeSet::new(),
            told: BTreeSet::new(),
            heard: Vec::new(),
            is_greeted: false,
            introductions: 0,
        };
        (peer, format!("/introduction/p{id}"))
    }

    pub(super) fn act(&mut self, chance: &mut Chance) -> Option<String> {
        let mut some = |most: usize| -> Vec<usize> {
            (0..chance.between(1..=most)).map(|_| chance.below(DOCUMENTS)).collect()
        };
        let (join, leave) = (some(3), some(2));
        match chance.below(4) {
            0 => Some(self.say(&[], &leave)),
            1 => Some(self.say(&join, &leave)),
            2 => Some(self.say(&join, &[])),
            _ => None,
        }
    }

    /// Says what it has; whatever it may have inherited it gives up.
    fn set_out(&mut self) -> Vec<String> {
        let has = self.documents.clone();
        let all: Vec<usize> = (0..DOCUMENTS).collect();
        vec![self.say(&[], &all), self.say(&has, &[])]
    }

    pub(super) fn greet_all(&mut self) -> Vec<String> {
        self.is_greeted = true;
        self.heard.clear();
        let has = self.documents.clone();
        if has.is_empty() { Vec::new() } else { vec![self.say(&has, &[])] }
    }

    fn say(&mut self, join: &[usize], leave: &[usize]) -> String {
        for document in join {
            self.joined.insert(*document);
            if !self.documents.contains(document) {
                self.documents.push(*document);
            }
        }
        self.documents.retain(|document| !leave.contains(document));
        let names = |documents: &[usize]| -> Vec<String> {
            documents.iter().map(|document| format!("d{document}")).collect()
        };
        json!({ "type": "Join", "join": names(join), "leave": names(leave) }).to_string()
    }

    pub(super) fn hear(&mut self, message: &Value) {
        let keys = message["keys"].as_array().map_or(&[][..], Vec::as_slice);
        let numbers: Option<Vec<usize>> = keys.iter().map(|key| numbered(key.as_str()?, 'd')).collect();
        let (Some(id), Some(documents)) = (numbered(text(message, "id"), 'p'), numbers) else {
            fail(format!("{message}"))
        };
        let distinct: BTreeSet<usize> = documents.iter().copied().collect();
        let is_right = text(message, "type") == "Introduction"
            && id != self.id
            && !documents.is_empty()
            && distinct.len() == documents.len();
        if !is_right {
            fail(format!("p{} hears {message}", self.id));
        }
        self.introductions += 1;
        self.told.extend(documents.iter().map(|document| (id, *document)));
        self.heard.push((id, documents));
    }

    /// What it has in common with another, in its order.
    fn common(&self, other: &Self) -> Vec<usize> {
        self.documents.iter().copied().filter(|document| other.documents.contains(document)).collect()
    }
}

fn numbered(text: &str, letter: char) -> Option<usize> {
    text.strip_prefix(letter)?.parse().ok()
}

fn peers(clients: &[Client]) -> impl Iterator<Item = (&Client, &Peer)> {
    clients.iter().filter_map(|client| match &client.voice {
        Voice::Introductions(peer) => Some((client, peer)),
        _ => None,
    })
}

fn are_there(clients: &[Client]) -> impl Iterator<Item = (&Client, &Peer)> {
    peers(clients).filter(|(client, _)| client.is_there() && client.is_open)
}

/// Whether nobody else came with its id while it was there, and nobody else was still known then.
fn speaks_alone(clients: &[Client], (me, my): (&Client, &Peer)) -> bool {
    peers(clients).filter(|(_, other)| other.id == my.id).all(|(client, other)| {
        let is_long_gone = client.over_ms.is_some_and(|over_ms| over_ms + KNOWN_MS < me.came_ms);
        std::ptr::eq(other, my) || is_long_gone
    })
}

/// Whoever may have inherited something says anew what it has. Gives the clients and what they say.
pub(super) fn set_out(clients: &mut [Client]) -> Vec<(usize, Vec<String>)> {
    let unsure: Vec<usize> = (0..clients.len())
        .filter(|at| clients[*at].is_there() && clients[*at].is_open)
        .filter(|at| match &clients[*at].voice {
            Voice::Introductions(peer) => !speaks_alone(clients, (&clients[*at], peer)),
            _ => false,
        })
        .collect();
    let mut said = Vec::new();
    for at in unsure {
        if let Voice::Introductions(peer) = &mut clients[at].voice {
            said.push((at, peer.set_out()));
        }
    }
    said
}

/// Before anybody says anything anew: whoever has something in common was told of it when the later one joined.
pub(super) fn check_told(clients: &[Client]) {
    // Of others it is not known which client was meant.
    let is_only = |peer: &Peer| peers(clients).filter(|(_, other)| other.id == peer.id).count() == 1;
    for (_, me) in are_there(clients).filter(|(_, peer)| is_only(peer)) {
        for (_, other) in are_there(clients).filter(|(_, peer)| is_only(peer) && peer.id != me.id) {
            let common = me.common(other);
            if let Some(document) = common.iter().find(|document| !me.told.contains(&(other.id, **document)))
            {
                fail(format!("p{} was never told of p{} and d{document}", me.id, other.id));
            }
        }
    }
}

/// Each two with something in common have told each other once.
pub(super) fn check_at_rest(clients: &[Client]) {
    for (_, me) in peers(clients) {
        for (id, document) in &me.told {
            let has_joined =
                |id| peers(clients).any(|(_, peer)| peer.id == id && peer.joined.contains(document));
            if !has_joined(me.id) || !has_joined(*id) {
                fail(format!("p{} has heard of p{id} and d{document}, which one never joined", me.id));
            }
        }
    }
    for (client, me) in are_there(clients) {
        for (other_client, other) in are_there(clients).filter(|(_, other)| other.id != me.id) {
            let is_certain =
                speaks_alone(clients, (client, me)) && speaks_alone(clients, (other_client, other));
            if is_certain {
                check_two(me, other);
            }
        }
        check_heard(clients, me);
    }
}

/// Both speak for their ids: each has heard what both said, and nothing else.
fn check_two(me: &Peer, other: &Peer) {
    if me.common(other).is_empty() || !me.is_greeted || !other.is_greeted {
        return;
    }
    let mut heard: Vec<&Vec<usize>> =
        me.heard.iter().filter(|(id, _)| *id == other.id).map(|(_, documents)| documents).collect();
    let (mine, theirs) = (me.common(other), other.common(me));
    let mut expected = vec![&mine, &theirs];
    heard.sort();
    expected.sort();
    if heard != expected {
        fail(format!("p{} and p{}: {expected:?} is to be heard, and was {heard:?}", me.id, other.id));
    }
}

/// Whatever was heard was said by one who is there; of those with one id only one hears anything.
fn check_heard(clients: &[Client], me: &Peer) {
    for (id, documents) in &me.heard {
        let has_said = |(_, other): (&Client, &Peer)| {
            other.id == *id && (me.common(other) == *documents || other.common(me) == *documents)
        };
        if me.is_greeted && !are_there(clients).any(has_said) {
            fail(format!("p{} has heard {documents:?} of p{id}, and nobody said it", me.id));
        }
    }
    let hear =
        |(_, other): &(&Client, &Peer)| other.id == me.id && other.is_greeted && !other.heard.is_empty();
    if are_there(clients).filter(hear).count() > 1 {
        fail(format!("several hear as p{}", me.id));
    }
}
