//! How connections end: closes of our own and answers to the peer's, the end of TCP, and what is left behind.

use super::clients::Stage;
use super::pausing::Paused;
use super::pipes::Parting;
use super::{Event, Shard};
use crate::buffers::Exhausted;
use crate::id::Slot;
use crate::limits::CLOSE_DEADLINE_MS;
use crate::websocket::CloseCode;
use crate::wire::frame::{Opcode, ServerHeader};

/// Longest reason of a close frame: the code takes two bytes of a control frame's payload.
const REASON_BYTES_MAX: usize = 123;

/// A client that is to be closed once what is being handled is through: closing it at once would have its
/// leaving overtake what others are still to be told.
#[derive(Debug)]
pub(super) struct Doomed {
    slot: Slot,
    code: Option<CloseCode>,
    reason: &'static str,
    /// Something of a raw stream is lost, which its end must not hide.
    must_reset: bool,
}

impl Shard {
    /// Has a client closed soon. It is sent nothing more, and nothing more is read from it.
    pub(super) fn doom(&mut self, slot: Slot, code: Option<CloseCode>, reason: &'static str) {
        self.doom_as(Doomed { slot, code, reason, must_reset: false });
    }

    /// There is no memory for this client.
    pub(super) fn doom_busy(&mut self, slot: Slot) {
        self.counters.server_busy.add(1);
        self.doom_again_later(slot, "server busy");
    }

    /// Has a client closed soon so that it comes again; a raw end, which no code can be said to, is reset.
    pub(super) fn doom_again_later(&mut self, slot: Slot, reason: &'static str) {
        let stage = self.clients.at(slot).map(|client| &client.stage);
        let must_reset = matches!(stage, Some(Stage::Open(dialect)) if dialect.is_raw());
        self.doom_as(Doomed { slot, code: Some(CloseCode::TryAgainLater), reason, must_reset });
    }

    fn doom_as(&mut self, doomed: Doomed) {
        let Some(client) = self.clients.at(doomed.slot) else { return };
        if !client.is_doomed {
            client.is_doomed = true;
            self.doomed.push_back(doomed);
        }
    }

    /// Closes those who are doomed, and those who are doomed by that.
    pub(super) fn settle(&mut self) {
        while let Some(Doomed { slot, code, reason, must_reset }) = self.doomed.pop_front() {
            let Some(client) = self.clients.at(slot).filter(|client| client.is_doomed) else { continue };
            client.is_doomed = false;
            if must_reset {
                self.reset(slot);
            } else {
                self.start_close(slot, code, reason);
            }
        }
    }

    /// Sends a close of our own and waits for the answer. Who is no WebSocket would not understand it: a raw end's
    /// stream just ends, anybody else is cut.
    pub(super) fn start_close(&mut self, slot: Slot, code: Option<CloseCode>, reason: &str) {
        let Some(client) = self.clients.at(slot) else { return };
        client.is_doomed = false;
        let is_raw = match &client.stage {
            Stage::Open(dialect) => dialect.is_raw(),
            Stage::Head(_) | Stage::Answering(_) | Stage::Moving => return self.cut(slot),
            // It is being closed already.
            Stage::Closing | Stage::Finishing | Stage::Finished | Stage::Cut => return,
        };
        let has_answered = self.discard_held(slot);
        self.leave(slot, Parting::Orderly);
        if is_raw {
            return self.finish(slot);
        }
        self.send_close(slot, code, reason);
        if has_answered {
            self.finish(slot);
        }
    }

    /// As [`Shard::start_close`], for one that has left its dialect or never was in one.
    pub(super) fn send_close(&mut self, slot: Slot, code: Option<CloseCode>, reason: &str) {
        let mut payload = [0; 2 + REASON_BYTES_MAX];
        let mut len = 0;
        if let Some(code) = code {
            len = 2 + reason.len();
            payload[..2].copy_from_slice(&code.number().to_be_bytes());
            payload[2..len].copy_from_slice(reason.as_bytes());
        }
        if self.append_close(slot, &payload[..len]).is_err() {
            return self.cut(slot);
        }
        self.set_stage(slot, Stage::Closing);
        self.set_deadline(slot, CLOSE_DEADLINE_MS);
        self.resume_if_paused(slot);
    }

    /// Answers the peer's close with the code that it sent (protocols.md section 0, close).
    pub(super) fn answer_close(&mut self, slot: Slot, code: Option<u16>) {
        self.leave(slot, Parting::Orderly);
        let payload = code.map(u16::to_be_bytes);
        match self.append_close(slot, payload.as_ref().map_or(&[], |code| code.as_slice())) {
            Ok(()) => self.finish(slot),
            Err(Exhausted) => self.cut(slot),
        }
    }

    /// Appends a close frame, past the bound of the outbox.
    fn append_close(&mut self, slot: Slot, payload: &[u8]) -> Result<(), Exhausted> {
        let header = ServerHeader::new(Opcode::Close, payload.len());
        if let Some(client) = self.clients.at(slot) {
            client.outbox.reserve(header.as_bytes().len() + payload.len(), &mut self.buffers)?;
            client.outbox.append(header.as_bytes());
            client.outbox.append(payload);
        }
        self.mark_dirty(slot);
        Ok(())
    }

    /// All is said: our side of TCP is shut once the outbox is out.
    pub(super) fn finish(&mut self, slot: Slot) {
        self.set_stage(slot, Stage::Finishing);
        self.set_deadline(slot, CLOSE_DEADLINE_MS);
        self.mark_dirty(slot);
        self.resume_if_paused(slot);
    }

    /// Ends a connection without another word.
    pub(super) fn cut(&mut self, slot: Slot) {
        self.end_now(slot, Event::Cut(slot));
    }

    /// Ends a connection so that the peer takes note of it as an error.
    pub(super) fn reset(&mut self, slot: Slot) {
        self.end_now(slot, Event::Reset(slot));
    }

    fn end_now(&mut self, slot: Slot, event: Event) {
        self.leave(slot, Parting::Lost);
        let Some(client) = self.clients.at(slot) else { return };
        if !matches!(client.stage, Stage::Cut) {
            client.outbox.release(&mut self.buffers);
            client.paused = Paused::default();
            self.set_stage(slot, Stage::Cut);
            self.events.push_back(event);
        }
    }

    /// What follows when something was sent.
    pub(super) fn after_write(&mut self, slot: Slot) {
        let Some(client) = self.clients.at(slot) else { return };
        match client.stage {
            Stage::Finishing if client.outbox.is_empty() => {
                client.stage = Stage::Finished;
                self.events.push_back(Event::FinishWriting(slot));
            }
            Stage::Open(ref dialect) if dialect.is_pipe() => self.after_pipe_write(slot),
            _ => {}
        }
    }

    /// Changes the stage and gives back the memory of the one before.
    pub(super) fn set_stage(&mut self, slot: Slot, stage: Stage) {
        let Some(client) = self.clients.at(slot) else { return };
        match std::mem::replace(&mut client.stage, stage) {
            Stage::Head(kept) => self.buffers.release(kept),
            Stage::Open(_) => client.connection.release(&mut self.buffers),
            Stage::Answering(_)
            | Stage::Moving
            | Stage::Closing
            | Stage::Finishing
            | Stage::Finished
            | Stage::Cut => {}
        }
    }

    /// Reads and discards what a client says after our close; the answer may be among it.
    pub(super) fn discard(&mut self, slot: Slot, input: &mut [u8]) {
        let Some(client) = self.clients.at(slot) else { return };
        if matches!(client.stage, Stage::Closing) && client.connection.discard(input) {
            self.finish(slot);
        }
    }
}
