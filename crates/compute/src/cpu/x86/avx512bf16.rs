//! Bfloat16 GEMM by AVX-512 BF16.

use super::tiles_512::{self, LaneDot};
use crate::cpu::{MAX_PANELS, OperandRows, PANEL};
use std::arch::x86_64::*;

/// Rows of one pass over the panels: a whole number of register tiles of every shape.
const ROWS: usize = 48;

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
    rows: OperandRows<'_, u16>,
    panels: &[u16],
    products: &mut [f32],
    stride: usize,
) {
    for start in (0..rows.n).step_by(ROWS) {
        let n = ROWS.min(rows.n - start);
        let slices: [&[u16]; ROWS] = std::array::from_fn(|i| rows.row(start + i.min(n - 1)));
        for (c, panels) in panels.chunks(MAX_PANELS * PANEL * rows.length).enumerate() {
            let out = &mut products[start * stride + c * MAX_PANELS * PANEL..];
            // SAFETY: passed on from the caller; there are one to four panels.
            unsafe { tiles_512::gemm::<Bfloat16, _, _, _>(&slices[..n], panels, out, stride) };
        }
    }
}
