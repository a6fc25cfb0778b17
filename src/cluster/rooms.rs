//! Rooms over several hosts: an id is one room on all of them (protocols.md sections 4 and 6).
//!
//! `parlor:rooms` is a sorted set of the ids of live rooms, scored by when each expires, in milliseconds by Redis' own
//! clock. The hash `parlor:rooms:hosts` has for each the room's incarnation, which is random and never used again, and the
//! hosts that have members in it. To create, join, leave, expire and put back are one script each.
//!
//! Redis does not know members: each host knows its own, and tells the other hosts of a room whether it has any. These
//! letters go to the other's cluster, which passes them on to the home of its rooms. A host that is gone may stay in the
//! hash for as long as the room lives: nothing is written to it.
//!
//! What cannot be asked waits for Redis; after [`ANSWER_MS_MAX`] it is answered as if there was no room.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};

use super::codec::{Error, Reader};
use super::desk::{Awaited as AnyAwaited, Desk};
use super::{Command, FromCluster, Letter as AnyLetter, Reply, Script};
use crate::id::{ClientId, HostId, RoomId, ShardIndex, TEXT_LEN};
use crate::limits::{ANSWER_MS_MAX, ROOM_CANDIDATES, ROOM_PAUSE_MS, ROOM_RETURN_MS};
use crate::protocol::lobby;
use crate::protocol::rooms::{Key, Note, ROOMS_MAX, RoomIndex};

const ROOMS: &[u8] = b"parlor:rooms";
const HOSTS: &[u8] = b"parlor:rooms:hosts";

/// KEYS of all: the sorted set, the hash. ARGV: how long it lives, its incarnation, the host, any number, ids to try.
/// Returns the id.
static CREATE: Script = Script { source: include_str!("scripts/rooms_create.lua") };
/// ARGV: the id, how long it lives, the host. Returns incarnation and hosts.
static JOIN: Script = Script { source: include_str!("scripts/rooms_join.lua") };
/// ARGV: the id, its incarnation, the host.
static LEAVE: Script = Script { source: include_str!("scripts/rooms_leave.lua") };
/// ARGV: the id, its incarnation. Returns the milliseconds that are left.
static EXPIRE: Script = Script { source: include_str!("scripts/rooms_expire.lua") };
/// ARGV: the id, its incarnation, the host, the milliseconds that are left. Returns incarnation and hosts, or 0 if it is
/// another room.
static RESTORE: Script = Script { source: include_str!("scripts/rooms_restore.lua") };

/// What a shard asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// A room for this client. [`News::Joined`] or [`News::Refused`] follows.
    Create {
        /// Who.
        client: ClientId,
        /// How long it lives.
        timeout_ms: u64,
    },
    /// This client comes to this room. [`News::Joined`] or [`News::Refused`] follows.
    Join {
        /// Who.
        client: ClientId,
        /// Where.
        room: RoomIndex,
        /// How long the room lives from now on.
        timeout_ms: u64,
    },
    /// This host has no members in this room any more.
    Leave(Key),
    /// The time of this room should be over. [`News::Remaining`] or [`News::Ended`] follows.
    Expire(Key),
    /// This host has members in this room, which may have been lost. [`News::Restored`] follows if others are
    /// in it, and [`News::Ended`] if it is another's.
    Restore {
        /// Which.
        key: Key,
        /// How long it lives from now on, at least.
        left_ms: u64,
    },
    /// All rooms that may have been lost were put back ([`News::Lost`]).
    Restored,
}

/// What the home of rooms is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// This client may come to this room, its own or another's.
    Joined {
        /// Who.
        client: ClientId,
        /// Where.
        key: Key,
        /// It is a new room.
        is_new: bool,
        /// Hosts that may have members there.
        hosts: Vec<HostId>,
    },
    /// There is no room for this client.
    Refused {
        /// Who.
        client: ClientId,
        /// Where it wanted to go; none if it wanted a new one.
        room: Option<RoomIndex>,
    },
    /// This room lives for so long.
    Remaining {
        /// Which.
        key: Key,
        /// In milliseconds; if Redis does not say, when to ask again.
        left_ms: u64,
    },
    /// This room is there again, and these other hosts may have members in it.
    Restored {
        /// Which.
        key: Key,
        /// They may have come to it while it was lost for this one.
        hosts: Vec<HostId>,
    },
    /// This room is no more.
    Ended(Key),
    /// Redis may have lost all rooms: say which there are.
    Lost,
}

/// What hosts say to each other of rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Letter {
    /// Who has members where.
    Note(Note),
    /// A finished frame for all members of a room on that host.
    Signal {
        /// The room.
        key: Key,
        /// The sender.
        from: ClientId,
        /// Header and payload, as they go onto the wire.
        frame: Bytes,
    },
}

/// What a reply is awaited for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Awaited {
    /// A new room, of this incarnation, for a client.
    Create(ClientId, RoomId),
    /// A room that a client wants to come to.
    Join(ClientId, RoomIndex),
    /// How long a room lives.
    Expire(Key),
    /// Whether an id is still this room's.
    Restore(Key),
}

/// What a client wants.
#[derive(Debug)]
struct Wish {
    /// None for a new room.
    room: Option<RoomIndex>,
    timeout_ms: u64,
    since_ms: u64,
    asked_ms: u64,
    is_asked: bool,
}

/// What this host's clients wait for.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    /// Somebody wanted a room here.
    is_awake: bool,
    /// How often the home has yet to put its rooms back: whoever asks for one of them before that does not find it.
    restoring: u32,
    /// Redis was away.
    was_down: bool,
    /// Until then it may be that other hosts have not put back theirs.
    returning_until_ms: u64,
    /// At most one of each client, which is not read from until there is an answer.
    wishes: BTreeMap<ClientId, Wish>,
}

impl Rooms {
    /// A shard asks for something.
    pub(super) fn handle_request(&mut self, _from: ShardIndex, request: Request, desk: &mut Desk) {
        match request {
            Request::Create { client, timeout_ms } => self.wish(client, None, timeout_ms, desk),
            Request::Join { client, room, timeout_ms } => self.wish(client, Some(room), timeout_ms, desk),
            Request::Leave(key) => {
                let command = run(&LEAVE, key.room, [key.incarnation.text().to_vec(), name(desk.me)]);
                desk.command(command);
            }
            Request::Expire(key) => {
                let command = run(&EXPIRE, key.room, [key.incarnation.text().to_vec()]);
                desk.ask(AnyAwaited::Rooms(Awaited::Expire(key)), command);
            }
            Request::Restore { key, left_ms } => {
                let arguments = [key.incarnation.text().to_vec(), name(desk.me), number(left_ms)];
                let command = run(&RESTORE, key.room, arguments);
                desk.ask(AnyAwaited::Rooms(Awaited::Restore(key)), command);
            }
            Request::Restored => {
                self.restoring = self.restoring.saturating_sub(1);
                self.ask_again(desk);
            }
        }
    }

    /// Redis has answered, or has not ([`Reply::Failed`]).
    pub(super) fn handle_reply(&mut self, awaited: Awaited, reply: &Reply, desk: &mut Desk) {
        match (awaited, reply) {
            (Awaited::Create(client, _) | Awaited::Join(client, _), Reply::Failed) => {
                if let Some(wish) = self.wishes.get_mut(&client) {
                    wish.is_asked = false;
                }
            }
            (Awaited::Create(client, incarnation), reply) => {
                let room = bytes_of(reply).and_then(RoomIndex::parse);
                let key = room.map(|room| Key { room, incarnation });
                self.grant(client, key.map(|key| (key, Vec::new())), desk);
            }
            (Awaited::Join(client, room), reply) => {
                let found = bytes_of(reply).and_then(|text| parse(room, text));
                match self.wishes.get_mut(&client) {
                    Some(wish) if found.is_none() && desk.now_ms < self.returning_until_ms => {
                        wish.is_asked = false;
                    }
                    _ => self.grant(client, found, desk),
                }
            }
            (Awaited::Expire(key), Reply::Integer(0)) | (Awaited::Restore(key), Reply::Integer(0)) => {
                tell(News::Ended(key), desk);
            }
            (Awaited::Expire(key), reply) => {
                let left_ms = match reply {
                    Reply::Integer(left_ms) => u64::try_from(*left_ms).unwrap_or(ROOM_PAUSE_MS),
                    _ => ROOM_PAUSE_MS,
                };
                tell(News::Remaining { key, left_ms }, desk);
            }
            // Or Redis is away, and will be asked again when it is back.
            (Awaited::Restore(key), reply) => {
                let found = bytes_of(reply).and_then(|text| parse(key.room, text));
                let Some((_, mut hosts)) = found.filter(|(found, _)| *found == key) else { return };
                hosts.retain(|host| *host != desk.me);
                if !hosts.is_empty() {
                    tell(News::Restored { key, hosts }, desk);
                }
            }
        }
    }

    /// Another host's home of rooms has written to that of this host.
    pub(super) fn handle_letter(&mut self, from: HostId, letter: Letter, desk: &mut Desk) {
        desk.mail(lobby::home(desk.shards), FromCluster::Letter(from, AnyLetter::Rooms(letter)));
    }

    /// Redis can be worked with from now on ([`Desk::is_up`]). It may be another one than before, or empty.
    pub(super) fn handle_up(&mut self, desk: &mut Desk) {
        if std::mem::take(&mut self.was_down) {
            self.returning_until_ms = desk.now_ms + ROOM_RETURN_MS;
        }
        if self.is_awake {
            self.restoring += 1;
            tell(News::Lost, desk);
        }
    }

    /// Redis cannot be worked with. What it was asked has failed, or will.
    pub(super) fn handle_down(&mut self) {
        self.was_down = true;
    }

    /// Time has passed.
    pub(super) fn handle_tick(&mut self, desk: &mut Desk) {
        if self.wishes.is_empty() {
            return;
        }
        let is_late = |wish: &Wish| !wish.is_asked && wish.is_older(wish.since_ms, ANSWER_MS_MAX, desk);
        let late = self.wishes.iter().filter(|(_, wish)| is_late(wish)).map(|(client, _)| *client);
        for client in late.collect::<Vec<_>>() {
            self.grant(client, None, desk);
        }
        self.ask_again(desk);
    }

    fn wish(&mut self, client: ClientId, room: Option<RoomIndex>, timeout_ms: u64, desk: &mut Desk) {
        self.is_awake = true;
        let wish = Wish { room, timeout_ms, since_ms: desk.now_ms, asked_ms: 0, is_asked: false };
        self.wishes.insert(client, wish);
        if desk.is_up && self.restoring == 0 {
            self.ask(client, desk);
        }
    }

    /// Asks for those whose question has failed.
    fn ask_again(&mut self, desk: &mut Desk) {
        if !desk.is_up || self.restoring > 0 {
            return;
        }
        let is_due = |wish: &Wish| {
            !wish.is_asked && (wish.asked_ms == 0 || wish.is_older(wish.asked_ms, ROOM_PAUSE_MS, desk))
        };
        let due = self.wishes.iter().filter(|(_, wish)| is_due(wish)).map(|(client, _)| *client);
        for client in due.collect::<Vec<_>>() {
            self.ask(client, desk);
        }
    }

    fn ask(&mut self, client: ClientId, desk: &mut Desk) {
        let Some(wish) = self.wishes.get_mut(&client) else { return };
        (wish.is_asked, wish.asked_ms) = (true, desk.now_ms.max(1));
        let timeout = number(wish.timeout_ms);
        let (awaited, command) = match wish.room {
            Some(room) => (Awaited::Join(client, room), run(&JOIN, room, [timeout, name(desk.me)])),
            None => {
                let incarnation = RoomId::new(&mut desk.entropy);
                let mut arguments = vec![timeout, incarnation.text().to_vec(), name(desk.me)];
                arguments.push(number(desk.entropy.below(1 << 30) as u64));
                let draw = |_| number(RoomIndex::draw(&mut desk.entropy).id());
                arguments.extend((0..ROOM_CANDIDATES).map(draw));
                (
                    Awaited::Create(client, incarnation),
                    Command::Run { script: &CREATE, keys: keys(), arguments },
                )
            }
        };
        desk.ask(AnyAwaited::Rooms(awaited), command);
    }

    fn grant(&mut self, client: ClientId, found: Option<(Key, Vec<HostId>)>, desk: &mut Desk) {
        let Some(wish) = self.wishes.remove(&client) else { return };
        let news = match found {
            Some((key, hosts)) => News::Joined { client, key, is_new: wish.room.is_none(), hosts },
            None => News::Refused { client, room: wish.room },
        };
        tell(news, desk);
    }
}

impl Wish {
    fn is_older(&self, since_ms: u64, age_ms: u64, desk: &Desk) -> bool {
        desk.now_ms.saturating_sub(since_ms) >= age_ms
    }
}

fn tell(news: News, desk: &mut Desk) {
    desk.mail(lobby::home(desk.shards), FromCluster::Rooms(news));
}

fn keys() -> Vec<Vec<u8>> {
    vec![ROOMS.to_vec(), HOSTS.to_vec()]
}

fn run<const N: usize>(script: &'static Script, room: RoomIndex, others: [Vec<u8>; N]) -> Command {
    let arguments = std::iter::once(number(room.id())).chain(others).collect();
    Command::Run { script, keys: keys(), arguments }
}

fn number(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn name(host: HostId) -> Vec<u8> {
    host.to_string().into_bytes()
}

fn bytes_of(reply: &Reply) -> Option<&[u8]> {
    match reply {
        Reply::Bytes(bytes) => Some(bytes),
        Reply::Done | Reply::Integer(_) | Reply::List(_) | Reply::Nil | Reply::Failed => None,
    }
}

/// Reads `<incarnation> <host> <host> …`. What is no host is left out.
fn parse(room: RoomIndex, text: &[u8]) -> Option<(Key, Vec<HostId>)> {
    let (incarnation, hosts) = text.split_at_checked(TEXT_LEN)?;
    let incarnation = RoomId::parse(incarnation)?;
    let hosts = hosts.split(|byte| *byte == b' ').filter_map(HostId::parse).collect();
    Some((Key { room, incarnation }, hosts))
}

impl Letter {
    /// Bytes that it refers to.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Note(Note::Present(keys)) => keys.len() * size_of::<Key>(),
            Self::Note(Note::Enter(_) | Note::Absent(_)) => 0,
            Self::Signal { frame, .. } => frame.len(),
        }
    }
}

impl News {
    /// Bytes that it refers to.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Joined { hosts, .. } | Self::Restored { hosts, .. } => hosts.len() * size_of::<HostId>(),
            Self::Refused { .. } | Self::Remaining { .. } | Self::Ended(_) | Self::Lost => 0,
        }
    }
}

/// The kinds of letters.
mod kind {
    pub(super) const ENTER: u8 = 1;
    pub(super) const PRESENT: u8 = 2;
    pub(super) const ABSENT: u8 = 3;
    pub(super) const SIGNAL: u8 = 4;
}

/// Writes a letter: its kind, then keys (a room's id in 2 bytes, its incarnation), of which a list has its length in 2
/// bytes before it; for a signal the sender and the frame behind its length.
pub(super) fn put(bytes: &mut Vec<u8>, letter: &Letter) {
    match letter {
        Letter::Note(Note::Enter(key)) => put_key(bytes, kind::ENTER, *key),
        Letter::Note(Note::Absent(key)) => put_key(bytes, kind::ABSENT, *key),
        Letter::Note(Note::Present(keys)) => {
            bytes.put_u8(kind::PRESENT);
            bytes.put_u16(keys.len() as u16);
            for key in keys {
                bytes.put_u16(key.room.id() as u16);
                bytes.put_u128(key.incarnation.to_bits());
            }
        }
        Letter::Signal { key, from, frame } => {
            put_key(bytes, kind::SIGNAL, *key);
            bytes.put_u128(from.to_bits());
            bytes.put_u32(frame.len() as u32);
            bytes.put_slice(frame);
        }
    }
}

fn put_key(bytes: &mut Vec<u8>, kind: u8, key: Key) {
    bytes.put_u8(kind);
    bytes.put_u16(key.room.id() as u16);
    bytes.put_u128(key.incarnation.to_bits());
}

/// Reads a letter.
///
/// # Errors
/// It does not follow the layout.
pub(super) fn take(reader: &mut Reader) -> Result<Letter, Error> {
    Ok(match reader.u8()? {
        kind::ENTER => Letter::Note(Note::Enter(take_key(reader)?)),
        kind::ABSENT => Letter::Note(Note::Absent(take_key(reader)?)),
        kind::PRESENT => {
            let count = u16::from_be_bytes(reader.take()?);
            if usize::from(count) > ROOMS_MAX {
                return Err(Error::TooMany);
            }
            Letter::Note(Note::Present((0..count).map(|_| take_key(reader)).collect::<Result<_, _>>()?))
        }
        kind::SIGNAL => {
            Letter::Signal { key: take_key(reader)?, from: reader.client()?, frame: reader.frame()? }
        }
        kind => return Err(Error::UnknownKind(kind)),
    })
}

fn take_key(reader: &mut Reader) -> Result<Key, Error> {
    let room = RoomIndex::of(u16::from_be_bytes(reader.take()?)).ok_or(Error::WrongId)?;
    Ok(Key { room, incarnation: reader.room()? })
}

#[cfg(test)]
mod tests;
