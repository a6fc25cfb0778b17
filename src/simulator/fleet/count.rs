//! What a run has seen.

use super::Fleet;
use super::client::Voice;

impl Fleet {
    /// Adds up what the clients have heard and what the hosts have counted.
    pub(super) fn count(&mut self) {
        let summary = &mut self.summary;
        summary.add_to("runs", 1);
        summary.add_to("clients", self.clients.len() as u64);
        for client in &self.clients {
            match &client.voice {
                Voice::Pairing(chat) => {
                    summary.add_to("matches", chat.matches);
                    summary.add_to("frames_relayed", chat.relayed);
                }
                Voice::Rendezvous(role) => {
                    summary.add_to("confirmations", role.confirmations());
                    summary.add_to("missing", role.missing);
                }
                Voice::Directory(named) => {
                    summary.add_to("logins", u64::from(named.name.is_some()));
                    summary.add_to("from_peers", named.from_peers);
                }
                Voice::Rooms(guest) => {
                    summary.add_to("rooms_joined", guest.joined);
                    summary.add_to("signals", guest.signals);
                }
                Voice::Introductions(peer) => summary.add_to("introductions", peer.introductions),
                Voice::Pipes(end) => {
                    summary.add_to("pipes_joined", u64::from(end.heard > 0));
                    summary.add_to("pipe_messages", end.heard);
                }
            }
        }
        for host in self.hosts.iter().flatten() {
            let counters = &host.metrics.counters;
            summary.add_to("letters_received", counters.letters_received.value());
            summary.add_to("relations_ended", counters.relations_ended.value());
        }
    }
}
