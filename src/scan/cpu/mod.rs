//! The scan on the CPU: blocks of rows against all queries of a batch, over the threads of the
//! current rayon pool.
//!
//! Scores of a block are approximate at first. A row survives if its score could, within the proven
//! error of the approximation, reach the k-th best seen so far; only survivors are scored canonically.
//! The threshold of a query is shared between threads: the k-th best of any subset of the rows is
//! never above the true k-th best.
//!
//! Two approximations: [`int8`] reads the prefilter, half the bytes and integer products, wherever the
//! matrix has one; [`half`] reads the rows themselves.

mod generic;
mod half;
mod int8;
mod kernels;
mod query;
mod select;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::order::ScoredRow;
use crate::cpu::Tier;
use crate::store::matrix::{MatrixView, RowMask};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Scores (rows x queries) below which one thread does the whole scan.
const SCORES_PER_WORKER: usize = 4096;

/// Bytes that the candidate lists of one pass may take, over all threads.
const CANDIDATE_BYTES: usize = 256 << 20;

/// See [`super::Scanner::top_k`], which checks the arguments. `queries` are `[n, stride]`.
pub(super) fn top_k(
    tier: Tier,
    matrix: &MatrixView<'_>,
    queries: &[f32],
    k: usize,
    mask: Option<&RowMask>,
) -> Vec<Vec<ScoredRow>> {
    let k = k.min(matrix.n_rows());
    let n_queries = queries.len() / matrix.stride();
    if k == 0 || n_queries == 0 {
        return vec![Vec::new(); n_queries];
    }
    let kernels = tier.kernels();
    let prefilter = matrix.prefilter();
    let bytes = match prefilter {
        Some(_) => int8::candidate_bytes(k),
        None => half::candidate_bytes(k),
    };
    let group = (CANDIDATE_BYTES / (bytes * rayon::current_num_threads())).clamp(1, n_queries);
    queries
        .chunks(group * matrix.stride())
        .flat_map(|queries| match &prefilter {
            Some(prefilter) => int8::Pass::new(kernels, matrix, prefilter, queries, k, mask).run(),
            None => half::Pass::new(kernels, matrix, queries, k, mask).run(),
        })
        .collect()
}

/// Shares the rows out to threads in spans of consecutive rows. Each thread makes a worker and lets it
/// scan one span after the other; the workers are returned.
fn scan_spans<W: Send>(
    n_rows: usize,
    n_queries: usize,
    block_rows: usize,
    worker: impl Fn() -> W + Sync,
    scan: impl Fn(&mut W, Range<usize>) + Sync,
) -> Vec<W> {
    let threads = rayon::current_num_threads();
    let n_workers = (n_rows * n_queries / SCORES_PER_WORKER).clamp(1, threads);
    // Spans small enough to balance the threads, and whole words of the mask.
    let span = (n_rows / (n_workers * 8)).clamp(block_rows, 8192).next_multiple_of(64);
    let next = AtomicUsize::new(0);
    let work = |_| {
        let mut worker = worker();
        loop {
            let start = next.fetch_add(1, Ordering::Relaxed) * span;
            if start >= n_rows {
                return worker;
            }
            scan(&mut worker, start..(start + span).min(n_rows));
        }
    };
    if n_workers == 1 {
        return vec![work(0)];
    }
    (0..n_workers).into_par_iter().map(work).collect()
}

/// The rows of a span that the mask holds, into `numbers`.
fn passing_rows(mask: Option<&RowMask>, span: Range<usize>, numbers: &mut Vec<u32>) {
    numbers.clear();
    match mask {
        Some(mask) => mask.collect_range(span, numbers),
        None => numbers.extend(span.start as u32..span.end as u32),
    }
}
