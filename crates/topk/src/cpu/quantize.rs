//! Quantized queries, and the error bound between integer scores and canonical scores.
//!
//! A query `q` becomes two int8 vectors with a scale each: the high part `q1`, the rounded query,
//! and the low part `q2`, the rounded remainder. With the row `r`, its integers `i`, scale `s` and
//! residual `rho` (see [`crate::sq8`]), the dequantized row `r^ = s i` and the dequantized query
//! `q^`,
//!
//! ```text
//! q.r = q^.r^ + q^.(r - r^) + (q - q^).r
//! |q.r - q^.r^| <= |q^| rho + |q - q^| |r|
//! ```
//!
//! by the Cauchy-Schwarz inequality. The scan first computes `s t1 (q1.i)`, with `q^ = t1 q1`. For
//! a row that passes the gate it adds the low part, `q^ = t1 q1 + t2 q2`, which leaves nearly
//! nothing of the second term.

use crate::matrix::MatrixView;
use crate::sq8::{RowScale, Sq8View};
use warpseek_compute::cpu::{AlignedVec, PANEL};

/// The integers of quantized queries, as the kernels of a tier take them.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueryFormat {
    /// Largest magnitude of the integers.
    pub(super) qmax: i32,
    /// True if panels hold signed bytes. All else is stored as unsigned bytes with the zero point
    /// `qmax + 1` added.
    pub(super) has_signed_panels: bool,
    /// The largest batch whose queries are contiguous vectors (GEMV), not lanes of packed panels
    /// (GEMM).
    pub(super) few: usize,
}

/// The quantized queries of a batch.
pub(super) struct QuantizedQueries {
    /// High parts, `[n, stride]`; only for few queries.
    high: AlignedVec<u8>,
    /// High parts in packed panels, `[stride / 4][PANEL][4]` each; only for more queries.
    panels: AlignedVec<u8>,
    /// Low parts, `[n, stride]`.
    low: AlignedVec<u8>,
    bounds: Vec<QueryBounds>,
    stride: usize,
    /// Zero points of the high and the low parts.
    zero_points: [i32; 2],
}

/// The terms that turn integer scores of one query into bounds on the canonical score.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueryBounds {
    /// Scales of the high and the low part.
    scales: [f64; 2],
    /// Norms of the dequantized query: high part alone, both parts.
    norms: [f64; 2],
    /// Error of any row beside the term of its residual: high part alone, both parts.
    slacks: [f64; 2],
}

impl QuantizedQueries {
    /// Quantizes `queries`, `[n, matrix.stride()]`.
    pub(super) fn new(
        queries: &[f32],
        matrix: &MatrixView<'_>,
        sq8: &Sq8View<'_>,
        format: QueryFormat,
    ) -> Self {
        let stride = sq8.stride();
        let n = queries.len() / matrix.stride();
        let is_packed = n > format.few;
        let low_zero = format.qmax + 1;
        let high_zero = if is_packed && format.has_signed_panels { 0 } else { low_zero };
        let n_panels = if is_packed { n.div_ceil(PANEL) } else { 0 };
        let mut this = Self {
            high: filled(high_zero as u8, if is_packed { 0 } else { n * stride }),
            panels: filled(high_zero as u8, n_panels * PANEL * stride),
            low: filled(low_zero as u8, n * stride),
            bounds: Vec::with_capacity(n),
            stride,
            zero_points: [high_zero, low_zero],
        };
        let (high, low) = (&mut *this.high, &mut *this.low);
        let panels = &mut *this.panels;
        for (q, query) in queries.chunks_exact(matrix.stride()).enumerate() {
            let parts = Parts::of(&query[..matrix.dim()], format.qmax);
            let lane = q / PANEL * PANEL * stride + q % PANEL * 4;
            let stored = |integers: &[i8; 4], zero: i32| {
                integers.map(|integer| integer.cast_unsigned().wrapping_add(zero as u8))
            };
            let [highs, lows] = parts.integers.each_ref().map(|part| part.as_chunks::<4>().0);
            for (i, (highs, lows)) in highs.iter().zip(lows).enumerate() {
                let place = match n_panels {
                    0 => &mut high[q * stride + 4 * i..][..4],
                    _ => &mut panels[lane + i * PANEL * 4..][..4],
                };
                place.copy_from_slice(&stored(highs, high_zero));
                low[q * stride + 4 * i..][..4].copy_from_slice(&stored(lows, low_zero));
            }
            this.bounds.push(parts.bounds(matrix.max_norm()));
        }
        this
    }

    pub(super) fn len(&self) -> usize {
        self.bounds.len()
    }

    /// True if the high parts are packed into panels.
    pub(super) fn is_packed(&self) -> bool {
        !self.panels.is_empty()
    }

    /// Returns the zero points of the high and the low parts. A product of the stored bytes is too
    /// large by the zero point times the sum of the row's integers.
    pub(super) fn zero_points(&self) -> [i32; 2] {
        self.zero_points
    }

    pub(super) fn bounds(&self, query: usize) -> &QueryBounds {
        &self.bounds[query]
    }

    /// Returns a query's high part, `[stride]`, in a batch of few.
    pub(super) fn high(&self, query: usize) -> &[u8] {
        &self.high[query * self.stride..(query + 1) * self.stride]
    }

    /// Returns a query's low part, `[stride]`.
    pub(super) fn low(&self, query: usize) -> &[u8] {
        &self.low[query * self.stride..(query + 1) * self.stride]
    }

    /// Yields the packed high parts of up to `lanes` queries at a time, a multiple of [`PANEL`].
    pub(super) fn panels(&self, lanes: usize) -> impl Iterator<Item = &[u8]> {
        self.panels.chunks(lanes * self.stride)
    }
}

/// Returns `len` times `value`.
fn filled(value: u8, len: usize) -> AlignedVec<u8> {
    let mut values = AlignedVec::zeros(len);
    values.fill(value);
    values
}

/// 1.5 * 2^52: adding and subtracting it rounds a float64 to the nearest integer.
const ROUND: f64 = 6_755_399_441_055_744.0;

/// Values that are summed or compared side by side, which the compiler vectorises.
const LANES: usize = 8;

/// High and low part of one query, padded to whole [`LANES`].
struct Parts {
    values: Vec<f64>,
    integers: [Vec<i8>; 2],
    scales: [f64; 2],
}

impl Parts {
    fn of(query: &[f32], qmax: i32) -> Self {
        let qmax = f64::from(qmax);
        let mut values: Vec<f64> = query.iter().map(|&v| f64::from(v)).collect();
        values.resize(query.len().next_multiple_of(LANES), 0.0);
        let mut left = values.clone();
        let mut scales = [1.0; 2];
        let integers = std::array::from_fn(|part| {
            let largest = largest_magnitude(&left);
            if largest > 0.0 {
                scales[part] = largest / qmax;
            }
            let (scale, inverse) = (scales[part], 1.0 / scales[part]);
            let round = |left: &mut f64| {
                // The bounds hold for whichever integer is chosen.
                let integer = (*left * inverse + ROUND - ROUND).clamp(-qmax, qmax);
                *left -= scale * integer;
                // The lowest byte of the significand.
                (integer + ROUND).to_bits() as i8
            };
            left.iter_mut().map(round).collect()
        });
        Self { values, integers, scales }
    }

    fn bounds(&self, max_norm: f32) -> QueryBounds {
        let max_norm = f64::from(max_norm);
        let [high, low] = self.integers.each_ref().map(|part| part.as_chunks::<LANES>().0);
        let mut sums = [[0f64; LANES]; 5];
        for ((values, high), low) in self.values.as_chunks::<LANES>().0.iter().zip(high).zip(low) {
            for j in 0..LANES {
                let q = values[j];
                let one = self.scales[0] * f64::from(high[j]);
                let both = one + self.scales[1] * f64::from(low[j]);
                sums[0][j] += one * one;
                sums[1][j] += both * both;
                sums[2][j] += (q - one) * (q - one);
                sums[3][j] += (q - both) * (q - both);
                sums[4][j] += q * q;
            }
        }
        let [one, both, error_one, error_both, norm] = sums.map(|lanes| lanes.iter().sum::<f64>());
        let (squares, errors) = ([one, both], [error_one, error_both]);
        // Each sum of at most 16,384 squares carries a relative error below 2^-38.
        let root = |square: f64| square.sqrt() * (1.0 + 1e-9);
        let norms = squares.map(root);
        // Bounds every score and every intermediate value: a dequantized row exceeds the row by at
        // most half a scale per component, so it is less than twice as long.
        let largest = 2.0 * (root(norm) + norms[0].max(norms[1])) * max_norm;
        // Rounding errors: of the float32 operations that compare an integer score with a threshold
        // or turn it into bounds (fewer than 8, 2^-24 each, of values below `largest`, since the
        // zero point is subtracted before, as an integer), of a bound to float32, and of the
        // canonical score itself. A row is dropped only if its canonical score is below the k-th
        // best, not if it is equal. Below float32's normal range a rounding costs 2^-149.
        let roundings = largest * f64::powi(2.0, -20) + f64::powi(2.0, -140);
        QueryBounds {
            scales: self.scales,
            norms,
            slacks: errors.map(|error| root(error) * max_norm + roundings),
        }
    }
}

/// Returns the largest magnitude of values, a multiple of [`LANES`].
fn largest_magnitude(values: &[f64]) -> f64 {
    let mut lanes = [0f64; LANES];
    for chunk in values.as_chunks::<LANES>().0 {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if value.abs() > *lane { value.abs() } else { *lane };
        }
    }
    lanes.into_iter().fold(0.0, f64::max)
}

impl QueryBounds {
    /// Returns the factor of a row's residual in the comparison with [`QueryBounds::gate`].
    pub(super) fn residual_factor(&self) -> f32 {
        ((self.norms[0] / self.scales[0]) as f32).next_up()
    }

    /// Returns the least value of `integer score * scale + factor * residual` with which a row can
    /// still reach `threshold`, however float32 rounds that expression, or one of
    /// `integer score * scale` and `gate - factor * residual`, which are compared instead.
    pub(super) fn gate(&self, threshold: f32) -> f32 {
        if threshold == f32::NEG_INFINITY {
            return threshold;
        }
        (((f64::from(threshold) - self.slacks[0]) / self.scales[0]) as f32).next_down()
    }

    /// Returns a lower bound on the canonical scores of all rows with
    /// `integer score * scale - factor * residual >= lower`, however float32 rounds that
    /// expression.
    pub(super) fn lower_bound(&self, lower: f32) -> f32 {
        ((f64::from(lower) * self.scales[0] - self.slacks[0]) as f32).next_down()
    }

    /// Returns the counterpart of [`QueryBounds::lower_bound`] for
    /// `integer score * scale + factor * residual <= upper`.
    pub(super) fn upper_bound(&self, upper: f32) -> f32 {
        ((f64::from(upper) * self.scales[0] + self.slacks[0]) as f32).next_up()
    }

    /// Returns a lower and an upper bound on the canonical score of a row, from the integer scores
    /// of the high and the low part.
    pub(super) fn refine(&self, scores: [i32; 2], row: &RowScale) -> (f32, f32) {
        let integer = self.scales[0] * f64::from(scores[0]) + self.scales[1] * f64::from(scores[1]);
        let score = f64::from(row.scale) * integer;
        let bound = self.norms[1] * f64::from(row.residual) + self.slacks[1];
        (((score - bound) as f32).next_down(), ((score + bound) as f32).next_up())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{row_norm_upper, stride_of};
    use crate::oracle::canonical_score;
    use crate::sq8::Sq8Matrix;
    use half::f16;
    use proptest::prelude::*;

    /// Checks all bounds of one row and one query against the canonical score.
    fn attack(query: &[f32], row: &[f32], qmax: i32) {
        let dim = row.len();
        let mut stored = vec![f16::ZERO; stride_of(dim)];
        stored.iter_mut().zip(row).for_each(|(h, &v)| *h = f16::from_f32(v));
        let matrix = MatrixView::new(&stored, dim, row_norm_upper(&stored)).unwrap();
        let sq8 = Sq8Matrix::of(&stored, dim);
        let view = sq8.view(dim).unwrap();
        let mut padded = query.to_vec();
        padded.resize(stride_of(dim), 0.0);
        let exact = canonical_score(&padded, &stored);
        let format = QueryFormat { qmax, has_signed_panels: true, few: 1 };
        let queries = QuantizedQueries::new(&padded, &matrix, &view, format);
        let raw = |part: &[u8]| -> i32 {
            part.iter().zip(view.values()).map(|(&q, &r)| i32::from(q) * i32::from(r)).sum()
        };
        let scale = &view.scales()[0];
        let [high_zero, low_zero] = queries.zero_points().map(|zero| zero * scale.sum);
        let (high, low) = (raw(queries.high(0)) - high_zero, raw(queries.low(0)) - low_zero);
        let bounds = queries.bounds(0);
        let (lower, upper) = bounds.refine([high, low], scale);
        assert!(lower < exact && exact < upper, "{lower} {exact} {upper}: {query:?} {row:?}");
        // The gate passes the row at its own score, with and without fused multiply-add.
        let gate = bounds.gate(exact);
        let product = high as f32 * scale.scale;
        let factor = bounds.residual_factor();
        assert!(product + factor * scale.residual >= gate, "{query:?} {row:?}");
        assert!(factor.mul_add(scale.residual, product) >= gate, "{query:?} {row:?}");
        assert!(product >= (-factor).mul_add(scale.residual, gate), "{query:?} {row:?}");
        // The high part alone gives bounds too.
        let error = factor * scale.residual;
        let fused =
            [factor.mul_add(-scale.residual, product), factor.mul_add(scale.residual, product)];
        for [lower, upper] in [[product - error, product + error], fused] {
            let (lower, upper) = (bounds.lower_bound(lower), bounds.upper_bound(upper));
            assert!(lower < exact && exact < upper, "{lower} {exact} {upper}: {query:?} {row:?}");
        }
    }

    #[test]
    fn bounds_hold_for_adversarial_rows_and_queries() {
        let dim = 384;
        let half_steps: Vec<f32> = (0..dim).map(|i| (i % 127) as f32 + 0.5).collect();
        let aligned: Vec<f32> =
            half_steps.iter().map(|v| if v.fract() == 0.5 { 0.5 } else { 0.0 }).collect();
        let spike: Vec<f32> = (0..dim).map(|i| if i == 0 { 65504.0 } else { 250.0 }).collect();
        let tiny = vec![f16::from_bits(1).to_f32(); dim];
        let mixed: Vec<f32> =
            (0..dim).map(|i| if i % 2 == 0 { 65504.0 } else { -1e-7 * i as f32 }).collect();
        let signs: Vec<f32> = (0..dim).map(|i| if i % 3 == 0 { -1.0 } else { 1.0 }).collect();
        let zero = vec![0.0; dim];
        let subnormal = vec![f32::from_bits(1); dim];
        let all = [half_steps, aligned, spike, tiny, mixed, signs, zero, subnormal];
        for query in &all {
            for row in &all {
                for qmax in [63, 127] {
                    attack(query, row, qmax);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn bounds_hold_for_any_row_and_query(
            pairs in proptest::collection::vec((0u16.., 0u32..), 1..130),
            plain in any::<bool>(),
            qmax in prop_oneof![Just(63), Just(127)],
        ) {
            // Arbitrary bits, or values of similar magnitude.
            let half = |b: u16| match plain {
                true => f32::from(b) / 65536.0 - 0.5,
                false => f16::from_bits(b).to_f32(),
            };
            let float = |b: u32| if plain { b as f32 / 4e9 - 0.5 } else { f32::from_bits(b) };
            let (row, query): (Vec<f32>, Vec<f32>) = pairs
                .into_iter()
                .map(|(r, q)| (half(r), float(q)))
                .filter(|(r, q)| r.is_finite() && q.abs() <= 65504.0)
                .unzip();
            prop_assume!(!row.is_empty());
            attack(&query, &row, qmax);
        }
    }
}
