//! The scripts, against a real Redis.

use crate::test_redis::{Redis, Value};

const LIST: &str = "list";
const ROLL: &str = "roll";

fn run(redis: &Redis, source: &str, keys: &[&str], arguments: &[&str]) -> Value {
    let count = keys.len().to_string();
    redis.ask(&[&["EVAL", source, &count], keys, arguments].concat())
}

fn texts(value: Value) -> Vec<String> {
    let Value::List(items) = value else { panic!("{value:?}") };
    let text = |item| match item {
        Value::Bytes(bytes) => String::from_utf8(bytes).expect("UTF-8"),
        other => panic!("{other:?}"),
    };
    items.into_iter().map(text).collect()
}

fn meet(redis: &Redis, ours: &str, is_listed: &str) -> Vec<String> {
    meet_others(redis, &[ours, is_listed])
}

fn meet_others(redis: &Redis, arguments: &[&str]) -> Vec<String> {
    texts(run(redis, include_str!("../../scripts/meet.lua"), &[LIST, ROLL], arguments))
}

fn put_back(redis: &Redis, id: &str) {
    run(redis, include_str!("../../scripts/put_back.lua"), &[LIST], &[id]);
}

/// The newest first, as in Redis.
fn list(redis: &Redis) -> Vec<String> {
    texts(redis.ask(&["LRANGE", LIST, "0", "-1"]))
}

#[test]
fn two_meet_or_one_waits() {
    let redis = Redis::start();
    assert_eq!(meet(&redis, "a", "0"), ["waits"]);
    assert_eq!(meet(&redis, "a", "0"), ["waits"], "asked again");
    assert_eq!(list(&redis), ["a"]);
    assert_eq!(meet(&redis, "b", "0"), ["met", "a", "foreign"]);
    assert_eq!(list(&redis), [""; 0]);
    redis.ask(&["ZADD", ROLL, "1", "0000abcd"]);
    redis.ask(&["LPUSH", LIST, "0000abcd-rest"]);
    assert_eq!(meet(&redis, "b", "0"), ["met", "0000abcd-rest", "ours"]);
}

#[test]
fn who_is_listed_takes_another_with_it_or_stays() {
    let redis = Redis::start();
    assert_eq!(meet(&redis, "a", "1"), ["missing"]);
    assert_eq!(list(&redis), [""; 0], "it is another's by now");
    assert_eq!([meet(&redis, "a", "0"), meet(&redis, "a", "1")], [["waits"], ["waits"]]);
    redis.ask(&["LPUSH", LIST, "b"]);
    redis.ask(&["LPUSH", LIST, "c"]);
    assert_eq!(meet(&redis, "a", "1"), ["met", "b", "foreign"], "the oldest, and ours is off");
    assert_eq!(list(&redis), ["c"]);
    // Of two that look at the same moment one is too late.
    redis.ask(&["LPUSH", LIST, "a"]);
    assert_eq!(meet(&redis, "c", "1"), ["met", "a", "foreign"]);
    assert_eq!(meet(&redis, "a", "1"), ["missing"]);
}

#[test]
fn who_is_put_back_stands_where_it_was_once() {
    let redis = Redis::start();
    redis.ask(&["LPUSH", LIST, "x", "ours", "other"]);
    put_back(&redis, "other");
    assert_eq!(list(&redis), ["ours", "x", "other"]);
    put_back(&redis, "x");
    assert_eq!(list(&redis), ["ours", "other", "x"]);
}

#[test]
fn who_is_passed_over_stays_where_it_is() {
    let redis = Redis::start();
    redis.ask(&["LPUSH", LIST, "x", "y", "z", "x"]);
    assert_eq!(meet_others(&redis, &["a", "0", "x", "y"]), ["met", "z", "foreign"]);
    assert_eq!(list(&redis), ["x", "y", "x"]);
    assert_eq!(meet_others(&redis, &["a", "0", "y", "x"]), ["waits"]);
    assert_eq!(meet_others(&redis, &["a", "1", "x"]), ["met", "y", "foreign"]);
    assert_eq!(list(&redis), ["x", "x"]);
}
