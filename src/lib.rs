//! Fully local semantic search.
#![warn(missing_docs)]

pub mod chunk;
pub mod error;
pub mod eval;
pub mod ingest;
pub mod scan;
pub mod store;
