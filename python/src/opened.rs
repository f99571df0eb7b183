//! An index folder with its models, opened when first used, and once in each process.

use crate::call::Stop;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use warpseek::engine::Engine;
use warpseek::error::{Error, Result};
use warpseek::search::{Searcher, no_reranker};
use warpseek::store::Index as Snapshot;

/// An index folder with the models that it needs. Threads may share it.
pub(crate) struct SharedIndex {
    pub(crate) dir: PathBuf,
    pub(crate) engine: Arc<Engine>,
    model: Option<String>,
    reranker: Option<String>,
    /// The newest snapshot; none once the index is closed.
    opened: Mutex<Option<Opened>>,
    /// Held while documents are written.
    pub(crate) writing: Mutex<()>,
}

/// Scores of a search that takes some milliseconds on any machine.
const SHORT_SCORES: usize = 4_000_000;

/// The cost of a row in the database, in scores.
const DATABASE_COST: usize = 40;

/// A snapshot, and the process that opened it: SQLite's connections do not outlive a fork.
struct Opened {
    process: u32,
    searcher: Searcher,
}

/// The models that a call needs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Needs {
    /// The embedder, where the index has one.
    pub(crate) embedder: bool,
    /// The reranker: not at all, if there is one, or in any case.
    pub(crate) reranker: Option<bool>,
}

impl SharedIndex {
    /// Opens the index in `dir`, with models other than the default ones if they are named.
    pub(crate) fn open_dir(
        dir: PathBuf,
        engine: Arc<Engine>,
        model: Option<String>,
        reranker: Option<String>,
    ) -> Result<Self> {
        let (opened, writing) = (Mutex::new(None), Mutex::new(()));
        let index = Self { dir, engine, model, reranker, opened, writing };
        let searcher = index.open()?;
        *index.opened() = Some(Opened { process: std::process::id(), searcher });
        Ok(index)
    }

    /// True if a search takes some milliseconds: what it needs is open, and it reads few rows.
    /// `slow` tells if it reads the database too, for a filter or words.
    pub(crate) fn is_short(&self, n_queries: usize, embeds: bool, slow: bool) -> bool {
        let opened = self.opened();
        let Some(Opened { process, searcher }) = opened.as_ref() else { return false };
        let per_row = n_queries + if slow { DATABASE_COST } else { 0 };
        *process == std::process::id()
            && (!embeds || searcher.embedder.is_some() && n_queries == 1)
            && per_row.saturating_mul(searcher.index.n_rows()) <= SHORT_SCORES
    }

    /// Closes the index.
    pub(crate) fn close(&self) {
        let opened = self.opened().take();
        if opened.as_ref().is_some_and(|opened| opened.process != std::process::id()) {
            std::mem::forget(opened);
        }
    }

    /// A searcher over the newest snapshot, with the models that are needed.
    pub(crate) fn searcher(&self, needs: Needs, stop: &Stop) -> Result<Searcher> {
        let mut opened = self.opened();
        let process = std::process::id();
        let closed = || Error::usage("the index is closed: open it again with Index.open");
        if opened.as_ref().ok_or_else(closed)?.process != process {
            let searcher = self.open()?;
            // What the parent process opened is left alone.
            std::mem::forget(opened.replace(Opened { process, searcher }));
        }
        let searcher = &mut opened.as_mut().ok_or_else(closed)?.searcher;
        if needs.embedder && searcher.embedder.is_none() {
            let embedder = self.engine.embedder_of(&searcher.index, self.model.as_deref())?;
            searcher.embedder = embedder.map(Arc::new);
        }
        if let Some(required) = needs.reranker {
            if searcher.reranker.is_none() {
                searcher.reranker = self.engine.reranker(self.reranker.as_deref())?;
            }
            if required && searcher.reranker.is_none() {
                return Err(no_reranker());
            }
        }
        Ok(Searcher { stop: Some(Arc::clone(stop)), ..searcher.clone() })
    }

    /// The newest snapshot.
    pub(crate) fn snapshot(&self) -> Result<Arc<Snapshot>> {
        Ok(self.searcher(Needs::default(), &Stop::default())?.index)
    }

    fn open(&self) -> Result<Searcher> {
        let index = Arc::new(Snapshot::open(&self.dir)?);
        let scanner = self.engine.scanner();
        Ok(Searcher { index, embedder: None, reranker: None, scanner, stop: None })
    }

    /// Takes up what was committed since. True if anything was.
    pub(crate) fn reopen(&self) -> Result<bool> {
        let current = self.searcher(Needs::default(), &Stop::default())?;
        let Some(new) = current.reopened()? else { return Ok(false) };
        if let Some(opened) = &mut *self.opened() {
            opened.searcher.index = new.index;
        }
        Ok(true)
    }

    fn opened(&self) -> MutexGuard<'_, Option<Opened>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
