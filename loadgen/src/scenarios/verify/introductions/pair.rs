//! Which introductions two clients may hear of each other.
//!
//! Nobody tells when the server reads a message. Therefore the judge keeps every state that the two could be in, as
//! numbers of messages that were read of each, and lets each introduction choose among them: it comes from the next
//! message of one of the two, and names what they have in common then. Where no state is left, it was wrong.

use std::collections::{BTreeSet, VecDeque};

/// Documents by their number, in the order in which the client came to have them.
pub(super) type Documents = Vec<u8>;

/// What a client has after each of its messages; before the first it has nothing.
#[derive(Debug, Clone)]
pub(super) struct History {
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
struct Step {
    documents: Documents,
    /// The message named documents to join: introductions follow.
    joins: bool,
    /// When it was sent.
    at: u64,
}

impl Default for History {
    fn default() -> Self {
        Self { steps: vec![Step { documents: Documents::new(), joins: false, at: 0 }] }
    }
}

impl History {
    /// Messages sent.
    pub(super) fn sent(&self) -> u32 {
        self.steps.len() as u32 - 1
    }

    /// What the client has when all its messages are read.
    pub(super) fn documents(&self) -> &[u8] {
        self.steps.last().map_or(&[], |step| &step.documents)
    }

    /// A message is sent.
    pub(super) fn send(&mut self, join: &[u8], leave: &[u8], at: u64) {
        let mut documents = self.documents().to_vec();
        documents.retain(|document| !leave.contains(document));
        for document in join {
            if !documents.contains(document) {
                documents.push(*document);
            }
        }
        self.steps.push(Step { documents, joins: !join.is_empty(), at });
    }

    fn step(&self, read: u32) -> &Step {
        &self.steps[read as usize]
    }
}

/// What the first has in common with the other, in the order of the first.
fn common(one: &Step, other: &Step) -> Documents {
    one.documents.iter().filter(|document| other.documents.contains(document)).copied().collect()
}

/// Messages read of each of the two.
type State = [u32; 2];

/// Two clients, as they hear of each other.
#[derive(Debug)]
pub(super) struct Pair {
    states: BTreeSet<State>,
    /// Introductions that one of the two has heard and the other not yet.
    ahead: VecDeque<(Documents, u64)>,
    /// Which of the two has heard them.
    leader: usize,
    /// Introductions that one of the two has heard.
    pub(super) heard: u64,
}

/// Why an introduction cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wrong {
    /// The two do not hear the same.
    NotTheSame {
        /// What the other one heard.
        due: Documents,
    },
    /// Nothing that was sent leads to it.
    NoReason,
}

impl Pair {
    /// A new client with nothing, and one of whose messages at least so many and at most all were read.
    pub(super) fn new(place_of_new: usize, read_min: u32, sent: u32) -> Self {
        let state = |read: u32| if place_of_new == 0 { [0, read] } else { [read, 0] };
        let states = (read_min..=sent).map(state).collect();
        Self { states, ahead: VecDeque::new(), leader: 0, heard: 0 }
    }

    /// One of the two, the first or the second, hears an introduction; returns when its reason was sent at the
    /// earliest.
    pub(super) fn hear(&mut self, place: usize, keys: &[u8], histories: [&History; 2]) -> Result<u64, Wrong> {
        if !self.ahead.is_empty() && place != self.leader {
            let Some((due, at)) = self.ahead.pop_front() else { return Err(Wrong::NoReason) };
            return if due == keys { Ok(at) } else { Err(Wrong::NotTheSame { due }) };
        }
        let (states, at) = next(&self.states, keys, histories);
        if states.is_empty() {
            return Err(Wrong::NoReason);
        }
        self.states = states;
        self.heard += 1;
        self.leader = place;
        self.ahead.push_back((keys.to_vec(), at));
        Ok(at)
    }

    /// The fewest messages of one of the two that the server has certainly read.
    pub(super) fn read_min(&self, place: usize) -> u32 {
        self.states.iter().map(|state| state[place]).min().unwrap_or(0)
    }

    /// Introductions that only one of the two has heard.
    pub(super) fn ahead(&self) -> Option<(usize, &Documents)> {
        self.ahead.front().map(|(keys, _)| (self.leader, keys))
    }

    /// Whether all messages may have been read with no introduction to come.
    pub(super) fn is_complete(&self, histories: [&History; 2]) -> bool {
        silent(&self.states, histories).contains(&histories.map(History::sent))
    }
}

/// The message after a state, of the first or the second: the state after it, and the introduction it leads to, if any.
fn after(state: State, place: usize, histories: [&History; 2]) -> Option<(State, Documents, u64)> {
    let mut next = state;
    next[place] += 1;
    if next[place] > histories[place].sent() {
        return None;
    }
    let step = histories[place].step(next[place]);
    let other = histories[1 - place].step(state[1 - place]);
    let keys = if step.joins { common(step, other) } else { Documents::new() };
    Some((next, keys, step.at))
}

/// These states, and those that messages without an introduction lead to.
fn silent(states: &BTreeSet<State>, histories: [&History; 2]) -> BTreeSet<State> {
    let mut all = states.clone();
    let mut open: Vec<_> = states.iter().copied().collect();
    while let Some(state) = open.pop() {
        for place in [0, 1] {
            if let Some((next, keys, _)) = after(state, place, histories)
                && keys.is_empty()
                && all.insert(next)
            {
                open.push(next);
            }
        }
    }
    all
}

/// The states after an introduction, and when its reason was sent at the earliest.
fn next(states: &BTreeSet<State>, keys: &[u8], histories: [&History; 2]) -> (BTreeSet<State>, u64) {
    let (mut reached, mut earliest) = (BTreeSet::new(), u64::MAX);
    for state in silent(states, histories) {
        for place in [0, 1] {
            if let Some((next, due, at)) = after(state, place, histories)
                && !due.is_empty()
                && due == keys
            {
                reached.insert(next);
                earliest = earliest.min(at);
            }
        }
    }
    (reached, earliest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(messages: &[(&[u8], &[u8])]) -> History {
        let mut history = History::default();
        messages.iter().enumerate().for_each(|(at, (join, leave))| history.send(join, leave, at as u64 + 1));
        history
    }

    #[test]
    fn documents_keep_their_order() {
        let history = history(&[(&[3, 1], &[]), (&[2, 3], &[]), (&[], &[3]), (&[3], &[1])]);
        assert_eq!(history.documents(), [2, 3]);
        assert_eq!(history.step(2).documents, [3, 1, 2]);
        assert_eq!(history.sent(), 4);
    }

    #[test]
    fn both_hear_the_same_in_the_order_of_the_one_who_sent() {
        let (one, other) = (history(&[(&[1, 2], &[])]), history(&[(&[2, 1], &[])]));
        let hear = |keys: &[u8]| Pair::new(1, 0, 1).hear(0, keys, [&one, &other]);
        // Whoever was read second sent it.
        assert_eq!((hear(&[1, 2]), hear(&[2, 1])), (Ok(1), Ok(1)));
        assert_eq!(hear(&[1]), Err(Wrong::NoReason));
        assert_eq!(hear(&[]), Err(Wrong::NoReason));
        let mut pair = Pair::new(1, 0, 1);
        pair.hear(0, &[1, 2], [&one, &other]).expect("good");
        assert_eq!(pair.ahead(), Some((0, &vec![1, 2])));
        assert_eq!(pair.hear(1, &[2, 1], [&one, &other]), Err(Wrong::NotTheSame { due: vec![1, 2] }));
        let mut pair = Pair::new(1, 0, 1);
        pair.hear(1, &[1, 2], [&one, &other]).expect("good");
        pair.hear(0, &[1, 2], [&one, &other]).expect("the same");
        assert_eq!(pair.hear(0, &[1, 2], [&one, &other]), Err(Wrong::NoReason), "each message once");
        assert!(pair.is_complete([&one, &other]) && pair.ahead().is_none());
    }

    #[test]
    fn what_was_left_is_not_in_common() {
        let one = history(&[(&[1, 2], &[]), (&[], &[2]), (&[1], &[])]);
        let other = history(&[(&[1, 2], &[])]);
        let mut pair = Pair::new(0, 1, 1);
        pair.hear(0, &[1, 2], [&one, &other]).expect("the first join");
        assert_eq!(pair.hear(0, &[1, 2], [&one, &other]), Err(Wrong::NoReason));
        pair.hear(0, &[1], [&one, &other]).expect("the second join");
        assert!(pair.is_complete([&one, &other]));
        assert_eq!(pair.read_min(0), 3);
    }

    #[test]
    fn one_that_did_not_come_is_missed() {
        let (one, other) = (history(&[(&[1], &[]), (&[1], &[])]), history(&[(&[1], &[])]));
        let mut pair = Pair::new(1, 0, 2);
        assert!(!pair.is_complete([&one, &other]));
        pair.hear(0, &[1], [&one, &other]).expect("good");
        assert!(pair.is_complete([&one, &other]), "the other may have come last");
        pair.hear(0, &[1], [&one, &other]).expect("or not");
        pair.hear(0, &[1], [&one, &other]).expect_err("two at most");
        let mut known = Pair::new(1, 2, 2);
        known.hear(0, &[1], [&one, &other]).expect("good");
        assert_eq!(known.hear(0, &[1], [&one, &other]), Err(Wrong::NoReason));
    }

    #[test]
    fn nothing_in_common_is_silence() {
        let (one, other) = (history(&[(&[1], &[])]), history(&[(&[2], &[])]));
        let mut pair = Pair::new(1, 0, 1);
        assert!(pair.is_complete([&one, &other]));
        assert_eq!(pair.hear(0, &[1], [&one, &other]), Err(Wrong::NoReason));
    }
}
