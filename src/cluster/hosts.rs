//! Who is there, and whether what two hosts say to each other arrives: heartbeats, relations, and their end.
//!
//! Publishing in Redis loses what nobody listens to at the moment. So two hosts are in a **relation**, which both
//! count, and mail with letters is numbered in it. Whatever may have been lost ends the relation on both sides, as if
//! all clients of the other host had left, and a new one begins: nothing of the old one counts in it.
//!
//! ```text
//!    A                                      B
//!    │ ── mine 5, yours 0, answer! ───────► │   B learns 5
//!    │ ◄─────── mine 8, yours 5, answer! ── │
//!  found                                    │
//!    │ ── mine 5, yours 8 ────────────────► │
//!    │                                    found
//!    │ ── mine 5, yours 8, sequence 0, … ─► │
//! ```
//!
//! A number is never used twice. Mail counts if both numbers are those that the receiver knows and its sequence is the
//! next one. A higher number of the other's says that it has ended the relation; a sequence that is too high, that mail
//! was lost. When nothing follows, the next second's mark (mail without letters) shows what is missing. A mark may be lost,
//! too, and is repeated every [`HOST_MARK_MS`](crate::limits::HOST_MARK_MS).
//!
//! A host is dead when it was not heard for [`HOST_SILENCE_MS`] during which our own heartbeats came back. Without our
//! own, Redis is gone and not the others, and nobody is judged.

mod event;
mod peer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::codec::{Header, Heartbeat, Sender};
use crate::id::HostId;
use crate::limits::{
    HOST_ANSWER_MS, HOST_HEARTBEAT_MS, HOST_PATH_GAP_MS, HOST_PAUSE_MS, HOST_PROOF_MS, HOST_SILENCE_MS,
    HOST_WEDGED_MS, HOSTS_MAX,
};
use crate::plant::{Plant, Planted};
pub use event::{Event, Relation, Why};
use peer::Peer;

/// A later start under the same id uses none of the numbers of an earlier one: a start number is a time in milliseconds,
/// and nobody begins a million relations in one.
const NUMBERS_PER_START_BITS: u32 = 20;

/// All hosts, as this one sees them. Time is in milliseconds since the start.
#[derive(Debug)]
pub struct Hosts {
    me: Sender,
    peers: BTreeMap<HostId, Peer>,
    next_number: u64,
    /// How many peers are found.
    found: usize,
    is_publishing: bool,
    /// To the heartbeats and to our own channel.
    is_subscribed: bool,
    is_leaving: bool,
    now_ms: u64,
    /// Since when both directions seem to be there.
    up_ms: u64,
    /// When our own heartbeat last came back.
    returned_ms: Option<u64>,
    /// Since when they have come back without a gap.
    path_since_ms: u64,
    beats: u64,
    beat_ms: u64,
    /// Who speaks another version.
    refused: BTreeSet<HostId>,
    is_crowded: bool,
    has_twin: bool,
    events: VecDeque<Event>,
    planted: Planted,
}

impl Hosts {
    /// Nobody is known yet, and nothing connected.
    #[must_use]
    pub fn new(me: Sender, planted: Planted, now_ms: u64) -> Self {
        Self {
            me,
            peers: BTreeMap::new(),
            next_number: (me.start << NUMBERS_PER_START_BITS) + 1,
            found: 0,
            is_publishing: false,
            is_subscribed: false,
            is_leaving: false,
            now_ms,
            up_ms: now_ms,
            returned_ms: None,
            path_since_ms: now_ms,
            beats: 0,
            beat_ms: now_ms,
            refused: BTreeSet::new(),
            is_crowded: false,
            has_twin: false,
            events: VecDeque::new(),
            planted,
        }
    }

    /// What we publish gets to Redis from now on, or does not.
    pub fn handle_publishing(&mut self, is_publishing: bool, now_ms: u64) {
        self.advance(now_ms);
        self.is_publishing = is_publishing;
        self.come_up();
    }

    /// The heartbeats and our own channel are subscribed.
    pub fn handle_subscribed(&mut self, now_ms: u64) {
        self.advance(now_ms);
        self.is_subscribed = true;
        self.come_up();
    }

    /// The subscriptions are lost.
    pub fn handle_unsubscribed(&mut self, now_ms: u64) {
        self.advance(now_ms);
        if self.is_subscribed {
            self.lose_subscriptions();
        }
    }

    /// So late is it: who stood still takes note of it before anything else.
    pub fn handle_time(&mut self, now_ms: u64) {
        self.advance(now_ms);
    }

    /// Time has passed. Called several times a second.
    pub fn handle_tick(&mut self, now_ms: u64) {
        self.advance(now_ms);
        let may_beat = self.is_leaving || (self.is_publishing && self.is_subscribed);
        if may_beat && self.since(self.beat_ms) >= HOST_HEARTBEAT_MS {
            self.beat();
        }
        if self.is_leaving || !self.is_subscribed {
            return;
        }
        let quiet_since = self.returned_ms.unwrap_or(0).max(self.up_ms);
        if self.is_publishing && self.since(quiet_since) >= HOST_WEDGED_MS {
            self.lose_subscriptions();
            return self.events.push_back(Event::Resubscribe);
        }
        let is_due = |peer: &Peer| now_ms.saturating_sub(peer.told_ms) >= peer.mark_after_ms();
        self.tell_all(is_due);
    }

    /// A heartbeat has come, of whatever host.
    pub fn handle_heartbeat(&mut self, heartbeat: &Heartbeat, now_ms: u64) {
        self.advance(now_ms);
        let sender = heartbeat.sender;
        if sender.host == self.me.host {
            return self.handle_own(sender);
        }
        if self.is_leaving || !self.is_subscribed {
            return;
        }
        if !heartbeat.is_leaving {
            self.meet(sender);
        } else if self.peers.get(&sender.host).is_some_and(|peer| peer.start <= sender.start) {
            self.end(sender.host, Why::Left);
            self.peers.remove(&sender.host);
        }
    }

    /// Mail has come. Says whether its letters count; there may be none.
    pub fn handle_mail(&mut self, header: &Header, has_letters: bool, now_ms: u64) -> bool {
        self.advance(now_ms);
        let host = header.sender.host;
        let is_nobody = host == self.me.host || header.mine == 0;
        if is_nobody || self.is_leaving || !self.is_subscribed || !self.meet(header.sender) {
            return false;
        }
        if !self.agrees(host, header) {
            return false;
        }
        let Some(peer) = self.peers.get_mut(&host) else { return false };
        if !peer.is_found {
            peer.is_found = true;
            self.found += 1;
            self.events.push_back(Event::Found(host, Relation(peer.mine)));
        }
        if header.sequence > peer.received && !self.planted.is(Plant::IgnoredGap) {
            self.end(host, Why::Gap);
            self.tell(host);
            return false;
        }
        if header.sequence < peer.received {
            return false;
        }
        peer.received = header.sequence + u64::from(has_letters);
        if header.wants_answer {
            self.answer(host);
        }
        has_letters
    }

    /// Somebody speaks another version of the codec.
    pub fn handle_refused(&mut self, sender: Sender, version: u16) {
        // Forgotten when there are too many: then they are named again.
        if self.refused.len() >= HOSTS_MAX {
            self.refused.clear();
        }
        if self.refused.insert(sender.host) {
            self.events.push_back(Event::Refused(sender.host, version));
        }
    }

    /// Mail with letters was perhaps not published.
    pub fn handle_unpublished(&mut self, host: HostId, relation: Relation, now_ms: u64) {
        self.advance(now_ms);
        if self.relation(host) == Some(relation) {
            self.end(host, Why::Unpublished);
            self.tell(host);
        }
    }

    /// This host leaves: from now on it is not there for anybody.
    pub fn handle_leaving(&mut self, now_ms: u64) {
        self.advance(now_ms);
        if !self.is_leaving {
            self.is_leaving = true;
            self.peers.clear();
            self.found = 0;
            self.beat();
        }
    }

    /// The header of the next mail with letters to this host, which must be published now; nothing without a relation.
    pub fn stamp(&mut self, host: HostId) -> Option<Header> {
        let me = self.me;
        let peer = self.peers.get_mut(&host).filter(|peer| peer.is_found)?;
        let sequence = peer.sent;
        peer.sent += 1;
        Some(Header { sender: me, mine: peer.mine, yours: peer.theirs, sequence, wants_answer: false })
    }

    /// The relation to a host, if there is one.
    #[must_use]
    pub fn relation(&self, host: HostId) -> Option<Relation> {
        self.peers.get(&host).filter(|peer| peer.is_found).map(|peer| Relation(peer.mine))
    }

    /// How many hosts there is a relation to.
    #[must_use]
    pub fn found(&self) -> usize {
        self.found
    }

    /// Whether a host was heard of late, related or not.
    #[must_use]
    pub fn is_known(&self, host: HostId) -> bool {
        self.peers.contains_key(&host)
    }

    /// The hosts that there is a relation to.
    pub fn all_found(&self) -> impl Iterator<Item = HostId> {
        self.peers.iter().filter(|(_, peer)| peer.is_found).map(|(host, _)| *host)
    }

    /// Whether we have listened for so long that every host that is there is known.
    #[must_use]
    pub fn hears_all(&self) -> bool {
        self.is_proven() && self.since(self.path_since_ms) >= HOST_SILENCE_MS
    }

    /// When our own heartbeat last came back on the connections that there are now.
    #[must_use]
    pub fn returned_ms(&self) -> Option<u64> {
        self.returned_ms.filter(|_| self.is_publishing && self.is_subscribed)
    }

    /// Whether our own heartbeat came back of late: others can be reached.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.returned_ms().is_some_and(|returned_ms| self.since(returned_ms) < HOST_PROOF_MS)
    }

    /// What follows next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Takes note of the time. Who stood still does not know what the others think by now.
    fn advance(&mut self, now_ms: u64) {
        let has_paused = now_ms.saturating_sub(self.now_ms) >= HOST_PAUSE_MS;
        self.now_ms = self.now_ms.max(now_ms);
        if has_paused {
            self.returned_ms = None;
            self.up_ms = self.now_ms;
            let missed = self.peers.iter().filter(|(_, peer)| !peer.is_found).map(|(host, _)| *host);
            self.events.extend(missed.map(Event::Missed));
            self.end_all(Why::Paused);
        }
    }

    fn since(&self, at_ms: u64) -> u64 {
        self.now_ms.saturating_sub(at_ms)
    }

    /// One direction has come up: if both are there now, we prove them, and say to everybody where we stand.
    fn come_up(&mut self) {
        self.up_ms = self.now_ms;
        self.returned_ms = None;
        if self.is_publishing && self.is_subscribed {
            self.beat();
            self.tell_all(|peer| !peer.is_found);
        }
    }

    /// From now on mail may be lost.
    fn lose_subscriptions(&mut self) {
        self.is_subscribed = false;
        self.returned_ms = None;
        self.end_all(Why::Unsubscribed);
    }

    fn beat(&mut self) {
        self.beat_ms = self.now_ms;
        if self.is_publishing {
            let heartbeat = Heartbeat { sender: self.me, number: self.beats, is_leaving: self.is_leaving };
            self.beats += 1;
            self.events.push_back(Event::Beat(heartbeat));
        }
    }

    fn handle_own(&mut self, sender: Sender) {
        // A lower start number is our own from before a restart.
        if sender.start > self.me.start && !self.has_twin {
            self.has_twin = true;
            self.events.push_back(Event::Twin);
        }
        if sender.start == self.me.start && self.is_subscribed {
            let is_unbroken = self.returned_ms.is_some_and(|at_ms| self.since(at_ms) <= HOST_PATH_GAP_MS);
            if !is_unbroken {
                self.path_since_ms = self.now_ms;
            }
            self.returned_ms = Some(self.now_ms);
            self.judge();
        }
    }

    /// Our own heartbeat has come back: who was not heard for too long is dead. It is told, in case it is not.
    fn judge(&mut self) {
        let is_silent = |peer: &Peer| self.since(peer.heard_ms.max(self.path_since_ms)) >= HOST_SILENCE_MS;
        let silent: Vec<HostId> =
            self.peers.iter().filter(|(_, peer)| is_silent(peer)).map(|(host, _)| *host).collect();
        for host in silent {
            if self.relation(host).is_some() {
                self.end(host, Why::Silent);
                self.tell(host);
            }
            self.peers.remove(&host);
        }
    }

    /// A host was heard. False: what it said is not to be listened to.
    fn meet(&mut self, sender: Sender) -> bool {
        let now_ms = self.now_ms;
        if let Some(peer) = self.peers.get_mut(&sender.host) {
            if sender.start < peer.start {
                return false;
            }
            peer.heard_ms = now_ms;
            if sender.start > peer.start {
                peer.start = sender.start;
                peer.theirs = 0;
                self.end(sender.host, Why::Restarted);
                self.tell(sender.host);
            }
            return true;
        }
        if self.peers.len() >= HOSTS_MAX {
            if !self.is_crowded {
                self.is_crowded = true;
                self.events.push_back(Event::Crowded);
            }
            return false;
        }
        let peer = Peer {
            start: sender.start,
            heard_ms: now_ms,
            mine: self.draw_number(),
            theirs: 0,
            is_found: false,
            sent: 0,
            received: 0,
            told: None,
            told_ms: 0,
        };
        self.peers.insert(sender.host, peer);
        self.tell(sender.host);
        true
    }

    /// Whether mail is of the relation that we know. What it says of the other's number is learnt.
    fn agrees(&mut self, host: HostId, header: &Header) -> bool {
        let Some(peer) = self.peers.get_mut(&host) else { return false };
        if header.mine < peer.theirs {
            return false;
        }
        if header.mine > peer.theirs {
            peer.theirs = header.mine;
            if peer.is_found {
                self.end(host, Why::Renewed);
            }
        }
        let agrees = self.peers.get(&host).is_some_and(|peer| peer.mine == header.yours);
        if !agrees {
            self.answer(host);
        }
        agrees
    }

    /// Ends a relation, if there is one, and begins the next.
    fn end(&mut self, host: HostId, why: Why) {
        let number = self.draw_number();
        let Some(peer) = self.peers.get_mut(&host) else { return };
        (peer.mine, peer.sent, peer.received, peer.told) = (number, 0, 0, None);
        if std::mem::take(&mut peer.is_found) {
            self.found -= 1;
            self.events.push_back(Event::Gone(host, why));
        }
    }

    fn end_all(&mut self, why: Why) {
        for host in self.known() {
            self.end(host, why);
            self.tell(host);
        }
    }

    /// Tells a host what it asks for, unless it has just been told the same.
    fn answer(&mut self, host: HostId) {
        let Some(peer) = self.peers.get(&host) else { return };
        if !peer.is_told() || self.since(peer.told_ms) >= HOST_ANSWER_MS {
            self.tell(host);
        }
    }

    /// Tells a host where we stand.
    fn tell(&mut self, host: HostId) {
        let (me, now_ms, is_publishing) = (self.me, self.now_ms, self.is_publishing);
        let Some(peer) = self.peers.get_mut(&host).filter(|_| is_publishing) else { return };
        peer.told = Some((peer.mine, peer.theirs, peer.sent));
        peer.told_ms = now_ms;
        let header = Header {
            sender: me,
            mine: peer.mine,
            yours: peer.theirs,
            sequence: peer.sent,
            wants_answer: !peer.is_found,
        };
        self.events.push_back(Event::Tell(host, header));
    }

    fn tell_all(&mut self, is_due: impl Fn(&Peer) -> bool) {
        for host in self.known() {
            if self.peers.get(&host).is_some_and(&is_due) {
                self.tell(host);
            }
        }
    }

    fn known(&self) -> Vec<HostId> {
        self.peers.keys().copied().collect()
    }

    fn draw_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }
}

#[cfg(test)]
mod tests;
