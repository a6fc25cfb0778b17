//! Rooms from outside: protocols.md section 4 line by line, and of section 0 the lines JSON, text and binary, opaque,
//! sender and order, with 1 and 4 shards, on io_uring and on epoll. This file: signals. Who is where: `moves`; time,
//! rate and size: `bounds`.

mod support;

#[path = "rooms/bounds.rs"]
mod bounds;
#[path = "rooms/moves.rs"]
mod moves;

use std::collections::BTreeSet;

use support::dialects::{Peer, RandomJson, json_or_not, nested, not_utf8};
use support::{
    BINARY, CONTINUATION, FIN, Frame, PING, PONG, Raw, Server, Setup, TEXT, frame, is_uuid_v4,
    on_each_driver, on_each_setup,
};

/// So many messages that the rate never matters.
const NO_RATE: (&str, &str) = ("MAX_MSG_PER_SECOND", "1000000");
const CREATE: &str = r#"{"type":"create"}"#;
const ROOM_NOT_FOUND: &str = r#"{"type":"error","message":"Room not found"}"#;

on_each_setup!(
    signals_go_to_all_others_in_the_room,
    payloads_arrive_as_they_were_sent,
    random_payloads_arrive_as_they_were_sent,
    anything_else_is_not_answered,
    signals_arrive_in_the_order_sent,
    rooms_do_not_hear_each_other,
);
on_each_driver!(what_is_json_is_what_json_parse_takes, messages_are_single_text_frames);

// What the tests say and hear.

/// A client in a room.
struct Member {
    peer: Peer,
    /// `myId`.
    id: String,
    room: String,
}

fn open(server: &Server) -> Peer {
    Peer::open(server, "/")
}

fn join_text(room: &str) -> String {
    format!(r#"{{"type":"join","roomId":"{room}"}}"#)
}

/// What the others hear. `payload` is JSON.
fn signal(sender: &str, payload: &str) -> String {
    format!(r#"{{"type":"signal","senderId":"{sender}","payload":{payload}}}"#)
}

/// Room and client in an answer, which must be to the byte: four digits and an id.
fn ids_in(text: &str, kind: &str) -> (String, String) {
    let ids = text.strip_prefix(&*format!(r#"{{"type":"{kind}","roomId":""#));
    let ids = ids.and_then(|rest| rest.strip_suffix("\"}")?.split_once("\",\"myId\":\""));
    let (room, id) = ids.unwrap_or_else(|| panic!("waited for {kind} and got {text}"));
    let number: u32 = room.parse().unwrap_or_else(|_| panic!("no number: {text}"));
    assert!((1_000..=9_999).contains(&number) && room.len() == 4, "{text}");
    assert!(is_uuid_v4(id), "{text}");
    (room.to_owned(), id.to_owned())
}

impl Member {
    /// Opens a WebSocket and creates a room.
    fn create(server: &Server) -> Self {
        let mut peer = open(server);
        peer.send(CREATE);
        let (room, id) = ids_in(&peer.next("room_created"), "room_created");
        peer.name = format!("creator of {room}");
        Self { peer, id, room }
    }

    /// Opens a WebSocket and joins a room.
    fn join(server: &Server, room: &str) -> Self {
        let mut peer = open(server);
        peer.send(&join_text(room));
        let (joined, id) = ids_in(&peer.next("room_joined"), "room_joined");
        assert_eq!(joined, room);
        peer.name = format!("member of {room}");
        Self { peer, id, room: joined }
    }

    /// Moves to a new room. Its own id stays.
    fn create_again(&mut self) {
        self.peer.send(CREATE);
        let (room, id) = ids_in(&self.peer.next("room_created"), "room_created");
        assert_eq!(id, self.id, "an id is for the life of the connection");
        assert_ne!(room, self.room, "the old room lives on");
        self.room = room;
    }

    /// Moves to this room.
    fn join_again(&mut self, room: &str) {
        self.peer.ask(
            &join_text(room),
            &format!(r#"{{"type":"room_joined","roomId":"{room}","myId":"{}"}}"#, self.id),
        );
        self.room = room.to_owned();
    }

    fn say(&mut self, payload: &str) {
        self.peer.send(&format!(r#"{{"type":"signal","payload":{payload}}}"#));
    }

    /// It must hear this next from `sender`.
    fn expect(&mut self, sender: &str, payload: &str) {
        self.peer.expect(&signal(sender, payload));
    }
}

/// A room of so many.
fn room_of(server: &Server, members: usize) -> Vec<Member> {
    let mut room = vec![Member::create(server)];
    for _ in 1..members {
        let member = Member::join(server, &room[0].room);
        room.push(member);
    }
    room
}

/// Each says something that all others hear next.
fn all_talk(members: &mut [Member]) {
    for speaker in 0..members.len() {
        let word = format!("\"word of {speaker}\"");
        members[speaker].say(&word);
        let id = members[speaker].id.clone();
        for (listener, member) in members.iter_mut().enumerate() {
            if listener != speaker {
                member.expect(&id, &word);
            }
        }
    }
    members.iter_mut().for_each(|member| member.peer.expect_nothing());
}

// Signals.

fn signals_go_to_all_others_in_the_room(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let mut silent = open(&server);
    for members in 1..6 {
        let mut room = room_of(&server, members);
        all_talk(&mut room);
        // Nobody was told that the others came.
        let ids: BTreeSet<&str> = room.iter().map(|member| &*member.id).collect();
        assert_eq!(ids.len(), members, "each has an id of its own");
    }
    silent.expect_nothing();
}

/// What a member says, and what the others hear; `<me>` is its id.
const SIGNALS: &[(&str, &str)] = &[
    (r#"{"type":"signal","payload":"x"}"#, r#"{"type":"signal","senderId":"<me>","payload":"x"}"#),
    (r#"{"type":"signal","payload":""}"#, r#"{"type":"signal","senderId":"<me>","payload":""}"#),
    (r#"{"type":"signal","payload":null}"#, r#"{"type":"signal","senderId":"<me>","payload":null}"#),
    (r#"{"type":"signal","payload":false}"#, r#"{"type":"signal","senderId":"<me>","payload":false}"#),
    (r#"{"type":"signal","payload":{}}"#, r#"{"type":"signal","senderId":"<me>","payload":{}}"#),
    (r#"{"type":"signal","payload":[]}"#, r#"{"type":"signal","senderId":"<me>","payload":[]}"#),
    (r#"{"type":"signal","payload":1.50}"#, r#"{"type":"signal","senderId":"<me>","payload":1.50}"#),
    (r#"{"type":"signal","payload":-0}"#, r#"{"type":"signal","senderId":"<me>","payload":-0}"#),
    (r#"{"type":"signal","payload":1E+400}"#, r#"{"type":"signal","senderId":"<me>","payload":1E+400}"#),
    (
        r#"{"type":"signal","payload":123456789012345678901234567890.10}"#,
        r#"{"type":"signal","senderId":"<me>","payload":123456789012345678901234567890.10}"#,
    ),
    (
        r#"{"type":"signal","payload":"\u0041\/\"\\\ud83d\ude00 \udc00\ud800"}"#,
        r#"{"type":"signal","senderId":"<me>","payload":"\u0041\/\"\\\ud83d\ude00 \udc00\ud800"}"#,
    ),
    (
        "{\"type\":\"signal\",\"payload\":\"é\u{1f600}\u{2028}\u{7f}\u{feff}\"}",
        "{\"type\":\"signal\",\"senderId\":\"<me>\",\"payload\":\"é\u{1f600}\u{2028}\u{7f}\u{feff}\"}",
    ),
    (
        r#"{"type":"signal","payload":{"type":"offer","sdp":"v=0\r\n","senderId":"mine","n":[1.0,{"payload":2}]}}"#,
        r#"{"type":"signal","senderId":"<me>","payload":{"type":"offer","sdp":"v=0\r\n","senderId":"mine","n":[1.0,{"payload":2}]}}"#,
    ),
    (
        "  { \"payload\" :\t[ 1 , { \"a\" : \"b c\" } , 2 ]\r\n,\"type\" : \"signal\"}\n",
        r#"{"type":"signal","senderId":"<me>","payload":[ 1 , { "a" : "b c" } , 2 ]}"#,
    ),
    // Missing stays missing, and nothing else is relayed.
    (r#"{"type":"signal"}"#, r#"{"type":"signal","senderId":"<me>"}"#),
    (r#"{"type":"signal","Payload":1,"data":2}"#, r#"{"type":"signal","senderId":"<me>"}"#),
    (r#"{"type":"signal","x":{"payload":1}}"#, r#"{"type":"signal","senderId":"<me>"}"#),
    (
        r#"{"a":1,"type":"signal","roomId":"1000","payload":"x","to":"y","target":"z"}"#,
        r#"{"type":"signal","senderId":"<me>","payload":"x"}"#,
    ),
    // The sender is named by the server alone.
    (
        r#"{"senderId":"evil","type":"signal","payload":"x"}"#,
        r#"{"type":"signal","senderId":"<me>","payload":"x"}"#,
    ),
    (
        r#"{"type":"signal","s\u0065nderId":"evil","payload":"x","senderId":{"a":1},"myId":"evil"}"#,
        r#"{"type":"signal","senderId":"<me>","payload":"x"}"#,
    ),
    (r#"{"type":"signal","senderId":"evil"}"#, r#"{"type":"signal","senderId":"<me>"}"#),
    // Keys and the type are compared unescaped, of equal keys the last counts.
    (
        r#"{"\u0074ype":"s\u0069gnal","p\u0061yload":"\u0041"}"#,
        r#"{"type":"signal","senderId":"<me>","payload":"\u0041"}"#,
    ),
    (r#"{"type":"signal","payload":1,"payload":2}"#, r#"{"type":"signal","senderId":"<me>","payload":2}"#),
    (
        r#"{"payload":{"a":1},"type":"create","p\u0061yload":[2],"type":"signal"}"#,
        r#"{"type":"signal","senderId":"<me>","payload":[2]}"#,
    ),
];

fn payloads_arrive_as_they_were_sent(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let mut room = room_of(&server, 3);
    for speaker in 0..3 {
        room.swap(0, speaker);
        let (me, others) = room.split_first_mut().expect("three");
        for (sent, heard) in SIGNALS {
            let heard = heard.replace("<me>", &me.id);
            me.peer.send(sent);
            others.iter_mut().for_each(|member| member.peer.expect(&heard));
            me.peer.send_binary(sent.as_bytes());
            others.iter_mut().for_each(|member| member.peer.expect(&heard));
        }
        // The message itself is one level.
        let deepest = nested(999, "1");
        me.say(&deepest);
        others.iter_mut().for_each(|member| member.expect(&me.id, &deepest));
        me.say(&format!("[{deepest}]"));
    }
    all_talk(&mut room);
}

fn random_payloads_arrive_as_they_were_sent(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let mut json = RandomJson::new(40);
    let mut room = room_of(&server, 2);
    for round in 0..400 {
        let (me, others) = room.split_first_mut().expect("two");
        let payload = json.value(6);
        let senders = json.value(2);
        let fields = [("type", "\"signal\""), ("payload", &*payload), ("senderId", &*senders)];
        let count = 2 + json.below(2);
        let sent = json.message(&fields[..count]);
        if round % 2 == 0 {
            me.peer.send(&sent);
        } else {
            me.peer.send_binary(sent.as_bytes());
        }
        others[0].expect(&me.id, &payload);
        if json.below(3) == 0 {
            room.reverse();
        }
    }
    all_talk(&mut room);
}

fn signals_arrive_in_the_order_sent(setup: Setup) {
    const SIGNALS: usize = 300;
    let server = Server::start(setup, &[NO_RATE]);
    let mut room = room_of(&server, 4);
    let ids: Vec<String> = room.iter().map(|member| member.id.clone()).collect();
    let texts: Vec<String> =
        (0..SIGNALS).map(|number| format!(r#"{{"type":"signal","payload":{number}}}"#)).collect();
    std::thread::scope(|scope| {
        for member in &mut room {
            scope.spawn(|| {
                member.peer.send_at_once(texts.iter().map(String::as_str));
                // The next of each of the others, and nothing else.
                let mut next = vec![0; ids.len()];
                for _ in 0..3 * SIGNALS {
                    let got = member.peer.next("a signal");
                    let sender =
                        (0..ids.len()).find(|&sender| got == signal(&ids[sender], &next[sender].to_string()));
                    let sender = sender.unwrap_or_else(|| panic!("nobody says this next: {got}; {next:?}"));
                    next[sender] += 1;
                }
                let own = ids.iter().position(|id| *id == member.id).expect("its own id");
                assert_eq!(next[own], 0, "nobody hears itself");
            });
        }
    });
    all_talk(&mut room);
}

fn rooms_do_not_hear_each_other(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let mut rooms: Vec<Vec<Member>> = (0..12).map(|_| room_of(&server, 3)).collect();
    // Who is in no room says nothing to anybody.
    let mut outside = open(&server);
    for room in &rooms {
        outside.send(&format!(r#"{{"type":"signal","roomId":"{}","payload":1}}"#, room[0].room));
    }
    outside.expect_nothing();
    for room in &mut rooms {
        room[0].say("\"here\"");
    }
    for room in &mut rooms {
        let (speaker, others) = room.split_first_mut().expect("three");
        others.iter_mut().for_each(|member| member.expect(&speaker.id, "\"here\""));
    }
    rooms.iter_mut().for_each(|room| all_talk(room));
    outside.expect_nothing();
}

// What is not answered.

const ANYTHING_ELSE: &[&str] = &[
    "",
    "hello",
    "null",
    "5",
    "true",
    "\"create\"",
    "[]",
    r#"[{"type":"create"}]"#,
    "{}",
    r#"{"roomId":"1000"}"#,
    r#"{"payload":1}"#,
    r#"{"type":null}"#,
    r#"{"type":5}"#,
    r#"{"type":""}"#,
    r#"{"type":["create"]}"#,
    r#"{"type":{"type":"create"}}"#,
    r#"{"type":"Create"}"#,
    r#"{"type":"create "}"#,
    r#"{"type":"created"}"#,
    r#"{"type":"create\u0000"}"#,
    r#"{"Type":"create"}"#,
    r#"{"type":"create","type":5}"#,
    r#"{"type":"leave"}"#,
    r#"{"type":"ping"}"#,
    r#"{"type":"login","name":"a"}"#,
    r#"{"type":"login"}"#,
    r#"{"type":"stream_started"}"#,
    r#"{"type":"page_opened"}"#,
    r#"{"type":"offer","target":"a"}"#,
    r#"{"type":"available"}"#,
    r#"{"type":"signals","payload":1}"#,
    r#"{"type":"room_created","roomId":"1000"}"#,
    r#"{"type":"create"}}"#,
];

fn anything_else_is_not_answered(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let mut room = room_of(&server, 2);
    let mut outside = open(&server);
    outside.ask(&join_text("0000"), ROOM_NOT_FOUND);
    for text in ANYTHING_ELSE {
        for peer in [&mut outside, &mut room[0].peer] {
            peer.tell(text);
            peer.send_binary(text.as_bytes());
            peer.expect_nothing();
        }
    }
    all_talk(&mut room);
    outside.tell(r#"{"type":"signal","payload":1}"#);
    outside.send(CREATE);
    ids_in(&outside.next("room_created"), "room_created");
    room[1].peer.expect_nothing();
}

fn what_is_json_is_what_json_parse_takes(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let mut room = room_of(&server, 2);
    let mut peer = Member::create(&server).peer;
    let answers = |is_json: bool| if is_json { vec![ROOM_NOT_FOUND] } else { vec![] };
    let fields = r#""type":"join","roomId":"0000""#;
    for (text, is_json) in json_or_not(fields) {
        peer.send(&text);
        assert_eq!(peer.drain(), answers(is_json), "{text:.200?}");
        peer.send_binary(text.as_bytes());
        assert_eq!(peer.drain(), answers(is_json), "in a binary frame: {text:.200?}");
    }
    for bytes in not_utf8(fields) {
        peer.send_binary(&bytes);
        peer.expect_nothing();
    }
    peer.ask(&join_text("0000"), ROOM_NOT_FOUND);
    all_talk(&mut room);
}

fn messages_are_single_text_frames(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let mut host = Member::create(&server);
    let mut raw = Raw::open(&server, "/");
    raw.send(&frame(BINARY, join_text(&host.room).as_bytes()));
    let answer = raw.frame();
    assert_eq!(answer.first, TEXT);
    let (_, id) = ids_in(&String::from_utf8(answer.payload).expect("text"), "room_joined");
    let text = r#"{"type":"signal","senderId":"x","payload":"grüße 😀"}"#;
    let last = text.len() - 1;
    for opcode in [TEXT, BINARY] {
        for (at, byte) in text.bytes().enumerate() {
            let first = if at == 0 { opcode & !FIN } else { CONTINUATION } | if at == last { FIN } else { 0 };
            raw.send(&frame(first, &[byte]));
            if at % 20 == 10 && at != last {
                raw.send(&frame(PING, b"between"));
                assert_eq!(raw.frame(), Frame { first: PONG, payload: b"between".to_vec() });
            }
        }
        host.expect(&id, "\"grüße 😀\"");
    }
    let long = format!("\"{}\"", "é".repeat(300_000));
    host.peer.send_binary(format!(r#"{{"type":"signal","payload":{long}}}"#).as_bytes());
    raw.expect(&signal(&host.id, &long));
    raw.send(&frame(BINARY, CREATE.as_bytes()));
    assert_eq!(raw.frame().first, TEXT);
}
