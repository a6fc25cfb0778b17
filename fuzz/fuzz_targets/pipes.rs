//! Pipes (protocols.md section 5): ends that come, speak, stop reading and go, with frames and with raw bytes, against a
//! model of who is joined with whom. What comes out is what went in, in order: never of another pipe, all of it after
//! an orderly end, well-formed and with nothing but fragments to tell it from what was sent; a slow reader makes the
//! writer wait and nothing else.
//!
//! How an input says it: [`parlor_fuzz::play`].
#![no_main]

use libfuzzer_sys::fuzz_target;
use parlor_fuzz::models::documents::Documents;
use parlor_fuzz::play::{Script, play};
use parlor_fuzz::referee::door::{Behind, Door, door};

const DOORS: &[Door] = &[
    door("/connection/a/b/d", Behind::Pipe(["a", "b", "d"])),
    door("/connect/b/a/d/", Behind::Pipe(["b", "a", "d"])),
    door("/connection/a/b/e", Behind::Pipe(["a", "b", "e"])),
    door("/Connection/b/a/%65", Behind::Pipe(["b", "a", "e"])),
    door("/connection/a/b/d?x", Behind::RawPipe(["a", "b", "d"])),
    door("/connection/b/a/d?x", Behind::RawPipe(["b", "a", "d"])),
    door("/connection/a/a/d", Behind::Pipe(["a", "a", "d"])),
    door("/connection/a/a/d?x", Behind::RawPipe(["a", "a", "d"])),
    door("/connection/b?document=d&local=a", Behind::Pipe(["a", "b", "d"])),
    door("/connection/a?local=b&document=%64", Behind::Pipe(["b", "a", "d"])),
    door("/connection/a", Behind::ShortPipe("a")),
    door("/connection/a//d", Behind::Refused("404")),
    door("/connection/a/b", Behind::Refused("404")),
    door("/connection/a/b/d/e", Behind::Refused("404")),
    door("/connection/a/b/%", Behind::Refused("400")),
];

const MESSAGES: &[&str] = &[
    "text",
    "*",
    "?",
    "\u{e9}\u{20ac}\u{1f600}",
    "",
    r#"{"type":"Join","join":["d"]}"#,
    "?*?",
    "GET / HTTP/1.1\r\n\r\n",
];

fuzz_target!(|input: &[u8]| play(input, Script { doors: DOORS, messages: MESSAGES }, Documents::default()));
