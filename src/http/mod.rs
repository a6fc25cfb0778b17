//! Plain HTTP on the same port: health, metrics, a page (protocols.md section 0, HTTP).

mod metrics;
mod page;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use http::header::FORWARDED;
use http::{Method, StatusCode};
use jiff::Timestamp;

use crate::metrics::{ClusterMetrics, Counters};
use crate::net::driver::Decision;
use crate::wire::http::{RequestHead, Response, wants_keep_alive};

/// What the answers are made of, shared by all cores. All counts are those of the request's moment.
#[derive(Debug)]
pub struct Overview {
    /// One per shard.
    pub counters: Vec<Arc<Counters>>,
    /// Of the thread that speaks to Redis, where Redis is configured.
    pub cluster: Option<Arc<ClusterMetrics>>,
    /// When the server started.
    pub started: Instant,
    /// `INSTANCE_ID`.
    pub instance_id: String,
    /// The driver, and why it is not a better one.
    pub decision: Decision,
    /// The paths that WebSockets may be opened on, and what is spoken there.
    pub paths: Vec<(String, &'static str)>,
    /// `HTTP_PORT` is open, and `/metrics` is there alone.
    pub has_private_port: bool,
    /// Set when the server shuts down: it is not ready any more.
    pub draining: Arc<AtomicBool>,
}

impl Overview {
    /// Open WebSocket connections on all shards.
    fn clients(&self) -> u64 {
        self.counters.iter().map(|counters| counters.clients.value()).sum()
    }

    fn uptime_s(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// Whether our own heartbeat has come back through Redis of late; nothing where Redis is not configured.
    fn is_redis_ready(&self) -> Option<bool> {
        let now_ms = self.started.elapsed().as_millis() as u64;
        self.cluster.as_ref().map(|cluster| cluster.is_ready(now_ms))
    }
}

/// Who asks, and what is known of the directory where that is asked.
pub struct Caller<'a> {
    /// Whether the request comes from this machine.
    pub is_local: &'a dyn Fn() -> bool,
    /// Whether it came in on `HTTP_PORT`.
    pub is_private: bool,
    /// The names in the directory.
    pub names: &'a dyn Fn() -> Vec<String>,
}

/// An answer as it goes onto the wire.
#[derive(Debug)]
pub struct Answer {
    /// Head and body.
    pub bytes: Vec<u8>,
    /// Whether the connection may serve another request.
    pub keep_alive: bool,
}

/// Answers one request.
#[must_use]
pub fn answer(head: &RequestHead, overview: &Overview, caller: &Caller<'_>) -> Answer {
    let response = match head.method {
        Method::GET | Method::HEAD => resource(head, overview, caller),
        _ => error(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
    };
    let keep_alive = wants_keep_alive(head);
    Answer { bytes: response.emit(head.method == Method::HEAD, keep_alive), keep_alive }
}

fn resource(head: &RequestHead, overview: &Overview, caller: &Caller<'_>) -> Response {
    let has_metrics = caller.is_private || !overview.has_private_port;
    match (head.uri.path(), caller.is_private) {
        ("/healthz", _) => healthz(overview),
        ("/readyz", _) => readyz(overview),
        ("/metrics", _) if has_metrics => Response {
            status: StatusCode::OK,
            content_type: "text/plain; version=0.0.4",
            body: metrics::render(overview),
        },
        ("/health", true) => Response::text(StatusCode::OK, "ok".into()),
        ("/health", false) => health(overview),
        ("/clients", false) => clients(head, caller),
        ("/", false) => Response {
            status: StatusCode::OK,
            content_type: "text/html; charset=utf-8",
            body: page::render(overview),
        },
        _ => error(StatusCode::NOT_FOUND, "Not found"),
    }
}

fn error(status: StatusCode, message: &str) -> Response {
    Response::json(status, serde_json::json!({ "error": message }).to_string())
}

fn healthz(overview: &Overview) -> Response {
    // Written by hand: serde_json would sort the keys.
    let instance_id = serde_json::Value::from(overview.instance_id.as_str());
    let redis = overview.is_redis_ready().map(|is_ready| format!(r#","redis":{is_ready}"#));
    let body = format!(
        r#"{{"ok":true,"uptime":{},"clients":{},"instanceId":{instance_id}{}}}"#,
        overview.uptime_s(),
        overview.clients(),
        redis.unwrap_or_default(),
    );
    Response::json(StatusCode::OK, body)
}

/// The directory's health, as its original says it.
fn health(overview: &Overview) -> Response {
    let logged_in: u64 = overview.counters.iter().map(|counters| counters.directory_clients.value()).sum();
    let now = Timestamp::now();
    let body = format!(
        r#"{{"status":"healthy","clientCount":{logged_in},"uptime":{},"timestamp":"{now:.3}"}}"#,
        overview.uptime_s(),
    );
    Response::json(StatusCode::OK, body)
}

/// The names in the directory, for callers on this machine that nobody stands behind.
fn clients(head: &RequestHead, caller: &Caller<'_>) -> Response {
    let is_forwarded = head.headers.contains_key("x-forwarded-for") || head.headers.contains_key(FORWARDED);
    if is_forwarded || !(caller.is_local)() {
        return error(StatusCode::FORBIDDEN, "Forbidden");
    }
    let names = serde_json::Value::from((caller.names)());
    Response::json(StatusCode::OK, format!(r#"{{"clients":{names}}}"#))
}

/// Ready, or a list of what is missing.
fn readyz(overview: &Overview) -> Response {
    let is_missing = [
        ("draining", overview.draining.load(Ordering::Acquire)),
        ("redis", overview.is_redis_ready() == Some(false)),
    ];
    let missing: Vec<&str> = is_missing.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Response::json(status, serde_json::json!(missing).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::driver::Driver;
    use crate::wire::http::parse_head;

    fn overview() -> Overview {
        let counters: Vec<Arc<Counters>> = vec![Arc::default(), Arc::default()];
        counters[0].clients.add(2);
        counters[1].clients.add(3);
        Overview {
            counters,
            cluster: None,
            started: Instant::now(),
            instance_id: "inst-\"1\"".into(),
            decision: Decision { driver: Driver::Epoll, reason: "IO_DRIVER=epoll".into() },
            paths: vec![("/ws".into(), "pairing")],
            has_private_port: false,
            draining: Arc::default(),
        }
    }

    fn ask(request: &str, overview: &Overview) -> (String, bool) {
        let (head, _) = parse_head(request.as_bytes()).expect("well-formed").expect("complete");
        let caller =
            Caller { is_local: &|| true, is_private: false, names: &|| vec!["a".into(), "b".into()] };
        let answer = answer(&head, overview, &caller);
        (String::from_utf8(answer.bytes).expect("UTF-8"), answer.keep_alive)
    }

    fn body(request: &str) -> String {
        let (text, _) = ask(request, &overview());
        text.split_once("\r\n\r\n").expect("a head").1.to_owned()
    }

    #[test]
    fn health_counts_all_shards() {
        let (text, keep_alive) = ask("GET /healthz?x=1 HTTP/1.1\r\n\r\n", &overview());
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"));
        assert!(text.ends_with(r#"{"ok":true,"uptime":0,"clients":5,"instanceId":"inst-\"1\""}"#));
        assert!(keep_alive);
    }

    #[test]
    fn a_head_request_has_the_length_but_not_the_body() {
        let whole = body("GET /readyz HTTP/1.1\r\n\r\n");
        let (text, _) = ask("HEAD /readyz HTTP/1.1\r\n\r\n", &overview());
        assert!(text.ends_with("\r\n\r\n"));
        assert!(text.contains(&format!("Content-Length: {}\r\n", whole.len())));
    }

    #[test]
    fn what_is_not_there_is_said_so() {
        assert_eq!(body("GET /nothing HTTP/1.1\r\n\r\n"), r#"{"error":"Not found"}"#);
        let (text, keep_alive) = ask("POST /healthz HTTP/1.1\r\nContent-Length: 3\r\n\r\n", &overview());
        assert!(text.starts_with("HTTP/1.1 405 "));
        assert!(!keep_alive, "the body is not read");
    }

    #[test]
    fn a_draining_server_is_not_ready() {
        let overview = overview();
        overview.draining.store(true, Ordering::Release);
        let (text, _) = ask("GET /readyz HTTP/1.1\r\n\r\n", &overview);
        assert!(text.starts_with("HTTP/1.1 503 ") && text.ends_with(r#"["draining"]"#));
    }

    #[test]
    fn redis_is_named_where_it_is_configured() {
        let metrics: Arc<ClusterMetrics> = Arc::default();
        let mut overview = Overview { cluster: Some(Arc::clone(&metrics)), ..overview() };
        let ask = |path: &str, overview: &Overview| ask(&format!("GET {path} HTTP/1.1\r\n\r\n"), overview).0;
        assert!(ask("/healthz", &overview).ends_with(r#""instanceId":"inst-\"1\"","redis":false}"#));
        let answer = ask("/readyz", &overview);
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with(r#"["redis"]"#), "{answer}");
        overview.draining.store(true, Ordering::Release);
        assert!(ask("/readyz", &overview).ends_with(r#"["draining","redis"]"#));
        overview.draining = Arc::default();
        metrics.set_returned(Some(overview.started.elapsed().as_millis() as u64));
        assert!(ask("/healthz", &overview).ends_with(r#","redis":true}"#));
        assert!(ask("/readyz", &overview).ends_with("[]"));
    }

    #[test]
    fn the_numbers_of_redis_are_there_where_it_is_configured() {
        let metrics: Arc<ClusterMetrics> = Arc::default();
        metrics.replies.add(700);
        metrics.replies.add(3_000_000);
        metrics.counters.redis_publishes.add(5);
        metrics.last_calls_us[crate::metrics::Call::Publish as usize].set(1_500);
        let overview = Overview { cluster: Some(metrics), ..overview() };
        let (text, _) = ask("GET /metrics HTTP/1.1\r\n\r\n", &overview);
        for line in [
            "# TYPE parlor_redis_reply_seconds histogram",
            "parlor_redis_reply_seconds_bucket{le=\"0.0005\"} 0",
            "parlor_redis_reply_seconds_bucket{le=\"0.001\"} 1",
            "parlor_redis_reply_seconds_bucket{le=\"2.5\"} 1",
            "parlor_redis_reply_seconds_bucket{le=\"+Inf\"} 2",
            "parlor_redis_reply_seconds_sum 3.0007",
            "parlor_redis_reply_seconds_count 2",
            "parlor_redis_publishes_total 5",
            "signaling_server_publish_messages 5",
            "signaling_server_redis_publish_time 1.5",
            "signaling_server_redis_get_time 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
        assert!(!body("GET /metrics HTTP/1.1\r\n\r\n").contains("parlor_redis"));
    }

    #[test]
    fn metrics_add_up_all_shards() {
        let text = body("GET /metrics HTTP/1.1\r\n\r\n");
        assert!(text.contains("# TYPE parlor_clients gauge\nparlor_clients 5\n"), "{text}");
        assert!(text.contains("driver=\"epoll\""));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').expect("name and value");
            let is_named = name.starts_with("parlor_") || name.starts_with("signaling_server_");
            assert!(is_named && value.parse::<f64>().is_ok(), "{line}");
        }
    }

    #[test]
    fn the_page_names_paths_and_driver() {
        let page = body("GET / HTTP/1.1\r\n\r\n");
        for text in ["<!doctype html>", "/ws", "pairing", "epoll", env!("CARGO_PKG_VERSION")] {
            assert!(page.contains(text), "{text}");
        }
        assert!(page.contains("inst-&quot;1&quot;"), "text is escaped");
    }
}
