//! The AVX-512 tier: 16 values at a time, tiles of 4 rows x 4 queries in registers.

use crate::cpu::gate::{RowColumns, RowTerms};
use crate::oracle::{self, LANES};
use half::f16;
use std::arch::x86_64::*;

/// See [`crate::cpu::kernels::ScanKernels::scores`].
///
/// # Safety
///
/// The CPU has AVX-512F. All rows have the same length, a multiple of 16; `queries` is a whole
/// number of such lengths; `scores` holds one value per query and row.
#[target_feature(enable = "avx512f")]
pub(in crate::cpu) unsafe fn scores(rows: &[&[f16]], queries: &[f32], scores: &mut [f32]) {
    super::tiling::for_each_tile!(rows, queries, scores, 4, 4, 8, tile);
}

/// See [`oracle::canonical_score`].
///
/// # Safety
///
/// The CPU has AVX-512F; both slices have the same length, a multiple of 16.
#[target_feature(enable = "avx512f")]
pub(in crate::cpu) unsafe fn canonical(query: &[f32], row: &[f16]) -> f32 {
    let mut low = _mm512_setzero_pd();
    let mut high = _mm512_setzero_pd();
    for (q, r) in query.chunks_exact(LANES).zip(row.chunks_exact(LANES)) {
        // SAFETY: both chunks hold 16 values.
        let (q, r) = unsafe { (_mm512_loadu_ps(q.as_ptr()), load_row(r.as_ptr())) };
        let upper =
            |v: __m512| _mm512_cvtps_pd(_mm512_castps512_ps256(_mm512_shuffle_f32x4::<0x4e>(v, v)));
        let lower = |v: __m512| _mm512_cvtps_pd(_mm512_castps512_ps256(v));
        // The products are exact, so that fused and separate additions agree.
        low = _mm512_fmadd_pd(lower(q), lower(r), low);
        high = _mm512_fmadd_pd(upper(q), upper(r), high);
    }
    let mut lanes = [0f64; LANES];
    // SAFETY: `lanes` holds 16 values.
    unsafe { _mm512_storeu_pd(lanes.as_mut_ptr(), low) };
    // SAFETY: the second half of `lanes` holds 8 values.
    unsafe { _mm512_storeu_pd(lanes[8..].as_mut_ptr(), high) };
    oracle::finish(&mut lanes)
}

/// Dot products of `R` rows and `Q` queries of `stride` values.
///
/// # Safety
///
/// The CPU has AVX-512F; every pointer is followed by `stride` readable values, a multiple of 16.
#[target_feature(enable = "avx512f")]
unsafe fn tile<const R: usize, const Q: usize>(
    rows: [*const f16; R],
    queries: [*const f32; Q],
    stride: usize,
) -> [[f32; R]; Q] {
    let mut sums = [[_mm512_setzero_ps(); R]; Q];
    for i in (0..stride).step_by(16) {
        let mut r = [_mm512_setzero_ps(); R];
        for (value, row) in r.iter_mut().zip(rows) {
            // SAFETY: `i + 16 <= stride`, guaranteed by the caller.
            *value = unsafe { load_row(row.add(i)) };
        }
        for (sums, query) in sums.iter_mut().zip(queries) {
            // SAFETY: as above.
            let q = unsafe { _mm512_loadu_ps(query.add(i)) };
            for (sum, row) in sums.iter_mut().zip(r) {
                *sum = _mm512_fmadd_ps(q, row, *sum);
            }
        }
    }
    let mut out = [[0f32; R]; Q];
    for (out, sums) in out.iter_mut().zip(sums) {
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = _mm512_reduce_add_ps(sum);
        }
    }
    out
}

/// Returns 16 half-precision values as float32.
///
/// # Safety
///
/// The CPU has AVX-512F; 16 values are readable from `at` on.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_row(at: *const f16) -> __m512 {
    // SAFETY: 16 half-precision values are 32 bytes; the load needs no alignment.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(at.cast()) })
}

/// See [`crate::cpu::kernels::ScanKernels::passing_lanes`].
///
/// # Safety
///
/// The CPU has AVX-512F; the slices have the same length, a multiple of 16 of at most 64.
#[target_feature(enable = "avx512f")]
pub(in crate::cpu) unsafe fn passing_lanes(
    scores: &[i32],
    row: RowTerms,
    factors: &[f32],
    gates: &[f32],
) -> u64 {
    let base = _mm512_set1_epi32(row.base);
    let scale = _mm512_set1_ps(row.scale);
    let residual = _mm512_set1_ps(row.residual);
    let mut passing = 0;
    for i in (0..scores.len()).step_by(16) {
        // SAFETY: 16 values follow index i of each slice, guaranteed by the caller.
        let (score, factor, gate) = unsafe {
            (
                _mm512_loadu_si512(scores[i..].as_ptr().cast()),
                _mm512_loadu_ps(factors[i..].as_ptr()),
                _mm512_loadu_ps(gates[i..].as_ptr()),
            )
        };
        let score = _mm512_cvtepi32_ps(_mm512_sub_epi32(score, base));
        let upper = _mm512_fmadd_ps(factor, residual, _mm512_mul_ps(score, scale));
        passing |= u64::from(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(upper, gate)) << i;
    }
    passing
}

/// See [`crate::cpu::kernels::ScanKernels::passing_rows`].
///
/// # Safety
///
/// The CPU has AVX-512F; the slices have the same length of at most 64.
#[target_feature(enable = "avx512f")]
pub(in crate::cpu) unsafe fn passing_rows(
    scores: &[i32],
    rows: RowColumns<'_>,
    factor: f32,
    gate: f32,
) -> u64 {
    let (factors, gates) = (_mm512_set1_ps(factor), _mm512_set1_ps(gate));
    let mut passing = 0;
    for i in (0..scores.len()).step_by(16) {
        let here = u16::MAX >> 16usize.saturating_sub(scores.len() - i);
        // SAFETY: lanes outside `here`, which lie past the end of the slices, are not read.
        let (score, base, scale, residual) = unsafe {
            (
                _mm512_maskz_loadu_epi32(here, scores[i..].as_ptr()),
                _mm512_maskz_loadu_epi32(here, rows.bases[i..].as_ptr()),
                _mm512_maskz_loadu_ps(here, rows.scales[i..].as_ptr()),
                _mm512_maskz_loadu_ps(here, rows.residuals[i..].as_ptr()),
            )
        };
        let score = _mm512_cvtepi32_ps(_mm512_sub_epi32(score, base));
        let upper = _mm512_fmadd_ps(factors, residual, _mm512_mul_ps(score, scale));
        passing |= u64::from(_mm512_mask_cmp_ps_mask::<_CMP_GE_OQ>(here, upper, gates)) << i;
    }
    passing
}
