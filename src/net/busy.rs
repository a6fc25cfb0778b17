//! How busy connections are read: each has a small buffer of its own in the kernel's hands, so that a message costs
//! one operation instead of a wait and a read. Those that fall silent go back to waiting without a buffer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use monoio::io::{CancelHandle, Canceller};
use slab::Slab;

use crate::limits::{READ_BUFFER_BYTES, READ_BUFFERS_POOLED_MAX};

/// The busy connections of one core.
#[derive(Default)]
pub(super) struct BusyReads {
    connections: RefCell<Slab<Rc<Activity>>>,
    buffers: RefCell<Vec<Vec<u8>>>,
    period: Cell<u32>,
}

/// What a sweep knows of a busy connection.
#[derive(Default)]
struct Activity {
    canceller: RefCell<Canceller>,
    has_read: Cell<bool>,
}

impl BusyReads {
    /// The number of the current period; a connection that is read twice in one is busy.
    pub(super) fn period(&self) -> u32 {
        self.period.get()
    }

    /// Begins the next period: reads of connections that brought nothing in the last one are cancelled.
    pub(super) fn sweep(&self) {
        self.period.set(self.period.get().wrapping_add(1));
        for (_, activity) in self.connections.borrow().iter() {
            if !activity.has_read.replace(false) {
                let canceller = activity.canceller.take();
                activity.canceller.replace(canceller.cancel());
            }
        }
        let mut buffers = self.buffers.borrow_mut();
        let kept = buffers.len() / 2;
        buffers.truncate(kept);
    }

    /// Makes a connection busy, until what is returned is dropped.
    pub(super) fn enter(&self) -> BusyRead<'_> {
        let activity = Rc::new(Activity { has_read: Cell::new(true), ..Activity::default() });
        let key = self.connections.borrow_mut().insert(Rc::clone(&activity));
        let buffer = self.buffers.borrow_mut().pop();
        let buffer = buffer.unwrap_or_else(|| Vec::with_capacity(READ_BUFFER_BYTES));
        BusyRead { reads: self, key, activity, buffer }
    }
}

/// One busy connection.
pub(super) struct BusyRead<'a> {
    reads: &'a BusyReads,
    key: usize,
    activity: Rc<Activity>,
    /// Empty while it is in the kernel's hands.
    pub(super) buffer: Vec<u8>,
}

impl BusyRead<'_> {
    /// What the next read can be cancelled with.
    pub(super) fn cancel_handle(&self) -> CancelHandle {
        self.activity.canceller.borrow().handle()
    }

    /// Something was read.
    pub(super) fn mark(&self) {
        self.activity.has_read.set(true);
    }
}

impl Drop for BusyRead<'_> {
    fn drop(&mut self) {
        self.reads.connections.borrow_mut().remove(self.key);
        let mut buffers = self.reads.buffers.borrow_mut();
        if self.buffer.capacity() > 0 && buffers.len() < READ_BUFFERS_POOLED_MAX {
            buffers.push(std::mem::take(&mut self.buffer));
        }
    }
}
