//! One socket: what its client has sent and was not read yet, and how much it takes.

use std::collections::VecDeque;

use parlor::id::{ClientId, Slot};
use parlor::shard::Shard;

/// One socket.
#[derive(Debug)]
pub struct Peer {
    /// Where it is, or was before it moved.
    pub shard: usize,
    /// Its place there.
    pub slot: Slot,
    /// Its id there.
    pub id: ClientId,
    /// All that it was sent.
    pub received: Vec<u8>,
    /// The server has shut its side.
    pub is_finished: bool,
    /// The server has shut both sides.
    pub is_cut: bool,
    /// When it did, if it was for nothing but time.
    pub timed_out_ms: Option<u64>,
    /// When something was last read from it, and when it last took something.
    pub read_ms: u64,
    /// See `read_ms`.
    pub sent_ms: u64,
    /// It is closed.
    pub is_gone: bool,
    /// It is on its way to another shard.
    pub is_moving: bool,
    /// It carries raw bytes.
    pub is_raw: bool,
    /// Bytes that it still takes.
    pub(super) room: usize,
    pub(super) is_blocked: bool,
    /// Nothing was to be read from it when last seen.
    pub(super) is_paused: bool,
    /// Pieces that were sent and not read.
    pub(super) inbox: VecDeque<Vec<u8>>,
    /// Bytes that have left the inbox for the partner, past the shard, and not arrived.
    pub(super) kernel_pipe: Vec<u8>,
    /// What stands in the inbox is the last.
    pub(super) has_ended: bool,
    /// Its end was read, and the connection lives on.
    pub(super) is_half_closed: bool,
}

impl Peer {
    pub(super) fn new(shard: usize, slot: Slot, id: ClientId) -> Self {
        Self {
            shard,
            slot,
            id,
            received: Vec::new(),
            is_finished: false,
            is_cut: false,
            timed_out_ms: None,
            read_ms: 0,
            sent_ms: 0,
            is_gone: false,
            is_moving: false,
            is_raw: false,
            room: usize::MAX,
            is_blocked: false,
            is_paused: false,
            inbox: VecDeque::new(),
            kernel_pipe: Vec::new(),
            has_ended: false,
            is_half_closed: false,
        }
    }

    /// Whether a shard has it.
    #[must_use]
    pub fn is_there(&self) -> bool {
        !self.is_gone && !self.is_moving
    }

    /// Takes as many bytes as there is room for.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room);
        self.room -= count;
        self.received.extend_from_slice(&bytes[..count]);
        count
    }

    /// Writes until the outbox is empty or the socket full.
    pub(super) fn write(&mut self, shard: &mut Shard, now_ms: u64) {
        assert!(!self.is_blocked && !self.is_finished && !self.is_cut, "nothing can be sent there");
        loop {
            let waiting = gathered(shard, self.slot);
            if waiting.is_empty() {
                return;
            }
            let count = self.take(&waiting);
            if count > 0 {
                self.sent_ms = now_ms;
                shard.handle_sent(self.slot, count);
            }
            if count < waiting.len() {
                self.is_blocked = true;
                return shard.handle_blocked(self.slot);
            }
        }
    }
}

/// What one write would hand to the socket.
pub(super) fn gathered(shard: &mut Shard, slot: Slot) -> Vec<u8> {
    let pieces = shard.gather(slot);
    let mut bytes = Vec::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
    pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
    bytes
}
