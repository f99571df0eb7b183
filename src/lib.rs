//! Fully local semantic search.
#![warn(missing_docs)]

pub mod batch;
pub mod chunk;
pub mod compare;
pub mod config;
pub mod device;
pub mod embed;
pub mod error;
pub mod eval;
pub mod indexing;
pub mod ingest;
mod lines;
pub mod model;
pub mod output;
pub mod queries;
pub mod rerank;
pub mod scan;
pub mod search;
pub mod store;
pub mod vectors;
