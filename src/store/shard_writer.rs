//! Writes the shards of an index, and their list last.

use super::folder::{MANIFEST_FILE, SHARDS_FILE, WriteLock, check_place, remove_if_present};
use super::manifest::IndexManifest;
use super::shards::ShardList;
use super::writer::IndexWriter;
use crate::error::{Error, Result};
use crate::output::sync_folder_of;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use warpseek_ingest::Document;
use warpseek_ingest::chunk::Chunk;

/// Rows per commit.
const COMMIT_ROWS: usize = 8_192;

/// Bytes of text per commit.
const COMMIT_BYTES: usize = 64 << 20;

/// File with the names of folders that a writer has begun and not listed yet, one per line.
const BEGUN_FILE: &str = ".shards.partial";

/// Writes shards into a folder. Their list is written by [`ShardWriter::finish`]: until then
/// readers see the shards that were there before, if any. Dropped earlier, it removes its own; what
/// a killed one has left, the next writer removes, and nothing else.
#[derive(Debug)]
pub struct ShardWriter {
    dir: PathBuf,
    settings: IndexManifest,
    generation: u64,
    /// The folders of the shards that the list names now.
    earlier: Vec<String>,
    folders: Vec<String>,
    /// The shard that is being written, and the number of its rows.
    current: Option<(IndexWriter, u64)>,
    is_finished: bool,
    lock: WriteLock,
}

impl ShardWriter {
    /// Begins the shards of an index with these settings. Removes what an interruption left.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the folder is an index; [`Error::Locked`] while another process writes
    /// shards there; [`Error::Io`].
    pub fn create(dir: &Path, settings: &IndexManifest) -> Result<Self> {
        check_place(dir)?;
        if dir.join(MANIFEST_FILE).exists() {
            return Err(Error::usage(format!(
                "{} is the folder of an index: name another one for shards",
                dir.display()
            )));
        }
        let mut lock = WriteLock::take_in_new_folder(dir)?;
        lock.discard();
        let list = match ShardList::read(dir) {
            Err(Error::NoIndex { .. }) => None,
            list => Some(list?),
        };
        let earlier = list.iter().flat_map(|list| &list.shards);
        let this = Self {
            dir: dir.to_path_buf(),
            settings: settings.clone(),
            generation: list.as_ref().map_or(0, |list| list.generation + 1),
            earlier: earlier.map(|shard| shard.folder.clone()).collect(),
            folders: Vec::new(),
            current: None,
            is_finished: false,
            lock,
        };
        let begun = std::fs::read_to_string(dir.join(BEGUN_FILE)).unwrap_or_default();
        let is_left = |name: &&str| is_shard_name(name) && !this.earlier.iter().any(|n| n == name);
        for name in begun.lines().filter(is_left) {
            remove_folder(&dir.join(name))?;
        }
        remove_if_present(&dir.join(BEGUN_FILE))?;
        Ok(this)
    }

    /// Rows of the shard that is being written.
    pub fn rows_in_shard(&self) -> u64 {
        self.current.as_ref().map_or(0, |(_, rows)| *rows)
    }

    /// Adds a document to the shard, with the vectors of its chunks, `[chunks.len(), dim]`.
    ///
    /// # Errors
    ///
    /// As [`IndexWriter::put`] and [`IndexWriter::commit`].
    pub fn put(&mut self, document: Document, chunks: Vec<Chunk>, vectors: &[f32]) -> Result<()> {
        let (writer, rows) = match &mut self.current {
            Some(current) => current,
            None => {
                let number = self.folders.len();
                let name = match self.generation {
                    0 => format!("{number:05}.ws"),
                    generation => format!("{number:05}-{generation}.ws"),
                };
                let path = self.dir.join(&name);
                if path.symlink_metadata().is_ok() {
                    return Err(Error::usage(format!(
                        "{} is there already, and {SHARDS_FILE} does not list it: move it away, or \
                         name another folder for the shards",
                        path.display()
                    )));
                }
                self.folders.push(name);
                let begun = self.folders.join("\n") + "\n";
                let file = self.dir.join(BEGUN_FILE);
                std::fs::write(&file, begun).map_err(Error::io("write", &file))?;
                sync_folder_of(&file);
                let settings = self.settings.clone();
                let writer = IndexWriter::open_or_create(&path, &settings)?;
                self.current.insert((writer, 0))
            }
        };
        *rows += chunks.len() as u64;
        writer.put(document, chunks, vectors)?;
        if writer.n_pending_rows() >= COMMIT_ROWS || writer.n_pending_bytes() >= COMMIT_BYTES {
            writer.commit()?;
        }
        Ok(())
    }

    /// Ends the shard; the next document begins another one.
    ///
    /// # Errors
    ///
    /// As [`IndexWriter::commit`].
    pub fn end_shard(&mut self) -> Result<()> {
        match self.current.take() {
            Some((writer, _)) => writer.seal(),
            None => Ok(()),
        }
    }

    /// Ends the last shard, writes the list and removes the shards that it replaces.
    ///
    /// # Errors
    ///
    /// As [`ShardList::write`].
    pub fn finish(mut self) -> Result<ShardList> {
        self.end_shard()?;
        let list = ShardList::write(&self.dir, &self.folders, self.generation)?;
        self.is_finished = true;
        self.lock.keep();
        let _ = remove_if_present(&self.dir.join(BEGUN_FILE));
        for name in self.earlier.iter().filter(|name| is_shard_name(name)) {
            // A reader that maps its files may keep it on some systems.
            let _ = remove_folder(&self.dir.join(name));
        }
        Ok(list)
    }
}

impl Drop for ShardWriter {
    fn drop(&mut self) {
        // The list may name the new shards already if writing it failed at the very end.
        let is_listed =
            ShardList::read(&self.dir).is_ok_and(|list| list.generation == self.generation);
        if !self.is_finished && !is_listed {
            self.current = None;
            let removed = self.folders.iter().map(|name| remove_folder(&self.dir.join(name)));
            if removed.filter(Result::is_err).count() == 0 {
                let _ = remove_if_present(&self.dir.join(BEGUN_FILE));
            }
        }
        if self.dir.join(SHARDS_FILE).exists() {
            self.lock.keep();
        }
    }
}

/// Removes the folder of a shard, unless it is missing.
fn remove_folder(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
        _ => Ok(()),
    }
}

/// True for the names of folders of shards: `00003.ws`, `00003-2.ws`.
fn is_shard_name(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    name.strip_suffix(".ws").is_some_and(|stem| match stem.split_once('-') {
        Some((number, generation)) => {
            is_number(generation) && is_number(number) && number.len() >= 5
        }
        None => is_number(stem) && stem.len() >= 5,
    })
}
