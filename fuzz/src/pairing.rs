//! The judge of pairing: what a client has been told of its partner is what the server believed at the time, after
//! each step; no frame comes from anybody else; once mail is through, pairs are pairs from both sides and who waits
//! is in the queue.

use parlor::id::{ClientId, RoomId, TEXT_LEN};
use parlor::protocol::pairing::State;
use parlor::shard::Shard;
use parlor::shard::clients::{Client, Stage};
use parlor::shard::dialects::Dialect;
use parlor::wire::frame::Opcode;

use crate::wire::{Manner, Reading};
use crate::world::{Asked, Host, Judge, Step};

/// Who a client is in a room with.
type Partner = Option<(RoomId, ClientId)>;

/// The server's word.
#[derive(Debug, Default)]
pub struct Pairing {
    /// Of each peer: positions in all that was and will be sent, and whom the server had paired it with when it stood
    /// there.
    marks: Vec<Vec<(usize, Partner)>>,
}

/// What the client knows by what it has read.
#[derive(Debug, Default)]
struct View {
    is_ready: bool,
    /// Room and partner, in text.
    partner: Option<(Vec<u8>, Vec<u8>)>,
}

impl Judge for Pairing {
    fn observe(&mut self, _step: Step<'_>, shard: usize, _asked: &[Asked], host: &mut Host) {
        self.marks.resize(host.peers.len(), Vec::new());
        for (at, marks) in self.marks.iter_mut().enumerate() {
            let peer = &host.peers[at];
            if peer.shard != shard || !peer.is_there() || peer.is_cut {
                continue;
            }
            let client = host.client(at).expect("who is there is in the table");
            let mark = (peer.received.len() + client.outbox.len(), partner(client));
            if marks.last() != Some(&mark) {
                marks.push(mark);
            }
        }
    }

    fn check_quiet(&self, host: &Host) {
        let clients = || host.shards.iter().flat_map(|shard| shard.clients().iter());
        for one in clients() {
            let Some((room, other)) = partner(one) else { continue };
            let other = clients().find(|client| client.id == other).and_then(partner);
            assert_eq!(other, Some((room, one.id)), "paired, but not the other way round");
        }
        let waiting: Vec<ClientId> =
            clients().filter(|one| pairing(one).is_some_and(State::is_waiting)).map(|one| one.id).collect();
        let queue: Vec<ClientId> = host.shards.iter().filter_map(Shard::waiting_in_queue).collect();
        assert_eq!(waiting, queue, "those who wait, and the queue");
        assert!(queue.len() <= 1, "two wait who are not matched");
    }

    fn finish(&mut self, host: &mut Host) {
        for (peer, marks) in host.peers.iter().zip(&self.marks) {
            let reading = Reading::new(&peer.received, Manner::Messages);
            assert!(
                peer.is_gone || peer.is_cut || reading.end == peer.received.len(),
                "what was sent ends in the middle"
            );
            check(&reading, marks, peer.id);
        }
    }
}

fn check(reading: &Reading<'_>, marks: &[(usize, Partner)], me: ClientId) {
    let (mut view, mut marks) = (View::default(), marks.iter().peekable());
    let mut agree_until = |view: &mut View, at: usize| {
        while let Some((position, partner)) = marks.next_if(|(position, _)| *position <= at) {
            let is_between = *position == at || partner.is_none();
            assert!(is_between, "the server's word came in the middle of a frame");
            view.agree(*partner);
        }
    };
    for frame in &reading.frames {
        agree_until(&mut view, frame.at);
        if frame.opcode == Opcode::Text {
            view.read(frame.payload, &me.text());
        }
    }
    agree_until(&mut view, reading.end);
}

impl View {
    /// The server has the client with this partner: it must have been told so. That there is none it need not be told,
    /// since it may have left by itself.
    fn agree(&mut self, partner: Partner) {
        match partner {
            Some((room, partner)) => {
                let expected = Some((room.text().to_vec(), partner.text().to_vec()));
                assert_eq!(self.partner, expected, "the server's word and the client's");
            }
            None => self.partner = None,
        }
    }

    fn read(&mut self, message: &[u8], me: &[u8]) {
        if let Some(id) = message.strip_prefix(br#"{"type":"ready","clientId":""#) {
            assert!(!self.is_ready && id == [me, b"\"}"].concat());
            self.is_ready = true;
        }
        assert!(self.is_ready, "nothing comes before ready");
        if let Some(rest) = message.strip_prefix(br#"{"type":"matched","roomId":""#) {
            let (room, rest) = rest.split_at(TEXT_LEN);
            let partner = rest.strip_prefix(br#"","partnerId":""#).and_then(|rest| rest.strip_suffix(b"\"}"));
            let partner = partner.expect("a partner").to_vec();
            assert_ne!(partner, me, "matched with itself");
            self.partner = Some((room.to_vec(), partner));
        } else if message == br#"{"type":"partner-left"}"# {
            assert!(self.partner.take().is_some(), "a partner left whom there was not");
        } else if let Some(from) = sender(message) {
            let partner = self.partner.as_ref().map(|(_, partner)| partner.as_slice());
            assert_eq!(Some(from), partner, "somebody's frame who is not the partner");
        }
    }
}

/// Who a relayed message is from.
fn sender(message: &[u8]) -> Option<&[u8]> {
    let heads: [&[u8]; 3] =
        [br#"{"type":"offer","from":""#, br#"{"type":"answer","from":""#, br#"{"type":"ice","from":""#];
    heads.iter().find_map(|head| message.strip_prefix(*head)).map(|rest| &rest[..TEXT_LEN])
}

fn pairing(client: &Client) -> Option<&State> {
    match &client.stage {
        Stage::Open(Dialect::Pairing(state)) => Some(state),
        _ => None,
    }
}

fn partner(client: &Client) -> Partner {
    pairing(client).and_then(State::partner)
}
