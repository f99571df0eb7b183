//! Fully local semantic search: read, chunk, embed, store, search exactly, rerank, compare.
//!
//! The modules in the order of the pipeline:
//!
//! | step | module |
//! | --- | --- |
//! | files to documents and chunks | [`ingest`] |
//! | finding, fetching and verifying models | [`hub`] |
//! | opening and running models | [`engine`], [`models`], [`bert`] |
//! | the index on disk | [`store`] |
//! | all of it together, resumable | [`indexing`] |
//! | vectors of other tools | [`vectors`] |
//! | exact top-k over the vectors | [`topk`] |
//! | retrieve, fuse, diversify, rerank | [`search`] |
//! | answers with checked citations | [`answer`] |
//! | two rankings side by side; judged queries; many queries | [`compare`], [`eval`], [`batch`] |
//! | all of it behind one port, and as commands | [`server`], [`cli`] |
//! | throughput beside the machine's limits | [`mod@bench`] |
//! | devices, instruction sets, GPU memory | [`compute`] |
//!
//! [`engine::Engine`] opens models and indexes, [`search::Searcher`] reads an index,
//! [`indexing::index`] writes one. Errors are one enum,
//! [`error::Error`], whose messages say what to do.
#![warn(missing_docs)]

pub mod answer;
pub mod batch;
pub mod bench;
pub mod cli;
pub mod compare;
pub mod config;
pub mod engine;
pub mod eval;
pub mod indexing;
pub mod models;
pub mod output;
pub mod queries;
pub mod search;
pub mod server;
pub mod store;
pub mod vectors;

pub use warpseek_bert as bert;
pub use warpseek_compute as compute;
pub use warpseek_error as error;
pub use warpseek_hub as hub;
pub use warpseek_ingest as ingest;
pub use warpseek_topk as topk;

/// The example of the page about the library, compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/library.md")]
struct LibraryPage;
