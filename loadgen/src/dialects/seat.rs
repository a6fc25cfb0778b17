//! Who relays to whom: fixed groups, each member with names of its own.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::rc::{Rc, Weak};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Tells runs apart, so that one does not meet what another has left behind on the server.
static SALT: LazyLock<u32> = LazyLock::new(|| RandomState::new().hash_one(1u64) as u32);

/// Tells the rounds of one run apart.
static ROUND: AtomicU64 = AtomicU64::new(0);

/// A client's place in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seat {
    /// Number of the group.
    pub(crate) group: usize,
    /// Which of its members.
    pub(crate) member: usize,
    /// How many members there are.
    pub(crate) members: usize,
    /// How many times the group met before, under other names.
    pub(crate) cycle: u64,
}

impl Seat {
    /// Length of a name in bytes.
    pub(crate) const NAME_LEN: usize = 36;

    /// From now on all names are new.
    pub(crate) fn begin_round() {
        ROUND.fetch_add(1, Ordering::Relaxed);
    }

    /// The first seat of the client with this index, where each group has so many members.
    pub(crate) fn of(index: usize, members: usize) -> Self {
        let cycle = ROUND.load(Ordering::Relaxed) << 32;
        Self { group: index / members, member: index % members, members, cycle }
    }

    /// The name of a member of the group, unique among all groups, cycles and runs.
    pub(crate) fn name(&self, member: usize) -> String {
        format!("{:08x}-{:07x}-{member:02x}-{:016x}", *SALT, self.group, self.cycle)
    }

    /// 64 hexadecimal digits that the members share.
    pub(crate) fn connection_id(&self) -> String {
        format!("{:016x}{:016x}{:016x}{:016x}", *SALT, self.group, self.cycle, self.members)
    }
}

/// Somebody who wants to know when a group's record has changed.
pub(crate) trait Told: fmt::Debug {
    /// It has.
    fn told(&self);
}

/// What the members of a group share; all of them belong to one thread.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// The room that they meet in; it outlives a cycle.
    pub(crate) room: Rc<RefCell<Option<String>>>,
    /// Members that are in it.
    pub(crate) seated: Cell<usize>,
    members: RefCell<Vec<Weak<dyn Told>>>,
    /// What the server calls its members, where they know it.
    ids: RefCell<BTreeMap<usize, String>>,
}

impl Group {
    /// A group that meets in this room, or where it is decided later.
    pub(crate) fn in_room(room: Rc<RefCell<Option<String>>>) -> Self {
        Self { room, ..Self::default() }
    }

    /// One more wants to be told.
    pub(crate) fn enter(&self, member: Weak<dyn Told>) {
        self.members.borrow_mut().push(member);
    }

    /// A member has got this id.
    pub(crate) fn enter_as(&self, member: usize, id: &str) {
        self.ids.borrow_mut().insert(member, id.to_owned());
    }

    /// The id of a member, if it has one.
    pub(crate) fn id_of(&self, member: usize) -> Option<String> {
        self.ids.borrow().get(&member).cloned()
    }

    /// Tells all members.
    pub(crate) fn tell(&self) {
        let members = self.members.borrow().clone();
        members.iter().filter_map(Weak::upgrade).for_each(|member| member.told());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_length_and_differ_by_seat() {
        let seats = [(0, 0), (0, 1), (7, 0)].map(|(index, cycle)| Seat { cycle, ..Seat::of(index, 2) });
        let mut names: Vec<_> = seats.iter().flat_map(|seat| [seat.name(0), seat.name(1)]).collect();
        assert!(names.iter().all(|name| name.len() == Seat::NAME_LEN), "{names:?}");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 6);
        assert!(seats.iter().all(|seat| seat.connection_id().len() == 64));
        assert_eq!((seats[2].group, seats[2].member), (3, 1));
    }
}
