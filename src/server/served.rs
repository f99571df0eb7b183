//! An index that is served, as a succession of snapshots.

use crate::error::{Error, Result};
use crate::search::Searcher;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::SystemTime;
use warpseek_bert::embedder::Embedder;

/// An index that is served under a name.
#[derive(Debug)]
pub struct Served {
    /// The name.
    pub name: String,
    /// The newest snapshot. A request takes it once and sees the same rows until its end.
    searcher: RwLock<Arc<Searcher>>,
    /// Held while the index is opened again, so that no older snapshot replaces a newer one. Holds
    /// the earlier snapshots, which requests may still use.
    reloading: Mutex<Vec<Weak<Searcher>>>,
}

impl Served {
    /// Serves `searcher` under `name`.
    pub fn new(name: impl Into<String>, searcher: Searcher) -> Self {
        let searcher = RwLock::new(Arc::new(searcher));
        Self { name: name.into(), searcher, reloading: Mutex::default() }
    }

    /// The default name of the index in `dir`: the name of the folder.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the folder has none, [`Error::Io`] if it cannot be opened.
    pub fn name_of(dir: &Path) -> Result<String> {
        let full = std::fs::canonicalize(dir).map_err(Error::io("open", dir))?;
        let name = full.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        name.ok_or_else(|| {
            Error::usage(format!("{}: give the index a name, as in NAME=DIR", dir.display()))
        })
    }

    /// The newest snapshot.
    pub(super) fn searcher(&self) -> Arc<Searcher> {
        Arc::clone(&self.searcher.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The embedder of the index; `None` for imported vectors without a model.
    pub fn embedder(&self) -> Option<Arc<Embedder>> {
        self.searcher().embedder.clone()
    }

    /// Opens the index again; later requests see the new snapshot. If nothing was changed, the new
    /// snapshot still releases the part of the write-ahead log that the old one keeps.
    pub(super) fn reload(&self) -> Result<()> {
        let mut earlier = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let new = self.searcher().renewed()?;
        self.replace(&mut earlier, new);
        Ok(())
    }

    fn replace(&self, earlier: &mut Vec<Weak<Searcher>>, new: Searcher) {
        let mut newest = self.searcher.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *newest, Arc::new(new));
        drop(newest);
        earlier.push(Arc::downgrade(&old));
        // Closing a snapshot takes time, in which others may take the newest one.
        drop(old);
        earlier.retain(|snapshot| snapshot.strong_count() > 0);
    }

    /// True while requests use snapshots before the newest one.
    pub(super) fn has_earlier_snapshots(&self) -> bool {
        let earlier = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        earlier.iter().any(|snapshot| snapshot.strong_count() > 0)
    }

    /// Times and lengths of the files that every commit changes, by any process.
    pub(super) fn fingerprint(&self) -> [Option<(SystemTime, u64)>; 4] {
        let searcher = self.searcher();
        ["documents.db", "documents.db-wal", "manifest.json", "shards.json"].map(|name| {
            let found = std::fs::metadata(searcher.index.dir().join(name)).ok()?;
            Some((found.modified().ok()?, found.len()))
        })
    }
}
