//! What crosses shards.

use arrayvec::ArrayVec;

use crate::buffers::Transit;
use crate::cluster::ToCluster;
use crate::id::{ClientId, RoomId};
use crate::limits::{MAIL_BYTES_MAX, MAIL_INLINE_BYTES};
use crate::protocol::pairing::Note;

/// One piece of mail. It is in order per pair of shards, and is never dropped.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is made for the ring, whose elements are as large as the largest"
)]
pub enum Mail {
    /// What the queue and the partners of pairing say to each other.
    Note(Note),
    /// A finished frame for a client in a room.
    Frame(RoomFrame),
}

/// A frame that counts only while its receiver is in the room that it was sent in.
#[derive(Debug)]
pub struct RoomFrame {
    /// The receiver.
    pub to: ClientId,
    /// The room.
    pub room: RoomId,
    /// Header and payload, as they go onto the wire.
    pub frame: FrameBytes,
}

/// A finished frame.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "short frames travel inside the ring, which spares an allocation"
)]
pub enum FrameBytes {
    /// A short one.
    Inline(ArrayVec<u8, MAIL_INLINE_BYTES>),
    /// A longer one.
    Shared(Transit),
}

/// Mail for the cluster. It is in order, and is never dropped on its way there.
#[derive(Debug)]
pub struct Parcel {
    /// What.
    pub mail: ToCluster,
    /// The bytes in it that are charged to the shard while they are on their way.
    pub charge: Option<Transit>,
}

const _: () = assert!(size_of::<Mail>() <= MAIL_BYTES_MAX);
const _: () = assert!(size_of::<Parcel>() <= MAIL_BYTES_MAX);
