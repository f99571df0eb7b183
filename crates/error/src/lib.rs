//! The error type that all crates of warpseek share. Each variant says what failed, in which file,
//! record or field, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Shorthand for results with this crate's error type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every failure of the library. An error may be cloned: one failed batch answers several requests.
///
/// Messages are lower-case, name the file, record or field, and end with what to do about it.
/// [`Error::exit_code`] maps a variant to the exit status of the command-line tool.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// An invalid request: a bad option, an unknown field, `k = 0`.
    #[error("{0}")]
    Usage(String),

    /// No usable copy of a model could be found or fetched.
    #[error("model '{model}' is not available: {reason}")]
    ModelUnavailable {
        /// The name or path that was asked for.
        model: String,
        /// The places that were searched, the finding in each, and the remedy.
        reason: String,
    },

    /// The requested compute device cannot be used.
    #[error("device '{device}' is not available: {reason}")]
    DeviceUnavailable {
        /// The device as the user wrote it.
        device: String,
        /// The reason it cannot be used.
        reason: String,
    },

    /// A file of an index is damaged, incomplete, or written by a newer version.
    #[error("{}: {reason}", name_of(path))]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// The damage, and the remedy.
        reason: String,
    },

    /// A remote service answered with a failure.
    #[error("{service}: {reason}")]
    Remote {
        /// The service's name.
        service: String,
        /// Its answer.
        reason: String,
    },

    /// A record of the input cannot be used.
    #[error("{place}: {reason}")]
    Input {
        /// File, record and field.
        place: Place,
        /// The defect, and the remedy.
        reason: String,
    },

    /// The operating system refused an operation on a file.
    #[error("cannot {action} {}: {source}", name_of(path))]
    Io {
        /// The attempted operation, as a verb: `read`, `create`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: Arc<io::Error>,
    },

    /// There is no index where one was expected.
    #[error("{}: no index here ({reason})", name_of(path))]
    NoIndex {
        /// The folder.
        path: PathBuf,
        /// The finding, and the remedy.
        reason: String,
    },

    /// Another process holds the index's write lock.
    #[error(
        "{} is being written by another process{}: wait for it to finish, then try again",
        name_of(path),
        holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The index folder.
        path: PathBuf,
        /// The process that holds the lock, if known.
        holder: Option<u32>,
    },

    /// The user asked to stop. What was committed stays.
    #[error("interrupted: {0}")]
    Interrupted(String),

    /// The document database refused an operation.
    #[error("{}: {reason}", name_of(path))]
    Database {
        /// The database file.
        path: PathBuf,
        /// The database library's reason.
        reason: String,
    },

    /// A GPU failed while computing.
    #[error("the GPU failed: {reason}; --device cpu does without it")]
    DeviceFailed {
        /// The driver's message.
        reason: String,
    },

    /// The tensor library refused an operation.
    #[error("while computing {what}: {reason}")]
    Compute {
        /// The operation.
        what: &'static str,
        /// The tensor library's reason.
        reason: String,
    },
}

/// The position of a record in the input: `papers.jsonl, line 17, field 'text'`.
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

/// A name on one line: control characters, and those that change the line or the direction of
/// text, are escaped as in Rust, `\n` and `\u{1b}`.
pub fn escaped(name: &str) -> String {
    let changes_text = |c: char| match c {
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        c => c.is_control(),
    };
    let mut escaped = String::with_capacity(name.len());
    for c in name.chars() {
        match changes_text(c) {
            true => escaped.extend(c.escape_default()),
            false => escaped.push(c),
        }
    }
    escaped
}

/// Quotes an argument for a shell where it needs that.
pub fn shell_quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-./+:@%,".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', "'\\''"))
}

fn name_of(path: &Path) -> String {
    escaped(&path.to_string_lossy())
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escaped(&self.file))?;
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

    /// A [`Error::DeviceUnavailable`] for `device`.
    pub fn unavailable(device: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::DeviceUnavailable { device: device.into(), reason: reason.into() }
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
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.as_ref().to_path_buf(),
            source: Arc::new(source),
        }
    }

    /// Turns an error of the tensor library into [`Error::Compute`]; for `map_err`.
    pub fn compute<E: fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |reason| Self::Compute { what, reason: reason.to_string() }
    }

    /// The file or folder that the error is about, if it is about one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Corrupt { path, .. }
            | Self::Io { path, .. }
            | Self::NoIndex { path, .. }
            | Self::Locked { path, .. }
            | Self::Database { path, .. } => Some(path),
            _ => None,
        }
    }

    /// True if the disk is full.
    pub fn is_storage_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
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
