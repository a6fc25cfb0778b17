//! What is said in rendezvous and arrives: protocols.md section 2, messages, and of section 0 the lines text and binary,
//! opaque, sender and order.

use super::errors::{entries, expected, no_json, wrong_fields};
use super::{
    EXTENSION, Known, NO_RATE, WALLET, confirmation, disconnected, exchange, id_in, just, key, message,
    missing, open, pair, path, remote_data,
};
use crate::support::dialects::RandomJson;
use crate::support::{
    BINARY, CONTINUATION, FIN, Frame, PING, PONG, Raw, Server, Setup, TEXT, frame, on_each_driver,
    on_each_setup,
};

on_each_setup!(
    messages_arrive_as_they_were_sent,
    random_messages_arrive_as_they_were_sent,
    a_target_that_is_not_there_is_missing,
    answers_keep_the_order_of_the_messages,
    many_send_to_one_and_each_keeps_its_order,
);
on_each_driver!(answers_are_single_text_frames);

/// Messages, where `<to>` stands for the target's id; and their request id, as it comes back.
const ARRIVING: &[(&str, &str)] = &[
    (r#"{"requestId":"1","method":"offer","encryptedPayload":"p","targetClientId":"<to>"}"#, r#""1""#),
    (
        r#"{"requestId":"1","method":"answer","source":"wallet","connectionId":"c","encryptedPayload":"p","targetClientId":"<to>","startAt":1700000000000}"#,
        r#""1""#,
    ),
    (
        r#"{"requestId":"1","method":"iceCandidate","source":"extension","encryptedPayload":"","targetClientId":"<to>"}"#,
        r#""1""#,
    ),
    (
        r#"{"requestId":"1","method":"iceCandidates","connectionId":"","encryptedPayload":"p","targetClientId":"<to>"}"#,
        r#""1""#,
    ),
    (r#"{"requestId":"","method":"offer","encryptedPayload":"p","targetClientId":"<to>"}"#, r#""""#),
    // Any order, blanks inside.
    (
        "{ \"targetClientId\" : \"<to>\" ,\n\t\"encryptedPayload\":\"a  b\",\r\n\"method\":\"offer\"  ,\"requestId\" :\"1\" }",
        r#""1""#,
    ),
    // Numbers, escapes and halves of surrogates stay as they are.
    (
        r#"{"startAt":1.50,"requestId":"1","method":"offer","encryptedPayload":"\u0041\/\"\\\n\u00e9","targetClientId":"<to>"}"#,
        r#""1""#,
    ),
    (
        r#"{"startAt":1e400,"requestId":"1","method":"offer","encryptedPayload":"\ud800","targetClientId":"<to>"}"#,
        r#""1""#,
    ),
    (
        r#"{"startAt":-0,"requestId":"1","method":"offer","encryptedPayload":"\ud83d\ude00 \udc00\ud800","targetClientId":"<to>"}"#,
        r#""1""#,
    ),
    (
        r#"{"startAt":123456789012345678901234567890.10,"requestId":"1","method":"offer","encryptedPayload":"p","targetClientId":"<to>"}"#,
        r#""1""#,
    ),
    (
        "{\"requestId\":\"é\u{1f600}\u{2028}\u{7f}\",\"method\":\"offer\",\"encryptedPayload\":\"\u{feff}ß\",\"targetClientId\":\"<to>\"}",
        "\"é\u{1f600}\u{2028}\u{7f}\"",
    ),
    (
        r#"{"requestId":"\ud800","method":"offer","encryptedPayload":"p","targetClientId":"<to>"}"#,
        r#""\ud800""#,
    ),
    (
        r#"{"requestId":"a\"\\b","method":"offer","encryptedPayload":"p","targetClientId":"<to>"}"#,
        r#""a\"\\b""#,
    ),
    // Keys and values are compared unescaped, of equal keys the last counts; all of them arrive.
    (
        r#"{"r\u0065questId":"1","\u006dethod":"\u006fffer","\u0065ncryptedPayload":"p","targetClient\u0049d":"<to>"}"#,
        r#""1""#,
    ),
    (
        r#"{"requestId":5,"method":"x","encryptedPayload":{},"targetClientId":"nobody","startAt":"x","requestId":"1","method":"offer","encryptedPayload":"p","targetClientId":"<to>","startAt":2}"#,
        r#""1""#,
    ),
    (
        r#"{"requestId":"1","method":"offer","encryptedPayload":"p","targetClientId":"nobody","targetClient\u0049d":"<to>","r\u0065questId":"2"}"#,
        r#""2""#,
    ),
    // Unknown fields pass, whatever they are called.
    (
        r#"{"a":[1.50,{"b":null,"c":[1e400,"\ud800"]}],"requestId":"1","method":"offer","encryptedPayload":"p","targetClientId":"<to>","":{},"target":"wallet","type":"login"}"#,
        r#""1""#,
    ),
    (
        r#"{"remoteClientId":"me","info":"remoteData","data":{"requestId":"inner"},"requestId":"1","method":"offer","encryptedPayload":"p","targetClientId":"<to>","from":"x","senderId":"y","error":[]}"#,
        r#""1""#,
    ),
    (
        r#"{"x":{"requestId":5,"targetClientId":"nobody"},"requestId":"1","method":"offer","encryptedPayload":"p","targetClientId":"<to>","__proto__":{"requestId":6}}"#,
        r#""1""#,
    ),
];

fn messages_arrive_as_they_were_sent(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    for number in 0..4 {
        let (wallet, extension) = pair(&server, &key(number));
        let mut sides = [wallet, extension];
        for _ in 0..2 {
            let [from, to] = &mut sides;
            for (sent, request) in ARRIVING {
                let sent = sent.replace("<to>", &to.id);
                let expected = remote_data(&sent, &from.id, request);
                from.peer.send(&sent);
                to.peer.expect(&expected);
                from.peer.expect(&confirmation(request));
                from.peer.send_binary(sent.as_bytes());
                to.peer.expect(&expected);
                from.peer.expect(&confirmation(request));
            }
            // The id is compared unescaped.
            let escaped = format!("\\u{:04x}{}", u32::from(to.id.as_bytes()[0]), &to.id[1..]);
            let sent = message("escaped", &escaped);
            from.peer.send(&sent);
            to.peer.expect(&remote_data(&sent, &from.id, "\"escaped\""));
            from.peer.expect(&confirmation("\"escaped\""));
            blanks_around_do_not_matter(from, to);
            from.peer.expect_nothing();
            to.peer.expect_nothing();
            sides.reverse();
        }
    }
}

/// Whether they belong to the message is left open.
fn blanks_around_do_not_matter(from: &mut Known, to: &mut Known) {
    let inner = message("r", &to.id);
    let sent = format!(" \r\n{inner}\t ");
    from.peer.send(&sent);
    let got = to.peer.next("remoteData");
    let forms = [&sent, &inner].map(|data| remote_data(data, &from.id, "\"r\""));
    assert!(forms.contains(&got), "{got:?}");
    from.peer.expect(&confirmation("\"r\""));
}

fn random_messages_arrive_as_they_were_sent(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let mut json = RandomJson::new(20);
    for number in 0..4 {
        let (wallet, extension) = pair(&server, &key(number));
        let mut sides = [wallet, extension];
        for round in 0..150 {
            let [from, to] = &mut sides;
            let (request, target) = (format!("\"{round}\""), format!("\"{}\"", to.id));
            let (payload, connection) = (json.string(""), json.string(""));
            let method = ["\"offer\"", "\"answer\"", "\"iceCandidate\"", "\"iceCandidates\""][json.below(4)];
            let source = ["\"wallet\"", "\"extension\""][json.below(2)];
            let fields = [
                ("requestId", &*request),
                ("method", method),
                ("encryptedPayload", &*payload),
                ("targetClientId", &*target),
                ("source", source),
                ("connectionId", &*connection),
            ];
            let count = 4 + json.below(3);
            let sent = json.message(&fields[..count]);
            if round % 2 == 0 {
                from.peer.send(&sent);
            } else {
                from.peer.send_binary(sent.as_bytes());
            }
            to.peer.expect(&remote_data(&sent, &from.id, &request));
            from.peer.expect(&confirmation(&request));
            if json.below(3) == 0 {
                sides.reverse();
            }
        }
    }
}

fn a_target_that_is_not_there_is_missing(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let key_here = key(1);
    let (mut wallet, mut extension) = pair(&server, &key_here);
    let mut second = open(&server, &key_here, WALLET);
    second.next("a notice");
    let second_id = id_in(&extension.peer.next("a notice"), "remoteClientJustConnected");
    // On other ids, which may live on other shards.
    let mut elsewhere: Vec<(Known, Known)> = (2..6).map(|number| pair(&server, &key(number))).collect();
    let gone = open(&server, &key_here, EXTENSION);
    let gone_id = id_in(&wallet.peer.next("a notice"), "remoteClientJustConnected");
    second.expect(&just(&gone_id));
    gone.close();
    wallet.peer.expect(&disconnected(&gone_id));
    second.expect(&disconnected(&gone_id));
    let mut targets = vec![
        ("oneself", wallet.id.clone()),
        ("its own role", second_id),
        ("gone", gone_id),
        ("nothing", String::new()),
        ("no id", "nobody".into()),
        ("an id in upper case", extension.id.to_uppercase()),
        ("an id with a blank", format!("{} ", extension.id)),
        ("half an id", extension.id[..18].into()),
        ("an id of nobody", "00000000-0000-4000-8000-000000000000".into()),
        ("a connection id", key_here.clone()),
        ("a half of a surrogate", "\\ud800".into()),
    ];
    for (other_wallet, other_extension) in &elsewhere {
        targets.push(("another id's wallet", other_wallet.id.clone()));
        targets.push(("another id's extension", other_extension.id.clone()));
    }
    for (what, target) in &targets {
        wallet.peer.name = format!("wallet asking for {what}");
        wallet.peer.ask(&message("r", target), &missing("\"r\""));
        wallet.peer.send_binary(message("r", target).as_bytes());
        wallet.peer.expect(&missing("\"r\""));
    }
    // Whatever had been sent to them would come before this.
    exchange(&mut wallet, &mut extension, "there");
    exchange(&mut extension, &mut wallet, "there");
    second.expect_nothing();
    for (other_wallet, other_extension) in &mut elsewhere {
        exchange(other_wallet, other_extension, "undisturbed");
        exchange(other_extension, other_wallet, "undisturbed");
    }
}

fn answers_keep_the_order_of_the_messages(setup: Setup) {
    const ROUNDS: usize = 250;
    let server = Server::start(setup, &[NO_RATE]);
    let (mut wallet, mut extension) = pair(&server, &key(4));
    let mut texts = Vec::new();
    let mut answers = Vec::new();
    for round in 0..ROUNDS {
        let request = format!("\"{round}\"");
        let wrong = entries(&[expected("string", "number", "targetClientId")]);
        texts.push(message(&round.to_string(), &extension.id));
        answers.push(confirmation(&request));
        texts.push(message(&round.to_string(), &wallet.id));
        answers.push(missing(&request));
        texts.push(format!("{round} is no JSON"));
        answers.push(no_json(&format!("{round} is no JSON")));
        texts.push(message(&round.to_string(), "<5>").replace("\"<5>\"", "5"));
        answers.push(wrong_fields(Some(&request), &wrong));
    }
    wallet.peer.send_at_once(texts.iter().map(String::as_str));
    for answer in &answers {
        wallet.peer.expect(answer);
    }
    for round in 0..ROUNDS {
        extension.peer.expect(&remote_data(&texts[4 * round], &wallet.id, &format!("\"{round}\"")));
    }
    exchange(&mut extension, &mut wallet, "end");
}

fn many_send_to_one_and_each_keeps_its_order(setup: Setup) {
    const SENDERS: usize = 6;
    const MESSAGES: usize = 200;
    let server = Server::start(setup, &[NO_RATE]);
    let key = key(6);
    let (mut wallet, first) = pair(&server, &key);
    let mut senders = vec![first];
    for _ in 1..SENDERS {
        let mut peer = open(&server, &key, EXTENSION);
        peer.next("a notice");
        let id = id_in(&wallet.peer.next("a notice"), "remoteClientJustConnected");
        senders.push(Known { peer, id });
    }
    let texts: Vec<String> = (0..MESSAGES).map(|number| message(&number.to_string(), &wallet.id)).collect();
    let ids: Vec<String> = senders.iter().map(|sender| sender.id.clone()).collect();
    std::thread::scope(|scope| {
        for sender in &mut senders {
            scope.spawn(|| {
                sender.peer.send_at_once(texts.iter().map(String::as_str));
                for number in 0..MESSAGES {
                    sender.peer.expect(&confirmation(&format!("\"{number}\"")));
                }
            });
        }
        // Each one's next message, and nothing else.
        let mut next = [0; SENDERS];
        for _ in 0..SENDERS * MESSAGES {
            let got = wallet.peer.next("remoteData");
            let is_next = |sender: usize| {
                let number = next[sender];
                let text = texts.get(number);
                text.is_some_and(|text| got == remote_data(text, &ids[sender], &format!("\"{number}\"")))
            };
            let sender = (0..SENDERS).find(|&sender| is_next(sender));
            next[sender.unwrap_or_else(|| panic!("nobody sends this next: {got}; {next:?}"))] += 1;
        }
        assert_eq!(next, [MESSAGES; SENDERS]);
    });
    wallet.peer.expect_nothing();
}

fn answers_are_single_text_frames(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let key = key(2);
    let mut wallet = open(&server, &key, WALLET);
    let mut raw = Raw::open(&server, &path(&key, EXTENSION));
    let id = id_in(&wallet.next("a notice"), "remoteClientJustConnected");
    let first = raw.frame();
    assert_eq!(first.first, TEXT);
    let wallet_id = id_in(&String::from_utf8(first.payload).expect("text"), "remoteClientIsAlreadyConnected");
    // What comes in a binary frame, and in many, goes on as one text.
    let text = message("r", &wallet_id).replace("\"p\"", "\"grüße 😀\"");
    let last = text.len() - 1;
    for opcode in [TEXT, BINARY] {
        for (at, byte) in text.bytes().enumerate() {
            let first = if at == 0 { opcode & !FIN } else { CONTINUATION } | if at == last { FIN } else { 0 };
            raw.send(&frame(first, &[byte]));
            if at % 50 == 10 && at != last {
                raw.send(&frame(PING, b"between"));
                assert_eq!(raw.frame(), Frame { first: PONG, payload: b"between".to_vec() });
            }
        }
        wallet.expect(&remote_data(&text, &id, "\"r\""));
        raw.expect(&confirmation("\"r\""));
    }
    raw.send(&frame(BINARY, b"\xff"));
    raw.expect(&no_json("\u{fffd}"));
    // A long one from the other side.
    let long = message("r", &id).replace("\"p\"", &format!("\"{}\"", "é".repeat(300_000)));
    wallet.send_binary(long.as_bytes());
    raw.expect(&remote_data(&long, &wallet_id, "\"r\""));
}
