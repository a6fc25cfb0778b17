//! A hostile neighbour on Redis: whatever is published to a host, whatever Redis answers and whatever clients say
//! meanwhile, neither the cluster nor the shard behind it comes to harm; and mail that is understood is written as the
//! same bytes.
//!
//! The input is a list of steps, each a byte that says what, one for its length, and so many bytes.
#![no_main]

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use parlor::cluster::codec::{Draft, Header, Heartbeat, Message, Sender, decode, encode_heartbeat};
use parlor::cluster::{
    self, Cluster, Connection, FromCluster, HEARTBEAT_CHANNEL, Output, Reply, Token, channel_of,
};
use parlor::id::{HostId, ShardIndex, Slot};
use parlor::limits::Limits;
use parlor::metrics::ClusterMetrics;
use parlor::plant::Planted;
use parlor::protocol::pipe::Places;
use parlor::shard::mail::Parcel;
use parlor::shard::{Offered, Settings, Shard};
use parlor_fuzz::client_frame;

const ME: HostId = HostId(0x0a0a_0a0a);
const OTHER: Sender = Sender { host: HostId(0x0b0b_0b0b), start: 7 };
/// What the clients that are there come to.
const PATHS: [&str; 6] = [
    "/ws",
    "/0000000000000000000000000000000000000000000000000000000000000000?source=wallet&target=extension",
    "/",
    "/",
    "/introduction/a",
    "/connection/a/b/d",
];
/// What each of them says first.
const GREETINGS: [&str; 6] = [
    r#"{"type":"available"}"#,
    "",
    r#"{"type":"login","name":"a"}"#,
    r#"{"type":"create"}"#,
    r#"{"join":["d"]}"#,
    "first",
];

/// A host with clients of all dialects and one neighbour.
struct Host {
    cluster: Cluster,
    shard: Shard,
    slots: Vec<Slot>,
    /// Commands that are not answered yet.
    asked: VecDeque<Token>,
    channels: Vec<Vec<u8>>,
    mail: VecDeque<FromCluster>,
    sequence: u64,
    now_ms: u64,
}

fuzz_target!(|input: &[u8]| {
    check_round_trip(input);
    let mut host = Host::new();
    let mut rest = input;
    while let [what, len, behind @ ..] = rest {
        let (bytes, behind) = behind.split_at(behind.len().min(usize::from(*len)));
        host.step(*what, bytes);
        rest = behind;
    }
    host.end();
});

/// Mail that is understood is written as the same bytes.
fn check_round_trip(letters: &[u8]) {
    let header = Header { sender: OTHER, mine: 1, yours: 1, sequence: 0, wants_answer: false };
    let bytes = Bytes::from([&Draft::default().finish(&header)[..], letters].concat());
    let Ok(Message::Mail(mail)) = decode(&bytes) else { return };
    let mut draft = Draft::default();
    for (shard, letter) in &mail.letters {
        draft.push(*shard, letter);
    }
    assert_eq!(draft.finish(&mail.header), bytes);
}

impl Host {
    fn new() -> Self {
        let settings = cluster::Settings {
            host: ME,
            start: 1,
            shards: 1,
            has_public_layouts: true,
            seed: [1; 32],
            planted: Planted::default(),
        };
        let cluster = Cluster::new(&settings, Arc::new(ClusterMetrics::default()), 0);
        let mut host = Self {
            cluster,
            shard: shard(),
            slots: Vec::new(),
            asked: VecDeque::new(),
            channels: Vec::new(),
            mail: VecDeque::new(),
            sequence: 0,
            now_ms: 0,
        };
        host.settle();
        host.cluster.handle_connected(Connection::Commands, 0);
        host.cluster.handle_connected(Connection::Subscriptions, 0);
        for channel in host.channels.clone() {
            host.cluster.handle_subscribed(&channel, 0);
        }
        host.settle();
        host.answer(&Reply::List(Vec::new()));
        host.relate();
        for (path, greeting) in PATHS.iter().zip(GREETINGS) {
            host.connect(path, greeting);
        }
        host
    }

    /// Begins the relation to the neighbour.
    fn relate(&mut self) {
        let heartbeat = Heartbeat { sender: OTHER, number: 0, is_leaving: false };
        self.publish(HEARTBEAT_CHANNEL, encode_heartbeat(&heartbeat));
        // Our first number for the first host that is met.
        let header = Header { sender: OTHER, mine: 1, yours: (1 << 20) + 1, sequence: 0, wants_answer: false };
        self.publish(&channel_of(ME), Draft::default().finish(&header));
        assert!(self.cluster.hosts().relation(OTHER.host).is_some(), "the neighbour is found");
    }

    fn connect(&mut self, path: &str, greeting: &str) {
        let slot = self.shard.handle_accept(self.now_ms).expect("there is room");
        let mut head = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .into_bytes();
        self.shard.handle_bytes(slot, &mut head, self.now_ms);
        self.slots.push(slot);
        if !greeting.is_empty() {
            self.say(slot, greeting.as_bytes());
        }
        self.settle();
    }

    fn step(&mut self, what: u8, bytes: &[u8]) {
        match what % 8 {
            // Letters of the neighbour.
            0..=2 => {
                let yours = self.cluster.hosts().relation(OTHER.host).map_or(0, |relation| relation.0);
                let sequence = self.sequence;
                let header = Header { sender: OTHER, mine: 1, yours, sequence, wants_answer: false };
                self.sequence += 1;
                let mail = [&Draft::default().finish(&header)[..], bytes].concat();
                self.publish(&channel_of(ME), mail.into());
            }
            // Anything in any channel.
            3 => {
                let channel = self.channels[usize::from(what / 8) % self.channels.len()].clone();
                self.publish(&channel, Bytes::copy_from_slice(bytes));
            }
            4 => self.answer(&reply(what / 8, bytes)),
            5 => {
                let slot = self.slots[usize::from(what / 8) % self.slots.len()];
                self.say(slot, bytes);
            }
            6 => {
                self.now_ms += u64::from(bytes.first().copied().unwrap_or(1)) * 20;
                self.cluster.handle_tick(self.now_ms);
                self.shard.handle_tick(self.now_ms);
                if self.shard.poll_reminder().is_some() {
                    self.shard.handle_reminder(self.now_ms);
                }
            }
            _ => {
                let slot = self.slots[usize::from(what / 8) % self.slots.len()];
                self.shard.handle_gone(slot, self.now_ms);
            }
        }
        self.settle();
    }

    fn say(&mut self, slot: Slot, text: &[u8]) {
        if !self.shard.is_paused(slot) {
            self.shard.handle_bytes(slot, &mut client_frame(0x81, text), self.now_ms);
        }
    }

    fn publish(&mut self, channel: &[u8], payload: Bytes) {
        self.cluster.handle_push(channel, &payload, self.now_ms);
        self.settle();
    }

    fn answer(&mut self, reply: &Reply) {
        if let Some(token) = self.asked.pop_front() {
            self.cluster.handle_reply(token, reply, self.now_ms);
            self.settle();
        }
    }

    /// Everything that follows.
    fn settle(&mut self) {
        loop {
            while let Some(event) = self.shard.poll_event() {
                drop(event);
            }
            while let Some(slot) = self.shard.poll_dirty() {
                let len = self.shard.gather(slot).iter().map(|piece| piece.len()).sum();
                self.shard.handle_sent(slot, len);
            }
            let mut parcels: Vec<Parcel> = Vec::new();
            self.shard.deliver_mail(|_, _| unreachable!("there is one shard"));
            self.shard.deliver_cluster_mail(|parcel| {
                parcels.push(parcel);
                Ok(())
            });
            for parcel in parcels {
                self.cluster.handle_mail(ShardIndex(0), parcel.mail, self.now_ms);
            }
            self.cluster.handle_turn_end();
            while let Some(output) = self.cluster.poll_output() {
                match output {
                    Output::Command { token, .. } => self.asked.push_back(token),
                    Output::Subscribe(channel) => self.channels.push(channel),
                    Output::Mail { mail, .. } => self.mail.push_back(mail),
                    Output::Unsubscribe(_) | Output::Resubscribe | Output::Remark(_) => {}
                }
            }
            let Some(mail) = self.mail.pop_front() else { return };
            self.shard.handle_cluster_mail(mail, self.now_ms);
        }
    }

    /// Everybody leaves: nothing of theirs is left.
    fn end(mut self) {
        for slot in std::mem::take(&mut self.slots) {
            self.shard.handle_gone(slot, self.now_ms);
            self.settle();
        }
        assert_eq!(self.shard.connections(), 0);
        assert_eq!(self.shard.counters().clients.value(), 0);
    }
}

fn shard() -> Shard {
    let limits = Limits::default();
    let settings = Settings {
        host: ME,
        shards: 1,
        offered: Offered::ALL,
        key_seed: [1, 2, 3, 4],
        has_cluster: true,
        requeue_on_partner_leave: true,
        allowed_origins: Vec::new(),
        allow_no_origin: false,
        echo_path: None,
        held_pipes: Arc::new(Places::new(limits.held_pipes_max)),
        planted: Planted::default(),
        limits,
    };
    Shard::new(ShardIndex(0), Arc::new(settings), Arc::default(), [7; 32], 0)
}

fn reply(kind: u8, bytes: &[u8]) -> Reply {
    let words = || bytes.split(|byte| *byte == b' ').map(<[u8]>::to_vec).collect();
    match kind % 6 {
        0 => Reply::List(words()),
        1 => Reply::Integer(bytes.first().map_or(0, |byte| i64::from(*byte))),
        2 => Reply::Bytes(bytes.to_vec()),
        3 => Reply::Nil,
        4 => Reply::Done,
        _ => Reply::Failed,
    }
}
