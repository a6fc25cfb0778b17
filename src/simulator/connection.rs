//! One simulated connection: socket, byte-level client, and the books about it.

use super::chance::Chance;
use super::client::{Reader, frame, raw_frame};
use super::ledger::{Ledger, Said, Word};
use super::pairing::Account;
use super::socket::{ClientEnd, Socket};
use super::world::RESPONSE;
use super::{introductions, lobby, pipes, rendezvous};
use crate::id::{Slot, Text};
use crate::limits::CONTROL_PAYLOAD_MAX;
use crate::wire::frame::{Header, Opcode};

/// The dialect that a client speaks, and its books.
#[derive(Debug)]
pub(super) enum Voice {
    Pairing(Box<Account>),
    Rendezvous(rendezvous::Client),
    Lobby(lobby::Client),
    Introductions(introductions::Client),
    Pipe(Box<pipes::End>),
}

/// How far the server is with a client, as far as the world looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// No dialect yet: a head is expected, or an answer, or it moves.
    Head,
    Open,
    /// A close is under way, or was.
    Closing,
    /// The connection's end is under way, or was.
    Cut,
}

/// What the world sees of a client after each step of its shard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) progress: Progress,
    /// Bytes in its outbox.
    pub(super) outbox: usize,
    pub(super) is_paused: bool,
    pub(super) is_moving: bool,
}

/// Bytes that the server has taken for splice(2) and not handed on.
#[derive(Debug)]
pub(super) struct KernelPipe {
    /// The connection that they go to.
    pub(super) to: usize,
    pub(super) bytes: Vec<u8>,
    pub(super) count: usize,
}

/// A connection, from accept on.
pub(super) struct Connection {
    /// Its id on the shard where it is.
    pub(super) id: Text,
    pub(super) shard: usize,
    pub(super) slot: Slot,
    pub(super) socket: Socket,
    pub(super) reader: Reader,
    pub(super) voice: Voice,
    pub(super) ledger: Ledger,
    pub(super) seen: Seen,
    /// What was in its outbox before the step.
    pub(super) outbox_before: usize,
    pub(super) kernel_pipe: Option<KernelPipe>,
    /// It is between two shards.
    pub(super) is_moving: bool,
    /// The server was told of its end.
    pub(super) is_gone: bool,
    /// The server waits until it can write.
    pub(super) is_blocked: bool,
    /// The server waits until the shard says that it is to be read from again.
    pub(super) is_parked: bool,
    /// A plain request waits for its answer; whether the connection is kept then.
    pub(super) request: Option<bool>,
    /// When the server last read from it, or accepted it, and how many bytes.
    pub(super) last_read_ms: u64,
    pub(super) last_read: usize,
    /// The same, but while the server does not read, its silence does not count.
    pub(super) heard_ms: u64,
    /// When it was opened.
    pub(super) opened_ms: u64,
    /// When something was last written to it.
    pub(super) last_written_ms: u64,
    /// Whether the server waits for the answer to its close, or has only to end; and since when at least.
    pub(super) ending: Option<(bool, u64)>,
    /// Since when it is closed, and gets what its partner had sent before.
    pub(super) draining_since_ms: Option<u64>,
    /// Plain requests sent.
    pub(super) requests: usize,
    /// Bytes of plain HTTP received.
    pub(super) http: Vec<u8>,
    /// The rest of a request head.
    pub(super) unsent: Vec<u8>,
    pub(super) has_upgraded: bool,
    /// It has received its 101.
    pub(super) is_open: bool,
    /// It says nothing more: what it sent last is to stay incomplete, or it has closed.
    pub(super) is_mute: bool,
    pub(super) has_sent_close: bool,
    /// A shutdown has found it open: it must receive a close.
    pub(super) expects_close: bool,
    /// Nobody can tell any more where its frames begin.
    pub(super) is_garbled: bool,
    pub(super) never_reads: bool,
    pub(super) ignores_close: bool,
}

impl Connection {
    pub(super) fn new(shard: usize, slot: Slot, id: Text, voice: Voice, room: usize, now_ms: u64) -> Self {
        let seen = Seen { progress: Progress::Head, outbox: 0, is_paused: false, is_moving: false };
        Self {
            id,
            shard,
            slot,
            socket: Socket::new(room),
            reader: Reader::default(),
            voice,
            ledger: Ledger::default(),
            seen,
            outbox_before: 0,
            kernel_pipe: None,
            is_moving: false,
            is_gone: false,
            is_blocked: false,
            is_parked: false,
            request: None,
            last_read_ms: now_ms,
            last_read: 0,
            heard_ms: now_ms,
            opened_ms: now_ms,
            last_written_ms: now_ms,
            ending: None,
            draining_since_ms: None,
            requests: 0,
            http: Vec::new(),
            unsent: Vec::new(),
            has_upgraded: false,
            is_open: false,
            is_mute: false,
            has_sent_close: false,
            expects_close: false,
            is_garbled: false,
            never_reads: false,
            ignores_close: false,
        }
    }

    /// It has arrived on another shard, as a client with another id.
    pub(super) fn arrive(&mut self, shard: usize, slot: Slot, id: Text, now_ms: u64) {
        (self.shard, self.slot, self.id) = (shard, slot, id);
        (self.is_moving, self.is_blocked, self.is_parked) = (false, false, false);
        self.heard_ms = now_ms;
    }

    /// The server has read so many bytes.
    pub(super) fn note_read(&mut self, len: usize, now_ms: u64) {
        (self.last_read, self.last_read_ms, self.heard_ms) = (len, now_ms, now_ms);
    }

    /// Whether the client still does anything.
    pub(super) fn is_alive(&self) -> bool {
        !self.is_gone && matches!(self.socket.client, ClientEnd::Open | ClientEnd::HalfFinished)
    }

    /// Whether the client can be expected to get all that is for it.
    pub(super) fn is_attentive(&self) -> bool {
        self.is_alive() && !self.never_reads
    }

    /// Whether both sides have sent a close that the other can find.
    pub(super) fn has_closed(&self) -> bool {
        self.has_sent_close && self.ledger.is_closed && !self.is_garbled
    }

    /// How many answers to plain requests it has received.
    pub(super) fn answers(&self) -> usize {
        memchr::memmem::find_iter(&self.http, RESPONSE).count()
    }

    /// Whether the server put so many bytes for it into its outbox in the last step; nothing: nobody can tell.
    pub(super) fn has_taken(&self, len: usize) -> Option<bool> {
        match self.seen.progress {
            Progress::Head | Progress::Open => Some(true),
            Progress::Closing => Some(self.seen.outbox >= self.outbox_before + len),
            Progress::Cut => None,
        }
    }

    pub(super) fn is_pairing(&self) -> bool {
        matches!(self.voice, Voice::Pairing(_))
    }

    /// Whether its stream is raw bytes.
    pub(super) fn is_raw(&self) -> bool {
        matches!(&self.voice, Voice::Pipe(end) if end.is_raw())
    }

    /// Whether messages of several frames, and of any size, go through it.
    pub(super) fn is_pipe(&self) -> bool {
        matches!(self.voice, Voice::Pipe(_))
    }

    /// Sends a piece of the request head that is still to be sent.
    pub(super) fn send_head(&mut self, count: usize) {
        if self.unsent.is_empty() {
            return;
        }
        let rest = self.unsent.split_off(count.min(self.unsent.len()));
        let piece = std::mem::replace(&mut self.unsent, rest);
        self.socket.send(&piece);
        if self.unsent.is_empty() && self.has_upgraded {
            self.ledger.say(Said::Upgrade, self.socket.written_by_client());
        }
    }

    /// Whether what it says now can be understood.
    fn can_speak(&self) -> bool {
        !self.is_mute && self.unsent.is_empty()
    }

    /// Says a message, in one frame or in several, with control frames between them.
    pub(super) fn say(&mut self, word: Word, payload: &[u8], chance: &mut Chance) {
        if !self.can_speak() {
            return;
        }
        let mut opcode = if chance.one_in(8) { Opcode::Binary } else { Opcode::Text };
        let mut rest = payload;
        let fragments = if chance.one_in(6) { chance.between(2..=4) } else { 1 };
        for left in (0..fragments).rev() {
            let len = if left == 0 { rest.len() } else { chance.below(rest.len() + 1) };
            let (piece, after) = rest.split_at(len);
            rest = after;
            self.socket.send(&frame(left == 0, opcode, piece, chance.mask()));
            opcode = Opcode::Continuation;
            if left > 0 && chance.one_in(4) {
                self.ping(chance);
            }
        }
        match (&mut self.voice, &word) {
            (Voice::Pairing(account), Word::Pairing(word)) => account.say(word),
            (Voice::Lobby(client), _) => client.said += 1,
            _ => {}
        }
        self.ledger.say(Said::Word(word), self.socket.written_by_client());
    }

    /// Sends a data frame into a pipe.
    pub(super) fn emit(&mut self, fin: bool, opcode: Opcode, payload: &[u8], mask: [u8; 4]) {
        let header = Header {
            fin,
            reserved: 0,
            opcode_bits: opcode as u8,
            mask: Some(mask),
            payload_len: payload.len() as u64,
        };
        self.emit_part(header, payload, usize::MAX);
    }

    /// Sends the first so many bytes of a data frame.
    pub(super) fn emit_part(&mut self, header: Header, payload: &[u8], count: usize) {
        if !self.can_speak() {
            return;
        }
        let bytes = raw_frame(header, payload);
        if let (Voice::Pipe(end), Some(opcode)) = (&mut self.voice, Opcode::from_bits(header.opcode_bits)) {
            let start = self.socket.written_by_client() + (bytes.len() - payload.len()) as u64;
            end.log(start, header.fin, opcode, payload);
        }
        self.socket.send(&bytes[..count.min(bytes.len())]);
    }

    /// Sends raw bytes.
    pub(super) fn send_raw(&mut self, bytes: &[u8]) {
        if self.can_speak() && !bytes.is_empty() {
            if let Voice::Pipe(end) = &mut self.voice {
                end.log(self.socket.written_by_client(), false, Opcode::Binary, bytes);
            }
            self.socket.send(bytes);
        }
    }

    /// Sends a ping frame.
    pub(super) fn ping(&mut self, chance: &mut Chance) {
        if !self.can_speak() || self.is_raw() {
            return;
        }
        let len = chance.pick(&[0, 1, 5, 125]);
        let mut payload = vec![b'p'; len];
        if self.is_pipe() {
            // Not all are answered there: which it was must be told from the answer.
            payload.splice(..0, chance.bytes::<8>());
            payload.truncate(CONTROL_PAYLOAD_MAX);
        }
        self.socket.send(&frame(true, Opcode::Ping, &payload, chance.mask()));
        self.ledger.say(Said::Ping(payload), self.socket.written_by_client());
    }

    /// Sends a pong frame; it answers nothing that the books know of.
    pub(super) fn pong(&mut self, payload: &[u8], chance: &mut Chance) {
        if self.can_speak() && !self.is_raw() {
            self.socket.send(&frame(true, Opcode::Pong, payload, chance.mask()));
        }
    }

    /// Sends a close frame, and nothing after it. A raw end ends its stream.
    pub(super) fn close(&mut self, code: Option<u16>, chance: &mut Chance) {
        if !self.can_speak() || self.has_sent_close {
            return;
        }
        if self.is_raw() {
            return self.end(ClientEnd::HalfFinished);
        }
        let payload = code.map(u16::to_be_bytes);
        let payload = payload.as_ref().map_or(&[][..], |code| code.as_slice());
        self.socket.send(&frame(true, Opcode::Close, payload, chance.mask()));
        self.ledger.say(Said::Close(code), self.socket.written_by_client());
        self.has_sent_close = true;
        self.is_mute = true;
    }

    /// Sends bytes that break the protocol and are answered with a close of this code.
    pub(super) fn violate(&mut self, code: u16, bytes: &[u8]) {
        if !self.can_speak() {
            return;
        }
        let at = self.socket.written_by_client();
        if let Voice::Pipe(end) = &mut self.voice {
            end.violate(at);
        }
        self.ledger.say(Said::Violation(code), at + 1);
        self.socket.send(bytes);
    }

    /// Ends the client's side in this way.
    pub(super) fn end(&mut self, how: ClientEnd) {
        let is_half = self.socket.client == ClientEnd::HalfFinished && how != ClientEnd::HalfFinished;
        if self.socket.client == ClientEnd::Open || is_half {
            self.socket.client = how;
            self.is_mute = true;
        }
    }
}
