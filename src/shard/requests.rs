//! Before a connection speaks a dialect: request heads, upgrades, plain answers.

use http::StatusCode;

use super::arrival::Purpose;
use super::clients::Stage;
use super::dialects::Dialect;
use super::route::{self, NoRoute, Opening};
use super::{Event, Shard};
use crate::id::Slot;
use crate::limits::KEEP_ALIVE_IDLE_MS;
use crate::protocol::pairing;
use crate::protocol::pipe::End;
use crate::websocket::CloseCode;
use crate::websocket::handshake::{self, Upgrade};
use crate::wire::http::{HeadError, RequestHead, Response, parse_head};

/// The path whose answer is known on the directory's home alone.
const CLIENTS_PATH: &str = "/clients";

impl Shard {
    /// The answer to [`Event::Request`], as it goes onto the wire. The connection is closed after it unless
    /// `keep_alive`.
    pub fn handle_response(&mut self, slot: Slot, response: &[u8], keep_alive: bool) {
        if !matches!(self.clients.at(slot).map(|client| &client.stage), Some(Stage::Answering(_))) {
            return;
        }
        self.counters.requests.add(1);
        self.send_bytes(slot, response);
        let Some(client) = self.clients.at(slot) else { return };
        let Stage::Answering(kept) = &mut client.stage else { return };
        let mut kept = std::mem::take(kept);
        if keep_alive {
            client.stage = Stage::Head(Vec::new());
            self.set_deadline(slot, KEEP_ALIVE_IDLE_MS);
            self.handle_head_bytes(slot, &mut kept);
        } else {
            self.finish(slot);
        }
        self.deliver_local();
    }

    /// Bytes came where a head is expected.
    pub(super) fn handle_head_bytes(&mut self, slot: Slot, input: &mut [u8]) {
        let Some(client) = self.clients.at(slot) else { return };
        let Stage::Head(kept) = &mut client.stage else { return };
        if input.is_empty() {
            return;
        }
        let mut kept = std::mem::take(kept);
        let is_first_piece = kept.is_empty();
        if is_first_piece {
            self.handle_head(slot, input, true);
        } else if self.buffers.reserve(&mut kept, input.len()).is_ok() {
            kept.extend_from_slice(input);
            let capacity = kept.capacity();
            self.in_hand_bytes += capacity;
            self.handle_head(slot, &mut kept, false);
            self.in_hand_bytes -= capacity;
            self.buffers.release(kept);
        } else {
            self.buffers.release(kept);
            self.cut(slot);
        }
    }

    fn handle_head(&mut self, slot: Slot, bytes: &mut [u8], is_first_piece: bool) {
        match parse_head(bytes) {
            Ok(None) => self.keep_head(slot, bytes, is_first_piece),
            Ok(Some((head, len))) => {
                let is_private = self.clients.at(slot).is_some_and(|client| client.is_private);
                match handshake::upgrade(&head).filter(|_| !is_private) {
                    Some(upgrade) => self.handle_upgrade(slot, &head, upgrade, &mut bytes[len..]),
                    None => self.handle_request(slot, head, &bytes[len..]),
                }
            }
            Err(HeadError::TooLarge) => {
                self.refuse(slot, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "request head over 8 KiB");
            }
            Err(HeadError::Malformed) => {
                self.refuse(slot, StatusCode::BAD_REQUEST, "not an HTTP/1.1 request");
            }
        }
    }

    /// A plain request; these bytes came behind it.
    fn handle_request(&mut self, slot: Slot, head: RequestHead, rest: &[u8]) {
        let (head, home) = (Box::new(head), route::lobby_home(self.settings.shards));
        if head.uri.path() == CLIENTS_PATH && home != self.router.here() {
            self.depart(slot, home, Purpose::Answer(head), rest);
        } else {
            self.ask(slot, head, rest.to_vec());
        }
    }

    /// Hands a request out to be answered.
    pub(super) fn ask(&mut self, slot: Slot, head: Box<RequestHead>, rest: Vec<u8>) {
        let Some(client) = self.clients.at(slot) else { return };
        let is_private = client.is_private;
        self.set_stage(slot, Stage::Answering(rest));
        self.events.push_back(Event::Request { slot, head, is_private });
    }

    /// Keeps the start of a head; its deadline runs from its first byte.
    fn keep_head(&mut self, slot: Slot, bytes: &[u8], is_first_piece: bool) {
        let mut kept = Vec::new();
        if self.buffers.reserve(&mut kept, bytes.len()).is_err() {
            return self.cut(slot);
        }
        kept.extend_from_slice(bytes);
        self.set_stage(slot, Stage::Head(kept));
        if is_first_piece {
            self.set_deadline(slot, self.settings.limits.head_deadline_ms);
        }
    }

    /// Checks in the order of protocols.md section 0: path, upgrade headers, origin; then the dialect's own.
    fn handle_upgrade(&mut self, slot: Slot, head: &RequestHead, upgrade: Upgrade, rest: &mut [u8]) {
        let opening = match route::route(&head.uri, upgrade == Upgrade::Tcp, &self.settings) {
            Ok(opening) => opening,
            Err(NoRoute::BadEscape) => {
                return self.refuse(slot, StatusCode::BAD_REQUEST, "bad escape in the path");
            }
            Err(NoRoute::NotFound) => {
                let paths: Vec<String> =
                    route::paths(&self.settings).into_iter().map(|(path, _)| path).collect();
                let reason = format!("no such path; there is {}", paths.join(", "));
                return self.refuse(slot, StatusCode::NOT_FOUND, &reason);
            }
        };
        let accepted = match handshake::accept(head, upgrade) {
            Ok(response) => response,
            Err(rejection) => return self.refuse(slot, rejection.status, rejection.reason),
        };
        if self.is_origin_allowed(head) {
            self.accept(slot, opening, &accepted, rest);
        } else {
            self.counters.origins_refused.add(1);
            if upgrade == Upgrade::Tcp {
                return self.refuse(slot, StatusCode::FORBIDDEN, "Origin not allowed");
            }
            if self.send_bytes(slot, &accepted) {
                self.close_unopened(slot, CloseCode::PolicyViolation, "Origin not allowed", rest);
            }
        }
    }

    /// Opens a dialect here, or sends the connection to where it lives. The 101 goes first in any case.
    fn accept(&mut self, slot: Slot, opening: Opening, accepted: &[u8], rest: &mut [u8]) {
        if !self.send_bytes(slot, accepted) {
            return;
        }
        match opening.home(&self.settings) {
            Some(home) if home != self.router.here() => {
                self.depart(slot, home, Purpose::Open(opening), rest);
            }
            _ => self.open(slot, opening, rest),
        }
    }

    /// Opens a dialect that lives here. The 101 stands in the outbox; `rest` came behind the head.
    pub(super) fn open(&mut self, slot: Slot, opening: Opening, rest: &mut [u8]) {
        match opening {
            Opening::WrongUrl(reason) => {
                return self.close_unopened(slot, CloseCode::Unsupported, reason, rest);
            }
            Opening::ShortPipe(remote) => return self.open_short_pipe(slot, &remote, rest),
            Opening::Echo => self.enter(slot, Dialect::Echo),
            Opening::Pairing => self.enter(slot, Dialect::Pairing(pairing::State::default())),
            Opening::Lobby => self.enter(slot, Dialect::Lobby),
            Opening::Rendezvous(place) => {
                self.enter(slot, Dialect::Lobby);
                self.enter_rendezvous(slot, &place);
            }
            Opening::Introduction(id) => {
                self.enter(slot, Dialect::Lobby);
                self.enter_introductions(slot, &id);
            }
            Opening::Pipe(end) => {
                let is_raw = end.is_raw();
                self.enter(slot, Dialect::Lobby);
                self.enter_pipe(slot, end);
                if is_raw {
                    self.stop_heartbeat(slot);
                }
            }
        }
        self.greet(slot);
        self.settle();
        self.handle_open_bytes(slot, rest);
    }

    /// Completes the short form of a pipe's URL from the introductions, which live here.
    fn open_short_pipe(&mut self, slot: Slot, remote: &str, rest: &mut [u8]) {
        if self.settings.has_cluster && self.ask_for_partner(slot, remote, rest) {
            return;
        }
        let pair = self.tables.introductions.partner_of(remote);
        self.open_between(slot, remote, pair, rest);
    }

    /// Opens the pipe of a short URL between `remote` and the other peer over a document, if there are such.
    pub(super) fn open_between(
        &mut self,
        slot: Slot,
        remote: &str,
        pair: Option<(String, String)>,
        rest: &mut [u8],
    ) {
        let Some((local, document)) = pair else {
            let reason = "use ?local= and ?document=";
            return self.close_unopened(slot, CloseCode::Unsupported, reason, rest);
        };
        let opening =
            Opening::Pipe(End::new(local.as_bytes(), remote.as_bytes(), document.as_bytes(), false));
        match opening.home(&self.settings) {
            Some(home) if home != self.router.here() => {
                self.depart(slot, home, Purpose::Open(opening), rest);
            }
            _ => self.open(slot, opening, rest),
        }
    }

    fn enter(&mut self, slot: Slot, dialect: Dialect) {
        self.set_stage(slot, Stage::Open(dialect));
        self.counters.clients.add(1);
        self.counters.upgrades.add(1);
        self.start_heartbeat(slot);
    }

    /// Closes a WebSocket that never spoke a dialect.
    fn close_unopened(&mut self, slot: Slot, code: CloseCode, reason: &'static str, rest: &mut [u8]) {
        self.counters.upgrades.add(1);
        self.send_close(slot, Some(code), reason);
        self.discard(slot, rest);
    }

    /// Whether the browser's page may be here (protocols.md section 0, origin).
    fn is_origin_allowed(&self, head: &RequestHead) -> bool {
        let allowed = &self.settings.allowed_origins;
        match head.headers.get(http::header::ORIGIN) {
            _ if allowed.is_empty() => true,
            Some(origin) => allowed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()),
            None => self.settings.allow_no_origin,
        }
    }

    /// Answers a request that cannot be served, and closes.
    pub(super) fn refuse(&mut self, slot: Slot, status: StatusCode, reason: &str) {
        self.counters.heads_refused.add(1);
        let response = Response::text(status, format!("{reason}\n")).emit(false, false);
        if self.send_bytes(slot, &response) {
            self.finish(slot);
        }
    }

    /// Sends bytes to a client that is no WebSocket; false: there was no room for them, and it is cut.
    pub(super) fn send_bytes(&mut self, slot: Slot, bytes: &[u8]) -> bool {
        self.send_pieces(slot, bytes.len(), |write| write(bytes));
        self.settle();
        !matches!(self.clients.at(slot).map(|client| &client.stage), None | Some(Stage::Cut))
    }
}
