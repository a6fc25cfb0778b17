//! The directory from outside: protocols.md section 3 line by line, with 1 and 4 shards, on io_uring and on epoll. This
//! file: logins, names, and who is there. What is said and heard: `messages` and `targets`; rate and size: `bounds`.

mod support;

#[path = "directory/bounds.rs"]
mod bounds;
#[path = "directory/messages.rs"]
mod messages;
#[path = "directory/targets.rs"]
mod targets;

use std::collections::BTreeSet;
use std::sync::Barrier;

use support::dialects::Peer;
use support::{CONTINUATION, FIN, Raw, Server, Setup, TEXT, frame, frame_header, on_each_setup};

const NOT_LOGGED_IN: &str = r#"{"type":"error","error":"not_logged_in"}"#;
const INVALID_NAME: &str = r#"{"type":"error","error":"invalid_name"}"#;
const NAME_TAKEN: &str = r#"{"type":"error","error":"name_taken"}"#;
const PING_TEXT: &str = r#"{"type":"ping"}"#;
/// No client may send more messages in a second.
const RATE: usize = 50;
/// Messages after which the rate asks for another client; one is the login.
const BATCH: usize = RATE - 5;

on_each_setup!(
    logins_are_listed_and_announced_in_their_order,
    a_name_is_free_as_soon_as_its_holder_is_gone,
    a_name_that_is_taken_is_refused,
    good_names_are_taken,
    bad_names_are_refused,
    of_two_logins_at_once_one_wins,
    each_name_is_listed_or_announced_exactly_once,
    who_is_silent_is_missed,
);

// What the tests say and hear.

fn login(name: &str) -> String {
    format!(r#"{{"type":"login","name":"{name}"}}"#)
}

fn login_success(name: &str, clients: &[&str]) -> String {
    format!(r#"{{"type":"login_success","id":"{name}","clients":["{}"]}}"#, clients.join("\",\""))
}

fn connected(name: &str) -> String {
    format!(r#"{{"type":"peer_connected","peer":"{name}"}}"#)
}

fn disconnected(name: &str) -> String {
    format!(r#"{{"type":"peer_disconnected","peer":"{name}"}}"#)
}

fn open(server: &Server) -> Peer {
    Peer::open(server, "/")
}

/// Who is logged in, in the order of the logins. Their names are the peers' names.
struct Party<'server> {
    server: &'server Server,
    members: Vec<Peer>,
}

impl<'server> Party<'server> {
    fn new(server: &'server Server, names: &[&str]) -> Self {
        let mut party = Self { server, members: Vec::new() };
        names.iter().for_each(|name| party.join(name));
        party
    }

    /// Logs in. The newcomer hears of all, all others hear of it, and nobody hears more.
    fn join(&mut self, name: &str) {
        let mut peer = open(self.server);
        peer.name = name.to_owned();
        let mut names: Vec<&str> = self.members.iter().map(|member| &*member.name).collect();
        names.push(name);
        let success = login_success(name, &names);
        peer.ask(&login(name), &success);
        self.members.iter_mut().for_each(|member| member.expect(&connected(name)));
        self.members.push(peer);
        self.expect_nothing();
    }

    /// One of them ends like this. All others hear of it.
    fn leave(&mut self, name: &str, end: impl FnOnce(Peer)) {
        let index = self.members.iter().position(|member| member.name == name).expect("a member");
        let gone = self.members.remove(index);
        end(gone);
        self.members.iter_mut().for_each(|member| member.expect(&disconnected(name)));
    }

    fn expect_nothing(&mut self) {
        self.members.iter_mut().for_each(Peer::expect_nothing);
    }

    /// All but one hear this next.
    fn expect_from(&mut self, sender: &str, text: &str) {
        for member in &mut self.members {
            if member.name != sender {
                member.expect(text);
            }
        }
    }

    fn member(&mut self, name: &str) -> &mut Peer {
        self.members.iter_mut().find(|member| member.name == name).expect("a member")
    }
}

fn close(peer: Peer) {
    assert_eq!(peer.close(), [""; 0]);
}

/// Logs in by bytes. The list of names is what it is.
fn raw_login(server: &Server, name: &str) -> Raw {
    let mut raw = Raw::open(server, "/");
    raw.send(&frame(TEXT, login(name).as_bytes()));
    let answer = raw.frame();
    let start = format!(r#"{{"type":"login_success","id":"{name}","#);
    assert!(answer.payload.starts_with(start.as_bytes()), "{answer:?}");
    raw
}

// Logins.

fn logins_are_listed_and_announced_in_their_order(setup: Setup) {
    let server = Server::start(setup, &[]);
    // Neither the order of the letters nor that of the connections.
    let mut early = open(&server);
    let mut party = Party::new(&server, &["m", "client-1", "Z", "a", "_", "0", "client-10"]);
    early.expect_nothing();
    party.leave("Z", close);
    party.leave("m", close);
    party.join("b");
    // Who comes back is the newest.
    party.join("m");
    party.leave("client-10", close);
    party.join("client-10");
    let mut names: Vec<&str> = vec!["client-1", "a", "_", "0", "b", "m", "client-10"];
    assert!(party.members.iter().map(|member| &*member.name).eq(names.iter().copied()));
    names.push("early");
    early.ask(&login("early"), &login_success("early", &names));
    party.expect_from("", &connected("early"));
    // Who never logged in is not missed.
    open(&server).close();
    party.expect_nothing();
    early.expect_nothing();
}

fn a_name_is_free_as_soon_as_its_holder_is_gone(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut party = Party::new(&server, &["a", "b"]);
    let ends: [fn(Peer); 3] = [close, Peer::reset, drop];
    for end in ends.into_iter().cycle().take(12) {
        party.join("c");
        party.leave("c", end);
    }
    // The close is answered: with that it is free, whoever has heard of it.
    for _ in 0..20 {
        let mut peer = open(&server);
        peer.ask(&login("c"), &login_success("c", &["a", "b", "c"]));
        close(peer);
    }
    for member in &mut party.members {
        for _ in 0..20 {
            member.expect(&connected("c"));
            member.expect(&disconnected("c"));
        }
    }
    // Who breaks the rules, and who is cut in the middle of a message.
    let cut = frame(TEXT, login("x").as_bytes());
    for (code, bytes) in [
        (Some(1002), frame(CONTINUATION | FIN, b"")),
        (Some(1007), frame(TEXT, b"\xff")),
        (Some(1009), frame_header(TEXT, 65_537)),
        (None, cut[..cut.len() - 1].to_vec()),
    ] {
        let mut raw = raw_login(&server, "c");
        party.expect_from("", &connected("c"));
        raw.send(&bytes);
        match code {
            // It is gone before it has answered.
            Some(code) => assert_eq!(raw.frame().close_code(), Some(code)),
            None => drop(raw),
        }
        party.expect_from("", &disconnected("c"));
        party.join("c");
        party.leave("c", close);
    }
    party.expect_nothing();
}

fn who_is_silent_is_missed(setup: Setup) {
    let server = Server::start(setup, &[("HEARTBEAT_MS", "200")]);
    let _silent = raw_login(&server, "silent");
    let mut watcher = open(&server);
    watcher.ask(&login("watcher"), &login_success("watcher", &["silent", "watcher"]));
    // It reads and so answers pings, the other one does not.
    watcher.expect(&disconnected("silent"));
    let mut next = open(&server);
    next.ask(&login("silent"), &login_success("silent", &["watcher", "silent"]));
    watcher.expect(&connected("silent"));
}

fn a_name_that_is_taken_is_refused(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut party = Party::new(&server, &["holder", "other"]);
    for text in [
        r#"{"type":"login","name":"holder"}"#,
        r#"{"type":"login","name":" holder\t\n"}"#,
        "{\"type\":\"login\",\"name\":\"\u{feff}holder\u{a0}\"}",
        r#"{"type":"login","name":"\u0068older"}"#,
        r#"{"type":"login","id":"holder"}"#,
        r#"{"type":"login","name":null,"id":"other"}"#,
        r#"{"name":"free","type":"login","name":"other"}"#,
    ] {
        let mut peer = open(&server);
        peer.ask(text, NAME_TAKEN);
        peer.expect_close(4000, "Client name already taken");
        // In a binary frame, behind a message that is refused.
        let mut peer = open(&server);
        peer.ask(PING_TEXT, NOT_LOGGED_IN);
        peer.send_binary(text.as_bytes());
        peer.expect(NAME_TAKEN);
        peer.expect_close(4000, "Client name already taken");
        party.expect_nothing();
    }
    // What follows at once is not read any more.
    let mut peer = open(&server);
    let forged = r#"{"type":"stream_started"}"#;
    peer.send_at_once([&*login("holder"), &*login("free"), forged]);
    assert_eq!(peer.next_until_close(4000, "Client name already taken"), [NAME_TAKEN]);
    // Names compare by their letters, case and all.
    party.join("Holder");
    party.join("free");
    // The holder holds it, and does so until it goes.
    party.member("holder").send(forged);
    party.expect_from("holder", r#"{"type":"stream_started","from":"holder"}"#);
    party.leave("holder", close);
    party.join("holder");
}

const LETTERS_64: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";

/// Fields of a login, where `<64>` stands for so many letters; and the name that it gives.
const GOOD_NAMES: &[(&str, &str)] = &[
    (r#""name":"a""#, "a"),
    (r#""name":"client-1""#, "client-1"),
    (r#""name":"-""#, "-"),
    (r#""name":"_""#, "_"),
    (r#""name":"0""#, "0"),
    (r#""name":"<64>""#, "<64>"),
    (r#""name":"__proto__""#, "__proto__"),
    (r#""name":"constructor""#, "constructor"),
    (r#""name":"null""#, "null"),
    // What JavaScript's trim cuts off, and only at the ends.
    (r#""name":" a ""#, "a"),
    (r#""name":"\t\n\u000b\f\r a\t\n\u000b\f\r ""#, "a"),
    (r#""name":"\u00a0\ufeffa\ufeff\u00a0""#, "a"),
    ("\"name\":\"\u{a0}\u{feff}a\u{feff}\u{a0}\"", "a"),
    ("\"name\":\"\u{1680}\u{2000}\u{2001}\u{2002}\u{2003}\u{2004}\u{2005}a\"", "a"),
    ("\"name\":\"a\u{2006}\u{2007}\u{2008}\u{2009}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}\"", "a"),
    (r#""name":"  <64>\r\n""#, "<64>"),
    // Strings are compared unescaped, of equal keys the last counts.
    (r#""name":"\u0061\u002d\u005F\u0041""#, "a-_A"),
    (r#""n\u0061me":"a""#, "a"),
    (r#""name":"b","name":"a""#, "a"),
    (r#""name":5,"n\u0061me":"a""#, "a"),
    // An id stands in for a name that is missing or null, and only then.
    (r#""id":"a""#, "a"),
    (r#""id":"\ufeff a ""#, "a"),
    (r#""name":null,"id":"a""#, "a"),
    (r#""id":"a","name":null"#, "a"),
    (r#""i\u0064":"a""#, "a"),
    (r#""name":"b","name":null,"id":"a""#, "a"),
    (r#""name":"a","id":"b""#, "a"),
    (r#""id":"b","name":"a""#, "a"),
    (r#""name":"a","id":5"#, "a"),
    (r#""name":"a","id":"no name""#, "a"),
    // Whatever else is said.
    (r#""x":{"name":"b"},"name":"a","target":"watcher","from":"b","clients":[1e400,"\ud800"]"#, "a"),
];

fn good_names_are_taken(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut party = Party::new(&server, &["watcher"]);
    for (fields, name) in GOOD_NAMES {
        let (fields, name) = (fields.replace("<64>", LETTERS_64), name.replace("<64>", LETTERS_64));
        for text in [
            format!(r#"{{"type":"login",{fields}}}"#),
            format!(r#"{{ {fields} , "t\u0079pe" : "l\u006fgin" }}"#),
        ] {
            let mut peer = open(&server);
            peer.ask(&text, &login_success(&name, &["watcher", &name]));
            party.expect_from("", &connected(&name));
            close(peer);
            party.expect_from("", &disconnected(&name));
        }
    }
    party.expect_nothing();
}

/// Fields of a login that is refused, where `<64>` stands for so many letters.
const BAD_NAMES: &[&str] = &[
    r#""x":1"#,
    r#""Name":"a""#,
    r#""name":"""#,
    r#""name":"  ""#,
    r#""name":"\u00a0\ufeff""#,
    r#""name":"<64>a""#,
    r#""name":" <64>a ""#,
    r#""name":"a b""#,
    r#""name":"a\tb""#,
    r#""name":"a.b""#,
    r#""name":"a/b""#,
    r#""name":"a\"b""#,
    r#""name":"a\u0000""#,
    r#""name":"\u0000a""#,
    r#""name":"é""#,
    "\"name\":\"\u{ff41}\"",
    "\"name\":\"\u{1f600}\"",
    r#""name":"\ud800""#,
    // What JavaScript's trim does not cut off.
    r#""name":"\u0085a""#,
    "\"name\":\"a\u{85}\"",
    r#""name":"\u200ba""#,
    r#""name":"a\u180e""#,
    r#""name":"\u2060a""#,
    r#""name":"a\u001c""#,
    r#""name":"\u001fa""#,
    // No strings.
    r#""name":null"#,
    r#""name":5"#,
    r#""name":0"#,
    r#""name":true"#,
    r#""name":false"#,
    r#""name":[]"#,
    r#""name":["a"]"#,
    r#""name":{}"#,
    r#""name":{"name":"a"}"#,
    r#""name":"a","name":5"#,
    // The id stands in for nothing else.
    r#""name":"","id":"a""#,
    r#""name":"a b","id":"a""#,
    r#""name":false,"id":"a""#,
    r#""name":0,"id":"a""#,
    r#""name":[],"id":"a""#,
    r#""name":null,"id":null"#,
    r#""name":null,"id":"""#,
    r#""id":5"#,
    r#""id":["a"]"#,
    r#""id":"a b""#,
    r#""id":"<64>a""#,
];

fn bad_names_are_refused(setup: Setup) {
    let server = Server::start(setup, &[]);
    let mut party = Party::new(&server, &["watcher"]);
    for fields in BAD_NAMES {
        let text = format!(r#"{{"type":"login",{}}}"#, fields.replace("<64>", LETTERS_64));
        let mut peer = open(&server);
        peer.name = fields.to_string();
        peer.ask(&text, INVALID_NAME);
        peer.expect_close(4001, "Invalid client name");
        let mut peer = open(&server);
        peer.name = fields.to_string();
        peer.send_binary(text.as_bytes());
        peer.send(&login("late"));
        assert_eq!(peer.next_until_close(4001, "Invalid client name"), [INVALID_NAME]);
    }
    party.expect_nothing();
    party.join("late");
}

fn of_two_logins_at_once_one_wins(setup: Setup) {
    const ROUNDS: usize = 100;
    let server = Server::start(setup, &[]);
    let mut party = Party::new(&server, &["watcher"]);
    let start = Barrier::new(2);
    for round in 0..ROUNDS {
        let name = format!("round-{round}");
        let success = login_success(&name, &["watcher", &name]);
        let attempt = |mut peer: Peer| {
            start.wait();
            peer.send(&login(&name));
            let answer = peer.next("the answer to a login");
            if answer == success {
                return Some(peer);
            }
            assert_eq!(answer, NAME_TAKEN);
            peer.expect_close(4000, "Client name already taken");
            None
        };
        let (one, other) = (open(&server), open(&server));
        let winners: Vec<Peer> = std::thread::scope(|scope| {
            let threads = [scope.spawn(|| attempt(one)), scope.spawn(|| attempt(other))];
            threads.into_iter().filter_map(|thread| thread.join().expect("an answer")).collect()
        });
        assert_eq!(winners.len(), 1, "round {round}: exactly one wins");
        party.expect_from("", &connected(&name));
        winners.into_iter().for_each(close);
        party.expect_from("", &disconnected(&name));
    }
    party.expect_nothing();
}

/// What a member knows of the others, and what it must not hear then.
struct Present(BTreeSet<String>);

impl Present {
    /// Takes in the list of a login.
    fn of_login(text: &str, name: &str) -> Self {
        let start = format!(r#"{{"type":"login_success","id":"{name}","clients":[""#);
        let list = text.strip_prefix(&*start).and_then(|rest| rest.strip_suffix("\"]}"));
        let names: Vec<&str> = list.unwrap_or_else(|| panic!("no login: {text}")).split("\",\"").collect();
        assert_eq!(names.last(), Some(&name), "one's own name is the newest");
        let all: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(all.len(), names.len(), "each name is there once: {text}");
        Self(all)
    }

    fn hear(&mut self, text: &str) {
        let between = |start, end| text.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
        if let Some(peer) = between(r#"{"type":"peer_connected","peer":""#, "\"}") {
            assert!(self.0.insert(peer.to_owned()), "{peer} is there already");
        } else if let Some(peer) = between(r#"{"type":"peer_disconnected","peer":""#, "\"}") {
            assert!(self.0.remove(peer), "{peer} is not there");
        } else {
            let from = between(r#"{"type":"page_opened","from":""#, "\"}");
            let from = from.unwrap_or_else(|| panic!("nobody says this: {text}"));
            assert!(self.0.contains(from), "{from} is not there and speaks");
        }
    }
}

fn each_name_is_listed_or_announced_exactly_once(setup: Setup) {
    const THREADS: usize = 6;
    const ROUNDS: usize = 15;
    let server = Server::start(setup, &[]);
    let mut watcher = open(&server);
    watcher.ask(&login("watcher"), &login_success("watcher", &["watcher"]));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let server = &server;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    // A name is free at once after a close, and a moment after a reset.
                    come_and_go(server, &format!("member-{thread}-{}", round / 3), round % 3 == 2);
                }
            });
        }
        // Each says one thing each time.
        let mut present = Present(BTreeSet::from(["watcher".to_owned()]));
        for _ in 0..3 * THREADS * ROUNDS {
            present.hear(&watcher.next("what the others do"));
        }
        assert_eq!(present.0.len(), 1, "all are gone: {:?}", present.0);
    });
    watcher.expect_nothing();
}

/// Logs in, says something to all, checks what it heard until it reads itself, and goes.
fn come_and_go(server: &Server, name: &str, with_reset: bool) {
    let mut peer = open(server);
    peer.name = name.to_owned();
    peer.send(&login(name));
    let mut present = Present::of_login(&peer.next("login_success"), name);
    let mark = format!(r#"{{"type":"mark","target":"{name}""#);
    peer.send_at_once([r#"{"type":"page_opened"}"#, &format!("{mark}}}")]);
    let end = format!(r#"{mark},"from":"{name}"}}"#);
    loop {
        let text = peer.next("its own mark");
        if text == end {
            break;
        }
        present.hear(&text);
    }
    if with_reset {
        peer.reset();
    } else {
        peer.close().iter().for_each(|text| present.hear(text));
    }
}
