//! Ends of pipes: where they come from, and what they send.

use super::{End, Origin, Place};
use crate::simulator::behaviour::{Manner, Play};
use crate::simulator::client::frame;
use crate::simulator::connection::{Connection, Voice};
use crate::simulator::documents::{DOCUMENTS, IDS};
use crate::simulator::socket::ClientEnd;
use crate::wire::frame::Opcode;

/// Draws a place, and the target of the request that asks for it.
pub(in crate::simulator) fn connect(play: &mut Play<'_>) -> (End, String) {
    let chance = &mut *play.chance;
    let ids = if chance.one_in(3) { IDS.len() } else { 2 };
    let (me, mut other) = (chance.below(ids), chance.below(ids));
    if me == other && !chance.one_in(4) {
        other = (me + 1) % ids;
    }
    let document = if chance.one_in(4) { chance.below(DOCUMENTS.len()) } else { 0 };
    let is_raw = chance.percent(play.setup.raw_percent);
    let place = Place { me, other, document, is_raw };
    let word = chance.pick(&["connection", "connection", "connect", "Connection"]);
    let (to, from) = (IDS[other].in_path(chance), IDS[me].in_path(chance));
    let (about, slash) = (DOCUMENTS[document].in_path(chance), chance.pick(&["", "", "/"]));
    match chance.below(8) {
        0 => {
            let (local, about) = (IDS[me].in_query(), DOCUMENTS[document].in_query());
            let path = format!("/{word}/{to}{slash}?x=&local={local}&document={about}");
            (End::new(Origin::Place(place)), path)
        }
        1 if !is_raw => (End::new(Origin::Short(other)), format!("/{word}/{to}{slash}?local=&x=1")),
        _ => (End::new(Origin::Place(place)), format!("/{word}/{from}/{to}/{about}{slash}")),
    }
}

/// Sends something, or nothing.
pub(in crate::simulator) fn act(client: &mut Connection, manner: Manner, play: &mut Play<'_>) {
    let Voice::Pipe(end) = &client.voice else { return };
    let (is_raw, has_seen_end) = (end.is_raw(), end.has_seen_end);
    if is_raw && has_seen_end && play.chance.one_in(4) {
        return client.end(play.chance.pick(&[
            ClientEnd::HalfFinished,
            ClientEnd::HalfFinished,
            ClientEnd::Reset,
        ]));
    }
    let count = match manner {
        Manner::Flooding => play.chance.between(1..=3),
        Manner::Behaved | Manner::Clumsy | Manner::Forging => play.chance.below(3),
    };
    for _ in 0..count {
        let payload = payload(play);
        if is_raw {
            client.send_raw(&payload);
        } else {
            send_message(client, manner, &payload, play);
        }
    }
    if is_raw && play.chance.one_in(40) {
        client.end(ClientEnd::HalfFinished);
    }
}

/// Sends a message in one frame or in several, of which the last may have to wait.
fn send_message(client: &mut Connection, manner: Manner, payload: &[u8], play: &mut Play<'_>) {
    let chance = &mut *play.chance;
    let Voice::Pipe(end) = &mut client.voice else { return };
    let mut is_open = end.is_message_open;
    let is_text = std::str::from_utf8(payload).is_ok() && chance.one_in(2);
    let mut opcode = match (is_open, is_text) {
        // Goes on with a message of whatever kind, so it must be text.
        (true, _) => Opcode::Continuation,
        (false, true) => Opcode::Text,
        (false, false) => Opcode::Binary,
    };
    let payload = if is_open { b"and so on" } else { payload };
    let mut rest = payload;
    let frames = if chance.one_in(3) { chance.between(2..=4) } else { 1 };
    for left in (0..frames).rev() {
        let len = if left == 0 { rest.len() } else { chance.below(rest.len() + 1) };
        let (piece, after) = rest.split_at(len);
        rest = after;
        is_open = left > 0 || manner != Manner::Behaved && chance.one_in(8);
        client.emit(!is_open, opcode, piece, chance.mask());
        opcode = Opcode::Continuation;
        if chance.one_in(6) {
            client.ping(chance);
        }
    }
    if let Voice::Pipe(end) = &mut client.voice {
        end.is_message_open = is_open;
    }
}

/// Bytes that nobody else sends, of lengths around those at which the server changes its ways.
fn payload(play: &mut Play<'_>) -> Vec<u8> {
    let chance = &mut *play.chance;
    let len = match chance.below(20) {
        0 => 0,
        1..=10 => chance.below(200),
        11..=14 => chance.between(100..=1_200),
        15..=18 => chance.between(3_000..=9_000),
        _ if play.setup.is_bulk => chance.between(60_000..=200_000),
        _ => chance.between(10_000..=30_000),
    };
    let tag: [u8; 8] = chance.bytes();
    let mut bytes = match chance.below(3) {
        0 => tag.repeat(len / 8 + 1),
        1 => format!("é{:x}\u{10348}", u64::from_ne_bytes(tag)).into_bytes().repeat(len / 16 + 1),
        _ => format!("{:x}", u64::from_ne_bytes(tag)).into_bytes().repeat(len / 8 + 1),
    };
    let mut len = len.min(bytes.len());
    // Text stays text.
    while std::str::from_utf8(&bytes[..len]).is_err() && std::str::from_utf8(&bytes).is_ok() {
        len -= 1;
    }
    bytes.truncate(len);
    bytes
}

/// Breaks the protocol in the middle of a message: its first bytes may be passed on.
pub(in crate::simulator) fn violate(client: &mut Connection, mask: [u8; 4]) {
    let Voice::Pipe(end) = &client.voice else { return };
    if end.is_message_open {
        return client.violate(1002, &frame(true, Opcode::Text, b"{}", mask));
    }
    client.violate(1007, b"");
    client.emit(true, Opcode::Text, b"{\"type\":\"\xff\"}", mask);
}
