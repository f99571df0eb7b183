//! Products of 32 rows and up to two panels in the tile registers: accumulators are `tmm0` to
//! `tmm3`, operands `tmm4` to `tmm7`, none of which the compiler uses.

use std::arch::asm;
use warpseek_compute::cpu::PANEL;

/// Rows of a tile.
const TILE_ROWS: usize = 16;
/// Bytes of a tile's row.
pub(super) const TILE_BYTES: usize = 64;

/// Clears the accumulators.
///
/// # Safety
///
/// Tiles are configured at full size.
#[inline(always)]
pub(super) unsafe fn zero<const P: usize>() {
    // SAFETY: the compiler uses no tile registers.
    unsafe {
        asm!("tilezero tmm0", "tilezero tmm2", options(nostack, nomem));
        if P == 2 {
            asm!("tilezero tmm1", "tilezero tmm3", options(nostack, nomem));
        }
    }
}

/// Adds the products of 64 values of 32 rows and the columns of `P` panels.
///
/// # Safety
///
/// Tiles are configured at full size; 64 bytes are readable at each of 32 rows, `stride` bytes
/// apart, and 1,024 bytes at each panel.
#[inline(always)]
pub(super) unsafe fn multiply_add<const P: usize>(
    rows: *const u8,
    stride: usize,
    panels: [*const u8; P],
) {
    // SAFETY: guaranteed by the caller; the compiler uses no tile registers.
    unsafe {
        let below = rows.add(TILE_ROWS * stride);
        if P == 2 {
            asm!(
                "tileloadd tmm4, [{upper} + {stride}*1]",
                "tileloadd tmm6, [{first} + {line}*1]",
                "tileloadd tmm5, [{lower} + {stride}*1]",
                "tileloadd tmm7, [{second} + {line}*1]",
                "tdpbssd tmm0, tmm4, tmm6",
                "tdpbssd tmm1, tmm4, tmm7",
                "tdpbssd tmm2, tmm5, tmm6",
                "tdpbssd tmm3, tmm5, tmm7",
                upper = in(reg) rows,
                lower = in(reg) below,
                first = in(reg) panels[0],
                second = in(reg) panels[P - 1],
                stride = in(reg) stride,
                line = in(reg) TILE_BYTES,
                options(nostack, readonly),
            );
        } else {
            asm!(
                "tileloadd tmm4, [{upper} + {stride}*1]",
                "tileloadd tmm6, [{first} + {line}*1]",
                "tileloadd tmm5, [{lower} + {stride}*1]",
                "tdpbssd tmm0, tmm4, tmm6",
                "tdpbssd tmm2, tmm5, tmm6",
                upper = in(reg) rows,
                lower = in(reg) below,
                first = in(reg) panels[0],
                stride = in(reg) stride,
                line = in(reg) TILE_BYTES,
                options(nostack, readonly),
            );
        }
    }
}

/// Stores the accumulators, `[32, P, PANEL]`.
///
/// # Safety
///
/// Tiles are configured at full size; `out` has room for the products.
#[inline(always)]
pub(super) unsafe fn store<const P: usize>(out: *mut i32) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let line = P * PANEL * size_of::<i32>();
        let below = out.add(TILE_ROWS * P * PANEL);
        asm!(
            "tilestored [{upper} + {line}*1], tmm0",
            "tilestored [{lower} + {line}*1], tmm2",
            upper = in(reg) out,
            lower = in(reg) below,
            line = in(reg) line,
            options(nostack),
        );
        if P == 2 {
            asm!(
                "tilestored [{upper} + {line}*1], tmm1",
                "tilestored [{lower} + {line}*1], tmm3",
                upper = in(reg) out.add(PANEL),
                lower = in(reg) below.add(PANEL),
                line = in(reg) line,
                options(nostack),
            );
        }
    }
}
