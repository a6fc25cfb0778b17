//! A judge with clients that exist in a test alone.

use std::time::{Duration, Instant};

use super::hosts::TOLD_WITHIN;
use super::judge::{DropKind, Judge, Turn};
use super::violation::Violation;

/// A judge and the time.
pub(super) struct Court<J> {
    pub(super) judge: J,
    next: u32,
    pub(super) now: Instant,
    pub(super) winding_up: bool,
    /// Whether a host may die.
    pub(super) may_die: bool,
}

impl<J: Judge> Court<J> {
    pub(super) fn new(judge: J) -> Self {
        Self { judge, next: 0, now: Instant::now(), winding_up: false, may_die: false }
    }

    /// Client `index` connects; its number and its first words.
    pub(super) fn open(&mut self, index: usize) -> (u32, Vec<String>) {
        self.open_beside(index, None)
    }

    /// The same, beside a connection that it takes over from.
    pub(super) fn open_beside(&mut self, index: usize, takes_over: Option<u32>) -> (u32, Vec<String>) {
        let number = self.next;
        self.next += 1;
        self.judge.opening(index, number, takes_over);
        let (words, ()) = self.turn(number, J::opened);
        (number, words)
    }

    /// A message comes; what the client says to it.
    pub(super) fn hear(&mut self, number: u32, message: &str) -> Result<Vec<String>, Violation> {
        let (words, heard) = self.turn(number, |judge, turn| judge.hear(message.as_bytes(), turn));
        heard.map(|()| words)
    }

    /// Time passes; what the client says.
    pub(super) fn tick(&mut self, number: u32) -> Vec<String> {
        self.now += Duration::from_millis(100);
        self.turn(number, J::tick).0
    }

    /// A client drops out; what it says, if it may.
    pub(super) fn drop_out(&mut self, number: u32, kind: DropKind) -> Option<Vec<String>> {
        let (words, may) = self.turn(number, |judge, turn| judge.drop_out(kind, turn));
        may.then_some(words)
    }

    /// A connection has ended after a drop of this kind.
    pub(super) fn end(&mut self, number: u32, kind: DropKind) {
        self.drop_out(number, kind).expect("it may drop");
        self.judge.ended(number, self.now);
    }

    /// All is over.
    pub(super) fn finish(&mut self, page: Option<&str>) -> Result<(), Violation> {
        self.judge.finish(&[page])
    }

    /// The host of some connections dies.
    pub(super) fn die(&mut self, numbers: &[u32]) {
        self.may_die = true;
        numbers.iter().for_each(|number| self.judge.died(*number, self.now));
    }

    /// Whether everybody was told in time of those that have died.
    pub(super) fn check_deaths_after(&mut self, time: Duration) -> Result<(), Violation> {
        self.now += time;
        self.judge.check_deaths(Some(self.now - TOLD_WITHIN), self.now)
    }

    fn turn<R>(
        &mut self,
        number: u32,
        question: impl FnOnce(&mut J, &mut Turn<'_>) -> R,
    ) -> (Vec<String>, R) {
        let mut words = Vec::new();
        let mut turn = Turn::new(number, self.now, self.winding_up, &mut words);
        turn.told_within = self.may_die.then_some(TOLD_WITHIN);
        let answer = question(&mut self.judge, &mut turn);
        let words = words.into_iter().map(|word| String::from_utf8(word).expect("text")).collect();
        (words, answer)
    }
}
