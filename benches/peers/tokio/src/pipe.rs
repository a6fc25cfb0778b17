//! Two sockets joined. Frames go across as they come, pings too: the other end answers them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Ready, poll_fn, ready};
use std::io::Cursor;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use fastwebsockets::{
    Frame, OpCode, Payload, Role, WebSocketError, WebSocketRead, WebSocketWrite, after_handshake_split,
};
use tokio::io::{AsyncReadExt, BufWriter, Chain};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// A pipe has no limit of its own, but a frame is taken in whole before it goes on.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long an end may take to answer a close.
const CLOSE_ANSWER_MAX: Duration = Duration::from_secs(5);

type Reader = WebSocketRead<Chain<Cursor<Bytes>, OwnedReadHalf>>;
type Writer = WebSocketWrite<BufWriter<OwnedWriteHalf>>;

/// Who waits for whom.
#[derive(Default)]
pub(crate) struct Pipes {
    held: RefCell<HashMap<Route, oneshot::Sender<End>>>,
}

#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Route {
    own: String,
    other: String,
    document: String,
}

struct End {
    reader: Reader,
    writer: Writer,
}

/// Holds the first of two ends, unread, until the second comes; the first one's task then serves both.
pub(crate) async fn serve(stream: TcpStream, read_ahead: Bytes, route: Route, pipes: &Pipes) {
    let mut end = End::new(stream, read_ahead);
    let partner = pipes.held.borrow_mut().remove(&route.reversed());
    if let Some(partner) = partner {
        match partner.send(end) {
            Ok(()) => return,
            Err(unsent) => end = unsent,
        }
    }
    let (sender, receiver) = oneshot::channel();
    // Who was held for the same route loses its sender here and ends.
    pipes.held.borrow_mut().insert(route, sender);
    match receiver.await {
        Ok(other) => join(end, other).await,
        Err(_) => close(&mut end.writer).await,
    }
}

impl Route {
    pub(crate) fn new(own: &str, other: &str, document: &str) -> Self {
        Self { own: own.into(), other: other.into(), document: document.into() }
    }

    fn reversed(&self) -> Self {
        Self::new(&self.other, &self.own, &self.document)
    }
}

impl End {
    fn new(stream: TcpStream, read_ahead: Bytes) -> Self {
        let (reader, writer) = stream.into_split();
        let (mut reader, writer) = after_handshake_split(
            Cursor::new(read_ahead).chain(reader),
            BufWriter::new(writer),
            Role::Server,
        );
        reader.set_auto_close(false);
        reader.set_auto_pong(false);
        reader.set_max_message_size(FRAME_BYTES_MAX);
        Self { reader, writer }
    }
}

async fn join(first: End, second: End) {
    let mut there = pin!(pump(first.reader, second.writer));
    let mut back = pin!(pump(second.reader, first.writer));
    let _ = tokio::select! {
        () = &mut there => timeout(CLOSE_ANSWER_MAX, back).await,
        () = &mut back => timeout(CLOSE_ANSWER_MAX, there).await,
    };
}

/// Ends with the reader's close, which becomes a close without a code, as does a lost connection.
async fn pump(mut reader: Reader, mut writer: Writer) {
    while let Ok(frame) = next_frame(&mut reader, &mut writer).await {
        if frame.opcode == OpCode::Close || writer.write_frame(frame).await.is_err() {
            break;
        }
    }
    close(&mut writer).await;
}

/// Writes what is buffered once there is nothing to read, so that frames that arrive together leave together.
async fn next_frame<'r>(reader: &'r mut Reader, writer: &mut Writer) -> Result<Frame<'r>, WebSocketError> {
    let mut send_nothing = |_: Frame| -> Ready<Result<(), Infallible>> { ready(Ok(())) };
    let mut reading = pin!(reader.read_frame(&mut send_nothing));
    let frame = match poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await {
        Poll::Ready(frame) => frame?,
        Poll::Pending => {
            writer.flush().await?;
            reading.await?
        }
    };
    // A frame that was read keeps its mask, and would be written with it.
    Ok(Frame::new(frame.fin, frame.opcode, None, frame.payload))
}

async fn close(writer: &mut Writer) {
    let _ = writer.write_frame(Frame::close_raw(Payload::Borrowed(&[]))).await;
    let _ = writer.flush().await;
}
