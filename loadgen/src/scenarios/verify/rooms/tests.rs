//! Every kind of violation is found when a history has it.

use std::time::Duration;

use super::super::court::Court;
use super::super::judge::{DropKind, Judge as _};
use super::super::label::Label;
use super::super::violation::Violation;
use super::{ACROSS, Asked, Judge, is_uuid, signal};
use crate::client::Ending;
use crate::net::spread::{Placing, Spread};

fn court(in_flight: usize) -> Court<Judge> {
    Court::new(Judge::new(Placing::ONE, in_flight, true))
}

fn id(number: u32) -> String {
    format!("7d3a91c0-58be-4e27-8f57-{number:012x}")
}

fn entered(kind: &str, room: &str, number: u32) -> String {
    format!(r#"{{"type":"{kind}","roomId":"{room}","myId":"{}"}}"#, id(number))
}

fn created(room: &str, number: u32) -> String {
    entered("room_created", room, number)
}

fn joined(room: &str, number: u32) -> String {
    entered("room_joined", room, number)
}

const NOT_FOUND: &str = r#"{"type":"error","message":"Room not found"}"#;

/// Connections 0, 1 and 2 are in room 1000.
fn three() -> Court<Judge> {
    let mut court = court(1);
    court.open(0);
    court.hear(0, &created("1000", 0)).expect("good");
    for number in 1..3 {
        court.open(number as usize);
        court.hear(number, &joined("1000", number)).expect("good");
    }
    court
}

/// A client moves.
fn moves(court: &mut Court<Judge>, number: u32, asked: Asked, answer: &str) {
    court.judge.member(number).asked = Some(asked);
    court.hear(number, answer).expect("good");
}

/// The next signal of a client, as others hear it.
fn said(court: &mut Court<Judge>, number: u32) -> String {
    let member = court.judge.member(number);
    member.seen = member.sequence();
    member.next_at = None;
    let said = court.tick(number).remove(0);
    let label = Label::find(said.as_bytes()).expect("a label");
    assert_eq!(said, signal(&court.judge.bodies, &label));
    let payload = court.judge.bodies.of(&label).opaque;
    format!(r#"{{"type":"signal","senderId":"{}","payload":{payload}}}"#, id(number))
}

#[test]
fn a_good_history_passes() {
    let mut court = three();
    for _ in 0..20 {
        let signal = said(&mut court, 0);
        court.hear(1, &signal).expect("good");
        court.hear(2, &signal).expect("good");
    }
    moves(&mut court, 0, Asked::Create, &created("2000", 0));
    moves(&mut court, 0, Asked::Join("1000".to_owned()), &joined("1000", 0));
    let signal = said(&mut court, 0);
    court.hear(1, &signal).expect("good");
    court.hear(2, &signal).expect("good");
    assert_eq!(court.finish(None), Ok(()));
}

#[test]
fn a_client_alone_goes_on_slowly() {
    let mut court = court(3);
    court.open(0);
    court.hear(0, &created("1000", 0)).expect("good");
    assert_eq!(court.tick(0).len(), 3);
    court.now -= Duration::from_millis(60);
    assert_eq!(court.tick(0).len(), 0);
    assert_eq!(court.tick(0).len(), 3);
}

#[test]
fn rooms_are_four_digits_that_nobody_else_has() {
    for wrong in ["0999", "999", "10000", "12a4"] {
        let mut court = court(1);
        court.open(0);
        assert!(court.hear(0, &created(wrong, 0)).is_err(), "{wrong}");
    }
    let mut court = three();
    court.judge.member(1).asked = Some(Asked::Create);
    assert!(matches!(court.hear(1, &created("1000", 1)), Err(Violation::NotUnique { .. })));
    court.now += Duration::from_secs(400);
    court.judge.member(1).asked = Some(Asked::Create);
    assert!(court.hear(1, &created("1000", 1)).is_ok(), "it has expired");
}

#[test]
fn answers_are_to_what_was_asked() {
    let mut court = three();
    assert!(matches!(court.hear(1, &joined("1000", 1)), Err(Violation::WrongAnswer { .. })));
    court.judge.member(1).asked = Some(Asked::Join("1000".to_owned()));
    assert!(matches!(court.hear(1, &joined("2000", 1)), Err(Violation::WrongAnswer { .. })));
    court.judge.member(1).asked = Some(Asked::Join("1000".to_owned()));
    assert!(matches!(court.hear(1, &created("2000", 1)), Err(Violation::WrongAnswer { .. })));
    court.judge.member(1).asked = Some(Asked::Join("1000".to_owned()));
    let other_order = format!(r#"{{"type":"room_joined","myId":"{}","roomId":"1000"}}"#, id(1));
    assert!(matches!(court.hear(1, &other_order), Err(Violation::Different { .. })));
    assert!(matches!(court.hear(1, "{}"), Err(Violation::Unknown { .. })));
}

#[test]
fn ids_are_one_s_own_and_stay() {
    let check = |kind: &dyn Fn(&str) -> String| {
        let mut court = three();
        court.judge.member(1).asked = Some(Asked::Join("1000".to_owned()));
        court.hear(1, &kind("1000"))
    };
    assert_eq!(check(&|room| joined(room, 1)), Ok(Vec::new()));
    assert!(matches!(check(&|room| joined(room, 7)), Err(Violation::NotUnique { .. })));
    assert!(matches!(check(&|room| joined(room, 0)), Err(Violation::NotUnique { .. })));
    let no_uuid = |room: &str| joined(room, 1).replace("-4e27", "-1e27");
    assert!(matches!(check(&no_uuid), Err(Violation::Unknown { .. })));
    assert!(is_uuid(&id(5)) && !is_uuid(&id(5).to_uppercase()));
}

#[test]
fn a_room_is_not_found_only_where_there_is_none() {
    let mut court = three();
    court.judge.member(1).asked = Some(Asked::Join("1000".to_owned()));
    assert!(matches!(court.hear(1, NOT_FOUND), Err(Violation::Error { .. })));
    assert!(court.drop_out(1, DropKind::JoinNone).is_some());
    court.hear(1, NOT_FOUND).expect("there is none");
    assert!(matches!(court.hear(1, NOT_FOUND), Err(Violation::Error { .. })), "nothing was asked");
    let signal = said(&mut court, 1);
    assert!(court.hear(0, &signal).is_ok(), "it has not moved");
    let full = r#"{"type":"error","message":"No rooms available"}"#;
    assert!(matches!(court.hear(1, full), Err(Violation::Error { .. })));
    let (late, _) = court.open(4);
    court.hear(late, full).expect("it wanted a new room");
    assert_eq!(court.tick(late), [r#"{"type":"create"}"#]);
}

#[test]
fn nobody_moves_while_an_answer_is_due() {
    let mut court = three();
    assert!(court.drop_out(1, DropKind::Rejoin).is_some());
    assert!(court.drop_out(1, DropKind::Create).is_none());
    assert_eq!(court.tick(1), Vec::<String>::new());
}

#[test]
fn signals_come_from_others_in_the_room_unchanged() {
    let mut court = three();
    let signal = said(&mut court, 0);
    assert_eq!(court.hear(0, &signal), Err(Violation::Self_));
    let foreign = signal.replace(&id(0), &id(2));
    assert!(matches!(court.hear(1, &foreign), Err(Violation::WrongSender { .. })));
    for (from, to) in [("x-label", "y-label"), (r#","payload""#, r#","extra":1,"payload""#), ("v=0", "v=1")] {
        let changed = signal.replacen(from, to, 1);
        assert!(court.hear(1, &changed).is_err(), "{changed}");
    }
    court.hear(1, &signal).expect("good");
    moves(&mut court, 2, Asked::Create, &created("2000", 2));
    assert!(matches!(court.hear(2, &signal), Err(Violation::WrongKey { .. })));
}

#[test]
fn a_signal_from_nowhere_is_heard_by_nobody() {
    let mut court = three();
    let label = Label { sender: 0, sequence: 0, key_sequence: 0, key: super::NOWHERE.to_owned() };
    let payload = court.judge.bodies.of(&label).opaque;
    let signal = format!(r#"{{"type":"signal","senderId":"{}","payload":{payload}}}"#, id(0));
    assert!(matches!(court.hear(1, &signal), Err(Violation::WrongKey { .. })));
}

#[test]
fn gaps_and_repeats_are_found() {
    let mut court = three();
    let signals: Vec<_> = (0..3).map(|_| said(&mut court, 0)).collect();
    assert!(matches!(court.hear(1, &signals[1]), Err(Violation::Lost { due: 0, .. })));
    court.hear(1, &signals[0]).expect("good");
    assert!(matches!(court.hear(1, &signals[0]), Err(Violation::Repeated { .. })));
    assert!(matches!(court.hear(1, &signals[2]), Err(Violation::Lost { due: 1, .. })));
}

#[test]
fn who_comes_later_hears_all_from_then_on() {
    let check = |first: usize| {
        let mut court = three();
        let mut signals = vec![said(&mut court, 0), said(&mut court, 0)];
        court.open(3);
        court.hear(3, &joined("1000", 3)).expect("good");
        signals.extend([said(&mut court, 0), said(&mut court, 0)]);
        court.hear(3, &signals[first])
    };
    assert!(check(0).is_ok() && check(1).is_ok() && check(2).is_ok());
    assert!(matches!(check(3), Err(Violation::Lost { due: 2, .. })));
}

#[test]
fn a_stint_is_complete_before_the_next() {
    let mut court = three();
    let first = said(&mut court, 0);
    court.hear(1, &first).expect("good");
    moves(&mut court, 0, Asked::Create, &created("2000", 0));
    moves(&mut court, 0, Asked::Join("1000".to_owned()), &joined("1000", 0));
    let next = said(&mut court, 0);
    court.hear(1, &next).expect("good");
    // The third member has not heard the first one.
    assert!(matches!(court.hear(2, &next), Err(Violation::NotArrived { sent: 1, arrived: 0, .. })));
    let after = said(&mut court, 0);
    assert!(matches!(court.hear(2, &after), Err(Violation::NotArrived { .. })));
}

#[test]
fn one_who_leaves_while_another_comes_may_still_be_heard() {
    let check = |first: usize, then: usize| {
        let mut court = three();
        let signals: Vec<_> = (0..4).map(|_| said(&mut court, 0)).collect();
        court.open(3);
        // The answers to the two come in this order, whatever the order was in which they were read.
        moves(&mut court, 0, Asked::Create, &created("2000", 0));
        court.hear(3, &joined("1000", 3)).expect("good");
        court.hear(3, &signals[first]).expect("it may have come in time");
        court.hear(3, &signals[then])
    };
    assert!(check(2, 3).is_ok());
    assert!(matches!(check(1, 3), Err(Violation::Lost { due: 2, .. })));
    assert!(matches!(check(2, 1), Err(Violation::Repeated { due: 3, .. })));
}

#[test]
fn a_stint_does_not_come_after_the_next() {
    let mut court = three();
    let first = said(&mut court, 0);
    court.hear(1, &first).expect("good");
    let missed = said(&mut court, 0);
    moves(&mut court, 0, Asked::Create, &created("2000", 0));
    moves(&mut court, 0, Asked::Join("1000".to_owned()), &joined("1000", 0));
    let next = said(&mut court, 0);
    assert!(matches!(court.hear(1, &next), Err(Violation::NotArrived { sent: 2, arrived: 1, .. })));
    court.judge.member(0).gone = Some(DropKind::Reset);
    court.hear(1, &next).expect("who was cut need not be complete");
    assert!(matches!(court.hear(1, &missed), Err(Violation::Repeated { .. })));
}

#[test]
fn what_is_sent_elsewhere_is_not_missed() {
    let mut court = three();
    // Nothing is said in the room before the client moves: both stints begin with the same number.
    court.open(3);
    court.hear(3, &joined("1000", 3)).expect("good");
    moves(&mut court, 0, Asked::Create, &created("2000", 0));
    said(&mut court, 0);
    assert_eq!(court.finish(None), Ok(()));
    moves(&mut court, 0, Asked::Join("1000".to_owned()), &joined("1000", 0));
    assert_eq!(court.finish(None), Ok(()));
    let signal = said(&mut court, 0);
    (1..4).for_each(|number| {
        court.hear(number, &signal).expect("good");
    });
    assert_eq!(court.finish(None), Ok(()));
}

#[test]
fn at_the_end_all_has_arrived() {
    let mut court = three();
    let signal = said(&mut court, 0);
    court.hear(1, &signal).expect("good");
    assert!(matches!(court.finish(None), Err(Violation::NotArrived { sent: 1, arrived: 0, .. })));
    court.hear(2, &signal).expect("good");
    assert_eq!(court.finish(None), Ok(()));
    let more = said(&mut court, 0);
    court.hear(1, &more).expect("good");
    court.end(0, DropKind::Reset);
    assert_eq!(court.finish(None), Ok(()));
    court.judge.member(0).gone = Some(DropKind::WebSocketClose);
    assert!(matches!(court.finish(None), Err(Violation::NotArrived { sent: 2, arrived: 1, .. })));
}

#[test]
fn only_an_expired_room_closes_its_sockets() {
    let expired = Ending::Closed(1000, "Room expired".to_owned());
    let mut court = three();
    assert!(court.judge.closed_unasked(0, &expired).is_err(), "it is new");
    court.judge.rooms.get_mut("1000").expect("the room").entered -= Duration::from_secs(5);
    assert!(court.judge.closed_unasked(0, &Ending::Closed(1000, String::new())).is_err());
    assert_eq!(court.judge.closed_unasked(0, &expired), Ok(()));
    assert_eq!(court.judge.closed_unasked(1, &expired), Ok(()));
    court.judge.member(2).asked = Some(Asked::Join("1000".to_owned()));
    assert!(court.hear(2, NOT_FOUND).is_ok());
    let mut alone = self::court(1);
    alone.open(0);
    assert!(alone.judge.closed_unasked(0, &expired).is_err(), "it is in no room");
}

#[test]
fn a_newcomer_on_another_host_may_miss_what_was_sent_a_moment_ago() {
    let mut court = Court::new(Judge::new(Placing::new(2, Spread::Across), 1, true));
    court.open(0);
    court.hear(0, &created("1000", 0)).expect("good");
    for number in 1..3 {
        court.open(number as usize);
        court.hear(number, &joined("1000", number)).expect("good");
    }
    let signals: Vec<_> = (0..3).map(|_| said(&mut court, 0)).collect();
    court.hear(1, &signals[1]).expect("its host did not know of it when the first was sent");
    assert!(matches!(court.hear(2, &signals[1]), Err(Violation::Lost { .. })), "on the host of the sender");
    court.hear(1, &signals[2]).expect("the next");
    court.now += ACROSS;
    let [_, second] = [said(&mut court, 0), said(&mut court, 0)];
    assert!(matches!(court.hear(1, &second), Err(Violation::Lost { .. })), "it is known everywhere by now");
}

#[test]
fn where_redis_comes_back_empty_only_rooms_with_members_live_on() {
    for keeps_empty in [true, false] {
        let mut court = three();
        court.judge.keeps_empty = keeps_empty;
        moves(&mut court, 0, Asked::Create, &created("2000", 0));
        moves(&mut court, 0, Asked::Join("1000".to_owned()), &joined("1000", 0));
        let refused = |court: &mut Court<Judge>, room: &str| {
            court.judge.member(0).asked = Some(Asked::Join(room.to_owned()));
            court.hear(0, NOT_FOUND)
        };
        let without_members = refused(&mut court, "2000");
        assert_eq!(without_members.is_err(), keeps_empty);
        court.end(2, DropKind::Reset);
        let with_one = refused(&mut court, "1000");
        assert!(matches!(with_one, Err(Violation::Error { .. })), "{with_one:?}");
    }
}
