//! The scan over the prefilter: integer scores, bounds on the canonical ones, and canonical scores of
//! the few rows whose bounds leave the answer open.

use super::query::{FEW, QuantisedQueries};
use super::select::{Candidate, Candidates, SharedThreshold};
use super::{passing_rows, scan_spans};
use crate::cpu::{GROUP, Kernels, PANEL_GROUPS};
use crate::scan::order::ScoredRow;
use crate::store::matrix::{MatrixView, RowMask};
use crate::store::prefilter::PrefilterView;
use rayon::prelude::*;
use std::ops::Range;

/// Rows that are scanned against all queries before the next ones: 192 rows of 384 bytes are 72 KiB.
const BLOCK_ROWS: usize = 2 * TILE_ROWS;

/// Rows whose integer scores are computed before they are looked at. A whole number of the kernels'
/// register tiles of 4 to 12 rows, and of the
/// AMX kernel's 32.
const TILE_ROWS: usize = 96;

/// Queries of a panel.
const PANEL: usize = PANEL_GROUPS * GROUP;

/// The bytes of a query's candidate list.
pub(super) fn candidate_bytes(k: usize) -> usize {
    Candidates::bytes(k)
}

/// One pass over the prefilter for a group of queries.
pub(super) struct Pass<'a> {
    kernels: Kernels,
    matrix: &'a MatrixView<'a>,
    prefilter: &'a PrefilterView<'a>,
    /// `[n_queries, matrix.stride()]`.
    queries: &'a [f32],
    quantised: QuantisedQueries,
    thresholds: Vec<SharedThreshold>,
    k: usize,
    mask: Option<&'a RowMask>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(
        kernels: Kernels,
        matrix: &'a MatrixView<'a>,
        prefilter: &'a PrefilterView<'a>,
        queries: &'a [f32],
        k: usize,
        mask: Option<&'a RowMask>,
    ) -> Self {
        let quantised = QuantisedQueries::new(queries, matrix, prefilter, kernels.column_levels());
        let thresholds = (0..quantised.len()).map(|_| SharedThreshold::default()).collect();
        Self { kernels, matrix, prefilter, queries, quantised, thresholds, k, mask }
    }

    pub(super) fn run(&self) -> Vec<Vec<ScoredRow>> {
        let workers = scan_spans(
            self.matrix.n_rows(),
            self.quantised.len(),
            BLOCK_ROWS,
            || Worker::new(self),
            Worker::scan,
        );
        let mut found: Vec<Vec<Candidates>> = workers.into_iter().map(|w| w.found).collect();
        let mut first = found.pop().unwrap_or_default();
        for other in found {
            for (all, more) in first.iter_mut().zip(other) {
                all.absorb(more);
            }
        }
        let finish = |(q, mut candidates): (usize, Candidates)| {
            candidates.drop_hopeless();
            // The rows lie far apart: the memory is asked for all of them before the first is needed.
            candidates.rows().for_each(|row| self.kernels.prefetch(self.half_row(row)));
            candidates.into_sorted(|row| self.score(q, row))
        };
        if self.quantised.len() <= FEW {
            return first.into_iter().enumerate().map(finish).collect();
        }
        first.into_par_iter().enumerate().map(finish).collect()
    }

    fn half_row(&self, row: u32) -> &'a [half::f16] {
        self.matrix.row(row as usize).unwrap_or_default()
    }

    /// The canonical score.
    fn score(&self, query: usize, row: u32) -> f32 {
        let stride = self.matrix.stride();
        let query = &self.queries[query * stride..(query + 1) * stride];
        self.kernels.canonical(query, self.half_row(row))
    }
}

/// One thread's share of a pass.
struct Worker<'a> {
    pass: &'a Pass<'a>,
    found: Vec<Candidates>,
    numbers: Vec<u32>,
    block: Block<'a>,
    /// `[rows of a tile, queries of a panel]`, or one query's `[rows of a block]`.
    scores: Vec<i32>,
    /// Per query, padded to whole groups; see [`super::query::QueryBounds`].
    factors: Vec<f32>,
    gates: Vec<f32>,
}

/// The rows that are scanned together, one field of theirs behind the other.
pub(super) struct Block<'a> {
    rows: [&'a [i8]; BLOCK_ROWS],
    /// What the queries' offset adds to a row's integer score.
    bases: [i32; BLOCK_ROWS],
    scales: [f32; BLOCK_ROWS],
    residuals: [f32; BLOCK_ROWS],
}

impl<'a> Worker<'a> {
    fn new(pass: &'a Pass<'a>) -> Self {
        let n = pass.quantised.len();
        let padded = n.next_multiple_of(GROUP);
        let mut factors = vec![0.0; padded];
        (0..n).for_each(|q| factors[q] = pass.quantised.bounds(q).residual_factor());
        Self {
            pass,
            found: (0..n).map(|_| Candidates::new(pass.k)).collect(),
            numbers: Vec::with_capacity(8192),
            block: Block {
                rows: [&[]; BLOCK_ROWS],
                bases: [0; BLOCK_ROWS],
                scales: [0.0; BLOCK_ROWS],
                residuals: [0.0; BLOCK_ROWS],
            },
            scores: vec![0; (TILE_ROWS * PANEL).max(BLOCK_ROWS)],
            factors,
            // Nothing passes for the lanes that stand for no query.
            gates: vec![f32::INFINITY; padded],
        }
    }

    /// Scans the rows of `span` that the mask holds, gathered into full blocks.
    fn scan(&mut self, span: Range<usize>) {
        let mut numbers = std::mem::take(&mut self.numbers);
        passing_rows(self.pass.mask, span, &mut numbers);
        for block in numbers.chunks(BLOCK_ROWS) {
            self.gather(block);
            for q in 0..self.pass.quantised.len() {
                self.set_gate(q);
            }
            if self.pass.quantised.is_grouped() {
                self.scan_panels(block);
            } else {
                self.scan_few(block);
            }
        }
        self.numbers = numbers;
    }

    fn gather(&mut self, numbers: &[u32]) {
        let Pass { prefilter, quantised, .. } = self.pass;
        let (values, stride) = (prefilter.values(), prefilter.stride());
        for (i, &number) in numbers.iter().enumerate() {
            let start = number as usize * stride;
            let scale = &prefilter.scales()[number as usize];
            self.block.rows[i] = &values[start..start + stride];
            self.block.bases[i] = quantised.offset() * scale.sum;
            self.block.scales[i] = scale.scale;
            self.block.residuals[i] = scale.residual;
        }
    }

    fn set_gate(&mut self, query: usize) {
        let threshold = self.pass.thresholds[query].get();
        self.gates[query] = self.pass.quantised.bounds(query).gate(threshold);
    }

    /// Many queries: a register holds the scores of a row with several of them.
    fn scan_panels(&mut self, numbers: &[u32]) {
        let pass = self.pass;
        let mut scores = std::mem::take(&mut self.scores);
        for (p, panel) in pass.quantised.panels().enumerate() {
            let lanes = p * PANEL..(p * PANEL + panel.len() / pass.prefilter.stride());
            let width = lanes.len();
            for start in (0..numbers.len()).step_by(TILE_ROWS) {
                let end = (start + TILE_ROWS).min(numbers.len());
                let rows = &self.block.rows[start..end];
                let scores = &mut scores[..rows.len() * width];
                pass.kernels.panel_products(rows, panel, scores);
                for (r, scores) in (start..end).zip(scores.chunks_exact(width)) {
                    let mut passing = pass.kernels.passing_lanes(
                        scores,
                        self.block.row(r),
                        &self.factors[lanes.clone()],
                        &self.gates[lanes.clone()],
                    );
                    while passing != 0 {
                        let lane = passing.trailing_zeros() as usize;
                        passing &= passing - 1;
                        self.look_again(lanes.start + lane, r, scores[lane], numbers[r]);
                    }
                }
            }
        }
        self.scores = scores;
    }

    /// Few queries: a register holds the scores of a query with several rows.
    fn scan_few(&mut self, numbers: &[u32]) {
        let pass = self.pass;
        let mut scores = std::mem::take(&mut self.scores);
        for q in 0..pass.quantised.len() {
            let rows = &self.block.rows[..numbers.len()];
            pass.kernels.row_products(rows, pass.quantised.row(q), &mut scores[..numbers.len()]);
            for start in (0..numbers.len()).step_by(64) {
                let range = start..(start + 64).min(numbers.len());
                let mut passing = pass.kernels.passing_rows(
                    &scores[range.clone()],
                    self.block.columns(range),
                    self.factors[q],
                    self.gates[q],
                );
                while passing != 0 {
                    let r = start + passing.trailing_zeros() as usize;
                    passing &= passing - 1;
                    self.look_again(q, r, scores[r], numbers[r]);
                }
            }
        }
        self.scores = scores;
    }

    /// Row `r` of the block passed the gate of a query with the integer score `first`: the second plane
    /// narrows the bounds.
    fn look_again(&mut self, query: usize, r: usize, first: i32, number: u32) {
        let pass = self.pass;
        let Block { rows, bases, .. } = &self.block;
        let second = pass.kernels.dot(rows[r], pass.quantised.second(query));
        let scores = [first - bases[r], second - bases[r]];
        let scale = &pass.prefilter.scales()[number as usize];
        let (lower, upper) = pass.quantised.bounds(query).refine(scores, scale);
        let candidate = Candidate { lower, upper, row: number };
        let found = &mut self.found[query];
        if found.offer(candidate, |row| pass.score(query, row)) {
            pass.thresholds[query].raise_to(found.threshold());
            self.set_gate(query);
        }
    }
}

/// What a row brings to the comparison of its integer scores with gates.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowTerms {
    pub(super) base: i32,
    pub(super) scale: f32,
    pub(super) residual: f32,
}

/// The same of several rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowColumns<'a> {
    pub(super) bases: &'a [i32],
    pub(super) scales: &'a [f32],
    pub(super) residuals: &'a [f32],
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
