//! What one connection has said and was told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::judge::DropKind;
use super::super::label::Label;
use super::super::violation::{Violation, shown};

/// Where a connection stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Login {
    /// It has said nothing.
    None,
    /// It asked for a name.
    Asked {
        /// The name.
        name: String,
        /// When.
        at: u64,
        /// When, on the clock.
        since: Instant,
    },
    /// It asked for a name that nobody may have.
    Bad,
    /// It is logged in.
    In {
        /// Its name.
        name: String,
        /// When it asked.
        asked_at: u64,
        /// When it knew.
        since: u64,
    },
    /// It was refused, and will be closed with this.
    Refused {
        /// The close code.
        code: u16,
        /// The reason.
        reason: &'static str,
    },
}

impl Login {
    /// When it asked, and when it knew.
    pub(super) fn times(&self) -> (u64, u64) {
        match self {
            Self::In { asked_at, since, .. } => (*asked_at, *since),
            Self::Asked { at, .. } => (*at, u64::MAX),
            Self::None | Self::Bad | Self::Refused { .. } => (0, u64::MAX),
        }
    }
}

/// Whether the server may take a name for somebody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// It was refused.
    Never,
    /// It is logged in, or about to be, or about to go.
    Still,
    /// It said goodbye, and that was answered.
    GivenUp,
    /// It was lost so long ago.
    Lost(Duration),
    /// Its host died so long ago.
    Died(Duration),
}

impl Hold {
    /// Whether the server may not have noticed yet, if that takes it so long, or so long where a host died.
    pub(super) fn may_last(self, notice: Duration, notice_of_host: Duration) -> bool {
        match self {
            Self::Still => true,
            Self::Never | Self::GivenUp => false,
            Self::Lost(ago) => ago < notice,
            Self::Died(ago) => ago < notice_of_host,
        }
    }
}

/// How and when a connection went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gone {
    pub(super) kind: DropKind,
    /// When it was over; none while that is under way.
    pub(super) ended_at: Option<Instant>,
}

/// A peer, as one was told of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// Its place in the list.
    order: u64,
    /// One's own broadcasts before one knew of it.
    pub(super) broadcasts_then: u32,
    /// Number of its next message to this client alone.
    pub(super) targeted_due: u32,
    /// Its connection, and the number of its next message to everybody.
    pub(super) broadcast_due: Option<(u32, u32)>,
    /// Number of its last message with a label.
    last_sequence: Option<u32>,
}

impl Peer {
    /// Whether a message comes behind those before it, be they to everybody or not.
    pub(super) fn is_behind(&mut self, label: &Label) -> Result<(), Violation> {
        if let Some(last) = self.last_sequence.filter(|last| *last >= label.sequence) {
            return Err(Violation::Repeated { label: label.to_string(), due: last + 1 });
        }
        self.last_sequence = Some(label.sequence);
        Ok(())
    }
}

/// What one connection sent to one name.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stream {
    pub(super) sent: u32,
    pub(super) refused: u32,
    pub(super) arrived: u32,
    /// How many were sent while it was known that nobody has the name: all of them are refused.
    pub(super) to_nobody: u32,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) index: usize,
    pub(super) login: Login,
    /// It said something before it asked for a name.
    pub(super) is_early: bool,
    pub(super) gone: Option<Gone>,
    pub(super) view: BTreeMap<String, Peer>,
    pub(super) streams: BTreeMap<String, Stream>,
    pub(super) broadcasts: u32,
    pub(super) sequence: u32,
    /// Pings without an answer.
    pub(super) pings: u32,
    pub(super) next_at: Option<Instant>,
    announced: u64,
}

impl Session {
    pub(super) fn new(index: usize) -> Self {
        Self {
            index,
            login: Login::None,
            is_early: false,
            gone: None,
            view: BTreeMap::new(),
            streams: BTreeMap::new(),
            broadcasts: 0,
            sequence: 0,
            pings: 0,
            next_at: None,
            announced: 0,
        }
    }

    /// The name that it is logged in with, or was.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.login {
            Login::In { name, .. } => Some(name),
            Login::None | Login::Asked { .. } | Login::Bad | Login::Refused { .. } => None,
        }
    }

    /// Logged in for certain.
    pub(super) fn is_live(&self) -> bool {
        self.name().is_some() && self.gone.is_none()
    }

    /// How it held the name that it asked for, when somebody else asked for it.
    pub(super) fn hold_at(&self, asked_at: Instant) -> Hold {
        let asked = matches!(self.login, Login::In { .. } | Login::Asked { .. });
        match self.gone {
            _ if !asked => Hold::Never,
            None | Some(Gone { ended_at: None, .. }) => Hold::Still,
            Some(Gone { ended_at: Some(ended_at), .. }) if ended_at >= asked_at => Hold::Still,
            Some(Gone { kind: DropKind::WebSocketClose, .. }) => Hold::GivenUp,
            Some(Gone { kind: DropKind::HostDied, ended_at: Some(ended_at) }) => {
                Hold::Died(asked_at.saturating_duration_since(ended_at))
            }
            Some(Gone { ended_at: Some(ended_at), .. }) => {
                Hold::Lost(asked_at.saturating_duration_since(ended_at))
            }
        }
    }

    /// It was told of a peer.
    pub(super) fn learn(&mut self, name: &str) {
        self.announced += 1;
        let (order, broadcasts_then) = (self.announced, self.broadcasts);
        let peer = Peer { order, broadcasts_then, targeted_due: 0, broadcast_due: None, last_sequence: None };
        self.view.insert(name.to_owned(), peer);
    }

    /// The names in the order in which it was told of them.
    pub(super) fn list(&self) -> Vec<String> {
        let mut names: Vec<_> = self.view.iter().collect();
        names.sort_by_key(|(_, peer)| peer.order);
        names.into_iter().map(|(name, _)| name.clone()).collect()
    }

    /// The label of the next message.
    pub(super) fn label(&mut self, sender: u32, key: String, key_sequence: u32) -> Label {
        let sequence = self.sequence;
        self.sequence += 1;
        Label { sender, sequence, key_sequence, key }
    }

    pub(super) fn hear_pong(&mut self, message: &[u8]) -> Result<(), Violation> {
        let text = std::str::from_utf8(message).unwrap_or_default();
        let digits =
            text.strip_prefix(r#"{"type":"pong","timestamp":"#).and_then(|rest| rest.strip_suffix('}'));
        let is_time = digits
            .is_some_and(|digits| digits.len() == 13 && digits.bytes().all(|byte| byte.is_ascii_digit()));
        if !is_time || self.pings == 0 {
            return Err(Violation::Unknown { came: shown(message) });
        }
        self.pings -= 1;
        Ok(())
    }
}
