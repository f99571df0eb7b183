//! The integration tests, one binary.

mod eval;
mod parity;
