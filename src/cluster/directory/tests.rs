//! Hosts over a real Redis, with nobody behind them: what is published reaches each when the test says so, or never.

use std::collections::VecDeque;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::cluster::codec::{self, Draft, Header, Message, Sender};
use crate::cluster::{Cluster, Connection as Way, Output, Settings, ToCluster, Token, channel_of};
use crate::id::{Entropy, Slot};
use crate::limits::{ANSWER_MS_MAX, DIRECTORY_NAMES_MAX};
use crate::metrics::ClusterMetrics;
use crate::plant::Planted;
use crate::test_redis::{Connection, Redis, Value};
use crate::wire::frame::{Opcode, ServerHeader};

/// A channel that all listen to: what was published before is there when this is.
const MARK: &[u8] = b"mark";

/// A host of one shard.
struct Host {
    id: HostId,
    cluster: Cluster,
    metrics: Arc<ClusterMetrics>,
    commands: Connection,
    subscriptions: Connection,
    /// What was published and the host has not heard.
    pushes: VecDeque<(Vec<u8>, Bytes)>,
    /// Commands are kept, and not carried out.
    is_cut_off: bool,
    kept: Vec<(Token, Command)>,
    told: Vec<FromCluster>,
    marks: u64,
    entropy: Entropy,
    now_ms: u64,
}

impl Host {
    fn start(redis: &Redis, id: u32) -> Self {
        let metrics: Arc<ClusterMetrics> = Arc::default();
        let settings = Settings {
            host: HostId(id),
            start: 1,
            shards: 1,
            has_public_layouts: true,
            seed: [id as u8; 32],
            planted: Planted::default(),
        };
        let connect = || redis.connect().expect("Redis is there");
        let mut host = Self {
            id: HostId(id),
            cluster: Cluster::new(&settings, Arc::clone(&metrics), 0),
            metrics,
            commands: connect(),
            subscriptions: connect(),
            pushes: VecDeque::new(),
            is_cut_off: false,
            kept: Vec::new(),
            told: Vec::new(),
            marks: 0,
            entropy: Entropy::from_seed([id as u8; 32]),
            now_ms: 0,
        };
        host.subscriptions.say(&[b"SUBSCRIBE", MARK]).expect("Redis is there");
        host.connect();
        host
    }

    fn connect(&mut self) {
        self.cluster.handle_connected(Way::Commands, self.now_ms);
        self.cluster.handle_connected(Way::Subscriptions, self.now_ms);
        self.drain();
    }

    fn disconnect(&mut self) {
        self.cluster.handle_disconnected(Way::Commands, self.now_ms);
        self.cluster.handle_disconnected(Way::Subscriptions, self.now_ms);
        for (token, _) in std::mem::take(&mut self.kept) {
            self.cluster.handle_reply(token, &Reply::Failed, self.now_ms);
        }
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.cluster.poll_output() {
            match output {
                Output::Command { token, command } if self.is_cut_off => self.kept.push((token, command)),
                Output::Command { token, command } => self.carry_out(token, &command),
                Output::Subscribe(channel) => {
                    self.subscriptions.say(&[b"SUBSCRIBE", &channel]).expect("Redis is there");
                }
                Output::Mail { mail, .. } => self.told.push(mail),
                Output::Remark(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn carry_out(&mut self, token: Token, command: &Command) {
        let reply = match command {
            Command::Publish { channel, payload } => self.commands.ask(&[b"PUBLISH", channel, payload]),
            Command::Run { script, keys, arguments } => {
                let count = keys.len().to_string();
                let mut words = vec![b"EVAL".as_slice(), script.source.as_bytes(), count.as_bytes()];
                words.extend(keys.iter().chain(arguments).map(Vec::as_slice));
                self.commands.ask(&words)
            }
            other => panic!("{other:?}"),
        };
        let reply = Reply::from(reply.expect("Redis is there"));
        self.cluster.handle_reply(token, &reply, self.now_ms);
    }

    /// Fetches all that was published so far.
    fn fetch(&mut self) {
        self.marks += 1;
        let mark = format!("{} {}", self.id, self.marks).into_bytes();
        self.commands.ask(&[b"PUBLISH", MARK, &mark]).expect("Redis is there");
        loop {
            let Value::List(items) = self.subscriptions.next().expect("Redis is there") else { panic!() };
            match &items[..] {
                [Value::Bytes(kind), Value::Bytes(channel), _] if kind == b"subscribe" => {
                    self.cluster.handle_subscribed(channel, self.now_ms);
                    self.drain();
                }
                [_, Value::Bytes(channel), Value::Bytes(payload)] if channel == MARK => {
                    if *payload == mark {
                        return;
                    }
                }
                [_, Value::Bytes(channel), Value::Bytes(payload)] => {
                    self.pushes.push_back((channel.clone(), Bytes::copy_from_slice(payload)));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Hears the next of what was published.
    fn hear(&mut self) -> bool {
        let Some((channel, payload)) = self.pushes.pop_front() else { return false };
        self.cluster.handle_push(&channel, &payload, self.now_ms);
        self.drain();
        true
    }

    fn ask(&mut self, request: Request) {
        self.cluster.handle_mail(ShardIndex(0), ToCluster::Directory(request), self.now_ms);
        self.drain();
    }

    fn client(&mut self) -> ClientId {
        ClientId::new(self.id, ShardIndex(0), Slot(0), &mut self.entropy)
    }

    fn log_in(&mut self, name: &str) -> ClientId {
        let client = self.client();
        self.ask(Request::Login { client, name: name.into() });
        client
    }

    fn write(&mut self, to: HostId, letter: &Letter) {
        let relation = self.cluster.hosts().relation(to).expect("it was found");
        let letter = AnyLetter::Directory(letter.clone());
        let mail = ToCluster::Letter { to, relation, shard: crate::cluster::CLUSTER, letter };
        self.cluster.handle_mail(ShardIndex(0), mail, self.now_ms);
        self.cluster.handle_turn_end();
        self.drain();
    }

    fn passes(&mut self, ms: u64) {
        self.now_ms += ms;
        self.cluster.handle_tick(self.now_ms);
        self.drain();
    }

    /// What the shard was told since it was asked last, a word each: who came, went, and so on.
    fn news(&mut self) -> Vec<String> {
        let names = |entries: &[Entry]| {
            entries.iter().map(|entry| entry.name.to_string()).collect::<Vec<_>>().join(",")
        };
        let told = std::mem::take(&mut self.told);
        let told = told.iter().filter_map(|mail| match mail {
            FromCluster::Directory(News::Came(entries)) => Some(format!("came {}", names(entries))),
            FromCluster::Directory(News::Went(_)) => Some("went".into()),
            FromCluster::Directory(News::Refused(_)) => Some("refused".into()),
            FromCluster::Directory(News::Busy(_)) => Some("busy".into()),
            FromCluster::Directory(News::Frame { frame, .. }) => Some(format!("frame {}", frame.len())),
            FromCluster::Letter(_, AnyLetter::Directory(_)) => Some("letter".into()),
            FromCluster::HostGone(_) => Some("host gone".into()),
            _ => None,
        });
        told.collect()
    }
}

/// All hear what was published, until nothing more is.
fn settle(hosts: &mut [&mut Host]) {
    loop {
        let mut is_quiet = true;
        for host in &mut *hosts {
            host.fetch();
            while host.hear() {
                is_quiet = false;
            }
        }
        if is_quiet {
            return;
        }
    }
}

/// So many milliseconds pass in steps that no host takes for a pause.
fn pass(hosts: &mut [&mut Host], ms: u64) {
    for _ in 0..ms.div_ceil(250) {
        hosts.iter_mut().for_each(|host| host.passes(250));
        settle(hosts);
    }
}

/// What was told so far is not looked at.
fn forget(hosts: &mut [&mut Host]) {
    hosts.iter_mut().for_each(|host| host.told.clear());
}

fn two(redis: &Redis) -> (Host, Host) {
    let (mut a, mut b) = (Host::start(redis, 0xaa), Host::start(redis, 0xbb));
    pass(&mut [&mut a, &mut b], 2_000);
    assert!(a.cluster.hosts().relation(b.id).is_some() && b.cluster.hosts().relation(a.id).is_some());
    (a, b)
}

fn frame(len: usize) -> Bytes {
    [ServerHeader::new(Opcode::Text, len).as_bytes(), &vec![b'x'; len]].concat().into()
}

fn names_in(redis: &Redis) -> Vec<String> {
    let Value::List(items) = redis.ask(&["HKEYS", "parlor:directory"]) else { panic!() };
    let name = |item| match item {
        Value::Bytes(bytes) => String::from_utf8(bytes).expect("ASCII"),
        other => panic!("{other:?}"),
    };
    let mut names: Vec<String> = items.into_iter().map(name).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_host_that_logs_nobody_in_asks_for_nothing() {
    let redis = Redis::start();
    let (mut a, mut b) = two(&redis);
    a.log_in("one");
    pass(&mut [&mut a, &mut b], 2_000);
    assert_eq!(a.news(), ["came one"]);
    assert_eq!(b.news(), [""; 0]);
    // Nor does it keep what nobody can hear.
    let from = a.client();
    a.write(b.id, &Letter { from, to: None, frame: frame(1) });
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.news(), ["letter"]);
    b.log_in("two");
    settle(&mut [&mut a, &mut b]);
    assert_eq!((a.news(), b.news()), (vec!["came two".to_owned()], vec!["came one,two".to_owned()]));
}

#[test]
fn redis_order_is_everybodys() {
    let redis = Redis::start();
    let (mut a, mut b) = two(&redis);
    let one = a.log_in("one");
    b.log_in("two");
    settle(&mut [&mut a, &mut b]);
    forget(&mut [&mut a, &mut b]);
    // Neither hears anything before all of it was asked.
    b.log_in("three");
    a.log_in("three");
    a.ask(Request::Logout(one));
    b.log_in("one");
    settle(&mut [&mut a, &mut b]);
    // Ours leave our shard by themselves; the refused one is told by the answer.
    assert_eq!(a.news(), ["refused", "came three", "came one"]);
    assert_eq!(b.news(), ["came three", "went", "came one"]);
    assert_eq!(names_in(&redis), ["one", "three", "two"]);
}

#[test]
fn what_is_lost_is_read_and_told_once() {
    let redis = Redis::start();
    let (mut a, mut b) = two(&redis);
    a.log_in("one");
    b.log_in("two");
    settle(&mut [&mut a, &mut b]);
    forget(&mut [&mut a, &mut b]);
    // Nobody hears of one change; the next one shows that.
    pass(&mut [&mut a, &mut b], 1_000);
    a.log_in("three");
    b.fetch();
    let lost = b.pushes.pop_back().expect("a change");
    assert_eq!(lost.0, LIST);
    a.log_in("four");
    b.fetch();
    while b.hear() {}
    assert_eq!(b.news(), ["came three,four"]);
    // Late, and twice, it counts no more.
    b.pushes.push_front(lost);
    pass(&mut [&mut a, &mut b], 1_000);
    assert_eq!(b.news(), [""; 0]);
    // One's own login is promised by the answer.
    b.log_in("five");
    b.fetch();
    b.pushes.clear();
    assert_eq!(b.news(), [""; 0]);
    pass(&mut [&mut a, &mut b], 1_000);
    assert_eq!(b.news(), ["came five"]);
    assert_eq!(a.news(), ["came three", "came four", "came five"]);
}

#[test]
fn letters_wait_while_the_list_is_read() {
    let redis = Redis::start();
    let (mut a, mut b) = two(&redis);
    let one = a.log_in("one");
    let to = b.log_in("two");
    settle(&mut [&mut a, &mut b]);
    pass(&mut [&mut a, &mut b], 1_000);
    forget(&mut [&mut a, &mut b]);
    b.is_cut_off = true;
    // A change is missing, and the list cannot be read yet.
    let three = a.log_in("three");
    b.fetch();
    b.pushes.pop_back();
    a.log_in("four");
    for (from, to, len) in [(three, Some(to), 1), (one, None, 2), (three, None, 3)] {
        a.write(b.id, &Letter { from, to, frame: frame(len) });
    }
    a.ask(Request::Logout(three));
    b.fetch();
    while b.hear() {}
    assert_eq!(b.news(), [""; 0]);
    b.is_cut_off = false;
    for (token, command) in std::mem::take(&mut b.kept) {
        b.carry_out(token, &command);
    }
    b.drain();
    // The list was read when three had left already.
    assert_eq!(b.news(), ["came four", "frame 3", "frame 4", "frame 5"]);
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.news(), [""; 0]);
    // Without an end of that, a loss would not be silent.
    b.is_cut_off = true;
    a.log_in("five");
    b.fetch();
    b.pushes.pop_back();
    b.now_ms += 600;
    a.log_in("six");
    b.fetch();
    while b.hear() {}
    let letter = Letter { from: one, to: None, frame: frame(1 << 20) };
    for _ in 0..20 {
        a.write(b.id, &letter);
        b.fetch();
        while b.hear() {}
    }
    assert!(b.news().contains(&"host gone".to_owned()));
}

#[test]
fn a_letter_speaks_for_its_own_host_alone() {
    let redis = Redis::start();
    let (mut a, mut b) = two(&redis);
    let one = a.log_in("one");
    let two = b.log_in("two");
    settle(&mut [&mut a, &mut b]);
    b.news();
    for (from, to) in [(two, None), (one, Some(one)), (two, Some(two))] {
        a.write(b.id, &Letter { from, to, frame: frame(1) });
    }
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.news(), ["letter"; 3], "the shard counts them");
}

#[test]
fn noise_in_the_channel_confuses_nobody() {
    let redis = Redis::start();
    let (mut a, mut b) = two(&redis);
    let one = a.log_in("one");
    let two = b.log_in("two");
    settle(&mut [&mut a, &mut b]);
    pass(&mut [&mut a, &mut b], 1_000);
    forget(&mut [&mut a, &mut b]);
    let text = |client: ClientId| String::from_utf8(client.text().to_vec()).expect("ASCII");
    let stranger =
        text(ClientId::new(HostId(0xcc), ShardIndex(0), Slot(1), &mut Entropy::from_seed([9; 32])));
    let (one_text, two_text) = (text(one), text(two));
    let noise = [
        String::new(),
        "+".into(),
        "3 +".into(),
        format!("3 + {one_text}"),
        format!("3 * {one_text} three"),
        format!("-3 + {one_text} three"),
        format!("+3 + {one_text} three"),
        format!("99999999999999999999999 + {one_text} three"),
        format!("3 + {one_text} a b"),
        format!("3 + {one_text} {}", "x".repeat(65)),
        format!("3 + {} three", one_text.to_uppercase()),
    ];
    let count = noise.len() as u64;
    for text in noise {
        redis.ask(&["PUBLISH", "parlor:directory", &text]);
    }
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.metrics.counters.messages_refused.value(), count);
    // What makes sense is believed until the list says otherwise; nobody is shown whose host nobody knows.
    for text in [
        format!("3 + {stranger} strange"),
        format!("4 - {two_text} two"),
        format!("5 + {one_text} twice"),
        format!("18446744073709551615 - {one_text} one"),
    ] {
        redis.ask(&["PUBLISH", "parlor:directory", &text]);
        pass(&mut [&mut a, &mut b], 1_000);
    }
    pass(&mut [&mut a, &mut b], 3_000);
    assert_eq!(names_in(&redis), ["one", "two"]);
    forget(&mut [&mut a, &mut b]);
    a.ask(Request::Logout(one));
    pass(&mut [&mut a, &mut b], 3_000);
    assert_eq!(b.news(), ["went"]);
    assert_eq!(a.metrics.counters.panics.value() + b.metrics.counters.panics.value(), 0);
}

#[test]
fn what_makes_no_sense_in_the_hash_is_nobodys() {
    let redis = Redis::start();
    for (name, value) in [("free", "no entry"), ("too bad", "1 x"), ("x", ""), ("held", "1 somebody")] {
        redis.ask(&["HSET", "parlor:directory", name, value]);
    }
    let mut a = Host::start(&redis, 0xaa);
    settle(&mut [&mut a]);
    for name in ["free", "held", "x"] {
        a.log_in(name);
    }
    pass(&mut [&mut a], 1_000);
    assert_eq!(a.news(), ["came free,held,x"]);
}

#[test]
fn the_names_of_hosts_that_are_gone_are_free() {
    let redis = Redis::start();
    let (mut a, mut b) = two(&redis);
    a.log_in("one");
    a.log_in("two");
    b.log_in("three");
    settle(&mut [&mut a, &mut b]);
    b.news();
    drop(a);
    // It is silent, and its names go with it.
    pass(&mut [&mut b], 6_000);
    assert_eq!(b.news(), ["host gone"]);
    assert_eq!(names_in(&redis), ["three"]);
    b.log_in("one");
    settle(&mut [&mut b]);
    assert_eq!(b.news(), ["came one"]);
    // One that nobody has seen die: as soon as it is certain that it is not there.
    drop(b);
    let mut c = Host::start(&redis, 0xcc);
    settle(&mut [&mut c]);
    c.log_in("three");
    pass(&mut [&mut c], 2_000);
    assert_eq!(c.news(), [""; 0], "its host may come yet");
    pass(&mut [&mut c], 6_000);
    assert_eq!(c.news(), ["came three"]);
    assert_eq!(names_in(&redis), ["three"], "what is left over is removed");
}

#[test]
fn a_redis_that_forgets_is_told_again() {
    let redis = Redis::start();
    let (mut a, mut b) = two(&redis);
    for name in ["one", "two", "three"] {
        a.log_in(name);
    }
    let four = b.log_in("four");
    settle(&mut [&mut a, &mut b]);
    pass(&mut [&mut a, &mut b], 1_000);
    forget(&mut [&mut a, &mut b]);
    redis.ask(&["FLUSHALL"]);
    b.ask(Request::Logout(four));
    b.log_in("five");
    pass(&mut [&mut a, &mut b], 3_000);
    assert_eq!(names_in(&redis), ["five", "one", "three", "two"]);
    let (at_a, at_b) = (a.news().join(" "), b.news().join(" "));
    assert!(!at_b.contains("went") && at_b.contains("five"), "{at_b}");
    assert_eq!(at_a.matches("went").count(), 1, "four has left in between: {at_a}");
    // A name that another host has in the meantime is lost.
    b.is_cut_off = true;
    redis.ask(&["FLUSHALL"]);
    a.log_in("five");
    settle(&mut [&mut a]);
    b.is_cut_off = false;
    b.fetch();
    for (token, command) in std::mem::take(&mut b.kept) {
        b.carry_out(token, &command);
    }
    pass(&mut [&mut a, &mut b], 3_000);
    let at_b = b.news();
    let refused = at_b.iter().position(|news| news == "refused").expect("it is told");
    let came = at_b.iter().rposition(|news| news.split([' ', ',']).any(|name| name == "five"));
    assert!(came.is_some_and(|came| refused < came), "first lost, then another's: {at_b:?}");
}

#[test]
fn a_login_waits_for_redis_and_not_for_ever() {
    let redis = Redis::start();
    let (mut a, mut b) = two(&redis);
    a.log_in("one");
    settle(&mut [&mut a, &mut b]);
    a.news();
    a.is_cut_off = true;
    let late = a.log_in("late");
    a.disconnect();
    a.log_in("later");
    a.now_ms += 3_000;
    a.passes(0);
    assert_eq!(a.news(), ["host gone"]);
    a.is_cut_off = false;
    a.connect();
    a.cluster.handle_subscribed(crate::cluster::HEARTBEAT_CHANNEL, a.now_ms);
    a.cluster.handle_subscribed(&channel_of(a.id), a.now_ms);
    a.cluster.handle_subscribed(LIST, a.now_ms);
    a.drain();
    settle(&mut [&mut a]);
    let mut news: Vec<String> = a.news().into_iter().filter(|news| news != "host gone").collect();
    news.sort_unstable();
    assert_eq!(news, ["came late", "came later"], "one was there all the time");
    a.is_cut_off = true;
    a.disconnect();
    a.news();
    let never = a.log_in("never");
    a.ask(Request::Logout(late));
    a.passes(ANSWER_MS_MAX - 1);
    assert_eq!(a.news(), [""; 0]);
    a.passes(1);
    assert_eq!(a.told, [FromCluster::Directory(News::Busy(never))]);
    assert_eq!(names_in(&redis), ["late", "later", "one"]);
}

#[test]
fn the_list_takes_no_more_than_its_bound() {
    let mut entropy = Entropy::from_seed([2; 32]);
    let client = ClientId::new(HostId(1), ShardIndex(0), Slot(0), &mut entropy);
    let mut list = List::default();
    for sequence in 0..DIRECTORY_NAMES_MAX as u64 {
        assert!(list.insert(Entry { sequence, client, name: sequence.to_string().into() }));
    }
    assert!(!list.insert(Entry { sequence: 0, client, name: "one-more".into() }));
    assert!(list.insert(Entry { sequence: 9, client, name: "7".into() }), "in place of another");
}

fn client() -> impl Strategy<Value = ClientId> {
    any::<[u8; 32]>().prop_map(|seed| {
        ClientId::new(HostId(u32::from(seed[0])), ShardIndex(seed[1]), Slot(0), &mut Entropy::from_seed(seed))
    })
}

proptest! {
    #[test]
    fn letters_come_out_as_they_went_in(
        from in client(), to in proptest::option::of(client()), len in 0..70_000_usize, cut: prop::sample::Index,
    ) {
        let letter = AnyLetter::Directory(Letter { from, to, frame: frame(len) });
        let mut draft = Draft::default();
        draft.push(crate::cluster::CLUSTER, &letter);
        let sender = Sender { host: HostId(1), start: 2 };
        let bytes = draft.finish(&Header { sender, mine: 1, yours: 1, sequence: 0, wants_answer: false });
        let Ok(Message::Mail(mail)) = codec::decode(&bytes) else { panic!("it is mail") };
        prop_assert_eq!(mail.letters, vec![(crate::cluster::CLUSTER, letter)]);
        let cut = bytes.slice(..cut.index(bytes.len()));
        if let Ok(Message::Mail(mail)) = codec::decode(&cut) {
            prop_assert!(mail.letters.is_empty());
        }
    }

    #[test]
    fn no_text_is_a_change_by_chance(text in proptest::collection::vec(any::<u8>(), 0..100)) {
        prop_assert_eq!(Change::parse(&text), None);
    }
}
