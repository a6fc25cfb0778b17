//! What shards ask for and what they are told, with the scripts on a real Redis.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::cluster::codec::{self, Draft, Header, Message, Sender};
use crate::cluster::hosts::Hosts;
use crate::cluster::{CLUSTER, Output, Settings, Token};
use crate::id::{Entropy, Slot};
use crate::metrics::ClusterMetrics;
use crate::plant::Planted;
use crate::test_redis::{Connection, Redis, Value};
use crate::wire::frame::{Opcode, ServerHeader};

const TIMEOUT_MS: u64 = 60_000;

/// The part of one host, which has one shard.
struct Host {
    rooms: Rooms,
    desk: Desk,
    redis: Connection,
    entropy: Entropy,
    told: Vec<News>,
    /// Commands fail, at once or when the test says so.
    is_away: bool,
    kept: Vec<Token>,
}

impl Host {
    fn start(redis: &Redis, id: u32) -> Self {
        let settings = Settings {
            host: HostId(id),
            start: 1,
            shards: 1,
            has_public_layouts: true,
            seed: [id as u8; 32],
            planted: Planted::default(),
        };
        let me = Sender { host: HostId(id), start: 1 };
        let hosts = Hosts::new(me, settings.planted, 0);
        let mut desk = Desk::new(&settings, hosts, Arc::new(ClusterMetrics::default()), 0);
        desk.is_up = true;
        Self {
            rooms: Rooms::default(),
            desk,
            redis: redis.connect().expect("Redis is there"),
            entropy: Entropy::from_seed([id as u8; 32]),
            told: Vec::new(),
            is_away: false,
            kept: Vec::new(),
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.desk.poll_output() {
            match output {
                Output::Command { token, .. } if self.is_away => self.kept.push(token),
                Output::Command { token, command: Command::Run { script, keys, arguments } } => {
                    let count = keys.len().to_string();
                    let mut words = vec![b"EVAL".as_slice(), script.source.as_bytes(), count.as_bytes()];
                    words.extend(keys.iter().chain(&arguments).map(Vec::as_slice));
                    let reply = match self.redis.ask(&words).expect("Redis is there") {
                        Value::Integer(number) => Reply::Integer(number),
                        Value::Bytes(bytes) => Reply::Bytes(bytes),
                        Value::Nil => Reply::Nil,
                        other => panic!("{other:?}"),
                    };
                    self.reply(token, &reply);
                }
                Output::Mail { mail: FromCluster::Rooms(news), .. } => self.told.push(news),
                other => panic!("{other:?}"),
            }
        }
    }

    fn reply(&mut self, token: Token, reply: &Reply) {
        if let Some(AnyAwaited::Rooms(awaited)) = self.desk.take_awaited(token) {
            self.rooms.handle_reply(awaited, reply, &mut self.desk);
        }
    }

    /// All that was asked has failed.
    fn fail(&mut self) {
        for token in std::mem::take(&mut self.kept) {
            self.reply(token, &Reply::Failed);
        }
        self.drain();
    }

    fn ask(&mut self, request: Request) -> Vec<News> {
        self.rooms.handle_request(ShardIndex(0), request, &mut self.desk);
        self.drain();
        std::mem::take(&mut self.told)
    }

    fn passes(&mut self, ms: u64) -> Vec<News> {
        self.desk.now_ms += ms;
        self.rooms.handle_tick(&mut self.desk);
        self.drain();
        std::mem::take(&mut self.told)
    }

    fn client(&mut self) -> ClientId {
        ClientId::new(self.desk.me, ShardIndex(0), Slot(0), &mut self.entropy)
    }

    /// The room that a client gets, if there is one.
    fn create(&mut self) -> Option<Key> {
        let client = self.client();
        let news = self.ask(Request::Create { client, timeout_ms: TIMEOUT_MS });
        match &news[..] {
            [News::Joined { client: who, key, is_new: true, hosts }] => {
                assert!(*who == client && hosts.is_empty());
                Some(*key)
            }
            [News::Refused { client: who, room: None }] if *who == client => None,
            other => panic!("{other:?}"),
        }
    }

    /// What a client finds in a room, if that is there.
    fn join(&mut self, room: RoomIndex) -> Option<(Key, Vec<HostId>)> {
        let client = self.client();
        let news = self.ask(Request::Join { client, room, timeout_ms: TIMEOUT_MS });
        match news.into_iter().next() {
            Some(News::Joined { key, is_new: false, hosts, .. }) => Some((key, hosts)),
            Some(News::Refused { room: named, .. }) if named == Some(room) => None,
            other => panic!("{other:?}"),
        }
    }
}

/// When a room expires, in milliseconds from now.
fn left_ms(redis: &Redis, key: Key) -> i64 {
    let number = |value: Value| match value {
        Value::Bytes(bytes) => std::str::from_utf8(&bytes).expect("ASCII").parse::<i64>().expect("a number"),
        other => panic!("{other:?}"),
    };
    let expiry = number(redis.ask(&["ZSCORE", "parlor:rooms", &key.room.id().to_string()]));
    let Value::List(time) = redis.ask(&["TIME"]) else { panic!() };
    let mut time = time.into_iter().map(number);
    let (seconds, micros) = (time.next().expect("seconds"), time.next().expect("microseconds"));
    expiry - seconds * 1_000 - micros / 1_000
}

fn set_expiry(redis: &Redis, key: Key, at_ms: &str) {
    redis.ask(&["ZADD", "parlor:rooms", at_ms, &key.room.id().to_string()]);
}

fn key(room: u16, seed: u8) -> Key {
    let incarnation = RoomId::new(&mut Entropy::from_seed([seed; 32]));
    Key { room: RoomIndex::of(room).expect("an id"), incarnation }
}

#[test]
fn a_room_is_found_by_its_id_on_all_hosts() {
    let redis = Redis::start();
    let (mut a, mut b) = (Host::start(&redis, 1), Host::start(&redis, 2));
    let key = a.create().expect("most are free");
    let (one, two) = (HostId(1), HostId(2));
    assert_eq!(b.join(key.room), Some((key, vec![one, two])));
    assert_eq!(a.join(key.room), Some((key, vec![one, two])), "each host once");
    assert_eq!(a.ask(Request::Leave(key)), []);
    assert_eq!(b.join(key.room), Some((key, vec![two])));
    assert_eq!(b.ask(Request::Leave(Key { room: key.room, ..self::key(1_000, 9) })), []);
    assert_eq!(b.join(key.room), Some((key, vec![two])), "another incarnation was left");
    assert_eq!(b.ask(Request::Leave(key)), []);
    assert_eq!(a.join(key.room), Some((key, vec![one])), "it lives on without members");
    let free = (1_000..).filter_map(RoomIndex::of).find(|room| *room != key.room).expect("one is taken");
    assert_eq!(a.join(free), None);
}

#[test]
fn its_time_starts_anew_with_each_join() {
    let redis = Redis::start();
    let mut a = Host::start(&redis, 1);
    let key = a.create().expect("most are free");
    let is_full = |left_ms: i64| (left_ms - TIMEOUT_MS as i64).abs() < 2_000;
    assert!(is_full(left_ms(&redis, key)));
    set_expiry(&redis, key, "99999999999999");
    let news = a.ask(Request::Expire(key));
    assert!(matches!(news[..], [News::Remaining { key: of, left_ms }] if of == key && left_ms > TIMEOUT_MS));
    assert!(a.join(key.room).is_some());
    assert!(is_full(left_ms(&redis, key)));
    // Over: who asks first ends it, and it is over for all.
    set_expiry(&redis, key, "1");
    assert_eq!(a.join(key.room), None);
    assert_eq!(a.ask(Request::Expire(key)), [News::Ended(key)]);
    assert_eq!(a.ask(Request::Expire(key)), [News::Ended(key)]);
    assert_eq!(redis.ask(&["EXISTS", "parlor:rooms", "parlor:rooms:hosts"]), Value::Integer(0));
}

#[test]
fn an_id_is_given_away_once_and_again_when_it_is_free() {
    let redis = Redis::start();
    let (mut a, mut b) = (Host::start(&redis, 1), Host::start(&redis, 2));
    let mut keys = Vec::new();
    for _ in 0..ROOMS_MAX / 2 {
        keys.push(a.create().expect("one is free"));
        keys.push(b.create().expect("one is free"));
    }
    let ids: BTreeSet<RoomIndex> = keys.iter().map(|key| key.room).collect();
    assert_eq!(ids.len(), ROOMS_MAX, "no two have one id");
    assert_eq!((a.create(), b.create()), (None, None));
    for number in [7, 4_711] {
        let expired: Key = keys[number];
        set_expiry(&redis, expired, "1");
        let new = b.create().expect("one is free");
        assert!(new.room == expired.room && new.incarnation != expired.incarnation);
        assert_eq!(b.create(), None);
        // Who knows the old one finds out, and takes nothing from the new one.
        assert_eq!(a.ask(Request::Expire(expired)), [News::Ended(expired)]);
        a.ask(Request::Leave(expired));
        assert_eq!(b.join(new.room), Some((new, vec![HostId(2)])));
    }
}

#[test]
fn rooms_are_put_back_unless_another_has_the_id() {
    let redis = Redis::start();
    let (mut a, mut b) = (Host::start(&redis, 1), Host::start(&redis, 2));
    let old = a.create().expect("most are free");
    redis.ask(&["FLUSHALL"]);
    assert_eq!(a.ask(Request::Restore { key: old, left_ms: 5_000 }), []);
    assert!((4_000..=5_000).contains(&left_ms(&redis, old)));
    let restored = [News::Restored { key: old, hosts: vec![HostId(1)] }];
    assert_eq!(b.ask(Request::Restore { key: old, left_ms: 3_000 }), restored);
    assert!(left_ms(&redis, old) > 4_000, "not less than somebody knows");
    assert_eq!(b.ask(Request::Restore { key: old, left_ms: 50_000 }), restored);
    assert!(left_ms(&redis, old) > 49_000);
    assert_eq!(a.join(old.room), Some((old, vec![HostId(1), HostId(2)])));
    let other = Key { room: old.room, ..key(1_000, 3) };
    assert_eq!(a.ask(Request::Restore { key: other, left_ms: 5_000 }), [News::Ended(other)]);
    // One that has expired is no other room's.
    set_expiry(&redis, old, "1");
    assert_eq!(a.ask(Request::Restore { key: other, left_ms: 5_000 }), []);
    assert_eq!(a.join(old.room), Some((other, vec![HostId(1)])));
}

#[test]
fn what_redis_cannot_be_asked_waits_and_not_for_ever() {
    let redis = Redis::start();
    let mut a = Host::start(&redis, 1);
    let key = a.create().expect("most are free");
    a.is_away = true;
    let (one, two) = (a.client(), a.client());
    assert_eq!(a.ask(Request::Create { client: one, timeout_ms: TIMEOUT_MS }), []);
    assert_eq!(a.ask(Request::Expire(key)), []);
    a.fail();
    assert_eq!(a.told, [News::Remaining { key, left_ms: ROOM_PAUSE_MS }], "it is asked again");
    a.told.clear();
    a.desk.is_up = false;
    let join = Request::Join { client: two, room: key.room, timeout_ms: TIMEOUT_MS };
    assert_eq!(a.ask(join), []);
    assert_eq!(a.passes(5_000), []);
    (a.is_away, a.desk.is_up) = (false, true);
    a.rooms.handle_up(&mut a.desk);
    a.drain();
    assert_eq!(std::mem::take(&mut a.told), [News::Lost], "the home puts its rooms back first");
    let news = a.ask(Request::Restored);
    assert!(matches!(news[..], [News::Joined { .. }, News::Joined { .. }]), "{news:?}");
    (a.is_away, a.desk.is_up) = (true, false);
    assert_eq!(a.ask(Request::Create { client: one, timeout_ms: TIMEOUT_MS }), []);
    assert_eq!(a.ask(join), []);
    assert_eq!(a.passes(ANSWER_MS_MAX - 1), []);
    let mut news = a.passes(1);
    news.sort_by_key(|news| !matches!(news, News::Refused { room: None, .. }));
    let refused =
        [News::Refused { client: one, room: None }, News::Refused { client: two, room: Some(key.room) }];
    assert_eq!(news, refused);
    assert_eq!(a.passes(ANSWER_MS_MAX), [], "once");
}

#[test]
fn a_room_that_another_host_has_yet_to_put_back_is_not_missing() {
    let redis = Redis::start();
    let (mut a, mut b) = (Host::start(&redis, 1), Host::start(&redis, 2));
    let room = a.create().expect("most are free");
    redis.ask(&["FLUSHALL"]);
    b.desk.now_ms = 1_000;
    b.rooms.handle_down();
    b.rooms.handle_up(&mut b.desk);
    let (early, lost) = (b.client(), b.client());
    let join = |client, room| Request::Join { client, room, timeout_ms: TIMEOUT_MS };
    assert_eq!(b.ask(join(early, room.room)), [], "not found yet");
    a.ask(Request::Restore { key: room, left_ms: 5_000 });
    let joined = News::Joined { client: early, key: room, is_new: false, hosts: vec![HostId(1), HostId(2)] };
    assert_eq!(b.passes(ROOM_PAUSE_MS), [joined]);
    // One that is nowhere is refused when all have had their time.
    let nowhere = key(if room.room == key(1_000, 1).room { 1_001 } else { 1_000 }, 1).room;
    assert_eq!(b.ask(join(lost, nowhere)), []);
    assert_eq!(b.passes(ROOM_RETURN_MS), [News::Refused { client: lost, room: Some(nowhere) }]);
}

#[test]
fn what_makes_no_sense_in_redis_is_no_room() {
    let redis = Redis::start();
    let mut a = Host::start(&redis, 1);
    let good = key(1_234, 1);
    let incarnation = String::from_utf8(good.incarnation.text().to_vec()).expect("ASCII");
    for (record, found) in [
        (String::new(), None),
        ("x".into(), None),
        ("é".repeat(40), None),
        (incarnation.to_uppercase(), None),
        (format!("{incarnation} zz 00000002 0000000g 2"), Some((good, vec![HostId(2), HostId(1)]))),
    ] {
        redis.ask(&["ZADD", "parlor:rooms", "99999999999999", "1234", "1", "abc"]);
        redis.ask(&["HSET", "parlor:rooms:hosts", "1234", &record]);
        assert_eq!(a.join(good.room), found, "{record}");
    }
    assert!(a.create().is_some());
}

fn any_key() -> impl Strategy<Value = Key> {
    (1_000..=9_999_u16, any::<u8>()).prop_map(|(room, seed)| key(room, seed))
}

fn letter() -> impl Strategy<Value = Letter> {
    let signal = (any_key(), any::<[u8; 32]>(), 0..70_000_usize).prop_map(|(key, seed, len)| {
        let from = ClientId::new(HostId(1), ShardIndex(seed[0]), Slot(0), &mut Entropy::from_seed(seed));
        let frame = [ServerHeader::new(Opcode::Text, len).as_bytes(), &vec![b'x'; len]].concat().into();
        Letter::Signal { key, from, frame }
    });
    prop_oneof![
        any_key().prop_map(|key| Letter::Note(Note::Enter(key))),
        any_key().prop_map(|key| Letter::Note(Note::Absent(key))),
        proptest::collection::vec(any_key(), 0..20).prop_map(|keys| Letter::Note(Note::Present(keys))),
        signal,
    ]
}

fn encode(letter: &Letter) -> Bytes {
    let mut draft = Draft::default();
    draft.push(CLUSTER, &AnyLetter::Rooms(letter.clone()));
    let sender = Sender { host: HostId(1), start: 2 };
    draft.finish(&Header { sender, mine: 1, yours: 1, sequence: 0, wants_answer: false })
}

proptest! {
    #[test]
    fn letters_come_out_as_they_went_in(letter in letter(), cut: prop::sample::Index, flip: prop::sample::Index) {
        let bytes = encode(&letter);
        let Ok(Message::Mail(mail)) = codec::decode(&bytes) else { panic!("it is mail") };
        prop_assert_eq!(mail.letters, vec![(CLUSTER, AnyLetter::Rooms(letter))]);
        if let Ok(Message::Mail(mail)) = codec::decode(&bytes.slice(..cut.index(bytes.len()))) {
            prop_assert!(mail.letters.is_empty());
        }
        let mut flipped = bytes.to_vec();
        flipped[flip.index(bytes.len())] ^= 0x10;
        // An error, or a letter of just these bytes.
        if let Ok(Message::Mail(mail)) = codec::decode(&flipped.clone().into())
            && let [(CLUSTER, AnyLetter::Rooms(letter))] = &mail.letters[..]
            && mail.header == (Header { sender: mail.header.sender, mine: 1, yours: 1, sequence: 0, wants_answer: false })
        {
            prop_assert_eq!(encode(letter).slice(40..), Bytes::from(flipped).slice(40..));
        }
    }
}
