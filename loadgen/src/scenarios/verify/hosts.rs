//! Hosts that may be killed while they are verified: which are gone, since when, and who was there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::net::socket::Socket;
use crate::net::target::Target;

/// What the clients of other hosts may take to be told that those of a dead host are gone, unless it is said otherwise.
pub(super) const TOLD_WITHIN: Duration = Duration::from_secs(6);
/// What the generator may take to hear of it.
const HEARD_WITHIN: Duration = Duration::from_millis(500);
/// Who ended so shortly before its host died counts as dead with it: what the host had to say of it may be lost.
const UNSAID: Duration = Duration::from_secs(1);
/// How long a host may accept connections after it has cut one by dying.
const DYING: Duration = Duration::from_secs(1);
const PROBE_STEP: Duration = Duration::from_millis(5);

/// The hosts of a run.
#[derive(Debug)]
pub(super) struct Hosts {
    hosts: Vec<Host>,
    /// See [`TOLD_WITHIN`].
    told_within: Duration,
    /// The host of each connection that is open or about to be.
    open: Mutex<BTreeMap<u32, usize>>,
    /// Connections that ended a moment ago, when, and their hosts.
    ended: Mutex<VecDeque<(u32, Instant, usize)>>,
}

#[derive(Debug, Default)]
struct Host {
    may_die: bool,
    /// How often it has died.
    deaths: AtomicU64,
    is_down: AtomicBool,
    died_at: Mutex<Option<Instant>>,
}

impl Hosts {
    /// Hosts of which some may die, and within which time the clients of the others are told so.
    pub(super) fn new(may_die: &[bool], told_within: Duration) -> Self {
        let host = |may_die: &bool| Host { may_die: *may_die, ..Host::default() };
        let hosts = may_die.iter().map(host).collect();
        Self { hosts, told_within, open: Mutex::default(), ended: Mutex::default() }
    }

    /// Within which time clients are told that a host died; none where none may.
    pub(super) fn told_within(&self) -> Option<Duration> {
        self.may_any_die().then_some(self.told_within)
    }

    /// The same, until the generator must have heard of it.
    pub(super) fn heard_within(&self) -> Duration {
        self.told_within + HEARD_WITHIN
    }

    /// Whether any may die.
    pub(super) fn may_any_die(&self) -> bool {
        self.hosts.iter().any(|host| host.may_die)
    }

    /// How often a host has died. A connection from before the last time is dead, whatever still comes on it.
    pub(super) fn deaths(&self, host: usize) -> u64 {
        self.hosts[host].deaths.load(Ordering::Acquire)
    }

    /// How often any has died.
    pub(super) fn all_deaths(&self) -> u64 {
        (0..self.hosts.len()).map(|host| self.deaths(host)).sum()
    }

    /// Whether a host is dead, and has not come back.
    pub(super) fn is_down(&self, host: usize) -> bool {
        self.hosts[host].is_down.load(Ordering::Acquire)
    }

    /// When a host died last.
    pub(super) fn died_at(&self, host: usize) -> Option<Instant> {
        *self.hosts[host].died_at.lock().expect("no thread panics with the lock")
    }

    /// When the last of all deaths was.
    pub(super) fn last_death(&self) -> Option<Instant> {
        (0..self.hosts.len()).filter_map(|host| self.died_at(host)).max()
    }

    /// A connection to a host is about to be opened.
    pub(super) fn opening(&self, number: u32, host: usize) {
        self.open.lock().expect("no thread panics with the lock").insert(number, host);
    }

    /// A connection has ended; whether it was not known to be dead.
    pub(super) fn ended(&self, number: u32, now: Instant) -> bool {
        let host = self.open.lock().expect("no thread panics with the lock").remove(&number);
        if let Some(host) = host.filter(|host| self.hosts[*host].may_die) {
            let mut ended = self.ended.lock().expect("no thread panics with the lock");
            ended.retain(|(_, at, _)| now.saturating_duration_since(*at) < UNSAID);
            ended.push_back((number, now, host));
        }
        host.is_some()
    }

    /// A host is dead: its connections, which are dead with it. None are left when it is known already.
    pub(super) fn died(&self, host: usize, now: Instant) -> Vec<u32> {
        let state = &self.hosts[host];
        let mut died_at = state.died_at.lock().expect("no thread panics with the lock");
        if state.is_down.swap(true, Ordering::AcqRel) {
            return Vec::new();
        }
        state.deaths.fetch_add(1, Ordering::AcqRel);
        *died_at = Some(now);
        let mut open = self.open.lock().expect("no thread panics with the lock");
        let mut dead: Vec<_> =
            open.iter().filter(|(_, on)| **on == host).map(|(number, _)| *number).collect();
        open.retain(|_, on| *on != host);
        let ended = self.ended.lock().expect("no thread panics with the lock");
        let is_unsaid =
            |(_, at, on): &&(u32, Instant, usize)| *on == host && now.saturating_duration_since(*at) < UNSAID;
        dead.extend(ended.iter().filter(is_unsaid).map(|(number, _, _)| *number));
        dead
    }

    /// A host that was dead can be connected to again.
    pub(super) fn came_back(&self, host: usize) {
        self.hosts[host].is_down.store(false, Ordering::Release);
    }

    /// Whether a host that cut a connection, or took none, did so because it is dead: it may die, and accepts no
    /// connection any more.
    pub(super) async fn is_dead(&self, host: usize, target: &Target) -> bool {
        if !self.hosts[host].may_die {
            return false;
        }
        let until = Instant::now() + DYING;
        while !self.is_down(host) {
            match Socket::connect(target.address, None).await {
                Err(_) => return true,
                Ok(_) if Instant::now() > until => return false,
                Ok(_) => monoio::time::sleep(PROBE_STEP).await,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_takes_the_connections_of_its_host_once() {
        let hosts = Hosts::new(&[true, false], TOLD_WITHIN);
        for (number, host) in [(1, 0), (2, 1), (3, 0), (4, 0), (5, 0)] {
            hosts.opening(number, host);
        }
        let start = Instant::now();
        let now = start + UNSAID;
        assert!(hosts.ended(4, start) && hosts.ended(5, start + UNSAID / 2));
        assert_eq!(hosts.died(0, now), [1, 3, 5], "who ended a moment ago is dead as well");
        assert!(hosts.died(0, now).is_empty(), "it is dead already");
        assert!(!hosts.ended(1, now) && hosts.ended(2, now));
        assert_eq!((hosts.deaths(0), hosts.deaths(1), hosts.last_death()), (1, 0, Some(now)));
        hosts.came_back(0);
        assert!(!hosts.is_down(0) && hosts.may_any_die());
        assert!(hosts.died(0, now + UNSAID).is_empty());
        assert_eq!(hosts.all_deaths(), 2);
    }
}
