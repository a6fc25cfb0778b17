//! The process from outside: its start line, flags and environment, health and metrics (protocols.md section 0, HTTP,
//! environment), shutdown, too few files, and 15,000 connections that say nothing.

mod support;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use support::{
    Client, End, PARTNER_LEFT, Raw, Server, Setup, TEXT, WAIT, frame, get, is_uuid_v4, metric_in,
    on_each_driver, on_each_setup, pair, wait_until,
};

on_each_setup!(health_is_exact, all_metrics_are_there, a_signal_closes_all_clients);
on_each_driver!(
    a_client_that_never_answers_holds_no_shutdown,
    half_done_connections_hold_no_shutdown,
    too_few_files_shed_load_without_spinning,
);

// Start.

#[test]
fn the_start_line_names_address_shards_and_driver() {
    let server = Server::start(Setup::IO_URING_4, &[]);
    let line = server.wait_for_log(" listening ");
    // The rest was checked at the start.
    assert!(line.contains(" INFO ") && line.contains(" ring_flags="), "{line}");
    assert!(server.address.ip().is_loopback() && server.address.port() != 0);
}

#[test]
fn a_flag_that_makes_no_sense_ends_the_start() {
    for flags in [
        &["--port", "eighty"][..],
        &["--port", "65536"],
        &["--shards", "0"],
        &["--io-driver", "kqueue"],
        &["--echo-path", "echo"],
        &["--log-level", "loud"],
        &["--no-such-flag"],
        &["stray"],
    ] {
        let (code, log) = Server::run_to_end(Setup::EPOLL_1, &[], flags);
        assert_eq!(code, Some(2), "{flags:?}: {log}");
        assert!(log.contains(flags[flags.len() - 1]), "{flags:?} is named: {log}");
    }
    for flags in [["--help"], ["--version"]] {
        assert_eq!(Server::run_to_end(Setup::EPOLL_1, &[], &flags).0, Some(0));
    }
}

#[test]
fn an_environment_that_makes_no_sense_is_warned_of_and_left_out() {
    let environment = [
        ("HEARTBEAT_MS", "0"),
        ("MAX_MESSAGE_BYTES", "1 MB"),
        ("MAX_MSG_PER_SECOND", "-1"),
        ("REQUEUE_ON_PARTNER_LEAVE", "perhaps"),
        ("LOG_LEVEL", "verbose"),
        ("ECHO_PATH", "echo"),
        ("SHUTDOWN_GRACE_MS", ""),
        ("NODE_ENV", "production"),
        ("REDIS_HOST_PUB", "redis"),
        ("REDIS_PORT", "abc"),
    ];
    let server = Server::start(Setup::EPOLL_1, &environment);
    let (mut one, mut other) = pair(&server);
    one.send(r#"{"type":"next"}"#);
    other.expect(PARTNER_LEFT);
    let log = server.log();
    for (name, value) in &environment[..6] {
        let warned =
            log.lines().any(|line| line.contains(" WARN ") && line.contains(&format!("{name}={value}")));
        assert!(warned, "{name} is not warned of:\n{log}");
    }
    assert!(!log.contains("SHUTDOWN_GRACE_MS"), "an empty value is none:\n{log}");
}

/// An address that no other test has: the system has all of 127/8.
fn address_of_our_own(last: u8) -> SocketAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    SocketAddrV4::new(Ipv4Addr::new(127, high.saturating_add(1), low, last), 8_080).into()
}

#[test]
fn log_levels_are_names_or_numbers() {
    for (level, says_info) in [
        ("0", true),
        ("1", true),
        ("2", true),
        ("3", true),
        ("4", false),
        ("5", false),
        ("6", false),
        ("trace", true),
        ("DEBUG", true),
        ("Info", true),
        ("WARN", false),
        ("error", false),
    ] {
        let address = address_of_our_own(1);
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let environment = [("LOG_LEVEL", level), ("HOST", &*host), ("PORT", &*port)];
        let mut server = Server::start_silently(Setup::EPOLL_1, &environment, address);
        assert_eq!(get(address, "/readyz").status, 200);
        server.signal(Signal::TERM);
        assert!(server.wait_for_exit().success());
        assert_eq!(server.log().contains(" listening "), says_info, "{level}:\n{}", server.log());
    }
}

#[test]
fn a_port_in_use_is_a_clear_error() {
    let server = Server::start(Setup::EPOLL_1, &[]);
    let plain = TcpListener::bind("127.0.0.1:0").expect("a free port");
    for taken in [server.address, plain.local_addr().expect("an address")] {
        let port = taken.port().to_string();
        for setup in [Setup::IO_URING_1, Setup::EPOLL_4] {
            let (code, log) = Server::run_to_end(setup, &[("PORT", &port)], &[]);
            assert_eq!(code, Some(1), "{log}");
            assert!(log.contains(" ERROR ") && log.contains(&taken.to_string()), "{log}");
            assert!(!log.contains(" listening "), "{log}");
        }
    }
    assert_eq!(get(server.address, "/readyz").status, 200, "the first one goes on");
}

// Health.

fn health_is_exact(setup: Setup) {
    let server = Server::start(setup, &[("INSTANCE_ID", "test \"1\"")]);
    let expected = |clients: usize| {
        let instance = r#""instanceId":"test \"1\"""#;
        [0, 1, 2, 3]
            .map(|uptime| format!(r#"{{"ok":true,"uptime":{uptime},"clients":{clients},{instance}}}"#))
    };
    let check = |clients: usize| {
        let answer = get(server.address, "/healthz");
        assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("application/json")));
        assert!(expected(clients).contains(&answer.body), "{clients} clients are expected: {}", answer.body);
    };
    check(0);
    let mut clients = Vec::new();
    for count in 1..=20 {
        // Counted before the first frame goes out.
        clients.push(Client::connect(&server));
        check(count);
    }
    // Plain connections are no clients.
    let _plain = Raw::connect(server.address);
    check(20);
    for count in (0..20).rev() {
        clients.pop().expect("there are as many").close();
        check(count);
    }
    // A reset takes the server a moment to see.
    Client::connect(&server).reset();
    server.wait_for_metric("parlor_clients", 0);
    check(0);
    assert_eq!(get(server.address, "/readyz").status, 200);
}

#[test]
fn an_instance_has_a_name_of_its_own() {
    let names = [(), ()].map(|()| {
        let answer = get(Server::start(Setup::EPOLL_1, &[]).address, "/healthz");
        let (_, name) = answer.body.split_once(r#""instanceId":"inst-"#).expect("a name");
        let uuid = name.strip_suffix("\"}").expect("the name is last").to_owned();
        assert!(is_uuid_v4(&uuid), "{uuid}");
        uuid
    });
    assert_ne!(names[0], names[1]);
}

fn all_metrics_are_there(setup: Setup) {
    let server = Server::start(setup, &[]);
    let (one, mut other) = pair(&server);
    let answer = get(server.address, "/metrics");
    assert_eq!(answer.header("Content-Type"), Some("text/plain; version=0.0.4"));
    assert!(answer.body.ends_with('\n'));
    for line in answer.body.lines() {
        let known = ["# HELP ", "# TYPE "].iter().find_map(|start| line.strip_prefix(start));
        let name = known.unwrap_or(line).split([' ', '{']).next().unwrap_or_default();
        assert!(answer.body.contains(&format!("# TYPE {name} ")), "{name} has a type");
        assert!(answer.body.contains(&format!("# HELP {name} ")), "{name} has a help");
        assert!(
            known.is_some() || line.rsplit(' ').next().is_some_and(|value| value.parse::<f64>().is_ok()),
            "{line}"
        );
    }
    for (name, value) in [
        ("parlor_clients", 2),
        ("parlor_connections", 3),
        ("parlor_connections_accepted_total", 3),
        ("parlor_upgrades_total", 2),
        ("parlor_matches_total", 2),
        ("parlor_messages_received_total", 2),
        ("parlor_panics_total", 0),
        ("parlor_protocol_errors_total", 0),
        ("parlor_heads_timed_out_total", 0),
        ("parlor_shards", setup.shards.into()),
    ] {
        assert_eq!(metric_in(&answer, name), value, "{name}");
    }
    let driver = format!("driver=\"{}\"", setup.driver.name());
    assert!(answer.body.contains(&driver), "{driver}");
    one.close();
    other.expect(PARTNER_LEFT);
    assert_eq!(server.metric("parlor_clients"), 1);
}

// Shutdown.

fn a_signal_closes_all_clients(setup: Setup) {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(setup, &[]);
        let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(&server)).collect();
        let (one, other) = pair(&server);
        clients.extend([one, other]);
        let start = Instant::now();
        server.signal(signal);
        let closing = clients.into_iter().map(|mut client| {
            std::thread::spawn(move || {
                // The partner's notice may come before the own close.
                client.expect_close_after(1001, "Server shutting down", &[PARTNER_LEFT]);
            })
        });
        for closed in closing.collect::<Vec<_>>() {
            closed.join().expect("the client is closed as it should be");
        }
        assert_eq!(server.wait_for_exit().code(), Some(0), "{}", server.log());
        assert!(start.elapsed() < Duration::from_secs(5), "all have answered: nothing is waited for");
        TcpListener::bind(server.address).expect("the port is free");
    }
}

fn a_client_that_never_answers_holds_no_shutdown(setup: Setup) {
    let grace = Duration::from_millis(600);
    let mut server = Server::start(setup, &[("SHUTDOWN_GRACE_MS", "600")]);
    let (mut deaf, _) = Raw::open_pairing(&server);
    let mut polite = Client::connect(&server);
    let start = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(deaf.expect_close(1001), "Server shutting down");
    polite.expect_close(1001, "Server shutting down");
    // It accepts no more.
    wait_until("the port to be shut", || TcpStream::connect(server.address).is_err());
    assert_eq!(server.wait_for_exit().code(), Some(0), "{}", server.log());
    let took = start.elapsed();
    assert!(took < grace + Duration::from_secs(1), "{took:?}");
    TcpListener::bind(server.address).expect("the port is free");
    let _ = deaf.end();
}

fn half_done_connections_hold_no_shutdown(setup: Setup) {
    let mut server = Server::start(setup, &[]);
    let silent: Vec<Raw> = (0..10).map(|_| Raw::connect(server.address)).collect();
    let mut half = Raw::connect(server.address);
    half.send(b"GET /ws HTTP/1.1\r\n");
    let mut kept = Raw::connect(server.address);
    kept.send(b"GET /readyz HTTP/1.1\r\n\r\n");
    assert_eq!(kept.response().status, 200);
    let (mut partial, _) = Raw::open_pairing(&server);
    partial.send(&frame(TEXT, b"{\"type\":\"ping\"}")[..5]);
    server.wait_for_metric("parlor_connections", 14);
    let start = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(partial.expect_close(1001), "Server shutting down");
    drop(partial);
    assert_eq!(server.wait_for_exit().code(), Some(0), "{}", server.log());
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    for mut raw in silent.into_iter().chain([half, kept]) {
        let (came, _) = raw.end();
        assert!(came.is_empty() || came.starts_with(b"HTTP/1.1 "), "no WebSocket frame for who has none");
    }
}

// Too few files.

fn too_few_files_shed_load_without_spinning(setup: Setup) {
    let server = Server::start_with_files(64, setup, &[("HEAD_DEADLINE_MS", "600000")]);
    let (mut one, mut other) = pair(&server);
    // Open already, since a new one might not be let in.
    let mut watch = Raw::connect(server.address);
    let mut metric = |name: &str| {
        watch.send(b"GET /metrics HTTP/1.1\r\n\r\n");
        metric_in(&watch.response(), name)
    };
    assert_eq!(metric("parlor_connections"), 3);
    let mut crowd: Vec<Raw> = (0..120).map(|_| Raw::connect(server.address)).collect();
    wait_until("all to be accepted or shed", || {
        metric("parlor_connections_accepted_total") + metric("parlor_connections_shed_total") >= 3 + 120
    });
    assert!(metric("parlor_connections_shed_total") > 60, "there is no room for most");
    assert!(metric("parlor_accept_errors_total") > 0);
    // New ones come all the time; the server does little more than that.
    let (cpu, start) = (server.cpu_time(), Instant::now());
    while start.elapsed() < Duration::from_secs(1) {
        crowd.push(Raw::connect(server.address));
        one.send(r#"{"type":"ice"}"#);
        other.expect(&format!(r#"{{"type":"ice","from":"{}"}}"#, one.id));
        std::thread::sleep(Duration::from_millis(50));
    }
    let used = server.cpu_time() - cpu;
    assert!(used < Duration::from_millis(250), "the server spins: {used:?} of processor time in a second");
    // And with nobody new at all.
    let (cpu, start) = (server.cpu_time(), Instant::now());
    wait_until("a second to pass", || start.elapsed() > Duration::from_secs(1));
    let used = server.cpu_time() - cpu;
    assert!(
        used < Duration::from_millis(150),
        "the server spins: {used:?} of processor time in an idle second"
    );
    // Who was shed has been told so by the end of the connection.
    let newest = crowd.last_mut().expect("a crowd");
    assert!(matches!(newest.end(), (came, End::Fin | End::Reset) if came.is_empty()));
    drop(crowd);
    wait_until("room for new clients", || Client::try_connect_to(server.address).is_ok());
    one.send(r#"{"type":"ice","candidate":"still here"}"#);
    other.expect(&format!(r#"{{"type":"ice","from":"{}","candidate":"still here"}}"#, one.id));
}

// Many who say nothing.

const SILENT: usize = 15_000;
const HEAD_DEADLINE: Duration = Duration::from_secs(5);

/// The slow test: some ten seconds.
#[test]
fn fifteen_thousand_silent_connections_are_cut_at_their_deadline() {
    let server = Server::start(Setup::IO_URING_2, &[("MAX_MSG_PER_SECOND", "1000")]);
    let (mut one, mut other) = pair(&server);
    let before = server.metric("parlor_connections");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let chat = scope.spawn(|| slowest_round(&mut one, &mut other, &is_over));
        let lives = silent_lives(&server);
        is_over.store(true, Ordering::Relaxed);
        let slowest = chat.join().expect("the two have talked all the time");
        assert!(slowest < Duration::from_secs(1), "a round took {slowest:?}");
        assert_eq!(lives.len(), SILENT);
        let (shortest, longest) = (lives.iter().min().expect("some"), lives.iter().max().expect("some"));
        assert!(*shortest >= HEAD_DEADLINE, "one is cut after {shortest:?} already");
        assert!(*longest < HEAD_DEADLINE + Duration::from_secs(4), "one is cut after {longest:?} only");
    });
    server.wait_for_metric("parlor_heads_timed_out_total", SILENT as u64);
    server.wait_for_metric("parlor_connections", before);
    assert_eq!(server.metric("parlor_connections_shed_total"), 0);
    one.send(r#"{"type":"next"}"#);
    other.expect(PARTNER_LEFT);
}

/// Two talk until it is over; returns the longest time from a word to its answer.
fn slowest_round(one: &mut Client, other: &mut Client, is_over: &AtomicBool) -> Duration {
    let mut slowest = Duration::ZERO;
    while !is_over.load(Ordering::Relaxed) {
        let start = Instant::now();
        one.send(r#"{"type":"offer","sdp":"?"}"#);
        other.expect(&format!(r#"{{"type":"offer","from":"{}","sdp":"?"}}"#, one.id));
        other.send(r#"{"type":"answer","sdp":"!"}"#);
        one.expect(&format!(r#"{{"type":"answer","from":"{}","sdp":"!"}}"#, other.id));
        slowest = slowest.max(start.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    slowest
}

/// Opens connections that say nothing, and waits until each is cut. Returns how long each was open, from before it
/// was.
fn silent_lives(server: &Server) -> Vec<Duration> {
    let mut silent = Silent {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll"),
        open: Vec::new(),
        lives: Vec::new(),
    };
    for index in 0..SILENT {
        silent.connect(server.address, index);
        if index % 64 == 0 {
            silent.reap(Duration::ZERO);
        }
    }
    let start = Instant::now();
    while silent.lives.len() < SILENT {
        silent.reap(Duration::from_millis(100));
        let missing = SILENT - silent.lives.len();
        assert!(start.elapsed() < HEAD_DEADLINE + WAIT, "{missing} are never cut:\n{}", server.log());
    }
    silent.lives
}

struct Silent {
    epoll: std::os::fd::OwnedFd,
    open: Vec<Option<(Instant, Socket)>>,
    lives: Vec<Duration>,
}

impl Silent {
    /// Connects from one of several addresses: one alone has too few ports.
    fn connect(&mut self, address: SocketAddr, index: usize) {
        let source = Ipv4Addr::new(127, 0, 1, (index % 5 + 2) as u8);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a file for each");
        socket.bind(&SocketAddr::from((source, 0)).into()).expect("a port for each");
        let start = Instant::now();
        socket.connect_timeout(&address.into(), WAIT).expect("the server takes all");
        socket.set_nonblocking(true).expect("a socket");
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN).expect("room in the epoll");
        self.open.push(Some((start, socket)));
    }

    /// Takes down who was cut.
    fn reap(&mut self, longest: Duration) {
        let mut events = Vec::with_capacity(1_024);
        let longest = longest.try_into().expect("a short time");
        let buffer = rustix::buffer::spare_capacity(&mut events);
        epoll::wait(&self.epoll, buffer, Some(&longest)).expect("an epoll");
        for event in events {
            let (start, socket) = self.open[event.data.u64() as usize].take().expect("each ends once");
            self.lives.push(start.elapsed());
            let mut byte = [std::mem::MaybeUninit::uninit()];
            assert!(matches!(socket.recv(&mut byte), Ok(0) | Err(_)), "nothing is said to who said nothing");
        }
    }
}
