//! The quantized scan of every CPU tier against the oracle, bit for bit, at the edges of its tiles,
//! buffers and samples, with one and with two threads.

#![allow(clippy::unwrap_used)]

use half::f16;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::OnceLock;
use warpseek_topk::compute::cpu::Tier;
use warpseek_topk::oracle::naive_top_k;
use warpseek_topk::{
    MatrixView, QueryBatch, RowMask, Scanner, ScoredRow, Sq8Matrix, row_norm_upper, stride_of,
};

/// SplitMix64, uniform in -1..1.
fn random(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

fn random_values(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    (0..n).map(|_| random(&mut state)).collect()
}

fn mask(n: usize, keep: impl Fn(usize) -> bool) -> RowMask {
    let mut mask = RowMask::empty(n);
    (0..n).filter(|&row| keep(row)).for_each(|row| mask.insert(row));
    mask
}

/// Rows with their int8 copy.
struct Corpus {
    values: Vec<f16>,
    sq8: Sq8Matrix,
    dim: usize,
}

impl Corpus {
    fn new(n: usize, dim: usize, mut value: impl FnMut(usize, usize) -> f32) -> Self {
        let stride = stride_of(dim);
        let mut values = vec![f16::ZERO; n * stride];
        for (r, row) in values.chunks_exact_mut(stride).enumerate() {
            let row = row[..dim].iter_mut().enumerate();
            row.for_each(|(i, v)| *v = f16::from_f32(value(r, i)));
        }
        let sq8 = Sq8Matrix::of(&values, dim);
        Self { values, sq8, dim }
    }

    fn random(n: usize, dim: usize) -> Self {
        let mut state = n as u64;
        Self::new(n, dim, |_, _| random(&mut state))
    }

    fn view(&self) -> MatrixView<'_> {
        let norms = self.values.chunks_exact(stride_of(self.dim)).map(row_norm_upper);
        let view = MatrixView::new(&self.values, self.dim, norms.fold(0.0, f32::max)).unwrap();
        let view = view.with_sq8(self.sq8.view(self.dim));
        assert!(view.sq8().is_some());
        view
    }
}

fn pools() -> &'static [ThreadPool; 2] {
    static POOLS: OnceLock<[ThreadPool; 2]> = OnceLock::new();
    POOLS.get_or_init(|| [1, 2].map(|n| ThreadPoolBuilder::new().num_threads(n).build().unwrap()))
}

fn bits(results: &[Vec<ScoredRow>]) -> Vec<Vec<(u32, u32)>> {
    let bits = |hits: &Vec<ScoredRow>| hits.iter().map(|h| (h.row, h.score.to_bits())).collect();
    results.iter().map(bits).collect()
}

/// Scans by every tier, with one and with two threads, against the oracle.
fn check(corpus: &Corpus, queries: &[f32], k: usize, mask: Option<&RowMask>, what: &str) {
    let view = corpus.view();
    let oracle = |query| naive_top_k(&view, query, k, mask);
    let expected: Vec<_> = queries.chunks_exact(corpus.dim).map(oracle).collect();
    let batch = QueryBatch::new(queries, corpus.dim).unwrap();
    for tier in Tier::ALL.into_iter().filter(|tier| tier.is_available()) {
        for pool in pools() {
            let got = pool.install(|| Scanner::Cpu(tier).top_k(&view, &batch, k, mask)).unwrap();
            let (name, threads) = (tier.name(), pool.current_num_threads());
            assert!(bits(&got) == bits(&expected), "{what}, k {k}: {name}, {threads} threads");
        }
    }
}

#[test]
fn batches_around_whole_panels_match_the_oracle() {
    // One, two, four and seven steps of 64 values.
    for (n, dim) in [(333, 20), (333, 70), (333, 250), (200, 400)] {
        let corpus = Corpus::random(n, dim);
        for n_queries in [1, 7, 8, 9, 16, 17, 31, 32, 33, 48, 49, 63, 64, 65, 257] {
            let queries = random_values(n_queries * dim, 7);
            check(&corpus, &queries, 5, None, &format!("{n} x {dim}, {n_queries} queries"));
        }
    }
}

#[test]
fn rows_around_whole_tiles_and_blocks_match_the_oracle() {
    for n in [0, 1, 15, 16, 17, 31, 32, 33, 95, 96, 97, 191, 192, 193, 383, 384, 385, 417] {
        let corpus = Corpus::random(n, 48);
        for n_queries in [3, 33, 65] {
            let queries = random_values(n_queries * 48, 8);
            for k in [1, n.max(1), n + 1] {
                check(&corpus, &queries, k, None, &format!("{n} rows, {n_queries} queries"));
            }
        }
    }
}

#[test]
fn pending_buffers_that_are_just_full_match_the_oracle() {
    // A buffer has 256 rows for k up to 32, 8 k above.
    for (n, k) in [(255, 1), (256, 1), (257, 1), (512, 20), (513, 20), (799, 100), (800, 100)] {
        let corpus = Corpus::random(n, 32);
        for n_queries in [2, 10] {
            let queries = random_values(n_queries * 32, 9);
            check(&corpus, &queries, k, None, &format!("{n} rows, {n_queries} queries"));
        }
    }
}

#[test]
fn equal_ascending_and_descending_scores_match_the_oracle() {
    let n = 2600;
    let equal = Corpus::new(n, 32, |_, i| (i as f32 * 0.37).sin());
    let ascending = Corpus::new(n, 32, |r, i| if i == 0 { r as f32 / n as f32 } else { 0.01 });
    let descending =
        Corpus::new(n, 32, |r, i| if i == 0 { 1.0 - r as f32 / n as f32 } else { 0.01 });
    for (corpus, what) in [(equal, "equal"), (ascending, "ascending"), (descending, "descending")] {
        for n_queries in [1, 9, 65] {
            let mut queries = random_values(n_queries * 32, 10);
            queries.chunks_exact_mut(32).for_each(|query| query[0] = 1.0);
            for k in [1, 25, 300] {
                check(&corpus, &queries, k, None, &format!("{what}, {n_queries} queries"));
            }
        }
    }
}

#[test]
fn more_results_than_pending_buffers_hold_match_the_oracle() {
    let n = 5300;
    let corpus = Corpus::random(n, 16);
    for (n_queries, k) in [(2, 4097), (9, 1000), (9, n), (9, n + 1)] {
        check(&corpus, &random_values(n_queries * 16, 11), k, None, "many results");
    }
}

#[test]
fn masked_rows_match_the_oracle() {
    let n = 4100;
    let corpus = Corpus::random(n, 64);
    let masks = [
        ("empty", RowMask::empty(n)),
        ("full", RowMask::full(n)),
        ("first row", mask(n, |row| row == 0)),
        ("last row", mask(n, |row| row == n - 1)),
        ("1 %", mask(n, |row| row % 100 == 63)),
        ("10 %", mask(n, |row| row * 61 % 100 < 10)),
        ("50 %", mask(n, |row| row * 61 % 100 < 50)),
        ("all but one", mask(n, |row| row != 40)),
    ];
    for (what, mask) in &masks {
        for n_queries in [1, 9, 66] {
            let queries = random_values(n_queries * 64, 12);
            for k in [1, 12, n] {
                check(&corpus, &queries, k, Some(mask), &format!("{what}, {n_queries} queries"));
            }
        }
    }
}

#[test]
fn sampled_thresholds_of_clustered_rows_match_the_oracle() {
    // Clusters of consecutive, nearly equal rows: the sample meets few rows of each.
    let (n, dim) = (6000, 64);
    let centres = random_values(40 * dim, 13);
    let mut state = 14;
    let corpus =
        Corpus::new(n, dim, |r, i| centres[r * 40 / n * dim + i] + 0.02 * random(&mut state));
    for n_queries in [64, 130] {
        let mut queries = random_values(n_queries * dim, 15);
        for (q, query) in queries.chunks_exact_mut(dim).enumerate() {
            let centre = &centres[q % 40 * dim..];
            query.iter_mut().zip(centre).for_each(|(v, c)| *v = c + 0.02 * *v);
        }
        for k in [1, 10, 23] {
            check(&corpus, &queries, k, None, &format!("clusters, {n_queries} queries"));
        }
    }
}

#[test]
fn rows_of_very_different_norms_match_the_oracle() {
    let mut state = 16;
    let corpus = Corpus::new(1500, 40, |r, _| {
        (random(&mut state) * 10f32.powi((r * 7 % 9) as i32 - 4)).clamp(-65504.0, 65504.0)
    });
    let mut queries = random_values(70 * 40, 17);
    queries[..40].iter_mut().for_each(|v| *v *= 6e4);
    queries[40..80].iter_mut().for_each(|v| *v *= 1e-30);
    queries[80..120].fill(0.0);
    queries[120..160].fill(f32::from_bits(1));
    for k in [1, 20] {
        check(&corpus, &queries, k, None, "very different norms");
        check(&corpus, &queries[..160], k, None, "very different norms, few queries");
    }
}
