//! Which peer has which documents, read from either side in the order of joining.

use std::collections::{BTreeMap, HashMap};

use ahash::RandomState;

use super::PeerKey;
use super::documents::DocumentKey;

/// A peer's place among those of its document and a document's among those of its peer: later ones are higher.
type Joining = u64;

/// Pairs of a peer and a document.
#[derive(Debug)]
pub(super) struct Memberships {
    /// All pairs. The hash is keyed, though the keys are our own.
    joinings: HashMap<(PeerKey, DocumentKey), Joining, RandomState>,
    by_peer: BTreeMap<(PeerKey, Joining), DocumentKey>,
    by_document: BTreeMap<(DocumentKey, Joining), PeerKey>,
    next_joining: Joining,
}

impl Memberships {
    /// Twice what stands in the three tables, which are half full at the worst.
    const BYTES_EACH: usize = 2
        * (size_of::<((PeerKey, DocumentKey), Joining)>()
            + size_of::<((PeerKey, Joining), DocumentKey)>()
            + size_of::<((DocumentKey, Joining), PeerKey)>());

    pub(super) fn new(hasher: RandomState) -> Self {
        Self {
            joinings: HashMap::with_hasher(hasher),
            by_peer: BTreeMap::new(),
            by_document: BTreeMap::new(),
            next_joining: 0,
        }
    }

    /// Roughly the bytes that they take on the heap.
    pub(super) fn bytes(&self) -> usize {
        self.joinings.len() * Self::BYTES_EACH
    }

    /// Whether this is new. A pair that is there keeps its place.
    pub(super) fn join(&mut self, peer: PeerKey, document: DocumentKey) -> bool {
        let joining = self.next_joining;
        if *self.joinings.entry((peer, document)).or_insert(joining) != joining {
            return false;
        }
        self.next_joining += 1;
        self.by_peer.insert((peer, joining), document);
        self.by_document.insert((document, joining), peer);
        true
    }

    /// Whether the pair was there.
    pub(super) fn leave(&mut self, peer: PeerKey, document: DocumentKey) -> bool {
        let Some(joining) = self.joinings.remove(&(peer, document)) else { return false };
        self.by_peer.remove(&(peer, joining));
        self.by_document.remove(&(document, joining));
        true
    }

    /// Takes all documents of a peer away; returns them.
    pub(super) fn leave_all(&mut self, peer: PeerKey) -> Vec<DocumentKey> {
        let documents: Vec<_> = self.documents(peer).collect();
        for document in &documents {
            self.leave(peer, *document);
        }
        documents
    }

    /// The documents of a peer, as it joined them.
    pub(super) fn documents(&self, peer: PeerKey) -> impl Iterator<Item = DocumentKey> {
        self.by_peer.range((peer, 0)..=(peer, Joining::MAX)).map(|(_, document)| *document)
    }

    /// The peers of a document, as they joined it.
    pub(super) fn peers(&self, document: DocumentKey) -> impl Iterator<Item = PeerKey> {
        self.by_document.range((document, 0)..=(document, Joining::MAX)).map(|(_, peer)| *peer)
    }
}
