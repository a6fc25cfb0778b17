//! What `--healthcheck` does: asks the server of the same configuration for its health, so that a container without a
//! shell or an HTTP client can be watched.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::config::Config;

/// Longest that everything together may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// More is not read of an answer.
const ANSWER_BYTES_MAX: usize = 8 * 1_024;

const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Asks the server that runs on this machine with this configuration.
///
/// # Errors
/// No server answers in time, or it answers something else than 200, or its port cannot be known.
pub fn check(config: &Config) -> io::Result<()> {
    if config.port == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the system chose the port: set PORT"));
    }
    let deadline = Instant::now() + TIMEOUT;
    let mut last_error = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in reachable(config.addresses()?) {
        match ask(address, deadline) {
            Ok(()) => return Ok(()),
            Err(error) => last_error = io::Error::new(error.kind(), format!("{address}: {error}")),
        }
    }
    Err(last_error)
}

/// The addresses to connect to for a server on `addresses`. One on all interfaces is on IPv4's loopback in any case:
/// its IPv6 socket takes IPv4 as well, and `::1` is missing in many a container.
fn reachable(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut reachable: Vec<SocketAddr> = Vec::new();
    for mut address in addresses {
        if address.ip().is_unspecified() {
            address = (IpAddr::from(Ipv4Addr::LOCALHOST), address.port()).into();
        }
        if !reachable.contains(&address) {
            reachable.push(address);
        }
    }
    reachable
}

fn ask(address: SocketAddr, deadline: Instant) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, time_left(deadline)?)?;
    stream.set_write_timeout(Some(time_left(deadline)?))?;
    stream.write_all(REQUEST)?;
    let answer = read_all(&mut stream, deadline)?;
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok(());
    }
    let status = answer.split(|&byte| byte == b'\r').next().unwrap_or_default();
    Err(io::Error::other(format!("answered {:?}", String::from_utf8_lossy(status))))
}

/// Reads to the end, or to as much as is wanted.
fn read_all(stream: &mut TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    let mut len = 0;
    while len < answer.len() {
        stream.set_read_timeout(Some(time_left(deadline)?))?;
        match stream.read(&mut answer[len..]) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // How a socket says that its time is over.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(too_late()),
            Err(error) => return Err(error),
        }
    }
    answer.truncate(len);
    Ok(answer)
}

fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(too_late()) } else { Ok(left) }
}

fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", TIMEOUT.as_secs()))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::*;
    use crate::server::Server;

    fn config(flags: &[&str]) -> Config {
        let flags = ["parlor"].iter().chain(flags).map(OsString::from);
        Config::from(flags, |_| None).expect("usable").0
    }

    fn config_at(address: SocketAddr) -> Config {
        config(&["--host", &address.ip().to_string(), "--port", &address.port().to_string()])
    }

    /// Answers one request with these pieces and closes; returns the request.
    fn answering(pieces: &'static [&'static str]) -> (Config, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let config = config_at(listener.local_addr().expect("bound"));
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the check");
            let mut request = [0; 256];
            let count = stream.read(&mut request).expect("a request");
            for piece in pieces {
                stream.write_all(piece.as_bytes()).expect("it reads on");
                std::thread::sleep(Duration::from_millis(20));
            }
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        (config, thread)
    }

    #[test]
    fn a_running_server_is_healthy_and_a_stopped_one_is_not() {
        for flags in [&["--host", "127.0.0.1"][..], &[]] {
            let rest = ["--port", "0", "--shards", "1", "--ring-entries", "64"];
            let server = Server::start(&config(&[flags, &rest].concat())).expect("starts");
            let port = server.address().port().to_string();
            let config = config(&[flags, &["--port", &port]].concat());
            check(&config).expect("healthy");
            server.stopper().stop();
            assert!(server.wait());
            let error = check(&config).expect_err("nobody listens");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
        }
    }

    #[test]
    fn an_answer_may_come_in_pieces() {
        let (config, thread) = answering(&["HTTP/1.1 2", "00 OK\r\nContent-Le", "ngth: 2\r\n\r\n{}"]);
        check(&config).expect("healthy");
        let request = thread.join().expect("answered");
        assert!(request.starts_with("GET /healthz HTTP/1.1\r\nHost: "), "{request}");
    }

    #[test]
    fn any_other_answer_is_an_error_that_quotes_it() {
        for pieces in [
            &["HTTP/1.1 503 Service Unavailable\r\n\r\n"][..],
            &["HTTP/1.1 2000 OK\r\n\r\n"],
            &["SSH-2.0-OpenSSH_9.2\r\n"],
            &[],
        ] {
            let (config, thread) = answering(pieces);
            let error = check(&config).expect_err("not healthy").to_string();
            let first_line = pieces.first().map_or("", |piece| piece.lines().next().unwrap_or_default());
            assert!(error.ends_with(&format!("answered {first_line:?}")), "{error}");
            thread.join().expect("answered");
        }
    }

    #[test]
    fn silence_ends_in_time() {
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let start = Instant::now();
        let error = check(&config_at(silent.local_addr().expect("bound"))).expect_err("nobody answers");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        assert!(start.elapsed() < TIMEOUT * 2);
    }

    #[test]
    fn all_interfaces_are_asked_on_loopback() {
        for flags in [&[][..], &["--host", "0.0.0.0"], &["--host", "::"]] {
            let addresses = config(flags).addresses().expect("resolves");
            assert_eq!(reachable(addresses), ["127.0.0.1:8080".parse().expect("an address")], "{flags:?}");
        }
        let addresses = config(&["--host", "::1"]).addresses().expect("resolves");
        assert_eq!(reachable(addresses), ["[::1]:8080".parse().expect("an address")]);
    }

    #[test]
    fn a_port_that_the_system_chose_is_not_known() {
        assert_eq!(
            check(&config(&["--port", "0"])).expect_err("unknown").kind(),
            io::ErrorKind::InvalidInput
        );
    }
}
