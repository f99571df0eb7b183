//! Checksums of the pages of the document database.
//!
//! SQLite has none of its own: a page that changed on the disk is used as it is, if it still looks
//! like a page. [`VFS`] is a layer between SQLite and the system's files. It writes a checksum into
//! the last [`RESERVED`] bytes of every page of the database file, which SQLite leaves free, and
//! compares it when the page is read. The write-ahead log has checksums by SQLite.
//!
//! The checksum is XXH3-64 of the other bytes, with the page's number as seed, so that a page in
//! the place of another is noticed too. A database without reserved bytes (of an earlier version)
//! is read and written as it is. Interfaces: <https://sqlite.org/vfs.html>, and
//! <https://sqlite.org/fileformat.html> for the header.

use rusqlite::Connection;
use rusqlite::ffi::*;
use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Name of the layer, for opening a database.
pub(super) const VFS: &CStr = c"warpseek";

/// Bytes at the end of each page that hold its checksum.
const RESERVED: usize = 8;

/// Bytes of the database's header with all that is read here.
const HEADER_LEN: usize = 24;

thread_local! {
    static DAMAGED_PAGE: Cell<i64> = const { Cell::new(0) };
}

/// Number of the last page, from 1 on, whose checksum differed when this thread read it.
pub(super) fn damaged_page() -> i64 {
    DAMAGED_PAGE.get()
}

/// Registers [`VFS`], once per process.
pub(super) fn register() -> rusqlite::Result<()> {
    static CODE: OnceLock<c_int> = OnceLock::new();
    let code = *CODE.get_or_init(|| {
        // SAFETY: the system's VFS is never unregistered, and the copy is never freed, as SQLite
        // requires. `sqlite3_vfs_find` initializes SQLite.
        unsafe {
            let system = sqlite3_vfs_find(std::ptr::null());
            if system.is_null() {
                return SQLITE_ERROR;
            }
            let vfs = sqlite3_vfs {
                szOsFile: (SYSTEM_FILE_AT as c_int).saturating_add((*system).szOsFile),
                pNext: null_mut(),
                zName: VFS.as_ptr(),
                xOpen: Some(open),
                ..*system
            };
            sqlite3_vfs_register(Box::into_raw(Box::new(vfs)), 0)
        }
    });
    match code {
        SQLITE_OK => Ok(()),
        code => Err(rusqlite::Error::SqliteFailure(Error::new(code), None)),
    }
}

/// Reserves room for checksums in a database without pages; in any other one, with the next
/// `VACUUM`.
pub(super) fn reserve(conn: &Connection) -> rusqlite::Result<()> {
    let mut n = RESERVED as c_int;
    control(conn, SQLITE_FCNTL_RESERVE_BYTES, (&raw mut n).cast())
}

/// True if the pages in the database file have checksums.
pub(super) fn are_used(conn: &Connection) -> rusqlite::Result<bool> {
    let mut file: *mut sqlite3_file = null_mut();
    control(conn, SQLITE_FCNTL_FILE_POINTER, (&raw mut file).cast())?;
    // SAFETY: the file stays open as long as the connection; with these methods it is ours.
    unsafe {
        let is_ours = file.as_ref().is_some_and(|file| std::ptr::eq(file.pMethods, &METHODS));
        Ok(is_ours && (*file.cast::<PageFile>()).has_checksums)
    }
}

/// An operation on the database file. `value` is what SQLite documents for it.
fn control(conn: &Connection, operation: c_int, value: *mut c_void) -> rusqlite::Result<()> {
    // SAFETY: the connection is open, and both operations above write what they got a pointer to.
    match unsafe { sqlite3_file_control(conn.handle(), c"main".as_ptr(), operation, value) } {
        SQLITE_OK => Ok(()),
        code => Err(rusqlite::Error::SqliteFailure(Error::new(code), None)),
    }
}

/// The database file, as SQLite sees it. The system's own file lies [`SYSTEM_FILE_AT`] bytes behind
/// its start.
#[repr(C)]
struct PageFile {
    base: sqlite3_file,
    /// True if the pages have checksums.
    has_checksums: bool,
}

/// Offset of the system's file, a multiple of the largest alignment that it could need.
const SYSTEM_FILE_AT: usize = size_of::<PageFile>().next_multiple_of(16);

/// The system's file behind the one that SQLite sees.
///
/// # Safety
///
/// `file` was allocated by SQLite for this VFS.
unsafe fn system_file(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: SQLite allocates `szOsFile` bytes, of which the first are ours.
    unsafe { file.byte_add(SYSTEM_FILE_AT) }
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes valid pointers, and `szOsFile` bytes at `file`. A file of another kind
    // than the database's is the system's alone, which needs fewer.
    unsafe {
        let system = sqlite3_vfs_find(std::ptr::null());
        let Some(open) = system.as_ref().and_then(|system| system.xOpen) else {
            return SQLITE_CANTOPEN;
        };
        if flags & SQLITE_OPEN_MAIN_DB == 0 {
            return open(system, name, file, flags, out_flags);
        }
        (*file).pMethods = std::ptr::null();
        let inner = system_file(file);
        (*inner).pMethods = std::ptr::null();
        let code = open(system, name, inner, flags, out_flags);
        if code != SQLITE_OK {
            if !(*inner).pMethods.is_null() {
                close(file);
            }
            return code;
        }
        let mut header = [0; HEADER_LEN];
        let read = read_system(inner, header.as_mut_ptr().cast(), HEADER_LEN as c_int, 0);
        let has_checksums = read == SQLITE_OK && reserves_bytes(&header);
        file.cast::<PageFile>()
            .write(PageFile { base: sqlite3_file { pMethods: &METHODS }, has_checksums });
        SQLITE_OK
    }
}

/// True if the header of a database says that its pages have room for checksums.
fn reserves_bytes(header: &[u8]) -> bool {
    header.starts_with(b"SQLite format 3\0") && header.get(20) == Some(&(RESERVED as u8))
}

/// The number, from 1 on, of the page that `len` bytes at `at` are; `None` if they are not a page.
fn page_number(len: c_int, at: sqlite3_int64) -> Option<i64> {
    let is_page = (512..=65_536).contains(&len) && (len & (len - 1)) == 0;
    (is_page && at % i64::from(len) == 0).then(|| at / i64::from(len) + 1)
}

/// The checksum of a page; its last bytes do not count.
fn checksum(page: &[u8], number: i64) -> [u8; RESERVED] {
    let content = &page[..page.len() - RESERVED];
    xxh3_64_with_seed(content, number.cast_unsigned()).to_le_bytes()
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    buffer: *mut c_void,
    len: c_int,
    at: sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite passes a file of ours and `len` bytes of room, which were just written.
    unsafe {
        let code = read_system(system_file(file), buffer, len, at);
        if code != SQLITE_OK {
            return code;
        }
        let bytes = std::slice::from_raw_parts(buffer.cast::<u8>(), len as usize);
        let ours = &mut *file.cast::<PageFile>();
        if at == 0 && bytes.len() >= HEADER_LEN {
            ours.has_checksums = reserves_bytes(bytes);
        }
        let Some(number) = page_number(len, at).filter(|_| ours.has_checksums) else {
            return SQLITE_OK;
        };
        if bytes.ends_with(&checksum(bytes, number)) {
            return SQLITE_OK;
        }
        DAMAGED_PAGE.set(number);
        SQLITE_IOERR_DATA
    }
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    buffer: *const c_void,
    len: c_int,
    at: sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite passes a file of ours and `len` bytes.
    unsafe {
        let inner = system_file(file);
        let Some(write) = (*(*inner).pMethods).xWrite else { return SQLITE_IOERR_WRITE };
        let bytes = std::slice::from_raw_parts(buffer.cast::<u8>(), len as usize);
        let ours = &mut *file.cast::<PageFile>();
        if at == 0 && bytes.len() >= HEADER_LEN {
            ours.has_checksums = reserves_bytes(bytes);
        }
        let Some(number) = page_number(len, at).filter(|_| ours.has_checksums) else {
            return write(inner, buffer, len, at);
        };
        // The buffer may be a page of SQLite's cache, which is not ours to change.
        let mut page = bytes.to_vec();
        let end = page.len() - RESERVED;
        page[end..].copy_from_slice(&checksum(bytes, number));
        write(inner, page.as_ptr().cast(), len, at)
    }
}

/// Reads from the system's file.
///
/// # Safety
///
/// The file is open, and `buffer` has room for `len` bytes.
unsafe fn read_system(
    inner: *mut sqlite3_file,
    buffer: *mut c_void,
    len: c_int,
    at: sqlite3_int64,
) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        let Some(read) = (*(*inner).pMethods).xRead else { return SQLITE_IOERR_READ };
        read(inner, buffer, len, at)
    }
}

/// Methods that are the system's, called with its file.
macro_rules! methods_of_the_system {
    ($($name:ident = $method:ident($($argument:ident: $type:ty),*);)*) => {$(
        unsafe extern "C" fn $name(file: *mut sqlite3_file $(, $argument: $type)*) -> c_int {
            // SAFETY: SQLite passes an open file of ours, and what the system's method expects.
            unsafe {
                let inner = system_file(file);
                let Some(method) = (*(*inner).pMethods).$method else { return SQLITE_IOERR };
                method(inner $(, $argument)*)
            }
        }
    )*};
}

methods_of_the_system! {
    close = xClose();
    truncate = xTruncate(len: sqlite3_int64);
    sync = xSync(flags: c_int);
    file_size = xFileSize(len: *mut sqlite3_int64);
    lock = xLock(level: c_int);
    unlock = xUnlock(level: c_int);
    check_reserved_lock = xCheckReservedLock(out: *mut c_int);
    file_control = xFileControl(operation: c_int, argument: *mut c_void);
    sector_size = xSectorSize();
    characteristics_of_the_system = xDeviceCharacteristics();
    shm_map = xShmMap(region: c_int, len: c_int, extend: c_int, out: *mut *mut c_void);
    shm_lock = xShmLock(offset: c_int, n: c_int, flags: c_int);
    shm_unmap = xShmUnmap(delete: c_int);
}

unsafe extern "C" fn device_characteristics(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite passes an open file of ours.
    let all = unsafe { characteristics_of_the_system(file) };
    // A part of a page cannot be compared.
    all & !SQLITE_IOCAP_SUBPAGE_READ
}

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    // SAFETY: SQLite passes an open file of ours.
    unsafe {
        let inner = system_file(file);
        if let Some(barrier) = (*(*inner).pMethods).xShmBarrier {
            barrier(inner);
        }
    }
}

/// The methods of the database file. Version 2 has no mapping of pages: each is read, and checked.
static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Place;
    use crate::store::{Index, IndexManifest, IndexWriter};
    use std::path::Path;
    use warpseek_ingest::Document;
    use warpseek_ingest::chunk::{Chunk, Chunking};

    fn put(writer: &mut IndexWriter, id: &str) {
        let document = Document::new(id, "text ".repeat(5_000), Place::default());
        let chunk = Chunk { range: 0..5, tokens: 1, tokens_lost: 0 };
        writer.put(document, vec![chunk], &[1.0, 0.0]).unwrap();
        writer.commit().unwrap();
    }

    /// Reserved bytes and format version in the header of a database file.
    fn header(path: &Path) -> (u8, u32) {
        let bytes = std::fs::read(path).unwrap();
        (bytes[20], u32::from_be_bytes(bytes[60..64].try_into().unwrap()))
    }

    /// Copies the tables of a database into one without checksums, in its place.
    fn make_earlier(path: &Path) {
        let copy = path.with_extension("copy");
        let conn = Connection::open(&copy).unwrap();
        conn.execute("ATTACH ?1 AS new", [path.to_str().unwrap()]).unwrap();
        let names = |column: &str, condition: &str| -> Vec<String> {
            let sql = format!(
                "SELECT {column} FROM new.sqlite_schema
                 WHERE name NOT LIKE 'sqlite_%' AND {condition}"
            );
            let mut statement = conn.prepare(&sql).unwrap();
            let names = statement.query_map([], |r| r.get(0)).unwrap();
            names.map(|name| name.unwrap()).collect()
        };
        for sql in names("sql", "name NOT LIKE 'lexical_%'") {
            conn.execute_batch(&sql).unwrap();
        }
        for name in names("name", "type = 'table' AND name <> 'lexical'") {
            let sql = format!("DELETE FROM {name}; INSERT INTO {name} SELECT * FROM new.{name};");
            conn.execute_batch(&sql).unwrap();
        }
        let id: i64 = conn.query_row("PRAGMA new.application_id", [], |r| r.get(0)).unwrap();
        conn.pragma_update(None, "application_id", id).unwrap();
        conn.pragma_update(None, "user_version", 2).unwrap();
        conn.execute("DELETE FROM main.state WHERE name = 'has_int8'", []).unwrap();
        drop(conn);
        std::fs::rename(copy, path).unwrap();
    }

    #[test]
    fn a_page_is_compared_when_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = IndexManifest::new(2, None, Chunking::default());
        put(&mut IndexWriter::open_or_create(dir.path(), &manifest).unwrap(), "a");
        let path = dir.path().join("documents.db");
        assert_eq!(header(&path), (8, 3));
        let good = std::fs::read(&path).unwrap();
        let len = u16::from_be_bytes([good[16], good[17]]) as usize;
        let error = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let read = Index::open(dir.path()).and_then(|index| index.rows(&[0]).map(drop));
            let verify = |()| crate::store::verify(dir.path());
            match read.and_then(verify) {
                Err(error) => (error.exit_code(), error.to_string()),
                Ok(findings) => {
                    let problem = findings.into_iter().find_map(|finding| finding.problem);
                    (5, problem.unwrap())
                }
            }
        };
        let mut messages = Vec::new();
        for page in 0..good.len() / len {
            let mut bytes = good.clone();
            bytes[page * len + 200] ^= 1;
            let (status, message) = error(&bytes);
            assert_eq!(status, 5, "{message}");
            messages.push(message);
        }
        let named = |page: usize| format!("the checksum of page {page} differs");
        assert!(
            messages.iter().enumerate().all(|(i, m)| m.contains(&named(i + 1))),
            "{messages:#?}"
        );
        // A page in the place of another.
        let mut bytes = good.clone();
        bytes.copy_within(2 * len..3 * len, 4 * len);
        assert!(error(&bytes).1.contains(&named(5)));
        // The header no longer says that there are checksums.
        let mut bytes = good.clone();
        bytes[20] = 0;
        assert_eq!(error(&bytes).0, 5);
    }

    #[test]
    fn compaction_adds_checksums_to_the_database_of_an_earlier_version() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = IndexManifest::new(2, None, Chunking::default());
        put(&mut IndexWriter::open_or_create(dir.path(), &manifest).unwrap(), "a");
        let path = dir.path().join("documents.db");
        make_earlier(&path);
        assert_eq!(header(&path), (0, 2));
        let mut writer = IndexWriter::open(dir.path()).unwrap();
        put(&mut writer, "b");
        drop(writer);
        assert_eq!(header(&path), (0, 2));
        let reader = Index::open(dir.path()).unwrap();
        assert!(!IndexWriter::open(dir.path()).unwrap().compact().unwrap().space_returned);
        assert_eq!(header(&path), (0, 2));
        drop(reader);
        assert!(IndexWriter::open(dir.path()).unwrap().compact().unwrap().space_returned);
        assert_eq!(header(&path), (8, 3));
        let index = Index::open(dir.path()).unwrap();
        assert_eq!(index.rows(&[0, 1]).unwrap().len(), 2);
        let findings = crate::store::verify(dir.path()).unwrap();
        assert!(findings.iter().all(|finding| finding.problem.is_none()), "{findings:#?}");
    }
}
