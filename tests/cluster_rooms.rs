//! Rooms over several hosts, over a real Redis: protocols.md sections 4 and 6 from outside, whatever becomes of a host or
//! of Redis.

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::dialects::Peer;
use support::redis::{Redis, Value};
use support::{Server, Setup, WAIT, get, is_uuid_v4, on_each_driver, wait_until};

on_each_driver!(
    a_room_is_one_room_on_all_hosts,
    who_is_told_to_be_in_hears_what_is_said_next,
    members_move_between_rooms_of_any_host,
    a_room_expires_on_all_hosts_at_once,
    no_id_is_shared_and_all_of_them_are_used,
    invalid_input_costs_redis_nothing,
    rooms_outlive_the_hosts_of_their_members,
    rooms_are_restored_in_a_redis_that_restarts_empty,
    a_room_waits_for_redis,
    a_host_that_stood_still_is_in_its_rooms_again,
);

const CREATE: &str = r#"{"type":"create"}"#;
const NOT_FOUND: &str = r#"{"type":"error","message":"Room not found"}"#;
const NO_ROOMS: &str = r#"{"type":"error","message":"No rooms available"}"#;
/// What a busy machine may take on top of what is promised.
const SLACK: Duration = Duration::from_secs(3);

// What the tests say and hear.

fn server_with(setup: Setup, redis: &Redis, environment: &[(&str, &str)]) -> Server {
    let url = redis.url();
    let environment: Vec<_> = [("REDIS_URL", url.as_str())].iter().chain(environment).copied().collect();
    let server = Server::start(setup, &environment);
    server.wait_for_metric("parlor_redis_connected", 1);
    server
}

fn server(setup: Setup, redis: &Redis) -> Server {
    server_with(setup, redis, &[("MAX_MSG_PER_SECOND", "1000000")])
}

/// The driver that a test is not run on, with more shards.
fn other(setup: Setup) -> Setup {
    if setup.driver == support::Driver::Epoll { Setup::IO_URING_2 } else { Setup::EPOLL_4 }
}

fn wait_for_hosts(servers: &[&Server]) {
    for server in servers {
        server.wait_for_metric("parlor_hosts", servers.len() as u64 - 1);
    }
}

fn two(setup: Setup, redis: &Redis) -> (Server, Server) {
    let (here, there) = (server(setup, redis), server(other(setup), redis));
    wait_for_hosts(&[&here, &there]);
    (here, there)
}

/// A client in a room.
struct Member {
    peer: Peer,
    id: String,
    room: String,
}

impl Member {
    fn create(server: &Server) -> Self {
        let mut member = Self { peer: Peer::open(server, "/"), id: String::new(), room: String::new() };
        member.peer.send(CREATE);
        member.expect_in("room_created");
        member
    }

    fn join(server: &Server, room: &str) -> Self {
        let mut member = Self { peer: Peer::open(server, "/"), id: String::new(), room: String::new() };
        member.moves_to(room);
        member
    }

    fn moves_to(&mut self, room: &str) {
        self.peer.send(&join(room));
        self.expect_in("room_joined");
        assert_eq!(self.room, room);
    }

    /// The next message must say that it is in a room.
    fn expect_in(&mut self, kind: &str) {
        let answer = self.peer.next(kind);
        let ids = answer.strip_prefix(&format!(r#"{{"type":"{kind}","roomId":""#));
        let ids = ids.and_then(|ids| ids.strip_suffix("\"}"));
        let ids = ids.and_then(|ids| ids.split_once(r#"","myId":""#));
        let (room, id) = ids.unwrap_or_else(|| panic!("waited for {kind} and got {answer}"));
        assert!(room.len() == 4 && room.bytes().all(|byte| byte.is_ascii_digit()), "{answer}");
        assert!(is_uuid_v4(id) && (self.id.is_empty() || self.id == id), "{answer}");
        (self.room, self.id) = (room.to_owned(), id.to_owned());
        self.peer.name = format!("{id} in {room}");
    }

    /// Says something that all of these hear next.
    fn says(&mut self, payload: &str, hearers: &mut [&mut Self]) {
        self.peer.send(&signal(payload));
        for hearer in hearers {
            hearer.peer.expect(&heard(&self.id, payload));
        }
    }
}

fn join(room: &str) -> String {
    format!(r#"{{"type":"join","roomId":"{room}"}}"#)
}

fn signal(payload: &str) -> String {
    format!(r#"{{"type":"signal","payload":{payload}}}"#)
}

fn heard(sender: &str, payload: &str) -> String {
    format!(r#"{{"type":"signal","senderId":"{sender}","payload":{payload}}}"#)
}

fn expect_no_room(server: &Server, room: &str) {
    Peer::open(server, "/").ask(&join(room), NOT_FOUND);
}

fn rooms_in(redis: &Redis) -> i64 {
    match redis.ask(&["ZCARD", "parlor:rooms"]) {
        Value::Integer(count) => count,
        other => panic!("{other:?}"),
    }
}

fn check_relay(one: &mut Member, other: &mut Member) {
    one.says("1.50", &mut [other]);
    other.says(r#"{"a":[null]}"#, &mut [one]);
}

/// Waits until what one says reaches the other. What is said while hosts do not know of each other is lost.
fn wait_for_relay(one: &mut Member, other: &mut Member) {
    let (mut number, start) = (0, Instant::now());
    loop {
        one.peer.send(&signal(&number.to_string()));
        one.peer.expect_nothing();
        let texts = other.peer.drain();
        let known = |text: &String| (0..=number).any(|sent| *text == heard(&one.id, &sent.to_string()));
        assert!(texts.iter().all(known), "{texts:?}");
        if !texts.is_empty() {
            // What is still on its way comes before what is said next.
            one.peer.send(&signal("\"end\""));
            while other.peer.next("the end") != heard(&one.id, "\"end\"") {}
            return;
        }
        assert!(start.elapsed() < WAIT, "nothing is heard");
        std::thread::sleep(Duration::from_millis(20));
        number += 1;
    }
}

// Rooms.

fn a_room_is_one_room_on_all_hosts(setup: Setup) {
    let redis = Redis::start();
    let (here, there) = two(setup, &redis);
    let third = server(setup, &redis);
    wait_for_hosts(&[&here, &there, &third]);
    let mut a = Member::create(&here);
    let mut b = Member::join(&there, &a.room);
    let mut c = Member::join(&third, &a.room);
    let mut d = Member::join(&here, &a.room);
    let long = format!("\"{}\"", "x".repeat(300_000));
    for payload in ["1.50", "null", r#""\u00e9""#, r#"{"a":[]}"#, &long] {
        a.says(payload, &mut [&mut b, &mut c, &mut d]);
        b.says(payload, &mut [&mut a, &mut c, &mut d]);
        c.says(payload, &mut [&mut a, &mut b, &mut d]);
    }
    // Missing stays missing, and every other field is dropped.
    b.peer.send(r#"{"type":"signal","senderId":"x","to":"y"}"#);
    for member in [&mut a, &mut c, &mut d] {
        member.peer.expect(&format!(r#"{{"type":"signal","senderId":"{}"}}"#, b.id));
    }
    // Many at once arrive in order; the sender drops right behind them.
    let texts: Vec<String> = (0..1_000).map(|number| signal(&number.to_string())).collect();
    c.peer.send_at_once(texts.iter().map(String::as_str));
    let id = c.id.clone();
    assert_eq!(c.peer.close(), [""; 0]);
    for number in 0..1_000 {
        for member in [&mut a, &mut b, &mut d] {
            member.peer.expect(&heard(&id, &number.to_string()));
        }
    }
    // Others get no notice of who comes and goes, and other rooms hear nothing.
    let mut elsewhere = Member::create(&third);
    assert_ne!(elsewhere.room, a.room);
    a.says("7", &mut [&mut b, &mut d]);
    for member in [&mut a, &mut b, &mut d, &mut elsewhere] {
        member.peer.expect_nothing();
    }
    for host in [&here, &there, &third] {
        assert_eq!(host.metric("parlor_letters_dropped_total"), 0, "{}", host.log());
    }
}

/// The answer to `join` says that from now on everything is heard: what others say because they know of it, too.
fn who_is_told_to_be_in_hears_what_is_said_next(setup: Setup) {
    let redis = Redis::start();
    let (here, there) = two(setup, &redis);
    let third = server(setup, &redis);
    wait_for_hosts(&[&here, &there, &third]);
    for round in 0..50 {
        let mut a = Member::create(&here);
        let room = a.room.clone();
        let (mut b, mut c) = std::thread::scope(|scope| {
            let b = scope.spawn(|| Member::join(&there, &room));
            let c = scope.spawn(|| Member::join(&third, &room));
            (b.join().expect("it ended well"), c.join().expect("it ended well"))
        });
        let payload = round.to_string();
        a.says(&payload, &mut [&mut b, &mut c]);
        b.says(&payload, &mut [&mut a, &mut c]);
        c.says(&payload, &mut [&mut a, &mut b]);
        for member in [a, b, c] {
            assert_eq!(member.peer.close(), [""; 0]);
        }
    }
}

fn members_move_between_rooms_of_any_host(setup: Setup) {
    let redis = Redis::start();
    let (here, there) = two(setup, &redis);
    let (mut a, mut b) = (Member::create(&here), Member::create(&there));
    let mut mover = Member::join(&here, &a.room);
    for _ in 0..5 {
        mover.says("1", &mut [&mut a]);
        mover.moves_to(&b.room);
        mover.says("2", &mut [&mut b]);
        b.says("3", &mut [&mut mover]);
        a.says("4", &mut []);
        mover.peer.expect_nothing();
        mover.moves_to(&a.room);
        b.says("5", &mut []);
        mover.peer.expect_nothing();
    }
    // What fails moves nobody, and one's own room is joined again.
    let is_free = |id: &String| *id != a.room && *id != b.room;
    let free = (1_000..).map(|id: u16| id.to_string()).find(is_free).expect("two are taken");
    for room in [&free, "0999", "abcd", "12345", ""] {
        mover.peer.ask(&join(room), NOT_FOUND);
    }
    let room = a.room.clone();
    mover.moves_to(&room);
    mover.says("6", &mut [&mut a]);
    // A room lives on without members, and whoever comes back finds it on any host.
    let room = b.room.clone();
    assert_eq!(b.peer.close(), [""; 0]);
    let mut b = Member::join(&here, &room);
    let mut c = Member::join(&there, &room);
    check_relay(&mut b, &mut c);
    a.peer.expect_nothing();
}

fn a_room_expires_on_all_hosts_at_once(setup: Setup) {
    let redis = Redis::start();
    let start = |setup| server_with(setup, &redis, &[("ROOM_TIMEOUT_MS", "1500")]);
    let (here, there) = (start(setup), start(other(setup)));
    wait_for_hosts(&[&here, &there]);
    let mut a = Member::create(&here);
    let created = Instant::now();
    let mut alone = Member::create(&here);
    std::thread::sleep(Duration::from_millis(1_000));
    // The time starts anew with a join on another host; signals do not count.
    let mut b = Member::join(&there, &a.room);
    let joined = Instant::now();
    check_relay(&mut a, &mut b);
    alone.peer.expect_close(1000, "Room expired");
    assert!(created.elapsed() >= Duration::from_millis(1_500), "{:?}", created.elapsed());
    for member in [&mut a, &mut b] {
        member.peer.expect_close(1000, "Room expired");
        let took = joined.elapsed();
        assert!(took >= Duration::from_millis(1_500) - Duration::from_millis(50), "{took:?}");
        assert!(took < Duration::from_millis(1_500) + SLACK, "{took:?}");
    }
    expect_no_room(&here, &a.room);
    expect_no_room(&there, &b.room);
    // One that nobody is in expires as well.
    let left = Member::create(&there);
    let room = left.room.clone();
    assert_eq!(left.peer.close(), [""; 0]);
    assert_eq!(rooms_in(&redis), 1);
    std::thread::sleep(Duration::from_millis(1_600));
    expect_no_room(&here, &room);
    let next = Member::create(&here);
    assert_eq!(rooms_in(&redis), 1, "only the new one is left");
    drop(next);
}

fn no_id_is_shared_and_all_of_them_are_used(setup: Setup) {
    let redis = Redis::start();
    let (here, there) = two(setup, &redis);
    let members: Vec<Member> = std::thread::scope(|scope| {
        let hosts = [&here, &there];
        let creates: Vec<_> =
            (0..60).map(|count| scope.spawn(move || Member::create(hosts[count % 2]))).collect();
        creates.into_iter().map(|create| create.join().expect("it ended well")).collect()
    });
    let ids: BTreeSet<&str> = members.iter().map(|member| member.room.as_str()).collect();
    assert_eq!(ids.len(), members.len(), "no two rooms have one id");
    // All but three are taken, as far as Redis knows.
    let mut free: Vec<u16> = (1_000..10_000).filter(|id| !ids.contains(id.to_string().as_str())).collect();
    let left = [free.remove(4_000), free.remove(7), free.remove(8_000)];
    let far = "99999999999999";
    let mut words = vec!["ZADD".to_owned(), "parlor:rooms".to_owned()];
    words.extend(free.iter().flat_map(|id| [far.to_owned(), id.to_string()]));
    redis.ask(&words.iter().map(String::as_str).collect::<Vec<_>>());

    let last: Vec<Member> = [&here, &there, &here].into_iter().map(Member::create).collect();
    let got: BTreeSet<u16> = last.iter().map(|member| member.room.parse().expect("a number")).collect();
    assert_eq!(got, BTreeSet::from(left));
    for host in [&here, &there] {
        let mut peer = Peer::open(host, "/");
        peer.ask(CREATE, NO_ROOMS);
        // What fails moves nobody.
        let mut member = Member::join(host, &last[0].room);
        member.peer.ask(CREATE, NO_ROOMS);
        member.says("1", &mut []);
    }
    // One expires, and its id is taken at once.
    let expired = free[0].to_string();
    redis.ask(&["ZADD", "parlor:rooms", "1", &expired]);
    assert_eq!(Member::create(&there).room, expired);
}

fn invalid_input_costs_redis_nothing(setup: Setup) {
    let redis = Redis::start();
    let here = server(setup, &redis);
    let mut peer = Peer::open(&here, "/");
    let calls = || match redis.ask(&["INFO", "commandstats"]) {
        Value::Bytes(bytes) => {
            let text = String::from_utf8(bytes).expect("ASCII");
            let count =
                |name: &str| text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect();
            let counts: [Vec<String>; 2] = [count("cmdstat_zscore"), count("cmdstat_zadd")];
            counts.concat()
        }
        other => panic!("{other:?}"),
    };
    let before = calls();
    for room in ["", "0999", "10000", "abcd", "123", "１２３４", "-123", "12.4", " 123"] {
        peer.ask(&join(room), NOT_FOUND);
    }
    for message in
        [r#"{"type":"join"}"#, r#"{"type":"join","roomId":1234}"#, r#"{"type":"join","roomId":null}"#]
    {
        peer.ask(message, NOT_FOUND);
    }
    for message in [r#"{"type":"signal","payload":1}"#, r#"{"type":"login","name":"a"}"#, "no JSON"] {
        peer.tell(message);
    }
    assert_eq!(calls(), before);
    assert_eq!(redis.ask(&["EXISTS", "parlor:rooms", "parlor:rooms:hosts"]), Value::Integer(0));
}

// Hosts that end.

fn rooms_outlive_the_hosts_of_their_members(setup: Setup) {
    let redis = Redis::start();
    let (here, mut there) = two(setup, &redis);
    let third = server(setup, &redis);
    wait_for_hosts(&[&here, &there, &third]);
    let mut a = Member::create(&third);
    let room = a.room.clone();
    let mut b = Member::join(&here, &room);
    let mut c = Member::join(&there, &room);
    a.says("1", &mut [&mut b, &mut c]);
    third.signal(Signal::KILL);
    // The others go on as if it had never been there, at once.
    check_relay(&mut b, &mut c);
    let mut late = Member::join(&here, &room);
    late.says("2", &mut [&mut b, &mut c]);
    here.wait_for_metric("parlor_hosts", 1);
    let mut later = Member::join(&there, &room);
    later.says("3", &mut [&mut b, &mut c, &mut late]);
    b.peer.expect_nothing();
    there.signal(Signal::TERM);
    assert!(c.peer.next_until_close(1001, "Server shutting down").is_empty());
    assert!(there.wait_for_exit().success());
    b.says("4", &mut [&mut late]);
    // All hosts die; the room is there when others start.
    here.signal(Signal::KILL);
    let (one, other) = two(setup, &redis);
    let (mut d, mut e) = (Member::join(&one, &room), Member::join(&other, &room));
    check_relay(&mut d, &mut e);
}

// Redis that is away.

fn rooms_are_restored_in_a_redis_that_restarts_empty(setup: Setup) {
    let mut redis = Redis::start();
    let environment = [("ROOM_TIMEOUT_MS", "20000"), ("MAX_MSG_PER_SECOND", "10000")];
    let here = server_with(setup, &redis, &environment);
    let there = server_with(other(setup), &redis, &environment);
    wait_for_hosts(&[&here, &there]);
    let mut a = Member::create(&here);
    let mut a2 = Member::join(&here, &a.room);
    let mut b = Member::join(&there, &a.room);
    let joined = Instant::now();
    check_relay(&mut a, &mut b);
    a2.peer.drain();
    for _ in 0..3 {
        redis.stop();
        wait_until("Redis to be missed", || get(here.address, "/readyz").status == 503);
        // Within the host it goes on.
        check_relay(&mut a, &mut a2);
        b.peer.expect_nothing();
        redis.run();
        wait_for_hosts(&[&here, &there]);
        wait_until("the room to be restored", || rooms_in(&redis) == 1);
        wait_for_relay(&mut a, &mut b);
        wait_for_relay(&mut b, &mut a);
        a2.peer.drain();
        let mut c = Member::join(&there, &a.room);
        c.says("1", &mut [&mut a, &mut a2, &mut b]);
        assert_eq!(c.peer.close(), [""; 0]);
    }
    // Its id is another's by now: ours is no more.
    let another = "00000000-0000-4000-8000-000000000001 00000001";
    redis.ask(&["HSET", "parlor:rooms:hosts", &a.room, another]);
    redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
    for member in [&mut a, &mut a2, &mut b] {
        member.peer.expect_close(1000, "Room expired");
    }
    assert!(joined.elapsed() < Duration::from_secs(20), "not for its age");
}

fn a_room_waits_for_redis(setup: Setup) {
    let mut redis = Redis::start();
    let here = server(setup, &redis);
    let a = Member::create(&here);
    redis.stop();
    wait_until("Redis to be missed", || get(here.address, "/readyz").status == 503);
    let mut waits = Member { peer: Peer::open(&here, "/"), id: String::new(), room: String::new() };
    waits.peer.send(CREATE);
    waits.peer.send(&signal("1"));
    let mut comes = Member { peer: Peer::open(&here, "/"), id: String::new(), room: String::new() };
    comes.peer.send(&join(&a.room));
    waits.peer.name = "who creates".into();
    comes.peer.name = "who joins".into();
    redis.run();
    waits.expect_in("room_created");
    comes.expect_in("room_joined");
    check_relay(&mut comes, &mut { a });
    // Not for ever.
    redis.stop();
    wait_until("Redis to be missed", || get(here.address, "/readyz").status == 503);
    let start = Instant::now();
    let mut creates = Peer::open(&here, "/");
    creates.send(CREATE);
    comes.peer.ask(&join(&waits.room), NOT_FOUND);
    creates.expect(NO_ROOMS);
    let took = start.elapsed();
    assert!(took > Duration::from_secs(9) && took < Duration::from_secs(10) + SLACK, "{took:?}");
    // What fails moves nobody.
    redis.run();
    let mut more = Member::join(&here, &comes.room);
    check_relay(&mut comes, &mut more);
}

fn a_host_that_stood_still_is_in_its_rooms_again(setup: Setup) {
    let redis = Redis::start();
    let (here, there) = two(setup, &redis);
    let mut a = Member::create(&here);
    let mut b = Member::join(&there, &a.room);
    check_relay(&mut a, &mut b);
    there.signal(Signal::STOP);
    here.wait_for_metric("parlor_hosts", 0);
    let mut c = Member::join(&here, &a.room);
    c.says("1", &mut [&mut a]);
    there.signal(Signal::CONT);
    wait_for_hosts(&[&here, &there]);
    wait_for_relay(&mut b, &mut a);
    c.peer.drain();
    wait_for_relay(&mut c, &mut b);
    a.peer.drain();
    a.says("2", &mut [&mut b, &mut c]);
    b.says("3", &mut [&mut a, &mut c]);
}
