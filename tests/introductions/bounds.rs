//! What section 0 says of introductions: paths, dialects, origin, size, rate, close and heartbeat.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use tungstenite::Message;

use super::{introduction, join, join_of, open_with};
use crate::support::pipes::{Socket, Watcher, answer_to, tcp_head};
use crate::support::{Server, Setup, TEXT, frame, get, on_each_setup, upgrade_head};

on_each_setup!(
    over_the_rate_reading_stops_and_nothing_is_lost,
    control_frames_count_for_no_rate,
    while_reading_stops_the_heartbeat_rests,
    each_path_leads_where_it_should,
    dialects_are_switched_off,
    origins_and_headers_are_checked_in_their_order,
    messages_have_a_largest_size,
    closes_are_answered_with_their_code,
);

// The rate: ten messages a second.

const TEN_A_SECOND: (&str, &str) = ("MAX_MSG_PER_SECOND", "2");

fn documents(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("d{number}")).collect()
}

/// 35 messages at once. What is no JSON counts as well.
fn send_flood(flooder: &mut Socket) {
    flooder.send_at_once(documents(35).iter().enumerate().map(|(number, document)| {
        Message::text(if is_bad(number) { "no JSON".to_owned() } else { join_of(&[document]) })
    }));
}

fn is_bad(number: usize) -> bool {
    number % 5 == 3
}

/// The introductions that come of the flood, to who has all documents or the flooder.
fn hear_flood(socket: &mut Socket, other: &str) {
    let mut keys = Vec::new();
    let all = documents(35);
    for document in all.iter().enumerate().filter(|(number, _)| !is_bad(*number)).map(|(_, name)| name) {
        keys.push(document.as_str());
        socket.expect(introduction(other, &keys));
    }
}

/// One who has all documents of the flood, and one who is about to join them.
fn listener_and_flooder(server: &Server) -> (Socket, Socket) {
    let all = documents(35);
    let listener = open_with(server, "listener", &all.iter().map(String::as_str).collect::<Vec<_>>());
    (listener, Socket::hold(server, "/introduction/flooder"))
}

fn over_the_rate_reading_stops_and_nothing_is_lost(setup: Setup) {
    let server = Server::start(setup, &[TEN_A_SECOND]);
    let (mut listener, mut flooder) = listener_and_flooder(&server);
    let start = Instant::now();
    send_flood(&mut flooder);
    hear_flood(&mut listener, "flooder");
    let took = start.elapsed();
    // The 31st begins the fourth window. Less than that would be a higher rate, much more a lower one.
    assert!(took > Duration::from_millis(2_950), "35 messages took {took:?}");
    assert!(took < Duration::from_secs(9), "35 messages took {took:?}");
    hear_flood(&mut flooder, "listener");
    flooder.expect_nothing();
    listener.expect_nothing();
}

#[test]
fn two_hundred_messages_a_second_pass() {
    let server = Server::start(Setup::IO_URING_1, &[]);
    let mut listener = open_with(&server, "listener", &["d"]);
    let mut flooder = Socket::hold(&server, "/introduction/flooder");
    let start = Instant::now();
    flooder.send_at_once((0..401).map(|_| Message::text(join_of(&["d"]))));
    for _ in 0..401 {
        listener.expect(introduction("flooder", &["d"]));
    }
    let took = start.elapsed();
    assert!(took > Duration::from_millis(1_950) && took < Duration::from_secs(8), "{took:?}");
}

fn control_frames_count_for_no_rate(setup: Setup) {
    let server = Server::start(setup, &[TEN_A_SECOND]);
    let mut socket = Socket::hold(&server, "/introduction/alice");
    let start = Instant::now();
    // They would take half a minute.
    let pings = |range: Range<u16>| range.map(|number| Message::Ping(number.to_be_bytes().to_vec().into()));
    let texts = (0..10).map(|_| Message::text(join_of(&["d"])));
    socket.send_at_once(pings(0..150).chain(texts).chain(pings(150..300)));
    socket.expect_nothing();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

fn while_reading_stops_the_heartbeat_rests(setup: Setup) {
    // Two heartbeats are less than a window.
    let server = Server::start(setup, &[TEN_A_SECOND, ("HEARTBEAT_MS", "400")]);
    let (mut listener, mut flooder) = listener_and_flooder(&server);
    // Both answer their pings all the time, but the flooder's answers stand behind what is not read.
    let listening = thread::spawn(move || {
        hear_flood(&mut listener, "flooder");
        listener.expect_nothing();
    });
    send_flood(&mut flooder);
    hear_flood(&mut flooder, "listener");
    flooder.expect_nothing();
    listening.join().expect("the listener hears all");
    assert_eq!(server.metric("parlor_heartbeats_missed_total"), 0);
}

// The rest of section 0.

fn each_path_leads_where_it_should(setup: Setup) {
    let server = Server::start(setup, &[]);
    for path in [
        "/introduction/a",
        "/introduction/a/",
        "/INTRODUCTION/a",
        "/Introduction/a/",
        "/introduction/a?",
        "/introduction/a?source=wallet&target=extension",
        "/introduction/a/?x=/b/c",
        "/%69ntroduction/a",
        "/introduction/introduction",
        "/introduction/%2F",
    ] {
        let mut listener = open_with(&server, "listener", &["d"]);
        let mut socket = Socket::open(&server, path);
        join(&mut socket, &["d"]);
        socket.expect(introduction("listener", &["d"]));
        socket.close(None);
        listener.drain();
        listener.close(None);
    }
    for (path, status) in [
        ("/introduction", 404),
        ("/introduction/", 404),
        ("/introduction//", 404),
        ("/introduction//a", 404),
        ("/introduction/a//", 404),
        ("/introduction/a/b", 404),
        ("/introduction/a/b/", 404),
        ("//introduction/a", 404),
        ("/introductions/a", 404),
        ("/introduction%2Fa", 404),
        ("/x/introduction/a", 404),
        ("/introduction/%", 400),
        ("/introduction/%6", 400),
        ("/introduction/%zz", 400),
        ("/introduction/%ff", 400),
        ("/introduction/%c3%28", 400),
        ("/introduction/%ed%a0%80", 400),
    ] {
        let answer = answer_to(&server, &upgrade_head(path, ""));
        assert_eq!(answer.status, status, "{path}");
        let names_them = answer.body.contains("/introduction/") && answer.body.contains("/connection/");
        assert!(status != 404 || names_them, "{path}: it names the paths: {}", answer.body);
    }
    // A plain request is none of all that, and raw bytes are for pipes.
    assert_eq!(get(server.address, "/introduction/a").status, 404);
    let status = answer_to(&server, &tcp_head("/introduction/a", "")).status;
    assert!((400..500).contains(&status), "no raw bytes here: {status}");
}

fn dialects_are_switched_off(setup: Setup) {
    let server = Server::start(setup, &[("PROTOCOLS", "pairing,rooms")]);
    for path in
        ["/introduction/a", "/connection/a/b/doc", "/connect/a/b/doc", "/connection/a?local=b&document=c"]
    {
        let answer = answer_to(&server, &upgrade_head(path, ""));
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.body.contains("/ws") && !answer.body.contains("/introduction"), "{}", answer.body);
        assert_eq!(answer_to(&server, &tcp_head(path, "")).status, 404, "{path}");
    }
    let server = Server::start(setup, &[("PROTOCOLS", "documents")]);
    assert_eq!(answer_to(&server, &upgrade_head("/ws", "")).status, 404);
    open_with(&server, "alice", &["d"]).close(None);
    Socket::hold(&server, "/connection/a/b/doc").close(None);
}

fn origins_and_headers_are_checked_in_their_order(setup: Setup) {
    let server = Server::start(setup, &[("ALLOWED_ORIGIN", "https://a.example")]);
    let refused = Some((1008, "Origin not allowed"));
    // No origin is none of the list. The dialect's own checks come last.
    for path in ["/introduction/a", "/connection/a/b/doc", "/connection/b", "/connect/b?local=a&document=d"] {
        Socket::open(&server, path).expect_close(refused);
    }
    let good = "Origin: https://a.example\r\n";
    for path in ["/introduction/a", "/connection/a/b/doc"] {
        assert_eq!(answer_to(&server, &upgrade_head(path, good)).status, 101, "{path}");
        let bad_version = upgrade_head(path, "").replace("Version: 13", "Version: 8");
        assert_eq!(answer_to(&server, &bad_version).status, 426, "{path}");
    }
    for path in ["/introduction/a/b", "/connection/a/b"] {
        let bad_version = upgrade_head(path, "").replace("Version: 13", "Version: 8");
        assert_eq!(answer_to(&server, &bad_version).status, 404, "{path}");
    }
}

fn messages_have_a_largest_size(setup: Setup) {
    const MAX: usize = 10_000;
    let server = Server::start(setup, &[("MAX_MESSAGE_BYTES", "10000")]);
    let mut listener = open_with(&server, "listener", &["d"]);
    let of_size = |len: usize| {
        let text = join_of(&["d"]);
        format!("{text}{}", " ".repeat(len - text.len()))
    };
    let mut socket = Socket::open(&server, "/introduction/a");
    socket.send(of_size(MAX));
    socket.expect(introduction("listener", &["d"]));
    listener.expect(introduction("a", &["d"]));
    let mut watcher = Watcher::open(&server, "/introduction/b");
    watcher.send(&frame(TEXT, of_size(MAX + 1).as_bytes()));
    watcher.expect_close(Some(1009));
    watcher.finish(Some(1009));
    listener.expect_nothing();
}

fn closes_are_answered_with_their_code(setup: Setup) {
    let server = Server::start(setup, &[]);
    for code in [None, Some(1000), Some(1001), Some(3000), Some(4999)] {
        Socket::open(&server, "/introduction/a").close(code);
        open_with(&server, "b", &["d"]).close(code);
    }
}
