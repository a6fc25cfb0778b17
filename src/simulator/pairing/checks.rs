//! What must hold of pairing in the whole world (docs/ARCHITECTURE.md, "What must hold, always").

use super::account::Standing;
use crate::id::{ClientId, Text};
use crate::shard::Shard;
use crate::shard::clients::{Client, Stage};
use crate::shard::dialects::Dialect;
use crate::simulator::checks::{client_at, fail};
use crate::simulator::connection::Voice;
use crate::simulator::world::World;

/// Where the server has a client.
pub(in crate::simulator) fn standing(client: &Client) -> Standing {
    match &client.stage {
        Stage::Head(_) | Stage::Answering(_) => Standing::Head,
        Stage::Open(Dialect::Pairing(state)) => match state.room() {
            Some(room) => Standing::Paired(room.text()),
            None if state.is_waiting() => Standing::Waiting,
            None => Standing::Idle,
        },
        Stage::Open(_) => Standing::Idle,
        Stage::Moving | Stage::Closing | Stage::Finishing | Stage::Finished | Stage::Cut => Standing::Closed,
    }
}

fn partner(client: &Client) -> Option<(Text, ClientId)> {
    match &client.stage {
        Stage::Open(Dialect::Pairing(state)) => state.partner().map(|(room, partner)| (room.text(), partner)),
        _ => None,
    }
}

impl World {
    /// Nobody is matched with one who is gone for longer than it takes to notice.
    pub(in crate::simulator) fn check_partners(&self, shard: usize) {
        for client in self.shards[shard].clients().iter() {
            if let Some((_, partner)) = partner(client)
                && self.gone.contains(&partner)
            {
                fail(format!("{:?} is matched with {partner:?}, who is gone", client.id));
            }
        }
    }

    /// What holds when no mail is under way.
    pub(in crate::simulator) fn check_quiet(&self) {
        let clients: Vec<&Client> = self.shards.iter().flat_map(|shard| shard.clients().iter()).collect();
        for client in &clients {
            let Some((room, partner_id)) = partner(client) else { continue };
            let other = clients.iter().find(|other| other.id == partner_id);
            if other.and_then(|other| partner(other)) != Some((room, client.id)) {
                fail(format!("{:?} is paired with {partner_id:?}, but not the other way round", client.id));
            }
        }
        let waiting: Vec<ClientId> = clients
            .iter()
            .filter(|client| standing(client) == Standing::Waiting)
            .map(|client| client.id)
            .collect();
        let queue: Vec<ClientId> = self.shards.iter().filter_map(Shard::waiting_in_queue).collect();
        if waiting != queue || queue.len() > 1 || self.shards[0].waiting_in_queue() != queue.first().copied()
        {
            fail(format!("{waiting:?} wait, in the queue is {queue:?}"));
        }
        for connection in self.connections.iter().filter(|connection| !connection.is_gone) {
            if let Voice::Pairing(account) = &connection.voice
                && let Some(client) = client_at(&self.shards[connection.shard], connection.slot)
            {
                account.check_idle(standing(client));
            }
        }
    }
}
