//! The simulated Redis against what the real one says.

use super::*;
use crate::cluster::Script;

fn list(items: &[&str]) -> Answer {
    Answer::List(items.iter().map(|item| Answer::Bytes(item.as_bytes().to_vec())).collect())
}

fn bytes(text: &str) -> Answer {
    Answer::Bytes(text.as_bytes().to_vec())
}

#[test]
fn commands_do_what_they_say() {
    let mut redis = Redis::new();
    redis.set_time(5_000);
    let integer = Answer::Integer;
    for (line, answer) in [
        ("SADD s a", integer(1)),
        ("SADD s a", integer(0)),
        ("SADD s b", integer(1)),
        ("SMEMBERS s", list(&["a", "b"])),
        ("SISMEMBER s b", integer(1)),
        ("SREM s a", integer(1)),
        ("SREM s b", integer(1)),
        ("EXISTS s", integer(0)),
        ("LPUSH l x", integer(1)),
        ("LPUSH l y", integer(2)),
        ("RPUSH l x", integer(3)),
        ("LRANGE l 0 -1", list(&["y", "x", "x"])),
        ("LREM l 0 x", integer(2)),
        ("RPOP l", bytes("y")),
        ("RPOP l", Answer::Nil),
        ("INCR n", integer(1)),
        ("SET k v NX", Answer::Done),
        ("SET k w NX", Answer::Nil),
        ("GET k", bytes("v")),
        ("HSET h f 1", integer(1)),
        ("HINCRBY h f 2", integer(3)),
        ("HGETALL h", list(&["f", "3"])),
        ("ZADD z 2 b", integer(1)),
        ("ZADD z 1 c", integer(1)),
        ("ZRANGE z 0 -1", list(&["c", "b"])),
        ("ZREMRANGEBYSCORE z -inf 1", integer(1)),
        ("TIME", list(&["5", "0"])),
        ("PEXPIRE k 10", integer(1)),
    ] {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        assert_eq!(redis.call(&words), answer, "{line}");
    }
    assert!(matches!(redis.call(&[b"SADD", b"n", b"x"]), Answer::Error(_)));
    redis.set_time(5_010);
    assert_eq!(redis.call(&[b"GET", b"k"]), Answer::Nil, "it has expired");
}

#[test]
fn scripts_are_run_by_lua() {
    static SCRIPT: Script = Script {
        source: "redis.call('SADD', KEYS[1], ARGV[1]) redis.call('PUBLISH', 'c', ARGV[1]) \
                 if redis.call('GET', 'nothing') then return 'something' end \
                 return {redis.call('SCARD', KEYS[1]), ARGV[1], 1.9, redis.call('SMEMBERS', KEYS[1])[1]}",
    };
    let mut redis = Redis::new();
    let command =
        Command::Run { script: &SCRIPT, keys: vec![b"s".to_vec()], arguments: vec![b"\xff\0x".to_vec()] };
    let expected = [b"1".to_vec(), b"\xff\0x".to_vec(), b"1".to_vec(), b"\xff\0x".to_vec()];
    assert_eq!(redis.run(&command), Reply::List(expected.to_vec()));
    let published = redis.take_published();
    assert_eq!((published.len(), published[0].payload.as_slice()), (1, b"\xff\0x".as_slice()));
}
