//! The envelope against `serde_json::value::RawValue`, and by hand where that has no opinion.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Members by their key, the last of equal ones: what serde_json says.
fn by_serde(message: &[u8]) -> Option<BTreeMap<String, String>> {
    let members: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(message).ok()?;
    Some(members.into_iter().map(|(key, value)| (key, value.get().to_owned())).collect())
}

/// The same from an envelope.
fn by_envelope(message: &[u8]) -> Option<BTreeMap<String, String>> {
    let mut parser = Parser::default();
    let envelope = parser.parse(message).ok().filter(|envelope| envelope.kind == Kind::Object)?;
    let members = envelope.fields().iter().map(|field| {
        let key = String::from_utf8(unescaped(&message[field.key.clone()]).to_vec()).expect("UTF-8");
        let value = String::from_utf8(message[field.value.clone()].to_vec()).expect("UTF-8");
        assert_eq!(message[field.member.start], b'"', "a member begins with its key");
        assert_eq!(field.member.end, field.value.end, "and ends with its value");
        (key, value)
    });
    Some(members.collect())
}

fn blanks() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just(String::new()), 1 => "[ \t\r\n]{1,3}"]
}

/// A string literal: plain characters, short escapes, `\u` escapes, surrogate pairs.
fn literal() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => "[a-z:,{}\\[\\] ]{1,6}",
        1 => "\\PC".prop_filter("needs an escape", |c| c != "\"" && c != "\\"),
        2 => prop_oneof![r#"\\["\\/bfnrt]"#, r"\\u00[0-9a-fA-F]{2}", r"\\ud83d\\ude0[0-9]"],
    ];
    proptest::collection::vec(piece, 0..5).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof!["-?(0|[1-9][0-9]{0,8})", "-?(0|[1-9][0-9]{0,3})\\.[0-9]{1,5}", "[1-9][eE][+-]?[0-9]{1,2}"]
}

/// Numbers and strings that simd-json refuses.
fn odd() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("1e400".to_owned()),
        Just("-123456789012345678901234567890".to_owned()),
        Just(r#""cut \ud83d emoji""#.to_owned()),
        Just(r#""\udc00""#.to_owned()),
    ]
}

fn object(key: BoxedStrategy<String>, value: BoxedStrategy<String>) -> BoxedStrategy<String> {
    let member = (blanks(), key, blanks(), blanks(), value, blanks())
        .prop_map(|(a, key, b, c, value, d)| format!("{a}{key}{b}:{c}{value}{d}"));
    (proptest::collection::vec(member, 0..6), blanks())
        .prop_map(|(members, blank)| match members.is_empty() {
            true => format!("{{{blank}}}"),
            false => format!("{{{}}}", members.join(",")),
        })
        .boxed()
}

fn value(odd_ones: bool) -> BoxedStrategy<String> {
    let plain = prop_oneof![literal(), number(), Just("true".to_owned()), Just("null".to_owned())].boxed();
    let leaf = if odd_ones { prop_oneof![3 => plain, 1 => odd()].boxed() } else { plain };
    leaf.prop_recursive(4, 24, 5, |inner| {
        let array = (proptest::collection::vec(inner.clone(), 0..4), blanks())
            .prop_map(|(items, blank)| format!("[{blank}{}{blank}]", items.join(&format!("{blank},"))));
        prop_oneof![array, object(literal().boxed(), inner.boxed())]
    })
    .boxed()
}

fn message(odd_ones: bool) -> impl Strategy<Value = String> {
    (blanks(), object(literal().boxed(), value(odd_ones)), blanks())
        .prop_map(|(a, object, b)| a + &object + &b)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn spans_equal_raw_values(message in message(false)) {
        let expected = by_serde(message.as_bytes());
        prop_assert!(expected.is_some(), "the generator makes JSON");
        prop_assert_eq!(by_envelope(message.as_bytes()), expected);
    }

    #[test]
    fn spans_equal_raw_values_on_the_slow_path(message in message(true)) {
        let expected = by_serde(message.as_bytes());
        prop_assume!(expected.is_some(), "serde_json refuses keys with lone surrogates");
        prop_assert_eq!(by_envelope(message.as_bytes()), expected);
    }

    #[test]
    fn both_paths_agree(message in message(false)) {
        let (mut fast, mut slow) = (Parser::default(), Parser::default());
        let kind = fast.parse_fast(message.as_bytes());
        prop_assert_eq!(slow.parse_slowly(message.as_bytes()).ok(), kind);
        prop_assert_eq!(fast.fields.len(), slow.fields.len());
        for (one, other) in fast.fields.iter().zip(&slow.fields) {
            prop_assert_eq!(one, other);
        }
    }

    /// A message with one byte changed, put in or taken out: what serde_json takes is taken, what it refuses is
    /// refused.
    #[test]
    fn a_broken_message_is_judged_as_serde_json_judges_it(
        message in message(false),
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\ue0-1.tn \x00\x0c\xef\xbb\xbf"[..])],
        how in 0..3,
    ) {
        let mut bytes = message.into_bytes();
        let at = at.index(bytes.len());
        match how {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            _ => { bytes.remove(at); }
        }
        let is_json = serde_json::from_slice::<&RawValue>(&bytes).is_ok();
        prop_assert_eq!(Parser::default().parse(&bytes).is_ok(), is_json, "{}", bytes.escape_ascii());
    }
}

#[test]
fn what_only_json_parse_takes_is_taken() {
    for (message, value) in [
        (r#"{"v":"\ud800"}"#, r#""\ud800""#),
        (r#"{"v":"cut \ud83d"}"#, r#""cut \ud83d""#),
        (r#"{"v":1e400}"#, "1e400"),
        (r#"{"v":-123456789012345678901234567890}"#, "-123456789012345678901234567890"),
        (r#"{"\udfff":1,"v":[1e999,"\ud800"]}"#, r#"[1e999,"\ud800"]"#),
    ] {
        let mut parser = Parser::default();
        let envelope = parser.parse(message.as_bytes()).expect(message);
        let field = envelope.field("v").expect(message);
        assert_eq!(&message[field.value.clone()], value);
    }
}

#[test]
fn the_last_of_equal_keys_counts_however_they_are_written() {
    let message = br#"{"type":"a","ty\u0070e":"b"}"#;
    let mut parser = Parser::default();
    let envelope = parser.parse(message).expect("JSON");
    assert_eq!(envelope.text_of("type"), Some(b"b"[..].into()));
    assert_eq!(envelope.fields().len(), 2);
}

#[test]
fn what_is_no_json_is_refused() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let deep_odd = |depth: usize| format!("{}1e400{}", "[".repeat(depth), "]".repeat(depth));
    for good in ["null", " 7 ", "\"\"", "[]", "{}", &deep(JSON_DEPTH_MAX), &deep_odd(JSON_DEPTH_MAX)] {
        assert!(Parser::default().parse(good.as_bytes()).is_ok(), "{good}");
    }
    for bad in [
        "",
        " ",
        "nul",
        "{",
        "}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "[1,]",
        "01",
        "1.",
        "+1",
        "\"\t\"",
        "{} x",
        "{}{}",
        "\u{feff}{}",
        "'a'",
        "{a:1}",
        "\"\\x\"",
        "NaN",
        "1e",
        "-",
        &deep(JSON_DEPTH_MAX + 1),
        &deep_odd(JSON_DEPTH_MAX + 1),
    ] {
        assert_eq!(Parser::default().parse(bad.as_bytes()).err(), Some(NotJson), "{bad}");
    }
    for bad in [&b"{\"\0\":1}"[..], b"{\"\0\":1e400}", b"{\"a\":\"\n\",\"b\":1e400}"] {
        assert_eq!(Parser::default().parse(bad).err(), Some(NotJson), "a control character in a string");
    }
    assert_eq!(Parser::default().parse(b"{\"a\":\"\xff\"}").err(), Some(NotJson));
    assert_eq!(Parser::default().parse(b"\"\xed\xa0\x80\"").err(), Some(NotJson), "a surrogate in UTF-8");
}

#[test]
fn kinds_are_told_apart() {
    let message = br#"{"a":null,"b":false,"c":-1.5e3,"d":"","e":[],"f":{"g":1}}"#;
    let mut parser = Parser::default();
    let envelope = parser.parse(message).expect("JSON");
    let kinds: Vec<Kind> = envelope.fields().iter().map(|field| field.kind).collect();
    assert_eq!(kinds, [Kind::Null, Kind::Boolean, Kind::Number, Kind::String, Kind::Array, Kind::Object]);
    assert_eq!(envelope.text_of("d"), Some(b""[..].into()));
    assert_eq!(envelope.text_of("c"), None);
    assert!(envelope.field("g").is_none(), "only the top level counts");
}

#[test]
fn texts_are_unescaped_whichever_path_was_taken() {
    for (message, text) in [
        (r#"{"t":"plain"}"#, &b"plain"[..]),
        (r#"{"t":"a\/b\n\"\\"}"#, b"a/b\n\"\\"),
        (r#"{"\u0074":"\u00e9\ud83d\ude00"}"#, "\u{e9}\u{1f600}".as_bytes()),
        (r#"{"t":"cut \ud83d"}"#, b"cut \xed\xa0\xbd"),
        (r#"{"n":1e400,"t":"a\tb"}"#, b"a\tb"),
    ] {
        let mut parser = Parser::default();
        let envelope = parser.parse(message.as_bytes()).expect(message);
        assert_eq!(envelope.text_of("t").as_deref(), Some(text), "{message}");
    }
}

#[test]
fn a_parser_is_used_again() {
    let mut parser = Parser::default();
    assert!(parser.parse(br#"{"a":1,"b":2}"#).is_ok());
    assert!(parser.parse(b"{").is_err());
    assert_eq!(parser.parse(b"7").expect("JSON").fields(), []);
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(100_000));
    assert!(parser.parse(large.as_bytes()).is_ok());
    parser.trim();
    assert!(parser.scratch.capacity() <= Parser::KEPT_BYTES);
}

#[test]
fn an_array_of_strings_is_read() {
    let mut parser = Parser::default();
    for (value, expected) in [
        ("[]", Some(vec![])),
        ("[ ]", Some(vec![])),
        (r#"["a"]"#, Some(vec!["a"])),
        (r#"[ "a" , "b\"]","\u0061" ]"#, Some(vec!["a", "b\"]", "a"])),
        (r#"["a",1]"#, None),
        (r#"[["a"]]"#, None),
        (r#"[null]"#, None),
        (r#""a""#, None),
        ("{}", None),
    ] {
        let message = format!(r#"{{"x":{value},"y":1}}"#);
        let envelope = parser.parse(message.as_bytes()).expect("JSON");
        let texts = envelope.texts(envelope.field("x").expect("there"));
        let texts = texts.as_ref().map(|texts| texts.iter().map(|text| &**text).collect::<Vec<_>>());
        let expected = expected.map(|texts| texts.into_iter().map(str::as_bytes).collect::<Vec<_>>());
        assert_eq!(texts, expected, "{value}");
    }
}
