//! Waiting sequences in the order of their deadlines.

use super::task::{SequenceTask, WorkKind, WorkerClass};
use crate::server::error::{ApiError, ApiResult};
use crate::server::metrics::Metrics;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The number of heavy batches in progress.
pub(super) const HEAVY_WORKERS: usize = 2;

/// Nanoseconds per token before any were measured.
const INITIAL_TOKEN_NS: u64 = 60_000;

/// Waiting sequences; shared by requests and workers.
pub(super) struct Queue {
    kinds: Vec<WorkKind>,
    waiting: Mutex<Waiting>,
    changed: Condvar,
    max_tokens: usize,
    metrics: Arc<Metrics>,
    /// Deadlines are nanoseconds since this instant.
    started: Instant,
}

struct Waiting {
    /// Tasks of each kind, by deadline and then by arrival.
    tasks: Vec<BTreeMap<(u64, u64), SequenceTask>>,
    arrivals: u64,
    /// The number of tokens of all tasks.
    tokens: usize,
    /// Recent nanoseconds per token of heavy batches.
    token_ns: u64,
    is_closed: bool,
}

/// Tasks of one kind for a worker.
pub(super) struct TaskBatch<'a> {
    pub(super) kind: &'a WorkKind,
    pub(super) tasks: Vec<SequenceTask>,
    pub(super) tokens: usize,
}

impl Queue {
    /// An empty queue for these kinds of work, in which `max_tokens` may wait.
    pub(super) fn new(kinds: Vec<WorkKind>, max_tokens: usize, metrics: Arc<Metrics>) -> Self {
        let waiting = Waiting {
            tasks: kinds.iter().map(|_| BTreeMap::new()).collect(),
            arrivals: 0,
            tokens: 0,
            token_ns: INITIAL_TOKEN_NS,
            is_closed: false,
        };
        let (waiting, changed, started) = (Mutex::new(waiting), Condvar::new(), Instant::now());
        Self { kinds, waiting, changed, max_tokens, metrics, started }
    }

    /// Adds the tasks of a request, or refuses it if too many tokens wait.
    pub(super) fn push(&self, kind: &WorkKind, tasks: Vec<SequenceTask>) -> ApiResult<()> {
        let kind = self.kinds.iter().position(|known| known.is_same(kind)).ok_or_else(|| {
            ApiError::internal("no worker has this model: internal error, please report it")
        })?;
        let tokens: usize = tasks.iter().map(|task| task.input.ids.len()).sum();
        let mut waiting = self.lock();
        let before = waiting.tokens;
        if before > 0 && before + tokens > self.max_tokens {
            let message = format!("{before} tokens wait already, and {} may", self.max_tokens);
            let wait = Duration::from_nanos(before as u64 * waiting.token_ns);
            return Err(ApiError::overloaded(message, wait));
        }
        waiting.tokens += tokens;
        self.metrics.waiting_tokens(waiting.tokens);
        let mut due = self.started.elapsed().as_nanos() as u64;
        for task in tasks {
            due += task.input.ids.len() as u64 * waiting.token_ns;
            waiting.arrivals += 1;
            let key = (due, waiting.arrivals);
            waiting.tasks[kind].insert(key, task);
        }
        drop(waiting);
        self.changed.notify_all();
        Ok(())
    }

    /// The next batch for a worker of `class`; waits until there is one. `None` once the queue is
    /// closed.
    pub(super) fn next(&self, class: WorkerClass) -> Option<TaskBatch<'_>> {
        let mut waiting = self.lock();
        while !waiting.is_closed {
            if let Some(batch) = self.take(&mut waiting, class) {
                return Some(batch);
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// Takes tasks of the kind whose first task has the earliest deadline. Drops tasks that nobody
    /// waits for.
    fn take(&self, waiting: &mut Waiting, class: WorkerClass) -> Option<TaskBatch<'_>> {
        let first = |kind: usize| Some((*waiting.tasks[kind].first_key_value()?.0, kind));
        let kinds = (0..self.kinds.len()).filter(|&kind| self.kinds[kind].class() == class);
        let (_, kind) = kinds.filter_map(first).min()?;
        let (max_tokens, max_tasks) = self.kinds[kind].batch_limits();
        let mut batch = TaskBatch { kind: &self.kinds[kind], tasks: Vec::new(), tokens: 0 };
        while let Some(entry) = waiting.tasks[kind].first_entry() {
            let tokens = entry.get().input.ids.len();
            let is_abandoned = entry.get().reply.is_closed();
            let is_full = batch.tokens + tokens > max_tokens || batch.tasks.len() == max_tasks;
            if is_full && !batch.tasks.is_empty() && !is_abandoned {
                break;
            }
            let task = entry.remove();
            waiting.tokens -= tokens;
            if !is_abandoned {
                batch.tokens += tokens;
                batch.tasks.push(task);
            }
        }
        self.metrics.waiting_tokens(waiting.tokens);
        // If nobody waits for this kind any more, another kind may have tasks.
        if batch.tasks.is_empty() { self.take(waiting, class) } else { Some(batch) }
    }

    /// Records a batch of `n_tasks` that was computed.
    pub(super) fn record(&self, kind: &WorkKind, n_tasks: usize, tokens: usize, took: Duration) {
        self.metrics.batch(kind.name(), n_tasks, tokens, took);
        if kind.class() == WorkerClass::Heavy {
            // The heavy workers share the machine.
            let new = took.as_nanos() as u64 / (tokens.max(1) * HEAVY_WORKERS) as u64;
            let mut waiting = self.lock();
            waiting.token_ns = (waiting.token_ns * 15 + new.max(1)) / 16;
        }
    }

    pub(super) fn waiting_tokens(&self) -> usize {
        self.lock().tokens
    }

    /// Ends the workers.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
