//! Hosts that share rooms: random days with mail that is late, against a model; and what follows when hosts come and go.

mod world;

use proptest::prelude::*;

use super::*;
use crate::id::Entropy;
use world::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Whoever was told to be in a room hears what is said there from then on, whatever else is on its way.
    #[test]
    fn who_is_told_to_be_in_hears_everything(
        steps in proptest::collection::vec((0..9_u8, 0..HOSTS, 0..CLIENTS, any::<prop::sample::Index>()), 0..150),
    ) {
        let mut world = world();
        for (what, host, client, which) in steps {
            let of = &world.hosts[host].clients[client];
            let is_free = !of.is_gone && !of.is_waiting;
            match what {
                0 if is_free && world.redis.len() < 3 => world.says(host, client, CREATE),
                0 | 1 if is_free && !world.redis.is_empty() => {
                    let rooms: Vec<RoomIndex> = world.redis.keys().copied().collect();
                    let room = rooms[which.index(rooms.len())];
                    world.says(host, client, &format!(r#"{{"type":"join","roomId":"{}"}}"#, room.id()));
                }
                2 | 3 if is_free => world.signals(host, client),
                4 if !of.is_gone && which.index(4) == 0 => world.leaves(host, client),
                5 => world.carry_out(host),
                6 => world.answer(host),
                _ => world.read(which.index(HOSTS), host),
            }
        }
        world.settle();
        world.check();
    }
}

#[test]
fn members_of_a_host_that_is_gone_are_not_waited_for() {
    let mut world = world();
    let room = world.create(0, 0);
    world.says(1, 0, &format!(r#"{{"type":"join","roomId":"{}"}}"#, room.id()));
    world.carry_out(1);
    world.answer(1);
    assert!(world.hosts[1].clients[0].room.is_none(), "the other host is asked first");
    world.parts(0, 1);
    assert!(world.hosts[1].clients[0].room.is_some(), "it has left");
    // Both say who is where when they see each other again.
    world.says(0, 1, &format!(r#"{{"type":"join","roomId":"{}"}}"#, room.id()));
    world.finds(0, 1);
    world.finds(1, 0);
    world.settle();
    world.signal_each_other(0, 1);
    assert_eq!(world.hosts[1].clients[0].heard, ["00001"]);
    assert_eq!(world.hosts[0].clients[1].heard, ["00001", "00002"]);
}

#[test]
fn a_host_that_comes_while_redis_is_asked_is_known() {
    let mut world = world();
    let room = world.create(0, 0);
    world.parts(1, 2);
    // Each is in what the other cannot know yet.
    for host in [1, 2] {
        world.says(host, 0, &format!(r#"{{"type":"join","roomId":"{}"}}"#, room.id()));
        world.carry_out(host);
    }
    world.answer(2);
    world.finds(1, 2);
    world.finds(2, 1);
    world.read(2, 1);
    world.settle();
    world.signal_each_other(1, 2);
}

#[test]
fn a_host_that_was_found_before_it_found_us_is_told_who_came_meanwhile() {
    let mut world = world();
    world.parts(0, 1);
    world.finds(0, 1);
    let room = world.create(0, 0);
    world.join(1, 0, room);
    world.finds(1, 0);
    world.settle();
    world.signal_each_other(0, 1);
    assert_eq!(world.hosts[0].clients[0].heard, ["00002"]);
    assert_eq!(world.hosts[1].clients[0].heard, ["00001"]);
}

#[test]
fn a_room_that_was_lost_knows_who_came_meanwhile_when_it_is_put_back() {
    let mut world = world();
    let room = world.create(0, 0);
    // Redis has forgotten that the first host is in it when the second one comes.
    let (incarnation, hosts) = world.redis.get_mut(&room).expect("it was made");
    hosts.clear();
    let key = Key { room, incarnation: *incarnation };
    world.join(1, 0, room);
    world.redis.get_mut(&room).expect("it is there").1.insert(host_id(0));
    let mut out = Actions::new();
    world.hosts[0].rooms.handle_restored(key, &[host_id(1)], &mut out);
    world.apply(0, None, out, "");
    world.settle();
    world.signal_each_other(0, 1);
    assert_eq!(world.hosts[0].clients[0].heard, ["00002"]);
    assert_eq!(world.hosts[1].clients[0].heard, ["00001"]);
}

#[test]
fn a_room_that_expires_closes_its_members_and_sends_away_who_comes() {
    let mut world = world();
    let room = world.create(0, 0);
    world.join(1, 0, room);
    let mut out = Actions::new();
    let rooms = &mut world.hosts[0].rooms;
    rooms.handle_time(TIMEOUT_MS - 1, &mut out);
    assert_eq!(out, []);
    rooms.handle_time(TIMEOUT_MS, &mut out);
    let [Action::Rooms(Ask::Expire(key))] = out[..] else { panic!("{out:?}") };
    // It has more time than this host knows of.
    rooms.handle_remaining(key, 70, TIMEOUT_MS);
    out.clear();
    rooms.handle_time(TIMEOUT_MS + 69, &mut out);
    assert_eq!(out, []);
    rooms.handle_time(TIMEOUT_MS + 70, &mut out);
    assert_eq!(out, [Action::Rooms(Ask::Expire(key))]);
    // Meanwhile one comes, and waits for the other host.
    world.says(2, 0, &format!(r#"{{"type":"join","roomId":"{}"}}"#, room.id()));
    world.carry_out(2);
    world.answer(2);
    for host in 0..HOSTS {
        world.hosts[host].answers.push_back(Answer::Ended(key));
        world.answer(host);
    }
    assert!(world.hosts[0].clients[0].is_gone && world.hosts[1].clients[0].is_gone);
    assert!(!world.hosts[2].clients[0].is_gone && world.hosts[2].clients[0].room.is_none());
    world.redis.clear();
    world.settle();
    world.check();
}

#[test]
fn rooms_that_may_be_lost_are_put_back_with_the_time_that_is_left() {
    let mut world = world();
    let (one, two) = (world.create(0, 0), world.create(0, 1));
    let mut out = Actions::new();
    world.hosts[0].rooms.handle_lost(TIMEOUT_MS - 5, &mut out);
    let restored = |action: &Action| match action {
        Action::Rooms(Ask::Restore { key, left_ms: 5 }) => key.room,
        other => panic!("{other:?}"),
    };
    let restored: BTreeSet<RoomIndex> = out.iter().map(restored).collect();
    assert_eq!(restored, BTreeSet::from([one, two]));
}

#[test]
fn letters_that_make_no_sense_change_nothing() {
    let mut world = world();
    let room = world.create(0, 0);
    let incarnation = RoomId::new(&mut Entropy::from_seed([1; 32]));
    let wrong = Key { room, incarnation };
    let rooms = &mut world.hosts[0].rooms;
    let mut out = Actions::new();
    assert!(!rooms.handle_note(host_id(1), Note::Absent(wrong), &mut out));
    assert!(rooms.handle_note(host_id(1), Note::Present(vec![wrong]), &mut out));
    assert_eq!(out, []);
    assert!(rooms.handle_note(host_id(1), Note::Enter(wrong), &mut out));
    assert_eq!(rooms.handle_signal_from(host_id(1), wrong, &mut out), None);
    let absent = Action::RoomNote(host_id(1), Note::Absent(wrong));
    assert_eq!(out, [absent.clone(), absent]);
    // One that nobody knows cannot say that it is in a room.
    let key = Key { room, incarnation: rooms.shared.as_ref().expect("they share").rooms[&room].incarnation };
    rooms.handle_note(HostId(99), Note::Present(vec![key]), &mut out);
    assert_eq!(rooms.hosts_of(room), None);
    // Knocks are bounded.
    world.says(0, 1, CREATE);
    let rooms = &mut world.hosts[0].rooms;
    for _ in 0..2 * ROOM_KNOCKS_MAX {
        rooms.handle_note(host_id(1), Note::Enter(wrong), &mut Actions::new());
    }
    assert_eq!(rooms.shared.as_ref().expect("they share").knocks.len(), ROOM_KNOCKS_MAX);
}
