//! Whether a message has the fields it must have; what is wrong is told in the shape of zod's issues.

use std::borrow::Cow;

use crate::wire::Span;
use crate::wire::envelope::{Envelope, Field, Kind};

/// What a valid message asks for.
pub(super) struct Request<'a> {
    /// The value of `requestId`, a string.
    pub request_id: Span,
    /// The unescaped `targetClientId`.
    pub target: Cow<'a, [u8]>,
}

/// Why a message is refused.
pub(super) struct Invalid {
    /// The value of `requestId`, whatever it is; nothing if there is none.
    pub request_id: Option<Span>,
    /// The issues as JSON, with commas between them.
    pub issues: String,
}

/// Checks a message field by field.
pub(super) fn check<'a>(envelope: &Envelope<'a>) -> Result<Request<'a>, Invalid> {
    if envelope.kind != Kind::Object {
        let issues = wrong_type("object", name_of(envelope.kind), None);
        return Err(Invalid { request_id: None, issues });
    }
    let fields = RULES.map(|rule| envelope.field(rule.name));
    let issues = issues(envelope, &fields);
    match fields {
        [Some(request_id), _, _, Some(target), ..] if issues.is_empty() => Ok(Request {
            request_id: request_id.value.clone(),
            // The rules say that it is a string.
            target: envelope.text(target).unwrap_or_default(),
        }),
        [request_id, ..] => Err(Invalid { request_id: request_id.map(|field| field.value.clone()), issues }),
    }
}

/// What a field must be.
#[derive(Clone, Copy)]
enum Expected {
    String,
    Number,
    OneOf(&'static [&'static str]),
}

struct Rule {
    name: &'static str,
    expected: Expected,
    is_optional: bool,
}

/// In the order in which the issues are told. `requestId` and `targetClientId` are picked by their places in it.
const RULES: [Rule; 7] = [
    Rule { name: "requestId", expected: Expected::String, is_optional: false },
    Rule { name: "connectionId", expected: Expected::String, is_optional: true },
    Rule { name: "encryptedPayload", expected: Expected::String, is_optional: false },
    Rule { name: "targetClientId", expected: Expected::String, is_optional: false },
    Rule { name: "startAt", expected: Expected::Number, is_optional: true },
    Rule { name: "method", expected: Expected::OneOf(&METHODS), is_optional: false },
    Rule { name: "source", expected: Expected::OneOf(&["wallet", "extension"]), is_optional: true },
];

const METHODS: [&str; 4] = ["offer", "answer", "iceCandidate", "iceCandidates"];

/// The issues of all fields with commas between them; empty if there are none.
fn issues(envelope: &Envelope<'_>, fields: &[Option<&Field>; RULES.len()]) -> String {
    let mut issues = String::new();
    for (rule, &field) in RULES.iter().zip(fields) {
        if !rule.is_kept(envelope, field) {
            if !issues.is_empty() {
                issues.push(',');
            }
            issues.push_str(&rule.issue(field));
        }
    }
    issues
}

impl Rule {
    fn is_kept(&self, envelope: &Envelope<'_>, field: Option<&Field>) -> bool {
        let Some(field) = field else { return self.is_optional };
        match self.expected {
            Expected::String => field.kind == Kind::String,
            Expected::Number => field.kind == Kind::Number,
            Expected::OneOf(literals) => envelope
                .text(field)
                .is_some_and(|text| literals.iter().any(|literal| literal.as_bytes() == &*text)),
        }
    }

    /// The issue of a field that breaks the rule.
    fn issue(&self, field: Option<&Field>) -> String {
        let received = field.map_or("undefined", |field| name_of(field.kind));
        match self.expected {
            Expected::String => wrong_type("string", received, Some(self.name)),
            Expected::Number => wrong_type("number", received, Some(self.name)),
            Expected::OneOf(literals) => no_such_literal(literals, self.name),
        }
    }
}

/// zod's issue for a value of the wrong type, or one that is missing (`undefined`). No `name`: the whole message.
fn wrong_type(expected: &str, received: &str, name: Option<&str>) -> String {
    let path = name.map_or(String::new(), |name| format!("\"{name}\""));
    let message = match received {
        "undefined" => "Required".to_owned(),
        _ => format!("Expected {expected}, received {received}"),
    };
    format!(
        r#"{{"code":"invalid_type","expected":"{expected}","received":"{received}","path":[{path}],"message":"{message}"}}"#
    )
}

/// zod's issue for a value that is none of these literals, for whatever reason.
fn no_such_literal(literals: &[&str], name: &str) -> String {
    let errors = literals.iter().map(|literal| {
        format!(
            r#"{{"issues":[{{"code":"invalid_literal","expected":"{literal}","path":["{name}"],"message":"Invalid literal value, expected \"{literal}\""}}],"name":"ZodError"}}"#
        )
    });
    let errors = errors.collect::<Vec<_>>().join(",");
    format!(
        r#"{{"code":"invalid_union","unionErrors":[{errors}],"path":["{name}"],"message":"Invalid input"}}"#
    )
}

/// What zod calls it.
fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Null => "null",
        Kind::Boolean => "boolean",
        Kind::Number => "number",
        Kind::String => "string",
        Kind::Array => "array",
        Kind::Object => "object",
    }
}
