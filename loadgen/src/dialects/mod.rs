//! The dialects, as a client that relays load speaks them: what it says, and what that which it hears means. No I/O.
//!
//! [`Speaker`] is one client's side; [`Group`] is what the clients that relay to each other share.

pub(crate) mod directory;
pub(crate) mod introductions;
pub(crate) mod pairing;
pub(crate) mod rendezvous;
pub(crate) mod rooms;
mod seat;

use std::fmt;
use std::rc::Rc;

use clap::ValueEnum;
use serde::Serialize;

pub(crate) use self::seat::{Group, Seat, Told};
use crate::payload::{Body, PayloadKind, Role, Template};

/// What the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Dialect {
    /// `/ws`: random chat
    #[default]
    Pairing,
    /// `/<64 hex>?source=…&target=…`: two roles that share a connection id
    Rendezvous,
    /// `/`, first message `login`: named peers
    Directory,
    /// `/`, first message `create` or `join`: rooms of four digits
    Rooms,
    /// `/introduction/<id>`: peers that have documents in common
    Introductions,
    /// `/connection/<A>/<B>/<document>`: streams (`verify` alone; the scenario `pipe` loads them)
    Pipes,
}

/// Messages to say, in order.
pub(crate) type Words = Vec<Vec<u8>>;

/// What something means for a client that relays load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing to do.
    Nothing,
    /// The client has arrived; it may still be alone.
    Ready,
    /// There is somebody to send to.
    Partnered(Role),
    /// There is somebody, but not the one whom the client waited for.
    Stranger,
    /// The group's record has changed: all members are to look at it.
    TellGroup,
    /// A message that another one sent.
    Relay,
    /// What one's own message led to came back to oneself.
    Echo,
    /// There is nobody to send to any more.
    PartnerLeft,
    /// The server refused a message; it may have been one too many.
    Refused {
        /// By the rate limit.
        limited: bool,
    },
    /// The server refused a message, and is right where the partner left while that was on its way.
    Misplaced,
    /// A message that the dialect does not know.
    Unknown,
}

/// One client's side of a dialect.
pub(crate) trait Speaker: fmt::Debug {
    /// The connection is there.
    fn greet(&mut self, _words: &mut Words) -> Heard {
        Heard::Nothing
    }

    /// A message came.
    fn hear(&mut self, message: &[u8], words: &mut Words) -> Heard;

    /// The group's record may have changed.
    fn look_at_group(&mut self, _words: &mut Words) -> Heard {
        Heard::Nothing
    }

    /// Who the next message is for: as long as the blanks that [`Dialect::wrap`] left.
    fn address(&self) -> &str {
        ""
    }

    /// The client is about to close.
    fn farewell(&mut self, _words: &mut Words) {}
}

/// Says nothing, and is ready at once.
#[derive(Debug)]
struct Silent;

impl Speaker for Silent {
    fn greet(&mut self, _words: &mut Words) -> Heard {
        Heard::Ready
    }

    fn hear(&mut self, _message: &[u8], _words: &mut Words) -> Heard {
        Heard::Unknown
    }
}

impl Dialect {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pairing => "pairing",
            Self::Rendezvous => "rendezvous",
            Self::Directory => "directory",
            Self::Rooms => "rooms",
            Self::Introductions => "introductions",
            Self::Pipes => "pipes",
        }
    }

    /// The path of a seat's connection; `given` is that of the URL, which counts for pairing.
    pub(crate) fn path(self, seat: &Seat, given: &str) -> String {
        match self {
            Self::Pairing => given.to_owned(),
            Self::Rendezvous => rendezvous::path(&seat.connection_id(), seat.member),
            Self::Directory | Self::Rooms => "/".to_owned(),
            Self::Introductions => introductions::path(&seat.name(seat.member)),
            Self::Pipes => pipe_path(&seat.name(seat.member), &seat.name(1 - seat.member)),
        }
    }

    /// A client that relays.
    pub(crate) fn speaker(self, seat: Seat, group: &Rc<Group>) -> Box<dyn Speaker> {
        match self {
            Self::Pairing => Box::new(pairing::Speaker::default()),
            Self::Rendezvous => Box::new(rendezvous::Speaker::new(seat)),
            Self::Directory => Box::new(directory::Speaker::new(seat)),
            Self::Rooms => Box::new(rooms::Speaker::new(seat, Rc::clone(group))),
            Self::Introductions => Box::new(introductions::Speaker::new(seat)),
            Self::Pipes => Box::new(Silent),
        }
    }

    /// A client that relays, and that waits for its group's turn where the server chooses partners.
    pub(crate) fn speaker_in_turn(self, seat: Seat, group: &Rc<Group>) -> Box<dyn Speaker> {
        match self {
            Self::Pairing => Box::new(pairing::Speaker::in_turn(seat, Rc::clone(group))),
            Self::Rendezvous | Self::Directory | Self::Rooms | Self::Introductions | Self::Pipes => {
                self.speaker(seat, group)
            }
        }
    }

    /// A client that arrives and then stays silent.
    pub(crate) fn idler(self, seat: Seat, group: &Rc<Group>) -> Box<dyn Speaker> {
        match self {
            Self::Pairing => Box::new(pairing::Idler),
            // A list of all who are logged in goes to everybody: it would be measured, not the client.
            Self::Directory | Self::Pipes => Box::new(Silent),
            Self::Introductions => Box::new(introductions::Speaker::alone(seat)),
            Self::Rendezvous | Self::Rooms => self.speaker(seat, group),
        }
    }

    /// Clients that share a group while they are idle.
    pub(crate) fn idle_members(self) -> usize {
        match self {
            Self::Rooms => rooms::IDLE_MEMBERS,
            Self::Pairing | Self::Rendezvous | Self::Directory | Self::Introductions | Self::Pipes => 1,
        }
    }

    /// A client's message around a body.
    pub(crate) fn wrap(self, body: &Body) -> String {
        match self {
            Self::Pairing | Self::Introductions | Self::Pipes => pairing::wrap(body),
            Self::Rendezvous => rendezvous::wrap(body),
            Self::Directory => directory::wrap(body),
            Self::Rooms => rooms::wrap(body),
        }
    }

    /// The messages of a dialect that carries no bodies.
    pub(crate) fn own_templates(self, kind: PayloadKind) -> Result<Option<Vec<Template>>, String> {
        match self {
            Self::Introductions => introductions::templates(kind).map(Some),
            Self::Pairing | Self::Rendezvous | Self::Directory | Self::Rooms | Self::Pipes => Ok(None),
        }
    }

    /// The messages per second and client that the dialect allows whatever the server's settings.
    pub(crate) fn fixed_limit_per_s(self) -> Option<u32> {
        match self {
            Self::Directory => Some(directory::MESSAGES_PER_S_MAX),
            Self::Pairing | Self::Rendezvous | Self::Rooms | Self::Introductions | Self::Pipes => None,
        }
    }

    /// Whether the server holds back, instead of refusing, who sends too much.
    pub(crate) fn holds_back(self) -> bool {
        matches!(self, Self::Rooms | Self::Introductions)
    }
}

/// The path of one end of a pipe.
pub(crate) fn pipe_path(own: &str, other: &str) -> String {
    format!("/connection/{own}/{other}/load")
}

/// A JSON value as the value of a field that must be a string.
pub(crate) fn as_json_string(opaque: &str) -> String {
    if opaque.starts_with('"') {
        return opaque.to_owned();
    }
    serde_json::Value::String(opaque.to_owned()).to_string()
}
