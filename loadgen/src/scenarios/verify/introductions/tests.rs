//! Every kind of violation is found when a history has it.

use std::time::Duration;

use super::super::court::Court;
use super::super::judge::{DropKind, Judge as _};
use super::super::violation::Violation;
use super::{DOCUMENTS, Judge, SHARED, message, name_of, number_of, path};
use crate::net::spread::Placing;

fn court() -> Court<Judge> {
    let mut judge = Judge::new(Placing::ONE, 4);
    judge.is_odd = false;
    let mut court = Court::new(judge);
    (0..3).for_each(|index| {
        court.open(index);
    });
    // Another group.
    court.open(4);
    court
}

fn introduction(court: &Court<Judge>, to: u32, keys: &[u8]) -> String {
    let client = &court.judge.clients[&to];
    let names: Vec<_> = keys.iter().map(|key| name_of(*key, client.group)).collect();
    let keys = serde_json::to_string(&names).expect("JSON");
    let id = serde_json::to_string(&client.id).expect("JSON");
    format!(r#"{{"type":"Introduction","id":{id},"keys":{keys}}}"#)
}

fn sends(court: &mut Court<Judge>, number: u32, join: &[u8], leave: &[u8]) {
    let at = court.judge.now();
    court.judge.client(number).history.send(join, leave, at);
}

/// Both hear of each other.
fn introduced(court: &mut Court<Judge>, one: u32, other: u32, keys: &[u8]) -> Result<(), Violation> {
    let (to_other, to_one) = (introduction(court, other, keys), introduction(court, one, keys));
    court.hear(one, &to_other)?;
    court.hear(other, &to_one).map(|_| ())
}

fn why(found: Result<impl std::fmt::Debug, Violation>) -> String {
    match found {
        Err(Violation::WrongIntroduction { how }) => how,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_good_history_passes() {
    let mut court = court();
    for round in 0..20 {
        for number in 0..3 {
            let documents: &[u8] = if round == 0 { &[1, 5] } else { &[5] };
            sends(&mut court, number, documents, &[]);
            (0..3).filter(|other| *other != number && (round > 0 || *other < number)).for_each(|other| {
                introduced(&mut court, number, other, &[1, 5]).expect("good");
            });
        }
    }
    assert_eq!(court.finish(None), Ok(()));
}

#[test]
fn what_clients_say_is_json_and_names_their_documents() {
    for at in 0..6 {
        for (join, leave) in [(&[1, 2][..], &[][..]), (&[], &[3]), (&[0], &[1])] {
            let said = message(7, join, leave, at);
            let json: serde_json::Value = serde_json::from_str(&said).expect("JSON");
            let numbers = |field: &str| -> Vec<u8> {
                let list = json[field].as_array().cloned().unwrap_or_default();
                list.iter().filter_map(|name| number_of(name.as_str()?, 7)).collect()
            };
            assert_eq!((numbers("join"), numbers("leave")), (join.to_vec(), leave.to_vec()), "{said}");
        }
    }
    assert_eq!(number_of(&name_of(0, 7), 8), None);
    assert_eq!(path("é/5"), "/introduction/%C3%A9%2F5");
}

#[test]
fn clients_speak_while_little_is_unread() {
    let mut court = court();
    court.now += Duration::from_secs(1);
    let said: usize = (0..10).map(|_| court.tick(0).len()).sum();
    assert!(said >= 2, "{said}");
    let history = &court.judge.clients[&0].history;
    assert_eq!(history.sent() as usize, said);
    assert!(history.documents().contains(&SHARED));
    assert!(history.documents().iter().all(|document| *document < DOCUMENTS));
}

#[test]
fn an_introduction_needs_a_document_in_common_at_the_time() {
    let mut court = court();
    sends(&mut court, 0, &[1, 2], &[]);
    assert!(why(introduced(&mut court, 0, 1, &[1])).contains("no message"));
    sends(&mut court, 1, &[2, 3], &[]);
    assert!(why(introduced(&mut court, 0, 1, &[2, 3])).contains("no message"));
    assert!(why(introduced(&mut court, 0, 1, &[])).contains("no message"));
    introduced(&mut court, 0, 1, &[2]).expect("good");
    assert!(why(introduced(&mut court, 0, 1, &[2])).contains("no message"), "once");
    sends(&mut court, 0, &[1], &[2]);
    assert!(why(introduced(&mut court, 0, 1, &[2])).contains("no message"), "it has left");
}

#[test]
fn both_hear_the_same() {
    let mut court = court();
    sends(&mut court, 0, &[1, 2], &[]);
    sends(&mut court, 1, &[2, 1], &[]);
    let first = introduction(&court, 1, &[1, 2]);
    court.hear(0, &first).expect("the first was read last");
    let other = introduction(&court, 0, &[2, 1]);
    assert!(why(court.hear(1, &other)).contains("the other heard"));
    let mut court = self::court();
    sends(&mut court, 0, &[1], &[]);
    sends(&mut court, 1, &[1], &[]);
    let only = introduction(&court, 1, &[1]);
    court.hear(0, &only).expect("good");
    assert!(why(court.finish(None)).contains("only number 0"));
    let other = introduction(&court, 0, &[1]);
    court.hear(1, &other).expect("good");
    assert_eq!(court.finish(None), Ok(()));
}

#[test]
fn keys_have_the_order_of_the_one_who_sent() {
    let mut court = court();
    sends(&mut court, 0, &[1, 2, 3], &[]);
    sends(&mut court, 1, &[3, 2], &[]);
    assert!(introduced(&mut court, 0, 1, &[2, 3]).is_ok());
    sends(&mut court, 1, &[3], &[]);
    assert!(why(introduced(&mut court, 0, 1, &[2, 3])).contains("no message"));
    introduced(&mut court, 0, 1, &[3, 2]).expect("good");
}

#[test]
fn strangers_and_foreign_documents_are_found() {
    let mut court = court();
    sends(&mut court, 0, &[1], &[]);
    let to_self = introduction(&court, 0, &[1]);
    assert!(why(court.hear(0, &to_self)).contains("nothing in common"));
    let to_other_group = introduction(&court, 3, &[1]);
    assert!(why(court.hear(0, &to_other_group)).contains("nothing in common"));
    let nobody = introduction(&court, 1, &[1]).replace("i-00000001", "i-99999999");
    assert!(why(court.hear(0, &nobody)).contains("nobody"));
    let foreign = introduction(&court, 1, &[1]).replace("of é-0", "of é-1");
    assert!(why(court.hear(0, &foreign)).contains("not theirs"));
    for unknown in ["{}", "x", r#"{"id":"x","type":"Introduction","keys":[]}"#] {
        assert!(matches!(court.hear(0, unknown), Err(Violation::Unknown { .. })), "{unknown}");
    }
}

#[test]
fn an_introduction_that_did_not_come_is_missed() {
    let mut court = court();
    sends(&mut court, 0, &[1], &[]);
    assert_eq!(court.finish(None), Ok(()), "there is nobody to introduce it to");
    sends(&mut court, 1, &[1], &[]);
    assert!(why(court.finish(None)).contains("not all"));
    introduced(&mut court, 0, 1, &[1]).expect("good");
    assert_eq!(court.finish(None), Ok(()));
    sends(&mut court, 0, &[1], &[]);
    introduced(&mut court, 0, 1, &[1]).expect("good");
    sends(&mut court, 0, &[1], &[]);
    sends(&mut court, 2, &[1], &[]);
    introduced(&mut court, 0, 2, &[1]).expect("good");
    introduced(&mut court, 1, 2, &[1]).expect("good");
    assert!(why(court.finish(None)).contains("not all"));
}

#[test]
fn nobody_is_introduced_to_one_long_gone() {
    let mut court = court();
    sends(&mut court, 1, &[1], &[]);
    court.end(1, DropKind::Reset);
    sends(&mut court, 0, &[1], &[]);
    let to_gone = introduction(&court, 1, &[1]);
    assert!(court.hear(0, &to_gone).is_ok(), "the server may not have noticed");
    court.now += Duration::from_secs(3);
    assert!(matches!(court.hear(0, &to_gone), Err(Violation::Gone { .. })));
    // One who comes later must not meet one who said goodbye.
    court.now -= Duration::from_secs(3);
    court.judge.client(1).gone = Some(DropKind::WebSocketClose);
    let (late, _) = court.open(1);
    sends(&mut court, late, &[1], &[]);
    assert!(why(court.hear(late, &to_gone)).contains("never there together"));
}

#[test]
fn the_connection_that_was_taken_over_hears_nothing_more() {
    let mut court = court();
    sends(&mut court, 0, &[1], &[]);
    sends(&mut court, 1, &[1], &[]);
    introduced(&mut court, 0, 1, &[1]).expect("good");
    assert!(court.drop_out(0, DropKind::Takeover).is_some(), "all was read");
    let (new, _) = court.open_beside(0, Some(0));
    sends(&mut court, 1, &[1], &[]);
    let to_one = introduction(&court, 1, &[1]);
    let to_zero = introduction(&court, 0, &[1]);
    assert!(why(court.hear(0, &to_one)).contains("taken over"));
    let mut again = self::court();
    sends(&mut again, 0, &[1], &[]);
    sends(&mut again, 1, &[1], &[]);
    introduced(&mut again, 0, 1, &[1]).expect("good");
    again.drop_out(0, DropKind::Takeover).expect("all was read");
    again.open_beside(0, Some(0));
    sends(&mut again, 1, &[1], &[]);
    again.judge.ended(0, again.now);
    assert!(again.finish(None).is_err(), "its documents are still there");
    again.hear(new, &to_one).expect("good");
    again.hear(1, &to_zero).expect("good");
    assert_eq!(again.finish(None), Ok(()));
}

#[test]
fn nobody_takes_over_with_something_unread() {
    let mut court = court();
    sends(&mut court, 0, &[1], &[]);
    sends(&mut court, 1, &[1], &[]);
    assert!(court.drop_out(0, DropKind::Takeover).is_none());
}

#[test]
fn over_several_hosts_a_group_sends_one_message_after_the_other() {
    let mut court = court();
    court.judge.is_across = true;
    sends(&mut court, 0, &[SHARED], &[]);
    assert!(court.judge.is_quiet(0), "nobody has anything in common with it yet");
    sends(&mut court, 1, &[SHARED], &[]);
    assert!(!court.judge.is_quiet(0) && !court.judge.is_quiet(1));
    assert!(court.tick(0).is_empty() && court.tick(1).is_empty(), "both wait for the introduction");
    introduced(&mut court, 0, 1, &[SHARED]).expect("good");
    assert!(court.judge.is_quiet(0));
    sends(&mut court, 0, &[SHARED], &[]);
    assert!(!court.judge.is_quiet(1));
    court.die(&[1]);
    assert!(court.judge.is_quiet(0), "the dead hear nothing");
}
