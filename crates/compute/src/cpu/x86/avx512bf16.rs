//! Bfloat16 GEMM by AVX-512 BF16.

use super::tiles_512::{self, LaneDot};
use std::arch::x86_64::*;

struct Bfloat16;

impl LaneDot for Bfloat16 {
    #[inline(always)]
    unsafe fn multiply_add(sums: __m512i, columns: __m512i, row: __m512i) -> __m512i {
        // SAFETY: the caller guarantees AVX-512 BF16; any 32 bytes are 16 bfloat16 numbers.
        unsafe {
            let columns = std::mem::transmute::<__m512i, __m512bh>(columns);
            let row = std::mem::transmute::<__m512i, __m512bh>(row);
            _mm512_castps_si512(_mm512_dpbf16_ps(_mm512_castsi512_ps(sums), columns, row))
        }
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
    unsafe { tiles_512::gemm::<Bfloat16, _, _, _>(rows, panels, products, stride) };
}
