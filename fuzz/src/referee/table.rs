//! What each client is to have been sent, to the byte.

use std::collections::VecDeque;

use parlor::id::Text;
use parlor::limits::Limits;

use super::door::Door;
use crate::framer::Framer;
use crate::wire::{close_payload, server_frame};
use crate::world::Host;

/// How far a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The head of its request has not come yet.
    Head,
    /// It is on its way to another shard.
    Moving,
    /// It speaks its dialect.
    Open,
    /// It has left.
    Over,
}

/// One client.
#[derive(Debug)]
pub struct Client {
    /// Its id at the moment.
    pub id: Text,
    /// Where it is or was.
    pub shard: usize,
    /// How far it has come.
    pub stage: Stage,
    /// What it says.
    pub framer: Framer,
    /// The payload of the close that it is to be sent, if it is known.
    pub close: Option<Vec<u8>>,
    /// Where it wants to go; nothing if it sends whatever it likes.
    pub(super) door: Option<Door>,
    /// All that it is to be sent, but for pings.
    pub(super) expected: Vec<u8>,
    /// More comes than is expected here.
    pub(super) is_stream: bool,
    /// Pings that it was sent.
    pub(super) pings: usize,
    /// How much it was sent before this step.
    sent: usize,
    /// The start of its request, then what came behind it.
    pub(super) head: Vec<u8>,
    /// When the window of its rate began, and how many messages came in it.
    pub(super) window: (u64, u32),
    /// The message that is over its rate.
    pub(super) held: Option<Vec<u8>>,
    pub(super) is_doomed: bool,
}

impl Client {
    /// Whether all that it is sent is known.
    pub(super) fn is_exact(&self) -> bool {
        self.door.is_some() && !self.is_stream
    }
}

/// All clients.
#[derive(Debug)]
pub struct Table {
    /// By peer.
    pub clients: Vec<Client>,
    /// All bounds.
    pub limits: Limits,
    /// How many shards there are.
    pub shards: usize,
    /// The clock.
    pub now_ms: u64,
    /// The wall clock.
    pub unix_ms: u64,
    /// What is sent is not known any more: something happened that cannot be reckoned.
    pub is_loose: bool,
    /// All that was said by now to the client that is being handled.
    pub(super) said: Vec<u8>,
    /// Who is closed once what is being handled is through.
    pub(super) doomed: VecDeque<(usize, Option<u16>, &'static str)>,
    /// How many were too slow.
    pub(super) slow: u64,
}

impl Table {
    pub(super) fn new(limits: Limits, shards: usize) -> Self {
        Self {
            clients: Vec::new(),
            limits,
            shards,
            now_ms: 0,
            unix_ms: 0,
            is_loose: false,
            said: Vec::new(),
            doomed: VecDeque::new(),
            slow: 0,
        }
    }

    /// A text message for a client, if it is still there.
    pub fn say(&mut self, to: usize, text: &str) {
        self.say_bytes(to, text.as_bytes());
    }

    /// As [`Table::say`]. False: it does not get it.
    pub fn say_bytes(&mut self, to: usize, text: &[u8]) -> bool {
        self.say_frame(to, 0x81, text);
        !self.is_silent(to)
    }

    /// Has a client closed soon.
    pub fn doom(&mut self, who: usize, code: Option<u16>, reason: &'static str) {
        if !self.clients[who].is_doomed {
            self.clients[who].is_doomed = true;
            self.doomed.push_back((who, code, reason));
        }
    }

    /// Whether a client is said nothing any more.
    #[must_use]
    pub fn is_silent(&self, who: usize) -> bool {
        self.clients[who].is_doomed || self.clients[who].stage != Stage::Open
    }

    /// The id of a client in text.
    #[must_use]
    pub fn id(&self, who: usize) -> &str {
        std::str::from_utf8(&self.clients[who].id).expect("ASCII")
    }

    /// What stands in the next message to the client that is being handled, behind this text.
    #[must_use]
    pub fn peek(&self, who: usize, text: &str, len: usize) -> Option<String> {
        let at = self.total(who) + 2;
        let message = self.said.get(at..at + text.len() + len)?.strip_prefix(text.as_bytes())?;
        String::from_utf8(message.to_vec()).ok()
    }

    /// A frame for a client; `first` is its first byte.
    pub(super) fn say_frame(&mut self, to: usize, first: u8, payload: &[u8]) {
        let waiting = self.total(to).saturating_sub(self.clients[to].sent);
        let client = &mut self.clients[to];
        if client.is_doomed || client.stage != Stage::Open || client.is_stream {
            return;
        }
        let frame = server_frame(first, payload);
        if waiting > 0 && waiting + frame.len() > self.limits.outbox_bytes_max {
            self.slow += 1;
            return self.doom(to, Some(1013), "too slow");
        }
        client.expected.extend(frame);
    }

    /// A close for a client, whatever waits.
    pub(super) fn say_close(&mut self, to: usize, code: Option<u16>, reason: &str) {
        let payload = close_payload(code, reason);
        let client = &mut self.clients[to];
        if !client.is_stream {
            client.expected.extend(server_frame(0x88, &payload));
        }
        client.close = Some(payload);
    }

    /// All bytes that a client was or is to be sent.
    pub(super) fn total(&self, who: usize) -> usize {
        self.clients[who].expected.len() + 2 * self.clients[who].pings
    }

    /// A step begins: takes over who has come, and what was sent meanwhile.
    pub(super) fn begin(&mut self, host: &Host) {
        self.now_ms = host.now_ms;
        self.unix_ms = host.unix_ms_at_start + host.now_ms;
        for (at, peer) in host.peers.iter().enumerate() {
            if at == self.clients.len() {
                self.clients.push(Client {
                    id: peer.id.text(),
                    shard: peer.shard,
                    stage: Stage::Head,
                    framer: Framer::default(),
                    close: None,
                    door: None,
                    expected: Vec::new(),
                    is_stream: false,
                    pings: 0,
                    sent: 0,
                    head: Vec::new(),
                    window: (0, 0),
                    held: None,
                    is_doomed: false,
                });
            }
            let client = &mut self.clients[at];
            (client.id, client.shard, client.sent) = (peer.id.text(), peer.shard, peer.received.len());
        }
    }
}
