//! Pipes: ends that name each other are joined, and each hears what the other has sent.

use serde_json::{Value, json};

use super::client::{Client, Voice, number, text};
use crate::simulator::chance::Chance;
use crate::simulator::checks::fail;

/// What an end's URL says, and its number among all of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Names {
    own: usize,
    other: usize,
    document: usize,
}

/// How the server has closed an end of its own accord.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    /// Without a code: the partner is gone, or another has come in this one's place.
    Parted,
    /// 1013: something on its way is lost.
    Lost,
}

/// One client.
#[derive(Debug)]
pub(super) struct End {
    names: Names,
    /// Nobody else's.
    tag: u64,
    sent: u64,
    /// Whom it has heard, and how often.
    partner: Option<u64>,
    pub(super) heard: u64,
    /// It has said that it leaves; what it says is over.
    leaves: bool,
    closing: Option<Closing>,
    /// The server has answered its close: it has read all before.
    is_answered: bool,
    /// All is well, and nothing may be lost any more.
    is_greeted: bool,
}

const NAMES: usize = 3;
const DOCUMENTS: usize = 2;

impl Names {
    fn mirrored(&self) -> Self {
        Self { own: self.other, other: self.own, document: self.document }
    }
}

impl End {
    pub(super) fn new(chance: &mut Chance) -> (Self, String) {
        let names =
            Names { own: chance.below(NAMES), other: chance.below(NAMES), document: chance.below(DOCUMENTS) };
        let path = format!("/connection/n{}/n{}/d{}", names.own, names.other, names.document);
        let end = Self {
            names,
            tag: u64::from(u32::from_ne_bytes(chance.bytes())),
            sent: 0,
            partner: None,
            heard: 0,
            leaves: false,
            closing: None,
            is_answered: false,
            is_greeted: false,
        };
        (end, path)
    }

    pub(super) fn act(&mut self, chance: &mut Chance) -> Option<String> {
        // Now and then more than there is credit for, in frames that are longer than a letter.
        let padding = if chance.one_in(20) { chance.below(60_000) } else { 0 };
        self.message(padding)
    }

    pub(super) fn greet_all(&mut self) -> Vec<String> {
        self.is_greeted = true;
        self.message(0).into_iter().collect()
    }

    /// It closes in order: all that it has said is still to arrive.
    pub(super) fn leave(&mut self) {
        self.leaves = true;
    }

    fn message(&mut self, padding: usize) -> Option<String> {
        if self.leaves {
            return None;
        }
        self.sent += 1;
        let Names { own, other, document } = self.names;
        let message = json!({
            "from": self.tag, "number": self.sent, "own": own, "other": other, "document": document,
            "padding": "x".repeat(padding),
        });
        Some(message.to_string())
    }

    pub(super) fn hear(&mut self, message: &Value) {
        let from = number(message, "from");
        let names = Names {
            own: number(message, "own") as usize,
            other: number(message, "other") as usize,
            document: number(message, "document") as usize,
        };
        text(message, "padding");
        let is_next = number(message, "number") == self.heard + 1;
        if names.mirrored() != self.names || *self.partner.get_or_insert(from) != from || !is_next {
            fail(format!(
                "{:?} of {:?} has heard {} and hears {message}",
                self.names, self.partner, self.heard
            ));
        }
        self.heard += 1;
    }

    pub(super) fn hear_close(&mut self, code: Option<u16>, reason: &str) {
        self.is_answered = self.leaves && code == Some(1000);
        self.closing = match (code, reason) {
            (None, "") => Some(Closing::Parted),
            (Some(1013), "the way to the other host is lost") => {
                if self.is_greeted {
                    fail(format!("something is lost, and all is well: {self:?}"));
                }
                Some(Closing::Lost)
            }
            (Some(1000 | 1001), _) => None,
            (code, reason) => fail(format!("closed {code:?} {reason}")),
        };
    }
}

fn ends(clients: &[Client]) -> impl Iterator<Item = (&Client, &End)> {
    clients.iter().filter_map(|client| match &client.voice {
        Voice::Pipes(end) => Some((client, end)),
        _ => None,
    })
}

/// Ends that are joined have heard all, and who could be joined is.
pub(super) fn check_at_rest(clients: &[Client]) {
    for (client, end) in ends(clients) {
        check_partner(clients, client, end);
    }
    let held: Vec<&End> = ends(clients)
        .filter(|(client, end)| client.is_there() && client.is_open && end.partner.is_none())
        .map(|(_, end)| end)
        .collect();
    for (at, end) in held.iter().enumerate() {
        for other in &held[at + 1..] {
            if other.names == end.names || other.names == end.names.mirrored() {
                fail(format!("two wait for each other, or one for both: {end:?}, {other:?}"));
            }
        }
    }
}

/// Partners hear each other and nobody else; all of it, if one has left in order or both are there.
fn check_partner(clients: &[Client], client: &Client, end: &End) {
    let Some(partner) = end.partner else {
        let has_cause = |(_, other): (&Client, &End)| {
            other.tag != end.tag && (other.names == end.names || other.names == end.names.mirrored())
        };
        if end.closing.is_some() && !ends(clients).any(has_cause) {
            fail(format!("closed for no reason: {end:?}"));
        }
        return;
    };
    let Some((other_client, other)) = ends(clients).find(|(_, other)| other.tag == partner) else {
        fail(format!("nobody has sent what was heard: {end:?}"));
    };
    if other.partner.is_some_and(|back| back != end.tag) || other.tag == end.tag {
        fail(format!("{end:?} hears {other:?}"));
    }
    let is_whole = match (client.is_there(), other_client.is_there()) {
        (true, true) => true,
        (true, false) | (false, true) => fail(format!("one is there, and one is gone: {end:?}, {other:?}")),
        // What it sent before still arrives.
        (false, false) => other.is_answered && end.closing == Some(Closing::Parted),
    };
    if end.heard > other.sent || is_whole && end.heard < other.sent {
        fail(format!("{end:?} has not heard all of {other:?}"));
    }
}
