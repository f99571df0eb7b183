//! The AVX-512 VNNI tier: 64 bytes at a time.

use super::tiles_512::{self, LaneDot};
use std::arch::x86_64::*;

struct Int8;

impl LaneDot for Int8 {
    #[inline(always)]
    unsafe fn multiply_add(sums: __m512i, columns: __m512i, row: __m512i) -> __m512i {
        // SAFETY: the caller guarantees AVX-512 VNNI.
        unsafe { _mm512_dpbusd_epi32(sums, columns, row) }
    }
}

/// See [`crate::cpu::Kernels::gemm_i8`].
///
/// # Safety
///
/// The CPU has AVX-512F and AVX-512 VNNI; the lengths are those of `Kernels::gemm_i8`.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(in crate::cpu) unsafe fn gemm_i8(rows: &[&[i8]], panels: &[u8], products: &mut [i32]) {
    let stride = products.len() / rows.len();
    // SAFETY: passed on from the caller.
    unsafe { tiles_512::gemm::<Int8, _, _, _>(rows, panels, products, stride) };
}

/// See [`crate::cpu::Kernels::gemv_i8`].
///
/// # Safety
///
/// The CPU has AVX-512F and AVX-512 VNNI; the lengths are those of `Kernels::gemv_i8`.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(in crate::cpu) unsafe fn gemv_i8(rows: &[&[i8]], column: &[u8], products: &mut [i32]) {
    for (rows, products) in rows.chunks(16).zip(products.chunks_mut(16)) {
        // Row after row, in memory order, so that the hardware prefetcher keeps up.
        let sums = std::array::from_fn(|i| {
            let row = rows[i.min(rows.len() - 1)].as_ptr();
            let mut sum = _mm512_setzero_si512();
            for (i, chunk) in column.chunks_exact(64).enumerate() {
                // SAFETY: the chunk holds 64 bytes, and so does the row from byte 64 i on.
                unsafe {
                    let column = _mm512_loadu_si512(chunk.as_ptr().cast());
                    let row = _mm512_loadu_si512(row.add(64 * i).cast());
                    sum = _mm512_dpbusd_epi32(sum, column, row);
                }
            }
            sum
        });
        let mut values = [0; 16];
        // SAFETY: `values` holds 16 values.
        unsafe { _mm512_storeu_si512(values.as_mut_ptr().cast(), sum_each(sums)) };
        products.copy_from_slice(&values[..products.len()]);
    }
}

/// See [`crate::cpu::Kernels::dot_i8`].
///
/// # Safety
///
/// The CPU has AVX-512F and AVX-512 VNNI; both slices have the same length, a multiple of 64.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(in crate::cpu) unsafe fn dot_i8(row: &[i8], column: &[u8]) -> i32 {
    let mut sum = _mm512_setzero_si512();
    for (row, column) in row.chunks_exact(64).zip(column.chunks_exact(64)) {
        // SAFETY: both chunks hold 64 bytes.
        unsafe {
            let column = _mm512_loadu_si512(column.as_ptr().cast());
            sum = _mm512_dpbusd_epi32(sum, column, _mm512_loadu_si512(row.as_ptr().cast()));
        }
    }
    _mm512_reduce_add_epi32(sum)
}

/// The sum of the lanes of each of 16 registers.
#[target_feature(enable = "avx512f")]
fn sum_each(sums: [__m512i; 16]) -> __m512i {
    // Each step halves the registers: sums of two, then of four neighbours in every quarter, then
    // quarters.
    let pairs: [__m512i; 8] = std::array::from_fn(|i| {
        let (a, b) = (sums[2 * i], sums[2 * i + 1]);
        _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b))
    });
    let fours: [__m512i; 4] = std::array::from_fn(|i| {
        let (a, b) = (pairs[2 * i], pairs[2 * i + 1]);
        _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b))
    });
    let [low, high]: [__m512i; 2] = std::array::from_fn(|i| {
        let (a, b) = (fours[2 * i], fours[2 * i + 1]);
        _mm512_add_epi32(
            _mm512_shuffle_i32x4::<0b01_00_01_00>(a, b),
            _mm512_shuffle_i32x4::<0b11_10_11_10>(a, b),
        )
    });
    _mm512_add_epi32(
        _mm512_shuffle_i32x4::<0b10_00_10_00>(low, high),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(low, high),
    )
}
