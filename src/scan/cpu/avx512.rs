//! The AVX-512F tier: 16 values at a time, tiles of 4 rows x 4 queries in registers.

use crate::scan::order::{self, LANES};
use half::f16;
use std::arch::x86_64::*;

/// See [`super::tier::Kernels::scores`].
///
/// # Safety
///
/// The CPU has AVX-512F. All rows have the same length, a multiple of 16; `queries` is a whole number
/// of such lengths; `scores` holds one value a query and row.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn scores(rows: &[&[f16]], queries: &[f32], scores: &mut [f32]) {
    super::tier::for_each_tile!(rows, queries, scores, 4, 4, 8, tile);
}

/// See [`order::canonical_score`].
///
/// # Safety
///
/// The CPU has AVX-512F; both slices have the same length, a multiple of 16.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn canonical(query: &[f32], row: &[f16]) -> f32 {
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
    order::finish(&mut lanes)
}

/// Dot products of `R` rows and `Q` queries of `stride` values.
///
/// # Safety
///
/// The CPU has AVX-512F; every pointer leads to `stride` readable values, a multiple of 16.
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
            // SAFETY: `i + 16 <= stride`, which the caller vouches for.
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

/// 16 halves as float32.
///
/// # Safety
///
/// The CPU has AVX-512F; 16 values are readable behind `at`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_row(at: *const f16) -> __m512 {
    // SAFETY: 16 halves are 32 bytes; the load needs no alignment.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(at.cast()) })
}
