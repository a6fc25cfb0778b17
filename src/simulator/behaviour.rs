//! Pairing's clients: those that behave, those that are clumsy, those that are hostile.

use super::account::{KINDS, Kind, Said};
use super::chance::Chance;
use super::client::{frame, raw_frame, upgrade};
use super::connection::Connection;
use super::setup::Setup;
use super::socket::ClientEnd;
use crate::wire::frame::{Header, Opcode};

/// What a hostile client is up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attack {
    /// Breaks RFC 6455.
    Violation,
    /// Says a lot and never reads.
    NeverReads,
    /// Begins a frame and never ends it.
    HalfFrame,
    /// Sends pings without end.
    PingFlood,
    /// Never answers a close.
    IgnoresClose,
    /// Says that its messages come from somebody else.
    Forgery,
    /// Sends a head that is none, or that never ends.
    BadHead,
    /// Asks for pages, one after the other without waiting.
    Requests,
}

const ATTACKS: [Attack; 8] = [
    Attack::Violation,
    Attack::NeverReads,
    Attack::HalfFrame,
    Attack::PingFlood,
    Attack::IgnoresClose,
    Attack::Forgery,
    Attack::BadHead,
    Attack::Requests,
];

/// How a player behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    Behaved,
    Clumsy,
    Hostile(Attack),
    /// Behaves, and relays more than rings hold.
    Flooder,
}

impl Behaviour {
    pub(super) fn draw(chance: &mut Chance, setup: &Setup) -> Self {
        let percent = chance.below(100);
        if setup.is_flood && percent < 60 {
            Self::Flooder
        } else if percent < setup.hostile_percent {
            Self::Hostile(chance.pick(&ATTACKS))
        } else if percent < setup.hostile_percent + setup.clumsy_percent {
            Self::Clumsy
        } else {
            Self::Behaved
        }
    }

    /// The client has just connected.
    pub(super) fn connect(self, client: &mut Connection, chance: &mut Chance) {
        client.never_reads = self == Self::Hostile(Attack::NeverReads);
        client.ignores_close = self == Self::Hostile(Attack::IgnoresClose);
        match self {
            Self::Hostile(Attack::BadHead) => bad_head(client, chance),
            Self::Hostile(Attack::Requests) => {}
            _ => {
                client.unsent = upgrade(chance.pick(&["/ws", "/ws", "/WS/", "/%77s"]), "13");
                client.has_upgraded = true;
                let first = if chance.one_in(3) { chance.below(client.unsent.len()) } else { usize::MAX };
                client.send_head(first);
            }
        }
    }

    /// The client does something, or nothing.
    pub(super) fn act(self, client: &mut Connection, chance: &mut Chance, setup: &Setup) {
        if !client.unsent.is_empty() {
            return client.send_head(chance.between(1..=200));
        }
        match self {
            Self::Behaved => behave(client, chance, setup),
            Self::Clumsy => stumble(client, chance, setup),
            Self::Hostile(attack) => attack.act(client, chance, setup),
            Self::Flooder => flood(client, chance, setup),
        }
    }
}

impl Attack {
    fn act(self, client: &mut Connection, chance: &mut Chance, setup: &Setup) {
        match self {
            Self::Violation if chance.one_in(10) => violate(client, chance, setup),
            Self::HalfFrame if chance.one_in(12) => half_frame(client, chance),
            Self::PingFlood => (0..chance.below(30)).for_each(|_| client.ping(chance)),
            Self::Requests => request(client, chance),
            Self::NeverReads if chance.one_in(3) => {
                (0..chance.below(20)).for_each(|_| ask_pong(client, chance));
            }
            Self::BadHead if chance.one_in(40) => client.end(ClientEnd::Reset),
            Self::BadHead => {}
            Self::Forgery if client.account.room().is_some() => relay(client, chance, setup, true),
            Self::IgnoresClose if chance.one_in(15) => violate(client, chance, setup),
            _ => behave(client, chance, setup),
        }
    }
}

fn behave(client: &mut Connection, chance: &mut Chance, setup: &Setup) {
    match chance.below(150) {
        0 => return client.close(chance.pick(&[Some(1000), Some(1001), Some(3999), None]), chance),
        1 => return client.end(chance.pick(&[ClientEnd::Finished, ClientEnd::Reset])),
        2 => return client.ping(chance),
        3 => return ask_pong(client, chance),
        4 => return client.say(Said::Auth, br#"{"type":"auth","userId":"u","token":"t"}"#, chance),
        _ => {}
    }
    if !client.account.is_ready && !chance.one_in(10) {
        return;
    }
    if client.account.room().is_some() {
        match chance.below(14) {
            0 => next(client, chance),
            1 if chance.one_in(3) => leave(client, chance),
            _ => (0..chance.between(1..=4)).for_each(|_| relay(client, chance, setup, false)),
        }
    } else if !client.account.has_asked {
        available(client, chance);
    } else if chance.one_in(60) {
        leave(client, chance);
    }
}

fn stumble(client: &mut Connection, chance: &mut Chance, setup: &Setup) {
    for _ in 0..chance.between(1..=3) {
        match chance.below(60) {
            0..=9 => available(client, chance),
            10..=13 => next(client, chance),
            14..=15 => leave(client, chance),
            16..=19 => not_json(client, chance),
            20..=23 => unknown(client, chance),
            24..=26 => ask_pong(client, chance),
            27 => client.ping(chance),
            28 => client.pong(b"unasked", chance),
            29 => client.close(chance.pick(&[Some(1000), Some(1014), Some(4999), None]), chance),
            30 if chance.one_in(3) => client.end(ClientEnd::Silent),
            31 if chance.one_in(2) => client.end(ClientEnd::Reset),
            32 if chance.one_in(2) => client.end(ClientEnd::Finished),
            33 => client.say(Said::Auth, br#"{"token":7,"type":"\u0061uth"}"#, chance),
            _ => relay(client, chance, setup, false),
        }
    }
}

fn flood(client: &mut Connection, chance: &mut Chance, setup: &Setup) {
    if client.account.room().is_none() || client.account.relayed() > 2_500 {
        return behave(client, chance, setup);
    }
    for _ in 0..if chance.one_in(4) { 700 } else { 0 } {
        let number = client.account.relay(KINDS[2], None);
        client.say(Said::Relay(number), br#"{"type":"ice"}"#, chance);
    }
}

fn available(client: &mut Connection, chance: &mut Chance) {
    let text = chance.pick(&[r#"{"type":"available"}"#, r#" {"x":[{}], "type" : "available" } "#]);
    client.say(Said::Available, text.as_bytes(), chance);
}

fn next(client: &mut Connection, chance: &mut Chance) {
    client.say(Said::Next, br#"{"type":"next"}"#, chance);
    if chance.one_in(2) {
        available(client, chance);
    }
}

fn leave(client: &mut Connection, chance: &mut Chance) {
    client.say(Said::Leave, br#"{"type":"leave"}"#, chance);
}

fn ask_pong(client: &mut Connection, chance: &mut Chance) {
    client.say(Said::AskPong, br#"{"type":"ping"}"#, chance);
}

fn not_json(client: &mut Connection, chance: &mut Chance) {
    let text = chance.pick(&["", "null", "{", "{\"type\":\"available\"}x", "\u{feff}{}", "{'type':1}"]);
    client.say(Said::NotJson, text.as_bytes(), chance);
}

fn unknown(client: &mut Connection, chance: &mut Chance) {
    let text =
        chance.pick(&["{}", "[]", "7", r#""available""#, r#"{"type":"Available"}"#, r#"{"type":["next"]}"#]);
    client.say(Said::UnknownType, text.as_bytes(), chance);
}

/// Sends a message to the partner, or to where the client believes it is.
fn relay(client: &mut Connection, chance: &mut Chance, setup: &Setup, is_forged: bool) {
    let kind = chance.pick(&KINDS);
    let value = value(client, chance, setup);
    let text = match &value {
        None => format!(r#"{{"type":"{}"}}"#, kind.name),
        Some(value) if is_forged => forged(kind, value),
        Some(value) => around(kind, value, chance),
    };
    let number = client.account.relay(kind, value);
    client.say(Said::Relay(number), text.as_bytes(), chance);
}

fn around(kind: Kind, value: &str, chance: &mut Chance) -> String {
    let Kind { name, field } = kind;
    match chance.below(5) {
        0 => format!(r#"{{"{field}":{value},"type":"{name}"}}"#),
        1 => format!("\n{{ \"type\" : \"{name}\" ,\t\"{field}\" : {value} }} "),
        2 => format!(r#"{{"type":"next","{field}":[1],"type":"{name}","{field}":{value},"from":null}}"#),
        _ => format!(r#"{{"type":"{name}","{field}":{value}}}"#),
    }
}

fn forged(Kind { name, field }: Kind, value: &str) -> String {
    let other = "00000000-0000-4000-8000-000000000000";
    format!(r#"{{"from":"{other}","type":"{name}","fr\u006fm":"{other}","{field}":{value},"to":"{other}"}}"#)
}

/// An opaque value: sender, room and number, so that a trace says where a frame comes from, and padding; of lengths
/// around those at which the server changes its ways.
fn value(client: &Connection, chance: &mut Chance, setup: &Setup) -> Option<String> {
    match chance.below(16) {
        0 => return None,
        1 => return Some("null".into()),
        2 => return Some("-1.50e+1".into()),
        _ => {}
    }
    let most = (setup.settings.limits.message_bytes_max - 400).min(30_000);
    let len = match chance.below(20) {
        0..=9 => chance.below(40),
        10..=15 => chance.between(60..=200),
        16..=18 => chance.between(3_700..=4_200),
        _ => chance.between(4_000..=30_000),
    };
    let from = std::str::from_utf8(&client.account.id).unwrap_or_default();
    let room = client.account.room().unwrap_or([b'-'; 36]);
    let room = std::str::from_utf8(&room).unwrap_or_default();
    let number = client.account.relayed();
    let padding = chance.pick(&["x", "é", "\\n", "\\u0041", "\\ud800"]);
    let padding = padding.repeat(len.min(most) / padding.len());
    Some(format!(r#"{{"from":"{from}","room":"{room}","n":{number},"p":"{padding}"}}"#))
}

fn bad_head(client: &mut Connection, chance: &mut Chance) {
    let bytes = match chance.below(8) {
        0 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        1 => upgrade("/nowhere", "13"),
        2 => upgrade("/%zz", "13"),
        3 => upgrade("/ws", "8"),
        4 => b"GET /ws HTTP/1.1\r\nHost: ".to_vec(),
        5 => [b"GET / HTTP/1.1\r\nA: ".as_slice(), &[b'a'; 9_000]].concat(),
        6 => Vec::new(),
        _ => b"HELLO\r\n\r\n".to_vec(),
    };
    client.socket.send(&bytes);
    client.is_mute = true;
}

fn request(client: &mut Connection, chance: &mut Chance) {
    if client.is_mute {
        return;
    }
    for _ in 0..chance.below(4) {
        client.socket.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        client.requests += 1;
    }
    if chance.one_in(20) {
        client.socket.send(b"GET / HTTP/1.0\r\n\r\n");
        client.is_mute = true;
    }
}

fn half_frame(client: &mut Connection, chance: &mut Chance) {
    let whole = frame(chance.one_in(2), Opcode::Text, &[b' '; 500], chance.mask());
    if !client.is_mute {
        client.socket.send(&whole[..chance.between(1..=400)]);
        client.is_mute = true;
    }
}

fn violate(client: &mut Connection, chance: &mut Chance, setup: &Setup) {
    let limits = &setup.settings.limits;
    let mask = chance.mask();
    let good = Header { fin: true, reserved: 0, opcode_bits: 1, mask: Some(mask), payload_len: 2 };
    let kind = chance.below(13);
    let (code, bytes) = match kind {
        0 => (1002, raw_frame(Header { mask: None, ..good }, b"{}")),
        1 => (1002, raw_frame(Header { reserved: 0x40, ..good }, b"{}")),
        2 => (1002, raw_frame(Header { opcode_bits: 5, ..good }, b"{}")),
        3 => (1002, frame(false, Opcode::Ping, b"", mask)),
        4 => (1002, frame(true, Opcode::Ping, &[0; 126], mask)),
        5 => (1002, frame(true, Opcode::Continuation, b"{}", mask)),
        6 => {
            let first = frame(false, Opcode::Text, b"{", mask);
            (1002, [first, frame(true, Opcode::Text, b"}", mask)].concat())
        }
        7 => (1007, frame(true, Opcode::Text, b"{\"type\":\"\xff\"}", mask)),
        8 => (1002, frame(true, Opcode::Close, &1005u16.to_be_bytes(), mask)),
        9 => (1002, frame(true, Opcode::Close, b"\x03", mask)),
        10 => (1009, raw_frame(Header { payload_len: limits.message_bytes_max as u64 + 1, ..good }, b"{")),
        11 => (1002, raw_frame(Header { payload_len: u64::MAX, ..good }, b"{")),
        _ => {
            let mut flood = frame(false, Opcode::Text, b"", mask);
            let more = frame(false, Opcode::Continuation, b"", mask);
            (0..limits.fragments_max).for_each(|_| flood.extend_from_slice(&more));
            (1009, flood)
        }
    };
    client.violate(code, &bytes);
    // The answer to the server's close must still be found behind it, unless a frame was left open.
    client.is_garbled |= matches!(kind, 10 | 11);
    client.is_mute = chance.one_in(2) || client.ignores_close;
}
