//! GEMM on AMX tiles: 16 rows x 64 bytes of the left operand as they are in memory, 64 bytes x 16
//! columns of a panel.

use super::amx_tiles::{TILE_BYTES, TILE_ROWS, close_scope, open_scope};
use crate::cpu::{OperandRows, PANEL};
use std::arch::asm;

/// Rows and columns of a block: two tiles each way, whose four products fill half of the tile
/// registers.
const BLOCK: usize = 2 * TILE_ROWS;

/// Defines the module of an element type: types of rows, columns and products, instruction.
macro_rules! products_of {
    ($(#[$doc:meta])* $name:ident, $row:ty, $column:ty, $product:ty, $instruction:literal) => {
        $(#[$doc])*
        pub(in crate::cpu) mod $name {
            use super::*;

            /// See [`crate::cpu::Kernels::gemm_rows_i8`] and [`crate::cpu::Bf16::gemm`].
            ///
            /// # Safety
            ///
            /// The CPU has the instruction and the tiles were granted; the lengths are those of the
            /// public function.
            pub(in crate::cpu) unsafe fn gemm(
                rows: OperandRows<'_, $row>,
                panels: &[$column],
                products: &mut [$product],
                stride: usize,
            ) {
                let panel_len = rows.length * PANEL;
                let n_panels = panels.len() / panel_len;
                // SAFETY: passed on from the caller.
                unsafe { open_scope() };
                for g in (0..n_panels / 2).map(|pair| 2 * pair) {
                    let pair = [g, g + 1].map(|g| panels[g * panel_len..].as_ptr());
                    // SAFETY: passed on from the caller; both panels are there, and tiles are
                    // configured.
                    unsafe { multiply(rows, pair, &mut products[g * PANEL..], stride) };
                }
                if n_panels % 2 == 1 {
                    // SAFETY: as above.
                    unsafe { multiply_last(rows, panels, products, stride) };
                }
                // SAFETY: opened above.
                unsafe { close_scope() };
            }

            /// Multiplies all rows by a pair of panels.
            ///
            /// # Safety
            ///
            /// As [`gemm`], for a pair of panels; tiles are configured at full size.
            #[inline(always)]
            unsafe fn multiply(
                rows: OperandRows<'_, $row>,
                pair: [*const $column; 2],
                products: &mut [$product],
                stride: usize,
            ) {
                for start in (0..rows.n).step_by(BLOCK) {
                    let step = if rows.n - start > TILE_ROWS { multiply_32 } else { multiply_16 };
                    // SAFETY: the public function checked that rows and products are there up to a
                    // multiple of 16 rows, and the panels; tiles are configured.
                    unsafe {
                        step(
                            rows.values[start * rows.stride..].as_ptr().cast(),
                            rows.stride * size_of::<$row>(),
                            pair.map(<*const $column>::cast),
                            rows.length * size_of::<$row>() / TILE_BYTES,
                            products[start * stride..].as_mut_ptr().cast(),
                            stride * size_of::<$product>(),
                        );
                    }
                }
            }

            /// Multiplies all rows by the last panel, which has no pair: it is multiplied twice.
            ///
            /// # Safety
            ///
            /// As [`gemm`]; tiles are configured at full size.
            #[cold]
            unsafe fn multiply_last(
                rows: OperandRows<'_, $row>,
                panels: &[$column],
                products: &mut [$product],
                stride: usize,
            ) {
                let panel_len = rows.length * PANEL;
                let last = panels.len() / panel_len - 1;
                let panel = panels[last * panel_len..].as_ptr();
                let mut both = [<$product>::default(); BLOCK * BLOCK];
                for start in (0..rows.n).step_by(BLOCK) {
                    let n = BLOCK.min(rows.n - start);
                    let values = &rows.values[start * rows.stride..];
                    let some = OperandRows { values, n, ..rows };
                    // SAFETY: passed on from the caller.
                    unsafe { multiply(some, [panel; 2], &mut both, BLOCK) };
                    let lines = products[start * stride + last * PANEL..].chunks_mut(stride);
                    for (to, from) in lines.zip(both.chunks_exact(BLOCK)).take(n) {
                        to[..PANEL].copy_from_slice(&from[..PANEL]);
                    }
                }
            }

            /// Multiplies what the tile registers hold, `4 * steps` times, to measure how fast that
            /// is.
            ///
            /// # Safety
            ///
            /// The CPU has the instruction and the tiles were granted.
            pub(in crate::cpu) unsafe fn multiply_registers(steps: usize) {
                // SAFETY: passed on from the caller.
                unsafe { open_scope() };
                // SAFETY: tiles are configured at full size; no memory is touched.
                unsafe {
                    asm!(
                        "2:",
                        concat!($instruction, " tmm0, tmm4, tmm6"),
                        concat!($instruction, " tmm1, tmm4, tmm7"),
                        concat!($instruction, " tmm2, tmm5, tmm6"),
                        concat!($instruction, " tmm3, tmm5, tmm7"),
                        "dec {steps}",
                        "jnz 2b",
                        steps = inout(reg) steps.max(1) => _,
                        out("tmm0") _,
                        out("tmm1") _,
                        out("tmm2") _,
                        out("tmm3") _,
                        options(nostack, nomem),
                    );
                }
                // SAFETY: opened above.
                unsafe { close_scope() };
            }

            /// 32 rows, `row_bytes` apart, times two panels, into 32 lines of 32 numbers,
            /// `out_bytes` apart.
            ///
            /// # Safety
            ///
            /// Tiles are configured at full size. `64 * steps` bytes are readable from each row on,
            /// `1,024 * steps` from each panel on, and the lines are writable.
            unsafe fn multiply_32(
                rows: *const u8,
                row_bytes: usize,
                panels: [*const u8; 2],
                steps: usize,
                out: *mut u8,
                out_bytes: usize,
            ) {
                // SAFETY: guaranteed by the caller: step i reads 64 bytes of each row from byte 64
                // i on, and 16 lines of 64 bytes of each panel from byte 1,024 i on.
                unsafe {
                    asm!(
                        "tilezero tmm0",
                        "tilezero tmm1",
                        "tilezero tmm2",
                        "tilezero tmm3",
                        "2:",
                        "tileloadd tmm6, [{first} + {line}*1]",
                        "tileloadd tmm4, [{upper} + {stride}*1]",
                        "tileloadd tmm7, [{second} + {line}*1]",
                        concat!($instruction, " tmm0, tmm4, tmm6"),
                        "tileloadd tmm5, [{lower} + {stride}*1]",
                        concat!($instruction, " tmm1, tmm4, tmm7"),
                        concat!($instruction, " tmm2, tmm5, tmm6"),
                        concat!($instruction, " tmm3, tmm5, tmm7"),
                        "add {upper}, 64",
                        "add {lower}, 64",
                        "add {first}, 1024",
                        "add {second}, 1024",
                        "dec {steps}",
                        "jnz 2b",
                        "tilestored [{out} + {out_line}*1], tmm0",
                        "tilestored [{out} + {out_line}*1 + 64], tmm1",
                        "tilestored [{below} + {out_line}*1], tmm2",
                        "tilestored [{below} + {out_line}*1 + 64], tmm3",
                        upper = inout(reg) rows => _,
                        lower = inout(reg) rows.add(TILE_ROWS * row_bytes) => _,
                        first = inout(reg) panels[0] => _,
                        second = inout(reg) panels[1] => _,
                        steps = inout(reg) steps => _,
                        stride = in(reg) row_bytes,
                        line = in(reg) TILE_BYTES,
                        out = in(reg) out,
                        below = in(reg) out.add(TILE_ROWS * out_bytes),
                        out_line = in(reg) out_bytes,
                        out("tmm0") _,
                        out("tmm1") _,
                        out("tmm2") _,
                        out("tmm3") _,
                        out("tmm4") _,
                        out("tmm5") _,
                        out("tmm6") _,
                        out("tmm7") _,
                        options(nostack),
                    );
                }
            }

            /// As [`multiply_32`], for 16 rows.
            ///
            /// # Safety
            ///
            /// As [`multiply_32`], for 16 rows and lines.
            unsafe fn multiply_16(
                rows: *const u8,
                row_bytes: usize,
                panels: [*const u8; 2],
                steps: usize,
                out: *mut u8,
                out_bytes: usize,
            ) {
                // SAFETY: as in `multiply_32`.
                unsafe {
                    asm!(
                        "tilezero tmm0",
                        "tilezero tmm1",
                        "2:",
                        "tileloadd tmm4, [{upper} + {stride}*1]",
                        "tileloadd tmm6, [{first} + {line}*1]",
                        "tileloadd tmm7, [{second} + {line}*1]",
                        concat!($instruction, " tmm0, tmm4, tmm6"),
                        concat!($instruction, " tmm1, tmm4, tmm7"),
                        "add {upper}, 64",
                        "add {first}, 1024",
                        "add {second}, 1024",
                        "dec {steps}",
                        "jnz 2b",
                        "tilestored [{out} + {out_line}*1], tmm0",
                        "tilestored [{out} + {out_line}*1 + 64], tmm1",
                        upper = inout(reg) rows => _,
                        first = inout(reg) panels[0] => _,
                        second = inout(reg) panels[1] => _,
                        steps = inout(reg) steps => _,
                        stride = in(reg) row_bytes,
                        line = in(reg) TILE_BYTES,
                        out = in(reg) out,
                        out_line = in(reg) out_bytes,
                        out("tmm0") _,
                        out("tmm1") _,
                        out("tmm4") _,
                        out("tmm6") _,
                        out("tmm7") _,
                        options(nostack),
                    );
                }
            }
        }
    };
}

products_of! {
    /// Signed rows, unsigned panels.
    int8, i8, u8, i32, "tdpbsud"
}
products_of! {
    /// Bfloat16 numbers.
    bfloat16, u16, u16, f32, "tdpbf16ps"
}
