//! The time of rooms, how many there may be, their rate and their sizes: protocols.md sections 4 and 0, rate, size and
//! heartbeat.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{CREATE, Member, NO_RATE, ROOM_NOT_FOUND, all_talk, ids_in, join_text, open, room_of, signal};
use crate::support::dialects::open_slow;
use crate::support::{
    BINARY, CONTINUATION, FIN, Raw, Server, Setup, TEXT, WAIT, frame, on_each_driver, on_each_setup,
};

const NO_ROOMS: &str = r#"{"type":"error","message":"No rooms available"}"#;
const EXPIRED: &str = "Room expired";
const TIMEOUT: Duration = Duration::from_secs(2);
const TIMEOUT_MS: (&str, &str) = ("ROOM_TIMEOUT_MS", "2000");
/// What a busy machine may add; less than [`TIMEOUT`].
const SLACK: Duration = Duration::from_millis(1_400);

on_each_setup!(a_room_expires_whatever_is_said_in_it);
on_each_driver!(
    each_join_restarts_the_time,
    who_has_moved_out_is_not_closed,
    an_empty_room_expires,
    over_the_rate_reading_stops_and_nothing_is_lost,
    two_hundred_messages_a_second_pass,
    who_is_not_read_from_is_closed_with_its_room,
    the_heartbeat_rests_while_reading_stops,
    messages_have_the_common_largest_size,
    who_reads_too_slowly_is_closed_alone,
);

// Time.

/// Waits until the room of these has expired. Returns when, measured from `start`.
fn expect_expiry(members: Vec<Member>, start: Instant) -> Duration {
    let mut expired = Duration::ZERO;
    for mut member in members {
        member.peer.expect_close(1000, EXPIRED);
        expired = start.elapsed();
    }
    expired
}

fn a_room_expires_whatever_is_said_in_it(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE, TIMEOUT_MS]);
    let start = Instant::now();
    let mut room = room_of(&server, 3);
    let name = room[0].room.clone();
    let mut last_said = start.elapsed();
    while start.elapsed() < TIMEOUT - Duration::from_millis(600) {
        all_talk(&mut room);
        last_said = start.elapsed();
        std::thread::sleep(Duration::from_millis(50));
    }
    let expired = expect_expiry(room, start);
    assert!(expired >= TIMEOUT, "{expired:?} after the first was in, and the last came later");
    assert!(expired < last_said + TIMEOUT, "{expired:?}, signals do not count, the last at {last_said:?}");
    // The id is free.
    open(&server).ask(&join_text(&name), ROOM_NOT_FOUND);
    server.wait_for_metric("parlor_clients", 0);
}

fn each_join_restarts_the_time(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE, TIMEOUT_MS]);
    let mut room = room_of(&server, 1);
    let name = room[0].room.clone();
    let pause = Duration::from_millis(1_300);
    // By a newcomer, by one who is in already, by one who goes at once, and not by one who fails.
    std::thread::sleep(pause);
    room.push(Member::join(&server, &name));
    std::thread::sleep(pause);
    room[0].join_again(&name);
    std::thread::sleep(pause);
    let before_last = Instant::now();
    Member::join(&server, &name).peer.close();
    let after_last = Instant::now();
    all_talk(&mut room);
    std::thread::sleep(pause);
    room[0].peer.ask(&join_text("0000"), ROOM_NOT_FOUND);
    expect_expiry(room, before_last);
    let (longest, shortest) = (before_last.elapsed(), after_last.elapsed());
    assert!(longest >= TIMEOUT, "{longest:?} after the last join");
    assert!(shortest < TIMEOUT + pause, "{shortest:?} after the last join that did not fail");
}

fn who_has_moved_out_is_not_closed(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE, TIMEOUT_MS]);
    let mut old = room_of(&server, 3);
    let name = old[0].room.clone();
    let (mut creator, mut joiner) = (old.remove(0), old.remove(0));
    std::thread::sleep(Duration::from_millis(1_000));
    let moved = Instant::now();
    creator.create_again();
    joiner.join_again(&creator.room);
    let mut new = vec![creator, joiner];
    old.iter_mut().for_each(|member| member.peer.expect_nothing());
    // The old room expires with whoever is left in it.
    expect_expiry(old, moved);
    new[0].peer.ask(&join_text(&name), ROOM_NOT_FOUND);
    all_talk(&mut new);
    assert!(expect_expiry(new, moved) >= TIMEOUT, "the new room has its own time");
}

fn an_empty_room_expires(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE, ("ROOM_TIMEOUT_MS", "300")]);
    let host = Member::create(&server);
    let name = host.room.clone();
    host.peer.close();
    // Nobody is there to hear of it, and to join would restart the time.
    std::thread::sleep(Duration::from_millis(300) + SLACK);
    open(&server).ask(&join_text(&name), ROOM_NOT_FOUND);
    // One who is closed can come back.
    let host = Member::create(&server);
    expect_expiry(vec![host], Instant::now());
    Member::create(&server);
}

/// Some twelve seconds: all rooms at once, and all of them expire.
#[test]
fn there_are_nine_thousand_rooms() {
    const ROOMS: usize = 9_000;
    let server = Server::start(Setup::IO_URING_1, &[NO_RATE, ("ROOM_TIMEOUT_MS", "10000")]);
    let mut host = Member::create(&server);
    let guest = Member::join(&server, &host.room);
    let mut rooms = BTreeSet::from([host.room.clone()]);
    while rooms.len() < ROOMS {
        let count = (ROOMS - rooms.len()).min(500);
        host.peer.send_at_once(std::iter::repeat_n(CREATE, count));
        for _ in 0..count {
            let (room, id) = ids_in(&host.peer.next("room_created"), "room_created");
            assert_eq!(id, host.id);
            assert!(rooms.insert(room.clone()), "{room} is alive already");
            host.room = room;
        }
    }
    assert!(
        rooms.iter().map(String::as_str).eq((1_000..10_000).map(|room| room.to_string()).collect::<Vec<_>>())
    );
    // Who is refused stays where it is, in a room or in none.
    host.peer.ask(CREATE, NO_ROOMS);
    host.peer.ask(r#"{"type":"create","roomId":"0000"}"#, NO_ROOMS);
    let mut outside = open(&server);
    outside.ask(CREATE, NO_ROOMS);
    outside.tell(r#"{"type":"signal","payload":1}"#);
    let late = Member::join(&server, &host.room);
    let mut room = vec![host, late];
    all_talk(&mut room);
    // All that were created before are gone with the last one.
    expect_expiry(vec![guest], Instant::now());
    expect_expiry(room, Instant::now());
    outside.send(CREATE);
    ids_in(&outside.next("room_created"), "room_created");
}

// Rate.

/// `MAX_MSG_PER_SECOND` × 5 messages in a second.
const RATE: usize = 10;

fn over_the_rate_reading_stops_and_nothing_is_lost(setup: Setup) {
    const SIGNALS: usize = 34;
    let server = Server::start(setup, &[("MAX_MSG_PER_SECOND", "2")]);
    let mut calm = room_of(&server, 2);
    let start = Instant::now();
    let mut fast = Member::create(&server);
    let mut listener = Member::join(&server, &fast.room);
    let texts: Vec<String> =
        (0..SIGNALS).map(|number| format!(r#"{{"type":"signal","payload":{number}}}"#)).collect();
    fast.peer.send_at_once(texts.iter().map(String::as_str));
    // Others go on.
    all_talk(&mut calm);
    for number in 0..SIGNALS {
        listener.expect(&fast.id, &number.to_string());
        // The first message was `create`, in the first window.
        let earliest = Duration::from_secs(((number + 1) / RATE) as u64);
        let came = start.elapsed();
        assert!(came >= earliest, "signal {number} came after {came:?}: more than {RATE} in a second");
    }
    assert!(start.elapsed() < Duration::from_secs(3 + 5), "reading goes on: {:?}", start.elapsed());
    fast.peer.expect_nothing();
    // A close behind them waits for its turn.
    fast.peer.send_at_once(texts.iter().map(String::as_str));
    assert_eq!(fast.peer.close(), [""; 0]);
    for number in 0..SIGNALS {
        listener.expect(&fast.id, &number.to_string());
    }
    listener.peer.expect_nothing();
    // What is no JSON and what is unknown counts, too; answers come in their order.
    let mut peer = open(&server);
    let start = Instant::now();
    peer.ask(&join_text("0000"), ROOM_NOT_FOUND);
    peer.send_at_once(["no JSON", r#"{"type":"x"}"#].repeat(RATE).into_iter().chain([CREATE]));
    ids_in(&peer.next("room_created"), "room_created");
    assert!(start.elapsed() >= Duration::from_secs(2), "the 22nd message after {:?}", start.elapsed());
}

/// Forty messages a second are the default of `MAX_MSG_PER_SECOND`.
fn two_hundred_messages_a_second_pass(setup: Setup) {
    let server = Server::start(setup, &[]);
    let start = Instant::now();
    let mut fast = Member::create(&server);
    let mut listener = Member::join(&server, &fast.room);
    let texts: Vec<String> =
        (0..250).map(|number| format!(r#"{{"type":"signal","payload":{number}}}"#)).collect();
    fast.peer.send_at_once(texts.iter().map(String::as_str));
    for number in 0..250 {
        listener.expect(&fast.id, &number.to_string());
        let is_over = number >= 199;
        assert!(!is_over || start.elapsed() >= Duration::from_secs(1), "signal {number} came too early");
        if number == 100 {
            // Others have a rate of their own, and nothing waits.
            all_talk(&mut room_of(&server, 2));
        }
    }
    fast.peer.expect_nothing();
}

fn who_is_not_read_from_is_closed_with_its_room(setup: Setup) {
    let server = Server::start(setup, &[("MAX_MSG_PER_SECOND", "1"), ("ROOM_TIMEOUT_MS", "500")]);
    let mut fast = Member::create(&server);
    let start = Instant::now();
    // To read all this would take ten seconds.
    fast.peer.send_at_once([r#"{"type":"signal"}"#; 50]);
    fast.peer.expect_close(1000, EXPIRED);
    assert!(start.elapsed() < Duration::from_secs(5), "closed after {:?}", start.elapsed());
    server.wait_for_metric("parlor_clients", 0);
}

fn the_heartbeat_rests_while_reading_stops(setup: Setup) {
    const SIGNALS: usize = 14;
    let server = Server::start(setup, &[("MAX_MSG_PER_SECOND", "1"), ("HEARTBEAT_MS", "150")]);
    // This one reads nothing, and so answers no ping; much later than two heartbeats the server still has to read.
    let mut raw = Raw::open(&server, "/");
    raw.send(&frame(TEXT, CREATE.as_bytes()));
    let created = String::from_utf8(raw.frame().payload).expect("text");
    let (room, id) = ids_in(&created, "room_created");
    let mut listener = Member::join(&server, &room);
    let bytes: Vec<u8> = (0..SIGNALS)
        .flat_map(|number| frame(TEXT, format!(r#"{{"type":"signal","payload":{number}}}"#).as_bytes()))
        .collect();
    raw.send(&bytes);
    for number in 0..SIGNALS {
        listener.expect(&id, &number.to_string());
    }
    // Then its silence counts.
    let start = Instant::now();
    while server.metric("parlor_heartbeats_missed_total") == 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "waited for the silent one to be cut");
        listener.peer.expect_nothing();
    }
}

// Size.

fn messages_have_the_common_largest_size(setup: Setup) {
    const MAX: usize = 1_048_576;
    let server = Server::start(setup, &[NO_RATE]);
    let mut listener = Member::create(&server);
    let text = |len: usize| {
        let start = r#"{"type":"signal","payload":""#;
        format!("{start}{}\"}}", "x".repeat(len - start.len() - 2))
    };
    let (fits, too_long) = (text(MAX), text(MAX + 1));
    let forms = |text: &str| {
        let (start, end) = text.as_bytes().split_at(600_000);
        let halves = [frame(TEXT & !FIN, start), frame(CONTINUATION | FIN, end)].concat();
        [frame(TEXT, text.as_bytes()), frame(BINARY, text.as_bytes()), halves]
    };
    for (fits_bytes, too_long) in forms(&fits).into_iter().zip(forms(&too_long)) {
        let mut raw = Raw::open(&server, "/");
        raw.send(&frame(TEXT, join_text(&listener.room).as_bytes()));
        let (_, id) = ids_in(&String::from_utf8(raw.frame().payload).expect("text"), "room_joined");
        raw.send(&fits_bytes);
        let payload = &fits[r#"{"type":"signal","payload":"#.len()..fits.len() - 1];
        listener.peer.expect(&signal(&id, payload));
        raw.send(&too_long);
        raw.expect_close(1009);
        raw.finish(1009);
        listener.peer.expect_nothing();
        // The limit of the directory, which holds before the choice, ends with it: also for what came along.
        let mut raw = Raw::open(&server, "/");
        raw.send(&[frame(TEXT, join_text(&listener.room).as_bytes()), fits_bytes].concat());
        let (_, id) = ids_in(&String::from_utf8(raw.frame().payload).expect("text"), "room_joined");
        listener.peer.expect(&signal(&id, payload));
    }
}

fn who_reads_too_slowly_is_closed_alone(setup: Setup) {
    let server = Server::start(setup, &[("OUTBOX_MAX_BYTES", "100000"), NO_RATE]);
    let mut speaker = Member::create(&server);
    let mut listener = Member::join(&server, &speaker.room);
    let mut slow = open_slow(&server, "/");
    slow.send(&frame(TEXT, join_text(&speaker.room).as_bytes()));
    ids_in(&String::from_utf8(slow.frame().payload).expect("text"), "room_joined");
    let filler = "x".repeat(16_000);
    let start = Instant::now();
    let mut said = 0;
    while said % 16 != 0 || server.metric("parlor_too_slow_total") == 0 {
        let payload = format!(r#"[{said},"{filler}"]"#);
        speaker.say(&payload);
        listener.expect(&speaker.id, &payload);
        said += 1;
        assert!(start.elapsed() < WAIT, "{said} signals and the slow one is not closed");
    }
    // What was in its outbox comes, in order and whole.
    let mut heard = 0;
    loop {
        let next = slow.frame();
        if next.first != TEXT {
            assert_eq!((next.close_code(), &next.payload[2..]), (Some(1013), &b"too slow"[..]));
            break slow.finish(1013);
        }
        let expected = signal(&speaker.id, &format!(r#"[{heard},"{filler}"]"#));
        assert!(next.payload == expected.as_bytes(), "signal {heard} is not what was said");
        heard += 1;
    }
    assert!(heard > 0 && heard < said, "{heard} of {said}");
    all_talk(&mut [speaker, listener]);
}
