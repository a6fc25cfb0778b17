//! Pairing from outside: protocols.md section 1 line by line, and of section 0 the lines JSON, text and binary, opaque,
//! sender, order, ids and rate, with 1 and 4 shards, on io_uring and on epoll.

mod support;

use std::time::{Duration, Instant};

use support::{
    ALREADY_PAIRED, BINARY, CONTINUATION, Client, FIN, Frame, INVALID_FORMAT, NOT_PAIRED, PARTNER_LEFT, PING,
    PONG, PONG_TEXT, RATE_LIMIT, Raw, Server, Setup, TEXT, UNKNOWN_TYPE, frame, matched, on_each_setup, pair,
    pair_up, wait_until,
};

const AVAILABLE: &str = r#"{"type":"available"}"#;
const NEXT: &str = r#"{"type":"next"}"#;
const LEAVE: &str = r#"{"type":"leave"}"#;
const PING_TEXT: &str = r#"{"type":"ping"}"#;

/// So many messages that the rate never matters.
const NO_RATE: (&str, &str) = ("MAX_MSG_PER_SECOND", "1000000");
const NO_REQUEUE: (&str, &str) = ("REQUEUE_ON_PARTNER_LEAVE", "false");

on_each_setup!(
    two_browsers_chat,
    each_line_in_each_state,
    what_is_json_is_what_json_parse_takes,
    opaque_values_arrive_as_they_were_sent,
    values_of_every_length_arrive,
    fragments_are_joined_and_pings_answered_between,
    who_waits_longest_is_matched_first,
    who_is_left_waits_again,
    who_is_left_is_idle_without_requeue,
    both_leave_at_once,
    a_loss_counts_as_leave,
    who_is_gone_is_never_matched,
    who_has_closed_is_never_matched,
    who_has_left_the_queue_is_not_matched,
    ghosts_do_not_keep_others_apart,
    no_frame_of_an_old_room_reaches_the_next_partner,
    every_id_is_a_uuid_of_its_own,
);

// What one side says, and the other hears.

fn two_browsers_chat(setup: Setup) {
    let server = Server::start(setup, &[]);
    let pairs = if setup.shards > 1 { 16 } else { 2 };
    let mut chats: Vec<_> = (0..pairs)
        .map(|index| {
            let (one, other) = pair(&server);
            // Either may be the one that calls.
            if index % 2 == 0 { (one, other) } else { (other, one) }
        })
        .collect();
    for (caller, callee) in &mut chats {
        call(caller, callee);
    }
    for (caller, callee) in &mut chats {
        caller.send(NEXT);
        callee.expect(PARTNER_LEFT);
        caller.expect_nothing();
    }
    assert_eq!(server.metric("parlor_mail_sent_total") > 0, setup.shards > 1, "whether pairs cross shards");
}

/// Offer, answer, ten candidates each way.
fn call(caller: &mut Client, callee: &mut Client) {
    let sdp = r#""v=0\r\no=- 46117317 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n""#;
    caller.send(&format!(r#"{{"type":"offer","sdp":{sdp}}}"#));
    callee.expect(&format!(r#"{{"type":"offer","from":"{}","sdp":{sdp}}}"#, caller.id));
    callee.send(&format!(r#"{{"type":"answer","sdp":{sdp}}}"#));
    caller.expect(&format!(r#"{{"type":"answer","from":"{}","sdp":{sdp}}}"#, callee.id));
    for port in 50_000..50_010 {
        let candidate = format!(
            r#"{{"candidate":"candidate:1 1 udp 2122260223 192.0.2.1 {port} typ host","sdpMid":"0","sdpMLineIndex":0}}"#
        );
        caller.send(&format!(r#"{{"type":"ice","candidate":{candidate}}}"#));
        callee.send(&format!(r#"{{"type":"ice","candidate":{candidate}}}"#));
        callee.expect(&format!(r#"{{"type":"ice","from":"{}","candidate":{candidate}}}"#, caller.id));
        caller.expect(&format!(r#"{{"type":"ice","from":"{}","candidate":{candidate}}}"#, callee.id));
    }
}

/// Where a client stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Waiting,
    Paired,
}
use State::{Idle, Paired, Waiting};

/// In a state, a message, what its sender gets, what its partner gets, the state after it. `<me>` is the sender's id.
type Line = (State, &'static str, Option<&'static str>, Option<&'static str>, State);

const LINES: &[Line] = &[
    (Idle, r#"{"type":"auth","userId":"u1","token":"t1"}"#, None, None, Idle),
    (Idle, r#"{"type":"auth"}"#, None, None, Idle),
    (Idle, r#"{"type":"auth","userId":7,"token":null}"#, None, None, Idle),
    (Waiting, r#"{"type":"auth","userId":"u1"}"#, None, None, Waiting),
    (Paired, r#"{"type":"auth","token":"t1"}"#, None, None, Paired),
    (Idle, AVAILABLE, None, None, Waiting),
    (Waiting, AVAILABLE, None, None, Waiting),
    (Paired, AVAILABLE, Some(ALREADY_PAIRED), None, Paired),
    (Idle, r#"{"type":"offer","sdp":"x"}"#, Some(NOT_PAIRED), None, Idle),
    (Idle, r#"{"type":"answer","sdp":"x"}"#, Some(NOT_PAIRED), None, Idle),
    (Idle, r#"{"type":"ice","candidate":"x"}"#, Some(NOT_PAIRED), None, Idle),
    (Waiting, r#"{"type":"offer","sdp":"x"}"#, Some(NOT_PAIRED), None, Waiting),
    (Waiting, r#"{"type":"answer"}"#, Some(NOT_PAIRED), None, Waiting),
    (Waiting, r#"{"type":"ice"}"#, Some(NOT_PAIRED), None, Waiting),
    (
        Paired,
        r#"{"type":"offer","sdp":"x"}"#,
        None,
        Some(r#"{"type":"offer","from":"<me>","sdp":"x"}"#),
        Paired,
    ),
    (
        Paired,
        r#"{"type":"answer","sdp":"x"}"#,
        None,
        Some(r#"{"type":"answer","from":"<me>","sdp":"x"}"#),
        Paired,
    ),
    (
        Paired,
        r#"{"type":"ice","candidate":"x"}"#,
        None,
        Some(r#"{"type":"ice","from":"<me>","candidate":"x"}"#),
        Paired,
    ),
    (Idle, NEXT, Some(NOT_PAIRED), None, Idle),
    (Waiting, NEXT, Some(NOT_PAIRED), None, Waiting),
    (Paired, NEXT, None, Some(PARTNER_LEFT), Idle),
    (Idle, LEAVE, None, None, Idle),
    (Waiting, LEAVE, None, None, Idle),
    (Paired, LEAVE, None, Some(PARTNER_LEFT), Idle),
    (Idle, PING_TEXT, Some(PONG_TEXT), None, Idle),
    (Waiting, PING_TEXT, Some(PONG_TEXT), None, Waiting),
    (Paired, PING_TEXT, Some(PONG_TEXT), None, Paired),
    (Waiting, r#"{"type":"bye"}"#, Some(UNKNOWN_TYPE), None, Waiting),
    (Paired, r#"{"type":"bye","sdp":"x"}"#, Some(UNKNOWN_TYPE), None, Paired),
    (Paired, r#"{"type":"partner-left"}"#, Some(UNKNOWN_TYPE), None, Paired),
    (Paired, r#"{"sdp":"x"}"#, Some(UNKNOWN_TYPE), None, Paired),
    (Waiting, "bye", Some(INVALID_FORMAT), None, Waiting),
    (Paired, "null", Some(INVALID_FORMAT), None, Paired),
    (Paired, "", Some(INVALID_FORMAT), None, Paired),
];

fn each_line_in_each_state(setup: Setup) {
    let server = Server::start(setup, &[NO_REQUEUE]);
    for &(state, message, answer, heard, after) in LINES {
        let (mut me, mut other) = (Client::connect(&server), Client::connect(&server));
        match state {
            Idle => {}
            Waiting => me.send(AVAILABLE),
            Paired => drop(pair_up(&mut me, &mut other)),
        }
        me.send(message);
        if let Some(answer) = answer {
            me.expect(answer);
        }
        me.expect_nothing();
        if let Some(heard) = heard {
            other.expect(&heard.replace("<me>", &me.id));
        }
        expect_state(&mut me, &mut other, after, setup);
        leave_both(&mut me, &mut other);
    }
}

/// Shows by what happens next that `me` is in this state; `other` is the partner or idle.
fn expect_state(me: &mut Client, other: &mut Client, state: State, setup: Setup) {
    match state {
        Idle => {
            me.send(NEXT);
            me.expect(NOT_PAIRED);
            let_the_queue_hear(setup);
            other.send(AVAILABLE);
            other.expect_nothing();
            me.expect_nothing();
            me.send(AVAILABLE);
            me.expect_matched_with(other);
            other.expect_matched_with(me);
        }
        Waiting => {
            other.send(AVAILABLE);
            other.expect_matched_with(me);
            me.expect_matched_with(other);
        }
        Paired => {
            // Comes behind whatever else was sent to the partner.
            me.send(r#"{"type":"ice","candidate":"mark"}"#);
            other.expect(&format!(r#"{{"type":"ice","from":"{}","candidate":"mark"}}"#, me.id));
        }
    }
}

/// Another shard's queue cannot be watched from here: the answer to a client may come before its word gets there.
fn let_the_queue_hear(setup: Setup) {
    if setup.shards > 1 {
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// Ends a pair, without requeue: both are idle.
fn leave_both(me: &mut Client, other: &mut Client) {
    me.send(LEAVE);
    other.expect(PARTNER_LEFT);
    other.expect_nothing();
}

// JSON.

/// Texts, and what an idle client is answered.
const TEXTS: &[(&str, &str)] = &[
    // Blanks around, and nothing else around.
    (" \t\r\n{\"type\":\"ping\"}\n \t\r", PONG_TEXT),
    ("{\t\"type\" \r:\n \"ping\" }", PONG_TEXT),
    ("\u{feff}{\"type\":\"ping\"}", INVALID_FORMAT),
    ("\u{a0}{\"type\":\"ping\"}", INVALID_FORMAT),
    ("\u{b}{\"type\":\"ping\"}", INVALID_FORMAT),
    ("{\"type\":\"ping\"}\0", INVALID_FORMAT),
    (r#"{"type":"ping"}{"type":"ping"}"#, INVALID_FORMAT),
    (r#"{"type":"ping"},"#, INVALID_FORMAT),
    // Keys and the type are compared unescaped; of equal keys the last counts.
    (r#"{"\u0074ype":"ping"}"#, PONG_TEXT),
    (r#"{"\u0074\u0079\u0070\u0065":"\u0070ing"}"#, PONG_TEXT),
    (r#"{"type":"available","type":"ping"}"#, PONG_TEXT),
    (r#"{"type":"available","\u0074ype":"ping"}"#, PONG_TEXT),
    (r#"{"\u0074ype":"available","type":"ping"}"#, PONG_TEXT),
    (r#"{"type":"ping","type":5}"#, UNKNOWN_TYPE),
    (r#"{"type":5,"type":"ping"}"#, PONG_TEXT),
    (r#"{"a":{"type":"available"},"type":"ping","b":[{"type":"next"}]}"#, PONG_TEXT),
    (r#"{"Type":"ping"}"#, UNKNOWN_TYPE),
    (r#"{"type\u0000":"ping"}"#, UNKNOWN_TYPE),
    // No type that is known.
    ("{}", UNKNOWN_TYPE),
    (r#"{"type":""}"#, UNKNOWN_TYPE),
    (r#"{"type":"PING"}"#, UNKNOWN_TYPE),
    (r#"{"type":" ping"}"#, UNKNOWN_TYPE),
    (r#"{"type":"ping\u0000"}"#, UNKNOWN_TYPE),
    (r#"{"type":"ready"}"#, UNKNOWN_TYPE),
    (r#"{"type":"matched"}"#, UNKNOWN_TYPE),
    (r#"{"type":"pong"}"#, UNKNOWN_TYPE),
    (r#"{"type":"login","name":"a"}"#, UNKNOWN_TYPE),
    (r#"{"type":"\ud800"}"#, UNKNOWN_TYPE),
    (r#"{"type":null}"#, UNKNOWN_TYPE),
    (r#"{"type":5}"#, UNKNOWN_TYPE),
    (r#"{"type":true}"#, UNKNOWN_TYPE),
    (r#"{"type":["ping"]}"#, UNKNOWN_TYPE),
    (r#"{"type":{"type":"ping"}}"#, UNKNOWN_TYPE),
    // JSON that is no object, `null` excepted.
    ("[]", UNKNOWN_TYPE),
    (r#"[{"type":"ping"}]"#, UNKNOWN_TYPE),
    (r#"["type","ping"]"#, UNKNOWN_TYPE),
    (r#""ping""#, UNKNOWN_TYPE),
    (r#""\ud800""#, UNKNOWN_TYPE),
    ("true", UNKNOWN_TYPE),
    ("false", UNKNOWN_TYPE),
    ("0", UNKNOWN_TYPE),
    ("-0", UNKNOWN_TYPE),
    ("-1.5e+10", UNKNOWN_TYPE),
    ("1e400", UNKNOWN_TYPE),
    ("123456789012345678901234567890123456789012345678901234567890", UNKNOWN_TYPE),
    (" 7 ", UNKNOWN_TYPE),
    ("null", INVALID_FORMAT),
    (" null\n", INVALID_FORMAT),
    // Not JSON.
    ("", INVALID_FORMAT),
    (" ", INVALID_FORMAT),
    ("ping", INVALID_FORMAT),
    ("undefined", INVALID_FORMAT),
    ("NaN", INVALID_FORMAT),
    ("Infinity", INVALID_FORMAT),
    ("True", INVALID_FORMAT),
    ("nul", INVALID_FORMAT),
    ("nulll", INVALID_FORMAT),
    ("{", INVALID_FORMAT),
    ("}", INVALID_FORMAT),
    ("[", INVALID_FORMAT),
    ("[1,]", INVALID_FORMAT),
    ("[,1]", INVALID_FORMAT),
    ("[1 2]", INVALID_FORMAT),
    ("[1}", INVALID_FORMAT),
    ("01", INVALID_FORMAT),
    ("-", INVALID_FORMAT),
    ("+1", INVALID_FORMAT),
    ("1.", INVALID_FORMAT),
    (".5", INVALID_FORMAT),
    ("1e", INVALID_FORMAT),
    ("0x10", INVALID_FORMAT),
    (r#"""#, INVALID_FORMAT),
    (r#"{"type":"ping""#, INVALID_FORMAT),
    (r#"{"type":"ping",}"#, INVALID_FORMAT),
    (r#"{"type":"ping" "a":1}"#, INVALID_FORMAT),
    (r#"{"type":"ping","a"}"#, INVALID_FORMAT),
    (r#"{"type":"ping","a":}"#, INVALID_FORMAT),
    (r#"{"type":"ping",1:2}"#, INVALID_FORMAT),
    (r#"{type:"ping"}"#, INVALID_FORMAT),
    (r#"{'type':'ping'}"#, INVALID_FORMAT),
    (r#"{"type":"ping"/**/}"#, INVALID_FORMAT),
    (r#"{"type":"ping","a":01}"#, INVALID_FORMAT),
    (r#"{"type":"ping","a":1.e5}"#, INVALID_FORMAT),
    (r#"{"type":"ping","a":tru}"#, INVALID_FORMAT),
    (r#"{"type":"ping","a":"\x"}"#, INVALID_FORMAT),
    (r#"{"type":"ping","a":"\u12"}"#, INVALID_FORMAT),
    (r#"{"type":"ping","a":"\u12g4"}"#, INVALID_FORMAT),
    (r#"{"type":"ping","a":"\"}"#, INVALID_FORMAT),
    ("{\"type\":\"ping\",\"a\":\"\n\"}", INVALID_FORMAT),
    ("{\"type\":\"ping\",\"a\":\"\0\"}", INVALID_FORMAT),
    ("{\"type\":\"ping\",\"a\":\"\u{1f}\"}", INVALID_FORMAT),
    // Strings may hold all else.
    ("{\"type\":\"ping\",\"a\":\"\u{7f}\u{2028}\u{2029}\u{feff}\u{10ffff}\"}", PONG_TEXT),
    (r#"{"type":"ping","a":"\ud800","b":"\udc00\ud800","c":"\"\\\/\b\f\n\r\t\u0000"}"#, PONG_TEXT),
    (r#"{"type":"ping","\ud800":1}"#, PONG_TEXT),
    (r#"{"type":"ping","":1}"#, PONG_TEXT),
];

fn what_is_json_is_what_json_parse_takes(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let mut client = Client::connect(&server);
    for (text, answer) in TEXTS {
        client.send(text);
        assert_eq!(client.next(text), *answer, "{text:?}");
        client.send_binary(text.as_bytes());
        assert_eq!(client.next(text), *answer, "in a binary frame: {text:?}");
    }
    for (depth, answer) in [(1_000, UNKNOWN_TYPE), (1_001, INVALID_FORMAT), (100_000, INVALID_FORMAT)] {
        client.send(&nested(depth, "1"));
        assert_eq!(client.next("the answer"), answer, "nested {depth} deep");
        let objects = format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        client.send(&objects);
        assert_eq!(client.next("the answer"), answer, "objects nested {depth} deep");
    }
    // Brackets inside a string nest nothing.
    client.send(&format!(r#"{{"type":"ping","a":"{}"}}"#, "[{".repeat(5_000)));
    client.expect(PONG_TEXT);
    // In a binary frame bytes that are no UTF-8 are not JSON; the connection stays.
    for bytes in [
        &b"{\"type\":\"ping\",\"a\":\"\xff\"}"[..],
        b"\"\xed\xa0\x80\"",
        b"\"\xc0\xaf\"",
        b"\x80",
        b"\"\xe2\x82\"",
    ] {
        client.send_binary(bytes);
        assert_eq!(client.next("the answer"), INVALID_FORMAT, "{}", bytes.escape_ascii());
    }
    client.expect_nothing();
}

/// `depth` lists around a value.
fn nested(depth: usize, value: &str) -> String {
    format!("{}{value}{}", "[".repeat(depth), "]".repeat(depth))
}

/// What is sent, and what the partner hears; `<me>` is the sender's id.
const RELAYED: &[(&str, &str)] = &[
    // Any value, as the bytes that came in.
    (r#"{"type":"offer","sdp":1.50}"#, r#"{"type":"offer","from":"<me>","sdp":1.50}"#),
    (r#"{"type":"offer","sdp":1e400}"#, r#"{"type":"offer","from":"<me>","sdp":1e400}"#),
    (r#"{"type":"offer","sdp":-0}"#, r#"{"type":"offer","from":"<me>","sdp":-0}"#),
    (r#"{"type":"offer","sdp":1E+02}"#, r#"{"type":"offer","from":"<me>","sdp":1E+02}"#),
    (
        r#"{"type":"offer","sdp":12345678901234567890123456789.10}"#,
        r#"{"type":"offer","from":"<me>","sdp":12345678901234567890123456789.10}"#,
    ),
    (r#"{"type":"answer","sdp":null}"#, r#"{"type":"answer","from":"<me>","sdp":null}"#),
    (r#"{"type":"ice","candidate":null}"#, r#"{"type":"ice","from":"<me>","candidate":null}"#),
    (r#"{"type":"ice","candidate":false}"#, r#"{"type":"ice","from":"<me>","candidate":false}"#),
    (r#"{"type":"ice","candidate":""}"#, r#"{"type":"ice","from":"<me>","candidate":""}"#),
    (r#"{"type":"ice","candidate":[]}"#, r#"{"type":"ice","from":"<me>","candidate":[]}"#),
    (
        r#"{"type":"offer","sdp":{"type":"offer","sdp":"v=0\r\n"}}"#,
        r#"{"type":"offer","from":"<me>","sdp":{"type":"offer","sdp":"v=0\r\n"}}"#,
    ),
    (
        r#"{"type":"offer","sdp":"a\u0041\/\"\\\ud83d\ude00"}"#,
        r#"{"type":"offer","from":"<me>","sdp":"a\u0041\/\"\\\ud83d\ude00"}"#,
    ),
    (r#"{"type":"offer","sdp":"\ud800 \udc00"}"#, r#"{"type":"offer","from":"<me>","sdp":"\ud800 \udc00"}"#),
    (
        "{\"type\":\"offer\",\"sdp\":\"é\u{1f600}\u{2028}\u{7f}\"}",
        "{\"type\":\"offer\",\"from\":\"<me>\",\"sdp\":\"é\u{1f600}\u{2028}\u{7f}\"}",
    ),
    (
        "{ \"type\" : \"offer\" , \"sdp\" :\t[ 1 , { \"a\" : \"b c\" } , 2 ]\r\n}",
        r#"{"type":"offer","from":"<me>","sdp":[ 1 , { "a" : "b c" } , 2 ]}"#,
    ),
    (r#"  {"sdp": "x" ,"type":"offer"}  "#, r#"{"type":"offer","from":"<me>","sdp":"x"}"#),
    // Missing stays missing, and only that one field is relayed.
    (r#"{"type":"offer"}"#, r#"{"type":"offer","from":"<me>"}"#),
    (r#"{"type":"answer"}"#, r#"{"type":"answer","from":"<me>"}"#),
    (r#"{"type":"ice"}"#, r#"{"type":"ice","from":"<me>"}"#),
    (r#"{"type":"ice","sdp":"x"}"#, r#"{"type":"ice","from":"<me>"}"#),
    (r#"{"type":"offer","candidate":"x"}"#, r#"{"type":"offer","from":"<me>"}"#),
    (
        r#"{"type":"ice","a":1,"candidate":"x","sdpMid":"0","roomId":"r"}"#,
        r#"{"type":"ice","from":"<me>","candidate":"x"}"#,
    ),
    (r#"{"type":"offer","to":"someone","sdp":"x"}"#, r#"{"type":"offer","from":"<me>","sdp":"x"}"#),
    (r#"{"type":"offer","x":{"sdp":"inner"}}"#, r#"{"type":"offer","from":"<me>"}"#),
    // Of equal keys the last counts; keys are compared unescaped.
    (r#"{"type":"offer","sdp":1,"sdp":2}"#, r#"{"type":"offer","from":"<me>","sdp":2}"#),
    (r#"{"type":"offer","sdp":1,"s\u0064p":"\u0041"}"#, r#"{"type":"offer","from":"<me>","sdp":"\u0041"}"#),
    (r#"{"s\u0064p":1,"sdp":{"a":2},"type":"offer"}"#, r#"{"type":"offer","from":"<me>","sdp":{"a":2}}"#),
    (r#"{"type":"answer","sdp":3,"type":"offer"}"#, r#"{"type":"offer","from":"<me>","sdp":3}"#),
    (
        r#"{"\u0074ype":"\u0069\u0063\u0065","\u0063andidate":"x"}"#,
        r#"{"type":"ice","from":"<me>","candidate":"x"}"#,
    ),
    // The sender is named by the server alone.
    (r#"{"type":"offer","from":"evil","sdp":"x"}"#, r#"{"type":"offer","from":"<me>","sdp":"x"}"#),
    (
        r#"{"from":"evil","type":"offer","sdp":"x","fr\u006fm":"evil"}"#,
        r#"{"type":"offer","from":"<me>","sdp":"x"}"#,
    ),
    (r#"{"type":"offer","sdp":{"from":"mine"}}"#, r#"{"type":"offer","from":"<me>","sdp":{"from":"mine"}}"#),
];

fn opaque_values_arrive_as_they_were_sent(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let (one, other) = pair(&server);
    let mut sides = [one, other];
    for round in 0..2 {
        let [me, partner] = &mut sides;
        for (sent, heard) in RELAYED {
            let heard = heard.replace("<me>", &me.id);
            me.send(sent);
            partner.expect(&heard);
            me.send_binary(sent.as_bytes());
            partner.expect(&heard);
        }
        // The message itself is one level.
        let deepest = nested(999, "1");
        me.send(&format!(r#"{{"type":"offer","sdp":{deepest}}}"#));
        partner.expect(&format!(r#"{{"type":"offer","from":"{}","sdp":{deepest}}}"#, me.id));
        me.send(&format!(r#"{{"type":"offer","sdp":[{deepest}]}}"#));
        me.expect(INVALID_FORMAT);
        me.expect_nothing();
        partner.expect_nothing();
        assert!(round < 2);
        sides.reverse();
    }
}

fn values_of_every_length_arrive(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    // Several pairs, so that some cross shards.
    let mut pairs: Vec<_> = (0..if setup.shards > 1 { 4 } else { 1 }).map(|_| pair(&server)).collect();
    for (me, partner) in &mut pairs {
        let around_the_limits = (0..80).chain(230..300).chain(3_950..4_110).chain(65_400..65_480);
        for len in around_the_limits.chain([200_000, 1_000_000]) {
            let value = "x".repeat(len);
            me.send(&format!(r#"{{"type":"offer","sdp":"{value}"}}"#));
            partner.expect(&format!(r#"{{"type":"offer","from":"{}","sdp":"{value}"}}"#, me.id));
        }
    }
}

fn fragments_are_joined_and_pings_answered_between(setup: Setup) {
    let server = Server::start(setup, &[]);
    let (mut sender, id) = Raw::open_pairing(&server);
    let (mut receiver, _) = Raw::open_pairing(&server);
    sender.send(&frame(TEXT, AVAILABLE.as_bytes()));
    receiver.send(&frame(TEXT, AVAILABLE.as_bytes()));
    for side in [&mut sender, &mut receiver] {
        assert!(side.frame().payload.starts_with(br#"{"type":"matched""#));
    }
    let message = r#"{"type":"offer","sdp":"grüße 😀"}"#.as_bytes();
    let heard = format!(r#"{{"type":"offer","from":"{id}","sdp":"grüße 😀"}}"#);
    // Cut between all bytes, also inside of characters.
    for opcode in [TEXT, BINARY] {
        let last = message.len() - 1;
        for (at, byte) in message.iter().enumerate() {
            let first = if at == 0 { opcode & !FIN } else { CONTINUATION } | if at == last { FIN } else { 0 };
            sender.send(&frame(first, &[*byte]));
            if at % 8 == 0 && at != last {
                sender.send(&frame(PING, &[at as u8]));
                assert_eq!(sender.frame(), Frame { first: PONG, payload: vec![at as u8] });
            }
        }
        receiver.expect(&heard);
    }
    // Empty fragments around, all in one write.
    let pieces = [
        frame(TEXT & !FIN, b""),
        frame(CONTINUATION, message),
        frame(PING, b"between"),
        frame(PONG, b"unasked"),
        frame(CONTINUATION | FIN, b""),
    ];
    sender.send(&pieces.concat());
    assert_eq!(sender.frame(), Frame { first: PONG, payload: b"between".to_vec() });
    receiver.expect(&heard);
}

// The queue.

fn who_waits_longest_is_matched_first(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut clients: Vec<_> = (0..12).map(|_| Client::connect(&server)).collect();
    let mut heard = Vec::new();
    for client in &mut clients {
        client.send(AVAILABLE);
        heard.push(client.drain());
        let_the_queue_hear(setup);
    }
    let ids: Vec<String> = clients.iter().map(|client| client.id.clone()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        heard[index].extend(client.drain());
        let partner = format!(r#","partnerId":"{}"}}"#, ids[index ^ 1]);
        let is_right = heard[index].len() == 1 && heard[index][0].ends_with(&partner);
        assert!(is_right, "client {index} is matched with its neighbour: {:?}", heard[index]);
    }
}

fn who_is_left_waits_again(setup: Setup) {
    let server = Server::start(setup, &[]);
    let (mut one, mut other) = pair(&server);
    let mut third = Client::connect(&server);
    for round in 0..8 {
        let words = [NEXT, LEAVE];
        // Nobody waits: who is left does.
        one.send(words[round % 2]);
        other.expect(PARTNER_LEFT);
        other.expect_nothing();
        one.expect_nothing();
        third.send(AVAILABLE);
        third.expect_matched_with(&other);
        other.expect_matched_with(&third);
        // Somebody waits: matched at once, after the notice.
        one.send(AVAILABLE);
        one.expect_nothing();
        third.send(words[round % 2]);
        other.expect(PARTNER_LEFT);
        other.expect_matched_with(&one);
        one.expect_matched_with(&other);
        third.expect_nothing();
        // Idle until it says `available`.
        third.send(NEXT);
        third.expect(NOT_PAIRED);
        // Without a wish of its own it stays out of it.
        one.send(r#"{"type":"offer","sdp":1}"#);
        other.expect(&format!(r#"{{"type":"offer","from":"{}","sdp":1}}"#, one.id));
        third.expect_nothing();
    }
}

fn who_is_left_is_idle_without_requeue(setup: Setup) {
    let server = Server::start(setup, &[NO_REQUEUE]);
    let (mut one, mut other) = pair(&server);
    let mut third = Client::connect(&server);
    third.send(AVAILABLE);
    third.expect_nothing();
    one.send(NEXT);
    other.expect(PARTNER_LEFT);
    other.send(NEXT);
    other.expect(NOT_PAIRED);
    other.expect_nothing();
    third.expect_nothing();
    other.send(AVAILABLE);
    other.expect_matched_with(&third);
    third.expect_matched_with(&other);
    one.expect_nothing();
}

fn both_leave_at_once(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let (mut one, mut other) = pair(&server);
    for round in 0..60 {
        let words = [(NEXT, NEXT), (NEXT, LEAVE), (LEAVE, LEAVE)][round % 3];
        one.send(words.0);
        other.send(words.1);
        let heard = [one.drain(), other.drain()];
        let words = [words.0, words.1];
        for (heard, word) in heard.iter().zip(words) {
            // Either it was first, or it was left before its own word came.
            let late: &[&str] = if word == NEXT { &[PARTNER_LEFT, NOT_PAIRED] } else { &[PARTNER_LEFT] };
            assert!(heard.is_empty() || heard == late, "round {round}: {heard:?} after {word}");
        }
        assert!(
            heard[0].is_empty() || heard[1].is_empty(),
            "round {round}: one of the two left first: {heard:?}"
        );
        // Who was left and did not say `leave` waits, the others are idle: with that they are matched with each
        // other, once.
        for (client, (heard, word)) in [&mut one, &mut other].into_iter().zip(heard.iter().zip(words)) {
            if heard.is_empty() || word == LEAVE {
                client.send(AVAILABLE);
            }
        }
        expect_one_room(&mut one, &mut other);
    }
    // Nobody is left in the queue: a newcomer stays alone.
    let mut third = Client::connect(&server);
    third.send(AVAILABLE);
    third.expect_nothing();
    one.expect_nothing();
    other.expect_nothing();
}

/// The two must end up in one room. A match with who left the queue on another shard a moment ago may come before: it
/// is taken back with a notice.
fn expect_one_room(one: &mut Client, other: &mut Client) {
    let mut heard = [Vec::new(), Vec::new()];
    wait_until("both to be in one room", || {
        heard[0].extend(one.drain());
        heard[1].extend(other.drain());
        let rooms = heard.each_ref().map(|texts: &Vec<String>| texts.last().and_then(|text| matched(text)));
        rooms[0].is_some()
            && rooms[0].as_ref().map(|matched| &matched.room)
                == rooms[1].as_ref().map(|matched| &matched.room)
    });
    for (texts, partner) in heard.iter().zip([&*other, &*one]) {
        for (at, text) in texts.iter().enumerate() {
            let is_right = match at % 2 {
                0 => matched(text).is_some_and(|matched| matched.partner == partner.id),
                _ => text == PARTNER_LEFT,
            };
            assert!(is_right, "{texts:?}");
        }
    }
    one.expect_nothing();
    other.expect_nothing();
}

// Who is gone.

fn a_loss_counts_as_leave(setup: Setup) {
    let server = Server::start(setup, &[]);
    let ends: [fn(Client); 3] = [Client::close, Client::reset, drop];
    for end in ends {
        let (one, mut other) = pair(&server);
        end(one);
        other.expect(PARTNER_LEFT);
        // Back in the queue.
        let mut next = Client::connect(&server);
        next.send(AVAILABLE);
        next.expect_matched_with(&other);
        other.expect_matched_with(&next);
        other.close();
        next.expect(PARTNER_LEFT);
        next.send(LEAVE);
        next.expect_nothing();
        let_the_queue_hear(setup);
    }
    // In the middle of a message.
    let (mut raw, _) = Raw::open_pairing(&server);
    let mut other = Client::connect(&server);
    other.send(AVAILABLE);
    other.expect_nothing();
    raw.send(&frame(TEXT, AVAILABLE.as_bytes()));
    other.expect_matched();
    let offer = frame(TEXT, br#"{"type":"offer","sdp":"cut short"}"#);
    raw.send(&offer[..offer.len() - 3]);
    drop(raw);
    other.expect(PARTNER_LEFT);
    other.expect_nothing();
}

fn who_is_gone_is_never_matched(setup: Setup) {
    let server = Server::start(setup, &[NO_REQUEUE]);
    let ends: [fn(Client); 3] = [Client::close, Client::reset, drop];
    for end in ends {
        let mut ghost = Client::connect(&server);
        ghost.send(AVAILABLE);
        ghost.expect_nothing();
        end(ghost);
        server.wait_for_metric("parlor_clients", 0);
        let (one, other) = pair(&server);
        one.close();
        other.close();
        server.wait_for_metric("parlor_clients", 0);
    }
}

/// The server has answered the close before the others even come.
fn who_has_closed_is_never_matched(setup: Setup) {
    let server = Server::start(setup, &[NO_REQUEUE]);
    for _ in 0..100 {
        let mut ghost = Client::connect(&server);
        ghost.send(AVAILABLE);
        ghost.close();
        let (_one, _other) = pair(&server);
    }
}

/// The server has answered after `leave` before the other one says `available`.
fn who_has_left_the_queue_is_not_matched(setup: Setup) {
    let server = Server::start(setup, &[NO_REQUEUE, NO_RATE]);
    let (mut me, mut other) = (Client::connect(&server), Client::connect(&server));
    for _ in 0..100 {
        me.send_at_once([AVAILABLE, LEAVE]);
        me.expect_nothing();
        other.send(AVAILABLE);
        other.expect_nothing();
        me.expect_nothing();
        other.send(LEAVE);
        other.expect_nothing();
    }
}

fn ghosts_do_not_keep_others_apart(setup: Setup) {
    let server = Server::start(setup, &[]);
    // Gone before the queue answers: the others find each other, whatever they were told of the ghosts.
    for _ in 0..20 {
        let mut ghost = Client::connect(&server);
        ghost.send(AVAILABLE);
        ghost.reset();
    }
    let (mut one, mut other) = (Client::connect(&server), Client::connect(&server));
    one.send(AVAILABLE);
    other.send(AVAILABLE);
    expect_match_in_the_end(&mut one, &other.id);
    expect_match_in_the_end(&mut other, &one.id);
}

/// Whom a client is matched with while they are still there may leave: then there is a notice, and another match.
fn expect_match_in_the_end(client: &mut Client, partner: &str) {
    while client.expect_matched().partner != partner {
        client.expect(PARTNER_LEFT);
    }
}

fn no_frame_of_an_old_room_reaches_the_next_partner(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let (mut talker, mut leaver) = pair(&server);
    let mut fresh = Client::connect(&server);
    let candidates: Vec<String> =
        (0..100).map(|number| format!(r#"{{"type":"ice","candidate":{number}}}"#)).collect();
    for round in 0..12 {
        fresh.send(AVAILABLE);
        fresh.expect_nothing();
        talker.send_at_once(candidates.iter().map(String::as_str));
        leaver.send(NEXT);
        // What it hears until the server has read its word is of the old room, in order and without a gap.
        let heard = leaver.drain();
        for (number, heard) in heard.iter().enumerate() {
            let expected = format!(r#"{{"type":"ice","from":"{}","candidate":{number}}}"#, talker.id);
            assert_eq!(*heard, expected, "round {round}");
        }
        // The talker was left, and is matched with the one that waits; some of what it said was too late.
        let mut next = talker.next("partner-left");
        while next == NOT_PAIRED {
            next = talker.next("partner-left");
        }
        assert_eq!(next, PARTNER_LEFT, "round {round}");
        let mut later = Vec::new();
        while !next.starts_with(r#"{"type":"matched""#) {
            next = talker.next("matched");
            later.push(next.clone());
        }
        later.pop();
        assert!(later.iter().all(|text| text == NOT_PAIRED), "round {round}: {later:?}");
        fresh.expect_matched_with(&talker);
        // Said while the server still had some of the flood to read: that counts for the new room, and only the end of it.
        talker.expect_nothing();
        talker.send(r#"{"type":"ice","candidate":"new"}"#);
        let end = format!(r#"{{"type":"ice","from":"{}","candidate":"new"}}"#, talker.id);
        let mut in_new_room = Vec::new();
        loop {
            let text = fresh.next("the first candidate of the new room");
            if text == end {
                break;
            }
            in_new_room.push(text);
        }
        let from = candidates.len() - in_new_room.len();
        for (number, heard) in (from..).zip(&in_new_room) {
            assert_eq!(*heard, format!(r#"{{"type":"ice","from":"{}","candidate":{number}}}"#, talker.id));
        }
        assert!(heard.len() + in_new_room.len() <= candidates.len(), "round {round}: nothing is heard twice");
        leaver.expect_nothing();
        // The leaver is fresh next time.
        std::mem::swap(&mut leaver, &mut fresh);
    }
}

fn every_id_is_a_uuid_of_its_own(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut ids = std::collections::BTreeSet::new();
    let mut pairs = Vec::new();
    for _ in 0..40 {
        // The shapes are checked where they are read.
        let (mut one, mut other) = (Client::connect(&server), Client::connect(&server));
        assert!(ids.insert(pair_up(&mut one, &mut other)), "room ids differ");
        assert!(ids.insert(one.id.clone()) && ids.insert(other.id.clone()), "client ids differ");
        pairs.push((one, other));
    }
}

#[test]
fn ids_differ_from_one_start_to_the_next() {
    let id = || Client::connect(&Server::start(Setup::EPOLL_1, &[])).id;
    assert_ne!(id(), id());
}

#[test]
fn answers_are_single_text_frames_whatever_comes() {
    let server = Server::start(Setup::IO_URING_1, &[]);
    let (mut raw, id) = Raw::open_pairing(&server);
    let mut partner = Client::connect(&server);
    raw.send(&frame(BINARY, PING_TEXT.as_bytes()));
    raw.expect(PONG_TEXT);
    raw.send(&frame(BINARY, AVAILABLE.as_bytes()));
    partner.send(AVAILABLE);
    partner.expect_matched();
    assert_eq!(raw.frame().first, TEXT);
    let value = "é".repeat(400_000);
    partner.send(&format!(r#"{{"type":"answer","sdp":"{value}"}}"#));
    raw.expect(&format!(r#"{{"type":"answer","from":"{}","sdp":"{value}"}}"#, partner.id));
    assert_ne!(id, partner.id);
}

// The rate.

#[test]
fn forty_messages_a_second_pass() {
    let server = Server::start(Setup::IO_URING_1, &[]);
    let mut client = Client::connect(&server);
    let start = Instant::now();
    // What is no JSON counts as well.
    let texts: Vec<&str> =
        (0..45).map(|number| if number % 2 == 0 { PING_TEXT } else { "no JSON" }).collect();
    client.send_at_once(texts);
    for number in 0..45 {
        client.expect(match number {
            40.. => RATE_LIMIT,
            even if even % 2 == 0 => PONG_TEXT,
            _ => INVALID_FORMAT,
        });
    }
    // They are dropped, not read: this one would make it wait.
    client.send(AVAILABLE);
    client.expect(RATE_LIMIT);
    assert!(start.elapsed() < Duration::from_secs(1), "too slow a machine for this test");
    assert_eq!(server.metric("parlor_rate_limited_total"), 6);
    // The next window starts with the first message after this one, and has room for 40 again.
    wait_until("the end of the window", || start.elapsed() > Duration::from_millis(1_050));
    client.send_at_once([PING_TEXT; 41]);
    for _ in 0..40 {
        client.expect(PONG_TEXT);
    }
    client.expect(RATE_LIMIT);
    let mut other = Client::connect(&server);
    other.send(AVAILABLE);
    other.expect_nothing();
    client.expect_nothing();
}

#[test]
fn control_frames_never_count_and_each_client_has_its_own_rate() {
    let server = Server::start(Setup::EPOLL_1, &[("MAX_MSG_PER_SECOND", "3")]);
    let (mut raw, _) = Raw::open_pairing(&server);
    let mut other = Client::connect(&server);
    let pings = [frame(PING, b"p"), frame(PONG, b"q")].concat().repeat(50);
    raw.send(&[pings.clone(), frame(TEXT, PING_TEXT.as_bytes()).repeat(4), pings].concat());
    let pong = Frame { first: PONG, payload: b"p".to_vec() };
    let answers = [
        vec![pong.clone(); 50],
        vec![Frame::text(PONG_TEXT); 3],
        vec![Frame::text(RATE_LIMIT)],
        vec![pong; 50],
    ];
    for expected in answers.concat() {
        assert_eq!(raw.frame(), expected);
    }
    other.send(PING_TEXT);
    other.expect(PONG_TEXT);
}

#[test]
fn messages_over_the_rate_do_not_reach_the_partner() {
    let server = Server::start(Setup::IO_URING_4, &[("MAX_MSG_PER_SECOND", "10")]);
    let (mut me, mut partner) = pair(&server);
    // `available` was the first of ten.
    let offers: Vec<String> = (0..15).map(|number| format!(r#"{{"type":"offer","sdp":{number}}}"#)).collect();
    me.send_at_once(offers.iter().map(String::as_str));
    for _ in 9..15 {
        me.expect(RATE_LIMIT);
    }
    for number in 0..9 {
        partner.expect(&format!(r#"{{"type":"offer","from":"{}","sdp":{number}}}"#, me.id));
    }
    me.expect_nothing();
    partner.expect_nothing();
}
