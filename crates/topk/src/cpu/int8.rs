//! The quantized scan with exact rescoring: int8 products, error bounds on the canonical scores,
//! and canonical scores of the few rows whose bounds leave the answer open.
//!
//! Scalar quantization (sq8) alone would give approximate results. Each row also stores the norm of
//! its quantization error, so that an integer score comes with a proven error bound
//! ([`super::quantize`]). Each step sees fewer rows than the one before:
//!
//! ```text
//! thresholds = k-th largest lower bound in a sample             large batches only (seed.rs)
//! for each block of 384 rows, 144 KiB of int8 values that stay in the L2 cache:
//!     scores = high part of all queries x rows                  GEMM, or GEMV for few queries
//!     for each pair of row and query with score + bound >= threshold:             the gate
//!         append (row, score) to the pending rows of the query
//!         if its buffer is full:
//!             threshold = k-th largest lower bound              shared by all threads
//!             drop rows with upper bound < threshold            few remain
//!             if more than half of the buffer remain:
//!                 (lower, upper) = refine(high and low part)    int8 GEMV, tighter bounds
//!                 move them to the candidates, whose lower bounds raise the threshold too
//! for each query:
//!     sift the remaining pending rows; refine them if they are many
//!     rescore the k candidates with the largest lower bounds canonically, in float64
//!     rescore those of the others that can reach the least of these scores
//!     sort, keep k
//! ```
//!
//! A row is dropped only if its upper bound is below a score that at least `k` rows reach, so the
//! result is that of the oracle, bit for bit. The gate compares 16 scores per instruction and
//! rarely opens. What passes is handled in batches, since a dot product, a selection or a heap
//! operation for one row at a time would take longer than the products of all.

mod pending;
mod seed;
mod shortlists;

use super::ScanJob;
use super::candidates::{Candidates, SharedThreshold};
use super::gate::{PassingPairs, RowColumns};
use super::kernels::ScoreBuffers;
use super::quantize::QuantizedQueries;
use crate::oracle::ScoredRow;
use crate::sq8::Sq8View;
use rayon::prelude::*;
use shortlists::Shortlists;
use std::ops::Range;
use warpseek_compute::cpu::PANEL;

/// Rows of a block, scanned against all queries before the next block: 384 rows of 384 bytes are
/// 144 KiB.
const BLOCK_ROWS: usize = 384;

/// One scan of the int8 copy.
pub(super) struct QuantizedScan<'a> {
    job: ScanJob<'a>,
    sq8: &'a Sq8View<'a>,
    quantized: QuantizedQueries,
    thresholds: Vec<SharedThreshold>,
}

impl<'a> QuantizedScan<'a> {
    pub(super) fn new(job: ScanJob<'a>, sq8: &'a Sq8View<'a>) -> Self {
        let format = job.kernels.query_format();
        let quantized = QuantizedQueries::new(job.queries, job.matrix, sq8, format);
        let thresholds = SharedThreshold::of(quantized.len(), job.floors);
        Self { job, sq8, quantized, thresholds }
    }

    /// Returns the bytes of a thread's lists for one query.
    pub(super) fn bytes(k: usize) -> usize {
        Shortlists::bytes(k)
    }

    pub(super) fn run(&self) -> Vec<Vec<ScoredRow>> {
        let has_floors = self.job.floors.is_some_and(|floors| floors.iter().all(|f| f.is_finite()));
        if self.quantized.is_packed() && !has_floors {
            self.seed_thresholds();
        }
        let found = self.job.scan_blocks(
            BLOCK_ROWS,
            || Worker::new(self),
            Worker::scan_block,
            |worker| worker.shortlists.finish(),
            Candidates::absorb,
        );
        let finish = |(q, candidates): (usize, Candidates)| {
            candidates.into_sorted(|rows, scores| self.rescore(q, rows, scores))
        };
        if self.quantized.is_packed() {
            return found.into_par_iter().enumerate().map(finish).collect();
        }
        found.into_iter().enumerate().map(finish).collect()
    }

    /// Returns the queries that are compared at once, of this batch.
    fn lanes(&self) -> usize {
        self.job.kernels.lanes().min(self.quantized.len().next_multiple_of(PANEL))
    }

    fn f16_row(&self, row: u32) -> &'a [half::f16] {
        self.job.matrix.row(row as usize).unwrap_or_default()
    }

    fn int8_row(&self, row: u32) -> &'a [i8] {
        self.sq8.row(row as usize)
    }

    /// Computes the canonical scores of rows, which are far apart in memory: they are prefetched
    /// some rows ahead.
    fn rescore(&self, query: usize, rows: &[u32], scores: &mut [f32]) {
        const BATCH: usize = 4;
        const AHEAD: usize = 2 * BATCH;
        let ScanJob { kernels, matrix, damaged, .. } = self.job;
        if damaged.get().is_some() {
            return;
        }
        if let Some(checksums) = matrix.checksums() {
            let wrong = |row: &u32| !checksums.is_row_right(matrix, *row as usize);
            if let Some(&row) = rows.iter().find(|row| wrong(row)) {
                // The search ends with this error, whatever the scores.
                damaged.get_or_init(|| row as usize);
            }
        }
        let prefetch = |row: &u32| kernels.prefetch(self.f16_row(*row));
        rows.iter().take(AHEAD).for_each(prefetch);
        let mut ahead = rows.iter().skip(AHEAD);
        for (rows, scores) in rows.chunks(BATCH).zip(scores.chunks_mut(BATCH)) {
            ahead.by_ref().take(BATCH).for_each(prefetch);
            let mut values: [&[half::f16]; BATCH] = [&[]; BATCH];
            values.iter_mut().zip(rows).for_each(|(values, row)| *values = self.f16_row(*row));
            let values = &values[..rows.len()];
            kernels.canonical_scores(self.job.query(query), values, scores);
        }
    }
}

/// The state of one thread.
struct Worker<'a> {
    scan: &'a QuantizedScan<'a>,
    shortlists: Shortlists<'a>,
    block: Block<'a>,
    /// Integer scores of one query, `[BLOCK_ROWS]`.
    scores: Vec<i32>,
    buffers: ScoreBuffers,
    passing: PassingPairs,
}

/// The rows of a block as a structure of arrays.
struct Block<'a> {
    rows: [&'a [i8]; BLOCK_ROWS],
    bases: [i32; BLOCK_ROWS],
    scales: [f32; BLOCK_ROWS],
    residuals: [f32; BLOCK_ROWS],
}

impl<'a> Worker<'a> {
    fn new(scan: &'a QuantizedScan<'a>) -> Self {
        let is_packed = scan.quantized.is_packed();
        Self {
            scan,
            shortlists: Shortlists::new(scan),
            block: Block::new(),
            scores: vec![0; BLOCK_ROWS],
            buffers: scan.job.kernels.score_buffers(scan.sq8.stride()),
            passing: PassingPairs::new(BLOCK_ROWS, if is_packed { scan.lanes() } else { 0 }),
        }
    }

    fn scan_block(&mut self, numbers: &[u32]) {
        self.block.fill(self.scan, numbers);
        self.shortlists.update_gates();
        if self.scan.quantized.is_packed() {
            self.scan_panels(numbers);
        } else {
            self.scan_few(numbers);
        }
    }

    /// Many queries: a register holds the scores of one row with several queries.
    fn scan_panels(&mut self, numbers: &[u32]) {
        let QuantizedScan { job, sq8, quantized, .. } = self.scan;
        let (rows, columns) = (&self.block.rows[..numbers.len()], 0..numbers.len());
        let columns = self.block.columns(columns);
        let step = self.scan.lanes();
        for (p, panels) in quantized.panels(step).enumerate() {
            let lanes = p * step..p * step + panels.len() / sq8.stride();
            let queries = self.shortlists.lanes(lanes.clone());
            let (buffers, passing) = (&mut self.buffers, &mut self.passing);
            passing.clear();
            job.kernels.passing_pairs(rows, columns, panels, queries, buffers, passing);
            for pair in self.passing.iter() {
                self.shortlists.push(lanes.start + pair.lane, numbers[pair.row], pair.score);
            }
        }
    }

    /// Few queries: a register holds the scores of one query with several rows.
    fn scan_few(&mut self, numbers: &[u32]) {
        let QuantizedScan { job, quantized, .. } = self.scan;
        let (rows, scores) = (&self.block.rows[..numbers.len()], &mut self.scores);
        let scores = &mut scores[..numbers.len()];
        for q in 0..quantized.len() {
            job.kernels.products.gemv_i8(rows, quantized.high(q), scores);
            for start in (0..numbers.len()).step_by(64) {
                let range = start..(start + 64).min(numbers.len());
                let (factor, gate) = self.shortlists.terms(q);
                let mut passing = job.kernels.passing_rows(
                    &scores[range.clone()],
                    self.block.columns(range),
                    factor,
                    gate,
                );
                while passing != 0 {
                    let r = start + passing.trailing_zeros() as usize;
                    passing &= passing - 1;
                    self.shortlists.push(q, numbers[r], scores[r] - self.block.bases[r]);
                }
            }
        }
    }
}

impl<'a> Block<'a> {
    fn new() -> Self {
        Self {
            rows: [&[]; BLOCK_ROWS],
            bases: [0; BLOCK_ROWS],
            scales: [0.0; BLOCK_ROWS],
            residuals: [0.0; BLOCK_ROWS],
        }
    }

    fn fill(&mut self, scan: &QuantizedScan<'a>, numbers: &[u32]) {
        let [zero_point, _] = scan.quantized.zero_points();
        for (i, &number) in numbers.iter().enumerate() {
            let scale = &scan.sq8.scales()[number as usize];
            self.rows[i] = scan.int8_row(number);
            self.bases[i] = zero_point * scale.sum;
            self.scales[i] = scale.scale;
            self.residuals[i] = scale.residual;
        }
    }

    fn columns(&self, range: Range<usize>) -> RowColumns<'_> {
        RowColumns {
            bases: &self.bases[range.clone()],
            scales: &self.scales[range.clone()],
            residuals: &self.residuals[range],
        }
    }
}
