//! The messages of a client, read the simple way: what our own connections are compared with.
//!
//! Bytes come in the pieces in which the server read them, since text that cannot become UTF-8 any more is refused with
//! the piece that says so.

use parlor::wire::mask::Mask;

/// Most bytes of a control frame's payload, RFC 6455 section 5.5.
const CONTROL_BYTES_MAX: u64 = 125;

/// What a client may send.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of a message.
    pub message_bytes_max: usize,
    /// Frames of a message.
    pub fragments_max: u32,
}

impl Bounds {
    /// None.
    pub const NONE: Self = Self { message_bytes_max: usize::MAX, fragments_max: u32::MAX };
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A complete message.
    Message(Vec<u8>),
    /// A ping.
    Ping(Vec<u8>),
    /// A pong.
    Pong,
    /// The end, with a code or none.
    Close(Option<u16>),
    /// The end: the code and the reason to close with.
    Failed(u16, &'static str),
}

/// A message, as much of it as has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Text, else binary.
    pub is_text: bool,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Nothing of it is to come.
    pub is_complete: bool,
    /// In so many frames, as far as they have come.
    pub fragments: u32,
}

/// The frame whose payload comes next.
#[derive(Debug, Clone, Copy)]
struct Current {
    fin: bool,
    opcode: u8,
    mask: Mask,
    /// How much of the payload is to be read.
    left: u64,
}

/// What one client has said.
#[derive(Debug, Default)]
pub struct Framer {
    input: Vec<u8>,
    /// So much of the input was read.
    at: usize,
    current: Option<Current>,
    control: Vec<u8>,
    /// All messages; the last may be incomplete.
    pub messages: Vec<Message>,
}

type Failure = (u16, &'static str);

const NOT_UTF8: Failure = (1007, "invalid UTF-8");
const TOO_BIG: Failure = (1009, "message too big");

impl Framer {
    /// Bytes have come.
    pub fn push(&mut self, piece: &[u8]) {
        self.input.extend_from_slice(piece);
    }

    /// What is next, if it has come. After the end there is nothing.
    pub fn poll(&mut self, bounds: Bounds) -> Option<Found> {
        loop {
            let found = match self.current {
                None => self.read_header(bounds)?.map(|()| None),
                Some(current) => self.read_payload(current)?,
            };
            match found {
                Ok(None) => {}
                Ok(Some(found)) => return Some(found),
                Err((code, reason)) => return Some(Found::Failed(code, reason)),
            }
        }
    }

    /// Messages that are complete, and bytes of the one that is not.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        match self.messages.split_last() {
            Some((last, before)) if !last.is_complete => (before.len(), last.bytes.len()),
            _ => (self.messages.len(), 0),
        }
    }

    fn open(&mut self) -> Option<&mut Message> {
        self.messages.last_mut().filter(|message| !message.is_complete)
    }

    /// Nothing: the header is incomplete.
    fn read_header(&mut self, bounds: Bounds) -> Option<Result<(), Failure>> {
        let rest = &self.input[self.at..];
        let (&[first, second], more) = rest.split_first_chunk()?;
        let len_of_len = [0, 2, 8][usize::from((second & 0x7f).saturating_sub(125))];
        let len_of_mask = if second & 0x80 != 0 { 4 } else { 0 };
        let header = more.get(..len_of_len + len_of_mask)?;
        let (len, mask) = header.split_at(len_of_len);
        let key = mask.try_into().ok();
        let long = len.iter().fold(0, |len, byte| len << 8 | u64::from(*byte));
        let len = if len_of_len == 0 { u64::from(second & 0x7f) } else { long };
        self.at += 2 + header.len();
        Some(self.begin(first, key, len, bounds))
    }

    /// A frame begins; `first` is its first byte.
    fn begin(&mut self, first: u8, key: Option<[u8; 4]>, len: u64, bounds: Bounds) -> Result<(), Failure> {
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        let protocol = |reason| Err((1002, reason));
        if first & 0x70 != 0 {
            return protocol("reserved bits set");
        }
        if !matches!(opcode, 0 | 1 | 2 | 8 | 9 | 10) {
            return protocol("unknown opcode");
        }
        let Some(key) = key else { return protocol("frame not masked") };
        if len >> 63 != 0 {
            return protocol("length over 63 bits");
        }
        self.current = Some(Current { fin, opcode, mask: Mask::new(key), left: len });
        match (opcode, self.open()) {
            (8.., _) if !fin => protocol("control frame fragmented"),
            (8.., _) if len > CONTROL_BYTES_MAX => protocol("control frame too long"),
            (8.., _) => Ok(()),
            (0, None) => protocol("continuation without a message"),
            (1 | 2, Some(_)) => protocol("message begun inside another"),
            (opcode, None) => {
                self.messages.push(Message { is_text: opcode == 1, fragments: 1, ..Message::default() });
                if len > bounds.message_bytes_max as u64 { Err(TOO_BIG) } else { Ok(()) }
            }
            (_, Some(message)) => {
                message.fragments += 1;
                let is_long =
                    len.saturating_add(message.bytes.len() as u64) > bounds.message_bytes_max as u64;
                if is_long || message.fragments > bounds.fragments_max { Err(TOO_BIG) } else { Ok(()) }
            }
        }
    }

    /// Nothing: the payload is incomplete.
    fn read_payload(&mut self, mut current: Current) -> Option<Result<Option<Found>, Failure>> {
        let rest = &self.input[self.at..];
        if rest.is_empty() && current.left > 0 {
            return None;
        }
        let len = usize::try_from(current.left).unwrap_or(usize::MAX).min(rest.len());
        let mut piece = rest[..len].to_vec();
        current.mask.apply(&mut piece);
        self.at += len;
        current.left -= len as u64;
        let is_last = current.left == 0;
        self.current = Some(current).filter(|_| !is_last);
        Some(if current.opcode >= 8 {
            self.control.extend(piece);
            if is_last { control(current.opcode, std::mem::take(&mut self.control)) } else { Ok(None) }
        } else {
            self.add(&piece, is_last && current.fin)
        })
    }

    fn add(&mut self, piece: &[u8], is_last: bool) -> Result<Option<Found>, Failure> {
        let message = self.open().expect("a message was begun");
        let len = message.bytes.len();
        message.bytes.extend_from_slice(piece);
        if message.is_text && !may_be_text(&message.bytes, is_last) {
            message.bytes.truncate(len);
            return Err(NOT_UTF8);
        }
        message.is_complete = is_last;
        Ok(is_last.then(|| Found::Message(message.bytes.clone())))
    }
}

/// Whether bytes are UTF-8, or its beginning.
fn may_be_text(bytes: &[u8], is_whole: bool) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && !is_whole,
    }
}

fn control(opcode: u8, payload: Vec<u8>) -> Result<Option<Found>, Failure> {
    Ok(Some(match opcode {
        8 => Found::Close(code(&payload)?),
        9 => Found::Ping(payload),
        _ => Found::Pong,
    }))
}

/// The code of a close.
fn code(payload: &[u8]) -> Result<Option<u16>, Failure> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err((1002, "close code cut short")) };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err((1002, "illegal close code"));
    }
    std::str::from_utf8(reason).map(|_| Some(code)).map_err(|_| NOT_UTF8)
}
