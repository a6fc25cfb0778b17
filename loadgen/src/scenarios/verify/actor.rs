//! A client that does what its judge says, tells the judge what it hears, and drops out when told to.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::MEMBERS;
use super::hosts::Hosts;
use super::judge::{DropKind, Judge, Turn};
use super::trace::Trace;
use super::violation::Violation;
use crate::client::{Connection, Ending, Message};
use crate::failure::Failure;
use crate::net::spread::Targets;
use crate::scenarios::fleet::{self, Live};
use crate::scenarios::run::{is_rate_limit, rate_limit_warning};
use crate::scenarios::stage::{Phase, Stage};

/// How long a connection that was taken over stays open beside its successor.
const TAKEN_OVER: Duration = Duration::from_millis(100);

/// The judge of a run, which all threads ask.
pub(super) struct Bench {
    judge: Mutex<Box<dyn Judge>>,
    numbers: AtomicU32,
    pub(super) hosts: Hosts,
}

impl Bench {
    pub(super) fn new(judge: Box<dyn Judge>, hosts: Hosts) -> Self {
        Self { judge: Mutex::new(judge), numbers: AtomicU32::new(0), hosts }
    }

    pub(super) fn judge(&self) -> MutexGuard<'_, Box<dyn Judge>> {
        self.judge.lock().expect("no thread panics with the lock")
    }

    /// Number and path of a client's next connection, to this host.
    pub(super) fn opening(&self, index: usize, host: usize, takes_over: Option<u32>) -> (u32, String) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let path = self.judge().opening(index, number, takes_over);
        self.hosts.opening(number, host);
        (number, path)
    }

    /// A connection has ended as it should.
    fn ended(&self, number: u32) {
        let now = Instant::now();
        if self.hosts.ended(number, now) {
            self.judge().ended(number, now);
        }
    }

    /// A host that may die is dead, and all its clients with it.
    fn host_died(&self, host: usize) {
        let now = Instant::now();
        let dead = self.hosts.died(host, now);
        let mut judge = self.judge();
        dead.into_iter().for_each(|number| judge.died(number, now));
    }

    /// A connection to a dead host did not come about.
    fn not_opened(&self, number: u32) {
        let now = Instant::now();
        if self.hosts.ended(number, now) {
            self.judge().died(number, now);
        }
    }
}

/// What the clients of a thread share.
pub(super) struct Shared {
    pub(super) stage: Arc<Stage>,
    pub(super) bench: Arc<Bench>,
    pub(super) targets: Targets,
    pub(super) drops: RefCell<BTreeMap<DropKind, u64>>,
    pub(super) actors: RefCell<Vec<Rc<Actor>>>,
    pub(super) live: Live,
    /// The first violation, and when it was found.
    violation: RefCell<Option<(Instant, Failure)>>,
}

impl Shared {
    pub(super) fn new(stage: Arc<Stage>, bench: Arc<Bench>, targets: &Targets) -> Self {
        Self {
            stage,
            bench,
            targets: targets.clone(),
            drops: RefCell::default(),
            actors: RefCell::default(),
            live: Live::default(),
            violation: RefCell::default(),
        }
    }

    /// Fails the stage with a violation that was found, unless another failure has come that may explain it: who is
    /// closed by a rate limit is seen to be gone by others before it knows itself.
    pub(super) fn tell_violation(&self, patience: Duration) {
        let is_due = |found: &mut (Instant, Failure)| found.0.elapsed() >= patience;
        if let Some((_, failure)) = self.violation.borrow_mut().take_if(is_due) {
            self.stage.fail(failure);
        }
    }
}

/// A connection with its number.
#[derive(Debug, Clone)]
struct Line {
    number: u32,
    /// How often its host had died before.
    deaths: u64,
    connection: Rc<Connection>,
}

/// A client, over all the connections that it has one after the other.
pub(super) struct Actor {
    index: usize,
    host: usize,
    shared: Rc<Shared>,
    line: RefCell<Option<Line>>,
    /// The connection that takes over when this one has ended.
    successor: RefCell<Option<Line>>,
    /// The drop under way that ends the connection.
    dropping: Cell<Option<DropKind>>,
    /// The client has been where its dialect has a place for it.
    arrived: Cell<bool>,
    trace: RefCell<Trace>,
}

impl Actor {
    /// Opens connections, one after the other, until all is over.
    pub(super) fn start(index: usize, shared: &Rc<Shared>) {
        let actor = Rc::new(Self {
            index,
            host: shared.targets.placing().host(index, MEMBERS),
            shared: Rc::clone(shared),
            line: RefCell::new(None),
            successor: RefCell::new(None),
            dropping: Cell::new(None),
            arrived: Cell::new(false),
            trace: RefCell::default(),
        });
        shared.actors.borrow_mut().push(Rc::clone(&actor));
        shared.live.enter();
        monoio::spawn(async move {
            if let Err(failure) = actor.run().await {
                actor.shared.stage.fail(failure);
            }
            actor.shared.live.leave();
        });
    }

    /// The connection, if there is one.
    pub(super) fn connection(&self) -> Option<Rc<Connection>> {
        self.line.borrow().as_ref().map(|line| Rc::clone(&line.connection))
    }

    /// Drops out now, unless something is under way already.
    pub(super) fn drop_out(self: &Rc<Self>, kind: DropKind) {
        let Some(Line { number, connection, .. }) = self.living_line() else { return };
        let may = self.dropping.get().is_none() && self.arrived.get();
        if !may || !self.ask(number, &connection, |judge, turn| judge.drop_out(kind, turn)) {
            return;
        }
        *self.shared.drops.borrow_mut().entry(kind).or_default() += 1;
        match kind {
            DropKind::Reset => {
                connection.reset_on_close();
                connection.abandon();
            }
            DropKind::TcpClose => connection.abandon(),
            DropKind::WebSocketClose => connection.close(1000),
            DropKind::Takeover => {
                monoio::spawn(Rc::clone(self).take_over(number, Rc::clone(&connection)));
            }
            DropKind::Next
            | DropKind::Leave
            | DropKind::Create
            | DropKind::Join
            | DropKind::Rejoin
            | DropKind::JoinNone
            | DropKind::HostDied => {
                connection.flush();
                return;
            }
        }
        self.dropping.set(Some(kind));
        connection.flush();
    }

    /// A little time has passed.
    pub(super) fn tick(&self) {
        let Some(Line { number, connection, .. }) = self.living_line() else { return };
        if self.dropping.get().is_none() {
            self.ask(number, &connection, |judge, turn| judge.tick(turn));
            connection.flush();
        }
    }

    /// All is over.
    pub(super) fn finish(&self) {
        let lines = [self.line.borrow().clone(), self.successor.borrow().clone()];
        for line in lines.into_iter().flatten() {
            line.connection.close(1000);
            line.connection.flush();
        }
    }

    async fn run(self: &Rc<Self>) -> Result<(), Failure> {
        while !self.shared.stage.reached(Phase::Stopped) {
            if let Err(failure) = self.serve_once().await {
                if !self.is_host_dead().await {
                    return Err(failure);
                }
                self.shared.bench.host_died(self.host);
            }
            while self.shared.bench.hosts.is_down(self.host) && !self.shared.stage.reached(Phase::Stopped) {
                monoio::time::sleep(fleet::STEP).await;
            }
        }
        Ok(())
    }

    /// One connection, from its beginning to its end.
    async fn serve_once(self: &Rc<Self>) -> Result<(), Failure> {
        self.trace.take();
        let successor = self.successor.borrow_mut().take();
        let line = match successor {
            Some(line) => line,
            None => self.open(None).await?,
        };
        self.line.replace(Some(line.clone()));
        self.dropping.set(None);
        if self.shared.stage.reached(Phase::Stopped) {
            line.connection.close(1000);
        }
        let ending = line.connection.serve(|message| self.on_message(&line, message)).await;
        self.line.take();
        if self.shared.stage.reached(Phase::Stopped) || self.is_dead(&line) {
            return Ok(());
        }
        self.check_ending(line.number, &ending)?;
        self.shared.bench.ended(line.number);
        Ok(())
    }

    async fn open(&self, takes_over: Option<u32>) -> Result<Line, Failure> {
        let bench = &self.shared.bench;
        let deaths = bench.hosts.deaths(self.host);
        let (number, path) = bench.opening(self.index, self.host, takes_over);
        let target = self.shared.targets.of(self.index, MEMBERS);
        let connection = match Connection::open(target, &path, self.index).await {
            Ok(connection) => connection,
            Err(failure) => {
                if self.is_host_dead().await {
                    bench.host_died(self.host);
                    bench.not_opened(number);
                }
                return Err(failure);
            }
        };
        let line = Line { number, deaths, connection };
        if !self.is_dead(&line) {
            self.ask(number, &line.connection, |judge, turn| judge.opened(turn));
            line.connection.flush();
        }
        Ok(line)
    }

    /// Whether the host has died since the connection was opened.
    fn is_dead(&self, line: &Line) -> bool {
        self.shared.bench.hosts.deaths(self.host) != line.deaths
    }

    /// The connection, unless it is dead.
    fn living_line(&self) -> Option<Line> {
        self.line.borrow().clone().filter(|line| !self.is_dead(line))
    }

    async fn is_host_dead(&self) -> bool {
        self.shared.bench.hosts.is_dead(self.host, self.shared.targets.of(self.index, MEMBERS)).await
    }

    /// Opens the successor, and closes the connection a little later.
    async fn take_over(self: Rc<Self>, number: u32, connection: Rc<Connection>) {
        match self.open(Some(number)).await {
            Ok(line) => {
                self.successor.replace(Some(line));
                monoio::time::sleep(TAKEN_OVER).await;
            }
            Err(_) if self.shared.bench.hosts.is_down(self.host) => return,
            Err(failure) => self.shared.stage.fail(failure),
        }
        // From here on it may end; until now it was to stay.
        self.dropping.set(Some(DropKind::WebSocketClose));
        connection.close(1000);
        connection.flush();
    }

    fn check_ending(&self, number: u32, ending: &Ending) -> Result<(), Failure> {
        let as_it_should = match (self.dropping.get(), ending) {
            (None | Some(DropKind::Takeover), _) | (Some(_), Ending::Broken(_)) => false,
            (Some(_), Ending::Closed(code, _)) => *code == 1000,
            (Some(_), Ending::Lost | Ending::Failed(_)) => true,
        };
        if is_rate_limit(ending) {
            return Err(Failure::RateLimited(rate_limit_warning(1)));
        }
        if as_it_should {
            return Ok(());
        }
        let judged = self.shared.bench.judge().closed_unasked(number, ending);
        judged.map_err(|violation| self.failure(number, &violation))
    }

    fn on_message(&self, line: &Line, message: Message<'_>) {
        let (stage, number, connection) = (&self.shared.stage, line.number, &line.connection);
        if stage.reached(Phase::Stopped) || self.is_dead(line) {
            return;
        }
        stage.moves.fetch_add(1, Ordering::Relaxed);
        self.trace.borrow_mut().heard(message.payload);
        let judged = if message.is_plain {
            self.ask(number, connection, |judge, turn| judge.hear(message.payload, turn))
        } else {
            Err(Violation::NotPlain)
        };
        if let Err(violation) = judged {
            let failure = self.failure(number, &violation);
            self.shared.violation.borrow_mut().get_or_insert((Instant::now(), failure));
        }
    }

    /// Asks the judge, and says what it wants said.
    fn ask<R>(
        &self,
        number: u32,
        connection: &Connection,
        question: impl FnOnce(&mut dyn Judge, &mut Turn<'_>) -> R,
    ) -> R {
        let stage = &self.shared.stage;
        let mut words = Vec::new();
        let mut turn = Turn::new(number, Instant::now(), stage.reached(Phase::Draining), &mut words);
        turn.told_within = self.shared.bench.hosts.told_within();
        let answer = question(self.shared.bench.judge().as_mut(), &mut turn);
        if turn.arrived && !self.arrived.replace(true) {
            stage.ready.fetch_add(1, Ordering::Relaxed);
        }
        for message in &words {
            self.trace.borrow_mut().said(message);
            connection.send(message);
        }
        answer
    }

    fn failure(&self, number: u32, violation: &Violation) -> Failure {
        match violation {
            Violation::RateLimited => Failure::RateLimited(rate_limit_warning(1)),
            _ => Failure::Violation(format!(
                "client {} (connection {number:08x}): {violation}\nits last words:{}",
                self.index,
                self.trace.borrow()
            )),
        }
    }
}
