//! The judge of the introductions (protocols.md section 5).

mod pair;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use self::pair::{History, Pair, Wrong};
use super::MEMBERS;
use super::judge::{Count, DropKind, Turn};
use super::violation::{Violation, shown};
use crate::dialects::introductions::Introduction;
use crate::net::spread::Placing;
use crate::prng::Prng;

/// Documents of a group; the last is everybody's, so that most messages lead to introductions.
const DOCUMENTS: u8 = 6;
const SHARED: u8 = DOCUMENTS - 1;
/// The least time between two messages of a client of which nobody tells what was read.
const ALONE: Duration = Duration::from_millis(100);
/// What it may take a server to notice that a client is gone.
const NOTICE: Duration = Duration::from_secs(2);
const DROPS: [DropKind; 4] =
    [DropKind::Reset, DropKind::TcpClose, DropKind::WebSocketClose, DropKind::Takeover];

/// The judge.
pub(super) struct Judge {
    /// Whether peers are on different hosts. What two of them send at the same moment may then reach them in different
    /// orders: a group sends one message after the other.
    is_across: bool,
    in_flight: u32,
    chance: Prng,
    /// Whether clients also say what is to be ignored.
    is_odd: bool,
    clock: u64,
    /// By the number of the connection that each began with.
    clients: BTreeMap<u32, Client>,
    /// The client of each connection: one that takes over is the same client.
    owners: HashMap<u32, u32>,
    ids: HashMap<String, u32>,
    /// By the numbers of the two, the lower one first.
    pairs: BTreeMap<(u32, u32), Pair>,
    introductions: u64,
    messages: u64,
}

/// A client.
#[derive(Debug)]
struct Client {
    group: usize,
    id: String,
    history: History,
    /// The connection that speaks for it.
    voice: u32,
    /// When that took over, if it did.
    taken_over_at: Option<u64>,
    gone: Option<DropKind>,
    ended_at: Option<Instant>,
    /// Its host died.
    has_died: bool,
    /// The peers that it shares a group with while it is there.
    peers: Vec<u32>,
    next_at: Option<Instant>,
}

impl Judge {
    pub(super) fn new(placing: Placing, in_flight: usize) -> Self {
        Self {
            is_across: placing.is_across(),
            in_flight: in_flight.div_ceil(2) as u32,
            chance: Prng::from_entropy(),
            is_odd: true,
            clock: 0,
            clients: BTreeMap::new(),
            owners: HashMap::new(),
            ids: HashMap::new(),
            pairs: BTreeMap::new(),
            introductions: 0,
            messages: 0,
        }
    }

    fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn client(&mut self, number: u32) -> &mut Client {
        self.clients.get_mut(&number).expect("every connection was opened")
    }

    /// A new client, which is a peer to all that are in its group.
    fn enter(&mut self, index: usize, number: u32) {
        let group = index / MEMBERS;
        // Slashes and characters beyond ASCII stand escaped in the path.
        let id =
            if number.is_multiple_of(5) { format!("é/{number:08x}") } else { format!("i-{number:08x}") };
        let mut client = Client {
            group,
            id: id.clone(),
            history: History::default(),
            voice: number,
            taken_over_at: None,
            gone: None,
            ended_at: None,
            has_died: false,
            peers: Vec::new(),
            next_at: None,
        };
        let here: Vec<u32> = self
            .clients
            .iter()
            .filter(|(_, peer)| peer.group == group && peer.ended_at.is_none())
            .map(|(other, _)| *other)
            .collect();
        for other in here {
            let read_min = self.read_min(other).unwrap_or(0);
            let peer = self.client(other);
            peer.peers.push(number);
            let pair = Pair::new(1, read_min, peer.history.sent());
            self.pairs.insert((other, number), pair);
            client.peers.push(other);
        }
        self.clients.insert(number, client);
        self.ids.insert(id, number);
        self.owners.insert(number, number);
    }

    /// The messages of a client that the server has certainly read; none where nobody could tell.
    fn read_min(&self, number: u32) -> Option<u32> {
        let pair = |peer: &u32| {
            let (one, other) = (number.min(*peer), number.max(*peer));
            self.pairs.get(&(one, other)).map(|pair| pair.read_min(usize::from(number > *peer)))
        };
        self.clients[&number].peers.iter().filter_map(pair).max()
    }

    fn hear_introduction(&mut self, message: &[u8], turn: &Turn<'_>) -> Result<(), Violation> {
        let unknown = || Violation::Unknown { came: shown(message) };
        let introduction: Introduction<'_> = serde_json::from_slice(message).map_err(|_| unknown())?;
        if introduction.kind != "Introduction" || !message.starts_with(br#"{"type":"Introduction","id":""#) {
            return Err(unknown());
        }
        let own = self.owners[&turn.number];
        let Introduction { id, keys, .. } = introduction;
        let wrong = |why: &str| {
            let how = format!("{own:08x} was introduced to {id} over {keys:?}: {why}");
            Violation::WrongIntroduction { how }
        };
        let Some(other) = self.ids.get(id.as_ref()).copied() else {
            return Err(wrong("nobody is called that"));
        };
        let (group, peer_group) = (self.clients[&own].group, self.clients[&other].group);
        if other == own || group != peer_group {
            return Err(wrong("they have nothing in common"));
        }
        let since = self.clients[&other].ended_at.map(|at| turn.now.saturating_duration_since(at));
        let notice = turn.told_within.filter(|_| self.clients[&other].has_died).unwrap_or(NOTICE);
        if let Some(since) = since.filter(|since| *since > notice) {
            return Err(Violation::Gone { partner: id.into_owned(), ms: since.as_millis() as u64 });
        }
        let Some(documents) = keys.iter().map(|key| number_of(key, group)).collect::<Option<Vec<u8>>>()
        else {
            return Err(wrong("a document that is not theirs"));
        };
        self.introductions += 1;
        let (first, second) = (own.min(other), own.max(other));
        let Some(pair) = self.pairs.get_mut(&(first, second)) else {
            // The server need not have noticed yet that the other is gone, unless it said goodbye.
            let is_unnoticed = self.clients[&other].gone.is_some_and(|kind| kind != DropKind::WebSocketClose);
            return if is_unnoticed { Ok(()) } else { Err(wrong("they were never there together")) };
        };
        let histories = [&self.clients[&first].history, &self.clients[&second].history];
        let heard = pair.hear(usize::from(own == second), &documents, histories);
        let sent_at = heard.map_err(|why| match why {
            Wrong::NoReason => wrong("no message leads to it"),
            Wrong::NotTheSame { due } => wrong(&format!("the other heard of documents {due:?}")),
        })?;
        let client = &self.clients[&own];
        if client.voice != turn.number && client.taken_over_at.is_some_and(|taken_over| taken_over < sent_at)
        {
            return Err(wrong("it came to the connection that was taken over"));
        }
        Ok(())
    }

    /// Whether all have heard what was sent in a client's group, as far as they are there.
    fn is_quiet(&self, number: u32) -> bool {
        let peers = self.clients[&number].peers.iter().copied().chain([number]);
        let there: Vec<_> = peers.filter(|peer| self.clients[peer].gone.is_none()).collect();
        let is_quiet = |one: u32, other: u32| {
            let histories = [&self.clients[&one].history, &self.clients[&other].history];
            let pair = self.pairs.get(&(one, other));
            pair.is_none_or(|pair| pair.ahead().is_none() && pair.is_complete(histories))
        };
        let of_one =
            |one: &u32| there.iter().filter(|other| *one < **other).all(|other| is_quiet(*one, *other));
        there.iter().all(of_one)
    }

    /// Joins and leaves something.
    fn send_something(&mut self, turn: &mut Turn<'_>) {
        let odd = if self.is_odd { self.chance.below(32) } else { 32 };
        let ignored = match odd {
            0 => Some("no JSON"),
            1 => Some(r#"{"type":"Join","join":["x",3]}"#),
            2 => Some(r#"{"type":"Join","join":"x"}"#),
            3 => Some(r#"{"type":"Join","join":[]}"#),
            4 => Some(r#"["Join"]"#),
            _ => None,
        };
        if let Some(ignored) = ignored {
            turn.say(ignored);
            return;
        }
        let at = self.now();
        let document = self.chance.below(u32::from(SHARED)) as u8;
        let other = (document + 1 + self.chance.below(u32::from(SHARED) - 1) as u8) % SHARED;
        let choice = self.chance.below(6);
        let own = self.owners[&turn.number];
        let client = self.client(own);
        let has_shared = client.history.documents().contains(&SHARED);
        let (join, leave) = match choice {
            _ if !has_shared => (vec![document, SHARED], vec![]),
            0 => (vec![], vec![document]),
            1 => (vec![], vec![document, other]),
            2 => (vec![document], vec![other]),
            3 => (vec![SHARED], vec![document, other]),
            4 => (vec![document, other], vec![]),
            _ => (vec![SHARED, document], vec![]),
        };
        client.history.send(&join, &leave, at);
        let group = client.group;
        self.messages += 1;
        turn.say(message(group, &join, &leave, at));
    }
}

/// The name of a document of a group; every second one is spelled in a way that differs from what it means.
fn name_of(document: u8, group: usize) -> String {
    format!("document \"{document}\" of é-{group}")
}

fn number_of(name: &str, group: usize) -> Option<u8> {
    (0..DOCUMENTS).find(|document| name_of(*document, group) == name)
}

/// A message that joins and leaves. Its type does not count, nor does an id in it.
fn message(group: usize, join: &[u8], leave: &[u8], at: u64) -> String {
    let list = |documents: &[u8]| {
        let spelled = |document: &u8| {
            let json = serde_json::Value::String(name_of(*document, group)).to_string();
            if at.is_multiple_of(3) { json.replace('é', r"\u00e9").replace("do", r"d\u006f") } else { json }
        };
        documents.iter().map(spelled).collect::<Vec<_>>().join(",")
    };
    let (join_list, leave_list) = (list(join), list(leave));
    match (join.is_empty(), leave.is_empty()) {
        (false, true) => format!(r#"{{"type":"Join","id":"somebody else","join":[{join_list}]}}"#),
        (true, _) if at.is_multiple_of(2) => {
            format!(r#"{{"type":"Leave","join":[],"leave":[{leave_list}]}}"#)
        }
        (true, _) => format!(r#"{{"type":"Leave","leave":[{leave_list}]}}"#),
        (false, false) => format!(r#"{{"type":"Leave","leave":[{leave_list}],"join":[{join_list}]}}"#),
    }
}

/// The path of a client whose id may hold anything.
fn path(id: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    crate::dialects::introductions::path(&id.bytes().map(escaped).collect::<String>())
}

impl super::Judge for Judge {
    fn drops(&self) -> &'static [DropKind] {
        &DROPS
    }

    fn opening(&mut self, index: usize, number: u32, takes_over: Option<u32>) -> String {
        let own = match takes_over.map(|voice| self.owners[&voice]) {
            Some(own) => own,
            None => {
                self.enter(index, number);
                number
            }
        };
        self.owners.insert(number, own);
        path(&self.clients[&own].id)
    }

    fn opened(&mut self, turn: &mut Turn<'_>) {
        turn.arrived = true;
        let own = self.owners[&turn.number];
        if self.clients[&own].voice != turn.number {
            let at = self.now();
            let client = self.client(own);
            client.voice = turn.number;
            client.taken_over_at = Some(at);
        }
    }

    fn hear(&mut self, message: &[u8], turn: &mut Turn<'_>) -> Result<(), Violation> {
        self.hear_introduction(message, turn)
    }

    fn ticks(&self) -> bool {
        true
    }

    /// Sends what may be under way, as far as introductions tell what has been read.
    fn tick(&mut self, turn: &mut Turn<'_>) {
        let own = self.owners[&turn.number];
        if self.is_across && !self.is_quiet(own) {
            return;
        }
        let read_min = self.read_min(own);
        let in_flight = self.in_flight;
        let client = self.client(own);
        let may_speak = client.voice == turn.number && client.gone.is_none() && !turn.winding_up;
        let under_way = read_min.map(|read| client.history.sent() - read);
        let is_full = under_way.is_none_or(|under_way| under_way >= in_flight);
        if !may_speak || (is_full && client.next_at.is_some_and(|next_at| turn.now < next_at)) {
            return;
        }
        client.next_at = Some(turn.now + ALONE);
        self.send_something(turn);
    }

    fn drop_out(&mut self, kind: DropKind, turn: &mut Turn<'_>) -> bool {
        let own = self.owners[&turn.number];
        let is_read = self.read_min(own) == Some(self.clients[&own].history.sent());
        let client = self.client(own);
        if client.gone.is_some() || client.voice != turn.number {
            return false;
        }
        if kind == DropKind::Takeover {
            // What the old connection has yet to be read of would be neither one's nor the other's.
            return is_read && !turn.winding_up;
        }
        client.gone = Some(kind);
        true
    }

    fn ended(&mut self, number: u32, now: Instant) {
        let own = self.owners[&number];
        if self.clients[&own].voice != number {
            return;
        }
        let client = self.client(own);
        client.ended_at = Some(now);
        client.gone.get_or_insert(DropKind::Reset);
        for peer in std::mem::take(&mut client.peers) {
            self.client(peer).peers.retain(|known| *known != own);
        }
    }

    fn died(&mut self, number: u32, now: Instant) {
        let own = self.owners[&number];
        let client = self.client(own);
        if client.voice == number {
            client.has_died = true;
            client.gone = Some(DropKind::HostDied);
        }
        self.ended(number, now);
    }

    fn finish(&mut self, _pages: &[Option<&str>]) -> Result<(), Violation> {
        for ((one, other), pair) in &self.pairs {
            let (first, second) = (&self.clients[one], &self.clients[other]);
            let wrong = |how: String| {
                Err(Violation::WrongIntroduction { how: format!("{one:08x} and {other:08x}: {how}") })
            };
            let live = [first.gone.is_none(), second.gone.is_none()];
            if let Some((leader, keys)) = pair.ahead().filter(|(leader, _)| live[1 - leader]) {
                return wrong(format!("only number {leader} of the two heard of documents {keys:?}"));
            }
            if live == [true, true] && !pair.is_complete([&first.history, &second.history]) {
                return wrong(format!("not all introductions came, only {}", pair.heard));
            }
        }
        Ok(())
    }

    fn counts(&self) -> Vec<Count> {
        vec![
            ("messages", "introductions", self.introductions),
            ("joins_and_leaves", "messages of clients", self.messages),
            ("clients", "clients", self.clients.len() as u64),
        ]
    }
}
