//! A well-behaved client of pairing.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;
use tungstenite::client::client_with_config;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Message, WebSocket};

use super::{Server, WAIT, is_uuid_v4};

/// A client that was told that it is ready.
pub(crate) struct Client {
    socket: WebSocket<TcpStream>,
    pub(crate) id: String,
}

/// What a client was told of a match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Matched {
    pub(crate) room: String,
    pub(crate) partner: String,
}

impl Client {
    /// Connects and takes `ready`, which must come first and have the shape of the contract.
    pub(crate) fn connect(server: &Server) -> Self {
        Self::connect_to(server.address)
    }

    pub(crate) fn connect_to(address: SocketAddr) -> Self {
        Self::try_connect_to(address).unwrap_or_else(|error| panic!("no WebSocket on {address}: {error}"))
    }

    /// [`Client::connect_to`]; an error if the server does not take it.
    pub(crate) fn try_connect_to(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(WAIT)).map_err(|error| error.to_string())?;
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let (socket, _) = client_with_config(format!("ws://{address}/ws"), stream, Some(config))
            .map_err(|error| error.to_string())?;
        let mut client = Self { socket, id: String::new() };
        let ready = client.next("ready");
        client.id = id_of_ready(&ready).unwrap_or_else(|| panic!("not a ready: {ready}")).to_owned();
        Ok(client)
    }

    /// Sends a text message.
    pub(crate) fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap_or_else(|error| panic!("sending {text:.100}: {error}"));
    }

    /// Sends a binary message.
    pub(crate) fn send_binary(&mut self, bytes: &[u8]) {
        self.socket.send(Message::binary(bytes.to_vec())).expect("the connection is there");
    }

    /// Sends many messages in as few writes as possible.
    pub(crate) fn send_at_once<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) {
        for text in texts {
            self.socket.write(Message::text(text)).expect("room to write");
        }
        self.socket.flush().expect("the connection is there");
    }

    /// Takes the next message, which must be a text.
    pub(crate) fn next(&mut self, awaited: &str) -> String {
        loop {
            match self.read(awaited) {
                Message::Text(text) => return text.as_str().to_owned(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{} waited for {awaited} and got {other:?}", self.id),
            }
        }
    }

    /// The next message must be this one, byte for byte.
    pub(crate) fn expect(&mut self, text: &str) {
        let got = self.next(text);
        assert!(got == text, "{} waited for {}\n but got {}", self.id, shortened(text), shortened(&got));
    }

    /// The next message must be a match.
    pub(crate) fn expect_matched(&mut self) -> Matched {
        let got = self.next("matched");
        matched(&got).unwrap_or_else(|| panic!("{} waited for matched and got {got}", self.id))
    }

    /// The next message must be a match with `partner`.
    pub(crate) fn expect_matched_with(&mut self, partner: &Self) -> Matched {
        let got = self.expect_matched();
        assert_eq!(got.partner, partner.id, "{} is matched with the wrong partner", self.id);
        got
    }

    /// All messages that the server had for this client when it answered a ping. Pings count for no rate.
    pub(crate) fn drain(&mut self) -> Vec<String> {
        const MARK: &[u8] = b"drain";
        self.socket.send(Message::Ping(MARK.into())).expect("the connection is there");
        let mut texts = Vec::new();
        loop {
            match self.read("a pong") {
                Message::Text(text) => texts.push(text.as_str().to_owned()),
                Message::Pong(payload) if payload == MARK => return texts,
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{} waited for a pong and got {other:?}", self.id),
            }
        }
    }

    /// There must be no message when the server answers a ping.
    pub(crate) fn expect_nothing(&mut self) {
        let texts = self.drain();
        assert!(texts.is_empty(), "{} should have nothing but got {texts:?}", self.id);
    }

    /// The server must close this client like this, with nothing before.
    pub(crate) fn expect_close(&mut self, code: u16, reason: &str) {
        self.expect_close_after(code, reason, &[]);
    }

    /// The server must close this client like this; these texts may come before.
    pub(crate) fn expect_close_after(&mut self, code: u16, reason: &str, before: &[&str]) {
        let expected = CloseFrame { code: code.into(), reason: reason.into() };
        loop {
            match self.read("a close") {
                Message::Close(Some(frame)) if frame == expected => break,
                Message::Text(text) if before.contains(&text.as_str()) => {}
                other => panic!("{} waited for close {code} {reason} and got {other:?}", self.id),
            }
        }
        // Sends the answer and reads the end.
        while self.socket.read().is_ok() {}
    }

    /// Says goodbye and waits for the answer and the end.
    pub(crate) fn close(mut self) {
        self.socket.close(None).expect("the connection is there");
        while self.socket.read().is_ok() {}
    }

    /// Ends TCP with a reset.
    pub(crate) fn reset(self) {
        SockRef::from(self.socket.get_ref()).set_linger(Some(Duration::ZERO)).expect("a socket");
    }

    fn read(&mut self, awaited: &str) -> Message {
        let awaited = shortened(awaited);
        self.socket.read().unwrap_or_else(|error| panic!("{} waited for {awaited} and got: {error}", self.id))
    }
}

/// Two clients in a room; the first one has waited.
pub(crate) fn pair(server: &Server) -> (Client, Client) {
    let (mut first, mut second) = (Client::connect(server), Client::connect(server));
    pair_up(&mut first, &mut second);
    (first, second)
}

/// Brings two idle clients into a room. Returns its id.
pub(crate) fn pair_up(first: &mut Client, second: &mut Client) -> String {
    first.send(r#"{"type":"available"}"#);
    first.expect_nothing();
    second.send(r#"{"type":"available"}"#);
    let (one, other) = (first.expect_matched_with(second), second.expect_matched_with(first));
    assert_eq!(one.room, other.room, "partners are in one room");
    one.room
}

/// The id in `ready`, if it is one to the byte.
fn id_of_ready(text: &str) -> Option<&str> {
    let id = text.strip_prefix(r#"{"type":"ready","clientId":""#)?.strip_suffix("\"}")?;
    is_uuid_v4(id).then_some(id)
}

/// The ids in `matched`, if it is one to the byte.
pub(crate) fn matched(text: &str) -> Option<Matched> {
    let ids = text.strip_prefix(r#"{"type":"matched","roomId":""#)?.strip_suffix("\"}")?;
    let (room, partner) = ids.split_once(r#"","partnerId":""#)?;
    let matched = Matched { room: room.to_owned(), partner: partner.to_owned() };
    (is_uuid_v4(room) && is_uuid_v4(partner)).then_some(matched)
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}
