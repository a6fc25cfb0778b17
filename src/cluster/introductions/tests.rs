use proptest::prelude::*;

use super::*;
use crate::cluster::desk::tests::{GONE, HERE, desk_alone};
use crate::cluster::{Output, Token, codec};
use crate::id::{Entropy, Slot};

const SHARD: ShardIndex = ShardIndex(2);

fn client(host: HostId) -> ClientId {
    ClientId::new(host, SHARD, Slot(7), &mut Entropy::from_seed([2; 32]))
}

fn registration(client: ClientId, takes: bool) -> Request {
    Request::Register(Box::new(Registration {
        client,
        id: "me".into(),
        takes,
        is_whole: false,
        join: Names::new([b"1".as_slice(), b""]),
        leave: Names::new([b"2".as_slice()]),
        acquaintance: Acquaintance::Nobody,
        scope: Scope::All,
    }))
}

type Commands = Vec<(Token, Command)>;
type Mail = Vec<(ShardIndex, FromCluster)>;

/// Everything that is to be done.
fn outputs(desk: &mut Desk) -> (Commands, Mail) {
    let (mut commands, mut mail) = (Vec::new(), Vec::new());
    while let Some(output) = desk.poll_output() {
        match output {
            Output::Command { token, command } => commands.push((token, command)),
            Output::Mail { to, mail: one } => mail.push((to, one)),
            other => panic!("{other:?}"),
        }
    }
    (commands, mail)
}

fn list(items: &[&[u8]]) -> Reply {
    Reply::List(items.iter().map(|item| item.to_vec()).collect())
}

/// What a shard hears when Redis answers its registration so.
fn outcome(takes: bool, reply: &Reply) -> (Outcome, Vec<Command>) {
    let (mut introductions, mut desk) = (Introductions::default(), desk_alone());
    introductions.handle_request(SHARD, registration(client(HERE), takes), &mut desk);
    let (commands, mail) = outputs(&mut desk);
    assert!(mail.is_empty());
    let Some(desk::Awaited::Introductions(awaited)) = desk.take_awaited(commands[0].0) else {
        panic!("a reply is awaited")
    };
    introductions.handle_reply(awaited, reply, &mut desk);
    let (commands, mail) = outputs(&mut desk);
    let [(SHARD, FromCluster::Introductions(News::Registered { client: told, outcome }))] = &mail[..] else {
        panic!("{mail:?}")
    };
    assert_eq!(*told, client(HERE));
    (outcome.clone(), commands.into_iter().map(|(_, command)| command).collect())
}

fn done(meetings: Vec<Meeting>) -> Outcome {
    Outcome::Done { inherited: Names::new([]), acquaintance: Acquaintance::Nobody, meetings }
}

#[test]
fn a_registration_is_one_call() {
    let mut desk = desk_alone();
    Introductions::default().handle_request(SHARD, registration(client(HERE), true), &mut desk);
    let (commands, _) = outputs(&mut desk);
    let [(_, Command::Run { script, keys, arguments })] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(*script, &REGISTER);
    let named: Vec<&[u8]> = vec![b"parlor:peers", b"parlor:acquaintances", b"parlor:peer:me"];
    assert_eq!(*keys, named);
    let id = client(HERE).text();
    let said: [&[u8]; 12] = [b"me", &id, b"all", b"", b"1", b"0", b"16777216", b"2", b"", b"1", b"", b"2"];
    assert_eq!(*arguments, said);
}

#[test]
fn whoever_is_gone_is_removed_and_met_by_nobody() {
    let gone = client(GONE).text();
    let met = list(&[b"", b"0", b"", b"ghost", &gone, b"1", b"doc"]);
    let (told, commands) = outcome(false, &met);
    assert_eq!(told, done(Vec::new()));
    assert_eq!(commands, [leave(client(GONE), b"ghost")]);
    // In the way of our own peer.
    let (told, commands) = outcome(false, &list(&[&gone]));
    assert_eq!((told, commands), (Outcome::Again, vec![leave(client(GONE), b"me")]));
    // A newcomer inherits nothing from it.
    let (told, _) = outcome(true, &list(&[&gone, b"1", b"old", b"+"]));
    assert_eq!(told, Outcome::Again);
}

#[test]
fn whom_no_host_answers_for_is_not_met() {
    let elsewhere = client(HostId(0xff)).text();
    for id in [elsewhere, client(HERE).text()] {
        let met = list(&[b"", b"0", b"", b"other", &id, b"1", b"doc"]);
        assert_eq!(outcome(false, &met), (done(Vec::new()), Vec::new()));
    }
    assert_eq!(outcome(false, &list(&[&elsewhere])), (Outcome::TakenOver, Vec::new()));
    // It is inherited from: it may be found later, and hears of it then.
    let (told, _) = outcome(true, &list(&[&elsewhere, b"2", b"b", b"a", b"5:otherdoc"]));
    let acquaintance = Acquaintance::One { partner: "other".into(), document: b"doc".as_slice().into() };
    let inherited = Names::new([b"b".as_slice(), b"a"]);
    assert_eq!(told, Outcome::Done { inherited, acquaintance, meetings: Vec::new() });
}

#[test]
fn replies_that_are_none_have_failed() {
    let id = client(HERE).text();
    for reply in [
        Reply::Failed,
        Reply::Done,
        Reply::Nil,
        Reply::Integer(1),
        list(&[]),
        list(&[b"no client"]),
        list(&[b"", b"x", b""]),
        list(&[b"", b"99999999999999999999", b""]),
        list(&[b"", b"2", b"one"]),
        list(&[b"", b"0"]),
        list(&[b"", b"0", b"9:short"]),
        list(&[b"", b"0", b"no colon"]),
        list(&[b"", b"0", b"", b"other"]),
        list(&[b"", b"0", b"", b"other", &id]),
        list(&[b"", b"0", b"", b"other", &id, b"2", b"1"]),
    ] {
        for takes in [false, true] {
            assert_eq!(outcome(takes, &reply), (Outcome::Failed { takes }, Vec::new()), "{reply:?}");
        }
    }
    assert_eq!(outcome(false, &list(&[b"!"])).0, Outcome::TooMuch);
    let odd = list(&[b"", b"0", b"", b"\xff", &id, b"0", b"other", b"no client", b"1", b"doc"]);
    assert_eq!(outcome(false, &odd).0, done(Vec::new()), "entries of nobody are left out");
}

#[test]
fn who_left_while_redis_was_away_is_taken_out_later() {
    let (mut introductions, mut desk) = (Introductions::default(), desk_alone());
    let left = client(HERE);
    introductions.handle_request(SHARD, Request::Leave { client: left, id: "me".into() }, &mut desk);
    let (commands, _) = outputs(&mut desk);
    let answer = |introductions: &mut Introductions, desk: &mut Desk, token, reply: &Reply| {
        let Some(desk::Awaited::Introductions(awaited)) = desk.take_awaited(token) else { panic!("awaited") };
        introductions.handle_reply(awaited, reply, desk);
    };
    answer(&mut introductions, &mut desk, commands[0].0, &Reply::Failed);
    introductions.handle_up(&mut desk);
    let (again, mail) = outputs(&mut desk);
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].1, commands[0].1);
    assert_eq!(mail.len(), 3, "each shard hears that all is to be registered");
    answer(&mut introductions, &mut desk, again[0].0, &Reply::Nil);
    introductions.handle_up(&mut desk);
    assert!(outputs(&mut desk).0.is_empty(), "once is enough");
    assert!(desk.awaits_nothing());
}

#[test]
fn a_short_url_counts_only_what_is_there() {
    let (here, gone) = (client(HERE).text(), client(GONE).text());
    let found = Found::Partner("other".into(), "doc".into());
    for (reply, expected) in [
        (list(&[&here, &here, b"other", b"doc"]), found),
        (list(&[&here, &gone, b"other", b"doc"]), Found::Nobody),
        (list(&[]), Found::Nobody),
        (list(&[&here, &here, b"other", b"\xed\xa0\x80"]), Found::Unknown),
        (list(&[&here, b"x", b"other", b"doc"]), Found::Unknown),
        (Reply::Failed, Found::Unknown),
    ] {
        let (mut introductions, mut desk) = (Introductions::default(), desk_alone());
        let request = Request::Partner { client: client(HERE), remote: "me".into() };
        introductions.handle_request(SHARD, request, &mut desk);
        let (commands, _) = outputs(&mut desk);
        let Some(desk::Awaited::Introductions(awaited)) = desk.take_awaited(commands[0].0) else {
            panic!("awaited")
        };
        introductions.handle_reply(awaited, &reply, &mut desk);
        let news = News::Partner { client: client(HERE), remote: "me".into(), found: expected };
        assert_eq!(outputs(&mut desk).1, [(SHARD, FromCluster::Introductions(news))], "{reply:?}");
    }
}

fn any_client() -> impl Strategy<Value = ClientId> {
    any::<(u32, u8)>().prop_map(|(host, seed)| {
        ClientId::new(HostId(host), SHARD, Slot(1), &mut Entropy::from_seed([seed; 32]))
    })
}

fn any_names() -> impl Strategy<Value = Names> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..5)
        .prop_map(|names| Names::new(names.iter().map(Vec::as_slice)))
}

fn any_letter() -> impl Strategy<Value = Letter> {
    prop_oneof![
        (any_client(), any_client(), any::<String>(), any_names()).prop_map(|(to, from, id, documents)| {
            Letter::Introduction { to, from, id: id.into(), documents }
        }),
        (any_client(), any_client()).prop_map(|(client, by)| Letter::TakenOver { client, by }),
    ]
}

proptest! {
    #[test]
    fn letters_come_out_as_they_went_in(letter in any_letter()) {
        let letter = super::super::Letter::Introductions(letter);
        let mut draft = codec::Draft::default();
        draft.push(SHARD, &letter);
        let sender = codec::Sender { host: HERE, start: 1 };
        let header = codec::Header { sender, mine: 1, yours: 2, sequence: 3, wants_answer: false };
        let bytes = draft.finish(&header);
        let expected = codec::Mail { header, letters: vec![(SHARD, letter)] };
        prop_assert_eq!(codec::decode(&bytes), Ok(codec::Message::Mail(expected)));
        for len in 0..bytes.len() {
            let is_whole = codec::decode(&bytes.slice(..len))
                .is_ok_and(|message| matches!(message, codec::Message::Mail(mail) if !mail.letters.is_empty()));
            prop_assert!(!is_whole);
        }
    }

    #[test]
    fn names_are_what_they_were(names in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..5)) {
        let joined = Names::new(names.iter().map(Vec::as_slice));
        prop_assert!(joined.iter().eq(names.iter().map(Vec::as_slice)));
        prop_assert_eq!(Names::parse(joined.bytes().clone()), Some(joined));
    }

    #[test]
    fn bytes_that_are_no_names_are_refused(bytes in proptest::collection::vec(0..3_u8, 0..20)) {
        if let Some(names) = Names::parse(bytes.clone().into()) {
            prop_assert_eq!(Names::new(names.iter()).bytes().to_vec(), bytes);
        }
    }
}
