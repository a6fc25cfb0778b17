//! A connected stream with an outbox: bytes are queued while others are handled, and one send(2) follows.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::handshake::{self, Protocol};
use super::socket::{Socket, is_not_yet};
use super::target::Target;
use crate::failure::Failure;

/// Bytes that one recv(2) may bring, into a buffer that all streams of a thread share.
const SCRATCH_BYTES: usize = 64 * 1024;
/// A connection that takes longer than this to come about is given up.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);
/// How often one that waits for the socket to take bytes looks whether it should give up.
const GIVE_UP_STEP: Duration = Duration::from_millis(100);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}

/// An upgraded connection.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socket,
    outbox: RefCell<Outbox>,
    /// What is queued will not be sent.
    abandoned: Cell<bool>,
}

#[derive(Debug, Default)]
struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    /// A task waits for the socket to take the rest.
    waiting: bool,
}

/// How reading went on.
#[derive(Debug)]
pub(crate) enum Burst<E> {
    /// Nothing is left to receive for now.
    Dry,
    /// The stream has ended.
    Ended,
    /// The socket failed.
    Failed(io::ErrorKind),
    /// Who takes the bytes wants no more.
    Enough(E),
}

impl Stream {
    /// Connects as the client with this index and upgrades; returns what came behind the answer as well.
    pub(crate) async fn open(
        target: &Target,
        path: &str,
        index: usize,
        protocol: Protocol,
    ) -> Result<(Rc<Self>, Vec<u8>), Failure> {
        let opening = async {
            let socket = Socket::connect(target.address, target.source(index))
                .await
                .map_err(|error| Failure::Connect(connect_problem(target, &error)))?;
            let early = handshake::upgrade(&socket, target, path, protocol).await?;
            Ok((socket, early))
        };
        let (socket, early) = monoio::time::timeout(OPEN_DEADLINE, opening).await.unwrap_or_else(|_| {
            Err(Failure::Connect(format!("{}: no connection within {OPEN_DEADLINE:?}", target.url)))
        })?;
        let stream = Self { socket, outbox: RefCell::default(), abandoned: Cell::new(false) };
        Ok((Rc::new(stream), early))
    }

    /// Waits until there is something to receive.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Hands over all that can be received now, piece by piece.
    pub(crate) fn receive_burst<E>(&self, mut take: impl FnMut(&mut [u8]) -> Option<E>) -> Burst<E> {
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                match self.socket.receive(scratch) {
                    Ok(0) => return Burst::Ended,
                    Ok(len) => {
                        if let Some(enough) = take(&mut scratch[..len]) {
                            return Burst::Enough(enough);
                        }
                        if len < scratch.len() {
                            return Burst::Dry;
                        }
                    }
                    Err(error) if is_not_yet(&error) => return Burst::Dry,
                    Err(error) => return Burst::Failed(error.kind()),
                }
            }
        })
    }

    /// Queues bytes.
    pub(crate) fn queue(&self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.outbox.borrow_mut().bytes);
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

    /// Sends what is queued and waits until the socket has taken it all.
    pub(crate) async fn flushed(self: &Rc<Self>) {
        // A task that waits already goes on; this one waits beside it.
        while !self.abandoned.get() && !self.outbox.borrow_mut().send_to(&self.socket) {
            self.await_room().await;
        }
    }

    /// Ends reading on this side alone: who waits for bytes sees the end of the stream.
    pub(crate) fn stop_reading(&self) {
        self.socket.stop_reading();
    }

    /// Says that nothing more will be sent.
    pub(crate) fn stop_writing(&self) {
        self.socket.stop_writing();
    }

    /// Gives up: nothing more is received, and what is queued is not sent.
    pub(crate) fn abandon(&self) {
        self.abandoned.set(true);
        self.socket.stop_reading();
    }

    /// Makes the end of this stream a TCP reset.
    pub(crate) fn reset_on_close(&self) {
        self.socket.reset_on_close();
    }

    async fn send_rest(self: Rc<Self>) {
        self.flushed().await;
        self.outbox.borrow_mut().waiting = false;
    }

    async fn await_room(&self) {
        // Either there is room, or it is time to look whether anybody still wants it.
        let _ = monoio::time::timeout(GIVE_UP_STEP, self.socket.writable()).await;
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
