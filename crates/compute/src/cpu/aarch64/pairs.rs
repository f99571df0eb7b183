//! Products by the matrix instructions, each of which multiplies two rows with two columns, 8 bytes
//! of each.

use crate::cpu::PANEL;
use std::arch::aarch64::*;
use std::arch::asm;

/// Rows of a register tile: with the pairs of a panel's columns, 16 of the 32 registers are sums.
/// With 6 rows the compiler moves sums between registers.
const ROWS: usize = 4;

/// Pairs of columns of a panel.
const PAIRS: usize = PANEL / 2;

/// Sums of a register tile: two columns with two rows in each register.
type Sums = [[int32x4_t; PAIRS]; ROWS / 2];

/// Defines a module with the GEMM of an instruction.
macro_rules! pair_products {
    ($(#[$doc:meta])* $module:ident, $feature:literal, $instruction:literal) => {
        $(#[$doc])*
        pub(in crate::cpu) mod $module {
            use super::*;

            /// Adds the products of two columns with two rows: `[c0 r0, c0 r1, c1 r0, c1 r1]`.
            #[inline]
            #[target_feature(enable = $feature)]
            fn multiply_add(
                mut sums: int32x4_t,
                columns: uint32x4_t,
                rows: uint8x16_t,
            ) -> int32x4_t {
                // SAFETY: the instruction, which the CPU has, computes on registers alone.
                unsafe {
                    asm!(
                        $instruction,
                        sums = inout(vreg) sums,
                        columns = in(vreg) columns,
                        rows = in(vreg) rows,
                        options(pure, nomem, nostack, preserves_flags)
                    );
                }
                sums
            }

            /// Multiplies rows with the columns of a panel.
            ///
            /// # Safety
            ///
            /// `length` bytes follow every row, `length * PANEL` the panel; `length` is a multiple
            /// of 8.
            #[inline]
            #[target_feature(enable = $feature)]
            unsafe fn tile(rows: [*const u8; ROWS], length: usize, panel: *const u8) -> Sums {
                let mut sums = [[vdupq_n_s32(0); PAIRS]; ROWS / 2];
                for at in (0..length).step_by(8) {
                    // SAFETY: 8 bytes follow every row from byte `at` on, and 128 the panel from
                    // byte `at * PANEL` on: two groups of 4 bytes of each column.
                    unsafe {
                        let rows: [uint8x16_t; ROWS / 2] = std::array::from_fn(|i| {
                            let [even, odd] = [2 * i, 2 * i + 1].map(|r| vld1_u8(rows[r].add(at)));
                            vcombine_u8(even, odd)
                        });
                        let lines: *const u32 = panel.add(at * PANEL).cast();
                        for four in 0..PANEL / 4 {
                            let first = vld1q_u32(lines.add(4 * four));
                            let second = vld1q_u32(lines.add(PANEL + 4 * four));
                            let columns = [vzip1q_u32(first, second), vzip2q_u32(first, second)];
                            for (sums, rows) in sums.iter_mut().zip(rows) {
                                for (i, columns) in columns.into_iter().enumerate() {
                                    let sum = &mut sums[2 * four + i];
                                    *sum = multiply_add(*sum, columns, rows);
                                }
                            }
                        }
                    }
                }
                sums
            }

            /// Multiplies `n` rows with the columns of all panels, into lines that are `stride`
            /// values of 32 bits apart.
            ///
            /// # Safety
            ///
            /// The CPU has the instruction. `length` bytes follow every row; they are a multiple of
            /// 8, and `panels` of `length * PANEL`. `products` holds `n` such lines.
            #[target_feature(enable = $feature)]
            pub(in crate::cpu) unsafe fn gemm(
                row: impl Fn(usize) -> *const u8,
                n: usize,
                length: usize,
                panels: &[u8],
                products: *mut i32,
                stride: usize,
            ) {
                for (p, panel) in panels.chunks_exact(length * PANEL).enumerate() {
                    for start in (0..n).step_by(ROWS) {
                        // An incomplete last tile repeats its last row and drops the surplus.
                        let rows = std::array::from_fn(|i| row((start + i).min(n - 1)));
                        // SAFETY: passed on from the caller.
                        let sums = unsafe { tile(rows, length, panel.as_ptr()) };
                        for r in start..n.min(start + ROWS) {
                            let sums = &sums[(r - start) / 2];
                            for (four, sums) in sums.chunks_exact(2).enumerate() {
                                let values = match (r - start) % 2 {
                                    0 => vuzp1q_s32(sums[0], sums[1]),
                                    _ => vuzp2q_s32(sums[0], sums[1]),
                                };
                                // SAFETY: line `r` has 16 values from column `p * PANEL` on.
                                unsafe {
                                    let line = products.add(r * stride + p * PANEL);
                                    vst1q_s32(line.add(4 * four), values);
                                }
                            }
                        }
                    }
                }
            }
        }
    };
}

pair_products!(
    /// Signed bytes of rows, unsigned bytes of columns.
    int8,
    "neon,i8mm",
    "usmmla {sums:v}.4s, {columns:v}.16b, {rows:v}.16b"
);

pair_products!(
    /// Bfloat16 numbers; the sums are float32.
    bfloat16,
    "neon,bf16",
    "bfmmla {sums:v}.4s, {columns:v}.8h, {rows:v}.8h"
);
