//! One of those who talk to the server in a conversation: a WebSocket, a stream of raw bytes, or a plain request.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use super::notation::Kind;
use crate::support::pipes::tcp_head;
use crate::support::{WAIT, upgrade_head};

/// What came, in its order.
#[derive(Debug)]
pub(crate) enum Item {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    /// A close, and the end of TCP behind it.
    Close(Option<(u16, String)>),
    /// The end of TCP without a close.
    Cut,
    /// An answer over plain HTTP: its status and its body.
    Answer(u16, Vec<u8>),
}

enum Connection {
    WebSocket(Box<WebSocket<TcpStream>>),
    Raw(TcpStream),
    /// What was asked is answered, and that is all.
    Answered,
}

pub(crate) struct Peer {
    connection: Connection,
    /// What came and was not expected yet.
    inbox: VecDeque<Item>,
    /// Pings that came and were not expected yet.
    pings: usize,
    /// Pings that were sent, to see how far the server is.
    marks: u64,
    /// The last of them that was answered.
    answered: u64,
    /// What is sent may be held for another: an answer to a ping behind it need not come.
    is_pipe: bool,
    has_closed: bool,
    /// It neither reads nor answers any more.
    is_silent: bool,
    is_over: bool,
}

impl Peer {
    /// Asks for an upgrade. What is refused is an answer like any other.
    pub(crate) fn open(
        address: SocketAddr,
        path: &str,
        is_raw: bool,
        origin: Option<&str>,
    ) -> Result<Self, String> {
        let more = origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
        let head = if is_raw { tcp_head(path, &more) } else { upgrade_head(path, &more) };
        let (stream, status, body) = request(address, &head)?;
        let connection = match status {
            101 if is_raw => Connection::Raw(stream),
            101 => {
                let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
                Connection::WebSocket(Box::new(WebSocket::from_raw_socket(
                    stream,
                    Role::Client,
                    Some(config),
                )))
            }
            _ => return Ok(Self::answered(status, body)),
        };
        let is_pipe = path.to_ascii_lowercase().starts_with("/connect");
        Ok(Self { connection, is_pipe, ..Self::nobody() })
    }

    /// Asks for something over plain HTTP, on a connection of its own.
    pub(crate) fn ask(address: SocketAddr, path: &str, header: Option<&str>) -> Result<Self, String> {
        let header = header.map(|header| format!("{header}\r\n")).unwrap_or_default();
        let head = format!("GET {path} HTTP/1.1\r\nHost: parlor.test\r\nConnection: close\r\n{header}\r\n");
        let (_, status, body) = request(address, &head)?;
        Ok(Self::answered(status, body))
    }

    fn answered(status: u16, body: Vec<u8>) -> Self {
        Self { inbox: [Item::Answer(status, body)].into(), is_over: true, ..Self::nobody() }
    }

    fn nobody() -> Self {
        Self {
            connection: Connection::Answered,
            inbox: VecDeque::new(),
            pings: 0,
            marks: 0,
            answered: 0,
            is_pipe: false,
            has_closed: false,
            is_silent: false,
            is_over: false,
        }
    }

    /// Sends something so many times at once, each in so many frames.
    pub(crate) fn say(
        &mut self,
        kind: Kind,
        bytes: &[u8],
        times: usize,
        frames: usize,
    ) -> Result<(), String> {
        let sent = match (&mut self.connection, kind) {
            (Connection::WebSocket(socket), Kind::Text | Kind::Binary) => {
                let opcode = if kind == Kind::Text { Data::Text } else { Data::Binary };
                let mut written = (0..times).flat_map(|_| split(bytes, opcode, frames));
                written
                    .try_for_each(|frame| socket.write(Message::Frame(frame)))
                    .and_then(|()| socket.flush())
            }
            (Connection::WebSocket(socket), Kind::Raw) => {
                socket.get_mut().write_all(&bytes.repeat(times)).map_err(Error::Io)
            }
            (Connection::Raw(stream), Kind::Raw) => stream.write_all(&bytes.repeat(times)).map_err(Error::Io),
            _ => return Err(format!("there is no connection that takes {kind:?}")),
        };
        sent.map_err(|error| format!("could not be sent: {error}"))?;
        self.catch_up_if_answered()
    }

    /// Sends a close. The answer is still to come.
    pub(crate) fn close(&mut self, code: Option<u16>) -> Result<(), String> {
        let frame = code.map(|code| CloseFrame { code: code.into(), reason: "".into() });
        self.has_closed = true;
        self.socket()?.close(frame).map_err(|error| format!("no close could be sent: {error}"))
    }

    /// Ends this direction of a raw stream.
    pub(crate) fn end(&mut self) -> Result<(), String> {
        self.raw()?.shutdown(Shutdown::Write).map_err(|error| error.to_string())
    }

    /// Ends TCP with a reset.
    pub(crate) fn cut(self) -> Result<(), String> {
        let stream = match &self.connection {
            Connection::WebSocket(socket) => socket.get_ref(),
            Connection::Raw(stream) => stream,
            Connection::Answered => return Err("there is no connection to cut".into()),
        };
        SockRef::from(stream).set_linger(Some(Duration::ZERO)).map_err(|error| error.to_string())
    }

    /// Waits until the server has handled what was sent before. What comes until then is kept.
    pub(crate) fn catch_up(&mut self) -> Result<(), String> {
        if self.is_over
            || self.has_closed
            || self.is_silent
            || !matches!(self.connection, Connection::WebSocket(_))
        {
            return Ok(());
        }
        self.marks += 1;
        let mark = self.marks.to_be_bytes();
        // An error means that the connection is over, which is read next.
        let _ = self.socket()?.send(Message::Ping(mark.to_vec().into()));
        while self.answered < self.marks && !self.is_over {
            self.read()?;
        }
        Ok(())
    }

    /// [`Peer::catch_up`], unless what was sent may be held, or be half a frame.
    pub(crate) fn catch_up_if_answered(&mut self) -> Result<(), String> {
        if self.is_pipe { Ok(()) } else { self.catch_up() }
    }

    /// The next thing that comes.
    pub(crate) fn next(&mut self) -> Result<Item, String> {
        loop {
            if let Some(item) = self.inbox.pop_front() {
                return Ok(item);
            }
            if self.is_over {
                return Err("the connection is over".into());
            }
            self.read()?;
        }
    }

    /// Waits for a ping of the server.
    pub(crate) fn expect_ping(&mut self) -> Result<(), String> {
        while self.pings == 0 {
            if self.is_over {
                return Err("the connection is over".into());
            }
            self.read()?;
        }
        self.pings = 0;
        Ok(())
    }

    /// Waits for the server to cut one that answers nothing: nothing but pings may come before.
    pub(crate) fn expect_cut_in_silence(&mut self) -> Result<(), String> {
        let mut came = Vec::new();
        let ended = self.socket()?.get_mut().read_to_end(&mut came);
        self.is_over = true;
        if let Err(error) = ended
            && error.kind() != ErrorKind::ConnectionReset
        {
            return Err(format!("the connection was not cut: {error}"));
        }
        let ping = [0x89, 0x00];
        if came.chunks(ping.len()).all(|frame| frame == ping) {
            Ok(())
        } else {
            Err(format!("{came:?} came"))
        }
    }

    /// The next bytes of a raw stream must be these.
    pub(crate) fn expect_raw(&mut self, expected: &[u8]) -> Result<(), String> {
        let mut got = vec![0; expected.len()];
        self.raw()?
            .read_exact(&mut got)
            .map_err(|error| format!("no {} bytes came: {error}", expected.len()))?;
        if got == expected { Ok(()) } else { Err(format!("{} came", got.escape_ascii())) }
    }

    /// The other direction of a raw stream must end now, with a reset or without.
    pub(crate) fn expect_end(&mut self, is_reset: bool) -> Result<(), String> {
        let read = self.raw()?.read(&mut [0; 64]);
        self.is_over = true;
        match read {
            Ok(0) if !is_reset => Ok(()),
            Ok(0) => Err("it ended without a reset".into()),
            Ok(count) => Err(format!("{count} bytes or more came")),
            Err(error) if error.kind() == ErrorKind::ConnectionReset && is_reset => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// It neither reads nor answers any more.
    pub(crate) fn fall_silent(&mut self) -> Result<(), String> {
        self.is_silent = true;
        self.socket().map(|_| ())
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// What came and nobody said that it would.
    pub(crate) fn unexpected(&self) -> Option<String> {
        let shown: Vec<String> = self.inbox.iter().map(Item::shown).collect();
        (!shown.is_empty()).then(|| format!("this came as well: {}", shown.join(", ")))
    }

    /// [`Peer::unexpected`], or what is missing: the end of a raw stream or of a silence, the answer to a close.
    pub(crate) fn unfinished(&self) -> Option<String> {
        let is_raw = matches!(self.connection, Connection::Raw(_));
        let is_ending = is_raw || self.has_closed || self.is_silent;
        let missing = || (is_ending && !self.is_over).then(|| "its end is not there".to_owned());
        self.unexpected().or_else(missing)
    }

    fn socket(&mut self) -> Result<&mut WebSocket<TcpStream>, String> {
        match &mut self.connection {
            Connection::WebSocket(socket) => Ok(socket),
            _ => Err("this is no WebSocket".into()),
        }
    }

    fn raw(&mut self) -> Result<&mut TcpStream, String> {
        match &mut self.connection {
            Connection::Raw(stream) => Ok(stream),
            _ => Err("this is no raw stream".into()),
        }
    }

    fn read(&mut self) -> Result<(), String> {
        match self.socket()?.read() {
            Ok(Message::Text(text)) => self.inbox.push_back(Item::Text(text.as_str().into())),
            Ok(Message::Binary(bytes)) => self.inbox.push_back(Item::Binary(bytes.to_vec())),
            Ok(Message::Ping(_)) => self.pings += 1,
            Ok(Message::Pong(mark)) => {
                self.answered = mark.as_ref().try_into().map_or(self.answered, u64::from_be_bytes);
            }
            Ok(Message::Close(frame)) => {
                let close = frame.map(|frame| (frame.code.into(), frame.reason.as_str().to_owned()));
                return self.read_end(Item::Close(close));
            }
            Ok(Message::Frame(_)) => return Err("half a message came".into()),
            Err(Error::Io(error)) if is_timeout(&error) => return Err(format!("nothing came for {WAIT:?}")),
            Err(_) => {
                self.is_over = true;
                self.inbox.push_back(Item::Cut);
            }
        }
        Ok(())
    }

    /// Behind a close, answered by either side, TCP ends in order.
    fn read_end(&mut self, close: Item) -> Result<(), String> {
        self.is_over = true;
        match self.socket()?.read() {
            Err(Error::ConnectionClosed) => self.inbox.push_back(close),
            other => return Err(format!("behind {} TCP does not end in order: {other:?}", close.shown())),
        }
        Ok(())
    }
}

impl Item {
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Text(text) => shortened(&String::from_utf8_lossy(text)),
            Self::Binary(bytes) => format!("binary {}", shortened(&bytes.escape_ascii().to_string())),
            Self::Close(None) => "close".into(),
            Self::Close(Some((code, reason))) => format!("close {code} {reason:?}"),
            Self::Cut => "cut".into(),
            Self::Answer(status, body) => format!("{status} {:?}", String::from_utf8_lossy(body)),
        }
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

/// A message in so many frames.
fn split(bytes: &[u8], opcode: Data, frames: usize) -> impl Iterator<Item = Frame> {
    (0..frames).map(move |index| {
        let piece = &bytes[bytes.len() * index / frames..bytes.len() * (index + 1) / frames];
        let opcode = if index == 0 { opcode } else { Data::Continue };
        Frame::message(piece.to_vec(), OpCode::Data(opcode), index + 1 == frames)
    })
}

/// Sends a head and takes the answer: its status and, if there is one, its body. What comes behind it is not taken.
fn request(address: SocketAddr, head: &str) -> Result<(TcpStream, u16, Vec<u8>), String> {
    request_over(address, head).map_err(|error| format!("no answer came: {error}"))
}

fn request_over(address: SocketAddr, head: &str) -> std::io::Result<(TcpStream, u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.set_write_timeout(Some(WAIT))?;
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    let number = |text: Option<&str>| text.and_then(|number| number.trim().parse::<u16>().ok());
    let status = number(answer.split(' ').nth(1)).ok_or(ErrorKind::InvalidData)?;
    let len =
        number(answer.lines().find_map(|line| line.strip_prefix("content-length:"))).unwrap_or_default();
    let mut body = vec![0; len.into()];
    stream.read_exact(&mut body)?;
    Ok((stream, status, body))
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
