//! One core's clients and everything that happens to them, without I/O: `handle_*` in, `poll_*` out.
//!
//! The contract: after every `handle_*`, drain [`Shard::poll_event`]; once per turn of the loop, send what
//! [`Shard::poll_dirty`] names and hand on mail with [`Shard::deliver_mail`]. Time comes in as milliseconds since the
//! server's start; randomness came in as a seed. What peers do is answered, closed or counted; a panic is a bug, and
//! [`Shard::handle_panic`] closes only the client that it happened over.
#![forbid(unsafe_code)]

pub mod arrival;
pub mod clients;
mod closing;
mod deadlines;
pub mod dialects;
pub mod mail;
mod messages;
mod neighbours;
pub mod outbox;
pub mod pausing;
pub mod pipes;
pub mod rate;
mod requests;
pub mod route;
pub mod router;
pub mod timers;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::buffers::{Buffers, Exhausted};
use crate::id::{ClientId, Entropy, HostId, ShardIndex, Slot};
use crate::limits::{CLOSE_DEADLINE_MS, DIRECTORY_MESSAGE_BYTES_MAX, Limits};
use crate::metrics::Counters;
use crate::plant::{Plant, Planted};
use crate::protocol::Actions;
use crate::protocol::lobby;
use crate::protocol::pipe::Places;
use crate::websocket::CloseCode;
use crate::wire::envelope::Parser;
use crate::wire::http::RequestHead;
use arrival::Arrival;
use clients::{Clients, Stage};
use closing::Doomed;
use dialects::Tables;
use mail::Mail;
use neighbours::Neighbours;
use outbox::{Gathered, Outbox};
use pipes::Parting;
use router::Router;
use timers::{Tick, Wheel};

/// The dialects that are spoken (`PROTOCOLS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of protocols.md section 0")]
pub struct Offered {
    pub pairing: bool,
    pub rendezvous: bool,
    pub directory: bool,
    pub rooms: bool,
    pub documents: bool,
}

impl Offered {
    /// All of them.
    pub const ALL: Self =
        Self { pairing: true, rendezvous: true, directory: true, rooms: true, documents: true };

    fn lobby(self) -> lobby::Offered {
        lobby::Offered { directory: self.directory, rooms: self.rooms }
    }
}

/// What a shard must know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This start of this host.
    pub host: HostId,
    /// How many shards the host has.
    pub shards: usize,
    /// All bounds.
    pub limits: Limits,
    /// `PROTOCOLS`.
    pub offered: Offered,
    /// Makes the hashes of what peers choose, the same on all shards: it says where a key lives.
    pub key_seed: [u64; 4],
    /// Whether there is a cluster, which is asked about what other hosts may have.
    pub has_cluster: bool,
    /// `REQUEUE_ON_PARTNER_LEAVE`.
    pub requeue_on_partner_leave: bool,
    /// `ALLOWED_ORIGIN`; empty allows all.
    pub allowed_origins: Vec<String>,
    /// `ALLOW_NO_ORIGIN`.
    pub allow_no_origin: bool,
    /// `ECHO_PATH`.
    pub echo_path: Option<String>,
    /// The pipe ends of all shards that wait for the other.
    pub held_pipes: Arc<Places>,
    /// A bug for a test to find.
    pub planted: Planted,
}

/// What the shard asks of whoever holds the sockets.
#[derive(Debug)]
pub enum Event {
    /// Answer this request with [`Shard::handle_response`]. Nothing more is read of it until then.
    Request {
        /// Who asks.
        slot: Slot,
        /// What.
        head: Box<RequestHead>,
        /// It came in on the private port.
        is_private: bool,
    },
    /// Hand this socket to another shard's [`Shard::handle_arrival`]; [`Shard::handle_gone`] follows here.
    Move {
        /// Whose socket.
        slot: Slot,
        /// Where it goes.
        to: ShardIndex,
        /// What goes with it.
        arrival: Box<Arrival>,
    },
    /// Read from this socket again.
    Resume(Slot),
    /// This socket carries raw bytes from now on.
    OpenedRaw(Slot),
    /// Shut the writing side of this socket; reading goes on.
    FinishWriting(Slot),
    /// Shut both sides of this socket. [`Shard::handle_gone`] follows when that is through.
    Cut(Slot),
    /// As [`Event::Cut`], but the peer is to be sent a reset.
    Reset(Slot),
}

/// One shard.
#[derive(Debug)]
pub struct Shard {
    settings: Arc<Settings>,
    clients: Clients,
    tables: Tables,
    router: Router,
    neighbours: Neighbours,
    buffers: Buffers,
    parser: Parser,
    wheel: Wheel,
    entropy: Entropy,
    counters: Arc<Counters>,
    dirty: Vec<Slot>,
    /// Who will be closed once what is being handled is through.
    doomed: VecDeque<Doomed>,
    events: VecDeque<Event>,
    /// Used again for every input.
    actions: Actions,
    due: Vec<(Slot, Tick)>,
    now_ms: u64,
    /// The wall clock at the moment that `now_ms` counts from, in milliseconds since 1970.
    unix_ms_at_start: u64,
    /// The bounds of the directory's clients.
    directory_limits: Limits,
    /// Bytes of a buffer that is taken out of its place while it is read, for the budget if that panics.
    in_hand_bytes: usize,
    /// When memory that nobody needs is next given back.
    trim_due: Tick,
    is_shutting_down: bool,
}

impl Shard {
    /// An empty shard. `seed` makes its ids: random in a server.
    #[must_use]
    pub fn new(
        here: ShardIndex,
        settings: Arc<Settings>,
        counters: Arc<Counters>,
        seed: [u8; 32],
        now_ms: u64,
    ) -> Self {
        let now = Tick::at(now_ms);
        Self {
            clients: Clients::new(settings.host, here),
            tables: Tables::new(&settings),
            router: Router::new(here, settings.shards),
            neighbours: Neighbours::default(),
            buffers: Buffers::new(settings.limits.shard_buffer_bytes),
            parser: Parser::default(),
            wheel: Wheel::new(now),
            entropy: Entropy::from_seed(seed),
            directory_limits: Limits {
                message_bytes_max: DIRECTORY_MESSAGE_BYTES_MAX,
                ..settings.limits.clone()
            },
            settings,
            counters,
            dirty: Vec::new(),
            doomed: VecDeque::new(),
            events: VecDeque::new(),
            actions: Actions::new(),
            due: Vec::new(),
            now_ms,
            unix_ms_at_start: 0,
            in_hand_bytes: 0,
            trim_due: now,
            is_shutting_down: false,
        }
    }

    /// A connection was accepted. Nothing: there is no room, close it.
    pub fn handle_accept(&mut self, now_ms: u64) -> Option<Slot> {
        self.now_ms = now_ms;
        let slot = self.clients.insert(Tick::at(now_ms), &mut self.entropy)?;
        self.counters.connections.add(1);
        self.counters.connections_accepted.add(1);
        self.set_deadline(slot, self.settings.limits.head_deadline_ms);
        if self.is_shutting_down {
            self.cut(slot);
        }
        Some(slot)
    }

    /// Bytes came from a client. They are unmasked where they lie.
    pub fn handle_bytes(&mut self, slot: Slot, input: &mut [u8], now_ms: u64) {
        self.now_ms = now_ms;
        self.counters.bytes_received.add(input.len() as u64);
        let Some(client) = self.clients.at(slot) else { return };
        client.received = Tick::at(now_ms);
        match &mut client.stage {
            Stage::Head(_) => self.handle_head_bytes(slot, input),
            Stage::Answering(kept) => kept.extend_from_slice(input),
            Stage::Open(_) | Stage::Closing => self.handle_open_bytes(slot, input),
            Stage::Moving | Stage::Finishing | Stage::Finished | Stage::Cut => {}
        }
        self.deliver_local();
    }

    /// A connection was accepted on the private port, which serves plain requests alone. As
    /// [`Shard::handle_accept`].
    pub fn handle_accept_private(&mut self, now_ms: u64) -> Option<Slot> {
        let slot = self.handle_accept(now_ms)?;
        if let Some(client) = self.clients.at(slot) {
            client.is_private = true;
        }
        Some(slot)
    }

    /// A client's connection is gone: its socket is closed now, and its slot is free after this.
    pub fn handle_gone(&mut self, slot: Slot, now_ms: u64) {
        self.now_ms = now_ms;
        self.leave(slot, Parting::Lost);
        if let Some(mut client) = self.clients.remove(slot) {
            self.counters.connections.sub(1);
            client.connection.release(&mut self.buffers);
            client.outbox.release(&mut self.buffers);
            if let Stage::Head(kept) = client.stage {
                self.buffers.release(kept);
            }
        }
        self.deliver_local();
    }

    /// The server panicked while it handled this client, which is cut.
    pub fn handle_panic(&mut self, slot: Slot, now_ms: u64) {
        self.now_ms = now_ms;
        self.counters.panics.add(1);
        self.buffers.refund(std::mem::take(&mut self.in_hand_bytes));
        self.cut(slot);
        self.deliver_local();
    }

    /// Mail has come from another shard.
    pub fn handle_mail(&mut self, mail: Mail, now_ms: u64) {
        self.now_ms = now_ms;
        self.receive(mail);
        self.deliver_local();
    }

    /// The server shuts down: every client is closed 1001.
    pub fn handle_shutdown(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.is_shutting_down = true;
        for slot in self.clients.slots() {
            match self.clients.at(slot).map(|client| &client.stage) {
                Some(Stage::Open(_)) => {
                    self.start_close(slot, Some(CloseCode::GoingAway), "Server shutting down");
                }
                Some(Stage::Head(_)) => self.cut(slot),
                _ => {}
            }
        }
        self.deliver_local();
    }

    /// The next client that has something to send and whose socket is not known to be full. Each is named once per
    /// turn; send what [`Shard::gather`] gives.
    pub fn poll_dirty(&mut self) -> Option<Slot> {
        while let Some(slot) = self.dirty.pop() {
            let Some(client) = self.clients.at(slot) else { continue };
            client.is_dirty = false;
            if client.is_withheld() {
                continue;
            }
            if !client.outbox.is_empty() && !client.is_blocked {
                return Some(slot);
            }
            self.after_write(slot);
        }
        None
    }

    /// Whether [`Shard::poll_dirty`] or [`Shard::deliver_mail`] have something to do.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.dirty.is_empty() || self.router.waiting() > 0 || !self.events.is_empty()
    }

    /// The first bytes that this client is to be sent, in pieces; empty when nothing waits.
    #[must_use]
    pub fn gather(&mut self, slot: Slot) -> Gathered<'_> {
        self.clients.at(slot).map(|client| client.outbox.gather()).unwrap_or_default()
    }

    /// The socket took the first `count` bytes.
    pub fn handle_sent(&mut self, slot: Slot, count: usize) {
        self.counters.bytes_sent.add(count as u64);
        self.counters.writes.add(1);
        let Some(client) = self.clients.at(slot) else { return };
        client.outbox.consume(count, &mut self.buffers);
        if client.must_drain {
            client.received = Tick::at(self.now_ms);
            if client.outbox.is_empty() {
                // It has all of it now, and as long for its answer as anybody.
                self.set_deadline(slot, CLOSE_DEADLINE_MS);
            }
        }
        self.after_write(slot);
    }

    /// The socket takes nothing now: the client waits for [`Shard::handle_writable`].
    pub fn handle_blocked(&mut self, slot: Slot) {
        self.counters.writes_blocked.add(1);
        if let Some(client) = self.clients.at(slot) {
            client.is_blocked = true;
        }
    }

    /// The socket takes bytes again.
    pub fn handle_writable(&mut self, slot: Slot) {
        let Some(client) = self.clients.at(slot) else { return };
        client.is_blocked = false;
        if !self.settings.planted.is(Plant::LostWakeup) {
            self.mark_dirty(slot);
        }
    }

    /// Writing failed: the peer is gone.
    pub fn handle_write_failed(&mut self, slot: Slot, now_ms: u64) {
        self.now_ms = now_ms;
        self.cut(slot);
        self.deliver_local();
    }

    /// Hands mail for other shards to `push`, which gives back what a full ring does not take.
    pub fn deliver_mail(&mut self, push: impl FnMut(ShardIndex, Mail) -> Result<(), Mail>) {
        let taken = self.router.deliver(push, &mut self.buffers);
        self.counters.mail_sent.add(taken as u64);
        self.counters.mail_waiting.set(self.router.waiting() as u64);
    }

    /// Whether so much mail waits that no client is to be read from for now. Ask again after each
    /// [`Shard::deliver_mail`].
    pub fn is_reading_paused(&mut self) -> bool {
        self.router.update_reading_paused()
    }

    /// What the holder of the sockets is to do next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Connections of every kind.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.clients.len()
    }

    /// The shard's numbers.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The clients, for checks.
    #[must_use]
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Who waits in the queue that lives here, for checks.
    #[must_use]
    pub fn waiting_in_queue(&self) -> Option<ClientId> {
        self.tables.pairing.waiting()
    }

    /// Bytes of buffers in use, for checks.
    #[must_use]
    pub fn buffer_bytes(&mut self) -> usize {
        self.buffers.settle();
        self.buffers.used_bytes()
    }

    /// The names in the directory, in the order of their logins; empty on any shard but its home.
    pub fn directory_names(&self) -> impl Iterator<Item = &str> {
        self.tables.directory.names()
    }

    /// Whether no key is left on this shard, for checks: connection ids, names, introductions, held pipes. Rooms
    /// live until they expire.
    #[must_use]
    pub fn has_no_keys(&self) -> bool {
        let tables = &self.tables;
        tables.rendezvous.is_empty()
            && tables.directory.is_empty()
            && tables.introductions.is_empty()
            && tables.pipes.is_empty()
    }

    /// The wall clock says that the server's milliseconds count from this moment, in milliseconds since 1970.
    pub fn set_clock(&mut self, unix_ms_at_start: u64) {
        self.unix_ms_at_start = unix_ms_at_start;
    }

    /// Closes who is doomed and handles mail to this shard itself, until there is no more of either.
    fn deliver_local(&mut self) {
        self.settle();
        while let Some(mail) = self.router.poll_local() {
            self.receive(mail);
            self.settle();
        }
    }

    fn mark_dirty(&mut self, slot: Slot) {
        let Some(client) = self.clients.at(slot) else { return };
        if !client.is_dirty && !client.is_blocked {
            client.is_dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Has `len` bytes appended to an outbox; closes a client soon that is too slow, or that there is no memory for.
    /// One message into an empty outbox always passes. The partner of a pipe's end pauses instead.
    fn send(
        &mut self,
        slot: Slot,
        len: usize,
        append: impl FnOnce(&mut Outbox, &mut Buffers) -> Result<(), Exhausted>,
    ) {
        let Some(client) = self.clients.at(slot).filter(|client| !client.is_doomed) else { return };
        let waiting = client.outbox.len();
        let is_pipe = matches!(&client.stage, Stage::Open(dialect) if dialect.is_pipe());
        if waiting > 0 && waiting + len > self.settings.limits.outbox_bytes_max && !is_pipe {
            self.counters.too_slow.add(1);
            return self.doom(slot, Some(CloseCode::TryAgainLater), "too slow");
        }
        match append(&mut client.outbox, &mut self.buffers) {
            Ok(()) => self.mark_dirty(slot),
            Err(Exhausted) => self.doom_busy(slot),
        }
    }

    /// Has these pieces, of `len` bytes together, appended to an outbox.
    fn send_pieces(&mut self, slot: Slot, len: usize, write: impl FnOnce(&mut dyn FnMut(&[u8]))) {
        self.send(slot, len, |outbox, buffers| {
            outbox.reserve(len, buffers)?;
            write(&mut |piece| outbox.append(piece));
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests;
