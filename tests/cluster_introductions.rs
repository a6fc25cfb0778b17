//! Introductions over several hosts (protocols.md sections 5 and 6): two or three servers and one Redis.

mod support;

#[path = "cluster_introductions/faults.rs"]
mod faults;

use std::thread;

use support::pipes::Socket;
use support::redis::{Redis, Value};
use support::{Server, Setup, on_each_driver, wait_until};

on_each_driver!(
    both_are_told_in_the_order_of_the_sender,
    peers_of_all_hosts_are_introduced,
    names_and_ids_may_be_anything,
    a_document_that_is_left_is_not_in_common,
    each_message_counts_by_itself,
    a_socket_on_another_host_takes_the_id_over,
    two_that_join_at_once_are_introduced,
    a_short_url_takes_its_pair_from_any_host,
);

fn server(setup: Setup, redis: &Redis) -> Server {
    let environment = [("REDIS_URL", redis.url()), ("MAX_MSG_PER_SECOND", "1000000".into())];
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Server::start(setup, &environment)
}

/// So many servers that know each other; all but the first on the other setup.
fn servers<const N: usize>(setup: Setup, redis: &Redis) -> [Server; N] {
    let servers = std::array::from_fn(|index| server(if index == 0 { setup } else { Setup::EPOLL_4 }, redis));
    for server in &servers {
        server.wait_for_metric("parlor_hosts", N as u64 - 1);
    }
    wait_for_homes(redis, &servers);
    servers
}

/// Waits until the home of introductions of each host knows all others too: until then what it says may be repeated.
fn wait_for_homes(redis: &Redis, servers: &[Server]) {
    let ids: Vec<String> = (0..servers.len()).map(|index| format!("probe{index}")).collect();
    let mut probes: Vec<Socket> = servers.iter().zip(&ids).map(|(server, id)| open(server, id)).collect();
    for probe in &mut probes {
        join(probe, &["probe"]);
    }
    for (probe, me) in probes.iter_mut().zip(&ids) {
        let mut missing: Vec<String> =
            ids.iter().filter(|id| *id != me).map(|id| introduction(id, &["probe"])).collect();
        while !missing.is_empty() {
            let heard = probe.next("a probe").into_text().expect("text").to_string();
            missing.retain(|text| *text != heard);
        }
    }
    drop(probes);
    wait_for_members(redis, "probe", &[]);
}

fn introduction(id: &str, keys: &[&str]) -> String {
    format!(r#"{{"type":"Introduction","id":"{id}","keys":{keys:?}}}"#).replace("\", \"", "\",\"")
}

fn join(socket: &mut Socket, documents: &[&str]) {
    socket.send(format!(r#"{{"type":"Join","join":{documents:?}}}"#));
}

fn leave(socket: &mut Socket, documents: &[&str]) {
    socket.send(format!(r#"{{"type":"Leave","leave":{documents:?}}}"#));
}

fn open(server: &Server, id: &str) -> Socket {
    Socket::open(server, &format!("/introduction/{id}"))
}

/// What the peers are that Redis knows to have this document.
fn members(redis: &Redis, document: &str) -> Vec<String> {
    let Value::List(items) = redis.ask(&["SMEMBERS", &format!("parlor:document:{document}")]) else {
        panic!("a set")
    };
    let text = |item: &Value| match item {
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("{other:?}"),
    };
    let mut members: Vec<String> = items.iter().map(text).collect();
    members.sort();
    members
}

fn wait_for_members(redis: &Redis, document: &str, expected: &[&str]) {
    wait_until(&format!("{expected:?} with {document}"), || members(redis, document) == expected);
}

/// A peer with these documents, of which the other hosts can know.
fn open_with(redis: &Redis, server: &Server, id: &str, documents: &[&str]) -> Socket {
    let mut socket = open(server, id);
    join(&mut socket, documents);
    let last = documents.last().expect("there is one");
    wait_until("its documents in Redis", || members(redis, last).iter().any(|member| member == id));
    socket
}

/// Whatever was on its way from this host's peers to `socket` has come: a peer of that host meets it now.
fn expect_nothing_from(host: &Server, socket: &mut Socket, document: &str, others: &mut [&mut Socket]) {
    let mut marker = open(host, "marker");
    join(&mut marker, &[document]);
    for other in others {
        other.expect(introduction("marker", &[document]));
    }
    socket.expect(introduction("marker", &[document]));
}

fn both_are_told_in_the_order_of_the_sender(setup: Setup) {
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    let mut a = open_with(&redis, &here, "a", &["1", "2", "3", "4"]);
    let mut b = open(&there, "b");
    join(&mut b, &["4", "x", "2", "4", "1"]);
    a.expect(introduction("b", &["4", "2", "1"]));
    b.expect(introduction("a", &["4", "2", "1"]));
    for _ in 0..2 {
        join(&mut a, &["2"]);
        a.expect(introduction("b", &["1", "2", "4"]));
        b.expect(introduction("a", &["1", "2", "4"]));
    }
    // Who has nothing in common hears nothing, and neither does anybody by an empty list.
    join(&mut b, &["y"]);
    a.expect(introduction("b", &["4", "2", "1"]));
    b.expect(introduction("a", &["4", "2", "1"]));
    a.send(r#"{"type":"Join","join":[]}"#);
    let mut c = open(&there, "c");
    join(&mut c, &["z"]);
    a.expect_nothing();
    expect_nothing_from(&here, &mut b, "y", &mut []);
    c.expect_nothing();
}

fn peers_of_all_hosts_are_introduced(setup: Setup) {
    let redis = Redis::start();
    let servers: [Server; 3] = servers(setup, &redis);
    let mut peers: Vec<(String, Socket)> = Vec::new();
    for index in 0..9 {
        let id = format!("p{index}");
        let mut socket = open(&servers[index % 3], &id);
        join(&mut socket, &["doc"]);
        // All others hear of the newcomer, and it of each of them.
        let mut heard: Vec<String> = peers
            .iter()
            .map(|_| socket.next("an introduction").into_text().expect("text").to_string())
            .collect();
        let mut expected: Vec<String> = peers.iter().map(|(id, _)| introduction(id, &["doc"])).collect();
        heard.sort();
        expected.sort();
        assert_eq!(heard, expected);
        for (_, other) in &mut peers {
            other.expect(introduction(&id, &["doc"]));
        }
        peers.push((id, socket));
    }
    for (_, socket) in &mut peers {
        socket.expect_nothing();
    }
}

fn names_and_ids_may_be_anything(setup: Setup) {
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    // An id with a colon, a quote and a line break; documents that are empty, escaped, or no UTF-8 at all.
    let mut a = Socket::open(&here, "/introduction/a:%22%0a%C3%A9");
    a.send(r#"{"join":["","\u0000\"\\","é😀","\ud800","12:x"]}"#);
    wait_until("its documents", || members(&redis, "12:x").len() == 1);
    let mut b = open(&there, "b");
    b.send(r#"{"join":["12:x","\u00e9\ud83d\ude00","\u0000\u0022\u005c","\ud800",""]}"#);
    let keys = r#"["12:x","é😀","\u0000\"\\","\ud800",""]"#;
    a.expect(format!(r#"{{"type":"Introduction","id":"b","keys":{keys}}}"#));
    b.expect(format!(r#"{{"type":"Introduction","id":"a:\"\né","keys":{keys}}}"#));
    // A frame of this size takes several reads, and one letter.
    let long = "x".repeat(900_000);
    join(&mut b, &[&long]);
    b.expect(format!(r#"{{"type":"Introduction","id":"a:\"\né","keys":{keys}}}"#));
    a.expect(format!(r#"{{"type":"Introduction","id":"b","keys":{keys}}}"#));
    join(&mut a, &[&long]);
    let keys = format!(r#"["","\u0000\"\\","é😀","\ud800","12:x","{long}"]"#);
    a.expect(format!(r#"{{"type":"Introduction","id":"b","keys":{keys}}}"#));
    b.expect(format!(r#"{{"type":"Introduction","id":"a:\"\né","keys":{keys}}}"#));
}

fn a_document_that_is_left_is_not_in_common(setup: Setup) {
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    let mut a = open_with(&redis, &here, "a", &["1", "2", "3"]);
    leave(&mut a, &["2", "unknown"]);
    wait_for_members(&redis, "2", &[]);
    let mut b = open(&there, "b");
    join(&mut b, &["3", "2"]);
    a.expect(introduction("b", &["3"]));
    b.expect(introduction("a", &["3"]));
    // First what is added, then what is taken away, and the introductions by what is left.
    a.send(r#"{"join":["2","4"],"leave":["3"]}"#);
    a.expect(introduction("b", &["2"]));
    b.expect(introduction("a", &["2"]));
    leave(&mut a, &["1", "2"]);
    wait_for_members(&redis, "2", &["b"]);
    join(&mut b, &["1", "2", "3"]);
    b.expect_nothing();
    expect_nothing_from(&there, &mut a, "4", &mut []);
    // Who closes takes all with it.
    a.close(Some(1000));
    wait_for_members(&redis, "4", &[]);
    b.close(None);
    wait_until("nothing in Redis", || {
        redis.ask(&["KEYS", "parlor:*"]) == Value::List(vec![Value::Bytes(b"parlor:hosts".to_vec())])
    });
}

/// A document that is had for the time of one message alone still introduces.
fn each_message_counts_by_itself(setup: Setup) {
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    let mut b = open_with(&redis, &there, "b", &["1", "2"]);
    let mut a = open(&here, "a");
    let texts = (0..200).flat_map(|_| {
        [r#"{"join":["1"]}"#, r#"{"join":["2"],"leave":[]}"#, r#"{"leave":["1","2"]}"#].map(Into::into)
    });
    a.send_at_once(texts);
    for _ in 0..200 {
        for keys in [&["1"][..], &["1", "2"]] {
            a.expect(introduction("b", keys));
            b.expect(introduction("a", keys));
        }
    }
    for socket in [&mut a, &mut b] {
        socket.expect_nothing();
    }
    wait_for_members(&redis, "1", &["b"]);
}

fn a_socket_on_another_host_takes_the_id_over(setup: Setup) {
    let redis = Redis::start();
    let [here, there, third] = servers(setup, &redis);
    let mut old = open_with(&redis, &here, "x", &["3", "1", "2"]);
    let mut y = open(&there, "y");
    join(&mut y, &["2", "1", "9"]);
    old.expect(introduction("y", &["2", "1"]));
    y.expect(introduction("x", &["2", "1"]));
    // What it says at once counts behind what it has taken over.
    let mut new = open(&there, "x");
    join(&mut new, &["9"]);
    new.expect(introduction("y", &["1", "2", "9"]));
    y.expect(introduction("x", &["1", "2", "9"]));
    // The old one stays open, hears nothing more, and what it says has no effect.
    let mut z = open(&third, "z");
    join(&mut z, &["3"]);
    new.expect(introduction("z", &["3"]));
    z.expect(introduction("x", &["3"]));
    join(&mut old, &["2", "4"]);
    leave(&mut old, &["3"]);
    old.expect_nothing();
    // It takes nothing with it when it closes, and says goodbye like anybody.
    old.close(Some(1000));
    join(&mut z, &["3", "4"]);
    new.expect(introduction("z", &["3"]));
    z.expect(introduction("x", &["3"]));
    y.expect_nothing();
    // And back again, to a third host, and to a second socket there.
    let mut newer = open(&third, "x");
    join(&mut newer, &["5"]);
    let heard: Vec<String> =
        (0..2).map(|_| newer.next("two introductions").into_text().expect("text").to_string()).collect();
    assert!(heard.contains(&introduction("z", &["3"])), "{heard:?}");
    assert!(heard.contains(&introduction("y", &["1", "2", "9"])), "{heard:?}");
    y.expect(introduction("x", &["1", "2", "9"]));
    z.expect(introduction("x", &["3"]));
    let mut newest = open(&third, "x");
    leave(&mut newest, &["1", "2", "3"]);
    join(&mut newest, &["5"]);
    newest.expect(introduction("y", &["9"]));
    y.expect(introduction("x", &["9"]));
    newest.close(None);
    wait_for_members(&redis, "9", &["y"]);
    for socket in [&mut new, &mut newer, &mut z] {
        socket.expect_nothing();
    }
}

fn two_that_join_at_once_are_introduced(setup: Setup) {
    const ROUNDS: usize = 200;
    let redis = Redis::start();
    let [here, there] = servers(setup, &redis);
    thread::scope(|scope| {
        for (server, id, other) in [(&here, "a", "b"), (&there, "b", "a")] {
            scope.spawn(move || {
                let mut socket = open(server, id);
                for round in 0..ROUNDS {
                    let document = round.to_string();
                    socket.send(format!(
                        r#"{{"leave":{:?},"join":["{document}"]}}"#,
                        [(round + ROUNDS - 1) % ROUNDS].map(|before| before.to_string())
                    ));
                    // Twice, if each was introduced to the other by its own message.
                    loop {
                        let text = socket.next("an introduction").into_text().expect("text").to_string();
                        if text == introduction(other, &[&document]) {
                            break;
                        }
                        assert!(
                            text.starts_with(&format!(r#"{{"type":"Introduction","id":"{other}","keys":["#)),
                            "{text}"
                        );
                    }
                }
            });
        }
    });
}

fn a_short_url_takes_its_pair_from_any_host(setup: Setup) {
    const NONE: Option<(u16, &str)> = Some((1003, "use ?local= and ?document="));
    let redis = Redis::start();
    let [here, there, third] = servers(setup, &redis);
    let refused = |server: &Server, path: &str| Socket::open(server, path).expect_close(NONE);
    let mut a = open_with(&redis, &here, "a", &["doc:é"]);
    refused(&here, "/connection/a");
    let mut b = open(&there, "b");
    join(&mut b, &["doc:é"]);
    b.expect(introduction("a", &["doc:é"]));
    // As soon as either knows of it: asked at each host, joined with a long one there.
    for (server, remote, local) in
        [(&here, "b", "a"), (&there, "a", "b"), (&third, "a", "b"), (&third, "b", "a")]
    {
        let mut short = Socket::hold(server, &format!("/connection/{remote}"));
        let mut long = Socket::open(server, &format!("/connect/{remote}/{local}/doc:%C3%A9"));
        short.send("over the short one");
        long.expect("over the short one");
        long.send("back");
        short.expect("back");
    }
    a.expect(introduction("b", &["doc:é"]));
    // With somebody else: not any more, and for those two not either.
    let mut c = open(&third, "c");
    join(&mut c, &["doc:é"]);
    for socket in [&mut a, &mut b] {
        socket.expect(introduction("c", &["doc:é"]));
    }
    for server in [&here, &there, &third] {
        for remote in ["a", "b", "c", "nobody"] {
            refused(server, &format!("/connection/{remote}"));
        }
    }
    // Over two documents.
    let _d = open_with(&redis, &here, "d", &["1", "2"]);
    let mut e = open(&there, "e");
    join(&mut e, &["1", "2"]);
    e.expect(introduction("d", &["1", "2"]));
    refused(&third, "/connection/d");
    // One is gone; and back, which counts as anew.
    let _f = open_with(&redis, &here, "f", &["3"]);
    let mut g = open(&there, "g");
    join(&mut g, &["3"]);
    g.expect(introduction("f", &["3"]));
    g.close(None);
    wait_for_members(&redis, "3", &["f"]);
    refused(&here, "/connection/f");
    let mut g = open(&third, "g");
    refused(&here, "/connection/f");
    join(&mut g, &["3"]);
    g.expect(introduction("f", &["3"]));
    let mut short = Socket::hold(&here, "/connection/g");
    let mut long = Socket::open(&here, "/connection/g/f/3");
    short.send("found");
    long.expect("found");
}
