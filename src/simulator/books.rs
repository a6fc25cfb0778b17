//! The books of all dialects but pairing: what a step of a shard means in them.

use super::connection::{Connection, Voice};
use super::ledger::{Meaning, Said, What, Word};
use super::scene::Scene;
use super::{introductions, lobby, pipes, rendezvous};
use crate::limits::PAUSED_MESSAGES_FACTOR;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) rendezvous: rendezvous::Book,
    pub(super) lobby: lobby::Book,
    pub(super) introductions: introductions::Book,
    pub(super) pipes: pipes::Book,
}

/// The window of clients that are paused when they say too much, in milliseconds.
pub(super) const PAUSE_WINDOW_MS: u32 = 1_000;

impl Books {
    /// Whether the server handles what a client says next, or does not go on with it before its window ends.
    pub(super) fn may_handle(scene: &mut Scene<'_>, me: usize, said: &Said) -> bool {
        let client = &mut scene.connections[me];
        let is_paused_for_rate = match &client.voice {
            Voice::Lobby(client) => client.is_paused_for_rate(),
            Voice::Introductions(_) => true,
            Voice::Pairing(_) | Voice::Rendezvous(_) | Voice::Pipe(_) => false,
        };
        if !is_paused_for_rate || !matches!(said, Said::Word(_)) {
            return true;
        }
        let max = scene.settings.limits.messages_per_second_max.saturating_mul(PAUSED_MESSAGES_FACTOR);
        client.ledger.window.allows(scene.now_ms, PAUSE_WINDOW_MS, max)
    }

    /// The server has handled this.
    pub(super) fn read(&mut self, scene: &mut Scene<'_>, me: usize, said: Said) {
        match said {
            Said::Upgrade => self.enter(scene, me),
            Said::Ping(payload) if scene.connections[me].is_pipe() => pipes::expect_pong(scene, me, payload),
            Said::Ping(payload) => scene.expect_what(me, What::Pong(payload), Meaning::Nothing, 0),
            Said::Close(code) => scene.stop(me, code, Some("")),
            Said::Violation(code) => scene.connections[me].ledger.violation = Some(code),
            Said::Word(Word::Rendezvous(word)) => self.rendezvous.read(scene, me, word),
            Said::Word(Word::Lobby(word)) => self.lobby.read(scene, me, word),
            Said::Word(Word::Introductions(word)) => self.introductions.read(scene, me, word),
            Said::Word(Word::Pairing(_)) => {}
        }
    }

    /// Others hear that a client is not in its dialect any more. `leavers`: all who left in this step, in whatever
    /// order.
    pub(super) fn tell_of_leave(&self, scene: &mut Scene<'_>, me: usize, leavers: &[usize]) {
        match scene.connections[me].voice {
            Voice::Rendezvous(_) => self.rendezvous.tell_of_leave(scene, me, leavers),
            Voice::Lobby(_) => self.lobby.directory.tell_of_leave(scene, me, leavers),
            Voice::Pipe(_) => pipes::tell_of_leave(scene, me, leavers),
            Voice::Introductions(_) | Voice::Pairing(_) => {}
        }
    }

    /// A client is not in its dialect any more.
    pub(super) fn leave(&mut self, scene: &mut Scene<'_>, me: usize) {
        match scene.connections[me].voice {
            Voice::Rendezvous(_) => self.rendezvous.leave(me),
            Voice::Lobby(_) => self.lobby.leave(scene, me),
            Voice::Introductions(_) => self.introductions.leave(me),
            Voice::Pipe(_) => self.pipes.leave(me),
            Voice::Pairing(_) => {}
        }
    }

    /// A shard was told the time.
    pub(super) fn pass_time(&mut self, scene: &mut Scene<'_>, shard: usize) {
        self.lobby.rooms.pass_time(scene, shard);
        self.pipes.pass_time(scene, shard);
    }

    /// Completes a pipe's URL that names but one id, as the introductions' home does; nothing if it is complete.
    pub(super) fn complete(&self, scene: &mut Scene<'_>, me: usize) {
        let Some(pipes::Origin::Short(remote)) = scene.pipe(me).map(|end| end.origin) else { return };
        match self.introductions.partner_of(remote) {
            introductions::Partner::Nobody => {
                scene.stop(me, Some(1003), Some("use ?local= and ?document="));
            }
            introductions::Partner::One(local, document) => {
                scene.summary.pipes_completed += 1;
                if let Some(end) = scene.pipe(me) {
                    end.complete(local, document);
                }
            }
            introductions::Partner::Uncertain => super::checks::give_up("an introduction may have been made"),
        }
    }

    /// The shard that introductions live on, as far as somebody is there.
    pub(super) fn introductions_home(&self, connections: &[Connection]) -> Option<usize> {
        self.introductions.clients().next().map(|index| connections[index].shard)
    }

    fn enter(&mut self, scene: &mut Scene<'_>, me: usize) {
        self.complete(scene, me);
        let ledger = &mut scene.connections[me].ledger;
        if ledger.has_stopped {
            return;
        }
        ledger.is_in = true;
        match scene.connections[me].voice {
            Voice::Rendezvous(_) => self.rendezvous.enter(scene, me),
            Voice::Introductions(_) => self.introductions.enter(scene, me),
            Voice::Pipe(_) => self.pipes.enter(scene, me),
            Voice::Lobby(_) | Voice::Pairing(_) => {}
        }
    }
}

/// What holds of an open client when all is at rest.
pub(super) fn check_at_rest(books: &Books, connections: &[Connection], me: usize) {
    if let Some(expected) = connections[me].ledger.next_expected() {
        super::checks::fail(format!("client {me} never heard {expected:?}"));
    }
    match &connections[me].voice {
        Voice::Rendezvous(client) => books.rendezvous.check_at_rest(client),
        Voice::Lobby(client) => books.lobby.directory.check_at_rest(client),
        Voice::Pipe(_) => pipes::check_at_rest(connections, me),
        Voice::Introductions(_) | Voice::Pairing(_) => {}
    }
}
