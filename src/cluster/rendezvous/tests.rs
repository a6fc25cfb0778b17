//! Commands and mail in, what follows from them looked at; each line of protocols.md section 6 on rendezvous.

mod chance;
mod world;

use world::{CONNECTION, World};

use super::*;
use crate::cluster::{Command, codec};
use crate::id::Slot;
use crate::limits::{
    FOREIGN_ID_BYTES_MAX, PUBLISHED_BYTES_MAX, RENDEZVOUS_ASKED_MAX, RENDEZVOUS_HELD_BYTES_MAX,
    RENDEZVOUS_KNOWN_MAX,
};

const FOREIGN: &str = "a \"foreign\" one";

fn text(id: ClientId) -> String {
    String::from_utf8(id.text().to_vec()).expect("ASCII")
}

fn set(role: Role) -> String {
    format!("{}:{}", String::from_utf8(CONNECTION.to_vec()).expect("ASCII"), role.name())
}

fn notice(info: &str, id: &str) -> String {
    format!("{{\"info\":\"remoteClient{info}\",\"remoteClientId\":{id:?}}}")
}

fn told_of(world: &mut World, host: usize, client: ClientId, info: &str, other: ClientId) {
    assert_eq!(world.told(host, client), [notice(info, &text(other))]);
}

/// The next command of a host that is none of the hosts' own.
fn next_command(world: &mut World, host: usize) -> Option<Command> {
    let is_own = |command: &Command| match command {
        Command::Publish { channel, .. } => channel.starts_with(b"parlor:"),
        Command::Run { .. } => true,
        _ => false,
    };
    let commands = &mut world.hosts[host].commands;
    commands.retain(|(_, command)| !is_own(command));
    commands.front().map(|(_, command)| command.clone())
}

/// Redis answers the next command, and the host learns of it.
fn answer(world: &mut World, host: usize) {
    world.execute(host);
    world.reply(host);
}

/// A wallet of host 0 and an extension of host 1, who know each other.
fn pair(world: &mut World) -> (ClientId, ClientId) {
    let wallet = world.arrive(0, Role::Wallet);
    world.run();
    let extension = world.arrive(1, Role::Extension);
    world.run();
    told_of(world, 1, extension, "IsAlreadyConnected", wallet);
    told_of(world, 0, wallet, "JustConnected", extension);
    (wallet, extension)
}

#[test]
fn an_arrival_goes_step_by_step() {
    let mut world = World::new(1, true, 1);
    world.add_foreign(&set(Role::Extension), FOREIGN);
    let wallet = world.arrive(0, Role::Wallet);
    assert!(world.hosts[0].channels.contains(wallet.text().as_slice()));
    assert_eq!(next_command(&mut world, 0), None, "not before it is subscribed");
    let (key, member) = (set(Role::Wallet).into_bytes(), wallet.text().to_vec());
    world.hosts[0].cluster.handle_subscribed(&member, 0);
    world.hosts[0].drain(0);
    let add = Command::SetAdd { key: key.clone(), member: member.clone(), expire_s: Some(43_200) };
    assert_eq!(next_command(&mut world, 0), Some(add));
    world.execute(0);
    assert_eq!(next_command(&mut world, 0), None, "not before that is answered");
    world.reply(0);
    let other_key = set(Role::Extension).into_bytes();
    assert_eq!(next_command(&mut world, 0), Some(Command::SetMembers { key: other_key.clone() }));
    answer(&mut world, 0);
    let quoted = FOREIGN;
    assert_eq!(world.told(0, wallet), [notice("IsAlreadyConnected", quoted)]);
    let Some(Command::Publish { channel, payload }) = next_command(&mut world, 0) else {
        panic!("no notice")
    };
    assert_eq!(channel, FOREIGN.as_bytes());
    assert_eq!(payload, notice("JustConnected", &text(wallet)));
    answer(&mut world, 0);

    world.leave(0, wallet);
    assert_eq!(next_command(&mut world, 0), Some(Command::SetRemove { key, member }));
    answer(&mut world, 0);
    assert_eq!(next_command(&mut world, 0), Some(Command::SetMembers { key: other_key }));
    assert!(world.hosts[0].channels.contains(wallet.text().as_slice()), "it is told of others until the end");
    answer(&mut world, 0);
    let Some(Command::Publish { payload, .. }) = next_command(&mut world, 0) else { panic!("no notice") };
    assert_eq!(payload, notice("Disconnected", &text(wallet)));
    assert!(!world.hosts[0].channels.contains(wallet.text().as_slice()));
}

#[test]
fn clients_of_two_hosts_are_told_of_each_other_once() {
    let mut world = World::new(2, true, 2);
    let (wallet, extension) = pair(&mut world);
    let second = world.arrive(1, Role::Wallet);
    world.run();
    assert_eq!(world.told(1, second), [""; 0], "they know each other on their shard");
    world.leave(0, wallet);
    world.run();
    told_of(&mut world, 1, extension, "Disconnected", wallet);
    assert_eq!(world.told(1, second), [""; 0], "it is of the same role");
    world.leave(1, extension);
    world.leave(1, second);
    world.run();
    assert!(world.hosts.iter().all(|host| host.told.is_empty() && host.channels.len() == 2));
    assert_eq!((world.members(&set(Role::Wallet)).len(), world.members(&set(Role::Extension)).len()), (0, 0));
}

#[test]
fn who_closes_while_arriving_leaves_nothing() {
    for steps in 0..12 {
        let mut world = World::new(2, true, 3);
        let extension = world.arrive(1, Role::Extension);
        world.run();
        let wallet = world.arrive(0, Role::Wallet);
        for _ in 0..steps {
            world.step();
        }
        world.leave(0, wallet);
        world.run();
        assert_eq!(world.members(&set(Role::Wallet)), [""; 0], "after {steps} steps");
        assert_eq!(world.hosts[0].channels.len(), 2);
        let told = world.told(1, extension);
        let both = [notice("JustConnected", &text(wallet)), notice("Disconnected", &text(wallet))];
        assert!(told.is_empty() || told == both, "after {steps} steps: {told:?}");
    }
}

/// The other leaves when it is in what Redis is about to say.
#[test]
fn a_late_reply_announces_no_ghost() {
    let mut world = World::new(2, true, 4);
    let extension = world.arrive(1, Role::Extension);
    world.run();
    let wallet = world.arrive(0, Role::Wallet);
    while !matches!(next_command(&mut world, 0), Some(Command::SetMembers { .. })) {
        assert!(world.step());
    }
    // Redis has seen the extension, and says so late.
    world.execute(0);
    let late = world.take_reply(0);
    world.leave(1, extension);
    world.run();
    assert_eq!(world.hosts[1].channels.len(), 2, "it is through with all");
    world.give_reply(0, late);
    world.run();
    assert_eq!(world.told(0, wallet), [""; 0]);
}

/// A wallet of host 0 has looked, and what Redis says to it is on its way.
fn looking(world: &mut World) -> (ClientId, (crate::cluster::Token, Reply)) {
    let wallet = world.arrive(0, Role::Wallet);
    while !matches!(next_command(world, 0), Some(Command::SetMembers { .. })) {
        assert!(world.step());
    }
    world.execute(0);
    let late = world.take_reply(0);
    (wallet, late)
}

/// Its host is lost and found while it is in what Redis is about to say, and nobody says that it has left.
#[test]
fn what_was_seen_before_a_host_was_lost_does_not_count() {
    let mut world = World::new(2, true, 17);
    let extension = world.arrive(1, Role::Extension);
    let stays = world.arrive(1, Role::Extension);
    world.run();
    let (wallet, late) = looking(&mut world);
    world.lose_subscriptions(1);
    world.leave(1, extension);
    world.live(3);
    world.give_reply(0, late);
    world.live(1);
    let told = world.told(0, wallet);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(&text(stays)));
}

#[test]
fn who_is_lost_from_its_set_while_it_looks_is_added_again() {
    let mut world = World::new(1, true, 18);
    let (wallet, late) = looking(&mut world);
    world.sets.clear();
    world.lose_subscriptions(0);
    world.run();
    world.give_reply(0, late);
    world.run();
    assert_eq!(world.members(&set(Role::Wallet)), [text(wallet)]);
}

#[test]
fn who_is_lost_from_its_set_is_told_nevertheless() {
    let mut world = World::new(2, true, 19);
    let (wallet, extension) = pair(&mut world);
    world.sets.clear();
    world.leave(1, extension);
    world.run();
    told_of(&mut world, 0, wallet, "Disconnected", extension);
}

#[test]
fn a_host_alone_is_registered_again() {
    for has_public_layouts in [true, false] {
        let mut world = World::new(1, has_public_layouts, 20);
        world.arrive(0, Role::Wallet);
        let leaves = world.arrive(0, Role::Wallet);
        world.run();
        world.disconnect(0);
        world.leave(0, leaves);
        world.connect(0);
        world.live(1);
        assert_eq!(world.sets.values().map(BTreeSet::len).sum::<usize>(), 1);
        world.restart_empty();
        world.live(1);
        assert_eq!(world.sets.values().map(BTreeSet::len).sum::<usize>(), 1);
    }
}

#[test]
fn what_is_published_goes_on_as_it_came() {
    let mut world = World::new(1, true, 5);
    let wallet = world.arrive(0, Role::Wallet);
    world.run();
    let mut publish = |text: &str| {
        world.publish(&wallet.text(), &Bytes::copy_from_slice(text.as_bytes()));
        world.run();
        world.told(0, wallet)
    };
    for text in ["{}", r#" {"info":"remoteData", "data":1.50}"#, r#"{"info":["remoteClientDisconnected"]}"#] {
        assert_eq!(publish(text), [text]);
    }
    for nothing in ["", "null", "[]", "{", "\u{feff}{}"] {
        assert_eq!(publish(nothing), [""; 0]);
    }
    // Notices: once, and each way of saying it is the same.
    let just = notice("JustConnected", "f");
    let already = r#"{"remoteClientId":"\u0066","info":"remoteClientIsAlreadyConnected"}"#;
    let gone = notice("Disconnected", "f");
    assert_eq!(publish(&gone), [""; 0], "it was never there");
    assert_eq!(publish(already), [already]);
    assert_eq!(publish(&just), [""; 0]);
    assert_eq!(publish(&gone), [&*gone]);
    assert_eq!(publish(&gone), [""; 0]);
    assert_eq!(publish(&just), [&*just]);
    // An id that is none is not remembered.
    let long = notice("JustConnected", &"x".repeat(FOREIGN_ID_BYTES_MAX + 1));
    assert_eq!([publish(&long), publish(&long)], [[&*long], [&*long]]);
    assert_eq!(publish(&"x".repeat(PUBLISHED_BYTES_MAX + 1)), [""; 0]);
    assert_eq!(world.hosts[0].metrics.counters.rendezvous_ignored.value(), 6);
    world.leave(0, wallet);
    assert_eq!(world.publish(&wallet.text(), &Bytes::from_static(b"{}")), 1);
    world.run();
    assert_eq!(world.told(0, wallet), [""; 0], "it has left");
}

#[test]
fn nobody_else_says_that_one_of_ours_comes_or_goes() {
    let mut world = World::new(2, true, 6);
    let (wallet, extension) = pair(&mut world);
    let nobody = world.hosts[1].new_client();
    for text in [
        notice("Disconnected", &text(extension)),
        notice("JustConnected", &text(nobody)),
        notice("JustConnected", &text(wallet)),
    ] {
        world.publish(&wallet.text(), &text.into());
    }
    // A host speaks for its own clients alone, and messages are for shards.
    let other = world.hosts[0].new_client();
    let message = Message {
        to: wallet,
        from: extension,
        number: 1,
        connection: CONNECTION,
        role: Role::Extension,
        frame: Bytes::from_static(b"\x81\x02hi"),
    };
    for letter in [
        Letter::JustConnected { to: wallet, who: other },
        Letter::Disconnected { to: wallet, gone: other },
        Letter::Message(Message { from: other, ..message.clone() }),
        Letter::Answer { to: wallet, number: 1, is_sent: true },
    ] {
        world.forge(1, 0, letter);
    }
    world.run();
    assert_eq!(world.told(0, wallet), [""; 0]);
    assert_eq!(world.hosts[0].metrics.counters.rendezvous_ignored.value(), 7);
    // A message to a shard that is not there did not arrive.
    world.forge(1, 0, Letter::Message(message));
    world.run();
    let refused = Letter::Answer { to: extension, number: 1, is_sent: false };
    assert_eq!(world.hosts[1].letters, [(world.hosts[0].id, refused)]);
    // Who is not there says so.
    world.forge(1, 0, Letter::JustConnected { to: other, who: extension });
    world.forge(1, 0, Letter::Disconnected { to: other, gone: extension });
    world.run();
    assert!(world.hosts[0].told.is_empty());
    world.leave(1, extension);
    world.run();
    told_of(&mut world, 0, wallet, "Disconnected", extension);
}

#[test]
fn a_message_to_a_foreign_client_is_confirmed_when_it_is_published() {
    let mut world = World::new(1, true, 7);
    world.add_foreign(&set(Role::Extension), FOREIGN);
    let wallet = world.arrive(0, Role::Wallet);
    world.run();
    let send = |world: &mut World, target: &[u8], payload: Bytes| {
        world.request(0, Request::Message { from: wallet, number: 7, target: target.into(), payload });
    };
    send(&mut world, FOREIGN.as_bytes(), Bytes::from_static(b"data"));
    let (key, member) = (set(Role::Extension).into_bytes(), FOREIGN.as_bytes().to_vec());
    assert_eq!(next_command(&mut world, 0), Some(Command::SetContains { key, member: member.clone() }));
    answer(&mut world, 0);
    let publish = Command::Publish { channel: member, payload: Bytes::from_static(b"data") };
    assert_eq!(next_command(&mut world, 0), Some(publish));
    assert!(world.hosts[0].answers.is_empty(), "not before it is answered");
    answer(&mut world, 0);
    assert_eq!(std::mem::take(&mut world.hosts[0].answers), [(wallet, true)]);

    // Not in the set; of ours; or Redis does not say.
    let ours = world.hosts[0].new_client();
    for target in [b"nobody".as_slice(), &ours.text()] {
        send(&mut world, target, Bytes::from_static(b"data"));
        world.run();
        assert_eq!(std::mem::take(&mut world.hosts[0].answers), [(wallet, false)]);
    }
    for answered in 0..2 {
        send(&mut world, FOREIGN.as_bytes(), Bytes::from_static(b"data"));
        for _ in 0..answered {
            answer(&mut world, 0);
        }
        world.disconnect(0);
        assert_eq!(std::mem::take(&mut world.hosts[0].answers), [(wallet, false)]);
        send(&mut world, FOREIGN.as_bytes(), Bytes::from_static(b"data"));
        assert_eq!(std::mem::take(&mut world.hosts[0].answers), [(wallet, false)], "at once");
        world.connect(0);
        world.run();
    }
    // So many bytes wait, and no more; one message alone always may.
    let large = Bytes::from(vec![b'x'; RENDEZVOUS_HELD_BYTES_MAX + 1]);
    send(&mut world, FOREIGN.as_bytes(), large);
    send(&mut world, FOREIGN.as_bytes(), Bytes::from_static(b"x"));
    assert_eq!(std::mem::take(&mut world.hosts[0].answers), [(wallet, false)]);
    world.run();
    assert_eq!(std::mem::take(&mut world.hosts[0].answers), [(wallet, true)]);
    send(&mut world, FOREIGN.as_bytes(), Bytes::from_static(b"x"));
    world.leave(0, wallet);
    world.foreign.clear();
    world.run();
    assert_eq!(world.hosts[0].answers.len(), 1);
}

#[test]
fn the_clients_of_a_host_that_dies_have_left() {
    let mut world = World::new(2, true, 8);
    let (wallet, extension) = pair(&mut world);
    let unknown = world.arrive_at(1, [b'b'; 64], Role::Extension);
    world.run();
    world.kill(1);
    world.live(7);
    told_of(&mut world, 0, wallet, "Disconnected", extension);
    assert_eq!(world.members(&set(Role::Extension)), [""; 0]);
    // What nobody has looked at goes when somebody does.
    let late = world.arrive_at(0, [b'b'; 64], Role::Wallet);
    world.run();
    assert_eq!(world.told(0, late), [""; 0]);
    let left_over = format!("{}:extension", "b".repeat(64));
    assert_eq!(world.members(&left_over), [""; 0], "{unknown:?}");
}

#[test]
fn a_host_that_leaves_takes_nobody_else_with_it() {
    let mut world = World::new(2, true, 9);
    let (wallet, extension) = pair(&mut world);
    world.add_foreign(&set(Role::Wallet), FOREIGN);
    let now_ms = world.now_ms;
    world.hosts[1].cluster.handle_shutdown(now_ms);
    world.hosts[1].drain(now_ms);
    world.leave(1, extension);
    world.run();
    told_of(&mut world, 0, wallet, "Disconnected", extension);
    assert_eq!(world.members(&set(Role::Wallet)), [text(wallet), FOREIGN.to_owned()]);
    assert_eq!(world.foreign[FOREIGN.as_bytes()], [notice("Disconnected", &text(extension))]);
}

#[test]
fn a_relation_that_begins_again_tells_all_again() {
    let mut world = World::new(2, true, 10);
    let (wallet, extension) = pair(&mut world);
    world.lose_subscriptions(0);
    world.live(3);
    for (host, client, other) in [(0, wallet, extension), (1, extension, wallet)] {
        let told = world.told(host, client);
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told[0], notice("Disconnected", &text(other)));
        assert!(told[1].contains("Connected\"") && told[1].contains(&text(other)), "{told:?}");
    }
}

#[test]
fn redis_may_come_back_empty() {
    let mut world = World::new(2, true, 11);
    let (wallet, extension) = pair(&mut world);
    world.add_foreign(&set(Role::Extension), FOREIGN);
    let second = world.arrive(0, Role::Wallet);
    world.run();
    let told = world.told(0, second);
    assert_eq!(told.len(), 2, "{told:?}");
    world.restart_empty();
    world.live(3);
    assert_eq!(world.members(&set(Role::Wallet)).len(), 2);
    assert_eq!(world.members(&set(Role::Extension)), [text(extension)]);
    assert_eq!(world.expiries.len(), 2, "and they expire");
    let told = world.told(0, second);
    assert_eq!(told.iter().filter(|told| told.contains(&text(extension))).count(), 2, "{told:?}");
    // The foreign one is not in the set any more, so it cannot be reached.
    assert_eq!(told.iter().filter(|told| **told == notice("Disconnected", FOREIGN)).count(), 1, "{told:?}");
    assert_eq!(told.len(), 3);
    assert_eq!(world.told(0, wallet).len(), 2);
}

#[test]
fn what_redis_loses_is_put_back_within_the_hour() {
    let mut world = World::new(2, true, 12);
    let (wallet, extension) = pair(&mut world);
    world.sets.clear();
    world.expiries.clear();
    let before = world.now_ms;
    while world.expiries.len() < 2 {
        // Heartbeats go on.
        world.tick(1_000);
        world.run();
        assert!(world.now_ms <= before + RENDEZVOUS_RENEWAL_MS + 1_000);
    }
    world.run();
    assert!(world.now_ms > before + RENDEZVOUS_RENEWAL_MS / 2, "it is not done all the time");
    assert_eq!(world.members(&set(Role::Wallet)), [text(wallet)]);
    assert_eq!(world.members(&set(Role::Extension)), [text(extension)]);
    assert!(world.hosts.iter().all(|host| host.told.is_empty()), "nobody is told anything");
}

#[test]
fn who_comes_and_goes_while_redis_is_away_is_made_up_for() {
    let mut world = World::new(2, true, 13);
    let (wallet, extension) = pair(&mut world);
    world.disconnect(0);
    world.told(0, wallet);
    world.leave(0, wallet);
    let never_added = world.arrive(0, Role::Wallet);
    world.leave(0, never_added);
    let newcomer = world.arrive(0, Role::Wallet);
    world.live(1);
    assert_eq!(world.members(&set(Role::Wallet)), [text(wallet)]);
    world.connect(0);
    world.live(6);
    assert_eq!(world.members(&set(Role::Wallet)), [text(newcomer)]);
    assert_eq!(world.hosts[0].channels.len(), 3);
    let told = world.told(1, extension);
    assert_eq!(told.iter().filter(|told| told.contains(&text(wallet))).count(), 1, "{told:?}");
    assert!(told.iter().all(|told| !told.contains(&text(never_added))));
    assert_eq!(told.iter().filter(|told| told.contains(&text(newcomer))).count(), 1, "{told:?}");
    assert_eq!(world.told(0, newcomer).len(), 1);
}

#[test]
fn what_redis_refuses_is_tried_again() {
    let mut world = World::new(2, true, 14);
    world.refuses = true;
    let wallet = world.arrive(0, Role::Wallet);
    let leaves = world.arrive(0, Role::Wallet);
    world.live(2);
    world.leave(0, leaves);
    world.live(2);
    world.refuses = false;
    world.live(2);
    assert_eq!(world.members(&set(Role::Wallet)), [text(wallet)]);
    assert_eq!(world.hosts[0].channels.len(), 3);
}

#[test]
fn many_are_registered_again_in_turns() {
    let mut world = World::new(1, true, 15);
    for _ in 0..3 * RENDEZVOUS_ASKED_MAX {
        world.arrive(0, Role::Wallet);
    }
    world.run();
    world.disconnect(0);
    world.sets.clear();
    world.connect(0);
    let mut most = 0;
    while world.step() {
        let of_sets =
            |command: &Command| matches!(command, Command::SetAdd { .. } | Command::SetMembers { .. });
        let waiting = world.hosts[0].commands.iter().filter(|(_, command)| of_sets(command)).count();
        most = most.max(waiting);
    }
    assert!(most > 0 && most <= RENDEZVOUS_ASKED_MAX, "{most}");
    assert_eq!(world.members(&set(Role::Wallet)).len(), 3 * RENDEZVOUS_ASKED_MAX);
}

#[test]
fn all_clients_of_a_host_leave_in_few_pieces_of_mail() {
    let mut world = World::new(2, false, 23);
    let wallets: Vec<ClientId> =
        (0..RENDEZVOUS_NOTICES_MAX + 3).map(|_| world.arrive(0, Role::Wallet)).collect();
    let extension = world.arrive(1, Role::Extension);
    world.run();
    world.hosts[0].told.clear();
    let before = world.hosts[0].mail_of_notices;
    world.kill(1);
    world.live(7);
    for wallet in wallets {
        told_of(&mut world, 0, wallet, "Disconnected", extension);
    }
    assert_eq!(world.hosts[0].mail_of_notices - before, 2);
}

#[test]
fn the_queue_does_not_keep_those_who_have_left() {
    let mut world = World::new(1, false, 24);
    let mut rendezvous = Rendezvous::default();
    let mut desk = World::desk();
    for _ in 0..4 * RENDEZVOUS_ASKED_MAX {
        let client = world.hosts[0].new_client();
        rendezvous.arrive(client, CONNECTION, Role::Wallet, &mut desk);
        rendezvous.enqueue(client);
        rendezvous.leave(client, &mut desk);
        assert!(rendezvous.queue.len() <= RENDEZVOUS_ASKED_MAX + 1);
    }
    assert!(rendezvous.records.is_empty() && rendezvous.leaving == 0);
}

#[test]
fn so_many_that_have_left_are_remembered_and_no_more() {
    let mut world = World::new(1, false, 21);
    let clients: Vec<ClientId> =
        (0..RENDEZVOUS_LEAVING_MAX + 3).map(|_| world.arrive(0, Role::Wallet)).collect();
    world.run();
    world.disconnect(0);
    clients.iter().for_each(|client| world.leave(0, *client));
    world.connect(0);
    world.run();
    assert_eq!(world.members(&format!("parlor:rendezvous:{}", set(Role::Wallet))).len(), 3);
    // Nobody is there who could have them, which the next one to look finds out.
    let extension = world.arrive(0, Role::Extension);
    world.run();
    assert_eq!(world.members(&format!("parlor:rendezvous:{}", set(Role::Wallet))).len(), 0);
    assert_eq!(world.told(0, extension), [""; 0]);
}

#[test]
fn so_many_counterparts_are_remembered_and_no_more() {
    let mut world = World::new(1, true, 22);
    let (first, second) = (world.arrive(0, Role::Wallet), world.arrive(0, Role::Wallet));
    world.run();
    let mut hear = |client: ClientId, text: String| {
        let now_ms = world.now_ms;
        world.hosts[0].cluster.handle_push(&client.text(), &text.into(), now_ms);
        world.hosts[0].drain(now_ms);
        world.told(0, client).len()
    };
    for count in 0..RENDEZVOUS_KNOWN_MAX {
        assert_eq!(hear(first, notice("JustConnected", &count.to_string())), 1);
    }
    assert_eq!(hear(second, notice("JustConnected", "one more")), 0);
    assert_eq!(hear(second, notice("Disconnected", "one more")), 0);
    assert_eq!(hear(first, notice("Disconnected", "0")), 1);
    assert_eq!(hear(second, notice("JustConnected", "one more")), 1);
}

#[test]
fn without_public_layouts_there_are_no_channels_and_no_strangers() {
    let mut world = World::new(2, false, 16);
    let private = |role| format!("parlor:rendezvous:{}", set(role));
    world.add_foreign(&private(Role::Extension), FOREIGN);
    let (wallet, extension) = pair(&mut world);
    assert!(world.hosts.iter().all(|host| host.channels.len() == 2));
    assert_eq!(world.members(&private(Role::Wallet)), [text(wallet)]);
    assert!(!world.sets.contains_key(set(Role::Wallet).as_bytes()));
    let target = FOREIGN.as_bytes().into();
    world.request(0, Request::Message { from: wallet, number: 7, target, payload: Bytes::from_static(b"x") });
    assert_eq!(world.hosts[0].answers, [(wallet, false)]);
    world.leave(1, extension);
    world.leave(0, wallet);
    world.run();
    assert_eq!(world.foreign[FOREIGN.as_bytes()], [""; 0]);
    assert_eq!(world.members(&private(Role::Wallet)), [""; 0]);
}

#[test]
fn letters_are_read_as_they_were_written() {
    let mut entropy = crate::id::Entropy::from_seed([1; 32]);
    let mut id = || ClientId::new(HostId(3), ShardIndex(1), Slot(2), &mut entropy);
    let (to, who) = (id(), id());
    let message = |role| {
        Letter::Message(Message {
            to,
            from: who,
            number: 1 << 40,
            connection: CONNECTION,
            role,
            frame: Bytes::from_static(b"\x81\x02hi"),
        })
    };
    let letters = [
        Letter::Call,
        Letter::Heard,
        Letter::JustConnected { to, who },
        Letter::Disconnected { to, gone: who },
        message(Role::Wallet),
        message(Role::Extension),
        Letter::Answer { to, number: 5, is_sent: true },
        Letter::Answer { to, number: 5, is_sent: false },
    ];
    for letter in letters {
        let bytes = mail_of(&letter);
        assert_eq!(letter_in(&bytes), Ok(letter.clone()));
        for len in LETTER_START..bytes.len() {
            assert_eq!(letter_in(&bytes[..len]), Err(Error::TooShort), "{letter:?} cut at {len}");
        }
        // Whatever is changed, it is another letter or none.
        for at in LETTER_START..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x55;
            assert_ne!(letter_in(&changed).as_ref(), Ok(&letter), "changed at {at}");
        }
    }
    let mut bytes = mail_of(&Letter::Answer { to, number: 5, is_sent: true });
    *bytes.last_mut().expect("not empty") = 2;
    assert_eq!(letter_in(&bytes), Err(Error::UnknownFlags(2)));
    let mut bytes = mail_of(&Letter::Call);
    for kind in [0, 7, 255] {
        bytes[LETTER_START] = kind;
        assert_eq!(letter_in(&bytes), Err(Error::UnknownKind(kind)));
    }
}

/// Where the letter begins in mail that has one: behind the header, the shard and the dialect.
const LETTER_START: usize = 46;

fn mail_of(letter: &Letter) -> Vec<u8> {
    let sender = codec::Sender { host: HostId(3), start: 1 };
    let header = codec::Header { sender, mine: 1, yours: 1, sequence: 0, wants_answer: false };
    let mut draft = codec::Draft::default();
    draft.push(ShardIndex(0), &crate::cluster::Letter::Rendezvous(letter.clone()));
    draft.finish(&header).to_vec()
}

fn letter_in(bytes: &[u8]) -> Result<Letter, Error> {
    let codec::Message::Mail(mail) = codec::decode(&Bytes::copy_from_slice(bytes))? else {
        panic!("it is mail");
    };
    match &mail.letters[..] {
        [(_, crate::cluster::Letter::Rendezvous(letter))] => Ok(letter.clone()),
        other => panic!("{other:?}"),
    }
}
