//! `manifest.json`: the settings of an index, written once when it is created.

use super::folder::{DATABASE_FILE, MANIFEST_FILE, read_error};
use super::format::{FORMAT_VERSION, LANGUAGE_VERSION, REBUILD, newer_version};
use super::language::Language;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::Path;
use warpseek_ingest::chunk::Chunking;
use warpseek_topk::layout::MAX_DIM;
use xxhash_rust::xxh3::xxh3_64;

/// Settings of an index. They never change after its creation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexManifest {
    /// Always `warpseek-index`.
    pub format: String,
    /// Format version in which the index was created.
    pub format_version: u32,
    /// Version of the tool that created it.
    pub tool_version: String,
    /// Time of its creation, in seconds since 1970-01-01 UTC.
    pub created_unix: u64,
    /// Dimensions of a vector.
    pub dim: usize,
    /// Always `inner_product`.
    pub metric: String,
    /// Model of the vectors; `None` if vectors were imported without one.
    pub model: Option<ModelStamp>,
    /// Chunking of the texts.
    pub chunking: Chunking,
    /// Language of the lexical index; see [`IndexManifest::language`].
    #[serde(skip_serializing_if = "is_none", default)]
    language: Option<Language>,
}

/// True if no language has to be stored, so that older programs can read the index.
fn is_none(language: &Option<Language>) -> bool {
    language.is_none_or(Language::is_none)
}

/// Identity of the embedding model of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStamp {
    /// The model's short name, hub id, or folder.
    pub name: String,
    /// The revision on the hub, if known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revision: Option<String>,
    /// The sha256 of its `model.safetensors`, lower-case hex.
    pub sha256: String,
    /// The longest text it embeds, in tokens, special tokens included.
    pub max_tokens: usize,
}

impl IndexManifest {
    /// Manifest of a new index.
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
            language: None,
        }
    }

    /// The manifest with a chosen language of the lexical index. With none chosen, a new index has
    /// no language, and an existing one keeps its own.
    pub fn with_language(self, language: Option<Language>) -> Self {
        let has_none = is_none(&language);
        let format_version = if has_none { FORMAT_VERSION } else { LANGUAGE_VERSION };
        Self { language, format_version, ..self }
    }

    /// Language of the lexical index; [`Language::NONE`] if none was chosen.
    pub fn language(&self) -> Language {
        self.language.unwrap_or_default()
    }

    /// Reads and checks `manifest.json` in `dir`. Also returns the XXH3-64 of its bytes.
    pub(super) fn read(dir: &Path) -> Result<(Self, u64)> {
        let path = dir.join(MANIFEST_FILE);
        let reason = match std::fs::read(&path) {
            Ok(bytes) => return Ok((Self::decode(&bytes, &path)?, xxh3_64(&bytes))),
            Err(e) if e.kind() == ErrorKind::NotFound && !dir.exists() => {
                "the folder does not exist; make one with `warpseek index INPUT --into DIR`"
            }
            Err(e) if e.kind() == ErrorKind::NotFound && dir.join(DATABASE_FILE).exists() => {
                "its creation was interrupted, or manifest.json was removed; run `warpseek index` \
                 again"
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                "manifest.json is missing; make one with `warpseek index INPUT --into DIR`"
            }
            Err(e) if e.kind() == ErrorKind::NotADirectory => {
                "this is a file; name the index folder"
            }
            Err(e) => return Err(read_error(&path, e)),
        };
        Err(Error::NoIndex { path: dir.to_path_buf(), reason: reason.to_owned() })
    }

    /// The bytes of `manifest.json`.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        let fail = |reason: String| Error::corrupt(path, reason);
        let damaged =
            |e: serde_json::Error| fail(format!("the manifest is damaged ({e}); {REBUILD}"));
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(damaged)?;
        if value["format"] != "warpseek-index" {
            return Err(fail(format!("this is not a warpseek manifest; {REBUILD}")));
        }
        match value["format_version"].as_u64() {
            Some(v) if v > u64::from(LANGUAGE_VERSION) => {
                return Err(fail(newer_version(v.try_into().unwrap_or(u32::MAX))));
            }
            Some(_) => {}
            None => return Err(fail(format!("the format version is missing; {REBUILD}"))),
        }
        if let Some(code) = value["language"].as_str()
            && let Err(e) = code.parse::<Language>()
        {
            return Err(fail(format!(
                "the index is of a language that this warpseek does not know: {e}; update \
                 warpseek, or build the index again with one of these"
            )));
        }
        let manifest: Self = serde_json::from_value(value).map_err(damaged)?;
        if manifest.dim == 0 || manifest.dim > MAX_DIM || manifest.metric != "inner_product" {
            return Err(fail(format!(
                "invalid dim {} or metric '{}'; {REBUILD}",
                manifest.dim, manifest.metric
            )));
        }
        Ok(manifest)
    }

    /// Checks that an index with this manifest in `dir` takes documents made with the settings
    /// `wanted`: the same dimensions, model, chunking and, if one is chosen, language.
    pub(super) fn check_compatible(&self, wanted: &Self, dir: &Path) -> Result<()> {
        let sha256 = |m: &Self| m.model.as_ref().map(|model| model.sha256.clone());
        let describe: fn(&Self) -> String = if self.dim != wanted.dim {
            |m| format!("{} dimensions", m.dim)
        } else if sha256(self) != sha256(wanted) {
            |m| match &m.model {
                Some(model) => format!("model '{}' (sha256 {:.8}...)", model.name, model.sha256),
                None => "no model".to_owned(),
            }
        } else if self.chunking != wanted.chunking {
            |m| {
                let Chunking { max_tokens, overlap, split_records } = m.chunking;
                let records = if split_records { "split" } else { "whole" };
                format!("chunks of {max_tokens} tokens with {overlap} overlap, records {records}")
            }
        } else if wanted.language.is_some_and(|language| language != self.language()) {
            |m| format!("the language {}", m.language())
        } else {
            return Ok(());
        };
        Err(Error::usage(format!(
            "{}: the index was made with {}, not {}; use the same setting, or build a new index in \
             another folder",
            dir.display(),
            describe(self),
            describe(wanted)
        )))
    }
}
