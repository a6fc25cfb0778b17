//! Every kind of violation is found when a history has it.

use std::time::Duration;

use super::super::court::Court;
use super::super::judge::DropKind;
use super::super::label::Label;
use super::super::violation::Violation;
use super::{Judge, words};
use crate::net::spread::{Placing, Spread};

/// Clients 0 and 2 are wallets, 1 and 3 extensions, on one connection id; 4 is a wallet on the next one.
fn court(in_flight: usize) -> Court<Judge> {
    let mut judge = Judge::new(Placing::ONE, in_flight);
    judge.is_odd = false;
    Court::new(judge)
}

fn info(kind: &str, id: &str) -> String {
    format!(r#"{{"info":"{kind}","remoteClientId":"{id}"}}"#)
}

fn already(id: &str) -> String {
    info("remoteClientIsAlreadyConnected", id)
}

fn just(id: &str) -> String {
    info("remoteClientJustConnected", id)
}

fn disconnected(id: &str) -> String {
    info("remoteClientDisconnected", id)
}

fn label_of(message: &str) -> Label {
    Label::find(message.as_bytes()).expect("a label")
}

fn answer(kind: &str, message: &str) -> String {
    let request = words::request_id(&label_of(message));
    format!(r#"{{"info":"{kind}","requestId":"{request}"}}"#)
}

fn confirmation(message: &str) -> String {
    answer("confirmation", message)
}

fn missing(message: &str) -> String {
    answer("missingRemoteClientError", message)
}

fn data(message: &str, from: &str) -> String {
    let request = words::request_id(&label_of(message));
    format!(r#"{{"info":"remoteData","data":{message},"remoteClientId":"{from}","requestId":"{request}"}}"#)
}

/// Wallet 0 with id `w`, extension 1 with id `e`; the wallet has sent one message.
fn pair() -> (Court<Judge>, String) {
    let mut court = court(1);
    court.open(0);
    court.open(1);
    court.hear(1, &already("w")).expect("good");
    let said = court.hear(0, &just("e")).expect("good");
    assert_eq!(said.len(), 1);
    (court, said[0].clone())
}

#[test]
fn a_good_history_passes() {
    let (mut court, mut message) = pair();
    for _ in 0..50 {
        court.hear(1, &data(&message, "w")).expect("the message");
        message = court.hear(0, &confirmation(&message)).expect("its answer").remove(0);
    }
    court.winding_up = true;
    court.hear(1, &data(&message, "w")).expect("the message");
    court.hear(0, &confirmation(&message)).expect("its answer");
    let said = court.judge.seats[&1].due.len();
    assert_eq!(said, 1, "the extension has sent one as well");
    court.judge.seats.get_mut(&1).expect("the extension").due.clear();
    court.judge.seats.get_mut(&1).expect("the extension").streams.clear();
    assert_eq!(court.finish(None), Ok(()));
}

#[test]
fn presence_must_fit() {
    let (mut court, _) = pair();
    assert!(matches!(court.hear(0, &just("e")), Err(Violation::AnnouncedTwice { .. })));
    assert!(matches!(court.hear(0, &disconnected("x")), Err(Violation::StillThere { .. })));
    court.drop_out(1, DropKind::Reset);
    assert!(matches!(court.hear(0, &disconnected("x")), Err(Violation::WrongPresence { .. })));
    court.hear(0, &disconnected("e")).expect("it has gone");
    assert!(matches!(court.hear(0, &disconnected("e")), Err(Violation::WrongPresence { .. })));
    assert!(matches!(court.hear(0, &just("e")), Err(Violation::AnnouncedTwice { .. })));
    let reordered = r#"{"remoteClientId":"y","info":"remoteClientJustConnected"}"#;
    assert!(matches!(court.hear(0, reordered), Err(Violation::Different { .. })));
}

#[test]
fn one_who_is_there_is_not_said_to_be_gone() {
    let (mut court, message) = pair();
    court.hear(1, &data(&message, "w")).expect("good");
    assert!(matches!(court.hear(0, &disconnected("e")), Err(Violation::StillThere { .. })));
    assert!(matches!(court.hear(0, &missing(&message)), Err(Violation::StillThere { .. })));
}

#[test]
fn those_who_were_there_come_first() {
    let mut court = court(1);
    court.open(0);
    court.hear(0, &just("a")).expect("good");
    assert!(matches!(court.hear(0, &already("b")), Err(Violation::WrongPresence { .. })));
}

#[test]
fn only_those_announced_on_the_same_id_and_of_the_other_role_are_heard() {
    let (mut court, message) = pair();
    let label = label_of(&message);
    let (same_role, other_id) = (court.open(2).0, court.open(5).0);
    for wrong in [same_role, other_id] {
        let found = court.hear(wrong, &data(&message, "w"));
        assert!(matches!(found, Err(Violation::WrongKey { .. })), "{found:?}");
    }
    let from_nobody = court.hear(1, &data(&message, "x"));
    assert_eq!(from_nobody, Err(Violation::Stranger { from: "x".to_owned() }));
    court.hear(1, &data(&message, "w")).expect("good");
    // Another wallet's id on the first wallet's message.
    court.hear(1, &just("w2")).expect("good");
    let next = Label { sequence: 1, key_sequence: 1, ..label };
    let next = words::message(&court.judge.bodies, &next, 0);
    let forged = court.hear(1, &data(&next, "w2"));
    assert!(matches!(forged, Err(Violation::WrongSender { .. })), "{forged:?}");
}

#[test]
fn nobody_is_heard_after_it_has_gone() {
    let (mut court, message) = pair();
    court.drop_out(0, DropKind::TcpClose);
    court.hear(1, &disconnected("w")).expect("it has gone");
    assert_eq!(court.hear(1, &data(&message, "w")), Err(Violation::Stranger { from: "w".to_owned() }));
}

#[test]
fn an_id_is_one_connection_s() {
    let (mut court, message) = pair();
    court.hear(1, &data(&message, "w")).expect("good");
    let (other, _) = court.open(3);
    court.hear(other, &already("w")).expect("good");
    // What was meant for `e` comes to the other extension as well.
    let found = court.hear(other, &data(&message, "w"));
    assert!(matches!(found, Err(Violation::WrongSender { .. })), "{found:?}");
    let (on_other_id, _) = court.open(4);
    assert!(matches!(court.hear(on_other_id, &just("e")), Err(Violation::WrongKey { .. })));
}

#[test]
fn changed_lost_and_repeated_messages_are_found() {
    let (mut court, message) = pair();
    for (from, to) in
        [("offer", "answer"), ("x-label", "x-lebel"), (r#""info":"remoteData""#, r#""info": "remoteData""#)]
    {
        let changed = data(&message, "w").replacen(from, to, 1);
        let found = court.hear(1, &changed);
        let changed_method = matches!(&found, Err(Violation::Changed { .. }));
        assert!(changed_method || matches!(found, Err(Violation::Unknown { .. })), "{changed}: {found:?}");
    }
    let wrong_request = data(&message, "w").replace(r#""requestId":"r-0-0"}"#, r#""requestId":"r-0-1"}"#);
    assert!(matches!(court.hear(1, &wrong_request), Err(Violation::Different { .. })));
    court.hear(1, &data(&message, "w")).expect("good");
    assert!(matches!(court.hear(1, &data(&message, "w")), Err(Violation::Repeated { .. })));
    let label = Label { sequence: 2, key_sequence: 2, ..label_of(&message) };
    let third = words::message(&court.judge.bodies, &label, 0);
    assert!(matches!(court.hear(1, &data(&third, "w")), Err(Violation::Lost { .. })));
}

#[test]
fn answers_keep_the_order_and_are_true() {
    let (mut court, message) = pair();
    let other = message.replace("r-0-0", "r-0-9");
    let wrong = confirmation(&other).replace("r-0-0", "r-0-9");
    assert!(matches!(court.hear(0, &wrong), Err(Violation::WrongAnswer { .. })));
    let (mut court, message) = pair();
    court.winding_up = true;
    court.hear(0, &confirmation(&message)).expect("good");
    assert!(matches!(court.hear(0, &confirmation(&message)), Err(Violation::WrongAnswer { .. })));
    assert!(matches!(court.finish(None), Err(Violation::NotArrived { sent: 1, arrived: 0, .. })));
}

#[test]
fn a_message_that_was_refused_must_not_arrive() {
    let (mut court, message) = pair();
    court.drop_out(1, DropKind::Reset);
    court.hear(0, &missing(&message)).expect("the target drops");
    let found = court.hear(1, &data(&message, "w"));
    assert!(matches!(found, Err(Violation::FalseAnswer { told: "missing", .. })), "{found:?}");
    let (mut court, message) = pair();
    court.hear(1, &data(&message, "w")).expect("good");
    court.drop_out(1, DropKind::Reset);
    let found = court.hear(0, &missing(&message));
    assert!(matches!(found, Err(Violation::FalseAnswer { told: "missing", .. })), "{found:?}");
}

#[test]
fn what_is_for_nobody_is_never_confirmed() {
    let (mut court, message) = pair();
    court.judge.seats.get_mut(&0).expect("a seat").streams.get_mut("e").expect("a stream").bogus = true;
    let found = court.hear(0, &confirmation(&message));
    assert!(matches!(found, Err(Violation::FalseAnswer { told: "confirmation", .. })), "{found:?}");
}

#[test]
fn wrong_messages_have_exact_answers() {
    let (mut court, message) = pair();
    for sequence in 0..2 {
        let (_, answer) = words::wrong(&Label { sequence, ..label_of(&message) });
        for (came, is_good) in [(answer.clone(), true), (answer.replace("expected", "received"), false)] {
            let due = &mut court.judge.seats.get_mut(&0).expect("a seat").due;
            due.clear();
            due.push_back(super::Due::Exactly(answer.clone()));
            assert_eq!(court.hear(0, &came).is_ok(), is_good, "{came}");
        }
    }
}

#[test]
fn at_the_end_all_know_each_other_and_all_is_answered() {
    let (mut court, message) = pair();
    court.winding_up = true;
    let unanswered = court.finish(None);
    assert!(matches!(unanswered, Err(Violation::Unanswered { .. })), "{unanswered:?}");
    court.hear(1, &data(&message, "w")).expect("good");
    court.hear(0, &confirmation(&message)).expect("good");
    court.judge.seats.get_mut(&1).expect("the extension").due.clear();
    court.judge.seats.get_mut(&1).expect("the extension").streams.clear();
    assert_eq!(court.finish(None), Ok(()));
    // One comes and nobody is told.
    court.open(3);
    assert!(matches!(court.finish(None), Err(Violation::WrongList { .. })));
    // One goes and nobody is told.
    let (mut court, _) = pair();
    court.end(1, DropKind::Reset);
    assert!(matches!(court.finish(None), Err(Violation::WrongList { .. })));
}

#[test]
fn one_who_came_and_went_was_announced() {
    let mut court = court(1);
    court.open(0);
    court.open(1);
    court.end(1, DropKind::WebSocketClose);
    let found = court.finish(None);
    assert!(matches!(found, Err(Violation::WrongList { .. })), "{found:?}");
}

#[test]
fn who_came_later_has_just_connected() {
    let mut court = court(1);
    court.open(0);
    court.open(1);
    court.hear(1, &already("w")).expect("good");
    let message = court.hear(0, &already("e")).expect("unknown yet").remove(0);
    court.winding_up = true;
    court.hear(1, &data(&message, "w")).expect("good");
    court.hear(0, &confirmation(&message)).expect("good");
    let found = court.finish(None);
    assert!(matches!(found, Err(Violation::WrongPresence { .. })), "{found:?}");
}

#[test]
fn all_before_a_close_arrives() {
    let (mut court, message) = pair();
    court.hear(1, &data(&message, "w")).expect("good");
    court.hear(0, &confirmation(&message)).expect("good, and one more is sent");
    court.end(0, DropKind::WebSocketClose);
    court.winding_up = true;
    court.hear(1, &disconnected("w")).expect("it has gone");
    court.judge.seats.get_mut(&1).expect("the extension").due.clear();
    let found = court.finish(None);
    assert!(matches!(found, Err(Violation::NotArrived { sent: 2, arrived: 1, .. })), "{found:?}");
}

#[test]
fn over_several_hosts_announcements_come_in_any_order() {
    let order = |placing| {
        let mut court = Court::new(Judge::new(placing, 1));
        (0..4).for_each(|index| drop(court.open(index)));
        court.hear(0, &just("e")).expect("one has come");
        court.hear(0, &already("f"))
    };
    assert!(order(Placing::new(2, Spread::Across)).is_ok());
    for strict in [Placing::ONE, Placing::new(2, Spread::Same)] {
        assert!(matches!(order(strict), Err(Violation::WrongPresence { .. })));
    }
}

#[test]
fn a_client_that_died_with_its_host_is_reported_in_time() {
    let (mut court, message) = pair();
    court.winding_up = true;
    court.hear(1, &data(&message, "w")).expect("now both ids are known");
    court.die(&[1]);
    court.hear(0, &missing(&message)).expect("it came, but the dead cannot say so");
    assert_eq!(court.check_deaths_after(Duration::from_secs(5)), Ok(()));
    assert!(matches!(court.check_deaths_after(Duration::from_secs(2)), Err(Violation::NotTold { .. })));
    court.hear(0, &disconnected("e")).expect("late");
    assert_eq!(court.check_deaths_after(Duration::ZERO), Ok(()));
    assert_eq!(court.finish(None), Ok(()));
}

#[test]
fn a_host_that_stops_may_be_heard_of_before_it_is_seen() {
    let (mut court, message) = pair();
    (court.winding_up, court.may_die) = (true, true);
    court.hear(1, &data(&message, "w")).expect("now both ids are known");
    court.hear(0, &disconnected("e")).expect("its host may have stopped");
    court.hear(0, &missing(&message)).expect("the same");
    assert_eq!(super::super::Judge::check_deaths(&mut court.judge, None, court.now), Ok(()));
    court.die(&[1]);
    assert_eq!(court.check_deaths_after(Duration::from_secs(5)), Ok(()));
    assert_eq!(court.finish(None), Ok(()));
}

#[test]
fn who_lives_is_not_said_to_be_gone() {
    let (mut court, message) = pair();
    (court.winding_up, court.may_die) = (true, true);
    court.hear(1, &data(&message, "w")).expect("now both ids are known");
    court.hear(0, &disconnected("e")).expect("its host may have stopped");
    let still_there = Err(Violation::StillThere { who: "e".to_owned() });
    assert_eq!(court.check_deaths_after(Duration::from_secs(3)), still_there);
}
