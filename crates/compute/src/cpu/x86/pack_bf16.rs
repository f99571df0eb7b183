//! Packing of bfloat16 rows into panels, in 64-byte registers.

use crate::cpu::{OperandRows, PANEL};
use std::arch::x86_64::*;

/// Numbers in a register.
const LANES: usize = 32;

/// See [`crate::cpu::Bf16::pack_columns`].
///
/// # Safety
///
/// The CPU has AVX-512F; the lengths are those of that function.
#[target_feature(enable = "avx512f")]
pub(in crate::cpu) unsafe fn pack_columns(rows: OperandRows<'_, u16>, panels: &mut [u16]) {
    for (p, panel) in panels.chunks_exact_mut(rows.length * PANEL).enumerate() {
        for (i, out) in panel.chunks_exact_mut(LANES * PANEL).enumerate() {
            let pairs: [__m512i; PANEL] = std::array::from_fn(|r| {
                let r = p * PANEL + r;
                if r >= rows.n {
                    return _mm512_setzero_si512();
                }
                let values = &rows.row(r)[i * LANES..(i + 1) * LANES];
                // SAFETY: 32 numbers are 64 bytes.
                unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
            });
            for (line, out) in transpose(pairs).into_iter().zip(out.chunks_exact_mut(LANES)) {
                // SAFETY: as above.
                unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), line) };
            }
        }
    }
}

/// Transposes 16 x 16 values of 32 bits.
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
    // Within each quarter of a register: pairs of rows, then four rows. Then quarters change
    // places.
    let mut pairs = rows;
    for i in 0..8 {
        pairs[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    // fours[4 g + c]: column c of each quarter, of the rows 4 g to 4 g + 3.
    let mut fours = pairs;
    for g in 0..4 {
        let [a, b, c, d] = [pairs[4 * g], pairs[4 * g + 1], pairs[4 * g + 2], pairs[4 * g + 3]];
        fours[4 * g] = _mm512_unpacklo_epi64(a, c);
        fours[4 * g + 1] = _mm512_unpackhi_epi64(a, c);
        fours[4 * g + 2] = _mm512_unpacklo_epi64(b, d);
        fours[4 * g + 3] = _mm512_unpackhi_epi64(b, d);
    }
    let mut out = fours;
    for c in 0..4 {
        let [a, b, d, e] = [fours[c], fours[4 + c], fours[8 + c], fours[12 + c]];
        let low = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
        let high = _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b);
        let low_2 = _mm512_shuffle_i32x4::<0b10_00_10_00>(d, e);
        let high_2 = _mm512_shuffle_i32x4::<0b11_01_11_01>(d, e);
        out[c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(low, low_2);
        out[4 + c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(high, high_2);
        out[8 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(low, low_2);
        out[12 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(high, high_2);
    }
    out
}

/// See [`crate::cpu::Bf16::pack_rows`].
///
/// # Safety
///
/// The CPU has AVX-512F and BW; the lengths are those of that function.
#[target_feature(enable = "avx512f,avx512bw")]
pub(in crate::cpu) unsafe fn pack_rows(
    rows: OperandRows<'_, u16>,
    padded: usize,
    panels: &mut [u16],
) {
    // Lanes of both rows in turn, from the first 16 numbers and from the second 16.
    let mut turns = [[0u16; LANES]; 2];
    for (half, turns) in turns.iter_mut().enumerate() {
        for (i, lane) in turns.iter_mut().enumerate() {
            *lane = (half * PANEL + i / 2 + i % 2 * LANES) as u16;
        }
    }
    let turns = turns.map(|lanes| {
        // SAFETY: 32 lanes are 64 bytes.
        unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
    });
    for (pair, first) in (0..padded).step_by(2).enumerate() {
        for start in (0..rows.length).step_by(LANES) {
            let [upper, lower] = [first, first + 1].map(|r| {
                if r >= rows.n {
                    return _mm512_setzero_si512();
                }
                let values = &rows.row(r)[start..start + LANES];
                // SAFETY: 32 numbers are 64 bytes.
                unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
            });
            for (half, turns) in turns.into_iter().enumerate() {
                let at = (start / PANEL + half) * padded * PANEL + pair * LANES;
                let out = &mut panels[at..at + LANES];
                let line = _mm512_permutex2var_epi16(upper, turns, lower);
                // SAFETY: as above.
                unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), line) };
            }
        }
    }
}
