//! Waiting sequences in the order of their deadlines.

use super::task::{SequenceTask, WorkKind, WorkerClass};
use crate::server::error::{ApiError, ApiResult};
use crate::server::metrics::Metrics;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The number of heavy batches in progress.
pub(super) const HEAVY_WORKERS: usize = 2;

/// Tokens per pair before any were measured.
const INITIAL_PAIR_TOKENS: u64 = 128;

/// The part of a request's time in which its work must be done by the measured time per token, which
/// grows under overload.
const USED_TIME: f64 = 0.5;

/// A deadline and a number of arrival, which order the tasks.
pub(super) type Place = (u64, u64);

/// Nanoseconds per token before any were measured.
const INITIAL_TOKEN_NS: u64 = 60_000;

/// Waiting sequences; shared by requests and workers.
pub(super) struct Queue {
    kinds: Vec<WorkKind>,
    waiting: Mutex<Waiting>,
    changed: Condvar,
    max_tokens: usize,
    /// The longest time that work may take until it is done, in nanoseconds.
    max_wait_ns: u64,
    metrics: Arc<Metrics>,
    /// Deadlines are nanoseconds since this instant.
    started: Instant,
}

struct Waiting {
    /// Tasks of each kind, by deadline and then by arrival.
    tasks: Vec<BTreeMap<(u64, u64), SequenceTask>>,
    /// Tokens of the places of searches whose pairs are not there yet.
    reserved: BTreeMap<Place, u64>,
    /// Recent tokens per pair.
    pair_tokens: u64,
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
    pub(super) fn new(
        kinds: Vec<WorkKind>,
        max_tokens: usize,
        timeout: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        let waiting = Waiting {
            tasks: kinds.iter().map(|_| BTreeMap::new()).collect(),
            reserved: BTreeMap::new(),
            pair_tokens: INITIAL_PAIR_TOKENS,
            arrivals: 0,
            tokens: 0,
            token_ns: INITIAL_TOKEN_NS,
            is_closed: false,
        };
        let (waiting, changed, started) = (Mutex::new(waiting), Condvar::new(), Instant::now());
        let max_wait_ns = timeout.mul_f64(USED_TIME).as_nanos() as u64;
        Self { kinds, waiting, changed, max_tokens, max_wait_ns, metrics, started }
    }

    /// Reserves a place for pairs, or refuses them if they could not be scored in time.
    pub(super) fn admit(&self, n_pairs: usize) -> ApiResult<Place> {
        let mut waiting = self.lock();
        let tokens = n_pairs as u64 * waiting.pair_tokens;
        let due = self.now() + tokens * waiting.token_ns;
        self.check_wait(&waiting, due, tokens)?;
        waiting.arrivals += 1;
        let place = (due, waiting.arrivals);
        waiting.reserved.insert(place, tokens);
        Ok(place)
    }

    /// Gives back a place, unless its pairs have come.
    pub(super) fn give_back(&self, place: Place) {
        self.lock().reserved.remove(&place);
    }

    /// Refuses `tokens` that are due at `due` if they could not be computed in time: heavy tasks
    /// that are due before them come first.
    fn check_wait(&self, waiting: &Waiting, due: u64, tokens: u64) -> ApiResult<()> {
        let is_heavy = |kind: &usize| self.kinds[*kind].class() == WorkerClass::Heavy;
        let heavy = (0..self.kinds.len()).filter(is_heavy);
        let before = heavy.flat_map(|kind| waiting.tasks[kind].range(..(due, 0)));
        let before = before.filter(|(_, task)| !task.reply.is_closed());
        let before: u64 = before.map(|(_, task)| task.input.ids.len() as u64).sum();
        let before = before + waiting.reserved.range(..(due, 0)).map(|(_, n)| n).sum::<u64>();
        if before == 0 || (before + tokens) * waiting.token_ns <= self.max_wait_ns {
            return Ok(());
        }
        let wait = Duration::from_nanos(before * waiting.token_ns);
        let message = format!(
            "the work that waits takes {:.1} s already: this request could not be done in time",
            wait.as_secs_f64()
        );
        Err(ApiError::overloaded(message, wait))
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Adds the tasks of a request, in the place that was reserved for them, if there is one.
    /// Refuses it if too many tokens wait, or if it could not be done in time.
    pub(super) fn push(
        &self,
        kind: &WorkKind,
        tasks: Vec<SequenceTask>,
        place: Option<Place>,
    ) -> ApiResult<()> {
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
        let reserved = place.and_then(|place| Some((place.0, waiting.reserved.remove(&place)?)));
        let mut due = match reserved {
            // As if the pairs had come when the place was taken.
            Some((due, reserved)) => due.saturating_sub(reserved * waiting.token_ns),
            None if self.kinds[kind].class() == WorkerClass::Heavy => {
                let (now, tokens) = (self.now(), tokens as u64);
                self.check_wait(&waiting, now + tokens * waiting.token_ns, tokens)?;
                now
            }
            None => self.now(),
        };
        waiting.tokens += tokens;
        self.metrics.waiting_tokens(waiting.tokens);
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
            waiting.token_ns = (waiting.token_ns * 7 + new.max(1)) / 8;
            if matches!(kind, WorkKind::Rerank(_)) {
                let of_pair = tokens / n_tasks.max(1);
                waiting.pair_tokens = (waiting.pair_tokens * 15 + of_pair as u64).div_ceil(16);
            }
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
