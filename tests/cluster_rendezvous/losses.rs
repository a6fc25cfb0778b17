//! Hosts that die or leave, and Redis that is away or comes back empty.

use rustix::process::Signal;

use super::*;

on_each_driver!(
    the_clients_of_a_host_that_dies_have_left,
    the_clients_of_a_host_that_leaves_have_left_at_once,
    redis_comes_back_empty,
    while_redis_is_away_a_host_serves_its_own,
);

/// A host is dead when it was silent for 4 s, which is noticed within 6.
const DEAD: Duration = Duration::from_secs(6);
/// So much longer may it take on a machine that is busy.
const SLACK: Duration = Duration::from_secs(6);

fn the_clients_of_a_host_that_dies_have_left(setup: Setup) {
    let redis = Redis::start();
    let (here, there) = two(setup, &redis);
    let (mut wallet, extension) = pair(&here, &there, &key(1));
    let start = Instant::now();
    there.signal(Signal::KILL);
    // What is sent until it is noticed has not arrived.
    wallet.peer.send(&message("on its way", &extension.id));
    let told = [wallet.peer.next("its end"), wallet.peer.next("its end")];
    assert!(start.elapsed() < DEAD + SLACK, "{:?}", start.elapsed());
    assert!(told.contains(&disconnected(&extension.id)) && told.contains(&missing("on its way")), "{told:?}");
    wait_until("its id to be removed", || members_of(&redis, &format!("{}:extension", key(1))).is_empty());
    wallet.peer.ask(&message("1", &extension.id), &missing("1"));
    let mut second = open_alone(&here, &redis, &key(1), WALLET);
    second.peer.expect_nothing();
    here.wait_for_log("is gone: it is silent");
}

fn the_clients_of_a_host_that_leaves_have_left_at_once(setup: Setup) {
    let redis = Redis::start();
    let (here, mut there) = two(setup, &redis);
    let (mut wallet, mut extension) = pair(&here, &there, &key(1));
    let mut foreign = foreign::Foreign::arrive(&redis, &key(1), WALLET, "f");
    foreign.expect_counterparts(&[&extension.id]);
    extension.peer.expect(&just("f"));
    there.signal(Signal::TERM);
    wallet.peer.expect(&disconnected(&extension.id));
    assert_eq!(foreign.next(), disconnected(&extension.id));
    extension.peer.expect_close(1001, "Server shutting down");
    assert!(there.wait_for_exit().success());
    assert!(!here.log().contains("it is silent"), "{}", here.log());
    wait_until("its id to be removed", || members_of(&redis, &format!("{}:extension", key(1))).is_empty());
    assert_eq!(
        members_of(&redis, &format!("{}:wallet", key(1))),
        BTreeSet::from([wallet.id.clone(), "f".into()]),
        "who leaves takes nobody else with it"
    );
    wallet.peer.ask(&message("1", &extension.id), &missing("1"));
}

fn redis_comes_back_empty(setup: Setup) {
    let mut redis = Redis::start();
    let (here, there) = two(setup, &redis);
    let (mut wallet, mut extension) = pair(&here, &there, &key(1));
    let near = open_alone(&here, &redis, &key(1), EXTENSION);
    wallet.peer.expect(&just(&near.id));
    for _ in 0..3 {
        redis.stop();
        wallet.peer.expect(&disconnected(&extension.id));
        extension.peer.expect(&disconnected(&wallet.id));
        redis.run();
        // Each is told once that the other is there, by whichever way.
        assert_eq!(id_of_notice(&wallet.peer.next("a notice")), extension.id);
        assert_eq!(id_of_notice(&extension.peer.next("a notice")), wallet.id);
        assert_eq!(
            members_of(&redis, &format!("{}:extension", key(1))),
            BTreeSet::from([extension.id.clone(), near.id.clone()])
        );
        exchange(&mut wallet, &mut extension, "1");
        exchange(&mut extension, &mut wallet, "2");
        let mut foreign = foreign::Foreign::arrive(&redis, &key(1), EXTENSION, "f");
        wallet.peer.expect(&just("f"));
        wallet.peer.send(&message("3", "f"));
        wallet.peer.expect(&confirmation("3"));
        assert_eq!(foreign.next(), remote_data(&message("3", "f"), &wallet.id, "3"));
        drop(foreign);
        redis.ask(&["SREM", &format!("{}:extension", key(1)), "f"]);
        redis.ask(&["PUBLISH", &wallet.id, &disconnected("f")]);
        wallet.peer.expect(&disconnected("f"));
    }
}

fn while_redis_is_away_a_host_serves_its_own(setup: Setup) {
    let mut redis = Redis::start();
    let (here, there) = two(setup, &redis);
    let (mut wallet, extension) = pair(&here, &there, &key(1));
    let mut leaves = open_alone(&here, &redis, &key(2), WALLET);
    redis.pause();
    // It stands still: what needs it waits no longer than its connections.
    wallet.peer.send(&message("1", &extension.id));
    let told = [wallet.peer.next("its end"), wallet.peer.next("its end")];
    assert!(told.contains(&disconnected(&extension.id)) && told.contains(&missing("1")), "{told:?}");
    let mut near = open(&here, &key(1), EXTENSION);
    let near_id = id_of_notice(&wallet.peer.next("a notice"));
    near.expect(&already(&wallet.id));
    let mut near = Known { peer: near, id: near_id };
    exchange(&mut near, &mut wallet, "here");
    wallet.peer.ask(&message("2", &extension.id), &missing("2"));
    wallet.peer.ask(&message("3", "foreign"), &missing("3"));
    // One leaves, one comes and leaves.
    leaves.peer.expect_nothing();
    drop(leaves.peer.close());
    drop(open(&here, &key(3), WALLET).close());
    redis.resume();
    // It has kept its sets, and is brought up to date.
    wait_until("who has left to be removed", || members_of(&redis, &format!("{}:wallet", key(2))).is_empty());
    let mut told = BTreeSet::from([id_of_notice(&wallet.peer.next("a notice"))]);
    assert!(told.remove(&extension.id), "{told:?}");
    wait_until("who has come to be added", || {
        members_of(&redis, &format!("{}:extension", key(1)))
            == BTreeSet::from([extension.id.clone(), near.id.clone()])
    });
    assert!(members_of(&redis, &format!("{}:wallet", key(3))).is_empty());
    redis.stop();
    wallet.peer.expect(&disconnected(&extension.id));
    exchange(&mut wallet, &mut near, "still");
}

/// A host that stood still was given up, and its clients' ids removed: they are there again when it goes on.
#[test]
fn a_host_that_stood_still_comes_back() {
    let redis = Redis::start();
    let (here, there) = two(Setup::EPOLL_1, &redis);
    let (mut wallet, mut extension) = pair(&here, &there, &key(1));
    // Nobody here knows this one.
    let alone = open_alone(&there, &redis, &key(2), EXTENSION);
    there.signal(Signal::STOP);
    wallet.peer.expect(&disconnected(&extension.id));
    wait_until("its id to be removed", || members_of(&redis, &format!("{}:extension", key(1))).is_empty());
    let mut newcomer = open_alone(&here, &redis, &key(2), WALLET);
    wait_until("its id to be removed", || members_of(&redis, &format!("{}:extension", key(2))).is_empty());
    newcomer.peer.expect_nothing();
    there.signal(Signal::CONT);
    extension.peer.expect(&disconnected(&wallet.id));
    assert_eq!(id_of_notice(&wallet.peer.next("a notice")), extension.id);
    assert_eq!(id_of_notice(&extension.peer.next("a notice")), wallet.id);
    assert_eq!(id_of_notice(&newcomer.peer.next("a notice")), alone.id);
    exchange(&mut wallet, &mut extension, "1");
    let mut alone = alone;
    assert_eq!(id_of_notice(&alone.peer.next("a notice")), newcomer.id);
    exchange(&mut alone, &mut newcomer, "2");
}
