//! The hash that tells whether a document changed.

use crate::ingest::Document;
use sha2::{Digest, Sha256};

/// The metadata as compact JSON.
pub(super) fn metadata_json(document: &Document) -> String {
    serde_json::to_string(&document.metadata).unwrap_or_else(|_| "{}".to_owned())
}

/// SHA-256 over everything that is stored of a document: two records with the same hash need no new
/// embedding.
pub fn content_hash(document: &Document) -> [u8; 32] {
    hash_parts(
        [&document.id, &document.doc_id, &document.title, &document.text],
        &metadata_json(document),
        document.embed_title,
    )
}

/// See [`content_hash`]; also over what the database holds.
pub(super) fn hash_parts(texts: [&str; 4], metadata: &str, embed_title: bool) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in texts.iter().chain([&metadata]) {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update([u8::from(embed_title)]);
    hasher.finalize().into()
}
