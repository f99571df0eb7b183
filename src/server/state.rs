//! State that all requests share.

use super::error::{ApiError, ApiResult};
use super::keys::Keys;
use super::metrics::Metrics;
use super::scheduler::Scheduler;
use super::served::Served;
use super::settings::{Access, Answers, Named, ServerLimits, Serving};
use super::writer::Writer;
use crate::error::Result;
use axum::http::StatusCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use warpseek_bert::embedder::Embedder;
use warpseek_bert::reranker::Reranker;

/// The interval at which indexes are checked for commits of other processes.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The `Retry-After` of a server that shuts down: it may have been started again by then.
const DRAIN_RETRY: Duration = Duration::from_secs(5);

/// The number of bytes that one permit to receive stands for.
const RECEIVE_UNIT: usize = 1024;

/// Bytes of a body for which there is room beside long ones.
const SHORT_BODY: usize = 64 << 10;

/// Bytes of the texts of a request that are tokenized within some milliseconds.
const SHORT_TEXTS: usize = 32 << 10;

/// Requests with short texts that are tokenized at a time, per core.
const SHORT_TURNS: usize = 4;

/// Permission to work on a request, and its share of the bytes that may be received; until it is
/// dropped.
pub(super) struct WorkPermit {
    _working: OwnedSemaphorePermit,
    _received: Option<OwnedSemaphorePermit>,
}

/// State that all requests share.
pub(super) struct AppState {
    pub(super) indexes: Vec<OpenIndex>,
    default_index: Option<String>,
    pub(super) embedders: Vec<Named<Embedder>>,
    pub(super) reranker: Option<Named<Reranker>>,
    pub(super) answers: Option<Arc<Answers>>,
    pub(super) access: Access,
    pub(super) keys: Keys,
    pub(super) limits: ServerLimits,
    pub(super) device: String,
    pub(super) precision: String,
    pub(super) is_unix: bool,
    pub(super) scheduler: Scheduler,
    pub(super) metrics: Arc<Metrics>,
    working: Arc<Semaphore>,
    /// Bytes of short bodies, and of long ones.
    receiving: [Arc<Semaphore>; 2],
    /// Turns to tokenize short texts, and long ones.
    tokenizing: [Arc<Semaphore>; 2],
    draining: AtomicBool,
}

/// An index with its writer.
pub(super) struct OpenIndex {
    pub(super) served: Arc<Served>,
    pub(super) writer: Writer,
}

impl AppState {
    pub(super) fn new(serving: Serving, is_unix: bool) -> Result<Arc<Self>> {
        let Serving { indexes, default_index, embedders, reranker, answers, .. } = serving;
        let Serving { access, limits, device, precision, .. } = serving;
        let open = |served: Served| {
            let served = Arc::new(served);
            OpenIndex { writer: Writer::start(Arc::clone(&served)), served }
        };
        let metrics = Arc::new(Metrics::new());
        let models: Vec<Arc<Embedder>> = embedders.iter().map(|e| Arc::clone(&e.model)).collect();
        let scheduler = Scheduler::start(
            &models,
            reranker.as_ref().map(|r| &r.model),
            limits.max_waiting_tokens,
            Duration::from_secs_f64(limits.timeout_s),
            Arc::clone(&metrics),
        )?;
        let cores = rayon::current_num_threads();
        let units = |bytes: usize| (bytes / RECEIVE_UNIT).min(Semaphore::MAX_PERMITS);
        let receiving = units(limits.max_receiving_bytes);
        // The longest body that is allowed has room when nothing else is received.
        let long = receiving.max(units(limits.max_body_bytes.saturating_add(RECEIVE_UNIT)));
        Ok(Arc::new(Self {
            indexes: indexes.into_iter().map(open).collect(),
            default_index,
            embedders,
            reranker,
            answers: answers.map(Arc::new),
            keys: Keys::new(&access.keys),
            access,
            tokenizing: [SHORT_TURNS, 1].map(|turns| Arc::new(Semaphore::new(turns * cores))),
            working: Arc::new(Semaphore::new(limits.max_concurrent_requests)),
            receiving: [receiving / 4, long].map(|units| Arc::new(Semaphore::new(units))),
            limits,
            device,
            precision,
            is_unix,
            scheduler,
            metrics,
            draining: AtomicBool::new(false),
        }))
    }

    /// The index of this name; without a name, the default one, or the only one.
    pub(super) fn index(&self, name: Option<&str>) -> ApiResult<&OpenIndex> {
        let all = &self.indexes;
        if all.is_empty() {
            let message = "this server has no index: start it with one, `warpseek serve DIR`";
            return Err(ApiError::not_served(message));
        }
        let found = match name.or(self.default_index.as_deref()) {
            None => all.first().filter(|_| all.len() == 1),
            Some(name) => all.iter().find(|index| index.served.name == name),
        };
        found.ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|index| &*index.served.name).collect();
            let names = names.join(", ");
            let error = match name {
                None => ApiError::invalid(format!(
                    "several indexes are served: name one of them in `index`: {names}"
                )),
                Some(name) => ApiError::new(
                    StatusCode::NOT_FOUND,
                    format!("no index is called '{name}'; there is {names}"),
                ),
            };
            error.param("index")
        })
    }

    /// The embedder of this name. If there is none: the default one, with a warning.
    pub(super) fn embedder(
        &self,
        name: Option<&str>,
    ) -> ApiResult<(&Named<Embedder>, Option<String>)> {
        let missing = "this server has no embedding model: start it without --rerank-only";
        model_called(name, &self.embedders, missing)
    }

    /// The reranker, with a warning if `name` is another model's.
    pub(super) fn reranker(
        &self,
        name: Option<&str>,
    ) -> ApiResult<(&Named<Reranker>, Option<String>)> {
        let missing = "this server has no reranker: start it without --embed-only, and with \
                       --reranker to name one";
        model_called(name, self.reranker.as_slice(), missing)
    }

    /// Permission to work on a request, until it is dropped. Back-pressure: refused if too many
    /// requests are in progress.
    pub(super) fn start_work(&self) -> ApiResult<WorkPermit> {
        self.start_work_on(None)
    }

    /// As [`AppState::start_work`], for a body that was received with this share.
    pub(super) fn start_work_on(
        &self,
        received: Option<OwnedSemaphorePermit>,
    ) -> ApiResult<WorkPermit> {
        if self.is_draining() {
            // Not 503: some clients repeat a request with that status at once and without end.
            return Err(ApiError::overloaded("the server is shutting down", DRAIN_RETRY));
        }
        let working = Arc::clone(&self.working).try_acquire_owned().map_err(|_| {
            let most = self.limits.max_concurrent_requests;
            let message = format!("{most} requests are being worked on");
            ApiError::overloaded(message, Duration::from_secs(1))
        })?;
        Ok(WorkPermit { _working: working, _received: received })
    }

    /// Waits for the turn to tokenize texts of so many bytes, which lasts until it is dropped.
    pub(super) async fn turn_to_tokenize(&self, bytes: usize) -> ApiResult<OwnedSemaphorePermit> {
        let turns = &self.tokenizing[usize::from(bytes > SHORT_TEXTS)];
        let ended = |_| ApiError::internal("the server has ended");
        Arc::clone(turns).acquire_owned().await.map_err(ended)
    }

    /// Raises `share` to permission to hold `bytes` of received bodies.
    pub(super) fn receive(
        &self,
        bytes: usize,
        share: &mut Option<OwnedSemaphorePermit>,
    ) -> ApiResult<()> {
        let pool = &self.receiving[usize::from(bytes > SHORT_BODY)];
        // A body that turns out to be long takes all of its share from the other pool.
        share.take_if(|share| !Arc::ptr_eq(share.semaphore(), pool));
        let held = share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.div_ceil(RECEIVE_UNIT).saturating_sub(held);
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let permit = Arc::clone(pool).try_acquire_many_owned(more).map_err(|_| {
            let message = "too many bytes are being received and worked on";
            ApiError::overloaded(message, Duration::from_secs(1))
        })?;
        match share {
            Some(share) => share.merge(permit),
            None => *share = Some(permit),
        }
        Ok(())
    }

    /// Refuses requests with too many tokens.
    pub(super) fn check_tokens(&self, tokens: usize) -> ApiResult<()> {
        let most = self.limits.max_request_tokens;
        if tokens <= most {
            return Ok(());
        }
        Err(ApiError::invalid(format!(
            "the request has {tokens} tokens, and {most} are allowed: send it in parts"
        )))
    }

    /// Refuses texts of which some are empty, besides [`AppState::check_inputs`].
    pub(super) fn check_texts(&self, texts: &[String], param: &str) -> ApiResult<()> {
        self.check_inputs(texts.len(), param)?;
        match texts.iter().position(|text| text.trim().is_empty()) {
            Some(at) => {
                let message = format!("`{param}` {at} is empty: write a text, or leave it out");
                Err(ApiError::empty(message).param(param))
            }
            None => Ok(()),
        }
    }

    /// Refuses requests with too many inputs, or none.
    pub(super) fn check_inputs(&self, n: usize, param: &str) -> ApiResult<()> {
        let most = self.limits.max_inputs;
        if n == 0 {
            let message = format!("`{param}` is empty: send at least one");
            return Err(ApiError::empty(message).param(param));
        }
        let message =
            format!("`{param}` has {n} entries, and {most} are allowed: send them in parts");
        ApiError::check(n <= most, param, message)
    }

    /// Reports a server that shuts down as unhealthy.
    pub(super) fn check_health(&self) -> ApiResult<()> {
        if !self.is_draining() {
            return Ok(());
        }
        Err(ApiError::unavailable("the server is shutting down", DRAIN_RETRY))
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(super) fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

/// The model of this name, or of the same last part. If there is none: the first one, with a
/// warning. `missing` is the message for no model at all.
fn model_called<'a, T>(
    name: Option<&str>,
    models: &'a [Named<T>],
    missing: &str,
) -> ApiResult<(&'a Named<T>, Option<String>)> {
    let default = models.first().ok_or_else(|| ApiError::not_served(missing))?;
    let Some(given) = name.filter(|name| !name.is_empty()) else { return Ok((default, None)) };
    let last =
        |name: &str| name.rsplit(['/', '\\']).next().unwrap_or_default().to_ascii_lowercase();
    if let Some(found) = models.iter().find(|m| m.name == given || last(&m.name) == last(given)) {
        return Ok((found, None));
    }
    let shown: String =
        given.chars().take(80).filter(|c| c.is_ascii_graphic() && *c != '"').collect();
    let warning = format!("model '{shown}' is not served here; '{}' was used", default.name);
    Ok((default, Some(warning)))
}

/// Opens indexes again after commits of other processes, until it is aborted.
pub(super) async fn follow_changes(state: Arc<AppState>) {
    let mut seen: Vec<_> = state.indexes.iter().map(|i| i.served.fingerprint()).collect();
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        for (index, seen) in state.indexes.iter().zip(&mut seen) {
            let now = index.served.fingerprint();
            if now == *seen {
                continue;
            }
            *seen = now;
            let served = Arc::clone(&index.served);
            let reloaded = tokio::task::spawn_blocking(move || served.reload()).await;
            if let Ok(Err(e)) = reloaded {
                tracing::warn!("index '{}' could not be opened again: {e}", index.served.name);
            }
        }
    }
}
