//! What is said in the directory to all and to nobody: protocols.md section 3, and of section 0 the lines JSON, text and
//! binary, and order.

use super::{BATCH, INVALID_NAME, NOT_LOGGED_IN, PING_TEXT, Party, close, login, open, raw_login};
use crate::support::dialects::{Peer, json_or_not, not_utf8, now_ms};
use crate::support::{
    BINARY, CONTINUATION, FIN, Frame, PING, PONG, Raw, Server, Setup, TEXT, frame, on_each_driver,
    on_each_setup,
};

on_each_setup!(
    nothing_but_a_login_counts_before_it,
    pings_are_answered_with_the_time,
    broadcasts_go_to_all_others,
    what_makes_no_sense_is_not_answered,
    messages_arrive_in_the_order_sent,
);
on_each_driver!(what_is_json_is_what_json_parse_takes, messages_are_single_text_frames);

const ANYTHING_ELSE: &[&str] = &[
    PING_TEXT,
    r#"{"type":"stream_started"}"#,
    r#"{"type":"stream_stopped","reason":"x"}"#,
    r#"{"type":"stream_restored"}"#,
    r#"{"type":"page_opened"}"#,
    r#"{"type":"offer","target":"a"}"#,
    r#"{"type":"offer","target":"nobody"}"#,
    r#"{"type":"offer","target":"a","from":"b"}"#,
    r#"{"type":"offer"}"#,
    r#"{"type":"Login","name":"c"}"#,
    r#"{"type":"login ","name":"c"}"#,
    r#"{"type":"logout"}"#,
    r#"{"type":" "}"#,
];

fn nothing_but_a_login_counts_before_it(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut party = Party::new(&server, &["a", "b"]);
    let mut peer = open(&server);
    for text in ANYTHING_ELSE {
        peer.ask(text, NOT_LOGGED_IN);
        peer.send_binary(text.as_bytes());
        peer.expect(NOT_LOGGED_IN);
    }
    for text in ["", "hello", "null", "5", "[]", r#"{"name":"c"}"#, r#"{"type":null}"#, r#"{"type":""}"#] {
        peer.tell(text);
    }
    party.expect_nothing();
    // It can still log in.
    party.leave("a", close);
    peer.ask(&login("a"), &super::login_success("a", &["b", "a"]));
    party.expect_from("", &super::connected("a"));
}

fn pings_are_answered_with_the_time(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut party = Party::new(&server, &["a", "b"]);
    for text in [
        PING_TEXT,
        r#"{"type":"ping","target":"b","timestamp":5,"from":"b"}"#,
        r#"{ "t\u0079pe" : "p\u0069ng" }"#,
        r#"{"type":"offer","target":"b","type":"ping"}"#,
    ] {
        expect_pong(party.member("a"), text);
    }
    party.member("a").send_binary(PING_TEXT.as_bytes());
    timestamp_in(&party.member("a").next("a pong"));
    // A second login, whatever it asks for, changes nothing.
    for text in [
        &*login("a"),
        &login("b"),
        &login("c"),
        &login(""),
        r#"{"type":"login"}"#,
        r#"{"type":"login","name":"c","target":"b"}"#,
    ] {
        party.member("a").ask(text, INVALID_NAME);
    }
    party.expect_nothing();
    party.member("a").send(r#"{"type":"page_opened"}"#);
    party.expect_from("a", r#"{"type":"page_opened","from":"a"}"#);
    party.join("c");
}

fn expect_pong(peer: &mut Peer, text: &str) {
    let before = now_ms();
    peer.send(text);
    let answer = peer.next("a pong");
    let (timestamp, now) = (timestamp_in(&answer), now_ms());
    // How precise it is, is left open.
    assert!((before - 500..now + 500).contains(&timestamp), "{before} <= {timestamp} <= {now}");
}

fn timestamp_in(text: &str) -> u64 {
    let number = text.strip_prefix(r#"{"type":"pong","timestamp":"#).and_then(|rest| rest.strip_suffix('}'));
    let number = number.and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no pong with a whole number: {text}"))
}

/// What is said by `a`, and what all others hear.
const BROADCASTS: &[(&str, &str)] = &[
    (r#"{"type":"stream_started"}"#, r#"{"type":"stream_started","from":"a"}"#),
    (r#"{"type":"stream_restored"}"#, r#"{"type":"stream_restored","from":"a"}"#),
    (r#"{"type":"page_opened"}"#, r#"{"type":"page_opened","from":"a"}"#),
    // Nothing else goes with them.
    (
        r#"{"from":"evil","reason":"x","type":"stream_started","target":"b","data":{"a":1}}"#,
        r#"{"type":"stream_started","from":"a"}"#,
    ),
    (r#"{"type":"stream_restored","reason":5,"target":"a"}"#, r#"{"type":"stream_restored","from":"a"}"#),
    (r#"{"type":"page_opened","target":"nobody","page":"x"}"#, r#"{"type":"page_opened","from":"a"}"#),
    (
        r#"{"target":5,"type":"stream_stopped","from":"evil","reason":"x","a":[]}"#,
        r#"{"type":"stream_stopped","from":"a","reason":"x"}"#,
    ),
    (r#"{ "t\u0079pe" : "page\u005fopened" }"#, r#"{"type":"page_opened","from":"a"}"#),
    (r#"{"type":"offer","target":"b","type":"page_opened"}"#, r#"{"type":"page_opened","from":"a"}"#),
];

/// Fields of `stream_stopped`, and the reason that others hear.
const REASONS: &[(&str, &str)] = &[
    (r#""x":1"#, r#""manual""#),
    (r#""reason":null"#, r#""manual""#),
    (r#""reason":false"#, r#""manual""#),
    (r#""reason":0"#, r#""manual""#),
    (r#""reason":-0"#, r#""manual""#),
    (r#""reason":0.0"#, r#""manual""#),
    (r#""reason":-0.000E+12"#, r#""manual""#),
    (r#""reason":0e5"#, r#""manual""#),
    (r#""reason":1e-400"#, r#""manual""#),
    (r#""reason":"""#, r#""manual""#),
    (r#""Reason":"x""#, r#""manual""#),
    (r#""x":{"reason":"y"}"#, r#""manual""#),
    (r#""reason":"x""#, r#""x""#),
    (r#""reason":" ""#, r#"" ""#),
    (r#""reason":"0""#, r#""0""#),
    (r#""reason":"\u0000""#, r#""\u0000""#),
    (r#""reason":"\u0041\/\ud800""#, r#""\u0041\/\ud800""#),
    (r#""reason":true"#, "true"),
    (r#""reason":5"#, "5"),
    (r#""reason":1.50"#, "1.50"),
    (r#""reason":0.001"#, "0.001"),
    (r#""reason":-1e400"#, "-1e400"),
    (r#""reason":[]"#, "[]"),
    (r#""reason":{}"#, "{}"),
    (r#""reason": { "a" : [ 1.0 , null ] } "#, r#"{ "a" : [ 1.0 , null ] }"#),
    (r#""re\u0061son":"x""#, r#""x""#),
    (r#""reason":"x","reason":"y""#, r#""y""#),
    (r#""reason":"x","re\u0061son":null"#, r#""manual""#),
    (r#""reason":"manual""#, r#""manual""#),
];

fn broadcasts_go_to_all_others(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut party = Party::new(&server, &["b", "c", "a", "d"]);
    for (sent, heard) in BROADCASTS {
        party.member("a").send(sent);
        party.expect_from("a", heard);
        party.member("a").send_binary(sent.as_bytes());
        party.expect_from("a", heard);
        party.expect_nothing();
    }
    // Another client, since the rate would ask for a pause.
    party.leave("a", close);
    party.join("a");
    for (fields, reason) in REASONS {
        party.member("a").send(&format!(r#"{{"type":"stream_stopped",{fields}}}"#));
        party.expect_from("a", &format!(r#"{{"type":"stream_stopped","from":"a","reason":{reason}}}"#));
    }
    party.expect_nothing();
    // With nobody else there, nobody hears it.
    for name in ["b", "c", "d"] {
        party.leave(name, close);
    }
    party.member("a").tell(r#"{"type":"page_opened"}"#);
}

/// No type, no target that is one, or no JSON.
const NO_SENSE: &[&str] = &[
    "",
    "hello",
    "null",
    "5",
    "true",
    "\"ping\"",
    "[]",
    r#"[{"type":"ping"}]"#,
    "{}",
    r#"{"target":"b"}"#,
    r#"{"type":"","target":"b"}"#,
    r#"{"type":null,"target":"b"}"#,
    r#"{"type":5,"target":"b"}"#,
    r#"{"type":["ping"],"target":"b"}"#,
    r#"{"type":{"type":"ping"}}"#,
    r#"{"Type":"ping"}"#,
    r#"{"type":"ping","type":5}"#,
    r#"{"type":"nobody knows this"}"#,
    r#"{"type":"create"}"#,
    r#"{"type":"join","roomId":"1234"}"#,
    r#"{"type":"signal","payload":1}"#,
    r#"{"type":"offer","target":""}"#,
    r#"{"type":"offer","target":null}"#,
    r#"{"type":"offer","target":5}"#,
    r#"{"type":"offer","target":true}"#,
    r#"{"type":"offer","target":["b"]}"#,
    r#"{"type":"offer","target":{"target":"b"}}"#,
    r#"{"type":"offer","target":"b","target":5}"#,
    r#"{"type":"offer","Target":"b"}"#,
    r#"{"type":"offer","x":{"target":"b"}}"#,
    r#"{"type":"offer","to":"b"}"#,
    r#"{"type":"offer","target":"b"}}"#,
];

fn what_makes_no_sense_is_not_answered(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut party = Party::new(&server, &["a", "b"]);
    let ignored = server.metric("parlor_messages_ignored_total");
    for text in NO_SENSE {
        party.member("a").tell(text);
    }
    let now_ignored = server.metric("parlor_messages_ignored_total");
    assert_eq!(now_ignored, ignored + NO_SENSE.len() as u64, "each is counted");
    party.leave("a", close);
    party.join("a");
    for text in NO_SENSE {
        party.member("a").send_binary(text.as_bytes());
        party.member("a").expect_nothing();
    }
    // Whatever had reached the other one would come before this.
    party.member("a").send(r#"{"type":"t","target":"b"}"#);
    party.member("b").expect(r#"{"type":"t","target":"b","from":"a"}"#);
    party.expect_nothing();
}

fn messages_arrive_in_the_order_sent(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut party = Party::new(&server, &["b", "c"]);
    let names = ["s1", "s2", "s3", "s4"];
    names.iter().for_each(|name| party.join(name));
    // To one, to the other, and to all, in turns.
    let texts: Vec<String> = (0..BATCH - 3)
        .map(|number| match number % 3 {
            0 => format!(r#"{{"type":"t","n":{number},"target":"b"}}"#),
            1 => format!(r#"{{"type":"t","n":{number},"target":"c"}}"#),
            _ => format!(r#"{{"type":"stream_stopped","reason":{number}}}"#),
        })
        .collect();
    for name in names {
        party.member(name).send_at_once(texts.iter().map(String::as_str));
    }
    for (listener, skipped) in [("b", 1), ("c", 0)] {
        let mut heard: Vec<Vec<String>> = vec![Vec::new(); names.len()];
        for _ in 0..names.len() * texts.len() * 2 / 3 {
            let text = party.member(listener).next("what the others say");
            let sender = names.iter().position(|name| text.contains(&format!(r#""from":"{name}""#)));
            heard[sender.unwrap_or_else(|| panic!("{text}"))].push(text);
        }
        for (name, heard) in names.iter().zip(&heard) {
            let numbers = (0..texts.len()).filter(|number| number % 3 != skipped);
            let expected: Vec<String> = numbers
                .map(|number| match number % 3 {
                    2 => format!(r#"{{"type":"stream_stopped","from":"{name}","reason":{number}}}"#),
                    _ => format!("{},\"from\":\"{name}\"}}", &texts[number][..texts[number].len() - 1]),
                })
                .collect();
            assert_eq!(*heard, expected, "{listener} hears {name} in order");
        }
        party.member(listener).expect_nothing();
    }
}

fn what_is_json_is_what_json_parse_takes(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut watcher = Party::new(&server, &["watcher"]);
    let texts = json_or_not(r#""type":"x""#);
    for batch in texts.chunks(BATCH / 2) {
        let mut peer = open(&server);
        for (text, is_json) in batch {
            peer.name = format!("{text:.60?}");
            for send in [
                |peer: &mut Peer, text: &str| peer.send(text),
                |peer: &mut Peer, text: &str| peer.send_binary(text.as_bytes()),
            ] {
                send(&mut peer, text);
                let answers = peer.drain();
                assert_eq!(answers, if *is_json { vec![NOT_LOGGED_IN] } else { vec![] }, "{text:.200?}");
            }
        }
    }
    // After the login as well.
    for batch in json_or_not(r#""type":"ping","target":"watcher""#).chunks(BATCH) {
        watcher.join("a");
        for (text, is_json) in batch {
            watcher.member("a").send(text);
            let answers = watcher.member("a").drain();
            let is_right = answers.iter().all(|answer| timestamp_in(answer) > 0);
            assert!(is_right && answers.len() == usize::from(*is_json), "{text:.200?}: {answers:?}");
        }
        watcher.leave("a", close);
    }
    let mut peer = open(&server);
    for bytes in not_utf8(r#""type":"x""#) {
        peer.send_binary(&bytes);
        peer.expect_nothing();
    }
    peer.ask(r#"{"type":"x"}"#, NOT_LOGGED_IN);
    watcher.expect_nothing();
}

fn messages_are_single_text_frames(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut raw = raw_login(&server, "raw");
    let mut other: Raw = raw_login(&server, "other");
    raw.expect(&super::connected("other"));
    let text = r#"{"type":"t","from":"x","target":"other","x":"grüße 😀"}"#;
    let heard = r#"{"type":"t","target":"other","x":"grüße 😀","from":"raw"}"#;
    let last = text.len() - 1;
    for opcode in [TEXT, BINARY] {
        for (at, byte) in text.bytes().enumerate() {
            let first = if at == 0 { opcode & !FIN } else { CONTINUATION } | if at == last { FIN } else { 0 };
            raw.send(&frame(first, &[byte]));
            if at % 20 == 10 && at != last {
                raw.send(&frame(PING, b"between"));
                assert_eq!(raw.frame(), Frame { first: PONG, payload: b"between".to_vec() });
            }
        }
        other.expect(heard);
    }
    let long = "é".repeat(30_000);
    other.send(&frame(BINARY, format!(r#"{{"type":"t","target":"raw","x":"{long}"}}"#).as_bytes()));
    raw.expect(&format!(r#"{{"type":"t","target":"raw","x":"{long}","from":"other"}}"#));
    raw.send(&frame(BINARY, br#"{"type":"page_opened"}"#));
    other.expect(r#"{"type":"page_opened","from":"raw"}"#);
    raw.send(&frame(BINARY, PING_TEXT.as_bytes()));
    assert_eq!(raw.frame().first, TEXT);
}
