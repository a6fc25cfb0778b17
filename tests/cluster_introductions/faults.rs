//! What is left when a host dies, when Redis goes or comes back empty, and when somebody on Redis says anything.

use parlor::cluster::introductions::Letter;
use parlor::id::{ClientId, Entropy, HostId, ShardIndex, Slot};
use parlor::protocol::introduction::distant::Names;
use rustix::process::Signal;

use super::{introduction, join, leave, members, open, open_with, server, servers, wait_for_members};
use crate::support::neighbour::Neighbour;
use crate::support::pipes::Socket;
use crate::support::redis::{Redis, Value};
use crate::support::{Server, Setup, on_each_driver, wait_until};

on_each_driver!(
    peers_of_a_host_that_dies_are_gone,
    peers_of_a_host_that_stood_still_come_back,
    without_redis_a_host_goes_on_by_itself,
    a_redis_that_restarts_empty_learns_of_all,
    the_later_socket_has_the_id_when_redis_comes_back,
    nobody_on_redis_confuses_introductions,
);

fn client_in_redis(redis: &Redis, id: &str) -> ClientId {
    match redis.ask(&["HGET", "parlor:peers", id]) {
        Value::Bytes(text) => ClientId::parse(&text).expect("an id of ours"),
        other => panic!("{other:?}"),
    }
}

fn peers_of_a_host_that_dies_are_gone(setup: Setup) {
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    let _lost = open_with(&redis, &there, "lost", &["doc", "more"]);
    let _other = open_with(&redis, &there, "other", &["doc"]);
    there.signal(Signal::KILL);
    here.wait_for_metric("parlor_hosts", 0);
    let mut a = open(&here, "a");
    join(&mut a, &["doc"]);
    a.expect_nothing();
    // Who is met is removed, and its id is free: without what the one before had.
    wait_for_members(&redis, "doc", &["a"]);
    let mut lost = open(&here, "lost");
    join(&mut lost, &["more"]);
    lost.expect_nothing();
    join(&mut a, &["more"]);
    a.expect(introduction("lost", &["more"]));
    lost.expect(introduction("a", &["more"]));
    // It was introduced to nobody but the one.
    let mut short = Socket::hold(&here, "/connection/lost");
    let mut long = Socket::open(&here, "/connection/lost/a/more");
    short.send("found");
    long.expect("found");
}

fn peers_of_a_host_that_stood_still_come_back(setup: Setup) {
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    let mut b = open_with(&redis, &there, "b", &["2", "1"]);
    there.signal(Signal::STOP);
    here.wait_for_metric("parlor_hosts", 0);
    let mut a = open(&here, "a");
    join(&mut a, &["1", "2"]);
    a.expect_nothing();
    wait_for_members(&redis, "1", &["a"]);
    there.signal(Signal::CONT);
    // Each host registers what it has when it has found the other: either order may come, or both.
    let expect_either = |socket: &mut Socket, id: &str| {
        let text = socket.next("an introduction").into_text().expect("text").to_string();
        let orders = [introduction(id, &["1", "2"]), introduction(id, &["2", "1"])];
        assert!(orders.contains(&text), "{text}");
    };
    expect_either(&mut a, "b");
    expect_either(&mut b, "a");
    wait_for_members(&redis, "1", &["a", "b"]);
}

fn without_redis_a_host_goes_on_by_itself(setup: Setup) {
    let mut redis = Redis::absent();
    let here = server(setup, &redis);
    let mut a = open(&here, "a");
    join(&mut a, &["1", "2"]);
    let mut b = open(&here, "b");
    join(&mut b, &["2"]);
    a.expect(introduction("b", &["2"]));
    b.expect(introduction("a", &["2"]));
    let mut short = Socket::hold(&here, "/connection/b");
    let mut long = Socket::open(&here, "/connection/b/a/2");
    short.send("within the host");
    long.expect("within the host");
    let closed = open(&here, "closed");
    closed.close(None);
    redis.run();
    let there = server(Setup::EPOLL_1, &redis);
    // What each has, and who knows whom, is known to Redis now.
    let mut c = Socket::hold(&there, "/introduction/c");
    wait_for_members(&redis, "2", &["a", "b"]);
    there.wait_for_metric("parlor_hosts", 1);
    wait_until("who is introduced", || {
        redis.ask(&["HGET", "parlor:acquaintances", "a"]) == Value::Bytes(b"1:b2".to_vec())
            && redis.ask(&["HGET", "parlor:acquaintances", "b"]) == Value::Bytes(b"1:a2".to_vec())
    });
    let mut short = Socket::hold(&there, "/connection/a");
    let mut long = Socket::open(&there, "/connection/a/b/2");
    short.send("from another host");
    long.expect("from another host");
    join(&mut c, &["2", "1"]);
    a.expect(introduction("c", &["2", "1"]));
    b.expect(introduction("c", &["2"]));
    assert_eq!(redis.ask(&["HEXISTS", "parlor:peers", "closed"]), Value::Integer(0));
}

fn a_redis_that_restarts_empty_learns_of_all(setup: Setup) {
    let mut redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    let mut a = open_with(&redis, &here, "a", &["1", "2", "3"]);
    let mut b = open(&there, "b");
    join(&mut b, &["2", "1"]);
    for (socket, id) in [(&mut a, "b"), (&mut b, "a")] {
        socket.expect(introduction(id, &["2", "1"]));
    }
    let left = open_with(&redis, &there, "left", &["4"]);
    redis.stop();
    for server in [&here, &there] {
        server.wait_for_metric("parlor_hosts", 0);
    }
    left.close(None);
    // What is local goes on at once.
    join(&mut b, &["3"]);
    let mut c = open(&there, "c");
    join(&mut c, &["3", "1", "5"]);
    b.expect(introduction("c", &["3", "1"]));
    c.expect(introduction("b", &["3", "1"]));
    leave(&mut a, &["2"]);
    redis.run();
    // Whoever could not be introduced is now, in whatever order the hosts came back; none is missing.
    let mut heard_by_a = Vec::new();
    while !["b", "c"].iter().all(|id| {
        let start = format!(r#"{{"type":"Introduction","id":"{id}","#);
        heard_by_a.iter().any(|text: &String| text.starts_with(&start) && text.contains(r#""3""#))
    }) {
        heard_by_a.push(a.next("an introduction").into_text().expect("text").to_string());
    }
    wait_for_members(&redis, "1", &["a", "b", "c"]);
    wait_for_members(&redis, "2", &["b"]);
    assert_eq!(members(&redis, "4"), [""; 0]);
    // And all is as if nothing had been.
    join(&mut a, &["5"]);
    let awaited = introduction("a", &["1", "3", "5"]);
    while c.next(&awaited).into_text().expect("text").as_str() != awaited {}
}

fn the_later_socket_has_the_id_when_redis_comes_back(setup: Setup) {
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    let mut old = open_with(&redis, &here, "x", &["1"]);
    // Only the connections are lost, and made anew: Redis keeps what it has.
    redis.pause();
    there.wait_for_metric("parlor_redis_connected", 0);
    let mut new = open(&there, "x");
    join(&mut new, &["2"]);
    redis.resume();
    wait_for_members(&redis, "2", &["x"]);
    let mut y = open(&there, "y");
    wait_until("the newcomer's id", || {
        let hosts = ["x", "y"].map(|id| match redis.ask(&["HGET", "parlor:peers", id]) {
            Value::Bytes(text) => ClientId::parse(&text).map(ClientId::host),
            _ => None,
        });
        hosts[0].is_some() && hosts[0] == hosts[1]
    });
    here.wait_for_metric("parlor_hosts", 1);
    join(&mut y, &["2", "1"]);
    y.expect(introduction("x", &["2", "1"]));
    new.expect(introduction("y", &["2", "1"]));
    old.expect_nothing();
}

fn nobody_on_redis_confuses_introductions(setup: Setup) {
    let redis = Redis::start();
    let here = server(setup, &redis);
    here.wait_for_metric("parlor_redis_connected", 1);
    // What nobody of ours has written, where ours stand.
    redis.ask(&[
        "HSET",
        "parlor:peers",
        "odd",
        "no client",
        "elsewhere",
        "0badf00d-0000-4000-8000-000000000000",
    ]);
    redis.ask(&["SADD", "parlor:document:doc", "odd", "elsewhere", "without a client"]);
    redis.ask(&["HSET", "parlor:acquaintances", "odd", "99:odd", "a", "x:y"]);
    let mut a = open_with(&redis, &here, "a", &["doc"]);
    a.expect_nothing();
    for remote in ["odd", "a", "elsewhere"] {
        Socket::open(&here, &format!("/connection/{remote}"))
            .expect_close(Some((1003, "use ?local= and ?document=")));
    }
    redis.ask(&["SET", "parlor:peer:wrong", "no set"]);
    let mut wrong = open(&here, "wrong");
    join(&mut wrong, &["doc"]);
    a.expect(introduction("wrong", &["doc"]));
    wrong.expect(introduction("a", &["doc"]));

    let client = client_in_redis(&redis, "a");
    let mut neighbour = Neighbour::start(&redis, 0x00c0_ffee);
    neighbour.wait_for_host(client.host());
    let mut entropy = Entropy::from_seed([4; 32]);
    let theirs = ClientId::new(HostId(0x00c0_ffee), ShardIndex(0), Slot(0), &mut entropy);
    let nobody = ClientId::new(client.host(), client.shard(), Slot(77), &mut entropy);
    let documents = || Names::new([b"doc".as_slice()]);
    let introduce = |to, from, documents| Letter::Introduction { to, from, id: "m".into(), documents };
    let ignored = [
        introduce(client, client, documents()),
        introduce(nobody, theirs, documents()),
        introduce(client, theirs, Names::new([])),
        Letter::TakenOver { client, by: nobody },
        Letter::TakenOver { client: nobody, by: theirs },
    ];
    let count = ignored.len() as u64;
    for letter in ignored {
        neighbour.post(client.host(), client.shard(), parlor::cluster::Letter::Introductions(letter));
    }
    let letter = introduce(client, theirs, documents());
    neighbour.post(client.host(), client.shard(), parlor::cluster::Letter::Introductions(letter));
    a.expect(introduction("m", &["doc"]));
    here.wait_for_metric("parlor_letters_ignored_total", count);
    assert_eq!(here.metric("parlor_cluster_panics_total") + here.metric("parlor_panics_total"), 0);
    check_still_works(&here, &mut a);
}

fn check_still_works(server: &Server, a: &mut Socket) {
    let mut b = open(server, "b");
    join(&mut b, &["doc"]);
    a.expect(introduction("b", &["doc"]));
}
