//! Recorded inputs of an index, and the stamps of their files: what `sync` reads again.
//!
//! They are entries of the table `state`, so that versions that know nothing of them read, write
//! and verify the index as before.
//!
//! ```text
//! name    input:NAME      file or folder, named as in a source
//! value   settings of reading it, as JSON
//!
//! name    file:SOURCE     file that was read to its end without an error
//! value   its stamp
//! ```

use super::database::Database;
use crate::error::Result;
use rusqlite::Connection;
use std::collections::HashMap;
use warpseek_ingest::FileStamp;

/// Begins the names of entries for inputs.
const INPUT: Prefix = Prefix("input:", "input;");

/// Begins the names of entries for files.
const FILE: Prefix = Prefix("file:", "file;");

/// The beginning of names, and the first text behind all names that begin with it.
struct Prefix(&'static str, &'static str);

/// Changes that wait for the next commit.
#[derive(Debug, Default)]
pub(super) struct PendingInputs {
    /// Settings of an input, or `None` to forget it.
    pub(super) inputs: Vec<(String, Option<String>)>,
    /// Stamp of a file, or `None` to forget it.
    pub(super) stamps: Vec<(String, Option<FileStamp>)>,
}

impl PendingInputs {
    pub(super) fn is_empty(&self) -> bool {
        self.inputs.is_empty() && self.stamps.is_empty()
    }

    pub(super) fn write(&self, conn: &Connection) -> rusqlite::Result<()> {
        for (name, settings) in &self.inputs {
            set(conn, &INPUT, name, settings.as_deref())?;
        }
        for (source, stamp) in &self.stamps {
            set(conn, &FILE, source, stamp.map(|stamp| stamp.to_string()).as_deref())?;
        }
        Ok(())
    }
}

/// Stores an entry, or removes it.
fn set(
    conn: &Connection,
    prefix: &Prefix,
    name: &str,
    value: Option<&str>,
) -> rusqlite::Result<()> {
    let name = format!("{}{name}", prefix.0);
    let changed = match value {
        Some(value) => conn
            .prepare_cached("INSERT OR REPLACE INTO state VALUES (?1, ?2)")?
            .execute((name, value)),
        None => conn.prepare_cached("DELETE FROM state WHERE name = ?1")?.execute([name]),
    };
    changed.map(drop)
}

/// The recorded inputs with their settings, by name.
pub(super) fn inputs(database: &Database) -> Result<Vec<(String, String)>> {
    entries(database, &INPUT)
}

/// The stamps of files, by source. One that cannot be read is left out: its file is read again.
pub(super) fn stamps(database: &Database) -> Result<HashMap<String, FileStamp>> {
    let stamps = entries(database, &FILE)?;
    let read = |(source, stamp): (String, String)| Some((source, stamp.parse().ok()?));
    Ok(stamps.into_iter().filter_map(read).collect())
}

/// The number of stamps that are not as written.
pub(super) fn count_damaged(database: &Database) -> Result<usize> {
    let stamps = entries(database, &FILE)?;
    Ok(stamps.iter().filter(|(_, stamp)| stamp.parse::<FileStamp>().is_err()).count())
}

/// The entries whose names begin with a prefix, without it.
fn entries(database: &Database, prefix: &Prefix) -> Result<Vec<(String, String)>> {
    let sql =
        "SELECT substr(name, ?3), value FROM state WHERE name > ?1 AND name < ?2 ORDER BY name";
    let start = prefix.0.len() + 1;
    database.collect(sql, (prefix.0, prefix.1, start), |r| {
        let value = match r.get_ref(1)?.as_str() {
            Ok(value) => value.to_owned(),
            // A stamp or settings that are not text.
            Err(_) => String::new(),
        };
        Ok((r.get(0)?, value))
    })
}
