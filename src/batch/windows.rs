//! Windows of queries that are answered at the same time.

use super::BatchReport;
use super::answer::{BatchSearcher, FilteredQuery};
use super::journal::line_of;
use crate::error::{Error, Result};
use crate::search::stoppable;
use rayon::prelude::*;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};

/// Maximum number of windows that are answered at the same time by other processes: while these
/// scan for one, the next waits there, and this process embeds another or writes.
pub(super) const IN_FLIGHT: usize = 3;

/// The answers of a window that are to be written.
pub(super) struct AnsweredWindow {
    /// The answers as the journal has them.
    pub(super) lines: Vec<Vec<u8>>,
    /// The report of these answers alone.
    pub(super) report: BatchReport,
}

/// A window that is answered, on a thread of its own if other processes scan.
enum Running<'scope> {
    Thread(ScopedJoinHandle<'scope, Result<AnsweredWindow>>),
    Ended(Result<AnsweredWindow>),
}

/// The windows that are answered, in the order of their queries. Dropping them ends those that run.
pub(super) struct Windows<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    searching: &'scope BatchSearcher<'env>,
    running: VecDeque<Running<'scope>>,
    /// True if nobody waits for the windows any more.
    is_over: Arc<AtomicBool>,
}

impl Drop for Windows<'_, '_> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

impl<'scope, 'env> Windows<'scope, 'env> {
    pub(super) fn new(
        scope: &'scope Scope<'scope, 'env>,
        searching: &'scope BatchSearcher<'env>,
    ) -> Self {
        Self { scope, searching, running: VecDeque::new(), is_over: Arc::default() }
    }

    /// True if another window can be answered beside those that are.
    pub(super) fn has_room(&self) -> bool {
        self.running.len() < if self.searching.is_remote() { IN_FLIGHT } else { 1 }
    }

    /// Begins to answer a window, the first `answered` queries of which an earlier run answered.
    pub(super) fn begin(&mut self, queries: Vec<FilteredQuery>, answered: usize) -> Result<()> {
        let searching = self.searching;
        let answer = move || {
            let (mut answers, took_ms) = searching.answer(&queries)?;
            answers.drain(..answered);
            let mut report = BatchReport { took_ms, ..BatchReport::default() };
            answers.iter().for_each(|answer| report.count(answer));
            let written = queries[answered..].par_iter().zip(answers);
            let lines = written.map(|(query, answer)| line_of(&query.query, &answer));
            Ok(AnsweredWindow { lines: lines.collect::<Result<_>>()?, report })
        };
        self.running.push_back(match searching.is_remote() {
            true => {
                let flags = [searching.stop(), Some(&self.is_over)];
                let flags = flags.into_iter().flatten().cloned().collect();
                let thread = std::thread::Builder::new()
                    .spawn_scoped(self.scope, move || stoppable(flags, answer))
                    .map_err(|e| Error::usage(format!("a thread cannot be started: {e}")))?;
                Running::Thread(thread)
            }
            false => Running::Ended(answer()),
        });
        Ok(())
    }

    /// Waits for the first window that was begun and is not yet taken; none if there is none.
    pub(super) fn next(&mut self) -> Result<Option<AnsweredWindow>> {
        let ended = match self.running.pop_front() {
            None => return Ok(None),
            Some(Running::Ended(outcome)) => outcome,
            Some(Running::Thread(thread)) => match thread.join() {
                Ok(outcome) => outcome,
                Err(panic) => std::panic::resume_unwind(panic),
            },
        };
        ended.map(Some)
    }
}
