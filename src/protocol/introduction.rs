//! Introductions: peers that want the same documents are told of each other (protocols.md section 5).
//!
//! A peer is an id; the client that speaks for it may be replaced by another with the same id, and the peer stays what it
//! was. Documents and peers are known to each other both ways and in order, so that who has a document in common with
//! whom costs no more than telling them.

pub mod distant;
mod documents;
mod memberships;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ahash::RandomState;
use slab::Slab;

use self::distant::{Change, Names};
use self::documents::{DocumentKey, Documents};
use self::memberships::Memberships;
use super::{Action, Actions, Part, Parts, parts};
use crate::id::ClientId;
use crate::limits::{DOCUMENTS_PER_PEER_MAX, INTRODUCTION_KEYS_BYTES_MAX};
use crate::wire::close::CloseCode;
use crate::wire::envelope::{Envelope, Kind, NotJson};
use crate::wire::quote::quote;

/// A peer in its slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct PeerKey(usize);

/// What a client's record keeps of introductions.
#[derive(Debug, Clone, Copy)]
pub struct State {
    peer: PeerKey,
}

const _: () = assert!(size_of::<State>() <= 32);

/// All peers, and what they want.
#[derive(Debug)]
pub struct Introductions {
    peers: Slab<Peer>,
    /// The peers by their ids. Clients choose those, so the hash is keyed.
    keys: HashMap<Arc<str>, PeerKey, RandomState>,
    documents: Documents,
    memberships: Memberships,
    /// The peers by who spoke for them before they were taken over: one of each at most.
    former: BTreeMap<ClientId, PeerKey>,
    /// What the peers take, without documents.
    peers_bytes: usize,
    /// Whether somebody takes [`Change`]s, and the last one.
    tracks_changes: bool,
    change: Option<Change>,
}

#[derive(Debug)]
struct Peer {
    id: Arc<str>,
    /// The id as it stands between quotes in JSON; the same text where nothing has to be escaped.
    escaped_id: Arc<str>,
    /// Who speaks for the peer: the last client that came with its id.
    client: ClientId,
    /// Who did before, if the peer was taken over.
    before: Option<ClientId>,
    introduced: Introduced,
}

/// To whom a peer was introduced since it is there.
#[derive(Debug, PartialEq, Eq)]
enum Introduced {
    Nobody,
    /// To one other alone, over one document alone. The other counts by its id: it may have gone and come back.
    One {
        partner: Arc<str>,
        /// Held, so that the name outlives the memberships.
        document: DocumentKey,
    },
    More,
}

/// Another peer, and what it has in common with the one who sent.
struct Meeting {
    peer: PeerKey,
    documents: Vec<DocumentKey>,
}

impl Introductions {
    /// `seed` keys the hashes.
    #[must_use]
    pub fn new(seed: [u64; 4]) -> Self {
        let [a, b, c, d] = seed;
        let hasher = RandomState::with_seeds(a, b, c, d);
        Self {
            peers: Slab::new(),
            keys: HashMap::with_hasher(hasher.clone()),
            documents: Documents::new(hasher.clone()),
            memberships: Memberships::new(hasher),
            former: BTreeMap::new(),
            peers_bytes: 0,
            tracks_changes: false,
            change: None,
        }
    }

    /// How many peers are there.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether nobody is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Roughly the bytes that peers and documents take on the heap, tables included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.peers_bytes + self.documents.bytes() + self.memberships.bytes()
    }

    /// A client has connected as the peer `id`. If that is there already, the client takes it over.
    pub fn handle_connect(&mut self, id: &str, me: ClientId) -> State {
        if let Some(&peer) = self.keys.get(id) {
            let before = std::mem::replace(&mut self.peers[peer.0].client, me);
            let forgotten = self.peers[peer.0].before.replace(before);
            forgotten.and_then(|client| self.former.remove(&client));
            self.former.insert(before, peer);
            return State { peer };
        }
        let peer = Peer::new(id, me);
        self.peers_bytes += peer.bytes();
        let id = Arc::clone(&peer.id);
        let peer = PeerKey(self.peers.insert(peer));
        self.keys.insert(id, peer);
        State { peer }
    }

    /// A client has sent a message, of which `parsed` was made.
    pub fn handle_message(
        &mut self,
        state: &State,
        me: ClientId,
        parsed: Result<&Envelope<'_>, NotJson>,
        out: &mut Actions,
    ) {
        let lists = parsed.ok().and_then(Lists::read).filter(|_| self.speaks(state, me));
        let Some(Lists { join, leave }) = lists else { return out.push(Action::Ignore) };
        if self.tracks_changes {
            self.change = Some(Change {
                id: Arc::clone(&self.peers[state.peer.0].id),
                join: Names::new(join.iter().map(|name| &**name)),
                leave: Names::new(leave.iter().map(|name| &**name)),
                introduces: !join.is_empty(),
            });
        }
        for name in &join {
            self.join(state.peer, name);
        }
        for name in &leave {
            self.leave(state.peer, name);
        }
        if !join.is_empty() {
            self.introduce(state.peer, out);
        }
    }

    /// A client is gone, and its peer with it, unless somebody else has taken that over. Returns the peer's id.
    pub fn handle_leave(&mut self, state: &State, me: ClientId) -> Option<Arc<str>> {
        if !self.speaks(state, me) {
            return None;
        }
        for document in self.memberships.leave_all(state.peer) {
            self.documents.release(document);
        }
        self.set_introduced(state.peer, Introduced::Nobody);
        let peer = self.peers.remove(state.peer.0);
        self.peers_bytes -= peer.bytes();
        self.keys.remove(&peer.id);
        peer.before.and_then(|before| self.former.remove(&before));
        Some(peer.id)
    }

    /// Who was introduced to the peer `remote`, and over which document: only where the two were introduced to each
    /// other and to nobody else, over one document, and both are still there. Nothing for a document that is no UTF-8.
    #[must_use]
    pub fn partner_of(&self, remote: &str) -> Option<(String, String)> {
        let (partner_id, document) = self.only_introduction(remote)?;
        // The partner may have gone and come back, and met somebody else since. If not, the document is the same.
        let (partners_partner_id, _) = self.only_introduction(partner_id)?;
        if partners_partner_id != remote {
            return None;
        }
        let name = String::from_utf8(self.documents.name(document).to_vec()).ok()?;
        Some((partner_id.to_owned(), name))
    }

    fn only_introduction(&self, id: &str) -> Option<(&str, DocumentKey)> {
        match &self.peers[self.keys.get(id)?.0].introduced {
            Introduced::One { partner, document } => Some((partner, *document)),
            Introduced::Nobody | Introduced::More => None,
        }
    }

    /// Whether the client speaks for its peer: nobody has taken that over, and it is still there.
    fn speaks(&self, state: &State, me: ClientId) -> bool {
        self.peers.get(state.peer.0).is_some_and(|peer| peer.client == me)
    }

    fn join(&mut self, peer: PeerKey, name: &[u8]) {
        let document = self.documents.hold_named(name);
        if !self.memberships.join(peer, document) {
            self.documents.release(document);
        }
    }

    fn leave(&mut self, peer: PeerKey, name: &[u8]) {
        let Some(document) = self.documents.find(name) else { return };
        if self.memberships.leave(peer, document) {
            self.documents.release(document);
        }
    }

    /// Tells the peer and all others that have a document in common with it of each other.
    fn introduce(&mut self, me: PeerKey, out: &mut Actions) {
        if self.memberships.documents(me).nth(DOCUMENTS_PER_PEER_MAX).is_some() {
            let (client, code) = (self.peers[me.0].client, Some(CloseCode::TryAgainLater));
            return out.push(Action::Close { client, code, reason: "too many documents" });
        }
        let mut written = WrittenKeys::default();
        for Meeting { peer: other, documents } in self.meetings(me) {
            let Some(keys) = written.write(&documents, &self.documents) else {
                return out.push(too_slow(self.peers[me.0].client));
            };
            let (my_id, other_id) = (Arc::clone(&self.peers[me.0].id), Arc::clone(&self.peers[other.0].id));
            self.remember(me, &other_id, &documents);
            self.remember(other, &my_id, &documents);
            let (me, other) = (&self.peers[me.0], &self.peers[other.0]);
            out.push(Action::Reply(introduction(other, &keys)));
            out.push(Action::Send { to: other.client, parts: introduction(me, &keys) });
        }
    }

    /// All others that have documents in common with this peer, and which, in its order.
    fn meetings(&self, me: PeerKey) -> Vec<Meeting> {
        let mut meetings: Vec<Meeting> = Vec::new();
        let mut positions = BTreeMap::new();
        for document in self.memberships.documents(me) {
            for peer in self.memberships.peers(document).filter(|peer| *peer != me) {
                let position = *positions.entry(peer).or_insert(meetings.len());
                if position == meetings.len() {
                    meetings.push(Meeting { peer, documents: Vec::new() });
                }
                meetings[position].documents.push(document);
            }
        }
        meetings
    }

    /// Notes that the peer is introduced to this partner.
    fn remember(&mut self, peer: PeerKey, partner: &Arc<str>, documents: &[DocumentKey]) {
        let introduced = match (&self.peers[peer.0].introduced, documents) {
            (Introduced::Nobody, &[document]) => Introduced::One { partner: Arc::clone(partner), document },
            (Introduced::One { partner: before, document }, documents)
                if before == partner && documents == [*document] =>
            {
                return;
            }
            (Introduced::Nobody | Introduced::One { .. } | Introduced::More, _) => Introduced::More,
        };
        self.set_introduced(peer, introduced);
    }

    fn set_introduced(&mut self, peer: PeerKey, introduced: Introduced) {
        if let Introduced::One { document, .. } = introduced {
            self.documents.hold(document);
        }
        self.peers_bytes += introduced.bytes();
        let before = std::mem::replace(&mut self.peers[peer.0].introduced, introduced);
        self.peers_bytes -= before.bytes();
        if let Introduced::One { document, .. } = before {
            self.documents.release(document);
        }
    }
}

impl Peer {
    /// Twice what stands in the slab and in the table, since both grow by doubling, and the counts of shared text.
    const BYTES: usize = 2
        * (size_of::<Self>() + size_of::<(Arc<str>, PeerKey)>() + size_of::<(ClientId, PeerKey)>())
        + 4 * size_of::<usize>();

    fn new(id: &str, client: ClientId) -> Self {
        let mut quoted = String::new();
        quote(id.as_bytes(), &mut quoted);
        let escaped = &quoted[1..quoted.len() - 1];
        let id = Arc::from(id);
        let escaped_id = if escaped == &*id { Arc::clone(&id) } else { Arc::from(escaped) };
        Self { id, escaped_id, client, before: None, introduced: Introduced::Nobody }
    }

    /// What the peer takes, but for [`Introduced::bytes`].
    fn bytes(&self) -> usize {
        let is_shared = Arc::ptr_eq(&self.id, &self.escaped_id);
        Self::BYTES + self.id.len() + if is_shared { 0 } else { self.escaped_id.len() }
    }
}

impl Introduced {
    /// What is kept of the partner: its id, which may outlive it. The document is counted where it is held.
    fn bytes(&self) -> usize {
        match self {
            Self::One { partner, .. } => partner.len(),
            Self::Nobody | Self::More => 0,
        }
    }
}

/// What a message asks for.
struct Lists<'a> {
    join: Vec<Cow<'a, [u8]>>,
    leave: Vec<Cow<'a, [u8]>>,
}

impl<'a> Lists<'a> {
    /// Nothing if the message is no object or spoiled by what stands in the place of a list of strings.
    fn read(envelope: &Envelope<'a>) -> Option<Self> {
        let list = |name| match envelope.field(name) {
            Some(field) => envelope.texts(field),
            None => Some(Vec::new()),
        };
        (envelope.kind == Kind::Object)
            .then(|| Some(Self { join: list("join")?, leave: list("leave")? }))
            .flatten()
    }
}

/// Lists of documents' names as JSON. Peers that meet over the same documents, one after the other, share one.
#[derive(Default)]
struct WrittenKeys {
    last: Option<(Vec<DocumentKey>, Arc<str>)>,
    bytes: usize,
}

impl WrittenKeys {
    /// The names with commas between them; nothing if [`INTRODUCTION_KEYS_BYTES_MAX`] were written before. One text is always
    /// written, as one message into an empty outbox always passes.
    fn write(&mut self, keys: &[DocumentKey], documents: &Documents) -> Option<Arc<str>> {
        if let Some((_, text)) = self.last.as_ref().filter(|(last_keys, _)| last_keys == keys) {
            return Some(Arc::clone(text));
        }
        if self.bytes > INTRODUCTION_KEYS_BYTES_MAX {
            return None;
        }
        let mut text = String::new();
        for (position, key) in keys.iter().enumerate() {
            if position > 0 {
                text.push(',');
            }
            quote(documents.name(*key), &mut text);
        }
        self.bytes += text.len();
        let text = Arc::from(text);
        self.last = Some((keys.to_vec(), Arc::clone(&text)));
        Some(text)
    }
}

/// Tells somebody of `other`.
fn introduction(other: &Peer, keys: &Arc<str>) -> Parts {
    parts([
        Part::Literal(r#"{"type":"Introduction","id":""#),
        Part::Text(Arc::clone(&other.escaped_id)),
        Part::Literal(r#"","keys":["#),
        Part::Text(Arc::clone(keys)),
        Part::Literal("]}"),
    ])
}

fn too_slow(client: ClientId) -> Action {
    Action::Close { client, code: Some(CloseCode::TryAgainLater), reason: "too slow" }
}

#[cfg(test)]
mod tests;
