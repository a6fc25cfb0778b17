//! Before a connection is a WebSocket: request heads, upgrades, plain answers.

use http::StatusCode;

use super::clients::Stage;
use super::{Event, Shard};
use crate::id::Slot;
use crate::limits::KEEP_ALIVE_IDLE_MS;
use crate::protocol::{Dialect, pairing};
use crate::websocket::{CloseCode, handshake};
use crate::wire::http::{HeadError, RequestHead, Response, decode_segment, parse_head};

/// Why no dialect is behind a path.
enum NoRoute {
    NotFound,
    BadEscape,
}

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
            Ok(Some((head, len))) if handshake::is_upgrade(&head) => {
                self.handle_upgrade(slot, &head);
                self.handle_frames(slot, &mut bytes[len..]);
            }
            Ok(Some((head, len))) => {
                self.set_stage(slot, Stage::Answering(bytes[len..].to_vec()));
                self.events.push_back(Event::Request { slot, head: Box::new(head) });
            }
            Err(HeadError::TooLarge) => {
                self.refuse(slot, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "request head over 8 KiB");
            }
            Err(HeadError::Malformed) => {
                self.refuse(slot, StatusCode::BAD_REQUEST, "not an HTTP/1.1 request");
            }
        }
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

    /// Checks in the order of protocols.md section 0: path, upgrade headers, origin.
    fn handle_upgrade(&mut self, slot: Slot, head: &RequestHead) {
        let dialect = match self.route(head.uri.path()) {
            Ok(dialect) => dialect,
            Err(NoRoute::BadEscape) => {
                return self.refuse(slot, StatusCode::BAD_REQUEST, "bad escape in the path");
            }
            Err(NoRoute::NotFound) => {
                let paths = format!("no such path; there is {}", self.paths().join(", "));
                return self.refuse(slot, StatusCode::NOT_FOUND, &paths);
            }
        };
        let accepted = match handshake::accept(head) {
            Ok(response) => response,
            Err(rejection) => return self.refuse(slot, rejection.status, rejection.reason),
        };
        if !self.send_bytes(slot, &accepted) {
            return;
        }
        self.open(slot, dialect);
        if self.is_origin_allowed(head) {
            self.greet(slot);
        } else {
            self.counters.origins_refused.add(1);
            self.start_close(slot, CloseCode::PolicyViolation, "Origin not allowed");
        }
    }

    /// The dialect behind a path (protocols.md section 0, which dialect).
    fn route(&self, path: &str) -> Result<Dialect, NoRoute> {
        if self.settings.echo_path.as_deref() == Some(path) {
            return Ok(Dialect::Echo);
        }
        let segments = path.strip_prefix('/').ok_or(NoRoute::NotFound)?.split('/');
        let decoded: Result<Vec<_>, _> = segments.map(decode_segment).collect();
        let decoded = decoded.map_err(|_| NoRoute::BadEscape)?;
        match decoded.as_slice() {
            [word] | [word, _] if self.settings.pairing && word.eq_ignore_ascii_case("ws") => {
                match decoded.get(1) {
                    Some(rest) if !rest.is_empty() => Err(NoRoute::NotFound),
                    _ => Ok(Dialect::Pairing(pairing::State::default())),
                }
            }
            _ => Err(NoRoute::NotFound),
        }
    }

    /// The paths that exist.
    fn paths(&self) -> Vec<&str> {
        let pairing = self.settings.pairing.then_some("/ws");
        pairing.into_iter().chain(self.settings.echo_path.as_deref()).collect()
    }

    fn open(&mut self, slot: Slot, dialect: Dialect) {
        self.set_stage(slot, Stage::Open(dialect));
        self.counters.clients.add(1);
        self.counters.upgrades.add(1);
        self.start_heartbeat(slot);
    }

    fn greet(&mut self, slot: Slot) {
        let Some(client) = self.clients.at(slot) else { return };
        let mut actions = std::mem::take(&mut self.actions);
        if let Stage::Open(Dialect::Pairing(_)) = client.stage {
            self.pairing.handle_connect(client.id, &mut actions);
        }
        self.apply(slot, &mut actions, &[]);
        self.actions = actions;
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
    fn send_bytes(&mut self, slot: Slot, bytes: &[u8]) -> bool {
        self.send_pieces(slot, bytes.len(), |write| write(bytes));
        !matches!(self.clients.at(slot).map(|client| &client.stage), None | Some(Stage::Cut))
    }
}
