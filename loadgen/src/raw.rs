//! A raw end of a pipe (`Upgrade: tcp`): bytes in and out of one stream.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::failure::Failure;
use crate::net::handshake::Protocol;
use crate::net::stream::{Burst, Stream};
use crate::net::target::Target;

/// How a raw end's incoming stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RawEnding {
    /// With a FIN.
    Finished,
    /// With a failure, a reset for example.
    Failed(io::ErrorKind),
}

/// A raw end.
#[derive(Debug)]
pub(crate) struct RawEnd {
    stream: Rc<Stream>,
    early: RefCell<Vec<u8>>,
    stall: Cell<Option<Duration>>,
}

impl RawEnd {
    /// Connects as the client with this index and upgrades `path`.
    pub(crate) async fn open(target: &Target, path: &str, index: usize) -> Result<Rc<Self>, Failure> {
        let (stream, early) = Stream::open(target, path, index, Protocol::Tcp).await?;
        Ok(Rc::new(Self { stream, early: RefCell::new(early), stall: Cell::new(None) }))
    }

    /// Reads until the stream ends and hands over each piece; what the handler queues is sent after each burst.
    pub(crate) async fn serve(&self, mut on_bytes: impl FnMut(&[u8])) -> RawEnding {
        let early = self.early.take();
        if !early.is_empty() {
            on_bytes(&early);
        }
        self.stream.flush();
        loop {
            if let Some(stall) = self.stall.take() {
                monoio::time::sleep(stall).await;
            }
            if let Err(error) = self.stream.readable().await {
                return RawEnding::Failed(error.kind());
            }
            let burst = self.stream.receive_burst(|bytes| -> Option<()> {
                on_bytes(bytes);
                // One that wants to stall does so now.
                self.stall.get().map(|_| ())
            });
            self.stream.flush();
            match burst {
                Burst::Dry | Burst::Enough(()) => {}
                Burst::Ended => return RawEnding::Finished,
                Burst::Failed(kind) => return RawEnding::Failed(kind),
            }
        }
    }

    /// Stops reading once, for so long.
    pub(crate) fn stall(&self, stall: Duration) {
        self.stall.set(Some(stall));
    }

    /// Queues bytes.
    pub(crate) fn send(&self, write: impl FnOnce(&mut Vec<u8>)) {
        self.stream.queue(write);
    }

    /// Sends what is queued; what the socket does not take now follows when it does.
    pub(crate) fn flush(&self) {
        self.stream.flush();
    }

    /// Sends what is queued and waits until the socket has taken it all.
    pub(crate) async fn flushed(&self) {
        self.stream.flushed().await;
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&self) {
        self.stream.stop_writing();
    }

    /// Makes the end a TCP reset, now: what is queued is not sent.
    pub(crate) fn reset(&self) {
        self.stream.reset_on_close();
        self.stream.abandon();
    }

    /// Ends [`Self::serve`].
    pub(crate) fn stop_reading(&self) {
        self.stream.stop_reading();
    }
}
