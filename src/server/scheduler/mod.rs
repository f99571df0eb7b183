//! Batches across requests, in the order of virtual deadlines.
//!
//! Requests are checked and tokenized where they arrive. Token sequences for a model wait here in
//! one queue, sorted by kind ([`WorkKind`]). A few worker threads take batches from it, each for
//! kinds of one class ([`WorkerClass`]). Query vectors for the scan wait in a channel.
//!
//! # Order
//!
//! A task's virtual deadline is the time at which it would be finished if its request had the
//! machine to itself:
//!
//! ```text
//! arrival of a request:
//!     if other tokens wait, and they and its own exceed the limit: refuse it (429)
//!     if the tokens before it and its own take longer than half of what a request may:
//!         refuse it (429)
//!     due = now
//!     for each sequence:
//!         due += tokens of the sequence * measured time per token
//!         waiting[kind].insert((due, arrival number), sequence)
//!
//! worker of a class, forever:
//!     kind = the kind of this class whose first task has the earliest deadline
//!     while the batch has room:
//!         task = the first task of waiting[kind]
//!         if its client has gone: drop it, else: move it into the batch
//!     compute the batch, and send each result to its request
//! ```
//!
//! - A short request overtakes a long one, because its deadlines lie before most of the other's.
//! - Two long requests advance in turns, because their deadlines interleave.
//! - Nothing starves. A deadline is fixed at arrival, and work that arrives after it has later
//!   ones. So only a bounded amount of work can go first.
//! - Scans all take about as long. They are served in the order of their arrival.
//!
//! # Batches
//!
//! Sequences for the same model and role share a batch, whatever their requests and routes. Queries
//! for the same snapshot with the same retrieval options share a pass over the rows, whatever their
//! filters. If an input of a batch is invalid, each of its tasks is computed alone, so that only
//! the invalid one fails.
//!
//! # Workers
//!
//! Two workers embed passages and score pairs, so that no core is idle between two batches. Queries
//! and scans are short and have a worker each, with a thread pool of their own: they wait for no
//! long batch, and the operating system divides the cores.
//!
//! # Back-pressure
//!
//! The queue holds a limited number of tokens, and no more work than can be done in half of the
//! time that a request has, by the measured time per token: work that ends too late is done for
//! nobody. A request beyond that is refused with 429 and told how long the waiting work will take.
//! If little waits, a request of any size is taken: it could otherwise never run.
//!
//! A search takes its place when it arrives, for as many pairs as it will rerank, of the recent
//! number of tokens per pair. So it is refused before anything was done for it.
//!
//! # No deadlock
//!
//! A worker waits for nothing but the queue, whose lock is never held while a batch is computed,
//! and for shards in other processes, which have a time limit of their own. Replies never block. A
//! batch that panics drops its tasks, and with them the senders of the replies, so that the
//! requests end with an error instead of waiting forever.

mod queue;
mod task;
mod work;

use super::error::{ApiError, ApiResult};
use super::metrics::Metrics;
use crate::error::{Error, Result};
use crate::search::{QueryInput, Retrieved, SearchOptions, Searcher, Timings};
use queue::{HEAVY_WORKERS, Queue, QueueKey};
use rayon::ThreadPool;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
pub(super) use task::WorkKind;
use task::{ScanQuery, ScanTask, SequenceTask, WorkerClass};
use tokio::sync::oneshot;
use warpseek_bert::embedder::{Embedder, Role};
use warpseek_bert::reranker::Reranker;
use warpseek_bert::tokenizer::Sequence;

/// Takes work from requests and returns the results. The workers end when this is dropped.
pub(super) struct Scheduler {
    queue: Arc<Queue>,
    scans: Sender<ScanTask>,
}

impl Scheduler {
    /// Starts the workers. At most `max_tokens` may wait, and no work is taken that could not be
    /// done within `timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a thread cannot be started.
    pub(super) fn start(
        embedders: &[Arc<Embedder>],
        reranker: Option<&Arc<Reranker>>,
        max_tokens: usize,
        timeout: Duration,
        metrics: Arc<Metrics>,
    ) -> Result<Self> {
        let mut kinds = Vec::new();
        for embedder in embedders {
            for role in [Role::Query, Role::Passage, Role::Plain] {
                kinds.push(WorkKind::Embed(Arc::clone(embedder), role));
            }
            kinds.push(WorkKind::TokenStates(Arc::clone(embedder)));
        }
        kinds.extend(reranker.map(|reranker| WorkKind::Rerank(Arc::clone(reranker))));
        let queue = Arc::new(Queue::new(kinds, max_tokens, timeout, Arc::clone(&metrics)));
        let (scans, incoming) = channel();
        let pool = rayon::ThreadPoolBuilder::new()
            .thread_name(|i| format!("queries-{i}"))
            .build()
            .map_err(|e| Error::io("start", "a thread pool")(std::io::Error::other(e)))?;
        let pool = Arc::new(pool);
        let start = |name, class, pool: Option<Arc<ThreadPool>>| {
            let queue = Arc::clone(&queue);
            spawn(name, move || work::run_batches(&queue, class, pool.as_deref()))
        };
        for _ in 0..HEAVY_WORKERS {
            start("models", WorkerClass::Heavy, None)?;
        }
        start("embed-queries", WorkerClass::Queries, Some(Arc::clone(&pool)))?;
        spawn("scan", move || work::run_scans(&incoming, &pool, &metrics))?;
        Ok(Self { queue, scans })
    }

    /// Reserves a place for `n_pairs` pairs, which later work does not overtake. It is given back
    /// when it is dropped.
    ///
    /// # Errors
    ///
    /// Back-pressure: refused if the work before them, and their own, takes longer than requests
    /// may.
    pub(super) fn admit(&self, n_pairs: usize) -> ApiResult<Admission> {
        let key = self.queue.admit(n_pairs)?;
        Ok(Admission { queue: Arc::clone(&self.queue), key })
    }

    /// The rows of results of sequences, in their order. They are computed in the place of
    /// `admission`, or else behind all that waits.
    pub(super) async fn compute(
        &self,
        kind: WorkKind,
        inputs: Vec<Sequence>,
        admission: Option<&Admission>,
    ) -> ApiResult<Vec<Vec<f32>>> {
        let mut answers = Vec::with_capacity(inputs.len());
        let task = |input: Sequence| {
            let (reply, answer) = oneshot::channel();
            answers.push(answer);
            SequenceTask { input, reply }
        };
        let tasks = inputs.into_iter().map(task).collect();
        self.queue.push(&kind, tasks, admission.map(|admission| admission.key))?;
        let mut rows = Vec::with_capacity(answers.len());
        for answer in answers {
            rows.push(received(answer).await?);
        }
        Ok(rows)
    }

    /// Retrieves the rows of a query vector, as [`Searcher::rank`] does.
    pub(super) async fn rank(
        &self,
        searcher: &Arc<Searcher>,
        query: &QueryInput<'_>,
        vector: Vec<f32>,
        options: &SearchOptions,
    ) -> ApiResult<(Retrieved, Timings)> {
        let input = ScanQuery {
            searcher: Arc::clone(searcher),
            text: query.text.to_owned(),
            filter: query.filter.or(options.filter.as_ref()).cloned(),
            vector,
            options: SearchOptions { filter: None, ..options.clone() },
        };
        let (reply, answer) = oneshot::channel();
        // If the worker has ended, the reply is dropped with the task.
        let _ = self.scans.send(ScanTask { input, reply });
        received(answer).await
    }

    /// The number of tokens that wait.
    pub(super) fn waiting_tokens(&self) -> usize {
        self.queue.waiting_tokens()
    }
}

/// A place in the queue.
pub(super) struct Admission {
    queue: Arc<Queue>,
    key: QueueKey,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.queue.give_back(self.key);
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.queue.close();
    }
}

async fn received<T>(answer: oneshot::Receiver<Result<T>>) -> ApiResult<T> {
    let ended =
        |_| ApiError::internal("a batch ended without a result: internal error, please report it");
    Ok(answer.await.map_err(ended)??)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(work).map(drop).map_err(Error::io("start", "a thread"))
}
