//! GEMM in 64-byte registers, written once for int8 (AVX-512 VNNI) and bfloat16 (AVX-512 BF16),
//! which differ in one instruction.

use crate::cpu::PANEL;
use std::arch::x86_64::*;

/// The instruction that multiplies the elements in each 32-bit lane (four bytes or two bfloat16
/// numbers) and adds the products.
pub(super) trait LaneDot {
    /// Adds to each lane, whose sum is an integer or the bits of a float32, the products of its
    /// elements.
    ///
    /// # Safety
    ///
    /// The CPU has the instruction.
    unsafe fn multiply_add(sums: __m512i, columns: __m512i, row: __m512i) -> __m512i;
}

/// Inner products of rows with the columns of one to four panels. Register tiles have as many rows
/// as the registers left by the columns allow.
///
/// # Safety
///
/// The CPU has the instruction, which takes elements of the types `R` and `C`. Every row has the
/// same length, a multiple of four bytes; `panels` holds one to four panels of 16 columns of that
/// length; `products` has room for 32 bits per row and column, rows `stride` values apart.
#[inline(always)]
pub(super) unsafe fn gemm<D: LaneDot, R, C, P>(
    rows: &[&[R]],
    panels: &[C],
    products: &mut [P],
    stride: usize,
) {
    assert!(size_of::<P>() == 4);
    // SAFETY: passed on from the caller; the number of panels is that of the arm.
    unsafe {
        match size_of_val(panels) / (size_of_val(rows[0]) * PANEL) {
            1 => tiles::<D, _, _, _, 12, 1>(rows, panels, products, stride),
            2 => tiles::<D, _, _, _, 12, 2>(rows, panels, products, stride),
            3 => tiles::<D, _, _, _, 8, 3>(rows, panels, products, stride),
            _ => tiles::<D, _, _, _, 6, 4>(rows, panels, products, stride),
        }
    }
}

/// Covers the rows with tiles of `T` rows and `G` panels. An incomplete last tile repeats its last
/// row and drops the surplus.
///
/// # Safety
///
/// As [`gemm`], for exactly `G` panels.
#[inline(always)]
unsafe fn tiles<D: LaneDot, R, C, P, const T: usize, const G: usize>(
    rows: &[&[R]],
    panels: &[C],
    products: &mut [P],
    stride: usize,
) {
    let bytes = size_of_val(rows[0]);
    assert!(size_of_val(panels) == G * PANEL * bytes);
    let panels = panels.as_ptr().cast::<u8>();
    for start in (0..rows.len()).step_by(T) {
        let row: [*const i32; T] =
            std::array::from_fn(|i| rows[(start + i).min(rows.len() - 1)].as_ptr().cast());
        // SAFETY: the caller guarantees the CPU features. Every row is `bytes` bytes long, and the
        // panels `G * PANEL` times as much, as asserted.
        let sums = unsafe {
            let mut sums = [[_mm512_setzero_si512(); G]; T];
            for i in 0..bytes / 4 {
                let columns: [__m512i; G] = std::array::from_fn(|g| {
                    _mm512_loadu_si512(panels.add((g * bytes + 4 * i) * PANEL).cast())
                });
                for (sums, row) in sums.iter_mut().zip(row) {
                    let four = _mm512_set1_epi32(row.add(i).read_unaligned());
                    for (sum, columns) in sums.iter_mut().zip(columns) {
                        *sum = D::multiply_add(*sum, columns, four);
                    }
                }
            }
            sums
        };
        for (i, sums) in sums.iter().enumerate().take(rows.len() - start) {
            let products = &mut products[(start + i) * stride..][..G * PANEL];
            for (sum, products) in sums.iter().zip(products.chunks_exact_mut(PANEL)) {
                // SAFETY: the chunk holds 16 values of 32 bits.
                unsafe { _mm512_storeu_si512(products.as_mut_ptr().cast(), *sum) };
            }
        }
    }
}
