//! `manifest.json`: the settings of an index, written once when it is created.

use super::folder::{DATABASE_FILE, MANIFEST_FILE, folder_of_shards, read_error};
use super::format::{FORMAT_VERSION, MANIFEST_VERSION, REBUILD, newer_version};
use super::language::Language;
use crate::error::{Error, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use warpseek_ingest::chunk::Chunking;
use warpseek_topk::layout::MAX_DIM;
use xxhash_rust::xxh3::xxh3_64;

/// The metric of scans, which `manifest.json` names.
const SCANNED: &str = "inner_product";

/// The metric by which an index ranks. Scans always compute inner products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum IndexMetric {
    /// The cosine: vectors have unit length, so that the inner product is the cosine
    Cosine,
    /// The inner product of vectors of any length
    InnerProduct,
}

impl IndexMetric {
    /// The name in JSON: `cosine` or `inner_product`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::InnerProduct => "inner_product",
        }
    }
}

/// Settings of an index. They never change after its creation.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
    /// The metric. That of an index of an earlier version, which did not store it: the cosine with
    /// a model, the inner product without.
    pub metric: IndexMetric,
    /// False in an index of an earlier version, which did not store its metric.
    #[serde(skip)]
    pub states_metric: bool,
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

/// The content of `manifest.json`.
#[derive(Serialize, Deserialize)]
struct ManifestFile {
    format: String,
    format_version: u32,
    tool_version: String,
    created_unix: u64,
    dim: usize,
    /// Always `inner_product`, which scans compute.
    metric: String,
    /// True if vectors have unit length. Earlier versions do not store it, and refuse an index
    /// where it is false by its format version.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    normalized: Option<bool>,
    model: Option<ModelStamp>,
    chunking: Chunking,
    #[serde(skip_serializing_if = "is_none", default)]
    language: Option<Language>,
}

/// Identity of the embedding model of an index: what its vectors depend on.
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
    /// The properties beside the weights on which vectors depend, by name
    /// ([`Embedder::fingerprint`](warpseek_bert::Embedder::fingerprint)). Empty in an index of an
    /// earlier version, which did not store them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub properties: BTreeMap<String, String>,
    /// The number format that the first passages were computed in. Another one changes the last
    /// digits of vectors, which is told and not refused.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub precision: Option<String>,
}

impl ModelStamp {
    /// The differences between the model of an index, with this stamp, and `other`, one phrase
    /// each: `token limit: 256 in the index, 512 in the model`. A property that this stamp does
    /// not have, made by an earlier version, is not compared.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |name: &str, own: &str, other: Option<&str>| {
            let is_text = name.ends_with("prompt");
            let show = |value: Option<&str>| match value {
                None => "unknown".to_owned(),
                Some("") => "none".to_owned(),
                Some(text) if is_text => format!("'{text}'"),
                Some(value) => value.to_owned(),
            };
            if other != Some(own) {
                let (own, other) = (show(Some(own)), show(other));
                differences.push(format!("{name}: {own} in the index, {other} in the model"));
            }
        };
        let weights = |sha256: &str| format!("sha256 {sha256}");
        compare("weights", &weights(&self.sha256), Some(&weights(&other.sha256)));
        for (name, own) in &self.properties {
            compare(name, own, other.properties.get(name).map(String::as_str));
        }
        differences
    }
}

impl IndexManifest {
    /// Manifest of a new index that ranks by the cosine: its vectors have unit length.
    pub fn new(dim: usize, model: Option<ModelStamp>, chunking: Chunking) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            format: "warpseek-index".to_owned(),
            format_version: FORMAT_VERSION,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            created_unix: now.map_or(0, |d| d.as_secs()),
            dim,
            metric: IndexMetric::Cosine,
            states_metric: true,
            model,
            chunking,
            language: None,
        }
    }

    /// The manifest with a chosen language of the lexical index. With none chosen, a new index has
    /// no language, and an existing one keeps its own.
    pub fn with_language(self, language: Option<Language>) -> Self {
        Self { language, ..self }.versioned()
    }

    /// Language of the lexical index; [`Language::NONE`] if none was chosen.
    pub fn language(&self) -> Language {
        self.language.unwrap_or_default()
    }

    /// The manifest with another metric.
    pub fn with_metric(self, metric: IndexMetric) -> Self {
        Self { metric, ..self }.versioned()
    }

    /// The manifest with the version that its settings need.
    fn versioned(self) -> Self {
        let is_plain = self.metric == IndexMetric::Cosine && is_none(&self.language);
        let format_version = if is_plain { FORMAT_VERSION } else { MANIFEST_VERSION };
        Self { format_version, ..self }
    }

    /// The manifest of the index in `dir`; `None` if there is no index.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the manifest is damaged or of a newer version, [`Error::Io`].
    pub fn find(dir: &Path) -> Result<Option<Self>> {
        match Self::read(dir) {
            Ok((manifest, _)) => Ok(Some(manifest)),
            Err(Error::NoIndex { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Reads and checks `manifest.json` in `dir`. Also returns the XXH3-64 of its bytes.
    pub(super) fn read(dir: &Path) -> Result<(Self, u64)> {
        let path = dir.join(MANIFEST_FILE);
        let reason = match std::fs::read(&path) {
            Ok(bytes) => return Ok((Self::decode(&bytes, &path)?, xxh3_64(&bytes))),
            Err(e) if e.kind() == ErrorKind::NotFound && !dir.exists() => {
                "the folder does not exist; make one with `warpseek index INPUT --into DIR`"
            }
            Err(_) if folder_of_shards(dir).is_some() => {
                return Err(Error::usage(format!(
                    "{} holds the shards of an index, which do not change: change the index that \
                     they were made from, and make them again, with `warpseek shard` or on the \
                     cluster",
                    dir.display()
                )));
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
        let file = ManifestFile {
            format: self.format.clone(),
            format_version: self.format_version,
            tool_version: self.tool_version.clone(),
            created_unix: self.created_unix,
            dim: self.dim,
            metric: SCANNED.to_owned(),
            normalized: self.states_metric.then_some(self.metric == IndexMetric::Cosine),
            model: self.model.clone(),
            chunking: self.chunking,
            language: self.language,
        };
        let mut bytes = serde_json::to_vec_pretty(&file).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        let fail = |reason: String| Error::corrupt(path, reason);
        let damaged =
            |e: serde_json::Error| fail(format!("the manifest is damaged ({e}); {REBUILD}"));
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(damaged)?;
        if value["format"] != "warpseek-index" {
            return Err(fail(format!("this is not a warpseek manifest; {REBUILD}")));
        }
        match value["format_version"].as_u64() {
            Some(v) if v > u64::from(MANIFEST_VERSION) => {
                let version = v.try_into().unwrap_or(u32::MAX);
                return Err(fail(newer_version(version, MANIFEST_VERSION)));
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
        let file: ManifestFile = serde_json::from_value(value).map_err(damaged)?;
        if file.dim == 0 || file.dim > MAX_DIM || file.metric != SCANNED {
            return Err(fail(format!(
                "invalid dim {} or metric '{}'; {REBUILD}",
                file.dim, file.metric
            )));
        }
        let is_cosine = file.normalized.unwrap_or(file.model.is_some());
        Ok(Self {
            format: file.format,
            format_version: file.format_version,
            tool_version: file.tool_version,
            created_unix: file.created_unix,
            dim: file.dim,
            metric: if is_cosine { IndexMetric::Cosine } else { IndexMetric::InnerProduct },
            states_metric: file.normalized.is_some(),
            model: file.model,
            chunking: file.chunking,
            language: file.language,
        })
    }

    /// Checks that an index with this manifest in `dir` takes documents made with the settings
    /// `wanted`: the same dimensions, model, metric, chunking and, if one is chosen, language.
    pub(super) fn check_compatible(&self, wanted: &Self, dir: &Path) -> Result<()> {
        let fail = |reason: String| {
            Err(Error::usage(format!(
                "{}: {reason}; use the same setting, or build a new index in another folder",
                dir.display(),
            )))
        };
        let made_with = |describe: fn(&Self) -> String| {
            fail(format!("the index was made with {}, not {}", describe(self), describe(wanted)))
        };
        let sha256 = |m: &Self| m.model.as_ref().map(|model| model.sha256.clone());
        if self.dim != wanted.dim {
            return made_with(|m| format!("{} dimensions", m.dim));
        }
        if sha256(self) != sha256(wanted) {
            return made_with(|m| match &m.model {
                Some(model) => format!("model '{}' (sha256 {:.8}...)", model.name, model.sha256),
                None => "no model".to_owned(),
            });
        }
        if let (Some(own), Some(other)) = (&self.model, &wanted.model)
            && let differences = own.differences(other)
            && !differences.is_empty()
        {
            let differences = differences.join("; ");
            return fail(format!(
                "the index was made with other settings of the model: {differences}"
            ));
        }
        if self.states_metric && self.metric != wanted.metric {
            return made_with(|m| format!("the metric '{}'", m.metric.name()));
        }
        if self.chunking != wanted.chunking {
            return made_with(|m| {
                let Chunking { max_tokens, overlap, split_records } = m.chunking;
                let records = if split_records { "split" } else { "whole" };
                format!("chunks of {max_tokens} tokens with {overlap} overlap, records {records}")
            });
        }
        if wanted.language.is_some_and(|language| language != self.language()) {
            return made_with(|m| format!("the language {}", m.language()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(properties: &[(&str, &str)]) -> ModelStamp {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        ModelStamp {
            name: "m".to_owned(),
            revision: None,
            sha256: "ab".to_owned(),
            max_tokens: 64,
            properties: properties.iter().map(own).collect(),
            precision: Some("int8".to_owned()),
        }
    }

    fn decode(bytes: &[u8]) -> Result<IndexManifest> {
        IndexManifest::decode(bytes, Path::new("manifest.json"))
    }

    #[test]
    fn manifest_of_every_metric_round_trips() {
        for metric in [IndexMetric::Cosine, IndexMetric::InnerProduct] {
            for model in [None, Some(stamp(&[("token limit", "64")]))] {
                let manifest =
                    IndexManifest::new(4, model, Chunking::default()).with_metric(metric);
                let bytes = manifest.encode();
                assert_eq!(decode(&bytes).unwrap(), manifest);
                // What earlier versions read: a newer format, or their own metric.
                let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                assert_eq!(value["metric"], "inner_product");
                let version = if metric == IndexMetric::Cosine { 2 } else { 3 };
                assert_eq!(value["format_version"], version);
            }
        }
    }

    #[test]
    fn manifest_of_an_earlier_version_takes_what_it_took() {
        let earlier = |model: &str| {
            let json = format!(
                r#"{{"format": "warpseek-index", "format_version": 2, "tool_version": "0.0.9",
                "created_unix": 1, "dim": 4, "metric": "inner_product", "model": {model},
                "chunking": {{"max_tokens": 254, "overlap": 32, "split_records": false}}}}"#
            );
            decode(json.as_bytes()).unwrap()
        };
        let (made, imported) =
            (earlier(r#"{"name": "m", "sha256": "ab", "max_tokens": 64}"#), earlier("null"));
        assert_eq!((made.metric, made.states_metric), (IndexMetric::Cosine, false));
        assert_eq!((imported.metric, imported.states_metric), (IndexMetric::InnerProduct, false));
        let chunking = made.chunking;
        for metric in [IndexMetric::Cosine, IndexMetric::InnerProduct] {
            let wanted = |model| IndexManifest::new(4, model, chunking).with_metric(metric);
            let model = stamp(&[("token limit", "512"), ("pooling", "cls")]);
            made.check_compatible(&wanted(Some(model)), Path::new("i")).unwrap();
            imported.check_compatible(&wanted(None), Path::new("i")).unwrap();
        }
    }

    #[test]
    fn differences_name_each_property_with_both_values() {
        let index = stamp(&[("query prompt", ""), ("token limit", "256"), ("new thing", "x")]);
        let model = stamp(&[("query prompt", "q: "), ("token limit", "512"), ("later", "y")]);
        assert_eq!(
            index.differences(&ModelStamp { sha256: "cd".to_owned(), ..model }),
            [
                "weights: sha256 ab in the index, sha256 cd in the model",
                "new thing: x in the index, unknown in the model",
                "query prompt: none in the index, 'q: ' in the model",
                "token limit: 256 in the index, 512 in the model",
            ]
        );
        let other_format = ModelStamp { precision: None, name: "n".to_owned(), ..index.clone() };
        assert_eq!(index.differences(&other_format), [""; 0]);
        let manifest = |model| IndexManifest::new(4, Some(model), Chunking::default());
        let refused = manifest(index.clone())
            .check_compatible(&manifest(stamp(&[("token limit", "512")])), Path::new("i"))
            .unwrap_err();
        assert!(refused.to_string().contains("token limit: 256 in the index, 512"), "{refused}");
    }
}
