//! Tiles of products in registers of 64 bytes, written once for bytes (AVX-512 VNNI) and bfloat16 numbers (AVX-512
//! BF16), which differ in one instruction.

use crate::cpu::GROUP;
use std::arch::x86_64::*;

/// The instruction that multiplies what stands in 32 bits, four bytes or two bfloat16 numbers, and adds the
/// products up.
pub(super) trait Quads: Copy {
    /// An element of rows.
    type Row;
    /// An element of columns, as large as one of rows.
    type Column;
    /// Sums, one in each 32-bit lane.
    type Sums: Copy;

    /// No sum yet.
    ///
    /// # Safety
    ///
    /// The CPU has AVX-512F.
    unsafe fn zero() -> Self::Sums;

    /// Adds to each lane the products of its elements.
    ///
    /// # Safety
    ///
    /// The CPU has the instruction.
    unsafe fn multiply_add(sums: Self::Sums, columns: __m512i, row: __m512i) -> Self::Sums;

    /// The lanes' bits.
    ///
    /// # Safety
    ///
    /// The CPU has AVX-512F.
    unsafe fn bits(sums: Self::Sums) -> __m512i;
}

/// Inner products of rows with the columns of one to four groups, by tiles with as many rows as leave registers for
/// the columns.
///
/// # Safety
///
/// The CPU has the instruction. Every row has the same length, a multiple of four bytes; `groups` holds
/// one to four groups of 16 columns of that length, and `products` has room for 32 bits a row and column, rows
/// `stride` apart.
#[inline(always)]
pub(super) unsafe fn panel_products<Q: Quads, P>(
    rows: &[&[Q::Row]],
    groups: &[Q::Column],
    products: &mut [P],
    stride: usize,
) {
    assert!(size_of::<P>() == 4);
    // SAFETY: passed on from the caller; the number of groups is that of the arm.
    unsafe {
        match size_of_val(groups) / (size_of_val(rows[0]) * GROUP) {
            1 => tiles::<Q, P, 12, 1>(rows, groups, products, stride),
            2 => tiles::<Q, P, 12, 2>(rows, groups, products, stride),
            3 => tiles::<Q, P, 8, 3>(rows, groups, products, stride),
            _ => tiles::<Q, P, 6, 4>(rows, groups, products, stride),
        }
    }
}

/// Covers the rows with tiles of `R` rows and `G` groups. A last tile short of rows repeats one and drops the
/// surplus.
///
/// # Safety
///
/// As [`panel_products`], for exactly `G` groups.
#[inline(always)]
unsafe fn tiles<Q: Quads, P, const R: usize, const G: usize>(
    rows: &[&[Q::Row]],
    groups: &[Q::Column],
    products: &mut [P],
    stride: usize,
) {
    let bytes = size_of_val(rows[0]);
    assert!(size_of_val(groups) == G * GROUP * bytes);
    let groups = groups.as_ptr().cast::<u8>();
    for start in (0..rows.len()).step_by(R) {
        let row: [*const i32; R] =
            std::array::from_fn(|i| rows[(start + i).min(rows.len() - 1)].as_ptr().cast());
        // SAFETY: the caller vouches for the CPU. Every row is `bytes` bytes long, and the groups
        // `G * GROUP` times as much, as asserted.
        let sums = unsafe {
            let mut sums = [[Q::zero(); G]; R];
            for i in 0..bytes / 4 {
                let columns: [__m512i; G] = std::array::from_fn(|g| {
                    _mm512_loadu_si512(groups.add((g * bytes + 4 * i) * GROUP).cast())
                });
                for (sums, row) in sums.iter_mut().zip(row) {
                    let four = _mm512_set1_epi32(row.add(i).read_unaligned());
                    for (sum, columns) in sums.iter_mut().zip(columns) {
                        *sum = Q::multiply_add(*sum, columns, four);
                    }
                }
            }
            sums
        };
        for (i, sums) in sums.iter().enumerate().take(rows.len() - start) {
            let products = &mut products[(start + i) * stride..][..G * GROUP];
            for (sum, products) in sums.iter().zip(products.chunks_exact_mut(GROUP)) {
                // SAFETY: the chunk holds 16 values of 32 bits.
                unsafe { _mm512_storeu_si512(products.as_mut_ptr().cast(), Q::bits(*sum)) };
            }
        }
    }
}
