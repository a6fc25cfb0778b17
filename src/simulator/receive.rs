//! What clients read, and what they do at once with it.

use super::checks::{fail, give_up};
use super::client::{Incoming, ServerFrame};
use super::connection::Voice;
use super::ledger::{Expected, Heard, Meaning, What};
use super::socket::ClientEnd;
use super::world::{RESPONSE, World, trace};
use super::{lobby, pairing, pipes, rendezvous};
use crate::wire::frame::Opcode;

impl World {
    /// A client reads at most so many bytes, and does at once what a WebSocket library does.
    pub(super) fn receive(&mut self, index: usize, max: usize) {
        let client = &mut self.connections[index];
        if client.never_reads || !matches!(client.socket.client, ClientEnd::Open | ClientEnd::HalfFinished) {
            return;
        }
        let bytes = client.socket.receive(max);
        if !bytes.is_empty() {
            self.activity += 1;
            client.reader.push(&bytes);
        }
        while let Some(incoming) = self.connections[index].reader.poll() {
            self.receive_one(index, incoming);
        }
        if self.connections[index].socket.has_ended_for_client() {
            self.receive_end(index);
        }
    }

    fn receive_one(&mut self, index: usize, incoming: Incoming) {
        let client = &mut self.connections[index];
        match incoming {
            Incoming::Upgraded if client.has_upgraded => client.is_open = true,
            Incoming::Upgraded => fail("a 101 that was not asked for"),
            Incoming::Http(bytes) => receive_http(&mut client.http, &bytes),
            Incoming::Frame { .. } if client.ledger.is_closed => fail("a frame after a close"),
            Incoming::Frame { frame, at } => self.receive_frame(index, &frame, at),
            Incoming::Raw(bytes) => {
                trace!(self, "client {index} receives {} bytes", bytes.len());
                pipes::receive(&mut self.connections, index, u64::MAX, bytes.len(), |log, cursor| {
                    log.check_raw(cursor, &bytes);
                });
            }
        }
    }

    fn receive_frame(&mut self, index: usize, frame: &ServerFrame, at: u64) {
        if frame.opcode == Opcode::Pong {
            trace!(self, "client {index} receives a pong of {} bytes", frame.payload.len());
        }
        let client = &mut self.connections[index];
        let is_whole = frame.fin && frame.opcode != Opcode::Continuation;
        match frame.opcode {
            Opcode::Ping if is_whole => {
                self.summary.heartbeats += 1;
                client.pong(&frame.payload, &mut self.chance);
            }
            Opcode::Pong if is_whole => match &mut client.voice {
                Voice::Pairing(account) => account.receive_pong(&frame.payload),
                _ => {
                    client.ledger.receive(Heard::Pong(&frame.payload));
                }
            },
            Opcode::Close if is_whole => self.receive_close(index, &frame.payload),
            Opcode::Text | Opcode::Binary | Opcode::Continuation if client.is_pipe() => {
                trace!(self, "client {index} receives {} bytes, fin: {}", frame.payload.len(), frame.fin);
                pipes::receive(&mut self.connections, index, at, frame.payload.len(), |log, cursor| {
                    log.check_frame(cursor, frame);
                });
            }
            Opcode::Text if is_whole => self.receive_text(index, &frame.payload, at),
            opcode => fail(format!("client {index} has received a frame of {opcode:?}, fin: {}", frame.fin)),
        }
    }

    fn receive_text(&mut self, index: usize, payload: &[u8], at: u64) {
        trace!(self, "client {index} receives {}", String::from_utf8_lossy(payload));
        if self.connections[index].is_pairing() {
            return pairing::receive_text(&mut self.connections, index, payload, at);
        }
        let Expected { what, meaning, .. } = self.connections[index].ledger.receive(Heard::Text(payload));
        match what {
            What::RoomCreated(room) => {
                let id = &self.connections[index].id;
                self.books.lobby.rooms.resolve(room, payload, id);
            }
            // Somebody has guessed an id that nobody was told of yet.
            What::NoSuchRoom if payload != lobby::ROOM_NOT_FOUND.as_bytes() => give_up("a room was guessed"),
            What::Text(_) | What::NoSuchRoom | What::Pong(_) | What::Close(..) => {}
        }
        self.summary.count_meaning(&meaning);
        match (&mut self.connections[index].voice, meaning) {
            (Voice::Rendezvous(client), Meaning::Rendezvous(news)) => client.learn(news),
            (Voice::Lobby(client), Meaning::Lobby(news)) => client.learn(news),
            _ => {}
        }
    }

    fn receive_close(&mut self, index: usize, payload: &[u8]) {
        trace!(self, "client {index} receives a close: {}", payload.escape_ascii());
        let client = &mut self.connections[index];
        let (code, reason) = payload.split_at_checked(2).unwrap_or_default();
        let code = code.try_into().ok().map(u16::from_be_bytes);
        let is_expected = match &client.voice {
            Voice::Pairing(account) => {
                client.ledger.is_closed = true;
                account.is_reply(code)
            }
            _ => client.ledger.receive_close(code, reason),
        };
        let counters = self.shards[client.shard].counters();
        let is_own = match (code, reason) {
            (Some(1001), b"Server shutting down") => self.is_shutting_down,
            (Some(1013), b"too slow") => counters.too_slow.value() > 0,
            (Some(1013), b"server busy") => counters.server_busy.value() > 0,
            _ => false,
        };
        if !is_expected && !is_own {
            let expected = client.ledger.next_expected();
            fail(format!("client {index} was closed: {}, expected {expected:?}", payload.escape_ascii()));
        }
        client.ledger.forget_expected();
        if client.is_pipe() && is_expected {
            pipes::check_before_close(&self.connections, index);
        }
        let client = &mut self.connections[index];
        if !client.ignores_close {
            client.close(code, &mut self.chance);
        }
    }

    /// A client has read all, and then the end.
    fn receive_end(&mut self, index: usize) {
        let client = &self.connections[index];
        let socket = &client.socket;
        let is_lost = socket.is_cut || socket.is_reset;
        let has_seen_end = matches!(&client.voice, Voice::Pipe(end) if end.has_seen_end);
        let is_stream = socket.is_raw && socket.is_finished && !is_lost;
        if is_stream && !has_seen_end {
            self.activity += 1;
            pipes::see_end(&mut self.connections, index);
        }
        let client = &mut self.connections[index];
        let is_stubborn = (client.ignores_close || is_stream) && !self.is_calm && !is_lost;
        if is_stubborn {
            return;
        }
        let how = if is_stream { ClientEnd::HalfFinished } else { ClientEnd::Finished };
        if client.socket.client != how {
            self.activity += 1;
            client.end(how);
        }
    }
}

/// Plain HTTP is answers to requests, and perhaps a refusal in the end.
fn receive_http(received: &mut Vec<u8>, bytes: &[u8]) {
    received.extend_from_slice(bytes);
    let mut rest = received.as_slice();
    while let Some(after) = rest.strip_prefix(RESPONSE) {
        rest = after;
    }
    let refusal = b"HTTP/1.1 4";
    let len = rest.len().min(refusal.len());
    if !RESPONSE.starts_with(rest) && rest[..len] != refusal[..len] {
        fail(format!("not HTTP: {}", rest.escape_ascii()));
    }
}

impl super::Summary {
    fn count_meaning(&mut self, meaning: &Meaning) {
        use lobby::News as Lobby;
        use rendezvous::News as Rendezvous;
        let number = match meaning {
            Meaning::Nothing | Meaning::Lobby(Lobby::LoggedIn(_) | Lobby::Entered(_)) => return,
            Meaning::Rendezvous(Rendezvous::Met(..) | Rendezvous::Parted(_)) => &mut self.presences,
            Meaning::Rendezvous(Rendezvous::Data) => &mut self.rendezvous_data,
            Meaning::Rendezvous(Rendezvous::Confirmed) => &mut self.rendezvous_confirmed,
            Meaning::Lobby(Lobby::Came(_) | Lobby::Went(_)) => &mut self.presences,
            Meaning::Lobby(Lobby::FromPeer) => &mut self.from_peers,
            Meaning::Lobby(Lobby::FromRoom) => &mut self.signals,
            Meaning::Lobby(Lobby::TooFast) => &mut self.directory_too_fast,
        };
        *number += 1;
    }
}
