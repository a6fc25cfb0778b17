//! Pairing over several hosts: the lines of protocols.md section 6 that are about it, with real servers and a real Redis,
//! on io_uring and on epoll. This file: hosts of ours among themselves. What may go wrong: `faults`; other servers that
//! share the list, played by the test: `foreign`, `races`.

mod support;

#[path = "cluster_pairing/faults.rs"]
mod faults;
#[path = "cluster_pairing/foreign.rs"]
mod foreign;
#[path = "cluster_pairing/measure.rs"]
mod measure;
#[path = "cluster_pairing/races.rs"]
mod races;

use std::time::{Duration, Instant};

use support::redis::{Redis, Value};
use support::{Client, Matched, PARTNER_LEFT, Server, Setup, on_each_driver, pair_up, wait_until};

on_each_driver!(
    two_on_two_hosts_are_matched_and_relay_both_ways,
    who_waits_alone_is_on_the_list_at_once_and_once,
    who_waits_no_longer_comes_off_the_list,
    those_of_one_host_cost_redis_nothing,
    first_in_first_out,
    two_at_once_on_two_hosts_meet,
    many_on_three_hosts_all_find_a_partner,
    next_leave_and_loss_reach_the_other_host,
    who_is_left_waits_again,
    a_fleet_of_its_own_has_a_list_of_its_own,
);

pub(crate) const AVAILABLE: &str = r#"{"type":"available"}"#;
pub(crate) const LIST: &str = "webrtc:waiting";
pub(crate) const SIGNALS: &str = "webrtc:signal";
/// A waiter is on the list so soon (protocols.md section 6); a busy machine may take a little longer.
const LISTED: Duration = Duration::from_millis(50);
const SLACK: Duration = Duration::from_millis(250);

// What the tests say and hear.

/// A server that is joined to others, and ready.
pub(crate) fn server(setup: Setup, redis: &Redis, environment: &[(&str, &str)]) -> Server {
    let url = redis.url();
    let mut all = vec![("REDIS_URL", url.as_str()), ("MAX_MSG_PER_SECOND", "1000000")];
    all.extend(environment);
    Server::start(setup, &all)
}

/// So many servers that know each other.
pub(crate) fn servers(
    setup: Setup,
    count: usize,
    redis: &Redis,
    environment: &[(&str, &str)],
) -> Vec<Server> {
    let servers: Vec<Server> = (0..count).map(|_| server(setup, redis, environment)).collect();
    for server in &servers {
        server.wait_for_metric("parlor_hosts", count as u64 - 1);
    }
    if !environment.contains(&("REDIS_PUBLIC_LAYOUTS", "false")) {
        wait_until("all to hear what others publish", || listeners(redis) == count as i64);
    }
    servers
}

/// How many hear what is published for clients.
fn listeners(redis: &Redis) -> i64 {
    match redis.ask(&["PUBSUB", "NUMSUB", SIGNALS]) {
        Value::List(items) => match items[..] {
            [_, Value::Integer(count)] => count,
            _ => panic!("{items:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// The list, the oldest first.
pub(crate) fn list(redis: &Redis) -> Vec<String> {
    list_at(redis, LIST)
}

fn list_at(redis: &Redis, key: &str) -> Vec<String> {
    let Value::List(items) = redis.ask(&["LRANGE", key, "0", "-1"]) else { panic!("a list") };
    let text = |item| match item {
        Value::Bytes(bytes) => String::from_utf8(bytes).expect("UTF-8"),
        other => panic!("{other:?}"),
    };
    items.into_iter().rev().map(text).collect()
}

pub(crate) fn wait_for_list(redis: &Redis, expected: &[&str]) {
    let start = Instant::now();
    while list(redis) != expected {
        assert!(start.elapsed() < support::WAIT, "waited for {expected:?}, the list is {:?}", list(redis));
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Has a client wait until it is on the list, alone.
pub(crate) fn wait_listed(redis: &Redis, client: &mut Client) {
    client.send(AVAILABLE);
    let id = client.id.clone();
    wait_for_list(redis, &[&id]);
}

/// Both must be told of a match with each other.
pub(crate) fn expect_match(one: &mut Client, other: &mut Client) -> Matched {
    let (told, told_other) = (one.expect_matched_with(other), other.expect_matched_with(one));
    assert_eq!(told.room, told_other.room, "partners are in one room");
    told
}

pub(crate) fn check_relay(one: &mut Client, other: &mut Client) {
    check_one_way(one, other);
    check_one_way(other, one);
}

fn check_one_way(from: &mut Client, to: &mut Client) {
    for (kind, field, value) in
        [("offer", "sdp", r#""v=0\r\n\u0041""#), ("answer", "sdp", "1.50"), ("ice", "candidate", "null")]
    {
        from.send(&format!(r#"{{"type":"{kind}","{field}":{value}}}"#));
        to.expect(&format!(r#"{{"type":"{kind}","from":"{}","{field}":{value}}}"#, from.id));
    }
}

fn sum(servers: &[Server], metric: &str) -> u64 {
    servers.iter().map(|server| server.metric(metric)).sum()
}

// The tests.

fn two_on_two_hosts_are_matched_and_relay_both_ways(setup: Setup) {
    let redis = Redis::start();
    let hosts = [server(setup, &redis, &[]), server(Setup::EPOLL_4, &redis, &[])];
    hosts[0].wait_for_metric("parlor_hosts", 1);
    hosts[1].wait_for_metric("parlor_hosts", 1);
    for _ in 0..8 {
        let (mut one, mut other) = (Client::connect(&hosts[0]), Client::connect(&hosts[1]));
        one.send(AVAILABLE);
        other.send(AVAILABLE);
        expect_match(&mut one, &mut other);
        check_relay(&mut one, &mut other);
        one.close();
        other.expect(PARTNER_LEFT);
        other.close();
        wait_for_list(&redis, &[]);
    }
    assert_eq!(sum(&hosts, "parlor_pairing_distant_matches_total"), 8);
    assert_eq!(sum(&hosts, "parlor_cluster_panics_total"), 0);
}

fn who_waits_alone_is_on_the_list_at_once_and_once(setup: Setup) {
    let redis = Redis::start();
    let host = &servers(setup, 1, &redis, &[])[0];
    let mut took = Vec::new();
    for _ in 0..10 {
        let mut client = Client::connect(host);
        client.send(AVAILABLE);
        let start = Instant::now();
        wait_for_list(&redis, &[&client.id.clone()]);
        took.push(start.elapsed());
        client.send(AVAILABLE);
        client.expect_nothing();
        client.send(r#"{"type":"leave"}"#);
        wait_for_list(&redis, &[]);
    }
    took.sort();
    assert!(took[5] < LISTED && took[9] < LISTED + SLACK, "{took:?}");
    // It stays there, once, however often the host looks for others.
    let mut client = Client::connect(host);
    wait_listed(&redis, &mut client);
    let commands = host.metric("parlor_pairing_commands_total");
    wait_until("the host to look twice", || host.metric("parlor_pairing_commands_total") >= commands + 2);
    assert_eq!(list(&redis), [client.id.clone()]);
}

fn who_waits_no_longer_comes_off_the_list(setup: Setup) {
    let redis = Redis::start();
    let host = &servers(setup, 1, &redis, &[])[0];
    let mut one = Client::connect(host);
    wait_listed(&redis, &mut one);
    one.send(r#"{"type":"leave"}"#);
    wait_for_list(&redis, &[]);
    wait_listed(&redis, &mut one);
    one.reset();
    wait_for_list(&redis, &[]);
    let (mut one, mut other) = (Client::connect(host), Client::connect(host));
    wait_listed(&redis, &mut one);
    other.send(AVAILABLE);
    expect_match(&mut one, &mut other);
    assert_eq!(list(&redis), [""; 0], "taken off before the match is made");
    check_relay(&mut one, &mut other);
}

fn those_of_one_host_cost_redis_nothing(setup: Setup) {
    let redis = Redis::start();
    let host = &servers(setup, 1, &redis, &[])[0];
    let (mut one, mut other) = (Client::connect(host), Client::connect(host));
    let mut slow = 0;
    for _ in 0..200 {
        let start = Instant::now();
        one.send(AVAILABLE);
        other.send(AVAILABLE);
        let told = one.expect_matched();
        assert_eq!((told.partner, other.expect_matched().partner), (other.id.clone(), one.id.clone()));
        // Who has waited alone for so long may be lent: asked for, taken off, and whatever is between.
        slow += u64::from(start.elapsed() >= Duration::from_millis(10));
        one.send(r#"{"type":"leave"}"#);
        other.expect(PARTNER_LEFT);
        other.send(r#"{"type":"leave"}"#);
        other.expect_nothing();
    }
    let commands = host.metric("parlor_pairing_commands_total");
    // The one who is left waits for a moment, too.
    assert!(slow < 50 && commands <= 4 * slow + 4, "{commands} commands, {slow} pairs were slow");
}

fn first_in_first_out(setup: Setup) {
    let redis = Redis::start();
    let hosts = servers(setup, 2, &redis, &[]);
    let mut first = Client::connect(&hosts[0]);
    wait_listed(&redis, &mut first);
    // Both come to the queue of the one who is lent.
    let (mut second, mut third) = (Client::connect(&hosts[0]), Client::connect(&hosts[0]));
    second.send(AVAILABLE);
    third.send(AVAILABLE);
    expect_match(&mut first, &mut second);
    wait_for_list(&redis, &[&third.id.clone()]);
    // And who comes to another host gets the one who waits.
    let (mut fourth, mut fifth) = (Client::connect(&hosts[1]), Client::connect(&hosts[1]));
    fourth.send(AVAILABLE);
    expect_match(&mut third, &mut fourth);
    fifth.send(AVAILABLE);
    wait_for_list(&redis, &[&fifth.id.clone()]);
}

fn two_at_once_on_two_hosts_meet(setup: Setup) {
    let redis = Redis::start();
    let hosts = servers(setup, 2, &redis, &[("REQUEUE_ON_PARTNER_LEAVE", "false")]);
    let (mut one, mut other) = (Client::connect(&hosts[0]), Client::connect(&hosts[1]));
    let mut longest = Duration::ZERO;
    for round in 0..150 {
        let start = Instant::now();
        let (first, second) = if round % 2 == 0 { (&mut one, &mut other) } else { (&mut other, &mut one) };
        first.send(AVAILABLE);
        second.send(AVAILABLE);
        expect_match(&mut one, &mut other);
        longest = longest.max(start.elapsed());
        one.send(r#"{"type":"next"}"#);
        other.expect(PARTNER_LEFT);
    }
    assert!(longest < Duration::from_secs(3), "{longest:?}");
    assert_eq!(sum(&hosts, "parlor_pairing_distant_matches_total"), 150);
    assert_eq!(list(&redis), [""; 0]);
}

fn many_on_three_hosts_all_find_a_partner(setup: Setup) {
    let redis = Redis::start();
    // Some of them with several shards: clients on any of them.
    let setups = [setup, Setup::EPOLL_4, Setup::IO_URING_2];
    let hosts = setups.map(|setup| server(setup, &redis, &[("REQUEUE_ON_PARTNER_LEAVE", "false")]));
    hosts.iter().for_each(|host| host.wait_for_metric("parlor_hosts", 2));
    let mut clients: Vec<Client> = (0..30).map(|at| Client::connect(&hosts[at % 3])).collect();
    for round in 0..10 {
        for client in &mut clients {
            client.send(AVAILABLE);
        }
        let told: Vec<Matched> = clients.iter_mut().map(Client::expect_matched).collect();
        for (client, matched) in clients.iter().zip(&told) {
            let partner = clients.iter().position(|other| other.id == matched.partner).expect("one of them");
            assert_eq!(told[partner].partner, client.id, "round {round}: both say the same");
            assert_eq!(told[partner].room, matched.room);
        }
        for client in &mut clients {
            client.send(r#"{"type":"leave"}"#);
        }
        // Each was left or has left; of two at once both may miss it.
        for client in &mut clients {
            let told = client.drain();
            assert!(told.iter().all(|text| text == PARTNER_LEFT) && told.len() <= 1, "{told:?}");
        }
    }
    wait_for_list(&redis, &[]);
    assert_eq!(sum(&hosts, "parlor_cluster_panics_total") + sum(&hosts, "parlor_panics_total"), 0);
}

fn next_leave_and_loss_reach_the_other_host(setup: Setup) {
    let redis = Redis::start();
    let hosts = servers(setup, 2, &redis, &[("REQUEUE_ON_PARTNER_LEAVE", "false")]);
    let mut stays = Client::connect(&hosts[0]);
    for parting in ["next", "leave", "close", "reset"] {
        let mut leaves = Client::connect(&hosts[1]);
        stays.send(AVAILABLE);
        leaves.send(AVAILABLE);
        expect_match(&mut stays, &mut leaves);
        match parting {
            "close" => leaves.close(),
            "reset" => leaves.reset(),
            message => {
                leaves.send(&format!(r#"{{"type":"{message}"}}"#));
                leaves.expect_nothing();
            }
        }
        stays.expect(PARTNER_LEFT);
        stays.send(r#"{"type":"next"}"#);
        stays.expect(support::NOT_PAIRED);
    }
}

fn who_is_left_waits_again(setup: Setup) {
    let redis = Redis::start();
    let hosts = servers(setup, 2, &redis, &[]);
    let (mut stays, mut leaves) = (Client::connect(&hosts[0]), Client::connect(&hosts[1]));
    for _ in 0..5 {
        stays.send(AVAILABLE);
        leaves.send(AVAILABLE);
        expect_match(&mut stays, &mut leaves);
        leaves.send(r#"{"type":"next"}"#);
        stays.expect(PARTNER_LEFT);
        wait_for_list(&redis, &[&stays.id.clone()]);
    }
    // Somebody new, on either host.
    for at in [0, 1] {
        let mut comes = Client::connect(&hosts[at]);
        comes.send(AVAILABLE);
        expect_match(&mut stays, &mut comes);
        comes.reset();
        stays.expect(PARTNER_LEFT);
        wait_for_list(&redis, &[&stays.id.clone()]);
    }
}

fn a_fleet_of_its_own_has_a_list_of_its_own(setup: Setup) {
    let redis = Redis::start();
    let hosts = servers(setup, 2, &redis, &[("REDIS_PUBLIC_LAYOUTS", "false")]);
    let (mut one, mut other) = (Client::connect(&hosts[0]), Client::connect(&hosts[1]));
    redis.ask(&["LPUSH", LIST, &foreign::foreign_id()]);
    one.send(AVAILABLE);
    wait_until("the private list", || list_at(&redis, "parlor:waiting") == [one.id.clone()]);
    assert_eq!(listeners(&redis), 0);
    // A foreign id there is nobody's.
    redis.ask(&["RPUSH", "parlor:waiting", &foreign::foreign_id()]);
    other.send(AVAILABLE);
    expect_match(&mut one, &mut other);
    check_relay(&mut one, &mut other);
    wait_until("nobody to wait", || list_at(&redis, "parlor:waiting").is_empty());
    assert_eq!(list(&redis).len(), 1, "the public list is left alone");
    let mut pair = (Client::connect(&hosts[0]), Client::connect(&hosts[0]));
    pair_up(&mut pair.0, &mut pair.1);
}
