//! Directory (protocols.md section 3), beside clients of rooms that share its URL: what named peers say and do, against a
//! model that knows each byte that they are to be sent. Nobody speaks under another's name, a message reaches its target
//! alone and is changed in nothing but its sender; each learns of the others' coming and going once.
//!
//! How an input says it: [`parlor_fuzz::play`].
#![no_main]

use libfuzzer_sys::fuzz_target;
use parlor_fuzz::models::lobby::Lobby;
use parlor_fuzz::play::{Script, play};
use parlor_fuzz::referee::door::{Behind, Door, door};

const DOORS: &[Door] = &[
    door("/", Behind::Lobby),
    door("/?source=wallet&target=extension", Behind::Lobby),
    door("/x", Behind::Refused("404")),
    door("//", Behind::Refused("404")),
];

const MESSAGES: &[&str] = &[
    r#"{"type":"login","name":"a"}"#,
    r#"{"type":"login","name":"\ufeffb "}"#,
    r#"{"name":null,"id":"c-_9","type":"login"}"#,
    r#"{"type":"login","name":"?"}"#,
    r#"{"type":"offer","target":"a","sdp":"v=0\r\n"}"#,
    r#"{"type":"offer","target":"b","from":"a","sdp":"*"}"#,
    r#" { "from" : "a" , "\u0066rom":1 , "type":"x","target":"b", "from":{"a":[",}"]} } "#,
    r#"{"type":"answer","target":"c\u002d_9","x":1.50,"y":"\ud800"}"#,
    r#"{"type":"x","target":"?"}"#,
    r#"{"type":"stream_started","target":"b"}"#,
    r#"{"type":"stream_stopped","reason":?}"#,
    r#"{"type":"page_opened"}"#,
    r#"{"type":"ping"}"#,
    r#"{"type":"stream_restored","from":"z"}"#,
    r#"{"type":"create"}"#,
    r#"{"type":?}"#,
];

fuzz_target!(|input: &[u8]| play(input, Script { doors: DOORS, messages: MESSAGES }, Lobby::default()));
