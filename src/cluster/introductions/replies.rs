//! What Redis says of introductions, read strictly: others may have written there.

use super::Meeting;
use crate::cluster::Reply;
use crate::id::ClientId;
use crate::protocol::introduction::distant::{Acquaintance, Names};

/// What Redis says to a registration.
pub(super) enum Registered {
    /// This one speaks for the peer, and somebody else wanted to.
    Refused { before: ClientId },
    /// Too much was to be returned.
    TooMuch,
    Done {
        /// Who spoke for the peer before.
        before: Option<ClientId>,
        inherited: Names,
        acquaintance: Acquaintance,
        meetings: Vec<Meeting>,
    },
}

/// Reads the reply to a registration; nothing if it is none. Entries in it that none of us has written are left out.
pub(super) fn parse_registered(reply: &Reply) -> Option<Registered> {
    let Reply::List(items) = reply else { return None };
    match &items[..] {
        [mark] if mark == b"!" => Some(Registered::TooMuch),
        [before] => Some(Registered::Refused { before: ClientId::parse(before)? }),
        [before, rest @ ..] => {
            let mut rest = rest.iter();
            let before = if before.is_empty() { None } else { ClientId::parse(before) };
            let inherited = names(&mut rest)?;
            let acquaintance = parse_acquaintance(rest.next()?)?;
            let mut meetings = Vec::new();
            while let Some(id) = rest.next() {
                let client = ClientId::parse(rest.next()?);
                let documents = names(&mut rest)?;
                if let (Some(client), Ok(id)) = (client, std::str::from_utf8(id)) {
                    meetings.push(Meeting { client, id: id.into(), documents });
                }
            }
            Some(Registered::Done { before, inherited, acquaintance, meetings })
        }
        [] => None,
    }
}

/// Reads the answer to who was introduced to a peer: the clients of both, the other's id and the document. Nothing if it
/// is none, or if a document is no UTF-8.
pub(super) fn parse_partner(reply: &Reply) -> Option<([ClientId; 2], Box<str>, Box<str>)> {
    let Reply::List(items) = reply else { return None };
    let [one, other, partner, document] = &items[..] else { return None };
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(Box::from);
    Some(([ClientId::parse(one)?, ClientId::parse(other)?], text(partner)?, text(document)?))
}

/// How an acquaintance stands in Redis; nothing for nobody.
pub(super) fn encode_acquaintance(acquaintance: &Acquaintance) -> Vec<u8> {
    match acquaintance {
        Acquaintance::Nobody => Vec::new(),
        Acquaintance::One { partner, document } => {
            [format!("{}:{partner}", partner.len()).as_bytes(), document].concat()
        }
        Acquaintance::More => b"+".to_vec(),
    }
}

fn parse_acquaintance(bytes: &[u8]) -> Option<Acquaintance> {
    match bytes {
        [] => Some(Acquaintance::Nobody),
        b"+" => Some(Acquaintance::More),
        _ => {
            let colon = bytes.iter().position(|byte| *byte == b':')?;
            let len: usize = std::str::from_utf8(&bytes[..colon]).ok()?.parse().ok()?;
            let (partner, document) = bytes[colon + 1..].split_at_checked(len)?;
            let partner = std::str::from_utf8(partner).ok()?.into();
            Some(Acquaintance::One { partner, document: document.into() })
        }
    }
}

/// A number, and as many names.
fn names<'a>(items: &mut impl Iterator<Item = &'a Vec<u8>>) -> Option<Names> {
    let count: usize = std::str::from_utf8(items.next()?).ok()?.parse().ok()?;
    let mut taken = 0;
    let names = Names::new(items.by_ref().take(count).inspect(|_| taken += 1).map(Vec::as_slice));
    (taken == count).then_some(names)
}
