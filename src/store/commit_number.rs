//! The number of the last commit, beside the database.
//!
//! SQLite takes a damaged write-ahead log for one that ends at the damage, and a missing one for an
//! empty one: the database is then as some earlier commit left it. Each commit has a number, which
//! the database stores, and which is written to the file `commits` when the commit is durable. A
//! database whose number is below that of the file has lost commits. A process that is killed
//! between the two leaves a lower number in the file, which says nothing.
//!
//! The file holds the number, u64, and its XXH3-64; both little-endian.

use super::folder::COMMITS_FILE;
use super::unlocked::log_of;
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// Attempts to read a file that is being written.
const ATTEMPTS: usize = 3;

/// The number of the last commit of the index in `dir`. 0 if no file tells it, also for a reader
/// who may not read the file. To be read before the database.
pub(super) fn read(dir: &Path) -> u64 {
    let path = dir.join(COMMITS_FILE);
    for _ in 0..ATTEMPTS {
        match std::fs::read(&path) {
            // A new file whose content did not reach the disk is empty.
            Ok(bytes) if bytes.is_empty() => return 0,
            Ok(bytes) => {
                if let Some(number) = decode(&bytes) {
                    return number;
                }
            }
            Err(e) if e.kind() == ErrorKind::NotFound => return 0,
            Err(e) => {
                tracing::debug!("{}: {e}", path.display());
                return 0;
            }
        }
    }
    tracing::warn!(
        "{}: the file is damaged; the next commit makes it anew. Until then a lost write-ahead \
         log would go unnoticed",
        path.display()
    );
    0
}

/// Stores the number of a commit that is durable.
pub(super) fn write(dir: &Path, number: u64) {
    let path = dir.join(COMMITS_FILE);
    let bytes = [number, xxh3_64(&number.to_le_bytes())].map(u64::to_le_bytes);
    let write = || -> io::Result<()> {
        let mut file = File::options().write(true).create(true).truncate(false).open(&path)?;
        file.write_all(bytes.as_flattened())?;
        file.set_len(size_of_val(&bytes) as u64)
    };
    // The commit is durable, with or without this file.
    if let Err(e) = write() {
        tracing::debug!("{}: {e}", path.display());
    }
}

/// Compares the number of the database's last commit with that of the last finished one.
///
/// # Errors
///
/// [`Error::Corrupt`] naming the write-ahead log if commits are lost.
pub(super) fn check(dir: &Path, database: u64, finished: u64) -> Result<()> {
    if database >= finished {
        return Ok(());
    }
    let reason = format!(
        "commits were lost: {finished} were made, and the database holds {database}. This file \
         (the write-ahead log) is damaged or was removed, or documents.db is an older copy. \
         Restore it from a backup; or, to go on without the lost commits, remove the file \
         '{COMMITS_FILE}' beside it and run `warpseek index` again"
    );
    Err(Error::corrupt(log_of(dir), reason))
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let (number, hash) = bytes.split_first_chunk::<8>()?;
    (hash == xxh3_64(number).to_le_bytes()).then(|| u64::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_is_read_back_and_damage_is_no_number() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), 0);
        for number in [1, 255, 1 << 40] {
            write(dir.path(), number);
            assert_eq!(read(dir.path()), number);
        }
        let path = dir.path().join(COMMITS_FILE);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(read(dir.path()), 0, "byte {at}");
        }
        std::fs::write(&path, &whole[..9]).unwrap();
        assert_eq!(read(dir.path()), 0);
        write(dir.path(), 7);
        assert_eq!(read(dir.path()), 7);
    }
}
