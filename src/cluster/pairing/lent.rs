//! What becomes of the waiter that the queue has lent: on the list, taken off it, offered, given back.

use super::list::{self, Met};
use super::{Awaited, Letter, News, Pairing, ask, clear, put_back, tell, write};
use crate::cluster::desk::{Desk, Maker};
use crate::cluster::{CLUSTER, FromCluster, Letter as AnyLetter, Reply};
use crate::id::{ClientId, HostId, RoomId, ShardIndex};
use crate::limits::{PAIRING_ASK_MS, PAIRING_LEFTOVERS_MAX, PAIRING_PASSED_OVER_MAX, PAIRING_RETRY_MS};
use crate::protocol::pairing::{Loan, Note, Waiter};

/// How far the cluster is with a waiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Redis is away, or did not answer: it is not known whether the waiter is on the list.
    Kept,
    /// Redis is asked whom it meets; the question's number.
    Meeting(u64),
    /// It is on the list.
    Listed,
    /// The queue wants it back: Redis is asked to take it off the list; the question's number.
    Removing(u64),
    /// It has met a client of this host, which is asked.
    Asking { host: HostId, theirs: ClientId, room: RoomId },
}

/// The waiter that the queue has lent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lent {
    loan: Loan,
    pub(super) waiter: Waiter,
    home: ShardIndex,
    stage: Stage,
    /// When the stage began.
    since_ms: u64,
    /// The queue wants it back.
    is_recalled: bool,
    /// For all that is known its id may be on the list.
    may_be_listed: bool,
    /// How often it was to go onto the list without being looked for there.
    listings: u32,
}

impl Lent {
    /// Whether somebody may have taken it unnoticed, and may put it back when nobody waits for that.
    fn may_return(&self) -> bool {
        self.listings > 1
    }
}

impl Pairing {
    /// Whether Redis can be asked for partners: what it says about them would be heard.
    fn can_ask(&self, desk: &Desk) -> bool {
        desk.is_up && !self.is_shutting_down && (self.hears_signals || !desk.has_public_layouts)
    }

    /// Redis may have come up: whoever waits is listed, and nobody else.
    pub(super) fn begin(&mut self, desk: &mut Desk) {
        if !self.can_ask(desk) {
            return;
        }
        for client in std::mem::take(&mut self.leftovers) {
            clear(client, desk);
        }
        if self.lent.is_some_and(|lent| lent.stage == Stage::Kept) {
            self.look(false, desk);
        }
    }

    pub(super) fn handle_list(&mut self, home: ShardIndex, loan: Loan, waiter: Waiter, desk: &mut Desk) {
        let (stage, since_ms) = (Stage::Kept, desk.now_ms);
        self.lent = Some(Lent {
            loan,
            waiter,
            home,
            stage,
            since_ms,
            is_recalled: false,
            may_be_listed: false,
            listings: 0,
        });
        self.look(false, desk);
    }

    pub(super) fn handle_recall(&mut self, loan: Loan, desk: &mut Desk) {
        let Some(lent) = self.lent.as_mut().filter(|lent| lent.loan == loan) else { return };
        lent.is_recalled = true;
        match lent.stage {
            Stage::Kept => self.give_back(desk),
            Stage::Listed => self.remove(desk),
            // What it has met is older than who came to the queue.
            Stage::Meeting(_) | Stage::Asking { .. } | Stage::Removing(_) => {}
        }
    }

    /// Whatever is said about the waiter from now on, nobody waits for it.
    pub(super) fn handle_forget(&mut self, loan: Loan, desk: &mut Desk) {
        let Some(lent) = self.lent.take_if(|lent| lent.loan == loan) else { return };
        self.note_return(lent, desk);
        if lent.may_be_listed {
            clear(lent.waiter.client, desk);
        }
    }

    /// Nobody of this host is to be taken from the list any more.
    pub(super) fn take_off(&mut self, desk: &mut Desk) {
        if let Some(loan) = self.lent.map(|lent| lent.loan) {
            self.handle_forget(loan, desk);
        }
    }

    /// Looks through the list anew: who could not be asked before perhaps can by now.
    fn look(&mut self, is_listed: bool, desk: &mut Desk) {
        self.passed_over.clear();
        self.meet(is_listed, desk);
    }

    /// Asks Redis whom the waiter meets, if it can be asked. `is_listed`: it should be on the list already.
    fn meet(&mut self, is_listed: bool, desk: &mut Desk) {
        let (can_ask, question) = (self.can_ask(desk), self.draw_question());
        let Some(lent) = &mut self.lent else { return };
        lent.since_ms = desk.now_ms;
        lent.stage = if can_ask { Stage::Meeting(question) } else { Stage::Kept };
        if can_ask {
            lent.may_be_listed = true;
            lent.listings += u32::from(!is_listed);
            let command = list::meet(lent.waiter.client, is_listed, &self.passed_over, desk);
            ask(Awaited::Meeting(question), command, desk);
        }
    }

    fn remove(&mut self, desk: &mut Desk) {
        let question = self.draw_question();
        let Some(lent) = &mut self.lent else { return };
        lent.stage = Stage::Removing(question);
        let command = list::remove(lent.waiter.client, desk);
        ask(Awaited::Removal(question), command, desk);
    }

    fn draw_question(&mut self) -> u64 {
        self.next_question += 1;
        self.next_question
    }

    pub(super) fn handle_met(&mut self, question: u64, met: Met<'_>, desk: &mut Desk) {
        let is_meeting = |lent: &&mut Lent| lent.stage == Stage::Meeting(question);
        let Some(lent) = self.lent.as_mut().filter(is_meeting) else {
            // Our waiter is gone meanwhile, or meets others. One of our hosts misses its own, and lists it anew.
            if let Met::Foreign(other) = met {
                put_back(other, desk);
            }
            return;
        };
        let asked_ms = std::mem::replace(&mut lent.since_ms, desk.now_ms);
        lent.may_be_listed = matches!(met, Met::Waits | Met::Unknown);
        lent.stage = if met == Met::Waits { Stage::Listed } else { Stage::Kept };
        let is_recalled = lent.is_recalled;
        match met {
            Met::Ours(other) => {
                // Its host may be newer than what we have read and heard.
                if let Some(id) = ClientId::parse(other) {
                    desk.roll.add(id.host());
                }
                self.handle_other(other, asked_ms, desk);
            }
            Met::Foreign(other) => {
                if let Some(id) = ClientId::parse(other) {
                    desk.roll.note_stranger(id.host());
                }
                self.handle_other(other, asked_ms, desk);
            }
            Met::Missing => self.hand_over(true, desk),
            Met::Waits if is_recalled => self.remove(desk),
            Met::Unknown if is_recalled => self.give_back(desk),
            Met::Waits | Met::Unknown => {}
        }
    }

    /// Our waiter has met another one; both are off the list. Redis was asked at `asked_ms`.
    fn handle_other(&mut self, other: &[u8], asked_ms: u64, desk: &mut Desk) {
        let Some(id) = ClientId::parse(other) else { return self.drop_met(desk) };
        match desk.maker(id) {
            Maker::Here => match self.watch.take_missing(id) {
                Some(older) => self.match_here(older, desk),
                None => self.drop_met(desk),
            },
            Maker::Neighbour(host) => self.ask_host(host, id, desk),
            Maker::Unreached(_) => self.pass_over(id, asked_ms, desk),
            Maker::Foreign if desk.has_public_layouts && !self.foreigners.is_engaged(id) => {
                let Some(newer) = self.lent.map(|lent| lent.waiter) else { return };
                self.foreigners.offer(id, newer, desk);
                self.hand_over(false, desk);
            }
            Maker::Foreign | Maker::Gone(_) => self.drop_met(desk),
        }
    }

    /// Whom our waiter has met is nobody.
    fn drop_met(&mut self, desk: &mut Desk) {
        desk.metrics.counters.pairing_dropped.add(1);
        self.go_on(desk);
    }

    /// Nothing has come of the last meeting.
    pub(super) fn go_on(&mut self, desk: &mut Desk) {
        match self.lent {
            Some(lent) if lent.is_recalled => self.give_back(desk),
            Some(_) => self.meet(false, desk),
            None => {}
        }
    }

    /// A client of this host has turned up again that somebody else had taken.
    fn match_here(&mut self, older: Waiter, desk: &mut Desk) {
        let Some(newer) = self.lent.map(|lent| lent.waiter) else { return };
        let room = RoomId::new(&mut desk.entropy);
        tell(newer.client, Note::Offer { room, older, newer }, desk);
        self.watch.add(older, false, desk.now_ms);
        self.hand_over(false, desk);
    }

    fn ask_host(&mut self, host: HostId, theirs: ClientId, desk: &mut Desk) {
        let Some(lent) = &mut self.lent else { return };
        let room = RoomId::new(&mut desk.entropy);
        lent.stage = Stage::Asking { host, theirs, room };
        let take = Letter::Take { theirs, ours: lent.waiter, room };
        write(host, CLUSTER, take, desk);
    }

    /// Whom our waiter has met cannot be asked at the moment: somebody else may, or we may later.
    fn pass_over(&mut self, id: ClientId, asked_ms: u64, desk: &mut Desk) {
        // After that its host has missed it and lists it anew; or it has left, and is not looked for any more.
        if desk.now_ms.saturating_sub(asked_ms) < PAIRING_ASK_MS {
            put_back(&id.text(), desk);
        }
        if self.passed_over.len() < PAIRING_PASSED_OVER_MAX {
            self.passed_over.insert(id);
            return self.go_on(desk);
        }
        let Some(lent) = &mut self.lent else { return };
        lent.stage = Stage::Kept;
        if lent.is_recalled {
            self.give_back(desk);
        }
    }

    pub(super) fn handle_removed(&mut self, question: u64, reply: &Reply, desk: &mut Desk) {
        let is_removing = |lent: &&mut Lent| lent.stage == Stage::Removing(question);
        let Some(lent) = self.lent.as_mut().filter(is_removing) else { return };
        match reply {
            Reply::Integer(0) => self.hand_over(true, desk),
            reply => {
                lent.may_be_listed = *reply == Reply::Failed;
                self.give_back(desk);
            }
        }
    }

    /// The waiter is the queue's again.
    fn give_back(&mut self, desk: &mut Desk) {
        let Some(lent) = self.lent.take() else { return };
        desk.mail(lent.home, FromCluster::Pairing(News::Recalled(lent.loan)));
        self.note_return(lent, desk);
        if lent.may_be_listed {
            clear(lent.waiter.client, desk);
        }
    }

    /// Somebody else has the waiter; `is_missing`: not known who.
    fn hand_over(&mut self, is_missing: bool, desk: &mut Desk) {
        let Some(lent) = self.lent.take() else { return };
        desk.mail(lent.home, FromCluster::Pairing(News::Taken(lent.loan)));
        self.note_return(lent, desk);
        self.watch.add(lent.waiter, is_missing, desk.now_ms);
    }

    fn note_return(&mut self, lent: Lent, desk: &Desk) {
        if lent.may_return() {
            self.note_stray(lent.waiter.client, desk);
        }
    }

    /// Another host has met our waiter.
    pub(super) fn handle_take(
        &mut self,
        from: HostId,
        theirs: ClientId,
        newer: Waiter,
        room: RoomId,
        desk: &mut Desk,
    ) {
        let lent = self.lent.filter(|lent| lent.waiter.client == theirs);
        let older = match lent {
            Some(lent) if !matches!(lent.stage, Stage::Asking { .. }) => {
                if lent.may_be_listed {
                    // It may have gone onto the list anew after it was taken off.
                    clear(theirs, desk);
                }
                self.hand_over(false, desk);
                lent.waiter
            }
            _ => match self.watch.take_missing(theirs) {
                Some(waiter) => {
                    self.watch.add(waiter, false, desk.now_ms);
                    waiter
                }
                None => return write(from, CLUSTER, Letter::Refused { room }, desk),
            },
        };
        write(from, CLUSTER, Letter::Offer { room, older, newer }, desk);
    }

    /// Another host gives us its waiter for ours.
    pub(super) fn handle_offer(
        &mut self,
        from: HostId,
        room: RoomId,
        older: Waiter,
        newer: Waiter,
        desk: &mut Desk,
    ) {
        let asked = Stage::Asking { host: from, theirs: older.client, room };
        if self.lent.is_some_and(|lent| lent.stage == asked && lent.waiter == newer) {
            desk.metrics.counters.pairing_matches.add(1);
            tell(newer.client, Note::Offer { room, older, newer }, desk);
            self.hand_over(false, desk);
        } else {
            let declined = AnyLetter::Note(Note::Declined(older));
            desk.write(from, older.client.shard(), &declined);
        }
    }

    pub(super) fn handle_refused(&mut self, from: HostId, refused: RoomId, desk: &mut Desk) {
        let is_asked = |lent: Lent| matches!(lent.stage, Stage::Asking { host, room, .. } if host == from && room == refused);
        if self.lent.is_some_and(is_asked) {
            self.drop_met(desk);
        }
    }

    /// An id may be on the list that should not.
    pub(super) fn leave_over(&mut self, client: ClientId) {
        if self.leftovers.len() < PAIRING_LEFTOVERS_MAX {
            self.leftovers.insert(client);
        }
    }

    /// Redis cannot be asked: the waiter is kept until it can, or is the queue's again.
    pub(super) fn keep(&mut self, desk: &mut Desk) {
        let Some(lent) = &mut self.lent else { return };
        (lent.stage, lent.since_ms) = (Stage::Kept, desk.now_ms);
        if lent.is_recalled {
            self.give_back(desk);
        }
    }

    /// There may be others on the list by now.
    pub(super) fn look_again(&mut self, desk: &mut Desk) {
        if self.lent.is_some_and(|lent| lent.stage == Stage::Listed) {
            self.look(true, desk);
        }
    }

    /// Time has passed.
    pub(super) fn retry(&mut self, desk: &mut Desk) {
        let Some(lent) = &self.lent else { return };
        let age_ms = desk.now_ms.saturating_sub(lent.since_ms);
        match lent.stage {
            Stage::Listed if age_ms >= PAIRING_RETRY_MS => self.look(true, desk),
            Stage::Kept if age_ms >= PAIRING_RETRY_MS => self.look(false, desk),
            Stage::Asking { .. } if age_ms >= PAIRING_ASK_MS => self.go_on(desk),
            Stage::Listed | Stage::Kept | Stage::Asking { .. } | Stage::Meeting(_) | Stage::Removing(_) => {}
        }
    }

    /// A host that may have been asked is gone. Whoever of it waits still is put on the list by it, if it is there.
    pub(super) fn lose_asked(&mut self, gone: HostId, desk: &mut Desk) {
        if self.lent.is_some_and(|lent| matches!(lent.stage, Stage::Asking { host, .. } if host == gone)) {
            self.go_on(desk);
        }
    }
}
