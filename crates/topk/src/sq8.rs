//! The int8 copy of a matrix (sq8, scalar quantization to 8 bits) with the quantization error of
//! each row.
//!
//! A row `r` becomes integers `i` and a scale `s` with `s i` close to `r`. Its residual is an upper
//! bound on the Euclidean norm of the error `r - s i`. By the Cauchy-Schwarz inequality, the inner
//! product of any query `q` with `r` differs from that with `s i` by at most `|q|` times the
//! residual. So a scan of the integers finds every row that can be among the best, and only those
//! are rescored.

use crate::layout::{Stored, round_up_f32, sq8_stride, stride_of};
use half::f16;
use half::slice::HalfFloatSliceExt;

/// The largest magnitude of an int8 value.
pub const QMAX: i32 = 127;

/// Scale, residual and sum of one int8 row, in the layout of the file.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct RowScale {
    /// The value of integer 1.
    pub scale: f32,
    /// Upper bound on the norm of (row - scale x integers).
    pub residual: f32,
    /// Sum of the integers, for the zero point of queries.
    pub sum: i32,
}

// SAFETY: three numbers of four bytes, one after the other.
unsafe impl Stored for RowScale {}

impl RowScale {
    /// True if a row of `dim` half-precision values can have this scale.
    pub fn is_possible(&self, dim: usize) -> bool {
        // Half a step a component, as in the residual of any rounding to the nearest.
        let largest = f64::from(self.scale) * (dim as f64).sqrt();
        (0.0..=f32::from(f16::MAX)).contains(&self.scale)
            && (0.0..=largest).contains(&f64::from(self.residual))
            && i64::from(self.sum).unsigned_abs() <= QMAX as u64 * dim as u64
    }
}

/// A borrowed int8 copy: `[n_rows, sq8_stride(dim)]` integers, row-major, and one [`RowScale`] per
/// row.
#[derive(Debug, Clone, Copy)]
pub struct Sq8View<'a> {
    values: &'a [i8],
    scales: &'a [RowScale],
    stride: usize,
}

impl<'a> Sq8View<'a> {
    /// Borrows the int8 copy of a matrix with `n_rows` rows of `dim` values. Returns `None` if the
    /// lengths do not fit.
    pub fn new(
        values: &'a [i8],
        scales: &'a [RowScale],
        n_rows: usize,
        dim: usize,
    ) -> Option<Self> {
        let stride = sq8_stride(dim);
        (dim > 0 && scales.len() == n_rows && values.len() == n_rows.checked_mul(stride)?)
            .then_some(Self { values, scales, stride })
    }

    /// Returns the number of values from the start of one row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Returns all integers, `[n_rows, stride]`.
    pub fn values(&self) -> &'a [i8] {
        self.values
    }

    /// Returns the integers of one row, `[stride]`.
    pub(crate) fn row(&self, row: usize) -> &'a [i8] {
        &self.values[row * self.stride..(row + 1) * self.stride]
    }

    /// Returns the scale of every row, `[n_rows]`.
    pub fn scales(&self) -> &'a [RowScale] {
        self.scales
    }
}

/// An owned int8 copy.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sq8Matrix {
    /// `[n_rows, sq8_stride(dim)]`, row-major.
    pub values: Vec<i8>,
    /// One per row.
    pub scales: Vec<RowScale>,
}

impl Sq8Matrix {
    /// Quantizes half-precision rows, `[n, stride_of(dim)]`.
    pub fn of(rows: &[f16], dim: usize) -> Self {
        let mut sq8 = Self::default();
        let mut decoded = vec![0f32; dim];
        for row in rows.chunks_exact(stride_of(dim)) {
            row[..dim].convert_to_f32_slice(&mut decoded);
            sq8.push(&decoded);
        }
        sq8
    }

    /// Borrows the copy for a matrix with rows of `dim` values.
    pub fn view(&self, dim: usize) -> Option<Sq8View<'_>> {
        Sq8View::new(&self.values, &self.scales, self.scales.len(), dim)
    }

    /// Quantizes and appends a row of half-precision values.
    fn push(&mut self, row: &[f32]) {
        // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
        const ROUND: f32 = 12_582_912.0;
        let largest = row.iter().fold(0f32, |m, v| m.max(v.abs()));
        // A half-precision value is zero or at least 2^-24, so a 127th of it is a normal float32.
        let scale = largest / QMAX as f32;
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let start = self.values.len();
        self.values.resize(start + sq8_stride(row.len()), 0);
        let values = &mut self.values[start..start + row.len()];
        for (value, row) in values.iter_mut().zip(row) {
            // Never beyond 127: the largest quotient is at most 127 (1 + 2^-22). The residual below
            // is that of the chosen integers.
            *value = (row * inverse + ROUND - ROUND) as i8;
        }
        // Products are exact; a difference has a relative error of 2^-53.
        let squares: f64 = (values.iter().zip(row))
            .map(|(i, r)| (f64::from(*r) - f64::from(scale) * f64::from(*i)).powi(2))
            .sum();
        let sum = values.iter().map(|&v| i32::from(v)).sum();
        // As in `row_norm_upper`, with room for the rounding errors of the differences.
        let residual = round_up_f32(squares.sqrt() * (1.0 + 1e-9));
        self.scales.push(RowScale { scale, residual, sum });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn residual_is_never_below_the_true_one(
            bits in proptest::collection::vec(0u16.., 1..200),
        ) {
            let halves = bits.into_iter().map(f16::from_bits).filter(|v| v.is_finite());
            let row: Vec<f32> = halves.map(f16::to_f32).collect();
            prop_assume!(!row.is_empty());
            let mut sq8 = Sq8Matrix::default();
            sq8.push(&row);
            let RowScale { scale, residual, sum } = sq8.scales[0];
            let mut squares = 0f64;
            for (v, i) in row.iter().zip(&sq8.values) {
                squares += (f64::from(*v) - f64::from(scale) * f64::from(*i)).powi(2);
            }
            prop_assert!(f64::from(residual) >= squares.sqrt());
            prop_assert!(f64::from(residual) <= squares.sqrt() * (1.0 + 1e-6) + 1e-44);
            // Half a step a component, and the rounding of the step itself.
            let steps = f64::from(scale) * (0.5 + 1e-4) * (row.len() as f64).sqrt();
            prop_assert!(squares.sqrt() <= steps);
            let true_sum: i32 = sq8.values.iter().map(|&v| i32::from(v)).sum();
            prop_assert_eq!(sum, true_sum);
        }
    }

    #[test]
    fn prefilter_of_zero_rows_is_zero() {
        let sq8 = Sq8Matrix::of(&[f16::ZERO; 96], 70);
        assert_eq!(sq8.scales, [RowScale::default()]);
        assert_eq!(sq8.values, [0; 128]);
        assert!(sq8.view(70).is_some() && sq8.view(129).is_none());
    }
}
