//! Races with other servers for the ids on the list (protocols.md section 6): who takes an id off makes the match.

use std::time::{Duration, Instant};

use crate::foreign::{Foreign, foreign_id, matched_message, settle};
use crate::support::redis::{Redis, Value};
use crate::support::{Client, PARTNER_LEFT, Setup, on_each_driver};
use crate::{AVAILABLE, LIST, expect_match, list, servers, wait_for_list, wait_listed};

on_each_driver!(
    who_was_taken_and_gets_no_match_is_listed_again,
    a_match_that_comes_late_counts_while_the_client_waits,
    who_was_taken_is_not_matched_here_meanwhile,
    ids_that_are_nobodys_are_dropped,
    two_servers_that_take_each_others_waiters,
    an_empty_list_is_filled_again,
);

/// Without a match a waiter is on the list again after so long: a look each second, and the two of the contract.
const AGAIN: Duration = Duration::from_millis(2_000 + 1_000 + 50);
/// What a busy machine may take on top.
const SLACK: Duration = Duration::from_secs(3);

fn take_off(redis: &Redis, client: &Client) {
    assert_eq!(redis.ask(&["LREM", LIST, "0", &client.id]), Value::Integer(1));
}

fn who_was_taken_and_gets_no_match_is_listed_again(setup: Setup) {
    let redis = Redis::start();
    let host = &servers(setup, 1, &redis, &[])[0];
    let mut client = Client::connect(host);
    wait_listed(&redis, &mut client);
    take_off(&redis, &client);
    let start = Instant::now();
    wait_for_list(&redis, &[&client.id.clone()]);
    assert!(start.elapsed() < AGAIN + SLACK, "{:?}", start.elapsed());
    client.expect_nothing();
    let mut newcomer = Client::connect(host);
    newcomer.send(AVAILABLE);
    expect_match(&mut client, &mut newcomer);
}

fn a_match_that_comes_late_counts_while_the_client_waits(setup: Setup) {
    let redis = Redis::start();
    let host = &servers(setup, 1, &redis, &[])[0];
    let (mut foreign, mut client) = (Foreign::start(&redis), Client::connect(host));
    wait_listed(&redis, &mut client);
    take_off(&redis, &client);
    wait_for_list(&redis, &[&client.id.clone()]);
    let room = foreign.claim(&client);
    client.expect(&matched_message(&room, &foreign.id));
    wait_for_list(&redis, &[]);
    client.send(r#"{"type":"next"}"#);
    foreign.expect(PARTNER_LEFT);
    let room = foreign.claim(&client);
    foreign.expect(PARTNER_LEFT);
    client.expect_nothing();
    assert!(!room.is_empty());
}

fn who_was_taken_is_not_matched_here_meanwhile(setup: Setup) {
    let redis = Redis::start();
    let host = &servers(setup, 1, &redis, &[])[0];
    let mut foreign = Foreign::start(&redis);
    let (mut taken, mut newcomer) = (Client::connect(host), Client::connect(host));
    wait_listed(&redis, &mut taken);
    take_off(&redis, &taken);
    // It is asked back for this one, and is not there.
    newcomer.send(AVAILABLE);
    wait_for_list(&redis, &[&newcomer.id.clone()]);
    let room = foreign.claim(&taken);
    taken.expect(&matched_message(&room, &foreign.id));
    newcomer.expect_nothing();
    assert_eq!(list(&redis), [newcomer.id.clone()]);
    // Without a match in time both find each other.
    foreign.tell(&taken.id, PARTNER_LEFT);
    taken.expect(PARTNER_LEFT);
    expect_match(&mut newcomer, &mut taken);
    taken.send(r#"{"type":"leave"}"#);
    newcomer.expect(PARTNER_LEFT);
    wait_for_list(&redis, &[&newcomer.id.clone()]);
    take_off(&redis, &newcomer);
    let mut third = Client::connect(host);
    wait_listed(&redis, &mut third);
    expect_match(&mut third, &mut newcomer);
}

fn ids_that_are_nobodys_are_dropped(setup: Setup) {
    let redis = Redis::start();
    let hosts = servers(setup, 2, &redis, &[]);
    // Left over from clients of both hosts.
    let gone = [Client::connect(&hosts[0]), Client::connect(&hosts[1])];
    let stale = gone.map(|client| {
        let id = client.id.clone();
        client.close();
        id
    });
    for id in [stale[0].as_str(), &stale[1], "", "x", &foreign_id().to_uppercase(), &"y".repeat(10_000)] {
        redis.ask(&["LPUSH", LIST, id]);
    }
    let mut client = Client::connect(&hosts[0]);
    client.send(AVAILABLE);
    wait_for_list(&redis, &[&client.id.clone()]);
    assert_eq!(hosts[0].metric("parlor_pairing_ids_dropped_total"), 6);
    // A foreign client that is gone is matched, and its server says what is to be said.
    let mut foreign = Foreign::start(&redis);
    redis.ask(&["RPUSH", LIST, &foreign.id]);
    let told = client.expect_matched();
    foreign.expect(&matched_message(&told.room, &client.id));
    foreign.tell(&client.id, PARTNER_LEFT);
    client.expect(PARTNER_LEFT);
    wait_for_list(&redis, &[&client.id.clone()]);
}

/// What an original does: take one off the list, or put its own on it.
fn two_servers_that_take_each_others_waiters(setup: Setup) {
    let redis = Redis::start();
    let host = &servers(setup, 1, &redis, &[("REQUEUE_ON_PARTNER_LEAVE", "false")])[0];
    let (mut foreign, mut client) = (Foreign::start(&redis), Client::connect(host));
    for _ in 0..60 {
        foreign.id = foreign_id();
        client.send(AVAILABLE);
        match redis.ask(&["RPOP", LIST]) {
            Value::Nil => {
                redis.ask(&["LPUSH", LIST, &foreign.id]);
            }
            Value::Bytes(id) => {
                assert_eq!(id, client.id.as_bytes());
                foreign.claim(&client);
            }
            other => panic!("{other:?}"),
        }
        let told = client.expect_matched();
        assert_eq!(told.partner, foreign.id);
        client.send(r#"{"type":"leave"}"#);
        while foreign.hear() != PARTNER_LEFT {}
        assert_eq!(list(&redis), [""; 0]);
    }
}

/// Somebody empties the list under a running Redis.
fn an_empty_list_is_filled_again(setup: Setup) {
    let redis = Redis::start();
    let host = &servers(setup, 1, &redis, &[])[0];
    let mut client = Client::connect(host);
    wait_listed(&redis, &mut client);
    redis.ask(&["FLUSHALL"]);
    wait_for_list(&redis, &[&client.id.clone()]);
    // A key that is no list is in nobody's way for longer than it is there.
    redis.ask(&["DEL", LIST]);
    redis.ask(&["SET", LIST, "x"]);
    settle(&redis, host);
    let mut newcomer = Client::connect(host);
    newcomer.send(AVAILABLE);
    expect_match(&mut client, &mut newcomer);
    redis.ask(&["DEL", LIST]);
    let mut third = Client::connect(host);
    wait_listed(&redis, &mut third);
}
