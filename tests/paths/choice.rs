//! `/` before and after its dialect is chosen: protocols.md section 0, `/` and `PROTOCOLS`.

use super::{CREATE, NOT_LOGGED_IN, PING_TEXT, ROOM_NOT_FOUND, login};
use crate::support::dialects::{Peer, json_or_not};
use crate::support::{Server, Setup, on_each_driver, on_each_setup};

on_each_setup!(
    the_first_word_that_counts_chooses,
    words_of_a_dialect_that_is_off_are_unknown,
    directory_and_rooms_do_not_hear_each_other,
);
on_each_driver!(what_is_no_json_chooses_nothing);

/// What a client on `/` speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chosen {
    Nothing,
    Directory,
    Rooms,
}
use Chosen::{Directory, Nothing, Rooms};

/// A first message, the start of its answer if there is one, and what the client speaks from then on.
const FIRST: &[(&str, Option<&str>, Chosen)] = &[
    (r#"{"type":"create"}"#, Some(r#"{"type":"room_created","#), Rooms),
    (r#"{ "t\u0079pe" : "cr\u0065ate" }"#, Some(r#"{"type":"room_created","#), Rooms),
    (r#"{"type":"login","type":"create","name":"x"}"#, Some(r#"{"type":"room_created","#), Rooms),
    // Also when it is refused.
    (r#"{"type":"join","roomId":"0000"}"#, Some(ROOM_NOT_FOUND), Rooms),
    (r#"{"type":"join","roomId":5}"#, Some(ROOM_NOT_FOUND), Rooms),
    (r#"{"type":"join"}"#, Some(ROOM_NOT_FOUND), Rooms),
    (r#"{"type":"signal","payload":1}"#, None, Rooms),
    (r#"{"type":"signal"}"#, None, Rooms),
    (r#"{"type":"signal","target":"x"}"#, None, Rooms),
    (r#"{"type":"login","name":"first"}"#, Some(r#"{"type":"login_success","#), Directory),
    (r#"{"name":"first","type":"create","type":"login"}"#, Some(r#"{"type":"login_success","#), Directory),
    // No string type: silence.
    ("", None, Nothing),
    (" ", None, Nothing),
    ("hello", None, Nothing),
    ("null", None, Nothing),
    ("5", None, Nothing),
    ("true", None, Nothing),
    ("\"create\"", None, Nothing),
    ("[]", None, Nothing),
    (r#"[{"type":"create"}]"#, None, Nothing),
    (r#"["type","create"]"#, None, Nothing),
    ("{}", None, Nothing),
    (r#"{"type":null}"#, None, Nothing),
    (r#"{"type":5}"#, None, Nothing),
    (r#"{"type":true}"#, None, Nothing),
    (r#"{"type":["create"]}"#, None, Nothing),
    (r#"{"type":{"type":"create"}}"#, None, Nothing),
    (r#"{"type":"create","type":null}"#, None, Nothing),
    (r#"{"Type":"create"}"#, None, Nothing),
    (r#"{"x":{"type":"create"}}"#, None, Nothing),
    (r#"{"type":"create"}}"#, None, Nothing),
    ("\u{feff}{\"type\":\"create\"}", None, Nothing),
    // Another type.
    (r#"{"type":"ping"}"#, Some(NOT_LOGGED_IN), Nothing),
    (r#"{"type":"Create"}"#, Some(NOT_LOGGED_IN), Nothing),
    (r#"{"type":"create "}"#, Some(NOT_LOGGED_IN), Nothing),
    (r#"{"type":"create\u0000"}"#, Some(NOT_LOGGED_IN), Nothing),
    (r#"{"type":"\ud800"}"#, Some(NOT_LOGGED_IN), Nothing),
    (r#"{"type":"LOGIN","name":"x"}"#, Some(NOT_LOGGED_IN), Nothing),
    (r#"{"type":"stream_started"}"#, Some(NOT_LOGGED_IN), Nothing),
    (r#"{"type":"offer","target":"x"}"#, Some(NOT_LOGGED_IN), Nothing),
    (r#"{"type":"available"}"#, Some(NOT_LOGGED_IN), Nothing),
    (r#"{"type":"auth"}"#, Some(NOT_LOGGED_IN), Nothing),
    (r#"{"type":"Join","join":["x"]}"#, Some(NOT_LOGGED_IN), Nothing),
];

/// What a client speaks shows by what it hears of a ping, and whether a login works.
fn expect_chosen(peer: &mut Peer, chosen: Chosen) {
    match chosen {
        Nothing => peer.ask(PING_TEXT, NOT_LOGGED_IN),
        Rooms => {
            peer.tell(PING_TEXT);
            // A login is an unknown type there.
            peer.tell(&login("too-late"));
            peer.ask(r#"{"type":"join","roomId":"0000"}"#, ROOM_NOT_FOUND);
            peer.tell(&login("no name"));
            peer.send(CREATE);
            assert!(peer.next("room_created").starts_with(r#"{"type":"room_created","#));
        }
        Directory => {
            // Words of rooms are messages like any other there.
            for word in ["create", "join", "signal"] {
                peer.tell(&format!(r#"{{"type":"{word}","roomId":"0000","payload":1}}"#));
                peer.ask(
                    &format!(r#"{{"type":"{word}","target":"x"}}"#),
                    r#"{"type":"error","error":"target_not_found","target":"x"}"#,
                );
            }
            peer.send(PING_TEXT);
            assert!(peer.next("pong").starts_with(r#"{"type":"pong","timestamp":"#));
        }
    }
}

fn say(peer: &mut Peer, text: &str, answer: Option<&str>, in_binary: bool) {
    if in_binary {
        peer.send_binary(text.as_bytes());
    } else {
        peer.send(text);
    }
    let answers = peer.drain();
    let is_right = match answer {
        None => answers.is_empty(),
        Some(start) => answers.len() == 1 && answers[0].starts_with(start),
    };
    assert!(is_right, "{text:?} should be answered with {answer:?} and not {answers:?}");
}

fn the_first_word_that_counts_chooses(setup: Setup) {
    let server = Server::start(setup, &[]);
    for in_binary in [false, true] {
        for (text, answer, chosen) in FIRST {
            let mut peer = Peer::open(&server, "/");
            peer.name = format!("who said {text:?}");
            say(&mut peer, text, *answer, in_binary);
            expect_chosen(&mut peer, *chosen);
            peer.close();
        }
    }
    // All that chooses nothing, and then a choice of each kind.
    for (word, chosen) in [(login("late"), Directory), (CREATE.to_owned(), Rooms)] {
        let mut peer = Peer::open(&server, "/");
        for (text, answer, _) in FIRST.iter().filter(|(.., chosen)| *chosen == Nothing) {
            say(&mut peer, text, *answer, false);
        }
        peer.send(&word);
        let answer = peer.next("the answer to a choice");
        assert!(
            answer.starts_with(r#"{"type":"login_success""#)
                || answer.starts_with(r#"{"type":"room_created""#)
        );
        expect_chosen(&mut peer, chosen);
        peer.close();
    }
    // A login that is refused closes.
    let mut peer = Peer::open(&server, "/");
    peer.send_at_once([&*login("no name"), CREATE]);
    let before = peer.next_until_close(4001, "Invalid client name");
    assert_eq!(before, [r#"{"type":"error","error":"invalid_name"}"#]);
}

fn what_is_no_json_chooses_nothing(setup: Setup) {
    let server = Server::start(setup, &[]);
    for (text, is_json) in json_or_not(r#""type":"create""#) {
        let mut peer = Peer::open(&server, "/");
        peer.send(&text);
        let answers = peer.drain();
        assert_eq!(answers.len(), usize::from(is_json), "{text:.200?}: {answers:?}");
        expect_chosen(&mut peer, if is_json { Rooms } else { Nothing });
        peer.close();
    }
}

fn words_of_a_dialect_that_is_off_are_unknown(setup: Setup) {
    // Without rooms.
    let server = Server::start(setup, &[("PROTOCOLS", "directory")]);
    let mut peer = Peer::open(&server, "/");
    for word in [CREATE, r#"{"type":"join","roomId":"1234"}"#, r#"{"type":"signal","payload":1}"#] {
        peer.ask(word, NOT_LOGGED_IN);
    }
    peer.tell("no JSON");
    peer.ask(&login("a"), r#"{"type":"login_success","id":"a","clients":["a"]}"#);
    expect_chosen(&mut peer, Directory);
    // Without the directory: who is to say that somebody is not logged in?
    let server = Server::start(setup, &[("PROTOCOLS", "rooms,pairing")]);
    let mut peer = Peer::open(&server, "/");
    for (text, ..) in FIRST.iter().filter(|(.., chosen)| *chosen != Rooms) {
        peer.tell(text);
    }
    peer.tell(&login("no name"));
    peer.send(CREATE);
    assert!(peer.next("room_created").starts_with(r#"{"type":"room_created","#));
    expect_chosen(&mut peer, Rooms);
}

fn directory_and_rooms_do_not_hear_each_other(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut member = Peer::open(&server, "/");
    member.ask(&login("member"), r#"{"type":"login_success","id":"member","clients":["member"]}"#);
    let mut guest = Peer::open(&server, "/");
    guest.send(CREATE);
    let created = guest.next("room_created");
    let room = &created[r#"{"type":"room_created","roomId":""#.len()..][..4];
    let mut silent = Peer::open(&server, "/");
    let mut second = Peer::open(&server, "/");
    second.send(&format!(r#"{{"type":"join","roomId":"{room}"}}"#));
    let joined = second.next("room_joined");
    let id = &joined[joined.len() - 38..joined.len() - 2];
    for text in [r#"{"type":"stream_started"}"#, r#"{"type":"offer","target":"member"}"#, "no JSON"] {
        second.tell(text);
    }
    second.send(r#"{"type":"signal","payload":"x"}"#);
    guest.expect(&format!(r#"{{"type":"signal","senderId":"{id}","payload":"x"}}"#));
    member.tell(r#"{"type":"page_opened"}"#);
    member.tell(&format!(r#"{{"type":"signal","roomId":"{room}","payload":1}}"#));
    member.ask(
        &format!(r#"{{"type":"signal","target":"{id}"}}"#),
        &format!(r#"{{"type":"error","error":"target_not_found","target":"{id}"}}"#),
    );
    // A newcomer is announced to members alone; and nobody is when guests go.
    let mut newcomer = Peer::open(&server, "/");
    newcomer.ask(
        &login("newcomer"),
        r#"{"type":"login_success","id":"newcomer","clients":["member","newcomer"]}"#,
    );
    member.expect(r#"{"type":"peer_connected","peer":"newcomer"}"#);
    second.close();
    newcomer.close();
    member.expect(r#"{"type":"peer_disconnected","peer":"newcomer"}"#);
    for peer in [&mut member, &mut guest, &mut silent] {
        peer.expect_nothing();
    }
}
