//! Calls of `Index` that write.

use crate::array::Rows;
use crate::call::{Stop, report, run_waiting};
use crate::error::{OrRaise, usage};
use crate::opened::{Needs, SharedIndex};
use crate::records::{Batch, FieldNames, RecordSource, channel, send};
use crate::values::to_python;
use pyo3::prelude::*;
use rayon::ThreadPool;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use warpseek::engine::{Engine, ImportTarget};
use warpseek::error::{Error, Place, Result};
use warpseek::indexing::{
    self, Import, ImportReport, ImportedDocuments, IndexOptions, IndexReport, InputSettings,
    OnError, SyncOptions, Vectors, base_of,
};
use warpseek::ingest::{self, Document, DocumentReader, ExtractOptions, FieldMap, ReadNotes};
use warpseek::store::filter::Filter;
use warpseek::store::{Compaction, IndexMetric, IndexWriter, Language};
use warpseek::vectors::{VectorFile, langchain};

/// Indexes the records of an iterator.
pub(crate) fn add<'py>(
    py: Python<'py>,
    index: &SharedIndex,
    source: RecordSource,
    on_error: &str,
    progress: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let on_error = on_error_of(on_error)?;
    let (notes, progress, done) =
        (source.notes(), progress.map(Bound::unbind), AtomicUsize::new(0));
    let (sender, receiver) = channel();
    let work = |stop: &Stop, pool: &ThreadPool| {
        let mut documents = receiver.into_iter().flatten();
        let options = IndexOptions { on_error, ..IndexOptions::default() };
        let (begin, record) = (
            |_: &mut IndexWriter, _: &_| Ok(()),
            |_: &mut IndexWriter, _: &_, _: &IndexReport| Ok(()),
        );
        index_documents(index, &mut documents, options, (stop, pool), &done, begin, record)
    };
    let mut failed = None;
    let produce = |stop: &Stop| {
        let tick = |py: Python<'_>| report(py, progress.as_ref(), &done);
        failed = index.feeding(|| send(source, sender, stop, tick)).err();
        failed.is_none()
    };
    let tick = |py: Python<'_>, _: &Stop| report(py, progress.as_ref(), &done);
    let outcome = run_waiting(py, work, produce, tick);
    let outcome = finish(py, index, outcome);
    // An exception of the records' iterator, or Ctrl+C. What came before it may be committed.
    if let Some(exception) = failed {
        return Err(exception);
    }
    let mut indexed = outcome?;
    indexed.take_notes(&notes);
    report(py, progress.as_ref(), &done)?;
    to_python(py, &indexed)
}

/// Options of reading files, as Python passes them.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct FileOptions {
    fields: FieldNames,
    on_error: Option<String>,
    prune: bool,
    delimiter: Option<String>,
    globs: Vec<String>,
    no_ignore: bool,
}

impl FileOptions {
    /// The settings of reading.
    pub(crate) fn settings(self) -> PyResult<InputSettings> {
        let fields: FieldMap = self.fields.into();
        let delimiter = self.delimiter.as_deref().map(ingest::parse_delimiter).transpose();
        Ok(InputSettings {
            id_field: fields.id,
            text_field: fields.text,
            title_field: fields.title,
            metadata_fields: fields.metadata,
            delimiter: delimiter.or_raise()?,
            globs: self.globs,
            no_ignore: self.no_ignore,
            on_error: self.on_error.map(|name| on_error_of(&name)).transpose()?,
            ..InputSettings::default()
        })
    }
}

/// Indexes the documents of files and folders.
pub(crate) fn add_files<'py>(
    py: Python<'py>,
    index: &SharedIndex,
    paths: &[PathBuf],
    options: FileOptions,
    progress: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let prune = options.prune;
    let settings = options.settings()?;
    let on_error = settings.on_error;
    let strict = settings.is_strict();
    let base = base_of(&index.dir).or_raise()?;
    let options = settings.read_options(&base, ExtractOptions::default()).or_raise()?;
    let (progress, done) = (progress.map(Bound::unbind), AtomicUsize::new(0));
    let work = |stop: &Stop, pool: &ThreadPool| {
        let mut documents = ingest::open(paths, &options)?;
        let (roots, notes) = (documents.roots().clone(), documents.notes().clone());
        let found = documents.found_files().clone();
        let options = IndexOptions {
            on_error: on_error.unwrap_or(OnError::Stop),
            found: (!strict).then_some(&found),
            inputs: Some(&roots),
            prune,
            ..IndexOptions::default()
        };
        let begin = |writer: &mut IndexWriter, documents: &DocumentReader| {
            indexing::begin_inputs(writer, documents, &settings)
        };
        let record =
            |writer: &mut IndexWriter, documents: &DocumentReader, report: &IndexReport| {
                indexing::record_inputs(writer, documents, report, &settings)
            };
        let threads = (stop, pool);
        let mut indexed =
            index_documents(index, &mut documents, options, threads, &done, begin, record)?;
        indexed.take_notes(&notes);
        let decisions = documents.take_decisions();
        indexed.notes_total += decisions.len() as u64;
        indexed.notes.extend(decisions.into_iter().take(ingest::MAX_NOTES));
        indexed.take_left_out(&documents);
        Ok(indexed)
    };
    let tick = |py: Python<'_>, _: &Stop| report(py, progress.as_ref(), &done);
    let indexed = finish(py, index, run_waiting(py, work, |_| true, tick))?;
    report(py, progress.as_ref(), &done)?;
    to_python(py, &indexed)
}

/// Brings an index up to date with the files and folders that it has read.
pub(crate) fn sync<'py>(
    py: Python<'py>,
    index: &SharedIndex,
    progress: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let (progress, done) = (progress.map(Bound::unbind), AtomicUsize::new(0));
    let work = |stop: &Stop, pool: &ThreadPool| {
        let _turn = index.turn_to_write(stop)?;
        let mut writer = IndexWriter::open(&index.dir)?;
        let options = SyncOptions { stop: Some(stop), threads: Some(pool), ..Default::default() };
        let mut embedder = || {
            let needs = Needs { embedder: true, reranker: None };
            let searcher = pool.install(|| index.searcher(needs, stop))?;
            searcher.embedder.clone().ok_or_else(without_model)
        };
        let mut progress = |report: &IndexReport| {
            let finished = report.added + report.updated + report.unchanged + report.skipped;
            done.store(finished as usize, Ordering::Relaxed);
            !stop.load(Ordering::Relaxed)
        };
        indexing::sync(&index.dir, &mut writer, &mut embedder, &options, &mut progress)
    };
    let tick = |py: Python<'_>, _: &Stop| report(py, progress.as_ref(), &done);
    let synced = finish(py, index, run_waiting(py, work, |_| true, tick))?;
    report(py, progress.as_ref(), &done)?;
    let mut errors = synced.errors().into_iter();
    if let Some(Error::Input { place, reason }) = errors.next() {
        let others = errors.map(|error| format!("; {error}"));
        let reason = others.fold(reason, |all, other| all + &other);
        return Err(Error::input(place, reason)).or_raise();
    }
    to_python(py, &synced)
}

/// Indexes documents and prunes; `begin` has the writer before that, and `record` after it.
fn index_documents<D: Iterator<Item = Result<Document>>>(
    index: &SharedIndex,
    documents: &mut D,
    options: IndexOptions<'_>,
    (stop, pool): (&Stop, &ThreadPool),
    done: &AtomicUsize,
    begin: impl FnOnce(&mut IndexWriter, &D) -> Result<()>,
    record: impl FnOnce(&mut IndexWriter, &D, &IndexReport) -> Result<()>,
) -> Result<IndexReport> {
    let needs = Needs { embedder: true, reranker: None };
    let searcher = pool.install(|| index.searcher(needs, stop))?;
    let embedder = searcher.embedder.as_ref().ok_or_else(without_model)?;
    let _turn = index.turn_to_write(stop)?;
    let mut writer = IndexWriter::open(&index.dir)?;
    let mut progress = |report: &IndexReport| {
        let finished = report.added + report.updated + report.unchanged + report.skipped;
        done.store(finished as usize, Ordering::Relaxed);
        !stop.load(Ordering::Relaxed)
    };
    begin(&mut writer, documents)?;
    let options = IndexOptions { stop: Some(stop), threads: Some(pool), ..options };
    let mut report = indexing::index(&mut writer, embedder, documents, options, &mut progress)?;
    if !report.outdated.is_empty() {
        indexing::prune(&mut writer, &mut report)?;
    }
    record(&mut writer, documents, &report)?;
    progress(&report);
    Ok(report)
}

/// The error for an index of imported vectors that has to embed.
fn without_model() -> Error {
    Error::usage(
        "the index was made without a model: pass vectors=, or name the model that made its \
         vectors with Index.open(..., model=)",
    )
}

/// Takes up what was committed, whether or not the call failed. The failure of the call goes first.
fn finish<T>(py: Python<'_>, index: &SharedIndex, outcome: PyResult<T>) -> PyResult<T> {
    let reopened = py.detach(|| index.reopen());
    let value = outcome?;
    reopened.or_raise()?;
    Ok(value)
}

/// Stores records with their vectors.
pub(crate) fn add_vectors<'py>(
    py: Python<'py>,
    index: &SharedIndex,
    source: RecordSource,
    vectors: Rows,
    normalize: bool,
    progress: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let notes = source.notes();
    let given = vectors.n;
    let documents = index.feeding(|| source.all(py, given))?;
    if documents.len() != given {
        let n = match documents.len() > given {
            true => "more".to_owned(),
            false => documents.len().to_string(),
        };
        return Err(usage(format!("vectors has {given} rows, and there are {n} records")));
    }
    let (progress, done) = (progress.map(Bound::unbind), AtomicUsize::new(0));
    let Rows { values, dim, .. } = vectors;
    let vectors = Vectors::Memory { name: "vectors".to_owned(), dim, values };
    let work = |stop: &Stop, _: &ThreadPool| {
        let documents = documents_of(Some(documents), None)?;
        let _turn = index.turn_to_write(stop)?;
        let mut writer = IndexWriter::open(&index.dir)?;
        let import = Import { vectors, documents, normalize };
        import.run(&mut writer, &mut |rows| {
            done.store(rows, Ordering::Relaxed);
            !stop.load(Ordering::Relaxed)
        })
    };
    let tick = |py: Python<'_>, _: &Stop| report(py, progress.as_ref(), &done);
    let mut imported = finish(py, index, run_waiting(py, work, |_| true, tick))?;
    report(py, progress.as_ref(), &done)?;
    (imported.notes, imported.notes_total) = (notes.texts(), notes.total());
    to_python(py, &imported)
}

/// The metric of this name.
pub(crate) fn metric_of(name: &str) -> PyResult<IndexMetric> {
    let known = [IndexMetric::Cosine, IndexMetric::InnerProduct];
    known.into_iter().find(|metric| metric.name() == name).ok_or_else(|| {
        usage(format!("invalid metric '{name}': use \"cosine\" or \"inner_product\""))
    })
}

/// The metric of imported vectors, if it was asked for, and if they are scaled to unit length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ranking {
    metric: Option<IndexMetric>,
    normalize: bool,
}

impl Ranking {
    pub(crate) fn of(metric: Option<&str>, normalize: bool) -> PyResult<Self> {
        let metric = metric.map(metric_of).transpose()?;
        if normalize && metric == Some(IndexMetric::InnerProduct) {
            return Err(usage(
                "normalize=True makes vectors for the cosine: leave it or \
                 metric=\"inner_product\" out",
            ));
        }
        Ok(Self { metric, normalize: normalize || metric == Some(IndexMetric::Cosine) })
    }
}

/// The source of an import.
pub(crate) enum Imported {
    /// A vector file, its documents or ids.
    File(PathBuf, Option<Batch>, Option<Vec<String>>),
    /// A folder that LangChain saved, and the base name of its files.
    Langchain(PathBuf, String),
}

/// Imports vectors into an index, which the model made, with a language of the lexical index.
pub(crate) fn import(
    engine: &Engine,
    source: Imported,
    into: &Path,
    (model, language): (Option<&str>, Option<&str>),
    ranking: Ranking,
    (stop, pool): (&Stop, &ThreadPool),
) -> Result<ImportReport> {
    let Ranking { metric, normalize } = ranking;
    let (import, notes) = match source {
        Imported::File(file, documents, ids) => {
            let vectors = Vectors::File(VectorFile::open(&file, None)?);
            let documents = documents_of(documents, ids)?;
            (Import { vectors, documents, normalize }, ReadNotes::default())
        }
        Imported::Langchain(folder, name) => {
            let store = langchain::open(&folder, &name)?;
            let notes = store.notes.clone();
            (Import::of_langchain(store, normalize), notes)
        }
    };
    let language = language.map(str::parse::<Language>).transpose()?;
    let warning = import.check()?;
    let (dim, is_unit) = (import.vectors.dim(), import.is_unit()?);
    let target = ImportTarget { dim, model, metric, is_unit, is_scaled: normalize, language };
    let mut writer = pool.install(|| engine.import_writer(into, target))?;
    let mut report = import.run(&mut writer, &mut |_| !stop.load(Ordering::Relaxed))?;
    (report.notes, report.notes_total) = (notes.texts(), notes.total());
    report.notes.extend(warning);
    if report.not_unit > 0 && metric.is_none() {
        report.notes.push(format!(
            "{} vectors are not of unit length: scores are inner products, not cosines; \
             normalize=True scales them",
            report.not_unit
        ));
    }
    Ok(report)
}

/// The documents of a vector file, under the name that messages have for them.
fn documents_of(
    documents: Option<Batch>,
    ids: Option<Vec<String>>,
) -> Result<Option<(String, ImportedDocuments)>> {
    Ok(match (documents, ids) {
        (Some(_), Some(_)) => return Err(Error::usage("pass documents or ids, not both")),
        (Some(documents), None) => Some(("documents".to_owned(), Box::new(documents.into_iter()))),
        (None, Some(ids)) => {
            let document = |(i, id): (usize, String)| {
                let place = Place::record("ids", format!("id {}", i + 1));
                ingest::check_id(&id, &place)?;
                Ok(Document::new(id, "", place))
            };
            let documents: Vec<_> = ids.into_iter().enumerate().map(document).collect();
            Some(("ids".to_owned(), Box::new(documents.into_iter())))
        }
        (None, None) => None,
    })
}

/// Deletes documents. Ids that the index does not have are passed over.
pub(crate) fn delete(
    index: &SharedIndex,
    ids: &[String],
    filter: Option<&str>,
    stop: &Stop,
) -> Result<u64> {
    let filter = filter.map(Filter::parse).transpose()?;
    let turn = index.turn_to_write(stop)?;
    let mut writer = IndexWriter::open(&index.dir)?;
    let mut deleted = BTreeSet::new();
    for id in ids {
        deleted.extend(writer.find_all(id)?);
    }
    if let Some(filter) = &filter {
        deleted.extend(writer.find_where(filter)?.0);
    }
    let n = deleted.len() as u64;
    deleted.into_iter().for_each(|seq| writer.delete(seq));
    writer.commit()?;
    drop(writer);
    drop(turn);
    index.reopen()?;
    Ok(n)
}

/// Compacts the index.
pub(crate) fn compact(index: &SharedIndex, stop: &Stop) -> Result<Compaction> {
    let turn = index.turn_to_write(stop)?;
    let compaction = IndexWriter::open(&index.dir)?.compact()?;
    drop(turn);
    index.reopen()?;
    Ok(compaction)
}

fn on_error_of(name: &str) -> PyResult<OnError> {
    match name {
        "raise" => Ok(OnError::Stop),
        "skip" => Ok(OnError::Skip),
        other => Err(usage(format!("invalid on_error '{other}': use \"raise\" or \"skip\""))),
    }
}

impl From<FieldNames> for FieldMap {
    fn from(names: FieldNames) -> Self {
        let FieldNames { id, text, title, metadata } = names;
        Self { id, text, title, metadata }
    }
}
