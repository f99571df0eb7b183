//! The index of a command that names none: `.warpseek` here or in a folder above, else the setting
//! `index`.

use super::context::Context;
use crate::error::{Error, Result};
use crate::store::SHARDS_FILE;
use std::path::{Path, PathBuf};

/// Folder name of the default index. It is hidden, so that `index .` does not read it.
const FOLDER: &str = ".warpseek";

/// File that an index folder has.
const MANIFEST: &str = "manifest.json";

/// True if an index is in this folder, or shards of one, or this is the list of shards.
pub(super) fn is_index(dir: impl AsRef<Path>) -> bool {
    let dir = dir.as_ref();
    let has = |name: &str| dir.join(name).is_file();
    has(MANIFEST) || has(SHARDS_FILE) || (dir.ends_with(SHARDS_FILE) && dir.is_file())
}

impl Context {
    /// The index to read or change: `named`, else the default one, with a note that names it.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] with the places that were searched if there is none.
    pub(super) fn index_dir(&self, named: Option<&Path>) -> Result<PathBuf> {
        match named {
            Some(dir) => Ok(dir.to_path_buf()),
            None => self.default_index()?.ok_or_else(|| self.no_index()),
        }
    }

    /// The default index, if there is one, with a note that names it.
    pub(super) fn default_index(&self) -> Result<Option<PathBuf>> {
        let found = nearest()?.or_else(|| self.engine.settings.index.clone());
        if let Some(dir) = &found {
            self.note(&format!("index: {}", dir.display()));
        }
        Ok(found)
    }

    /// The index to write to: `named`, else the default one, else a new one in the current folder.
    pub(super) fn index_to_write(&self, named: Option<&Path>) -> Result<PathBuf> {
        let found = match named {
            Some(dir) => return Ok(dir.to_path_buf()),
            None => nearest()?.or_else(|| self.engine.settings.index.clone()),
        };
        let dir = found.unwrap_or_else(|| FOLDER.into());
        let new = if is_index(&dir) { "" } else { " (new)" };
        self.note(&format!("index: {}{new}", dir.display()));
        Ok(dir)
    }

    /// The index and the text of a command `[DIR] TEXT`. A single argument, `first`, is the text.
    /// `what` is the word for the text.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if there is no text, if the only argument is an index folder, or if the
    /// first argument does not exist and may be part of a text without quotes.
    pub(super) fn index_and<'a>(
        &self,
        first: Option<&'a Path>,
        second: Option<&'a str>,
        what: &str,
    ) -> Result<(PathBuf, &'a str)> {
        let (dir, text) = match (first, second) {
            (_, Some(text)) => (first, text),
            (Some(only), None) if is_index(only) => {
                return Err(Error::usage(format!(
                    "{} is an index folder, and the {what} is missing: write it after the folder",
                    only.display()
                )));
            }
            (Some(only), None) => {
                let invalid = || Error::usage(format!("the {what} is not valid UTF-8"));
                (None, only.to_str().ok_or_else(invalid)?)
            }
            (None, None) => {
                return Err(Error::usage(format!("the {what} is missing: write it in quotes")));
            }
        };
        if let Some(dir) = dir.filter(|dir| !is_index(dir) && nearest().is_ok_and(|d| d.is_some()))
        {
            let dir = dir.display();
            return Err(Error::usage(format!(
                "there is no index folder '{dir}'; if '{dir}' is part of the {what}, write it all \
                 in quotes: \"{dir} {text}\""
            )));
        }
        Ok((self.index_dir(dir)?, text))
    }

    fn no_index(&self) -> Error {
        let here = std::env::current_dir().unwrap_or_default();
        // A folder would have been found.
        let kind = match Path::new(FOLDER).symlink_metadata() {
            Ok(found) if found.is_symlink() => "a link that leads to no folder",
            Ok(_) => "a file, not a folder",
            Err(_) => "",
        };
        if !kind.is_empty() {
            return Error::usage(format!(
                "there is no index: {FOLDER} in {} is {kind}; move it away and make an index with \
                 `warpseek index FILES`, or give its folder",
                here.display()
            ));
        }
        Error::usage(format!(
            "there is no index: {} has no folder {FOLDER}, no folder above it has one, and the \
             setting `index` (WARPSEEK_INDEX) is not set; make one with `warpseek index FILES`, or \
             give its folder",
            here.display()
        ))
    }
}

/// The index in the current folder, or in the nearest one above that has one.
fn nearest() -> Result<Option<PathBuf>> {
    let here = std::env::current_dir().map_err(Error::io("find", "the current folder"))?;
    if Path::new(FOLDER).is_dir() {
        return Ok(Some(FOLDER.into()));
    }
    Ok(here.ancestors().map(|folder| folder.join(FOLDER)).find(|dir| dir.is_dir()))
}
