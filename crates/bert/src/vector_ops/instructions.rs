//! Instruction sets: operations that plain Rust, which the compiler vectorises for each set, does
//! not express.

use warpseek_compute::cpu::to_bf16;

/// Independent partial sums, so that the compiler vectorises reductions.
pub(super) const LANES: usize = 16;

/// Operations of an instruction set.
pub(super) trait InstructionSet {
    /// True if it multiplies and adds in one step.
    const FMA: bool;

    /// Rounds to bfloat16.
    #[inline(always)]
    fn round(values: &[f32; LANES]) -> [u16; LANES] {
        std::array::from_fn(|j| to_bf16(values[j]))
    }

    /// Returns the sum.
    #[inline(always)]
    fn sum(values: &[f32; LANES]) -> f32 {
        values.iter().sum()
    }

    /// Returns the largest value.
    #[inline(always)]
    fn largest(values: &[f32; LANES]) -> f32 {
        values.iter().copied().fold(f32::NEG_INFINITY, larger)
    }
}

/// The build target's own instructions.
pub(super) struct Portable;

impl InstructionSet for Portable {
    // Every AArch64 CPU has it.
    const FMA: bool = cfg!(target_arch = "aarch64");
}

/// AVX2 with FMA.
#[cfg(target_arch = "x86_64")]
pub(super) struct Fused;

#[cfg(target_arch = "x86_64")]
impl InstructionSet for Fused {
    const FMA: bool = true;
}

/// AVX-512, with BF16 or without.
#[cfg(target_arch = "x86_64")]
pub(super) struct Wide<const BF16: bool>;

#[cfg(target_arch = "x86_64")]
impl<const BF16: bool> InstructionSet for Wide<BF16> {
    const FMA: bool = true;

    #[inline(always)]
    fn round(values: &[f32; LANES]) -> [u16; LANES] {
        use std::arch::x86_64::{__m256bh, _mm512_cvtneps_pbh, _mm512_loadu_ps};
        if !BF16 {
            return std::array::from_fn(|j| to_bf16(values[j]));
        }
        // SAFETY: `VectorOps::of` returns the table of this set only where the CPU has AVX-512
        // BF16; 16 values are read, and 16 numbers of 16 bits are returned as they are.
        unsafe {
            let rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(values.as_ptr()));
            std::mem::transmute::<__m256bh, [u16; LANES]>(rounded)
        }
    }

    // In plain Rust the compiler adds lane after lane.

    #[inline(always)]
    fn sum(values: &[f32; LANES]) -> f32 {
        use std::arch::x86_64::{
            _mm256_loadu_ps, _mm512_add_pd, _mm512_cvtps_pd, _mm512_reduce_add_pd,
        };
        // In float64, where the order of the lanes does not matter.
        // SAFETY: `VectorOps::of` returns this table only where the CPU has AVX-512; 16 values are
        // read.
        unsafe {
            let [low, high] =
                [0, 8].map(|i| _mm512_cvtps_pd(_mm256_loadu_ps(values[i..].as_ptr())));
            _mm512_reduce_add_pd(_mm512_add_pd(low, high)) as f32
        }
    }

    #[inline(always)]
    fn largest(values: &[f32; LANES]) -> f32 {
        use std::arch::x86_64::{_mm512_loadu_ps, _mm512_reduce_max_ps};
        // SAFETY: as in `sum`.
        unsafe { _mm512_reduce_max_ps(_mm512_loadu_ps(values.as_ptr())) }
    }
}

/// Returns the larger number; `a` if `b` is NaN.
#[inline(always)]
pub(super) fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// `a * b + c`, fused if the instruction set has it.
#[inline(always)]
pub(super) fn multiply_add<I: InstructionSet>(a: f32, b: f32, c: f32) -> f32 {
    if I::FMA { a.mul_add(b, c) } else { a * b + c }
}
