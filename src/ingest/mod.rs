//! Files to documents: one file a format, one [`Document`] a record.

use serde_json::{Map, Value};

/// One record of the input, before chunking.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Unique within an index: a second record with the same id replaces the first.
    pub id: String,
    /// What relevance judgments name; several records (chunks of one paper, say) may share it.
    pub doc_id: String,
    /// The title, empty if there is none.
    pub title: String,
    /// The body. Chunk byte ranges point into this string.
    pub text: String,
    /// Whether the title goes in front of every chunk that is embedded and reranked. BEIR's
    /// convention is `title + " " + text`; the notebook's chunks already carry their title.
    pub embed_title: bool,
    /// Everything else the record carries (or the fields that were asked for).
    pub metadata: Map<String, Value>,
    /// How the text is structured, which decides whether and where it may be cut.
    pub shape: Shape,
    /// Where the record came from, for messages.
    pub place: crate::error::Place,
}

/// What kind of text a document holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A record of a table-like format; stays one row unless chunking is asked for.
    Record,
    /// Running text: cut on paragraph and sentence borders.
    Prose,
    /// Markdown: cut on heading, block and sentence borders.
    Markdown,
}
