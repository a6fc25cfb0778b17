//! The judge of the rooms dialect (protocols.md section 4).
//!
//! A client sends nothing between a `create` or `join` and its answer, so that each signal is labelled with the room that
//! its sender is in when the server reads it. A time that it spends in a room is a stint.

mod member;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use self::member::{Asked, HeardFrom, Member, Room, is_uuid, signal};
use super::MEMBERS;
use super::judge::{Count, DropKind, Turn};
use super::label::{Bodies, Label};
use super::violation::{Violation, is_exactly, shown};
use crate::client::Ending;
use crate::dialects::rooms::{CREATE, Event, join};
use crate::net::spread::Placing;
use crate::prng::Prng;

/// How long a room certainly lives after the last `create` or `join` in it, unless one was seen to expire sooner.
const LIFE_MIN: Duration = Duration::from_secs(60);
/// No room is meant to live for less.
const LIFE_LEAST: Duration = Duration::from_secs(1);
/// The least time between two signals of a client that nobody hears.
const ALONE: Duration = Duration::from_millis(100);
/// What it may take a host to tell the others that somebody has come into a room.
const ACROSS: Duration = Duration::from_secs(1);
/// What a signal is labelled with that is sent outside any room.
const NOWHERE: &str = "nowhere";
const DROPS: [DropKind; 7] = [
    DropKind::Reset,
    DropKind::TcpClose,
    DropKind::WebSocketClose,
    DropKind::Create,
    DropKind::Join,
    DropKind::Rejoin,
    DropKind::JoinNone,
];

/// The judge.
pub(super) struct Judge {
    placing: Placing,
    /// Those that came into a room a moment ago, and from when on other hosts certainly know it.
    newcomers: Vec<(Instant, u32)>,
    in_flight: u32,
    /// Whether rooms without members live on: not where Redis comes back empty.
    keeps_empty: bool,
    bodies: Bodies,
    chance: Prng,
    members: BTreeMap<u32, Member>,
    /// The connection behind each id.
    ids: HashMap<String, u32>,
    rooms: HashMap<String, Room>,
    /// Where a group meets.
    meetings: HashMap<usize, String>,
    life_min: Duration,
    /// Counts the stints, so that two have an order.
    clock: u64,
    signals: u64,
    not_found: u64,
    expired: u64,
    no_rooms: u64,
}

impl Judge {
    pub(super) fn new(placing: Placing, in_flight: usize, keeps_empty: bool) -> Self {
        Self {
            placing,
            newcomers: Vec::new(),
            in_flight: in_flight as u32,
            keeps_empty,
            bodies: Bodies::new(),
            chance: Prng::from_entropy(),
            members: BTreeMap::new(),
            ids: HashMap::new(),
            rooms: HashMap::new(),
            meetings: HashMap::new(),
            life_min: LIFE_MIN,
            clock: 0,
            signals: 0,
            not_found: 0,
            expired: 0,
            no_rooms: 0,
        }
    }

    fn member(&mut self, number: u32) -> &mut Member {
        self.members.get_mut(&number).expect("every connection was opened")
    }

    fn ask(&mut self, asked: Asked, turn: &mut Turn<'_>) {
        match &asked {
            Asked::Create => turn.say(CREATE),
            Asked::Join(room) => turn.say(join(room)),
        }
        self.member(turn.number).asked = Some(asked);
    }

    fn ask_for_meeting(&mut self, turn: &mut Turn<'_>) {
        let group = self.members[&turn.number].group;
        let asked = self.meetings.get(&group).map_or(Asked::Create, |room| Asked::Join(room.clone()));
        self.ask(asked, turn);
    }

    /// There was no room when one was asked for.
    fn ask_again(&mut self, turn: &mut Turn<'_>) {
        let member = self.member(turn.number);
        if member.next_at.is_none_or(|next_at| turn.now >= next_at) {
            member.next_at = Some(turn.now + ALONE);
            self.ask_for_meeting(turn);
        }
    }

    /// Whether a room is there for certain.
    fn is_there(&self, room: &str, now: Instant) -> bool {
        let is_young = |room: &Room| now.saturating_duration_since(room.entered) < self.life_min;
        let has_members =
            || self.members.values().any(|member| member.gone.is_none() && member.room() == Some(room));
        self.rooms.get(room).is_some_and(|room| !room.is_expired && is_young(room))
            && (self.keeps_empty || has_members())
    }

    fn hear_entered(
        &mut self,
        message: &[u8],
        (kind, room, my_id): (&str, &str, &str),
        turn: &mut Turn<'_>,
    ) -> Result<(), Violation> {
        is_exactly(message, &format!(r#"{{"type":"{kind}","roomId":"{room}","myId":"{my_id}"}}"#))?;
        let asked = self.member(turn.number).asked.take();
        let due = if kind == "room_created" { Asked::Create } else { Asked::Join(room.to_owned()) };
        if asked.as_ref() != Some(&due) {
            return Err(Violation::WrongAnswer { came: shown(message), due: format!("{asked:?}") });
        }
        if kind == "room_created" {
            self.check_new_room(room, turn.now)?;
            let group = self.members[&turn.number].group;
            self.meetings.insert(group, room.to_owned());
        }
        self.check_id(my_id, turn.number)?;
        self.rooms.insert(room.to_owned(), Room { entered: turn.now, is_expired: false });
        self.enter(room, turn);
        turn.arrived = true;
        Ok(())
    }

    fn check_new_room(&self, room: &str, now: Instant) -> Result<(), Violation> {
        let is_room =
            room.len() == 4 && room.bytes().all(|byte| byte.is_ascii_digit()) && !room.starts_with('0');
        if !is_room {
            return Err(Violation::Unknown { came: format!("a new room {room}") });
        }
        if self.is_there(room, now) {
            return Err(Violation::NotUnique { what: format!("the new room {room}") });
        }
        Ok(())
    }

    /// One's id is one's own, looks like a v4 UUID, and stays.
    fn check_id(&mut self, my_id: &str, number: u32) -> Result<(), Violation> {
        if !is_uuid(my_id) {
            return Err(Violation::Unknown { came: format!("the id {my_id}") });
        }
        let known = *self.ids.entry(my_id.to_owned()).or_insert(number);
        let own = self.member(number).id.get_or_insert_with(|| my_id.to_owned()).clone();
        if known != number || own != my_id {
            return Err(Violation::NotUnique { what: format!("the id {my_id} (before: {own})") });
        }
        Ok(())
    }

    /// A new stint begins, unless the client was in that room. What the others have sent so far may still come.
    fn enter(&mut self, room: &str, turn: &Turn<'_>) {
        let number = turn.number;
        if self.member(number).room() == Some(room) {
            return;
        }
        self.clock += 1;
        let here = |(other, member): (&u32, &Member)| {
            let known = HeardFrom { since: member.now().sent, due: None };
            (*other != number && member.room() == Some(room)).then_some(((*other, member.stint()), known))
        };
        let (began_at, heard) = (self.clock, self.members.iter().filter_map(here).collect());
        self.member(number).enter(room, began_at, heard);
        if self.placing.hosts() > 1 {
            self.newcomers.push((turn.now + ACROSS, number));
        }
    }

    fn hear_error(&mut self, message: &[u8], text: &str, turn: &mut Turn<'_>) -> Result<(), Violation> {
        let groundless = || Err(Violation::Error { code: text.to_owned() });
        let asked = self.member(turn.number).asked.take();
        if asked == Some(Asked::Create) && text == "No rooms available" {
            // Rooms of runs before this one may still be there.
            self.no_rooms += 1;
            return is_exactly(message, r#"{"type":"error","message":"No rooms available"}"#);
        }
        let Some(Asked::Join(room)) = asked else { return groundless() };
        if text != "Room not found" || self.is_there(&room, turn.now) {
            return groundless();
        }
        is_exactly(message, r#"{"type":"error","message":"Room not found"}"#)?;
        self.not_found += 1;
        if self.member(turn.number).room().is_none() {
            self.ask(Asked::Create, turn);
        }
        Ok(())
    }

    fn hear_signal(&mut self, message: &[u8], turn: &Turn<'_>) -> Result<(), Violation> {
        let changed = || Violation::Changed { came: shown(message) };
        let label = Label::find(message).ok_or_else(changed)?;
        let sender = self.members.get(&label.sender).ok_or_else(changed)?;
        let sender_id = sender.id.clone().ok_or_else(changed)?;
        let text = std::str::from_utf8(message).map_err(|_| changed())?;
        let payload = self.bodies.of(&label).opaque;
        let due = |id: &str| format!(r#"{{"type":"signal","senderId":"{id}","payload":{payload}}}"#);
        let named =
            text.strip_prefix(r#"{"type":"signal","senderId":""#).and_then(|rest| rest.split('"').next());
        is_exactly(message, &due(named.unwrap_or_default()))?;
        if label.sender == turn.number {
            return Err(Violation::Self_);
        }
        if named != Some(&sender_id) {
            return Err(Violation::WrongSender {
                from: named.unwrap_or_default().to_owned(),
                partner: sender_id,
            });
        }
        let own = &self.members[&turn.number];
        if own.room() != Some(&label.key) {
            let key = format!("room {:?}", own.room());
            return Err(Violation::WrongKey { label: label.to_string(), key });
        }
        let stint = sender.stint_of(&label).ok_or_else(changed)?;
        self.check_order(&label, stint, own)?;
        self.signals += 1;
        let heard = HeardFrom { since: 0, due: Some(label.key_sequence + 1) };
        self.member(turn.number).heard.insert((label.sender, stint), heard);
        let sender = self.member(label.sender);
        sender.seen = sender.seen.max(label.sequence + 1);
        Ok(())
    }

    /// A signal is the next of its stint, behind all of the stints before, as far as one must have heard those.
    fn check_order(&self, label: &Label, stint: usize, own: &Member) -> Result<(), Violation> {
        let (before, now) = ((label.sender, 0)..(label.sender, stint), (label.sender, stint));
        let after = (label.sender, stint + 1)..(label.sender, usize::MAX);
        if let Some(due) = own.heard.range(after).find_map(|(_, known)| known.due) {
            return Err(Violation::Repeated { label: label.to_string(), due });
        }
        own.heard
            .range(before)
            .try_for_each(|((sender, stint), known)| self.check_stint(*sender, *stint, *known))?;
        let began_at = self.members[&label.sender].stints[stint].began_at;
        match own.heard.get(&now) {
            Some(HeardFrom { due: Some(due), .. }) => label.is_due(*due),
            // It was sent before or after one was known to be in the room; none after may be missing.
            Some(HeardFrom { since, .. }) if label.key_sequence > *since => label.is_due(*since),
            Some(_) => Ok(()),
            None if began_at > own.now().began_at => label.is_due(0),
            // Its sender had come before, and was known to have gone when one was known to be there.
            None => Ok(()),
        }
    }

    /// All has arrived of a stint.
    fn check_stint(&self, sender: u32, stint: usize, known: HeardFrom) -> Result<(), Violation> {
        let member = &self.members[&sender];
        let sent = member.stints[stint].sent;
        if known.reached() >= sent || member.gone.is_some_and(|kind| kind != DropKind::WebSocketClose) {
            return Ok(());
        }
        let room = format!("room {:?} by connection {sender:08x}", member.stints[stint].room);
        Err(Violation::NotArrived { room, sent, arrived: known.reached() })
    }

    /// At the end all has come from those that are there, and from those that left in order.
    fn check_heard(&self, number: u32, own: &Member) -> Result<(), Violation> {
        let known = own.heard.iter();
        known
            .into_iter()
            .try_for_each(|((sender, stint), known)| self.check_stint(*sender, *stint, *known))?;
        let nothing = HeardFrom { since: 0, due: None };
        for (sender, member) in &self.members {
            let is_there = member.gone.is_none() && *sender != number && member.room() == own.room();
            if is_there && !own.heard.contains_key(&(*sender, member.stint())) {
                self.check_stint(*sender, member.stint(), nothing)?;
            }
        }
        Ok(())
    }

    fn send_next(&mut self, key: &str, turn: &mut Turn<'_>) {
        let label = self.member(turn.number).next_label(turn.number, key.to_owned());
        self.excuse(&label, turn.now);
        turn.say(signal(&self.bodies, &label));
    }

    /// A signal need not come to those on other hosts that came into the room a moment ago, until one does.
    fn excuse(&mut self, label: &Label, now: Instant) {
        let sender = &self.members[&label.sender];
        let (host, stint) = (sender.host, sender.stint());
        if self.placing.hosts() == 1 || sender.room() != Some(&label.key) {
            return;
        }
        self.newcomers.retain(|(known_at, _)| now < *known_at);
        for (_, number) in &self.newcomers {
            let Some(member) = self.members.get_mut(number).filter(|member| member.gone.is_none()) else {
                continue;
            };
            if member.host != host && member.room() == Some(&label.key) {
                let nothing = HeardFrom { since: 0, due: None };
                let known = member.heard.entry((label.sender, stint)).or_insert(nothing);
                known.since = label.key_sequence + 1;
            }
        }
    }

    /// Another room that somebody is in.
    fn other_room(&self, number: u32) -> Option<String> {
        let own = self.members[&number].room();
        let mut others: Vec<_> = self.meetings.values().filter(|room| Some(room.as_str()) != own).collect();
        others.sort();
        let place = self.chance.below(others.len().max(1) as u32) as usize;
        others.get(place).map(|room| (*room).clone())
    }
}

impl super::Judge for Judge {
    fn drops(&self) -> &'static [DropKind] {
        &DROPS
    }

    fn opening(&mut self, index: usize, number: u32, _takes_over: Option<u32>) -> String {
        let host = self.placing.host(index, MEMBERS);
        self.members.insert(number, Member::new(index / MEMBERS, host));
        "/".to_owned()
    }

    fn opened(&mut self, turn: &mut Turn<'_>) {
        if self.chance.below(8) == 0 {
            self.send_next(NOWHERE, turn);
        }
        self.ask_for_meeting(turn);
    }

    fn hear(&mut self, message: &[u8], turn: &mut Turn<'_>) -> Result<(), Violation> {
        match Event::parse(message) {
            Event::Created { room_id, my_id } => {
                self.hear_entered(message, ("room_created", &room_id, &my_id), turn)
            }
            Event::Joined { room_id, my_id } => {
                self.hear_entered(message, ("room_joined", &room_id, &my_id), turn)
            }
            Event::Error { message: text } => self.hear_error(message, &text, turn),
            Event::Signal => self.hear_signal(message, turn),
            Event::Unknown => Err(Violation::Unknown { came: shown(message) }),
        }
    }

    fn ticks(&self) -> bool {
        true
    }

    /// Sends what may be under way. Nobody tells whether a signal has arrived but those who hear it.
    fn tick(&mut self, turn: &mut Turn<'_>) {
        let in_flight = self.in_flight;
        loop {
            let member = self.member(turn.number);
            if member.asked.is_some() || turn.winding_up {
                return;
            }
            let Some(room) = member.room().map(str::to_owned) else {
                return self.ask_again(turn);
            };
            let under_way = member.sequence() - member.seen.max(member.now().first);
            if under_way >= in_flight {
                if member.next_at.is_some_and(|next_at| turn.now < next_at) {
                    return;
                }
                // Perhaps nobody is there to hear it.
                member.seen = member.sequence();
            }
            member.next_at = Some(turn.now + ALONE);
            self.send_next(&room, turn);
        }
    }

    fn drop_out(&mut self, kind: DropKind, turn: &mut Turn<'_>) -> bool {
        let member = self.member(turn.number);
        let (Some(room), None) = (member.room().map(str::to_owned), &member.asked) else { return false };
        let asked = match kind {
            DropKind::Create => Asked::Create,
            DropKind::Rejoin => Asked::Join(room),
            // Room ids begin at 1000.
            DropKind::JoinNone => Asked::Join("0999".to_owned()),
            DropKind::Join => match self.other_room(turn.number) {
                Some(other) => Asked::Join(other),
                None => return false,
            },
            DropKind::Reset
            | DropKind::TcpClose
            | DropKind::WebSocketClose
            | DropKind::Takeover
            | DropKind::HostDied
            | DropKind::Next
            | DropKind::Leave => {
                member.gone = Some(kind);
                return true;
            }
        };
        self.ask(asked, turn);
        true
    }

    fn closed_unasked(&mut self, number: u32, ending: &Ending) -> Result<(), Violation> {
        let member = self.members.get_mut(&number).expect("every connection was opened");
        let room = member.room().and_then(|room| self.rooms.get_mut(room));
        match (ending, room) {
            (Ending::Closed(1000, reason), Some(room))
                if reason == "Room expired" && room.entered.elapsed() > LIFE_LEAST =>
            {
                self.expired += 1;
                self.life_min = self.life_min.min(room.entered.elapsed());
                room.is_expired = true;
                member.gone = Some(DropKind::Reset);
                Ok(())
            }
            _ => Err(Violation::Ended { how: format!("{ending:?}") }),
        }
    }

    fn ended(&mut self, number: u32, _now: Instant) {
        let member = self.member(number);
        member.gone.get_or_insert(DropKind::Reset);
        member.heard = BTreeMap::new();
    }

    fn died(&mut self, number: u32, now: Instant) {
        self.member(number).gone = Some(DropKind::HostDied);
        self.ended(number, now);
    }

    fn finish(&mut self, _pages: &[Option<&str>]) -> Result<(), Violation> {
        let live = self.members.iter().filter(|(_, member)| member.gone.is_none());
        live.into_iter().try_for_each(|(number, member)| self.check_heard(*number, member))
    }

    fn counts(&self) -> Vec<Count> {
        vec![
            ("messages", "signals heard", self.signals),
            ("rooms", "rooms", self.rooms.len() as u64),
            ("not_found", "rooms not found", self.not_found),
            ("expired", "closes of expired rooms", self.expired),
            ("no_rooms", "times that no room was free", self.no_rooms),
        ]
    }
}
