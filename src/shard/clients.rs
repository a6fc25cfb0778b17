//! A shard's table of connections.

use slab::Slab;

use super::dialects::Dialect;
use super::outbox::Outbox;
use super::pausing::{Held, Paused, Reason};
use super::rate::Window;
use super::timers::Tick;
use crate::id::{ClientId, Entropy, HostId, ShardIndex, Slot};
use crate::limits::{CLIENTS_PER_SHARD_MAX, RECORD_BYTES_MAX};
use crate::websocket::connection::Connection;

/// Where a connection is on its way.
#[derive(Debug)]
pub enum Stage {
    /// A request head is expected; these bytes of it have come.
    Head(Vec<u8>),
    /// A request was handed out to be answered; these bytes came behind it.
    Answering(Vec<u8>),
    /// It is on its way to another shard.
    Moving,
    /// A WebSocket, or a raw stream, that speaks a dialect.
    Open(Dialect),
    /// We have sent a close and wait for the answer.
    Closing,
    /// All is said: once the outbox is empty, our side of TCP is shut.
    Finishing,
    /// Our side is shut; what still comes is discarded until the peer's end.
    Finished,
    /// Both sides are shut, the end of the connection is under way.
    Cut,
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    /// Its id, also before it is a WebSocket.
    pub id: ClientId,
    /// Where it is on its way.
    pub stage: Stage,
    /// What has come in.
    pub connection: Connection,
    /// What is to go out.
    pub outbox: Outbox,
    /// Its messages in the current window.
    pub window: Window,
    /// When bytes last came.
    pub received: Tick,
    /// When the next ping is due.
    pub ping_due: Tick,
    /// The entry of the timer wheel that counts; any other is stale.
    pub deadline: Tick,
    /// Why nothing is read from it.
    pub paused: Paused,
    /// What was read from it and is not handled yet.
    pub held: Option<Box<Held>>,
    /// It will be closed once what is being handled is through.
    pub is_doomed: bool,
    /// It is closed only when it was sent all that waits, however long that takes while it lives.
    pub must_drain: bool,
    /// It came in on the private port: plain requests only.
    pub is_private: bool,
    /// It is on the dirty list.
    pub is_dirty: bool,
    /// Its socket takes nothing at the moment; it is not put on the dirty list until it does.
    pub is_blocked: bool,
}

impl Client {
    /// Whether nothing is sent to it yet, not even its 101: whoever has that may count on what it says being kept, and
    /// for the end of a pipe this is being asked.
    pub fn is_withheld(&self) -> bool {
        matches!(self.stage, Stage::Open(Dialect::Pipe(_))) && self.paused.has(Reason::Answer)
    }
}

/// Connections by slot; client ids find them by the slot in the id, and count only if the whole id is the same.
#[derive(Debug)]
pub struct Clients {
    slab: Slab<Client>,
    host: HostId,
    shard: ShardIndex,
}

impl Clients {
    /// An empty table.
    #[must_use]
    pub fn new(host: HostId, shard: ShardIndex) -> Self {
        Self { slab: Slab::new(), host, shard }
    }

    /// Adds a connection that has said nothing yet; nothing if all slots are taken.
    pub fn insert(&mut self, now: Tick, entropy: &mut Entropy) -> Option<Slot> {
        if self.slab.len() >= CLIENTS_PER_SHARD_MAX {
            return None;
        }
        let slot = Slot(self.slab.vacant_key() as u32);
        self.slab.insert(Client {
            id: ClientId::new(self.host, self.shard, slot, entropy),
            stage: Stage::Head(Vec::new()),
            connection: Connection::default(),
            outbox: Outbox::default(),
            window: Window::default(),
            received: now,
            ping_due: now,
            deadline: now,
            paused: Paused::default(),
            held: None,
            is_doomed: false,
            must_drain: false,
            is_private: false,
            is_dirty: false,
            is_blocked: false,
        });
        Some(slot)
    }

    /// The connection in a slot.
    #[must_use]
    pub fn at(&mut self, slot: Slot) -> Option<&mut Client> {
        self.slab.get_mut(slot.0 as usize)
    }

    /// Two different connections.
    #[must_use]
    pub fn two(&mut self, a: Slot, b: Slot) -> Option<(&mut Client, &mut Client)> {
        self.slab.get2_mut(a.0 as usize, b.0 as usize)
    }

    /// The client with this very id.
    #[must_use]
    pub fn find(&mut self, id: ClientId) -> Option<(Slot, &mut Client)> {
        let slot = id.slot();
        self.at(slot).filter(|client| client.id == id).map(|client| (slot, client))
    }

    /// Takes a connection out of the table.
    pub fn remove(&mut self, slot: Slot) -> Option<Client> {
        self.slab.try_remove(slot.0 as usize)
    }

    /// All slots in use.
    #[must_use]
    pub fn slots(&self) -> Vec<Slot> {
        self.slab.iter().map(|(key, _)| Slot(key as u32)).collect()
    }

    /// All connections, for checks.
    pub fn iter(&self) -> impl Iterator<Item = &Client> {
        self.slab.iter().map(|(_, client)| client)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }
}

/// What an idle client costs beside its task and its socket; more wants a reason.
const _: () = assert!(size_of::<Client>() <= RECORD_BYTES_MAX);
