//! Another server, played by the test with Redis' own commands: each sentence of protocols.md section 6 about foreign
//! clients.

use crate::support::redis::{Connection, Redis, Value};
use crate::support::{Client, NOT_PAIRED, PARTNER_LEFT, Server, Setup, matched, on_each_driver, pair};
use crate::{AVAILABLE, LIST, SIGNALS, expect_match, list, servers, wait_for_list, wait_listed};

on_each_driver!(
    a_foreign_waiter_is_matched_and_told,
    a_foreign_match_pairs_our_waiter,
    frames_go_both_ways_byte_for_byte,
    partner_left_goes_both_ways,
    who_does_not_wait_is_not_matched,
    foreign_messages_reach_those_who_have_no_other_partner,
    a_foreign_partner_left_says_nothing_about_partners_of_ours,
    a_foreign_client_is_matched_once,
    nonsense_is_ignored,
);

/// The id of a client of another server: random but for the shape of a v4 UUID.
pub(crate) fn foreign_id() -> String {
    let mut bytes = [0; 16];
    let mut random = std::fs::File::open("/dev/urandom").expect("randomness");
    std::io::Read::read_exact(&mut random, &mut bytes).expect("randomness");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Another server: what it says, and what it hears for one of its clients.
pub(crate) struct Foreign {
    says: Connection,
    hears: Connection,
    pub(crate) id: String,
}

impl Foreign {
    pub(crate) fn start(redis: &Redis) -> Self {
        let connect = || redis.connect().expect("Redis is there");
        let mut foreign = Self { says: connect(), hears: connect(), id: foreign_id() };
        foreign.hears.ask(&[b"SUBSCRIBE", SIGNALS.as_bytes()]).expect("Redis is there");
        foreign
    }

    /// Publishes a message for a client.
    pub(crate) fn tell(&mut self, to: &str, payload: &str) {
        self.publish(&format!(r#"{{"to":"{to}","payload":{payload}}}"#));
    }

    pub(crate) fn publish(&mut self, message: &str) {
        self.says.ask(&[b"PUBLISH", SIGNALS.as_bytes(), message.as_bytes()]).expect("Redis is there");
    }

    /// Says that it has matched a client with its own.
    pub(crate) fn claim(&mut self, client: &Client) -> String {
        let room = foreign_id();
        let id = self.id.clone();
        self.tell(&client.id, &matched_message(&room, &id));
        room
    }

    /// The next payload for its client.
    pub(crate) fn hear(&mut self) -> String {
        let start = format!(r#"{{"to":"{}","payload":"#, self.id);
        loop {
            let Value::List(items) = self.hears.next().expect("a message") else { panic!("a push") };
            let [Value::Bytes(_), Value::Bytes(_), Value::Bytes(message)] = &items[..] else {
                panic!("{items:?}")
            };
            let message = std::str::from_utf8(message).expect("UTF-8");
            if let Some(payload) = message.strip_prefix(&start) {
                return payload.strip_suffix('}').expect("a brace").to_owned();
            }
        }
    }

    pub(crate) fn expect(&mut self, payload: &str) {
        assert_eq!(self.hear(), payload);
    }

    /// Nothing has come for its client when this server has said all that it has to.
    pub(crate) fn expect_nothing(&mut self, redis: &Redis, server: &Server) {
        settle(redis, server);
        let id = self.id.clone();
        self.tell(&id, r#"{"type":"mark"}"#);
        self.expect(r#"{"type":"mark"}"#);
    }

    /// A match of its client, from the list, with ours.
    pub(crate) fn meet(&mut self, redis: &Redis, client: &mut Client) -> String {
        redis.ask(&["RPUSH", LIST, &self.id]);
        client.send(AVAILABLE);
        let told = client.expect_matched();
        assert_eq!(told.partner, self.id);
        self.expect(&matched_message(&told.room, &client.id));
        told.room
    }
}

pub(crate) fn matched_message(room: &str, partner: &str) -> String {
    format!(r#"{{"type":"matched","roomId":"{room}","partnerId":"{partner}"}}"#)
}

/// Waits until a server has handled what was published before.
pub(crate) fn settle(redis: &Redis, server: &Server) {
    for _ in 0..2 {
        let before = server.metric("parlor_pairing_signals_ignored_total");
        redis.ask(&["PUBLISH", SIGNALS, "no JSON"]);
        crate::wait_until("a message to be handled", || {
            server.metric("parlor_pairing_signals_ignored_total") > before
        });
    }
}

fn a_foreign_waiter_is_matched_and_told(setup: Setup) {
    let redis = Redis::start();
    let host = &servers(setup, 1, &redis, &[])[0];
    let (mut foreign, mut client) = (Foreign::start(&redis), Client::connect(host));
    foreign.meet(&redis, &mut client);
    assert_eq!(list(&redis), [""; 0]);
    // One that comes to the list while ours is on it is found soon.
    let (mut foreign, mut client) = (Foreign::start(&redis), Client::connect(host));
    wait_listed(&redis, &mut client);
    redis.ask(&["LPUSH", LIST, &foreign.id]);
    let told = client.expect_matched();
    foreign.expect(&matched_message(&told.room, &client.id));
    assert_eq!((told.partner, list(&redis)), (foreign.id.clone(), vec![]));
    // The oldest of several comes first.
    let mut several: Vec<Foreign> = (0..3).map(|_| Foreign::start(&redis)).collect();
    for foreign in &several {
        redis.ask(&["LPUSH", LIST, &foreign.id]);
    }
    for foreign in &mut several {
        let mut client = Client::connect(host);
        client.send(AVAILABLE);
        let told = client.expect_matched();
        foreign.expect(&matched_message(&told.room, &client.id));
        client.send(r#"{"type":"next"}"#);
        foreign.expect(PARTNER_LEFT);
    }
}

fn a_foreign_match_pairs_our_waiter(setup: Setup) {
    let redis = Redis::start();
    let host = &servers(setup, 1, &redis, &[])[0];
    let (mut foreign, mut client) = (Foreign::start(&redis), Client::connect(host));
    wait_listed(&redis, &mut client);
    assert_eq!(redis.ask(&["RPOP", LIST]), Value::Bytes(client.id.clone().into()));
    let room = foreign.claim(&client);
    client.expect(&matched_message(&room, &foreign.id));
    client.send(r#"{"type":"answer","sdp":{"a" : 1.50}}"#);
    foreign.expect(&format!(r#"{{"type":"answer","from":"{}","sdp":{{"a" : 1.50}}}}"#, client.id));
    client.send(AVAILABLE);
    client.expect(crate::support::ALREADY_PAIRED);
    // One whose id was not taken off before is out of queue and list as well.
    let (mut foreign, mut client) = (Foreign::start(&redis), Client::connect(host));
    wait_listed(&redis, &mut client);
    let room = foreign.claim(&client);
    client.expect(&matched_message(&room, &foreign.id));
    wait_for_list(&redis, &[]);
    let mut newcomer = Client::connect(host);
    wait_listed(&redis, &mut newcomer);
    client.expect_nothing();
    foreign.expect_nothing(&redis, host);
}

fn frames_go_both_ways_byte_for_byte(setup: Setup) {
    let redis = Redis::start();
    let host = &servers(setup, 1, &redis, &[])[0];
    let (mut foreign, mut client) = (Foreign::start(&redis), Client::connect(host));
    foreign.meet(&redis, &mut client);
    let long = format!("\"{}\"", "é\\u00e9".repeat(60_000));
    for value in [r#""v=0\r\n\ud83d""#, "1.50", r#"{ "x" :[1e400, null] }"#, &long] {
        for (kind, field) in [("offer", "sdp"), ("answer", "sdp"), ("ice", "candidate")] {
            client.send(&format!(r#"{{"type":"{kind}","{field}":{value}}}"#));
            foreign.expect(&format!(r#"{{"type":"{kind}","from":"{}","{field}":{value}}}"#, client.id));
            // As it was said, whatever else is in it.
            let payload =
                format!(r#"{{ "from":"{}", "{field}":{value},"type":"{kind}","x":1.0}}"#, foreign.id);
            foreign.tell(&client.id, &payload);
            client.expect(&payload);
        }
    }
    // Many at once arrive in order.
    for count in 0..200 {
        client.send(&format!(r#"{{"type":"ice","candidate":{count}}}"#));
        foreign.tell(&client.id, &format!(r#"{{"type":"ice","from":"{}","candidate":{count}}}"#, foreign.id));
    }
    for count in 0..200 {
        foreign.expect(&format!(r#"{{"type":"ice","from":"{}","candidate":{count}}}"#, client.id));
        client.expect(&format!(r#"{{"type":"ice","from":"{}","candidate":{count}}}"#, foreign.id));
    }
}

fn partner_left_goes_both_ways(setup: Setup) {
    let redis = Redis::start();
    let host = &servers(setup, 1, &redis, &[])[0];
    for parting in ["next", "leave", "close", "reset"] {
        let (mut foreign, mut client) = (Foreign::start(&redis), Client::connect(host));
        foreign.meet(&redis, &mut client);
        match parting {
            "close" => client.close(),
            "reset" => client.reset(),
            message => client.send(&format!(r#"{{"type":"{message}"}}"#)),
        }
        foreign.expect(PARTNER_LEFT);
    }
    // The other way round it is as in section 1: the client waits again.
    let (mut foreign, mut client) = (Foreign::start(&redis), Client::connect(host));
    foreign.meet(&redis, &mut client);
    foreign.tell(&client.id, PARTNER_LEFT);
    client.expect(PARTNER_LEFT);
    wait_for_list(&redis, &[&client.id.clone()]);
    let mut newcomer = Client::connect(host);
    newcomer.send(AVAILABLE);
    expect_match(&mut client, &mut newcomer);
    foreign.expect_nothing(&redis, host);
    // It is over as soon as it has begun.
    let (mut foreign, mut client) = (Foreign::start(&redis), Client::connect(host));
    wait_listed(&redis, &mut client);
    foreign.claim(&client);
    foreign.tell(&client.id, PARTNER_LEFT);
    assert!(matched(&client.next("matched")).is_some());
    client.expect(PARTNER_LEFT);
    wait_for_list(&redis, &[&client.id.clone()]);
}

fn who_does_not_wait_is_not_matched(setup: Setup) {
    let redis = Redis::start();
    let host = &servers(setup, 1, &redis, &[])[0];
    let (mut one, mut other) = pair(host);
    let mut foreign = Foreign::start(&redis);
    // Paired.
    foreign.claim(&one);
    foreign.expect(PARTNER_LEFT);
    one.expect_nothing();
    one.send(r#"{"type":"offer","sdp":1}"#);
    other.expect(&format!(r#"{{"type":"offer","from":"{}","sdp":1}}"#, one.id));
    // Idle.
    let mut idle = Client::connect(host);
    foreign.claim(&idle);
    foreign.expect(PARTNER_LEFT);
    idle.expect_nothing();
    idle.send(r#"{"type":"next"}"#);
    idle.expect(NOT_PAIRED);
    // Gone.
    idle.send(AVAILABLE);
    let gone = idle.id.clone();
    wait_for_list(&redis, &[&gone]);
    idle.close();
    wait_for_list(&redis, &[]);
    let payload = matched_message(&foreign_id(), &foreign.id);
    foreign.tell(&gone, &payload);
    foreign.expect(PARTNER_LEFT);
}

fn foreign_messages_reach_those_who_have_no_other_partner(setup: Setup) {
    let redis = Redis::start();
    let host = &servers(setup, 1, &redis, &[])[0];
    let mut foreign = Foreign::start(&redis);
    let mut idle = Client::connect(host);
    let offer = format!(r#"{{"type":"offer","from":"{}","sdp":1.50 }}"#, foreign.id);
    foreign.tell(&idle.id, &offer);
    idle.expect(&offer);
    wait_listed(&redis, &mut idle);
    foreign.tell(&idle.id, &offer);
    idle.expect(&offer);
    idle.send(r#"{"type":"leave"}"#);
    wait_for_list(&redis, &[]);
    // Not one who is paired with another, of ours or not, nor one who pretends to be ours.
    let (mut one, mut other) = pair(host);
    foreign.tell(&one.id, &offer);
    foreign.tell(&one.id, &format!(r#"{{"type":"offer","from":"{}","sdp":2}}"#, other.id));
    foreign.tell(&one.id, r#"{"type":"offer","sdp":3}"#);
    settle(&redis, host);
    one.expect_nothing();
    let (mut partner, mut client) = (Foreign::start(&redis), Client::connect(host));
    partner.meet(&redis, &mut client);
    foreign.tell(&client.id, &offer);
    let heard = format!(r#"{{"type":"ice","from":"{}","candidate":1}}"#, partner.id);
    partner.tell(&client.id, &heard);
    client.expect(&heard);
    other.expect_nothing();
}

fn a_foreign_partner_left_says_nothing_about_partners_of_ours(setup: Setup) {
    let redis = Redis::start();
    let hosts = servers(setup, 2, &redis, &[]);
    let (mut one, mut other) = pair(&hosts[0]);
    let (mut here, mut there) = (Client::connect(&hosts[0]), Client::connect(&hosts[1]));
    here.send(AVAILABLE);
    there.send(AVAILABLE);
    expect_match(&mut here, &mut there);
    let mut foreign = Foreign::start(&redis);
    let mut idle = Client::connect(&hosts[0]);
    for client in [&one, &here, &there, &idle] {
        foreign.tell(&client.id, PARTNER_LEFT);
    }
    settle(&redis, &hosts[0]);
    settle(&redis, &hosts[1]);
    for client in [&mut one, &mut other, &mut here, &mut there, &mut idle] {
        client.expect_nothing();
    }
    crate::check_relay(&mut one, &mut other);
    crate::check_relay(&mut here, &mut there);
}

fn a_foreign_client_is_matched_once(setup: Setup) {
    let redis = Redis::start();
    let host = &servers(setup, 1, &redis, &[])[0];
    let (mut foreign, mut client) = (Foreign::start(&redis), Client::connect(host));
    let room = foreign.meet(&redis, &mut client);
    // Its server has left its id on the list.
    redis.ask(&["RPUSH", LIST, &foreign.id]);
    let mut second = Client::connect(host);
    wait_listed(&redis, &mut second);
    second.expect_nothing();
    // Nor does it matter that its server says so as well.
    foreign.tell(&client.id, &matched_message(&room, &foreign.id.clone()));
    foreign.expect_nothing(&redis, host);
    client.expect_nothing();
    client.send(r#"{"type":"ice","candidate":1}"#);
    foreign.expect(&format!(r#"{{"type":"ice","from":"{}","candidate":1}}"#, client.id));
    // When its server matches it anew it has left the one before.
    let room = foreign.claim(&second);
    second.expect(&matched_message(&room, &foreign.id));
    client.expect(PARTNER_LEFT);
    client.send(r#"{"type":"leave"}"#);
    second.send(r#"{"type":"ice","candidate":2}"#);
    foreign.expect(&format!(r#"{{"type":"ice","from":"{}","candidate":2}}"#, second.id));
}

fn nonsense_is_ignored(setup: Setup) {
    let redis = Redis::start();
    let host = &servers(setup, 1, &redis, &[])[0];
    let (mut foreign, mut client) = (Foreign::start(&redis), Client::connect(host));
    wait_listed(&redis, &mut client);
    let id = client.id.clone();
    for message in ["", "{", "null", "[]", r#"{"to":7}"#, r#"{"payload":{}}"#, "\u{feff}{}"] {
        foreign.publish(message);
    }
    for to in [foreign_id(), "nobody".into(), id.to_uppercase(), String::new()] {
        foreign.tell(&to, r#"{"type":"offer","sdp":1}"#);
    }
    foreign.publish(&format!(r#"{{"to":"{id}"}}"#));
    for payload in [
        "null",
        "7",
        "[]",
        "{}",
        r#"{"type":7}"#,
        r#"{"type":"ready"}"#,
        r#"{"type":"pong"}"#,
        r#"{"type":"matched"}"#,
        r#"{"type":"matched","partnerId":7}"#,
        r#"{"type":"matched","partnerId":"x","roomId":"y"}"#,
        r#"{"type":"error","code":"x"}"#,
        r#""offer""#,
    ] {
        foreign.tell(&id, payload);
    }
    // Whom its own server has made is not a foreign partner.
    let itself = matched_message(&foreign_id(), &id);
    foreign.tell(&id, &itself);
    settle(&redis, host);
    client.expect_nothing();
    assert_eq!(list(&redis), [id]);
    assert_eq!(host.metric("parlor_cluster_panics_total") + host.metric("parlor_panics_total"), 0);
    assert_eq!(host.metric("parlor_matches_total"), 0);
}
