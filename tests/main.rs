//! The integration tests, one binary.
#![allow(
    clippy::expect_used,
    clippy::manual_is_multiple_of,
    clippy::manual_try_fold,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used
)]

#[cfg(unix)]
mod access;
mod answer;
mod bad_input;
mod cli;
mod crash;
#[cfg(feature = "cuda")]
mod cuda;
mod eval;
mod families;
mod filters;
mod golden;
mod ids;
mod langchain;
mod language;
mod metric;
mod mutations;
mod pages;
mod parity;
mod quality;
mod remote;
mod reranking;
mod serve;
mod shards;
mod support;
mod sync;
mod tidy;
