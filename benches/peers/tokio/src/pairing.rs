//! Random chat: who waits is matched with the next one, and what one says goes to the other.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::ready;
use std::io::Cursor;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastwebsockets::{FragmentCollectorRead, Frame, OpCode, Payload, Role, after_handshake_split};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::outbox::{Outbox, Writes};

/// As Parlor's `MAX_MESSAGE_BYTES`, for one frame.
const FRAME_BYTES_MAX: usize = 1024 * 1024;
const RATE_WINDOW: Duration = Duration::from_secs(1);

pub(crate) struct Lobby {
    waiting: RefCell<VecDeque<Rc<Client>>>,
    messages_per_second_max: u32,
    writes: Writes,
}

struct Client {
    id: String,
    outbox: Outbox,
    partner: RefCell<Option<Rc<Client>>>,
    window_start: Cell<Instant>,
    window_count: Cell<u32>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default, borrow, deserialize_with = "present")]
    sdp: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "present")]
    candidate: Option<&'a RawValue>,
}

/// An `Option` takes `null` for missing; here it is a value like any other.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Serves one client until it is gone and has been sent all that it was owed.
pub(crate) async fn serve(mut stream: TcpStream, read_ahead: Bytes, lobby: &Lobby) {
    let (socket_reader, socket_writer) = stream.split();
    let client = Rc::new(Client::new(lobby.writes));
    client.send(&format!(r#"{{"type":"ready","clientId":"{}"}}"#, client.id));
    let reading = async {
        read(Cursor::new(read_ahead).chain(socket_reader), &client, lobby).await;
        lobby.leave(&client);
        client.outbox.end();
    };
    tokio::join!(reading, client.outbox.write_to(socket_writer));
}

async fn read(socket: impl AsyncRead + Unpin, client: &Rc<Client>, lobby: &Lobby) {
    let (mut frames, _) = after_handshake_split(socket, tokio::io::sink(), Role::Server);
    frames.set_max_message_size(FRAME_BYTES_MAX);
    let mut messages = FragmentCollectorRead::new(frames);
    let mut send_control = |frame: Frame<'static>| {
        client.outbox.push(frame);
        ready(Ok::<_, Infallible>(()))
    };
    while let Ok(message) = messages.read_frame(&mut send_control).await {
        match message.opcode {
            OpCode::Text | OpCode::Binary => lobby.handle_message(client, &message.payload),
            OpCode::Close => return,
            OpCode::Continuation | OpCode::Ping | OpCode::Pong => {}
        }
    }
}

impl Lobby {
    pub(crate) fn new(messages_per_second_max: u32, writes: Writes) -> Self {
        Self { waiting: RefCell::default(), messages_per_second_max, writes }
    }

    fn handle_message(&self, client: &Rc<Client>, bytes: &[u8]) {
        if client.count_message() > self.messages_per_second_max {
            return client.send_error("RATE_LIMIT", "Too many messages");
        }
        let Ok(message) = serde_json::from_slice::<Message>(bytes) else {
            return client.send_parse_error(bytes);
        };
        match &*message.kind {
            "offer" => client.relay("offer", "sdp", message.sdp),
            "answer" => client.relay("answer", "sdp", message.sdp),
            "ice" => client.relay("ice", "candidate", message.candidate),
            "available" => self.handle_available(client),
            "next" => self.handle_next(client),
            "leave" => self.leave(client),
            "ping" => client.send(r#"{"type":"pong"}"#),
            "auth" => {}
            _ => client.send_error("UNKNOWN_TYPE", "Unknown message type"),
        }
    }

    fn handle_available(&self, client: &Rc<Client>) {
        if client.partner.borrow().is_some() {
            return client.send_error("ALREADY_PAIRED", "Already paired with a partner");
        }
        self.enqueue(client);
    }

    fn handle_next(&self, client: &Rc<Client>) {
        if client.partner.borrow().is_none() {
            return client.send_not_paired();
        }
        self.unpair(client);
    }

    fn leave(&self, client: &Rc<Client>) {
        self.waiting.borrow_mut().retain(|waiting| !Rc::ptr_eq(waiting, client));
        self.unpair(client);
    }

    /// The partner who was left waits again.
    fn unpair(&self, client: &Client) {
        let Some(partner) = client.partner.take() else { return };
        partner.partner.take();
        partner.send(r#"{"type":"partner-left"}"#);
        self.enqueue(&partner);
    }

    fn enqueue(&self, client: &Rc<Client>) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.iter().any(|other| Rc::ptr_eq(other, client)) {
            return;
        }
        match waiting.pop_front() {
            Some(partner) => pair(&partner, client),
            None => waiting.push_back(Rc::clone(client)),
        }
    }
}

fn pair(first: &Rc<Client>, second: &Rc<Client>) {
    let room_id = Uuid::new_v4();
    for (client, partner) in [(first, second), (second, first)] {
        client.partner.replace(Some(Rc::clone(partner)));
        client.send(&format!(r#"{{"type":"matched","roomId":"{room_id}","partnerId":"{}"}}"#, partner.id));
    }
}

impl Client {
    fn new(writes: Writes) -> Self {
        Self {
            id: Uuid::new_v4().to_string(),
            outbox: Outbox::new(writes),
            partner: RefCell::default(),
            window_start: Cell::new(Instant::now()),
            window_count: Cell::new(0),
        }
    }

    fn count_message(&self) -> u32 {
        let now = Instant::now();
        if now.duration_since(self.window_start.get()) >= RATE_WINDOW {
            self.window_start.set(now);
            self.window_count.set(0);
        }
        self.window_count.update(|count| count.saturating_add(1));
        self.window_count.get()
    }

    fn relay(&self, kind: &str, field: &str, value: Option<&RawValue>) {
        let partner = self.partner.borrow();
        let Some(partner) = &*partner else { return self.send_not_paired() };
        let value = value.map_or("", RawValue::get);
        let mut text = String::with_capacity(96 + value.len());
        text.extend([r#"{"type":""#, kind, r#"","from":""#, &self.id, "\""]);
        if !value.is_empty() {
            text.extend([",\"", field, "\":", value]);
        }
        text.push('}');
        partner.send(&text);
    }

    fn send(&self, text: &str) {
        self.outbox.push(Frame::text(Payload::Borrowed(text.as_bytes())));
    }

    fn send_error(&self, code: &str, message: &str) {
        self.send(&format!(r#"{{"type":"error","code":"{code}","message":"{message}"}}"#));
    }

    fn send_not_paired(&self) {
        self.send_error("NOT_PAIRED", "Not paired with a partner");
    }

    fn send_parse_error(&self, bytes: &[u8]) {
        match serde_json::from_slice::<Option<IgnoredAny>>(bytes) {
            Ok(Some(_)) => self.send_error("UNKNOWN_TYPE", "Unknown message type"),
            Ok(None) | Err(_) => self.send_error("INVALID_FORMAT", "Invalid message format"),
        }
    }
}
