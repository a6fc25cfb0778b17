//! Random chat: whom a client may be matched with, and what it may hear from whom.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::client::{Client, Voice, number, text};
use crate::simulator::chance::Chance;
use crate::simulator::checks::fail;

/// A host that died is noticed after so many milliseconds at most, while Redis is well.
const GHOST_MS: u64 = 8_000;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Idle,
    Waiting,
    Paired {
        partner: String,
        room: String,
        sent: u64,
        heard: u64,
    },
    /// It has said `leave` and the server has not read that yet: whatever comes before its answer may come.
    Leaving,
}

/// One client.
#[derive(Debug)]
pub(super) struct Chat {
    id: String,
    standing: Standing,
    is_requeued: bool,
    /// Matches and messages heard.
    pub(super) matches: u64,
    pub(super) relayed: u64,
    /// Whom it was matched with since the last look.
    new_partner: Option<String>,
}

impl Chat {
    pub(super) fn new(is_requeued: bool) -> Self {
        Self {
            id: String::new(),
            standing: Standing::Idle,
            is_requeued,
            matches: 0,
            relayed: 0,
            new_partner: None,
        }
    }

    pub(super) fn act(&mut self, chance: &mut Chance) -> Option<String> {
        match &mut self.standing {
            Standing::Idle if chance.one_in(3) => {
                self.standing = Standing::Waiting;
                Some(r#"{"type":"available"}"#.into())
            }
            Standing::Paired { room, sent, .. } if !chance.one_in(12) => Some(relay(room, sent)),
            Standing::Waiting | Standing::Paired { .. } if chance.one_in(6) => {
                self.standing = Standing::Leaving;
                Some(r#"{"type":"leave"}"#.into())
            }
            _ => None,
        }
    }

    /// Asks the server where it has come to: the answer says that it has read what was said before.
    pub(super) fn wants_pong(&self) -> bool {
        self.standing == Standing::Leaving
    }

    pub(super) fn greet_all(&mut self) -> Vec<String> {
        match &mut self.standing {
            Standing::Paired { room, sent, .. } => vec![relay(room, sent)],
            Standing::Idle | Standing::Waiting | Standing::Leaving => Vec::new(),
        }
    }

    pub(super) fn hear(&mut self, message: &Value) {
        match text(message, "type") {
            "ready" => self.id = text(message, "clientId").to_owned(),
            "pong" if self.standing == Standing::Leaving => self.standing = Standing::Idle,
            _ if self.standing == Standing::Leaving => {}
            "matched" => self.hear_matched(message),
            "offer" => self.hear_offer(message),
            "partner-left" => match self.standing {
                Standing::Paired { .. } if self.is_requeued => self.standing = Standing::Waiting,
                Standing::Paired { .. } => self.standing = Standing::Idle,
                _ => fail(format!("{} is left, and is {:?}", self.id, self.standing)),
            },
            // The partner has left, and the word of it was under way.
            "error" if text(message, "code") == "NOT_PAIRED" => {}
            _ => fail(format!("{} hears {message}", self.id)),
        }
    }

    fn hear_matched(&mut self, message: &Value) {
        let (room, partner) = (text(message, "roomId"), text(message, "partnerId"));
        if self.standing != Standing::Waiting || partner == self.id {
            fail(format!("{} is {:?}, and is matched: {message}", self.id, self.standing));
        }
        self.matches += 1;
        self.new_partner = Some(partner.to_owned());
        let (partner, room) = (partner.to_owned(), room.to_owned());
        self.standing = Standing::Paired { partner, room, sent: 0, heard: 0 };
    }

    fn hear_offer(&mut self, message: &Value) {
        let Standing::Paired { partner, room, heard, .. } = &mut self.standing else {
            fail(format!("{} is {:?}, and hears {message}", self.id, self.standing));
        };
        let sdp = &message["sdp"];
        // What a client says counts for the room that it is in when the server reads it.
        let is_late = text(sdp, "room") != room;
        if is_late && text(message, "from") == partner {
            return;
        }
        if text(message, "from") != partner || number(sdp, "number") != *heard {
            fail(format!(
                "{} is paired with {partner} in {room}, heard {heard}, and hears {message}",
                self.id
            ));
        }
        *heard += 1;
        self.relayed += 1;
    }
}

fn relay(room: &str, sent: &mut u64) -> String {
    let number = *sent;
    *sent += 1;
    json!({ "type": "offer", "sdp": { "room": room, "number": number } }).to_string()
}

fn chats(clients: &[Client]) -> impl Iterator<Item = (&Client, &Chat)> {
    clients.iter().filter_map(|client| match &client.voice {
        Voice::Pairing(chat) => Some((client, chat)),
        _ => None,
    })
}

/// Nobody is matched with one who has been gone for long.
pub(super) fn check_matches(clients: &mut [Client], is_well: bool, now_ms: u64) {
    let mut gone: BTreeMap<String, u64> = BTreeMap::new();
    for (client, chat) in chats(clients) {
        if let Some(over_ms) = client.over_ms {
            gone.insert(chat.id.clone(), over_ms);
        }
    }
    for client in clients {
        let Voice::Pairing(chat) = &mut client.voice else { continue };
        let Some(partner) = chat.new_partner.take() else { continue };
        let is_ghost = gone.get(&partner).is_some_and(|over_ms| now_ms > over_ms + GHOST_MS);
        if is_ghost && is_well {
            fail(format!(
                "{} is matched with {partner}, who has been gone since {}",
                chat.id, gone[&partner]
            ));
        }
    }
}

/// Partners know of each other, and have heard all; at most one waits.
pub(super) fn check_at_rest(clients: &[Client]) {
    let there: BTreeMap<&str, &Chat> = chats(clients)
        .filter(|(client, _)| client.is_there())
        .map(|(_, chat)| (chat.id.as_str(), chat))
        .collect();
    let waiting: Vec<&&str> =
        there.iter().filter(|(_, chat)| chat.standing == Standing::Waiting).map(|(id, _)| id).collect();
    if waiting.len() > 1 {
        fail(format!("these all wait: {waiting:?}"));
    }
    for (id, chat) in &there {
        let Standing::Paired { partner, room, heard, .. } = &chat.standing else { continue };
        match there.get(partner.as_str()).map(|other| &other.standing) {
            Some(Standing::Paired { partner: back, room: there, sent, .. })
                if back == id && there == room =>
            {
                if sent != heard {
                    fail(format!("{id} has heard {heard} of {sent} from {partner}"));
                }
            }
            other => fail(format!("{id} is paired with {partner} in {room}, which is {other:?}")),
        }
    }
}
