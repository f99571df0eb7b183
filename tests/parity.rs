//! Scans on every CPU tier and on the GPU against the oracle, the naive float64 scan, bit for bit.

use half::f16;
use proptest::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::OnceLock;
use warpseek::compute::cpu::Tier;
use warpseek::topk::oracle::naive_top_k;
use warpseek::topk::{
    MatrixView, QueryBatch, RowMask, Scanner, ScoredRow, Sq8Matrix, row_norm_upper, stride_of,
};

/// A deterministic random generator (SplitMix64), so that a failing case can be replayed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in -1..1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// A mask with one of `share` of `n` rows.
    pub(crate) fn mask(&mut self, n: usize, share: u64) -> RowMask {
        mask(n, |_| self.next().is_multiple_of(share))
    }
}

/// The mask of the rows that `keep` keeps.
pub(crate) fn mask(n: usize, mut keep: impl FnMut(usize) -> bool) -> RowMask {
    let mut mask = RowMask::empty(n);
    (0..n).filter(|&row| keep(row)).for_each(|row| mask.insert(row));
    mask
}

/// Rows for a scan.
pub(crate) struct Corpus {
    pub(crate) values: Vec<f16>,
    pub(crate) dim: usize,
    max_norm: f32,
}

impl Corpus {
    pub(crate) fn new(n: usize, dim: usize, mut value: impl FnMut(usize, usize) -> f32) -> Self {
        let stride = stride_of(dim);
        let mut values = vec![f16::ZERO; n * stride];
        for (r, row) in values.chunks_exact_mut(stride).enumerate() {
            for (i, v) in row[..dim].iter_mut().enumerate() {
                *v = f16::from_f32(value(r, i));
            }
        }
        let max_norm = values.chunks_exact(stride).map(row_norm_upper).fold(0.0, f32::max);
        Self { values, dim, max_norm }
    }

    pub(crate) fn view(&self) -> MatrixView<'_> {
        MatrixView::new(&self.values, self.dim, self.max_norm).unwrap()
    }
}

fn tiers() -> Vec<Tier> {
    let (here, absent): (Vec<_>, Vec<_>) = Tier::ALL.into_iter().partition(|t| t.is_available());
    for tier in absent {
        eprintln!("this CPU lacks {}: tier {} cannot run here", tier.needs(), tier.name());
    }
    here
}

pub(crate) fn assert_same(got: &[Vec<ScoredRow>], expected: &[Vec<ScoredRow>], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (q, (got, expected)) in got.iter().zip(expected).enumerate() {
        let bits = |hits: &[ScoredRow]| -> Vec<(u32, u32)> {
            hits.iter().map(|h| (h.row, h.score.to_bits())).collect()
        };
        assert_eq!(bits(got), bits(expected), "{what}, query {q}");
    }
}

/// Scanners on the GPU, in builds with the feature `cuda`.
fn gpus() -> &'static [(&'static str, Scanner)] {
    #[cfg(feature = "cuda")]
    return crate::support::cuda::scanners();
    #[cfg(not(feature = "cuda"))]
    &[]
}

fn pools() -> &'static [ThreadPool; 2] {
    static POOLS: OnceLock<[ThreadPool; 2]> = OnceLock::new();
    POOLS.get_or_init(|| [1, 5].map(|n| ThreadPoolBuilder::new().num_threads(n).build().unwrap()))
}

/// Scans with and without the int8 copy, on the GPU and, twice, on every CPU tier with one and with
/// five threads, against the oracle.
fn check(corpus: &Corpus, queries: &[f32], k: usize, mask: Option<&RowMask>, what: &str) {
    let view = corpus.view();
    let expected: Vec<_> =
        queries.chunks_exact(corpus.dim).map(|q| naive_top_k(&view, q, k, mask)).collect();
    let batch = QueryBatch::new(queries, corpus.dim).unwrap();
    let sq8 = Sq8Matrix::of(&corpus.values, corpus.dim);
    let with_sq8 = view.with_sq8(sq8.view(corpus.dim));
    assert!(with_sq8.sq8().is_some());
    for (format, view) in [("half precision", &view), ("int8", &with_sq8)] {
        for (name, scanner) in gpus() {
            let got = scanner.top_k(view, &batch, k, mask).unwrap();
            assert_same(&got, &expected, &format!("{what}: {name}, {format}"));
        }
        for (tier, pool) in tiers().iter().flat_map(|tier| pools().iter().map(move |p| (tier, p))) {
            for _ in 0..2 {
                let got = pool.install(|| Scanner::Cpu(*tier).top_k(view, &batch, k, mask));
                let threads = pool.current_num_threads();
                let what = format!("{what}: {}, {format}, {threads} threads", tier.name());
                assert_same(&got.unwrap(), &expected, &what);
            }
        }
    }
}

pub(crate) fn random_queries(n: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    (0..n * dim).map(|_| random.unit()).collect()
}

#[test]
fn scan_of_random_rows_matches_the_oracle_at_every_shape() {
    for (n, dim) in [(0, 8), (1, 1), (127, 33), (128, 32), (129, 384), (1000, 384), (2500, 48)] {
        let mut random = Random(n as u64);
        let corpus = Corpus::new(n, dim, |_, _| random.unit());
        for n_queries in [1, 3, 8, 9, 17] {
            let queries = random_queries(n_queries, dim, 7);
            for k in [1, 10, n.max(1), n + 1] {
                let what = format!("{n} x {dim}, {n_queries} queries, k {k}");
                check(&corpus, &queries, k, None, &what);
            }
        }
    }
}

#[test]
fn scan_of_large_batches_matches_the_oracle() {
    let mut random = Random(3);
    let corpus = Corpus::new(700, 64, |_, _| random.unit());
    for n_queries in [33, 63, 64, 65, 129] {
        check(&corpus, &random_queries(n_queries, 64, 5), 7, None, &format!("{n_queries} queries"));
    }
}

#[test]
fn scan_with_equal_rows_returns_the_lowest_row_numbers() {
    let corpus = Corpus::new(3000, 32, |_, i| (i as f32 * 0.37).sin());
    for k in [1, 100, 2999, 3000] {
        check(&corpus, &random_queries(2, 32, 1), k, None, &format!("equal rows, k {k}"));
    }
}

#[test]
fn scan_with_duplicates_across_block_edges_breaks_ties_by_row() {
    // Seven different rows, so that every rank is a tie over hundreds of rows.
    let corpus = Corpus::new(2000, 64, |r, i| ((r % 7 * 64 + i) as f32 * 0.7).sin());
    for k in [1, 5, 300, 1999] {
        check(&corpus, &random_queries(3, 64, 2), k, None, &format!("seven rows, k {k}"));
    }
}

#[test]
fn scan_of_near_ties_within_the_error_bound_matches_the_oracle() {
    // Rows differ in one low bit of one component: the approximate order is noise.
    let corpus = Corpus::new(4000, 384, |r, i| {
        let base = ((i * 31 % 97) as f32 / 97.0) - 0.5;
        if i == r % 384 { f16::from_bits(f16::from_f32(base).to_bits() ^ 1).to_f32() } else { base }
    });
    check(&corpus, &random_queries(5, 384, 11), 25, None, "near ties");
}

#[test]
fn scan_of_ascending_and_descending_rows_matches_the_oracle() {
    let up = Corpus::new(3000, 32, |r, i| if i == 0 { r as f32 / 3000.0 } else { 0.0 });
    let down = Corpus::new(3000, 32, |r, i| if i == 0 { 1.0 - r as f32 / 3000.0 } else { 0.0 });
    let mut query = vec![0f32; 32];
    query[0] = 1.0;
    for (corpus, what) in [(&up, "ascending"), (&down, "descending")] {
        check(corpus, &query, 10, None, what);
        check(corpus, &query, 1000, None, what);
    }
}

#[test]
fn scan_of_zero_tiny_and_huge_rows_matches_the_oracle() {
    let tiny = f16::from_bits(1).to_f32();
    let corpus = Corpus::new(900, 96, |r, i| match r % 5 {
        0 => 0.0,
        1 => tiny * if i % 2 == 0 { 1.0 } else { -1.0 },
        2 => 65504.0 * if (i + r) % 3 == 0 { -1.0 } else { 1.0 },
        3 => -0.0,
        _ => ((r * 96 + i) as f32).sin(),
    });
    let mut queries = random_queries(2, 96, 3);
    queries.extend((0..96).map(|i| if i % 2 == 0 { 65504.0 } else { -65504.0 }));
    queries.extend([f32::from_bits(1); 96]);
    queries.extend([0.0; 96]);
    queries.extend([-0.0; 96]);
    for k in [1, 50, 900] {
        check(&corpus, &queries, k, None, &format!("extreme values, k {k}"));
    }
}

#[test]
fn scan_of_rows_of_very_different_norms_matches_the_oracle() {
    // Norms from 1e-4 to 1e5, in no order; rows of one direction stand next to each other.
    let mut random = Random(21);
    let n = 1300;
    let norms: Vec<f32> = (0..n).map(|_| 10f32.powf(4.5 * random.unit() + 0.5)).collect();
    let one_long: Vec<f32> = (0..n).map(|r| if r == 1034 { 6e4 } else { 0.5 }).collect();
    for (norms, what) in [(&norms, "log-uniform norms"), (&one_long, "one long row")] {
        let mut random = Random(22);
        let corpus = Corpus::new(n, 48, |r, i| {
            let direction = random.unit() + if i == r % 3 { 2.0 } else { 0.0 };
            (direction / 7.0 * norms[r]).clamp(-65504.0, 65504.0)
        });
        let mut queries = random_queries(9, 48, 23);
        // Queries of other lengths, and one against which all long rows are bad.
        queries[..48].iter_mut().for_each(|v| *v *= 3e4);
        queries[48..96].iter_mut().for_each(|v| *v *= 1e-5);
        let row = corpus.view().row(1034).unwrap();
        let against: Vec<f32> = row[..48].iter().map(|v| -v.to_f32() / 100.0).collect();
        queries[96..144].copy_from_slice(&against);
        let mask = random.mask(n, 7);
        for k in [1, 20] {
            check(&corpus, &queries, k, None, &format!("{what}, k {k}"));
            check(&corpus, &queries[..144], k, Some(&mask), &format!("{what}, mask, k {k}"));
        }
        check(&corpus, &queries[..144], 700, None, &format!("{what}, k 700"));
    }
}

#[test]
fn scan_with_masks_returns_only_rows_that_pass() {
    let mut random = Random(9);
    let n = 5000;
    let corpus = Corpus::new(n, 32, |_, _| random.unit());
    let queries = random_queries(6, 32, 4);
    let mut masks = vec![RowMask::empty(n), RowMask::full(n)];
    masks.extend([2, 10, 100].map(|share| random.mask(n, share)));
    masks.extend([0, 63, 64, 127, 128, n - 1].map(|one| mask(n, |row| row == one)));
    for (i, mask) in masks.iter().enumerate() {
        for k in [1, 20, n] {
            check(&corpus, &queries, k, Some(mask), &format!("mask {i}, k {k}"));
        }
    }
}

#[test]
fn scan_with_a_mask_for_each_query_returns_what_each_alone_does() {
    let mut random = Random(10);
    let n = 3000;
    let corpus = Corpus::new(n, 32, |_, _| random.unit());
    let mut masks = vec![RowMask::empty(n), RowMask::full(n)];
    masks.extend([2, 20, 300].map(|share| random.mask(n, share)));
    let view = corpus.view();
    let cpu = Scanner::cpu();
    for n_queries in [1, 7, 70] {
        let queries = random_queries(n_queries, 32, 4);
        let own: Vec<Option<&RowMask>> =
            (0..n_queries).map(|q| masks.get((q * 5 + 2) % (masks.len() + 1))).collect();
        for k in [1, 30, 2500] {
            let expected: Vec<_> = (queries.chunks_exact(32).zip(&own))
                .map(|(query, mask)| naive_top_k(&view, query, k, *mask))
                .collect();
            let batch = QueryBatch::new(&queries, 32).unwrap();
            for scanner in gpus().iter().map(|(_, scanner)| scanner).chain([&cpu]) {
                let got = scanner.top_k_masked(&view, &batch, k, &own).unwrap();
                let what = format!("{}, {n_queries} queries, k {k}", scanner.device());
                assert_same(&got, &expected, &what);
            }
        }
    }
    let batch = QueryBatch::new(&random_queries(2, 32, 4), 32).unwrap();
    let refused = cpu.top_k_masked(&view, &batch, 1, &[None]).unwrap_err();
    assert_eq!(refused.to_string(), "1 masks for 2 queries");
}

#[test]
fn scan_with_bad_arguments_is_refused() {
    let corpus = Corpus::new(10, 32, |r, _| r as f32);
    let queries = |dim| QueryBatch::new(&vec![0.5; dim], dim).unwrap();
    let scan = |queries: &QueryBatch, k, mask| {
        let refused = Scanner::Cpu(Tier::Generic).top_k(&corpus.view(), queries, k, mask);
        let error = refused.unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    assert_eq!(scan(&queries(32), 0, None), "k must be at least 1");
    let narrow = scan(&queries(8), 1, None);
    assert!(narrow.contains("8 dimensions") && narrow.contains("32"), "{narrow}");
    let short = scan(&queries(32), 1, Some(&RowMask::full(9)));
    assert!(short.contains('9') && short.contains("10"), "{short}");
    for bad in [f32::NAN, f32::INFINITY, 70000.0] {
        let error = QueryBatch::new(&[0.0, bad], 2).unwrap_err();
        assert!(error.to_string().contains("component 1") && error.exit_code() == 2, "{error}");
    }
    assert!(QueryBatch::new(&[0.0; 3], 2).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn scan_of_any_small_corpus_matches_the_oracle(
        n in 0usize..400,
        dim in 1usize..70,
        levels in 1i32..6,
        k in 1usize..50,
        n_queries in 1usize..12,
        keep in 1u64..5,
        seed: u64,
    ) {
        // Few levels make many exact ties.
        let mut random = Random(seed);
        let mut level = || (random.next() % (2 * levels as u64 + 1)) as f32 - levels as f32;
        let corpus = Corpus::new(n, dim, |_, _| level() / 4.0);
        let queries: Vec<f32> = (0..n_queries * dim).map(|_| level()).collect();
        let mask = random.mask(n, keep);
        check(&corpus, &queries, k, Some(&mask), "any corpus");
    }
}
