//! The dot product tier: sums of four products of signed bytes by one instruction. Unsigned bytes
//! are taken as signed ones that are 128 less, and 128 times the sum of the row is added.

use crate::cpu::PANEL;
use std::arch::aarch64::*;
use std::arch::asm;

/// Rows of a register tile, which has all columns of a panel.
const ROWS: usize = 4;

/// Registers of a row's sums.
const FOURS: usize = PANEL / 4;

/// Adds sums of four products.
#[inline]
#[target_feature(enable = "dotprod")]
fn multiply_add(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction, which the CPU has, computes on registers alone.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// Adds sums of four products of each column with group `LANE` of four bytes of the row.
#[inline]
#[target_feature(enable = "dotprod")]
fn multiply_add_lane<const LANE: usize>(
    mut sums: int32x4_t,
    columns: int8x16_t,
    row: int8x16_t,
) -> int32x4_t {
    // SAFETY: as above.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {columns:v}.16b, {row:v}.4b[{lane}]",
            sums = inout(vreg) sums,
            columns = in(vreg) columns,
            row = in(vreg) row,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// Returns 16 unsigned bytes, each less 128.
///
/// # Safety
///
/// 16 bytes follow.
#[inline]
#[target_feature(enable = "dotprod")]
unsafe fn load_signed(bytes: *const u8) -> int8x16_t {
    // SAFETY: passed on from the caller.
    unsafe { vreinterpretq_s8_u8(veorq_u8(vld1q_u8(bytes), vdupq_n_u8(0x80))) }
}

/// See [`crate::cpu::Kernels::gemm_i8`].
///
/// # Safety
///
/// The CPU has the feature `dotprod`; the lengths are those of `Kernels::gemm_i8`.
#[target_feature(enable = "dotprod")]
pub(in crate::cpu) unsafe fn gemm_i8(rows: &[&[i8]], panels: &[u8], products: &mut [i32]) {
    let (n, length) = (rows.len(), rows[0].len());
    let width = products.len() / n;
    for (p, panel) in panels.chunks_exact(length * PANEL).enumerate() {
        for start in (0..n).step_by(ROWS) {
            // An incomplete last tile repeats its last row and drops the surplus.
            let tile_rows = std::array::from_fn(|i| rows[(start + i).min(n - 1)].as_ptr());
            // SAFETY: every row has `length` bytes, a multiple of 16, and the panel 16 times that.
            let sums = unsafe { tile(tile_rows, length, panel.as_ptr()) };
            for (r, sums) in (start..n).zip(sums) {
                let line = &mut products[r * width + p * PANEL..][..PANEL];
                for (line, sums) in line.chunks_exact_mut(4).zip(sums) {
                    // SAFETY: the chunk holds 4 values.
                    unsafe { vst1q_s32(line.as_mut_ptr(), sums) };
                }
            }
        }
    }
}

/// Multiplies rows with the columns of a panel.
///
/// # Safety
///
/// `length` bytes follow every row, `length * PANEL` the panel; `length` is a multiple of 16.
#[inline]
#[target_feature(enable = "dotprod")]
unsafe fn tile(
    rows: [*const i8; ROWS],
    length: usize,
    panel: *const u8,
) -> [[int32x4_t; FOURS]; ROWS] {
    /// Multiplies with group `LANE` of the rows' bytes.
    macro_rules! step {
        ($lane:literal, $sums:ident, $rows:ident, $lines:ident) => {
            for four in 0..FOURS {
                let columns = load_signed($lines.add(4 * PANEL * $lane + 16 * four));
                for (sums, row) in $sums.iter_mut().zip($rows) {
                    sums[four] = multiply_add_lane::<$lane>(sums[four], columns, row);
                }
            }
        };
    }
    let ones = vdupq_n_s8(1);
    let mut sums = [[vdupq_n_s32(0); FOURS]; ROWS];
    let mut row_sums = [vdupq_n_s32(0); ROWS];
    for at in (0..length).step_by(16) {
        // SAFETY: 16 bytes follow every row from byte `at` on, and 256 the panel from byte
        // `at * PANEL` on: four groups of 4 bytes of each column.
        unsafe {
            let rows: [int8x16_t; ROWS] = std::array::from_fn(|i| vld1q_s8(rows[i].add(at)));
            for (sum, row) in row_sums.iter_mut().zip(rows) {
                *sum = multiply_add(*sum, row, ones);
            }
            let lines = panel.add(at * PANEL);
            step!(0, sums, rows, lines);
            step!(1, sums, rows, lines);
            step!(2, sums, rows, lines);
            step!(3, sums, rows, lines);
        }
    }
    for (sums, row_sum) in sums.iter_mut().zip(row_sums) {
        let base = vdupq_n_s32(128 * vaddvq_s32(row_sum));
        *sums = sums.map(|sum| vaddq_s32(sum, base));
    }
    sums
}

/// See [`crate::cpu::Kernels::gemv_i8`].
///
/// # Safety
///
/// The CPU has the feature `dotprod`; the lengths are those of `Kernels::gemv_i8`.
#[target_feature(enable = "dotprod")]
pub(in crate::cpu) unsafe fn gemv_i8(rows: &[&[i8]], column: &[u8], products: &mut [i32]) {
    for (row, product) in rows.iter().zip(products) {
        // SAFETY: passed on from the caller.
        *product = unsafe { dot_i8(row, column) };
    }
}

/// See [`crate::cpu::Kernels::dot_i8`].
///
/// # Safety
///
/// The CPU has the feature `dotprod`; both slices have the same length, a multiple of 64.
#[target_feature(enable = "dotprod")]
pub(in crate::cpu) unsafe fn dot_i8(row: &[i8], column: &[u8]) -> i32 {
    let ones = vdupq_n_s8(1);
    let mut sums = [vdupq_n_s32(0); 4];
    let mut row_sums = [vdupq_n_s32(0); 2];
    for (row, column) in row.chunks_exact(64).zip(column.chunks_exact(64)) {
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: both chunks hold 64 bytes.
            unsafe {
                let row = vld1q_s8(row.as_ptr().add(16 * i));
                *sum = multiply_add(*sum, load_signed(column.as_ptr().add(16 * i)), row);
                row_sums[i % 2] = multiply_add(row_sums[i % 2], row, ones);
            }
        }
    }
    let sum = vaddq_s32(vaddq_s32(sums[0], sums[1]), vaddq_s32(sums[2], sums[3]));
    vaddvq_s32(sum) + 128 * vaddvq_s32(vaddq_s32(row_sums[0], row_sums[1]))
}
