//! The integration tests, one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, clippy::print_stdout)]

mod cli;
mod crash;
mod eval;
mod filters;
mod golden;
mod ingest;
mod models;
mod parity;
mod quality;
mod support;
mod tidy;
