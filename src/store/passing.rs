//! The rows that pass a metadata filter.

use super::database::{Database, Stop};
use super::filter::{Filter, Note, PassingRows, SqlCondition};
use super::reader::{Index, locked};
use crate::error::{Error, Result};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use warpseek_topk::RowMask;

/// Number of filters whose masks are cached.
const MAX_CACHED_MASKS: usize = 64;

/// Time in which a filter is evaluated beside those that take long.
const QUICK_FILTER: Duration = Duration::from_millis(50);

impl Index {
    /// The live rows whose documents pass a filter, with warnings. Those of recent filters are
    /// cached, because the snapshot never changes.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] naming an unknown field (with similar names) or an impossible comparison;
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn rows_where(&self, filter: &Filter) -> Result<Arc<PassingRows>> {
        self.passing(filter, None)
    }

    /// As [`Index::rows_where`], within `limit`, and unless `stop` returns true meanwhile. In a
    /// snapshot for many threads ([`Index::shared`]) filters that take long wait for each other;
    /// that time does not count.
    ///
    /// # Errors
    ///
    /// As [`Index::rows_where`]; [`Error::Interrupted`] if it takes longer or was stopped.
    pub fn rows_where_within(
        &self,
        filter: &Filter,
        limit: Duration,
        stop: &Stop,
    ) -> Result<Arc<PassingRows>> {
        self.passing(filter, Some((limit, stop)))
    }

    fn passing(
        &self,
        filter: &Filter,
        limits: Option<(Duration, &Stop)>,
    ) -> Result<Arc<PassingRows>> {
        if let Some(known) = filter.evaluated(&self.owner) {
            return Ok(known);
        }
        let masks = || self.masks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(passing) = masks().get(filter.source()) {
            filter.set_evaluated(&self.owner, passing);
            return Ok(Arc::clone(passing));
        }
        let condition = filter.compile(&self.fields)?;
        let passing = match (&self.filters, limits) {
            (None, None) => self.evaluate(&mut self.database(), &condition, None)?,
            (None, Some((limit, stop))) => {
                let mut database = self.database();
                self.evaluate(&mut database, &condition, Some(&within(limit, stop)))?
            }
            (Some([quick, slow]), _) => {
                let never: Stop = Arc::new(|| false);
                let (limit, stop) = limits.unwrap_or((Duration::MAX, &never));
                let outcome = {
                    let mut quick = locked(quick);
                    let soon = within(QUICK_FILTER.min(limit), stop);
                    self.evaluate(&mut quick, &condition, Some(&soon))
                };
                match outcome {
                    Err(Error::Interrupted(_)) if !stop() => {
                        let mut slow = locked(slow);
                        self.evaluate(&mut slow, &condition, Some(&within(limit, stop)))?
                    }
                    outcome => outcome?,
                }
            }
        };
        let passing = Arc::new(passing);
        filter.set_evaluated(&self.owner, &passing);
        let mut masks = masks();
        if masks.len() >= MAX_CACHED_MASKS {
            masks.clear();
        }
        masks.insert(filter.source().to_owned(), Arc::clone(&passing));
        Ok(passing)
    }

    fn evaluate(
        &self,
        database: &mut Database,
        condition: &SqlCondition,
        stop: Option<&Stop>,
    ) -> Result<PassingRows> {
        let sql = format!(
            "SELECT c.row FROM document d NOT INDEXED JOIN chunk c ON c.document = d.seq
             WHERE d.dead = 0 AND ({})",
            condition.sql
        );
        if stop.is_some_and(|stop| stop()) {
            return Err(Error::Interrupted("the filter was not evaluated".to_owned()));
        }
        database.until(stop, |database| {
            let mut mask = RowMask::empty(self.n_rows());
            database.for_each(&sql, rusqlite::params_from_iter(&condition.values), |r| {
                mask.insert(r.get(0)?);
                Ok(())
            })?;
            mask.intersect(&self.live);
            Ok(PassingRows { mask, warnings: notes(database, &condition.notes)? })
        })
    }
}

/// A stop after a time from now, or before it if `stop` says so.
fn within(limit: Duration, stop: &Stop) -> Stop {
    let (started, stop) = (Instant::now(), Arc::clone(stop));
    Arc::new(move || stop() || started.elapsed() > limit)
}

/// Counts the live rows that the notes of a filter are about.
pub(super) fn notes(database: &Database, notes: &[Note]) -> Result<Vec<String>> {
    let mut messages = Vec::new();
    for note in notes {
        let sql = format!(
            "SELECT label, sum(n_chunks) FROM
             (SELECT {} AS label, d.n_chunks FROM document d WHERE d.dead = 0)
             WHERE label IS NOT NULL GROUP BY label ORDER BY label DESC",
            note.sql
        );
        let values = rusqlite::params_from_iter(&note.values);
        database.for_each(&sql, values, |r| {
            messages.push(note.message(r.get_ref(0)?.as_str()?, r.get(1)?));
            Ok(())
        })?;
    }
    Ok(messages)
}
