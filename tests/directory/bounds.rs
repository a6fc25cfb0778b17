//! The rate and the sizes of the directory: protocols.md sections 3 and 0, rate and size.

use std::time::{Duration, Instant};

use super::{
    NOT_LOGGED_IN, PING_TEXT, Party, RATE, connected, disconnected, login, login_success, open, raw_login,
};
use crate::support::dialects::{Peer, within};
use crate::support::{
    BINARY, CONTINUATION, FIN, Frame, PING, PONG, Raw, Server, Setup, TEXT, frame, frame_header,
    on_each_driver,
};

const RATE_LIMIT_EXCEEDED: &str = r#"{"type":"error","error":"rate_limit_exceeded"}"#;
const WINDOW: Duration = Duration::from_secs(1);
const MAX: usize = 65_536;

on_each_driver!(
    fifty_messages_a_second_pass,
    what_is_over_the_rate_is_dropped,
    the_rate_holds_before_the_login,
    messages_have_a_largest_size,
    messages_have_a_largest_number_of_frames,
    the_size_holds_before_the_login,
);

fn is_pong(text: &str) -> bool {
    text.starts_with(r#"{"type":"pong","#)
}

/// Logs in and says all that at once. Returns the client, what it heard behind its login, and how long that took.
fn say_at_once<'a>(
    server: &Server,
    texts: impl IntoIterator<Item = &'a str>,
) -> (Peer, Vec<String>, Duration) {
    let mut peer = open(server);
    peer.name = "fast".into();
    let start = Instant::now();
    peer.send(&login("fast"));
    peer.send_at_once(texts);
    let mut heard = peer.drain();
    assert!(heard.remove(0).starts_with(r#"{"type":"login_success","id":"fast","#));
    (peer, heard, start.elapsed())
}

fn fifty_messages_a_second_pass(setup: Setup) {
    let (server, mut peer, heard) = within(WINDOW, || {
        let server = Server::start(setup, &[("MAX_MSG_PER_SECOND", "1")]);
        // With the login 53; what is no JSON and what makes no sense counts, too.
        let texts = [PING_TEXT, "no JSON", r#"{"type":"x"}"#, PING_TEXT].repeat(13);
        let (peer, heard, took) = say_at_once(&server, texts);
        ((server, peer, heard), took)
    });
    let (pongs, rest) = heard.split_at(25);
    assert!(pongs.iter().all(|text| is_pong(text)), "49 pass behind the login: {heard:?}");
    assert_eq!(rest, [RATE_LIMIT_EXCEEDED; 3]);
    // Others have a rate of their own.
    open(&server).ask(PING_TEXT, NOT_LOGGED_IN);
    // The next window starts with the first message after this one, and has room for as many again.
    let answers = within(WINDOW, || {
        std::thread::sleep(WINDOW + Duration::from_millis(50));
        let start = Instant::now();
        peer.send_at_once([PING_TEXT; RATE + 5]);
        (peer.drain(), start.elapsed())
    });
    let (pongs, rest) = answers.split_at(RATE);
    assert!(pongs.iter().all(|text| is_pong(text)), "{answers:?}");
    assert_eq!(rest, [RATE_LIMIT_EXCEEDED; 5]);
}

fn what_is_over_the_rate_is_dropped(setup: Setup) {
    let late = [
        r#"{"type":"page_opened"}"#,
        r#"{"type":"t","target":"watcher"}"#,
        r#"{"type":"t","target":"nobody"}"#,
        "no JSON",
        r#"{"type":"login","name":"x"}"#,
    ];
    let (server, mut watcher, peer, heard) = within(WINDOW, || {
        let server = Server::start(setup, &[]);
        let watcher = Party::new(&server, &["watcher"]).members.remove(0);
        let (mut peer, mut heard, took) = say_at_once(&server, [PING_TEXT; RATE - 1].into_iter().chain(late));
        // Control frames never count.
        for _ in 0..100 {
            heard.extend(peer.drain());
        }
        ((server, watcher, peer, heard), took)
    });
    assert!(heard[..RATE - 1].iter().all(|text| is_pong(text)), "{heard:?}");
    assert_eq!(heard[RATE - 1..], [RATE_LIMIT_EXCEEDED; 5]);
    watcher.expect(&connected("fast"));
    peer.close();
    watcher.expect(&disconnected("fast"));
    watcher.expect_nothing();
    drop(server);
}

fn the_rate_holds_before_the_login(setup: Setup) {
    let (server, mut watcher, mut peer, heard) = within(WINDOW, || {
        let server = Server::start(setup, &[]);
        let watcher = Party::new(&server, &["watcher"]).members.remove(0);
        let mut peer = open(&server);
        let start = Instant::now();
        peer.send_at_once([r#"{"type":"x"}"#, "no JSON"].repeat(RATE / 2));
        peer.send_at_once([&*login("late"), "no JSON", PING_TEXT]);
        let heard = peer.drain();
        ((server, watcher, peer, heard), start.elapsed())
    });
    assert_eq!(heard[..RATE / 2], [NOT_LOGGED_IN; RATE / 2]);
    assert_eq!(heard[RATE / 2..], [RATE_LIMIT_EXCEEDED; 3]);
    watcher.expect_nothing();
    std::thread::sleep(WINDOW + Duration::from_millis(50));
    peer.ask(&login("late"), &login_success("late", &["watcher", "late"]));
    watcher.expect(&connected("late"));
    drop(server);
}

/// A message to `target`, this long.
fn sized(target: &str, len: usize) -> String {
    let start = format!(r#"{{"type":"t","target":"{target}","x":""#);
    format!("{start}{}\"}}", "x".repeat(len - start.len() - 2))
}

/// Ways to send a message.
fn forms(text: &str) -> [Vec<u8>; 4] {
    let bytes = text.as_bytes();
    let (start, end) = bytes.split_at(40_000);
    let thirds = [
        frame(BINARY & !FIN, start),
        frame(PING, b""),
        frame(CONTINUATION, b""),
        frame(CONTINUATION, &end[..10_000]),
        frame(CONTINUATION | FIN, &end[10_000..]),
    ];
    let all_but_one = bytes.split_at(bytes.len() - 1);
    [
        frame(TEXT, bytes),
        frame(BINARY, bytes),
        thirds.concat(),
        [frame(TEXT & !FIN, all_but_one.0), frame(CONTINUATION | FIN, all_but_one.1)].concat(),
    ]
}

fn messages_have_a_largest_size(setup: Setup) {
    // The common limit is another one.
    for common in ["1048576", "2000000"] {
        let server = Server::start(setup, &[("MAX_MESSAGE_BYTES", common)]);
        let mut party = Party::new(&server, &["b", "c"]);
        let (fits, too_long) = (sized("b", MAX), sized("b", MAX + 1));
        assert_eq!((fits.len(), too_long.len()), (MAX, MAX + 1));
        for (fits, too_long) in forms(&fits).iter().zip(forms(&too_long)) {
            let mut raw = raw_login(&server, "raw");
            party.expect_from("", &connected("raw"));
            raw.send(fits);
            party.member("b").expect(&format!("{},\"from\":\"raw\"}}", &sized("b", MAX)[..MAX - 1]));
            skip_pong(&mut raw, fits);
            raw.send(&too_long);
            skip_pong(&mut raw, &too_long);
            raw.expect_close(1009);
            party.expect_from("", &disconnected("raw"));
            raw.finish(1009);
        }
        // The header alone says enough.
        let mut raw = raw_login(&server, "raw");
        raw.send(&frame_header(TEXT, MAX as u64 + 1));
        raw.expect_close(1009);
        party.expect_from("", &connected("raw"));
        party.expect_from("", &disconnected("raw"));
        party.expect_nothing();
    }
}

fn messages_have_a_largest_number_of_frames(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut raw = raw_login(&server, "raw");
    // Empty frames count.
    let message = |frames: usize| {
        let open = frame(TEXT & !FIN, b"");
        let text = frame(CONTINUATION | FIN, br#"{"type":"t","target":"raw"}"#);
        [open, frame(CONTINUATION, b"").repeat(frames - 2), text].concat()
    };
    raw.send(&message(1_024));
    raw.expect(r#"{"type":"t","target":"raw","from":"raw"}"#);
    raw.send(&message(1_025));
    raw.expect_close(1009);
    raw.finish(1009);
}

/// Takes the answer to a ping if there is one in what was sent.
fn skip_pong(raw: &mut Raw, sent: &[u8]) {
    if sent[0] == BINARY & !FIN {
        assert_eq!(raw.frame(), Frame { first: PONG, payload: Vec::new() });
    }
}

fn the_size_holds_before_the_login(setup: Setup) {
    let server = Server::start(setup, &[]);
    let (fits, too_long) = (sized("b", MAX), sized("b", MAX + 1));
    for (fits, too_long) in forms(&fits).iter().zip(forms(&too_long)) {
        let mut raw = Raw::open(&server, "/");
        raw.send(fits);
        skip_pong(&mut raw, fits);
        raw.expect(NOT_LOGGED_IN);
        raw.send(&too_long);
        skip_pong(&mut raw, &too_long);
        raw.expect_close(1009);
        raw.finish(1009);
    }
    // A login and the first word of a room are messages like others.
    for (word, answer) in [
        ("login", r#"{"type":"login_success","id":"b","clients":["b"]}"#),
        ("join", r#"{"type":"error","message":"Room not found"}"#),
    ] {
        let text = |len: usize| {
            let start = format!(r#"{{"type":"{word}","name":"b","x":""#);
            format!("{start}{}\"}}", "x".repeat(len - start.len() - 2))
        };
        let mut raw = Raw::open(&server, "/");
        raw.send(&frame(TEXT, text(MAX).as_bytes()));
        raw.expect(answer);
        drop(raw);
        let mut raw = Raw::open(&server, "/");
        raw.send(&frame(TEXT, text(MAX + 1).as_bytes()));
        raw.expect_close(1009);
        raw.finish(1009);
    }
}
