//! The AVX-512 VNNI tier: 64 bytes at a time, tiles of 6 rows x 64 queries in registers.

use crate::scan::cpu::query::GROUP;
use std::arch::x86_64::*;

/// See [`crate::scan::cpu::tier::Kernels::panel_scores`].
///
/// # Safety
///
/// The CPU has AVX-512F and AVX-512 VNNI; the lengths are those of `Kernels::panel_scores`.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(in crate::scan::cpu) unsafe fn panel_scores(rows: &[&[i8]], groups: &[u8], scores: &mut [i32]) {
    // As many rows as leave registers for the queries.
    // SAFETY: passed on from the caller; the number of groups is that of the arm.
    match groups.len() / (rows[0].len() * GROUP) {
        1 => unsafe { tiles::<12, 1>(rows, groups, scores) },
        2 => unsafe { tiles::<12, 2>(rows, groups, scores) },
        3 => unsafe { tiles::<8, 3>(rows, groups, scores) },
        _ => unsafe { tiles::<6, 4>(rows, groups, scores) },
    }
}

/// Covers the rows with tiles of `R` rows and `G` groups. A last tile short of rows repeats one and drops the
/// surplus.
///
/// # Safety
///
/// As [`panel_scores`], for exactly `G` groups.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn tiles<const R: usize, const G: usize>(rows: &[&[i8]], groups: &[u8], scores: &mut [i32]) {
    let stride = rows[0].len();
    assert!(groups.len() == G * GROUP * stride && scores.len() == rows.len() * G * GROUP);
    for start in (0..rows.len()).step_by(R) {
        let row: [*const i8; R] =
            std::array::from_fn(|i| rows[(start + i).min(rows.len() - 1)].as_ptr());
        let mut sums = [[_mm512_setzero_si512(); G]; R];
        for i in 0..stride / 4 {
            let mut queries = [_mm512_setzero_si512(); G];
            for (g, queries) in queries.iter_mut().enumerate() {
                let at = (g * stride + 4 * i) * GROUP;
                // SAFETY: `at + 64` is at most the length of the groups, as asserted.
                *queries = unsafe { _mm512_loadu_si512(groups.as_ptr().add(at).cast()) };
            }
            for (sums, row) in sums.iter_mut().zip(row) {
                // SAFETY: every row is `stride` bytes long, as the caller vouches.
                let four = unsafe { row.add(4 * i).cast::<i32>().read_unaligned() };
                let four = _mm512_set1_epi32(four);
                for (sum, queries) in sums.iter_mut().zip(queries) {
                    *sum = _mm512_dpbusd_epi32(*sum, queries, four);
                }
            }
        }
        for (sums, scores) in
            sums.iter().zip(scores[start * G * GROUP..].chunks_exact_mut(G * GROUP))
        {
            for (sum, scores) in sums.iter().zip(scores.chunks_exact_mut(GROUP)) {
                // SAFETY: the chunk holds 16 values.
                unsafe { _mm512_storeu_si512(scores.as_mut_ptr().cast(), *sum) };
            }
        }
    }
}

/// See [`crate::scan::cpu::tier::Kernels::row_scores`].
///
/// # Safety
///
/// The CPU has AVX-512F and AVX-512 VNNI; the lengths are those of `Kernels::row_scores`.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(in crate::scan::cpu) unsafe fn row_scores(rows: &[&[i8]], query: &[u8], scores: &mut [i32]) {
    for (rows, scores) in rows.chunks(16).zip(scores.chunks_mut(16)) {
        let row: [*const i8; 16] = std::array::from_fn(|i| rows[i.min(rows.len() - 1)].as_ptr());
        let mut sums = [_mm512_setzero_si512(); 16];
        for (i, chunk) in query.chunks_exact(64).enumerate() {
            // SAFETY: the chunk holds 64 bytes, and so does every row from byte 64 i on.
            unsafe {
                let query = _mm512_loadu_si512(chunk.as_ptr().cast());
                for (sum, row) in sums.iter_mut().zip(row) {
                    let row = _mm512_loadu_si512(row.add(64 * i).cast());
                    *sum = _mm512_dpbusd_epi32(*sum, query, row);
                }
            }
        }
        let mut values = [0; 16];
        // SAFETY: `values` holds 16 values.
        unsafe { _mm512_storeu_si512(values.as_mut_ptr().cast(), sum_each(sums)) };
        scores.copy_from_slice(&values[..scores.len()]);
    }
}

/// See [`crate::scan::cpu::tier::Kernels::dot`].
///
/// # Safety
///
/// The CPU has AVX-512F and AVX-512 VNNI; both slices have the same length, a multiple of 64.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(in crate::scan::cpu) unsafe fn int8_dot(row: &[i8], query: &[u8]) -> i32 {
    let mut sum = _mm512_setzero_si512();
    for (row, query) in row.chunks_exact(64).zip(query.chunks_exact(64)) {
        // SAFETY: both chunks hold 64 bytes.
        unsafe {
            let query = _mm512_loadu_si512(query.as_ptr().cast());
            sum = _mm512_dpbusd_epi32(sum, query, _mm512_loadu_si512(row.as_ptr().cast()));
        }
    }
    _mm512_reduce_add_epi32(sum)
}

/// The sum of the lanes of each of 16 registers.
#[target_feature(enable = "avx512f")]
fn sum_each(sums: [__m512i; 16]) -> __m512i {
    // Each step halves the registers: sums of two, then of four neighbours in every quarter, then quarters.
    let pairs: [__m512i; 8] = std::array::from_fn(|i| {
        let (a, b) = (sums[2 * i], sums[2 * i + 1]);
        _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b))
    });
    let fours: [__m512i; 4] = std::array::from_fn(|i| {
        let (a, b) = (pairs[2 * i], pairs[2 * i + 1]);
        _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b))
    });
    let [low, high]: [__m512i; 2] = std::array::from_fn(|i| {
        let (a, b) = (fours[2 * i], fours[2 * i + 1]);
        _mm512_add_epi32(
            _mm512_shuffle_i32x4::<0b01_00_01_00>(a, b),
            _mm512_shuffle_i32x4::<0b11_10_11_10>(a, b),
        )
    });
    _mm512_add_epi32(
        _mm512_shuffle_i32x4::<0b10_00_10_00>(low, high),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(low, high),
    )
}
