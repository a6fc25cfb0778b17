//! What introductions know of peers of other hosts (protocols.md section 6), and what other hosts are to know of ours.

use std::sync::Arc;

use bytes::{BufMut, Bytes};

use super::{DocumentKey, Introduced, Introductions, PeerKey, State, parts};
use crate::id::ClientId;
use crate::protocol::{Action, Actions, Part};
use crate::wire::quote::quote;

/// Names of documents in their order, in one piece of memory that whoever passes them on shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(Bytes);

impl Names {
    /// Joins names.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut bytes = Vec::new();
        for name in names {
            bytes.put_u32(name.len() as u32);
            bytes.put_slice(name);
        }
        Self(bytes.into())
    }

    /// Reads what [`Names::bytes`] gave; nothing if it is anything else.
    #[must_use]
    pub fn parse(bytes: Bytes) -> Option<Self> {
        let mut rest = &bytes[..];
        while let Some((len, after)) = rest.split_first_chunk() {
            rest = after.get(u32::from_be_bytes(*len) as usize..)?;
        }
        rest.is_empty().then_some(Self(bytes))
    }

    /// All of them, with the length of each in 4 bytes before it.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (len, after) = rest.split_first_chunk()?;
            let (name, after) = after.split_at(u32::from_be_bytes(*len) as usize);
            rest = after;
            Some(name)
        })
    }
}

/// To whom a peer was introduced since it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquaintance {
    /// To nobody.
    Nobody,
    /// To one other alone, over one document alone.
    One {
        /// The other's id.
        partner: Box<str>,
        /// The document.
        document: Box<[u8]>,
    },
    /// To more.
    More,
}

/// What a message has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The peer.
    pub id: Arc<str>,
    /// Documents that it has, new or not.
    pub join: Names,
    /// Then, documents that it has not, whether it had them or not.
    pub leave: Names,
    /// Whether the peer is to be introduced to whom it has documents in common with.
    pub introduces: bool,
}

/// A peer as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its id.
    pub id: Arc<str>,
    /// Its documents, in its order.
    pub documents: Names,
    /// To whom it was introduced.
    pub acquaintance: Acquaintance,
}

impl Introductions {
    /// From now on [`Introductions::take_change`] says what messages have changed.
    pub fn track_changes(&mut self) {
        self.tracks_changes = true;
    }

    /// What the last message has changed, once.
    pub fn take_change(&mut self) -> Option<Change> {
        self.change.take()
    }

    /// Who speaks for the peers.
    #[must_use]
    pub fn clients(&self) -> Vec<ClientId> {
        self.peers.iter().map(|(_, peer)| peer.client).collect()
    }

    /// The id of the peer that a client speaks for, unless somebody else does by now.
    #[must_use]
    pub fn id_of(&self, state: &State, me: ClientId) -> Option<Arc<str>> {
        self.speaks(state, me).then(|| Arc::clone(&self.peers[state.peer.0].id))
    }

    /// Who speaks for the peer that a client spoke for until it was taken over on this host. What was said to it, or is
    /// done for it, may have been under way then.
    #[must_use]
    pub fn successor_of(&self, client: ClientId) -> Option<ClientId> {
        self.former.get(&client).map(|peer| self.peers[peer.0].client)
    }

    /// The peer that a client speaks for.
    #[must_use]
    pub fn standing(&self, state: &State, me: ClientId) -> Option<Standing> {
        let id = self.id_of(state, me)?;
        let documents = self.memberships.documents(state.peer).map(|key| self.documents.name(key));
        Some(Standing { id, documents: Names::new(documents), acquaintance: self.acquaintance(state.peer) })
    }

    /// A client has taken a peer over from a client of another host, with these documents.
    pub fn handle_inherited(
        &mut self,
        state: &State,
        me: ClientId,
        documents: &Names,
        acquaintance: &Acquaintance,
    ) {
        if !self.speaks(state, me) {
            return;
        }
        for name in documents.iter() {
            self.join(state.peer, name);
        }
        match acquaintance {
            Acquaintance::Nobody => {}
            Acquaintance::One { partner, document } => {
                let document = self.documents.hold_named(document);
                self.remember(state.peer, &Arc::from(&**partner), &[document]);
                self.documents.release(document);
            }
            Acquaintance::More => self.set_introduced(state.peer, Introduced::More),
        }
    }

    /// The peer of a client and one of another host, `other`, are introduced to each other over these documents.
    pub fn handle_meeting(
        &mut self,
        state: &State,
        me: ClientId,
        other: &str,
        documents: &Names,
        out: &mut Actions,
    ) {
        if !self.speaks(state, me) {
            return out.push(Action::Ignore);
        }
        let keys: Vec<DocumentKey> = documents.iter().map(|name| self.documents.hold_named(name)).collect();
        self.remember(state.peer, &Arc::from(other), &keys);
        keys.into_iter().for_each(|key| self.documents.release(key));
        let (mut quoted_id, mut names) = (String::new(), String::new());
        quote(other.as_bytes(), &mut quoted_id);
        for name in documents.iter() {
            if !names.is_empty() {
                names.push(',');
            }
            quote(name, &mut names);
        }
        out.push(Action::Reply(parts([
            Part::Literal(r#"{"type":"Introduction","id":"#),
            Part::Text(quoted_id.into()),
            Part::Literal(r#","keys":["#),
            Part::Text(names.into()),
            Part::Literal("]}"),
        ])));
    }

    fn acquaintance(&self, peer: PeerKey) -> Acquaintance {
        match &self.peers[peer.0].introduced {
            Introduced::Nobody => Acquaintance::Nobody,
            Introduced::One { partner, document } => Acquaintance::One {
                partner: (**partner).into(),
                document: self.documents.name(*document).into(),
            },
            Introduced::More => Acquaintance::More,
        }
    }
}
