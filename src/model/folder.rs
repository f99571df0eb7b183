//! A model folder: what it must hold, and whether it holds exactly that.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::Result;

use super::builtin;
use super::checksum::{self, Stamps};
use super::manifest::{Manifest, ModelSpec, REQUIRED, WEIGHTS};

/// A folder that holds a model, ready to be opened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelFolder {
    /// The folder with `config.json`, `tokenizer.json` and `model.safetensors`; `builtin:NAME` for a
    /// model that is compiled in.
    pub path: PathBuf,
    /// The name it can be asked for again: the manifest's short name, the hub id, or the folder's
    /// absolute path.
    pub name: String,
    /// The hub commit its files are from, where that is known.
    pub revision: Option<String>,
    /// The sha256 of `model.safetensors`, 64 lower-case hex digits.
    pub sha256: String,
    /// Where it was found.
    pub origin: Origin,
    /// The manifest's entry, if every file is the one named there.
    pub spec: Option<ModelSpec>,
    /// Damaged copies that were passed over, and other things worth telling.
    pub warnings: Vec<String>,
}

/// Where a model folder was found or came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The folder that was named.
    Explicit,
    /// A folder of model folders.
    ModelsDir,
    /// Compiled into the program.
    Builtin,
    /// The Hugging Face cache.
    HubCache,
    /// The hub, a moment ago; it lies in the Hugging Face cache now.
    Hub,
    /// A Python package index, a moment ago; it lies in the folder of model folders now.
    PackageIndex,
}

/// What reading one file of a model folder gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// The file.
    pub path: PathBuf,
    /// Its size; None if it is not there.
    pub bytes: Option<u64>,
    /// The sha256 it should have; None if the manifest does not know the model.
    pub expected: Option<String>,
    /// The sha256 it has; None if it was not read.
    pub got: Option<String>,
    /// What is wrong with it, naming the file; None if nothing is.
    pub flaw: Option<String>,
}

/// When a file's bytes are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// When size, time or inode changed since they were read last.
    IfChanged,
    /// In any case.
    Anew,
}

/// What stands at a place where a listed model could be.
pub(crate) enum Verdict {
    /// Every file is the one the manifest names.
    Sound,
    /// None of the model's files is there.
    Absent,
    /// What is wrong, a line a file.
    Flawed(Vec<String>),
}

/// Looks whether `folder` is a copy of the listed model.
pub(crate) fn check(folder: &Path, spec: &ModelSpec, stamps: &Stamps) -> Verdict {
    let reports = inspect(folder, spec, stamps, Reading::IfChanged);
    if reports.iter().all(|report| report.bytes.is_none()) {
        return Verdict::Absent;
    }
    let flaws: Vec<_> = reports.into_iter().filter_map(|report| report.flaw).collect();
    if flaws.is_empty() { Verdict::Sound } else { Verdict::Flawed(flaws) }
}

/// Compares every file of the listed model with what is in `folder`.
pub(crate) fn inspect(
    folder: &Path,
    spec: &ModelSpec,
    stamps: &Stamps,
    reading: Reading,
) -> Vec<FileReport> {
    let mut reports: Vec<_> = spec
        .files
        .iter()
        .map(|file| {
            let path = folder.join(&file.path);
            let bytes = match builtin::content(&path) {
                Some(content) => Some(content.len() as u64),
                None => {
                    path.metadata().ok().filter(|there| there.is_file()).map(|there| there.len())
                }
            };
            let flaw = match (bytes, file.size) {
                (None, _) => Some(format!("{} is missing", path.display())),
                (Some(bytes), Some(size)) if bytes != size => {
                    Some(format!("{} has {bytes} bytes, expected {size}", path.display()))
                }
                _ => None,
            };
            FileReport { path, bytes, expected: Some(file.sha256.clone()), got: None, flaw }
        })
        .collect();
    // A folder that is already known to be wrong need not be read.
    if reading == Reading::IfChanged && reports.iter().any(|report| report.flaw.is_some()) {
        return reports;
    }
    for report in reports.iter_mut().filter(|report| report.bytes.is_some()) {
        read(report, stamps, reading);
    }
    reports
}

/// Reads the required files of a folder the manifest does not know.
pub(crate) fn inspect_unlisted(folder: &Path, stamps: &Stamps) -> Vec<FileReport> {
    let report = |file: &str| {
        let path = folder.join(file);
        let bytes = path.metadata().ok().map(|there| there.len());
        let mut report = FileReport { path, bytes, expected: None, got: None, flaw: None };
        read(&mut report, stamps, Reading::Anew);
        report
    };
    REQUIRED.into_iter().map(report).collect()
}

/// Opens a folder whose content nobody vouches for; an error says what it lacks. If its files turn
/// out to be a listed model's, the folder gets that model's entry.
pub(crate) fn open_unlisted(
    folder: &Path,
    origin: Origin,
    manifest: &Manifest,
    stamps: &Stamps,
) -> Result<ModelFolder, String> {
    if folder.is_file() {
        return Err("is a file: pass the folder that holds it".into());
    }
    if !folder.is_dir() {
        return Err("no such folder".into());
    }
    if let Some(missing) = REQUIRED.iter().find(|file| !folder.join(file).is_file()) {
        return Err(lack(folder, missing));
    }
    let sha256 = stamps.sha256(&folder.join(WEIGHTS)).map_err(|error| error.to_string())?;
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    let mut found = ModelFolder {
        path: folder.to_path_buf(),
        name: absolute.display().to_string(),
        revision: None,
        sha256,
        origin,
        spec: None,
        warnings: Vec::new(),
    };
    let twin = manifest.models.iter().find(|spec| spec.weights_sha256() == found.sha256);
    let namesake = || manifest.get(folder.file_name()?.to_str()?);
    if let Some(spec) = twin {
        match check(folder, spec, stamps) {
            Verdict::Flawed(flaws) => found.warnings.extend(flaws),
            _ => {
                found.revision = spec.revision.clone();
                found.spec = Some(spec.clone());
            }
        }
    } else if let Some(spec) = namesake() {
        found.warnings.push(format!(
            "{}: sha256 is {}, but that of {} is {}; it is used as a model of its own",
            folder.join(WEIGHTS).display(),
            found.sha256,
            spec.name,
            spec.weights_sha256()
        ));
    }
    Ok(found)
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Explicit => "given folder",
            Self::ModelsDir => "models folder",
            Self::Builtin => "built in",
            Self::HubCache => "Hugging Face cache",
            Self::Hub => "hub",
            Self::PackageIndex => "Python package index",
        })
    }
}

/// Hashes a report's file and compares.
fn read(report: &mut FileReport, stamps: &Stamps, reading: Reading) {
    let hashed = match (builtin::content(&report.path), reading) {
        (Some(content), _) => Ok(checksum::sha256(content)),
        (None, Reading::IfChanged) => stamps.sha256(&report.path),
        (None, Reading::Anew) => stamps.rehash(&report.path),
    };
    match (hashed, &report.expected) {
        (Err(error), _) => report.flaw = Some(error.to_string()),
        (Ok(got), Some(expected)) if got != *expected => {
            let path = report.path.display();
            report.flaw = Some(format!("{path}: sha256 is {got}, expected {expected}"));
            report.got = Some(got);
        }
        (Ok(got), _) => report.got = Some(got),
    }
}

/// Why a folder without `missing` cannot be opened, and the cure.
fn lack(folder: &Path, missing: &str) -> String {
    let holds = |file: &str| folder.join(file).exists();
    if !REQUIRED.into_iter().any(holds) && !holds("pytorch_model.bin") {
        return format!("holds no model (no {})", REQUIRED.join(", no "));
    }
    if !holds(WEIGHTS) && holds("pytorch_model.bin") {
        return format!(
            "holds its weights only as pytorch_model.bin, a pickle, and pickles can run code when \
             they are loaded; convert it: cd {} && python -c \"import torch, safetensors.torch as \
             s; s.save_file({{k: v.clone().contiguous() for k, v in \
             torch.load('pytorch_model.bin', weights_only=True).items()}}, '{WEIGHTS}', \
             metadata={{'format': 'pt'}})\"",
            folder.display()
        );
    }
    if missing == WEIGHTS && holds("model.safetensors.index.json") {
        return format!(
            "its weights are split into several files: save it again as one {WEIGHTS} \
             (save_pretrained with a larger max_shard_size)"
        );
    }
    if missing == "tokenizer.json" {
        return "has no tokenizer.json: write one with python -c \"from transformers import \
                AutoTokenizer as T; T.from_pretrained('.').save_pretrained('.')\" in that folder"
            .into();
    }
    format!("has no {missing}")
}
