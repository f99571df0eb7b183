//! An index open for reading: one folder, or several shards whose rows are numbered one after the
//! other.

use super::fields::FieldCatalog;
use super::filter::PassingRows;
use super::folder::folder_of_shards;
use super::lexical::{LexicalHit, LexicalHits};
use super::manifest::IndexManifest;
use super::reader::Shard;
use super::remote::RemoteShards;
use super::shards::ShardList;
use super::stats::IndexStats;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use warpseek_ingest::Document;
use warpseek_ingest::chunk::Chunk;
use warpseek_topk::layout::MAX_ROWS;
use warpseek_topk::{RowMask, ShardedMatrix};

/// A snapshot of an index. Later commits stay invisible until the index is opened again. May be
/// shared between threads.
#[derive(Debug)]
pub struct Index {
    dir: PathBuf,
    /// At least one, unless other processes hold them.
    pub(super) shards: Vec<Shard>,
    /// The shards in other processes.
    pub(super) remote: Option<Arc<dyn RemoteShards>>,
    pub(super) manifest: IndexManifest,
    fields: Arc<FieldCatalog>,
    /// The list of the shards; `None` if the index is in one folder.
    list: Option<ShardList>,
    /// The shard of the list that this is alone.
    part: Option<usize>,
    /// The number of the first row of each shard, and the number of all rows.
    pub(super) first_rows: Vec<usize>,
    live: RowMask,
    /// Identifies the snapshot for filters.
    pub(super) owner: Arc<()>,
    /// Masks of the last filters, by the filter's text.
    pub(super) masks: Mutex<HashMap<String, Arc<PassingRows>>>,
    /// The number of live documents, once it was asked for.
    n_documents: OnceLock<u64>,
}

impl Index {
    /// Opens the index in `dir`, or the shards that `dir` or its file `shards.json` lists. Checks
    /// manifests, headers and lengths, and that no commit is lost. Rows and documents are checked
    /// before their first use; `verify` checks everything.
    ///
    /// # Errors
    ///
    /// [`Error::NoIndex`] if there is none, [`Error::Corrupt`] naming the damaged file and the
    /// remedy; [`Error::Usage`] if shards have more rows together than one process can number.
    pub fn open(dir: &Path) -> Result<Self> {
        let Some(dir) = folder_of_shards(dir) else {
            return Self::of(dir.to_path_buf(), vec![Shard::open(dir)?], None, None);
        };
        let mut list = ShardList::read(&dir)?;
        loop {
            match list.open(&dir, 0..list.shards.len()) {
                Ok(shards) => return Self::of(dir, shards, Some(list), None),
                Err(e) => {
                    // The list may have been replaced meanwhile, and its shards removed.
                    let newer = ShardList::read(&dir)?;
                    if newer == list {
                        return Err(e);
                    }
                    list = newer;
                }
            }
        }
    }

    /// Opens the shard of this number alone, from 0 on. Its rows are numbered from 0 on; filters
    /// know the fields of all shards.
    ///
    /// # Errors
    ///
    /// As [`Index::open`]; [`Error::Usage`] if `dir` lists no such shard.
    pub fn open_shard(dir: &Path, number: usize) -> Result<Self> {
        let (dir, list) = ShardList::find(dir)?;
        if number >= list.shards.len() {
            let n = list.shards.len();
            let reason = format!("{} has {n} shards, none has number {number}", dir.display());
            return Err(Error::usage(reason));
        }
        let shards = list.open(&dir, number..number + 1)?;
        Self::of(dir, shards, Some(list), Some(number))
    }

    /// Opens the index whose shards other processes hold, by the list in `dir`. The shards
    /// themselves need not be there.
    ///
    /// # Errors
    ///
    /// As [`Index::open`].
    pub fn open_remote(dir: &Path, shards: Arc<dyn RemoteShards>) -> Result<Self> {
        let (dir, list) = ShardList::find(dir)?;
        if list.rows > MAX_ROWS {
            return Err(Error::usage(format!(
                "the shards have {} rows together, and at most {MAX_ROWS} can be searched as one \
                 index",
                list.rows
            )));
        }
        let ends = list.shards.iter().map(|shard| (shard.first_row + shard.rows) as usize);
        Ok(Self {
            first_rows: std::iter::once(0).chain(ends).collect(),
            live: RowMask::full(list.rows as usize),
            manifest: list.manifest(&dir)?,
            fields: Arc::new(list.fields.clone()),
            shards: Vec::new(),
            remote: Some(shards),
            list: Some(list),
            part: None,
            dir,
            owner: Arc::default(),
            masks: Mutex::default(),
            n_documents: OnceLock::new(),
        })
    }

    fn of(
        dir: PathBuf,
        shards: Vec<Shard>,
        list: Option<ShardList>,
        part: Option<usize>,
    ) -> Result<Self> {
        let (mut first_rows, mut live) = (vec![0], RowMask::empty(0));
        for shard in &shards {
            live.append(&shard.live);
            first_rows.push(live.n_rows());
        }
        let index = Self {
            manifest: shards[0].manifest.clone(),
            fields: Arc::clone(&shards[0].fields),
            remote: None,
            dir,
            shards,
            list,
            part,
            first_rows,
            live,
            owner: Arc::default(),
            masks: Mutex::default(),
            n_documents: OnceLock::new(),
        };
        // Too many rows for one process are refused at once.
        index.matrix().map(drop)?;
        Ok(index)
    }

    /// Opens the index again. Rows that this snapshot has compared with their checksums are not
    /// compared again if the files are the same.
    ///
    /// # Errors
    ///
    /// As [`Index::open`].
    pub fn reopen(&self) -> Result<Self> {
        self.renewed(Shard::reopen)
    }

    /// Opens the index again, for many threads: filters have connections of their own, so that
    /// searches do not wait for one that takes long.
    ///
    /// # Errors
    ///
    /// As [`Index::open`].
    pub fn shared(&self) -> Result<Self> {
        self.renewed(Shard::shared)
    }

    fn renewed(&self, renew: impl Fn(&Shard) -> Result<Shard>) -> Result<Self> {
        let Some(known) = &self.list else {
            let shards = self.shards.iter().map(renew).collect::<Result<_>>()?;
            return Self::of(self.dir.clone(), shards, None, None);
        };
        let list = ShardList::read(&self.dir)?;
        if list != *known {
            return match (&self.remote, self.part) {
                (None, None) => Self::open(&self.dir)?.renewed(renew),
                _ => Err(list.replaced(&self.dir)),
            };
        }
        if let Some(remote) = &self.remote {
            return Self::open_remote(&self.dir, Arc::clone(remote));
        }
        let entries = &list.shards[self.part.map_or(0..list.shards.len(), |part| part..part + 1)];
        let mut shards = Vec::with_capacity(self.shards.len());
        for (shard, entry) in self.shards.iter().zip(entries) {
            let mut shard = renew(shard)?;
            list.check(&self.dir, entry, &shard)?;
            shard.fields = Arc::clone(&self.fields);
            shards.push(shard);
        }
        Self::of(self.dir.clone(), shards, Some(list), self.part)
    }

    /// The folder of the index, or of the list of its shards.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The list of the shards; `None` if the index is in one folder.
    pub fn shard_list(&self) -> Option<&ShardList> {
        self.list.as_ref()
    }

    /// Settings of the index, which all shards have.
    pub fn manifest(&self) -> &IndexManifest {
        &self.manifest
    }

    /// Rows of the snapshot, deleted ones included.
    pub fn n_rows(&self) -> usize {
        self.live.n_rows()
    }

    /// Identifies the snapshot: a later commit or compaction changes it.
    pub fn snapshot_id(&self) -> String {
        match &self.list {
            Some(list) => match self.part {
                Some(part) => format!("shards-{}-{part}", list.checksum),
                None => format!("shards-{}", list.checksum),
            },
            None => self.shards[0].snapshot_id(),
        }
    }

    /// The vectors, with their int8 copies where there are any.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if a mapped file does not hold whole rows.
    pub fn matrix(&self) -> Result<ShardedMatrix<'_>> {
        self.check_local("read all vectors")?;
        ShardedMatrix::new(self.shards.iter().map(Shard::matrix).collect::<Result<_>>()?)
    }

    /// The rows that are not deleted.
    pub fn live(&self) -> &RowMask {
        &self.live
    }

    /// The metadata fields and their types.
    pub fn fields(&self) -> &FieldCatalog {
        &self.fields
    }

    /// The first `k` rows by BM25 among those of `mask`, by default the live ones; best first, ties
    /// by row. A hit has at least one of the query's words, as the index's language makes them.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`]; [`Error::Usage`] for shards.
    pub fn lexical(
        &self,
        query: &str,
        k: usize,
        mask: Option<&RowMask>,
    ) -> Result<Vec<LexicalHit>> {
        Ok(self.lexical_with(query, k, mask, &[])?.hits)
    }

    /// As [`Index::lexical`], with BM25 of the rows `asked` beside it.
    ///
    /// # Errors
    ///
    /// As [`Index::lexical`].
    pub fn lexical_with(
        &self,
        query: &str,
        k: usize,
        mask: Option<&RowMask>,
        asked: &[u32],
    ) -> Result<LexicalHits> {
        self.check_lexical()?;
        self.shards[0].lexical(query, k, mask.unwrap_or(&self.live), asked)
    }

    /// Refuses BM25 over shards, each of which has word counts of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for shards.
    pub fn check_lexical(&self) -> Result<()> {
        if self.list.is_none() {
            return Ok(());
        }
        Err(Error::usage(
            "an index in shards has no BM25, which needs the word counts of all documents: search \
             it without hybrid and lexical search, or search the index that the shards were made \
             from",
        ))
    }

    /// The recorded inputs, by name, with their settings.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn inputs(&self) -> Result<Vec<(String, String)>> {
        self.shards.first().map_or(Ok(Vec::new()), Shard::inputs)
    }

    /// The shards, if other processes hold them.
    pub fn remote(&self) -> Option<&Arc<dyn RemoteShards>> {
        self.remote.as_ref()
    }

    /// Refuses `work` if other processes hold the shards.
    pub(super) fn check_local(&self, work: &str) -> Result<()> {
        match self.remote {
            None => Ok(()),
            Some(_) => Err(Error::usage(format!(
                "this process cannot {work}: other processes hold the shards; open the index where \
                 its shards are"
            ))),
        }
    }

    /// The number of live documents.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn n_documents(&self) -> Result<u64> {
        if let Some(&known) = self.n_documents.get() {
            return Ok(known);
        }
        if let (Some(list), None) = (&self.list, self.part) {
            return Ok(list.documents);
        }
        let n = self.shards.iter().map(Shard::n_documents).sum::<Result<u64>>()?;
        Ok(*self.n_documents.get_or_init(|| n))
    }

    /// Calls `visit` with every live document, its chunks and the number of its first row, in the
    /// order of the rows.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if a document differs from its hash, and the errors of `visit`.
    pub fn for_each_document(
        &self,
        visit: &mut dyn FnMut(Document, Vec<Chunk>, u32) -> Result<()>,
    ) -> Result<()> {
        self.check_local("read all documents")?;
        let shards = self.shards.iter().zip(&self.first_rows);
        shards.into_iter().try_for_each(|(shard, &first)| {
            let mut visit =
                |document, chunks, row: u32| visit(document, chunks, row + first as u32);
            shard.for_each_document(&mut visit)
        })
    }

    /// Statistics of the index.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn stats(&self) -> Result<IndexStats> {
        let all = match &self.remote {
            Some(remote) => remote.stats()?,
            None => self.shards.iter().map(Shard::stats).collect::<Result<_>>()?,
        };
        let mut all = all.into_iter();
        let nothing = || Error::usage("the shards sent no statistics");
        let mut stats = all.next().ok_or_else(nothing)?;
        all.for_each(|shard| stats.add(&shard));
        Ok(stats)
    }
}
