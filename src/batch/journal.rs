//! The unfinished output of a batch.

use super::Answer;
use super::output::{OutputFormat, convert};
use crate::error::{Error, Place, Result};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// `OUT.partial`: a first line with the run's fingerprint, then an answer a line.
pub(super) struct Journal {
    out: PathBuf,
    path: PathBuf,
    writer: BufWriter<File>,
    /// Bytes of complete lines that an earlier run left, its first line included.
    earlier_len: u64,
    header_len: u64,
}

impl Journal {
    /// Opens the journal of `out`, or starts one. What an earlier run left is kept if its
    /// fingerprint is the same; an incomplete last line is cut off.
    pub(super) fn open(out: &Path, fingerprint: &str, restart: bool) -> Result<Self> {
        let mut name = out.as_os_str().to_owned();
        name.push(".partial");
        let path = PathBuf::from(name);
        let header = format!("{}\n", serde_json::json!({ "warpseek_batch": fingerprint }));
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(Error::Locked { path, holder: None });
            }
            Err(std::fs::TryLockError::Error(e)) => return Err(Error::io("lock", &path)(e)),
        }
        let mut earlier_len = 0;
        if !restart {
            let mut reader = BufReader::new(&file);
            let mut line = Vec::new();
            let mut first = None;
            loop {
                line.clear();
                let n = reader.read_until(b'\n', &mut line).map_err(Error::io("read", &path))?;
                if n == 0 || line.last() != Some(&b'\n') {
                    break;
                }
                first.get_or_insert_with(|| line.clone());
                earlier_len += n as u64;
            }
            if first.is_some_and(|f| f != header.as_bytes()) {
                return Err(does_not_fit(&path));
            }
        }
        file.set_len(earlier_len)
            .and_then(|()| file.seek(SeekFrom::End(0)))
            .map_err(Error::io("write", &path))?;
        let mut journal = Self {
            out: out.to_path_buf(),
            path,
            writer: BufWriter::new(file),
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
    pub(super) fn earlier(&self) -> Result<impl Iterator<Item = Result<Answer>> + use<>> {
        let left = self.earlier_len.saturating_sub(self.header_len);
        answers(&self.path, self.header_len, left)
    }

    pub(super) fn append(&mut self, answer: &Answer) -> Result<()> {
        let mut line = serde_json::to_vec(answer)
            .map_err(|e| Error::io("write", &self.path)(std::io::Error::other(e)))?;
        line.push(b'\n');
        self.write(&line)
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.writer.flush().map_err(Error::io("write", &self.path))
    }

    /// Writes the finished file and takes the journal away.
    pub(super) fn finish(mut self, format: OutputFormat) -> Result<()> {
        self.flush()?;
        let len = std::fs::metadata(&self.path).map_err(Error::io("read", &self.path))?.len();
        let answers = answers(&self.path, self.header_len, len - self.header_len)?;
        convert(answers, &self.out, format)?;
        std::fs::remove_file(&self.path).map_err(Error::io("remove", &self.path))
    }

    /// The error for an earlier run that was about something else.
    pub(super) fn does_not_fit(&self) -> Error {
        does_not_fit(&self.path)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(Error::io("write", &self.path))
    }
}

fn does_not_fit(path: &Path) -> Error {
    Error::usage(format!(
        "{} is an unfinished batch over another index, other queries or other options: say --restart to \
         throw it away, or choose another output file",
        path.display()
    ))
}

fn answers(
    path: &Path,
    start: u64,
    len: u64,
) -> Result<impl Iterator<Item = Result<Answer>> + use<>> {
    use std::io::Read;
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    file.seek(SeekFrom::Start(start)).map_err(Error::io("read", path))?;
    let path = path.to_path_buf();
    let lines = BufReader::new(file.take(len)).lines();
    Ok(lines.enumerate().map(move |(i, line)| {
        let line = line.map_err(Error::io("read", &path))?;
        serde_json::from_str(&line).map_err(|e| {
            Error::input(
                Place::record(path.display().to_string(), format!("line {}", i + 2)),
                format!("the unfinished batch is damaged ({e}): say --restart to throw it away"),
            )
        })
    }))
}
