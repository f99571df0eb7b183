//! Queries in 8 bits, and how far integer scores can lie from the canonical ones.
//!
//! A query `q` becomes two planes of integers with a step each: `q1` of the query, `q2` of what the first left
//! over. With the row's integers `i`, its scale `s`, its residual `rho` (see [`crate::store::prefilter`]) and
//! the row `r` itself, `r^ = s i` and `q^` the planes' value,
//!
//! ```text
//! q.r = q^.r^ + q^.(r - r^) + (q - q^).r
//! |q.r - q^.r^| <= |q^| rho + |q - q^| |r|
//! ```
//!
//! by the inequality of Cauchy and Schwarz. The scan looks at `s t1 (q1.i)` first, with `q^ = t1 q1`. A row that
//! could still be among the best is looked at again with both planes, which leaves nearly nothing of
//! the second term.

use crate::cpu::{GROUP, PANEL_GROUPS};
use crate::store::matrix::MatrixView;
use crate::store::prefilter::{PrefilterView, RowScale};

/// Queries up to which each is a vector of its own, not a lane of a group.
pub(super) const FEW: usize = 8;

/// The queries of a pass.
pub(super) struct QuantisedQueries {
    /// Per query its first plane, `[stride]`; only where there are at most [`FEW`].
    rows: Vec<u8>,
    /// Per group `[stride / 4][GROUP][4]`, the first plane; only where there are more than [`FEW`].
    groups: Vec<u8>,
    /// Per query its second plane, `[stride]`.
    second: Vec<u8>,
    bounds: Vec<QueryBounds>,
    stride: usize,
    offset: i32,
}

/// What turns integer scores of one query into bounds on the canonical score.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueryBounds {
    /// What an integer of the first plane counts, and one of the second.
    steps: [f64; 2],
    /// The norm of the first plane's value, and that of both planes.
    norms: [f64; 2],
    /// What any row can be off beside its own residual: by the first plane, and by both.
    slacks: [f64; 2],
}

impl QuantisedQueries {
    /// Rounds `queries`, `[n, matrix.stride()]`, to integers of magnitude `levels`. They are stored with
    /// `levels + 1` added, as unsigned bytes.
    pub(super) fn new(
        queries: &[f32],
        matrix: &MatrixView<'_>,
        prefilter: &PrefilterView<'_>,
        levels: i32,
    ) -> Self {
        let stride = prefilter.stride();
        let n = queries.len() / matrix.stride();
        let offset = levels + 1;
        let zero = offset as u8;
        let n_groups = if n > FEW { n.div_ceil(GROUP) } else { 0 };
        let mut this = Self {
            rows: vec![zero; if n > FEW { 0 } else { n * stride }],
            groups: vec![zero; n_groups * GROUP * stride],
            second: vec![zero; n * stride],
            bounds: Vec::with_capacity(n),
            stride,
            offset,
        };
        for (q, query) in queries.chunks_exact(matrix.stride()).enumerate() {
            let planes = Planes::of(&query[..matrix.dim()], levels);
            let lane = q / GROUP * GROUP * stride + q % GROUP * 4;
            for (i, [first, second]) in planes.integers.iter().enumerate() {
                let first = (first + offset) as u8;
                match n_groups {
                    0 => this.rows[q * stride + i] = first,
                    _ => this.groups[lane + i / 4 * GROUP * 4 + i % 4] = first,
                }
                this.second[q * stride + i] = (second + offset) as u8;
            }
            this.bounds.push(planes.bounds(&query[..matrix.dim()], matrix.max_norm()));
        }
        this
    }

    pub(super) fn len(&self) -> usize {
        self.bounds.len()
    }

    /// Whether the first planes lie in groups.
    pub(super) fn is_grouped(&self) -> bool {
        !self.groups.is_empty()
    }

    /// What was added to every integer: an integer score of the stored bytes is too large by this times
    /// the sum of the row's integers.
    pub(super) fn offset(&self) -> i32 {
        self.offset
    }

    pub(super) fn bounds(&self, query: usize) -> &QueryBounds {
        &self.bounds[query]
    }

    /// A query's first plane, where the queries are few.
    pub(super) fn row(&self, query: usize) -> &[u8] {
        &self.rows[query * self.stride..(query + 1) * self.stride]
    }

    /// A query's second plane.
    pub(super) fn second(&self, query: usize) -> &[u8] {
        &self.second[query * self.stride..(query + 1) * self.stride]
    }

    /// The first planes of up to [`PANEL_GROUPS`] groups at a time.
    pub(super) fn panels(&self) -> impl Iterator<Item = &[u8]> {
        self.groups.chunks(PANEL_GROUPS * GROUP * self.stride)
    }
}

/// Added and subtracted, it rounds a float64 to the nearest integer: 1.5 * 2^52.
const ROUND: f64 = 6_755_399_441_055_744.0;

/// A query in integers.
struct Planes {
    integers: Vec<[i32; 2]>,
    steps: [f64; 2],
}

impl Planes {
    fn of(query: &[f32], levels: i32) -> Self {
        let levels = f64::from(levels);
        let mut left: Vec<f64> = query.iter().map(|&v| f64::from(v)).collect();
        let mut integers = vec![[0; 2]; query.len()];
        let mut steps = [1.0; 2];
        for plane in 0..2 {
            let largest = left.iter().fold(0f64, |m, v| m.max(v.abs()));
            if largest > 0.0 {
                steps[plane] = largest / levels;
            }
            let inverse = 1.0 / steps[plane];
            for (left, integers) in left.iter_mut().zip(&mut integers) {
                // Whichever integer is taken, the bounds are those of the one that was.
                let integer = (*left * inverse + ROUND - ROUND).clamp(-levels, levels);
                integers[plane] = integer as i32;
                *left -= steps[plane] * integer;
            }
        }
        Self { integers, steps }
    }

    fn bounds(&self, query: &[f32], max_norm: f32) -> QueryBounds {
        let max_norm = f64::from(max_norm);
        let mut squares = [0f64; 2];
        let mut errors = [0f64; 2];
        let mut norm = 0f64;
        for (&q, [first, second]) in query.iter().zip(&self.integers) {
            let q = f64::from(q);
            let one = self.steps[0] * f64::from(*first);
            let both = one + self.steps[1] * f64::from(*second);
            squares[0] += one * one;
            squares[1] += both * both;
            errors[0] += (q - one).powi(2);
            errors[1] += (q - both).powi(2);
            norm += q * q;
        }
        // Each sum of at most 16,384 squares carries a relative error below 2^-38.
        let root = |square: f64| square.sqrt() * (1.0 + 1e-9);
        let norms = squares.map(root);
        // No score is larger, and none of the values between: a row's integers times its scale are
        // at most half a step a component longer than the row, that is, less than twice as long.
        let largest = 2.0 * (root(norm) + norms[0].max(norms[1])) * max_norm;
        // Roundings. Of the float32 operations that compare an integer score with a threshold (fewer than
        // 8 of 2^-24 each), of a bound to float32, and of the canonical score itself: a row is
        // dropped only where its canonical score is below the k-th best, not equal to it. Beyond float32's
        // normal numbers a rounding costs 2^-149.
        let roundings = largest * f64::powi(2.0, -20) + f64::powi(2.0, -140);
        QueryBounds {
            steps: self.steps,
            norms,
            slacks: errors.map(|error| root(error) * max_norm + roundings),
        }
    }
}

impl QueryBounds {
    /// What stands in front of a row's residual in [`QueryBounds::gate`]'s comparison.
    pub(super) fn residual_factor(&self) -> f32 {
        ((self.norms[0] / self.steps[0]) as f32).next_up()
    }

    /// The least value of `integer score * scale + factor * residual` with which a row can still reach
    /// `threshold`, whatever float32 makes of that expression.
    pub(super) fn gate(&self, threshold: f32) -> f32 {
        if threshold == f32::NEG_INFINITY {
            return threshold;
        }
        (((f64::from(threshold) - self.slacks[0]) / self.steps[0]) as f32).next_down()
    }

    /// Bounds on the canonical score of a row from the integer scores of both planes: the largest float32
    /// not above it, and the smallest not below it.
    pub(super) fn refine(&self, scores: [i32; 2], row: &RowScale) -> (f32, f32) {
        let integer = self.steps[0] * f64::from(scores[0]) + self.steps[1] * f64::from(scores[1]);
        let score = f64::from(row.scale) * integer;
        let bound = self.norms[1] * f64::from(row.residual) + self.slacks[1];
        (((score - bound) as f32).next_down(), ((score + bound) as f32).next_up())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::order::canonical_score;
    use crate::store::matrix::{row_norm_upper, stride_of};
    use crate::store::prefilter::Prefilter;
    use half::f16;
    use proptest::prelude::*;

    /// Holds all bounds of one row and one query against the canonical score.
    fn attack(query: &[f32], row: &[f32], levels: i32) {
        let dim = row.len();
        let mut halves = vec![f16::ZERO; stride_of(dim)];
        halves.iter_mut().zip(row).for_each(|(h, &v)| *h = f16::from_f32(v));
        let matrix = MatrixView::new(&halves, dim, row_norm_upper(&halves)).unwrap();
        let prefilter = Prefilter::of(&halves, dim);
        let view = prefilter.view(dim).unwrap();
        let mut padded = query.to_vec();
        padded.resize(stride_of(dim), 0.0);
        let exact = canonical_score(&padded, &halves);
        let queries = QuantisedQueries::new(&padded, &matrix, &view, levels);
        let raw = |plane: &[u8]| -> i32 {
            plane.iter().zip(view.values()).map(|(&q, &r)| i32::from(q) * i32::from(r)).sum()
        };
        let scale = &view.scales()[0];
        let [first, second] =
            [queries.row(0), queries.second(0)].map(|p| raw(p) - queries.offset() * scale.sum);
        let bounds = queries.bounds(0);
        let (lower, upper) = bounds.refine([first, second], scale);
        assert!(lower < exact && exact < upper, "{lower} {exact} {upper}: {query:?} {row:?}");
        // The gate lets the row pass at its own score, fused or not.
        let gate = bounds.gate(exact);
        let product = first as f32 * scale.scale;
        let factor = bounds.residual_factor();
        assert!(product + factor * scale.residual >= gate, "{query:?} {row:?}");
        assert!(factor.mul_add(scale.residual, product) >= gate, "{query:?} {row:?}");
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
                for levels in [63, 127] {
                    attack(query, row, levels);
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
            levels in prop_oneof![Just(63), Just(127)],
        ) {
            // Bits of any kind, or values of like magnitude.
            let half = |b: u16| if plain { f32::from(b) / 65536.0 - 0.5 } else { f16::from_bits(b).to_f32() };
            let float = |b: u32| if plain { b as f32 / 4e9 - 0.5 } else { f32::from_bits(b) };
            let (row, query): (Vec<f32>, Vec<f32>) = pairs
                .into_iter()
                .map(|(r, q)| (half(r), float(q)))
                .filter(|(r, q)| r.is_finite() && q.abs() <= 65504.0)
                .unzip();
            prop_assume!(!row.is_empty());
            attack(&query, &row, levels);
        }
    }
}
