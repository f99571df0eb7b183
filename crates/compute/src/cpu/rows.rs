//! The left operand of a product: rows in memory.

use super::{CACHE_LINE, PANEL};

/// The kernels multiply a multiple of this many rows.
pub const ROW_STEP: usize = 16;

/// Rows at equal distances.
#[derive(Debug, Clone, Copy)]
pub struct OperandRows<'a, T> {
    /// The first row begins at the first value.
    pub values: &'a [T],
    /// Values from one row to the next.
    pub stride: usize,
    /// Number of rows.
    pub n: usize,
    /// Values of a row that are multiplied: whole cache lines.
    pub length: usize,
}

impl<'a, T> OperandRows<'a, T> {
    /// Returns row `i`, `[length]`.
    pub fn row(self, i: usize) -> &'a [T]
    where
        T: Copy,
    {
        &self.values[i * self.stride..][..self.length]
    }

    /// Checks that rows, panels of `panels` values and lines of products fit together, up to the
    /// next multiple of [`ROW_STEP`] rows.
    ///
    /// # Panics
    ///
    /// If they do not.
    pub(super) fn check(&self, panels: usize, products: usize, stride: usize) {
        let last = self.n.next_multiple_of(ROW_STEP) - 1;
        let end = |stride: usize, width: usize| last.checked_mul(stride)?.checked_add(width);
        let fits = |end: Option<usize>, len: usize| end.is_some_and(|end| end <= len);
        let (length, columns) = (self.length, panels / self.length.max(1));
        assert!(
            (1..=panels).contains(&length)
                && (length * size_of::<T>()).is_multiple_of(CACHE_LINE)
                && fits(end(self.stride, length), self.values.len())
                && panels.is_multiple_of(length)
                && columns.is_multiple_of(PANEL)
                && columns <= stride
                && fits(end(stride, columns), products),
            "rows, panels and products must fit together"
        );
    }
}
