//! A connection's bytes on their way, with what goes wrong with them.

use std::io::IoSlice;

use super::chance::Chance;

/// Bytes in one direction.
#[derive(Default)]
struct Pipe {
    bytes: Vec<u8>,
    /// Bytes at the front that were taken out.
    start: usize,
    /// All bytes that were ever taken out.
    taken: u64,
}

impl Pipe {
    fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    fn written(&self) -> u64 {
        self.taken + self.len() as u64
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn take(&mut self, max: usize) -> Vec<u8> {
        let count = self.len().min(max);
        let taken = self.bytes[self.start..self.start + count].to_vec();
        self.start += count;
        self.taken += count as u64;
        taken
    }
}

/// What the client has done with its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientEnd {
    /// It reads and writes.
    Open,
    /// It writes no more and reads on, as raw ends may.
    HalfFinished,
    /// It neither writes nor reads any more; what it wrote still arrives.
    Finished,
    /// It is gone, and what was under way with it.
    Reset,
    /// It is gone without a word, so that the server cannot know.
    Silent,
}

/// How much the server's writes can put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writes {
    /// All that there is room for.
    Room,
    OneByte,
    Nothing,
}

/// What a read of the server gives.
pub(super) enum Read {
    Bytes(Vec<u8>),
    Nothing,
    /// The end of what the client sends, or of our own side.
    End,
    /// The connection is lost.
    Failed,
}

/// What a write of the server gives.
pub(super) enum Write {
    /// So many bytes were taken.
    Took(usize),
    Failed,
}

/// A simulated TCP connection.
pub(super) struct Socket {
    to_server: Pipe,
    to_client: Pipe,
    /// Most bytes that wait for the client.
    room: usize,
    writes: Writes,
    /// The server shuts its side.
    pub(super) is_finished: bool,
    /// The server shut both sides.
    pub(super) is_cut: bool,
    /// The server has it reset.
    pub(super) is_reset: bool,
    /// It carries raw bytes.
    pub(super) is_raw: bool,
    pub(super) client: ClientEnd,
    /// Something was written to a client that is gone: the kernel knows it now.
    is_refused: bool,
}

impl Socket {
    pub(super) fn new(room: usize) -> Self {
        Self {
            to_server: Pipe::default(),
            to_client: Pipe::default(),
            room,
            writes: Writes::Room,
            is_finished: false,
            is_cut: false,
            is_reset: false,
            is_raw: false,
            client: ClientEnd::Open,
            is_refused: false,
        }
    }

    /// The server resets it: of what is under way to the client, a part is lost.
    pub(super) fn reset(&mut self, chance: &mut Chance) {
        self.is_reset = true;
        let kept = chance.below(self.to_client.len() + 1);
        self.to_client.bytes.truncate(self.to_client.start + kept);
    }

    /// The server lets go of it before it was answered, as if there were no file for it.
    pub(super) fn drop_in_transit(&mut self) {
        self.is_cut = true;
        self.to_server = Pipe::default();
    }

    /// Draws what writes will do from now on.
    pub(super) fn change_writes(&mut self, chance: &mut Chance) {
        self.writes = match chance.below(10) {
            0 => Writes::OneByte,
            1 | 2 => Writes::Nothing,
            _ => Writes::Room,
        };
    }

    /// Ends all faults.
    pub(super) fn calm(&mut self) {
        self.writes = Writes::Room;
        self.room = self.room.max(64 * 1024);
    }

    /// The server reads, at most `max` bytes.
    pub(super) fn read(&mut self, max: usize) -> Read {
        match self.client {
            ClientEnd::Reset => Read::Failed,
            _ if self.to_server.len() > 0 => Read::Bytes(self.to_server.take(max)),
            ClientEnd::Finished | ClientEnd::HalfFinished => Read::End,
            ClientEnd::Open | ClientEnd::Silent if self.is_cut || self.is_reset => Read::End,
            ClientEnd::Open | ClientEnd::Silent => Read::Nothing,
        }
    }

    /// The server writes.
    pub(super) fn write(&mut self, pieces: &[IoSlice<'_>]) -> Write {
        if self.refuses() {
            return Write::Failed;
        }
        self.is_refused |= self.client == ClientEnd::Finished;
        let mut left = self.takes();
        let mut took = 0;
        for piece in pieces {
            let count = piece.len().min(left);
            self.to_client.push(&piece[..count]);
            left -= count;
            took += count;
        }
        Write::Took(took)
    }

    /// Whether the server is told that it can write.
    pub(super) fn is_writable(&self) -> bool {
        self.takes() > 0 || self.refuses()
    }

    /// Whether what is written is answered with a reset.
    fn refuses(&self) -> bool {
        let has_ended = self.is_finished || self.is_cut || self.is_reset;
        // A socket that is closed over bytes that were not read is reset at once.
        let has_left = self.client == ClientEnd::Finished && self.to_client.len() >= self.room;
        has_ended || has_left || self.is_refused || self.client == ClientEnd::Reset
    }

    fn takes(&self) -> usize {
        let free = self.room.saturating_sub(self.to_client.len());
        match self.writes {
            Writes::Room => free,
            Writes::OneByte => free.min(1),
            Writes::Nothing => 0,
        }
    }

    /// Bytes that the server has read so far.
    pub(super) fn read_by_server(&self) -> u64 {
        self.to_server.taken
    }

    /// Bytes that the server has written so far.
    pub(super) fn written_by_server(&self) -> u64 {
        self.to_client.written()
    }

    /// Bytes that the client has written so far.
    pub(super) fn written_by_client(&self) -> u64 {
        self.to_server.written()
    }

    /// Bytes of the client that the server has not read.
    pub(super) fn unread_by_server(&self) -> usize {
        self.to_server.len()
    }

    /// The client writes; all of it is taken.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        if self.client == ClientEnd::Open && !self.is_cut && !self.is_reset {
            self.to_server.push(bytes);
        }
    }

    /// The client reads, at most `max` bytes.
    pub(super) fn receive(&mut self, max: usize) -> Vec<u8> {
        if self.client == ClientEnd::Silent { Vec::new() } else { self.to_client.take(max) }
    }

    /// Whether the client has read the server's end.
    pub(super) fn has_ended_for_client(&self) -> bool {
        (self.is_finished || self.is_cut || self.is_reset) && self.to_client.len() == 0
    }
}
