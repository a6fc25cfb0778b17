//! How one thread waits for another without missing the moment, and without a system call when nobody waits.
//!
//! Both waits, for mail ([`Doorbell`]) and for room ([`Starved`]), are Dekker's pattern. Who is about to wait
//! raises a flag, then looks once more; who changes something changes it, then looks at the flag. With a
//! sequentially consistent fence between the two steps on both sides at least one of them sees the other.
//! With either fence left out both may look too early, and the wake-up is lost (`tests/loom_doorbell.rs`
//! shows both).

use super::sync::{AtomicBool, Ordering, fence};

/// Stands between what this thread has put into or taken out of ring buffers and its first look at the flags
/// of others. One call covers any number of changes before it and looks after it.
pub(crate) fn publish() {
    fence(Ordering::SeqCst);
}

/// What makes the noise: an eventfd, or loom's model of one.
pub(crate) trait Chime {
    /// Makes it readable, and readable it stays until it is silenced. Any thread.
    fn strike(&self);
    /// Makes it unreadable. Its owner alone.
    fn silence(&self);
}

/// The bell of one thread, its owner; others ring it.
pub(crate) struct Doorbell<C> {
    armed: Flag,
    chime: C,
}

impl<C: Chime> Doorbell<C> {
    /// A bell that is not armed.
    pub(crate) fn new(chime: C) -> Self {
        Self { armed: Flag::new(), chime }
    }

    /// What the owner waits for once `arm` has said so.
    pub(crate) fn chime(&self) -> &C {
        &self.chime
    }

    /// The owner is about to sleep. `true`: it may, until the chime is readable; `false`: `nothing_there` saw
    /// something after all, and the bell is not armed.
    pub(crate) fn arm(&self, nothing_there: impl FnOnce() -> bool) -> bool {
        self.armed.raise();
        let sleep = nothing_there();
        if !sleep {
            self.armed.lower();
        }
        sleep
    }

    /// The owner is awake. It looks at its ring buffers after this, so whatever the silenced strikes stood
    /// for is seen.
    pub(crate) fn disarm(&self) {
        self.chime.silence();
        self.armed.lower();
    }

    /// The owner woke up for another reason and will look at its ring buffers before it arms again: until then
    /// nobody needs to ring. A strike that came before this stays.
    pub(crate) fn stand_down(&self) {
        self.armed.lower();
    }

    /// Rings if the owner sleeps and nobody has rung yet. After `publish`.
    pub(crate) fn ring_if_armed(&self) {
        if self.armed.take() {
            self.chime.strike();
        }
    }

    /// Rings in any case; an owner that is awake finds the chime readable when it next sleeps.
    pub(crate) fn ring(&self) {
        self.chime.strike();
    }
}

/// Beside a ring buffer: its sender found it full and waits for room.
pub(crate) struct Starved(Flag);

impl Starved {
    /// Nobody waits.
    pub(crate) fn new() -> Self {
        Self(Flag::new())
    }

    /// The sender pushes `mail` by `push`, which gives it back when the ring buffer is full. It is tried
    /// twice: the receiver may have emptied the buffer before it could see the flag, and then nobody would
    /// ever look at it.
    pub(crate) fn push<M>(&self, mail: M, mut push: impl FnMut(M) -> Result<(), M>) -> Result<(), M> {
        let Err(mail) = push(mail) else { return Ok(()) };
        self.0.raise();
        push(mail).inspect(|()| self.0.lower())
    }

    /// The receiver has taken something out and published that. `true`: it must ring the sender, armed or
    /// not: a sender that is still awake has seen "full" already and, when it arms, looks for mail only, not
    /// for room. A strike outlasts that, and it costs one write per time that the sender ran into the full
    /// buffer.
    pub(crate) fn take(&self) -> bool {
        self.0.take()
    }
}

/// A flag on cache lines of its own (two, because processors fetch them in pairs): others look at it once per
/// turn.
///
/// All accesses are relaxed; the fences order them against the ring buffers.
#[repr(align(128))]
struct Flag(AtomicBool);

impl Flag {
    fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// For who waits: what it looks at after this is not older than what those saw who missed the flag.
    fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    fn lower(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// For the others, after `publish`: of many who see the flag, one gets it. The load first, because an
    /// exchange takes the line away from its owner even when there is nothing to take. No swap, because one
    /// that comes too late would write a second `false`: C++'s atomicity forbids that this hides the next
    /// `raise`, but loom allows it.
    fn take(&self) -> bool {
        self.0.load(Ordering::Relaxed)
            && self.0.compare_exchange(true, false, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}
