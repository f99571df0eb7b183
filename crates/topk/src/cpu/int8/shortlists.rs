//! Shortlists of the quantized scan: per query the pending rows, the candidates and the gate.

use super::QuantizedScan;
use super::pending::PendingBuffers;
use crate::cpu::candidates::{BoundedRow, Candidates};
use crate::cpu::gate::{PendingRow, QueryLanes};
use std::ops::Range;
use warpseek_compute::cpu::PANEL;

/// The shortlists of one thread.
pub(super) struct Shortlists<'a> {
    scan: &'a QuantizedScan<'a>,
    pending: PendingBuffers,
    candidates: Vec<Candidates>,
    /// Per query, padded to whole panels; see [`crate::cpu::quantize::QueryBounds`].
    factors: Vec<f32>,
    gates: Vec<f32>,
    /// The thresholds that the gates were made of.
    seen: Vec<f32>,
    /// Bounds of the pending rows of one query, in the unit of its gate.
    lower: Vec<f32>,
    upper: Vec<f32>,
}

impl<'a> Shortlists<'a> {
    pub(super) fn new(scan: &'a QuantizedScan<'a>) -> Self {
        let n = scan.quantized.len();
        let padded = n.next_multiple_of(PANEL);
        let mut factors = vec![0.0; padded];
        (0..n).for_each(|q| factors[q] = scan.quantized.bounds(q).residual_factor());
        // No score passes in lanes without a query.
        let mut gates = vec![f32::INFINITY; padded];
        gates[..n].fill(f32::NEG_INFINITY);
        let pending = PendingBuffers::new(n, scan.job.k);
        Self {
            scan,
            lower: vec![0.0; pending.capacity()],
            upper: vec![0.0; pending.capacity()],
            pending,
            candidates: (0..n).map(|_| Candidates::new(scan.job.k)).collect(),
            factors,
            gates,
            seen: vec![f32::NEG_INFINITY; n],
        }
    }

    /// Returns the bytes of the lists of one query.
    pub(super) fn bytes(k: usize) -> usize {
        PendingBuffers::bytes(k).saturating_add(Candidates::bytes(k))
    }

    /// Returns the terms of some queries.
    pub(super) fn lanes(&self, range: Range<usize>) -> QueryLanes<'_> {
        QueryLanes { factors: &self.factors[range.clone()], gates: &self.gates[range] }
    }

    /// Returns the residual factor and the gate of a query.
    pub(super) fn terms(&self, query: usize) -> (f32, f32) {
        (self.factors[query], self.gates[query])
    }

    /// Updates the gates of all queries whose thresholds any thread raised.
    pub(super) fn update_gates(&mut self) {
        (0..self.seen.len()).for_each(|query| self.update_gate(query));
    }

    fn update_gate(&mut self, query: usize) {
        let threshold = self.scan.thresholds[query].get();
        if threshold != self.seen[query] {
            self.seen[query] = threshold;
            self.gates[query] = self.scan.quantized.bounds(query).gate(threshold);
        }
    }

    /// Adds a row that passed the gate of a query with the integer score `score` of the high part.
    #[inline]
    pub(super) fn push(&mut self, query: usize, row: u32, score: i32) {
        if self.pending.push(query, PendingRow { row, score })
            && self.sift(query) > self.pending.capacity() / 2
        {
            self.refine(query);
        }
    }

    /// Raises the threshold by the bounds of the pending rows and drops those that no longer reach
    /// it. Returns the number of those that do.
    fn sift(&mut self, query: usize) -> usize {
        let (scan, kernels) = (self.scan, self.scan.job.kernels);
        let rows = self.pending.rows(query);
        let (lower, upper) = (&mut self.lower[..rows.len()], &mut self.upper[..rows.len()]);
        let factor = self.factors[query];
        kernels.pending_bounds(rows, scan.sq8.scales(), factor, [lower, upper]);
        if let Some(kth) = kernels.kth_largest(lower, scan.job.k) {
            scan.thresholds[query].raise(scan.quantized.bounds(query).lower_bound(kth));
        }
        self.update_gate(query);
        let gate = self.gates[query];
        self.pending.retain(query, |i| self.upper[i] >= gate)
    }

    /// Moves the pending rows to the candidates, with tighter bounds by the query's low part.
    fn refine(&mut self, query: usize) {
        let QuantizedScan { job, sq8, quantized, thresholds } = self.scan;
        let bounds = quantized.bounds(query);
        let [_, zero_point] = quantized.zero_points();
        let candidates = &mut self.candidates[query];
        for pending in self.pending.rows(query).chunks(Candidates::BATCH) {
            let mut rows: [&[i8]; Candidates::BATCH] = [&[]; Candidates::BATCH];
            let mut low = [0; Candidates::BATCH];
            let n = pending.len();
            rows.iter_mut().zip(pending).for_each(|(row, p)| *row = self.scan.int8_row(p.row));
            job.kernels.products.gemv_i8(&rows[..n], quantized.low(query), &mut low[..n]);
            let threshold = thresholds[query].get();
            let bounded = pending.iter().zip(low).filter_map(|(pending, low)| {
                let scale = &sq8.scales()[pending.row as usize];
                let scores = [pending.score, low - zero_point * scale.sum];
                let (lower, upper) = bounds.refine(scores, scale);
                (upper >= threshold).then_some(BoundedRow { lower, upper, row: pending.row })
            });
            candidates.offer(bounded, |rows, scores| self.scan.rescore(query, rows, scores));
            thresholds[query].raise(candidates.threshold());
        }
        self.pending.clear(query);
        self.update_gate(query);
    }

    /// Moves the pending rows to the candidates, with the bounds by the query's high part.
    fn accept(&mut self, query: usize) {
        let QuantizedScan { job, sq8, quantized, .. } = self.scan;
        let (rows, factor) = (self.pending.rows(query), self.factors[query]);
        let (lower, upper) = (&mut self.lower[..rows.len()], &mut self.upper[..rows.len()]);
        job.kernels.pending_bounds(rows, sq8.scales(), factor, [lower, upper]);
        let bounds = quantized.bounds(query);
        let bounded = |((pending, lower), upper): ((&PendingRow, &f32), &f32)| BoundedRow {
            lower: bounds.lower_bound(*lower),
            upper: bounds.upper_bound(*upper),
            row: pending.row,
        };
        self.candidates[query].extend(rows.iter().zip(&*lower).zip(&*upper).map(bounded));
        self.pending.clear(query);
    }

    /// Returns the candidates of every query.
    pub(super) fn finish(mut self) -> Vec<Candidates> {
        for query in 0..self.candidates.len() {
            // Of few rows, as many would be rescored after a refinement as it costs.
            if self.sift(query) > 3 * self.scan.job.k + 8 {
                self.refine(query);
            } else {
                self.accept(query);
            }
        }
        self.candidates
    }
}
