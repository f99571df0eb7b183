//! The matrix of stored vectors, and the set of rows that a scan may return.

use super::prefilter::{PrefilterView, prefilter_stride};
use half::f16;
use std::sync::Arc;

/// Values a row occupies are padded with zeros to a multiple of this.
pub const STRIDE_MULTIPLE: usize = 32;

/// The largest number of rows one index may hold: row numbers are 32 bits wide.
pub const MAX_ROWS: u64 = u32::MAX as u64;

/// The values between the starts of two rows: `dim` rounded up to [`STRIDE_MULTIPLE`].
pub const fn stride_of(dim: usize) -> usize {
    dim.next_multiple_of(STRIDE_MULTIPLE)
}

/// A borrowed matrix of half-precision rows, `[n_rows, stride]`, row-major; columns from `dim` to
/// `stride` are zero.
#[derive(Debug, Clone, Copy)]
pub struct MatrixView<'a> {
    values: &'a [f16],
    n_rows: usize,
    dim: usize,
    max_norm: f32,
    prefilter: Option<PrefilterView<'a>>,
    owner: Option<&'a Arc<()>>,
    history: &'a [RowsDigest],
}

/// What the first rows of a matrix are, told by a digest of their values: matrices whose first `n_rows` rows have one
/// digest have the same rows there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowsDigest {
    /// How many rows.
    pub n_rows: usize,
    /// The digest of their values.
    pub digest: u64,
}

impl<'a> MatrixView<'a> {
    /// Views `values` as `[values.len() / stride_of(dim), stride_of(dim)]`.
    ///
    /// `max_norm` is an upper bound on the Euclidean norm of every row; the scan's error bounds
    /// rest on it. Returns `None` where the length is no whole number of rows, `dim` is 0, or
    /// there are more than [`MAX_ROWS`] rows.
    pub fn new(values: &'a [f16], dim: usize, max_norm: f32) -> Option<Self> {
        let stride = stride_of(dim);
        if dim == 0 || !values.len().is_multiple_of(stride) {
            return None;
        }
        let n_rows = values.len() / stride;
        let (prefilter, owner) = (None, None);
        let view = Self { values, n_rows, dim, max_norm, prefilter, owner, history: &[] };
        (n_rows as u64 <= MAX_ROWS).then_some(view)
    }

    /// The same matrix with its prefilter, which must have been made of these very rows. One that
    /// does not fit the number and length of the rows is left out.
    pub fn with_prefilter(self, prefilter: Option<PrefilterView<'a>>) -> Self {
        let fits = |p: &PrefilterView<'_>| {
            p.scales().len() == self.n_rows && p.stride() == prefilter_stride(self.dim)
        };
        Self { prefilter: prefilter.filter(fits), ..self }
    }

    /// The same matrix, whose values stay as they are for as long as `owner` lives: a copy of them on a
    /// device may be kept until then. `history` tells what its first rows are, at ascending numbers of rows and
    /// last at all of them; where a device holds that many, the others are all it needs. It may be empty.
    pub fn with_owner(self, owner: &'a Arc<()>, history: &'a [RowsDigest]) -> Self {
        Self { owner: Some(owner), history, ..self }
    }

    /// What the first rows are.
    pub fn history(&self) -> &'a [RowsDigest] {
        self.history
    }

    /// What lives as long as the values do.
    pub fn owner(&self) -> Option<&'a Arc<()>> {
        self.owner
    }

    /// The rows in 8 bits, where there are such.
    pub fn prefilter(&self) -> Option<PrefilterView<'a>> {
        self.prefilter
    }

    /// The number of rows.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// The number of meaningful values in a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The number of values between the starts of two rows.
    pub fn stride(&self) -> usize {
        stride_of(self.dim)
    }

    /// An upper bound on the Euclidean norm of every row.
    pub fn max_norm(&self) -> f32 {
        self.max_norm
    }

    /// One row with its padding, `[stride]`, or `None` past the end.
    pub fn row(&self, row: usize) -> Option<&'a [f16]> {
        let start = row.checked_mul(self.stride())?;
        self.values.get(start..start.checked_add(self.stride())?)
    }

    /// All values, `[n_rows * stride]`.
    pub fn values(&self) -> &'a [f16] {
        self.values
    }
}

/// The Euclidean norm of a row, in float64 rounded up to the next float32.
pub fn row_norm_upper(row: &[f16]) -> f32 {
    let sum: f64 = row.iter().map(|v| f64::from(v.to_f32()).powi(2)).sum();
    // The sum of n squares carries a relative error below n * 2^-53; 1e-9 covers 2^22 values.
    round_up_f32(sum.sqrt() * (1.0 + 1e-9))
}

/// The smallest float32 that is not below `value`.
pub fn round_up_f32(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) < value { near.next_up() } else { near }
}

/// A set of rows, one bit each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowMask {
    words: Vec<u64>,
    n_rows: usize,
}

impl RowMask {
    /// No row of `n_rows`.
    pub fn empty(n_rows: usize) -> Self {
        Self { words: vec![0; n_rows.div_ceil(64)], n_rows }
    }

    /// Every row of `n_rows`.
    pub fn full(n_rows: usize) -> Self {
        let mut mask = Self { words: vec![u64::MAX; n_rows.div_ceil(64)], n_rows };
        if !n_rows.is_multiple_of(64)
            && let Some(last) = mask.words.last_mut()
        {
            *last = (1u64 << (n_rows % 64)) - 1;
        }
        mask
    }

    /// The number of rows the mask speaks of, in it or not.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Adds a row; rows past the end are ignored.
    pub fn insert(&mut self, row: usize) {
        if row < self.n_rows {
            self.words[row / 64] |= 1 << (row % 64);
        }
    }

    /// Takes a row out; rows past the end are ignored.
    pub fn remove(&mut self, row: usize) {
        if row < self.n_rows {
            self.words[row / 64] &= !(1 << (row % 64));
        }
    }

    /// Whether the row is in the set.
    pub fn contains(&self, row: usize) -> bool {
        row < self.n_rows && self.words[row / 64] & (1 << (row % 64)) != 0
    }

    /// The number of rows in the set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// The rows of `range`, which starts at a multiple of 64, one bit each: bit `i` of word `w` is row
    /// `32 w + i` of the range. Bits past its end are zero.
    pub fn words_of(&self, range: std::ops::Range<usize>) -> Vec<u32> {
        let n = range.len();
        let words = &self.words[range.start / 64..range.end.div_ceil(64)];
        let halves = words.iter().flat_map(|w| [*w as u32, (*w >> 32) as u32]);
        let mut words: Vec<u32> = halves.take(n.div_ceil(32)).collect();
        if !n.is_multiple_of(32)
            && let Some(last) = words.last_mut()
        {
            *last &= (1 << (n % 32)) - 1;
        }
        words
    }

    /// Keeps only the rows that `other` holds too; rows that `other` does not speak of go.
    pub fn intersect(&mut self, other: &Self) {
        for (i, word) in self.words.iter_mut().enumerate() {
            *word &= other.words.get(i).copied().unwrap_or(0);
        }
    }

    /// The rows of `range` that are in the set, ascending, appended to `rows`.
    pub fn collect_range(&self, range: std::ops::Range<usize>, rows: &mut Vec<u32>) {
        let end = range.end.min(self.n_rows);
        let mut at = range.start;
        while at < end {
            let mut word = self.words[at / 64] & (u64::MAX << (at % 64));
            let base = at / 64 * 64;
            if base + 64 > end {
                word &= u64::MAX >> (base + 64 - end);
            }
            while word != 0 {
                rows.push((base + word.trailing_zeros() as usize) as u32);
                word &= word - 1;
            }
            at = base + 64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn norm_of_a_row_is_never_below_the_true_one() {
        let row: Vec<f16> = (0..384).map(|i| f16::from_f32((i as f32).sin())).collect();
        let exact: f64 = row.iter().map(|v| f64::from(v.to_f32()).powi(2)).sum::<f64>().sqrt();
        let bound = f64::from(row_norm_upper(&row));
        assert!(bound >= exact && bound < exact * (1.0 + 1e-6));
    }

    #[test]
    fn view_of_a_partial_row_is_refused() {
        let values = vec![f16::ZERO; 33];
        assert!(MatrixView::new(&values, 32, 1.0).is_none());
        assert!(MatrixView::new(&values[..32], 0, 1.0).is_none());
        assert_eq!(MatrixView::new(&values[..32], 20, 1.0).map(|m| m.n_rows()), Some(1));
    }

    proptest! {
        #[test]
        fn mask_matches_a_plain_set(
            n in 0usize..300,
            rows in proptest::collection::btree_set(0usize..300, 0..80),
            start in 0usize..320,
            len in 0usize..320,
        ) {
            let mut mask = RowMask::empty(n);
            rows.iter().for_each(|&r| mask.insert(r));
            let expected: Vec<u32> = rows
                .iter()
                .filter(|&&r| r < n && r >= start && r < start + len)
                .map(|&r| r as u32)
                .collect();
            let mut got = Vec::new();
            mask.collect_range(start..start + len, &mut got);
            prop_assert_eq!(got, expected);
            prop_assert_eq!(mask.count(), rows.iter().filter(|&&r| r < n).count());
            let start = start.min(n) / 64 * 64;
            let range = start..(start + len).min(n);
            let words = mask.words_of(range.clone());
            let found: Vec<u32> = (0..words.len() as u32 * 32)
                .filter(|i| words[*i as usize / 32] >> (i % 32) & 1 != 0)
                .map(|i| start as u32 + i)
                .collect();
            let mut wanted = Vec::new();
            mask.collect_range(range, &mut wanted);
            prop_assert_eq!(found, wanted);
            let mut full = RowMask::full(n);
            prop_assert_eq!(full.count(), n);
            full.intersect(&mask);
            prop_assert_eq!(full, mask);
        }
    }
}
