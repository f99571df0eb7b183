//! The document database: SQLite with texts, metadata, the lexical index, and the committed state.
//!
//! [`Database`] maps every error of SQLite to [`Error`], and separates damage from other failures.
//! The tables are in `schema.sql`.

use super::commit_number;
use super::filter::functions;
use super::folder::{COMMITS_FILE, DATABASE_FILE, remove_if_present, write_denied};
use super::format::{DATABASE_VERSION, INT8_VERSION, REBUILD, newer_version};
use super::page_checksums;
use super::unlocked::{CheckpointLock, UnlockedDatabase, log_of};
use crate::error::{Error, Result};
use rusqlite::config::DbConfig;
use rusqlite::ffi::SQLITE_IOERR_DATA;
use rusqlite::types::FromSql;
use rusqlite::{Connection, ErrorCode, OpenFlags, Params};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// The tables of the database of an index without a language.
pub(super) const SCHEMA: &str = include_str!("schema.sql");

/// Marks a SQLite file as warpseek's: "wsek".
const APPLICATION_ID: i64 = 0x7773_656b;

/// Length of the write-ahead log from which a commit moves its pages to the database file; in
/// bytes.
pub(super) const MAX_LOG: u64 = 4 << 20;

/// Operations of SQLite between two looks at whether a statement is to end.
const OPERATIONS_PER_CHECK: i32 = 2_000;

/// Tells a computation to end: it returns true when nobody waits any more.
pub type Stop = Arc<dyn Fn() -> bool + Send + Sync>;

/// An open database.
#[derive(Debug)]
pub(super) struct Database {
    conn: Connection,
    /// Path of the database file.
    pub(super) path: PathBuf,
    /// True for the one writer, which alone makes checkpoints.
    is_writer: bool,
    /// The lock or the copy of a reader that cannot take SQLite's own locks. Dropped after the
    /// connection.
    unlocked: Option<UnlockedDatabase>,
}

/// State of the index as of the last commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CommitState {
    pub(super) generation: u64,
    /// Committed rows, deleted ones included.
    pub(super) n_rows: u64,
    /// XXH3-64 of `manifest.json`.
    pub(super) manifest_hash: u64,
    /// True if the generation has an int8 copy.
    pub(super) has_int8: bool,
}

impl Database {
    /// Creates a database with the tables of `schema` in `dir`, in place of one whose creation was
    /// interrupted.
    pub(super) fn create(
        dir: &Path,
        schema: &str,
        state: CommitState,
        manifest: &[u8],
    ) -> Result<Self> {
        remove_if_present(&dir.join(COMMITS_FILE))?;
        for suffix in ["", "-wal", "-shm"] {
            remove_if_present(&dir.join(format!("{DATABASE_FILE}{suffix}")))?;
        }
        let this = Self::connect(dir, OpenFlags::SQLITE_OPEN_CREATE)?;
        this.run(page_checksums::reserve)?;
        let this = this.into_writer()?;
        this.commit(state, |conn| {
            conn.pragma_update(None, "application_id", APPLICATION_ID)?;
            conn.execute_batch(schema)?;
            conn.execute("INSERT INTO manifest (json) VALUES (?1)", [manifest]).map(drop)
        })?;
        Ok(this)
    }

    /// Opens the database of `dir` for the one writer.
    pub(super) fn open_writer(dir: &Path) -> Result<Self> {
        let finished = commit_number::read(dir);
        let this = Self::connect(dir, OpenFlags::empty())?;
        if this.run(|conn| conn.is_readonly(rusqlite::MAIN_DB))? {
            return Err(write_denied(dir, &ErrorKind::PermissionDenied.into()));
        }
        this.check_identity()?;
        commit_number::check(dir, this.commit_number()?, finished)?;
        this.into_writer()
    }

    /// Opens the database of `dir` for reading, in a transaction: later commits stay invisible.
    pub(super) fn open_reader(dir: &Path) -> Result<Self> {
        let refused =
            |r: &Result<Self>| matches!(r, Err(Error::Database { .. } | Error::Io { .. }));
        let open = || {
            let finished = commit_number::read(dir);
            let result = Self::connect(dir, OpenFlags::empty()).and_then(|c| c.begin(finished));
            // This process may not write to the folder, and the files that SQLite shares between
            // readers and the writer are missing.
            if refused(&result) { Self::open_unlocked(dir) } else { result }
        };
        let result = open();
        // A writer that began in the meantime has left what the first attempt missed.
        if refused(&result) { open() } else { result }
    }

    /// Opens the database of `dir` for reading without SQLite's locks.
    fn open_unlocked(dir: &Path) -> Result<Self> {
        let path = dir.join(DATABASE_FILE);
        let finished = commit_number::read(dir);
        let unlocked = UnlockedDatabase::prepare(dir)?;
        let conn = match &unlocked {
            UnlockedDatabase::InPlace { .. } => {
                let uri = immutable_uri(&absolute(&path)?);
                open_file(uri.as_ref(), OpenFlags::SQLITE_OPEN_READ_ONLY, &path)
            }
            UnlockedDatabase::Copy(folder) => {
                let copy = folder.path().join(DATABASE_FILE);
                open_file(&copy, OpenFlags::SQLITE_OPEN_READ_WRITE, &path)
            }
        };
        Self { conn: conn?, path, is_writer: false, unlocked: Some(unlocked) }.begin(finished)
    }

    /// Begins the reader's transaction. `finished` is the number of a commit that the reader must
    /// see.
    fn begin(self, finished: u64) -> Result<Self> {
        // A checkpoint would change the database file; that is the writer's part.
        self.run(|conn| conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true))?;
        self.check_identity()?;
        self.run(|conn| {
            conn.execute_batch("PRAGMA query_only = 1; PRAGMA busy_timeout = 10000; BEGIN;")
        })?;
        // The transaction's snapshot starts with the first read.
        commit_number::check(self.dir(), self.commit_number()?, finished)?;
        Ok(self)
    }

    /// True if a row was ever committed to the database of `dir`, whose creation may have been
    /// interrupted. `None` if the database is not warpseek's.
    pub(super) fn ever_had_rows(dir: &Path) -> Result<Option<bool>> {
        let this = Self::connect(dir, OpenFlags::empty())?;
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
            has_int8: match self.number::<i64>("PRAGMA user_version")? {
                version if version < i64::from(DATABASE_VERSION) => {
                    version >= i64::from(INT8_VERSION)
                }
                _ => value("has_int8")? != 0,
            },
        })
    }

    /// The stored checksum of the documents of a shard; `None` in any other index.
    pub(super) fn content(&self) -> Result<Option<u64>> {
        let sql = "SELECT value FROM state WHERE name = 'content'";
        let found: Vec<i64> = self.collect(sql, [], |r| r.get(0))?;
        Ok(found.first().map(|value| value.cast_unsigned()))
    }

    /// XXH3-64 of the hashes of all live documents, in the order of their numbers.
    pub(super) fn hash_documents(&self) -> Result<u64> {
        let mut hasher = Xxh3::default();
        self.for_each("SELECT hash FROM document WHERE dead = 0 ORDER BY seq", [], |r| {
            hasher.update(r.get_ref(0)?.as_bytes().unwrap_or_default());
            Ok(())
        })?;
        Ok(hasher.digest())
    }

    /// True for a reader without SQLite's own locks.
    pub(super) fn is_unlocked(&self) -> bool {
        self.unlocked.is_some()
    }

    /// Does work whose statements end with [`Error::Interrupted`] when `stop` returns true.
    pub(super) fn until<T>(
        &mut self,
        stop: Option<&Stop>,
        work: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<T> {
        let Some(stop) = stop else { return work(self) };
        let stop = Arc::clone(stop);
        let set = self.conn.progress_handler(OPERATIONS_PER_CHECK, Some(move || stop()));
        set.map_err(sqlite_error(&self.path))?;
        let outcome = work(self);
        let cleared = self.conn.progress_handler(OPERATIONS_PER_CHECK, None::<fn() -> bool>);
        cleared.map_err(sqlite_error(&self.path))?;
        outcome
    }

    /// The number of the last commit; 0 if only versions without numbers wrote to the database.
    pub(super) fn commit_number(&self) -> Result<u64> {
        let sql = "SELECT coalesce(max(value), 0) FROM state WHERE name = 'commits'";
        self.number::<i64>(sql).map(i64::cast_unsigned)
    }

    /// Runs `work` and stores `state`, in one transaction. It is durable when this returns `Ok`.
    pub(super) fn commit(
        &self,
        state: CommitState,
        work: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> Result<()> {
        let CommitState { generation, n_rows, manifest_hash, has_int8 } = state;
        let number = self.run(|conn| {
            conn.execute_batch("BEGIN IMMEDIATE")?;
            let store = || {
                work(conn)?;
                let mut set =
                    conn.prepare_cached("INSERT OR REPLACE INTO state VALUES (?1, ?2)")?;
                set.execute(("generation", generation.cast_signed()))?;
                set.execute(("n_rows", n_rows.cast_signed()))?;
                set.execute(("manifest_hash", manifest_hash.cast_signed()))?;
                set.execute(("has_int8", has_int8))?;
                let version = match has_int8 {
                    _ if page_checksums::are_used(conn)? => DATABASE_VERSION,
                    true => INT8_VERSION,
                    false => INT8_VERSION - 1,
                };
                // Part of the transaction, as the tables are.
                conn.pragma_update(None, "user_version", version)?;
                let number: i64 = conn.query_row(
                    "INSERT INTO state VALUES ('commits', 1)
                     ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value",
                    [],
                    |r| r.get(0),
                )?;
                conn.execute_batch("COMMIT")?;
                Ok(number.cast_unsigned())
            };
            store().inspect_err(|_| {
                // A failed COMMIT may have ended the transaction already.
                let _ = conn.execute_batch("ROLLBACK");
            })
        })?;
        commit_number::write(self.dir(), number);
        if self.log_len() >= MAX_LOG {
            self.move_log();
        }
        Ok(())
    }

    /// Length of the write-ahead log, in bytes.
    pub(super) fn log_len(&self) -> u64 {
        std::fs::metadata(log_of(self.dir())).map_or(0, |log| log.len())
    }

    /// Moves pages from the write-ahead log to the database file, as far as readers allow. True if
    /// all were moved: readers that begin from then on do not use the log, and when no reader does,
    /// the next commit starts it anew.
    pub(super) fn move_log(&self) -> bool {
        let moved = |(_, log, moved): (i64, i64, i64)| log == moved;
        self.checkpoint("PASSIVE").is_some_and(moved)
    }

    /// Shrinks the database file, gives its pages checksums and empties the write-ahead log.
    /// Returns false if open readers or the disk prevent it; does not wait for them.
    pub(super) fn return_space(&self) -> bool {
        // What VACUUM writes would only make the log longer.
        let is_free = CheckpointLock::try_take(self.dir()).is_some();
        let vacuum = || {
            page_checksums::reserve(&self.conn)?;
            self.conn.execute_batch("VACUUM")
        };
        is_free && vacuum().is_ok() && self.empty_log()
    }

    /// True if the pages of the database file have checksums.
    pub(super) fn has_page_checksums(&self) -> Result<bool> {
        self.run(page_checksums::are_used)
    }

    /// Moves all pages from the write-ahead log to the database file and empties the log. Returns
    /// false if readers do not allow it; does not wait for them.
    fn empty_log(&self) -> bool {
        self.checkpoint("TRUNCATE").is_some_and(|(busy, ..)| busy == 0)
    }

    /// Makes a checkpoint. Returns what SQLite does: 1 if it was kept from it, the pages of the
    /// log, and those that were moved.
    fn checkpoint(&self, mode: &str) -> Option<(i64, i64, i64)> {
        // Nothing is lost if this fails: the log keeps the pages.
        let _lock = CheckpointLock::try_take(self.dir())?;
        let checkpoint = || {
            self.conn.execute_batch("PRAGMA busy_timeout = 0")?;
            let sql = format!("PRAGMA wal_checkpoint({mode})");
            let outcome = self.conn.query_row(&sql, [], |r| r.try_into());
            self.conn.execute_batch("PRAGMA busy_timeout = 10000")?;
            outcome
        };
        checkpoint().ok()
    }

    /// Calls `work` with SQLite's connection.
    pub(super) fn run<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let result = work(&self.conn).map_err(sqlite_error(&self.path));
        if let Some(unlocked) = &self.unlocked {
            unlocked.check_unchanged()?;
        }
        result
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

    /// Opens the file for reading and writing, or for reading if the system allows no more.
    fn connect(dir: &Path, flags: OpenFlags) -> Result<Self> {
        let path = dir.join(DATABASE_FILE);
        let exists = path.try_exists().map_err(Error::io("read", &path))?;
        if !exists && !flags.contains(OpenFlags::SQLITE_OPEN_CREATE) {
            return Err(Error::corrupt(path, format!("the file is missing; {REBUILD}")));
        }
        let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE;
        let conn = open_file(&absolute(&path)?, flags, &path)?;
        Ok(Self { conn, path, is_writer: false, unlocked: None })
    }

    /// Makes this the connection of the one writer.
    fn into_writer(mut self) -> Result<Self> {
        self.run(|conn| {
            // Checkpoints are made in `checkpoint` alone. The log and its shared memory stay when
            // the last connection closes: readers that may not write to the folder need them.
            conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            conn.execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = 0;
                 PRAGMA cache_size = -65536; PRAGMA journal_size_limit = 0;
                 PRAGMA wal_autocheckpoint = 0; PRAGMA busy_timeout = 10000;",
            )
        })?;
        self.is_writer = true;
        Ok(self)
    }

    /// The index folder.
    fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    fn check_identity(&self) -> Result<()> {
        if self.number::<i64>("PRAGMA application_id")? != APPLICATION_ID {
            return Err(Error::corrupt(
                &self.path,
                format!("the file is empty or not warpseek's database; {REBUILD}"),
            ));
        }
        let version = self.number::<i64>("PRAGMA user_version")?;
        let newest = i64::from(DATABASE_VERSION);
        if version > newest {
            let version = u32::try_from(version).unwrap_or(u32::MAX);
            return Err(Error::corrupt(&self.path, newer_version(version, DATABASE_VERSION)));
        }
        if version == newest && !self.has_page_checksums()? {
            let reason = format!("the database is damaged (its header); {REBUILD}");
            return Err(Error::corrupt(&self.path, reason));
        }
        Ok(())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.is_writer {
            self.empty_log();
        }
    }
}

/// Opens the file at a path or URI; `path` is its name in errors.
fn open_file(location: &Path, flags: OpenFlags, path: &Path) -> Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        page_checksums::register()?;
        let conn = Connection::open_with_flags_and_vfs(location, flags, page_checksums::VFS)?;
        functions::register(&conn)?;
        Ok(conn)
    };
    open().map_err(sqlite_error(path))
}

/// The full path. A relative one could be taken for a URI.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(Error::io("read", path))
}

/// Maps a SQLite error about `path` to [`Error`]; for `map_err`.
fn sqlite_error(path: &Path) -> impl Fn(rusqlite::Error) -> Error + '_ {
    use rusqlite::Error as Sqlite;
    let damaged = move |reason: &str| {
        Error::corrupt(path, format!("the database is damaged ({reason}); {REBUILD}"))
    };
    let is_page = |e: &rusqlite::ffi::Error| e.extended_code == SQLITE_IOERR_DATA;
    move |source| match (source.sqlite_error_code(), &source) {
        _ if source.sqlite_error().is_some_and(is_page) => {
            let page = page_checksums::damaged_page();
            damaged(&format!("the checksum of page {page} differs"))
        }
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
        (Some(ErrorCode::OperationInterrupted), _) => {
            Error::Interrupted("the database was not read to the end".to_owned())
        }
        (Some(ErrorCode::DiskFull), _) => Error::io("write", path)(io::Error::new(
            ErrorKind::StorageFull,
            "the disk is full: free some space on it, then try again",
        )),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Place;
    use crate::store::{IndexManifest, IndexWriter};
    use warpseek_ingest::Document;
    use warpseek_ingest::chunk::{Chunk, Chunking};

    /// Replaces the one document by a text of 3 MB, in one commit.
    fn commit_round(writer: &mut IndexWriter, round: usize) {
        let text = format!("round {round} ").repeat(300_000);
        let document = Document::new("d", text, Place::default());
        let chunk = Chunk { range: 0..document.text.len(), tokens: 0, tokens_lost: 0 };
        writer.put(document, vec![chunk], &[1.0, 0.0]).unwrap();
        writer.commit().unwrap();
    }

    /// A closed index with the first round.
    fn new_index() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let manifest = IndexManifest::new(2, None, Chunking::default());
        let mut writer = IndexWriter::open_or_create(dir.path(), &manifest).unwrap();
        commit_round(&mut writer, 0);
        dir
    }

    fn round_of(database: &Database) -> String {
        let sql = "SELECT text FROM document WHERE dead = 0";
        let texts: Vec<String> = database.collect(sql, [], |r| r.get(0)).unwrap();
        assert!(database.number::<String>("PRAGMA integrity_check").unwrap() == "ok");
        texts.concat()[..7].to_owned()
    }

    #[cfg(unix)]
    #[test]
    fn reader_without_locks_keeps_its_state_and_the_writer_goes_on() {
        let dir = new_index();
        let dir = dir.path();
        let log = || std::fs::metadata(log_of(dir)).unwrap().len();
        assert_eq!(log(), 0);

        let reader = Database::open_unlocked(dir).unwrap();
        assert!(matches!(reader.unlocked, Some(UnlockedDatabase::InPlace { .. })));
        let mut writer = IndexWriter::open(dir).unwrap();
        for round in 1..4 {
            commit_round(&mut writer, round);
            assert_eq!(round_of(&reader), "round 0");
        }
        // The commits are in the log alone, and a second reader finds them there.
        let copied = Database::open_unlocked(dir).unwrap();
        assert!(matches!(copied.unlocked, Some(UnlockedDatabase::Copy(_))));
        assert_eq!(round_of(&copied), "round 3");
        assert_eq!(round_of(&Database::open_reader(dir).unwrap()), "round 3");
        assert!(!writer.compact().unwrap().space_returned);
        assert_eq!(round_of(&reader), "round 0");
        assert!(log() > 9 << 20);
        drop(reader);
        assert_eq!(round_of(&copied), "round 3");
        drop(IndexWriter::open(dir).unwrap());
        assert_eq!(log(), 0);
        assert_eq!(round_of(&Database::open_unlocked(dir).unwrap()), "round 3");
    }

    #[cfg(unix)]
    #[test]
    fn reader_without_locks_notices_a_program_that_does_not_know_it() {
        let dir = new_index();
        let dir = dir.path();
        let reader = Database::open_unlocked(dir).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        // This connection makes a checkpoint when it is closed.
        let other = Connection::open(dir.join(DATABASE_FILE)).unwrap();
        other.execute_batch("UPDATE document SET title = 'changed'").unwrap();
        assert_eq!(round_of(&reader), "round 0");
        drop(other);
        let error = reader.number::<i64>("SELECT count(*) FROM document").unwrap_err();
        assert!(error.to_string().contains("another program changed the file"), "{error}");
    }
}
