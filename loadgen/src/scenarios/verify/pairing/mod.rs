//! The judge of the pairing dialect (protocols.md sections 0 and 1).

mod checker;
mod registry;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use self::checker::{Checker, Departure, Heard};
use self::registry::Registry;
use super::MEMBERS;
use super::judge::{Count, DropKind, Turn};
use super::label::{Bodies, Label};
use super::violation::Violation;
use crate::dialects::pairing::{AVAILABLE, LEAVE, NEXT, PING};
use crate::net::spread::Placing;
use crate::payload::{Body, Role};

/// A ping behind every so many messages proves what the server has read.
const PING_EVERY: u32 = 4;
/// What two clients may take to be matched that both wait: the host of one that is asked before them may be dead, and
/// that takes 6 s to be noticed.
const WAIT_MAX: Duration = Duration::from_secs(8);
const DROPS: [DropKind; 5] =
    [DropKind::Reset, DropKind::TcpClose, DropKind::WebSocketClose, DropKind::Next, DropKind::Leave];

/// The judge.
pub(super) struct Judge {
    /// Of each host.
    paths: Vec<String>,
    placing: Placing,
    in_flight: usize,
    bodies: Bodies,
    registry: Registry,
    checkers: BTreeMap<u32, Checker>,
    /// Since when each client waits that does.
    waiting: BTreeMap<u32, Instant>,
    messages: u64,
}

/// The client message of a label: mostly as browsers write it, at times with blanks and in another order.
fn message(bodies: &Bodies, label: &Label) -> String {
    let Body { kind, field, opaque } = bodies.of(label);
    if label.sequence % 7 == 6 {
        format!("\n{{ \"{field}\" :{opaque},\t\"from\": \"somebody else\", \"type\" : \"{kind}\" }} ")
    } else {
        format!(r#"{{"type":"{kind}","{field}":{opaque}}}"#)
    }
}

impl Judge {
    pub(super) fn new(paths: Vec<String>, placing: Placing, in_flight: usize) -> Self {
        Self {
            paths,
            placing,
            in_flight,
            bodies: Bodies::new(),
            registry: Registry::default(),
            checkers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            messages: 0,
        }
    }

    fn react(&mut self, heard: Heard, turn: &mut Turn<'_>) -> Result<(), Violation> {
        match heard {
            Heard::Ready => self.on_ready(turn),
            Heard::Matched => self.on_matched(turn)?,
            Heard::Message { label, first, carried } => self.on_label(turn, label, first, carried)?,
            Heard::PartnerLeft { room_id, read_below } => {
                self.registry.ended(turn.number, room_id, read_below);
                self.ask_for_partner(turn);
            }
            Heard::Departed => self.ask_for_partner(turn),
            Heard::RateLimited => return Err(Violation::RateLimited),
            Heard::Nothing => {}
        }
        Ok(())
    }

    fn on_ready(&mut self, turn: &mut Turn<'_>) {
        self.registry.ready(turn.number, self.checkers[&turn.number].id());
        turn.arrived = true;
        self.wait(turn);
    }

    fn wait(&mut self, turn: &mut Turn<'_>) {
        self.waiting.insert(turn.number, turn.now);
        turn.say(AVAILABLE);
    }

    fn on_matched(&mut self, turn: &mut Turn<'_>) -> Result<(), Violation> {
        self.waiting.remove(&turn.number);
        let checker = &self.checkers[&turn.number];
        let Some(room) = checker.room() else { return Ok(()) };
        self.registry.matched(checker.id(), room, turn.now, turn.told_within)?;
        let own = match Role::of(checker.id(), &room.partner_id) {
            Role::Caller => self.in_flight.div_ceil(2),
            Role::Callee => self.in_flight / 2,
        };
        (0..own).for_each(|_| self.send_next(turn));
        Ok(())
    }

    fn on_label(
        &mut self,
        turn: &mut Turn<'_>,
        label: Label,
        first: bool,
        carried: bool,
    ) -> Result<(), Violation> {
        self.messages += 1;
        if let Some(room) = self.checkers[&turn.number].room() {
            if first {
                self.registry.sender(&label, &room.partner_id)?;
            }
            if carried {
                self.registry.carried(label, &room.id);
                return Ok(());
            }
        }
        self.send_next(turn);
        Ok(())
    }

    fn send_next(&mut self, turn: &mut Turn<'_>) {
        let Some(checker) = self.checkers.get_mut(&turn.number).filter(|_| !turn.winding_up) else { return };
        let Some(label) = checker.next_label() else { return };
        turn.say(message(&self.bodies, &label));
        if label.sequence % PING_EVERY == PING_EVERY - 1 {
            checker.pinged();
            turn.say(PING);
        }
    }

    fn ask_for_partner(&mut self, turn: &mut Turn<'_>) {
        let checker = &self.checkers[&turn.number];
        if checker.room().is_none() && !checker.is_departing() {
            self.wait(turn);
        }
    }

    /// Of those who wait for long there is one at most.
    fn check_waiting(&self, now: Instant) -> Result<(), Violation> {
        let ms = |since: Instant| now.saturating_duration_since(since).as_millis() as u64;
        let late = self.waiting.iter().filter(|(_, since)| ms(**since) > WAIT_MAX.as_millis() as u64);
        let late: Vec<_> = late.collect();
        if late.len() < 2 {
            return Ok(());
        }
        let ids: Vec<_> = late.iter().map(|(number, _)| self.checkers[number].id()).collect();
        let least = late.iter().map(|(_, since)| ms(**since)).min().unwrap_or(0);
        Err(Violation::NotMatched { waiting: ids.join(", "), ms: least })
    }
}

impl super::Judge for Judge {
    fn drops(&self) -> &'static [DropKind] {
        &DROPS
    }

    fn opening(&mut self, index: usize, number: u32, _takes_over: Option<u32>) -> String {
        self.checkers.insert(number, Checker::new(number));
        self.paths[self.placing.host(index, MEMBERS)].clone()
    }

    fn opened(&mut self, _turn: &mut Turn<'_>) {}

    fn hear(&mut self, message: &[u8], turn: &mut Turn<'_>) -> Result<(), Violation> {
        let Some(checker) = self.checkers.get_mut(&turn.number) else { return Ok(()) };
        let heard = checker.hear(message, &self.bodies)?;
        self.react(heard, turn)
    }

    fn drop_out(&mut self, kind: DropKind, turn: &mut Turn<'_>) -> bool {
        let Some(checker) = self.checkers.get_mut(&turn.number) else { return false };
        if checker.is_departing() || checker.id().is_empty() {
            return false;
        }
        self.waiting.remove(&turn.number);
        match kind {
            DropKind::Next => {
                checker.departs(Departure::Next);
                [PING, NEXT, PING].into_iter().for_each(|word| turn.say(word));
            }
            DropKind::Leave => {
                checker.departs(Departure::Leave);
                [LEAVE, PING].into_iter().for_each(|word| turn.say(word));
            }
            _ => {}
        }
        true
    }

    fn ended(&mut self, number: u32, now: Instant) {
        self.waiting.remove(&number);
        if let Some(checker) = self.checkers.remove(&number) {
            self.registry.gone(checker.id(), now);
        }
    }

    fn died(&mut self, number: u32, now: Instant) {
        self.waiting.remove(&number);
        self.checkers.remove(&number);
        self.registry.died(number, now);
    }

    fn check_deaths(&mut self, died_before: Option<Instant>, now: Instant) -> Result<(), Violation> {
        let Some(died_before) = died_before else { return Ok(()) };
        self.check_waiting(now)?;
        let rooms = self.checkers.values().filter_map(|checker| Some((checker.id(), checker.room()?)));
        let mut believed = rooms.filter(|(_, room)| self.registry.has_died(&room.partner_id, died_before));
        believed.next().map_or(Ok(()), |(id, room)| {
            let (whose, dead) = (format!("the client {id}"), format!("its partner {}", room.partner_id));
            Err(Violation::NotTold { whose, dead })
        })
    }

    fn finish(&mut self, _pages: &[Option<&str>]) -> Result<(), Violation> {
        for checker in self.checkers.values() {
            if let Some(room) = checker.room() {
                self.registry.last_seen(checker.id(), room);
            }
        }
        self.registry.check_all()
    }

    fn counts(&self) -> Vec<Count> {
        let (rooms, carried) = self.registry.counts();
        vec![
            ("messages", "messages", self.messages),
            ("rooms", "rooms", rooms as u64),
            ("messages_carried", "messages read in the next room", carried as u64),
        ]
    }
}
