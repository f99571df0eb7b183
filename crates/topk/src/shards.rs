//! The rows of several matrices, numbered one after the other, and the merge of their results.
//!
//! A scan of shards gives what a scan of one matrix with the same rows gives, bit for bit: each
//! shard returns its first `k` rows in the canonical order, no row of the answer is missing among
//! them, and the order of numbers is kept.

use crate::error::{Error, Result};
use crate::layout::MAX_ROWS;
use crate::mask::RowMask;
use crate::matrix::MatrixView;
use crate::oracle::{ScoredRow, rank_all};
use crate::queries::QueryBatch;
use crate::scanner::Scanner;
use half::f16;
use std::ops::Range;

/// The matrices of the shards of an index, `[n_rows, stride]` together. An index in one folder has
/// one.
#[derive(Debug, Clone)]
pub struct ShardedMatrix<'a> {
    shards: Vec<MatrixView<'a>>,
    /// The number of the first row of each shard, and the number of all rows.
    first_rows: Vec<usize>,
}

impl<'a> From<MatrixView<'a>> for ShardedMatrix<'a> {
    fn from(matrix: MatrixView<'a>) -> Self {
        Self { first_rows: vec![0, matrix.n_rows()], shards: vec![matrix] }
    }
}

impl<'a> ShardedMatrix<'a> {
    /// Numbers the rows of `shards` one after the other.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if there are none, their dimensions differ, or they have more than
    /// [`MAX_ROWS`] rows together.
    pub fn new(shards: Vec<MatrixView<'a>>) -> Result<Self> {
        let Some(first) = shards.first() else {
            return Err(Error::usage("there are no shards"));
        };
        if let Some(other) = shards.iter().find(|shard| shard.dim() != first.dim()) {
            let (a, b) = (first.dim(), other.dim());
            return Err(Error::usage(format!("shards of {a} and of {b} dimensions")));
        }
        let mut first_rows = vec![0];
        for shard in &shards {
            first_rows.push(first_rows.last().unwrap_or(&0) + shard.n_rows());
        }
        let this = Self { shards, first_rows };
        if this.n_rows() as u64 > MAX_ROWS {
            return Err(Error::usage(format!(
                "the shards have {} rows together, and at most {MAX_ROWS} can be searched by one \
                 process",
                this.n_rows()
            )));
        }
        Ok(this)
    }

    /// Returns the matrices of the shards.
    pub fn shards(&self) -> &[MatrixView<'a>] {
        &self.shards
    }

    /// Returns the matrix, if there is one shard.
    pub fn single(&self) -> Option<&MatrixView<'a>> {
        match &self.shards[..] {
            [single] => Some(single),
            _ => None,
        }
    }

    /// Returns the number of rows of all shards.
    pub fn n_rows(&self) -> usize {
        self.first_rows.last().copied().unwrap_or(0)
    }

    /// Returns the number of values of a row without padding.
    pub fn dim(&self) -> usize {
        self.shards.first().map_or(0, MatrixView::dim)
    }

    /// Returns one row with its padding, `[stride]`, or `None` past the end.
    pub fn row(&self, row: usize) -> Option<&'a [f16]> {
        let (shard, row) = self.locate(row)?;
        shard.row(row)
    }

    /// As [`ShardedMatrix::row`], after comparing the row with its checksum.
    ///
    /// # Errors
    ///
    /// As [`MatrixView::checked_row`], which counts from the start of the shard.
    pub fn checked_row(&self, row: usize) -> Result<&'a [f16]> {
        let none = || {
            let n = self.n_rows();
            Error::usage(format!("there is no row {row}: the index has {n} rows"))
        };
        let (shard, row) = self.locate(row).ok_or_else(none)?;
        shard.checked_row(row)
    }

    /// Leaves out the int8 copies.
    pub fn without_sq8(&self) -> Self {
        let shards = self.shards.iter().map(|shard| shard.with_sq8(None)).collect();
        Self { shards, first_rows: self.first_rows.clone() }
    }

    /// Returns the correct answer by definition, as [`naive_top_k`](crate::oracle::naive_top_k).
    pub fn naive_top_k(&self, query: &[f32], k: usize, mask: Option<&RowMask>) -> Vec<ScoredRow> {
        rank_all(self.n_rows(), |row| self.row(row), query, k, mask)
    }

    /// The numbers of a shard's rows.
    fn rows_of(&self, shard: usize) -> Range<usize> {
        self.first_rows[shard]..self.first_rows[shard + 1]
    }

    /// The shard of a row, and the row's number in it.
    fn locate(&self, row: usize) -> Option<(&MatrixView<'a>, usize)> {
        let shard = self.first_rows.partition_point(|&first| first <= row).checked_sub(1)?;
        Some((self.shards.get(shard)?, row - self.first_rows[shard]))
    }
}

impl Scanner {
    /// As [`Scanner::top_k_masked`] over the rows of all shards; masks are of all rows together.
    ///
    /// # Errors
    ///
    /// As [`Scanner::top_k_masked`].
    pub fn top_k_sharded(
        &self,
        matrix: &ShardedMatrix<'_>,
        queries: &QueryBatch,
        k: usize,
        masks: &[Option<&RowMask>],
    ) -> Result<Vec<Vec<ScoredRow>>> {
        if let Some(single) = matrix.single() {
            return self.top_k_masked(single, queries, k, masks);
        }
        if k == 0 {
            return Err(Error::usage("k must be at least 1"));
        }
        if let Some(mask) = masks.iter().flatten().find(|mask| mask.n_rows() != matrix.n_rows()) {
            let (n, n_rows) = (mask.n_rows(), matrix.n_rows());
            let reason = format!("the row mask is for {n} rows, the index has {n_rows}");
            return Err(Error::usage(reason));
        }
        let mut merged = vec![Vec::new(); queries.len()];
        for (number, shard) in matrix.shards.iter().enumerate() {
            let rows = matrix.rows_of(number);
            let mut parts: Vec<(&RowMask, RowMask)> = Vec::new();
            for mask in masks.iter().flatten() {
                if !parts.iter().any(|(whole, _)| std::ptr::eq(*whole, *mask)) {
                    parts.push((mask, mask.part(rows.clone())));
                }
            }
            let part = |mask: &RowMask| {
                parts.iter().find(|(whole, _)| std::ptr::eq(*whole, mask)).map(|(_, part)| part)
            };
            let masks: Vec<Option<&RowMask>> =
                masks.iter().map(|mask| mask.and_then(part)).collect();
            // What the shards before it have found rules out most rows of this one.
            let kth = |found: &Vec<ScoredRow>| found.get(k - 1).map(|hit| hit.score);
            let floors = merged.iter().map(|found| kth(found).unwrap_or(f32::NEG_INFINITY));
            let floors: Vec<f32> = floors.collect();
            let found = self.top_k_masked_above(shard, queries, k, &masks, Some(&floors))?;
            for (merged, found) in merged.iter_mut().zip(found) {
                merge(merged, &found, rows.start as u32, k);
            }
        }
        Ok(merged)
    }
}

/// Merges the answer of a shard, whose first row has the number `first_row`, into that of the
/// shards before it: by score descending, at equal scores by number. Both are in this order; at
/// most `k` rows stay.
pub fn merge(merged: &mut Vec<ScoredRow>, found: &[ScoredRow], first_row: u32, k: usize) {
    let mut earlier = std::mem::take(merged).into_iter().peekable();
    let mut later = found.iter().peekable();
    while merged.len() < k {
        // Rows of earlier shards have lower numbers, and come first at equal scores.
        let next = match (earlier.peek(), later.peek()) {
            (Some(a), Some(b)) if a.score >= b.score => earlier.next(),
            (Some(_), None) => earlier.next(),
            (_, Some(_)) => {
                later.next().map(|hit| ScoredRow { row: hit.row + first_row, score: hit.score })
            }
            (None, None) => None,
        };
        let Some(next) = next else { break };
        merged.push(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::stride_of;
    use crate::row_norm_upper;
    use crate::sq8::Sq8Matrix;
    use proptest::prelude::*;

    const DIM: usize = 20;

    /// Rows with few different values, so that many scores are equal.
    fn rows(n: usize, mut seed: u64) -> Vec<f16> {
        let stride = stride_of(DIM);
        let mut values = vec![f16::ZERO; n * stride];
        for row in values.chunks_exact_mut(stride) {
            for value in &mut row[..DIM] {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                *value = f16::from_f32(((seed >> 61) as f32 - 3.5) / 4.0);
            }
            if seed.is_multiple_of(3) {
                // One of four rows that come again and again.
                let kind = (seed >> 40) % 4;
                row[..DIM].iter_mut().enumerate().for_each(|(i, value)| {
                    *value = f16::from_f32(((i as u64 + kind) % 5) as f32 / 8.0);
                });
            }
        }
        values
    }

    fn bits(found: &[Vec<ScoredRow>]) -> Vec<Vec<(u32, u32)>> {
        let of =
            |hits: &Vec<ScoredRow>| hits.iter().map(|hit| (hit.row, hit.score.to_bits())).collect();
        found.iter().map(of).collect()
    }

    proptest! {
        /// The rows of one matrix, cut anywhere (into empty shards, too), are searched as a whole.
        #[test]
        fn shards_are_searched_as_one_matrix(
            n in 1usize..400,
            mut cuts in proptest::collection::vec(0usize..400, 0..6),
            seed: u64,
            k in 1usize..60,
            n_queries in 1usize..5,
            masked in proptest::collection::vec(0u8..4, 5),
        ) {
            let values = rows(n, seed);
            let stride = stride_of(DIM);
            let norm = values.chunks_exact(stride).map(row_norm_upper).fold(0.0, f32::max);
            let whole = MatrixView::new(&values, DIM, norm).unwrap();
            let queries: Vec<f32> = rows(n_queries, seed ^ 7)
                .chunks_exact(stride)
                .flat_map(|row| row[..DIM].iter().map(|v| v.to_f32()).collect::<Vec<_>>())
                .collect();
            let batch = QueryBatch::new(&queries, DIM).unwrap();
            // Two masks and none, in any order among the queries.
            let mut half = RowMask::empty(n);
            let is_in = |row: &usize| (row ^ (seed as usize >> 7)).is_multiple_of(3);
            (0..n).filter(is_in).for_each(|row| half.insert(row));
            let none = RowMask::empty(n);
            let masks: Vec<Option<&RowMask>> = masked[..n_queries]
                .iter()
                .map(|kind| match kind { 0 => None, 1 => Some(&none), _ => Some(&half) })
                .collect();
            cuts.iter_mut().for_each(|cut| *cut %= n + 1);
            cuts.sort_unstable();
            let bounds: Vec<usize> = [0].into_iter().chain(cuts).chain([n]).collect();
            let parts: Vec<&[f16]> =
                bounds.windows(2).map(|b| &values[b[0] * stride..b[1] * stride]).collect();
            let copies: Vec<Sq8Matrix> =
                parts.iter().map(|part| Sq8Matrix::of(part, DIM)).collect();
            let expected = Scanner::cpu().top_k_masked(&whole, &batch, k, &masks).unwrap();
            let shards: Vec<MatrixView<'_>> = parts
                .iter()
                .zip(&copies)
                .map(|(part, copy)| {
                    let norm = part.chunks_exact(stride).map(row_norm_upper).fold(0.0, f32::max);
                    MatrixView::new(part, DIM, norm).unwrap().with_sq8(copy.view(DIM))
                })
                .collect();
            let sharded = ShardedMatrix::new(shards).unwrap();
            prop_assert_eq!(sharded.n_rows(), n);
            let found = Scanner::cpu().top_k_sharded(&sharded, &batch, k, &masks).unwrap();
            prop_assert_eq!(bits(&found), bits(&expected));
            let found =
                Scanner::cpu().top_k_sharded(&sharded.without_sq8(), &batch, k, &masks).unwrap();
            prop_assert_eq!(bits(&found), bits(&expected));
            for (i, mask) in masks.iter().enumerate() {
                let naive = sharded.naive_top_k(&queries[i * DIM..(i + 1) * DIM], k, *mask);
                prop_assert_eq!(&bits(&[naive]), &bits(&expected[i..=i]));
            }
            for row in 0..n {
                prop_assert_eq!(sharded.row(row), whole.row(row));
            }
            prop_assert_eq!(sharded.row(n), None);
        }
    }

    #[test]
    fn shards_that_do_not_fit_together_are_refused() {
        let values = vec![f16::ZERO; 64];
        let view = |dim| MatrixView::new(&values, dim, 1.0).unwrap();
        assert!(ShardedMatrix::new(vec![]).is_err());
        let error = ShardedMatrix::new(vec![view(20), view(30)]).unwrap_err();
        assert!(error.to_string().contains("20 and of 30 dimensions"), "{error}");
        let matrix = ShardedMatrix::new(vec![view(20), view(20)]).unwrap();
        assert!(matrix.checked_row(4).is_err());
    }
}
