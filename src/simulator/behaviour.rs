//! Clients of all dialects: those that behave, those that are clumsy, those that are hostile. What they say is their
//! dialect's business.

use super::chance::Chance;
use super::client::{frame, raw_frame, upgrade, upgrade_raw};
use super::connection::{Connection, Voice};
use super::setup::{Setup, Spoken};
use super::socket::ClientEnd;
use super::{introductions, lobby, pairing, pipes, rendezvous};
use crate::limits::DIRECTORY_MESSAGE_BYTES_MAX;
use crate::wire::frame::{Header, Opcode};

/// What a client that acts can make use of.
pub(super) struct Play<'a> {
    pub(super) chance: &'a mut Chance,
    pub(super) setup: &'a Setup,
    /// Ids of rooms that somebody was told of.
    pub(super) room_ids: &'a [u16],
    /// The id of some client that lives or lived.
    pub(super) stranger: String,
}

impl Play<'_> {
    /// Text for a string in JSON, mostly of at most so many bytes.
    pub(super) fn padding(&mut self, most: usize) -> String {
        let most = if self.chance.one_in(40) { 30_000 } else { most };
        let most = most.min(self.setup.settings.limits.message_bytes_max.saturating_sub(500));
        let padding = self.chance.pick(&["x", "é", "\\n", "\\u0041", "\\ud800"]);
        padding.repeat(self.chance.below(most + 1) / padding.len())
    }
}

/// How a client speaks its dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Behaved,
    /// Says what makes no sense, too.
    Clumsy,
    /// Says that its messages come from somebody else.
    Forging,
    /// Says more than it may.
    Flooding,
}

/// What a hostile client is up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attack {
    /// Breaks RFC 6455.
    Violation,
    /// Says a lot and never reads.
    NeverReads,
    /// Begins a frame and never ends it.
    HalfFrame,
    /// Sends pings without end.
    PingFlood,
    /// Never answers a close.
    IgnoresClose,
    /// Says that its messages come from somebody else.
    Forgery,
    /// Sends a head that is none, or that never ends.
    BadHead,
    /// Asks for pages, one after the other without waiting.
    Requests,
    /// Says more than it may.
    Flood,
}

const ATTACKS: [Attack; 9] = [
    Attack::Violation,
    Attack::NeverReads,
    Attack::HalfFrame,
    Attack::PingFlood,
    Attack::IgnoresClose,
    Attack::Forgery,
    Attack::BadHead,
    Attack::Requests,
    Attack::Flood,
];

/// How a player behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    Behaved,
    Clumsy,
    Hostile(Attack),
    /// Behaves, and relays more than rings hold.
    Flooder,
}

impl Behaviour {
    pub(super) fn draw(chance: &mut Chance, setup: &Setup) -> Self {
        let percent = chance.below(100);
        if setup.is_flood && percent < 60 {
            Self::Flooder
        } else if percent < setup.hostile_percent {
            Self::Hostile(chance.pick(&ATTACKS))
        } else if percent < setup.hostile_percent + setup.clumsy_percent {
            Self::Clumsy
        } else {
            Self::Behaved
        }
    }

    /// The client has just connected.
    pub(super) fn connect(self, client: &mut Connection, path: &str, chance: &mut Chance) {
        client.never_reads = self == Self::Hostile(Attack::NeverReads);
        client.ignores_close = self == Self::Hostile(Attack::IgnoresClose);
        client.reader.is_raw = client.is_raw();
        match self {
            Self::Hostile(Attack::BadHead) => bad_head(client, chance),
            Self::Hostile(Attack::Requests) => {}
            Self::Behaved | Self::Clumsy | Self::Hostile(_) | Self::Flooder => {
                if !client.is_pairing() && chance.one_in(12) {
                    ask_for_page(client, chance.pick(&["/clients", "/healthz"]));
                }
                client.unsent = if client.is_raw() { upgrade_raw(path) } else { upgrade(path, "13") };
                client.has_upgraded = true;
                let first = if chance.one_in(3) { chance.below(client.unsent.len()) } else { usize::MAX };
                client.send_head(first);
            }
        }
    }

    /// The client does something, or nothing.
    pub(super) fn act(self, client: &mut Connection, play: &mut Play<'_>) {
        if !client.unsent.is_empty() {
            return client.send_head(play.chance.between(1..=200));
        }
        match self {
            Self::Behaved => act(client, Manner::Behaved, play),
            Self::Clumsy => act(client, Manner::Clumsy, play),
            Self::Hostile(attack) => attack.act(client, play),
            Self::Flooder => pairing::flood(client, play.chance, play.setup),
        }
    }
}

impl Attack {
    fn act(self, client: &mut Connection, play: &mut Play<'_>) {
        let chance = &mut *play.chance;
        let is_raw = client.is_raw();
        match self {
            Self::Violation if chance.one_in(10) && !is_raw => violate(client, chance, play.setup),
            Self::HalfFrame if chance.one_in(12) && !is_raw => half_frame(client, chance),
            Self::PingFlood => (0..chance.below(30)).for_each(|_| client.ping(chance)),
            Self::Requests => request(client, chance),
            Self::NeverReads if chance.one_in(3) && client.is_pairing() => {
                (0..chance.below(20)).for_each(|_| pairing::ask_pong(client, chance));
            }
            Self::BadHead if chance.one_in(40) => client.end(ClientEnd::Reset),
            Self::BadHead => {}
            Self::Forgery => act(client, Manner::Forging, play),
            Self::Flood => act(client, Manner::Flooding, play),
            Self::IgnoresClose if chance.one_in(15) && !is_raw => violate(client, chance, play.setup),
            Self::Violation | Self::HalfFrame | Self::NeverReads | Self::IgnoresClose => {
                act(client, Manner::Behaved, play);
            }
        }
    }
}

/// What a new client speaks, and the target of the request that asks for it.
pub(super) fn draw_voice(spoken: Spoken, play: &mut Play<'_>) -> (Voice, String) {
    match spoken {
        Spoken::Pairing => {
            let account = pairing::Account::new(play.setup.settings.requeue_on_partner_leave);
            (Voice::Pairing(Box::new(account)), pairing::path(play.chance))
        }
        Spoken::Rendezvous => {
            let (client, path) = rendezvous::connect(play);
            (Voice::Rendezvous(client), path)
        }
        Spoken::Directory | Spoken::Rooms => {
            let (client, path) = lobby::connect(spoken == Spoken::Rooms, play);
            (Voice::Lobby(client), path)
        }
        Spoken::Introductions => {
            let (client, path) = introductions::connect(play);
            (Voice::Introductions(client), path)
        }
        Spoken::Pipes => {
            let (end, path) = pipes::connect(play);
            (Voice::Pipe(Box::new(end)), path)
        }
    }
}

fn act(client: &mut Connection, manner: Manner, play: &mut Play<'_>) {
    if client.is_pairing() {
        return pairing::act(client, manner, play.chance, play.setup);
    }
    if end(client, manner, play.chance) || !client.is_open && !play.chance.one_in(4) {
        return;
    }
    match &client.voice {
        Voice::Rendezvous(_) => rendezvous::act(client, manner, play),
        Voice::Lobby(_) => lobby::act(client, manner, play),
        Voice::Introductions(_) => introductions::act(client, manner, play),
        Voice::Pipe(_) => pipes::act(client, manner, play),
        Voice::Pairing(_) => {}
    }
}

/// The client may leave, or say what means the same in all dialects; says whether it did.
fn end(client: &mut Connection, manner: Manner, chance: &mut Chance) -> bool {
    let is_clumsy = manner == Manner::Clumsy;
    match chance.below(150) {
        0 => client.close(chance.pick(&[Some(1000), Some(1001), Some(3999), Some(1014), None]), chance),
        1 => client.end(chance.pick(&[ClientEnd::Finished, ClientEnd::Reset])),
        2 => client.ping(chance),
        3 if is_clumsy => client.pong(b"unasked", chance),
        4 if is_clumsy => {
            client.end(chance.pick(&[ClientEnd::Silent, ClientEnd::Finished, ClientEnd::Reset]));
        }
        5 if is_clumsy => client.close(Some(4999), chance),
        _ => return false,
    }
    true
}

fn bad_head(client: &mut Connection, chance: &mut Chance) {
    let bytes = match chance.below(10) {
        0 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        1 => upgrade("/nowhere", "13"),
        2 => upgrade("/%zz", "13"),
        3 => upgrade("/ws", "8"),
        4 => b"GET /ws HTTP/1.1\r\nHost: ".to_vec(),
        5 => [b"GET / HTTP/1.1\r\nA: ".as_slice(), &[b'a'; 9_000]].concat(),
        6 => Vec::new(),
        7 => upgrade("/connection/A/B/doc1/more", "13"),
        8 => upgrade_raw("/introduction/A"),
        _ => b"HELLO\r\n\r\n".to_vec(),
    };
    client.socket.send(&bytes);
    client.is_mute = true;
}

fn ask_for_page(client: &mut Connection, path: &str) {
    client.socket.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    client.requests += 1;
}

fn request(client: &mut Connection, chance: &mut Chance) {
    if client.is_mute {
        return;
    }
    for _ in 0..chance.below(4) {
        ask_for_page(client, chance.pick(&["/healthz", "/clients"]));
    }
    if chance.one_in(20) {
        client.socket.send(b"GET / HTTP/1.0\r\n\r\n");
        client.is_mute = true;
    }
}

fn half_frame(client: &mut Connection, chance: &mut Chance) {
    let opcode = match &client.voice {
        Voice::Pipe(end) if end.is_message_open() => Opcode::Continuation,
        _ => Opcode::Text,
    };
    let payload = [b' '; 500];
    let header = Header {
        fin: chance.one_in(2),
        reserved: 0,
        opcode_bits: opcode as u8,
        mask: Some(chance.mask()),
        payload_len: payload.len() as u64,
    };
    client.emit_part(header, &payload, chance.between(1..=400));
    client.is_mute = true;
}

fn violate(client: &mut Connection, chance: &mut Chance, setup: &Setup) {
    let limits = &setup.settings.limits;
    let mask = chance.mask();
    let good = Header { fin: true, reserved: 0, opcode_bits: 1, mask: Some(mask), payload_len: 2 };
    let too_long = limits.message_bytes_max.max(DIRECTORY_MESSAGE_BYTES_MAX) as u64 + 1;
    // A pipe streams: nothing is too long, and a message may be open.
    let kind = chance.below(if client.is_pipe() { 8 } else { 13 });
    let (code, bytes) = match kind {
        0 => (1002, raw_frame(Header { mask: None, ..good }, b"{}")),
        1 => (1002, raw_frame(Header { reserved: 0x40, ..good }, b"{}")),
        2 => (1002, raw_frame(Header { opcode_bits: 5, ..good }, b"{}")),
        3 => (1002, frame(false, Opcode::Ping, b"", mask)),
        4 => (1002, frame(true, Opcode::Ping, &[0; 126], mask)),
        5 => (1002, frame(true, Opcode::Close, &1005u16.to_be_bytes(), mask)),
        6 => (1002, frame(true, Opcode::Close, b"\x03", mask)),
        7 => (1002, raw_frame(Header { payload_len: u64::MAX, ..good }, b"{")),
        8 => (1002, frame(true, Opcode::Continuation, b"{}", mask)),
        9 => {
            let first = frame(false, Opcode::Text, b"{", mask);
            (1002, [first, frame(true, Opcode::Text, b"}", mask)].concat())
        }
        10 => (1007, frame(true, Opcode::Text, b"{\"type\":\"\xff\"}", mask)),
        11 => (1009, raw_frame(Header { payload_len: too_long, ..good }, b"{")),
        _ => {
            let mut flood = frame(false, Opcode::Text, b"", mask);
            let more = frame(false, Opcode::Continuation, b"", mask);
            (0..limits.fragments_max).for_each(|_| flood.extend_from_slice(&more));
            (1009, flood)
        }
    };
    if client.is_pipe() && chance.one_in(4) {
        pipes::violate(client, mask);
    } else {
        client.violate(code, &bytes);
        // The answer to the server's close must still be found behind it, unless a frame was left open.
        client.is_garbled |= matches!(kind, 7 | 11);
    }
    client.is_mute |= chance.one_in(2) || client.ignores_close;
}
