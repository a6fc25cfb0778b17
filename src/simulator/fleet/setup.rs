//! What a run is like.

use std::sync::Arc;

use crate::id::HostId;
use crate::limits::Limits;
use crate::plant::Planted;
use crate::protocol::pipe::Places;
use crate::shard::{Offered, Settings};
use crate::simulator::Options;
use crate::simulator::chance::Chance;

/// What the clients of a run speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[expect(missing_docs, reason = "the dialects have their own")]
pub enum Spoken {
    Pairing,
    Rendezvous,
    Directory,
    Rooms,
    Introductions,
    Pipes,
}

/// One run's circumstances.
pub(super) struct Setup {
    pub(super) spoken: Spoken,
    pub(super) hosts: usize,
    /// Of each host.
    pub(super) shards: usize,
    pub(super) players: usize,
    pub(super) rounds: usize,
    pub(super) has_public_layouts: bool,
    pub(super) requeue: bool,
    pub(super) room_timeout_ms: u64,
    /// Most milliseconds that something takes to or from Redis, mostly.
    pub(super) late_ms_max: usize,
    /// One in so many rounds brings a fault.
    pub(super) fault: usize,
    pub(super) unix_ms_at_start: u64,
    pub(super) planted: Planted,
    pub(super) trace: Option<fn(std::fmt::Arguments<'_>)>,
}

impl Setup {
    pub(super) fn draw(chance: &mut Chance, options: &Options) -> Self {
        use Spoken::{Directory, Introductions, Pairing, Pipes, Rendezvous, Rooms};
        let spoken = chance.pick(&[Pairing, Pairing, Rendezvous, Directory, Rooms, Introductions, Pipes]);
        Self {
            spoken: options.spoken.unwrap_or(spoken),
            hosts: chance.between(1..=4),
            shards: chance.between(1..=3),
            players: chance.between(2..=10),
            rounds: chance.between(40..=300),
            has_public_layouts: chance.one_in(2),
            requeue: !chance.one_in(3),
            room_timeout_ms: chance.pick(&[3_000, 20_000, 300_000]),
            late_ms_max: chance.pick(&[0, 1, 5, 40, 300]),
            fault: chance.pick(&[5, 30, 100_000]),
            unix_ms_at_start: 1_700_000_000_000 + chance.below(1 << 40) as u64,
            planted: Planted::new(options.plant),
            trace: options.trace,
        }
    }

    /// The settings of one host's shards.
    pub(super) fn settings(&self, host: HostId, chance: &mut Chance) -> Settings {
        let limits = Limits {
            room_timeout_ms: self.room_timeout_ms,
            // A host that stood still reads much at once.
            messages_per_second_max: 1_000_000,
            ..Limits::default()
        };
        Settings {
            host,
            shards: self.shards,
            held_pipes: Arc::new(Places::new(limits.held_pipes_max)),
            limits,
            offered: Offered::ALL,
            key_seed: chance.bytes::<4>().map(u64::from),
            has_cluster: true,
            requeue_on_partner_leave: self.requeue,
            allowed_origins: Vec::new(),
            allow_no_origin: false,
            echo_path: None,
            planted: self.planted,
        }
    }
}
