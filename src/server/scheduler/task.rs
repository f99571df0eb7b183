//! Kinds of work, and tasks with the channels that their results go to.

use crate::error::Result;
use crate::search::{QueryInput, Retrieved, SearchOptions, Searcher, Timings};
use crate::store::filter::Filter;
use std::sync::Arc;
use tokio::sync::oneshot;
use warpseek_bert::embedder::{Embedder, Role};
use warpseek_bert::reranker::Reranker;
use warpseek_bert::tokenizer::Sequence;

/// Tokens of a heavy batch per thread.
const TOKENS_PER_THREAD: usize = 256;

/// Tokens of a heavy batch on a GPU.
const DEVICE_TOKENS: usize = 16 << 10;

/// Queries that are embedded or scanned together.
pub(super) const MAX_QUERIES: usize = 64;

/// Work of a model that can share a batch.
pub(in crate::server) enum WorkKind {
    /// Texts to pooled states of `dim` values.
    Embed(Arc<Embedder>, Role),
    /// Texts to the states of all tokens, each `[len, dim]`, row-major.
    TokenStates(Arc<Embedder>),
    /// Pairs to logits, one each.
    Rerank(Arc<Reranker>),
}

/// Kinds of work that share their workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkerClass {
    /// Passages and pairs, in long batches that use all threads.
    Heavy,
    /// Queries, in short batches.
    Queries,
}

impl WorkKind {
    pub(super) fn class(&self) -> WorkerClass {
        match self {
            Self::Embed(_, Role::Query) => WorkerClass::Queries,
            Self::Embed(..) | Self::TokenStates(_) | Self::Rerank(_) => WorkerClass::Heavy,
        }
    }

    /// The name in the metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Embed(_, Role::Query) => "queries",
            Self::Embed(_, Role::Passage | Role::Plain) => "passages",
            Self::TokenStates(_) => "states",
            Self::Rerank(_) => "pairs",
        }
    }

    /// The number of tokens and of tasks that a batch may have.
    pub(super) fn batch_limits(&self) -> (usize, usize) {
        let is_on_device = match self {
            Self::Embed(_, Role::Query) => return (usize::MAX, MAX_QUERIES),
            Self::Embed(embedder, _) | Self::TokenStates(embedder) => embedder.is_on_device(),
            Self::Rerank(reranker) => reranker.is_on_device(),
        };
        let on_cpu = TOKENS_PER_THREAD * rayon::current_num_threads();
        (if is_on_device { DEVICE_TOKENS } else { on_cpu }, usize::MAX)
    }

    /// True if both are the same work of the same model.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Embed(a, role), Self::Embed(b, other)) => Arc::ptr_eq(a, b) && role == other,
            (Self::TokenStates(a), Self::TokenStates(b)) => Arc::ptr_eq(a, b),
            (Self::Rerank(a), Self::Rerank(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// Computes a row of results for each sequence.
    pub(super) fn compute(&self, sequences: &[Sequence]) -> Result<Vec<Vec<f32>>> {
        let (values, width) = match self {
            Self::Embed(embedder, role) => (embedder.pooled(sequences, *role)?, embedder.dim()),
            Self::TokenStates(embedder) => return embedder.token_states(sequences, Role::Passage),
            Self::Rerank(reranker) => (reranker.logits(sequences)?, 1),
        };
        Ok(values.chunks_exact(width).map(<[f32]>::to_vec).collect())
    }
}

/// An input with the channel for its result. A closed channel means that nobody waits any more.
pub(super) struct Task<I, O> {
    pub(super) input: I,
    pub(super) reply: oneshot::Sender<Result<O>>,
}

/// A sequence for a model.
pub(super) type SequenceTask = Task<Sequence, Vec<f32>>;

/// A query for the scan.
pub(super) type ScanTask = Task<ScanQuery, (Retrieved, Timings)>;

/// A query vector, and the snapshot to search.
pub(super) struct ScanQuery {
    pub(super) searcher: Arc<Searcher>,
    pub(super) text: String,
    pub(super) filter: Option<Filter>,
    pub(super) vector: Vec<f32>,
    /// Options without a filter.
    pub(super) options: SearchOptions,
}

impl ScanQuery {
    pub(super) fn input(&self) -> QueryInput<'_> {
        QueryInput { text: &self.text, vector: Some(&self.vector), filter: self.filter.as_ref() }
    }

    /// True if both can share a pass over the rows.
    pub(super) fn shares_scan(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.searcher, &other.searcher) && self.options == other.options
    }
}
