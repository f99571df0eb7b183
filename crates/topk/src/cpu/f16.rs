//! The scan of half-precision rows, without an int8 copy: float32 scores with an error bound, and
//! canonical scores of the rows that pass it.

use super::ScanJob;
use super::candidates::{SharedThreshold, TopK};
use crate::matrix::MatrixView;
use crate::oracle::{Key, ScoredRow};
use half::f16;

/// Rows of a block, whose scores are computed before they are compared: 128 rows of 384
/// half-precision values are 96 KiB.
const BLOCK_ROWS: usize = 128;

/// One scan of the half-precision rows.
pub(super) struct F16Scan<'a> {
    job: ScanJob<'a>,
    /// Per query the error bound of an approximate score.
    margins: Vec<f64>,
    thresholds: Vec<SharedThreshold>,
}

impl<'a> F16Scan<'a> {
    pub(super) fn new(job: ScanJob<'a>) -> Self {
        let numbers = 0..job.n_queries();
        let margins = numbers.map(|i| error_bound(job.query(i), job.matrix)).collect();
        let thresholds = SharedThreshold::of(job.n_queries(), job.floors);
        Self { job, margins, thresholds }
    }

    pub(super) fn run(&self) -> Vec<Vec<ScoredRow>> {
        let worker = || Worker {
            scan: self,
            found: self.margins.iter().map(|_| TopK::new(self.job.k)).collect(),
            scores: vec![0.0; BLOCK_ROWS * self.margins.len()],
        };
        let found = self.job.scan_blocks(
            BLOCK_ROWS,
            worker,
            Worker::scan_block,
            |worker| worker.found,
            TopK::absorb,
        );
        found.into_iter().map(TopK::into_sorted).collect()
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
    scores: Vec<f32>,
}

impl Worker<'_> {
    fn scan_block(&mut self, numbers: &[u32]) {
        let F16Scan { job, margins, thresholds } = self.scan;
        let (values, stride) = (job.matrix.values(), job.matrix.stride());
        let mut rows: [&[f16]; BLOCK_ROWS] = [&[]; BLOCK_ROWS];
        for (row, &number) in rows.iter_mut().zip(numbers) {
            let start = number as usize * stride;
            *row = &values[start..start + stride];
        }
        let rows = &rows[..numbers.len()];
        let scores = &mut self.scores[..numbers.len() * margins.len()];
        job.kernels.scores(rows, job.queries, scores);
        for (q, scores) in scores.chunks_exact(numbers.len()).enumerate() {
            let (found, threshold, query) = (&mut self.found[q], &thresholds[q], job.query(q));
            let mut gate = threshold.gate(margins[q]);
            for (scores, (rows, numbers)) in
                scores.chunks(32).zip(rows.chunks(32).zip(numbers.chunks(32)))
            {
                // Counting is vectorised; the scalar loop below is entered rarely.
                if scores.iter().map(|&s| u32::from(s >= gate)).sum::<u32>() == 0 {
                    continue;
                }
                for ((&score, row), &number) in scores.iter().zip(rows).zip(numbers) {
                    if score >= gate
                        && found.offer(Key::new(job.kernels.canonical(query, row), number))
                    {
                        threshold.raise(found.threshold());
                        gate = threshold.gate(margins[q]);
                    }
                }
            }
        }
    }
}
