//! What the tests of all dialects share: a client on any path, texts that are JSON or are not, and random JSON. Whatever is
//! waited for, is waited for at most [`WAIT`].

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tungstenite::client::client_with_config;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use super::{Raw, Response, Server, WAIT, upgrade_head};

/// A client of any dialect.
pub(crate) struct Peer {
    socket: WebSocket<TcpStream>,
    /// What a failure calls it.
    pub(crate) name: String,
}

impl Peer {
    /// Opens a WebSocket on `path`, which may have a query.
    pub(crate) fn open(server: &Server, path: &str) -> Self {
        Self::try_open(server.address, path).unwrap_or_else(|error| panic!("no WebSocket on {path}: {error}"))
    }

    /// [`Peer::open`]; an error if the server does not take it.
    pub(crate) fn try_open(address: SocketAddr, path: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(WAIT)).map_err(|error| error.to_string())?;
        stream.set_write_timeout(Some(WAIT)).map_err(|error| error.to_string())?;
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let (socket, _) = client_with_config(format!("ws://{address}{path}"), stream, Some(config))
            .map_err(|error| error.to_string())?;
        Ok(Self { socket, name: path.to_owned() })
    }

    /// Sends a text message.
    pub(crate) fn send(&mut self, text: &str) {
        let sent = self.socket.send(Message::text(text));
        sent.unwrap_or_else(|error| panic!("{} sending {}: {error}", self.name, shortened(text)));
    }

    /// Sends a binary message.
    pub(crate) fn send_binary(&mut self, bytes: &[u8]) {
        let sent = self.socket.send(Message::binary(bytes.to_vec()));
        sent.unwrap_or_else(|error| panic!("{} sending {}: {error}", self.name, bytes.escape_ascii()));
    }

    /// Sends many messages in as few writes as possible.
    pub(crate) fn send_at_once<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) {
        for text in texts {
            self.socket.write(Message::text(text)).expect("room to write");
        }
        self.socket.flush().expect("the connection is there");
    }

    /// Sends a message and takes the next one, which must be this answer.
    pub(crate) fn ask(&mut self, text: &str, answer: &str) {
        self.send(text);
        let got = self.next(answer);
        let (name, asked) = (&self.name, shortened(text));
        assert!(
            got == answer,
            "{name} sent {asked}\n and waited for {}\n but got {}",
            shortened(answer),
            shortened(&got)
        );
    }

    /// Sends a message that must not be answered, and that must leave the connection as it is.
    pub(crate) fn tell(&mut self, text: &str) {
        self.send(text);
        let texts = self.drain();
        assert!(
            texts.is_empty(),
            "{} sent {}\n and should have nothing but got {texts:?}",
            self.name,
            shortened(text)
        );
    }

    /// Takes the next message, which must be a text.
    pub(crate) fn next(&mut self, awaited: &str) -> String {
        loop {
            match self.read(awaited) {
                Message::Text(text) => return text.as_str().to_owned(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{} waited for {} and got {other:?}", self.name, shortened(awaited)),
            }
        }
    }

    /// The next message must be this one, byte for byte.
    pub(crate) fn expect(&mut self, text: &str) {
        let got = self.next(text);
        assert!(got == text, "{} waited for {}\n but got {}", self.name, shortened(text), shortened(&got));
    }

    /// The next messages must be these, in any order.
    pub(crate) fn expect_all<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) {
        let mut expected: Vec<&str> = texts.into_iter().collect();
        let mut got: Vec<String> = expected.iter().map(|text| self.next(text)).collect();
        expected.sort_unstable();
        got.sort_unstable();
        assert_eq!(got, expected, "{}", self.name);
    }

    /// All messages that the server had for this client when it answered a ping. Pings count for no rate.
    pub(crate) fn drain(&mut self) -> Vec<String> {
        const MARK: &[u8] = b"drain";
        self.socket.send(Message::Ping(MARK.into())).expect("the connection is there");
        let mut texts = Vec::new();
        loop {
            match self.read("a pong") {
                Message::Text(text) => texts.push(text.as_str().to_owned()),
                Message::Pong(payload) if payload == MARK => return texts,
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{} waited for a pong and got {other:?} after {texts:?}", self.name),
            }
        }
    }

    /// There must be no message when the server answers a ping.
    pub(crate) fn expect_nothing(&mut self) {
        let texts = self.drain();
        assert!(texts.is_empty(), "{} should have nothing but got {texts:?}", self.name);
    }

    /// The server must close this client like this, with nothing before, and end TCP once that is answered.
    pub(crate) fn expect_close(&mut self, code: u16, reason: &str) {
        let before = self.next_until_close(code, reason);
        assert!(before.is_empty(), "{} waited for close {code} and got {before:?}", self.name);
    }

    /// The server must close this client like this. Returns the messages before.
    pub(crate) fn next_until_close(&mut self, code: u16, reason: &str) -> Vec<String> {
        let expected = CloseFrame { code: code.into(), reason: reason.into() };
        let mut before = Vec::new();
        loop {
            match self.read(&format!("close {code} {reason}")) {
                Message::Close(Some(frame)) if frame == expected => break,
                Message::Text(text) => before.push(text.as_str().to_owned()),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{} waited for close {code} {reason} and got {other:?}", self.name),
            }
        }
        self.expect_end();
        before
    }

    /// Says goodbye and waits for the answer and the end. Returns the messages before.
    pub(crate) fn close(mut self) -> Vec<String> {
        self.socket.close(None).expect("the connection is there");
        let mut before = Vec::new();
        loop {
            match self.read("the answer to a close") {
                Message::Close(None) => break,
                Message::Text(text) => before.push(text.as_str().to_owned()),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{} waited for the answer to a close and got {other:?}", self.name),
            }
        }
        self.expect_end();
        before
    }

    /// Ends TCP with a reset.
    pub(crate) fn reset(self) {
        SockRef::from(self.socket.get_ref()).set_linger(Some(Duration::ZERO)).expect("a socket");
    }

    /// Nothing but the end of TCP may come. Sends the answer to a close if one came.
    fn expect_end(&mut self) {
        match self.socket.read() {
            Err(Error::ConnectionClosed) => {}
            other => panic!("{} waited for the end behind a close and got {other:?}", self.name),
        }
    }

    fn read(&mut self, awaited: &str) -> Message {
        let read = self.socket.read();
        read.unwrap_or_else(|error| {
            panic!("{} waited for {} and got: {error}", self.name, shortened(awaited))
        })
    }
}

/// A WebSocket whose kernel keeps little of what is not read.
pub(crate) fn open_slow(server: &Server, path: &str) -> Raw {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a socket");
    socket.connect(&SockAddr::from(server.address)).expect("it listens");
    let mut raw = Raw::over(socket.into());
    raw.send(upgrade_head(path, "").as_bytes());
    assert_eq!(raw.response().status, 101);
    raw
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

/// Attempts something until it took less than `longest`: a window of the server must not end in the middle of it. Each
/// attempt says how long it took.
pub(crate) fn within<T>(longest: Duration, attempt: impl FnMut() -> (T, Duration)) -> T {
    let mut attempts = std::iter::repeat_with(attempt).take(20);
    let in_time = attempts.find(|(_, took)| *took < longest);
    in_time.unwrap_or_else(|| panic!("too slow a machine: each attempt took more than {longest:?}")).0
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    u64::try_from(elapsed.as_millis()).expect("some centuries fit")
}

/// One value of `/metrics` that may be any number.
pub(crate) fn number_in(response: &Response, name: &str) -> f64 {
    let mut lines = response.body.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.unwrap_or_else(|| panic!("no {name} without labels in:\n{}", response.body));
    value.parse().unwrap_or_else(|_| panic!("{name} is {value}"))
}

/// Where `<fields>` stand for fields of an object: whether that is JSON, as `JSON.parse` has it.
const TEXTS: &[(&str, bool)] = &[
    ("{<fields>}", true),
    (" \t\r\n{<fields>}\n \t\r", true),
    ("{\t<fields> \r\n}", true),
    (r#"{<fields>,"":1}"#, true),
    (r#"{<fields>,"\ud800":1,"a":"\udc00\ud800"}"#, true),
    (r#"{<fields>,"a":1e400,"b":-1E+400,"c":-0,"d":0.0e-07,"e":1e-400}"#, true),
    (r#"{<fields>,"a":123456789012345678901234567890.1234567890}"#, true),
    (r#"{<fields>,"a":"\"\\\/\b\f\n\r\t\u0000\uFFFF"}"#, true),
    ("{<fields>,\"a\":\"\u{7f}\u{80}\u{2028}\u{2029}\u{feff}\u{10ffff}\"}", true),
    (r#"{<fields>,"a":"}{][\\"}"#, true),
    (r#"{"a":{"type":5,"b":[{}]},<fields>,"c":[[],{}]}"#, true),
    ("\u{feff}{<fields>}", false),
    ("\u{a0}{<fields>}", false),
    ("\u{85}{<fields>}", false),
    ("\u{2028}{<fields>}", false),
    ("\u{b}{<fields>}", false),
    ("\u{c}{<fields>}", false),
    ("{<fields>}\0", false),
    ("{<fields>\u{a0}}", false),
    ("{<fields>}{<fields>}", false),
    ("{<fields>},", false),
    ("{<fields>,}", false),
    ("{,<fields>}", false),
    ("{<fields>", false),
    ("{<fields>]", false),
    ("[{<fields>]", false),
    ("<fields>}", false),
    ("<fields>", false),
    (r#"{<fields> "a":1}"#, false),
    (r#"{<fields>,"a"}"#, false),
    (r#"{<fields>,"a":}"#, false),
    (r#"{<fields>,"a":1:2}"#, false),
    ("{<fields>,1:2}", false),
    ("{<fields>,a:1}", false),
    ("{<fields>,'a':1}", false),
    ("{<fields>/**/}", false),
    (r#"{<fields>,"a":01}"#, false),
    (r#"{<fields>,"a":+1}"#, false),
    (r#"{<fields>,"a":-}"#, false),
    (r#"{<fields>,"a":1.}"#, false),
    (r#"{<fields>,"a":.5}"#, false),
    (r#"{<fields>,"a":1.e5}"#, false),
    (r#"{<fields>,"a":1e}"#, false),
    (r#"{<fields>,"a":0x10}"#, false),
    (r#"{<fields>,"a":NaN}"#, false),
    (r#"{<fields>,"a":Infinity}"#, false),
    (r#"{<fields>,"a":undefined}"#, false),
    (r#"{<fields>,"a":tru}"#, false),
    (r#"{<fields>,"a":True}"#, false),
    (r#"{<fields>,"a":nulll}"#, false),
    (r#"{<fields>,"a":[1,]}"#, false),
    (r#"{<fields>,"a":[,1]}"#, false),
    (r#"{<fields>,"a":[1 2]}"#, false),
    (r#"{<fields>,"a":[1}]"#, false),
    (r#"{<fields>,"a":"\x41"}"#, false),
    (r#"{<fields>,"a":"\u12"}"#, false),
    (r#"{<fields>,"a":"\u12g4"}"#, false),
    (r#"{<fields>,"a":"\U0041"}"#, false),
    (r#"{<fields>,"a":"\"}"#, false),
    ("{<fields>,\"a\":\"\n\"}", false),
    ("{<fields>,\"a\":\"\t\"}", false),
    ("{<fields>,\"a\":\"\0\"}", false),
    ("{<fields>,\"a\":\"\u{1f}\"}", false),
    ("", false),
    (" ", false),
    ("hello", false),
    ("\"", false),
    ("{", false),
    ("}", false),
    ("\0", false),
];

/// Texts around the fields of an object, and whether they are JSON with these fields.
pub(crate) fn json_or_not(fields: &str) -> Vec<(String, bool)> {
    let fixed = TEXTS.iter().map(|(text, is_json)| (text.replace("<fields>", fields), *is_json));
    // The object itself is one level.
    let deep = [(999, true), (1_000, false), (5_000, false)].into_iter().flat_map(|(depth, is_json)| {
        let lists = format!("{{{fields},\"a\":{}}}", nested(depth, "1"));
        let objects = format!("{{{fields},\"a\":{}1{}}}", r#"{"b":"#.repeat(depth), "}".repeat(depth));
        [(lists, is_json), (objects, is_json)]
    });
    let brackets = (format!("{{{fields},\"a\":\"{}\"}}", "[{".repeat(5_000)), true);
    fixed.chain(deep).chain([brackets]).collect()
}

/// Binary messages with the fields of an object that are not JSON, since they are not UTF-8.
pub(crate) fn not_utf8(fields: &str) -> Vec<Vec<u8>> {
    let bad: [&[u8]; 8] = [
        b"\xff",
        b"\x80",
        b"\xc0\xaf",
        b"\xe2\x82",
        b"\xed\xa0\x80",
        b"\xf0\x9f\x98",
        b"\xf4\x90\x80\x80",
        b"a\xc3",
    ];
    let inside =
        bad.iter().map(|bad| [b"{", fields.as_bytes(), b",\"a\":\"".as_slice(), bad, b"\"}"].concat());
    let around = [&b"\xff"[..], b"\xef\xbb\xbf", b"\xef\xbb", b"\xfe\xff"];
    let around = around.iter().map(|bad| [bad, &b"{"[..], fields.as_bytes(), b"}"].concat());
    inside.chain(around).collect()
}

/// `depth` lists around a value.
pub(crate) fn nested(depth: usize, value: &str) -> String {
    format!("{}{value}{}", "[".repeat(depth), "]".repeat(depth))
}

/// JSON without the blanks outside of its strings.
pub(crate) fn without_blanks(json: &str) -> String {
    let (mut in_string, mut is_escaped) = (false, false);
    let keep = |symbol: &char| {
        if in_string {
            in_string = is_escaped || *symbol != '"';
            is_escaped = !is_escaped && *symbol == '\\';
            return true;
        }
        in_string = *symbol == '"';
        !matches!(symbol, ' ' | '\t' | '\r' | '\n')
    };
    json.chars().filter(keep).collect()
}

/// Random JSON from a seed, in spellings that nobody would choose.
pub(crate) struct RandomJson(u64);

impl RandomJson {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    /// An object with these fields, keys and values as JSON, in random order, among others whose keys begin with `x`.
    /// See [`RandomJson::object`].
    pub(crate) fn message(&mut self, fields: &[(&str, &str)]) -> String {
        let fields = self.fields(fields);
        self.object(&fields)
    }

    /// These fields in random order, among others whose keys begin with `x`. Some keys are written with escapes.
    pub(crate) fn fields(&mut self, fields: &[(&str, &str)]) -> Vec<String> {
        let mut all: Vec<String> = fields.iter().map(|(key, value)| self.field(key, value)).collect();
        for _ in 0..self.below(5) {
            let (key, value) = (self.string("x"), self.value(4));
            all.push(self.spaced(&key, &value));
        }
        for end in (1..all.len()).rev() {
            let other = self.below(end + 1);
            all.swap(end, other);
        }
        all
    }

    /// One field, its key with an escape here and there.
    pub(crate) fn field(&mut self, key: &str, value: &str) -> String {
        let key = self.key(key);
        self.spaced(&key, value)
    }

    /// An object of fields. There are blanks everywhere but around it and before its last brace.
    pub(crate) fn object(&mut self, fields: &[String]) -> String {
        let mut text = "{".to_owned();
        for (index, field) in fields.iter().enumerate() {
            if index > 0 {
                text += &self.blanks();
                text.push(',');
            }
            text += &self.blanks();
            text += field;
        }
        text + "}"
    }

    /// Any value, at most this deep.
    pub(crate) fn value(&mut self, depth: usize) -> String {
        match self.below(if depth == 0 { 6 } else { 9 }) {
            0 => "null".into(),
            1 => ["true", "false"][self.below(2)].into(),
            2 | 3 => self.number(),
            4 | 5 => self.string(""),
            6 => self.listed('[', ']', |json| json.value(depth - 1)),
            _ => self.listed('{', '}', |json| {
                let (key, value) = (json.string(""), json.value(depth - 1));
                json.spaced(&key, &value)
            }),
        }
    }

    /// A string that begins with `start`.
    pub(crate) fn string(&mut self, start: &str) -> String {
        let mut text = format!("\"{start}");
        for _ in 0..self.below(8) {
            match self.below(6) {
                0 => text += [r#"\""#, r"\\", r"\/", r"\b", r"\f", r"\n", r"\r", r"\t"][self.below(8)],
                // Most of them are whole characters, some are halves.
                1 => text += &format!("\\u{:04x}", self.below(0x1_0000)),
                2 => text += &format!("\\uD8{:02X}", self.below(0x100)),
                3 => text += ["é", "\u{1f600}", "\u{2028}", "\u{7f}", "\u{feff}", "\u{ffff}"][self.below(6)],
                _ => text += ["from", "}", "{\\\"", ",", ":[", " ", "a b", "0"][self.below(8)],
            }
        }
        text + "\""
    }

    fn number(&mut self) -> String {
        let mut text = ["", "-"][self.below(2)].to_owned();
        match self.below(3) {
            0 => text.push('0'),
            1 => text += &self.below(1_000).to_string(),
            _ => text += &format!("9{}", self.digits(40)),
        }
        if self.below(2) == 0 {
            text += &format!(".{}", self.digits(20));
        }
        if self.below(3) == 0 {
            let sign = ["", "+", "-"][self.below(3)];
            text += &format!("{}{sign}{}", ["e", "E"][self.below(2)], self.digits(3));
        }
        text
    }

    /// Up to `most` digits, at least one.
    fn digits(&mut self, most: usize) -> String {
        (0..=self.below(most)).map(|_| char::from(b'0' + self.below(10) as u8)).collect()
    }

    fn listed(&mut self, open: char, close: char, mut entry: impl FnMut(&mut Self) -> String) -> String {
        let mut text = format!("{open}{}", self.blanks());
        for index in 0..self.below(4) {
            text += if index == 0 { "" } else { "," };
            text += &[self.blanks(), entry(self), self.blanks()].concat();
        }
        text.push(close);
        text
    }

    fn spaced(&mut self, key: &str, value: &str) -> String {
        [key, &self.blanks(), ":", &self.blanks(), value].concat()
    }

    /// A key in quotes, with an escape here and there.
    fn key(&mut self, name: &str) -> String {
        let escapes = self.below(3) == 0;
        let mut letter = |letter: char| {
            if escapes && self.below(2) == 0 {
                format!("\\u{:04x}", u32::from(letter))
            } else {
                letter.into()
            }
        };
        format!("\"{}\"", name.chars().map(&mut letter).collect::<String>())
    }

    fn blanks(&mut self) -> String {
        ["", "", "", "", " ", "\n", "\t", "\r\n  "][self.below(8)].to_owned()
    }
}
