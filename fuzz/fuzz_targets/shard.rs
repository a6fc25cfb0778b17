//! Sequences of operations on one to three shards, as a fuzzer says them: who connects, what they send in which
//! pieces, what their sockets take, when mail arrives, when time passes, who goes how. Nothing panics; all that a
//! client is sent are whole frames that it can read; what it has been told of its partner is what the server believes,
//! after each step; no frame comes from anybody else; once mail is through, pairs are pairs from both sides and who
//! waits is in the queue; when all are gone, no connection, client, waiter or byte of buffers is left.
//!
//! It plays the part of the simulator from the other side: that draws what peers plausibly do from a seed, this is led
//! to what has not been reached yet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use parlor::limits::Limits;
use parlor_fuzz::pairing::Pairing;
use parlor_fuzz::world::{Setup, World};
use parlor_fuzz::{Cuts, client_frame};

const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// What clients say. `*` stands for text that is too long to be copied into an outbox.
const MESSAGES: [&str; 16] = [
    r#"{"type":"available"}"#,
    r#"{"type":"available"}"#,
    r#"{"type":"offer","sdp":"v=0"}"#,
    r#"{"type":"offer","sdp":"*"}"#,
    r#"{"type":"answer","sdp":{"x":1.50,"y":"\ud800"}}"#,
    r#"{"type":"ice","candidate":null}"#,
    r#"{"type":"ice","candidate":1,"from":"me","candidate": [2] }"#,
    r#"{"type":"ice"}"#,
    r#"{"type":"next"}"#,
    r#"{"type":"next"}"#,
    r#"{"type":"leave"}"#,
    r#"{"type":"ping"}"#,
    r#"{"type":"auth","userId":"u","token":"t"}"#,
    r#"{"type":"what"}"#,
    "null",
    "{",
];
const LONG_BYTES: usize = 5_000;

/// The input that is left.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        self.0.split_off_first().copied()
    }

    /// A number, 0 at the end.
    fn number(&mut self) -> usize {
        usize::from(self.byte().unwrap_or_default())
    }

    fn bytes(&mut self) -> &'a [u8] {
        let len = self.number().min(self.0.len());
        self.0.split_off(..len).unwrap_or_default()
    }

    fn cuts(&mut self) -> Cuts<'a> {
        let (cuts, rest) = Cuts::take(self.0);
        self.0 = rest;
        cuts
    }
}

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let mut world = World::new(setup(&mut input), Pairing::default());
    while let Some(what) = input.byte() {
        step(&mut world, what, &mut input);
    }
    world.finish();
});

/// Limits are small, so that they are reached.
fn setup(input: &mut Input<'_>) -> Setup {
    let flags = input.number();
    let limits = Limits {
        message_bytes_max: 6_000,
        fragments_max: 4,
        outbox_bytes_max: if flags & 0x10 == 0 { 18_000 } else { 400 },
        shard_buffer_bytes: if flags & 0x20 == 0 { 1 << 20 } else { 12_000 },
        messages_per_second_max: if flags & 0x40 == 0 { 1_000 } else { 5 },
        ..Limits::default()
    };
    Setup {
        shards: 1 + flags % 4 % 3,
        requeue: flags & 0x04 == 0,
        ring_entries: 1 + (flags & 0x08),
        limits,
        ..Setup::default()
    }
}

fn step(world: &mut World<Pairing>, what: u8, input: &mut Input<'_>) {
    match what % 24 {
        0..=2 => connect(world, input),
        3..=8 => say(world, input, 1),
        9 => {
            let count = 1 + input.number() % 4;
            say(world, input, count);
        }
        10 => world.bytes(input.number(), input.bytes(), Cuts::default()),
        11 => world.bytes(input.number(), &client_frame(input.number() as u8, input.bytes()), input.cuts()),
        12 => world.gone(input.number()),
        13 => world.tick([50, 1_000, 5_100, 25_000][input.number() % 4]),
        14 => world.set_room(input.number(), 8 * input.number()),
        15 => world.set_room(input.number(), usize::MAX),
        16 => {
            world.flush(input.number());
        }
        17 => world.deliver(input.number()),
        18..=20 => {
            world.receive(input.number(), input.number());
        }
        21 => world.drain_mail(),
        22 => match input.number() % 8 {
            0 => world.shutdown(input.number()),
            1 | 2 => world.write_failed(input.number()),
            3 => world.panic(input.number()),
            _ => {
                world.accept(input.number());
            }
        },
        _ => (0..3).for_each(|shard| {
            world.flush(shard);
        }),
    }
}

/// Somebody connects and upgrades.
fn connect(world: &mut World<Pairing>, input: &mut Input<'_>) {
    world.accept(input.number());
    world.bytes(world.newest(), UPGRADE, Cuts::default());
}

/// Somebody sends messages in one read, or cut into pieces: as text, as binary, in two fragments.
fn say(world: &mut World<Pairing>, input: &mut Input<'_>, count: usize) {
    let peer = input.number();
    let mut bytes = Vec::new();
    for _ in 0..count {
        let which = input.number();
        let message = MESSAGES[which % 16].replace('*', &"x".repeat(LONG_BYTES));
        let (first, second) = message.as_bytes().split_at(message.len() / 2);
        match which / 16 {
            0..=11 => bytes.extend(client_frame(0x81, message.as_bytes())),
            12 | 13 => bytes.extend(client_frame(0x82, message.as_bytes())),
            _ => bytes.extend([client_frame(0x01, first), client_frame(0x80, second)].concat()),
        }
    }
    let cuts = if count > 1 { input.cuts() } else { Cuts::default() };
    world.bytes(peer, &bytes, cuts);
}
