//! One end of a pipe whose partner is a client of another host: what it has yet to be sent, in which pieces, and how far
//! each side may go.

use bytes::Bytes;

use crate::cluster::pipes::{How, What};
use crate::id::ClientId;
use crate::limits::{PIPE_CHUNK_BYTES_MAX, PIPE_CREDIT_BYTES, PIPE_CREDIT_BYTES_MIN};
use crate::shard::pipes::Parting;
use crate::wire::frame::{Header, Opcode, SERVER_HEADER_LEN_MAX, ServerHeader};

/// One end's half of such a pipe.
#[derive(Debug)]
pub(in crate::shard) struct Distant {
    pub(super) partner: ClientId,
    is_raw: bool,
    /// What is to be sent to the partner, as it will go onto the wire there.
    pub(in crate::shard) unsent: Vec<u8>,
    /// How much of it was sent.
    taken: usize,
    /// Of the frame whose header stood before `taken`: the bytes of payload to come, and whether it ends its message.
    cut: Option<(usize, bool)>,
    /// Bytes that may be sent.
    credit: usize,
    /// Chunks that were sent, and that have come.
    sent: u64,
    received: u64,
    /// Bytes that have come of which no credit was given back.
    owed: usize,
    /// How this end has ended, to be said behind all that is unsent.
    end: Option<How>,
    has_said_end: bool,
}

impl Distant {
    /// The half of an end that has sent `kept` before it was joined with `partner`.
    pub(super) fn new(partner: ClientId, is_raw: bool, kept: Vec<u8>) -> Self {
        Self {
            partner,
            is_raw,
            unsent: kept,
            taken: 0,
            cut: None,
            credit: PIPE_CREDIT_BYTES,
            sent: 0,
            received: 0,
            owed: 0,
            end: None,
            has_said_end: false,
        }
    }

    /// What is to be said to the partner next, as far as there is credit.
    pub(super) fn poll(&mut self) -> Option<What> {
        let bytes = if self.is_raw { self.next_bytes() } else { self.next_frames() };
        if !bytes.is_empty() {
            self.credit -= bytes.len();
            self.sent += 1;
            return Some(What::Chunk { number: self.sent, bytes });
        }
        let how = self.end.filter(|_| self.has_sent_all() && !self.has_said_end)?;
        self.has_said_end = true;
        Some(What::End(how))
    }

    /// Whether nothing is left of what is to be sent. The buffer can be given back then.
    pub(super) fn has_sent_all(&self) -> bool {
        self.taken == self.unsent.len()
    }

    /// Drops what was sent from the buffer, which is given back if it is empty.
    pub(super) fn drop_sent(&mut self) -> Option<Vec<u8>> {
        let is_empty = self.has_sent_all();
        let taken = std::mem::take(&mut self.taken);
        if is_empty {
            return Some(std::mem::take(&mut self.unsent));
        }
        self.unsent.drain(..taken);
        None
    }

    /// This end has ended like this.
    pub(super) fn finish(&mut self, how: How) {
        self.end = Some(how);
    }

    /// Whether what it has said before is lost with it.
    pub(super) fn is_reset_by(&self, parting: Parting) -> bool {
        self.is_raw && parting == Parting::Lost
    }

    /// Whether the partner was told that this end has ended.
    pub(in crate::shard) fn has_said_end(&self) -> bool {
        self.has_said_end
    }

    /// The partner's host lets so many bytes more come. Never more than there were at first.
    pub(super) fn add_credit(&mut self, bytes: u32) {
        self.credit = self.credit.saturating_add(bytes as usize).min(PIPE_CREDIT_BYTES);
    }

    /// A chunk has come. False: it is not the next one, is more than was allowed, or has no whole frames.
    pub(super) fn receive(&mut self, number: u64, bytes: &[u8]) -> bool {
        let is_next = number == self.received + 1;
        self.received = number;
        self.owed += bytes.len();
        is_next && self.owed <= PIPE_CREDIT_BYTES && (self.is_raw || are_whole_frames(bytes))
    }

    /// The credit that is to be given back now that little waits here.
    pub(super) fn take_owed(&mut self) -> Option<u32> {
        (self.owed >= PIPE_CREDIT_BYTES_MIN).then(|| std::mem::take(&mut self.owed) as u32)
    }

    fn next_bytes(&mut self) -> Bytes {
        let len = self.credit.min(PIPE_CHUNK_BYTES_MAX).min(self.unsent.len() - self.taken);
        let bytes = Bytes::copy_from_slice(&self.unsent[self.taken..self.taken + len]);
        self.taken += len;
        bytes
    }

    /// Whole frames alone, so that whoever gets them may say something in between: one that is too long for a chunk
    /// becomes several.
    fn next_frames(&mut self) -> Bytes {
        let max = self.credit.min(PIPE_CHUNK_BYTES_MAX);
        let mut chunk = Vec::new();
        while chunk.len() + SERVER_HEADER_LEN_MAX < max {
            let (opcode, fin, left) = match self.cut {
                Some((left, fin)) => (Opcode::Continuation, fin, left),
                None => {
                    let Some((header, len)) = Header::parse(&self.unsent[self.taken..]) else { break };
                    self.taken += len;
                    let opcode = Opcode::from_bits(header.opcode_bits).unwrap_or(Opcode::Continuation);
                    (opcode, header.fin, header.payload_len as usize)
                }
            };
            let room = max - chunk.len() - SERVER_HEADER_LEN_MAX;
            let len = left.min(room);
            let is_last = len == left;
            chunk.extend_from_slice(ServerHeader::of_fragment(opcode, fin && is_last, len).as_bytes());
            chunk.extend_from_slice(&self.unsent[self.taken..self.taken + len]);
            self.taken += len;
            self.cut = (!is_last).then_some((left - len, fin));
        }
        chunk.into()
    }
}

/// Whether these bytes are data frames as a server writes them, and nothing else.
fn are_whole_frames(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let Some((header, len)) = Header::parse(bytes) else { return false };
        let Ok(end) = usize::try_from(header.payload_len).map(|payload_len| len.saturating_add(payload_len))
        else {
            return false;
        };
        let is_data = matches!(
            Opcode::from_bits(header.opcode_bits),
            Some(Opcode::Text | Opcode::Binary | Opcode::Continuation)
        );
        if !is_data || header.reserved != 0 || header.mask.is_some() || end > bytes.len() {
            return false;
        }
        bytes = &bytes[end..];
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{Entropy, HostId, ShardIndex, Slot};

    fn partner() -> ClientId {
        ClientId::new(HostId(2), ShardIndex(0), Slot(0), &mut Entropy::from_seed([1; 32]))
    }

    fn frame(opcode: Opcode, fin: bool, payload: &[u8]) -> Vec<u8> {
        [ServerHeader::of_fragment(opcode, fin, payload.len()).as_bytes(), payload].concat()
    }

    /// The payload of each message, and how many frames it took.
    fn messages(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let (mut messages, mut open) = (Vec::new(), None);
        while let Some((header, len)) = Header::parse(bytes) {
            let (payload, rest) = bytes[len..].split_at(header.payload_len as usize);
            bytes = rest;
            match (header.opcode_bits, &mut open) {
                (0, Some((_, message))) => extend(message, payload),
                (opcode @ 1..=2, None) => open = Some((opcode, payload.to_vec())),
                other => panic!("{other:?}"),
            }
            if header.fin {
                messages.extend(open.take());
            }
        }
        assert!(bytes.is_empty() && open.is_none());
        messages
    }

    fn extend(message: &mut Vec<u8>, payload: &[u8]) {
        message.extend_from_slice(payload);
    }

    proptest! {
        #[test]
        fn frames_go_over_as_whole_frames(
            lens in proptest::collection::vec(prop_oneof![0..200_usize, 16_300..16_400_usize, 0..70_000_usize], 0..12),
            is_text in any::<bool>(),
        ) {
            let opcode = if is_text { Opcode::Text } else { Opcode::Binary };
            let mut unsent = Vec::new();
            for (index, len) in lens.iter().enumerate() {
                // Every third message comes in two frames.
                let payload: Vec<u8> = (0..*len).map(|at| (at + index) as u8).collect();
                let (first, second) = payload.split_at(if index % 3 == 0 { len / 2 } else { *len });
                if index % 3 == 0 {
                    unsent.extend(frame(opcode, false, first));
                    unsent.extend(frame(Opcode::Continuation, true, second));
                } else {
                    unsent.extend(frame(opcode, true, first));
                }
            }
            let expected = messages(&unsent);
            let (mut here, mut there) =
                (Distant::new(partner(), false, unsent), Distant::new(partner(), false, Vec::new()));
            here.finish(How::Closed);
            let mut got = Vec::new();
            loop {
                match here.poll() {
                    Some(What::Chunk { number, bytes }) => {
                        prop_assert!(bytes.len() <= PIPE_CHUNK_BYTES_MAX);
                        prop_assert!(there.receive(number, &bytes));
                        got.extend_from_slice(&bytes);
                    }
                    Some(What::End(How::Closed)) => break,
                    None => {
                        here.drop_sent();
                        let credit = there.take_owed();
                        prop_assert!(credit.is_some(), "credit comes back before it is needed");
                        here.add_credit(credit.expect("some"));
                    }
                    other => panic!("{other:?}"),
                }
            }
            prop_assert_eq!(messages(&got), expected);
            prop_assert!(here.has_sent_all() && here.poll().is_none());
        }

        #[test]
        fn no_bytes_confuse_who_looks_for_frames(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            are_whole_frames(&bytes);
        }
    }

    #[test]
    fn raw_bytes_go_over_as_they_are() {
        let sent: Vec<u8> = (0..300_000).map(|at| (at % 251) as u8).collect();
        let mut here = Distant::new(partner(), true, sent.clone());
        let mut there = Distant::new(partner(), true, Vec::new());
        let mut got = Vec::new();
        while let Some(What::Chunk { number, bytes }) = here.poll() {
            assert!(there.receive(number, &bytes));
            got.extend_from_slice(&bytes);
        }
        assert_eq!(got.len(), PIPE_CREDIT_BYTES, "no more without credit");
        assert!(here.drop_sent().is_none());
        here.add_credit(there.take_owed().expect("all of it"));
        while let Some(What::Chunk { bytes, .. }) = here.poll() {
            got.extend_from_slice(&bytes);
        }
        assert!(got == sent && here.drop_sent().is_some());
    }

    #[test]
    fn what_may_not_come_is_noticed() {
        let whole = frame(Opcode::Text, true, b"x");
        let fresh = || Distant::new(partner(), false, Vec::new());
        assert!(fresh().receive(1, &whole));
        assert!(!fresh().receive(2, &whole), "a gap");
        let mut twice = fresh();
        assert!(twice.receive(1, &whole) && !twice.receive(1, &whole));
        let mut much = Distant::new(partner(), true, Vec::new());
        assert!((1..=16).all(|number| much.receive(number, &[0; PIPE_CHUNK_BYTES_MAX])));
        assert!(!much.receive(17, b"x"), "over its credit");
        for wrong in [
            &whole[..2],
            &[&whole[..], b"\x81"].concat(),
            &frame(Opcode::Ping, true, b""),
            &frame(Opcode::Close, true, b""),
            b"\x81\x80\0\0\0\0",
            b"\xc1\0",
            b"\x83\0",
            b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert!(!fresh().receive(1, wrong), "{wrong:?}");
        }
    }
}
