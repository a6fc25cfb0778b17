//! Asserts that relaying allocates nothing in the steady state: `cargo bench --bench allocations`.
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

mod support;

use support::{ICE, Pair, client_frame, sdp};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: all calls go to the system's allocator as they are.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WARM_UP: u64 = 1_000;
const MEASURED: u64 = 100_000;

/// Allocations of `MEASURED` bursts of `in_flight` messages.
fn allocations(mut pair: Pair, message: &str, in_flight: usize) -> u64 {
    let burst = client_frame(message.as_bytes()).repeat(in_flight);
    let mut input = burst.clone();
    let mut relay = |count| {
        for _ in 0..count {
            input.copy_from_slice(&burst);
            assert!(pair.relay(&mut input) > message.len());
        }
    };
    relay(WARM_UP);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    relay(MEASURED);
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

#[expect(clippy::print_stdout, reason = "this is its report")]
fn main() {
    let sdp = sdp();
    let cases = [
        ("ICE, 1 in flight, one shard", allocations(Pair::new(), ICE, 1)),
        ("ICE, 8 in flight, one shard", allocations(Pair::new(), ICE, 8)),
        ("SDP, 1 in flight, one shard", allocations(Pair::new(), &sdp, 1)),
        ("ICE, 8 in flight, two shards", allocations(Pair::across(), ICE, 8)),
    ];
    for (name, count) in cases {
        println!("{name}: {count} allocations in {MEASURED} bursts");
        assert_eq!(count, 0, "{name}");
    }
}
