//! Files to documents: one file a format, one [`Document`] a record.
//!
//! [`open`] takes files, folders and `-` for standard input, checks all of them at once, and
//! gives a [`Reader`], an iterator of documents:
//!
//! ```no_run
//! use warpseek::ingest::{self, ReadOptions};
//!
//! # fn main() -> warpseek::error::Result<()> {
//! for document in ingest::open(&["papers.jsonl.gz".into()], &ReadOptions::default())? {
//!     let document = document?;
//!     // chunk, embed, store
//! #   drop(document);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Which field is what
//!
//! The first record (or the header, or the schema) of each file decides, in this order:
//!
//! | layout | recognised by | id | `doc_id` | text | title |
//! | --- | --- | --- | --- | --- | --- |
//! | BEIR | `_id`, `text` | `_id` | `_id` | `text` | `title` |
//! | chunked | `id`, `chunk-id`, `chunk` | `<id>-<chunk-id>` | `<id>` | `chunk` | `title` |
//! | other | the lists of [`FieldMap`] | by list | as id | by list | by list |
//!
//! The title is embedded with the text, except in the chunked layout, whose chunks carry it.
//!
//! What became the id, the text or the title is not repeated in the metadata; everything else is
//! kept there, in the order of the record. In BEIR's layout an object named `metadata` is poured
//! out: its fields stand beside the others, as `metadata.<name>` where that name is taken.
//! A file without any id field gets the ids `<path>:<number of the record>`.
//!
//! # Memory
//!
//! Nothing allocates more than a small multiple of [`ReadOptions::max_record_bytes`] for a record,
//! whatever a file declares. Parquet is decoded page by page, and a page may hold many records:
//! its limits are 256 MiB a page and 1 GiB for the open pages of all columns.

mod csv;
mod fields;
mod format;
mod html;
mod json;
mod jsonl;
mod markdown;
mod parquet;
mod reader;
mod source;
mod stream;
mod text;

use serde_json::{Map, Value};

pub use fields::{FieldMap, check_id, from_object};
pub use format::Format;
pub use reader::{Progress, Reader, open, read_stream};
pub use source::SkippedFile;

/// The bound on one record where nothing else is asked for: 16 MiB.
pub const DEFAULT_MAX_RECORD_BYTES: u64 = 16 << 20;

/// The longest id, in bytes of UTF-8.
pub const MAX_ID_BYTES: usize = 512;

/// How input is read.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadOptions {
    /// The format of every input. `None` goes by the file's name, and takes standard input for
    /// JSON lines. With a format, every file of a folder is read, whatever its name.
    pub format: Option<Format>,
    /// Which field is the id, the text, the title. Text, Markdown and HTML files have no fields
    /// and are not concerned.
    pub fields: FieldMap,
    /// The longest record (a line, a row, a text file) in bytes after decompression, at least 1.
    /// A longer one is an error, and reading goes on behind it.
    pub max_record_bytes: u64,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            format: None,
            fields: FieldMap::default(),
            max_record_bytes: DEFAULT_MAX_RECORD_BYTES,
        }
    }
}

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

/// A name from the input, fit for a message: shortened, without control characters.
fn shown(name: &str) -> String {
    shortened(name, 80)
}

/// At most `longest` characters of a text, without control characters.
fn shortened(text: &str, longest: usize) -> String {
    let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut shortened: String = text.chars().take(longest).map(printable).collect();
    if text.chars().nth(longest).is_some() {
        shortened.push('…');
    }
    shortened
}

/// A number of bytes for a message: `16 MiB`, `300 bytes`.
fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (unit, name) in UNITS {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{} {name}", bytes / unit);
        }
    }
    format!("{bytes} bytes")
}
