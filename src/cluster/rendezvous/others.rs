//! What other hosts say, and what follows when they are found and lost.

use bytes::Bytes;

use super::published::{DISCONNECTED, JUST_CONNECTED, notice};
use super::record::Phase;
use super::{Letter, Rendezvous, Why};
use crate::cluster::desk::{Desk, Maker};
use crate::id::{ClientId, HostId};
use crate::limits::HOSTS_MAX;

impl Rendezvous {
    /// A relation to another host has begun.
    pub(in crate::cluster) fn handle_host_found(&mut self, host: HostId, desk: &mut Desk) {
        if self.records.is_empty() {
            self.lost.remove(&host);
        }
        if self.awaiting.contains_key(&host) || self.lost.contains(&host) {
            self.write(host, Letter::Call, desk);
        }
    }

    /// A relation to another host has ended. It may begin again; after [`Why::is_final`] it will not, unless that host
    /// only stood still.
    pub(in crate::cluster) fn handle_host_gone(&mut self, host: HostId, why: Why, desk: &mut Desk) {
        if !matches!(why, Why::Left | Why::Restarted) {
            self.handle_host_missed(host);
        }
        let clients: Vec<ClientId> = self.records.keys().copied().collect();
        let mut notices = Vec::new();
        for client in clients {
            self.lose_counterparts(client, host, &mut notices, desk);
        }
        Self::deliver_all(notices, desk);
        self.settle_hosts(desk);
        self.take_turns(desk);
    }

    /// Another host, which is yet to be found, may have taken this one for gone.
    pub(in crate::cluster) fn handle_host_missed(&mut self, host: HostId) {
        if self.lost.len() < HOSTS_MAX {
            self.lost.insert(host);
        }
    }

    /// The clients of a host that is found again are looked for: from now on we hear of all that they do.
    pub(super) fn look_for(&mut self, host: HostId, desk: &mut Desk) {
        self.release(host);
        if self.lost.remove(&host) {
            // It may have taken ours for gone, and removed them.
            self.enqueue_all();
        }
        self.take_turns(desk);
    }

    /// A client of another host has come to one of ours.
    pub(super) fn meet_newcomer(&mut self, client: ClientId, who: ClientId, desk: &mut Desk) {
        match self.records.get(&client) {
            Some(record) if record.is_leaving => {}
            Some(_) => {
                if self.remember(client, &who.text()) {
                    Self::deliver(client, notice(JUST_CONNECTED, &who.text()), desk);
                }
            }
            // Its goodbye was before the other came, or was not for it.
            None => self.write(who.host(), Letter::Disconnected { to: who, gone: client }, desk),
        }
    }

    /// Has a client look once more when it is settled what has become of a host.
    pub(super) fn await_host(&mut self, client: ClientId, host: HostId, desk: &mut Desk) {
        let Some(record) = self.records.get_mut(&client) else { return };
        record.awaits.insert(host);
        let is_new = self.awaiting.entry(host).or_default().insert(client);
        if is_new && desk.hosts.relation(host).is_some() {
            self.write(host, Letter::Call, desk);
        }
    }

    /// Looks for the clients of the hosts that have turned out to be gone, to remove them.
    pub(super) fn settle_hosts(&mut self, desk: &mut Desk) {
        let hosts: Vec<HostId> = self.awaiting.keys().copied().collect();
        for host in hosts {
            match desk.maker_on(host) {
                // It was called, or will be.
                Maker::Neighbour(_) | Maker::Unreached(_) => {}
                Maker::Gone(_) | Maker::Foreign | Maker::Here => self.release(host),
            }
        }
    }

    /// Has those look once more that waited for this host.
    fn release(&mut self, host: HostId) {
        for client in self.awaiting.remove(&host).unwrap_or_default() {
            if let Some(record) = self.records.get_mut(&client) {
                record.awaits.remove(&host);
            }
            self.enqueue(client);
        }
    }

    /// All clients of a host have left for one of ours. What it is told is added to `notices`.
    fn lose_counterparts(
        &mut self,
        client: ClientId,
        host: HostId,
        notices: &mut Vec<(ClientId, Bytes)>,
        desk: &mut Desk,
    ) {
        let Some(record) = self.records.get_mut(&client) else { return };
        if record.phase == Phase::Looking {
            record.lost.insert(host);
        }
        let lost = record.forget_host(host);
        self.remembered -= lost.len();
        if !record.is_leaving {
            notices.extend(lost.iter().map(|name| (client, notice(DISCONNECTED, name))));
        }
        if !lost.is_empty() {
            self.await_host(client, host, desk);
        }
    }
}
