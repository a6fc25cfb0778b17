//! A desk for the tests of all parts.

use super::*;
use crate::cluster::codec::{Header, Heartbeat, Sender};
use crate::cluster::hosts::Event;
use crate::plant::Planted;

/// This host.
pub(in crate::cluster) const HERE: HostId = HostId(0x0a);
/// A host of ours that is gone.
pub(in crate::cluster) const GONE: HostId = HostId(0x0b);

/// Another host of ours that can be written to, at the desk that [`desk_with_neighbour`] makes.
pub(in crate::cluster) const NEIGHBOUR: HostId = HostId(0x0c);

/// The desk of a host with three shards, which has listened for long enough to know who is there: nobody. Another is on
/// the roll.
pub(in crate::cluster) fn desk_alone() -> Desk {
    let settings = Settings {
        host: HERE,
        start: 1,
        shards: 3,
        has_public_layouts: true,
        seed: [1; 32],
        planted: Planted::default(),
    };
    let me = Sender { host: HERE, start: 1 };
    let mut desk = Desk::new(&settings, Hosts::new(me, Planted::default(), 0), Arc::default(), 0);
    desk.hosts.handle_publishing(true, 0);
    desk.hosts.handle_subscribed(0);
    for now_ms in (0..10_000).step_by(500) {
        desk.now_ms = now_ms;
        desk.hosts.handle_tick(now_ms);
        while let Some(event) = desk.hosts.poll_event() {
            if let Event::Beat(heartbeat) = event {
                desk.hosts.handle_heartbeat(&heartbeat, now_ms);
            }
        }
    }
    desk.roll.handle_reply(&[HERE, GONE].map(|host| host.to_string().into_bytes()));
    desk.is_up = true;
    desk
}

/// The same with one neighbour.
pub(in crate::cluster) fn desk_with_neighbour() -> Desk {
    let mut desk = desk_alone();
    let sender = Sender { host: NEIGHBOUR, start: 1 };
    desk.hosts.handle_heartbeat(&Heartbeat { sender, number: 0, is_leaving: false }, desk.now_ms);
    while let Some(event) = desk.hosts.poll_event() {
        if let Event::Tell(NEIGHBOUR, told) = event {
            let header = Header { sender, mine: 1, yours: told.mine, sequence: 0, wants_answer: false };
            desk.hosts.handle_mail(&header, false, desk.now_ms);
        }
    }
    assert_eq!(desk.maker_on(NEIGHBOUR), Maker::Neighbour(NEIGHBOUR));
    desk
}
