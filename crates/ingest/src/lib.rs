//! Files to documents to chunks: everything that happens before a model sees a text.
//!
//! ```no_run
//! use warpseek_ingest::{self as ingest, ReadOptions};
//!
//! # fn main() -> Result<(), warpseek_error::Error> {
//! for document in ingest::open(&["papers.jsonl.gz".into()], &ReadOptions::default())? {
//!     let document = document?;
//!     // chunk, embed, store
//! #   drop(document);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # The way from an input to its documents
//!
//! ```text
//! paths, folders, -     inputs.rs    a list of inputs: each exists, can be opened, has a format
//!                       walk.rs      the files of a folder, without what ignore files name
//!                       paths.rs     their names, the same however a path was written
//!                       tables.rs    tables with a log of their files: refused
//!                       stamps.rs    which of them have changed since they were read
//!                       listed.rs    the same files for other processes
//! each input            stream.rs    its bytes: counted, decompressed, read as UTF-8 (recode.rs);
//!                                    other formats are refused (magic.rs)
//!                       partition.rs the columns in the names of its folders
//! each record           jsonl.rs     one JSON object per line; or of an array (json_stream.rs)
//!                       csv.rs       one row below a header, or without one (header.rs); also tsv
//!                                    and other delimiters (delimiter.rs)
//!                       parquet/     one row
//!                       text.rs      one file: text, Markdown (markdown.rs), HTML (html.rs), rst
//!                                    and Org (markup.rs), TeX, code, notebooks, messages
//! each page, slide ...  office/      PDF, DOCX, PPTX, XLSX, ODT, EPUB, in a process of its own
//! each document         fields.rs    id, title and text of the record; the rest is metadata
//! each query            query_fields.rs  its id, text, vector and filter (query_file.rs)
//!                       notes.rs     values that were replaced, columns that were left out
//!                       reader.rs    the iterator over all inputs
//!                       skips.rs     what was left out, by reason
//!                       records.rs   records that a program holds in memory
//! each chunk            chunk.rs     byte ranges of the document's text that fit the embedder
//!                       overlap.rs   how far each repeats the text before it
//! ```
//!
//! [`open`] checks all inputs at once, before the first record is read. The resulting
//! [`DocumentReader`] then reads one input after another. An error about a record names the file,
//! the record and the field. It does not end the reading, which goes on behind the record, or with
//! the next input where the rest of a file cannot be read.
//!
//! # Roles of fields
//!
//! The first record of a file (or the header, or the schema) decides which field is what:
//!
//! | layout | recognised by | id | `doc_id` | text | title |
//! | --- | --- | --- | --- | --- | --- |
//! | BEIR | `_id`, `text` | `_id` | `_id` | `text` | `title` |
//! | chunked | `id`, `chunk-id`, `chunk` | `<id>-<chunk-id>` | `<id>` | `chunk` | `title` |
//! | questions | `question`, `answer` | by name | as id | both, if no text | by name |
//! | other | the names in [`FieldMap`] | by name | as id | by name | by name |
//!
//! The title is embedded with the text, except in the chunked layout, whose chunks contain it.
//!
//! Fields that become the id, the text or the title are not repeated in the metadata. All others
//! are kept there, in the order of the record. In BEIR's layout the fields of an object named
//! `metadata` move up beside the others, as `metadata.<name>` where that name is taken. Records
//! without an id field get the ids `<path>:<number of the record>`.
//!
//! Paths in ids are resolved: relative to [`ReadOptions::base`] below it, else absolute. However a
//! file is named, its documents have the same ids, and no two files share one.
//!
//! A file of records below a folder called `key=value` has the column `key` with that value, unless
//! it has a field of that name itself.
//!
//! # Values without a place in metadata
//!
//! Metadata is JSON. A value that JSON lacks (infinity, a date before the year 0) becomes text or
//! null, a column of a type without a JSON form is left out, and both are told by
//! [`DocumentReader::notes`]. Neither costs the record. An id is always needed, and a text or a
//! title: a record without them is an error. A record with a title alone is embedded by it, which
//! is told too.
//!
//! # Pages, slides, sheets and sections
//!
//! PDF, Office and EPUB files become one document per page, slide, block of rows or section, with
//! the id `<path>#page=3` and the `doc_id` `<path>`, and with `page`, `slide`, `sheet` and `row`,
//! or `section` in the metadata. Their parsers are large, and a file may make one crash or run
//! without end: with [`ExtractOptions::command`] each file is read in a process of its own.
//!
//! # Memory
//!
//! A record takes no more than a small multiple of [`ReadOptions::max_record_bytes`], whatever a
//! file claims. Parquet is decoded page by page, and a page may hold many records: its limits are
//! 256 MiB for a page and 1 GiB for the open pages of all columns. No input makes the process panic
//! or abort, unless PDF, Office or EPUB files are read without a process of their own.

pub mod chunk;
pub mod lines;

mod code;
mod csv;
mod delimiter;
mod document;
mod email;
mod fields;
mod format;
mod gzip;
mod header;
mod html;
mod inputs;
mod json;
mod json_stream;
mod jsonl;
mod listed;
mod magic;
mod markdown;
mod markup;
mod message;
mod notebook;
mod notes;
mod office;
mod options;
mod overlap;
mod parquet;
mod partition;
mod paths;
mod query_fields;
mod query_file;
mod questions;
mod reader;
mod recode;
mod records;
mod roles;
mod skips;
mod stamps;
mod stream;
mod tables;
mod tex;
mod text;
mod walk;

pub use document::{Document, MAX_ID_BYTES, TextKind, check_id};
pub use fields::from_object;
pub use format::FileFormat;
pub use inputs::name_in_messages;
pub use json::kind as json_kind;
pub use listed::{ListedFile, open_listed, text_columns_of};
pub use message::shown;
pub use notes::{MAX_NOTES, NON_FINITE, NoteKind, ReadNote, ReadNotes, TITLE_ALONE};
pub use office::{ExtractLimits, ExtractOptions, ExtractRequest, StopFlag};
pub use options::{DEFAULT_MAX_RECORD_BYTES, FieldMap, HeaderRule, ReadOptions, parse_delimiter};
pub use paths::{InputRoots, RECORDS_SOURCE, STREAM_SOURCE, input_path, resolve_folder};
pub use query_file::QueryFile;
pub use reader::{DocumentReader, ReadProgress, open, read_stream};
pub use records::{RecordParts, Records};
pub use skips::{FoundFiles, SkipGroup, SkipTable, SkippedFile};
pub use stamps::{FileStamp, FinishedFile, KnownFiles};
pub use walk::{SkipCounts, WalkOptions};
