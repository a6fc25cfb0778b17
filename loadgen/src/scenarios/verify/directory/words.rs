//! What clients say, and what must come of it, to the byte.

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::super::label::{Bodies, Label};
use super::super::violation::{Violation, is_exactly, shown};
use crate::payload::Body;

/// How a client asks for its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    /// As `name`.
    Name,
    /// As `id`.
    Id,
    /// With blanks around it.
    Blanks,
}

/// Asks for a name in one of the ways that are good.
pub(super) fn login(name: &str, asking: Asking) -> String {
    match asking {
        Asking::Name => format!(r#"{{"type":"login","name":"{name}"}}"#),
        Asking::Id => format!(r#"{{"name":null,"id":"{name}","type":"login"}}"#),
        Asking::Blanks => format!(r#"{{"type":"login","name":" \t\u00a0{name}\n"}}"#),
    }
}

/// Asks for a name that nobody may have.
pub(super) fn bad_login(choice: u32) -> String {
    let name = match choice % 5 {
        0 => "42".to_owned(),
        1 => format!(r#""{}""#, "n".repeat(65)),
        2 => r#""two words""#.to_owned(),
        3 => r#"{"name":"x"}"#.to_owned(),
        _ => "null".to_owned(),
    };
    format!(r#"{{"type":"login","name":{name}}}"#)
}

/// Whether a label's message holds a `from` of the client's own, which is cut out: what then becomes of blanks and commas
/// beside it is not said to the byte.
fn is_cut(label: &Label) -> bool {
    label.sequence % 7 == 6
}

/// The client message of a label, whose key is the target: mostly as browsers write it, at times with a `from` of its own.
pub(super) fn message(bodies: &Bodies, label: &Label) -> String {
    let Body { kind, field, opaque } = bodies.of(label);
    let target = &label.key;
    if !is_cut(label) {
        return format!(r#"{{"type":"{kind}","target":"{target}","{field}":{opaque}}}"#);
    }
    match label.sequence % 3 {
        0 => format!(r#"{{"from":"somebody else","type":"{kind}","target":"{target}","{field}":{opaque}}}"#),
        1 => format!(
            "{{ \"{field}\" :{opaque},\t\"fr\\u006fm\": [\"somebody\" ], \"type\" : \"{kind}\",\"target\":\"{target}\" }}"
        ),
        _ => format!(r#"{{"type":"{kind}","target":"{target}","{field}":{opaque},"from":1,"from":2}}"#),
    }
}

/// Checks that what came is the label's message with its sender as last key.
pub(super) fn check_relay(came: &[u8], bodies: &Bodies, label: &Label, from: &str) -> Result<(), Violation> {
    let sent = message(bodies, label);
    if !is_cut(label) {
        return is_exactly(came, &format!(r#"{},"from":"{from}"}}"#, &sent[..sent.len() - 1]));
    }
    let changed = || Violation::Changed { came: shown(came) };
    let came_text = std::str::from_utf8(came).map_err(|_| changed())?;
    let (Some(came_fields), Some(mut due)) = (fields(came_text), fields(&sent)) else {
        return Err(changed());
    };
    due.retain(|(key, _)| key != "from");
    due.push(("from".to_owned(), format!(r#""{from}""#)));
    if came_fields == due { Ok(()) } else { Err(changed()) }
}

/// The fields at the top of a message, in order, with their bytes.
fn fields(message: &str) -> Option<Vec<(String, String)>> {
    struct Fields(Vec<(String, String)>);
    struct Reader;
    impl<'de> Visitor<'de> for Reader {
        type Value = Fields;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
            let mut fields = Vec::new();
            while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                fields.push((key, value.get().to_owned()));
            }
            Ok(Fields(fields))
        }
    }
    impl<'de> Deserialize<'de> for Fields {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(Reader)
        }
    }
    serde_json::from_str::<Fields>(message).ok().map(|fields| fields.0)
}

/// What a client says to everybody, by the number of its broadcasts before: every second one has a label in its reason.
pub(super) fn broadcast(label: &Label) -> String {
    match label.key_sequence % 8 {
        number if number.is_multiple_of(2) => {
            format!(r#"{{"type":"stream_stopped","target":"nobody","reason":"{label}","other":[1]}}"#)
        }
        1 => r#"{"type":"stream_started"}"#.to_owned(),
        3 => r#"{"type":"stream_stopped","reason":0}"#.to_owned(),
        5 => r#"{"type":"stream_restored","from":"somebody else"}"#.to_owned(),
        _ => r#"{"type":"page_opened","reason":"x"}"#.to_owned(),
    }
}

/// What everybody else hears of it.
pub(super) fn broadcast_heard(label: &Label, from: &str) -> String {
    match label.key_sequence % 8 {
        number if number.is_multiple_of(2) => {
            format!(r#"{{"type":"stream_stopped","from":"{from}","reason":"{label}"}}"#)
        }
        1 => format!(r#"{{"type":"stream_started","from":"{from}"}}"#),
        3 => format!(r#"{{"type":"stream_stopped","from":"{from}","reason":"manual"}}"#),
        5 => format!(r#"{{"type":"stream_restored","from":"{from}"}}"#),
        _ => format!(r#"{{"type":"page_opened","from":"{from}"}}"#),
    }
}

/// Whether this came of a broadcast, and who the server says it is from.
pub(super) fn broadcaster(came: &str) -> Option<&str> {
    let kinds = ["stream_started", "stream_stopped", "stream_restored", "page_opened"];
    let rest = came.strip_prefix(r#"{"type":""#)?;
    let rest = kinds.iter().find_map(|kind| rest.strip_prefix(kind))?;
    rest.strip_prefix(r#"","from":""#)?.split('"').next()
}

/// Who the server says a relayed message is from: its last key.
pub(super) fn relayer(came: &str) -> Option<&str> {
    let rest = came.strip_suffix(r#""}"#)?;
    rest.rsplit_once(r#","from":""#).map(|(_, from)| from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(sequence: u32) -> Label {
        Label { sender: 3, sequence, key_sequence: sequence, key: "n-4".to_owned() }
    }

    #[test]
    fn a_message_with_its_sender_behind_it_is_good_and_nothing_else() {
        let bodies = Bodies::new();
        for sequence in 0..100 {
            let label = label(sequence);
            let sent = message(&bodies, &label);
            let fields = fields(&sent).expect("an object");
            let kept: Vec<_> = fields
                .iter()
                .filter(|(key, _)| key != "from")
                .map(|(key, value)| format!(r#""{key}":{value}"#))
                .collect();
            let came = format!(r#"{{{},"from":"n-3"}}"#, kept.join(","));
            assert_eq!(check_relay(came.as_bytes(), &bodies, &label, "n-3"), Ok(()), "{came}");
            assert_eq!(relayer(&came), Some("n-3"));
            for (from, to) in [("n-3", "n-4"), ("1.50", "1.5"), (r#","from""#, r#","x":1,"from""#)] {
                let changed = came.replace(from, to);
                if changed != came {
                    assert!(check_relay(changed.as_bytes(), &bodies, &label, "n-3").is_err(), "{changed}");
                }
            }
            let first = format!(r#"{{"from":"n-3",{}}}"#, kept.join(","));
            assert!(check_relay(first.as_bytes(), &bodies, &label, "n-3").is_err(), "{first}");
        }
    }

    #[test]
    fn broadcasts_are_known() {
        for number in 0..16 {
            let heard = broadcast_heard(&label(number), "n-3");
            assert_eq!(broadcaster(&heard), Some("n-3"));
            assert_eq!(Label::find(heard.as_bytes()).is_some(), number.is_multiple_of(2));
            let _: &RawValue = serde_json::from_str(&broadcast(&label(number))).expect("JSON");
        }
        assert_eq!(broadcaster(r#"{"type":"offer","from":"x"}"#), None);
    }
}
