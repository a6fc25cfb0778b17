//! A WebSocket that sees frames while they are still under way, and sends any bytes.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::{connect, upgrade};
use crate::support::{CLOSE, End, FIN, Frame, PING, PONG, Server, WAIT, close_frame, frame, upgrade_head};

/// A message as its receiver sees it while it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The opcode of its first frame.
    pub(crate) opcode: u8,
    pub(crate) len: usize,
    pub(crate) is_whole: bool,
}

/// A WebSocket that sees frames while they are still under way, and sends any bytes. It answers nothing by itself.
pub(crate) struct Watcher {
    pub(crate) stream: TcpStream,
    /// What came of the header of the frame under way.
    header: Vec<u8>,
    /// What has yet to come of its payload; nothing while its header is not whole.
    left: Option<usize>,
    /// What came of it, if it is a control frame.
    control: Vec<u8>,
    /// Payload of data frames that was not taken yet.
    pub(crate) payload: Vec<u8>,
    /// Messages that were not taken yet; the last one may be open.
    pub(crate) messages: VecDeque<Seen>,
    /// Control frames that were not taken yet.
    pub(crate) controls: VecDeque<Frame>,
    is_closed: bool,
}

impl Watcher {
    pub(crate) fn open(server: &Server, path: &str) -> Self {
        Self::open_over(connect(server), path, b"")
    }

    /// [`Watcher::open`], of which the server is known to have heard before whatever comes later.
    pub(crate) fn hold(server: &Server, path: &str) -> Self {
        let mut watcher = Self::open(server, path);
        watcher.expect_pong(b"held");
        watcher
    }

    /// [`Watcher::open`] over a connection that is there already, with bytes right behind the head.
    pub(crate) fn open_over(mut stream: TcpStream, path: &str, behind: &[u8]) -> Self {
        upgrade(&mut stream, &upgrade_head(path, ""), behind);
        let (header, control, payload) = (Vec::new(), Vec::new(), Vec::new());
        let (messages, controls) = (VecDeque::new(), VecDeque::new());
        Self { stream, header, left: None, control, payload, messages, controls, is_closed: false }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the connection takes all bytes");
    }

    /// Whether a frame has begun to come and is not whole.
    pub(crate) fn is_in_frame(&self) -> bool {
        !self.header.is_empty()
    }

    /// Reads until `reached` says so. Each bit of payload is a reason for more patience.
    pub(crate) fn wait_for(&mut self, awaited: &str, reached: impl Fn(&Self) -> bool) {
        let mut start = Instant::now();
        while !reached(self) {
            let before = self.payload.len();
            let end = self.read(awaited);
            assert!(end.is_none(), "waited for {awaited} and got {end:?}: {}", self.state());
            if self.payload.len() > before {
                start = Instant::now();
            }
            assert!(start.elapsed() < WAIT, "waited {WAIT:?} for {awaited}: {}", self.state());
        }
    }

    /// Takes this much payload, which must be this.
    pub(crate) fn expect_payload(&mut self, expected: &[u8]) {
        let awaited = format!("{} bytes of payload", expected.len());
        self.wait_for(&awaited, |watcher| watcher.payload.len() >= expected.len());
        let got: Vec<u8> = self.payload.drain(..expected.len()).collect();
        assert!(got == expected, "{expected:.200?} is expected, not {got:.200?}");
    }

    /// Takes the next message, which must be this one.
    pub(crate) fn expect_message(&mut self, first: u8, expected: &[u8]) {
        let awaited = format!("a message of {} bytes", expected.len());
        self.wait_for(&awaited, |watcher| watcher.messages.front().is_some_and(|seen| seen.is_whole));
        let seen = self.messages.pop_front().expect("there is one");
        assert_eq!(seen, Seen { opcode: first & 0x0f, len: expected.len(), is_whole: true });
        self.expect_payload(expected);
    }

    /// Takes control frames up to the next one of this kind.
    pub(crate) fn next_control(&mut self, first: u8, awaited: &str) -> Frame {
        loop {
            self.wait_for(awaited, |watcher| !watcher.controls.is_empty());
            let control = self.controls.pop_front().expect("there is one");
            if control.first == first {
                return control;
            }
            assert_ne!(control.first, CLOSE, "waited for {awaited} and got {control:?}");
        }
    }

    /// Sends a ping and waits for its pong.
    pub(crate) fn expect_pong(&mut self, payload: &[u8]) {
        self.send(&frame(PING, payload));
        let awaited = format!("the pong to {:?}", String::from_utf8_lossy(payload));
        assert_eq!(self.next_control(PONG, &awaited).payload, payload, "{awaited}");
    }

    /// Waits for a close, which must have this code or none. Returns its reason.
    pub(crate) fn expect_close(&mut self, code: Option<u16>) -> String {
        let close = self.next_control(CLOSE, &format!("a close with {code:?}"));
        assert_eq!(close.close_code(), code, "{:?}", String::from_utf8_lossy(&close.payload));
        String::from_utf8_lossy(close.payload.get(2..).unwrap_or_default()).into_owned()
    }

    /// Answers a close and waits for the end of TCP, which must be in order.
    pub(crate) fn finish(mut self, code: Option<u16>) {
        // The server need not wait for the answer to its answer.
        let answer = code.map_or_else(|| frame(CLOSE, b""), |code| close_frame(code, b""));
        let _ = self.stream.write_all(&answer);
        assert_eq!(self.end(), End::Fin, "TCP ends in order after a close");
    }

    /// The server must close this one without a code, or cut it if a frame is open.
    pub(crate) fn expect_close_or_cut(&mut self) {
        let start = Instant::now();
        while !self.is_closed {
            assert!(start.elapsed() < WAIT, "waited {WAIT:?} for a close: {}", self.state());
            if let Some(end) = self.read("a close, or the end inside a frame") {
                assert!(
                    self.is_in_frame(),
                    "cut ({end:?}) with no frame open and no close: {}",
                    self.state()
                );
                return;
            }
        }
        self.expect_close(None);
    }

    /// Reads until the end of TCP.
    pub(crate) fn end(&mut self) -> End {
        let start = Instant::now();
        loop {
            if let Some(end) = self.read("the end of the connection") {
                return end;
            }
            assert!(
                start.elapsed() < WAIT,
                "waited {WAIT:?} for the end of the connection: {}",
                self.state()
            );
        }
    }

    /// One read. Says how TCP ended, if it did.
    pub(crate) fn read(&mut self, awaited: &str) -> Option<End> {
        let mut scratch = [0; 64 * 1024];
        match self.stream.read(&mut scratch) {
            Ok(0) => Some(End::Fin),
            Ok(count) => {
                self.take(&scratch[..count]);
                None
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(End::Reset),
            Err(error) => panic!("waited for {awaited}: {error}; {}", self.state()),
        }
    }

    fn state(&self) -> String {
        let last = self.messages.iter().rev().take(3).collect::<Vec<_>>();
        format!(
            "{} messages, the last ones {last:?}, {} bytes not taken, in a frame: {}, controls {:?}",
            self.messages.len(),
            self.payload.len(),
            self.is_in_frame(),
            self.controls
        )
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if let Some(left) = self.left {
                let (piece, rest) = bytes.split_at(left.min(bytes.len()));
                self.take_payload(piece);
                bytes = rest;
            } else {
                self.header.push(bytes[0]);
                bytes = &bytes[1..];
                self.begin_frame();
            }
            if self.left == Some(0) {
                self.end_frame();
            }
        }
    }

    /// Does nothing while the header is not whole.
    fn begin_frame(&mut self) {
        let [first, second, rest @ ..] = self.header.as_slice() else { return };
        let len = match (*second, rest.len()) {
            (126, 2) => rest.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)),
            (127, 8) => rest.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)),
            (0..=125, 0) => usize::from(*second),
            (126 | 127, _) => return,
            _ => panic!("a server must not mask"),
        };
        assert!(!self.is_closed, "nothing comes behind a close: {}", self.state());
        assert_eq!(first & 0x70, 0, "no extension was accepted");
        let (opcode, is_open) = (first & 0x0f, self.messages.back().is_some_and(|last| !last.is_whole));
        match opcode {
            0 => assert!(is_open, "a continuation of nothing: {}", self.state()),
            1 | 2 => {
                assert!(!is_open, "a message inside another: {}", self.state());
                self.messages.push_back(Seen { opcode, len: 0, is_whole: false });
            }
            8..=10 => assert!(first & FIN != 0 && len <= 125, "a control frame of {len} bytes"),
            other => panic!("an unknown opcode: {other}"),
        }
        self.left = Some(len);
    }

    fn take_payload(&mut self, piece: &[u8]) {
        self.left = self.left.map(|left| left - piece.len());
        if self.header[0] & 0x08 != 0 {
            return self.control.extend(piece);
        }
        self.payload.extend(piece);
        self.messages.back_mut().expect("it is open").len += piece.len();
    }

    fn end_frame(&mut self) {
        let first = self.header[0];
        self.left = None;
        self.header.clear();
        if first & 0x08 != 0 {
            self.is_closed |= first == CLOSE;
            self.controls.push_back(Frame { first, payload: std::mem::take(&mut self.control) });
        } else if first & FIN != 0 {
            self.messages.back_mut().expect("it is open").is_whole = true;
        }
    }
}
