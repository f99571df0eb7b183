//! The GPU's scan where it differs from the CPU's: rounds and candidates, error bounds, sizes of everything. `tests/parity.rs` has the rest.

mod commands;
mod encoder;

use crate::parity::{Corpus, Random, assert_same, random_queries};
use crate::support::cli::{Workplace, records};
use crate::support::cuda::{open, replays};
use half::f16;
use warpseek::scan::order::naive_top_k;
use warpseek::scan::{GpuOptions, QueryBatch, Scanner};
use warpseek::store::matrix::{MatrixView, RowMask, RowsDigest};
use warpseek::store::prefilter::{Prefilter, PrefilterView};

/// Large batches read the prefilter, where there is one.
const ROOMY: GpuOptions = GpuOptions { row_bytes: None, candidates: None, bytes_from: Some(0) };

/// As little room for candidates as there can be, so that there are rounds.
const TIGHT: GpuOptions = GpuOptions { candidates: Some(0), ..ROOMY };

fn overflows(scanner: &Scanner) -> u64 {
    match scanner {
        Scanner::Cuda(gpu) => gpu.info().overflows,
        Scanner::Cpu(_) => panic!("no GPU"),
    }
}

/// `scanner` against the CPU, which parity.rs holds against the oracle, over the rows and over their prefilter.
fn check(scanner: &Scanner, corpus: &Corpus, queries: &[f32], k: usize, mask: Option<&RowMask>) {
    let batch = QueryBatch::new(queries, corpus.dim).unwrap();
    let expected = Scanner::cpu().top_k(&corpus.view(), &batch, k, mask).unwrap();
    let prefilter = Prefilter::of(&corpus.values, corpus.dim);
    let filtered = corpus.view().with_sq8(prefilter.view(corpus.dim));
    for (way, view) in [("half precision", corpus.view()), ("prefilter", filtered)] {
        let got = scanner.top_k(&view, &batch, k, mask).unwrap();
        assert_same(&got, &expected, &format!("{} queries, k {k}, {way}", batch.len()));
    }
}

#[test]
fn candidates_suffice_for_rows_without_order() {
    let mut random = Random(21);
    let corpus = Corpus::new(20_000, 40, |_, _| random.unit());
    let mut half = RowMask::empty(20_000);
    (0..20_000).filter(|_| random.next() % 5 < 3).for_each(|row| half.insert(row));
    let mut tenth = RowMask::empty(20_000);
    (0..20_000).filter(|_| random.next().is_multiple_of(10)).for_each(|row| tenth.insert(row));
    let scanner = open(TIGHT);
    for (n, k) in [(1, 1), (1, 100), (9, 10), (20, 3), (40, 25), (65, 10), (130, 50)] {
        let queries = random_queries(n, 40, k as u64);
        check(&scanner, &corpus, &queries, k, None);
        check(&scanner, &corpus, &queries, k, Some(&half));
        check(&scanner, &corpus, &queries, k, Some(&tenth));
        assert_eq!(overflows(&scanner), 0, "{n} queries, k {k}");
    }
}

#[test]
fn candidates_suffice_for_rows_in_the_order_of_their_scores() {
    let corpus = Corpus::new(20_000, 32, |r, i| if i == 0 { r as f32 / 16.0 } else { 0.0 });
    let mut queries = vec![0.0; 64];
    (queries[0], queries[32]) = (1.0, -1.0);
    let scanner = open(TIGHT);
    check(&scanner, &corpus, &queries, 10, None);
    assert_eq!(overflows(&scanner), 0);
}

#[test]
fn too_many_candidates_are_answered_in_full() {
    let corpus = Corpus::new(9000, 32, |r, i| ((r % 3 * 32 + i) as f32).sin());
    let scanner = open(TIGHT);
    let mut last_third = RowMask::empty(9000);
    (5000..9000).for_each(|row| last_third.insert(row));
    for n in [3, 66] {
        check(&scanner, &corpus, &random_queries(n, 32, 5), 20, None);
        check(&scanner, &corpus, &random_queries(n, 32, 5), 20, Some(&last_third));
    }
    assert!(overflows(&scanner) > 60, "{}", overflows(&scanner));
}

/// Rows whose bytes leave too many candidates are read in half precision by large batches.
#[test]
fn bytes_that_are_too_coarse_are_passed_over() {
    let mut random = Random(41);
    let near = Corpus::new(4000, 40, |_, i| 1.0 + random.unit() * if i < 39 { 0.02 } else { 0.0 });
    let far = Corpus::new(4000, 40, |_, _| random.unit());
    let scanner = open(TIGHT);
    let Scanner::Cuda(gpu) = &scanner else { panic!("no GPU") };
    let queries = QueryBatch::new(&random_queries(70, 40, 3), 40).unwrap();
    let owners = [(); 2].map(std::sync::Arc::new);
    for (corpus, owner, expected) in [(&near, &owners[0], false), (&far, &owners[1], true)] {
        let prefilter = Prefilter::of(&corpus.values, 40);
        let view = corpus.view().with_sq8(prefilter.view(40)).with_owner(owner, &[]);
        let right = Scanner::cpu().top_k(&view, &queries, 3, None).unwrap();
        for _ in 0..2 {
            assert_same(&scanner.top_k(&view, &queries, 3, None).unwrap(), &right, "coarse");
            assert_eq!(gpu.has_read_bytes(), expected);
        }
    }
}

/// A query whose components are 1 and a little more or less, `lost`, that coarse numbers do not tell apart. Rows are `size` and
/// minus `size`, 31 of each, so that their coarse score is that of their last component. One in forty gains from what was lost; the others lose by it,
/// and stand higher by a little less than that in their last component.
fn coarse_attack(lost: f32, size: f32, levels: [f32; 2], weight: f32) -> (Corpus, Vec<f32>) {
    let mut random = Random(33);
    let lost: Vec<f32> = (0..62).map(|_| random.unit() * lost).collect();
    let mut by_loss: Vec<usize> = (0..62).collect();
    by_loss.sort_by(|&a, &b| lost[b].total_cmp(&lost[a]));
    let rank: Vec<usize> = (0..62).map(|i| by_loss.iter().position(|&j| j == i).unwrap()).collect();
    let corpus = Corpus::new(3000, 63, |r, i| match (i, r % 40 == 7) {
        (62, gains) => levels[usize::from(!gains)],
        (_, gains) => {
            if (rank[i] < 31) == gains {
                size
            } else {
                -size
            }
        }
    });
    let mut query: Vec<f32> = lost.iter().map(|l| 1.0 + l).collect();
    query.push(weight);
    (corpus, query)
}

#[test]
fn what_queries_lose_changes_nothing() {
    let in_halves = coarse_attack(1.0 / 8192.0, 1.0, [13.0 / 512.0, 16.0 / 512.0], 1.0);
    // Rows that bytes hold exactly, so that nothing but the query's loss is left.
    let in_bytes = coarse_attack(1.0 / 40_000.0, 127.0, [3.0, 5.0], 0.0625);
    for (corpus, query) in [in_halves, in_bytes] {
        for k in [1, 10, 75] {
            let first = naive_top_k(&corpus.view(), &query, k, None);
            assert!(first.iter().all(|hit| hit.row % 40 == 7), "the corpus is no attack");
            for n in [1, 70] {
                check(&open(ROOMY), &corpus, &query.repeat(n), k, None);
            }
        }
    }
}

#[test]
fn what_rows_lose_in_bytes_changes_nothing() {
    // One step of a row's bytes is 1/64. All but two components round to ten steps; one row in forty loses by that, the others gain, and stand
    // higher by a little less in the last but one.
    let corpus = Corpus::new(3000, 64, |r, i| match (i, r % 40 == 7) {
        (63, _) => 127.0 / 64.0,
        (62, loses) => {
            if loses {
                0.0
            } else {
                40.0 / 64.0
            }
        }
        (_, loses) => {
            if loses {
                10.4 / 64.0
            } else {
                9.6 / 64.0
            }
        }
    });
    // At any scale, as thresholds are kept in the query's own.
    for (query, k) in [([1.0; 64], 1), ([1.0; 64], 10), ([5.0; 64], 10), ([0.01; 64], 75)] {
        let first = naive_top_k(&corpus.view(), &query, k, None);
        assert!(first.iter().all(|hit| hit.row % 40 == 7), "the corpus is no attack");
        for n in [1, 70] {
            check(&open(ROOMY), &corpus, &query.repeat(n), k, None);
        }
    }
}

#[test]
fn rows_that_bytes_hold_exactly_are_told_apart_by_both_planes() {
    let mut random = Random(5);
    let corpus = Corpus::new(12_000, 64, |_, _| if random.unit() > 0.0 { 1.0 } else { -1.0 });
    for k in [10, 100, 300] {
        check(&open(ROOMY), &corpus, &random_queries(9, 64, 6), k, None);
    }
}

#[test]
fn what_additions_lose_changes_nothing() {
    // A small component behind large ones is cut off; one behind others that take the large ones away is kept.
    let corpus = Corpus::new(2000, 96, |r, i| match (i, r % 50 == 3) {
        (32, true) => 0.12,
        (95, false) => 0.10,
        (1..=31, _) => 60000.0,
        (64..=94, _) => -60000.0,
        _ => 0.0,
    });
    let query = [1.0; 96];
    for n in [1, 70] {
        for k in [1, 40] {
            let first = naive_top_k(&corpus.view(), &query, k, None);
            assert!(first.iter().all(|hit| hit.row % 50 == 3), "the corpus is no attack");
            check(&open(ROOMY), &corpus, &query.repeat(n), k, None);
        }
    }
}

#[test]
fn any_number_of_dimensions_and_hits_will_do() {
    for dim in [1, 32, 33, 384, 768, 1536, 4096] {
        let mut random = Random(dim as u64);
        let corpus = Corpus::new(200, dim, |_, _| random.unit());
        for n in [2, 65] {
            check(&open(TIGHT), &corpus, &random_queries(n, dim, 3), 7, None);
        }
    }
    let mut random = Random(8);
    let corpus = Corpus::new(5000, 8, |_, _| random.unit());
    let scanner = open(TIGHT);
    for k in [1023, 1024, 1025, 2048, 2049, 5000, 6000] {
        check(&scanner, &corpus, &random_queries(3, 8, 3), k, None);
    }
}

#[test]
fn scores_of_rows_of_either_sign_and_of_none_are_ordered() {
    let scanner = open(TIGHT);
    let corpus = Corpus::new(3000, 16, |r, i| match r % 4 {
        0 => -0.0,
        1 => f16::from_bits(1 + (r % 9) as u16).to_f32(),
        2 => -(((r + i) % 5) as f32),
        _ => ((r + i) % 5) as f32,
    });
    for value in [-1.0, 1.0, f32::from_bits(1), 65504.0] {
        check(&scanner, &corpus, &[value; 16], 100, None);
    }
    // All scores are the least number there is, or none.
    let mut random = Random(19);
    let corpus = Corpus::new(3000, 16, |_, _| 0.6 + random.unit() * 0.4);
    let mut query = [0.0; 16];
    query[5] = f32::from_bits(1);
    for n in [1, 70] {
        check(&scanner, &corpus, &query.repeat(n), 10, None);
    }
}

/// From the second time on the launches of a few queries are a recording, which sees the queries and masks of its own time.
#[test]
fn recorded_launches_see_new_queries() {
    let mut random = Random(17);
    let corpus = Corpus::new(9000, 32, |_, _| random.unit());
    let (owner, scanner) = (std::sync::Arc::new(()), open(TIGHT));
    let view = corpus.view().with_owner(&owner, &[]);
    let before = replays();
    for round in 0..5u64 {
        let mut mask = RowMask::empty(9000);
        (0..9000).filter(|row| row % 5 != round as usize).for_each(|row| mask.insert(row));
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
    let scanner =
        open(GpuOptions { row_bytes: Some(300 << 10), candidates: None, bytes_from: None });
    let owner = std::sync::Arc::new(());
    let queries = random_queries(2, 32, 4);
    let batch = QueryBatch::new(&queries, 32).unwrap();
    for round in 0..3 {
        for seed in [1, 2, 3] {
            // Two of the three fit, and none is taken for another.
            let mut random = Random(seed);
            let corpus = Corpus::new(2000, 32, |_, _| random.unit());
            let own = std::sync::Arc::new(());
            let owner = if seed == 1 && round > 0 { &owner } else { &own };
            let view = corpus.view().with_owner(owner, &[]);
            let expected = Scanner::cpu().top_k(&view, &batch, 5, None).unwrap();
            for _ in 0..2 {
                assert_same(&scanner.top_k(&view, &batch, 5, None).unwrap(), &expected, "kept");
            }
        }
    }
}

#[test]
fn rows_that_were_added_are_all_that_is_copied() {
    let mut random = Random(12);
    let corpus = Corpus::new(3000, 32, |_, _| random.unit());
    let prefilter = Prefilter::of(&corpus.values, 32);
    let queries = random_queries(3, 32, 4);
    let batch = QueryBatch::new(&queries, 32).unwrap();
    let scanner = open(GpuOptions::default());
    let uploaded = || match &scanner {
        Scanner::Cuda(gpu) => gpu.info().uploaded_bytes,
        Scanner::Cpu(_) => panic!("no GPU"),
    };
    let steps =
        [(2000, 7), (2500, 8), (3000, 9)].map(|(n_rows, digest)| RowsDigest { n_rows, digest });
    let owners = [(); 4].map(std::sync::Arc::new);
    // A row: 64 bytes, 64 of its prefilter, a scale.
    let row_bytes = 64 + 64 + 4;
    // Steps that are known of the matrix, and the rows that this should copy.
    for (i, known, rows) in
        [(0, 1, 2000), (1, 2, 500), (0, 1, 0), (2, 3, 500), (1, 2, 0), (2, 3, 0)]
    {
        let n = steps[known - 1].n_rows;
        let view = MatrixView::new(&corpus.values[..n * 32], 32, corpus.view().max_norm()).unwrap();
        let few = PrefilterView::new(&prefilter.values[..n * 64], &prefilter.scales[..n], n, 32);
        let view = view.with_sq8(few).with_owner(&owners[i], &steps[..known]);
        let expected = Scanner::cpu().top_k(&view, &batch, 50, None).unwrap();
        let before = uploaded();
        assert_same(&scanner.top_k(&view, &batch, 50, None).unwrap(), &expected, "added rows");
        assert_eq!(uploaded() - before, rows * row_bytes, "{known} steps");
    }
    // Other rows of the same number are no kin.
    let mut random = Random(13);
    let other = Corpus::new(3000, 32, |_, _| random.unit());
    let history = [RowsDigest { n_rows: 3000, digest: 10 }];
    let view = other.view().with_owner(&owners[3], &history);
    let expected = Scanner::cpu().top_k(&view, &batch, 50, None).unwrap();
    assert_same(&scanner.top_k(&view, &batch, 50, None).unwrap(), &expected, "other rows");
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
        let matrix = index.matrix().unwrap();
        assert_eq!(matrix.history().last().unwrap().n_rows, matrix.n_rows());
        let queries = random_queries(3, matrix.dim(), 4);
        let batch = QueryBatch::new(&queries, matrix.dim()).unwrap();
        let expected = Scanner::cpu().top_k(&matrix, &batch, 9, Some(index.live()));
        // By a thread that the driver does not know yet.
        let got = std::thread::scope(|scope| {
            scope.spawn(|| scanner.top_k(&matrix, &batch, 9, Some(index.live()))).join().unwrap()
        });
        assert_same(&got.unwrap(), &expected.unwrap(), &format!("{n} records"));
    }
}

/// A scanner that finds them wrong uses others, and no other test would notice.
#[test]
fn hoppers_products_are_right() {
    let Scanner::Cuda(gpu) = open(GpuOptions::default()) else { panic!("no GPU") };
    let info = gpu.info();
    let portable = std::env::var("WARPSEEK_GPU_KERNELS").is_ok_and(|v| v == "portable");
    let expected = info.capability == "9.0" && !portable;
    assert_eq!(info.products.contains("wgmma"), expected, "{info:?}");
}
