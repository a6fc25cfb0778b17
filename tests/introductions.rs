//! Introductions from outside: protocols.md section 5, its first part, and of section 0 the lines JSON and text and
//! binary, with 1 and 4 shards, on io_uring and on epoll. What else section 0 says of them: `bounds`; pipes that take
//! their ends from introductions: `short_form`.

mod support;

#[path = "introductions/bounds.rs"]
mod bounds;
#[path = "introductions/short_form.rs"]
mod short_form;

use support::pipes::{Socket, shown};
use support::{Server, Setup, on_each_setup};
use tungstenite::Message;

/// So many messages that the rate never matters.
const NO_RATE: (&str, &str) = ("MAX_MSG_PER_SECOND", "1000000");

on_each_setup!(
    each_message_does_what_its_line_says,
    all_who_have_something_in_common_are_introduced,
    documents_compare_as_decoded_strings,
    ids_are_decoded_once,
    a_second_socket_takes_over_the_id,
    who_is_gone_is_introduced_to_nobody,
);

fn introduction(id: &str, keys: &[&str]) -> String {
    format!(r#"{{"type":"Introduction","id":"{id}","keys":{keys:?}}}"#).replace("\", \"", "\",\"")
}

fn join_of(documents: &[&str]) -> String {
    format!(r#"{{"type":"Join","join":{documents:?}}}"#)
}

/// Adds documents.
fn join(socket: &mut Socket, documents: &[&str]) {
    socket.send(join_of(documents));
}

/// A socket that has heard nothing over the documents it joined.
fn open_with(server: &Server, id: &str, documents: &[&str]) -> Socket {
    let mut socket = Socket::hold(server, &format!("/introduction/{id}"));
    join(&mut socket, documents);
    socket.expect_nothing();
    socket
}

/// What one message does to a client that has `a` and `b`: the message, the documents of the introduction that comes
/// of it, if one does, and the documents that the client has then.
type Line = (&'static str, Option<&'static [&'static str]>, &'static [&'static str]);

const AB: &[&str] = &["a", "b"];
const ABC: &[&str] = &["a", "b", "c"];

const LINES: &[Line] = &[
    // The lists count, not the type; an id is ignored.
    (r#"{"type":"Join","join":["c"]}"#, Some(ABC), ABC),
    (r#"{"join":["c"]}"#, Some(ABC), ABC),
    (r#"{"type":"Leave","join":["c"]}"#, Some(ABC), ABC),
    (r#"{"type":"whatever","join":["c"]}"#, Some(ABC), ABC),
    (r#"{"type":7,"join":["c"]}"#, Some(ABC), ABC),
    (r#"{"type":null,"join":["c"]}"#, Some(ABC), ABC),
    (r#"{"type":["Leave"],"join":["c"]}"#, Some(ABC), ABC),
    (r#"{"type":"Join","id":"mallory","join":["c"]}"#, Some(ABC), ABC),
    (r#"{"type":"Join","id":7,"join":["c"]}"#, Some(ABC), ABC),
    (r#"{"type":"Join","id":"bob","leave":["a"]}"#, None, &["b"]),
    // New or not, all that is in common comes, in the order in which its sender came to it.
    (r#"{"type":"Join","join":["a"]}"#, Some(AB), AB),
    (r#"{"type":"Join","join":["b"]}"#, Some(AB), AB),
    (r#"{"type":"Join","join":["b","a"]}"#, Some(AB), AB),
    (r#"{"type":"Join","join":["d","c"]}"#, Some(&["a", "b", "d", "c"]), &["a", "b", "d", "c"]),
    (r#"{"type":"Join","join":["c","c","a","c"]}"#, Some(ABC), ABC),
    (r#"{"type":"Join","join":["of nobody else"]}"#, Some(AB), AB),
    // Missing and empty lists.
    (r#"{"type":"Join"}"#, None, AB),
    (r#"{"type":"Leave"}"#, None, AB),
    (r#"{}"#, None, AB),
    (r#"{"type":"Join","join":[]}"#, None, AB),
    (r#"{"type":"Leave","leave":[]}"#, None, AB),
    (r#"{"join":[],"leave":[]}"#, None, AB),
    // Documents are taken away.
    (r#"{"type":"Leave","leave":["a"]}"#, None, &["b"]),
    (r#"{"type":"Join","leave":["a"]}"#, None, &["b"]),
    (r#"{"leave":["b"]}"#, None, &["a"]),
    (r#"{"leave":["c"]}"#, None, AB),
    (r#"{"leave":["b","a","b"]}"#, None, &[]),
    // Both in one message: first the one, then the other, in whatever order they stand.
    (r#"{"join":[],"leave":["b"]}"#, None, &["a"]),
    (r#"{"join":["c"],"leave":[]}"#, Some(ABC), ABC),
    (r#"{"join":["c"],"leave":["a"]}"#, Some(&["b", "c"]), &["b", "c"]),
    (r#"{"leave":["a"],"join":["c"]}"#, Some(&["b", "c"]), &["b", "c"]),
    (r#"{"join":["c"],"leave":["c"]}"#, Some(AB), AB),
    (r#"{"leave":["c"],"join":["c"]}"#, Some(AB), AB),
    (r#"{"join":["a"],"leave":["a"]}"#, Some(&["b"]), &["b"]),
    (r#"{"join":["a"],"leave":["a","b"]}"#, None, &[]),
    // A list with anything but strings spoils its message, also the good list in it.
    (r#"{"type":"Join","join":["c",1]}"#, None, AB),
    (r#"{"type":"Join","join":[null,"c"]}"#, None, AB),
    (r#"{"type":"Join","join":["c",["d"]]}"#, None, AB),
    (r#"{"type":"Join","join":[{"c":"d"}]}"#, None, AB),
    (r#"{"type":"Join","join":["c",true]}"#, None, AB),
    (r#"{"type":"Leave","leave":["a",0]}"#, None, AB),
    (r#"{"type":"Leave","leave":["a",null]}"#, None, AB),
    (r#"{"join":["c"],"leave":["a",1]}"#, None, AB),
    (r#"{"join":["c",1],"leave":["a"]}"#, None, AB),
    (r#"{"type":"Join","join":"c"}"#, None, AB),
    (r#"{"type":"Join","join":1}"#, None, AB),
    (r#"{"type":"Join","join":true}"#, None, AB),
    (r#"{"type":"Join","join":null}"#, None, AB),
    (r#"{"type":"Join","join":{"0":"c","length":1}}"#, None, AB),
    (r#"{"type":"Leave","leave":"a"}"#, None, AB),
    (r#"{"join":["c"],"leave":"a"}"#, None, AB),
    (r#"{"join":"c","leave":["a"]}"#, None, AB),
    // Not JSON.
    ("", None, AB),
    (" ", None, AB),
    ("Join", None, AB),
    (r#"{"join":["c"]"#, None, AB),
    (r#"{"join":["c",]}"#, None, AB),
    (r#"{'join':['c']}"#, None, AB),
    (r#"{join:["c"]}"#, None, AB),
    (r#"{"join":["c"]}}"#, None, AB),
    (r#"{"join":["c"]} {"leave":["a"]}"#, None, AB),
    (r#"{"join":["\x63"]}"#, None, AB),
    (r#"{"join":["c"],"n":01}"#, None, AB),
    (r#"{"join":["c"],"n":NaN}"#, None, AB),
    ("{\"join\":[\"c\n\"]}", None, AB),
    ("\u{feff}{\"join\":[\"c\"]}", None, AB),
    // JSON, but no object.
    ("null", None, AB),
    ("true", None, AB),
    ("1", None, AB),
    (r#""join""#, None, AB),
    ("[]", None, AB),
    (r#"["c"]"#, None, AB),
    (r#"[{"join":["c"]}]"#, None, AB),
    // JSON as `JSON.parse` takes it.
    (" \t\r\n{ \"join\" : [ \"c\" ] } \n", Some(ABC), ABC),
    (r#"{"\u006aoin":["\u0063"]}"#, Some(ABC), ABC),
    (r#"{"join":["d"],"join":["c"]}"#, Some(ABC), ABC),
    (r#"{"join":[1],"join":["c"]}"#, Some(ABC), ABC),
    (r#"{"join":["c"],"join":[1]}"#, None, AB),
    (r#"{"join":["c"],"\u006aoin":[]}"#, None, AB),
    (r#"{"join":["c"],"n":1e999,"m":12345678901234567890123,"s":"\ud800"}"#, Some(ABC), ABC),
    (r#"{"join":["c"],"x":{"join":[1],"leave":["a"]}}"#, Some(ABC), ABC),
    (r#"{"Join":["c"],"JOIN":["c"],"joins":["c"]}"#, None, AB),
    (r#"{"x":{"join":["c"]}}"#, None, AB),
];

fn each_message_does_what_its_line_says(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let mut bob = open_with(&server, "bob", &["probe", "e", "d", "c", "b", "a"]);
    let mut bystander = open_with(&server, "bystander", &["of the bystander"]);
    let deep =
        |depth: usize| format!(r#"{{"join":["c"],"x":{}{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1));
    let nested = [(deep(1_000), Some(ABC), ABC), (deep(1_001), None, AB)];
    let lines = LINES.iter().map(|(text, heard, has)| ((*text).to_owned(), *heard, *has)).chain(nested);
    for (index, (text, heard, has)) in lines.enumerate() {
        let as_text = Message::text(text.clone());
        let as_binary = Message::binary(text.into_bytes());
        check_line(&server, &mut bob, &format!("text{index}"), &as_text, heard, has);
        check_line(&server, &mut bob, &format!("binary{index}"), &as_binary, heard, has);
    }
    // Bytes that are no UTF-8 are no JSON.
    let bad = Message::binary(&b"{\"join\":[\"c\"],\"x\":\"\xff\"}"[..]);
    check_line(&server, &mut bob, "bytes", &bad, None, AB);
    bystander.expect_nothing();
}

/// Whoever has `id` has `a` and `b`, and says `message`.
fn check_line(
    server: &Server,
    bob: &mut Socket,
    id: &str,
    message: &Message,
    heard: Option<&[&str]>,
    has: &[&str],
) {
    let mut alice = Socket::hold(server, &format!("/introduction/{id}"));
    let mut both_hear = |alice: &mut Socket, keys: &[&str]| {
        let what = format!("{} of {id}", shown(message));
        for (socket, other) in [(alice, "bob"), (&mut *bob, id)] {
            let got = socket.next(&what);
            assert_eq!(got, Message::text(introduction(other, keys)), "after {what}");
        }
    };
    join(&mut alice, AB);
    both_hear(&mut alice, AB);
    alice.send(message.clone());
    if let Some(keys) = heard {
        both_hear(&mut alice, keys);
    }
    // What comes next is of this message: nothing was in between, and this is what the client has.
    join(&mut alice, &["probe"]);
    both_hear(&mut alice, &[has, &["probe"]].concat());
    alice.close(None);
}

fn all_who_have_something_in_common_are_introduced(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let mut alice = open_with(&server, "alice", &["1", "2"]);
    let mut bob = Socket::open(&server, "/introduction/bob");
    join(&mut bob, &["3", "2"]);
    hears(&mut bob, &[("alice", &["2"])]);
    hears(&mut alice, &[("bob", &["2"])]);
    let mut carol = Socket::open(&server, "/introduction/carol");
    join(&mut carol, &["3", "5", "1", "2"]);
    hears(&mut carol, &[("alice", &["1", "2"]), ("bob", &["3", "2"])]);
    hears(&mut alice, &[("carol", &["1", "2"])]);
    hears(&mut bob, &[("carol", &["3", "2"])]);
    // Nothing in common with anybody.
    let mut dave = open_with(&server, "dave", &["4"]);
    // The order is that of who sent, at both.
    join(&mut bob, &["2"]);
    hears(&mut bob, &[("alice", &["2"]), ("carol", &["3", "2"])]);
    hears(&mut alice, &[("bob", &["2"])]);
    hears(&mut carol, &[("bob", &["3", "2"])]);
    // One of the lists is new to one of them: all the others are introduced again.
    join(&mut alice, &["4"]);
    hears(&mut alice, &[("bob", &["2"]), ("carol", &["1", "2"]), ("dave", &["4"])]);
    hears(&mut bob, &[("alice", &["2"])]);
    hears(&mut carol, &[("alice", &["1", "2"])]);
    hears(&mut dave, &[("alice", &["4"])]);
    // Who has left a document has it no more in common.
    carol.send(r#"{"type":"Leave","leave":["1","3"]}"#);
    carol.expect_nothing();
    join(&mut carol, &["6"]);
    hears(&mut carol, &[("alice", &["2"]), ("bob", &["2"])]);
    hears(&mut alice, &[("carol", &["2"])]);
    hears(&mut bob, &[("carol", &["2"])]);
    for socket in [&mut alice, &mut bob, &mut carol, &mut dave] {
        socket.expect_nothing();
    }
}

/// Introductions to all of these come next, in any order.
fn hears(socket: &mut Socket, expected: &[(&str, &[&str])]) {
    let next = |_| shown(&socket.next(&format!("introductions to {expected:?}")));
    let mut got: Vec<String> = (0..expected.len()).map(next).collect();
    let mut expected: Vec<String> =
        expected.iter().map(|(id, keys)| shown(&Message::text(introduction(id, keys)))).collect();
    got.sort();
    expected.sort();
    assert_eq!(got, expected);
}

fn units_of(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

/// The ids and keys of an introduction, each as the code units that its string stands for.
fn parse_introduction(message: &Message) -> (Vec<u16>, Vec<Vec<u16>>) {
    let text = message.to_text().expect("answers are text");
    let rest = text.strip_prefix(r#"{"type":"Introduction","id":"#).expect(text);
    let (id, rest) = parse_string(rest);
    let mut rest = rest.strip_prefix(r#","keys":["#).expect(text);
    let mut keys = Vec::new();
    loop {
        let (key, behind) = parse_string(rest);
        keys.push(key);
        match behind {
            "]}" => return (id, keys),
            more => rest = more.strip_prefix(',').expect(text),
        }
    }
}

/// The code units of the JSON string at the start of `text`, and what stands behind it.
fn parse_string(text: &str) -> (Vec<u16>, &str) {
    let mut chars = text.strip_prefix('"').expect(text).chars();
    let mut units = Vec::new();
    loop {
        match chars.next().expect("a string has an end") {
            '"' => return (units, chars.as_str()),
            '\\' => units.push(match chars.next().expect("an escape") {
                'u' => {
                    let (digits, rest) = chars.as_str().split_at(4);
                    chars = rest.chars();
                    u16::from_str_radix(digits, 16).expect("four digits")
                }
                'n' => 0x0a,
                'r' => 0x0d,
                't' => 0x09,
                'b' => 0x08,
                'f' => 0x0c,
                plain @ ('"' | '\\' | '/') => plain as u16,
                other => panic!("no escape of JSON: {other}"),
            }),
            control @ '\0'..' ' => panic!("{control:?} must be escaped"),
            plain => units.extend(plain.encode_utf16(&mut [0; 2]).iter()),
        }
    }
}

/// Two strings as JSON has them, and whether they are one document.
const STRINGS: &[(&str, &str, bool)] = &[
    (r#""a""#, r#""\u0061""#, true),
    (r#""\u004A""#, r#""\u004a""#, true),
    (r#""A""#, r#""a""#, false),
    (r#""a""#, r#"" a""#, false),
    (r#""a""#, r#""a\u0000""#, false),
    (r#""""#, r#""""#, true),
    (r#""\u0000""#, r#""\u0000""#, true),
    (r#""\n\t\b\f\r""#, r#""\u000a\u0009\u0008\u000c\u000d""#, true),
    (r#""\"\\\/""#, r#""\u0022\u005c/""#, true),
    (r#""\\u0061""#, r#""a""#, false),
    (r#""\\u0061""#, r#""\u005cu0061""#, true),
    ("\"\u{7f}\u{2028}\"", r#""\u007f\u2028""#, true),
    ("\"é\"", r#""\u00e9""#, true),
    ("\"é\"", "\"e\u{301}\"", false),
    ("\"😀\"", r#""\ud83d\ude00""#, true),
    ("\"😀\"", r#""\uD83D\uDE00""#, true),
    ("\"😀\"", r#""\ud83d""#, false),
    (r#""\ud800""#, r#""\uD800""#, true),
    (r#""\ud800""#, r#""\ud801""#, false),
    (r#""\ud800""#, r#""\ufffd""#, false),
    (r#""\ud800""#, r#""\\ud800""#, false),
    (r#""\ude00\ud83d""#, r#""\uDE00\uD83D""#, true),
    (r#""\ud83d\ud83d\ude00""#, "\"\\ud83d😀\"", true),
    (r#""x\udc00y""#, r#""x\udc00y""#, true),
    (r#""x\udc00y""#, r#""x\udc01y""#, false),
    (r#""__proto__""#, r#""__proto__""#, true),
    (r#""a,b""#, r#""a""#, false),
];

fn documents_compare_as_decoded_strings(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let long = format!("\"{}\"", "long ".repeat(20_000));
    let lines = STRINGS.iter().copied().chain([(long.as_str(), long.as_str(), true)]);
    for (index, (one, other, are_equal)) in lines.enumerate() {
        let name = |who: &str| format!("{who}{index}");
        let mut first = Socket::hold(&server, &format!("/introduction/{}", name("one")));
        let mut second = Socket::hold(&server, &format!("/introduction/{}", name("other")));
        first.send(format!(r#"{{"join":[{one},"marker{index}"]}}"#));
        first.expect_nothing();
        second.send(format!(r#"{{"join":[{other},"marker{index}"]}}"#));
        let in_common = if are_equal { vec![one] } else { vec![] };
        let marker = format!("\"marker{index}\"");
        let mut expected: Vec<Vec<u16>> = in_common.iter().map(|text| parse_string(text).0).collect();
        expected.push(parse_string(&marker).0);
        for (socket, id) in [(&mut second, name("one")), (&mut first, name("other"))] {
            let got = parse_introduction(&socket.next("an introduction"));
            assert_eq!(got, (units_of(&id), expected.clone()), "{one:.60} and {other:.60}");
        }
    }
}

fn ids_are_decoded_once(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    for (index, (segment, id)) in [
        ("alice", "alice"),
        ("Alice", "Alice"),
        ("a%2Fb", "a/b"),
        ("a%2fb%2F", "a/b/"),
        ("100%25", "100%"),
        ("%2561", "%61"),
        ("%252F", "%2F"),
        ("%61%6cice", "alice"),
        ("a%20b", "a b"),
        ("a+b", "a+b"),
        ("a;b,c=d&e", "a;b,c=d&e"),
        ("%22%5C%0A%3F%23", "\"\\\n?#"),
        ("%C3%A9%F0%9F%98%80", "é😀"),
        ("a%00", "a\0"),
        ("%20", " "),
    ]
    .into_iter()
    .enumerate()
    {
        let document = format!("document {index}");
        let mut bob = open_with(&server, &format!("bob{index}"), &[&document]);
        let mut named = Socket::open(&server, &format!("/introduction/{segment}"));
        join(&mut named, &[&document]);
        let (got, _) = parse_introduction(&bob.next(&format!("the introduction of {segment}")));
        assert_eq!(got, units_of(id), "{segment}");
        // However it is written, it is the same id.
        let escaped: String = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let mut again = Socket::hold(&server, &format!("/introduction/{escaped}"));
        join(&mut bob, &[&document]);
        let (got, _) = parse_introduction(&bob.next("one introduction, not two"));
        assert_eq!(got, units_of(id), "{segment}");
        again.expect(introduction(&format!("bob{index}"), &[&document]));
        bob.expect_nothing();
        named.drain();
        again.close(None);
        named.close(None);
    }
}

fn a_second_socket_takes_over_the_id(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let ends: [fn(Socket); 3] = [|socket| socket.close(Some(1000)), Socket::reset, Socket::end_without_close];
    for (index, end) in ends.into_iter().enumerate() {
        let [alice, bob] = ["alice", "bob"].map(|who| format!("{who}{index}"));
        let documents = ["z", "y"].map(|name| format!("{name}{index}"));
        let documents = [documents[0].as_str(), documents[1].as_str()];
        let clients = server.metric("parlor_clients");
        let mut old = open_with(&server, &alice, &documents);
        let mut new = Socket::hold(&server, &format!("/introduction/{alice}"));
        // The documents are the new one's, in their order.
        let mut bob_socket = Socket::open(&server, &format!("/introduction/{bob}"));
        join(&mut bob_socket, &[documents[1], documents[0]]);
        bob_socket.expect(introduction(&alice, &[documents[1], documents[0]]));
        new.expect(introduction(&bob, &[documents[1], documents[0]]));
        join(&mut new, &["more"]);
        new.expect(introduction(&bob, &documents));
        bob_socket.expect(introduction(&alice, &documents));
        // The old one is open, and hears nothing of it.
        old.expect_nothing();
        end(old);
        server.wait_for_metric("parlor_clients", clients + 2);
        // It has taken nothing with it.
        join(&mut bob_socket, &[documents[0]]);
        bob_socket.expect(introduction(&alice, &[documents[1], documents[0]]));
        new.expect(introduction(&bob, &[documents[1], documents[0]]));
        // The new one has it all, and takes it along.
        let newest = Socket::hold(&server, &format!("/introduction/{alice}"));
        newest.close(None);
        join(&mut bob_socket, &[documents[0]]);
        bob_socket.expect_nothing();
        new.expect_nothing();
        new.close(None);
        bob_socket.close(None);
    }
}

fn who_is_gone_is_introduced_to_nobody(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let ends: [fn(Socket); 3] = [|socket| socket.close(Some(1000)), Socket::reset, Socket::end_without_close];
    let mut bob = open_with(&server, "bob", &["marker"]);
    for (index, end) in ends.into_iter().enumerate() {
        let alice = open_with(&server, "alice", &["a"]);
        end(alice);
        server.wait_for_metric("parlor_clients", 1);
        join(&mut bob, &["a"]);
        bob.expect_nothing();
        // Who comes back has nothing left of it, and nobody was told of the end.
        let mut alice = Socket::open(&server, "/introduction/alice");
        join(&mut alice, &["marker"]);
        alice.expect(introduction("bob", &["marker"]));
        bob.expect(introduction("alice", &["marker"]));
        alice.close(None);
        bob.send(r#"{"leave":["a"]}"#);
        let mut carol = open_with(&server, &format!("carol{index}"), &["a"]);
        carol.expect_nothing();
        carol.close(None);
    }
}
