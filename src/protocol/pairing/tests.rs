//! Inputs and the actions that follow, each line of protocols.md section 1.

use super::*;
use crate::id::{HostId, ShardIndex, Slot};
use crate::protocol;
use crate::wire::envelope::Parser;

/// Two clients on two shards and the queue, with the notes between them by hand.
struct Table {
    pairing: Pairing,
    entropy: Entropy,
    parser: Parser,
}

fn table() -> Table {
    Table {
        pairing: Pairing::new(true, false, Planted::default()),
        entropy: Entropy::from_seed([3; 32]),
        parser: Parser::default(),
    }
}

impl Table {
    fn client(&mut self, slot: u32) -> (ClientId, State) {
        (ClientId::new(HostId(9), ShardIndex(0), Slot(slot), &mut self.entropy), State::default())
    }

    fn says(&mut self, (id, state): &mut (ClientId, State), message: &str) -> Actions {
        let mut out = Actions::new();
        let envelope = self.parser.parse(message.as_bytes());
        self.pairing.handle_message(state, *id, envelope.as_ref().map_err(|e| *e), &mut out);
        out
    }

    /// Delivers a note and returns what follows.
    fn note(&mut self, note: Note, client: Option<&mut (ClientId, State)>) -> Actions {
        let mut out = Actions::new();
        let state = client.map(|(id, state)| {
            assert_eq!(note.addressee(), Some(*id));
            state
        });
        self.pairing.handle_note(note, state, &mut self.entropy, &mut out);
        out
    }

    /// Brings the newer one's wait to the queue and the offer to the newer one's shard.
    fn accepted(&mut self, wait: Note, newer: &mut (ClientId, State)) -> Note {
        let offer = only_note(&self.note(wait, None));
        only_note(&self.note(offer, Some(newer)))
    }

    /// Lets both wait and matches them; returns the room.
    fn pair(&mut self, a: &mut (ClientId, State), b: &mut (ClientId, State)) -> RoomId {
        let wait_a = only_note(&self.says(a, r#"{"type":"available"}"#));
        let wait_b = only_note(&self.says(b, r#"{"type":"available"}"#));
        assert_eq!(self.note(wait_a, None), []);
        let accepted = self.accepted(wait_b, b);
        let matched = last_note(&self.note(accepted, Some(a)));
        self.note(matched, Some(b));
        a.1.room().expect("paired")
    }
}

fn only_note(actions: &Actions) -> Note {
    assert_eq!(actions.len(), 1, "{actions:?}");
    last_note(actions)
}

fn last_note(actions: &Actions) -> Note {
    let note = actions.iter().rev().find_map(|action| match action {
        Action::Notify { note, .. } => Some(*note),
        _ => None,
    });
    note.unwrap_or_else(|| panic!("no note: {actions:?}"))
}

/// The text of the first reply or forward.
fn text(actions: &Actions, message: &str) -> String {
    let mut bytes = Vec::new();
    let parts = actions.iter().find_map(|action| match action {
        Action::Reply(parts) | Action::Forward { parts, .. } => Some(parts),
        _ => None,
    });
    let Some(parts) = parts else { panic!("nothing is sent: {actions:?}") };
    protocol::write(parts, message.as_bytes(), |piece| bytes.extend_from_slice(piece));
    assert_eq!(bytes.len(), protocol::len_of(parts));
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn a_match_is_told_to_the_older_first() {
    let mut table = table();
    let (mut a, mut b) = (table.client(1), table.client(2));
    let wait_a = only_note(&table.says(&mut a, r#"{"type":"available"}"#));
    let wait_b = only_note(&table.says(&mut b, r#"{"type":"available"}"#));
    assert_eq!(table.note(wait_a, None), []);
    let offer = table.note(wait_b, None);
    assert_eq!(offer.len(), 1);
    let Note::Offer { room, older, newer } = last_note(&offer) else { panic!("{offer:?}") };
    assert_eq!((older.client, newer.client), (a.0, b.0));
    let accepted = only_note(&table.note(last_note(&offer), Some(&mut b)));
    assert_eq!(b.1.room(), None, "it is told only when the older one is in the room");
    let to_a = table.note(accepted, Some(&mut a));
    let (room_text, b_text) =
        (String::from_utf8(room.text().to_vec()), String::from_utf8(b.0.text().to_vec()));
    let expected = format!(
        r#"{{"type":"matched","roomId":"{}","partnerId":"{}"}}"#,
        room_text.expect("ASCII"),
        b_text.expect("ASCII")
    );
    assert_eq!(text(&to_a, ""), expected);
    let to_b = table.note(last_note(&to_a), Some(&mut b));
    assert!(text(&to_b, "").contains(&String::from_utf8(a.0.text().to_vec()).expect("ASCII")));
    assert_eq!(a.1.partner(), Some((room, b.0)));
    assert_eq!(b.1.partner(), Some((room, a.0)));
    assert_eq!(table.pairing.waiting(), None);
}

#[test]
fn only_the_one_field_is_relayed_byte_for_byte() {
    let mut table = table();
    let (mut a, mut b) = (table.client(1), table.client(2));
    let room = table.pair(&mut a, &mut b);
    let from = String::from_utf8(a.0.text().to_vec()).expect("ASCII");
    for (message, expected) in [
        (r#"{"type":"offer","sdp":"v=0\r\n"}"#, r#"{"type":"offer","from":"ID","sdp":"v=0\r\n"}"#),
        (
            r#"{"sdp": {"a" : 1.50} ,"x":1,"type":"answer"}"#,
            r#"{"type":"answer","from":"ID","sdp":{"a" : 1.50}}"#,
        ),
        (r#"{"type":"ice","from":"me","candidate":null}"#, r#"{"type":"ice","from":"ID","candidate":null}"#),
        (r#"{"type":"ice","sdp":"not this"}"#, r#"{"type":"ice","from":"ID"}"#),
        (r#"{"type":"\u0069ce","candidate":1e400}"#, r#"{"type":"ice","from":"ID","candidate":1e400}"#),
        (r#"{"type":"offer","sdp":1,"sdp":2}"#, r#"{"type":"offer","from":"ID","sdp":2}"#),
    ] {
        let actions = table.says(&mut a, message);
        assert!(matches!(actions[..], [Action::Forward { to, room: r, .. }] if to == b.0 && r == room));
        assert_eq!(text(&actions, message), expected.replace("ID", &from));
    }
}

#[test]
fn errors_are_those_of_the_contract() {
    let mut table = table();
    let (mut a, mut b) = (table.client(1), table.client(2));
    let cases = [
        ("", INVALID_FORMAT),
        ("hello", INVALID_FORMAT),
        ("null", INVALID_FORMAT),
        ("7", UNKNOWN_TYPE),
        ("[]", UNKNOWN_TYPE),
        ("{}", UNKNOWN_TYPE),
        (r#"{"type":7}"#, UNKNOWN_TYPE),
        (r#"{"type":"matched"}"#, UNKNOWN_TYPE),
        (r#"{"type":"offer","sdp":""}"#, NOT_PAIRED),
        (r#"{"type":"next"}"#, NOT_PAIRED),
    ];
    for (message, expected) in cases {
        assert_eq!(text(&table.says(&mut a, message), message), expected, "{message}");
    }
    assert_eq!(text(&table.says(&mut a, r#"{"type":"ping"}"#), ""), r#"{"type":"pong"}"#);
    assert_eq!(table.says(&mut a, r#"{"type":"leave"}"#), [], "never an error");
    assert_eq!(table.says(&mut a, r#"{"type":"auth","userId":"u","token":"t"}"#), []);
    assert_eq!(a.1.user_id(), Some("u"));
    table.pair(&mut a, &mut b);
    assert_eq!(text(&table.says(&mut a, r#"{"type":"available"}"#), ""), ALREADY_PAIRED);
}

#[test]
fn who_waits_already_is_not_queued_twice_and_next_leaves_it_waiting() {
    let mut table = table();
    let mut a = table.client(1);
    let wait = only_note(&table.says(&mut a, r#"{"type":"available"}"#));
    assert_eq!(table.says(&mut a, r#"{"type":"available"}"#), []);
    assert_eq!(text(&table.says(&mut a, r#"{"type":"next"}"#), ""), NOT_PAIRED);
    assert!(a.1.is_waiting());
    table.note(wait, None);
    table.note(wait, None);
    assert_eq!(table.pairing.waiting(), Some(a.0), "nobody is matched with itself");
}

#[test]
fn the_one_who_is_left_is_told_and_waits_again() {
    for requeue in [true, false] {
        let mut table = table();
        table.pairing.requeue = requeue;
        let (mut a, mut b) = (table.client(1), table.client(2));
        let room = table.pair(&mut a, &mut b);
        let left = only_note(&table.says(&mut a, r#"{"type":"next"}"#));
        assert_eq!(left, Note::PartnerLeft { room, to: b.0 });
        let told = table.note(left, Some(&mut b));
        assert_eq!(text(&told, ""), r#"{"type":"partner-left"}"#);
        assert_eq!((told.len(), b.1.is_waiting()), if requeue { (2, true) } else { (1, false) });
        assert_eq!(table.note(left, Some(&mut b)), [], "a stale room changes nothing");
    }
}

#[test]
fn both_say_next_at_once() {
    let mut table = table();
    let (mut a, mut b) = (table.client(1), table.client(2));
    table.pair(&mut a, &mut b);
    let to_b = only_note(&table.says(&mut a, r#"{"type":"next"}"#));
    let to_a = only_note(&table.says(&mut b, r#"{"type":"next"}"#));
    assert_eq!(table.note(to_b, Some(&mut b)), []);
    assert_eq!(table.note(to_a, Some(&mut a)), []);
    assert!(!a.1.is_waiting() && !b.1.is_waiting());
}

/// Two that wait: the older one's wait is in the queue, the newer one's on its way.
fn two_that_wait(table: &mut Table) -> ((ClientId, State), (ClientId, State), Note) {
    let (mut a, mut b) = (table.client(1), table.client(2));
    let wait_a = only_note(&table.says(&mut a, r#"{"type":"available"}"#));
    let wait_b = only_note(&table.says(&mut b, r#"{"type":"available"}"#));
    table.note(wait_a, None);
    (a, b, wait_b)
}

#[test]
fn a_match_with_an_older_one_who_is_gone_puts_the_newer_back() {
    let mut table = table();
    let (_, mut b, wait_b) = two_that_wait(&mut table);
    let accepted = table.accepted(wait_b, &mut b);
    let declined = only_note(&table.note(accepted, None));
    let waits_on = only_note(&table.note(declined, Some(&mut b)));
    assert!(matches!((waits_on, wait_b), (Note::Wait(now), Note::Wait(before))
        if now.client == b.0 && now.ticket != before.ticket));
    assert_eq!(table.note(declined, Some(&mut b)), [], "what is said about the old ticket comes too late");
    table.says(&mut b, r#"{"type":"leave"}"#);
    let Note::Wait(waiter) = waits_on else { unreachable!() };
    assert_eq!(table.note(Note::Declined(waiter), Some(&mut b)), [], "b has gone too");
}

#[test]
fn an_offer_to_a_newer_one_who_is_gone_puts_the_older_back_untold() {
    let mut table = table();
    let (mut a, mut b, wait_b) = two_that_wait(&mut table);
    table.says(&mut b, r#"{"type":"leave"}"#);
    let offer = only_note(&table.note(wait_b, None));
    let declined = only_note(&table.note(offer, Some(&mut b)));
    assert!(
        matches!(only_note(&table.note(declined, Some(&mut a))), Note::Wait(waiter) if waiter.client == a.0)
    );
    assert!(a.1.is_waiting());
}

#[test]
fn a_client_that_left_and_came_back_is_not_matched_on_its_old_ticket() {
    let mut table = table();
    let (mut a, mut b, wait_b) = two_that_wait(&mut table);
    let accepted = table.accepted(wait_b, &mut b);
    table.says(&mut a, r#"{"type":"leave"}"#);
    table.says(&mut a, r#"{"type":"available"}"#);
    assert!(
        matches!(only_note(&table.note(accepted, Some(&mut a))), Note::Declined(waiter) if waiter.client == b.0)
    );
    assert!(a.1.is_waiting());
}

#[test]
fn a_match_that_the_newer_one_missed_is_undone() {
    let mut table = table();
    let (mut a, mut b, wait_b) = two_that_wait(&mut table);
    let accepted = table.accepted(wait_b, &mut b);
    let matched = last_note(&table.note(accepted, Some(&mut a)));
    table.says(&mut b, r#"{"type":"leave"}"#);
    let left = only_note(&table.note(matched, Some(&mut b)));
    assert_eq!(text(&table.note(left, Some(&mut a)), ""), r#"{"type":"partner-left"}"#);
    assert!(a.1.is_waiting());
}

#[test]
fn leaving_takes_one_out_of_the_queue() {
    let mut table = table();
    let mut a = table.client(1);
    let wait = only_note(&table.says(&mut a, r#"{"type":"available"}"#));
    table.note(wait, None);
    let unwait = only_note(&table.says(&mut a, r#"{"type":"leave"}"#));
    table.note(unwait, None);
    assert_eq!(table.pairing.waiting(), None);
}
