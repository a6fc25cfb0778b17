//! The judge of the rendezvous dialect (protocols.md section 2).
//!
//! A client is not told its own id. Who has which is learned from the messages: each says which connection sent it, and
//! for which id; from then on the two belong together.

mod seat;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use self::seat::{Due, Peer, Seat, Stream};
use super::MEMBERS;
use super::claims::Claims;
use super::judge::{Count, DropKind, Turn};
use super::label::{Bodies, Label};
use super::violation::{Violation, is_exactly, shown};
use crate::dialects::Seat as Place;
use crate::dialects::rendezvous::{Event, path};
use crate::net::spread::Placing;
use crate::prng::Prng;

/// One in so many messages goes to one who must not get it.
const BOGUS_EVERY: u32 = 16;
/// One in so many messages is wrong.
const WRONG_EVERY: u32 = 32;

/// The judge.
pub(super) struct Judge {
    /// Whether counterparts are on different hosts. One who has arrived on its own host is then not yet announced on the
    /// others: the order of the announcements is not known, nor whether one is told of somebody who leaves at once.
    is_across: bool,
    in_flight: usize,
    bodies: Bodies,
    chance: Prng,
    /// Whether clients also send to those who must not get it, and what is wrong.
    is_odd: bool,
    /// Counts what happens, so that two events have an order.
    clock: u64,
    seats: BTreeMap<u32, Seat>,
    groups: HashMap<usize, Vec<u32>>,
    /// The connection behind each id, once it is known.
    ids: BTreeMap<String, u32>,
    /// Whom it was told that this id is gone.
    claims: Claims<(u32, String)>,
    messages: u64,
    announcements: u64,
    missing: u64,
}

impl Judge {
    pub(super) fn new(placing: Placing, in_flight: usize) -> Self {
        Self {
            is_across: placing.is_across(),
            in_flight: in_flight.div_ceil(2),
            bodies: Bodies::new(),
            chance: Prng::from_entropy(),
            is_odd: true,
            clock: 0,
            seats: BTreeMap::new(),
            groups: HashMap::new(),
            ids: BTreeMap::new(),
            claims: Claims::default(),
            messages: 0,
            announcements: 0,
            missing: 0,
        }
    }

    fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn seat(&mut self, number: u32) -> &mut Seat {
        self.seats.get_mut(&number).expect("every connection was opened")
    }

    /// The clients of the other role on the same connection id, whatever became of them.
    fn others(&self, number: u32) -> impl Iterator<Item = (u32, &Seat)> {
        let own = &self.seats[&number];
        let group = self.groups.get(&own.group).into_iter().flatten();
        group.map(|other| (*other, &self.seats[other])).filter(|(_, seat)| seat.role != own.role)
    }

    /// This id belongs to this connection, as it always did.
    fn bind(&mut self, id: &str, number: u32) -> Result<(), Violation> {
        let known = *self.ids.entry(id.to_owned()).or_insert(number);
        let own = self.seat(number).id.get_or_insert_with(|| id.to_owned()).clone();
        if known == number && own == id {
            return Ok(());
        }
        let from = format!("{id} (connection {known:08x})");
        Err(Violation::WrongSender { from, partner: format!("{own} (connection {number:08x})") })
    }

    fn hear_announced(&mut self, number: u32, id: &str, already: bool) -> Result<(), Violation> {
        self.announcements += 1;
        let who = id.to_owned();
        if self.seat(number).peers.contains_key(id) {
            return Err(Violation::AnnouncedTwice { who });
        }
        if let Some(other) = self.ids.get(id)
            && !self.others(number).any(|(known, _)| known == *other)
        {
            return Err(Violation::WrongKey { label: who, key: format!("connection {number:08x}") });
        }
        let is_across = self.is_across;
        let seat = self.seat(number);
        if !is_across && already && seat.peers.values().any(|peer| !peer.already) {
            let how = format!("{id} is said to be there already, but others have come since");
            return Err(Violation::WrongPresence { how });
        }
        seat.peers.insert(who, Peer { already, here: true });
        Ok(())
    }

    fn hear_disconnected(&mut self, id: &str, turn: &Turn<'_>) -> Result<(), Violation> {
        let number = turn.number;
        self.check_gone(id, turn)?;
        match self.seat(number).peers.get_mut(id) {
            Some(peer) if peer.here => {
                peer.here = false;
                Ok(())
            }
            Some(_) | None => {
                Err(Violation::WrongPresence { how: format!("{id} is gone, but was not there") })
            }
        }
    }

    /// Whether the client with this id has dropped out, as far as one can tell.
    fn may_be_gone(&self, number: u32, id: &str) -> bool {
        match self.ids.get(id) {
            Some(known) => !self.seats[known].is_live(),
            None => self.others(number).any(|(_, seat)| seat.id.is_none() && !seat.is_live()),
        }
    }

    /// Somebody is told that the client with this id is gone. Its host may have stopped, which is seen later.
    fn check_gone(&mut self, id: &str, turn: &Turn<'_>) -> Result<(), Violation> {
        if !self.may_be_gone(turn.number, id) {
            if turn.told_within.is_none() {
                return Err(Violation::StillThere { who: id.to_owned() });
            }
            self.claims.note(turn.now, (turn.number, id.to_owned()));
        }
        Ok(())
    }

    /// Whether the host of the client with this id died.
    fn has_died(&self, id: &str) -> bool {
        let seat = self.ids.get(id).map(|known| &self.seats[known]);
        seat.is_some_and(Seat::has_died)
    }

    fn hear_data(&mut self, message: &[u8], turn: &Turn<'_>) -> Result<(), Violation> {
        let changed = || Violation::Changed { came: shown(message) };
        let label = Label::find(message).ok_or_else(changed)?;
        let sender = self.seats.get(&label.sender).ok_or_else(changed)?;
        let sent = words::message(&self.bodies, &label, sender.role);
        let from = words::sender_of(message, &sent, &label)?;
        let own = &self.seats[&turn.number];
        if sender.group != own.group || sender.role == own.role {
            let key = format!("connection {:08x}, of another id or of the same role", turn.number);
            return Err(Violation::WrongKey { label: label.to_string(), key });
        }
        if !own.peers.get(from).is_some_and(|peer| peer.here) {
            return Err(Violation::Stranger { from: from.to_owned() });
        }
        self.bind(from, label.sender)?;
        self.bind(&label.key, turn.number)?;
        self.messages += 1;
        let stream = self.seat(label.sender).streams.get_mut(&label.key).ok_or_else(changed)?;
        label.is_due(stream.arrived)?;
        stream.arrived += 1;
        if stream.arrived > stream.sent {
            return Err(changed());
        }
        if stream.missing_from.is_some_and(|missing| missing <= label.key_sequence) {
            return Err(Violation::FalseAnswer { label: label.to_string(), told: "missing" });
        }
        Ok(())
    }

    /// Answers come in the order of the messages.
    fn hear_answer(&mut self, message: &[u8], event: &Event<'_>, turn: &Turn<'_>) -> Result<(), Violation> {
        let number = turn.number;
        let came = || shown(message);
        let due = self.seat(number).due.pop_front();
        let Some(Due::Message { request, target, number: sequence }) = due else {
            return match due {
                Some(Due::Exactly(answer)) => is_exactly(message, &answer),
                _ => Err(Violation::WrongAnswer { came: came(), due: "nothing".to_owned() }),
            };
        };
        let wrong = || Violation::WrongAnswer { came: came(), due: request.clone() };
        let is_confirmed = match event {
            Event::Confirmation(answered) if *answered == request => true,
            Event::Missing(answered) if *answered == request => false,
            _ => return Err(wrong()),
        };
        let info = if is_confirmed { "confirmation" } else { "missingRemoteClientError" };
        is_exactly(message, &format!(r#"{{"info":"{info}","requestId":"{request}"}}"#))?;
        self.settle(turn, &target, sequence, is_confirmed)
    }

    fn settle(
        &mut self,
        turn: &Turn<'_>,
        target: &str,
        sequence: u32,
        is_confirmed: bool,
    ) -> Result<(), Violation> {
        let number = turn.number;
        let is_seen = self.may_be_gone(number, target);
        let is_bogus = self.seat(number).streams.get(target).is_some_and(|stream| stream.bogus);
        if !is_confirmed && !is_bogus {
            self.check_gone(target, turn)?;
        }
        let has_died = self.has_died(target) || !is_seen;
        let how = self.ids.get(target).and_then(|known| self.seats[known].dropped).map(|(kind, _)| kind);
        let stream = self.seat(number).streams.entry(target.to_owned()).or_default();
        let label = format!("number {sequence:08x} of connection {number:08x} for {target} (gone: {how:?})");
        if is_confirmed {
            if stream.bogus || stream.missing_from.is_some() {
                return Err(Violation::FalseAnswer { label, told: "confirmation" });
            }
            stream.confirmed = sequence + 1;
            return Ok(());
        }
        // Who dies has no time to say what came.
        if stream.arrived > sequence && !has_died {
            return Err(Violation::FalseAnswer { label, told: "missing" });
        }
        stream.missing_from.get_or_insert(sequence);
        self.missing += 1;
        Ok(())
    }

    /// Sends as much as may be under way.
    fn fill(&mut self, turn: &mut Turn<'_>) {
        let in_flight = self.in_flight;
        while !turn.winding_up
            && self.seat(turn.number).is_live()
            && self.seat(turn.number).due.len() < in_flight
        {
            if !self.send_next(turn) {
                break;
            }
        }
    }

    fn send_next(&mut self, turn: &mut Turn<'_>) -> bool {
        let here = |(id, peer): (&String, &Peer)| peer.here.then(|| id.clone());
        let here: Vec<_> = self.seat(turn.number).peers.iter().filter_map(here).collect();
        if here.is_empty() {
            return false;
        }
        let target = here[self.chance.below(here.len() as u32) as usize].clone();
        let is_one_in = |every| self.is_odd && self.chance.below(every) == 0;
        let bogus = is_one_in(BOGUS_EVERY).then(|| self.bogus_target(turn.number)).flatten();
        let is_wrong = is_one_in(WRONG_EVERY);
        let is_bogus = bogus.is_some();
        let seat = self.seat(turn.number);
        let (role, sequence) = (seat.role, seat.sequence);
        seat.sequence += 1;
        let key = bogus.unwrap_or(target);
        let mut label = Label { sender: turn.number, sequence, key_sequence: 0, key };
        if is_wrong {
            let (text, answer) = words::wrong(&label);
            seat.due.push_back(Due::Exactly(answer));
            turn.say(text);
            return true;
        }
        let stream = seat.streams.entry(label.key.clone()).or_default();
        // Who is gone stays gone, so that all that follows must not arrive either.
        stream.bogus |= is_bogus;
        label.key_sequence = stream.sent;
        stream.sent += 1;
        let request = words::request_id(&label);
        seat.due.push_back(Due::Message { request, target: label.key.clone(), number: label.key_sequence });
        turn.say(words::message(&self.bodies, &label, role));
        true
    }

    /// Somebody who must not be reached: oneself, one of the same role, of another connection id, gone, or nobody.
    fn bogus_target(&self, number: u32) -> Option<String> {
        let own = &self.seats[&number];
        let choice = self.chance.next_u32();
        let gone = own.peers.iter().find(|(_, peer)| !peer.here).map(|(id, _)| id.clone());
        let unreachable = |(id, known): (&String, &u32)| {
            let seat = &self.seats[known];
            (seat.group != own.group || seat.role == own.role).then(|| id.clone())
        };
        match choice % 3 {
            0 => gone,
            1 => {
                let skip = self.chance.below(self.ids.len().max(1) as u32) as usize;
                self.ids.iter().skip(skip).find_map(unreachable)
            }
            _ => Some(format!("{choice:08x}-58be-4e27-8f57-7e5d9b1a2c33")),
        }
    }

    /// Everybody knows exactly those that are there, and was told of everybody who came while it was there.
    fn check_presence(&self, number: u32, own: &Seat) -> Result<(), Violation> {
        let wrong = |is: String, due: String| {
            Err(Violation::WrongList { whose: format!("connection {number:08x}"), is, due })
        };
        let here: Vec<_> = own.peers.iter().filter(|(_, peer)| peer.here).map(|(id, _)| id).collect();
        let live = self.others(number).filter(|(_, seat)| seat.is_live()).count();
        if here.len() != live {
            return wrong(format!("{here:?}"), format!("{live} clients"));
        }
        if let Some(gone) =
            here.iter().find(|id| self.ids.get(**id).is_some_and(|known| !self.seats[known].is_live()))
        {
            return wrong(format!("{gone}, who has gone"), "those that are there".to_owned());
        }
        let opened_at = own.opened_at.unwrap_or(u64::MAX);
        let came = |seat: &Seat| {
            let was_there = |(_, dropped_at)| dropped_at > opened_at && !self.is_across;
            seat.opened_at.is_some() && seat.dropped.is_none_or(was_there)
        };
        let due = self.others(number).filter(|(_, seat)| came(seat)).count();
        if own.peers.len() < due {
            return wrong(format!("{} announcements", own.peers.len()), format!("{due} at least"));
        }
        own.peers.iter().try_for_each(|(id, peer)| self.check_announcement(own, id, *peer))
    }

    /// Who was there before is said to be there already; who came after has just connected.
    fn check_announcement(&self, own: &Seat, id: &str, peer: Peer) -> Result<(), Violation> {
        let Some(other) = self.ids.get(id).map(|known| &self.seats[known]) else { return Ok(()) };
        let before =
            |one: &Seat, two: &Seat| one.opened_at.is_some_and(|opened_at| opened_at < two.opening_at);
        let is_wrong = if peer.already { before(own, other) } else { before(other, own) };
        if is_wrong && !self.is_across {
            let how = format!("{id}: said to be there already: {}; the opposite is true", peer.already);
            return Err(Violation::WrongPresence { how });
        }
        Ok(())
    }

    fn check_streams(&self, number: u32, own: &Seat) -> Result<(), Violation> {
        if let (true, Some(due)) = (own.is_live(), own.due.front()) {
            return Err(Violation::Unanswered { due: format!("{due:?} of connection {number:08x}") });
        }
        own.streams.iter().try_for_each(|(target, stream)| {
            let receiver = self.ids.get(target).map(|known| &self.seats[known]);
            let is_there = match receiver {
                Some(seat) => seat.is_live(),
                None => own.is_live() && own.peers.get(target).is_some_and(|peer| peer.here),
            };
            if receiver.is_some_and(Seat::has_died) {
                return Ok(());
            }
            self.check_stream(own, stream, is_there).map_err(|due| Violation::NotArrived {
                room: format!("connection {number:08x} for {target}"),
                sent: due,
                arrived: stream.arrived,
            })
        })
    }

    /// How many should have arrived, where that is not so.
    fn check_stream(&self, own: &Seat, stream: &Stream, is_there: bool) -> Result<(), u32> {
        let all_read = own.is_live() || own.dropped.is_some_and(|(kind, _)| kind == DropKind::WebSocketClose);
        let due = match (is_there, all_read) {
            (true, true) if !stream.bogus => Some(stream.missing_from.unwrap_or(stream.sent)),
            (true, false) if stream.arrived < stream.confirmed => Some(stream.confirmed),
            (false, _) if own.is_live() && stream.arrived > stream.confirmed => Some(stream.confirmed),
            _ => None,
        };
        match due {
            Some(due) if due != stream.arrived => Err(due),
            Some(_) | None => Ok(()),
        }
    }
}

impl super::Judge for Judge {
    fn drops(&self) -> &'static [DropKind] {
        &DropKind::ENDS
    }

    fn opening(&mut self, index: usize, number: u32, _takes_over: Option<u32>) -> String {
        let place = Place::of(index, MEMBERS);
        let seat = Seat {
            group: place.group,
            role: place.member % 2,
            id: None,
            opening_at: self.now(),
            opened_at: None,
            dropped: None,
            died_at: None,
            peers: BTreeMap::new(),
            streams: BTreeMap::new(),
            due: VecDeque::new(),
            sequence: 0,
        };
        self.seats.insert(number, seat);
        self.groups.entry(place.group).or_default().push(number);
        path(&place.connection_id(), place.member)
    }

    fn opened(&mut self, turn: &mut Turn<'_>) {
        let now = self.now();
        self.seat(turn.number).opened_at = Some(now);
        turn.arrived = true;
    }

    fn hear(&mut self, message: &[u8], turn: &mut Turn<'_>) -> Result<(), Violation> {
        let presence = |info: &str, id: &str| {
            is_exactly(message, &format!(r#"{{"info":"{info}","remoteClientId":"{id}"}}"#))
        };
        match Event::parse(message) {
            Event::AlreadyConnected(id) => {
                presence("remoteClientIsAlreadyConnected", &id)?;
                self.hear_announced(turn.number, &id, true)?;
            }
            Event::JustConnected(id) => {
                presence("remoteClientJustConnected", &id)?;
                self.hear_announced(turn.number, &id, false)?;
            }
            Event::Disconnected(id) => {
                presence("remoteClientDisconnected", &id)?;
                self.hear_disconnected(&id, turn)?;
            }
            Event::RemoteData => self.hear_data(message, turn)?,
            event @ (Event::Confirmation(_) | Event::Missing(_) | Event::Invalid) => {
                self.hear_answer(message, &event, turn)?;
            }
            Event::Unknown => return Err(Violation::Unknown { came: shown(message) }),
        }
        self.fill(turn);
        Ok(())
    }

    fn drop_out(&mut self, kind: DropKind, turn: &mut Turn<'_>) -> bool {
        let now = self.now();
        self.seat(turn.number).dropped = Some((kind, now));
        true
    }

    fn ended(&mut self, _number: u32, _now: Instant) {}

    fn died(&mut self, number: u32, now: Instant) {
        let at = self.now();
        let seat = self.seat(number);
        seat.dropped = Some((DropKind::HostDied, at));
        seat.died_at = Some(now);
    }

    fn check_deaths(&mut self, died_before: Option<Instant>, now: Instant) -> Result<(), Violation> {
        let mut claims = std::mem::take(&mut self.claims);
        let lie = claims.settle(now, |(number, id)| self.may_be_gone(*number, id));
        self.claims = claims;
        if let Some((_, who)) = lie {
            return Err(Violation::StillThere { who });
        }
        let Some(died_before) = died_before else { return Ok(()) };
        let died = |id: &&String| {
            let seat = self.ids.get(*id).map(|known| &self.seats[known]);
            seat.and_then(|seat| seat.died_at).is_some_and(|died_at| died_at < died_before)
        };
        for (number, seat) in self.seats.iter().filter(|(_, seat)| seat.is_live()) {
            let mut here = seat.peers.iter().filter(|(_, peer)| peer.here).map(|(id, _)| id);
            if let Some(dead) = here.find(died) {
                let (whose, dead) = (format!("connection {number:08x}"), dead.clone());
                return Err(Violation::NotTold { whose, dead });
            }
        }
        Ok(())
    }

    fn finish(&mut self, _pages: &[Option<&str>]) -> Result<(), Violation> {
        let mut claims = std::mem::take(&mut self.claims);
        if let Some((_, who)) = claims.finish(|(number, id)| self.may_be_gone(*number, id)) {
            return Err(Violation::StillThere { who });
        }
        self.seats.iter().try_for_each(|(number, seat)| {
            if seat.is_live() {
                self.check_presence(*number, seat)?;
            }
            self.check_streams(*number, seat)
        })
    }

    fn counts(&self) -> Vec<Count> {
        vec![
            ("messages", "messages", self.messages),
            ("announcements", "announcements", self.announcements),
            ("missing", "messages to somebody who is not there", self.missing),
        ]
    }
}
