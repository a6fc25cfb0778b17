//! What a run is like, drawn from its seed.

use std::sync::Arc;

use super::chance::Chance;
use crate::id::HostId;
use crate::limits::Limits;
use crate::plant::{Plant, Planted};
use crate::protocol::pipe::Places;
use crate::shard::{Offered, Settings};

/// What a player speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    Pairing,
    Rendezvous,
    /// At `/`, preferably this one.
    Directory,
    /// At `/`, preferably this one.
    Rooms,
    Introductions,
    Pipes,
}

/// What the players of a run speak, each of them as likely as it stands here.
const SPOKEN: [&[Spoken]; 20] = {
    use Spoken::{Directory, Introductions, Pairing, Pipes, Rendezvous, Rooms};
    const PAIRING: &[Spoken] = &[Pairing];
    const ALL: &[Spoken] =
        &[Pairing, Rendezvous, Directory, Rooms, Introductions, Pipes, Pipes, Pairing, Introductions];
    [
        PAIRING,
        PAIRING,
        PAIRING,
        PAIRING,
        PAIRING,
        PAIRING,
        PAIRING,
        PAIRING,
        &[Rendezvous],
        &[Rendezvous],
        &[Directory],
        &[Directory],
        &[Rooms],
        &[Rooms],
        &[Introductions, Introductions, Introductions, Pipes],
        &[Introductions],
        &[Pipes],
        &[Pipes],
        &[Directory, Rooms],
        ALL,
    ]
};

/// One run's circumstances.
pub(super) struct Setup {
    pub(super) settings: Arc<Settings>,
    /// What the players speak.
    pub(super) spoken: &'static [Spoken],
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
    /// Clients may be closed at any message, because little is allowed to wait for them: but in pairing the server
    /// reads one message at a time, so that the books know which.
    pub(super) is_stepwise: bool,
    /// How many of a hundred ends of pipes are raw, and how many of a hundred reads of those by splice(2).
    pub(super) raw_percent: usize,
    pub(super) splice_percent: usize,
    /// Much goes through pipes.
    pub(super) is_bulk: bool,
    pub(super) unix_ms_at_start: u64,
}

impl Setup {
    pub(super) fn draw(chance: &mut Chance, plant: Option<Plant>) -> Self {
        let spoken = chance.pick(&SPOKEN);
        let is_pairing = spoken == [Spoken::Pairing];
        let is_flood = is_pairing && chance.one_in(8);
        let is_stepwise = !is_pairing && chance.one_in(3);
        let shards = if is_flood { chance.between(2..=3) } else { chance.between(1..=5) };
        let limits = match (is_flood, is_pairing || is_stepwise) {
            (true, _) => flood_limits(),
            (false, is_tight) => limits(chance, is_tight),
        };
        Self {
            settings: Arc::new(settings(chance, shards, limits, plant)),
            spoken,
            players: if is_flood { chance.between(4..=6) } else { chance.between(2..=12) },
            clumsy_percent: chance.pick(&[0, 20, 40, 80]),
            hostile_percent: if is_flood { 0 } else { chance.pick(&[0, 0, 20, 50]) },
            ring_entries: if is_flood { 2 } else { chance.pick(&[1, 2, 3, 4, 16, 512]) },
            mail_delay_max: chance.pick(&[0, 1, 3, 10, 30]),
            rounds: chance.between(60..=800) as u64,
            long_round: chance.pick(&[20, 100, 10_000]),
            socket_fault: chance.pick(&[8, 40, 10_000]),
            is_flood,
            is_stepwise,
            raw_percent: chance.pick(&[0, 30, 60, 100]),
            splice_percent: chance.pick(&[0, 50, 100]),
            is_bulk: chance.one_in(3),
            unix_ms_at_start: 1_700_000_000_000 + chance.below(1 << 40) as u64,
        }
    }

    /// Pairing alone is spoken.
    pub(super) fn is_pairing(&self) -> bool {
        self.spoken == [Spoken::Pairing]
    }

    /// Somebody may come to `/`.
    pub(super) fn is_lobby(&self) -> bool {
        self.spoken.iter().any(|spoken| matches!(spoken, Spoken::Directory | Spoken::Rooms))
    }

    /// There is so much memory that nobody is ever told that the server is busy.
    pub(super) fn is_roomy(&self) -> bool {
        self.settings.limits.shard_buffer_bytes >= Limits::SHARD_BUFFER_BYTES
    }
}

fn settings(chance: &mut Chance, shards: usize, limits: Limits, plant: Option<Plant>) -> Settings {
    let (mut directory, mut rooms) = (true, true);
    match chance.below(12) {
        0 => directory = false,
        1 => rooms = false,
        _ => {}
    }
    let held_pipes = Arc::new(Places::new(limits.held_pipes_max));
    Settings {
        held_pipes,
        host: HostId(u32::from_ne_bytes(chance.bytes())),
        shards,
        limits,
        offered: Offered { directory, rooms, ..Offered::ALL },
        key_seed: chance.bytes::<4>().map(u64::from),
        has_cluster: false,
        requeue_on_partner_leave: !chance.one_in(3),
        allowed_origins: Vec::new(),
        allow_no_origin: false,
        echo_path: None,
        planted: Planted::new(plant),
    }
}

fn flood_limits() -> Limits {
    Limits { messages_per_second_max: 1_000_000, ..Limits::default() }
}

/// `is_tight`: little may wait for a client, and perhaps there is little memory.
fn limits(chance: &mut Chance, is_tight: bool) -> Limits {
    let message_bytes_max = chance.pick(&[600, 3_000, 20_000, 1 << 20]);
    let outbox_bytes_max = chance.pick(&[300, 1_000, 6_000, Limits::outbox_bytes_max_for(message_bytes_max)]);
    let shard_buffer_bytes = chance.pick(&[2_500, 8_000, 40_000, 1 << 28, 1 << 28, 1 << 28]);
    Limits {
        message_bytes_max,
        fragments_max: chance.pick(&[8, 8, 64, 1_024]) as u32,
        outbox_bytes_max: if is_tight { outbox_bytes_max } else { 1 << 26 },
        shard_buffer_bytes: if is_tight { shard_buffer_bytes } else { 1 << 28 },
        messages_per_second_max: chance.pick(&[4, 40, 40, 1_000_000]) as u32,
        rendezvous_messages_max: chance.pick(&[3, 100, 1_000_000]) as u32,
        rendezvous_window_ms: chance.pick(&[50, 1_000]) as u32,
        room_timeout_ms: chance.pick(&[300, 2_000, 20_000, 300_000]) as u64,
        pipe_hold_bytes: chance.pick(&[0, 10, 2_000, 1 << 20]),
        pipe_hold_ms: chance.pick(&[0, 0, 300, 5_000]) as u64,
        held_pipes_max: chance.pick(&[1, 4, 10_000, 10_000]),
        heartbeat_ms: chance.pick(&[400, 5_000, 25_000]) as u64,
        head_deadline_ms: chance.pick(&[200, 5_000]) as u64,
    }
}
