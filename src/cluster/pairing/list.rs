//! The list of waiters in Redis, which the originals share (protocols.md section 6): LPUSH at the left, RPOP at the right.

use std::collections::BTreeSet;

use crate::cluster::desk::Desk;
use crate::cluster::roll::ROLL_KEY;
use crate::cluster::{Command, Reply, Script};
use crate::id::ClientId;

/// KEYS: the list; the roll of hosts. ARGV: ours; 1 if it should be there already; others that are left there. Returns
/// `met`, another's id and whether the roll has its host; or `waits` or `missing`.
static MEET: Script = Script { source: include_str!("../scripts/meet.lua") };
/// KEYS: the list. ARGV: an id. Returns how many are on the list.
static PUT_BACK: Script = Script { source: include_str!("../scripts/put_back.lua") };

/// What became of our waiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met<'a> {
    /// Both are off the list; this is the other's id, if it is one. The roll has the host that made it.
    Ours(&'a [u8]),
    /// As before, but the roll has no such host.
    Foreign(&'a [u8]),
    /// It is on the list, and nobody else whom it could meet.
    Waits,
    /// Somebody has taken it.
    Missing,
    /// It is not known.
    Unknown,
}

impl<'a> Met<'a> {
    pub(super) fn read(reply: &'a Reply) -> Self {
        let Reply::List(items) = reply else { return Self::Unknown };
        match items.as_slice() {
            [word, other, maker] if word == b"met" && maker == b"ours" => Self::Ours(other),
            [word, other, maker] if word == b"met" && maker == b"foreign" => Self::Foreign(other),
            [word] if word == b"waits" => Self::Waits,
            [word] if word == b"missing" => Self::Missing,
            _ => Self::Unknown,
        }
    }
}

/// Our waiter meets the oldest other, or is on the list. `is_listed`: it should be there already. `passed_over`: these are
/// left there.
pub(super) fn meet(
    ours: ClientId,
    is_listed: bool,
    passed_over: &BTreeSet<ClientId>,
    desk: &Desk,
) -> Command {
    let flag = if is_listed { b"1".to_vec() } else { b"0".to_vec() };
    let mut arguments = vec![ours.text().to_vec(), flag];
    arguments.extend(passed_over.iter().map(|id| id.text().to_vec()));
    Command::Run { script: &MEET, keys: vec![key(desk), ROLL_KEY.to_vec()], arguments }
}

/// Puts an id back where it was taken.
pub(super) fn put_back(id: &[u8], desk: &Desk) -> Command {
    Command::Run { script: &PUT_BACK, keys: vec![key(desk)], arguments: vec![id.to_vec()] }
}

/// Takes our waiter off the list. 0: it was not there.
pub(super) fn remove(ours: ClientId, desk: &Desk) -> Command {
    Command::ListRemove { key: key(desk), member: ours.text().to_vec() }
}

fn key(desk: &Desk) -> Vec<u8> {
    if desk.has_public_layouts { b"webrtc:waiting".to_vec() } else { b"parlor:waiting".to_vec() }
}
