//! Search: retrieve, fuse, diversify, rerank.
//!
//! [`Searcher`] holds an index with its models. `pipeline` runs the steps of a search in order:
//!
//! 1. embed the query, unless it is a vector;
//! 2. `retrieve`: metadata filter, exact scan, fusion with BM25 and MMR (both in `fusion`);
//! 3. `rerank`: a cross-encoder reads the first candidates and orders them again;
//! 4. read the texts of the hits.
//!
//! There is one pipeline. Commands compute its steps directly; the server passes the steps that
//! need a model or a scan to its scheduler (`SearchSteps`).

mod budget;
mod excerpt;
mod fusion;
mod options;
mod pipeline;
mod remote;
mod rerank;
mod result;
mod retrieve;
mod searcher;
mod signals;
mod stop;

pub use excerpt::excerpt;
pub use fusion::{RRF_CONSTANT, mmr, reciprocal_rank_fusion};
pub use options::{DEFAULT_MMR_LAMBDA, DEFAULT_RERANK_DEPTH, QueryInput, SearchOptions};
pub(crate) use pipeline::{DirectSteps, SearchSteps, hits, run_direct, search};
pub use remote::scan_shard;
pub use rerank::{LOW_PROBABILITY, RerankOrder, order_reranked};
pub(crate) use result::timed;
pub use result::{Candidate, Hit, OrderedBy, Retrieved, SearchResult, Timings};
pub use retrieve::embed_queries;
pub use searcher::{Searcher, no_reranker};
pub use signals::Fusion;
pub use stop::{is_stopped, stoppable};
