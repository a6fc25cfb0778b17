//! The directory over several hosts: one name space and one list, and Redis' order is everybody's (protocols.md sections 3
//! and 6).
//!
//! `parlor:directory` is a hash of names, each with its place in the list and its client's id. `parlor:directory:sequence`
//! counts what changes, and each change is published in the channel `parlor:directory` with its number. A login or logout
//! is one script. What is published is applied number by number; where one is missing, and whenever it may be, the whole
//! list is read and what differs is told. Meanwhile what comes waits.
//!
//! The home shard sees those of this host and of the hosts that there is a relation to. What hosts write to each other for
//! the directory comes here first: both come over one connection in Redis' order, so nothing of a peer overtakes its coming
//! or its going.
//!
//! A name that is missing in Redis is asked for again for as long as its client is there. A host that logs nobody in asks
//! for nothing and hears nothing.

mod list;
mod mail;
mod own;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::desk::{Awaited as AnyAwaited, Desk, Maker};
use super::hosts::Why;
use super::{Command, FromCluster, Letter as AnyLetter, Reply, Script};
use crate::id::{ClientId, HostId, ShardIndex};
use crate::limits::{
    DIRECTORY_DOUBT_MS, DIRECTORY_PAUSE_MS, DIRECTORY_WAITING_BYTES_MAX, DIRECTORY_WAITING_MAX,
};
use crate::protocol::lobby;
pub use list::Entry;
use list::{Change, List};
pub use mail::{Letter, News, Request};
pub(super) use mail::{put, take};
use own::Own;

/// The hash, and the channel.
const LIST: &[u8] = b"parlor:directory";
const SEQUENCE: &[u8] = b"parlor:directory:sequence";

/// KEYS of all: the hash, the counter. ARGV: a client's id, its name. Returns nothing that matters.
static LOGOUT: Script = Script { source: include_str!("scripts/directory_logout.lua") };
/// Returns names and entries in turn, and the counter.
static NAMES: Script = Script { source: include_str!("scripts/directory_list.lua") };

/// What a reply is awaited for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Awaited {
    /// A name for a client of ours.
    Login(ClientId),
    /// The whole list. Of several the last one counts.
    List(u64),
}

/// What comes while the list is read.
#[derive(Debug)]
enum Waiting {
    Change(Change),
    Letter(HostId, Letter),
}

/// This host's replica of the list, and its clients that are to be in it.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// Somebody has logged in here.
    is_awake: bool,
    list: List,
    /// The number of the last change that is in the list.
    applied: u64,
    /// The number of the last change that was published over the subscription that there is.
    published: u64,
    /// All changes up to `applied` are in the list. Otherwise it is to be read.
    is_current: bool,
    /// Which reading of the list counts, when it was asked for, and whether there is no answer yet.
    reading: u64,
    read_ms: u64,
    is_reading: bool,
    /// What the list is behind of, if that does not come, and since when it is known.
    promised: Option<(u64, u64)>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    own: Own,
    /// Whom the home shard was told of. Names are never in it twice.
    shown: BTreeMap<ClientId, Entry>,
    shown_names: BTreeMap<Arc<str>, ClientId>,
    /// Those of them whom Redis has lost; their hosts put them back.
    doubted: BTreeSet<ClientId>,
    /// What hosts that are gone have left was removed since the list was last read.
    is_swept: bool,
}

impl Directory {
    /// A shard asks for something.
    pub(super) fn handle_request(&mut self, _from: ShardIndex, request: Request, desk: &mut Desk) {
        match request {
            Request::Login { client, name } => {
                if !std::mem::replace(&mut self.is_awake, true) {
                    desk.subscribe(LIST.to_vec());
                }
                self.own.add(client, name, desk);
            }
            Request::Logout(client) => {
                self.hide(client);
                if let Some(name) = self.own.remove(client) {
                    // What it has said before comes before.
                    desk.send_drafts();
                    log_out(client, &name, desk);
                }
            }
        }
    }

    /// Redis has answered, or has not ([`Reply::Failed`]).
    pub(super) fn handle_reply(&mut self, awaited: Awaited, reply: &Reply, desk: &mut Desk) {
        match awaited {
            Awaited::Login(client) => self.handle_login_reply(client, reply, desk),
            Awaited::List(reading) if reading == self.reading => {
                self.is_reading = false;
                if let Reply::List(items) = reply
                    && let Some((list, sequence)) = List::parse(items)
                {
                    self.replace(list, sequence, desk);
                }
            }
            Awaited::List(_) => {}
        }
    }

    /// A channel is subscribed, for the first time or again.
    pub(super) fn handle_subscribed(&mut self, channel: &[u8], desk: &mut Desk) {
        if channel == LIST {
            self.published = 0;
            // What was published before may have been by a Redis that has lost it.
            self.waiting.retain(|waiting| !matches!(waiting, Waiting::Change(_)));
            self.read(desk);
        }
    }

    /// Something was published in a channel. False: it is none of ours.
    pub(super) fn handle_push(&mut self, channel: &[u8], payload: &[u8], desk: &mut Desk) -> bool {
        if channel != LIST {
            return false;
        }
        let Some(change) = Change::parse(payload) else {
            desk.metrics.counters.messages_refused.add(1);
            return true;
        };
        let has_restarted = change.entry.sequence <= self.published;
        self.published = change.entry.sequence;
        if has_restarted {
            // Redis counts anew: it has lost everything without having been away.
            self.fall_behind(desk);
        }
        if self.is_current {
            self.apply(change, desk);
        } else {
            self.wait(Waiting::Change(change), desk);
        }
        true
    }

    /// Another host's shard has written to those of this host.
    pub(super) fn handle_letter(&mut self, from: HostId, letter: Letter, desk: &mut Desk) {
        let is_for_here = letter.to.is_none_or(|to| to.host() == desk.me);
        if letter.from.host() != from || !is_for_here || !self.is_awake {
            // There it is counted.
            desk.mail(lobby::home(desk.shards), FromCluster::Letter(from, AnyLetter::Directory(letter)));
        } else if self.is_current {
            self.deliver(letter, desk);
        } else {
            self.wait(Waiting::Letter(from, letter), desk);
        }
    }

    /// A relation to another host has begun.
    pub(super) fn handle_host_found(&mut self, host: HostId, desk: &mut Desk) {
        if self.is_current {
            let entries = self.list.of_host(host);
            self.show(entries, desk);
        }
    }

    /// A relation to another host has ended. It may begin again; after [`Why::is_final`] it will not.
    pub(super) fn handle_host_gone(&mut self, host: HostId, why: Why, desk: &mut Desk) {
        // The shard takes leave of them by itself.
        self.shown_names.retain(|_, client| client.host() != host);
        self.shown.retain(|client, _| client.host() != host);
        self.doubted.retain(|client| client.host() != host);
        self.waiting.retain(|waiting| !matches!(waiting, Waiting::Letter(from, _) if *from == host));
        self.waiting_bytes = self.waiting.iter().map(Waiting::len).sum();
        if why.is_final() {
            for entry in self.list.of_host(host) {
                log_out(entry.client, &entry.name, desk);
            }
        }
    }

    /// Redis can be worked with from now on ([`Desk::is_up`]). It may be another one than before, or empty.
    pub(super) fn handle_up(&mut self, desk: &mut Desk) {
        if self.is_awake {
            self.read(desk);
        }
    }

    /// Redis cannot be worked with. What it was asked has failed, or will.
    pub(super) fn handle_down(&mut self, _desk: &mut Desk) {
        self.is_current = false;
    }

    /// Time has passed.
    pub(super) fn handle_tick(&mut self, desk: &mut Desk) {
        if !self.is_awake {
            return;
        }
        for client in self.own.poll_late(desk.now_ms) {
            self.drop_shown(client, News::Busy(client), desk);
        }
        let is_overdue = |(sequence, since_ms): (u64, u64)| {
            self.applied < sequence && desk.now_ms.saturating_sub(since_ms) >= DIRECTORY_PAUSE_MS
        };
        if self.is_current && self.promised.take_if(|promised| is_overdue(*promised)).is_some() {
            self.is_current = false;
        }
        if !self.is_current {
            return self.read_again(desk);
        }
        self.own.ask_again(desk);
        if desk.now_ms.saturating_sub(self.read_ms) >= DIRECTORY_DOUBT_MS {
            for client in std::mem::take(&mut self.doubted) {
                self.drop_shown(client, News::Went(client), desk);
            }
        }
        if !self.is_swept && desk.hosts.hears_all() {
            self.sweep(desk);
        }
    }

    /// Whether somebody may have a name, and who has it instead.
    fn handle_login_reply(&mut self, client: ClientId, reply: &Reply, desk: &mut Desk) {
        if !self.own.handle_answered(client) {
            return;
        }
        match reply {
            Reply::Integer(sequence) => {
                let sequence = u64::try_from(*sequence).unwrap_or(0);
                if self.applied < sequence && self.promised.is_none_or(|(before, _)| before < sequence) {
                    self.promised = Some((sequence, desk.now_ms));
                }
            }
            Reply::Bytes(holder) => match ClientId::parse(holder) {
                Some(id) if !self.is_left_over(id, desk) => {
                    // A host that nobody knows yet may be gone since long ago.
                    if id.host() == desk.me || desk.hosts.is_known(id.host()) || desk.hosts.hears_all() {
                        self.drop_shown(client, News::Refused(client), desk);
                    }
                }
                _ => self.own.ask_in_place_of(client, holder, desk),
            },
            Reply::Done | Reply::List(_) | Reply::Nil | Reply::Failed => {}
        }
    }

    /// Whether an entry's client is gone for good, so that its name is nobody's.
    fn is_left_over(&self, client: ClientId, desk: &Desk) -> bool {
        match desk.maker(client) {
            Maker::Here => !self.own.has(client),
            Maker::Gone(_) => true,
            // It was on no roll for longer than any host is remembered.
            Maker::Foreign => desk.hosts.hears_all(),
            Maker::Neighbour(_) | Maker::Unreached(_) => false,
        }
    }

    /// Removes what hosts have left that are gone.
    fn sweep(&mut self, desk: &mut Desk) {
        self.is_swept = true;
        let is_left_over = |entry: &&Entry| self.is_left_over(entry.client, desk);
        let left_over: Vec<Entry> = self.list.entries().filter(is_left_over).cloned().collect();
        for entry in left_over {
            log_out(entry.client, &entry.name, desk);
        }
    }

    /// Something may be missing in the list.
    fn fall_behind(&mut self, desk: &mut Desk) {
        self.is_current = false;
        self.read_again(desk);
    }

    /// Reads the list, unless that was done a moment ago or is under way.
    fn read_again(&mut self, desk: &mut Desk) {
        if !self.is_reading && desk.now_ms.saturating_sub(self.read_ms) >= DIRECTORY_PAUSE_MS {
            self.read(desk);
        }
    }

    /// Reads the list. An answer to what was asked before counts no longer.
    fn read(&mut self, desk: &mut Desk) {
        self.is_current = false;
        if !desk.is_up {
            return;
        }
        self.reading += 1;
        (self.is_reading, self.read_ms) = (true, desk.now_ms);
        let command = Command::Run { script: &NAMES, keys: keys(), arguments: Vec::new() };
        desk.ask(AnyAwaited::Directory(Awaited::List(self.reading)), command);
    }

    /// The list as Redis has it: what differs is told, then what has waited is handled.
    fn replace(&mut self, list: List, sequence: u64, desk: &mut Desk) {
        let has_lost = sequence < self.applied;
        (self.list, self.applied, self.is_current, self.is_swept) = (list, sequence, true, false);
        self.promised = None;
        for Entry { client, name, .. } in self.shown.values().cloned().collect::<Vec<_>>() {
            if self.list.find_of(&name, client).is_some() {
                continue;
            }
            if client.host() == desk.me {
                self.own.mark_missing(client);
            } else if has_lost {
                self.doubted.insert(client);
            } else {
                self.drop_shown(client, News::Went(client), desk);
            }
        }
        let entries = self.list.entries().filter(|entry| self.is_visible(entry, desk)).cloned().collect();
        self.show(entries, desk);
        let me = desk.me;
        let is_ours = |entry: &&Entry| entry.client.host() == me;
        for entry in self.list.entries().filter(is_ours).filter(|entry| !self.own.has(entry.client)) {
            log_out(entry.client, &entry.name, desk);
        }
        self.own.ask_again(desk);
        self.handle_waiting(desk);
    }

    fn handle_waiting(&mut self, desk: &mut Desk) {
        while self.is_current
            && let Some(waiting) = self.waiting.pop_front()
        {
            self.waiting_bytes -= waiting.len();
            match waiting {
                // What is missing although the list was just read, may never come.
                Waiting::Change(change) if change.entry.sequence - 1 > self.applied => {
                    self.promised = Some((change.entry.sequence, desk.now_ms));
                }
                Waiting::Change(change) => self.apply(change, desk),
                Waiting::Letter(_, letter) => self.deliver(letter, desk),
            }
        }
    }

    fn wait(&mut self, waiting: Waiting, desk: &mut Desk) {
        let bytes = self.waiting_bytes + waiting.len();
        if self.waiting.len() < DIRECTORY_WAITING_MAX && bytes <= DIRECTORY_WAITING_BYTES_MAX {
            self.waiting_bytes = bytes;
            return self.waiting.push_back(waiting);
        }
        // A change that is missing is noticed by its number.
        if let Waiting::Letter(from, _) = waiting
            && let Some(relation) = desk.hosts.relation(from)
        {
            desk.hosts.handle_unpublished(from, relation, desk.now_ms);
        }
    }

    /// A change that is the next one counts. One that was in the list when it was read does not.
    fn apply(&mut self, change: Change, desk: &mut Desk) {
        let sequence = change.entry.sequence;
        if sequence <= self.applied {
            return;
        }
        if sequence - 1 > self.applied {
            self.fall_behind(desk);
            return self.wait(Waiting::Change(change), desk);
        }
        self.applied = sequence;
        let Change { entry, comes } = change;
        if comes {
            self.come(entry, desk);
        } else if self.list.find_of(&entry.name, entry.client).is_some() {
            self.list.remove(&entry.name);
            self.go(&entry, desk);
        }
    }

    fn come(&mut self, entry: Entry, desk: &mut Desk) {
        if !self.list.insert(entry.clone()) {
            return;
        }
        if self.is_visible(&entry, desk) {
            self.show(vec![entry], desk);
        } else if entry.client.host() == desk.me {
            // It has left meanwhile.
            log_out(entry.client, &entry.name, desk);
        }
    }

    fn go(&mut self, entry: &Entry, desk: &mut Desk) {
        if self.own.has(entry.client) {
            // Others took this host for gone.
            self.own.mark_missing(entry.client);
            self.own.ask_again(desk);
        } else if self.hide(entry.client) {
            self.tell(News::Went(entry.client), desk);
        }
    }

    /// Whether the clients of this host are to see an entry.
    fn is_visible(&self, entry: &Entry, desk: &Desk) -> bool {
        match desk.maker(entry.client) {
            Maker::Here => self.own.wants(entry.client, &entry.name),
            // One client has one name.
            Maker::Neighbour(_) => self.shown.get(&entry.client).is_none_or(|shown| shown.name == entry.name),
            Maker::Unreached(_) | Maker::Gone(_) | Maker::Foreign => false,
        }
    }

    /// Tells the home shard of entries that it does not know like this.
    fn show(&mut self, mut entries: Vec<Entry>, desk: &mut Desk) {
        for entry in &entries {
            self.own.mark_present(entry.client);
            self.doubted.remove(&entry.client);
        }
        entries.retain(|entry| self.shown.get(&entry.client) != Some(entry));
        for entry in &entries {
            let holder = self.shown_names.get(&entry.name).copied().filter(|holder| *holder != entry.client);
            if let Some(holder) = holder {
                let news = if self.own.has(holder) { News::Refused(holder) } else { News::Went(holder) };
                self.drop_shown(holder, news, desk);
            }
            self.shown.insert(entry.client, entry.clone());
            self.shown_names.insert(entry.name.clone(), entry.client);
        }
        if !entries.is_empty() {
            self.tell(News::Came(entries), desk);
        }
    }

    /// Says whether it was shown.
    fn hide(&mut self, client: ClientId) -> bool {
        self.doubted.remove(&client);
        let shown = self.shown.remove(&client);
        shown.is_some_and(|entry| self.shown_names.remove(&entry.name).is_some())
    }

    /// A client, of ours or not, is in the list no longer, or will not be; the shard is told why.
    fn drop_shown(&mut self, client: ClientId, news: News, desk: &mut Desk) {
        self.hide(client);
        if let Some(name) = self.own.remove(client) {
            log_out(client, &name, desk);
        }
        self.tell(news, desk);
    }

    /// A frame from a peer. The shard knows whether it is there.
    fn deliver(&self, letter: Letter, desk: &mut Desk) {
        let Letter { from, to, frame } = letter;
        self.tell(News::Frame { from, to, frame }, desk);
    }

    fn tell(&self, news: News, desk: &mut Desk) {
        desk.mail(lobby::home(desk.shards), FromCluster::Directory(news));
    }
}

impl Waiting {
    fn len(&self) -> usize {
        match self {
            Self::Change(_) => 0,
            Self::Letter(_, letter) => letter.len(),
        }
    }
}

fn keys() -> Vec<Vec<u8>> {
    vec![LIST.to_vec(), SEQUENCE.to_vec()]
}

/// Takes a name from a client, if it has it.
fn log_out(client: ClientId, name: &str, desk: &mut Desk) {
    let arguments = vec![client.text().to_vec(), name.as_bytes().to_vec()];
    desk.command(Command::Run { script: &LOGOUT, keys: keys(), arguments });
}

#[cfg(test)]
mod tests;
