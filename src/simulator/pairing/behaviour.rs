//! What clients of pairing say.

use super::account::{Account, KINDS, Kind, Word};
use crate::simulator::behaviour::Manner;
use crate::simulator::chance::Chance;
use crate::simulator::connection::{Connection, Voice};
use crate::simulator::ledger;
use crate::simulator::setup::Setup;
use crate::simulator::socket::ClientEnd;

/// The target of the request.
pub(in crate::simulator) fn path(chance: &mut Chance) -> String {
    chance.pick(&["/ws", "/ws", "/WS/", "/%77s"]).to_owned()
}

/// Says something, or nothing.
pub(in crate::simulator) fn act(client: &mut Connection, manner: Manner, chance: &mut Chance, setup: &Setup) {
    match manner {
        Manner::Clumsy => stumble(client, chance, setup),
        Manner::Forging if account(client).room().is_some() => relay(client, chance, setup, true),
        Manner::Behaved | Manner::Forging | Manner::Flooding => behave(client, chance, setup),
    }
}

fn account(client: &Connection) -> &Account {
    match &client.voice {
        Voice::Pairing(account) => account,
        _ => crate::simulator::checks::fail("not a client of pairing"),
    }
}

fn say(client: &mut Connection, word: Word, payload: &[u8], chance: &mut Chance) {
    client.say(ledger::Word::Pairing(word), payload, chance);
}

/// Enters a message for the partner; returns its number.
fn enter(client: &mut Connection, kind: Kind, value: Option<String>) -> usize {
    match &mut client.voice {
        Voice::Pairing(account) => account.relay(kind, value),
        _ => crate::simulator::checks::fail("not a client of pairing"),
    }
}

fn behave(client: &mut Connection, chance: &mut Chance, setup: &Setup) {
    match chance.below(150) {
        0 => return client.close(chance.pick(&[Some(1000), Some(1001), Some(3999), None]), chance),
        1 => return client.end(chance.pick(&[ClientEnd::Finished, ClientEnd::Reset])),
        2 => return client.ping(chance),
        3 => return ask_pong(client, chance),
        4 => return say(client, Word::Auth, br#"{"type":"auth","userId":"u","token":"t"}"#, chance),
        _ => {}
    }
    if !account(client).is_ready && !chance.one_in(10) {
        return;
    }
    if account(client).room().is_some() {
        match chance.below(14) {
            0 => next(client, chance),
            1 if chance.one_in(3) => leave(client, chance),
            _ => (0..chance.between(1..=4)).for_each(|_| relay(client, chance, setup, false)),
        }
    } else if !account(client).has_asked {
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
            33 => say(client, Word::Auth, br#"{"token":7,"type":"\u0061uth"}"#, chance),
            _ => relay(client, chance, setup, false),
        }
    }
}

/// Relays more than rings hold.
pub(in crate::simulator) fn flood(client: &mut Connection, chance: &mut Chance, setup: &Setup) {
    if account(client).room().is_none() || account(client).relayed() > 2_500 {
        return behave(client, chance, setup);
    }
    for _ in 0..if chance.one_in(4) { 700 } else { 0 } {
        let number = enter(client, KINDS[2], None);
        say(client, Word::Relay(number), br#"{"type":"ice"}"#, chance);
    }
}

fn available(client: &mut Connection, chance: &mut Chance) {
    let text = chance.pick(&[r#"{"type":"available"}"#, r#" {"x":[{}], "type" : "available" } "#]);
    say(client, Word::Available, text.as_bytes(), chance);
}

fn next(client: &mut Connection, chance: &mut Chance) {
    say(client, Word::Next, br#"{"type":"next"}"#, chance);
    if chance.one_in(2) {
        available(client, chance);
    }
}

fn leave(client: &mut Connection, chance: &mut Chance) {
    say(client, Word::Leave, br#"{"type":"leave"}"#, chance);
}

pub(in crate::simulator) fn ask_pong(client: &mut Connection, chance: &mut Chance) {
    say(client, Word::AskPong, br#"{"type":"ping"}"#, chance);
}

fn not_json(client: &mut Connection, chance: &mut Chance) {
    let text = chance.pick(&["", "null", "{", "{\"type\":\"available\"}x", "\u{feff}{}", "{'type':1}"]);
    say(client, Word::NotJson, text.as_bytes(), chance);
}

fn unknown(client: &mut Connection, chance: &mut Chance) {
    let text =
        chance.pick(&["{}", "[]", "7", r#""available""#, r#"{"type":"Available"}"#, r#"{"type":["next"]}"#]);
    say(client, Word::UnknownType, text.as_bytes(), chance);
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
    let number = enter(client, kind, value);
    say(client, Word::Relay(number), text.as_bytes(), chance);
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
    let from = std::str::from_utf8(&client.id).unwrap_or_default();
    let room = account(client).room().unwrap_or([b'-'; 36]);
    let room = std::str::from_utf8(&room).unwrap_or_default();
    let number = account(client).relayed();
    let padding = chance.pick(&["x", "é", "\\n", "\\u0041", "\\ud800"]);
    let padding = padding.repeat(len.min(most) / padding.len());
    Some(format!(r#"{{"from":"{from}","room":"{room}","n":{number},"p":"{padding}"}}"#))
}
