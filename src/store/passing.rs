//! The rows that pass a metadata filter.

use super::database::{Database, Stop};
use super::filter::{Filter, Note, PassingRows, SqlCondition};
use super::index::Index;
use super::reader::{Shard, locked};
use crate::error::{Error, Result};
use std::cmp::Reverse;
use std::collections::BTreeMap;
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

    /// Checks that a filter fits the index's fields.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] naming what does not fit.
    pub fn check_filter(&self, filter: &Filter) -> Result<()> {
        filter.compile(self.fields()).map(drop)
    }

    /// The messages of a filter about the rows of its notes, which shards have counted.
    pub(crate) fn messages<'a>(
        &self,
        filter: &Filter,
        found: impl Iterator<Item = &'a (usize, String, u64)>,
    ) -> Vec<String> {
        let Ok(condition) = filter.compile(self.fields()) else { return Vec::new() };
        let mut counts = NoteCounts::new();
        for (number, label, n) in found {
            *counts.entry((*number, Reverse(label.clone()))).or_default() += n;
        }
        messages(&condition.notes, &counts)
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
        let condition = filter.compile(self.fields())?;
        let (mask, counts) = self.evaluate(&condition, limits)?;
        let warnings = messages(&condition.notes, &counts);
        let notes = counts.into_iter().map(|((note, label), n)| (note, label.0, n)).collect();
        let passing = Arc::new(PassingRows { mask, warnings, notes });
        filter.set_evaluated(&self.owner, &passing);
        let mut masks = masks();
        if masks.len() >= MAX_CACHED_MASKS {
            masks.clear();
        }
        masks.insert(filter.source().to_owned(), Arc::clone(&passing));
        Ok(passing)
    }

    /// Evaluates a condition in every shard.
    fn evaluate(
        &self,
        condition: &SqlCondition,
        limits: Option<(Duration, &Stop)>,
    ) -> Result<(RowMask, NoteCounts)> {
        self.check_local("count the rows that pass a filter")?;
        let started = Instant::now();
        let (mut mask, mut counts) = (RowMask::empty(0), NoteCounts::new());
        for shard in &self.shards {
            let limits =
                limits.map(|(limit, stop)| (limit.saturating_sub(started.elapsed()), stop));
            let (rows, found) = shard.evaluate(condition, limits)?;
            mask.append(&rows);
            found.into_iter().for_each(|(value, n)| *counts.entry(value).or_default() += n);
        }
        Ok((mask, counts))
    }
}

impl Shard {
    /// The live rows that fulfil a condition, and what its notes are about.
    fn evaluate(
        &self,
        condition: &SqlCondition,
        limits: Option<(Duration, &Stop)>,
    ) -> Result<(RowMask, NoteCounts)> {
        match (&self.filters, limits) {
            (None, None) => self.evaluate_by(&mut self.database(), condition, None),
            (None, Some((limit, stop))) => {
                let mut database = self.database();
                self.evaluate_by(&mut database, condition, Some(&within(limit, stop)))
            }
            (Some([quick, slow]), _) => {
                let never: Stop = Arc::new(|| false);
                let (limit, stop) = limits.unwrap_or((Duration::MAX, &never));
                let outcome = {
                    let mut quick = locked(quick);
                    let soon = within(QUICK_FILTER.min(limit), stop);
                    self.evaluate_by(&mut quick, condition, Some(&soon))
                };
                match outcome {
                    Err(Error::Interrupted(_)) if !stop() => {
                        let mut slow = locked(slow);
                        self.evaluate_by(&mut slow, condition, Some(&within(limit, stop)))
                    }
                    outcome => outcome,
                }
            }
        }
    }

    fn evaluate_by(
        &self,
        database: &mut Database,
        condition: &SqlCondition,
        stop: Option<&Stop>,
    ) -> Result<(RowMask, NoteCounts)> {
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
            Ok((mask, count_notes(database, &condition.notes)?))
        })
    }
}

/// A stop after a time from now, or before it if `stop` says so.
fn within(limit: Duration, stop: &Stop) -> Stop {
    let (started, stop) = (Instant::now(), Arc::clone(stop));
    Arc::new(move || stop() || started.elapsed() > limit)
}

/// Live rows by note and label, labels in descending order.
type NoteCounts = BTreeMap<(usize, Reverse<String>), u64>;

/// Messages about the live rows that the notes of a filter are about.
pub(super) fn notes(database: &Database, notes: &[Note]) -> Result<Vec<String>> {
    Ok(messages(notes, &count_notes(database, notes)?))
}

/// Counts the live rows that the notes of a filter are about.
fn count_notes(database: &Database, notes: &[Note]) -> Result<NoteCounts> {
    let mut counts = NoteCounts::new();
    for (number, note) in notes.iter().enumerate() {
        let sql = format!(
            "SELECT label, sum(n_chunks) FROM
             (SELECT {} AS label, d.n_chunks FROM document d WHERE d.dead = 0)
             WHERE label IS NOT NULL GROUP BY label",
            note.sql
        );
        let values = rusqlite::params_from_iter(&note.values);
        database.for_each(&sql, values, |r| {
            let n: u64 = r.get(1)?;
            counts.insert((number, Reverse(r.get(0)?)), n);
            Ok(())
        })?;
    }
    Ok(counts)
}

fn messages(notes: &[Note], counts: &NoteCounts) -> Vec<String> {
    let message = |((number, label), n): (&(usize, Reverse<String>), &u64)| {
        notes.get(*number).map(|note| note.message(&label.0, *n))
    };
    counts.iter().filter_map(message).collect()
}
