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
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::mask::RowMask;
use crate::matrix::MatrixView;
use crate::oracle::ScoredRow;
use kernels::ScanKernels;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use warpseek_compute::cpu::Tier;

/// The fewest scores (rows x queries) that are worth a thread.
const SCORES_PER_WORKER: usize = 4096;

/// The most bytes of the candidate lists of one scan, over all threads.
const CANDIDATE_BYTES: usize = 256 << 20;

/// See [`crate::Scanner::top_k`], which checks the arguments. `queries` are `[n, stride]`.
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
    let kernels = ScanKernels::of(tier);
    let sq8 = matrix.sq8();
    let bytes = match sq8 {
        Some(_) => int8::candidate_bytes(k),
        None => f16::candidate_bytes(k),
    };
    let group = (CANDIDATE_BYTES / (bytes * rayon::current_num_threads())).clamp(1, n_queries);
    queries
        .chunks(group * matrix.stride())
        .flat_map(|queries| match &sq8 {
            Some(sq8) => int8::QuantizedScan::new(kernels, matrix, sq8, queries, k, mask).run(),
            None => f16::F16Scan::new(kernels, matrix, queries, k, mask).run(),
        })
        .collect()
}

/// Divides the rows into spans of consecutive rows. Each thread makes a worker, which takes one
/// span after the other. Returns the workers.
fn scan_spans<W: Send>(
    n_rows: usize,
    n_queries: usize,
    block_rows: usize,
    worker: impl Fn() -> W + Sync,
    scan: impl Fn(&mut W, Range<usize>) + Sync,
) -> Vec<W> {
    let threads = rayon::current_num_threads();
    let n_workers = (n_rows * n_queries / SCORES_PER_WORKER).clamp(1, threads);
    // Small enough to balance the threads; whole words of the mask.
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

/// Fills `numbers` with the rows of a span that pass the mask.
fn passing_rows(mask: Option<&RowMask>, span: Range<usize>, numbers: &mut Vec<u32>) {
    numbers.clear();
    match mask {
        Some(mask) => mask.collect_range(span, numbers),
        None => numbers.extend(span.start as u32..span.end as u32),
    }
}
