//! What the steps of a relayed message cost: `cargo bench --bench hot_path`.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use parlor::mailbox::mailboxes;
use parlor::wire::envelope::Parser;
use parlor::wire::frame::{FrameReader, Step};
use parlor::wire::mask::Mask;

mod support;

use support::{ICE, Pair, client_frame, sdp};

fn mask(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mask");
    for len in [64, 256, 2_048, 65_536] {
        let mut payload = vec![b'a'; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{len} bytes"), |bencher| {
            bencher.iter(|| Mask::new([1, 2, 3, 4]).apply(black_box(&mut payload)));
        });
    }
}

fn frame(criterion: &mut Criterion) {
    let mut burst = client_frame(ICE.as_bytes()).repeat(64);
    let mut group = criterion.benchmark_group("frame");
    group.throughput(Throughput::Elements(64));
    group.bench_function("64 ICE messages in one piece", |bencher| {
        bencher.iter(|| {
            let (mut reader, mut cursor, mut payload) = (FrameReader::default(), 0, 0);
            while let Some(step) = reader.poll(black_box(&mut burst), &mut cursor) {
                if let Step::Payload { span, .. } = step {
                    payload += span.len();
                }
            }
            payload
        });
    });
}

fn envelope(criterion: &mut Criterion) {
    let mut parser = Parser::default();
    let cut_emoji = ICE.replace("udp", r"udp\ud83d");
    let mut group = criterion.benchmark_group("envelope");
    for (name, message) in
        [("ICE", ICE.to_owned()), ("SDP", sdp()), ("ICE that simd-json refuses", cut_emoji)]
    {
        group.throughput(Throughput::Bytes(message.len() as u64));
        group.bench_function(name, |bencher| {
            bencher
                .iter(|| parser.parse(black_box(message.as_bytes())).map(|envelope| envelope.fields().len()));
        });
    }
}

fn ring_hop(criterion: &mut Criterion) {
    let mut boxes = mailboxes::<[u8; 384]>(2, 512).expect("two eventfds");
    let (mut receiver, mut sender) = (boxes.remove(1), boxes.remove(0));
    let mut group = criterion.benchmark_group("ring");
    group.throughput(Throughput::Elements(256));
    group.bench_function("256 elements of 384 bytes, one ring of the bell", |bencher| {
        bencher.iter_batched(
            || [7u8; 384],
            |element| {
                for _ in 0..256 {
                    sender.push(1, black_box(element)).expect("room");
                }
                sender.ring();
                while let Some(element) = receiver.pop() {
                    black_box(element);
                }
            },
            BatchSize::SmallInput,
        );
    });
}

fn relay(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("relay through a shard");
    for (name, message, in_flight) in
        [("ICE, 1", ICE.to_owned(), 1), ("ICE, 8", ICE.to_owned(), 8), ("SDP, 1", sdp(), 1)]
    {
        let mut pair = Pair::new();
        let burst = client_frame(message.as_bytes()).repeat(in_flight);
        let mut input = burst.clone();
        group.throughput(Throughput::Elements(in_flight as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                input.copy_from_slice(&burst);
                black_box(pair.relay(&mut input))
            });
        });
    }
}

fn relay_across(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("relay across two shards");
    for (name, message) in [("ICE, 8", ICE.to_owned()), ("SDP, 8", sdp())] {
        let mut pair = Pair::across();
        let burst = client_frame(message.as_bytes()).repeat(8);
        let mut input = burst.clone();
        group.throughput(Throughput::Elements(8));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                input.copy_from_slice(&burst);
                black_box(pair.relay(&mut input))
            });
        });
    }
}

criterion_group!(benches, mask, frame, envelope, ring_hop, relay, relay_across);
criterion_main!(benches);
