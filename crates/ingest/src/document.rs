//! The document: one text with an id, a title and metadata.

use std::sync::Arc;

use serde_json::{Map, Value};
use warpseek_error::{Error, Place, Result};

/// Maximum length of an id, in bytes of UTF-8.
pub const MAX_ID_BYTES: usize = 512;

/// One record of the input, before chunking.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Unique within an index: a second record with the same id replaces the first.
    pub id: String,
    /// The id in relevance judgments (qrels). Several records, such as the chunks of one paper, may
    /// share it.
    pub doc_id: String,
    /// The title, empty if there is none.
    pub title: String,
    /// The body. Byte ranges of chunks refer to this string.
    pub text: String,
    /// True if the title goes in front of every chunk that is embedded and reranked. BEIR's
    /// convention is `title + " " + text`. The chunks of chunked papers contain their title.
    pub embed_title: bool,
    /// All other fields of the record, or those that were asked for.
    pub metadata: Map<String, Value>,
    /// True if the metadata came from a format without types, such as csv: a number is then a text
    /// that is written as JSON writes that number.
    pub is_untyped: bool,
    /// The structure of the text, by which it is cut.
    pub kind: TextKind,
    /// The position of the record in the input, for messages.
    pub place: Place,
    /// True if the record brought its id. Otherwise the id was made from the input's path, and the
    /// number of the record where an input has several.
    pub has_own_id: bool,
    /// The input: the path of a file, from [`ReadOptions::base`](crate::ReadOptions::base) or
    /// absolute, or [`STREAM_SOURCE`](crate::STREAM_SOURCE). `None` if there is no input.
    pub source: Option<Arc<str>>,
}

impl Document {
    /// A record with an id of its own and a text, without title, metadata and source.
    pub fn new(id: impl Into<String>, text: impl Into<String>, place: Place) -> Self {
        let (id, text) = (id.into(), text.into());
        Self {
            doc_id: id.clone(),
            id,
            title: String::new(),
            text,
            embed_title: false,
            metadata: Map::new(),
            is_untyped: false,
            kind: TextKind::Record,
            place,
            has_own_id: true,
            source: None,
        }
    }
}

/// Structure of a document's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextKind {
    /// A record of a table-like format: stays one chunk unless splitting is asked for.
    Record,
    /// Running text: cut at paragraphs and sentences.
    Prose,
    /// Markdown: cut at headings, blocks and sentences.
    Markdown,
    /// Source code: cut between functions, or at lines; its chunks repeat nothing.
    Code,
}

/// Checks that an id is not empty, too long or unprintable.
///
/// # Errors
///
/// [`Error::Input`] at `place`.
pub fn check_id(id: &str, place: &Place) -> Result<()> {
    let reason = if id.trim().is_empty() {
        "an id may not be empty".into()
    } else if id.len() > MAX_ID_BYTES {
        format!("the id is {} bytes long: at most {MAX_ID_BYTES} are allowed", id.len())
    } else if id.chars().any(char::is_control) {
        "an id may not hold control characters (line breaks, tabs): give another one, or rename \
         the file that it is made of"
            .into()
    } else {
        return Ok(());
    };
    Err(Error::input(place.clone(), reason))
}
