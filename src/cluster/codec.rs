//! What hosts say to each other, as bytes. A neighbour on Redis may be hostile: whatever does not follow the layout to
//! the byte is an [`Error`], and nothing is kept that the input is not long enough for.
//!
//! All numbers are big-endian. Up to the sender's start number the layout is that of all versions, so that a host of
//! another version can be named; what follows is that of [`VERSION`].
//!
//! ```text
//! magic 4 · version 2 · kind 1 · host 4 · start 8 · flags 1
//!   heartbeat: number 8
//!   mail:      mine 8 · yours 8 · sequence 8 · letters
//! letter: shard 1 · kind 1 · its fields; a frame's length stands in 4 bytes before it
//! ```

use bytes::{BufMut, Bytes};

use super::{Letter, directory, introductions, pairing, pipes, rendezvous, rooms};
use crate::id::{ClientId, HostId, RoomId, ShardIndex};
use crate::limits::{HOST_FRAME_BYTES_MAX, HOST_LETTERS_MAX};
use crate::protocol::pairing::{Note, Ticket, Waiter};
use crate::wire::frame::{self, Opcode, ServerHeader};

/// The version of the layout. Hosts of different versions do not talk to each other.
pub const VERSION: u16 = 1;

const MAGIC: [u8; 4] = *b"prlr";
/// Length of what stands before a piece of mail's first letter.
const MAIL_HEADER_LEN: usize = 4 + 2 + 1 + 4 + 8 + 1 + 8 + 8 + 8;

/// The only flag of a heartbeat.
const LEAVING: u8 = 1;
/// The only flag of mail.
const WANTS_ANSWER: u8 = 1;

#[repr(u8)]
enum Kind {
    Heartbeat = 0,
    Mail = 1,
}

/// The kinds of letters.
mod letter {
    pub(super) const WAIT: u8 = 1;
    pub(super) const UNWAIT: u8 = 2;
    pub(super) const OFFER: u8 = 3;
    pub(super) const ACCEPTED: u8 = 4;
    pub(super) const MATCHED: u8 = 5;
    pub(super) const DECLINED: u8 = 6;
    pub(super) const PARTNER_LEFT: u8 = 7;
    pub(super) const FRAME: u8 = 8;
    pub(super) const PAIRING: u8 = 16;
    pub(super) const RENDEZVOUS: u8 = 17;
    pub(super) const DIRECTORY: u8 = 18;
    pub(super) const ROOMS: u8 = 19;
    pub(super) const INTRODUCTIONS: u8 = 20;
    pub(super) const PIPES: u8 = 21;
}

/// Who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    /// The host.
    pub host: HostId,
    /// Its start number: of two starts under one id, the later one's is higher.
    pub start: u64,
}

/// A host says to all others, and to itself, that it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who.
    pub sender: Sender,
    /// How many it has sent before.
    pub number: u64,
    /// It is about to go: from now on it is not there for anybody.
    pub is_leaving: bool,
}

/// What stands before the letters. Without letters it says where the sender stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Who.
    pub sender: Sender,
    /// The sender's number of the relation to the receiver.
    pub mine: u64,
    /// The receiver's number of it, as the sender knows it; 0 while it does not.
    pub yours: u64,
    /// How much mail with letters the sender has sent in this relation before.
    pub sequence: u64,
    /// The sender does not know yet whether the receiver knows `mine`.
    pub wants_answer: bool,
}

/// Mail from another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Who, and where both stand.
    pub header: Header,
    /// What for which shard, in the order sent.
    pub letters: Vec<(ShardIndex, Letter)>,
}

/// One message from another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// It is there.
    Heartbeat(Heartbeat),
    /// It has something to say.
    Mail(Mail),
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// They end too early.
    TooShort,
    /// They do not begin like ours.
    NotOurs,
    /// Their sender speaks an older version.
    Older(Sender, u16),
    /// Their sender speaks a newer version.
    Newer(Sender, u16),
    /// There is no such kind of message or letter.
    UnknownKind(u8),
    /// There are no such flags.
    UnknownFlags(u8),
    /// An id does not have the shape of one.
    WrongId,
    /// A frame is not one whole text frame as a server writes it.
    WrongFrame,
    /// A text is not UTF-8, or a list not one.
    WrongText,
    /// A frame is over [`HOST_FRAME_BYTES_MAX`], or something else over its bound.
    TooLong(usize),
    /// There are more letters than [`HOST_LETTERS_MAX`].
    TooMany,
    /// So many bytes follow the end.
    Trailing(usize),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooShort => f.write_str("it ends too early"),
            Self::NotOurs => f.write_str("it is not from a host of ours"),
            Self::Older(sender, version) => {
                write!(f, "host {} speaks version {version}, which is older than {VERSION}", sender.host)
            }
            Self::Newer(sender, version) => {
                write!(f, "host {} speaks version {version}, which is newer than {VERSION}", sender.host)
            }
            Self::UnknownKind(kind) => write!(f, "kind {kind} is unknown"),
            Self::UnknownFlags(flags) => write!(f, "flags {flags:#04x} are unknown"),
            Self::WrongId => f.write_str("an id has the wrong shape"),
            Self::WrongFrame => f.write_str("a frame is not one text frame"),
            Self::WrongText => f.write_str("a text or a list is none"),
            Self::TooLong(len) => write!(f, "a frame or text has {len} bytes"),
            Self::TooMany => f.write_str("there are too many letters"),
            Self::Trailing(count) => write!(f, "{count} bytes follow its end"),
        }
    }
}

impl std::error::Error for Error {}

/// A heartbeat as bytes.
#[must_use]
pub fn encode_heartbeat(heartbeat: &Heartbeat) -> Bytes {
    let mut bytes = Vec::new();
    put_sender(&mut bytes, Kind::Heartbeat, heartbeat.sender);
    bytes.put_u8(if heartbeat.is_leaving { LEAVING } else { 0 });
    bytes.put_u64(heartbeat.number);
    bytes.into()
}

/// Mail that is being written: letters first, the header when it is sent.
#[derive(Debug)]
pub struct Draft {
    /// With room for the header.
    bytes: Vec<u8>,
    letters: usize,
}

impl Default for Draft {
    fn default() -> Self {
        Self { bytes: vec![0; MAIL_HEADER_LEN], letters: 0 }
    }
}

impl Draft {
    /// Adds a letter for a shard of the receiver. A frame is at most [`HOST_FRAME_BYTES_MAX`] long.
    pub fn push(&mut self, shard: ShardIndex, letter: &Letter) {
        self.letters += 1;
        self.bytes.put_u8(shard.0);
        match letter {
            Letter::Note(note) => put_note(&mut self.bytes, note),
            Letter::Pairing(letter) => {
                self.bytes.put_u8(letter::PAIRING);
                pairing::put(&mut self.bytes, letter);
            }
            Letter::Rendezvous(letter) => {
                self.bytes.put_u8(letter::RENDEZVOUS);
                rendezvous::put(&mut self.bytes, letter);
            }
            Letter::Directory(letter) => {
                self.bytes.put_u8(letter::DIRECTORY);
                directory::put(&mut self.bytes, letter);
            }
            Letter::Rooms(letter) => {
                self.bytes.put_u8(letter::ROOMS);
                rooms::put(&mut self.bytes, letter);
            }
            Letter::Introductions(letter) => {
                self.bytes.put_u8(letter::INTRODUCTIONS);
                introductions::put(&mut self.bytes, letter);
            }
            Letter::Pipes(letter) => {
                self.bytes.put_u8(letter::PIPES);
                pipes::put(&mut self.bytes, letter);
            }
            Letter::Frame { to, room, frame } => {
                assert!(frame.len() <= HOST_FRAME_BYTES_MAX, "whoever sends it has checked");
                self.bytes.put_u8(letter::FRAME);
                self.bytes.put_u128(to.to_bits());
                self.bytes.put_u128(room.to_bits());
                self.bytes.put_u32(frame.len() as u32);
                self.bytes.put_slice(frame);
            }
        }
    }

    /// Whether it should be sent before anything is added.
    #[must_use]
    pub fn is_full(&self, bytes_max: usize) -> bool {
        self.bytes.len() >= bytes_max || self.letters >= HOST_LETTERS_MAX
    }

    /// How many letters it has.
    #[must_use]
    pub fn letters(&self) -> usize {
        self.letters
    }

    /// The mail as bytes.
    #[must_use]
    pub fn finish(mut self, header: &Header) -> Bytes {
        let mut head = Vec::with_capacity(MAIL_HEADER_LEN);
        put_sender(&mut head, Kind::Mail, header.sender);
        head.put_u8(if header.wants_answer { WANTS_ANSWER } else { 0 });
        head.put_u64(header.mine);
        head.put_u64(header.yours);
        head.put_u64(header.sequence);
        self.bytes[..MAIL_HEADER_LEN].copy_from_slice(&head);
        self.bytes.into()
    }
}

fn put_sender(bytes: &mut Vec<u8>, kind: Kind, sender: Sender) {
    bytes.put_slice(&MAGIC);
    bytes.put_u16(VERSION);
    bytes.put_u8(kind as u8);
    bytes.put_u32(sender.host.0);
    bytes.put_u64(sender.start);
}

fn put_note(bytes: &mut Vec<u8>, note: &Note) {
    match *note {
        Note::Wait(waiter) => put_about(bytes, letter::WAIT, waiter),
        Note::Unwait(waiter) => put_about(bytes, letter::UNWAIT, waiter),
        Note::Offer { room, older, newer } => put_pair(bytes, letter::OFFER, room, older, newer),
        Note::Accepted { room, older, newer } => put_pair(bytes, letter::ACCEPTED, room, older, newer),
        Note::Matched { room, partner, newer } => {
            bytes.put_u8(letter::MATCHED);
            bytes.put_u128(room.to_bits());
            bytes.put_u128(partner.to_bits());
            put_waiter(bytes, newer);
        }
        Note::Declined(waiter) => put_about(bytes, letter::DECLINED, waiter),
        Note::PartnerLeft { room, to } => {
            bytes.put_u8(letter::PARTNER_LEFT);
            bytes.put_u128(room.to_bits());
            bytes.put_u128(to.to_bits());
        }
    }
}

fn put_about(bytes: &mut Vec<u8>, kind: u8, waiter: Waiter) {
    bytes.put_u8(kind);
    put_waiter(bytes, waiter);
}

fn put_pair(bytes: &mut Vec<u8>, kind: u8, room: RoomId, older: Waiter, newer: Waiter) {
    bytes.put_u8(kind);
    bytes.put_u128(room.to_bits());
    put_waiter(bytes, older);
    put_waiter(bytes, newer);
}

pub(super) fn put_waiter(bytes: &mut Vec<u8>, waiter: Waiter) {
    bytes.put_u128(waiter.client.to_bits());
    bytes.put_u64(waiter.ticket.number());
}

/// Reads one message, all of it. Frames share `bytes`.
///
/// # Errors
/// [`Error`]; nothing of the message counts then.
pub fn decode(bytes: &Bytes) -> Result<Message, Error> {
    let mut reader = Reader { bytes: bytes.clone() };
    if reader.take()? != MAGIC {
        return Err(Error::NotOurs);
    }
    let version = u16::from_be_bytes(reader.take()?);
    let kind = reader.u8()?;
    let sender = Sender { host: HostId(u32::from_be_bytes(reader.take()?)), start: reader.u64()? };
    match version.cmp(&VERSION) {
        std::cmp::Ordering::Less => return Err(Error::Older(sender, version)),
        std::cmp::Ordering::Greater => return Err(Error::Newer(sender, version)),
        std::cmp::Ordering::Equal => {}
    }
    match kind {
        kind if kind == Kind::Heartbeat as u8 => reader.heartbeat(sender).map(Message::Heartbeat),
        kind if kind == Kind::Mail as u8 => reader.mail(sender).map(Message::Mail),
        kind => Err(Error::UnknownKind(kind)),
    }
}

/// What is still to be read.
pub(super) struct Reader {
    bytes: Bytes,
}

impl Reader {
    fn heartbeat(mut self, sender: Sender) -> Result<Heartbeat, Error> {
        let is_leaving = self.flag(LEAVING)?;
        let number = self.u64()?;
        match self.bytes.len() {
            0 => Ok(Heartbeat { sender, number, is_leaving }),
            count => Err(Error::Trailing(count)),
        }
    }

    fn mail(mut self, sender: Sender) -> Result<Mail, Error> {
        let wants_answer = self.flag(WANTS_ANSWER)?;
        let (mine, yours, sequence) = (self.u64()?, self.u64()?, self.u64()?);
        let header = Header { sender, mine, yours, sequence, wants_answer };
        let mut letters = Vec::new();
        while !self.bytes.is_empty() {
            if letters.len() == HOST_LETTERS_MAX {
                return Err(Error::TooMany);
            }
            let shard = ShardIndex(self.u8()?);
            letters.push((shard, self.letter()?));
        }
        Ok(Mail { header, letters })
    }

    fn letter(&mut self) -> Result<Letter, Error> {
        let note = match self.u8()? {
            letter::WAIT => Note::Wait(self.waiter()?),
            letter::UNWAIT => Note::Unwait(self.waiter()?),
            letter::OFFER => Note::Offer { room: self.room()?, older: self.waiter()?, newer: self.waiter()? },
            letter::ACCEPTED => {
                Note::Accepted { room: self.room()?, older: self.waiter()?, newer: self.waiter()? }
            }
            letter::MATCHED => {
                Note::Matched { room: self.room()?, partner: self.client()?, newer: self.waiter()? }
            }
            letter::DECLINED => Note::Declined(self.waiter()?),
            letter::PARTNER_LEFT => Note::PartnerLeft { room: self.room()?, to: self.client()? },
            letter::FRAME => {
                return Ok(Letter::Frame { to: self.client()?, room: self.room()?, frame: self.frame()? });
            }
            letter::PAIRING => return pairing::take(self).map(Letter::Pairing),
            letter::RENDEZVOUS => return rendezvous::take(self).map(Letter::Rendezvous),
            letter::DIRECTORY => return directory::take(self).map(Letter::Directory),
            letter::ROOMS => return rooms::take(self).map(Letter::Rooms),
            letter::INTRODUCTIONS => return introductions::take(self).map(Letter::Introductions),
            letter::PIPES => return pipes::take(self).map(Letter::Pipes),
            kind => return Err(Error::UnknownKind(kind)),
        };
        Ok(Letter::Note(note))
    }

    pub(super) fn waiter(&mut self) -> Result<Waiter, Error> {
        Ok(Waiter { client: self.client()?, ticket: Ticket::new(self.u64()?) })
    }

    pub(super) fn client(&mut self) -> Result<ClientId, Error> {
        ClientId::from_bits(u128::from_be_bytes(self.take()?)).ok_or(Error::WrongId)
    }

    pub(super) fn room(&mut self) -> Result<RoomId, Error> {
        RoomId::from_bits(u128::from_be_bytes(self.take()?)).ok_or(Error::WrongId)
    }

    /// Bytes behind their length in 4 bytes, which must not be over `len_max`.
    pub(super) fn bytes(&mut self, len_max: usize) -> Result<Bytes, Error> {
        let len = u32::from_be_bytes(self.take()?) as usize;
        if len > len_max {
            return Err(Error::TooLong(len));
        }
        if len > self.bytes.len() {
            return Err(Error::TooShort);
        }
        Ok(self.bytes.split_to(len))
    }

    /// One text frame. It goes into a client's outbox as it is, so it must be whole and nothing else.
    pub(super) fn frame(&mut self) -> Result<Bytes, Error> {
        let frame = self.bytes(HOST_FRAME_BYTES_MAX)?;
        let len = frame.len();
        let (_, header_len) = frame::Header::parse(&frame).ok_or(Error::WrongFrame)?;
        let expected = ServerHeader::new(Opcode::Text, len - header_len);
        if &frame[..header_len] == expected.as_bytes() { Ok(frame) } else { Err(Error::WrongFrame) }
    }

    fn flag(&mut self, known: u8) -> Result<bool, Error> {
        let flags = self.u8()?;
        if flags & !known == 0 { Ok(flags != 0) } else { Err(Error::UnknownFlags(flags)) }
    }

    pub(super) fn u8(&mut self) -> Result<u8, Error> {
        self.take().map(|[byte]| byte)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Error> {
        self.take().map(u64::from_be_bytes)
    }

    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let taken = *self.bytes.first_chunk().ok_or(Error::TooShort)?;
        let _ = self.bytes.split_to(N);
        Ok(taken)
    }
}

#[cfg(test)]
mod tests;
