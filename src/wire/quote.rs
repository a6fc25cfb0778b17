//! Text as a JSON string, for the few messages that are not made of spans.

/// Appends `text` as a JSON string, quotes included, escaped as `JSON.stringify` does. `text` is what
/// [`super::envelope::Envelope::text`] gives: UTF-8, but for lone surrogates of three bytes each, which become escapes
/// again. Anything else that is not UTF-8 shows as U+FFFD.
pub fn quote(text: &[u8], out: &mut String) {
    out.push('"');
    let mut rest = text;
    while !rest.is_empty() {
        let valid_len = match std::str::from_utf8(rest) {
            Ok(valid) => valid.len(),
            Err(error) => error.valid_up_to(),
        };
        let (valid, after) = rest.split_at(valid_len);
        push_escaped(&String::from_utf8_lossy(valid), out);
        rest = push_invalid(after, out);
    }
    out.push('"');
}

/// Whether `text` holds a lone surrogate at its start; its number.
fn surrogate(text: &[u8]) -> Option<u16> {
    match text {
        [0xed, second @ 0xa0..=0xbf, third @ 0x80..=0xbf, ..] => {
            Some(0xd000 | u16::from(second & 0x3f) << 6 | u16::from(third & 0x3f))
        }
        _ => None,
    }
}

/// Appends what is not UTF-8 at the start of `text`; returns what comes behind it.
fn push_invalid<'a>(text: &'a [u8], out: &mut String) -> &'a [u8] {
    use std::fmt::Write;
    if let Some(surrogate) = surrogate(text) {
        // Writing to a string does not fail.
        let _ = write!(out, "\\u{surrogate:04x}");
        return &text[3..];
    }
    let invalid_len = text.utf8_chunks().next().map_or(0, |chunk| chunk.invalid().len());
    if invalid_len > 0 {
        out.push(char::REPLACEMENT_CHARACTER);
    }
    &text[invalid_len..]
}

fn push_escaped(text: &str, out: &mut String) {
    let quoted = serde_json::Value::from(text).to_string();
    out.push_str(&quoted[1..quoted.len() - 1]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_as_json_stringify_does() {
        for (text, expected) in [
            (&b"a\"b\\c/\n\x01\x7f"[..], "\"a\\\"b\\\\c/\\n\\u0001\x7f\""),
            ("é😀".as_bytes(), "\"é😀\""),
            (b"\xed\xa0\x80x\xed\xbf\xbf", "\"\\ud800x\\udfff\""),
            (b"\xffx\xe2\x82", "\"\u{fffd}x\u{fffd}\""),
            (b"", "\"\""),
        ] {
            let mut quoted = String::new();
            quote(text, &mut quoted);
            assert_eq!(quoted, expected, "{}", text.escape_ascii());
        }
    }
}
