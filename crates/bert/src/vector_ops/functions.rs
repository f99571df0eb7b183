//! Functions of one number, written so that the compiler vectorises loops over them.

use super::instructions::{InstructionSet, larger, multiply_add};

/// `exp(x)` for x in -87..=88, relative error below 2e-7. Smaller x give a result close to 0.
///
/// Range reduction by Cody and Waite (Software Manual for the Elementary Functions, 1980):
/// `x = n ln 2 + r` with ln 2 in two parts, `|r| <= ln 2 / 2`; then the Taylor polynomial of degree
/// 6 (its remainder is below 1.3e-7 of the value), and the exponent set in the bits.
#[inline(always)]
pub(super) fn exp<I: InstructionSet>(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = multiply_add::<I>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = multiply_add::<I>(n, -LN2_HIGH, x);
    let r = multiply_add::<I>(n, -LN2_LOW, r);
    let mut p = multiply_add::<I>(1.0 / 720.0, r, 1.0 / 120.0);
    p = multiply_add::<I>(p, r, 1.0 / 24.0);
    p = multiply_add::<I>(p, r, 1.0 / 6.0);
    p = multiply_add::<I>(p, r, 0.5);
    p = multiply_add::<I>(p, r, 1.0);
    p = multiply_add::<I>(p, r, 1.0);
    with_exponent(p, shifted)
}

/// `2^x` for x up to 1, relative error below 8e-5, less than bfloat16 resolves. Below -100 the
/// result is close to 0.
///
/// `x = n + r` with `|r| <= 1/2`, and `2^r` by a polynomial of degree 3 fitted by minimax.
#[inline(always)]
pub(super) fn exp2_fast<I: InstructionSet>(x: f32) -> f32 {
    const P: [f32; 4] = [0.999_928_06, 0.693_261, 0.242_611_13, 0.055_171_67];
    let x = larger(x, -100.0);
    let shifted = x + ROUND;
    let r = x - (shifted - ROUND);
    let mut p = multiply_add::<I>(P[3], r, P[2]);
    p = multiply_add::<I>(p, r, P[1]);
    p = multiply_add::<I>(p, r, P[0]);
    with_exponent(p, shifted)
}

/// Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
pub(super) const ROUND: f32 = 12_582_912.0;

/// `p * 2^n`, where n is in the low bits of `shifted`, n + [`ROUND`]; the exponent field starts at
/// bit 23.
#[inline(always)]
fn with_exponent(p: f32, shifted: f32) -> f32 {
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()) << 23;
    f32::from_bits(p.to_bits().wrapping_add(exponent))
}

/// `Phi(x) - 1/2` is `x Q(x^2)` with a polynomial Q fitted on |x| <= 4.5 by weighted minimax;
/// beyond, Phi is within 4e-6 of 0 or 1, and x is taken as 4.5 there.
#[inline(always)]
pub(super) fn gelu_fast_of<I: InstructionSet>(v: f32) -> f32 {
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
    let bounded = v.clamp(-LIMIT, LIMIT);
    let square = bounded * bounded;
    let mut q = Q[8];
    for c in Q[..8].iter().rev() {
        q = multiply_add::<I>(q, square, *c);
    }
    v * multiply_add::<I>(bounded, q, 0.5)
}
