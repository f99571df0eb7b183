//! Output files that appear only when they are complete.

use crate::error::{Error, Result};
use std::fs::{File, TryLockError};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A temporary file that [`OutputFile::finish`] renames to its final path. Dropping it earlier
/// removes it and leaves the file at that path as it is.
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    out: BufWriter<NamedTempFile>,
}

impl OutputFile {
    /// Starts a file for `path`, or for its target if `path` is a symbolic link.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the folder cannot be written, [`Error::Usage`] if `path` is `-` or not a
    /// regular file.
    pub fn create(path: &Path) -> Result<Self> {
        let path = &check_target(path)?;
        let dir = folder_of(path);
        let mut builder = tempfile::Builder::new();
        builder.prefix(".").suffix(".partial");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // The mode of the file to replace, else the default mode under the umask.
            let mode = std::fs::metadata(path).map_or(0o666, |file| file.permissions().mode());
            builder.permissions(std::fs::Permissions::from_mode(mode & 0o777));
        }
        let file = builder.tempfile_in(dir).map_err(Error::io("create a file in", dir))?;
        Ok(Self { path: path.to_path_buf(), out: BufWriter::with_capacity(1 << 18, file) })
    }

    /// Writes bytes at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(Error::io("write", &self.path))
    }

    /// Replaces the first bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn put_at_start(&mut self, bytes: &[u8]) -> Result<()> {
        self.out
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.out.write_all(bytes))
            .and_then(|()| self.out.seek(SeekFrom::End(0)))
            .map(drop)
            .map_err(Error::io("write", &self.path))
    }

    /// Makes the content durable and renames the file to its final path.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn finish(self) -> Result<()> {
        let failed = || Error::io("write", &self.path);
        let file = self.out.into_inner().map_err(|e| failed()(e.into_error()))?;
        file.as_file().sync_all().map_err(failed())?;
        file.persist(&self.path).map_err(|e| failed()(e.error))?;
        sync_folder_of(&self.path);
        Ok(())
    }
}

/// The path to write to, with symbolic links resolved.
///
/// # Errors
///
/// [`Error::Usage`] for `-`, a folder, a pipe or a device.
pub(crate) fn check_target(path: &Path) -> Result<PathBuf> {
    let what = match std::fs::canonicalize(path) {
        _ if path.as_os_str() == "-" => "standard output is not supported here",
        Ok(target) if target.is_file() => return Ok(target),
        Ok(target) if target.is_dir() => "this is a folder",
        Ok(_) => "this is a pipe or a device",
        Err(_) => return Ok(path.to_path_buf()),
    };
    Err(Error::usage(format!(
        "{}: {what}; output goes to a regular file, which appears when it is complete",
        path.display()
    )))
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// Opens a file, which is created if it is missing, and takes its lock. Returns false beside the
/// file if another process holds the lock. `action` is the verb of the error for the opening.
pub(crate) fn open_locked(path: &Path, action: &'static str) -> Result<(File, bool)> {
    let mut options = File::options();
    options.create(true).truncate(false).read(true).write(true);
    let file = options.open(path).map_err(Error::io(action, path))?;
    match file.try_lock() {
        Ok(()) => Ok((file, true)),
        Err(TryLockError::WouldBlock) => Ok((file, false)),
        Err(TryLockError::Error(e)) => Err(Error::io("lock", path)(e)),
    }
}

/// Makes renames and creations in the folder of `path` durable, if the system supports it.
pub(crate) fn sync_folder_of(path: &Path) {
    if let Ok(dir) = File::open(folder_of(path)) {
        // Not every file system syncs folders; the data itself is already synced.
        let _ = dir.sync_all();
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_appears_with_finish_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.txt");
        let mut file = OutputFile::create(&path).unwrap();
        file.put(b"hello world").unwrap();
        file.put_at_start(b"HELLO").unwrap();
        file.put(b"!").unwrap();
        assert!(!path.exists());
        file.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"HELLO world!");
        drop(OutputFile::create(&path).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let plain = dir.path().join("plain");
            std::fs::write(&plain, "").unwrap();
            let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode();
            assert_eq!(mode(&path), mode(&plain));
        }
    }
}
