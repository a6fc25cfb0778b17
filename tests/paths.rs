//! Which dialect a client speaks: protocols.md section 0, the lines which dialect, `/`, order of checks, text and binary
//! (subprotocols), close, shutdown and origin, for rendezvous, directory and rooms. Health and metrics: `http`.

mod support;

#[path = "paths/choice.rs"]
mod choice;
#[path = "paths/http.rs"]
mod http;

use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::dialects::Peer;
use support::{
    CLOSE, End, Frame, PING, PONG, Raw, Server, Setup, TEXT, WAIT, close_frame, frame, get, on_each_driver,
    on_each_setup, upgrade_head,
};

const NOT_LOGGED_IN: &str = r#"{"type":"error","error":"not_logged_in"}"#;
const ROOM_NOT_FOUND: &str = r#"{"type":"error","message":"Room not found"}"#;
const CREATE: &str = r#"{"type":"create"}"#;
const PING_TEXT: &str = r#"{"type":"ping"}"#;
const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

on_each_setup!(
    each_path_leads_where_it_should,
    protocols_switches_dialects_off,
    an_upgrade_comes_in_any_pieces_and_after_requests,
    a_signal_closes_the_clients_of_all_dialects,
);
on_each_driver!(
    each_bad_upgrade_is_refused,
    subprotocols_are_echoed,
    origins_come_before_the_dialects_own_checks,
    closes_are_answered_with_their_code,
    who_says_nothing_stays,
);

fn wallet() -> String {
    format!("/{KEY}?source=wallet&target=extension")
}

fn login(name: &str) -> String {
    format!(r#"{{"type":"login","name":"{name}"}}"#)
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    Pairing,
    Rendezvous,
    /// Rendezvous with a path that is no connection id.
    WrongUrl,
    /// Directory or rooms.
    Lobby,
    /// Introductions and pipes.
    Documents,
    NotFound,
}
use Where::{Documents, Lobby, NotFound, Pairing, Rendezvous, WrongUrl};

/// What stands behind the host, where `<key>` stands for 64 hex digits.
const PATHS: &[(&str, Where)] = &[
    ("/", Lobby),
    ("/?", Lobby),
    ("/?a=b", Lobby),
    ("/?source=wallet&target=extension", Lobby),
    ("/?target=wallet", Lobby),
    ("/<key>?source=wallet&target=extension", Rendezvous),
    ("/<key>?target=wallet&source=extension", Rendezvous),
    ("/<KEY>?source=wallet&target=extension", Rendezvous),
    ("/<63>?source=wallet&target=extension", WrongUrl),
    ("/<key>0?source=wallet&target=extension", WrongUrl),
    ("/%30<63>?source=wallet&target=extension", WrongUrl),
    ("/<63>g?source=wallet&target=extension", WrongUrl),
    ("/x?source=", WrongUrl),
    ("/x?target=", WrongUrl),
    ("/x?a=b&target=c&d", WrongUrl),
    ("/x/y/z?source=wallet", WrongUrl),
    ("/wss?source=wallet", WrongUrl),
    ("/healthz?source=wallet", WrongUrl),
    ("/metrics?target=wallet", WrongUrl),
    ("/<63>", NotFound),
    ("/<key>0", NotFound),
    ("/%30<63>", NotFound),
    ("/<63>g", NotFound),
    ("/<key>/", NotFound),
    ("/<key>/<key>", NotFound),
    ("//", NotFound),
    ("/x", NotFound),
    ("/x?", NotFound),
    ("/x?a=source", NotFound),
    ("/x?sources=wallet&targets=extension", NotFound),
    ("/x?xsource=wallet", NotFound),
    ("/x?Source=wallet&TARGET=extension", NotFound),
    ("/source=wallet", NotFound),
    // Named paths win over a query, also with a wrong number of segments.
    ("/ws/x?source=wallet", NotFound),
    ("/ws//?source=wallet", NotFound),
    ("/introduction/x/y?source=wallet&target=extension", NotFound),
    ("/connection/x/y?target=wallet", NotFound),
    ("/ws?source=wallet&target=extension", Pairing),
    ("/WS/?target=extension", Pairing),
    ("/%77%73?source=wallet", Pairing),
    ("/introduction/x?source=wallet&target=extension", Documents),
    ("/Introduction/x/?target=wallet", Documents),
    ("/connection/x/y/z?source=wallet&target=extension", Documents),
    ("/CONNECT/p/q/r?target=wallet", Documents),
];

fn each_path_leads_where_it_should(setup: Setup) {
    let server = Server::start(setup, &[]);
    for (path, place) in PATHS {
        let path = path.replace("<key>", KEY).replace("<KEY>", &KEY.to_uppercase());
        let path = path.replace("<63>", &KEY[..63]);
        assert_eq!(where_is(&server, &path), *place, "{path}");
    }
}

/// Opens a WebSocket on `path`, and finds out by what it says and answers which dialect is spoken there.
fn where_is(server: &Server, path: &str) -> Where {
    let mut raw = Raw::connect(server.address);
    raw.send(upgrade_head(path, "").as_bytes());
    let answer = raw.response();
    if answer.status == 404 {
        assert_eq!(answer.body.trim_end_matches('\n').lines().count(), 1, "{path}: {}", answer.body);
        return NotFound;
    }
    assert_eq!(answer.status, 101, "{path}");
    raw.send(&[frame(TEXT, PING_TEXT.as_bytes()), frame(PING, b"mark")].concat());
    let mut first = raw.frame();
    // The one before may still be there.
    while first.payload.starts_with(br#"{"info":"remoteClient"#) {
        first = raw.frame();
    }
    let text = String::from_utf8_lossy(&first.payload).into_owned();
    let place = match first.first {
        PONG => return silent(raw),
        CLOSE => {
            assert_eq!(first.close_code(), Some(1003), "{path}");
            assert_eq!(&first.payload[2..], b"missing connectionId in path", "{path}");
            return WrongUrl;
        }
        _ if text.starts_with(r#"{"type":"ready","clientId":""#) => {
            raw.expect(r#"{"type":"pong"}"#);
            Pairing
        }
        _ if text.starts_with(r#"{"info":"validationError","#) => Rendezvous,
        _ if text == NOT_LOGGED_IN => Lobby,
        _ => panic!("nobody says this on {path}: {text}"),
    };
    while raw.frame() != (Frame { first: PONG, payload: b"mark".to_vec() }) {}
    place
}

/// Where nobody says that somebody is not logged in: rooms without the directory, or documents.
fn silent(mut raw: Raw) -> Where {
    raw.send(&[frame(TEXT, CREATE.as_bytes()), frame(PING, b"mark")].concat());
    if raw.frame().first == PONG { Documents } else { Lobby }
}

/// The dialects by the words of `PROTOCOLS`, and a path of each.
fn dialects() -> [(&'static str, String, Where); 5] {
    [
        ("pairing", "/ws".into(), Pairing),
        ("rendezvous", wallet(), Rendezvous),
        ("directory", "/".into(), Lobby),
        ("rooms", "/".into(), Lobby),
        ("documents", "/introduction/x".into(), Documents),
    ]
}

fn protocols_switches_dialects_off(setup: Setup) {
    for protocols in [
        "pairing",
        "rendezvous",
        "documents",
        "directory",
        "rooms",
        "documents,pairing",
        "pairing,rooms",
        "directory,rooms",
        "rendezvous,directory,documents",
        "pairing,rooms,rendezvous,directory",
        "documents,rooms,directory,rendezvous,pairing",
    ] {
        let server = Server::start(setup, &[("PROTOCOLS", protocols)]);
        let on: Vec<&str> = protocols.split(',').collect();
        let has_lobby = on.contains(&"directory") || on.contains(&"rooms");
        for (word, path, place) in dialects() {
            let is_on = if place == Lobby { has_lobby } else { on.contains(&word) };
            let expected = if is_on { place } else { NotFound };
            assert_eq!(where_is(&server, &path), expected, "{word} with PROTOCOLS={protocols}");
        }
        // The path is not there, whatever its query.
        let by_query = if on.contains(&"rendezvous") { WrongUrl } else { NotFound };
        assert_eq!(where_is(&server, "/x?source=wallet"), by_query, "with PROTOCOLS={protocols}");
        if !on.contains(&"pairing") {
            assert_eq!(where_is(&server, "/ws/?source=wallet&target=extension"), NotFound);
        }
        // What is not there is not named.
        let mut raw = Raw::connect(server.address);
        raw.send(upgrade_head("/x", "").as_bytes());
        let answer = raw.response();
        assert_eq!(answer.body.contains("/ws"), on.contains(&"pairing"), "{protocols}: {}", answer.body);
        let page = get(server.address, "/");
        assert_eq!(page.status, 200, "the page stays");
        assert_eq!(page.body.contains("/ws"), on.contains(&"pairing"), "{protocols}: {}", page.body);
        assert_eq!(page.body.contains("/introduction"), on.contains(&"documents"), "{}", page.body);
        assert_eq!(get(server.address, "/healthz").status, 200);
    }
}

// The handshake.

fn an_upgrade_comes_in_any_pieces_and_after_requests(setup: Setup) {
    let server = Server::start(setup, &[]);
    let join = r#"{"type":"join","roomId":"0000"}"#;
    let nobody = r#"{"requestId":"r","method":"offer","encryptedPayload":"p","targetClientId":"t"}"#;
    let missing = r#"{"info":"missingRemoteClientError","requestId":"r"}"#;
    for number in 0..8 {
        let wallet = format!("/{number:064x}?source=wallet&target=extension");
        for (path, word, answer) in
            [("/", PING_TEXT, NOT_LOGGED_IN), ("/", join, ROOM_NOT_FOUND), (&*wallet, nobody, missing)]
        {
            let request = b"GET /readyz HTTP/1.1\r\n\r\n".repeat(number % 3);
            let words = frame(TEXT, word.as_bytes()).repeat(3);
            let bytes = [&request, upgrade_head(path, "").as_bytes(), &words].concat();
            let mut raw = Raw::connect(server.address);
            for piece in bytes.chunks([bytes.len(), 1, 7, 180][number % 4]) {
                raw.send(piece);
            }
            for _ in 0..number % 3 {
                assert_eq!(raw.response().status, 200);
            }
            assert_eq!(raw.response().status, 101);
            (0..3).for_each(|_| raw.expect(answer));
        }
    }
}

fn each_bad_upgrade_is_refused(setup: Setup) {
    let server = Server::start(setup, &[("ALLOWED_ORIGIN", "https://a.example")]);
    let wrong = "/x?source=wallet".to_owned();
    for path in ["/".to_owned(), wallet(), wrong] {
        let good = upgrade_head(&path, "");
        for (head, status) in [
            (good.replace("Version: 13", "Version: 8"), 426),
            (good.replace("Connection: Upgrade", "Connection: close"), 400),
            (good.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400),
        ] {
            let mut raw = Raw::connect(server.address);
            raw.send(head.as_bytes());
            assert_eq!(raw.response().status, status, "{head}");
            assert_eq!(raw.end(), (Vec::new(), End::Fin));
        }
    }
    for path in ["/x".to_owned(), format!("/{}", &KEY[..63])] {
        let mut raw = Raw::connect(server.address);
        raw.send(upgrade_head(&path, "").replace("Version: 13", "Version: 8").as_bytes());
        assert_eq!(raw.response().status, 404, "the path comes first");
    }
    // Without an upgrade there is nothing on these paths.
    for path in [wallet(), format!("/{KEY}"), "/x?source=wallet".to_owned()] {
        let answer = get(server.address, &path);
        assert_eq!((answer.status, answer.body.as_str()), (404, r#"{"error":"Not found"}"#), "{path}");
    }
}

fn subprotocols_are_echoed(setup: Setup) {
    let server = Server::start(setup, &[]);
    for path in ["/".to_owned(), wallet(), "/x?source=wallet".to_owned()] {
        for (more, protocol) in [
            ("", None),
            ("Sec-WebSocket-Protocol: chat, superchat\r\n", Some("chat")),
            ("Sec-WebSocket-Protocol: x.y\r\nSec-WebSocket-Extensions: permessage-deflate\r\n", Some("x.y")),
        ] {
            let mut raw = Raw::connect(server.address);
            raw.send(upgrade_head(&path, more).as_bytes());
            let answer = raw.response();
            assert_eq!(answer.status, 101, "{path}");
            assert_eq!(answer.header("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
            assert_eq!(answer.header("Sec-WebSocket-Protocol"), protocol, "{path}");
            assert_eq!(answer.header("Sec-WebSocket-Extensions"), None, "no extension is accepted");
        }
    }
}

fn origins_come_before_the_dialects_own_checks(setup: Setup) {
    let listed = ("ALLOWED_ORIGIN", "https://a.example,https://b.example");
    let strict = Server::start(setup, &[listed]);
    let native = Server::start(setup, &[listed, ("ALLOW_NO_ORIGIN", "true")]);
    let (good, bad) = ("Origin: https://b.example\r\n", "Origin: https://c.example\r\n");
    for (number, (server, headers, is_allowed)) in [
        (&strict, good, true),
        (&strict, bad, false),
        (&strict, "", false),
        (&native, good, true),
        (&native, bad, false),
        (&native, "", true),
    ]
    .into_iter()
    .enumerate()
    {
        // Those who are there hear nothing of who is refused.
        let mut watcher = Raw::connect(server.address);
        let key = format!("{number:064x}");
        let wallet = format!("/{key}?source=wallet&target=extension");
        let extension = format!("/{key}?source=extension&target=wallet");
        watcher.send(upgrade_head(&extension, good).as_bytes());
        assert_eq!(watcher.response().status, 101);
        for (path, word) in [
            ("/".to_owned(), login("refused")),
            ("/".to_owned(), CREATE.to_owned()),
            (wallet, "{}".to_owned()),
            (format!("/{KEY}"), "{}".to_owned()),
            ("/x?source=wallet".to_owned(), "{}".to_owned()),
        ] {
            let mut raw = Raw::connect(server.address);
            raw.send(&[upgrade_head(&path, headers).as_bytes(), &frame(TEXT, word.as_bytes())].concat());
            assert_eq!(raw.response().status, 101, "the handshake succeeds: {path}");
            let first = raw.frame();
            if is_allowed {
                let refusal = Some(1008);
                assert!(first.first != CLOSE || first.close_code() != refusal, "{path} with {headers}");
                continue;
            }
            assert_eq!(first.close_code(), Some(1008), "{path} with {headers}");
            assert_eq!(&first.payload[2..], b"Origin not allowed");
            raw.send(&frame(TEXT, word.as_bytes()));
            raw.finish(1008);
        }
        watcher.send(&frame(PING, b"mark"));
        let first = watcher.frame();
        assert_eq!(first.first, if is_allowed { TEXT } else { PONG }, "{first:?}");
    }
    // A path that is not there comes before that.
    let mut raw = Raw::connect(strict.address);
    raw.send(upgrade_head("/x", bad).as_bytes());
    assert_eq!(raw.response().status, 404);
}

// The end.

/// A client of each dialect and state, by the path and what it says first.
fn states() -> Vec<(String, String)> {
    vec![
        ("/".to_owned(), String::new()),
        ("/".to_owned(), PING_TEXT.to_owned()),
        ("/".to_owned(), login("someone")),
        ("/".to_owned(), CREATE.to_owned()),
        ("/".to_owned(), r#"{"type":"signal"}"#.to_owned()),
        (wallet(), String::new()),
        (wallet(), "{}".to_owned()),
    ]
}

fn closes_are_answered_with_their_code(setup: Setup) {
    let server = Server::start(setup, &[]);
    for (path, word) in states() {
        for code in [None, Some(1000), Some(1001), Some(1011), Some(3000), Some(4000), Some(4999)] {
            let close = code.map_or_else(|| frame(CLOSE, b""), |code| close_frame(code, b"bye"));
            let mut raw = Raw::open(&server, &path);
            raw.send(&[frame(TEXT, word.as_bytes()), close, frame(TEXT, PING_TEXT.as_bytes())].concat());
            let mut last = raw.frame();
            if last.first == TEXT {
                last = raw.frame();
            }
            assert_eq!(last.close_code(), code, "{path} {word}");
            assert_eq!(raw.end().0, b"", "nothing comes behind the answer");
        }
    }
    server.wait_for_metric("parlor_clients", 0);
}

fn a_signal_closes_the_clients_of_all_dialects(setup: Setup) {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(setup, &[]);
        let mut peers: Vec<Peer> = Vec::new();
        for (path, word) in states() {
            let mut peer = Peer::open(&server, &path);
            if !word.is_empty() {
                peer.send(&word);
            }
            drop(peer.drain());
            peers.push(peer);
        }
        peers.push(Peer::open(&server, &format!("/{KEY}?source=extension&target=wallet")));
        let start = Instant::now();
        server.signal(signal);
        let closing = peers.into_iter().map(|mut peer| {
            std::thread::spawn(move || {
                // What it hears of the others may come before its own close.
                let before = peer.next_until_close(1001, "Server shutting down");
                let is_notice = |text: &String| text.starts_with(r#"{"info":"remoteClient"#);
                assert!(before.iter().all(is_notice), "{before:?}");
            })
        });
        for closed in closing.collect::<Vec<_>>() {
            closed.join().expect("the client is closed as it should be");
        }
        assert_eq!(server.wait_for_exit().code(), Some(0), "{}", server.log());
        assert!(start.elapsed() < WAIT / 2, "all have answered: nothing is waited for");
    }
}

/// Whatever may cut a request that is slow does not hold for a WebSocket that is open.
fn who_says_nothing_stays(setup: Setup) {
    let server = Server::start(setup, &[("HEAD_DEADLINE_MS", "200")]);
    let mut lobby = Peer::open(&server, "/");
    let mut rendezvous = Peer::open(&server, &wallet());
    std::thread::sleep(Duration::from_millis(1_000));
    lobby.ask(PING_TEXT, NOT_LOGGED_IN);
    rendezvous.expect_nothing();
    // Its heartbeat decides: it is cut without a close.
    let server = Server::start(setup, &[("HEARTBEAT_MS", "150")]);
    for path in ["/".to_owned(), wallet()] {
        let start = Instant::now();
        let (came, _) = Raw::open(&server, &path).end();
        assert!(came.iter().all(|&byte| byte == PING || byte == 0), "pings, but no close: {came:?}");
        assert!(start.elapsed() >= Duration::from_millis(300), "cut after {:?}", start.elapsed());
    }
}
