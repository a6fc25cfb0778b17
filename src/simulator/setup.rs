//! What a run is like, drawn from its seed.

use std::sync::Arc;

use super::chance::Chance;
use crate::id::HostId;
use crate::limits::Limits;
use crate::plant::{Plant, Planted};
use crate::shard::{Offered, Settings};

/// One run's circumstances.
pub(super) struct Setup {
    pub(super) settings: Arc<Settings>,
    pub(super) players: usize,
    /// How many of a hundred players are clumsy, and hostile.
    pub(super) clumsy_percent: usize,
    pub(super) hostile_percent: usize,
    pub(super) ring_entries: usize,
    /// Most rounds that mail is under way.
    pub(super) mail_delay_max: usize,
    pub(super) rounds: u64,
    /// One in so many rounds takes seconds.
    pub(super) long_round: usize,
    /// How often faults of sockets change: one in so many visits.
    pub(super) socket_fault: usize,
    /// Rings rest for long, and there is somebody who fills them.
    pub(super) is_flood: bool,
}

impl Setup {
    pub(super) fn draw(chance: &mut Chance, plant: Option<Plant>) -> Self {
        let is_flood = chance.one_in(20);
        let shards = if is_flood { chance.between(2..=3) } else { chance.between(1..=5) };
        Self {
            settings: Arc::new(settings(chance, shards, is_flood, plant)),
            players: if is_flood { chance.between(4..=6) } else { chance.between(2..=12) },
            clumsy_percent: chance.pick(&[0, 20, 40, 80]),
            hostile_percent: if is_flood { 0 } else { chance.pick(&[0, 0, 20, 50]) },
            ring_entries: if is_flood { 2 } else { chance.pick(&[1, 2, 3, 4, 16, 512]) },
            mail_delay_max: chance.pick(&[0, 1, 3, 10, 30]),
            rounds: chance.between(60..=800) as u64,
            long_round: chance.pick(&[20, 100, 10_000]),
            socket_fault: chance.pick(&[8, 40, 10_000]),
            is_flood,
        }
    }
}

impl Setup {
    /// There is so much memory that nobody is ever told that the server is busy.
    pub(super) fn is_roomy(&self) -> bool {
        self.settings.limits.shard_buffer_bytes >= Limits::SHARD_BUFFER_BYTES
    }
}

fn settings(chance: &mut Chance, shards: usize, is_flood: bool, plant: Option<Plant>) -> Settings {
    Settings {
        host: HostId(u32::from_ne_bytes(chance.bytes())),
        shards,
        limits: if is_flood { flood_limits() } else { limits(chance) },
        offered: Offered::ALL,
        key_seed: [1, 2, 3, 4],
        requeue_on_partner_leave: !chance.one_in(3),
        allowed_origins: Vec::new(),
        allow_no_origin: false,
        echo_path: None,
        held_pipes: Arc::new(crate::protocol::pipe::Places::new(Limits::HELD_PIPES_MAX)),
        planted: Planted::new(plant),
    }
}

fn flood_limits() -> Limits {
    Limits { messages_per_second_max: 1_000_000, ..Limits::default() }
}

fn limits(chance: &mut Chance) -> Limits {
    let message_bytes_max = chance.pick(&[600, 3_000, 20_000, 1 << 20]);
    Limits {
        message_bytes_max,
        fragments_max: chance.pick(&[8, 8, 64, 1_024]) as u32,
        outbox_bytes_max: chance.pick(&[300, 1_000, 6_000, Limits::outbox_bytes_max_for(message_bytes_max)]),
        shard_buffer_bytes: chance.pick(&[2_500, 8_000, 40_000, 1 << 28, 1 << 28, 1 << 28]),
        messages_per_second_max: chance.pick(&[4, 40, 40, 1_000_000]) as u32,
        heartbeat_ms: chance.pick(&[400, 5_000, 25_000]) as u64,
        head_deadline_ms: chance.pick(&[200, 5_000]) as u64,
        ..Limits::default()
    }
}
