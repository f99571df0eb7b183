//! Workers: they compute batches.

use super::queue::{Queue, TaskBatch};
use super::task::{MAX_QUERIES, ScanQuery, ScanTask, Task, WorkerClass};
use crate::error::{Error, Result};
use crate::search::{QueryInput, Retrieved, Timings};
use crate::server::metrics::Metrics;
use rayon::ThreadPool;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Receiver;
use std::time::Instant;
use warpseek_topk::scanner::QueryBatch;

/// Computes batches of sequences until the queue is closed, in `pool` or else in rayon's global
/// pool.
pub(super) fn run_batches(queue: &Queue, class: WorkerClass, pool: Option<&ThreadPool>) {
    while let Some(TaskBatch { kind, tasks, tokens }) = queue.next(class) {
        let started = Instant::now();
        let n_tasks = tasks.len();
        answer(tasks, &|sequences| match pool {
            Some(pool) => pool.install(|| kind.compute(sequences)),
            None => kind.compute(sequences),
        });
        queue.record(kind, n_tasks, tokens, started.elapsed());
    }
}

/// Scans for queries until the channel is closed. Queries that arrive during a scan wait for the
/// next.
pub(super) fn run_scans(incoming: &Receiver<ScanTask>, pool: &ThreadPool, metrics: &Metrics) {
    while let Ok(first) = incoming.recv() {
        let tasks = std::iter::once(first).chain(incoming.try_iter()).take(MAX_QUERIES);
        let mut tasks: Vec<ScanTask> = tasks.filter(|task| !task.reply.is_closed()).collect();
        let (started, n_tasks) = (Instant::now(), tasks.len());
        while let Some(last) = tasks.pop() {
            let (mut group, others): (Vec<_>, Vec<_>) =
                tasks.into_iter().partition(|task| task.input.shares_scan(&last.input));
            group.push(last);
            answer(group, &|queries| pool.install(|| scan(queries)));
            tasks = others;
        }
        if n_tasks > 0 {
            metrics.batch("scan", n_tasks, 0, started.elapsed());
        }
    }
}

/// Computes tasks together and replies. If an input among them is invalid, computes each task
/// alone.
fn answer<I, O>(tasks: Vec<Task<I, O>>, compute: &impl Fn(&[I]) -> Result<Vec<O>>) {
    let (inputs, replies): (Vec<I>, Vec<_>) =
        tasks.into_iter().map(|task| (task.input, task.reply)).unzip();
    // Clients may be gone, so that nobody receives a reply.
    match catch_unwind(AssertUnwindSafe(|| compute(&inputs))) {
        Ok(Ok(outputs)) => {
            for (reply, output) in replies.into_iter().zip(outputs) {
                let _ = reply.send(Ok(output));
            }
        }
        Ok(Err(Error::Usage(_))) if inputs.len() > 1 => {
            for (input, reply) in inputs.into_iter().zip(replies) {
                answer(vec![Task { input, reply }], compute);
            }
        }
        Ok(Err(error)) => {
            for reply in replies {
                let _ = reply.send(Err(error.clone()));
            }
        }
        // The dropped replies end the requests with an error.
        Err(_) => {
            let n = inputs.len();
            tracing::error!("a batch of {n} failed: internal error, please report it");
        }
    }
}

/// Retrieves rows for queries that share a scan.
fn scan(queries: &[ScanQuery]) -> Result<Vec<(Retrieved, Timings)>> {
    let Some(ScanQuery { searcher, options, .. }) = queries.first() else { return Ok(Vec::new()) };
    let vectors: Vec<f32> = queries.iter().flat_map(|query| &query.vector).copied().collect();
    let batch = QueryBatch::new(&vectors, searcher.index.manifest().dim)?;
    let inputs: Vec<QueryInput<'_>> = queries.iter().map(ScanQuery::input).collect();
    let mut timings = Timings::default();
    let found = searcher.rank(&inputs, &batch, options, &mut timings)?;
    Ok(found.into_iter().map(|found| (found, timings)).collect())
}
