//! The sockets of one core: where they come from, where they go, and whether they are read from.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::accept::Port;
use super::connection::{Read, serve};
use super::core::{Core, Letter};
use super::socket::Socket;
use crate::id::{ShardIndex, Slot};
use crate::mailbox::Mailbox;
use crate::shard::arrival::Arrival;

/// Hands sockets to their cores, as far as there is room in the rings.
pub(super) fn deliver_sockets(waiting: &mut VecDeque<(ShardIndex, Letter)>, mailbox: &mut Mailbox<Letter>) {
    for _ in 0..waiting.len() {
        let Some((to, letter)) = waiting.pop_front() else { return };
        if let Err(letter) = mailbox.push(to.position(), letter) {
            waiting.push_back((to, letter));
        }
    }
}

impl Core {
    /// Takes over an accepted connection.
    pub(super) fn open(self: &Rc<Self>, fd: OwnedFd, port: Port) {
        // Without it small frames would wait for acknowledgements; an error only costs that.
        let _ = rustix::net::sockopt::set_tcp_nodelay(&fd, true);
        self.begin_turn();
        let now_ms = self.now_ms();
        let slot = match port {
            Port::Public => self.shard.borrow_mut().handle_accept(now_ms),
            Port::Private => self.shard.borrow_mut().handle_accept_private(now_ms),
        };
        self.serve(fd, slot);
    }

    /// Takes over a connection from another core.
    pub(super) fn arrive(self: &Rc<Self>, fd: OwnedFd, arrival: Arrival) {
        let now_ms = self.now_ms();
        let mut slot = None;
        self.guarded("a connection arrived", |shard| slot = shard.handle_arrival(arrival, now_ms));
        self.serve(fd, slot);
    }

    /// Starts the task of a connection that the shard has given a slot, if it has.
    fn serve(self: &Rc<Self>, fd: OwnedFd, slot: Option<Slot>) {
        self.end_turn_soon();
        let Some(slot) = slot else {
            return self.shard.borrow().counters().connections_shed.add(1);
        };
        let Ok(socket) = Socket::new(fd).map(Rc::new) else { return self.close(slot) };
        let mut sockets = self.sockets.borrow_mut();
        let index = slot.0 as usize;
        if index >= sockets.len() {
            sockets.resize(index + 1, None);
        }
        sockets[index] = Some(Rc::clone(&socket));
        drop(sockets);
        self.handle_events();
        if self.is_current(slot, &socket) {
            monoio::spawn(serve(Rc::clone(self), socket, slot));
        } else {
            self.close(slot);
        }
    }

    /// Whether nothing is to be read from a client.
    pub(super) fn is_paused(&self, slot: Slot) -> bool {
        self.shard.borrow_mut().is_paused(slot)
    }

    /// Whether a client is cut: nothing of it counts any more.
    pub(super) fn is_cut(&self, slot: Slot) -> bool {
        self.shard.borrow_mut().is_cut(slot)
    }

    /// Whether nothing may be read from a client for any time.
    pub(super) fn is_paused_for_long(&self, slot: Slot) -> bool {
        self.shard.borrow_mut().is_paused_for_long(slot)
    }

    /// Waits until a client is read from again.
    pub(super) async fn resumed(&self, slot: Slot) {
        poll_fn(|context| {
            if !self.is_paused(slot) {
                return Poll::Ready(());
            }
            self.wake_on_change(slot, context.waker());
            Poll::Pending
        })
        .await;
    }

    /// Has a task woken when its client is read from again, or is cut.
    pub(super) fn wake_on_change(&self, slot: Slot, waker: &Waker) {
        self.paused.borrow_mut().insert(slot, waker.clone());
    }

    pub(super) fn wake(&self, slot: Slot) {
        if let Some(waker) = self.paused.borrow_mut().remove(&slot) {
            waker.wake();
        }
    }

    /// A connection is over: its slot is free.
    pub(super) fn close(&self, slot: Slot) {
        self.begin_turn();
        if let Some(socket) = self.take_socket(slot) {
            // Who still waits for room to write would keep it open.
            socket.cut();
        }
        let now_ms = self.now_ms();
        self.guarded("a client left", |shard| shard.handle_gone(slot, now_ms));
        // Now, before the slot is somebody else's.
        self.handle_events();
        self.end_turn_soon();
    }

    /// A client's stream has ended.
    pub(super) fn handle_end(&self, slot: Slot) -> Read {
        self.begin_turn();
        let lives_on = self.shard.borrow_mut().handle_end(slot, self.now_ms());
        self.handle_events();
        self.end_turn_soon();
        if lives_on { Read::More } else { Read::End }
    }

    /// What a client was to be sent cannot be.
    pub(super) fn handle_write_failed(&self, slot: Slot) {
        self.begin_turn();
        let now_ms = self.now_ms();
        self.guarded("a client was lost", |shard| shard.handle_write_failed(slot, now_ms));
        self.handle_events();
        self.end_turn_soon();
    }

    /// Where the kernel may move a client's bytes to, past the shard.
    pub(super) fn splice_target(&self, slot: Slot) -> Option<Slot> {
        self.shard.borrow_mut().splice_target(slot)
    }

    fn take_socket(&self, slot: Slot) -> Option<Rc<Socket>> {
        self.paused.borrow_mut().remove(&slot);
        self.sockets.borrow_mut().get_mut(slot.0 as usize).and_then(Option::take)
    }

    /// Whether this socket is still the one in its slot.
    pub(super) fn is_current(&self, slot: Slot, socket: &Rc<Socket>) -> bool {
        self.socket(slot).is_some_and(|current| Rc::ptr_eq(&current, socket))
    }

    pub(super) fn socket(&self, slot: Slot) -> Option<Rc<Socket>> {
        self.sockets.borrow().get(slot.0 as usize).cloned().flatten()
    }

    /// Sends a socket to another core, as a duplicate: what is read from it next is read there. Who waits for room to
    /// write keeps the file here open until there is some, or the connection is cut there.
    pub(super) fn send_socket(&self, slot: Slot, to: ShardIndex, arrival: Box<Arrival>) {
        let Some(socket) = self.take_socket(slot) else { return };
        // Without a file for it the connection is closed.
        if let Ok(fd) = rustix::io::fcntl_dupfd_cloexec(&*socket, 0) {
            self.waiting.borrow_mut().push_back((to, Letter::Socket(fd, arrival)));
        }
    }

    pub(super) fn with_socket(&self, slot: Slot, act: impl FnOnce(&Socket)) {
        if let Some(socket) = self.socket(slot) {
            act(&socket);
        }
    }
}
