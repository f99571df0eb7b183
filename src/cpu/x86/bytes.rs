//! Inner products in registers of 32 bytes, written once for AVX2 and AVX-VNNI, which differ in one
//! instruction.

use crate::cpu::GROUP;
use std::arch::x86_64::*;

/// The instruction that multiplies bytes.
pub(super) trait Bytes: Copy {
    /// Adds to each 32-bit lane the sum of its four products of unsigned and signed bytes.
    ///
    /// # Safety
    ///
    /// The CPU has the instruction.
    unsafe fn multiply_add(sums: __m256i, column: __m256i, row: __m256i) -> __m256i;
}

/// Defines the three kernels of a tier in the module that this stands in.
macro_rules! bind {
    ($bytes:ident, $features:literal) => {
        /// See [`crate::cpu::Kernels::panel_products`].
        ///
        /// # Safety
        ///
        /// The CPU has the tier's features; the lengths are those of `Kernels::panel_products`.
        #[target_feature(enable = $features)]
        pub(in crate::cpu) unsafe fn panel_products(
            rows: &[&[i8]],
            groups: &[u8],
            products: &mut [i32],
        ) {
            // SAFETY: passed on from the caller.
            unsafe { bytes::panel_products::<$bytes>(rows, groups, products) };
        }

        /// See [`crate::cpu::Kernels::row_products`].
        ///
        /// # Safety
        ///
        /// The CPU has the tier's features; the lengths are those of `Kernels::row_products`.
        #[target_feature(enable = $features)]
        pub(in crate::cpu) unsafe fn row_products(
            rows: &[&[i8]],
            column: &[u8],
            products: &mut [i32],
        ) {
            // SAFETY: passed on from the caller.
            unsafe { bytes::row_products::<$bytes>(rows, column, products) };
        }

        /// See [`crate::cpu::Kernels::dot`].
        ///
        /// # Safety
        ///
        /// The CPU has the tier's features; both slices have the same length, a multiple of 32.
        #[target_feature(enable = $features)]
        pub(in crate::cpu) unsafe fn dot(row: &[i8], column: &[u8]) -> i32 {
            // SAFETY: passed on from the caller.
            let [score] = unsafe { bytes::dots::<$bytes, 1>([row.as_ptr()], column) };
            score
        }
    };
}
pub(super) use bind;

/// Rows of a register tile.
const TILE: usize = 4;

/// See [`bind`].
///
/// # Safety
///
/// The CPU has AVX2 and the instruction of `B`; every row has the same length, a multiple of 4; `groups` is a
/// whole number of groups and `products` holds a value a row and column.
#[inline(always)]
pub(super) unsafe fn panel_products<B: Bytes>(rows: &[&[i8]], groups: &[u8], products: &mut [i32]) {
    let stride = rows[0].len();
    let width = groups.len() / stride;
    for (g, group) in groups.chunks_exact(stride * GROUP).enumerate() {
        for start in (0..rows.len()).step_by(TILE) {
            // A last tile short of rows repeats one and drops the surplus.
            let row = |i: usize| rows[(start + i).min(rows.len() - 1)].as_ptr();
            // SAFETY: `stride` bytes lie behind every row, `GROUP * stride` in the group.
            let tile = unsafe { tile::<B>(std::array::from_fn(row), group) };
            for (i, values) in tile.iter().enumerate().take(rows.len() - start) {
                let at = (start + i) * width + g * GROUP;
                products[at..at + GROUP].copy_from_slice(values);
            }
        }
    }
}

/// Inner products of a few rows and one group.
///
/// # Safety
///
/// As [`panel_products`]; every pointer leads to `group.len() / GROUP` bytes.
#[inline(always)]
unsafe fn tile<B: Bytes>(rows: [*const i8; TILE], group: &[u8]) -> [[i32; GROUP]; TILE] {
    // SAFETY: the caller vouches for AVX2 and for the pointers; chunks hold 64 bytes.
    unsafe {
        let mut sums = [[_mm256_setzero_si256(); 2]; TILE];
        for (i, chunk) in group.chunks_exact(4 * GROUP).enumerate() {
            let low = _mm256_loadu_si256(chunk.as_ptr().cast());
            let high = _mm256_loadu_si256(chunk.as_ptr().add(32).cast());
            for (sums, row) in sums.iter_mut().zip(rows) {
                let four = _mm256_set1_epi32(row.add(4 * i).cast::<i32>().read_unaligned());
                sums[0] = B::multiply_add(sums[0], low, four);
                sums[1] = B::multiply_add(sums[1], high, four);
            }
        }
        let mut out = [[0; GROUP]; TILE];
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
/// The CPU has AVX2 and the instruction of `B`; every row is as long as the column, a multiple of 32.
#[inline(always)]
pub(super) unsafe fn row_products<B: Bytes>(rows: &[&[i8]], column: &[u8], products: &mut [i32]) {
    for (rows, products) in rows.chunks(TILE).zip(products.chunks_mut(TILE)) {
        let row = |i: usize| rows[i.min(rows.len() - 1)].as_ptr();
        // SAFETY: passed on from the caller.
        let values = unsafe { dots::<B, TILE>(std::array::from_fn(row), column) };
        products.copy_from_slice(&values[..products.len()]);
    }
}

/// Inner products of `R` rows and one column.
///
/// # Safety
///
/// The CPU has AVX2 and the instruction of `B`; `column.len()` bytes, a multiple of 32, lie behind every
/// pointer.
#[inline(always)]
pub(super) unsafe fn dots<B: Bytes, const R: usize>(
    rows: [*const i8; R],
    column: &[u8],
) -> [i32; R] {
    // SAFETY: the caller vouches for AVX2 and for the pointers; chunks hold 32 bytes.
    unsafe {
        let mut sums = [_mm256_setzero_si256(); R];
        for (i, chunk) in column.chunks_exact(32).enumerate() {
            let column = _mm256_loadu_si256(chunk.as_ptr().cast());
            for (sum, row) in sums.iter_mut().zip(rows) {
                *sum = B::multiply_add(*sum, column, _mm256_loadu_si256(row.add(32 * i).cast()));
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
