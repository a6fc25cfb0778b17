//! Inputs and the actions that follow, each line of protocols.md section 3, and properties of what is forwarded.

use std::fmt;

use proptest::prelude::*;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::*;
use crate::id::{Entropy, HostId, ShardIndex, Slot};
use crate::protocol;
use crate::wire::envelope::Parser;

const UNIX_MS: u64 = 1_700_000_000_123;

/// The directory and the clients that speak to it, each known by its position.
struct Table {
    directory: Directory,
    parser: Parser,
    clients: Vec<(ClientId, State)>,
}

fn table(clients: u32) -> Table {
    let mut entropy = Entropy::from_seed([8; 32]);
    let mut client = |slot| ClientId::new(HostId(9), ShardIndex(0), Slot(slot), &mut entropy);
    let clients = (0..clients).map(|slot| (client(slot), State::default())).collect();
    Table { directory: Directory::new([1, 2, 3, 4], false), parser: Parser::default(), clients }
}

/// Clients that are logged in as `a`, `b`, and so on.
fn logged_in(clients: u32) -> Table {
    let mut table = table(clients);
    for (who, name) in (0..clients as usize).zip('a'..='z') {
        table.logs_in(who, &name.to_string());
    }
    table
}

impl Table {
    /// What follows when a client says this: a line per action.
    fn says(&mut self, who: usize, message: &str) -> Vec<String> {
        self.says_bytes(who, message.as_bytes())
    }

    fn says_bytes(&mut self, who: usize, message: &[u8]) -> Vec<String> {
        let actions = self.actions(who, message);
        actions.iter().map(|action| self.shown(who, action, message)).collect()
    }

    fn actions(&mut self, who: usize, message: &[u8]) -> Actions {
        let mut out = Actions::new();
        let (id, state) = &mut self.clients[who];
        let envelope = self.parser.parse(message);
        let parsed = envelope.as_ref().map_err(|e| *e);
        self.directory.handle_message(state, *id, message, parsed, UNIX_MS, &mut out);
        out
    }

    fn leaves(&mut self, who: usize) -> Vec<String> {
        let mut out = Actions::new();
        let (id, state) = &mut self.clients[who];
        self.directory.handle_leave(state, *id, &mut out);
        out.iter().map(|action| self.shown(who, action, b"")).collect()
    }

    fn logs_in(&mut self, who: usize, name: &str) {
        let lines = self.says(who, &format!(r#"{{"type":"login","name":"{name}"}}"#));
        assert!(lines[0].starts_with(&format!(r#"{who} {{"type":"login_success""#)), "{lines:?}");
    }

    fn names(&self) -> Vec<&str> {
        self.directory.names().collect()
    }

    /// An action as a line: receivers and text, or who is closed and how.
    fn shown(&self, me: usize, action: &Action, message: &[u8]) -> String {
        match action {
            Action::Reply(parts) => format!("{me} {}", rendered(parts, message)),
            Action::Send { to, parts } => {
                assert_ne!(*to, self.clients[me].0, "that would be a reply");
                format!("{} {}", self.position(*to), rendered(parts, message))
            }
            Action::Broadcast { to, parts } => {
                assert!(!to.is_empty(), "nothing is sent to nobody");
                let to: Vec<String> = to.iter().map(|id| self.position(*id).to_string()).collect();
                format!("{} {}", to.join(","), rendered(parts, message))
            }
            Action::Close { client, code, reason } => {
                format!("close {} {} {reason}", self.position(*client), code.map_or(0, CloseCode::number))
            }
            Action::Ignore => "ignored".to_owned(),
            other => panic!("the directory does not ask for this: {other:?}"),
        }
    }

    fn position(&self, id: ClientId) -> usize {
        self.clients.iter().position(|client| client.0 == id).expect("a client of the table")
    }
}

fn rendered(parts: &[Part], message: &[u8]) -> String {
    let mut bytes = Vec::new();
    protocol::write(parts, message, |piece| bytes.extend_from_slice(piece));
    assert_eq!(bytes.len(), protocol::len_of(parts));
    String::from_utf8(bytes).expect("UTF-8")
}

/// The line of an error to the client at this position.
fn error_line(who: usize, error: &str) -> String {
    format!(r#"{who} {{"type":"error","error":"{error}"}}"#)
}

#[test]
fn logins_and_losses_are_told_to_all_others() {
    let mut table = table(3);
    assert_eq!(
        table.says(1, r#"{"type":"login","name":"one"}"#),
        [r#"1 {"type":"login_success","id":"one","clients":["one"]}"#]
    );
    assert_eq!(
        table.says(0, r#"{"type":"login","name":"a-Z_9"}"#),
        [
            r#"0 {"type":"login_success","id":"a-Z_9","clients":["one","a-Z_9"]}"#,
            r#"1 {"type":"peer_connected","peer":"a-Z_9"}"#
        ]
    );
    assert_eq!(
        table.says(2, r#"{"type":"login","name":"two"}"#),
        [
            r#"2 {"type":"login_success","id":"two","clients":["one","a-Z_9","two"]}"#,
            r#"1,0 {"type":"peer_connected","peer":"two"}"#
        ]
    );
    assert_eq!((table.names(), table.directory.len()), (vec!["one", "a-Z_9", "two"], 3));
    assert_eq!(table.leaves(1), [r#"0,2 {"type":"peer_disconnected","peer":"one"}"#]);
    assert_eq!(table.leaves(1), [""; 0], "once");
    assert_eq!(
        table.says(1, r#"{"type":"login","name":"one"}"#),
        [
            r#"1 {"type":"login_success","id":"one","clients":["a-Z_9","two","one"]}"#,
            r#"0,2 {"type":"peer_connected","peer":"one"}"#
        ],
        "the name is free at once, and last in the order"
    );
    for who in 0..3 {
        table.leaves(who);
    }
    assert!(table.directory.is_empty() && table.directory.clients.is_empty());
}

#[test]
fn a_name_is_trimmed_as_javascript_does() {
    let blanks = "\u{9}\u{b}\u{c} \u{a0}\u{feff}\u{a}\u{d}\u{2028}\u{2029}\u{1680}\u{2000}\u{2001}\u{2002}\
                  \u{2003}\u{2004}\u{2005}\u{2006}\u{2007}\u{2008}\u{2009}\u{200a}\u{202f}\u{205f}\u{3000}";
    for blank in blanks.chars() {
        let escape = format!("\\u{:04x}", u32::from(blank));
        let mut table = table(1);
        table.says(0, &format!(r#"{{"type":"login","name":"{escape}{escape}x{escape}"}}"#));
        assert_eq!(table.names(), ["x"], "{escape}");
    }
    for other in ["\\u0085", "\\u180e", "\\u200b", "\\u2060", "\\u0000", "\\u001c", "\\u001f", "\\ufffe"] {
        let mut table = table(1);
        let lines = table.says(0, &format!(r#"{{"type":"login","name":"{other}x"}}"#));
        assert_eq!(lines[0], error_line(0, "invalid_name"), "{other}");
    }
}

#[test]
fn a_good_name_logs_in() {
    let longest = "x".repeat(64);
    for (message, name) in [
        (r#"{"type":"login","name":"client-1"}"#, "client-1"),
        (r#"{"type":"login","id":"client-1"}"#, "client-1"),
        (r#"{"type":"login","name":null,"id":"i"}"#, "i"),
        (r#"{"type":"login","id":"i","name":"n"}"#, "n"),
        (r#"{"type":"login","id":7,"name":"n"}"#, "n"),
        (r#"{"type":"login","name":7,"name":"n"}"#, "n"),
        (r#" {"type":"login","name":"\u0061b","x":1} "#, "ab"),
        (r#"{"n\u0061me":"-","type":"log\u0069n"}"#, "-"),
        (&format!(r#"{{"type":"login","name":"  {longest}  "}}"#), &longest),
    ] {
        let mut table = table(1);
        let success = format!(r#"0 {{"type":"login_success","id":"{name}","clients":["{name}"]}}"#);
        assert_eq!(table.says(0, message), [success], "{message}");
    }
}

#[test]
fn a_bad_name_is_refused_and_closed() {
    let too_long = format!("\"{}\"", "x".repeat(65));
    let bad = [
        "7",
        "true",
        "{}",
        "[\"x\"]",
        "\"\"",
        "\" \"",
        "\"a b\"",
        "\"ä\"",
        "\"a.b\"",
        "\"a\\\"b\"",
        "\"\\ud800\"",
        "\"x\\ud800\"",
        "\"\\u0000\"",
        "\"a/b\"",
        "\"@\"",
        "\"`\"",
        "\"٣\"",
        &too_long,
    ];
    let with_id = |name: &&str| format!(r#"{{"type":"login","name":{name},"id":"good"}}"#);
    let mut messages: Vec<String> = bad.iter().map(with_id).collect();
    messages.extend(bad.iter().map(|id| format!(r#"{{"type":"login","id":{id}}}"#)));
    messages.extend(
        [
            r#"{"type":"login"}"#,
            r#"{"type":"login","name":null}"#,
            r#"{"type":"login","name":null,"id":null}"#,
            r#"{"type":"login","id":null}"#,
            r#"{"type":"login","Name":"good"}"#,
            r#"{"type":"login","name":"good","name":7}"#,
        ]
        .map(str::to_owned),
    );
    for message in messages {
        let mut table = table(2);
        table.logs_in(1, "there");
        let expected = [error_line(0, "invalid_name"), "close 0 4001 Invalid client name".to_owned()];
        assert_eq!(table.says(0, &message), expected, "{message}");
        assert_eq!((table.leaves(0), table.names()), (vec![], vec!["there"]));
    }
}

#[test]
fn a_name_that_is_taken_stays_with_its_holder() {
    let mut table = table(3);
    table.logs_in(0, "x");
    let taken = [error_line(1, "name_taken"), "close 1 4000 Client name already taken".to_owned()];
    assert_eq!(table.says(1, r#"{"type":"login","name":" x "}"#), taken);
    assert_eq!(table.leaves(1), [""; 0]);
    assert_eq!(table.names(), ["x"]);
    assert_eq!(
        table.says(0, r#"{"type":"hi","target":"x"}"#),
        [r#"0 {"type":"hi","target":"x","from":"x"}"#]
    );
    table.logs_in(2, "X");
    assert_eq!(table.names(), ["x", "X"], "names tell upper from lower case");
}

#[test]
fn a_login_after_the_login_is_an_error_without_a_close() {
    let mut table = logged_in(2);
    for name in ["a", "b", "new", "not a name"] {
        let message = format!(r#"{{"type":"login","name":"{name}","target":"b"}}"#);
        assert_eq!(table.says(0, &message), [error_line(0, "invalid_name")], "{name}");
    }
    assert_eq!(table.names(), ["a", "b"]);
}

#[test]
fn before_the_login_there_is_nothing_else() {
    let mut table = table(2);
    table.logs_in(1, "b");
    for message in [
        r#"{"type":"ping"}"#,
        r#"{"type":"stream_started"}"#,
        r#"{"type":"offer","target":"b"}"#,
        r#"{"type":"create"}"#,
        r#"{"type":"nobody knows"}"#,
        r#"{"type":"Login","name":"c"}"#,
    ] {
        assert_eq!(table.says(0, message), [format!("0 {NOT_LOGGED_IN}")], "{message}");
    }
    table.logs_in(0, "a");
    assert_eq!(NOT_LOGGED_IN, r#"{"type":"error","error":"not_logged_in"}"#);
    assert_eq!(RATE_LIMIT, r#"{"type":"error","error":"rate_limit_exceeded"}"#);
}

#[test]
fn what_has_no_type_or_no_target_is_ignored() {
    let messages = [
        &b""[..],
        b"hello",
        b"null",
        b"7",
        b"[]",
        b"{}",
        b"\"login\"",
        b"[{\"type\":\"ping\"}]",
        b"{\"target\":\"b\"}",
        b"{\"type\":\"\",\"target\":\"b\"}",
        b"{\"type\":7,\"target\":\"b\"}",
        b"{\"type\":null,\"target\":\"b\"}",
        b"{\"type\":\"ping\",\"type\":[]}",
        b"{\"type\":\"x\",\"target\":\"b\",\"x\":\"\xff\"}",
        b"\xef\xbb\xbf{\"type\":\"ping\"}",
    ];
    let after_the_login = [
        &b"{\"type\":\"x\"}"[..],
        b"{\"type\":\"create\"}",
        b"{\"type\":\"PING\"}",
        b"{\"type\":\"x\",\"target\":\"\"}",
        b"{\"type\":\"x\",\"target\":null}",
        b"{\"type\":\"x\",\"target\":7}",
        b"{\"type\":\"x\",\"target\":[\"b\"]}",
        b"{\"type\":\"x\",\"target\":{\"target\":\"b\"}}",
        b"{\"type\":\"x\",\"target\":\"b\",\"target\":null}",
    ];
    let mut new = table(1);
    for message in messages {
        assert_eq!(new.says_bytes(0, message), ["ignored"], "{}", message.escape_ascii());
    }
    let mut table = logged_in(2);
    for message in messages.iter().chain(&after_the_login) {
        assert_eq!(table.says_bytes(0, message), ["ignored"], "{}", message.escape_ascii());
    }
}

#[test]
fn a_ping_is_answered_with_the_time() {
    let mut table = logged_in(2);
    for message in [r#"{"type":"ping"}"#, r#"{"type":"ping","target":"b","timestamp":1}"#] {
        assert_eq!(table.says(0, message), [r#"0 {"type":"pong","timestamp":1700000000123}"#]);
    }
}

#[test]
fn the_four_broadcasts_say_who_and_nothing_else() {
    let mut table = logged_in(3);
    for kind in ["stream_started", "stream_restored", "page_opened"] {
        let expected = [format!(r#"0,2 {{"type":"{kind}","from":"b"}}"#)];
        for more in ["", r#","from":"a""#, r#","target":"a","reason":"r","x":{}"#] {
            assert_eq!(table.says(1, &format!(r#"{{"type":"{kind}"{more}}}"#)), expected);
        }
    }
    let stopped = r#"{"target":"a","from":"c","type":"stream_stopped","reason":"gone","x":1}"#;
    assert_eq!(table.says(1, stopped), [r#"0,2 {"type":"stream_stopped","from":"b","reason":"gone"}"#]);
    let mut alone = logged_in(1);
    assert_eq!(alone.says(0, r#"{"type":"page_opened"}"#), [""; 0]);
    assert_eq!(alone.says(0, stopped), [""; 0]);
}

#[test]
fn a_reason_is_as_sent_or_manual() {
    let mut table = logged_in(2);
    let mut reason = |member: &str| {
        let lines = table.says(0, &format!(r#"{{"type":"stream_stopped"{member}}}"#));
        let before = r#"1 {"type":"stream_stopped","from":"a","reason":"#;
        let reason = lines[0].strip_prefix(before).and_then(|line| line.strip_suffix('}'));
        reason.unwrap_or_else(|| panic!("{lines:?}")).to_owned()
    };
    assert_eq!(reason(""), "\"manual\"");
    assert_eq!(reason(r#","Reason":"x""#), "\"manual\"");
    assert_eq!(reason(r#","reason":"x","reason":null"#), "\"manual\"");
    assert_eq!(reason(r#","reason":null,"re\u0061son" : "x" "#), "\"x\"");
    for falsy in ["null", "false", "\"\"", "0", "-0", "0.0", "-0.00", "0e5", "0E-7", "-0.0e+400"] {
        assert_eq!(reason(&format!(r#","reason": {falsy} "#)), "\"manual\"", "{falsy}");
    }
    for truthy in [
        "true",
        "\"0\"",
        "\" \"",
        "\"manual\"",
        r#""\u0000""#,
        r#""a\/b\ud83d""#,
        "1.50",
        "-1e400",
        "0.001",
        "1e-9",
        "123456789012345678901234567890",
        "[]",
        "{}",
        r#"{"a" : [0, null]}"#,
    ] {
        assert_eq!(reason(&format!(r#","reason": {truthy} "#)), truthy);
    }
}

#[test]
fn a_message_with_a_target_goes_there_with_its_true_sender() {
    let mut table = logged_in(3);
    for (sent, expected) in [
        (r#"{"type":"offer","target":"c"}"#, r#"{"type":"offer","target":"c","from":"b"}"#),
        (r#"{"type":"create","target":"c"}"#, r#"{"type":"create","target":"c","from":"b"}"#),
        (r#"{"type":"\ud800","target":"c"}"#, r#"{"type":"\ud800","target":"c","from":"b"}"#),
        (
            r#" { "target" : "c" , "type":"x", "sdp":{"from":1, "a":1.50} } "#,
            r#" { "target" : "c" , "type":"x", "sdp":{"from":1, "a":1.50} ,"from":"b"} "#,
        ),
        (
            r#"{"type":"x","target":"a","target":"c","n":1e400,"n":-0}"#,
            r#"{"type":"x","target":"a","target":"c","n":1e400,"n":-0,"from":"b"}"#,
        ),
        (
            r#"{"type":"x","t\u0061rget":"\u0063","a":"\/\ud83d"}"#,
            r#"{"type":"x","t\u0061rget":"\u0063","a":"\/\ud83d","from":"b"}"#,
        ),
    ] {
        assert_eq!(table.says(1, sent), [format!("2 {expected}")]);
    }
    assert_eq!(
        table.says(1, r#"{"type":"x","target":"b"}"#),
        [r#"1 {"type":"x","target":"b","from":"b"}"#],
        "oneself is a valid target"
    );
}

#[test]
fn a_forged_sender_is_cut_out_wherever_it_stands() {
    let mut table = logged_in(3);
    for (sent, expected) in [
        (r#"{"from":"a","type":"x","target":"c"}"#, r#"{"type":"x","target":"c","from":"b"}"#),
        (r#"{"type":"x","from":"a","target":"c"}"#, r#"{"type":"x","target":"c","from":"b"}"#),
        (r#"{"type":"x","target":"c","from":"a"}"#, r#"{"type":"x","target":"c","from":"b"}"#),
        (r#"{"type":"x","target":"c","from":"b"}"#, r#"{"type":"x","target":"c","from":"b"}"#),
        (
            r#"{"\u0066r\u006Fm":[{"}":","}],"type":"x","target":"c"}"#,
            r#"{"type":"x","target":"c","from":"b"}"#,
        ),
        (r#"{"type":"x","target":"c","fro\u006d":"\"},"}"#, r#"{"type":"x","target":"c","from":"b"}"#),
        (
            r#"{"from":1,"from":2,"type":"x","from":3,"target":"c"}"#,
            r#"{"type":"x","target":"c","from":"b"}"#,
        ),
        (
            "{ \"from\" : 1 , \"type\":\"x\" , \"from\": null , \"target\":\"c\"\n}\n",
            "{  \"type\":\"x\"  , \"target\":\"c\"\n,\"from\":\"b\"}\n",
        ),
        (
            r#"{"From":1,"fro":2,"fromm":3,"f\\u0072om":4,"from\u0000":5,"":6,"type":"x","target":"c"}"#,
            r#"{"From":1,"fro":2,"fromm":3,"f\\u0072om":4,"from\u0000":5,"":6,"type":"x","target":"c","from":"b"}"#,
        ),
        (
            r#"{"type":"x","target":"c","data":{"from":"a"},"l":[{"from":"a"}],"s":"\"from\":1"}"#,
            r#"{"type":"x","target":"c","data":{"from":"a"},"l":[{"from":"a"}],"s":"\"from\":1","from":"b"}"#,
        ),
    ] {
        assert_eq!(table.says(1, sent), [format!("2 {expected}")], "{sent}");
    }
}

#[test]
fn many_forged_senders_are_cut_out_too() {
    let mut table = logged_in(2);
    for count in 0..20 {
        let forged = r#","from":"x","k":1.50"#.repeat(count);
        let sent = format!(r#"{{"type":"x"{forged},"target":"b"}}"#);
        let kept = r#","k":1.50"#.repeat(count);
        let expected = format!(r#"1 {{"type":"x"{kept},"target":"b","from":"a"}}"#);
        assert_eq!(table.says(0, &sent), [expected]);
        let is_text = |action: &Action| match action {
            Action::Send { parts, .. } => matches!(parts[0], Part::Text(_)),
            _ => false,
        };
        let built = table.actions(0, sent.as_bytes()).iter().any(is_text);
        assert_eq!(built, count > 3, "spans as long as there is room for them");
    }
    let forged = r#""\u0066rom":0,"#.repeat(5_000);
    let sent = format!(r#"{{{forged}"type":"x","target":"b"}}"#);
    assert_eq!(table.says(0, &sent), [r#"1 {"type":"x","target":"b","from":"a"}"#]);
}

#[test]
fn a_target_that_is_not_there_is_told() {
    let mut table = logged_in(2);
    table.leaves(1);
    for target in [r#""b""#, r#""\u0062""#, r#"" a""#, r#""A""#, r#""\ud800""#, r#""\"\\ü😀""#] {
        let expected = format!(r#"0 {{"type":"error","error":"target_not_found","target":{target}}}"#);
        let message = format!(r#"{{"type":"x","target": {target} ,"from":"z"}}"#);
        assert_eq!(table.says(0, &message), [expected]);
    }
}

#[test]
fn messages_follow_the_name_to_whoever_holds_it_now() {
    let mut table = logged_in(3);
    table.leaves(1);
    table.logs_in(1, "d");
    table.leaves(2);
    table.logs_in(2, "b");
    assert_eq!(table.says(0, r#"{"type":"x","target":"b"}"#), [r#"2 {"type":"x","target":"b","from":"a"}"#]);
    assert_eq!(table.says(2, r#"{"type":"x","target":"d"}"#), [r#"1 {"type":"x","target":"d","from":"b"}"#]);
}

/// All members of an object in their order, equal keys included, keys unescaped, values as they stand.
struct Members(Vec<(String, String)>);

impl<'de> Visitor<'de> for Members {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Self, A::Error> {
        while let Some((key, value)) = members.next_entry::<String, Box<RawValue>>()? {
            self.0.push((key, value.get().to_owned()));
        }
        Ok(self)
    }
}

fn members(message: &str) -> Vec<(String, String)> {
    let mut deserializer = serde_json::Deserializer::from_str(message);
    let members = deserializer.deserialize_map(Members(Vec::new())).expect("an object");
    deserializer.end().expect("nothing behind it");
    members.0
}

/// A member as it is written, in the pieces that are cut or kept.
#[derive(Debug, Clone)]
struct Written {
    blank_before: String,
    /// Key, colon and value.
    member: String,
    blank_behind: String,
    is_sender: bool,
}

fn blanks() -> impl Strategy<Value = String> {
    prop_oneof![3 => Just(String::new()), 1 => "[ \t\r\n]{1,3}"]
}

/// A character as itself or as an escape.
fn spelled(word: &'static str) -> impl Strategy<Value = String> {
    proptest::collection::vec(0..3_u8, word.len()).prop_map(move |how| {
        let letters = word.chars().zip(how).map(|(letter, how)| match how {
            0 => format!("\\u{:04x}", u32::from(letter)),
            1 => format!("\\u{:04X}", u32::from(letter)),
            _ => letter.to_string(),
        });
        format!("\"{}\"", letters.collect::<String>())
    })
}

fn key() -> impl Strategy<Value = (String, bool)> {
    let other = prop_oneof![
        Just(String::new()),
        "\\PC{0,6}",
        "fro[a-z]?",
        "[Ff]rom.?",
        "\\\\u0066rom",
        Just("type ".to_owned())
    ];
    let quoted = other.prop_map(|key| (serde_json::Value::from(key.as_str()).to_string(), key == "from"));
    prop_oneof![2 => spelled("from").prop_map(|key| (key, true)), 3 => quoted]
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "\\PC{0,8}".prop_map(|text| serde_json::Value::from(text).to_string()),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,4})?",
        Just(r#""},\"from\":\ud83d\/\u0022""#.to_owned()),
        Just("null".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        (inner.clone(), inner, blanks()).prop_map(|(a, b, blank)| {
            format!("[{blank}{{\"from\":{a}{blank},\"x\"{blank}:{b}}} ,{blank}{b}]")
        })
    })
}

fn written() -> impl Strategy<Value = Written> {
    let blanks = [blanks(), blanks(), blanks(), blanks()];
    (key(), value(), blanks).prop_map(|((key, is_sender), value, [a, b, c, d])| Written {
        blank_before: a,
        member: format!("{key}{b}:{c}{value}"),
        blank_behind: d,
        is_sender,
    })
}

/// The members of a message with type and target somewhere among them.
fn message() -> impl Strategy<Value = Vec<Written>> {
    let addressed = |member: &str| Written {
        blank_before: " ".to_owned(),
        member: member.to_owned(),
        blank_behind: String::new(),
        is_sender: false,
    };
    let others = proptest::collection::vec(written(), 0..12);
    (others, any::<proptest::sample::Index>(), any::<proptest::sample::Index>()).prop_map(
        move |(mut all, first, second)| {
            all.insert(first.index(all.len() + 1), addressed(r#""type":"offer""#));
            all.insert(second.index(all.len() + 1), addressed(r#""target" : "b""#));
            all
        },
    )
}

fn sent(message: &[Written]) -> String {
    let pieces = message.iter().map(|w| [&*w.blank_before, &*w.member, &*w.blank_behind].concat());
    format!("\t{{{}}}\n", pieces.collect::<Vec<_>>().join(","))
}

/// What the target gets, put together anew: a sender's blanks stay, but for those between it and its comma.
fn received(message: &[Written]) -> String {
    let mut text = "\t{".to_owned();
    let mut is_first = true;
    for written in message {
        if written.is_sender {
            text.push_str(if is_first { &written.blank_before } else { &written.blank_behind });
            continue;
        }
        let comma = if is_first { "" } else { "," };
        text.extend([comma, &written.blank_before, &written.member, &written.blank_behind]);
        is_first = false;
    }
    text + ",\"from\":\"a\"}\n"
}

/// What one client was told of who is there.
fn told(view: &mut Vec<String>, line: &str) {
    let message: serde_json::Value = serde_json::from_str(line).expect("JSON");
    let peer = message["peer"].as_str();
    match (message["type"].as_str(), peer) {
        (Some("login_success"), None) => {
            let clients = message["clients"].as_array().expect("a list");
            *view = clients.iter().map(|name| name.as_str().expect("a name").to_owned()).collect();
        }
        (Some("peer_connected"), Some(peer)) => {
            assert!(!view.iter().any(|name| name == peer), "{peer} twice");
            view.push(peer.to_owned());
        }
        (Some("peer_disconnected"), Some(peer)) => {
            let before = view.len();
            view.retain(|name| name != peer);
            assert_eq!(view.len() + 1, before, "{peer} was not there");
        }
        _ => panic!("{line}"),
    }
}

proptest! {
    #[test]
    fn what_is_forwarded_is_what_was_sent_with_the_true_sender(message in message()) {
        let mut table = logged_in(2);
        let sent = sent(&message);
        let lines = table.says(0, &sent);
        prop_assert_eq!(lines.len(), 1);
        let received_text = lines[0].strip_prefix("1 ").expect("it goes to the target");
        prop_assert_eq!(received_text, received(&message));
        let mut expected = members(&sent);
        expected.retain(|(key, _)| key != "from");
        expected.push(("from".to_owned(), "\"a\"".to_owned()));
        prop_assert_eq!(members(received_text), expected);
    }

    /// Each client's own list, kept from what it is told, is the directory's at all times.
    #[test]
    fn everyone_knows_who_is_there(steps in proptest::collection::vec((0..6_usize, 0..5_u8, any::<bool>()), 0..80)) {
        let mut table = table(6);
        let mut views: Vec<Option<Vec<String>>> = vec![None; 6];
        for (who, name, leaves) in steps {
            let lines = match (&views[who], leaves) {
                (Some(_), false) => continue,
                (_, true) => {
                    views[who] = None;
                    table.leaves(who)
                }
                (None, false) => table.says(who, &format!(r#"{{"type":"login","name":"n{name}"}}"#)),
            };
            for line in lines.iter().filter(|line| !line.contains("error") && !line.starts_with("close")) {
                let (receivers, text) = line.split_once(' ').expect("receivers and text");
                for receiver in receivers.split(',') {
                    let view = &mut views[receiver.parse::<usize>().expect("a position")];
                    prop_assert!(view.is_some() || text.contains("login_success"), "{}", line);
                    told(view.get_or_insert_default(), text);
                }
            }
            let names: Vec<String> = table.directory.names().map(str::to_owned).collect();
            prop_assert_eq!(views.iter().flatten().count(), names.len());
            for view in views.iter().flatten() {
                prop_assert_eq!(view, &names);
            }
        }
    }

    /// A number counts as no reason when JavaScript says so.
    #[test]
    fn zero_is_zero_in_any_spelling(number in "-?(0|[1-9][0-9]{0,4})(\\.0{0,3}[0-9])?([eE][+-]?[0-9]{1,2})?") {
        let mut table = logged_in(2);
        let lines = table.says(0, &format!(r#"{{"type":"stream_stopped","reason":{number}}}"#));
        let is_zero = !number.split(['e', 'E']).next().unwrap_or_default().contains(|c| ('1'..='9').contains(&c));
        let reason = if is_zero { "\"manual\"" } else { &number };
        prop_assert_eq!(&lines[0], &format!(r#"1 {{"type":"stream_stopped","from":"a","reason":{reason}}}"#));
    }
}
