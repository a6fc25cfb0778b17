//! What the tests of documents share: a WebSocket on any path, one that sees frames while they are still under way, an
//! end of raw bytes, and bytes that can be compared without being kept.

mod socket;
mod watcher;

pub(crate) use socket::{Socket, shown};
pub(crate) use watcher::{Seen, Watcher};

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use socket2::{Domain, SockAddr, SockRef, Type};

use super::{End, Raw, Response, Server, WAIT};

/// So long a socket that takes nothing more counts as blocked, and one that gives nothing as silent.
pub(crate) const STILL: Duration = Duration::from_millis(500);

/// The head of a request for raw bytes; `more` are further header lines.
pub(crate) fn tcp_head(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: parlor.test\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n{more}\r\n")
}

/// The answer to a head, on a connection of its own.
pub(crate) fn answer_to(server: &Server, head: &str) -> Response {
    let mut raw = Raw::connect(server.address);
    raw.send(head.as_bytes());
    raw.response_to(head)
}

/// A TCP connection whose waits all have an end.
pub(crate) fn connect(server: &Server) -> TcpStream {
    bounded(TcpStream::connect(server.address).expect("the server listens"))
}

/// A TCP connection of which the kernel keeps little that is not read, and little that is not sent.
pub(crate) fn connect_with_small_buffers(server: &Server) -> TcpStream {
    let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(64 * 1024).expect("a socket");
    socket.set_send_buffer_size(64 * 1024).expect("a socket");
    socket.connect(&SockAddr::from(server.address)).expect("the server listens");
    bounded(socket.into())
}

fn bounded(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(WAIT)).expect("a socket");
    stream.set_write_timeout(Some(WAIT)).expect("a socket");
    stream
}

/// Sends a head and takes the head of the answer byte by byte, so that nothing behind it is taken. It must be a 101.
fn upgrade(stream: &mut TcpStream, head: &str, behind: &[u8]) -> String {
    stream.write_all(&[head.as_bytes(), behind].concat()).expect("the server takes a head");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        let failure = match stream.read(&mut byte) {
            Ok(0) => "the connection ended".to_owned(),
            Ok(_) => {
                answer.push(byte[0]);
                continue;
            }
            Err(error) => error.to_string(),
        };
        panic!("waited for the answer to {head}: {failure}; got {}", String::from_utf8_lossy(&answer));
    }
    let answer = String::from_utf8(answer).expect("a head is text");
    assert!(answer.starts_with("HTTP/1.1 101 "), "a 101 is expected to {head}\n{answer}");
    answer
}

/// Sends until nothing more is taken for a while. Returns how many bytes were taken.
pub(crate) fn send_until_blocked(stream: &TcpStream, bytes: &[u8]) -> usize {
    let (mut sent, mut last) = (0, Instant::now());
    while sent < bytes.len() && last.elapsed() < STILL {
        match send(stream, &bytes[sent..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(count) => (sent, last) = (sent + count, Instant::now()),
            Err(Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(2)),
            Err(error) => panic!("the connection takes bytes or none, but after {sent}: {error}"),
        }
    }
    sent
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Ends TCP with a reset.
fn reset(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("a socket");
}

/// One end of a pipe of raw bytes.
pub(crate) struct RawEnd {
    pub(crate) stream: TcpStream,
}

impl RawEnd {
    pub(crate) fn open(server: &Server, path: &str) -> Self {
        Self::open_over(connect(server), path, b"").0
    }

    /// [`RawEnd::open`] over a connection that is there already, with bytes right behind the head. Also returns the
    /// head of the answer.
    pub(crate) fn open_over(mut stream: TcpStream, path: &str, behind: &[u8]) -> (Self, String) {
        let answer = upgrade(&mut stream, &tcp_head(path, ""), behind);
        (Self { stream }, answer)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the connection takes all bytes");
    }

    /// The next bytes must be these.
    pub(crate) fn expect(&mut self, expected: &[u8]) {
        let mut got = vec![0; expected.len()];
        let mut count = 0;
        while count < got.len() {
            match self.stream.read(&mut got[count..]) {
                Ok(0) => panic!("waited for {} bytes and got the end after {count}", expected.len()),
                Ok(more) => count += more,
                Err(error) => panic!("waited for {} bytes, got {count}: {error}", expected.len()),
            }
        }
        assert!(got == expected, "{expected:.200?} is expected, not {got:.200?}");
    }

    /// Sends the end of this direction.
    pub(crate) fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).expect("a socket");
    }

    /// The next thing must be the end of the other direction, like this.
    pub(crate) fn expect_end(&mut self, expected: End) {
        assert_eq!(self.end(), expected);
    }

    /// The next thing must be the end of the other direction. Says how it came.
    pub(crate) fn end(&mut self) -> End {
        match self.stream.read(&mut [0; 64]) {
            Ok(0) => End::Fin,
            Ok(count) => panic!("waited for the end and got {count} bytes or more"),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => End::Reset,
            Err(error) => panic!("waited for the end: {error}"),
        }
    }

    /// Nothing comes for a while, and no end either.
    pub(crate) fn expect_silence(&mut self) {
        self.stream.set_read_timeout(Some(STILL)).expect("a socket");
        let got = self.stream.read(&mut [0; 64]);
        assert!(got.as_ref().is_err_and(is_timeout), "nothing is expected, not {got:?}");
        self.stream.set_read_timeout(Some(WAIT)).expect("a socket");
    }

    /// Ends TCP with a reset.
    pub(crate) fn reset(self) {
        reset(&self.stream);
    }
}

/// Numbers that follow from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// One of `0..end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(1);
        (mixed(self.0) % end as u64) as usize
    }
}

/// Bytes without an end that follow from a seed: who sends them and who gets them need not keep them.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    seed: u64,
    at: u64,
    mask: u8,
}

impl Pattern {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed: mixed(seed), at: 0, mask: 0xff }
    }

    /// Of ASCII alone, so that any part of it is text.
    pub(crate) fn ascii(seed: u64) -> Self {
        Self { mask: 0x7f, ..Self::new(seed) }
    }

    /// How many bytes were taken or checked.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// The next bytes.
    pub(crate) fn take(&mut self, len: usize) -> Vec<u8> {
        let bytes = (self.at..self.at + len as u64).map(|at| self.byte(at)).collect();
        self.at += len as u64;
        bytes
    }

    /// The next bytes must be these.
    pub(crate) fn check(&mut self, got: &[u8]) {
        for (index, byte) in got.iter().enumerate() {
            let at = self.at + index as u64;
            assert!(*byte == self.byte(at), "byte {at} is not what was sent");
        }
        self.at += got.len() as u64;
    }

    fn byte(&self, at: u64) -> u8 {
        mixed(self.seed ^ (at >> 3)).to_le_bytes()[at as usize & 7] & self.mask
    }
}

/// The finish of splitmix64.
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}
