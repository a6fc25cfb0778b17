//! One end of a pipe: sends what its plan says, checks what comes, and leaves when told to.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use parlor::wire::frame::Opcode;

use super::super::violation::Violation;
use super::checker::{ByteChecker, FrameChecker, Progress};
use super::plan::{BytePlan, FramePlan, PlannedMessage, StreamId};
use super::verdict::{Arrival, Leaving, Report};
use crate::client::{Connection, Ending, Frame, Piece};
use crate::failure::Failure;
use crate::net::target::Target;
use crate::options::PipeMode;
use crate::prng::Prng;
use crate::raw::RawEnd;
use crate::scenarios::fleet;

/// One in so many pieces makes its reader stall.
const STALL_EVERY: u32 = 400;
const STALL_MS_MAX: u32 = 150;

/// A connection.
#[derive(Debug, Clone)]
enum Line {
    WebSocket(Rc<Connection>),
    Raw(Rc<RawEnd>),
}

/// What an end sends.
#[derive(Debug, Clone, Copy)]
enum Plan {
    Frames(FramePlan),
    Bytes(BytePlan),
}

/// The check of what comes to an end.
#[derive(Debug)]
enum Checker {
    Frames(RefCell<FrameChecker>),
    Bytes(RefCell<ByteChecker>),
}

/// An end.
#[derive(Debug)]
pub(super) struct PipeEnd {
    pub(super) stream: StreamId,
    /// None once the end has left: the socket is closed when nobody reads or writes any more.
    line: RefCell<Option<Line>>,
    plan: Plan,
    checker: Checker,
    left: Cell<Option<Leaving>>,
    /// It is to leave inside its next frame.
    is_to_cut: Cell<bool>,
    sent: Cell<Progress>,
    is_done: Cell<bool>,
    is_writing: Cell<bool>,
    is_closing: Cell<bool>,
    /// The other end is there: one that is held alone and finishes its stream is forgotten.
    is_joined: Cell<bool>,
    moved_at: Cell<Instant>,
    /// Data came, whatever it was.
    pub(super) has_heard: Cell<bool>,
    pub(super) violation: RefCell<Option<Violation>>,
    arrival: RefCell<Option<Arrival>>,
}

impl PipeEnd {
    /// Connects the end that sends `stream`, to one that sends `other`.
    pub(super) async fn open(
        mode: PipeMode,
        target: &Target,
        path: &str,
        index: usize,
        (stream, other): (StreamId, StreamId),
    ) -> Result<Rc<Self>, Failure> {
        let (line, plan, checker) = match mode {
            PipeMode::Websocket => (
                Line::WebSocket(Connection::open(target, path, index).await?),
                Plan::Frames(FramePlan::new(stream)),
                Checker::Frames(RefCell::new(FrameChecker::new(FramePlan::new(other)))),
            ),
            PipeMode::Raw => (
                Line::Raw(RawEnd::open(target, path, index).await?),
                Plan::Bytes(BytePlan::new(stream)),
                Checker::Bytes(RefCell::new(ByteChecker::new(BytePlan::new(other)))),
            ),
        };
        Ok(Rc::new(Self {
            stream,
            line: RefCell::new(Some(line)),
            plan,
            checker,
            left: Cell::new(None),
            is_to_cut: Cell::new(false),
            sent: Cell::default(),
            is_done: Cell::new(false),
            is_writing: Cell::new(true),
            is_closing: Cell::new(false),
            is_joined: Cell::new(false),
            moved_at: Cell::new(Instant::now()),
            has_heard: Cell::new(false),
            violation: RefCell::default(),
            arrival: RefCell::default(),
        }))
    }

    /// Reads to the end.
    pub(super) async fn read(self: Rc<Self>, chance: Rc<Prng>) {
        let line = self.line.borrow().clone();
        let arrival = match &line {
            Some(Line::WebSocket(connection)) => {
                let ending = connection.serve_pieces(|piece| self.on_piece(connection, piece, &chance)).await;
                Arrival::WebSocket { ending, in_frame: connection.is_in_frame() }
            }
            Some(Line::Raw(end)) => Arrival::Raw(end.serve(|bytes| self.on_bytes(end, bytes, &chance)).await),
            // It left before it began to read.
            None => Arrival::WebSocket { ending: Ending::Lost, in_frame: false },
        };
        self.arrival.replace(Some(arrival));
        self.moved();
    }

    /// Sends to the end, or as far as the end lives, or up to so many bytes.
    pub(super) async fn write(self: Rc<Self>, bytes_max: u64) {
        let line = self.line.borrow().clone();
        match (line, self.plan) {
            (Some(Line::WebSocket(connection)), Plan::Frames(plan)) => {
                self.write_frames(&connection, plan, bytes_max).await;
                // Told to leave inside a frame when there was none left.
                if let (true, Some(leaving)) = (self.is_to_cut.get(), self.left.get()) {
                    self.cut(&connection, leaving);
                }
            }
            (Some(Line::Raw(end)), Plan::Bytes(plan)) => self.write_bytes(&end, plan, bytes_max).await,
            _ => {}
        }
        self.is_writing.set(false);
        self.moved();
    }

    /// Which of the two ends of its pair it is, or takes the place of: only the second sends the second stream.
    pub(super) fn place(&self) -> usize {
        usize::from(self.stream.end == 1)
    }

    /// The other end has come.
    pub(super) fn joined(&self) {
        self.is_joined.set(true);
        self.moved();
    }

    /// Leaves before all is done, unless that is under way.
    pub(super) fn leave(&self, leaving: Leaving) -> bool {
        if !self.is_there() || self.is_closing.get() {
            return false;
        }
        let line = self.line.borrow().clone();
        match line {
            Some(Line::WebSocket(_)) if leaving.is_in_frame() && self.is_writing.get() => {
                self.is_to_cut.set(true);
            }
            Some(Line::WebSocket(connection)) if leaving == Leaving::WebSocketClose => {
                connection.close(1000);
                connection.flush();
            }
            Some(Line::WebSocket(connection)) => self.cut(&connection, leaving),
            // A raw end has no close but its FIN, which says that all was sent.
            Some(Line::Raw(end)) if leaving.is_reset() => {
                end.reset();
                self.line.take();
            }
            Some(Line::Raw(_)) | None => return false,
        }
        self.left.set(Some(leaving));
        true
    }

    /// Goes away without a word: nothing that comes after it counts.
    pub(super) fn give_up(&self) {
        self.left.set(self.left.get().or(Some(Leaving::TcpClose)));
        match self.line.take() {
            Some(Line::WebSocket(connection)) => connection.abandon(),
            Some(Line::Raw(end)) => end.reset(),
            None => {}
        }
    }

    /// Closes in order, as one that was never joined to another.
    pub(super) fn close(&self) {
        self.is_closing.set(true);
        match &*self.line.borrow() {
            Some(Line::WebSocket(connection)) => {
                connection.close(1000);
                connection.flush();
            }
            Some(Line::Raw(end)) => end.finish(),
            None => {}
        }
    }

    /// It is told to leave, or has left.
    pub(super) fn left(&self) -> Option<Leaving> {
        self.left.get()
    }

    /// How what came to it ended, if it has.
    pub(super) fn arrival(&self) -> Option<Arrival> {
        self.arrival.borrow().clone()
    }

    /// When it last sent or heard something.
    pub(super) fn moved_at(&self) -> Instant {
        self.moved_at.get()
    }

    /// What it did so far, for people.
    pub(super) fn state(&self) -> String {
        let (stream, sent, received) = (self.stream, self.sent.get(), self.received());
        let (left, is_done, is_closing) = (self.left.get(), self.is_done.get(), self.is_closing.get());
        format!(
            "the end that sends {stream} has sent {sent:?} and got {received:?}; done: {is_done}, closing: \
             {is_closing}, left: {left:?}, ended: {:?}",
            self.arrival()
        )
    }

    /// What it did and saw, when all is over.
    pub(super) fn report(&self) -> Option<Report> {
        Some(Report {
            name: format!("the end that sends {}", self.stream),
            left: self.left.get(),
            is_done: self.is_done.get(),
            sent: self.sent.get(),
            received: self.received(),
            arrival: self.arrival()?,
        })
    }

    /// What came to it.
    pub(super) fn received(&self) -> Progress {
        match &self.checker {
            Checker::Frames(checker) => checker.borrow().progress(),
            Checker::Bytes(checker) => checker.borrow().progress(),
        }
    }

    fn is_there(&self) -> bool {
        self.left.get().is_none() && self.violation.borrow().is_none()
    }

    /// Goes away at once. The socket is closed when the reader and the writer have seen it.
    fn cut(&self, connection: &Connection, leaving: Leaving) {
        if leaving.is_reset() {
            connection.reset_on_close();
        }
        connection.abandon();
        self.line.take();
    }

    fn on_piece(&self, connection: &Connection, piece: Piece<'_>, chance: &Prng) -> Option<Ending> {
        let judged = match &self.checker {
            Checker::Frames(checker) => checker.borrow_mut().take(piece),
            Checker::Bytes(_) => Ok(()),
        };
        if let Some(stall) = self.heard(judged, chance) {
            connection.stall(stall);
        }
        self.close_when_done(connection);
        self.violation.borrow().is_some().then_some(Ending::Lost)
    }

    fn on_bytes(&self, end: &RawEnd, bytes: &[u8], chance: &Prng) {
        let judged = match &self.checker {
            Checker::Bytes(checker) => checker.borrow_mut().take(bytes),
            Checker::Frames(_) => Ok(()),
        };
        if let Some(stall) = self.heard(judged, chance) {
            end.stall(stall);
        }
    }

    async fn write_frames(&self, connection: &Connection, plan: FramePlan, bytes_max: u64) {
        for number in 0..plan.messages {
            let message = plan.message(number);
            let bytes = self.sent.get().bytes + message.payload.len() as u64;
            if bytes > bytes_max || !self.write_message(connection, &message).await {
                return;
            }
        }
        self.is_done.set(true);
        self.close_when_done(connection);
        connection.flush();
    }

    async fn write_bytes(&self, end: &RawEnd, plan: BytePlan, bytes_max: u64) {
        let mut number = 0;
        while self.sent.get().bytes < plan.bytes && self.is_there() {
            if self.sent.get().bytes >= bytes_max {
                return;
            }
            let block = plan.block(number);
            number += 1;
            self.count(block.len(), false);
            end.send(|bytes| bytes.extend_from_slice(&block));
            end.flushed().await;
        }
        while !self.is_joined.get() && self.is_there() && !self.is_closing.get() {
            monoio::time::sleep(fleet::STEP).await;
        }
        if self.is_there() && !self.is_closing.get() {
            self.is_done.set(true);
            end.finish();
        }
    }

    async fn write_message(&self, connection: &Connection, message: &PlannedMessage) -> bool {
        let mut start = 0;
        for (place, end) in message.frame_ends.iter().enumerate() {
            let opcode = match (place, message.is_text) {
                (0, true) => Opcode::Text,
                (0, false) => Opcode::Binary,
                _ => Opcode::Continuation,
            };
            let fin = place + 1 == message.frame_ends.len();
            let mut frame = Frame { opcode, fin, payload: &message.payload[start..*end], missing: 0 };
            if let (true, Some(leaving)) = (self.is_to_cut.get(), self.left.get()) {
                let half = frame.payload.len() / 2;
                frame.missing = frame.payload.len() - half + 1;
                frame.payload = &frame.payload[..half];
                connection.send_frame(frame);
                self.count(half, false);
                connection.flushed().await;
                self.cut(connection, leaving);
                return false;
            }
            if !self.is_there() {
                return false;
            }
            connection.send_frame(frame);
            self.count(frame.payload.len(), fin);
            connection.flushed().await;
            start = *end;
        }
        true
    }

    fn heard(&self, judged: Result<(), Violation>, chance: &Prng) -> Option<Duration> {
        self.has_heard.set(true);
        self.moved();
        if let Err(violation) = judged {
            self.violation.borrow_mut().get_or_insert(violation);
        }
        let stalls = chance.below(STALL_EVERY) == 0;
        stalls.then(|| Duration::from_millis(u64::from(chance.below(STALL_MS_MAX))))
    }

    /// Who has sent all and got all closes.
    fn close_when_done(&self, connection: &Connection) {
        let Checker::Frames(checker) = &self.checker else { return };
        if self.is_done.get() && self.is_there() && checker.borrow().is_complete() {
            self.is_closing.set(true);
            connection.close(1000);
        }
    }

    fn count(&self, bytes: usize, is_message: bool) {
        let Progress { bytes: before, messages } = self.sent.get();
        let messages = messages + u32::from(is_message);
        self.sent.set(Progress { bytes: before + bytes as u64, messages });
        self.moved();
    }

    fn moved(&self) {
        self.moved_at.set(Instant::now());
    }
}
