//! Models: finding, fetching and verifying their folders, tokenising, encoding.

mod builtin;
pub mod checksum;
mod download;
pub mod encoder;
mod failure;
pub mod fetch;
pub mod folder;
mod hub;
mod hub_cache;
pub mod locate;
pub mod manifest;
mod pip;
mod search;
pub mod sources;
pub mod tokenize;
mod transfer;

pub use fetch::{FetchEvent, OnEvent, quietly};
pub use folder::{FileReport, ModelFolder, Origin};
pub use locate::{CopyReport, ModelStatus, Models};
pub use manifest::{FileSpec, Manifest, ModelKind, ModelSource, ModelSpec};
pub use sources::Sources;
