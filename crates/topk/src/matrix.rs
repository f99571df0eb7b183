//! The matrix of stored vectors: half-precision rows, borrowed from memory or from a mapped file.

use crate::checksums::Checksums;
use crate::layout::{MAX_ROWS, sq8_stride, stride_of};
use crate::sq8::Sq8View;
use half::f16;
use std::sync::Arc;

/// A borrowed matrix of half-precision rows, `[n_rows, stride]`, row-major; columns from `dim` to
/// `stride` are zero.
#[derive(Debug, Clone, Copy)]
pub struct MatrixView<'a> {
    values: &'a [f16],
    n_rows: usize,
    dim: usize,
    max_norm: f32,
    sq8: Option<Sq8View<'a>>,
    owner: Option<&'a Arc<()>>,
    history: &'a [RowsDigest],
    checksums: Option<Checksums<'a>>,
}

/// Identity of the first rows of a matrix: two matrices whose first `n_rows` rows have the same
/// digest have the same rows there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowsDigest {
    /// The number of rows.
    pub n_rows: usize,
    /// Digest of their values.
    pub digest: u64,
}

impl<'a> MatrixView<'a> {
    /// Borrows `values` as `[values.len() / stride_of(dim), stride_of(dim)]`.
    ///
    /// `max_norm` is an upper bound on the Euclidean norm of every row; the scan's error bounds
    /// rest on it. Returns `None` if the length is not a whole number of rows, `dim` is 0, or there
    /// are more than [`MAX_ROWS`] rows.
    pub fn new(values: &'a [f16], dim: usize, max_norm: f32) -> Option<Self> {
        let stride = stride_of(dim);
        if dim == 0 || !values.len().is_multiple_of(stride) {
            return None;
        }
        let n_rows = values.len() / stride;
        let (sq8, owner, checksums) = (None, None, None);
        let view = Self { values, n_rows, dim, max_norm, sq8, owner, history: &[], checksums };
        (n_rows as u64 <= MAX_ROWS).then_some(view)
    }

    /// Adds the int8 copy, which must have been made from the same rows. A copy whose number or
    /// length of rows differs is ignored.
    pub fn with_sq8(self, sq8: Option<Sq8View<'a>>) -> Self {
        let fits =
            |p: &Sq8View<'_>| p.scales().len() == self.n_rows && p.stride() == sq8_stride(self.dim);
        Self { sq8: sq8.filter(fits), ..self }
    }

    /// Adds checksums, with which rows and their int8 copy are compared before they are used.
    /// Checksums of another number of rows are ignored.
    pub fn with_checksums(self, checksums: Option<Checksums<'a>>) -> Self {
        Self { checksums: checksums.filter(|c| c.rows.len() == self.n_rows), ..self }
    }

    /// Promises that the values do not change as long as `owner` lives, so that a GPU may keep a
    /// copy of them until then. `history` identifies the first rows at ascending numbers of rows,
    /// last at all of them: a GPU that holds a prefix copies only the rest. It may be empty.
    pub fn with_owner(self, owner: &'a Arc<()>, history: &'a [RowsDigest]) -> Self {
        Self { owner: Some(owner), history, ..self }
    }

    /// Returns the identity of the first rows; see [`MatrixView::with_owner`].
    pub fn history(&self) -> &'a [RowsDigest] {
        self.history
    }

    /// Returns the owner; see [`MatrixView::with_owner`].
    pub fn owner(&self) -> Option<&'a Arc<()>> {
        self.owner
    }

    /// Returns the int8 copy, if there is one.
    pub fn sq8(&self) -> Option<Sq8View<'a>> {
        self.sq8
    }

    /// Returns the number of rows.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Returns the number of values of a row without padding.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Returns the number of values from the start of one row to the next.
    pub fn stride(&self) -> usize {
        stride_of(self.dim)
    }

    /// Returns an upper bound on the Euclidean norm of every row.
    pub fn max_norm(&self) -> f32 {
        self.max_norm
    }

    /// Returns one row with its padding, `[stride]`, or `None` past the end.
    pub fn row(&self, row: usize) -> Option<&'a [f16]> {
        let start = row.checked_mul(self.stride())?;
        self.values.get(start..start.checked_add(self.stride())?)
    }

    /// Returns the checksums, if there are any.
    pub(crate) fn checksums(&self) -> Option<&Checksums<'a>> {
        self.checksums.as_ref()
    }

    /// Returns all values, `[n_rows, stride]`.
    pub fn values(&self) -> &'a [f16] {
        self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn view_of_a_partial_row_is_refused() {
        let values = vec![f16::ZERO; 33];
        assert!(MatrixView::new(&values, 32, 1.0).is_none());
        assert!(MatrixView::new(&values[..32], 0, 1.0).is_none());
        assert_eq!(MatrixView::new(&values[..32], 20, 1.0).map(|m| m.n_rows()), Some(1));
    }
}
