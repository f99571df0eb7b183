//! Vector operations between matrix products: GELU, softmax, layer norm, quantization, each fused
//! into one pass over rows that stay in cache.
//!
//! Each operation is written once in plain Rust; [`VectorOps::of`] binds it to AVX-512, AVX2 or the
//! build target, and the compiler vectorises it for each.

mod functions;
mod instructions;
mod products;

pub(crate) use products::{BLOCK_COLUMNS, ColumnQuant, ProductBlock, RowQuant};

use functions::{ROUND, exp, exp2_fast, gelu_fast_of};
#[cfg(target_arch = "x86_64")]
use instructions::{Fused, Wide};
use instructions::{InstructionSet, LANES, Portable, larger, multiply_add};
use products::{finish, finish_bf16, finish_gelu, finish_gelu_bf16};
use std::ops::Range;
#[cfg(target_arch = "x86_64")]
use warpseek_compute::cpu::Tier;
use warpseek_compute::cpu::{Kernels, to_bf16 as round_bf16};

/// Declares the table of operations, and binds each to the instruction sets: a function with the
/// features enabled, into which the generic one is inlined.
macro_rules! vector_ops {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),+) $(-> $result:ty)?;)+) => {
        /// The vector operations compiled for one instruction set.
        #[derive(Debug, Clone, Copy)]
        pub(crate) struct VectorOps {
            $($(#[$doc])* pub(crate) $name: fn($($type),+) $(-> $result)?,)+
        }

        const GENERIC: VectorOps = VectorOps { $($name: $name::<Portable>,)+ };
        #[cfg(target_arch = "x86_64")]
        const AVX2: VectorOps = vector_ops!(@bind (Fused), "avx2,fma";
            $($name($($argument: $type),+) $(-> $result)?;)+);
        #[cfg(target_arch = "x86_64")]
        const AVX512: VectorOps = vector_ops!(
            @bind (Wide<false>), "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma";
            $($name($($argument: $type),+) $(-> $result)?;)+);
        #[cfg(target_arch = "x86_64")]
        const AVX512_BF16: VectorOps = vector_ops!(
            @bind (Wide<true>), "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma";
            $($name($($argument: $type),+) $(-> $result)?;)+);
    };
    (@bind ($set:ty), $features:literal;
        $($name:ident($($argument:ident: $type:ty),+) $(-> $result:ty)?;)+) => {
        VectorOps {
            $($name: {
                #[target_feature(enable = $features)]
                fn bound($($argument: $type),+) $(-> $result)? {
                    $name::<$set>($($argument),+)
                }
                // SAFETY: `VectorOps::of` returns this table only for tiers with the features.
                |$($argument),+| unsafe { bound($($argument),+) }
            },)+
        }
    };
}

vector_ops! {
    /// GELU: `x <- x * Phi(x)`, Phi the normal distribution function.
    gelu(x: &mut [f32]);
    /// GELU by tanh: `x <- 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
    gelu_tanh(x: &mut [f32]);
    /// GELU with an error below 6e-5, for bfloat16 and int8 products.
    gelu_fast(x: &mut [f32]);
    /// Layer norm of one row: `(row, weight, bias, eps)`.
    layer_norm(x: &mut [f32], weight: &[f32], bias: &[f32], eps: f32);
    /// Softmax of `scale * row`: `(row, scale)`.
    softmax(x: &mut [f32], scale: f32);
    /// Numerators of the softmax of `scale * row` in bfloat16, and 1 / their sum, of the rows of
    /// `x`, one per inverse; rows of `x` and of `out` are `stride` values apart, a multiple of
    /// 16, and those in `columns` count, from a multiple of 16 to one: `(x, stride, columns,
    /// scale, out, inverses)`. Rows are there up to the next multiple of 4.
    softmax_bf16(
        x: &[f32], stride: usize, columns: &Range<usize>, scale: f32, out: &mut [u16],
        inverses: &mut [f32]
    );
    /// Rounds to bfloat16: `(x, out)`.
    to_bf16(x: &[f32], out: &mut [u16]);
    /// Rounds `x * factor` to bfloat16: `(x, factor, out)`.
    scale_bf16(x: &[f32], factor: f32, out: &mut [u16]);
    /// Writes the values of products into rows of `out`, `stride` values apart, of which `width`
    /// are written; with `add` it adds to them: `(products, width, out, stride, add)`.
    finish(products: &ProductBlock<'_>, width: usize, out: &mut [f32], stride: usize, add: bool);
    /// As `finish`, after GELU as [`VectorOps::gelu_fast`] computes it.
    finish_gelu(products: &ProductBlock<'_>, width: usize, out: &mut [f32], stride: usize);
    /// As `finish`, rounded to bfloat16.
    finish_bf16(products: &ProductBlock<'_>, width: usize, out: &mut [u16], stride: usize);
    /// As `finish_gelu`, rounded to bfloat16.
    finish_gelu_bf16(products: &ProductBlock<'_>, width: usize, out: &mut [u16], stride: usize);
    /// Quantizes `x * factors` of one token to int8: `(x, factors, out)`.
    quantize(x: &[f32], factors: &[f32], out: &mut [i8]) -> RowQuant;
}

impl VectorOps {
    /// Returns the operations for the kernels' tier.
    pub(crate) fn of(kernels: Kernels) -> Self {
        #[cfg(target_arch = "x86_64")]
        match kernels.tier() {
            Tier::Avx512 | Tier::Avx512Vnni | Tier::Amx => match kernels.bf16() {
                Some(_) => AVX512_BF16,
                None => AVX512,
            },
            Tier::Avx2 | Tier::AvxVnni => AVX2,
            _ => GENERIC,
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = kernels;
            GENERIC
        }
    }
}

/// With z = |x| / sqrt 2 and erfc(z) = exp(-z P(z)): `x Phi(x)` is `x erfc(z) / 2` for negative x
/// and `x (1 - erfc(z) / 2)` for positive. P is a polynomial fitted on 0..4 by weighted minimax
/// (largest error of erfc there: 3.3e-9); beyond 4, erfc is below 1.6e-8 and taken as 0.
#[inline(always)]
fn gelu<I: InstructionSet>(x: &mut [f32]) {
    const P: [f32; 9] = [
        1.128_379_3,
        0.636_614_6,
        0.102_809_295,
        -1.924_909e-2,
        -4.822_938_5e-6,
        1.525_457e-3,
        -5.605_64e-4,
        9.840_527e-5,
        -7.187_272_3e-6,
    ];
    for v in x {
        let x = *v;
        let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
        let bounded = z.min(4.0);
        let mut p = P[8];
        for c in P[..8].iter().rev() {
            p = multiply_add::<I>(p, bounded, *c);
        }
        let erfc = if z < 4.0 { exp::<I>(-bounded * p) } else { 0.0 };
        let half = 0.5 * erfc;
        *v = x * if x < 0.0 { half } else { 1.0 - half };
    }
}

#[inline(always)]
fn gelu_fast<I: InstructionSet>(x: &mut [f32]) {
    x.iter_mut().for_each(|v| *v = gelu_fast_of::<I>(*v));
}

/// tanh(u) = 1 - 2 / (exp(2u) + 1).
#[inline(always)]
fn gelu_tanh<I: InstructionSet>(x: &mut [f32]) {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    for v in x {
        let x = *v;
        let u = SQRT_2_OVER_PI * multiply_add::<I>(0.044_715 * x * x, x, x);
        let tanh = 1.0 - 2.0 / (exp::<I>(2.0 * u) + 1.0);
        *v = 0.5 * x * (1.0 + tanh);
    }
}

#[inline(always)]
fn sum_of<I: InstructionSet>(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|&v| f(v)).sum();
    for chunk in chunks {
        for j in 0..LANES {
            lanes[j] += f(chunk[j]);
        }
    }
    I::sum(&lanes) + rest
}

#[inline(always)]
fn layer_norm<I: InstructionSet>(x: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    let n = x.len() as f32;
    let mean = sum_of::<I>(x, |v| v) / n;
    let variance = sum_of::<I>(x, |v| (v - mean) * (v - mean)) / n;
    let scale = 1.0 / (variance + eps).sqrt();
    for ((v, w), b) in x.iter_mut().zip(weight).zip(bias) {
        *v = multiply_add::<I>((*v - mean) * scale, *w, *b);
    }
}

#[inline(always)]
fn max_of<I: InstructionSet>(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder().iter().fold(f32::NEG_INFINITY, |m, &v| larger(m, v));
    for chunk in chunks {
        for j in 0..LANES {
            lanes[j] = larger(lanes[j], chunk[j]);
        }
    }
    larger(I::largest(&lanes), rest)
}

#[inline(always)]
fn softmax<I: InstructionSet>(x: &mut [f32], scale: f32) {
    let max = max_of::<I>(x);
    for v in x.iter_mut() {
        *v = exp::<I>((*v - max) * scale);
    }
    let inverse = 1.0 / sum_of::<I>(x, |v| v);
    for v in x.iter_mut() {
        *v *= inverse;
    }
}

#[inline(always)]
fn softmax_bf16<I: InstructionSet>(
    x: &[f32],
    stride: usize,
    columns: &Range<usize>,
    scale: f32,
    out: &mut [u16],
    inverses: &mut [f32],
) {
    /// Rows at a time, whose dependent steps overlap.
    const ROWS: usize = 4;
    let scale = scale * std::f32::consts::LOG2_E;
    for (i, inverses) in inverses.chunks_mut(ROWS).enumerate() {
        let x = &x[i * ROWS * stride..][..ROWS * stride];
        let out = &mut out[i * ROWS * stride..][..ROWS * stride];
        let mut lanes = [[f32::NEG_INFINITY; LANES]; ROWS];
        for start in columns.clone().step_by(LANES) {
            for (r, lanes) in lanes.iter_mut().enumerate() {
                let x = &x[r * stride + start..][..LANES];
                for j in 0..LANES {
                    lanes[j] = larger(lanes[j], x[j]);
                }
            }
        }
        let mut least = [0f32; ROWS];
        for (least, lanes) in least.iter_mut().zip(&lanes) {
            *least = -I::largest(lanes) * scale;
        }
        let mut sums = [[0f32; LANES]; ROWS];
        for start in columns.clone().step_by(LANES) {
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = &x[r * stride + start..][..LANES];
                let mut values = [0f32; LANES];
                for j in 0..LANES {
                    values[j] = exp2_fast::<I>(multiply_add::<I>(x[j], scale, least[r]));
                    sums[j] += values[j];
                }
                out[r * stride + start..][..LANES].copy_from_slice(&I::round(&values));
            }
        }
        for (inverse, sums) in inverses.iter_mut().zip(&sums) {
            *inverse = 1.0 / I::sum(sums);
        }
    }
}

#[inline(always)]
fn to_bf16<I: InstructionSet>(x: &[f32], out: &mut [u16]) {
    map_bf16::<I>(x, out, |v| v);
}

#[inline(always)]
fn scale_bf16<I: InstructionSet>(x: &[f32], factor: f32, out: &mut [u16]) {
    map_bf16::<I>(x, out, |v| v * factor);
}

/// Rounds `f(x)` to bfloat16.
#[inline(always)]
fn map_bf16<I: InstructionSet>(x: &[f32], out: &mut [u16], f: impl Fn(f32) -> f32) {
    let whole = x.len() / LANES * LANES;
    for (x, out) in x.chunks_exact(LANES).zip(out.chunks_exact_mut(LANES)) {
        let mut values = [0f32; LANES];
        for j in 0..LANES {
            values[j] = f(x[j]);
        }
        out.copy_from_slice(&I::round(&values));
    }
    for (x, out) in x[whole..].iter().zip(&mut out[whole..]) {
        *out = round_bf16(f(*x));
    }
}

#[inline(always)]
fn quantize<I: InstructionSet>(x: &[f32], factors: &[f32], out: &mut [i8]) -> RowQuant {
    let (mut highest, mut lowest) = ([f32::NEG_INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    let whole = x.len() / LANES * LANES;
    for (x, f) in x.chunks_exact(LANES).zip(factors.chunks_exact(LANES)) {
        for j in 0..LANES {
            let value = x[j] * f[j];
            highest[j] = larger(highest[j], value);
            lowest[j] = larger(lowest[j], -value);
        }
    }
    for (x, f) in x[whole..].iter().zip(&factors[whole..]) {
        highest[0] = larger(highest[0], x * f);
        lowest[0] = larger(lowest[0], -x * f);
    }
    let max = I::largest(&highest);
    let min = -I::largest(&lowest);
    let scale = (max - min) / 254.0;
    let inverse = if scale > 1e-30 { 1.0 / scale } else { 0.0 };
    let mut sum = 0i32;
    for ((out, x), f) in out.iter_mut().zip(x).zip(factors) {
        // 0 to 254 and a few units in the last place, minus 127.
        let rounded = multiply_add::<I>(x * f - min, inverse, ROUND - 127.0);
        let integer = (rounded.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
        *out = integer as i8;
        sum = sum.wrapping_add(integer);
    }
    RowQuant { zero_point: multiply_add::<I>(127.0, scale, min), scale, sum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warpseek_compute::cpu::Tier;

    fn all() -> impl Iterator<Item = (&'static str, VectorOps)> {
        let tiers = Tier::ALL.into_iter().filter(|t| t.is_available());
        tiers.map(|t| (t.name(), VectorOps::of(t.kernels())))
    }

    fn samples() -> Vec<f32> {
        (-200_000..=200_000).map(|i| i as f32 * 1e-4).collect()
    }

    /// erf by its Taylor series and, for larger arguments, erfc by its continued fraction
    /// (Abramowitz and Stegun 7.1.6, 7.1.14), in float64.
    fn phi(x: f64) -> f64 {
        let z = x.abs() / std::f64::consts::SQRT_2;
        let erfc = if z < 3.0 {
            let (mut term, mut sum) = (z, z);
            for n in 1..200 {
                term *= 2.0 * z * z / (2.0 * n as f64 + 1.0);
                sum += term;
            }
            1.0 - 2.0 / std::f64::consts::PI.sqrt() * (-z * z).exp() * sum
        } else {
            let f = (1..=60).rev().fold(0.0, |f, n| n as f64 / 2.0 / (z + f));
            (-z * z).exp() / std::f64::consts::PI.sqrt() / (z + f)
        };
        if x < 0.0 { 0.5 * erfc } else { 1.0 - 0.5 * erfc }
    }

    /// Checks an activation function: `error` takes its value and the expected one.
    fn check(
        function: impl Fn(&VectorOps) -> fn(&mut [f32]),
        definition: impl Fn(f64) -> f64,
        error: impl Fn(f64, f64) -> f64,
        limit: f64,
    ) {
        for (name, ops) in all() {
            let mut got = samples();
            function(&ops)(&mut got);
            for (x, got) in samples().into_iter().zip(got) {
                let expected = definition(f64::from(x));
                let error = error(f64::from(got), expected);
                assert!(error < limit, "{name}: f({x}) = {got}, expected {expected}");
            }
        }
    }

    /// Relative for large values.
    fn error(got: f64, expected: f64) -> f64 {
        (got - expected).abs() / expected.abs().max(1.0)
    }

    #[test]
    fn gelu_stays_within_2e_7_of_the_definition() {
        check(|ops| ops.gelu, |x| x * phi(x), error, 2e-7);
    }

    #[test]
    fn gelu_fast_stays_within_6e_5_of_the_definition() {
        let absolute = |got: f64, expected: f64| (got - expected).abs();
        check(|ops| ops.gelu_fast, |x| x * phi(x), absolute, 6e-5);
    }

    #[test]
    fn gelu_tanh_stays_within_4e_7_of_the_formula() {
        let inner = |x: f64| (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
        check(|ops| ops.gelu_tanh, |x| 0.5 * x * (1.0 + inner(x).tanh()), error, 4e-7);
    }

    /// Rows of several lengths, and the softmax of half of each.
    fn softmax_cases() -> impl Iterator<Item = (Vec<f32>, Vec<f64>)> {
        [1, 2, 15, 16, 17, 100, 512].into_iter().map(|n| {
            let x: Vec<f32> = (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.3).collect();
            let exps: Vec<f64> = x.iter().map(|&v| (f64::from(v) * 0.5).exp()).collect();
            let sum: f64 = exps.iter().sum();
            (x, exps.iter().map(|e| e / sum).collect())
        })
    }

    #[test]
    fn softmax_of_any_length_matches_float64() {
        for (name, ops) in all() {
            for (mut x, expected) in softmax_cases() {
                (ops.softmax)(&mut x, 0.5);
                for (got, expected) in x.iter().zip(&expected) {
                    let error = (f64::from(*got) - expected).abs();
                    assert!(error < 1e-6, "{name}, n {}", x.len());
                }
            }
            let mut far = [0.0, -1e30, f32::NEG_INFINITY];
            (ops.softmax)(&mut far, 1.0);
            assert!((far[0] - 1.0).abs() < 1e-6 && far[1] < 1e-30 && far[2] < 1e-30, "{name}");
        }
    }

    #[test]
    fn softmax_in_bf16_of_any_length_matches_float64() {
        for (name, ops) in all() {
            for (x, expected) in softmax_cases() {
                // The row is the third of five, between columns that do not count.
                let padded = x.len().next_multiple_of(LANES);
                let stride = padded + 2 * LANES;
                let mut rows = vec![f32::NEG_INFINITY; 8 * stride];
                rows[2 * stride + LANES..][..x.len()].copy_from_slice(&x);
                rows[2 * stride..][..LANES].fill(1e9);
                let mut got = vec![7; 8 * stride];
                let mut inverses = [0.0; 5];
                let columns = LANES..LANES + padded;
                (ops.softmax_bf16)(&rows, stride, &columns, 0.5, &mut got, &mut inverses);
                let got = &got[2 * stride..3 * stride];
                assert!(got[..LANES].iter().chain(&got[LANES + padded..]).all(|v| *v == 7));
                let value = |bits: u16| f32::from_bits(u32::from(bits) << 16) * inverses[2];
                for (got, expected) in got[LANES..].iter().zip(&expected) {
                    let error = (f64::from(value(*got)) - expected).abs();
                    assert!(error < 0.004 * expected + 1e-9, "{name}, n {}", x.len());
                }
                assert!(got[LANES..][x.len()..padded].iter().all(|v| value(*v) < 1e-20), "{name}");
            }
        }
    }

    #[test]
    fn quantized_rows_are_within_half_a_scale() {
        for (name, ops) in all() {
            for n in [1, 7, 16, 33, 384, 1536] {
                for shape in 0..5 {
                    let x: Vec<f32> = (0..n)
                        .map(|i| match shape {
                            0 => (i as f32 * 0.7).sin() * 3.0 + 1.0,
                            1 => -0.25,
                            2 if i == n / 2 => 1e4,
                            2 => i as f32 * 1e-3,
                            // A range of a few units in the last place.
                            3 => 1.0 + (i % 254) as f32 * f32::EPSILON,
                            _ => 0.0,
                        })
                        .collect();
                    let mut quantized = vec![0i8; n];
                    let factor = |i: usize| if shape == 3 { 1.0 } else { 1.0 + (i % 3) as f32 };
                    let factors: Vec<f32> = (0..n).map(factor).collect();
                    let row = (ops.quantize)(&x, &factors, &mut quantized);
                    assert_eq!(row.sum, quantized.iter().map(|&b| i32::from(b)).sum::<i32>());
                    for ((x, f), b) in x.iter().zip(factors).zip(quantized) {
                        let x = x * f;
                        let error = (row.zero_point + row.scale * f32::from(b) - x).abs();
                        let room = row.scale * 0.501 + x.abs() * 1e-6;
                        assert!(error <= room, "{name}, n {n}, shape {shape}: {x} as {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn products_of_both_types_finish_as_defined_in_lines_of_any_width() {
        const ROWS: usize = 3;
        let integers: Vec<i32> =
            (0..ROWS * BLOCK_COLUMNS).map(|i| i as i32 * 37 % 5000 - 2500).collect();
        let floats: Vec<f32> = integers.iter().map(|&i| i as f32 / 900.0).collect();
        let terms = |f: fn(usize) -> f32| -> Vec<f32> { (0..BLOCK_COLUMNS).map(f).collect() };
        let scales = terms(|c| 0.01 + c as f32 * 1e-4);
        let sums = terms(|c| c as f32 * 0.1 - 1.0);
        let bias = terms(|c| c as f32 * 0.03 - 0.5);
        let quants: Vec<RowQuant> = (0..ROWS)
            .map(|r| RowQuant { zero_point: r as f32 * 0.2 - 0.1, scale: 0.05, sum: r as i32 * 3 })
            .collect();
        let columns = ColumnQuant { zero_point: 64, scales: &scales, sums: &sums, bias: &bias };
        let of_floats =
            |r: usize, c: usize| f64::from(floats[r * BLOCK_COLUMNS + c]) + f64::from(bias[c]);
        let of_integers = |r: usize, c: usize| {
            let (row, product) = (quants[r], integers[r * BLOCK_COLUMNS + c]);
            f64::from(product - 64 * row.sum) * f64::from(scales[c]) * f64::from(row.scale)
                + f64::from(row.zero_point) * f64::from(sums[c])
                + f64::from(bias[c])
        };
        let values: [&dyn Fn(usize, usize) -> f64; 2] = [&of_floats, &of_integers];
        let kinds =
            [ProductBlock::F32(&floats, &bias), ProductBlock::I32(&integers, &quants, columns)];
        for ((name, ops), (products, value)) in
            all().flat_map(|ops| kinds.iter().zip(values).map(move |kind| (ops, kind)))
        {
            for width in [1, 15, 16, 17, 31, 32] {
                let stride = width + 5;
                let check = |got: &[f32], expected: &dyn Fn(f64) -> f64, error: f64| {
                    for (r, line) in got.chunks_exact(stride).enumerate() {
                        for (c, got) in line.iter().enumerate() {
                            let expected = if c < width { expected(value(r, c)) } else { 7.0 };
                            let difference = (f64::from(*got) - expected).abs();
                            let room = error * expected.abs().max(1.0);
                            assert!(difference <= room, "{name}, {width}: {got} for {expected}");
                        }
                    }
                };
                let mut out = vec![7f32; ROWS * stride];
                (ops.finish)(products, width, &mut out, stride, true);
                check(&out, &|v| v + 7.0, 1e-5);
                (ops.finish)(products, width, &mut out, stride, false);
                check(&out, &|v| v, 1e-5);
                (ops.finish_gelu)(products, width, &mut out, stride);
                check(&out, &|v| v * phi(v), 7e-5);
                let mut rounded = vec![round_bf16(7.0); ROWS * stride];
                let wide = |rounded: &[u16]| -> Vec<f32> {
                    rounded.iter().map(|&v| f32::from_bits(u32::from(v) << 16)).collect()
                };
                (ops.finish_bf16)(products, width, &mut rounded, stride);
                check(&wide(&rounded), &|v| v, 0.004);
                (ops.finish_gelu_bf16)(products, width, &mut rounded, stride);
                check(&wide(&rounded), &|v| v * phi(v), 0.004);
            }
        }
    }

    #[test]
    fn layer_norm_of_any_width_matches_float64() {
        for (name, ops) in all() {
            for n in [1, 4, 16, 24, 48, 384] {
                let x: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin() * 3.0 + 1.0).collect();
                let w: Vec<f32> = (0..n).map(|i| 0.5 + i as f32 / 100.0).collect();
                let b: Vec<f32> = (0..n).map(|i| i as f32 / 10.0).collect();
                let mut got = x.clone();
                (ops.layer_norm)(&mut got, &w, &b, 1e-12);
                let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64;
                let var = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n as f64;
                for i in 0..n {
                    let expected = (f64::from(x[i]) - mean) / (var + 1e-12).sqrt()
                        * f64::from(w[i])
                        + f64::from(b[i]);
                    assert!((f64::from(got[i]) - expected).abs() < 1e-4, "{name}, n {n}, {i}");
                }
            }
        }
    }
}
