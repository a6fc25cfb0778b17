//! A WebSocket client: frames in and out of one stream. It knows no signaling protocol.
//!
//! Nothing is written while a burst of frames is handled; one send(2) follows it. Pings are answered here.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use parlor::wire::frame::{FrameReader, HEADER_LEN_MAX, Header, Opcode, Step};
use parlor::wire::mask::Mask;

use crate::failure::Failure;
use crate::net::handshake::Protocol;
use crate::net::stream::{Burst, Stream};
use crate::net::target::Target;
use crate::prng::Prng;

/// Longest message that is collected from pieces.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

thread_local! {
    static MASK_KEYS: Prng = Prng::from_entropy();
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The stream ended without a close frame, or our own side stopped reading.
    Lost,
    /// A close frame came, with this code (1005: none) and reason.
    Closed(u16, String),
    /// The other side broke RFC 6455.
    Broken(&'static str),
    /// The socket failed.
    Failed(io::ErrorKind),
}

/// A piece of a text or binary message, as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    /// `Text` or `Binary` in the first frame of a message, `Continuation` in those that follow.
    pub(crate) opcode: Opcode,
    /// The bytes.
    pub(crate) bytes: &'a [u8],
    /// The frame ends behind them.
    pub(crate) frame_ends: bool,
    /// The message ends behind them.
    pub(crate) message_ends: bool,
}

/// A complete message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    /// Its bytes.
    pub(crate) payload: &'a [u8],
    /// It came as one text frame.
    pub(crate) is_plain: bool,
}

/// A frame to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    /// What it is.
    pub(crate) opcode: Opcode,
    /// Whether its message ends with it.
    pub(crate) fin: bool,
    /// Its bytes, or the first of them.
    pub(crate) payload: &'a [u8],
    /// Bytes that its header promises beyond those and that never come: the connection is cut inside this frame.
    pub(crate) missing: usize,
}

/// A WebSocket connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Rc<Stream>,
    incoming: RefCell<Incoming>,
    /// A close frame was queued; nothing may follow it.
    closing: Cell<bool>,
    pings: Cell<u64>,
    stall: Cell<Option<Duration>>,
}

#[derive(Debug, Default)]
struct Incoming {
    frames: FrameReader,
    /// Header of the frame that is being read.
    header: Option<Header>,
    /// A message was begun by a frame that was not its last.
    open: bool,
    /// Payload pieces of a control frame, which may stand between fragments.
    control: Vec<u8>,
    /// Bytes that came behind the handshake.
    early: Vec<u8>,
}

/// Joins the pieces of a message.
#[derive(Debug, Default)]
struct Assembler {
    kept: Vec<u8>,
    /// The message is text, and no frame has ended before its end.
    is_plain: bool,
}

impl Connection {
    /// Connects as the client with this index and upgrades `path`.
    pub(crate) async fn open(target: &Target, path: &str, index: usize) -> Result<Rc<Self>, Failure> {
        let (stream, early) = Stream::open(target, path, index, Protocol::WebSocket).await?;
        Ok(Rc::new(Self {
            stream,
            incoming: RefCell::new(Incoming { early, ..Incoming::default() }),
            closing: Cell::new(false),
            pings: Cell::new(0),
            stall: Cell::new(None),
        }))
    }

    /// Reads until the connection ends and hands over each text or binary message; what the handler queues is sent
    /// after each burst.
    pub(crate) async fn serve(&self, mut on_message: impl FnMut(Message<'_>)) -> Ending {
        let mut assembler = Assembler::default();
        self.serve_pieces(|piece| assembler.take(piece, &mut on_message)).await
    }

    /// The same, with the pieces of messages as they come. A piece that the handler returns an ending for is the last.
    pub(crate) async fn serve_pieces(&self, mut on_piece: impl FnMut(Piece<'_>) -> Option<Ending>) -> Ending {
        let mut early = std::mem::take(&mut self.incoming.borrow_mut().early);
        if let Some(ending) = self.take(&mut early, &mut on_piece) {
            return ending;
        }
        self.stream.flush();
        drop(early);
        loop {
            if let Some(stall) = self.stall.take() {
                monoio::time::sleep(stall).await;
            }
            if let Err(error) = self.stream.readable().await {
                return Ending::Failed(error.kind());
            }
            // One that wants to stall does so before the next piece.
            let burst = self.stream.receive_burst(|bytes| {
                let ending = self.take(bytes, &mut on_piece);
                (ending.is_some() || self.stall.get().is_some()).then_some(ending)
            });
            self.stream.flush();
            match burst {
                Burst::Dry | Burst::Enough(None) => {}
                Burst::Ended => return Ending::Lost,
                Burst::Failed(kind) => return Ending::Failed(kind),
                Burst::Enough(Some(ending)) => return ending,
            }
        }
    }

    /// Stops reading once, for so long.
    pub(crate) fn stall(&self, stall: Duration) {
        self.stall.set(Some(stall));
    }

    /// Queues a text message of known bytes.
    pub(crate) fn send(&self, payload: &[u8]) {
        self.send_edited(payload, |_| ());
    }

    /// Queues a copy of a text message after `edit` has changed it in place.
    pub(crate) fn send_edited(&self, payload: &[u8], edit: impl FnOnce(&mut [u8])) {
        self.queue(Frame { opcode: Opcode::Text, fin: true, payload, missing: 0 }, edit);
    }

    /// Queues a frame.
    pub(crate) fn send_frame(&self, frame: Frame<'_>) {
        self.queue(frame, |_| ());
    }

    /// Queues a copy of a frame after `edit` has changed its payload in place.
    pub(crate) fn send_frame_edited(&self, frame: Frame<'_>, edit: impl FnOnce(&mut [u8])) {
        self.queue(frame, edit);
    }

    /// Queues a close frame; nothing is sent behind it.
    pub(crate) fn close(&self, code: u16) {
        self.send_close(&code.to_be_bytes());
    }

    /// Ends [`Self::serve`] with [`Ending::Lost`] without a word to the server.
    pub(crate) fn stop_reading(&self) {
        self.stream.stop_reading();
    }

    /// The same, and what is queued is not sent any more.
    pub(crate) fn abandon(&self) {
        self.stream.abandon();
    }

    /// Makes the end of this connection a TCP reset.
    pub(crate) fn reset_on_close(&self) {
        self.stream.reset_on_close();
    }

    /// Whether what came so far ends inside a frame.
    pub(crate) fn is_in_frame(&self) -> bool {
        !self.incoming.borrow().frames.is_between_frames()
    }

    /// Pings answered so far.
    pub(crate) fn pings(&self) -> u64 {
        self.pings.get()
    }

    /// Sends what is queued; what the socket does not take now follows when it does.
    pub(crate) fn flush(&self) {
        self.stream.flush();
    }

    /// Sends what is queued and waits until the socket has taken it all.
    pub(crate) async fn flushed(&self) {
        self.stream.flushed().await;
    }

    fn take(
        &self,
        bytes: &mut [u8],
        on_piece: &mut impl FnMut(Piece<'_>) -> Option<Ending>,
    ) -> Option<Ending> {
        let mut incoming = self.incoming.borrow_mut();
        let mut cursor = 0;
        while let Some(step) = incoming.frames.poll(bytes, &mut cursor) {
            let ending = match step {
                Step::Header(header) => incoming.begin(header),
                Step::Payload { span, last } => self.payload(&mut incoming, &bytes[span], last, on_piece),
            };
            if ending.is_some() {
                return ending;
            }
        }
        None
    }

    fn payload(
        &self,
        incoming: &mut Incoming,
        piece: &[u8],
        last: bool,
        on_piece: &mut impl FnMut(Piece<'_>) -> Option<Ending>,
    ) -> Option<Ending> {
        let header = incoming.header?;
        let opcode = Opcode::from_bits(header.opcode_bits)?;
        if is_control(header.opcode_bits) {
            incoming.control.extend_from_slice(piece);
            let complete = last.then(|| std::mem::take(&mut incoming.control))?;
            return self.control(opcode, &complete);
        }
        let message_ends = last && header.fin;
        if last {
            incoming.open = !header.fin;
        }
        on_piece(Piece { opcode, bytes: piece, frame_ends: last, message_ends })
    }

    fn control(&self, opcode: Opcode, payload: &[u8]) -> Option<Ending> {
        match opcode {
            Opcode::Ping => {
                self.pings.set(self.pings.get() + 1);
                self.queue(Frame { opcode: Opcode::Pong, fin: true, payload, missing: 0 }, |_| ());
                None
            }
            Opcode::Close => Some(self.closed(payload)),
            Opcode::Continuation | Opcode::Text | Opcode::Binary | Opcode::Pong => None,
        }
    }

    fn closed(&self, payload: &[u8]) -> Ending {
        self.send_close(&payload[..payload.len().min(2)]);
        match payload.split_first_chunk::<2>() {
            Some((code, reason)) => {
                Ending::Closed(u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned())
            }
            None => Ending::Closed(1005, String::new()),
        }
    }

    fn send_close(&self, payload: &[u8]) {
        self.queue(Frame { opcode: Opcode::Close, fin: true, payload, missing: 0 }, |_| ());
        self.closing.set(true);
    }

    fn queue(&self, frame: Frame<'_>, edit: impl FnOnce(&mut [u8])) {
        if self.closing.get() {
            return;
        }
        // What would follow a frame that is never completed would be taken for its payload.
        self.closing.set(frame.missing > 0);
        let key = MASK_KEYS.with(|keys| keys.next_u32().to_ne_bytes());
        let header = Header {
            fin: frame.fin,
            reserved: 0,
            opcode_bits: frame.opcode as u8,
            mask: Some(key),
            payload_len: (frame.payload.len() + frame.missing) as u64,
        };
        let mut head = [0; HEADER_LEN_MAX];
        let head_len = header.emit(&mut head);
        self.stream.queue(|bytes| {
            bytes.extend_from_slice(&head[..head_len]);
            let start = bytes.len();
            bytes.extend_from_slice(frame.payload);
            edit(&mut bytes[start..]);
            Mask::new(key).apply(&mut bytes[start..]);
        });
    }
}

impl Incoming {
    fn begin(&mut self, header: Header) -> Option<Ending> {
        self.header = Some(header);
        if header.mask.is_some() {
            return Some(Ending::Broken("a masked frame from a server"));
        }
        if header.reserved != 0 {
            return Some(Ending::Broken("a reserved bit without an extension"));
        }
        match Opcode::from_bits(header.opcode_bits) {
            None => Some(Ending::Broken("a reserved opcode")),
            Some(Opcode::Continuation) if !self.open => Some(Ending::Broken("a continuation of nothing")),
            Some(Opcode::Text | Opcode::Binary) if self.open => {
                Some(Ending::Broken("a message inside another"))
            }
            Some(Opcode::Ping | Opcode::Pong | Opcode::Close) if !header.fin || header.payload_len > 125 => {
                Some(Ending::Broken("a control frame that is fragmented or too long"))
            }
            Some(_) => None,
        }
    }
}

impl Assembler {
    fn take(&mut self, piece: Piece<'_>, on_message: &mut impl FnMut(Message<'_>)) -> Option<Ending> {
        let begins = piece.opcode != Opcode::Continuation && self.kept.is_empty();
        let is_plain = piece.opcode == Opcode::Text && (begins || self.is_plain);
        if piece.message_ends && self.kept.is_empty() {
            on_message(Message { payload: piece.bytes, is_plain });
            return None;
        }
        self.is_plain = is_plain;
        self.kept.extend_from_slice(piece.bytes);
        if piece.message_ends {
            let payload = std::mem::take(&mut self.kept);
            on_message(Message { payload: &payload, is_plain });
        } else if self.kept.len() > MESSAGE_BYTES_MAX {
            return Some(Ending::Broken("a message of more than 16 MiB"));
        }
        None
    }
}

fn is_control(opcode_bits: u8) -> bool {
    opcode_bits & 0x8 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(pieces: &[Piece<'_>]) -> Vec<(Vec<u8>, bool)> {
        let (mut assembler, mut messages) = (Assembler::default(), Vec::new());
        for piece in pieces {
            let ending = assembler.take(*piece, &mut |message: Message<'_>| {
                messages.push((message.payload.to_vec(), message.is_plain));
            });
            assert_eq!(ending, None);
        }
        messages
    }

    fn piece(opcode: Opcode, bytes: &[u8], frame_ends: bool, message_ends: bool) -> Piece<'_> {
        Piece { opcode, bytes, frame_ends, message_ends }
    }

    #[test]
    fn pieces_become_messages_and_only_one_text_frame_is_plain() {
        use Opcode::{Binary, Continuation, Text};
        let whole = [piece(Text, b"ab", true, true), piece(Binary, b"c", true, true)];
        assert_eq!(messages(&whole), [(b"ab".to_vec(), true), (b"c".to_vec(), false)]);
        let in_two_reads = [piece(Text, b"a", false, false), piece(Text, b"b", true, true)];
        assert_eq!(messages(&in_two_reads), [(b"ab".to_vec(), true)]);
        let fragmented = [piece(Text, b"a", true, false), piece(Continuation, b"b", true, true)];
        assert_eq!(messages(&fragmented), [(b"ab".to_vec(), false)]);
        let begun_empty = [piece(Text, b"", true, false), piece(Continuation, b"b", true, true)];
        assert_eq!(messages(&begun_empty), [(b"b".to_vec(), false)]);
        let long = vec![0; MESSAGE_BYTES_MAX + 1];
        let ending = Assembler::default().take(piece(Binary, &long, false, false), &mut |_| ());
        assert!(matches!(ending, Some(Ending::Broken(_))));
    }

    #[test]
    fn broken_frames_are_found() {
        let header = |opcode: u8, fin, payload_len| Header {
            fin,
            reserved: 0,
            opcode_bits: opcode,
            mask: None,
            payload_len,
        };
        let broken = |open: bool, header: Header| Incoming { open, ..Incoming::default() }.begin(header);
        assert_eq!(broken(false, header(1, true, 9)), None);
        assert_eq!(broken(true, header(0, true, 9)), None);
        assert_eq!(broken(true, header(9, true, 9)), None);
        for (open, header) in [
            (false, header(0, true, 9)),
            (true, header(2, true, 9)),
            (false, header(3, true, 9)),
            (false, header(9, false, 9)),
            (false, header(8, true, 126)),
            (false, Header { mask: Some([0; 4]), ..header(1, true, 9) }),
            (false, Header { reserved: 0x40, ..header(1, true, 9) }),
        ] {
            assert!(matches!(broken(open, header), Some(Ending::Broken(_))), "{header:?}");
        }
    }
}
