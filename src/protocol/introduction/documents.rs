//! The names of documents, each kept once for all who have the document.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;
use slab::Slab;

/// A document in its slab. A held one's key is nobody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct DocumentKey(usize);

/// The documents that somebody holds.
#[derive(Debug)]
pub(super) struct Documents {
    documents: Slab<Document>,
    /// The documents by their names. Clients choose those, so the hash is keyed.
    keys: HashMap<Arc<[u8]>, DocumentKey, RandomState>,
    bytes: usize,
}

#[derive(Debug)]
struct Document {
    /// The name as text, lone surrogates as three bytes each.
    name: Arc<[u8]>,
    /// How often it is held, never 0.
    holds: usize,
}

impl Documents {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self { documents: Slab::new(), keys: HashMap::with_hasher(hasher), bytes: 0 }
    }

    /// Roughly the bytes that they take on the heap.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn find(&self, name: &[u8]) -> Option<DocumentKey> {
        self.keys.get(name).copied()
    }

    /// The name of a document that is held.
    pub(super) fn name(&self, key: DocumentKey) -> &[u8] {
        &self.documents[key.0].name
    }

    /// Holds the document of this name.
    pub(super) fn hold_named(&mut self, name: &[u8]) -> DocumentKey {
        let key = self.find(name).unwrap_or_else(|| self.insert(name));
        self.hold(key);
        key
    }

    /// Holds a document that is held already once more.
    pub(super) fn hold(&mut self, key: DocumentKey) {
        self.documents[key.0].holds += 1;
    }

    /// Ends one hold; the last one ends the document.
    pub(super) fn release(&mut self, key: DocumentKey) {
        let document = &mut self.documents[key.0];
        document.holds -= 1;
        if document.holds == 0 {
            let document = self.documents.remove(key.0);
            self.bytes -= document.bytes();
            self.keys.remove(&document.name);
        }
    }

    fn insert(&mut self, name: &[u8]) -> DocumentKey {
        let document = Document { name: Arc::from(name), holds: 0 };
        self.bytes += document.bytes();
        let name = Arc::clone(&document.name);
        let key = DocumentKey(self.documents.insert(document));
        self.keys.insert(name, key);
        key
    }
}

impl Document {
    /// Twice what stands in the slab and in the table, since both grow by doubling, and the counts of shared text.
    const BYTES: usize =
        2 * (size_of::<Self>() + size_of::<(Arc<[u8]>, DocumentKey)>()) + 2 * size_of::<usize>();

    fn bytes(&self) -> usize {
        Self::BYTES + self.name.len()
    }
}
