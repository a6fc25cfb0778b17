//! Introductions and the short form of a pipe's URL (protocols.md section 5): who wants which documents, against a model
//! that knows each byte that they are to be sent. Two are told of each other when they have something in common and in
//! full, nobody else is; a short form leads to the one whom one was introduced to, or nowhere.
//!
//! How an input says it: [`parlor_fuzz::play`].
#![no_main]

use libfuzzer_sys::fuzz_target;
use parlor_fuzz::models::documents::Documents;
use parlor_fuzz::play::{Script, play};
use parlor_fuzz::referee::door::{Behind, Door, door};

const DOORS: &[Door] = &[
    door("/introduction/a", Behind::Introduction("a")),
    door("/INTRODUCTION/b/", Behind::Introduction("b")),
    door("/introduction/%C3%A9%22%2F", Behind::Introduction("\u{e9}\"/")),
    door("/introduction/a?local=b", Behind::Introduction("a")),
    door("/connection/a", Behind::ShortPipe("a")),
    door("/connect/b/?local=&document=d", Behind::ShortPipe("b")),
    door("/connection/%c3%a9%22%2f", Behind::ShortPipe("\u{e9}\"/")),
    door("/connection/b?local=a&document=d", Behind::Pipe(["a", "b", "d"])),
    door("/connection/a/b/d", Behind::Pipe(["a", "b", "d"])),
    door("/connect/b/a/d", Behind::Pipe(["b", "a", "d"])),
    door("/introduction/", Behind::Refused("404")),
    door("/introduction/a/b", Behind::Refused("404")),
    door("/introduction/%ff", Behind::Refused("400")),
];

const MESSAGES: &[&str] = &[
    r#"{"type":"Join","join":["d"]}"#,
    r#"{"type":"Join","join":["d","e"]}"#,
    r#"{"join":["\u0065","f","d"],"id":"z"}"#,
    r#"{"type":"Leave","leave":["d"]}"#,
    r#"{"type":"Leave","leave":["e","f","x"],"join":["g"]}"#,
    r#"{"join":["\ud800","\ud800\udc00","d"],"leave":["d"]}"#,
    r#"{"join":["?"]}"#,
    r#"{"leave":["?"],"join":[]}"#,
    r#"{"join":["d",1]}"#,
    r#"{"join":"d","leave":["d"]}"#,
    r#"{"join":["*","d"]}"#,
    r#"["d"]"#,
    "{",
    "{}",
    r#"{"join":["x"],"join":["f"],"leave":null}"#,
    "?",
];

fuzz_target!(|input: &[u8]| play(input, Script { doors: DOORS, messages: MESSAGES }, Documents::default()));
