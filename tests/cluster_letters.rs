//! Letters between hosts, over a real Redis: two servers, and for one test a third host that the test plays and that says
//! whatever it likes.

mod support;

use std::time::{Duration, Instant};

use parlor::cluster::{FromCluster, HEARTBEAT_CHANNEL, Letter, channel_of};
use parlor::id::{ClientId, Entropy, HostId, RoomId};
use parlor::protocol::pairing::{Note, Ticket, Waiter};
use rustix::process::Signal;
use support::neighbour::Neighbour;
use support::redis::Redis;
use support::{Client, NOT_PAIRED, PARTNER_LEFT, Server, Setup, get, on_each_driver};

on_each_driver!(
    partners_on_two_hosts_hear_each_other,
    a_host_that_dies_has_left_its_partners,
    a_host_that_leaves_has_left_its_partners_at_once,
    nobody_on_redis_confuses_a_host,
);

const AVAILABLE: &str = r#"{"type":"available"}"#;
/// The id of the host that the test plays.
const NEIGHBOUR: u32 = 0x00c0_ffee;

fn server(setup: Setup, redis: &Redis) -> Server {
    let server = Server::start(
        setup,
        &[
            ("REDIS_URL", &redis.url()),
            ("REQUEUE_ON_PARTNER_LEAVE", "false"),
            ("MAX_MSG_PER_SECOND", "1000000"),
        ],
    );
    server.wait_for_metric("parlor_redis_connected", 1);
    server
}

fn id_of(client: &Client) -> ClientId {
    ClientId::parse(client.id.as_bytes()).expect("an id of ours")
}

/// Brings clients of two hosts together.
fn pair_up(one: &mut Client, other: &mut Client) {
    for client in [&mut *one, &mut *other] {
        client.send(AVAILABLE);
    }
    let rooms = (one.expect_matched_with(other), other.expect_matched_with(one));
    assert_eq!(rooms.0.room, rooms.1.room);
}

fn check_relay(one: &mut Client, other: &mut Client, sdp: &str) {
    one.send(&format!(r#"{{"type":"offer","sdp":{sdp}}}"#));
    other.expect(&format!(r#"{{"type":"offer","from":"{}","sdp":{sdp}}}"#, one.id));
}

fn partners_on_two_hosts_hear_each_other(setup: Setup) {
    let redis = Redis::start();
    let (here, there) = (server(setup, &redis), server(Setup::EPOLL_4, &redis));
    here.wait_for_metric("parlor_hosts", 1);
    there.wait_for_metric("parlor_hosts", 1);
    let (mut one, mut other) = (Client::connect(&here), Client::connect(&there));
    pair_up(&mut one, &mut other);
    let long = format!("\"{}\"", "x".repeat(300_000));
    for sdp in ["1.50", &long, "null"] {
        check_relay(&mut one, &mut other, sdp);
        check_relay(&mut other, &mut one, sdp);
    }
    // Many at once arrive in order, and many of them in one message.
    let sent = here.metric("parlor_redis_publishes_total");
    let texts: Vec<String> =
        (0..2_000).map(|count| format!(r#"{{"type":"ice","candidate":{count}}}"#)).collect();
    one.send_at_once(texts.iter().map(String::as_str));
    for count in 0..2_000 {
        other.expect(&format!(r#"{{"type":"ice","from":"{}","candidate":{count}}}"#, one.id));
    }
    let sent = here.metric("parlor_redis_publishes_total") - sent;
    assert!(sent < 1_000, "{sent} messages published for 2,000 frames");
    assert!(here.metric("parlor_letters_sent_total") >= 2_000);

    other.send(r#"{"type":"next"}"#);
    one.expect(PARTNER_LEFT);
    one.send(r#"{"type":"next"}"#);
    one.expect(NOT_PAIRED);
    for host in [&here, &there] {
        assert_eq!(host.metric("parlor_relations_ended_total"), 0, "{}", host.log());
        assert_eq!(host.metric("parlor_letters_dropped_total"), 0);
    }
}

fn a_host_that_dies_has_left_its_partners(setup: Setup) {
    let redis = Redis::start();
    let (here, there) = (server(setup, &redis), server(Setup::EPOLL_1, &redis));
    let (mut one, mut other) = (Client::connect(&here), Client::connect(&there));
    pair_up(&mut one, &mut other);
    there.signal(Signal::KILL);
    one.expect(PARTNER_LEFT);
    here.wait_for_log("is gone: it is silent");
}

fn a_host_that_leaves_has_left_its_partners_at_once(setup: Setup) {
    let redis = Redis::start();
    let (here, there) = (server(setup, &redis), server(Setup::EPOLL_1, &redis));
    let (mut one, mut other) = (Client::connect(&here), Client::connect(&there));
    pair_up(&mut one, &mut other);
    there.signal(Signal::TERM);
    one.expect(PARTNER_LEFT);
    let log = here.log();
    assert!(!log.contains("it is silent"), "it did not wait for that:\n{log}");
}

/// Redis is lost, and with it whatever was on its way: both partners are told.
#[test]
fn a_redis_that_restarts_ends_what_went_through_it() {
    let mut redis = Redis::start();
    let (here, there) = (server(Setup::EPOLL_1, &redis), server(Setup::IO_URING_1, &redis));
    let (mut one, mut other) = (Client::connect(&here), Client::connect(&there));
    pair_up(&mut one, &mut other);
    redis.stop();
    one.expect(PARTNER_LEFT);
    other.expect(PARTNER_LEFT);
    redis.run();
    here.wait_for_metric("parlor_hosts", 1);
    there.wait_for_metric("parlor_hosts", 1);
    let (mut one, mut other) = (Client::connect(&here), Client::connect(&there));
    pair_up(&mut one, &mut other);
    check_relay(&mut one, &mut other, "2");
}

fn nobody_on_redis_confuses_a_host(setup: Setup) {
    let redis = Redis::start();
    let here = server(setup, &redis);
    let mut client = Client::connect(&here);
    let host = id_of(&client).host();
    let mut neighbour = Neighbour::start(&redis, NEIGHBOUR);
    neighbour.wait_for_host(host);

    // Noise, and what is almost right.
    let mut entropy = Entropy::from_seed([3; 32]);
    for count in 0..2_000_usize {
        let mut bytes = b"prlr\0\x01\x01".to_vec();
        bytes.truncate(count % 9);
        bytes.extend((0..entropy.below(200)).map(|_| entropy.below(256) as u8));
        let own_channel = channel_of(host);
        neighbour.publish(if count % 2 == 0 { HEARTBEAT_CHANNEL } else { &own_channel }, &bytes);
    }
    // A version that is to come.
    for _ in 0..3 {
        neighbour.publish(HEARTBEAT_CHANNEL, b"prlr\0\x09\0\0\0\0\x11\0\0\0\0\0\0\0\x01and more");
    }
    here.wait_for_log("host 00000011 speaks version 9 and this one 1");
    // Letters to nobody, and to a client that is there but waits for nothing.
    let nobody = ClientId::new(host, id_of(&client).shard(), parlor::id::Slot(77), &mut entropy);
    let room = RoomId::new(&mut entropy);
    for to in [nobody, id_of(&client)] {
        let waiter = Waiter { client: to, ticket: Ticket::new(0) };
        let notes = [Note::PartnerLeft { room, to }, Note::Declined(waiter), Note::Wait(waiter)];
        for note in notes {
            neighbour.post(host, to.shard(), Letter::Note(note));
        }
        neighbour.post(host, to.shard(), Letter::Frame { to, room, frame: b"\x81\x02hi".as_slice().into() });
    }
    let matched = Note::Matched {
        room,
        partner: ClientId::new(
            HostId(NEIGHBOUR),
            parlor::id::ShardIndex(0),
            parlor::id::Slot(0),
            &mut entropy,
        ),
        newer: Waiter { client: id_of(&client), ticket: Ticket::new(0) },
    };
    neighbour.post(host, id_of(&client).shard(), Letter::Note(matched));
    // It does not wait, which the other host is told.
    neighbour.wait_for("an answer", |told| {
        matches!(told, FromCluster::Letter(_, Letter::Note(Note::PartnerLeft { room: left, .. })) if *left == room)
    });
    client.expect_nothing();
    let log = here.log();
    let named = |part: &str| log.lines().filter(|line| line.contains(part)).count();
    assert_eq!(
        (named("host 00000011 speaks version"), named("in our channels is none")),
        (1, 1),
        "each once:\n{log}"
    );
    assert_eq!(here.metric("parlor_host_messages_refused_total"), 2_000 + 3);
    assert_eq!(here.metric("parlor_cluster_panics_total") + here.metric("parlor_panics_total"), 0);
    assert_eq!(here.metric("parlor_hosts"), 1);
    assert_eq!(get(here.address, "/readyz").status, 200);

    neighbour.leave();
    here.wait_for_metric("parlor_hosts", 0);
}

/// How much later a frame arrives by Redis, and how long a relation takes to begin. Said, not judged.
#[test]
#[ignore = "a measurement: cargo test --release --test cluster_letters -- --ignored --nocapture"]
fn how_long_a_frame_takes() {
    let redis = Redis::start();
    let (here, there) = (server(Setup::EPOLL_1, &redis), server(Setup::EPOLL_1, &redis));
    let (mut one, mut other) = (Client::connect(&here), Client::connect(&there));
    pair_up(&mut one, &mut other);
    let (mut local_one, mut local_other) = support::pair(&here);
    for (name, one, other) in
        [("one host", &mut local_one, &mut local_other), ("two hosts", &mut one, &mut other)]
    {
        let mut times: Vec<Duration> = (0..5_000)
            .map(|_| {
                let start = Instant::now();
                check_relay(one, other, "1");
                start.elapsed()
            })
            .collect();
        times.sort();
        println!("{name}: p50 {:?}, p99 {:?}", times[times.len() / 2], times[times.len() * 99 / 100]);
    }
}
