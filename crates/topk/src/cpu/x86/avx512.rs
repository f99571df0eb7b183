//! The AVX-512 tier: 16 values at a time, tiles of 4 rows x 4 queries in registers.

use crate::cpu::gate::{PassingPairs, PendingRow, QueryLanes, RowColumns};
use crate::cpu::{generic, selection};
use crate::oracle::{self, LANES};
use crate::sq8::RowScale;
use half::f16;
use std::arch::x86_64::*;
use warpseek_compute::cpu::PANEL;

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
/// The CPU has AVX-512F and F16C; all slices but `scores` have the same length, a multiple of 16.
#[target_feature(enable = "avx512f,f16c")]
pub(in crate::cpu) unsafe fn canonical_scores(query: &[f32], rows: &[&[f16]], scores: &mut [f32]) {
    let whole = rows.len() / 4 * 4;
    for (rows, scores) in rows.as_chunks::<4>().0.iter().zip(scores.as_chunks_mut::<4>().0) {
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
/// The CPU has AVX-512F and F16C; every pointer is followed by as many values as the query has, a
/// multiple of 16.
#[target_feature(enable = "avx512f,f16c")]
unsafe fn canonical<const R: usize>(query: &[f32], rows: [*const f16; R]) -> [f32; R] {
    let mut sums = [[_mm512_setzero_pd(); 2]; R];
    for (i, q) in query.as_chunks::<LANES>().0.iter().enumerate() {
        // SAFETY: 16 values follow index 16 i in the query and every row, as the caller guarantees;
        // each half of them is 8.
        unsafe {
            let q = [0, 8].map(|j| _mm512_cvtps_pd(_mm256_loadu_ps(q.as_ptr().add(j))));
            for (sums, row) in sums.iter_mut().zip(rows) {
                for ((sum, q), j) in sums.iter_mut().zip(q).zip([0, 8]) {
                    let r = _mm_loadu_si128(row.add(i * LANES + j).cast());
                    let r = _mm512_cvtps_pd(_mm256_cvtph_ps(r));
                    // The products are exact, so that fused and separate additions agree.
                    *sum = _mm512_fmadd_pd(q, r, *sum);
                }
            }
        }
    }
    sums.map(|[low, high]| {
        let mut lanes = [0f64; LANES];
        // SAFETY: `lanes` holds 16 values.
        unsafe {
            _mm512_storeu_pd(lanes.as_mut_ptr(), low);
            _mm512_storeu_pd(lanes.as_mut_ptr().add(8), high);
        }
        oracle::finish(&mut lanes)
    })
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

/// See [`crate::cpu::kernels::ScanKernels::passing_pairs`].
///
/// # Safety
///
/// The CPU has AVX-512 F and BW; `scores` is `[n, lanes]` of `n` rows and up to four panels of
/// queries.
#[target_feature(enable = "avx512f,avx512bw")]
pub(in crate::cpu) unsafe fn passing_pairs(
    scores: &[i32],
    first_row: usize,
    rows: RowColumns<'_>,
    lanes: QueryLanes<'_>,
    passing: &mut PassingPairs,
) {
    // SAFETY: passed on from the caller; the number of panels is that of the arm.
    unsafe {
        match lanes.gates.len() / PANEL {
            1 => passing_pairs_of::<1>(scores, first_row, rows, lanes, passing),
            2 => passing_pairs_of::<2>(scores, first_row, rows, lanes, passing),
            3 => passing_pairs_of::<3>(scores, first_row, rows, lanes, passing),
            _ => passing_pairs_of::<4>(scores, first_row, rows, lanes, passing),
        }
    }
}

/// Rows that are compared before the pairs that pass are collected.
pub(super) const MASK_ROWS: usize = 32;

/// [`passing_pairs`] for `P` panels.
///
/// # Safety
///
/// As [`passing_pairs`].
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn passing_pairs_of<const P: usize>(
    scores: &[i32],
    first_row: usize,
    rows: RowColumns<'_>,
    lanes: QueryLanes<'_>,
    passing: &mut PassingPairs,
) {
    // SAFETY: the lanes are those of `P` panels.
    let terms = unsafe { LaneTerms::<P>::load(lanes, 0) };
    for start in (0..rows.scales.len()).step_by(MASK_ROWS) {
        let rows = rows.range(start..(start + MASK_ROWS).min(rows.scales.len()));
        let scores = &scores[start * P * PANEL..];
        let mut masks = [[0; P]; MASK_ROWS];
        for (r, masks) in masks.iter_mut().enumerate().take(rows.scales.len()) {
            // SAFETY: the scores of row r are `P` panels wide.
            let score: [__m512i; P] = std::array::from_fn(|p| unsafe {
                _mm512_loadu_si512(scores.as_ptr().add((r * P + p) * PANEL).cast())
            });
            let base = _mm512_set1_epi32(rows.bases[r]);
            let score = score.map(|score| _mm512_sub_epi32(score, base));
            *masks = terms.compare(score, rows.scales[r], rows.residuals[r]);
        }
        // SAFETY: the masks of rows that do not exist are zero.
        unsafe { collect(scores.as_ptr(), &masks, rows.bases, first_row + start, 0, passing) };
    }
}

/// The terms of `P` panels of queries in registers.
#[derive(Clone, Copy)]
pub(super) struct LaneTerms<const P: usize> {
    negative_factors: [__m512; P],
    gates: [__m512; P],
}

impl<const P: usize> LaneTerms<P> {
    /// Loads the terms of the lanes from `first` on.
    ///
    /// # Safety
    ///
    /// The CPU has AVX-512F; `lanes` holds `P` panels behind `first`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn load(lanes: QueryLanes<'_>, first: usize) -> Self {
        let load = |values: &[f32]| -> [__m512; P] {
            // SAFETY: guaranteed by the caller.
            std::array::from_fn(|p| unsafe {
                _mm512_loadu_ps(values.as_ptr().add(first + p * PANEL))
            })
        };
        let negative = |factor: __m512| _mm512_sub_ps(_mm512_setzero_ps(), factor);
        Self { negative_factors: load(lanes.factors).map(negative), gates: load(lanes.gates) }
    }

    /// Returns terms with which nothing passes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn none() -> Self {
        let gates = [_mm512_set1_ps(f32::INFINITY); P];
        Self { negative_factors: [_mm512_setzero_ps(); P], gates }
    }

    /// Compares the scores of one row, without the zero point's share. Returns one bit per query: 1
    /// if it passes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn compare(&self, scores: [__m512i; P], scale: f32, residual: f32) -> [u16; P] {
        let (scale, residual) = (_mm512_set1_ps(scale), _mm512_set1_ps(residual));
        std::array::from_fn(|p| {
            let least = _mm512_fmadd_ps(self.negative_factors[p], residual, self.gates[p]);
            let score = _mm512_mul_ps(_mm512_cvtepi32_ps(scores[p]), scale);
            _mm512_cmp_ps_mask::<_CMP_GE_OQ>(score, least)
        })
    }
}

/// Appends the pairs of up to [`MASK_ROWS`] rows and `P` panels whose bits are set. `scores` is
/// `[rows, P, PANEL]`.
///
/// # Safety
///
/// The CPU has AVX-512 F and BW; rows whose masks are not zero have scores and a base.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn collect<const P: usize>(
    scores: *const i32,
    masks: &[[u16; P]; MASK_ROWS],
    bases: &[i32],
    first_row: usize,
    first_lane: usize,
    passing: &mut PassingPairs,
) {
    let masks = masks.as_flattened();
    let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (c, chunk) in masks.chunks_exact(MASK_ROWS).enumerate() {
        // SAFETY: the chunk holds 32 values of 16 bits.
        let bits = unsafe { _mm512_loadu_si512(chunk.as_ptr().cast()) };
        let mut open = _mm512_test_epi16_mask(bits, bits);
        while open != 0 {
            let i = c * MASK_ROWS + open.trailing_zeros() as usize;
            open &= open - 1;
            let (mask, r) = (masks[i], i / P);
            let first = PassingPairs::number(first_row + r, first_lane + i % P * PANEL);
            passing.append(|pairs, out| {
                let base = _mm512_set1_epi32(bases[r]);
                // SAFETY: the row has `P` panels of scores; both arrays hold 16 values.
                unsafe {
                    let score = _mm512_loadu_si512(scores.add(i * PANEL).cast());
                    let score = _mm512_sub_epi32(score, base);
                    let pair = _mm512_add_epi32(lanes, _mm512_set1_epi32(first.cast_signed()));
                    let score = _mm512_maskz_compress_epi32(mask, score);
                    let pair = _mm512_maskz_compress_epi32(mask, pair);
                    _mm512_storeu_si512(out.as_mut_ptr().cast(), score);
                    _mm512_storeu_si512(pairs.as_mut_ptr().cast(), pair);
                }
                mask.count_ones() as usize
            });
        }
    }
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

/// See [`crate::cpu::kernels::ScanKernels::pending_bounds`].
///
/// # Safety
///
/// The CPU has AVX-512F; the slices of bounds are as long as `rows`, and every row has a scale.
#[target_feature(enable = "avx512f")]
pub(in crate::cpu) unsafe fn pending_bounds(
    rows: &[PendingRow],
    scales: &[RowScale],
    factor: f32,
    [lower, upper]: [&mut [f32]; 2],
) {
    const WORDS: i64 = (size_of::<RowScale>() / size_of::<f32>()) as i64;
    let factors = _mm512_set1_ps(factor);
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    let whole = rows.len() / 16 * 16;
    for i in (0..whole).step_by(16) {
        // SAFETY: 16 pending rows, pairs of 32 bits, follow index i, and 16 bounds in either slice;
        // word 0 of a row's scale is the scale, word 1 the residual.
        unsafe {
            let first = _mm512_loadu_si512(rows.as_ptr().add(i).cast());
            let second = _mm512_loadu_si512(rows.as_ptr().add(i + 8).cast());
            let score = _mm512_cvtepi32_ps(_mm512_permutex2var_epi32(first, odd, second));
            let row = _mm512_permutex2var_epi32(first, even, second);
            let word = |half: __m256i| {
                let row = _mm512_cvtepu32_epi64(half);
                _mm512_add_epi64(_mm512_add_epi64(row, row), row)
            };
            const { assert!(WORDS == 3) };
            let low = word(_mm512_castsi512_si256(row));
            let high = word(_mm512_extracti64x4_epi64::<1>(row));
            let words = scales.as_ptr().cast::<f32>();
            let gather = |from: *const f32| {
                let low = _mm512_i64gather_ps::<4>(low, from.cast());
                let high = _mm512_i64gather_ps::<4>(high, from.cast());
                let low = _mm512_castps_pd(_mm512_castps256_ps512(low));
                _mm512_castpd_ps(_mm512_insertf64x4::<1>(low, _mm256_castps_pd(high)))
            };
            let score = _mm512_mul_ps(score, gather(words));
            let error = _mm512_mul_ps(factors, gather(words.add(1)));
            _mm512_storeu_ps(lower.as_mut_ptr().add(i), _mm512_sub_ps(score, error));
            _mm512_storeu_ps(upper.as_mut_ptr().add(i), _mm512_add_ps(score, error));
        }
    }
    let rest = [&mut lower[whole..], &mut upper[whole..]];
    generic::pending_bounds(&rows[whole..], scales, factor, rest);
}

/// See [`selection::kth_largest`].
///
/// # Safety
///
/// The CPU has AVX-512F.
#[target_feature(enable = "avx512f")]
pub(in crate::cpu) unsafe fn kth_largest(values: &[f32], k: usize) -> Option<f32> {
    selection::kth_largest(values, k)
}

/// See [`generic::raise_maxima`].
///
/// # Safety
///
/// The CPU has AVX-512F; `scores` is `[n, lanes]` of `n` rows and whole panels of queries.
#[target_feature(enable = "avx512f")]
pub(in crate::cpu) unsafe fn raise_maxima(
    scores: &[i32],
    rows: RowColumns<'_>,
    lanes: QueryLanes<'_>,
    maxima: &mut [f32],
) {
    let width = maxima.len();
    for start in (0..width).step_by(PANEL) {
        // SAFETY: 16 lanes follow index `start` in all slices, and in the scores of every row.
        unsafe {
            let factor = _mm512_loadu_ps(lanes.factors.as_ptr().add(start));
            let maximum = maxima.as_mut_ptr().add(start);
            let mut largest = _mm512_loadu_ps(maximum);
            for (r, &base) in rows.bases.iter().enumerate() {
                let score = _mm512_loadu_si512(scores.as_ptr().add(r * width + start).cast());
                let score = _mm512_cvtepi32_ps(_mm512_sub_epi32(score, _mm512_set1_epi32(base)));
                let score = _mm512_mul_ps(score, _mm512_set1_ps(rows.scales[r]));
                let lower = _mm512_fnmadd_ps(factor, _mm512_set1_ps(rows.residuals[r]), score);
                largest = _mm512_max_ps(largest, lower);
            }
            _mm512_storeu_ps(maximum, largest);
        }
    }
}
