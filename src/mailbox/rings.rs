//! One direction between two shards: a ring buffer with the flag and the bells that go with it.

use super::doorbell::{Chime, Doorbell, Starved};
use rtrb::{Consumer, Producer, PushError, RingBuffer};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, read, write};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// The bell of a shard.
pub(super) type Bell = Doorbell<EventFd>;

/// A ring buffer of `capacity` elements between the owners of two bells.
pub(super) fn ring_buffer<T>(
    capacity: usize,
    from: &Arc<Bell>,
    to: &Arc<Bell>,
) -> (Outgoing<T>, Incoming<T>) {
    let (producer, consumer) = RingBuffer::new(capacity);
    let starved = Arc::new(Starved::new());
    let outgoing =
        Outgoing { producer, starved: starved.clone(), receiver: to.clone(), pushed: Cell::new(false) };
    let incoming = Incoming { consumer, starved, sender: from.clone(), popped: Cell::new(false) };
    (outgoing, incoming)
}

/// The sender's end.
pub(super) struct Outgoing<T> {
    producer: Producer<T>,
    starved: Arc<Starved>,
    receiver: Arc<Bell>,
    /// Something was pushed of which the receiver has not been told.
    pushed: Cell<bool>,
}

impl<T> Outgoing<T> {
    /// Gives the mail back when there is no room; then our bell rings when there is.
    pub(super) fn push(&mut self, mail: T) -> Result<(), T> {
        let producer = &mut self.producer;
        self.starved.push(mail, |mail| producer.push(mail).map_err(|PushError::Full(mail)| mail))?;
        self.pushed.set(true);
        Ok(())
    }

    /// After `publish`: tells a receiver that sleeps of what was pushed.
    pub(super) fn tell(&self) {
        if self.pushed.take() {
            self.receiver.ring_if_armed();
        }
    }
}

/// The receiver's end.
pub(super) struct Incoming<T> {
    consumer: Consumer<T>,
    starved: Arc<Starved>,
    sender: Arc<Bell>,
    /// Something was taken out of which the sender has not been told.
    popped: Cell<bool>,
}

impl<T> Incoming<T> {
    /// The oldest mail.
    pub(super) fn pop(&mut self) -> Option<T> {
        let mail = self.consumer.pop().ok()?;
        self.popped.set(true);
        Some(mail)
    }

    /// Whether there is no mail, as far as this thread can see.
    pub(super) fn is_empty(&self) -> bool {
        self.consumer.is_empty()
    }

    /// After `publish`: tells a sender that waits for room of what was taken out.
    pub(super) fn tell(&self) {
        if self.popped.take() && self.starved.take() {
            self.sender.ring();
        }
    }
}

/// The noise of a bell.
pub(super) struct EventFd(OwnedFd);

impl EventFd {
    /// Fails when the process or the system has no file descriptor left.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?))
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Chime for EventFd {
    fn strike(&self) {
        let written = write(&self.0, &1u64.to_ne_bytes());
        // EAGAIN: the counter is at its maximum, so the bell rings already. Anything else would be a
        // descriptor that someone closed behind our back, and a shard that sleeps for ever.
        assert!(matches!(written, Ok(8) | Err(Errno::AGAIN)), "eventfd write: {written:?}");
    }

    fn silence(&self) {
        let taken = read(&self.0, &mut [0; 8]);
        // EAGAIN: it was silent.
        assert!(matches!(taken, Ok(8) | Err(Errno::AGAIN)), "eventfd read: {taken:?}");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::mailbox::Mailbox;
    use crate::mailbox::tests::{rings, two};
    use std::thread;
    use std::time::{Duration, Instant};

    #[test]
    fn a_saturated_bell_is_struck_and_silenced() {
        let bell = EventFd::new().unwrap();
        write(&bell, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        bell.strike();
        bell.silence();
        assert_eq!(read(&bell, &mut [0; 8]), Err(Errno::AGAIN));
        bell.silence();
    }

    /// Sends 0, 1, 2, … to the other shard and expects the same from it. Returns how often it slept.
    fn exchange(mut mailbox: Mailbox<u32>, other: usize, count: u32) -> u32 {
        let deadline = Instant::now() + Duration::from_secs(120);
        let (mut sent, mut received, mut sleeps) = (0, 0, 0);
        loop {
            while let Some(mail) = mailbox.pop() {
                assert_eq!(mail, (other, received));
                received += 1;
            }
            while sent < count && mailbox.push(other, sent).is_ok() {
                sent += 1;
            }
            mailbox.ring();
            if sent == count && received == count {
                return sleeps;
            }
            if mailbox.arm() {
                let left = deadline.saturating_duration_since(Instant::now());
                let patience = left.min(Duration::from_secs(10));
                assert!(rings(&mailbox, patience), "lost: {sent} sent, {received} received, {sleeps} sleeps");
                mailbox.disarm();
                sleeps += 1;
            }
        }
    }

    #[test]
    fn a_million_each_way_through_eight_places() {
        let (a, b) = two(8);
        let a = thread::spawn(|| exchange(a, 1, 1_000_000));
        let b = thread::spawn(|| exchange(b, 0, 1_000_000));
        let (a, b) = (a.join().unwrap(), b.join().unwrap());
        assert!(a > 0 && b > 0, "nobody ever slept: {a}, {b}");
    }
}
