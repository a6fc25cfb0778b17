//! Two paired clients on one shard or two, driven without sockets.
#![allow(dead_code, reason = "each bench uses its part")]

use std::sync::Arc;

use parlor::id::{HostId, ShardIndex, Slot};
use parlor::limits::Limits;
use parlor::plant::Planted;
use parlor::protocol::pipe::Places;
use parlor::shard::mail::Mail;
use parlor::shard::{Offered, Settings, Shard};
use parlor::wire::frame::{HEADER_LEN_MAX, Header, Opcode};
use parlor::wire::mask::Mask;

/// A trickled candidate as browsers send it.
pub(crate) const ICE: &str = r#"{"type":"ice","candidate":{"candidate":"candidate:842163049 1 udp 1677729535 203.0.113.7 46154 typ srflx raddr 0.0.0.0 rport 0 generation 0 ufrag EsAw network-cost 999","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":"EsAw"}}"#;

const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// An offer of about 2 KB, its line ends escaped as JSON has them.
#[must_use]
pub(crate) fn sdp() -> String {
    let line = r"a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=rtcp-fb:111 transport-cc\r\n";
    format!(
        r#"{{"type":"offer","sdp":"v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\n{}"}}"#,
        line.repeat(20)
    )
}

/// A masked text frame.
#[must_use]
pub(crate) fn client_frame(payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let header = Header {
        fin: true,
        reserved: 0,
        opcode_bits: Opcode::Text as u8,
        mask: Some(mask),
        payload_len: payload.len() as u64,
    };
    let mut bytes = [0; HEADER_LEN_MAX];
    let len = header.emit(&mut bytes);
    let mut masked = payload.to_vec();
    Mask::new(mask).apply(&mut masked);
    [&bytes[..len], &masked].concat()
}

/// The server's defaults, with a rate out of reach.
#[must_use]
pub(crate) fn settings() -> Settings {
    Settings {
        host: HostId(1),
        shards: 2,
        limits: Limits { messages_per_second_max: u32::MAX, ..Limits::default() },
        offered: Offered::ALL,
        key_seed: [1, 2, 3, 4],
        held_pipes: Arc::new(Places::new(Limits::HELD_PIPES_MAX)),
        has_cluster: false,
        requeue_on_partner_leave: true,
        allowed_origins: Vec::new(),
        allow_no_origin: false,
        echo_path: None,
        planted: Planted::default(),
    }
}

/// Two clients that are paired.
pub(crate) struct Pair {
    shards: Vec<Shard>,
    /// Shard and slot.
    from: (usize, Slot),
    to: (usize, Slot),
    mail: Vec<(usize, Mail)>,
}

impl Pair {
    /// Both on one shard.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::on(0)
    }

    /// On two shards.
    #[must_use]
    pub(crate) fn across() -> Self {
        Self::on(1)
    }

    fn on(other: usize) -> Self {
        let settings = Arc::new(settings());
        let shard =
            |index: u8| Shard::new(ShardIndex(index), Arc::clone(&settings), Arc::default(), [index; 32], 0);
        let mut shards = vec![shard(0), shard(1)];
        let from = (0, open(&mut shards[0]));
        let to = (other, open(&mut shards[other]));
        let mut pair = Self { shards, from, to, mail: Vec::new() };
        for (shard, slot) in [from, to] {
            let mut available = client_frame(br#"{"type":"available"}"#);
            pair.shards[shard].handle_bytes(slot, &mut available, 0);
            pair.exchange();
        }
        pair.drain();
        let mut message = client_frame(ICE.as_bytes());
        assert!(pair.relay(&mut message) > ICE.len(), "they are paired");
        pair
    }

    /// Hands bytes of the one to its shard; returns how many bytes the other is sent.
    pub(crate) fn relay(&mut self, input: &mut [u8]) -> usize {
        self.shards[self.from.0].handle_bytes(self.from.1, input, 0);
        if self.from.0 != self.to.0 {
            self.exchange();
        }
        self.drain()
    }

    fn exchange(&mut self) {
        loop {
            for shard in &mut self.shards {
                shard.deliver_mail(|to, mail| {
                    self.mail.push((to.position(), mail));
                    Ok(())
                });
            }
            if self.mail.is_empty() {
                return;
            }
            for (to, mail) in self.mail.drain(..) {
                self.shards[to].handle_mail(mail, 0);
            }
        }
    }

    /// Takes all that is to be sent; returns how many bytes that were.
    fn drain(&mut self) -> usize {
        let mut sent = 0;
        for shard in &mut self.shards {
            while let Some(slot) = shard.poll_dirty() {
                let len = shard.gather(slot).iter().map(|piece| piece.len()).sum();
                shard.handle_sent(slot, len);
                sent += len;
            }
        }
        sent
    }
}

fn open(shard: &mut Shard) -> Slot {
    let slot = shard.handle_accept(0).expect("room");
    shard.handle_bytes(slot, &mut UPGRADE.to_vec(), 0);
    slot
}
