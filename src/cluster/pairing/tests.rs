//! A host's cluster between its shards, Redis and other hosts, all played by the tests: what comes in, and what goes out.

mod foreigners;
mod redis;

use std::sync::Arc;

use super::*;
use crate::cluster::codec::{self, Draft, Header, Heartbeat, Sender};
use crate::cluster::{
    CLUSTER, Cluster, Command, Connection, HEARTBEAT_CHANNEL, Output, Settings, ToCluster, Token,
};
use crate::id::{Entropy, Slot};
use crate::limits::{
    PAIRING_ASK_MS, PAIRING_MATCH_MS, PAIRING_PASSED_OVER_MAX, PAIRING_RETRY_MS, PAIRING_STRAY_MS,
};
use crate::metrics::ClusterMetrics;
use crate::plant::Planted;
use crate::protocol::pairing::Ticket;

const HERE: HostId = HostId(0xaa);
const THERE: HostId = HostId(0xbb);
/// Of no host.
const ELSEWHERE: HostId = HostId(0xff);
const HOME: ShardIndex = ShardIndex(0);

/// A host that is connected, what it has said, and another host that it knows.
struct Host {
    cluster: Cluster,
    metrics: Arc<ClusterMetrics>,
    now_ms: u64,
    /// What it asked Redis for pairing and was not answered, in short.
    asked: Vec<(Token, String)>,
    /// What it published for foreign clients.
    published: Vec<(Token, String)>,
    /// What it wrote to the other host.
    written: Vec<(ShardIndex, crate::cluster::Letter)>,
    told: Vec<(ShardIndex, News)>,
    sequence: u64,
    /// Its number of the relation to the other host.
    mine: u64,
}

fn id(host: HostId, number: u32) -> ClientId {
    let shard = ShardIndex((number % 2) as u8);
    ClientId::new(host, shard, Slot(number), &mut Entropy::from_seed([number as u8; 32]))
}

fn waiter(host: HostId, number: u32) -> Waiter {
    Waiter { client: id(host, number), ticket: Ticket::new(u64::from(number)) }
}

fn text(id: ClientId) -> String {
    String::from_utf8(id.text().to_vec()).expect("ASCII")
}

impl Host {
    fn new(has_public_layouts: bool) -> Self {
        let metrics = Arc::new(ClusterMetrics::default());
        let settings = Settings {
            host: HERE,
            start: 1,
            shards: 2,
            has_public_layouts,
            seed: [3; 32],
            planted: Planted::default(),
        };
        let cluster = Cluster::new(&settings, Arc::clone(&metrics), 0);
        let (asked, published, written, told) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { cluster, metrics, now_ms: 0, asked, published, written, told, sequence: 0, mine: 0 }
    }

    /// It is connected, and has a relation to the other host.
    fn connected() -> Self {
        let mut host = Self::new(true);
        host.connect();
        host.meet_other();
        host
    }

    fn connect(&mut self) {
        self.cluster.handle_connected(Connection::Commands, self.now_ms);
        self.drain();
        self.subscribe();
    }

    fn subscribe(&mut self) {
        for channel in [HEARTBEAT_CHANNEL, b"parlor:host:000000aa", SIGNAL_CHANNEL] {
            self.cluster.handle_subscribed(channel, self.now_ms);
        }
        self.drain();
    }

    fn meet_other(&mut self) {
        let beat = Heartbeat { sender: self.other(), number: 0, is_leaving: false };
        self.push(HEARTBEAT_CHANNEL, &codec::encode_heartbeat(&beat));
        assert!(self.mine > 0, "the other was told");
        self.post(None);
        assert_eq!(self.metrics.counters.hosts.value(), 1);
    }

    fn other(&self) -> Sender {
        Sender { host: THERE, start: 1 }
    }

    /// The other host writes this, or that it is there.
    fn post(&mut self, letter: Option<Letter>) {
        self.post_to(CLUSTER, letter.map(crate::cluster::Letter::Pairing));
    }

    fn post_to(&mut self, shard: ShardIndex, letter: Option<crate::cluster::Letter>) {
        let mut draft = Draft::default();
        let count = u64::from(letter.is_some());
        if let Some(letter) = letter {
            draft.push(shard, &letter);
        }
        let sender = self.other();
        let header =
            Header { sender, mine: 5, yours: self.mine, sequence: self.sequence, wants_answer: false };
        self.sequence += count;
        self.push(b"parlor:host:000000aa", &draft.finish(&header));
    }

    fn push(&mut self, channel: &[u8], payload: &Bytes) {
        self.cluster.handle_push(channel, payload, self.now_ms);
        self.drain();
    }

    fn lose_other(&mut self) {
        let beat = Heartbeat { sender: self.other(), number: 1, is_leaving: true };
        self.push(HEARTBEAT_CHANNEL, &codec::encode_heartbeat(&beat));
        assert_eq!(self.metrics.counters.hosts.value(), 0);
    }

    fn request(&mut self, request: Request) {
        self.cluster.handle_mail(HOME, ToCluster::Pairing(request), self.now_ms);
        self.drain();
    }

    fn list(&mut self, loan: u64, number: u32) {
        let waiter = waiter(HERE, number);
        self.request(Request::Queue(Errand::List { loan: Loan(loan), waiter }));
    }

    fn recall(&mut self, loan: u64) {
        self.request(Request::Queue(Errand::Recall(Loan(loan))));
    }

    fn forget(&mut self, loan: u64) {
        self.request(Request::Queue(Errand::Forget(Loan(loan))));
    }

    fn pass_time(&mut self, ms: u64) {
        // In steps, as a host that stood still would give up all others. Its own heartbeats come back.
        for _ in 0..ms / 100 {
            self.now_ms += 100;
            let own = Heartbeat { sender: Sender { host: HERE, start: 1 }, number: 0, is_leaving: false };
            let other = Heartbeat { sender: self.other(), number: 0, is_leaving: false };
            for beat in [own, other] {
                self.cluster.handle_push(HEARTBEAT_CHANNEL, &codec::encode_heartbeat(&beat), self.now_ms);
            }
            self.cluster.handle_tick(self.now_ms);
            self.drain();
        }
    }

    /// What it is asked for last must be this; Redis answers.
    #[expect(clippy::needless_pass_by_value, reason = "replies are made where they are given")]
    fn answer(&mut self, asked: &str, reply: Reply) {
        assert!(!self.asked.is_empty(), "{asked} was not asked for");
        let (token, command) = self.asked.remove(0);
        assert_eq!(command, asked);
        self.cluster.handle_reply(token, &reply, self.now_ms);
        self.drain();
    }

    fn told(&mut self) -> Vec<(ShardIndex, News)> {
        std::mem::take(&mut self.told)
    }

    fn written(&mut self) -> Vec<(ShardIndex, crate::cluster::Letter)> {
        self.cluster.handle_turn_end();
        self.drain();
        std::mem::take(&mut self.written)
    }

    /// The one letter to the other host's cluster.
    fn letter(&mut self) -> Letter {
        match &self.written()[..] {
            [(CLUSTER, crate::cluster::Letter::Pairing(letter))] => *letter,
            other => panic!("{other:?}"),
        }
    }

    fn assert_quiet(&mut self) {
        assert_eq!(self.asked, []);
        assert_eq!(self.published, []);
        assert_eq!(self.told(), []);
        assert_eq!(self.written(), []);
    }

    fn drain(&mut self) {
        while let Some(output) = self.cluster.poll_output() {
            match output {
                Output::Command { token, command } => self.note_command(token, command),
                Output::Mail { to, mail: FromCluster::Pairing(news) } => self.told.push((to, news)),
                _ => {}
            }
        }
    }

    fn note_command(&mut self, token: Token, command: Command) {
        let short = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        match command {
            Command::Publish { channel, payload } if channel == SIGNAL_CHANNEL => {
                self.published.push((token, short(&payload)));
            }
            Command::Publish { channel, payload } if channel.starts_with(b"parlor:host:") => {
                if let Ok(codec::Message::Mail(mail)) = codec::decode(&payload) {
                    self.mine = mail.header.mine;
                    self.written.extend(mail.letters);
                }
            }
            Command::Publish { .. } => {}
            Command::ListRemove { key, member } => {
                self.asked.push((token, format!("remove {} {}", short(&key), short(&member))));
            }
            Command::Run { keys, arguments, .. } if keys[0] == b"parlor:hosts" => {
                assert_eq!(arguments[0], b"000000aa");
                self.cluster.handle_reply(token, &Reply::List(vec![b"000000aa".to_vec()]), self.now_ms);
            }
            Command::Run { script, keys, arguments } => {
                let name = if script.source.contains("missing") { "meet" } else { "put back" };
                let arguments: Vec<String> = arguments.iter().map(|one| short(one)).collect();
                self.asked.push((token, format!("{name} {} {}", short(&keys[0]), arguments.join(" "))));
            }
            other => panic!("{other:?}"),
        }
    }
}

fn reply(words: &[&str]) -> Reply {
    Reply::List(words.iter().map(|word| word.as_bytes().to_vec()).collect())
}

fn waits() -> Reply {
    reply(&["waits"])
}

fn met_ours(id: ClientId) -> Reply {
    reply(&["met", &text(id), "ours"])
}

fn met_foreign(id: ClientId) -> Reply {
    reply(&["met", &text(id), "foreign"])
}

fn meet(number: u32) -> String {
    format!("meet webrtc:waiting {} 0", text(id(HERE, number)))
}

fn look_again(number: u32) -> String {
    format!("meet webrtc:waiting {} 1", text(id(HERE, number)))
}

fn remove(number: u32) -> String {
    format!("remove webrtc:waiting {}", text(id(HERE, number)))
}

fn put_back(id: ClientId) -> String {
    format!("put back webrtc:waiting {}", text(id))
}

fn recalled(loan: u64) -> (ShardIndex, News) {
    (HOME, News::Recalled(Loan(loan)))
}

fn taken(loan: u64) -> (ShardIndex, News) {
    (HOME, News::Taken(Loan(loan)))
}

fn declined(number: u32) -> (ShardIndex, News) {
    let waiter = waiter(HERE, number);
    (waiter.client.shard(), News::Note(Note::Declined(waiter)))
}

/// A host whose waiter 1, loan 0, has met a client of the other host; the room that it asked for.
fn asking(theirs: ClientId) -> (Host, RoomId) {
    let mut host = Host::connected();
    host.list(0, 1);
    host.answer(&meet(1), met_ours(theirs));
    let Letter::Take { theirs: asked, ours, room } = host.letter() else { panic!("not asked") };
    assert_eq!((asked, ours), (theirs, waiter(HERE, 1)));
    (host, room)
}

#[test]
fn a_waiter_is_listed_and_comes_off_when_it_is_wanted_back() {
    let mut host = Host::connected();
    host.list(0, 1);
    host.answer(&meet(1), waits());
    host.recall(0);
    host.answer(&remove(1), Reply::Integer(1));
    assert_eq!(host.told(), [recalled(0)]);
    host.recall(0);
    host.assert_quiet();
}

#[test]
fn one_that_is_wanted_back_early_comes_off_as_soon_as_it_is_on() {
    let mut host = Host::connected();
    host.list(0, 1);
    host.recall(0);
    assert_eq!(host.told(), []);
    host.answer(&meet(1), waits());
    host.answer(&remove(1), Reply::Integer(1));
    assert_eq!(host.told(), [recalled(0)]);
    host.assert_quiet();
}

#[test]
fn one_that_somebody_has_taken_waits_anew_if_nothing_comes_of_it() {
    let mut host = Host::connected();
    host.list(0, 1);
    host.answer(&meet(1), waits());
    host.recall(0);
    host.answer(&remove(1), Reply::Integer(0));
    assert_eq!(host.told(), [taken(0)]);
    host.pass_time(PAIRING_MATCH_MS - 100);
    host.assert_quiet();
    host.pass_time(100);
    assert_eq!(host.told(), [declined(1)]);
    // Whoever had it may have put it back.
    host.answer(&remove(1), Reply::Integer(1));
    host.pass_time(PAIRING_MATCH_MS);
    host.assert_quiet();
}

#[test]
fn a_listed_one_is_looked_after_every_second() {
    let mut host = Host::connected();
    host.list(0, 1);
    host.answer(&meet(1), waits());
    host.pass_time(PAIRING_RETRY_MS - 100);
    host.assert_quiet();
    host.pass_time(100);
    host.answer(&look_again(1), waits());
    host.pass_time(PAIRING_RETRY_MS);
    host.answer(&look_again(1), reply(&["missing"]));
    assert_eq!(host.told(), [taken(0)]);
}

#[test]
fn one_that_leaves_comes_off_without_a_word() {
    let mut host = Host::connected();
    host.list(0, 1);
    host.answer(&meet(1), waits());
    host.forget(0);
    host.answer(&remove(1), Reply::Integer(1));
    // Before Redis has answered: it may meet somebody. One of another host of ours is missed there, and listed anew.
    host.list(1, 2);
    host.forget(1);
    host.answer(&meet(2), met_ours(id(THERE, 3)));
    host.answer(&remove(2), Reply::Integer(0));
    host.assert_quiet();
    // A foreign one goes back.
    host.list(2, 4);
    host.forget(2);
    host.answer(&meet(4), met_foreign(id(ELSEWHERE, 3)));
    host.answer(&remove(4), Reply::Integer(1));
    host.answer(&put_back(id(ELSEWHERE, 3)), Reply::Integer(1));
    host.assert_quiet();
}

/// Somebody else had it when it was to be taken off, and may have put it back since.
#[test]
fn one_that_has_left_is_looked_for_once_more() {
    let mut host = Host::connected();
    host.list(0, 1);
    host.answer(&meet(1), waits());
    host.forget(0);
    host.answer(&remove(1), Reply::Integer(0));
    host.pass_time(PAIRING_STRAY_MS - 100);
    host.assert_quiet();
    host.pass_time(100);
    // Redis is away: it is looked for when that is back.
    host.answer(&remove(1), Reply::Failed);
    host.cluster.handle_disconnected(Connection::Commands, host.now_ms);
    host.connect();
    host.answer(&remove(1), Reply::Integer(0));
    host.pass_time(PAIRING_STRAY_MS);
    host.answer(&remove(1), Reply::Integer(0));
    host.pass_time(PAIRING_STRAY_MS);
    host.assert_quiet();
}

/// It is listed anew after Redis was away, and never missed: somebody may have had it, who puts it back.
#[test]
fn one_that_was_listed_twice_is_looked_for_when_its_wait_is_over() {
    let mut host = Host::connected();
    host.list(0, 1);
    host.answer(&meet(1), waits());
    host.cluster.handle_disconnected(Connection::Commands, host.now_ms);
    host.connect();
    host.answer(&meet(1), waits());
    host.recall(0);
    host.answer(&remove(1), Reply::Integer(1));
    assert_eq!(host.told(), [recalled(0)]);
    // While it waits again it may be there.
    host.pass_time(PAIRING_STRAY_MS - 100);
    host.assert_quiet();
    host.list(1, 1);
    host.answer(&meet(1), waits());
    host.pass_time(100);
    host.assert_quiet();
    host.forget(1);
    host.answer(&remove(1), Reply::Integer(1));
    host.pass_time(PAIRING_STRAY_MS);
    host.answer(&remove(1), Reply::Integer(1));
    host.assert_quiet();
}

/// Its host has missed it by then; and if its client has left, it is not looked for any more.
#[test]
fn who_is_passed_over_late_does_not_go_back() {
    let unreached = id(HostId(0xcc), 7);
    let mut host = Host::connected();
    host.list(0, 1);
    host.pass_time(PAIRING_ASK_MS);
    host.answer(&meet(1), met_ours(unreached));
    host.answer(&format!("{} {}", meet(1), text(unreached)), waits());
    host.assert_quiet();
}

#[test]
fn a_client_of_another_host_is_asked_for_first() {
    let theirs = waiter(THERE, 7);
    let (mut host, room) = asking(theirs.client);
    host.post(Some(Letter::Offer { room, older: theirs, newer: waiter(HERE, 1) }));
    let offer = News::Note(Note::Offer { room, older: theirs, newer: waiter(HERE, 1) });
    assert_eq!(host.told(), [(ShardIndex(1), offer), taken(0)]);
    assert_eq!(host.metrics.counters.pairing_matches.value(), 1);
    // If nothing comes of it, it waits anew.
    host.pass_time(PAIRING_MATCH_MS);
    assert_eq!(host.told(), [declined(1)]);
}

#[test]
fn an_offer_that_nobody_waits_for_is_declined() {
    let theirs = waiter(THERE, 7);
    let (mut host, room) = asking(theirs.client);
    let declined = [(theirs.client.shard(), crate::cluster::Letter::Note(Note::Declined(theirs)))];
    // Of another room, for another client, by one who may not, or too late.
    let other_room = RoomId::new(&mut Entropy::from_seed([9; 32]));
    host.post(Some(Letter::Offer { room: other_room, older: theirs, newer: waiter(HERE, 1) }));
    assert_eq!(host.written(), declined);
    host.post(Some(Letter::Offer { room, older: theirs, newer: waiter(HERE, 2) }));
    assert_eq!(host.written(), declined);
    host.post(Some(Letter::Offer { room, older: waiter(ELSEWHERE, 7), newer: waiter(HERE, 1) }));
    host.assert_quiet();
    host.forget(0);
    host.post(Some(Letter::Offer { room, older: theirs, newer: waiter(HERE, 1) }));
    assert_eq!(host.written(), declined);
    host.assert_quiet();
    assert_eq!(host.metrics.counters.pairing_ignored.value(), 1);
}

#[test]
fn who_is_refused_goes_on_with_the_next() {
    let (mut host, room) = asking(id(THERE, 7));
    host.post(Some(Letter::Refused { room: RoomId::new(&mut Entropy::from_seed([9; 32])) }));
    host.assert_quiet();
    host.post(Some(Letter::Refused { room }));
    host.answer(&meet(1), waits());
    host.assert_quiet();
    assert_eq!(host.metrics.counters.pairing_dropped.value(), 1);
}

#[test]
fn who_is_not_answered_goes_on_with_the_next() {
    let (mut host, _) = asking(id(THERE, 7));
    host.pass_time(PAIRING_ASK_MS);
    host.answer(&meet(1), waits());
    let (mut host, room) = asking(id(THERE, 7));
    host.lose_other();
    host.answer(&meet(1), waits());
    host.assert_quiet();
    let _ = room;
}

#[test]
fn one_that_is_wanted_back_while_another_host_is_asked() {
    let theirs = waiter(THERE, 7);
    let (mut host, room) = asking(theirs.client);
    host.recall(0);
    host.assert_quiet();
    host.post(Some(Letter::Offer { room, older: theirs, newer: waiter(HERE, 1) }));
    assert_eq!(host.told()[1], taken(0), "the other one is older than who came to the queue");
    let (mut host, room) = asking(theirs.client);
    host.recall(0);
    host.post(Some(Letter::Refused { room }));
    assert_eq!(host.told(), [recalled(0)]);
    host.assert_quiet();
}

#[test]
fn our_waiter_is_given_to_a_host_that_has_taken_it() {
    let (newer, room) = (waiter(THERE, 7), RoomId::new(&mut Entropy::from_seed([9; 32])));
    let take = Letter::Take { theirs: id(HERE, 1), ours: newer, room };
    let offer = Letter::Offer { room, older: waiter(HERE, 1), newer };
    let mut host = Host::connected();
    // Nobody waits; nor does another of that host's own, or a client of a third one, count.
    host.post(Some(take));
    assert_eq!(host.letter(), Letter::Refused { room });
    host.list(0, 1);
    host.answer(&meet(1), waits());
    host.post(Some(Letter::Take { theirs: id(HERE, 1), ours: waiter(ELSEWHERE, 7), room }));
    host.assert_quiet();
    host.post(Some(take));
    assert_eq!((host.told(), host.letter()), (vec![taken(0)], offer));
    host.answer(&remove(1), Reply::Integer(1));
    host.post(Some(take));
    assert_eq!(host.letter(), Letter::Refused { room }, "once");
    host.pass_time(PAIRING_MATCH_MS);
    assert_eq!(host.told(), [declined(1)], "the other may be gone by now");
    // While it is wanted back, and before Redis has said that it is on the list.
    host.list(1, 1);
    host.post(Some(take));
    assert_eq!((host.told(), host.letter()), (vec![taken(1)], offer));
    host.answer(&meet(1), waits());
    host.answer(&remove(1), Reply::Integer(0));
    host.list(2, 1);
    host.answer(&meet(1), waits());
    host.recall(2);
    host.post(Some(take));
    assert_eq!((host.told(), host.letter()), (vec![taken(2)], offer));
    host.answer(&remove(1), Reply::Integer(0));
    host.answer(&remove(1), Reply::Integer(0));
    // When it was found missing.
    host.list(3, 1);
    host.answer(&meet(1), waits());
    host.pass_time(PAIRING_RETRY_MS);
    host.answer(&look_again(1), reply(&["missing"]));
    assert_eq!(host.told(), [taken(3)]);
    host.post(Some(take));
    assert_eq!(host.letter(), offer);
    host.assert_quiet();
}

#[test]
fn one_of_this_host_that_turns_up_again_is_matched_here() {
    let mut host = Host::connected();
    host.list(0, 1);
    host.answer(&meet(1), waits());
    host.recall(0);
    host.answer(&remove(1), Reply::Integer(0));
    host.told();
    // Whoever had it has put it back.
    host.list(1, 2);
    host.answer(&meet(2), met_ours(id(HERE, 1)));
    let told = host.told();
    let [(ShardIndex(0), News::Note(Note::Offer { older, newer, .. })), last] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!((*older, *newer, last), (waiter(HERE, 1), waiter(HERE, 2), &taken(1)));
    host.assert_quiet();
}

#[test]
fn ids_that_are_nobodys_are_dropped() {
    let mut host = Host::connected();
    host.list(0, 1);
    for nobody in ["", "x", &text(id(ELSEWHERE, 7)).to_uppercase(), &text(id(HERE, 9))] {
        host.answer(&meet(1), reply(&["met", nobody, "foreign"]));
    }
    host.answer(&meet(1), waits());
    host.assert_quiet();
    assert_eq!(host.metrics.counters.pairing_dropped.value(), 4);
}

/// A host that is on the roll and was never heard, for as long as it may come.
#[test]
fn one_whose_host_cannot_be_reached_goes_back_until_that_is_gone() {
    let unreached = id(HostId(0xcc), 7);
    let goes_on = |number| format!("{} {}", meet(number), text(unreached));
    let mut host = Host::connected();
    host.list(0, 1);
    host.answer(&meet(1), met_ours(unreached));
    host.answer(&put_back(unreached), Reply::Integer(1));
    host.answer(&goes_on(1), waits());
    // It is asked for anew each time.
    host.pass_time(PAIRING_RETRY_MS);
    host.answer(&look_again(1), met_ours(unreached));
    host.recall(0);
    host.answer(&put_back(unreached), Reply::Integer(1));
    host.answer(&goes_on(1), waits());
    host.answer(&remove(1), Reply::Integer(1));
    assert_eq!(host.told(), [recalled(0)]);
    host.list(1, 2);
    host.recall(1);
    host.answer(&meet(2), met_ours(unreached));
    host.answer(&put_back(unreached), Reply::Integer(1));
    assert_eq!(host.told(), [recalled(1)]);
    host.pass_time(5_000);
    // It was to go onto the list more than once.
    host.answer(&remove(1), Reply::Integer(0));
    host.list(2, 3);
    host.answer(&meet(3), met_ours(unreached));
    host.answer(&meet(3), waits());
    host.assert_quiet();
}

#[test]
fn there_is_an_end_to_passing_over() {
    let mut host = Host::connected();
    host.list(0, 1);
    let mut passed_over = BTreeSet::new();
    for number in 0..=PAIRING_PASSED_OVER_MAX as u32 {
        let unreached = id(HostId(0x1000 + number), 7);
        let texts: String = passed_over.iter().map(|id| format!(" {}", text(*id))).collect();
        host.answer(&format!("{}{texts}", meet(1)), met_ours(unreached));
        host.answer(&put_back(unreached), Reply::Integer(1));
        passed_over.insert(unreached);
    }
    host.assert_quiet();
    host.pass_time(PAIRING_RETRY_MS);
    host.answer(&meet(1), waits());
    host.recall(0);
    host.answer(&remove(1), Reply::Integer(1));
    assert_eq!(host.told(), [recalled(0)]);
}

#[test]
fn a_host_that_is_found_may_have_waiters() {
    let mut host = Host::new(true);
    host.connect();
    host.list(0, 1);
    host.answer(&meet(1), waits());
    host.meet_other();
    host.answer(&look_again(1), waits());
    host.assert_quiet();
}

#[test]
fn without_redis_waiters_are_kept_and_given_back_at_once() {
    let mut host = Host::new(true);
    host.list(0, 1);
    host.recall(0);
    assert_eq!(host.told(), [recalled(0)]);
    host.list(1, 2);
    host.pass_time(3_000);
    host.assert_quiet();
    // Listed as soon as what others say of it would be heard.
    host.cluster.handle_connected(Connection::Commands, host.now_ms);
    host.cluster.handle_subscribed(HEARTBEAT_CHANNEL, host.now_ms);
    host.cluster.handle_subscribed(b"parlor:host:000000aa", host.now_ms);
    host.drain();
    host.assert_quiet();
    host.cluster.handle_subscribed(SIGNAL_CHANNEL, host.now_ms);
    host.drain();
    host.answer(&meet(2), waits());
    host.assert_quiet();
}

#[test]
fn a_redis_that_comes_back_is_told_who_waits_and_who_no_longer_does() {
    let mut host = Host::connected();
    host.list(0, 1);
    host.answer(&meet(1), waits());
    host.cluster.handle_disconnected(Connection::Commands, host.now_ms);
    host.drain();
    // Its id is still there, for all that is known.
    host.forget(0);
    host.answer(&remove(1), Reply::Failed);
    host.list(1, 2);
    host.assert_quiet();
    host.connect();
    host.answer(&remove(1), Reply::Integer(1));
    host.answer(&meet(2), waits());
    host.assert_quiet();
}

#[test]
fn what_redis_did_not_answer_is_asked_again() {
    let mut host = Host::connected();
    host.list(0, 1);
    host.answer(&meet(1), Reply::Failed);
    host.pass_time(PAIRING_RETRY_MS);
    host.answer(&meet(1), reply(&["what?"]));
    host.pass_time(PAIRING_RETRY_MS);
    host.answer(&meet(1), waits());
    host.recall(0);
    host.answer(&remove(1), Reply::Failed);
    assert_eq!(host.told(), [recalled(0)]);
    host.answer(&remove(1), Reply::Integer(1));
    // One that is wanted back is not waited for.
    host.list(1, 2);
    host.recall(1);
    host.answer(&meet(2), Reply::Failed);
    assert_eq!(host.told(), [recalled(1)]);
    host.answer(&remove(2), Reply::Integer(0));
    host.assert_quiet();
}

/// The other host takes it off the list, and asks for it when it has gone there once more.
#[test]
fn who_was_listed_anew_is_taken_off_again_when_another_host_has_it() {
    let (newer, room) = (waiter(THERE, 7), RoomId::new(&mut Entropy::from_seed([9; 32])));
    let mut host = Host::connected();
    host.list(0, 1);
    host.answer(&meet(1), waits());
    host.post(Some(Letter::Take { theirs: id(HERE, 1), ours: newer, room }));
    assert_eq!(host.letter(), Letter::Offer { room, older: waiter(HERE, 1), newer });
    assert_eq!(host.told(), [taken(0)]);
    host.answer(&remove(1), Reply::Integer(1));
    host.assert_quiet();
}

/// An answer from before the subscriptions were lost says nothing about what was asked after.
#[test]
fn an_answer_to_an_old_question_is_not_taken_for_a_new_one() {
    let mut host = Host::connected();
    host.list(0, 1);
    host.cluster.handle_disconnected(Connection::Subscriptions, host.now_ms);
    host.drain();
    host.subscribe();
    host.answer(&meet(1), waits());
    host.answer(&meet(1), met_foreign(id(ELSEWHERE, 7)));
    assert_eq!(host.told().last(), Some(&taken(0)));
    host.assert_quiet();
}

#[test]
fn one_that_is_wanted_back_when_redis_goes_is_given_back() {
    let mut host = Host::connected();
    host.list(0, 1);
    host.answer(&meet(1), waits());
    host.recall(0);
    host.cluster.handle_disconnected(Connection::Commands, host.now_ms);
    host.drain();
    assert_eq!(host.told(), [recalled(0)]);
    host.answer(&remove(1), Reply::Failed);
    host.answer(&remove(1), Reply::Failed);
    host.assert_quiet();
}

#[test]
fn a_shutdown_takes_our_waiter_off_the_list() {
    let mut host = Host::connected();
    host.list(0, 1);
    host.answer(&meet(1), waits());
    host.cluster.handle_shutdown(host.now_ms);
    host.drain();
    host.answer(&remove(1), Reply::Integer(1));
    host.list(1, 2);
    host.recall(1);
    assert_eq!(host.told(), [recalled(1)], "nobody is listed any more");
    host.assert_quiet();
}

#[test]
fn what_is_said_to_clients_that_are_gone_is_answered_for_them() {
    let mut host = Host::connected();
    let (gone, ours) = (waiter(HostId(0xcc), 7), waiter(HERE, 1));
    let room = RoomId::new(&mut Entropy::from_seed([9; 32]));
    host.request(Request::Note(Note::Accepted { room, older: gone, newer: ours }));
    assert_eq!(host.told(), [declined(1)]);
    host.request(Request::Note(Note::Matched { room, partner: ours.client, newer: gone }));
    let left = News::Note(Note::PartnerLeft { room, to: ours.client });
    assert_eq!(host.told(), [(ShardIndex(1), left)]);
    for note in [Note::Declined(gone), Note::PartnerLeft { room, to: gone.client }] {
        host.request(Request::Note(note));
    }
    host.request(Request::Frame { to: gone.client, room, frame: b"\x81\x02hi".as_slice().into() });
    host.assert_quiet();
}

#[test]
fn a_fleet_of_its_own_has_a_list_of_its_own() {
    let mut host = Host::new(false);
    host.connect();
    host.list(0, 1);
    let ours = text(id(HERE, 1));
    host.answer(&format!("meet parlor:waiting {ours} 0"), met_foreign(id(ELSEWHERE, 7)));
    host.answer(&format!("meet parlor:waiting {ours} 0"), waits());
    let claim = format!(r#"{{"to":"{ours}","payload":{{"type":"partner-left"}}}}"#);
    host.push(SIGNAL_CHANNEL, &claim.into_bytes().into());
    host.assert_quiet();
    assert_eq!(host.metrics.counters.pairing_dropped.value(), 1);
}

#[test]
fn letters_come_out_as_they_went_in_and_nothing_else_does() {
    let (room, one, other) =
        (RoomId::new(&mut Entropy::from_seed([9; 32])), waiter(HERE, 1), waiter(THERE, 2));
    for letter in [
        Letter::Take { theirs: one.client, ours: other, room },
        Letter::Offer { room, older: one, newer: other },
        Letter::Refused { room },
    ] {
        let mut draft = Draft::default();
        draft.push(CLUSTER, &crate::cluster::Letter::Pairing(letter));
        let sender = Sender { host: THERE, start: 1 };
        let header = Header { sender, mine: 5, yours: 6, sequence: 0, wants_answer: false };
        let empty = Draft::default().finish(&header).len();
        let bytes = draft.finish(&header);
        let Ok(codec::Message::Mail(mail)) = codec::decode(&bytes) else { panic!("{letter:?}") };
        assert_eq!(mail.letters, [(CLUSTER, crate::cluster::Letter::Pairing(letter))]);
        for cut in empty + 1..bytes.len() {
            assert_eq!(codec::decode(&bytes.slice(..cut)), Err(Error::TooShort), "{letter:?} to {cut}");
        }
        // Behind the shard and the kind of the letter stands its own kind, and behind that an id.
        for (at, error) in [(empty + 2, Error::UnknownKind(0x70)), (empty + 9, Error::WrongId)] {
            let mut changed = bytes.to_vec();
            changed[at] = 0x70;
            assert_eq!(codec::decode(&changed.into()), Err(error), "{letter:?}");
        }
    }
}
