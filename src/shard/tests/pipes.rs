//! Pipes between two hosts of one shard each, joined by hand; the test is Redis.

use super::*;
use crate::cluster::pipes::{Letter, News, Request, What};
use crate::cluster::{FromCluster, Letter as AnyLetter, Relation, ToCluster};
use crate::limits::PIPE_CREDIT_BYTES;

const CLOSED: &str = "close 1013 the way to the other host is lost";

/// A host that knows another one.
fn host(number: u32) -> Shard {
    let settings = Settings { host: HostId(number), shards: 1, has_cluster: true, ..settings() };
    let mut host = shard(0, &settings);
    host.handle_cluster_mail(FromCluster::Pipes(News::Up), 0);
    let other = 3 - number;
    host.handle_cluster_mail(FromCluster::HostFound(HostId(other), Relation(u64::from(other))), 0);
    host
}

/// Opens the end `me` towards `other`.
fn end(host: &mut Shard, me: &str, other: &str) -> (Slot, ClientId) {
    let slot = host.handle_accept(0).expect("room");
    let path = format!("GET /connection/{me}/{other}/doc HTTP/1.1");
    let head = String::from_utf8_lossy(UPGRADE).replace("GET /ws HTTP/1.1", &path);
    host.handle_bytes(slot, &mut head.into_bytes(), 0);
    (slot, host.clients.at(slot).expect("it is there").id)
}

/// What an end is sent, but for its 101.
fn heard(host: &mut Shard, slot: Slot) -> Vec<u8> {
    let (bytes, _) = sent(host, slot);
    let head =
        bytes.starts_with(b"HTTP/1.1 101 ").then(|| bytes.windows(4).position(|end| end == b"\r\n\r\n"));
    bytes[head.flatten().map_or(0, |end| end + 4)..].to_vec()
}

/// What a host has to say: to Redis, and to the other host.
fn said(host: &mut Shard) -> (Vec<Request>, Vec<Letter>) {
    let (mut requests, mut letters) = (Vec::new(), Vec::new());
    host.deliver_cluster_mail(|parcel| {
        match parcel.mail {
            ToCluster::Pipes(request) => requests.push(request),
            ToCluster::Letter { letter: AnyLetter::Pipes(letter), .. } => letters.push(letter),
            other => panic!("{other:?}"),
        }
        Ok(())
    });
    (requests, letters)
}

fn tell(host: &mut Shard, news: News) {
    host.handle_cluster_mail(FromCluster::Pipes(news), 0);
}

fn hand(host: &mut Shard, letters: Vec<Letter>) {
    let other = HostId(3 - host.settings.host.0);
    for letter in letters {
        host.handle_cluster_mail(FromCluster::Letter(other, AnyLetter::Pipes(letter)), 0);
    }
}

/// Carries letters until there are no more, with what both ends are sent meanwhile.
fn carry(one: &mut Shard, a: Slot, other: &mut Shard, b: Slot) -> (Vec<u8>, Vec<u8>) {
    let (mut to_a, mut to_b) = (Vec::new(), Vec::new());
    loop {
        let (from_one, from_other) = (said(one).1, said(other).1);
        if from_one.is_empty() && from_other.is_empty() {
            return (to_a, to_b);
        }
        hand(other, from_one);
        hand(one, from_other);
        to_a.extend(heard(one, a));
        to_b.extend(heard(other, b));
    }
}

fn arrivals(requests: &[Request]) -> usize {
    requests.iter().filter(|request| matches!(request, Request::Arrive { .. })).count()
}

/// Two hosts with an end each, of which Redis says that `b` waits and `a` has met it.
fn asked() -> (Shard, Slot, ClientId, Shard, Slot, ClientId) {
    let (mut one, mut other) = (host(1), host(2));
    let ((a, a_id), (b, b_id)) = (end(&mut one, "a", "b"), end(&mut other, "b", "a"));
    assert_eq!((arrivals(&said(&mut one).0), arrivals(&said(&mut other).0)), (1, 1));
    tell(&mut other, News::Waits { client: b_id });
    tell(&mut one, News::Met { client: a_id, partner: b_id });
    (one, a, a_id, other, b, b_id)
}

fn check_empty(hosts: [&mut Shard; 2]) {
    for host in hosts {
        said(host);
        assert_eq!(host.buffer_bytes(), 0, "all memory is back");
        assert!(host.has_no_keys());
    }
}

#[test]
fn two_that_ask_each_other_are_joined_once() {
    let (mut one, a, a_id, mut other, b, b_id) = asked();
    tell(&mut other, News::Met { client: b_id, partner: a_id });
    say(&mut one, a, "from a");
    say(&mut other, b, "from b");
    assert_eq!(carry(&mut one, a, &mut other, b).1, b"\x81\x06from a");
    for host in [&one, &other] {
        assert_eq!(host.counters().pipes_distant.value(), 1);
    }
    say(&mut other, b, "more");
    assert_eq!(messages(&carry(&mut one, a, &mut other, b).0), ["more"]);
    one.handle_gone(a, 0);
    carry(&mut one, a, &mut other, b);
    other.handle_gone(b, 0);
    check_empty([&mut one, &mut other]);
}

#[test]
fn nothing_is_read_from_a_newcomer_until_its_partner_is_known() {
    let (mut one, a, _, mut other, b, _) = asked();
    assert!(one.is_paused(a) && !other.is_paused(b));
    // What came with its head is kept, the close in it too.
    one.handle_bytes(a, &mut [text("in passing"), frame(Opcode::Close, b"")].concat(), 0);
    assert!(sent(&mut one, a).0.is_empty(), "not even its 101 is sent");
    let (to_a, to_b) = carry(&mut one, a, &mut other, b);
    assert_eq!(to_a, b"\x88\0", "its answer");
    assert_eq!(messages(&to_b), ["in passing", ""], "and a close without a code");
    other.handle_gone(b, 0);
    one.handle_gone(a, 0);
    check_empty([&mut one, &mut other]);
}

#[test]
fn who_is_refused_waits_again() {
    let (mut one, a, a_id, mut other, b, _) = asked();
    other.handle_gone(b, 0);
    carry(&mut one, a, &mut other, b);
    // Refused; while it asked it was nobody's partner here, and is again.
    let (requests, _) = said(&mut one);
    assert_eq!(arrivals(&requests), 0, "carried away already");
    assert!(one.is_paused(a));
    tell(&mut one, News::Waits { client: a_id });
    assert!(!one.is_paused(a) && sent(&mut one, a).0.starts_with(b"HTTP/1.1 101 "));
    let (b, _) = end(&mut one, "b", "a");
    say(&mut one, b, "here");
    assert_eq!(messages(&heard(&mut one, a)), ["here"]);
    one.handle_gone(a, 0);
    one.handle_gone(b, 0);
    check_empty([&mut one, &mut other]);
}

#[test]
fn who_is_refused_finds_who_came_meanwhile() {
    let (mut one, a, _, mut other, b, _) = asked();
    // While it asks, one that names it comes to its own host, and is held beside it; both have said something.
    let (c, c_id) = end(&mut one, "b", "a");
    tell(&mut one, News::Waits { client: c_id });
    say(&mut one, c, "of c");
    say(&mut one, a, "of a");
    other.handle_gone(b, 0);
    let (_, letters) = said(&mut one);
    hand(&mut other, letters);
    let (_, letters) = said(&mut other);
    assert!(matches!(letters[..], [Letter { what: What::Refused, .. }]), "{letters:?}");
    hand(&mut one, letters);
    // Both outboxes are looked at: what is sent to one slot is taken from it alone.
    let to_a = messages(&heard(&mut one, a));
    assert_eq!(to_a, ["of c"]);
    say(&mut one, a, "more of a");
    assert_eq!(
        messages(&heard(&mut one, c)),
        ["more of a"],
        "what came before went with the look at the other"
    );
    one.handle_gone(a, 0);
    one.handle_gone(c, 0);
    check_empty([&mut one, &mut other]);
}

#[test]
fn who_is_refused_makes_way_for_who_came_later() {
    let (mut one, a, _, mut other, b, _) = asked();
    let (c, c_id) = end(&mut one, "a", "b");
    tell(&mut one, News::Waits { client: c_id });
    other.handle_gone(b, 0);
    let (_, letters) = said(&mut one);
    hand(&mut other, letters);
    let (_, letters) = said(&mut other);
    hand(&mut one, letters);
    assert_eq!(heard(&mut one, a), b"\x88\0", "closed without a code");
    let (b, _) = end(&mut one, "b", "a");
    say(&mut one, b, "for the later one");
    assert_eq!(messages(&heard(&mut one, c)), ["for the later one"]);
}

#[test]
fn who_asks_another_is_asked_again_later() {
    let (mut one, a, a_id, mut other, b, b_id) = asked();
    said(&mut one);
    // Before it is asked it has asked another, which has left since.
    let left = ClientId::new(HostId(1), a_id.shard(), Slot(9), &mut Entropy::from_seed([9; 32]));
    tell(&mut other, News::Met { client: b_id, partner: left });
    said(&mut other);
    hand(&mut other, vec![Letter { to: b_id, from: a_id, what: What::Ask }]);
    let (_, letters) = said(&mut other);
    assert_eq!(letters, [Letter { to: a_id, from: b_id, what: What::Busy }]);
    hand(&mut one, letters);
    assert!(said(&mut one).0.is_empty() && !one.is_paused(a), "it waits meanwhile");
    // The other's answer comes, and takes nobody out but who gave it.
    hand(&mut other, vec![Letter { to: b_id, from: left, what: What::Refused }]);
    let (requests, _) = said(&mut other);
    assert!(
        matches!(&requests[..], [Request::Forget { client, .. }, Request::Arrive { .. }] if *client == left),
        "{requests:?}"
    );
    one.handle_tick(1_100);
    let (requests, _) = said(&mut one);
    assert!(matches!(&requests[..], [Request::Arrive { .. }]), "{requests:?}");
    tell(&mut one, News::Met { client: a_id, partner: b_id });
    carry(&mut one, a, &mut other, b);
    say(&mut one, a, "at last");
    let (_, to_b) = carry(&mut one, a, &mut other, b);
    assert_eq!(messages(&to_b), ["at last"]);
}

#[test]
fn a_host_that_is_gone_takes_its_ends_with_it() {
    let gone = FromCluster::HostGone(HostId(2));
    // One that has asked waits again.
    let (mut one, a, a_id, ..) = asked();
    said(&mut one);
    one.handle_cluster_mail(gone.clone(), 0);
    assert_eq!(arrivals(&said(&mut one).0), 1);
    tell(&mut one, News::Waits { client: a_id });
    assert!(!one.is_paused(a) && messages(&heard(&mut one, a)).is_empty());
    // One that is joined is closed.
    let (mut one, a, _, mut other, b, _) = asked();
    carry(&mut one, a, &mut other, b);
    one.handle_cluster_mail(gone, 0);
    assert_eq!(messages(&heard(&mut one, a)), [CLOSED]);
    assert!(said(&mut one).1.is_empty(), "nobody is written to");
    other.handle_cluster_mail(FromCluster::HostGone(HostId(1)), 0);
    assert_eq!(messages(&heard(&mut other, b)), [CLOSED]);
    one.handle_gone(a, 0);
    other.handle_gone(b, 0);
    check_empty([&mut one, &mut other]);
}

/// The partner's outbox takes nothing for a while: credit comes only when it does.
#[test]
fn what_an_end_has_said_outlives_it() {
    let (mut one, a, _, mut other, b, _) = asked();
    carry(&mut one, a, &mut other, b);
    other.handle_blocked(b);
    let long = "x".repeat(60_000);
    for _ in 0..9 {
        say(&mut one, a, &long);
        let (_, letters) = said(&mut one);
        hand(&mut other, letters);
    }
    assert!(one.is_paused(a), "no more credit");
    assert!(other.buffer_bytes() < 3 * PIPE_CREDIT_BYTES, "{}", other.buffer_bytes());
    // It is lost with what it had yet to send.
    one.handle_gone(a, 0);
    let (_, letters) = said(&mut one);
    assert!(letters.is_empty(), "the end comes behind the rest: {letters:?}");
    other.handle_writable(b);
    let mut got = heard(&mut other, b);
    let (_, to_b) = carry(&mut one, a, &mut other, b);
    got.extend(to_b);
    let mut sum = 0;
    let mut rest = &got[..];
    while let Some((header, len)) = Header::parse(rest) {
        assert!(header.opcode_bits != 8 || rest.len() == len, "the close is last");
        sum += header.payload_len as usize;
        rest = &rest[len + header.payload_len as usize..];
    }
    assert_eq!(sum, 9 * long.len());
    assert!(got.ends_with(b"\x88\0"));
    other.handle_gone(b, 0);
    check_empty([&mut one, &mut other]);
}

#[test]
fn what_is_left_of_an_end_goes_with_its_partner() {
    for leaves in [true, false] {
        let (mut one, a, _, mut other, b, _) = asked();
        carry(&mut one, a, &mut other, b);
        other.handle_blocked(b);
        for _ in 0..9 {
            say(&mut one, a, &"x".repeat(60_000));
        }
        one.handle_gone(a, 0);
        assert!(one.buffer_bytes() > 0);
        if leaves {
            other.handle_gone(b, 0);
            let (_, letters) = said(&mut other);
            hand(&mut one, letters);
        } else {
            one.handle_cluster_mail(FromCluster::HostGone(HostId(2)), 0);
            other.handle_cluster_mail(FromCluster::HostGone(HostId(1)), 0);
            other.handle_gone(b, 0);
        }
        check_empty([&mut one, &mut other]);
    }
}

#[test]
fn an_end_that_was_met_in_vain_waits_on_and_one_that_refuses_is_taken_out() {
    let (mut one, a, a_id, mut other, b, b_id) = asked();
    said(&mut one);
    said(&mut other);
    // It has left when Redis says whom it has met.
    one.handle_gone(a, 0);
    said(&mut one);
    tell(&mut one, News::Met { client: a_id, partner: b_id });
    let (requests, letters) = said(&mut one);
    assert!(requests.is_empty() && letters.is_empty(), "{requests:?} {letters:?}");
    // Who meets one of its own host that has left takes it out before it arrives again.
    let (c, c_id) = end(&mut one, "a", "b");
    said(&mut one);
    tell(&mut one, News::Met { client: c_id, partner: a_id });
    let (requests, _) = said(&mut one);
    assert!(
        matches!(&requests[..], [Request::Forget { client, .. }, Request::Arrive { .. }] if *client == a_id),
        "{requests:?}"
    );
    one.handle_gone(c, 0);
    // And one that failed, after a while.
    tell(&mut other, News::Failed { client: b_id });
    other.handle_tick(500);
    assert_eq!(arrivals(&said(&mut other).0), 0);
    other.handle_tick(1_100);
    assert_eq!(arrivals(&said(&mut other).0), 1);
    // While Redis is away nothing is asked, and everything when it is back.
    tell(&mut other, News::Down);
    let (c, _) = end(&mut other, "c", "d");
    assert!(!other.is_paused(c));
    assert_eq!(arrivals(&said(&mut other).0), 0);
    tell(&mut other, News::Up);
    assert_eq!(arrivals(&said(&mut other).0), 2);
    other.handle_gone(b, 0);
    other.handle_gone(c, 0);
    check_empty([&mut one, &mut other]);
}
