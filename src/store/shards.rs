//! `shards.json`: the list of the shards of an index that is in several folders.
//!
//! A shard is an index of its own, in a folder beside the list, and never changes. Rows are
//! numbered through the shards in the order of the list; all chunks of a document are in one. The
//! list is written last and replaced by renaming: readers see the old shards or the new ones.

use super::fields::FieldCatalog;
use super::folder::{SHARDS_FILE, folder_of_shards};
use super::format::newer_version;
use super::manifest::IndexManifest;
use super::reader::Shard;
use crate::error::{Error, Result};
use crate::output::OutputFile;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// The newest version of the list.
const LIST_VERSION: u32 = 1;

const FORMAT: &str = "warpseek-shards";

/// Remedy for a damaged list and for shards that changed.
const REMEDY: &str = "restore the folder from a copy, or make the shards again with `warpseek \
                      shard` or `python -m warpseek.ray index`";

/// The list of the shards of an index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardList {
    /// `warpseek-shards`.
    format: String,
    /// Version of the list.
    format_version: u32,
    /// Version of the program that wrote the list.
    tool_version: String,
    /// Raised whenever the list is replaced.
    pub generation: u64,
    /// The settings that all shards have: the manifest of the first.
    manifest: serde_json::Value,
    /// Rows of all shards.
    pub rows: u64,
    /// Documents of all shards.
    pub documents: u64,
    /// The shards, in the order of their rows.
    pub shards: Vec<ShardEntry>,
    /// The metadata fields of all shards together.
    pub(super) fields: FieldCatalog,
    /// XXH3-64 of the list without this value, in hexadecimal digits.
    pub checksum: String,
}

/// A shard in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// The shard's folder, beside the list.
    pub folder: String,
    /// The number of its first row.
    pub first_row: u64,
    /// The number of its rows.
    pub rows: u64,
    /// Its chained checksum of all rows, in hexadecimal digits.
    pub checksum: String,
}

/// The facts about a shard that the list has, from the shard itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardSummary {
    /// The shard's folder, beside the list.
    pub folder: String,
    /// The number of its rows.
    pub rows: u64,
    /// The number of its documents.
    pub documents: u64,
    /// Its chained checksum of all rows, in hexadecimal digits.
    checksum: String,
    /// Its settings.
    manifest: serde_json::Value,
    /// Its metadata fields.
    fields: FieldCatalog,
}

impl ShardSummary {
    /// Reads the summary of the shard in a folder. None if there is no shard, or one whose writer
    /// has not ended it.
    ///
    /// # Errors
    ///
    /// The errors of opening an index, but for one that is missing.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let shard = match Shard::open(path) {
            Err(Error::NoIndex { .. }) => return Ok(None),
            shard => shard?,
        };
        let folder = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(shard.is_sealed.then_some(Self {
            folder,
            rows: shard.n_rows() as u64,
            documents: shard.n_documents()?,
            checksum: shard.checksum(),
            manifest: serde_json::from_slice(&shard.manifest().encode()).unwrap_or_default(),
            fields: FieldCatalog::clone(&shard.fields),
        }))
    }

    /// The number format in which its rows were embedded.
    pub fn precision(&self) -> Option<&str> {
        self.manifest["model"]["precision"].as_str()
    }

    /// Refuses a shard of other settings, which is in `dir` too.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] naming the setting.
    pub fn check_same_settings(&self, other: &Self, dir: &Path) -> Result<()> {
        let path = dir.join(&other.folder);
        self.settings(dir)?.check_compatible(&other.settings(dir)?, &path)
    }

    fn settings(&self, dir: &Path) -> Result<IndexManifest> {
        settings_of(&self.manifest, &dir.join(&self.folder))
    }
}

/// The settings in a list or a summary.
fn settings_of(manifest: &serde_json::Value, path: &Path) -> Result<IndexManifest> {
    IndexManifest::decode(&serde_json::to_vec(manifest).unwrap_or_default(), path)
}

impl ShardList {
    /// Reads the list that `path` names, itself or by its folder. Returns the folder beside it.
    ///
    /// # Errors
    ///
    /// As [`ShardList::read`].
    pub fn find(path: &Path) -> Result<(PathBuf, Self)> {
        let dir = folder_of_shards(path).unwrap_or_else(|| path.to_path_buf());
        let list = Self::read(&dir)?;
        Ok((dir, list))
    }

    /// Reads the list in a folder.
    ///
    /// # Errors
    ///
    /// [`Error::NoIndex`] if there is none; [`Error::Corrupt`] if it is damaged or of a newer
    /// version; [`Error::Io`].
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(SHARDS_FILE);
        let bytes = std::fs::read(&path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => Error::NoIndex {
                path: dir.to_path_buf(),
                reason: format!(
                    "{SHARDS_FILE} is missing; make shards with `warpseek shard` or on a cluster"
                ),
            },
            _ => Error::io("read", &path)(e),
        })?;
        let fail = |reason: String| Error::corrupt(&path, reason);
        let damaged = |e: serde_json::Error| fail(format!("the list is damaged ({e}); {REMEDY}"));
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(damaged)?;
        if value["format"] != FORMAT {
            return Err(fail(format!("this is not a list of shards; {REMEDY}")));
        }
        match value["format_version"].as_u64() {
            Some(version) if version > u64::from(LIST_VERSION) => {
                let version = version.try_into().unwrap_or(u32::MAX);
                return Err(fail(newer_version(version, LIST_VERSION)));
            }
            _ => {}
        }
        let list: Self = serde_json::from_value(value).map_err(damaged)?;
        if list.checksum != list.own_checksum() {
            return Err(fail(format!("the list is damaged (its checksum differs); {REMEDY}")));
        }
        let mut next = 0;
        for shard in &list.shards {
            let is_name = Path::new(&shard.folder).file_name().is_some_and(|n| *n == *shard.folder);
            if !is_name || shard.first_row != next {
                let reason = format!("the entry of '{}' is not possible; {REMEDY}", shard.folder);
                return Err(fail(reason));
            }
            next += shard.rows;
        }
        if list.shards.is_empty() || next != list.rows {
            return Err(fail(format!("its numbers of rows do not agree; {REMEDY}")));
        }
        Ok(list)
    }

    /// Lists shards in folders of `dir`, which must have the same settings, and replaces the list
    /// there.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the settings of two differ; [`Error::Io`].
    pub fn write(dir: &Path, shards: &[ShardSummary], generation: u64) -> Result<Self> {
        let Some(first) = shards.first() else {
            return Err(Error::usage("there are no shards to list"));
        };
        let manifest = first.settings(dir)?;
        let (mut entries, mut documents, mut rows) = (Vec::new(), 0, 0);
        let mut fields = FieldCatalog::default();
        for shard in shards {
            manifest.check_compatible(&shard.settings(dir)?, &dir.join(&shard.folder))?;
            entries.push(ShardEntry {
                folder: shard.folder.clone(),
                first_row: rows,
                rows: shard.rows,
                checksum: shard.checksum.clone(),
            });
            rows += shard.rows;
            documents += shard.documents;
            fields.add(&shard.fields);
        }
        if !fields.counts_readings() {
            return Err(Error::usage(format!(
                "{}: a shard has an older catalogue of fields: run `warpseek compact` on it first",
                dir.display()
            )));
        }
        let mut list = Self {
            format: FORMAT.to_owned(),
            format_version: LIST_VERSION,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            generation,
            manifest: first.manifest.clone(),
            rows,
            documents,
            shards: entries,
            fields,
            checksum: String::new(),
        };
        list.checksum = list.own_checksum();
        let mut file = OutputFile::create(&dir.join(SHARDS_FILE))?;
        let mut bytes = serde_json::to_vec_pretty(&list).unwrap_or_default();
        bytes.push(b'\n');
        file.put(&bytes)?;
        file.finish()?;
        Ok(list)
    }

    /// Opens some of the shards, with the fields of all.
    pub(super) fn open(&self, dir: &Path, numbers: Range<usize>) -> Result<Vec<Shard>> {
        let fields = Arc::new(self.fields.clone());
        let mut shards: Vec<Shard> = Vec::new();
        for entry in &self.shards[numbers] {
            let path = dir.join(&entry.folder);
            let mut shard = Shard::open(&path).map_err(|e| match e {
                Error::NoIndex { path, .. } => {
                    let missing = "this shard is missing: copy it here, or make the shards again";
                    Error::io("open", path)(std::io::Error::new(ErrorKind::NotFound, missing))
                }
                e => e,
            })?;
            self.check(dir, entry, &shard)?;
            shard.fields = Arc::clone(&fields);
            shards.push(shard);
        }
        Ok(shards)
    }

    /// Checks that a shard is the one of an entry.
    pub(super) fn check(&self, dir: &Path, entry: &ShardEntry, shard: &Shard) -> Result<()> {
        let settings = self.manifest(dir)?;
        let reason = if shard.n_rows() as u64 != entry.rows {
            format!("it has {} rows, the list {}", shard.n_rows(), entry.rows)
        } else if shard.checksum() != entry.checksum {
            "its rows or documents are others".to_owned()
        } else if settings.check_compatible(shard.manifest(), shard.dir()).is_err() {
            "it was made by another model, or with other settings".to_owned()
        } else {
            return Ok(());
        };
        let reason = format!("this is not the shard that {SHARDS_FILE} lists: {reason}; {REMEDY}");
        Err(Error::corrupt(shard.dir(), reason))
    }

    /// The settings of the shards, whose list is in `dir`.
    pub(super) fn manifest(&self, dir: &Path) -> Result<IndexManifest> {
        settings_of(&self.manifest, &dir.join(SHARDS_FILE))
    }

    /// The error of a process whose list was replaced by this one.
    pub(super) fn replaced(&self, dir: &Path) -> Error {
        let generation = self.generation;
        Error::corrupt(
            dir.join(SHARDS_FILE),
            format!("the shards were replaced (generation {generation}): open them again"),
        )
    }

    fn own_checksum(&self) -> String {
        let bare = Self { checksum: String::new(), ..self.clone() };
        format!("{:016x}", xxh3_64(&serde_json::to_vec(&bare).unwrap_or_default()))
    }
}
