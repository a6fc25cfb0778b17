//! Pairing's books about one connection: what the client said, in which room the server read it, and what must
//! therefore come back. Kept beside the server, from its inputs and protocols.md section 1 alone; only the room that
//! a client is in when its bytes are read is the server's word.

use std::collections::VecDeque;

use crate::id::Text;
use crate::simulator::checks::fail;
use crate::simulator::connection::{Connection, Voice};
use crate::simulator::ledger::{self, Said, Window};

/// A message, as the server will understand it once it has read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::simulator) enum Word {
    Available,
    /// The message of this number.
    Relay(usize),
    Next,
    Leave,
    /// The message `ping`.
    AskPong,
    Auth,
    UnknownType,
    NotJson,
}

/// What must be answered, in this order; other things may come in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::simulator) enum Reply {
    Text(&'static str),
    Pong(Vec<u8>),
    Close(Option<u16>),
}

const PONG: &str = r#"{"type":"pong"}"#;
const INVALID_FORMAT: &str = r#"{"type":"error","code":"INVALID_FORMAT","message":"Invalid message format"}"#;
const UNKNOWN_TYPE: &str = r#"{"type":"error","code":"UNKNOWN_TYPE","message":"Unknown message type"}"#;
const NOT_PAIRED: &str = r#"{"type":"error","code":"NOT_PAIRED","message":"Not paired with a partner"}"#;
const ALREADY_PAIRED: &str =
    r#"{"type":"error","code":"ALREADY_PAIRED","message":"Already paired with a partner"}"#;
const RATE_LIMIT: &str = r#"{"type":"error","code":"RATE_LIMIT","message":"Too many messages"}"#;
const PARTNER_LEFT: &str = r#"{"type":"partner-left"}"#;
const MATCHED: [&str; 3] = [r#"{"type":"matched","roomId":""#, r#"","partnerId":""#, r#""}"#];

/// Where the server has a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::simulator) enum Standing {
    /// No WebSocket yet.
    Head,
    Idle,
    Waiting,
    Paired(Text),
    /// No WebSocket any more.
    Closed,
}

/// A type that is relayed, and its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::simulator) struct Kind {
    pub(in crate::simulator) name: &'static str,
    pub(in crate::simulator) field: &'static str,
}

pub(in crate::simulator) const KINDS: [Kind; 3] = [
    Kind { name: "offer", field: "sdp" },
    Kind { name: "answer", field: "sdp" },
    Kind { name: "ice", field: "candidate" },
];

/// A message for the partner.
#[derive(Debug)]
struct Relayed {
    kind: Kind,
    value: Option<String>,
}

/// A room that the client said something in, as the server read it.
#[derive(Debug)]
struct Stay {
    room: Text,
    /// Numbers of the messages for the partner that the server read in this room.
    messages: Vec<usize>,
    /// So many of them were surely handled: the server did not close the client while it read them.
    certain: usize,
    /// Where the server's bytes to the client stood when it had read that the client leaves.
    left_at: Option<u64>,
}

/// The room that the client believes to be in.
#[derive(Debug)]
struct View {
    room: Text,
    partner: usize,
    received: usize,
    has_partner_left: bool,
    /// It has said that it leaves. The server may not have read it, or refused it.
    has_left: bool,
}

/// The books about one connection.
#[derive(Debug)]
pub(in crate::simulator) struct Account {
    /// Who was left waits again.
    requeue: bool,
    relayed: Vec<Relayed>,
    replies: VecDeque<Reply>,
    stays: Vec<Stay>,
    window: Window,
    /// Nothing counts any more of what the server reads.
    has_stopped: bool,
    /// It may be neither in the queue nor in a room: it never asked, or it left.
    may_be_idle: bool,
    pub(in crate::simulator) is_ready: bool,
    /// It has said `available`, as far as it knows.
    pub(in crate::simulator) has_asked: bool,
    view: Option<View>,
    /// Messages received from partners.
    pub(in crate::simulator) relays_received: u64,
}

impl Account {
    pub(in crate::simulator) fn new(requeue: bool) -> Self {
        Self {
            requeue,
            relayed: Vec::new(),
            replies: VecDeque::new(),
            stays: Vec::new(),
            window: Window::default(),
            has_stopped: false,
            may_be_idle: true,
            is_ready: false,
            has_asked: false,
            view: None,
            relays_received: 0,
        }
    }

    /// The client says something.
    pub(in crate::simulator) fn say(&mut self, word: &Word) {
        match word {
            Word::Available => self.has_asked = true,
            Word::Next | Word::Leave => {
                self.has_asked = false;
                self.view.iter_mut().for_each(|view| view.has_left = true);
            }
            Word::Relay(_) | Word::AskPong | Word::Auth | Word::UnknownType | Word::NotJson => {}
        }
    }

    /// Enters a message for the partner; returns its number.
    pub(in crate::simulator) fn relay(&mut self, kind: Kind, value: Option<String>) -> usize {
        self.relayed.push(Relayed { kind, value });
        self.relayed.len() - 1
    }

    /// How many messages were entered.
    pub(in crate::simulator) fn relayed(&self) -> usize {
        self.relayed.len()
    }

    /// The room that the client believes to be in.
    pub(in crate::simulator) fn room(&self) -> Option<Text> {
        self.view.as_ref().filter(|view| !view.has_partner_left && !view.has_left).map(|view| view.room)
    }

    /// The server reads this. Before it does, the client stands there.
    pub(in crate::simulator) fn handle_read(
        &mut self,
        said: Vec<Said>,
        mut standing: Standing,
        now_ms: u64,
        rate_max: u32,
    ) {
        self.has_stopped |= standing == Standing::Closed;
        for said in said {
            if !self.has_stopped {
                self.read_one(said, &mut standing, now_ms, rate_max);
            }
        }
    }

    /// The server has read; `is_open`: it goes on with the client. `position`: of the server's bytes.
    pub(in crate::simulator) fn handle_read_done(&mut self, is_open: bool, position: u64) {
        let Some(stay) = self.stays.last_mut() else { return };
        if is_open {
            stay.certain = stay.messages.len();
        }
        if stay.left_at == Some(u64::MAX) {
            stay.left_at = Some(position);
        }
    }

    fn read_one(&mut self, said: Said, standing: &mut Standing, now_ms: u64, rate_max: u32) {
        match said {
            Said::Upgrade => *standing = Standing::Idle,
            Said::Ping(payload) => self.replies.push_back(Reply::Pong(payload)),
            Said::Close(code) => self.stop(code),
            Said::Violation(code) => self.stop(Some(code)),
            Said::Word(_) if !self.window.allows(now_ms, 1_000, rate_max) => self.reply(RATE_LIMIT),
            Said::Word(ledger::Word::Pairing(word)) => self.read_word(&word, standing),
            Said::Word(word) => fail(format!("not of pairing: {word:?}")),
        }
    }

    fn read_word(&mut self, word: &Word, standing: &mut Standing) {
        match word {
            Word::Available => match *standing {
                Standing::Paired(_) => self.reply(ALREADY_PAIRED),
                _ => {
                    *standing = Standing::Waiting;
                    self.may_be_idle = false;
                }
            },
            Word::Relay(number) => match *standing {
                Standing::Paired(room) => self.stay(room).messages.push(*number),
                _ => self.reply(NOT_PAIRED),
            },
            Word::Next if !matches!(standing, Standing::Paired(_)) => self.reply(NOT_PAIRED),
            Word::Next | Word::Leave => {
                if let Standing::Paired(room) = *standing {
                    self.stay(room).left_at = Some(u64::MAX);
                }
                *standing = Standing::Idle;
                self.may_be_idle = true;
            }
            Word::AskPong => self.reply(PONG),
            Word::Auth => {}
            Word::UnknownType => self.reply(UNKNOWN_TYPE),
            Word::NotJson => self.reply(INVALID_FORMAT),
        }
    }

    fn reply(&mut self, text: &'static str) {
        self.replies.push_back(Reply::Text(text));
    }

    fn stop(&mut self, code: Option<u16>) {
        self.replies.push_back(Reply::Close(code));
        self.has_stopped = true;
    }

    fn stay(&mut self, room: Text) -> &mut Stay {
        let index = self.stays.iter().position(|stay| stay.room == room).unwrap_or_else(|| {
            self.stays.push(Stay { room, messages: Vec::new(), certain: 0, left_at: None });
            self.stays.len() - 1
        });
        &mut self.stays[index]
    }

    fn stay_in(&self, room: Text) -> Option<&Stay> {
        self.stays.iter().rev().find(|stay| stay.room == room)
    }

    /// The message with this index among those that the server read in the room, as its receiver must see it.
    fn nth_relayed(&self, id: &Text, room: Text, index: usize) -> Option<Vec<u8>> {
        let number = *self.stay_in(room)?.messages.get(index)?;
        let Relayed { kind, value } = &self.relayed[number];
        let (name, field, id) = (kind.name, kind.field, std::str::from_utf8(id).unwrap_or_default());
        let message = match value {
            Some(value) => format!(r#"{{"type":"{name}","from":"{id}","{field}":{value}}}"#),
            None => format!(r#"{{"type":"{name}","from":"{id}"}}"#),
        };
        Some(message.into_bytes())
    }

    fn certain_in(&self, room: Text) -> usize {
        self.stay_in(room).map_or(0, |stay| stay.certain)
    }

    fn left_at(&self, room: Text) -> Option<u64> {
        self.stay_in(room)?.left_at
    }

    /// The next answer has come.
    fn receive_reply(&mut self, payload: &[u8]) {
        match self.replies.pop_front() {
            Some(Reply::Text(expected)) if payload == expected.as_bytes() => {}
            other => fail(format!("received {}, expected {other:?}", payload.escape_ascii())),
        }
    }

    /// A pong frame has come.
    pub(in crate::simulator) fn receive_pong(&mut self, payload: &[u8]) {
        match self.replies.pop_front() {
            Some(Reply::Pong(expected)) if payload == expected => {}
            other => fail(format!("received a pong {}, expected {other:?}", payload.escape_ascii())),
        }
    }

    /// Whether a close with this code is what comes next: the answer to the client's own or the one that it provoked.
    /// If not, the server wants the close by itself.
    pub(in crate::simulator) fn is_reply(&self, code: Option<u16>) -> bool {
        self.replies.front() == Some(&Reply::Close(code))
    }

    /// What must hold of an open client when nothing is under way any more.
    pub(in crate::simulator) fn check_at_rest(&self, standing: Standing) {
        if !self.replies.is_empty() {
            fail(format!("never answered: {:?}", self.replies));
        }
        if !self.is_ready {
            fail("open, but never greeted");
        }
        let believed =
            self.view.as_ref().filter(|view| !view.has_partner_left && self.left_at(view.room).is_none());
        match (standing, believed) {
            (Standing::Paired(room), Some(view)) if room == view.room => {}
            (Standing::Idle | Standing::Waiting, None) => {}
            (standing, believed) => {
                fail(format!("stands {standing:?}, was told {:?}", believed.map(|view| view.room)))
            }
        }
        self.check_idle(standing);
    }

    /// Who asked to be matched is in the queue or in a room, until it leaves.
    pub(in crate::simulator) fn check_idle(&self, standing: Standing) {
        if self.requeue && standing == Standing::Idle && !self.may_be_idle {
            fail("left by its partner and neither in the queue nor in a room");
        }
    }
}

/// The pairing account of a connection.
pub(in crate::simulator) fn account_of(connections: &[Connection], index: usize) -> &Account {
    match &connections[index].voice {
        Voice::Pairing(account) => account,
        _ => fail("not a client of pairing"),
    }
}

fn account_mut(connections: &mut [Connection], index: usize) -> &mut Account {
    match &mut connections[index].voice {
        Voice::Pairing(account) => account,
        _ => fail("not a client of pairing"),
    }
}

/// A text message has come, which began at this position of the server's bytes.
pub(in crate::simulator) fn receive_text(connections: &mut [Connection], me: usize, payload: &[u8], at: u64) {
    let id = connections[me].id;
    let account = account_mut(connections, me);
    if !account.is_ready {
        account.is_ready = true;
        let ready = [br#"{"type":"ready","clientId":""#.as_slice(), &id, br#""}"#].concat();
        if payload != ready {
            fail(format!("received {} before it was greeted", payload.escape_ascii()));
        }
    } else if payload == PARTNER_LEFT.as_bytes() {
        receive_partner_left(connections, me);
    } else if payload.starts_with(MATCHED[0].as_bytes()) {
        receive_matched(connections, me, payload);
    } else if KINDS.iter().any(|kind| is_of_kind(payload, *kind)) {
        receive_relayed(connections, me, payload, at);
    } else {
        account.receive_reply(payload);
    }
}

fn is_of_kind(payload: &[u8], kind: Kind) -> bool {
    let start =
        payload.strip_prefix(br#"{"type":""#).and_then(|rest| rest.strip_prefix(kind.name.as_bytes()));
    start.is_some_and(|rest| rest.starts_with(b"\""))
}

fn receive_matched(connections: &mut [Connection], me: usize, payload: &[u8]) {
    let shown = payload.escape_ascii();
    let ids = payload
        .strip_prefix(MATCHED[0].as_bytes())
        .and_then(|rest| rest.split_first_chunk::<36>())
        .and_then(|(room, rest)| Some((room, rest.strip_prefix(MATCHED[1].as_bytes())?)))
        .and_then(|(room, rest)| Some((*room, rest.split_first_chunk::<36>()?)));
    let Some((room, (partner_id, b"\"}"))) = ids else { fail(format!("malformed: {shown}")) };
    let Some(partner) = connections.iter().position(|other| other.id == *partner_id) else {
        fail(format!("matched with nobody: {shown}"))
    };
    if partner == me {
        fail("matched with itself");
    }
    let account = account_mut(connections, me);
    if let Some(view) = &account.view {
        if !view.has_partner_left && account.left_at(view.room).is_none() {
            fail(format!("matched without partner-left: {shown}"));
        }
        if view.room == room {
            fail(format!("matched twice in one room: {shown}"));
        }
    }
    account.has_asked = true;
    account.view = Some(View { room, partner, received: 0, has_partner_left: false, has_left: false });
}

fn receive_partner_left(connections: &mut [Connection], me: usize) {
    check_received_all(connections, me);
    let account = account_mut(connections, me);
    let Some(view) = account.view.as_mut().filter(|view| !view.has_partner_left) else {
        fail("partner-left without a partner")
    };
    view.has_partner_left = true;
    let room = view.room;
    account.has_asked &= account.requeue;
    if account.left_at(room).is_some() {
        fail("partner-left for a room that it had left before");
    }
}

/// What the server has handled of a partner's messages in a room comes before the end of the room.
pub(in crate::simulator) fn check_received_all(connections: &[Connection], me: usize) {
    let account = account_of(connections, me);
    let view = account.view.as_ref().filter(|view| account.left_at(view.room).is_none());
    let Some(view) = view else { return };
    let certain = account_of(connections, view.partner).certain_in(view.room);
    if view.received < certain {
        fail(format!("of {certain} messages of its partner it received {}", view.received));
    }
}

fn receive_relayed(connections: &mut [Connection], me: usize, payload: &[u8], at: u64) {
    let account = account_of(connections, me);
    let shown = String::from_utf8_lossy(&payload[..payload.len().min(300)]).into_owned();
    let Some(view) = account.view.as_ref().filter(|view| !view.has_partner_left) else {
        fail(format!("relayed to a client without a partner: {shown}"))
    };
    if account.left_at(view.room).is_some_and(|left_at| left_at <= at) {
        fail(format!("relayed to a client that had left: {shown}"));
    }
    let partner_id = &connections[view.partner].id;
    match account_of(connections, view.partner).nth_relayed(partner_id, view.room, view.received) {
        Some(expected) if expected == payload => {}
        Some(expected) => fail(format!(
            "message {} of the room should be {}, but is {shown}",
            view.received,
            String::from_utf8_lossy(&expected[..expected.len().min(300)]),
        )),
        None => fail(format!("message {} of the room was never read in it: {shown}", view.received)),
    }
    let account = account_mut(connections, me);
    account.relays_received += 1;
    if let Some(view) = &mut account.view {
        view.received += 1;
    }
}
