//! Pieces of work, and where their results are gathered.

use crate::error::Result;
use crate::model::tokenize::Sequence;
use crate::search::{QueryInput, Retrieved, SearchOptions, Searcher, Timings};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Where a row for each sequence of a request is awaited.
type RowsReply = oneshot::Sender<Result<Vec<Vec<f32>>>>;

/// A piece of work.
pub(super) enum Task {
    Sequence { sequence: Sequence, slot: usize, ticket: Arc<Ticket> },
    Scan(Box<ScanTask>),
}

/// Where the results of one request's sequences are gathered.
pub(super) struct Ticket {
    outputs: Mutex<Vec<Vec<f32>>>,
    missing: AtomicUsize,
    reply: Mutex<Option<RowsReply>>,
}

/// A query for the scan.
pub(super) struct ScanTask {
    pub(super) searcher: Arc<Searcher>,
    pub(super) text: String,
    pub(super) vector: Vec<f32>,
    pub(super) options: SearchOptions,
    pub(super) reply: oneshot::Sender<Result<(Retrieved, Timings)>>,
}

impl ScanTask {
    pub(super) fn input(&self) -> QueryInput<'_> {
        QueryInput {
            text: &self.text,
            vector: Some(&self.vector),
            filter: self.options.filter.as_ref(),
        }
    }
}

impl Task {
    pub(super) fn tokens(&self) -> usize {
        match self {
            Self::Sequence { sequence, .. } => sequence.ids.len(),
            Self::Scan(_) => 0,
        }
    }

    /// Whether nobody waits for it any more.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Sequence { ticket, .. } => ticket.is_abandoned(),
            Self::Scan(scan) => scan.reply.is_closed(),
        }
    }
}

impl Ticket {
    /// For so many sequences.
    pub(super) fn new(n: usize, reply: RowsReply) -> Self {
        Self {
            outputs: Mutex::new(vec![Vec::new(); n]),
            missing: AtomicUsize::new(n),
            reply: Mutex::new(Some(reply)),
        }
    }

    fn reply(&self) -> MutexGuard<'_, Option<RowsReply>> {
        self.reply.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.reply().as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    pub(super) fn fill(&self, slot: usize, row: Vec<f32>) {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)[slot] = row;
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            let outputs =
                std::mem::take(&mut *self.outputs.lock().unwrap_or_else(PoisonError::into_inner));
            self.finish(Ok(outputs));
        }
    }

    /// Replies; only the first reply counts.
    pub(super) fn finish(&self, outcome: Result<Vec<Vec<f32>>>) {
        if let Some(reply) = self.reply().take() {
            // Whoever asked may be gone.
            let _ = reply.send(outcome);
        }
    }
}
