//! Reading a database without SQLite's own locks, where this process may not write to the folder.
//!
//! Readers and the writer of a database in WAL mode agree through the file `documents.db-shm`. A
//! reader that finds it takes its locks there, even if it may not write to it. A reader that does
//! not find it cannot create it in a folder that it may not write to. Then nobody has the database
//! open, or this process cannot see it. The writer keeps such readers safe with one lock more, on
//! `manifest.json`, which a reader can take on a file that it may only read:
//!
//! ```text
//! reader without -shm:                      writer, after a commit and at its end:
//!     shared lock on manifest.json              try the exclusive lock on manifest.json
//!     if the write-ahead log is empty:          if no reader holds it:
//!         read documents.db in place                move pages from the log to documents.db
//!     else:
//!         copy documents.db and the log
//!         drop the lock, read the copy
//! ```
//!
//! While the lock is held, a writer commits as ever, to the end of the log, and `documents.db`
//! keeps the state that the reader saw. A log with commits must be replayed to see them, and SQLite
//! replays it only with `-shm`; hence the copy, in a private temporary folder.
//!
//! Other programs do not know the lock. Each use of a database in place therefore ends with a look
//! at its time and length, and fails if they changed.

#[cfg(unix)]
use super::folder::read_error;
use super::folder::{DATABASE_FILE, MANIFEST_FILE};
use crate::error::{Error, Result};
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tempfile::TempDir;

/// Largest database that is copied, with its write-ahead log; in bytes.
const MAX_COPY: u64 = 4 << 30;

/// Attempts to copy a database that another program changes at the same time.
const ATTEMPTS: usize = 3;

/// A database that can be read without locks for as long as this lives.
#[derive(Debug)]
pub(super) enum UnlockedDatabase {
    /// The file of the index. Its write-ahead log is empty.
    InPlace { path: PathBuf, seen: Stamp, _lock: Option<File> },
    /// A private copy with its write-ahead log.
    Copy(TempDir),
}

impl UnlockedDatabase {
    /// Finds the last commit of the database in `dir`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] naming the file that cannot be read, or if a copy is needed and too large;
    /// [`Error::Database`] if another program changes the database all the time.
    pub(super) fn prepare(dir: &Path) -> Result<Self> {
        let path = dir.join(DATABASE_FILE);
        check_readable(&path)?;
        let lock = share_manifest(dir)?;
        let log = log_of(dir);
        match std::fs::metadata(&log) {
            Ok(file) if file.len() > 0 => Self::copy(&path, &log),
            Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("read", log)(e)),
            _ => Ok(Self::InPlace { seen: Stamp::of(&path)?, path, _lock: lock }),
        }
    }

    /// Copies a database and its write-ahead log to a private folder.
    fn copy(path: &Path, log: &Path) -> Result<Self> {
        check_readable(log)?;
        for _ in 0..ATTEMPTS {
            let (before, header) = (Stamp::of(path)?, header_of(log)?);
            let size = before.len + Stamp::of(log)?.len;
            if size > MAX_COPY {
                return Err(Error::io("read", log)(io::Error::other(format!(
                    "it holds commits that are not in the database yet. Without write access they \
                     are read from a copy, of {} GiB here, and {} GiB are the limit: let the owner \
                     open the index once, as with `warpseek info`",
                    size.div_ceil(1 << 30),
                    MAX_COPY >> 30
                ))));
            }
            let folder = tempfile::Builder::new().prefix("warpseek-").tempdir();
            let folder = folder.map_err(Error::io("create a folder in", std::env::temp_dir()))?;
            // The database comes first: the log only grows.
            copy_file(path, &folder.path().join(DATABASE_FILE))?;
            copy_file(log, &log_of(folder.path()))?;
            if (Stamp::of(path)?, header_of(log)?) == (before, header) {
                tracing::warn!(
                    "{}: not writable here, and its last commits are in the write-ahead log: \
                     reading a copy of {size} bytes in {}",
                    path.display(),
                    folder.path().display()
                );
                return Ok(Self::Copy(folder));
            }
        }
        Err(changed(path))
    }

    /// Fails if another program changed the file since it was prepared. What was read before this
    /// call is one state of the database if it returns `Ok`.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        match self {
            Self::InPlace { path, seen, .. } if Stamp::of(path)? != *seen => Err(changed(path)),
            _ => Ok(()),
        }
    }
}

fn changed(path: &Path) -> Error {
    let reason = "another program changed the file while it was read without locks: try again";
    Error::Database { path: path.to_path_buf(), reason: reason.to_owned() }
}

/// The right to change `documents.db`, which no reader without locks uses while this lives.
#[derive(Debug)]
pub(super) struct CheckpointLock {
    _file: Option<File>,
}

impl CheckpointLock {
    /// Takes the lock. `None` while a reader without locks has the index open.
    pub(super) fn try_take(dir: &Path) -> Option<Self> {
        // Windows would refuse other processes to read a locked manifest. Without a manifest there
        // is no index yet, which nobody reads.
        let path = dir.join(MANIFEST_FILE);
        let options = || File::options().read(true).write(true).open(&path);
        let file = if cfg!(windows) { None } else { options().or_else(|_| File::open(&path)).ok() };
        let is_held = |file: &File| matches!(file.try_lock(), Err(TryLockError::WouldBlock));
        if file.as_ref().is_some_and(is_held) { None } else { Some(Self { _file: file }) }
    }
}

/// Holds back changes of `documents.db`. Waits for one that is being made. `None` if the file
/// system has no locks.
fn share_manifest(dir: &Path) -> Result<Option<File>> {
    if cfg!(windows) {
        return Ok(None);
    }
    let path = dir.join(MANIFEST_FILE);
    let file = File::open(&path).map_err(Error::io("read", &path))?;
    Ok(file.lock_shared().is_ok().then_some(file))
}

/// Time and length of a file. SQLite changes a database by writing to it, which sets the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: SystemTime,
    len: u64,
}

impl Stamp {
    fn of(path: &Path) -> Result<Self> {
        let read = || {
            let file = std::fs::metadata(path)?;
            Ok(Self { modified: file.modified()?, len: file.len() })
        };
        read().map_err(Error::io("read", path))
    }
}

/// Path of the write-ahead log of the database in `dir`.
pub(super) fn log_of(dir: &Path) -> PathBuf {
    dir.join(format!("{DATABASE_FILE}-wal"))
}

/// The header of a write-ahead log, which changes when its frames are overwritten.
fn header_of(log: &Path) -> Result<Vec<u8>> {
    let mut header = Vec::new();
    let read = File::open(log).and_then(|file| file.take(32).read_to_end(&mut header));
    read.map_err(Error::io("read", log))?;
    Ok(header)
}

/// Copies content alone: the mode of the source might forbid to write to the copy.
fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).map_err(Error::io("read", from))?;
    let mut target = File::create_new(to).map_err(Error::io("create", to))?;
    io::copy(&mut source, &mut target).map(drop).map_err(Error::io("write", to))
}

/// Fails with the system's reason if this process may not read a file. Does not open it: closing a
/// database's file would release the locks that SQLite holds on it in this process.
fn check_readable(path: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use rustix::fs::{Access, access};
        access(path, Access::READ_OK).map_err(|e| read_error(path, e.into()))
    }
    #[cfg(not(unix))]
    {
        std::fs::metadata(path).map(drop).map_err(Error::io("read", path))
    }
}
