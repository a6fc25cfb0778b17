//! Who is in which room: protocols.md section 4, `create` and `join`.

use std::collections::BTreeSet;

use super::{Member, NO_RATE, ROOM_NOT_FOUND, all_talk, ids_in, join_text, open, room_of, signal};
use crate::support::dialects::Peer;
use crate::support::{Server, Setup, on_each_setup};

on_each_setup!(
    ids_of_rooms_are_free_numbers_at_random,
    rooms_that_are_not_there_are_not_found,
    good_joins_are_taken,
    create_and_join_again_move_the_client,
    who_leaves_is_not_announced,
    an_empty_room_lives_on,
);

fn ids_of_rooms_are_free_numbers_at_random(setup: Setup) {
    const ROOMS: usize = 500;
    let server = Server::start(setup, &[NO_RATE]);
    let mut clients: Vec<Member> = (0..10).map(|_| Member::create(&server)).collect();
    let mut rooms: Vec<String> = clients.iter().map(|client| client.room.clone()).collect();
    while rooms.len() < ROOMS {
        for client in &mut clients {
            client.create_again();
            rooms.push(client.room.clone());
        }
    }
    let distinct: BTreeSet<&String> = rooms.iter().collect();
    assert_eq!(distinct.len(), rooms.len(), "no two live rooms share an id");
    let numbers: Vec<i32> = rooms.iter().map(|room| room.parse().expect("a number")).collect();
    // Chance fails these once in some 10^11 runs.
    let rising = numbers.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!((170..330).contains(&rising), "{rising} of {ROOMS} are larger than the one before: {numbers:?}");
    let low = numbers.iter().filter(|number| **number < 5_500).count();
    assert!((170..330).contains(&low), "{low} of {ROOMS} are in the lower half: {numbers:?}");
    // All of them are alive.
    let mut visitor = Member::join(&server, &rooms[0]);
    rooms.iter().rev().for_each(|room| visitor.join_again(room));
}

/// Fields of a join that finds nothing, where `<room>` stands for the digits of a live room, and `<free>` for others.
const BAD_JOINS: &[&str] = &[
    r#""x":1"#,
    r#""roomId":"<free>""#,
    r#""roomId":<room>"#,
    r#""roomId":<room>.0"#,
    r#""roomId":"<room> ""#,
    r#""roomId":" <room>""#,
    r#""roomId":"\n<room>""#,
    r#""roomId":"0<room>""#,
    r#""roomId":"<room>0""#,
    r#""roomId":"<room>.0""#,
    r#""roomId":"+<room>""#,
    r#""roomId":"<room>\u0000""#,
    r#""roomId":"""#,
    r#""roomId":"1""#,
    r#""roomId":"123""#,
    r#""roomId":"0000""#,
    r#""roomId":"0999""#,
    r#""roomId":"-999""#,
    r#""roomId":"+999""#,
    r#""roomId":"1e10""#,
    r#""roomId":"abcd""#,
    r#""roomId":"99999""#,
    r#""roomId":"65536999""#,
    "\"roomId\":\"\u{ff11}\u{ff12}\u{ff13}\u{ff14}\"",
    "\"roomId\":\"\u{661}\u{662}\"",
    r#""roomId":"\ud800""#,
    r#""roomId":null"#,
    r#""roomId":true"#,
    r#""roomId":["<room>"]"#,
    r#""roomId":{"roomId":"<room>"}"#,
    r#""roomId":"<room>","roomId":null"#,
    r#""roomid":"<room>""#,
    r#""room":"<room>""#,
];

fn rooms_that_are_not_there_are_not_found(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let mut room = room_of(&server, 2);
    let live = room[0].room.clone();
    let free = if live == "1234" { "4321" } else { "1234" };
    let mut outside = open(&server);
    let mut guest = Member::create(&server);
    guest.join_again(&live);
    for fields in BAD_JOINS {
        let fields = fields.replace("<room>", &live).replace("<free>", free);
        for text in [format!(r#"{{"type":"join",{fields}}}"#), format!(r#"{{{fields},"type":"join"}}"#)] {
            outside.ask(&text, ROOM_NOT_FOUND);
            outside.send_binary(text.as_bytes());
            outside.expect(ROOM_NOT_FOUND);
            // It is in no room: what it says is not heard.
            outside.tell(r#"{"type":"signal","payload":"outside"}"#);
            // And one that is in a room stays there.
            guest.peer.ask(&text, ROOM_NOT_FOUND);
        }
    }
    room.push(guest);
    all_talk(&mut room);
    outside.expect_nothing();
}

fn good_joins_are_taken(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let mut host = Member::create(&server);
    let room = host.room.clone();
    let escaped: String = room.chars().map(|digit| format!("\\u{:04x}", u32::from(digit))).collect();
    for text in [
        format!(r#"{{"type":"join","roomId":"{room}"}}"#),
        format!(r#" {{ "roomId" : "{room}" , "type" : "join" }} "#),
        format!(r#"{{"type":"join","roomId":"{escaped}"}}"#),
        format!(r#"{{"t\u0079pe":"j\u006fin","r\u006fomId":"{room}"}}"#),
        format!(r#"{{"type":"join","roomId":5,"roomId":"{room}"}}"#),
        format!(r#"{{"type":"login","roomId":"0000","roomId":"{room}","name":"x","type":"join"}}"#),
        format!(r#"{{"type":"join","roomId":"{room}","myId":"mine","senderId":"mine","payload":[1e400]}}"#),
    ] {
        for in_binary in [false, true] {
            let mut peer = open(&server);
            if in_binary {
                peer.send_binary(text.as_bytes());
            } else {
                peer.send(&text);
            }
            let (joined, id) = ids_in(&peer.next("room_joined"), "room_joined");
            assert_eq!(joined, room);
            host.say("1");
            peer.expect(&signal(&host.id, "1"));
            peer.send(r#"{"type":"signal"}"#);
            host.peer.expect(&format!(r#"{{"type":"signal","senderId":"{id}"}}"#));
            peer.close();
        }
    }
    host.peer.expect_nothing();
}

fn create_and_join_again_move_the_client(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let mut here = room_of(&server, 3);
    let mut there = room_of(&server, 2);
    // By join, by create, and back: nobody is told, and from then on it hears only the new room.
    for round in 0..4 {
        let mut mover = here.remove(round % 3);
        mover.join_again(&there[0].room);
        all_talk(&mut here);
        mover.peer.expect_nothing();
        there.push(mover);
        all_talk(&mut there);
        let mut mover = there.remove(0);
        mover.create_again();
        let guest = Member::join(&server, &mover.room);
        let mut fresh = vec![mover, guest];
        all_talk(&mut fresh);
        all_talk(&mut there);
        let (mut mover, _) = (fresh.remove(0), fresh.remove(0).peer.close());
        mover.join_again(&here[0].room);
        here.push(mover);
        all_talk(&mut here);
        all_talk(&mut there);
    }
    // Its own room.
    let room = here[0].room.clone();
    here.iter_mut().for_each(|member| member.join_again(&room));
    all_talk(&mut here);
    // What it said before it moved was for the old room.
    let (mover, others) = here.split_first_mut().expect("three");
    let moves = join_text(&there[0].room);
    mover.peer.send_at_once([
        r#"{"type":"signal","payload":1}"#,
        &*moves,
        r#"{"type":"signal","payload":2}"#,
    ]);
    others.iter_mut().for_each(|member| member.expect(&mover.id, "1"));
    there.iter_mut().for_each(|member| member.expect(&mover.id, "2"));
    ids_in(&mover.peer.next("room_joined"), "room_joined");
    let mover = here.remove(0);
    there.push(mover);
    all_talk(&mut here);
    all_talk(&mut there);
}

fn who_leaves_is_not_announced(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let mut room = room_of(&server, 2);
    let ends: [fn(Peer); 3] = [|peer| drop(peer.close()), Peer::reset, drop];
    for (round, end) in ends.into_iter().cycle().take(6).enumerate() {
        let name = room[0].room.clone();
        room.push(Member::join(&server, &name));
        all_talk(&mut room);
        end(room.remove(round % 3).peer);
        server.wait_for_metric("parlor_clients", 2);
        all_talk(&mut room);
    }
}

fn an_empty_room_lives_on(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let host = Member::create(&server);
    let name = host.room.clone();
    for end in [|peer: Peer| drop(peer.close()), Peer::reset] {
        end(Member::join(&server, &name).peer);
    }
    host.peer.close();
    server.wait_for_metric("parlor_clients", 0);
    let mut room = vec![Member::join(&server, &name), Member::join(&server, &name)];
    all_talk(&mut room);
    // Also when its members have moved away.
    room.iter_mut().for_each(Member::create_again);
    room.iter_mut().for_each(|member| member.join_again(&name));
    all_talk(&mut room);
}
