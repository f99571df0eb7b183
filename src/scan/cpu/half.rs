//! The scan over half-precision rows: approximate scores in float32.

use super::select::{SharedThreshold, TopK};
use super::{passing_rows, scan_spans};
use crate::cpu::Kernels;
use crate::scan::order::{Key, ScoredRow};
use crate::store::matrix::{MatrixView, RowMask};
use half::f16;

/// Rows whose scores are computed before they are looked at: 128 rows of 384 halves are 96 KiB.
const BLOCK_ROWS: usize = 128;

/// The bytes of a query's candidate list.
pub(super) fn candidate_bytes(k: usize) -> usize {
    TopK::capacity(k) * size_of::<Key>()
}

/// One pass over the matrix for a group of queries.
pub(super) struct Pass<'a> {
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
    pub(super) fn new(
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

    pub(super) fn run(&self) -> Vec<Vec<ScoredRow>> {
        let workers = scan_spans(
            self.matrix.n_rows(),
            self.margins.len(),
            BLOCK_ROWS,
            || Worker::new(self),
            Worker::scan,
        );
        merge(workers.into_iter().map(|w| w.found).collect(), self.k)
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
        passing_rows(self.pass.mask, span, &mut numbers);
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
