//! The document database: SQLite with texts, metadata, the lexical index, and the committed state.
//!
//! [`Database`] maps every error of SQLite to [`Error`], and separates damage from other failures.
//! The tables are in `schema.sql`.

use super::filter::functions;
use super::folder::{DATABASE_FILE, remove_if_present};
use super::format::{FORMAT_VERSION, INT8_VERSION, REBUILD, newer_version};
use crate::error::{Error, Result};
use rusqlite::types::FromSql;
use rusqlite::{Connection, ErrorCode, FileControl, OpenFlags, Params};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The tables of the database.
pub(super) const SCHEMA: &str = include_str!("schema.sql");

/// Marks a SQLite file as warpseek's: "wsek".
const APPLICATION_ID: i64 = 0x7773_656b;

/// An open database.
#[derive(Debug)]
pub(super) struct Database {
    conn: Connection,
    /// Path of the database file.
    pub(super) path: PathBuf,
}

/// State of the index as of the last commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CommitState {
    pub(super) generation: u64,
    /// Committed rows, deleted ones included.
    pub(super) n_rows: u64,
    /// XXH3-64 of `manifest.json`.
    pub(super) manifest_hash: u64,
    /// True if the generation has an int8 copy. Stored as the database's format version.
    pub(super) has_int8: bool,
}

impl Database {
    /// Creates an empty database in `dir`, in place of one whose creation was interrupted.
    pub(super) fn create(dir: &Path, state: CommitState, manifest: &[u8]) -> Result<Self> {
        for suffix in ["", "-wal", "-shm"] {
            remove_if_present(&dir.join(format!("{DATABASE_FILE}{suffix}")))?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let this = Self::connect(dir, flags, false)?;
        this.configure_writer()?;
        this.commit(state, |conn| {
            conn.pragma_update(None, "application_id", APPLICATION_ID)?;
            conn.execute_batch(SCHEMA)?;
            conn.execute("INSERT INTO manifest (json) VALUES (?1)", [manifest]).map(drop)
        })?;
        Ok(this)
    }

    /// Opens the database of `dir` for the one writer.
    pub(super) fn open_writer(dir: &Path) -> Result<Self> {
        let this = Self::connect(dir, OpenFlags::SQLITE_OPEN_READ_WRITE, false)?;
        this.check_identity()?;
        this.configure_writer()?;
        Ok(this)
    }

    /// Opens the database of `dir` for reading, in a transaction: later commits stay invisible.
    pub(super) fn open_reader(dir: &Path) -> Result<Self> {
        let open = |flags: OpenFlags, immutable: bool| -> Result<Self> {
            let this = Self::connect(dir, flags, immutable)?;
            this.check_identity()?;
            this.run(|conn| {
                conn.execute_batch("PRAGMA query_only = 1; PRAGMA busy_timeout = 10000; BEGIN;")
            })?;
            // The transaction's snapshot starts with the first read.
            this.state()?;
            Ok(this)
        };
        let refused =
            |r: &Result<Self>| matches!(r, Err(Error::Database { .. } | Error::Io { .. }));
        let mut result = open(OpenFlags::SQLITE_OPEN_READ_WRITE, false);
        if refused(&result) {
            // This process may not write to the folder. The files that SQLite shares between
            // readers and the writer exist, because a writer leaves them there.
            result = open(OpenFlags::SQLITE_OPEN_READ_ONLY, false);
        }
        if refused(&result) && is_read_only_media(&dir.join(DATABASE_FILE)) {
            let wal = dir.join(format!("{DATABASE_FILE}-wal"));
            if std::fs::metadata(&wal).is_ok_and(|file| file.len() > 0) {
                return Err(Error::io("read", wal)(io::Error::other(
                    "it holds commits that are not in the database yet: open the index once where \
                     it can be written, then copy it again",
                )));
            }
            // No process writes on read-only media.
            result = open(OpenFlags::SQLITE_OPEN_READ_ONLY, true);
        }
        result
    }

    /// True if a row was ever committed to the database of `dir`, whose creation may have been
    /// interrupted. `None` if the database is not warpseek's.
    pub(super) fn ever_had_rows(dir: &Path) -> Result<Option<bool>> {
        let this = Self::connect(dir, OpenFlags::SQLITE_OPEN_READ_WRITE, false)?;
        if this.number::<i64>("SELECT count(*) FROM sqlite_schema")? == 0 {
            return Ok(Some(false));
        }
        if this.number::<i64>("PRAGMA application_id")? != APPLICATION_ID {
            return Ok(None);
        }
        let sql = "SELECT coalesce(max(value), 0) FROM state WHERE name = 'n_rows'";
        Ok(Some(this.number::<i64>(sql)? > 0))
    }

    /// The bytes of `manifest.json` as they were written.
    pub(super) fn manifest(&self) -> Result<Vec<u8>> {
        self.run(|conn| conn.query_row("SELECT json FROM manifest", [], |r| r.get(0)))
    }

    /// The committed state.
    pub(super) fn state(&self) -> Result<CommitState> {
        let value = |name: &str| -> Result<u64> {
            let sql = "SELECT value FROM state WHERE name = ?1";
            let value = self.collect(sql, [name], |r| r.get(0))?.pop();
            value.map(i64::cast_unsigned).ok_or_else(|| {
                Error::corrupt(&self.path, format!("the state '{name}' is missing; {REBUILD}"))
            })
        };
        Ok(CommitState {
            generation: value("generation")?,
            n_rows: value("n_rows")?,
            manifest_hash: value("manifest_hash")?,
            has_int8: self.number::<i64>("PRAGMA user_version")? >= i64::from(INT8_VERSION),
        })
    }

    /// Runs `work` and stores `state`, in one transaction. It is durable when this returns `Ok`.
    pub(super) fn commit(
        &self,
        state: CommitState,
        work: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> Result<()> {
        let CommitState { generation, n_rows, manifest_hash, has_int8 } = state;
        self.run(|conn| {
            conn.execute_batch("BEGIN IMMEDIATE")?;
            let store = || {
                work(conn)?;
                let mut set =
                    conn.prepare_cached("INSERT OR REPLACE INTO state VALUES (?1, ?2)")?;
                set.execute(("generation", generation.cast_signed()))?;
                set.execute(("n_rows", n_rows.cast_signed()))?;
                set.execute(("manifest_hash", manifest_hash.cast_signed()))?;
                let version = if has_int8 { FORMAT_VERSION } else { INT8_VERSION - 1 };
                // Part of the transaction, as the tables are.
                conn.pragma_update(None, "user_version", version)?;
                conn.execute_batch("COMMIT")
            };
            store().inspect_err(|_| {
                // A failed COMMIT may have ended the transaction already.
                let _ = conn.execute_batch("ROLLBACK");
            })
        })
    }

    /// Shrinks the database file and empties the write-ahead log. Returns false if open readers or
    /// the disk prevent it; does not wait for them.
    pub(super) fn return_space(&self) -> bool {
        let shrink = || {
            self.conn.execute_batch("VACUUM; PRAGMA busy_timeout = 0")?;
            self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get::<_, i64>(0))
        };
        shrink().is_ok_and(|busy| busy == 0)
    }

    /// Calls `work` with SQLite's connection.
    pub(super) fn run<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        work(&self.conn).map_err(sqlite_error(&self.path))
    }

    /// Runs a query and calls `visit` with every row of the result.
    pub(super) fn for_each(
        &self,
        sql: &str,
        params: impl Params,
        visit: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<()> {
        // A vector of units takes no memory.
        self.collect(sql, params, visit).map(drop)
    }

    /// Runs a query and collects the values that `read` takes from the rows of the result.
    pub(super) fn collect<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        self.run(|conn| conn.prepare_cached(sql)?.query_map(params, read)?.collect())
    }

    /// Runs a query whose result is one number.
    pub(super) fn number<T: FromSql>(&self, sql: &str) -> Result<T> {
        self.run(|conn| conn.query_row(sql, [], |r| r.get(0)))
    }

    /// Opens the file. `immutable`: without locks and the write-ahead log, for read-only media.
    fn connect(dir: &Path, flags: OpenFlags, immutable: bool) -> Result<Self> {
        let path = dir.join(DATABASE_FILE);
        let exists = path.try_exists().map_err(Error::io("read", &path))?;
        if !exists && !flags.contains(OpenFlags::SQLITE_OPEN_CREATE) {
            return Err(Error::corrupt(path, format!("the file is missing; {REBUILD}")));
        }
        let mut location = std::path::absolute(&path).map_err(Error::io("read", &path))?;
        if immutable {
            location = immutable_uri(&location).into();
        }
        let flags = flags | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(location, flags).map_err(sqlite_error(&path))?;
        functions::register(&conn).map_err(sqlite_error(&path))?;
        Ok(Self { conn, path })
    }

    fn configure_writer(&self) -> Result<()> {
        self.run(|conn| {
            conn.execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = 0;
                 PRAGMA cache_size = -65536; PRAGMA journal_size_limit = 0;
                 PRAGMA busy_timeout = 10000;",
            )?;
            // Keeps the write-ahead log and its shared memory when the last connection closes.
            // Readers that may not write to the folder need them; others do without.
            let keep = FileControl::PersistWal(&mut 1);
            let _ = conn.file_control(Some(rusqlite::MAIN_DB), keep);
            Ok(())
        })
    }

    fn check_identity(&self) -> Result<()> {
        if self.number::<i64>("PRAGMA application_id")? != APPLICATION_ID {
            return Err(Error::corrupt(
                &self.path,
                format!("the file is empty or not warpseek's database; {REBUILD}"),
            ));
        }
        let version = self.number::<i64>("PRAGMA user_version")?;
        if version > i64::from(FORMAT_VERSION) {
            let version = u32::try_from(version).unwrap_or(u32::MAX);
            return Err(Error::corrupt(&self.path, newer_version(version)));
        }
        Ok(())
    }
}

/// Maps a SQLite error about `path` to [`Error`]; for `map_err`.
fn sqlite_error(path: &Path) -> impl Fn(rusqlite::Error) -> Error + '_ {
    use rusqlite::Error as Sqlite;
    let damaged = move |reason: &str| {
        Error::corrupt(path, format!("the database is damaged ({reason}); {REBUILD}"))
    };
    move |source| match (source.sqlite_error_code(), &source) {
        (Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase), _)
        | (_, Sqlite::InvalidColumnType(..) | Sqlite::FromSqlConversionFailure(..))
        | (_, Sqlite::IntegralValueOutOfRange(..) | Sqlite::Utf8Error(..)) => {
            damaged(&source.to_string())
        }
        // The statements are fixed and all values are bound. If SQLite rejects one, tables or
        // values are not what this version wrote.
        (Some(ErrorCode::Unknown), Sqlite::SqliteFailure(_, Some(_))) => {
            tracing::debug!("{source}");
            damaged("a table or a value is not as written")
        }
        (Some(ErrorCode::DiskFull), _) => {
            Error::io("write", path)(io::Error::new(ErrorKind::StorageFull, "the disk is full"))
        }
        _ => Error::Database { path: path.to_path_buf(), reason: source.to_string() },
    }
}

/// SQLite URI of an absolute path, percent-encoded, with `immutable=1`.
fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from(if cfg!(windows) { "file:///" } else { "file://" });
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'\\' if cfg!(windows) => uri.push('/'),
            b'/' | b':' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                uri.push(char::from(*byte));
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri + "?immutable=1"
}

/// True if the file system refuses writes of every process.
fn is_read_only_media(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use rustix::fs::StatVfsMountFlags;
        rustix::fs::statvfs(path).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY))
    }
    #[cfg(not(unix))]
    {
        std::fs::metadata(path).is_ok_and(|file| file.permissions().readonly())
    }
}
