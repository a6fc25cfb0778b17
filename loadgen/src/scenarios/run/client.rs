//! A client of a group that sends and answers stamped messages.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Plan;
use super::budget::Budget;
use super::figures::Tally;
use crate::client::{Connection, Ending};
use crate::dialects::{Dialect, Group, Heard, Seat, Told};
use crate::failure::Failure;
use crate::payload::{Role, Script, Stamp};
use crate::scenarios::member::Member;
use crate::scenarios::stage::{Phase, Stage};

/// What the clients of a thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) stage: Arc<Stage>,
    dialect: Dialect,
    script: Script,
    /// Messages under way per group in the closed loop.
    in_flight: Option<usize>,
    /// One group after the other looks for partners.
    takes_turns: bool,
    pub(super) tally: RefCell<Tally>,
    pub(super) clients: RefCell<Vec<Rc<Client>>>,
}

impl Shared {
    pub(super) fn new(stage: Arc<Stage>, plan: &Plan, script: Script) -> Self {
        let (tally, clients) = (RefCell::new(Tally::new()), RefCell::default());
        let (dialect, in_flight, takes_turns) = (plan.dialect, plan.traffic.in_flight, plan.takes_turns());
        Self { stage, dialect, script, in_flight, takes_turns, tally, clients }
    }

    /// A message of the open loop that was due at `due_ns`.
    pub(super) fn send_due(&self, client: &Client, due_ns: u64, now_ns: u64) {
        let sent = client.send_next(due_ns);
        if sent && self.stage.measures(due_ns) {
            self.tally.borrow_mut().late.record(now_ns - due_ns);
        }
    }
}

/// A client of a run.
#[derive(Debug)]
pub(crate) struct Client {
    number: u32,
    seat: Seat,
    member: Member,
    group: Rc<Group>,
    shared: Rc<Shared>,
    ready: Cell<bool>,
    /// Which end of the pair; none without a partner.
    role: Cell<Option<Role>>,
    sequence: Cell<u32>,
    /// When the messages were sent that have come back to nobody yet, where those are all that can be timed.
    echoes: RefCell<VecDeque<u64>>,
    /// What the dialect lets a client send, where it has a limit of its own.
    budget: Option<Budget>,
    /// Messages of the closed loop that wait for the budget.
    owed: Cell<usize>,
}

impl Client {
    pub(super) fn new(
        number: u32,
        seat: Seat,
        connection: Rc<Connection>,
        group: &Rc<Group>,
        shared: Rc<Shared>,
    ) -> Rc<Self> {
        let speaker = match shared.takes_turns {
            true => shared.dialect.speaker_in_turn(seat, group),
            false => shared.dialect.speaker(seat, group),
        };
        let member = Member::new(connection, speaker);
        let budget = shared.dialect.fixed_limit_per_s().map(|limit| {
            // What is under way may be read in the same window as what is sent in it.
            Budget::new(limit.saturating_sub(shared.in_flight.unwrap_or(0) as u32 + 1).max(1))
        });
        let client = Rc::new(Self {
            number,
            seat,
            member,
            group: Rc::clone(group),
            shared,
            ready: Cell::new(false),
            role: Cell::new(None),
            sequence: Cell::new(0),
            echoes: RefCell::default(),
            budget,
            owed: Cell::new(0),
        });
        let told: Rc<dyn Told> = Rc::<Self>::clone(&client);
        group.enter(Rc::downgrade(&told));
        client
    }

    pub(super) fn connection(&self) -> &Rc<Connection> {
        &self.member.connection
    }

    /// Handles all that comes until the connection ends.
    pub(super) async fn serve(&self) {
        self.act(self.member.greet(), &[]);
        let ending = self.connection().serve(|message| self.on_message(message.payload)).await;
        if !self.shared.stage.reached(Phase::Stopped) {
            self.on_lost(ending);
        }
    }

    /// The closed loop: puts this end's share of the messages under way.
    pub(super) fn start(&self) {
        self.send_credit();
        self.connection().flush();
    }

    /// Says goodbye.
    pub(super) fn leave(&self) {
        self.connection().close(1000);
        self.connection().flush();
    }

    /// Sends what waited for the budget, as far as that goes.
    pub(super) fn pay(&self) {
        let owed = self.owed.replace(0);
        if owed > 0 {
            let now_ns = self.shared.stage.now_ns();
            (0..owed).for_each(|_| self.answer(now_ns));
            self.connection().flush();
        }
    }

    /// Queues the next message of the script, stamped with `time_ns`; without a partner it does not.
    fn send_next(&self, time_ns: u64) -> bool {
        let Some(role) = self.role.get() else {
            self.shared.tally.borrow_mut().unsent += 1;
            return false;
        };
        let sequence = self.sequence.get();
        self.sequence.set(sequence.wrapping_add(1));
        let stamp = Stamp { sender: self.number, sequence, time_ns };
        self.member.send(&self.shared.script, role, sequence as usize, stamp);
        if self.shared.dialect == Dialect::Introductions {
            self.echoes.borrow_mut().push_back(time_ns);
        }
        true
    }

    /// A message of the closed loop: it goes out now, or when the budget allows it.
    fn answer(&self, now_ns: u64) {
        if self.budget.as_ref().is_some_and(|budget| !budget.take(now_ns)) {
            self.owed.set(self.owed.get() + 1);
        } else {
            self.send_next(now_ns);
        }
    }

    fn on_message(&self, message: &[u8]) {
        self.act(self.member.hear(message), message);
    }

    fn act(&self, heard: Heard, message: &[u8]) {
        match heard {
            Heard::Relay => self.on_relay(message),
            Heard::Echo => self.on_echo(),
            Heard::Ready => self.on_ready(),
            Heard::Partnered(role) => self.on_partnered(role),
            Heard::Stranger => self.on_stranger(),
            Heard::TellGroup => self.group.tell(),
            Heard::PartnerLeft => self.on_partner_left(),
            Heard::Refused { limited } => self.on_refused(limited),
            Heard::Misplaced => self.shared.tally.borrow_mut().refused(false),
            Heard::Unknown => self.shared.tally.borrow_mut().errors += 1,
            Heard::Nothing => {}
        }
    }

    fn on_ready(&self) {
        if !self.ready.replace(true) {
            self.shared.stage.ready.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn on_relay(&self, message: &[u8]) {
        let shared = &self.shared;
        let now_ns = shared.stage.now_ns();
        let stamp = Stamp::find(message);
        if shared.dialect == Dialect::Introductions {
            shared.tally.borrow_mut().counted(&shared.stage, now_ns);
            return;
        }
        shared.tally.borrow_mut().arrived(&shared.stage, now_ns, stamp);
        if shared.in_flight.is_some() && self.is_next_after(stamp) {
            self.answer(now_ns);
        }
    }

    /// What several members get one of them answers: the one who sits behind the sender.
    fn is_next_after(&self, stamp: Option<Stamp>) -> bool {
        let members = self.seat.members;
        let sender = stamp.map_or(0, |stamp| stamp.sender as usize);
        members == 2 || (sender + 1) % members == self.seat.member
    }

    fn on_echo(&self) {
        let shared = &self.shared;
        let now_ns = shared.stage.now_ns();
        let sent_ns = self.echoes.borrow_mut().pop_front();
        let stamp = sent_ns.map(|time_ns| Stamp { sender: self.number, sequence: 0, time_ns });
        shared.tally.borrow_mut().arrived(&shared.stage, now_ns, stamp);
        if shared.in_flight.is_some() {
            self.answer(now_ns);
        }
    }

    fn on_partnered(&self, role: Role) {
        self.on_ready();
        if self.role.replace(Some(role)).is_some() {
            return;
        }
        self.shared.stage.paired.fetch_add(1, Ordering::Relaxed);
        if self.shared.stage.reached(Phase::Traffic) {
            self.send_credit();
        }
    }

    /// Who loses its partner later, at the latest when all leave, may well find another.
    fn on_stranger(&self) {
        if self.shared.stage.reached(Phase::Traffic) {
            return;
        }
        self.shared.stage.fail(Failure::Server(
            "a client was matched with another than its partner: somebody else is in the queue, and how far a message \
             goes is not known"
                .to_owned(),
        ));
    }

    /// Each member gets its share; the first ones get what is rounded up.
    fn send_credit(&self) {
        let in_flight = self.shared.in_flight.unwrap_or(0);
        let place = match self.role.get() {
            None => return,
            Some(_) if self.seat.members > 2 => self.seat.member,
            Some(Role::Caller) => 0,
            Some(Role::Callee) => 1,
        };
        let members = self.seat.members;
        let count = in_flight / members + usize::from(place < in_flight % members);
        let now_ns = self.shared.stage.now_ns();
        (0..count).for_each(|_| self.answer(now_ns));
    }

    fn on_partner_left(&self) {
        self.role.set(None);
        self.shared.stage.paired.fetch_sub(1, Ordering::Relaxed);
    }

    fn on_refused(&self, limited: bool) {
        self.shared.tally.borrow_mut().refused(limited);
        // The message is gone. Without another in its place the pair would stand still after a while.
        if limited && self.shared.in_flight.is_some() && !self.shared.stage.reached(Phase::Stopped) {
            self.answer(self.shared.stage.now_ns());
        }
    }

    fn on_lost(&self, ending: Ending) {
        if self.role.take().is_some() {
            self.shared.stage.paired.fetch_sub(1, Ordering::Relaxed);
        }
        self.shared.tally.borrow_mut().lost(ending);
    }
}

impl Told for Client {
    fn told(&self) {
        self.act(self.member.look_at_group(), &[]);
        self.connection().flush();
    }
}
