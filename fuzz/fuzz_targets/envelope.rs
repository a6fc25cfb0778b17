//! [`Parser::parse`] against serde_json: it takes what `&RawValue` takes and no more, but for nesting over the limit;
//! the members of an object are those of serde_json, each value to the byte; keys and strings say what an unescaper says
//! that is written anew, and where serde_json has an opinion, what that says. The parser finds its spans on a fast
//! and on a slow path, and both are ours.
#![no_main]

use libfuzzer_sys::fuzz_target;
use parlor::wire::envelope::{Envelope, Parser};
use parlor_fuzz::json::{self, kind, members, unescaped};
use serde_json::value::RawValue;

fuzz_target!(|message: &[u8]| {
    let expected = json::parse(message);
    // What the parser keeps from the message before must not show.
    let mut parser = Parser::default();
    let _ = parser.parse(&message[..message.len() / 2]);
    match (parser.parse(message), expected) {
        (Err(_), None) => {}
        (Ok(envelope), Some(raw)) => check(&envelope, message, raw),
        (found, expected) => panic!("{found:?}, but {expected:?}: {}", message.escape_ascii()),
    }
});

fn check(envelope: &Envelope<'_>, message: &[u8], raw: &RawValue) {
    assert_eq!(envelope.kind, kind(raw));
    let expected = members(raw);
    assert_eq!(envelope.fields().len(), expected.len());
    for (field, (key, value)) in envelope.fields().iter().zip(&expected) {
        assert_eq!(&message[field.value.clone()], value.get().as_bytes());
        assert!(
            message[field.member.clone()].starts_with(key.get().as_bytes()),
            "a member begins with its key"
        );
        assert_eq!(field.member.end, field.value.end, "and ends with its value");
        assert_eq!(field.kind, kind(value));
        assert_eq!(envelope.text(field).as_deref(), json::text(value).as_deref());
    }
    check_keys(envelope, &expected);
}

/// The last of equal keys is found, however it is written.
fn check_keys(envelope: &Envelope<'_>, expected: &[(&RawValue, &RawValue)]) {
    let keys: Vec<_> = expected.iter().map(|(key, _)| unescaped(key.get())).collect();
    // Each is compared with all others: the first ones do.
    for key in keys.iter().take(20).filter_map(|key| std::str::from_utf8(key).ok()) {
        let last = keys.iter().rposition(|other| **other == *key.as_bytes()).map(|at| &envelope.fields()[at]);
        assert_eq!(envelope.field(key), last);
        assert_eq!(envelope.text_of(key), last.and_then(|field| envelope.text(field)));
    }
}
