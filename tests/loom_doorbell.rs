//! Model-checks the real `src/mailbox/doorbell.rs` with loom: no wake-up is lost, and each fence is needed.
//!
//! The ring buffer and the eventfd are models; a lost wake-up is a deadlock, which loom reports. Every test
//! that takes something away must fail, so that the others mean something.

/// What doorbell.rs takes its atomics from. A thread of the model may leave its fences out.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, Ordering};
    use std::cell::Cell;

    loom::thread_local! {
        static FENCED: Cell<bool> = Cell::new(true);
    }

    pub(crate) fn with_fences(fenced: bool) {
        FENCED.with(|cell| cell.set(fenced));
    }

    pub(crate) fn fence(order: Ordering) {
        if FENCED.with(Cell::get) {
            loom::sync::atomic::fence(order);
        }
    }
}

#[allow(
    dead_code,
    reason = "standing down early is not modelled: it only lowers the flag, as disarming does"
)]
#[path = "../src/mailbox/doorbell.rs"]
mod doorbell;

use doorbell::{Chime, Doorbell, Starved, publish};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;
// Not loom's: its Arc panics when it is dropped while a deadlock is being reported, and that aborts.
use std::sync::Arc;

/// Whose fences are there.
#[derive(Clone, Copy)]
struct Fences {
    sender: bool,
    receiver: bool,
}

const BOTH: Fences = Fences { sender: true, receiver: true };
const NO_SENDERS: Fences = Fences { sender: false, receiver: true };
const NO_RECEIVERS: Fences = Fences { sender: true, receiver: false };

// Waiting for mail.

#[test]
fn one_sender_and_one_receiver_lose_no_wake_up() {
    check(|| mail(1, 2, BOTH));
}

#[test]
fn two_senders_and_one_receiver_lose_no_wake_up() {
    check(|| mail(2, 1, BOTH));
}

#[test]
#[should_panic(expected = "deadlock")]
fn mail_is_lost_without_the_senders_fence() {
    check(|| mail(1, 1, NO_SENDERS));
}

#[test]
#[should_panic(expected = "deadlock")]
fn mail_is_lost_without_the_receivers_fence() {
    check(|| mail(1, 1, NO_RECEIVERS));
}

/// Every sender sends `count` mails, ringing after each; the receiver sleeps until it has them all.
fn mail(senders: usize, count: usize, fences: Fences) {
    let bell = bell();
    let rings: Vec<_> = (0..senders).map(|_| Arc::new(Ring::new(2))).collect();
    for ring in &rings {
        let (bell, ring) = (bell.clone(), ring.clone());
        thread::spawn(move || {
            sync::with_fences(fences.sender);
            for mail in 0..count {
                ring.push(mail).expect("there is room for all");
                publish();
                bell.ring_if_armed();
            }
        });
    }
    sync::with_fences(fences.receiver);
    let mut received = 0;
    while received < senders * count {
        while rings.iter().any(|ring| ring.pop().is_some()) {
            received += 1;
        }
        if received < senders * count {
            sleep(&bell, || rings.iter().all(|ring| ring.is_empty()));
        }
    }
}

// Waiting for room.

#[test]
fn a_starved_sender_is_woken() {
    check(|| room(BOTH, Doorbell::ring));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_starved_sender_sleeps_for_ever_without_its_fence() {
    check(|| room(NO_SENDERS, Doorbell::ring));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_starved_sender_sleeps_for_ever_without_the_receivers_fence() {
    check(|| room(NO_RECEIVERS, Doorbell::ring));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_starved_sender_that_has_not_armed_yet_must_be_rung_as_well() {
    check(|| room(BOTH, Doorbell::ring_if_armed));
}

/// The ring buffer is full; the receiver empties it once and goes away, and the sender must get its mail in.
fn room(fences: Fences, wake: fn(&Doorbell<EventFd>)) {
    let (bell, ring, starved) = (bell(), Arc::new(Ring::new(1)), Arc::new(Starved::new()));
    ring.push(0).expect("it is empty");
    let receiver = {
        let (bell, ring, starved) = (bell.clone(), ring.clone(), starved.clone());
        thread::spawn(move || {
            sync::with_fences(fences.receiver);
            assert_eq!(ring.pop(), Some(0));
            publish();
            if starved.take() {
                wake(&bell);
            }
        })
    };
    sync::with_fences(fences.sender);
    while starved.push(1, |mail| ring.push(mail)).is_err() {
        sleep(&bell, || true);
    }
    receiver.join().expect("the receiver does not panic");
    assert_eq!(ring.pop(), Some(1));
}

// Both at once.

#[test]
fn sender_and_receiver_both_sleep_and_all_arrives() {
    check(both);
}

/// Three mails through one place; each side sleeps whenever it cannot go on.
fn both() {
    const COUNT: usize = 3;
    let (ring, starved) = (Arc::new(Ring::new(1)), Arc::new(Starved::new()));
    let (sender, receiver) = (bell(), bell());
    let sending = {
        let (ring, starved, sender, receiver) =
            (ring.clone(), starved.clone(), sender.clone(), receiver.clone());
        thread::spawn(move || {
            for mail in 0..COUNT {
                while starved.push(mail, |mail| ring.push(mail)).is_err() {
                    sleep(&sender, || true);
                }
                publish();
                receiver.ring_if_armed();
            }
        })
    };
    let mut received = 0;
    while received < COUNT {
        while let Some(mail) = ring.pop() {
            assert_eq!(mail, received);
            received += 1;
        }
        publish();
        if starved.take() {
            sender.ring();
        }
        if received < COUNT {
            sleep(&receiver, || ring.is_empty());
        }
    }
    sending.join().expect("the sender does not panic");
}

// The models.

/// One preemption is enough to find all the bugs above; four keep every test within a second or two. (Without
/// any bound, waiting for mail and waiting for room pass, too: 2 to 35 seconds each.)
fn check(scenario: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(4);
    model.check(scenario);
}

fn bell() -> Arc<Doorbell<EventFd>> {
    Arc::new(Doorbell::new(EventFd { count: Mutex::new(0), readable: Condvar::new() }))
}

/// What a shard does when it has nothing to do.
fn sleep(bell: &Doorbell<EventFd>, nothing_there: impl FnOnce() -> bool) {
    if bell.arm(nothing_there) {
        bell.chime().wait();
        bell.disarm();
    }
}

struct EventFd {
    count: Mutex<u64>,
    readable: Condvar,
}

impl EventFd {
    /// Waits until it is readable, and leaves it so, like poll(2).
    fn wait(&self) {
        let mut count = self.count.lock().expect("nobody panics");
        while *count == 0 {
            count = self.readable.wait(count).expect("nobody panics");
        }
    }
}

impl Chime for EventFd {
    fn strike(&self) {
        *self.count.lock().expect("nobody panics") += 1;
        self.readable.notify_one();
    }

    fn silence(&self) {
        *self.count.lock().expect("nobody panics") = 0;
    }
}

/// A ring buffer with rtrb's orderings: one sender, one receiver. Its slots are relaxed, so too little order
/// between the two ends would show as wrong mail.
struct Ring {
    head: AtomicUsize,
    tail: AtomicUsize,
    slots: Vec<AtomicUsize>,
}

impl Ring {
    fn new(capacity: usize) -> Self {
        let slots = (0..capacity).map(|_| AtomicUsize::new(usize::MAX)).collect();
        Self { head: AtomicUsize::new(0), tail: AtomicUsize::new(0), slots }
    }

    fn push(&self, mail: usize) -> Result<(), usize> {
        let tail = self.tail.load(Ordering::Relaxed);
        if tail - self.head.load(Ordering::Acquire) == self.slots.len() {
            return Err(mail);
        }
        self.slot(tail).store(mail, Ordering::Relaxed);
        self.tail.store(tail + 1, Ordering::Release);
        Ok(())
    }

    fn pop(&self) -> Option<usize> {
        let head = self.head.load(Ordering::Relaxed);
        if self.tail.load(Ordering::Acquire) == head {
            return None;
        }
        let mail = self.slot(head).load(Ordering::Relaxed);
        self.head.store(head + 1, Ordering::Release);
        Some(mail)
    }

    fn is_empty(&self) -> bool {
        self.tail.load(Ordering::Acquire) == self.head.load(Ordering::Relaxed)
    }

    fn slot(&self, index: usize) -> &AtomicUsize {
        &self.slots[index % self.slots.len()]
    }
}
