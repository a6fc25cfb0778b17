//! What crosses shards: a ring buffer per direction and pair of shards, and a doorbell (eventfd) per shard.
//!
//! A shard is one thread with an event loop of its own. Mail is moved, never shared, and a shard that is
//! awake is never rung, so under load a hop costs no system call. Nothing here blocks; a full ring buffer
//! gives the mail back.
//!
//! The turn of a loop, which is also the contract:
//!
//! ```no_run
//! # use parlor::mailbox::{Mailbox, mailboxes};
//! # fn handle(_: usize, _: String) {}
//! # fn wait_until_readable(_: std::os::fd::BorrowedFd<'_>) {}
//! # let mut mailbox: Mailbox<String> = mailboxes(4, 1024)?.remove(0);
//! loop {
//!     // Mail that an earlier push gave back goes first, here: after every disarm and before the next arm.
//!     while let Some((from, mail)) = mailbox.pop() {
//!         handle(from, mail); // may push
//!     }
//!     mailbox.ring();
//!     if mailbox.arm() {
//!         wait_until_readable(mailbox.bell());
//!         mailbox.disarm();
//!     }
//! }
//! # #[allow(unreachable_code)]
//! # Ok::<(), std::io::Error>(())
//! ```

mod doorbell;
mod rings;
mod sync;

use doorbell::publish;
use rings::{Bell, EventFd, Incoming, Outgoing, ring_buffer};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// So many mails in a row are taken from one sender while others wait. More than one, because looking into
/// every empty ring buffer for each mail would cost more than the mail itself when there are many shards.
const BURST: usize = 16;

/// Makes the mailboxes of `shards` shards, with `capacity` elements in each of the `shards`² ring buffers
/// (there is one from each shard to itself, too, so that nobody needs to tell the difference). Element i goes
/// to the thread of shard i.
///
/// Fails when there are no file descriptors left; it takes one per shard. Panics if `capacity` is 0, because
/// then no mail would ever arrive.
pub fn mailboxes<T: Send>(shards: usize, capacity: usize) -> io::Result<Vec<Mailbox<T>>> {
    assert!(capacity > 0, "a ring buffer needs room for one");
    let bells: Vec<_> =
        (0..shards).map(|_| Ok(Arc::new(Bell::new(EventFd::new()?)))).collect::<io::Result<_>>()?;
    let mut mailboxes: Vec<_> = bells.iter().cloned().map(Mailbox::new).collect();
    for from in 0..shards {
        for to in 0..shards {
            let (outgoing, incoming) = ring_buffer(capacity, &bells[from], &bells[to]);
            mailboxes[from].outgoing.push(outgoing);
            mailboxes[to].incoming.push(incoming);
        }
    }
    Ok(mailboxes)
}

/// One shard's end of all ring buffers from and to it. It may move to another thread, but is used by one at a
/// time.
///
/// When it is dropped, mail to it is still accepted until its ring buffers are full, and lost.
pub struct Mailbox<T> {
    /// By receiver.
    outgoing: Vec<Outgoing<T>>,
    /// By sender.
    incoming: Vec<Incoming<T>>,
    bell: Arc<Bell>,
    /// Something was pushed or popped since the others were last told.
    untold: Cell<bool>,
    /// The sender whose turn it is, and how many mails that turn has left.
    turn: usize,
    left: usize,
}

impl<T> Mailbox<T> {
    fn new(bell: Arc<Bell>) -> Self {
        Self { outgoing: vec![], incoming: vec![], bell, untold: Cell::new(false), turn: 0, left: BURST }
    }

    /// Puts `mail` into the ring buffer to the shard `to`, which hears of it with the next
    /// [`ring`](Self::ring).
    ///
    /// Err gives the mail back when that ring buffer is full. Our own bell then rings once the receiver has
    /// taken something out, so the caller may sleep and try again after the next [`disarm`](Self::disarm).
    /// Panics if there is no shard `to`.
    pub fn push(&mut self, to: usize, mail: T) -> Result<(), T> {
        self.outgoing[to].push(mail)?;
        self.untold.set(true);
        Ok(())
    }

    /// Rings those who sleep and to whom something was pushed since the last call, and those who wait for
    /// room in a ring buffer out of which something was popped since. Called once per turn of the loop, so
    /// that a burst costs one ring.
    pub fn ring(&mut self) {
        self.tell();
    }

    /// Takes the next mail and says from which shard it is: in order per sender, and round the senders, at
    /// most 16 mails from one while others wait. A sender that waits for room hears of it with the next
    /// [`ring`](Self::ring).
    pub fn pop(&mut self) -> Option<(usize, T)> {
        // Once more than there are senders: the first may be one whose turn is over but who is alone.
        for _ in 0..=self.incoming.len() {
            if self.left > 0
                && let Some(mail) = self.incoming[self.turn].pop()
            {
                self.left -= 1;
                self.untold.set(true);
                return Some((self.turn, mail));
            }
            self.turn = (self.turn + 1) % self.incoming.len();
            self.left = BURST;
        }
        None
    }

    /// Announces that this shard is about to sleep. True: there is no mail; wait for [`bell`](Self::bell) to
    /// become readable, then call [`disarm`](Self::disarm). False: there is; pop again (the bell is not
    /// armed).
    ///
    /// It looks for mail only. Whoever holds back mail that [`push`](Self::push) returned tries again after
    /// every `disarm`, not only when mail arrives.
    pub fn arm(&self) -> bool {
        // Who sleeps without having told the others might leave them waiting for ever.
        self.tell();
        self.bell.arm(|| self.incoming.iter().all(Incoming::is_empty))
    }

    /// Tells the others, without a system call, that this shard is awake and will pop before it arms again.
    pub fn stand_down(&self) {
        self.bell.stand_down();
    }

    /// Silences the bell and disarms it. After the bell became readable, or earlier if the loop woke up for
    /// another reason; harmless when nobody rang. Pop and retry after it, not before.
    pub fn disarm(&self) {
        self.bell.disarm();
    }

    /// A handle with which any thread can wake this shard.
    pub fn waker(&self) -> Waker {
        Waker(self.bell.clone())
    }

    /// The eventfd that becomes readable when someone rings. Only to wait for: [`disarm`](Self::disarm) reads
    /// it.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.chime().as_fd()
    }

    /// One fence for all that was pushed and popped, and only then a look at everybody's flags.
    fn tell(&self) {
        if self.untold.take() {
            publish();
            self.outgoing.iter().for_each(Outgoing::tell);
            self.incoming.iter().for_each(Incoming::tell);
        }
    }
}

impl<T> AsFd for Mailbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell()
    }
}

/// Wakes one shard from any thread: a signal, a stop, a thread that is no shard.
///
/// What the shard is to do when it wakes is told elsewhere. The eventfd lives as long as a waker does.
#[derive(Clone)]
pub struct Waker(Arc<Bell>);

impl Waker {
    /// Makes the shard's bell readable, whether it sleeps or not: one that is awake does not sleep next time.
    pub fn wake(&self) {
        self.0.ring();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::thread;
    use std::time::Duration;

    /// Whether the bell rings within `patience`.
    pub(super) fn rings(mailbox: &Mailbox<u32>, patience: Duration) -> bool {
        let patience = Timespec::try_from(patience).unwrap();
        poll(&mut [PollFd::new(mailbox, PollFlags::IN)], Some(&patience)).unwrap() == 1
    }

    pub(super) fn two(capacity: usize) -> (Mailbox<u32>, Mailbox<u32>) {
        let mut both = mailboxes(2, capacity).unwrap();
        let second = both.remove(1);
        (both.remove(0), second)
    }

    #[test]
    fn only_a_sleeping_shard_is_rung_and_a_burst_costs_one_ring() {
        let (mut a, mut b) = two(8);
        a.push(1, 0).unwrap();
        a.ring();
        assert!(!b.arm(), "there is mail");
        assert!(!rings(&b, Duration::ZERO), "b is awake");
        assert_eq!(b.pop(), Some((0, 0)));

        assert!(b.arm());
        (1..=5).for_each(|mail| a.push(1, mail).unwrap());
        assert!(!rings(&b, Duration::ZERO), "not rung yet");
        a.ring();
        a.push(1, 6).unwrap();
        a.ring();
        let mut count = [0; 8];
        rustix::io::read(&b, &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
        b.disarm();
        assert!((1..=6).all(|mail| b.pop() == Some((0, mail))));
        assert_eq!(b.pop(), None);
    }

    #[test]
    fn a_full_ring_buffer_gives_the_mail_back_and_rings_when_there_is_room() {
        let (mut a, mut b) = two(2);
        assert_eq!((a.push(1, 0), a.push(1, 1), a.push(1, 2)), (Ok(()), Ok(()), Err(2)));
        assert_eq!(b.pop(), Some((0, 0)));
        b.ring();
        assert!(a.arm(), "room is not mail");
        assert!(rings(&a, Duration::ZERO), "rung before it armed, and still");
        a.disarm();
        assert_eq!((a.push(1, 2), a.push(1, 3)), (Ok(()), Err(3)));
        assert_eq!((b.pop(), b.pop()), (Some((0, 1)), Some((0, 2))));
        assert!(b.arm(), "arm tells the sender, too");
        assert!(rings(&a, Duration::ZERO));
        a.disarm();
        b.ring();
        assert!(!rings(&a, Duration::ZERO), "told once");
    }

    #[test]
    fn senders_take_turns() {
        let mut shards = mailboxes(3, 100).unwrap();
        for (from, shard) in shards.iter_mut().enumerate() {
            (0..100).for_each(|mail| shard.push(2, (from as u32) << 16 | mail).unwrap());
        }
        let receiver = &mut shards[2];
        let mut next = [0; 3];
        for _ in 0..300 {
            let (from, mail) = receiver.pop().unwrap();
            assert_eq!((from as u32, next[from]), (mail >> 16, mail & 0xffff));
            next[from] += 1;
            assert!(next.iter().all(|&other| next[from] <= other + BURST as u32), "{next:?}");
        }
        assert!(receiver.pop().is_none());
    }

    #[test]
    fn a_waker_wakes_now_and_for_the_next_sleep() {
        let (a, _b) = two(1);
        let waker = a.waker();
        waker.wake();
        assert!(a.arm() && rings(&a, Duration::ZERO));
        a.disarm();
        assert!(a.arm() && !rings(&a, Duration::ZERO));
        thread::spawn(move || waker.clone().wake());
        assert!(rings(&a, Duration::from_secs(10)));
    }
}
