//! What one client was sent, read as the client would read it, beside what the server believed at the time.

use parlor::id::{ClientId, RoomId, TEXT_LEN};
use parlor::wire::frame::{Header, Opcode};
use serde_json::value::RawValue;

/// Who a client is in a room with.
pub(crate) type Partner = Option<(RoomId, ClientId)>;

/// The bytes, and the server's word about them.
#[derive(Debug, Default)]
pub(crate) struct Received {
    bytes: Vec<u8>,
    /// Positions in all that was and will be sent, and whom the server had paired the client with when it stood there.
    marks: Vec<(usize, Partner)>,
}

/// What the client knows by what it has read.
#[derive(Debug, Default)]
struct View {
    is_ready: bool,
    is_closed: bool,
    /// Room and partner, in text.
    partner: Option<(Vec<u8>, Vec<u8>)>,
}

impl Received {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The server, with `waiting` bytes still in the outbox, has the client with this partner.
    pub(crate) fn mark(&mut self, waiting: usize, partner: Partner) {
        let mark = (self.bytes.len() + waiting, partner);
        if self.marks.last() != Some(&mark) {
            self.marks.push(mark);
        }
    }

    /// Reads everything. `is_whole`: nothing was kept back, so nothing may be cut off.
    pub(crate) fn check(&self, me: ClientId, is_whole: bool) {
        let (mut at, mut is_open) = (0, false);
        while !is_open && let Some((status, len)) = response(&self.bytes[at..]) {
            at += len;
            is_open = status == b"101";
        }
        if is_open {
            at = self.check_frames(at, me);
        }
        assert!(!is_whole || at == self.bytes.len(), "what was sent ends in the middle");
    }

    /// Reads the frames from `at` on; returns where what is whole of them ends.
    fn check_frames(&self, mut at: usize, me: ClientId) -> usize {
        let (mut view, mut marks) = (View::default(), self.marks.iter().peekable());
        loop {
            while let Some((position, partner)) = marks.next_if(|(position, _)| *position <= at) {
                assert!(
                    *position == at || partner.is_none(),
                    "the server's word came in the middle of a frame"
                );
                view.agree(*partner);
            }
            let Some((header, payload)) = frame(&self.bytes[at..]) else { return at };
            view.read(&header, payload, &me.text());
            at += header_len(&header) + payload.len();
        }
    }
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

    fn read(&mut self, header: &Header, payload: &[u8], me: &[u8]) {
        assert!(!self.is_closed, "a frame behind a close");
        assert!(header.fin && header.reserved == 0 && header.mask.is_none(), "{header:?}");
        match Opcode::from_bits(header.opcode_bits) {
            Some(Opcode::Text) => self.read_text(payload, me),
            Some(Opcode::Ping | Opcode::Pong) => assert!(payload.len() <= 125),
            Some(Opcode::Close) => {
                assert!(payload.len() != 1 && payload.len() <= 125);
                self.is_closed = true;
            }
            Some(Opcode::Binary | Opcode::Continuation) | None => panic!("{header:?}"),
        }
    }

    fn read_text(&mut self, message: &[u8], me: &[u8]) {
        assert!(serde_json::from_slice::<&RawValue>(message).is_ok(), "{}", message.escape_ascii());
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

/// Status and length of the HTTP response in front, if it is whole.
fn response(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let head_len = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_len]).expect("ASCII");
    assert!(head.starts_with("HTTP/1.1 "), "{head}");
    let body_len = head.split("Content-Length: ").nth(1).map_or(0, |rest| {
        rest.split("\r\n").next().and_then(|digits| digits.parse().ok()).expect("a length")
    });
    let len = head_len + body_len;
    (bytes.len() >= len).then_some((&bytes[9..12], len))
}

/// The frame in front, if it is whole.
fn frame(bytes: &[u8]) -> Option<(Header, &[u8])> {
    let (header, len) = Header::parse(bytes)?;
    assert_eq!(len, header_len(&header), "a length in its shortest form");
    let end = len.checked_add(usize::try_from(header.payload_len).ok()?)?;
    bytes.get(len..end).map(|payload| (header, payload))
}

/// Length of a server's header.
fn header_len(header: &Header) -> usize {
    match header.payload_len {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}
