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
const INITIAL_PAIR_TOKENS: f64 = 128.0;

/// The part of a request's time in which its work must be done by the measured time per token,
/// which grows under overload.
const USED_TIME: f64 = 0.5;

/// A deadline in nanoseconds and a number of arrival, which order the tasks.
pub(super) type QueueKey = (u64, u64);

/// Nanoseconds per token before any were measured.
const INITIAL_TOKEN_NS: f64 = 60_000.0;

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
    /// Places that were taken for pairs.
    reserved: BTreeMap<QueueKey, Reservation>,
    /// Recent tokens per pair.
    pair_tokens: f64,
    arrivals: u64,
    /// The number of tokens of all tasks.
    tokens: usize,
    /// Recent nanoseconds per token of each kind, if batches were measured.
    token_ns: Vec<Option<f64>>,
    is_closed: bool,
}

/// A place among the waiting work.
struct Reservation {
    /// The number of the kind of work.
    kind: usize,
    /// Tokens that have not come yet.
    tokens: u64,
    /// The time at which it was taken, in nanoseconds.
    arrived: u64,
}

impl Waiting {
    /// Nanoseconds for tokens of a kind.
    fn time(&self, kind: usize, tokens: u64) -> u64 {
        (tokens as f64 * self.token_ns[kind].unwrap_or(INITIAL_TOKEN_NS)) as u64
    }

    /// As [`Waiting::time`]; 0 before batches of the kind were measured.
    fn known_time(&self, kind: usize, tokens: u64) -> u64 {
        (tokens as f64 * self.token_ns[kind].unwrap_or(0.0)) as u64
    }
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
            token_ns: vec![None; kinds.len()],
            is_closed: false,
        };
        let (waiting, changed, started) = (Mutex::new(waiting), Condvar::new(), Instant::now());
        let max_wait_ns = timeout.mul_f64(USED_TIME).as_nanos() as u64;
        Self { kinds, waiting, changed, max_tokens, max_wait_ns, metrics, started }
    }

    /// Reserves a place for pairs, or refuses them if they could not be scored in time.
    pub(super) fn admit(&self, n_pairs: usize) -> ApiResult<QueueKey> {
        let is_rerank = |kind: &WorkKind| matches!(kind, WorkKind::Rerank(_));
        let mut waiting = self.lock();
        let Some(kind) = self.kinds.iter().position(is_rerank) else {
            // Without a reranker the request fails later, with a better reason.
            waiting.arrivals += 1;
            return Ok((self.now(), waiting.arrivals));
        };
        let tokens = (n_pairs as f64 * waiting.pair_tokens) as u64;
        let (now, time) = (self.now(), waiting.time(kind, tokens));
        self.check_wait(&waiting, kind, now + time, tokens)?;
        waiting.arrivals += 1;
        let key = (now + time, waiting.arrivals);
        waiting.reserved.insert(key, Reservation { kind, tokens, arrived: now });
        Ok(key)
    }

    /// Gives back a place.
    pub(super) fn give_back(&self, key: QueueKey) {
        self.lock().reserved.remove(&key);
    }

    /// Refuses `tokens` of a kind that are due at `due` if they could not be computed in time:
    /// heavy tasks that are due before them come first. Nothing is refused before its kind was
    /// measured.
    fn check_wait(&self, waiting: &Waiting, kind: usize, due: u64, tokens: u64) -> ApiResult<()> {
        let mut before = vec![0u64; self.kinds.len()];
        for (heavy, tasks) in waiting.tasks.iter().enumerate() {
            if self.kinds[heavy].class() == WorkerClass::Heavy {
                let tasks = tasks.range(..(due, 0)).filter(|(_, task)| !task.reply.is_closed());
                before[heavy] += tasks.map(|(_, task)| task.input.ids.len() as u64).sum::<u64>();
            }
        }
        for (_, reserved) in waiting.reserved.range(..(due, 0)) {
            before[reserved.kind] += reserved.tokens;
        }
        let wait: u64 = before.iter().enumerate().map(|(k, &n)| waiting.known_time(k, n)).sum();
        // A long request is not refused because of a little work.
        let is_short = wait <= self.max_wait_ns / 4;
        if is_short || wait + waiting.known_time(kind, tokens) <= self.max_wait_ns {
            return Ok(());
        }
        let wait = Duration::from_nanos(wait);
        let message = format!(
            "the work that waits takes {:.1} s already: this request could not be done in time",
            wait.as_secs_f64()
        );
        Err(ApiError::overloaded(message, wait))
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Adds the tasks of a request, in the place that was reserved for them. Without one, refuses
    /// the request if too many tokens wait, or if it could not be done in time.
    pub(super) fn push(
        &self,
        kind: &WorkKind,
        tasks: Vec<SequenceTask>,
        key: Option<QueueKey>,
    ) -> ApiResult<()> {
        let kind = self.kinds.iter().position(|known| known.is_same(kind)).ok_or_else(|| {
            ApiError::internal("no worker has this model: internal error, please report it")
        })?;
        let tokens: usize = tasks.iter().map(|task| task.input.ids.len()).sum();
        let mut waiting = self.lock();
        let before = waiting.tokens;
        if before > 0 && before + tokens > self.max_tokens {
            let message = format!("{before} tokens wait already, and {} may", self.max_tokens);
            let wait = Duration::from_nanos(waiting.time(kind, before as u64));
            return Err(ApiError::overloaded(message, wait));
        }
        let is_heavy = self.kinds[kind].class() == WorkerClass::Heavy;
        let reserved = key.and_then(|key| waiting.reserved.get_mut(&key));
        let mut due = match reserved {
            // As if the pairs had come when the place was taken.
            Some(reserved) => {
                reserved.tokens = reserved.tokens.saturating_sub(tokens as u64);
                reserved.arrived
            }
            None => self.now(),
        };
        if key.is_none() && is_heavy {
            let tokens = tokens as u64;
            self.check_wait(&waiting, kind, due + waiting.time(kind, tokens), tokens)?;
        }
        waiting.tokens += tokens;
        self.metrics.waiting_tokens(waiting.tokens);
        for task in tasks {
            due += waiting.time(kind, task.input.ids.len() as u64);
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
        let number = self.kinds.iter().position(|known| known.is_same(kind));
        let Some(number) = number.filter(|_| kind.class() == WorkerClass::Heavy) else { return };
        let mut waiting = self.lock();
        if matches!(kind, WorkKind::Rerank(_)) {
            let of_pair = tokens as f64 / n_tasks.max(1) as f64;
            waiting.pair_tokens = (waiting.pair_tokens * 15.0 + of_pair) / 16.0;
        }
        // A batch of few tokens takes longer for each.
        if tokens >= kind.batch_limits().0 / 4 {
            // The heavy workers share the machine.
            let new = took.as_nanos() as f64 / (tokens.max(1) * HEAVY_WORKERS) as f64;
            let mean = &mut waiting.token_ns[number];
            *mean = Some(mean.map_or(new, |mean| (mean * 7.0 + new) / 8.0));
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
