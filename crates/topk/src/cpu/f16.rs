//! The scan of half-precision rows, without an int8 copy: float32 scores with an error bound, and
//! canonical scores of the rows that pass it.

use super::candidates::{SharedThreshold, TopK};
use super::kernels::ScanKernels;
use super::{passing_rows, scan_spans};
use crate::mask::RowMask;
use crate::matrix::MatrixView;
use crate::oracle::{Key, ScoredRow};
use half::f16;

/// Rows of a block, whose scores are computed before they are compared: 128 rows of 384
/// half-precision values are 96 KiB.
const BLOCK_ROWS: usize = 128;

/// Returns the bytes of one query's candidate list.
pub(super) fn candidate_bytes(k: usize) -> usize {
    TopK::capacity(k) * size_of::<Key>()
}

/// One scan of the matrix for a group of queries.
pub(super) struct F16Scan<'a> {
    kernels: ScanKernels,
    matrix: &'a MatrixView<'a>,
    /// `[n_queries, stride]`.
    queries: &'a [f32],
    /// Per query the error bound of an approximate score.
    margins: Vec<f64>,
    thresholds: Vec<SharedThreshold>,
    k: usize,
    mask: Option<&'a RowMask>,
}

impl<'a> F16Scan<'a> {
    pub(super) fn new(
        kernels: ScanKernels,
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
            Worker::scan_span,
        );
        merge(workers.into_iter().map(|w| w.found).collect(), self.k)
    }
}

/// Returns an upper bound on |approximate - exact| for any row, where the approximation sums the
/// products in float32 in any order.
///
/// Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1: the error of a dot
/// product of n terms is at most gamma(n) * sum |q_i r_i| <= gamma(n) * ||q|| * ||r||, with
/// gamma(n) = n u / (1 - n u) and u = 2^-24. Eight more operations cover the horizontal sum. Every
/// operation may lose 2^-149 more where it underflows (Rust leaves subnormal numbers enabled).
fn error_bound(query: &[f32], matrix: &MatrixView<'_>) -> f64 {
    let n = (query.len() + 8) as f64;
    let u = f64::powi(2.0, -24);
    let gamma = n * u / (1.0 - n * u);
    let norm = query.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let bound = gamma * norm * f64::from(matrix.max_norm()) + 2.0 * n * f64::powi(2.0, -149);
    // Covers the rounding errors of this computation.
    bound * (1.0 + 1e-6)
}

/// The state of one thread.
struct Worker<'a> {
    scan: &'a F16Scan<'a>,
    found: Vec<TopK>,
    numbers: Vec<u32>,
    scores: Vec<f32>,
}

impl<'a> Worker<'a> {
    fn new(scan: &'a F16Scan<'a>) -> Self {
        Self {
            scan,
            found: scan.margins.iter().map(|_| TopK::new(scan.k)).collect(),
            numbers: Vec::with_capacity(8192),
            scores: vec![0.0; BLOCK_ROWS * scan.margins.len()],
        }
    }

    /// Scans the rows of `span` that pass the mask, gathered into full blocks.
    fn scan_span(&mut self, span: std::ops::Range<usize>) {
        let mut numbers = std::mem::take(&mut self.numbers);
        passing_rows(self.scan.mask, span, &mut numbers);
        for block in numbers.chunks(BLOCK_ROWS) {
            self.scan_block(block);
        }
        self.numbers = numbers;
    }

    fn scan_block(&mut self, numbers: &[u32]) {
        let scan = self.scan;
        let stride = scan.matrix.stride();
        let values = scan.matrix.values();
        let mut rows: [&[f16]; BLOCK_ROWS] = [&[]; BLOCK_ROWS];
        for (row, &number) in rows.iter_mut().zip(numbers) {
            let start = number as usize * stride;
            *row = &values[start..start + stride];
        }
        let rows = &rows[..numbers.len()];
        let scores = &mut self.scores[..numbers.len() * scan.margins.len()];
        scan.kernels.scores(rows, scan.queries, scores);
        for (q, scores) in scores.chunks_exact(numbers.len()).enumerate() {
            let found = &mut self.found[q];
            let threshold = &scan.thresholds[q];
            let mut gate = threshold.gate(scan.margins[q]);
            let query = &scan.queries[q * stride..(q + 1) * stride];
            for (scores, (rows, numbers)) in
                scores.chunks(32).zip(rows.chunks(32).zip(numbers.chunks(32)))
            {
                // Counting is vectorised; the scalar loop below is entered rarely.
                if scores.iter().map(|&s| u32::from(s >= gate)).sum::<u32>() == 0 {
                    continue;
                }
                for ((&score, row), &number) in scores.iter().zip(rows).zip(numbers) {
                    if score >= gate
                        && found.offer(Key::new(scan.kernels.canonical(query, row), number))
                    {
                        threshold.raise(found.threshold());
                        gate = threshold.gate(scan.margins[q]);
                    }
                }
            }
        }
    }
}

/// Merges the lists of all threads.
fn merge(mut found: Vec<Vec<TopK>>, k: usize) -> Vec<Vec<ScoredRow>> {
    let mut first = found.pop().unwrap_or_default();
    for other in found {
        for (all, more) in first.iter_mut().zip(other) {
            all.absorb(more);
        }
    }
    first.into_iter().map(|top| top.into_sorted(k)).collect()
}
