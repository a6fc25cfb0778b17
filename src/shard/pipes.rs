//! Pipes: what one end sends goes on to the other as it arrives (protocols.md section 5).
//!
//! A WebSocket end's frames are unmasked where they lie and copied into the partner's outbox, a header in front of
//! each piece. A raw end's bytes go there as they are, unless whoever holds the sockets moves them in the kernel
//! ([`Shard::splice_target`]). The outbox of a slow end makes its partner pause; nothing is dropped.

use super::clients::Stage;
use super::dialects::Dialect;
use super::neighbours::pipes::Distant;
use super::pausing::Reason;
use super::{Event, Shard};
use crate::buffers::Exhausted;
use crate::id::{ClientId, Slot};
use crate::limits::{PIPE_OUTBOX_BYTES_HIGH, PIPE_OUTBOX_BYTES_LOW};
use crate::protocol::pipe::{End, Outcome};
use crate::websocket::connection::{ControlPayload, Event as WebSocketEvent, StreamEvent};
use crate::websocket::stream::{Piece, Stream};
use crate::wire::frame::{Opcode, SERVER_HEADER_LEN_MAX};

/// How a client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parting {
    /// A close from either side.
    Orderly,
    /// Its connection was lost or cut.
    Lost,
}

/// Where one end of a pipe stands.
#[derive(Debug)]
pub(super) enum Standing {
    /// Its partner has not come; this is kept for it, as it will go onto the wire.
    Held(Vec<u8>),
    /// It is joined with this one.
    Joined(ClientId),
    /// It is joined with one of another host.
    Distant(Box<Distant>),
}

/// One end of a pipe.
#[derive(Debug)]
pub struct Pipe {
    pub(super) end: End,
    pub(super) standing: Standing,
    /// While it is held: who of another host was asked to be its partner.
    pub(super) asking: Option<ClientId>,
    /// Redis has not said yet whether it waits: it replaces who waited in its place before.
    pub(super) is_new: bool,
    stream: Stream,
    /// A raw end's partner has ended its stream: ours to it ends when the outbox is empty.
    pub(super) must_finish: bool,
    /// Our stream to a raw end has ended.
    has_finished: bool,
    /// The partner waits until there is room in this end's outbox.
    is_awaited: bool,
    /// The last ping that came while too much waited to answer it.
    unanswered: Option<Box<ControlPayload>>,
}

impl Pipe {
    fn new(end: End, standing: Standing) -> Self {
        Self {
            end,
            standing,
            asking: None,
            is_new: true,
            stream: Stream::default(),
            must_finish: false,
            has_finished: false,
            is_awaited: false,
            unanswered: None,
        }
    }

    /// Whether it carries raw bytes instead of WebSocket frames.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        self.end.is_raw()
    }

    /// The other end, if it is on this shard.
    #[must_use]
    pub fn partner(&self) -> Option<ClientId> {
        match self.standing {
            Standing::Held(_) | Standing::Distant(_) => None,
            Standing::Joined(partner) => Some(partner),
        }
    }

    /// Its half of a pipe to another host.
    pub(super) fn distant(&mut self) -> Option<&mut Distant> {
        match &mut self.standing {
            Standing::Distant(distant) => Some(distant),
            Standing::Held(_) | Standing::Joined(_) => None,
        }
    }

    /// Where what it says is kept while it cannot go on.
    fn kept(&mut self) -> Option<&mut Vec<u8>> {
        match &mut self.standing {
            Standing::Held(kept) => Some(kept),
            Standing::Distant(distant) => Some(&mut distant.unsent),
            Standing::Joined(_) => None,
        }
    }

    /// How full this end's outbox may be before its partner pauses. A raw pair's is to be empty, so that bytes can
    /// be moved past it.
    fn outbox_bytes_low(&self) -> usize {
        if self.is_raw() { 0 } else { PIPE_OUTBOX_BYTES_LOW }
    }
}

impl Shard {
    /// An end of a pipe has come.
    pub(super) fn enter_pipe(&mut self, slot: Slot, end: End) {
        let Some(client) = self.clients.at(slot) else { return };
        let (me, is_raw) = (client.id, end.is_raw());
        if is_raw {
            self.events.push_back(Event::OpenedRaw(slot));
        }
        match self.tables.pipes.handle_connect(&end, me, self.now_ms) {
            Outcome::Held { replaced } => {
                let pipe = Pipe::new(end, Standing::Held(Vec::new()));
                client.stage = Stage::Open(Dialect::Pipe(Box::new(pipe)));
                if let Some((old, _)) = replaced.and_then(|old| self.clients.find(old)) {
                    self.doom(old, None, "");
                }
                self.enter_pipe_of_all(slot);
            }
            Outcome::Joined { partner } => {
                let pipe = Pipe::new(end, Standing::Joined(partner));
                client.stage = Stage::Open(Dialect::Pipe(Box::new(pipe)));
                self.join(slot, me, partner);
            }
            Outcome::Full => {
                client.stage =
                    Stage::Open(Dialect::Pipe(Box::new(Pipe::new(end, Standing::Held(Vec::new())))));
                self.doom_busy(slot);
            }
        }
        self.counters.pipes_held.set(self.tables.pipes.len() as u64);
    }

    /// Joins an end that has just come with the one that was held, and sends it what was kept.
    fn join(&mut self, slot: Slot, me: ClientId, partner: ClientId) {
        self.counters.pipes_joined.add(1);
        let Some((partner_slot, pipe)) = self.find_pipe(partner) else { return self.doom(slot, None, "") };
        let end = pipe.end.clone();
        let Standing::Held(kept) = std::mem::replace(&mut pipe.standing, Standing::Joined(me)) else {
            return;
        };
        let appended = self.append_to_pipe(slot, &kept);
        self.buffers.release(kept);
        if appended.is_err() {
            self.doom_busy(slot);
        }
        self.pause_if_full(partner_slot, slot);
        self.resume(partner_slot, Reason::Hold);
        self.forget_pipe(partner, &end);
        self.resume_pipe(partner_slot);
    }

    /// Joins two ends that were both held.
    pub(super) fn join_held(&mut self, slot: Slot, partner: ClientId) {
        let Some(me) = self.clients.at(slot).map(|client| client.id) else { return };
        let Some(pipe) = self.pipe_at(slot) else { return };
        let (end, standing) = (pipe.end.clone(), Standing::Joined(partner));
        let Standing::Held(kept) = std::mem::replace(&mut pipe.standing, standing) else { return };
        self.tables.pipes.handle_leave(&end, me);
        self.forget_pipe(me, &end);
        let Some((partner_slot, other)) = self.find_pipe(partner) else { return self.doom(slot, None, "") };
        let other_end = other.end.clone();
        self.tables.pipes.handle_leave(&other_end, partner);
        let appended = self.append_to_pipe(partner_slot, &kept);
        self.buffers.release(kept);
        if appended.is_err() {
            self.doom_busy(partner_slot);
        }
        self.pause_if_full(slot, partner_slot);
        self.resume(slot, Reason::Hold);
        self.join(slot, me, partner);
        self.resume_pipe(slot);
    }

    /// The pipe of a client, if it is at the end of one.
    pub(super) fn pipe_at(&mut self, slot: Slot) -> Option<&mut Pipe> {
        match &mut self.clients.at(slot)?.stage {
            Stage::Open(Dialect::Pipe(pipe)) => Some(pipe),
            _ => None,
        }
    }

    pub(super) fn find_pipe(&mut self, id: ClientId) -> Option<(Slot, &mut Pipe)> {
        let (slot, client) = self.clients.find(id)?;
        match &mut client.stage {
            Stage::Open(Dialect::Pipe(pipe)) => Some((slot, pipe)),
            _ => None,
        }
    }

    /// The slot of a client's partner in a pipe.
    fn partner_of(&mut self, slot: Slot) -> Option<Slot> {
        let partner = self.pipe_at(slot)?.partner()?;
        self.find_pipe(partner).map(|(slot, _)| slot)
    }

    /// Appends finished bytes to an outbox, past its bound.
    pub(super) fn append_to_pipe(&mut self, slot: Slot, bytes: &[u8]) -> Result<(), Exhausted> {
        let Some(client) = self.clients.at(slot) else { return Ok(()) };
        if !bytes.is_empty() && !client.is_doomed {
            client.outbox.reserve(bytes.len(), &mut self.buffers)?;
            client.outbox.append(bytes);
            self.mark_dirty(slot);
        }
        Ok(())
    }

    /// Bytes came from the end of a pipe.
    pub(super) fn handle_pipe_bytes(&mut self, slot: Slot, input: &mut [u8]) {
        if self.clients.at(slot).is_some_and(|client| client.paused.has(Reason::Answer)) {
            return self.hold(slot, input);
        }
        let Some(pipe) = self.pipe_at(slot) else { return };
        let is_raw = pipe.is_raw();
        match self.partner_of(slot) {
            Some(partner) => {
                if is_raw {
                    self.pass_raw(slot, partner, input);
                } else {
                    self.pass_frames(slot, Some(partner), input);
                    self.release_unused(partner);
                }
                self.pause_if_full(slot, partner);
            }
            None => {
                if is_raw {
                    self.keep(slot, input);
                } else {
                    self.pass_frames(slot, None, input);
                }
                if self.pipe_at(slot).is_some_and(|pipe| pipe.distant().is_some()) {
                    self.send_chunks(slot);
                } else {
                    self.pause_if_kept_enough(slot);
                }
            }
        }
    }

    fn pass_raw(&mut self, slot: Slot, partner: Slot, input: &[u8]) {
        self.counters.pipe_bytes.add(input.len() as u64);
        if self.append_to_pipe(partner, input).is_err() {
            self.doom_busy(slot);
        }
    }

    /// Passes on the data frames of a WebSocket end, and handles its control frames.
    fn pass_frames(&mut self, slot: Slot, partner: Option<Slot>, input: &mut [u8]) {
        if self.reserve_for(slot, partner, input.len()).is_err() {
            self.doom_busy(slot);
            self.settle();
            return self.discard(slot, input);
        }
        let mut cursor = 0;
        loop {
            let Some(client) = self.clients.at(slot) else { return };
            let Stage::Open(Dialect::Pipe(pipe)) = &mut client.stage else {
                return self.discard(slot, &mut input[cursor..]);
            };
            match client.connection.poll_stream(&mut pipe.stream, input, &mut cursor) {
                Ok(None) => return,
                Ok(Some(StreamEvent::Piece(piece))) => self.pass_piece(slot, partner, &piece, input),
                Ok(Some(StreamEvent::Control(WebSocketEvent::Ping(payload)))) => {
                    self.answer_ping(slot, payload);
                }
                Ok(Some(StreamEvent::Control(WebSocketEvent::Close(code)))) => {
                    self.answer_close(slot, code);
                    return self.settle();
                }
                Ok(Some(StreamEvent::Control(WebSocketEvent::Pong | WebSocketEvent::Message(..)))) => {}
                Err(failure) => self.fail(slot, failure),
            }
        }
    }

    /// Gives room back that was made for a partner and not used: control frames are not passed on.
    fn release_unused(&mut self, slot: Slot) {
        if let Some(client) = self.clients.at(slot)
            && client.outbox.is_empty()
        {
            client.outbox.release(&mut self.buffers);
        }
    }

    /// Makes room for what an input of this length can become, at once. What goes out is shorter than what came in,
    /// but for the header of a frame that began before.
    fn reserve_for(&mut self, slot: Slot, partner: Option<Slot>, len: usize) -> Result<(), Exhausted> {
        let len = len + SERVER_HEADER_LEN_MAX;
        match partner {
            Some(partner) => match self.clients.at(partner) {
                Some(partner) => partner.outbox.reserve(len, &mut self.buffers),
                None => Ok(()),
            },
            None => match self.clients.at(slot).map(|client| &mut client.stage) {
                Some(Stage::Open(Dialect::Pipe(pipe))) => match pipe.kept() {
                    Some(kept) => self.buffers.reserve(kept, len),
                    None => Ok(()),
                },
                _ => Ok(()),
            },
        }
    }

    /// Room was made.
    fn pass_piece(&mut self, slot: Slot, partner: Option<Slot>, piece: &Piece, input: &[u8]) {
        let (header, payload) = (piece.header.as_bytes(), &input[piece.span.clone()]);
        self.counters.pipe_frames.add(1);
        self.counters.pipe_bytes.add(payload.len() as u64);
        match partner {
            Some(partner) => {
                let Some(client) = self.clients.at(partner).filter(|client| !client.is_doomed) else {
                    return;
                };
                client.outbox.append(header);
                client.outbox.append(payload);
                self.mark_dirty(partner);
            }
            None => {
                if let Some(kept) = self.pipe_at(slot).and_then(Pipe::kept) {
                    kept.extend_from_slice(header);
                    kept.extend_from_slice(payload);
                }
            }
        }
    }

    /// Answers a ping between two frames. While much waits, only the last ping is remembered (RFC 6455 section 5.5.3),
    /// so that pings alone cannot fill an outbox.
    fn answer_ping(&mut self, slot: Slot, payload: ControlPayload) {
        let Some(client) = self.clients.at(slot) else { return };
        let waiting = client.outbox.len();
        let Stage::Open(Dialect::Pipe(pipe)) = &mut client.stage else { return };
        if waiting > PIPE_OUTBOX_BYTES_LOW {
            pipe.unanswered = Some(Box::new(payload));
        } else {
            self.send_frame(slot, Opcode::Pong, &payload);
        }
    }

    /// Keeps the bytes of a raw end whose partner has not come.
    fn keep(&mut self, slot: Slot, input: &[u8]) {
        let Some(client) = self.clients.at(slot) else { return };
        let Stage::Open(Dialect::Pipe(pipe)) = &mut client.stage else { return };
        if pipe.distant().is_some() {
            self.counters.pipe_bytes.add(input.len() as u64);
        }
        let Some(kept) = pipe.kept() else { return };
        match self.buffers.reserve(kept, input.len()) {
            Ok(()) => kept.extend_from_slice(input),
            Err(Exhausted) => self.doom_busy(slot),
        }
    }

    fn pause_if_kept_enough(&mut self, slot: Slot) {
        let max = self.settings.limits.pipe_hold_bytes;
        if let Some(Pipe { standing: Standing::Held(kept), .. }) = self.pipe_at(slot)
            && kept.len() >= max
        {
            self.pause(slot, Reason::Hold);
        }
    }

    /// Stops reading from an end while its partner has enough to take.
    fn pause_if_full(&mut self, slot: Slot, partner: Slot) {
        let Some(client) = self.clients.at(partner) else { return };
        let waiting = client.outbox.len();
        let Stage::Open(Dialect::Pipe(pipe)) = &mut client.stage else { return };
        let high = if pipe.is_raw() { 0 } else { PIPE_OUTBOX_BYTES_HIGH };
        if waiting > high {
            pipe.is_awaited = true;
            self.pause(slot, Reason::Partner);
        }
    }

    /// Something of a pipe end's outbox was sent.
    pub(super) fn after_pipe_write(&mut self, slot: Slot) {
        let Some(client) = self.clients.at(slot) else { return };
        let waiting = client.outbox.len();
        let Stage::Open(Dialect::Pipe(pipe)) = &mut client.stage else { return };
        if pipe.must_finish && !pipe.has_finished && waiting == 0 {
            pipe.has_finished = true;
            self.events.push_back(Event::FinishWriting(slot));
            return self.end_if_both_finished(slot);
        }
        if waiting > pipe.outbox_bytes_low() {
            return;
        }
        let (unanswered, is_awaited) = (pipe.unanswered.take(), std::mem::take(&mut pipe.is_awaited));
        if let Some(payload) = unanswered {
            self.send_frame(slot, Opcode::Pong, &payload);
        }
        if let (true, Some(partner)) = (is_awaited, self.partner_of(slot)) {
            self.resume(partner, Reason::Partner);
        }
        self.return_credit(slot);
        self.settle();
    }

    /// A raw pair through which bytes may be moved without the shard: the slot that they go to. Nothing: read, and
    /// hand in what comes. Also nothing while bytes wait that go first.
    #[must_use]
    pub fn splice_target(&mut self, slot: Slot) -> Option<Slot> {
        if !self.pipe_at(slot)?.is_raw() {
            return None;
        }
        let partner = self.partner_of(slot)?;
        self.clients
            .at(partner)
            .filter(|client| client.outbox.is_empty() && !client.is_doomed)
            .map(|_| partner)
    }

    /// So many bytes were moved without the shard.
    pub fn handle_spliced(&mut self, count: usize) {
        self.counters.pipe_bytes.add(count as u64);
        self.counters.pipe_bytes_spliced.add(count as u64);
    }

    /// A client's stream has ended. True: only its half of a raw pipe has, and the connection lives on, unread.
    /// False: the connection is over.
    pub fn handle_end(&mut self, slot: Slot, now_ms: u64) -> bool {
        self.now_ms = now_ms;
        if !self.pipe_at(slot).is_some_and(|pipe| pipe.is_raw()) {
            return false;
        }
        if self.pipe_at(slot).is_some_and(|pipe| pipe.distant().is_some()) {
            self.finish_distant(slot);
            self.deliver_local();
            return true;
        }
        let Some(partner) = self.partner_of(slot) else { return false };
        self.pause(slot, Reason::Ended);
        if let Some(pipe) = self.pipe_at(partner) {
            pipe.must_finish = true;
        }
        self.mark_dirty(partner);
        true
    }

    /// Both halves of a raw pipe have ended: that is all.
    pub(super) fn end_if_both_finished(&mut self, slot: Slot) {
        if let Some(pipe) = self.pipe_at(slot)
            && pipe.has_finished
            && pipe.distant().is_some_and(|distant| distant.has_said_end())
        {
            self.part(slot);
            return self.cut(slot);
        }
        let Some(partner) = self.partner_of(slot) else { return };
        if !self.pipe_at(partner).is_some_and(|pipe| pipe.has_finished) {
            return;
        }
        for slot in [slot, partner] {
            if let Some(pipe) = self.pipe_at(slot) {
                pipe.standing = Standing::Held(Vec::new());
            }
            self.cut(slot);
        }
    }

    /// An end has left: what it sent before still arrives, then its partner is closed without a code. Of a raw pair, a
    /// reset is passed on as a reset.
    pub(super) fn leave_pipe(&mut self, me: ClientId, pipe: Pipe, parting: Parting) {
        match pipe.standing {
            Standing::Held(kept) => {
                self.buffers.release(kept);
                self.tables.pipes.handle_leave(&pipe.end, me);
                self.forget_pipe(me, &pipe.end);
            }
            Standing::Distant(distant) => self.leave_distant(me, *distant, parting),
            Standing::Joined(partner) => {
                let Some((slot, other)) = self.find_pipe(partner) else { return };
                // Nobody is left to be told when this one leaves.
                other.standing = Standing::Held(Vec::new());
                if pipe.is_raw() && parting == Parting::Lost {
                    return self.reset(slot);
                }
                if let Some(client) = self.clients.at(slot) {
                    client.must_drain = true;
                }
                self.doom(slot, None, "");
            }
        }
    }
}
