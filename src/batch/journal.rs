//! Journal: the unfinished output of a batch.

use super::format::{BatchAnswer, BatchFormat, convert};
use crate::error::{Error, Place, Result};
use crate::output::{OutputFile, check_target, open_locked};
use crate::queries::Query;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The file `OUT.partial`: a first line with the run's fingerprint, then one line per answered
/// query with the query's hash, a blank, and the answer.
pub(super) struct Journal {
    out: PathBuf,
    pub(super) path: PathBuf,
    writer: BufWriter<File>,
    /// Bytes of complete lines of an earlier run, its first line included.
    earlier_len: u64,
    header_len: u64,
}

/// A line of the journal.
pub(super) struct Entry {
    /// The hash of the query.
    pub(super) query: u64,
    pub(super) answer: BatchAnswer,
}

/// Bytes of a hash in hexadecimal and the blank after it.
const HASH_LEN: usize = 17;

/// Bytes of the journal that are read or written at once.
const BUFFER: usize = 1 << 18;

const HEADER_KEY: &str = "warpseek_batch";

impl Journal {
    /// Opens the journal of `out`, or starts one. The answers of an earlier run are kept if its
    /// fingerprint is the same. An incomplete last line is cut off.
    pub(super) fn open(out: &Path, fingerprint: &str, restart: bool) -> Result<Self> {
        let out = &check_target(out)?;
        let mut name = out.as_os_str().to_owned();
        name.push(".partial");
        let path = PathBuf::from(name);
        let header = format!("{}\n", serde_json::json!({ HEADER_KEY: fingerprint }));
        let (mut file, is_locked) = open_locked(&path, "create")?;
        if !is_locked {
            return Err(Error::Locked { path, holder: None });
        }
        let mut earlier_len = earlier_length(&file, &path, &header, restart)?;
        if earlier_len == header.len() as u64 {
            // A journal without answers counts as no earlier run.
            earlier_len = 0;
        }
        file.set_len(earlier_len)
            .and_then(|()| file.seek(SeekFrom::End(0)))
            .map_err(Error::io("write", &path))?;
        let mut journal = Self {
            out: out.to_path_buf(),
            path,
            writer: BufWriter::with_capacity(BUFFER, file),
            earlier_len,
            header_len: header.len() as u64,
        };
        if earlier_len == 0 {
            journal.write(header.as_bytes())?;
            journal.flush()?;
        }
        Ok(journal)
    }

    /// The answers of the earlier run.
    pub(super) fn earlier(&self) -> Result<impl Iterator<Item = Result<Entry>> + use<>> {
        let left = self.earlier_len.saturating_sub(self.header_len);
        entries(&self.path, self.header_len, left)
    }

    /// Appends the line of an answer.
    pub(super) fn append(&mut self, line: &[u8]) -> Result<()> {
        self.write(line)
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.writer.flush().map_err(Error::io("write", &self.path))
    }

    /// Writes the finished file and removes the journal.
    pub(super) fn finish(mut self, format: BatchFormat) -> Result<()> {
        self.flush()?;
        let len = std::fs::metadata(&self.path).map_err(Error::io("read", &self.path))?.len();
        let body = len.saturating_sub(self.header_len);
        if format == BatchFormat::Jsonl {
            // The journal holds the lines already, after the hashes.
            let mut out = OutputFile::create(&self.out)?;
            let mut lines = opened(&self.path, self.header_len, body)?;
            let mut line = Vec::new();
            let failed = |e| Error::io("read", &self.path)(e);
            while lines.read_until(b'\n', &mut line).map_err(failed)? > 0 {
                out.put(line.get(HASH_LEN..).unwrap_or_default())?;
                line.clear();
            }
            out.finish()?;
        } else {
            let entries = entries(&self.path, self.header_len, body)?;
            convert(entries.map(|entry| entry.map(|e| e.answer)), &self.out, format)?;
        }
        std::fs::remove_file(&self.path).map_err(Error::io("remove", &self.path))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(Error::io("write", &self.path))
    }
}

/// The journal's line of an answer.
pub(super) fn line_of(query: &Query, answer: &BatchAnswer) -> Result<Vec<u8>> {
    let mut line = format!("{:016x} ", hash_query(query)).into_bytes();
    serde_json::to_writer(&mut line, answer)
        .map_err(|e| Error::Compute { what: "writing an answer", reason: e.to_string() })?;
    line.push(b'\n');
    Ok(line)
}

/// Hash of a query's content.
pub(super) fn hash_query(query: &Query) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    for text in [&query.id, &query.text, query.filter.as_ref().unwrap_or(&String::new())] {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    query.vector.iter().flatten().for_each(|v| hasher.update(&v.to_le_bytes()));
    hasher.digest()
}

/// Bytes of complete lines to keep.
fn earlier_length(file: &File, path: &Path, header: &str, restart: bool) -> Result<u64> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let mut len = 0;
    loop {
        line.clear();
        let n = reader.read_until(b'\n', &mut line).map_err(Error::io("read", path))?;
        if len == 0 && n > 0 && !line.starts_with(format!("{{\"{HEADER_KEY}\"").as_bytes()) {
            return Err(Error::usage(format!(
                "{} is not an unfinished batch: move it, or choose another output file",
                path.display()
            )));
        }
        if restart || n == 0 || line.last() != Some(&b'\n') {
            return Ok(if restart { 0 } else { len });
        }
        if len == 0 && line != header.as_bytes() {
            // Without a complete answer, another first line counts as no earlier run.
            let mut next = Vec::new();
            reader.read_until(b'\n', &mut next).map_err(Error::io("read", path))?;
            if next.last() == Some(&b'\n') {
                return Err(mismatch(path));
            }
            return Ok(0);
        }
        len += n as u64;
    }
}

/// The error for an earlier run of another index, other queries or other options.
pub(super) fn mismatch(path: &Path) -> Error {
    Error::usage(format!(
        "{} is an unfinished batch over another index, other queries or other options: use \
         --restart to discard it, or choose another output file",
        path.display()
    ))
}

/// Opens a part of the journal.
fn opened(path: &Path, start: u64, len: u64) -> Result<impl BufRead + use<>> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    file.seek(SeekFrom::Start(start)).map_err(Error::io("read", path))?;
    Ok(BufReader::with_capacity(BUFFER, file.take(len)))
}

fn entries(
    path: &Path,
    start: u64,
    len: u64,
) -> Result<impl Iterator<Item = Result<Entry>> + use<>> {
    let path = path.to_path_buf();
    Ok(opened(&path, start, len)?.split(b'\n').enumerate().map(move |(i, line)| {
        let line = line.map_err(Error::io("read", &path))?;
        let parse = || {
            let hash = std::str::from_utf8(line.get(..HASH_LEN - 1)?).ok()?;
            let query = u64::from_str_radix(hash, 16).ok()?;
            Some(Entry { query, answer: serde_json::from_slice(line.get(HASH_LEN..)?).ok()? })
        };
        parse().ok_or_else(|| {
            Error::input(
                Place::record(path.display().to_string(), format!("line {}", i + 2)),
                "the unfinished batch is damaged: use --restart to discard it",
            )
        })
    }))
}
