//! The integration tests, one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, clippy::print_stdout)]

mod cli;
mod eval;
mod golden;
mod ingest;
mod models;
mod parity;
mod support;
