//! What one end sends goes on to the other as it arrives.

use parlor::shard::dialects::Dialect;
use parlor::wire::frame::Opcode;

use crate::framer::{Bounds, Found, Framer, Message};
use crate::referee::{Parting, Stage, Table};
use crate::wire::{Frame, Reading};
use crate::world::{Host, Peer};

/// All ends that ever were.
#[derive(Debug, Default)]
pub struct Pipes {
    ends: Vec<End>,
}

#[derive(Debug)]
struct End {
    who: usize,
    /// Oneself, the other, the document.
    names: [String; 3],
    is_raw: bool,
    /// Where it waits, and until when.
    held: Option<(usize, u64)>,
    /// Its place among the ends.
    partner: Option<usize>,
    /// What it sent: frames, or bytes.
    frames: Framer,
    pings: Vec<Vec<u8>>,
    bytes: Vec<u8>,
    /// How far it had come with it when the pipe ended.
    last: Option<Progress>,
    /// When its partner left, if it was there then.
    left_ms: Option<u64>,
    /// It sends nothing more, but takes what comes.
    has_ended: bool,
    is_over: bool,
}

/// Complete messages and bytes of the one that is not; or bytes.
type Progress = (usize, usize);

impl End {
    fn progress(&self) -> Progress {
        let now = if self.is_raw { (0, self.bytes.len()) } else { self.frames.progress() };
        self.last.unwrap_or(now)
    }
}

impl Pipes {
    /// Whether a client is the end of a pipe.
    pub(super) fn has(&self, who: usize) -> bool {
        self.at(who).is_some()
    }

    /// An end comes.
    pub(super) fn enter(&mut self, who: usize, names: [String; 3], is_raw: bool, table: &mut Table) {
        let [me, other, document] = &names;
        let opposite = [other, me, document].map(String::clone);
        let is_same = |end: &End, names: &[String; 3]| {
            end.held.is_some() && end.is_raw == is_raw && end.names == *names
        };
        let partner = self.ends.iter().position(|end| is_same(end, &opposite));
        let replaced = self.ends.iter().position(|end| is_same(end, &names));
        let shard = table.clients[who].shard;
        let held_count = self.ends.iter().filter(|end| end.held.is_some()).count();
        let mut held = Some((shard, table.now_ms + table.limits.pipe_hold_ms));
        if let Some(partner) = partner {
            self.ends[partner].held = None;
            self.ends[partner].partner = Some(self.ends.len());
            held = None;
        } else if let Some(replaced) = replaced {
            self.ends[replaced].held = None;
            table.doom(self.ends[replaced].who, None, "");
        } else if held_count >= table.limits.held_pipes_max {
            held = None;
            table.doom(who, Some(1013), "server busy");
        }
        self.ends.push(End {
            who,
            names,
            is_raw,
            held,
            partner,
            frames: Framer::default(),
            pings: Vec::new(),
            bytes: Vec::new(),
            last: None,
            left_ms: None,
            has_ended: false,
            is_over: false,
        });
    }

    /// An end has sent bytes.
    pub(super) fn handle_stream(&mut self, who: usize, piece: &[u8]) -> Option<Found> {
        let at = self.at(who)?;
        let end = &mut self.ends[at];
        if end.is_raw {
            end.bytes.extend_from_slice(piece);
            return None;
        }
        end.frames.push(piece);
        loop {
            match end.frames.poll(Bounds::NONE)? {
                Found::Message(_) | Found::Pong => {}
                Found::Ping(payload) => end.pings.push(payload),
                found @ (Found::Close(_) | Found::Failed(..)) => return Some(found),
            }
        }
    }

    /// The half of a raw pipe has ended.
    pub(super) fn handle_end(&mut self, who: usize) {
        if let Some(at) = self.at(who) {
            self.ends[at].has_ended = true;
        }
    }

    /// An end has left.
    pub(super) fn leave(&mut self, who: usize, parting: Parting, table: &mut Table) {
        let Some(at) = self.at(who) else { return };
        let end = &mut self.ends[at];
        (end.held, end.is_over, end.last) = (None, true, Some(end.progress()));
        let (is_reset, Some(partner)) = (end.is_raw && parting == Parting::Lost, end.partner) else { return };
        let partner = &mut self.ends[partner];
        partner.last = Some(partner.progress());
        if !is_reset && !partner.is_over {
            partner.left_ms = Some(table.now_ms);
            table.doom(partner.who, None, "");
        }
    }

    /// Time has passed for a shard.
    pub(super) fn handle_time(&mut self, shard: usize, table: &mut Table) {
        let has_limit = table.limits.pipe_hold_ms > 0;
        for end in &self.ends {
            if end.held.is_some_and(|(at, due_ms)| has_limit && at == shard && due_ms <= table.now_ms) {
                table.doom(end.who, Some(1013), "peer did not connect");
            }
        }
    }

    /// Ends are joined with those who name them, and nobody stays when the other has left.
    pub(super) fn check(&self, host: &Host, table: &Table) {
        for end in &self.ends {
            let Some(Dialect::Pipe(pipe)) = host.dialect(end.who) else { continue };
            let partner = pipe.partner().map(|id| host.peer_of(id).expect("the partner is there"));
            let expected = end.partner.map(|partner| &self.ends[partner]);
            if table.is_loose && partner.is_none() {
                continue;
            }
            assert_eq!(partner, expected.map(|partner| partner.who), "whom peer {} is joined with", end.who);
            assert!(expected.is_none_or(|partner| !partner.is_over), "peer {} has no partner", end.who);
        }
    }

    /// What each end got is what its partner sent, or the start of it; all of it where nothing stood in the way.
    pub(super) fn finish(&self, host: &Host, table: &Table, readings: &[Reading<'_>]) {
        for end in &self.ends {
            let (peer, reading) = (&host.peers[end.who], &readings[end.who]);
            let partner = end.partner.map(|partner| &self.ends[partner]);
            let has_read_all = peer.is_there() && !peer.is_cut && !table.is_loose;
            let got = if end.is_raw {
                end.check_bytes(reading.opened, partner)
            } else {
                end.check_messages(&reading.frames, partner)
            };
            let progress = partner.map_or((0, 0), End::progress);
            if let (Some(left_ms), true) = (end.left_ms, got != progress && !table.is_loose) {
                end.check_patience(peer, left_ms, 2 * table.limits.heartbeat_ms);
            }
            if !has_read_all {
                continue;
            }
            assert_eq!(got, progress, "what peer {} got", end.who);
            let is_ended = end.is_raw && partner.is_some_and(|partner| partner.has_ended);
            assert!(!is_ended || peer.is_finished, "the end is passed on");
            if !end.is_raw {
                end.check_control(reading, table);
            }
        }
    }

    fn at(&self, who: usize) -> Option<usize> {
        self.ends.iter().position(|end| end.who == who)
    }
}

impl End {
    fn check_bytes(&self, got: &[u8], partner: Option<&Self>) -> Progress {
        let sent = partner.map_or(&[][..], |partner| &partner.bytes[..partner.progress().1]);
        assert!(sent.starts_with(got), "peer {} got what was not sent", self.who);
        (0, got.len())
    }

    fn check_messages(&self, frames: &[Frame<'_>], partner: Option<&Self>) -> Progress {
        let got = joined(frames);
        let sent = partner.map_or(&[][..], |partner| &partner.frames.messages);
        assert!(got.len() <= sent.len(), "peer {} got more messages than were sent", self.who);
        for (got, sent) in got.iter().zip(sent) {
            let is_start = got.is_text == sent.is_text && sent.bytes.starts_with(&got.bytes);
            let is_whole = sent.is_complete && got.bytes.len() == sent.bytes.len();
            assert!(is_start && (is_whole || !got.is_complete), "peer {} got what was not sent", self.who);
        }
        progress(&got)
    }

    /// An end whose partner has left gets what is left while it takes any: the server has no patience only with one
    /// that neither takes nor says anything.
    fn check_patience(&self, peer: &Peer, left_ms: u64, patience_ms: u64) {
        let Some(cut_ms) = peer.timed_out_ms else { return };
        let takes = peer.sent_ms > left_ms && cut_ms - peer.sent_ms < patience_ms;
        let speaks = cut_ms - peer.read_ms < patience_ms;
        assert!(!takes && !speaks, "peer {} is cut at {cut_ms} and would have taken more", self.who);
    }

    /// Pings are answered, the last one in any case; the close says what it must.
    fn check_control(&self, reading: &Reading<'_>, table: &Table) {
        let client = &table.clients[self.who];
        let mut pings = self.pings.iter().rev();
        let pongs: Vec<&[u8]> = reading
            .frames
            .iter()
            .filter(|frame| frame.opcode == Opcode::Pong)
            .map(|frame| frame.payload)
            .collect();
        let is_last_answered = pongs.last().copied() == self.pings.last().map(Vec::as_slice);
        assert!(client.stage != Stage::Open || is_last_answered, "the last ping is not answered");
        for pong in pongs.into_iter().rev() {
            assert!(pings.any(|ping| ping == pong), "a pong without a ping");
        }
        assert_eq!(reading.close(), client.close.as_deref(), "how peer {} was closed", self.who);
    }
}

/// The messages in frames; the last may be incomplete.
#[must_use]
pub fn joined(frames: &[Frame<'_>]) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    for frame in frames {
        let is_open = messages.last().is_some_and(|message| !message.is_complete);
        match frame.opcode {
            Opcode::Close | Opcode::Ping | Opcode::Pong => continue,
            Opcode::Continuation => assert!(is_open, "a message goes on that has not begun"),
            Opcode::Text | Opcode::Binary => {
                assert!(!is_open, "a message begins inside another");
                let is_text = frame.opcode == Opcode::Text;
                messages.push(Message { is_text, ..Message::default() });
            }
        }
        let message = messages.last_mut().expect("one is open");
        message.bytes.extend_from_slice(frame.payload);
        message.is_complete = frame.fin;
    }
    messages
}

/// Complete messages, and bytes of the one that is not.
#[must_use]
pub fn progress(messages: &[Message]) -> (usize, usize) {
    match messages.split_last() {
        Some((last, before)) if !last.is_complete => (before.len(), last.bytes.len()),
        _ => (messages.len(), 0),
    }
}
