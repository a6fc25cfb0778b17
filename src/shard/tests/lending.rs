//! A shard with a cluster behind it, played by hand: the queue's loans, and partners of other servers.

use super::*;
use crate::cluster::pairing::{News, Request};
use crate::cluster::{FromCluster, ToCluster};
use crate::id::RoomId;
use crate::protocol::pairing::{Errand, Loan, Note, Ticket, Waiter};

const AVAILABLE: &str = r#"{"type":"available"}"#;
const PARTNER_LEFT: &str = r#"{"type":"partner-left"}"#;

fn joined() -> Shard {
    shard(0, &Settings { shards: 1, has_cluster: true, ..settings() })
}

fn asked(host: &mut Shard) -> Vec<Request> {
    let mut asked = Vec::new();
    host.deliver_cluster_mail(|parcel| {
        let ToCluster::Pairing(request) = parcel.mail else { panic!("{parcel:?}") };
        asked.push(request);
        Ok(())
    });
    asked
}

fn tell(host: &mut Shard, news: News) {
    host.handle_cluster_mail(FromCluster::Pairing(news), 0);
}

fn id(host: &mut Shard, slot: Slot) -> ClientId {
    host.clients.at(slot).expect("it is there").id
}

fn room() -> RoomId {
    RoomId::new(&mut Entropy::from_seed([9; 32]))
}

/// A client of another server.
fn foreign() -> Waiter {
    let client = ClientId::new(HostId(0xff), ShardIndex(9), Slot(3), &mut Entropy::from_seed([4; 32]));
    Waiter { client, ticket: Ticket::new(77) }
}

fn text_of(id: ClientId) -> String {
    String::from_utf8(id.text().to_vec()).expect("ASCII")
}

fn matched_with_foreign() -> String {
    let room = String::from_utf8(room().text().to_vec()).expect("ASCII");
    format!(r#"{{"type":"matched","roomId":"{room}","partnerId":"{}"}}"#, text_of(foreign().client))
}

/// Time passes until the client that waits is lent; its loan.
fn lent(host: &mut Shard, slot: Slot) -> (Loan, Waiter) {
    for _ in 0..2 {
        assert!(host.poll_reminder().is_some() && host.poll_reminder().is_none(), "asked for once");
        host.handle_reminder(0);
    }
    let asked = asked(host);
    let [Request::Queue(Errand::List { loan, waiter })] = asked[..] else { panic!("{asked:?}") };
    assert_eq!(waiter.client, id(host, slot));
    (loan, waiter)
}

/// A client that waits, and is claimed by a foreign server.
fn claimed() -> (Shard, Slot) {
    let mut host = joined();
    let slot = open(&mut host);
    say(&mut host, slot, AVAILABLE);
    let (loan, waiter) = lent(&mut host, slot);
    tell(&mut host, News::Claimed { ours: waiter.client, room: room(), foreign: foreign() });
    let matched = Note::Matched { room: room(), partner: waiter.client, newer: foreign() };
    assert_eq!(asked(&mut host), [Request::Note(matched), Request::Queue(Errand::Forget(loan))]);
    assert_eq!(messages(&sent(&mut host, slot).0), [matched_with_foreign()]);
    assert_eq!(host.waiting_in_queue(), None);
    (host, slot)
}

#[test]
fn who_waits_alone_is_lent_and_asked_back() {
    let mut host = joined();
    let (a, b) = (open(&mut host), open(&mut host));
    say(&mut host, a, AVAILABLE);
    let (loan, _) = lent(&mut host, a);
    assert_eq!(host.poll_reminder(), None, "there is nothing to be done");
    say(&mut host, b, AVAILABLE);
    assert_eq!(asked(&mut host), [Request::Queue(Errand::Recall(loan))]);
    assert_eq!(messages(&sent(&mut host, b).0), [""; 0]);
    tell(&mut host, News::Recalled(loan));
    assert_eq!(host.counters().matches.value(), 2);
    assert_eq!(asked(&mut host), []);
}

#[test]
fn who_was_taken_and_not_matched_waits_anew() {
    let mut host = joined();
    let slot = open(&mut host);
    say(&mut host, slot, AVAILABLE);
    let (loan, waiter) = lent(&mut host, slot);
    tell(&mut host, News::Taken(loan));
    assert_eq!(host.waiting_in_queue(), None);
    tell(&mut host, News::Note(Note::Declined(waiter)));
    assert_eq!(host.waiting_in_queue(), Some(waiter.client));
    let (_, again) = lent(&mut host, slot);
    assert_ne!(again.ticket, waiter.ticket);
    // What comes for the old ticket comes too late.
    tell(&mut host, News::Note(Note::Declined(waiter)));
    let offer = Note::Offer { room: room(), older: foreign(), newer: waiter };
    tell(&mut host, News::Note(offer));
    assert_eq!(asked(&mut host), [Request::Note(Note::Declined(foreign()))]);
    host.handle_gone(slot, 0);
    let forgotten = asked(&mut host);
    assert!(matches!(forgotten[..], [Request::Queue(Errand::Forget(Loan(1)))]), "{forgotten:?}");
}

#[test]
fn a_foreign_waiter_is_a_partner_like_any_other() {
    let mut host = joined();
    let slot = open(&mut host);
    say(&mut host, slot, AVAILABLE);
    let (loan, newer) = lent(&mut host, slot);
    tell(&mut host, News::Taken(loan));
    tell(&mut host, News::Note(Note::Offer { room: room(), older: foreign(), newer }));
    let accepted = Note::Accepted { room: room(), older: foreign(), newer };
    assert_eq!(asked(&mut host), [Request::Note(accepted)]);
    tell(&mut host, News::Note(Note::Matched { room: room(), partner: foreign().client, newer }));
    assert_eq!(messages(&sent(&mut host, slot).0), [matched_with_foreign()]);
    say(&mut host, slot, r#"{"type":"ice","candidate":1.50}"#);
    let requests = asked(&mut host);
    let [Request::Frame { to, room: named, frame }] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!((*to, *named), (foreign().client, room()));
    let expected = format!(r#"{{"type":"ice","from":"{}","candidate":1.50}}"#, text_of(newer.client));
    assert_eq!(messages(frame), [expected]);
    drop(requests);
    tell(&mut host, News::Note(Note::PartnerLeft { room: room(), to: newer.client }));
    assert_eq!(messages(&sent(&mut host, slot).0), [PARTNER_LEFT]);
    assert_eq!(host.waiting_in_queue(), Some(newer.client));
    host.handle_gone(slot, 0);
    asked(&mut host);
    assert_eq!(host.buffer_bytes(), 0, "all memory is back");
}

#[test]
fn a_foreign_match_pairs_who_waits_and_nobody_else() {
    let (mut host, slot) = claimed();
    let ours = id(&mut host, slot);
    let refused = [Request::Note(Note::Declined(foreign()))];
    // It has a partner, it is idle, it is gone.
    tell(&mut host, News::Claimed { ours, room: room(), foreign: foreign() });
    assert_eq!(asked(&mut host), refused);
    say(&mut host, slot, r#"{"type":"leave"}"#);
    let left = Note::PartnerLeft { room: room(), to: foreign().client };
    assert_eq!(asked(&mut host), [Request::Note(left)]);
    tell(&mut host, News::Claimed { ours, room: room(), foreign: foreign() });
    assert_eq!(asked(&mut host), refused);
    host.handle_gone(slot, 0);
    tell(&mut host, News::Claimed { ours, room: room(), foreign: foreign() });
    assert_eq!(asked(&mut host), refused);
}

/// It may be in the queue and not lent.
#[test]
fn a_foreign_match_takes_a_client_out_of_the_queue() {
    let mut host = joined();
    let (a, b) = (open(&mut host), open(&mut host));
    say(&mut host, a, AVAILABLE);
    let ours = id(&mut host, a);
    tell(&mut host, News::Claimed { ours, room: room(), foreign: foreign() });
    assert_eq!(host.waiting_in_queue(), None);
    say(&mut host, b, AVAILABLE);
    assert_eq!(host.waiting_in_queue(), Some(id(&mut host, b)));
    assert_eq!(messages(&sent(&mut host, a).0), [matched_with_foreign()]);
}

#[test]
fn foreign_messages_are_for_those_without_another_partner() {
    let (mut host, slot) = claimed();
    let idle = open(&mut host);
    let said = |to, from| News::Said { to, from, payload: b"{ \"x\":1.50 }".as_slice().into() };
    let stranger = ClientId::from_bits(room().to_bits());
    let (ours, other) = (id(&mut host, slot), id(&mut host, idle));
    for (to, from) in [(ours, Some(foreign().client)), (other, stranger), (other, None)] {
        tell(&mut host, said(to, from));
        let slot = to.slot();
        assert_eq!(messages(&sent(&mut host, slot).0), ["{ \"x\":1.50 }"]);
    }
    for (to, from) in [(ours, stranger), (ours, None), (foreign().client, None)] {
        tell(&mut host, said(to, from));
    }
    assert_eq!(messages(&sent(&mut host, slot).0), [""; 0]);
    assert_eq!(host.counters().letters_ignored.value(), 3);
}

#[test]
fn notes_for_others_are_counted() {
    let mut host = joined();
    let elsewhere = ClientId::new(HostId(1), ShardIndex(7), Slot(0), &mut Entropy::from_seed([5; 32]));
    let waiter = Waiter { client: elsewhere, ticket: Ticket::new(0) };
    for note in [Note::Declined(waiter), Note::Wait(waiter)] {
        tell(&mut host, News::Note(note));
    }
    assert_eq!(host.counters().letters_ignored.value(), 2);
    assert_eq!(host.waiting_in_queue(), None);
}
