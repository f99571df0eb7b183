//! The quantized scan with exact rescoring: int8 products, error bounds on the canonical scores,
//! and canonical scores of the few rows whose bounds leave the answer open.
//!
//! Scalar quantization (sq8) alone would give approximate results. Each row also stores the norm of
//! its quantization error, so that an integer score comes with a proven error bound
//! ([`super::quantize`]). Three steps, each on fewer rows:
//!
//! ```text
//! for each block of 192 rows, 72 KiB of int8 values that stay in the L2 cache:
//!     scores = high part of all queries x rows          GEMM, or GEMV for up to 8 queries
//!     for each query, for each row with score + bound >= threshold:       the gate
//!         (lower, upper) = refine(high and low part)    one more int8 product, a tighter bound
//!         if upper >= threshold: keep the candidate
//!         threshold = k-th largest lower bound          shared by all threads
//! for each query:
//!     drop candidates with upper < threshold            two to three times k remain
//!     rescore them canonically in float64, sort, keep k
//! ```
//!
//! A row is dropped only if its upper bound is below the k-th largest lower bound, so the result is
//! that of the oracle, bit for bit. The gate compares 16 scores per instruction and rarely opens,
//! so the scan runs at the speed of the integer products or of memory, whichever is slower.

use super::ScanJob;
use super::candidates::{BoundedRow, Candidates, SharedThreshold};
use super::gate::{RowColumns, RowTerms};
use super::quantize::{FEW, QuantizedQueries};
use crate::oracle::ScoredRow;
use crate::sq8::Sq8View;
use rayon::prelude::*;
use std::ops::Range;
use warpseek_compute::cpu::{MAX_PANELS, PANEL};

/// Rows of a block, scanned against all queries before the next block: 192 rows of 384 bytes are
/// 72 KiB.
const BLOCK_ROWS: usize = 2 * TILE_ROWS;

/// Rows whose integer scores are computed before they are compared: a whole number of the kernels'
/// register tiles of 4 to 12 rows, and of the 32 rows of an AMX step.
const TILE_ROWS: usize = 96;

/// Queries of one GEMM call.
const BATCH: usize = MAX_PANELS * PANEL;

/// One scan of the int8 copy.
pub(super) struct QuantizedScan<'a> {
    job: ScanJob<'a>,
    sq8: &'a Sq8View<'a>,
    quantized: QuantizedQueries,
    thresholds: Vec<SharedThreshold>,
}

impl<'a> QuantizedScan<'a> {
    pub(super) fn new(job: ScanJob<'a>, sq8: &'a Sq8View<'a>) -> Self {
        let qmax = job.kernels.products.column_qmax();
        let quantized = QuantizedQueries::new(job.queries, job.matrix, sq8, qmax);
        let thresholds = (0..quantized.len()).map(|_| SharedThreshold::default()).collect();
        Self { job, sq8, quantized, thresholds }
    }

    pub(super) fn run(&self) -> Vec<Vec<ScoredRow>> {
        let found = self.job.scan_blocks(
            BLOCK_ROWS,
            || Worker::new(self),
            Worker::scan_block,
            |worker| worker.found,
            Candidates::absorb,
        );
        let finish = |(q, mut candidates): (usize, Candidates)| {
            candidates.prune();
            // The rows are far apart in memory: all are prefetched before the first is needed.
            candidates.rows().for_each(|row| self.job.kernels.prefetch(self.f16_row(row)));
            candidates.into_sorted(|row| self.rescore(q, row))
        };
        if self.quantized.len() <= FEW {
            return found.into_iter().enumerate().map(finish).collect();
        }
        found.into_par_iter().enumerate().map(finish).collect()
    }

    fn f16_row(&self, row: u32) -> &'a [half::f16] {
        self.job.matrix.row(row as usize).unwrap_or_default()
    }

    fn rescore(&self, query: usize, row: u32) -> f32 {
        self.job.kernels.canonical(self.job.query(query), self.f16_row(row))
    }
}

/// The state of one thread.
struct Worker<'a> {
    scan: &'a QuantizedScan<'a>,
    found: Vec<Candidates>,
    block: Block<'a>,
    /// `[TILE_ROWS, BATCH]`, or `[BLOCK_ROWS]` of one query.
    scores: Vec<i32>,
    /// Per query, padded to whole panels; see [`super::quantize::QueryBounds`].
    factors: Vec<f32>,
    gates: Vec<f32>,
}

/// The rows of a block as a structure of arrays.
pub(super) struct Block<'a> {
    rows: [&'a [i8]; BLOCK_ROWS],
    /// The share of the queries' zero point in a row's integer score.
    bases: [i32; BLOCK_ROWS],
    scales: [f32; BLOCK_ROWS],
    residuals: [f32; BLOCK_ROWS],
}

impl<'a> Worker<'a> {
    fn new(scan: &'a QuantizedScan<'a>) -> Self {
        let n = scan.quantized.len();
        let padded = n.next_multiple_of(PANEL);
        let mut factors = vec![0.0; padded];
        (0..n).for_each(|q| factors[q] = scan.quantized.bounds(q).residual_factor());
        Self {
            scan,
            found: (0..n).map(|_| Candidates::new(scan.job.k)).collect(),
            block: Block {
                rows: [&[]; BLOCK_ROWS],
                bases: [0; BLOCK_ROWS],
                scales: [0.0; BLOCK_ROWS],
                residuals: [0.0; BLOCK_ROWS],
            },
            scores: vec![0; (TILE_ROWS * BATCH).max(BLOCK_ROWS)],
            factors,
            // No score passes in lanes without a query.
            gates: vec![f32::INFINITY; padded],
        }
    }

    fn scan_block(&mut self, numbers: &[u32]) {
        self.gather(numbers);
        for q in 0..self.scan.quantized.len() {
            self.set_gate(q);
        }
        if self.scan.quantized.is_packed() {
            self.scan_panels(numbers);
        } else {
            self.scan_few(numbers);
        }
    }

    fn gather(&mut self, numbers: &[u32]) {
        let QuantizedScan { sq8, quantized, .. } = self.scan;
        let (values, stride) = (sq8.values(), sq8.stride());
        for (i, &number) in numbers.iter().enumerate() {
            let start = number as usize * stride;
            let scale = &sq8.scales()[number as usize];
            self.block.rows[i] = &values[start..start + stride];
            self.block.bases[i] = quantized.zero_point() * scale.sum;
            self.block.scales[i] = scale.scale;
            self.block.residuals[i] = scale.residual;
        }
    }

    fn set_gate(&mut self, query: usize) {
        let threshold = self.scan.thresholds[query].get();
        self.gates[query] = self.scan.quantized.bounds(query).gate(threshold);
    }

    /// Many queries: a register holds the scores of one row with several queries.
    fn scan_panels(&mut self, numbers: &[u32]) {
        let scan = self.scan;
        let mut scores = std::mem::take(&mut self.scores);
        for (p, panels) in scan.quantized.panels().enumerate() {
            let lanes = p * BATCH..(p * BATCH + panels.len() / scan.sq8.stride());
            let width = lanes.len();
            for start in (0..numbers.len()).step_by(TILE_ROWS) {
                let end = (start + TILE_ROWS).min(numbers.len());
                let rows = &self.block.rows[start..end];
                let scores = &mut scores[..rows.len() * width];
                scan.job.kernels.products.gemm_i8(rows, panels, scores);
                for (r, scores) in (start..end).zip(scores.chunks_exact(width)) {
                    let mut passing = scan.job.kernels.passing_lanes(
                        scores,
                        self.block.row(r),
                        &self.factors[lanes.clone()],
                        &self.gates[lanes.clone()],
                    );
                    while passing != 0 {
                        let lane = passing.trailing_zeros() as usize;
                        passing &= passing - 1;
                        self.refine(lanes.start + lane, r, scores[lane], numbers[r]);
                    }
                }
            }
        }
        self.scores = scores;
    }

    /// Few queries: a register holds the scores of one query with several rows.
    fn scan_few(&mut self, numbers: &[u32]) {
        let scan = self.scan;
        let mut scores = std::mem::take(&mut self.scores);
        for q in 0..scan.quantized.len() {
            let (rows, products) = (&self.block.rows[..numbers.len()], &scan.job.kernels.products);
            products.gemv_i8(rows, scan.quantized.high(q), &mut scores[..numbers.len()]);
            for start in (0..numbers.len()).step_by(64) {
                let range = start..(start + 64).min(numbers.len());
                let mut passing = scan.job.kernels.passing_rows(
                    &scores[range.clone()],
                    self.block.columns(range),
                    self.factors[q],
                    self.gates[q],
                );
                while passing != 0 {
                    let r = start + passing.trailing_zeros() as usize;
                    passing &= passing - 1;
                    self.refine(q, r, scores[r], numbers[r]);
                }
            }
        }
        self.scores = scores;
    }

    /// Refines the bounds of row `r` of the block, which passed the gate with the integer score
    /// `high`, by the query's low part, and offers it as a candidate.
    fn refine(&mut self, query: usize, r: usize, high: i32, number: u32) {
        let scan = self.scan;
        let Block { rows, bases, .. } = &self.block;
        let low = scan.job.kernels.products.dot_i8(rows[r], scan.quantized.low(query));
        let scores = [high - bases[r], low - bases[r]];
        let scale = &scan.sq8.scales()[number as usize];
        let (lower, upper) = scan.quantized.bounds(query).refine(scores, scale);
        let candidate = BoundedRow { lower, upper, row: number };
        let found = &mut self.found[query];
        if found.offer(candidate, |row| scan.rescore(query, row)) {
            scan.thresholds[query].raise(found.threshold());
            self.set_gate(query);
        }
    }
}

impl Block<'_> {
    fn row(&self, r: usize) -> RowTerms {
        RowTerms { base: self.bases[r], scale: self.scales[r], residual: self.residuals[r] }
    }

    fn columns(&self, range: Range<usize>) -> RowColumns<'_> {
        RowColumns {
            bases: &self.bases[range.clone()],
            scales: &self.scales[range.clone()],
            residuals: &self.residuals[range],
        }
    }
}
