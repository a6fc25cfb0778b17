//! Messages and the choice that they make, for each set of dialects that may be on.

use super::*;
use crate::wire::envelope::Parser;

const BOTH: Offered = Offered { directory: true, rooms: true };
const DIRECTORY_ALONE: Offered = Offered { directory: true, rooms: false };
const ROOMS_ALONE: Offered = Offered { directory: false, rooms: true };
const NEITHER: Offered = Offered { directory: false, rooms: false };

fn choice(offered: Offered, message: &[u8]) -> Choice {
    let mut parser = Parser::default();
    let envelope = parser.parse(message);
    choose(offered, envelope.as_ref().map_err(|e| *e))
}

#[test]
fn the_first_word_decides_among_the_dialects_that_are_on() {
    use Choice::{Directory, NotLoggedIn, Rooms, Silence};
    for (message, both, directory_alone, rooms_alone) in [
        (r#"{"type":"login","name":"a"}"#, Directory, Directory, Silence),
        (r#"{"type":"login"}"#, Directory, Directory, Silence),
        (r#"{"type":"login","name":7}"#, Directory, Directory, Silence),
        (r#"{"type":"create"}"#, Rooms, NotLoggedIn, Rooms),
        (r#"{"type":"join","roomId":"1234"}"#, Rooms, NotLoggedIn, Rooms),
        (r#"{"type":"join"}"#, Rooms, NotLoggedIn, Rooms),
        (r#"{"type":"signal","payload":1}"#, Rooms, NotLoggedIn, Rooms),
        (r#" { "type" : "cre\u0061te" } "#, Rooms, NotLoggedIn, Rooms),
        (r#"{"\u0074ype":"login"}"#, Directory, Directory, Silence),
        (r#"{"type":"login","type":"create"}"#, Rooms, NotLoggedIn, Rooms),
        (r#"{"type":"create","type":"login"}"#, Directory, Directory, Silence),
        (r#"{"type":"ping"}"#, NotLoggedIn, NotLoggedIn, Silence),
        (r#"{"type":"offer","target":"a"}"#, NotLoggedIn, NotLoggedIn, Silence),
        (r#"{"type":"Login"}"#, NotLoggedIn, NotLoggedIn, Silence),
        (r#"{"type":" login"}"#, NotLoggedIn, NotLoggedIn, Silence),
        (r#"{"type":"\ud800"}"#, NotLoggedIn, NotLoggedIn, Silence),
    ] {
        assert_eq!(choice(BOTH, message.as_bytes()), both, "{message}");
        assert_eq!(choice(DIRECTORY_ALONE, message.as_bytes()), directory_alone, "{message}");
        assert_eq!(choice(ROOMS_ALONE, message.as_bytes()), rooms_alone, "{message}");
        assert_eq!(choice(NEITHER, message.as_bytes()), Silence, "{message}");
    }
}

#[test]
fn what_has_no_type_is_met_with_silence() {
    for message in [
        &b""[..],
        b"hello",
        b"{\"type\":\"login\"",
        b"\xef\xbb\xbf{\"type\":\"login\"}",
        b"{\"type\":\"login\",\"x\":\"\xff\"}",
        b"null",
        b"7",
        b"\"login\"",
        b"[\"type\",\"login\"]",
        b"[{\"type\":\"login\"}]",
        b"{}",
        b"{\"type\":\"\"}",
        b"{\"type\":null}",
        b"{\"type\":7}",
        b"{\"type\":[\"login\"]}",
        b"{\"type\":\"login\",\"type\":1}",
        b"{\"x\":{\"type\":\"login\"}}",
    ] {
        for offered in [BOTH, DIRECTORY_ALONE, ROOMS_ALONE, NEITHER] {
            assert_eq!(choice(offered, message), Choice::Silence, "{}", message.escape_ascii());
        }
    }
}
