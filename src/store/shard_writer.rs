//! Writes the shards of an index, and their list last; the shards of a run on several machines.

use super::folder::{MANIFEST_FILE, SHARDS_FILE, WriteLock, check_place, remove_if_present};
use super::manifest::IndexManifest;
use super::shards::{ShardList, ShardSummary};
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

/// File with the names of folders that the next list replaces.
const REPLACED_FILE: &str = ".shards.replaced";

/// Files of a run on several machines: its plan, and the summaries of shards that are made.
const PLAN_FILES: [&str; 3] = [".shards.plan", ".shards.plan.partial", ".shards.done"];

/// File in the folder of a shard with the key of the run that made it.
const KEY_FILE: &str = ".run.partial";

/// The treatment of the shards of a run on several machines that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnfinishedRun {
    /// The writer is refused.
    Refuse,
    /// The writer goes on with them.
    Continue,
    /// They are removed.
    Discard,
}

/// A folder whose shards are being made. Readers see the shards that were there before, if any,
/// until [`ShardFolder::finish`] writes the list. What a killed writer has left, the next one
/// removes, unless it goes on with it.
#[derive(Debug)]
pub struct ShardFolder {
    dir: PathBuf,
    generation: u64,
    /// The folders of the shards that the list names.
    listed: Vec<String>,
    /// True if the list names the shards of the unfinished run that this writer goes on with: it
    /// was killed at its very end.
    is_listed: bool,
    /// True if what was begun stays when this is dropped.
    is_kept: bool,
    lock: WriteLock,
}

impl ShardFolder {
    /// Opens the folder for writing, and creates it if it does not exist. Removes the shards that
    /// a killed [`ShardWriter`] has begun, and those that it has replaced.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the folder is an index, and for an unfinished run that is to be
    /// refused; [`Error::Locked`] while another process writes shards there; [`Error::Corrupt`] if
    /// the list is damaged; [`Error::Io`].
    pub fn open(dir: &Path, unfinished: UnfinishedRun) -> Result<Self> {
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
        let listed = list.iter().flat_map(|list| &list.shards);
        let mut this = Self {
            dir: dir.to_path_buf(),
            generation: list.as_ref().map_or(0, |list| list.generation + 1),
            listed: listed.map(|shard| shard.folder.clone()).collect(),
            is_listed: false,
            is_kept: false,
            lock,
        };
        let has_run = dir.join(PLAN_FILES[0]).exists();
        let is_listed =
            has_run && names_in(dir, BEGUN_FILE).iter().any(|n| this.listed.contains(n));
        match unfinished {
            UnfinishedRun::Continue if has_run => {
                this.is_listed = is_listed;
                if is_listed {
                    this.generation -= 1;
                }
                this.keep();
            }
            UnfinishedRun::Refuse if has_run && !is_listed => {
                this.keep();
                return Err(Error::usage(format!(
                    "{}: `python -m warpseek.ray index` has not finished its shards here: run the \
                     same command again to go on, or with --restart to begin anew",
                    dir.display()
                )));
            }
            _ => this.remove_begun()?,
        }
        Ok(this)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// True if the unfinished run that this writer goes on with has written its list already.
    pub fn is_listed(&self) -> bool {
        self.is_listed
    }

    /// The name of the folder of a shard: `00003.ws`, and `00003-2.ws` in later generations.
    pub fn name(&self, number: usize) -> String {
        format!("{number:05}{}", suffix(self.generation))
    }

    /// Records that shards of these names are being made.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if one of the last `new` of them is there already; [`Error::Io`].
    pub fn begin(&self, names: &[String], new: usize) -> Result<()> {
        for name in &names[names.len() - new..] {
            let path = self.dir.join(name);
            if path.symlink_metadata().is_ok() {
                return Err(Error::usage(format!(
                    "{} is there already, and {SHARDS_FILE} does not list it: move it away, or \
                     name another folder for the shards",
                    path.display()
                )));
            }
        }
        self.record(BEGUN_FILE, names)
    }

    /// Keeps what was begun for a later writer, also if this one does not finish.
    pub fn keep(&mut self) {
        self.lock.keep();
        self.is_kept = true;
    }

    /// Removes what was begun, and begins anew.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn discard(&mut self) -> Result<()> {
        self.remove_begun()?;
        self.generation += u64::from(self.is_listed);
        (self.is_listed, self.is_kept) = (false, false);
        self.lock.discard();
        Ok(())
    }

    /// Writes the list and removes the shards that it replaces.
    ///
    /// # Errors
    ///
    /// As [`ShardList::write`].
    pub fn finish(mut self, shards: &[ShardSummary]) -> Result<ShardList> {
        // Whoever writes next removes those that the list does not name.
        if !self.is_listed {
            self.record(REPLACED_FILE, &self.listed)?;
        }
        let list = ShardList::write(&self.dir, shards, self.generation)?;
        self.keep();
        self.listed = shards.iter().map(|shard| shard.folder.clone()).collect();
        // A reader that maps the files of a shard may keep it on some systems.
        let _ = self.remove_begun();
        Ok(list)
    }

    /// Removes the shards that were begun or replaced and are not in the list.
    fn remove_begun(&self) -> Result<()> {
        for name in [BEGUN_FILE, REPLACED_FILE].iter().flat_map(|file| names_in(&self.dir, file)) {
            if !self.listed.contains(&name) {
                remove_folder(&self.dir.join(name))?;
            }
        }
        for file in PLAN_FILES.iter().chain([&BEGUN_FILE, &REPLACED_FILE]) {
            remove_if_present(&self.dir.join(file))?;
        }
        Ok(())
    }

    fn record(&self, file: &str, names: &[String]) -> Result<()> {
        let file = self.dir.join(file);
        std::fs::write(&file, names.join("\n") + "\n").map_err(Error::io("write", &file))?;
        sync_folder_of(&file);
        Ok(())
    }
}

/// The names of shards in a file of the folder.
fn names_in(dir: &Path, file: &str) -> Vec<String> {
    let names = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
    names.lines().filter(|name| is_shard_name(name)).map(str::to_owned).collect()
}

/// The end of the names of folders of a generation.
fn suffix(generation: u64) -> String {
    match generation {
        0 => ".ws".to_owned(),
        generation => format!("-{generation}.ws"),
    }
}

impl Drop for ShardFolder {
    fn drop(&mut self) {
        // The list may name the new shards already if writing it failed at the very end.
        let is_listed =
            ShardList::read(&self.dir).is_ok_and(|list| list.generation == self.generation);
        if !self.is_kept && !is_listed {
            let _ = self.remove_begun();
        }
        if self.dir.join(SHARDS_FILE).exists() {
            self.lock.keep();
        }
    }
}

/// Writes shards into a folder, and their list last. Dropped before [`ShardWriter::finish`], it
/// removes them.
#[derive(Debug)]
pub struct ShardWriter {
    settings: IndexManifest,
    folders: Vec<String>,
    /// The shard that is being written, and the number of its rows.
    current: Option<(IndexWriter, u64)>,
    // Dropped after the shard that is being written.
    folder: ShardFolder,
}

impl ShardWriter {
    /// Begins the shards of an index with these settings.
    ///
    /// # Errors
    ///
    /// As [`ShardFolder::open`].
    pub fn create(dir: &Path, settings: &IndexManifest) -> Result<Self> {
        let folder = ShardFolder::open(dir, UnfinishedRun::Refuse)?;
        Ok(Self { settings: settings.clone(), folders: Vec::new(), current: None, folder })
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
                let name = self.folder.name(self.folders.len());
                let path = self.folder.dir().join(&name);
                self.folders.push(name);
                self.folder.begin(&self.folders, 1)?;
                let writer = IndexWriter::open_or_create(&path, &self.settings)?;
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
    /// As [`ShardFolder::finish`].
    pub fn finish(mut self) -> Result<ShardList> {
        self.end_shard()?;
        let Self { folder, folders, .. } = self;
        let mut shards = Vec::new();
        for name in &folders {
            let path = folder.dir().join(name);
            let summary = ShardSummary::read(&path)?;
            shards.push(summary.ok_or_else(|| Error::corrupt(&path, "the shard was not ended"))?);
        }
        folder.finish(&shards)
    }
}

/// Prepares the folder of a shard that a run on several machines makes or goes on with: one that a
/// run with another `key` or with other settings has left there is removed.
///
/// # Errors
///
/// [`Error::Usage`] if it was made otherwise; [`Error::Locked`] while another process writes it;
/// [`Error::Io`].
pub fn begin_shard(path: &Path, key: &str, settings: &IndexManifest) -> Result<()> {
    let marker = path.join(KEY_FILE);
    let found = std::fs::read_to_string(&marker).ok();
    let is_empty = std::fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none());
    if found.is_none() && !is_empty {
        return Err(Error::usage(format!(
            "{} is there already, and no run of `python -m warpseek.ray index` made it: move it \
             away, or name another folder for the shards",
            path.display()
        )));
    }
    let own = match IndexManifest::find(path) {
        Ok(own) => own,
        Err(Error::Corrupt { .. }) => None,
        Err(e) => return Err(e),
    };
    let has_same_settings = own.is_none_or(|own| own.check_compatible(settings, path).is_ok());
    if found.as_deref() == Some(key) && has_same_settings {
        return Ok(());
    }
    if !is_empty {
        let _lock = WriteLock::take(path)?;
        remove_folder(path)?;
    }
    std::fs::create_dir_all(path).map_err(Error::io("create", path))?;
    std::fs::write(&marker, key).map_err(Error::io("write", &marker))?;
    sync_folder_of(&marker);
    Ok(())
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
