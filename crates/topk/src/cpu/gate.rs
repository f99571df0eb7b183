//! The operands and the outcome of the gate: the comparison of integer scores with the thresholds
//! of queries.

use std::ops::Range;

/// Queries that one call of a kernel compares at most.
pub(super) const MAX_LANES: usize = 256;

/// The terms of several rows in the comparison of their integer scores with gates, as a structure
/// of arrays.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowColumns<'a> {
    /// The share of the queries' zero point in the integer scores.
    pub(super) bases: &'a [i32],
    pub(super) scales: &'a [f32],
    pub(super) residuals: &'a [f32],
}

impl<'a> RowColumns<'a> {
    pub(super) fn range(self, range: Range<usize>) -> Self {
        Self {
            bases: &self.bases[range.clone()],
            scales: &self.scales[range.clone()],
            residuals: &self.residuals[range],
        }
    }
}

/// The terms of several queries; see [`super::quantize::QueryBounds`].
#[derive(Debug, Clone, Copy)]
pub(super) struct QueryLanes<'a> {
    pub(super) factors: &'a [f32],
    pub(super) gates: &'a [f32],
}

#[cfg(target_arch = "x86_64")]
impl<'a> QueryLanes<'a> {
    pub(super) fn range(self, range: Range<usize>) -> Self {
        Self { factors: &self.factors[range.clone()], gates: &self.gates[range] }
    }
}

/// The pairs of a row and a query that passed the gate.
#[derive(Debug)]
pub(super) struct PassingPairs {
    pairs: Vec<u32>,
    scores: Vec<i32>,
    len: usize,
}

/// One pair that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PassingPair {
    /// The row's index in its block.
    pub(super) row: usize,
    /// The query's index among the lanes of the call.
    pub(super) lane: usize,
    /// The integer score without the zero point's share.
    pub(super) score: i32,
}

/// A row that passed the gate of a query.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct PendingRow {
    pub(super) row: u32,
    /// The integer score of the query's high part, without the zero point's share.
    pub(super) score: i32,
}

impl PassingPairs {
    /// Pairs that a vectorised kernel writes at once.
    const WIDTH: usize = 16;

    /// Returns an empty list with room for all pairs of `rows` rows and `lanes` queries.
    pub(super) fn new(rows: usize, lanes: usize) -> Self {
        let room = rows * lanes + Self::WIDTH;
        Self { pairs: vec![0; room], scores: vec![0; room], len: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn push(&mut self, pair: PassingPair) {
        self.pairs[self.len] = Self::number(pair.row, pair.lane);
        self.scores[self.len] = pair.score;
        self.len += 1;
    }

    /// Returns the number of a pair; lanes of a row follow each other.
    pub(super) fn number(row: usize, lane: usize) -> u32 {
        (row * MAX_LANES + lane) as u32
    }

    /// Lets `write` store up to 16 pairs and their scores behind the last ones, and counts as many
    /// as it returns.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn append(&mut self, write: impl FnOnce(&mut [u32; 16], &mut [i32; 16]) -> usize) {
        let pairs = self.pairs[self.len..].first_chunk_mut();
        let scores = self.scores[self.len..].first_chunk_mut();
        let (Some(pairs), Some(scores)) = (pairs, scores) else { unreachable!("room for all") };
        self.len += write(pairs, scores);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = PassingPair> {
        self.pairs[..self.len].iter().zip(&self.scores).map(|(&pair, &score)| {
            let pair = pair as usize;
            PassingPair { row: pair / MAX_LANES, lane: pair % MAX_LANES, score }
        })
    }
}
