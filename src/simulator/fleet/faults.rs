//! What goes wrong in a run: Redis is away, connections are cut, hosts stand still, stop and are killed.

use super::Fleet;
use super::host::Host;
use crate::id::HostId;
use crate::simulator::world::trace;

impl Fleet {
    /// Something goes wrong.
    pub(super) fn fault(&mut self) {
        let at = self.chance.below(self.hosts.len());
        let now_ms = self.now_ms;
        let again_ms = now_ms + self.chance.pick(&[1, 50, 500, 3_000, 8_000]);
        let until = match self.chance.below(11) {
            0 => {
                self.summary.add_to("redis_restarts", 1);
                self.redis.restart();
                self.lose_redis(again_ms);
                again_ms
            }
            1 => {
                self.summary.add_to("redis_absences", 1);
                self.lose_redis(again_ms);
                again_ms
            }
            2 | 3 => self.cut(at, again_ms),
            4 => {
                self.summary.add_to("pauses", 1);
                let until = now_ms + self.chance.pick(&[100, 1_000, 3_500, 6_000, 20_000]);
                if let Some(host) = &mut self.hosts[at] {
                    host.paused_until_ms = until;
                }
                until
            }
            5 => self.kill(at),
            7 => {
                self.summary.add_to("losses", 1);
                let until = now_ms + self.chance.pick(&[10, 100, 1_500]);
                if let Some(host) = &mut self.hosts[at] {
                    host.links.lossy_until_ms = until;
                }
                until
            }
            6 => self.stop(at),
            _ => {
                if self.hosts[at].is_none() {
                    self.start(at);
                }
                now_ms
            }
        };
        trace!(self, "{now_ms} a fault with host {at} until {until}");
        self.fault_ms = self.fault_ms.max(until);
    }

    fn lose_redis(&mut self, again_ms: u64) {
        self.redis_back_ms = again_ms;
        for host in self.hosts.iter_mut().flatten() {
            host.links.lose_commands(again_ms);
            host.links.lose_subscriptions(&mut self.redis, again_ms);
        }
    }

    /// One of a host's connections is cut.
    fn cut(&mut self, at: usize, again_ms: u64) -> u64 {
        self.summary.add_to("connections_cut", 1);
        if let Some(host) = &mut self.hosts[at] {
            if self.chance.one_in(2) {
                host.links.lose_commands(again_ms);
            } else {
                host.links.lose_subscriptions(&mut self.redis, again_ms);
            }
        }
        again_ms
    }

    /// A host is gone without a word; what it has said may be on its way.
    pub(super) fn kill(&mut self, at: usize) -> u64 {
        let Some(mut host) = self.hosts[at].take() else { return self.now_ms };
        self.summary.add_to("kills", 1);
        trace!(self, "{} host {at} is killed", self.now_ms);
        if self.chance.one_in(2) {
            while host.links.serve(&mut self.redis, u64::MAX, 0) {}
        }
        host.links.lose_subscriptions(&mut self.redis, 0);
        self.spread();
        for client in self.clients.iter_mut().filter(|client| client.host == at && client.is_there()) {
            client.over_ms = Some(self.now_ms);
        }
        self.now_ms
    }

    /// A host stops in order.
    fn stop(&mut self, at: usize) -> u64 {
        let is_running = self.hosts[at].as_ref().is_some_and(|host| host.is_running(self.now_ms));
        if !is_running {
            return self.now_ms;
        }
        self.summary.add_to("stops", 1);
        let late_ms = self.late_ms();
        if let Some(host) = &mut self.hosts[at] {
            host.shut_down(late_ms, self.now_ms);
        }
        for shard in 0..self.setup.shards {
            self.settle(at, shard);
            self.send(at, shard);
        }
        // Its last words are said.
        for _ in 0..20 {
            self.turn_host(at);
            self.now_ms += 5;
        }
        self.kill(at)
    }

    pub(super) fn start(&mut self, at: usize) {
        let id = HostId(u32::from_ne_bytes(self.chance.bytes()));
        self.listeners += 1;
        let host = Host::new(id, self.listeners, &self.setup, &mut self.chance, self.now_ms);
        trace!(self, "{} host {at} starts as {id}", self.now_ms);
        self.hosts[at] = Some(host);
    }
}
