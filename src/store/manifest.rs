//! `manifest.json`: what an index is, written once when it is made.

use super::format::{FORMAT_VERSION, REBUILD, newer_version};
use crate::chunk::Chunking;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The manifest's file name.
pub(super) const MANIFEST_FILE: &str = "manifest.json";

/// What an index is made of. Never changes after the index was created.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexManifest {
    /// Always `warpseek-index`.
    pub format: String,
    /// The version of the format the index was written in.
    pub format_version: u32,
    /// The version of the tool that created it.
    pub tool_version: String,
    /// When it was created, seconds since 1970-01-01 UTC.
    pub created_unix: u64,
    /// The number of dimensions of a vector.
    pub dim: usize,
    /// Always `inner_product`.
    pub metric: String,
    /// The model the vectors come from; none where vectors were imported without one.
    pub model: Option<ModelStamp>,
    /// How texts were cut.
    pub chunking: Chunking,
}

/// Which embedding model an index belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStamp {
    /// The model's short name, hub id, or folder.
    pub name: String,
    /// The revision on the hub, where it is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revision: Option<String>,
    /// The sha256 of its `model.safetensors`, lower-case hex.
    pub sha256: String,
    /// The longest text it embeds, in tokens, special tokens included.
    pub max_tokens: usize,
}

impl IndexManifest {
    /// The manifest of a new index.
    pub fn new(dim: usize, model: Option<ModelStamp>, chunking: Chunking) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            format: "warpseek-index".to_owned(),
            format_version: FORMAT_VERSION,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            created_unix: now.map_or(0, |d| d.as_secs()),
            dim,
            metric: "inner_product".to_owned(),
            model,
            chunking,
        }
    }

    /// The manifest as the bytes of its file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads a manifest and checks that this build understands it.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] naming `path` where it is no JSON, no manifest, or of a newer version.
    pub fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        let fail = |reason: String| Error::corrupt(path, reason);
        let value: serde_json::Value = serde_json::from_slice(bytes)
            .map_err(|e| fail(format!("the manifest is damaged ({e}); {REBUILD}")))?;
        if value["format"] != "warpseek-index" {
            return Err(fail(format!("this is not a warpseek manifest; {REBUILD}")));
        }
        match value["format_version"].as_u64() {
            Some(v) if v > u64::from(FORMAT_VERSION) => {
                return Err(fail(newer_version(v.try_into().unwrap_or(u32::MAX))));
            }
            Some(_) => {}
            None => return Err(fail(format!("the format version is missing; {REBUILD}"))),
        }
        let manifest: Self = serde_json::from_value(value)
            .map_err(|e| fail(format!("the manifest is damaged ({e}); {REBUILD}")))?;
        if manifest.dim == 0 || manifest.dim > MAX_DIM || manifest.metric != "inner_product" {
            return Err(fail(format!(
                "dim {} or metric '{}' is not possible; {REBUILD}",
                manifest.dim, manifest.metric
            )));
        }
        Ok(manifest)
    }
}

/// The most dimensions an index may have.
pub const MAX_DIM: usize = 16_384;
