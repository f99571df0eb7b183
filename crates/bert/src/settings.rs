//! JSON files of a model folder: typed access to their settings.

use crate::error::{Error, Result};
use crate::keys::{Key, Treatment};
use crate::model_files::{ModelFiles, unusable};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The settings in one JSON file.
#[derive(Debug, Clone, Default)]
pub(crate) struct ModelSettings {
    path: PathBuf,
    values: Map<String, Value>,
}

impl ModelSettings {
    /// Reads a file; none if it does not exist.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] if the file is not a JSON object.
    pub(crate) fn read(files: &ModelFiles, file: &str) -> Result<Option<Self>> {
        let values = read_json(files, file)?;
        Ok(values.map(|values| Self { path: files.path(file), values }))
    }

    /// Reads a file, and refuses settings that `keys` does not accept. Empty if the file does not
    /// exist.
    ///
    /// # Errors
    ///
    /// As [`ModelSettings::read`]; [`Error::ModelUnavailable`] that names the setting.
    pub(crate) fn checked(files: &ModelFiles, file: &str, keys: &[Key]) -> Result<Self> {
        let settings = Self::read(files, file)?
            .unwrap_or_else(|| Self { path: files.path(file), values: Map::new() });
        settings.check(keys)?;
        Ok(settings)
    }

    /// Returns settings that were read from `path`.
    pub(crate) fn of(path: PathBuf, values: Map<String, Value>) -> Self {
        Self { path, values }
    }

    /// Refuses settings that `keys` does not accept.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] that names the setting.
    pub(crate) fn check(&self, keys: &[Key]) -> Result<()> {
        for (key, treatment) in keys {
            let Treatment::Only(accepted) = treatment else { continue };
            let Some(value) = self.values.get(*key).filter(|value| !value.is_null()) else {
                continue;
            };
            if !accepted.iter().any(|json| serde_json::from_str(json).ok().as_ref() == Some(value))
            {
                return Err(self.fail(key, &format!("is {}, which is not supported", brief(value))));
            }
        }
        Ok(())
    }

    /// Returns a setting; none if it is absent or null.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] that names the setting, if it is of another type.
    pub(crate) fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.values.get(key).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        serde_json::from_value(value.clone())
            .map(Some)
            .map_err(|e| self.fail(key, &format!("is {}: {e}", brief(value))))
    }

    /// Returns a setting, or its default.
    ///
    /// # Errors
    ///
    /// As [`ModelSettings::get`].
    pub(crate) fn or<T: DeserializeOwned>(&self, key: &str, default: T) -> Result<T> {
        Ok(self.get(key)?.unwrap_or(default))
    }

    /// Returns the number under the first of `keys` that is there, or `default`.
    ///
    /// # Errors
    ///
    /// As [`ModelSettings::get`].
    pub(crate) fn first(&self, keys: &[&str], default: usize) -> Result<usize> {
        for key in keys {
            if let Some(value) = self.get(key)? {
                return Ok(value);
            }
        }
        Ok(default)
    }

    /// Checks that a number, if it is there, is `expected`.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] that names the setting.
    pub(crate) fn expect(&self, key: &str, expected: usize) -> Result<()> {
        match self.get::<usize>(key)? {
            Some(n) if n != expected => {
                let defect = format!("is {n}, the module in front of it gives {expected}");
                Err(self.fail(key, &defect))
            }
            _ => Ok(()),
        }
    }

    /// Returns a special token: a text, or an object with its `content`.
    pub(crate) fn token(&self, key: &str) -> Option<&str> {
        let value = self.values.get(key)?;
        value.as_str().or_else(|| value.get("content")?.as_str())
    }

    /// Returns the settings inside a setting; empty if it is absent.
    ///
    /// # Errors
    ///
    /// As [`ModelSettings::get`].
    pub(crate) fn inner(&self, key: &str) -> Result<Self> {
        Ok(Self { path: self.path.clone(), values: self.or(key, Map::new())? })
    }

    /// Returns the keys that are there.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// True if the file does not exist, or is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Returns the path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the error for a setting.
    pub(crate) fn fail(&self, key: &str, defect: &str) -> Error {
        unusable(self.path.display(), format!("'{key}' {defect}"))
    }
}

/// Returns the parsed content of a file, or none if the file does not exist.
pub(crate) fn read_json<T: DeserializeOwned>(files: &ModelFiles, file: &str) -> Result<Option<T>> {
    let path = &files.path(file);
    let bytes = match files.read(file) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read", path)(e)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| unusable(path.display(), format!("the file cannot be understood ({e})")))
}

/// Returns a value as JSON, shortened.
fn brief(value: &Value) -> String {
    const MOST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        None => text,
        Some((at, _)) => format!("{}...", &text[..at]),
    }
}
