//! What is said in the directory to a target: protocols.md section 3, and of section 0 the lines opaque and sender.

use super::{BATCH, NOT_LOGGED_IN, PING_TEXT, Party, close, open};
use crate::support::dialects::{RandomJson, nested, without_blanks};
use crate::support::{Server, Setup, on_each_setup};

on_each_setup!(
    a_target_gets_the_message_as_sent,
    the_sender_is_named_by_the_server_alone,
    random_messages_arrive_as_they_were_sent,
    targets_that_are_not_there_are_said_so,
);

/// What `a` says, and what `b` hears of it.
const AS_SENT: &[(&str, &str)] = &[
    (r#"{"type":"offer","target":"b"}"#, r#"{"type":"offer","target":"b","from":"a"}"#),
    (
        r#"{"type":"offer","target":"b","sdp":"v=0\r\n"}"#,
        r#"{"type":"offer","target":"b","sdp":"v=0\r\n","from":"a"}"#,
    ),
    (
        r#"{"target":"b","x":[1.50,-0,1e400,123456789012345678901234567890],"type":"ice"}"#,
        r#"{"target":"b","x":[1.50,-0,1e400,123456789012345678901234567890],"type":"ice","from":"a"}"#,
    ),
    (
        r#"{"type":"\u0041\ud800","x":"\u0041\/\"\\\ud83d\ude00 \udc00\ud800","target":"b"}"#,
        r#"{"type":"\u0041\ud800","x":"\u0041\/\"\\\ud83d\ude00 \udc00\ud800","target":"b","from":"a"}"#,
    ),
    (
        "{\"type\":\"é\",\"target\":\"b\",\"\u{1f600}\":\"\u{2028}\u{7f}\u{feff}\"}",
        "{\"type\":\"é\",\"target\":\"b\",\"\u{1f600}\":\"\u{2028}\u{7f}\u{feff}\",\"from\":\"a\"}",
    ),
    (
        "{ \"type\" : \"t\" ,\n\t\"target\":\"b\" , \"n\" : [ 1 , { \"a\" : 2.50 } ]}",
        "{ \"type\" : \"t\" ,\n\t\"target\":\"b\" , \"n\" : [ 1 , { \"a\" : 2.50 } ],\"from\":\"a\"}",
    ),
    // Keys and names are compared unescaped, of equal keys the last counts.
    (r#"{"t\u0079pe":"t","t\u0061rget":"\u0062"}"#, r#"{"t\u0079pe":"t","t\u0061rget":"\u0062","from":"a"}"#),
    (
        r#"{"type":"ping","type":"t","target":"nobody","target":"b"}"#,
        r#"{"type":"ping","type":"t","target":"nobody","target":"b","from":"a"}"#,
    ),
    (
        r#"{"type":5,"target":{},"target":"b","type":"login2"}"#,
        r#"{"type":5,"target":{},"target":"b","type":"login2","from":"a"}"#,
    ),
    // Whatever it calls itself.
    (r#"{"type":"create","target":"b"}"#, r#"{"type":"create","target":"b","from":"a"}"#),
    (
        r#"{"type":"join","target":"b","roomId":"1234"}"#,
        r#"{"type":"join","target":"b","roomId":"1234","from":"a"}"#,
    ),
    (
        r#"{"type":"signal","target":"b","payload":null}"#,
        r#"{"type":"signal","target":"b","payload":null,"from":"a"}"#,
    ),
    (
        r#"{"type":"peer_connected","peer":"x","target":"b"}"#,
        r#"{"type":"peer_connected","peer":"x","target":"b","from":"a"}"#,
    ),
    (r#"{"type":" ping","target":"b"}"#, r#"{"type":" ping","target":"b","from":"a"}"#),
    (r#"{"type":"Ping","target":"b"}"#, r#"{"type":"Ping","target":"b","from":"a"}"#),
    (r#"{"type":"stream_started ","target":"b"}"#, r#"{"type":"stream_started ","target":"b","from":"a"}"#),
    (
        r#"{"":{},"type":"t","name":"c","target":"b","id":1,"__proto__":[]}"#,
        r#"{"":{},"type":"t","name":"c","target":"b","id":1,"__proto__":[],"from":"a"}"#,
    ),
];

fn a_target_gets_the_message_as_sent(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut party = Party::new(&server, &["c", "a", "b"]);
    for (sent, heard) in AS_SENT {
        party.member("a").send(sent);
        party.member("b").expect(heard);
        party.member("a").send_binary(sent.as_bytes());
        party.member("b").expect(heard);
    }
    party.expect_nothing();
    // Oneself is a target like others.
    party.leave("a", close);
    party.join("a");
    party.member("a").ask(r#"{"type":"t","target":"a"}"#, r#"{"type":"t","target":"a","from":"a"}"#);
    party
        .member("a")
        .ask(r#"{"from":"b","type":"t","target":"a"}"#, r#"{"type":"t","target":"a","from":"a"}"#);
    // Blanks around the braces: whether they go with it is left open.
    for sent in [
        r#" {"type":"t","target":"b"}"#,
        "{\"type\":\"t\",\"target\":\"b\" \n}\r\n",
        "{ \"target\":\"b\",\"type\":\"t\"\t}",
    ] {
        party.member("a").send(sent);
        let heard = party.member("b").next("the message");
        let compact = without_blanks(sent);
        assert_eq!(without_blanks(&heard), format!("{},\"from\":\"a\"}}", &compact[..compact.len() - 1]));
    }
    // The largest depth.
    let deep = nested(999, "1");
    party.member("a").send(&format!(r#"{{"type":"t","target":"b","x":{deep}}}"#));
    party.member("b").expect(&format!(r#"{{"type":"t","target":"b","x":{deep},"from":"a"}}"#));
    party.expect_nothing();
}

/// What `a` says in another's name, and what `b` hears of it.
const FORGED: &[(&str, &str)] = &[
    (r#"{"from":"b","type":"t","target":"b"}"#, r#"{"type":"t","target":"b","from":"a"}"#),
    (r#"{"type":"t","from":"b","target":"b"}"#, r#"{"type":"t","target":"b","from":"a"}"#),
    (r#"{"type":"t","target":"b","from":"b"}"#, r#"{"type":"t","target":"b","from":"a"}"#),
    (r#"{"type":"t","target":"b","from":"a"}"#, r#"{"type":"t","target":"b","from":"a"}"#),
    (r#"{"from":"x","from":"y","type":"t","target":"b"}"#, r#"{"type":"t","target":"b","from":"a"}"#),
    (r#"{"type":"t","target":"b","from":"x","from":"y"}"#, r#"{"type":"t","target":"b","from":"a"}"#),
    (r#"{"from":1,"type":"t","from":2,"target":"b","from":3}"#, r#"{"type":"t","target":"b","from":"a"}"#),
    (
        r#"{"from":1,"a":1,"from":2,"b":2,"from":3,"c":3,"from":4,"d":4,"from":5,"type":"t","from":6,"e":5,"from":7,"target":"b","from":8,"from":9}"#,
        r#"{"a":1,"b":2,"c":3,"d":4,"type":"t","e":5,"target":"b","from":"a"}"#,
    ),
    (r#"{"\u0066rom":"b","type":"t","target":"b"}"#, r#"{"type":"t","target":"b","from":"a"}"#),
    (r#"{"type":"t","f\u0072\u006Fm":"b","target":"b"}"#, r#"{"type":"t","target":"b","from":"a"}"#),
    (
        r#"{"type":"t","target":"b","fro\u006d":"b","\u0066\u0072\u006f\u006D":1}"#,
        r#"{"type":"t","target":"b","from":"a"}"#,
    ),
    // Whatever it says there.
    (
        r#"{"type":"t","from":{"a":[1,{"from":"x"}],"b":"},\",\"c\":"},"target":"b"}"#,
        r#"{"type":"t","target":"b","from":"a"}"#,
    ),
    (r#"{"type":"t","from":[[],",",{"}":"]"}],"target":"b"}"#, r#"{"type":"t","target":"b","from":"a"}"#),
    (r#"{"from":"\",\"target\":\"c\\","type":"t","target":"b"}"#, r#"{"type":"t","target":"b","from":"a"}"#),
    (r#"{"type":"t","target":"b","from":null}"#, r#"{"type":"t","target":"b","from":"a"}"#),
    (r#"{"type":"t","from":-1.50e+3,"target":"b"}"#, r#"{"type":"t","target":"b","from":"a"}"#),
    (r#"{"type":"t","from":1e400,"target":"b"}"#, r#"{"type":"t","target":"b","from":"a"}"#),
    (r#"{"type":"t","from":"\ud800","target":"b"}"#, r#"{"type":"t","target":"b","from":"a"}"#),
    // The rest stays as it is, blanks and order and all.
    (
        r#"{"b":1.50 ,"type":"t","from":"b","a" : [ 1 ] , "target" :"b","z":"\u0041"}"#,
        r#"{"b":1.50 ,"type":"t","a" : [ 1 ] , "target" :"b","z":"\u0041","from":"a"}"#,
    ),
    (
        "{\"type\" : \"t\",\"from\":\"b\",\n\t\"target\": \"b\"}",
        "{\"type\" : \"t\",\n\t\"target\": \"b\",\"from\":\"a\"}",
    ),
    // What is inside, and what only looks like it, is nobody's name.
    (
        r#"{"type":"t","target":"b","x":{"from":"c","y":[{"from":1}]}}"#,
        r#"{"type":"t","target":"b","x":{"from":"c","y":[{"from":1}]},"from":"a"}"#,
    ),
    (
        r#"{"x":{"from":"c"},"from":"b","type":"t","target":"b","y":[{"\u0066rom":2}]}"#,
        r#"{"x":{"from":"c"},"type":"t","target":"b","y":[{"\u0066rom":2}],"from":"a"}"#,
    ),
    (
        r#"{"From":1,"from ":2," from":3,"fro":4,"froms":5,"from\u0000":6,"type":"t","target":"b"}"#,
        r#"{"From":1,"from ":2," from":3,"fro":4,"froms":5,"from\u0000":6,"type":"t","target":"b","from":"a"}"#,
    ),
    (
        r#"{"x":"from","y":",\"from\":\"b\"","\"from":1,"type":"from","target":"b"}"#,
        r#"{"x":"from","y":",\"from\":\"b\"","\"from":1,"type":"from","target":"b","from":"a"}"#,
    ),
    (
        r#"{"senderId":"b","remoteClientId":"b","sender":"b","type":"t","target":"b"}"#,
        r#"{"senderId":"b","remoteClientId":"b","sender":"b","type":"t","target":"b","from":"a"}"#,
    ),
];

/// The same, with blanks around what is cut out: what becomes of those is left open.
const FORGED_AMONG_BLANKS: &[&str] = &[
    "{ <from> , \"type\" : \"t\" , \"target\" : \"b\" }",
    "{ \"type\" : \"t\" , <from> , \"target\" : \"b\" }",
    "{ \"type\" : \"t\" , \"target\" : \"b\" , <from> }",
    "{\n<from>\n,\n<from>\r\n,\t\"type\":\"t\"\t, <from> ,\"target\":\"b\" }",
];

fn the_sender_is_named_by_the_server_alone(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut party = Party::new(&server, &["c", "b", "a"]);
    for (sent, heard) in FORGED {
        party.member("a").send(sent);
        party.member("b").expect(heard);
    }
    for (sent, heard) in FORGED.iter().rev().take(15) {
        party.member("a").send_binary(sent.as_bytes());
        party.member("b").expect(heard);
    }
    party.leave("a", close);
    party.join("a");
    for sent in FORGED_AMONG_BLANKS {
        for from in [r#""from":"b""#, r#""fr\u006fm" : {"a":","}"#, "\"from\"\t:\n[ ]"] {
            party.member("a").send(&sent.replace("<from>", from));
            let heard = party.member("b").next("the message");
            assert_eq!(without_blanks(&heard), r#"{"type":"t","target":"b","from":"a"}"#, "{sent:?}");
        }
    }
    party.expect_nothing();
}

fn random_messages_arrive_as_they_were_sent(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut json = RandomJson::new(30);
    let mut party = Party::new(&server, &["b"]);
    for round in 0..6 {
        party.join("a");
        for _ in 0..BATCH {
            let kind = json.string("t");
            let mut fields = json.fields(&[("type", &*kind), ("target", "\"b\"")]);
            let without = without_blanks(&json.object(&fields));
            let expected = format!("{},\"from\":\"a\"}}", &without[..without.len() - 1]);
            let honest = fields.clone();
            // Half of the time in the name of others.
            for _ in 0..[0, 0, 1, 2][json.below(4)] {
                let (at, value) = (json.below(fields.len() + 1), json.value(3));
                let forged = json.field("from", &value);
                fields.insert(at, forged);
            }
            let sent = json.object(&fields);
            if round % 2 == 0 {
                party.member("a").send(&sent);
            } else {
                party.member("a").send_binary(sent.as_bytes());
            }
            let heard = party.member("b").next("the message");
            if fields == honest {
                assert_eq!(heard, format!("{},\"from\":\"a\"}}", &sent[..sent.len() - 1]));
            }
            assert_eq!(without_blanks(&heard), expected, "{sent}");
            let misses = honest.iter().find(|field| !heard.contains(&**field));
            assert_eq!(misses, None, "a field is not as it was in {sent}: {heard}");
        }
        party.leave("a", close);
    }
}

fn targets_that_are_not_there_are_said_so(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut party = Party::new(&server, &["a", "b", "gone"]);
    party.leave("gone", close);
    for target in [
        "gone", "nobody", "B", " b", "b ", "b\\u0000", "\\ud800", "b\\\"", "\\\\b", "é", "*", "all", "a,b",
        "1234",
    ] {
        for kind in ["offer", "create", "x"] {
            party.member("a").ask(
                &format!(r#"{{"type":"{kind}","target":"{target}"}}"#),
                &format!(r#"{{"type":"error","error":"target_not_found","target":"{target}"}}"#),
            );
        }
    }
    party.expect_nothing();
    party.member("b").ask(
        r#"{"type":"t","target":"a","target":"gone"}"#,
        r#"{"type":"error","error":"target_not_found","target":"gone"}"#,
    );
    // Who has not logged in is no target, who has is one at once.
    let mut late = open(&server);
    late.ask(PING_TEXT, NOT_LOGGED_IN);
    party.expect_nothing();
    party.join("gone");
    party.member("b").send(r#"{"type":"t","target":"gone"}"#);
    party.member("gone").expect(r#"{"type":"t","target":"gone","from":"b"}"#);
    late.expect_nothing();
}
