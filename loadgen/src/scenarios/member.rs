//! A connection and what its client says in its dialect.

use std::cell::RefCell;
use std::rc::Rc;

use crate::client::Connection;
use crate::dialects::{Heard, Speaker, Words};
use crate::payload::{Role, Script, Stamp};

/// A client of a group.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) connection: Rc<Connection>,
    speaker: RefCell<Box<dyn Speaker>>,
}

impl Member {
    pub(super) fn new(connection: Rc<Connection>, speaker: Box<dyn Speaker>) -> Self {
        Self { connection, speaker: RefCell::new(speaker) }
    }

    /// The first words.
    pub(super) fn greet(&self) -> Heard {
        self.say(|speaker, words| speaker.greet(words))
    }

    /// A message came.
    pub(super) fn hear(&self, message: &[u8]) -> Heard {
        self.say(|speaker, words| speaker.hear(message, words))
    }

    /// The group's record may have changed.
    pub(super) fn look_at_group(&self) -> Heard {
        self.say(|speaker, words| speaker.look_at_group(words))
    }

    /// Queues message number `step` of a script.
    pub(super) fn send(&self, script: &Script, role: Role, step: usize, stamp: Stamp) {
        let template = script.at(role, step);
        let speaker = self.speaker.borrow();
        self.connection.send_edited(&template.message, |copy| template.put(stamp, speaker.address(), copy));
    }

    /// Queues the last words and a close.
    pub(super) fn leave(&self) {
        self.say(|speaker, words| {
            speaker.farewell(words);
            Heard::Nothing
        });
        self.connection.close(1000);
    }

    fn say(&self, what: impl FnOnce(&mut dyn Speaker, &mut Words) -> Heard) -> Heard {
        let mut words = Words::new();
        let heard = what(self.speaker.borrow_mut().as_mut(), &mut words);
        words.iter().for_each(|word| self.connection.send(word));
        heard
    }
}
