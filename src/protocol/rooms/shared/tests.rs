//! Hosts that share rooms: random days with mail that is late, against a model; and what follows when hosts come and go.

use proptest::prelude::*;

use super::*;
use crate::id::{Entropy, ShardIndex, Slot};
use crate::protocol;
use crate::wire::envelope::Parser;

const HOSTS: usize = 3;
const CLIENTS: usize = 4;
const TIMEOUT_MS: u64 = 300_000;
const CREATE: &str = r#"{"type":"create"}"#;

/// What a host sends to another.
#[derive(Debug, Clone)]
enum Letter {
    Note(Note),
    Signal(Key, ClientId, String),
}

/// What Redis answers.
#[derive(Debug, Clone)]
enum Answer {
    Joined { client: ClientId, key: Key, is_new: bool, hosts: Vec<HostId> },
    Refused { client: ClientId, room: Option<RoomIndex> },
    Ended(Key),
}

#[derive(Debug)]
struct Client {
    id: ClientId,
    state: State,
    /// Where it was told to be. In the model no id is used again.
    room: Option<RoomIndex>,
    is_waiting: bool,
    is_gone: bool,
    heard: Vec<String>,
    /// What it is to hear, or was.
    due: Vec<String>,
}

#[derive(Debug)]
struct Host {
    id: HostId,
    rooms: Rooms,
    clients: Vec<Client>,
    /// To Redis, and back.
    asked: VecDeque<Ask>,
    answers: VecDeque<Answer>,
}

/// Hosts, a model of Redis, and the mail between them.
struct World {
    hosts: Vec<Host>,
    letters: BTreeMap<(usize, usize), VecDeque<Letter>>,
    redis: BTreeMap<RoomIndex, (RoomId, BTreeSet<HostId>)>,
    entropy: Entropy,
    parser: Parser,
    said: usize,
}

fn host_id(index: usize) -> HostId {
    HostId(index as u32 + 1)
}

fn world() -> World {
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
    fn finds(&mut self, host: usize, other: usize) {
        let mut out = Actions::new();
        self.hosts[host].rooms.handle_host_found(host_id(other), &mut out);
        self.apply(host, None, out, "");
    }

    /// The relation between two hosts ends.
    fn parts(&mut self, a: usize, b: usize) {
        for (host, other) in [(a, b), (b, a)] {
            self.letters.remove(&(host, other));
            self.hosts[host].rooms.handle_host_gone(host_id(other));
            self.seat(host);
        }
    }

    fn says(&mut self, host: usize, client: usize, message: &str) {
        let mut out = Actions::new();
        let of = &mut self.hosts[host];
        let Client { id, state, .. } = &mut of.clients[client];
        let envelope = self.parser.parse(message.as_bytes());
        let parsed = envelope.as_ref().map_err(|error| *error);
        of.rooms.handle_message(state, *id, parsed, 0, &mut self.entropy, &mut out);
        self.apply(host, Some(client), out, message);
    }

    /// A client says something new. All who were told to be in its room are to hear it.
    fn signals(&mut self, host: usize, client: usize) {
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

    fn leaves(&mut self, host: usize, client: usize) {
        let mut out = Actions::new();
        let of = &mut self.hosts[host];
        let client = &mut of.clients[client];
        of.rooms.handle_leave(&mut client.state, client.id, &mut out);
        (client.is_gone, client.room) = (true, None);
        client.due.clear();
        self.apply(host, None, out, "");
    }

    fn apply(&mut self, host: usize, me: Option<usize>, actions: Actions, message: &str) {
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
    fn carry_out(&mut self, host: usize) {
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
    fn answer(&mut self, host: usize) {
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
    fn read(&mut self, from: usize, to: usize) {
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

    fn seat(&mut self, host: usize) {
        while let Some(id) = self.hosts[host].rooms.poll_ready() {
            let mut out = Actions::new();
            let of = &mut self.hosts[host];
            let me = of.clients.iter().position(|other| other.id == id).expect("a client of this host");
            of.rooms.handle_ready(&mut of.clients[me].state, id, 0, &mut out);
            self.apply(host, Some(me), out, "");
        }
    }

    /// All that is on its way arrives.
    fn settle(&mut self) {
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

    fn create(&mut self, host: usize, client: usize) -> RoomIndex {
        self.says(host, client, CREATE);
        self.settle();
        self.hosts[host].clients[client].room.expect("it was told")
    }

    fn join(&mut self, host: usize, client: usize, room: RoomIndex) {
        self.says(host, client, &format!(r#"{{"type":"join","roomId":"{}"}}"#, room.id()));
        self.settle();
        assert_eq!(self.hosts[host].clients[client].room, Some(room));
    }

    /// Everybody has heard what is due, in order, and nothing twice.
    fn check(&self) {
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Whoever was told to be in a room hears what is said there from then on, whatever else is on its way.
    #[test]
    fn who_is_told_to_be_in_hears_everything(
        steps in proptest::collection::vec((0..9_u8, 0..HOSTS, 0..CLIENTS, any::<prop::sample::Index>()), 0..150),
    ) {
        let mut world = world();
        for (what, host, client, which) in steps {
            let of = &world.hosts[host].clients[client];
            let is_free = !of.is_gone && !of.is_waiting;
            match what {
                0 if is_free && world.redis.len() < 3 => world.says(host, client, CREATE),
                0 | 1 if is_free && !world.redis.is_empty() => {
                    let rooms: Vec<RoomIndex> = world.redis.keys().copied().collect();
                    let room = rooms[which.index(rooms.len())];
                    world.says(host, client, &format!(r#"{{"type":"join","roomId":"{}"}}"#, room.id()));
                }
                2 | 3 if is_free => world.signals(host, client),
                4 if !of.is_gone && which.index(4) == 0 => world.leaves(host, client),
                5 => world.carry_out(host),
                6 => world.answer(host),
                _ => world.read(which.index(HOSTS), host),
            }
        }
        world.settle();
        world.check();
    }
}

#[test]
fn members_of_a_host_that_is_gone_are_not_waited_for() {
    let mut world = world();
    let room = world.create(0, 0);
    world.says(1, 0, &format!(r#"{{"type":"join","roomId":"{}"}}"#, room.id()));
    world.carry_out(1);
    world.answer(1);
    assert!(world.hosts[1].clients[0].room.is_none(), "the other host is asked first");
    world.parts(0, 1);
    assert!(world.hosts[1].clients[0].room.is_some(), "it has left");
    // Both say who is where when they see each other again.
    world.says(0, 1, &format!(r#"{{"type":"join","roomId":"{}"}}"#, room.id()));
    world.finds(0, 1);
    world.finds(1, 0);
    world.settle();
    world.signals(0, 0);
    world.signals(1, 0);
    world.settle();
    world.check();
    assert_eq!(world.hosts[1].clients[0].heard, ["00001"]);
    assert_eq!(world.hosts[0].clients[1].heard, ["00001", "00002"]);
}

#[test]
fn a_host_that_comes_while_redis_is_asked_is_known() {
    let mut world = world();
    let room = world.create(0, 0);
    world.parts(1, 2);
    // Each is in what the other cannot know yet.
    for host in [1, 2] {
        world.says(host, 0, &format!(r#"{{"type":"join","roomId":"{}"}}"#, room.id()));
        world.carry_out(host);
    }
    world.answer(2);
    world.finds(1, 2);
    world.finds(2, 1);
    world.read(2, 1);
    world.settle();
    world.signals(1, 0);
    world.signals(2, 0);
    world.settle();
    world.check();
}

#[test]
fn a_room_that_expires_closes_its_members_and_sends_away_who_comes() {
    let mut world = world();
    let room = world.create(0, 0);
    world.join(1, 0, room);
    let mut out = Actions::new();
    let rooms = &mut world.hosts[0].rooms;
    rooms.handle_time(TIMEOUT_MS - 1, &mut out);
    assert_eq!(out, []);
    rooms.handle_time(TIMEOUT_MS, &mut out);
    let [Action::Rooms(Ask::Expire(key))] = out[..] else { panic!("{out:?}") };
    // It has more time than this host knows of.
    rooms.handle_remaining(key, 70, TIMEOUT_MS);
    out.clear();
    rooms.handle_time(TIMEOUT_MS + 69, &mut out);
    assert_eq!(out, []);
    rooms.handle_time(TIMEOUT_MS + 70, &mut out);
    assert_eq!(out, [Action::Rooms(Ask::Expire(key))]);
    // Meanwhile one comes, and waits for the other host.
    world.says(2, 0, &format!(r#"{{"type":"join","roomId":"{}"}}"#, room.id()));
    world.carry_out(2);
    world.answer(2);
    for host in 0..HOSTS {
        world.hosts[host].answers.push_back(Answer::Ended(key));
        world.answer(host);
    }
    assert!(world.hosts[0].clients[0].is_gone && world.hosts[1].clients[0].is_gone);
    assert!(!world.hosts[2].clients[0].is_gone && world.hosts[2].clients[0].room.is_none());
    world.redis.clear();
    world.settle();
    world.check();
}

#[test]
fn rooms_that_may_be_lost_are_put_back_with_the_time_that_is_left() {
    let mut world = world();
    let (one, two) = (world.create(0, 0), world.create(0, 1));
    let mut out = Actions::new();
    world.hosts[0].rooms.handle_lost(TIMEOUT_MS - 5, &mut out);
    let restored = |action: &Action| match action {
        Action::Rooms(Ask::Restore { key, left_ms: 5 }) => key.room,
        other => panic!("{other:?}"),
    };
    let restored: BTreeSet<RoomIndex> = out.iter().map(restored).collect();
    assert_eq!(restored, BTreeSet::from([one, two]));
}

#[test]
fn letters_that_make_no_sense_change_nothing() {
    let mut world = world();
    let room = world.create(0, 0);
    let incarnation = RoomId::new(&mut Entropy::from_seed([1; 32]));
    let wrong = Key { room, incarnation };
    let rooms = &mut world.hosts[0].rooms;
    let mut out = Actions::new();
    assert!(!rooms.handle_note(host_id(1), Note::Absent(wrong), &mut out));
    assert!(rooms.handle_note(host_id(1), Note::Present(vec![wrong]), &mut out));
    assert_eq!(out, []);
    assert!(rooms.handle_note(host_id(1), Note::Enter(wrong), &mut out));
    assert_eq!(rooms.handle_signal_from(host_id(1), wrong, &mut out), None);
    let absent = Action::RoomNote(host_id(1), Note::Absent(wrong));
    assert_eq!(out, [absent.clone(), absent]);
    // One that nobody knows cannot say that it is in a room.
    let key = Key { room, incarnation: rooms.shared.as_ref().expect("they share").rooms[&room].incarnation };
    rooms.handle_note(HostId(99), Note::Present(vec![key]), &mut out);
    assert_eq!(rooms.hosts_of(room), None);
    // Knocks are bounded.
    world.says(0, 1, CREATE);
    let rooms = &mut world.hosts[0].rooms;
    for _ in 0..2 * ROOM_KNOCKS_MAX {
        rooms.handle_note(host_id(1), Note::Enter(wrong), &mut Actions::new());
    }
    assert_eq!(rooms.shared.as_ref().expect("they share").knocks.len(), ROOM_KNOCKS_MAX);
}
