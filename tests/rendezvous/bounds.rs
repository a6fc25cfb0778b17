//! The URLs of rendezvous, its rate, sizes and metrics: protocols.md section 2, and of section 0 the lines which dialect,
//! size and rate.

use std::time::{Duration, Instant};

use super::{
    EXTENSION, Known, NO_RATE, WALLET, already, confirmation, disconnected, exchange, id_in, key, message,
    missing, open, pair, path, remote_data,
};
use crate::support::dialects::{Peer, number_in, open_slow, within};
use crate::support::{
    BINARY, CONTINUATION, FIN, Frame, PING, Raw, Server, Setup, TEXT, WAIT, frame, get, on_each_driver,
    on_each_setup, upgrade_head,
};

const SLOW_DOWN: &str = "rate limit hit, slow down";

on_each_setup!(
    wrong_urls_are_closed_with_their_reason,
    right_urls_are_taken,
    the_dashboards_numbers_are_there,
);
on_each_driver!(
    a_hundred_messages_a_second_pass,
    the_rate_is_what_the_environment_says,
    the_window_of_the_rate_is_fixed,
    messages_have_the_common_largest_size,
    who_reads_too_slowly_is_closed_and_missed,
);

// URLs.

/// What stands behind the host, where `<key>` stands for a good connection id; and the reason of the close.
const WRONG_URLS: &[(&str, &str)] = &[
    ("/abc?source=wallet&target=extension", "missing connectionId in path"),
    ("/<63>?source=wallet&target=extension", "missing connectionId in path"),
    ("/<65>?source=wallet&target=extension", "missing connectionId in path"),
    ("/<63>g?source=wallet&target=extension", "missing connectionId in path"),
    ("/<63>%61?source=wallet&target=extension", "missing connectionId in path"),
    ("/<63>+?source=wallet&target=extension", "missing connectionId in path"),
    ("/<key>/<key>?source=wallet&target=extension", "missing connectionId in path"),
    ("/x/<key>?source=wallet&target=extension", "missing connectionId in path"),
    ("/healthz?source=wallet&target=extension", "missing connectionId in path"),
    ("/abc?source=wallet", "missing connectionId in path"),
    ("/abc?target=wallet", "missing connectionId in path"),
    ("/abc?x=1&target=", "missing connectionId in path"),
    ("/abc?source=x&target=x", "missing connectionId in path"),
    ("/<key>", "missing target"),
    ("/<key>?", "missing target"),
    ("/<key>?x=1", "missing target"),
    ("/<key>?source=wallet", "missing target"),
    ("/<key>?source=wallet&target=", "missing target"),
    ("/<key>?source=x&target=", "missing target"),
    ("/<key>?source=wallet&Target=extension", "missing target"),
    ("/<key>?source=wallet&targets=extension", "missing target"),
    ("/<key>?target=server&source=wallet", "invalid target"),
    ("/<key>?target=server", "invalid target"),
    ("/<key>?target=Extension&source=wallet", "invalid target"),
    ("/<key>?target=extensions&source=wallet", "invalid target"),
    ("/<key>?target=x&source=y", "invalid target"),
    ("/<key>?target=x&source=x", "invalid target"),
    ("/<key>?target=extension", "missing source"),
    ("/<key>?target=extension&source=", "missing source"),
    ("/<key>?source=&target=wallet", "missing source"),
    ("/<key>?target=extension&source=x", "invalid source"),
    ("/<key>?source=WALLET&target=extension", "invalid source"),
    ("/<key>?source=wallet&target=wallet", "source and target needs to be different"),
    ("/<key>?target=extension&source=extension", "source and target needs to be different"),
];

fn wrong_urls_are_closed_with_their_reason(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let key = key(3);
    let (mut wallet, mut extension) = pair(&server, &key);
    for (url, reason) in WRONG_URLS {
        let url = url.replace("<key>", &key).replace("<63>", &key[..63]).replace("<65>", &format!("{key}0"));
        let mut raw = Raw::connect(server.address);
        // What it says before it knows is not heard.
        let message = frame(TEXT, message("r", &wallet.id).as_bytes());
        raw.send(&[upgrade_head(&url, "").as_bytes(), &message].concat());
        assert_eq!(raw.response().status, 101, "{url}");
        assert_eq!(raw.expect_close(1003), *reason, "{url}");
        raw.finish(1003);
    }
    exchange(&mut wallet, &mut extension, "undisturbed");
    exchange(&mut extension, &mut wallet, "undisturbed");
    server.wait_for_metric("parlor_clients", 2);
}

fn right_urls_are_taken(setup: Setup) {
    let server = Server::start(setup, &[]);
    for (number, query) in [
        "source=extension&target=wallet",
        "target=wallet&source=extension",
        "a=b&source=extension&c&target=wallet&d=",
        "target=wallet&Source=wallet&source=extension",
    ]
    .into_iter()
    .enumerate()
    {
        let key = key(number);
        let mut wallet = open(&server, &key, WALLET);
        let mut extension = Peer::open(&server, &format!("/{key}?{query}"));
        id_in(&extension.next("a notice"), "remoteClientIsAlreadyConnected");
        id_in(&wallet.next("a notice"), "remoteClientJustConnected");
    }
}

// Bounds.

/// Answers and then a close come to all that is sent at once. Returns how many answers.
fn answers_before_slow_down(server: &Server, messages: usize) -> usize {
    let mut peer = open(server, &key(7), WALLET);
    // What is no JSON counts as well.
    let texts = ["no JSON".to_owned(), message("r", "t")];
    peer.send_at_once((0..messages).map(|number| &*texts[number % 2]));
    let answers = peer.next_until_close(1013, SLOW_DOWN);
    for (number, answer) in answers.iter().enumerate() {
        let info = ["invalidMessageError", "missingRemoteClientError"][number % 2];
        assert!(answer.starts_with(&format!(r#"{{"info":"{info}""#)), "{answer}");
    }
    answers.len()
}

fn a_hundred_messages_a_second_pass(setup: Setup) {
    // The rate of other dialects is another one.
    let server = Server::start(setup, &[("MAX_MSG_PER_SECOND", "1")]);
    let mut bystander = open(&server, &key(7), WALLET);
    let answers = within(Duration::from_secs(1), || {
        let start = Instant::now();
        (answers_before_slow_down(&server, 250), start.elapsed())
    });
    assert_eq!(answers, 100);
    // Exactly a hundred pass, and pings among them do not count.
    let mut raw = Raw::open(&server, &path(&key(8), WALLET));
    let counted = frame(TEXT, message("r", "t").as_bytes());
    raw.send(&[frame(PING, b"p"), counted, frame(PING, b"q")].concat().repeat(100));
    let answers: Vec<Frame> = (0..300).map(|_| raw.frame()).filter(|frame| frame.first == TEXT).collect();
    assert_eq!(answers, vec![Frame::text(&missing("\"r\"")); 100]);
    bystander.ask(&message("r", "t"), &missing("\"r\""));
}

fn the_rate_is_what_the_environment_says(setup: Setup) {
    let server = Server::start(setup, &[("RATE_LIMIT_MESSAGES", "3"), ("RATE_LIMIT_MS", "600000")]);
    assert_eq!(answers_before_slow_down(&server, 4), 3);
    assert_eq!(answers_before_slow_down(&server, 50), 3, "each has a rate of its own");
    let mut raw = Raw::open(&server, &path(&key(0), WALLET));
    let message = message("r", "t");
    let (start, end) = message.as_bytes().split_at(20);
    let pieces =
        [frame(TEXT & !FIN, start), frame(CONTINUATION, b""), frame(CONTINUATION | FIN, end)].concat();
    raw.send(&[pieces.clone(), frame(BINARY, message.as_bytes()), pieces].concat());
    for _ in 0..3 {
        raw.expect(&missing("\"r\""));
    }
    raw.send(&frame(BINARY, b"\xff"));
    assert_eq!(raw.expect_close(1013), SLOW_DOWN);
    raw.finish(1013);
}

fn the_window_of_the_rate_is_fixed(setup: Setup) {
    const WINDOW: Duration = Duration::from_secs(2);
    let server = Server::start(setup, &[("RATE_LIMIT_MESSAGES", "3"), ("RATE_LIMIT_MS", "2000")]);
    let mut peer = open(&server, &key(0), WALLET);
    let text = message("r", "t");
    let mut say = |count: usize| {
        peer.send_at_once(std::iter::repeat_n(&*text, count));
        (0..count).for_each(|_| peer.expect(&missing("\"r\"")));
        Instant::now()
    };
    // It starts with the first message after the last window, and does not slide: these are four in a second.
    let first = say(2);
    std::thread::sleep(WINDOW / 2);
    say(1);
    std::thread::sleep((WINDOW + Duration::from_millis(50)).saturating_sub(first.elapsed()));
    let last = say(3);
    std::thread::sleep((WINDOW + Duration::from_millis(50)).saturating_sub(last.elapsed()));
    peer.send_at_once([&*text; 4]);
    assert_eq!(peer.next_until_close(1013, SLOW_DOWN).len(), 3);
}

fn messages_have_the_common_largest_size(setup: Setup) {
    const MAX: usize = 1_048_576;
    let server = Server::start(setup, &[]);
    let key = key(2);
    let (wallet, mut extension) = pair(&server, &key);
    let short = message("r", &extension.id);
    let sized = |len: usize| short.replace("\"p\"", &format!("\"{}\"", "p".repeat(len - short.len() + 1)));
    let (fits, too_long) = (sized(MAX), sized(MAX + 1));
    assert_eq!((fits.len(), too_long.len()), (MAX, MAX + 1));
    let halves = |text: &str| {
        let (start, end) = text.as_bytes().split_at(600_000);
        [frame(TEXT & !FIN, start), frame(CONTINUATION | FIN, end)].concat()
    };
    for bytes in [frame(TEXT, fits.as_bytes()), frame(BINARY, fits.as_bytes()), halves(&fits)] {
        let mut raw = Raw::open(&server, &path(&key, WALLET));
        raw.expect(&already(&extension.id));
        let id = id_in(&extension.peer.next("a notice"), "remoteClientJustConnected");
        raw.send(&bytes);
        extension.peer.expect(&remote_data(&fits, &id, "\"r\""));
        raw.expect(&confirmation("\"r\""));
        drop(raw);
        extension.peer.expect(&disconnected(&id));
    }
    for bytes in [frame(TEXT, too_long.as_bytes()), frame(BINARY, too_long.as_bytes()), halves(&too_long)] {
        let mut raw = Raw::open(&server, &path(&key, WALLET));
        raw.expect(&already(&extension.id));
        let id = id_in(&extension.peer.next("a notice"), "remoteClientJustConnected");
        raw.send(&bytes);
        raw.expect_close(1009);
        extension.peer.expect(&disconnected(&id));
        raw.finish(1009);
    }
    let mut sides = (wallet, extension);
    exchange(&mut sides.0, &mut sides.1, "undisturbed");
}

fn who_reads_too_slowly_is_closed_and_missed(setup: Setup) {
    let server = Server::start(setup, &[("OUTBOX_MAX_BYTES", "100000"), NO_RATE]);
    let (mut one, mut other) = pair(&server, &key(0));
    let key = key(1);
    let mut wallet = open(&server, &key, WALLET);
    let mut slow = open_slow(&server, &path(&key, EXTENSION));
    let id = id_in(&wallet.next("a notice"), "remoteClientJustConnected");
    let first = String::from_utf8(slow.frame().payload).expect("text");
    let wallet_id = id_in(&first, "remoteClientIsAlreadyConnected");
    let text = |number: usize| {
        message(&number.to_string(), &id).replace("\"p\"", &format!("\"{}\"", "p".repeat(16_000)))
    };
    let start = Instant::now();
    let mut confirmed = 0;
    let (missed, unconfirmed) = loop {
        wallet.send(&text(confirmed));
        let answer = wallet.next("confirmation");
        if answer != confirmation(&format!("\"{confirmed}\"")) {
            break (answer, wallet.next("missingRemoteClientError"));
        }
        confirmed += 1;
        exchange(&mut one, &mut other, "undisturbed");
        assert!(start.elapsed() < WAIT, "{confirmed} messages and the slow one is not closed");
    };
    // It is gone, and nothing was confirmed that it did not get.
    let gone = [disconnected(&id), missing(&format!("\"{confirmed}\""))];
    assert!(gone.contains(&missed) && gone.contains(&unconfirmed), "{missed} {unconfirmed}");
    wallet.ask(&message("late", &id), &missing("\"late\""));
    for number in 0..confirmed {
        slow.expect(&remote_data(&text(number), &wallet_id, &format!("\"{number}\"")));
    }
    assert_eq!(slow.expect_close(1013), "too slow");
    slow.finish(1013);
    assert_eq!(server.metric("parlor_too_slow_total"), 1);
}

// Metrics.

const DASHBOARD: [(&str, &str); 10] = [
    ("connected_clients", "gauge"),
    ("incoming_messages", "counter"),
    ("outgoing_messages", "counter"),
    ("publish_messages", "counter"),
    ("subscribe_messages", "counter"),
    ("redis_get_time", "gauge"),
    ("redis_set_time", "gauge"),
    ("redis_delete_time", "gauge"),
    ("redis_publish_time", "gauge"),
    ("redis_subscribe_time", "gauge"),
];

fn the_dashboards_numbers_are_there(setup: Setup) {
    let server = Server::start(setup, &[]);
    let metrics = get(server.address, "/metrics");
    for (name, kind) in DASHBOARD {
        let name = format!("signaling_server_{name}");
        assert_eq!(number_in(&metrics, &name), 0.0, "{name}");
        assert!(metrics.body.contains(&format!("# TYPE {name} {kind}\n")), "{name} is a {kind}");
    }
    let number =
        |name: &str| number_in(&get(server.address, "/metrics"), &format!("signaling_server_{name}"));
    // Others are no rendezvous clients.
    let (mut directory, mut pairing) = (Peer::open(&server, "/"), Peer::open(&server, "/ws"));
    directory.ask(r#"{"type":"x"}"#, r#"{"type":"error","error":"not_logged_in"}"#);
    pairing.next("ready");
    assert_eq!(number("connected_clients"), 0.0);
    let mut pairs: Vec<(Known, Known)> = (0..5).map(|number| pair(&server, &key(number))).collect();
    assert_eq!(number("connected_clients"), 10.0);
    let (incoming, outgoing) = (number("incoming_messages"), number("outgoing_messages"));
    assert_eq!((incoming, outgoing), (0.0, 10.0), "each was told of the other");
    for (wallet, extension) in &mut pairs {
        exchange(wallet, extension, "r");
        wallet.peer.ask(&message("r", "t"), &missing("\"r\""));
    }
    assert_eq!(number("incoming_messages"), incoming + 10.0);
    assert_eq!(number("outgoing_messages"), outgoing + 15.0);
    let (wallet, mut extension) = pairs.pop().expect("there are five");
    wallet.peer.close();
    extension.peer.expect(&disconnected(&wallet.id));
    assert_eq!(number("connected_clients"), 9.0);
    let mut wrong = Raw::open(&server, "/x?source=wallet");
    wrong.expect_close(1003);
    assert_eq!(number("connected_clients"), 9.0);
    let metrics = get(server.address, "/metrics");
    for (name, _) in &DASHBOARD[3..] {
        let name = format!("signaling_server_{name}");
        assert_eq!(number_in(&metrics, &name), 0.0, "{name} without Redis");
        assert!(!metrics.body.contains(&format!("{name}{{")), "{name} has no labels");
        assert!(!metrics.body.contains(&format!("{name}_total")), "{name} is no total");
    }
}
