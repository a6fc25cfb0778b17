//! Introductions over several hosts, as their home shard sees it. Peers of this host are introduced to each other at
//! once; what they have is registered in Redis, and whom they meet there is told to both.
//!
//! What a message changes is registered by itself, in its order, so that nobody misses an introduction over a document
//! that was soon taken away. Only where that cannot be (Redis was away, or too much is under way) the peer as a whole is
//! registered later, by its state at that time.

use std::collections::BTreeMap;

use crate::cluster::ToCluster;
use crate::cluster::introductions::{Found, Letter, Meeting, News, Outcome, Registration, Request, Scope};
use crate::id::{ClientId, HostId, Slot};
use crate::limits::{CLOSE_DEADLINE_MS, HOST_FRAME_BYTES_MAX, REGISTRATION_RETRY_MS, REGISTRATIONS_MAX};
use crate::protocol::introduction::State;
use crate::protocol::introduction::distant::{Acquaintance, Names};
use crate::shard::Shard;
use crate::shard::clients::Stage;
use crate::shard::dialects::Dialect;
use crate::shard::mail::Parcel;
use crate::shard::pausing::Reason;
use crate::websocket::CloseCode;

/// What is to be registered, and how much of it is under way.
#[derive(Debug, Default)]
pub(super) struct Registrar {
    /// Redis can be worked with.
    is_up: bool,
    /// Registrations without an answer.
    asked: usize,
    /// Peers that are to be registered as a whole, by who speaks for them: no more than there are clients.
    due: BTreeMap<ClientId, Due>,
    /// When those are tried again that have failed.
    retry_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Due {
    /// The client has come while Redis could not be told.
    takes: bool,
    scope: Scope,
}

impl Registrar {
    /// Has a peer registered when there is room for it, beside what else is due of it.
    fn add(&mut self, client: ClientId, takes: bool, scope: Scope) {
        let due = self.due.entry(client).or_insert(Due { takes, scope });
        *due = Due { takes: takes || due.takes, scope: both(due.scope, scope) };
    }

    fn has_room(&self) -> bool {
        self.is_up && self.asked < REGISTRATIONS_MAX
    }
}

/// What covers both.
fn both(one: Scope, other: Scope) -> Scope {
    match (one, other) {
        (Scope::Nobody, scope) | (scope, Scope::Nobody) => scope,
        (Scope::All, _) | (_, Scope::All) => Scope::All,
        (Scope::One(one), Scope::One(other)) if one == other => Scope::One(one),
        (Scope::One(_) | Scope::Others, Scope::One(_) | Scope::Others) => Scope::Others,
    }
}

impl Shard {
    /// A client has come and speaks for a peer: Redis is told, and may know of documents that the peer has. They come
    /// first, so nothing is read from the client until then, unless Redis is away.
    pub(in crate::shard) fn register_newcomer(&mut self, slot: Slot) {
        let Some(me) = self.clients.at(slot).map(|client| client.id) else { return };
        let Some((_, state)) = self.speaker(me) else { return };
        let Some(id) = self.tables.introductions.id_of(&state, me) else { return };
        if !self.neighbours.introductions.is_up {
            return self.neighbours.introductions.add(me, true, Scope::Others);
        }
        let nothing = Names::new([]);
        self.register(Registration {
            client: me,
            id,
            takes: true,
            is_whole: false,
            join: nothing.clone(),
            leave: nothing,
            acquaintance: Acquaintance::Nobody,
            scope: Scope::Nobody,
        });
        self.await_answer(slot);
    }

    /// A client's message was handled: what it has changed is registered.
    pub(in crate::shard) fn register_change(&mut self, slot: Slot) {
        let Some(change) = self.tables.introductions.take_change() else { return };
        let Some(client) = self.clients.at(slot).map(|client| client.id) else { return };
        let scope = if change.introduces { Scope::All } else { Scope::Nobody };
        let registrar = &mut self.neighbours.introductions;
        if registrar.due.contains_key(&client) || !registrar.has_room() {
            return registrar.add(client, false, scope);
        }
        self.register(Registration {
            client,
            id: change.id,
            takes: false,
            is_whole: false,
            join: change.join,
            leave: change.leave,
            acquaintance: Acquaintance::Nobody,
            scope,
        });
    }

    /// A client has left, and its peer with it.
    pub(in crate::shard) fn unregister(&mut self, client: ClientId, id: std::sync::Arc<str>) {
        if self.settings.has_cluster {
            self.neighbours.introductions.due.remove(&client);
            self.ask_introductions(Request::Leave { client, id });
        }
    }

    /// Time has passed.
    pub(in crate::shard) fn retry_registrations(&mut self) {
        if self.neighbours.introductions.retry_ms.is_some_and(|due_ms| due_ms <= self.now_ms) {
            self.neighbours.introductions.retry_ms = None;
            self.register_due();
        }
    }

    /// Asks other hosts who was introduced to the peer `remote`; what follows comes with the answer. False: nobody can
    /// be asked. `rest` came behind the request's head.
    pub(in crate::shard) fn ask_for_partner(&mut self, slot: Slot, remote: &str, rest: &[u8]) -> bool {
        if !self.neighbours.introductions.is_up {
            return false;
        }
        let Some(client) = self.clients.at(slot).map(|client| client.id) else { return false };
        self.set_stage(slot, Stage::Answering(rest.to_vec()));
        self.await_answer(slot);
        self.set_deadline(slot, CLOSE_DEADLINE_MS);
        self.ask_introductions(Request::Partner { client, remote: remote.into() });
        true
    }

    /// The cluster has something to say.
    pub(super) fn receive_introductions_news(&mut self, news: News) {
        match news {
            News::Up => {
                self.neighbours.introductions.is_up = true;
                self.register_all(Scope::Others);
            }
            News::Down => self.neighbours.introductions.is_up = false,
            News::Registered { client, outcome } => {
                let registrar = &mut self.neighbours.introductions;
                registrar.asked = registrar.asked.saturating_sub(1);
                self.receive_outcome(client, outcome);
            }
            News::Partner { client, remote, found } => self.receive_partner(client, &remote, found),
        }
    }

    /// Another host's shard has something to say.
    pub(super) fn receive_introductions_letter(&mut self, from: HostId, letter: Letter) {
        let is_taken = match letter {
            Letter::Introduction { to, from: other, id, documents } => {
                other.host() == from && self.introduce(to, &id, &documents)
            }
            Letter::TakenOver { client, by } => by.host() == from && self.lose_peer(client),
        };
        if !is_taken {
            self.counters.letters_ignored.add(1);
        }
    }

    /// Another host can be written to: introductions to its peers may have been lost, and it may have taken us for gone.
    pub(super) fn find_introductions_host(&mut self, host: HostId) {
        if self.neighbours.introductions.is_up {
            self.register_all(Scope::One(host));
        }
    }

    fn register_all(&mut self, scope: Scope) {
        for client in self.tables.introductions.clients() {
            self.neighbours.introductions.add(client, false, scope);
        }
        self.register_due();
    }

    /// Registers peers that are due, as far as there is room.
    fn register_due(&mut self) {
        while self.neighbours.introductions.has_room() {
            let Some((client, due)) = self.neighbours.introductions.due.pop_first() else { return };
            let Some((_, state)) = self.speaker(client) else { continue };
            let Some(standing) = self.tables.introductions.standing(&state, client) else { continue };
            self.register(Registration {
                client,
                id: standing.id,
                takes: due.takes,
                is_whole: true,
                join: standing.documents,
                leave: Names::new([]),
                acquaintance: standing.acquaintance,
                scope: due.scope,
            });
        }
    }

    fn register(&mut self, registration: Registration) {
        self.neighbours.introductions.asked += 1;
        self.ask_introductions(Request::Register(Box::new(registration)));
    }

    fn ask_introductions(&mut self, request: Request) {
        let mail = ToCluster::Introductions(request);
        self.router.post_to_cluster(Parcel { mail, charge: None }, &mut self.buffers);
    }

    fn receive_outcome(&mut self, client: ClientId, outcome: Outcome) {
        // Who was taken over meanwhile has said it for the peer all the same.
        let speaker = self.tables.introductions.successor_of(client).unwrap_or(client);
        match outcome {
            Outcome::Done { inherited, acquaintance, meetings } => {
                self.inherit(client, &inherited, &acquaintance);
                self.meet(speaker, &meetings);
            }
            Outcome::TakenOver => {
                self.lose_peer(client);
            }
            Outcome::Again => self.neighbours.introductions.add(speaker, false, Scope::All),
            Outcome::TooMuch => {
                if let Some((slot, _)) = self.clients.find(client) {
                    self.doom(slot, Some(CloseCode::TryAgainLater), "too slow");
                }
            }
            Outcome::Failed { takes } => {
                let retry_ms = self.now_ms + REGISTRATION_RETRY_MS;
                self.neighbours.introductions.retry_ms.get_or_insert(retry_ms);
                self.neighbours.introductions.add(speaker, takes, Scope::All);
                return self.go_on(client);
            }
        }
        self.register_due();
        self.go_on(client);
    }

    /// Reads from a client that has waited for its registration.
    fn go_on(&mut self, client: ClientId) {
        if let Some((slot, _)) = self.clients.find(client) {
            self.resume_answered(slot);
        }
    }

    fn inherit(&mut self, client: ClientId, documents: &Names, acquaintance: &Acquaintance) {
        let Some((slot, state)) = self.speaker(client) else { return };
        self.tables.introductions.handle_inherited(&state, client, documents, acquaintance);
        self.count_members(slot);
    }

    /// Introduces a peer of ours and those of other hosts to each other.
    fn meet(&mut self, me: ClientId, meetings: &[Meeting]) {
        let Some((slot, state)) = self.speaker(me) else { return };
        let Some(my_id) = self.tables.introductions.id_of(&state, me) else { return };
        for Meeting { client, id, documents } in meetings {
            self.introduce(me, id, documents);
            if my_id.len() + documents.bytes().len() > HOST_FRAME_BYTES_MAX {
                return self.doom(slot, Some(CloseCode::TooBig), "message too big");
            }
            let Ok(charge) = self.buffers.transit(documents.bytes().clone()) else {
                return self.doom_busy(slot);
            };
            let (id, documents) = ((*my_id).into(), documents.clone());
            let letter = Letter::Introduction { to: *client, from: me, id, documents };
            let letter = crate::cluster::Letter::Introductions(letter);
            // If that host is gone, so is its peer; if it comes back, they meet again.
            self.post_letter(client.host(), client.shard(), letter, Some(charge));
        }
    }

    /// Tells a client of a peer of another host, or who has taken its peer over: the other host could not know. False:
    /// it speaks for no peer.
    fn introduce(&mut self, me: ClientId, other: &str, documents: &Names) -> bool {
        let me = self.tables.introductions.successor_of(me).unwrap_or(me);
        let Some((slot, state)) = self.speaker(me) else { return false };
        let introductions = &mut self.tables.introductions;
        if documents.iter().next().is_none() || introductions.id_of(&state, me).is_none() {
            return false;
        }
        let mut actions = std::mem::take(&mut self.actions);
        introductions.handle_meeting(&state, me, other, documents, &mut actions);
        self.apply(slot, &mut actions, &[]);
        self.actions = actions;
        self.count_members(slot);
        true
    }

    /// A client does not speak for its peer any more. False: it did not before.
    fn lose_peer(&mut self, client: ClientId) -> bool {
        self.neighbours.introductions.due.remove(&client);
        let Some((slot, state)) = self.speaker(client) else { return false };
        let lost = self.tables.introductions.handle_leave(&state, client);
        self.count_members(slot);
        let Some(id) = lost else { return false };
        // A registration may be under way that puts the peer back, if who has taken it over is gone by then.
        self.unregister(client, id);
        true
    }

    /// The pair of a short URL is known, or that there is none.
    fn receive_partner(&mut self, client: ClientId, remote: &str, found: Found) {
        let Some((slot, client)) = self.clients.find(client) else { return };
        let Stage::Answering(kept) = &mut client.stage else { return };
        let mut rest = std::mem::take(kept);
        self.resume(slot, Reason::Answer);
        if self.is_shutting_down {
            return self.cut(slot);
        }
        let pair = match found {
            Found::Partner(partner, document) => Some((partner.into(), document.into())),
            Found::Nobody => None,
            Found::Unknown => self.tables.introductions.partner_of(remote),
        };
        self.open_between(slot, remote, pair, &mut rest);
    }

    /// A client's slot and as which peer it came, if it is one of introductions.
    fn speaker(&mut self, client: ClientId) -> Option<(Slot, State)> {
        let (slot, client) = self.clients.find(client)?;
        match &client.stage {
            Stage::Open(Dialect::Introduction(state)) => Some((slot, *state)),
            _ => None,
        }
    }
}
