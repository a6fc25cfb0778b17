//! Plays a conversation against the running program, and compares to the byte.

use std::collections::BTreeMap;

use rustix::process::Signal;

use super::notation::{Act, Body, Heard, Kind, Step};
use super::page::Conversation;
use super::pattern::Found;
use super::peer::{Item, Peer};
use crate::support::{Server, Setup};

/// A conversation under way.
struct Stage {
    server: Server,
    peers: BTreeMap<String, Peer>,
    found: Found,
    is_stopping: bool,
}

/// Plays a conversation.
///
/// # Errors
/// The first line that is not true, with the page and its number.
pub(crate) fn replay(conversation: &Conversation, setup: Setup) -> Result<(), String> {
    let environment: Vec<(&str, &str)> =
        conversation.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let server = Server::start(setup, &environment);
    let mut stage = Stage { server, peers: BTreeMap::new(), found: Found::default(), is_stopping: false };
    let page = &conversation.page;
    for line in &conversation.lines {
        stage.play(&line.act).map_err(|failure| {
            format!("{page}:{}: {}\n    {failure}\n{}", line.number, line.text, stage.server.log())
        })?;
    }
    stage.end().map_err(|failure| {
        format!("{page}:{}: at the end of this conversation\n    {failure}", conversation.line)
    })
}

impl Stage {
    fn play(&mut self, act: &Act) -> Result<(), String> {
        match act {
            Act::Peer { who, step } => self.step(who, step),
            Act::Terminate => {
                self.is_stopping = true;
                self.server.signal(Signal::TERM);
                Ok(())
            }
        }
    }

    fn step(&mut self, who: &str, step: &Step) -> Result<(), String> {
        match step {
            Step::Opens { path, is_raw, origin } => {
                let path = text(path.filled(&self.found)?)?;
                let mut peer = Peer::open(self.server.address, &path, *is_raw, origin.as_deref())?;
                peer.catch_up()?;
                self.enter(who, peer)
            }
            Step::Asks { path, header } => {
                let path = text(path.filled(&self.found)?)?;
                self.enter(who, Peer::ask(self.server.address, &path, header.as_deref())?)
            }
            Step::Says { kind, value, times, frames } => {
                let bytes = value.filled(&self.found)?;
                self.peer(who)?.say(*kind, &bytes, *times, *frames)
            }
            Step::Hears { what, times } => (0..*times).try_for_each(|_| self.hear(who, what)),
            Step::Closes(code) => self.peer(who)?.close(*code),
            Step::Ends => self.peer(who)?.end(),
            Step::IsCut => {
                let mut peer = self.peers.remove(who).ok_or_else(|| format!("{who} is not there"))?;
                peer.catch_up_if_answered()?;
                peer.unexpected().map_or(Ok(()), Err)?;
                peer.cut()
            }
            Step::FallsSilent => self.peer(who)?.fall_silent(),
        }
    }

    /// Somebody new, or one who comes back when all was heard that came before.
    fn enter(&mut self, who: &str, peer: Peer) -> Result<(), String> {
        let before = self.peers.insert(who.to_owned(), peer);
        before.and_then(|before| before.unfinished()).map_or(Ok(()), Err)
    }

    fn peer(&mut self, who: &str) -> Result<&mut Peer, String> {
        self.peers.get_mut(who).ok_or_else(|| format!("{who} is not there"))
    }

    fn hear(&mut self, who: &str, what: &Heard) -> Result<(), String> {
        let Self { peers, found, .. } = self;
        let peer = peers.get_mut(who).ok_or_else(|| format!("{who} is not there"))?;
        match what {
            Heard::Ping => peer.expect_ping(),
            Heard::Cut if peer.is_silent() => peer.expect_cut_in_silence(),
            Heard::End => peer.expect_end(false),
            Heard::Reset => peer.expect_end(true),
            Heard::Nothing => {
                peer.catch_up()?;
                peer.unexpected().map_or(Ok(()), Err)
            }
            Heard::Value(Kind::Raw, value) => peer.expect_raw(&value.filled(found)?),
            Heard::Value(..) | Heard::Close(..) | Heard::Answer(..) | Heard::Cut => {
                let item = peer.next()?;
                compare(what, &item, found).map_err(|failure| format!("{failure}: {}", item.shown()))
            }
        }
    }

    /// Nothing may come that nobody has heard.
    fn end(mut self) -> Result<(), String> {
        if self.is_stopping {
            let status = self.server.wait_for_exit();
            if !status.success() {
                return Err(format!("the server ended with {status}"));
            }
        }
        // Twice: what one has said at last may still be on its way to another when that one's turn comes first.
        for _ in 0..2 {
            self.peers.values_mut().try_for_each(Peer::catch_up)?;
        }
        let mut unfinished =
            self.peers.iter().filter_map(|(who, peer)| Some(format!("{who}: {}", peer.unfinished()?)));
        unfinished.next().map_or(Ok(()), Err)
    }
}

/// Compares what came with what was said to come.
fn compare(what: &Heard, item: &Item, found: &mut Found) -> Result<(), String> {
    match (what, item) {
        (Heard::Value(Kind::Text, value), Item::Text(bytes)) => value.matches(bytes, found),
        (Heard::Value(Kind::Binary, value), Item::Binary(bytes)) => value.matches(bytes, found),
        (Heard::Close(None, _), Item::Close(None)) | (Heard::Cut, Item::Cut) => Ok(()),
        (Heard::Close(Some(code), reason), Item::Close(Some((got, why)))) if code == got && reason == why => {
            Ok(())
        }
        (Heard::Answer(status, body), Item::Answer(got, bytes)) if status == got => match body {
            Body::Any => Ok(()),
            Body::Whole(value) => value.matches(bytes, found),
            Body::Contains(part) if String::from_utf8_lossy(bytes).contains(part) => Ok(()),
            Body::Contains(_) => Err("is not in what came".into()),
        },
        _ => Err("is not what came".into()),
    }
}

fn text(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| error.to_string())
}
