//! Inputs and the actions that follow, each line of protocols.md section 4, and random days against a plain model.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::id::{HostId, ShardIndex, Slot};
use crate::protocol;
use crate::wire::envelope::Parser;

const TIMEOUT_MS: u64 = 300_000;
const CREATE: &str = r#"{"type":"create"}"#;
const NOT_FOUND: &str = r#"{"type":"error","message":"Room not found"}"#;

/// Rooms and the clients that speak to them, each known by its position.
struct Table {
    rooms: Rooms,
    entropy: Entropy,
    parser: Parser,
    clients: Vec<(ClientId, State)>,
    now_ms: u64,
}

fn table(clients: u32) -> Table {
    let mut entropy = Entropy::from_seed([5; 32]);
    let mut client = |slot| ClientId::new(HostId(9), ShardIndex(0), Slot(slot), &mut entropy);
    let clients = (0..clients).map(|slot| (client(slot), State::default())).collect();
    Table { rooms: Rooms::new(TIMEOUT_MS, false), entropy, parser: Parser::default(), clients, now_ms: 1_000 }
}

impl Table {
    /// What follows when a client says this, as [`Table::shown`] shows it.
    fn says(&mut self, who: usize, message: &str) -> Vec<String> {
        self.says_bytes(who, message.as_bytes())
    }

    fn says_bytes(&mut self, who: usize, message: &[u8]) -> Vec<String> {
        let mut out = Actions::new();
        let (id, state) = &mut self.clients[who];
        let envelope = self.parser.parse(message);
        let parsed = envelope.as_ref().map_err(|e| *e);
        self.rooms.handle_message(state, *id, parsed, self.now_ms, &mut self.entropy, &mut out);
        out.iter().map(|action| self.shown(who, action, message)).collect()
    }

    fn leaves(&mut self, who: usize) {
        let (id, state) = &mut self.clients[who];
        let mut out = Actions::new();
        self.rooms.handle_leave(state, *id, &mut out);
        assert_eq!(out, [], "nobody is told");
    }

    fn time_passes(&mut self, ms: u64) -> Vec<String> {
        self.now_ms += ms;
        let mut out = Actions::new();
        self.rooms.handle_time(self.now_ms, &mut out);
        out.iter().map(|action| self.shown(usize::MAX, action, b"")).collect()
    }

    /// An action as a line: receivers and text, or who is closed and how. Client ids stand as `ID` and position.
    fn shown(&self, me: usize, action: &Action, message: &[u8]) -> String {
        match action {
            Action::Reply(parts) => format!("{me} {}", self.rendered(parts, message)),
            Action::Broadcast { to, parts } => {
                assert!(!to.is_empty(), "nothing is sent to nobody");
                let to: Vec<String> = to.iter().map(|id| self.position(*id).to_string()).collect();
                format!("{} {}", to.join(","), self.rendered(parts, message))
            }
            Action::Close { client, code, reason } => {
                format!("close {} {} {reason}", self.position(*client), code.map_or(0, CloseCode::number))
            }
            Action::Ignore => "ignored".to_owned(),
            other => panic!("rooms do not ask for this: {other:?}"),
        }
    }

    fn rendered(&self, parts: &[Part], message: &[u8]) -> String {
        let mut bytes = Vec::new();
        protocol::write(parts, message, |piece| bytes.extend_from_slice(piece));
        assert_eq!(bytes.len(), protocol::len_of(parts));
        let text = String::from_utf8(bytes).expect("UTF-8");
        let ids = parts.iter().filter_map(|part| match part {
            Part::Client(id) => Some(*id),
            _ => None,
        });
        ids.fold(text, |text, id| {
            let id_text = String::from_utf8(id.text().to_vec()).expect("ASCII");
            text.replace(&id_text, &format!("ID{}", self.position(id)))
        })
    }

    fn position(&self, id: ClientId) -> usize {
        self.clients.iter().position(|client| client.0 == id).expect("a client of the table")
    }

    /// Lets a client create a room and returns its id.
    fn creates(&mut self, who: usize) -> String {
        let lines = self.says(who, CREATE);
        let [line] = &lines[..] else { panic!("one answer: {lines:?}") };
        let room = room_in(line).to_owned();
        assert_eq!(*line, format!(r#"{who} {{"type":"room_created","roomId":"{room}","myId":"ID{who}"}}"#));
        room
    }

    fn joins(&mut self, who: usize, room: &str) {
        let expected = format!(r#"{who} {{"type":"room_joined","roomId":"{room}","myId":"ID{who}"}}"#);
        assert_eq!(self.says(who, &join(room)), [expected]);
    }

    /// Who hears a client's signal.
    fn heard_by(&mut self, who: usize) -> Vec<usize> {
        let lines = self.says(who, r#"{"type":"signal","payload":1}"#);
        let Some(line) = lines.first() else { return Vec::new() };
        let signal = format!(r#" {{"type":"signal","senderId":"ID{who}","payload":1}}"#);
        let receivers = line.strip_suffix(&signal).unwrap_or_else(|| panic!("a signal: {lines:?}"));
        receivers.split(',').map(|position| position.parse().expect("a position")).collect()
    }
}

fn room_in(line: &str) -> &str {
    let (_, behind) = line.split_once(r#""roomId":""#).unwrap_or_else(|| panic!("no room: {line}"));
    &behind[..4]
}

fn join(room: &str) -> String {
    format!(r#"{{"type":"join","roomId":"{room}"}}"#)
}

#[test]
fn a_signal_goes_to_every_other_member_as_it_was_sent() {
    let mut table = table(4);
    let room = table.creates(0);
    table.joins(2, &room);
    table.joins(1, &room);
    for (message, expected) in [
        (r#"{"type":"signal","payload":"v=0\r\n"}"#, r#","payload":"v=0\r\n"}"#),
        (
            r#" {"payload" : {"a" : [1.50, 1e400]} , "type":"signal"} "#,
            r#","payload":{"a" : [1.50, 1e400]}}"#,
        ),
        (r#"{"type":"signal","payload":null}"#, r#","payload":null}"#),
        (r#"{"type":"signal","payload":"\ud83d"}"#, r#","payload":"\ud83d"}"#),
        (r#"{"type":"signal","payload":1,"payload":2}"#, r#","payload":2}"#),
        (r#"{"type":"s\u0069gnal","p\u0061yload":-0}"#, r#","payload":-0}"#),
        (r#"{"type":"signal"}"#, "}"),
        (r#"{"type":"signal","senderId":"me","sen\u0064erId":"me","to":"x"}"#, "}"),
        (r#"{"type":"signal","senderId":"me","payload":{"senderId":1}}"#, r#","payload":{"senderId":1}}"#),
    ] {
        let signal = format!(r#"{{"type":"signal","senderId":"ID2"{expected}"#);
        assert_eq!(table.says(2, message), [format!("0,1 {signal}")], "in the order of joining: {message}");
        assert_eq!(table.says(3, message), [""; 0], "who is in no room is not heard");
    }
}

#[test]
fn one_who_is_alone_speaks_to_nobody() {
    let mut table = table(1);
    table.creates(0);
    assert_eq!(table.heard_by(0), [0; 0]);
}

#[test]
fn a_room_that_is_not_there_is_not_found() {
    let mut table = table(2);
    let none = format!("1 {NOT_FOUND}");
    assert_eq!(table.says(1, &join("1000")), [none.as_str()], "before the first room of all");
    let room = table.creates(0);
    let other = if room == "4711" { "4712" } else { "4711" };
    for id in [
        format!("\"{other}\""),
        room.clone(),
        format!("\"0{room}\""),
        format!("\"{room} \""),
        format!("\" {room}\""),
        format!("\"{}\"", &room[..3]),
        format!("[\"{room}\"]"),
        format!("\"{}\u{666}\"", &room[..2]),
        "\"٤٧١١\"".to_owned(),
        "\"+123\"".to_owned(),
        "\"0000\"".to_owned(),
        "\"0999\"".to_owned(),
        "\"\"".to_owned(),
        "null".to_owned(),
        "{}".to_owned(),
    ] {
        let message = format!(r#"{{"type":"join","roomId":{id}}}"#);
        assert_eq!(table.says(1, &message), [none.as_str()], "{message}");
    }
    assert_eq!(table.says(1, r#"{"type":"join"}"#), [none.as_str()]);
    assert_eq!(table.says(1, &format!(r#"{{"type":"join","roomid":"{room}"}}"#)), [none.as_str()]);
    let escaped: String = room.chars().map(|digit| format!("\\u003{digit}")).collect();
    table.says(1, &join(&escaped));
    assert_eq!(table.heard_by(1), [0], "digits may be written as escapes");
}

#[test]
fn anything_else_is_ignored_and_changes_nothing() {
    let mut table = table(2);
    let room = table.creates(0);
    table.joins(1, &room);
    for message in [
        &b""[..],
        b"hello",
        b"null",
        b"7",
        b"[]",
        b"{}",
        b"\"create\"",
        b"[{\"type\":\"create\"}]",
        b"{\"type\":\"\"}",
        b"{\"type\":7}",
        b"{\"type\":\"Create\"}",
        b"{\"type\":\"login\",\"name\":\"a\"}",
        b"{\"type\":\"create\",\"x\":\"\xff\"}",
        b"{\"type\":\"create\"",
        b"{\"type\":\"create\",\"type\":\"leave\"}",
    ] {
        assert_eq!(table.says_bytes(0, message), ["ignored"], "{}", message.escape_ascii());
    }
    assert_eq!(table.rooms.len(), 1);
    assert_eq!(table.heard_by(0), [1]);
}

#[test]
fn create_and_join_move_a_client_and_one_that_fails_does_not() {
    let mut table = table(3);
    let first = table.creates(0);
    table.joins(1, &first);
    let second = table.creates(2);
    assert_eq!(table.says(1, &join("0001")), [format!("1 {NOT_FOUND}")]);
    assert_eq!(table.heard_by(0), [1], "a join that fails moves nobody");
    table.joins(1, &second);
    assert_eq!((table.heard_by(0), table.heard_by(2)), (vec![], vec![1]));
    let third = table.creates(1);
    assert_eq!((table.heard_by(1), table.heard_by(2)), (vec![], vec![]));
    assert_eq!(HashSet::from([&first, &second, &third]).len(), 3);
    assert_eq!(table.rooms.len(), 3, "a room that is left lives on");
    table.joins(2, &first);
    assert_eq!(table.heard_by(0), [2]);
}

#[test]
fn joining_ones_own_room_keeps_one_seat() {
    let mut table = table(2);
    let room = table.creates(0);
    table.joins(1, &room);
    table.joins(0, &room);
    table.joins(1, &room);
    assert_eq!((table.heard_by(0), table.heard_by(1)), (vec![1], vec![0]));
    table.leaves(0);
    assert_eq!(table.heard_by(1), [0; 0], "no seat is left behind");
}

#[test]
fn a_room_expires_after_the_last_create_or_join() {
    let mut table = table(3);
    let room = table.creates(0);
    assert_eq!(table.time_passes(TIMEOUT_MS - 1), [""; 0]);
    table.joins(1, &room);
    assert_eq!(table.time_passes(TIMEOUT_MS - 1), [""; 0]);
    table.joins(0, &room);
    assert_eq!(table.time_passes(TIMEOUT_MS - 1), [""; 0], "joining one's own room counts");
    assert_eq!(table.says(0, &join("0000")), [format!("0 {NOT_FOUND}")]);
    assert_eq!(table.heard_by(0), [1], "signals do not count");
    assert_eq!(table.rooms.len(), 1);
    assert_eq!(table.time_passes(1), ["close 0 1000 Room expired", "close 1 1000 Room expired"]);
    assert!(table.rooms.is_empty());
    assert_eq!(table.says(2, &join(&room)), [format!("2 {NOT_FOUND}")]);
    assert_eq!(table.time_passes(TIMEOUT_MS), [""; 0], "once");
    table.leaves(0);
    table.leaves(1);
    assert!(table.rooms.is_empty());
}

#[test]
fn a_room_without_members_lives_on_and_those_who_left_are_not_closed() {
    let mut table = table(3);
    let room = table.creates(0);
    table.joins(1, &room);
    table.leaves(0);
    assert_eq!(table.heard_by(1), [0; 0], "nobody is told, nobody is left");
    table.leaves(1);
    table.leaves(1);
    assert_eq!(table.rooms.len(), 1);
    table.joins(2, &room);
    table.leaves(2);
    assert_eq!(table.time_passes(TIMEOUT_MS), [""; 0]);
    assert!(table.rooms.is_empty());
}

#[test]
fn rooms_expire_in_the_order_of_their_deadlines() {
    let mut table = table(3);
    table.creates(2);
    table.time_passes(1);
    let second = table.creates(0);
    table.time_passes(1);
    table.creates(1);
    table.time_passes(1);
    table.joins(0, &second);
    let closed = ["2", "1", "0"].map(|who| format!("close {who} 1000 Room expired"));
    assert_eq!(table.time_passes(TIMEOUT_MS), closed);
}

#[test]
fn nine_thousand_rooms_have_ids_of_their_own_and_then_there_are_no_more() {
    let mut table = table(3);
    table.creates(1);
    let ids: HashSet<String> = (1..ROOMS_MAX).map(|_| table.creates(0)).collect();
    assert_eq!((ids.len(), table.rooms.len()), (8_999, 9_000));
    assert!(ids.iter().all(|id| (1_000..=9_999).contains(&id.parse().expect("a number"))));
    let last = ids.iter().next().expect("one of many");
    table.joins(0, last);
    table.joins(2, last);
    assert_eq!(table.says(0, CREATE), [r#"0 {"type":"error","message":"No rooms available"}"#]);
    assert_eq!(table.heard_by(0), [2], "a create that fails moves nobody");
    table.leaves(2);
    assert_eq!(table.time_passes(TIMEOUT_MS).len(), 2);
    assert!(table.rooms.is_empty());
    let again: HashSet<String> = (0..ROOMS_MAX).map(|_| table.creates(2)).collect();
    assert_eq!(again.len(), 9_000, "all ids are free again");
}

#[test]
fn the_last_free_id_is_found() {
    let mut table = table(2);
    let room = table.creates(0);
    table.time_passes(1);
    for _ in 1..ROOMS_MAX {
        table.creates(1);
    }
    assert_eq!(table.time_passes(TIMEOUT_MS - 1), ["close 0 1000 Room expired"]);
    assert_eq!(table.creates(0), room);
}

#[test]
fn ids_are_drawn_from_everywhere() {
    let mut entropy = Entropy::from_seed([6; 32]);
    let mut thousands = [0; 9];
    for _ in 0..900 {
        let index = Rooms::new(TIMEOUT_MS, false).draw(&mut entropy).expect("all are free");
        thousands[index.position() / 1_000] += 1;
    }
    // Over four standard deviations on either side.
    assert!(thousands.iter().all(|count| (60..=140).contains(count)), "{thousands:?}");
}

#[test]
fn a_seat_of_an_expired_room_does_no_harm_in_the_next_of_that_number() {
    let mut table = table(3);
    let room = table.creates(0);
    assert_eq!(table.time_passes(TIMEOUT_MS).len(), 1);
    while table.creates(1) != room {}
    table.joins(2, &room);
    assert_eq!(table.heard_by(0), [0; 0], "it is not in the new room");
    table.leaves(0);
    assert_eq!((table.heard_by(1), table.heard_by(2)), (vec![2], vec![1]));
    table.joins(0, &room);
    assert_eq!(table.heard_by(0), [1, 2]);
}

#[test]
fn a_large_room_hears_everyone_and_empties() {
    const MEMBERS: u32 = 10_000;
    let mut table = table(MEMBERS);
    let room = table.creates(0);
    let message = join(&room);
    for who in 1..MEMBERS as usize {
        assert_eq!(table.says(who, &message).len(), 1);
    }
    for who in (0..MEMBERS as usize).filter(|who| who % 1_000 != 7) {
        table.leaves(who);
    }
    assert_eq!(table.heard_by(7), [1_007, 2_007, 3_007, 4_007, 5_007, 6_007, 7_007, 8_007, 9_007]);
    assert_eq!(table.time_passes(TIMEOUT_MS).len(), 10);
}

/// A room as plainly as can be: who is in it, in which order, and when it expires.
#[derive(Debug)]
struct PlainRoom {
    id: String,
    due_ms: u64,
    members: Vec<usize>,
}

#[derive(Debug, Clone)]
enum Step {
    Create(usize),
    /// Joins the room at this position among the live ones, or one that is not there.
    Join(usize, usize),
    Signal(usize),
    Leave(usize),
    Time(u64),
}

const CLIENTS: usize = 6;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..CLIENTS).prop_map(Step::Create),
        4 => (0..CLIENTS, 0..4_usize).prop_map(|(who, room)| Step::Join(who, room)),
        3 => (0..CLIENTS).prop_map(Step::Signal),
        1 => (0..CLIENTS).prop_map(Step::Leave),
        2 => (0..TIMEOUT_MS).prop_map(Step::Time),
    ]
}

fn without(rooms: &mut [PlainRoom], who: usize) {
    for room in rooms {
        room.members.retain(|member| *member != who);
    }
}

/// Takes one step with both and checks that they agree.
fn take(table: &mut Table, plain: &mut Vec<PlainRoom>, step: &Step) {
    match *step {
        Step::Create(who) => {
            let id = table.creates(who);
            assert!(plain.iter().all(|room| room.id != id), "the id is shared");
            without(plain, who);
            plain.push(PlainRoom { id, due_ms: table.now_ms + TIMEOUT_MS, members: vec![who] });
        }
        Step::Join(who, at) if at < plain.len() => {
            table.joins(who, &plain[at].id);
            plain[at].due_ms = table.now_ms + TIMEOUT_MS;
            if !plain[at].members.contains(&who) {
                without(plain, who);
                plain[at].members.push(who);
            }
        }
        Step::Join(who, _) => {
            assert_eq!(table.says(who, &join("0815")), [format!("{who} {NOT_FOUND}")]);
        }
        Step::Signal(who) => {
            let room = plain.iter().find(|room| room.members.contains(&who));
            let members = room.map_or(&[][..], |room| &room.members);
            let others: Vec<usize> = members.iter().copied().filter(|member| *member != who).collect();
            assert_eq!(table.heard_by(who), others);
        }
        Step::Leave(who) => {
            table.leaves(who);
            without(plain, who);
        }
        Step::Time(ms) => {
            let mut closed = table.time_passes(ms);
            let expired = plain.extract_if(.., |room| room.due_ms <= table.now_ms);
            let members = expired.flat_map(|room| room.members);
            let mut expected: Vec<String> =
                members.map(|who| format!("close {who} 1000 Room expired")).collect();
            expected.sort();
            closed.sort();
            assert_eq!(closed, expected);
        }
    }
    assert_eq!(table.rooms.len(), plain.len());
}

proptest! {
    #[test]
    fn rooms_do_what_a_plain_model_does(steps in proptest::collection::vec(step(), 0..120)) {
        let mut table = table(CLIENTS as u32);
        let mut plain = Vec::new();
        for step in &steps {
            take(&mut table, &mut plain, step);
        }
    }

    /// Whatever the payload is, it comes out as the bytes that came in.
    #[test]
    fn a_payload_passes_byte_for_byte(
        text in "\\PC*",
        number in "-?[1-9][0-9]{0,30}(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,4})?",
        blank in "[ \t\r\n]{0,3}",
    ) {
        let text = serde_json::Value::from(text).to_string();
        let payload = format!("{{{blank}{text}:[{number}{blank},\"\\ud83d\\/\"],\"senderId\" :{text}}}");
        let mut table = table(2);
        let room = table.creates(0);
        table.joins(1, &room);
        let message = format!(r#"{{"senderId":{text},{blank}"payload":{blank}{payload}{blank},"type":"signal"}}"#);
        let expected = format!(r#"0 {{"type":"signal","senderId":"ID1","payload":{payload}}}"#);
        prop_assert_eq!(table.says(1, &message), [expected]);
    }
}
