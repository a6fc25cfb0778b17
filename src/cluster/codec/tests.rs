use proptest::prelude::*;

use super::*;

fn sender() -> Sender {
    Sender { host: HostId(0x0102_0304), start: 0x0a0b_0c0d_0e0f_1011 }
}

fn header() -> Header {
    Header { sender: sender(), mine: 7, yours: 8, sequence: 9, wants_answer: true }
}

fn text_frame(payload: &[u8]) -> Bytes {
    [ServerHeader::new(Opcode::Text, payload.len()).as_bytes(), payload].concat().into()
}

fn encode(mail: &Mail) -> Bytes {
    let mut draft = Draft::default();
    mail.letters.iter().for_each(|(shard, letter)| draft.push(*shard, letter));
    assert_eq!(draft.letters(), mail.letters.len());
    draft.finish(&mail.header)
}

/// The bits that every id has.
fn v4(bits: u128) -> u128 {
    (bits & !((0xf << 76) | (0b11 << 62))) | (0x4 << 76) | (0b10 << 62)
}

fn client() -> impl Strategy<Value = ClientId> {
    any::<u128>().prop_map(|bits| ClientId::from_bits(v4(bits)).expect("the shape of an id"))
}

fn room() -> impl Strategy<Value = RoomId> {
    any::<u128>().prop_map(|bits| RoomId::from_bits(v4(bits)).expect("the shape of an id"))
}

fn waiter() -> impl Strategy<Value = Waiter> {
    (client(), any::<u64>()).prop_map(|(client, ticket)| Waiter { client, ticket: Ticket::new(ticket) })
}

fn note() -> impl Strategy<Value = Note> {
    prop_oneof![
        waiter().prop_map(Note::Wait),
        waiter().prop_map(Note::Unwait),
        (room(), waiter(), waiter()).prop_map(|(room, older, newer)| Note::Offer { room, older, newer }),
        (room(), waiter(), waiter()).prop_map(|(room, older, newer)| Note::Accepted { room, older, newer }),
        (room(), client(), waiter()).prop_map(|(room, partner, newer)| Note::Matched {
            room,
            partner,
            newer
        }),
        waiter().prop_map(Note::Declined),
        (room(), client()).prop_map(|(room, to)| Note::PartnerLeft { room, to }),
    ]
}

fn letter() -> impl Strategy<Value = Letter> {
    let lens = prop_oneof![0..200_usize, 65_530..65_540_usize];
    let frame = (client(), room(), lens, any::<u8>()).prop_map(|(to, room, len, fill)| Letter::Frame {
        to,
        room,
        frame: text_frame(&vec![fill; len]),
    });
    prop_oneof![note().prop_map(Letter::Note), frame]
}

fn mail() -> impl Strategy<Value = Mail> {
    let header = (any::<(u32, u64)>(), any::<(u64, u64, u64)>(), any::<bool>()).prop_map(
        |((host, start), (mine, yours, sequence), wants_answer)| Header {
            sender: Sender { host: HostId(host), start },
            mine,
            yours,
            sequence,
            wants_answer,
        },
    );
    let letters = proptest::collection::vec((any::<u8>().prop_map(ShardIndex), letter()), 0..6);
    (header, letters).prop_map(|(header, letters)| Mail { header, letters })
}

proptest! {
    #[test]
    fn mail_comes_out_as_it_went_in(mail in mail()) {
        prop_assert_eq!(decode(&encode(&mail)), Ok(Message::Mail(mail)));
    }

    #[test]
    fn heartbeats_come_out_as_they_went_in(host: u32, start: u64, number: u64, is_leaving: bool) {
        let heartbeat = Heartbeat { sender: Sender { host: HostId(host), start }, number, is_leaving };
        prop_assert_eq!(decode(&encode_heartbeat(&heartbeat)), Ok(Message::Heartbeat(heartbeat)));
    }

    /// Cut anywhere it is an error, or mail with the first of the letters: their number is not written anywhere, the
    /// length of a message in Redis is certain.
    #[test]
    fn mail_that_is_cut_short_is_no_other_mail(mail in mail(), at in any::<proptest::sample::Index>()) {
        let bytes = encode(&mail);
        let cut = bytes.slice(..at.index(bytes.len()));
        match decode(&cut) {
            Err(error) => prop_assert_eq!(error, Error::TooShort),
            Ok(Message::Mail(shorter)) => {
                prop_assert_eq!(shorter.header, mail.header);
                prop_assert!(shorter.letters.len() < mail.letters.len());
                prop_assert_eq!(&shorter.letters[..], &mail.letters[..shorter.letters.len()]);
                prop_assert_eq!(encode(&shorter), cut);
            }
            Ok(Message::Heartbeat(heartbeat)) => prop_assert!(false, "{heartbeat:?}"),
        }
    }

    #[test]
    fn a_flipped_bit_is_an_error_or_a_message_of_just_these_bytes(mail in mail(), at in any::<proptest::sample::Index>()) {
        let mut bytes = encode(&mail).to_vec();
        let bit = at.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        check_any(&Bytes::from(bytes));
    }

    #[test]
    fn any_bytes_are_an_error_or_a_message_of_just_these_bytes(
        tail in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..3_u8, has_head: bool,
    ) {
        let mut bytes = Vec::new();
        if has_head {
            bytes.extend_from_slice(b"prlr\0\x01");
            bytes.push(kind);
        }
        bytes.extend_from_slice(&tail);
        check_any(&Bytes::from(bytes));
    }
}

/// There is one spelling of each message.
fn check_any(bytes: &Bytes) {
    match decode(bytes) {
        Ok(Message::Heartbeat(heartbeat)) => assert_eq!(encode_heartbeat(&heartbeat), bytes),
        Ok(Message::Mail(mail)) => assert_eq!(encode(&mail), bytes),
        Err(_) => {}
    }
}

/// Written by hand: what is on the wire must not change while the version does not.
#[test]
fn the_layout_is_that_of_version_1() {
    let heartbeat = Heartbeat { sender: sender(), number: 5, is_leaving: true };
    let sender = b"\x01\x02\x03\x04\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11";
    let expected = [b"prlr\0\x01\0".as_slice(), sender, b"\x01", &5_u64.to_be_bytes()].concat();
    assert_eq!(encode_heartbeat(&heartbeat), expected);

    let to = ClientId::from_bits(v4(1)).expect("an id");
    let room = RoomId::from_bits(v4(2)).expect("an id");
    let letter = Letter::Frame { to, room, frame: text_frame(b"ok") };
    let mail = Mail { header: header(), letters: vec![(ShardIndex(3), letter)] };
    let numbers = [7_u64, 8, 9].map(u64::to_be_bytes).concat();
    let ids = [v4(1), v4(2)].map(u128::to_be_bytes).concat();
    let expected =
        [b"prlr\0\x01\x01".as_slice(), sender, b"\x01", &numbers, b"\x03\x08", &ids, b"\0\0\0\x04\x81\x02ok"];
    assert_eq!(encode(&mail), expected.concat());
}

#[test]
fn other_versions_are_named_with_their_sender() {
    let mut bytes = encode_heartbeat(&Heartbeat { sender: sender(), number: 0, is_leaving: false }).to_vec();
    bytes[5] = 0;
    assert_eq!(decode(&Bytes::from(bytes.clone())), Err(Error::Older(sender(), 0)));
    bytes[5] = 2;
    bytes[6] = 200;
    bytes.extend_from_slice(b"whatever a later version adds");
    assert_eq!(decode(&Bytes::from(bytes)), Err(Error::Newer(sender(), 2)));
}

#[test]
fn what_is_wrong_is_said() {
    let mail = |letter: &[u8]| {
        let head = Draft::default().finish(&header());
        decode(&[&head, letter].concat().into()).expect_err("it is wrong")
    };
    let id = v4(9).to_be_bytes();
    let frame = |len: usize, frame: &[u8]| {
        mail(&[b"\0\x08".as_slice(), &id, &id, &(len as u32).to_be_bytes(), frame].concat())
    };
    assert_eq!(decode(&Bytes::from_static(b"PRLR\0\x01\0")), Err(Error::NotOurs));
    assert_eq!(mail(b"\0"), Error::TooShort);
    assert_eq!(mail(b"\0\0"), Error::UnknownKind(0));
    assert_eq!(mail(b"\0\x09"), Error::UnknownKind(9));
    assert_eq!(mail(&[b"\0\x01".as_slice(), &[0xff; 24]].concat()), Error::WrongId);
    assert_eq!(frame(0, b""), Error::WrongFrame);
    assert_eq!(frame(3, b"\x81\x00x"), Error::WrongFrame);
    assert_eq!(frame(2, b"\x82\x00"), Error::WrongFrame, "binary");
    assert_eq!(frame(2, b"\x01\x00"), Error::WrongFrame, "a fragment");
    assert_eq!(frame(6, b"\x81\x80abcd"), Error::WrongFrame, "masked");
    assert_eq!(frame(5, b"\x81\x7e\0\x01x"), Error::WrongFrame, "a length in more bytes than needed");
    assert_eq!(frame(9, b"\x81\x00"), Error::TooShort);
    assert_eq!(frame(HOST_FRAME_BYTES_MAX + 1, b""), Error::TooLong(HOST_FRAME_BYTES_MAX + 1));
    assert_eq!(frame(u32::MAX as usize, b""), Error::TooLong(u32::MAX as usize));

    let heartbeat = encode_heartbeat(&Heartbeat { sender: sender(), number: 0, is_leaving: false });
    let longer: Bytes = [&heartbeat[..], b"xy"].concat().into();
    assert_eq!(decode(&longer), Err(Error::Trailing(2)));
    let mut flags = heartbeat.to_vec();
    flags[19] = 0x80;
    assert_eq!(decode(&flags.into()), Err(Error::UnknownFlags(0x80)));
}

#[test]
fn letters_beyond_the_bound_are_refused() {
    let mut draft = Draft::default();
    let id = ClientId::from_bits(v4(1)).expect("an id");
    let note = Note::PartnerLeft { room: RoomId::from_bits(v4(2)).expect("an id"), to: id };
    for _ in 0..HOST_LETTERS_MAX {
        assert!(!draft.is_full(usize::MAX));
        draft.push(ShardIndex(0), &Letter::Note(note));
    }
    assert!(draft.is_full(usize::MAX) && draft.is_full(1));
    let bytes = draft.finish(&header());
    assert!(decode(&bytes).is_ok());
    let one_more = [&bytes[..], &bytes[MAIL_HEADER_LEN..][..34]].concat();
    assert_eq!(decode(&one_more.into()), Err(Error::TooMany));
}
