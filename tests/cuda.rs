//! The GPU scan where it differs from the CPU's: passes and candidates, error bounds, limits.
//! `tests/parity.rs` has the rest.

mod commands;
mod encoder;

use crate::parity::{Corpus, Random, assert_same, mask, random_queries};
use crate::support::cli::{Workplace, records};
use crate::support::cuda::{gpu_kernels, open, replays};
use half::f16;
use std::sync::Arc;
use warpseek::compute::device::GpuKernels;
use warpseek::topk::matrix::RowsDigest;
use warpseek::topk::oracle::naive_top_k;
use warpseek::topk::{GpuOptions, MatrixView, QueryBatch, RowMask, Scanner, Sq8Matrix, Sq8View};

/// A scanner whose large batches read the int8 copy, if there is one.
fn roomy() -> Scanner {
    open(GpuOptions { int8_from: Some(0), ..GpuOptions::default() })
}

/// The same with as few candidates as possible, so that there are many passes.
fn tight() -> Scanner {
    open(GpuOptions { candidates: Some(0), int8_from: Some(0), ..GpuOptions::default() })
}

fn overflows(scanner: &Scanner) -> u64 {
    scanner.gpu_info().unwrap().overflows
}

/// `scanner` against the CPU, which parity.rs compares with the oracle, for one view.
fn check_view(scanner: &Scanner, view: &MatrixView<'_>, queries: &[f32], k: usize, what: &str) {
    let batch = QueryBatch::new(queries, view.dim()).unwrap();
    let expected = Scanner::cpu().top_k(view, &batch, k, None).unwrap();
    assert_same(&scanner.top_k(view, &batch, k, None).unwrap(), &expected, what);
}

/// `scanner` against the CPU, with and without the int8 copy.
fn check(scanner: &Scanner, corpus: &Corpus, queries: &[f32], k: usize, mask: Option<&RowMask>) {
    let batch = QueryBatch::new(queries, corpus.dim).unwrap();
    let expected = Scanner::cpu().top_k(&corpus.view(), &batch, k, mask).unwrap();
    let sq8 = Sq8Matrix::of(&corpus.values, corpus.dim);
    let with_sq8 = corpus.view().with_sq8(sq8.view(corpus.dim));
    for (format, view) in [("half precision", corpus.view()), ("int8", with_sq8)] {
        let got = scanner.top_k(&view, &batch, k, mask).unwrap();
        assert_same(&got, &expected, &format!("{} queries, k {k}, {format}", batch.len()));
    }
}

#[test]
fn candidates_suffice_for_rows_without_order() {
    let mut random = Random(21);
    let corpus = Corpus::new(20_000, 40, |_, _| random.unit());
    let most = mask(20_000, |_| random.next() % 5 < 3);
    let tenth = random.mask(20_000, 10);
    let scanner = tight();
    for (n, k) in [(1, 1), (1, 100), (9, 10), (20, 3), (40, 25), (65, 10), (130, 50)] {
        let queries = random_queries(n, 40, k as u64);
        for mask in [None, Some(&most), Some(&tenth)] {
            check(&scanner, &corpus, &queries, k, mask);
        }
        assert_eq!(overflows(&scanner), 0, "{n} queries, k {k}");
    }
}

#[test]
fn candidates_suffice_for_rows_in_the_order_of_their_scores() {
    let corpus = Corpus::new(20_000, 32, |r, i| if i == 0 { r as f32 / 16.0 } else { 0.0 });
    let mut queries = vec![0.0; 64];
    (queries[0], queries[32]) = (1.0, -1.0);
    let scanner = tight();
    check(&scanner, &corpus, &queries, 10, None);
    assert_eq!(overflows(&scanner), 0);
}

#[test]
fn too_many_candidates_are_answered_in_full() {
    let corpus = Corpus::new(9000, 32, |r, i| ((r % 3 * 32 + i) as f32).sin());
    let scanner = tight();
    let last = mask(9000, |row| row >= 5000);
    for n in [3, 66] {
        check(&scanner, &corpus, &random_queries(n, 32, 5), 20, None);
        check(&scanner, &corpus, &random_queries(n, 32, 5), 20, Some(&last));
    }
    assert!(overflows(&scanner) > 60, "{}", overflows(&scanner));
}

/// Large batches read half precision if int8 leaves too many candidates.
#[test]
fn int8_that_is_too_coarse_is_not_read() {
    let mut random = Random(41);
    let near = Corpus::new(4000, 40, |_, i| 1.0 + random.unit() * if i < 39 { 0.02 } else { 0.0 });
    let far = Corpus::new(4000, 40, |_, _| random.unit());
    let scanner = tight();
    let queries = random_queries(70, 40, 3);
    let owners = [(); 2].map(Arc::new);
    for (corpus, owner, read_int8) in [(&near, &owners[0], false), (&far, &owners[1], true)] {
        let sq8 = Sq8Matrix::of(&corpus.values, 40);
        let view = corpus.view().with_sq8(sq8.view(40)).with_owner(owner, &[]);
        for _ in 0..2 {
            check_view(&scanner, &view, &queries, 3, "coarse");
            assert_eq!(scanner.last_gpu_batch().unwrap().unwrap().read_int8, read_int8);
        }
    }
}

/// Checks a corpus in which an attack on the error bound hides the best rows: those with row number
/// `best` modulo `modulus`.
fn check_attack(corpus: &Corpus, query: &[f32], ks: &[usize], (best, modulus): (u32, u32)) {
    for &k in ks {
        let first = naive_top_k(&corpus.view(), query, k, None);
        assert!(first.iter().all(|hit| hit.row % modulus == best), "the corpus is no attack");
        for n in [1, 70] {
            check(&roomy(), corpus, &query.repeat(n), k, None);
        }
    }
}

/// Returns a query whose components are 1 plus or minus up to `lost`, which rounding removes, and
/// rows of `size` and -`size`, 31 of each, so that their approximate score is that of their last
/// component. One row in forty gains from what was lost; the others lose by it, and are higher by a
/// little less than that in their last component.
fn rounding_attack(lost: f32, size: f32, levels: [f32; 2], weight: f32) -> (Corpus, Vec<f32>) {
    let mut random = Random(33);
    let lost: Vec<f32> = (0..62).map(|_| random.unit() * lost).collect();
    let mut by_loss: Vec<usize> = (0..62).collect();
    by_loss.sort_by(|&a, &b| lost[b].total_cmp(&lost[a]));
    let rank: Vec<usize> = (0..62).map(|i| by_loss.iter().position(|&j| j == i).unwrap()).collect();
    let corpus = Corpus::new(3000, 63, |r, i| match (i, r % 40 == 7) {
        (62, gains) => levels[usize::from(!gains)],
        (_, gains) if (rank[i] < 31) == gains => size,
        _ => -size,
    });
    let mut query: Vec<f32> = lost.iter().map(|l| 1.0 + l).collect();
    query.push(weight);
    (corpus, query)
}

#[test]
fn rounding_of_queries_changes_nothing() {
    let f16_attack = rounding_attack(1.0 / 8192.0, 1.0, [13.0 / 512.0, 16.0 / 512.0], 1.0);
    // Rows that int8 holds exactly, so that nothing but the rounding of the query is left.
    let int8_attack = rounding_attack(1.0 / 40_000.0, 127.0, [3.0, 5.0], 0.0625);
    for (corpus, query) in [f16_attack, int8_attack] {
        check_attack(&corpus, &query, &[1, 10, 75], (7, 40));
    }
}

#[test]
fn rounding_of_rows_to_int8_changes_nothing() {
    // The scale of a row is 1/64. All but two components round to ten; one row in forty loses by
    // that, the others gain, and are higher by a little less in the last but one.
    let corpus = Corpus::new(3000, 64, |r, i| match (i, r % 40 == 7) {
        (63, _) => 127.0 / 64.0,
        (62, true) => 0.0,
        (62, false) => 40.0 / 64.0,
        (_, true) => 10.4 / 64.0,
        (_, false) => 9.6 / 64.0,
    });
    // At any scale, as thresholds are kept in the query's own.
    for (value, k) in [(1.0, 1), (1.0, 10), (5.0, 10), (0.01, 75)] {
        check_attack(&corpus, &[value; 64], &[k], (7, 40));
    }
}

#[test]
fn rows_that_int8_holds_exactly_are_told_apart_by_both_parts() {
    let mut random = Random(5);
    let corpus = Corpus::new(12_000, 64, |_, _| if random.unit() > 0.0 { 1.0 } else { -1.0 });
    for k in [10, 100, 300] {
        check(&roomy(), &corpus, &random_queries(9, 64, 6), k, None);
    }
}

#[test]
fn rounding_of_sums_changes_nothing() {
    // A small component is lost behind a large sum, and kept once others have cancelled it.
    let corpus = Corpus::new(2000, 96, |r, i| match (i, r % 50 == 3) {
        (32, true) => 0.12,
        (95, false) => 0.10,
        (1..=31, _) => 60000.0,
        (64..=94, _) => -60000.0,
        _ => 0.0,
    });
    check_attack(&corpus, &[1.0; 96], &[1, 40], (3, 50));
}

#[test]
fn any_number_of_dimensions_and_hits_will_do() {
    for dim in [1, 32, 33, 384, 768, 1536, 4096] {
        let mut random = Random(dim as u64);
        let corpus = Corpus::new(200, dim, |_, _| random.unit());
        for n in [2, 65] {
            check(&tight(), &corpus, &random_queries(n, dim, 3), 7, None);
        }
    }
    let mut random = Random(8);
    let corpus = Corpus::new(5000, 8, |_, _| random.unit());
    let scanner = tight();
    for k in [1023, 1024, 1025, 2048, 2049, 5000, 6000] {
        check(&scanner, &corpus, &random_queries(3, 8, 3), k, None);
    }
}

#[test]
fn scores_of_rows_of_either_sign_and_of_none_are_ordered() {
    let scanner = tight();
    let corpus = Corpus::new(3000, 16, |r, i| match r % 4 {
        0 => -0.0,
        1 => f16::from_bits(1 + (r % 9) as u16).to_f32(),
        2 => -(((r + i) % 5) as f32),
        _ => ((r + i) % 5) as f32,
    });
    for value in [-1.0, 1.0, f32::from_bits(1), 65504.0] {
        check(&scanner, &corpus, &[value; 16], 100, None);
    }
    // All scores are the least positive number, or 0.
    let mut random = Random(19);
    let corpus = Corpus::new(3000, 16, |_, _| 0.6 + random.unit() * 0.4);
    let mut query = [0.0; 16];
    query[5] = f32::from_bits(1);
    for n in [1, 70] {
        check(&scanner, &corpus, &query.repeat(n), 10, None);
    }
}

/// From the second time on the launches of a small batch are a CUDA graph, which reads the queries
/// and masks of its own time.
#[test]
fn replayed_graphs_see_new_queries() {
    let mut random = Random(17);
    let corpus = Corpus::new(9000, 32, |_, _| random.unit());
    let (owner, scanner) = (Arc::new(()), tight());
    let view = corpus.view().with_owner(&owner, &[]);
    let before = replays();
    for round in 0..5u64 {
        let mask = mask(9000, |row| row % 5 != round as usize);
        for mask in [None, Some(&mask)] {
            for (n, k) in [(3, 10), (1, 10), (1, 7)] {
                let batch = QueryBatch::new(&random_queries(n, 32, 90 + round), 32).unwrap();
                let expected = Scanner::cpu().top_k(&view, &batch, k, mask).unwrap();
                let got = scanner.top_k(&view, &batch, k, mask).unwrap();
                assert_same(&got, &expected, &format!("round {round}, {n} queries, k {k}"));
            }
        }
    }
    if let (Some(before), Some(after)) = (before, replays()) {
        assert!(after - before >= 4 * 6, "{} replays", after - before);
    }
}

#[test]
fn matrices_are_kept_as_long_as_their_owner_lives() {
    let scanner = open(GpuOptions { row_bytes: Some(300 << 10), ..GpuOptions::default() });
    let owner = Arc::new(());
    let queries = random_queries(2, 32, 4);
    for round in 0..3 {
        for seed in [1, 2, 3] {
            // Two of the three fit, and none is taken for another.
            let mut random = Random(seed);
            let corpus = Corpus::new(2000, 32, |_, _| random.unit());
            let own = Arc::new(());
            let owner = if seed == 1 && round > 0 { &owner } else { &own };
            for _ in 0..2 {
                check_view(&scanner, &corpus.view().with_owner(owner, &[]), &queries, 5, "kept");
            }
        }
    }
}

#[test]
fn only_added_rows_are_copied() {
    let mut random = Random(12);
    let corpus = Corpus::new(3000, 32, |_, _| random.unit());
    let sq8 = Sq8Matrix::of(&corpus.values, 32);
    let queries = random_queries(3, 32, 4);
    let scanner = open(GpuOptions::default());
    let uploaded = || scanner.gpu_info().unwrap().uploaded_bytes;
    let steps =
        [(2000, 7), (2500, 8), (3000, 9)].map(|(n_rows, digest)| RowsDigest { n_rows, digest });
    let owners = [(); 4].map(Arc::new);
    // A row: 64 bytes, 64 of its int8 copy, a scale.
    let row_bytes = 64 + 64 + 4;
    // Owner, known steps of the matrix, and the rows that are copied.
    for (i, known, rows) in
        [(0, 1, 2000), (1, 2, 500), (0, 1, 0), (2, 3, 500), (1, 2, 0), (2, 3, 0)]
    {
        let n = steps[known - 1].n_rows;
        let view = MatrixView::new(&corpus.values[..n * 32], 32, corpus.view().max_norm()).unwrap();
        let first = Sq8View::new(&sq8.values[..n * 64], &sq8.scales[..n], n, 32);
        let view = view.with_sq8(first).with_owner(&owners[i], &steps[..known]);
        let before = uploaded();
        check_view(&scanner, &view, &queries, 50, "added rows");
        assert_eq!(uploaded() - before, rows * row_bytes, "{known} steps");
    }
    // As many rows with another digest.
    let mut random = Random(13);
    let other = Corpus::new(3000, 32, |_, _| random.unit());
    let history = [RowsDigest { n_rows: 3000, digest: 10 }];
    check_view(&scanner, &other.view().with_owner(&owners[3], &history), &queries, 50, "others");
}

#[test]
fn an_index_that_grows_is_searched_on_the_gpu_as_it_is() {
    let place = Workplace::new();
    let scanner = open(GpuOptions::default());
    for n in [40, 45, 300] {
        place.file("corpus.jsonl", records(n));
        place.run(&["index", "corpus.jsonl", "--into", "idx"]).ok();
        if n == 45 {
            place.run(&["compact", "idx"]).ok();
        }
        let index = warpseek::store::Index::open(&place.path("idx")).unwrap();
        let rows = index.matrix().unwrap();
        let matrix = rows.single().unwrap();
        assert_eq!(matrix.history().last().unwrap().n_rows, matrix.n_rows());
        let queries = random_queries(3, matrix.dim(), 4);
        let batch = QueryBatch::new(&queries, matrix.dim()).unwrap();
        let expected = Scanner::cpu().top_k(matrix, &batch, 9, Some(index.live())).unwrap();
        // On a thread that has no CUDA context yet.
        let got = std::thread::scope(|scope| {
            scope.spawn(|| scanner.top_k(matrix, &batch, 9, Some(index.live()))).join().unwrap()
        });
        assert_same(&got.unwrap(), &expected, &format!("{n} records"));
        // Two shards or more on one GPU answer as the whole index.
        place.run(&["compact", "idx"]).ok();
        let whole = warpseek::store::Index::open(&place.path("idx")).unwrap();
        place.run(&["shard", "idx", "--rows", "37", "--into", "shards"]).ok();
        let shards = warpseek::store::Index::open(&place.path("shards")).unwrap();
        let find = |scanner: &Scanner, index: &warpseek::store::Index| {
            scanner.top_k_sharded(&index.matrix().unwrap(), &batch, 9, &[None; 3]).unwrap()
        };
        let expected = find(&Scanner::cpu(), &whole);
        for _ in 0..2 {
            assert_same(&find(&scanner, &shards), &expected, &format!("{n} records in shards"));
        }
    }
}

/// With wrong products a scanner would use the portable kernels, and no other test would notice.
#[test]
fn hoppers_products_are_right() {
    let info = open(GpuOptions::default()).gpu_info().unwrap();
    let expected = info.capability == "9.0" && gpu_kernels() == GpuKernels::Auto;
    assert_eq!(info.products.contains("wgmma"), expected, "{info:?}");
}
