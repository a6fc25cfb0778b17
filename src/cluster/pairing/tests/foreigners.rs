//! Clients of other servers: the notes that are said in their stead, and what their servers say.

use super::*;

const PARTNER_LEFT: &str = r#"{"type":"partner-left"}"#;

fn room() -> RoomId {
    RoomId::new(&mut Entropy::from_seed([8; 32]))
}

fn room_text(room: RoomId) -> String {
    String::from_utf8(room.text().to_vec()).expect("ASCII")
}

fn envelope(to: ClientId, payload: &str) -> String {
    format!(r#"{{"to":"{}","payload":{payload}}}"#, text(to))
}

fn matched(room: RoomId, partner: ClientId) -> String {
    format!(r#"{{"type":"matched","roomId":"{}","partnerId":"{}"}}"#, room_text(room), text(partner))
}

impl Host {
    fn hear(&mut self, to: ClientId, payload: &str) {
        self.push(SIGNAL_CHANNEL, &envelope(to, payload).into_bytes().into());
    }

    fn published(&mut self) -> Vec<String> {
        std::mem::take(&mut self.published).into_iter().map(|(_, text)| text).collect()
    }

    fn note(&mut self, note: Note) {
        self.request(Request::Note(note));
    }

    fn frame(&mut self, to: ClientId, room: RoomId, payload: &str) {
        let header = crate::wire::frame::ServerHeader::new(crate::wire::frame::Opcode::Text, payload.len());
        let frame = [header.as_bytes(), payload.as_bytes()].concat().into();
        self.request(Request::Frame { to, room, frame });
    }

    /// A foreign client meets waiter `number` on the list; what its shard is offered.
    fn offered(&mut self, loan: u64, number: u32, foreign: ClientId) -> (RoomId, Waiter) {
        self.list(loan, number);
        self.answer(&meet(number), met_foreign(foreign));
        let told = self.told();
        let [(shard, News::Note(Note::Offer { room, older, newer })), last] = &told[..] else {
            panic!("{told:?}")
        };
        assert_eq!((*shard, last), (newer.client.shard(), &taken(loan)));
        assert_eq!((older.client, *newer), (foreign, waiter(HERE, number)));
        (*room, *older)
    }

    /// They are partners; their room.
    fn partners(&mut self, number: u32, foreign: ClientId) -> RoomId {
        let newer = waiter(HERE, number);
        let (room, older) = self.offered(u64::from(number), number, foreign);
        self.note(Note::Accepted { room, older, newer });
        assert_eq!(self.published(), [envelope(foreign, &matched(room, newer.client))]);
        let told = News::Note(Note::Matched { room, partner: foreign, newer });
        assert_eq!(self.told(), [(newer.client.shard(), told)]);
        room
    }

    /// Its server claims our client; what the shard is told.
    fn claimed(&mut self, number: u32, foreign: ClientId) -> Waiter {
        self.hear(id(HERE, number), &matched(room(), foreign));
        let told = self.told();
        let [(_, News::Claimed { ours, room: named, foreign })] = &told[..] else { panic!("{told:?}") };
        assert_eq!((*ours, *named), (id(HERE, number), room()));
        *foreign
    }
}

fn left(number: u32, room: RoomId) -> (ShardIndex, News) {
    let to = id(HERE, number);
    (to.shard(), News::Note(Note::PartnerLeft { room, to }))
}

#[test]
fn a_foreign_waiter_is_told_when_our_side_has_been_looked_at() {
    let foreign = id(ELSEWHERE, 7);
    let mut host = Host::connected();
    let room = host.partners(1, foreign);
    assert_eq!(host.metrics.counters.pairing_matches.value(), 1);
    host.frame(foreign, room, r#"{"x": 1.50}"#);
    assert_eq!(host.published(), [envelope(foreign, r#"{"x": 1.50}"#)]);
    // Nothing for whom it is not the partner of.
    host.frame(foreign, RoomId::new(&mut Entropy::from_seed([4; 32])), "{}");
    host.frame(id(ELSEWHERE, 8), room, "{}");
    host.note(Note::PartnerLeft { room, to: foreign });
    assert_eq!(host.published(), [envelope(foreign, PARTNER_LEFT)]);
    host.note(Note::PartnerLeft { room, to: foreign });
    host.frame(foreign, room, "{}");
    host.assert_quiet();
}

#[test]
fn a_foreign_waiter_goes_back_when_ours_has_left() {
    let foreign = id(ELSEWHERE, 7);
    let mut host = Host::connected();
    let (_, older) = host.offered(0, 1, foreign);
    host.note(Note::Declined(older));
    host.answer(&put_back(foreign), waits());
    host.note(Note::Declined(older));
    host.assert_quiet();
}

#[test]
fn a_foreign_client_is_matched_once() {
    let foreign = id(ELSEWHERE, 7);
    let mut host = Host::connected();
    let (room, older) = host.offered(0, 1, foreign);
    // Once more on the list while it is offered, and while it is a partner.
    host.list(1, 2);
    host.answer(&meet(2), met_foreign(foreign));
    host.answer(&meet(2), waits());
    host.note(Note::Accepted { room, older, newer: waiter(HERE, 1) });
    host.published();
    host.told();
    host.pass_time(PAIRING_RETRY_MS);
    host.answer(&look_again(2), met_foreign(foreign));
    host.answer(&meet(2), waits());
    assert_eq!(host.metrics.counters.pairing_dropped.value(), 2);
    host.hear(id(HERE, 1), &matched(room, foreign));
    host.assert_quiet();
}

#[test]
fn a_claim_is_for_the_clients_shard_to_judge() {
    let (foreign, ours) = (id(ELSEWHERE, 7), id(HERE, 1));
    let mut host = Host::connected();
    let newer = host.claimed(1, foreign);
    host.note(Note::Matched { room: room(), partner: ours, newer });
    host.frame(foreign, room(), "{}");
    assert_eq!(host.published(), [envelope(foreign, "{}")]);
    host.hear(ours, PARTNER_LEFT);
    assert_eq!(host.told(), [left(1, room())]);
    // It does not wait.
    let newer = host.claimed(1, foreign);
    host.note(Note::Declined(newer));
    assert_eq!(host.published(), [envelope(foreign, PARTNER_LEFT)]);
    // There is no such shard.
    let nobody = ClientId::new(HERE, ShardIndex(77), Slot(0), &mut Entropy::from_seed([5; 32]));
    host.hear(nobody, &matched(room(), foreign));
    assert_eq!(host.published(), [envelope(foreign, PARTNER_LEFT)]);
    // A room that is none is drawn.
    host.hear(ours, &format!(r#"{{"type":"matched","roomId":"lobby","partnerId":"{}"}}"#, text(foreign)));
    assert!(matches!(host.told()[..], [(_, News::Claimed { .. })]));
    host.assert_quiet();
}

#[test]
fn a_claim_that_is_over_before_the_shard_has_looked() {
    let (foreign, ours) = (id(ELSEWHERE, 7), id(HERE, 1));
    let mut host = Host::connected();
    let newer = host.claimed(1, foreign);
    host.hear(ours, PARTNER_LEFT);
    host.note(Note::Matched { room: room(), partner: ours, newer });
    assert_eq!(host.told(), [left(1, room())]);
    host.hear(ours, PARTNER_LEFT);
    host.assert_quiet();
}

#[test]
fn a_foreign_client_that_is_matched_anew_has_left_the_one_before() {
    let foreign = id(ELSEWHERE, 7);
    let mut host = Host::connected();
    let before = host.partners(1, foreign);
    let newer = host.claimed(2, foreign);
    host.note(Note::Matched { room: room(), partner: id(HERE, 2), newer });
    assert_eq!(host.told(), [left(1, before)]);
    host.frame(foreign, before, "{}");
    host.note(Note::PartnerLeft { room: before, to: foreign });
    host.assert_quiet();
    host.hear(id(HERE, 2), PARTNER_LEFT);
    assert_eq!(host.told(), [left(2, room())]);
    // One that does not wait is no reason to leave the partner.
    let kept = host.partners(3, foreign);
    let newer = host.claimed(2, foreign);
    host.note(Note::Declined(newer));
    host.frame(foreign, kept, "{}");
    assert_eq!(host.published(), [envelope(foreign, "{}")]);
}

#[test]
fn messages_are_passed_on_as_they_are() {
    let (foreign, ours) = (id(ELSEWHERE, 7), id(HERE, 1));
    let mut host = Host::connected();
    let from = format!(r#""from":"{}""#, text(foreign));
    for (payload, expected) in [
        (format!(r#"{{ "type":"offer",{from},"sdp":1.50 }}"#), Some(foreign)),
        (format!(r#"{{"x":[1e400],{from},"type":"ic\u0065"}}"#), Some(foreign)),
        (r#"{"type":"answer","sdp":null}"#.to_owned(), None),
        (r#"{"type":"answer","from":"me"}"#.to_owned(), None),
    ] {
        host.hear(ours, &payload);
        let said = News::Said { to: ours, from: expected, payload: payload.into_bytes().into() };
        assert_eq!(host.told(), [(ShardIndex(1), said)]);
    }
    host.assert_quiet();
}

#[test]
fn nonsense_and_what_is_for_others_is_ignored() {
    let (foreign, ours) = (id(ELSEWHERE, 7), id(HERE, 1));
    let mut host = Host::connected();
    let messages: [&[u8]; 7] =
        [b"", b"{", b"\xff", b"[]", br#"{"to":7,"payload":{}}"#, br#"{"payload":{}}"#, br#"{"to":"x"}"#];
    for message in messages {
        host.push(SIGNAL_CHANNEL, &Bytes::copy_from_slice(message));
    }
    for payload in ["null", "[]", "7", "{}", r#"{"type":"ready"}"#, r#"{"type":"matched"}"#] {
        host.hear(ours, payload);
    }
    // Ids of ours are nobody's partners or senders here, also of hosts that are gone.
    for liar in [id(HERE, 2), id(THERE, 3)] {
        host.hear(ours, &matched(room(), liar));
        host.hear(ours, &format!(r#"{{"type":"offer","from":"{}"}}"#, text(liar)));
    }
    host.hear(ours, PARTNER_LEFT);
    assert_eq!(host.metrics.counters.pairing_ignored.value(), 7 + 6 + 4);
    // Others' clients, and what we publish ourselves.
    host.hear(id(THERE, 1), PARTNER_LEFT);
    host.hear(foreign, PARTNER_LEFT);
    host.assert_quiet();
    assert_eq!(host.metrics.counters.pairing_ignored.value(), 7 + 6 + 4);
}

#[test]
fn what_may_be_lost_ends_it() {
    let foreign = id(ELSEWHERE, 7);
    let mut host = Host::connected();
    let ended = host.partners(1, foreign);
    host.frame(foreign, ended, "{}");
    let (token, _) = host.published.remove(0);
    host.cluster.handle_reply(token, &Reply::Failed, host.now_ms);
    host.drain();
    assert_eq!(host.told(), [left(1, ended)]);
    host.assert_quiet();
    // All of it, when Redis goes.
    let first = host.partners(1, foreign);
    let (offered, older) = host.offered(9, 2, id(ELSEWHERE, 8));
    let newer = host.claimed(3, id(ELSEWHERE, 9));
    host.cluster.handle_disconnected(Connection::Subscriptions, host.now_ms);
    host.drain();
    assert_eq!(host.told(), [left(1, first)]);
    let claimed = envelope(id(ELSEWHERE, 9), PARTNER_LEFT);
    assert_eq!(host.published(), [claimed, envelope(foreign, PARTNER_LEFT)]);
    host.answer(&put_back(id(ELSEWHERE, 8)), Reply::Failed);
    host.note(Note::Accepted { room: offered, older, newer: waiter(HERE, 2) });
    assert_eq!(host.told(), [declined(2)]);
    let partner = id(HERE, 3);
    host.note(Note::Matched { room: room(), partner, newer });
    assert_eq!(host.told(), [left(3, room())]);
    host.assert_quiet();
}
