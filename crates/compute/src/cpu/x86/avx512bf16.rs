//! Bfloat16 GEMM by AVX-512 BF16.

use super::tiles_512::{self, LaneDot};
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
struct Bfloat16;

impl LaneDot for Bfloat16 {
    type Row = u16;
    type Column = u16;
    type Sums = __m512;

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        // SAFETY: the caller guarantees AVX-512F.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn multiply_add(sums: __m512, columns: __m512i, row: __m512i) -> __m512 {
        // SAFETY: the caller guarantees AVX-512 BF16; any 32 bytes are 16 bfloat16 numbers.
        unsafe {
            let columns = std::mem::transmute::<__m512i, __m512bh>(columns);
            let row = std::mem::transmute::<__m512i, __m512bh>(row);
            _mm512_dpbf16_ps(sums, columns, row)
        }
    }

    #[inline(always)]
    unsafe fn bits(sums: __m512) -> __m512i {
        // SAFETY: the caller guarantees AVX-512F.
        unsafe { _mm512_castps_si512(sums) }
    }
}

/// See [`crate::cpu::Bf16::gemm`].
///
/// # Safety
///
/// The CPU has AVX-512F and AVX-512 BF16; the lengths are those of `Bf16::gemm`.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(in crate::cpu) unsafe fn gemm_bf16(
    rows: &[&[u16]],
    panels: &[u16],
    products: &mut [f32],
    stride: usize,
) {
    // SAFETY: passed on from the caller.
    unsafe { tiles_512::gemm::<Bfloat16, f32>(rows, panels, products, stride) };
}
