//! AMX tiles, and the scopes in which a thread has them configured.

use std::arch::asm;
use std::cell::Cell;

/// Rows of a tile.
pub(super) const TILE_ROWS: usize = 16;
/// Bytes of a tile's row.
pub(super) const TILE_BYTES: usize = 64;

/// The operand of `ldtilecfg`: Intel's manual, volume 1, section 18.3.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

/// Eight tiles of full size.
const FULL_TILES: TileConfig = TileConfig {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    bytes_per_row: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

thread_local! {
    /// Open tile scopes of this thread.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Opens a tile scope on this thread: the first one configures eight tiles of full size.
///
/// # Safety
///
/// The CPU has tiles and they were granted.
pub(in crate::cpu) unsafe fn open_scope() {
    DEPTH.with(|depth| {
        if depth.get() == 0 {
            // SAFETY: the CPU has tiles, and the configuration is valid.
            unsafe { asm!("ldtilecfg [{}]", in(reg) &FULL_TILES, options(nostack, readonly)) };
        }
        depth.set(depth.get() + 1);
    });
}

/// Closes a tile scope of this thread: the last one releases the tiles, so that the system need not
/// save them.
///
/// # Safety
///
/// The scope was opened by [`open_scope`] on this thread.
pub(in crate::cpu) unsafe fn close_scope() {
    DEPTH.with(|depth| {
        depth.set(depth.get() - 1);
        if depth.get() == 0 {
            // SAFETY: the CPU has tiles; their content is no longer needed.
            unsafe { asm!("tilerelease", options(nostack, nomem)) };
        }
    });
}
