//! Pipes: two ends that name each other and a document are joined (protocols.md section 5).
//!
//! Here is only who is whose partner. What the ends say to each other does not come by here: the shard passes it on
//! as it arrives.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::RandomState;

use crate::id::ClientId;

/// What the two ends of a pipe have in common. Ids and documents are compared as decoded bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The lesser id of the two.
    low: Box<[u8]>,
    high: Box<[u8]>,
    document: Box<[u8]>,
    /// Raw and WebSocket ends are not each other's partners.
    is_raw: bool,
}

/// Which of the two ids is one's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Low,
    High,
    /// The two ids are the same: whoever comes second is the other end.
    Either,
}

/// What a URL asks for: one end of a pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    key: Arc<Key>,
    side: Side,
}

impl End {
    /// The end of `me` towards `other`.
    #[must_use]
    pub fn new(me: &[u8], other: &[u8], document: &[u8], is_raw: bool) -> Self {
        let (low, high, side) = match me.cmp(other) {
            std::cmp::Ordering::Less => (me, other, Side::Low),
            std::cmp::Ordering::Greater => (other, me, Side::High),
            std::cmp::Ordering::Equal => (me, other, Side::Either),
        };
        let key = Key { low: low.into(), high: high.into(), document: document.into(), is_raw };
        Self { key: Arc::new(key), side }
    }

    /// What both ends have in common.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Whether it carries raw bytes instead of WebSocket frames.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        self.key.is_raw
    }

    /// What other hosts know this end and its partner's by.
    #[must_use]
    pub fn names(&self) -> Names {
        let Key { low, high, .. } = &*self.key;
        let (me, other) = if self.side == Side::High { (high, low) } else { (low, high) };
        Names { own: self.name(me, other), other: self.name(other, me) }
    }

    /// The kind, and each part with its length before it: ids and documents may hold anything.
    fn name(&self, me: &[u8], other: &[u8]) -> Box<[u8]> {
        let mut name = if self.key.is_raw { b"raw:".to_vec() } else { b"ws:".to_vec() };
        for (part, end) in [(me, "/"), (other, "/"), (&self.key.document, "")] {
            name.extend_from_slice(format!("{}:", part.len()).as_bytes());
            name.extend_from_slice(part);
            name.extend_from_slice(end.as_bytes());
        }
        name.into()
    }
}

/// What other hosts know the two ends of a pipe by. They are the same if both ids are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// This end.
    pub own: Box<[u8]>,
    /// Its partner's.
    pub other: Box<[u8]>,
}

/// What becomes of an end that connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is held until its partner comes. The one that was held in its place before is to be closed.
    Held {
        /// Who was held before.
        replaced: Option<ClientId>,
    },
    /// Its partner was held and is joined with it.
    Joined {
        /// The partner.
        partner: ClientId,
    },
    /// Too many are held: it is to be closed.
    Full,
}

#[derive(Debug)]
struct Held {
    client: ClientId,
    side: Side,
    /// When it has waited for long enough.
    due_ms: u64,
}

/// The ends that wait for their partners.
#[derive(Debug)]
pub struct Pipes {
    held: HashMap<Arc<Key>, Held, RandomState>,
    /// By the time when they have waited for long enough.
    due: BTreeSet<(u64, ClientId)>,
    /// `PIPE_HOLD_MS`; none for no limit.
    hold_ms: Option<u64>,
    /// How many are held on all shards, and how many may be (`MAX_HELD_PIPES`).
    places: Arc<Places>,
}

/// A number of places that the shards of a host share.
#[derive(Debug)]
pub struct Places {
    taken: AtomicUsize,
    max: usize,
}

impl Places {
    /// So many, all free.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { taken: AtomicUsize::new(0), max }
    }

    fn try_take(&self) -> bool {
        let take = |taken: usize| (taken < self.max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pipes {
    /// `hold_ms`: how long an end may wait; 0 for ever. `places`: where those are counted that wait.
    /// `seed` makes the hashes.
    #[must_use]
    pub fn new(hold_ms: u64, places: Arc<Places>, seed: [u64; 4]) -> Self {
        let [a, b, c, d] = seed;
        Self {
            held: HashMap::with_hasher(RandomState::with_seeds(a, b, c, d)),
            due: BTreeSet::new(),
            hold_ms: (hold_ms > 0).then_some(hold_ms),
            places,
        }
    }

    /// An end has connected.
    pub fn handle_connect(&mut self, end: &End, me: ClientId, now_ms: u64) -> Outcome {
        match self.held.get(&end.key) {
            Some(held) if held.side != end.side || end.side == Side::Either => {
                let partner = held.client;
                self.release(&end.key);
                Outcome::Joined { partner }
            }
            Some(held) => {
                let (replaced, due) = (Some(held.client), (held.due_ms, held.client));
                self.due.remove(&due);
                self.hold(end, me, now_ms);
                Outcome::Held { replaced }
            }
            None if !self.places.try_take() => Outcome::Full,
            None => {
                self.hold(end, me, now_ms);
                Outcome::Held { replaced: None }
            }
        }
    }

    /// An end waits again that was held before. If another is held in its place by now, that is the later one, and this
    /// one is replaced.
    pub fn handle_return(&mut self, end: &End, me: ClientId, now_ms: u64) -> Outcome {
        match self.held.get(&end.key) {
            Some(held) if held.side == end.side && end.side != Side::Either => {
                Outcome::Held { replaced: Some(me) }
            }
            Some(_) | None => self.handle_connect(end, me, now_ms),
        }
    }

    /// Whether this end is held.
    #[must_use]
    pub fn is_held(&self, end: &End, me: ClientId) -> bool {
        self.held.get(&end.key).is_some_and(|held| held.client == me)
    }

    /// A held end leaves. Harmless for one that is not held any more.
    pub fn handle_leave(&mut self, end: &End, me: ClientId) {
        if self.held.get(&end.key).is_some_and(|held| held.client == me) {
            self.release(&end.key);
        }
    }

    /// The next end that has waited for too long: it is to be closed, and leaves then.
    pub fn poll_expired(&mut self, now_ms: u64) -> Option<ClientId> {
        let &(due_ms, client) = self.due.first()?;
        if due_ms > now_ms {
            return None;
        }
        self.due.pop_first();
        Some(client)
    }

    /// How many are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn hold(&mut self, end: &End, client: ClientId, now_ms: u64) {
        // One more: both times are cut off to whole milliseconds, and nobody is to be closed early.
        let due_ms = self.hold_ms.map_or(u64::MAX, |hold_ms| now_ms.saturating_add(hold_ms + 1));
        if self.hold_ms.is_some() {
            self.due.insert((due_ms, client));
        }
        self.held.insert(Arc::clone(&end.key), Held { client, side: end.side, due_ms });
    }

    fn release(&mut self, key: &Key) {
        if let Some(held) = self.held.remove(key) {
            self.due.remove(&(held.due_ms, held.client));
            self.places.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Entropy, HostId, ShardIndex, Slot};

    fn clients<const N: usize>() -> [ClientId; N] {
        let mut entropy = Entropy::from_seed([5; 32]);
        std::array::from_fn(|slot| ClientId::new(HostId(1), ShardIndex(0), Slot(slot as u32), &mut entropy))
    }

    fn end(me: &str, other: &str) -> End {
        End::new(me.as_bytes(), other.as_bytes(), b"doc", false)
    }

    fn pipes() -> Pipes {
        Pipes::new(1_000, Arc::new(Places::new(2)), [1, 2, 3, 4])
    }

    const WAITS: Outcome = Outcome::Held { replaced: None };

    #[test]
    fn two_that_name_each_other_are_joined() {
        let [a, b, c] = clients();
        let mut pipes = pipes();
        assert_eq!(pipes.handle_connect(&end("A", "B"), a, 0), WAITS);
        assert_eq!(pipes.handle_connect(&end("B", "A"), b, 0), Outcome::Joined { partner: a });
        assert_eq!(pipes.handle_connect(&end("B", "A"), c, 0), WAITS, "a newcomer is held anew");
        pipes.handle_leave(&end("A", "B"), a);
        assert_eq!(pipes.len(), 1, "who is joined takes nothing with it");
    }

    #[test]
    fn a_second_of_the_same_side_replaces_the_first() {
        let [a, b, c] = clients();
        let mut pipes = pipes();
        pipes.handle_connect(&end("A", "B"), a, 0);
        assert_eq!(pipes.handle_connect(&end("A", "B"), b, 0), Outcome::Held { replaced: Some(a) });
        pipes.handle_leave(&end("A", "B"), a);
        assert_eq!(pipes.handle_connect(&end("B", "A"), c, 0), Outcome::Joined { partner: b });
        assert!(pipes.is_empty() && pipes.due.is_empty());
    }

    #[test]
    fn of_one_and_the_same_id_the_second_is_the_other_end() {
        let [a, b] = clients();
        let mut pipes = pipes();
        pipes.handle_connect(&end("A", "A"), a, 0);
        assert_eq!(pipes.handle_connect(&end("A", "A"), b, 0), Outcome::Joined { partner: a });
    }

    #[test]
    fn other_names_documents_and_kinds_are_other_pipes() {
        let [a, b] = clients();
        for other in [
            end("B", "C"),
            End::new(b"B", b"A", b"dog", false),
            End::new(b"B", b"A", b"doc", true),
            End::new(b"B", b"a", b"doc", false),
        ] {
            let mut pipes = pipes();
            pipes.handle_connect(&end("A", "B"), a, 0);
            assert_eq!(pipes.handle_connect(&other, b, 0), WAITS, "{other:?}");
        }
    }

    #[test]
    fn who_waits_too_long_comes_up_once() {
        let [a, b] = clients();
        let mut pipes = pipes();
        pipes.handle_connect(&end("A", "B"), a, 0);
        pipes.handle_connect(&end("A", "C"), b, 500);
        assert_eq!(pipes.poll_expired(1_000), None);
        assert_eq!(pipes.poll_expired(1_001), Some(a));
        assert_eq!(pipes.poll_expired(1_001), None);
        pipes.handle_leave(&end("A", "B"), a);
        pipes.handle_leave(&end("A", "C"), b);
        assert_eq!(pipes.poll_expired(u64::MAX - 1), None);
        assert!(pipes.is_empty());
    }

    #[test]
    fn who_returns_makes_way_for_who_came_later() {
        let [a, b, c] = clients();
        let mut pipes = pipes();
        assert_eq!(pipes.handle_return(&end("A", "B"), a, 0), WAITS);
        pipes.handle_leave(&end("A", "B"), a);
        pipes.handle_connect(&end("A", "B"), b, 0);
        assert_eq!(pipes.handle_return(&end("A", "B"), a, 0), Outcome::Held { replaced: Some(a) });
        assert!(pipes.is_held(&end("A", "B"), b) && !pipes.is_held(&end("A", "B"), a));
        assert_eq!(pipes.handle_return(&end("B", "A"), c, 0), Outcome::Joined { partner: b });
        pipes.handle_connect(&end("A", "A"), a, 0);
        assert_eq!(pipes.handle_return(&end("A", "A"), b, 0), Outcome::Joined { partner: a });
    }

    #[test]
    fn names_say_which_end_of_which_pipe() {
        let names = |me: &str, other: &str, document: &str, is_raw| {
            End::new(me.as_bytes(), other.as_bytes(), document.as_bytes(), is_raw).names()
        };
        let (a, b) = (names("A", "B", "doc", false), names("B", "A", "doc", false));
        assert_eq!((&*a.own, &*a.other), (&b"ws:1:A/1:B/3:doc"[..], &b"ws:1:B/1:A/3:doc"[..]));
        assert_eq!((a.own.clone(), a.other), (b.other, b.own));
        assert_ne!(names("A", "B", "doc", true).own, a.own);
        assert_ne!(names("A/1:B", "C", "", false).own, names("A", "B/1:C", "", false).own);
        let same = names("A", "A", "doc", false);
        assert_eq!(same.own, same.other);
    }

    #[test]
    fn too_many_are_not_held() {
        let [a, b, c] = clients();
        let mut pipes = pipes();
        pipes.handle_connect(&end("A", "B"), a, 0);
        pipes.handle_connect(&end("A", "C"), b, 0);
        assert_eq!(pipes.handle_connect(&end("A", "D"), c, 0), Outcome::Full);
        assert_eq!(pipes.handle_connect(&end("B", "A"), c, 0), Outcome::Joined { partner: a });
    }
}
