//! Hosts that die or leave, and a Redis that is away, stands still or comes back empty.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::foreign::Foreign;
use crate::support::redis::Redis;
use crate::support::{Client, PARTNER_LEFT, Server, Setup, on_each_driver, pair, wait_until};
use crate::{AVAILABLE, check_relay, expect_match, list, server, servers, wait_for_list, wait_listed};

on_each_driver!(
    the_partners_of_a_host_that_dies_find_new_ones,
    the_partners_of_a_host_that_leaves_find_new_ones_at_once,
    the_waiter_of_a_host_that_dies_is_nobodys,
    the_waiter_of_a_host_that_died_keeps_nobody_apart,
    the_waiter_of_a_host_that_leaves_is_off_the_list,
    a_redis_that_comes_back_empty_is_told_who_waits,
    without_redis_a_host_matches_its_own,
    a_redis_that_stands_still_holds_nobody_up_for_long,
);

/// The partners of a host that is dead know it so soon.
const DEAD: Duration = Duration::from_secs(6);
/// Those of one that leaves.
const AT_ONCE: Duration = Duration::from_secs(1);
/// What a busy machine may take on top.
const SLACK: Duration = Duration::from_secs(2);
/// So many pairs of two hosts.
const PAIRS: usize = 12;
/// So many messages of each client are under way when a host dies.
const MESSAGES: usize = 50;

/// A pair whose partners are on these two hosts, and have said something that nobody has read.
fn distant_pair(hosts: [&Server; 2]) -> [Client; 2] {
    let mut pair = hosts.map(Client::connect);
    pair.iter_mut().for_each(|client| client.send(AVAILABLE));
    let [one, other] = &mut pair;
    expect_match(one, other);
    for client in &mut pair {
        let message = r#"{"type":"ice","candidate":1}"#;
        client.send_at_once(std::iter::repeat_n(message, MESSAGES));
    }
    pair
}

fn the_partners_of_a_host_that_dies_find_new_ones(setup: Setup) {
    let redis = Redis::start();
    let hosts = servers(setup, 3, &redis, &[]);
    let (mut left, mut others) = (Vec::new(), Vec::new());
    for at in 0..PAIRS {
        let [one, other] = distant_pair([&hosts[at % 3], &hosts[(at + 1) % 3]]);
        match at % 3 {
            0 => others.extend([one, other]),
            1 => left.push((one, other)),
            _ => left.push((other, one)),
        }
    }
    hosts[2].signal(Signal::KILL);
    let start = Instant::now();
    for (client, partner) in &mut left {
        let message = format!(r#"{{"type":"ice","from":"{}","candidate":1}}"#, partner.id);
        loop {
            let told = client.next("partner-left");
            if told == PARTNER_LEFT {
                break;
            }
            assert_eq!(told, message);
        }
    }
    assert!(start.elapsed() < DEAD + SLACK, "{:?}", start.elapsed());
    let told: Vec<(String, String)> =
        left.iter_mut().map(|(client, _)| (client.id.clone(), client.expect_matched().partner)).collect();
    for (client, partner) in &told {
        assert!(told.contains(&(partner.clone(), client.clone())), "{client} is matched with a ghost");
    }
    assert_eq!(told.len(), PAIRS * 2 / 3);
    for pair in others.chunks_exact_mut(2) {
        for (at, from) in [(0, 1), (1, 0)] {
            let message = format!(r#"{{"type":"ice","from":"{}","candidate":1}}"#, pair[from].id);
            (0..MESSAGES).for_each(|_| pair[at].expect(&message));
            pair[at].expect_nothing();
        }
    }
    assert_eq!(list(&redis), [""; 0]);
    check_relay_of_new_ones(&hosts);
}

fn check_relay_of_new_ones(hosts: &[Server]) {
    let (mut one, mut other) = (Client::connect(&hosts[0]), Client::connect(&hosts[1]));
    one.send(AVAILABLE);
    other.send(AVAILABLE);
    expect_match(&mut one, &mut other);
    check_relay(&mut one, &mut other);
}

fn the_partners_of_a_host_that_leaves_find_new_ones_at_once(setup: Setup) {
    let redis = Redis::start();
    let mut hosts = servers(setup, 2, &redis, &[]);
    let (mut one, mut other) = (Client::connect(&hosts[0]), Client::connect(&hosts[1]));
    one.send(AVAILABLE);
    other.send(AVAILABLE);
    expect_match(&mut one, &mut other);
    let start = Instant::now();
    hosts[1].signal(Signal::TERM);
    one.expect(PARTNER_LEFT);
    assert!(start.elapsed() < AT_ONCE + SLACK, "{:?}", start.elapsed());
    other.expect_close(1001, "Server shutting down");
    let mut comes = Client::connect(&hosts[0]);
    comes.send(AVAILABLE);
    expect_match(&mut one, &mut comes);
    assert!(hosts[1].wait_for_exit().success());
}

fn the_waiter_of_a_host_that_dies_is_nobodys(setup: Setup) {
    let redis = Redis::start();
    let hosts = servers(setup, 2, &redis, &[]);
    let mut ghost = Client::connect(&hosts[1]);
    wait_listed(&redis, &mut ghost);
    hosts[1].signal(Signal::KILL);
    // Before the others know, and after: this one meets the ghost, whose host does not answer.
    let mut one = Client::connect(&hosts[0]);
    one.send(AVAILABLE);
    wait_for_list(&redis, &[&one.id.clone()]);
    one.expect_nothing();
    let mut other = Client::connect(&hosts[0]);
    other.send(AVAILABLE);
    expect_match(&mut one, &mut other);
    hosts[0].wait_for_log("is gone: it is silent");
    redis.ask(&["LPUSH", crate::LIST, &ghost.id]);
    let mut third = Client::connect(&hosts[0]);
    third.send(AVAILABLE);
    wait_for_list(&redis, &[&third.id.clone()]);
    assert!(hosts[0].metric("parlor_pairing_ids_dropped_total") >= 1);
}

/// Hosts that start when another has died cannot know yet that it has.
fn the_waiter_of_a_host_that_died_keeps_nobody_apart(setup: Setup) {
    let redis = Redis::start();
    let dying = server(setup, &redis, &[]);
    let mut ghost = Client::connect(&dying);
    wait_listed(&redis, &mut ghost);
    dying.signal(Signal::KILL);
    let hosts = servers(setup, 2, &redis, &[]);
    let (mut one, mut other) = (Client::connect(&hosts[0]), Client::connect(&hosts[1]));
    let start = Instant::now();
    one.send(AVAILABLE);
    other.send(AVAILABLE);
    expect_match(&mut one, &mut other);
    assert!(start.elapsed() < AT_ONCE + SLACK, "{:?}", start.elapsed());
    assert_eq!(list(&redis), [ghost.id.clone()], "it may be about to come back");
    // Whoever comes later finds out that it does not.
    let mut third = Client::connect(&hosts[0]);
    third.send(AVAILABLE);
    wait_for_list(&redis, &[&third.id.clone()]);
}

fn the_waiter_of_a_host_that_leaves_is_off_the_list(setup: Setup) {
    let redis = Redis::start();
    let mut hosts = servers(setup, 1, &redis, &[]);
    let mut client = Client::connect(&hosts[0]);
    wait_listed(&redis, &mut client);
    hosts[0].signal(Signal::TERM);
    client.expect_close(1001, "Server shutting down");
    assert!(hosts[0].wait_for_exit().success());
    assert_eq!(list(&redis), [""; 0]);
    // A foreign partner is told.
    let host = server(setup, &redis, &[]);
    let (mut foreign, mut client) = (Foreign::start(&redis), Client::connect(&host));
    foreign.meet(&redis, &mut client);
    host.signal(Signal::TERM);
    foreign.expect(PARTNER_LEFT);
    client.expect_close(1001, "Server shutting down");
}

fn a_redis_that_comes_back_empty_is_told_who_waits(setup: Setup) {
    let mut redis = Redis::start();
    let hosts = servers(setup, 2, &redis, &[]);
    let (mut local, mut partner) = pair(&hosts[0]);
    let (mut foreign, mut befriended) = (Foreign::start(&redis), Client::connect(&hosts[0]));
    foreign.meet(&redis, &mut befriended);
    let mut waits = Client::connect(&hosts[1]);
    wait_listed(&redis, &mut waits);
    redis.stop();
    // What is said to a foreign partner is lost now, so it has left.
    befriended.expect(PARTNER_LEFT);
    befriended.send(r#"{"type":"leave"}"#);
    check_relay(&mut local, &mut partner);
    redis.run();
    wait_for_list(&redis, &[&waits.id.clone()]);
    check_relay(&mut local, &mut partner);
    let mut comes = Client::connect(&hosts[0]);
    comes.send(AVAILABLE);
    expect_match(&mut waits, &mut comes);
    check_relay(&mut waits, &mut comes);
    for client in [&mut local, &mut partner, &mut befriended] {
        client.expect_nothing();
    }
}

fn without_redis_a_host_matches_its_own(setup: Setup) {
    let mut redis = Redis::absent();
    let hosts = [server(setup, &redis, &[]), server(setup, &redis, &[])];
    let (mut one, mut other) = pair(&hosts[0]);
    check_relay(&mut one, &mut other);
    let (mut waits, mut also_waits) = (Client::connect(&hosts[0]), Client::connect(&hosts[1]));
    waits.send(AVAILABLE);
    also_waits.send(AVAILABLE);
    waits.expect_nothing();
    // When it comes, they meet.
    redis.run();
    expect_match(&mut waits, &mut also_waits);
    check_relay(&mut waits, &mut also_waits);
    // And when it goes again, with one of them on the list.
    let mut listed = Client::connect(&hosts[0]);
    wait_listed(&redis, &mut listed);
    redis.stop();
    waits.expect(PARTNER_LEFT);
    let partner = listed.expect_matched().partner;
    assert_eq!(partner, waits.id, "both of this host, and waiting");
    assert_eq!(waits.expect_matched().partner, listed.id);
    check_relay(&mut listed, &mut waits);
    check_relay(&mut one, &mut other);
}

fn a_redis_that_stands_still_holds_nobody_up_for_long(setup: Setup) {
    let redis = Redis::start();
    let host = &servers(setup, 1, &redis, &[])[0];
    let mut listed = Client::connect(host);
    wait_listed(&redis, &mut listed);
    redis.pause();
    let (mut second, mut third) = (Client::connect(host), Client::connect(host));
    let start = Instant::now();
    second.send(AVAILABLE);
    third.send(AVAILABLE);
    // They cannot wait for the one who is on the list.
    expect_match(&mut second, &mut third);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    redis.resume();
    wait_until("the one who waited longest to be back", || {
        list(&redis) == [listed.id.clone()] || list(&redis).is_empty()
    });
    let mut fourth = Client::connect(host);
    fourth.send(AVAILABLE);
    expect_match(&mut listed, &mut fourth);
}
