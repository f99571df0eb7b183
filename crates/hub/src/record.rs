//! The record of a download that no manifest pins: the hub's commit, and the SHA-256 of each file.
//!
//! It is written into the model folder when the last file is there, and every later use compares
//! the files with it (trust on first use).

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use warpseek_error::{Error, Result};

use crate::cache::{RECORD, is_plain, with_suffix};
use crate::layout::weights_identity;
use crate::manifest::{FileSpec, is_hex, is_plain_path};

const FORMAT: u32 = 1;

/// A download that no manifest pins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    format: u32,
    /// The hub id that was downloaded.
    pub(crate) repo: String,
    /// The commit that the hub answered from.
    pub(crate) commit: String,
    /// Every file that the repository has and that decides vectors.
    pub(crate) files: Vec<FileSpec>,
}

impl Record {
    pub(crate) fn new(repo: &str, commit: String, files: Vec<FileSpec>) -> Self {
        Self { format: FORMAT, repo: repo.to_string(), commit, files }
    }

    /// Reads the record of a folder; None if it has none. An error is the reason why it cannot be
    /// used, with the remedy.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, String> {
        let path = folder.join(RECORD);
        let remedy = "delete it to trust the files as they are, or the folder to download it again";
        let fail = |reason: String| format!("{}: {reason}: {remedy}", path.display());
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error.to_string())),
        };
        let record: Self = serde_json::from_slice(&text)
            .map_err(|error| fail(format!("the record of the download is damaged ({error})")))?;
        if record.format != FORMAT {
            let format = record.format;
            return Err(fail(format!("format {format}, but this version reads only {FORMAT}")));
        }
        let is_sound = |file: &FileSpec| is_plain_path(&file.path) && is_hex(&file.sha256, 64);
        let has_commit = is_plain(&record.commit) && !record.files.is_empty();
        match has_commit && record.files.iter().all(is_sound) {
            true => Ok(Some(record)),
            false => Err(fail("the record of the download is damaged".into())),
        }
    }

    /// Writes the record into a folder, in one step.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(RECORD);
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        let fresh = with_suffix(&path, &format!(".{}", std::process::id()));
        let write = || {
            let mut file = File::create(&fresh)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&fresh, &path)
        };
        write().map_err(Error::io("write", &path))
    }

    /// The identity of the recorded weights.
    pub(crate) fn weights_sha256(&self) -> String {
        weights_identity(self.files.iter().map(|file| (file.path.as_str(), file.sha256.as_str())))
    }
}
