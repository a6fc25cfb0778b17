//! Every kind of violation is found when a history has it.

use std::time::{Duration, Instant};

use super::super::court::Court;
use super::super::judge::Judge as _;
use super::super::label::{Bodies, Label};
use super::super::violation::Violation;
use super::Judge;
use super::WAIT_MAX;
use super::checker::{Checker, Departure, Heard};
use super::registry::Registry;
use crate::net::spread::{Placing, Spread};

fn heard(checker: &mut Checker, message: &str) -> Result<Heard, Violation> {
    checker.hear(message.as_bytes(), &Bodies::new())
}

fn matched(room: &str, partner: &str) -> String {
    format!(r#"{{"type":"matched","roomId":"{room}","partnerId":"{partner}"}}"#)
}

fn error(code: &str) -> String {
    format!(r#"{{"type":"error","code":"{code}","message":"…"}}"#)
}

fn label(sequence: u32, key_sequence: u32, room: &str) -> Label {
    Label { sender: 2, sequence, key_sequence, key: room.to_owned() }
}

fn relayed(from: &str, label: &Label) -> String {
    let body = Bodies::new().of(label);
    format!(r#"{{"type":"{}","from":"{from}","{}":{}}}"#, body.kind, body.field, body.opaque)
}

/// Client `a`, number 1, in room `r` with `b`, number 2.
fn paired() -> Checker {
    let mut checker = Checker::new(1);
    heard(&mut checker, r#"{"type":"ready","clientId":"a"}"#).expect("ready");
    heard(&mut checker, &matched("r", "b")).expect("matched");
    checker
}

const PARTNER_LEFT: &str = r#"{"type":"partner-left"}"#;
const PONG: &str = r#"{"type":"pong"}"#;

#[test]
fn a_good_history_passes() {
    let mut a = paired();
    for sequence in 0..100 {
        let message = relayed("b", &label(sequence, sequence, "r"));
        let first = sequence == 0;
        let good = Heard::Message { label: label(sequence, sequence, "r"), first, carried: false };
        assert_eq!(heard(&mut a, &message), Ok(good));
    }
    let left = Heard::PartnerLeft { room_id: "r".to_owned(), read_below: 0 };
    assert_eq!(heard(&mut a, PARTNER_LEFT), Ok(left));
    assert_eq!(heard(&mut a, &matched("s", "c")), Ok(Heard::Matched));
}

#[test]
fn ready_comes_first_and_once() {
    let mut fresh = Checker::new(1);
    assert_eq!(heard(&mut fresh, &matched("r", "b")), Err(Violation::Ready));
    assert_eq!(heard(&mut paired(), r#"{"type":"ready","clientId":"a"}"#), Err(Violation::Ready));
}

#[test]
fn nobody_is_matched_with_itself_or_twice() {
    let mut a = paired();
    assert_eq!(heard(&mut a, &matched("s", "c")), Err(Violation::MatchedAgain { room: "r".to_owned() }));
    heard(&mut a, PARTNER_LEFT).expect("left");
    assert_eq!(heard(&mut a, &matched("s", "a")), Err(Violation::Self_));
}

#[test]
fn only_the_partner_is_heard() {
    let mut a = paired();
    let stranger = heard(&mut a, &relayed("c", &label(0, 0, "r")));
    assert!(matches!(stranger, Err(Violation::WrongSender { .. })), "{stranger:?}");
    heard(&mut a, PARTNER_LEFT).expect("left");
    let late = heard(&mut a, &relayed("b", &label(0, 0, "r")));
    assert_eq!(late, Err(Violation::Stranger { from: "b".to_owned() }));
    assert_eq!(heard(&mut a, PARTNER_LEFT), Err(Violation::LeftByNobody));
}

#[test]
fn gaps_repeats_and_wrong_beginnings_are_found() {
    let after = |first: u32, then: u32| {
        let mut a = paired();
        heard(&mut a, &relayed("b", &label(first, first, "r")))?;
        heard(&mut a, &relayed("b", &label(then, then, "r")))
    };
    assert!(matches!(after(0, 2), Err(Violation::Lost { due: 1, .. })));
    assert!(matches!(after(0, 0), Err(Violation::Repeated { due: 1, .. })));
    assert!(matches!(after(1, 2), Err(Violation::Lost { due: 0, .. })));
}

#[test]
fn changed_bytes_are_found() {
    for sequence in 0..8 {
        let mut label = label(sequence, 0, "r");
        label.sender = 8;
        let message = relayed("b", &label);
        for (from, to) in [("8x-label", ""), ("1.50", "1.5"), ("v=0", "v=1"), ("sdpMid", "sdpmid")] {
            let changed = message.replace(from, to);
            if changed != message {
                let found = heard(&mut paired(), &changed);
                assert!(matches!(found, Err(Violation::Changed { .. })), "{changed}");
            }
        }
        let extra = message.replacen('{', r#"{"sdp":1,"candidate":2,"#, 1);
        assert!(matches!(heard(&mut paired(), &extra), Err(Violation::Changed { .. })), "{extra}");
    }
    let no_label = r#"{"type":"ice","from":"b","candidate":null}"#;
    assert!(matches!(heard(&mut paired(), no_label), Err(Violation::Changed { .. })));
}

#[test]
fn unknown_messages_and_groundless_errors_are_found() {
    let mut a = paired();
    assert!(matches!(heard(&mut a, r#"{"type":"welcome"}"#), Err(Violation::Unknown { .. })));
    assert!(matches!(heard(&mut a, PONG), Err(Violation::Unknown { .. })));
    assert_eq!(heard(&mut a, &error("NOT_PAIRED")), Err(Violation::Error { code: "NOT_PAIRED".to_owned() }));
    assert_eq!(heard(&mut a, &error("ALREADY_PAIRED")), Ok(Heard::Nothing));
    assert_eq!(heard(&mut a, &error("RATE_LIMIT")), Ok(Heard::RateLimited));
    heard(&mut a, PARTNER_LEFT).expect("left");
    assert_eq!(heard(&mut a, &error("NOT_PAIRED")), Ok(Heard::Nothing));
    assert!(matches!(heard(&mut a, &error("ALREADY_PAIRED")), Err(Violation::Error { .. })));
    assert!(matches!(heard(&mut a, &error("INVALID_FORMAT")), Err(Violation::Error { .. })));
}

#[test]
fn a_departure_ends_the_room_with_the_second_pong() {
    let mut a = paired();
    a.departs(Departure::Next);
    assert_eq!(a.next_label(), None);
    heard(&mut a, &relayed("b", &label(0, 0, "r"))).expect("the partner may still be heard");
    assert_eq!(heard(&mut a, PONG), Ok(Heard::Nothing));
    assert_eq!(heard(&mut a, PONG), Ok(Heard::Departed));
    assert!(matches!(heard(&mut a, &relayed("b", &label(1, 1, "r"))), Err(Violation::Stranger { .. })));
}

#[test]
fn a_refused_next_keeps_the_room_that_came_after_it() {
    let mut a = paired();
    a.departs(Departure::Next);
    for message in [PARTNER_LEFT, PONG, &error("NOT_PAIRED"), &matched("s", "c")] {
        heard(&mut a, message).expect("good");
    }
    assert_eq!(heard(&mut a, PONG), Ok(Heard::Departed));
    assert_eq!(a.room().map(|room| room.id.as_str()), Some("s"));
    a.departs(Departure::Leave);
    heard(&mut a, PONG).expect("good");
    assert_eq!(a.room(), None);
}

#[test]
fn a_message_of_an_old_room_passes_only_before_those_of_the_new_one() {
    let mut a = paired();
    let carried = heard(&mut a, &relayed("b", &label(7, 3, "q")));
    assert!(matches!(carried, Ok(Heard::Message { carried: true, first: true, .. })), "{carried:?}");
    heard(&mut a, &relayed("b", &label(8, 0, "r"))).expect("the next of the same sender");
    let late = heard(&mut a, &relayed("b", &label(9, 4, "q")));
    assert!(matches!(late, Err(Violation::WrongKey { .. })), "{late:?}");
}

#[test]
fn a_message_that_was_read_in_its_own_room_must_not_reach_the_next() {
    let check = |sequence| {
        let mut registry = Registry::default();
        registry.ended(2, "q".to_owned(), 5);
        registry.carried(label(sequence, 0, "q"), "r");
        registry.check_all()
    };
    assert!(matches!(check(4), Err(Violation::WrongKey { .. })));
    assert_eq!(check(5), Ok(()));
}

#[test]
fn pongs_prove_what_was_read() {
    let mut a = paired();
    a.next_label().expect("a partner");
    a.next_label().expect("a partner");
    a.pinged();
    a.next_label().expect("a partner");
    heard(&mut a, PONG).expect("a pong");
    let left = Heard::PartnerLeft { room_id: "r".to_owned(), read_below: 2 };
    assert_eq!(heard(&mut a, PARTNER_LEFT), Ok(left));
}

fn room_of(id: &str, room: &str, partner: &str) -> Checker {
    let mut checker = Checker::new(1);
    heard(&mut checker, &format!(r#"{{"type":"ready","clientId":"{id}"}}"#)).expect("ready");
    heard(&mut checker, &matched(room, partner)).expect("matched");
    checker
}

#[test]
fn both_ends_must_name_each_other() {
    let mut registry = Registry::default();
    let now = Instant::now();
    let mut enter = |id: &str, room: &str, partner: &str| {
        registry.matched(id, room_of(id, room, partner).room().expect("a room"), now, None)
    };
    assert_eq!(enter("a", "r", "b"), Ok(()));
    assert!(matches!(enter("c", "r", "a"), Err(Violation::Asymmetric { .. })));
    assert_eq!(enter("b", "r", "a"), Ok(()));
    assert!(matches!(enter("d", "r", "a"), Err(Violation::Asymmetric { .. })));
}

#[test]
fn nobody_is_matched_with_one_long_gone() {
    let mut registry = Registry::default();
    let now = Instant::now();
    registry.gone("b", now);
    let a = paired();
    let mut enter =
        |after| registry.matched("a", a.room().expect("a room"), now + Duration::from_secs(after), None);
    assert!(matches!(enter(3), Err(Violation::Gone { ms: 3_000, .. })));
    assert_eq!(enter(1), Ok(()));
}

#[test]
fn the_label_s_sender_is_the_client_that_the_server_names() {
    let mut registry = Registry::default();
    registry.ready(2, "b");
    assert_eq!(registry.sender(&label(0, 0, "r"), "b"), Ok(()));
    assert!(matches!(registry.sender(&label(0, 0, "r"), "c"), Err(Violation::WrongSender { .. })));
}

#[test]
fn at_the_end_all_has_arrived_and_both_ends_agree() {
    let mut registry = Registry::default();
    let mut a = paired();
    let b = room_of("b", "r", "a");
    registry.last_seen("a", a.room().expect("a room"));
    assert_eq!(registry.check_all(), Err(Violation::OneSided { room: "r".to_owned() }));
    registry.last_seen("b", b.room().expect("a room"));
    assert_eq!(registry.check_all(), Ok(()));

    let mut registry = Registry::default();
    a.next_label().expect("a partner");
    registry.last_seen("a", a.room().expect("a room"));
    registry.last_seen("b", b.room().expect("a room"));
    let missing = Violation::NotArrived { room: "r".to_owned(), sent: 1, arrived: 0 };
    assert_eq!(registry.check_all(), Err(missing));
}

fn judge() -> Judge {
    Judge::new(vec!["/a".to_owned(), "/b".to_owned()], Placing::new(2, Spread::Across), 1)
}

#[test]
fn each_client_takes_the_path_of_its_host() {
    let mut judge = judge();
    assert_eq!([0, 1, 2].map(|index| judge.opening(index, index as u32, None)), ["/a", "/b", "/a"]);
}

#[test]
fn a_partner_that_died_with_its_host_is_reported_in_time() {
    let mut court = Court::new(judge());
    for (number, id) in [(0, "a"), (1, "b")] {
        court.open(number as usize);
        court.hear(number, &format!(r#"{{"type":"ready","clientId":"{id}"}}"#)).expect("good");
    }
    court.hear(0, &matched("r", "b")).expect("good");
    court.hear(1, &matched("r", "a")).expect("good");
    court.die(&[1]);
    assert_eq!(court.check_deaths_after(Duration::from_secs(5)), Ok(()));
    assert!(matches!(court.check_deaths_after(Duration::from_secs(2)), Err(Violation::NotTold { .. })));
    court.hear(0, r#"{"type":"partner-left"}"#).expect("late");
    assert_eq!(court.check_deaths_after(Duration::ZERO), Ok(()));
    assert_eq!(
        court.hear(0, &matched("s", "b")),
        Err(Violation::Gone { partner: "b".to_owned(), ms: 7_000 })
    );
}

#[test]
fn two_who_wait_after_a_death_are_matched() {
    let mut court = Court::new(judge());
    for (number, id) in [(0, "a"), (1, "b"), (2, "c")] {
        court.open(number as usize);
        court.hear(number, &format!(r#"{{"type":"ready","clientId":"{id}"}}"#)).expect("good");
    }
    court.die(&[2]);
    assert_eq!(court.check_deaths_after(WAIT_MAX), Ok(()));
    let found = court.check_deaths_after(Duration::from_millis(1));
    assert_eq!(found, Err(Violation::NotMatched { waiting: "a, b".to_owned(), ms: 8_001 }));
    court.hear(0, &matched("r", "b")).expect("late");
    assert_eq!(court.check_deaths_after(Duration::ZERO), Ok(()), "one alone may wait");
    court.hear(1, &matched("r", "a")).expect("late");
    court.hear(0, r#"{"type":"partner-left"}"#).expect("it waits again");
    court.hear(1, r#"{"type":"partner-left"}"#).expect("it waits again");
    assert_eq!(court.check_deaths_after(WAIT_MAX), Ok(()));
    assert!(matches!(court.check_deaths_after(WAIT_MAX), Err(Violation::NotMatched { .. })));
}
