//! What needs a bug in the server: a panic over one client closes that client, and nobody else notices.

use std::io::Write;
use std::net::TcpStream;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tungstenite::{Message, WebSocket};

use super::*;
use crate::plant::Plant;

/// The longest that is waited for one thing.
const WAIT: Duration = Duration::from_secs(20);

/// The log of all servers in this process.
struct Log(Mutex<Vec<u8>>);

impl Write for &Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Starts to collect what is logged; only the first call does anything.
    fn collect() -> &'static Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        static START: std::sync::Once = std::sync::Once::new();
        let log = LOG.get_or_init(|| Log(Mutex::default()));
        START.call_once(|| {
            tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(move || log)
                .try_init()
                .expect("nobody else collects the log");
        });
        log
    }

    /// Waits for a line that contains all of `parts`.
    fn wait_for(&self, parts: &[&str]) -> String {
        let start = Instant::now();
        loop {
            let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let mut lines = text.lines();
            if let Some(line) = lines.find(|line| parts.iter().all(|part| line.contains(part))) {
                return line.to_owned();
            }
            assert!(start.elapsed() < WAIT, "no line with {parts:?} in:\n{text}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A client of pairing.
struct Client(WebSocket<TcpStream>);

impl Client {
    fn connect(server: &Server) -> Self {
        let address = server.address();
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(WAIT)).expect("a socket");
        let (socket, _) = tungstenite::client(format!("ws://{address}/ws"), stream).expect("a WebSocket");
        let mut client = Self(socket);
        client.expect(r#"{"type":"ready","#);
        client
    }

    fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).expect("the connection is there");
    }

    /// The next message must begin like this.
    fn expect(&mut self, start: &str) {
        let message = self.0.read().unwrap_or_else(|error| panic!("waited for {start}: {error}"));
        assert!(message.to_text().is_ok_and(|text| text.starts_with(start)), "{start}: {message:?}");
    }
}

fn panics(server: &Server) -> u64 {
    server.counters().iter().map(|counters| counters.panics.value()).sum()
}

fn a_panic_closes_the_client_that_it_happened_over(driver: &str) {
    let log = Log::collect();
    let flags =
        ["parlor", "--host=127.0.0.1", "--port=0", "--ring-entries=256", "--io-driver", driver, "--shards=1"];
    let (config, _) = Config::from(flags.map(Into::into), |_| None).expect("usable");
    let planted = Planted::new(Some(Plant::PanicOnDemand));
    let server = Server::start_planted(&config, planted).expect("it starts, on io_uring as well");
    assert_eq!(server.decision().driver.name(), driver);
    let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(&server)).collect();
    for (count, pair) in (1..).zip(clients.chunks_mut(2)) {
        let [one, other] = pair else { panic!("an even number") };
        for client in [&mut *one, &mut *other] {
            client.send(r#"{"type":"available"}"#);
        }
        one.expect(r#"{"type":"matched""#);
        other.expect(r#"{"type":"matched""#);
        one.send("panic");
        assert!(one.0.read().is_err(), "it is cut without a word");
        // Its partner is told and matched anew; the shard goes on.
        other.expect(r#"{"type":"partner-left"}"#);
        let mut next = Client::connect(&server);
        next.send(r#"{"type":"available"}"#);
        next.expect(r#"{"type":"matched""#);
        other.expect(r#"{"type":"matched""#);
        next.send(r#"{"type":"offer","sdp":1}"#);
        other.expect(r#"{"type":"offer""#);
        // Both are out of the next pair's way.
        for client in [&mut next, other] {
            client.send(r#"{"type":"leave"}"#);
        }
        assert_eq!(panics(&server), count);
    }
    log.wait_for(&["ERROR", "panic while a client was handled: planted"]);
    drop(clients);
    server.stopper().stop();
    assert!(server.wait(), "the shards come to an end in order");
}

#[test]
fn a_panic_is_caught_on_io_uring() {
    a_panic_closes_the_client_that_it_happened_over("io_uring");
}

#[test]
fn a_panic_is_caught_on_epoll() {
    a_panic_closes_the_client_that_it_happened_over("epoll");
}
