//! A batch over shards in other processes, here behind a stand-in that is slow, fails or hangs.

use crate::bad_input::vectors::npy;
use crate::support::cli::Workplace;
use half::f16;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use warpseek::batch::{BatchFormat, BatchOptions, BatchReport, run};
use warpseek::error::{Error, Result};
use warpseek::queries::{QueryOptions, QueryReader};
use warpseek::search::{SearchOptions, Searcher, is_stopped, scan_shard};
use warpseek::store::{
    Index, IndexStats, RemoteShards, Row, RowRequests, ShardAnswer, ShardRequest,
};
use warpseek::topk::scanner::Scanner;

const DIM: usize = 8;

/// Queries that are answered together.
const WINDOW: usize = 1024;

const N_QUERIES: usize = 3 * WINDOW + 428;

/// A step of a scan.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scan {
    /// An answer after so many milliseconds.
    After(u64),
    Fails,
    /// No answer until it is told to stop.
    Hangs,
}

/// Shards that this process holds. Each window of queries has its step.
#[derive(Debug)]
struct StandIn {
    shards: Vec<Index>,
    first_queries: Vec<Vec<f32>>,
    steps: Vec<Scan>,
}

impl RemoteShards for StandIn {
    fn scan(&self, request: &ShardRequest<'_>) -> Result<Vec<ShardAnswer>> {
        let window = self.first_queries.iter().position(|first| *first == request.queries[..DIM]);
        match self.steps[window.unwrap()] {
            Scan::After(time) => std::thread::sleep(Duration::from_millis(time)),
            Scan::Fails => return Err(Error::usage("a shard was lost")),
            Scan::Hangs => {
                let started = Instant::now();
                while !is_stopped() {
                    assert!(started.elapsed() < Duration::from_secs(30), "it was not stopped");
                    std::thread::sleep(Duration::from_millis(5));
                }
                return Err(Error::Interrupted("told to stop".to_owned()));
            }
        }
        self.shards.iter().map(|shard| scan_shard(shard, &Scanner::cpu(), request)).collect()
    }

    fn rows(&self, requests: RowRequests<'_>) -> Result<Vec<Vec<Row>>> {
        requests.iter().map(|(shard, rows)| self.shards[*shard].rows(rows)).collect()
    }

    fn names(&self, requests: RowRequests<'_>) -> Result<Vec<Vec<(String, String)>>> {
        requests.iter().map(|(shard, rows)| self.shards[*shard].names(rows)).collect()
    }

    fn vectors(&self, _: RowRequests<'_>) -> Result<Vec<Vec<f16>>> {
        Err(Error::usage("not asked for"))
    }

    fn stats(&self) -> Result<Vec<IndexStats>> {
        self.shards.iter().map(Index::stats).collect()
    }
}

/// Values between -1 and 1 from a linear congruential generator.
fn values(n: usize, mut state: u64) -> Vec<f32> {
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn file(place: &Workplace, name: &str, values: &[f32]) {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    place.file(name, npy("<f4", &format!("({}, {DIM})", values.len() / DIM), &bytes));
}

/// A place with an index, its shards, queries, and the answers of the command line, `whole.jsonl`.
fn made() -> Workplace {
    let place = Workplace::new();
    file(&place, "rows.npy", &values(400 * DIM, 1));
    file(&place, "queries.npy", &values(N_QUERIES * DIM, 2));
    place.call("import rows.npy --into idx").ok();
    place.call("shard idx --rows 150 --into s").ok();
    place.call("batch idx queries.npy --out whole.jsonl -k 5").ok();
    place
}

/// Answers the queries over the stand-in.
fn batch(place: &Workplace, steps: &[Scan], restart: bool) -> Result<BatchReport> {
    let shards = place.path("s");
    let open = |number| Index::open_shard(&shards, number);
    let queries = values(N_QUERIES * DIM, 2);
    let stand_in = StandIn {
        shards: (0..3).map(open).collect::<Result<_>>()?,
        first_queries: queries.chunks(WINDOW * DIM).map(|w| w[..DIM].to_vec()).collect(),
        steps: steps.to_vec(),
    };
    let searcher = Searcher {
        index: Arc::new(Index::open_remote(&shards, Arc::new(stand_in))?),
        embedder: None,
        reranker: None,
        scanner: Scanner::cpu(),
        stop: None,
    };
    let search = SearchOptions { k: 5, ..SearchOptions::default() };
    let options = BatchOptions { search, format: BatchFormat::Jsonl, with_text: false, restart };
    let queries = QueryReader::open(&place.path("queries.npy"), &QueryOptions::default())?;
    run(&searcher, queries, &place.path("out.jsonl"), &options, &mut |_| true)
}

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).unwrap().lines().count()
}

#[test]
fn windows_that_end_in_any_order_are_written_in_the_order_of_the_file() {
    let place = made();
    let whole = std::fs::read(place.path("whole.jsonl")).unwrap();
    for times in [[0; 4], [120, 0, 60, 0], [0, 120, 0, 60]] {
        let report = batch(&place, &times.map(Scan::After), true).unwrap();
        assert_eq!((report.queries, report.resumed), (N_QUERIES as u64, 0));
        assert_eq!(report.hits, 5 * N_QUERIES as u64);
        assert_eq!(std::fs::read(place.path("out.jsonl")).unwrap(), whole);
    }
}

#[test]
fn a_window_that_fails_ends_the_one_beside_it_and_the_run_is_continued() {
    let place = made();
    let whole = std::fs::read(place.path("whole.jsonl")).unwrap();
    let [fast, slow] = [0, 50].map(Scan::After);
    let partial = place.path("out.jsonl.partial");
    for (steps, written) in [
        ([Scan::Fails, Scan::Hangs, fast, fast], 0),
        ([fast, Scan::Fails, Scan::Hangs, fast], 1),
        ([slow, Scan::Fails, fast, fast], 1),
        ([fast, slow, fast, Scan::Fails], 3),
    ] {
        let error = batch(&place, &steps, true).unwrap_err().to_string();
        assert!(error.contains("a shard was lost"), "{error}");
        assert_eq!(lines(&partial), 1 + written * WINDOW, "{steps:?}");
        let report = batch(&place, &[fast; 4], false).unwrap();
        assert_eq!(report.resumed, (written * WINDOW) as u64);
        assert_eq!(std::fs::read(place.path("out.jsonl")).unwrap(), whole);
    }
}

#[test]
fn a_journal_that_ends_anywhere_is_continued() {
    let place = made();
    let whole = std::fs::read(place.path("whole.jsonl")).unwrap();
    let [fast, partial] = [Scan::After(0), Scan::Fails];
    let error = batch(&place, &[fast, fast, fast, partial], true).unwrap_err();
    assert!(error.to_string().contains("a shard was lost"), "{error}");
    let path = place.path("out.jsonl.partial");
    let journal = std::fs::read_to_string(&path).unwrap();
    for n in [1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW + 500, 3 * WINDOW] {
        for cut in ["", "0123"] {
            let kept: String = journal.split_inclusive('\n').take(1 + n).chain([cut]).collect();
            std::fs::write(&path, kept).unwrap();
            let report = batch(&place, &[fast; 4], false).unwrap();
            assert_eq!((report.queries, report.resumed), (N_QUERIES as u64, n as u64));
            assert_eq!(report.hits, 5 * N_QUERIES as u64);
            assert_eq!(std::fs::read(place.path("out.jsonl")).unwrap(), whole, "{n} {cut}");
        }
    }
}
