//! Request heads from outside: protocols.md section 0, which dialect (for `/ws`), order of checks, subprotocols,
//! extensions, origin, and HTTP on the same port; bad heads and slow ones harm nobody.

mod support;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::{
    CLOSE, Client, End, Frame, PONG_TEXT, Raw, Response, Server, Setup, TEXT, WAIT, frame, get,
    on_each_driver, pair, upgrade_head,
};

/// Longest head, in bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;

const PING_TEXT: &[u8] = br#"{"type":"ping"}"#;

on_each_driver!(
    a_good_upgrade_is_accepted,
    each_bad_upgrade_is_refused,
    each_path_leads_where_it_should,
    heads_are_capped,
    a_megabyte_of_head_is_refused,
    half_a_head_and_silence_is_cut_at_the_deadline,
    bytes_come_in_any_pieces,
    frames_may_follow_the_head_at_once,
    plain_requests_are_answered,
    connections_are_kept_alive,
    origins_are_checked,
);

fn a_good_upgrade_is_accepted(setup: Setup) {
    let server = Server::start(setup, &[]);
    for (more, protocol) in [
        ("", None),
        ("Sec-WebSocket-Protocol: chat\r\n", Some("chat")),
        ("Sec-WebSocket-Protocol: chat, superchat\r\n", Some("chat")),
        ("sec-websocket-protocol:  v1.parlor ,chat\r\n", Some("v1.parlor")),
        ("Sec-WebSocket-Protocol: one\r\nSec-WebSocket-Protocol: two\r\n", Some("one")),
        ("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n", None),
        ("Origin: https://any.example\r\nCookie: a=b\r\nX-Forwarded-For: 192.0.2.1\r\n", None),
        ("Content-Length: 0\r\n", None),
    ] {
        let mut raw = Raw::connect(server.address);
        raw.send(upgrade_head("/ws", more).as_bytes());
        let answer = raw.response();
        assert_eq!(answer.status, 101, "{more}");
        assert!(answer.head.starts_with("HTTP/1.1 101 "), "{}", answer.head);
        assert!(answer.header("Upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")));
        assert!(answer.header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")));
        assert_eq!(answer.header("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(answer.header("Sec-WebSocket-Protocol"), protocol, "{more}");
        assert_eq!(answer.header("Sec-WebSocket-Extensions"), None, "no extension is accepted");
        assert!(raw.frame().payload.starts_with(br#"{"type":"ready","clientId":""#), "ready is first");
    }
    // Names and tokens ignore case, and stand among others.
    for (from, to) in [
        ("Upgrade: websocket", "UPGRADE: WebSocket"),
        ("Connection: Upgrade", "connection: keep-alive, upgrade"),
        ("Connection: Upgrade", "Connection: keep-alive\r\nConnection: UPGRADE"),
        ("Upgrade: websocket", "Upgrade: h2c, websocket"),
    ] {
        assert_eq!(refused_or_open(&server, &upgrade_head("/ws", "").replace(from, to)).status, 101, "{to}");
    }
}

/// The answer to a head.
fn refused_or_open(server: &Server, head: &str) -> Response {
    let mut raw = Raw::connect(server.address);
    raw.send(head.as_bytes());
    raw.response()
}

fn each_bad_upgrade_is_refused(setup: Setup) {
    let server = Server::start(setup, &[("MAX_MSG_PER_SECOND", "1000")]);
    let (mut one, mut other) = pair(&server);
    let good = upgrade_head("/ws", "");
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let replaced = |from: &str, to: &str| {
        let head = good.replace(from, to);
        assert_ne!(head, good, "{from}");
        head
    };
    let cases: Vec<(String, &[u16])> = vec![
        (replaced("Version: 13", "Version: 8"), &[426]),
        (replaced("Version: 13", "Version: 14"), &[426]),
        (replaced("Version: 13", "Version: 013"), &[426]),
        (replaced("Sec-WebSocket-Version: 13\r\n", ""), &[426]),
        (replaced("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version:"), &[426]),
        (replaced("Connection: Upgrade", "Connection: keep-alive"), &[400]),
        (replaced("Connection: Upgrade\r\n", ""), &[400]),
        (replaced(key, ""), &[400]),
        (replaced(key, "c2hvcnQ="), &[400]),
        (replaced(key, "no base64!"), &[400]),
        (replaced(key, "dGhlIHNhbXBsZSBub25jZSBsb25nZXI="), &[400]),
        (replaced(&format!("Sec-WebSocket-Key: {key}\r\n"), ""), &[400]),
        (replaced("Sec-WebSocket-Key", "X-Key"), &[400]),
        (upgrade_head("/ws", &format!("Sec-WebSocket-Key: {key}\r\n")), &[400]),
        (replaced("GET ", "POST "), &[405, 400]),
        (replaced("GET ", "HEAD "), &[405, 400]),
        (replaced("HTTP/1.1", "HTTP/1.0"), &[400]),
        (upgrade_head("/ws", "Content-Length: 5\r\n"), &[400]),
        (upgrade_head("/ws", "Transfer-Encoding: chunked\r\n"), &[400]),
        // The path comes before the headers.
        (upgrade_head("/nowhere", "").replace("Version: 13", "Version: 8"), &[404]),
        (upgrade_head("/nowhere", "Origin: x\r\n").replace(key, ""), &[404]),
        // No request at all.
        ("HELLO\r\n\r\n".into(), &[400]),
        ("\r\n\r\n\r\n\r\n\r\n\r\n".into(), &[400]),
        ("GET /ws\r\n\r\n".into(), &[400]),
        ("GET /ws HTTP/2.0\r\n\r\n".into(), &[400]),
        ("GET  /ws HTTP/1.1\r\n\r\n".into(), &[400]),
        ("GET /ws HTTP/1.1\r\nno colon\r\n\r\n".into(), &[400]),
        ("GET /ws HTTP/1.1\r\n: no name\r\n\r\n".into(), &[400]),
        ("GET /w s HTTP/1.1\r\nHost: x\r\n\r\n".into(), &[400]),
        ("\u{16}\u{3}\u{1}\r\n\r\n".into(), &[400]),
    ];
    for (head, statuses) in &cases {
        let mut raw = Raw::connect(server.address);
        raw.send(head.as_bytes());
        let answer = raw.response_to(head);
        assert!(statuses.contains(&answer.status), "{statuses:?} and not {} to:\n{head}", answer.status);
        if answer.status == 426 {
            assert_eq!(answer.header("Sec-WebSocket-Version"), Some("13"), "the version is named");
        }
        assert_eq!(raw.end(), (Vec::new(), End::Fin), "the connection ends after {}", answer.status);
        still_chat(&mut one, &mut other);
    }
    assert_eq!(server.metric("parlor_clients"), 2);
}

/// Others are not harmed.
fn still_chat(one: &mut Client, other: &mut Client) {
    one.send(r#"{"type":"ice"}"#);
    other.expect(&format!(r#"{{"type":"ice","from":"{}"}}"#, one.id));
}

fn each_path_leads_where_it_should(setup: Setup) {
    let server = Server::start(setup, &[("ECHO_PATH", "/echo"), ("MAX_MSG_PER_SECOND", "1000")]);
    for path in [
        "/ws",
        "/WS",
        "/Ws",
        "/wS",
        "/ws/",
        "/WS/",
        "/ws?",
        "/ws?token=a/b&c",
        "/ws/?x",
        "/%77s",
        "/w%73",
        "/%57%53/",
    ] {
        let mut raw = Raw::open(&server, path);
        assert!(raw.frame().payload.starts_with(br#"{"type":"ready""#), "{path}");
    }
    for path in [
        "/wss",
        "/w",
        "/ws//",
        "//ws",
        "//ws/",
        "/ws/x",
        "/ws/x/",
        "/ws/%20",
        "/ws%2F",
        "/ws%2f",
        "/%2Fws",
        "/ws%00",
        "/ws%20",
        "/ws;a",
        "/socket",
        "/socket.io/?EIO=4",
        "/healthz",
        "/metrics",
        "/%2577s",
        "/ws%3F",
        "/.",
        "/./ws",
    ] {
        let answer = refused_or_open(&server, &upgrade_head(path, ""));
        assert_eq!(answer.status, 404, "{path}");
        assert!(
            answer.body.contains("/ws") && answer.body.contains("/echo"),
            "it names the paths: {}",
            answer.body
        );
        assert_eq!(answer.body.trim_end_matches('\n').lines().count(), 1, "in one line: {}", answer.body);
    }
    for path in [
        "/%",
        "/%7",
        "/%zz",
        "/ws/%",
        "/ws/%f",
        "/ws/%zz",
        "/%ff",
        "/ws/%c3%28",
        "/a/%ed%a0%80",
        "/nowhere/%+1",
    ] {
        assert_eq!(refused_or_open(&server, &upgrade_head(path, "")).status, 400, "{path}");
    }
    let mut raw = Raw::open(&server, "/echo");
    raw.send(&frame(TEXT, b"no JSON"));
    raw.expect("no JSON");
}

/// An upgrade whose head is this long.
fn head_of(len: usize) -> String {
    let without = upgrade_head("/ws", "X: \r\n").len();
    let head = upgrade_head("/ws", &format!("X: {}\r\n", "a".repeat(len - without)));
    assert_eq!(head.len(), len);
    head
}

fn heads_are_capped(setup: Setup) {
    let server = Server::start(setup, &[]);
    for (len, status) in
        [(HEAD_BYTES_MAX - 1, 101), (HEAD_BYTES_MAX, 101), (HEAD_BYTES_MAX + 1, 431), (20_000, 431)]
    {
        assert_eq!(refused_or_open(&server, &head_of(len)).status, status, "{len} bytes");
        // In two pieces.
        let mut raw = Raw::connect(server.address);
        let head = head_of(len);
        raw.send(&head.as_bytes()[..4_000]);
        assert!(raw.is_silent_for(Duration::from_millis(20)));
        raw.send(&head.as_bytes()[4_000..]);
        assert_eq!(raw.response().status, status, "{len} bytes in pieces");
    }
    // Many short lines: more than any client sends.
    assert_eq!(refused_or_open(&server, &upgrade_head("/ws", &"a: b\r\n".repeat(50))).status, 101);
    let status = refused_or_open(&server, &upgrade_head("/ws", &"a: b\r\n".repeat(1_000))).status;
    assert!([101, 400, 431].contains(&status), "{status}");
    // A long target.
    let long = format!("/{}", "a".repeat(9_000));
    assert_eq!(refused_or_open(&server, &upgrade_head(&long, "")).status, 431);
}

fn a_megabyte_of_head_is_refused(setup: Setup) {
    let server = Server::start(setup, &[]);
    let (mut one, mut other) = pair(&server);
    let before = server.memory_kib();
    for end in ["\r\n\r\n", ""] {
        let mut raw = Raw::connect(server.address);
        // All of it can be sent: the server reads on, so that no reset swallows its answer.
        raw.send(format!("GET /ws HTTP/1.1\r\nX: {}{end}", "a".repeat(1 << 20)).as_bytes());
        let answer = raw.response();
        assert_eq!(answer.status, 431);
        assert_eq!(raw.end(), (Vec::new(), End::Fin));
        still_chat(&mut one, &mut other);
    }
    assert!(server.memory_kib() < before + 2_048, "a head of 1 MB is not kept");
}

fn half_a_head_and_silence_is_cut_at_the_deadline(setup: Setup) {
    const DEADLINE: Duration = Duration::from_millis(400);
    let server = Server::start(setup, &[("HEAD_DEADLINE_MS", "400")]);
    let (mut one, mut other) = pair(&server);
    for begun in ["", "G", "GET /ws HTTP/1.1\r\nHost: x\r\n", "\r\n"] {
        let start = Instant::now();
        let mut raw = Raw::connect(server.address);
        raw.send(begun.as_bytes());
        let (came, _) = raw.end();
        let took = start.elapsed();
        let came = String::from_utf8(came).expect("text");
        assert!(took >= DEADLINE, "{begun:?} is cut after {took:?}");
        assert!(took < DEADLINE + Duration::from_millis(1_500), "{begun:?} is cut after {took:?}");
        assert!(came.is_empty() || came.starts_with("HTTP/1.1 408 "), "{came}");
        still_chat(&mut one, &mut other);
    }
    // A byte now and then does not keep it open: the deadline runs from the first one.
    let start = Instant::now();
    let mut raw = Raw::connect(server.address);
    for byte in upgrade_head("/ws", "").bytes() {
        if raw.try_send(&[byte]).is_err() || !raw.is_silent_for(Duration::from_millis(50)) {
            break;
        }
        assert!(start.elapsed() < WAIT, "a slow head is never cut");
    }
    let took = start.elapsed();
    assert!(
        took >= DEADLINE && took < DEADLINE + Duration::from_millis(1_500),
        "a slow head is cut after {took:?}"
    );
    assert_eq!(server.metric("parlor_heads_timed_out_total"), 5);
    still_chat(&mut one, &mut other);
}

fn bytes_come_in_any_pieces(setup: Setup) {
    let server = Server::start(setup, &[]);
    let bytes =
        [upgrade_head("/ws", "").into_bytes(), frame(TEXT, PING_TEXT), frame(TEXT, PING_TEXT)].concat();
    for step in [1, 2, 7, 50, 181] {
        let mut raw = Raw::connect(server.address);
        for piece in bytes.chunks(step) {
            raw.send(piece);
        }
        assert_eq!(raw.response().status, 101);
        assert!(raw.frame().payload.starts_with(br#"{"type":"ready""#));
        raw.expect(PONG_TEXT);
        raw.expect(PONG_TEXT);
    }
}

fn frames_may_follow_the_head_at_once(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut partner = Client::connect(&server);
    partner.send(r#"{"type":"available"}"#);
    partner.expect_nothing();
    let mut raw = Raw::connect(server.address);
    let available = frame(TEXT, br#"{"type":"available"}"#);
    raw.send(&[upgrade_head("/ws", "").as_bytes(), &available, &frame(TEXT, PING_TEXT)].concat());
    assert_eq!(raw.response().status, 101);
    assert!(raw.frame().payload.starts_with(br#"{"type":"ready""#), "ready comes before anything else");
    let rest = [raw.frame(), raw.frame()];
    assert!(rest.contains(&Frame::text(PONG_TEXT)));
    assert!(rest.iter().any(|frame| frame.payload.starts_with(br#"{"type":"matched""#)));
    partner.expect_matched();
    // Even a close.
    let mut raw = Raw::connect(server.address);
    raw.send(&[upgrade_head("/ws", "").into_bytes(), frame(CLOSE, b"")].concat());
    assert_eq!(raw.response().status, 101);
    assert!(raw.frame().payload.starts_with(br#"{"type":"ready""#));
    assert_eq!(raw.frame(), Frame { first: CLOSE, payload: Vec::new() });
    assert_eq!(raw.end(), (Vec::new(), End::Fin));
}

fn plain_requests_are_answered(setup: Setup) {
    let server = Server::start(setup, &[]);
    for (path, status, kind) in [
        ("/healthz", 200, "application/json"),
        ("/healthz?verbose=1", 200, "application/json"),
        ("/readyz", 200, "application/json"),
        ("/readyz?", 200, "application/json"),
        ("/metrics", 200, "text/plain; version=0.0.4"),
        ("/metrics?name=x", 200, "text/plain; version=0.0.4"),
    ] {
        let answer = get(server.address, path);
        assert_eq!((answer.status, answer.header("Content-Type")), (status, Some(kind)), "{path}");
    }
    for path in ["/nothing", "/ws", "/ws/", "/healthz/", "/HEALTHZ", "/favicon.ico", "/metrics/x"] {
        let answer = get(server.address, path);
        assert_eq!((answer.status, answer.body.as_str()), (404, r#"{"error":"Not found"}"#), "{path}");
        assert_eq!(answer.header("Content-Type"), Some("application/json"), "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        for path in ["/healthz", "/nothing", "/"] {
            let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody");
            let mut raw = Raw::connect(server.address);
            raw.send(head.as_bytes());
            assert_eq!(raw.response().status, 405, "{method} {path}");
            assert_eq!(raw.end(), (Vec::new(), End::Fin), "a body is no request");
        }
    }
    let page = get(server.address, "/");
    assert_eq!(page.status, 200);
    assert!(page.header("Content-Type").is_some_and(|kind| kind.starts_with("text/html")), "{}", page.head);
    assert!(page.body.contains("/ws") && page.body.contains(env!("CARGO_PKG_VERSION")), "{}", page.body);
    // HEAD: the head of the GET, without its body.
    for path in ["/healthz", "/readyz", "/nothing", "/"] {
        let len = get(server.address, path).body.len().to_string();
        let mut raw = Raw::connect(server.address);
        let head = format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        raw.send(head.repeat(2).as_bytes());
        for _ in 0..2 {
            let head = raw.head();
            assert!(head.contains(&format!("\r\nContent-Length: {len}\r\n")), "{path}: {head}");
        }
        raw.send(b"GET /readyz HTTP/1.1\r\nConnection: close\r\n\r\n");
        assert_eq!(raw.response().status, 200, "no body was in between");
        assert_eq!(raw.end(), (Vec::new(), End::Fin));
    }
}

fn connections_are_kept_alive(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut raw = Raw::connect(server.address);
    let asked = [("/healthz", 200), ("/nothing", 404), ("/readyz", 200), ("/healthz", 200)];
    for (path, status) in asked {
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        assert_eq!(raw.response().status, status, "one after the other");
    }
    for (path, _) in asked {
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    }
    for (_, status) in asked {
        assert_eq!(raw.response().status, status, "several at once");
    }
    // A WebSocket may follow.
    raw.send(
        &[b"GET /readyz HTTP/1.1\r\n\r\n", upgrade_head("/ws", "").as_bytes(), &frame(TEXT, PING_TEXT)]
            .concat(),
    );
    assert_eq!((raw.response().status, raw.response().status), (200, 101));
    assert!(raw.frame().payload.starts_with(br#"{"type":"ready""#));
    raw.expect(PONG_TEXT);
    for head in [
        "GET /readyz HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET /readyz HTTP/1.1\r\nConnection: Keep-Alive, Close\r\n\r\n",
        "GET /readyz HTTP/1.0\r\n\r\n",
    ] {
        let mut raw = Raw::connect(server.address);
        raw.send(head.as_bytes());
        assert_eq!(raw.response().status, 200);
        assert_eq!(raw.end(), (Vec::new(), End::Fin), "{head}");
    }
}

fn origins_are_checked(setup: Setup) {
    let listed = "https://a.example,https://b.example:8443";
    let lists = [("", "false"), (listed, "false"), (listed, "true")];
    let servers = lists.map(|(origins, without)| {
        Server::start(setup, &[("ALLOWED_ORIGIN", origins), ("ALLOW_NO_ORIGIN", without)])
    });
    // With no list, with one, with one that holds for browsers alone.
    for (origin, allowed) in [
        (Some("https://a.example"), [true, true, true]),
        (Some("https://b.example:8443"), [true, true, true]),
        (Some("https://c.example"), [true, false, false]),
        (Some("https://A.example"), [true, false, false]),
        (Some("https://a.example/"), [true, false, false]),
        (Some("http://a.example"), [true, false, false]),
        (Some("https://b.example"), [true, false, false]),
        (Some("https://a.example.evil"), [true, false, false]),
        (Some("https://a.example,https://b.example:8443"), [true, false, false]),
        (Some("null"), [true, false, false]),
        (Some(""), [true, false, false]),
        (None, [true, false, true]),
    ] {
        for (server, allowed) in servers.iter().zip(allowed) {
            let more = origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
            check_origin(server, &more, allowed);
        }
    }
    // Path and headers come first.
    let strict = &servers[1];
    assert_eq!(refused_or_open(strict, &upgrade_head("/x", "Origin: x\r\n")).status, 404);
    assert_eq!(refused_or_open(strict, &upgrade_head("/ws", "").replace(": 13", ": 8")).status, 426);
    assert_eq!(get(strict.address, "/healthz").status, 200, "plain requests need no origin");
    strict.wait_for_metric("parlor_clients", 0);
}

fn check_origin(server: &Server, more: &str, is_allowed: bool) {
    let mut raw = Raw::connect(server.address);
    raw.send(&[upgrade_head("/ws", more).as_bytes(), &frame(TEXT, PING_TEXT)].concat());
    assert_eq!(raw.response().status, 101, "the handshake succeeds: {more}");
    if is_allowed {
        assert!(raw.frame().payload.starts_with(br#"{"type":"ready""#), "{more}");
        raw.expect(PONG_TEXT);
    } else {
        assert_eq!(raw.expect_close(1008), "Origin not allowed", "{more}");
        raw.send(&frame(TEXT, PING_TEXT));
        raw.finish(1008);
    }
}

#[test]
fn fifteen_hundred_heads_in_parts_harm_nobody() {
    let server = Server::start(Setup::IO_URING_2, &[]);
    let (mut one, mut other) = pair(&server);
    let connect = |_| {
        let mut raw = Raw::over(TcpStream::connect(server.address).expect("it listens"));
        raw.send(b"GET /ws HTTP/1.1\r\n");
        raw
    };
    let begun: Vec<Raw> = (0..1_500).map(connect).collect();
    still_chat(&mut one, &mut other);
    let rest = upgrade_head("/ws", "");
    let rest = rest.split_once("\r\n").expect("a request line").1;
    for mut raw in begun {
        raw.send(rest.as_bytes());
        assert_eq!(raw.response().status, 101);
        assert!(raw.frame().payload.starts_with(br#"{"type":"ready""#));
    }
    still_chat(&mut one, &mut other);
}
