//! The crate's one error type: what went wrong, where, and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, each variant carrying what a user needs to act.
///
/// Messages are lower-case, name the file, record or field, and end with the cure where there is
/// one. [`Error::exit_code`] maps a variant to the exit status of the command-line tool.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request itself makes no sense: a bad option, an unknown field, `k = 0`.
    #[error("{0}")]
    Usage(String),

    /// No usable copy of a model could be found or fetched.
    #[error("model '{model}' is not available: {reason}")]
    ModelUnavailable {
        /// The name or path that was asked for.
        model: String,
        /// Where it was looked for, what happened there, and the cure.
        reason: String,
    },

    /// The asked-for compute device cannot be used.
    #[error("device '{device}' is not available: {reason}")]
    DeviceUnavailable {
        /// The device as the user wrote it.
        device: String,
        /// Why it cannot be used.
        reason: String,
    },

    /// A file of an index is damaged, incomplete, or written by a newer version.
    #[error("{}: {reason}", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// What is wrong with it, and the cure.
        reason: String,
    },

    /// A remote service answered with a failure.
    #[error("{service}: {reason}")]
    Remote {
        /// Which service.
        service: String,
        /// What it said.
        reason: String,
    },

    /// A record of the input cannot be used.
    #[error("{place}: {reason}")]
    Input {
        /// File, record and field.
        place: Place,
        /// What is wrong, and the cure.
        reason: String,
    },

    /// The operating system refused an operation on a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted, as a verb: `read`, `create`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// There is no index where one was expected.
    #[error("{}: no index here ({reason})", path.display())]
    NoIndex {
        /// The folder.
        path: PathBuf,
        /// What was found instead, and the cure.
        reason: String,
    },

    /// Another process holds the index's write lock.
    #[error(
        "{} is being written by another process{}: wait for it to finish, then try again",
        path.display(),
        holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The index folder.
        path: PathBuf,
        /// The process that holds the lock, where it is known.
        holder: Option<u32>,
    },

    /// The user asked to stop. What was committed stays.
    #[error("interrupted: {0}")]
    Interrupted(String),

    /// The document database refused an operation.
    #[error("{}: {source}", path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },

    /// A device failed while it computed.
    #[error("the GPU failed: {reason}; --device cpu does without it")]
    DeviceFailed {
        /// What the driver says.
        reason: String,
    },

    /// The tensor library refused an operation.
    #[error("while computing {what}: {source}")]
    Compute {
        /// What was being computed.
        what: &'static str,
        /// Candle's reason.
        source: Box<candle_core::Error>,
    },
}

/// Where in the input a record stands: `papers.jsonl, line 17, field 'text'`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The file as the user named it, or `<stdin>`.
    pub file: String,
    /// `line 17`, `row 3`, `record 8`: the unit is the format's own.
    pub record: Option<String>,
    /// The field's name.
    pub field: Option<String>,
}

impl Place {
    /// The whole of `file`.
    pub fn file(file: impl Into<String>) -> Self {
        Self { file: file.into(), record: None, field: None }
    }

    /// A record of `file`, named in the format's own unit.
    pub fn record(file: impl Into<String>, record: impl Into<String>) -> Self {
        Self { file: file.into(), record: Some(record.into()), field: None }
    }

    /// The same place, narrowed to one field.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(record) = &self.record {
            write!(f, ", {record}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ", field '{field}'")?;
        }
        Ok(())
    }
}

impl Error {
    /// A [`Error::Usage`] with this message.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// A [`Error::Corrupt`] about `path`.
    pub fn corrupt(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.into(), reason: reason.into() }
    }

    /// A [`Error::Input`] at `place`.
    pub fn input(place: Place, reason: impl Into<String>) -> Self {
        Self::Input { place, reason: reason.into() }
    }

    /// Turns an I/O error about `path` into [`Error::Io`]; for `map_err`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, path: path.as_ref().to_path_buf(), source }
    }

    /// Turns a Candle error into [`Error::Compute`]; for `map_err`.
    pub fn compute(what: &'static str) -> impl FnOnce(candle_core::Error) -> Self {
        move |source| Self::Compute { what, source: Box::new(source) }
    }

    /// The process exit status for this error: 2 usage, 3 model, 4 device, 5 corrupt index,
    /// 6 remote service, 7 input data, 8 I/O or lock, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::ModelUnavailable { .. } => 3,
            Self::DeviceUnavailable { .. } | Self::DeviceFailed { .. } | Self::Compute { .. } => 4,
            Self::Corrupt { .. } => 5,
            Self::Remote { .. } => 6,
            Self::Input { .. } => 7,
            Self::Io { .. }
            | Self::NoIndex { .. }
            | Self::Locked { .. }
            | Self::Database { .. } => 8,
            Self::Interrupted(_) => 130,
        }
    }
}
