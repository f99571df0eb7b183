//! `models/manifest.toml`: the listed models. Of a pinned one it has every file's SHA-256. Of the
//! others it has a description only: the files of their folder decide how they are used.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use warpseek_error::{Error, Place, Result};

/// The weights file of a model folder.
pub(crate) const WEIGHTS: &str = "model.safetensors";

/// Files without which a model cannot be opened.
pub(crate) const REQUIRED: [&str; 3] = ["config.json", "tokenizer.json", WEIGHTS];

const BUILTIN: &str = include_str!("../../../models/manifest.toml");
const FORMAT: u32 = 1;

/// The listed models, in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelManifest {
    /// One entry per model. Names, hub ids and aliases are unique, ignoring case.
    pub models: Vec<ModelSpec>,
}

/// The manifest's entry of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// The short name and name of the model folder: `all-MiniLM-L6-v2`.
    pub name: String,
    /// The task of the model.
    pub kind: ModelKind,
    /// The origin of its files.
    #[serde(default)]
    pub source: ModelSource,
    /// The hub id, `organisation/name`. Always set for [`ModelSource::Hub`].
    pub repo: Option<String>,
    /// The pinned commit of the hub repository, 40 hex digits. None for a model that is not pinned.
    pub revision: Option<String>,
    /// Other names of the model: older spellings and former hub ids.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// SPDX identifier of the weights' licence; `NOASSERTION` if the repository states none.
    pub license: String,
    /// Languages as ISO 639 codes, or `multilingual`. Empty if unknown.
    #[serde(default)]
    pub languages: Vec<String>,
    /// Dimension of an embedder's vectors. None for a reranker.
    pub dimension: Option<usize>,
    /// Longest input in tokens, special tokens included; for a reranker, of query and passage.
    pub max_tokens: usize,
    /// Pooling of a pinned embedder. None for a reranker, and for a model that is not pinned.
    pub pooling: Option<PoolingSpec>,
    /// True if a pinned embedder's vectors are scaled to unit length.
    #[serde(default)]
    pub normalize: bool,
    /// Text that a pinned embedder expects in front of queries, and of queries only.
    pub query_prompt: Option<String>,
    /// Share of the retrieval score in a reranker's final score, 0..=1. None is 0.
    pub retriever_weight: Option<f32>,
    /// A reranker's combination with cosines of all-MiniLM-L6-v2, if it was fitted.
    pub calibration: Option<CalibrationSpec>,
    /// Approximate size of the weights in bytes. Set for a model that is not pinned.
    pub about_bytes: Option<u64>,
    /// A remark for users.
    pub note: Option<String>,
    /// The files: `config.json`, `tokenizer.json`, `model.safetensors`, and others. Empty for a
    /// model that is not pinned.
    #[serde(default)]
    pub files: Vec<FileSpec>,
    /// A Python package that contains the same files.
    pub pip: Option<PipSpec>,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// Path inside the folder, with `/`. It never leads out of the folder.
    pub path: String,
    /// Size in bytes, if known.
    pub size: Option<u64>,
    /// 64 lower-case hex digits.
    pub sha256: String,
}

/// Constants of a fitted combination: `cosine * cos + logit` orders passages, and `sigmoid(scale *
/// key + offset)` is the probability of relevance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationSpec {
    /// Weight of the cosine in the key; the logit has the weight 1.
    pub cosine: f64,
    /// Slope of the probability's logit.
    pub scale: f64,
    /// The logit of the probability at a key of 0.
    pub offset: f64,
}

/// A Python wheel that contains a model's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipSpec {
    /// The package's name on the index.
    pub package: String,
    /// The exact version.
    pub version: String,
    /// The folder inside the wheel that contains the files.
    pub folder: String,
}

/// Task of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    /// Text to vector.
    Embedder,
    /// Query and passage to relevance score (cross-encoder).
    Reranker,
}

/// Pooling of token states to one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolingSpec {
    /// Mean over all tokens.
    Mean,
    /// State of the first token.
    Cls,
}

/// Origin of a listed model's files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelSource {
    /// The hub, at the pinned revision.
    #[default]
    Hub,
    /// The source tree, `models/<name>/`. Never fetched.
    Bundled,
}

impl ModelManifest {
    /// The manifest compiled into the program.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] as for [`ModelManifest::parse`]; a test ensures that it is valid.
    pub fn builtin() -> Result<Self> {
        Self::parse(BUILTIN, "models/manifest.toml")
    }

    /// Parses a manifest; `file` names it in messages.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] with the line, or the model and field: unknown or missing fields, a
    /// malformed sha256, revision or path, a name that is used twice.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let read: ManifestFile = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map(|before| format!("line {}", before.matches('\n').count() + 1));
            Error::input(Place { record: line, ..Place::file(file) }, error.message().trim())
        })?;
        if read.format != FORMAT {
            let reason = format!(
                "is {}, but this version reads only {FORMAT}: install a matching warpseek",
                read.format
            );
            return Err(Error::input(Place::file(file).field("format"), reason));
        }
        let mut names = HashSet::new();
        for spec in &read.model {
            let at = |(field, reason): (&str, String)| {
                let place = Place::record(file, format!("model '{}'", spec.name));
                Error::input(place.field(field), reason)
            };
            spec.validate().map_err(at)?;
            for name in spec.names() {
                if !names.insert(name.to_ascii_lowercase()) {
                    return Err(at(("name", format!("'{name}' is used twice"))));
                }
            }
        }
        Ok(Self { models: read.model })
    }

    /// Returns the model with this short name, hub id or alias, ignoring case.
    pub fn get(&self, name: &str) -> Option<&ModelSpec> {
        self.models.iter().find(|spec| spec.names().any(|known| known.eq_ignore_ascii_case(name)))
    }

    /// Returns the short names similar to `name`, the most similar first, at most three: for "did
    /// you mean".
    pub fn similar(&self, name: &str) -> Vec<&str> {
        const ENOUGH: f64 = 0.85;
        /// A name that contains the wanted one is at least this similar.
        const CONTAINS: f64 = 0.86;
        let wanted = name.to_ascii_lowercase();
        let similarity = |known: &str| {
            let known = known.to_ascii_lowercase();
            let is_part = || known.split(['-', '/']).any(|part| part == wanted);
            let contains = wanted.len() >= 4 && known.contains(&wanted) || is_part();
            let similarity = strsim::jaro_winkler(&wanted, &known);
            if contains { similarity.max(CONTAINS) } else { similarity }
        };
        let best = |spec: &ModelSpec| spec.names().map(similarity).fold(0.0, f64::max);
        let mut scored: Vec<_> = self.models.iter().map(|spec| (best(spec), spec)).collect();
        scored.retain(|(similarity, _)| *similarity > ENOUGH);
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        scored.into_iter().take(3).map(|(_, spec)| spec.name.as_str()).collect()
    }
}

impl ModelSpec {
    /// All names: short name, hub id, aliases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str())
            .chain(self.repo.as_deref())
            .chain(self.aliases.iter().map(String::as_str))
    }

    /// Current and former hub ids, the current one first.
    pub fn repos(&self) -> impl Iterator<Item = &str> {
        self.repo
            .as_deref()
            .into_iter()
            .chain(self.aliases.iter().map(String::as_str).filter(|alias| is_hub_id(alias)))
    }

    /// Returns the file at `path`, if the model has one.
    pub fn file(&self, path: &str) -> Option<&FileSpec> {
        self.files.iter().find(|file| file.path == path)
    }

    /// True if the manifest has the SHA-256 of every file.
    pub fn is_pinned(&self) -> bool {
        !self.files.is_empty()
    }

    /// SHA-256 of `model.safetensors`, which identifies the model. None if it is not pinned.
    pub fn weights_sha256(&self) -> Option<&str> {
        self.file(WEIGHTS).map(|file| file.sha256.as_str())
    }

    /// Size of all files in bytes. Files of unknown size (small ones) are not counted. Of a model
    /// that is not pinned, an approximation.
    pub fn bytes(&self) -> u64 {
        let sizes = self.files.iter().filter_map(|file| file.size);
        self.about_bytes.unwrap_or_else(|| sizes.sum())
    }

    /// Checks what serde cannot. An error is a field and the rule that it breaks.
    fn validate(&self) -> Result<(), (&'static str, String)> {
        let require = |holds: bool, field, rule: &str| match holds {
            true => Ok(()),
            false => Err((field, rule.to_owned())),
        };
        let embeds = self.kind == ModelKind::Embedder;
        let is_commit = |text: &String| is_hex(text, 40);
        let (pinned, bundled) = (self.is_pinned(), self.source == ModelSource::Bundled);
        let weight = self.retriever_weight.unwrap_or_default();
        require(is_name(&self.name), "name", "must consist of letters, digits, '.', '-' and '_'")?;
        let rule = "must have the form organisation/name";
        require(self.repo.as_deref().is_none_or(is_hub_id), "repo", rule)?;
        let rule = "must be a commit of 40 hex digits";
        require(self.revision.as_ref().is_none_or(is_commit), "revision", rule)?;
        let rule =
            "a model from the hub needs 'repo' and 'revision', or without 'files' only 'repo'";
        let on_hub = self.repo.is_some() && self.revision.is_some() == pinned;
        require(if bundled { pinned } else { on_hub }, "repo", rule)?;
        let rule = "'dimension' is for every embedder and for no reranker, and 'pooling' is for \
                    every embedder with 'files'";
        let agrees = embeds == self.dimension.is_some();
        require(agrees && (embeds && pinned) == self.pooling.is_some(), "dimension", rule)?;
        let rule = "without 'files', the model's own configuration decides 'normalize', \
                    'query_prompt' and 'pip', and 'about_bytes' is needed; with 'files' it is not";
        let states_none = !self.normalize && self.query_prompt.is_none() && self.pip.is_none();
        require(pinned || states_none, "files", rule)?;
        require(pinned == self.about_bytes.is_none(), "about_bytes", rule)?;
        let rule = "'max_tokens' and 'dimension' must be at least 1";
        require(self.max_tokens > 0 && self.dimension != Some(0), "max_tokens", rule)?;
        let rule = "must be between 0 and 1, and is for rerankers only";
        let agrees = (0.0..=1.0).contains(&weight) && !(embeds && self.retriever_weight.is_some());
        require(agrees, "retriever_weight", rule)?;
        let agrees = self
            .calibration
            .is_none_or(|c| !embeds && c.cosine > 0.0 && c.scale > 0.0 && c.offset.is_finite());
        let rule = "'cosine' and 'scale' must be above 0, and are for rerankers only";
        require(agrees, "calibration", rule)?;
        let mut paths = HashSet::new();
        for FileSpec { path, sha256, .. } in &self.files {
            let rule = format!("'{path}' must be a plain relative path");
            require(is_plain_path(path), "files", &rule)?;
            require(is_hex(sha256, 64), "files", &format!("{path}: sha256 must be 64 hex digits"))?;
            require(paths.insert(path), "files", &format!("'{path}' is listed twice"))?;
        }
        for path in REQUIRED.iter().filter(|_| pinned) {
            require(self.file(path).is_some(), "files", &format!("'{path}' is missing"))?;
        }
        let is_plain = |pip: &PipSpec| is_name(&pip.package) && is_name(&pip.version);
        let rule = "'package' and 'version' must be plain words";
        require(self.pip.as_ref().is_none_or(is_plain), "pip", rule)
    }
}

/// True if `name` has the form of a hub id, `organisation/name`.
pub fn is_hub_id(name: &str) -> bool {
    name.split_once('/').is_some_and(|(owner, repo)| is_name(owner) && is_name(repo))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestFile {
    format: u32,
    model: Vec<ModelSpec>,
}

/// True for a plain file or repository name: not empty, hidden, an option, or a path out of a
/// folder.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// True for a relative path of plain names, with `/`.
pub(crate) fn is_plain_path(text: &str) -> bool {
    text.split('/').all(is_name)
}

/// True for exactly `digits` lower-case hex digits.
pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
