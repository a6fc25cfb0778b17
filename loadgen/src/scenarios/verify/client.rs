//! A client that sends labelled messages, checks what comes, and drops out when told to.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use super::checker::{Checker, Departure, Heard};
use super::label::{Bodies, Label};
use super::registry::Registry;
use super::violation::Violation;
use crate::client::{Connection, Ending};
use crate::failure::Failure;
use crate::net::target::Target;
use crate::pairing::{AVAILABLE, LEAVE, NEXT, PING};
use crate::payload::Role;
use crate::scenarios::fleet::Live;
use crate::scenarios::run::rate_limit_warning;
use crate::scenarios::stage::{Phase, Stage};

/// A ping behind every so many messages proves what the server has read.
const PING_EVERY: u32 = 4;

/// The ways in which a client drops out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DropKind {
    /// TCP reset.
    Reset,
    /// The end of the TCP stream without a close frame.
    TcpClose,
    /// A WebSocket close.
    WebSocketClose,
    /// `next`, then `available`.
    Next,
    /// `leave`, then `available`.
    Leave,
}

impl DropKind {
    pub(super) const ALL: [Self; 5] =
        [Self::Reset, Self::TcpClose, Self::WebSocketClose, Self::Next, Self::Leave];
}

/// What the clients of a thread count.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) messages: u64,
    /// By [`DropKind`].
    pub(super) drops: [u64; DropKind::ALL.len()],
}

/// What the clients of a thread share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) stage: Arc<Stage>,
    registry: Arc<Registry>,
    numbers: Arc<AtomicU32>,
    in_flight: usize,
    target: Target,
    bodies: Bodies,
    pub(super) tally: RefCell<Tally>,
    pub(super) clients: RefCell<Vec<Rc<Client>>>,
    pub(super) live: Live,
}

impl Shared {
    pub(super) fn new(
        stage: Arc<Stage>,
        registry: Arc<Registry>,
        numbers: Arc<AtomicU32>,
        in_flight: usize,
        target: &Target,
    ) -> Self {
        Self {
            stage,
            registry,
            numbers,
            in_flight,
            target: target.clone(),
            bodies: Bodies::new(),
            tally: RefCell::default(),
            clients: RefCell::default(),
            live: Live::default(),
        }
    }

    fn next_checker(&self) -> Checker {
        Checker::new(self.numbers.fetch_add(1, Ordering::Relaxed))
    }
}

/// A client, over all the connections that it has one after the other.
#[derive(Debug)]
pub(super) struct Client {
    index: usize,
    shared: Rc<Shared>,
    checker: RefCell<Checker>,
    connection: RefCell<Option<Rc<Connection>>>,
    /// The drop under way that ends the connection.
    dropping: Cell<bool>,
}

impl Client {
    /// Starts the client on its first connection.
    pub(super) fn start(index: usize, connection: Rc<Connection>, shared: &Rc<Shared>) {
        let client = Rc::new(Self {
            index,
            shared: Rc::clone(shared),
            checker: RefCell::new(shared.next_checker()),
            connection: RefCell::new(Some(connection)),
            dropping: Cell::new(false),
        });
        shared.clients.borrow_mut().push(Rc::clone(&client));
        shared.live.enter();
        monoio::spawn(async move {
            if let Err(failure) = client.run().await {
                client.shared.stage.fail(failure);
            }
            client.shared.live.leave();
        });
    }

    /// The connection, if there is one.
    pub(super) fn connection(&self) -> Option<Rc<Connection>> {
        self.connection.borrow().clone()
    }

    /// Drops out now, unless that is under way already.
    pub(super) fn drop_out(&self, kind: DropKind) {
        let Some(connection) = self.connection() else { return };
        let busy = self.dropping.get() || self.checker.borrow().is_departing();
        if busy || self.checker.borrow().id().is_empty() {
            return;
        }
        self.shared.tally.borrow_mut().drops[kind as usize] += 1;
        match kind {
            DropKind::Reset => {
                connection.reset_on_close();
                connection.stop_reading();
                self.dropping.set(true);
            }
            DropKind::TcpClose => {
                connection.stop_reading();
                self.dropping.set(true);
            }
            DropKind::WebSocketClose => {
                connection.close(1000);
                self.dropping.set(true);
            }
            DropKind::Next => self.depart(&connection, Departure::Next, &[PING, NEXT, PING]),
            DropKind::Leave => self.depart(&connection, Departure::Leave, &[LEAVE, PING]),
        }
        connection.flush();
    }

    /// All is over: tells the registry where it is, and closes.
    pub(super) fn finish(&self) {
        let Some(connection) = self.connection() else { return };
        let checker = self.checker.borrow();
        if let Some(room) = checker.room() {
            self.shared.registry.last_seen(checker.id(), room);
        }
        connection.close(1000);
        connection.flush();
    }

    /// Serves one connection after the other.
    async fn run(self: &Rc<Self>) -> Result<(), Failure> {
        while let Some(connection) = self.connection() {
            let ending = connection.serve(|message| self.on_message(&connection, message)).await;
            if self.shared.stage.reached(Phase::Stopped) {
                break;
            }
            self.check_ending(&ending)?;
            self.connection.take();
            drop(connection);
            self.shared.registry.gone(self.checker.borrow().id(), Instant::now());
            let connection = Connection::open(&self.shared.target, self.index).await?;
            self.checker.replace(self.shared.next_checker());
            self.dropping.set(false);
            self.connection.replace(Some(connection));
        }
        Ok(())
    }

    fn check_ending(&self, ending: &Ending) -> Result<(), Failure> {
        let expected = match ending {
            Ending::Broken(_) => false,
            Ending::Closed(code, _) => self.dropping.get() && *code == 1000,
            Ending::Lost | Ending::Failed(_) => self.dropping.get(),
        };
        if expected {
            return Ok(());
        }
        let text = format!("client {}: its connection ended unasked: {ending:?}", self.checker.borrow().id());
        Err(Failure::Server(text))
    }

    fn on_message(&self, connection: &Connection, message: &[u8]) {
        let shared = &self.shared;
        if shared.stage.reached(Phase::Stopped) {
            return;
        }
        shared.stage.moves.fetch_add(1, Ordering::Relaxed);
        let heard = self.checker.borrow_mut().hear(message, &shared.bodies);
        if let Err(violation) = heard.and_then(|heard| self.react(connection, heard)) {
            let checker = self.checker.borrow();
            let who = format!("client {} (connection {:08x})", checker.id(), checker.number());
            shared.stage.fail(Failure::Violation(format!("{who}: {violation}")));
        }
    }

    fn react(&self, connection: &Connection, heard: Heard) -> Result<(), Violation> {
        match heard {
            Heard::Ready => self.on_ready(connection),
            Heard::Matched => self.on_matched(connection)?,
            Heard::Message { label, first, carried } => self.on_label(connection, label, first, carried)?,
            Heard::PartnerLeft { room_id, read_below } => {
                let number = self.checker.borrow().number();
                self.shared.registry.ended(number, room_id, read_below);
                self.ask_for_partner(connection);
            }
            Heard::Departed => self.ask_for_partner(connection),
            Heard::RateLimited => self.shared.stage.fail(Failure::RateLimited(rate_limit_warning(1))),
            Heard::Nothing => {}
        }
        Ok(())
    }

    fn on_ready(&self, connection: &Connection) {
        let checker = self.checker.borrow();
        self.shared.registry.ready(checker.number(), checker.id());
        self.shared.stage.ready.fetch_add(1, Ordering::Relaxed);
        connection.send(AVAILABLE);
    }

    fn on_matched(&self, connection: &Connection) -> Result<(), Violation> {
        let role = {
            let checker = self.checker.borrow();
            let Some(room) = checker.room() else { return Ok(()) };
            self.shared.registry.matched(checker.id(), room, Instant::now())?;
            Role::of(checker.id(), &room.partner_id)
        };
        let in_flight = self.shared.in_flight;
        let own = if role == Role::Caller { in_flight.div_ceil(2) } else { in_flight / 2 };
        (0..own).for_each(|_| self.send_next(connection));
        Ok(())
    }

    fn on_label(
        &self,
        connection: &Connection,
        label: Label,
        first: bool,
        carried: bool,
    ) -> Result<(), Violation> {
        self.shared.tally.borrow_mut().messages += 1;
        if let Some(room) = self.checker.borrow().room() {
            if first {
                self.shared.registry.sender(&label, &room.partner_id)?;
            }
            if carried {
                self.shared.registry.carried(label, &room.id);
                return Ok(());
            }
        }
        self.send_next(connection);
        Ok(())
    }

    fn send_next(&self, connection: &Connection) {
        if self.shared.stage.reached(Phase::Draining) {
            return;
        }
        let mut checker = self.checker.borrow_mut();
        let Some(label) = checker.next_label() else { return };
        connection.send(self.shared.bodies.message(&label).as_bytes());
        if label.sequence % PING_EVERY == PING_EVERY - 1 {
            checker.pinged();
            connection.send(PING);
        }
    }

    fn ask_for_partner(&self, connection: &Connection) {
        let checker = self.checker.borrow();
        if checker.room().is_none() && !checker.is_departing() {
            connection.send(AVAILABLE);
        }
    }

    fn depart(&self, connection: &Connection, departure: Departure, messages: &[&[u8]]) {
        self.checker.borrow_mut().departs(departure);
        messages.iter().for_each(|message| connection.send(message));
    }
}
