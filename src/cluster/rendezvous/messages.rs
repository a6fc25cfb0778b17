//! Messages to clients that are none of ours: SISMEMBER, then PUBLISH.

use bytes::Bytes;

use super::sets::is_foreign;
use super::{Awaited, News, Rendezvous};
use crate::cluster::desk::{self, Desk};
use crate::cluster::{Command, FromCluster, Reply};
use crate::id::ClientId;
use crate::limits::RENDEZVOUS_HELD_BYTES_MAX;

impl Rendezvous {
    /// A client has a message for somebody who is on no host that can be written to: a client that is none of ours, or
    /// nobody.
    pub(super) fn send(&mut self, from: ClientId, target: Box<[u8]>, payload: Bytes, desk: &mut Desk) {
        let is_room = self.held_bytes == 0 || self.held_bytes + payload.len() <= RENDEZVOUS_HELD_BYTES_MAX;
        let may_be_there = desk.is_up && desk.has_public_layouts && is_room && is_foreign(&target, desk);
        let Some(record) = self.records.get(&from).filter(|_| may_be_there) else {
            return self.answer(from, false, desk);
        };
        let (key, member) = (record.other_set(desk.has_public_layouts), target.to_vec());
        self.held_bytes += payload.len();
        let awaited = Awaited::Target { from, target, payload };
        desk.ask(desk::Awaited::Rendezvous(awaited), Command::SetContains { key, member });
    }

    /// Redis has said whether the target of a message is there.
    pub(super) fn handle_target(
        &mut self,
        from: ClientId,
        target: &[u8],
        payload: Bytes,
        reply: &Reply,
        desk: &mut Desk,
    ) {
        self.held_bytes -= payload.len();
        // Who has left has been missed by now.
        let is_there = self.records.contains_key(&from);
        if *reply != Reply::Integer(1) || !desk.is_up || !is_there {
            return self.answer(from, false, desk);
        }
        let command = Command::Publish { channel: target.to_vec(), payload };
        desk.ask(desk::Awaited::Rendezvous(Awaited::Published(from)), command);
    }

    /// Tells a client's shard what became of its message.
    pub(super) fn answer(&mut self, to: ClientId, is_sent: bool, desk: &mut Desk) {
        desk.mail(to.shard(), FromCluster::Rendezvous(News::Answer { to, is_sent }));
    }
}
