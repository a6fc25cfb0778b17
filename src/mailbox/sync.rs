//! The atomics of the doorbell, in one place so that `tests/loom_doorbell.rs` can put loom's in theirs.

pub(crate) use std::sync::atomic::{AtomicBool, Ordering, fence};
