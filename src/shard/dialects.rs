//! The dialects of one shard: their tables, what clients say in them, and what they ask for in turn.

use std::sync::Arc;

use super::clients::Stage;
use super::mail::Mail;
use super::pipes::{Parting, Pipe};
use super::route::PAIRING_HOME;
use super::{Settings, Shard};
use crate::id::{ClientId, Entropy, Slot};
use crate::limits::{DIRECTORY_MESSAGES_MAX, PAUSED_MESSAGES_FACTOR, RATE_WINDOW_MS};
use crate::plant::Plant;
use crate::protocol::directory::{self, Directory};
use crate::protocol::introduction::{self, Introductions};
use crate::protocol::lobby::{self, Choice};
use crate::protocol::pairing::{self, Pairing};
use crate::protocol::pipe::Pipes;
use crate::protocol::rendezvous::{self, Rendezvous};
use crate::protocol::rooms::{self, Rooms};
use crate::protocol::{self, Action, Actions, Address, Part};
use crate::websocket::CloseCode;
use crate::wire::envelope::Parser;
use crate::wire::frame::{Opcode, ServerHeader};

/// Which protocol a client speaks, and its state there.
#[derive(Debug)]
pub enum Dialect {
    /// Messages come back as they are (`ECHO_PATH`).
    Echo,
    /// Random chat, protocols.md section 1.
    Pairing(pairing::State),
    /// Two roles that share a connection id, section 2.
    Rendezvous(rendezvous::State),
    /// `/`: the first message that says so makes it directory or rooms, section 0.
    Lobby,
    /// Named peers, section 3.
    Directory(directory::State),
    /// Four digits, section 4.
    Rooms(rooms::State),
    /// Documents: who has what, section 5.
    Introduction(introduction::State),
    /// Documents: one end of a pipe, section 5.
    Pipe(Box<Pipe>),
}

/// What happens to a message that is over a client's rate.
enum Overrun {
    /// This is answered, and the message is dropped.
    Answer(&'static str),
    /// The message is dropped without a word.
    Drop,
    /// The client is closed with this reason.
    Close(&'static str),
    /// The client is not read from until the window ends.
    Pause,
}

/// How many messages a client may send in a window (protocols.md section 0, rate).
struct Rate {
    max: u32,
    window_ms: u32,
    overrun: Overrun,
}

impl Dialect {
    /// Whether it carries raw bytes instead of WebSocket frames.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        matches!(self, Self::Pipe(pipe) if pipe.is_raw())
    }

    /// Whether it is one end of a pipe.
    #[must_use]
    pub fn is_pipe(&self) -> bool {
        matches!(self, Self::Pipe(_))
    }

    /// Whether the directory's bound of a message's size holds.
    pub(super) fn has_directory_limits(&self) -> bool {
        matches!(self, Self::Lobby | Self::Directory(_))
    }

    fn rate(&self, settings: &Settings) -> Option<Rate> {
        let limits = &settings.limits;
        let max = limits.messages_per_second_max;
        let (max, window_ms, overrun) = match self {
            Self::Echo | Self::Pipe(_) => return None,
            Self::Pairing(_) => (max, RATE_WINDOW_MS, Overrun::Answer(pairing::RATE_LIMIT)),
            Self::Rendezvous(_) => (
                limits.rendezvous_messages_max,
                limits.rendezvous_window_ms,
                Overrun::Close("rate limit hit, slow down"),
            ),
            Self::Lobby if !settings.offered.directory => {
                (DIRECTORY_MESSAGES_MAX, RATE_WINDOW_MS, Overrun::Drop)
            }
            Self::Lobby | Self::Directory(_) => {
                (DIRECTORY_MESSAGES_MAX, RATE_WINDOW_MS, Overrun::Answer(directory::RATE_LIMIT))
            }
            Self::Rooms(_) | Self::Introduction(_) => {
                (max.saturating_mul(PAUSED_MESSAGES_FACTOR), RATE_WINDOW_MS, Overrun::Pause)
            }
        };
        Some(Rate { max, window_ms, overrun })
    }
}

/// The state of the dialects that live on this shard.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) pairing: Pairing,
    pub(super) rendezvous: Rendezvous,
    pub(super) directory: Directory,
    pub(super) rooms: Rooms,
    pub(super) introductions: Introductions,
    pub(super) pipes: Pipes,
    /// Bytes of the introductions that the budget was charged with.
    introduction_bytes: usize,
}

impl Tables {
    pub(super) fn new(settings: &Settings) -> Self {
        let (limits, seed) = (&settings.limits, settings.key_seed);
        Self {
            pairing: Pairing::new(settings.requeue_on_partner_leave, settings.has_cluster, settings.planted),
            rendezvous: Rendezvous::new(seed).with_neighbours(settings.has_cluster),
            directory: Directory::new(seed, settings.has_cluster),
            rooms: Rooms::new(limits.room_timeout_ms, settings.has_cluster),
            introductions: introductions(settings),
            pipes: Pipes::new(limits.pipe_hold_ms, Arc::clone(&settings.held_pipes), seed),
            introduction_bytes: 0,
        }
    }
}

fn introductions(settings: &Settings) -> Introductions {
    let mut introductions = Introductions::new(settings.key_seed);
    if settings.has_cluster {
        introductions.track_changes();
    }
    introductions
}

/// What a message is handled with, beside the client's own state.
struct Context<'a> {
    tables: &'a mut Tables,
    parser: &'a mut Parser,
    entropy: &'a mut Entropy,
    settings: &'a Settings,
    now_ms: u64,
    unix_ms: u64,
}

impl Context<'_> {
    /// Has a dialect handle a message of one of its clients.
    fn handle_message(&mut self, dialect: &mut Dialect, me: ClientId, message: &[u8], out: &mut Actions) {
        let parsed = self.parser.parse(message);
        if let Dialect::Lobby = dialect {
            let choice =
                lobby::choose(self.settings.offered.lobby(), parsed.as_ref().map_err(|error| *error));
            match choice {
                Choice::Directory => *dialect = Dialect::Directory(directory::State::default()),
                Choice::Rooms => *dialect = Dialect::Rooms(rooms::State::default()),
                Choice::NotLoggedIn => {
                    return out.push(protocol::reply([Part::Literal(directory::NOT_LOGGED_IN)]));
                }
                Choice::Silence => return out.push(Action::Ignore),
            }
        }
        let envelope = parsed.as_ref().map_err(|not_json| *not_json);
        let tables = &mut *self.tables;
        match dialect {
            Dialect::Pairing(state) => tables.pairing.handle_message(state, me, envelope, out),
            Dialect::Rendezvous(state) => tables.rendezvous.handle_message(state, me, message, envelope, out),
            Dialect::Directory(state) => {
                tables.directory.handle_message(state, me, message, envelope, self.unix_ms, out);
            }
            Dialect::Rooms(state) => {
                tables.rooms.handle_message(state, me, envelope, self.now_ms, self.entropy, out);
            }
            Dialect::Introduction(state) => tables.introductions.handle_message(state, me, envelope, out),
            // They do not speak in JSON; what they say is handled before it comes here.
            Dialect::Echo | Dialect::Lobby | Dialect::Pipe(_) => {}
        }
    }
}

impl Shard {
    /// A client has said something.
    pub(super) fn handle_message(&mut self, slot: Slot, message: &[u8]) {
        let Some(client) = self.clients.at(slot) else { return };
        let Stage::Open(dialect) = &mut client.stage else { return };
        if self.settings.planted.is(Plant::PanicOnDemand) && message == b"panic" {
            panic!("planted");
        }
        let is_rendezvous = matches!(dialect, Dialect::Rendezvous(_));
        if is_rendezvous {
            self.counters.rendezvous_received.add(1);
        }
        let rate = dialect.rate(&self.settings);
        if let Some(rate) = rate
            && !client.window.allows(self.now_ms, rate.window_ms, rate.max)
        {
            return self.handle_overrun(slot, &rate, message);
        }
        let mut actions = std::mem::take(&mut self.actions);
        let has_members = !matches!(dialect, Dialect::Pairing(_) | Dialect::Rendezvous(_));
        let mut context = Context {
            tables: &mut self.tables,
            parser: &mut self.parser,
            entropy: &mut self.entropy,
            settings: &self.settings,
            now_ms: self.now_ms,
            unix_ms: self.unix_ms_at_start + self.now_ms,
        };
        context.handle_message(dialect, client.id, message, &mut actions);
        if is_rendezvous {
            self.count_rendezvous_sent(&actions);
        }
        self.apply(slot, &mut actions, message);
        self.actions = actions;
        if has_members {
            self.count_members(slot);
            self.register_change(slot);
        }
    }

    /// A message is over its client's rate.
    fn handle_overrun(&mut self, slot: Slot, rate: &Rate, message: &[u8]) {
        self.counters.rate_limited.add(1);
        match rate.overrun {
            Overrun::Drop => {}
            Overrun::Answer(answer) => self.send_text(slot, &[Part::Literal(answer)], &[]),
            Overrun::Close(reason) => self.doom(slot, Some(CloseCode::TryAgainLater), reason),
            Overrun::Pause => self.pause_for_rate(slot, rate.window_ms, message),
        }
    }

    /// Brings the numbers of members up to date, and what the introductions take from the budget.
    pub(super) fn count_members(&mut self, slot: Slot) {
        let tables = &mut self.tables;
        self.counters.directory_clients.set(tables.directory.len() as u64);
        self.counters.rooms.set(tables.rooms.len() as u64);
        self.counters.pipes_held.set(tables.pipes.len() as u64);
        let bytes = tables.introductions.bytes();
        let before = std::mem::replace(&mut tables.introduction_bytes, bytes);
        if bytes <= before {
            self.buffers.refund(before - bytes);
        } else if self.buffers.charge(bytes - before).is_err() {
            self.buffers.charge_always(bytes - before);
            self.doom_busy(slot);
        }
    }

    /// Counts what goes to rendezvous clients, as its original's dashboards do.
    fn count_rendezvous_sent(&self, actions: &Actions) {
        let receivers = |action: &Action| match action {
            Action::Reply(_) | Action::Send { .. } | Action::Confirm { .. } => 1,
            Action::Broadcast { to, .. } => to.len(),
            // What goes to another host is counted there.
            Action::SendFar { .. }
            | Action::Close { .. }
            | Action::Ignore
            | Action::Forward { .. }
            | Action::Notify { .. }
            | Action::Ask(_)
            | Action::Directory(_)
            | Action::Distant { .. }
            | Action::Rooms(_)
            | Action::RoomNote(..)
            | Action::RoomSignal { .. } => 0,
        };
        self.counters.rendezvous_sent.add(actions.iter().map(receivers).sum::<usize>() as u64);
    }

    /// A client that has just been opened is greeted.
    pub(super) fn greet(&mut self, slot: Slot) {
        let Some(client) = self.clients.at(slot) else { return };
        if let Stage::Open(Dialect::Pairing(_)) = client.stage {
            let mut actions = std::mem::take(&mut self.actions);
            self.tables.pairing.handle_connect(client.id, &mut actions);
            self.apply(slot, &mut actions, &[]);
            self.actions = actions;
        }
    }

    /// A client comes to a connection id.
    pub(super) fn enter_rendezvous(&mut self, slot: Slot, place: &rendezvous::Place) {
        let Some(client) = self.clients.at(slot) else { return };
        let mut actions = std::mem::take(&mut self.actions);
        let state = self.tables.rendezvous.handle_connect(place, client.id, &mut actions);
        client.stage = Stage::Open(Dialect::Rendezvous(state));
        let id = client.id;
        self.counters.rendezvous_clients.add(1);
        self.count_rendezvous_sent(&actions);
        self.apply(slot, &mut actions, &[]);
        self.actions = actions;
        self.say_rendezvous_arrived(id, place);
    }

    /// A client comes to the introductions under an id.
    pub(super) fn enter_introductions(&mut self, slot: Slot, id: &str) {
        let Some(client) = self.clients.at(slot) else { return };
        let state = self.tables.introductions.handle_connect(id, client.id);
        client.stage = Stage::Open(Dialect::Introduction(state));
        self.count_members(slot);
        if self.settings.has_cluster {
            self.register_newcomer(slot);
        }
    }

    /// Time has passed: rooms expire, and ends that have waited for too long.
    pub(super) fn handle_dialect_time(&mut self) {
        let mut actions = std::mem::take(&mut self.actions);
        self.tables.rooms.handle_time(self.now_ms, &mut actions);
        while let Some(client) = self.tables.pipes.poll_expired(self.now_ms) {
            let (code, reason) = (Some(CloseCode::TryAgainLater), "peer did not connect");
            actions.push(Action::Close { client, code, reason });
        }
        self.apply(NOBODY, &mut actions, &[]);
        self.actions = actions;
        self.counters.rooms.set(self.tables.rooms.len() as u64);
        self.handle_rendezvous_time();
    }

    /// An open client leaves its dialect: it is not there for anybody any more. Its stage is set by the caller.
    pub(super) fn leave(&mut self, slot: Slot, parting: Parting) {
        self.release_held(slot);
        let Some(client) = self.clients.at(slot) else { return };
        if !matches!(client.stage, Stage::Open(_)) {
            return;
        }
        let id = client.id;
        client.connection.release(&mut self.buffers);
        let Stage::Open(dialect) = std::mem::replace(&mut client.stage, Stage::Closing) else { return };
        self.counters.clients.sub(1);
        let mut actions = Actions::new();
        match dialect {
            Dialect::Echo | Dialect::Lobby => {}
            Dialect::Pairing(mut state) => self.tables.pairing.handle_leave(&mut state, id, &mut actions),
            Dialect::Rendezvous(state) => {
                self.counters.rendezvous_clients.sub(1);
                self.tables.rendezvous.handle_leave(&state, id, &mut actions);
                self.say_rendezvous_left(id);
                self.count_rendezvous_sent(&actions);
            }
            Dialect::Directory(mut state) => {
                self.tables.directory.handle_leave(&mut state, id, &mut actions);
            }
            Dialect::Rooms(mut state) => self.tables.rooms.handle_leave(&mut state, id, &mut actions),
            Dialect::Introduction(state) => {
                if let Some(peer) = self.tables.introductions.handle_leave(&state, id) {
                    self.unregister(id, peer);
                }
            }
            Dialect::Pipe(pipe) => self.leave_pipe(id, *pipe, parting),
        }
        self.apply(slot, &mut actions, &[]);
        self.count_members(slot);
    }

    /// Carries out what a dialect asked for. `message` is what the actions' spans refer to.
    pub(super) fn apply(&mut self, slot: Slot, actions: &mut Actions, message: &[u8]) {
        let mut is_sent = false;
        for action in actions.drain(..) {
            match action {
                Action::Reply(parts) => self.send_text(slot, &parts, message),
                Action::Send { to, parts } => is_sent = self.send_to(to, &parts, message),
                Action::Confirm { sent, unsent, about } => {
                    let before = if is_sent { sent } else { unsent };
                    let parts = [Part::Literal(before), Part::Span(about), Part::Literal("}")];
                    self.send_text(slot, &parts, message);
                }
                Action::SendFar { target, parts, about } => {
                    self.send_far(slot, &target, &parts, message, about);
                }
                Action::Broadcast { to, parts } => self.broadcast(&to, &parts, message),
                Action::Close { client, code, reason } => {
                    if let Some((slot, _)) = self.clients.find(client) {
                        self.doom(slot, code, reason);
                    }
                }
                Action::Ignore => self.counters.ignored.add(1),
                Action::Directory(ask) => self.ask_directory(slot, ask),
                Action::Distant { to, parts } => self.send_to_peers(slot, to, &parts, message),
                Action::Rooms(ask) => self.ask_rooms(slot, ask),
                Action::RoomNote(host, note) => self.post_room_note(host, note),
                Action::RoomSignal { key, hosts, parts } => {
                    self.send_room_signal(slot, key, &hosts, &parts, message);
                }
                Action::Forward { to, room, parts } => self.forward(slot, to, room, &parts, message),
                Action::Ask(errand) => self.ask_for_queue(errand),
                Action::Notify { to: Address::Queue, note } => self.post(PAIRING_HOME, Mail::Note(note)),
                Action::Notify { to: Address::Client(id), note } => {
                    if id.host() == self.settings.host {
                        self.post(id.shard(), Mail::Note(note));
                    } else {
                        self.post_note(id, note);
                    }
                }
            }
        }
    }

    /// Sends a message to another client of this shard. Says whether it is in its outbox.
    fn send_to(&mut self, to: ClientId, parts: &[Part], message: &[u8]) -> bool {
        let Some((slot, _)) = self.clients.find(to) else { return false };
        self.send_text(slot, parts, message);
        self.clients.at(slot).is_some_and(|client| !client.is_doomed)
    }

    /// Sends one message to many, which is rendered once. There is room for it in any case: for want of it nobody may
    /// miss what the others are told.
    fn broadcast(&mut self, to: &[ClientId], parts: &[Part], message: &[u8]) {
        if to.is_empty() {
            return;
        }
        let payload_len = protocol::len_of(parts);
        let header = ServerHeader::new(Opcode::Text, payload_len);
        let mut bytes = Vec::with_capacity(header.as_bytes().len() + payload_len);
        bytes.extend_from_slice(header.as_bytes());
        protocol::write(parts, message, |piece| bytes.extend_from_slice(piece));
        let transit = self.buffers.transit_always(bytes.into());
        for id in to {
            let Some((slot, _)) = self.clients.find(*id) else { continue };
            self.counters.messages_sent.add(1);
            let len = transit.bytes().len();
            self.send(slot, len, |outbox, buffers| outbox.append_shared(&transit, buffers));
        }
    }
}

/// The slot of no client: for what happens on no client's account, and replies to nobody.
pub(super) const NOBODY: Slot = Slot(u32::MAX);
