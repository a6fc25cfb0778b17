//! Whether a host says the truth about Redis (protocols.md section 0, `/healthz` and `/readyz`), whatever becomes of
//! that, and what it knows of other hosts. Each test has a Redis of its own.

mod support;

use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::redis::{Redis, Value};
use support::{
    Client, Driver, PARTNER_LEFT, Server, Setup, WAIT, get, metric_in, on_each_driver, pair, wait_until,
};

on_each_driver!(
    without_redis_a_host_serves_and_says_so,
    redis_may_restart_again_and_again,
    a_redis_that_stands_still_is_noticed,
    hosts_see_each_other_come_and_go,
);

/// What a busy machine may take on top of what is promised.
const SLACK: Duration = Duration::from_secs(3);
/// A host is ready so soon after Redis is back.
const BACK: Duration = Duration::from_secs(2);
/// A host is not ready so soon after Redis is gone, and a host that is gone is noticed so soon.
const GONE: Duration = Duration::from_secs(3);
const DEAD: Duration = Duration::from_secs(6);

fn server(setup: Setup, redis: &Redis) -> Server {
    Server::start(setup, &[("REDIS_URL", &redis.url())])
}

fn is_ready(server: &Server) -> bool {
    let (health, readiness) = (get(server.address, "/healthz"), get(server.address, "/readyz"));
    assert_eq!(health.status, 200, "it serves in any case");
    let is_redis_there = health.body.ends_with(r#","redis":true}"#);
    assert!(is_redis_there || health.body.ends_with(r#","redis":false}"#), "{}", health.body);
    match readiness.status {
        200 => assert_eq!(readiness.body, "[]"),
        503 => assert_eq!(readiness.body, r#"["redis"]"#),
        status => panic!("{status}: {}", readiness.body),
    }
    readiness.status == 200
}

/// Waits until a server is ready, or is not, which must not take longer than promised.
fn expect_ready(server: &Server, ready: bool, promised: Duration) {
    let start = Instant::now();
    wait_until("readiness to change", || is_ready(server) == ready);
    let took = start.elapsed();
    assert!(took < promised + SLACK, "ready {ready} took {took:?}:\n{}", server.log());
}

fn check_relay(one: &mut Client, other: &mut Client) {
    one.send(r#"{"type":"offer","sdp":1}"#);
    other.expect(&format!(r#"{{"type":"offer","from":"{}","sdp":1}}"#, one.id));
}

fn without_redis_a_host_serves_and_says_so(setup: Setup) {
    let mut redis = Redis::absent();
    let server = server(setup, &redis);
    let (mut one, mut other) = pair(&server);
    check_relay(&mut one, &mut other);
    assert!(!is_ready(&server));
    server.wait_for_log("cannot be reached: Connection refused");
    assert_eq!(server.metric("parlor_redis_connected"), 0);

    redis.run();
    expect_ready(&server, true, BACK);
    assert_eq!(server.metric("parlor_redis_connected"), 1);
    check_relay(&mut other, &mut one);
    let lines = |part: &str| server.log().lines().filter(|line| line.contains(part)).count();
    assert_eq!(lines("cannot be reached"), 2, "one line for each connection:\n{}", server.log());
    assert_eq!(lines("connected to Redis"), 2);
}

fn redis_may_restart_again_and_again(setup: Setup) {
    let mut redis = Redis::start();
    let server = server(setup, &redis);
    let (mut one, mut other) = pair(&server);
    expect_ready(&server, true, BACK);
    let before = (server.files(), server.threads());
    for _ in 0..20 {
        redis.stop();
        expect_ready(&server, false, GONE);
        check_relay(&mut one, &mut other);
        redis.run();
        expect_ready(&server, true, BACK);
        check_relay(&mut other, &mut one);
    }
    // Of the questions' connections one may have been counted before, and some are closed a moment later.
    wait_until("no more files and threads than before", || {
        server.files() <= before.0 && server.threads() <= before.1
    });
    assert_eq!(server.metric("parlor_redis_queue"), 0);
    assert!(server.metric("parlor_redis_reconnects_total") >= 40, "20 times two connections");
    one.close();
    other.expect(PARTNER_LEFT);
}

fn a_redis_that_stands_still_is_noticed(setup: Setup) {
    let redis = Redis::start();
    let server = server(setup, &redis);
    let (mut one, mut other) = pair(&server);
    // For less than its connections take to be given up, and for longer.
    for longer in [Duration::ZERO, Duration::from_secs(5)] {
        expect_ready(&server, true, BACK);
        redis.pause();
        expect_ready(&server, false, GONE);
        let start = Instant::now();
        while start.elapsed() < longer {
            check_relay(&mut one, &mut other);
            assert!(!is_ready(&server));
            std::thread::sleep(Duration::from_millis(100));
        }
        redis.resume();
    }
    expect_ready(&server, true, BACK);
}

fn hosts_see_each_other_come_and_go(setup: Setup) {
    let redis = Redis::start();
    // One of each driver among them.
    let other_driver = if setup.driver == Driver::Epoll { Setup::IO_URING_2 } else { Setup::EPOLL_1 };
    let stays = server(setup, &redis);
    let mut leaves = server(other_driver, &redis);
    let dies = server(setup, &redis);
    for host in [&stays, &leaves, &dies] {
        host.wait_for_metric("parlor_hosts", 2);
        assert_eq!(host.metric("parlor_relations_ended_total"), 0, "{}", host.log());
    }

    let start = Instant::now();
    dies.signal(Signal::KILL);
    for host in [&stays, &leaves] {
        host.wait_for_metric("parlor_hosts", 1);
        host.wait_for_log("is gone: it is silent");
    }
    assert!(start.elapsed() < DEAD + SLACK, "{:?}", start.elapsed());

    leaves.signal(Signal::TERM);
    stays.wait_for_metric("parlor_hosts", 0);
    stays.wait_for_log("is gone: it has left");
    assert!(leaves.wait_for_exit().success());
    assert_eq!(stays.metric("parlor_relations_ended_total"), 2);
    assert!(is_ready(&stays));
}

#[test]
fn a_host_that_stood_still_finds_out_that_it_was_given_up() {
    let redis = Redis::start();
    let (one, other) = (server(Setup::EPOLL_1, &redis), server(Setup::IO_URING_1, &redis));
    one.wait_for_metric("parlor_hosts", 1);
    other.wait_for_metric("parlor_hosts", 1);
    one.signal(Signal::STOP);
    other.wait_for_log("is gone: it is silent");
    one.signal(Signal::CONT);
    one.wait_for_log("is gone: ");
    one.wait_for_metric("parlor_hosts", 1);
    other.wait_for_metric("parlor_hosts", 1);
    for host in [&one, &other] {
        assert_eq!(host.metric("parlor_relations_ended_total"), 1, "{}", host.log());
    }
}

#[test]
fn a_connection_that_is_cut_is_made_anew() {
    let redis = Redis::start();
    let (one, other) = (server(Setup::EPOLL_1, &redis), server(Setup::EPOLL_1, &redis));
    one.wait_for_metric("parlor_hosts", 1);
    other.wait_for_metric("parlor_hosts", 1);
    for kind in ["normal", "pubsub"] {
        let before = one.metric("parlor_redis_reconnects_total");
        assert_eq!(redis.ask(&["CLIENT", "KILL", "TYPE", kind]), Value::Integer(2));
        for host in [&one, &other] {
            wait_until("a new connection", || host.metric("parlor_redis_reconnects_total") > before);
            expect_ready(host, true, BACK);
            host.wait_for_metric("parlor_hosts", 1);
        }
    }
    assert!(one.metric("parlor_relations_ended_total") > 0, "mail may have been lost");
}

#[test]
fn a_wrong_password_is_a_clear_line_in_the_log_and_nothing_else() {
    let redis = Redis::start_with_password("open sesame");
    let address = redis.address;
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let named = |password: &'static str| {
        let environment = [
            ("REDIS_HOST_PUB", host.as_str()),
            ("REDIS_HOST_SUBS", &host),
            ("REDIS_PORT", &port),
            ("REDIS_PASSWORD", password),
        ];
        Server::start(Setup::EPOLL_1, &environment)
    };
    let (wrong, right) = (named("hidden rune"), named("open sesame"));
    expect_ready(&right, true, BACK);
    let line = wrong.wait_for_log("cannot be reached");
    assert!(line.contains(" WARN ") && line.to_lowercase().contains("password"), "{line}");
    assert!(!is_ready(&wrong));
    let (mut one, mut other) = pair(&wrong);
    check_relay(&mut one, &mut other);
    // A URL says the same, with a user or without.
    let url = format!("redis://default:open%20sesame@{address}/1");
    let by_url = Server::start(Setup::EPOLL_1, &[("REDIS_URL", &url)]);
    expect_ready(&by_url, true, BACK);
    for server in [&wrong, &right, &by_url] {
        assert!(!server.log().contains("rune") && !server.log().contains("sesame"), "{}", server.log());
    }
}

#[test]
fn a_url_that_makes_no_sense_is_left_out_without_being_shown() {
    let server = Server::start(Setup::EPOLL_1, &[("REDIS_URL", "redis.example/?password=rune")]);
    assert!(server.log().contains("REDIS_URL=… makes no sense"), "{}", server.log());
    assert!(!server.log().contains("rune"));
    let health = get(server.address, "/healthz");
    assert!(!health.body.contains("redis"), "{}", health.body);
    assert_eq!(get(server.address, "/readyz").status, 200);
}

#[test]
fn what_redis_does_is_counted() {
    let redis = Redis::start();
    let server = server(Setup::EPOLL_1, &redis);
    expect_ready(&server, true, BACK);
    server.wait_for_metric("parlor_redis_queue", 0);
    let answer = get(server.address, "/metrics");
    for name in [
        "parlor_redis_commands_total",
        "parlor_redis_publishes_total",
        "parlor_redis_pushes_total",
        "parlor_redis_bytes_sent_total",
        "parlor_redis_bytes_received_total",
        "parlor_redis_reply_seconds_count",
        "signaling_server_publish_messages",
        "signaling_server_subscribe_messages",
    ] {
        assert!(metric_in(&answer, name) > 0, "{name}");
    }
    assert_eq!(metric_in(&answer, "parlor_redis_subscriptions"), 3);
    for name in
        ["parlor_redis_replies_failed_total", "parlor_redis_reconnects_total", "parlor_cluster_panics_total"]
    {
        assert_eq!(metric_in(&answer, name), 0, "{name}");
    }
    let last_ms =
        answer.body.lines().find_map(|line| line.strip_prefix("signaling_server_redis_publish_time "));
    let last_ms: f64 = last_ms.expect("it is there").parse().expect("a number");
    assert!(last_ms > 0.0 && last_ms < WAIT.as_millis() as f64, "{last_ms}");
}

#[test]
fn without_redis_in_its_configuration_a_host_says_nothing_of_it() {
    let server = Server::start(Setup::EPOLL_1, &[("REDIS_PORT", "6379"), ("REDIS_PASSWORD", "x")]);
    let health = get(server.address, "/healthz");
    assert!(!health.body.contains("redis"), "{}", health.body);
    assert!(!get(server.address, "/metrics").body.contains("parlor_redis"));
    assert_eq!(get(server.address, "/readyz").status, 200);
}
