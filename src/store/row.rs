//! Rows with their texts and ids, as searches return them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::ops::Range;
use warpseek_ingest::Document;

/// A row of the index with its text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The row's number in the matrix.
    pub row: u32,
    /// The document's id, followed by `#n` for chunk `n` if the document has several chunks, or if
    /// its id ends like that of a chunk. No two live rows share one.
    pub id: String,
    /// Id of the document in relevance judgments.
    pub doc_id: String,
    /// The document's title.
    pub title: String,
    /// The chunk's text.
    pub text: String,
    /// Position of the chunk in the document's text, in bytes.
    pub range: Range<usize>,
    /// True if models read the title in front of the text.
    pub embed_title: bool,
    /// The document's metadata.
    pub metadata: Map<String, Value>,
    /// Embedded tokens.
    pub tokens: u32,
    /// Truncated tokens: those beyond the embedder's limit.
    pub tokens_lost: u32,
}

impl Row {
    /// The text as models read it: `title + " " + text`, or the text alone.
    pub fn passage(&self) -> String {
        passage(&self.title, &self.text, self.embed_title)
    }

    /// Bytes in front of the text in [`Row::passage`]; negative if the passage leaves out blanks at
    /// the start of the text.
    pub fn text_offset(&self) -> isize {
        if !self.embed_title {
            return 0;
        }
        let full = format!("{} {}", self.title, self.text);
        let trimmed = full.len() - full.trim_start().len();
        self.title.len() as isize + 1 - trimmed as isize
    }
}

/// Two properties of a document that share the column `embed_title`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DocumentTraits {
    /// True if models read the title in front of the text.
    pub(super) embed_title: bool,
    /// True if the metadata came from a format without types.
    pub(super) is_untyped: bool,
}

impl DocumentTraits {
    /// The properties of a document.
    pub(super) fn of(document: &Document) -> Self {
        let Document { embed_title, is_untyped, .. } = *document;
        Self { embed_title, is_untyped }
    }

    /// The column's value.
    pub(super) fn bits(self) -> u8 {
        u8::from(self.embed_title) | u8::from(self.is_untyped) << 1
    }

    /// The properties that a value of the column means.
    pub(super) fn from_bits(bits: i64) -> Self {
        Self { embed_title: bits & 1 != 0, is_untyped: bits & 2 != 0 }
    }
}

/// The text of a chunk as models read it.
pub fn passage(title: &str, text: &str, embed_title: bool) -> String {
    if embed_title { format!("{title} {text}").trim().to_owned() } else { text.to_owned() }
}

/// The ids of all rows, for callers with very many hits.
#[derive(Debug, Clone, Default)]
pub struct RowNames {
    text: String,
    /// Per row the ends of its id and its doc_id in `text`.
    ends: Vec<(usize, usize)>,
}

impl RowNames {
    /// The id and doc_id of a row; empty past the end.
    pub fn get(&self, row: u32) -> (&str, &str) {
        let row = row as usize;
        let start = row.checked_sub(1).and_then(|r| self.ends.get(r)).map_or(0, |e| e.1);
        match self.ends.get(row) {
            Some(&(id, doc_id)) => (&self.text[start..id], &self.text[id..doc_id]),
            None => ("", ""),
        }
    }
    /// Appends the next row's id and doc_id.
    pub(super) fn push(&mut self, id: &str, doc_id: &str) {
        self.text.push_str(id);
        let id_end = self.text.len();
        self.text.push_str(doc_id);
        self.ends.push((id_end, self.text.len()));
    }
}

/// Id of a row: the document's id, followed by `#ordinal` if it has several chunks.
///
/// The only chunk of a document whose id itself ends in `#n` is `#0` too: `doc#0#0`. So the id of a
/// row tells its document and its chunk, and is unique because ids of live documents are.
pub(super) fn row_id(id: String, n_chunks: i64, ordinal: i64) -> String {
    if n_chunks > 1 || split_row_id(&id).is_some() { format!("{id}#{ordinal}") } else { id }
}

/// The document's id and the chunk in the id of a row. `None` if it does not end in `#n`, and is
/// the id of a document.
pub(super) fn split_row_id(row_id: &str) -> Option<(&str, u32)> {
    let (id, digits) = row_id.rsplit_once('#')?;
    let ordinal: u32 = digits.parse().ok()?;
    // A blank id is no document's, and `+1` or `01` no chunk.
    (!id.trim().is_empty() && ordinal.to_string() == digits).then_some((id, ordinal))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// Rows travel as JSON between processes, and metadata is JSON in files and databases.
        #[test]
        fn numbers_are_read_from_json_to_the_last_bit(bits: u64) {
            let value = f64::from_bits(bits);
            if value.is_finite() {
                let text = serde_json::to_string(&value).unwrap();
                let read: f64 = serde_json::from_str(&text).unwrap();
                proptest::prop_assert_eq!(read.to_bits(), bits, "{}", text);
            }
        }
    }

    #[test]
    fn row_ids_of_different_rows_differ() {
        let ids = ["doc", "doc#0", "doc#1", "doc#0#0", "#0", "doc#", "doc#01", "doc#+1", "doc#x"];
        let mut seen = std::collections::HashMap::new();
        for (id, n_chunks) in ids.iter().flat_map(|id| [1, 2, 3].map(|n| (*id, n))) {
            for ordinal in 0..n_chunks {
                // A document has one number of chunks, so its chunks may come again.
                let before = seen.insert(row_id(id.into(), n_chunks, ordinal), (id, ordinal));
                assert!(before.is_none_or(|before| before == (id, ordinal)), "{id} {before:?}");
            }
        }
        assert_eq!(row_id("doc".into(), 1, 0), "doc");
        assert_eq!(row_id("doc".into(), 2, 1), "doc#1");
        assert_eq!(row_id("doc#1".into(), 1, 0), "doc#1#0");
        assert_eq!(row_id("doc#01".into(), 1, 0), "doc#01");
    }
}
