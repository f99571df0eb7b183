//! Models: finding, fetching and verifying their folders, tokenising, encoding.

pub mod encoder;
pub mod tokenize;
