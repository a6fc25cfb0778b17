//! What is wrong with a message, and that nothing is done to one with which nothing is.

use serde::Serialize;

use super::*;

#[test]
fn json_that_is_no_object_has_one_issue() {
    for (message, received) in
        [("null", "null"), (" true ", "boolean"), ("7", "number"), (r#""{}""#, "string"), ("[{}]", "array")]
    {
        let expected = format!(
            r#"{{"info":"validationError","error":[{{"code":"invalid_type","expected":"object","received":"{received}","path":[],"message":"Expected object, received {received}"}}]}}"#
        );
        assert_eq!(table().answer(message.as_bytes()), expected, "{message}");
    }
}

/// What a message with nothing but wrong fields is answered, letter by letter.
const ALL_ISSUES: &str = concat!(
    r#"{"info":"validationError","requestId":{"r": 1.50},"error":["#,
    r#"{"code":"invalid_type","expected":"string","received":"object","path":["requestId"],"message":"Expected string, received object"},"#,
    r#"{"code":"invalid_type","expected":"string","received":"null","path":["connectionId"],"message":"Expected string, received null"},"#,
    r#"{"code":"invalid_type","expected":"string","received":"undefined","path":["encryptedPayload"],"message":"Required"},"#,
    r#"{"code":"invalid_type","expected":"string","received":"array","path":["targetClientId"],"message":"Expected string, received array"},"#,
    r#"{"code":"invalid_type","expected":"number","received":"string","path":["startAt"],"message":"Expected number, received string"},"#,
    r#"{"code":"invalid_union","unionErrors":["#,
    r#"{"issues":[{"code":"invalid_literal","expected":"offer","path":["method"],"message":"Invalid literal value, expected \"offer\""}],"name":"ZodError"},"#,
    r#"{"issues":[{"code":"invalid_literal","expected":"answer","path":["method"],"message":"Invalid literal value, expected \"answer\""}],"name":"ZodError"},"#,
    r#"{"issues":[{"code":"invalid_literal","expected":"iceCandidate","path":["method"],"message":"Invalid literal value, expected \"iceCandidate\""}],"name":"ZodError"},"#,
    r#"{"issues":[{"code":"invalid_literal","expected":"iceCandidates","path":["method"],"message":"Invalid literal value, expected \"iceCandidates\""}],"name":"ZodError"}"#,
    r#"],"path":["method"],"message":"Invalid input"},"#,
    r#"{"code":"invalid_union","unionErrors":["#,
    r#"{"issues":[{"code":"invalid_literal","expected":"wallet","path":["source"],"message":"Invalid literal value, expected \"wallet\""}],"name":"ZodError"},"#,
    r#"{"issues":[{"code":"invalid_literal","expected":"extension","path":["source"],"message":"Invalid literal value, expected \"extension\""}],"name":"ZodError"}"#,
    r#"],"path":["source"],"message":"Invalid input"}]}"#,
);

#[test]
fn all_issues_are_told_in_their_order() {
    let message = r#"{"source":null,"method":"Offer","startAt":"0","targetClientId":[],"connectionId":null,"requestId": {"r": 1.50} }"#;
    assert_eq!(table().answer(message.as_bytes()), ALL_ISSUES);
}

/// zod's issues by way of a serializer, to compare the texts with.
#[derive(Serialize)]
#[serde(untagged)]
enum Issue {
    Type {
        code: &'static str,
        expected: &'static str,
        received: &'static str,
        path: [&'static str; 1],
        message: String,
    },
    #[serde(rename_all = "camelCase")]
    Union {
        code: &'static str,
        union_errors: Vec<ZodError>,
        path: [&'static str; 1],
        message: &'static str,
    },
    Literal {
        code: &'static str,
        expected: &'static str,
        path: [&'static str; 1],
        message: String,
    },
}

#[derive(Serialize)]
struct ZodError {
    issues: [Issue; 1],
    name: &'static str,
}

fn type_issue(name: &'static str, expected: &'static str, received: &'static str) -> Issue {
    let message = match received {
        "undefined" => "Required".to_owned(),
        _ => format!("Expected {expected}, received {received}"),
    };
    Issue::Type { code: "invalid_type", expected, received, path: [name], message }
}

fn union_issue(name: &'static str, literals: &[&'static str]) -> Issue {
    let error = |literal: &&'static str| ZodError {
        issues: [Issue::Literal {
            code: "invalid_literal",
            expected: literal,
            path: [name],
            message: format!("Invalid literal value, expected \"{literal}\""),
        }],
        name: "ZodError",
    };
    let union_errors = literals.iter().map(error).collect();
    Issue::Union { code: "invalid_union", union_errors, path: [name], message: "Invalid input" }
}

/// A value as it stands in a message, and what JavaScript calls it.
type Value = (String, &'static str);

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(("null", "null")),
        Just(("false", "boolean")),
        Just(("1.50", "number")),
        Just(("-1e400", "number")),
        Just((r#""\u0041 \ud800""#, "string")),
        Just((r#""offer""#, "string")),
        Just((r#""\u0061nswer""#, "string")),
        Just((r#""iceCandidate""#, "string")),
        Just((r#""wallet""#, "string")),
        Just(("[ ]", "array")),
        Just((r#"{"requestId":"inner"}"#, "object")),
    ]
    .prop_map(|(text, kind)| (text.to_owned(), kind))
}

fn string_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        "[a-z{},:\\[\\] é😀]{0,12}",
        r#"(\\["\\/bfnrt]|\\u00[0-9a-f]{2}|\\ud83d\\ude00|\\udc00|x){0,6}"#
    ]
    .prop_map(|text| (format!("\"{text}\""), "string"))
}

/// A field that is mostly what it must be, sometimes anything or missing.
fn field(good: BoxedStrategy<Value>) -> impl Strategy<Value = Option<Value>> {
    prop_oneof![12 => good.prop_map(Some), 2 => any_value().prop_map(Some), 1 => Just(None)]
}

const NAMES: [&str; 7] =
    ["requestId", "connectionId", "encryptedPayload", "targetClientId", "startAt", "method", "source"];

/// The values of [`NAMES`].
fn fields() -> impl Strategy<Value = [Option<Value>; 7]> {
    let string = || field(string_value().boxed());
    let literal = |words: &'static [&'static str]| {
        let good = proptest::sample::select(words).prop_map(|word| (format!("\"{word}\""), "string"));
        field(good.boxed())
    };
    let number = field("-?[1-9][0-9]{0,30}(\\.[0-9]{1,4})?".prop_map(|text| (text, "number")).boxed());
    let method = literal(&["offer", "answer", "iceCandidate", "iceCandidates"]);
    let source = literal(&["wallet", "extension"]);
    (string(), string(), string(), string(), number, method, source)
        .prop_map(|(a, b, c, d, e, f, g)| [a, b, c, d, e, f, g])
}

/// What is wrong with these, by reference.
fn issues_of(fields: &[Option<Value>; 7]) -> Vec<Issue> {
    let mut issues = Vec::new();
    for (name, value) in NAMES.into_iter().zip(fields) {
        let is_optional = ["connectionId", "startAt", "source"].contains(&name);
        let received = value.as_ref().map_or("undefined", |(_, kind)| kind);
        let expected = if name == "startAt" { "number" } else { "string" };
        let literals: &[_] = match name {
            "method" => &["offer", "answer", "iceCandidate", "iceCandidates"],
            "source" => &["wallet", "extension"],
            _ => &[],
        };
        let word = value.as_ref().and_then(|(text, _)| serde_json::from_str::<String>(text).ok());
        match value {
            None if is_optional => {}
            _ if word.is_some_and(|word| literals.contains(&word.as_str())) => {}
            _ if !literals.is_empty() => issues.push(union_issue(name, literals)),
            _ if received != expected => issues.push(type_issue(name, expected, received)),
            _ => {}
        }
    }
    issues
}

/// A message with these fields, in an order and with blanks, other fields and older values of the same name that a
/// number decides.
fn message_of(fields: &[Option<Value>; 7], mut dice: u64) -> String {
    let mut draw = |sides: u64| {
        let number = dice % sides;
        dice = dice.rotate_left(23).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        number
    };
    let mut members = Vec::new();
    for (name, value) in NAMES.iter().zip(fields) {
        let Some((value, _)) = value else { continue };
        let key = if draw(4) == 0 { name.replacen('e', "\\u0065", 1) } else { (*name).to_owned() };
        let blank = ["", " ", "\n\t"][draw(3) as usize];
        members.push(format!(r#"{blank}"{key}"{blank}:{blank}{value}{blank}"#));
    }
    members.push(r#""remoteClientId":"forged""#.to_owned());
    members.push(r#""remote\u0043lientId":["forged"],"info":"x","data":{"from":1.0}"#.to_owned());
    for at in (1..members.len()).rev() {
        members.swap(at, draw(at as u64 + 1) as usize);
    }
    if fields[0].is_some() && draw(2) == 0 {
        members.insert(0, r#""requestId":7"#.to_owned());
    }
    format!("{{{}}}", members.join(","))
}

proptest! {
    /// Every message with every combination of right, wrong and missing fields is answered as the contract says, and
    /// what is forwarded is what came in.
    #[test]
    fn each_message_is_checked_and_forwarded_as_it_came(mut fields in fields(), dice in any::<u64>(), is_there in any::<bool>()) {
        let mut table = table();
        let (a, b) = (table.client(Role::Wallet), table.client(Role::Extension));
        if is_there && matches!(fields[3], Some((_, "string"))) {
            fields[3] = Some((format!("\"{}\"", b.text()), "string"));
        }
        let message = message_of(&fields, dice);
        let issues = issues_of(&fields);
        let got = table.says(&a, message.as_bytes());
        let request_id = fields[0].as_ref().map(|(text, _)| text.as_str());
        if !issues.is_empty() {
            let issues = serde_json::to_string(&issues).expect("JSON");
            let request_id = request_id.map_or(String::new(), |id| format!(r#""requestId":{id},"#));
            let expected = format!(r#"{{"info":"validationError",{request_id}"error":{issues}}}"#);
            prop_assert_eq!(got, [(a.id, expected)]);
        } else if fields[3] == Some((format!("\"{}\"", b.text()), "string")) {
            prop_assert_eq!(got.len(), 2);
            prop_assert_eq!((got[0].0, got[1].0), (b.id, a.id));
            let data = members_of(&got[0].1);
            prop_assert_eq!(data.len(), 4);
            prop_assert_eq!(data["data"].get(), &message, "byte for byte");
            prop_assert_eq!(data["remoteClientId"].get(), format!("\"{}\"", a.text()), "the server names the sender");
            prop_assert_eq!(Some(data["requestId"].get()), request_id);
            let confirmation = members_of(&got[1].1);
            prop_assert_eq!(Some(confirmation["requestId"].get()), request_id);
        } else {
            let expected = format!(r#"{{"info":"missingRemoteClientError","requestId":{}}}"#, request_id.expect("a string"));
            prop_assert_eq!(got, [(a.id, expected)]);
        }
    }
}
