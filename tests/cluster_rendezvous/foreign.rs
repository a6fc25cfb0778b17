//! Beside an original: the test says to Redis what section 6 has an instance of it say.

use super::*;
use crate::support::redis::Connection;

on_each_driver!(
    a_foreign_client_meets_talks_and_parts,
    what_a_foreign_client_says_arrives_as_it_came,
    what_is_nothing_is_ignored,
    a_foreign_client_that_has_left_its_set_is_missing,
    ids_of_hosts_that_are_gone_are_removed,
);

/// A client of an original.
pub(crate) struct Foreign {
    id: String,
    key: String,
    role: String,
    commands: Connection,
    subscription: Connection,
    counterparts: BTreeSet<String>,
}

impl Foreign {
    /// SUBSCRIBE answered, SADD with EXPIRE, SMEMBERS of the other role, notices.
    pub(crate) fn arrive(redis: &Redis, key: &str, role: &str, id: &str) -> Self {
        let connect = || redis.connect().expect("Redis is there");
        let (mut commands, mut subscription) = (connect(), connect());
        subscription.ask(&[b"SUBSCRIBE", id.as_bytes()]).expect("Redis is there");
        let own_set = format!("{key}:{role}");
        commands.ask(&[b"SADD", own_set.as_bytes(), id.as_bytes()]).expect("Redis is there");
        commands.ask(&[b"EXPIRE", own_set.as_bytes(), b"43200"]).expect("Redis is there");
        let counterparts = members_of(redis, &format!("{key}:{}", other(role)));
        let mut foreign = Self {
            id: id.to_owned(),
            key: key.to_owned(),
            role: role.to_owned(),
            commands,
            subscription,
            counterparts: counterparts.clone(),
        };
        for to in &counterparts {
            assert_eq!(foreign.publish(to, &just(&id.replace('"', "\\\""))), 1, "one host listens");
        }
        foreign
    }

    /// SREM answered, SMEMBERS, PUBLISH, UNSUBSCRIBE.
    fn leave(mut self, redis: &Redis) {
        let set = format!("{}:{}", self.key, self.role);
        self.commands.ask(&[b"SREM", set.as_bytes(), self.id.as_bytes()]).expect("Redis is there");
        for to in members_of(redis, &format!("{}:{}", self.key, other(&self.role))) {
            let text = disconnected(&self.id);
            self.publish(&to, &text);
        }
    }

    pub(crate) fn expect_counterparts(&self, ids: &[&str]) {
        for id in ids {
            assert!(self.counterparts.contains(*id), "{id} is not among {:?}", self.counterparts);
        }
    }

    /// Publishes something for a client. Returns how many listen.
    fn publish(&mut self, to: &str, text: &str) -> i64 {
        let reply = self.commands.ask(&[b"PUBLISH", to.as_bytes(), text.as_bytes()]);
        match reply.expect("Redis is there") {
            Value::Integer(listeners) => listeners,
            other => panic!("{other:?}"),
        }
    }

    /// The next thing that is published for it.
    pub(crate) fn next(&mut self) -> String {
        match self.subscription.next().expect("a message") {
            Value::List(items) => match &items[..] {
                [Value::Bytes(kind), Value::Bytes(_), Value::Bytes(text)] if kind == b"message" => {
                    String::from_utf8(text.clone()).expect("UTF-8")
                }
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    fn expect(&mut self, text: &str) {
        assert_eq!(self.next(), text);
    }
}

fn a_foreign_client_meets_talks_and_parts(setup: Setup) {
    let redis = Redis::start();
    let (here, there) = two(setup, &redis);
    let key = key(1);
    // It comes first, and a client of ours finds it.
    let mut foreign = Foreign::arrive(&redis, &key, EXTENSION, "5f0c9d70-0000-4000-8000-00000000000a");
    let id = foreign.id.clone();
    let mut one = open_alone(&here, &redis, &key, WALLET);
    one.peer.expect(&already(&id));
    foreign.expect(&just(&one.id));
    let mut other = open_alone(&there, &redis, &key, WALLET);
    other.peer.expect(&already(&id));
    foreign.expect(&just(&other.id));
    for wallet in [&mut one, &mut other] {
        let message = message("1", &id);
        wallet.peer.send(&message);
        foreign.expect(&remote_data(&message, &wallet.id, "1"));
        wallet.peer.expect(&confirmation("1"));
    }
    drop(other.peer.close());
    foreign.expect(&disconnected(&other.id));
    assert_eq!(members_of(&redis, &format!("{key}:wallet")), BTreeSet::from([one.id.clone()]));
    // It leaves, and another comes to one who is there.
    foreign.leave(&redis);
    one.peer.expect(&disconnected(&id));
    one.peer.ask(&message("2", &id), &missing("2"));
    let mut second = Foreign::arrive(&redis, &key, EXTENSION, "second");
    second.expect_counterparts(&[&one.id]);
    one.peer.expect(&just("second"));
    drop(one.peer.close());
    second.expect(&disconnected(&one.id));
    wait_until("its set to be empty", || members_of(&redis, &format!("{key}:wallet")).is_empty());
}

fn what_a_foreign_client_says_arrives_as_it_came(setup: Setup) {
    let redis = Redis::start();
    let here = server(setup, &redis);
    let mut wallet = open_alone(&here, &redis, &key(1), WALLET);
    let mut foreign = Foreign::arrive(&redis, &key(1), EXTENSION, "f");
    wallet.peer.expect(&just("f"));
    let long = format!(r#"{{"info":"remoteData","data":"{}"}}"#, "é".repeat(200_000));
    for text in [
        &*remote_data(r#"{ "a" : 1.50, "b":"\u00e9\ud800" }"#, "f", "9"),
        r#" {"info" : 7 }"#,
        "{}",
        r#"{"info":"missingRemoteClientError","requestId":"1","more":[null]}"#,
        &long,
    ] {
        assert_eq!(foreign.publish(&wallet.id, text), 1);
        wallet.peer.expect(text);
    }
    // Notices once, as they came.
    let spelled = r#"{"remoteClientId":"\u0067","info":"remoteClientIsAlreadyConnected","x":1}"#;
    for text in [&*just("f"), spelled, &just("g"), spelled, &disconnected("nobody")] {
        foreign.publish(&wallet.id, text);
    }
    wallet.peer.expect(spelled);
    let gone = r#"{"info":"remoteClientDisconnected","remoteClientId":"g", "why":"" }"#;
    foreign.publish(&wallet.id, gone);
    foreign.publish(&wallet.id, gone);
    wallet.peer.expect(gone);
    foreign.publish(&wallet.id, &just("g"));
    wallet.peer.expect(&just("g"));
    wallet.peer.expect_nothing();
}

fn what_is_nothing_is_ignored(setup: Setup) {
    let redis = Redis::start();
    let (here, there) = two_with(setup, &redis, &[("OUTBOX_MAX_BYTES", "2000000")]);
    let (mut wallet, mut extension) = pair(&here, &there, &key(1));
    let mut foreign = Foreign::arrive(&redis, &key(1), EXTENSION, "f");
    wallet.peer.expect(&just("f"));
    let before = here.metric("parlor_rendezvous_ignored_total");
    // What is not JSON, or no object; and what speaks for ours.
    let deep = "[".repeat(100_000);
    let nothing = [
        "",
        "null",
        "7",
        "[{}]",
        "{",
        "\"{}\"",
        "\u{feff}{}",
        &deep,
        &disconnected(&extension.id),
        &just(&extension.id),
    ];
    for text in nothing {
        assert_eq!(foreign.publish(&wallet.id, text), 1);
    }
    let bytes = redis
        .connect()
        .and_then(|mut redis| redis.ask(&[b"PUBLISH", wallet.id.as_bytes(), b"{\"a\":\"\xff\"}"]));
    assert_eq!(bytes.expect("Redis is there"), Value::Integer(1));
    here.wait_for_metric("parlor_rendezvous_ignored_total", before + nothing.len() as u64 + 1);
    // Larger than the outbox may be, which would only close the client; and larger than anything.
    let ignored = here.metric("parlor_messages_ignored_total");
    foreign.publish(&wallet.id, &format!(r#"{{"a":"{}"}}"#, "x".repeat(2_000_000)));
    here.wait_for_metric("parlor_messages_ignored_total", ignored + 1);
    foreign.publish(&wallet.id, &format!(r#"{{"a":"{}"}}"#, "x".repeat(17_000_000)));
    // Whoever is in the set and cannot be a client.
    let names = [&*"x".repeat(129), ""];
    for name in names {
        redis.ask(&["SADD", &format!("{}:extension", key(1)), name]);
    }
    let mut second = open_alone(&here, &redis, &key(1), WALLET);
    let (mut told, mut expected) = (Vec::new(), vec![already(&extension.id), already("f")]);
    told.extend((0..2).map(|_| second.peer.next("a notice")));
    told.sort_unstable();
    expected.sort_unstable();
    assert_eq!(told, expected);
    extension.peer.expect(&just(&second.id));
    second.peer.expect_nothing();
    exchange(&mut wallet, &mut extension, "all is well");
    exchange(&mut second, &mut extension, "here too");
    assert_eq!(here.metric("parlor_cluster_panics_total"), 0);
}

fn a_foreign_client_that_has_left_its_set_is_missing(setup: Setup) {
    let redis = Redis::start();
    let here = server(setup, &redis);
    let mut wallet = open_alone(&here, &redis, &key(1), WALLET);
    let mut foreign = Foreign::arrive(&redis, &key(1), EXTENSION, "f");
    wallet.peer.expect(&just("f"));
    let sent = message("1", "f");
    wallet.peer.ask(&sent, &confirmation("1"));
    foreign.expect(&remote_data(&sent, &wallet.id, "1"));
    redis.ask(&["SREM", &format!("{}:extension", key(1)), "f"]);
    wallet.peer.ask(&message("2", "f"), &missing("2"));
    // One in the set of its own role, or of another connection id, is not there for it.
    redis.ask(&["SADD", &format!("{}:wallet", key(1)), "f"]);
    redis.ask(&["SADD", &format!("{}:extension", key(2)), "f"]);
    wallet.peer.ask(&message("3", "f"), &missing("3"));
    assert!(!foreign.subscription.has_news(Duration::from_millis(1)), "nothing was published");
}

fn ids_of_hosts_that_are_gone_are_removed(setup: Setup) {
    let redis = Redis::start();
    let (here, there) = two(setup, &redis);
    let (mut wallet, extension) = pair(&here, &there, &key(1));
    there.signal(rustix::process::Signal::KILL);
    wallet.peer.expect(&disconnected(&extension.id));
    // Another of its clients, and one that this host has never had.
    let left_over = format!("{}{}", &extension.id[..extension.id.len() - 3], "000");
    let never = format!("{}{}", &wallet.id[..wallet.id.len() - 3], "000");
    let set = format!("{}:extension", key(1));
    for id in [&left_over, &never, &extension.id] {
        redis.ask(&["SADD", &set, id]);
    }
    wallet.peer.ask(&message("1", &left_over), &missing("1"));
    let mut second = open_alone(&here, &redis, &key(1), WALLET);
    wait_until("the set to be cleared", || members_of(&redis, &set).is_empty());
    second.peer.expect_nothing();
    wallet.peer.expect_nothing();
}
