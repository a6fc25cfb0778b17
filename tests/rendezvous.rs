//! Rendezvous from outside: protocols.md section 2 line by line, with 1 and 4 shards, on io_uring and on epoll. This
//! file: who hears of whom, and what the tests say and hear.

mod support;

#[path = "rendezvous/bounds.rs"]
mod bounds;
#[path = "rendezvous/errors.rs"]
mod errors;
#[path = "rendezvous/messages.rs"]
mod messages;

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use support::dialects::Peer;
use support::{
    CONTINUATION, FIN, Frame, PING, Raw, Server, Setup, TEXT, close_frame, frame, frame_header, is_uuid_v4,
    on_each_setup, upgrade_head,
};

/// So many messages that the rate never matters.
const NO_RATE: (&str, &str) = ("RATE_LIMIT_MESSAGES", "1000000");
const WALLET: &str = "wallet";
const EXTENSION: &str = "extension";

on_each_setup!(
    newcomers_and_those_who_are_there_hear_of_each_other,
    who_shares_no_id_hears_nothing,
    presence_stands_around_the_messages,
    both_connect_at_the_same_moment,
    many_pairs_meet_at_once,
    each_comes_and_goes_once,
    who_is_silent_is_missed,
    who_leaves_is_missed_by_the_other_role,
);

// What the tests say and hear.

/// A client, and the id by which the others know it.
struct Known {
    pub(crate) peer: Peer,
    pub(crate) id: String,
}

/// A connection id: 64 hex digits, with letters.
fn key(number: usize) -> String {
    format!("{:016x}", 0xabcd_ef00_0000_0000 + number as u64 * 0x9e37_79b9).repeat(4)
}

fn other(role: &str) -> &'static str {
    if role == WALLET { EXTENSION } else { WALLET }
}

fn path(key: &str, source: &str) -> String {
    format!("/{key}?source={source}&target={}", other(source))
}

fn open(server: &Server, key: &str, source: &str) -> Peer {
    let mut peer = Peer::open(server, &path(key, source));
    peer.name = format!("{source} of {}", &key[..16]);
    peer
}

/// A wallet that was first and an extension, alone on a connection id.
fn pair(server: &Server, key: &str) -> (Known, Known) {
    let mut wallet = open(server, key, WALLET);
    let mut extension = open(server, key, EXTENSION);
    let wallet_id = id_in(&extension.next("a notice"), "remoteClientIsAlreadyConnected");
    let extension_id = id_in(&wallet.next("a notice"), "remoteClientJustConnected");
    assert_ne!(wallet_id, extension_id);
    (Known { peer: wallet, id: wallet_id }, Known { peer: extension, id: extension_id })
}

fn notice(info: &str, id: &str) -> String {
    format!(r#"{{"info":"{info}","remoteClientId":"{id}"}}"#)
}
fn already(id: &str) -> String {
    notice("remoteClientIsAlreadyConnected", id)
}
fn just(id: &str) -> String {
    notice("remoteClientJustConnected", id)
}
fn disconnected(id: &str) -> String {
    notice("remoteClientDisconnected", id)
}

/// The id in a notice, which must be one to the byte.
fn id_in(text: &str, info: &str) -> String {
    let start = format!(r#"{{"info":"{info}","remoteClientId":""#);
    let id = text.strip_prefix(&*start).and_then(|rest| rest.strip_suffix("\"}"));
    let id = id.unwrap_or_else(|| panic!("waited for {info} and got {text}"));
    assert!(is_uuid_v4(id), "{text}");
    id.to_owned()
}

/// A good message. `request` is the request id.
fn message(request: &str, target: &str) -> String {
    format!(
        r#"{{"requestId":"{request}","method":"offer","source":"wallet","connectionId":"c","encryptedPayload":"p","targetClientId":"{target}"}}"#
    )
}

/// What the target hears. `request` is JSON.
fn remote_data(data: &str, sender: &str, request: &str) -> String {
    format!(r#"{{"info":"remoteData","data":{data},"remoteClientId":"{sender}","requestId":{request}}}"#)
}
fn confirmation(request: &str) -> String {
    format!(r#"{{"info":"confirmation","requestId":{request}}}"#)
}
fn missing(request: &str) -> String {
    format!(r#"{{"info":"missingRemoteClientError","requestId":{request}}}"#)
}

/// A message goes across, and is the very next thing that the two hear.
fn exchange(from: &mut Known, to: &mut Known, request: &str) {
    let message = message(request, &to.id);
    let request = format!("\"{request}\"");
    from.peer.send(&message);
    to.peer.expect(&remote_data(&message, &from.id, &request));
    from.peer.expect(&confirmation(&request));
}

// Who is there.

fn newcomers_and_those_who_are_there_hear_of_each_other(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    for number in 0..4 {
        let key = key(number);
        let (wallet, extension) = pair(&server, &key);
        let (mut wallets, mut extensions) = (vec![wallet], vec![extension]);
        // In turns, and two of a role in a row.
        for role in [WALLET, EXTENSION, EXTENSION, WALLET, WALLET, EXTENSION, WALLET] {
            let (own, others) = match role {
                WALLET => (&mut wallets, &mut extensions),
                _ => (&mut extensions, &mut wallets),
            };
            own.push(arrive(&server, &key, role, others));
            own.iter_mut().for_each(|known| known.peer.expect_nothing());
            others.iter_mut().for_each(|known| known.peer.expect_nothing());
        }
        assert_eq!((wallets.len(), extensions.len()), (5, 4));
        // Anyone reaches anyone of the other role.
        for from in &mut wallets {
            for to in &mut extensions {
                exchange(from, to, "there");
                exchange(to, from, "and back");
            }
        }
        // They leave, in no order of theirs.
        while let Some(gone) = wallets.pop() {
            leave(gone, &mut wallets, &mut extensions);
            if !extensions.is_empty() {
                let gone = extensions.remove(extensions.len() / 2);
                leave(gone, &mut extensions, &mut wallets);
            }
        }
    }
    server.wait_for_metric("parlor_clients", 0);
}

/// A newcomer hears of all others, each once, and each of them hears of it.
fn arrive(server: &Server, key: &str, role: &str, others: &mut [Known]) -> Known {
    let mut peer = open(server, key, role);
    let notices: Vec<String> = others.iter().map(|known| already(&known.id)).collect();
    peer.expect_all(notices.iter().map(String::as_str));
    let id = id_in(&others[0].peer.next("a notice"), "remoteClientJustConnected");
    for known in &mut others[1..] {
        known.peer.expect(&just(&id));
    }
    assert!(others.iter().all(|known| known.id != id), "each has an id of its own");
    Known { peer, id }
}

/// One of a role leaves: all of the other role hear of it, its own role does not.
fn leave(gone: Known, own: &mut [Known], others: &mut [Known]) {
    assert_eq!(gone.peer.close(), [""; 0]);
    for known in &mut *others {
        known.peer.expect(&disconnected(&gone.id));
        known.peer.ask(&message("late", &gone.id), &missing("\"late\""));
    }
    own.iter_mut().chain(others).for_each(|known| known.peer.expect_nothing());
}

fn who_shares_no_id_hears_nothing(setup: Setup) {
    let server = Server::start(setup, &[]);
    let key = key(1);
    let upper = key.to_uppercase();
    let mixed = key.replacen('a', "A", 1);
    let mut alone: Vec<Peer> = vec![
        open(&server, &key, WALLET),
        // Its own role, and the other one elsewhere: ids compare by their bytes.
        open(&server, &key, WALLET),
        open(&server, &upper, EXTENSION),
        open(&server, &mixed, EXTENSION),
        open(&server, &key[1..].chars().chain(['0']).collect::<String>(), EXTENSION),
        Peer::open(&server, "/"),
    ];
    alone.iter_mut().for_each(Peer::expect_nothing);
    // The upper case is an id like any other.
    let mut wallet = open(&server, &upper, WALLET);
    id_in(&wallet.next("a notice"), "remoteClientIsAlreadyConnected");
    id_in(&alone[2].next("a notice"), "remoteClientJustConnected");
    // Who leaves alone is not missed either.
    alone.remove(3).close();
    alone.iter_mut().for_each(Peer::expect_nothing);
}

fn presence_stands_around_the_messages(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    for number in 0..8 {
        let key = key(number);
        let (mut wallet, mut extension) = pair(&server, &key);
        // All at once: the request, two messages and the close.
        let messages = [message("1", &wallet.id), message("2", &wallet.id)];
        let mut bytes = upgrade_head(&path(&key, EXTENSION), "").into_bytes();
        messages.iter().for_each(|message| bytes.extend(frame(TEXT, message.as_bytes())));
        bytes.extend(close_frame(1000, b"bye"));
        let mut raw = Raw::connect(server.address);
        raw.send(&bytes);
        assert_eq!(raw.response().status, 101);
        raw.expect(&already(&wallet.id));
        raw.expect(&confirmation("\"1\""));
        raw.expect(&confirmation("\"2\""));
        assert_eq!(raw.frame().close_code(), Some(1000));
        let id = id_in(&wallet.peer.next("a notice"), "remoteClientJustConnected");
        wallet.peer.expect(&remote_data(&messages[0], &id, "\"1\""));
        wallet.peer.expect(&remote_data(&messages[1], &id, "\"2\""));
        wallet.peer.expect(&disconnected(&id));
        extension.peer.expect_nothing();
    }
}

fn both_connect_at_the_same_moment(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let start = Barrier::new(2);
    for round in 0..60 {
        let key = key(round);
        let arrive = |role| {
            start.wait();
            let mut peer = open(&server, &key, role);
            // At least once, by either notice.
            let text = peer.next("a notice");
            let info = if text == already(&id_at_end(&text)) {
                "remoteClientIsAlreadyConnected"
            } else {
                "remoteClientJustConnected"
            };
            (peer, id_in(&text, info))
        };
        let ((wallet, extension_id), (extension, wallet_id)) = std::thread::scope(|scope| {
            let wallet = scope.spawn(|| arrive(WALLET));
            let extension = scope.spawn(|| arrive(EXTENSION));
            (wallet.join().expect("it hears of the other"), extension.join().expect("it hears of the other"))
        });
        let mut sides = [Known { peer: wallet, id: wallet_id }, Known { peer: extension, id: extension_id }];
        for _ in 0..2 {
            let [from, to] = &mut sides;
            let message = message("r", &to.id);
            from.peer.send(&message);
            // Whatever else it hears is about the same one.
            let notices = [already(&from.id), just(&from.id)];
            let mut text = to.peer.next("remoteData");
            while notices.contains(&text) {
                text = to.peer.next("remoteData");
            }
            assert_eq!(text, remote_data(&message, &from.id, "\"r\""), "round {round}");
            let notices = [already(&to.id), just(&to.id)];
            let mut text = from.peer.next("confirmation");
            while notices.contains(&text) {
                text = from.peer.next("confirmation");
            }
            assert_eq!(text, confirmation("\"r\""), "round {round}");
            sides.reverse();
        }
        let [wallet, mut extension] = sides;
        wallet.peer.close();
        extension.peer.expect(&disconnected(&wallet.id));
    }
}

/// The id that a notice ends with, if it is one.
fn id_at_end(text: &str) -> String {
    text.get(text.len().saturating_sub(38)..text.len().saturating_sub(2)).unwrap_or_default().to_owned()
}

fn many_pairs_meet_at_once(setup: Setup) {
    const THREADS: usize = 8;
    const PAIRS: usize = 15;
    let server = Server::start(setup, &[NO_RATE]);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let server = &server;
            scope.spawn(move || {
                let mut pairs: Vec<(Known, Known)> =
                    (0..PAIRS).map(|number| pair(server, &key(thread * PAIRS + number))).collect();
                for round in 0..5 {
                    for (wallet, extension) in &mut pairs {
                        exchange(wallet, extension, &format!("{thread} {round}"));
                        exchange(extension, wallet, &format!("{round} {thread}"));
                    }
                }
                for (mut wallet, extension) in pairs {
                    assert_eq!(extension.peer.close(), [""; 0]);
                    wallet.peer.expect(&disconnected(&extension.id));
                    wallet.peer.expect_nothing();
                }
            });
        }
    });
    server.wait_for_metric("parlor_clients", 0);
}

/// Whom one client knows of the other role.
#[derive(Default)]
struct Present(BTreeSet<String>);

impl Present {
    fn hear(&mut self, text: &str) {
        let id = id_at_end(text);
        if text == already(&id) || text == just(&id) {
            assert!(self.0.insert(id), "it is there already: {text}");
        } else if text == disconnected(&id) {
            assert!(self.0.remove(&id), "it is not there: {text}");
        } else {
            let sender = text.split_once(r#","remoteClientId":""#).and_then(|(_, rest)| rest.get(..36));
            let sender = sender.unwrap_or_else(|| panic!("nobody says this: {text}"));
            assert!(self.0.contains(sender), "it speaks and is not there: {text}");
        }
    }
}

fn each_comes_and_goes_once(setup: Setup) {
    const THREADS: usize = 3;
    const ROUNDS: usize = 12;
    let server = Server::start(setup, &[NO_RATE]);
    let key = key(1);
    let (mut wallet, mut extension) = pair(&server, &key);
    std::thread::scope(|scope| {
        for (role, resident) in [(WALLET, &extension.id), (EXTENSION, &wallet.id)] {
            for _ in 0..THREADS {
                let (server, key, resident) = (&server, &key, resident.clone());
                scope.spawn(move || {
                    (0..ROUNDS).for_each(|round| come_and_go(server, key, role, &resident, round % 3 == 2));
                });
            }
        }
        // They come, say one thing, and go.
        for (known, other) in
            [(&mut wallet.peer, extension.id.clone()), (&mut extension.peer, wallet.id.clone())]
        {
            scope.spawn(move || {
                let mut present = Present(BTreeSet::from([other]));
                for _ in 0..3 * THREADS * ROUNDS {
                    present.hear(&known.next("what the others do"));
                }
                assert_eq!(present.0.len(), 1, "all are gone: {:?}", present.0);
            });
        }
    });
    exchange(&mut wallet, &mut extension, "alone");
    exchange(&mut extension, &mut wallet, "alone");
}

/// Comes, says something to the one that stays, checks what it heard until that is confirmed, and goes.
fn come_and_go(server: &Server, key: &str, role: &str, resident: &str, with_reset: bool) {
    let mut peer = open(server, key, role);
    let mut present = Present::default();
    peer.send(&message("r", resident));
    loop {
        let text = peer.next("confirmation");
        if text == confirmation("\"r\"") {
            break;
        }
        present.hear(&text);
    }
    assert!(present.0.contains(resident), "the one that stays was announced");
    if with_reset {
        peer.reset();
    } else {
        peer.close().iter().for_each(|text| present.hear(text));
    }
}

fn who_leaves_is_missed_by_the_other_role(setup: Setup) {
    let server = Server::start(setup, &[]);
    let ends: [fn(Peer); 3] = [|peer| drop(peer.close()), Peer::reset, drop];
    for (number, end) in ends.into_iter().enumerate() {
        let (wallet, mut extension) = pair(&server, &key(number));
        let mut second = open(&server, &key(number), WALLET);
        second.expect(&already(&extension.id));
        let second_id = id_in(&extension.peer.next("a notice"), "remoteClientJustConnected");
        end(wallet.peer);
        extension.peer.expect(&disconnected(&wallet.id));
        extension.peer.ask(&message("late", &wallet.id), &missing("\"late\""));
        second.expect_nothing();
        // Who comes later is told of the one that is left, alone.
        let mut late = open(&server, &key(number), EXTENSION);
        late.expect(&already(&second_id));
        late.expect_nothing();
        end(extension.peer);
        id_in(&second.next("a notice"), "remoteClientJustConnected");
        second.expect(&disconnected(&extension.id));
    }
    // Who breaks the rules, who says too much, and who is cut in the middle of a message.
    let message = message("r", "t");
    let cut = frame(TEXT, message.as_bytes());
    for (code, bytes) in [
        (Some(1002), frame(CONTINUATION | FIN, b"")),
        (Some(1007), frame(TEXT, b"\xff")),
        (Some(1009), frame_header(TEXT, 1_048_577)),
        (Some(1013), frame(TEXT, message.as_bytes()).repeat(300)),
        (None, cut[..cut.len() - 1].to_vec()),
    ] {
        let key = key(9);
        let mut wallet = open(&server, &key, WALLET);
        let mut raw = Raw::open(&server, &path(&key, EXTENSION));
        let id = id_in(&wallet.next("a notice"), "remoteClientJustConnected");
        assert_eq!(raw.frame().first, TEXT);
        raw.send(&bytes);
        if let Some(code) = code {
            let mut next = raw.frame();
            while next == Frame::text(&missing("\"r\"")) {
                next = raw.frame();
            }
            assert_eq!(next.close_code(), Some(code));
            // It is gone before it has answered.
            wallet.expect(&disconnected(&id));
            wallet.ask(&self::message("late", &id), &missing("\"late\""));
        } else {
            drop(raw);
            wallet.expect(&disconnected(&id));
        }
        wallet.close();
    }
}

fn who_is_silent_is_missed(setup: Setup) {
    let server = Server::start(setup, &[("HEARTBEAT_MS", "200")]);
    let key = key(5);
    let mut wallet = open(&server, &key, WALLET);
    let start = Instant::now();
    let mut raw = Raw::open(&server, &path(&key, EXTENSION));
    let id = id_in(&wallet.next("a notice"), "remoteClientJustConnected");
    // It reads and so answers pings, the other one does not.
    wallet.expect(&disconnected(&id));
    assert!(start.elapsed() >= Duration::from_millis(400), "cut after {:?}", start.elapsed());
    assert_eq!(raw.frame().first, TEXT);
    assert_eq!(raw.frame().first, PING);
    wallet.ask(&message("late", &id), &missing("\"late\""));
}
