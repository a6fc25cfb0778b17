use super::*;
use crate::cluster::codec::Heartbeat;
use crate::cluster::{Command, Letter, Relation};
use crate::id::{ClientId, Entropy, RoomId, Slot};
use crate::limits::{HOST_FRAME_BYTES_MAX, HOST_MAIL_BYTES};
use crate::protocol::pairing::Note;
use crate::wire::frame::{Opcode, ServerHeader};

/// A host whose commands and subscriptions work.
struct Host {
    cluster: Cluster,
    metrics: Arc<ClusterMetrics>,
    channels: Vec<Vec<u8>>,
    mail: Vec<(ShardIndex, FromCluster)>,
    remarks: Vec<Remark>,
    published: Vec<(Token, Vec<u8>, Bytes)>,
    resubscribed: usize,
}

impl Host {
    fn new(host: u32, shards: usize) -> Self {
        let metrics = Arc::new(ClusterMetrics::default());
        let settings = Settings {
            host: HostId(host),
            start: 1,
            shards,
            has_public_layouts: true,
            seed: [host as u8; 32],
            planted: Planted::default(),
        };
        let mut host = Self {
            cluster: Cluster::new(&settings, Arc::clone(&metrics), 0),
            metrics,
            channels: Vec::new(),
            mail: Vec::new(),
            remarks: Vec::new(),
            published: Vec::new(),
            resubscribed: 0,
        };
        host.drain();
        host
    }

    fn connected(host: u32, shards: usize) -> Self {
        let mut host = Self::new(host, shards);
        host.cluster.handle_connected(Connection::Commands, 0);
        host.cluster.handle_connected(Connection::Subscriptions, 0);
        for channel in host.channels.clone() {
            host.cluster.handle_subscribed(&channel, 0);
        }
        host.drain();
        host
    }

    fn drain(&mut self) {
        while let Some(output) = self.cluster.poll_output() {
            match output {
                Output::Command { token, command: Command::Publish { channel, payload } } => {
                    self.published.push((token, channel, payload));
                }
                Output::Command { token, command: Command::Run { .. } } => {
                    // Nobody else is on the roll.
                    self.cluster.handle_reply(token, &Reply::List(Vec::new()), 0);
                }
                Output::Command { command, .. } => panic!("{command:?}"),
                Output::Subscribe(channel) => self.channels.push(channel),
                Output::Unsubscribe(channel) => panic!("{channel:?}"),
                Output::Resubscribe => self.resubscribed += 1,
                // What the parts say is for their own tests.
                Output::Mail { mail: FromCluster::Introductions(_) | FromCluster::Pipes(_), .. } => {}
                Output::Mail { to, mail } => self.mail.push((to, mail)),
                Output::Remark(remark) => self.remarks.push(remark),
            }
        }
    }

    fn take_mail(&mut self) -> Vec<(ShardIndex, FromCluster)> {
        std::mem::take(&mut self.mail)
    }

    fn post(&mut self, to: &Self, shard: u8, letter: Letter) {
        let to = HostId(u32::from_str_radix(to.name(), 16).expect("8 hex digits"));
        let relation = self.cluster.hosts().relation(to).unwrap_or(Relation(0));
        let mail = ToCluster::Letter { to, relation, shard: ShardIndex(shard), letter };
        self.cluster.handle_mail(ShardIndex(0), mail, 0);
        self.drain();
    }

    fn name(&self) -> &str {
        let name = self.cluster.own_channel.strip_prefix(b"parlor:host:").expect("its own channel");
        std::str::from_utf8(name).expect("ASCII")
    }

    fn warnings(&self) -> Vec<&str> {
        let mut warnings = Vec::new();
        for remark in &self.remarks {
            match remark {
                Remark::Warning(text) => warnings.push(text.as_str()),
                Remark::Info(_) => {}
            }
        }
        warnings
    }
}

/// Passes on what hosts publish until they have no more to say.
fn pass(hosts: &mut [&mut Host], now_ms: u64) {
    loop {
        let mut published = Vec::new();
        for host in &mut *hosts {
            published.append(&mut host.published);
        }
        if published.is_empty() {
            return;
        }
        for (_, channel, payload) in &published {
            for host in hosts.iter_mut().filter(|host| host.channels.contains(channel)) {
                host.cluster.handle_push(channel, payload, now_ms);
                host.drain();
            }
        }
    }
}

fn two() -> (Host, Host) {
    let (mut a, mut b) = (Host::connected(0xaa, 2), Host::connected(0xbb, 1));
    pass(&mut [&mut a, &mut b], 0);
    a.take_mail();
    b.take_mail();
    (a, b)
}

fn note(number: u32) -> Letter {
    let mut entropy = Entropy::from_seed([number as u8; 32]);
    let to = ClientId::new(HostId(number), ShardIndex(0), Slot(0), &mut entropy);
    Letter::Note(Note::PartnerLeft { room: RoomId::new(&mut entropy), to })
}

fn frame(len: usize) -> Letter {
    let Letter::Note(Note::PartnerLeft { room, to }) = note(7) else { unreachable!() };
    let header = ServerHeader::new(Opcode::Text, len);
    Letter::Frame { to, room, frame: [header.as_bytes(), &vec![b'x'; len]].concat().into() }
}

#[test]
fn channels_have_the_names_of_the_layout() {
    let host = Host::new(0xabc, 1);
    let names = [b"parlor:heartbeat".to_vec(), b"parlor:host:00000abc".to_vec(), b"webrtc:signal".to_vec()];
    assert_eq!(host.channels, names);
}

#[test]
fn all_shards_are_told_who_is_there_and_whether_anybody_can_be() {
    let (mut a, mut b) = (Host::connected(0xaa, 2), Host::connected(0xbb, 1));
    pass(&mut [&mut a, &mut b], 0);
    let relation = a.cluster.hosts().relation(HostId(0xbb)).expect("found");
    let found = FromCluster::HostFound(HostId(0xbb), relation);
    let online = FromCluster::Online(true);
    for shard in [ShardIndex(0), ShardIndex(1)] {
        let told: Vec<_> = a.mail.iter().filter(|(to, _)| *to == shard).map(|(_, mail)| mail).collect();
        assert_eq!(told, [&online, &found]);
    }
    assert_eq!((a.metrics.counters.hosts.value(), a.metrics.is_ready(10)), (1, true));
    a.take_mail();
    a.cluster.handle_disconnected(Connection::Subscriptions, 10);
    a.drain();
    let gone = FromCluster::HostGone(HostId(0xbb));
    let offline = FromCluster::Online(false);
    let told: Vec<_> = a.mail.iter().map(|(to, mail)| (to.0, mail)).collect();
    assert_eq!(told, [(0, &gone), (1, &gone), (0, &offline), (1, &offline)]);
    assert_eq!((a.metrics.counters.hosts.value(), a.metrics.is_ready(10)), (0, false));
}

#[test]
fn the_letters_of_a_turn_go_out_in_one_piece_of_mail() {
    let (mut a, mut b) = two();
    let letters = [note(1), frame(3), frame(70_000), note(2)];
    for letter in &letters {
        a.post(&b, 0, letter.clone());
    }
    assert!(a.published.is_empty(), "not before the turn ends");
    a.cluster.handle_turn_end();
    a.drain();
    assert_eq!(a.published.len(), 1);
    pass(&mut [&mut a, &mut b], 0);
    let expected: Vec<_> = letters
        .into_iter()
        .map(|letter| (ShardIndex(0), FromCluster::Letter(HostId(0xaa), letter)))
        .collect();
    assert_eq!(b.take_mail(), expected);
    assert_eq!(
        (a.metrics.counters.letters_sent.value(), b.metrics.counters.letters_received.value()),
        (4, 4)
    );
    a.cluster.handle_turn_end();
    a.drain();
    assert!(a.published.is_empty());
}

#[test]
fn mail_that_has_grown_large_goes_out_at_once() {
    let (mut a, mut b) = two();
    for _ in 0..3 {
        a.post(&b, 0, frame(HOST_MAIL_BYTES));
    }
    a.post(&b, 0, frame(HOST_FRAME_BYTES_MAX - 10));
    assert_eq!(a.published.len(), 4);
    a.cluster.handle_turn_end();
    a.drain();
    pass(&mut [&mut a, &mut b], 0);
    assert_eq!(b.take_mail().len(), 4);
}

#[test]
fn a_letter_of_a_relation_that_is_over_is_dropped() {
    let (mut a, mut b) = two();
    a.post(&b, 0, note(1));
    a.cluster.handle_disconnected(Connection::Subscriptions, 0);
    a.cluster.handle_turn_end();
    a.drain();
    let c = Host::new(0xcc, 1);
    a.post(&b, 0, note(1));
    a.post(&c, 0, note(1));
    a.cluster.handle_turn_end();
    a.drain();
    assert_eq!(a.metrics.counters.letters_dropped.value(), 2);
    pass(&mut [&mut a, &mut b], 0);
    assert!(!b.take_mail().iter().any(|(_, mail)| matches!(mail, FromCluster::Letter(..))));
}

#[test]
fn mail_that_could_not_be_published_ends_its_relation() {
    let (mut a, b) = two();
    a.post(&b, 0, note(1));
    a.cluster.handle_turn_end();
    a.drain();
    let (token, ..) = a.published.pop().expect("the letter");
    a.cluster.handle_reply(token, &Reply::Failed, 5);
    a.drain();
    let gone = FromCluster::HostGone(HostId(0xbb));
    assert_eq!(a.take_mail(), [(ShardIndex(0), gone.clone()), (ShardIndex(1), gone)]);
    assert_eq!(a.metrics.counters.relations_ended.value(), 1);
    // Only the first word on it counts.
    a.cluster.handle_reply(token, &Reply::Failed, 6);
    a.drain();
    assert_eq!(a.take_mail(), []);
    assert!(a.cluster.desk.awaits_nothing());
}

#[test]
fn mail_for_a_shard_that_does_not_exist_is_dropped() {
    let (mut a, mut b) = two();
    a.post(&b, 9, note(1));
    a.post(&b, 0, note(2));
    a.cluster.handle_turn_end();
    a.drain();
    pass(&mut [&mut a, &mut b], 0);
    assert_eq!(b.take_mail(), [(ShardIndex(0), FromCluster::Letter(HostId(0xaa), note(2)))]);
}

#[test]
fn what_is_no_message_is_counted_and_named_once() {
    let mut a = Host::connected(0xaa, 1);
    for channel in a.channels.clone() {
        a.cluster.handle_push(&channel, &Bytes::from_static(b"hello"), 0);
    }
    a.cluster.handle_push(b"another channel", &Bytes::from_static(b"hello"), 0);
    a.drain();
    assert_eq!(a.metrics.counters.messages_refused.value(), 2);
    assert_eq!(a.warnings().len(), 1, "{:?}", a.remarks);
}

#[test]
fn a_host_of_another_version_is_refused_clearly() {
    let mut a = Host::connected(0xaa, 1);
    let sender = Sender { host: HostId(0xbb), start: 1 };
    let mut bytes = codec::encode_heartbeat(&Heartbeat { sender, number: 0, is_leaving: false }).to_vec();
    for version in [codec::VERSION + 1, codec::VERSION + 1, 0] {
        bytes[4..6].copy_from_slice(&version.to_be_bytes());
        a.cluster.handle_push(HEARTBEAT_CHANNEL, &bytes.clone().into(), 0);
        a.drain();
    }
    assert_eq!(a.warnings(), ["host 000000bb speaks version 2 and this one 1: they do not work together"]);
    assert_eq!(a.metrics.counters.messages_refused.value(), 3);
    assert_eq!(a.cluster.hosts().found(), 0);
}

#[test]
fn both_own_channels_must_be_subscribed() {
    let mut a = Host::new(0xaa, 1);
    a.cluster.handle_connected(Connection::Commands, 0);
    a.cluster.handle_subscribed(b"somebody's", 0);
    a.cluster.handle_subscribed(HEARTBEAT_CHANNEL, 0);
    a.drain();
    assert!(a.published.is_empty());
    let own = a.channels[1].clone();
    a.cluster.handle_subscribed(&own, 0);
    a.drain();
    assert_eq!(a.published.len(), 1, "the heartbeat");
    // Again after a reconnect.
    a.cluster.handle_disconnected(Connection::Subscriptions, 10);
    a.cluster.handle_subscribed(&own, 20);
    a.drain();
    assert_eq!(a.published.len(), 1);
    a.cluster.handle_subscribed(HEARTBEAT_CHANNEL, 20);
    a.drain();
    assert_eq!(a.published.len(), 2);
}

#[test]
fn subscriptions_that_are_wedged_are_made_anew() {
    let mut a = Host::connected(0xaa, 1);
    for now_ms in (100..=4_500).step_by(100) {
        a.cluster.handle_tick(now_ms);
        a.drain();
    }
    assert_eq!((a.resubscribed, a.warnings().len()), (1, 1));
}

#[test]
fn a_shutdown_is_announced() {
    let (mut a, mut b) = two();
    a.cluster.handle_shutdown(10);
    a.drain();
    pass(&mut [&mut a, &mut b], 10);
    assert_eq!(b.take_mail(), [(ShardIndex(0), FromCluster::HostGone(HostId(0xaa)))]);
    a.post(&b, 0, note(1));
    a.cluster.handle_turn_end();
    a.drain();
    assert!(a.published.is_empty(), "nobody listens to it any more");
}
