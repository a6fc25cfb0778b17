//! Ids of clients and rooms, and the randomness that they are made of.
//!
//! A client id says where its client lives (host, shard, slot), so routing needs no table; its other 58 bits are
//! random, so nobody guesses one and a stale one finds nobody. Both kinds of id are printed as a v4 UUID in lower
//! case, the shape that old clients validate (protocols.md, introduction).

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use uuid::Uuid;

/// Length of an id in text: 32 hex digits and 4 dashes.
pub const TEXT_LEN: usize = 36;
/// Text of an id, lower case ASCII.
pub type Text = [u8; TEXT_LEN];

/// The 58 random bits at the low end of a client id.
const RANDOM_MASK: u128 = (1 << 58) - 1;
/// Bits of a v4 UUID that are fixed: version 4 and variant 10.
const V4_MASK: u128 = (0xf << 76) | (0b11 << 62);
const V4_BITS: u128 = (0x4 << 76) | (0b10 << 62);

/// A source of random numbers that is seeded from outside: the pure half draws nothing from the system, so a
/// simulation replays. Cryptographically strong (ids must not be guessable).
#[derive(Debug)]
pub struct Entropy(StdRng);

impl Entropy {
    /// Takes 32 bytes of seed: from the system in a server, from the run's seed in a simulation.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(StdRng::from_seed(seed))
    }

    /// Draws 128 random bits.
    pub fn draw_u128(&mut self) -> u128 {
        (u128::from(self.0.next_u64()) << 64) | u128::from(self.0.next_u64())
    }

    /// Draws a number below `bound`, each with the same chance. `bound` is at least 1.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0.random_range(..bound)
    }
}

/// The random name of one start of one host, the first 32 bits of its clients' ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub u32);

impl HostId {
    /// Reads the 8 hex digits that its `Display` gives, and no other spelling.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let is_plain = text.len() == 8 && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let text = std::str::from_utf8(text).ok().filter(|_| is_plain)?;
        u32::from_str_radix(text, 16).ok().map(Self)
    }
}

impl std::fmt::Display for HostId {
    /// 8 hex digits.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// One shard of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardIndex(pub u8);

impl ShardIndex {
    /// The index as a position in a list of shards.
    #[must_use]
    pub fn position(self) -> usize {
        usize::from(self.0)
    }
}

/// A connection as a shard's table knows it: valid until the connection is gone, then used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// Who a client is: host 32 bits, shard 8, slot 24, random 58.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(u128);

impl ClientId {
    /// Makes the id of the client in `slot` of `shard`; only the low 24 bits of the slot are kept
    /// ([`crate::limits::CLIENTS_PER_SHARD_MAX`] sees to it that there are no others).
    #[must_use]
    pub fn new(host: HostId, shard: ShardIndex, slot: Slot, entropy: &mut Entropy) -> Self {
        let place = (u128::from(host.0) << 32) | (u128::from(shard.0) << 24) | u128::from(slot.0 & 0xff_ffff);
        Self(spread((place << 58) | (entropy.draw_u128() & RANDOM_MASK)))
    }

    /// Reads an id in the text that [`ClientId::text`] gives, and in no other spelling.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let uuid = Uuid::try_parse_ascii(text).ok()?;
        let id = Self(uuid.as_u128());
        (id.text() == text).then_some(id)
    }

    /// The host that made this id.
    #[must_use]
    pub fn host(self) -> HostId {
        HostId((gather(self.0) >> 90) as u32)
    }

    /// The shard of that host where the client lives.
    #[must_use]
    pub fn shard(self) -> ShardIndex {
        ShardIndex((gather(self.0) >> 82) as u8)
    }

    /// The slot of that shard. Another client may live there by now: compare the whole id.
    #[must_use]
    pub fn slot(self) -> Slot {
        Slot((gather(self.0) >> 58) as u32 & 0xff_ffff)
    }

    /// The id in text.
    #[must_use]
    pub fn text(self) -> Text {
        text(self.0)
    }

    /// The id as a number, for [`ClientId::from_bits`].
    #[must_use]
    pub fn to_bits(self) -> u128 {
        self.0
    }

    /// The id of a number; none if that does not have the shape of a v4 UUID.
    #[must_use]
    pub fn from_bits(bits: u128) -> Option<Self> {
        has_v4_shape(bits).then_some(Self(bits))
    }
}

/// A room of two partners: 122 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomId(u128);

impl RoomId {
    /// Draws a new room id.
    pub fn new(entropy: &mut Entropy) -> Self {
        Self((entropy.draw_u128() & !V4_MASK) | V4_BITS)
    }

    /// Reads an id in the text that [`RoomId::text`] gives, and in no other spelling.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let id = Self::from_bits(Uuid::try_parse_ascii(text).ok()?.as_u128())?;
        (id.text() == text).then_some(id)
    }

    /// The id in text.
    #[must_use]
    pub fn text(self) -> Text {
        text(self.0)
    }

    /// The id as a number, for [`RoomId::from_bits`].
    #[must_use]
    pub fn to_bits(self) -> u128 {
        self.0
    }

    /// The id of a number; none if that does not have the shape of a v4 UUID.
    #[must_use]
    pub fn from_bits(bits: u128) -> Option<Self> {
        has_v4_shape(bits).then_some(Self(bits))
    }
}

impl std::fmt::Debug for ClientId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", Uuid::from_u128(self.0))
    }
}

impl std::fmt::Debug for RoomId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", Uuid::from_u128(self.0))
    }
}

/// Lays 122 bits around the fixed bits of a v4 UUID.
fn spread(bits: u128) -> u128 {
    let low = bits & ((1 << 62) - 1);
    let middle = (bits >> 62) & 0xfff;
    let high = bits >> 74;
    (high << 80) | (middle << 64) | low | V4_BITS
}

/// Takes the 122 bits out again.
fn gather(uuid: u128) -> u128 {
    let low = uuid & ((1 << 62) - 1);
    let middle = (uuid >> 64) & 0xfff;
    let high = uuid >> 80;
    (high << 74) | (middle << 62) | low
}

fn has_v4_shape(bits: u128) -> bool {
    bits & V4_MASK == V4_BITS
}

fn text(id: u128) -> Text {
    let mut text = [0; TEXT_LEN];
    Uuid::from_u128(id).hyphenated().encode_lower(&mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_says_where_its_client_lives() {
        let mut entropy = Entropy::from_seed([7; 32]);
        for (host, shard, slot) in [(0, 0, 0), (u32::MAX, 255, 0xff_ffff), (0x1234_5678, 3, 14_000)] {
            let id = ClientId::new(HostId(host), ShardIndex(shard), Slot(slot), &mut entropy);
            assert_eq!((id.host(), id.shard(), id.slot()), (HostId(host), ShardIndex(shard), Slot(slot)));
        }
    }

    #[test]
    fn an_id_is_read_in_its_own_spelling_alone() {
        let id = ClientId::new(HostId(7), ShardIndex(1), Slot(2), &mut Entropy::from_seed([3; 32]));
        let text = String::from_utf8(id.text().to_vec()).expect("ASCII");
        assert_eq!(ClientId::parse(text.as_bytes()), Some(id));
        for other in [text.to_uppercase(), text.replace('-', ""), format!("{{{text}}}"), format!("{text} ")] {
            assert_eq!(ClientId::parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn ids_have_the_shape_of_a_v4_uuid() {
        let mut entropy = Entropy::from_seed([1; 32]);
        for _ in 0..1_000 {
            let client = ClientId::new(HostId(u32::MAX), ShardIndex(255), Slot(0xff_ffff), &mut entropy);
            for text in [client.text(), RoomId::new(&mut entropy).text()] {
                let uuid = Uuid::try_parse(std::str::from_utf8(&text).expect("ASCII")).expect("a UUID");
                assert_eq!(uuid.get_version_num(), 4);
                assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
                assert_eq!(uuid.hyphenated().to_string().as_bytes(), text);
            }
        }
    }

    #[test]
    fn an_id_is_a_number_of_the_shape_and_no_other() {
        let mut entropy = Entropy::from_seed([5; 32]);
        let client = ClientId::new(HostId(7), ShardIndex(1), Slot(2), &mut entropy);
        let room = RoomId::new(&mut entropy);
        assert_eq!(ClientId::from_bits(client.to_bits()), Some(client));
        assert_eq!(RoomId::from_bits(room.to_bits()), Some(room));
        for bit in (76..80).chain(62..64) {
            assert_eq!(ClientId::from_bits(client.to_bits() ^ (1 << bit)), None, "bit {bit}");
            assert_eq!(RoomId::from_bits(room.to_bits() ^ (1 << bit)), None, "bit {bit}");
        }
    }

    #[test]
    fn numbers_below_a_bound_come_equally_often() {
        const DRAWS: usize = 60_000;
        let mut entropy = Entropy::from_seed([4; 32]);
        for bound in [1, 2, 3, 7] {
            let mut counts = vec![0_usize; bound];
            for _ in 0..DRAWS {
                counts[entropy.below(bound)] += 1;
            }
            // Over six standard deviations on either side.
            let expected = DRAWS / bound;
            assert!(counts.iter().all(|count| count.abs_diff(expected) < 800), "{bound}: {counts:?}");
        }
    }

    #[test]
    fn two_clients_of_one_slot_differ() {
        let mut entropy = Entropy::from_seed([2; 32]);
        let mut id = || ClientId::new(HostId(1), ShardIndex(0), Slot(5), &mut entropy);
        assert_ne!(id(), id());
    }
}
