//! A Redis of the simulation's own: as much of its commands as the cluster uses, alone and from Lua, on the virtual clock.
//!
//! Scripts are run by a real Lua 5.1, the version that Redis has, so what is simulated is what is sent.

mod keys;
mod lua;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use crate::cluster::{Command, Reply};
use keys::Keys;
use lua::Lua;

/// What Redis answers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    Done,
    Nil,
    Integer(i64),
    Bytes(Vec<u8>),
    List(Vec<Answer>),
    Error(String),
}

/// Something that was published, in order.
#[derive(Debug, Clone)]
pub(super) struct Published {
    pub(super) channel: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

/// The state that commands work on.
#[derive(Debug, Default)]
struct State {
    keys: Keys,
    published: Vec<Published>,
    /// Which connections listen to what: a channel and a number that the network gave.
    listeners: BTreeSet<(Vec<u8>, usize)>,
    now_ms: u64,
}

/// One Redis.
pub(super) struct Redis {
    state: Rc<RefCell<State>>,
    lua: Lua,
}

impl Redis {
    pub(super) fn new() -> Self {
        let state: Rc<RefCell<State>> = Rc::default();
        let lua = Lua::new(&state);
        Self { state, lua }
    }

    /// It restarts, and has kept nothing.
    pub(super) fn restart(&mut self) {
        let now_ms = self.state.borrow().now_ms;
        *self.state.borrow_mut() = State { now_ms, ..State::default() };
    }

    /// So late it is.
    pub(super) fn set_time(&mut self, now_ms: u64) {
        self.state.borrow_mut().now_ms = now_ms;
    }

    /// A connection listens to a channel.
    pub(super) fn subscribe(&mut self, listener: usize, channel: &[u8]) {
        self.state.borrow_mut().listeners.insert((channel.to_vec(), listener));
    }

    /// A connection listens to a channel no longer.
    pub(super) fn unsubscribe(&mut self, listener: usize, channel: &[u8]) {
        self.state.borrow_mut().listeners.remove(&(channel.to_vec(), listener));
    }

    /// A connection is gone.
    pub(super) fn forget(&mut self, listener: usize) {
        self.state.borrow_mut().listeners.retain(|(_, other)| *other != listener);
    }

    /// Who listens to a channel.
    pub(super) fn listeners(&self, channel: &[u8]) -> Vec<usize> {
        let state = self.state.borrow();
        let all = state.listeners.range((channel.to_vec(), 0)..);
        all.take_while(|(other, _)| other == channel).map(|(_, listener)| *listener).collect()
    }

    /// Carries out a command of the cluster's.
    pub(super) fn run(&mut self, command: &Command) -> Reply {
        let words: Vec<&[u8]> = match command {
            Command::SetAdd { key, member, expire_s } => {
                let added = self.call(&[b"SADD", key, member]);
                if let Some(expire_s) = expire_s {
                    self.call(&[b"EXPIRE", key, expire_s.to_string().as_bytes()]);
                }
                return reply_of(added);
            }
            Command::Run { script, keys, arguments } => {
                return reply_of(self.lua.run(script.source, keys, arguments));
            }
            Command::Expire { key, expire_s } => {
                return reply_of(self.call(&[b"EXPIRE", key, expire_s.to_string().as_bytes()]));
            }
            Command::SetRemove { key, member } => vec![b"SREM", key, member],
            Command::SetMembers { key } => vec![b"SMEMBERS", key],
            Command::SetContains { key, member } => vec![b"SISMEMBER", key, member],
            Command::ListRemove { key, member } => vec![b"LREM", key, b"0", member],
            Command::Publish { channel, payload } => vec![b"PUBLISH", channel, payload],
        };
        reply_of(self.call(&words))
    }

    /// Carries out any command.
    pub(super) fn call(&mut self, words: &[&[u8]]) -> Answer {
        let words: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
        self.state.borrow_mut().call(&words)
    }

    /// What was published since the last call.
    pub(super) fn take_published(&mut self) -> Vec<Published> {
        std::mem::take(&mut self.state.borrow_mut().published)
    }

    /// What is kept that names this text, other than about hosts.
    pub(super) fn naming(&self, text: &str) -> Vec<String> {
        self.state.borrow().keys.naming(text)
    }
}

impl State {
    fn call(&mut self, words: &[Vec<u8>]) -> Answer {
        let [name, arguments @ ..] = words else { return Answer::Error("no command".into()) };
        let name = String::from_utf8_lossy(name).to_ascii_uppercase();
        match (name.as_str(), arguments) {
            ("PUBLISH", [channel, payload]) => {
                let heard = self.listeners.range((channel.clone(), 0)..);
                let count = heard.take_while(|(other, _)| other == channel).count();
                self.published.push(Published { channel: channel.clone(), payload: payload.clone() });
                Answer::Integer(count as i64)
            }
            ("TIME", []) => {
                let us = self.now_ms % 1_000 * 1_000;
                let parts = [self.now_ms / 1_000, us];
                Answer::List(parts.map(|part| Answer::Bytes(part.to_string().into_bytes())).to_vec())
            }
            (name, arguments) => self.keys.call(name, arguments, self.now_ms),
        }
    }
}

fn reply_of(answer: Answer) -> Reply {
    match answer {
        Answer::Done => Reply::Done,
        Answer::Nil => Reply::Nil,
        Answer::Integer(number) => Reply::Integer(number),
        Answer::Bytes(bytes) => Reply::Bytes(bytes),
        Answer::List(items) => Reply::List(items.into_iter().map(item_of).collect()),
        Answer::Error(error) => crate::simulator::checks::fail(format!("Redis refuses a command: {error}")),
    }
}

fn item_of(answer: Answer) -> Vec<u8> {
    match answer {
        Answer::Integer(number) => number.to_string().into_bytes(),
        Answer::Bytes(bytes) => bytes,
        Answer::Done => b"OK".to_vec(),
        Answer::Nil => Vec::new(),
        other => crate::simulator::checks::fail(format!("a list inside a reply: {other:?}")),
    }
}

#[cfg(test)]
mod tests;
