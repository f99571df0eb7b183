//! Model folders: comparison with the manifest, or with the record of a download.

use std::path::{Path, PathBuf};

use serde::Serialize;
use warpseek_error::Result;

use crate::cache::RECORD;
use crate::checksum::{ChecksumCache, sha256};
use crate::embedded::EmbeddedModel;
use crate::layout::{Layout, MODULES, explain_missing, identity_of};
use crate::manifest::{FileSpec, ModelKind, ModelManifest, ModelSpec, WEIGHTS};
use crate::record::Record;

/// A verified model, ready to be opened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelFolder {
    /// The folder with configuration, tokenizer and weights; `builtin:NAME` for a model compiled
    /// into the program.
    pub path: PathBuf,
    /// A name that finds it again: the manifest's short name, the hub id, or the folder's absolute
    /// path.
    pub name: String,
    /// The hub commit of its files, if known.
    pub revision: Option<String>,
    /// The identity of the weights, 64 lower-case hex digits: the SHA-256 of `model.safetensors`.
    /// Of weights in several files (shards, dense layers), that of the text which `sha256sum`
    /// prints for them, sorted by path.
    pub sha256: String,
    /// The place where it was found.
    pub origin: ModelOrigin,
    /// The manifest's entry: if all files match it, or if it is not pinned and the folder is named
    /// by it.
    pub spec: Option<ModelSpec>,
    /// The checksums that the files were compared with.
    pub verified_by: VerifiedBy,
    /// Damaged copies that were skipped, and other warnings for the user.
    pub warnings: Vec<String>,
}

/// Origin of the checksums that a model's files were compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifiedBy {
    /// The manifest.
    Manifest,
    /// The record of the download in the model folder.
    Record,
    /// None: a folder made by hand, or by another program.
    Nothing,
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
    /// The expected SHA-256; None if neither the manifest nor a record has it.
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

    /// The files that decide vectors, as paths inside the folder, and their sizes in bytes.
    pub fn files(&self) -> Vec<(String, u64)> {
        if let Some(model) = self.embedded() {
            let size = |(name, bytes): &(&str, &[u8])| ((*name).to_string(), bytes.len() as u64);
            return model.files.iter().map(size).collect();
        }
        let all = Layout::of(&self.path).and_then(|layout| layout.files(&self.path));
        let size = |file: String| {
            let size = self.path.join(&file).metadata().ok()?.len();
            Some((file, size))
        };
        all.unwrap_or_default().into_iter().filter_map(size).collect()
    }

    /// The task of the model: by the manifest's entry, else by its configuration. None if neither
    /// tells.
    pub fn kind(&self) -> Option<ModelKind> {
        if let Some(spec) = &self.spec {
            return Some(spec.kind);
        }
        kind_of(&self.path)
    }

    /// `model_type` of the model's configuration, such as `bert`.
    pub fn family(&self) -> Option<String> {
        let config = match self.embedded() {
            Some(model) => serde_json::from_slice(model.file("config.json")?).ok()?,
            None => config_of(&self.path)?,
        };
        config.model_type
    }
}

/// The task that the files of a folder tell: pooling makes an embedder, a classification head on
/// the encoder a reranker.
fn kind_of(folder: &Path) -> Option<ModelKind> {
    let config = config_of(folder)?;
    let mut names = config.architectures.iter().flatten();
    let has_head = names.any(|it| it.ends_with("ForSequenceClassification"));
    match (folder.join(MODULES).is_file(), has_head) {
        (false, true) => Some(ModelKind::Reranker),
        (true, false) => Some(ModelKind::Embedder),
        _ => None,
    }
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct ConfigFile {
    architectures: Option<Vec<String>>,
    model_type: Option<String>,
}

/// The encoder's configuration, if it can be understood.
fn config_of(folder: &Path) -> Option<ConfigFile> {
    let config = Layout::of(folder).ok()?.encoder_file("config.json");
    serde_json::from_slice(&std::fs::read(folder.join(config)).ok()?).ok()
}

impl ModelCopy {
    /// Compares the copy with a listed model: with the manifest if it is pinned, else with the
    /// record of its download. One that is compiled into the program needs no check. An error has
    /// the defects, one line per file; it is empty if no file exists.
    pub(crate) fn check(
        &self,
        spec: &ModelSpec,
        checksums: &ChecksumCache,
    ) -> Result<ModelFolder, Vec<String>> {
        let name = spec.name.clone();
        let Some(sha256) = spec.weights_sha256() else {
            let found = self.open_unpinned(&name, checksums)?;
            return Ok(ModelFolder { spec: Some(spec.clone()), ..found });
        };
        if self.origin != ModelOrigin::Embedded {
            flaws(self.inspect(Some(spec), checksums))?;
        }
        Ok(ModelFolder {
            path: self.path.clone(),
            name,
            revision: spec.revision.clone(),
            sha256: sha256.to_string(),
            origin: self.origin,
            spec: Some(spec.clone()),
            verified_by: VerifiedBy::Manifest,
            warnings: Vec::new(),
        })
    }

    /// Opens a folder that no manifest pins, and compares it with its record if it has one. An
    /// error has the defects; it is empty if no file exists.
    fn open_unpinned(
        &self,
        name: &str,
        checksums: &ChecksumCache,
    ) -> Result<ModelFolder, Vec<String>> {
        let place = self.path.display();
        let record = Record::read(&self.path).map_err(|flaw| vec![flaw])?;
        let reports = self.inspect(None, checksums);
        if let Some(record) = record {
            flaws(reports)?;
            return Ok(ModelFolder {
                sha256: record.weights_sha256(),
                revision: Some(record.commit),
                ..self.found(name, VerifiedBy::Record)
            });
        }
        let fail = |reason: String| vec![format!("{place}: {reason}")];
        let layout = Layout::of(&self.path).map_err(fail)?;
        let files = layout.files(&self.path).map_err(fail)?;
        if reports.iter().all(|report| report.bytes.is_none()) {
            return Err(Vec::new());
        }
        if let Some(missing) = files.iter().find(|file| !self.path.join(file).is_file()) {
            return Err(fail(explain_missing(&self.path, missing)));
        }
        let sha256 =
            identity_of(&self.path, &files, checksums).map_err(|error| vec![error.to_string()])?;
        let found = self.found(name, VerifiedBy::Nothing);
        Ok(ModelFolder { sha256, warnings: self.may_be_partial(name), ..found })
    }

    /// A found model whose weights are not known yet. The snapshot's name is the revision.
    fn found(&self, name: &str, verified_by: VerifiedBy) -> ModelFolder {
        let in_cache = matches!(self.origin, ModelOrigin::HubCache | ModelOrigin::Hub);
        let commit = self.path.file_name().and_then(|name| name.to_str()).filter(|_| in_cache);
        ModelFolder {
            path: self.path.clone(),
            name: name.to_string(),
            revision: commit.map(str::to_string),
            sha256: String::new(),
            origin: self.origin,
            spec: None,
            verified_by,
            warnings: Vec::new(),
        }
    }

    /// A warning if another program cached the model, and perhaps not the list of its modules.
    /// `huggingface_hub` notes in `.no_exist` that a repository does not have a file.
    fn may_be_partial(&self, name: &str) -> Vec<String> {
        let has_modules = || self.path.join(MODULES).exists();
        let is_known = || {
            let commit = self.path.file_name()?;
            let repo = self.path.parent()?.parent()?;
            Some(repo.join(".no_exist").join(commit).join(MODULES).exists())
        };
        if self.origin != ModelOrigin::HubCache
            || has_modules()
            || kind_of(&self.path).is_some()
            || is_known().unwrap_or(true)
        {
            return Vec::new();
        }
        vec![format!(
            "{}: another program cached this model, without {MODULES}, so that the default pooling \
             is used: `warpseek models pull {name}` asks the hub for it",
            self.path.display()
        )]
    }

    /// Checks every file of a pinned model; else of the record of the download; else the files that
    /// decide vectors.
    pub(crate) fn inspect(
        &self,
        spec: Option<&ModelSpec>,
        checksums: &ChecksumCache,
    ) -> Vec<FileReport> {
        let check = |file: &FileSpec| self.inspect_file(&file.path, Some(file), checksums);
        if let Some(spec) = spec.filter(|spec| spec.is_pinned()) {
            return spec.files.iter().map(check).collect();
        }
        let present = Layout::of(&self.path).and_then(|layout| layout.files(&self.path));
        match (Record::read(&self.path), present) {
            (Ok(Some(record)), present) => {
                let is_new = |path: &String| {
                    let exists = self.path.join(path).exists();
                    exists && !record.files.iter().any(|file| file.path == *path)
                };
                let added = present.unwrap_or_default().into_iter().filter(is_new);
                let reason =
                    format!("was added after the download: delete it, or {RECORD} to trust it");
                let added = added.map(|path| self.reject(&path, &reason));
                record.files.iter().map(check).chain(added).collect()
            }
            (Err(flaw), _) => vec![FileReport { flaw: Some(flaw), ..self.reject(RECORD, "") }],
            (Ok(None), Ok(files)) => {
                files.iter().map(|file| self.inspect_file(file, None, checksums)).collect()
            }
            (Ok(None), Err(flaw)) => vec![self.reject(MODULES, &flaw)],
        }
    }

    /// The report of a file that must not be there as it is.
    fn reject(&self, file: &str, reason: &str) -> FileReport {
        let path = self.path.join(file);
        let bytes = path.metadata().ok().filter(|it| it.is_file()).map(|it| it.len());
        let flaw = Some(format!("{}: {reason}", path.display()));
        FileReport { bytes, expected: None, got: None, flaw, path }
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

    /// Opens a folder that is not known to be a listed model's. If its files match a pinned model,
    /// it gets that model's entry. The name is the absolute path if none is given. An error is the
    /// reason why the folder is unusable.
    pub(crate) fn open_unlisted(
        self,
        name: Option<&str>,
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
        let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
        let name = name.map_or_else(|| absolute.display().to_string(), str::to_string);
        let mut found = self.open_unpinned(&name, checksums).map_err(|flaws| match &flaws[..] {
            [] => explain_missing(folder, "config.json"),
            [flaw] => {
                let own = format!("{}: ", folder.display());
                flaw.strip_prefix(&own).unwrap_or(flaw).to_string()
            }
            _ => flaws.join("\n  "),
        })?;
        let sha256 = Some(found.sha256.as_str());
        let same_weights = manifest.models.iter().find(|spec| spec.weights_sha256() == sha256);
        let same_name = || manifest.get(folder.file_name()?.to_str()?);
        if let Some(spec) = same_weights {
            match self.check(spec, checksums) {
                Ok(listed) => return Ok(ModelFolder { name, ..listed }),
                Err(flaws) => found.warnings.extend(flaws),
            }
        } else if let Some((spec, listed)) =
            same_name().and_then(|spec| Some((spec, spec.weights_sha256()?)))
        {
            found.warnings.push(format!(
                "{}: sha256 is {}, but that of {} is {listed}; the folder is used as an unlisted \
                 model",
                folder.join(WEIGHTS).display(),
                found.sha256,
                spec.name,
            ));
        }
        Ok(found)
    }
}

/// The defects of files, if there are any. Empty if no file exists.
fn flaws(reports: Vec<FileReport>) -> Result<(), Vec<String>> {
    if reports.iter().all(|report| report.bytes.is_none() && report.expected.is_some()) {
        return Err(Vec::new());
    }
    let flaws: Vec<_> = reports.into_iter().filter_map(|report| report.flaw).collect();
    if flaws.is_empty() { Ok(()) } else { Err(flaws) }
}

fn embedded(path: &Path, origin: ModelOrigin) -> Option<EmbeddedModel> {
    (origin == ModelOrigin::Embedded).then(|| EmbeddedModel::at(path)).flatten()
}
