//! Where mail goes: to this shard, at once; to another or to the cluster, when its ring has room.

use std::collections::VecDeque;

use super::mail::{Mail, Parcel};
use crate::buffers::Buffers;
use crate::id::ShardIndex;
use crate::limits::MAIL_WAITING_MAX;

/// Mail that is under way from one shard.
#[derive(Debug)]
pub struct Router {
    here: ShardIndex,
    /// To this shard itself.
    local: VecDeque<Mail>,
    /// To each shard, what its ring has not taken yet.
    outgoing: Vec<VecDeque<Mail>>,
    /// To the cluster.
    parcels: VecDeque<Parcel>,
    /// How much is in `outgoing` and `parcels`.
    waiting: usize,
    /// So much waited that no client is read from until it is below half.
    is_reading_paused: bool,
}

impl Router {
    /// The router of shard `here` of `shards`.
    #[must_use]
    pub fn new(here: ShardIndex, shards: usize) -> Self {
        Self {
            here,
            local: VecDeque::new(),
            outgoing: (0..shards).map(|_| VecDeque::new()).collect(),
            parcels: VecDeque::new(),
            waiting: 0,
            is_reading_paused: false,
        }
    }

    /// This shard.
    #[must_use]
    pub fn here(&self) -> ShardIndex {
        self.here
    }

    /// Sends mail to a shard of this host. Mail to a shard that does not exist was never ours, and is dropped.
    pub fn post(&mut self, to: ShardIndex, mail: Mail, buffers: &mut Buffers) {
        if to == self.here {
            self.local.push_back(mail);
            return;
        }
        let Some(outgoing) = self.outgoing.get_mut(to.position()) else { return };
        outgoing.push_back(mail);
        buffers.charge_always(size_of::<Mail>());
        self.waiting += 1;
    }

    /// Sends mail to the cluster.
    pub fn post_to_cluster(&mut self, parcel: Parcel, buffers: &mut Buffers) {
        self.parcels.push_back(parcel);
        buffers.charge_always(size_of::<Parcel>());
        self.waiting += 1;
    }

    /// The next mail to this shard itself.
    pub fn poll_local(&mut self) -> Option<Mail> {
        self.local.pop_front()
    }

    /// Hands what waits to `push`, which gives back what its ring does not take. Returns how much was taken.
    pub fn deliver(
        &mut self,
        mut push: impl FnMut(ShardIndex, Mail) -> Result<(), Mail>,
        buffers: &mut Buffers,
    ) -> usize {
        let before = self.waiting;
        for (index, outgoing) in self.outgoing.iter_mut().enumerate() {
            while let Some(mail) = outgoing.pop_front() {
                if let Err(mail) = push(ShardIndex(index as u8), mail) {
                    outgoing.push_front(mail);
                    break;
                }
                self.waiting -= 1;
            }
        }
        let taken = before - self.waiting;
        buffers.refund(taken * size_of::<Mail>());
        taken
    }

    /// As [`Router::deliver`], for the cluster.
    pub fn deliver_to_cluster(
        &mut self,
        mut push: impl FnMut(Parcel) -> Result<(), Parcel>,
        buffers: &mut Buffers,
    ) -> usize {
        let before = self.waiting;
        while let Some(parcel) = self.parcels.pop_front() {
            if let Err(parcel) = push(parcel) {
                self.parcels.push_front(parcel);
                break;
            }
            self.waiting -= 1;
        }
        let taken = before - self.waiting;
        buffers.refund(taken * size_of::<Parcel>());
        taken
    }

    /// How much waits for room in a ring.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether no client is to be read from. Stops above [`MAIL_WAITING_MAX`], goes on below half of it.
    pub fn update_reading_paused(&mut self) -> bool {
        let bound = if self.is_reading_paused { MAIL_WAITING_MAX / 2 } else { MAIL_WAITING_MAX };
        self.is_reading_paused = self.waiting > bound;
        self.is_reading_paused
    }
}
