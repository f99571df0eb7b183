//! The document database: SQLite with the texts, metadata, lexical index, and the committed state.

use super::format::{FORMAT_VERSION, PREFILTER_VERSION, REBUILD, newer_version};
use crate::error::{Error, Result};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use std::path::{Path, PathBuf};

/// The database's file name.
pub(super) const DOCUMENTS_FILE: &str = "documents.db";

/// The tables of the database.
pub(super) const SCHEMA: &str = include_str!("schema.sql");

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
    /// Whether the generation has a prefilter: the database is of a version that has.
    pub(super) has_prefilter: bool,
}

impl Documents {
    /// Makes an empty database in `dir`, replacing what an interrupted creation left.
    pub(super) fn create(dir: &Path, state: State, manifest: &[u8]) -> Result<Self> {
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
        let sql = format!("PRAGMA application_id = {APPLICATION_ID}; BEGIN; {} COMMIT;", SCHEMA);
        this.conn.execute_batch(&sql).map_err(failure(&this.path))?;
        this.conn
            .execute("INSERT INTO manifest (json) VALUES (?1)", [manifest])
            .map_err(failure(&this.path))?;
        this.set_state(state)?;
        Ok(this)
    }

    /// Whether the database of `dir`, which has no manifest beside it, was never finished or never
    /// held a row; none where it is not warpseek's at all.
    pub(super) fn is_unfinished(dir: &Path) -> Result<Option<bool>> {
        let path = dir.join(DOCUMENTS_FILE);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&path, flags).map_err(failure(&path))?;
        let this = Self { conn, path };
        let tables: i64 = this
            .conn
            .query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))
            .map_err(failure(&this.path))?;
        if this.pragma("application_id")? != i64::from(APPLICATION_ID) {
            // An empty database is one whose creation got no further.
            return Ok((tables == 0).then_some(true));
        }
        if tables == 0 {
            return Ok(Some(true));
        }
        let rows = this
            .conn
            .query_row("SELECT value FROM state WHERE name = 'n_rows'", [], |r| r.get::<_, i64>(0))
            .optional()
            .map_err(failure(&this.path))?;
        Ok(Some(rows.unwrap_or(0) == 0))
    }

    /// The bytes of `manifest.json` as they were written.
    pub(super) fn manifest(&self) -> Result<Vec<u8>> {
        self.conn.query_row("SELECT json FROM manifest", [], |r| r.get(0)).map_err(self.failure())
    }

    /// Opens the database of `dir` for the one writer.
    pub(super) fn open_writer(dir: &Path) -> Result<Self> {
        let path = existing(dir)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&path, flags).map_err(failure(&path))?;
        let this = Self { conn, path };
        this.check_identity()?;
        this.configure_writer()?;
        Ok(this)
    }

    /// Opens the database of `dir` for reading and holds a snapshot: later commits stay invisible.
    pub(super) fn open_reader(dir: &Path) -> Result<Self> {
        let path = existing(dir)?;
        let open = |immutable: bool, flags| -> Result<Self> {
            let uri = file_uri(&path, immutable)?;
            let flags = flags | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let conn = Connection::open_with_flags(uri, flags).map_err(failure(&path))?;
            let this = Self { conn, path: path.clone() };
            this.check_identity()?;
            this.conn
                .execute_batch("PRAGMA query_only = 1; PRAGMA busy_timeout = 10000; BEGIN;")
                .map_err(failure(&path))?;
            // The snapshot starts with the first read.
            this.state()?;
            Ok(this)
        };
        let may_not_write = |e: &Error| matches!(e, Error::Database { .. } | Error::Io { .. });
        match open(false, OpenFlags::SQLITE_OPEN_READ_WRITE) {
            Err(e) if may_not_write(&e) => {}
            outcome => return outcome,
        }
        // A folder that belongs to somebody else: the files that readers and the writer share stand
        // there already, because a writer leaves them.
        let refused = match open(false, OpenFlags::SQLITE_OPEN_READ_ONLY) {
            Err(e) if may_not_write(&e) => e,
            outcome => return outcome,
        };
        if !is_read_only_media(&path) {
            return Err(refused);
        }
        let wal = dir.join(format!("{DOCUMENTS_FILE}-wal"));
        if std::fs::metadata(&wal).is_ok_and(|file| file.len() > 0) {
            return Err(Error::io("read", wal)(std::io::Error::other(
                "it holds commits that are not in the database yet: open the index once where it can \
                 be written, then copy it again",
            )));
        }
        // Nobody writes beside us on read-only media.
        open(true, OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    fn configure_writer(&self) -> Result<()> {
        self.conn
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = 0;
                 PRAGMA cache_size = -65536; PRAGMA journal_size_limit = 0;
                 PRAGMA busy_timeout = 10000;",
            )
            .map_err(failure(&self.path))?;
        self.keep_wal();
        Ok(())
    }

    /// Lets the write-ahead log and its shared memory stand when the last connection closes: readers
    /// that may not write into the folder need them.
    fn keep_wal(&self) {
        let mut on: std::ffi::c_int = 1;
        // SAFETY: the connection is open, "main" ends in NUL, and this operation reads and writes one
        // int behind its last argument.
        let _ = unsafe {
            rusqlite::ffi::sqlite3_file_control(
                self.conn.handle(),
                c"main".as_ptr(),
                rusqlite::ffi::SQLITE_FCNTL_PERSIST_WAL,
                std::ptr::from_mut(&mut on).cast(),
            )
        };
    }

    fn pragma(&self, name: &str) -> Result<i64> {
        self.conn
            .query_row(&format!("PRAGMA {name}"), [], |r| r.get(0))
            .map_err(failure(&self.path))
    }

    fn check_identity(&self) -> Result<()> {
        if self.pragma("application_id")? != i64::from(APPLICATION_ID) {
            return Err(Error::corrupt(
                &self.path,
                format!("the file is empty or not warpseek's database; {REBUILD}"),
            ));
        }
        let version = self.pragma("user_version")?;
        if version > i64::from(FORMAT_VERSION) {
            let version = u32::try_from(version).unwrap_or(u32::MAX);
            return Err(Error::corrupt(&self.path, newer_version(version)));
        }
        Ok(())
    }

    /// Runs `work` in a transaction that is durable when this returns without an error.
    pub(super) fn transaction(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let run = |sql: &str| self.conn.execute_batch(sql).map_err(self.failure());
        run("BEGIN IMMEDIATE")?;
        let outcome = work().and_then(|()| run("COMMIT"));
        if outcome.is_err() {
            // A failed commit may have ended the transaction already.
            let _ = run("ROLLBACK");
        }
        outcome
    }

    /// Moves the write-ahead log into the database, as far as open readers allow, without waiting for
    /// them. Returns whether all of it went.
    pub(super) fn checkpoint(&self) -> Result<bool> {
        self.conn
            .execute_batch("PRAGMA busy_timeout = 0")
            .and_then(|()| {
                self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get::<_, i64>(0))
            })
            .map(|busy| busy == 0)
            .map_err(self.failure())
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
            has_prefilter: self.pragma("user_version")? >= i64::from(PREFILTER_VERSION),
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
        // Part of the transaction, as everything else in the database.
        let version = if state.has_prefilter { FORMAT_VERSION } else { PREFILTER_VERSION - 1 };
        self.conn.pragma_update(None, "user_version", version).map_err(self.failure())
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
            // Our statements are fixed, and everything else is bound: where one does not fit, tables or
            // values are not what this version wrote.
            rusqlite::Error::SqliteFailure(e, Some(_)) if e.code == ErrorCode::Unknown => {
                tracing::debug!("{source}");
                Error::corrupt(
                    path,
                    format!(
                        "the database is damaged (a table or a value is not as written); {REBUILD}"
                    ),
                )
            }
            rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..) => {
                Error::corrupt(path, format!("the database is damaged ({source}); {REBUILD}"))
            }
            rusqlite::Error::SqliteFailure(e, _) if e.code == ErrorCode::DiskFull => {
                Error::io("write", path)(std::io::ErrorKind::StorageFull.into())
            }
            _ => Error::Database { path, reason: source.to_string() },
        }
    }
}

/// The database's path, if it is there.
fn existing(dir: &Path) -> Result<PathBuf> {
    let path = dir.join(DOCUMENTS_FILE);
    if path.try_exists().map_err(Error::io("read", &path))? {
        return Ok(path);
    }
    Err(Error::corrupt(path, format!("the file is missing; {REBUILD}")))
}

/// A SQLite URI for a path: absolute, with everything escaped that means something in a URI.
fn file_uri(path: &Path, immutable: bool) -> Result<String> {
    let path = std::path::absolute(path).map_err(Error::io("read", path))?;
    let mut uri = String::from("file://");
    if cfg!(windows) {
        uri.push('/');
    }
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'\\' if cfg!(windows) => uri.push('/'),
            b'/' | b':' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            _ if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    if immutable {
        uri.push_str("?immutable=1");
    }
    Ok(uri)
}

/// Whether the file system itself takes no writes from anyone.
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
