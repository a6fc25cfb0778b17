//! One end of a pipe, of either kind.

use std::rc::Rc;
use std::time::Duration;

use parlor::wire::frame::Opcode;

use crate::client::{Connection, Ending, Frame};
use crate::failure::Failure;
use crate::net::target::Target;
use crate::options::PipeMode;
use crate::raw::{RawEnd, RawEnding};

/// How what comes to an end ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EndEnding {
    /// In order: a close frame, or a FIN.
    InOrder(String),
    /// Otherwise.
    Cut(String),
}

/// An end.
#[derive(Debug, Clone)]
pub(super) enum End {
    WebSocket(Rc<Connection>),
    Raw(Rc<RawEnd>),
}

impl End {
    /// Connects as the client with this index.
    pub(super) async fn open(
        mode: PipeMode,
        target: &Target,
        path: &str,
        index: usize,
    ) -> Result<Self, Failure> {
        match mode {
            PipeMode::Websocket => Ok(Self::WebSocket(Connection::open(target, path, index).await?)),
            PipeMode::Raw => Ok(Self::Raw(RawEnd::open(target, path, index).await?)),
        }
    }

    /// Reads to the end. The handler gets each piece, whether a message ends with it, and may ask for a stall.
    pub(super) async fn serve(&self, mut on_piece: impl FnMut(&[u8], bool) -> Option<Duration>) -> EndEnding {
        match self {
            Self::WebSocket(connection) => {
                let serving = connection.serve_pieces(|piece| {
                    if let Some(stall) = on_piece(piece.bytes, piece.message_ends) {
                        connection.stall(stall);
                    }
                    None
                });
                EndEnding::of(&serving.await)
            }
            Self::Raw(end) => {
                let serving = end.serve(|bytes| {
                    if let Some(stall) = on_piece(bytes, false) {
                        end.stall(stall);
                    }
                });
                EndEnding::of_raw(serving.await)
            }
        }
    }

    /// Queues a copy of a frame after `edit` has changed it.
    pub(super) fn send(&self, frame: &[u8], edit: impl FnOnce(&mut [u8])) {
        match self {
            Self::WebSocket(connection) => {
                let frame = Frame { opcode: Opcode::Binary, fin: true, payload: frame, missing: 0 };
                connection.send_frame_edited(frame, edit);
            }
            Self::Raw(end) => end.send(|bytes| {
                let start = bytes.len();
                bytes.extend_from_slice(frame);
                edit(&mut bytes[start..]);
            }),
        }
    }

    pub(super) fn flush(&self) {
        match self {
            Self::WebSocket(connection) => connection.flush(),
            Self::Raw(end) => end.flush(),
        }
    }

    /// Sends what is queued and waits until the socket has taken it all.
    pub(super) async fn flushed(&self) {
        match self {
            Self::WebSocket(connection) => connection.flushed().await,
            Self::Raw(end) => end.flushed().await,
        }
    }

    /// Says that nothing more will be sent.
    pub(super) fn leave(&self) {
        match self {
            Self::WebSocket(connection) => {
                connection.close(1000);
                connection.flush();
            }
            Self::Raw(end) => end.finish(),
        }
    }

    pub(super) fn stop_reading(&self) {
        match self {
            Self::WebSocket(connection) => connection.abandon(),
            Self::Raw(end) => end.stop_reading(),
        }
    }
}

impl EndEnding {
    fn of(ending: &Ending) -> Self {
        match ending {
            Ending::Closed(..) => Self::InOrder(format!("{ending:?}")),
            Ending::Lost | Ending::Broken(_) | Ending::Failed(_) => Self::Cut(format!("{ending:?}")),
        }
    }

    fn of_raw(ending: RawEnding) -> Self {
        match ending {
            RawEnding::Finished => Self::InOrder("Finished".to_owned()),
            RawEnding::Failed(kind) => Self::Cut(format!("{kind:?}")),
        }
    }
}
