//! The prefilter: every row once more in 8 bits, with what bounds the difference.
//!
//! A row `r` becomes integers `i` and a scale `s`, so that `s i` lies near `r`; its residual is an upper bound
//! on the Euclidean norm of `r - s i`. By the inequality of Cauchy and Schwarz the inner product
//! of any `q` with `r` lies within `|q|` times the residual of that with `s i`. The scan computes in
//! integers, and looks at the row itself only where that bound leaves the answer open.

use super::matrix::{round_up_f32, stride_of};
use half::f16;
use half::slice::HalfFloatSliceExt;

/// The largest magnitude of a prefilter value.
pub const LEVELS: i32 = 127;

/// Values a prefilter row occupies are padded with zeros to a multiple of this: one cache line, one
/// row of a matrix tile.
pub const PREFILTER_MULTIPLE: usize = 64;

/// The values between the starts of two prefilter rows: `dim` rounded up to [`PREFILTER_MULTIPLE`].
pub const fn prefilter_stride(dim: usize) -> usize {
    dim.next_multiple_of(PREFILTER_MULTIPLE)
}

/// What belongs to a prefilter row beside its integers, as it stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct RowScale {
    /// What an integer counts.
    pub scale: f32,
    /// An upper bound on the norm of the difference between the row and its integers times the scale.
    pub residual: f32,
    /// The sum of the integers.
    pub sum: i32,
}

/// A borrowed prefilter of a matrix: `[n_rows, prefilter_stride(dim)]` integers, row-major, and a scale
/// a row.
#[derive(Debug, Clone, Copy)]
pub struct PrefilterView<'a> {
    values: &'a [i8],
    scales: &'a [RowScale],
    stride: usize,
}

impl<'a> PrefilterView<'a> {
    /// Views the prefilter of a matrix of `n_rows` rows of `dim` values; none where the lengths do
    /// not fit.
    pub fn new(
        values: &'a [i8],
        scales: &'a [RowScale],
        n_rows: usize,
        dim: usize,
    ) -> Option<Self> {
        let stride = prefilter_stride(dim);
        (dim > 0 && scales.len() == n_rows && values.len() == n_rows.checked_mul(stride)?)
            .then_some(Self { values, scales, stride })
    }

    /// The number of values between the starts of two rows.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// All integers, `[n_rows * stride]`.
    pub fn values(&self) -> &'a [i8] {
        self.values
    }

    /// The scale of every row.
    pub fn scales(&self) -> &'a [RowScale] {
        self.scales
    }
}

/// A prefilter in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prefilter {
    /// `[n_rows, prefilter_stride(dim)]`, row-major.
    pub values: Vec<i8>,
    /// One a row.
    pub scales: Vec<RowScale>,
}

impl Prefilter {
    /// Rounds half-precision rows, `[n, stride_of(dim)]`.
    pub fn of(rows: &[f16], dim: usize) -> Self {
        let mut prefilter = Self::default();
        let mut decoded = vec![0f32; dim];
        for row in rows.chunks_exact(stride_of(dim)) {
            row[..dim].convert_to_f32_slice(&mut decoded);
            prefilter.push(&decoded);
        }
        prefilter
    }

    /// The prefilter as the scan takes it, for a matrix with rows of `dim` values.
    pub fn view(&self, dim: usize) -> Option<PrefilterView<'_>> {
        PrefilterView::new(&self.values, &self.scales, self.scales.len(), dim)
    }

    /// Takes in a row that half precision holds.
    fn push(&mut self, row: &[f32]) {
        // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
        const ROUND: f32 = 12_582_912.0;
        let largest = row.iter().fold(0f32, |m, v| m.max(v.abs()));
        // A half is zero or at least 2^-24, so that its 127th part is a normal float32.
        let scale = largest / LEVELS as f32;
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let start = self.values.len();
        self.values.resize(start + prefilter_stride(row.len()), 0);
        let values = &mut self.values[start..start + row.len()];
        for (value, row) in values.iter_mut().zip(row) {
            // Never beyond 127: the quotient of the largest is 127 (1 + 2^-22) at most. Whichever integer
            // is taken, the residual below is that of the one that was.
            *value = (row * inverse + ROUND - ROUND) as i8;
        }
        // Exact products; a difference carries a relative error of 2^-53.
        let squares: f64 = (values.iter().zip(row))
            .map(|(i, r)| (f64::from(*r) - f64::from(scale) * f64::from(*i)).powi(2))
            .sum();
        let sum = values.iter().map(|&v| i32::from(v)).sum();
        // As in `row_norm_upper`, with room for the roundings of the differences.
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
            let mut prefilter = Prefilter::default();
            prefilter.push(&row);
            let RowScale { scale, residual, sum } = prefilter.scales[0];
            let mut squares = 0f64;
            for (v, i) in row.iter().zip(&prefilter.values) {
                squares += (f64::from(*v) - f64::from(scale) * f64::from(*i)).powi(2);
            }
            prop_assert!(f64::from(residual) >= squares.sqrt());
            prop_assert!(f64::from(residual) <= squares.sqrt() * (1.0 + 1e-6) + 1e-44);
            // Half a step a component, and the rounding of the step itself.
            let steps = f64::from(scale) * (0.5 + 1e-4) * (row.len() as f64).sqrt();
            prop_assert!(squares.sqrt() <= steps);
            let true_sum: i32 = prefilter.values.iter().map(|&v| i32::from(v)).sum();
            prop_assert_eq!(sum, true_sum);
        }
    }

    #[test]
    fn prefilter_of_zero_rows_is_zero() {
        let prefilter = Prefilter::of(&[f16::ZERO; 96], 70);
        assert_eq!(prefilter.scales, [RowScale::default()]);
        assert_eq!(prefilter.values, [0; 128]);
        assert!(prefilter.view(70).is_some() && prefilter.view(129).is_none());
    }
}
