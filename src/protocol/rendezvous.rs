//! Two roles that share a connection id (protocols.md section 2).
//!
//! All clients of a connection id have the same home, so who is there is known at once: nothing is asked, nothing is on
//! its way. Each client has a seat; the seats of one connection id and role are neighbours in one ordered table, in the
//! order in which their clients connected. What a client sends is checked field by field, and goes to its target whole,
//! as the bytes that came in.

mod place;
mod validation;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ahash::RandomState;

use self::place::Connection;
pub use self::place::{Place, Role, has_roles, is_connection_path, place};
use self::validation::{Invalid, Request};
use super::{Action, Actions, Part, Parts, parts};
use crate::id::ClientId;
use crate::limits::FOREIGN_ID_BYTES_MAX;
use crate::wire::Span;
use crate::wire::envelope::{Envelope, NotJson};
use crate::wire::quote::quote;

/// What a client's record keeps of rendezvous.
#[derive(Debug)]
pub struct State {
    connection: Arc<Connection>,
}

const _: () = assert!(size_of::<State>() <= 32);

impl State {
    /// The connection id of the client.
    #[must_use]
    pub fn connection(&self) -> [u8; 64] {
        *self.connection
    }
}

/// The clients of all connection ids that have their home here.
#[derive(Debug)]
pub struct Rendezvous {
    /// The connection ids that have clients. Peers choose them, so the hash is keyed.
    groups: HashMap<Arc<Connection>, Group, RandomState>,
    /// The clients, those of one connection id and role side by side.
    clients: BTreeMap<Seat, ClientId>,
    /// Where each client sits. Peers name the ones they look for, so the hash is keyed.
    seats: HashMap<ClientId, Seat, RandomState>,
    /// The next number of a group or an arrival; none is used twice.
    next_number: u64,
    /// Whether a target that is not here may be elsewhere.
    has_neighbours: bool,
}

/// The clients of one connection id.
#[derive(Debug)]
struct Group {
    number: u64,
    /// How many there are, never 0.
    clients: usize,
}

/// Where a client sits. The order of the seats is that of the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Seat {
    group: u64,
    role: Role,
    arrival: u64,
}

impl Rendezvous {
    /// `seed` keys the hashes.
    #[must_use]
    pub fn new(seed: [u64; 4]) -> Self {
        let [a, b, c, d] = seed;
        let hasher = RandomState::with_seeds(a, b, c, d);
        Self {
            groups: HashMap::with_hasher(hasher.clone()),
            clients: BTreeMap::new(),
            seats: HashMap::with_hasher(hasher),
            next_number: 0,
            has_neighbours: false,
        }
    }

    /// The same where a target that is not here may be on another host (protocols.md section 6).
    #[must_use]
    pub fn with_neighbours(mut self, has_neighbours: bool) -> Self {
        self.has_neighbours = has_neighbours;
        self
    }

    /// The role of a client that is here.
    #[must_use]
    pub fn role_of(&self, client: ClientId) -> Option<Role> {
        self.seats.get(&client).map(|seat| seat.role)
    }

    /// Whether a client is here, on this connection id and in this role.
    #[must_use]
    pub fn is_at(&self, client: ClientId, connection: &[u8; 64], role: Role) -> bool {
        let group = self.groups.get(connection).map(|group| group.number);
        self.seats.get(&client).is_some_and(|seat| Some(seat.group) == group && seat.role == role)
    }

    /// How many connection ids have clients; for checks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether nobody is here; for checks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// A client has connected, and its URL names this place.
    pub fn handle_connect(&mut self, place: &Place, me: ClientId, out: &mut Actions) -> State {
        debug_assert_ne!(place.source, place.target, "such a URL is refused");
        let (connection, seat) = self.take_seat(place, me);
        let counterparts: Vec<_> = self.counterparts(seat).collect();
        out.extend(counterparts.iter().map(|&client| Action::Reply(notice(ALREADY_CONNECTED, client))));
        broadcast(counterparts, notice(JUST_CONNECTED, me), out);
        State { connection }
    }

    /// A client has sent a message. `message` is the whole of it, of which `parsed` was made.
    pub fn handle_message(
        &mut self,
        _state: &State,
        me: ClientId,
        message: &[u8],
        parsed: Result<&Envelope<'_>, NotJson>,
        out: &mut Actions,
    ) {
        let Some(&seat) = self.seats.get(&me) else { return out.push(Action::Ignore) };
        let Ok(envelope) = parsed else { return out.push(invalid_message(message)) };
        match validation::check(envelope) {
            Ok(Request { request_id, target }) => {
                let near = ClientId::parse(&target).filter(|target| self.is_counterpart(seat, target));
                match near {
                    Some(to) => relay(me, to, 0..message.len(), request_id, out),
                    None if self.may_be_elsewhere(me, &target) => {
                        let parts = remote_data(me, 0..message.len(), &request_id);
                        out.push(Action::SendFar { target: target.into(), parts, about: request_id });
                    }
                    None => out.push(answer(MISSING_REMOTE_CLIENT, request_id)),
                }
            }
            Err(invalid) => out.push(validation_error(invalid)),
        }
    }

    /// A client is gone.
    pub fn handle_leave(&mut self, state: &State, me: ClientId, out: &mut Actions) {
        let Some(seat) = self.seats.remove(&me) else { return };
        self.clients.remove(&seat);
        self.leave_group(&state.connection);
        broadcast(self.counterparts(seat).collect(), notice(DISCONNECTED, me), out);
    }

    fn take_seat(&mut self, place: &Place, me: ClientId) -> (Arc<Connection>, Seat) {
        let (connection, group) = self.join_group(&place.connection);
        let seat = Seat { group, role: place.source, arrival: self.draw_number() };
        let before = self.seats.insert(me, seat);
        assert!(before.is_none(), "a client connects once");
        self.clients.insert(seat, me);
        (connection, seat)
    }

    /// Counts one more client of this connection id; returns the number of its group.
    fn join_group(&mut self, connection: &Connection) -> (Arc<Connection>, u64) {
        let connection = match self.groups.get_key_value(connection) {
            Some((connection, _)) => Arc::clone(connection),
            None => Arc::new(*connection),
        };
        let number = self.draw_number();
        let new = Group { number, clients: 0 };
        let group = self.groups.entry(Arc::clone(&connection)).or_insert(new);
        group.clients += 1;
        (connection, group.number)
    }

    fn leave_group(&mut self, connection: &Connection) {
        let Some(group) = self.groups.get_mut(connection) else { return };
        group.clients -= 1;
        if group.clients == 0 {
            self.groups.remove(connection);
        }
    }

    fn draw_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// The clients of the other role on the same connection id, in the order in which they connected.
    fn counterparts(&self, seat: Seat) -> impl Iterator<Item = ClientId> {
        let first = Seat { role: seat.role.other(), arrival: 0, ..seat };
        let last = Seat { arrival: u64::MAX, ..first };
        self.clients.range(first..=last).map(|(_, client)| *client)
    }

    /// Whether a target that is not here may be a client of another host: ours are all known.
    fn may_be_elsewhere(&self, me: ClientId, target: &[u8]) -> bool {
        let is_name = !target.is_empty() && target.len() <= FOREIGN_ID_BYTES_MAX;
        let is_ours = || ClientId::parse(target).is_some_and(|target| target.host() == me.host());
        self.has_neighbours && is_name && !is_ours()
    }

    fn is_counterpart(&self, seat: Seat, target: &ClientId) -> bool {
        self.seats.get(target).is_some_and(|other| other.group == seat.group && other.role != seat.role)
    }
}

/// What a client is told of a message of its own that went to another host: whether it is with its target. `about` is
/// the value of its `requestId`.
#[must_use]
pub fn outcome(is_sent: bool, about: Span) -> Parts {
    let before = if is_sent { CONFIRMATION } else { MISSING_REMOTE_CLIENT };
    parts([Part::Literal(before), Part::Span(about), Part::Literal("}")])
}

/// Sends the message to its target and confirms it.
fn relay(me: ClientId, to: ClientId, data: Span, request_id: Span, out: &mut Actions) {
    out.push(Action::Send { to, parts: remote_data(me, data, &request_id) });
    out.push(Action::Confirm { sent: CONFIRMATION, unsent: MISSING_REMOTE_CLIENT, about: request_id });
}

/// What the target of a message gets.
fn remote_data(me: ClientId, data: Span, request_id: &Span) -> Parts {
    parts([
        Part::Literal(r#"{"info":"remoteData","data":"#),
        Part::Span(data),
        Part::Literal(r#","remoteClientId":""#),
        Part::Client(me),
        Part::Literal(r#"","requestId":"#),
        Part::Span(request_id.clone()),
        Part::Literal("}"),
    ])
}

/// An answer that says nothing but which request it is about.
fn answer(before_request_id: &'static str, request_id: Span) -> Action {
    Action::Reply(parts([Part::Literal(before_request_id), Part::Span(request_id), Part::Literal("}")]))
}

fn validation_error(Invalid { request_id, issues }: Invalid) -> Action {
    let error = [Part::Literal(r#""error":["#), Part::Text(issues.into()), Part::Literal("]}")];
    let mut message = parts([Part::Literal(r#"{"info":"validationError","#)]);
    if let Some(request_id) = request_id {
        message.extend([Part::Literal(r#""requestId":"#), Part::Span(request_id), Part::Literal(",")]);
    }
    message.extend(error);
    Action::Reply(message)
}

fn invalid_message(message: &[u8]) -> Action {
    let mut data = String::new();
    // Made valid first: what looks like a lone surrogate is no UTF-8 either, and has to show as that.
    quote(String::from_utf8_lossy(message).as_bytes(), &mut data);
    Action::Reply(parts([
        Part::Literal(r#"{"info":"invalidMessageError","data":"#),
        Part::Text(data.into()),
        Part::Literal(r#","error":"invalid message format, expected JSON"}"#),
    ]))
}

/// What is told about a client that comes, goes or is there.
fn notice(before_client: &'static str, client: ClientId) -> Parts {
    parts([Part::Literal(before_client), Part::Client(client), Part::Literal("\"}")])
}

fn broadcast(to: Vec<ClientId>, parts: Parts, out: &mut Actions) {
    if !to.is_empty() {
        out.push(Action::Broadcast { to, parts });
    }
}

const ALREADY_CONNECTED: &str = r#"{"info":"remoteClientIsAlreadyConnected","remoteClientId":""#;
const JUST_CONNECTED: &str = r#"{"info":"remoteClientJustConnected","remoteClientId":""#;
const DISCONNECTED: &str = r#"{"info":"remoteClientDisconnected","remoteClientId":""#;
const CONFIRMATION: &str = r#"{"info":"confirmation","requestId":"#;
const MISSING_REMOTE_CLIENT: &str = r#"{"info":"missingRemoteClientError","requestId":"#;

#[cfg(test)]
mod tests;
