//! The scan on the CPU: blocks of rows against all queries of a batch, over the threads of the
//! current rayon pool.
//!
//! Scores of a block are approximate at first. A row stays a candidate if its score could, within
//! the proven error bound, reach the k-th best score so far; only candidates are rescored
//! canonically. All threads share one threshold per query: the k-th best of any subset of the rows
//! is never above the true k-th best.
//!
//! Two approximations: [`int8`], the quantized scan, if the matrix has an int8 copy: half the bytes
//! and integer products; else [`f16`], the rows themselves.

mod candidates;
mod f16;
mod gate;
mod generic;
mod int8;
mod kernels;
mod quantize;
mod selection;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::error::Result;
use crate::mask::RowMask;
use crate::matrix::MatrixView;
use crate::oracle::ScoredRow;
use candidates::TopK;
use kernels::ScanKernels;
use rayon::prelude::*;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use warpseek_compute::cpu::Tier;

/// The fewest scores (rows x queries) that are worth a thread.
const SCORES_PER_WORKER: usize = 4096;

/// The most bytes of the candidate lists of one scan, over all threads.
const CANDIDATE_BYTES: usize = 256 << 20;

/// One scan of the matrix for a group of queries.
#[derive(Clone, Copy)]
struct ScanJob<'a> {
    kernels: ScanKernels,
    matrix: &'a MatrixView<'a>,
    /// `[n_queries, stride]`.
    queries: &'a [f32],
    k: usize,
    mask: Option<&'a RowMask>,
    /// Scores that `k` rows elsewhere reach, one per query: rows below need not be found.
    floors: Option<&'a [f32]>,
    /// A damaged row that was to be rescored, if there is one.
    damaged: &'a OnceLock<usize>,
}

/// See [`crate::Scanner::top_k`], which checks the arguments and the int8 copy, or without one the
/// rows. `queries` are `[n, stride]`. Rows below a query's floor may be missing in its answer.
pub(super) fn top_k(
    tier: Tier,
    matrix: &MatrixView<'_>,
    queries: &[f32],
    k: usize,
    mask: Option<&RowMask>,
    floors: Option<&[f32]>,
) -> Result<Vec<Vec<ScoredRow>>> {
    let k = k.min(matrix.n_rows());
    let n_queries = queries.len() / matrix.stride();
    if k == 0 || n_queries == 0 {
        return Ok(vec![Vec::new(); n_queries]);
    }
    let kernels = ScanKernels::of(tier);
    let sq8 = matrix.sq8();
    let bytes = match sq8 {
        Some(_) => int8::QuantizedScan::bytes(k),
        None => TopK::bytes(k),
    };
    let group = (CANDIDATE_BYTES / (bytes * rayon::current_num_threads())).clamp(1, n_queries);
    let damaged = &OnceLock::new();
    let found = queries
        .chunks(group * matrix.stride())
        .enumerate()
        .flat_map(|(i, queries)| {
            let floors =
                floors.map(|floors| &floors[i * group..(i * group + group).min(n_queries)]);
            let job = ScanJob { kernels, matrix, queries, k, mask, floors, damaged };
            match &sq8 {
                Some(sq8) => int8::QuantizedScan::new(job, sq8).run(),
                None => f16::F16Scan::new(job).run(),
            }
        })
        .collect();
    match (damaged.get(), matrix.checksums()) {
        (Some(&row), Some(checksums)) => Err(checksums.damaged(row)),
        _ => Ok(found),
    }
}

impl<'a> ScanJob<'a> {
    fn n_queries(&self) -> usize {
        self.queries.len() / self.matrix.stride()
    }

    fn query(&self, i: usize) -> &'a [f32] {
        let stride = self.matrix.stride();
        &self.queries[i * stride..(i + 1) * stride]
    }

    /// Returns the number of rows that pass the mask.
    fn n_passing(&self) -> usize {
        self.mask.map_or(self.matrix.n_rows(), RowMask::count)
    }

    /// Returns `n` of the rows that pass the mask, ascending, at equal distances.
    fn sample(&self, n: usize) -> Vec<u32> {
        match self.mask {
            Some(mask) => mask.sample(n),
            None => {
                let n_rows = self.matrix.n_rows();
                (0..n.min(n_rows)).map(|i| (i * n_rows / n.min(n_rows)) as u32).collect()
            }
        }
    }

    /// Scans the rows that pass the mask, gathered into blocks of their numbers. Each thread makes
    /// a worker, which takes one span of consecutive rows after the other. Returns what `found`
    /// takes out of the workers, merged by `absorb`, one per query.
    fn scan_blocks<W, T: Send>(
        &self,
        block_rows: usize,
        worker: impl Fn() -> W + Sync,
        scan: impl Fn(&mut W, &[u32]) + Sync,
        found: impl Fn(W) -> Vec<T> + Sync,
        absorb: impl Fn(&mut T, T),
    ) -> Vec<T> {
        let (n_rows, threads) = (self.matrix.n_rows(), rayon::current_num_threads());
        let n_workers = (n_rows * self.n_queries() / SCORES_PER_WORKER).clamp(1, threads);
        // Small enough to balance the threads; whole words of the mask.
        let span = (n_rows / (n_workers * 8)).clamp(block_rows, 8192).next_multiple_of(64);
        let next = AtomicUsize::new(0);
        let work = |_| {
            let (mut worker, mut numbers) = (worker(), Vec::with_capacity(8192));
            loop {
                let start = next.fetch_add(1, Ordering::Relaxed) * span;
                if start >= n_rows {
                    return found(worker);
                }
                let end = (start + span).min(n_rows);
                numbers.clear();
                match self.mask {
                    Some(mask) => mask.collect_range(start..end, &mut numbers),
                    None => numbers.extend(start as u32..end as u32),
                }
                numbers.chunks(block_rows).for_each(|block| scan(&mut worker, block));
            }
        };
        let lists = match n_workers {
            1 => vec![work(0)],
            _ => (0..n_workers).into_par_iter().map(work).collect(),
        };
        let merged = lists.into_iter().reduce(|mut all, more| {
            all.iter_mut().zip(more).for_each(|(all, more)| absorb(all, more));
            all
        });
        merged.unwrap_or_default()
    }
}
