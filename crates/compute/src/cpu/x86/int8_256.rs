//! Int8 products in 32-byte registers, written once for AVX2 and AVX-VNNI, which differ in one
//! instruction.

use crate::cpu::PANEL;
use std::arch::x86_64::*;

/// The instruction that multiplies bytes and adds the products.
pub(super) trait MultiplyAdd {
    /// Adds to each 32-bit lane the sum of its four products of unsigned and signed bytes.
    ///
    /// # Safety
    ///
    /// The CPU has the instruction.
    unsafe fn multiply_add(sums: __m256i, column: __m256i, row: __m256i) -> __m256i;
}

/// Defines the three kernels of a tier in the calling module.
macro_rules! bind {
    ($instruction:ident, $features:literal) => {
        int8_256::bind! { $instruction, $features,
            gemm_i8(rows: &[&[i8]], panels: &[u8], products: &mut [i32]) -> ();
            gemv_i8(rows: &[&[i8]], column: &[u8], products: &mut [i32]) -> ();
            dot_i8(row: &[i8], column: &[u8]) -> i32;
        }
    };
    ($instruction:ident, $features:literal,
        $($name:ident($($argument:ident: $type:ty),+) -> $result:ty;)+) => {
        $(
            /// See the function of [`crate::cpu::Kernels`] of this name.
            ///
            /// # Safety
            ///
            /// The CPU has the tier's features; the lengths are those of that function.
            #[target_feature(enable = $features)]
            pub(in crate::cpu) unsafe fn $name($($argument: $type),+) -> $result {
                // SAFETY: passed on from the caller.
                unsafe { int8_256::$name::<$instruction>($($argument),+) }
            }
        )+
    };
}
pub(super) use bind;

/// Rows of a register tile.
const TILE: usize = 4;

/// See [`bind`].
///
/// # Safety
///
/// The CPU has AVX2 and the instruction of `I`; every row has the same length, a multiple of 4;
/// `panels` is a whole number of panels; `products` holds one value per row and column.
#[inline(always)]
pub(super) unsafe fn gemm_i8<I: MultiplyAdd>(rows: &[&[i8]], panels: &[u8], products: &mut [i32]) {
    let stride = rows[0].len();
    let width = panels.len() / stride;
    for (g, panel) in panels.chunks_exact(stride * PANEL).enumerate() {
        for start in (0..rows.len()).step_by(TILE) {
            // An incomplete last tile repeats its last row and drops the surplus.
            let row = |i: usize| rows[(start + i).min(rows.len() - 1)].as_ptr();
            // SAFETY: every row has `stride` bytes, the panel `PANEL * stride`.
            let tile = unsafe { tile::<I>(std::array::from_fn(row), panel) };
            for (i, values) in tile.iter().enumerate().take(rows.len() - start) {
                let at = (start + i) * width + g * PANEL;
                products[at..at + PANEL].copy_from_slice(values);
            }
        }
    }
}

/// Inner products of [`TILE`] rows and one panel.
///
/// # Safety
///
/// As [`gemm_i8`]; every pointer is followed by `panel.len() / PANEL` bytes.
#[inline(always)]
unsafe fn tile<I: MultiplyAdd>(rows: [*const i8; TILE], panel: &[u8]) -> [[i32; PANEL]; TILE] {
    // SAFETY: the caller guarantees AVX2 and the pointers; chunks hold 64 bytes.
    unsafe {
        let mut sums = [[_mm256_setzero_si256(); 2]; TILE];
        for (i, chunk) in panel.chunks_exact(4 * PANEL).enumerate() {
            let low = _mm256_loadu_si256(chunk.as_ptr().cast());
            let high = _mm256_loadu_si256(chunk.as_ptr().add(32).cast());
            for (sums, row) in sums.iter_mut().zip(rows) {
                let four = _mm256_set1_epi32(row.add(4 * i).cast::<i32>().read_unaligned());
                sums[0] = I::multiply_add(sums[0], low, four);
                sums[1] = I::multiply_add(sums[1], high, four);
            }
        }
        let mut out = [[0; PANEL]; TILE];
        for (out, sums) in out.iter_mut().zip(sums) {
            _mm256_storeu_si256(out.as_mut_ptr().cast(), sums[0]);
            _mm256_storeu_si256(out[8..].as_mut_ptr().cast(), sums[1]);
        }
        out
    }
}

/// See [`bind`].
///
/// # Safety
///
/// The CPU has AVX2 and the instruction of `I`; every row is as long as the column, a multiple of
/// 32.
#[inline(always)]
pub(super) unsafe fn gemv_i8<I: MultiplyAdd>(rows: &[&[i8]], column: &[u8], products: &mut [i32]) {
    for (rows, products) in rows.chunks(TILE).zip(products.chunks_mut(TILE)) {
        let row = |i: usize| rows[i.min(rows.len() - 1)].as_ptr();
        // SAFETY: passed on from the caller.
        let values = unsafe { dots::<I, TILE>(std::array::from_fn(row), column) };
        products.copy_from_slice(&values[..products.len()]);
    }
}

/// See [`bind`].
///
/// # Safety
///
/// As [`gemv_i8`], for one row.
#[inline(always)]
pub(super) unsafe fn dot_i8<I: MultiplyAdd>(row: &[i8], column: &[u8]) -> i32 {
    // SAFETY: passed on from the caller.
    let [score] = unsafe { dots::<I, 1>([row.as_ptr()], column) };
    score
}

/// Inner products of `R` rows and one column.
///
/// # Safety
///
/// The CPU has AVX2 and the instruction of `I`; `column.len()` bytes, a multiple of 32, follow
/// every pointer.
#[inline(always)]
unsafe fn dots<I: MultiplyAdd, const R: usize>(rows: [*const i8; R], column: &[u8]) -> [i32; R] {
    // SAFETY: the caller guarantees AVX2 and the pointers; chunks hold 32 bytes.
    unsafe {
        let mut sums = [_mm256_setzero_si256(); R];
        for (i, chunk) in column.chunks_exact(32).enumerate() {
            let column = _mm256_loadu_si256(chunk.as_ptr().cast());
            for (sum, row) in sums.iter_mut().zip(rows) {
                *sum = I::multiply_add(*sum, column, _mm256_loadu_si256(row.add(32 * i).cast()));
            }
        }
        sums.map(|sum| {
            let four =
                _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
            let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
            let one = _mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two));
            _mm_cvtsi128_si32(one)
        })
    }
}
