//! Health, names and numbers over plain HTTP: protocols.md section 0, `/health`, `/clients`, `/healthz` of all dialects, and
//! `HTTP_PORT`.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use super::{CREATE, NOT_LOGGED_IN, PING_TEXT, login, wallet};
use crate::support::dialects::{Peer, now_ms, number_in};
use crate::support::{
    Driver, Raw, Response, Server, Setup, get, on_each_driver, on_each_setup, upgrade_head,
};

on_each_setup!(health_counts_who_is_logged_in, healthz_counts_all_dialects, names_are_told_to_this_machine);
on_each_driver!(a_second_port_has_health_and_metrics, what_others_have_set_never_stops_the_start);

// Health.

/// The count in an answer of `/health`, which must be to the byte.
fn health(server: &Server) -> usize {
    let before = now_ms();
    let answer = get(server.address, "/health?verbose=1");
    let after = now_ms();
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("application/json")));
    let body = &*answer.body;
    let fields = body.strip_prefix(r#"{"status":"healthy","clientCount":"#).and_then(|rest| {
        let (count, rest) = rest.strip_suffix("\"}")?.split_once(r#","uptime":"#)?;
        let (uptime, timestamp) = rest.split_once(r#","timestamp":""#)?;
        Some((count.parse().ok()?, uptime.parse::<u64>().ok()?, timestamp))
    });
    let (count, uptime, timestamp) = fields.unwrap_or_else(|| panic!("no health: {body}"));
    assert!(uptime < 100, "{body}");
    let ms = ms_since_1970(timestamp).unwrap_or_else(|| panic!("no time: {body}"));
    assert!((before..=after).contains(&ms), "{before} <= {ms} <= {after}: {body}");
    count
}

/// The time that `YYYY-MM-DDTHH:MM:SS.mmmZ` says.
fn ms_since_1970(text: &str) -> Option<u64> {
    let shape = text.chars().map(|symbol| if symbol.is_ascii_digit() { '0' } else { symbol });
    if shape.collect::<String>() != "0000-00-00T00:00:00.000Z" {
        return None;
    }
    let number = |range: std::ops::Range<usize>| text[range].parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let february = if is_leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let days_of_years: u64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    let days_of_months: u64 = months.iter().take(month as usize - 1).sum();
    let days = days_of_years + days_of_months + day - 1;
    let seconds = (days * 24 + number(11..13)?) * 3_600 + number(14..16)? * 60 + number(17..19)?;
    Some(seconds * 1_000 + number(20..23)?)
}

fn health_counts_who_is_logged_in(setup: Setup) {
    assert_eq!(ms_since_1970("2024-03-01T00:00:00.001Z"), Some(1_709_251_200_001));
    let server = Server::start(setup, &[]);
    assert_eq!(health(&server), 0);
    // Of other dialects, not logged in, or refused.
    let mut others: Vec<Peer> = [&*wallet(), "/ws", "/", "/"].map(|path| Peer::open(&server, path)).into();
    others[2].ask(PING_TEXT, NOT_LOGGED_IN);
    others[3].send(CREATE);
    others[3].next("room_created");
    assert_eq!(health(&server), 0);
    let mut members = Vec::new();
    for count in 1..=10 {
        let mut peer = Peer::open(&server, "/");
        peer.send(&login(&format!("member-{count}")));
        peer.next("login_success");
        assert_eq!(health(&server), count);
        members.push(peer);
        let mut refused = Peer::open(&server, "/");
        refused.ask(&login("member-1"), r#"{"type":"error","error":"name_taken"}"#);
        assert_eq!(health(&server), count);
    }
    for count in (0..10).rev() {
        members.pop().expect("there are as many").close();
        assert_eq!(health(&server), count);
    }
    // HEAD has the same length, and no body.
    let mut raw = Raw::connect(server.address);
    raw.send(b"HEAD /health HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert!(raw.head().starts_with("HTTP/1.1 200 "));
    assert!(raw.end().0.is_empty());
    raw = Raw::connect(server.address);
    raw.send(b"POST /health HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(raw.response().status, 405);
}

fn healthz_counts_all_dialects(setup: Setup) {
    let server = Server::start(setup, &[("INSTANCE_ID", "one")]);
    let expect = |clients: usize| {
        let answer = get(server.address, "/healthz");
        let end = format!(r#","clients":{clients},"instanceId":"one"}}"#);
        assert!(answer.body.ends_with(&end), "{clients} are expected: {}", answer.body);
    };
    let mut peers = Vec::new();
    for round in 0..4 {
        for (index, path) in [&*wallet(), "/", "/ws"].into_iter().enumerate() {
            // Counted before the first frame goes out.
            let mut raw = Raw::connect(server.address);
            raw.send(upgrade_head(path, "").as_bytes());
            assert_eq!(raw.response().status, 101);
            expect(3 * round + index + 1);
            peers.push(raw);
        }
    }
    for (count, raw) in (0..12).rev().zip(peers) {
        drop(raw);
        server.wait_for_metric("parlor_clients", count);
        expect(count as usize);
    }
}

// Names.

/// Asks for `/clients`, with more header lines.
fn ask_for_clients(address: SocketAddr, more: &str) -> Response {
    let mut raw = Raw::connect(address);
    raw.send(format!("GET /clients HTTP/1.1\r\nHost: x\r\n{more}Connection: close\r\n\r\n").as_bytes());
    raw.response()
}

fn names_are_told_to_this_machine(setup: Setup) {
    // On all addresses, with IPv6 where there is some: a caller from here may look like ::ffff:127.0.0.1.
    let everywhere = Server::start(setup, &[("HOST", "")]);
    let server = Server::start(setup, &[("HOST", "0.0.0.0")]);
    for server in [&server, &everywhere] {
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, server.address.port()));
        let body = |names: &str| format!(r#"{{"clients":[{names}]}}"#);
        assert_eq!(ask_for_clients(here, "").body, body(""));
        let mut members: Vec<Peer> = Vec::new();
        for name in ["m", "a", "z"] {
            let mut peer = Peer::try_open(here, "/").expect("it listens");
            peer.send(&login(name));
            peer.next("login_success");
            members.push(peer);
        }
        let mut nobody = Peer::try_open(here, "/").expect("it listens");
        nobody.ask(PING_TEXT, NOT_LOGGED_IN);
        let answer = ask_for_clients(here, "Cookie: X-Forwarded-For=1\r\n");
        assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("application/json")));
        let mut names: Vec<&str> = answer
            .body
            .strip_prefix(r#"{"clients":[""#)
            .and_then(|rest| rest.strip_suffix("\"]}"))
            .unwrap_or_else(|| panic!("no names: {}", answer.body))
            .split("\",\"")
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["a", "m", "z"]);
        // A proxy on this machine asks for somebody else.
        for more in [
            "X-Forwarded-For: 192.0.2.1\r\n",
            "x-forwarded-for: 127.0.0.1\r\n",
            "Forwarded: for=192.0.2.1\r\n",
            "FORWARDED: for=127.0.0.1\r\nX-Forwarded-For: 127.0.0.1\r\n",
        ] {
            let answer = ask_for_clients(here, more);
            assert_eq!(answer.status, 403, "{more}");
            assert!(!answer.body.contains("\"z\""), "{}", answer.body);
        }
        // So does whoever comes over the network.
        let outside = SocketAddr::from((address_of_the_network(), server.address.port()));
        let answer = ask_for_clients(outside, "");
        assert_eq!(answer.status, 403, "from {outside}");
        assert!(!answer.body.contains("\"z\""), "{}", answer.body);
        assert_eq!(get(outside, "/health").status, 200, "the rest is for all");
        members.remove(1).close();
        let names = ask_for_clients(here, "").body;
        assert!(!names.contains("\"a\"") && names.contains("\"m\""), "{names}");
    }
}

/// An address of this machine that is not its loopback.
fn address_of_the_network() -> std::net::IpAddr {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    // Nothing is sent: this asks for the route alone.
    socket
        .connect((Ipv4Addr::new(192, 0, 2, 1), 9))
        .expect("this test wants an interface beside the loopback");
    socket.local_addr().expect("an address").ip()
}

// The second port.

/// An address that no other test has: the system has all of 127/8.
fn address_of_our_own(driver: Driver) -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let last = if driver == Driver::Epoll { 41 } else { 42 };
    Ipv4Addr::new(127, high.saturating_add(1), low, last)
}

fn a_second_port_has_health_and_metrics(setup: Setup) {
    let host = address_of_our_own(setup.driver);
    let environment = [("HOST", &*host.to_string()), ("PORT", "8080"), ("HTTP_PORT", "9090")];
    let server = Server::start(setup, &environment);
    let second = SocketAddr::from((host, 9_090));
    let answer = get(second, "/health");
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
    assert!(
        answer.header("Content-Type").is_some_and(|kind| kind.starts_with("text/plain")),
        "{}",
        answer.head
    );
    assert_eq!(get(second, "/readyz").status, 200);
    let metrics = get(second, "/metrics");
    assert_eq!((metrics.status, metrics.header("Content-Type")), (200, Some("text/plain; version=0.0.4")));
    let mut rendezvous = Peer::open(&server, &wallet());
    rendezvous.expect_nothing();
    let metrics = get(second, "/metrics");
    assert_eq!(number_in(&metrics, "signaling_server_connected_clients"), 1.0);
    assert_eq!(number_in(&metrics, "parlor_clients"), 1.0);
    assert!(get(second, "/healthz").body.contains(r#","clients":1,"#));
    for path in ["/nothing", "/clients", "/health/"] {
        assert_eq!(get(second, path).status, 404, "{path} on the second port");
    }
    let mut raw = Raw::connect(second);
    raw.send(b"POST /health HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(raw.response().status, 405);
    // The first port is as ever, without metrics.
    assert_eq!(get(server.address, "/metrics").status, 404);
    assert_eq!(get(server.address, "/healthz").status, 200);
    assert_eq!(get(server.address, "/readyz").status, 200);
    assert!(get(server.address, "/health").body.starts_with(r#"{"status":"healthy","clientCount":0,"#));
    rendezvous.expect_nothing();
}

fn what_others_have_set_never_stops_the_start(setup: Setup) {
    let environment = [
        ("HTTP_PORT", "none"),
        ("RATE_LIMIT_MESSAGES", "many"),
        ("RATE_LIMIT_MS", "-5"),
        ("ROOM_TIMEOUT_MS", "5 minutes"),
        ("PROTOCOLS", ""),
        ("LOG_LEVEL", "3"),
        ("NODE_ENV", "production"),
    ];
    let server = Server::start(setup, &environment);
    assert_eq!(get(server.address, "/metrics").status, 200, "there is no second port");
    let mut peer = Peer::open(&server, "/");
    peer.ask(PING_TEXT, NOT_LOGGED_IN);
    peer.send(CREATE);
    peer.next("room_created");
    let mut rendezvous = Peer::open(&server, &wallet());
    for _ in 0..20 {
        rendezvous.send("{}");
        rendezvous.next("validationError");
    }
    let log = server.log();
    for (name, value) in &environment[..4] {
        let is_named =
            log.lines().any(|line| line.contains(" WARN ") && line.contains(&format!("{name}={value}")));
        assert!(is_named, "{name} is not warned of:\n{log}");
    }
}
