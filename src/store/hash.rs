//! The hash that finds changed and damaged documents.

use super::row::{DocumentTraits, Row};
use sha2::{Digest, Sha256};
use warpseek_ingest::Document;

/// SHA-256 of everything that is stored of a document. A record with the hash of a stored document
/// needs no new embedding.
pub fn content_hash(document: &Document) -> [u8; 32] {
    let Document { id, doc_id, title, text, .. } = document;
    let traits = DocumentTraits::of(document);
    hash_parts([id, doc_id, title, text, &metadata_json(document)], traits)
}

/// [`content_hash`] of id, doc_id, title, text and metadata (compact JSON) as the database has
/// them.
pub(super) fn hash_parts(texts: [&str; 5], traits: DocumentTraits) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for text in texts {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.update([traits.bits()]);
    hasher.finalize().into()
}

/// The stored hash of a document, and what it was made of beside title and text.
pub(super) struct StoredHash {
    pub(super) id: String,
    pub(super) json: String,
    pub(super) traits: DocumentTraits,
    pub(super) hash: Vec<u8>,
}

impl StoredHash {
    /// True if it is the hash of a document with this row.
    pub(super) fn matches(&self, row: &Row, text: &str) -> bool {
        let parts = [&self.id, &row.doc_id, &row.title, text, &self.json];
        hash_parts(parts, self.traits)[..] == self.hash[..]
    }
}

/// Metadata of a document as compact JSON.
pub(super) fn metadata_json(document: &Document) -> String {
    serde_json::to_string(&document.metadata).unwrap_or_else(|_| "{}".to_owned())
}
