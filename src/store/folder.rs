//! The folder of an index: the names of its files, and its write lock. Readers take no lock.

use super::format::VectorFileKind;
use crate::error::{Error, Result};
use crate::output::{open_locked, sync_folder_of};
use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::path::Path;

/// File name of the manifest.
pub(super) const MANIFEST_FILE: &str = "manifest.json";

/// File name of the document database.
pub(super) const DATABASE_FILE: &str = "documents.db";

const LOCK_FILE: &str = "lock";

/// True if an index folder may contain a file of this name.
pub(super) fn is_index_file(name: &str) -> bool {
    [MANIFEST_FILE, LOCK_FILE].contains(&name)
        || name
            .strip_prefix(DATABASE_FILE)
            .is_some_and(|suffix| matches!(suffix, "" | "-wal" | "-shm" | "-journal"))
        || VectorFileKind::is_name(name)
        || (name.starts_with('.') && name.ends_with(".partial"))
}

/// Removes a file, unless it is missing.
pub(super) fn remove_if_present(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
        _ => Ok(()),
    }
}

/// The action of [`write_denied`].
const WRITE_ACTION: &str = "write to";

/// True if the system refuses an operation on a file to this user, or on this file system.
fn is_denied(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// Error of a writer that may not change the index in `dir`.
pub(super) fn write_denied(dir: &Path, error: &io::Error) -> Error {
    let reason = format!(
        "{error}. Only a user who may write to the folder and its files can change this index; \
         others can read it"
    );
    Error::io(WRITE_ACTION, dir)(io::Error::new(error.kind(), reason))
}

/// True for the error of a writer that may not change an index.
pub(crate) fn is_write_denied(error: &Error) -> bool {
    matches!(error, Error::Io { action: WRITE_ACTION, source, .. } if is_denied(source))
}

/// Error of reading `path`, a file of an index. If it is about permissions, it names the remedy.
pub(super) fn read_error(path: &Path, error: io::Error) -> Error {
    let error = if error.kind() == ErrorKind::PermissionDenied {
        let dir = path.parent().unwrap_or(path).display();
        let reason = format!(
            "{error}. This user may not read the index; its owner can allow it with \
             `chmod -R a+rX {dir}`"
        );
        io::Error::new(error.kind(), reason)
    } else {
        error
    };
    Error::io("read", path)(error)
}

/// The write lock of an index. The operating system releases it when the process ends, in any way.
#[derive(Debug)]
pub(super) struct WriteLock {
    _file: File,
}

impl WriteLock {
    /// Takes the lock of `dir`, or fails at once with [`Error::Locked`].
    pub(super) fn take(dir: &Path) -> Result<Self> {
        let (mut file, is_locked) =
            open_locked(&dir.join(LOCK_FILE), "open").map_err(|e| match e {
                Error::Io { source, .. } if is_denied(&source) => write_denied(dir, &source),
                e => e,
            })?;
        if !is_locked {
            let text = std::io::read_to_string(&mut file).unwrap_or_default();
            let holder = text.trim().parse().ok();
            return Err(Error::Locked { path: dir.to_path_buf(), holder });
        }
        // The process id only serves the other side's message.
        let _ = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| write!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }

    /// Creates the folder with its parents and takes its lock.
    pub(super) fn take_in_new_folder(dir: &Path) -> Result<Self> {
        // New folders must outlast a power cut, as the commits in them do.
        let missing: Vec<&Path> =
            dir.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.exists()).collect();
        std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        missing.iter().for_each(|folder| sync_folder_of(folder));
        Self::take(dir)
    }
}
