mod model;

use super::*;
use crate::limits::HOST_MARK_MS;

const A: Sender = Sender { host: HostId(0xa), start: 100 };
const B: Sender = Sender { host: HostId(0xb), start: 200 };

/// A host with both connections.
fn up(me: Sender, now_ms: u64) -> Hosts {
    let mut hosts = Hosts::new(me, Planted::default(), now_ms);
    hosts.handle_publishing(true, now_ms);
    hosts.handle_subscribed(now_ms);
    hosts
}

fn events(hosts: &mut Hosts) -> Vec<Event> {
    std::iter::from_fn(|| hosts.poll_event()).collect()
}

fn heartbeat(sender: Sender) -> Heartbeat {
    Heartbeat { sender, number: 0, is_leaving: false }
}

fn leaving(sender: Sender) -> Heartbeat {
    Heartbeat { is_leaving: true, ..heartbeat(sender) }
}

fn gone(events: &[Event]) -> Vec<(HostId, Why)> {
    let gone = |event: &Event| match event {
        Event::Gone(host, why) => Some((*host, *why)),
        _ => None,
    };
    events.iter().filter_map(gone).collect()
}

/// Carries what both have to say to each other until neither has more. Returns what else happened on either side.
fn exchange(a: &mut Hosts, b: &mut Hosts, now_ms: u64) -> (Vec<Event>, Vec<Event>) {
    let mut rest = (Vec::new(), Vec::new());
    loop {
        let before = (rest.0.len(), rest.1.len());
        let is_quiet = !pass(a, b, &mut rest.0, now_ms) && !pass(b, a, &mut rest.1, now_ms);
        if is_quiet && before == (rest.0.len(), rest.1.len()) {
            return rest;
        }
    }
}

fn pass(from: &mut Hosts, to: &mut Hosts, rest: &mut Vec<Event>, now_ms: u64) -> bool {
    let events = events(from);
    let any = !events.is_empty();
    for event in events {
        match event {
            Event::Beat(heartbeat) => {
                from.handle_heartbeat(&heartbeat, now_ms);
                to.handle_heartbeat(&heartbeat, now_ms);
            }
            Event::Tell(host, header) if host == to.me.host => {
                to.handle_mail(&header, false, now_ms);
            }
            event => rest.push(event),
        }
    }
    any
}

/// Two hosts that have found each other.
fn two() -> (Hosts, Hosts) {
    let (mut a, mut b) = (up(A, 0), up(B, 0));
    let (of_a, of_b) = exchange(&mut a, &mut b, 0);
    let found = |events: &[Event], host| matches!(events, [Event::Found(found, _)] if *found == host);
    assert!(found(&of_a, B.host) && found(&of_b, A.host), "{of_a:?} {of_b:?}");
    (a, b)
}

/// Both tick and talk until `until`, every 100 ms; what happened on either side.
fn live(a: &mut Hosts, b: &mut Hosts, from_ms: u64, until_ms: u64) -> (Vec<Event>, Vec<Event>) {
    let mut all = (Vec::new(), Vec::new());
    for now_ms in (from_ms..=until_ms).step_by(100) {
        a.handle_tick(now_ms);
        b.handle_tick(now_ms);
        let (of_a, of_b) = exchange(a, b, now_ms);
        all.0.extend(of_a);
        all.1.extend(of_b);
    }
    all
}

#[test]
fn two_hosts_find_each_other_and_stay() {
    let (mut a, mut b) = two();
    assert_eq!((a.found(), b.found()), (1, 1));
    assert_eq!(live(&mut a, &mut b, 100, 60_000), (vec![], vec![]), "nothing happens for a minute");
    assert!(a.is_proven() && b.is_proven());
}

#[test]
fn letters_count_once_and_in_order() {
    let (mut a, mut b) = two();
    let headers: Vec<Header> = (0..3).map(|_| a.stamp(B.host).expect("a relation")).collect();
    for header in &headers {
        assert!(b.handle_mail(header, true, 1));
    }
    for header in &headers {
        assert!(!b.handle_mail(header, true, 1), "a second time");
    }
    assert_eq!(events(&mut b), []);
}

#[test]
fn without_a_relation_nothing_is_sent() {
    let mut a = up(A, 0);
    assert_eq!((a.stamp(B.host), a.relation(B.host)), (None, None));
    a.handle_heartbeat(&heartbeat(B), 0);
    assert_eq!(a.stamp(B.host), None, "heard, but not found");
}

#[test]
fn the_first_letter_may_be_what_the_other_learns_it_by() {
    let (mut a, mut b) = (up(A, 0), up(B, 0));
    b.handle_heartbeat(&heartbeat(A), 0);
    let Some(Event::Tell(_, hello)) = events(&mut b).pop() else { panic!("b has something to say") };
    a.handle_mail(&hello, false, 0);
    let Some(Event::Tell(_, hello)) = events(&mut a).pop() else { panic!("a has something to say") };
    b.handle_mail(&hello, false, 0);
    let Some(Event::Tell(_, hello)) = events(&mut b).pop() else { panic!("b has something to say") };
    a.handle_mail(&hello, false, 0);
    // What a says about it is lost, but not its first letter.
    let header = a.stamp(B.host).expect("found");
    assert!(b.handle_mail(&header, true, 0));
}

#[test]
fn a_gap_ends_the_relation_on_both_sides_and_begins_a_new_one() {
    let (mut a, mut b) = two();
    let (before_a, before_b) = (a.relation(B.host), b.relation(A.host));
    let _lost = a.stamp(B.host).expect("a relation");
    let late = a.stamp(B.host).expect("a relation");
    assert!(!b.handle_mail(&late, true, 10));
    let (of_a, of_b) = exchange(&mut a, &mut b, 10);
    assert_eq!(gone(&of_a), [(B.host, Why::Renewed)]);
    assert_eq!(gone(&of_b), [(A.host, Why::Gap)]);
    assert!(matches!(of_a[..], [Event::Gone(..), Event::Found(..)]), "{of_a:?}");
    assert!(matches!(of_b[..], [Event::Gone(..), Event::Found(..)]), "{of_b:?}");
    assert!(a.relation(B.host) > before_a && b.relation(A.host) > before_b);
    for stale in [_lost, late] {
        assert!(!b.handle_mail(&stale, true, 10), "of the old relation");
    }
    assert_eq!(gone(&events(&mut b)), []);
    assert!(b.handle_mail(&a.stamp(B.host).expect("a relation"), true, 10));
}

#[test]
fn a_loss_that_nothing_follows_is_noticed_within_a_second() {
    let (mut a, mut b) = two();
    a.stamp(B.host).expect("a relation");
    let (of_a, of_b) = live(&mut a, &mut b, 100, 1_000);
    assert_eq!(gone(&of_b), [(A.host, Why::Gap)]);
    assert_eq!(gone(&of_a), [(B.host, Why::Renewed)]);
}

/// Whoever waits for an answer to what was lost would wait for ever.
#[test]
fn a_loss_is_noticed_though_what_says_so_is_lost_too() {
    let (mut a, mut b) = two();
    a.stamp(B.host).expect("a relation");
    for now_ms in (100..=1_500).step_by(100) {
        a.handle_tick(now_ms);
        b.handle_tick(now_ms);
        // Heartbeats arrive, mail does not.
        for event in events(&mut a) {
            if let Event::Beat(heartbeat) = event {
                a.handle_heartbeat(&heartbeat, now_ms);
                b.handle_heartbeat(&heartbeat, now_ms);
            }
        }
        exchange(&mut b, &mut a, now_ms);
    }
    let (of_a, of_b) = live(&mut a, &mut b, 1_600, 1_000 + HOST_MARK_MS);
    assert_eq!(gone(&of_b), [(A.host, Why::Gap)]);
    assert_eq!(gone(&of_a), [(B.host, Why::Renewed)]);
}

#[test]
fn a_silent_host_is_dead_after_four_seconds() {
    let (mut a, mut b) = two();
    live(&mut a, &mut b, 100, 2_000);
    let mut dead_ms = None;
    for now_ms in (2_100..10_000).step_by(100) {
        a.handle_tick(now_ms);
        for event in events(&mut a) {
            match event {
                Event::Beat(heartbeat) => a.handle_heartbeat(&heartbeat, now_ms),
                Event::Gone(host, why) => {
                    assert_eq!((host, why), (B.host, Why::Silent));
                    assert_eq!(dead_ms.replace(now_ms), None);
                }
                _ => {}
            }
        }
    }
    let dead_ms = dead_ms.expect("dead");
    assert!((6_000..=7_000).contains(&dead_ms), "heard at 2,000, dead at {dead_ms}");
    assert_eq!(a.found(), 0);
}

#[test]
fn nobody_is_judged_while_our_own_heartbeat_is_missing() {
    let (mut a, mut b) = two();
    live(&mut a, &mut b, 100, 2_000);
    // Redis is slow: nothing at all comes for a while, then only our own.
    for now_ms in (2_100..5_800).step_by(100) {
        a.handle_tick(now_ms);
        assert_eq!(gone(&events(&mut a)), []);
    }
    for now_ms in (5_800..=9_700).step_by(100) {
        a.handle_tick(now_ms);
        a.handle_heartbeat(&heartbeat(A), now_ms);
        assert_eq!(gone(&events(&mut a)), [], "{now_ms}: four seconds begin when ours comes back");
    }
    a.handle_heartbeat(&heartbeat(A), 9_800);
    assert_eq!(gone(&events(&mut a)), [(B.host, Why::Silent)]);
}

#[test]
fn who_leaves_is_gone_at_once_and_not_met_again() {
    let (mut a, mut b) = two();
    b.handle_leaving(500);
    assert_eq!(events(&mut b), [Event::Beat(Heartbeat { number: 1, ..leaving(B) })]);
    assert_eq!((b.found(), b.stamp(A.host)), (0, None));
    a.handle_heartbeat(&leaving(B), 500);
    assert_eq!(events(&mut a), [Event::Gone(B.host, Why::Left)]);
    a.handle_heartbeat(&leaving(B), 600);
    assert_eq!(events(&mut a), []);
    // It says so again in case that was lost, and answers to nobody.
    b.handle_tick(1_500);
    assert!(matches!(events(&mut b)[..], [Event::Beat(Heartbeat { is_leaving: true, .. })]));
    b.handle_heartbeat(&heartbeat(A), 1_600);
    assert_eq!(events(&mut b), []);
}

#[test]
fn a_restart_under_the_same_id_ends_the_relation_and_what_came_before_it_is_stale() {
    let (mut a, _) = two();
    let later = Sender { start: B.start + 1, ..B };
    a.handle_heartbeat(&heartbeat(later), 10);
    assert_eq!(gone(&events(&mut a)), [(B.host, Why::Restarted)]);
    let stale = Header { sender: B, mine: 99, yours: 99, sequence: 0, wants_answer: true };
    assert!(!a.handle_mail(&stale, true, 10));
    a.handle_heartbeat(&leaving(B), 10);
    assert_eq!(events(&mut a), []);
    let mut b = up(later, 20);
    let (of_a, of_b) = live(&mut a, &mut b, 20, 1_100);
    assert!(matches!((&of_a[..], &of_b[..]), ([Event::Found(..)], [Event::Found(..)])), "{of_a:?} {of_b:?}");
}

#[test]
fn lost_subscriptions_end_all_relations_and_the_others_are_told() {
    let (mut a, mut b) = two();
    a.handle_unsubscribed(100);
    assert!(!a.is_proven());
    let of_a = events(&mut a);
    assert_eq!(gone(&of_a), [(B.host, Why::Unsubscribed)]);
    let told = of_a.iter().find_map(|event| match event {
        Event::Tell(_, header) => Some(*header),
        _ => None,
    });
    b.handle_mail(&told.expect("b is told"), false, 100);
    assert_eq!(gone(&events(&mut b)), [(A.host, Why::Renewed)]);
    // Nothing is heard meanwhile, and what comes all the same does not count.
    a.handle_heartbeat(&heartbeat(B), 200);
    assert_eq!(events(&mut a), []);
    a.handle_subscribed(300);
    let (of_a, of_b) = exchange(&mut a, &mut b, 300);
    assert!(matches!((&of_a[..], &of_b[..]), ([Event::Found(..)], [Event::Found(..)])), "{of_a:?} {of_b:?}");
}

#[test]
fn mail_that_was_not_published_ends_its_relation_and_no_other() {
    let (mut a, mut b) = two();
    let relation = a.relation(B.host).expect("found");
    a.handle_unpublished(B.host, Relation(relation.0 + 1), 10);
    a.handle_unpublished(HostId(77), relation, 10);
    assert_eq!(events(&mut a), []);
    a.handle_unpublished(B.host, relation, 10);
    let (of_a, of_b) = exchange(&mut a, &mut b, 10);
    assert_eq!((gone(&of_a), gone(&of_b)), (vec![(B.host, Why::Unpublished)], vec![(A.host, Why::Renewed)]));
    a.handle_unpublished(B.host, relation, 20);
    assert_eq!(events(&mut a), [], "it is over already");
}

#[test]
fn who_stood_still_supposes_that_it_was_given_up() {
    let (mut a, mut b) = two();
    live(&mut a, &mut b, 100, 2_000);
    // Whatever comes first after the pause.
    a.handle_heartbeat(&heartbeat(A), 22_000);
    let paused = events(&mut a);
    assert_eq!(gone(&paused), [(B.host, Why::Paused)]);
    assert!(!paused.contains(&Event::Missed(B.host)));
    // One that was heard, and may have found us, but was not found itself.
    let heard = Sender { host: HostId(0xee), start: 1 };
    a.handle_heartbeat(&heartbeat(heard), 22_000);
    events(&mut a);
    a.handle_heartbeat(&heartbeat(A), 42_000);
    assert!(events(&mut a).contains(&Event::Missed(heard.host)));
}

#[test]
fn who_was_given_up_is_told() {
    let (mut a, mut b) = two();
    live(&mut a, &mut b, 100, 2_000);
    // b's heartbeats are lost on their way to a for a while, but b itself lives.
    let mut told = Vec::new();
    for now_ms in (2_100..=8_000).step_by(100) {
        a.handle_tick(now_ms);
        b.handle_tick(now_ms);
        for event in events(&mut a) {
            match event {
                Event::Beat(heartbeat) => {
                    a.handle_heartbeat(&heartbeat, now_ms);
                    b.handle_heartbeat(&heartbeat, now_ms);
                }
                Event::Tell(_, header) => {
                    b.handle_mail(&header, false, now_ms);
                }
                _ => {}
            }
        }
        for event in events(&mut b) {
            match event {
                Event::Beat(heartbeat) => b.handle_heartbeat(&heartbeat, now_ms),
                event => told.push(event),
            }
        }
    }
    assert_eq!(gone(&told), [(A.host, Why::Renewed)], "by a, when it judged");
}

#[test]
fn subscriptions_that_bring_nothing_back_are_made_anew() {
    let (mut a, mut b) = two();
    live(&mut a, &mut b, 100, 2_000);
    let mut all = Vec::new();
    for now_ms in (2_100..=6_500).step_by(100) {
        a.handle_tick(now_ms);
        all.extend(events(&mut a));
    }
    assert_eq!(gone(&all), [(B.host, Why::Unsubscribed)]);
    assert_eq!(all.iter().filter(|event| **event == Event::Resubscribe).count(), 1);
    assert_eq!(all.iter().filter(|event| matches!(event, Event::Beat(_))).count(), 4, "none without them");
}

#[test]
fn our_own_heartbeat_proves_the_way_for_three_seconds() {
    let mut a = up(A, 0);
    assert!(!a.is_proven());
    let Some(Event::Beat(own)) = a.poll_event() else { panic!("it beats at once") };
    a.handle_heartbeat(&own, 10);
    assert!(a.is_proven());
    a.handle_time(2_900);
    assert!(a.is_proven());
    a.handle_tick(3_010);
    assert!(!a.is_proven());
    a.handle_heartbeat(&own, 3_100);
    assert!(a.is_proven());
    a.handle_publishing(false, 3_200);
    assert!(!a.is_proven(), "one direction is lost");
    a.handle_publishing(true, 3_300);
    assert!(!a.is_proven(), "what came back came before it");
}

#[test]
fn heartbeats_begin_when_both_directions_are_there() {
    let mut a = Hosts::new(A, Planted::default(), 0);
    for now_ms in (0..2_500).step_by(100) {
        a.handle_tick(now_ms);
    }
    a.handle_subscribed(2_500);
    a.handle_tick(2_600);
    assert_eq!(events(&mut a), []);
    a.handle_publishing(true, 2_700);
    assert_eq!(events(&mut a), [Event::Beat(heartbeat(A))]);
}

#[test]
fn other_versions_are_named_once() {
    let mut a = up(A, 0);
    events(&mut a);
    a.handle_refused(B, 9);
    a.handle_refused(B, 9);
    assert_eq!(events(&mut a), [Event::Refused(B.host, 9)]);
    assert_eq!(a.relation(B.host), None);
}

#[test]
fn a_twin_is_named_once_and_proves_nothing() {
    let mut a = up(A, 0);
    events(&mut a);
    for _ in 0..2 {
        a.handle_heartbeat(&heartbeat(Sender { start: A.start + 1, ..A }), 10);
    }
    assert_eq!(events(&mut a), [Event::Twin]);
    assert!(!a.is_proven());
}

#[test]
fn there_is_a_bound_to_hosts() {
    let mut a = up(A, 0);
    for host in 0..HOSTS_MAX as u32 + 5 {
        a.handle_heartbeat(&heartbeat(Sender { host: HostId(1_000 + host), start: 1 }), 10);
    }
    assert_eq!(a.peers.len(), HOSTS_MAX);
    assert_eq!(events(&mut a).iter().filter(|event| **event == Event::Crowded).count(), 1);
    for version in 0..HOSTS_MAX as u32 + 5 {
        a.handle_refused(Sender { host: HostId(version), start: 1 }, 9);
    }
    assert!(a.refused.len() <= HOSTS_MAX);
}

#[test]
fn the_same_answer_is_not_given_again_and_again() {
    let (mut a, b) = two();
    let Relation(mine) = b.relation(A.host).expect("found");
    let stale = Header { sender: B, mine, yours: 77, sequence: 0, wants_answer: true };
    let mut answers = 0;
    for _ in 0..1_000 {
        a.handle_mail(&stale, true, 10);
        answers += events(&mut a).len();
    }
    assert_eq!(answers, 0, "it was told just this");
    a.handle_mail(&stale, true, HOST_ANSWER_MS);
    assert_eq!(events(&mut a).len(), 1);
}
