//! A well-behaved WebSocket on any path.

use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use tungstenite::client::client_with_config;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Message, WebSocket};

use super::{connect, reset};
use crate::support::{Server, WAIT};

/// A well-behaved WebSocket on any path.
pub(crate) struct Socket {
    socket: WebSocket<TcpStream>,
    path: String,
}

impl Socket {
    pub(crate) fn open(server: &Server, path: &str) -> Self {
        Self::open_over(connect(server), server, path)
    }

    /// [`Socket::open`], of which the server is known to have heard before whatever comes later.
    pub(crate) fn hold(server: &Server, path: &str) -> Self {
        let mut socket = Self::open(server, path);
        socket.expect_nothing();
        socket
    }

    /// [`Socket::open`] over a connection that is there already.
    pub(crate) fn open_over(stream: TcpStream, server: &Server, path: &str) -> Self {
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let opened = client_with_config(format!("ws://{}{path}", server.address), stream, Some(config));
        let (socket, _) = opened.unwrap_or_else(|error| panic!("no WebSocket on {path}: {error}"));
        Self { socket, path: path.to_owned() }
    }

    pub(crate) fn send(&mut self, message: impl Into<Message>) {
        let sent = self.socket.send(message.into());
        sent.unwrap_or_else(|error| panic!("{} could not send: {error}", self.path));
    }

    /// Sends many messages in as few writes as possible.
    pub(crate) fn send_at_once(&mut self, messages: impl IntoIterator<Item = Message>) {
        for message in messages {
            self.socket.write(message).expect("room to write");
        }
        self.socket.flush().unwrap_or_else(|error| panic!("{} could not send: {error}", self.path));
    }

    /// Takes the next message, text or binary.
    pub(crate) fn next(&mut self, awaited: &str) -> Message {
        let start = Instant::now();
        loop {
            match self.read(awaited, start) {
                Message::Ping(_) | Message::Pong(_) => {}
                message @ (Message::Text(_) | Message::Binary(_)) => return message,
                other => panic!("{} waited for {awaited} and got {other:?}", self.path),
            }
        }
    }

    /// The next message must be this one, of its kind and byte for byte.
    pub(crate) fn expect(&mut self, expected: impl Into<Message>) {
        let expected = expected.into();
        let got = self.next(&shown(&expected));
        assert!(got == expected, "{} waited for {}\n but got {}", self.path, shown(&expected), shown(&got));
    }

    /// All messages that the server had for this one when it answered a ping.
    pub(crate) fn drain(&mut self) -> Vec<Message> {
        const MARK: &[u8] = b"drain";
        self.send(Message::Ping(MARK.into()));
        let start = Instant::now();
        let mut messages = Vec::new();
        loop {
            match self.read("a pong", start) {
                Message::Pong(payload) if payload == MARK => return messages,
                Message::Ping(_) | Message::Pong(_) => {}
                message @ (Message::Text(_) | Message::Binary(_)) => messages.push(message),
                other => panic!("{} waited for a pong and got {other:?}", self.path),
            }
        }
    }

    /// There must be no message when the server answers a ping.
    pub(crate) fn expect_nothing(&mut self) {
        let heard: Vec<String> = self.drain().iter().map(shown).collect();
        assert!(heard.is_empty(), "{} should have nothing but got {heard:?}", self.path);
    }

    /// The server must close this one, with this code and reason or with none, and with no message before.
    pub(crate) fn expect_close(mut self, expected: Option<(u16, &str)>) {
        let start = Instant::now();
        loop {
            match self.read(&format!("a close with {expected:?}"), start) {
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Close(got) => {
                    let got = got.as_ref().map(|frame| (u16::from(frame.code), frame.reason.as_str()));
                    assert_eq!(got, expected, "{} is closed", self.path);
                    return self.read_to_end();
                }
                other => panic!("{} waited for close {expected:?} and got {}", self.path, shown(&other)),
            }
        }
    }

    /// Says goodbye with this code, or with none, and gets it back, with no message before, and the end.
    pub(crate) fn close(mut self, code: Option<u16>) {
        let frame = code.map(|code| CloseFrame { code: code.into(), reason: "".into() });
        self.socket.close(frame).expect("the connection is there");
        let start = Instant::now();
        loop {
            match self.read("the answer to a close", start) {
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Close(got) => {
                    assert_eq!(got.map(|frame| u16::from(frame.code)), code, "{} gets its code", self.path);
                    return self.read_to_end();
                }
                other => panic!("{} waited for a close and got {}", self.path, shown(&other)),
            }
        }
    }

    /// Ends TCP with a reset.
    pub(crate) fn reset(self) {
        reset(self.socket.get_ref());
    }

    /// Ends TCP in order, but without a close, and waits for the server's end.
    pub(crate) fn end_without_close(mut self) {
        self.socket.get_ref().shutdown(Shutdown::Write).expect("a socket");
        self.read_to_end();
    }

    /// Sends the answer that may be due and reads the end.
    fn read_to_end(&mut self) {
        let start = Instant::now();
        while self.socket.read().is_ok() {
            assert!(start.elapsed() < WAIT, "{} waited for its end", self.path);
        }
        assert!(start.elapsed() < WAIT, "{} waited {WAIT:?} for the end of TCP", self.path);
    }

    fn read(&mut self, awaited: &str, start: Instant) -> Message {
        assert!(start.elapsed() < WAIT, "{} waited {WAIT:?} for {awaited}", self.path);
        let got = self.socket.read();
        got.unwrap_or_else(|error| panic!("{} waited for {awaited} and got: {error}", self.path))
    }
}

/// A message for the text of a failure.
pub(crate) fn shown(message: &Message) -> String {
    let start: String = format!("{message:?}").chars().take(200).collect();
    format!("{start} ({} bytes)", message.len())
}
