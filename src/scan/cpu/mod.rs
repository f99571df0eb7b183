//! The scan on the CPU: blocks of rows against all queries of a batch, over the threads of the
//! current rayon pool.
//!
//! A tier computes approximate float32 scores of a block. A row survives if its score could, within
//! the proven error of the approximation, reach the k-th best canonical score seen so far; only
//! survivors are rescored canonically. The threshold of a query is shared between threads: the
//! k-th best of any subset of the rows is never above the true k-th best.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod generic;
mod select;
mod tier;

pub use tier::Tier;

use super::QueryBatch;
use super::order::{Key, ScoredRow};
use crate::store::matrix::{MatrixView, RowMask};
use half::f16;
use rayon::prelude::*;
use select::{SharedThreshold, TopK};
use std::sync::atomic::{AtomicUsize, Ordering};
use tier::Kernels;

/// Rows whose scores are computed before they are looked at: 128 rows of 384 halves are 96 KiB.
const BLOCK_ROWS: usize = 128;

/// Scores (rows x queries) below which one thread does the whole scan.
const SCORES_PER_WORKER: usize = 4096;

/// Bytes that the candidate lists of one pass may take, over all threads.
const CANDIDATE_BYTES: usize = 256 << 20;

/// See [`super::Scanner::top_k`], which checks the arguments.
pub(super) fn top_k(
    tier: Tier,
    matrix: &MatrixView<'_>,
    queries: &QueryBatch,
    k: usize,
    mask: Option<&RowMask>,
) -> Vec<Vec<ScoredRow>> {
    let n_rows = matrix.n_rows();
    let k = k.min(n_rows);
    if k == 0 || queries.is_empty() {
        return vec![Vec::new(); queries.len()];
    }
    let threads = rayon::current_num_threads();
    let bytes_per_query = TopK::capacity(k) * size_of::<Key>() * threads;
    let group = (CANDIDATE_BYTES / bytes_per_query).clamp(1, queries.len());
    queries
        .padded()
        .chunks(group * matrix.stride())
        .flat_map(|values| Pass::new(tier.kernels(), matrix, values, k, mask).run(threads))
        .collect()
}

/// One pass over the matrix for a group of queries.
struct Pass<'a> {
    kernels: Kernels,
    matrix: &'a MatrixView<'a>,
    /// `[n_queries, stride]`.
    queries: &'a [f32],
    /// How far an approximate score of a query can lie from the exact one.
    margins: Vec<f64>,
    thresholds: Vec<SharedThreshold>,
    k: usize,
    mask: Option<&'a RowMask>,
}

impl<'a> Pass<'a> {
    fn new(
        kernels: Kernels,
        matrix: &'a MatrixView<'a>,
        queries: &'a [f32],
        k: usize,
        mask: Option<&'a RowMask>,
    ) -> Self {
        let margins: Vec<f64> =
            queries.chunks_exact(matrix.stride()).map(|q| error_bound(q, matrix)).collect();
        let thresholds = margins.iter().map(|_| SharedThreshold::default()).collect();
        Self { kernels, matrix, queries, margins, thresholds, k, mask }
    }

    fn run(&self, threads: usize) -> Vec<Vec<ScoredRow>> {
        let n_rows = self.matrix.n_rows();
        let workers = (n_rows * self.margins.len() / SCORES_PER_WORKER).clamp(1, threads);
        // Spans small enough to balance the threads, and whole words of the mask.
        let span = (n_rows / (workers * 8)).clamp(BLOCK_ROWS, 8192).next_multiple_of(64);
        let next = AtomicUsize::new(0);
        let work = |_| {
            let mut worker = Worker::new(self);
            loop {
                let start = next.fetch_add(1, Ordering::Relaxed) * span;
                if start >= n_rows {
                    return worker.found;
                }
                worker.scan(start..(start + span).min(n_rows));
            }
        };
        let found: Vec<Vec<TopK>> = if workers == 1 {
            vec![work(0)]
        } else {
            (0..workers).into_par_iter().map(work).collect()
        };
        merge(found, self.k)
    }
}

/// An upper bound on |approximate - exact| for any row, where the approximation sums the products
/// in float32 in any order.
///
/// Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1: the error of a dot
/// product of n terms is at most gamma(n) * sum |q_i r_i| <= gamma(n) * ||q|| * ||r||, with
/// gamma(n) = n u / (1 - n u) and u = 2^-24. Eight more operations cover the horizontal sum, and
/// every operation may lose 2^-149 more where it underflows (subnormal numbers are kept, as Rust
/// leaves the processor set up).
fn error_bound(query: &[f32], matrix: &MatrixView<'_>) -> f64 {
    let n = (query.len() + 8) as f64;
    let u = f64::powi(2.0, -24);
    let gamma = n * u / (1.0 - n * u);
    let norm = query.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let bound = gamma * norm * f64::from(matrix.max_norm()) + 2.0 * n * f64::powi(2.0, -149);
    // Covers the roundings of this very computation.
    bound * (1.0 + 1e-6)
}

/// One thread's share of a pass.
struct Worker<'a> {
    pass: &'a Pass<'a>,
    found: Vec<TopK>,
    numbers: Vec<u32>,
    scores: Vec<f32>,
}

impl<'a> Worker<'a> {
    fn new(pass: &'a Pass<'a>) -> Self {
        Self {
            pass,
            found: pass.margins.iter().map(|_| TopK::new(pass.k)).collect(),
            numbers: Vec::with_capacity(8192),
            scores: vec![0.0; BLOCK_ROWS * pass.margins.len()],
        }
    }

    /// Scans the rows of `span` that the mask holds, gathered into full blocks.
    fn scan(&mut self, span: std::ops::Range<usize>) {
        let mut numbers = std::mem::take(&mut self.numbers);
        numbers.clear();
        match self.pass.mask {
            Some(mask) => mask.collect_range(span, &mut numbers),
            None => numbers.extend(span.start as u32..span.end as u32),
        }
        for block in numbers.chunks(BLOCK_ROWS) {
            self.scan_block(block);
        }
        self.numbers = numbers;
    }

    fn scan_block(&mut self, numbers: &[u32]) {
        let pass = self.pass;
        let stride = pass.matrix.stride();
        let values = pass.matrix.values();
        let mut rows: [&[f16]; BLOCK_ROWS] = [&[]; BLOCK_ROWS];
        for (row, &number) in rows.iter_mut().zip(numbers) {
            let start = number as usize * stride;
            *row = &values[start..start + stride];
        }
        let rows = &rows[..numbers.len()];
        let scores = &mut self.scores[..numbers.len() * pass.margins.len()];
        pass.kernels.scores(rows, pass.queries, scores);
        for (q, scores) in scores.chunks_exact(numbers.len()).enumerate() {
            let found = &mut self.found[q];
            let threshold = &pass.thresholds[q];
            let mut gate = threshold.gate(pass.margins[q]);
            let query = &pass.queries[q * stride..(q + 1) * stride];
            for (scores, (rows, numbers)) in
                scores.chunks(32).zip(rows.chunks(32).zip(numbers.chunks(32)))
            {
                // Counting vectorises; the scalar loop below is entered rarely.
                if scores.iter().map(|&s| u32::from(s >= gate)).sum::<u32>() == 0 {
                    continue;
                }
                for ((&score, row), &number) in scores.iter().zip(rows).zip(numbers) {
                    if score >= gate
                        && found.offer(Key::new(pass.kernels.canonical(query, row), number))
                    {
                        threshold.raise(found.threshold());
                        gate = threshold.gate(pass.margins[q]);
                    }
                }
            }
        }
    }
}

/// Joins what the threads found.
fn merge(mut found: Vec<Vec<TopK>>, k: usize) -> Vec<Vec<ScoredRow>> {
    let mut first = found.pop().unwrap_or_default();
    for other in found {
        for (all, more) in first.iter_mut().zip(other) {
            all.absorb(more);
        }
    }
    first.into_iter().map(|top| top.into_sorted(k)).collect()
}
