//! An index folder with its models, opened when first used, and once in each process.

use crate::call::{Stop, check};
use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use warpseek::bert::embedder::Embedder;
use warpseek::engine::Engine;
use warpseek::error::{Error, Result};
use warpseek::search::{Searcher, no_reranker};
use warpseek::store::{Index as Snapshot, RemoteShards};

/// An index folder with the models that it needs. Threads may share it.
pub(crate) struct SharedIndex {
    pub(crate) dir: PathBuf,
    pub(crate) engine: Arc<Engine>,
    model: Option<String>,
    reranker: Option<String>,
    /// The place of its rows.
    source: Source,
    /// The newest snapshot; none once the index is closed.
    opened: Mutex<Option<Opened>>,
    /// The process that writes; 0 for none.
    writing: AtomicU32,
    /// Held while the snapshot is replaced, so that no older one follows a newer one.
    reopening: Mutex<()>,
}

/// The place of the rows of an index.
enum Source {
    /// In its folder.
    Folder,
    /// In the folder of the shard of this number.
    Shard(usize),
    /// In other processes.
    Remote(Arc<dyn RemoteShards>),
}

/// Scores of a search that takes some milliseconds on any machine.
const SHORT_SCORES: usize = 4_000_000;

/// The cost of a row in the database, in scores.
const DATABASE_COST: usize = 40;

/// A snapshot, and the process that opened it: SQLite's connections do not outlive a fork.
struct Opened {
    process: u32,
    searcher: ManuallyDrop<Searcher>,
}

impl Opened {
    fn new(searcher: Searcher) -> Self {
        Self { process: std::process::id(), searcher: ManuallyDrop::new(searcher) }
    }

    fn is_of_this_process(&self) -> bool {
        self.process == std::process::id()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // What a parent process opened is left alone.
        if self.is_of_this_process() {
            // SAFETY: nothing reads the field after this.
            unsafe { ManuallyDrop::drop(&mut self.searcher) }
        }
    }
}

/// The turn to write, which ends with this value.
pub(crate) struct WriteTurn<'a>(&'a AtomicU32);

impl Drop for WriteTurn<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

thread_local! {
    /// Indexes to which an `add` of this thread is under way, by address.
    static FEEDING: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
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
        Self::open_source(dir, engine, (model, reranker), Source::Folder)
    }

    /// Opens the shard of a number in the list in `dir`.
    pub(crate) fn open_shard(dir: PathBuf, number: usize, engine: Arc<Engine>) -> Result<Self> {
        Self::open_source(dir, engine, (None, None), Source::Shard(number))
    }

    /// Opens the index whose shards other processes hold, by its list in `dir`.
    pub(crate) fn open_remote(
        dir: PathBuf,
        engine: Arc<Engine>,
        models: (Option<String>, Option<String>),
        shards: Arc<dyn RemoteShards>,
    ) -> Result<Self> {
        Self::open_source(dir, engine, models, Source::Remote(shards))
    }

    fn open_source(
        dir: PathBuf,
        engine: Arc<Engine>,
        (model, reranker): (Option<String>, Option<String>),
        source: Source,
    ) -> Result<Self> {
        let (writing, reopening) = (AtomicU32::new(0), Mutex::new(()));
        let opened = Mutex::new(None);
        let index = Self { dir, engine, model, reranker, source, opened, writing, reopening };
        let searcher = index.open()?;
        *index.opened() = Some(Opened::new(searcher));
        Ok(index)
    }

    /// True if a search takes some milliseconds: what it needs is open, and it reads few rows.
    /// `slow` tells if it reads the database too, for a filter or words.
    pub(crate) fn is_short(&self, n_queries: usize, embeds: bool, slow: bool) -> bool {
        // The caller holds the GIL, and so must not wait.
        let Ok(opened) = self.opened.try_lock() else { return false };
        let Some(opened) = opened.as_ref() else { return false };
        let (searcher, per_row) = (&opened.searcher, if slow { DATABASE_COST } else { 0 });
        let per_row = n_queries + per_row;
        opened.is_of_this_process()
            && !self.is_remote()
            && (!embeds || searcher.embedder.is_some() && n_queries == 1)
            && per_row.saturating_mul(searcher.index.n_rows()) <= SHORT_SCORES
    }

    /// True if other processes hold the shards: calls wait for them then.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.source, Source::Remote(_))
    }

    /// Closes the index.
    pub(crate) fn close(&self) {
        let closed = self.opened().take();
        drop(closed);
    }

    /// A searcher over the newest snapshot, with the models that are needed.
    pub(crate) fn searcher(&self, needs: Needs, stop: &Stop) -> Result<Searcher> {
        let mut searcher = self.newest()?;
        // Models are opened without the lock, since their threads work for other calls meanwhile.
        if needs.embedder && searcher.embedder.is_none() {
            let embedder = self.engine.embedder_of(&searcher.index, self.model.as_deref())?;
            searcher.embedder = self.keep(|kept| &mut kept.embedder, embedder.map(Arc::new));
        }
        if let Some(required) = needs.reranker {
            if searcher.reranker.is_none() {
                let reranker = self.engine.reranker(self.reranker.as_deref())?;
                searcher.reranker = self.keep(|kept| &mut kept.reranker, reranker);
            }
            if required && searcher.reranker.is_none() {
                return Err(no_reranker());
            }
        }
        Ok(Searcher { stop: Some(Arc::clone(stop)), ..searcher })
    }

    /// The newest snapshot with the models that were opened. Opens it anew in a forked child.
    fn newest(&self) -> Result<Searcher> {
        let closed = || Error::usage("the index is closed: open it again with Index.open");
        {
            let opened = self.opened();
            let opened = opened.as_ref().ok_or_else(closed)?;
            if opened.is_of_this_process() {
                return Ok(Searcher::clone(&opened.searcher));
            }
        }
        let new = Opened::new(self.open()?);
        let mut opened = self.opened();
        let old = opened.as_mut().ok_or_else(closed)?;
        if !old.is_of_this_process() {
            *old = new;
        }
        Ok(Searcher::clone(&old.searcher))
    }

    /// Keeps the embedder that the index was created with.
    pub(crate) fn keep_embedder(&self, embedder: Option<Arc<Embedder>>) {
        self.keep(|kept| &mut kept.embedder, embedder);
    }

    /// Keeps a model for later calls, and returns the one that is kept.
    fn keep<T: Clone>(
        &self,
        slot: impl Fn(&mut Searcher) -> &mut Option<T>,
        model: Option<T>,
    ) -> Option<T> {
        let mut opened = self.opened();
        let Some(opened) = opened.as_mut() else { return model };
        let kept = slot(&mut opened.searcher);
        if kept.is_none() {
            *kept = model;
        }
        kept.clone()
    }

    /// The newest snapshot.
    pub(crate) fn snapshot(&self) -> Result<Arc<Snapshot>> {
        Ok(self.searcher(Needs::default(), &Stop::default())?.index)
    }

    fn open(&self) -> Result<Searcher> {
        let index = Arc::new(match &self.source {
            Source::Folder => Snapshot::open(&self.dir)?,
            Source::Shard(number) => Snapshot::open_shard(&self.dir, *number)?,
            Source::Remote(shards) => Snapshot::open_remote(&self.dir, Arc::clone(shards))?,
        });
        let scanner = self.engine.scanner();
        Ok(Searcher { index, embedder: None, reranker: None, scanner, stop: None })
    }

    /// Takes up what was committed since. True if anything was.
    pub(crate) fn reopen(&self) -> Result<bool> {
        let _one_at_a_time = self.reopening.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(new) = self.newest()?.reopened()? else { return Ok(false) };
        if let Some(opened) = &mut *self.opened() {
            opened.searcher.index = new.index;
        }
        Ok(true)
    }

    /// Waits for the turn to write, unless it is stopped.
    pub(crate) fn turn_to_write(&self, stop: &Stop) -> Result<WriteTurn<'_>> {
        let own = std::process::id();
        loop {
            // A forked child has none of the threads that may have held the turn of its parent.
            let holder = self.writing.load(Ordering::Acquire);
            let is_free = holder != own;
            let (old, new) = (holder, own);
            let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
            if is_free && self.writing.compare_exchange(old, new, success, failure).is_ok() {
                return Ok(WriteTurn(&self.writing));
            }
            check(stop)?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Runs `work`, which calls the caller's code, and remembers it for
    /// [`SharedIndex::check_not_feeding`].
    pub(crate) fn feeding<T>(&self, work: impl FnOnce() -> T) -> T {
        FEEDING.with_borrow_mut(|feeding| feeding.push(std::ptr::from_ref(self) as usize));
        let outcome = work();
        FEEDING.with_borrow_mut(Vec::pop);
        outcome
    }

    /// Refuses to write from an iterator or a function that an `add` to this index waits for.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`].
    pub(crate) fn check_not_feeding(&self) -> Result<()> {
        let own = std::ptr::from_ref(self) as usize;
        match FEEDING.with_borrow(|feeding| feeding.contains(&own)) {
            true => Err(Error::usage(
                "the iterator or function of an add writes to the same index: write after the add",
            )),
            false => Ok(()),
        }
    }

    fn opened(&self) -> MutexGuard<'_, Option<Opened>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
