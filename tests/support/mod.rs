//! What the black-box tests share: the real program as a process, a well-behaved client, and one that sends any
//! bytes. Whatever is waited for, is waited for at most [`WAIT`], and the failure says what it was.
#![allow(dead_code, unused_imports, unused_macros, reason = "each test file uses its part")]

mod client;
pub(crate) mod dialects;
pub(crate) mod forwarder;
pub(crate) mod neighbour;
pub(crate) mod pipes;
mod raw;
pub(crate) mod redis;
mod server;

pub(crate) use client::{Client, Matched, matched, pair, pair_up};
pub(crate) use raw::{
    BINARY, CLOSE, CONTINUATION, End, FIN, Frame, PING, PONG, Raw, Response, TEXT, close_frame, frame,
    frame_header, get, upgrade_head,
};
pub(crate) use server::{Driver, Server, Setup, metric_in};

use std::time::{Duration, Instant};

/// The longest that any test waits for one thing.
pub(crate) const WAIT: Duration = Duration::from_secs(20);

pub(crate) const ALREADY_PAIRED: &str =
    r#"{"type":"error","code":"ALREADY_PAIRED","message":"Already paired with a partner"}"#;
pub(crate) const NOT_PAIRED: &str =
    r#"{"type":"error","code":"NOT_PAIRED","message":"Not paired with a partner"}"#;
pub(crate) const UNKNOWN_TYPE: &str =
    r#"{"type":"error","code":"UNKNOWN_TYPE","message":"Unknown message type"}"#;
pub(crate) const INVALID_FORMAT: &str =
    r#"{"type":"error","code":"INVALID_FORMAT","message":"Invalid message format"}"#;
pub(crate) const RATE_LIMIT: &str = r#"{"type":"error","code":"RATE_LIMIT","message":"Too many messages"}"#;
pub(crate) const PARTNER_LEFT: &str = r#"{"type":"partner-left"}"#;
pub(crate) const PONG_TEXT: &str = r#"{"type":"pong"}"#;

/// Makes a test on each setup out of functions that take one.
macro_rules! on_each_setup {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            use crate::support::Setup;

            #[test]
            fn io_uring_with_1_shard() {
                super::$name(Setup::IO_URING_1);
            }

            #[test]
            fn io_uring_with_4_shards() {
                super::$name(Setup::IO_URING_4);
            }

            #[test]
            fn epoll_with_1_shard() {
                super::$name(Setup::EPOLL_1);
            }

            #[test]
            fn epoll_with_4_shards() {
                super::$name(Setup::EPOLL_4);
            }
        })*
    };
}
pub(crate) use on_each_setup;

/// Makes a test on each driver out of functions that take a setup.
macro_rules! on_each_driver {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            use crate::support::Setup;

            #[test]
            fn io_uring() {
                super::$name(Setup::IO_URING_1);
            }

            #[test]
            fn epoll() {
                super::$name(Setup::EPOLL_1);
            }
        })*
    };
}
pub(crate) use on_each_driver;

/// Asks until `reached` says so.
pub(crate) fn wait_until(awaited: &str, mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < WAIT, "waited {WAIT:?} for {awaited}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether this is a v4 UUID in lower case.
pub(crate) fn is_uuid_v4(text: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            14 => byte == b'4',
            19 => b"89ab".contains(&byte),
            _ => is_hex(byte),
        })
}
