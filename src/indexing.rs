//! Documents into an index: read, chunk, embed, store, in batches that are committed on the way.

use crate::chunk::{self, Chunk};
use crate::embed::{Embedder, Embeddings, Role};
use crate::error::{Error, Result};
use crate::ingest::Document;
use crate::store::{IndexWriter, content_hash, passage};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_128;

/// Bytes of text for each row of a batch after which it is full.
const ROW_BYTES: usize = 8 << 10;

/// Rows after which a commit is due where nothing else is asked for.
pub const DEFAULT_COMMIT_ROWS: usize = 4096;

/// Time after which a commit is due.
const COMMIT_AFTER: Duration = Duration::from_secs(5);

/// Bytes of text after which a commit is due.
const COMMIT_BYTES: usize = 64 << 20;

/// Messages of skipped records that are kept.
const MAX_MESSAGES: usize = 100;

/// What to do with a record that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// Stop; what was read before it is committed.
    Stop,
    /// Go on, count it and keep its message.
    Skip,
}

/// How to index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexOptions {
    /// What to do with a bad record.
    pub on_error: OnError,
    /// Whether documents of the index that the input does not hold are deleted at the end.
    pub prune: bool,
    /// Rows after which a batch is committed; one is committed every five seconds anyway.
    pub commit_rows: usize,
}

impl Default for IndexOptions {
    fn default() -> Self {
        Self { on_error: OnError::Stop, prune: false, commit_rows: DEFAULT_COMMIT_ROWS }
    }
}

/// What an indexing run did.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct IndexReport {
    /// Documents that are new.
    pub added: u64,
    /// Documents that replaced an older version.
    pub updated: u64,
    /// Documents that were there already with the same content.
    pub unchanged: u64,
    /// Documents that were deleted because the input does not hold them.
    pub pruned: u64,
    /// Records that could not be used.
    pub skipped: u64,
    /// The first messages about skipped records.
    pub messages: Vec<String>,
    /// Rows written.
    pub rows: u64,
    /// Tokens embedded, special tokens included.
    pub tokens: u64,
    /// Tokens that the model's limit cut off.
    pub tokens_lost: u64,
    /// Rows that lost tokens.
    pub rows_truncated: u64,
    /// Whether the run was told to stop before the end.
    pub interrupted: bool,
}

/// For each id its last record in the input, for inputs where a later record replaces an earlier one.
#[derive(Debug, Default)]
pub struct LastRecords(HashMap<u128, u64>);

impl LastRecords {
    /// Goes through the input once.
    ///
    /// # Errors
    ///
    /// The input's own errors; with [`OnError::Skip`] only those that are not about a record.
    pub fn collect(
        documents: impl Iterator<Item = Result<Document>>,
        on_error: OnError,
    ) -> Result<Self> {
        let mut last = HashMap::new();
        for (number, document) in documents.enumerate() {
            match document {
                Ok(document) => {
                    last.insert(xxh3_128(document.id.as_bytes()), number as u64);
                }
                Err(Error::Input { .. }) if on_error == OnError::Skip => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Self(last))
    }

    fn holds(&self, document: &Document, number: u64) -> bool {
        self.0.get(&xxh3_128(document.id.as_bytes())) == Some(&number)
    }
}

/// Puts documents into an index. Documents that are there already with the same content are left
/// alone, so that a run that was cut short goes on where it stopped. After every committed batch, and
/// while one is embedded, `progress` is told how far the run is; it answers whether to go on.
///
/// Without `last`, an id that comes twice in the input is an error.
///
/// # Errors
///
/// The input's errors with [`OnError::Stop`], after what was read before was committed;
/// [`Error::Input`] for a duplicate id; the store's and the encoder's errors.
pub fn index(
    writer: &mut IndexWriter,
    embedder: &Embedder,
    documents: &mut dyn Iterator<Item = Result<Document>>,
    last: Option<&LastRecords>,
    options: IndexOptions,
    progress: &mut dyn FnMut(&IndexReport) -> bool,
) -> Result<IndexReport> {
    let mut run = Run {
        writer,
        embedder,
        batch_rows: embedder.batch_texts(),
        report: IndexReport::default(),
        seen: Seen::default(),
        batch: Vec::new(),
        batch_ids: HashSet::new(),
        batch_bytes: 0,
        committed_at: Instant::now(),
        options,
        progress,
    };
    for (number, document) in documents.enumerate() {
        let taken = match document {
            Ok(document) if last.is_some_and(|l| !l.holds(&document, number as u64)) => Ok(()),
            Ok(document) => run.take(document),
            Err(e) => Err(e),
        };
        let outcome = match taken {
            Ok(()) if run.is_full() => run.flush(),
            Ok(()) => Ok(()),
            Err(e) => run.skip_or(e),
        };
        if let Err(e) = outcome {
            return Err(run.give_up(e));
        }
        if run.report.interrupted {
            break;
        }
    }
    if let Err(e) = run.flush() {
        return Err(run.give_up(e));
    }
    run.writer.commit()?;
    if options.prune && !run.report.interrupted && run.report.skipped == 0 {
        run.prune()?;
    }
    Ok(run.report)
}

struct Run<'a> {
    writer: &'a mut IndexWriter,
    embedder: &'a Embedder,
    /// Documents that are read before they are embedded together, and rows that are embedded between two looks at
    /// whether to stop.
    batch_rows: usize,
    report: IndexReport,
    seen: Seen,
    batch: Vec<(Document, bool)>,
    batch_ids: HashSet<u128>,
    batch_bytes: usize,
    committed_at: Instant,
    options: IndexOptions,
    progress: &'a mut dyn FnMut(&IndexReport) -> bool,
}

impl Run<'_> {
    fn is_full(&self) -> bool {
        self.batch.len() >= self.batch_rows || self.batch_bytes >= self.batch_rows * ROW_BYTES
    }

    /// Takes a document into the batch, unless the index has it already.
    fn take(&mut self, document: Document) -> Result<()> {
        let twice = |document: &Document| {
            Error::input(
                document.place.clone(),
                format!(
                    "the id '{}' comes twice in this input: make ids unique, or let the later record \
                     win with --on-duplicate last",
                    document.id
                ),
            )
        };
        if self.batch_ids.contains(&xxh3_128(document.id.as_bytes())) {
            return Err(twice(&document));
        }
        let existing = self.writer.find(&document.id)?;
        if let Some(existing) = existing {
            if self.seen.contains(existing.seq) {
                return Err(twice(&document));
            }
            if existing.hash == content_hash(&document) {
                self.seen.insert(existing.seq);
                self.report.unchanged += 1;
                if self.report.unchanged.is_multiple_of(512) {
                    self.report_progress();
                }
                return Ok(());
            }
        }
        self.batch_bytes += document.text.len();
        self.batch_ids.insert(xxh3_128(document.id.as_bytes()));
        self.batch.push((document, existing.is_some()));
        Ok(())
    }

    /// Notes a bad record where they are skipped; gives the error back where they are not, or where it
    /// is not about a record.
    fn skip_or(&mut self, error: Error) -> Result<()> {
        if self.options.on_error == OnError::Stop || !matches!(error, Error::Input { .. }) {
            return Err(error);
        }
        self.report.skipped += 1;
        if self.report.messages.len() < MAX_MESSAGES {
            self.report.messages.push(error.to_string());
        }
        Ok(())
    }

    /// Commits what is whole before an error ends the run; returns that error.
    fn give_up(&mut self, error: Error) -> Error {
        // What cannot be saved now will be read again; the first error is the one that matters.
        let saved = self.flush().and_then(|()| self.writer.commit());
        if let Err(e) = saved {
            tracing::warn!("{e}");
        }
        error
    }

    /// Chunks, embeds and stores the batch; commits where it is time.
    fn flush(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_ids.clear();
        self.batch_bytes = 0;
        let chunking = self.writer.manifest().chunking;
        let tokenizer = self.embedder.tokenizer();
        let pieces: Vec<Result<Vec<Range<usize>>>> = batch
            .par_iter()
            .map(|(document, _)| chunk::split(document, &chunking, |text| tokenizer.count(text)))
            .collect();
        // Documents go in as soon as all their rows are embedded, so that a stop loses little.
        let mut waiting: Vec<(Document, bool, Vec<Range<usize>>)> = Vec::new();
        let mut n_waiting = 0;
        for ((document, replaces), ranges) in batch.into_iter().zip(pieces) {
            let ranges = match ranges {
                Ok(ranges) => ranges,
                Err(e) => match self.skip_or(e) {
                    Ok(()) => continue,
                    Err(e) => {
                        self.store(waiting)?;
                        return Err(e);
                    }
                },
            };
            n_waiting += ranges.len();
            waiting.push((document, replaces, ranges));
            if n_waiting >= self.batch_rows {
                self.store(std::mem::take(&mut waiting))?;
                n_waiting = 0;
            }
            if self.report.interrupted {
                return Ok(());
            }
        }
        self.store(waiting)
    }

    fn store(&mut self, documents: Vec<(Document, bool, Vec<Range<usize>>)>) -> Result<()> {
        let texts: Vec<String> = documents
            .iter()
            .flat_map(|(d, _, ranges)| {
                ranges.iter().map(|r| {
                    passage(&d.title, d.text.get(r.clone()).unwrap_or_default(), d.embed_title)
                })
            })
            .collect();
        let mut all = Embeddings::default();
        for texts in texts.chunks(self.batch_rows) {
            let part = self.embedder.embed(texts, Role::Passage)?;
            all.vectors.extend(part.vectors);
            all.tokens.extend(part.tokens);
            all.lost.extend(part.lost);
            self.report_progress();
            if self.report.interrupted {
                return Ok(());
            }
        }
        let dim = self.embedder.dim();
        let mut row = 0;
        for (document, replaces, ranges) in documents {
            let rows = row..row + ranges.len();
            row = rows.end;
            let chunks: Vec<Chunk> = ranges
                .into_iter()
                .zip(rows.clone())
                .map(|(range, row)| Chunk {
                    range,
                    tokens: all.tokens[row],
                    tokens_lost: all.lost[row],
                })
                .collect();
            for chunk in &chunks {
                self.report.rows += 1;
                self.report.tokens += u64::from(chunk.tokens);
                self.report.tokens_lost += u64::from(chunk.tokens_lost);
                self.report.rows_truncated += u64::from(chunk.tokens_lost > 0);
            }
            let vectors = &all.vectors[rows.start * dim..rows.end * dim];
            let seq = self.writer.put(document, chunks, vectors)?;
            self.seen.insert(seq);
            *if replaces { &mut self.report.updated } else { &mut self.report.added } += 1;
        }
        if self.writer.n_pending_rows() >= self.options.commit_rows
            || self.writer.n_pending_bytes() >= COMMIT_BYTES
            || self.committed_at.elapsed() >= COMMIT_AFTER
        {
            self.writer.commit()?;
            self.committed_at = Instant::now();
        }
        self.report_progress();
        Ok(())
    }

    fn report_progress(&mut self) {
        if !(self.progress)(&self.report) {
            self.report.interrupted = true;
        }
    }

    fn prune(&mut self) -> Result<()> {
        let gone = self.writer.live_except(|seq| self.seen.contains(seq))?;
        self.report.pruned = gone.len() as u64;
        gone.into_iter().for_each(|seq| self.writer.delete(seq));
        self.writer.commit()
    }
}

/// A set of document numbers.
#[derive(Debug, Default)]
struct Seen(Vec<u64>);

impl Seen {
    fn insert(&mut self, seq: i64) {
        let seq = seq.max(0) as usize;
        if self.0.len() <= seq / 64 {
            self.0.resize(seq / 64 + 1, 0);
        }
        self.0[seq / 64] |= 1 << (seq % 64);
    }

    fn contains(&self, seq: i64) -> bool {
        let seq = seq.max(0) as usize;
        self.0.get(seq / 64).is_some_and(|word| word & (1 << (seq % 64)) != 0)
    }
}
