//! The judge of the directory dialect (protocols.md section 3).
//!
//! Most sessions have a name that nobody else ever has: it is those that are sent to. Some take again the name that the
//! client had before, some try one of those while somebody has it, or one that may not be.

mod lists;
mod session;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use self::session::{Gone, Login, Session};
use self::words::Asking;
use super::claims::Claims;
use super::judge::{Count, DropKind, Turn};
use super::label::{Bodies, Label};
use super::violation::{Violation, is_exactly, shown};
use crate::client::Ending;
use crate::dialects::directory::{Event, PING};
use crate::net::spread::Placing;
use crate::prng::Prng;

/// The least time between two messages of a client. The limit is 50 a second; what the server has not read yet, because
/// it stood still, must fit into it as well.
const SPACING: Duration = Duration::from_millis(50);
/// A ping behind every so many messages.
const PING_EVERY: u32 = 4;
/// With so many pings unanswered nothing is sent.
const PINGS_MAX: u32 = 3;
/// Broadcasts that may be heard in a second, over all clients.
const BROADCASTS_HEARD_PER_S: f64 = 20_000.0;
/// What it may take a server to notice that a client is gone.
const NOTICE: Duration = Duration::from_secs(2);

/// How names begin that one session has, and no other after it.
const UNIQUE: &str = "n-";
/// How names begin that a client takes again and again.
const AGAIN: &str = "again-";

/// The judge.
pub(super) struct Judge {
    placing: Placing,
    bodies: Bodies,
    chance: Prng,
    /// Whether clients also ask for names that they cannot have, and send to nobody.
    is_odd: bool,
    /// Whether the list is in the order of the logins: not where Redis comes back empty.
    is_ordered: bool,
    /// Share of messages that go to everybody.
    broadcast_share: f64,
    /// Counts what happens, so that two events have an order.
    clock: u64,
    sessions: BTreeMap<u32, Session>,
    /// Those that are logged in for certain.
    live: BTreeSet<u32>,
    /// The sessions that asked for a name.
    askers: HashMap<String, Vec<u32>>,
    /// The sessions that somebody was told to be gone.
    claims: Claims<u32>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    messages: u64,
    broadcasts: u64,
    logins: u64,
    refused: u64,
    notices: u64,
    not_found: u64,
}

impl Judge {
    pub(super) fn new(placing: Placing, clients: usize, is_ordered: bool) -> Self {
        let heard_per_s = clients as f64 * clients as f64 / SPACING.as_secs_f64();
        Self {
            placing,
            bodies: Bodies::new(),
            chance: Prng::from_entropy(),
            is_odd: true,
            is_ordered,
            broadcast_share: (BROADCASTS_HEARD_PER_S / heard_per_s).min(0.1),
            clock: 0,
            sessions: BTreeMap::new(),
            live: BTreeSet::new(),
            askers: HashMap::new(),
            claims: Claims::default(),
            counts: Counts::default(),
        }
    }

    fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn session(&mut self, number: u32) -> &mut Session {
        self.sessions.get_mut(&number).expect("every connection was opened")
    }

    fn holders(&self, name: &str) -> impl Iterator<Item = (u32, &Session)> {
        let askers = self.askers.get(name).into_iter().flatten();
        askers.map(|number| (*number, &self.sessions[number]))
    }

    fn live(&self) -> impl Iterator<Item = (u32, &Session)> {
        self.live.iter().map(|number| (*number, &self.sessions[number]))
    }

    fn ask_for_name(&mut self, turn: &mut Turn<'_>) {
        let choice = if self.is_odd && !turn.winding_up { self.chance.below(16) } else { 15 };
        let at = self.now();
        let own = format!("{UNIQUE}{:08x}", turn.number);
        let name = match choice {
            0 => {
                turn.say(words::bad_login(self.chance.next_u32()));
                self.session(turn.number).login = Login::Bad;
                return;
            }
            1..=2 => self.dead(AGAIN).or_else(|| self.somebody()).unwrap_or(own),
            3..=5 => format!("{AGAIN}{}", self.session(turn.number).index),
            _ => own,
        };
        let asking = match choice {
            6 => Asking::Id,
            7 => Asking::Blanks,
            _ => Asking::Name,
        };
        self.askers.entry(name.clone()).or_default().push(turn.number);
        turn.say(words::login(&name, asking));
        self.session(turn.number).login = Login::Asked { name, at, since: turn.now };
    }

    fn hear_success(
        &mut self,
        message: &[u8],
        clients: &[String],
        turn: &mut Turn<'_>,
    ) -> Result<(), Violation> {
        let Login::Asked { name, at, .. } = self.session(turn.number).login.clone() else {
            return Err(Violation::Unknown { came: shown(message) });
        };
        if self.session(turn.number).is_early {
            return Err(Violation::Unanswered { due: "the ping before the login".to_owned() });
        }
        let list = clients.join(r#"",""#);
        is_exactly(message, &format!(r#"{{"type":"login_success","id":"{name}","clients":["{list}"]}}"#))?;
        if self.check_gone(&name, turn).is_err() {
            return Err(Violation::NotUnique { what: format!("the name {name}") });
        }
        self.check_list(&name, at, clients, turn)?;
        let now = self.now();
        self.live.insert(turn.number);
        let session = self.session(turn.number);
        session.login = Login::In { name, asked_at: at, since: now };
        clients.iter().for_each(|client| session.learn(client));
        self.counts.logins += 1;
        turn.arrived = true;
        Ok(())
    }

    fn hear_connected(&mut self, peer: &str, number: u32) -> Result<(), Violation> {
        self.counts.notices += 1;
        if self.holders(peer).next().is_none() {
            return Err(Violation::Stranger { from: peer.to_owned() });
        }
        let session = self.session(number);
        if session.name().is_none() {
            let how = format!("{peer} was announced before the login");
            return Err(Violation::WrongPresence { how });
        }
        if session.view.contains_key(peer) {
            return Err(Violation::AnnouncedTwice { who: peer.to_owned() });
        }
        session.learn(peer);
        Ok(())
    }

    fn hear_disconnected(&mut self, peer: &str, turn: &Turn<'_>) -> Result<(), Violation> {
        let number = turn.number;
        self.counts.notices += 1;
        let Some(left) = self.session(number).view.remove(peer) else {
            return Err(Violation::WrongPresence { how: format!("{peer} is gone, but was not there") });
        };
        let is_gone = |(_, session): (u32, &Session)| session.gone.is_some();
        if !self.holders(peer).any(is_gone) {
            return self.check_gone(peer, turn);
        }
        let mut gone = self.holders(peer).filter(|(_, session)| session.gone.is_some());
        let (Some((sender, session)), more) = (gone.next(), gone.next()) else {
            return Err(Violation::StillThere { who: peer.to_owned() });
        };
        let own = self.sessions[&number].name().unwrap_or_default();
        let sent = session.streams.get(own).map_or(0, |stream| stream.sent);
        let in_order = session.gone.is_some_and(|gone| gone.kind == DropKind::WebSocketClose);
        if more.is_none() && in_order && session.name() == Some(peer) && left.targeted_due < sent {
            let room = format!("connection {sender:08x} for {own}, before its close");
            return Err(Violation::NotArrived { room, sent, arrived: left.targeted_due });
        }
        Ok(())
    }

    fn hear_error(
        &mut self,
        message: &[u8],
        error: &str,
        target: &str,
        turn: &Turn<'_>,
    ) -> Result<(), Violation> {
        let simple = |error: &str| is_exactly(message, &format!(r#"{{"type":"error","error":"{error}"}}"#));
        let groundless = || Violation::Error { code: error.to_owned() };
        match (error, self.session(turn.number).login.clone()) {
            ("not_logged_in", Login::Asked { .. } | Login::Bad) if self.session(turn.number).is_early => {
                self.session(turn.number).is_early = false;
                simple(error)
            }
            ("name_taken", Login::Asked { name, since, .. }) => {
                let others = self.holders(&name).filter(|(number, _)| *number != turn.number);
                let known: Vec<_> =
                    others.map(|(number, session)| (number, session.hold_at(since))).collect();
                let may_be_taken =
                    known.iter().any(|(_, hold)| hold.may_last(NOTICE, turn.told_within.unwrap_or(NOTICE)));
                let groundless =
                    || Violation::Error { code: format!("name_taken: {name}, held by {known:?}") };
                self.session(turn.number).login =
                    Login::Refused { code: 4000, reason: "Client name already taken" };
                self.counts.refused += 1;
                if may_be_taken { simple(error) } else { Err(groundless()) }
            }
            ("invalid_name", Login::Bad) => {
                self.session(turn.number).login =
                    Login::Refused { code: 4001, reason: "Invalid client name" };
                self.counts.refused += 1;
                simple(error)
            }
            ("target_not_found", Login::In { .. }) => {
                is_exactly(
                    message,
                    &format!(r#"{{"type":"error","error":"target_not_found","target":"{target}"}}"#),
                )?;
                self.hear_not_found(target, turn)
            }
            _ => Err(groundless()),
        }
    }

    fn hear_not_found(&mut self, target: &str, turn: &Turn<'_>) -> Result<(), Violation> {
        self.counts.not_found += 1;
        self.check_gone(target, turn)?;
        match self.session(turn.number).streams.get_mut(target) {
            Some(stream) if stream.refused + stream.arrived < stream.sent => {
                stream.refused += 1;
                Ok(())
            }
            Some(_) | None => Err(Violation::Error { code: format!("target_not_found for {target}") }),
        }
    }

    /// Who a message is from: a name that one has been told of.
    fn hear_from<'a>(
        &self,
        from: Option<&'a str>,
        message: &[u8],
        number: u32,
    ) -> Result<&'a str, Violation> {
        let from = from.ok_or_else(|| Violation::Unknown { came: shown(message) })?;
        if !self.sessions[&number].view.contains_key(from) {
            return Err(Violation::Stranger { from: from.to_owned() });
        }
        Ok(from)
    }

    fn hear_relay(&mut self, message: &[u8], number: u32) -> Result<(), Violation> {
        let changed = || Violation::Changed { came: shown(message) };
        let text = std::str::from_utf8(message).map_err(|_| changed())?;
        if let Some(from) = words::broadcaster(text) {
            return self.hear_broadcast(text, from, number);
        }
        let from = self.hear_from(words::relayer(text), message, number)?;
        let label = Label::find(message).ok_or_else(changed)?;
        words::check_relay(message, &self.bodies, &label, from)?;
        let own = self.sessions[&number].name().unwrap_or_default().to_owned();
        if label.key != own {
            return Err(Violation::WrongKey { label: label.to_string(), key: own });
        }
        self.check_sender(&label, from)?;
        let peer = self.session(number).view.get_mut(from).ok_or_else(changed)?;
        label.is_due(peer.targeted_due)?;
        peer.targeted_due += 1;
        peer.is_behind(&label)?;
        self.counts.messages += 1;
        let stream = self.session(label.sender).streams.get_mut(&own).ok_or_else(changed)?;
        stream.arrived += 1;
        if stream.arrived + stream.refused > stream.sent {
            return Err(Violation::FalseAnswer { label: label.to_string(), told: "target_not_found" });
        }
        Ok(())
    }

    fn hear_broadcast(&mut self, text: &str, from: &str, number: u32) -> Result<(), Violation> {
        let changed = || Violation::Changed { came: shown(text.as_bytes()) };
        self.hear_from(Some(from), text.as_bytes(), number)?;
        let own = self.sessions[&number].name().unwrap_or_default().to_owned();
        if own == from {
            return Err(Violation::Self_);
        }
        self.counts.broadcasts += 1;
        let peer = self.sessions[&number].view[from];
        let Some(label) = Label::find(text.as_bytes()) else {
            // Without a label it must be the one that is due; before the first with a label nothing is known.
            let Some((sender, due)) = peer.broadcast_due else { return Ok(()) };
            let label = Label { sender, sequence: 0, key_sequence: due, key: String::new() };
            is_exactly(text.as_bytes(), &words::broadcast_heard(&label, from))?;
            self.session(number).view.get_mut(from).ok_or_else(changed)?.broadcast_due =
                Some((sender, due + 1));
            return Ok(());
        };
        is_exactly(text.as_bytes(), &words::broadcast_heard(&label, from))?;
        self.check_sender(&label, from)?;
        let sender = self.sessions.get(&label.sender).ok_or_else(changed)?;
        // From when on this client must hear its broadcasts, which may begin without a label. Of a name that comes back
        // the sender may not know yet that it has.
        let view = sender.view.get(&own).filter(|_| own.starts_with(UNIQUE));
        let known_since = view.map_or(sender.broadcasts, |view| view.broadcasts_then);
        let peer = self.session(number).view.get_mut(from).ok_or_else(changed)?;
        match peer.broadcast_due {
            Some((_, due)) => label.is_due(due)?,
            None if label.key_sequence > known_since + 1 => label.is_due(known_since)?,
            None => {}
        }
        peer.broadcast_due = Some((label.sender, label.key_sequence + 1));
        peer.is_behind(&label)
    }

    fn check_sender(&self, label: &Label, from: &str) -> Result<(), Violation> {
        let name = self.sessions.get(&label.sender).and_then(Session::name);
        if name == Some(from) {
            return Ok(());
        }
        let partner = format!("{} (label `{label}`)", name.unwrap_or("nobody"));
        Err(Violation::WrongSender { from: from.to_owned(), partner })
    }

    fn send_something(&mut self, turn: &mut Turn<'_>) {
        if self.chance.chance(self.broadcast_share) {
            let session = self.session(turn.number);
            let label = session.label(turn.number, String::new(), session.broadcasts);
            session.broadcasts += 1;
            turn.say(words::broadcast(&label));
            return;
        }
        let is_bogus = self.is_odd && self.chance.below(16) == 0;
        let target = if is_bogus { Some(self.bogus_target(turn.number)) } else { self.target(turn.number) };
        let Some(target) = target else { return };
        let session = self.session(turn.number);
        let is_known = session.view.contains_key(&target);
        let stream = session.streams.entry(target.clone()).or_default();
        let number = stream.sent;
        stream.sent += 1;
        stream.to_nobody += u32::from(!is_known);
        let label = session.label(turn.number, target, number);
        turn.say(words::message(&self.bodies, &label));
    }
}

impl super::Judge for Judge {
    fn drops(&self) -> &'static [DropKind] {
        &DropKind::ENDS
    }

    fn opening(&mut self, index: usize, number: u32, _takes_over: Option<u32>) -> String {
        self.sessions.insert(number, Session::new(index));
        "/".to_owned()
    }

    fn opened(&mut self, turn: &mut Turn<'_>) {
        if self.is_odd && self.chance.below(8) == 0 {
            self.session(turn.number).is_early = true;
            turn.say(PING);
        }
        self.ask_for_name(turn);
    }

    fn hear(&mut self, message: &[u8], turn: &mut Turn<'_>) -> Result<(), Violation> {
        let notice =
            |kind: &str, peer: &str| is_exactly(message, &format!(r#"{{"type":"{kind}","peer":"{peer}"}}"#));
        match Event::parse(message) {
            Event::PeerConnected(peer) => {
                notice("peer_connected", &peer)?;
                self.hear_connected(&peer, turn.number)
            }
            Event::PeerDisconnected(peer) => {
                notice("peer_disconnected", &peer)?;
                self.hear_disconnected(&peer, turn)
            }
            Event::LoginSuccess { clients, .. } => {
                let clients: Vec<_> = clients.into_iter().map(String::from).collect();
                self.hear_success(message, &clients, turn)
            }
            Event::Error { error, target } => self.hear_error(message, &error, &target, turn),
            Event::Pong => self.session(turn.number).hear_pong(message),
            Event::Relay => self.hear_relay(message, turn.number),
            Event::Unknown => Err(Violation::Unknown { came: shown(message) }),
        }
    }

    fn ticks(&self) -> bool {
        true
    }

    fn tick(&mut self, turn: &mut Turn<'_>) {
        let session = self.session(turn.number);
        let may = session.is_live() && session.pings < PINGS_MAX;
        if turn.winding_up || !may || session.next_at.is_some_and(|next_at| turn.now < next_at) {
            return;
        }
        session.next_at = Some(turn.now + SPACING);
        if session.sequence % PING_EVERY == PING_EVERY - 1 {
            session.sequence += 1;
            session.pings += 1;
            turn.say(PING);
        } else {
            self.send_something(turn);
        }
    }

    fn drop_out(&mut self, kind: DropKind, turn: &mut Turn<'_>) -> bool {
        let session = self.session(turn.number);
        let may = session.is_live();
        if may {
            session.gone = Some(Gone { kind, ended_at: None });
            self.live.remove(&turn.number);
        }
        may
    }

    fn closed_unasked(&mut self, number: u32, ending: &Ending) -> Result<(), Violation> {
        match (&self.session(number).login, ending) {
            (Login::Refused { code, reason }, Ending::Closed(is, why)) if code == is && reason == why => {
                Ok(())
            }
            _ => Err(Violation::Ended { how: format!("{ending:?}") }),
        }
    }

    fn ended(&mut self, number: u32, now: Instant) {
        self.live.remove(&number);
        let session = self.session(number);
        let gone = session.gone.get_or_insert(Gone { kind: DropKind::WebSocketClose, ended_at: None });
        gone.ended_at = Some(now);
        session.view = BTreeMap::new();
    }

    fn died(&mut self, number: u32, now: Instant) {
        self.session(number).gone = Some(Gone { kind: DropKind::HostDied, ended_at: Some(now) });
        self.ended(number, now);
    }

    fn check_deaths(&mut self, died_before: Option<Instant>, now: Instant) -> Result<(), Violation> {
        let mut claims = std::mem::take(&mut self.claims);
        let lie = claims.settle(now, |number| !self.sessions[number].is_live());
        self.claims = claims;
        if let Some(number) = lie {
            return Err(self.still_there(number));
        }
        died_before.map_or(Ok(()), |died_before| self.check_forgotten(died_before))
    }

    fn page(&self) -> Option<&'static str> {
        Some("/clients")
    }

    fn finish(&mut self, pages: &[Option<&str>]) -> Result<(), Violation> {
        let mut claims = std::mem::take(&mut self.claims);
        if let Some(number) = claims.finish(|number| !self.sessions[number].is_live()) {
            return Err(self.still_there(number));
        }
        self.check_pages(pages)?;
        self.check_lists()?;
        self.live().try_for_each(|(number, session)| {
            self.check_streams(number, session)?;
            self.check_broadcasts(number, session)
        })
    }

    fn counts(&self) -> Vec<Count> {
        vec![
            ("messages", "messages", self.counts.messages),
            ("broadcasts", "broadcasts heard", self.counts.broadcasts),
            ("logins", "logins", self.counts.logins),
            ("logins_refused", "logins refused", self.counts.refused),
            ("notices", "peers announced, come or gone", self.counts.notices),
            ("not_found", "messages to somebody who is not there", self.counts.not_found),
        ]
    }
}
