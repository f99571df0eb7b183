//! The AMX tier: its detection. Its products are those of `amx_rows`.

use super::amx_rows;
use super::amx_tiles::TILE_BYTES;
use crate::cpu::generic;
use crate::cpu::{OperandRows, PANEL};
use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::sync::OnceLock;

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
            std::arch::asm!(
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
    let values: Vec<i8> = (0..48 * LENGTH).map(|i| (i * 89 % 255) as u8 as i8).collect();
    let rows = OperandRows { values: &values, stride: LENGTH, n: 37, length: LENGTH };
    let slices: Vec<&[i8]> = values.chunks_exact(LENGTH).take(rows.n).collect();
    let panels: Vec<u8> = (0..3 * PANEL * LENGTH).map(|i| (i * 57 % 256) as u8).collect();
    let mut expected = vec![0; rows.n * 3 * PANEL];
    let mut got = vec![0; 48 * 3 * PANEL];
    generic::gemm_i8(&slices, &panels, &mut expected);
    // SAFETY: the instructions were detected and the tiles granted; the lengths fit.
    unsafe { amx_rows::int8::gemm(rows, &panels, &mut got, 3 * PANEL) };
    got.starts_with(&expected)
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
    let values: Vec<u16> = (0..48 * LENGTH).map(bits).collect();
    let rows = OperandRows { values: &values, stride: LENGTH, n: 37, length: LENGTH };
    let panels: Vec<u16> = (0..3 * PANEL * LENGTH).map(bits).collect();
    let mut got = vec![0f32; 48 * 3 * PANEL];
    // SAFETY: the instructions were detected and the tiles granted; the lengths fit.
    unsafe { amx_rows::bfloat16::gemm(rows, &panels, &mut got, 3 * PANEL) };
    let expected = |at: usize| -> f32 {
        let (r, c) = (at / (3 * PANEL), at % (3 * PANEL));
        let column = c / PANEL * PANEL * LENGTH + c % PANEL * 2;
        (0..LENGTH)
            .map(|i| number(r * LENGTH + i) * number(column + i / 2 * PANEL * 2 + i % 2))
            .sum()
    };
    got.iter().take(37 * 3 * PANEL).enumerate().all(|(at, &got)| got == expected(at))
}
