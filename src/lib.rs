//! Fully local semantic search.
#![warn(missing_docs)]

pub mod chunk;
pub mod device;
pub mod embed;
pub mod error;
pub mod eval;
pub mod ingest;
pub mod model;
pub mod rerank;
pub mod scan;
pub mod store;
pub mod vectors;
