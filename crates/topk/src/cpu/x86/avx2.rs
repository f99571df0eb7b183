//! The AVX2 tier (with F16C and FMA): 8 half-precision values at a time, tiles of 2 rows x 4
//! queries in registers.

use crate::cpu::gate::{PassingPair, PassingPairs, QueryLanes, RowColumns};
use crate::cpu::{generic, selection};
use crate::oracle::{self, LANES};
pub(in crate::cpu) use generic::pending_bounds;
use half::f16;
use std::arch::x86_64::*;

/// See [`crate::cpu::kernels::ScanKernels::scores`].
///
/// # Safety
///
/// The CPU has AVX2, F16C and FMA. All rows have the same length, a multiple of 8; `queries` is a
/// whole number of such lengths; `scores` holds one value per query and row.
#[target_feature(enable = "avx2,f16c,fma")]
pub(in crate::cpu) unsafe fn scores(rows: &[&[f16]], queries: &[f32], scores: &mut [f32]) {
    super::tiling::for_each_tile!(rows, queries, scores, 2, 4, 8, tile);
}

/// See [`oracle::canonical_score`].
///
/// # Safety
///
/// The CPU has AVX2, F16C and FMA; all slices but `scores` have the same length, a multiple of 16.
#[target_feature(enable = "avx2,f16c,fma")]
pub(in crate::cpu) unsafe fn canonical_scores(query: &[f32], rows: &[&[f16]], scores: &mut [f32]) {
    let whole = rows.len() / 2 * 2;
    for (rows, scores) in rows.as_chunks::<2>().0.iter().zip(scores.as_chunks_mut::<2>().0) {
        // SAFETY: passed on from the caller.
        *scores = unsafe { canonical(query, rows.map(<[f16]>::as_ptr)) };
    }
    for (row, score) in rows[whole..].iter().zip(&mut scores[whole..]) {
        // SAFETY: as above.
        [*score] = unsafe { canonical(query, [row.as_ptr()]) };
    }
}

/// Canonical scores of `R` rows.
///
/// # Safety
///
/// The CPU has AVX2, F16C and FMA; every pointer is followed by as many values as the query has, a
/// multiple of 16.
#[target_feature(enable = "avx2,f16c,fma")]
unsafe fn canonical<const R: usize>(query: &[f32], rows: [*const f16; R]) -> [f32; R] {
    let mut sums = [[_mm256_setzero_pd(); 4]; R];
    for (i, q) in query.as_chunks::<LANES>().0.iter().enumerate() {
        for j in 0..4 {
            // SAFETY: 16 values follow index 16 i in the query and every row, as the caller
            // guarantees, of which 4 behind index 4 j are read.
            unsafe {
                let q = _mm256_cvtps_pd(_mm_loadu_ps(q.as_ptr().add(4 * j)));
                for (sums, row) in sums.iter_mut().zip(rows) {
                    let r = _mm_loadl_epi64(row.add(i * LANES + 4 * j).cast());
                    let r = _mm256_cvtps_pd(_mm_cvtph_ps(r));
                    // The products are exact, so that fused and separate additions agree.
                    sums[j] = _mm256_fmadd_pd(q, r, sums[j]);
                }
            }
        }
    }
    sums.map(|sums| {
        let mut lanes = [0f64; LANES];
        for (lanes, sum) in lanes.chunks_exact_mut(4).zip(sums) {
            // SAFETY: the chunk holds 4 values.
            unsafe { _mm256_storeu_pd(lanes.as_mut_ptr(), sum) };
        }
        oracle::finish(&mut lanes)
    })
}

/// Dot products of `R` rows and `Q` queries of `stride` values.
///
/// # Safety
///
/// The CPU has AVX2, F16C and FMA; every pointer is followed by `stride` readable values, a
/// multiple of 8.
#[target_feature(enable = "avx2,f16c,fma")]
unsafe fn tile<const R: usize, const Q: usize>(
    rows: [*const f16; R],
    queries: [*const f32; Q],
    stride: usize,
) -> [[f32; R]; Q] {
    let mut sums = [[_mm256_setzero_ps(); R]; Q];
    for i in (0..stride).step_by(8) {
        let mut r = [_mm256_setzero_ps(); R];
        for (value, row) in r.iter_mut().zip(rows) {
            // SAFETY: `i + 8 <= stride`, guaranteed by the caller; 8 half-precision values are 16
            // bytes.
            *value = _mm256_cvtph_ps(unsafe { _mm_loadu_si128(row.add(i).cast()) });
        }
        for (sums, query) in sums.iter_mut().zip(queries) {
            // SAFETY: as above.
            let q = unsafe { _mm256_loadu_ps(query.add(i)) };
            for (sum, row) in sums.iter_mut().zip(r) {
                *sum = _mm256_fmadd_ps(q, row, *sum);
            }
        }
    }
    let mut out = [[0f32; R]; Q];
    for (out, sums) in out.iter_mut().zip(sums) {
        for (out, sum) in out.iter_mut().zip(sums) {
            let mut values = [0f32; 8];
            // SAFETY: `values` holds 8 values.
            unsafe { _mm256_storeu_ps(values.as_mut_ptr(), sum) };
            *out = ((values[0] + values[4]) + (values[1] + values[5]))
                + ((values[2] + values[6]) + (values[3] + values[7]));
        }
    }
    out
}

/// See [`crate::cpu::kernels::ScanKernels::passing_pairs`].
///
/// # Safety
///
/// The CPU has AVX2 and FMA; `scores` is `[n, lanes]` of `n` rows and up to four panels of queries.
#[target_feature(enable = "avx2,f16c,fma")]
pub(in crate::cpu) unsafe fn passing_pairs(
    scores: &[i32],
    first_row: usize,
    rows: RowColumns<'_>,
    lanes: QueryLanes<'_>,
    passing: &mut PassingPairs,
) {
    let width = lanes.gates.len();
    for (r, scores) in scores.chunks_exact(width).enumerate() {
        let base = _mm256_set1_epi32(rows.bases[r]);
        let scale = _mm256_set1_ps(rows.scales[r]);
        let residual = _mm256_set1_ps(rows.residuals[r]);
        let mut bits = 0u64;
        for i in (0..width).step_by(8) {
            // SAFETY: 8 values follow index i of each slice, whose length is a multiple of 16.
            let (score, factor, gate) = unsafe {
                (
                    _mm256_loadu_si256(scores.as_ptr().add(i).cast()),
                    _mm256_loadu_ps(lanes.factors.as_ptr().add(i)),
                    _mm256_loadu_ps(lanes.gates.as_ptr().add(i)),
                )
            };
            let score = _mm256_cvtepi32_ps(_mm256_sub_epi32(score, base));
            let upper = _mm256_fmadd_ps(factor, residual, _mm256_mul_ps(score, scale));
            let here = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(upper, gate));
            bits |= u64::from(here.cast_unsigned()) << i;
        }
        while bits != 0 {
            let lane = bits.trailing_zeros() as usize;
            bits &= bits - 1;
            let score = scores[lane] - rows.bases[r];
            passing.push(PassingPair { row: first_row + r, lane, score });
        }
    }
}

/// See [`crate::cpu::kernels::ScanKernels::passing_rows`].
///
/// # Safety
///
/// The CPU has AVX2 and FMA; the slices have the same length of at most 64.
#[target_feature(enable = "avx2,f16c,fma")]
pub(in crate::cpu) unsafe fn passing_rows(
    scores: &[i32],
    rows: RowColumns<'_>,
    factor: f32,
    gate: f32,
) -> u64 {
    let (factors, gates) = (_mm256_set1_ps(factor), _mm256_set1_ps(gate));
    let whole = scores.len() / 8 * 8;
    let mut passing = 0;
    for i in (0..whole).step_by(8) {
        // SAFETY: 8 values follow index i of each slice, guaranteed by the caller.
        let (score, base, scale, residual) = unsafe {
            (
                _mm256_loadu_si256(scores[i..].as_ptr().cast()),
                _mm256_loadu_si256(rows.bases[i..].as_ptr().cast()),
                _mm256_loadu_ps(rows.scales[i..].as_ptr()),
                _mm256_loadu_ps(rows.residuals[i..].as_ptr()),
            )
        };
        let score = _mm256_cvtepi32_ps(_mm256_sub_epi32(score, base));
        let upper = _mm256_fmadd_ps(factors, residual, _mm256_mul_ps(score, scale));
        let bits = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(upper, gates));
        passing |= u64::from(bits.cast_unsigned()) << i;
    }
    if whole == scores.len() {
        return passing;
    }
    let rest = RowColumns {
        bases: &rows.bases[whole..],
        scales: &rows.scales[whole..],
        residuals: &rows.residuals[whole..],
    };
    passing | generic::passing_rows(&scores[whole..], rest, factor, gate) << whole
}

/// See [`selection::kth_largest`].
///
/// # Safety
///
/// The CPU has AVX2.
#[target_feature(enable = "avx2")]
pub(in crate::cpu) unsafe fn kth_largest(values: &[f32], k: usize) -> Option<f32> {
    selection::kth_largest(values, k)
}

/// See [`generic::raise_maxima`].
///
/// # Safety
///
/// The CPU has AVX2.
#[target_feature(enable = "avx2")]
pub(in crate::cpu) unsafe fn raise_maxima(
    scores: &[i32],
    rows: RowColumns<'_>,
    lanes: QueryLanes<'_>,
    maxima: &mut [f32],
) {
    generic::raise_maxima(scores, rows, lanes, maxima);
}
