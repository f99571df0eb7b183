//! One thread owns what waits for the models and the scan, and forms batches of it across requests and
//! routes.
//!
//! Work waits in lanes, one for each way of computing. Two batches of passages or pairs are under way at a
//! time, so that no thread idles between them; queries and scans have threads of their own, which the operating system lets in
//! between at once. Within and between lanes the order is that of virtual deadlines: a piece of work is due when it would be done if
//! its request had the machine to itself. So a short request overtakes a long one, a long one is not
//! starved, and two long ones share.

mod queue;
mod task;
mod work;

use super::error::ApiError;
use super::metrics::Metrics;
use crate::embed::{Embedder, Role};
use crate::error::{Error, Result};
use crate::model::tokenize::Sequence;
use crate::rerank::Reranker;
use crate::search::{Retrieved, SearchOptions, Searcher, Timings};
use queue::{Batch, Queue};
use rayon::ThreadPool;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use task::{ScanTask, Task, Ticket};
use tokio::sync::oneshot;

/// Tokens of a batch of passages or pairs for each thread.
const TOKENS_PER_THREAD: usize = 256;

/// The same for a GPU.
const DEVICE_TOKENS: usize = 16 << 10;

/// Batches of passages and pairs that are under way at a time.
const HEAVY_BATCHES: usize = 2;

/// Queries that are embedded or scanned together.
const MAX_QUERIES: usize = 64;

/// Nanoseconds a token before anything was measured.
const FIRST_GUESS: u64 = 60_000;

/// A way of computing.
#[derive(Debug, Clone)]
enum Lane {
    /// Texts to pooled states.
    Embed(Arc<Embedder>, Role),
    /// Texts to the states of all tokens.
    States(Arc<Embedder>),
    /// Pairs to logits.
    Rerank(Arc<Reranker>),
    /// Query vectors to rows.
    Scan,
}

/// What may run beside what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Long batches over all threads.
    Heavy,
    /// Queries to vectors.
    Queries,
    /// Vectors to rows.
    Scans,
}

impl Lane {
    fn class(&self) -> Class {
        match self {
            Self::Embed(_, Role::Query) => Class::Queries,
            Self::Embed(_, Role::Passage) | Self::States(_) | Self::Rerank(_) => Class::Heavy,
            Self::Scan => Class::Scans,
        }
    }

    /// Tokens of a batch.
    fn batch_tokens(&self) -> usize {
        let on_device = match self {
            Self::Embed(embedder, Role::Passage) | Self::States(embedder) => {
                embedder.is_on_device()
            }
            Self::Rerank(reranker) => reranker.is_on_device(),
            Self::Embed(_, Role::Query) | Self::Scan => return usize::MAX,
        };
        if on_device { DEVICE_TOKENS } else { TOKENS_PER_THREAD * rayon::current_num_threads() }
    }
}

/// Takes work in and gives results back. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Scheduler {
    lanes: Arc<[Lane]>,
    sender: Sender<Message>,
    load: Arc<Load>,
}

/// What is known outside of the scheduler's thread.
#[derive(Debug)]
struct Load {
    /// Tokens that wait.
    tokens: AtomicUsize,
    /// How many may.
    limit: usize,
    /// Nanoseconds a token takes in heavy batches, lately.
    token_ns: AtomicU64,
    metrics: Arc<Metrics>,
}

enum Message {
    Work(usize, Vec<(u64, Task)>),
    Done(Class),
}

impl Scheduler {
    /// Starts the threads. `max_tokens` may wait at most.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where a thread cannot be started.
    pub(super) fn start(
        embedders: &[Arc<Embedder>],
        reranker: Option<&Arc<Reranker>>,
        max_tokens: usize,
        metrics: Arc<Metrics>,
    ) -> Result<Self> {
        let mut lanes = vec![Lane::Scan];
        for embedder in embedders {
            lanes.push(Lane::Embed(Arc::clone(embedder), Role::Query));
            lanes.push(Lane::Embed(Arc::clone(embedder), Role::Passage));
            lanes.push(Lane::States(Arc::clone(embedder)));
        }
        lanes.extend(reranker.map(|reranker| Lane::Rerank(Arc::clone(reranker))));
        let lanes: Arc<[Lane]> = lanes.into();
        let load = Arc::new(Load {
            tokens: AtomicUsize::new(0),
            limit: max_tokens,
            token_ns: AtomicU64::new(FIRST_GUESS),
            metrics,
        });
        let (sender, receiver) = channel();
        let quick = rayon::ThreadPoolBuilder::new()
            .thread_name(|i| format!("queries-{i}"))
            .build()
            .map_err(|e| Error::io("start", "a thread pool")(std::io::Error::other(e)))?;
        let quick = Arc::new(quick);
        let worker = |name: &str, pool: Option<&Arc<ThreadPool>>| {
            let (batches, incoming) = channel::<Batch>();
            let (sender, lanes, load) = (sender.clone(), Arc::clone(&lanes), Arc::clone(&load));
            let pool = pool.cloned();
            spawn(name, move || work::work(&incoming, &lanes, &load, pool.as_deref(), &sender))?;
            Ok::<_, Error>(batches)
        };
        let mut workers = vec![
            (Class::Queries, worker("embed-queries", Some(&quick))?),
            (Class::Scans, worker("scan", Some(&quick))?),
        ];
        for _ in 0..HEAVY_BATCHES {
            workers.push((Class::Heavy, worker("models", None)?));
        }
        let queue = Queue {
            waiting: lanes.iter().map(|_| BTreeMap::new()).collect(),
            lanes: Arc::clone(&lanes),
            idle: workers,
            busy: Vec::new(),
            number: 0,
            load: Arc::clone(&load),
        };
        spawn("scheduler", move || queue.run(&receiver))?;
        Ok(Self { lanes, sender, load })
    }

    /// The pooled states of sequences, in their order.
    ///
    /// # Errors
    ///
    /// An overload, or what the encoder says.
    pub(super) async fn embed(
        &self,
        embedder: &Arc<Embedder>,
        role: Role,
        sequences: Vec<Sequence>,
    ) -> Result<Vec<Vec<f32>>, ApiError> {
        let is = |lane: &Lane| matches!(lane, Lane::Embed(e, r) if Arc::ptr_eq(e, embedder) && *r == role);
        self.compute(is, sequences).await
    }

    /// The states of all tokens of sequences, in their order.
    ///
    /// # Errors
    ///
    /// As [`Scheduler::embed`].
    pub(super) async fn states(
        &self,
        embedder: &Arc<Embedder>,
        sequences: Vec<Sequence>,
    ) -> Result<Vec<Vec<f32>>, ApiError> {
        let is = |lane: &Lane| matches!(lane, Lane::States(e) if Arc::ptr_eq(e, embedder));
        self.compute(is, sequences).await
    }

    /// The logits of pairs, in their order.
    ///
    /// # Errors
    ///
    /// As [`Scheduler::embed`].
    pub(super) async fn logits(&self, pairs: Vec<Sequence>) -> Result<Vec<f32>, ApiError> {
        let rows = self.compute(|lane| matches!(lane, Lane::Rerank(_)), pairs).await?;
        Ok(rows.into_iter().flatten().collect())
    }

    /// The rows that a query vector retrieves; the options must not ask for reranking.
    ///
    /// # Errors
    ///
    /// As [`Searcher::retrieve`].
    pub(super) async fn retrieve(
        &self,
        searcher: Arc<Searcher>,
        text: String,
        vector: Vec<f32>,
        options: SearchOptions,
    ) -> Result<(Retrieved, Timings), ApiError> {
        let (reply, answer) = oneshot::channel();
        let task = ScanTask { searcher, text, vector, options, reply };
        let due = self.load.now();
        self.send(Message::Work(0, vec![(due, Task::Scan(Box::new(task)))]))?;
        answer
            .await
            .map_err(|_| ApiError::internal("the scan ended without a result"))?
            .map_err(ApiError::from)
    }

    /// Tokens that wait.
    pub(super) fn waiting_tokens(&self) -> usize {
        self.load.tokens.load(Ordering::Relaxed)
    }

    async fn compute(
        &self,
        is_lane: impl Fn(&Lane) -> bool,
        sequences: Vec<Sequence>,
    ) -> Result<Vec<Vec<f32>>, ApiError> {
        if sequences.is_empty() {
            return Ok(Vec::new());
        }
        let lane = self.lanes.iter().position(is_lane);
        let lane = lane.ok_or_else(|| ApiError::internal("no lane computes this"))?;
        let tokens: usize = sequences.iter().map(|s| s.ids.len()).sum();
        self.load.admit(tokens)?;
        let (reply, answer) = oneshot::channel();
        let ticket = Arc::new(Ticket::new(sequences.len(), reply));
        let token_ns = self.load.token_ns.load(Ordering::Relaxed);
        let mut due = self.load.now();
        let tasks = sequences
            .into_iter()
            .enumerate()
            .map(|(slot, sequence)| {
                due += sequence.ids.len() as u64 * token_ns;
                (due, Task::Sequence { sequence, slot, ticket: Arc::clone(&ticket) })
            })
            .collect();
        drop(ticket);
        if let Err(e) = self.send(Message::Work(lane, tasks)) {
            self.load.leave(tokens);
            return Err(e);
        }
        answer
            .await
            .map_err(|_| ApiError::internal("the model ended without a result"))?
            .map_err(ApiError::from)
    }

    fn send(&self, message: Message) -> Result<(), ApiError> {
        self.sender.send(message).map_err(|_| ApiError::internal("the scheduler has ended"))
    }
}

impl Load {
    /// Nanoseconds since the first call.
    fn now(&self) -> u64 {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }

    /// Counts tokens in, where they still may wait; a request alone is never too long.
    fn admit(&self, tokens: usize) -> Result<(), ApiError> {
        let before = self.tokens.fetch_add(tokens, Ordering::Relaxed);
        if before > 0 && before + tokens > self.limit {
            self.tokens.fetch_sub(tokens, Ordering::Relaxed);
            let wait = Duration::from_nanos(before as u64 * self.token_ns.load(Ordering::Relaxed));
            return Err(ApiError::overloaded(
                format!("{before} tokens wait already, and {} may", self.limit),
                wait,
            ));
        }
        self.metrics.waiting_tokens(before + tokens);
        Ok(())
    }

    fn leave(&self, tokens: usize) {
        let before = self.tokens.fetch_sub(tokens, Ordering::Relaxed);
        self.metrics.waiting_tokens(before.saturating_sub(tokens));
    }

    /// Takes in how long a batch took, while as many as may be under way shared the machine.
    fn measured(&self, tokens: usize, took: Duration) {
        let new = took.as_nanos() as u64 / tokens.max(1) as u64 / HEAVY_BATCHES as u64;
        let old = self.token_ns.load(Ordering::Relaxed);
        self.token_ns.store((old * 15 + new.max(1)) / 16, Ordering::Relaxed);
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map(drop)
        .map_err(Error::io("start", "a thread"))
}
