//! Vector operations between matrix products: GELU, softmax, layer norm, quantization, each fused
//! into one pass over rows that stay in cache.
//!
//! Each operation is written once in plain Rust; [`VectorOps::of`] binds it to AVX-512, AVX2 or the
//! build target, and the compiler vectorises it for each.

use warpseek_compute::cpu::{Kernels, Tier, to_bf16 as round_bf16};

/// Declares the table of operations, and binds each to the instruction sets: a function with the
/// features enabled, into which the generic one is inlined.
macro_rules! vector_ops {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),+) $(-> $result:ty)?;)+) => {
        /// The vector operations compiled for one instruction set.
        #[derive(Debug, Clone, Copy)]
        pub(crate) struct VectorOps {
            $($(#[$doc])* pub(crate) $name: fn($($type),+) $(-> $result)?,)+
        }

        const GENERIC: VectorOps = VectorOps { $($name: $name::<false>,)+ };
        #[cfg(target_arch = "x86_64")]
        const AVX2: VectorOps = vector_ops!(@bind "avx2,fma";
            $($name($($argument: $type),+) $(-> $result)?;)+);
        #[cfg(target_arch = "x86_64")]
        const AVX512: VectorOps = vector_ops!(
            @bind "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma";
            $($name($($argument: $type),+) $(-> $result)?;)+);
    };
    (@bind $features:literal;
        $($name:ident($($argument:ident: $type:ty),+) $(-> $result:ty)?;)+) => {
        VectorOps {
            $($name: {
                #[target_feature(enable = $features)]
                fn bound($($argument: $type),+) $(-> $result)? {
                    $name::<true>($($argument),+)
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
    /// Numerators of the softmax of `scale * row` in bfloat16: `(row, scale, out)`. Returns 1 /
    /// their sum.
    softmax_bf16(x: &[f32], scale: f32, out: &mut [u16]) -> f32;
    /// Rounds to bfloat16: `(x, out)`.
    to_bf16(x: &[f32], out: &mut [u16]);
    /// Quantizes `x * factors` of one token to int8: `(x, factors, out)`.
    quantize(x: &[f32], factors: &[f32], out: &mut [i8]) -> RowQuant;
    /// Dequantizes int8 products `[rows, any width]` and adds the bias; see [`ColumnQuant`].
    dequantize(
        products: &[i32], rows: &[RowQuant], columns: &ColumnQuant<'_>, out: &mut [f32], add: bool
    );
}

/// Asymmetric quantization of one token: integer `i` stands for `zero_point + scale * i`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct RowQuant {
    /// The value of integer 0.
    pub(crate) zero_point: f32,
    pub(crate) scale: f32,
    /// The sum of the integers.
    pub(crate) sum: i32,
}

/// Quantization of some columns of weights (outputs), one value per column. With `v = zero_point +
/// scale i` in a row and `w = s j` in a column, `v.w = scale s (i.j) + zero_point (sum of w)`. The
/// int8 products are `i.(j + zero_point of the column)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ColumnQuant<'a> {
    /// First of these columns in a row of the output.
    pub(crate) start: usize,
    /// Values from one row of the output to the next.
    pub(crate) stride: usize,
    /// Integer that was added to all integers of the columns.
    pub(crate) zero_point: i32,
    /// Scale of each column.
    pub(crate) scales: &'a [f32],
    /// Sum of the weights of each column.
    pub(crate) sums: &'a [f32],
    /// Bias of each column.
    pub(crate) bias: &'a [f32],
}

impl VectorOps {
    /// Returns the operations for the kernels' tier.
    pub(crate) fn of(kernels: Kernels) -> Self {
        match kernels.tier() {
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512 | Tier::Avx512Vnni | Tier::Amx => AVX512,
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 | Tier::AvxVnni => AVX2,
            _ => GENERIC,
        }
    }
}

/// Independent partial sums, so that the compiler vectorises reductions.
const LANES: usize = 16;

/// `a * b + c`, fused if the instruction set has it.
#[inline(always)]
fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `exp(x)` for x in -87..=88, relative error below 2e-7. Smaller x give a result close to 0.
///
/// With `FAST` the polynomial has degree 4 and the error is below 5e-5, less than bfloat16
/// resolves.
///
/// Range reduction by Cody and Waite (Software Manual for the Elementary Functions, 1980):
/// `x = n ln 2 + r` with ln 2 in two parts, `|r| <= ln 2 / 2`; then the Taylor polynomial of degree
/// 6 (its remainder is below 1.3e-7 of the value), and the exponent set in the bits.
#[inline(always)]
fn exp<const FMA: bool, const FAST: bool>(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = multiply_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = multiply_add::<FMA>(n, -LN2_HIGH, x);
    let r = multiply_add::<FMA>(n, -LN2_LOW, r);
    let mut p = 1.0 / 24.0;
    if !FAST {
        p = multiply_add::<FMA>(1.0 / 720.0, r, 1.0 / 120.0);
        p = multiply_add::<FMA>(p, r, 1.0 / 24.0);
    }
    p = multiply_add::<FMA>(p, r, 1.0 / 6.0);
    p = multiply_add::<FMA>(p, r, 0.5);
    p = multiply_add::<FMA>(p, r, 1.0);
    p = multiply_add::<FMA>(p, r, 1.0);
    // The low bits of `shifted` hold n; the exponent field starts at bit 23.
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()) << 23;
    f32::from_bits(p.to_bits().wrapping_add(exponent))
}

/// With z = |x| / sqrt 2 and erfc(z) = exp(-z P(z)): `x Phi(x)` is `x erfc(z) / 2` for negative x
/// and `x (1 - erfc(z) / 2)` for positive. P is a polynomial fitted on 0..4 by weighted minimax
/// (largest error of erfc there: 3.3e-9); beyond 4, erfc is below 1.6e-8 and taken as 0.
#[inline(always)]
fn gelu<const FMA: bool>(x: &mut [f32]) {
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
            p = multiply_add::<FMA>(p, bounded, *c);
        }
        let erfc = if z < 4.0 { exp::<FMA, false>(-bounded * p) } else { 0.0 };
        let half = 0.5 * erfc;
        *v = x * if x < 0.0 { half } else { 1.0 - half };
    }
}

/// `Phi(x) - 1/2` is `x Q(x^2)` with a polynomial Q fitted on |x| <= 4.5 by weighted minimax;
/// beyond, Phi is within 4e-6 of 0 or 1, and x is taken as 4.5 there.
#[inline(always)]
fn gelu_fast<const FMA: bool>(x: &mut [f32]) {
    const LIMIT: f32 = 4.5;
    const Q: [f32; 9] = [
        0.398_712_58,
        -6.598_46e-2,
        9.585_171e-3,
        -1.037_583e-3,
        8.142_394e-5,
        -4.451_623_7e-6,
        1.590_944_1e-7,
        -3.314_518_2e-9,
        3.036_26e-11,
    ];
    for v in x {
        let bounded = v.clamp(-LIMIT, LIMIT);
        let square = bounded * bounded;
        let mut q = Q[8];
        for c in Q[..8].iter().rev() {
            q = multiply_add::<FMA>(q, square, *c);
        }
        *v *= multiply_add::<FMA>(bounded, q, 0.5);
    }
}

/// tanh(u) = 1 - 2 / (exp(2u) + 1).
#[inline(always)]
fn gelu_tanh<const FMA: bool>(x: &mut [f32]) {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    for v in x {
        let x = *v;
        let u = SQRT_2_OVER_PI * multiply_add::<FMA>(0.044_715 * x * x, x, x);
        let tanh = 1.0 - 2.0 / (exp::<FMA, false>(2.0 * u) + 1.0);
        *v = 0.5 * x * (1.0 + tanh);
    }
}

#[inline(always)]
fn sum_of(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|&v| f(v)).sum();
    for chunk in chunks {
        for j in 0..LANES {
            lanes[j] += f(chunk[j]);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[inline(always)]
fn layer_norm<const FMA: bool>(x: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    let n = x.len() as f32;
    let mean = sum_of(x, |v| v) / n;
    let variance = sum_of(x, |v| (v - mean) * (v - mean)) / n;
    let scale = 1.0 / (variance + eps).sqrt();
    for ((v, w), b) in x.iter_mut().zip(weight).zip(bias) {
        *v = multiply_add::<FMA>((*v - mean) * scale, *w, *b);
    }
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

#[inline(always)]
fn max_of(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder().iter().fold(f32::NEG_INFINITY, |m, &v| larger(m, v));
    for chunk in chunks {
        for j in 0..LANES {
            lanes[j] = larger(lanes[j], chunk[j]);
        }
    }
    lanes.into_iter().fold(rest, larger)
}

#[inline(always)]
fn softmax<const FMA: bool>(x: &mut [f32], scale: f32) {
    let max = max_of(x);
    for v in x.iter_mut() {
        *v = exp::<FMA, false>((*v - max) * scale);
    }
    let inverse = 1.0 / sum_of(x, |v| v);
    for v in x.iter_mut() {
        *v *= inverse;
    }
}

#[inline(always)]
fn softmax_bf16<const FMA: bool>(x: &[f32], scale: f32, out: &mut [u16]) -> f32 {
    let max = max_of(x) * scale;
    let numerator = |v: f32| exp::<FMA, true>(multiply_add::<FMA>(v, scale, -max));
    let mut lanes = [0f32; LANES];
    let whole = x.len() / LANES * LANES;
    for (x, out) in x.chunks_exact(LANES).zip(out.chunks_exact_mut(LANES)) {
        for j in 0..LANES {
            let value = numerator(x[j]);
            lanes[j] += value;
            out[j] = round_bf16(value);
        }
    }
    let mut sum: f32 = lanes.iter().sum();
    for (x, out) in x[whole..].iter().zip(&mut out[whole..]) {
        let value = numerator(*x);
        sum += value;
        *out = round_bf16(value);
    }
    1.0 / sum
}

#[inline(always)]
fn to_bf16<const FMA: bool>(x: &[f32], out: &mut [u16]) {
    for (out, v) in out.iter_mut().zip(x) {
        *out = round_bf16(*v);
    }
}

#[inline(always)]
fn quantize<const FMA: bool>(x: &[f32], factors: &[f32], out: &mut [i8]) -> RowQuant {
    // Adding 1.5 * 2^23 rounds to the nearest integer, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
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
    let max = highest.into_iter().fold(f32::NEG_INFINITY, larger);
    let min = -lowest.into_iter().fold(f32::NEG_INFINITY, larger);
    let scale = (max - min) / 254.0;
    let inverse = if scale > 1e-30 { 1.0 / scale } else { 0.0 };
    let mut sum = 0i32;
    for ((out, x), f) in out.iter_mut().zip(x).zip(factors) {
        // 0 to 254 and a few units in the last place, minus 127.
        let rounded = multiply_add::<FMA>(x * f - min, inverse, ROUND - 127.0);
        let integer = (rounded.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
        *out = integer as i8;
        sum = sum.wrapping_add(integer);
    }
    RowQuant { zero_point: multiply_add::<FMA>(127.0, scale, min), scale, sum }
}

#[inline(always)]
fn dequantize<const FMA: bool>(
    products: &[i32],
    rows: &[RowQuant],
    columns: &ColumnQuant<'_>,
    out: &mut [f32],
    add: bool,
) {
    let ColumnQuant { start, stride, zero_point, scales, sums, bias } = *columns;
    let products = products.chunks_exact(products.len() / rows.len());
    for ((row, products), out) in rows.iter().zip(products).zip(out.chunks_exact_mut(stride)) {
        let base = zero_point * row.sum;
        let out = &mut out[start..start + bias.len()];
        let value = |product: i32, scale: f32, sum: f32, bias: f32| {
            let constant = multiply_add::<FMA>(row.zero_point, sum, bias);
            multiply_add::<FMA>((product - base) as f32 * scale, row.scale, constant)
        };
        let terms = products.iter().zip(scales).zip(sums).zip(bias);
        if add {
            for (out, (((&p, &scale), &sum), &bias)) in out.iter_mut().zip(terms) {
                *out += value(p, scale, sum, bias);
            }
        } else {
            for (out, (((&p, &scale), &sum), &bias)) in out.iter_mut().zip(terms) {
                *out = value(p, scale, sum, bias);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
                let mut got = vec![0; x.len()];
                let inverse = (ops.softmax_bf16)(&x, 0.5, &mut got);
                for (got, expected) in got.iter().zip(&expected) {
                    let got = f32::from_bits(u32::from(*got) << 16) * inverse;
                    let error = (f64::from(got) - expected).abs();
                    assert!(error < 0.004 * expected + 1e-9, "{name}, n {}", x.len());
                }
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
