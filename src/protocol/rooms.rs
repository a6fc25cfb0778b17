//! Four digits: who knows a room's number hears what is said in it (protocols.md section 4).
//!
//! A room outlives its members and dies of its age alone, so it has a deadline and no count. A client's place in a room
//! carries a number that is never used again: one that is left over from a room that expired finds nobody in the
//! room that has the same id now.
//!
//! Where several hosts share the ids (section 6), whether a room is there is asked elsewhere: `shared.rs`.

mod shared;

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Actions, Part, parts, reply};
use crate::id::{ClientId, Entropy};
use crate::wire::close::CloseCode;
use crate::wire::envelope::{Envelope, NotJson};
use shared::Shared;
pub use shared::{Ask, Key, Note};

/// Lowest room id.
const ID_MIN: u16 = 1_000;
/// Highest room id.
const ID_MAX: u16 = 9_999;
/// Most live rooms.
pub const ROOMS_MAX: usize = (ID_MAX - ID_MIN) as usize + 1;

/// A room, as its position in the table: its id less 1,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoomIndex(u16);

impl RoomIndex {
    /// Reads a room id: exactly four digits, none below 1000.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits: &[u8; 4] = text.try_into().ok()?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let id = digits.iter().fold(0, |id, digit| id * 10 + u16::from(digit - b'0'));
        Self::of(id)
    }

    /// The room with this id, if it is one.
    #[must_use]
    pub fn of(id: u16) -> Option<Self> {
        (ID_MIN..=ID_MAX).contains(&id).then(|| Self(id - ID_MIN))
    }

    /// Draws an id of all.
    pub fn draw(entropy: &mut Entropy) -> Self {
        Self(entropy.below(ROOMS_MAX) as u16)
    }

    /// The id.
    #[must_use]
    pub fn id(self) -> u64 {
        u64::from(ID_MIN + self.0)
    }

    fn position(self) -> usize {
        usize::from(self.0)
    }
}

/// Where a client sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    room: RoomIndex,
    /// Its key among the room's members.
    joining: u64,
}

/// What rooms know of one client.
#[derive(Debug, Default)]
pub struct State {
    /// Where it sat down last. The room may have expired since: it is looked up there.
    place: Option<Place>,
}

const _: () = assert!(size_of::<State>() <= 32);

/// An id, and the room that has it while it lives.
#[derive(Debug, Default)]
struct Room {
    /// When the room expires; none while the id is free.
    due_ms: Option<u64>,
    /// By the number of their joining, so in its order.
    members: BTreeMap<u64, ClientId>,
}

/// All rooms of the home.
#[derive(Debug)]
pub struct Rooms {
    /// `ROOM_TIMEOUT_MS`.
    timeout_ms: u64,
    /// One entry per id; empty until the first room.
    table: Vec<Room>,
    /// The ids that no room has, in any order.
    free: Vec<RoomIndex>,
    /// One entry per live room: when it expires.
    deadlines: BTreeSet<(u64, RoomIndex)>,
    next_joining: u64,
    /// What is known of other hosts, if there may be any. Then the rooms are those that have members here.
    shared: Option<Box<Shared>>,
}

impl Rooms {
    /// `timeout_ms`: how long a room lives after the last `create` or `join` in it. `is_shared`: other hosts may have
    /// rooms, and what is there is asked ([`Ask`]) and not decided here.
    #[must_use]
    pub fn new(timeout_ms: u64, is_shared: bool) -> Self {
        Self {
            timeout_ms,
            table: Vec::new(),
            free: Vec::new(),
            deadlines: BTreeSet::new(),
            next_joining: 0,
            shared: is_shared.then(Box::default),
        }
    }

    /// The number of live rooms.
    #[must_use]
    pub fn len(&self) -> usize {
        self.deadlines.len()
    }

    /// Whether there is no live room.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deadlines.is_empty()
    }

    /// A client has sent a message. `now_ms` is the clock that [`Rooms::handle_time`] is told.
    pub fn handle_message(
        &mut self,
        state: &mut State,
        me: ClientId,
        parsed: Result<&Envelope<'_>, NotJson>,
        now_ms: u64,
        entropy: &mut Entropy,
        out: &mut Actions,
    ) {
        let Ok(envelope) = parsed else { return out.push(Action::Ignore) };
        match &*envelope.text_of("type").unwrap_or_default() {
            b"create" => self.handle_create(state, me, now_ms, entropy, out),
            b"join" => self.handle_join(state, me, envelope, now_ms, out),
            b"signal" => self.handle_signal(state, me, envelope, out),
            _ => out.push(Action::Ignore),
        }
    }

    /// A client is gone. Nobody is told, and its room lives on.
    pub fn handle_leave(&mut self, state: &mut State, me: ClientId, out: &mut Actions) {
        self.forget_wish(me, out);
        self.stand_up(state, me, out);
    }

    /// Time has come this far: rooms that are due expire, and their ids are free at once.
    pub fn handle_time(&mut self, now_ms: u64, out: &mut Actions) {
        while let Some(&(due_ms, index)) = self.deadlines.first()
            && due_ms <= now_ms
        {
            if self.shared.is_some() {
                self.ask_for_time(index, now_ms, out);
                continue;
            }
            self.end(index, out);
            self.free.push(index);
        }
    }

    /// A room is no more.
    fn end(&mut self, index: RoomIndex, out: &mut Actions) {
        let room = std::mem::take(&mut self.table[index.position()]);
        if let Some(due_ms) = room.due_ms {
            self.deadlines.remove(&(due_ms, index));
        }
        out.extend(room.members.into_values().map(|client| Action::Close {
            client,
            code: Some(CloseCode::Normal),
            reason: "Room expired",
        }));
    }

    /// A client leaves its place, if it has one.
    fn stand_up(&mut self, state: &mut State, me: ClientId, out: &mut Actions) {
        if let Some(place) = self.place_of(state, me) {
            self.table[place.room.position()].members.remove(&place.joining);
            self.leave_if_empty(place.room, out);
        }
        state.place = None;
    }

    fn handle_create(
        &mut self,
        state: &mut State,
        me: ClientId,
        now_ms: u64,
        entropy: &mut Entropy,
        out: &mut Actions,
    ) {
        if self.shared.is_some() {
            return self.wish(me, None, out);
        }
        let Some(room) = self.draw(entropy) else { return out.push(reply([Part::Literal(NO_ROOMS)])) };
        self.enter(state, me, room, now_ms, out);
        out.push(entered(CREATED, room, me));
    }

    fn handle_join(
        &mut self,
        state: &mut State,
        me: ClientId,
        envelope: &Envelope<'_>,
        now_ms: u64,
        out: &mut Actions,
    ) {
        let named = envelope.text_of("roomId").and_then(|id| RoomIndex::parse(&id));
        if self.shared.is_some() && named.is_some() {
            return self.wish(me, named, out);
        }
        let Some(room) = named.filter(|room| self.is_live(*room)) else {
            return out.push(reply([Part::Literal(ROOM_NOT_FOUND)]));
        };
        self.enter(state, me, room, now_ms, out);
        out.push(entered(JOINED, room, me));
    }

    fn handle_signal(&self, state: &State, me: ClientId, envelope: &Envelope<'_>, out: &mut Actions) {
        let Some(place) = self.place_of(state, me) else { return };
        let members = &self.table[place.room.position()].members;
        let to: Vec<ClientId> = members.values().copied().filter(|member| *member != me).collect();
        let elsewhere = self.hosts_of(place.room);
        if to.is_empty() && elsewhere.is_none() {
            return;
        }
        let mut signal = parts([Part::Literal(r#"{"type":"signal","senderId":""#), Part::Client(me)]);
        match envelope.field("payload") {
            Some(payload) => signal.extend([
                Part::Literal(r#"","payload":"#),
                Part::Span(payload.value.clone()),
                Part::Literal("}"),
            ]),
            None => signal.push(Part::Literal("\"}")),
        }
        if let Some((key, hosts)) = elsewhere {
            out.push(Action::RoomSignal { key, hosts, parts: signal.clone() });
        }
        if !to.is_empty() {
            out.push(Action::Broadcast { to, parts: signal });
        }
    }

    /// Takes an id that is free.
    fn draw(&mut self, entropy: &mut Entropy) -> Option<RoomIndex> {
        if self.table.is_empty() {
            self.make_table();
            self.free.extend((0..=ID_MAX - ID_MIN).map(RoomIndex));
        }
        let free_count = self.free.len();
        (free_count > 0).then(|| self.free.swap_remove(entropy.below(free_count)))
    }

    fn make_table(&mut self) {
        self.table.resize_with(ROOMS_MAX, Room::default);
    }

    /// Moves a client into a room, whose time starts again.
    fn enter(&mut self, state: &mut State, me: ClientId, index: RoomIndex, now_ms: u64, out: &mut Actions) {
        self.restart(index, now_ms.saturating_add(self.timeout_ms));
        if self.place_of(state, me).is_some_and(|place| place.room == index) {
            return;
        }
        self.stand_up(state, me, out);
        let joining = self.next_joining;
        self.next_joining += 1;
        self.table[index.position()].members.insert(joining, me);
        state.place = Some(Place { room: index, joining });
    }

    /// The room lives until then.
    fn restart(&mut self, index: RoomIndex, due_ms: u64) {
        if let Some(before_ms) = self.table[index.position()].due_ms.replace(due_ms) {
            self.deadlines.remove(&(before_ms, index));
        }
        self.deadlines.insert((due_ms, index));
    }

    fn is_live(&self, index: RoomIndex) -> bool {
        self.table.get(index.position()).is_some_and(|room| room.due_ms.is_some())
    }

    /// Where a client sits, if that room is still the one in which it sat down.
    fn place_of(&self, state: &State, me: ClientId) -> Option<Place> {
        state.place.filter(|place| {
            let members = &self.table[place.room.position()].members;
            members.get(&place.joining) == Some(&me)
        })
    }
}

fn entered(before_room: &'static str, room: RoomIndex, me: ClientId) -> Action {
    reply([
        Part::Literal(before_room),
        Part::Number(room.id()),
        Part::Literal(r#"","myId":""#),
        Part::Client(me),
        Part::Literal("\"}"),
    ])
}

/// Before the room's id.
const CREATED: &str = r#"{"type":"room_created","roomId":""#;
const JOINED: &str = r#"{"type":"room_joined","roomId":""#;
const NO_ROOMS: &str = r#"{"type":"error","message":"No rooms available"}"#;
const ROOM_NOT_FOUND: &str = r#"{"type":"error","message":"Room not found"}"#;

#[cfg(test)]
mod tests;
