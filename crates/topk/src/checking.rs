//! Comparing rows with their checksums; see [`crate::checksums`].

use crate::checksums::{CheckedFile, Checksums, RowChecksum};
use crate::error::{Error, Result};
use crate::layout::as_bytes;
use crate::mask::RowMask;
use crate::matrix::MatrixView;
use crate::sq8::{Sq8Matrix, Sq8View};
use half::f16;
use std::sync::atomic::Ordering;
use xxhash_rust::xxh3::xxh3_64;

impl<'a> MatrixView<'a> {
    /// Returns one row with its padding, `[stride]`, after comparing it with its checksum if there
    /// is one.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if it is damaged, [`Error::Usage`] past the end.
    pub fn checked_row(&self, row: usize) -> Result<&'a [f16]> {
        let Some(values) = self.row(row) else {
            let n = self.n_rows();
            return Err(Error::usage(format!("there is no row {row}: the index has {n} rows")));
        };
        match self.checksums() {
            Some(checksums) if !checksums.is_row_right(self, row) => Err(checksums.damaged(row)),
            _ => Ok(values),
        }
    }

    /// Compares the rows of `mask`, by default all, with their checksums if there are any.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] naming a damaged row.
    pub fn check_rows(&self, mask: Option<&RowMask>) -> Result<()> {
        self.checksums().map_or(Ok(()), |checksums| checksums.check_rows(self, mask))
    }

    /// Returns the matrix with its int8 copy only if the copy's rows in `mask`, by default all, are
    /// those of their checksums.
    pub(crate) fn with_right_sq8(self, mask: Option<&RowMask>) -> Self {
        let is_right = self.checksums().is_none_or(|c| c.is_int8_right(&self, mask));
        if is_right { self } else { self.with_sq8(None) }
    }
}

impl Checksums<'_> {
    /// Compares all half-precision rows of `mask`, by default all, that were not compared yet.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] naming a damaged row.
    pub(crate) fn check_rows(&self, matrix: &MatrixView<'_>, mask: Option<&RowMask>) -> Result<()> {
        let f16 = &self.checked.f16;
        f16.check(mask, |row| self.is_f16_right(matrix, row)).map_err(|row| self.damaged(row))
    }

    /// Compares a half-precision row unless that was done before. Returns false if it is damaged.
    pub(crate) fn is_row_right(&self, matrix: &MatrixView<'_>, row: usize) -> bool {
        let f16 = &self.checked.f16;
        let is_right = f16.contains(row) || self.is_f16_right(matrix, row);
        if is_right {
            f16.insert(row);
        }
        is_right
    }

    /// The error of a damaged half-precision row.
    pub(crate) fn damaged(&self, row: usize) -> Error {
        let CheckedFile { path, remedy } = &self.checked.files[0];
        Error::corrupt(path, format!("row {row} is damaged (its checksum differs); {remedy}"))
    }

    /// Compares the int8 rows of `mask`, by default all, that were not compared yet. Returns false
    /// if one is damaged; the first time, a warning names it.
    pub(crate) fn is_int8_right(&self, matrix: &MatrixView<'_>, mask: Option<&RowMask>) -> bool {
        let Some(sq8) = matrix.sq8() else { return true };
        let is_damaged = &self.checked.int8_is_damaged;
        if is_damaged.load(Ordering::Relaxed) {
            return false;
        }
        let is_right = |row| self.is_int8_row_right(matrix, &sq8, row);
        let outcome = self.checked.int8.check(mask, is_right);
        if let Err(row) = outcome
            && !is_damaged.swap(true, Ordering::Relaxed)
        {
            let CheckedFile { path, remedy } = &self.checked.files[1];
            tracing::warn!(
                "{}: row {row} of the int8 copy is damaged (its checksum differs); {remedy}. \
                 Searches are slower without this file, and find the same",
                path.display()
            );
        }
        outcome.is_ok()
    }

    fn is_f16_right(&self, matrix: &MatrixView<'_>, row: usize) -> bool {
        let Some(values) = matrix.row(row) else { return false };
        if RowChecksum::of_f16(values) == self.rows[row].f16 || self.checked.f16.contains(row) {
            return true;
        }
        // Either the row is damaged or its checksum. The checksum of the whole block tells.
        let at = self.blocks.partition_point(|block| block.first_row <= row);
        let Some(block) = at.checked_sub(1).map(|at| self.blocks[at]) else { return false };
        let (start, end) = (block.first_row, block.first_row.saturating_add(block.n_rows));
        let stride = matrix.stride();
        let Some(values) = matrix.values().get(start * stride..end.saturating_mul(stride)) else {
            return false;
        };
        let is_right = xxh3_64(as_bytes(values)) == block.checksum;
        if is_right {
            (start..end).for_each(|row| self.checked.f16.insert(row));
            self.warn_of_checksums(row);
        }
        is_right
    }

    fn is_int8_row_right(&self, matrix: &MatrixView<'_>, sq8: &Sq8View<'_>, row: usize) -> bool {
        if RowChecksum::of_int8(sq8, row) == self.rows[row].int8 {
            return true;
        }
        let Some(values) = matrix.row(row) else { return false };
        let again = Sq8Matrix::of(values, matrix.dim());
        let is_right = again.values == sq8.row(row)
            && as_bytes(&again.scales) == as_bytes(&sq8.scales()[row..=row])
            && self.is_row_right(matrix, row);
        if is_right {
            self.warn_of_checksums(row);
        }
        is_right
    }

    fn warn_of_checksums(&self, row: usize) {
        if !self.checked.checksums_are_damaged.swap(true, Ordering::Relaxed) {
            let CheckedFile { path, remedy } = &self.checked.files[2];
            tracing::warn!(
                "{}: the checksum of row {row} is damaged, and the row is right; {remedy}",
                path.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksums::{BlockChecksum, CheckedRows, RowBits};
    use crate::layout::stride_of;
    use crate::oracle::naive_top_k;
    use crate::scanner::{QueryBatch, Scanner};
    use proptest::prelude::*;

    const DIM: usize = 70;

    /// Rows with their int8 copy and checksums, any byte of which can be damaged.
    #[derive(Clone)]
    struct Files {
        rows: Vec<f16>,
        sq8: Sq8Matrix,
        checksums: Vec<RowChecksum>,
        blocks: Vec<BlockChecksum>,
    }

    impl Files {
        fn new(n_rows: usize) -> Self {
            let stride = stride_of(DIM);
            let value = |i: usize| match i % stride {
                column if column < DIM => f16::from_f32((i as f32 * 0.37).sin()),
                _ => f16::ZERO,
            };
            let rows: Vec<f16> = (0..n_rows * stride).map(value).collect();
            let sq8 = Sq8Matrix::of(&rows, DIM);
            let checksums = RowChecksum::of_rows(&rows, stride, sq8.view(DIM).as_ref());
            let half = n_rows / 2;
            let block = |first_row: usize, n_rows: usize| {
                let values = &rows[first_row * stride..(first_row + n_rows) * stride];
                BlockChecksum { first_row, n_rows, checksum: xxh3_64(as_bytes(values)) }
            };
            let blocks = vec![block(0, half), block(half, n_rows - half)];
            Self { rows, sq8, checksums, blocks }
        }

        fn view<'a>(&'a self, checked: &'a CheckedRows) -> MatrixView<'a> {
            let checksums = Checksums { rows: &self.checksums, blocks: &self.blocks, checked };
            let view = MatrixView::new(&self.rows, DIM, 100.0).unwrap();
            view.with_sq8(self.sq8.view(DIM)).with_checksums(Some(checksums))
        }
    }

    fn unchecked(n_rows: usize) -> CheckedRows {
        let file = |name: &str| CheckedFile { path: name.into(), remedy: "restore it" };
        CheckedRows::new(n_rows, ["rows", "int8", "checksums"].map(file))
    }

    fn scan(matrix: &MatrixView<'_>, mask: Option<&RowMask>) -> Result<Vec<u32>> {
        let query: Vec<f32> = (0..DIM).map(|i| (i as f32).cos()).collect();
        let batch = QueryBatch::new(&query, DIM)?;
        let found = Scanner::cpu().top_k(matrix, &batch, 5, mask)?;
        Ok(found[0].iter().map(|hit| hit.row).collect())
    }

    proptest! {
        #[test]
        fn a_damaged_byte_never_changes_an_answer(
            n_rows in 6usize..200, part in 0usize..4, at: usize, bit in 0u32..8, masked: bool,
        ) {
            let whole = Files::new(n_rows);
            let mut files = whole.clone();
            let flip = 1u8 << bit;
            match part {
                0 => {
                    let at = at % files.rows.len();
                    let changed = files.rows[at].to_bits() ^ u16::from(flip) << 8;
                    files.rows[at] = f16::from_bits(changed);
                }
                1 => {
                    let at = at % files.sq8.values.len();
                    files.sq8.values[at] ^= flip.cast_signed();
                }
                2 => {
                    let scale = &mut files.sq8.scales[at % n_rows];
                    scale.scale = f32::from_bits(scale.scale.to_bits() ^ u32::from(flip) << 24);
                }
                _ => files.checksums[at % n_rows].f16 ^= u32::from(flip) << 8,
            }
            let mut mask = RowMask::full(n_rows);
            (0..n_rows).step_by(3).for_each(|row| mask.remove(row));
            let mask = masked.then_some(&mask);
            let (checked, right) = (unchecked(n_rows), unchecked(n_rows));
            let expected = scan(&whole.view(&right), mask).unwrap();
            for _ in 0..2 {
                match scan(&files.view(&checked), mask) {
                    Ok(found) => prop_assert_eq!(&found, &expected),
                    Err(e) => {
                        prop_assert_eq!(part, 0);
                        let message = e.to_string();
                        let row = at % files.rows.len() / stride_of(DIM);
                        let named = format!("rows: row {row} is damaged");
                        prop_assert!(message.starts_with(&named));
                    }
                }
            }
            let all = files.view(&checked).check_rows(None);
            prop_assert_eq!(all.is_err(), part == 0);
            if part == 0 {
                let row = at % files.rows.len() / stride_of(DIM);
                prop_assert!(files.view(&checked).checked_row(row).is_err());
            }
        }

        #[test]
        fn rows_of_earlier_snapshots_stay_checked(
            before in 1usize..300, after in 1usize..300, row in 0usize..300,
        ) {
            let (old, new) = (RowBits::new(before), RowBits::new(after));
            old.check(None, |_| true).unwrap();
            new.take_over(&old);
            prop_assert_eq!(new.contains(row), row < before.min(after));
            let mut seen: Vec<usize> = Vec::new();
            let seen_rows = std::sync::Mutex::new(&mut seen);
            new.check(None, |row| { seen_rows.lock().unwrap().push(row); true }).unwrap();
            seen.sort_unstable();
            prop_assert_eq!(seen, (before.min(after)..after).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_undamaged_matrix_gives_the_answer_of_the_oracle() {
        let files = Files::new(150);
        let checked = unchecked(150);
        let view = files.view(&checked);
        let query: Vec<f32> = (0..DIM).map(|i| (i as f32).cos()).collect();
        let expected: Vec<u32> =
            naive_top_k(&view, &query, 5, None).iter().map(|hit| hit.row).collect();
        assert_eq!(scan(&view, None).unwrap(), expected);
        assert!(checked.int8.is_full.load(Ordering::Relaxed));
        assert!(view.check_rows(None).is_ok());
    }
}
