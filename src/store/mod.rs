//! The index on disk: a folder that one process writes and any number of processes read.
//!
//! | file | content |
//! | --- | --- |
//! | `manifest.json` | settings: model, dimension, chunking, language; never changes |
//! | `documents.db` | SQLite: documents, chunks, lexical index, fields, commit records, state |
//! | `vectors-G.f16` | the matrix of generation `G`: one row in half precision per chunk |
//! | `vectors-G.i8`, `vectors-G.scale` | int8 copy of the rows, made from them; may be missing |
//! | `vectors-G.sum` | checksums of each row and its int8 copy; may be missing |
//! | `commits` | the number of the last commit |
//! | `lock` | held by the writer |
//!
//! # Commits
//!
//! Rows are only appended. The database is the commit point: it stores how many rows count.
//!
//! ```text
//! commit:
//!     write the new rows to the vector files, from row n_rows on
//!     sync the vector files
//!     BEGIN
//!         mark replaced and deleted documents as deleted
//!         insert the new documents, chunks, words, fields
//!         insert a commit record: the new rows, their checksums, their largest norm
//!         n_rows = n_rows + number of new rows
//!     COMMIT, durable when it returns
//!     write the number of the commit to `commits`
//! ```
//!
//! The process may be killed at any instant. Before COMMIT takes effect, the database has the old
//! state. Rows from `n_rows` on do not count, and the next commit overwrites them. After COMMIT the
//! new rows count, and they are on the disk already. A full disk leaves the old state as well.
//!
//! # Compaction
//!
//! Deleted documents and their rows stay, marked, until `compact` writes the next generation.
//!
//! ```text
//! compact:
//!     copy the live rows to vectors-(G+1).*, checking the checksums of the old ones
//!     sync the new files
//!     BEGIN
//!         remove deleted documents, renumber the rows of the others
//!         rebuild commit records, lexical index and field catalogue
//!         generation = G + 1, n_rows = number of live rows
//!     COMMIT
//!     remove vectors-G.*, shrink the database
//! ```
//!
//! Killed before COMMIT, the index is generation `G`; after it, `G + 1`. The next writer removes
//! the files of any other generation.
//!
//! # Readers
//!
//! A reader takes no lock. [`Index::open`] begins a read transaction and maps the first `n_rows`
//! rows of the generation. It sees this snapshot until it is dropped: SQLite's write-ahead log
//! keeps the old pages, committed rows are never rewritten, and a removed file stays mapped. If a
//! compaction removes the vector files before they are opened, the reader starts again with the new
//! generation.
//!
//! A reader that may not write to the folder sees the same, the last commit; `unlocked` explains
//! how. Readers leave the database file and its log as they are: checkpoints are the writer's part.
//!
//! # Damage
//!
//! Opening checks the manifest against its hash in the database, the headers and lengths of the
//! vector files, and that no commit is lost (`commit_number`). A row is compared with its checksum
//! before a process first uses it ([`warpseek_topk::checksums`]), a page of the database when it
//! is read (`page_checksums`), a document with its hash before it is shown. A damaged int8 copy is
//! left out: searches are slower then, and find the same. [`verify`] checks all of it, and what the
//! parts say of each other: the checksums of rows and chunks in the commit records, the int8 copy,
//! field catalogue and lexical index against the data they are made from, and SQLite's own
//! structures.
//!
//! # Source files
//!
//! `format` (bytes of the vector files), `folder` (file names, lock), `manifest`, `database` (with
//! `page_checksums`, `unlocked` and `commit_number`) and `vector_files` know one kind of file each;
//! `index_files` opens them together; `lexical` and `language` make the words of hybrid searches.
//! On top of these are [`Index`] (`index`, `index_rows`, with one `reader` or several, or `remote`;
//! `passing`, `stats`), [`IndexWriter`] (`writer`, `pending`, `compact`), [`ShardWriter`]
//! (`shard_writer`, `shards`) and [`verify`].

mod commit_number;
mod commit_record;
mod compact;
mod database;
mod fields;
pub mod filter;
mod folder;
mod format;
mod hash;
mod index;
mod index_files;
mod index_rows;
mod inputs;
mod language;
mod lexical;
mod manifest;
mod page_checksums;
mod passing;
mod pending;
mod reader;
mod remote;
mod row;
mod shard_writer;
mod shards;
mod sources;
mod stats;
mod unlocked;
mod value;
mod vector_files;
mod verify;
mod writer;

pub use compact::Compaction;
pub use database::Stop;
pub use fields::{FieldCatalog, FieldTypes};
pub use filter::{FilterNotes, PassingRows};
pub(crate) use folder::{SHARDS_FILE, is_write_denied};
pub use hash::content_hash;
pub use index::Index;
pub use language::Language;
pub use lexical::{LexicalHit, LexicalHits};
pub use manifest::{IndexManifest, IndexMetric, ModelStamp};
pub use remote::{RemoteShards, RowRequests, ShardAnswer, ShardRequest};
pub use row::{Row, RowNames, passage};
pub use shard_writer::{ShardFolder, ShardWriter, UnfinishedRun, begin_shard};
pub use shards::{ShardEntry, ShardList, ShardSummary};
pub use stats::IndexStats;
pub use verify::{Finding, verify};
pub use writer::{ExistingDocument, IndexWriter};

#[cfg(target_endian = "big")]
compile_error!("the index files are little-endian and mapped as they are");
