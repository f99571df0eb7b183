//! Model folders: required files, comparison with the manifest, messages for unusable folders.

use std::path::{Path, PathBuf};

use serde::Serialize;
use warpseek_error::Result;

use crate::checksum::{ChecksumCache, sha256};
use crate::embedded::EmbeddedModel;
use crate::manifest::{FileSpec, ModelManifest, ModelSpec, REQUIRED, WEIGHTS};

/// A verified model, ready to be opened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelFolder {
    /// The folder with `config.json`, `tokenizer.json` and `model.safetensors`; `builtin:NAME` for
    /// a model compiled into the program.
    pub path: PathBuf,
    /// A name that finds it again: the manifest's short name, the hub id, or the folder's absolute
    /// path.
    pub name: String,
    /// The hub commit of its files, if known.
    pub revision: Option<String>,
    /// SHA-256 of `model.safetensors`, 64 lower-case hex digits.
    pub sha256: String,
    /// The place where it was found.
    pub origin: ModelOrigin,
    /// The manifest's entry, if all files match it.
    pub spec: Option<ModelSpec>,
    /// Damaged copies that were skipped, and other warnings for the user.
    pub warnings: Vec<String>,
}

/// Place where a model was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelOrigin {
    /// A folder named by the user.
    Explicit,
    /// A folder of model folders.
    ModelsDir,
    /// Compiled into the program.
    #[serde(rename = "builtin")]
    Embedded,
    /// The Hugging Face cache.
    HubCache,
    /// Just downloaded from the hub into the Hugging Face cache.
    Hub,
    /// Just downloaded from a Python package index into the folder of model folders.
    PackageIndex,
}

/// Check of one file of a model folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes; None if it is missing.
    pub bytes: Option<u64>,
    /// The expected SHA-256; None if the manifest does not list the model.
    pub expected: Option<String>,
    /// The actual SHA-256; None if the file was not read.
    pub got: Option<String>,
    /// The defect, with the file's path; None if there is none.
    pub flaw: Option<String>,
}

/// A place for a copy of a model.
pub(crate) struct ModelCopy {
    pub(crate) path: PathBuf,
    pub(crate) origin: ModelOrigin,
}

impl ModelFolder {
    /// The files themselves, if the model is compiled into the program.
    pub fn embedded(&self) -> Option<EmbeddedModel> {
        embedded(&self.path, self.origin)
    }
}

impl ModelCopy {
    /// Compares the copy with a listed model. One that is compiled into the program needs no check.
    /// An error has the defects, one line per file; it is empty if no file exists.
    pub(crate) fn check(
        &self,
        spec: &ModelSpec,
        checksums: &ChecksumCache,
    ) -> Result<ModelFolder, Vec<String>> {
        if self.origin != ModelOrigin::Embedded {
            let reports = self.inspect(Some(spec), checksums);
            if reports.iter().all(|report| report.bytes.is_none()) {
                return Err(Vec::new());
            }
            let flaws: Vec<_> = reports.into_iter().filter_map(|report| report.flaw).collect();
            if !flaws.is_empty() {
                return Err(flaws);
            }
        }
        Ok(ModelFolder {
            path: self.path.clone(),
            name: spec.name.clone(),
            revision: spec.revision.clone(),
            sha256: spec.weights_sha256().to_string(),
            origin: self.origin,
            spec: Some(spec.clone()),
            warnings: Vec::new(),
        })
    }

    /// Checks every file of a listed model, or the required files of an unlisted one.
    pub(crate) fn inspect(
        &self,
        spec: Option<&ModelSpec>,
        checksums: &ChecksumCache,
    ) -> Vec<FileReport> {
        match spec {
            Some(spec) => {
                let report = |file: &FileSpec| self.inspect_file(&file.path, Some(file), checksums);
                spec.files.iter().map(report).collect()
            }
            None => REQUIRED.map(|file| self.inspect_file(file, None, checksums)).to_vec(),
        }
    }

    /// Checks one file.
    fn inspect_file(
        &self,
        file: &str,
        spec: Option<&FileSpec>,
        checksums: &ChecksumCache,
    ) -> FileReport {
        let path = self.path.join(file);
        let content = embedded(&self.path, self.origin).and_then(|model| model.file(file));
        let on_disk = || path.metadata().ok().filter(|it| it.is_file()).map(|it| it.len());
        let bytes = content.map(|content| content.len() as u64).or_else(on_disk);
        let place = path.display();
        let hashed = match (bytes, spec.and_then(|spec| spec.size)) {
            (None, _) => Err(format!("{place} is missing")),
            (Some(bytes), Some(size)) if bytes != size => {
                Err(format!("{place} has {bytes} bytes, expected {size}"))
            }
            _ => match content {
                Some(content) => Ok(sha256(content)),
                None => checksums.sha256(&path).map_err(|error| error.to_string()),
            },
        };
        let expected = spec.map(|spec| spec.sha256.clone());
        let flaw = match (&hashed, &expected) {
            (Err(reason), _) => Some(reason.clone()),
            (Ok(got), Some(expected)) if got != expected => {
                Some(format!("{place}: sha256 is {got}, expected {expected}"))
            }
            _ => None,
        };
        FileReport { bytes, expected, got: hashed.ok(), flaw, path }
    }

    /// Opens a folder that is not known to be a listed model's. If its files match a listed model,
    /// it gets that model's entry. An error is the reason why the folder is unusable.
    pub(crate) fn open_unlisted(
        self,
        manifest: &ModelManifest,
        checksums: &ChecksumCache,
    ) -> Result<ModelFolder, String> {
        let folder = &self.path;
        if folder.is_file() {
            return Err("is a file: pass the folder that contains it".into());
        }
        if !folder.is_dir() {
            return Err("no such folder".into());
        }
        if let Some(missing) = REQUIRED.iter().find(|file| !folder.join(file).is_file()) {
            return Err(explain_missing(folder, missing));
        }
        let weights = folder.join(WEIGHTS);
        let sha256 = checksums.sha256(&weights).map_err(|error| error.to_string())?;
        let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
        let name = absolute.display().to_string();
        let mut warnings = Vec::new();
        let same_weights = manifest.models.iter().find(|spec| spec.weights_sha256() == sha256);
        let same_name = || manifest.get(folder.file_name()?.to_str()?);
        if let Some(spec) = same_weights {
            match self.check(spec, checksums) {
                Ok(found) => return Ok(ModelFolder { name, ..found }),
                Err(flaws) => warnings = flaws,
            }
        } else if let Some(spec) = same_name() {
            warnings.push(format!(
                "{}: sha256 is {sha256}, but that of {} is {}; the folder is used as an unlisted \
                 model",
                weights.display(),
                spec.name,
                spec.weights_sha256()
            ));
        }
        let (path, origin) = (self.path, self.origin);
        Ok(ModelFolder { path, name, revision: None, sha256, origin, spec: None, warnings })
    }
}

fn embedded(path: &Path, origin: ModelOrigin) -> Option<EmbeddedModel> {
    (origin == ModelOrigin::Embedded).then(|| EmbeddedModel::at(path)).flatten()
}

/// Reason why a folder without the file `missing` cannot be opened, with the remedy.
fn explain_missing(folder: &Path, missing: &str) -> String {
    let exists = |file: &str| folder.join(file).exists();
    let has_pickle = exists("pytorch_model.bin");
    if !REQUIRED.into_iter().any(exists) && !has_pickle {
        return format!("contains no model (no {})", REQUIRED.join(", no "));
    }
    if !exists(WEIGHTS) && has_pickle {
        return format!(
            "has its weights only as pytorch_model.bin, a pickle, and a pickle can run code when \
             it is loaded; convert it: cd {} && python -c \"import torch, safetensors.torch as \
             s; s.save_file({{k: v.clone().contiguous() for k, v in \
             torch.load('pytorch_model.bin', weights_only=True).items()}}, '{WEIGHTS}', \
             metadata={{'format': 'pt'}})\"",
            folder.display()
        );
    }
    match missing {
        WEIGHTS if exists("model.safetensors.index.json") => format!(
            "has its weights split into several files: save it again as one {WEIGHTS} \
             (save_pretrained with a larger max_shard_size)"
        ),
        "tokenizer.json" => "has no tokenizer.json: create it, in that folder, with python -c \
             \"from transformers import AutoTokenizer as T; \
             T.from_pretrained('.').save_pretrained('.')\""
            .into(),
        _ => format!("has no {missing}"),
    }
}
