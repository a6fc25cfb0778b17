//! Rooms of several hosts: whether a room is there is asked, and the hosts that have members in it tell each other
//! (protocols.md section 6).
//!
//! A client that wants a room is not read from until it has its answer. Before that is given, each host with members in the
//! room has said that it knows of this one: whoever learns of the new member from that moment on, and answers, is heard.
//!
//! ```text
//!   ours                        Redis                     theirs
//!    │ ── join ──────────────────► │                         │
//!    │ ◄───── incarnation, hosts ─ │                         │
//!    │ ── Enter ──────────────────────────────────────────►  │   writes to us from now on
//!    │ ◄──────────────────────────────────────── Present ──  │
//!  room_joined
//! ```
//!
//! Two that come at once may each be missing in what the other was told by Redis, but not both: whoever was second is
//! told of the first, whose own answer may still be on its way; hence the knocks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    Actions, CREATED, JOINED, NO_ROOMS, Part, ROOM_NOT_FOUND, RoomIndex, Rooms, State, entered, reply,
};
use crate::id::{ClientId, HostId, RoomId};
use crate::limits::{ANSWER_MS_MAX, ROOM_KNOCKS_MAX};
use crate::protocol::Action;

/// One room for as long as it lives: another one with its id has another incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The id.
    pub room: RoomIndex,
    /// Never used again.
    pub incarnation: RoomId,
}

/// What is asked about rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// This client wants a new room.
    Create(ClientId),
    /// This client wants to come to this room.
    Join(ClientId, RoomIndex),
    /// Nobody of this host is in this room any more.
    Leave(Key),
    /// The time of this room should be over.
    Expire(Key),
    /// Members of this host are in this room, which may have been lost.
    Restore {
        /// Which.
        key: Key,
        /// How long it lives from now on.
        left_ms: u64,
    },
}

/// What the homes of rooms say to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The sender has members in this room, and wants to know whether the receiver knows it.
    Enter(Key),
    /// The sender has members in these rooms.
    Present(Vec<Key>),
    /// The sender has no members in this room.
    Absent(Key),
}

/// What a client waits for.
#[derive(Debug, Clone, Copy)]
struct Wish {
    /// None for a new one.
    room: Option<RoomIndex>,
    /// Where it may go, once the other hosts there know of it.
    granted: Option<Key>,
}

/// A room with members here, or with clients that come to it.
#[derive(Debug)]
struct Elsewhere {
    incarnation: RoomId,
    /// Those that have members in it.
    hosts: BTreeSet<HostId>,
    /// Those of them whose answer is awaited.
    entering: BTreeSet<HostId>,
    /// Who comes when all have answered.
    arrivals: Vec<ClientId>,
}

/// What is known of other hosts.
#[derive(Debug, Default)]
pub(super) struct Shared {
    rooms: BTreeMap<RoomIndex, Elsewhere>,
    wishes: BTreeMap<ClientId, Wish>,
    /// How many questions have no answer yet, also of clients that are gone: for each room that is wanted, and for new
    /// ones. No entry is 0.
    asked: BTreeMap<Option<RoomIndex>, u32>,
    /// Hosts that have come to rooms which a client of ours may be on its way to.
    knocks: Vec<(HostId, Key)>,
    /// Who may sit down.
    ready: VecDeque<ClientId>,
    /// Whom notes can be sent to.
    neighbours: BTreeSet<HostId>,
}

impl Rooms {
    /// This client may come to this room, a new one or the one that it named. `hosts` may have members in it.
    pub fn handle_joined(
        &mut self,
        client: ClientId,
        key: Key,
        is_new: bool,
        hosts: &[HostId],
        now_ms: u64,
        out: &mut Actions,
    ) {
        let Some(shared) = &mut self.shared else { return };
        let wanted = (!is_new).then_some(key.room);
        let Some(wish) = shared.wishes.get_mut(&client) else {
            shared.count_answered(wanted);
            return self.decline(key, out);
        };
        wish.granted = Some(key);
        self.open(key, now_ms, out);
        let Some(shared) = &mut self.shared else { return };
        shared.greet(key, hosts, out);
        shared.count_answered(wanted);
        if let Some(room) = shared.find(key) {
            room.arrivals.push(client);
        }
        shared.let_in(key.room);
    }

    /// There is no room for this client. `room` is the one that it wanted; none for a new one.
    pub fn handle_refused(&mut self, client: ClientId, room: Option<RoomIndex>, out: &mut Actions) -> bool {
        let Some(shared) = &mut self.shared else { return false };
        shared.count_answered(room);
        let is_there = shared.wishes.remove(&client).is_some();
        if is_there {
            out.push(reply([Part::Literal(if room.is_some() { ROOM_NOT_FOUND } else { NO_ROOMS })]));
        }
        if let Some(room) = room {
            self.leave_if_empty(room, out);
        }
        is_there
    }

    /// The next client that may sit down now: [`Rooms::handle_ready`] follows.
    pub fn poll_ready(&mut self) -> Option<ClientId> {
        self.shared.as_mut()?.ready.pop_front()
    }

    /// A client sits down in the room that it wanted, if that still is there.
    pub fn handle_ready(&mut self, state: &mut State, me: ClientId, now_ms: u64, out: &mut Actions) {
        let wish = self.shared.as_mut().and_then(|shared| shared.wishes.remove(&me));
        let Some(Wish { room, granted: Some(key) }) = wish else { return };
        if !self.has(key) {
            return out.push(reply([Part::Literal(if room.is_some() { ROOM_NOT_FOUND } else { NO_ROOMS })]));
        }
        self.enter(state, me, key.room, now_ms, out);
        out.push(entered(if room.is_some() { JOINED } else { CREATED }, key.room, me));
    }

    /// A room lives for so long from now on.
    pub fn handle_remaining(&mut self, key: Key, left_ms: u64, now_ms: u64) {
        if self.has(key) {
            self.restart(key.room, now_ms.saturating_add(left_ms));
        }
    }

    /// A room is no more.
    pub fn handle_ended(&mut self, key: Key, out: &mut Actions) {
        if self.has(key) {
            self.end_shared(key.room, out);
        }
    }

    /// All rooms may have been lost: those that have members here are put back.
    pub fn handle_lost(&mut self, now_ms: u64, out: &mut Actions) {
        let Some(shared) = &self.shared else { return };
        for (index, room) in &shared.rooms {
            let key = Key { room: *index, incarnation: room.incarnation };
            let due_ms = self.table[index.position()].due_ms.unwrap_or(now_ms);
            out.push(Action::Rooms(Ask::Restore { key, left_ms: due_ms.saturating_sub(now_ms).max(1) }));
        }
    }

    /// A room was put back. Those of `hosts` that are not known to have members in it came to it while it was lost.
    pub fn handle_restored(&mut self, key: Key, hosts: &[HostId], out: &mut Actions) {
        if let Some(shared) = &mut self.shared {
            shared.greet(key, hosts, out);
        }
    }

    /// Another host can be written to: it is told of the rooms that have members here.
    pub fn handle_host_found(&mut self, host: HostId, out: &mut Actions) {
        let Some(shared) = &mut self.shared else { return };
        shared.neighbours.insert(host);
        let keys: Vec<Key> =
            shared.rooms.iter().map(|(room, of)| Key { room: *room, incarnation: of.incarnation }).collect();
        if !keys.is_empty() {
            out.push(Action::RoomNote(host, Note::Present(keys)));
        }
    }

    /// Another host is gone, with all its members.
    pub fn handle_host_gone(&mut self, host: HostId) {
        let Some(shared) = &mut self.shared else { return };
        shared.neighbours.remove(&host);
        shared.knocks.retain(|(from, _)| *from != host);
        let rooms: Vec<RoomIndex> = shared.rooms.keys().copied().collect();
        for room in rooms {
            shared.lose(host, room);
        }
    }

    /// Another host says who is where. False: it makes no sense here.
    pub fn handle_note(&mut self, from: HostId, note: Note, out: &mut Actions) -> bool {
        let Some(shared) = &mut self.shared else { return false };
        match note {
            Note::Enter(key) => {
                let is_known = shared.meet(from, key) || shared.note_knock(from, key);
                let answer = if is_known { Note::Present(vec![key]) } else { Note::Absent(key) };
                out.push(Action::RoomNote(from, answer));
            }
            Note::Present(keys) => {
                // One that was found here before it found us was not told yet of what has come about since.
                let mut untold = keys;
                untold.retain(|key| shared.hear_present(from, *key));
                if !untold.is_empty() {
                    out.push(Action::RoomNote(from, Note::Present(untold)));
                }
            }
            Note::Absent(key) if shared.find(key).is_some() => shared.lose(from, key.room),
            Note::Absent(_) => return false,
        }
        true
    }

    /// Who hears what is said in a room elsewhere; none if nobody is in it here, which `from` is told.
    pub fn handle_signal_from(&self, from: HostId, key: Key, out: &mut Actions) -> Option<Vec<ClientId>> {
        if !self.has(key) {
            out.push(Action::RoomNote(from, Note::Absent(key)));
            return None;
        }
        Some(self.table[key.room.position()].members.values().copied().collect())
    }

    /// A client that is gone has its answer: its host is in the room all the same, and leaves it.
    fn decline(&mut self, key: Key, out: &mut Actions) {
        let is_asked = self.shared.as_ref().is_some_and(|shared| shared.asked.contains_key(&Some(key.room)));
        if self.has(key) {
            self.leave_if_empty(key.room, out);
        } else if !is_asked {
            out.push(Action::Rooms(Ask::Leave(key)));
        }
    }

    /// A client wants a room, a new one if none is named.
    pub(super) fn wish(&mut self, me: ClientId, room: Option<RoomIndex>, out: &mut Actions) {
        let Some(shared) = &mut self.shared else { return };
        shared.wishes.insert(me, Wish { room, granted: None });
        *shared.asked.entry(room).or_default() += 1;
        out.push(Action::Rooms(room.map_or(Ask::Create(me), |room| Ask::Join(me, room))));
    }

    /// A client is gone, and wants nothing any more.
    pub(super) fn forget_wish(&mut self, me: ClientId, out: &mut Actions) {
        let Some(shared) = &mut self.shared else { return };
        let Some(Wish { granted: Some(key), .. }) = shared.wishes.remove(&me) else { return };
        if let Some(room) = shared.find(key) {
            room.arrivals.retain(|client| *client != me);
        }
        self.leave_if_empty(key.room, out);
    }

    /// Asks whether a room's time is over, which others may have made longer.
    pub(super) fn ask_for_time(&mut self, index: RoomIndex, now_ms: u64, out: &mut Actions) {
        // There is an answer before that.
        self.restart(index, now_ms.saturating_add(ANSWER_MS_MAX));
        let room = self.shared.as_ref().and_then(|shared| shared.rooms.get(&index));
        if let Some(Elsewhere { incarnation, .. }) = room {
            out.push(Action::Rooms(Ask::Expire(Key { room: index, incarnation: *incarnation })));
        }
    }

    /// The other hosts that have members in a room, if there are any.
    pub(super) fn hosts_of(&self, index: RoomIndex) -> Option<(Key, Vec<HostId>)> {
        let room = self.shared.as_ref()?.rooms.get(&index).filter(|room| !room.hosts.is_empty())?;
        let key = Key { room: index, incarnation: room.incarnation };
        Some((key, room.hosts.iter().copied().collect()))
    }

    /// Where nobody of this host is in a room any more, nor about to come, the others are told.
    pub(super) fn leave_if_empty(&mut self, index: RoomIndex, out: &mut Actions) {
        let Some(shared) = &mut self.shared else { return };
        let Some(room) = shared.rooms.get(&index) else { return };
        let comes = |wish: &Wish| wish.granted.is_some_and(|key| key.room == index);
        let is_awaited = shared.asked.contains_key(&Some(index)) || shared.wishes.values().any(comes);
        if is_awaited || !self.table[index.position()].members.is_empty() {
            return;
        }
        let key = Key { room: index, incarnation: room.incarnation };
        for host in room.hosts.union(&room.entering) {
            out.push(Action::RoomNote(*host, Note::Absent(key)));
        }
        out.push(Action::Rooms(Ask::Leave(key)));
        self.end_shared(index, out);
    }

    /// Whether this room has members here, or clients that come to it.
    fn has(&self, key: Key) -> bool {
        let room = self.shared.as_ref().and_then(|shared| shared.rooms.get(&key.room));
        room.is_some_and(|room| room.incarnation == key.incarnation)
    }

    /// A client comes to a room, whose time starts again. One that had its id is no more.
    fn open(&mut self, key: Key, now_ms: u64, out: &mut Actions) {
        if self.table.is_empty() {
            self.make_table();
        }
        let is_new = !self.has(key);
        if is_new {
            self.end_shared(key.room, out);
        }
        self.restart(key.room, now_ms.saturating_add(self.timeout_ms));
        if let Some(shared) = self.shared.as_mut().filter(|_| is_new) {
            shared.rooms.insert(key.room, Elsewhere::new(key.incarnation));
        }
    }

    fn end_shared(&mut self, index: RoomIndex, out: &mut Actions) {
        self.end(index, out);
        let Some(shared) = &mut self.shared else { return };
        if let Some(room) = shared.rooms.remove(&index) {
            // They find out that it is no more.
            shared.ready.extend(room.arrivals);
        }
    }
}

impl Elsewhere {
    fn new(incarnation: RoomId) -> Self {
        Self { incarnation, hosts: BTreeSet::new(), entering: BTreeSet::new(), arrivals: Vec::new() }
    }
}

impl Shared {
    fn find(&mut self, key: Key) -> Option<&mut Elsewhere> {
        self.rooms.get_mut(&key.room).filter(|room| room.incarnation == key.incarnation)
    }

    /// The hosts of a room, those that have come to it meanwhile among them, are told that there are members here.
    fn greet(&mut self, key: Key, hosts: &[HostId], out: &mut Actions) {
        let knocks = self.knocks.iter().filter(|(_, to)| *to == key).map(|(host, _)| *host);
        let all: BTreeSet<HostId> = hosts.iter().copied().chain(knocks).collect();
        let there: Vec<HostId> = all.intersection(&self.neighbours).copied().collect();
        let Some(room) = self.find(key) else { return };
        for host in there {
            if !room.hosts.contains(&host) && room.entering.insert(host) {
                out.push(Action::RoomNote(host, Note::Enter(key)));
            }
        }
    }

    fn count_answered(&mut self, asked: Option<RoomIndex>) {
        if let Some(count) = self.asked.get_mut(&asked) {
            *count -= 1;
            if *count == 0 {
                self.asked.remove(&asked);
            }
        }
        if self.asked.is_empty() {
            self.knocks.clear();
        }
    }

    /// A host has members in a room. False: nobody of ours is in it.
    fn meet(&mut self, from: HostId, key: Key) -> bool {
        let is_neighbour = self.neighbours.contains(&from);
        let Some(room) = self.find(key).filter(|_| is_neighbour) else { return false };
        room.hosts.insert(from);
        true
    }

    /// A host says that it has members in a room. True: it may not know that there are some here.
    fn hear_present(&mut self, from: HostId, key: Key) -> bool {
        let knows_us =
            self.find(key).is_some_and(|room| room.entering.remove(&from) || room.hosts.contains(&from));
        if !self.meet(from, key) {
            self.note_knock(from, key);
            return false;
        }
        self.let_in(key.room);
        !knows_us
    }

    /// A host has come to a room which a client of ours may be on its way to. False: none is.
    fn note_knock(&mut self, from: HostId, key: Key) -> bool {
        let is_asked = self.asked.contains_key(&Some(key.room)) || self.asked.contains_key(&None);
        let is_noted = is_asked && self.knocks.len() < ROOM_KNOCKS_MAX;
        if is_noted {
            self.knocks.push((from, key));
        }
        is_noted
    }

    /// A host has no members in a room.
    fn lose(&mut self, host: HostId, room: RoomIndex) {
        if let Some(of) = self.rooms.get_mut(&room) {
            of.hosts.remove(&host);
            of.entering.remove(&host);
            self.let_in(room);
        }
    }

    /// Who waits for the other hosts of a room may sit down once all have answered.
    fn let_in(&mut self, room: RoomIndex) {
        if let Some(room) = self.rooms.get_mut(&room).filter(|room| room.entering.is_empty()) {
            self.ready.extend(room.arrivals.drain(..));
        }
    }
}

#[cfg(test)]
mod tests;
