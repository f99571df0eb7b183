//! The integration tests, one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, clippy::print_stdout)]

mod eval;
mod golden;
mod models;
mod parity;
mod support;
