//! Answers to the queries of a file, into a file.

use crate::call::{Stop, report, run_waiting};
use crate::opened::SharedIndex;
use crate::reading::SearchArguments;
use crate::values::to_python;
use pyo3::prelude::*;
use serde_json::json;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use warpseek::batch::{self, BatchFormat, BatchOptions, BatchReport};
use warpseek::error::{Error, Result};
use warpseek::queries::{QueryOptions, QueryReader};

/// The files of a batch, and what is written.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct BatchArguments {
    queries: PathBuf,
    out: PathBuf,
    /// `jsonl`, `trec` or `parquet`; none for that of the file's name.
    format: Option<String>,
    with_text: bool,
    restart: bool,
}

/// Answers a file of queries, as the command `batch` does. `progress` is called with the number of
/// queries that are answered.
pub(crate) fn run<'py>(
    py: Python<'py>,
    index: &SharedIndex,
    files: &BatchArguments,
    arguments: &SearchArguments,
    progress: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let (done, progress) = (AtomicUsize::new(0), progress.map(Bound::unbind));
    let started = Instant::now();
    let work = |stop: &Stop| -> Result<BatchReport> {
        let format = match files.format.as_deref() {
            None => BatchFormat::of_path(&files.out),
            Some("jsonl") => BatchFormat::Jsonl,
            Some("trec") => BatchFormat::Trec,
            Some("parquet") => BatchFormat::Parquet,
            Some(other) => {
                let reason =
                    format!("format is \"{other}\": use \"jsonl\", \"trec\" or \"parquet\"");
                return Err(Error::usage(reason));
            }
        };
        if files.with_text && format != BatchFormat::Jsonl {
            return Err(Error::usage("with_text=True needs format=\"jsonl\""));
        }
        let queries = QueryReader::open(&files.queries, &QueryOptions::default())?;
        let (searcher, search) = arguments.open(index, (true, true), stop)?;
        let BatchArguments { with_text, restart, .. } = *files;
        let options = BatchOptions { search, format, with_text, restart };
        batch::run(&searcher, queries, &files.out, &options, &mut |report| {
            done.store(report.queries as usize, Ordering::Relaxed);
            !stop.load(Ordering::Relaxed)
        })
    };
    let tick = |py: Python<'_>, _: &Stop| report(py, progress.as_ref(), &done);
    // Shards in other processes answer on the thread of this call, without its compute threads.
    let found = run_waiting(
        py,
        |stop, pool| if index.is_remote() { work(stop) } else { pool.install(|| work(stop)) },
        |_| true,
        tick,
    )?;
    report(py, progress.as_ref(), &done)?;
    let mut value = json!(found);
    value["seconds"] = started.elapsed().as_secs_f64().into();
    to_python(py, &value)
}
