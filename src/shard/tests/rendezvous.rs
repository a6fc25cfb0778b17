//! Rendezvous over two hosts of one shard each, joined by hand: messages, and what becomes of them.

use super::*;
use crate::cluster::rendezvous::{Letter, Message, News, Request};
use crate::cluster::{self, FromCluster, Relation, ToCluster};
use crate::limits::{COPY_MAX, HOST_FRAME_BYTES_MAX, RENDEZVOUS_ANSWER_MS};
use crate::protocol::rendezvous::Role;

const CONNECTION: [u8; 64] = [b'c'; 64];
/// A host that is never there.
const NOWHERE: HostId = HostId(77);

fn host(number: u32) -> Shard {
    let limits = Limits { message_bytes_max: 1 << 26, outbox_bytes_max: 1 << 20, ..Limits::default() };
    let settings = Settings { host: HostId(number), shards: 1, has_cluster: true, limits, ..settings() };
    shard(0, &settings)
}

fn find(host: &mut Shard, number: u32) {
    host.handle_cluster_mail(FromCluster::HostFound(HostId(number), Relation(1)), 0);
}

fn two() -> (Shard, Shard) {
    let (mut one, mut other) = (host(1), host(2));
    find(&mut one, 2);
    find(&mut other, 1);
    (one, other)
}

fn enter(shard: &mut Shard, source: Role) -> Slot {
    let slot = shard.handle_accept(0).expect("there is room");
    let key = String::from_utf8(CONNECTION.to_vec()).expect("ASCII");
    let path = format!("GET /{key}?source={}&target={} HTTP", source.name(), source.other().name());
    let head = String::from_utf8(UPGRADE.to_vec()).expect("ASCII").replace("GET /ws HTTP", &path);
    shard.handle_bytes(slot, &mut head.into_bytes(), 0);
    sent(shard, slot);
    slot
}

fn id_of(shard: &mut Shard, slot: Slot) -> ClientId {
    shard.clients.at(slot).expect("it is there").id
}

fn text_of(id: ClientId) -> String {
    String::from_utf8(id.text().to_vec()).expect("ASCII")
}

/// A message whose request id has an escape, which comes back as it was.
fn message(request: &str, target: &str, payload: &str) -> String {
    format!(
        r#"{{"requestId":"{request}","method":"offer","encryptedPayload":"{payload}","targetClientId":"{target}"}}"#
    )
}

fn confirmation(request: &str) -> String {
    format!(r#"{{"info":"confirmation","requestId":"{request}"}}"#)
}

fn missing(request: &str) -> String {
    format!(r#"{{"info":"missingRemoteClientError","requestId":"{request}"}}"#)
}

/// What the shard says to the cluster.
fn said(shard: &mut Shard) -> Vec<ToCluster> {
    let mut said = Vec::new();
    shard.deliver_cluster_mail(|parcel| {
        said.push(parcel.mail);
        Ok(())
    });
    said
}

/// Hands over what one says to the other, as the cluster does. Returns how many letters that were.
fn carry(from: &mut Shard, to: &mut Shard) -> usize {
    let sender = from.settings.host;
    let mut count = 0;
    for mail in said(from) {
        if let ToCluster::Letter { letter, .. } = mail {
            to.handle_cluster_mail(FromCluster::Letter(sender, letter), 0);
            count += 1;
        }
    }
    count
}

/// Two hosts, a wallet of the one and an extension of the other.
fn pair() -> (Shard, Slot, Shard, Slot) {
    let (mut one, mut other) = two();
    let (wallet, extension) = (enter(&mut one, Role::Wallet), enter(&mut other, Role::Extension));
    for (shard, slot, role) in [(&mut one, wallet, Role::Wallet), (&mut other, extension, Role::Extension)] {
        let client = id_of(shard, slot);
        let arrived = Request::Arrived { client, connection: CONNECTION, role };
        assert_eq!(said(shard), [ToCluster::Rendezvous(arrived)]);
    }
    (one, wallet, other, extension)
}

fn texts(shard: &mut Shard, slot: Slot) -> Vec<String> {
    messages(&sent(shard, slot).0)
}

#[test]
fn a_message_is_confirmed_when_it_is_in_the_other_outbox() {
    let (mut one, wallet, mut other, extension) = pair();
    let target = text_of(id_of(&mut other, extension));
    let sender = text_of(id_of(&mut one, wallet));
    for payload in ["p", &"x".repeat(2 * COPY_MAX)] {
        let text = message(r"a\u0062", &target, payload);
        say(&mut one, wallet, &text);
        assert_eq!(texts(&mut one, wallet), [""; 0], "not yet");
        assert_eq!(carry(&mut one, &mut other), 1);
        let data = format!(
            r#"{{"info":"remoteData","data":{text},"remoteClientId":"{sender}","requestId":"a\u0062"}}"#
        );
        assert_eq!(texts(&mut other, extension), [data]);
        assert_eq!(carry(&mut other, &mut one), 1);
        assert_eq!(texts(&mut one, wallet), [confirmation(r"a\u0062")]);
    }
    assert_eq!((one.counters().rendezvous_sent.value(), other.counters().rendezvous_sent.value()), (2, 2));
    one.handle_gone(wallet, 0);
    other.handle_gone(extension, 0);
    assert_eq!(said(&mut one).len(), 1, "it has left");
    said(&mut other);
    assert_eq!((one.buffer_bytes(), other.buffer_bytes()), (0, 0), "all memory is back");
}

#[test]
fn nothing_is_read_until_a_message_is_answered() {
    let (mut one, wallet, mut other, extension) = pair();
    let target = text_of(id_of(&mut other, extension));
    let nobody = text_of(ClientId::new(HostId(1), ShardIndex(0), Slot(9), &mut Entropy::from_seed([1; 32])));
    say(&mut one, wallet, &message("1", &target, "p"));
    assert!(one.is_paused(wallet));
    say(&mut one, wallet, &message("2", &nobody, "p"));
    say(&mut one, wallet, &message("3", "foreign", "p"));
    say(&mut one, wallet, &message("4", &target, "p"));
    assert_eq!(texts(&mut one, wallet), [""; 0]);
    carry(&mut one, &mut other);
    carry(&mut other, &mut one);
    assert_eq!(texts(&mut one, wallet), [confirmation("1"), missing("2")]);
    let client = id_of(&mut one, wallet);
    let asked = said(&mut one);
    let [ToCluster::Rendezvous(Request::Message { from, number, target: named, payload })] = &asked[..]
    else {
        panic!("{asked:?}")
    };
    assert_eq!((*from, &**named), (client, b"foreign".as_slice()));
    let text = message("3", "foreign", "p");
    let data = format!(
        r#"{{"info":"remoteData","data":{text},"remoteClientId":"{}","requestId":"3"}}"#,
        text_of(client)
    );
    assert_eq!(payload, &data, "as JSON, without a header");
    let number = *number;
    let answer = |is_sent| FromCluster::Rendezvous(News::Answer { to: client, number, is_sent });
    one.handle_cluster_mail(answer(true), 0);
    carry(&mut one, &mut other);
    carry(&mut other, &mut one);
    assert_eq!(texts(&mut one, wallet), [confirmation("3"), confirmation("4")]);
    assert!(!one.is_paused(wallet));
    one.handle_cluster_mail(answer(true), 0);
    assert_eq!(texts(&mut one, wallet), [""; 0], "nothing was asked");
    assert_eq!(texts(&mut other, extension).len(), 2);
}

#[test]
fn a_host_that_is_gone_has_not_got_the_message() {
    let (mut one, wallet, mut other, extension) = pair();
    let target = text_of(id_of(&mut other, extension));
    say(&mut one, wallet, &message("1", &target, "p"));
    one.handle_cluster_mail(FromCluster::HostGone(NOWHERE), 0);
    assert_eq!(texts(&mut one, wallet), [""; 0], "it was another");
    one.handle_cluster_mail(FromCluster::HostGone(HostId(2)), 0);
    assert_eq!(texts(&mut one, wallet), [missing("1")]);
    said(&mut one);
    // The cluster says whether it is there again.
    say(&mut one, wallet, &message("2", &target, "p"));
    assert!(matches!(said(&mut one)[..], [ToCluster::Rendezvous(Request::Message { .. })]));
    let answer = News::Answer { to: id_of(&mut one, wallet), number: 1, is_sent: false };
    one.handle_cluster_mail(FromCluster::Rendezvous(answer), 0);
    assert_eq!(texts(&mut one, wallet), [missing("2")]);
}

#[test]
fn only_who_is_there_in_the_other_role_gets_a_message() {
    let (mut one, wallet, mut other, extension) = pair();
    let second = enter(&mut other, Role::Wallet);
    let (from, to) = (id_of(&mut one, wallet), id_of(&mut other, extension));
    sent(&mut other, extension);
    said(&mut other);
    let nobody = ClientId::new(HostId(2), ShardIndex(0), Slot(9), &mut Entropy::from_seed([1; 32]));
    let good = Message {
        to,
        from,
        number: 3,
        connection: CONNECTION,
        role: Role::Wallet,
        frame: b"\x81\x02{}".as_slice().into(),
    };
    let own_role = Message { to: id_of(&mut other, second), ..good.clone() };
    let elsewhere = Message { connection: [b'd'; 64], ..good.clone() };
    let gone = Message { to: nobody, ..good.clone() };
    let wrong_role = Message { role: Role::Extension, ..good.clone() };
    for (message, expected) in
        [(own_role, false), (elsewhere, false), (gone, false), (wrong_role, false), (good.clone(), true)]
    {
        other.handle_cluster_mail(letter(1, Letter::Message(message)), 0);
        let answers = said(&mut other);
        let [ToCluster::Letter { to: HostId(1), shard: ShardIndex(0), letter, .. }] = &answers[..] else {
            panic!("{answers:?}")
        };
        let answer = Letter::Answer { to: from, number: 3, is_sent: expected };
        assert_eq!(*letter, cluster::Letter::Rendezvous(answer));
    }
    assert_eq!((texts(&mut other, extension).len(), texts(&mut other, second).len()), (1, 0));
    // One that speaks for another host's client, or says what is for a cluster.
    let before = other.counters().letters_ignored.value();
    other.handle_cluster_mail(letter(3, Letter::Message(good)), 0);
    for letter_to_cluster in [Letter::Call, Letter::Heard, Letter::JustConnected { to, who: from }] {
        other.handle_cluster_mail(letter(1, letter_to_cluster), 0);
    }
    assert_eq!(other.counters().letters_ignored.value(), before + 4);
    assert!(said(&mut other).is_empty());
}

fn letter(from: u32, letter: Letter) -> FromCluster {
    FromCluster::Letter(HostId(from), cluster::Letter::Rendezvous(letter))
}

#[test]
fn nobody_but_the_host_that_was_asked_answers() {
    let (mut one, wallet, mut other, extension) = pair();
    find(&mut one, 3);
    let (from, target) = (id_of(&mut one, wallet), text_of(id_of(&mut other, extension)));
    say(&mut one, wallet, &message("1", &target, "p"));
    let answer = Letter::Answer { to: from, number: 0, is_sent: true };
    one.handle_cluster_mail(letter(3, answer.clone()), 0);
    one.handle_cluster_mail(letter(2, Letter::Answer { to: from, number: 1, is_sent: true }), 0);
    let of_cluster = News::Answer { to: from, number: 0, is_sent: true };
    one.handle_cluster_mail(FromCluster::Rendezvous(of_cluster), 0);
    assert_eq!(texts(&mut one, wallet), [""; 0]);
    one.handle_cluster_mail(letter(2, answer.clone()), 0);
    one.handle_cluster_mail(letter(2, answer), 0);
    assert_eq!(texts(&mut one, wallet), [confirmation("1")]);
    assert_eq!(one.counters().letters_ignored.value(), 3);
}

#[test]
fn nobody_waits_for_an_answer_for_ever() {
    let (mut one, wallet, mut other, extension) = pair();
    let target = text_of(id_of(&mut other, extension));
    say(&mut one, wallet, &message("1", &target, "p"));
    one.handle_tick(RENDEZVOUS_ANSWER_MS - 1);
    assert_eq!(texts(&mut one, wallet), [""; 0]);
    one.handle_tick(RENDEZVOUS_ANSWER_MS);
    assert_eq!(texts(&mut one, wallet), [missing("1")]);
    // What comes after all is not for the next one.
    say(&mut one, wallet, &message("2", &target, "p"));
    carry(&mut one, &mut other);
    for mail in said(&mut other) {
        let ToCluster::Letter { letter, .. } = mail else { panic!("{mail:?}") };
        let is_late =
            matches!(letter, cluster::Letter::Rendezvous(Letter::Answer { number: 0, is_sent: true, .. }));
        one.handle_cluster_mail(FromCluster::Letter(HostId(2), letter), RENDEZVOUS_ANSWER_MS);
        assert_eq!(texts(&mut one, wallet).is_empty(), is_late);
    }
}

#[test]
fn who_leaves_is_not_answered() {
    let (mut one, wallet, mut other, extension) = pair();
    let target = text_of(id_of(&mut other, extension));
    say(&mut one, wallet, &message("1", &target, &"p".repeat(COPY_MAX)));
    one.handle_gone(wallet, 0);
    let newcomer = enter(&mut one, Role::Wallet);
    assert_eq!(newcomer, wallet, "in its place");
    carry(&mut one, &mut other);
    carry(&mut other, &mut one);
    assert_eq!(texts(&mut one, newcomer), [""; 0]);
    one.handle_gone(newcomer, 0);
    said(&mut one);
    assert_eq!(one.buffer_bytes(), 0);
}

#[test]
fn one_that_is_closed_for_it_did_not_get_the_message() {
    let (mut one, wallet, mut other, extension) = pair();
    let target = text_of(id_of(&mut other, extension));
    // It does not read, and its outbox may not grow so far.
    for request in ["1", "2", "3"] {
        say(&mut one, wallet, &message(request, &target, &"p".repeat(600_000)));
        carry(&mut one, &mut other);
        carry(&mut other, &mut one);
    }
    assert_eq!(texts(&mut one, wallet), [confirmation("1"), missing("2"), missing("3")]);
    let told = texts(&mut other, extension);
    assert_eq!(told.len(), 2);
    assert_eq!(told[1], "close 1013 too slow");
}

#[test]
fn a_message_that_redis_could_not_carry_closes_its_sender() {
    let (mut one, wallet, mut other, extension) = pair();
    for target in [text_of(id_of(&mut other, extension)), "foreign".into()] {
        let sender = if target == "foreign" { enter(&mut one, Role::Wallet) } else { wallet };
        said(&mut one);
        say(&mut one, sender, &message("1", &target, &"x".repeat(HOST_FRAME_BYTES_MAX)));
        assert_eq!(texts(&mut one, sender), ["close 1009 message too big"]);
        assert!(
            said(&mut one).iter().all(|mail| matches!(mail, ToCluster::Rendezvous(Request::Left { .. })))
        );
    }
}

#[test]
fn what_the_cluster_delivers_goes_to_who_is_there() {
    let (mut one, wallet, _, _) = pair();
    let to = id_of(&mut one, wallet);
    let nobody = ClientId::new(HostId(1), ShardIndex(0), wallet, &mut Entropy::from_seed([2; 32]));
    let payload: bytes::Bytes = r#"{"a":1}"#.into();
    for news in [
        News::Deliver { to, payload: payload.clone() },
        News::DeliverAll(vec![(nobody, payload.clone()), (to, payload.clone())]),
        News::DeliverPublished { to, payload: payload.clone() },
        News::DeliverPublished { to, payload: vec![b'x'; (1 << 20) + 1].into() },
    ] {
        one.handle_cluster_mail(FromCluster::Rendezvous(news), 0);
    }
    assert_eq!(texts(&mut one, wallet), [r#"{"a":1}"#; 3]);
    assert_eq!((one.counters().rendezvous_sent.value(), one.counters().ignored.value()), (3, 1));
}

#[test]
fn without_a_cluster_nobody_is_asked() {
    let mut alone = shard(0, &Settings { shards: 1, ..settings() });
    let wallet = enter(&mut alone, Role::Wallet);
    say(&mut alone, wallet, &message("1", "foreign", "p"));
    assert_eq!(texts(&mut alone, wallet), [missing("1")]);
    alone.handle_gone(wallet, 0);
    assert!(said(&mut alone).is_empty());
}
