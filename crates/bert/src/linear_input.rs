//! Inputs of linear layers in bfloat16 or int8. Rows are padded with zeros to whole cache lines;
//! there is room for the rows that products are rounded up to.

use crate::vector_ops::RowQuant;
use std::ops::Range;
use warpseek_compute::cpu::{AlignedVec, CACHE_LINE, OperandRows, PlainNumber, ROW_STEP};

/// Inputs in the element type of the layer that takes them; see [`crate::linear::Linear::set_row`].
#[derive(Debug, Default)]
pub(crate) struct LayerInput {
    pub(crate) rounded: RoundedRows,
    pub(crate) quantized: QuantizedRows,
}

/// Rows of bfloat16.
#[derive(Debug, Default)]
pub(crate) struct RoundedRows {
    values: AlignedVec<u16>,
    n: usize,
    /// Values of a row, without and with padding.
    width: usize,
    stride: usize,
}

impl RoundedRows {
    /// Makes room for `n` rows of `width` values.
    pub(crate) fn resize(&mut self, n: usize, width: usize) {
        let stride = width.next_multiple_of(CACHE_LINE / 2);
        reserve(&mut self.values, n * stride, stride, self.width != width);
        (self.n, self.width, self.stride) = (n, width, stride);
    }

    /// Returns the number of rows.
    pub(crate) fn len(&self) -> usize {
        self.n
    }

    /// Returns some rows as the left operand of a product.
    pub(crate) fn rows(&self, range: Range<usize>) -> OperandRows<'_, u16> {
        let values = &self.values[range.start * self.stride..];
        OperandRows { values, stride: self.stride, n: range.len(), length: self.stride }
    }

    /// Returns a row to be written, without its padding.
    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [u16] {
        &mut self.values[row * self.stride..][..self.width]
    }

    /// Returns all rows to be written, and the values from one to the next.
    pub(crate) fn values_mut(&mut self) -> (&mut [u16], usize) {
        (&mut self.values, self.stride)
    }
}

/// Rows of int8: the quantization groups end to end, each padded.
#[derive(Debug, Default)]
pub(crate) struct QuantizedRows {
    values: AlignedVec<i8>,
    stride: usize,
    n: usize,
    /// The quantization of each row, group by group, `[groups, n]`.
    quants: Vec<RowQuant>,
}

impl QuantizedRows {
    /// Makes room for `n` rows of `length` values in `groups` quantization groups.
    pub(crate) fn resize(&mut self, n: usize, length: usize, groups: usize) {
        reserve(&mut self.values, n * length, length, self.stride != length);
        (self.n, self.stride) = (n, length);
        self.quants.resize(groups * n, RowQuant::default());
    }

    /// Returns the group of some rows as the left operand of a product, `length` values each, and
    /// their quantization. All groups but the last have the same length.
    pub(crate) fn rows(
        &self,
        range: Range<usize>,
        group: usize,
        length: usize,
    ) -> (OperandRows<'_, i8>, &[RowQuant]) {
        // The last group can be shorter, and ends the row.
        let groups = self.quants.len() / self.n;
        let start = if group + 1 == groups { self.stride - length } else { group * length };
        let values = &self.values[range.start * self.stride + start..];
        let rows = OperandRows { values, stride: self.stride, n: range.len(), length };
        (rows, &self.quants[group * self.n..][range])
    }

    /// Returns the `length` values from `start` on of a row to be written, and the quantization of
    /// the group that they are.
    pub(crate) fn group_mut(
        &mut self,
        row: usize,
        group: usize,
        start: usize,
        length: usize,
    ) -> (&mut [i8], &mut RowQuant) {
        let values = &mut self.values[row * self.stride + start..][..length];
        (values, &mut self.quants[group * self.n + row])
    }
}

/// Makes room for `len` values and for [`ROW_STEP`] more rows. `is_other` rows would not have zeros
/// where the padding is.
fn reserve<T: PlainNumber>(values: &mut AlignedVec<T>, len: usize, stride: usize, is_other: bool) {
    if is_other {
        values.fill_zero();
    }
    values.resize(values.len().max(len + ROW_STEP * stride));
}
