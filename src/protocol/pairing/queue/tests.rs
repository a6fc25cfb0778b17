//! What the queue says to shards and to the cluster, whatever the order of what it hears.

use super::*;
use crate::id::{HostId, ShardIndex, Slot};
use crate::protocol::pairing::Ticket;

struct Table {
    queue: Queue,
    entropy: Entropy,
}

fn table(has_cluster: bool) -> Table {
    Table { queue: Queue::new(has_cluster, Planted::default()), entropy: Entropy::from_seed([1; 32]) }
}

fn waiter(number: u32) -> Waiter {
    let mut entropy = Entropy::from_seed([number as u8; 32]);
    let client = ClientId::new(HostId(1), ShardIndex(0), Slot(number), &mut entropy);
    Waiter { client, ticket: Ticket::new(7) }
}

/// What the queue has said, in short.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Match(ClientId, ClientId),
    Errand(Errand),
}

impl Table {
    fn handle(&mut self, handle: impl FnOnce(&mut Queue, &mut Entropy, &mut Actions)) -> Vec<Said> {
        let mut out = Actions::new();
        handle(&mut self.queue, &mut self.entropy, &mut out);
        let said = |action| match action {
            Action::Notify { to: Address::Client(to), note: Note::Offer { older, newer, .. } } => {
                assert_eq!(to, newer.client, "the newer one is asked first");
                Said::Match(older.client, newer.client)
            }
            Action::Ask(errand) => Said::Errand(errand),
            other => panic!("{other:?}"),
        };
        out.into_iter().map(said).collect()
    }

    fn wait(&mut self, number: u32) -> Vec<Said> {
        self.handle(|queue, entropy, out| queue.handle_wait(waiter(number), entropy, out))
    }

    fn unwait(&mut self, number: u32) -> Vec<Said> {
        self.handle(|queue, entropy, out| queue.handle_unwait(waiter(number), entropy, out))
    }

    fn recalled(&mut self, loan: u64) -> Vec<Said> {
        self.handle(|queue, entropy, out| queue.handle_recalled(Loan(loan), entropy, out))
    }

    fn taken(&mut self, loan: u64) -> Vec<Said> {
        self.handle(|queue, entropy, out| queue.handle_taken(Loan(loan), entropy, out))
    }

    /// The next reminder comes, if one is set.
    fn remind(&mut self) -> Vec<Said> {
        assert!(self.queue.poll_reminder(), "a reminder is wanted");
        assert!(!self.queue.poll_reminder(), "once");
        self.handle(Queue::handle_reminder)
    }

    /// A waiter that was left over is lent, as this loan.
    fn lend(&mut self, number: u32, loan: u64) {
        assert_eq!(self.wait(number), []);
        assert_eq!(self.remind(), [], "it may have come just now");
        assert_eq!(self.remind(), [list(loan, number)]);
        assert!(!self.queue.poll_reminder(), "there is nothing to be done until somebody comes");
    }
}

fn pair(older: u32, newer: u32) -> Said {
    Said::Match(waiter(older).client, waiter(newer).client)
}

fn list(loan: u64, number: u32) -> Said {
    Said::Errand(Errand::List { loan: Loan(loan), waiter: waiter(number) })
}

fn recall(loan: u64) -> Said {
    Said::Errand(Errand::Recall(Loan(loan)))
}

fn forget(loan: u64) -> Said {
    Said::Errand(Errand::Forget(Loan(loan)))
}

#[test]
fn without_a_cluster_nobody_is_lent() {
    let mut table = table(false);
    assert_eq!(table.wait(1), []);
    assert!(!table.queue.poll_reminder());
    assert_eq!(table.wait(2), [pair(1, 2)]);
    assert_eq!(table.queue.oldest(), None);
}

#[test]
fn two_that_come_soon_are_matched_and_the_cluster_hears_nothing() {
    let mut table = table(true);
    assert_eq!(table.wait(1), []);
    assert_eq!(table.remind(), []);
    assert_eq!(table.wait(2), [pair(1, 2)]);
    // Another one has to be alone for as long.
    assert_eq!(table.wait(3), []);
    assert_eq!(table.remind(), []);
    assert_eq!(table.unwait(3), []);
    assert_eq!(table.wait(4), []);
    assert_eq!(table.remind(), []);
    assert_eq!(table.remind(), [list(0, 4)]);
}

#[test]
fn one_who_is_lent_is_asked_back_for_the_next_who_comes() {
    let mut table = table(true);
    table.lend(1, 0);
    assert_eq!(table.queue.oldest(), Some(waiter(1).client));
    assert_eq!(table.wait(2), [recall(0)]);
    assert_eq!([table.wait(3), table.wait(4)], [[], []], "first in, first out");
    assert_eq!(table.recalled(0), [pair(1, 2), pair(3, 4)]);
    assert_eq!([table.recalled(0), table.taken(0)], [[], []], "an old loan says nothing");
    assert_eq!(table.queue.oldest(), None);
}

#[test]
fn when_one_is_taken_the_others_go_on_without() {
    let mut table = table(true);
    table.lend(1, 0);
    assert_eq!(table.taken(0), []);
    table.lend(2, 1);
    assert_eq!(table.wait(3), [recall(1)]);
    assert_eq!(table.taken(0), [], "an old loan says nothing");
    assert_eq!(table.taken(1), []);
    assert_eq!(table.remind(), []);
    assert_eq!(table.remind(), [list(2, 3)], "it is lent in its turn");
    assert_eq!([table.wait(4), table.wait(5), table.wait(6)], [vec![recall(2)], vec![], vec![]]);
    assert_eq!(table.taken(2), [pair(4, 5)]);
    assert_eq!(table.queue.oldest(), Some(waiter(6).client));
}

#[test]
fn one_who_leaves_is_forgotten_wherever_it_is() {
    let mut table = table(true);
    table.lend(1, 0);
    assert_eq!(table.unwait(1), [forget(0)]);
    assert_eq!(table.queue.oldest(), None);
    table.lend(2, 1);
    assert_eq!([table.wait(3), table.wait(4)], [vec![recall(1)], vec![]]);
    assert_eq!(table.unwait(3), []);
    assert_eq!(table.recalled(1), [pair(2, 4)]);
    // The one who is asked back leaves: the others need not wait for it.
    table.lend(5, 2);
    assert_eq!([table.wait(6), table.wait(7)], [vec![recall(2)], vec![]]);
    assert_eq!(table.unwait(5), [forget(2), pair(6, 7)]);
    assert_eq!(table.recalled(2), []);
}

#[test]
fn an_old_ticket_is_nobodys() {
    let mut table = table(true);
    table.lend(1, 0);
    let old = Waiter { ticket: Ticket::new(6), ..waiter(1) };
    assert_eq!(table.handle(|queue, entropy, out| queue.handle_unwait(old, entropy, out)), []);
    assert_eq!(table.queue.oldest(), Some(waiter(1).client));
}

/// What its shard says may overtake that it was taken.
#[test]
fn one_who_comes_back_while_it_is_lent_is_in_the_queue_once() {
    let mut table = table(true);
    table.lend(1, 0);
    let again = Waiter { ticket: Ticket::new(8), ..waiter(1) };
    assert_eq!(table.handle(|queue, entropy, out| queue.handle_wait(again, entropy, out)), [forget(0)]);
    assert_eq!(table.taken(0), []);
    assert_eq!(table.wait(2), [pair(1, 2)]);
    assert_eq!(table.queue.oldest(), None);
}

#[test]
fn a_cluster_that_does_not_answer_holds_nobody_up_for_long() {
    let mut table = table(true);
    table.lend(1, 0);
    assert_eq!([table.wait(2), table.wait(3)], [vec![recall(0)], vec![]]);
    for _ in 1..PAIRING_RECALL_MS / PAIRING_REMINDER_MS {
        assert_eq!(table.remind(), []);
    }
    assert_eq!(table.remind(), [pair(2, 3)]);
    assert!(!table.queue.poll_reminder());
    assert_eq!(table.wait(4), []);
    assert_eq!(table.wait(5), [pair(4, 5)]);
    assert_eq!(table.wait(6), []);
    assert_eq!(table.recalled(0), [pair(1, 6)]);
}
