//! The limits of an extraction.

use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Options of reading PDF, Office and EPUB files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExtractOptions {
    /// A program and its first arguments: it gets an
    /// [`ExtractRequest`](super::request::ExtractRequest) as one more argument and the file as
    /// standard input, and answers as `ExtractRequest::run` does. `None` reads the files on
    /// threads of this process, where the limit on memory holds for few files.
    pub command: Option<Vec<OsString>>,
    /// The limits for each file.
    pub limits: ExtractLimits,
    /// Asks whether to stop before the end of a file.
    pub stop: StopFlag,
}

/// A flag that stops an extraction when it is true; none by default.
#[derive(Debug, Clone, Copy, Default)]
pub struct StopFlag(pub Option<&'static AtomicBool>);

impl StopFlag {
    /// True if the extraction has to stop.
    pub(super) fn is_set(self) -> bool {
        self.0.is_some_and(|flag| flag.load(Ordering::Relaxed))
    }
}

/// Equal if they are the same flag.
impl PartialEq for StopFlag {
    fn eq(&self, other: &Self) -> bool {
        match (self.0, other.0) {
            (Some(a), Some(b)) => std::ptr::eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        }
    }
}

/// Limits of reading one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtractLimits {
    /// Time: 60 seconds.
    pub time: Duration,
    /// Address space of the process that reads the file, in bytes: 2 GiB. On a thread it applies
    /// to the cells of XLS and ODS alone, whose number is known before they are read.
    pub memory: u64,
    /// Size of the file: 512 MiB.
    pub file_bytes: u64,
    /// Decompressed size of an entry of a zip archive: 256 MiB.
    pub entry_bytes: u64,
    /// Decompressed size of all entries together: 1 GiB.
    pub unpacked_bytes: u64,
    /// Text: 256 MiB.
    pub text_bytes: u64,
    /// Pages, slides, blocks of rows, or sections: 1,000,000.
    pub sections: u64,
}

impl Default for ExtractLimits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(60),
            memory: 2 << 30,
            file_bytes: 512 << 20,
            entry_bytes: 256 << 20,
            unpacked_bytes: 1 << 30,
            text_bytes: 256 << 20,
            sections: 1_000_000,
        }
    }
}
