//! Who knows whom, and whether all has arrived.

use std::collections::HashSet;
use std::time::Instant;

use serde::Deserialize;

use super::super::MEMBERS;
use super::super::violation::Violation;
use super::session::{Session, Stream};
use super::{AGAIN, DropKind, Judge, Turn, UNIQUE};

#[derive(Deserialize)]
struct Page {
    clients: Vec<String>,
}

impl Judge {
    /// All that are there for certain, nobody who never was, in the order of their logins, oneself last.
    pub(super) fn check_list(
        &mut self,
        own: &str,
        asked_at: u64,
        clients: &[String],
        turn: &Turn<'_>,
    ) -> Result<(), Violation> {
        let wrong =
            |how: String| Err(Violation::WrongPresence { how: format!("login_success of {own}: {how}") });
        let is_last = clients.last().is_some_and(|last| last == own);
        if !is_last && (self.is_ordered || !clients.iter().any(|client| client == own)) {
            return wrong("it does not end with its own name".to_owned());
        }
        let mut asked_before = 0;
        let mut seen = HashSet::new();
        for client in clients {
            if !seen.insert(client.as_str()) {
                return Err(Violation::AnnouncedTwice { who: client.clone() });
            }
            // A name that several sessions had, or that is being asked for, has no certain time.
            let mut times = self.holders(client).map(|(_, session)| session.login.times());
            let (Some(times), None) = (times.next(), times.next()) else {
                if self.holders(client).next().is_none() {
                    return Err(Violation::Stranger { from: client.clone() });
                }
                continue;
            };
            let (asked_at, since) = times;
            if self.is_ordered && since < asked_before {
                return wrong(format!("{client} logged in before the one in front of it"));
            }
            asked_before = asked_before.max(asked_at);
        }
        let missing = self.live().filter_map(|(_, session)| Some((session.name()?, session.login.times().1)));
        let missing = missing.filter(|(name, since)| *since < asked_at && !seen.contains(name));
        let missing: Vec<String> = missing.map(|(name, _)| name.to_owned()).collect();
        for name in missing {
            if self.check_gone(&name, turn).is_err() {
                return wrong(format!("{name} is missing"));
            }
        }
        Ok(())
    }

    pub(super) fn check_streams(&self, number: u32, session: &Session) -> Result<(), Violation> {
        for (target, stream) in &session.streams {
            let receiver = self.holders(target).next().map(|(_, receiver)| receiver);
            let Stream { sent, refused, arrived, to_nobody } = *stream;
            let good = match receiver {
                None => refused == sent,
                Some(receiver) if receiver.is_live() => arrived == sent,
                Some(_) => arrived + refused <= sent && refused >= to_nobody,
            };
            if !good {
                let room = format!("connection {number:08x} for {target} ({refused} refused)");
                return Err(Violation::NotArrived { room, sent, arrived });
            }
        }
        Ok(())
    }

    /// All broadcasts since two know of each other have arrived.
    pub(super) fn check_broadcasts(&self, number: u32, session: &Session) -> Result<(), Violation> {
        let own = session.name().unwrap_or_default();
        for (other, receiver) in self.live().filter(|(other, _)| *other != number) {
            let (Some(view), Some(peer)) =
                (session.view.get(receiver.name().unwrap_or_default()), receiver.view.get(own))
            else {
                continue;
            };
            let heard = peer.broadcast_due.map_or(view.broadcasts_then, |(_, due)| due);
            // The one without a label before the first with one may have been heard without being known.
            if heard + u32::from(peer.broadcast_due.is_none()) < session.broadcasts {
                let room = format!("the broadcasts of connection {number:08x} to {other:08x}");
                return Err(Violation::NotArrived { room, sent: session.broadcasts, arrived: heard });
            }
        }
        Ok(())
    }

    /// Nobody's list has a name any more whose holders died before this.
    pub(super) fn check_forgotten(&self, died_before: Instant) -> Result<(), Violation> {
        let died = |session: &Session| {
            session.gone.is_some_and(|gone| {
                gone.kind == DropKind::HostDied
                    && gone.ended_at.is_some_and(|ended_at| ended_at < died_before)
            })
        };
        for (number, session) in self.live() {
            let all_died = |name: &&String| self.holders(name).all(|(_, holder)| died(holder));
            if let Some(dead) = session.view.keys().find(all_died) {
                let (whose, dead) = (format!("connection {number:08x}"), dead.clone());
                return Err(Violation::NotTold { whose, dead });
            }
        }
        Ok(())
    }

    /// Somebody one has been told of, whose name nobody else ever has; at times oneself.
    pub(super) fn target(&self, number: u32) -> Option<String> {
        let view = &self.sessions[&number].view;
        let skip = self.chance.below(view.len().max(1) as u32) as usize;
        let names = view.keys().cycle().skip(skip).take(view.len());
        names.into_iter().find(|name| name.starts_with(UNIQUE)).cloned()
    }

    /// Somebody is told that nobody has this name; an error where somebody has it for certain. The host of that one may
    /// have stopped, which is seen later.
    pub(super) fn check_gone(&mut self, name: &str, turn: &Turn<'_>) -> Result<(), Violation> {
        let live = self.holders(name).filter(|(_, session)| session.is_live());
        let live: Vec<u32> = live.map(|(number, _)| number).collect();
        if !live.is_empty() && turn.told_within.is_none() {
            return Err(Violation::StillThere { who: name.to_owned() });
        }
        live.into_iter().for_each(|number| self.claims.note(turn.now, number));
        Ok(())
    }

    pub(super) fn still_there(&self, number: u32) -> Violation {
        let name = self.sessions[&number].name().unwrap_or_default();
        Violation::StillThere { who: format!("{name} (connection {number:08x})") }
    }

    /// A name that somebody has and others may have later.
    pub(super) fn somebody(&self) -> Option<String> {
        let names = self.live().filter_map(|(_, session)| session.name());
        let names: Vec<_> = names.filter(|name| name.starts_with(AGAIN)).collect();
        names.get(self.chance.below(names.len().max(1) as u32) as usize).map(|name| (*name).to_owned())
    }

    /// A name that nobody has since a host died, beginning like this.
    pub(super) fn dead(&self, kind: &str) -> Option<String> {
        let dead = |session: &&Session| {
            session.gone.is_some_and(|gone| gone.kind == DropKind::HostDied)
                && session.name().is_some_and(|name| {
                    name.starts_with(kind) && !self.holders(name).any(|(_, holder)| holder.gone.is_none())
                })
        };
        let dead: Vec<_> = self.sessions.values().filter(dead).filter_map(Session::name).collect();
        dead.get(self.chance.below(dead.len().max(1) as u32) as usize).map(|name| (*name).to_owned())
    }

    /// A name that nobody has: one that never was, or a dead one's that one was told to be gone.
    pub(super) fn bogus_target(&self, number: u32) -> String {
        let dead = if self.chance.below(2) == 0 { self.dead(UNIQUE) } else { None };
        let dead = dead.filter(|name| !self.sessions[&number].view.contains_key(name));
        dead.unwrap_or_else(|| format!("nobody-{number}"))
    }

    /// Each server lists those that are logged in on it; one may also list all.
    pub(super) fn check_pages(&self, pages: &[Option<&str>]) -> Result<(), Violation> {
        let all = sorted(self.live().filter_map(|(_, session)| session.name()));
        let several = self.placing.hosts() > 1;
        for (host, page) in pages.iter().enumerate() {
            if page.is_none() && several {
                continue;
            }
            let page: Page = serde_json::from_str(page.unwrap_or_default())
                .map_err(|error| Violation::Unknown { came: format!("GET /clients: {error}") })?;
            let is = sorted(page.clients.iter().map(String::as_str));
            let on_host = |session: &Session| self.placing.host(session.index, MEMBERS) == host;
            let own = self.live().filter(|(_, session)| on_host(session));
            let due = sorted(own.filter_map(|(_, session)| session.name()));
            if is != due && is != all {
                return Err(wrong_list(format!("server {}", host + 1), &is, &due));
            }
        }
        Ok(())
    }

    /// Everybody knows exactly those that are there, all in the same order.
    pub(super) fn check_lists(&self) -> Result<(), Violation> {
        let due = sorted(self.live().filter_map(|(_, session)| session.name()));
        let mut order: Option<Vec<String>> = None;
        for (number, session) in self.live() {
            let list = session.list();
            let is = sorted(list.iter().map(String::as_str));
            if is != due {
                return Err(wrong_list(format!("connection {number:08x}"), &is, &due));
            }
            let known = order.get_or_insert_with(|| list.clone());
            if self.is_ordered && *known != list {
                return Err(wrong_list(format!("connection {number:08x}"), &list, known));
            }
        }
        Ok(())
    }
}

fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<_> = names.map(str::to_owned).collect();
    names.sort();
    names
}

fn wrong_list(whose: String, is: &[String], due: &[String]) -> Violation {
    let (is, due) = (format!("{} names {is:?}", is.len()), format!("{} names {due:?}", due.len()));
    Violation::WrongList { whose, is, due }
}
