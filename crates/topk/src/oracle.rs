//! The oracle: the canonical score, the total order of results, and the naive scan that defines the
//! correct answer.
//!
//! Every scanner returns exactly what [`naive_top_k`] returns, bit for bit. Fast paths may compute
//! approximate scores in any precision as long as they keep every row whose canonical score could
//! reach the k-th best, and rescore the rows they kept with [`canonical_score`].

use crate::mask::RowMask;
use crate::matrix::MatrixView;
use half::f16;

/// The number of partial sums of a canonical score.
pub const LANES: usize = 16;

/// A row and its canonical score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredRow {
    /// The row's number in the matrix.
    pub row: u32,
    /// The inner product of query and row; higher is better.
    pub score: f32,
}

/// Score and row packed into one integer whose order is the result order: the greater key is the
/// better hit (higher score, then lower row).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(u64);

impl Key {
    /// Smaller than every real key.
    pub(crate) const LOWEST: Self = Self(0);

    /// Packs a score, which must not be NaN, and a row.
    pub(crate) fn new(score: f32, row: u32) -> Self {
        Self((u64::from(ordered_bits(score)) << 32) | u64::from(!row))
    }

    /// Unpacks score and row.
    pub(crate) fn scored_row(self) -> ScoredRow {
        ScoredRow { row: !(self.0 as u32), score: from_ordered_bits((self.0 >> 32) as u32) }
    }
}

/// Maps a float32 to an unsigned integer with the same order (-0 below +0).
pub(crate) fn ordered_bits(score: f32) -> u32 {
    let bits = score.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 }
}

/// The inverse of [`ordered_bits`].
pub(crate) fn from_ordered_bits(bits: u32) -> f32 {
    f32::from_bits(if bits >> 31 == 1 { bits & 0x7fff_ffff } else { !bits })
}

/// Returns the canonical score of a query and a row of the same length.
///
/// Products are exact in float64 (24 + 11 significant bits). Lane `j` of 16 sums the products with
/// index `i = j mod 16` in ascending order; then lanes 8 apart are added, then 4, 2 and 1 apart.
/// The sum is rounded once to float32, and -0 becomes +0.
pub fn canonical_score(query: &[f32], row: &[f16]) -> f32 {
    let mut lanes = [0f64; LANES];
    for (i, (q, r)) in query.iter().zip(row).enumerate() {
        lanes[i % LANES] += f64::from(*q) * f64::from(r.to_f32());
    }
    finish(&mut lanes)
}

/// Sums the lanes in the canonical order and rounds to float32.
pub(crate) fn finish(lanes: &mut [f64; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for j in 0..width {
            lanes[j] += lanes[j + width];
        }
        width /= 2;
    }
    // Adding +0 turns -0 into +0 and changes no other value.
    lanes[0] as f32 + 0.0
}

/// Returns the correct answer by definition: the first `k` rows by (score descending, row
/// ascending) among those in `mask`. Scores every row and sorts; slow on purpose.
pub fn naive_top_k(
    matrix: &MatrixView<'_>,
    query: &[f32],
    k: usize,
    mask: Option<&RowMask>,
) -> Vec<ScoredRow> {
    rank_all(matrix.n_rows(), |row| matrix.row(row), query, k, mask)
}

/// Scores `n_rows` rows and sorts them; see [`naive_top_k`].
pub(crate) fn rank_all<'a>(
    n_rows: usize,
    row_of: impl Fn(usize) -> Option<&'a [f16]>,
    query: &[f32],
    k: usize,
    mask: Option<&RowMask>,
) -> Vec<ScoredRow> {
    let mut all: Vec<ScoredRow> = (0..n_rows)
        .filter(|&row| mask.is_none_or(|m| m.contains(row)))
        .filter_map(|row| {
            let score = canonical_score(query, row_of(row)?.get(..query.len())?);
            Some(ScoredRow { row: row as u32, score })
        })
        .collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
    all.truncate(k);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_score_of_cancelling_products_is_plus_zero() {
        let row = [f16::from_f32(1.0), f16::from_f32(-0.0)];
        assert_eq!(canonical_score(&[-0.0, 1.0], &row).to_bits(), 0);
    }

    #[test]
    fn canonical_score_adds_lanes_in_the_stated_tree() {
        // One value a lane, chosen so that another order of additions rounds differently.
        let mut query = [0f32; 16];
        let mut row = [f16::ZERO; 16];
        for j in 0..16 {
            query[j] = [1e30, 1.0, -1e30, 3.0][j % 4];
            row[j] = f16::from_f32(1.0 + j as f32);
        }
        let l: Vec<f64> =
            (0..16).map(|j| f64::from(query[j]) * f64::from(row[j].to_f32())).collect();
        let a: Vec<f64> = (0..8).map(|j| l[j] + l[j + 8]).collect();
        let b: Vec<f64> = (0..4).map(|j| a[j] + a[j + 4]).collect();
        let expected = ((b[0] + b[2]) + (b[1] + b[3])) as f32;
        assert_eq!(canonical_score(&query, &row).to_bits(), expected.to_bits());
    }

    proptest! {
        #[test]
        fn key_order_is_score_then_row(
            a in -1e9f32..1e9, b in -1e9f32..1e9, r in 0u32.., s in 0u32..
        ) {
            let better = a > b || (a == b && r < s);
            prop_assert_eq!(Key::new(a, r) > Key::new(b, s), better);
            let back = Key::new(a, r).scored_row();
            prop_assert_eq!((back.score.to_bits(), back.row), (a.to_bits(), r));
            prop_assert!(Key::new(a, r) > Key::LOWEST);
        }
    }
}
