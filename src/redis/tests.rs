//! Both connections against a real Redis.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::timeout;

use super::commands::Commands;
use super::subscriptions::Subscriptions;
use super::*;
use crate::cluster::{Command, Script};
use crate::id::Entropy;
use crate::limits::{REDIS_COMMAND_BYTES_MAX, REDIS_COMMANDS_MAX, REDIS_SUBSCRIBE_CHANNELS_MAX};
use crate::metrics::{Call, ClusterMetrics};
use crate::test_redis::{Redis, Value};

const WAIT: Duration = Duration::from_secs(20);

static COUNT_UP: Script =
    Script { source: "redis.call('INCRBY', KEYS[1], ARGV[1]) return {redis.call('GET', KEYS[1]), 7, 'x'}" };
static WRONG: Script = Script { source: "return redis.call('NO SUCH COMMAND')" };

/// Runs `work` inside the runtime that the thread has.
fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build().expect("a runtime");
    runtime.block_on(async { timeout(WAIT, work).await.expect("in time") })
}

fn endpoint(redis: &Redis) -> Endpoint {
    Endpoint::parse(&redis.url()).expect("a URL")
}

fn entropy() -> Entropy {
    Entropy::from_seed([1; 32])
}

/// Commands to a Redis that is there.
async fn commands(redis: &Redis) -> (Commands, Arc<ClusterMetrics>) {
    let metrics: Arc<ClusterMetrics> = Arc::default();
    let mut commands = Commands::new(endpoint(redis), entropy(), Arc::clone(&metrics));
    assert!(matches!(next(&mut commands).await, Happening::Connected));
    (commands, metrics)
}

async fn next(commands: &mut Commands) -> Happening {
    poll_fn(|context| commands.poll(context).map_or(Poll::Pending, Poll::Ready)).await
}

async fn next_reply(commands: &mut Commands) -> (u64, Reply) {
    match next(commands).await {
        Happening::Reply { token, reply } => (token.0, reply),
        other => panic!("{other:?}"),
    }
}

async fn next_of(subscriptions: &mut Subscriptions) -> Happening {
    poll_fn(|context| subscriptions.poll(context).map_or(Poll::Pending, Poll::Ready)).await
}

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

#[test]
fn every_command_does_what_its_name_says() {
    let redis = Redis::start();
    redis.ask(&["RPUSH", "list", "a", "b", "a"]);
    let (key, list) = (bytes("set"), bytes("list"));
    let (a, b, c) = (bytes("a"), bytes("b"), bytes("c"));
    let publish = Command::Publish { channel: bytes("nobody listens"), payload: b"x".as_slice().into() };
    let run_script = |script| Command::Run { script, keys: vec![bytes("n")], arguments: vec![bytes("5")] };
    let count = |text: &str| Reply::List(vec![bytes(text), bytes("7"), bytes("x")]);
    let all = [
        (Command::SetAdd { key: key.clone(), member: a.clone(), expire_s: Some(100) }, Reply::Integer(1)),
        (Command::SetAdd { key: key.clone(), member: b.clone(), expire_s: None }, Reply::Integer(1)),
        (Command::SetAdd { key: key.clone(), member: b.clone(), expire_s: Some(200) }, Reply::Integer(0)),
        (Command::SetContains { key: key.clone(), member: a.clone() }, Reply::Integer(1)),
        (Command::SetContains { key: key.clone(), member: c.clone() }, Reply::Integer(0)),
        (Command::SetRemove { key: key.clone(), member: b }, Reply::Integer(1)),
        (Command::SetMembers { key: key.clone() }, Reply::List(vec![a.clone()])),
        (Command::SetMembers { key: bytes("nothing") }, Reply::List(vec![])),
        (Command::Expire { key, expire_s: 300 }, Reply::Integer(1)),
        (Command::Expire { key: bytes("nothing"), expire_s: 300 }, Reply::Integer(0)),
        (Command::ListRemove { key: list.clone(), member: a }, Reply::Integer(2)),
        (Command::SetMembers { key: list }, Reply::Failed),
        (publish, Reply::Integer(0)),
        (run_script(&COUNT_UP), count("5")),
        (run_script(&COUNT_UP), count("10")),
        (run_script(&WRONG), Reply::Failed),
        (
            Command::SetAdd { key: bytes("\0\r\n\u{e9}"), member: bytes(""), expire_s: None },
            Reply::Integer(1),
        ),
    ];
    run(async {
        let (mut commands, metrics) = commands(&redis).await;
        let expected: Vec<(u64, Reply)> = (0..).zip(all.iter().map(|(_, reply)| reply.clone())).collect();
        for (token, (command, _)) in (0..).zip(all) {
            commands.push(Token(token), command);
        }
        for expected in expected {
            assert_eq!(next_reply(&mut commands).await, expected);
        }
        assert!(commands.is_idle());
        assert_eq!((metrics.counters.redis_commands.value(), metrics.counters.redis_failed.value()), (17, 2));
        assert_eq!(metrics.replies.cumulated().last(), Some(&17));
        for call in [Call::Get, Call::Set, Call::Delete, Call::Publish] {
            assert!(metrics.last_calls_us[call as usize].value() > 0, "{call:?}");
        }
    });
    let Value::Integer(left) = redis.ask(&["TTL", "set"]) else { panic!("a number") };
    assert!((290..=300).contains(&left), "{left}");
    assert_eq!(redis.ask(&["SISMEMBER", "\0\r\n\u{e9}", ""]), Value::Integer(1));
}

#[test]
fn a_script_that_redis_has_forgotten_is_sent_again() {
    let redis = Redis::start();
    let run_script =
        || Command::Run { script: &COUNT_UP, keys: vec![bytes("n")], arguments: vec![bytes("1")] };
    run(async {
        let (mut commands, _) = commands(&redis).await;
        for round in 0..3 {
            commands.push(Token(round), run_script());
            let (token, reply) = next_reply(&mut commands).await;
            let count = Reply::List(vec![bytes(&(round + 1).to_string()), bytes("7"), bytes("x")]);
            assert_eq!((token, reply), (round, count));
            redis.ask(&["SCRIPT", "FLUSH"]);
        }
    });
}

#[test]
fn replies_come_in_order_however_many_there_are() {
    let redis = Redis::start();
    run(async {
        let (mut commands, _) = commands(&redis).await;
        const COUNT: u64 = 20_000;
        for token in 0..COUNT {
            let member = token.to_string().into_bytes();
            commands.push(Token(token), Command::SetAdd { key: bytes("set"), member, expire_s: None });
        }
        for token in 0..COUNT {
            assert_eq!(next_reply(&mut commands).await, (token, Reply::Integer(1)));
        }
    });
    assert_eq!(redis.ask(&["SCARD", "set"]), Value::Integer(20_000));
}

#[test]
fn what_redis_does_not_take_fails() {
    let mut redis = Redis::start();
    run(async {
        let (mut commands, metrics) = commands(&redis).await;
        let expire = || Command::Expire { key: bytes("k"), expire_s: 1 };
        for token in 0..REDIS_COMMANDS_MAX as u64 + 3 {
            commands.push(Token(token), expire());
        }
        // The three for which there was no room are heard of first.
        for token in REDIS_COMMANDS_MAX as u64..REDIS_COMMANDS_MAX as u64 + 3 {
            assert_eq!(next_reply(&mut commands).await, (token, Reply::Failed));
        }
        assert_eq!(next_reply(&mut commands).await, (0, Reply::Integer(0)));
        redis.stop();
        let mut has_lost = false;
        for token in 1..REDIS_COMMANDS_MAX as u64 {
            let mut happening = next(&mut commands).await;
            if let Happening::Disconnected = happening {
                has_lost = true;
                happening = next(&mut commands).await;
            }
            let Happening::Reply { token: Token(found), reply } = happening else { panic!("{happening:?}") };
            assert_eq!((found, reply == Reply::Failed), (token, has_lost));
        }
        assert!(has_lost && commands.is_idle() && !commands.is_up());
        commands.push(Token(7), expire());
        assert_eq!(next_reply(&mut commands).await, (7, Reply::Failed), "at once");
        assert_eq!(metrics.counters.redis_queue.value(), 0);
        redis.run();
        assert!(matches!(next(&mut commands).await, Happening::Connected));
        commands.push(Token(8), expire());
        assert_eq!(next_reply(&mut commands).await, (8, Reply::Integer(0)));
        // Bytes have a bound of their own, which one command may pass that is alone.
        let publish = || {
            let payload = vec![0; REDIS_COMMAND_BYTES_MAX].into();
            Command::Publish { channel: bytes("nobody listens"), payload }
        };
        commands.push(Token(9), publish());
        commands.push(Token(10), publish());
        assert_eq!(next_reply(&mut commands).await, (10, Reply::Failed));
        assert_eq!(next_reply(&mut commands).await, (9, Reply::Integer(0)));
    });
}

#[test]
fn everything_is_subscribed_again_after_a_loss() {
    let mut redis = Redis::start();
    let count = REDIS_SUBSCRIBE_CHANNELS_MAX + 10;
    run(async {
        let metrics: Arc<ClusterMetrics> = Arc::default();
        let mut subscriptions = Subscriptions::new(endpoint(&redis), entropy(), Arc::clone(&metrics));
        subscriptions.subscribe(bytes("before"));
        for round in 0..3 {
            assert!(matches!(next_of(&mut subscriptions).await, Happening::Connected));
            let expected = if round == 0 { 1 } else { count };
            let mut subscribed: Vec<Vec<u8>> = Vec::new();
            for _ in 0..expected {
                match next_of(&mut subscriptions).await {
                    Happening::Subscribed(channel) => subscribed.push(channel),
                    other => panic!("{other:?}"),
                }
            }
            subscribed.sort();
            subscribed.dedup();
            assert_eq!(subscribed.len(), expected);
            if round == 0 {
                (1..count).for_each(|number| subscriptions.subscribe(bytes(&format!("channel {number}"))));
                for _ in 1..count {
                    assert!(matches!(next_of(&mut subscriptions).await, Happening::Subscribed(_)));
                }
            }
            assert_eq!(redis.ask(&["PUBLISH", "channel 9", "a\0b"]), Value::Integer(1));
            match next_of(&mut subscriptions).await {
                Happening::Push { channel, payload } => {
                    assert_eq!((channel, &payload[..]), (bytes("channel 9"), b"a\0b".as_slice()));
                }
                other => panic!("{other:?}"),
            }
            if round == 0 {
                redis.stop();
                assert!(matches!(next_of(&mut subscriptions).await, Happening::Disconnected));
                redis.run();
            } else {
                subscriptions.lose("for a test");
                assert!(matches!(next_of(&mut subscriptions).await, Happening::Disconnected));
            }
        }
        assert_eq!(metrics.counters.redis_pushes.value(), 3);
        assert!(metrics.last_calls_us[Call::Subscribe as usize].value() > 0);
    });
}

#[test]
fn what_is_not_subscribed_any_more_is_not_heard() {
    let redis = Redis::start();
    run(async {
        let mut subscriptions = Subscriptions::new(endpoint(&redis), entropy(), Arc::default());
        assert!(matches!(next_of(&mut subscriptions).await, Happening::Connected));
        for channel in ["a", "b"] {
            subscriptions.subscribe(bytes(channel));
        }
        subscriptions.unsubscribe(bytes("a"));
        subscriptions.subscribe(bytes("c"));
        for channel in ["a", "b", "c"] {
            match next_of(&mut subscriptions).await {
                Happening::Subscribed(subscribed) => assert_eq!(subscribed, bytes(channel)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(redis.ask(&["PUBLISH", "a", "x"]), Value::Integer(0));
        assert_eq!(redis.ask(&["PUBLISH", "b", "x"]), Value::Integer(1));
    });
}

#[test]
fn a_primary_that_was_demoted_is_given_up_with_the_first_refusal() {
    let (redis, other) = (Redis::start(), Redis::start());
    let add = || Command::SetAdd { key: bytes("set"), member: bytes("a"), expire_s: None };
    let expire = || Command::Expire { key: bytes("set"), expire_s: 9 };
    let publish = || Command::Publish { channel: bytes("nobody listens"), payload: b"x".as_slice().into() };
    let run_script =
        || Command::Run { script: &COUNT_UP, keys: vec![bytes("n")], arguments: vec![bytes("1")] };
    run(async {
        let (mut commands, metrics) = commands(&redis).await;
        commands.push(Token(0), add());
        assert_eq!(next_reply(&mut commands).await, (0, Reply::Integer(1)));
        let (host, port) = (other.address.ip().to_string(), other.address.port().to_string());
        for (round, write) in (1_u64..).zip([add(), expire(), run_script()]) {
            redis.ask(&["REPLICAOF", &host, &port]);
            // It drops nobody, and takes what changes nothing.
            commands.push(Token(10 * round), publish());
            assert_eq!(next_reply(&mut commands).await, (10 * round, Reply::Integer(0)));
            commands.push(Token(10 * round + 1), write);
            commands.push(Token(10 * round + 2), publish());
            assert_eq!(next_reply(&mut commands).await, (10 * round + 1, Reply::Failed));
            assert_eq!(next_reply(&mut commands).await.0, 10 * round + 2, "of the same write");
            assert!(matches!(next(&mut commands).await, Happening::Disconnected));
            redis.ask(&["REPLICAOF", "NO", "ONE"]);
            assert!(matches!(next(&mut commands).await, Happening::Connected));
            commands.push(Token(10 * round + 3), publish());
            assert_eq!(next_reply(&mut commands).await, (10 * round + 3, Reply::Integer(0)));
            assert!(!commands.take_moved(), "a replica would have taken it, too");
            commands.push(Token(10 * round + 4), run_script());
            assert!(matches!(next_reply(&mut commands).await, (_, Reply::List(_))));
            assert!(commands.take_moved() && !commands.take_moved());
        }
        assert_eq!(metrics.counters.redis_reconnects.value(), 3);
    });
}
