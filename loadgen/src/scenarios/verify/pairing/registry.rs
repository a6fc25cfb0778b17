//! What only both ends of a room together can show.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::super::label::Label;
use super::super::violation::Violation;
use super::checker::Room;

/// What it may take a server to notice that a client is gone.
const NOTICE: Duration = Duration::from_secs(2);

/// An end of a room when it began.
#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    id: String,
    partner_id: String,
}

/// An end of a room when all is over.
#[derive(Debug, Clone)]
struct LastSeen {
    id: String,
    room: Room,
}

/// A message that came to another room than its label says.
#[derive(Debug)]
struct Carried {
    label: Label,
    room_id: String,
}

/// The registry.
#[derive(Debug, Default)]
pub(super) struct Registry {
    /// Client id of each connection number.
    ids: HashMap<u32, String>,
    gone: HashMap<String, Instant>,
    /// Those among them whose host died.
    died: HashSet<String>,
    rooms: HashMap<String, Vec<End>>,
    /// By connection number and room: below this sequence number the server had read all messages in that room.
    read_below: HashMap<(u32, String), u32>,
    carried: Vec<Carried>,
    last_seen: Vec<LastSeen>,
}

impl Registry {
    /// A connection has got its id.
    pub(super) fn ready(&mut self, number: u32, id: &str) {
        self.ids.insert(number, id.to_owned());
    }

    /// A client has gone.
    pub(super) fn gone(&mut self, id: &str, at: Instant) {
        self.gone.insert(id.to_owned(), at);
    }

    /// A client has gone with its host.
    pub(super) fn died(&mut self, number: u32, at: Instant) {
        if let Some(id) = self.ids.get(&number).cloned() {
            self.gone(&id, at);
            self.died.insert(id);
        }
    }

    /// Whether a client's host died before this.
    pub(super) fn has_died(&self, id: &str, before: Instant) -> bool {
        self.died.contains(id) && self.gone.get(id).is_some_and(|gone| *gone < before)
    }

    /// A client was matched: both ends must name each other and the same room, and be there.
    pub(super) fn matched(
        &mut self,
        id: &str,
        room: &Room,
        at: Instant,
        told_within: Option<Duration>,
    ) -> Result<(), Violation> {
        if let Some(gone) = self.gone.get(&room.partner_id) {
            let since = at.saturating_duration_since(*gone);
            let has_died = self.died.contains(&room.partner_id);
            let notice = told_within.filter(|_| has_died).unwrap_or(NOTICE);
            if since > notice {
                let ms = since.as_millis() as u64;
                return Err(Violation::Gone { partner: room.partner_id.clone(), ms });
            }
        }
        let ends = self.rooms.entry(room.id.clone()).or_default();
        let end = End { id: id.to_owned(), partner_id: room.partner_id.clone() };
        check_ends(ends, &end, &room.id)?;
        ends.push(end);
        Ok(())
    }

    /// The first message of a sender in a room: the number in its label must belong to the client that the server
    /// names.
    pub(super) fn sender(&self, label: &Label, partner_id: &str) -> Result<(), Violation> {
        match self.ids.get(&label.sender) {
            Some(id) if id == partner_id => Ok(()),
            id => Err(Violation::WrongSender {
                from: format!("{} (label `{label}`)", id.map_or("nobody", String::as_str)),
                partner: partner_id.to_owned(),
            }),
        }
    }

    /// A room has ended for this connection, and the server had read its messages below a number in that room.
    pub(super) fn ended(&mut self, number: u32, room_id: String, read_below: u32) {
        self.read_below.insert((number, room_id), read_below);
    }

    /// A message came to the room that followed the one it is labelled with.
    pub(super) fn carried(&mut self, label: Label, room_id: &str) {
        self.carried.push(Carried { label, room_id: room_id.to_owned() });
    }

    /// All is over: where a client is.
    pub(super) fn last_seen(&mut self, id: &str, room: &Room) {
        self.last_seen.push(LastSeen { id: id.to_owned(), room: room.clone() });
    }

    /// Rooms that there were, and messages that rightly came to the room after theirs.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.rooms.len(), self.carried.len())
    }

    /// The checks that need the whole history.
    pub(super) fn check_all(&self) -> Result<(), Violation> {
        self.check_last_seen()?;
        self.carried.iter().try_for_each(|carried| self.check_carried(carried))
    }

    fn check_carried(&self, carried: &Carried) -> Result<(), Violation> {
        let label = &carried.label;
        let read_below = self.read_below.get(&(label.sender, label.key.clone()));
        if read_below.is_some_and(|below| label.sequence < *below) {
            return Err(Violation::WrongKey { label: label.to_string(), key: carried.room_id.clone() });
        }
        Ok(())
    }

    fn check_last_seen(&self) -> Result<(), Violation> {
        let mut rooms: HashMap<&str, Vec<&LastSeen>> = HashMap::new();
        for last_seen in &self.last_seen {
            rooms.entry(&last_seen.room.id).or_default().push(last_seen);
        }
        rooms.values().try_for_each(|ends| match ends[..] {
            [one, other] if one.id == other.room.partner_id && other.id == one.room.partner_id => {
                all_arrived(one, other).and_then(|()| all_arrived(other, one))
            }
            [one, ..] => Err(Violation::OneSided { room: one.room.id.clone() }),
            [] => Ok(()),
        })
    }
}

fn check_ends(ends: &[End], end: &End, room_id: &str) -> Result<(), Violation> {
    let fits = match ends {
        [] => true,
        [other] => other.id == end.partner_id && other.partner_id == end.id,
        [_, _, ..] => false,
    };
    if fits {
        return Ok(());
    }
    Err(Violation::Asymmetric { how: format!("room {room_id}: {ends:?} and then {end:?}") })
}

fn all_arrived(sender: &LastSeen, receiver: &LastSeen) -> Result<(), Violation> {
    let (sent, arrived) = (sender.room.sent, receiver.room.arrived);
    if sent == arrived {
        return Ok(());
    }
    Err(Violation::NotArrived { room: sender.room.id.clone(), sent, arrived })
}
