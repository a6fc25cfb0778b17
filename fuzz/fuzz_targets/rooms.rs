//! Rooms (protocols.md section 4), beside clients of the directory that share their URL: who creates, joins, says and
//! leaves what, against a model that knows each byte that they are to be sent. What is said in a room reaches its members
//! alone, under the sender's id and as the bytes that came in; rooms expire when they must, and who says too much waits
//! and loses nothing.
//!
//! How an input says it: [`parlor_fuzz::play`].
#![no_main]

use libfuzzer_sys::fuzz_target;
use parlor_fuzz::models::lobby::Lobby;
use parlor_fuzz::play::{Script, play};
use parlor_fuzz::referee::door::{Behind, Door, door};

const DOORS: &[Door] =
    &[door("/", Behind::Lobby), door("/", Behind::Lobby), door("/%", Behind::Refused("400"))];

const MESSAGES: &[&str] = &[
    r#"{"type":"create"}"#,
    r##"{"type":"join","roomId":"#"}"##,
    r##"{"type":"join","x":"1000","\u0072oomId":"#"}"##,
    r#"{"type":"join","roomId":"?"}"#,
    r#"{"type":"signal","payload":1.50}"#,
    r#"{"type":"signal","payload":"*"}"#,
    r##"{"type":"signal","payload":{"x":"\ud800"},"senderId":"@","roomId":"#"}"##,
    r#"{"type":"signal","payload":"a","payload": [ null ] ,"\u0070ayload":?}"#,
    r#"{"type":"signal"}"#,
    r##"{"type":"join","roomId":#}"##,
    r#"{"type":"login","name":"?"}"#,
    r#"{"type":"what"}"#,
    "null",
    "{",
    r#"{"type":"signal","payload":?}"#,
    "?",
];

fuzz_target!(|input: &[u8]| play(input, Script { doors: DOORS, messages: MESSAGES }, Lobby::default()));
