//! The home of introductions as other hosts see it; the test is the cluster.

use super::*;
use crate::cluster::introductions::{Found, Letter, Meeting, News, Outcome, Registration, Request, Scope};
use crate::cluster::{FromCluster, Letter as AnyLetter, Relation, ToCluster};
use crate::id::ClientId;
use crate::limits::{REGISTRATION_RETRY_MS, REGISTRATIONS_MAX};
use crate::protocol::introduction::distant::{Acquaintance, Names};

const THERE: HostId = HostId(2);

fn host() -> Shard {
    let limits = Limits { messages_per_second_max: 1_000_000, ..Limits::default() };
    let settings = Settings { shards: 1, has_cluster: true, limits, ..settings() };
    let mut host = shard(0, &settings);
    tell(&mut host, News::Up);
    host
}

fn tell(host: &mut Shard, news: News) {
    host.handle_cluster_mail(FromCluster::Introductions(news), host.now_ms);
}

fn answer(host: &mut Shard, client: ClientId, outcome: Outcome) {
    tell(host, News::Registered { client, outcome });
}

fn names(names: &[&str]) -> Names {
    Names::new(names.iter().map(|name| name.as_bytes()))
}

fn done(inherited: &[&str], meetings: Vec<Meeting>) -> Outcome {
    Outcome::Done { inherited: names(inherited), acquaintance: Acquaintance::Nobody, meetings }
}

/// A peer whose registration has no answer yet, and these bytes behind its head.
fn comes(host: &mut Shard, id: &str, behind: &[u8]) -> (Slot, ClientId) {
    let slot = host.handle_accept(0).expect("room");
    let path = format!("GET /introduction/{id} HTTP/1.1");
    let head = String::from_utf8_lossy(UPGRADE).replace("GET /ws HTTP/1.1", &path);
    host.handle_bytes(slot, &mut [head.as_bytes(), behind].concat(), 0);
    (slot, host.clients.at(slot).expect("it is there").id)
}

/// A peer that is registered.
fn peer(host: &mut Shard, id: &str) -> (Slot, ClientId) {
    let (slot, client) = comes(host, id, b"");
    answer(host, client, done(&[], Vec::new()));
    said(host);
    sent(host, slot);
    (slot, client)
}

/// What the host has to say: to the cluster, and to other hosts.
fn said(host: &mut Shard) -> (Vec<Request>, Vec<Letter>) {
    let (mut requests, mut letters) = (Vec::new(), Vec::new());
    host.deliver_cluster_mail(|parcel| {
        match parcel.mail {
            ToCluster::Introductions(request) => requests.push(request),
            ToCluster::Letter { letter: AnyLetter::Introductions(letter), .. } => letters.push(letter),
            other => panic!("{other:?}"),
        }
        Ok(())
    });
    (requests, letters)
}

fn registrations(host: &mut Shard) -> Vec<Registration> {
    let is_one = |request| match request {
        Request::Register(registration) => *registration,
        other => panic!("{other:?}"),
    };
    said(host).0.into_iter().map(is_one).collect()
}

fn stranger(slot: u32) -> ClientId {
    ClientId::new(THERE, ShardIndex(0), Slot(slot), &mut Entropy::from_seed([8; 32]))
}

fn find(host: &mut Shard) {
    host.handle_cluster_mail(FromCluster::HostFound(THERE, Relation(7)), 0);
}

#[test]
fn what_a_newcomer_says_counts_behind_what_it_inherits() {
    let mut host = host();
    let (slot, me) = comes(&mut host, "x", &text(r#"{"join":["c"]}"#));
    let [Registration { takes: true, is_whole: false, scope: Scope::Nobody, .. }] =
        &registrations(&mut host)[..]
    else {
        panic!("a newcomer")
    };
    assert!(host.is_paused(slot));
    answer(&mut host, me, done(&["b", "a"], Vec::new()));
    assert!(!host.is_paused(slot));
    let asked = registrations(&mut host);
    assert_eq!((asked.len(), &asked[0].join, asked[0].scope), (1, &names(&["c"]), Scope::All));
    // All that it has stands behind each other.
    find(&mut host);
    assert_eq!(registrations(&mut host)[0].join, names(&["b", "a", "c"]));
    host.handle_gone(slot, 0);
    let Request::Leave { client, id } = &said(&mut host).0[0] else { panic!("it has left") };
    assert_eq!((*client, &**id), (me, "x"));
    assert_eq!(host.buffer_bytes(), 0);
}

#[test]
fn a_meeting_is_told_to_both() {
    let mut host = host();
    let (slot, me) = peer(&mut host, "x");
    find(&mut host);
    registrations(&mut host);
    let meeting =
        |slot, id: &str| Meeting { client: stranger(slot), id: id.into(), documents: names(&["2", "\"1"]) };
    answer(&mut host, me, done(&[], vec![meeting(1, "y\""), meeting(2, "z")]));
    let told = messages(&sent(&mut host, slot).0);
    let expected =
        ["y\\\"", "z"].map(|id| format!(r#"{{"type":"Introduction","id":"{id}","keys":["2","\"1"]}}"#));
    assert_eq!(told, expected);
    let (_, letters) = said(&mut host);
    let letter = |to| Letter::Introduction {
        to: stranger(to),
        from: me,
        id: "x".into(),
        documents: names(&["2", "\"1"]),
    };
    assert_eq!(letters, [letter(1), letter(2)]);
    // The other way round; only what a host says of its own clients counts.
    let from_there = |host: &mut Shard, letter| {
        host.handle_cluster_mail(FromCluster::Letter(THERE, AnyLetter::Introductions(letter)), 0);
    };
    let documents = || names(&["3"]);
    from_there(&mut host, Letter::Introduction { to: me, from: me, id: "y".into(), documents: documents() });
    assert_eq!(host.counters().letters_ignored.value(), 1);
    from_there(
        &mut host,
        Letter::Introduction { to: me, from: stranger(1), id: "y".into(), documents: documents() },
    );
    assert_eq!(messages(&sent(&mut host, slot).0), [r#"{"type":"Introduction","id":"y","keys":["3"]}"#]);
    // Who was taken over hears nothing more, and registers nothing more.
    from_there(&mut host, Letter::TakenOver { client: me, by: stranger(3) });
    say(&mut host, slot, r#"{"join":["4"]}"#);
    answer(&mut host, me, done(&["5"], vec![meeting(4, "w")]));
    assert!(sent(&mut host, slot).0.is_empty());
    host.handle_gone(slot, 0);
    let (requests, letters) = said(&mut host);
    // A registration that was under way may have put it back.
    assert_eq!((requests, letters), (vec![Request::Leave { client: me, id: "x".into() }], Vec::new()));
    assert!(host.has_no_keys() && host.buffer_bytes() == 0);
}

#[test]
fn what_has_failed_is_registered_as_a_whole() {
    let mut host = host();
    let (slot, me) = comes(&mut host, "x", b"");
    sent(&mut host, slot);
    registrations(&mut host);
    answer(&mut host, me, Outcome::Failed { takes: true });
    assert!(!host.is_paused(slot), "it goes on by itself");
    say(&mut host, slot, r#"{"join":["1","2"]}"#);
    say(&mut host, slot, r#"{"leave":["1"]}"#);
    assert!(registrations(&mut host).is_empty(), "in its turn");
    host.handle_tick(REGISTRATION_RETRY_MS - 100);
    assert!(registrations(&mut host).is_empty());
    host.handle_tick(REGISTRATION_RETRY_MS + 100);
    let asked = registrations(&mut host);
    let [Registration { takes: true, is_whole: true, join, scope: Scope::All, .. }] = &asked[..] else {
        panic!("{asked:?}")
    };
    assert_eq!(*join, names(&["2"]));
    // Somebody who is gone was in the way.
    answer(&mut host, me, Outcome::Again);
    let asked = registrations(&mut host);
    assert!(matches!(asked[..], [Registration { takes: false, is_whole: true, .. }]), "{asked:?}");
    answer(&mut host, me, Outcome::TooMuch);
    assert_eq!(messages(&sent(&mut host, slot).0), ["close 1013 too slow"]);
}

#[test]
fn while_redis_is_away_nothing_is_asked_and_all_of_it_later() {
    let mut host = host();
    let (a, a_id) = peer(&mut host, "a");
    tell(&mut host, News::Down);
    say(&mut host, a, r#"{"join":["1"]}"#);
    let (b, b_id) = comes(&mut host, "b", &text(r#"{"join":["1"]}"#));
    let introduction = |id| format!(r#"{{"type":"Introduction","id":"{id}","keys":["1"]}}"#);
    assert_eq!(messages(&sent(&mut host, a).0), [introduction("b")], "at once");
    let (c, _) = comes(&mut host, "c", b"");
    host.handle_gone(c, 0);
    find(&mut host);
    let (requests, _) = said(&mut host);
    assert!(matches!(requests[..], [Request::Leave { .. }]), "{requests:?}");
    tell(&mut host, News::Up);
    let mut asked = registrations(&mut host);
    asked.sort_by_key(|registration| registration.id.clone());
    let [one, other] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((one.client, one.takes, other.client, other.takes), (a_id, false, b_id, true));
    for registration in &asked {
        assert!(registration.is_whole && registration.join == names(&["1"]));
        assert_eq!(registration.scope, Scope::All, "each has said something");
        assert!(matches!(registration.acquaintance, Acquaintance::One { .. }));
    }
    for slot in [a, b] {
        host.handle_gone(slot, 0);
    }
}

#[test]
fn only_so_much_is_under_way() {
    let mut host = host();
    let (slot, me) = peer(&mut host, "x");
    for _ in 0..REGISTRATIONS_MAX {
        say(&mut host, slot, r#"{"join":["1"]}"#);
    }
    assert_eq!(registrations(&mut host).len(), REGISTRATIONS_MAX);
    say(&mut host, slot, r#"{"join":["2"]}"#);
    say(&mut host, slot, r#"{"join":["3"]}"#);
    assert!(registrations(&mut host).is_empty());
    answer(&mut host, me, done(&[], Vec::new()));
    let asked = registrations(&mut host);
    let [Registration { is_whole: true, join, .. }] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(*join, names(&["1", "2", "3"]), "as it stands, once");
}

#[test]
fn a_short_url_waits_for_its_answer() {
    let mut host = host();
    let open = |host: &mut Shard| {
        let slot = host.handle_accept(0).expect("room");
        let head = String::from_utf8_lossy(UPGRADE).replace("/ws", "/connection/far");
        host.handle_bytes(slot, &mut [head.as_bytes(), &text("held")].concat(), 0);
        assert!(host.is_paused(slot));
        let client = host.clients.at(slot).expect("it is there").id;
        let asked = said(host).0;
        assert_eq!(asked, [Request::Partner { client, remote: "far".into() }]);
        (slot, client)
    };
    for found in [Found::Nobody, Found::Unknown] {
        let (slot, client) = open(&mut host);
        tell(&mut host, News::Partner { client, remote: "far".into(), found });
        let sent = sent(&mut host, slot).0;
        assert!(sent.ends_with(b"use ?local= and ?document="), "nobody here knows it either");
    }
    let (slot, client) = open(&mut host);
    let found = Found::Partner("near".into(), "doc".into());
    tell(&mut host, News::Partner { client, remote: "far".into(), found });
    assert!(!host.is_paused(slot));
    assert_eq!(host.counters().pipes_held.value(), 1);
    // One that is gone by then is no matter.
    let (slot, client) = open(&mut host);
    host.handle_gone(slot, 0);
    tell(&mut host, News::Partner { client, remote: "far".into(), found: Found::Nobody });
}

#[test]
fn what_was_under_way_for_one_who_is_taken_over_comes_to_the_new_one() {
    let mut host = host();
    let (old_slot, old) = peer(&mut host, "x");
    find(&mut host);
    registrations(&mut host);
    say(&mut host, old_slot, r#"{"join":["1"]}"#);
    let (slot, new) = comes(&mut host, "x", b"");
    answer(&mut host, new, done(&[], Vec::new()));
    said(&mut host);
    sent(&mut host, slot);
    let introduction = |id: &str| format!(r#"{{"type":"Introduction","id":"{id}","keys":["1"]}}"#);
    // What the old one has said leads to an introduction.
    let meeting = Meeting { client: stranger(1), id: "y".into(), documents: names(&["1"]) };
    answer(&mut host, old, done(&[], vec![meeting]));
    assert_eq!(messages(&sent(&mut host, slot).0), [introduction("y")]);
    let letter =
        Letter::Introduction { to: stranger(1), from: new, id: "x".into(), documents: names(&["1"]) };
    assert_eq!(said(&mut host).1, [letter]);
    // Another host could not know of the new one; the old one's connection may have ended by now.
    let introduces = |host: &mut Shard, from, id: &str| {
        let letter = Letter::Introduction { to: old, from, id: id.into(), documents: names(&["1"]) };
        host.handle_cluster_mail(FromCluster::Letter(THERE, AnyLetter::Introductions(letter)), 0);
    };
    introduces(&mut host, stranger(2), "z");
    assert_eq!(messages(&sent(&mut host, slot).0), [introduction("z")]);
    host.handle_gone(old_slot, 0);
    introduces(&mut host, stranger(3), "w");
    assert_eq!(messages(&sent(&mut host, slot).0), [introduction("w")]);
    host.handle_gone(slot, 0);
    introduces(&mut host, stranger(4), "v");
    assert_eq!(host.counters().letters_ignored.value(), 1, "nobody speaks for it");
    said(&mut host);
    assert!(host.has_no_keys() && host.buffer_bytes() == 0);
}
