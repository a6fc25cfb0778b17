use proptest::prelude::*;

use super::*;
use crate::cluster::desk::tests::{GONE, HERE, NEIGHBOUR, desk_alone, desk_with_neighbour};
use crate::cluster::{Output, Token, codec};
use crate::id::{Entropy, HostId, Slot};
use crate::protocol::pipe::End;

const SHARD: ShardIndex = ShardIndex(1);

fn client(host: HostId, slot: u32) -> ClientId {
    ClientId::new(host, SHARD, Slot(slot), &mut Entropy::from_seed([slot as u8; 32]))
}

fn names() -> Names {
    End::new(b"b", b"a", b"doc", false).names()
}

fn list(items: &[&[u8]]) -> Reply {
    Reply::List(items.iter().map(|item| item.to_vec()).collect())
}

/// Everything that is to be done.
fn outputs(desk: &mut Desk) -> (Vec<(Token, Command)>, Vec<News>) {
    let (mut commands, mut news) = (Vec::new(), Vec::new());
    while let Some(output) = desk.poll_output() {
        match output {
            Output::Command { token, command } => commands.push((token, command)),
            Output::Mail { to: SHARD, mail: FromCluster::Pipes(one) } => news.push(one),
            other => panic!("{other:?}"),
        }
    }
    (commands, news)
}

/// What follows when Redis answers an arrival so: news, and commands.
fn answered(reply: &Reply) -> (Vec<News>, Vec<Command>) {
    answered_at(&mut desk_alone(), true, reply)
}

fn answered_at(desk: &mut Desk, is_new: bool, reply: &Reply) -> (Vec<News>, Vec<Command>) {
    let mut pipes = Pipes::default();
    let arrival = Request::Arrive { client: client(HERE, 1), names: names(), is_new };
    pipes.handle_request(SHARD, arrival, desk);
    let (commands, news) = outputs(desk);
    assert!(news.is_empty());
    let Some(desk::Awaited::Pipes(awaited)) = desk.take_awaited(commands[0].0) else { panic!("awaited") };
    pipes.handle_reply(awaited, reply, desk);
    let (then, news) = outputs(desk);
    (news, then.into_iter().map(|(_, command)| command).collect())
}

#[test]
fn who_arrives_and_who_is_forgotten_is_named_in_full() {
    let (mut pipes, mut desk) = (Pipes::default(), desk_alone());
    let me = client(HERE, 1);
    pipes.handle_request(SHARD, Request::Arrive { client: me, names: names(), is_new: true }, &mut desk);
    pipes.handle_request(SHARD, Request::Forget { client: me, names: names() }, &mut desk);
    let commands: Vec<Command> = outputs(&mut desk).0.into_iter().map(|(_, command)| command).collect();
    let (own, other) = (b"parlor:pipe:ws:1:b/1:a/3:doc".to_vec(), b"parlor:pipe:ws:1:a/1:b/3:doc".to_vec());
    let arguments = vec![me.text().to_vec()];
    let arrive = Command::Run {
        script: &ARRIVE,
        keys: vec![own.clone(), other],
        arguments: vec![me.text().to_vec(), b"0000000a".to_vec()],
    };
    assert_eq!(commands, [arrive, Command::Run { script: &FORGET, keys: vec![own], arguments }]);
}

#[test]
fn an_arrival_meets_who_is_there_and_nobody_else() {
    let me = client(HERE, 1);
    let here = client(HERE, 2);
    let met = |other: ClientId| list(&[b"met", &other.text()]);
    assert_eq!(answered(&met(here)), (vec![News::Met { client: me, partner: here }], Vec::new()));
    // Who is gone, is not reached, or is none: their entry is gone by now, and the next may be there.
    for other in [client(GONE, 2), client(HostId(0xff), 2)] {
        assert_eq!(answered(&met(other)), (vec![News::Again { client: me }], Vec::new()));
    }
    let nonsense = list(&[b"met", b"nonsense"]);
    assert_eq!(answered(&nonsense), (vec![News::Again { client: me }], Vec::new()));
}

#[test]
fn an_arrival_that_waits_is_told_and_one_that_failed_too() {
    let me = client(HERE, 1);
    for other in [&b""[..], &me.text()] {
        let waits = list(&[b"waits", other]);
        assert_eq!(answered(&waits), (vec![News::Waits { client: me }], Vec::new()));
    }
    // Who is gone makes way; who cannot be asked stays.
    for (other, is_gone) in [(GONE, true), (HostId(0xff), false)] {
        let other = client(other, 2).text();
        let (told, commands) = answered(&list(&[b"waits", &other]));
        let again = is_gone.then_some(News::Again { client: me });
        assert_eq!(told, [News::Waits { client: me }].into_iter().chain(again).collect::<Vec<_>>());
        assert_eq!(commands, is_gone.then(|| forgotten(&other, &names().other)).as_slice());
    }
    for reply in [Reply::Failed, Reply::Nil, Reply::Done, list(&[]), list(&[b"waits"]), list(&[b"x", b"y"])] {
        assert_eq!(answered(&reply), (vec![News::Failed { client: me }], Vec::new()), "{reply:?}");
    }
}

#[test]
fn a_newcomer_takes_the_place_of_another_and_who_was_here_before_does_not() {
    let me = client(HERE, 1);
    let taken = |is_new, by: &[u8]| answered_at(&mut desk_alone(), is_new, &list(&[b"taken", by]));
    let (here, unreached) = (client(HERE, 2).text(), client(HostId(0xff), 2).text());
    let again = |by: &[u8]| (vec![News::Again { client: me }], vec![forgotten(by, &names().own)]);
    for is_new in [false, true] {
        // The shard knows of those of its own: this one has left.
        assert_eq!(taken(is_new, &here), again(&here));
        assert_eq!(taken(is_new, &unreached), (vec![News::Failed { client: me }], vec![]));
        for gone in [&client(GONE, 2).text()[..], b"nonsense"] {
            assert_eq!(taken(is_new, gone), again(gone));
        }
    }
}

#[test]
fn who_waits_on_another_host_is_told_that_it_is_replaced_and_keeps_its_place_from_who_comes_again() {
    let (me, other) = (client(HERE, 1), client(NEIGHBOUR, 2).text());
    let mut desk = desk_with_neighbour();
    let taken = list(&[b"taken", &other]);
    let replaced = (vec![News::Replaced { client: me }], vec![]);
    assert_eq!(answered_at(&mut desk, false, &taken), replaced);
    desk.send_drafts();
    assert!(desk.poll_output().is_none(), "nobody is written to");
    let again = (vec![News::Again { client: me }], vec![forgotten(&other, &names().own)]);
    assert_eq!(answered_at(&mut desk, true, &taken), again);
    desk.send_drafts();
    let Some(Output::Command { command: Command::Publish { channel, .. }, .. }) = desk.poll_output() else {
        panic!("a letter")
    };
    assert_eq!(channel, b"parlor:host:0000000c");
    // The two ends of a pipe to itself have one name: they are partners.
    let itself = End::new(b"a", b"a", b"doc", false).names();
    let arrival = Arrival { shard: SHARD, client: me, names: itself, is_new: true };
    handle_arrived(&arrival, &taken, &mut desk);
    assert_eq!(outputs(&mut desk), (vec![], vec![News::Again { client: me }]));
}

#[test]
fn who_has_left_while_redis_was_away_is_forgotten_when_it_is_back() {
    let (mut pipes, mut desk) = (Pipes::default(), desk_alone());
    let forget = Request::Forget { client: client(HERE, 1), names: names() };
    pipes.handle_request(SHARD, forget, &mut desk);
    let (first, _) = outputs(&mut desk);
    let Some(desk::Awaited::Pipes(awaited)) = desk.take_awaited(first[0].0) else { panic!("awaited") };
    pipes.handle_reply(awaited, &Reply::Failed, &mut desk);
    for expected in [1, 0] {
        pipes.handle_up(&mut desk);
        let mut commands = Vec::new();
        while let Some(output) = desk.poll_output() {
            if let Output::Command { command, .. } = output {
                commands.push(command);
            }
        }
        assert_eq!(commands.len(), expected);
        assert!(commands.iter().all(|command| *command == first[0].1));
    }
}

#[test]
fn shards_hear_whether_redis_is_there() {
    let (mut pipes, mut desk) = (Pipes::default(), desk_alone());
    pipes.handle_up(&mut desk);
    pipes.handle_down(&mut desk);
    let mut told = Vec::new();
    while let Some(Output::Mail { to, mail }) = desk.poll_output() {
        told.push((to.0, mail));
    }
    let mail = |news| FromCluster::Pipes(news);
    let expected = [News::Up, News::Down].into_iter().flat_map(|news| (0..3).map(move |to| (to, mail(news))));
    assert_eq!(told, expected.collect::<Vec<_>>());
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        Just(What::Ask),
        Just(What::Joined),
        Just(What::Refused),
        Just(What::Busy),
        Just(What::Replaced),
        (any::<u64>(), prop_oneof![0..200_usize, Just(PIPE_CHUNK_BYTES_MAX)], any::<u8>())
            .prop_map(|(number, len, fill)| What::Chunk { number, bytes: vec![fill; len].into() }),
        any::<u32>().prop_map(What::Credit),
        Just(What::End(How::Closed)),
        Just(What::End(How::Finished)),
        Just(What::End(How::Reset)),
        Just(What::End(How::Lost)),
    ]
}

fn encoded(letter: Letter) -> (Bytes, codec::Mail) {
    let letter = super::super::Letter::Pipes(letter);
    let mut draft = codec::Draft::default();
    draft.push(SHARD, &letter);
    let sender = codec::Sender { host: HERE, start: 1 };
    let header = codec::Header { sender, mine: 1, yours: 2, sequence: 3, wants_answer: false };
    (draft.finish(&header), codec::Mail { header, letters: vec![(SHARD, letter)] })
}

proptest! {
    #[test]
    fn letters_come_out_as_they_went_in(what in what(), slot in 0..200_u32) {
        let letter = Letter { to: client(GONE, slot), from: client(HERE, slot), what };
        let (bytes, expected) = encoded(letter);
        for len in 0..bytes.len().min(200) {
            let is_whole = codec::decode(&bytes.slice(..len))
                .is_ok_and(|message| matches!(message, codec::Message::Mail(mail) if !mail.letters.is_empty()));
            prop_assert!(!is_whole);
        }
        prop_assert_eq!(codec::decode(&bytes), Ok(codec::Message::Mail(expected)));
    }
}

#[test]
fn a_chunk_has_a_bound() {
    let bytes = vec![0; PIPE_CHUNK_BYTES_MAX + 1].into();
    let (to, from) = (client(GONE, 1), client(HERE, 1));
    let (bytes, _) = encoded(Letter { to, from, what: What::Chunk { number: 1, bytes } });
    assert_eq!(codec::decode(&bytes), Err(Error::TooLong(PIPE_CHUNK_BYTES_MAX + 1)));
}
