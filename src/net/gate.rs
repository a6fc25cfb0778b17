//! A gate that tasks wait at while it is shut.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Open at first.
#[derive(Debug, Default)]
pub(super) struct Gate {
    is_shut: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Gate {
    /// Shuts the gate.
    pub(super) fn shut(&self) {
        self.is_shut.set(true);
    }

    /// Opens the gate and lets all go on that wait.
    pub(super) fn open(&self) {
        if self.is_shut.replace(false) {
            self.waiting.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Whether the gate is shut.
    pub(super) fn is_shut(&self) -> bool {
        self.is_shut.get()
    }

    /// Waits until the gate is open.
    pub(super) async fn pass(&self) {
        poll_fn(|context| {
            if !self.is_shut.get() {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
