//! Every kind of violation is found when a history has it.

use std::time::Duration;

use super::super::court::Court;
use super::super::hosts::TOLD_WITHIN;
use super::super::judge::{DropKind, Judge as _};
use super::super::label::Label;
use super::super::violation::Violation;
use super::UNIQUE;
use super::{Judge, Login, NOTICE, words};
use crate::client::Ending;
use crate::net::spread::{Placing, Spread};

const A: &str = "n-00000000";
const B: &str = "n-00000001";
const C: &str = "n-00000002";

fn court() -> Court<Judge> {
    let mut judge = Judge::new(Placing::ONE, 2, true);
    judge.is_odd = false;
    judge.broadcast_share = 0.0;
    Court::new(judge)
}

fn success(names: &[&str]) -> String {
    let own = names.last().expect("oneself");
    format!(r#"{{"type":"login_success","id":"{own}","clients":["{}"]}}"#, names.join(r#"",""#))
}

fn connected(peer: &str) -> String {
    format!(r#"{{"type":"peer_connected","peer":"{peer}"}}"#)
}

fn disconnected(peer: &str) -> String {
    format!(r#"{{"type":"peer_disconnected","peer":"{peer}"}}"#)
}

fn error(code: &str) -> String {
    format!(r#"{{"type":"error","error":"{code}"}}"#)
}

fn page(names: &[&str]) -> String {
    format!(r#"{{"clients":["{}"]}}"#, names.join(r#"",""#))
}

/// `a` and `b` are logged in, connections 0 and 1.
fn two() -> Court<Judge> {
    let mut court = court();
    assert_eq!(court.open(0).1, [format!(r#"{{"type":"login","name":"{A}"}}"#)]);
    court.hear(0, &success(&[A])).expect("good");
    court.open(1);
    court.hear(0, &connected(B)).expect("good");
    court.hear(1, &success(&[A, B])).expect("good");
    court
}

/// What `a` says next to `b`, and what `b` should hear.
fn message(court: &mut Court<Judge>, key_sequence: u32) -> (Label, String) {
    let session = court.judge.sessions.get_mut(&0).expect("a");
    let label = session.label(0, B.to_owned(), key_sequence);
    session.streams.entry(B.to_owned()).or_default().sent += 1;
    let said = words::message(&court.judge.bodies, &label);
    let heard = format!(r#"{},"from":"{A}"}}"#, &said[..said.len() - 1]);
    (label, heard)
}

fn broadcast(court: &mut Court<Judge>) -> String {
    let session = court.judge.sessions.get_mut(&0).expect("a");
    let label = session.label(0, String::new(), session.broadcasts);
    session.broadcasts += 1;
    words::broadcast_heard(&label, A)
}

#[test]
fn a_good_history_passes() {
    let mut court = two();
    for number in 0..3 {
        let (_, heard) = message(&mut court, number);
        court.hear(1, &heard).expect("the message");
        let heard = broadcast(&mut court);
        court.hear(1, &heard).expect("the broadcast");
    }
    assert_eq!(court.finish(Some(&page(&[B, A]))), Ok(()));
    court.end(1, DropKind::Reset);
    court.hear(0, &disconnected(B)).expect("it has gone");
    assert_eq!(court.finish(Some(&page(&[A]))), Ok(()));
}

#[test]
fn clients_send_at_most_twenty_a_second_and_wait_for_pongs() {
    let mut court = two();
    let said: Vec<_> = (0..100).flat_map(|_| court.tick(0)).collect();
    let pings = said.iter().filter(|word| word.contains("ping")).count();
    assert_eq!((pings, said.len()), (3, 12), "{said:?}");
    court.hear(0, r#"{"type":"pong","timestamp":1763600000000}"#).expect("a pong");
    assert_eq!(court.tick(0).len(), 1);
    court.now -= Duration::from_millis(100);
    assert_eq!(court.tick(0).len(), 0);
}

#[test]
fn pongs_have_a_time_and_a_ping() {
    let mut court = two();
    let pong = r#"{"type":"pong","timestamp":1763600000000}"#;
    assert!(matches!(court.hear(0, pong), Err(Violation::Unknown { .. })));
    court.judge.sessions.get_mut(&0).expect("a").pings = 1;
    assert!(matches!(court.hear(0, r#"{"type":"pong","timestamp":"x"}"#), Err(Violation::Unknown { .. })));
    assert_eq!(court.hear(0, pong), Ok(Vec::new()));
}

#[test]
fn names_are_announced_once_come_and_once_gone() {
    let mut court = two();
    assert_eq!(court.hear(0, &connected(B)), Err(Violation::AnnouncedTwice { who: B.to_owned() }));
    assert_eq!(court.hear(1, &connected(B)), Err(Violation::AnnouncedTwice { who: B.to_owned() }));
    assert!(matches!(court.hear(0, &connected("n-x")), Err(Violation::Stranger { .. })));
    assert!(matches!(court.hear(0, &disconnected("n-x")), Err(Violation::WrongPresence { .. })));
    assert!(matches!(court.hear(0, &disconnected(B)), Err(Violation::StillThere { .. })));
    let mut court = two();
    court.drop_out(1, DropKind::Reset);
    court.hear(0, &disconnected(B)).expect("it has gone");
    assert!(matches!(court.hear(0, &disconnected(B)), Err(Violation::WrongPresence { .. })));
    court.open(2);
    assert!(matches!(court.hear(2, &connected(A)), Err(Violation::WrongPresence { .. })));
    let blanks = connected(C).replace(':', ": ");
    assert!(matches!(court.hear(0, &blanks), Err(Violation::Different { .. })));
}

#[test]
fn the_list_has_all_in_the_order_of_their_logins() {
    let check = |names: &[&str]| {
        let mut court = two();
        court.open(2);
        court.hear(2, &success(names))
    };
    assert_eq!(check(&[A, B, C]), Ok(Vec::new()));
    for (names, why) in [
        (&[B, A, C][..], "order"),
        (&[A, C], "b is missing"),
        (&[A, "n-x", B, C], "nobody asked for it"),
        (&[A, B, A, C], "twice"),
    ] {
        assert!(check(names).is_err(), "{why}");
    }
    let mut court = two();
    court.open(2);
    let own_first = success(&[C, A, B]).replace(&format!(r#""id":"{B}""#), &format!(r#""id":"{C}""#));
    assert!(matches!(court.hear(2, &own_first), Err(Violation::WrongPresence { .. })));
    assert!(matches!(court.hear(1, &success(&[A, B])), Err(Violation::Unknown { .. })));
}

#[test]
fn a_name_is_one_s_own() {
    let mut court = two();
    court.open(2);
    let since = court.now;
    let session = court.judge.sessions.get_mut(&2).expect("c");
    session.login = Login::Asked { name: A.to_owned(), at: 99, since };
    court.judge.askers.entry(A.to_owned()).or_default().push(2);
    let found = court.hear(2, &success(&[B, A]));
    assert!(matches!(found, Err(Violation::NotUnique { .. })), "{found:?}");
}

#[test]
fn a_name_is_taken_only_where_somebody_may_have_it() {
    let mut court = two();
    court.open(2);
    assert!(matches!(court.hear(2, &error("name_taken")), Err(Violation::Error { .. })));
    let ask = |court: &mut Court<Judge>, number| {
        court.open(number as usize);
        let since = court.now;
        let session = court.judge.sessions.get_mut(&number).expect("a session");
        session.login = Login::Asked { name: A.to_owned(), at: 99, since };
        court.judge.askers.entry(A.to_owned()).or_default().push(number);
        court.hear(number, &error("name_taken"))
    };
    assert_eq!(ask(&mut court, 3), Ok(Vec::new()));
    let refused = Ending::Closed(4000, "Client name already taken".to_owned());
    assert_eq!(court.judge.closed_unasked(3, &refused), Ok(()));
    assert!(court.judge.closed_unasked(3, &Ending::Closed(4001, "x".to_owned())).is_err());
    assert!(court.judge.closed_unasked(1, &refused).is_err());
    court.end(0, DropKind::WebSocketClose);
    assert_eq!(ask(&mut court, 4), Ok(Vec::new()), "it asked before");
    court.now += Duration::from_millis(1);
    assert!(matches!(ask(&mut court, 5), Err(Violation::Error { .. })), "free at once");
    let mut court = two();
    court.open(2);
    court.open(3);
    court.end(0, DropKind::Reset);
    court.now += Duration::from_secs(1);
    assert_eq!(ask(&mut court, 4), Ok(Vec::new()), "not noticed yet");
    court.now += Duration::from_secs(2);
    assert!(matches!(ask(&mut court, 5), Err(Violation::Error { .. })), "free by now");
}

#[test]
fn errors_need_a_reason() {
    for code in ["rate_limit_exceeded", "not_logged_in", "invalid_name", "name_taken", "target_not_found"] {
        let found = two().hear(0, &error(code));
        let different = matches!(&found, Err(Violation::Different { .. })) && code == "target_not_found";
        assert!(different || matches!(found, Err(Violation::Error { .. })), "{code}: {found:?}");
    }
    assert!(matches!(two().hear(0, "{}"), Err(Violation::Unknown { .. })));
    let mut court = two();
    court.open(2);
    court.judge.sessions.get_mut(&2).expect("c").is_early = true;
    assert!(matches!(court.hear(2, &success(&[A, B, C])), Err(Violation::Unanswered { .. })));
    court.hear(2, &error("not_logged_in")).expect("the ping before the login");
    court.hear(2, &success(&[A, B, C])).expect("good");
}

#[test]
fn targets_are_missing_only_when_they_are() {
    let not_found = format!(r#"{{"type":"error","error":"target_not_found","target":"{B}"}}"#);
    let mut court = two();
    let (_, heard) = message(&mut court, 0);
    assert!(matches!(court.hear(0, &not_found), Err(Violation::StillThere { .. })));
    court.drop_out(1, DropKind::Reset);
    court.hear(0, &not_found).expect("it drops");
    assert!(matches!(court.hear(0, &not_found), Err(Violation::Error { .. })), "nothing more was sent");
    assert!(matches!(court.hear(1, &heard), Err(Violation::FalseAnswer { .. })));
}

#[test]
fn messages_come_unchanged_from_whom_they_say_to_whom_they_are_for() {
    let mut court = two();
    let (label, heard) = message(&mut court, 0);
    for (from, to) in [("x-label", "y-label"), ("v=0", "v=1"), (r#","from""#, r#","x":1,"from""#)] {
        let changed = heard.replacen(from, to, 1);
        assert!(court.hear(1, &changed).is_err(), "{changed}");
    }
    court.open(2);
    court.hear(1, &connected(C)).expect("good");
    let from_c = heard.replace(&format!(r#""from":"{A}"#), &format!(r#""from":"{C}"#));
    assert!(matches!(court.hear(1, &from_c), Err(Violation::WrongSender { .. })));
    let from_nobody = heard.replace(&format!(r#""from":"{A}"#), r#""from":"n-x"#);
    assert!(matches!(court.hear(1, &from_nobody), Err(Violation::Stranger { .. })));
    court.hear(2, &success(&[A, B, C])).expect("good");
    assert!(matches!(court.hear(2, &heard), Err(Violation::WrongKey { .. })), "{label}");
    court.hear(1, &heard).expect("good");
    court.judge.sessions.get_mut(&0).expect("a").streams.get_mut(B).expect("sent").sent = 9;
    assert!(matches!(court.hear(1, &heard), Err(Violation::Repeated { .. })));
    let (_, third) = message(&mut court, 2);
    assert!(matches!(court.hear(1, &third), Err(Violation::Lost { .. })));
}

#[test]
fn nothing_comes_after_the_sender_has_gone() {
    let mut court = two();
    let (_, heard) = message(&mut court, 0);
    court.drop_out(0, DropKind::Reset);
    court.hear(1, &disconnected(A)).expect("it has gone");
    assert!(matches!(court.hear(1, &heard), Err(Violation::Stranger { .. })));
    let heard = broadcast(&mut court);
    assert!(matches!(court.hear(1, &heard), Err(Violation::Stranger { .. })));
}

#[test]
fn all_before_a_close_arrives() {
    let mut court = two();
    message(&mut court, 0);
    court.drop_out(0, DropKind::WebSocketClose);
    assert!(matches!(court.hear(1, &disconnected(A)), Err(Violation::NotArrived { .. })));
}

#[test]
fn broadcasts_come_once_in_order_and_complete() {
    let mut court = two();
    let said: Vec<_> = (0..5).map(|_| broadcast(&mut court)).collect();
    assert!(matches!(court.hear(1, &said[2]), Err(Violation::Lost { .. })), "the first two are missing");
    court.hear(1, &said[0]).expect("good");
    assert!(matches!(court.hear(1, &said[0]), Err(Violation::Repeated { .. })));
    assert!(matches!(court.hear(1, &said[2]), Err(Violation::Lost { .. })));
    assert!(matches!(court.hear(1, &said[3]), Err(Violation::Different { .. })));
    court.hear(1, &said[1]).expect("good");
    let back = said[2].replace(r#""from":"n-00000000""#, r#""from":"n-00000001""#);
    assert!(matches!(court.hear(1, &back), Err(Violation::Self_)));
    let found = court.finish(Some(&page(&[A, B])));
    assert!(matches!(found, Err(Violation::NotArrived { sent: 5, arrived: 2, .. })), "{found:?}");
}

#[test]
fn a_broadcast_does_not_overtake() {
    let mut court = two();
    let (_, first) = message(&mut court, 0);
    let second = broadcast(&mut court);
    court.hear(1, &second).expect("alone it is good");
    assert!(matches!(court.hear(1, &first), Err(Violation::Repeated { .. })));
}

#[test]
fn at_the_end_every_list_is_the_server_s() {
    let mut court = two();
    assert!(matches!(court.finish(Some(&page(&[A]))), Err(Violation::WrongList { .. })));
    assert!(matches!(court.finish(Some(&page(&[A, B, C]))), Err(Violation::WrongList { .. })));
    assert!(matches!(court.finish(Some("no JSON")), Err(Violation::Unknown { .. })));
    // `c` comes, and `a` is not told.
    court.open(2);
    court.hear(2, &success(&[A, B, C])).expect("good");
    court.hear(1, &connected(C)).expect("good");
    assert!(matches!(court.finish(Some(&page(&[A, B, C]))), Err(Violation::WrongList { .. })));
    court.hear(0, &connected(C)).expect("good");
    assert_eq!(court.finish(Some(&page(&[A, B, C]))), Ok(()));
    message(&mut court, 0);
    assert!(matches!(court.finish(Some(&page(&[A, B, C]))), Err(Violation::NotArrived { .. })));
}

#[test]
fn at_the_end_lists_have_one_order() {
    let mut court = two();
    court.open(2);
    court.open(3);
    let d = "n-00000003";
    court.hear(2, &success(&[A, B, C])).expect("good");
    court.hear(3, &success(&[A, B, C, d])).expect("good");
    for (number, peers) in [(0, [C, d]), (1, [d, C])] {
        peers.iter().for_each(|peer| {
            court.hear(number, &connected(peer)).expect("good");
        });
    }
    court.hear(2, &connected(d)).expect("good");
    assert!(matches!(court.finish(Some(&page(&[A, B, C, d]))), Err(Violation::WrongList { .. })));
}

#[test]
fn each_host_lists_its_own() {
    let found = |pages: &[Option<&[&str]>]| {
        let mut court = two();
        court.judge.placing = Placing::new(2, Spread::Across);
        let pages: Vec<_> = pages.iter().map(|names| names.map(page)).collect();
        let pages: Vec<_> = pages.iter().map(Option::as_deref).collect();
        court.judge.finish(&pages)
    };
    assert_eq!(found(&[Some(&[A]), Some(&[B])]), Ok(()));
    assert_eq!(found(&[Some(&[A, B]), Some(&[B, A])]), Ok(()), "or all");
    assert_eq!(found(&[Some(&[A]), None]), Ok(()), "one is dead");
    for wrong in [[Some(&[A][..]), Some(&[A][..])], [Some(&[A]), Some(&[])], [Some(&[B]), Some(&[A])]] {
        assert!(matches!(found(&wrong), Err(Violation::WrongList { .. })), "{wrong:?}");
    }
}

#[test]
fn a_client_that_died_with_its_host_is_reported_in_time_and_its_name_is_free() {
    let mut court = two();
    court.die(&[1]);
    assert_eq!(court.check_deaths_after(Duration::from_secs(5)), Ok(()));
    assert!(matches!(court.check_deaths_after(Duration::from_secs(2)), Err(Violation::NotTold { .. })));
    court.hear(0, &disconnected(B)).expect("late");
    assert_eq!(court.check_deaths_after(Duration::ZERO), Ok(()));
    let late = court.judge.sessions[&1].hold_at(court.now);
    assert!(!late.may_last(NOTICE, TOLD_WITHIN), "seven seconds have passed");
    let early = court.judge.sessions[&1].hold_at(court.now - Duration::from_secs(3));
    assert!(early.may_last(NOTICE, TOLD_WITHIN) && !early.may_last(NOTICE, NOTICE));
}

#[test]
fn a_host_that_stops_may_be_heard_of_before_it_is_seen() {
    let mut court = two();
    court.may_die = true;
    court.hear(0, &disconnected(B)).expect("its host may have stopped");
    assert_eq!(super::super::Judge::check_deaths(&mut court.judge, None, court.now), Ok(()));
    court.die(&[1]);
    assert_eq!(court.check_deaths_after(Duration::from_secs(5)), Ok(()));
    let mut court = two();
    court.may_die = true;
    court.hear(0, &disconnected(B)).expect("its host may have stopped");
    let found = court.check_deaths_after(Duration::from_secs(3));
    assert!(matches!(found, Err(Violation::StillThere { .. })), "{found:?}");
}

#[test]
fn what_is_sent_to_a_dead_name_is_refused() {
    let mut court = two();
    court.die(&[1]);
    court.hear(0, &disconnected(B)).expect("it has died");
    assert_eq!(court.judge.dead(UNIQUE), Some(B.to_owned()));
    let stream = court.judge.sessions.get_mut(&0).expect("a").streams.entry(B.to_owned()).or_default();
    (stream.sent, stream.to_nobody) = (2, 1);
    let found = court.finish(Some(&page(&[A])));
    assert!(matches!(found, Err(Violation::NotArrived { sent: 2, arrived: 0, .. })), "{found:?}");
    court.hear(0, &format!(r#"{{"type":"error","error":"target_not_found","target":"{B}"}}"#)).expect("good");
    assert_eq!(court.finish(Some(&page(&[A]))), Ok(()));
}

#[test]
fn where_redis_comes_back_empty_the_order_does_not_count() {
    let list = success(&[B, A]).replace(&format!(r#""id":"{A}""#), &format!(r#""id":"{B}""#));
    for is_ordered in [true, false] {
        let mut court = court();
        court.judge.is_ordered = is_ordered;
        court.open(0);
        court.hear(0, &success(&[A])).expect("good");
        court.open(1);
        court.hear(0, &connected(B)).expect("good");
        assert_eq!(court.hear(1, &list).is_ok(), !is_ordered);
        let (without, _) = court.open(2);
        let other = success(&[A, C])
            .replace(&format!(r#""clients":["{A}","{C}"]"#), &format!(r#""clients":["{A}"]"#));
        assert!(court.hear(without, &other).is_err(), "one's own name is there in any case");
    }
}
