//! Rooms: which live, who is in them, what their clients say, and what each must hear (protocols.md section 4).

use super::behaviour::Play;
use super::checks::{fail, give_up};
use super::ledger::{Meaning, What};
use super::lobby::{Client, News, ROOM_CREATED, ROOM_JOINED, Word};
use super::scene::Scene;

const IDS: std::ops::RangeInclusive<u16> = 1_000..=9_999;

/// A room, whether it lives or not.
#[derive(Debug)]
struct Room {
    /// Its id, once a client was told of it.
    id: Option<u16>,
    /// Where it lives.
    shard: usize,
    created_step: u64,
    /// When it expired.
    expired_step: Option<u64>,
    /// When it is to expire.
    due_ms: u64,
    members: Vec<usize>,
    /// The server was not short of memory when it was asked for it.
    is_certain: bool,
}

/// All rooms of the run.
#[derive(Debug, Default)]
pub(super) struct Book {
    rooms: Vec<Room>,
    /// Ids that clients were told of, for others to ask for.
    pub(super) known_ids: Vec<u16>,
}

impl Book {
    /// A message of a client that has chosen rooms.
    pub(super) fn read(&mut self, scene: &mut Scene<'_>, me: usize, word: Word) {
        match word {
            Word::Create => self.create(scene, me),
            Word::Join(id) => self.join(scene, me, id),
            Word::Signal(payload) => self.signal(scene, me, payload),
            Word::Login(_) | Word::Ping | Word::Announce(..) | Word::Relay(_) => {}
            Word::Unknown | Word::Silent => {}
        }
    }

    /// A client is gone. Nobody is told.
    pub(super) fn leave(&mut self, scene: &mut Scene<'_>, me: usize) {
        if let Some(room) = scene.lobby(me).and_then(|client| client.room.take()) {
            self.rooms[room].members.retain(|member| *member != me);
        }
    }

    /// A shard was told the time: its rooms expire.
    pub(super) fn pass_time(&mut self, scene: &mut Scene<'_>, shard: usize) {
        let now_ms = scene.now_ms;
        let is_over = |room: &&mut Room| room.is_live() && room.shard == shard && room.due_ms <= now_ms;
        for room in self.rooms.iter_mut().filter(is_over) {
            room.expired_step = Some(scene.step);
            scene.summary.rooms_expired += 1;
            for member in room.members.drain(..) {
                scene.stop(member, Some(1000), Some("Room expired"));
            }
        }
    }

    /// A client was told that this room was created: it learns the id, which must be free and in range.
    pub(super) fn resolve(&mut self, room: usize, text: &[u8], client_id: &[u8]) {
        let rest = text.strip_prefix(ROOM_CREATED.as_bytes()).unwrap_or_default();
        let digits = rest.split_first_chunk::<4>().and_then(|(digits, rest)| {
            let behind = [br#"","myId":""#.as_slice(), client_id, b"\"}"].concat();
            (*rest == behind).then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
        });
        let Some(id) = digits.filter(|id| IDS.contains(id)) else {
            fail(format!("malformed: {}", text.escape_ascii()))
        };
        if let Some(other) =
            self.rooms.iter().find(|other| other.id == Some(id) && self.rooms[room].meets(other))
        {
            fail(format!("{id} is the id of two rooms: {other:?} and {:?}", self.rooms[room]));
        }
        self.rooms[room].id = Some(id);
        self.rooms[room].is_certain = true;
        self.known_ids.push(id);
    }

    /// How many rooms live: at least, and at most.
    pub(super) fn live(&self) -> (u64, u64) {
        let live = self.rooms.iter().filter(|room| room.is_live());
        let (certain, uncertain): (Vec<_>, Vec<_>) = live.partition(|room| room.is_certain);
        (certain.len() as u64, (certain.len() + uncertain.len()) as u64)
    }

    fn create(&mut self, scene: &mut Scene<'_>, me: usize) {
        self.leave(scene, me);
        let room = self.rooms.len();
        let due_ms = scene.now_ms + scene.settings.limits.room_timeout_ms;
        self.rooms.push(Room {
            id: None,
            shard: scene.connections[me].shard,
            created_step: scene.step,
            expired_step: None,
            due_ms,
            members: vec![me],
            is_certain: scene.is_certain,
        });
        scene.expect_what(me, What::RoomCreated(room), Meaning::Lobby(News::Entered(room)), 0);
        if let Some(client) = scene.lobby(me) {
            client.room = Some(room);
        }
        scene.summary.rooms_created += 1;
    }

    fn join(&mut self, scene: &mut Scene<'_>, me: usize, id: Option<u16>) {
        let named =
            id.and_then(|id| self.rooms.iter().position(|room| room.is_live() && room.id == Some(id)));
        let Some(room) = named else {
            let could_be = id.is_some() && self.rooms.iter().any(|room| room.is_live() && room.id.is_none());
            let not_found = super::lobby::ROOM_NOT_FOUND.to_owned();
            let what = if could_be { What::NoSuchRoom } else { What::Text(not_found) };
            return scene.expect_what(me, what, Meaning::Nothing, 0);
        };
        // Nobody knows whether the room's time has started again.
        if !scene.is_certain {
            give_up("a room may have started again");
        }
        self.leave(scene, me);
        self.rooms[room].members.push(me);
        self.rooms[room].due_ms = scene.now_ms + scene.settings.limits.room_timeout_ms;
        let id = id.unwrap_or_default();
        let text = format!(r#"{ROOM_JOINED}{id}","myId":"{}"}}"#, scene.id(me));
        scene.expect_what(me, What::Text(text), Meaning::Lobby(News::Entered(room)), 0);
        if let Some(client) = scene.lobby(me) {
            client.room = Some(room);
        }
        scene.summary.rooms_joined += 1;
    }

    fn signal(&self, scene: &mut Scene<'_>, me: usize, payload: Option<String>) {
        let room = scene.lobby(me).and_then(|client| client.room);
        let Some(room) = room.map(|room| &self.rooms[room]).filter(|room| room.is_live()) else { return };
        let id = scene.id(me);
        let text = match payload {
            Some(payload) => format!(r#"{{"type":"signal","senderId":"{id}","payload":{payload}}}"#),
            None => format!(r#"{{"type":"signal","senderId":"{id}"}}"#),
        };
        for member in room.members.iter().filter(|member| **member != me) {
            let (what, meaning) = (What::Text(text.clone()), Meaning::Lobby(News::FromRoom));
            scene.expect_what(*member, what, meaning, 0);
        }
    }
}

impl Room {
    fn is_live(&self) -> bool {
        self.expired_step.is_none()
    }

    /// Whether the two lived at the same time.
    fn meets(&self, other: &Self) -> bool {
        let ends_before = |one: &Self, other: &Self| {
            one.expired_step.is_some_and(|expired_step| expired_step <= other.created_step)
        };
        !ends_before(self, other) && !ends_before(other, self)
    }
}

/// What a client of rooms says next, or nothing.
pub(super) fn message(client: &Client, play: &mut Play<'_>) -> Option<(Word, String)> {
    if !client.has_room && !play.chance.one_in(10) {
        return enter(play);
    }
    Some(match play.chance.below(30) {
        0 => return enter(play),
        1 => (Word::Login(Some("alice".into())), r#"{"type":"login","name":"alice"}"#.to_owned()),
        2 => (Word::Signal(None), r#"{"senderId":"x","type":"signal"}"#.to_owned()),
        3 => (Word::Signal(Some("null".into())), r#"{"type":"signal","payload":null,"to":"x"}"#.to_owned()),
        4 => {
            let text = r#" { "payload":"a" , "type":"signal", "payload" : "\u0062\ud800" , "senderId":7 } "#;
            (Word::Signal(Some(r#""\u0062\ud800""#.into())), text.to_owned())
        }
        _ => {
            let payload = format!(r#"{{"n":{},"senderId":"x","p":"{}"}}"#, client.said, play.padding(400));
            let text = format!(r#"{{"type":"signal","payload":{payload}}}"#);
            (Word::Signal(Some(payload)), text)
        }
    })
}

fn enter(play: &mut Play<'_>) -> Option<(Word, String)> {
    let known = play.room_ids.len();
    if known == 0 || play.chance.one_in(4) {
        return play.chance.one_in(3).then(|| (Word::Create, r#"{"type":"create"}"#.to_owned()));
    }
    // Mostly one of the last, which may live.
    let most = if play.chance.one_in(6) { known } else { known.min(2) };
    let back = play.chance.below(most);
    let id = play.room_ids[known - 1 - back];
    let text = match play.chance.below(4) {
        0 => format!(r#"{{"roomId":"\u00{:02x}{:03}","type":"join"}}"#, 0x30 + id / 1_000, id % 1_000),
        _ => format!(r#"{{"type":"join","roomId":"{id}"}}"#),
    };
    Some((Word::Join(Some(id)), text))
}
