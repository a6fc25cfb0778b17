//! What is wrong with a message in rendezvous, and what is answered: protocols.md section 2, and of section 0 the line JSON.

use super::{NO_RATE, WALLET, exchange, key, missing, open, pair};
use crate::support::dialects::{Peer, json_or_not, not_utf8};
use crate::support::{Server, Setup, on_each_driver, on_each_setup};

on_each_setup!(bad_input_reaches_nobody_else);
on_each_driver!(
    each_wrong_field_has_its_entry,
    several_wrong_fields_have_their_entries_in_order,
    the_request_id_is_echoed_as_it_came,
    what_is_no_object_has_one_entry,
    what_is_no_json_comes_back,
);

/// The fields of a good message to nobody, and another value of a good type for each.
const FIELDS: [(&str, &str); 7] = [
    ("requestId", "\"r\""),
    ("connectionId", "\"c\""),
    ("encryptedPayload", "\"p\""),
    ("targetClientId", "\"nobody\""),
    ("startAt", "1.50"),
    ("method", "\"offer\""),
    ("source", "\"wallet\""),
];

/// A message with these fields.
fn object(fields: &[(&str, &str)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

/// A good message with another value for a field, or without it.
fn with(name: &str, value: Option<&str>) -> String {
    let change = |&(key, good): &(&'static str, &'static str)| {
        if key == name { value.map(|value| (key, value.to_owned())) } else { Some((key, good.to_owned())) }
    };
    let fields: Vec<(&str, String)> = FIELDS.iter().filter_map(change).collect();
    object(&fields.iter().map(|(key, value)| (*key, &**value)).collect::<Vec<_>>())
}

fn required(expected: &str, field: &str) -> String {
    format!(
        r#"{{"code":"invalid_type","expected":"{expected}","received":"undefined","path":["{field}"],"message":"Required"}}"#
    )
}

pub(super) fn expected(expected: &str, received: &str, field: &str) -> String {
    format!(
        r#"{{"code":"invalid_type","expected":"{expected}","received":"{received}","path":["{field}"],"message":"Expected {expected}, received {received}"}}"#
    )
}

const WRONG_METHOD: &str = r#"{"code":"invalid_union","unionErrors":[{"issues":[{"code":"invalid_literal","expected":"offer","path":["method"],"message":"Invalid literal value, expected \"offer\""}],"name":"ZodError"},{"issues":[{"code":"invalid_literal","expected":"answer","path":["method"],"message":"Invalid literal value, expected \"answer\""}],"name":"ZodError"},{"issues":[{"code":"invalid_literal","expected":"iceCandidate","path":["method"],"message":"Invalid literal value, expected \"iceCandidate\""}],"name":"ZodError"},{"issues":[{"code":"invalid_literal","expected":"iceCandidates","path":["method"],"message":"Invalid literal value, expected \"iceCandidates\""}],"name":"ZodError"}],"path":["method"],"message":"Invalid input"}"#;
const WRONG_SOURCE: &str = r#"{"code":"invalid_union","unionErrors":[{"issues":[{"code":"invalid_literal","expected":"wallet","path":["source"],"message":"Invalid literal value, expected \"wallet\""}],"name":"ZodError"},{"issues":[{"code":"invalid_literal","expected":"extension","path":["source"],"message":"Invalid literal value, expected \"extension\""}],"name":"ZodError"}],"path":["source"],"message":"Invalid input"}"#;

pub(super) fn entries(entries: &[String]) -> String {
    entries.join(",")
}

pub(super) fn wrong_fields(request: Option<&str>, entries: &str) -> String {
    let request = request.map(|request| format!("\"requestId\":{request},")).unwrap_or_default();
    format!(r#"{{"info":"validationError",{request}"error":[{entries}]}}"#)
}

/// A client whose messages are answered at once.
fn alone(server: &Server) -> Peer {
    open(server, &key(1), WALLET)
}

/// Values, and what they are called.
const TYPES: &[(&str, &str)] = &[
    ("null", "null"),
    ("true", "boolean"),
    ("false", "boolean"),
    ("0", "number"),
    ("-1.50", "number"),
    ("1e400", "number"),
    ("123456789012345678901234567890", "number"),
    ("\"\"", "string"),
    ("\"5\"", "string"),
    ("\"\\ud800\"", "string"),
    ("[]", "array"),
    ("[\"r\"]", "array"),
    ("{}", "object"),
    ("{\"requestId\":\"r\"}", "object"),
];

fn each_wrong_field_has_its_entry(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let mut peer = alone(&server);
    // To the byte, once.
    peer.ask(
        r#"{"method":"offer","encryptedPayload":"p","targetClientId":"t"}"#,
        r#"{"info":"validationError","error":[{"code":"invalid_type","expected":"string","received":"undefined","path":["requestId"],"message":"Required"}]}"#,
    );
    peer.ask(
        r#"{"requestId":"r","method":"offer","encryptedPayload":5,"targetClientId":"t"}"#,
        r#"{"info":"validationError","requestId":"r","error":[{"code":"invalid_type","expected":"string","received":"number","path":["encryptedPayload"],"message":"Expected string, received number"}]}"#,
    );
    peer.ask(&with("", None), &missing("\"r\""));
    for (field, wanted, is_optional) in [
        ("requestId", "string", false),
        ("connectionId", "string", true),
        ("encryptedPayload", "string", false),
        ("targetClientId", "string", false),
        ("startAt", "number", true),
    ] {
        let request = |value| if field == "requestId" { value } else { Some("\"r\"") };
        let answer = if is_optional {
            missing("\"r\"")
        } else {
            wrong_fields(request(None), &required(wanted, field))
        };
        peer.ask(&with(field, None), &answer);
        for (value, kind) in TYPES {
            let request = request(Some(value));
            let answer = if *kind == wanted {
                missing(request.expect("there is one"))
            } else {
                wrong_fields(request, &expected(wanted, kind, field))
            };
            peer.ask(&with(field, Some(value)), &answer);
            peer.send_binary(with(field, Some(value)).as_bytes());
            peer.expect(&answer);
        }
    }
    peer.ask(&with("method", None), &wrong_fields(Some("\"r\""), WRONG_METHOD));
    peer.ask(&with("source", None), &missing("\"r\""));
    let more =
        ["\"Offer\"", "\"offer \"", "\"wallets\"", "\"iceCandidatess\"", "\"offer\\u0000\"", "[\"offer\"]"];
    for value in TYPES.iter().map(|(value, _)| *value).chain(more) {
        peer.ask(&with("method", Some(value)), &wrong_fields(Some("\"r\""), WRONG_METHOD));
        peer.ask(&with("source", Some(value)), &wrong_fields(Some("\"r\""), WRONG_SOURCE));
    }
    for value in ["\"offer\"", "\"answer\"", "\"iceCandidate\"", "\"iceCandidates\"", "\"\\u006fffer\""] {
        peer.ask(&with("method", Some(value)), &missing("\"r\""));
    }
    for value in ["\"wallet\"", "\"extension\"", "\"wall\\u0065t\""] {
        peer.ask(&with("source", Some(value)), &missing("\"r\""));
    }
}

fn several_wrong_fields_have_their_entries_in_order(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let mut peer = alone(&server);
    let union = str::to_owned;
    let none = [
        required("string", "requestId"),
        required("string", "encryptedPayload"),
        required("string", "targetClientId"),
        union(WRONG_METHOD),
    ];
    for text in
        ["{}", "{ }", r#"{"a":1}"#, r#"{"RequestId":"r","Method":"offer"}"#, r#"{"x":{"requestId":"r"}}"#]
    {
        peer.ask(text, &wrong_fields(None, &entries(&none)));
    }
    // All of them, in whatever order they come.
    let all = [
        expected("string", "null", "requestId"),
        expected("string", "boolean", "connectionId"),
        expected("string", "array", "encryptedPayload"),
        expected("string", "object", "targetClientId"),
        expected("number", "string", "startAt"),
        union(WRONG_METHOD),
        union(WRONG_SOURCE),
    ];
    let mut fields = [
        ("requestId", "null"),
        ("connectionId", "false"),
        ("encryptedPayload", "[1]"),
        ("targetClientId", "{\"a\":1}"),
        ("startAt", "\"1\""),
        ("method", "7"),
        ("source", "\"server\""),
    ];
    for _ in 0..fields.len() {
        peer.ask(&object(&fields), &wrong_fields(Some("null"), &entries(&all)));
        fields.rotate_left(1);
        fields[1..].reverse();
    }
    // Any two of them.
    for first in 0..7 {
        for second in first + 1..7 {
            let wrong = |index: usize| index == first || index == second;
            let fields: Vec<(&str, &str)> = (0..7)
                .map(|index| {
                    let (name, good) = FIELDS[index];
                    let (_, bad) = fields.iter().find(|(field, _)| *field == name).expect("the same names");
                    (name, if wrong(index) { *bad } else { good })
                })
                .collect();
            let request = if first == 0 { "null" } else { "\"r\"" };
            let two = [all[first].clone(), all[second].clone()];
            peer.ask(&object(&fields), &wrong_fields(Some(request), &entries(&two)));
        }
    }
    // Of equal keys the last counts.
    peer.ask(
        r#"{"requestId":"r","method":"offer","encryptedPayload":"p","targetClientId":"t","requestId":7}"#,
        &wrong_fields(Some("7"), &expected("string", "number", "requestId")),
    );
}

fn the_request_id_is_echoed_as_it_came(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let mut peer = alone(&server);
    for (value, kind) in [
        ("1.50", "number"),
        ("-0", "number"),
        ("1E+02", "number"),
        ("1e400", "number"),
        ("123456789012345678901234567890", "number"),
        ("[ 1 , {\"a\" : \"\\u0041\"} ]", "array"),
        ("{ \"a\" :\t1.0 }", "object"),
        ("null", "null"),
        ("true", "boolean"),
    ] {
        let answer = wrong_fields(Some(value), &expected("string", kind, "requestId"));
        peer.ask(&with("requestId", Some(value)), &answer);
        peer.ask(&with("requestId", Some(&format!(" {value}\n"))), &answer);
    }
    // Strings, too, in each answer.
    for value in [r#""\u0041""#, r#""\/""#, r#""\ud800""#, r#""\"""#, "\"\u{7f}\u{2028}é\"", r#""\n\u000a""#]
    {
        peer.ask(&with("requestId", Some(value)), &missing(value));
        let text = object(&[("requestId", value)]);
        let all = [
            required("string", "encryptedPayload"),
            required("string", "targetClientId"),
            WRONG_METHOD.to_owned(),
        ];
        peer.ask(&text, &wrong_fields(Some(value), &entries(&all)));
    }
}

fn what_is_no_object_has_one_entry(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let mut peer = alone(&server);
    for (text, kind) in TYPES.iter().filter(|(_, kind)| *kind != "object") {
        let answer = format!(
            r#"{{"info":"validationError","error":[{{"code":"invalid_type","expected":"object","received":"{kind}","path":[],"message":"Expected object, received {kind}"}}]}}"#
        );
        for text in [(*text).to_owned(), format!(" {text}\r\n")] {
            peer.ask(&text, &answer);
            peer.send_binary(text.as_bytes());
            peer.expect(&answer);
        }
    }
    let list = format!("[{}]", with("", None));
    assert!(peer_answer(&mut peer, &list).contains(r#""received":"array""#), "a message in a list is none");
}

fn peer_answer(peer: &mut Peer, text: &str) -> String {
    peer.send(text);
    peer.next("an answer")
}

pub(super) fn no_json(came: &str) -> String {
    format!(
        r#"{{"info":"invalidMessageError","data":{},"error":"invalid message format, expected JSON"}}"#,
        json_string(came)
    )
}

/// As `JSON.stringify` writes it.
fn json_string(text: &str) -> String {
    let mut json = "\"".to_owned();
    for symbol in text.chars() {
        match symbol {
            '"' => json += "\\\"",
            '\\' => json += "\\\\",
            '\u{8}' => json += "\\b",
            '\t' => json += "\\t",
            '\n' => json += "\\n",
            '\u{c}' => json += "\\f",
            '\r' => json += "\\r",
            '\0'..'\u{20}' => json += &format!("\\u{:04x}", u32::from(symbol)),
            _ => json.push(symbol),
        }
    }
    json + "\""
}

fn what_is_no_json_comes_back(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let mut peer = alone(&server);
    peer.ask(
        "say \"hi\" \\ \u{8}\u{c}\n\r\t\0\u{1}\u{1f}\u{7f} é\u{2028}/",
        "{\"info\":\"invalidMessageError\",\"data\":\"say \\\"hi\\\" \\\\ \\b\\f\\n\\r\\t\\u0000\\u0001\\u001f\u{7f} é\u{2028}/\",\"error\":\"invalid message format, expected JSON\"}",
    );
    let fields = object(&FIELDS);
    let fields = &fields[1..fields.len() - 1];
    for (text, is_json) in json_or_not(fields) {
        let answer = if is_json { missing("\"r\"") } else { no_json(&text) };
        peer.ask(&text, &answer);
        peer.send_binary(text.as_bytes());
        peer.expect(&answer);
    }
    for bytes in not_utf8(fields) {
        peer.send_binary(&bytes);
        peer.expect(&no_json(&String::from_utf8_lossy(&bytes)));
    }
    // The replaced ones to the byte, once.
    peer.send_binary(b"a\xffb\xe2\x82c\xed\xa0\x80d\xf0\x9f\x98");
    peer.expect(
        "{\"info\":\"invalidMessageError\",\"data\":\"a\u{fffd}b\u{fffd}c\u{fffd}\u{fffd}\u{fffd}d\u{fffd}\",\"error\":\"invalid message format, expected JSON\"}",
    );
    let long = "\"\u{1}".repeat(100_000);
    peer.ask(&long, &no_json(&long));
    peer.expect_nothing();
}

fn bad_input_reaches_nobody_else(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let (mut wallet, mut extension) = pair(&server, &key(8));
    let mut bad: Vec<String> = json_or_not("\"requestId\":5").into_iter().map(|(text, _)| text).collect();
    for (field, _) in FIELDS {
        bad.push(with(field, Some("[]")).replace("nobody", &extension.id));
    }
    bad.extend(TYPES.iter().map(|(value, _)| (*value).to_owned()));
    for text in &bad {
        wallet.peer.send(text);
        let answer = wallet.peer.next("an error");
        let is_error = ["{\"info\":\"validationError\",", "{\"info\":\"invalidMessageError\","]
            .iter()
            .any(|start| answer.starts_with(start));
        assert!(is_error, "{answer}");
        exchange(&mut wallet, &mut extension, "undisturbed");
    }
    exchange(&mut extension, &mut wallet, "undisturbed");
}
