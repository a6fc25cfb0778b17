//! A WebSocket client: frames in and out of one socket. It knows no signaling protocol.
//!
//! Nothing is written while a burst of frames is handled; one send(2) follows it. Pings are answered here.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use parlor::wire::frame::{FrameReader, HEADER_LEN_MAX, Header, Opcode, Step};
use parlor::wire::mask::Mask;

use crate::failure::Failure;
use crate::net::handshake;
use crate::net::socket::{Socket, is_not_yet};
use crate::net::target::Target;
use crate::prng::Prng;

/// Bytes that one recv(2) may bring, into a buffer that all clients of a thread share.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Longest message that is collected from pieces.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A connection that takes longer than this to come about is given up.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
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

/// A WebSocket connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    incoming: RefCell<Incoming>,
    outbox: RefCell<Outbox>,
    /// A close frame was queued; nothing may follow it.
    closing: Cell<bool>,
    pings: Cell<u64>,
}

#[derive(Debug, Default)]
struct Incoming {
    frames: FrameReader,
    /// Header of the frame that is being read.
    header: Option<Header>,
    /// Payload that came in pieces: of a frame that is not complete, or of a fragmented message.
    kept: Vec<u8>,
    /// Payload pieces of a control frame, which may stand between fragments.
    control: Vec<u8>,
    /// Bytes that came behind the handshake.
    early: Vec<u8>,
}

#[derive(Debug, Default)]
struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    /// A task waits for the socket to take the rest.
    waiting: bool,
}

impl Connection {
    /// Connects as the client with this index and upgrades.
    pub(crate) async fn open(target: &Target, index: usize) -> Result<Rc<Self>, Failure> {
        let opening = async {
            let socket = Socket::connect(target.address, target.source(index))
                .await
                .map_err(|error| Failure::Connect(connect_problem(target, &error)))?;
            let early = handshake::upgrade(&socket, target).await?;
            Ok((socket, early))
        };
        let (socket, early) = monoio::time::timeout(OPEN_DEADLINE, opening).await.unwrap_or_else(|_| {
            Err(Failure::Connect(format!("{}: no connection within {OPEN_DEADLINE:?}", target.url)))
        })?;
        Ok(Rc::new(Self {
            socket,
            incoming: RefCell::new(Incoming { early, ..Incoming::default() }),
            outbox: RefCell::default(),
            closing: Cell::new(false),
            pings: Cell::new(0),
        }))
    }

    /// Reads until the connection ends and hands over each text or binary message; what the handler queues is sent
    /// after each burst.
    pub(crate) async fn serve(self: &Rc<Self>, mut on_message: impl FnMut(&[u8])) -> Ending {
        let mut early = std::mem::take(&mut self.incoming.borrow_mut().early);
        if let Some(ending) = self.take(&mut early, &mut on_message) {
            return ending;
        }
        self.flush();
        drop(early);
        loop {
            if let Err(error) = self.socket.readable().await {
                return Ending::Failed(error.kind());
            }
            if let Some(ending) = self.receive_burst(&mut on_message) {
                self.flush();
                return ending;
            }
            self.flush();
        }
    }

    /// Queues a message of known bytes.
    pub(crate) fn send(&self, payload: &[u8]) {
        self.queue(Opcode::Text, payload, |_| ());
    }

    /// Queues a copy of a message after `edit` has changed it in place.
    pub(crate) fn send_edited(&self, payload: &[u8], edit: impl FnOnce(&mut [u8])) {
        self.queue(Opcode::Text, payload, edit);
    }

    /// Queues a close frame; nothing is sent behind it.
    pub(crate) fn close(&self, code: u16) {
        self.queue(Opcode::Close, &code.to_be_bytes(), |_| ());
        self.closing.set(true);
    }

    /// Ends [`Self::serve`] with [`Ending::Lost`] without a word to the server.
    pub(crate) fn stop_reading(&self) {
        self.socket.stop_reading();
    }

    /// Makes the end of this connection a TCP reset.
    pub(crate) fn reset_on_close(&self) {
        self.socket.reset_on_close();
    }

    /// Pings answered so far.
    pub(crate) fn pings(&self) -> u64 {
        self.pings.get()
    }

    /// Sends what is queued; what the socket does not take now follows when it does.
    pub(crate) fn flush(self: &Rc<Self>) {
        let mut outbox = self.outbox.borrow_mut();
        if outbox.bytes.is_empty() || outbox.waiting {
            return;
        }
        if !outbox.send_to(&self.socket) {
            outbox.waiting = true;
            monoio::spawn(Rc::clone(self).send_rest());
        }
    }

    async fn send_rest(self: Rc<Self>) {
        while self.socket.writable().await.is_ok() && !self.outbox.borrow_mut().send_to(&self.socket) {}
        self.outbox.borrow_mut().waiting = false;
    }

    fn receive_burst(&self, on_message: &mut impl FnMut(&[u8])) -> Option<Ending> {
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                match self.socket.receive(scratch) {
                    Ok(0) => return Some(Ending::Lost),
                    Ok(len) => {
                        if let Some(ending) = self.take(&mut scratch[..len], on_message) {
                            return Some(ending);
                        }
                        if len < scratch.len() {
                            return None;
                        }
                    }
                    Err(error) if is_not_yet(&error) => return None,
                    Err(error) => return Some(Ending::Failed(error.kind())),
                }
            }
        })
    }

    fn take(&self, bytes: &mut [u8], on_message: &mut impl FnMut(&[u8])) -> Option<Ending> {
        let mut incoming = self.incoming.borrow_mut();
        let mut cursor = 0;
        while let Some(step) = incoming.frames.poll(bytes, &mut cursor) {
            let ending = match step {
                Step::Header(header) => incoming.begin(header),
                Step::Payload { span, last } => self.payload(&mut incoming, &bytes[span], last, on_message),
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
        on_message: &mut impl FnMut(&[u8]),
    ) -> Option<Ending> {
        let header = incoming.header?;
        if is_control(header.opcode_bits) {
            incoming.control.extend_from_slice(piece);
            let complete = last.then(|| std::mem::take(&mut incoming.control))?;
            return self.control(header.opcode_bits, &complete);
        }
        if last && header.fin && incoming.kept.is_empty() {
            on_message(piece);
            return None;
        }
        incoming.kept.extend_from_slice(piece);
        if last && header.fin {
            let message = std::mem::take(&mut incoming.kept);
            on_message(&message);
        } else if incoming.kept.len() > MESSAGE_BYTES_MAX {
            return Some(Ending::Broken("a message of more than 16 MiB"));
        }
        None
    }

    fn control(&self, opcode_bits: u8, payload: &[u8]) -> Option<Ending> {
        match Opcode::from_bits(opcode_bits) {
            Some(Opcode::Ping) => {
                self.pings.set(self.pings.get() + 1);
                self.queue(Opcode::Pong, payload, |_| ());
                None
            }
            Some(Opcode::Close) => Some(self.closed(payload)),
            _ => None,
        }
    }

    fn closed(&self, payload: &[u8]) -> Ending {
        self.queue(Opcode::Close, &payload[..payload.len().min(2)], |_| ());
        self.closing.set(true);
        match payload.split_first_chunk::<2>() {
            Some((code, reason)) => {
                Ending::Closed(u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned())
            }
            None => Ending::Closed(1005, String::new()),
        }
    }

    fn queue(&self, opcode: Opcode, payload: &[u8], edit: impl FnOnce(&mut [u8])) {
        if self.closing.get() {
            return;
        }
        let key = MASK_KEYS.with(|keys| keys.next_u32().to_ne_bytes());
        let header = Header {
            fin: true,
            reserved: 0,
            opcode_bits: opcode as u8,
            mask: Some(key),
            payload_len: payload.len() as u64,
        };
        let mut head = [0; HEADER_LEN_MAX];
        let head_len = header.emit(&mut head);
        let bytes = &mut self.outbox.borrow_mut().bytes;
        bytes.extend_from_slice(&head[..head_len]);
        let start = bytes.len();
        bytes.extend_from_slice(payload);
        edit(&mut bytes[start..]);
        Mask::new(key).apply(&mut bytes[start..]);
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
        Opcode::from_bits(header.opcode_bits).is_none().then_some(Ending::Broken("a reserved opcode"))
    }
}

impl Outbox {
    /// Sends what the socket takes; whether nothing is left. A socket that fails has nothing left: the reader
    /// notices.
    fn send_to(&mut self, socket: &Socket) -> bool {
        while self.sent < self.bytes.len() {
            match socket.send(&self.bytes[self.sent..]) {
                Ok(len) => self.sent += len,
                Err(error) if is_not_yet(&error) => return false,
                Err(_) => break,
            }
        }
        self.bytes.clear();
        self.sent = 0;
        true
    }
}

fn is_control(opcode_bits: u8) -> bool {
    opcode_bits & 0x8 != 0
}

fn connect_problem(target: &Target, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::ConnectionRefused => " (is the server running, and on this port?)",
        io::ErrorKind::AddrNotAvailable => " (no free source port)",
        _ if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
            " (raise the limit of open files: ulimit -n)"
        }
        _ => "",
    };
    format!("{} is not reachable: {error}{hint}", target.url)
}
