//! Hosts, a model of Redis, and the mail between them, which arrives when a test says so.

use super::super::*;
use crate::id::{Entropy, ShardIndex, Slot};
use crate::protocol;
use crate::wire::envelope::Parser;

pub(super) const HOSTS: usize = 3;
pub(super) const CLIENTS: usize = 4;
pub(super) const TIMEOUT_MS: u64 = 300_000;
pub(super) const CREATE: &str = r#"{"type":"create"}"#;

/// What a host sends to another.
#[derive(Debug, Clone)]
pub(super) enum Letter {
    Note(Note),
    Signal(Key, ClientId, String),
}

/// What Redis answers.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Joined { client: ClientId, key: Key, is_new: bool, hosts: Vec<HostId> },
    Refused { client: ClientId, room: Option<RoomIndex> },
    Ended(Key),
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: ClientId,
    pub(super) state: State,
    /// Where it was told to be. In the model no id is used again.
    pub(super) room: Option<RoomIndex>,
    pub(super) is_waiting: bool,
    pub(super) is_gone: bool,
    pub(super) heard: Vec<String>,
    /// What it is to hear, or was.
    pub(super) due: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) id: HostId,
    pub(super) rooms: Rooms,
    pub(super) clients: Vec<Client>,
    /// To Redis, and back.
    pub(super) asked: VecDeque<Ask>,
    pub(super) answers: VecDeque<Answer>,
}

/// Hosts, a model of Redis, and the mail between them.
pub(super) struct World {
    pub(super) hosts: Vec<Host>,
    pub(super) letters: BTreeMap<(usize, usize), VecDeque<Letter>>,
    pub(super) redis: BTreeMap<RoomIndex, (RoomId, BTreeSet<HostId>)>,
    pub(super) entropy: Entropy,
    pub(super) parser: Parser,
    pub(super) said: usize,
}

pub(super) fn host_id(index: usize) -> HostId {
    HostId(index as u32 + 1)
}

pub(super) fn world() -> World {
    let mut entropy = Entropy::from_seed([6; 32]);
    let mut host = |index| {
        let client = |slot| Client {
            id: ClientId::new(host_id(index), ShardIndex(0), Slot(slot), &mut entropy),
            state: State::default(),
            room: None,
            is_waiting: false,
            is_gone: false,
            heard: Vec::new(),
            due: Vec::new(),
        };
        let clients = (0..CLIENTS as u32).map(client).collect();
        let (asked, answers) = (VecDeque::new(), VecDeque::new());
        Host { id: host_id(index), rooms: Rooms::new(TIMEOUT_MS, true), clients, asked, answers }
    };
    let hosts = (0..HOSTS).map(&mut host).collect();
    let mut world = World {
        hosts,
        letters: BTreeMap::new(),
        redis: BTreeMap::new(),
        entropy: Entropy::from_seed([7; 32]),
        parser: Parser::default(),
        said: 0,
    };
    for a in 0..HOSTS {
        for b in (0..HOSTS).filter(|b| *b != a) {
            world.finds(a, b);
        }
    }
    world
}

impl World {
    pub(super) fn finds(&mut self, host: usize, other: usize) {
        let mut out = Actions::new();
        self.hosts[host].rooms.handle_host_found(host_id(other), &mut out);
        self.apply(host, None, out, "");
    }

    /// The relation between two hosts ends.
    pub(super) fn parts(&mut self, a: usize, b: usize) {
        for (host, other) in [(a, b), (b, a)] {
            self.letters.remove(&(host, other));
            self.hosts[host].rooms.handle_host_gone(host_id(other));
            self.seat(host);
        }
    }

    pub(super) fn says(&mut self, host: usize, client: usize, message: &str) {
        let mut out = Actions::new();
        let of = &mut self.hosts[host];
        let Client { id, state, .. } = &mut of.clients[client];
        let envelope = self.parser.parse(message.as_bytes());
        let parsed = envelope.as_ref().map_err(|error| *error);
        of.rooms.handle_message(state, *id, parsed, 0, &mut self.entropy, &mut out);
        self.apply(host, Some(client), out, message);
    }

    /// A client says something new. All who were told to be in its room are to hear it.
    pub(super) fn signals(&mut self, host: usize, client: usize) {
        let Some(room) = self.hosts[host].clients[client].room else { return };
        let me = self.hosts[host].clients[client].id;
        self.said += 1;
        let payload = format!("{:05}", self.said);
        for other in self.hosts.iter_mut().flat_map(|host| &mut host.clients) {
            if other.room == Some(room) && other.id != me {
                other.due.push(payload.clone());
            }
        }
        self.says(host, client, &format!(r#"{{"type":"signal","payload":"{payload}"}}"#));
    }

    /// The first clients of two hosts say something, and everybody has heard what is due.
    pub(super) fn signal_each_other(&mut self, one: usize, other: usize) {
        self.signals(one, 0);
        self.signals(other, 0);
        self.settle();
        self.check();
    }

    pub(super) fn leaves(&mut self, host: usize, client: usize) {
        let mut out = Actions::new();
        let of = &mut self.hosts[host];
        let client = &mut of.clients[client];
        of.rooms.handle_leave(&mut client.state, client.id, &mut out);
        (client.is_gone, client.room) = (true, None);
        client.due.clear();
        self.apply(host, None, out, "");
    }

    pub(super) fn apply(&mut self, host: usize, me: Option<usize>, actions: Actions, message: &str) {
        for action in actions {
            match action {
                Action::Reply(parts) => {
                    let of = &mut self.hosts[host].clients[me.expect("somebody is answered")];
                    of.is_told(&rendered(&parts, message));
                }
                Action::Broadcast { to, parts } => self.deliver(host, &to, &rendered(&parts, message)),
                Action::Close { client, .. } => {
                    let at = self.hosts[host].clients.iter().position(|other| other.id == client);
                    self.leaves(host, at.expect("a client of this host"));
                }
                Action::Rooms(ask) => {
                    if let (Ask::Create(_) | Ask::Join(..), Some(me)) = (&ask, me) {
                        self.hosts[host].clients[me].is_waiting = true;
                    }
                    self.hosts[host].asked.push_back(ask);
                }
                Action::RoomNote(to, note) => self.post(host, to, Letter::Note(note)),
                Action::RoomSignal { key, hosts, parts } => {
                    let from = self.hosts[host].clients[me.expect("a sender")].id;
                    for to in hosts {
                        self.post(host, to, Letter::Signal(key, from, rendered(&parts, message)));
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn post(&mut self, from: usize, to: HostId, letter: Letter) {
        assert_ne!(self.hosts[from].id, to, "nobody writes to itself");
        self.letters.entry((from, to.0 as usize - 1)).or_default().push_back(letter);
    }

    fn deliver(&mut self, host: usize, to: &[ClientId], text: &str) {
        for client in self.hosts[host].clients.iter_mut().filter(|client| to.contains(&client.id)) {
            let payload = text.rsplit('"').nth(1).expect("a payload");
            client.heard.push(payload.to_owned());
        }
    }

    /// Redis carries out the next thing that a host has asked for.
    pub(super) fn carry_out(&mut self, host: usize) {
        let Some(ask) = self.hosts[host].asked.pop_front() else { return };
        let me = self.hosts[host].id;
        let answer = match ask {
            Ask::Create(client) => {
                let room = RoomIndex::draw(&mut self.entropy);
                let incarnation = RoomId::new(&mut self.entropy);
                self.redis.insert(room, (incarnation, BTreeSet::from([me])));
                let key = Key { room, incarnation };
                Answer::Joined { client, key, is_new: true, hosts: Vec::new() }
            }
            Ask::Join(client, room) => match self.redis.get_mut(&room) {
                Some((incarnation, hosts)) => {
                    hosts.insert(me);
                    let key = Key { room, incarnation: *incarnation };
                    Answer::Joined { client, key, is_new: false, hosts: hosts.iter().copied().collect() }
                }
                None => Answer::Refused { client, room: Some(room) },
            },
            Ask::Leave(key) => {
                let room = self.redis.get_mut(&key.room).filter(|room| room.0 == key.incarnation);
                room.map(|(_, hosts)| hosts.remove(&me));
                return;
            }
            Ask::Expire(key) => {
                self.redis.remove(&key.room);
                Answer::Ended(key)
            }
            Ask::Restore { .. } => return,
        };
        self.hosts[host].answers.push_back(answer);
    }

    /// A host hears the next thing that Redis has answered.
    pub(super) fn answer(&mut self, host: usize) {
        let Some(answer) = self.hosts[host].answers.pop_front() else { return };
        let mut out = Actions::new();
        let of = &mut self.hosts[host];
        let mut me = None;
        match answer {
            Answer::Joined { client, key, is_new, hosts } => {
                let hosts: Vec<HostId> = hosts.into_iter().filter(|host| *host != of.id).collect();
                of.rooms.handle_joined(client, key, is_new, &hosts, 0, &mut out);
            }
            Answer::Refused { client, room } => {
                me = of.clients.iter().position(|other| other.id == client);
                of.rooms.handle_refused(client, room, &mut out);
            }
            Answer::Ended(key) => of.rooms.handle_ended(key, &mut out),
        }
        self.apply(host, me, out, "");
        self.seat(host);
    }

    /// A host reads the next letter of another.
    pub(super) fn read(&mut self, from: usize, to: usize) {
        let letters = self.letters.get_mut(&(from, to));
        let Some(letter) = letters.and_then(VecDeque::pop_front) else { return };
        let mut out = Actions::new();
        let of = &mut self.hosts[to];
        match letter {
            Letter::Note(note) => {
                of.rooms.handle_note(host_id(from), note, &mut out);
            }
            Letter::Signal(key, sender, text) => {
                assert_eq!(sender.host(), host_id(from));
                let hearers = of.rooms.handle_signal_from(host_id(from), key, &mut out);
                self.deliver(to, &hearers.unwrap_or_default(), &text);
            }
        }
        self.apply(to, None, out, "");
        self.seat(to);
    }

    pub(super) fn seat(&mut self, host: usize) {
        while let Some(id) = self.hosts[host].rooms.poll_ready() {
            let mut out = Actions::new();
            let of = &mut self.hosts[host];
            let me = of.clients.iter().position(|other| other.id == id).expect("a client of this host");
            of.rooms.handle_ready(&mut of.clients[me].state, id, 0, &mut out);
            self.apply(host, Some(me), out, "");
        }
    }

    /// All that is on its way arrives.
    pub(super) fn settle(&mut self) {
        for _ in 0..10_000 {
            let letters = self.letters.values().map(VecDeque::len).sum::<usize>();
            if letters + self.hosts.iter().map(|host| host.asked.len() + host.answers.len()).sum::<usize>()
                == 0
            {
                return;
            }
            for host in 0..HOSTS {
                self.carry_out(host);
                self.answer(host);
                (0..HOSTS).for_each(|other| self.read(other, host));
            }
        }
        panic!("it does not come to an end");
    }

    pub(super) fn create(&mut self, host: usize, client: usize) -> RoomIndex {
        self.says(host, client, CREATE);
        self.settle();
        self.hosts[host].clients[client].room.expect("it was told")
    }

    pub(super) fn join(&mut self, host: usize, client: usize, room: RoomIndex) {
        self.says(host, client, &format!(r#"{{"type":"join","roomId":"{}"}}"#, room.id()));
        self.settle();
        assert_eq!(self.hosts[host].clients[client].room, Some(room));
    }

    /// Everybody has heard what is due, in order, and nothing twice.
    pub(super) fn check(&self) {
        for client in self.hosts.iter().flat_map(|host| &host.clients) {
            let mut heard = client.heard.clone();
            heard.sort_unstable();
            heard.dedup();
            assert_eq!(heard.len(), client.heard.len(), "nothing twice");
            for due in &client.due {
                assert!(client.heard.contains(due), "{due} is missing in {:?}", client.heard);
            }
        }
        for host in &self.hosts {
            let shared = host.rooms.shared.as_ref().expect("they share");
            assert!(shared.asked.is_empty() && shared.wishes.is_empty() && shared.knocks.is_empty());
            assert_eq!(shared.rooms.len(), host.rooms.len());
            for (room, of) in &shared.rooms {
                assert!(of.entering.is_empty() && of.arrivals.is_empty());
                assert!(
                    !host.rooms.table[room.position()].members.is_empty(),
                    "it is left with the last member"
                );
            }
        }
        for (room, (incarnation, hosts)) in &self.redis {
            let is_in = |host: &&Host| host.rooms.has(Key { room: *room, incarnation: *incarnation });
            let there: BTreeSet<HostId> = self.hosts.iter().filter(is_in).map(|host| host.id).collect();
            assert_eq!(*hosts, there, "Redis knows who is there");
        }
    }
}

impl Client {
    fn is_told(&mut self, text: &str) {
        self.is_waiting = false;
        if text.contains("error") {
            return;
        }
        let room = text.split('"').nth(7).and_then(|id| RoomIndex::parse(id.as_bytes()));
        let room = room.unwrap_or_else(|| panic!("{text}"));
        if self.room != Some(room) {
            // What was said where it was is due no longer.
            self.due.clear();
        }
        self.room = Some(room);
    }
}

fn rendered(parts: &[Part], message: &str) -> String {
    let mut bytes = Vec::new();
    protocol::write(parts, message.as_bytes(), |piece| bytes.extend_from_slice(piece));
    String::from_utf8(bytes).expect("UTF-8")
}
