//! One core: a shard, its sockets, and the turn of its loop.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use super::accept::{Port, accept_all};
use super::catch::caught;
use super::connection::wait_writable;
use super::driver::Driver;
use super::gate::Gate;
use super::socket::Socket;
use super::sockets::deliver_sockets;
use super::splice::{Choice, KernelPipes};
use super::watch::{Watch, cut_reset};
use crate::cluster::FromCluster;
use crate::http::{self, Caller, Overview};
use crate::id::{ShardIndex, Slot};
use crate::limits::{MAIL_BYTES_MAX, READ_SCRATCH_BYTES, TICK_MS};
use crate::mailbox::Mailbox;
use crate::shard::arrival::Arrival;
use crate::shard::mail::{Mail, Parcel};
use crate::shard::{Event, Shard};
use crate::wire::http::RequestHead;

/// Mail handled in one go before clients get their turn.
const MAIL_BATCH: usize = 1_024;
/// Ticks that the loop goes on for after the last connection, so that closes that were submitted are done.
const TICKS_AFTER_LAST: u32 = 2;

/// What crosses cores.
pub(crate) enum Letter {
    /// What shards say to each other.
    Mail(Mail),
    /// A socket that moves to the shard where its key lives. Nothing is in flight on it.
    Socket(OwnedFd, Box<Arrival>),
    /// What a shard asks of the cluster, whose mailbox is behind those of all shards.
    ToCluster(Parcel),
    /// What the cluster says to a shard.
    FromCluster(FromCluster),
}

const _: () = assert!(size_of::<Letter>() <= MAIL_BYTES_MAX);

/// What a core needs to start.
pub(crate) struct Parts {
    pub(crate) driver: Driver,
    pub(crate) shard: Shard,
    pub(crate) mailbox: Mailbox<Letter>,
    /// How many shards there are, and where the cluster's mailbox is, if there is one.
    pub(crate) shards: usize,
    pub(crate) listener: OwnedFd,
    /// `HTTP_PORT`, on one core.
    pub(crate) private_listener: Option<OwnedFd>,
    pub(crate) splice: Choice,
    pub(crate) overview: Arc<Overview>,
    /// Set by a signal, after which every core is woken.
    pub(crate) stopping: Arc<AtomicBool>,
    pub(crate) shutdown_grace: Duration,
    /// What [`Shard`]'s milliseconds count from.
    pub(crate) started: Instant,
}

/// How far a stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    NotYet,
    /// Clients were told; after this instant nobody is waited for.
    Draining {
        until: Instant,
    },
}

/// A running core. Everything in it is used by this thread alone, and nothing is borrowed across an await.
pub(super) struct Core {
    pub(super) driver: Driver,
    pub(super) shard: RefCell<Shard>,
    /// Where all sockets are read into.
    pub(super) scratch: RefCell<Box<[u8]>>,
    /// Shut while so much mail waits that no client is read from.
    pub(super) reading: Gate,
    /// By slot.
    pub(super) sockets: RefCell<Vec<Option<Rc<Socket>>>>,
    /// Tasks that wait until their client is read from again.
    pub(super) paused: RefCell<BTreeMap<Slot, Waker>>,
    /// Connections that are not read from, but must be noticed when they are reset.
    pub(super) watch: Watch,
    /// Kernel pipes that raw bytes are moved through.
    pub(super) kernel_pipes: KernelPipes,
    pub(super) splice: Choice,
    mailbox: RefCell<Mailbox<Letter>>,
    shards: usize,
    /// Sockets for which there was no room in a ring.
    pub(super) waiting: RefCell<VecDeque<(ShardIndex, Letter)>>,
    overview: Arc<Overview>,
    started: Instant,
    /// The time of this turn, once somebody has asked for it.
    turn_ms: Cell<Option<u64>>,
    /// Wakes the root future: the end of the turn.
    root: RefCell<Waker>,
    is_armed: Cell<bool>,
    stopping: Arc<AtomicBool>,
    shutdown_grace: Duration,
    stop: Cell<Stop>,
    /// Wake the acceptors when the server stops; by port.
    acceptors: RefCell<[Waker; 2]>,
    /// How many listeners are open.
    accepting: Cell<usize>,
    ticks_since_last: Cell<u32>,
}

/// Runs a core until the server has stopped. Only inside a runtime, as its root future.
pub(super) async fn run(parts: Parts) {
    let listener = parts.listener;
    let watch = match Watch::new() {
        Ok(watch) => watch,
        Err(error) => return tracing::error!("a core cannot start: {error}"),
    };
    let core = Rc::new(Core {
        driver: parts.driver,
        shard: RefCell::new(parts.shard),
        scratch: RefCell::new(vec![0; READ_SCRATCH_BYTES].into_boxed_slice()),
        reading: Gate::default(),
        sockets: RefCell::default(),
        paused: RefCell::default(),
        watch,
        kernel_pipes: KernelPipes::default(),
        splice: parts.splice,
        mailbox: RefCell::new(parts.mailbox),
        shards: parts.shards,
        waiting: RefCell::default(),
        overview: parts.overview,
        started: parts.started,
        turn_ms: Cell::new(None),
        root: RefCell::new(Waker::noop().clone()),
        is_armed: Cell::new(false),
        stopping: parts.stopping,
        shutdown_grace: parts.shutdown_grace,
        stop: Cell::new(Stop::NotYet),
        acceptors: RefCell::new([Waker::noop().clone(), Waker::noop().clone()]),
        accepting: Cell::new(1 + usize::from(parts.private_listener.is_some())),
        ticks_since_last: Cell::new(0),
    });
    core.set_clock();
    monoio::spawn(accept_all(Rc::clone(&core), listener, Port::Public));
    if let Some(listener) = parts.private_listener {
        monoio::spawn(accept_all(Rc::clone(&core), listener, Port::Private));
    }
    monoio::spawn(tick(Rc::clone(&core)));
    monoio::spawn(answer_bell(Rc::clone(&core)));
    monoio::spawn(cut_reset(Rc::clone(&core)));
    poll_fn(|context| {
        core.root.borrow_mut().clone_from(context.waker());
        core.end_turn();
        core.turn_ms.set(None);
        if core.has_stopped() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Tells the shard the time.
async fn tick(core: Rc<Core>) {
    loop {
        monoio::time::sleep(Duration::from_millis(TICK_MS)).await;
        core.begin_turn();
        core.set_clock();
        let now_ms = core.now_ms();
        core.guarded("time passed", |shard| shard.handle_tick(now_ms));
        core.ticks_since_last.set(core.ticks_since_last.get() + 1);
        core.end_turn_soon();
    }
}

/// Tells the shard once that some time has passed.
async fn remind(core: Rc<Core>, after_ms: u64) {
    monoio::time::sleep(Duration::from_millis(after_ms)).await;
    core.begin_turn();
    let now_ms = core.now_ms();
    core.guarded("a reminder came", |shard| shard.handle_reminder(now_ms));
    core.end_turn_soon();
}

/// Ends a turn whenever another thread rings.
async fn answer_bell(core: Rc<Core>) {
    let bell = core.mailbox.borrow().bell().try_clone_to_owned().and_then(Socket::new);
    let bell = match bell {
        Ok(bell) => bell,
        Err(error) => return tracing::error!("the doorbell cannot be waited for: {error}"),
    };
    loop {
        if let Err(error) = bell.readable().await {
            tracing::error!("waiting for the doorbell failed: {error}");
        }
        core.is_armed.set(false);
        core.mailbox.borrow().disarm();
        core.end_turn_soon();
    }
}

impl Core {
    /// Milliseconds since the server's start, as of the beginning of this turn: the clock is read once for all that a
    /// turn handles.
    pub(super) fn now_ms(&self) -> u64 {
        if let Some(now_ms) = self.turn_ms.get() {
            return now_ms;
        }
        let now_ms = self.started.elapsed().as_millis() as u64;
        self.turn_ms.set(Some(now_ms));
        now_ms
    }

    /// Something has happened: others need not ring until the end of the turn.
    pub(super) fn begin_turn(&self) {
        if self.is_armed.replace(false) {
            self.mailbox.borrow().stand_down();
        }
    }

    /// Has the end of the turn run once the other tasks have.
    pub(super) fn end_turn_soon(&self) {
        self.root.borrow().wake_by_ref();
    }

    /// Tells the shard what the wall clock says.
    fn set_clock(&self) {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at_start = unix.saturating_sub(self.started.elapsed());
        self.shard.borrow_mut().set_clock(at_start.as_millis() as u64);
    }

    /// Whether the server stops; if not, `waker` is woken when it does.
    pub(super) fn is_stopping_or_wake(&self, port: Port, waker: &Waker) -> bool {
        self.acceptors.borrow_mut()[port as usize].clone_from(waker);
        self.stop.get() != Stop::NotYet
    }

    /// A listener is closed.
    pub(super) fn handle_accept_ended(&self) {
        self.accepting.set(self.accepting.get().saturating_sub(1));
        self.end_turn_soon();
    }

    /// Does something for one client. A panic is counted and logged, the client is cut, and the shard goes on.
    pub(super) fn guarded_for(&self, slot: Slot, work: impl FnOnce()) {
        if let Err(panic) = caught(work) {
            tracing::error!(slot = slot.0, "panic while a client was handled: {panic}");
            let now_ms = self.now_ms();
            self.guarded("a client was cut", |shard| shard.handle_panic(slot, now_ms));
        }
    }

    /// Hands the shard something that no one client is to blame for. A panic is counted and logged, and the shard
    /// goes on.
    pub(super) fn guarded(&self, what: &str, handle: impl FnOnce(&mut Shard)) {
        if let Err(panic) = caught(|| handle(&mut self.shard.borrow_mut())) {
            self.shard.borrow().counters().panics.add(1);
            tracing::error!("panic while {what}: {panic}");
        }
    }

    /// All tasks have run and the thread is about to sleep: handle mail, send what has gathered, arm the doorbell.
    fn end_turn(self: &Rc<Self>) {
        self.check_stop();
        let mut room_for_mail = MAIL_BATCH;
        loop {
            self.handle_mail(&mut room_for_mail);
            self.flush();
            self.set_reminder();
            self.deliver_mail();
            if room_for_mail == 0 {
                // Clients get their turn; the bell brings us back.
                self.mailbox.borrow().waker().wake();
                return;
            }
            if self.mailbox.borrow().arm() {
                self.is_armed.set(true);
                return;
            }
        }
    }

    fn handle_mail(self: &Rc<Self>, room: &mut usize) {
        let now_ms = self.now_ms();
        while *room > 0 {
            let popped = self.mailbox.borrow_mut().pop();
            let Some((_, letter)) = popped else { return };
            *room -= 1;
            match letter {
                Letter::Mail(mail) => {
                    self.guarded("mail was handled", |shard| shard.handle_mail(mail, now_ms));
                }
                Letter::Socket(fd, arrival) => self.arrive(fd, *arrival),
                Letter::FromCluster(mail) => {
                    self.guarded("another host was heard", |shard| shard.handle_cluster_mail(mail, now_ms));
                }
                Letter::ToCluster(_) => debug_assert!(false, "a core is not the cluster"),
            }
        }
    }

    /// Sends what has gathered, one write per client.
    fn flush(self: &Rc<Self>) {
        loop {
            self.handle_events();
            let Some(slot) = self.shard.borrow_mut().poll_dirty() else { break };
            if let Some(socket) = self.socket(slot) {
                self.guarded_for(slot, || self.send(slot, &socket));
            }
        }
        self.handle_events();
    }

    /// Writes until the outbox is empty or the socket full.
    fn send(self: &Rc<Self>, slot: Slot, socket: &Rc<Socket>) {
        let mut shard = self.shard.borrow_mut();
        loop {
            let (len, written) = {
                let pieces = shard.gather(slot);
                let len: usize = pieces.iter().map(|piece| piece.len()).sum();
                if len == 0 {
                    return;
                }
                (len, socket.write(&pieces))
            };
            match written {
                Ok(count) => {
                    shard.handle_sent(slot, count);
                    if count < len {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return shard.handle_write_failed(slot, self.now_ms()),
            }
        }
        shard.handle_blocked(slot);
        monoio::spawn(wait_writable(Rc::clone(self), Rc::clone(socket), slot));
    }

    /// Carries out what the shard asks for.
    pub(super) fn handle_events(&self) {
        loop {
            let event = self.shard.borrow_mut().poll_event();
            match event {
                None => return,
                Some(Event::Request { slot, head, is_private }) => self.answer(slot, &head, is_private),
                Some(Event::Move { slot, to, arrival }) => self.send_socket(slot, to, arrival),
                Some(Event::Resume(slot)) => self.wake(slot),
                Some(Event::OpenedRaw(slot)) => self.with_socket(slot, Socket::prepare_raw),
                Some(Event::FinishWriting(slot)) => self.with_socket(slot, Socket::finish_writing),
                Some(Event::Cut(slot)) => {
                    self.with_socket(slot, Socket::cut);
                    self.wake(slot);
                }
                Some(Event::Reset(slot)) => {
                    self.with_socket(slot, Socket::reset);
                    self.wake(slot);
                }
            }
        }
    }

    fn answer(&self, slot: Slot, head: &RequestHead, is_private: bool) {
        let is_local = || self.socket(slot).is_some_and(|socket| socket.is_peer_local());
        let answer = {
            let shard = self.shard.borrow();
            let names = || shard.directory_names().map(str::to_owned).collect();
            http::answer(head, &self.overview, &Caller { is_local: &is_local, is_private, names: &names })
        };
        self.guarded_for(slot, || {
            self.shard.borrow_mut().handle_response(slot, &answer.bytes, answer.keep_alive);
        });
    }

    fn set_reminder(self: &Rc<Self>) {
        if let Some(after_ms) = self.shard.borrow_mut().poll_reminder() {
            monoio::spawn(remind(Rc::clone(self), after_ms));
        }
    }

    fn deliver_mail(&self) {
        let mut mailbox = self.mailbox.borrow_mut();
        let mut shard = self.shard.borrow_mut();
        shard.deliver_mail(|to, mail| {
            mailbox.push(to.position(), Letter::Mail(mail)).map_err(|letter| match letter {
                Letter::Mail(mail) => mail,
                Letter::Socket(..) | Letter::ToCluster(_) | Letter::FromCluster(_) => {
                    unreachable!("what was pushed comes back")
                }
            })
        });
        shard.deliver_cluster_mail(|parcel| {
            mailbox.push(self.shards, Letter::ToCluster(parcel)).map_err(|letter| match letter {
                Letter::ToCluster(parcel) => parcel,
                Letter::Socket(..) | Letter::Mail(_) | Letter::FromCluster(_) => {
                    unreachable!("what was pushed comes back")
                }
            })
        });
        deliver_sockets(&mut self.waiting.borrow_mut(), &mut mailbox);
        mailbox.ring();
        if shard.is_reading_paused() {
            if !self.reading.is_shut() {
                shard.counters().reading_paused.add(1);
            }
            self.reading.shut();
        } else {
            self.reading.open();
        }
    }

    /// Begins the shutdown when a signal has come.
    fn check_stop(&self) {
        if self.stop.get() != Stop::NotYet || !self.stopping.load(Ordering::Acquire) {
            return;
        }
        self.stop.set(Stop::Draining { until: Instant::now() + self.shutdown_grace });
        self.ticks_since_last.set(0);
        self.acceptors.borrow().iter().for_each(Waker::wake_by_ref);
        let now_ms = self.now_ms();
        self.guarded("the server shuts down", |shard| shard.handle_shutdown(now_ms));
    }

    fn has_stopped(&self) -> bool {
        let Stop::Draining { until } = self.stop.get() else { return false };
        if self.accepting.get() > 0 || self.shard.borrow().connections() > 0 {
            self.ticks_since_last.set(0);
        }
        self.ticks_since_last.get() >= TICKS_AFTER_LAST || Instant::now() >= until
    }
}
