//! The folder of an index: the names of its files, and its write lock. Readers take no lock.

use super::format::VectorFileKind;
use crate::error::{Error, Result};
use crate::output::{open_locked, sync_folder_of};
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// File name of the manifest.
pub(super) const MANIFEST_FILE: &str = "manifest.json";

/// File name of the document database.
pub(super) const DATABASE_FILE: &str = "documents.db";

/// File name of the number of the last commit.
pub(super) const COMMITS_FILE: &str = "commits";

/// File name of the list of the shards of an index.
pub(crate) const SHARDS_FILE: &str = "shards.json";

const LOCK_FILE: &str = "lock";

/// Time for another process to finish writing.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Time between two attempts to take the lock.
const LOCK_POLL: Duration = Duration::from_millis(5);

/// Attempts to lock a file that was removed meanwhile.
const LOCK_ATTEMPTS: usize = 10;

/// True if an index folder may contain a file of this name.
pub(super) fn is_index_file(name: &str) -> bool {
    [MANIFEST_FILE, LOCK_FILE, COMMITS_FILE].contains(&name)
        || name
            .strip_prefix(DATABASE_FILE)
            .is_some_and(|suffix| matches!(suffix, "" | "-wal" | "-shm" | "-journal"))
        || VectorFileKind::is_name(name)
        || (name.starts_with('.') && name.ends_with(".partial"))
}

/// The folder of the list that a path names: the file itself, or its folder if that is not an index
/// too.
pub(super) fn folder_of_shards(path: &Path) -> Option<PathBuf> {
    if path.file_name().is_some_and(|name| name == SHARDS_FILE) && !path.is_dir() {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        return Some(folder.unwrap_or(Path::new(".")).to_path_buf());
    }
    let is_list = path.join(SHARDS_FILE).is_file() && !path.join(MANIFEST_FILE).exists();
    is_list.then(|| path.to_path_buf())
}

/// Refuses a place that cannot become the folder of an index.
pub(super) fn check_place(dir: &Path) -> Result<()> {
    let (kind, reason) = match std::fs::metadata(dir) {
        Ok(found) if !found.is_dir() => (
            ErrorKind::NotADirectory,
            "this is a file, not a folder: move it away, or name another folder for the index",
        ),
        Err(e) if e.kind() == ErrorKind::NotADirectory => (
            ErrorKind::NotADirectory,
            "a part of this path is a file, not a folder: name another folder for the index",
        ),
        Err(e) if e.kind() == ErrorKind::NotFound && dir.is_symlink() => (
            ErrorKind::NotFound,
            "this is a link to a folder that does not exist: create that folder, remove the link, \
             or name another folder for the index",
        ),
        _ => return Ok(()),
    };
    Err(Error::io(CREATE_ACTION, dir)(io::Error::new(kind, reason)))
}

/// Removes a file, unless it is missing.
pub(super) fn remove_if_present(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
        _ => Ok(()),
    }
}

/// The action of errors about the place of a new index.
const CREATE_ACTION: &str = "create an index at";

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

/// Error of creating the folder of an index. If it is about permissions, it names the remedy.
fn create_error(dir: &Path, error: io::Error) -> Error {
    if !is_denied(&error) {
        return Error::io("create", dir)(error);
    }
    let reason = format!("{error}. Name a folder for the index where this user may write");
    Error::io(CREATE_ACTION, dir)(io::Error::new(error.kind(), reason))
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
///
/// # Removal
///
/// A run that fails leaves no folder behind if it created one and committed nothing. It removes the
/// files, the lock's among them, while it holds the lock. Another process may have opened that file
/// before and lock it after; it therefore looks whether the path still leads to the file that it
/// locked. If so, nobody else can hold or remove it.
#[derive(Debug)]
pub(super) struct WriteLock {
    _file: File,
    /// The folders that were created for the index, innermost first.
    created: Vec<PathBuf>,
    /// True to remove these folders with the lock.
    is_discarded: bool,
}

impl Drop for WriteLock {
    fn drop(&mut self) {
        if self.is_discarded {
            remove_folders(&self.created);
        }
    }
}

impl WriteLock {
    /// Takes the lock of `dir`. A process that holds it gets a moment to finish: servers give it up
    /// at least every second.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] if it is not free within [`LOCK_WAIT`].
    pub(super) fn take(dir: &Path) -> Result<Self> {
        let started = Instant::now();
        loop {
            match Self::try_take(dir) {
                Err(Error::Locked { .. }) if started.elapsed() < LOCK_WAIT => {
                    std::thread::sleep(LOCK_POLL);
                }
                outcome => return outcome,
            }
        }
    }

    /// Takes the lock of `dir`, or fails at once with [`Error::Locked`].
    fn try_take(dir: &Path) -> Result<Self> {
        let path = dir.join(LOCK_FILE);
        let open = || {
            open_locked(&path, "open").map_err(|e| match e {
                Error::Io { source, .. } if is_denied(&source) => write_denied(dir, &source),
                e => e,
            })
        };
        let mut opened = open()?;
        // Not for ever: some network file systems give one file several numbers.
        for _ in 0..LOCK_ATTEMPTS {
            if !opened.1 || is_file_at(&opened.0, &path) {
                break;
            }
            drop(opened);
            opened = open()?;
        }
        let (mut file, is_locked) = opened;
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
        Ok(Self { _file: file, created: Vec::new(), is_discarded: false })
    }

    /// Creates the folder with its parents and takes its lock.
    pub(super) fn take_in_new_folder(dir: &Path) -> Result<Self> {
        let missing: Vec<&Path> =
            dir.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.exists()).collect();
        let mut created = Vec::new();
        for folder in missing.into_iter().rev() {
            match std::fs::create_dir(folder) {
                Ok(()) => created.insert(0, folder.to_path_buf()),
                // Another process was faster.
                Err(e) if e.kind() == ErrorKind::AlreadyExists && folder.is_dir() => {}
                Err(e) => return Err(create_error(dir, e)),
            }
            // New folders must outlast a power cut, as the commits in them do.
            sync_folder_of(folder);
        }
        let mut lock = Self::take(dir)?;
        lock.created = created;
        Ok(lock)
    }

    /// Removes the index with this lock if its folder was created for it, unless
    /// [`WriteLock::keep`] follows. Systems other than Unix keep it, where a file that is removed
    /// cannot be told from another one at its path.
    pub(super) fn discard(&mut self) {
        self.is_discarded = cfg!(unix) && !self.created.is_empty();
    }

    /// Keeps the index.
    pub(super) fn keep(&mut self) {
        self.is_discarded = false;
    }
}

/// True if `path` leads to this open file.
#[cfg(unix)]
fn is_file_at(file: &File, path: &Path) -> bool {
    let id = |found: io::Result<Metadata>| found.map(|found| file_number(&found));
    matches!((id(file.metadata()), id(std::fs::metadata(path))), (Ok(a), Ok(b)) if a == b)
}

/// Device and inode number of a file; zeros where the system has none.
pub(super) fn file_number(file: &Metadata) -> (u64, u64) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (file.dev(), file.ino())
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        (0, 0)
    }
}

#[cfg(not(unix))]
fn is_file_at(_file: &File, _path: &Path) -> bool {
    true
}

/// Removes an index without rows, and the folders that were created for it. Keeps what holds other
/// files.
fn remove_folders(created: &[PathBuf]) {
    let Some(dir) = created.first() else { return };
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    names.retain(|name| is_index_file(&name.to_string_lossy()));
    // Without its manifest it is no index any more; the lock holds to the end.
    names.sort_by_key(|name| (name != MANIFEST_FILE, name == LOCK_FILE));
    let is_removed = names.iter().all(|name| std::fs::remove_file(dir.join(name)).is_ok());
    if is_removed {
        created.iter().all(|folder| std::fs::remove_dir(folder).is_ok());
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn lock_of_folders_that_come_and_go_has_one_holder_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let n_taken = AtomicUsize::new(0);
        for round in 0..100 {
            let dir = place.path().join(format!("{round}/idx"));
            let (start, holders) = (Barrier::new(4), AtomicUsize::new(0));
            let take = || {
                start.wait();
                for _ in 0..4 {
                    let Ok(mut lock) = WriteLock::take_in_new_folder(&dir) else { continue };
                    assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                    std::fs::write(dir.join(DATABASE_FILE), "").unwrap();
                    n_taken.fetch_add(1, Ordering::SeqCst);
                    lock.discard();
                    assert_eq!(holders.fetch_sub(1, Ordering::SeqCst), 1);
                }
            };
            std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(take))));
        }
        assert!(n_taken.into_inner() >= 100);
    }

    #[test]
    fn folders_of_a_discarded_lock_are_removed_unless_they_hold_other_files() {
        let place = tempfile::tempdir().unwrap();
        let take = |name: &str| {
            let mut lock = WriteLock::take_in_new_folder(&place.path().join(name)).unwrap();
            lock.discard();
            lock
        };
        drop(take("a/b/idx"));
        assert!(!place.path().join("a").exists());
        let mut kept = take("c/idx");
        kept.keep();
        drop(kept);
        // Another run did not create this folder.
        drop(take("c/idx"));
        assert!(place.path().join("c/idx").join(LOCK_FILE).exists());
        let lock = take("d/idx");
        std::fs::write(place.path().join("d/idx/notes.txt"), "mine").unwrap();
        drop(lock);
        assert!(place.path().join("d/idx/notes.txt").exists());
    }
}
