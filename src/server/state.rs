//! What all requests share.

use super::body::RECEIVE_UNIT;
use super::error::ApiError;
use super::guard::key_digest;
use super::metrics::Metrics;
use super::scheduler::Scheduler;
use super::write::Writer;
use super::{Access, Answers, Limits, Named, Serving};
use crate::embed::Embedder;
use crate::error::{Error, Result};
use crate::rerank::Reranker;
use crate::search::Searcher;
use crate::store::Index;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How often it is looked whether another process changed an index.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is shared.
#[derive(Debug)]
pub(super) struct State {
    pub(super) indexes: Vec<Arc<Served>>,
    pub(super) embedders: Vec<Named<Embedder>>,
    pub(super) reranker: Option<Named<Reranker>>,
    pub(super) answers: Option<Arc<Answers>>,
    pub(super) access: Access,
    /// The digests of the keys.
    pub(super) keys: Vec<[u8; 32]>,
    pub(super) limits: Limits,
    pub(super) device: String,
    pub(super) precision: String,
    pub(super) is_unix: bool,
    pub(super) scheduler: Scheduler,
    pub(super) metrics: Arc<Metrics>,
    working: Arc<Semaphore>,
    receiving: Arc<Semaphore>,
    draining: AtomicBool,
}

/// An index that is served under a name.
#[derive(Debug)]
pub struct Served {
    /// The name.
    pub name: String,
    /// The newest snapshot. A request takes it once, and sees the same until its end.
    searcher: RwLock<Arc<Searcher>>,
    /// Held while the index is opened again, so that an older snapshot never takes a newer one's place.
    reloading: Mutex<()>,
    writer: std::sync::OnceLock<Writer>,
}

impl Served {
    /// Serves `searcher` under `name`.
    pub fn new(name: impl Into<String>, searcher: Searcher) -> Self {
        Self {
            name: name.into(),
            searcher: RwLock::new(Arc::new(searcher)),
            reloading: Mutex::default(),
            writer: std::sync::OnceLock::new(),
        }
    }

    /// The newest snapshot.
    pub(super) fn searcher(&self) -> Arc<Searcher> {
        Arc::clone(&self.searcher.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Opens the index again; later requests see what it holds now.
    pub(super) fn reload(&self) -> Result<()> {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.searcher();
        let index = Index::open(old.index.dir())?;
        if index.snapshot_id() == old.index.snapshot_id() {
            return Ok(());
        }
        if index.manifest().dim != old.index.manifest().dim
            || index.manifest().model != old.index.manifest().model
        {
            return Err(Error::corrupt(
                old.index.dir(),
                "another index stands here now: restart the server to serve it",
            ));
        }
        let new = Searcher {
            index,
            embedder: old.embedder.clone(),
            reranker: old.reranker.clone(),
            scanner: old.scanner.clone(),
        };
        *self.searcher.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(())
    }

    /// The one writer, started when it is first needed.
    pub(super) fn writer(self: &Arc<Self>) -> &Writer {
        self.writer.get_or_init(|| Writer::start(Arc::downgrade(self)))
    }

    /// What changes whenever anyone commits.
    fn fingerprint(&self) -> Vec<Option<(SystemTime, u64)>> {
        let dir: PathBuf = self.searcher().index.dir().to_path_buf();
        let look = |name: &str| {
            let found = std::fs::metadata(dir.join(name)).ok()?;
            Some((found.modified().ok()?, found.len()))
        };
        vec![look("documents.db"), look("documents.db-wal"), look("manifest.json")]
    }
}

impl State {
    pub(super) fn new(serving: Serving, is_unix: bool) -> Result<Arc<Self>> {
        let Serving { indexes, embedders, reranker, answers, access, limits, device, precision } =
            serving;
        let metrics = Arc::new(Metrics::new());
        let models: Vec<Arc<Embedder>> = embedders.iter().map(|e| Arc::clone(&e.model)).collect();
        let scheduler = Scheduler::start(
            &models,
            reranker.as_ref().map(|r| &r.model),
            limits.max_waiting_tokens,
            Arc::clone(&metrics),
        )?;
        let receiving = (limits.max_receiving_bytes / RECEIVE_UNIT).min(Semaphore::MAX_PERMITS);
        Ok(Arc::new(Self {
            indexes: indexes.into_iter().map(Arc::new).collect(),
            embedders,
            reranker,
            answers: answers.map(Arc::new),
            keys: access.keys.iter().map(|key| key_digest(key.reveal())).collect(),
            access,
            working: Arc::new(Semaphore::new(limits.max_concurrent_requests)),
            receiving: Arc::new(Semaphore::new(receiving)),
            limits,
            device,
            precision,
            is_unix,
            scheduler,
            metrics,
            draining: AtomicBool::new(false),
        }))
    }

    /// The index of this name, or the only one.
    pub(super) fn index(&self, name: Option<&str>) -> Result<&Arc<Served>, ApiError> {
        let names = || {
            let names: Vec<&str> = self.indexes.iter().map(|i| i.name.as_str()).collect();
            names.join(", ")
        };
        match (name, &self.indexes[..]) {
            (_, []) => Err(ApiError::missing(
                "this server has no index: start it with one, `warpseek serve DIR`",
            )),
            (None, [only]) => Ok(only),
            (None, _) => {
                let message =
                    format!("there are several indexes, so say which in `index`: {}", names());
                Err(ApiError::bad(message).param("index"))
            }
            (Some(name), all) => all.iter().find(|i| i.name == name).ok_or_else(|| {
                ApiError::not_found(format!("no index is called '{name}'; there is {}", names()))
                    .param("index")
            }),
        }
    }

    /// The embedder of this name, else the default one, with a word about it where another was asked for.
    pub(super) fn embedder(
        &self,
        asked: Option<&str>,
    ) -> Result<(&Named<Embedder>, Option<String>), ApiError> {
        let first = self.embedders.first().ok_or_else(|| {
            ApiError::missing("this server has no embedding model: start it without --rerank-only")
        })?;
        let Some(asked) = asked.filter(|name| !name.is_empty()) else { return Ok((first, None)) };
        let is = |e: &&Named<Embedder>| is_called(&e.name, asked);
        match self.embedders.iter().find(is) {
            Some(found) => Ok((found, None)),
            None => Ok((first, Some(other_model(asked, &first.name)))),
        }
    }

    /// The reranker, with a word about it where another was asked for.
    pub(super) fn reranker(
        &self,
        asked: Option<&str>,
    ) -> Result<(&Named<Reranker>, Option<String>), ApiError> {
        let only = self.reranker.as_ref().ok_or_else(|| {
            ApiError::missing("this server has no reranker: `warpseek models pull ms-marco-MiniLM-L6-v2` fetches one")
        })?;
        let other = asked.filter(|name| !name.is_empty() && !is_called(&only.name, name));
        Ok((only, other.map(|asked| other_model(asked, &only.name))))
    }

    /// Leave to work on a request, until it is dropped.
    pub(super) fn start_work(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        if self.is_draining() {
            return Err(ApiError::unavailable(
                "the server is shutting down",
                Duration::from_secs(5),
            ));
        }
        Arc::clone(&self.working).try_acquire_owned().map_err(|_| {
            let message =
                format!("{} requests are being worked on", self.limits.max_concurrent_requests);
            ApiError::overloaded(message, Duration::from_secs(1))
        })
    }

    /// Leave to hold so many units of bytes of bodies.
    pub(super) fn receive(&self, units: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        Arc::clone(&self.receiving).try_acquire_many_owned(units).map_err(|_| {
            ApiError::overloaded("too many bytes are being received", Duration::from_secs(1))
        })
    }

    /// Refuses requests of more tokens than one may have.
    pub(super) fn check_tokens(&self, tokens: usize) -> Result<(), ApiError> {
        if tokens <= self.limits.max_request_tokens {
            return Ok(());
        }
        Err(ApiError::bad(format!(
            "the request has {tokens} tokens, and {} are allowed: send it in parts",
            self.limits.max_request_tokens
        )))
    }

    /// Refuses requests of more inputs than one may have, or none.
    pub(super) fn check_inputs(&self, n: usize, param: &str) -> Result<(), ApiError> {
        if n == 0 {
            return Err(ApiError::empty(format!("`{param}` is empty")).param(param));
        }
        if n > self.limits.max_inputs {
            let message =
                format!("`{param}` has {n} entries, and {} are allowed", self.limits.max_inputs);
            return Err(ApiError::bad(message).param(param));
        }
        Ok(())
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(super) fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

/// Whether `asked` names the model: by all of its name, or by its last part.
fn is_called(name: &str, asked: &str) -> bool {
    let last =
        |name: &str| name.rsplit(['/', '\\']).next().unwrap_or_default().to_ascii_lowercase();
    name == asked || last(name) == last(asked)
}

fn other_model(asked: &str, used: &str) -> String {
    let shown: String =
        asked.chars().take(80).filter(|c| c.is_ascii_graphic() && *c != '"').collect();
    format!("model '{shown}' is not served here; '{used}' was used")
}

/// Takes in what other processes commit to the indexes.
pub(super) async fn follow_changes(state: Arc<State>) {
    let mut seen: Vec<_> = state.indexes.iter().map(|index| index.fingerprint()).collect();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        for (index, seen) in state.indexes.iter().zip(&mut seen) {
            let now = index.fingerprint();
            if now == *seen {
                continue;
            }
            *seen = now;
            let served = Arc::clone(index);
            let reloaded = tokio::task::spawn_blocking(move || served.reload()).await;
            if let Ok(Err(e)) = reloaded {
                tracing::warn!("index '{}' could not be opened again: {e}", index.name);
            }
        }
    }
}
