//! Shards that other processes hold.

use super::filter::FilterNotes;
use super::row::Row;
use super::stats::IndexStats;
use crate::error::Result;
use half::f16;
use std::fmt::Debug;
use warpseek_topk::ScoredRow;

/// Rows of shards: numbers of shards in ascending order, each with the numbers of its rows, which
/// count from 0 in each shard.
pub type RowRequests<'a> = &'a [(usize, Vec<u32>)];

/// The shards of an index, in other processes. Every call asks all shards that it concerns, and
/// answers for all of them or fails.
pub trait RemoteShards: Debug + Send + Sync {
    /// The first `k` rows of every query in each shard, in the order of the shards.
    ///
    /// # Errors
    ///
    /// Those of the shards, of [`Scanner::top_k`](warpseek_topk::Scanner::top_k) and of filters;
    /// [`Io`](crate::error::Error::Io) naming a shard that no process holds.
    fn scan(&self, request: &ShardRequest<'_>) -> Result<Vec<ShardAnswer>>;

    /// The rows with their texts, as asked for.
    ///
    /// # Errors
    ///
    /// Those of the shards.
    fn rows(&self, requests: RowRequests<'_>) -> Result<Vec<Vec<Row>>>;

    /// The id and `doc_id` of rows, as asked for.
    ///
    /// # Errors
    ///
    /// Those of the shards.
    fn names(&self, requests: RowRequests<'_>) -> Result<Vec<Vec<(String, String)>>>;

    /// The values of rows with their padding, `[rows, stride]` for each shard.
    ///
    /// # Errors
    ///
    /// Those of the shards.
    fn vectors(&self, requests: RowRequests<'_>) -> Result<Vec<Vec<f16>>>;

    /// The statistics of every shard.
    ///
    /// # Errors
    ///
    /// Those of the shards.
    fn stats(&self) -> Result<Vec<IndexStats>>;
}

/// A scan of shards.
#[derive(Debug, Clone, Copy)]
pub struct ShardRequest<'a> {
    /// The query vectors, `[n_queries, dim]`.
    pub queries: &'a [f32],
    /// The number of queries.
    pub n_queries: usize,
    /// The number of rows of each query.
    pub k: usize,
    /// Different filters, as their users wrote them.
    pub filters: &'a [&'a str],
    /// The filter of each query, by its place in `filters`; `None`: all rows.
    pub filter_of: &'a [Option<usize>],
}

/// The answer of one shard.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ShardAnswer {
    /// The first rows of every query, in the canonical order, numbered from 0 in the shard.
    pub hits: Vec<Vec<ScoredRow>>,
    /// Per filter the number of rows that pass it.
    pub matched: Vec<u64>,
    /// Per filter the rows of its notes.
    pub notes: Vec<FilterNotes>,
}
