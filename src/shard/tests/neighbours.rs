//! Two hosts of one shard each, joined by hand.

use super::*;
use crate::cluster::{FromCluster, Letter, Relation, ToCluster};
use crate::id::RoomId;
use crate::limits::{COPY_MAX, HOST_FRAME_BYTES_MAX};
use crate::protocol::Part;
use crate::protocol::pairing::{Note, Ticket, Waiter};
use crate::shard::mail::Parcel;

/// Who writes.
const THERE: HostId = HostId(2);
const AVAILABLE: &str = r#"{"type":"available"}"#;
const PARTNER_LEFT: &str = r#"{"type":"partner-left"}"#;

fn host(number: u32) -> Shard {
    let limits = Limits { message_bytes_max: 1 << 30, outbox_bytes_max: 1 << 30, ..Limits::default() };
    let settings = Settings { host: HostId(number), shards: 1, limits, ..settings() };
    shard(0, &settings)
}

fn find(host: &mut Shard, number: u32) {
    host.handle_cluster_mail(FromCluster::HostFound(HostId(number), Relation(u64::from(number))), 0);
}

fn two() -> (Shard, Shard) {
    let (mut one, mut other) = (host(1), host(2));
    find(&mut one, 2);
    find(&mut other, 1);
    (one, other)
}

fn parcels(host: &mut Shard) -> Vec<Parcel> {
    let mut parcels = Vec::new();
    host.deliver_cluster_mail(|parcel| {
        parcels.push(parcel);
        Ok(())
    });
    parcels
}

/// Hands over what has gathered, as the cluster does.
fn carry(from: &mut Shard, to: &mut Shard) -> usize {
    let parcels = parcels(from);
    let count = parcels.len();
    for Parcel { mail, .. } in parcels {
        let ToCluster::Letter { to: host, relation, shard, letter } = mail else { panic!("{mail:?}") };
        assert_eq!((host, shard), (to.settings.host, ShardIndex(0)));
        assert_eq!(relation.0, u64::from(host.0), "as it was named");
        to.handle_cluster_mail(FromCluster::Letter(from.settings.host, letter), 0);
    }
    count
}

fn exchange(one: &mut Shard, other: &mut Shard) {
    while carry(one, other) + carry(other, one) > 0 {}
}

fn waiter(host: &mut Shard, slot: Slot) -> Waiter {
    say(host, slot, AVAILABLE);
    Waiter { client: host.clients.at(slot).expect("it is there").id, ticket: Ticket::new(0) }
}

fn room() -> RoomId {
    RoomId::new(&mut Entropy::from_seed([9; 32]))
}

/// What the queue says when it has taken a waiter of each host.
fn offer(older: Waiter, newer: Waiter) -> FromCluster {
    FromCluster::Letter(older.client.host(), Letter::Note(Note::Offer { room: room(), older, newer }))
}

/// Two hosts, and a client of each; they are partners.
fn partners() -> (Shard, Slot, Shard, Slot) {
    let (mut one, mut other) = two();
    let (a, b) = (open(&mut one), open(&mut other));
    let (older, newer) = (waiter(&mut one, a), waiter(&mut other, b));
    other.handle_cluster_mail(offer(older, newer), 0);
    exchange(&mut one, &mut other);
    for (host, slot) in [(&mut one, a), (&mut other, b)] {
        let told = messages(&sent(host, slot).0);
        assert!(told.len() == 1 && told[0].starts_with(r#"{"type":"matched","#), "{told:?}");
    }
    (one, a, other, b)
}

fn check_relay(from: &mut Shard, sender: Slot, to: &mut Shard, receiver: Slot) {
    let long = "x".repeat(COPY_MAX);
    for sdp in ["1.50", &format!("\"{long}\""), "2"] {
        say(from, sender, &format!(r#"{{"type":"offer","sdp":{sdp}}}"#));
    }
    assert_eq!(carry(from, to), 3);
    let told = messages(&sent(to, receiver).0);
    assert!(told[0].ends_with(r#","sdp":1.50}"#) && told[2].ends_with(r#","sdp":2}"#), "in order");
    assert!(told.len() == 3 && told[1].contains(&long));
    let id = from.clients.at(sender).expect("it is there").id.text();
    assert!(told.iter().all(|text| text.contains(std::str::from_utf8(&id).expect("ASCII"))));
}

#[test]
fn partners_on_two_hosts_are_matched_and_relay() {
    let (mut one, a, mut other, b) = partners();
    check_relay(&mut one, a, &mut other, b);
    check_relay(&mut other, b, &mut one, a);
    say(&mut one, a, r#"{"type":"next"}"#);
    exchange(&mut one, &mut other);
    assert_eq!(messages(&sent(&mut other, b).0), [PARTNER_LEFT]);
    one.handle_gone(a, 0);
    other.handle_gone(b, 0);
    assert_eq!((one.buffer_bytes(), other.buffer_bytes()), (0, 0), "all memory is back");
}

#[test]
fn the_clients_of_a_host_that_is_gone_have_left() {
    let (mut one, a, mut other, b) = partners();
    say(&mut other, b, r#"{"type":"ice","candidate":1}"#);
    one.handle_cluster_mail(FromCluster::HostGone(HostId(2)), 0);
    assert_eq!(messages(&sent(&mut one, a).0), [PARTNER_LEFT]);
    assert_eq!(one.waiting_in_queue(), one.clients.at(a).map(|client| client.id), "it waits again");
    assert_eq!(one.neighbours().count(), 0);
    // What was on its way is of a room that is no more.
    assert_eq!(carry(&mut other, &mut one), 1);
    assert_eq!(messages(&sent(&mut one, a).0), [""; 0]);
    assert_eq!(one.counters().letters_ignored.value(), 1);
    let c = open(&mut one);
    say(&mut one, c, AVAILABLE);
    assert!(messages(&sent(&mut one, c).0)[0].starts_with(r#"{"type":"matched","#));
    assert!(parcels(&mut one).is_empty(), "nothing is written to a host that is gone");
}

#[test]
fn partners_on_this_host_notice_nothing() {
    let (mut one, _) = two();
    let (a, b) = (open(&mut one), open(&mut one));
    say(&mut one, a, AVAILABLE);
    say(&mut one, b, AVAILABLE);
    assert_eq!(messages(&sent(&mut one, a).0).len(), 1, "matched");
    one.handle_cluster_mail(FromCluster::HostGone(HostId(2)), 0);
    for slot in [a, b] {
        assert_eq!(messages(&sent(&mut one, slot).0), [""; 0]);
    }
    assert!(parcels(&mut one).is_empty(), "partners within a host cost Redis nothing");
}

/// The client that was offered waits anew, since the other's host would have said that it waits no longer.
#[test]
fn a_note_to_a_host_that_is_gone_is_answered_here() {
    let (mut one, mut other) = two();
    let (a, b) = (open(&mut one), open(&mut other));
    let (older, newer) = (waiter(&mut one, a), waiter(&mut other, b));
    other.handle_cluster_mail(FromCluster::HostGone(HostId(1)), 0);
    other.handle_cluster_mail(offer(older, newer), 0);
    assert!(parcels(&mut other).is_empty());
    assert_eq!(other.waiting_in_queue(), Some(newer.client));
    // And its partner, if there was one in between, is told.
    one.handle_cluster_mail(FromCluster::HostGone(HostId(2)), 0);
    one.handle_cluster_mail(
        FromCluster::Letter(THERE, Letter::Note(Note::Accepted { room: room(), older, newer })),
        0,
    );
    let told = messages(&sent(&mut one, a).0);
    assert!(told[0].starts_with(r#"{"type":"matched","#) && told[1] == PARTNER_LEFT, "{told:?}");
}

#[test]
fn letters_to_nobody_here_are_counted() {
    let (mut one, _) = two();
    let a = open(&mut one);
    let here = waiter(&mut one, a);
    let mut entropy = Entropy::from_seed([5; 32]);
    let elsewhere = ClientId::new(HostId(1), ShardIndex(7), Slot(0), &mut entropy);
    let distant = ClientId::new(HostId(2), ShardIndex(0), Slot(0), &mut entropy);
    let (room, waits) = (room(), |client| Waiter { client, ticket: Ticket::new(0) });
    let letters = [
        Letter::Note(Note::Wait(waits(distant))),
        Letter::Note(Note::Unwait(here)),
        Letter::Note(Note::Declined(waits(elsewhere))),
        Letter::Note(Note::PartnerLeft { room, to: distant }),
        // Of clients that are not the sender's.
        Letter::Note(Note::Accepted { room, older: here, newer: waits(elsewhere) }),
        Letter::Note(Note::Matched { room, partner: elsewhere, newer: here }),
        Letter::Note(Note::Offer { room, older: waits(elsewhere), newer: here }),
        Letter::Frame { to: here.client, room, frame: vec![0x81, 0].into() },
    ];
    let count = letters.len() as u64;
    for letter in letters {
        one.handle_cluster_mail(FromCluster::Letter(THERE, letter), 0);
    }
    assert_eq!(one.counters().letters_ignored.value(), count);
    assert_eq!(one.waiting_in_queue(), Some(here.client));
    assert!(parcels(&mut one).is_empty());
}

#[test]
fn a_frame_that_redis_could_not_carry_closes_its_sender() {
    let (mut one, a, mut other, b) = partners();
    let long = "x".repeat(HOST_FRAME_BYTES_MAX);
    say(&mut one, a, &format!(r#"{{"type":"offer","sdp":"{long}"}}"#));
    assert_eq!(messages(&sent(&mut one, a).0), ["close 1009 message too big"]);
    exchange(&mut one, &mut other);
    assert_eq!(messages(&sent(&mut other, b).0), [PARTNER_LEFT]);
}

#[test]
fn mail_that_waits_for_the_cluster_stops_the_reading() {
    let (mut one, a, mut other, b) = partners();
    let partner = other.clients.at(b).expect("it is there").id;
    for _ in 0..=crate::limits::MAIL_WAITING_MAX {
        one.forward(a, partner, room(), &[Part::Literal("x")], &[]);
    }
    one.deliver_cluster_mail(Err);
    assert!(one.is_reading_paused());
    assert!(one.has_output());
    parcels(&mut one);
    assert!(!one.is_reading_paused());
}

#[test]
fn whether_others_can_be_reached_is_as_was_last_said() {
    let mut one = host(1);
    assert!(!one.is_online());
    one.handle_cluster_mail(FromCluster::Online(true), 0);
    assert!(one.is_online());
    one.handle_cluster_mail(FromCluster::Online(false), 0);
    assert!(!one.is_online());
}
