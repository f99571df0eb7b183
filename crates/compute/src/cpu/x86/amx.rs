//! The AMX tier: tiles of 16 rows x 64 bytes. Rows in memory (or in a mapped file) are tiles of the
//! left operand, panels are tiles of the right one.

use crate::cpu::PANEL;
use crate::cpu::generic;
use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::cell::Cell;
use std::sync::OnceLock;

/// Rows of a tile.
const TILE_ROWS: usize = 16;
/// Bytes of a tile's row.
const TILE_BYTES: usize = 64;

/// True if CPU and operating system offer AMX for int8, and a test product is right.
pub(in crate::cpu) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_instructions() && may_use_tiles() && computes_correctly())
}

fn has_instructions() -> bool {
    // Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, CPUID: leaf 7, EDX
    // bits 24 (tiles) and 25 (int8); leaf 1, ECX bit 27: the operating system uses XSAVE. Volume 1,
    // section 13.3: XCR0 bits 17 and 18.
    let (extended, basic) = (__cpuid_count(7, 0).edx, __cpuid_count(1, 0).ecx);
    if extended >> 24 & 3 != 3 || basic >> 27 & 1 != 1 {
        return false;
    }
    // SAFETY: the system enabled XSAVE, as read above.
    let enabled = unsafe { xcr0() };
    enabled >> 17 & 3 == 3
}

/// Returns the state components that the operating system saves.
///
/// # Safety
///
/// The CPU has XSAVE and the system enabled it.
#[target_feature(enable = "xsave")]
unsafe fn xcr0() -> u64 {
    // SAFETY: register 0 exists wherever XSAVE is enabled.
    unsafe { _xgetbv(0) }
}

/// Requests the tile registers, which Linux grants on demand to the whole process.
fn may_use_tiles() -> bool {
    #[cfg(target_os = "linux")]
    {
        const ARCH_PRCTL: usize = 158;
        const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
        const TILE_DATA: usize = 18;
        let outcome: isize;
        // SAFETY: this system call takes two numbers and touches no memory of the process; the
        // kernel changes only rax, rcx and r11.
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

/// Compares a small product with the generic kernel.
fn computes_correctly() -> bool {
    const LENGTH: usize = 2 * TILE_BYTES;
    let values: Vec<i8> = (0..21 * LENGTH).map(|i| (i * 89 % 255) as u8 as i8).collect();
    let rows: Vec<&[i8]> = values.chunks_exact(LENGTH).collect();
    let panels: Vec<u8> = (0..3 * PANEL * LENGTH).map(|i| (i * 57 % 256) as u8).collect();
    let mut expected = vec![0; rows.len() * 3 * PANEL];
    let mut got = expected.clone();
    generic::gemm_i8(&rows, &panels, &mut expected);
    // SAFETY: the instructions were detected and the tiles granted; the lengths fit.
    unsafe { gemm_i8_stride(&rows, &panels, &mut got, 3 * PANEL) };
    got == expected
}

/// True if AMX for bfloat16 is there too, and a test product is right.
pub(in crate::cpu) fn has_bf16() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    // As in `has_instructions`; EDX bit 22.
    *AVAILABLE.get_or_init(|| {
        is_available() && __cpuid_count(7, 0).edx >> 22 & 1 == 1 && computes_bf16_correctly()
    })
}

/// Multiplies small integers, whose products and sums are exact in any order.
fn computes_bf16_correctly() -> bool {
    const LENGTH: usize = 64;
    let number = |i: usize| (i * 5 % 7) as f32 - 3.0;
    let bits = |i: usize| (number(i).to_bits() >> 16) as u16;
    let values: Vec<u16> = (0..21 * LENGTH).map(bits).collect();
    let rows: Vec<&[u16]> = values.chunks_exact(LENGTH).collect();
    let panels: Vec<u16> = (0..3 * PANEL * LENGTH).map(bits).collect();
    let mut got = vec![0f32; rows.len() * 3 * PANEL];
    // SAFETY: the instructions were detected and the tiles granted; the lengths fit.
    unsafe { gemm_bf16(&rows, &panels, &mut got, 3 * PANEL) };
    let expected = |at: usize| -> f32 {
        let (r, c) = (at / (3 * PANEL), at % (3 * PANEL));
        let column = c / PANEL * PANEL * LENGTH + c % PANEL * 2;
        (0..LENGTH)
            .map(|i| number(r * LENGTH + i) * number(column + i / 2 * PANEL * 2 + i % 2))
            .sum()
    };
    got.iter().enumerate().all(|(at, &got)| got == expected(at))
}

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

/// Defines the kernel of an element type: names, types of rows, columns and products, instruction.
macro_rules! kernel {
    ($name:ident, $multiply:ident, $row:ty, $column:ty, $product:ty, $instruction:literal) => {
        /// See [`crate::cpu::Kernels::gemm_i8`] and [`crate::cpu::Bf16::gemm`].
        ///
        /// # Safety
        ///
        /// The CPU has the instruction and the tiles were granted; the lengths are those that the
        /// public function checks.
        pub(in crate::cpu) unsafe fn $name(
            rows: &[&[$row]],
            panels: &[$column],
            products: &mut [$product],
            stride: usize,
        ) {
            let length = rows[0].len();
            let n_panels = panels.len() / (length * PANEL);
            let width = n_panels * PANEL;
            let bytes = length * size_of::<$row>();
            assert!(width <= stride && bytes.is_multiple_of(TILE_BYTES));
            let mut gathered = Vec::new();
            let mut out = [<$product>::default(); 2 * TILE_ROWS * 2 * PANEL];
            // SAFETY: passed on from the caller.
            unsafe { open_scope() };
            let products = products.chunks_mut(2 * TILE_ROWS * stride);
            for (rows, products) in rows.chunks(2 * TILE_ROWS).zip(products) {
                let left = consecutive(rows, &mut gathered);
                for g in (0..n_panels).step_by(2) {
                    // A single last panel is multiplied twice.
                    let second = (g + 1).min(n_panels - 1);
                    let panel = |g: usize| panels[g * length * PANEL..][..length * PANEL].as_ptr();
                    let right = [panel(g).cast(), panel(second).cast()];
                    // SAFETY: `left` points to 32 rows of `bytes` bytes, each panel is `bytes / 4`
                    // rows of 64 bytes, `out` holds 32 x 32 values of 32 bits; tiles are
                    // configured.
                    unsafe { $multiply(left.cast(), bytes, right, out.as_mut_ptr().cast()) };
                    let n = (2 * PANEL).min(width - g * PANEL);
                    let lines = out.chunks_exact(2 * PANEL).zip(products.chunks_mut(stride));
                    for (out, products) in lines.take(rows.len()) {
                        products[g * PANEL..g * PANEL + n].copy_from_slice(&out[..n]);
                    }
                }
            }
            // SAFETY: opened above; nothing in between panics.
            unsafe { close_scope() };
        }

        /// 32 rows times two panels: `out[r][c]`, 32 x 32 values of 32 bits.
        ///
        /// # Safety
        ///
        /// Tiles are configured at full size. `rows` points to 32 times `bytes` bytes, each panel
        /// to 16 times as many, `bytes` is a multiple of 64; `out` holds 1,024 values.
        unsafe fn $multiply(rows: *const u8, bytes: usize, panels: [*const u8; 2], out: *mut u32) {
            // SAFETY: the second 16 rows lie within the 32 that the caller guarantees.
            let below = unsafe { rows.add(TILE_ROWS * bytes) };
            // SAFETY: guaranteed by the caller: step i < bytes / 64 reads 64 bytes of each row from
            // byte 64 i on, and 16 rows of 64 bytes of each panel from byte 1,024 i on; the stores
            // write 16 values of each of the 32 rows of `out`, at columns 0 and 16.
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
                    concat!($instruction, " tmm0, tmm4, tmm6"),
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
                    "tilestored [{out} + {out_line}*1 + 2048], tmm2",
                    "tilestored [{out} + {out_line}*1 + 2112], tmm3",
                    upper = inout(reg) rows => _,
                    lower = inout(reg) below => _,
                    first = inout(reg) panels[0] => _,
                    second = inout(reg) panels[1] => _,
                    steps = inout(reg) bytes / TILE_BYTES => _,
                    stride = in(reg) bytes,
                    line = in(reg) TILE_BYTES,
                    out = in(reg) out,
                    out_line = in(reg) 2 * PANEL * size_of::<u32>(),
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
    };
}

/// See [`crate::cpu::Kernels::gemm_i8`].
///
/// # Safety
///
/// As [`gemm_i8_stride`].
pub(in crate::cpu) unsafe fn gemm_i8(rows: &[&[i8]], panels: &[u8], products: &mut [i32]) {
    let stride = products.len() / rows.len();
    // SAFETY: passed on from the caller.
    unsafe { gemm_i8_stride(rows, panels, products, stride) };
}

// Signed rows, unsigned panels.
kernel!(gemm_i8_stride, multiply_i8, i8, u8, i32, "tdpbsud");
kernel!(gemm_bf16, multiply_bf16, u16, u16, f32, "tdpbf16ps");

/// Returns a pointer to 32 consecutive rows: the rows themselves if they are contiguous, else a
/// copy in `gathered`, with zeros for the rows that an incomplete last block lacks.
fn consecutive<T: Copy + Default>(rows: &[&[T]], gathered: &mut Vec<T>) -> *const T {
    let length = rows[0].len();
    let follows = |pair: &[&[T]]| pair[0].as_ptr_range().end == pair[1].as_ptr();
    if rows.len() == 2 * TILE_ROWS && rows.windows(2).all(follows) {
        return rows[0].as_ptr();
    }
    gathered.clear();
    rows.iter().for_each(|row| gathered.extend_from_slice(row));
    gathered.resize(2 * TILE_ROWS * length, T::default());
    gathered.as_ptr()
}
