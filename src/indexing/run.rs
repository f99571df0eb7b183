//! An indexing run: the documents of an input, in batches.

use super::report::IndexReport;
use super::{IndexOptions, OnError, passages};
use crate::error::{Error, Place, Result};
use crate::store::{IndexWriter, content_hash};
use rayon::ThreadPool;
use rayon::prelude::*;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use warpseek_bert::embedder::{EmbedOptions, Embedder, Embeddings, Role};
use warpseek_ingest::chunk::{self, Chunk};
use warpseek_ingest::{Document, RECORDS_SOURCE, STREAM_SOURCE};
use xxhash_rust::xxh3::xxh3_128;

/// Bytes of text per row at which a batch is full.
const ROW_BYTES: usize = 8 << 10;

/// Maximum time between commits.
const COMMIT_AFTER: Duration = Duration::from_secs(5);

/// Maximum size of the text per commit, in bytes.
const COMMIT_BYTES: usize = 64 << 20;

/// Maximum number of messages about skipped records in a report.
const MAX_MESSAGES: usize = 100;

/// State of an indexing run.
pub(super) struct IndexRun<'a> {
    writer: &'a mut IndexWriter,
    embedder: &'a Embedder,
    /// Documents per batch, and rows that are embedded between two calls of `progress`.
    batch_rows: usize,
    report: IndexReport,
    /// Sources of files in folders of which something was skipped.
    damaged: HashSet<Arc<str>>,
    /// The first error about one of these.
    first_error: Option<Error>,
    /// Documents of the index that the input holds.
    seen: SeqSet,
    /// Documents to embed, each with whether it replaces an older version.
    batch: Vec<(Document, bool)>,
    batch_ids: HashSet<u128>,
    batch_bytes: usize,
    committed_at: Instant,
    options: IndexOptions<'a>,
    progress: &'a mut dyn FnMut(&IndexReport) -> bool,
}

impl<'a> IndexRun<'a> {
    pub(super) fn new(
        writer: &'a mut IndexWriter,
        embedder: &'a Embedder,
        options: IndexOptions<'a>,
        progress: &'a mut dyn FnMut(&IndexReport) -> bool,
    ) -> Self {
        Self {
            writer,
            embedder,
            batch_rows: embedder.batch_texts(),
            report: IndexReport::default(),
            damaged: HashSet::new(),
            first_error: None,
            seen: SeqSet::default(),
            batch: Vec::new(),
            batch_ids: HashSet::new(),
            batch_bytes: 0,
            committed_at: Instant::now(),
            options,
            progress,
        }
    }

    /// Stores all documents and finds those that are outdated.
    pub(super) fn run(
        mut self,
        documents: &mut dyn Iterator<Item = Result<Document>>,
    ) -> Result<IndexReport> {
        if let Err(error) = self.take_all(documents) {
            // Documents that cannot be saved now are read again by the next run.
            // Without any, there is no run that has begun with these inputs.
            let saved = self.flush().and_then(|()| match self.has_changes() {
                true => self.writer.commit(),
                false => Ok(()),
            });
            if let Err(e) = saved {
                tracing::warn!("{e}");
            }
            return match error {
                Error::Input { place, reason } if self.options.unchanged.is_some() => {
                    self.report.input_errors.push((place, reason));
                    self.report.stopped = true;
                    Ok(self.report)
                }
                error => Err(error),
            };
        }
        self.writer.commit()?;
        self.check_any()?;
        self.note_precision();
        let Self { writer, options, seen, damaged, mut report, .. } = self;
        if !report.interrupted {
            find_outdated(writer, options, &seen, &damaged, &mut report)?;
        }
        Ok(report)
    }

    /// Stores the documents of a part of the inputs.
    pub(super) fn run_part(
        mut self,
        documents: &mut dyn Iterator<Item = Result<Document>>,
    ) -> Result<IndexReport> {
        let taken = self.take_all(documents);
        // Documents that can be saved are not embedded again when the run is continued.
        let saved = self.flush().and_then(|()| self.writer.commit());
        taken.and(saved)?;
        self.note_precision();
        Ok(self.report)
    }

    /// Stores all documents, unless the run is stopped.
    fn take_all(&mut self, documents: &mut dyn Iterator<Item = Result<Document>>) -> Result<()> {
        for (number, document) in documents.enumerate() {
            let taken = document.and_then(|document| match self.options.last {
                Some(last) if !last.holds(&document, number as u64) => {
                    self.report.duplicates += 1;
                    Ok(())
                }
                _ => self.take(document),
            });
            match taken {
                Ok(()) if self.is_full() => self.flush()?,
                Ok(()) => {}
                Err(e) => self.skip_or(e)?,
            }
            // Documents that are not stored are many in a row at times.
            if (number + 1).is_multiple_of(512) {
                self.report_progress();
            }
            if self.report.interrupted {
                break;
            }
        }
        self.flush()
    }

    fn has_changes(&self) -> bool {
        self.report.added + self.report.updated + self.report.unchanged > 0
    }

    fn is_full(&self) -> bool {
        self.batch.len() >= self.batch_rows || self.batch_bytes >= self.batch_rows * ROW_BYTES
    }

    /// Adds a document to the batch, unless the index already has it.
    fn take(&mut self, document: Document) -> Result<()> {
        let id = xxh3_128(document.id.as_bytes());
        let in_batch = self.batch_ids.contains(&id);
        let existing = if in_batch { None } else { self.writer.find(&document.id)? };
        let source = match &existing {
            Some(existing) => self.writer.source(existing.seq)?,
            None => None,
        };
        let is_kept = || {
            let of_other =
                source.as_ref().filter(|source| document.source.as_ref() != Some(source));
            of_other.is_some_and(|source| {
                self.options.unchanged.is_some_and(|files| files.contains(source))
            })
        };
        if in_batch
            || existing.is_some_and(|existing| self.seen.contains(existing.seq))
            || is_kept()
        {
            let of_other = source.as_ref().filter(|s| document.source.as_ref() != Some(s));
            let reason = match of_other {
                Some(other) if is_kept() => {
                    format!("the id '{}' is also in {other}: make ids unique", document.id)
                }
                Some(other) => format!(
                    "the id '{}' occurs twice in this input, also in {other}: make ids unique, or \
                     keep the last record with `index --on-duplicate last`",
                    document.id
                ),
                None => format!(
                    "the id '{}' occurs twice in this input: make ids unique, or keep the last \
                     record with `index --on-duplicate last`",
                    document.id
                ),
            };
            return Err(Error::input(document.place, reason));
        }
        if let Some(existing) = existing {
            // What takes a document over can be gone while the file before still holds it, which
            // then has to be read again.
            if let Some(old) = source.as_deref()
                && document.source.as_deref().is_some_and(|new| new != old)
            {
                self.writer.set_stamp(old.to_owned(), None);
            }
            if existing.hash == content_hash(&document) {
                if document.source.is_some() && source != document.source {
                    self.writer.set_source(existing.seq, document.source);
                }
                self.seen.insert(existing.seq);
                self.report.unchanged += 1;
                if self.report.unchanged.is_multiple_of(512) {
                    self.report_progress();
                }
                return Ok(());
            }
            self.check_replacement(&document, source)?;
        }
        self.batch_bytes += document.text.len();
        self.batch_ids.insert(id);
        self.batch.push((document, existing.is_some()));
        Ok(())
    }

    /// Refuses to replace a document of `source` by one that is another for all that is known, and
    /// counts those that come from another input.
    fn check_replacement(&mut self, document: &Document, source: Option<Arc<str>>) -> Result<()> {
        if !document.has_own_id {
            if !matches!(document.source.as_deref(), Some(STREAM_SOURCE | RECORDS_SOURCE)) {
                return Ok(());
            }
            // Every stream has the same name, so the number says nothing.
            let reason = format!(
                "no id of its own, and the index has another text as '{}', perhaps of another \
                 stream: name the field with the id with --id-field, or read a file instead",
                document.id
            );
            return Err(Error::input(document.place.clone(), reason));
        }
        if let (Some(old), Some(new)) = (source, &document.source)
            && old != *new
        {
            self.report.replaced_elsewhere += 1;
            let names = || [document.id.clone(), old.to_string(), new.to_string()];
            self.report.first_elsewhere.get_or_insert_with(names);
        }
        Ok(())
    }

    /// Counts a bad record if they are skipped. Returns the error if they are not, or if it is not
    /// about a record.
    fn skip_or(&mut self, error: Error) -> Result<()> {
        let Error::Input { place, reason } = &error else { return Err(error) };
        let OnError::Skip = self.options.on_error else {
            let found = self.options.found.and_then(|found| found.source(&place.file));
            let Some(source) = found else { return Err(error) };
            self.damaged.insert(Arc::clone(source));
            self.count_skipped(place, reason, &error);
            if self.report.input_errors.len() < MAX_MESSAGES
                && self.options.found.is_some_and(|found| found.is_named(&place.file))
            {
                self.report.input_errors.push((place.clone(), reason.clone()));
            }
            self.first_error.get_or_insert(error);
            return Ok(());
        };
        self.count_skipped(place, reason, &error);
        Ok(())
    }

    /// Returns the first error that was skipped, if no document could be indexed.
    fn check_any(&mut self) -> Result<()> {
        let IndexReport { added, updated, unchanged, duplicates, skipped, interrupted, .. } =
            self.report;
        // A run that reads recorded inputs again keeps their documents.
        let keeps_any = self.options.unchanged.is_some();
        match self.first_error.take() {
            Some(Error::Input { place, reason })
                if !keeps_any && !interrupted && added + updated + unchanged + duplicates == 0 =>
            {
                let others = match skipped {
                    1 => String::new(),
                    n => format!("; nothing else can be used either, {n} files or records in all"),
                };
                Err(Error::input(place, reason + &others))
            }
            _ => Ok(()),
        }
    }

    fn count_skipped(&mut self, place: &Place, reason: &str, error: &Error) {
        self.report.skipped += 1;
        self.report.files_with_errors.insert(place.file.clone());
        self.report.left_out.add(&place.to_string(), reason);
        if self.report.messages.len() < MAX_MESSAGES {
            self.report.messages.push(error.to_string());
        }
    }

    /// Chunks, embeds and stores the batch, and commits if a commit is due.
    fn flush(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_ids.clear();
        self.batch_bytes = 0;
        let chunks = self.split_all(&batch);
        if self.report.interrupted {
            return Ok(());
        }
        // Documents are stored as soon as all their rows are embedded, so that a stop loses little.
        let mut waiting: Vec<(Document, bool, Vec<Range<usize>>)> = Vec::new();
        let mut n_waiting = 0;
        for ((document, replaces), ranges) in batch.into_iter().zip(chunks) {
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

    /// Chunks the batch on all cores.
    fn split_all(&mut self, batch: &[(Document, bool)]) -> Vec<Result<Vec<Range<usize>>>> {
        self.report_progress();
        let chunking = self.writer.manifest().chunking;
        let (tokenizer, stop) = (self.embedder.tokenizer(), self.options.stop);
        let go_on = || !stop.is_some_and(|stop| stop.load(Ordering::Relaxed));
        let split = |(document, _): &(Document, bool)| {
            let count = |text: &str| tokenizer.count(text);
            chunk::split_while(document, &chunking, count, go_on)
        };
        let chunks = on(self.options.threads, || batch.par_iter().map(split).collect());
        self.report.interrupted |= !go_on();
        chunks
    }

    /// Embeds and stores documents with their chunks' ranges.
    fn store(&mut self, documents: Vec<(Document, bool, Vec<Range<usize>>)>) -> Result<()> {
        let texts = documents.iter().flat_map(|(document, _, ranges)| passages(document, ranges));
        let texts: Vec<String> = texts.collect();
        let mut all = Embeddings::default();
        for texts in texts.chunks(self.batch_rows) {
            let options = EmbedOptions { stop: self.options.stop, ..EmbedOptions::default() };
            let embed = || self.embedder.embed_with(texts, Role::Passage, options);
            let part = match on(self.options.threads, embed) {
                Err(Error::Interrupted(_)) => {
                    self.report.interrupted = true;
                    return Ok(());
                }
                part => part?,
            };
            all.vectors.extend(part.vectors);
            all.tokens.extend(part.tokens);
            all.lost.extend(part.lost);
            self.report_progress();
            if self.report.interrupted {
                return Ok(());
            }
        }
        let mut counts = all.tokens.into_iter().zip(all.lost);
        let mut vectors = &all.vectors[..];
        for (document, replaces, ranges) in documents {
            let own;
            (own, vectors) = vectors.split_at(ranges.len() * self.embedder.dim());
            let chunks = ranges.into_iter().zip(counts.by_ref());
            let chunks =
                chunks.map(|(range, (tokens, tokens_lost))| Chunk { range, tokens, tokens_lost });
            let chunks: Vec<Chunk> = chunks.collect();
            let counted = chunks.iter().map(|chunk| (chunk.tokens, chunk.tokens_lost));
            let counted: Vec<(u32, u32)> = counted.collect();
            // A vector of a model without normalization may be beyond half precision.
            let seq = match self.writer.put(document, chunks, own) {
                Ok(seq) => seq,
                Err(e) => {
                    self.skip_or(e)?;
                    continue;
                }
            };
            for (tokens, tokens_lost) in counted {
                self.report.rows += 1;
                self.report.tokens += u64::from(tokens);
                self.report.tokens_lost += u64::from(tokens_lost);
                self.report.rows_truncated += u64::from(tokens_lost > 0);
            }
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

    /// Notes a number format that is not the one of the index, if rows were embedded in it.
    fn note_precision(&mut self) {
        let model = self.writer.manifest().model.as_ref();
        let here = self.embedder.precision_family();
        let known = model.and_then(|model| model.precision.as_deref());
        if let Some(known) = known.filter(|known| *known != here && self.report.rows > 0) {
            self.report.notes.push(format!(
                "the index was embedded in {known}, and these {} rows in {here}: vectors of the \
                 two formats differ in their last digits; the setting `precision` chooses one",
                self.report.rows
            ));
            self.report.notes_total += 1;
        }
    }
}

/// The report of a run whose inputs hold nothing to read.
pub(super) fn without_documents(
    writer: &IndexWriter,
    options: IndexOptions<'_>,
) -> Result<IndexReport> {
    let mut report = IndexReport::default();
    find_outdated(writer, options, &SeqSet::default(), &HashSet::new(), &mut report)?;
    Ok(report)
}

/// Finds the documents that came from the inputs and were not `seen` in them. Those of `damaged`
/// sources, of which something was skipped, stay.
fn find_outdated(
    writer: &IndexWriter,
    options: IndexOptions<'_>,
    seen: &SeqSet,
    damaged: &HashSet<Arc<str>>,
    report: &mut IndexReport,
) -> Result<()> {
    let Some(inputs) = options.inputs else { return Ok(()) };
    let prune = options.prune && (report.skipped == 0 || options.on_error == OnError::Stop);
    let is_unread = |source: &str| {
        damaged.contains(source) || options.found.is_some_and(|found| found.is_unread(source))
    };
    let is_unchanged = |source: &str| options.unchanged.is_some_and(|files| files.contains(source));
    writer.for_each_live(|seq, source| match source {
        _ if seen.contains(seq) => {}
        Some(source) if is_unchanged(source) => {}
        Some(source) if is_unread(source) => report.kept += u64::from(prune),
        Some(source) if inputs.covers(source) => {
            if prune {
                report.outdated.push(seq);
            }
            if !report.outdated_sources.contains(source) {
                report.outdated_sources.insert(source.into());
            }
        }
        Some(_) => {}
        None => report.sourceless += u64::from(prune),
    })
}

/// Runs `work` on these threads, or where it is called.
fn on<T: Send>(threads: Option<&ThreadPool>, work: impl FnOnce() -> T + Send) -> T {
    match threads {
        Some(threads) => threads.install(work),
        None => work(),
    }
}

/// A set of document numbers, as a bitmap.
#[derive(Debug, Default)]
struct SeqSet(Vec<u64>);

impl SeqSet {
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
