//! A client of a pair that sends and answers stamped messages.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::figures::Tally;
use crate::client::{Connection, Ending};
use crate::pairing::{AVAILABLE, Event};
use crate::payload::{Role, Script, Stamp};
use crate::scenarios::stage::{Phase, Stage};

/// What the clients of a thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) stage: Arc<Stage>,
    script: Script,
    /// Messages under way per pair in the closed loop.
    in_flight: Option<usize>,
    pub(super) tally: RefCell<Tally>,
    pub(super) clients: RefCell<Vec<Rc<Client>>>,
}

impl Shared {
    pub(super) fn new(stage: Arc<Stage>, script: Script, in_flight: Option<usize>) -> Self {
        Self { stage, script, in_flight, tally: RefCell::new(Tally::new()), clients: RefCell::default() }
    }

    /// A message of the open loop that was due at `due_ns`.
    pub(super) fn send_due(&self, client: &Client, due_ns: u64, now_ns: u64) {
        let sent = client.send_next(due_ns);
        if sent && self.stage.measures(due_ns) {
            self.tally.borrow_mut().late.record(now_ns - due_ns);
        }
    }
}

/// A client of the pairing scenario.
#[derive(Debug)]
pub(crate) struct Client {
    number: u32,
    connection: Rc<Connection>,
    shared: Rc<Shared>,
    id: RefCell<String>,
    /// Which end of the pair; none without a partner.
    role: Cell<Option<Role>>,
    sequence: Cell<u32>,
}

impl Client {
    pub(super) fn new(number: u32, connection: Rc<Connection>, shared: Rc<Shared>) -> Rc<Self> {
        Rc::new(Self {
            number,
            connection,
            shared,
            id: RefCell::default(),
            role: Cell::new(None),
            sequence: Cell::new(0),
        })
    }

    pub(super) fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    /// Handles all that comes until the connection ends.
    pub(super) async fn serve(&self) {
        let ending = self.connection.serve(|message| self.on_message(message)).await;
        if !self.shared.stage.reached(Phase::Stopped) {
            self.on_lost(ending);
        }
    }

    /// The closed loop: puts this end's half of the messages under way.
    pub(super) fn start(&self) {
        self.send_credit();
        self.connection.flush();
    }

    /// Says goodbye.
    pub(super) fn leave(&self) {
        self.connection.close(1000);
        self.connection.flush();
    }

    /// Queues the next message of the script, stamped with `time_ns`; without a partner it does not.
    fn send_next(&self, time_ns: u64) -> bool {
        let Some(role) = self.role.get() else {
            self.shared.tally.borrow_mut().unsent += 1;
            return false;
        };
        let sequence = self.sequence.get();
        self.sequence.set(sequence.wrapping_add(1));
        let template = self.shared.script.at(role, sequence as usize);
        let stamp = Stamp { sender: self.number, sequence, time_ns };
        self.connection.send_edited(&template.message, |copy| template.put(stamp, copy));
        true
    }

    fn on_message(&self, message: &[u8]) {
        match Event::parse(message) {
            Event::Relay => self.on_relay(message),
            Event::Ready { client_id } => {
                self.id.replace(client_id.into_owned());
                self.shared.stage.ready.fetch_add(1, Ordering::Relaxed);
                self.connection.send(AVAILABLE);
            }
            Event::Matched { partner_id, .. } => self.on_matched(&partner_id),
            Event::PartnerLeft => self.on_partner_left(),
            Event::Error { code } => self.on_error(&code),
            Event::Pong => {}
            Event::Unknown => self.shared.tally.borrow_mut().errors += 1,
        }
    }

    fn on_relay(&self, message: &[u8]) {
        let shared = &self.shared;
        let now_ns = shared.stage.now_ns();
        shared.tally.borrow_mut().arrived(&shared.stage, now_ns, Stamp::find(message));
        if shared.in_flight.is_some() {
            self.send_next(now_ns);
        }
    }

    fn on_matched(&self, partner_id: &str) {
        self.role.set(Some(Role::of(&self.id.borrow(), partner_id)));
        self.shared.stage.paired.fetch_add(1, Ordering::Relaxed);
        if self.shared.stage.reached(Phase::Traffic) {
            self.send_credit();
        }
    }

    /// One end gets the half that is rounded up.
    fn send_credit(&self) {
        let in_flight = self.shared.in_flight.unwrap_or(0);
        let count = match self.role.get() {
            Some(Role::Caller) => in_flight.div_ceil(2),
            Some(Role::Callee) => in_flight / 2,
            None => 0,
        };
        let now_ns = self.shared.stage.now_ns();
        (0..count).for_each(|_| {
            self.send_next(now_ns);
        });
    }

    fn on_partner_left(&self) {
        self.role.set(None);
        self.shared.stage.paired.fetch_sub(1, Ordering::Relaxed);
        if !self.shared.stage.reached(Phase::Stopped) {
            self.connection.send(AVAILABLE);
        }
    }

    fn on_error(&self, code: &str) {
        let limited = code == "RATE_LIMIT";
        self.shared.tally.borrow_mut().refused(limited);
        // The message is gone. Without another in its place the pair would stand still after a while.
        if limited && self.shared.in_flight.is_some() && !self.shared.stage.reached(Phase::Stopped) {
            self.send_next(self.shared.stage.now_ns());
        }
    }

    fn on_lost(&self, ending: Ending) {
        if self.role.take().is_some() {
            self.shared.stage.paired.fetch_sub(1, Ordering::Relaxed);
        }
        self.shared.tally.borrow_mut().lost(ending);
    }
}
