//! Stamps of files: whether a file has changed since it was read.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs::Metadata;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::paths::InputRoots;

/// Time after a change in which another one could leave the times of a file as they are: the tick
/// of the clock that file systems use, with room.
const TICK: Duration = Duration::from_millis(100);

/// The same for file systems that count in seconds or in twos of them.
const COARSE_TICK: Duration = Duration::from_secs(2);

/// Size, times and inode number of a file. Equal stamps of two moments say that it was not written
/// in between.
///
/// As text: size, modification time, inode change time (0 where the system has none), both in
/// nanoseconds since 1970-01-01 UTC, and the inode number (0 likewise), with `:` between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    /// In bytes.
    size: u64,
    written: i128,
    changed: i128,
    number: u64,
}

impl FileStamp {
    /// The stamp of a file. `None` if the system does not tell the time of its last write.
    pub fn of(metadata: &Metadata) -> Option<Self> {
        let written = nanoseconds(metadata.modified().ok()?);
        let (size, changed, number) = (metadata.len(), changed(metadata), number(metadata));
        Some(Self { size, written, changed, number })
    }

    /// True if a write after `now`, when the stamp was taken, gives another stamp in any case.
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        let newest = self.written.max(self.changed);
        let is_coarse = self.written % 1_000_000_000 == 0;
        let tick = if is_coarse { COARSE_TICK } else { TICK };
        newest + (tick.as_nanos() as i128) < nanoseconds(now)
    }
}

/// Inode change time (ctime): also set by what keeps the modification time, as `cp -p` and `mv` do.
#[cfg(unix)]
fn changed(metadata: &Metadata) -> i128 {
    use std::os::unix::fs::MetadataExt;
    i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn changed(_: &Metadata) -> i128 {
    0
}

/// Inode number, by which a link to another file is noticed.
#[cfg(unix)]
fn number(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn number(_: &Metadata) -> u64 {
    0
}

/// Nanoseconds since 1970-01-01 UTC, negative before.
fn nanoseconds(time: SystemTime) -> i128 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    }
}

impl fmt::Display for FileStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}", self.size, self.written, self.changed, self.number)
    }
}

impl FromStr for FileStamp {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parts: Vec<&str> = text.split(':').collect();
        let [size, written, changed, number] = parts[..] else { return Err(()) };
        let time = |text: &str| text.parse().map_err(drop);
        let (size, number) = (size.parse().map_err(drop)?, number.parse().map_err(drop)?);
        Ok(Self { size, written: time(written)?, changed: time(changed)?, number })
    }
}

/// Files that a reader passes over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownFiles {
    /// Stamps of files, by [source](crate::Document::source). A file with the same stamp is not
    /// read again.
    pub stamps: Arc<HashMap<String, FileStamp>>,
    /// Files and folders whose files are not read where a folder above them is an input.
    pub elsewhere: InputRoots,
    /// [`DocumentReader::text_columns`](crate::DocumentReader::text_columns) of the reader that
    /// made the stamps. If others come out now, all files are read again.
    pub text_columns: Arc<BTreeSet<String>>,
}

impl KnownFiles {
    /// True if the file of this source has the stamp that is known.
    pub(crate) fn is_unchanged(&self, source: &str, metadata: &Metadata) -> bool {
        let known = self.stamps.get(source);
        known.is_some_and(|known| FileStamp::of(metadata).as_ref() == Some(known))
    }
}

/// A file that was read to its end without an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedFile {
    /// The file's name in messages.
    pub name: String,
    /// The [source](crate::Document::source) of its documents.
    pub source: Arc<str>,
    /// Its stamp before it was read. `None` if that cannot tell all later changes: of a stream, and
    /// of a file that was written just before.
    pub stamp: Option<FileStamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(written: i128) -> FileStamp {
        FileStamp { size: 7, written, changed: 0, number: 3 }
    }

    #[test]
    fn text_of_a_stamp_reads_back() {
        for written in [0, -5, 1_700_000_000_123_456_789] {
            let stamp = FileStamp { changed: written + 1, ..stamp(written) };
            assert_eq!(stamp.to_string().parse(), Ok(stamp));
        }
        for text in ["", "1:2:3", "1:2:3:4:5", "-1:2:3:4", "1:x:3:4", "1:2:3:x"] {
            assert_eq!(text.parse::<FileStamp>(), Err(()), "{text}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn stamps_of_two_files_of_the_same_size_and_time_differ() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            std::fs::write(folder.path().join(name), "text").unwrap();
            FileStamp::of(&std::fs::metadata(folder.path().join(name)).unwrap()).unwrap()
        };
        let (one, other) = (write("one"), write("other"));
        let FileStamp { written, changed, .. } = one;
        assert_ne!(one, FileStamp { written, changed, ..other });
    }

    #[test]
    fn stamp_is_settled_once_the_clock_has_moved_on() {
        const SECOND: i128 = 1_000_000_000;
        let after = |stamp: FileStamp, nanoseconds: i128| {
            let now = stamp.written.max(stamp.changed) + nanoseconds;
            stamp.is_settled(UNIX_EPOCH + Duration::from_nanos(now as u64))
        };
        let fine = stamp(5 * SECOND + 1);
        assert!(!after(fine, 0) && !after(fine, SECOND / 20) && after(fine, SECOND / 5));
        let coarse = stamp(5 * SECOND);
        assert!(!after(coarse, SECOND) && !after(coarse, 2 * SECOND));
        assert!(after(coarse, 2 * SECOND + 1));
        // Written long ago, and moved here just now.
        let moved = FileStamp { changed: 9 * SECOND + 1, ..fine };
        assert!(!after(moved, 0) && after(moved, SECOND / 5));
        // A clock that was set back.
        assert!(!after(fine, -SECOND));
    }
}
