//! `warpseek models info`.

use super::context::{Context, Status};
use super::term::{self, DecimalBytes, bold, say};
use crate::error::Result;
use crate::hub::{ModelFolder, ModelKind, ModelOrigin, ModelSpec, VerifiedBy};
use crate::models::{ModelDetails, describe};
use serde::Serialize;
use std::path::PathBuf;

/// Everything that is known of a model without opening it.
#[derive(Debug, Serialize)]
struct ModelInfo {
    name: String,
    kind: Option<ModelKind>,
    #[serde(flatten)]
    details: ModelDetails,
    license: Option<String>,
    languages: Vec<String>,
    note: Option<String>,
    repo: Option<String>,
    revision: Option<String>,
    /// True if the manifest has the SHA-256 of every file.
    pinned: bool,
    verified_by: Option<VerifiedBy>,
    present: bool,
    path: Option<PathBuf>,
    origin: Option<ModelOrigin>,
    sha256: Option<String>,
    /// Size of all files in bytes.
    bytes: u64,
    /// True if `bytes` is an approximation.
    about: bool,
    files: Vec<ModelFile>,
}

#[derive(Debug, Serialize)]
struct ModelFile {
    path: String,
    bytes: u64,
}

/// Describes a listed model, present or not, or another one that is present.
pub(super) fn run(name: &str, context: &Context) -> Result<Status> {
    let models = &context.engine.models;
    let listed = models.manifest.get(name);
    let folder = match (models.find(name), listed) {
        (Ok(folder), _) => Some(folder),
        (Err(_), Some(_)) => None,
        (Err(error), None) => return Err(error),
    };
    folder.iter().flat_map(|folder| &folder.warnings).for_each(|w| term::warn(w));
    let info = match folder {
        Some(folder) => ModelInfo::of_folder(folder),
        None => ModelInfo::of_spec(listed),
    };
    context.report(&info, || info.print())
}

impl ModelInfo {
    /// A model that is not present.
    fn of_spec(spec: Option<&ModelSpec>) -> Self {
        let pinned = spec.is_some_and(ModelSpec::is_pinned);
        Self {
            name: spec.map(|spec| spec.name.clone()).unwrap_or_default(),
            kind: spec.map(|spec| spec.kind),
            details: ModelDetails {
                dimension: spec.and_then(|spec| spec.dimension),
                max_tokens: spec.map(|spec| spec.max_tokens),
                ..ModelDetails::default()
            },
            license: spec.map(|spec| spec.license.clone()),
            languages: spec.map(|spec| spec.languages.clone()).unwrap_or_default(),
            note: spec.and_then(|spec| spec.note.clone()),
            repo: spec.and_then(|spec| spec.repo.clone()),
            revision: spec.and_then(|spec| spec.revision.clone()),
            pinned,
            verified_by: None,
            present: false,
            path: None,
            origin: None,
            sha256: None,
            bytes: spec.map_or(0, ModelSpec::bytes),
            about: !pinned,
            files: Vec::new(),
        }
    }

    /// A model that is present.
    fn of_folder(folder: ModelFolder) -> Self {
        let files = folder.files().into_iter();
        let files: Vec<_> = files.map(|(path, bytes)| ModelFile { path, bytes }).collect();
        Self {
            kind: folder.kind(),
            details: describe(&folder),
            verified_by: Some(folder.verified_by),
            present: true,
            bytes: files.iter().map(|file| file.bytes).sum(),
            about: false,
            files,
            ..Self::of_spec(folder.spec.as_ref())
        }
        .with_place(folder)
    }

    fn with_place(self, folder: ModelFolder) -> Self {
        Self {
            name: folder.name,
            revision: folder.revision,
            path: Some(folder.path),
            origin: Some(folder.origin),
            sha256: Some(folder.sha256),
            ..self
        }
    }

    fn print(&self) -> Result<()> {
        let line = |title: &str, text: Option<String>| match text.filter(|text| !text.is_empty()) {
            Some(text) => say!("  {title:11} {text}"),
            None => Ok(()),
        };
        let quoted = |prompt: &Option<String>| {
            let prompt = prompt.as_ref().filter(|prompt| !prompt.is_empty());
            prompt.map(|prompt| format!("\"{prompt}\""))
        };
        let number = |number: Option<usize>| number.map(|number| number.to_string());
        let details = &self.details;
        let pooling = details.pooling.as_ref().map(|pooling| serde_json::json!(pooling));
        let pooling = pooling.and_then(|pooling| pooling.as_str().map(str::to_owned));
        let verified = match self.verified_by {
            Some(VerifiedBy::Record) => ", verified by the record of the download",
            Some(VerifiedBy::Nothing) => ", used as it is: there is no record of a download",
            _ => "",
        };
        let absent = || format!("not present; `warpseek models pull {}` downloads it", self.name);
        let place = self.path.as_ref().map_or_else(absent, |path| path.display().to_string());
        say!("{}", bold(&self.name))?;
        line("kind", self.kind.map(|kind| kind_word(kind).into()))?;
        line("family", details.family.clone())?;
        line("dimension", number(details.dimension))?;
        line("tokens", number(details.max_tokens))?;
        line("pooling", pooling)?;
        line("unit length", details.normalize.map(|is| if is { "yes" } else { "no" }.into()))?;
        line("query", quoted(&details.query_prompt))?;
        line("passage", quoted(&details.passage_prompt))?;
        line("licence", self.license.as_deref().map(|license| licence(license).into()))?;
        line("languages", Some(self.languages.join(", ")))?;
        line("size", Some(size(self.bytes, self.about)))?;
        line("repository", self.repo.clone())?;
        line("revision", self.revision.clone())?;
        line("checksums", Some(format!("{}{verified}", pinned_word(self.pinned))))?;
        line("weights", self.sha256.as_ref().map(|sha256| format!("sha256 {sha256}")))?;
        line("note", self.note.clone())?;
        line("unusable", details.unusable.clone())?;
        line("folder", Some(place))?;
        for ModelFile { path, bytes } in &self.files {
            say!("  {:>11} {path}", DecimalBytes(*bytes).to_string())?;
        }
        Ok(())
    }
}

/// The word for the task of a model.
pub(super) fn kind_word(kind: ModelKind) -> &'static str {
    match kind {
        ModelKind::Embedder => "embedder",
        ModelKind::Reranker => "reranker",
    }
}

pub(super) fn pinned_word(pinned: bool) -> &'static str {
    if pinned { "pinned" } else { "not pinned" }
}

/// A size. An approximate one has `~` in front, and no decimals below a gigabyte.
pub(super) fn size(bytes: u64, about: bool) -> String {
    match about {
        true if bytes < 1_000_000_000 => format!("~{} MB", bytes.div_ceil(1_000_000)),
        true => format!("~{}", DecimalBytes(bytes)),
        false => DecimalBytes(bytes).to_string(),
    }
}

/// A licence in plain words.
pub(super) fn licence(spdx: &str) -> &str {
    match spdx {
        "NOASSERTION" => "not stated",
        stated => stated,
    }
}
