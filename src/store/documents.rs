//! The document database: SQLite with the texts, metadata, lexical index, and the committed state.

use super::format::{FORMAT_VERSION, REBUILD, newer_version};
use crate::error::{Error, Result};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use std::path::{Path, PathBuf};

/// The database's file name.
pub(super) const DOCUMENTS_FILE: &str = "documents.db";

/// Marks a SQLite file as ours: "wsek".
const APPLICATION_ID: i32 = 0x7773_656b;

/// An open database.
#[derive(Debug)]
pub(super) struct Documents {
    pub(super) conn: Connection,
    path: PathBuf,
}

/// The committed state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) generation: u64,
    pub(super) n_rows: u64,
    /// XXH3-64 of `manifest.json`.
    pub(super) manifest_hash: u64,
}

impl Documents {
    /// Makes an empty database in `dir`, replacing what an interrupted creation left.
    pub(super) fn create(dir: &Path, state: State) -> Result<Self> {
        for suffix in ["", "-wal", "-shm"] {
            let path = dir.join(format!("{DOCUMENTS_FILE}{suffix}"));
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", path)(e));
                }
                _ => {}
            }
        }
        let path = dir.join(DOCUMENTS_FILE);
        let this = Self { conn: Connection::open(&path).map_err(failure(&path))?, path };
        this.configure_writer()?;
        let sql = format!(
            "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT_VERSION};
             BEGIN; {} COMMIT;",
            include_str!("schema.sql")
        );
        this.conn.execute_batch(&sql).map_err(failure(&this.path))?;
        this.set_state(state)?;
        Ok(this)
    }

    /// Opens the database of `dir` for the one writer.
    pub(super) fn open_writer(dir: &Path) -> Result<Self> {
        let path = dir.join(DOCUMENTS_FILE);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&path, flags).map_err(failure(&path))?;
        let this = Self { conn, path };
        this.check_identity()?;
        this.configure_writer()?;
        Ok(this)
    }

    /// Opens the database of `dir` for reading and holds a snapshot: later commits stay invisible.
    pub(super) fn open_reader(dir: &Path) -> Result<Self> {
        let path = dir.join(DOCUMENTS_FILE);
        let open = |uri: &str, flags| -> Result<Self> {
            let flags = flags | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let conn = Connection::open_with_flags(uri, flags).map_err(failure(&path))?;
            let this = Self { conn, path: path.clone() };
            this.check_identity()?;
            this.conn
                .execute_batch("PRAGMA query_only = 1; PRAGMA mmap_size = 268435456; BEGIN;")
                .map_err(failure(&path))?;
            // The snapshot starts with the first read.
            this.state()?;
            Ok(this)
        };
        let uri = file_uri(&path);
        let result = open(&uri, OpenFlags::SQLITE_OPEN_READ_WRITE);
        let no_wal = !dir.join(format!("{DOCUMENTS_FILE}-wal")).exists();
        match result {
            // Read-only media or a folder that belongs to someone else: nobody writes beside us.
            Err(Error::Database { .. } | Error::Io { .. }) if no_wal => {
                open(&format!("{uri}?immutable=1"), OpenFlags::SQLITE_OPEN_READ_ONLY)
            }
            Err(Error::Database { .. } | Error::Io { .. }) => {
                open(&uri, OpenFlags::SQLITE_OPEN_READ_ONLY)
            }
            other => other,
        }
    }

    fn configure_writer(&self) -> Result<()> {
        self.conn
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = 0;
                 PRAGMA cache_size = -65536; PRAGMA busy_timeout = 10000;",
            )
            .map_err(failure(&self.path))
    }

    fn check_identity(&self) -> Result<()> {
        let pragma = |name: &str| -> Result<i64> {
            self.conn
                .query_row(&format!("PRAGMA {name}"), [], |r| r.get(0))
                .map_err(failure(&self.path))
        };
        if pragma("application_id")? != i64::from(APPLICATION_ID) {
            return Err(Error::corrupt(
                &self.path,
                format!("the file is empty or not warpseek's database; {REBUILD}"),
            ));
        }
        let version = pragma("user_version")?;
        if version > i64::from(FORMAT_VERSION) {
            let version = u32::try_from(version).unwrap_or(u32::MAX);
            return Err(Error::corrupt(&self.path, newer_version(version)));
        }
        Ok(())
    }

    /// The database file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Turns a SQLite error into the crate's; for `map_err`.
    pub(super) fn failure(&self) -> impl Fn(rusqlite::Error) -> Error + '_ {
        failure(&self.path)
    }

    pub(super) fn state(&self) -> Result<State> {
        let value = |name: &str| -> Result<u64> {
            let found: Option<i64> = self
                .conn
                .prepare_cached("SELECT value FROM state WHERE name = ?1")
                .and_then(|mut s| s.query_row([name], |r| r.get(0)).optional())
                .map_err(self.failure())?;
            found.map(i64::cast_unsigned).ok_or_else(|| {
                Error::corrupt(&self.path, format!("the state '{name}' is missing; {REBUILD}"))
            })
        };
        Ok(State {
            generation: value("generation")?,
            n_rows: value("n_rows")?,
            manifest_hash: value("manifest_hash")?,
        })
    }

    pub(super) fn set_state(&self, state: State) -> Result<()> {
        for (name, value) in [
            ("generation", state.generation),
            ("n_rows", state.n_rows),
            ("manifest_hash", state.manifest_hash),
        ] {
            self.conn
                .prepare_cached("INSERT OR REPLACE INTO state (name, value) VALUES (?1, ?2)")
                .and_then(|mut s| s.execute(params![name, value.cast_signed()]))
                .map_err(self.failure())?;
        }
        Ok(())
    }
}

/// Turns a SQLite error about `path` into the crate's: damage is told from everything else.
pub(super) fn failure(path: &Path) -> impl Fn(rusqlite::Error) -> Error + '_ {
    move |source| {
        let path = path.to_path_buf();
        match &source {
            rusqlite::Error::SqliteFailure(e, _)
                if matches!(e.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) =>
            {
                Error::corrupt(path, format!("the database is damaged ({source}); {REBUILD}"))
            }
            rusqlite::Error::SqliteFailure(e, Some(text))
                if e.code == ErrorCode::Unknown && text.starts_with("no such ") =>
            {
                Error::corrupt(path, format!("the database is incomplete ({source}); {REBUILD}"))
            }
            rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..) => {
                Error::corrupt(path, format!("the database is damaged ({source}); {REBUILD}"))
            }
            _ => Error::Database { path, source },
        }
    }
}

/// A SQLite URI for a path, with the characters that mean something in a URI escaped.
fn file_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.to_string_lossy().bytes() {
        match byte {
            b'?' | b'#' | b'%' => uri.push_str(&format!("%{byte:02X}")),
            _ if byte.is_ascii() => uri.push(char::from(byte)),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}
