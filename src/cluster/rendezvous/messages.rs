//! Messages to clients that are none of ours: SISMEMBER, then PUBLISH.

use bytes::Bytes;

use super::sets::is_foreign;
use super::{Awaited, Letter, Message, News, Rendezvous};
use crate::cluster::desk::{self, Desk};
use crate::cluster::{self, Command, FromCluster};
use crate::id::ClientId;
use crate::limits::RENDEZVOUS_HELD_BYTES_MAX;

impl Rendezvous {
    /// A client has a message for somebody who is on no host that can be written to: a client that is none of ours, or
    /// nobody.
    pub(super) fn send(
        &mut self,
        from: ClientId,
        number: u64,
        target: Box<[u8]>,
        payload: Bytes,
        desk: &mut Desk,
    ) {
        let is_room = self.held_bytes == 0 || self.held_bytes + payload.len() <= RENDEZVOUS_HELD_BYTES_MAX;
        let may_be_there = desk.is_up && desk.has_public_layouts && is_room && is_foreign(&target, desk);
        let Some(record) = self.records.get(&from).filter(|_| may_be_there) else {
            return self.answer(from, number, false, desk);
        };
        let (key, member) = (record.other_set(desk.has_public_layouts), target.to_vec());
        self.held_bytes += payload.len();
        let awaited = Awaited::Target { from, number, target, payload };
        desk.ask(desk::Awaited::Rendezvous(awaited), Command::SetContains { key, member });
    }

    /// It is known whether the target of a client's message with this number is there.
    pub(super) fn handle_target(
        &mut self,
        (from, number): (ClientId, u64),
        target: &[u8],
        payload: Bytes,
        is_there: bool,
        desk: &mut Desk,
    ) {
        // Who has left has been missed by now.
        if !is_there || !desk.is_up || !self.records.contains_key(&from) {
            return self.answer(from, number, false, desk);
        }
        let command = Command::Publish { channel: target.to_vec(), payload };
        desk.ask(desk::Awaited::Rendezvous(Awaited::Published(from, number)), command);
    }

    /// Tells a client's shard what became of its message.
    pub(super) fn answer(&mut self, to: ClientId, number: u64, is_sent: bool, desk: &mut Desk) {
        desk.mail(to.shard(), FromCluster::Rendezvous(News::Answer { to, number, is_sent }));
    }

    /// A client of another host has sent a message to a shard that is not there.
    pub(super) fn refuse_message(&mut self, message: &Message, desk: &mut Desk) {
        let answer = Letter::Answer { to: message.from, number: message.number, is_sent: false };
        let (host, shard) = (message.from.host(), message.from.shard());
        desk.write(host, shard, &cluster::Letter::Rendezvous(answer));
    }
}
