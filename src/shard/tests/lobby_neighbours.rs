//! Directory and rooms on a host that has a cluster: what is asked and told by hand.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::cluster::directory::{self, Entry};
use crate::cluster::rooms;
use crate::cluster::{FromCluster, Letter, Relation, ToCluster};
use crate::id::RoomId;
use crate::protocol::rooms::{Key, Note, RoomIndex};
use crate::wire::frame::ServerHeader;

const THERE: HostId = HostId(2);
const LOGIN: &str = r#"{"type":"login","name":"a"}"#;

/// A host with a client at `/`.
fn host() -> (Shard, Slot, ClientId) {
    let settings = Settings { host: HostId(1), shards: 1, has_cluster: true, ..settings() };
    let mut host = shard(0, &settings);
    host.handle_cluster_mail(FromCluster::HostFound(THERE, Relation(1)), 0);
    let slot = open_at(&mut host, "/");
    let id = host.clients.at(slot).expect("it is there").id;
    (host, slot, id)
}

fn open_at(host: &mut Shard, path: &str) -> Slot {
    let slot = host.handle_accept(0).expect("there is room");
    let upgrade = String::from_utf8(UPGRADE.to_vec()).expect("ASCII").replace("/ws", path);
    host.handle_bytes(slot, upgrade.into_bytes().as_mut_slice(), 0);
    assert!(sent(host, slot).0.starts_with(b"HTTP/1.1 101 "));
    slot
}

fn asked(host: &mut Shard) -> Vec<ToCluster> {
    let mut asked = Vec::new();
    host.deliver_cluster_mail(|parcel| {
        asked.push(parcel.mail);
        Ok(())
    });
    asked
}

fn distant(slot: u32) -> ClientId {
    ClientId::new(THERE, ShardIndex(0), Slot(slot), &mut Entropy::from_seed([slot as u8; 32]))
}

fn came(client: ClientId, sequence: u64, name: &str) -> FromCluster {
    let entry = Entry { sequence, client, name: name.into() };
    FromCluster::Directory(directory::News::Came(vec![entry]))
}

fn text_frame(payload: &str) -> Bytes {
    let header = ServerHeader::new(Opcode::Text, payload.len());
    [header.as_bytes(), payload.as_bytes()].concat().into()
}

#[test]
fn what_is_said_behind_a_login_waits_for_its_answer() {
    let (mut host, slot, id) = host();
    say(&mut host, slot, LOGIN);
    let login = directory::Request::Login { client: id, name: Arc::from("a") };
    assert_eq!(asked(&mut host), [ToCluster::Directory(login)]);
    assert!(host.is_paused(slot));
    say(&mut host, slot, r#"{"type":"say","target":"a","x":1}"#);
    assert_eq!(messages(&sent(&mut host, slot).0), [""; 0]);
    assert_eq!(host.counters().directory_clients.value(), 0);
    host.handle_cluster_mail(came(id, 1, "a"), 0);
    let told = messages(&sent(&mut host, slot).0);
    assert_eq!(
        told,
        [
            r#"{"type":"login_success","id":"a","clients":["a"]}"#,
            r#"{"type":"say","target":"a","x":1,"from":"a"}"#
        ]
    );
    assert!(!host.is_paused(slot));
    assert_eq!(host.counters().directory_clients.value(), 1);
    host.handle_gone(slot, 0);
    assert_eq!(asked(&mut host), [ToCluster::Directory(directory::Request::Logout(id))]);
    assert_eq!((host.buffer_bytes(), host.counters().directory_clients.value()), (0, 0));
}

#[test]
fn a_login_may_be_refused_or_too_late() {
    let (mut host, slot, id) = host();
    let late = open_at(&mut host, "/");
    let late_id = host.clients.at(late).expect("it is there").id;
    say(&mut host, slot, LOGIN);
    say(&mut host, late, LOGIN);
    host.handle_cluster_mail(FromCluster::Directory(directory::News::Refused(id)), 0);
    let refused = [r#"{"type":"error","error":"name_taken"}"#, "close 4000 Client name already taken"];
    assert_eq!(messages(&sent(&mut host, slot).0), refused);
    host.handle_cluster_mail(FromCluster::Directory(directory::News::Busy(late_id)), 0);
    assert_eq!(messages(&sent(&mut host, late).0), ["close 1013 server busy"]);
    // Answers to those who are gone are nobody's.
    host.handle_gone(slot, 0);
    for news in [came(id, 1, "a"), FromCluster::Directory(directory::News::Refused(id))] {
        host.handle_cluster_mail(news, 0);
    }
    assert_eq!(host.directory_names().count(), 0);
}

#[test]
fn letters_from_nobody_and_to_nobody_are_counted() {
    let (mut host, slot, id) = host();
    say(&mut host, slot, LOGIN);
    let frame = text_frame("{}");
    let told = |host: &mut Shard, from, to| {
        let news = directory::News::Frame { from, to, frame: frame.clone() };
        host.handle_cluster_mail(FromCluster::Directory(news), 0);
    };
    host.handle_cluster_mail(came(distant(1), 1, "far"), 0);
    told(&mut host, distant(1), Some(id));
    assert_eq!(host.counters().letters_ignored.value(), 1, "not logged in yet");
    host.handle_cluster_mail(came(id, 2, "a"), 0);
    told(&mut host, distant(2), Some(id));
    told(&mut host, distant(2), None);
    told(&mut host, distant(1), Some(distant(3)));
    let letter = directory::Letter { from: id, to: None, frame: frame.clone() };
    host.handle_cluster_mail(FromCluster::Letter(THERE, Letter::Directory(letter)), 0);
    host.handle_cluster_mail(came(distant(2), 3, "a"), 0);
    assert_eq!(host.counters().letters_ignored.value(), 6);
    told(&mut host, distant(1), Some(id));
    told(&mut host, distant(1), None);
    let heard = messages(&sent(&mut host, slot).0);
    assert_eq!(heard, [r#"{"type":"login_success","id":"a","clients":["far","a"]}"#, "{}", "{}"]);
    host.handle_cluster_mail(FromCluster::HostGone(THERE), 0);
    told(&mut host, distant(1), None);
    let heard = messages(&sent(&mut host, slot).0);
    assert_eq!(heard, [r#"{"type":"peer_disconnected","peer":"far"}"#]);
    assert_eq!(host.counters().letters_ignored.value(), 7);
}

#[test]
fn a_room_is_asked_for_and_the_others_in_it_hear_of_it_first() {
    let (mut host, slot, id) = host();
    let room = RoomIndex::of(1_234).expect("an id");
    let key = Key { room, incarnation: RoomId::new(&mut Entropy::from_seed([1; 32])) };
    say(&mut host, slot, r#"{"type":"join","roomId":"1234"}"#);
    let timeout_ms = Limits::ROOM_TIMEOUT_MS;
    assert_eq!(asked(&mut host), [ToCluster::Rooms(rooms::Request::Join { client: id, room, timeout_ms })]);
    say(&mut host, slot, r#"{"type":"signal","payload":1.50}"#);
    let hosts = vec![HostId(1), THERE, HostId(77)];
    let joined = rooms::News::Joined { client: id, key, is_new: false, hosts };
    host.handle_cluster_mail(FromCluster::Rooms(joined), 0);
    let enter = Letter::Rooms(rooms::Letter::Note(Note::Enter(key)));
    let letter = |letter| ToCluster::Letter {
        to: THERE,
        relation: Relation(1),
        shard: crate::cluster::CLUSTER,
        letter,
    };
    assert_eq!(asked(&mut host), [letter(enter)]);
    assert_eq!(messages(&sent(&mut host, slot).0), [""; 0]);
    let answer = |host: &mut Shard, answer| {
        host.handle_cluster_mail(FromCluster::Letter(THERE, Letter::Rooms(answer)), 0);
    };
    answer(&mut host, rooms::Letter::Note(Note::Present(vec![key])));
    let me = String::from_utf8(id.text().to_vec()).expect("ASCII");
    let told = format!(r#"{{"type":"room_joined","roomId":"1234","myId":"{me}"}}"#);
    assert_eq!(messages(&sent(&mut host, slot).0), [told]);
    // What it said behind that goes out.
    let frame = text_frame(&format!(r#"{{"type":"signal","senderId":"{me}","payload":1.50}}"#));
    assert_eq!(asked(&mut host), [letter(Letter::Rooms(rooms::Letter::Signal { key, from: id, frame }))]);
    for (from, count) in [(distant(1), 0), (id, 1)] {
        answer(&mut host, rooms::Letter::Signal { key, from, frame: text_frame("{}") });
        assert_eq!(host.counters().letters_ignored.value(), count, "a host speaks for its own");
    }
    assert_eq!(messages(&sent(&mut host, slot).0), ["{}"]);
    host.handle_cluster_mail(FromCluster::Rooms(rooms::News::Ended(key)), 0);
    assert_eq!(messages(&sent(&mut host, slot).0), ["close 1000 Room expired"]);
    assert_eq!((host.counters().rooms.value(), asked(&mut host)), (0, vec![]));
    host.handle_gone(slot, 0);
    assert_eq!(host.buffer_bytes(), 0);
}
