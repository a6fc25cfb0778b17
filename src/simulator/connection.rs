//! One simulated connection: socket, byte-level client, and the books about it.

use super::account::{Account, Said};
use super::chance::Chance;
use super::client::{Reader, frame};
use super::socket::{ClientEnd, Socket};
use super::world::RESPONSE;
use crate::id::Slot;
use crate::wire::frame::Opcode;

/// A connection, from accept on.
pub(super) struct Connection {
    pub(super) shard: usize,
    pub(super) slot: Slot,
    pub(super) socket: Socket,
    pub(super) reader: Reader,
    pub(super) account: Account,
    /// The server was told of its end.
    pub(super) is_gone: bool,
    /// The server waits until it can write.
    pub(super) is_blocked: bool,
    /// A plain request waits for its answer; whether the connection is kept then.
    pub(super) request: Option<bool>,
    /// When the server last read from it, or accepted it.
    pub(super) last_read_ms: u64,
    /// Whether the server waits for the answer to its close, or has only to end; and since when at least.
    pub(super) ending: Option<(bool, u64)>,
    /// Plain requests sent.
    pub(super) requests: usize,
    /// Bytes of plain HTTP received.
    pub(super) http: Vec<u8>,
    /// The rest of a request head.
    pub(super) unsent: Vec<u8>,
    pub(super) has_upgraded: bool,
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
    pub(super) fn new(shard: usize, slot: Slot, account: Account, room: usize, now_ms: u64) -> Self {
        Self {
            shard,
            slot,
            socket: Socket::new(room),
            reader: Reader::default(),
            account,
            is_gone: false,
            is_blocked: false,
            request: None,
            last_read_ms: now_ms,
            ending: None,
            requests: 0,
            http: Vec::new(),
            unsent: Vec::new(),
            has_upgraded: false,
            is_mute: false,
            has_sent_close: false,
            expects_close: false,
            is_garbled: false,
            never_reads: false,
            ignores_close: false,
        }
    }

    /// Whether the client still does anything.
    pub(super) fn is_alive(&self) -> bool {
        !self.is_gone && self.socket.client == ClientEnd::Open
    }

    /// Whether the client can be expected to get all that is for it.
    pub(super) fn is_attentive(&self) -> bool {
        self.is_alive() && !self.never_reads
    }

    /// Whether both sides have sent a close that the other can find.
    pub(super) fn has_closed(&self) -> bool {
        self.has_sent_close && self.account.is_closed && !self.is_garbled
    }

    /// How many answers to plain requests it has received.
    pub(super) fn answers(&self) -> usize {
        memchr::memmem::find_iter(&self.http, RESPONSE).count()
    }

    /// Sends a piece of the request head that is still to be sent.
    pub(super) fn send_head(&mut self, count: usize) {
        let rest = self.unsent.split_off(count.min(self.unsent.len()));
        let piece = std::mem::replace(&mut self.unsent, rest);
        self.socket.send(&piece);
        if self.unsent.is_empty() && self.has_upgraded {
            self.account.say(Said::Upgrade, self.socket.written_by_client());
        }
    }

    /// Says a message, in one frame or in several, with control frames between them.
    pub(super) fn say(&mut self, said: Said, payload: &[u8], chance: &mut Chance) {
        if self.is_mute || !self.unsent.is_empty() {
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
        self.account.say(said, self.socket.written_by_client());
    }

    /// Sends a ping frame.
    pub(super) fn ping(&mut self, chance: &mut Chance) {
        if self.is_mute || !self.unsent.is_empty() {
            return;
        }
        let len = chance.pick(&[0, 1, 5, 125]);
        let payload = vec![b'p'; len];
        self.socket.send(&frame(true, Opcode::Ping, &payload, chance.mask()));
        self.account.say(Said::Ping(payload), self.socket.written_by_client());
    }

    /// Sends a pong frame; it answers nothing that the books know of.
    pub(super) fn pong(&mut self, payload: &[u8], chance: &mut Chance) {
        if !self.is_mute && self.unsent.is_empty() {
            self.socket.send(&frame(true, Opcode::Pong, payload, chance.mask()));
        }
    }

    /// Sends a close frame, and nothing after it.
    pub(super) fn close(&mut self, code: Option<u16>, chance: &mut Chance) {
        if self.is_mute || self.has_sent_close || !self.unsent.is_empty() {
            return;
        }
        let payload = code.map(u16::to_be_bytes);
        let payload = payload.as_ref().map_or(&[][..], |code| code.as_slice());
        self.socket.send(&frame(true, Opcode::Close, payload, chance.mask()));
        self.account.say(Said::Close(code), self.socket.written_by_client());
        self.has_sent_close = true;
        self.is_mute = true;
    }

    /// Sends bytes that break the protocol and are answered with a close of this code.
    pub(super) fn violate(&mut self, code: u16, bytes: &[u8]) {
        if self.is_mute || !self.unsent.is_empty() {
            return;
        }
        self.account.say(Said::Violation(code), self.socket.written_by_client() + 1);
        self.socket.send(bytes);
    }

    /// Ends the client's side in this way.
    pub(super) fn end(&mut self, how: ClientEnd) {
        if self.socket.client == ClientEnd::Open {
            self.socket.client = how;
            self.is_mute = true;
        }
    }
}
