//! `/`: what its clients say, and which of directory and rooms that means (protocols.md section 0, row `/`).

use super::behaviour::{Manner, Play};
use super::checks::fail;
use super::connection::Connection;
use super::ledger::Meaning;
use super::scene::Scene;
use super::{directory, ledger, rooms};
use crate::limits::DIRECTORY_MESSAGES_MAX;

pub(super) const ROOM_CREATED: &str = r#"{"type":"room_created","roomId":""#;
pub(super) const ROOM_JOINED: &str = r#"{"type":"room_joined","roomId":""#;
pub(super) const ROOM_NOT_FOUND: &str = r#"{"type":"error","message":"Room not found"}"#;
const NOT_LOGGED_IN: &str = r#"{"type":"error","error":"not_logged_in"}"#;
const RATE_LIMIT: &str = r#"{"type":"error","error":"rate_limit_exceeded"}"#;
const WINDOW_MS: u32 = 1_000;

/// A message at `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// The name it asks for, blanks cut off; none if that is no name.
    Login(Option<String>),
    /// `ping`.
    Ping,
    /// One of the four broadcasts, as all others get it but for the sender: what stands before and behind its name.
    Announce(String, String),
    /// For a target.
    Relay(Relay),
    Create,
    /// What stands in `roomId`, if it has the shape of an id.
    Join(Option<u16>),
    /// With its payload, if there is one.
    Signal(Option<String>),
    /// A type that nobody knows, and no target.
    Unknown,
    /// Not JSON, or no type.
    Silent,
}

/// A message for a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relay {
    pub(super) target: String,
    /// The target as it was sent.
    pub(super) target_json: String,
    /// The message without its `from`, up to its closing brace.
    pub(super) head: String,
    /// From the closing brace on.
    pub(super) tail: String,
}

/// What a client learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// It is logged in, and these are.
    LoggedIn(Vec<String>),
    /// Another one logged in.
    Came(String),
    /// Another one is gone.
    Went(String),
    /// Something from another peer, or from itself.
    FromPeer,
    /// It is in this room.
    Entered(usize),
    /// Something from its room.
    FromRoom,
    /// It was told that it says too much.
    TooFast,
}

/// Which dialect a client has chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    None,
    Directory,
    Rooms,
}

/// One client at `/`.
#[derive(Debug)]
pub(super) struct Client {
    choice: Choice,
    /// Its name in the directory.
    pub(super) name: Option<String>,
    /// The room that it is in, or was in when that expired.
    pub(super) room: Option<usize>,
    /// It would rather speak in rooms.
    prefers_rooms: bool,
    /// What the client knows: it is logged in, and who else is; or it is in a room.
    pub(super) is_logged_in: bool,
    pub(super) peers: Vec<String>,
    pub(super) has_room: bool,
    pub(super) said: usize,
}

/// The books of both.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) directory: directory::Book,
    pub(super) rooms: rooms::Book,
}

impl Client {
    pub(super) fn new(prefers_rooms: bool) -> Self {
        Self {
            choice: Choice::None,
            name: None,
            room: None,
            prefers_rooms,
            is_logged_in: false,
            peers: Vec::new(),
            has_room: false,
            said: 0,
        }
    }

    /// Whether who says too much is not read from for a while.
    pub(super) fn is_paused_for_rate(&self) -> bool {
        self.choice == Choice::Rooms
    }

    /// The client has heard something.
    pub(super) fn learn(&mut self, news: News) {
        match news {
            News::LoggedIn(peers) => {
                self.is_logged_in = true;
                self.peers = peers;
            }
            News::Came(name) if self.peers.contains(&name) => fail(format!("was told twice of {name}")),
            News::Came(name) => self.peers.push(name),
            News::Went(name) => self.peers.retain(|peer| *peer != name),
            News::Entered(_) => self.has_room = true,
            News::FromPeer | News::FromRoom | News::TooFast => {}
        }
    }
}

impl Book {
    /// A client's message was handled. In rooms it was counted before.
    pub(super) fn read(&mut self, scene: &mut Scene<'_>, me: usize, word: Word) {
        let Some(choice) = scene.lobby(me).map(|client| client.choice) else { return };
        let now_ms = scene.now_ms;
        let window = &mut scene.connections[me].ledger.window;
        if choice != Choice::Rooms && !window.allows(now_ms, WINDOW_MS, DIRECTORY_MESSAGES_MAX) {
            return scene.expect_what(
                me,
                ledger::What::Text(RATE_LIMIT.to_owned()),
                Meaning::Lobby(News::TooFast),
                0,
            );
        }
        let offered = scene.settings.offered;
        let choice = match (choice, &word) {
            (Choice::None, Word::Login(_)) if offered.directory => Choice::Directory,
            (Choice::None, Word::Create | Word::Join(_) | Word::Signal(_)) if offered.rooms => Choice::Rooms,
            (choice, _) => choice,
        };
        if let Some(client) = scene.lobby(me) {
            client.choice = choice;
        }
        match (choice, word) {
            (Choice::None | Choice::Directory, Word::Silent) => {}
            (Choice::None, _) if offered.directory => scene.expect(me, NOT_LOGGED_IN.to_owned()),
            (Choice::None, _) => {}
            (Choice::Directory, word) => self.directory.read(scene, me, word, NOT_LOGGED_IN),
            (Choice::Rooms, word) => self.rooms.read(scene, me, word),
        }
    }

    /// A client is gone.
    pub(super) fn leave(&mut self, scene: &mut Scene<'_>, me: usize) {
        self.directory.leave(me);
        self.rooms.leave(scene, me);
    }
}

/// The path of `/`.
pub(super) fn connect(prefers_rooms: bool, play: &mut Play<'_>) -> (Client, String) {
    let path = play.chance.pick(&["/", "/", "/?x=1", "/?source=wallet&target=extension"]);
    (Client::new(prefers_rooms), path.to_owned())
}

/// Says something, or nothing.
pub(super) fn act(client: &mut Connection, manner: Manner, play: &mut Play<'_>) {
    let count = match manner {
        Manner::Flooding => play.chance.between(1..=25),
        Manner::Behaved | Manner::Clumsy | Manner::Forging => play.chance.below(4),
    };
    for _ in 0..count {
        let super::connection::Voice::Lobby(state) = &client.voice else { return };
        let strays = manner == Manner::Clumsy && play.chance.one_in(6);
        let message = match manner {
            Manner::Clumsy if play.chance.one_in(4) => Some(junk(play)),
            _ if state.prefers_rooms != strays => rooms::message(state, play),
            _ => directory::message(state, manner, play),
        };
        let Some((word, text)) = message else { return };
        client.say(ledger::Word::Lobby(word), text.as_bytes(), play.chance);
    }
}

/// What is not answered, or refused.
fn junk(play: &mut Play<'_>) -> (Word, String) {
    let (word, text) = match play.chance.below(14) {
        0 => (Word::Silent, ""),
        1 => (Word::Silent, "null"),
        2 => (Word::Silent, "{\"type\":\"login\",\"name\":\"x\""),
        3 => (Word::Silent, "[\"type\"]"),
        4 => (Word::Silent, r#"{"type":7,"target":"a"}"#),
        5 => (Word::Silent, r#"{"type":"","target":"a"}"#),
        6 => (Word::Unknown, r#"{"type":"Login","name":"alice"}"#),
        7 => (Word::Unknown, r#"{"type":"offer","target":""}"#),
        8 => (Word::Unknown, r#"{"type":"offer","target":["alice"]}"#),
        9 => (Word::Join(None), r#"{"type":"join","roomId":1234}"#),
        10 => (Word::Join(None), r#"{"type":"join","roomId":"0999"}"#),
        11 => (Word::Join(None), r#"{"type":"join","roomId":"12345"}"#),
        12 => (Word::Join(None), r#"{"type":"join"}"#),
        _ => (Word::Ping, r#"{"type":"ping"}"#),
    };
    (word, text.to_owned())
}
