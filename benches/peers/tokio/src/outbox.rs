//! What a client has yet to be sent: one write per message, as is usual, or all that piles up in a turn in one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use fastwebsockets::Frame;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// More than a WebSocket frame's header ever takes (14).
const HEAD_BYTES_MAX: usize = 16;

/// How messages become writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    /// Each message is a write of its own, as with `write_frame` and a channel per client.
    Each,
    /// All that is pending is one write.
    Merged,
}

pub(crate) struct Outbox {
    writes: Writes,
    pending: RefCell<Vec<u8>>,
    /// Length of each pending frame; only kept for [`Writes::Each`].
    lengths: RefCell<VecDeque<usize>>,
    writer: Cell<Option<Waker>>,
    ended: Cell<bool>,
}

impl Outbox {
    pub(crate) fn new(writes: Writes) -> Self {
        Self {
            writes,
            pending: RefCell::default(),
            lengths: RefCell::default(),
            writer: Cell::default(),
            ended: Cell::default(),
        }
    }

    pub(crate) fn push(&self, mut frame: Frame<'_>) {
        let mut head = [0; HEAD_BYTES_MAX];
        let head_len = frame.fmt_head(&mut head);
        let mut pending = self.pending.borrow_mut();
        pending.extend_from_slice(&head[..head_len]);
        pending.extend_from_slice(&frame.payload);
        if self.writes == Writes::Each {
            self.lengths.borrow_mut().push_back(head_len + frame.payload.len());
        }
        self.wake_writer();
    }

    /// Nothing more will be pushed: `write_to` returns when all is written.
    pub(crate) fn end(&self) {
        self.ended.set(true);
        self.wake_writer();
    }

    pub(crate) async fn write_to(&self, mut socket: impl AsyncWrite + Unpin) {
        let mut batch = Vec::new();
        while poll_fn(|context| self.poll_batch(context, &mut batch)).await {
            let mut rest = batch.as_slice();
            while !rest.is_empty() {
                let (frame, after) = rest.split_at(self.next_length().unwrap_or(rest.len()));
                // The reader meets the same error, or the end of the stream, and ends the client.
                if socket.write_all(frame).await.is_err() {
                    return;
                }
                rest = after;
            }
            batch.clear();
        }
    }

    /// Swaps what is pending with the empty `batch`; false at the end.
    fn poll_batch(&self, context: &Context<'_>, batch: &mut Vec<u8>) -> Poll<bool> {
        let mut pending = self.pending.borrow_mut();
        if !pending.is_empty() {
            std::mem::swap(&mut *pending, batch);
            return Poll::Ready(true);
        }
        if self.ended.get() {
            return Poll::Ready(false);
        }
        self.writer.set(Some(context.waker().clone()));
        Poll::Pending
    }

    fn next_length(&self) -> Option<usize> {
        self.lengths.borrow_mut().pop_front()
    }

    fn wake_writer(&self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}
