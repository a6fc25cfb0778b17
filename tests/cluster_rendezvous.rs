//! Rendezvous over several hosts, over a real Redis (protocols.md sections 2 and 6), on io_uring and on epoll. This file:
//! clients of two hosts, and what the tests say and hear.

mod support;

#[path = "cluster_rendezvous/foreign.rs"]
mod foreign;
#[path = "cluster_rendezvous/losses.rs"]
mod losses;

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use parlor::id::{ClientId, Entropy, ShardIndex, Slot};
use support::dialects::Peer;
use support::redis::{Redis, Value};
use support::{Server, Setup, is_uuid_v4, on_each_driver, wait_until};

const WALLET: &str = "wallet";
const EXTENSION: &str = "extension";

on_each_driver!(
    clients_of_two_hosts_meet_talk_and_part,
    whoever_is_not_there_is_missing,
    answers_keep_the_order_of_the_messages,
    both_connect_at_the_same_moment,
    who_closes_while_arriving_leaves_nothing,
    without_public_layouts_others_do_not_see_it,
    clients_of_one_host_do_not_use_the_channel,
);

// What the tests say and hear.

fn server_with(setup: Setup, redis: &Redis, more: &[(&str, &str)]) -> Server {
    let url = redis.url();
    let environment: Vec<(&str, &str)> =
        [("REDIS_URL", &*url), ("RATE_LIMIT_MESSAGES", "1000000")].iter().chain(more).copied().collect();
    let server = Server::start(setup, &environment);
    server.wait_for_metric("parlor_redis_connected", 1);
    server
}

fn server(setup: Setup, redis: &Redis) -> Server {
    server_with(setup, redis, &[])
}

/// Two hosts that know each other, the second of more shards and another driver.
fn two(setup: Setup, redis: &Redis) -> (Server, Server) {
    two_with(setup, redis, &[])
}

fn two_with(setup: Setup, redis: &Redis, more: &[(&str, &str)]) -> (Server, Server) {
    let other = if setup.driver == Setup::EPOLL_1.driver { Setup::IO_URING_2 } else { Setup::EPOLL_4 };
    let (here, there) = (server_with(setup, redis, more), server_with(other, redis, more));
    here.wait_for_metric("parlor_hosts", 1);
    there.wait_for_metric("parlor_hosts", 1);
    (here, there)
}

/// A client, and the id by which the others know it.
struct Known {
    peer: Peer,
    id: String,
}

/// A connection id: 64 hex digits.
fn key(number: usize) -> String {
    format!("{:016x}", 0xabcd_ef00_0000_0000 + number as u64 * 0x9e37_79b9).repeat(4)
}

fn other(role: &str) -> &'static str {
    if role == WALLET { EXTENSION } else { WALLET }
}

fn open(server: &Server, key: &str, source: &str) -> Peer {
    let mut peer = Peer::open(server, &format!("/{key}?source={source}&target={}", other(source)));
    peer.name = format!("{source} of {}", &key[..16]);
    peer
}

/// Who is in a set of Redis.
fn members_of(redis: &Redis, set: &str) -> BTreeSet<String> {
    let Value::List(items) = redis.ask(&["SMEMBERS", set]) else { panic!("{set} is no set") };
    let text = |item| match item {
        Value::Bytes(bytes) => String::from_utf8(bytes).expect("UTF-8"),
        other => panic!("{other:?}"),
    };
    items.into_iter().map(text).collect()
}

/// Opens a client that is alone, and learns its id from its set.
fn open_alone(server: &Server, redis: &Redis, key: &str, role: &str) -> Known {
    let set = format!("{key}:{role}");
    let before = members_of(redis, &set);
    let peer = open(server, key, role);
    wait_until("the client to be in its set", || members_of(redis, &set).len() > before.len());
    let new = members_of(redis, &set).difference(&before).next().expect("it is new").clone();
    assert!(is_uuid_v4(&new), "{new}");
    Known { peer, id: new }
}

/// A wallet of one host that was first, and an extension of another.
fn pair(here: &Server, there: &Server, key: &str) -> (Known, Known) {
    let redis_has_it = || here.metric("parlor_redis_queue") == 0;
    let mut wallet = open(here, key, WALLET);
    wallet.expect_nothing();
    wait_until("it to be registered", redis_has_it);
    let mut extension = open(there, key, EXTENSION);
    // Which of the two notices each gets depends on who has looked first.
    let wallet_id = id_of_notice(&extension.next("a notice"));
    let extension_id = id_of_notice(&wallet.next("a notice"));
    assert_ne!(wallet_id, extension_id);
    (Known { peer: wallet, id: wallet_id }, Known { peer: extension, id: extension_id })
}

fn notice(info: &str, id: &str) -> String {
    format!(r#"{{"info":"{info}","remoteClientId":"{id}"}}"#)
}
fn already(id: &str) -> String {
    notice("remoteClientIsAlreadyConnected", id)
}
fn just(id: &str) -> String {
    notice("remoteClientJustConnected", id)
}
fn disconnected(id: &str) -> String {
    notice("remoteClientDisconnected", id)
}

/// The id in a notice that somebody is there.
fn id_of_notice(text: &str) -> String {
    let id_in = |info: &str| {
        let start = format!(r#"{{"info":"{info}","remoteClientId":""#);
        text.strip_prefix(&*start).and_then(|rest| rest.strip_suffix("\"}"))
    };
    let id = id_in("remoteClientIsAlreadyConnected").or_else(|| id_in("remoteClientJustConnected"));
    let id = id.unwrap_or_else(|| panic!("waited for a notice and got {text}"));
    assert!(is_uuid_v4(id), "{text}");
    id.to_owned()
}

/// A good message. `request` is the request id.
fn message(request: &str, target: &str) -> String {
    message_of(request, target, "p")
}

fn message_of(request: &str, target: &str, payload: &str) -> String {
    format!(
        r#"{{"requestId":"{request}","method":"offer","source":"wallet","encryptedPayload":"{payload}","targetClientId":"{target}","more":1.50}}"#
    )
}

/// What the target hears.
fn remote_data(data: &str, sender: &str, request: &str) -> String {
    format!(r#"{{"info":"remoteData","data":{data},"remoteClientId":"{sender}","requestId":"{request}"}}"#)
}
fn confirmation(request: &str) -> String {
    format!(r#"{{"info":"confirmation","requestId":"{request}"}}"#)
}
fn missing(request: &str) -> String {
    format!(r#"{{"info":"missingRemoteClientError","requestId":"{request}"}}"#)
}

/// A message goes across, and is the very next thing that the two hear.
fn exchange(from: &mut Known, to: &mut Known, request: &str) {
    let message = message(request, &to.id);
    from.peer.send(&message);
    to.peer.expect(&remote_data(&message, &from.id, request));
    from.peer.expect(&confirmation(request));
}

/// All keys in Redis but the roll of hosts.
fn keys(redis: &Redis) -> Vec<String> {
    let Value::List(keys) = redis.ask(&["KEYS", "*"]) else { panic!("no list") };
    let text = |value| match value {
        Value::Bytes(bytes) => String::from_utf8(bytes).expect("UTF-8"),
        other => panic!("{other:?}"),
    };
    keys.into_iter().map(text).filter(|key| key != "parlor:hosts").collect()
}

// Clients of two hosts.

fn clients_of_two_hosts_meet_talk_and_part(setup: Setup) {
    let redis = Redis::start();
    let (here, there) = two(setup, &redis);
    let key = key(1);
    let mut wallet = open_alone(&here, &redis, &key, WALLET);
    let Value::Integer(left_s) = redis.ask(&["TTL", &format!("{key}:wallet")]) else { panic!("no number") };
    assert!((43_100..=43_200).contains(&left_s), "{left_s}");
    let mut extension = open_alone(&there, &redis, &key, EXTENSION);
    extension.peer.expect(&already(&wallet.id));
    wallet.peer.expect(&just(&extension.id));
    exchange(&mut wallet, &mut extension, "1");
    exchange(&mut extension, &mut wallet, "a \\u00e9\\n");
    // A long one, and many that are on their way at once.
    let long = message_of("long", &extension.id, &"x".repeat(300_000));
    wallet.peer.send(&long);
    extension.peer.expect(&remote_data(&long, &wallet.id, "long"));
    wallet.peer.expect(&confirmation("long"));
    let many: Vec<String> = (0..500).map(|count| message(&count.to_string(), &extension.id)).collect();
    wallet.peer.send_at_once(many.iter().map(String::as_str));
    for (count, message) in many.iter().enumerate() {
        extension.peer.expect(&remote_data(message, &wallet.id, &count.to_string()));
        wallet.peer.expect(&confirmation(&count.to_string()));
    }
    // One more of each role, on either host: each tells all of the other role.
    let mut second = open_alone(&here, &redis, &key, EXTENSION);
    second.peer.expect(&already(&wallet.id));
    wallet.peer.expect(&just(&second.id));
    let third = open_alone(&there, &redis, &key, WALLET);
    second.peer.expect(&just(&third.id));
    extension.peer.expect(&just(&third.id));
    third.peer.close();
    second.peer.expect(&disconnected(&third.id));
    extension.peer.expect(&disconnected(&third.id));
    exchange(&mut extension, &mut wallet, "still there");

    extension.peer.close();
    wallet.peer.expect(&disconnected(&extension.id));
    wallet.peer.ask(&message("gone", &extension.id), &missing("gone"));
    assert_eq!(members_of(&redis, &format!("{key}:extension")), BTreeSet::from([second.id.clone()]));
    second.peer.reset();
    wallet.peer.expect(&disconnected(&second.id));
    wallet.peer.close();
    wait_until("Redis to be empty", || keys(&redis).is_empty());
    for host in [&here, &there] {
        assert_eq!(host.metric("parlor_relations_ended_total"), 0, "{}", host.log());
        assert_eq!(host.metric("parlor_letters_ignored_total"), 0);
        assert_eq!(host.metric("parlor_rendezvous_ignored_total"), 0);
        host.wait_for_metric("parlor_redis_subscriptions", 3);
    }
    let (sent, received) =
        ("parlor_rendezvous_messages_sent_total", "parlor_rendezvous_messages_received_total");
    // What came from the other host counts where it is delivered.
    assert_eq!(there.metric(received), 2);
    assert!(there.metric(sent) >= 504, "{}", there.metric(sent));
    assert_eq!(here.metric("signaling_server_outgoing_messages"), here.metric(sent));
}

fn whoever_is_not_there_is_missing(setup: Setup) {
    let redis = Redis::start();
    let (here, there) = two(setup, &redis);
    let (mut wallet, mut extension) = pair(&here, &there, &key(1));
    let (mut elsewhere, _its_counterpart) = pair(&there, &here, &key(2));
    let mut second = open_alone(&there, &redis, &key(1), WALLET);
    extension.peer.expect(&just(&second.id));
    second.peer.expect(&already(&extension.id));
    let host = ClientId::parse(extension.id.as_bytes()).expect("an id of ours").host();
    let no_shard = ClientId::new(host, ShardIndex(200), Slot(0), &mut Entropy::from_seed([1; 32]));
    let nobody = [
        wallet.id.clone(),
        // Of its own role.
        second.id.clone(),
        // On another connection id.
        elsewhere.id.clone(),
        // Of no host, and of one that is there.
        "11111111-2222-4333-8444-555555555555".into(),
        format!("{}{}", &extension.id[..19], "-000000000000"),
        extension.id.to_uppercase(),
        String::from_utf8(no_shard.text().to_vec()).expect("ASCII"),
        "anything".into(),
        "x".repeat(100_000),
        String::new(),
        "\\ud800".into(),
    ];
    for (count, target) in nobody.iter().enumerate() {
        wallet.peer.ask(&message(&count.to_string(), target), &missing(&count.to_string()));
    }
    extension.peer.expect_nothing();
    second.peer.expect_nothing();
    elsewhere.peer.expect_nothing();
    exchange(&mut wallet, &mut extension, "after all");
}

fn answers_keep_the_order_of_the_messages(setup: Setup) {
    let redis = Redis::start();
    let (here, there) = two(setup, &redis);
    let (mut wallet, mut far) = pair(&here, &there, &key(1));
    let mut near = open_alone(&here, &redis, &key(1), EXTENSION);
    near.peer.expect(&already(&wallet.id));
    wallet.peer.expect(&just(&near.id));
    let mut foreign = foreign::Foreign::arrive(&redis, &key(1), EXTENSION, "a \"foreign\" id");
    foreign.expect_counterparts(&[&wallet.id]);
    wallet.peer.expect(&just("a \\\"foreign\\\" id"));
    let invalid = |text: &str| {
        format!(
            r#"{{"info":"invalidMessageError","data":"{text}","error":"invalid message format, expected JSON"}}"#
        )
    };
    let (mut texts, mut answers) = (Vec::new(), Vec::new());
    for count in 0..100 {
        let request = count.to_string();
        let (text, answer) = match count % 5 {
            0 => (message(&request, &far.id), confirmation(&request)),
            1 => (message(&request, &near.id), confirmation(&request)),
            2 => (message(&request, "a \\\"foreign\\\" id"), confirmation(&request)),
            3 => (message(&request, "nobody at all"), missing(&request)),
            _ => (request.clone() + "?", invalid(&(request + "?"))),
        };
        texts.push(text);
        answers.push(answer);
    }
    wallet.peer.send_at_once(texts.iter().map(String::as_str));
    for answer in &answers {
        wallet.peer.expect(answer);
    }
    for (count, text) in texts.iter().enumerate() {
        let heard = remote_data(text, &wallet.id, &count.to_string());
        match count % 5 {
            0 => far.peer.expect(&heard),
            1 => near.peer.expect(&heard),
            2 => assert_eq!(foreign.next(), heard),
            _ => {}
        }
    }
    for known in [&mut wallet, &mut far, &mut near] {
        known.peer.expect_nothing();
    }
}

fn both_connect_at_the_same_moment(setup: Setup) {
    const ROUNDS: usize = 60;
    let redis = Redis::start();
    let (here, there) = two(setup, &redis);
    let barrier = Barrier::new(2);
    let run = |server: &Server, role: &str| -> Vec<(Peer, String)> {
        (0..ROUNDS)
            .map(|round| {
                barrier.wait();
                let mut peer = open(server, &key(round), role);
                let told = id_of_notice(&peer.next("a notice"));
                (peer, told)
            })
            .collect()
    };
    let (wallets, extensions) = std::thread::scope(|scope| {
        let wallets = scope.spawn(|| run(&here, WALLET));
        let extensions = scope.spawn(|| run(&there, EXTENSION));
        (wallets.join().expect("no panic"), extensions.join().expect("no panic"))
    });
    for ((round, (mut wallet, extension_id)), (mut extension, wallet_id)) in
        (0..ROUNDS).zip(wallets).zip(extensions)
    {
        let set = |role: &str| members_of(&redis, &format!("{}:{role}", key(round)));
        assert_eq!(set(WALLET), BTreeSet::from([wallet_id.clone()]));
        assert_eq!(set(EXTENSION), BTreeSet::from([extension_id.clone()]));
        // Once each: a message is the next thing that either hears.
        let (to_extension, to_wallet) = (message("1", &extension_id), message("2", &wallet_id));
        wallet.send(&to_extension);
        extension.expect(&remote_data(&to_extension, &wallet_id, "1"));
        wallet.expect(&confirmation("1"));
        extension.send(&to_wallet);
        wallet.expect(&remote_data(&to_wallet, &extension_id, "2"));
        extension.expect(&confirmation("2"));
    }
}

fn who_closes_while_arriving_leaves_nothing(setup: Setup) {
    let redis = Redis::start();
    let (here, there) = two(setup, &redis);
    let mut stays = open_alone(&there, &redis, &key(0), EXTENSION);
    for round in 0..60 {
        let peer = open(&here, &key(0), WALLET);
        if round % 2 == 0 {
            peer.reset();
        } else {
            drop(peer.close());
        }
    }
    here.wait_for_metric("parlor_rendezvous_clients", 0);
    wait_until("its set to be empty", || members_of(&redis, &format!("{}:wallet", key(0))).is_empty());
    here.wait_for_metric("parlor_redis_subscriptions", 3);
    // Whoever was announced has left again.
    let mut there_now = BTreeSet::new();
    let last = open_alone(&here, &redis, &key(0), WALLET);
    loop {
        let text = stays.peer.next("a notice");
        if text == just(&last.id) {
            break;
        }
        match text.strip_prefix(r#"{"info":"remoteClientDisconnected","remoteClientId":""#) {
            Some(rest) => assert!(there_now.remove(rest.trim_end_matches("\"}")), "{text}"),
            None => assert!(there_now.insert(id_of_notice(&text)), "{text}"),
        }
    }
    assert!(there_now.is_empty(), "{there_now:?}");
    drop(stays.peer.close());
    drop(last.peer.close());
    wait_until("Redis to be empty", || keys(&redis).is_empty());
}

fn without_public_layouts_others_do_not_see_it(setup: Setup) {
    let redis = Redis::start();
    let (here, there) = two_with(setup, &redis, &[("REDIS_PUBLIC_LAYOUTS", "false")]);
    let (mut wallet, mut extension) = pair(&here, &there, &key(1));
    exchange(&mut wallet, &mut extension, "1");
    exchange(&mut extension, &mut wallet, "2");
    let mut names = keys(&redis);
    names.sort_unstable();
    let private = |role: &str| format!("parlor:rendezvous:{}:{role}", key(1));
    assert_eq!(names, [private(EXTENSION), private(WALLET)]);
    assert_eq!(members_of(&redis, &private(WALLET)), BTreeSet::from([wallet.id.clone()]));
    assert_eq!(here.metric("parlor_redis_subscriptions"), 2, "no channel per client");
    // Who is none of ours is nobody here.
    redis.ask(&["SADD", &private(EXTENSION), "foreign"]);
    wallet.peer.ask(&message("3", "foreign"), &missing("3"));
    let subscribers = redis.ask(&["PUBLISH", &wallet.id, &just("foreign")]);
    assert_eq!(subscribers, Value::Integer(0));
    drop(extension.peer.close());
    wallet.peer.expect(&disconnected(&extension.id));
}

fn clients_of_one_host_do_not_use_the_channel(setup: Setup) {
    let redis = Redis::start();
    let here = server(setup, &redis);
    let mut wallet = open_alone(&here, &redis, &key(1), WALLET);
    let mut extension = open_alone(&here, &redis, &key(1), EXTENSION);
    let mut listener = redis.connect().expect("Redis is there");
    for id in [&wallet.id, &extension.id] {
        listener.say(&[b"SUBSCRIBE", id.as_bytes()]).expect("Redis is there");
        listener.next().expect("an answer");
    }
    extension.peer.expect(&already(&wallet.id));
    wallet.peer.expect(&just(&extension.id));
    exchange(&mut wallet, &mut extension, "1");
    drop(extension.peer.close());
    wallet.peer.expect(&disconnected(&extension.id));
    wait_until("it to be out of its set", || members_of(&redis, &format!("{}:extension", key(1))).is_empty());
    assert!(!listener.has_news(Duration::from_millis(1)), "nothing was published");
}

/// How much later an answer comes from another host. Said, not judged.
#[test]
#[ignore = "a measurement: cargo test --release --test cluster_rendezvous -- --ignored --nocapture"]
fn how_long_a_confirmation_takes() {
    let redis = Redis::start();
    let (here, there) = two(Setup::EPOLL_1, &redis);
    let far = pair(&here, &there, &key(1));
    let near = pair(&here, &here, &key(2));
    for (name, (mut wallet, mut extension)) in [("one host", near), ("two hosts", far)] {
        let mut times: Vec<Duration> = (0..2_000)
            .map(|_| {
                let start = Instant::now();
                exchange(&mut wallet, &mut extension, "1");
                start.elapsed()
            })
            .collect();
        times.sort();
        println!("{name}: p50 {:?}, p99 {:?}", times[times.len() / 2], times[times.len() * 99 / 100]);
    }
}
