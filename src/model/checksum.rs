//! sha256 of files, remembered between runs so that a start does not read every weight again.
//!
//! A stamp ties a file's sha256 to its size, modification time and inode; when one of these
//! changes the file is read again. Stamps are a shortcut only: a stamp file that is missing,
//! damaged or read-only costs time, never correctness.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// The sha256 of a file's bytes as 64 lower-case hex digits.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be read.
pub fn sha256_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hasher.finalize())),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        hasher.update(&buffer[..read]);
    }
}

/// The sha256 of bytes as 64 lower-case hex digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Remembered checksums, backed by a small JSON file.
#[derive(Debug)]
pub struct Stamps {
    file: Option<PathBuf>,
    known: RefCell<BTreeMap<String, Stamp>>,
}

/// What a file looked like when it was hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    size: u64,
    /// Nanoseconds since 1970.
    mtime: i128,
    /// None where the system has no inodes.
    inode: Option<u64>,
    sha256: String,
}

#[derive(Default, Serialize, Deserialize)]
struct StampFile {
    version: u32,
    files: BTreeMap<String, Stamp>,
}

const VERSION: u32 = 1;

impl Stamps {
    /// The stamps kept in `file`; with None nothing is remembered beyond this value's life.
    pub fn open(file: Option<&Path>) -> Self {
        let known = file.map(read_stamps).unwrap_or_default();
        Self { file: file.map(Path::to_path_buf), known: RefCell::new(known) }
    }

    /// The file's sha256: the remembered one while size, modification time and inode are the
    /// same, else read anew.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read.
    pub fn sha256(&self, path: &Path) -> Result<String> {
        let key = key(path);
        let seen = look(path)?;
        if let Some(stamp) = key.as_ref().and_then(|key| self.known.borrow().get(key).cloned())
            && (stamp.size, stamp.mtime, stamp.inode) == (seen.size, seen.mtime, seen.inode)
        {
            return Ok(stamp.sha256);
        }
        self.rehash(path)
    }

    /// The file's sha256, read anew and remembered.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read.
    pub fn rehash(&self, path: &Path) -> Result<String> {
        let before = look(path)?;
        let sha256 = sha256_file(path)?;
        // A file that changed while it was read is not remembered.
        if let Some(key) = key(path)
            && look(path).is_ok_and(|after| after == before)
        {
            self.remember(key, Stamp { sha256: sha256.clone(), ..before });
        }
        Ok(sha256)
    }

    /// Remembers the sha256 of a file whose bytes were hashed a moment ago.
    pub(crate) fn note(&self, path: &Path, sha256: String) {
        if let (Some(key), Ok(seen)) = (key(path), look(path)) {
            self.remember(key, Stamp { sha256, ..seen });
        }
    }

    /// Notes one stamp and saves, keeping what other processes have noted meanwhile.
    fn remember(&self, key: String, stamp: Stamp) {
        let mut known = self.known.borrow_mut();
        if let Some(file) = &self.file {
            known.extend(read_stamps(file));
            known.insert(key, stamp);
            known.retain(|path, _| Path::new(path).exists());
            if let Err(error) = write_stamps(file, &known) {
                tracing::debug!("cannot keep checksums in {}: {error}", file.display());
            }
        } else {
            known.insert(key, stamp);
        }
    }
}

/// Lower-case hex.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Files are known by their real path, so that a link and its target share a stamp.
fn key(path: &Path) -> Option<String> {
    path.canonicalize().ok()?.to_str().map(str::to_string)
}

/// The file's stamp, its sha256 still empty.
fn look(path: &Path) -> Result<Stamp> {
    let seen = path.metadata().map_err(Error::io("read", path))?;
    let mtime = seen.modified().map_err(Error::io("read", path))?;
    let mtime = match mtime.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    };
    Ok(Stamp { size: seen.len(), mtime, inode: inode(&seen), sha256: String::new() })
}

#[cfg(unix)]
fn inode(metadata: &std::fs::Metadata) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    Some(metadata.ino())
}

#[cfg(not(unix))]
fn inode(_: &std::fs::Metadata) -> Option<u64> {
    None
}

/// Whatever can be read; a missing or garbled file is an empty one.
fn read_stamps(file: &Path) -> BTreeMap<String, Stamp> {
    let text = std::fs::read(file).unwrap_or_default();
    match serde_json::from_slice::<StampFile>(&text) {
        Ok(read) if read.version == VERSION => read.files,
        _ => BTreeMap::new(),
    }
}

/// Writes beside the file and renames, so that a reader sees the old or the new one, whole.
fn write_stamps(file: &Path, files: &BTreeMap<String, Stamp>) -> std::io::Result<()> {
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let text = serde_json::to_vec_pretty(&StampFile { version: VERSION, files: files.clone() })?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    temporary.write_all(&text)?;
    temporary.persist(file)?;
    Ok(())
}
