//! A connection that moves from the shard that accepted it to the one where its key lives.

use super::clients::Stage;
use super::route::Opening;
use super::timers::Tick;
use super::{Event, Shard};
use crate::buffers::Transit;
use crate::id::{ShardIndex, Slot};
use crate::wire::http::RequestHead;

/// What moves with a socket.
#[derive(Debug)]
pub struct Arrival {
    /// Bytes that the client is still to be sent, before anything else.
    pub(super) unsent: Transit,
    /// What came behind the request's head.
    pub(super) rest: Transit,
    /// What is to be done.
    pub(super) purpose: Purpose,
    /// The connection came in on the private port.
    pub(super) is_private: bool,
}

/// Why a connection moves.
#[derive(Debug)]
pub(super) enum Purpose {
    /// To open a dialect; the head of the 101 is the last that is unsent.
    Open(Opening),
    /// To answer a plain request with what is known there alone.
    Answer(Box<RequestHead>),
}

impl Shard {
    /// A connection has come from another shard. Nothing: there is no room, close it.
    pub fn handle_arrival(&mut self, arrival: Arrival, now_ms: u64) -> Option<Slot> {
        self.now_ms = now_ms;
        let slot = self.clients.insert(Tick::at(now_ms), &mut self.entropy)?;
        self.counters.connections.add(1);
        if let Some(client) = self.clients.at(slot) {
            client.is_private = arrival.is_private;
        }
        let Arrival { unsent, rest, purpose, .. } = arrival;
        if self.is_shutting_down {
            self.cut(slot);
        } else if self.send_bytes(slot, unsent.bytes()) {
            self.start(slot, purpose, &rest);
        }
        self.deliver_local();
        Some(slot)
    }

    fn start(&mut self, slot: Slot, purpose: Purpose, rest: &Transit) {
        match purpose {
            Purpose::Open(opening) => self.open(slot, opening, &mut rest.bytes().to_vec()),
            Purpose::Answer(head) => self.ask(slot, head, rest.bytes().to_vec()),
        }
    }

    /// Sends a connection to another shard.
    pub(super) fn depart(&mut self, slot: Slot, to: ShardIndex, purpose: Purpose, rest: &[u8]) {
        let Some(client) = self.clients.at(slot) else { return };
        let (mut unsent, is_private) = (Vec::new(), client.is_private);
        while !client.outbox.is_empty() {
            let before = unsent.len();
            client.outbox.gather().iter().for_each(|piece| unsent.extend_from_slice(piece));
            client.outbox.consume(unsent.len() - before, &mut self.buffers);
        }
        let rest = self.buffers.transit(rest.to_vec().into());
        let unsent = self.buffers.transit(unsent.into());
        let (Ok(rest), Ok(unsent)) = (rest, unsent) else { return self.cut(slot) };
        self.set_stage(slot, Stage::Moving);
        let arrival = Box::new(Arrival { unsent, rest, purpose, is_private });
        self.counters.moves.add(1);
        self.events.push_back(Event::Move { slot, to, arrival });
    }
}
