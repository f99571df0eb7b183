//! SHA-256 of files, cached between runs so that a start does not read all weights again.
//!
//! The cache ties a checksum to a file's size, modification time and inode. If one of these
//! changes, the file is read again. A cache file that is missing, damaged or read-only costs time,
//! never correctness.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use warpseek_error::{Error, Result};

/// SHA-256 of a file as 64 lower-case hex digits.
pub(crate) fn sha256_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hasher.finalize())),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", path)(error)),
        }
    }
}

/// SHA-256 of bytes as 64 lower-case hex digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Cached checksums, kept in a small JSON file.
pub(crate) struct ChecksumCache {
    file: Option<PathBuf>,
    known: RefCell<BTreeMap<String, CachedChecksum>>,
}

/// State of a file at the time it was hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CachedChecksum {
    size: u64,
    /// Nanoseconds since 1970.
    mtime: i128,
    /// None if the system has no inodes.
    inode: Option<u64>,
    sha256: String,
}

#[derive(Serialize, Deserialize)]
struct CacheFile {
    version: u32,
    files: BTreeMap<String, CachedChecksum>,
}

const VERSION: u32 = 1;

impl ChecksumCache {
    /// Opens the cache in `file`. With None, checksums live as long as this value.
    pub(crate) fn open(file: Option<&Path>) -> Self {
        let known = file.map(read_cache).unwrap_or_default();
        Self { file: file.map(Path::to_path_buf), known: RefCell::new(known) }
    }

    /// A cache that reads every file once, and then saves its checksum in `file`.
    pub(crate) fn unread(file: Option<&Path>) -> Self {
        Self { file: file.map(Path::to_path_buf), known: RefCell::default() }
    }

    /// Checksum of a file: the cached one if size, modification time and inode are the same, else
    /// read from the file.
    pub(crate) fn sha256(&self, path: &Path) -> Result<String> {
        let before = state(path)?;
        let known = key(path).and_then(|key| self.known.borrow().get(&key).cloned());
        if let Some(known) = known
            && before == (CachedChecksum { sha256: String::new(), ..known.clone() })
        {
            return Ok(known.sha256);
        }
        let sha256 = sha256_file(path)?;
        // A file that changed while it was read is not cached.
        if state(path).is_ok_and(|after| after == before) {
            self.insert(path, sha256.clone());
        }
        Ok(sha256)
    }

    /// Caches the checksum of a file that was hashed a moment ago. In the cache file, entries that
    /// other processes have added stay.
    pub(crate) fn insert(&self, path: &Path, sha256: String) {
        let (Some(key), Ok(current)) = (key(path), state(path)) else { return };
        let entry = CachedChecksum { sha256, ..current };
        if let Some(file) = &self.file {
            let mut files = read_cache(file);
            files.insert(key.clone(), entry.clone());
            files.retain(|path, _| Path::new(path).exists());
            if let Err(error) = write_cache(file, files) {
                tracing::debug!("cannot write checksums to {}: {error}", file.display());
            }
        }
        self.known.borrow_mut().insert(key, entry);
    }
}

/// Lower-case hex digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Key of a file: its canonical path, so that a link and its target share an entry.
fn key(path: &Path) -> Option<String> {
    path.canonicalize().ok()?.to_str().map(str::to_string)
}

/// Current state of a file, without a checksum.
fn state(path: &Path) -> Result<CachedChecksum> {
    let metadata = path.metadata().map_err(Error::io("read", path))?;
    let mtime = metadata.modified().map_err(Error::io("read", path))?;
    let mtime = match mtime.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    };
    #[cfg(unix)]
    let inode = Some(std::os::unix::fs::MetadataExt::ino(&metadata));
    #[cfg(not(unix))]
    let inode = None;
    Ok(CachedChecksum { size: metadata.len(), mtime, inode, sha256: String::new() })
}

/// Reads a cache file. A missing or damaged one counts as empty.
fn read_cache(file: &Path) -> BTreeMap<String, CachedChecksum> {
    let text = std::fs::read(file).unwrap_or_default();
    match serde_json::from_slice::<CacheFile>(&text) {
        Ok(read) if read.version == VERSION => read.files,
        _ => BTreeMap::new(),
    }
}

/// Writes a temporary file and renames it, so that readers see the old or the new one.
fn write_cache(file: &Path, files: BTreeMap<String, CachedChecksum>) -> std::io::Result<()> {
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let text = serde_json::to_vec_pretty(&CacheFile { version: VERSION, files })?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    temporary.write_all(&text)?;
    temporary.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_two_processes_are_both_kept() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("checksums.json");
        let processes = [(); 2].map(|()| ChecksumCache::open(Some(&cache)));
        for (process, name) in processes.iter().zip(["a.txt", "b.txt"]) {
            let path = folder.path().join(name);
            std::fs::write(&path, name).unwrap();
            assert_eq!(process.sha256(&path).unwrap(), sha256(name.as_bytes()));
        }
        assert_eq!(read_cache(&cache).len(), 2);
    }
}
