//! Inputs and what each client then gets, each line of protocols.md section 5 on introductions; and random ones against
//! a reference that searches through lists.

mod reference;

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::id::{Entropy, HostId, ShardIndex, Slot};
use crate::protocol;
use crate::wire::envelope::Parser;

/// A home of introductions and all that one needs to speak to it.
struct Table {
    introductions: Introductions,
    entropy: Entropy,
    parser: Parser,
    clients_made: u32,
}

fn table() -> Table {
    Table {
        introductions: Introductions::new([1, 2, 3, 4]),
        entropy: Entropy::from_seed([3; 32]),
        parser: Parser::default(),
        clients_made: 0,
    }
}

struct Client {
    id: ClientId,
    state: State,
}

/// What somebody gets.
type Got = (ClientId, String);

impl Table {
    fn connect(&mut self, id: &str) -> Client {
        self.clients_made += 1;
        let client = ClientId::new(HostId(9), ShardIndex(0), Slot(self.clients_made), &mut self.entropy);
        Client { id: client, state: self.introductions.handle_connect(id, client) }
    }

    fn actions(&mut self, client: &Client, message: &str) -> Actions {
        let mut out = Actions::new();
        let parsed = self.parser.parse(message.as_bytes());
        let envelope = parsed.as_ref().map_err(|not_json| *not_json);
        self.introductions.handle_message(&client.state, client.id, envelope, &mut out);
        out
    }

    fn says(&mut self, client: &Client, message: &str) -> Vec<Got> {
        let actions = self.actions(client, message);
        actions.iter().map(|action| got(action, client.id)).collect()
    }

    fn joins(&mut self, client: &Client, documents: &[&str]) -> Vec<Got> {
        self.says(client, &join(documents))
    }

    fn leave(&mut self, client: &Client) {
        self.introductions.handle_leave(&client.state, client.id);
    }

    fn partner_of(&self, id: &str) -> Option<(String, String)> {
        self.introductions.partner_of(id)
    }
}

fn join(documents: &[&str]) -> String {
    format!(r#"{{"type":"Join","join":{}}}"#, serde_json::to_string(documents).expect("JSON"))
}

fn got(action: &Action, me: ClientId) -> Got {
    let (to, parts) = match action {
        Action::Reply(parts) => (me, parts),
        Action::Send { to, parts } => (*to, parts),
        other => panic!("nothing is sent: {other:?}"),
    };
    let mut bytes = Vec::new();
    protocol::write(parts, b"", |piece| bytes.extend_from_slice(piece));
    assert_eq!(bytes.len(), protocol::len_of(parts));
    let text = String::from_utf8(bytes).expect("UTF-8");
    serde_json::from_str::<&RawValue>(&text).expect("JSON");
    (to, text)
}

fn introduction_of(id: &str, documents: &[&str]) -> String {
    let (id, documents) = (serde_json::to_string(id), serde_json::to_string(documents));
    format!(r#"{{"type":"Introduction","id":{},"keys":{}}}"#, id.expect("JSON"), documents.expect("JSON"))
}

fn pair(id: &str, document: &str) -> Option<(String, String)> {
    Some((id.to_owned(), document.to_owned()))
}

#[test]
fn both_are_told_of_all_documents_in_common_in_the_order_of_the_sender() {
    let mut table = table();
    let (a, b) = (table.connect("a"), table.connect("b"));
    assert_eq!(table.joins(&a, &["1", "2", "3", "4"]), []);
    let expected =
        [(b.id, introduction_of("a", &["4", "2", "1"])), (a.id, introduction_of("b", &["4", "2", "1"]))];
    assert_eq!(table.joins(&b, &["4", "x", "2", "4", "1"]), expected, "twice in a list counts once");
    let expected =
        [(a.id, introduction_of("b", &["1", "2", "4"])), (b.id, introduction_of("a", &["1", "2", "4"]))];
    assert_eq!(table.joins(&a, &["2"]), expected, "documents that are not new count too");
    assert_eq!(table.joins(&a, &["2"]), expected, "each time");
}

#[test]
fn peers_come_in_the_order_of_the_first_document_and_of_joining() {
    let mut table = table();
    let clients = ["a", "b", "c", "d"].map(|id| table.connect(id));
    let [a, b, c, d] = &clients;
    table.joins(a, &["2"]);
    table.joins(b, &["1"]);
    table.joins(c, &["2", "1"]);
    let expected = [
        (d.id, introduction_of("b", &["1"])),
        (b.id, introduction_of("d", &["1"])),
        (d.id, introduction_of("c", &["1", "2"])),
        (c.id, introduction_of("d", &["1", "2"])),
        (d.id, introduction_of("a", &["2"])),
        (a.id, introduction_of("d", &["2"])),
    ];
    assert_eq!(table.joins(d, &["1", "2"]), expected);
}

#[test]
fn the_lists_count_and_not_the_type() {
    let mut table = table();
    let (a, b) = (table.connect("a"), table.connect("b"));
    table.joins(&a, &["1", "2"]);
    for (message, keys) in [
        (r#"{"type":"Leave","join":["1"],"id":"x"}"#, Some(vec!["1"])),
        (r#"{"type":7,"leave":[],"join":[ "\u0032" ]}"#, Some(vec!["1", "2"])),
        (r#"{"join":["2"],"leave":["1","never"]}"#, Some(vec!["2"])),
        (r#"{"join":["1","3"],"leave":["1"]}"#, Some(vec!["2"])),
        (r#"{"join":["9"],"join":["1"]}"#, Some(vec!["2", "1"])),
        (r#"{"join":["1"],"leave":["1","2"]}"#, None),
        (r#"{"join":[],"leave":[]}"#, None),
        (r#"{"leave":["1"]}"#, None),
        ("{}", None),
    ] {
        let expected =
            keys.map(|keys| vec![(b.id, introduction_of("a", &keys)), (a.id, introduction_of("b", &keys))]);
        assert_eq!(table.says(&b, message), expected.unwrap_or_default(), "{message}");
    }
}

#[test]
fn a_document_that_is_joined_again_comes_last() {
    let mut table = table();
    let (a, b) = (table.connect("a"), table.connect("b"));
    table.joins(&a, &["1", "2"]);
    table.joins(&b, &["1", "2"]);
    table.says(&b, r#"{"leave":["1"]}"#);
    assert_eq!(table.joins(&b, &["1"])[0], (b.id, introduction_of("a", &["2", "1"])));
}

#[test]
fn a_spoiled_message_changes_nothing() {
    let mut table = table();
    let (a, b) = (table.connect("a"), table.connect("b"));
    table.joins(&a, &["1"]);
    for message in [
        "",
        "join",
        "null",
        "7",
        r#"["join"]"#,
        r#""join""#,
        r#"{"join":null}"#,
        r#"{"join":"1"}"#,
        r#"{"join":{"0":"1"}}"#,
        r#"{"join":["1",2]}"#,
        r#"{"join":[["1"]]}"#,
        r#"{"join":["1"],"leave":null}"#,
        r#"{"join":["1"],"leave":[null]}"#,
        r#"{"join":["1"],"leave":7}"#,
        r#"{"join":["1"],"join":false}"#,
    ] {
        assert_eq!(table.actions(&b, message), [Action::Ignore], "{message}");
    }
    let empty = table.introductions.memberships.documents(b.state.peer).count();
    assert_eq!(empty, 0);
}

#[test]
fn ids_and_documents_are_any_text() {
    let mut table = table();
    let (a, b) = (table.connect("a\"\\\u{1}é"), table.connect("%2F😀"));
    table.joins(&a, &["", "\"\n/"]);
    let keys = ["\"\n/", ""];
    let expected = [(b.id, introduction_of("a\"\\\u{1}é", &keys)), (a.id, introduction_of("%2F😀", &keys))];
    assert_eq!(table.says(&b, r#"{"join":["\u0022\u000a\/",""]}"#), expected, "decoded strings are compared");
    table.says(&b, r#"{"leave":["","\"\n/"]}"#);
    let got = table.says(&a, r#"{"join":["\ud83d","\uD83D\uDE00"]}"#);
    assert_eq!(got, []);
    let got = table.says(&b, r#"{"join":["😀","\uD83d"]}"#);
    let expected = r#"{"type":"Introduction","id":"a\"\\\u0001é","keys":["😀","\ud83d"]}"#;
    assert_eq!(got[0], (b.id, expected.to_owned()), "a lone surrogate stays an escape");
}

#[test]
fn a_second_client_takes_over_id_and_documents() {
    let mut table = table();
    let (a, b) = (table.connect("a"), table.connect("b"));
    table.joins(&a, &["1"]);
    assert_eq!(table.introductions.successor_of(a.id), None);
    let second = table.connect("a");
    assert_eq!(table.introductions.successor_of(a.id), Some(second.id));
    assert_eq!(table.actions(&a, &join(&["1"])), [Action::Ignore], "the old one is not listened to");
    let expected = [(b.id, introduction_of("a", &["1"])), (second.id, introduction_of("b", &["1"]))];
    assert_eq!(table.joins(&b, &["1"]), expected, "and hears nothing more");
    table.leave(&a);
    assert_eq!(table.introductions.len(), 2, "it takes nothing with it");
    assert_eq!(table.joins(&second, &["2"]).len(), 2, "the documents are the new one's");
    table.leave(&second);
    assert_eq!(table.introductions.successor_of(a.id), None);
    assert_eq!(table.joins(&b, &["1"]), []);
    assert_eq!(table.actions(&second, &join(&["1"])), [Action::Ignore], "who has left is not listened to");
    let third = table.connect("c");
    table.leave(&second);
    table.leave(&a);
    assert_eq!(table.joins(&third, &["1"]).len(), 2, "a place that is used again is not the old one's");
}

#[test]
fn a_pair_is_known_while_it_is_the_only_one() {
    let mut table = table();
    assert_eq!(table.partner_of("a"), None, "nobody is there");
    let (a, b, c) = (table.connect("a"), table.connect("b"), table.connect("c"));
    assert_eq!(table.partner_of("a"), None, "to nobody");
    table.joins(&a, &["1", "2"]);
    table.joins(&b, &["1"]);
    assert_eq!((table.partner_of("a"), table.partner_of("b")), (pair("b", "1"), pair("a", "1")));
    table.joins(&b, &["1", "unshared"]);
    table.says(&b, r#"{"leave":["1"]}"#);
    table.says(&a, r#"{"leave":["1","2"]}"#);
    assert_eq!(table.partner_of("a"), pair("b", "1"), "they were introduced, whatever they left since");
    table.joins(&c, &["3"]);
    table.joins(&b, &["3"]);
    assert_eq!(table.partner_of("b"), None, "to a second one");
    assert_eq!(table.partner_of("a"), None, "b was introduced to more than a");
    assert_eq!(table.partner_of("c"), None);
    table.leave(&c);
    assert_eq!(table.partner_of("a"), None, "for good");
}

#[test]
fn a_second_document_makes_a_pair_unclear() {
    for second in [vec!["2"], vec!["1", "2"]] {
        let mut table = table();
        let (a, b) = (table.connect("a"), table.connect("b"));
        table.joins(&a, &["1", "2"]);
        table.joins(&b, &["1"]);
        table.joins(&b, &second);
        assert_eq!((table.partner_of("a"), table.partner_of("b")), (None, None), "{second:?}");
    }
    let mut table = table();
    let (a, b) = (table.connect("a"), table.connect("b"));
    table.joins(&a, &["1", "2"]);
    table.joins(&b, &["1", "2"]);
    assert_eq!((table.partner_of("a"), table.partner_of("b")), (None, None), "two at once");
    table.says(&b, r#"{"leave":["2"],"join":["1"]}"#);
    assert_eq!(table.partner_of("a"), None, "for good");
    // Another document each time, never two at once.
    let (c, d) = (table.connect("c"), table.connect("d"));
    table.joins(&c, &["3"]);
    table.joins(&d, &["3"]);
    table.says(&c, r#"{"leave":["3"]}"#);
    table.joins(&c, &["4"]);
    table.joins(&d, &["4"]);
    assert_eq!(table.partner_of("c"), None);
}

#[test]
fn a_pair_is_known_while_both_are_there() {
    let mut table = table();
    let (a, b) = (table.connect("a"), table.connect("b"));
    table.joins(&a, &["1"]);
    table.joins(&b, &["1"]);
    let second = table.connect("b");
    table.leave(&b);
    assert_eq!(table.partner_of("a"), pair("b", "1"), "one that takes over stands in for the first");
    table.leave(&second);
    assert_eq!((table.partner_of("a"), table.partner_of("b")), (None, None));
    let again = table.connect("b");
    assert_eq!((table.partner_of("a"), table.partner_of("b")), (None, None), "not introduced since");
    table.joins(&again, &["1"]);
    assert_eq!((table.partner_of("a"), table.partner_of("b")), (pair("b", "1"), pair("a", "1")));
}

#[test]
fn a_partner_that_came_back_to_somebody_else_is_none() {
    let mut table = table();
    let (a, b, c) = (table.connect("a"), table.connect("b"), table.connect("c"));
    table.joins(&a, &["1"]);
    table.joins(&b, &["1"]);
    table.says(&a, r#"{"leave":["1"]}"#);
    table.leave(&b);
    let again = table.connect("b");
    table.joins(&c, &["1"]);
    table.joins(&again, &["1"]);
    assert_eq!(table.partner_of("a"), None);
    assert_eq!((table.partner_of("b"), table.partner_of("c")), (pair("c", "1"), pair("b", "1")));
}

#[test]
fn a_document_that_is_no_utf8_has_no_pair() {
    let mut table = table();
    let (a, b) = (table.connect("a"), table.connect("b"));
    table.says(&a, r#"{"join":["\ud800"]}"#);
    assert_eq!(table.says(&b, r#"{"join":["\ud800"]}"#).len(), 2);
    assert_eq!(table.partner_of("a"), None);
}

/// Where the texts of documents stand that these actions hold, and their lengths.
fn keys_held(actions: &[Action]) -> BTreeSet<(*const u8, usize)> {
    let parts = actions.iter().map(|action| match action {
        Action::Reply(parts) | Action::Send { parts, .. } => parts,
        _ => panic!("nothing is sent"),
    });
    let keys = parts.map(|parts| match &parts[3] {
        Part::Text(keys) => (keys.as_ptr(), keys.len()),
        _ => panic!("no text"),
    });
    keys.collect()
}

#[test]
fn a_sender_far_over_its_outbox_is_closed_before_memory_is_short() {
    const NAME_BYTES: usize = 1 << 20;
    let mut table = table();
    let [first, second] = ["1", "2"].map(|digit| digit.repeat(NAME_BYTES));
    for number in 0..40 {
        let peer = table.connect(&number.to_string()).state.peer;
        table.introductions.join(peer, first.as_bytes());
        // Every other one, so that no text serves two in a row.
        if number % 2 == 0 {
            table.introductions.join(peer, second.as_bytes());
        }
    }
    let me = table.connect("me");
    let mut actions = table.actions(&me, &join(&[&first, &second]));
    assert!(actions.pop().is_some_and(|last| last == too_slow(me.id)));
    let bytes: usize = keys_held(&actions).iter().map(|(_, len)| len).sum();
    let bounds = INTRODUCTION_KEYS_BYTES_MAX..INTRODUCTION_KEYS_BYTES_MAX + 3 * NAME_BYTES;
    assert!(bounds.contains(&bytes), "{bytes} bytes are held at once");
    assert!((22..40).contains(&actions.len()), "{} were told before", actions.len());
}

#[test]
fn one_introduction_passes_however_long_it_is() {
    let mut table = table();
    let (a, b) = (table.connect("a"), table.connect("b"));
    let name = "x".repeat(1 << 20);
    for number in 0..18 {
        for client in [&a, &b] {
            table.introductions.join(client.state.peer, format!("{number}{name}").as_bytes());
        }
    }
    let actions = table.actions(&a, &join(&["1"]));
    assert!(matches!(actions[..], [Action::Reply(_), Action::Send { .. }]));
    assert!(keys_held(&actions).iter().all(|(_, len)| *len > INTRODUCTION_KEYS_BYTES_MAX));
}

#[test]
fn thousands_of_peers_with_one_document_share_what_is_written() {
    const PEERS: usize = 3_000;
    let mut table = table();
    let peers: Vec<_> = (0..PEERS).map(|number| table.connect(&number.to_string())).collect();
    for peer in &peers {
        table.introductions.join(peer.state.peer, b"all");
    }
    let actions = table.actions(&peers[0], &join(&["all"]));
    assert_eq!(actions.len(), 2 * (PEERS - 1));
    assert_eq!(keys_held(&actions).len(), 1);
}

#[test]
fn bytes_follow_what_is_kept() {
    let mut table = table();
    assert_eq!(table.introductions.bytes(), 0);
    let (a, b) = (table.connect("a"), table.connect("b"));
    let empty = table.introductions.bytes();
    let name = "x".repeat(10_000);
    table.joins(&a, &[&name]);
    let one = table.introductions.bytes();
    assert!((10_000..11_000).contains(&(one - empty)), "{one}");
    table.joins(&b, &[&name]);
    assert!(table.introductions.bytes() - one < 1_000, "a name is kept once");
    for client in [&a, &b] {
        table.says(client, &format!(r#"{{"leave":["{name}"]}}"#));
    }
    assert!(table.introductions.bytes() - empty > 10_000, "a pair's document is kept");
    table.leave(&a);
    table.leave(&b);
    assert_eq!(table.introductions.bytes(), 0);
}

#[test]
fn who_wants_too_many_documents_is_closed() {
    let mut table = table();
    let client = table.connect("a");
    let names: Vec<String> = (0..=DOCUMENTS_PER_PEER_MAX).map(|number| number.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert!(table.actions(&client, &join(&names[1..])).is_empty());
    let actions = table.actions(&client, &join(&names[..1]));
    assert!(matches!(&actions[..], [Action::Close { reason: "too many documents", .. }]), "{actions:?}");
}

#[test]
fn of_many_who_were_taken_over_the_last_one_is_known() {
    let mut table = table();
    let clients: Vec<_> = (0..100).map(|_| table.connect("a")).collect();
    let last = clients.last().expect("there are some");
    for client in &clients[..98] {
        assert_eq!(table.introductions.successor_of(client.id), None);
    }
    assert_eq!(table.introductions.successor_of(clients[98].id), Some(last.id));
    table.leave(last);
    assert_eq!(table.introductions.successor_of(clients[98].id), None);
}
