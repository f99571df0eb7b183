//! The AMX tier: tiles of 16 rows x 64 bytes. Prefilter rows are tiles of the left operand as they lie in the
//! file, groups of queries are tiles of the right one as they lie in memory.

use crate::scan::cpu::generic;
use crate::scan::cpu::query::GROUP;
use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::sync::OnceLock;

/// Rows of a tile.
const TILE_ROWS: usize = 16;
/// Bytes of a tile's row.
const TILE_BYTES: usize = 64;

/// Whether CPU and system offer AMX for bytes, and it computes what it should.
pub(in crate::scan::cpu) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_instructions() && may_use_tiles() && computes_correctly())
}

fn has_instructions() -> bool {
    // Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, CPUID: leaf 7, EDX bits 24 (tiles)
    // and 25 (bytes); leaf 1, ECX bit 27: the system uses XSAVE. Volume 1, section 13.3: XCR0 bits 17 and 18.
    let (extended, basic) = (__cpuid_count(7, 0).edx, __cpuid_count(1, 0).ecx);
    if extended >> 24 & 3 != 3 || basic >> 27 & 1 != 1 {
        return false;
    }
    // SAFETY: the system enabled XSAVE, as read above.
    let enabled = unsafe { xcr0() };
    enabled >> 17 & 3 == 3
}

/// The state components that the system saves.
///
/// # Safety
///
/// The CPU has XSAVE and the system enabled it.
#[target_feature(enable = "xsave")]
unsafe fn xcr0() -> u64 {
    // SAFETY: register 0 exists wherever XSAVE is enabled.
    unsafe { _xgetbv(0) }
}

/// Asks the system for the tile registers, which it hands out on demand, to the whole process.
fn may_use_tiles() -> bool {
    #[cfg(target_os = "linux")]
    {
        const ARCH_PRCTL: usize = 158;
        const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
        const TILE_DATA: usize = 18;
        let outcome: isize;
        // SAFETY: this call takes two numbers and touches no memory of the process; the kernel changes
        // rax, rcx and r11 alone.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL as isize => outcome,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") TILE_DATA,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        outcome == 0
    }
    #[cfg(not(target_os = "linux"))]
    {
        false
    }
}

/// A small product, against the generic kernel.
fn computes_correctly() -> bool {
    const STRIDE: usize = 2 * TILE_BYTES;
    let values: Vec<i8> = (0..21 * STRIDE).map(|i| (i * 89 % 255) as u8 as i8).collect();
    let rows: Vec<&[i8]> = values.chunks_exact(STRIDE).collect();
    let groups: Vec<u8> = (0..3 * GROUP * STRIDE).map(|i| (i * 57 % 256) as u8).collect();
    let mut expected = vec![0; rows.len() * 3 * GROUP];
    let mut got = expected.clone();
    generic::panel_scores(&rows, &groups, &mut expected);
    // SAFETY: the instructions are there and the system permitted tiles; the lengths fit.
    unsafe { panel_scores(&rows, &groups, &mut got) };
    got == expected
}

/// The layout that `ldtilecfg` reads: Intel's manual, volume 1, section 18.3.
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

/// See [`crate::scan::cpu::tier::Kernels::panel_scores`].
///
/// # Safety
///
/// [`is_available`] (or all but its last question); the lengths are those of `Kernels::panel_scores`.
pub(in crate::scan::cpu) unsafe fn panel_scores(rows: &[&[i8]], groups: &[u8], scores: &mut [i32]) {
    let stride = rows[0].len();
    let n_groups = groups.len() / (stride * GROUP);
    let width = n_groups * GROUP;
    assert!(scores.len() == rows.len() * width && stride.is_multiple_of(TILE_BYTES));
    let mut gathered = Vec::new();
    let mut out = [0i32; 2 * TILE_ROWS * 2 * GROUP];
    // SAFETY: the CPU has tiles, and the configuration is a valid one.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &FULL_TILES, options(nostack, readonly)) };
    for (rows, scores) in rows.chunks(2 * TILE_ROWS).zip(scores.chunks_mut(2 * TILE_ROWS * width)) {
        let left = consecutive(rows, &mut gathered);
        for g in (0..n_groups).step_by(2) {
            // A last group alone is multiplied twice.
            let second = (g + 1).min(n_groups - 1);
            let group = |g: usize| groups[g * stride * GROUP..(g + 1) * stride * GROUP].as_ptr();
            // SAFETY: `left` leads to 32 rows of `stride` bytes, each group is `stride / 4` rows of 64 bytes, and
            // `out` holds 32 rows of 32 values; the tiles are configured.
            unsafe { multiply(left, stride, [group(g), group(second)], out.as_mut_ptr()) };
            let n = (2 * GROUP).min(width - g * GROUP);
            for (out, scores) in out.chunks_exact(2 * GROUP).zip(scores.chunks_exact_mut(width)) {
                scores[g * GROUP..g * GROUP + n].copy_from_slice(&out[..n]);
            }
        }
    }
    // SAFETY: the CPU has tiles; their content is not needed any more.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// Where 32 consecutive rows lie: the rows themselves where they are that, else a copy. Rows that a last
/// block is short of are zero.
fn consecutive(rows: &[&[i8]], gathered: &mut Vec<i8>) -> *const i8 {
    let stride = rows[0].len();
    let follows = |pair: &[&[i8]]| pair[0].as_ptr_range().end == pair[1].as_ptr();
    if rows.len() == 2 * TILE_ROWS && rows.windows(2).all(follows) {
        return rows[0].as_ptr();
    }
    gathered.clear();
    rows.iter().for_each(|row| gathered.extend_from_slice(row));
    gathered.resize(2 * TILE_ROWS * stride, 0);
    gathered.as_ptr()
}

/// 32 rows times two groups: `out[r][q]`, 32 x 32.
///
/// # Safety
///
/// Tiles are configured at full size. `stride`, a multiple of 64, times 32 bytes lie behind `rows`, times 16
/// behind each group; `out` holds 1,024 values.
unsafe fn multiply(rows: *const i8, stride: usize, groups: [*const u8; 2], out: *mut i32) {
    // SAFETY: the second 16 rows lie within the 32 that the caller vouches for.
    let below = unsafe { rows.add(TILE_ROWS * stride) };
    // SAFETY: as the caller vouches: step i reads 64 bytes of each row from byte 64 i on, and 16 rows of
    // 64 bytes of each group from byte 1,024 i on, for i below stride / 64; 16 values of each of the 32
    // rows of `out` are written twice, at columns 0 and 16.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{upper} + {stride}*1]",
            "tileloadd tmm6, [{first} + {line}*1]",
            "tileloadd tmm5, [{lower} + {stride}*1]",
            "tileloadd tmm7, [{second} + {line}*1]",
            "tdpbsud tmm0, tmm4, tmm6",
            "tdpbsud tmm1, tmm4, tmm7",
            "tdpbsud tmm2, tmm5, tmm6",
            "tdpbsud tmm3, tmm5, tmm7",
            "add {upper}, 64",
            "add {lower}, 64",
            "add {first}, 1024",
            "add {second}, 1024",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{out} + {out_line}*1], tmm0",
            "tilestored [{out} + {out_line}*1 + 64], tmm1",
            "tilestored [{out} + {out_line}*1 + 2048], tmm2",
            "tilestored [{out} + {out_line}*1 + 2112], tmm3",
            upper = inout(reg) rows => _,
            lower = inout(reg) below => _,
            first = inout(reg) groups[0] => _,
            second = inout(reg) groups[1] => _,
            steps = inout(reg) stride / TILE_BYTES => _,
            stride = in(reg) stride,
            line = in(reg) TILE_BYTES,
            out = in(reg) out,
            out_line = in(reg) 2 * GROUP * size_of::<i32>(),
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
