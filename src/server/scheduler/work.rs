//! Computing batches.

use super::queue::Batch;
use super::task::{ScanTask, Task};
use super::{Class, Lane, Load, Message};
use crate::embed::Role;
use crate::error::Result;
use crate::search::{QueryInput, SearchOptions, Timings};
use rayon::ThreadPool;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

/// A worker: computes batches as they come.
pub(super) fn work(
    incoming: &Receiver<Batch>,
    lanes: &[Lane],
    load: &Load,
    pool: Option<&ThreadPool>,
    done: &Sender<Message>,
) {
    while let Ok(Batch { lane, tasks }) = incoming.recv() {
        let lane = &lanes[lane];
        let tokens: usize = tasks.iter().map(Task::tokens).sum();
        let started = Instant::now();
        let n = tasks.len();
        let run = || match pool {
            Some(pool) => pool.install(|| lane.run(tasks)),
            None => lane.run(tasks),
        };
        // Whoever waits for a result that never comes hears so, since the reply is dropped.
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            tracing::error!("a batch of {n} failed: this is a fault of warpseek's");
        }
        let took = started.elapsed();
        load.metrics.batch(lane.name(), n, tokens, took);
        if lane.class() == Class::Heavy {
            load.measured(tokens, took);
        }
        if done.send(Message::Done(lane.class())).is_err() {
            return;
        }
    }
}

impl Lane {
    fn name(&self) -> &'static str {
        match self {
            Self::Embed(_, Role::Query) => "queries",
            Self::Embed(_, Role::Passage) => "passages",
            Self::States(_) => "states",
            Self::Rerank(_) => "pairs",
            Self::Scan => "scan",
        }
    }

    fn run(&self, tasks: Vec<Task>) {
        let mut sequences = Vec::new();
        let mut places = Vec::new();
        let mut scans = Vec::new();
        for task in tasks {
            match task {
                Task::Sequence { sequence, slot, ticket } => {
                    sequences.push(sequence);
                    places.push((slot, ticket));
                }
                Task::Scan(scan) => scans.push(*scan),
            }
        }
        if !scans.is_empty() {
            scan_all(scans);
        }
        if sequences.is_empty() {
            return;
        }
        let rows = |values: Vec<f32>, width: usize| {
            values.chunks_exact(width).map(<[f32]>::to_vec).collect()
        };
        let outcome: Result<Vec<Vec<f32>>> = match self {
            Self::Embed(embedder, role) => {
                embedder.pooled(&sequences, *role).map(|values| rows(values, embedder.dim()))
            }
            Self::States(embedder) => embedder.token_states(&sequences, Role::Passage),
            Self::Rerank(reranker) => reranker.logits(&sequences).map(|values| rows(values, 1)),
            Self::Scan => Ok(Vec::new()),
        };
        match outcome {
            Ok(rows) => {
                for ((slot, ticket), row) in places.into_iter().zip(rows) {
                    ticket.fill(slot, row);
                }
            }
            Err(error) => {
                for (_, ticket) in places {
                    ticket.finish(Err(error.clone()));
                }
            }
        }
    }
}

/// Runs scans; those that search the same snapshot in the same way, whatever their filters, share a pass over the rows.
fn scan_all(mut scans: Vec<ScanTask>) {
    while let Some(first) = scans.pop() {
        let alike = |s: &ScanTask| {
            Arc::ptr_eq(&s.searcher, &first.searcher) && s.options.is_like(&first.options)
        };
        let (mut group, others): (Vec<_>, Vec<_>) = scans.into_iter().partition(alike);
        scans = others;
        group.push(first);
        let Some(ScanTask { searcher, options, .. }) = group.first() else { continue };
        // Each query brings its own filter, if it has one.
        let options = &SearchOptions { filter: None, ..options.clone() };
        let queries: Vec<QueryInput<'_>> = group.iter().map(ScanTask::input).collect();
        let mut timings = Timings::default();
        match searcher.retrieve(&queries, options, &mut timings) {
            Ok(found) => {
                for (scan, found) in group.into_iter().zip(found) {
                    let _ = scan.reply.send(Ok((found, timings)));
                }
            }
            Err(error) if group.len() == 1 => {
                if let Some(scan) = group.pop() {
                    let _ = scan.reply.send(Err(error));
                }
            }
            // One of them may be at fault: each alone.
            Err(_) => {
                for scan in group {
                    let query = scan.input();
                    let mut timings = Timings::default();
                    let found = scan.searcher.retrieve(&[query], &scan.options, &mut timings);
                    let found = found.map(|mut found| (found.pop().unwrap_or_default(), timings));
                    let _ = scan.reply.send(found);
                }
            }
        }
    }
}
