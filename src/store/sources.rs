//! The sources of documents: the input from which each came, for pruning.
//!
//! They are entries of the table `state`, one per run of documents with neighbouring numbers and
//! the same source, so that versions that know nothing of them read, write and verify the index as
//! before.
//!
//! ```text
//! name    source:F    number of the first document, 16 hexadecimal digits
//! value   L:S         number of the last document, hexadecimal, and the source
//! ```
//!
//! A document outside of all runs has no known source.

use super::database::Database;
use crate::error::Result;
use rusqlite::Connection;
use std::sync::Arc;

/// Begins the names of all entries.
const PREFIX: &str = "source:";

/// The first text behind all names that begin with [`PREFIX`].
const PREFIX_END: &str = "source;";

/// Query for the entries, in the order of their documents.
const ENTRIES: &str = "SELECT name, value FROM state WHERE name > ?1 AND name < ?2 ORDER BY name";

/// Documents with neighbouring numbers and the same source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceRun {
    pub(super) first: i64,
    pub(super) last: i64,
    /// `None` if the source is not known.
    pub(super) source: Option<Arc<str>>,
}

impl SourceRun {
    fn holds(&self, seq: i64) -> bool {
        (self.first..=self.last).contains(&seq)
    }

    /// Reads an entry; `None` if it is not as written.
    fn read(name: &str, value: &str) -> Option<Self> {
        let first = i64::from_str_radix(name.strip_prefix(PREFIX)?, 16).ok()?;
        let (last, source) = value.split_once(':')?;
        let last = i64::from_str_radix(last, 16).ok()?;
        let source = Some(source.into());
        (first <= last).then_some(Self { first, last, source })
    }

    fn store(&self, conn: &Connection) -> rusqlite::Result<()> {
        let Some(source) = &self.source else { return Ok(()) };
        let value = format!("{:x}:{source}", self.last);
        conn.prepare_cached("INSERT OR REPLACE INTO state VALUES (?1, ?2)")?
            .execute((name(self.first), value))
            .map(drop)
    }

    fn remove(&self, conn: &Connection) -> rusqlite::Result<()> {
        conn.prepare_cached("DELETE FROM state WHERE name = ?1")?
            .execute([name(self.first)])
            .map(drop)
    }
}

/// Name of the entry of a run that starts at `first`.
fn name(first: i64) -> String {
    format!("{PREFIX}{first:016x}")
}

/// Adds a document to the last of `runs` if it fits there, else in a run of its own.
pub(super) fn push(runs: &mut Vec<SourceRun>, seq: i64, source: Option<Arc<str>>) {
    match runs.last_mut() {
        Some(run) if run.last + 1 == seq && run.source == source => run.last = seq,
        _ => runs.push(SourceRun { first: seq, last: seq, source }),
    }
}

/// Stores the sources of documents, in place of those that they had.
pub(super) fn store(conn: &Connection, runs: &[SourceRun]) -> rusqlite::Result<()> {
    for run in runs {
        let mut run = run.clone();
        // The run before it, and those that begin in it or right behind it.
        let previous = (run.first - 1).max(0);
        let mut old = before(conn, previous)?;
        let after = "SELECT name, value FROM state WHERE name > ?1 AND name <= ?2";
        old.extend(select(conn, after, &[&name(previous), &name(run.last + 1)])?);
        for old in old {
            if old.source == run.source && old.last >= run.first - 1 {
                old.remove(conn)?;
                run = SourceRun {
                    first: run.first.min(old.first),
                    last: run.last.max(old.last),
                    ..run
                };
            } else if old.last >= run.first && old.first <= run.last {
                old.remove(conn)?;
                let (left, right) = (run.first - 1, run.last + 1);
                if old.first <= left {
                    SourceRun { last: left, ..old.clone() }.store(conn)?;
                }
                if right <= old.last {
                    SourceRun { first: right, ..old }.store(conn)?;
                }
            }
        }
        run.store(conn)?;
    }
    Ok(())
}

/// The stored source of a document.
pub(super) fn find(database: &Database, seq: i64) -> Result<Option<Arc<str>>> {
    let run = database.run(|conn| before(conn, seq))?.pop();
    Ok(run.filter(|run| run.holds(seq)).and_then(|run| run.source))
}

/// Calls `visit` with the documents of a query for numbers, ascending, and their sources.
pub(super) fn for_each(
    database: &Database,
    sql: &str,
    mut visit: impl FnMut(i64, Option<&str>),
) -> Result<()> {
    let runs = database.run(|conn| select(conn, ENTRIES, &[PREFIX, PREFIX_END]))?;
    let mut runs = runs.into_iter().peekable();
    database.for_each(sql, [], |r| {
        let seq = r.get(0)?;
        while runs.next_if(|run| run.last < seq).is_some() {}
        let run = runs.peek().filter(|run| run.holds(seq));
        visit(seq, run.and_then(|run| run.source.as_deref()));
        Ok(())
    })
}

/// Forgets the sources of documents that are gone: their numbers may be given again.
pub(super) fn trim(conn: &Connection) -> rusqlite::Result<()> {
    let mut last = conn.prepare("SELECT max(seq) FROM document WHERE seq BETWEEN ?1 AND ?2")?;
    for run in select(conn, ENTRIES, &[PREFIX, PREFIX_END])? {
        match last.query_row([run.first, run.last], |r| r.get::<_, Option<i64>>(0))? {
            Some(last) if last < run.last => SourceRun { last, ..run }.store(conn)?,
            Some(_) => {}
            None => run.remove(conn)?,
        }
    }
    Ok(())
}

/// The number of entries that are not as written.
pub(super) fn count_damaged(database: &Database) -> Result<usize> {
    let runs = database.run(|conn| select(conn, ENTRIES, &[PREFIX, PREFIX_END]))?;
    let count = "SELECT 1 FROM state WHERE name > ?1 AND name < ?2";
    let n = database.collect(count, [PREFIX, PREFIX_END], |_| Ok(()))?.len();
    let overlapping = runs.windows(2).filter(|pair| pair[0].last >= pair[1].first).count();
    Ok(n - runs.len() + overlapping)
}

/// The last run that begins at `seq` or before it.
fn before(conn: &Connection, seq: i64) -> rusqlite::Result<Vec<SourceRun>> {
    let sql = "SELECT name, value FROM state WHERE name > ?1 AND name <= ?2
               ORDER BY name DESC LIMIT 1";
    select(conn, sql, &[PREFIX, &name(seq)])
}

/// The runs of a query for entries. An entry that is not as written counts as unknown.
fn select(conn: &Connection, sql: &str, names: &[&str]) -> rusqlite::Result<Vec<SourceRun>> {
    let mut runs = Vec::new();
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(names))?;
    while let Some(row) = rows.next()? {
        if let (Ok(name), Ok(value)) = (row.get_ref(0)?.as_str(), row.get_ref(1)?.as_str()) {
            runs.extend(SourceRun::read(name, value));
        }
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entries of a database after storing runs, `first last source`, one after the other.
    fn stored(runs: &str) -> String {
        let conn = Connection::open_in_memory().unwrap();
        let table = "CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
                     CREATE TABLE document (seq INTEGER PRIMARY KEY);
                     INSERT INTO document VALUES (1), (2), (5);
                     INSERT INTO state VALUES ('generation', 0), ('zone', 1);";
        conn.execute_batch(table).unwrap();
        for run in runs.split(", ") {
            let words: Vec<&str> = run.split(' ').collect();
            if run == "trim" {
                trim(&conn).unwrap();
                continue;
            }
            let source = (words[2] != "-").then(|| words[2].into());
            let [first, last] = [words[0], words[1]].map(|word| word.parse().unwrap());
            store(&conn, &[SourceRun { first, last, source }]).unwrap();
        }
        let runs = select(&conn, ENTRIES, &[PREFIX, PREFIX_END]).unwrap();
        let text = |run: &SourceRun| {
            format!("{} {} {}", run.first, run.last, run.source.as_deref().unwrap())
        };
        runs.iter().map(text).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn runs_replace_what_they_overlap_and_join_their_like() {
        for (runs, expected) in [
            ("1 3 a, 4 6 a, 7 9 b", "1 6 a, 7 9 b"),
            ("1 9 a, 4 5 b", "1 3 a, 4 5 b, 6 9 a"),
            ("1 9 a, 4 5 b, 4 5 a", "1 9 a"),
            ("1 9 a, 4 5 -", "1 3 a, 6 9 a"),
            ("1 2 a, 4 5 b, 7 8 c, 2 7 d", "1 1 a, 2 7 d, 8 8 c"),
            ("1 3 a, 5 7 a, 4 4 a", "1 7 a"),
            ("5 7 a, 1 9 b", "1 9 b"),
            ("1 1 5, 300 300 12", "1 1 5, 300 300 12"),
            ("1 3 a, 4 9 b, 10 12 c, trim", "1 2 a, 4 5 b"),
        ] {
            assert_eq!(stored(runs), expected, "{runs}");
        }
    }

    #[test]
    fn pushed_documents_join_the_last_run() {
        let mut runs = Vec::new();
        for (seq, source) in [(1, Some("a")), (2, Some("a")), (3, None), (5, None), (6, Some("a"))]
        {
            push(&mut runs, seq, source.map(Into::into));
        }
        let ends: Vec<_> = runs.iter().map(|run| (run.first, run.last)).collect();
        assert_eq!(ends, [(1, 2), (3, 3), (5, 5), (6, 6)]);
    }
}
