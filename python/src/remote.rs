//! Shards in other processes: the process that holds one, and the index that asks them all through
//! an object of Python.

use crate::call::{direct, run};
use crate::engine::EngineSettings;
use crate::index::PyIndex;
use crate::opened::{Needs, SharedIndex};
use half::f16;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use warpseek::error::{Error, Result};
use warpseek::search::{is_stopped, scan_shard};
use warpseek::store::{
    FilterNotes, IndexStats, RemoteShards, Row, RowRequests, ShardAnswer, ShardList, ShardRequest,
};
use warpseek::topk::ScoredRow;

/// The answer of a shard between processes: hits per query (u32), their rows (u32) and scores
/// (float32) as bytes, rows that pass each filter, and notes.
type PackedAnswer<'py> =
    (Bound<'py, PyBytes>, Bound<'py, PyBytes>, Bound<'py, PyBytes>, Vec<u64>, Vec<FilterNotes>);

/// A shard that this process holds.
#[pyclass(frozen, name = "Shard")]
pub(crate) struct PyShard {
    index: SharedIndex,
}

#[pymethods]
impl PyShard {
    /// Opens the shard of a number in the list at `path`, which must have this checksum.
    #[new]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        number: usize,
        checksum: &str,
        settings: EngineSettings,
    ) -> PyResult<Self> {
        let engine = settings.engine()?;
        run(py, |_| {
            let index = SharedIndex::open_shard(path, number, engine)?;
            let snapshot = index.snapshot()?;
            let own = snapshot.shard_list().map_or("", |list| &list.checksum);
            if own != checksum {
                return Err(Error::corrupt(
                    snapshot.dir().join("shards.json"),
                    "this list of shards is another one than that of the process that asks: copy \
                     the same list to all machines, and open the cluster again",
                ));
            }
            Ok(Self { index })
        })
    }

    /// The number of its rows.
    #[getter]
    fn n_rows(&self, py: Python<'_>) -> PyResult<usize> {
        run(py, |_| Ok(self.index.snapshot()?.n_rows()))
    }

    /// The device that scans it.
    #[getter]
    fn device(&self) -> String {
        self.index.engine.scanner().device()
    }

    /// The first `k` rows of queries, float32 `[n, dim]` as bytes. `filter_of` has the filter of
    /// each query, by its place in `filters`.
    fn scan<'py>(
        &self,
        py: Python<'py>,
        queries: &[u8],
        k: usize,
        filters: Vec<String>,
        filter_of: Vec<Option<usize>>,
    ) -> PyResult<PackedAnswer<'py>> {
        let queries = numbers(queries, f32::from_le_bytes);
        let answer = run(py, |stop| {
            let searcher = self.index.searcher(Needs::default(), stop)?;
            let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
            let request = ShardRequest {
                queries: &queries,
                n_queries: filter_of.len(),
                k: k.min(searcher.index.n_rows().max(1)),
                filters: &filters,
                filter_of: &filter_of,
            };
            scan_shard(&searcher.index, &searcher.scanner, &request)
        })?;
        let n_hits = answer.hits.iter().map(Vec::len).sum();
        let hits = || answer.hits.iter().flatten();
        let counts = answer.hits.iter().map(|hits| (hits.len() as u32).to_le_bytes());
        let counts = joined(counts, answer.hits.len());
        let rows = joined(hits().map(|hit| hit.row.to_le_bytes()), n_hits);
        let scores = joined(hits().map(|hit| hit.score.to_le_bytes()), n_hits);
        let bytes = |values: &[u8]| PyBytes::new(py, values);
        Ok((bytes(&counts), bytes(&rows), bytes(&scores), answer.matched, answer.notes))
    }

    /// Reads of rows, as bytes: `rows` and `names` as JSON, `vectors` as half-precision values with
    /// their padding.
    fn fetch<'py>(
        &self,
        py: Python<'py>,
        what: &str,
        numbers: Vec<u32>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        // Not on the compute threads, which a scan keeps for long.
        let bytes = direct(py, || {
            let index = self.index.snapshot()?;
            let packed = match what {
                "stats" => serde_json::to_vec(&index.stats()?),
                "rows" => serde_json::to_vec(&index.rows(&numbers)?),
                "names" => serde_json::to_vec(&index.names(&numbers)?),
                "vectors" => {
                    let matrix = index.matrix()?;
                    let mut bytes = Vec::new();
                    for &row in &numbers {
                        let values = matrix.checked_row(row as usize)?;
                        let values_of = values.iter().map(|value| value.to_le_bytes());
                        bytes.append(&mut joined(values_of, values.len()));
                    }
                    Ok(bytes)
                }
                _ => return Err(Error::usage(format!("'{what}' cannot be fetched of rows"))),
            };
            packed.map_err(|e| Error::usage(format!("rows cannot be sent: {e}")))
        })?;
        Ok(PyBytes::new(py, &bytes))
    }
}

/// The bytes of `n` numbers.
fn joined<const N: usize>(numbers: impl Iterator<Item = [u8; N]>, n: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(n * N);
    numbers.for_each(|number| bytes.extend_from_slice(&number));
    bytes
}

/// Numbers of four bytes.
fn numbers<T>(bytes: &[u8], of: impl Fn([u8; 4]) -> T) -> Vec<T> {
    bytes.chunks_exact(4).map(|b| of([b[0], b[1], b[2], b[3]])).collect()
}

/// The folder and rows of a shard.
type ListedShard = (String, u64);

/// The list of shards that a path names: its folder, its checksum, and the folder and rows of each
/// shard.
#[pyfunction]
pub(crate) fn shard_list(
    py: Python<'_>,
    path: PathBuf,
) -> PyResult<(PathBuf, String, Vec<ListedShard>)> {
    let (dir, list) = direct(py, || ShardList::find(&path))?;
    let shards = list.shards.into_iter().map(|shard| (shard.folder, shard.rows)).collect();
    Ok((dir, list.checksum, shards))
}

/// True if the call of the core on this thread is to stop.
#[pyfunction]
pub(crate) fn stop_requested() -> bool {
    is_stopped()
}

/// Opens the index whose shards other processes hold, by its list. `shards` asks them.
#[pyfunction]
pub(crate) fn open_remote(
    py: Python<'_>,
    path: PathBuf,
    shards: Py<PyAny>,
    model: Option<String>,
    reranker: Option<String>,
    settings: EngineSettings,
) -> PyResult<PyIndex> {
    let engine = settings.engine()?;
    let shards = Arc::new(PyShards(shards));
    let open = || SharedIndex::open_remote(path, engine, (model, reranker), shards);
    direct(py, open).map(PyIndex)
}

/// The shards behind an object with the methods `scan` and `fetch`, which ask all of them.
#[derive(Debug)]
pub(crate) struct PyShards(pub(crate) Py<PyAny>);

impl PyShards {
    /// Fetches of rows: one piece of bytes for each request.
    fn fetch(&self, what: &str, requests: RowRequests<'_>) -> Result<Vec<Vec<u8>>> {
        let found = Python::attach(|py| {
            let found = self.0.call_method1(py, "fetch", (what, requests.to_vec()))?;
            found.extract::<Vec<Vec<u8>>>(py)
        });
        found.map_err(error_of)
    }

    fn parsed<T: serde::de::DeserializeOwned>(
        &self,
        what: &str,
        requests: RowRequests<'_>,
    ) -> Result<Vec<Vec<T>>> {
        let parse = |bytes: Vec<u8>| {
            serde_json::from_slice(&bytes)
                .map_err(|e| Error::usage(format!("a shard sent {what} that cannot be read: {e}")))
        };
        self.fetch(what, requests)?.into_iter().map(parse).collect()
    }
}

/// An answer as Python passes it on.
type ReceivedAnswer = (Vec<u8>, Vec<u8>, Vec<u8>, Vec<u64>, Vec<FilterNotes>);

impl RemoteShards for PyShards {
    fn scan(&self, request: &ShardRequest<'_>) -> Result<Vec<ShardAnswer>> {
        let queries = request.queries.iter().map(|value| value.to_le_bytes());
        let queries = joined(queries, request.queries.len());
        let found = Python::attach(|py| {
            let filters: Vec<&str> = request.filters.to_vec();
            let filter_of: Vec<Option<usize>> = request.filter_of.to_vec();
            let arguments = (PyBytes::new(py, &queries), request.k, filters, filter_of);
            let found = self.0.call_method1(py, "scan", arguments)?;
            found.extract::<Vec<ReceivedAnswer>>(py)
        });
        found.map_err(error_of)?.into_iter().map(unpacked).collect()
    }

    fn rows(&self, requests: RowRequests<'_>) -> Result<Vec<Vec<Row>>> {
        self.parsed("rows", requests)
    }

    fn names(&self, requests: RowRequests<'_>) -> Result<Vec<Vec<(String, String)>>> {
        self.parsed("names", requests)
    }

    fn vectors(&self, requests: RowRequests<'_>) -> Result<Vec<Vec<f16>>> {
        let values = |bytes: Vec<u8>| {
            bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]])).collect()
        };
        Ok(self.fetch("vectors", requests)?.into_iter().map(values).collect())
    }

    fn stats(&self) -> Result<Vec<IndexStats>> {
        let found =
            Python::attach(|py| self.0.call_method0(py, "stats")?.extract::<Vec<Vec<u8>>>(py));
        let parse = |bytes: Vec<u8>| {
            serde_json::from_slice(&bytes)
                .map_err(|e| Error::usage(format!("a shard sent statistics in vain: {e}")))
        };
        found.map_err(error_of)?.into_iter().map(parse).collect()
    }
}

fn unpacked((counts, rows, scores, matched, notes): ReceivedAnswer) -> Result<ShardAnswer> {
    let counts = numbers(&counts, u32::from_le_bytes);
    let rows = numbers(&rows, u32::from_le_bytes);
    let scores = numbers(&scores, f32::from_le_bytes);
    let total: usize = counts.iter().map(|n| *n as usize).sum();
    if rows.len() != total || scores.len() != total {
        return Err(Error::usage("a shard sent an answer that is cut off"));
    }
    let mut all = rows.into_iter().zip(scores).map(|(row, score)| ScoredRow { row, score });
    let hits = counts.iter().map(|n| all.by_ref().take(*n as usize).collect()).collect();
    Ok(ShardAnswer { hits, matched, notes })
}

/// The error of the library for an exception of Python, which has the same exit status.
fn error_of(exception: PyErr) -> Error {
    Python::attach(|py| {
        let value = exception.value(py);
        let reason = value.str().map_or_else(|_| exception.to_string(), |text| text.to_string());
        if exception.is_instance_of::<PyKeyboardInterrupt>(py) {
            return Error::Interrupted(reason);
        }
        let status = value.getattr("exit_code").and_then(|code| code.extract::<u8>());
        let file = value.getattr("file").and_then(|file| file.extract::<PathBuf>());
        let path = file.unwrap_or_else(|_| "shards.json".into());
        let name = format!("{}: ", path.display());
        let rest = reason.strip_prefix(&name).unwrap_or(&reason).to_owned();
        match status {
            Ok(2) => Error::Usage(reason),
            Ok(4) => Error::DeviceFailed { reason },
            Ok(5) => Error::Corrupt { path, reason: rest },
            Ok(8) if value.getattr("is_lost").is_ok() => {
                Error::io("reach", path)(std::io::Error::new(ErrorKind::NotConnected, rest))
            }
            Ok(8) => Error::Database { path, reason: rest },
            _ => Error::Remote { service: "a shard".to_owned(), reason },
        }
    })
}
